//! The files of the record: lines, sealed blobs and wrapped keys, append only.
//! A write is whole or undone: after any failure the file is cut back to its last whole record before anything else
//! is written. Numbers lines and stamps their time under one lock, so that file order, `seq` and time agree.
//! Knows nothing of what a line says, except of the heartbeat that opens every segment.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::json;
use crate::StoreError;
use crate::keys::WRAPPED_BYTES;

/// An event fits a line of this size, line break included; longer lists go to a blob.
pub const LINE_BYTES_MAX: usize = 32 * 1024;

/// Largest sealed text: above the largest message a client may send, and what one AES-GCM nonce may protect.
pub const BLOB_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A new file is begun past this size: small enough to scan at start and to ship whole.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(crate) const LOG_FOLDER: &str = "log";
pub(crate) const BLOB_FOLDER: &str = "blobs";
pub(crate) const KEYS_FILE: &str = "session-keys";

/// A file that only grows, by whole records.
#[derive(Debug)]
pub(crate) struct AppendFile {
    file: Arc<File>,
    path: PathBuf,
    /// End of the last whole record.
    len: u64,
    /// Bytes past `len` may be in the file.
    torn: bool,
    /// Written since the last sync.
    unsynced: bool,
}

impl AppendFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let len = file.metadata().map_err(StoreError::io("look at", &path))?.len();
        Ok(Self { file: Arc::new(file), path, len, torn: false, unsynced: true })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the bytes and returns where they begin.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        self.mend()?;
        let offset = self.len;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Err(source) = (&*self.file).write_all(bytes) {
            self.torn = true;
            // Tried at once, so that a reader sees whole lines; tried again before the next write if it fails.
            let _ = self.mend();
            return Err(StoreError::Io { action: "append to", path: self.path.clone(), source });
        }
        self.len = offset.saturating_add(length);
        self.unsynced = true;
        Ok(offset)
    }

    /// Back to `len`: what was appended after it is undone.
    pub(crate) fn cut_to(&mut self, len: u64) -> Result<(), StoreError> {
        self.len = self.len.min(len);
        self.torn = true;
        self.mend()
    }

    fn mend(&mut self) -> Result<(), StoreError> {
        if self.torn {
            self.file.set_len(self.len).map_err(StoreError::io("cut back", &self.path))?;
            self.torn = false;
            self.unsynced = true;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        }
        Ok(())
    }

    fn take_unsynced(&mut self) -> Option<(Arc<File>, PathBuf)> {
        std::mem::take(&mut self.unsynced).then(|| (Arc::clone(&self.file), self.path.clone()))
    }
}

/// A place in `Entry::head` that takes the position of a blob, known only once it is appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hole {
    /// Byte of `head` before which the position goes.
    pub(crate) at: usize,
    /// Where the blob begins in `Entry::blobs`.
    pub(crate) relative: u64,
}

/// A line short of its number and time, and the blobs it names.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// From `{` to before `,"seq"`.
    pub(crate) head: Vec<u8>,
    pub(crate) holes: Vec<Hole>,
    /// Members between `seq` and `time`, each with its comma in front.
    pub(crate) middle: Vec<u8>,
    pub(crate) kind: &'static str,
    pub(crate) blobs: Vec<u8>,
    /// The intent that this entry opens or closes.
    pub(crate) opens: bool,
    pub(crate) closes: Vec<u64>,
}

impl Entry {
    /// Longest the line can become: what number, time, type and positions take is bounded.
    pub(crate) fn line_bytes(&self) -> usize {
        const REST_BYTES_MAX: usize = 160;
        const HOLE_BYTES_MAX: usize = 64;
        self.head.len() + self.middle.len() + self.holes.len() * HOLE_BYTES_MAX + REST_BYTES_MAX
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) seq: u64,
    /// Where `Entry::blobs` went.
    pub(crate) blob_segment: u64,
    pub(crate) blob_offset: u64,
}

/// What a recovered disk must be able to take before the record counts as writable again.
const ROOM_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Journal {
    data_dir: PathBuf,
    gateway: String,
    log: AppendFile,
    blobs: AppendFile,
    blob_segment: u64,
    keys: AppendFile,
    next_seq: u64,
    /// Intents that still wait for their last outcome.
    open: BTreeSet<u64>,
    line: Vec<u8>,
    /// Segments are synced before they are left.
    durable: bool,
    /// A sync failed: what is in the files is not known any more.
    broken: bool,
    last_failed: bool,
}

/// What recovery found, for the journal to go on from.
#[derive(Debug)]
pub(crate) struct Position {
    /// The segment to go on with; `None` begins one.
    pub(crate) log: Option<AppendFile>,
    pub(crate) blob_segment: u64,
    pub(crate) next_seq: u64,
}

impl Journal {
    pub(crate) fn open(data_dir: &Path, gateway: &str, position: Position, durable: bool) -> Result<Self, StoreError> {
        let fresh = position.log.is_none();
        let log = match position.log {
            Some(log) => log,
            None => AppendFile::open(log_path(data_dir, position.next_seq))?,
        };
        let mut keys = AppendFile::open(data_dir.join(KEYS_FILE))?;
        // A slot is written before the line that names it: a torn one at the end is named by nobody.
        let slot = slot_bytes();
        let whole = keys.len() - keys.len() % slot;
        if whole < keys.len() {
            keys.cut_to(whole)?;
        }
        let mut journal = Self {
            data_dir: data_dir.to_owned(),
            gateway: gateway.to_owned(),
            log,
            blobs: AppendFile::open(blob_path(data_dir, position.blob_segment))?,
            blob_segment: position.blob_segment,
            keys,
            next_seq: position.next_seq,
            open: BTreeSet::new(),
            line: Vec::with_capacity(LINE_BYTES_MAX),
            durable,
            broken: false,
            last_failed: false,
        };
        if fresh {
            journal.heartbeat()?;
        }
        Ok(journal)
    }

    pub(crate) fn health(&self) -> Health {
        match (self.broken, self.last_failed) {
            (true, _) => Health::Broken,
            (false, true) => Health::LastWriteFailed,
            (false, false) => Health::Good,
        }
    }

    pub(crate) fn append(&mut self, entry: &Entry) -> Result<Appended, StoreError> {
        let result = self.try_append(entry);
        self.last_failed |= result.is_err();
        result
    }

    /// Whether there is room again for entries of every size. A short line may still fit where a statement no longer
    /// does, so a line that went through says little: more than any line or small statement is written and taken back.
    pub(crate) fn find_room(&mut self) -> Result<(), StoreError> {
        let end = self.blobs.len();
        let found = self.blobs.append(&[0; ROOM_BYTES]).map(drop);
        let taken_back = self.blobs.cut_to(end);
        found.and(taken_back)?;
        self.heartbeat()?;
        self.last_failed = false;
        Ok(())
    }

    fn try_append(&mut self, entry: &Entry) -> Result<Appended, StoreError> {
        if self.broken {
            return Err(StoreError::NotDurable);
        }
        if entry.line_bytes() > LINE_BYTES_MAX {
            return Err(StoreError::LineTooLong { bytes: entry.line_bytes() });
        }
        if self.log.len() >= SEGMENT_BYTES_MAX {
            self.roll_log()?;
        }
        let blob_offset = self.append_blobs(&entry.blobs)?;
        let appended = Appended { seq: self.next_seq, blob_segment: self.blob_segment, blob_offset };
        self.render(entry, appended);
        let written = self.log.append(&self.line);
        if let Err(error) = written {
            // Nobody names these bytes; leaving them behind would only waste a disk that may be full.
            let _ = self.blobs.cut_to(blob_offset);
            return Err(error);
        }
        self.next_seq += 1;
        if entry.opens {
            self.open.insert(appended.seq);
        }
        for closed in &entry.closes {
            self.open.remove(closed);
        }
        Ok(appended)
    }

    fn append_blobs(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        if bytes.is_empty() {
            return Ok(self.blobs.len());
        }
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(StoreError::BlobTooLong { bytes: bytes.len() });
        }
        if self.blobs.len() >= SEGMENT_BYTES_MAX {
            self.leave(|journal| &mut journal.blobs)?;
            self.blobs = AppendFile::open(blob_path(&self.data_dir, self.blob_segment + 1))?;
            self.blob_segment += 1;
        }
        self.blobs.append(bytes)
    }

    /// The wrapped key's slot number.
    pub(crate) fn append_key(&mut self, wrapped: &[u8; WRAPPED_BYTES]) -> Result<u64, StoreError> {
        let result = if self.broken { Err(StoreError::NotDurable) } else { self.keys.append(wrapped) };
        self.last_failed |= result.is_err();
        Ok(result? / slot_bytes())
    }

    /// A sign of life, and for recovery how far back open intents reach.
    pub(crate) fn heartbeat(&mut self) -> Result<u64, StoreError> {
        let mut entry = Entry { kind: "heartbeat", ..Entry::default() };
        let open = self.open.len();
        let oldest = self.open.first().copied();
        json::object(&mut entry.head, |line| {
            line.object("body", |body| {
                if let Some(oldest) = oldest {
                    body.number("oldest_open_seq", oldest);
                }
                body.number("open", u64::try_from(open).unwrap_or(u64::MAX));
            });
            line.text("gateway", &self.gateway);
        });
        entry.head.pop();
        self.append(&entry).map(|appended| appended.seq)
    }

    fn roll_log(&mut self) -> Result<(), StoreError> {
        self.leave(|journal| &mut journal.log)?;
        self.log = AppendFile::open(log_path(&self.data_dir, self.next_seq))?;
        self.heartbeat().map(drop)
    }

    fn leave(&mut self, file: impl FnOnce(&mut Self) -> &mut AppendFile) -> Result<(), StoreError> {
        if !self.durable {
            return Ok(());
        }
        let synced = file(self).sync().and_then(|()| sync_folders(&self.data_dir));
        self.broken |= synced.is_err();
        synced
    }

    fn render(&mut self, entry: &Entry, appended: Appended) {
        let line = &mut self.line;
        line.clear();
        let mut rest = entry.head.as_slice();
        let mut done = 0;
        for hole in &entry.holes {
            let Some((before, after)) = rest.split_at_checked(hole.at - done) else { break };
            line.extend_from_slice(before);
            position(line, appended.blob_segment, appended.blob_offset + hole.relative);
            rest = after;
            done = hole.at;
        }
        line.extend_from_slice(rest);
        line.extend_from_slice(b",\"seq\":");
        json::number(line, appended.seq);
        line.extend_from_slice(&entry.middle);
        // Writing to a vector does not fail.
        let _ = writeln!(line, ",\"time\":\"{:.6}\",\"type\":\"{}\",\"v\":1}}", jiff::Timestamp::now(), entry.kind);
    }

    /// What has to reach the disk for everything before `next_seq` to be durable.
    pub(crate) fn take_unsynced(&mut self) -> Result<Unsynced, StoreError> {
        if self.broken {
            return Err(StoreError::NotDurable);
        }
        let files = [self.keys.take_unsynced(), self.blobs.take_unsynced(), self.log.take_unsynced()];
        Ok(Unsynced { upto: self.next_seq, files })
    }

    pub(crate) fn sync_failed(&mut self) {
        self.broken = true;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    LastWriteFailed,
    Broken,
}

/// Files to sync, in this order: a line is durable only after what it names.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(crate) upto: u64,
    files: [Option<(Arc<File>, PathBuf)>; 3],
}

impl Unsynced {
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        for (file, path) in self.files.iter().flatten() {
            file.sync_data().map_err(StoreError::io("sync", path))?;
        }
        Ok(())
    }
}

/// `"offset":…,"segment":…`, two neighbours in the order of keys.
pub(crate) fn position(out: &mut Vec<u8>, segment: u64, offset: u64) {
    out.extend_from_slice(b"\"offset\":");
    json::number(out, offset);
    out.extend_from_slice(b",\"segment\":");
    json::number(out, segment);
}

pub(crate) fn log_path(data_dir: &Path, first_seq: u64) -> PathBuf {
    data_dir.join(LOG_FOLDER).join(format!("{first_seq:020}.jsonl"))
}

pub(crate) fn blob_path(data_dir: &Path, segment: u64) -> PathBuf {
    data_dir.join(BLOB_FOLDER).join(format!("{segment:020}.seg"))
}

pub(crate) fn slot_bytes() -> u64 {
    u64::try_from(WRAPPED_BYTES).unwrap_or(u64::MAX)
}

/// New files are durable once their folders are.
pub(crate) fn sync_folders(data_dir: &Path) -> Result<(), StoreError> {
    for folder in [data_dir.join(LOG_FOLDER), data_dir.join(BLOB_FOLDER), data_dir.to_owned()] {
        File::open(&folder).and_then(|opened| opened.sync_all()).map_err(StoreError::io("sync folder", &folder))?;
    }
    Ok(())
}

/// The numbers in the names of a folder's files with this ending, ascending.
pub(crate) fn numbered(folder: &Path, ending: &str) -> Result<Vec<u64>, StoreError> {
    let listed = std::fs::read_dir(folder).map_err(StoreError::io("list folder", folder))?;
    let mut numbers = Vec::new();
    for entry in listed {
        let entry: io::Result<std::fs::DirEntry> = entry;
        let name = entry.map_err(StoreError::io("list folder", folder))?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(ending)).and_then(|stem| stem.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_device_fails_every_write_and_moves_no_end() {
        let mut file = AppendFile::open(PathBuf::from("/dev/full")).unwrap();
        let first = file.append(b"line\n").unwrap_err();
        assert!(matches!(first, StoreError::Io { action: "append to", .. }), "{first}");
        assert_eq!(file.len(), 0);
        // A device cannot be cut back, so nothing may be written after what may lie there.
        let second = file.append(b"line\n").unwrap_err();
        assert!(matches!(second, StoreError::Io { action: "cut back", .. }), "{second}");
    }

    #[test]
    fn cutting_back_undoes_what_was_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = AppendFile::open(path.clone()).unwrap();
        assert_eq!(file.append(b"one\n").unwrap(), 0);
        let second = file.append(b"two\n").unwrap();
        file.cut_to(second).unwrap();
        assert_eq!(file.append(b"three\n").unwrap(), 4);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\nthree\n");
        assert_eq!(AppendFile::open(path).unwrap().len(), 10);
    }

    #[test]
    fn numbers_come_from_file_names_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["00000000000000000010.jsonl", "00000000000000000009.jsonl", "x.jsonl", "7.seg", "notes"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(numbered(folder.path(), ".jsonl").unwrap(), [9, 10]);
        assert!(numbered(&folder.path().join("none"), ".jsonl").is_err());
    }
}
