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
        })
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
    /// From now on forward no client message but CopyData, CopyDone or CopyFail, and tell the pipeline of the
    /// end by [`Pipeline::copy_in_ended`]; CopyDone and CopyFail must not be sent on before this step.
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
        Self { queue: VecDeque::new(), phase: Phase::Fresh, skipping: false, ended: false }
    }

    /// Notes a request in the order in which it is written to the server.
    pub fn sent(&mut self, request: Request, context: T) -> Sent<T> {
        if self.ended {
            return Sent::Skipped(context);
        }
        if self.phase == Phase::CopyIn {
            if request != Request::Sync {
                self.phase = Phase::CopyInEnded;
            }
            return Sent::Skipped(context);
        }
        if self.skipping && request != Request::Sync {
            return Sent::Skipped(context);
        }
        self.skipping = false;
        self.queue.push_back((request, context));
        Sent::Due
    }

    /// CopyDone or CopyFail was written to the server, after [`Step::CopyIn`].
    pub fn copy_in_ended(&mut self) {
        if self.phase == Phase::CopyIn {
            self.phase = Phase::CopyInEnded;
        }
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
        if self.ended {
            return Err(PipelineError::AfterFatal { message: message.name() });
        }
        match message {
            BackendMessage::NoticeResponse(_)
            | BackendMessage::ParameterStatus { .. }
            | BackendMessage::NotificationResponse { .. } => return Ok(Step::Asynchronous),
            BackendMessage::ErrorResponse(fields) if fields.ends_connection() => {
                self.ended = true;
                return Ok(Step::Fatal);
            }
            _ => {}
        }
        let Some(&(request, _)) = self.queue.front() else {
            return Err(PipelineError::Unsolicited { message: message.name() });
        };
        if matches!(message, BackendMessage::ErrorResponse(_)) {
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
        match self.queue.pop_front() {
            Some((request, context)) => Step::Completed { request, context },
            None => Step::Partial, // out of reach: there is a front, or there was no move
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
            | Request::Close => {
                self.phase = Phase::Fresh;
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
            if entry.0 != Request::Sync {
                self.phase = Phase::CopyInEnded;
            }
            swallowed.push(entry);
        }
        swallowed
    }
}

/// The table of legal answers, errors apart: those may come at any point. `None`: cannot come here.
fn next(request: Request, phase: Phase, message: &BackendMessage) -> Option<Move> {
    use BackendMessage as M;
    match request {
        Request::Parse => matches!((phase, message), (Phase::Fresh, M::ParseComplete)).then_some(Move::Done),
        Request::Bind => matches!((phase, message), (Phase::Fresh, M::BindComplete)).then_some(Move::Done),
        Request::Close => matches!((phase, message), (Phase::Fresh, M::CloseComplete)).then_some(Move::Done),
        Request::DescribeStatement => match (phase, message) {
            (Phase::Fresh, M::ParameterDescription { .. }) => Some(Move::Stay(Phase::ParametersSeen)),
            (Phase::ParametersSeen, M::RowDescription(_) | M::NoData) => Some(Move::Done),
            _ => None,
        },
        Request::DescribePortal => {
            matches!((phase, message), (Phase::Fresh, M::RowDescription(_) | M::NoData)).then_some(Move::Done)
        }
        Request::Execute => match (phase, message) {
            (Phase::Fresh | Phase::Rows, M::DataRow(_)) => Some(Move::Stay(Phase::Rows)),
            (Phase::Fresh | Phase::Rows, M::CommandComplete { .. } | M::PortalSuspended) => Some(Move::Done),
            (Phase::Fresh, M::EmptyQueryResponse) => Some(Move::Done),
            (Phase::CopyInEnded | Phase::CopyOutDone, M::CommandComplete { .. }) => Some(Move::Done),
            (Phase::Fresh, M::CopyInResponse(_)) => Some(Move::BeginCopyIn),
            (Phase::Fresh, M::CopyOutResponse(_)) => Some(Move::BeginCopyOut),
            _ => copy_out(phase, message),
        },
        Request::Query => next_of_query(phase, message),
        Request::FunctionCall => match (phase, message) {
            (Phase::Fresh, M::FunctionCallResponse(_)) => Some(Move::Stay(Phase::Answered)),
            (Phase::Answered | Phase::Failed, M::ReadyForQuery(_)) => Some(Move::Done),
            _ => None,
        },
        // A Sync fails when the implicit transaction it commits does (deferred constraints and triggers).
        Request::Sync => {
            matches!((phase, message), (Phase::Fresh | Phase::Failed, M::ReadyForQuery(_))).then_some(Move::Done)
        }
    }
}

fn next_of_query(phase: Phase, message: &BackendMessage) -> Option<Move> {
    use BackendMessage as M;
    use Phase::{Answered, BetweenStatements, CopyInEnded, CopyOutDone, Failed, Fresh, Rows};
    match (phase, message) {
        (Rows, M::DataRow(_)) => Some(Move::Stay(Rows)),
        // A rule (DO ALSO SELECT) can put several described results before one CommandComplete.
        (Fresh | BetweenStatements | Rows, M::RowDescription(_)) => Some(Move::Stay(Rows)),
        (Fresh | BetweenStatements | Rows | CopyInEnded | CopyOutDone, M::CommandComplete { .. }) => {
            Some(Move::Stay(BetweenStatements))
        }
        // Answers a text without any statement, so it stands alone.
        (Fresh, M::EmptyQueryResponse) => Some(Move::Stay(Answered)),
        (BetweenStatements | Answered | Failed, M::ReadyForQuery(_)) => Some(Move::Done),
        (Fresh | BetweenStatements, M::CopyInResponse(_)) => Some(Move::BeginCopyIn),
        (Fresh | BetweenStatements, M::CopyOutResponse(_)) => Some(Move::BeginCopyOut),
        _ => copy_out(phase, message),
    }
}

/// CopyBothResponse is not here: it starts replication, which is not this protocol.
fn copy_out(phase: Phase, message: &BackendMessage) -> Option<Move> {
    match (phase, message) {
        (Phase::CopyOut, BackendMessage::CopyData(_)) => Some(Move::Stay(Phase::CopyOut)),
        (Phase::CopyOut, BackendMessage::CopyDone) => Some(Move::Stay(Phase::CopyOutDone)),
        _ => None,
    }
}
