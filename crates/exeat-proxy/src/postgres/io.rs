//! The two sockets of a session and their buffers. One task owns both; `turn` is the only place that waits.
//! Nothing is written before it is cleared, and clearing takes the proof that the record is committed.
//! Bounded: a full outbox stops reading the server, a full upstream buffer stops reading the client.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use exeat_enforce::admit::CopyPass;
use exeat_enforce::release::Outbox;
use exeat_store::record::Committed;
use exeat_wire::{Fields, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Above this many bytes waiting for the client the server is not read: a slow client must not grow our memory.
pub(crate) const OUTBOX_BYTES_HIGH: usize = 256 * 1024;
/// Above this many bytes waiting for the server the client is not read.
pub(crate) const UPSTREAM_BYTES_HIGH: usize = 256 * 1024;
/// One read asks for this much, so that an idle session is small...
const READ_BYTES_MIN: usize = 8 * 1024;
/// ...and for up to this much while whole reads come in full: a bulk result costs a system call per read.
const READ_BYTES_MAX: usize = 128 * 1024;

/// A stream and what was read from it but not yet decoded.
#[derive(Debug)]
pub(crate) struct Inbound<S> {
    pub(crate) stream: S,
    pub(crate) buffer: BytesMut,
    read_bytes: usize,
}

impl<S> Inbound<S> {
    pub(crate) fn new(stream: S, buffer: BytesMut) -> Self {
        Self { stream, buffer, read_bytes: READ_BYTES_MIN }
    }
}

/// What a turn brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Client,
    Upstream,
    ClientClosed,
    UpstreamClosed,
    /// The client will say nothing more. Whether it still listens only writing to it will tell.
    ClientEnded,
    /// Everything queued for both sides is written; only reported when nothing may be read.
    Flushed,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Interest {
    pub(crate) client: bool,
    pub(crate) upstream: bool,
}

#[derive(Debug)]
pub(crate) struct Io<C, U> {
    pub(crate) client: Inbound<C>,
    pub(crate) upstream: Inbound<U>,
    pub(crate) outbox: Outbox,
    /// Bytes for the server, in order. Filled by the typed senders only.
    pub(crate) outgoing: Outgoing,
    cleared: Cleared,
    client_unflushed: bool,
    upstream_unflushed: bool,
    client_ended: bool,
    upstream_end: End,
}

/// Whether the server is told that nothing more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    NotYet,
    Due,
    Told,
}

/// How many of the queued bytes may be written: what they stand for is in the file.
#[derive(Debug, Default)]
struct Cleared {
    client: usize,
    upstream: usize,
}

/// Frames on their way to the server. Large frames are kept as they came, without copying.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    small: BytesMut,
    queue: std::collections::VecDeque<Bytes>,
    queued_bytes: usize,
}

/// Frames from this size on are queued as they are instead of being copied together.
const COPY_BYTES_MAX: usize = 16 * 1024;

impl Outgoing {
    pub(crate) fn push(&mut self, frame: Bytes) {
        if frame.len() <= COPY_BYTES_MAX && self.queue.is_empty() {
            self.small.extend_from_slice(&frame);
            return;
        }
        self.queued_bytes += frame.len();
        self.queue.push_back(frame);
    }

    /// COPY data of the client's, whole messages or pieces of one.
    pub(crate) fn copy(&mut self, _pass: &CopyPass, data: Bytes) {
        self.push(data);
    }

    pub(crate) fn write(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        if self.queue.is_empty() {
            encode(&mut self.small);
            return;
        }
        let mut bytes = BytesMut::new();
        encode(&mut bytes);
        self.push(bytes.freeze());
    }

    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.queued_bytes
    }

    /// Takes back what was queued after the first `length` bytes.
    fn truncate(&mut self, length: usize) {
        let mut left = length;
        let small = left.min(self.small.len());
        self.small.truncate(small);
        left -= small;
        self.queued_bytes = 0;
        for frame in &mut self.queue {
            frame.truncate(left);
            left -= frame.len();
            self.queued_bytes += frame.len();
        }
        self.queue.retain(|frame| !frame.is_empty());
    }

    fn is_empty(&self) -> bool {
        self.small.is_empty() && self.queue.is_empty()
    }

    fn chunk(&self) -> &[u8] {
        if self.small.is_empty() { self.queue.front().map_or(&[], |frame| frame.as_ref()) } else { &self.small }
    }

    fn advance(&mut self, written: usize) {
        if !self.small.is_empty() {
            self.small.advance(written.min(self.small.len()));
            return;
        }
        if let Some(front) = self.queue.front_mut() {
            let written = written.min(front.len());
            front.advance(written);
            self.queued_bytes -= written;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
    }
}

impl<C, U> Io<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(client: Inbound<C>, upstream: Inbound<U>) -> Self {
        Self {
            client,
            upstream,
            outbox: Outbox::default(),
            outgoing: Outgoing::default(),
            cleared: Cleared::default(),
            client_unflushed: false,
            upstream_unflushed: false,
            client_ended: false,
            upstream_end: End::NotYet,
        }
    }

    /// What is queued for the server may be written; what is queued for the client waits.
    pub(crate) fn clear_upstream(&mut self, _committed: Committed) {
        self.cleared.upstream = self.outgoing.len();
    }

    /// Nothing waits to be written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && self.outgoing.is_empty()
    }

    /// The client's side has ended; what it is still owed can reach it all the same.
    pub(crate) fn client_ended(&self) -> bool {
        self.client_ended
    }

    /// Nothing more will be queued for the server: once all of it is written, the server is told so.
    pub(crate) fn end_upstream(&mut self) {
        self.upstream_end = self.upstream_end.max(End::Due);
    }

    /// What is queued now may be written: for the client what is on record.
    pub(crate) fn clear(&mut self, committed: Committed) {
        self.cleared = Cleared { client: self.outbox.on_record(committed.sent()), upstream: self.outgoing.len() };
    }

    /// The record did not take what is queued since it was last committed: none of that may leave. What stays ends at
    /// the end of a message.
    pub(crate) fn take_back(&mut self) {
        self.outbox.truncate(self.cleared.client);
        self.outgoing.truncate(self.cleared.upstream);
    }

    /// The gateway's parting words, which stand for no event.
    pub(crate) fn last_words(&mut self, client: Option<&Fields>, terminate: bool) {
        self.take_back();
        if let Some(fields) = client {
            self.outbox.error(fields);
        }
        if terminate {
            self.outgoing.write(encode::terminate);
        }
        self.cleared = Cleared { client: self.outbox.leaving(), upstream: self.outgoing.len() };
    }

    /// Writes what is cleared and waits for bytes from a side we are interested in. Cancel safe: progress is kept in
    /// the buffers.
    pub(crate) async fn turn(&mut self, interest: Interest) -> io::Result<Turn> {
        poll_fn(|cx| self.poll_turn(cx, interest)).await
    }

    /// The same without waiting: `None` where nothing is at hand.
    pub(crate) async fn turn_now(&mut self, interest: Interest) -> io::Result<Option<Turn>> {
        poll_fn(|cx| {
            Poll::Ready(match self.poll_turn(cx, interest) {
                Poll::Ready(turn) => turn.map(Some),
                Poll::Pending => Ok(None),
            })
        })
        .await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<Turn>> {
        if let Poll::Ready(Err(_)) = self.poll_write_client(cx) {
            return Poll::Ready(Ok(Turn::ClientClosed));
        }
        if let Poll::Ready(Err(_)) = self.poll_write_upstream(cx) {
            // What the server said before it closed is still to be read (a 57P01, say); only then is it gone.
            self.outgoing = Outgoing::default();
            self.cleared.upstream = 0;
            self.upstream_unflushed = false;
        }
        if self.upstream_end == End::Due && self.outgoing.is_empty() && !self.upstream_unflushed {
            let told = Pin::new(&mut self.upstream.stream).poll_shutdown(cx).is_ready();
            self.upstream_end = if told { End::Told } else { End::Due };
        }
        let read_upstream = interest.upstream && self.outbox.leaving() < OUTBOX_BYTES_HIGH;
        if read_upstream && let Poll::Ready(read) = poll_read(&mut self.upstream, cx) {
            return Poll::Ready(Ok(match read {
                Ok(0) | Err(_) => Turn::UpstreamClosed,
                Ok(_) => Turn::Upstream,
            }));
        }
        let read_client = interest.client && !self.client_ended && self.outgoing.len() < UPSTREAM_BYTES_HIGH;
        if read_client && let Poll::Ready(read) = poll_read(&mut self.client, cx) {
            return Poll::Ready(Ok(match read {
                Ok(0) => {
                    self.client_ended = true;
                    Turn::ClientEnded
                }
                Err(_) => Turn::ClientClosed,
                Ok(_) => Turn::Client,
            }));
        }
        let flushed = self.outbox.is_empty() && self.outgoing.is_empty();
        if flushed && !interest.client && !interest.upstream && !self.client_unflushed && !self.upstream_unflushed {
            return Poll::Ready(Ok(Turn::Flushed));
        }
        Poll::Pending
    }

    fn poll_write_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.cleared.client > 0 {
            let chunk = self.outbox.chunk();
            let chunk = chunk.get(..self.cleared.client).unwrap_or(chunk);
            match Pin::new(&mut self.client.stream).poll_write(cx, chunk) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.outbox.advance(written);
                    self.cleared.client = self.cleared.client.saturating_sub(written);
                    self.client_unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.client_unflushed {
            match Pin::new(&mut self.client.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.client_unflushed = false,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_upstream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.cleared.upstream > 0 {
            let chunk = self.outgoing.chunk();
            let chunk = chunk.get(..self.cleared.upstream).unwrap_or(chunk);
            match Pin::new(&mut self.upstream.stream).poll_write(cx, chunk) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.outgoing.advance(written);
                    self.cleared.upstream = self.cleared.upstream.saturating_sub(written);
                    self.upstream_unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.upstream_unflushed {
            match Pin::new(&mut self.upstream.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.upstream_unflushed = false,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn poll_read<S: AsyncRead + Unpin>(inbound: &mut Inbound<S>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    inbound.buffer.reserve(inbound.read_bytes);
    // `read_buf` is cancel safe, so a future made anew at every poll loses nothing.
    let read = pin!(inbound.stream.read_buf(&mut inbound.buffer)).poll(cx);
    if let Poll::Ready(Ok(read)) = read {
        let full = read >= inbound.read_bytes;
        inbound.read_bytes = if full { (inbound.read_bytes * 2).min(READ_BYTES_MAX) } else { READ_BYTES_MIN };
    }
    read
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use exeat_enforce::release::{Transcript, TranscriptLimits};
    use exeat_policy::{Principal, PrincipalKind};
    use exeat_store::keys::{KeySet, KeySource};
    use exeat_store::record::{Durability, PolicyRef, Recorder, RecorderConfig, SessionRecord, SessionStart};
    use tokio::io::DuplexStream;

    use super::super::outcome::record_sent;
    use super::*;

    const NOTHING: Interest = Interest { client: false, upstream: false };

    fn record(folder: &Path) -> SessionRecord {
        let data_dir = folder.join("data");
        let keys = KeySet::open(&KeySource::Folder(folder.join("keys")), &data_dir).unwrap();
        let config = RecorderConfig { data_dir, gateway: "g".to_owned(), durability: Durability::Os };
        let principal = Principal {
            issuer: "https://idp.example.com".to_owned(),
            subject: "agent-7".to_owned(),
            groups: Vec::new(),
            claims: serde_json::Map::new(),
            actor: None,
            kind: PrincipalKind::Workload,
            token_id: None,
            instance: std::collections::BTreeMap::new(),
        };
        let start = SessionStart {
            session: "s1",
            principal: &principal,
            source: "127.0.0.1:1",
            target: "shop",
            database: "shop",
            login: "reader",
            backend_pid: 1,
            backend_start: None,
            application_name: None,
            policy: PolicyRef { version: 1, sha256: "00" },
            tls: None,
            token: None,
            handle: None,
        };
        Recorder::open(&config, keys).unwrap().start_session(&start).unwrap()
    }

    fn io() -> (Io<DuplexStream, DuplexStream>, DuplexStream, DuplexStream) {
        let (client, client_end) = tokio::io::duplex(1 << 20);
        let (upstream, upstream_end) = tokio::io::duplex(1 << 20);
        (
            Io::new(Inbound::new(client, BytesMut::new()), Inbound::new(upstream, BytesMut::new())),
            client_end,
            upstream_end,
        )
    }

    fn queue(io: &mut Io<DuplexStream, DuplexStream>, text: &'static str) {
        io.outbox.error(&Fields::new("ERROR", "XX000", text));
        io.outgoing.push(Bytes::from_static(text.as_bytes()));
        io.outgoing.push(Bytes::from(vec![b'.'; COPY_BYTES_MAX + 1]));
    }

    /// Everything queued is put on record, and may leave.
    fn clear(io: &mut Io<DuplexStream, DuplexStream>, record: &mut SessionRecord) {
        let mut transcript = Transcript::new(TranscriptLimits::default());
        io.outbox.transcribe(&mut transcript);
        record_sent(record, &mut transcript).unwrap();
        io.clear(record.commit().unwrap());
    }

    async fn all(mut end: DuplexStream) -> String {
        let mut bytes = Vec::new();
        end.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn only_what_is_committed_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = record(folder.path());
        let (mut io, client_end, upstream_end) = io();
        queue(&mut io, "committed");
        clear(&mut io, &mut record);
        queue(&mut io, "appended later");
        let waits = poll_fn(|cx| Poll::Ready(io.poll_turn(cx, NOTHING).is_pending())).await;
        assert!(waits, "the rest waits for its commit");
        io.take_back();
        assert_eq!(io.turn(NOTHING).await.unwrap(), Turn::Flushed);
        drop(io);
        for said in [all(client_end).await, all(upstream_end).await] {
            assert!(said.contains("committed") && !said.contains("appended later"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_client_gets_nothing_that_is_not_on_record_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = record(folder.path());
        let (mut io, client_end, upstream_end) = io();
        queue(&mut io, "recorded");
        clear(&mut io, &mut record);
        queue(&mut io, "transcribed nowhere");
        io.clear(record.commit().unwrap());
        let waits = poll_fn(|cx| Poll::Ready(io.poll_turn(cx, NOTHING).is_pending())).await;
        assert!(waits && !io.outbox.is_empty(), "a commit alone lets nothing out");
        drop(io);
        let (client, upstream) = (all(client_end).await, all(upstream_end).await);
        assert!(client.contains("recorded") && !client.contains("nowhere"), "{client}");
        assert!(upstream.contains("nowhere"), "{upstream}");
    }

    #[tokio::test]
    async fn last_words_follow_what_was_committed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = record(folder.path());
        let (mut io, client_end, upstream_end) = io();
        queue(&mut io, "committed");
        clear(&mut io, &mut record);
        queue(&mut io, "appended later");
        io.last_words(Some(&Fields::new("FATAL", "58030", "goodbye")), true);
        assert_eq!(io.turn(NOTHING).await.unwrap(), Turn::Flushed);
        drop(io);
        let (client, upstream) = (all(client_end).await, all(upstream_end).await);
        assert!(client.contains("committed") && client.contains("goodbye") && !client.contains("later"), "{client}");
        assert!(upstream.starts_with("committed") && upstream.ends_with("X\0\0\0\u{4}"), "{upstream}");
        assert!(!upstream.contains("later"), "{upstream}");
    }
}
