//! The road of a session that nothing restricts: its principal is allowed everything at the target and no rule can
//! mask, deny, hold or limit. Bytes pass as they came, in both directions; statements are recorded before they leave,
//! outcomes before the client hears of them, and nothing is analysed. It is as close to the server as a gateway can
//! be: names, encodings, sizes and errors are the server's own affair.
//! Ends before the next statement when the policy changes so that something could restrict it.

mod duct;
mod notes;
mod replies;
mod requests;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use exeat_enforce::release::Transcript;
use exeat_store::record::SessionRecord;
use exeat_wire::{Peer, Pipeline, TransactionStatus, encode};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::duct::Duct;
use self::notes::{Notes, Owed};
use self::replies::{Ended, Pending};
use super::batch::Batch;
use super::cancel::{Asked, CancelKey, Cancelling};
use super::departure::ABANDONED_MAX;
use super::finish::{LAST_WORDS, last_words, log_end};
use super::outcome::{commit, record_sent};
use super::seat::{Looks, Seat, Tenure};
use super::session::{Client, Done, Ending, READS_BEFORE_CANCEL_MAX, SessionEnd};
use super::stream::ClientStream;
use crate::config::{LoadedPolicy, Target};
use crate::identity::Verified;
use crate::large_messages::{Settled, Share};
use crate::limits::SessionGuard;
use crate::server::Shared;
use crate::upstream::UpstreamStream;

pub(crate) struct PassThrough {
    shared: Arc<Shared>,
    target: Arc<Target>,
    identity: Verified,
    policy: Arc<LoadedPolicy>,
    client: ClientStream,
    upstream: UpstreamStream,
    /// From the client to the server.
    up: Duct,
    /// From the server to the client.
    down: Duct,
    pipeline: Pipeline<Owed>,
    notes: Notes,
    record: SessionRecord,
    transcript: Transcript,
    request_ids: RequestIds,
    requests: u64,
    no_text: Arc<[u8]>,
    /// As the server last announced it, where it is not UTF-8.
    encoding: Option<String>,
    /// A statement of the Query in front that has ended, and waits to be known as the last.
    pending: Option<Pending>,
    /// The Query in front has had an outcome that was not its last, and nothing has come of it since.
    unended: bool,
    status: TransactionStatus,
    /// Extended messages were sent since the last Sync.
    batch_open: bool,
    /// What the server has run of the batch, by the numbers of its requests.
    batch: Batch<u64>,
    /// A message of the batch could not be recorded: what follows is dropped up to the client's Sync.
    refusing: bool,
    /// The next message waits for an answer that tells what its name stands for.
    in_doubt: bool,
    /// The client has said Terminate, or closed its side: nothing more comes from it.
    terminated: bool,
    client_left: bool,
    /// When the last look found the client gone and a statement of its still running.
    abandoned: Option<Instant>,
    upstream_told: bool,
    server_left: bool,
    /// A Flush of the gateway's own was sent since the window closed.
    flushed: bool,
    cancel_key: CancelKey,
    upstream_key: (i32, Bytes),
    /// A request to cancel that was heard and not yet forwarded.
    cancel_due: Option<Asked>,
    cancelling: Cancelling,
    tenure: Tenure,
    large: Share,
    _counted: SessionGuard,
}

/// What a turn brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Client,
    Upstream,
    ClientClosed,
    UpstreamClosed,
}

impl PassThrough {
    pub(crate) fn new(seat: Seat, welcome: &[u8], parameters: &[(String, String)]) -> Self {
        let Client { stream: client, buffer: client_bytes, .. } = seat.client;
        let mut down = Duct::new(Peer::Server, BytesMut::new());
        down.welcome(welcome);
        down.bytes.extend_from_slice(&seat.upstream_bytes);
        Self {
            transcript: Transcript::new(seat.shared.dependencies.results),
            large: seat.shared.large_messages.share(),
            request_ids: RequestIds::new(seat.record.session()),
            shared: seat.shared,
            target: seat.target,
            identity: seat.identity,
            policy: seat.policy,
            client,
            upstream: seat.upstream,
            up: Duct::new(Peer::Client, client_bytes),
            down,
            pipeline: Pipeline::new(),
            notes: Notes::default(),
            record: seat.record,
            requests: 0,
            no_text: Arc::from(&b""[..]),
            encoding: parameters.iter().find_map(|(name, value)| replies::encoding(name, value.as_bytes())?),
            pending: None,
            unended: false,
            status: TransactionStatus::Idle,
            batch_open: false,
            batch: Batch::default(),
            refusing: false,
            in_doubt: false,
            terminated: false,
            client_left: false,
            abandoned: None,
            upstream_told: false,
            server_left: false,
            flushed: false,
            cancel_key: seat.cancel_key,
            upstream_key: seat.upstream_key,
            cancel_due: None,
            cancelling: Cancelling::default(),
            tenure: seat.tenure,
            _counted: seat.counted,
        }
    }

    /// Runs until both sides have left or the session must end. Not cancel safe: run it to the end.
    pub(crate) async fn run(mut self: Box<Self>) {
        let Err(end) = self.serve().await;
        Box::pin(self.finish(end)).await;
    }

    async fn serve(&mut self) -> Result<Infallible, SessionEnd> {
        let mut looks = Looks::default();
        // Apart from the session, which reads and writes while it listens for them.
        let mut requests = std::mem::replace(&mut self.cancel_key.requests, mpsc::channel(1).1);
        let landed = self.cancelling.landed();
        loop {
            self.take_replies()?;
            self.take_requests()?;
            self.keep_window_moving();
            self.tenure.leave_if_due(self.mid_transaction())?;
            self.commit().await?;
            self.make_room();
            // Who was told that it is settled may have sent the next statement since.
            if let Some(asked) = self.cancel_due.take().filter(|asked| !asked.is_closed()) {
                self.cancel_in_order(asked).await?;
            }
            let takes_cancel = !self.cancelling.under_way();
            // Sockets that always have something must not keep a session from hearing of its end.
            let urgent = looks.is_overdue() || (takes_cancel && !requests.is_empty());
            let turn = tokio::select! {
                biased;
                turn = poll_fn(|cx| self.poll_turn(cx, true)), if !urgent => turn,
                asked = requests.recv(), if takes_cancel => {
                    self.cancel_due = asked;
                    // What the client sent before it asked may be in our socket and not yet announced to us.
                    tokio::task::yield_now().await;
                    continue;
                }
                // The next one may be waiting.
                () = landed.notified() => continue,
                () = looks.due() => {
                    self.look()?;
                    continue;
                }
            };
            self.turned(turn)?;
        }
    }

    fn turned(&mut self, turn: Turn) -> Done {
        match turn {
            Turn::Client => {
                self.tenure.heard();
                Ok(())
            }
            Turn::Upstream => Ok(()),
            // What it has sent runs to its end, as it would without a gateway.
            Turn::ClientClosed => {
                self.client_left = true;
                Ok(())
            }
            Turn::UpstreamClosed if self.server_left => Err(SessionEnd::UpstreamFatal),
            Turn::UpstreamClosed if self.terminated => Err(SessionEnd::Terminated),
            Turn::UpstreamClosed if self.client_left => Err(SessionEnd::ClientClosed),
            Turn::UpstreamClosed => Err(SessionEnd::UpstreamClosed),
        }
    }

    /// What is cleared may leave: everything it stands for is on record.
    async fn commit(&mut self) -> Done {
        self.down.transcribe(&mut self.transcript);
        record_sent(&mut self.record, &mut self.transcript).map_err(SessionEnd::Outcome)?;
        if !self.record.is_committed() {
            // Sessions that are ready at the same time share one write.
            tokio::task::yield_now().await;
        }
        let committed = commit(&mut self.record).await.map_err(SessionEnd::Outcome)?;
        self.up.open_up(&committed);
        self.down.open_down(&committed);
        Ok(())
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, hears_server: bool) -> Poll<Turn> {
        // Once there is room the client is read on, below.
        let _ = self.large.poll_granted(cx);
        if let Poll::Ready(Err(_)) = self.up.poll_write(&mut self.upstream, cx) {
            // What the server said before it closed is still to be read (a 57P01, say); only then is it gone.
            self.up.shut();
        }
        if let Poll::Ready(Err(_)) = self.down.poll_write(&mut self.client, cx) {
            self.down.shut();
            self.client_left = true;
        }
        if self.client_left && !self.upstream_told && !self.up.has_cleared() && self.window_open() {
            // The server sees the end of what the client said, as it would without a gateway.
            self.upstream_told = Pin::new(&mut self.upstream).poll_shutdown(cx).is_ready();
        }
        if hears_server
            && self.down.may_read()
            && let Poll::Ready(read) = self.down.poll_read(&mut self.upstream, cx)
        {
            return Poll::Ready(match read {
                Ok(0) | Err(_) => Turn::UpstreamClosed,
                Ok(_) => Turn::Upstream,
            });
        }
        let listens =
            self.hears_client() && self.up.may_read() && !self.large.keeps_from_reading(self.up.large_front());
        if listens && let Poll::Ready(read) = self.up.poll_read(&mut self.client, cx) {
            return Poll::Ready(match read {
                Ok(0) | Err(_) => Turn::ClientClosed,
                Ok(_) => Turn::Client,
            });
        }
        Poll::Pending
    }

    fn hears_client(&self) -> bool {
        !self.client_left && !self.terminated && self.takes_messages()
    }

    /// For the client's next message, where it is a large one.
    fn make_room(&mut self) {
        let reads = self.hears_client() && self.up.may_read();
        if self.large.settle(self.up.large_front(), self.up.bytes.len(), reads) == Settled::Released {
            self.up.shrink();
        }
    }

    /// A server keeps short answers back until it is asked for them: with the window full of such nobody would move.
    fn keep_window_moving(&mut self) {
        if self.window_open() {
            self.flushed = false;
        } else if !self.flushed && !self.up.is_inside_message() {
            let mut flush = BytesMut::new();
            encode::flush(&mut flush);
            let end = self.up.walked;
            self.up.replace(end..end, &flush);
            self.flushed = true;
        }
    }

    fn mid_transaction(&self) -> bool {
        self.status != TransactionStatus::Idle || self.pipeline.due() > 0 || self.batch_open
    }

    /// Once a second: do identity and gateway still hold? If not, the session ends between transactions.
    fn look(&mut self) -> Done {
        self.up.rest();
        self.down.rest();
        self.large.look()?;
        if self.large.is_waiting() {
            self.tenure.heard();
        }
        if self.client_left || self.terminated {
            self.abandon()?;
        }
        let mid_transaction = self.mid_transaction();
        self.tenure.look(&self.shared.dependencies.verifier, &self.identity, mid_transaction);
        self.tenure.leave_if_due(self.mid_transaction())
    }

    /// What the client sent before it left may finish, but not run on for nobody for long: it is cancelled, and as long
    /// again after that the connection is closed.
    fn abandon(&mut self) -> Done {
        let since = *self.abandoned.get_or_insert_with(Instant::now);
        if since.elapsed() >= 2 * ABANDONED_MAX {
            return Err(SessionEnd::ClientClosed);
        }
        if since.elapsed() >= ABANDONED_MAX && !self.cancelling.under_way() {
            self.cancelling.forward(&self.target, &self.upstream_key, None);
        }
        Ok(())
    }

    /// A cancel is for what the client sent before it asked: that goes out first, as far as it is here. Nothing of the
    /// gateway's own ever runs on this connection, so the request goes on as it is.
    async fn cancel_in_order(&mut self, asked: Asked) -> Done {
        for _ in 0..READS_BEFORE_CANCEL_MAX {
            self.commit().await?;
            let turn = poll_fn(|cx| {
                Poll::Ready(match self.poll_turn(cx, false) {
                    Poll::Ready(turn) => Some(turn),
                    Poll::Pending => None,
                })
            });
            if turn.await != Some(Turn::Client) {
                break;
            }
            self.take_requests()?;
        }
        self.cancelling.forward(&self.target, &self.upstream_key, Some(asked));
        Ok(())
    }

    fn new_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// What both sides are told, and what the record says.
    async fn finish(mut self: Box<Self>, end: SessionEnd) {
        if let SessionEnd::Leaving(Ending::IdentityWithdrawn | Ending::Frozen(_)) = end
            && self.pipeline.due() > 0
        {
            // What runs must not run on for somebody who may not be here.
            self.cancelling.settle().await;
            self.cancelling.forward(&self.target, &self.upstream_key, None);
            let _ = timeout(LAST_WORDS, self.cancelling.settle()).await;
        }
        let words = match &end {
            // The client sees what it would see without a gateway.
            SessionEnd::UpstreamClosed => None,
            end => last_words(end),
        };
        let mut own = BytesMut::new();
        words.iter().for_each(|fields| fields.encode_error(&mut own));
        if self.commit().await.is_ok() && self.pending.is_some() {
            // The end of a statement is held, and with it what stands behind it.
            own.clear();
        }
        self.down.close_with(&own);
        // As well as it can be: a record that takes nothing any more must not keep a client from hearing of it.
        self.down.transcribe(&mut self.transcript);
        let _ = record_sent(&mut self.record, &mut self.transcript).is_ok() && commit(&mut self.record).await.is_ok();
        let mut goodbye = BytesMut::new();
        encode::terminate(&mut goodbye);
        self.up.close_with(&goodbye);
        let _ = timeout(LAST_WORDS, self.write_out()).await;
        let _ = timeout(LAST_WORDS, self.client.shutdown()).await;
        let _ = timeout(LAST_WORDS, self.upstream.shutdown()).await;
        self.close_intents();
        log_end(&end, &self.target.name);
        if let Err(problem) = self.record.end(&end.to_string()) {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record the end of a session");
        }
    }

    async fn write_out(&mut self) {
        poll_fn(|cx| {
            let up = self.up.poll_write(&mut self.upstream, cx);
            let down = self.down.poll_write(&mut self.client, cx);
            if up.is_pending() || down.is_pending() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Nobody will see how these end.
    fn close_intents(&mut self) {
        if let Err(problem) = self.batch_ended(Ended::unknown()) {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record an unknown outcome");
            return;
        }
        let pipeline = std::mem::take(&mut self.pipeline);
        for (_, owed) in pipeline.into_due() {
            let unknown = Ended::unknown();
            let recorded = match owed {
                Owed::Query { run, .. } | Owed::FunctionCall { run } if run.over => Ok(()),
                Owed::Query { run, .. } | Owed::FunctionCall { run } => self.record_outcome(run, unknown),
                Owed::Execute { portal, run, .. } => self.settle(&portal, run, unknown),
                Owed::Parse { .. }
                | Owed::Bind { .. }
                | Owed::Close { .. }
                | Owed::Sync
                | Owed::Unrecorded
                | Owed::Poison => Ok(()),
            };
            if let Err(problem) = recorded {
                tracing::error!(problem = exeat_store::chain(&problem), "could not record an unknown outcome");
                return;
            }
        }
    }
}

/// Makes the ids of requests, unique across sessions: the session's id and a number.
#[derive(Debug)]
struct RequestIds {
    text: String,
    prefix: usize,
}

impl RequestIds {
    fn new(session: &str) -> Self {
        let text = format!("req_{session}_");
        Self { prefix: text.len(), text }
    }

    fn name(&mut self, request: u64) {
        use std::fmt::Write as _;
        self.text.truncate(self.prefix);
        // Writing to a string does not fail.
        let _ = write!(self.text, "{request}");
    }

    fn named(&self) -> &str {
        &self.text
    }
}
