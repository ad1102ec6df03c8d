//! Whether a record is what was signed: every line against the tree, the tree against the checkpoint and older ones, sealed
//! blobs against the digests that lines have of them. Works on a copy, offline, without the master key: blobs are compared as
//! they are stored, sealed. Says what was looked at and what was not.

mod chain;
mod erased;
mod finding;
mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ring::digest::{Context, SHA256};
use serde_json::Value;

pub use chain::HandedOver;
use chain::{Chain, RotationLine};
use erased::Keys;
pub use finding::Finding;

use crate::record::{BLOB_BYTES_MAX, ERASURE, LINE_BYTES_MAX, LogPlace, ROTATION, START, TreeFiles, logs};
use crate::stored::Stored;
use crate::tree::{
    Checkpoint, Frontier, HASH_BYTES, TILE_HASHES_MAX, TilePath, TileReader, TreeHash, TreeHead, VerifierKey, leaf_hash,
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
    /// Of the log's folder.
    pub name: String,
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
    /// Sessions whose keys were destroyed, with who and why on record; said of the log that is written.
    pub erased: u64,
    /// Where one signing key handed over to the next.
    pub handed_over: Vec<HandedOver>,
    /// Logs that did not hold what was signed and were kept aside, the oldest first.
    pub kept_aside: Vec<Verification>,
    findings: Vec<Finding>,
    more: usize,
}

impl Verification {
    fn of(place: &LogPlace, against: &Against<'_>) -> Self {
        Self {
            name: place.name.clone(),
            lines: 0,
            blobs: 0,
            signed: None,
            unsigned: 0,
            by_key: !against.keys.is_empty(),
            extends: Vec::new(),
            erased: 0,
            handed_over: Vec::new(),
            kept_aside: Vec::new(),
            findings: Vec::new(),
            more: 0,
        }
    }

    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.kept_aside.iter().all(Self::is_clean)
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

/// `data_dir` of a gateway, or a copy of it: every log there is. Fails only where it cannot be read.
pub fn verify(data_dir: &Path, against: &Against<'_>) -> Result<Verification, StoreError> {
    let mut places = logs(data_dir)?;
    // Folders are renamed one after the other: there may be a tree without its log for a moment.
    places.retain(|place| place.log.exists());
    let mut older: Vec<Kept> = against.older.iter().map(|(name, note)| Kept::new(name, note)).collect();
    let mut across = Across { cites: BTreeMap::new(), keys: Keys::of(data_dir) };
    let mut walked: Vec<Walked> = Vec::new();
    // The newest first: it says what was signed of those before it.
    for place in places.iter().rev() {
        let done = Verification::of(place, against);
        walked.push(walk_log((data_dir, place), (&mut older, &mut across), done)?);
    }
    // The oldest first: its keys lead to those of the logs behind it.
    let mut keys = against.keys.to_vec();
    let mut verified: Vec<Verification> =
        walked.into_iter().rev().map(|log| judge(log, &mut keys)).collect::<Vec<Verification>>();
    let newest = verified.pop();
    let mut newest = newest.unwrap_or_else(|| Verification::of(&LogPlace::current(data_dir), against));
    newest.kept_aside = verified;
    let (erased, problems) = across.keys.settle()?;
    newest.erased = erased;
    for finding in problems {
        newest.find(finding);
    }
    for (name, _) in across.cites {
        newest.find(Finding::LogMissing { name });
    }
    for kept in older {
        newest.find(match keys::unverified(&kept.note) {
            Ok(said) => Finding::OtherLog { name: kept.name, origin: said.origin().to_owned() },
            Err(problem) => Finding::Checkpoint { name: kept.name, problem },
        });
    }
    Ok(newest)
}

/// What is known only when all logs were read.
struct Across {
    /// What lines say was signed of logs that were kept aside, by their names.
    cites: BTreeMap<String, String>,
    keys: Keys,
}

const OWN: &str = "the checkpoint";

/// A checkpoint that the log is held against.
struct Kept {
    name: String,
    note: Vec<u8>,
}

impl Kept {
    fn new(name: &str, note: &[u8]) -> Self {
        Self { name: name.to_owned(), note: note.to_owned() }
    }

    fn is_of(&self, origin: Option<&str>) -> bool {
        origin.is_some() && keys::unverified(&self.note).ok().as_ref().map(Checkpoint::origin) == origin
    }
}

/// A log whose lines were read, before anybody has looked at signatures.
struct Walked {
    done: Verification,
    /// Its own checkpoint first, if it has one.
    notes: Vec<Kept>,
    /// What the next log says of it.
    cited: Option<Checkpoint>,
    rotations: Vec<RotationLine>,
    handed_over: Vec<Kept>,
    roots: BTreeMap<u64, TreeHash>,
}

/// Takes the older checkpoints that are of this log, and adds what it says of logs before it.
fn walk_log(
    (data_dir, place): (&Path, &LogPlace),
    (older, across): (&mut Vec<Kept>, &mut Across),
    mut done: Verification,
) -> Result<Walked, StoreError> {
    let files = place.files();
    // Before the lines: what a running gateway signs meanwhile is not waited for.
    let own = files.checkpoint()?.map(|note| Kept::new(OWN, &note));
    let said = own.as_ref().and_then(|own| keys::unverified(&own.note).ok());
    let signed = said.as_ref().map_or(0, |said| said.head().size());
    let said = said.or_else(|| Checkpoint::parse(&files.memory().ok()??.text).ok());
    let origin = said.as_ref().map(Checkpoint::origin);
    let (here, elsewhere): (Vec<Kept>, Vec<Kept>) =
        std::mem::take(older).into_iter().partition(|kept| kept.is_of(origin));
    *older = elsewhere;
    let notes: Vec<Kept> = own.into_iter().chain(here).collect();
    let handed_over: Vec<Kept> =
        files.rotations()?.into_iter().map(|(size, note)| Kept::new(&size.to_string(), &note)).collect();
    let cited = across.cites.remove(&place.name).and_then(|text| Checkpoint::parse(&text).ok());
    let said = notes.iter().chain(&handed_over).filter_map(|kept| keys::unverified(&kept.note).ok());
    let sizes: BTreeSet<u64> = said.chain(cited.clone()).map(|checkpoint| checkpoint.head().size()).collect();
    let mut rotations = Vec::new();
    let stored = Stored::of(data_dir);
    let mut walk = Walk {
        data_dir,
        place,
        files: &files,
        stored,
        signed,
        tile: None,
        across,
        rotations: &mut rotations,
        done: &mut done,
    };
    let roots = walk.lines(&sizes)?;
    done.unsigned = done.lines.saturating_sub(signed);
    Ok(Walked { done, notes, cited, rotations, handed_over, roots })
}

/// Signatures and roots. Keys that others hand over to are added to those that count.
fn judge(walked: Walked, known: &mut Vec<VerifierKey>) -> Verification {
    let Walked { mut done, notes, cited, rotations, handed_over, roots } = walked;
    let own = notes.first().filter(|kept| kept.name == OWN).and_then(|own| keys::unverified(&own.note).ok());
    let signed = own.map_or(0, |own| own.head().size());
    let handed_over: Vec<Vec<u8>> = handed_over.into_iter().map(|kept| kept.note).collect();
    let (chain, problems) = Chain::of(&rotations, &handed_over, (&roots, signed));
    for finding in problems {
        done.find(finding);
    }
    if done.by_key {
        chain.extend(known);
    }
    done.handed_over = chain.handed_over(known);
    if !notes.iter().any(|kept| kept.name == OWN) {
        done.find(Finding::NoCheckpoint);
    }
    for Kept { name, note } in notes {
        match keys::opened(&note, known, &chain, done.by_key) {
            Ok(checkpoint) => hold(&mut done, name, *checkpoint.head(), &roots),
            Err(problem) => done.find(Finding::Checkpoint { name, problem }),
        }
    }
    if let Some(checkpoint) = cited {
        hold(&mut done, "what the next log says was signed".to_owned(), *checkpoint.head(), &roots);
    }
    chain.leave(known);
    done
}

/// Whether the log's first lines are those of this head.
fn hold(done: &mut Verification, name: String, head: TreeHead, roots: &BTreeMap<u64, TreeHash>) {
    let (size, found) = (head.size(), done.lines);
    match roots.get(&size) {
        Some(root) if root == head.root() && name == OWN => done.signed = Some(head),
        Some(root) if root == head.root() => done.extends.push((name, size)),
        Some(_) => done.find(Finding::Contradicts { name, size }),
        None if name == OWN => done.find(Finding::Shorter { signed: size, found }),
        None => done.find(Finding::Beyond { name, size, found }),
    }
}

struct Walk<'a> {
    data_dir: &'a Path,
    place: &'a LogPlace,
    files: &'a TreeFiles,
    stored: Stored,
    /// So many lines have their hash in a tile.
    signed: u64,
    /// The tile that was read last.
    tile: Option<(u64, Option<Vec<u8>>)>,
    across: &'a mut Across,
    rotations: &'a mut Vec<RotationLine>,
    done: &'a mut Verification,
}

impl Walk<'_> {
    /// Every line once. Gives the roots at these sizes, as far as the lines reach.
    fn lines(&mut self, sizes: &BTreeSet<u64>) -> Result<BTreeMap<u64, TreeHash>, StoreError> {
        let mut frontier = Frontier::new();
        let mut roots = BTreeMap::new();
        if sizes.contains(&0) {
            roots.insert(0, frontier.root());
        }
        for segment in self.place.segments()? {
            let path = self.place.segment(segment);
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
        let text = |member| event.get("body")?.get(member)?.as_str().map(str::to_owned);
        match event.get("type").and_then(Value::as_str) {
            Some("recovery") => {
                self.across.cites.extend(text("log").map(|log| (log, text("signed").unwrap_or_default())));
            }
            Some(START) => {
                if let Some(problem) = self.across.keys.started(&event)? {
                    self.done.find(Finding::Key { seq, problem });
                }
            }
            Some(ERASURE) => self.across.keys.erasure(&event),
            Some(ROTATION) => match RotationLine::read(seq, text("old"), text("new")) {
                Some(line) => self.rotations.push(line),
                None => self.done.find(Finding::Rotation { seq, problem: "and does not name both keys".to_owned() }),
            },
            _ => {}
        }
        for kind in ["sql", "parameters", "lists", "sent"] {
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
        let Ok(mut file) = self.stored.blob(segment, offset) else { return Ok(Some("is missing")) };
        let (mut digest, mut chunk, mut left) = (Context::new(&SHA256), vec![0; 64 * 1024], bytes);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let part = chunk.get_mut(..most).unwrap_or_default();
            let read = file.read(part).map_err(StoreError::io("read a sealed text of", self.data_dir))?;
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
