//! Bytes on their way from one side to the other. What was read is walked over message by message, cleared once its
//! record is written, and written out of the same buffer: nothing is copied. Bounded: a side that does not take
//! what is cleared for it stops the reading of the other.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use exeat_enforce::release::{StreamPlace, Transcript};
use exeat_store::record::Committed;
use exeat_wire::{DecodeError, Peer, Walk, Walked};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::large_messages::Front;

/// Above this many cleared bytes waiting for the client, the server is not read...
const WAITING_FOR_CLIENT_HIGH: usize = 256 * 1024;
/// ...and above this many waiting for the server, the client is not. Less: what a client can pour in before it hears of
/// the first error should not be much more than without a gateway.
const WAITING_FOR_SERVER_HIGH: usize = 64 * 1024;
/// One read asks for this much, so that an idle session is small...
const READ_BYTES_MIN: usize = 8 * 1024;
/// ...and for up to this much while whole reads come in full: a bulk result costs a system call per read.
const READ_BYTES_MAX: usize = 128 * 1024;
const READ_FROM_CLIENT_BYTES_MAX: usize = 64 * 1024;

/// One direction.
#[derive(Debug)]
pub(super) struct Duct {
    pub(super) bytes: BytesMut,
    walk: Walk,
    /// Up to here the messages are known.
    pub(super) walked: usize,
    /// Up to here they may leave once the record is committed.
    cleared: usize,
    /// Up to here they may leave. INVARIANT: `open <= cleared <= walked <= bytes.len()`.
    open: usize,
    /// What is cleared, and what is open, ends inside a message.
    cleared_inside: bool,
    open_inside: bool,
    read_bytes: usize,
    read_bytes_max: usize,
    waiting_high: usize,
    unflushed: bool,
    /// The writing side takes no more: what is left for it is dropped.
    closed: bool,
    place: StreamPlace,
}

impl Duct {
    pub(super) fn new(from: Peer, bytes: BytesMut) -> Self {
        let (read_bytes_max, waiting_high) = match from {
            Peer::Client => (READ_FROM_CLIENT_BYTES_MAX, WAITING_FOR_SERVER_HIGH),
            Peer::Server => (READ_BYTES_MAX, WAITING_FOR_CLIENT_HIGH),
        };
        Self {
            bytes,
            walk: Walk::new(from),
            walked: 0,
            cleared: 0,
            open: 0,
            cleared_inside: false,
            open_inside: false,
            read_bytes: READ_BYTES_MIN,
            read_bytes_max,
            waiting_high,
            unflushed: false,
            closed: false,
            place: StreamPlace::default(),
        }
    }

    /// The next step over `bytes`, which the caller took out of this duct and puts back.
    pub(super) fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Walked<'a>, DecodeError> {
        let step = self.walk.step(bytes.get(self.walked..).unwrap_or_default())?;
        self.walked += match step {
            Walked::More => 0,
            Walked::Body { bytes } => bytes,
            Walked::Message { seen, .. } => seen.len(),
        };
        Ok(step)
    }

    pub(super) fn is_inside_message(&self) -> bool {
        self.walk.is_inside()
    }

    /// Everything walked over may leave once the record is committed.
    pub(super) fn clear(&mut self) {
        self.cleared = self.walked;
        self.cleared_inside = self.walk.is_inside();
    }

    /// As much of the walked bytes as stands before the message that begins at `start`.
    pub(super) fn clear_before(&mut self, start: usize) {
        self.cleared = start.min(self.walked).max(self.cleared);
        self.cleared_inside = false;
    }

    /// The whole message that begins at `start` was not walked over after all.
    pub(super) fn take_back(&mut self, start: usize) {
        self.walked = start.min(self.walked).max(self.cleared);
    }

    /// What is cleared may leave for the server: all that it stands for is on record.
    pub(super) fn open_up(&mut self, _committed: &Committed) {
        self.open = self.cleared;
        self.open_inside = self.cleared_inside;
    }

    /// What is cleared may leave for the client, as far as it is on record itself.
    pub(super) fn open_down(&mut self, committed: &Committed) {
        self.open = self.place.on_record(committed.sent()).min(self.cleared);
        self.open_inside = self.cleared_inside || self.open < self.cleared;
    }

    /// Everything that is cleared is in the transcript behind this.
    pub(super) fn transcribe(&mut self, transcript: &mut Transcript) {
        let cleared = self.bytes.get(..self.cleared).unwrap_or_default();
        self.place.transcribe(cleared, transcript);
    }

    /// Messages of the login, in front of everything.
    pub(super) fn welcome(&mut self, messages: &[u8]) {
        self.close_with(messages);
        self.place.login(messages.len());
    }

    pub(super) fn has_cleared(&self) -> bool {
        self.cleared > 0
    }

    /// Puts bytes of the gateway's own in the place of the walked ones in `range`, and clears up to their end.
    pub(super) fn replace(&mut self, range: Range<usize>, own: &[u8]) {
        let tail = self.bytes.split_off(range.end.min(self.bytes.len()));
        self.bytes.truncate(range.start);
        self.bytes.extend_from_slice(own);
        self.walked = self.bytes.len();
        self.clear();
        self.bytes.unsplit(tail);
    }

    /// Appends messages of the gateway's own behind what may leave; what may not is dropped. In the middle of a
    /// message nothing can be said.
    pub(super) fn close_with(&mut self, own: &[u8]) {
        self.bytes.truncate(self.open);
        self.place.take_back(self.bytes.len());
        if !self.open_inside {
            self.bytes.extend_from_slice(own);
        }
        self.walked = self.bytes.len();
        self.cleared = self.walked;
        self.open = self.walked;
    }

    /// Nothing more can be written to the other side.
    pub(super) fn shut(&mut self) {
        self.closed = true;
        self.drain();
    }

    /// Bytes whose messages are known and which still wait for what comes behind them.
    pub(super) fn held_bytes(&self) -> usize {
        self.walked - self.cleared
    }

    pub(super) fn may_read(&self) -> bool {
        self.cleared < self.waiting_high
    }

    /// The large message that comes next and is not whole yet.
    pub(super) fn large_front(&self) -> Option<Front> {
        if self.walk.is_inside() { None } else { Front::of(self.bytes.get(self.walked..).unwrap_or_default()) }
    }

    /// Gives back the room of a large message that has gone.
    pub(super) fn shrink(&mut self) {
        self.bytes = BytesMut::from(self.bytes.as_ref());
    }

    /// Gives back the memory of a duct that has been empty for a while.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }

    fn drain(&mut self) {
        let gone = self.open;
        self.advance(gone);
        self.unflushed = false;
    }

    fn advance(&mut self, written: usize) {
        self.bytes.advance(written);
        self.place.advance(written);
        self.open -= written;
        self.cleared -= written;
        self.walked -= written;
    }

    /// Writes what may leave. `Pending` while some of it is left.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closed {
            self.drain();
        }
        while self.open > 0 {
            let chunk = self.bytes.get(..self.open).unwrap_or_default();
            match Pin::new(&mut *to).poll_write(cx, chunk) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.advance(written.min(self.open));
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            match Pin::new(to).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more. `Ok(0)`: the reading side has closed. An empty duct has no buffer while it waits: most sessions are
    /// idle most of the time.
    pub(super) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let read = if self.bytes.is_empty() && self.read_bytes == READ_BYTES_MIN {
            let mut scratch = [MaybeUninit::uninit(); READ_BYTES_MIN];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(from).poll_read(cx, &mut read))?;
            self.bytes.extend_from_slice(read.filled());
            read.filled().len()
        } else {
            self.bytes.reserve(self.read_bytes);
            // `read_buf` is cancel safe, so a future made anew at every poll loses nothing.
            ready!(pin!(from.read_buf(&mut self.bytes)).poll(cx))?
        };
        let full = read >= self.read_bytes;
        self.read_bytes = if full { (self.read_bytes * 2).min(self.read_bytes_max) } else { READ_BYTES_MIN };
        Poll::Ready(Ok(read))
    }
}
