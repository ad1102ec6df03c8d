//! Whether a record is what was signed: every line against the tree, the tree against the checkpoint and older ones, sealed
//! blobs against the digests that lines have of them. Works on a copy, offline, without the master key: blobs are compared as
//! they are stored, sealed. Says what was looked at and what was not.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use ring::digest::{Context, SHA256};
use serde_json::Value;

use crate::record::{BLOB_BYTES_MAX, LINE_BYTES_MAX, LOG_FOLDER, TreeFiles, blob_path, log_path, numbered};
use crate::tree::{
    Checkpoint, CheckpointError, Frontier, HASH_BYTES, Note, TILE_HASHES_MAX, TilePath, TileReader, TreeHash, TreeHead,
    VerifierKey, leaf_hash,
};
use crate::{StoreError, hex};

/// Findings named one by one; of the rest it is said how many there are.
pub const FINDINGS_MAX: usize = 20;

/// What the record is held against beside its own tree.
#[derive(Debug, Default)]
pub struct Against<'a> {
    /// Whose signatures count. Without any, no signature is looked at.
    pub keys: &'a [VerifierKey],
    /// Older checkpoints, as somebody kept them: what they are called, and the note.
    pub older: &'a [(String, Vec<u8>)],
}

/// What was found and what was looked at.
#[derive(Debug)]
pub struct Verification {
    pub lines: u64,
    pub blobs: u64,
    /// The last checkpoint, if its tree is the record's.
    pub signed: Option<TreeHead>,
    /// Lines behind it: on record, and signed within a second by a gateway that runs.
    pub unsigned: u64,
    /// Whether signatures were looked at.
    pub by_key: bool,
    /// Older checkpoints that the record extends.
    pub extends: Vec<(String, u64)>,
    findings: Vec<Finding>,
    more: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Altered { seq: u64 },
    Missing { seq: u64 },
    OutOfOrder { seq: u64, place: u64 },
    NoEvent { after: u64, file: String, offset: u64 },
    Shorter { signed: u64, found: u64 },
    Blob { seq: u64, problem: &'static str },
    NoCheckpoint,
    Checkpoint { name: String, problem: String },
    Contradicts { name: String, size: u64 },
    Beyond { name: String, size: u64, found: u64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered { seq } => write!(f, "record {seq} is not the one that was signed"),
            Self::Missing { seq } => write!(f, "record {seq} is missing"),
            Self::OutOfOrder { seq, place } => write!(f, "record {seq} stands where record {place} belongs"),
            Self::NoEvent { after, file, offset } => {
                write!(
                    f,
                    "what follows record {after} is no event (\"{file}\", byte {offset}); nothing behind it was read"
                )
            }
            Self::Shorter { signed, found } => {
                write!(f, "the log ends after {found} records, and {signed} were signed: its end was cut off")
            }
            Self::Blob { seq, problem } => write!(f, "a sealed text of record {seq} {problem}"),
            Self::NoCheckpoint => f.write_str("the record has no checkpoint: nothing in it is signed"),
            Self::Checkpoint { name, problem } => write!(f, "{name}: {problem}"),
            Self::Contradicts { name, size } => {
                write!(f, "{name}: the first {size} records are not those that it was signed for")
            }
            Self::Beyond { name, size, found } => {
                write!(
                    f,
                    "{name}: signed for {size} records, and the log has {found}: an old copy, or its end was cut off"
                )
            }
        }
    }
}

impl Verification {
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// In the order found, and how many more there are.
    pub fn findings(&self) -> (&[Finding], usize) {
        (&self.findings, self.more)
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

/// `data_dir` of a gateway, or a copy of it. Fails only where it cannot be read.
pub fn verify(data_dir: &Path, against: &Against<'_>) -> Result<Verification, StoreError> {
    let files = TreeFiles::of(data_dir);
    let mut done = Verification {
        lines: 0,
        blobs: 0,
        signed: None,
        unsigned: 0,
        by_key: !against.keys.is_empty(),
        extends: Vec::new(),
        findings: Vec::new(),
        more: 0,
    };
    // Before the lines: what a running gateway signs meanwhile is not waited for.
    let mut heads: Vec<(String, TreeHead)> = Vec::new();
    match files.checkpoint()? {
        None => done.find(Finding::NoCheckpoint),
        Some(note) => match opened(&note, against.keys) {
            Ok(checkpoint) => heads.push(("the checkpoint".to_owned(), *checkpoint.head())),
            Err(problem) => done.find(Finding::Checkpoint { name: "the checkpoint".to_owned(), problem }),
        },
    }
    let own = heads.first().map(|(_, head)| *head);
    for (name, note) in against.older {
        match opened(note, against.keys) {
            Ok(checkpoint) => heads.push((name.clone(), *checkpoint.head())),
            Err(problem) => done.find(Finding::Checkpoint { name: name.clone(), problem }),
        }
    }
    let mut walk =
        Walk { data_dir, files: &files, signed: own.map_or(0, |head| head.size()), tile: None, done: &mut done };
    let roots = walk.lines(heads.iter().map(|(_, head)| head.size()).collect())?;
    let lines = done.lines;
    for (number, (name, head)) in heads.into_iter().enumerate() {
        let is_own = number == 0 && own.is_some();
        match roots.get(&head.size()) {
            Some(root) if root == head.root() && is_own => done.signed = Some(head),
            Some(root) if root == head.root() => done.extends.push((name, head.size())),
            Some(_) => done.find(Finding::Contradicts { name, size: head.size() }),
            None if is_own => done.find(Finding::Shorter { signed: head.size(), found: lines }),
            None => done.find(Finding::Beyond { name, size: head.size(), found: lines }),
        }
    }
    done.unsigned = lines.saturating_sub(own.map_or(0, |head| head.size()));
    Ok(done)
}

/// With no keys, what it says about itself.
fn opened(note: &[u8], keys: &[VerifierKey]) -> Result<Checkpoint, String> {
    let words = |problem: &dyn std::error::Error| crate::chain(problem);
    if keys.is_empty() {
        let parsed = Note::parse(note).map_err(|problem| words(&problem))?;
        let text = parsed.to_string();
        let end = text.rfind("\n\n").map_or(text.len(), |at| at + 1);
        let checkpoint = Checkpoint::parse(text.get(..end).unwrap_or_default());
        return checkpoint.map_err(|problem: CheckpointError| words(&problem));
    }
    let name = keys.first().map(|key| key.name().as_str().to_owned()).unwrap_or_default();
    Checkpoint::open(note, &name, keys).map_err(|problem| words(&problem))
}

struct Walk<'a> {
    data_dir: &'a Path,
    files: &'a TreeFiles,
    /// So many lines have their hash in a tile.
    signed: u64,
    /// The tile that was read last.
    tile: Option<(u64, Option<Vec<u8>>)>,
    done: &'a mut Verification,
}

impl Walk<'_> {
    /// Every line once. Gives the roots at these sizes, as far as the lines reach.
    fn lines(&mut self, sizes: Vec<u64>) -> Result<BTreeMap<u64, TreeHash>, StoreError> {
        let mut frontier = Frontier::new();
        let mut roots = BTreeMap::new();
        if sizes.contains(&0) {
            roots.insert(0, frontier.root());
        }
        for segment in numbered(&self.data_dir.join(LOG_FOLDER), ".jsonl")? {
            let path = log_path(self.data_dir, segment);
            let mut file =
                BufReader::with_capacity(256 * 1024, File::open(&path).map_err(StoreError::io("open", &path))?);
            let (mut line, mut offset) = (Vec::new(), 0_u64);
            loop {
                line.clear();
                let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
                let read = file.by_ref().take(limit).read_until(b'\n', &mut line);
                let read = read.map_err(StoreError::io("read", &path))?;
                if line.pop() != Some(b'\n') {
                    // The end, or a line that is still being written.
                    break;
                }
                let Some(seq) = self.line(&line, frontier.size())? else {
                    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    let after = frontier.size().saturating_sub(1);
                    self.done.find(Finding::NoEvent { after, file: name, offset });
                    return Ok(roots);
                };
                let hash = leaf_hash(&line);
                self.hold_against_tile(seq, &hash)?;
                // Full only past any log there can be.
                let _ = frontier.append(hash);
                self.done.lines = frontier.size();
                offset += u64::try_from(read).unwrap_or(u64::MAX);
                if sizes.contains(&frontier.size()) {
                    roots.insert(frontier.size(), frontier.root());
                }
            }
        }
        Ok(roots)
    }

    /// The number of a line, its place in the order and its blobs. `None`: it is no event.
    fn line(&mut self, line: &[u8], place: u64) -> Result<Option<u64>, StoreError> {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return Ok(None) };
        let Some(seq) = event.get("seq").and_then(Value::as_u64) else { return Ok(None) };
        if seq != place {
            let missing = seq.checked_sub(place).filter(|many| *many == 1);
            self.done.find(match missing {
                Some(_) => Finding::Missing { seq: place },
                None => Finding::OutOfOrder { seq, place },
            });
        }
        for kind in ["sql", "parameters", "lists"] {
            let Some(blob) = event.get("body").and_then(|body| body.get(kind)) else { continue };
            let problem = self.blob(blob)?;
            self.done.blobs += 1;
            if let Some(problem) = problem {
                self.done.find(Finding::Blob { seq, problem });
            }
        }
        Ok(Some(seq))
    }

    fn hold_against_tile(&mut self, seq: u64, hash: &TreeHash) -> Result<(), StoreError> {
        if seq >= self.signed {
            return Ok(());
        }
        let width = u64::from(TILE_HASHES_MAX);
        let index = seq / width;
        if self.tile.as_ref().is_none_or(|(known, _)| *known != index) {
            self.tile = Some((index, self.read_tile(index)?));
        }
        let at = usize::try_from(seq % width).unwrap_or(usize::MAX).saturating_mul(HASH_BYTES);
        let known = self.tile.as_ref().and_then(|(_, bytes)| bytes.as_deref()?.get(at..)?.get(..HASH_BYTES));
        // Without its tile it is still held against the root.
        if known.is_some_and(|known| known != hash.as_bytes()) {
            self.done.find(Finding::Altered { seq });
        }
        Ok(())
    }

    fn read_tile(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let many = self.signed.saturating_sub(index.saturating_mul(u64::from(TILE_HASHES_MAX)));
        let width = u16::try_from(many.min(u64::from(TILE_HASHES_MAX))).unwrap_or(TILE_HASHES_MAX);
        let Ok(path) = TilePath::new(0, index, width) else { return Ok(None) };
        self.files.read(&path).map_err(StoreError::io("read a tile of", self.data_dir))
    }

    /// What is wrong with it.
    fn blob(&self, blob: &Value) -> Result<Option<&'static str>, StoreError> {
        let number = |member| blob.get(member).and_then(Value::as_u64);
        let (Some(segment), Some(offset), Some(bytes)) = (number("segment"), number("offset"), number("bytes")) else {
            return Ok(Some("is not named rightly"));
        };
        if usize::try_from(bytes).ok().is_none_or(|bytes| bytes > BLOB_BYTES_MAX) {
            return Ok(Some("is not named rightly"));
        }
        let path = blob_path(self.data_dir, segment);
        let Ok(mut file) = File::open(&path) else { return Ok(Some("is missing")) };
        file.seek(SeekFrom::Start(offset)).map_err(StoreError::io("read", &path))?;
        let (mut digest, mut chunk, mut left) = (Context::new(&SHA256), vec![0; 64 * 1024], bytes);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let part = chunk.get_mut(..most).unwrap_or_default();
            let read = file.read(part).map_err(StoreError::io("read", &path))?;
            if read == 0 {
                return Ok(Some("is cut off"));
            }
            digest.update(part.get(..read).unwrap_or_default());
            left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        }
        let found = hex::text(digest.finish().as_ref());
        let is_it = blob.get("sha256").and_then(Value::as_str) == Some(found.as_str());
        Ok((!is_it).then_some("is not the one that was recorded"))
    }
}
