//! The server's answers: steps 10 to 13. Every message is matched to the request it answers, bound to its mask
//! plan, recorded where it ends something, and only then released.

use std::sync::atomic::Ordering;
use std::time::Instant;

use exeat_enforce::plan::{Outputs, StatementPlan};
use exeat_enforce::release::{self, BoundMask, MaskMismatch, Notified};
use exeat_enforce::scrub::Taint;
use exeat_enforce::weigh::Scale;
use exeat_sql::Packing;
use exeat_store::record::OutcomeResult;
use exeat_wire::{
    Arrival, BackendMessage, DataRow, Fields, Format, Request, RowDescription, Step, TransactionStatus, backend,
    split_arrival,
};

use super::counted::Arrived;
use super::due::Due;
use super::large::front_bound;
use super::originals::request_of;
use super::outcome::Ended;
use super::session::{Done, Session, SessionEnd};
use super::statements::Portal;

impl Session {
    /// Everything the server has sent, as far as it is whole.
    pub(crate) async fn take_answers(&mut self) -> Done {
        while !self.progress.stands_still() && self.large_goes_on()? {
            let (arrived, counts) = match self.progress.next() {
                Some(kept) => kept,
                None => match split_arrival(&mut self.io.upstream.buffer).map_err(SessionEnd::Server)? {
                    Some(Arrival::Whole(frame)) => {
                        (Arrived::Message(backend::decode(frame).map_err(SessionEnd::Server)?), true)
                    }
                    Some(Arrival::Large(large)) => (Arrived::Large(large), true),
                    None => return Ok(()),
                },
            };
            match arrived {
                Arrived::Message(message) => {
                    self.pass_gate(&message).await?;
                    match self.count_answer(&message, counts)? {
                        Some(why) => self.progress.stop(Arrived::Message(message), why),
                        None => self.answer(&message)?,
                    }
                }
                Arrived::Large(large) => self.large_begins(large, counts).await?,
            }
        }
        Ok(())
    }

    fn answer(&mut self, message: &BackendMessage) -> Done {
        if self.progress.failing.is_some() {
            return self.swallow(message);
        }
        self.settle_result(message)?;
        match self.pipeline.on_backend(message)? {
            Step::Asynchronous => {
                let taint = match self.pipeline.front() {
                    // What is sealed is not known yet.
                    _ if !self.welcomed => Taint::UserCode,
                    Some((_, due)) => self.taint_of(due),
                    None => self.outside_taint(),
                };
                let request = self.pipeline.front().and_then(|(_, due)| request_of(due));
                self.release_of(message, taint, request.as_deref())
            }
            Step::Partial => self.partial(message),
            Step::Completed { context, .. } => {
                self.copy_in.answered(self.pipeline.due());
                self.completed(message, context)
            }
            Step::Failed { context, skipped, .. } => {
                self.copy_in.failed(self.pipeline.due());
                self.failed(message, context, skipped)
            }
            Step::QueryFailed => {
                self.copy_in.failed(self.pipeline.due());
                self.query_failed(message)
            }
            Step::CopyIn { swallowed } => self.copy_in_begins(message, !swallowed.is_empty()),
            Step::CopyOut => self.release_copy(message),
            Step::Fatal => {
                self.release(message, self.outside_taint())?;
                Err(SessionEnd::UpstreamFatal)
            }
        }
    }

    /// What belongs to no statement counts as tainted wherever anything is sealed.
    fn outside_taint(&self) -> Taint {
        if self.picture.facts.seals.is_empty() { Taint::Clean } else { Taint::UserCode }
    }

    fn release(&mut self, message: &BackendMessage, taint: Taint) -> Done {
        self.release_of(message, taint, None)
    }

    /// `request`: whose answer it is in, where that is worth telling.
    pub(crate) fn release_of(&mut self, message: &BackendMessage, taint: Taint, request: Option<&str>) -> Done {
        self.keep_original(message, taint, request)?;
        let listened = &self.target.channels;
        // Where user code runs, what this session seems to have sent may be what that code sent.
        let hears_itself = self.taint < Taint::UserCode;
        let own_pid = self.upstream_key.0;
        let mut passes = |it: Notified<'_>| {
            let mut own = || hears_itself && it.pid == own_pid && self.notified.hears(it.channel, it.payload);
            listened.iter().any(|known| known == it.channel) || own()
        };
        let correlation = self.record.session();
        release::release(message, taint, correlation, &mut passes, &mut self.io.outbox)?;
        Ok(())
    }

    fn partial(&mut self, message: &BackendMessage) -> Done {
        let facts = &self.picture.facts;
        match (self.pipeline.front_mut(), message) {
            (Some((_, due @ (Due::Query(_) | Due::Execute(_)))), BackendMessage::DataRow(row)) => {
                let (bound, counts) = front_bound(Some(due))?;
                release::release_row(row, bound, counts, &mut self.io.outbox)?;
                Ok(())
            }
            (Some((_, Due::Query(query))), BackendMessage::RowDescription(described)) => {
                let plan = query.plan().ok_or(MaskMismatch::Rows)?;
                let format = |index: usize| described.fields.get(index).map_or(Format::Text, |field| field.format);
                query.bound = Some(release::bind(plan, described, &facts.seals, &facts.snapshot, format)?);
                self.release(message, Taint::Clean)
            }
            (Some((_, Due::Query(_))), BackendMessage::CommandComplete { tag, .. }) => {
                let tag = tag.as_str().to_owned();
                self.query_ended(Ended { result: OutcomeResult::Ok, tag: Some(&tag), sqlstate: None })?;
                self.release(message, Taint::Clean)
            }
            (Some((_, Due::Query(_))), BackendMessage::EmptyQueryResponse) => {
                self.query_ended(Ended { result: OutcomeResult::Ok, tag: None, sqlstate: None })?;
                self.release(message, Taint::Clean)
            }
            (Some((_, Due::Query(_) | Due::Execute(_))), BackendMessage::CopyData(_) | BackendMessage::CopyDone) => {
                self.release_copy(message)
            }
            (Some((_, Due::Query(_))), BackendMessage::FunctionCallResponse(_)) => self.function_result(message),
            (Some((_, Due::DescribeStatement { .. })), BackendMessage::ParameterDescription { .. }) => {
                self.release(message, Taint::Clean)
            }
            (Some((_, Due::Own)), BackendMessage::DataRow(row)) => self.own.keep(text_cells(row)?),
            (Some((_, Due::Own)), _) => Ok(()),
            (Some(_) | None, _) => Err(SessionEnd::UnexpectedAnswer(message.name())),
        }
    }

    /// The message ends the answer to one request.
    fn completed(&mut self, message: &BackendMessage, due: Due) -> Done {
        match due {
            Due::Query(query) => {
                self.names.confirm_first(query.change, query.done);
                // One that waited may have been run on another catalog than the one it was analysed with.
                let in_time =
                    query.started.elapsed() <= self.target.catalog_bound && !self.was_defined(query.gate.analysed.at);
                let is_lost = matches!(message, BackendMessage::ReadyForQuery(TransactionStatus::Failed));
                if in_time && !is_lost && query.done == query.permit.plans.len() {
                    self.picture.own.succeeded(&query.permit);
                } else {
                    self.picture.own.rolled_back();
                }
                self.ready(message, !query.guarded)
            }
            Due::Sync => self.ready(message, true),
            Due::Poison(_) => match message {
                BackendMessage::ReadyForQuery(_) => self.ready(message, true),
                // It parsed: then nothing we know of this server holds.
                _ => Err(SessionEnd::UnexpectedAnswer(message.name())),
            },
            Due::Own => match message {
                BackendMessage::ReadyForQuery(_) => self.ready(message, false),
                BackendMessage::CommandComplete { .. } => {
                    self.own.ends.push(self.own.rows.len());
                    Ok(())
                }
                _ => Ok(()),
            },
            Due::Parse { change, .. } | Due::Bind { change, .. } | Due::Close { change } => {
                self.names.confirm(change);
                self.release(message, Taint::Clean)
            }
            Due::DescribeStatement { statement } => {
                if let BackendMessage::RowDescription(described) = message {
                    // Checked as a text result; each Bind has its own formats.
                    self.bind_mask(statement.permit.plans.first(), described, |_| Format::Text)?;
                }
                self.release(message, Taint::Clean)
            }
            Due::DescribePortal { portal, ours } => {
                if let BackendMessage::RowDescription(described) = message {
                    let bound = self.bind_mask(portal.plan(), described, |index| portal.format(index))?;
                    let _ = portal.bound.set(bound);
                    let packing = portal.plan().map_or(Packing::None, |plan| plan.bulk.packing);
                    let snapshot = &self.picture.facts.snapshot;
                    let _ = portal.scale.set(Scale::of(packing, described, snapshot, |index| portal.format(index)));
                }
                if ours { Ok(()) } else { self.release(message, Taint::Clean) }
            }
            Due::Execute(mut execute) => {
                let (result, tag) = match message {
                    BackendMessage::CommandComplete { tag, .. } => (OutcomeResult::Ok, Some(tag.as_str())),
                    BackendMessage::PortalSuspended => (OutcomeResult::Suspended, None),
                    _ => (OutcomeResult::Ok, None),
                };
                let in_time = execute.started.elapsed() <= self.target.catalog_bound
                    && !self.was_defined(execute.gate.analysed.at);
                match message {
                    BackendMessage::CommandComplete { .. } if in_time => {
                        self.picture.own.succeeded(&execute.portal.permit);
                    }
                    BackendMessage::CommandComplete { .. } => self.picture.own.rolled_back(),
                    _ => {}
                }
                self.execute_ended(&mut execute, &Ended { result, tag, sqlstate: None })?;
                execute.change.into_iter().for_each(|change| self.names.confirm(change));
                self.release(message, Taint::Clean)
            }
        }
    }

    fn bind_mask(
        &self,
        plan: Option<&StatementPlan>,
        described: &RowDescription,
        formats: impl Fn(usize) -> Format,
    ) -> Result<BoundMask, SessionEnd> {
        let facts = &self.picture.facts;
        let plan = plan.ok_or(MaskMismatch::Rows)?;
        Ok(release::bind(plan, described, &facts.seals, &facts.snapshot, formats)?)
    }

    /// An extended request failed; the server skips to the next Sync.
    fn failed(&mut self, message: &BackendMessage, due: Due, skipped: Vec<(Request, Due)>) -> Done {
        let BackendMessage::ErrorResponse(fields) = message else {
            return Err(SessionEnd::UnexpectedAnswer(message.name()));
        };
        for (_, lost) in skipped.into_iter().rev() {
            self.lost(lost)?;
        }
        self.picture.own.rolled_back();
        let taint = self.taint_of(&due);
        let request = request_of(&due);
        let request = request.as_deref();
        match due {
            Due::Poison(refusal) => {
                self.io.outbox.error(&refusal);
                Ok(())
            }
            Due::Own => {
                self.own.failed = Some(fields.clone());
                Ok(())
            }
            Due::Execute(mut execute) => {
                let refusal = self.copy_in.take_refusal();
                self.execute_ended(&mut execute, &Ended::error(refusal.as_ref().unwrap_or(fields)))?;
                execute.change.into_iter().for_each(|change| self.names.discard(change));
                self.release_refused(refusal, message, (taint, request))
            }
            Due::Bind { change, portal } => {
                self.names.discard(change);
                self.bind_ended(&portal, Ended::error(fields))?;
                self.release_of(message, taint, request)
            }
            Due::Parse { change, .. } | Due::Close { change } => {
                self.names.discard(change);
                self.release(message, taint)
            }
            Due::DescribeStatement { .. } | Due::DescribePortal { .. } => self.release_of(message, taint, request),
            Due::Query(_) | Due::Sync => Err(SessionEnd::UnexpectedAnswer(message.name())),
        }
    }

    /// The gateway's own reason in place of the server's error, where the gateway made it fail.
    fn release_refused(
        &mut self,
        refusal: Option<Fields>,
        message: &BackendMessage,
        (taint, request): (Taint, Option<&str>),
    ) -> Done {
        match refusal {
            Some(fields) => {
                self.io.outbox.error(&fields);
                Ok(())
            }
            None => self.release_of(message, taint, request),
        }
    }

    /// A request behind the failed one: the server never looked at it.
    pub(crate) fn lost(&mut self, due: Due) -> Done {
        match due {
            Due::Parse { change, .. } | Due::Close { change } => {
                self.names.discard(change);
                Ok(())
            }
            Due::Execute(execute) => {
                execute.change.into_iter().for_each(|change| self.names.discard(change));
                Ok(())
            }
            Due::Bind { change, portal } => {
                self.names.discard(change);
                self.bind_ended(&portal, Ended { result: OutcomeResult::Skipped, tag: None, sqlstate: None })
            }
            Due::DescribePortal { portal, .. } => {
                portal.describe_sent.store(false, Ordering::Relaxed);
                Ok(())
            }
            Due::Query(_) | Due::DescribeStatement { .. } | Due::Sync | Due::Poison(_) | Due::Own => Ok(()),
        }
    }

    /// A Query or a Sync failed; its ReadyForQuery follows.
    fn query_failed(&mut self, message: &BackendMessage) -> Done {
        let BackendMessage::ErrorResponse(fields) = message else {
            return Err(SessionEnd::UnexpectedAnswer(message.name()));
        };
        self.picture.own.rolled_back();
        let taint = self.pipeline.front().map_or(Taint::Clean, |(_, due)| self.taint_of(due));
        let request = self.pipeline.front().and_then(|(_, due)| request_of(due));
        let request = request.as_deref();
        match self.pipeline.front_mut() {
            Some((_, Due::Poison(refusal))) => {
                self.io.outbox.error(refusal);
                Ok(())
            }
            Some((_, Due::Own)) => {
                self.own.failed = Some(fields.clone());
                Ok(())
            }
            Some((_, Due::Query(query))) => {
                let may_fail = std::mem::take(&mut query.may_fail_yet);
                let refusal = self.copy_in.take_refusal();
                let shown = refusal.as_ref().unwrap_or(fields);
                let ended = if may_fail { Ended::rolled_back(shown) } else { Ended::error(shown) };
                self.query_ended(ended)?;
                self.release_refused(refusal, message, (taint, request))
            }
            Some((_, Due::Sync)) => {
                if let Some(ran) = self.batch.taken_back().cloned() {
                    self.batch_ended(&ran, &Ended::rolled_back(fields))?;
                }
                self.release(message, self.taint.max(taint))
            }
            Some(_) | None => self.release(message, self.taint.max(taint)),
        }
    }

    /// The worst that an error of this request may carry.
    fn taint_of(&self, due: &Due) -> Taint {
        match due {
            Due::Query(query) => {
                let own = query.permit.worst_taint();
                let wider = query.ends_batch || query.permit.speaks_for_transaction();
                if wider { own.max(self.taint) } else { own }
            }
            Due::Execute(execute) => self.taint_of_portal(&execute.portal),
            Due::Bind { portal, .. } | Due::DescribePortal { portal, .. } => self.taint_of_portal(portal),
            Due::DescribeStatement { statement } => statement.permit.worst_taint(),
            Due::Parse { permit, .. } => permit.worst_taint(),
            Due::Close { .. } | Due::Sync | Due::Poison(_) | Due::Own => self.taint,
        }
    }

    fn taint_of_portal(&self, portal: &Portal) -> Taint {
        let own = portal.permit.worst_taint();
        if portal.permit.speaks_for_transaction() { own.max(self.taint) } else { own }
    }

    pub(crate) fn ready(&mut self, message: &BackendMessage, to_client: bool) -> Done {
        let BackendMessage::ReadyForQuery(status) = message else {
            return Err(SessionEnd::UnexpectedAnswer(message.name()));
        };
        self.status = *status;
        self.ready_since = Instant::now();
        self.batch.ended(*status != TransactionStatus::Idle);
        // What was sent ahead may have begun a transaction with settings, taint and portals of its own.
        if *status == TransactionStatus::Idle && !self.batch_open && self.pipeline.due() == 0 {
            self.picture.at_rest();
            self.taint = Taint::Clean;
            self.has_written = false;
            self.notified.forget();
            self.names.forget_portals(|portal| portal.hold);
        }
        if to_client { self.release(message, Taint::Clean) } else { Ok(()) }
    }
}

/// Messages that belong to no request and may come between any two others.
pub(crate) fn is_asynchronous(message: &BackendMessage) -> bool {
    matches!(
        message,
        BackendMessage::NoticeResponse(_)
            | BackendMessage::ParameterStatus { .. }
            | BackendMessage::NotificationResponse { .. }
    )
}

/// Rows of a portal need its description, unless its plan checks and masks nothing.
pub(crate) fn bound_of<'a>(
    bound: Option<&'a BoundMask>,
    plan: Option<&StatementPlan>,
) -> Result<&'a BoundMask, MaskMismatch> {
    match (bound, plan.map(|plan| &plan.outputs)) {
        (Some(bound), _) => Ok(bound),
        (None, Some(Outputs::Unchecked)) => Ok(BoundMask::UNCHECKED),
        (
            None,
            Some(
                Outputs::None | Outputs::Columns(_) | Outputs::ByOrigin | Outputs::FunctionResult | Outputs::Copied(_),
            )
            | None,
        ) => Err(MaskMismatch::Rows),
    }
}

fn text_cells(row: &DataRow) -> Result<Vec<Option<String>>, SessionEnd> {
    row.cells()
        .map(|cell| {
            let cell = cell.map_err(SessionEnd::Server)?;
            Ok(cell.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        })
        .collect()
}

impl Ended<'_> {
    /// The error came behind the answer that looked like the end.
    fn rolled_back(fields: &Fields) -> Ended<'static> {
        Ended { result: OutcomeResult::RolledBack, ..Self::error(fields) }
    }

    fn error(fields: &Fields) -> Ended<'static> {
        // 57014: the client's own cancel, or a time-out; both end the statement without its result.
        let code = fields.sqlstate().unwrap_or_default().into_owned();
        let result = if code == "57014" { OutcomeResult::Cancelled } else { OutcomeResult::Error };
        Ended { result, tag: None, sqlstate: Some(code) }
    }
}
