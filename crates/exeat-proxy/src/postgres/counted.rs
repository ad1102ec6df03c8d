//! Statements whose rows are counted. Nothing is sent behind one before it is answered: so the session stops at any row of
//! it with nothing else under way, and what it did can still be taken back. A row is counted before it is released; what
//! it needs of a budget is on the ledger before that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use exeat_enforce::evaluate::Permit;
use exeat_enforce::held::{Held, used_up};
use exeat_enforce::plan::{CopyStream, StatementPlan};
use exeat_enforce::refusal::Refusal;
use exeat_enforce::tally::{LeftOver, Missing, Next, Tally, Weight, Whose};
use exeat_enforce::weigh::Scale;
use exeat_policy::Moment;
use exeat_policy::ledger::Resets;
use exeat_policy::ruling::{AppliedBudget, Reached};
use exeat_sql::Reference;
use exeat_store::state::{LedgerVerdict, RequestId, Reserved, Wish};
use exeat_wire::{BackendMessage, Format, Large};
use jiff::Timestamp;

use super::due::Due;
use super::failing::Failing;
use super::session::{Done, Session, SessionEnd};
use super::statements::Portal;
use crate::spares::Spares;

/// What is kept of one answer until it is known whether it may leave. Past it the hold comes early.
const KEPT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The counters of an answer, and what they have on the ledger.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) tally: Tally,
    /// By counter.
    reserved: Vec<Vec<Reserved>>,
    /// The approval it runs on.
    pub(crate) under: Option<RequestId>,
    /// Of approvals, when it was last looked whether that still holds.
    pub(crate) approvals_seen: u64,
}

/// Where the counters of a portal are between two fetches.
#[derive(Debug, Default)]
pub(crate) struct Resting(Mutex<Option<Box<Counted>>>);

impl Resting {
    fn take(&self) -> Option<Box<Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The approval that they count under.
    pub(crate) fn under(&self) -> Option<RequestId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.under.clone()
    }

    fn put(&self, counted: Box<Counted>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
    }
}

/// Something of the server's that is not dealt with yet.
#[derive(Debug)]
pub(crate) enum Arrived {
    Message(BackendMessage),
    Large(Large),
}

/// Why the answer stands still.
#[derive(Debug)]
pub(crate) enum Stop {
    /// More has to be on the ledger first.
    Reserve(Weight),
    /// These rules hold it.
    Past(BTreeSet<String>),
    /// What was approved is used up.
    Ended,
}

/// Where the answer of a counted statement stands.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// It stands still at this.
    stopped: Option<(Arrived, Stop)>,
    /// It goes on with this; whether it is still to be counted.
    resumed: Option<(Arrived, bool)>,
    /// What the client hears in the place of the rest.
    pub(crate) failing: Option<Failing>,
}

impl Progress {
    pub(crate) fn stands_still(&self) -> bool {
        self.stopped.is_some()
    }

    /// `None`: the next is what the server sends.
    pub(crate) fn next(&mut self) -> Option<(Arrived, bool)> {
        self.resumed.take()
    }

    pub(crate) fn stop(&mut self, at: Arrived, why: Stop) {
        self.stopped = Some((at, why));
    }

    pub(crate) fn go_on(&mut self, from: Arrived, counts: bool) {
        self.resumed = Some((from, counts));
    }
}

impl Counted {
    fn add(&mut self, spending: usize, reserved: Reserved) {
        self.tally.reserved(spending, reserved.amount(), reserved.counted_in());
        while self.reserved.len() <= spending {
            self.reserved.push(Vec::new());
        }
        if let Some(all) = self.reserved.get_mut(spending) {
            all.push(reserved);
        }
    }

    /// Takes out so much of what was reserved last.
    fn take_out(&mut self, spending: usize, mut amount: u64) -> Vec<Reserved> {
        let Some(reserved) = self.reserved.get_mut(spending) else { return Vec::new() };
        let mut out = Vec::new();
        while amount > 0
            && let Some(mut last) = reserved.pop()
        {
            let part = last.split(amount);
            amount -= part.amount();
            out.push(part);
            if last.amount() > 0 {
                reserved.push(last);
            }
        }
        out
    }

    /// What may not be spent any more of what is reserved.
    fn expired(&mut self, now: Moment) -> Vec<Reserved> {
        let expired = self.tally.expired(now);
        expired.into_iter().flat_map(|(spending, amount)| self.take_out(spending, amount)).collect()
    }

    /// What is not spent lies there for others; what was spent on rows that did not leave goes back.
    fn leave(&mut self, spares: &Spares) {
        for LeftOver { spending, unspent, kept, spent } in self.tally.left_over() {
            let unspent = self.take_out(spending, unspent);
            spares.give_back(self.take_out(spending, kept));
            if let (Some(key), Some(applied)) = (self.tally.key(spending), self.tally.budget(spending))
                && (spent > 0 || !unspent.is_empty())
            {
                spares.put(key, applied.budget, (unspent, spent));
            }
        }
        self.reserved.clear();
    }
}

impl Session {
    /// What the message takes of the counters of the answer it is in. `Some`: it stands still here.
    /// `counts`: it was not counted before the answer stood still at it.
    pub(crate) fn count_answer(&mut self, message: &BackendMessage, counts: bool) -> Result<Option<Stop>, SessionEnd> {
        if !counts || self.progress.failing.is_some() || !self.open_counters() {
            return Ok(None);
        }
        let next = match message {
            BackendMessage::RowDescription(described) => {
                let Some((_, Due::Query(query))) = self.pipeline.front_mut() else { return Ok(None) };
                let packing = query.plan().map(|plan| plan.bulk.packing).unwrap_or_default();
                let format = |index: usize| described.fields.get(index).map_or(Format::Text, |field| field.format);
                let scale = Scale::of(packing, described, &self.picture.facts.snapshot, format);
                if let Some(counted) = &mut query.counted {
                    counted.tally.weighed_by(scale);
                }
                return Ok(None);
            }
            BackendMessage::DataRow(row) => {
                let Some(counted) = self.counted() else { return Ok(None) };
                let weight = counted.tally.weigh(row).map_err(SessionEnd::Server)?;
                self.count_row(weight)
            }
            BackendMessage::CopyData(data) if self.is_copying_out() => {
                let Some(counted) = self.counted() else { return Ok(None) };
                let weight = counted.tally.weigh_length(data.bytes().len());
                self.count_row(weight)
            }
            BackendMessage::FunctionCallResponse(value) => {
                let Some(counted) = self.counted() else { return Ok(None) };
                let weight = counted.tally.weigh_length(value.bytes().len());
                self.count_row(weight)
            }
            BackendMessage::CommandComplete { tag, .. } => {
                // Of a COPY to the client rows were counted as they came.
                let changed = changed_rows(tag.as_str()).filter(|_| !self.is_copying_out());
                match (changed, self.counted()) {
                    (Some(rows), Some(counted)) => stop(counted.tally.affected(rows), Weight { rows: 0, bytes: 0 }),
                    (_, _) => None,
                }
            }
            _ => None,
        };
        let ends = matches!(
            message,
            BackendMessage::CommandComplete { .. }
                | BackendMessage::PortalSuspended
                | BackendMessage::EmptyQueryResponse
                | BackendMessage::ErrorResponse(_)
        );
        if ends && next.is_none() {
            self.release_kept();
        }
        Ok(next)
    }

    /// As `count_answer`, of a row that comes in pieces.
    pub(crate) fn count_large(&mut self, large: &Large) -> Option<Stop> {
        if self.progress.failing.is_some() || !self.open_counters() {
            return None;
        }
        let weight = self.counted()?.tally.weigh_length(large.payload_bytes);
        self.count_row(weight)
    }

    fn count_row(&mut self, weight: Weight) -> Option<Stop> {
        let kept = u64::try_from(self.io.outbox.kept_bytes()).unwrap_or(u64::MAX);
        let now = moment();
        let mut next = self.counted()?.tally.row(weight, now);
        if next == Next::Reserve && self.take_spares(weight, now).is_empty() {
            next = self.counted()?.tally.row(weight, now);
        }
        let counted = self.counted()?;
        let keeps = counted.tally.keeps();
        if next == Next::Go && keeps && kept.saturating_add(weight.bytes) > KEPT_BYTES_MAX {
            next = counted.tally.full();
        }
        if next == Next::Go && keeps {
            self.io.outbox.keep();
        }
        stop(next, weight)
    }

    /// The answer, or a fetch of it, has ended and nothing is passed.
    fn release_kept(&mut self) {
        let Some(counted) = self.counted() else { return };
        let within = counted.tally.within();
        counted.tally.released();
        match within {
            Some(within) => self.io.outbox.release_within(within),
            None => self.io.outbox.drop_kept(),
        }
    }

    fn is_copying_out(&self) -> bool {
        super::copy::front_copy(self.pipeline.front().map(|(_, due)| due)) == Some(CopyStream::Out)
    }

    /// The counters of the statement that answers now.
    pub(crate) fn counted(&mut self) -> Option<&mut Counted> {
        match self.pipeline.front_mut() {
            Some((_, Due::Query(query))) => query.counted.as_deref_mut(),
            Some((_, Due::Execute(execute))) => execute.counted.as_deref_mut(),
            Some(_) | None => None,
        }
    }

    /// Whether the statement that answers now has counters: they are there from its first message on.
    fn open_counters(&mut self) -> bool {
        let opened = match self.pipeline.front() {
            Some((_, Due::Query(query))) => {
                let Some(plan) = query.plan().filter(|plan| plan.bulk.is_counted()) else { return false };
                if query.counted.is_some() {
                    return true;
                }
                let cursor = query.gate.analysed.analysis.as_ref().and_then(|analysis| {
                    match analysis.statements.get(query.index)?.kind.reference()? {
                        Reference::Cursor(name) => self.names.portal(name).cloned(),
                        Reference::Prepared(_) => None,
                    }
                });
                let resting = cursor.as_ref().and_then(|cursor| cursor.resting.take());
                let declared = cursor.as_ref().and_then(|cursor| cursor.approval.as_ref());
                let under = query.approval.as_ref().or(declared);
                let mut counted = resting.or_else(|| self.counters(&query.permit, plan, under));
                if let (Some(counted), Some(previous), None) = (&mut counted, &query.previous, &cursor) {
                    counted.tally.follow(&previous.tally);
                    counted.under.clone_from(&previous.under);
                }
                (counted, cursor)
            }
            Some((_, Due::Execute(execute))) => {
                let portal = &execute.portal;
                let Some(plan) = portal.plan().filter(|plan| plan.bulk.is_counted()) else { return false };
                if execute.counted.is_some() {
                    return true;
                }
                let mut counted =
                    portal.resting.take().or_else(|| self.counters(&portal.permit, plan, portal.approval.as_ref()));
                if let (Some(counted), Some(scale)) = (&mut counted, portal.scale.get()) {
                    counted.tally.weighed_by(scale.clone());
                }
                (counted, None)
            }
            Some(_) | None => return false,
        };
        match (self.pipeline.front_mut(), opened) {
            (Some((_, Due::Query(query))), (counted, cursor)) => {
                query.counted = counted;
                query.cursor = cursor;
                query.counted.is_some()
            }
            (Some((_, Due::Execute(execute))), (counted, _)) => {
                execute.counted = counted;
                execute.counted.is_some()
            }
            (Some(_) | None, _) => false,
        }
    }

    /// `under`: the approval it was let through by.
    fn counters(&self, permit: &Permit, plan: &StatementPlan, under: Option<&RequestId>) -> Option<Box<Counted>> {
        let facts = &self.picture.facts;
        let whose = Whose { asker: facts.principal.asker(), target: &facts.target };
        let tally = Tally::of(permit, plan, &whose)?;
        Some(Box::new(Counted { tally, reserved: Vec::new(), under: under.cloned(), approvals_seen: 0 }))
    }

    /// A statement whose rows are counted was sent. Where it takes data of the client's that comes first.
    pub(crate) async fn go_alone(&mut self, guarded: Option<Arc<str>>) -> Done {
        if self.copy_in.awaited() {
            self.alone = Some(guarded);
            return Ok(());
        }
        self.see_through(guarded).await
    }

    /// A counted COPY from the client has all its data.
    pub(crate) async fn end_alone(&mut self) -> Done {
        if self.copy_in.awaited() || self.copy_in.running() {
            return Ok(());
        }
        let Some(guarded) = self.alone.take() else { return Ok(()) };
        // In a batch the server keeps its answer back until it is asked for it.
        if self.batch_open {
            self.sender().flush();
        }
        self.see_through(guarded).await
    }

    /// A statement whose rows are counted was sent: through to its end, with nothing behind it.
    /// `guarded`: in a transaction of the gateway's, and the request it is of.
    pub(crate) async fn see_through(&mut self, guarded: Option<Arc<str>>) -> Done {
        loop {
            match self.progress.stopped.take() {
                Some((at, Stop::Reserve(weight))) => self.reserve(at, weight).await?,
                Some((at, Stop::Past(rules))) => self.hold_running((at, false), rules).await?,
                Some((at, Stop::Ended)) => {
                    let refusal = self.held_here(None).ceiling();
                    self.fail_running(Some(at), refusal)?;
                }
                None if self.pipeline.due() == 0 || self.pipeline.is_skipping() => break,
                None => {
                    self.cancel_running();
                    self.await_answers().await?;
                    self.stop_if_revoked().await?;
                    continue;
                }
            }
            self.take_answers().await?;
        }
        let failing = self.progress.failing.take();
        match guarded {
            Some(request_id) => self.end_guarded(&request_id, failing.map(Failing::into_fields)).await,
            None => self.end_failing(failing).await,
        }
    }

    /// What is said of the statement in front, by a rule.
    pub(crate) fn held_here<'a>(&'a self, rule: Option<&'a str>) -> Held<'a> {
        Held { target: &self.picture.facts.target, rule, relation: None }
    }

    async fn reserve(&mut self, at: Arrived, weight: Weight) -> Done {
        let now = moment();
        let missing = self.counted().map(|counted| counted.tally.missing(weight, now)).unwrap_or_default();
        let spares = &self.shared.spares;
        let wish =
            |missing: &Missing| Wish { key: missing.key.clone(), budget: missing.budget, want: spares.want(missing) };
        let wishes: Vec<Wish> = missing.iter().map(wish).collect();
        let state = self.shared.dependencies.state.clone();
        let (wish, used, resets_at) = match self.while_client_stays(state.reserve(&wishes, now)).await? {
            Ok(LedgerVerdict::Reserved(reserved)) => {
                if let Some(counted) = self.counted() {
                    for (missing, reserved) in missing.iter().zip(reserved) {
                        counted.add(missing.spending, reserved);
                    }
                }
                self.progress.go_on(at, true);
                return Ok(());
            }
            Ok(LedgerVerdict::Exhausted { wish, used, resets_at, .. }) => (wish, used, resets_at),
            Err(problem) => {
                tracing::error!(problem = exeat_store::chain(&problem), "rows could not be reserved; none is released");
                let refusal = Refusal::not_enforceable("what is released cannot be counted");
                return self.fail_running(Some(at), refusal);
            }
        };
        let Some(missing) = missing.into_iter().nth(wish) else { return Err(SessionEnd::UnexpectedAnswer("a row")) };
        let applied = self.counted().and_then(|counted| counted.tally.budget(missing.spending)).cloned();
        let Some(applied) = applied else { return Err(SessionEnd::UnexpectedAnswer("a row")) };
        if applied.reached == Reached::Held {
            let rules = self.counted().map(|counted| counted.tally.used_up(&applied.rule)).unwrap_or_default();
            return self.hold_running((at, true), rules).await;
        }
        let refusal = self.limit_refusal(&missing, &applied, (used, resets_at), now);
        self.fail_running(Some(at), refusal)
    }

    /// What is still missing for the row, behind what others have left.
    fn take_spares(&mut self, weight: Weight, now: Moment) -> Vec<Missing> {
        let shared = Arc::clone(&self.shared);
        let Some(counted) = self.counted() else { return Vec::new() };
        shared.spares.give_back(counted.expired(now));
        for missing in counted.tally.missing(weight, now) {
            for part in shared.spares.take(&missing, now) {
                counted.add(missing.spending, part);
            }
        }
        counted.tally.missing(weight, now)
    }

    fn limit_refusal(
        &mut self,
        missing: &Missing,
        applied: &AppliedBudget,
        (used, resets): (u64, Resets),
        now: Moment,
    ) -> Refusal {
        let resets_at = match resets {
            Resets::At(at) => Some(at),
            Resets::Never => None,
        };
        let request_id = self.request_in_front();
        self.record_limit(&request_id, &missing.key, applied, (used, resets_at));
        let resets = resets_at.and_then(|at| resets_in(at, now));
        used_up(&self.held_here(Some(&applied.rule)), applied, used, resets)
    }

    /// The statement in front has ended: its counters rest with the portal or cursor they are of, and leave what they have
    /// left. What comes back rests nowhere.
    pub(crate) fn rest_counters(
        &mut self,
        counted: Option<Box<Counted>>,
        portal: Option<&Arc<Portal>>,
    ) -> Option<Box<Counted>> {
        let mut counted = counted?;
        counted.leave(&self.shared.spares);
        for (relation, rows) in counted.tally.newly_released() {
            let sum = self.released.entry(relation).or_default();
            *sum = sum.saturating_add(rows);
        }
        let Some(portal) = portal else { return Some(counted) };
        portal.resting.put(counted);
        None
    }
}

fn stop(next: Next, weight: Weight) -> Option<Stop> {
    match next {
        Next::Go => None,
        Next::Reserve => Some(Stop::Reserve(weight)),
        Next::Past(rules) => Some(Stop::Past(rules)),
        Next::Ended => Some(Stop::Ended),
    }
}

pub(crate) fn moment() -> Moment {
    Moment::from_unix_millis(Timestamp::now().as_millisecond())
}

/// To the second: what stands behind it tells nothing more to whoever waits.
pub(crate) fn rfc3339(at: Moment) -> Option<String> {
    let at = Timestamp::from_millisecond(at.unix_millis()).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// In so many seconds, rounded up, at this time.
pub(crate) fn resets_in(at: Moment, now: Moment) -> Option<(u64, String)> {
    let millis = at.unix_millis().saturating_sub(now.unix_millis()).max(0);
    Some((u64::try_from(millis / 1000).unwrap_or_default().saturating_add(1), rfc3339(at)?))
}

/// Rows that a write has changed, from the tag with which it ends.
fn changed_rows(tag: &str) -> Option<u64> {
    let (verb, rest) = tag.split_once(' ')?;
    let writes = matches!(verb, "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY");
    let count = rest.rsplit(' ').next()?;
    if writes { count.parse().ok() } else { None }
}
