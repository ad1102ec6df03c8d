//! The end of the record that is not in the files yet: lines in their order, and the blobs and keys they name.
//! Numbers lines and stamps their time, so that file order, `seq` and time agree. Takes an event only where the disk
//! has promised room for it: an event taken here fails no more for want of space. Does no I/O.

use std::collections::BTreeSet;

use super::json;
use super::stamp::Stamp;
use crate::StoreError;
use crate::keys::WRAPPED_BYTES;

/// An event fits a line of this size, line break included; longer lists go to a blob.
pub const LINE_BYTES_MAX: usize = 32 * 1024;

/// Largest sealed text: above the largest message a client may send, and what one AES-GCM nonce may protect.
pub const BLOB_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What may wait in memory; an event that does not fit is written through, with everything before it.
const TAIL_BYTES_MAX: usize = 256 * 1024;

/// Of the room that the disk has promised, what a statement that leaves does not take: its end, and what clients are told,
/// still fit when a disk is full.
pub(crate) const HEADROOM_BYTES: usize = 256 * 1024;

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
    /// From `{` on.
    pub(crate) head: Vec<u8>,
    pub(crate) holes: Vec<Hole>,
    /// Members between `head` and `seq`, each with its comma in front: the same from event to event.
    pub(crate) envelope: Vec<u8>,
    /// Members between `seq` and `time`, each with its comma in front.
    pub(crate) middle: Vec<u8>,
    pub(crate) kind: &'static str,
    pub(crate) blobs: Vec<u8>,
    /// A statement leaves on it: taken only while there is room left for its end.
    pub(crate) forwards: bool,
    /// The intent that this entry opens or closes.
    pub(crate) opens: bool,
    pub(crate) closes: Vec<u64>,
}

impl Entry {
    /// Longest the line can become: what number, time, type and positions take is bounded.
    pub(crate) fn line_bytes(&self) -> usize {
        const REST_BYTES_MAX: usize = 160;
        const HOLE_BYTES_MAX: usize = 64;
        self.head.len() + self.envelope.len() + self.middle.len() + self.holes.len() * HOLE_BYTES_MAX + REST_BYTES_MAX
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.line_bytes() > LINE_BYTES_MAX {
            return Err(StoreError::LineTooLong { bytes: self.line_bytes() });
        }
        if self.blobs.len() > BLOB_BYTES_MAX {
            return Err(StoreError::BlobTooLong { bytes: self.blobs.len() });
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) seq: u64,
    /// Where `Entry::blobs` went.
    pub(crate) blob_segment: u64,
    pub(crate) blob_offset: u64,
}

/// What one file still has to get.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) bytes: Vec<u8>,
    /// Where the next byte will stand in the file.
    pub(crate) end: u64,
    /// Up to here the disk has promised room; 0 after a failure, so that nothing is taken before it is mended.
    pub(crate) room: u64,
}

impl Waiting {
    fn fits(&self, bytes: usize) -> bool {
        self.end.saturating_add(wide(bytes)) <= self.room
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.end = self.end.saturating_add(wide(bytes.len()));
    }
}

#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) log: Waiting,
    pub(crate) blobs: Waiting,
    pub(crate) keys: Waiting,
    pub(crate) blob_segment: u64,
    pub(crate) next_seq: u64,
    /// Intents that still wait for their last outcome.
    open: BTreeSet<u64>,
    stamp: Stamp,
}

impl Tail {
    pub(crate) fn new(next_seq: u64, blob_segment: u64) -> Self {
        Self {
            log: Waiting::default(),
            blobs: Waiting::default(),
            keys: Waiting::default(),
            blob_segment,
            next_seq,
            open: BTreeSet::new(),
            stamp: Stamp::default(),
        }
    }

    /// `None` where there is no room for it, in memory or on the disk.
    pub(crate) fn append(&mut self, entry: &Entry) -> Option<Appended> {
        let line = entry.line_bytes();
        let held = self.log.bytes.len() + self.blobs.bytes.len();
        let small = held + line + entry.blobs.len() <= TAIL_BYTES_MAX;
        let headroom = if entry.forwards { HEADROOM_BYTES } else { 0 };
        let blobs_fit = entry.blobs.is_empty() || self.blobs.fits(entry.blobs.len() + headroom);
        if !small || !blobs_fit || !self.log.fits(line + headroom) {
            return None;
        }
        let appended = self.next(self.blobs.end);
        self.blobs.push(&entry.blobs);
        self.render(entry, appended);
        self.accept(entry);
        Some(appended)
    }

    /// The wrapped key's slot number; `None` where there is no room for it.
    pub(crate) fn append_key(&mut self, wrapped: &[u8; WRAPPED_BYTES]) -> Option<u64> {
        let slot = self.keys.end / wide(WRAPPED_BYTES);
        self.keys.fits(WRAPPED_BYTES).then(|| {
            self.keys.push(wrapped);
            slot
        })
    }

    /// What an entry appended now is called, with its blobs at this offset.
    pub(crate) fn next(&self, blob_offset: u64) -> Appended {
        Appended { seq: self.next_seq, blob_segment: self.blob_segment, blob_offset }
    }

    /// Appends the entry's line. It counts only once it is accepted.
    pub(crate) fn render(&mut self, entry: &Entry, appended: Appended) {
        let line = &mut self.log.bytes;
        let start = line.len();
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
        line.extend_from_slice(&entry.envelope);
        line.extend_from_slice(b",\"seq\":");
        json::number(line, appended.seq);
        line.extend_from_slice(&entry.middle);
        line.extend_from_slice(b",\"time\":\"");
        self.stamp.push(line);
        line.extend_from_slice(b"\",\"type\":\"");
        line.extend_from_slice(entry.kind.as_bytes());
        line.extend_from_slice(b"\",\"v\":1}\n");
        self.log.end = self.log.end.saturating_add(wide(line.len() - start));
    }

    pub(crate) fn accept(&mut self, entry: &Entry) {
        if entry.opens {
            self.open.insert(self.next_seq);
        }
        for closed in &entry.closes {
            self.open.remove(closed);
        }
        self.next_seq += 1;
    }

    pub(crate) fn oldest_open(&self) -> Option<u64> {
        self.open.first().copied()
    }

    /// Nothing more is taken before the files have been looked at.
    pub(crate) fn shut(&mut self) {
        for waiting in [&mut self.log, &mut self.blobs, &mut self.keys] {
            waiting.room = 0;
        }
    }

    /// A sign of life, and for recovery how far back open intents reach.
    pub(crate) fn heartbeat(&self, gateway: &str) -> Entry {
        let mut entry = Entry { kind: "heartbeat", ..Entry::default() };
        json::object(&mut entry.head, |line| {
            line.object("body", |body| {
                if let Some(oldest) = self.open.first() {
                    body.number("oldest_open_seq", *oldest);
                }
                body.number("open", wide(self.open.len()));
            });
            line.text("gateway", gateway);
        });
        entry.head.pop();
        entry
    }
}

/// `"offset":…,"segment":…`, two neighbours in the order of keys.
pub(crate) fn position(out: &mut Vec<u8>, segment: u64, offset: u64) {
    out.extend_from_slice(b"\"offset\":");
    json::number(out, offset);
    out.extend_from_slice(b",\"segment\":");
    json::number(out, segment);
}

pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
