//! Hashes the record's lines into a tree and signs it, beside the road of statements: on a thread of its own, from the very
//! bytes that were written, so that a line altered in the file before it is signed shows as well. What is signed is never
//! smaller, and never another, than what was signed before; a log that does not hold it is not gone on with.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::logs::{self, LogPlace};
use super::rotation;
use super::tail::LINE_BYTES_MAX;
use super::tree_files::TreeFiles;
use crate::StoreError;
use crate::keys::KeySet;
use crate::tree::{
    Checkpoint, CheckpointError, Frontier, FrontierError, HASH_BYTES, ProveError, Prover, SignError, SignerMemory,
    SigningKey, TILE_HASHES_MAX, Tile, TileError, TilePath, TileReader, leaf_hash,
};

/// So many lines, or so long after the first of them, and they are signed.
const SIGNED_AFTER_LINES: u64 = 256;
const SIGNED_AFTER: Duration = Duration::from_secs(1);

/// Whoever rotates the key, or waits for a signature, waits so long.
const SIGNED_WITHIN: Duration = Duration::from_secs(20);

/// What waits to be hashed. Past it whoever writes waits: hashing is faster than writing, so this is a disk that stalls.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Tiles that could not be written yet: a quarter of a million lines. Past it the record counts as not writable.
const TILES_OWED_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum NotaryError {
    #[error(
        "the log has {found} lines, fewer than the {signed} that were signed: it was cut, or an old copy was put back"
    )]
    Shorter { signed: u64, found: u64 },
    #[error("record {seq} is not the one that was signed: the log was altered, or another copy was put in its place")]
    Altered { seq: u64 },
    #[error("the log has lines and the signer remembers none; restore \"tree\" in data_dir")]
    Forgotten,
    #[error("what the signer remembers was written by somebody who has not the master key")]
    NotOwn,
    #[error("what the signer remembers cannot be read")]
    Memory(#[source] CheckpointError),
    #[error("the tree does not lead to what was signed")]
    Tree(#[source] FrontierError),
    #[error("no proof can be made that the log only grew")]
    Proof(#[source] ProveError),
    #[error("a checkpoint was not signed")]
    Sign(#[source] SignError),
    #[error("the thread that signs could not be started")]
    Thread(#[source] std::io::Error),
}

impl NotaryError {
    /// Whether the files say that the log is not what was signed. Where one cannot be read, or is not there and may be
    /// put back, nothing is known.
    pub(crate) fn is_contradiction(&self) -> bool {
        match self {
            Self::Shorter { .. } | Self::Altered { .. } | Self::NotOwn | Self::Memory(_) => true,
            Self::Tree(FrontierError::Tile(TileError::Unreadable { .. }))
            | Self::Proof(ProveError::Tile(TileError::Unreadable { .. })) => false,
            Self::Tree(_) | Self::Proof(_) => true,
            Self::Forgotten | Self::Sign(_) | Self::Thread(_) => false,
        }
    }
}

/// Hands lines over, and ends when it is dropped: with everything signed.
#[derive(Debug)]
pub(crate) struct Notary {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    ends: bool,
    /// The number of the key that signs.
    key: u64,
    /// Lines under the last checkpoint.
    signed: u64,
    /// Of the last one that was asked for.
    asked: u64,
    /// Why the last checkpoint was not made, in words.
    problem: Option<String>,
    is_stuck: bool,
}

impl Notary {
    /// Goes on from what was signed, with the lines that came after it. `next_seq`: how many lines there are. Says how many had
    /// been signed.
    pub(crate) fn open(
        data_dir: &Path,
        keys: (Arc<KeySet>, &str),
        next_seq: u64,
        durable: bool,
    ) -> Result<(Self, u64), StoreError> {
        let mut desk = Desk::open(data_dir, keys, next_seq, durable)?;
        let signed = desk.memory.last().size();
        desk.sign()?;
        let queue = Arc::new(Queue::default());
        queue.lock().key = desk.memory.key();
        queue.lock().asked = desk.memory.key();
        queue.lock().signed = desk.memory.last().size();
        let worker = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("notary".to_owned()).spawn(move || work(&worker, desk));
        Ok((Self { queue, thread: Some(thread.map_err(NotaryError::Thread)?) }, signed))
    }

    /// Whole lines that are in the file now. The buffer comes back empty.
    pub(crate) fn take(&self, lines: &mut Vec<u8>) {
        let mut waiting = self.queue.lock();
        while waiting.lines.len() > WAITING_BYTES_MAX && !waiting.ends {
            waiting = self.queue.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.lines.is_empty() {
            std::mem::swap(&mut waiting.lines, lines);
            self.queue.changed.notify_all();
        } else {
            waiting.lines.append(lines);
        }
    }

    /// The number of the key that is to take over, for one caller at a time.
    pub(crate) fn ask_for_next_key(&self) -> Result<u64, StoreError> {
        let mut waiting = self.queue.lock();
        if waiting.asked > waiting.key {
            return Err(StoreError::Rotating);
        }
        waiting.asked = waiting.key.saturating_add(1);
        Ok(waiting.asked)
    }

    /// It could not be put on record.
    pub(crate) fn take_back_next_key(&self) {
        let mut waiting = self.queue.lock();
        waiting.asked = waiting.key;
    }

    /// Waits until the key of this number signs, but no longer than a disk should take.
    pub(crate) fn wait_for_key(&self, number: u64) -> Result<(), StoreError> {
        let until = Instant::now() + SIGNED_WITHIN;
        let mut waiting = self.queue.lock();
        while waiting.key < number {
            waiting = self.wait(waiting, until)?;
        }
        Ok(())
    }

    /// How many lines are signed.
    pub(crate) fn signed(&self) -> u64 {
        self.queue.lock().signed
    }

    /// Waits until so many lines are, but no longer than a disk should take.
    pub(crate) fn wait_until_signed(&self, lines: u64) -> Result<(), StoreError> {
        let until = Instant::now() + SIGNED_WITHIN;
        let mut waiting = self.queue.lock();
        while waiting.signed < lines {
            waiting = self.wait(waiting, until)?;
        }
        Ok(())
    }

    fn wait<'q>(
        &'q self,
        waiting: MutexGuard<'q, Waiting>,
        until: Instant,
    ) -> Result<MutexGuard<'q, Waiting>, StoreError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let problem = waiting.problem.clone().unwrap_or_else(|| "the disk is slow".to_owned());
            return Err(StoreError::NotSigned { problem });
        }
        Ok(self.queue.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Whether what is written is signed.
    pub(crate) fn health(&self) -> Result<(), StoreError> {
        match &self.queue.lock().problem {
            None => Ok(()),
            Some(problem) => Err(StoreError::NotSigned { problem: problem.clone() }),
        }
    }

    /// Nothing more may be written that nobody can sign.
    pub(crate) fn is_stuck(&self) -> bool {
        self.queue.lock().is_stuck
    }
}

impl Drop for Notary {
    fn drop(&mut self) {
        self.queue.lock().ends = true;
        self.queue.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has said what went wrong.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next lines, or none when it is time to sign; and whether they are the last.
    fn next(&self, lines: &mut Vec<u8>, due: Option<Instant>) -> bool {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() && !waiting.ends {
            let Some(due) = due else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut waiting.lines, lines);
        self.changed.notify_all();
        waiting.ends && lines.is_empty()
    }
}

fn work(queue: &Queue, mut desk: Desk) {
    let mut lines = Vec::new();
    let mut due: Option<Instant> = None;
    loop {
        let ends = queue.next(&mut lines, due);
        desk.hash(&lines);
        lines.clear();
        if due.is_none() && desk.unsigned() > 0 {
            due = Some(Instant::now() + SIGNED_AFTER);
        }
        // A log that nobody has signed yet looks like one whose checkpoint was taken away.
        let is_first = desk.memory.last().size() == 0 && desk.unsigned() > 0;
        let is_due = is_first || due.is_some_and(|due| due <= Instant::now()) || desk.unsigned() >= SIGNED_AFTER_LINES;
        if is_due || ends {
            let signed = desk.sign();
            let mut waiting = queue.lock();
            waiting.problem = signed.as_ref().err().map(|problem| crate::chain(problem));
            waiting.is_stuck = desk.owed.len() > TILES_OWED_MAX;
            waiting.key = desk.memory.key();
            if signed.is_ok() {
                waiting.signed = desk.memory.last().size();
            }
            queue.changed.notify_all();
            // Tried again in a second: a disk may have room again.
            due = signed.is_err().then(|| Instant::now() + SIGNED_AFTER);
        }
        if ends {
            return;
        }
    }
}

/// A checkpoint by two keys that a crash left unnamed: it is one if the memory knows of it.
fn settle_rotation(files: &TreeFiles, signed: u64) -> Result<(), StoreError> {
    let Some(note) = files.rotating()? else { return Ok(()) };
    let size = String::from_utf8(note).ok().and_then(|note| note.lines().nth(1)?.parse().ok());
    if size == Some(signed) { files.keep_rotation(signed) } else { files.drop_rotating() }
}

/// A line's hash among those of a tile.
fn nth_hash(hashes: &[u8], seq: u64, first: u64) -> Option<&[u8]> {
    let at = usize::try_from(seq.checked_sub(first)?).ok()?.checked_mul(HASH_BYTES)?;
    hashes.get(at..)?.get(..HASH_BYTES)
}

/// The tree as far as it goes, and its signer.
struct Desk {
    frontier: Frontier,
    memory: SignerMemory,
    files: TreeFiles,
    keys: Arc<KeySet>,
    key: SigningKey,
    /// The key that a line names as the next, until both have signed.
    next: Option<SigningKey>,
    /// Full tiles that are not written yet.
    owed: Vec<Tile>,
    /// Of the last checkpoint.
    partial: Vec<TilePath>,
    /// The last checkpoint, until it is written: the signer remembers it already.
    unwritten: Option<String>,
}

impl Desk {
    fn open(
        data_dir: &Path,
        (keys, origin): (Arc<KeySet>, &str),
        next_seq: u64,
        durable: bool,
    ) -> Result<Self, StoreError> {
        let files = TreeFiles::open(data_dir, durable)?;
        let memory = match files.memory()? {
            Some(kept) if !kept.is_own(&keys) => return Err(NotaryError::NotOwn.into()),
            Some(kept) => SignerMemory::parse(&kept.text),
            None if next_seq > 0 => return Err(NotaryError::Forgotten.into()),
            None => SignerMemory::new(origin, logs::last_key(data_dir)?),
        };
        let memory = memory.map_err(NotaryError::Memory)?;
        // Before the first line: a log with lines and no memory of a signer is one whose memory was taken away.
        files.put_memory(&memory.text(), &keys)?;
        let signed = memory.last().size();
        settle_rotation(&files, signed)?;
        let key = keys.numbered_key(origin, memory.key())?;
        if signed > next_seq {
            return Err(NotaryError::Shorter { signed, found: next_seq }.into());
        }
        let frontier = Frontier::restore(memory.last(), &files).map_err(NotaryError::Tree)?;
        let partial = frontier.partial_tiles().iter().map(|tile| *tile.path()).collect();
        let mut desk =
            Self { frontier, memory, files, keys, key, next: None, owed: Vec::new(), partial, unwritten: None };
        desk.read_log(&LogPlace::current(data_dir), signed)?;
        Ok(desk)
    }

    /// Holds the last lines that were signed against their tile, and hashes those that came after them.
    fn read_log(&mut self, place: &LogPlace, signed: u64) -> Result<(), StoreError> {
        let (first, leaves) = self.last_leaves(signed)?;
        let segments = place.segments()?;
        let begin = segments.iter().rev().copied().find(|start| *start <= first).unwrap_or(0);
        let mut line = Vec::new();
        for segment in segments.into_iter().filter(|segment| *segment >= begin) {
            let path = place.segment(segment);
            let mut file = BufReader::new(File::open(&path).map_err(StoreError::io("open", &path))?);
            let mut seq = segment;
            loop {
                line.clear();
                let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
                let read = file.by_ref().take(limit).read_until(b'\n', &mut line);
                if read.map_err(StoreError::io("read", &path))? == 0 {
                    break;
                }
                if seq >= signed {
                    self.hash(&line);
                } else if let Some(leaf) = nth_hash(&leaves, seq, first)
                    && leaf != leaf_hash(line.strip_suffix(b"\n").unwrap_or(&line)).as_bytes()
                {
                    return Err(NotaryError::Altered { seq }.into());
                }
                seq += 1;
            }
        }
        Ok(())
    }

    /// The hashes in the last tile of lines, and the number of the first of them. Looking at every line would take as long
    /// as the log is: that is for `verify`.
    fn last_leaves(&self, signed: u64) -> Result<(u64, Vec<u8>), StoreError> {
        let width = u64::from(TILE_HASHES_MAX);
        let Some(last) = signed.checked_sub(1) else { return Ok((0, Vec::new())) };
        let first = last - last % width;
        let many = u16::try_from(signed - first).unwrap_or(TILE_HASHES_MAX);
        let path = TilePath::new(0, first / width, many).map_err(FrontierError::from).map_err(NotaryError::Tree)?;
        let read = self.files.read(&path).map_err(|source| TileError::Unreadable { path, source });
        let leaves = read.and_then(|bytes| bytes.ok_or(TileError::Missing { path, size: signed }));
        Ok((first, leaves.map_err(FrontierError::from).map_err(NotaryError::Tree)?))
    }

    fn hash(&mut self, lines: &[u8]) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            // Fails past 2^63 lines, and then nothing is signed any more.
            if let Ok(full) = self.frontier.append(leaf_hash(line)) {
                self.owed.extend(full);
            }
            if let Some(number) = rotation::number(line)
                && self.memory.key().checked_add(1) == Some(number)
            {
                // The names are well formed: the key that signs has them too.
                self.next = self.keys.numbered_key(self.key.verifier().name().as_str(), number).ok();
            }
        }
    }

    fn unsigned(&self) -> u64 {
        self.frontier.size().saturating_sub(self.memory.last().size())
    }

    /// Tiles before the checkpoint that needs them, the signer's memory before anybody sees what was signed.
    fn sign(&mut self) -> Result<(), StoreError> {
        // What the disk did not take the last time: a checkpoint by both keys must have its name before the memory moves on.
        self.files.keep_rotation(self.memory.last().size())?;
        if self.unsigned() == 0 {
            return self.publish();
        }
        while let Some(tile) = self.owed.first() {
            self.files.put_tile(tile)?;
            self.owed.remove(0);
        }
        let partial = self.frontier.partial_tiles();
        for tile in &partial {
            self.files.put_tile(tile)?;
        }
        let head = self.frontier.head();
        let mut prover = Prover::open(head, &self.files).map_err(NotaryError::Proof)?;
        let proof = prover.consistency(self.memory.last()).map_err(NotaryError::Proof)?;
        let origin = self.key.verifier().name().as_str();
        let checkpoint = Checkpoint::new(origin, head).map_err(NotaryError::Memory)?;
        let mut memory = self.memory.clone();
        let signers: Vec<&SigningKey> = std::iter::once(&self.key).chain(&self.next).collect();
        let note = memory.sign(&checkpoint, &proof, &signers).map_err(NotaryError::Sign)?;
        if self.next.is_some() {
            memory.hand_over();
            self.files.put_rotating(note.to_string().as_bytes())?;
        }
        self.files.put_memory(&memory.text(), &self.keys)?;
        self.memory = memory;
        self.unwritten = Some(note.to_string());
        if let Some(next) = self.next.take() {
            self.key = next;
            self.files.keep_rotation(head.size())?;
        }
        self.publish()?;
        let partial: Vec<TilePath> = partial.iter().map(|tile| *tile.path()).collect();
        for old in self.partial.iter().filter(|old| !partial.contains(old)) {
            self.files.forget(old);
        }
        self.partial = partial;
        Ok(())
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        if let Some(note) = &self.unwritten {
            self.files.put_checkpoint(note.as_bytes())?;
            self.unwritten = None;
        }
        Ok(())
    }
}
