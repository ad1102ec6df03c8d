//! Blobs and wrapped keys wherever they lie: in a gateway's own files, or in the pieces of them that an archive has.
//! A file of its own is preferred; pieces are looked for once, when one is not there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::StoreError;
use crate::record::{BLOB_FOLDER, KEYS_FILE, blob_path, slot_bytes};

/// Where an archive has pieces of the keys: apart, because erasure must reach them.
pub(crate) const KEYS_FOLDER: &str = "keys";

const PART: &str = ".part";

/// A piece of a blob segment, in its folder.
pub(crate) fn blob_part(segment: u64, offset: u64) -> String {
    format!("{segment:020}.{offset:020}{PART}")
}

/// A piece of the keys that begins with this slot, in its folder.
pub(crate) fn keys_part(slot: u64) -> String {
    format!("{slot:020}{PART}")
}

/// Where the pieces of one file begin, and under which name.
type Pieces = BTreeMap<u64, PathBuf>;

#[derive(Debug)]
pub(crate) struct Stored {
    data_dir: PathBuf,
    blobs: OnceLock<BTreeMap<u64, Pieces>>,
    keys: OnceLock<Pieces>,
}

impl Stored {
    /// `data_dir` of a gateway, or a copy of it or of its archive.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), blobs: OnceLock::new(), keys: OnceLock::new() }
    }

    /// From this byte of a segment on.
    pub(crate) fn blob(&self, segment: u64, offset: u64) -> Result<Bytes<'_>, StoreError> {
        let path = blob_path(&self.data_dir, segment);
        let pieces = || self.blobs.get_or_init(|| blob_pieces(&self.data_dir.join(BLOB_FOLDER))).get(&segment);
        Bytes::open(&path, offset, pieces)
    }

    /// The file in which this byte of a segment lies, to be kept open. `None`: there is none, or it does not open.
    pub(crate) fn piece(&self, segment: u64, offset: u64) -> Option<Piece> {
        if let Ok(file) = File::open(blob_path(&self.data_dir, segment)) {
            return Some(Piece { file, begin: 0, end: u64::MAX });
        }
        let pieces = self.blobs.get_or_init(|| blob_pieces(&self.data_dir.join(BLOB_FOLDER))).get(&segment)?;
        let (begin, path) = pieces.range(..=offset).next_back()?;
        let end = pieces.range(offset.saturating_add(1)..).next().map_or(u64::MAX, |(next, _)| *next);
        Some(Piece { file: File::open(path).ok()?, begin: *begin, end })
    }

    /// So many bytes of a segment.
    pub(crate) fn blob_bytes(&self, segment: u64, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        self.blob(segment, offset)?.exactly(bytes)
    }

    /// All wrapped keys, one behind the other.
    pub(crate) fn keys(&self) -> Result<Bytes<'_>, StoreError> {
        let path = self.data_dir.join(KEYS_FILE);
        Bytes::open(&path, 0, || Some(self.keys.get_or_init(|| key_pieces(&self.data_dir.join(KEYS_FOLDER)))))
    }

    /// A wrapped key as it is stored: zeros where it was destroyed.
    pub(crate) fn slot(&self, slot: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.data_dir.join(KEYS_FILE);
        let offset = slot.saturating_mul(slot_bytes());
        let pieces = || Some(self.keys.get_or_init(|| key_pieces(&self.data_dir.join(KEYS_FOLDER))));
        Bytes::open(&path, offset, pieces)?.exactly(usize::try_from(slot_bytes()).unwrap_or(usize::MAX))
    }
}

/// One file of a segment: the segment itself, or a part of it.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) file: File,
    /// Where its first byte lies in the segment, and where another file goes on.
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

/// Bytes from some offset on, over the borders of pieces.
#[derive(Debug)]
pub(crate) struct Bytes<'a> {
    /// What an error names.
    path: PathBuf,
    file: File,
    /// Of the next byte.
    at: u64,
    pieces: Option<&'a Pieces>,
}

impl<'a> Bytes<'a> {
    fn open(path: &Path, offset: u64, pieces: impl FnOnce() -> Option<&'a Pieces>) -> Result<Self, StoreError> {
        match File::open(path) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(offset)).map_err(StoreError::io("read", path))?;
                Ok(Self { path: path.to_owned(), file, at: offset, pieces: None })
            }
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
                let pieces = pieces();
                let found = pieces.and_then(|pieces| pieces.range(..=offset).next_back());
                let Some((start, piece)) = found else { return Err(StoreError::io("open", path)(problem)) };
                let mut file = File::open(piece).map_err(StoreError::io("open", piece))?;
                file.seek(SeekFrom::Start(offset - start)).map_err(StoreError::io("read", piece))?;
                Ok(Self { path: piece.clone(), file, at: offset, pieces })
            }
            Err(problem) => Err(StoreError::io("open", path)(problem)),
        }
    }

    fn exactly(mut self, bytes: usize) -> Result<Vec<u8>, StoreError> {
        let mut read = vec![0; bytes];
        match self.read_exact(&mut read) {
            Ok(()) => Ok(read),
            Err(problem) => Err(StoreError::io("read", &self.path)(problem)),
        }
    }
}

impl Read for Bytes<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.file.read(into)?;
            self.at = self.at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            // The end, or where the next piece goes on. One that begins elsewhere leaves a gap: nothing is read over it.
            let Some(next) = self.pieces.and_then(|pieces| pieces.get(&self.at)) else { return Ok(0) };
            if *next == self.path {
                return Ok(0);
            }
            self.file = File::open(next)?;
            self.path.clone_from(next);
        }
    }
}

/// What is no piece by its name is none.
fn blob_pieces(folder: &Path) -> BTreeMap<u64, Pieces> {
    let mut found: BTreeMap<u64, Pieces> = BTreeMap::new();
    for (name, path) in files(folder) {
        let numbers = name.strip_suffix(PART).and_then(|stem| stem.split_once('.'));
        let numbers = numbers.and_then(|(segment, offset)| Some((segment.parse().ok()?, offset.parse().ok()?)));
        if let Some((segment, offset)) = numbers {
            found.entry(segment).or_default().insert(offset, path);
        }
    }
    found
}

fn key_pieces(folder: &Path) -> Pieces {
    let numbered = files(folder).into_iter().filter_map(|(name, path)| {
        let slot: u64 = name.strip_suffix(PART)?.parse().ok()?;
        Some((slot.checked_mul(slot_bytes())?, path))
    });
    numbered.collect()
}

/// A folder that cannot be listed has no pieces, and whoever asked names the file that is missing.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn pieces_read_as_the_file_they_are_of() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join(BLOB_FOLDER);
        fs::create_dir(&folder).unwrap();
        for (offset, bytes) in [(0, "abc"), (3, "defg"), (7, "h"), (9, "after a gap")] {
            fs::write(folder.join(blob_part(4, offset)), bytes).unwrap();
        }
        let stored = Stored::of(base.path());
        assert_eq!(stored.blob_bytes(4, 1, 6).unwrap(), b"bcdefg");
        assert_eq!(stored.blob_bytes(4, 0, 8).unwrap(), b"abcdefgh");
        assert_eq!(stored.blob_bytes(4, 9, 5).unwrap(), b"after");
        assert!(stored.blob_bytes(4, 7, 3).is_err(), "a byte is missing");
        assert!(stored.blob_bytes(5, 0, 1).is_err());
        fs::write(folder.join("00000000000000000004.seg"), "the file itself").unwrap();
        assert_eq!(stored.blob_bytes(4, 4, 4).unwrap(), b"file");
    }

    #[test]
    fn slots_are_found_in_pieces_of_any_size() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join(KEYS_FOLDER);
        fs::create_dir(&folder).unwrap();
        let slots = |from: u8, to: u8| (from..to).flat_map(|slot| vec![slot; 60]).collect::<Vec<u8>>();
        fs::write(folder.join(keys_part(0)), slots(0, 2)).unwrap();
        fs::write(folder.join(keys_part(2)), slots(2, 5)).unwrap();
        let stored = Stored::of(base.path());
        for slot in 0..5_u8 {
            assert_eq!(stored.slot(slot.into()).unwrap(), vec![slot; 60]);
        }
        assert!(stored.slot(5).is_err());
    }
}
