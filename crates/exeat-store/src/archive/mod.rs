//! What of a record goes into an archive, and under which names: pieces that never change, up to what was signed last, so
//! that a copy of the archive is a folder that verifies and reads like the gateway's own. Reads files, in the order in which
//! they are to be shipped, and ships nothing: whoever has a place for them does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::StoreError;
use crate::follow::Follower;
use crate::record::{
    BLOB_FOLDER, KEYS_FILE, LINE_BYTES_MAX, LOG_FOLDER, LogPlace, blob_path, logs_behind, numbered, origins_before,
    slot_bytes,
};
use crate::stored::{KEYS_FOLDER, blob_part, keys_part};
use crate::tree::{Checkpoint, CheckpointError, Note, ProveError, Prover, TILE_HASHES_MAX, TilePath, TileReader};

/// Bytes of one object. Small enough to hold a few in memory, large enough for a busy gateway's seconds.
pub const PIECE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where the last signed checkpoint stands in an archive: what is written anew with every round.
pub const CHECKPOINT: &str = "tree/checkpoint";

/// Where lines stand in an archive, and wrapped keys. The latter may be overwritten: erasure must reach them.
pub const LINES: &str = LOG_FOLDER;
pub const KEYS: &str = KEYS_FOLDER;
pub const BLOBS: &str = BLOB_FOLDER;

/// Looked at so often while the gateway signs anew beside us.
const LOOKS_MAX: usize = 5;

/// What was signed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Whose log it is.
    pub origin: String,
    /// How many lines.
    pub size: u64,
    /// As it stands in the file.
    pub note: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a checkpoint cannot be read")]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "what was archived last is not the beginning of this log: another gateway has this name, or the log is not the one that was signed"
    )]
    Other(#[source] ProveError),
}

impl Signed {
    /// Reads a note without asking who signed it.
    pub fn read(note: Vec<u8>) -> Result<Self, ArchiveError> {
        let checkpoint = checkpoint(&note)?;
        Ok(Self { origin: checkpoint.origin().to_owned(), size: checkpoint.head().size(), note })
    }

    /// Whether both say the same of the same log, whoever signed them.
    pub fn says_as(&self, other: &Self) -> bool {
        matches!((checkpoint(&self.note), checkpoint(&other.note)), (Ok(one), Ok(another)) if one == another)
    }

    /// Where it stands in an archive for good.
    pub fn name(&self) -> String {
        format!("tree/checkpoints/{:020}", self.size)
    }
}

fn checkpoint(note: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let text = Note::parse(note)?.to_string();
    let end = text.rfind("\n\n").map_or(text.len(), |at| at + 1);
    Checkpoint::parse(text.get(..end).unwrap_or_default())
}

/// What the record in this folder was signed for last. `None` before the first time.
pub fn signed(data_dir: &Path) -> Result<Option<Signed>, ArchiveError> {
    LogPlace::current(data_dir).files().checkpoint()?.map(Signed::read).transpose()
}

/// The first line that the log in this folder has: others are gone by retention.
pub fn first_line(data_dir: &Path) -> Result<u64, StoreError> {
    Ok(LogPlace::current(data_dir).segments()?.first().copied().unwrap_or(0))
}

/// Whether this file of sealed texts is gone as retention takes them: with all before it. Whoever verifies a copy says
/// whether it may be.
pub fn is_gone(data_dir: &Path, segment: u64) -> Result<bool, StoreError> {
    let first = numbered(&data_dir.join(BLOB_FOLDER), ".seg")?.first().copied();
    Ok(first.is_some_and(|first| segment < first))
}

/// Fails unless the record in this folder begins with what the archive was signed for last.
pub fn extends(data_dir: &Path, archived: &Signed) -> Result<(), ArchiveError> {
    let files = LogPlace::current(data_dir).files();
    let mut looks = 0;
    loop {
        looks += 1;
        let Some(own) = signed(data_dir)? else { return Ok(()) };
        let (older, newer) = (checkpoint(&archived.note)?, checkpoint(&own.note)?);
        let proven = Prover::open(*newer.head(), &files).and_then(|mut prover| prover.consistency(older.head()));
        match proven {
            Ok(_) => return Ok(()),
            // Tiles at the edge give way to larger ones when the gateway signs meanwhile.
            Err(ProveError::Tile(_)) if looks < LOOKS_MAX => {}
            Err(problem) => return Err(ArchiveError::Other(problem)),
        }
    }
}

/// A log that was kept aside, or followed one that was: under its name the archive has keys, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    pub origin: String,
    /// How many had been kept aside when it began.
    number: u64,
}

/// All begun before the one that was signed so.
pub fn earlier(data_dir: &Path, signed: &Signed) -> Result<Vec<Earlier>, StoreError> {
    let found = origins_before(data_dir, &signed.origin)?;
    Ok(found.into_iter().map(|(number, origin)| Earlier { origin, number }).collect())
}

impl Earlier {
    /// The first slot of the keys that a log begun after it names. Before it, slots are of the same sessions there and here. From
    /// there on they may be of others, that nobody here knows: an old copy of the folder may have been put back.
    pub fn slots_end(&self, data_dir: &Path) -> Result<u64, StoreError> {
        for place in logs_behind(data_dir, self.number)? {
            for segment in place.segments()? {
                if let Some(slot) = first_slot(&place.segment(segment))? {
                    return Ok(slot);
                }
            }
        }
        Ok(u64::MAX)
    }
}

/// That a line in this file of a log names.
fn first_slot(path: &Path) -> Result<Option<u64>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut file = BufReader::new(file);
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    while file.by_ref().take(limit).read_until(b'\n', &mut line).map_err(StoreError::io("read", path))? > 0 {
        let slots = Named::by(&line).slots;
        if slots > 0 {
            return Ok(Some(slots - 1));
        }
        line.clear();
    }
    Ok(None)
}

/// Lines, as many as fit one object, and what they name outside themselves.
#[derive(Debug)]
pub struct Lines {
    /// The number of the first.
    pub first: u64,
    /// Of the one behind the last.
    pub next: u64,
    pub bytes: Vec<u8>,
    pub named: Named,
}

/// Files that lines name, up to where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// By segment: up to which byte. What lies before is written for good.
    pub blobs: BTreeMap<u64, u64>,
    /// Up to which slot of the keys.
    pub slots: u64,
    /// Slots whose keys were destroyed, as these lines say.
    pub destroyed: BTreeSet<u64>,
}

impl Lines {
    /// The next ones, all before `end`. `None` where there are none.
    pub fn next(follower: &mut Follower, end: u64) -> Result<Option<Self>, StoreError> {
        let first = follower.next_seq();
        let bytes = follower.read(end, PIECE_BYTES_MAX)?;
        let named = Named::by(&bytes);
        Ok((!bytes.is_empty()).then(|| Self { first, next: follower.next_seq(), bytes, named }))
    }

    pub fn name(&self) -> String {
        lines_name(self.first)
    }
}

/// Of the piece of the log that begins with this line.
pub fn lines_name(first: u64) -> String {
    format!("{LOG_FOLDER}/{first:020}.jsonl")
}

/// Of the piece of a blob segment that begins with this byte.
pub fn blob_name(segment: u64, offset: u64) -> String {
    format!("{BLOB_FOLDER}/{}", blob_part(segment, offset))
}

/// Of the piece of the keys that begins with this slot.
pub fn keys_name(slot: u64) -> String {
    format!("{KEYS_FOLDER}/{}", keys_part(slot))
}

/// The number that a piece's name begins with, behind its folder.
pub fn number_of(name: &str) -> Option<u64> {
    name.split('.').next()?.parse().ok()
}

/// The segment and byte that a piece's name says, behind its folder.
pub fn blob_numbers_of(name: &str) -> Option<(u64, u64)> {
    let (segment, offset) = name.strip_suffix(".part")?.split_once('.')?;
    Some((segment.parse().ok()?, offset.parse().ok()?))
}

impl Named {
    fn by(lines: &[u8]) -> Self {
        let mut named = Self::default();
        for line in lines.split(|byte| *byte == b'\n') {
            // What is no event names nothing; whoever verifies the log says so.
            if let Ok(event) = serde_json::from_slice::<Value>(line) {
                named.add(&event);
                named.destroyed.extend(destroyed_slot(&event));
            }
        }
        named
    }

    /// Whatever says a segment, an offset and a length is a blob's place, wherever in a line it stands.
    fn add(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                let number = |member| members.get(member).and_then(Value::as_u64);
                if let (Some(segment), Some(offset), Some(bytes)) =
                    (number("segment"), number("offset"), number("bytes"))
                {
                    let end = self.blobs.entry(segment).or_default();
                    *end = (*end).max(offset.saturating_add(bytes));
                }
                if let Some(slot) = members.get("data_key").and_then(|key| key.get("slot")).and_then(Value::as_u64) {
                    self.slots = self.slots.max(slot.saturating_add(1));
                }
                members.values().for_each(|member| self.add(member));
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn destroyed_slot(event: &Value) -> Option<u64> {
    let body = event.get("body")?;
    let is_done = event.get("type")? == "erasure" && body.get("state")? == "done";
    body.get("slot").and_then(Value::as_u64).filter(|_| is_done)
}

/// Part of a blob segment, from one byte to before another, no more than one object takes.
pub fn blob_piece(data_dir: &Path, segment: u64, from: u64, to: u64) -> Result<Vec<u8>, StoreError> {
    let most = u64::try_from(PIECE_BYTES_MAX).unwrap_or(u64::MAX);
    read(&blob_path(data_dir, segment), from, to.min(from.saturating_add(most)))
}

/// Wrapped keys, from one slot to before another, no more than one object takes. Zeros where a key was destroyed.
pub fn keys_piece(data_dir: &Path, from: u64, to: u64) -> Result<Vec<u8>, StoreError> {
    let most = u64::try_from(PIECE_BYTES_MAX).unwrap_or(u64::MAX) / slot_bytes();
    let to = to.min(from.saturating_add(most));
    read(&data_dir.join(KEYS_FILE), from.saturating_mul(slot_bytes()), to.saturating_mul(slot_bytes()))
}

/// How many slots so many bytes are.
pub fn slots_in(bytes: u64) -> u64 {
    bytes / slot_bytes()
}

/// Destroys the key in one slot of a piece that begins with slot `first`. Says whether there was one.
pub fn forget_slot(piece: &mut [u8], first: u64, slot: u64) -> bool {
    let width = usize::try_from(slot_bytes()).unwrap_or(usize::MAX);
    let at = slot.checked_sub(first).and_then(|slot| usize::try_from(slot).ok()?.checked_mul(width));
    let found = at.and_then(|at| piece.get_mut(at..)?.get_mut(..width));
    found.is_some_and(|bytes| {
        let was_there = bytes.iter().any(|byte| *byte != 0);
        bytes.fill(0);
        was_there
    })
}

/// Whether two pieces of the keys are alike, but for slots that one of them has as destroyed.
pub fn same_slots(one: &[u8], other: &[u8]) -> bool {
    let width = usize::try_from(slot_bytes()).unwrap_or(usize::MAX);
    let destroyed = |slot: &[u8]| slot.iter().all(|byte| *byte == 0);
    let mut pairs = one.chunks(width).zip(other.chunks(width));
    one.len() == other.len() && pairs.all(|(one, other)| one == other || destroyed(one) || destroyed(other))
}

/// How many slots there are here.
pub fn slots_here(data_dir: &Path) -> Result<u64, StoreError> {
    let path = data_dir.join(KEYS_FILE);
    Ok(slots_in(std::fs::metadata(&path).map_err(StoreError::io("read", &path))?.len()))
}

/// Slots whose key was destroyed, of those before `end`.
pub fn forgotten_slots(data_dir: &Path, end: u64) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    let mut from = 0;
    while from < end {
        let piece = keys_piece(data_dir, from, end)?;
        let width = usize::try_from(slot_bytes()).unwrap_or(usize::MAX);
        let zero = piece.chunks_exact(width).zip(from..).filter(|(slot, _)| slot.iter().all(|byte| *byte == 0));
        found.extend(zero.map(|(_, slot)| slot));
        from += slots_in(u64::try_from(piece.len()).unwrap_or(u64::MAX)).max(1);
    }
    Ok(found)
}

/// Full tiles that a log of one size has and one of an earlier size had not, lowest level first.
pub fn new_tiles(before: u64, after: u64) -> Vec<TilePath> {
    let mut found = Vec::new();
    let (mut from, mut to) = (before, after);
    for level in 0_u8.. {
        (from, to) = (from / u64::from(TILE_HASHES_MAX), to / u64::from(TILE_HASHES_MAX));
        if to == 0 {
            break;
        }
        found.extend((from..to).filter_map(|index| TilePath::new(level, index, TILE_HASHES_MAX).ok()));
    }
    found
}

/// Checkpoints at which a signing key handed over to the next: where they go, and what they say.
pub fn rotations(data_dir: &Path) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let kept = LogPlace::current(data_dir).files().rotations()?;
    Ok(kept.into_iter().map(|(size, note)| (format!("tree/rotations/{size:020}"), note)).collect())
}

pub fn tile_name(path: &TilePath) -> String {
    format!("tree/{path}")
}

/// A full tile's bytes.
pub fn tile(data_dir: &Path, path: &TilePath) -> Result<Vec<u8>, StoreError> {
    let file: PathBuf = data_dir.join(tile_name(path));
    let missing = || StoreError::io("read", &file)(std::io::ErrorKind::NotFound.into());
    LogPlace::current(data_dir).files().read(path).map_err(StoreError::io("read", &file))?.ok_or_else(missing)
}

fn read(path: &Path, from: u64, to: u64) -> Result<Vec<u8>, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    file.seek(SeekFrom::Start(from)).map_err(StoreError::io("read", path))?;
    let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).map_err(StoreError::io("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lines_name_is_found_wherever_it_stands() {
        let lines = br#"{"body":{"data_key":{"slot":7},"sql":{"bytes":10,"offset":5,"segment":2,"sha256":""}},"seq":1}
{"body":{"results":{"parts":[{"bytes":4,"offset":100,"segment":2},{"bytes":1,"offset":0,"segment":3}]},"slot":99},"seq":2}
{"body":{"slot":3,"state":"begun"},"type":"erasure"}
{"body":{"slot":4,"state":"done"},"type":"erasure"}
{"body":{"slot":5,"state":"refused"},"type":"erasure"}
no event
"#;
        let named = Named::by(lines);
        let blobs = BTreeMap::from([(2, 104), (3, 1)]);
        assert_eq!(named, Named { blobs, slots: 8, destroyed: BTreeSet::from([4]) });
    }

    #[test]
    fn tiles_are_new_once_at_each_level() {
        assert_eq!(new_tiles(0, 255), []);
        let names = |before, after| new_tiles(before, after).iter().map(tile_name).collect::<Vec<_>>();
        assert_eq!(names(0, 256), ["tree/tile/0/000"]);
        assert!(names(256, 511).is_empty());
        let all = new_tiles(0, 65_536 + 300);
        assert_eq!(all.len(), 258);
        let mut parts = Vec::new();
        for step in (0..=65_536).step_by(100) {
            parts.extend(new_tiles(step, (step + 100).min(65_536 + 300)));
        }
        parts.sort();
        let mut all = new_tiles(0, 65_600);
        all.sort();
        assert_eq!(parts, all);
    }

    #[test]
    fn a_forgotten_slot_is_zero_and_no_other() {
        let mut piece = vec![1_u8; 180];
        assert!(forget_slot(&mut piece, 10, 11));
        assert!(!forget_slot(&mut piece, 10, 11), "there was one no more");
        assert!(!forget_slot(&mut piece, 10, 9) && !forget_slot(&mut piece, 10, 13));
        assert_eq!(piece, [vec![1; 60], vec![0; 60], vec![1; 60]].concat());
        assert!(same_slots(&piece, &[1; 180]) && same_slots(&[1; 180], &piece));
        assert!(!same_slots(&piece, &[2; 180]) && !same_slots(&piece, &[1; 120]));
    }
}
