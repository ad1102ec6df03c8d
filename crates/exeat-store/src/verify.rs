//! Whether a record is what was signed: every line against the tree, the tree against the checkpoint and older ones, sealed
//! blobs against the digests that lines have of them. Works on a copy, offline, without the master key: blobs are compared as
//! they are stored, sealed. Says what was looked at and what was not.

mod blobs;
mod chain;
mod erased;
mod finding;
mod gone;
mod keys;
mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use blobs::{Blobs, MISSING};
pub use chain::HandedOver;
use chain::{Chain, RotationLine};
use erased::Keys;
pub use finding::Finding;
use gone::{Lost, Retained};
use line::Line;

use crate::StoreError;
use crate::record::{
    CARRIED, ERASURE, KEY_CARRIED, LINE_BYTES_MAX, LogPlace, RETENTION, ROTATION, START, TreeFiles, logs,
};
use crate::tree::{
    Checkpoint, Frontier, HASH_BYTES, TILE_HASHES_MAX, Tile, TilePath, TileReader, TreeHash, TreeHead, VerifierKey,
    leaf_hash,
};

/// A large record is read in large pieces.
const READ_BYTES: usize = 1024 * 1024;

/// Lines between two words to whoever waits.
const LINES_UNTOLD_MAX: u64 = 8192;

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
    /// How many the log has had, those included that are gone.
    pub lines: u64,
    /// The first that is there.
    pub first: u64,
    /// Whether retention took those before it, and says so.
    pub is_gone_rightly: bool,
    pub blobs: u64,
    /// Of those, what retention took of sessions that are erased.
    pub blobs_gone: u64,
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
            first: 0,
            is_gone_rightly: true,
            blobs: 0,
            blobs_gone: 0,
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
        // A log that was kept aside is what somebody has to look at, for as long as it lies there.
        self.findings.is_empty() && self.kept_aside.is_empty()
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

/// How far the reading of all logs has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub lines: u64,
    pub bytes: u64,
    /// That there were when it began.
    pub bytes_in_all: u64,
}

/// `data_dir` of a gateway, or a copy of it: every log there is. Fails only where it cannot be read.
pub fn verify(data_dir: &Path, against: &Against<'_>) -> Result<Verification, StoreError> {
    verify_telling(data_dir, against, &mut |_| ())
}

/// The same; `told` hears now and then how far it is.
pub fn verify_telling(
    data_dir: &Path,
    against: &Against<'_>,
    told: &mut dyn FnMut(Progress),
) -> Result<Verification, StoreError> {
    let mut places = logs(data_dir)?;
    // Folders are renamed one after the other: there may be a tree without its log for a moment.
    places.retain(|place| place.log.exists());
    let mut older: Vec<Kept> = against.older.iter().map(|(name, note)| Kept::new(name, note)).collect();
    let progress = Progress { bytes_in_all: bytes_of(&places)?, ..Progress::default() };
    let (keys, blobs, blobs_gone) = (Keys::of(data_dir), Blobs::of(data_dir), BTreeSet::new());
    let mut across = Across { cites: BTreeMap::new(), keys, blobs, blobs_gone, progress, told };
    let mut walked: Vec<Walked> = Vec::new();
    // The newest first: it says what was signed of those before it.
    for place in places.iter().rev() {
        let done = Verification::of(place, against);
        walked.push(walk_log((data_dir, place), (&mut older, &mut across), done)?);
    }
    for log in &mut walked {
        std::mem::take(&mut log.lost).settle(&across, &mut log.done);
    }
    // The oldest first: its keys lead to those of the logs behind it.
    let mut keys = against.keys.to_vec();
    let mut verified: Vec<Verification> =
        walked.into_iter().rev().map(|log| judge(log, &mut keys)).collect::<Vec<Verification>>();
    let newest = verified.pop();
    let mut newest = newest.unwrap_or_else(|| Verification::of(&LogPlace::current(data_dir), against));
    newest.kept_aside = verified;
    let current = LogPlace::current(data_dir);
    if !current.log.exists() {
        newest.find(Finding::LogMissing { name: current.name });
    }
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

fn bytes_of(places: &[LogPlace]) -> Result<u64, StoreError> {
    let mut bytes = 0_u64;
    for place in places {
        for segment in place.segments()? {
            // One that is gone by now is named where it is read.
            let length = std::fs::metadata(place.segment(segment)).map_or(0, |file| file.len());
            bytes = bytes.saturating_add(length);
        }
    }
    Ok(bytes)
}

/// What goes from log to log: what is known only when all were read, and what they have in common.
struct Across<'t> {
    /// What lines say was signed of logs that were kept aside, by their names.
    cites: BTreeMap<String, String>,
    keys: Keys,
    blobs: Blobs,
    /// Blob segments that retention took, as signed lines say.
    blobs_gone: BTreeSet<u64>,
    progress: Progress,
    told: &'t mut dyn FnMut(Progress),
}

impl Across<'_> {
    /// Another line was read, of so many bytes.
    fn read(&mut self, bytes: usize) {
        self.progress.lines += 1;
        self.progress.bytes = self.progress.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.progress.lines.is_multiple_of(LINES_UNTOLD_MAX) {
            (self.told)(self.progress);
        }
    }
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
    /// Sealed texts that are not there.
    lost: Lost,
}

/// Takes the older checkpoints that are of this log, and adds what it says of logs before it.
fn walk_log(
    (data_dir, place): (&Path, &LogPlace),
    (older, across): (&mut Vec<Kept>, &mut Across<'_>),
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
    let cited = across.cites.remove(&place.name);
    if cited.is_none() && place.name != LogPlace::current(data_dir).name {
        done.find(Finding::Uncited { name: place.name.clone() });
    }
    let cited = cited.and_then(|text| Checkpoint::parse(&text).ok());
    let said = notes.iter().chain(&handed_over).filter_map(|kept| keys::unverified(&kept.note).ok());
    let sizes: BTreeSet<u64> = said.chain(cited.clone()).map(|checkpoint| checkpoint.head().size()).collect();
    let (mut rotations, mut lost) = (Vec::new(), Lost::default());
    let mut walk = Walk {
        data_dir,
        place,
        files: &files,
        signed,
        tile: None,
        across,
        rotations: &mut rotations,
        retained: Retained::default(),
        lost: &mut lost,
        done: &mut done,
    };
    let roots = walk.lines(&sizes)?;
    rotations.sort_by_key(RotationLine::seq);
    rotations.dedup_by_key(|line| line.seq());
    done.unsigned = done.lines.saturating_sub(signed);
    Ok(Walked { done, notes, cited, rotations, handed_over, roots, lost })
}

/// Signatures and roots. Keys that others hand over to are added to those that count.
fn judge(walked: Walked, known: &mut Vec<VerifierKey>) -> Verification {
    let Walked { mut done, notes, cited, rotations, handed_over, roots, lost: _ } = walked;
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
        // Without the hashes of what is gone nobody can say what the root was.
        None if size <= found => done.find(Finding::Contradicts { name, size }),
        None if name == OWN => done.find(Finding::Shorter { signed: size, found }),
        None => done.find(Finding::Beyond { name, size, found }),
    }
}

struct Walk<'a, 't> {
    data_dir: &'a Path,
    place: &'a LogPlace,
    files: &'a TreeFiles,
    /// So many lines have their hash in a tile.
    signed: u64,
    /// The tile that was read last.
    tile: Option<(u64, Option<Vec<u8>>)>,
    across: &'a mut Across<'t>,
    rotations: &'a mut Vec<RotationLine>,
    retained: Retained,
    lost: &'a mut Lost,
    done: &'a mut Verification,
}

impl Walk<'_, '_> {
    /// Every line once. Gives the roots at these sizes, as far as the lines reach.
    fn lines(&mut self, sizes: &BTreeSet<u64>) -> Result<BTreeMap<u64, TreeHash>, StoreError> {
        let mut growing = Growing { frontier: Frontier::new(), sizes, roots: BTreeMap::new() };
        growing.note();
        let segments = self.place.segments()?;
        let first = segments.first().copied().unwrap_or(0);
        self.begin_behind(first, &mut growing)?;
        for segment in segments {
            if !self.segment(&self.place.segment(segment), &mut growing)? {
                break;
            }
        }
        if let Err(finding) = self.retained.covers(first) {
            self.done.is_gone_rightly = false;
            self.done.find(finding);
        }
        Ok(growing.roots)
    }

    /// What is gone is in the tree by its hashes: they stand in the tiles, and the roots say whether they are the ones.
    fn begin_behind(&mut self, first: u64, growing: &mut Growing<'_>) -> Result<(), StoreError> {
        (self.done.first, self.done.lines) = (first, first);
        let width = u64::from(TILE_HASHES_MAX);
        let mut at = 0;
        while at < first {
            let hashes = self.read_tile(at / width)?.map(|bytes| gone::hashes(&bytes)).unwrap_or_default();
            let wanted = usize::try_from((first - at).min(width)).unwrap_or(usize::MAX);
            let Some(hashes) = hashes.get(..wanted) else {
                self.done.find(Finding::NoHashes { first: at, next: first });
                growing.lose();
                return Ok(());
            };
            for hash in hashes {
                let full = growing.take(*hash);
                self.hold_tiles(&full, growing)?;
            }
            at = at.saturating_add(width);
        }
        Ok(())
    }

    /// False where it ends in what is no event.
    fn segment(&mut self, path: &Path, growing: &mut Growing<'_>) -> Result<bool, StoreError> {
        let mut file = BufReader::with_capacity(READ_BYTES, File::open(path).map_err(StoreError::io("open", path))?);
        let (mut line, mut offset) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
            let read = file.by_ref().take(limit).read_until(b'\n', &mut line);
            let read = read.map_err(StoreError::io("read", path))?;
            if line.pop() != Some(b'\n') {
                // The end, or a line that is still being written.
                return Ok(true);
            }
            let Some(seq) = self.line(&line, self.done.lines)? else {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let after = self.done.lines.saturating_sub(1);
                self.done.find(Finding::NoEvent { after, file: name, offset });
                return Ok(false);
            };
            self.across.read(read);
            let hash = leaf_hash(&line);
            self.hold_against_tile(seq, &hash)?;
            let full = growing.take(hash);
            self.hold_tiles(&full, growing)?;
            self.done.lines += 1;
            offset += u64::try_from(read).unwrap_or(u64::MAX);
        }
    }

    /// The number of a line, its place in the order and its blobs. `None`: it is no event.
    fn line(&mut self, line: &[u8], place: u64) -> Result<Option<u64>, StoreError> {
        let Some(event) = Line::parse(line) else { return Ok(None) };
        let Some(seq) = event.seq else { return Ok(None) };
        if seq != place {
            let missing = seq.checked_sub(place).filter(|many| *many == 1);
            self.done.find(match missing {
                Some(_) => Finding::Missing { seq: place },
                None => Finding::OutOfOrder { seq, place },
            });
        }
        if let Some("recovery" | START | CARRIED | ERASURE | ROTATION | RETENTION | KEY_CARRIED) = event.kind.as_deref()
        {
            self.of_all_logs(seq, line)?;
        }
        for blob in event.blobs() {
            let problem = self.across.blobs.hold(blob)?;
            self.done.blobs += 1;
            match (problem, blob.segment) {
                (None, _) => {}
                (Some(MISSING), Some(segment)) => {
                    self.lost.add(segment, event.session.as_deref().unwrap_or_default(), seq);
                }
                (Some(problem), _) => self.done.find(Finding::Blob { seq, problem }),
            }
        }
        Ok(Some(seq))
    }

    /// A line that says something of keys or of other logs: few are, and they are read whole.
    fn of_all_logs(&mut self, seq: u64, line: &[u8]) -> Result<(), StoreError> {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
        let text = |member| event.get("body")?.get(member)?.as_str().map(str::to_owned);
        match event.get("type").and_then(Value::as_str) {
            Some("recovery") => {
                self.across.cites.extend(text("log").map(|log| (log, text("signed").unwrap_or_default())));
            }
            Some(START | CARRIED) => {
                if let Some(problem) = self.across.keys.started(&event)? {
                    self.done.find(Finding::Key { seq, problem });
                }
            }
            Some(ERASURE) => self.across.keys.erasure(&event),
            // One that nobody has signed yet is nobody's word.
            Some(RETENTION) if seq < self.signed => {
                self.retained.take(&event);
                self.across.blobs_gone.extend(gone::blobs(&event));
            }
            Some(KEY_CARRIED) => self.key_carried(seq, &event)?,
            Some(ROTATION) => match RotationLine::read(seq, text("old"), text("new")) {
                Some(line) => self.rotations.push(line),
                None => self.done.find(Finding::Rotation { seq, problem: "and does not name both keys".to_owned() }),
            },
            _ => {}
        }
        Ok(())
    }

    /// A line by which one key handed over to another, as it stood in a file that is gone: the tree has its hash.
    fn key_carried(&mut self, seq: u64, event: &Value) -> Result<(), StoreError> {
        let body = event.get("body");
        let at = body.and_then(|body| body.get("seq")).and_then(Value::as_u64);
        let line = body.and_then(|body| body.get("line")).and_then(Value::as_str);
        let problem = |problem: &str| Finding::Rotation { seq, problem: problem.to_owned() };
        let (Some(at), Some(line)) = (at.filter(|at| *at < self.signed), line) else {
            self.done.find(problem("as an earlier record did, and does not say which"));
            return Ok(());
        };
        let (width, hash) = (u64::from(TILE_HASHES_MAX), leaf_hash(line.as_bytes()));
        let hashes = self.read_tile(at / width)?.map(|bytes| gone::hashes(&bytes)).unwrap_or_default();
        let found = usize::try_from(at % width).ok().and_then(|at| hashes.get(at));
        let carried: Value = serde_json::from_str(line).unwrap_or_default();
        let text = |member| carried.get("body")?.get(member)?.as_str().map(str::to_owned);
        match RotationLine::read(at, text("old"), text("new")).filter(|_| found == Some(&hash)) {
            Some(line) => self.rotations.push(line),
            None => self.done.find(problem("as an earlier record did that is not in the tree")),
        }
        Ok(())
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

    /// What the tree has of what is signed: a gateway goes on from it, and proofs are made of it.
    fn hold_tiles(&mut self, full: &[Tile], growing: &Growing<'_>) -> Result<(), StoreError> {
        let size = growing.frontier.size();
        if size > self.signed {
            return Ok(());
        }
        let mut problem = None;
        for tile in full {
            match self.files.read(tile.path()).map_err(StoreError::io("read a tile of", self.data_dir))? {
                None => problem = Some((*tile.path(), "is missing")),
                Some(bytes) if bytes != tile.to_bytes() => problem = Some((*tile.path(), TILE_ALTERED)),
                Some(_) => {}
            }
        }
        // Partial ones are in no archive, and give way to larger ones.
        let partial = if size == self.signed { growing.frontier.partial_tiles() } else { Vec::new() };
        for tile in partial {
            let bytes = self.files.read(tile.path()).map_err(StoreError::io("read a tile of", self.data_dir))?;
            if bytes.is_some_and(|bytes| bytes != tile.to_bytes()) {
                problem = Some((*tile.path(), TILE_ALTERED));
            }
        }
        match problem {
            // Behind an altered record every hash above it is another: the record is named.
            Some((_, TILE_ALTERED)) if !self.done.findings.is_empty() => {}
            Some((path, problem)) => self.done.find(Finding::Tile { path: path.to_string(), problem }),
            None => {}
        }
        Ok(())
    }

    fn read_tile(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let many = self.signed.saturating_sub(index.saturating_mul(u64::from(TILE_HASHES_MAX)));
        let width = u16::try_from(many.min(u64::from(TILE_HASHES_MAX))).unwrap_or(TILE_HASHES_MAX);
        let Ok(path) = TilePath::new(0, index, width) else { return Ok(None) };
        self.files.read(&path).map_err(StoreError::io("read a tile of", self.data_dir))
    }
}

const TILE_ALTERED: &str = "is not what the records give";

/// The tree, line by line.
struct Growing<'a> {
    frontier: Frontier,
    /// Where somebody asks for the root.
    sizes: &'a BTreeSet<u64>,
    roots: BTreeMap<u64, TreeHash>,
}

impl Growing<'_> {
    /// Gives the tiles that are full now.
    fn take(&mut self, hash: TreeHash) -> Vec<Tile> {
        // Full only past any log there can be.
        let full = self.frontier.append(hash).unwrap_or_default();
        self.note();
        full
    }

    fn note(&mut self) {
        if self.sizes.contains(&self.frontier.size()) {
            self.roots.insert(self.frontier.size(), self.frontier.root());
        }
    }

    /// Nothing is known of any root from here on.
    fn lose(&mut self) {
        (self.frontier, self.sizes) = (Frontier::new(), const { &BTreeSet::new() });
    }
}
