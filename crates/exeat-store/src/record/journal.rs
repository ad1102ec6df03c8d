//! The files of the record and what still waits to be written to them.
//! Two locks, always taken in this order: the files, for as long as something is written; the tail, for as long as a
//! line is rendered into memory. So an event is appended while another thread writes, and one write takes with it
//! whatever was appended meanwhile. What could not be written stays in the tail, in order, and is tried again before
//! anything new is taken. Knows nothing of what a line says, except of the heartbeat that opens every segment.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::file::AppendFile;
use super::notary::Notary;
use super::tail::{Appended, Entry, HEADROOM_BYTES, Tail, wide};
use crate::StoreError;
use crate::keys::WRAPPED_BYTES;

/// A new file is begun past this size: small enough to scan at start and to ship whole.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Room asked of the disk ahead of the lines and the blobs: a second or two of a busy gateway...
const RESERVE_BYTES: u64 = 1024 * 1024;

/// ...and ahead of the keys, which come once a session.
const RESERVE_KEYS_BYTES: u64 = 64 * 1024;

/// What a recovered disk must be able to take before the record counts as writable again.
const ROOM_BYTES: usize = 256 * 1024;

pub(crate) const LOG_FOLDER: &str = "log";
pub(crate) const BLOB_FOLDER: &str = "blobs";
pub(crate) const KEYS_FILE: &str = "session-keys";

#[derive(Debug)]
pub(crate) struct Journal {
    gateway: String,
    /// A commit is on the disk, not only in the files.
    durable: bool,
    /// Every event before this `seq` is committed. Written under the lock of the files.
    committed: AtomicU64,
    notary: Arc<Notary>,
    files: Mutex<Files>,
    tail: Mutex<Tail>,
}

/// What recovery found, for the journal to go on from.
#[derive(Debug)]
pub(crate) struct Position {
    /// The segment to go on with; `None` begins one.
    pub(crate) log: Option<AppendFile>,
    pub(crate) blob_segment: u64,
    pub(crate) next_seq: u64,
}

impl Position {
    /// Of a new log: blobs and keys go on where they are.
    pub(crate) fn begin_anew(&mut self) {
        self.log = None;
        self.next_seq = 0;
    }
}

impl Journal {
    pub(crate) fn open(
        data_dir: &Path,
        gateway: &str,
        position: Position,
        (notary, durable): (Notary, bool),
    ) -> Result<Self, StoreError> {
        let notary = Arc::new(notary);
        let log = match position.log {
            Some(log) => log,
            None => AppendFile::open(log_path(data_dir, position.next_seq))?,
        };
        let mut keys = AppendFile::open(data_dir.join(KEYS_FILE))?;
        // A slot is written before the line that names it: a torn one at the end is named by nobody.
        let whole = keys.len() - keys.len() % slot_bytes();
        if whole < keys.len() {
            keys.cut_to(whole)?;
        }
        let mut files = Files {
            data_dir: data_dir.to_owned(),
            gateway: gateway.to_owned(),
            durable,
            blobs: AppendFile::open(blob_path(data_dir, position.blob_segment))?,
            log,
            keys,
            notary: Arc::clone(&notary),
            taken: Taken::default(),
            unsynced: Vec::new(),
            state: Health::Good,
        };
        let mut tail = Tail::new(position.next_seq, position.blob_segment);
        if files.log.len() == 0 {
            let heartbeat = tail.heartbeat(gateway);
            files.put(&mut tail, &heartbeat)?;
        }
        files.reserve(&mut tail);
        let committed = AtomicU64::new(if durable { 0 } else { tail.next_seq });
        let (files, tail) = (Mutex::new(files), Mutex::new(tail));
        Ok(Self { gateway: gateway.to_owned(), durable, committed, notary, files, tail })
    }

    /// Takes the event into the record's order. It is in the file after the next commit; until then it has room
    /// there. Where the disk promises none, it is written at once or refused.
    pub(crate) fn append(&self, entry: &Entry) -> Result<Appended, StoreError> {
        entry.check()?;
        if let Some(appended) = self.tail()?.append(entry) {
            return Ok(appended);
        }
        let mut files = self.files()?;
        let mut tail = self.tail()?;
        let appended = files.append(&mut tail, entry)?;
        self.wrote(&tail);
        Ok(appended)
    }

    /// The wrapped key's slot number.
    pub(crate) fn append_key(&self, wrapped: &[u8; WRAPPED_BYTES]) -> Result<u64, StoreError> {
        if let Some(slot) = self.tail()?.append_key(wrapped) {
            return Ok(slot);
        }
        self.files()?.append_key(&mut *self.tail()?, wrapped)
    }

    /// Returns once every event before this `seq` is as durable as the configuration asks for. What other threads
    /// appended before the write goes with it; they find it done.
    pub(crate) fn commit(&self, upto: u64) -> Result<(), StoreError> {
        if self.is_committed(upto) {
            return Ok(());
        }
        let mut files = self.files()?;
        if self.is_committed(upto) {
            // Somebody's commit covered it while we waited: that is the group in group commit.
            return Ok(());
        }
        let covered = files.take(&mut *self.tail()?)?;
        if let Err(error) = files.write_taken() {
            files.give_back(&mut *self.tail()?);
            return Err(error);
        }
        if self.durable
            && let Err(error) = files.sync()
        {
            self.tail()?.shut();
            return Err(error);
        }
        self.committed.store(covered, Ordering::Release);
        Ok(())
    }

    pub(crate) fn notary(&self) -> &Notary {
        &self.notary
    }

    /// The oldest intent that waits for its last outcome.
    pub(crate) fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.tail()?.oldest_open())
    }

    /// The file that sealed texts go into.
    pub(crate) fn blob_segment(&self) -> Result<u64, StoreError> {
        Ok(self.tail()?.blob_segment)
    }

    /// Leaves the files that are written for new ones, whatever their size.
    pub(crate) fn begin_segments(&self) -> Result<(), StoreError> {
        let mut files = self.files()?;
        let mut tail = self.tail()?;
        let begun = files.begin_both(&mut tail);
        files.settle(&mut tail, begun)?;
        self.wrote(&tail);
        Ok(())
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    pub(crate) fn is_committed(&self, upto: u64) -> bool {
        self.committed.load(Ordering::Acquire) >= upto
    }

    /// A sign of life, written at once.
    pub(crate) fn heartbeat(&self) -> Result<Appended, StoreError> {
        let mut files = self.files()?;
        let mut tail = self.tail()?;
        let entry = tail.heartbeat(&self.gateway);
        let appended = files.append(&mut tail, &entry)?;
        self.wrote(&tail);
        Ok(appended)
    }

    /// Whether events can be written. After a failed write it is tried whether there is room again for entries of
    /// every size. A short line may still fit where a statement no longer does, so a line that went through says
    /// little: more than any line or small statement must fit.
    pub(crate) fn health(&self) -> Result<(), StoreError> {
        self.notary.health()?;
        let mut files = self.files()?;
        match files.state {
            Health::Good => return Ok(()),
            Health::LastWriteFailed => {}
            Health::Broken => return Err(StoreError::NotDurable),
        }
        let mut tail = self.tail()?;
        let entry = tail.heartbeat(&self.gateway);
        files.find_room(&mut tail, &entry)?;
        self.wrote(&tail);
        Ok(())
    }

    /// Every event so far is on the disk, and so are the folders that name the files.
    pub(crate) fn sync_all(&self) -> Result<(), StoreError> {
        let mut files = self.files()?;
        files.sync()?;
        sync_folders(&files.data_dir)
    }

    /// Everything appended is in the files; the caller holds the lock of both.
    fn wrote(&self, tail: &Tail) {
        if !self.durable {
            self.committed.store(tail.next_seq, Ordering::Release);
        }
    }

    // A panic inside left the journal in a state nobody knows: no line is better than a wrong one.
    fn files(&self) -> Result<MutexGuard<'_, Files>, StoreError> {
        self.files.lock().map_err(|_| StoreError::Poisoned)
    }

    fn tail(&self) -> Result<MutexGuard<'_, Tail>, StoreError> {
        self.tail.lock().map_err(|_| StoreError::Poisoned)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    LastWriteFailed,
    /// A sync failed: what is in the files is not known any more.
    Broken,
}

#[derive(Debug)]
struct Files {
    data_dir: PathBuf,
    gateway: String,
    /// Segments are synced before they are left.
    durable: bool,
    log: AppendFile,
    blobs: AppendFile,
    keys: AppendFile,
    notary: Arc<Notary>,
    taken: Taken,
    /// Lines that are in the file and not on the disk yet, where they have to be: the disk may still lose them, and what
    /// is signed must not be lost.
    unsynced: Vec<u8>,
    state: Health,
}

/// What a commit has in hand while the tail takes new events.
#[derive(Debug, Default)]
struct Taken {
    log: Vec<u8>,
    blobs: Vec<u8>,
    keys: Vec<u8>,
}

impl Files {
    /// Writes the event and all that waits before it, or leaves the record as it was.
    fn append(&mut self, tail: &mut Tail, entry: &Entry) -> Result<Appended, StoreError> {
        let result = self.try_append(tail, entry);
        self.settle(tail, result)
    }

    fn try_append(&mut self, tail: &mut Tail, entry: &Entry) -> Result<Appended, StoreError> {
        self.write_waiting(tail)?;
        if entry.forwards {
            self.has_headroom()?;
        }
        if self.log.len() >= SEGMENT_BYTES_MAX {
            self.log = self.begin(log_path(&self.data_dir, tail.next_seq))?;
        }
        if self.log.len() == 0 {
            let heartbeat = tail.heartbeat(&self.gateway);
            self.put(tail, &heartbeat)?;
        }
        if self.blobs.len() >= SEGMENT_BYTES_MAX && !entry.blobs.is_empty() {
            self.blobs = self.begin(blob_path(&self.data_dir, tail.blob_segment + 1))?;
            tail.blob_segment += 1;
        }
        self.put(tail, entry)
    }

    /// A new file for lines, and one for sealed texts where the last has any.
    fn begin_both(&mut self, tail: &mut Tail) -> Result<(), StoreError> {
        self.write_waiting(tail)?;
        if self.log.len() > 0 {
            self.log = self.begin(log_path(&self.data_dir, tail.next_seq))?;
            let heartbeat = tail.heartbeat(&self.gateway);
            self.put(tail, &heartbeat)?;
        }
        if self.blobs.len() > 0 {
            self.blobs = self.begin(blob_path(&self.data_dir, tail.blob_segment + 1))?;
            tail.blob_segment += 1;
        }
        Ok(())
    }

    /// Whether there is room for the end of a statement that leaves now.
    fn has_headroom(&mut self) -> Result<(), StoreError> {
        let bytes = wide(HEADROOM_BYTES);
        if self.log.has_room(bytes) && self.blobs.has_room(bytes) {
            return Ok(());
        }
        Err(StoreError::NoRoom { path: self.data_dir.clone(), bytes })
    }

    /// The file after one that is left. Nothing of that one may be lost later, nor what this one is called.
    fn begin(&mut self, path: PathBuf) -> Result<AppendFile, StoreError> {
        if !self.durable {
            return AppendFile::open(path);
        }
        self.sync()?;
        let next = AppendFile::open(path)?;
        sync_folders(&self.data_dir).inspect_err(|_| self.state = Health::Broken)?;
        Ok(next)
    }

    /// Writes the event, whole or not at all. Nothing waits.
    fn put(&mut self, tail: &mut Tail, entry: &Entry) -> Result<Appended, StoreError> {
        let before = self.blobs.len();
        if !entry.blobs.is_empty() {
            self.blobs.append(&entry.blobs)?;
            self.sync_named()?;
        }
        let appended = tail.next(before);
        tail.render(entry, appended);
        let written = self.log.append(&tail.log.bytes);
        if let Err(error) = written {
            tail.log.bytes.clear();
            // Nobody names these bytes; leaving them behind would only waste a disk that may be full.
            let _ = self.blobs.cut_to(before);
            return Err(error);
        }
        self.hand_over(&mut tail.log.bytes);
        tail.accept(entry);
        Ok(appended)
    }

    fn append_key(&mut self, tail: &mut Tail, wrapped: &[u8; WRAPPED_BYTES]) -> Result<u64, StoreError> {
        let result = self.write_waiting(tail).and_then(|()| self.keys.append(wrapped));
        Ok(self.settle(tail, result)? / slot_bytes())
    }

    fn find_room(&mut self, tail: &mut Tail, heartbeat: &Entry) -> Result<(), StoreError> {
        self.write_waiting(tail)?;
        self.has_headroom()?;
        let end = self.blobs.len();
        if self.blobs.reserve(RESERVE_BYTES) < end.saturating_add(RESERVE_BYTES) {
            let found = self.blobs.append(&[0; ROOM_BYTES]).map(drop);
            let taken_back = self.blobs.cut_to(end);
            found.and(taken_back)?;
        }
        // Without a key no session begins. A slot that no line names says nothing.
        let end = self.keys.len();
        let found = self.keys.append(&[0; WRAPPED_BYTES]).map(drop);
        let taken_back = self.keys.cut_to(end);
        found.and(taken_back)?;
        self.append(tail, heartbeat)?;
        self.state = Health::Good;
        Ok(())
    }

    /// What waits goes into the files, blobs and keys before the lines that name them. What fails waits on.
    fn write_waiting(&mut self, tail: &mut Tail) -> Result<(), StoreError> {
        self.usable()?;
        write(&mut tail.keys.bytes, &mut self.keys)?;
        write(&mut tail.blobs.bytes, &mut self.blobs)?;
        self.write_lines(&mut tail.log.bytes)
    }

    /// Takes what waits out of the tail, and returns the `seq` before which all is taken.
    fn take(&mut self, tail: &mut Tail) -> Result<u64, StoreError> {
        self.usable()?;
        // Nothing is left in hand between two commits: each swap gives the tail an empty buffer.
        std::mem::swap(&mut self.taken.keys, &mut tail.keys.bytes);
        std::mem::swap(&mut self.taken.blobs, &mut tail.blobs.bytes);
        std::mem::swap(&mut self.taken.log, &mut tail.log.bytes);
        Ok(tail.next_seq)
    }

    fn write_taken(&mut self) -> Result<(), StoreError> {
        write(&mut self.taken.keys, &mut self.keys)?;
        write(&mut self.taken.blobs, &mut self.blobs)?;
        let mut lines = std::mem::take(&mut self.taken.log);
        let written = self.write_lines(&mut lines);
        self.taken.log = lines;
        written
    }

    fn write_lines(&mut self, lines: &mut Vec<u8>) -> Result<(), StoreError> {
        if lines.is_empty() {
            return Ok(());
        }
        self.sync_named()?;
        self.log.append(lines)?;
        self.hand_over(lines);
        Ok(())
    }

    /// What was written is hashed from these very bytes, once it cannot be lost any more.
    fn hand_over(&mut self, lines: &mut Vec<u8>) {
        if self.durable {
            self.unsynced.append(lines);
        } else {
            self.notary.take(lines);
        }
    }

    /// What could not be written waits again, before what came meanwhile.
    fn give_back(&mut self, tail: &mut Tail) {
        for (taken, waiting) in [
            (&mut self.taken.keys, &mut tail.keys),
            (&mut self.taken.blobs, &mut tail.blobs),
            (&mut self.taken.log, &mut tail.log),
        ] {
            taken.append(&mut waiting.bytes);
            std::mem::swap(taken, &mut waiting.bytes);
        }
        tail.shut();
        self.failed();
    }

    fn failed(&mut self) {
        if self.state == Health::Good {
            self.state = Health::LastWriteFailed;
        }
    }

    fn usable(&self) -> Result<(), StoreError> {
        if self.notary.is_stuck() {
            self.notary.health()?;
        }
        match self.state {
            Health::Good | Health::LastWriteFailed => Ok(()),
            Health::Broken => Err(StoreError::NotDurable),
        }
    }

    /// After each write of ours the tail learns how far it may go on.
    fn settle<T>(&mut self, tail: &mut Tail, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.reserve(tail);
        if result.is_err() {
            tail.shut();
            self.failed();
        }
        result
    }

    fn reserve(&mut self, tail: &mut Tail) {
        // A segment is left at its end, and that is not the tail's to do.
        let log = self.log.reserve(RESERVE_BYTES).min(SEGMENT_BYTES_MAX);
        let blobs = self.blobs.reserve(RESERVE_BYTES).min(SEGMENT_BYTES_MAX);
        let keys = self.keys.reserve(RESERVE_KEYS_BYTES);
        for (waiting, file, room) in
            [(&mut tail.log, &self.log, log), (&mut tail.blobs, &self.blobs, blobs), (&mut tail.keys, &self.keys, keys)]
        {
            let behind = wide(waiting.bytes.len());
            waiting.end = file.len().saturating_add(behind);
            waiting.room = room;
        }
    }

    /// What is written is on the disk.
    fn sync(&mut self) -> Result<(), StoreError> {
        self.usable()?;
        let synced = self.keys.sync().and_then(|()| self.blobs.sync()).and_then(|()| self.log.sync());
        // The kernel may have dropped what it could not write; only a restart reads what is really there.
        synced.inspect_err(|_| self.state = Health::Broken)?;
        if !self.unsynced.is_empty() {
            self.notary.take(&mut self.unsynced);
        }
        Ok(())
    }

    /// What lines name is on the disk before they are in the file: the disk keeps no order between two files.
    fn sync_named(&mut self) -> Result<(), StoreError> {
        if !self.durable {
            return Ok(());
        }
        self.usable()?;
        let synced = self.keys.sync().and_then(|()| self.blobs.sync());
        synced.inspect_err(|_| self.state = Health::Broken)
    }
}

fn write(bytes: &mut Vec<u8>, file: &mut AppendFile) -> Result<(), StoreError> {
    if !bytes.is_empty() {
        file.append(bytes)?;
        bytes.clear();
    }
    Ok(())
}

pub(crate) fn log_path(data_dir: &Path, first_seq: u64) -> PathBuf {
    data_dir.join(LOG_FOLDER).join(log_file_name(first_seq))
}

pub(crate) fn log_file_name(first_seq: u64) -> String {
    format!("{first_seq:020}.jsonl")
}

pub(crate) fn blob_path(data_dir: &Path, segment: u64) -> PathBuf {
    data_dir.join(BLOB_FOLDER).join(format!("{segment:020}.seg"))
}

pub(crate) fn slot_bytes() -> u64 {
    u64::try_from(WRAPPED_BYTES).unwrap_or(u64::MAX)
}

/// Every file that lines are in, or that they name.
pub(crate) fn sync_whole(data_dir: &Path) -> Result<(), StoreError> {
    let lines = numbered(&data_dir.join(LOG_FOLDER), ".jsonl")?.into_iter().map(|first| log_path(data_dir, first));
    let blobs = numbered(&data_dir.join(BLOB_FOLDER), ".seg")?.into_iter().map(|segment| blob_path(data_dir, segment));
    for path in lines.chain(blobs).chain([data_dir.join(KEYS_FILE)]).filter(|path| path.exists()) {
        File::open(&path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &path))?;
    }
    sync_folders(data_dir)
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
    fn numbers_come_from_file_names_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["00000000000000000010.jsonl", "00000000000000000009.jsonl", "x.jsonl", "7.seg", "notes"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(numbered(folder.path(), ".jsonl").unwrap(), [9, 10]);
        assert!(numbered(&folder.path().join("none"), ".jsonl").is_err());
    }
}
