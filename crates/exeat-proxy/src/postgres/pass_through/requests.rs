//! The client's messages: each that can act or read is on record before it is cleared, every other is cleared as it
//! is. None is changed; one that cannot be recorded is taken out, and poison stands in its place.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use exeat_enforce::function_call::function_text;
use exeat_store::StoreError;
use exeat_store::record::{Decision, OutcomeResult, Parameter, PolicyRef, Protocol, RecordReceipt, Statement};
use exeat_wire::{Request, Sent, TransactionStatus, Walked, encode, peek};

use super::super::outcome::policy_ref;
use super::super::send::{OWN_NAME, POISON_SQL, Unsendable};
use super::super::session::{Done, Ending, SessionEnd, WINDOW_REQUESTS_MAX};
use super::PassThrough;
use super::notes::{Bound, Owed, Run};
use super::replies::Ended;

impl PassThrough {
    /// Everything the client has sent, as far as it is whole and the window is open.
    pub(super) fn take_requests(&mut self) -> Done {
        // Taken out so that its messages can be looked at while the session notes them.
        let mut bytes = std::mem::take(&mut self.up.bytes);
        let mut taken = Ok(());
        self.in_doubt = false;
        while taken.is_ok() && !self.terminated && (self.up.is_inside_message() || self.takes_messages()) {
            let start = self.up.walked;
            match self.up.step(&bytes) {
                Ok(Walked::More) => break,
                Ok(Walked::Body { .. }) => {}
                // Another text would stand on record than the one the server runs.
                Ok(Walked::Message { tag, seen, .. }) if self.notes.in_doubt(tag, seen) => {
                    self.up.take_back(start);
                    self.in_doubt = true;
                }
                Ok(Walked::Message { tag, seen, .. }) => match self.request(tag, seen) {
                    Ok(()) => {}
                    Err(unforwarded) => {
                        std::mem::swap(&mut self.up.bytes, &mut bytes);
                        taken = self.take_out(start..self.up.walked, unforwarded);
                        std::mem::swap(&mut self.up.bytes, &mut bytes);
                    }
                },
                Err(problem) => taken = Err(SessionEnd::Client(problem)),
            }
        }
        self.up.bytes = bytes;
        // What stands before a message that broke the protocol is on record and goes on.
        self.up.clear();
        taken
    }

    fn request(&mut self, tag: u8, frame: &[u8]) -> Result<(), Unforwarded> {
        // Behind poison the server would skip it; unrecorded, it does not even get there. COPY data is ignored.
        if self.refusing && !matches!(tag, b'S' | b'X' | b'd') {
            return Err(Unforwarded::Behind);
        }
        match tag {
            b'Q' => self.query(frame),
            b'P' => self.parse(frame),
            b'B' => self.bind(frame),
            b'E' => self.execute(frame),
            b'C' => {
                let change = peek::named(frame).map(|(kind, name)| self.notes.closed(kind, name));
                self.sent(Request::Close, Owed::Close { change })
            }
            b'D' => {
                let portal = peek::named(frame).is_some_and(|(kind, _)| kind == b'P');
                let request = if portal { Request::DescribePortal } else { Request::DescribeStatement };
                self.sent(request, Owed::Unrecorded)
            }
            b'S' => {
                self.refusing = false;
                self.batch_open = false;
                self.notes.synced();
                self.sent(Request::Sync, Owed::Sync)
            }
            b'F' => self.function_call(frame),
            b'c' | b'f' => self.sent(Request::CopyEnd, Owed::Unrecorded),
            b'X' => {
                self.terminated = true;
                Ok(())
            }
            // COPY data and Flush have no answer; what the server says to a stray password message ends the session.
            _ => Ok(()),
        }
    }

    fn query(&mut self, frame: &[u8]) -> Result<(), Unforwarded> {
        self.check_policy()?;
        let request = self.new_request();
        let sql = peek::query(frame).unwrap_or_default();
        let change = self.notes.queried(sql);
        let owed = Owed::Query { run: Run::of(request), change };
        let recorded = self.record_intent(request, Statement { sql, ..unnamed() });
        self.batch_open = false;
        self.forward(recorded, Request::Query, owed)
    }

    fn parse(&mut self, frame: &[u8]) -> Result<(), Unforwarded> {
        self.check_policy()?;
        let request = self.new_request();
        let view = peek::parse(frame);
        let (name, sql) = view.map(|view| (view.name, view.sql)).unwrap_or_default();
        let change = self.notes.parsed(name, sql);
        let name = named(name);
        let recorded =
            self.record_parse(request, Statement { protocol: Protocol::Extended, name: Some(&name), sql, ..unnamed() });
        self.batch_open = true;
        self.forward(recorded, Request::Parse, Owed::Parse { change })
    }

    fn bind(&mut self, frame: &[u8]) -> Result<(), Unforwarded> {
        self.check_policy()?;
        let request = self.new_request();
        let view = peek::bind(frame);
        let (portal, statement) = match &view {
            Some(view) => (view.portal, view.statement),
            None => (&b""[..], &b""[..]),
        };
        let known = self.notes.statement(statement).map(|known| (Arc::clone(&known.sql), known.forgets.clone()));
        let (sql, forgets) = known.unwrap_or_else(|| (Arc::clone(&self.no_text), None));
        let (portal_name, statement_name) = (named(portal), named(statement));
        let parameters = view.as_ref().map(|view| parameters(&view.parameters)).unwrap_or_default();
        let bound = Bound::new(request, forgets);
        let change = self.notes.bound(portal, Arc::clone(&bound));
        let intent = Statement {
            protocol: Protocol::Extended,
            sql: &sql,
            name: Some(&statement_name),
            portal: Some(&portal_name),
            parameters: &parameters,
            ..unnamed()
        };
        let recorded = self.record_intent(request, intent);
        self.batch_open = true;
        self.forward(recorded, Request::Bind, Owed::Bind { portal: bound, change })
    }

    /// Its intent is its Bind's. A portal that no Bind of this session made is a cursor of SQL, and gets its own.
    fn execute(&mut self, frame: &[u8]) -> Result<(), Unforwarded> {
        self.check_policy()?;
        let name = peek::execute(frame).unwrap_or_default();
        let (portal, recorded) = match self.notes.portal(name) {
            Some(portal) => (portal, Ok(None)),
            None => {
                let request = self.new_request();
                let name = named(name);
                let intent = Statement { protocol: Protocol::Extended, portal: Some(&name), ..unnamed() };
                (Bound::new(request, None), self.record_intent(request, intent).map(Some))
            }
        };
        self.batch_open = true;
        let change = self.notes.executed(&portal);
        let owed = Owed::Execute { run: Run::of(portal.request), portal, change };
        match recorded {
            Ok(Some(receipt)) => self.forward(Ok(receipt), Request::Execute, owed),
            Ok(None) => self.sent(Request::Execute, owed),
            Err(problem) => self.forward(Err(problem), Request::Execute, owed),
        }
    }

    fn function_call(&mut self, frame: &[u8]) -> Result<(), Unforwarded> {
        self.check_policy()?;
        let request = self.new_request();
        let view = peek::function_call(frame);
        let sql = view.as_ref().map(|view| function_text(view.oid)).unwrap_or_default();
        let arguments = view.as_ref().map(|view| parameters(&view.arguments)).unwrap_or_default();
        let intent = Statement { kinds: &["function_call"], sql: sql.as_bytes(), parameters: &arguments, ..unnamed() };
        let recorded = self.record_intent(request, intent);
        self.forward(recorded, Request::FunctionCall, Owed::FunctionCall { run: Run::of(request) })
    }

    /// The only way for a message that can act: with the proof that it is on record.
    fn forward(
        &mut self,
        recorded: Result<RecordReceipt, StoreError>,
        request: Request,
        owed: Owed,
    ) -> Result<(), Unforwarded> {
        match recorded {
            Ok(_receipt) => self.sent(request, owed),
            Err(problem) => {
                tracing::error!(
                    problem = exeat_store::chain(&problem),
                    "could not record a statement; it was not forwarded"
                );
                Err(Unforwarded::NotRecorded(request, owed))
            }
        }
    }

    fn sent(&mut self, request: Request, owed: Owed) -> Result<(), Unforwarded> {
        let copying = self.pipeline.is_copying_in();
        match self.pipeline.sent(request, owed) {
            Sent::Due => Ok(()),
            Sent::Skipped(owed) if copying => self.swallowed(owed).map_err(Unforwarded::End),
            Sent::Skipped(owed) => self.lost(owed, OutcomeResult::Skipped).map_err(Unforwarded::End),
        }
    }

    /// A message that could not be recorded does not reach the server: poison stands in its place, so that client
    /// and server agree that a statement failed. What its batch holds behind it goes without a trace.
    fn take_out(&mut self, range: Range<usize>, unforwarded: Unforwarded) -> Done {
        let mut own = BytesMut::new();
        match unforwarded {
            Unforwarded::End(end) => {
                self.up.take_back(range.start);
                return Err(end);
            }
            Unforwarded::Behind => {}
            Unforwarded::NotRecorded(request, owed) => {
                self.forget(owed);
                if !self.pipeline.is_skipping() {
                    self.refusing = !matches!(request, Request::Query | Request::FunctionCall);
                    let (encoded, poison) = if self.refusing {
                        (encode::parse(&mut own, OWN_NAME, POISON_SQL, &[]), Request::Parse)
                    } else {
                        (encode::query(&mut own, POISON_SQL), Request::Query)
                    };
                    encoded.map_err(|_| SessionEnd::Unsendable(Unsendable))?;
                    let _ = self.pipeline.sent(poison, Owed::Poison);
                }
            }
        }
        self.up.replace(range, &own);
        Ok(())
    }

    /// It was never sent.
    fn forget(&mut self, owed: Owed) {
        match owed {
            Owed::Query { change, .. } | Owed::Parse { change } | Owed::Bind { change, .. } => {
                self.notes.discard(change);
            }
            Owed::Close { change } | Owed::Execute { change, .. } => {
                change.into_iter().for_each(|change| self.notes.discard(change));
            }
            Owed::FunctionCall { .. } | Owed::Sync | Owed::Unrecorded | Owed::Poison => {}
        }
    }

    /// It stood where the server takes COPY data. The server ends the connection over it, unless the COPY had failed
    /// by then: nobody here knows.
    pub(super) fn swallowed(&mut self, owed: Owed) -> Done {
        self.lost(owed, OutcomeResult::OutcomeUnknown)
    }

    /// The server will not answer it.
    pub(super) fn lost(&mut self, owed: Owed, result: OutcomeResult) -> Done {
        let ended = Ended { result, last: true, tag: None, sqlstate: None };
        match owed {
            Owed::Query { run, change } => {
                self.notes.discard(change);
                self.record_outcome(run, ended)
            }
            Owed::FunctionCall { run } => self.record_outcome(run, ended),
            Owed::Bind { portal, change } => {
                self.notes.discard(change);
                self.settle(&portal, Run::of(portal.request), ended)
            }
            Owed::Execute { portal, run, change } => {
                change.into_iter().for_each(|change| self.notes.discard(change));
                self.settle(&portal, run, ended)
            }
            Owed::Parse { change } => {
                self.notes.discard(change);
                Ok(())
            }
            Owed::Close { change } => {
                change.into_iter().for_each(|change| self.notes.discard(change));
                Ok(())
            }
            Owed::Sync | Owed::Unrecorded | Owed::Poison => Ok(()),
        }
    }

    /// A policy that restricts this session ends it before the next statement.
    fn check_policy(&mut self) -> Result<(), Unforwarded> {
        let current = self.shared.dependencies.policy.load();
        if current.generation == self.policy.generation {
            return Ok(());
        }
        if !current.policy.unrestricted(&self.identity.principal, &self.target.name) {
            return Err(Unforwarded::End(SessionEnd::Leaving(Ending::PolicyChanged)));
        }
        self.policy = arc_swap::Guard::into_inner(current);
        Ok(())
    }

    fn record_intent(&mut self, request: u64, statement: Statement<'_>) -> Result<RecordReceipt, StoreError> {
        self.request_ids.name(request);
        let request_id = self.request_ids.named();
        let encoding = self.encoding.as_deref();
        self.record.intent(&Statement { request_id, encoding, policy: policy_ref(&self.policy), ..statement })
    }

    fn record_parse(&mut self, request: u64, statement: Statement<'_>) -> Result<RecordReceipt, StoreError> {
        self.request_ids.name(request);
        let request_id = self.request_ids.named();
        let encoding = self.encoding.as_deref();
        self.record.parse(&Statement { request_id, encoding, policy: policy_ref(&self.policy), ..statement })
    }

    pub(super) fn window_open(&self) -> bool {
        self.pipeline.due() < WINDOW_REQUESTS_MAX && !self.in_doubt
    }

    /// A session that must leave takes no more than what goes on with what the client began before: statements sent
    /// ahead without end are each a transaction of its own.
    pub(super) fn takes_messages(&self) -> bool {
        let inside = self.status != TransactionStatus::Idle || self.batch_open || self.pipeline.is_copying_in();
        self.window_open() && (inside || !self.tenure.is_leaving())
    }
}

/// Why a message does not go on.
pub(super) enum Unforwarded {
    End(SessionEnd),
    /// It has no record; what it was and what it would have been owed.
    NotRecorded(Request, Owed),
    /// It stands behind one that has no record.
    Behind,
}

/// A statement of which only what is set on top of it is known; its request and policy are set when it is recorded.
fn unnamed() -> Statement<'static> {
    Statement::new("", "", Decision::Allow, PolicyRef { version: 0, sha256: "" })
}

fn parameters<'a>(values: &[(Option<&'a [u8]>, bool)]) -> Vec<Parameter<'a>> {
    values.iter().map(|(value, binary)| Parameter { value: *value, binary: *binary }).collect()
}

/// A name as a line of the record shows it, in whatever encoding it is. Names that differ never look the same.
fn named(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if !name.contains(&b'\\') => Cow::Borrowed(text),
        Ok(_) | Err(_) => Cow::Owned(exeat_store::read::escaped(name)),
    }
}
