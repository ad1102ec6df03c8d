//! Which answers a server owes, and to which request the message that just came belongs.
//! Follows `postgres.c`: answers come in order; an error in an extended request makes the server ignore everything,
//! simple queries included, up to the next Sync; an error in a Query, FunctionCall or Sync is followed by its
//! ReadyForQuery. A message that cannot come at its place is an error here: a gateway that guesses what a stray
//! message belongs to would apply one request's masks to another's rows.
//! Holds no bytes, decides nothing about content, and does not bound its queue: the session bounds `due()`.

use std::collections::VecDeque;
use std::fmt;

use crate::backend::BackendMessage;

/// What was sent and is answered. (Flush, Terminate and COPY data have no answer of their own.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute,
    Close,
    Sync,
    Query,
    FunctionCall,
    /// CopyDone or CopyFail. Has no answer: it ends the COPY before it, and is dropped where none is under way.
    CopyEnd,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::Parse => "Parse",
            Request::Bind => "Bind",
            Request::DescribeStatement => "Describe of a statement",
            Request::DescribePortal => "Describe of a portal",
            Request::Execute => "Execute",
            Request::Close => "Close",
            Request::Sync => "Sync",
            Request::Query => "Query",
            Request::FunctionCall => "FunctionCall",
            Request::CopyEnd => "the end of COPY data",
        })
    }
}

/// A server message as the table of legal answers sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A message of the login or of replication: legal nowhere here.
    Foreign(&'static str),
    ParameterStatus,
    NoticeResponse,
    NotificationResponse,
    /// `fatal`: the connection ends with it.
    ErrorResponse {
        fatal: bool,
    },
    ReadyForQuery,
    RowDescription,
    DataRow,
    CommandComplete,
    EmptyQueryResponse,
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    ParameterDescription,
    PortalSuspended,
    CopyInResponse,
    CopyOutResponse,
    CopyData,
    CopyDone,
    FunctionCallResponse,
}

impl Answer {
    pub fn of(message: &BackendMessage) -> Self {
        use BackendMessage as M;
        match message {
            M::Authentication(_)
            | M::BackendKeyData { .. }
            | M::NegotiateProtocolVersion { .. }
            | M::CopyBothResponse(_) => Self::Foreign(message.name()),
            M::ParameterStatus { .. } => Self::ParameterStatus,
            M::NoticeResponse(_) => Self::NoticeResponse,
            M::NotificationResponse { .. } => Self::NotificationResponse,
            M::ErrorResponse(fields) => Self::ErrorResponse { fatal: fields.ends_connection() },
            M::ReadyForQuery(_) => Self::ReadyForQuery,
            M::RowDescription(_) => Self::RowDescription,
            M::DataRow(_) => Self::DataRow,
            M::CommandComplete { .. } => Self::CommandComplete,
            M::EmptyQueryResponse => Self::EmptyQueryResponse,
            M::ParseComplete => Self::ParseComplete,
            M::BindComplete => Self::BindComplete,
            M::CloseComplete => Self::CloseComplete,
            M::NoData => Self::NoData,
            M::ParameterDescription { .. } => Self::ParameterDescription,
            M::PortalSuspended => Self::PortalSuspended,
            M::CopyInResponse(_) => Self::CopyInResponse,
            M::CopyOutResponse(_) => Self::CopyOutResponse,
            M::CopyData(_) => Self::CopyData,
            M::CopyDone => Self::CopyDone,
            M::FunctionCallResponse(_) => Self::FunctionCallResponse,
        }
    }

    /// By the type byte alone; whether an error is fatal only its fields tell. `None`: no such message.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            b'R' => Self::Foreign("Authentication"),
            b'K' => Self::Foreign("BackendKeyData"),
            b'v' => Self::Foreign("NegotiateProtocolVersion"),
            b'W' => Self::Foreign("CopyBothResponse"),
            b'S' => Self::ParameterStatus,
            b'N' => Self::NoticeResponse,
            b'A' => Self::NotificationResponse,
            b'E' => Self::ErrorResponse { fatal: false },
            b'Z' => Self::ReadyForQuery,
            b'T' => Self::RowDescription,
            b'D' => Self::DataRow,
            b'C' => Self::CommandComplete,
            b'I' => Self::EmptyQueryResponse,
            b'1' => Self::ParseComplete,
            b'2' => Self::BindComplete,
            b'3' => Self::CloseComplete,
            b'n' => Self::NoData,
            b't' => Self::ParameterDescription,
            b's' => Self::PortalSuspended,
            b'G' => Self::CopyInResponse,
            b'H' => Self::CopyOutResponse,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'V' => Self::FunctionCallResponse,
            _ => return None,
        })
    }

    /// The message's name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign(name) => name,
            Self::ParameterStatus => "ParameterStatus",
            Self::NoticeResponse => "NoticeResponse",
            Self::NotificationResponse => "NotificationResponse",
            Self::ErrorResponse { .. } => "ErrorResponse",
            Self::ReadyForQuery => "ReadyForQuery",
            Self::RowDescription => "RowDescription",
            Self::DataRow => "DataRow",
            Self::CommandComplete => "CommandComplete",
            Self::EmptyQueryResponse => "EmptyQueryResponse",
            Self::ParseComplete => "ParseComplete",
            Self::BindComplete => "BindComplete",
            Self::CloseComplete => "CloseComplete",
            Self::NoData => "NoData",
            Self::ParameterDescription => "ParameterDescription",
            Self::PortalSuspended => "PortalSuspended",
            Self::CopyInResponse => "CopyInResponse",
            Self::CopyOutResponse => "CopyOutResponse",
            Self::CopyData => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::FunctionCallResponse => "FunctionCallResponse",
        }
    }
}

/// What becomes of a request that is sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent<T> {
    /// The server will answer it.
    Due,
    /// The server will not answer it: it is skipping to Sync, reads it as part of COPY data, or has ended the
    /// connection.
    Skipped(T),
}

/// What a server message means for the requests due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// Notice, parameter status or notification: belongs to no request.
    Asynchronous,
    /// Belongs to the front request, whose answer goes on.
    Partial,
    /// The front request is answered in full by this message.
    Completed { request: Request, context: T },
    /// The front request, an extended one, failed. `skipped` stood behind it and will never be answered.
    Failed { request: Request, context: T, skipped: Vec<(Request, T)> },
    /// The front request (Query, FunctionCall or Sync) failed; its ReadyForQuery is still due.
    QueryFailed,
    /// The front request wants COPY data from the client. `swallowed` was sent before the server said so: the
    /// server reads it in place of data (Sync is ignored, anything else fails the COPY) and will not answer it.
    /// CopyDone and CopyFail are noted like any request, before this step or after it ([`Request::CopyEnd`]).
    CopyIn { swallowed: Vec<(Request, T)> },
    /// The front request sends COPY data: CopyData and CopyDone follow as `Partial`.
    CopyOut,
    /// FATAL or PANIC: the connection ends, nothing that is due will be answered.
    Fatal,
}

/// The server broke the protocol; nothing it says can be matched to a request any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    #[error("server sent {message} while it owed the answer to {request}")]
    Unexpected { message: &'static str, request: Request },
    #[error("server sent {message} while it owed no answer")]
    Unsolicited { message: &'static str },
    #[error("server sent {message} after an error that ends the connection")]
    AfterFatal { message: &'static str },
}

/// How far the answer to the front request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of it was seen.
    Fresh,
    /// Describe of a statement: parameters seen, columns due.
    ParametersSeen,
    /// Rows may follow.
    Rows,
    /// The client sends COPY data.
    CopyIn,
    /// The client's COPY data has ended, by its own word or because it sent something else.
    CopyInEnded,
    CopyOut,
    CopyOutDone,
    /// Query: at least one statement is complete, another may begin.
    BetweenStatements,
    /// Nothing but ReadyForQuery may follow.
    Answered,
    /// An error was seen, ReadyForQuery is due.
    Failed,
}

/// What a legal message does to the front request.
enum Move {
    Stay(Phase),
    BeginCopyIn,
    BeginCopyOut,
    Done,
}

/// Requests due, in order, each with the session's own context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline<T> {
    queue: VecDeque<(Request, T)>,
    phase: Phase,   // of the front request; Fresh when there is none
    skipping: bool, // INVARIANT: set only while no Sync is queued.
    /// Something that is no COPY data was sent where the server takes some. Either it has lost its place in the stream
    /// over that, and ends the connection, or the COPY had failed before, and it answers what counts as swallowed.
    lost_place: bool,
    ended: bool,
}

impl<T> Default for Pipeline<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Pipeline<T> {
    /// For a connection that has just said its first ReadyForQuery.
    pub fn new() -> Self {
        Self { queue: VecDeque::new(), phase: Phase::Fresh, skipping: false, lost_place: false, ended: false }
    }

    /// Notes a request in the order in which it is written to the server.
    pub fn sent(&mut self, request: Request, context: T) -> Sent<T> {
        if self.ended {
            return Sent::Skipped(context);
        }
        if self.phase == Phase::CopyIn {
            self.swallow(request);
            return Sent::Skipped(context);
        }
        // The server ignores it, unless what is still to be answered turns out to be a COPY.
        if request == Request::CopyEnd && self.queue.is_empty() {
            return Sent::Skipped(context);
        }
        if self.skipping && request != Request::Sync {
            return Sent::Skipped(context);
        }
        self.skipping = false;
        self.queue.push_back((request, context));
        Sent::Due
    }

    /// Whether the server reads what the client sends as COPY data.
    pub fn is_copying_in(&self) -> bool {
        self.phase == Phase::CopyIn
    }

    /// How many requests wait for (the rest of) their answer.
    pub fn due(&self) -> usize {
        self.queue.len()
    }

    /// The request that the next message belongs to.
    pub fn front(&self) -> Option<(&Request, &T)> {
        self.queue.front().map(|(request, context)| (request, context))
    }

    pub fn front_mut(&mut self) -> Option<(&Request, &mut T)> {
        self.queue.front_mut().map(|(request, context)| (&*request, context))
    }

    /// Everything due, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Request, &T)> {
        self.queue.iter().map(|(request, context)| (request, context))
    }

    /// Takes out what is due when the connection is over.
    pub fn into_due(self) -> impl Iterator<Item = (Request, T)> {
        self.queue.into_iter()
    }

    /// Whether the server ignores what is sent, up to a Sync that has not been sent yet.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Notes a server message and says what it belongs to. After an error the pipeline is of no more use.
    pub fn on_backend(&mut self, message: &BackendMessage) -> Result<Step<T>, PipelineError> {
        self.on_answer(Answer::of(message))
    }

    /// The same for a message of which no more is known than what the table below asks.
    pub fn on_answer(&mut self, message: Answer) -> Result<Step<T>, PipelineError> {
        if self.ended {
            return Err(PipelineError::AfterFatal { message: message.name() });
        }
        match message {
            Answer::NoticeResponse | Answer::ParameterStatus | Answer::NotificationResponse => {
                return Ok(Step::Asynchronous);
            }
            Answer::ErrorResponse { fatal: true } => {
                self.ended = true;
                return Ok(Step::Fatal);
            }
            _ => {}
        }
        let Some(&(request, _)) = self.queue.front() else {
            return Err(PipelineError::Unsolicited { message: message.name() });
        };
        let is_error = matches!(message, Answer::ErrorResponse { .. });
        // The COPY's error, and then the end: any other answer may be one to what was taken for swallowed.
        if self.lost_place && !(is_error && self.phase == Phase::CopyInEnded) {
            return Err(PipelineError::Unexpected { message: message.name(), request });
        }
        if is_error {
            return Ok(self.fail(request));
        }
        match next(request, self.phase, message) {
            Some(Move::Stay(phase)) => {
                self.phase = phase;
                Ok(Step::Partial)
            }
            Some(Move::BeginCopyOut) => {
                self.phase = Phase::CopyOut;
                Ok(Step::CopyOut)
            }
            Some(Move::BeginCopyIn) => Ok(Step::CopyIn { swallowed: self.begin_copy_in() }),
            Some(Move::Done) => Ok(self.complete()),
            None => Err(PipelineError::Unexpected { message: message.name(), request }),
        }
    }

    fn complete(&mut self) -> Step<T> {
        self.phase = Phase::Fresh;
        let answered = self.queue.pop_front();
        self.drop_copy_ends();
        match answered {
            Some((request, context)) => Step::Completed { request, context },
            None => Step::Partial, // out of reach: there is a front, or there was no move
        }
    }

    /// The server has come to them outside any COPY: it ignores them.
    fn drop_copy_ends(&mut self) {
        while self.queue.front().is_some_and(|(request, _)| *request == Request::CopyEnd) {
            self.queue.pop_front();
        }
    }

    fn fail(&mut self, request: Request) -> Step<T> {
        match request {
            Request::Query | Request::FunctionCall | Request::Sync => {
                self.phase = Phase::Failed;
                Step::QueryFailed
            }
            Request::Parse
            | Request::Bind
            | Request::DescribeStatement
            | Request::DescribePortal
            | Request::Execute
            | Request::CopyEnd
            | Request::Close => {
                self.phase = Phase::Fresh;
                // Swallowed or skipped: up to the Sync that follows none of it is answered.
                self.lost_place = false;
                let sync = self.queue.iter().position(|(queued, _)| *queued == Request::Sync);
                self.skipping = sync.is_none();
                let mut lost = self.queue.drain(..sync.unwrap_or(self.queue.len()));
                match lost.next() {
                    Some((request, context)) => Step::Failed { request, context, skipped: lost.collect() },
                    None => Step::QueryFailed, // out of reach: the front is not a Sync
                }
            }
        }
    }

    /// The server reads what stands behind the front request in place of COPY data: it ignores Syncs, and the
    /// first other message fails the COPY and is lost with it (in current versions a FATAL error follows).
    fn begin_copy_in(&mut self) -> Vec<(Request, T)> {
        self.phase = Phase::CopyIn;
        let mut swallowed = Vec::new();
        while self.phase == Phase::CopyIn
            && let Some(entry) = self.queue.remove(1)
        {
            self.swallow(entry.0);
            swallowed.push(entry);
        }
        swallowed
    }

    fn swallow(&mut self, request: Request) {
        match request {
            Request::Sync => {}
            Request::CopyEnd => self.phase = Phase::CopyInEnded,
            Request::Parse
            | Request::Bind
            | Request::DescribeStatement
            | Request::DescribePortal
            | Request::Execute
            | Request::Close
            | Request::Query
            | Request::FunctionCall => {
                self.phase = Phase::CopyInEnded;
                self.lost_place = true;
            }
        }
    }
}

/// The table of legal answers, errors apart: those may come at any point. `None`: cannot come here.
fn next(request: Request, phase: Phase, message: Answer) -> Option<Move> {
    use Answer as M;
    match request {
        Request::Parse => matches!((phase, message), (Phase::Fresh, M::ParseComplete)).then_some(Move::Done),
        Request::Bind => matches!((phase, message), (Phase::Fresh, M::BindComplete)).then_some(Move::Done),
        Request::Close => matches!((phase, message), (Phase::Fresh, M::CloseComplete)).then_some(Move::Done),
        Request::DescribeStatement => match (phase, message) {
            (Phase::Fresh, M::ParameterDescription) => Some(Move::Stay(Phase::ParametersSeen)),
            (Phase::ParametersSeen, M::RowDescription | M::NoData) => Some(Move::Done),
            _ => None,
        },
        Request::DescribePortal => {
            matches!((phase, message), (Phase::Fresh, M::RowDescription | M::NoData)).then_some(Move::Done)
        }
        Request::Execute => match (phase, message) {
            (Phase::Fresh | Phase::Rows, M::DataRow) => Some(Move::Stay(Phase::Rows)),
            (Phase::Fresh | Phase::Rows, M::CommandComplete | M::PortalSuspended) => Some(Move::Done),
            (Phase::Fresh, M::EmptyQueryResponse) => Some(Move::Done),
            (Phase::CopyInEnded | Phase::CopyOutDone, M::CommandComplete) => Some(Move::Done),
            (Phase::Fresh, M::CopyInResponse) => Some(Move::BeginCopyIn),
            (Phase::Fresh, M::CopyOutResponse) => Some(Move::BeginCopyOut),
            _ => copy_out(phase, message),
        },
        Request::Query => next_of_query(phase, message),
        Request::FunctionCall => match (phase, message) {
            (Phase::Fresh, M::FunctionCallResponse) => Some(Move::Stay(Phase::Answered)),
            (Phase::Answered | Phase::Failed, M::ReadyForQuery) => Some(Move::Done),
            _ => None,
        },
        // A Sync fails when the implicit transaction it commits does (deferred constraints and triggers).
        Request::CopyEnd => None,
        Request::Sync => {
            matches!((phase, message), (Phase::Fresh | Phase::Failed, M::ReadyForQuery)).then_some(Move::Done)
        }
    }
}

fn next_of_query(phase: Phase, message: Answer) -> Option<Move> {
    use Answer as M;
    use Phase::{Answered, BetweenStatements, CopyInEnded, CopyOutDone, Failed, Fresh, Rows};
    match (phase, message) {
        (Rows, M::DataRow) => Some(Move::Stay(Rows)),
        // A rule (DO ALSO SELECT) can put several described results before one CommandComplete.
        (Fresh | BetweenStatements | Rows, M::RowDescription) => Some(Move::Stay(Rows)),
        (Fresh | BetweenStatements | Rows | CopyInEnded | CopyOutDone, M::CommandComplete) => {
            Some(Move::Stay(BetweenStatements))
        }
        // Answers a text without any statement, so it stands alone.
        (Fresh, M::EmptyQueryResponse) => Some(Move::Stay(Answered)),
        (BetweenStatements | Answered | Failed, M::ReadyForQuery) => Some(Move::Done),
        (Fresh | BetweenStatements, M::CopyInResponse) => Some(Move::BeginCopyIn),
        (Fresh | BetweenStatements, M::CopyOutResponse) => Some(Move::BeginCopyOut),
        _ => copy_out(phase, message),
    }
}

/// CopyBothResponse is not here: it starts replication, which is not this protocol.
fn copy_out(phase: Phase, message: Answer) -> Option<Move> {
    match (phase, message) {
        (Phase::CopyOut, Answer::CopyData) => Some(Move::Stay(Phase::CopyOut)),
        (Phase::CopyOut, Answer::CopyDone) => Some(Move::Stay(Phase::CopyOutDone)),
        _ => None,
    }
}
