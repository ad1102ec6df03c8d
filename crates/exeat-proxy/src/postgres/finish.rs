//! The end of a session: what the client is told, what becomes of the server's connection, what the record says.

use std::time::Duration;

use exeat_enforce::refusal::Refusal;
use exeat_store::record::OutcomeResult;
use exeat_wire::Fields;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::due::Due;
use super::io::{Interest, Turn};
use super::outcome::Ended;
use super::session::{Ending, Session, SessionEnd};
use crate::freezes::Standstill;

/// How long the last words may take to reach either side.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);

impl Session {
    pub(crate) async fn finish(mut self: Box<Self>, end: SessionEnd) {
        self.cancelling.settle().await;
        if let SessionEnd::Client(_)
        | SessionEnd::ClientMessage(_)
        | SessionEnd::ClientClosed
        | SessionEnd::Stalled(_)
        | SessionEnd::Leaving(Ending::IdentityWithdrawn | Ending::Frozen(_)) = end
        {
            self.cancel_what_runs().await;
        }
        match self.commit().await {
            Ok(committed) => self.io.clear(committed),
            Err(problem) => {
                tracing::error!(
                    problem = exeat_store::chain(&problem),
                    "could not commit the last events of a session"
                );
            }
        }
        let terminate = !matches!(end, SessionEnd::UpstreamClosed | SessionEnd::UpstreamFatal);
        // In the middle of a message there is no place for words.
        let words = last_words(&end).filter(|_| self.passing.is_none());
        self.io.last_words(words.as_ref(), terminate);
        // As well as it can be: a record that takes nothing any more must not keep a client from hearing of it.
        let _ = self.commit().await;
        let _ = timeout(LAST_WORDS, self.flush()).await;
        self.close_intents();
        self.leave_refusals();
        let reason = end.to_string();
        log_end(&end, &self.target.name);
        let Self { record, mut io, .. } = *self;
        if let Err(problem) = record.end(&reason) {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record the end of a session");
        }
        let _ = timeout(LAST_WORDS, io.client.stream.shutdown()).await;
        let _ = timeout(LAST_WORDS, io.upstream.stream.shutdown()).await;
    }

    async fn flush(&mut self) {
        while let Ok(turn) = self.io.turn(Interest { client: false, upstream: false }).await {
            if matches!(turn, Turn::Flushed | Turn::ClientClosed | Turn::UpstreamClosed) {
                return;
            }
        }
    }

    /// The client is gone, or must not go on: what it started must not run on for nobody.
    async fn cancel_what_runs(&mut self) {
        if !matches!(
            self.pipeline.front(),
            Some((_, Due::Query(_) | Due::Execute(_) | Due::Parse { .. } | Due::Bind { .. } | Due::Own))
        ) {
            return;
        }
        let (pid, secret) = self.upstream_key.clone();
        let cancel = crate::upstream::cancel(&self.target.upstream, pid, &secret);
        if let Ok(Err(problem)) = timeout(LAST_WORDS, cancel).await {
            tracing::warn!(target_name = %self.target.name, problem = exeat_store::chain(&problem), "could not cancel the statement of a client that left");
        }
    }

    /// Nobody will see how these end.
    fn close_intents(&mut self) {
        let unknown = || Ended { result: OutcomeResult::OutcomeUnknown, tag: None, sqlstate: None };
        // Whether what ran was committed is not known before the answer to its Sync.
        if let Some(ran) = self.batch.open().cloned()
            && let Err(problem) = self.batch_ended(&ran, &unknown())
        {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record an unknown outcome");
            return;
        }
        let pipeline = std::mem::take(&mut self.pipeline);
        for (_, mut due) in pipeline.into_due() {
            let recorded = match &mut due {
                Due::Query(query) => {
                    let _ = self.rest_counters(query.counted.take(), None);
                    self.request_ended(query, unknown())
                }
                Due::Execute(execute) => self.execute_ended(execute, &unknown()),
                Due::Parse { .. }
                | Due::Bind { .. }
                | Due::DescribeStatement { .. }
                | Due::DescribePortal { .. }
                | Due::Close { .. }
                | Due::Sync
                | Due::Poison(_)
                | Due::Own => Ok(()),
            };
            if let Err(problem) = recorded {
                tracing::error!(problem = exeat_store::chain(&problem), "could not record an unknown outcome");
                return;
            }
        }
    }
}

/// What the client is told before the connection closes, if it is there to hear it.
pub(crate) fn last_words(end: &SessionEnd) -> Option<Fields> {
    let fields = match end {
        SessionEnd::Terminated | SessionEnd::ClientClosed | SessionEnd::UpstreamFatal | SessionEnd::Io(_) => {
            return None;
        }
        SessionEnd::Client(problem) => Fields::new("FATAL", "08P01", &problem.to_string()),
        SessionEnd::ClientMessage(message) => Fields::new("FATAL", "08P01", &format!("{message} does not belong here")),
        SessionEnd::UpstreamClosed => Fields::new("FATAL", "57P01", "the database closed the connection")
            .with(b'H', "reconnect; the operator finds the cause in the database's log"),
        SessionEnd::Outcome(_) => Refusal::outcome_not_recorded().to_fields("session"),
        SessionEnd::CatalogMoved => Fields::new(
            "FATAL",
            "58030",
            "the database's definitions changed while the statement waited; nothing of its answer was released",
        )
        .with(b'H', "reconnect; a change it made may have been committed"),
        SessionEnd::Mismatch(_) => Fields::new(
            "FATAL",
            "58030",
            "the server answered with other columns than the catalog promised; nothing of it was released",
        )
        .with(b'H', "reconnect and send the statement again"),
        SessionEnd::Stalled(stalled) => Fields::new("FATAL", "57P05", &stalled.to_string())
            .with(b'H', "send large messages without a break; the operator may raise limits.large_message_timeout"),
        SessionEnd::Leaving(Ending::IdentityExpired) => {
            Fields::new("FATAL", "28000", "identity expired, reconnect").with(b'H', "get a new token and connect again")
        }
        SessionEnd::Leaving(Ending::IdentityWithdrawn) => {
            Fields::new("FATAL", "28000", "identity was revoked, reconnect")
                .with(b'H', "the handle was revoked or the issuer withdrew its key; get a new one and connect again")
        }
        SessionEnd::Leaving(Ending::Frozen(standstill)) => frozen(*standstill),
        SessionEnd::Leaving(Ending::Idle) => {
            Fields::new("FATAL", "57P05", "the session was idle for longer than the gateway allows")
                .with(b'H', "reconnect when there is something to ask; the operator may raise idle_timeout")
        }
        SessionEnd::Leaving(Ending::Shutdown) => {
            Fields::new("FATAL", "57P01", "the gateway is shutting down").with(b'H', "reconnect")
        }
        SessionEnd::Leaving(Ending::PolicyChanged) => {
            Fields::new("FATAL", "57P01", "the policy for this session changed").with(b'H', "reconnect")
        }
        SessionEnd::Server(_)
        | SessionEnd::Pipeline(_)
        | SessionEnd::Release(_)
        | SessionEnd::Role { .. }
        | SessionEnd::State(_)
        | SessionEnd::Unsendable(_)
        | SessionEnd::Copy
        | SessionEnd::UnexpectedAnswer(_) => {
            Fields::new("FATAL", "58030", "the gateway cannot enforce policy on this connection any more")
                .with(b'H', "reconnect; the operator finds the cause in the gateway's log")
        }
    };
    Some(fields)
}

/// The same words for whoever is turned away and for whoever has to go. Why it was frozen is between those who run it.
pub(crate) fn frozen(standstill: Standstill) -> Fields {
    let words = match standstill {
        Standstill::Subject => "this identity is frozen",
        Standstill::Target => "this target is frozen",
    };
    Fields::new("FATAL", "57P01", words).with(b'H', "an administrator has stopped it and can lift the freeze; ask them")
}

pub(crate) fn log_end(end: &SessionEnd, target: &str) {
    match end {
        SessionEnd::Terminated | SessionEnd::ClientClosed | SessionEnd::Leaving(_) => {
            tracing::debug!(target_name = %target, reason = %end, "session ended");
        }
        SessionEnd::Client(_)
        | SessionEnd::ClientMessage(_)
        | SessionEnd::Stalled(_)
        | SessionEnd::UpstreamFatal
        | SessionEnd::UpstreamClosed => {
            tracing::info!(target_name = %target, reason = %end, "session ended");
        }
        SessionEnd::Server(_)
        | SessionEnd::Pipeline(_)
        | SessionEnd::Mismatch(_)
        | SessionEnd::CatalogMoved
        | SessionEnd::Release(_)
        | SessionEnd::Outcome(_)
        | SessionEnd::Role { .. }
        | SessionEnd::State(_)
        | SessionEnd::Unsendable(_)
        | SessionEnd::Copy
        | SessionEnd::UnexpectedAnswer(_)
        | SessionEnd::Io(_) => tracing::error!(target_name = %target, reason = %end, "session ended"),
    }
}
