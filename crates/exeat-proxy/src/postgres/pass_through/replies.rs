//! The server's messages: each outcome is on record before the message that says it is cleared. None is changed,
//! except that the answer to poison is replaced by the reason why a statement was not forwarded.

use std::sync::atomic::Ordering;

use bytes::BytesMut;
use exeat_enforce::refusal::Refusal;
use exeat_store::record::{Outcome, OutcomeResult};
use exeat_wire::{Answer, Request, Step, TransactionStatus, Walked, peek};

use super::super::batch::Ran;
use super::super::outcome::policy_ref;
use super::super::session::{Done, SessionEnd};
use super::PassThrough;
use super::notes::{Bound, Owed, Run};

/// What may wait behind a statement that waits to be known as the last: notices of the next one, say.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// The name of an encoding stands in every line of the record; the server's longest has 14 bytes.
const ENCODING_BYTES_MAX: usize = 32;

/// How a statement ended, as the server said it.
pub(super) struct Ended<'a> {
    pub(super) result: OutcomeResult,
    pub(super) last: bool,
    pub(super) tag: Option<&'a [u8]>,
    pub(super) sqlstate: Option<&'a [u8]>,
}

impl<'a> Ended<'a> {
    fn ok(tag: Option<&'a [u8]>) -> Self {
        Self { result: OutcomeResult::Ok, last: true, tag, sqlstate: None }
    }

    fn error(sqlstate: Option<&'a [u8]>) -> Self {
        let cancelled = sqlstate == Some(b"57014");
        let result = if cancelled { OutcomeResult::Cancelled } else { OutcomeResult::Error };
        Self { result, last: true, tag: None, sqlstate }
    }

    /// The error came behind the answer that looked like the end.
    fn rolled_back(sqlstate: Option<&'a [u8]>) -> Self {
        Self { result: OutcomeResult::RolledBack, last: true, tag: None, sqlstate }
    }

    pub(super) fn unknown() -> Self {
        Self { result: OutcomeResult::OutcomeUnknown, last: true, tag: None, sqlstate: None }
    }

    /// With its transaction, and what ran in that before.
    fn took_back(&self) -> bool {
        match self.result {
            OutcomeResult::Error | OutcomeResult::Cancelled | OutcomeResult::RolledBack => true,
            OutcomeResult::Ok
            | OutcomeResult::Suspended
            | OutcomeResult::Skipped
            | OutcomeResult::Refused
            | OutcomeResult::OutcomeUnknown => false,
        }
    }
}

/// A CommandComplete of a Query, or the value of a FunctionCall, which the server says before it commits: whether it is
/// the last one only the next message tells, and it waits for that. The server sends the two together, unless what
/// comes between them is long.
#[derive(Debug)]
pub(super) struct Pending {
    tag: Option<Vec<u8>>,
}

impl PassThrough {
    /// Everything the server has sent, as far as it is whole.
    pub(super) fn take_replies(&mut self) -> Done {
        let mut bytes = std::mem::take(&mut self.down.bytes);
        let mut taken = Ok(());
        while taken.is_ok() {
            let start = self.down.walked;
            match self.down.step(&bytes) {
                Ok(Walked::More) => break,
                Ok(Walked::Body { .. }) => taken = self.bound_held(),
                Ok(Walked::Message { tag, frame_bytes, seen }) => match self.reply(tag, frame_bytes, seen) {
                    Ok(Released::AsItIs) => {}
                    Ok(Released::Held) => self.down.clear_before(start),
                    Ok(Released::Instead(own)) => {
                        std::mem::swap(&mut self.down.bytes, &mut bytes);
                        self.down.replace(start..self.down.walked, &own);
                        std::mem::swap(&mut self.down.bytes, &mut bytes);
                    }
                    Err(end) => taken = Err(end),
                },
                Err(problem) => taken = Err(SessionEnd::Server(problem)),
            }
        }
        self.down.bytes = bytes;
        if self.pending.is_none() && taken.is_ok() {
            self.down.clear();
        }
        taken
    }

    fn reply(&mut self, tag: u8, frame_bytes: usize, seen: &[u8]) -> Result<Released, SessionEnd> {
        let mut answer = Answer::from_tag(tag).ok_or(SessionEnd::UnexpectedAnswer("an unknown message"))?;
        let mut sqlstate = None;
        if let Answer::ErrorResponse { fatal } = &mut answer {
            let error = peek::error(seen);
            (*fatal, sqlstate) = (error.fatal, error.sqlstate);
        }
        match self.pipeline.on_answer(answer)? {
            Step::Asynchronous => {
                let status = peek::parameter_status(seen).filter(|_| answer == Answer::ParameterStatus);
                if let Some((name, value)) = status
                    && let Some(now) = encoding(&String::from_utf8_lossy(name), value)
                {
                    self.encoding = now;
                }
                self.bound_held()?;
                Ok(Released::AsItIs)
            }
            Step::Partial => self.partial(answer, frame_bytes, seen),
            Step::Completed { context, .. } => self.completed(answer, seen, context),
            Step::Failed { context, skipped, .. } => self.failed(context, skipped, sqlstate),
            Step::QueryFailed => self.query_failed(sqlstate),
            Step::CopyIn { swallowed } => {
                self.settle_pending(false)?;
                swallowed.into_iter().try_for_each(|(_, owed)| self.swallowed(owed))?;
                Ok(Released::AsItIs)
            }
            Step::CopyOut => {
                self.settle_pending(false)?;
                Ok(Released::AsItIs)
            }
            Step::Fatal => self.fatal(sqlstate),
        }
    }

    fn partial(&mut self, answer: Answer, frame_bytes: usize, seen: &[u8]) -> Result<Released, SessionEnd> {
        match answer {
            Answer::DataRow | Answer::CopyData => {
                if let Some((_, Owed::Query { run, .. } | Owed::Execute { run, .. })) = self.pipeline.front_mut() {
                    run.counted.row(frame_bytes);
                }
            }
            Answer::CommandComplete if self.is_query() => {
                self.settle_pending(false)?;
                self.pending = Some(Pending { tag: peek::command_tag(seen).map(<[u8]>::to_vec) });
                return Ok(Released::Held);
            }
            Answer::EmptyQueryResponse if self.is_query() => self.query_ended(Ended::ok(None))?,
            Answer::FunctionCallResponse => {
                if let Some((_, Owed::FunctionCall { run })) = self.pipeline.front_mut() {
                    run.counted.row(frame_bytes);
                }
                self.pending = Some(Pending { tag: None });
                return Ok(Released::Held);
            }
            // The next statement of the Query begins.
            _ => self.settle_pending(false)?,
        }
        Ok(Released::AsItIs)
    }

    fn is_query(&self) -> bool {
        matches!(self.pipeline.front(), Some((_, Owed::Query { .. })))
    }

    /// The statement that waited for the next message has its outcome.
    fn settle_pending(&mut self, last: bool) -> Done {
        match self.pending.take() {
            Some(pending) => {
                let tag = pending.tag.as_deref();
                self.notes.ended(tag.unwrap_or_default());
                self.query_ended(Ended { last, ..Ended::ok(tag) })
            }
            None => Ok(()),
        }
    }

    /// What is held is bounded: past that the statement that waits counts as not the last, and if it was, the end of
    /// its Query gets an outcome of its own.
    fn bound_held(&mut self) -> Done {
        if self.pending.is_some() && self.down.held_bytes() > HELD_BYTES_MAX {
            self.settle_pending(false)?;
            self.unended = true;
        }
        Ok(())
    }

    /// One statement of the Query in front has ended, or its FunctionCall.
    fn query_ended(&mut self, ended: Ended<'_>) -> Done {
        self.unended = false;
        let run = match self.pipeline.front_mut() {
            Some((_, Owed::Query { run, .. } | Owed::FunctionCall { run })) => {
                std::mem::replace(run, Run { over: ended.last, ..run.next() })
            }
            Some(_) | None => return Ok(()),
        };
        let tag = ended.tag.unwrap_or_default();
        self.record_outcome(run, ended)?;
        self.batch.noted(tag);
        Ok(())
    }

    fn completed(&mut self, answer: Answer, seen: &[u8], owed: Owed) -> Result<Released, SessionEnd> {
        match owed {
            Owed::Query { run, change } => {
                self.run_completed(run)?;
                self.notes.confirm(change);
            }
            Owed::Parse { change } | Owed::Bind { change, .. } => self.notes.confirm(change),
            Owed::Close { change } => change.into_iter().for_each(|change| self.notes.confirm(change)),
            Owed::Execute { portal, run, change } => {
                change.into_iter().for_each(|change| self.notes.confirm(change));
                self.notes.ended(peek::command_tag(seen).unwrap_or_default());
                let ended = match answer {
                    Answer::PortalSuspended => {
                        Ended { result: OutcomeResult::Suspended, last: false, tag: None, sqlstate: None }
                    }
                    Answer::CommandComplete => Ended::ok(peek::command_tag(seen)),
                    _ => Ended::ok(None),
                };
                self.settle(&portal, run, ended)?;
            }
            Owed::FunctionCall { run } => self.run_completed(run)?,
            Owed::Sync | Owed::Unrecorded | Owed::Poison => {}
        }
        if answer == Answer::ReadyForQuery {
            self.ready(seen)?;
        }
        Ok(Released::AsItIs)
    }

    /// ReadyForQuery came: what waited for it was the last.
    fn run_completed(&mut self, run: Run) -> Done {
        if let Some(pending) = self.pending.take() {
            let tag = pending.tag.as_deref();
            self.notes.ended(tag.unwrap_or_default());
            self.record_outcome(run, Ended::ok(tag))
        } else if std::mem::take(&mut self.unended) {
            self.record_outcome(run, Ended::ok(None))
        } else {
            Ok(())
        }
    }

    fn ready(&mut self, seen: &[u8]) -> Done {
        self.status = match seen.last() {
            Some(b'I') => TransactionStatus::Idle,
            Some(b'T') => TransactionStatus::InTransaction,
            Some(b'E') => TransactionStatus::Failed,
            Some(_) | None => return Err(SessionEnd::UnexpectedAnswer("ReadyForQuery without a known status")),
        };
        self.batch.ended(self.status != TransactionStatus::Idle);
        if self.status == TransactionStatus::Idle && !self.batch_open && self.pipeline.due() == 0 {
            self.notes.forget_portals();
        }
        Ok(())
    }

    /// An extended request failed; the server skips to the next Sync.
    fn failed(
        &mut self,
        owed: Owed,
        skipped: Vec<(Request, Owed)>,
        sqlstate: Option<&[u8]>,
    ) -> Result<Released, SessionEnd> {
        let mut released = Released::AsItIs;
        match owed {
            Owed::Execute { portal, run, change } => {
                // What it took away before it failed stays away.
                change.into_iter().for_each(|change| self.notes.confirm(change));
                self.settle(&portal, run, Ended::error(sqlstate))?;
            }
            Owed::Bind { portal, change } => {
                self.notes.discard(change);
                self.settle(&portal, Run::of(portal.request), Ended::error(sqlstate))?;
            }
            Owed::Parse { change } => self.notes.discard(change),
            Owed::Close { change } => change.into_iter().for_each(|change| self.notes.discard(change)),
            Owed::Poison => released = Released::Instead(not_recorded()),
            Owed::Query { .. } | Owed::FunctionCall { .. } | Owed::Sync | Owed::Unrecorded => {}
        }
        skipped.into_iter().try_for_each(|(_, owed)| self.lost(owed, OutcomeResult::Skipped))?;
        Ok(released)
    }

    /// A Query, FunctionCall or Sync failed; its ReadyForQuery follows.
    fn query_failed(&mut self, sqlstate: Option<&[u8]>) -> Result<Released, SessionEnd> {
        self.settle_pending(false)?;
        match self.pipeline.front() {
            Some((_, Owed::Poison)) => return Ok(Released::Instead(not_recorded())),
            Some((_, Owed::Sync)) => self.batch_ended(Ended::rolled_back(sqlstate))?,
            // Its value was told, and then its commit failed.
            Some((_, Owed::FunctionCall { run })) if run.index > 0 => self.query_ended(Ended::rolled_back(sqlstate))?,
            Some(_) | None => self.query_ended(Ended::error(sqlstate))?,
        }
        Ok(Released::AsItIs)
    }

    /// The connection ends with this error, which is the client's to see.
    fn fatal(&mut self, sqlstate: Option<&[u8]>) -> Result<Released, SessionEnd> {
        self.settle_pending(false)?;
        let front = match self.pipeline.front() {
            Some((_, Owed::Execute { portal, run, .. })) => Some((portal.clone(), *run)),
            _ => None,
        };
        match front {
            Some((portal, run)) => self.settle(&portal, run, Ended::error(sqlstate))?,
            // Behind its own error, which was its end.
            None if matches!(self.pipeline.front(), Some((_, Owed::Query { run, .. } | Owed::FunctionCall { run })) if run.over) =>
                {}
            None => self.query_ended(Ended::error(sqlstate))?,
        }
        self.server_left = true;
        Ok(Released::AsItIs)
    }

    /// An Execute's outcome, and with the last one its intent's.
    pub(super) fn settle(&mut self, portal: &Bound, run: Run, ended: Ended<'_>) -> Done {
        // Skipped behind its own Bind, say: one end is enough.
        if ended.result == OutcomeResult::Skipped && portal.settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        if ended.last {
            portal.settled.store(true, Ordering::Relaxed);
        }
        let ran = matches!(ended.result, OutcomeResult::Ok | OutcomeResult::Suspended);
        let tag = ended.tag.unwrap_or_default();
        self.record_outcome(run, ended)?;
        if ran {
            self.batch.ran(&run.request, tag);
        }
        Ok(())
    }

    /// The batch's implicit transaction ended in another way than its Executes did.
    pub(super) fn batch_ended(&mut self, ended: Ended<'_>) -> Done {
        let ran = if ended.took_back() { self.batch.taken_back() } else { self.batch.open() };
        let Some(Ran { first, last }) = ran.cloned() else { return Ok(()) };
        self.record_with_batch(Run::of(last), ended, Some(first).filter(|first| *first != last))
    }

    pub(super) fn record_outcome(&mut self, run: Run, ended: Ended<'_>) -> Done {
        let before = self.batch.first().copied().filter(|first| *first != run.request && ended.took_back());
        self.record_with_batch(run, ended, before)
    }

    fn record_with_batch(&mut self, run: Run, ended: Ended<'_>, batch_from: Option<u64>) -> Done {
        let batch_from = batch_from.map(|first| {
            self.request_ids.name(first);
            self.request_ids.named().to_owned()
        });
        let tag = ended.tag.map(String::from_utf8_lossy);
        let sqlstate = ended.sqlstate.map(String::from_utf8_lossy);
        self.request_ids.name(run.request);
        let outcome = Outcome {
            request_id: self.request_ids.named(),
            index: run.index,
            result: ended.result,
            last: ended.last,
            batch_from: batch_from.as_deref(),
            tag: tag.as_deref(),
            sqlstate: sqlstate.as_deref(),
            rows: run.counted.rows,
            bytes: run.counted.bytes,
            cells_masked: 0,
            duration_us: u64::try_from(run.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            policy: policy_ref(&self.policy),
        };
        // Before the client hears of it: a statement nobody can account for must not look finished.
        self.record.outcome(&outcome).map(drop).map_err(SessionEnd::Outcome)
    }
}

/// What becomes of a message of the server's.
enum Released {
    AsItIs,
    /// It and what follows, until the next message of the same answer has been seen.
    Held,
    Instead(BytesMut),
}

/// What a setting that the server announces says of the client's encoding: `None` nothing, `Some(None)` that it is
/// UTF-8.
pub(super) fn encoding(name: &str, value: &[u8]) -> Option<Option<String>> {
    if name != "client_encoding" {
        return None;
    }
    let name = value.iter().take(ENCODING_BYTES_MAX).filter(|byte| byte.is_ascii_graphic());
    Some(Some(name.copied().map(char::from).collect()).filter(|name: &String| name != "UTF8"))
}

fn not_recorded() -> BytesMut {
    let mut own = BytesMut::new();
    Refusal::not_enforceable("the audit log cannot be written").to_fields("session").encode_error(&mut own);
    own
}
