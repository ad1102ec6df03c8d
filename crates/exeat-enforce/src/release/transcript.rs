//! What a client got, as the record keeps it: the very bytes of its messages, in order, in pieces. Of each statement so many
//! rows and bytes; what is past that is left out, with its number and digest in its place, and everything that is
//! not a row or a notice stays. Only whoever can read the record sees it, and it is never more than the client saw.

use std::num::NonZeroUsize;

use sha2::{Digest, Sha256};

/// Of one statement's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TranscriptLimits {
    pub rows: u64,
    pub bytes: u64,
}

impl Default for TranscriptLimits {
    fn default() -> Self {
        Self { rows: 1000, bytes: 1024 * 1024 }
    }
}

/// The tag, which no message of the protocol has, of what stands for messages that were left out. Like any message it goes on with
/// its length: four bytes that count themselves, then three numbers of eight bytes (how many messages began, how many of them
/// were rows, and all their bytes) and the SHA-256 of those bytes.
pub const LEFT_OUT: u8 = 0;

/// An error or a description of this size stays whatever the limits; code in the server can make larger ones.
const PLAIN_BYTES_MAX: u64 = 64 * 1024;

const HEADER_BYTES: usize = 5;
const LEFT_OUT_LENGTH: u32 = 4 + 3 * 8 + 32;

/// The transcript of one session, and where it stands in it.
#[derive(Debug)]
pub struct Transcript {
    limits: TranscriptLimits,
    /// Of the statement whose answer is under way.
    rows: u64,
    bytes: u64,
    is_full: bool,
    at: At,
    left_out: Option<LeftOut>,
    piece: Vec<u8>,
    piece_bytes: u64,
    piece_rows: u64,
}

/// Where in a message.
#[derive(Debug, Clone, Copy)]
enum At {
    Header { seen: [u8; HEADER_BYTES], many: usize },
    Body { left: NonZeroUsize, is_kept: bool },
}

const BETWEEN: At = At::Header { seen: [0; HEADER_BYTES], many: 0 };

#[derive(Debug)]
struct LeftOut {
    messages: u64,
    rows: u64,
    bytes: u64,
    digest: Sha256,
}

/// Where the bytes that wait for a client stand in the stream it gets behind its login, and how much of that stream is in the
/// transcript: how many of them may leave.
#[derive(Debug, Default)]
pub struct StreamPlace {
    /// Of the first byte that waits; what belongs to the login is before 0.
    front: i64,
    /// Up to here the stream is in the transcript.
    transcribed: i64,
}

impl StreamPlace {
    /// So many bytes of the login stand in front of all that waits.
    pub fn login(&mut self, bytes: usize) {
        self.front -= signed(bytes);
    }

    /// So many bytes have left.
    pub fn advance(&mut self, bytes: usize) {
        self.front += signed(bytes);
    }

    /// What follows the first `length` bytes that wait was taken back. What of it is in the transcript never leaves, and has its
    /// place in the stream all the same.
    pub fn take_back(&mut self, length: usize) {
        self.front = self.front.max(self.transcribed - signed(length));
    }

    /// All that waits is in the transcript behind this.
    pub fn transcribe(&mut self, waiting: &[u8], transcript: &mut Transcript) {
        let known = usize::try_from(self.transcribed - self.front).unwrap_or(0);
        let fresh = waiting.get(known..).unwrap_or_default();
        transcript.take(fresh);
        self.transcribed += signed(fresh.len());
    }

    /// How many bytes may leave where so much of the stream is on record.
    pub fn on_record(&self, recorded: u64) -> usize {
        let recorded = i64::try_from(recorded).unwrap_or(i64::MAX).saturating_sub(self.front);
        usize::try_from(recorded).unwrap_or(0)
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// What the client is about to get since the piece before.
#[derive(Debug, Clone, Copy)]
#[must_use = "what is not recorded does not leave"]
pub struct Piece<'a> {
    /// Messages, and in the place of some what was left out.
    pub kept: &'a [u8],
    /// Of all messages, those that were left out too.
    pub bytes: u64,
    pub rows: u64,
}

impl Transcript {
    pub fn new(limits: TranscriptLimits) -> Self {
        Self {
            limits,
            rows: 0,
            bytes: 0,
            is_full: false,
            at: BETWEEN,
            left_out: None,
            piece: Vec::new(),
            piece_bytes: 0,
            piece_rows: 0,
        }
    }

    /// These bytes go to the client next. They may end anywhere.
    pub fn take(&mut self, bytes: &[u8]) {
        self.piece_bytes = self.piece_bytes.saturating_add(wide(bytes.len()));
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = match self.at {
                At::Header { seen, many } => self.header(seen, many, rest),
                At::Body { left, is_kept } => self.body(left, is_kept, rest),
            };
        }
    }

    /// What was taken since the last piece.
    pub fn piece(&mut self) -> Piece<'_> {
        self.put_left_out();
        Piece { kept: &self.piece, bytes: self.piece_bytes, rows: self.piece_rows }
    }

    /// The piece is on its way into the record.
    pub fn next(&mut self) {
        // A session may be idle for hours after a large answer.
        self.piece.clear();
        self.piece.shrink_to(PIECE_BYTES_KEPT);
        (self.piece_bytes, self.piece_rows) = (0, 0);
    }

    fn header<'a>(&mut self, mut seen: [u8; HEADER_BYTES], mut many: usize, bytes: &'a [u8]) -> &'a [u8] {
        let (head, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - many));
        seen.iter_mut().skip(many).zip(head).for_each(|(to, from)| *to = *from);
        many += head.len();
        if many < HEADER_BYTES {
            self.at = At::Header { seen, many };
            return rest;
        }
        let [tag, length @ ..] = seen;
        let body = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).saturating_sub(length.len());
        let is_kept = self.begins(tag, body.saturating_add(HEADER_BYTES));
        self.put(&seen, is_kept);
        self.at = NonZeroUsize::new(body).map_or(BETWEEN, |left| At::Body { left, is_kept });
        rest
    }

    fn body<'a>(&mut self, left: NonZeroUsize, is_kept: bool, bytes: &'a [u8]) -> &'a [u8] {
        let (part, rest) = bytes.split_at(bytes.len().min(left.get()));
        self.put(part, is_kept);
        self.at = NonZeroUsize::new(left.get() - part.len()).map_or(BETWEEN, |left| At::Body { left, is_kept });
        rest
    }

    /// Whether a message of this tag and size stays.
    fn begins(&mut self, tag: u8, bytes: usize) -> bool {
        let is_row = matches!(tag, b'D' | b'd' | b'V');
        // As many of these as the server likes; of the others each answers a message of the client's.
        let is_counted = is_row || matches!(tag, b'N' | b'A' | b'S');
        if is_counted {
            self.piece_rows += u64::from(is_row);
            self.rows += u64::from(is_row);
            self.bytes = self.bytes.saturating_add(wide(bytes));
            // Once something is left out all that follows is: what stays is the answer's beginning.
            self.is_full |= self.rows > self.limits.rows || self.bytes > self.limits.bytes;
        }
        let is_kept = if is_counted { !self.is_full } else { wide(bytes) <= self.limits.bytes.max(PLAIN_BYTES_MAX) };
        if !is_kept {
            let left_out = self.left_out.get_or_insert_with(LeftOut::new);
            left_out.messages += 1;
            left_out.rows += u64::from(is_row);
        }
        if matches!(tag, b'C' | b'E' | b'I' | b's' | b'Z') {
            // The statement's answer ends with this message.
            (self.rows, self.bytes, self.is_full) = (0, 0, false);
        }
        is_kept
    }

    fn put(&mut self, part: &[u8], is_kept: bool) {
        if is_kept {
            self.put_left_out();
            self.piece.extend_from_slice(part);
        } else {
            let left_out = self.left_out.get_or_insert_with(LeftOut::new);
            left_out.bytes = left_out.bytes.saturating_add(wide(part.len()));
            left_out.digest.update(part);
        }
    }

    fn put_left_out(&mut self) {
        let Some(left_out) = self.left_out.take() else { return };
        self.piece.push(LEFT_OUT);
        self.piece.extend_from_slice(&LEFT_OUT_LENGTH.to_be_bytes());
        for number in [left_out.messages, left_out.rows, left_out.bytes] {
            self.piece.extend_from_slice(&number.to_be_bytes());
        }
        self.piece.extend_from_slice(&left_out.digest.finalize());
    }
}

/// Buffer kept from piece to piece.
const PIECE_BYTES_KEPT: usize = 16 * 1024;

impl LeftOut {
    fn new() -> Self {
        Self { messages: 0, rows: 0, bytes: 0, digest: Sha256::new() }
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], length.to_be_bytes().as_slice(), body].concat()
    }

    /// Two statements of five rows each, and a notice between rows.
    fn answer() -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        for statement in 0..2_u8 {
            messages.push(message(b'T', b"columns"));
            for row in 0..5_u8 {
                messages.push(message(b'D', &[statement, row, 0, 0, 9]));
                if row == 3 {
                    messages.push(message(b'N', b"notice"));
                }
            }
            messages.push(message(b'C', b"SELECT 5"));
        }
        messages.push(message(b'Z', b"I"));
        messages
    }

    fn transcript(limits: TranscriptLimits, stream: &[u8], cut: usize) -> (Vec<u8>, u64, u64) {
        let mut transcript = Transcript::new(limits);
        let (mut kept, mut bytes, mut rows) = (Vec::new(), 0, 0);
        for part in stream.chunks(cut) {
            transcript.take(part);
            let piece = transcript.piece();
            kept.extend_from_slice(piece.kept);
            (bytes, rows) = (bytes + piece.bytes, rows + piece.rows);
            transcript.next();
        }
        (kept, bytes, rows)
    }

    /// Messages of a transcript, tag and all.
    fn messages(mut kept: &[u8]) -> Vec<&[u8]> {
        let mut found = Vec::new();
        while let Some(length) = kept.get(1..5) {
            let end = 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let (message, rest) = kept.split_at(end);
            found.push(message);
            kept = rest;
        }
        assert!(kept.is_empty());
        found
    }

    #[test]
    fn no_more_may_leave_than_is_on_record_whatever_is_taken_back() {
        let mut transcript = Transcript::new(TranscriptLimits::default());
        let mut place = StreamPlace::default();
        place.login(3);
        place.transcribe(b"LOG12345", &mut transcript);
        assert_eq!(transcript.piece().bytes, 5, "the login is in no transcript");
        assert_eq!((place.on_record(0), place.on_record(5)), (3, 8));
        place.advance(4);
        // "45" is in the transcript and never leaves; what comes in its place is not on record yet.
        place.take_back(2);
        assert_eq!(place.on_record(5), 2);
        place.transcribe(b"23own", &mut transcript);
        assert_eq!(transcript.piece().bytes, 8);
        assert_eq!((place.on_record(5), place.on_record(8)), (2, 5));
    }

    #[test]
    fn within_limits_it_is_the_stream_wherever_that_is_cut() {
        let stream = answer().concat();
        for cut in 1..=stream.len() {
            let (kept, bytes, rows) = transcript(TranscriptLimits::default(), &stream, cut);
            assert_eq!(kept, stream, "{cut}");
            assert_eq!((bytes, rows), (stream.len() as u64, 10));
        }
    }

    #[test]
    fn past_the_limits_of_a_statement_rows_and_notices_are_counted_and_digested() {
        let stream = answer().concat();
        let limits = [
            TranscriptLimits { rows: 2, bytes: 1000 },
            TranscriptLimits { rows: 1000, bytes: 29 },
            TranscriptLimits { rows: 0, bytes: 0 },
        ];
        for (limits, kept_rows) in limits.into_iter().zip([2, 2, 0]) {
            let (kept, bytes, rows) = transcript(limits, &stream, stream.len());
            assert_eq!((bytes, rows), (stream.len() as u64, 10), "all are counted");
            let found = messages(&kept);
            let tags: Vec<u8> = found.iter().map(|message| message[0]).collect();
            let one = [&b"T"[..], &b"D".repeat(kept_rows), &[LEFT_OUT], b"C"].concat();
            assert_eq!(tags, [one.as_slice(), &one, b"Z"].concat(), "{limits:?}");
            let left_out: Vec<u8> = answer()[1..7].concat()[kept_rows * 10..].to_vec();
            let marks: Vec<&&[u8]> = found.iter().filter(|message| message[0] == LEFT_OUT).collect();
            let numbers = [6 - kept_rows, 5 - kept_rows, left_out.len()];
            let numbers: Vec<u8> = numbers.iter().flat_map(|number| (*number as u64).to_be_bytes()).collect();
            assert_eq!(marks[0][5..29], numbers, "{limits:?}");
            assert_eq!(marks[0][29..], Sha256::digest(&left_out)[..], "{limits:?}");
        }
    }

    #[test]
    fn an_error_of_any_size_is_kept_or_digested() {
        let limits = TranscriptLimits { rows: 1, bytes: 100 };
        for (bytes, is_kept) in [(100, true), (64 * 1024 - 5, true), (64 * 1024, false)] {
            let error = message(b'E', &vec![b'e'; bytes]);
            let (kept, all, rows) = transcript(limits, &error, 1000);
            assert_eq!((kept == error, all, rows), (is_kept, error.len() as u64, 0), "{bytes}");
        }
    }

    #[test]
    fn what_is_left_out_is_counted_once_wherever_the_stream_is_cut() {
        let stream = answer().concat();
        for cut in 1..=stream.len() {
            let (kept, ..) = transcript(TranscriptLimits { rows: 1, bytes: 1000 }, &stream, cut);
            let number = |message: &[u8], at: usize| u64::from_be_bytes(message[at..at + 8].try_into().unwrap());
            let marks = messages(&kept).into_iter().filter(|message| message[0] == LEFT_OUT);
            let sums = marks.fold((0, 0, 0), |sums, mark| {
                (sums.0 + number(mark, 5), sums.1 + number(mark, 13), sums.2 + number(mark, 21))
            });
            assert_eq!(sums, (10, 8, 2 * (4 * 10 + 11)), "{cut}");
        }
    }
}
