//! One client session on one upstream connection, from the first statement to the last byte. One task owns it all.
//! `run_exchange` is the life of one query, top to bottom; each step lives in the module its name says.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use exeat_enforce::admit::{Verdict, admit_query};
use exeat_enforce::release::Transcript;
use exeat_enforce::release::copy::CopyMasker;
use exeat_enforce::scrub::Taint;
use exeat_policy::RelationName;
use exeat_sql::catalog::SessionState;
use exeat_store::record::SessionRecord;
use exeat_wire::frame::FRONTEND_FRAME_BYTES_MAX;
use exeat_wire::{
    DecodeError, Fields, FrontendMessage, Pipeline, PipelineError, Query, Request, TransactionStatus, frontend,
    split_frontend,
};

use super::ask::Values;
use super::asked::Questions;
use super::batch::Batch;
use super::cancel::{Asked, CancelKey, Cancelling};
use super::copy::CopyIn;
use super::counted::Progress;
use super::due::{Due, QueryDue};
use super::io::{Inbound, Interest, Io, Turn, UPSTREAM_BYTES_HIGH};
use super::large::Passing;
use super::malformed::Malformed;
use super::notify::{OwnNotifications, worded};
use super::outcome::Intent;
use super::overlay::Room;
use super::picture::{Picture, Understood};
use super::refusals::Refusals;
use super::seat::{Looks, Seat, Tenure};
use super::send::{Sender, Unsendable};
use super::statements::Names;
use super::stream::ClientStream;
use crate::config::Target;
use crate::freezes::Standstill;
use crate::identity::Verified;
use crate::large_messages::{Front, Settled, Share, Stalled};
use crate::limits::SessionGuard;
use crate::server::Shared;
use crate::upstream::UpstreamStream;

/// Requests sent and not yet answered. A client that pipelines more waits; libpq's own buffers fill long before.
pub(crate) const WINDOW_REQUESTS_MAX: usize = 1024;
/// A client that never stops sending cannot put its own cancel off for ever.
pub(crate) const READS_BEFORE_CANCEL_MAX: usize = 16;
/// How long a session may finish its transaction after the identity expired. There is no grace where it was taken back.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Arc<Target>,
    pub(crate) identity: Verified,
    pub(crate) io: Io<ClientStream, UpstreamStream>,
    pub(crate) pipeline: Pipeline<Due>,
    pub(crate) names: Names,
    pub(crate) picture: Picture,
    pub(crate) record: SessionRecord,
    pub(crate) transcript: Transcript,
    pub(crate) cancel_key: CancelKey,
    pub(crate) upstream_key: (i32, bytes::Bytes),
    /// As of the last ReadyForQuery.
    pub(crate) status: TransactionStatus,
    /// When that came.
    pub(crate) ready_since: Instant,
    /// The worst of the open transaction: what COMMIT and Sync may still say.
    pub(crate) taint: Taint,
    /// Extended messages were sent since the last Sync: an implicit transaction may be open.
    pub(crate) batch_open: bool,
    /// When the first of them was.
    pub(crate) batch_since: Instant,
    /// What the server has run of the batch.
    pub(crate) batch: Batch<Arc<str>>,
    /// A message of the batch was refused: what follows is skipped up to the client's Sync.
    pub(crate) refusing: bool,
    /// Notifications of its own that the session may hear.
    pub(crate) notified: OwnNotifications,
    pub(crate) copy_in: CopyIn,
    /// Size of the client's message that is being dealt with: no buffer has it any more.
    in_hand_bytes: usize,
    /// Masks the data of the COPY that the server is sending.
    pub(crate) copy_out: Option<CopyMasker>,
    /// Where the answer of a counted statement stands.
    pub(crate) progress: Progress,
    /// Rows of protected relations that have left in this session, for whoever is asked.
    pub(crate) released: BTreeMap<RelationName, u64>,
    /// The open transaction may hold locks of writes.
    pub(crate) has_written: bool,
    /// A counted COPY from the client is under way: nothing but its data follows it. In a transaction of the gateway's,
    /// and of which request.
    pub(crate) alone: Option<Option<Arc<str>>>,
    pub(crate) refusals: Refusals,
    /// What the client asks the gateway itself.
    pub(crate) questions: Questions,
    /// A message of the server's that is passed on in pieces.
    pub(crate) passing: Option<Passing>,
    /// What the server answered to the gateway's own messages.
    pub(crate) own: Own,
    /// A Flush of the gateway's own was sent since the window closed.
    flushed: bool,
    /// A request to cancel that was heard and not yet forwarded.
    pub(crate) cancel_due: Option<Asked>,
    pub(crate) cancelling: Cancelling,
    pub(crate) tenure: Tenure,
    pub(crate) large: Share,
    pub(crate) next_request: u64,
    pub(crate) upstream_closed: bool,
    /// The login is over: what is queued for the client may leave.
    pub(crate) welcomed: bool,
    /// When the last look found that the client had ended its side.
    pub(crate) abandoned: Option<Instant>,
    pub(crate) looks: Looks,
    pub(crate) _counted: SessionGuard,
}

pub(crate) type Client = Inbound<ClientStream>;

/// Answers to the gateway's own messages on this connection.
#[derive(Debug, Default)]
pub(crate) struct Own {
    pub(crate) rows: Vec<Vec<Option<String>>>,
    /// How many rows there were when each query ended.
    pub(crate) ends: Vec<usize>,
    /// What the exchange under way may still take.
    pub(crate) room: Room,
    pub(crate) failed: Option<Fields>,
    /// As last read.
    pub(crate) state: Option<SessionState>,
}

/// Why a session must end although nobody broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    IdentityExpired,
    IdentityWithdrawn,
    /// Somebody has frozen the subject or the target.
    Frozen(Standstill),
    Idle,
    Shutdown,
    PolicyChanged,
}

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    #[error("client ended the session")]
    Terminated,
    #[error("client closed the connection")]
    ClientClosed,
    #[error("server closed the connection")]
    UpstreamClosed,
    #[error("server ended the connection")]
    UpstreamFatal,
    #[error("client broke the protocol: {0}")]
    Client(DecodeError),
    #[error("client sent {0} where it does not belong")]
    ClientMessage(&'static str),
    #[error("server broke the protocol: {0}")]
    Server(DecodeError),
    #[error("server broke the protocol: {0}")]
    Pipeline(#[from] PipelineError),
    #[error("released nothing of an answer that differs from its analysis: {0}")]
    Mismatch(#[from] exeat_enforce::release::MaskMismatch),
    #[error("released nothing of an answer that does not belong here: {0}")]
    Release(#[from] exeat_enforce::release::ReleaseError),
    #[error("could not record an outcome")]
    Outcome(#[source] exeat_store::StoreError),
    #[error("database role is {found:?} where the login is {expected:?}")]
    Role { expected: String, found: String },
    #[error("could not read the session's own state: {0}")]
    State(String),
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    #[error("server started a COPY that was not asked for")]
    Copy,
    #[error("the catalog moved while the server waited to run a statement; nothing of its answer was released")]
    CatalogMoved,
    #[error("server sent {0} where it does not belong")]
    UnexpectedAnswer(&'static str),
    #[error(transparent)]
    Stalled(#[from] Stalled),
    #[error("{0:?}")]
    Leaving(Ending),
    #[error("i/o failed")]
    Io(#[from] std::io::Error),
}

pub(crate) type Done = Result<(), SessionEnd>;

impl Session {
    pub(crate) fn new(seat: Seat, picture: Picture) -> Self {
        Self {
            transcript: Transcript::new(seat.shared.dependencies.results),
            large: seat.shared.large_messages.share(),
            shared: seat.shared,
            target: seat.target,
            identity: seat.identity,
            io: Io::new(seat.client, Inbound::new(seat.upstream, seat.upstream_bytes)),
            pipeline: Pipeline::new(),
            names: Names::default(),
            picture,
            record: seat.record,
            cancel_key: seat.cancel_key,
            upstream_key: seat.upstream_key,
            status: TransactionStatus::Idle,
            ready_since: Instant::now(),
            taint: Taint::Clean,
            batch_open: false,
            batch_since: Instant::now(),
            batch: Batch::default(),
            refusing: false,
            notified: Default::default(),
            copy_in: CopyIn::default(),
            in_hand_bytes: 0,
            copy_out: None,
            progress: Progress::default(),
            released: BTreeMap::new(),
            has_written: false,
            alone: None,
            refusals: Refusals::default(),
            questions: Questions::default(),
            passing: None,
            own: Own::default(),
            flushed: false,
            cancel_due: None,
            cancelling: Cancelling::default(),
            tenure: seat.tenure,
            next_request: 0,
            upstream_closed: false,
            welcomed: false,
            abandoned: None,
            looks: Looks::default(),
            _counted: seat.counted,
        }
    }

    /// Runs until one side leaves or the session must end. Not cancel safe: run it to the end.
    pub(crate) async fn run(mut self: Box<Self>) {
        let end = match self.serve().await {
            Ok(()) => SessionEnd::Terminated,
            Err(end) => end,
        };
        Box::pin(self.finish(end)).await;
    }

    async fn serve(&mut self) -> Done {
        loop {
            self.take_answers().await?;
            self.leave_if_due()?;
            self.take_messages().await?;
            self.end_alone().await?;
            if self.upstream_closed {
                return Err(self.upstream_end());
            }
            self.pass_on_end();
            self.keep_window_moving();
            if self.cancel_due.is_some() {
                self.cancel_in_order().await?;
            }
            let turn = self.turn(Interest { client: self.window_open(), upstream: true }).await?;
            if turn == Turn::ClientClosed {
                return Err(SessionEnd::ClientClosed);
            }
        }
    }

    /// What the client has sent, as far as it is whole and the window is open.
    pub(crate) async fn take_messages(&mut self) -> Done {
        while self.window_open() {
            let Some(message) = self.next_message()? else { break };
            match message {
                Ok(FrontendMessage::Terminate) => return Err(SessionEnd::Terminated),
                Ok(message) => self.run_exchange(message).await?,
                Err(malformed) => self.answer_malformed(malformed).await?,
            }
            self.in_hand_bytes = 0;
        }
        Ok(())
    }

    /// Steps 2 and 3: the next whole message of the client.
    fn next_message(&mut self) -> Result<Option<Result<FrontendMessage, Malformed>>, SessionEnd> {
        if !self.pass_copy_data()? {
            return Ok(None);
        }
        let frame = split_frontend(&mut self.io.client.buffer, FRONTEND_FRAME_BYTES_MAX).map_err(SessionEnd::Client)?;
        let Some(frame) = frame else { return Ok(None) };
        self.in_hand_bytes = frame.bytes().len();
        let decoded = frontend::decode(frame.clone());
        decoded.map(Ok).or_else(|problem| Malformed::of(&frame, problem).map(Err)).map(Some)
    }

    /// One message from end to end. Its answer is released by `answers` as the server sends it.
    async fn run_exchange(&mut self, message: FrontendMessage) -> Done {
        let Some(message) = self.copy_message(message)? else { return Ok(()) };
        self.settle(&message).await?;
        match message {
            FrontendMessage::Sync => return self.sync(),
            // Everything but Sync is skipped by the server too, a simple Query included.
            _ if self.refusing || self.pipeline.is_skipping() => return Ok(()),
            FrontendMessage::Query(query) => return self.query(query).await,
            FrontendMessage::Parse(parse) => self.parse(parse).await?,
            FrontendMessage::Bind(bind) => self.bind(bind).await?,
            FrontendMessage::Describe(describe) => {
                if !self.ask_describe(&describe).await? {
                    self.describe(describe)?;
                }
            }
            FrontendMessage::Execute(execute) => {
                if !self.ask_execute(&execute).await? {
                    self.execute(execute).await?;
                }
            }
            FrontendMessage::Close(close) => {
                if !self.ask_close(&close).await? {
                    self.close(close)?;
                }
            }
            FrontendMessage::Flush => {
                self.sender().flush();
                return Ok(());
            }
            FrontendMessage::FunctionCall(call) => return self.function_call(call).await,
            // Left over from a COPY that was refused or failed: the server ignores them as well.
            FrontendMessage::CopyData(_) | FrontendMessage::CopyDone | FrontendMessage::CopyFail(_) => return Ok(()),
            FrontendMessage::Password(_) => return Err(SessionEnd::ClientMessage("a password message")),
            FrontendMessage::Terminate => return Ok(()),
        }
        self.open_batch();
        Ok(())
    }

    pub(crate) fn open_batch(&mut self) {
        if !std::mem::replace(&mut self.batch_open, true) {
            self.batch_since = Instant::now();
        }
    }

    /// Waits where only the server's answers to what went before tell what the message means: which text a name
    /// stands for, when its last change may have failed; and whether a Query behind an open batch is skipped with it.
    async fn settle(&mut self, message: &FrontendMessage) -> Done {
        let ends_batch = matches!(message, FrontendMessage::Query(_) | FrontendMessage::FunctionCall(_));
        if ends_batch && self.batch_open && !self.refusing && self.pipeline.due() > 0 {
            self.sender().flush();
            while self.pipeline.due() > 0 && !self.pipeline.is_skipping() && !self.pipeline.is_copying_in() {
                self.await_answers().await?;
            }
        }
        while self.names_in_doubt(message) {
            self.await_answers().await?;
        }
        Ok(())
    }

    fn names_in_doubt(&self, message: &FrontendMessage) -> bool {
        match message {
            FrontendMessage::Bind(bind) => self.names.statement_in_doubt(bind.statement.as_str()),
            FrontendMessage::Execute(execute) => self.portal_in_doubt(execute.portal.as_str()),
            FrontendMessage::Describe(describe) => match describe.target {
                frontend::Target::Statement => self.statement_in_doubt(describe.name.as_str()),
                frontend::Target::Portal => self.portal_in_doubt(describe.name.as_str()),
            },
            FrontendMessage::Query(_)
            | FrontendMessage::Parse(_)
            | FrontendMessage::Close(_)
            | FrontendMessage::Flush
            | FrontendMessage::Sync
            | FrontendMessage::Terminate
            | FrontendMessage::CopyData(_)
            | FrontendMessage::CopyDone
            | FrontendMessage::CopyFail(_)
            | FrontendMessage::FunctionCall(_)
            | FrontendMessage::Password(_) => false,
        }
    }

    /// Until the server has said more. What the client says meanwhile is kept, so that its leaving is noticed.
    pub(crate) async fn await_answers(&mut self) -> Done {
        if self.turn(Interest { client: self.hears_client(), upstream: true }).await? == Turn::ClientClosed {
            return Err(SessionEnd::ClientClosed);
        }
        self.take_answers().await?;
        if self.upstream_closed { Err(self.upstream_end()) } else { Ok(()) }
    }

    /// A simple Query, whole or not at all.
    async fn query(&mut self, query: Query) -> Done {
        let request_id = self.new_request();
        let sql = query.sql.clone();
        let (permit, analysis) = match self.understand(sql.as_str(), &[], false).await? {
            Understood::Permit(permit, analysis) => (permit, analysis), // steps 4 to 6
            Understood::Refuse(refused) => {
                self.record_refusal(&request_id, sql.as_str(), &refused);
                return self.refuse_simple(&refused.refusal.to_fields(&request_id)).await;
            }
            Understood::Answered(fields) => {
                self.record_said(&request_id, sql.as_str(), &fields);
                return self.answer_simple(&fields).await;
            }
            Understood::Said(fields) => {
                self.record_said(&request_id, sql.as_str(), &fields);
                return self.refuse_simple(&fields).await;
            }
            Understood::Own(question) => return self.ask_simple(&question).await,
            Understood::Skipped => return Ok(()),
        };
        if let Some(refused) = self.count_lookups(&request_id, &permit, None).await? {
            self.record_refusal(&request_id, sql.as_str(), &refused);
            return self.refuse_simple(&refused.refusal.to_fields(&request_id)).await;
        }
        let (permit, approval) = match self.seek_leave(&request_id, permit, &Values::None).await? {
            Ok(leave) => leave,
            Err(unheld) => return self.refuse_unheld(&request_id, sql.as_str(), unheld).await,
        };
        let guarded = match self.guard(&permit).await? {
            Ok(guarded) => guarded,
            Err(refused) => {
                self.record_refusal(&request_id, sql.as_str(), &refused);
                return self.refuse_simple(&refused.refusal.to_fields(&request_id)).await;
            }
        };
        let receipt = match self.record_intent(&request_id, sql.as_str(), &permit.facts, Intent::Query) {
            Ok(receipt) => receipt, // step 8
            Err(refusal) => return self.refuse_guarded(guarded, &refusal.to_fields(&request_id)).await,
        };
        match admit_query(query, &permit) {
            Verdict::Refuse(refusal) => self.refuse_guarded(guarded, &refusal.to_fields(&request_id)).await,
            Verdict::Forward(admitted) => {
                self.notified.sends(&worded(&permit, &[]));
                self.note_effects(&permit);
                let steps = self.steps(&permit, (&request_id, approval.as_ref()), &analysis);
                let change = self.names.run(true, steps);
                self.copy_in.sent(&permit);
                self.picture.transaction_may_end();
                let ends_batch = std::mem::take(&mut self.batch_open); // with the implicit transaction it runs in
                let analysed = self.analysed(Some(analysis));
                let is_counted = permit.is_counted();
                let guard = guarded.then(|| Arc::clone(&request_id));
                let due = QueryDue::new(permit, request_id, change, analysed).ending_batch(ends_batch);
                let due = Due::Query(Box::new(due.let_through(approval, guarded)));
                self.sender().statement(Request::Query, admitted, receipt, due); // step 9
                if is_counted { self.go_alone(guard).await } else { Ok(()) }
            }
        }
    }

    /// The server has answered already, through a probe, or would say just this.
    pub(crate) async fn answer_simple(&mut self, fields: &Fields) -> Done {
        let change = self.names.query(Vec::new());
        self.names.confirm(change);
        self.picture.transaction_may_end();
        self.io.outbox.error(fields);
        if self.pipeline.is_skipping() {
            // The probe stood in an open batch and failed there; a Query would have ended the batch.
            self.batch_open = false;
            self.end_own_exchange().await?;
        }
        self.io.outbox.ready_for_query(self.status);
        Ok(())
    }

    pub(crate) fn sender(&mut self) -> Sender<'_> {
        Sender { outgoing: &mut self.io.outgoing, pipeline: &mut self.pipeline }
    }

    /// Unique across sessions: the session's id and a number.
    pub(crate) fn new_request(&mut self) -> Arc<str> {
        self.next_request += 1;
        Arc::from(format!("req_{}_{}", self.record.session(), self.next_request))
    }

    pub(crate) fn window_open(&self) -> bool {
        !self.copy_in.awaited()
            && (self.alone.is_none() || self.copy_in.running())
            && self.pipeline.due() < WINDOW_REQUESTS_MAX
            && (!self.tenure.is_leaving() || self.inside_transaction())
    }

    /// Whether the client's next message belongs to what it began before. Statements sent ahead without end are each a
    /// transaction of its own: a session that must leave takes no more of them.
    fn inside_transaction(&self) -> bool {
        self.status != TransactionStatus::Idle || self.batch_open || self.copy_in.running()
    }

    /// A server keeps short answers back until it is asked for them: with the window full of such nobody would move.
    fn keep_window_moving(&mut self) {
        if self.pipeline.due() < WINDOW_REQUESTS_MAX {
            self.flushed = false;
        } else if !std::mem::replace(&mut self.flushed, true) {
            self.sender().flush();
        }
    }

    pub(crate) fn mid_transaction(&self) -> bool {
        self.status != TransactionStatus::Idle || self.pipeline.due() > 0 || self.batch_open
    }

    /// Whether there is room for the client's next message.
    pub(crate) fn has_room(&mut self, interest: Interest) -> bool {
        let front = if self.copy_in.inside_frame() { None } else { Front::of(&self.io.client.buffer) };
        let kept = self.in_hand_bytes + self.io.client.buffer.len() + self.io.outgoing.len();
        let reads = interest.client && self.io.outgoing.len() < UPSTREAM_BYTES_HIGH;
        if self.large.settle(front, kept, reads) == Settled::Released {
            // The buffer has the size of the message that has gone.
            self.io.client.buffer = BytesMut::from(self.io.client.buffer.as_ref());
        }
        !self.large.keeps_from_reading(front)
    }

    /// Once a second: do identity and gateway still hold? If not, the session ends between transactions.
    pub(crate) fn look(&mut self) -> Done {
        self.abandon()?;
        self.large.look()?;
        if self.large.is_waiting() {
            self.tenure.heard();
        }
        let mid_transaction = self.mid_transaction();
        self.tenure.look(&self.shared.dependencies.verifier, &self.identity, mid_transaction);
        self.leave_if_due()
    }

    fn leave_if_due(&self) -> Done {
        self.tenure.leave_if_due(self.mid_transaction())
    }

    /// Commits the record, so that what is queued for both sides may leave, and waits for bytes, a cancel, or the next
    /// look at the clock.
    pub(crate) async fn turn(&mut self, interest: Interest) -> Result<Turn, SessionEnd> {
        if self.welcomed {
            let committed = self.commit().await.map_err(SessionEnd::Outcome)?;
            self.io.clear(committed);
        } else {
            let committed = super::outcome::commit(&mut self.record).await.map_err(SessionEnd::Outcome)?;
            self.io.clear_upstream(committed);
        }
        let interest = Interest { client: self.has_room(interest) && interest.client, ..interest };
        let landed = self.cancelling.landed();
        let takes_cancel = self.cancel_due.is_none() && !self.cancelling.under_way();
        // Sockets that always have something must not keep a session from hearing of its end.
        let urgent = self.looks.is_overdue() || (takes_cancel && !self.cancel_key.requests.is_empty());
        let turn = tokio::select! {
            biased;
            () = poll_fn(|cx| self.large.poll_granted(cx)), if self.large.is_waiting() => return Ok(Turn::Flushed),
            turn = self.io.turn(interest), if !urgent => turn?,
            asked = self.cancel_key.requests.recv(), if takes_cancel => {
                self.cancel_due = asked;
                // What the client sent before it asked may be in our socket and not yet announced to us.
                tokio::task::yield_now().await;
                return Ok(Turn::Flushed);
            }
            // The next one may be waiting.
            () = landed.notified() => return Ok(Turn::Flushed),
            () = self.looks.due() => {
                self.look()?;
                return Ok(Turn::Flushed);
            }
        };
        match turn {
            // What it said before it closed is still to be read.
            Turn::UpstreamClosed => {
                self.upstream_closed = true;
                Ok(turn)
            }
            Turn::Client => {
                self.tenure.heard();
                Ok(turn)
            }
            Turn::Upstream | Turn::ClientClosed | Turn::ClientEnded | Turn::Flushed => Ok(turn),
        }
    }
}
