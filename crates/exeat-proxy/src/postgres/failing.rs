//! A statement that ran and must not end well: its rows stay, the server is told to stop, what it still sends is dropped,
//! and the client hears why. Both sides agree that it failed: where the server had finished it all the same, poison
//! follows, which aborts the block or batch it stood in.

use exeat_enforce::refusal::Refusal;
use exeat_enforce::scrub::Taint;
use exeat_store::record::OutcomeResult;
use exeat_wire::{BackendMessage, Fields, Step};

use super::counted::Arrived;
use super::due::Due;
use super::outcome::Ended;
use super::session::{Done, Session, SessionEnd};

/// What the client hears, and whether the server has come to the end of the statement without failing.
#[derive(Debug)]
pub(crate) enum Failing {
    Running(Fields),
    FinishedQuery(Fields),
    FinishedExecute(Fields),
}

impl Failing {
    pub(crate) fn into_fields(self) -> Fields {
        match self {
            Self::Running(fields) | Self::FinishedQuery(fields) | Self::FinishedExecute(fields) => fields,
        }
    }

    fn fields(&self) -> &Fields {
        match self {
            Self::Running(fields) | Self::FinishedQuery(fields) | Self::FinishedExecute(fields) => fields,
        }
    }
}

/// What a client hears of its own cancel, as from the server.
pub(crate) fn cancelled() -> Fields {
    Fields::new("ERROR", "57014", "canceling statement due to user request")
}

impl Session {
    /// The statement in front is refused while it runs. `at`: what of its answer is not dealt with yet.
    pub(crate) fn fail_running(&mut self, at: Option<Arrived>, refusal: Refusal) -> Done {
        let request_id = self.request_in_front();
        self.questions.refused(&refusal, &request_id);
        self.refusals.noted(refusal.code);
        self.fail_with(at, refusal.to_fields(&request_id), OutcomeResult::Refused)
    }

    pub(crate) fn fail_with(&mut self, at: Option<Arrived>, fields: Fields, result: OutcomeResult) -> Done {
        self.io.outbox.drop_kept();
        let sqlstate = fields.sqlstate().map(std::borrow::Cow::into_owned);
        let ended = Ended { result, tag: None, sqlstate };
        if let Some((_, Due::Query(_))) = self.pipeline.front() {
            self.query_ended(ended)?;
        } else if let Some((_, Due::Execute(execute))) = self.pipeline.front_mut() {
            let counted = execute.counted.take();
            let (portal, request_id) = (execute.portal.clone(), execute.request_id.clone());
            let (counts, started) = (execute.counts, execute.started);
            self.execution_ended((&request_id, counts, started), &ended)?;
            let _ = self.rest_counters(counted, Some(&portal));
        }
        self.progress.failing = Some(Failing::Running(fields));
        if let Some(at) = at {
            self.progress.go_on(at, false);
        }
        self.cancelling.forward(&self.target, &self.upstream_key, None);
        Ok(())
    }

    pub(crate) fn request_in_front(&self) -> std::sync::Arc<str> {
        match self.pipeline.front() {
            Some((_, Due::Query(query))) => query.request_id.clone(),
            Some((_, Due::Execute(execute))) => execute.request_id.clone(),
            Some(_) | None => std::sync::Arc::from("session"),
        }
    }

    /// What the server still says of a statement that has failed for the client.
    pub(crate) fn swallow(&mut self, message: &BackendMessage) -> Done {
        let Some(failing) = &self.progress.failing else { return Err(SessionEnd::UnexpectedAnswer(message.name())) };
        let fields = failing.fields().clone();
        match self.pipeline.on_backend(message)? {
            Step::Partial | Step::CopyOut => Ok(()),
            // Of other sessions; what this statement's own code says is dropped.
            Step::Asynchronous => self.release_of(message, Taint::UserCode, None),
            // The server agrees. Its ReadyForQuery is the next, and everybody's.
            Step::QueryFailed => {
                self.picture.own.rolled_back();
                self.io.outbox.error(&fields);
                self.progress.failing = None;
                Ok(())
            }
            Step::Failed { context, skipped, .. } => {
                for (_, lost) in skipped.into_iter().rev() {
                    self.lost(lost)?;
                }
                if let Due::Execute(execute) = context {
                    execute.change.into_iter().for_each(|change| self.names.discard(change));
                }
                self.picture.own.rolled_back();
                self.io.outbox.error(&fields);
                self.progress.failing = None;
                Ok(())
            }
            Step::Completed { context: Due::Query(query), .. } => {
                self.names.confirm_first(query.change, query.done);
                self.picture.own.rolled_back();
                self.progress.failing = Some(Failing::FinishedQuery(fields));
                self.ready(message, false)
            }
            Step::Completed { context: Due::Execute(execute), .. } => {
                execute.change.into_iter().for_each(|change| self.names.discard(change));
                self.picture.own.rolled_back();
                self.progress.failing = Some(Failing::FinishedExecute(fields));
                Ok(())
            }
            Step::Fatal => Err(SessionEnd::UpstreamFatal),
            Step::Completed { .. } | Step::CopyIn { .. } => Err(SessionEnd::UnexpectedAnswer(message.name())),
        }
    }

    /// The server has nothing more to say of it: where it did not fail there, it is made to.
    pub(crate) async fn end_failing(&mut self, failing: Option<Failing>) -> Done {
        match failing {
            None => Ok(()),
            Some(Failing::FinishedQuery(fields)) => {
                // A cancel that comes late must not hit what follows.
                self.cancelling.settle().await;
                self.sender().poison_simple(Due::Poison(Box::new(fields)))?;
                Ok(())
            }
            Some(Failing::FinishedExecute(fields)) => {
                self.cancelling.settle().await;
                self.refuse_extended(fields)
            }
            Some(Failing::Running(_)) => Err(SessionEnd::UnexpectedAnswer("nothing")),
        }
    }
}
