//! The tree beside the log, as files: tiles under their names in the tile format, the last checkpoint, and what the signer
//! remembers. A file is there whole or not at all; a full tile is written once and never again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::hmac;

use super::journal::numbered;
use crate::keys::{self, KeySet};
use crate::tree::{Tile, TilePath, TileReader};
use crate::{StoreError, hex};

pub(crate) const TREE_FOLDER: &str = "tree";
const CHECKPOINT_FILE: &str = "checkpoint";
const MEMORY_FILE: &str = "signer";

/// Checkpoints signed by two keys, where one handed over to the next, by their sizes.
const ROTATIONS_FOLDER: &str = "rotations";

/// One of them, before the memory says that it was signed.
const ROTATING_FILE: &str = "rotating";

/// A file is written here first.
const UNFINISHED: &str = "unfinished";

/// Before the tag at the end of the signer's memory.
const TAG_WORD: &str = "tag ";
const TAG_BYTES: usize = 32;

/// The signer's memory as it was found.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) text: String,
    tag: Option<[u8; TAG_BYTES]>,
}

impl Remembered {
    fn read(mut text: String) -> Self {
        let at = text.rfind(TAG_WORD).filter(|at| *at == 0 || text.get(..*at).is_some_and(|text| text.ends_with('\n')));
        let tag = at.map(|at| text.split_off(at));
        let tag = tag.and_then(|line| hex::decode(line.strip_prefix(TAG_WORD)?.strip_suffix('\n')?));
        Self { text, tag }
    }

    /// Whether a holder of the master key wrote it. Whoever else could write one would have any log signed.
    pub(crate) fn is_own(&self, keys: &KeySet) -> bool {
        self.tag.as_ref().is_some_and(|tag| hmac::verify(keys.memory(), self.text.as_bytes(), tag).is_ok())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TreeFiles {
    folder: PathBuf,
    durable: bool,
}

impl TreeFiles {
    /// A tree's folder, for reading. Makes nothing.
    pub(crate) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), durable: false }
    }

    /// For writing. `durable`: what is written is on the disk.
    pub(crate) fn open(data_dir: &Path, durable: bool) -> Result<Self, StoreError> {
        let folder = data_dir.join(TREE_FOLDER);
        keys::make_private_dir(&folder)?;
        keys::refuse_open_to_others(&folder)?;
        Ok(Self { folder, durable })
    }

    pub(crate) fn put_tile(&self, tile: &Tile) -> Result<(), StoreError> {
        let path = self.folder.join(tile.path().to_string());
        if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
            keys::make_private_dir(parent)?;
            for made in parent.ancestors().take_while(|made| self.durable && made.starts_with(&self.folder)) {
                sync_folder(made)?;
            }
        }
        self.put(&path, &tile.to_bytes())
    }

    /// Of a tile that has grown since: whoever looks for it finds the larger one.
    pub(crate) fn forget(&self, path: &TilePath) {
        // What stays costs a few kilobytes and misleads nobody.
        let _ = fs::remove_file(self.folder.join(path.to_string()));
    }

    pub(crate) fn put_memory(&self, text: &str, keys: &KeySet) -> Result<(), StoreError> {
        let tag = hex::text(hmac::sign(keys.memory(), text.as_bytes()).as_ref());
        self.put(&self.folder.join(MEMORY_FILE), format!("{text}{TAG_WORD}{tag}\n").as_bytes())
    }

    /// What the signer remembers, whoever wrote it.
    pub(crate) fn memory(&self) -> Result<Option<Remembered>, StoreError> {
        let path = self.folder.join(MEMORY_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Remembered::read(text))),
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(problem) => Err(StoreError::io("read", &path)(problem)),
        }
    }

    pub(crate) fn put_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        self.put(&self.folder.join(CHECKPOINT_FILE), note)
    }

    pub(crate) fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.folder.join(CHECKPOINT_FILE);
        match fs::read(&path) {
            Ok(note) => Ok(Some(note)),
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(problem) => Err(StoreError::io("read", &path)(problem)),
        }
    }

    /// Before the memory knows of it.
    pub(crate) fn put_rotating(&self, note: &[u8]) -> Result<(), StoreError> {
        let folder = self.folder.join(ROTATIONS_FOLDER);
        keys::make_private_dir(&folder)?;
        self.put(&self.folder.join(ROTATING_FILE), note)
    }

    pub(crate) fn rotating(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.folder.join(ROTATING_FILE);
        match fs::read(&path) {
            Ok(note) => Ok(Some(note)),
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(problem) => Err(StoreError::io("read", &path)(problem)),
        }
    }

    /// Once it does. Does nothing where it is done.
    pub(crate) fn keep_rotation(&self, size: u64) -> Result<(), StoreError> {
        let from = self.folder.join(ROTATING_FILE);
        if !from.exists() {
            return Ok(());
        }
        let kept = self.folder.join(ROTATIONS_FOLDER).join(format!("{size:020}"));
        fs::rename(&from, kept).map_err(StoreError::io("keep", &from))
    }

    /// It was never signed as far as the memory knows.
    pub(crate) fn drop_rotating(&self) -> Result<(), StoreError> {
        let path = self.folder.join(ROTATING_FILE);
        match fs::remove_file(&path) {
            Err(problem) if problem.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(problem)),
            _ => Ok(()),
        }
    }

    /// Checkpoints signed by two keys, by their sizes.
    pub(crate) fn rotations(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let folder = self.folder.join(ROTATIONS_FOLDER);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut notes = Vec::new();
        for size in numbered(&folder, "")? {
            let path = folder.join(format!("{size:020}"));
            notes.push((size, fs::read(&path).map_err(StoreError::io("read", &path))?));
        }
        Ok(notes)
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let unfinished = self.folder.join(UNFINISHED);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        let mut file = opened.map_err(StoreError::io("make", &unfinished))?;
        file.write_all(bytes).map_err(StoreError::io("write", &unfinished))?;
        if self.durable {
            file.sync_data().map_err(StoreError::io("sync", &unfinished))?;
        }
        fs::rename(&unfinished, path).map_err(StoreError::io("put in place", path))?;
        match path.parent().filter(|_| self.durable) {
            Some(parent) => sync_folder(parent),
            None => Ok(()),
        }
    }
}

/// What was made or renamed in it is called so on the disk too.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(StoreError::io("sync folder", folder))
}

impl TileReader for TreeFiles {
    fn read(&self, path: &TilePath) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.folder.join(path.to_string())) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(problem) => Err(problem),
        }
    }
}
