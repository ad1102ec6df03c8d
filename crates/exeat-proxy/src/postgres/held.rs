//! A statement that a rule holds: humans are asked, and the session waits where it may. Who has decided is the store's to
//! say; what is heard meanwhile only says that looking is worth it. Nothing of the statement leaves before an approval of
//! exactly it was used, and one use is used once.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exeat_enforce::card::Card;
use exeat_enforce::evaluate::Permit;
use exeat_enforce::held::Held;
use exeat_enforce::refusal::Refusal;
use exeat_policy::Moment;
use exeat_policy::approval::{Event, Rerun, State as RequestState};
use exeat_policy::grant::{Ask, Covered};
use exeat_policy::hold::Mode;
use exeat_policy::ruling::{Asking, Duty};
use exeat_store::record::{HeldChange, HeldEvent, OutcomeResult};
use exeat_store::state::{Asked, Decided, GrantUse, NewRequest, RequestId, StateError, Whose};
use exeat_wire::{Fields, TransactionStatus};

use super::ask::{Values, is_of_cursor};
use super::counted::{Arrived, moment, rfc3339};
use super::due::Due;
use super::failing::cancelled;
use super::io::{Interest, Turn};
use super::outcome::policy_ref;
use super::picture::Refused;
use super::session::{Done, Session, SessionEnd};
use crate::lookout::Watch;

/// After so long a client that waits is told why.
const FIRST_NOTICE: Duration = Duration::from_secs(2);
/// Then again and again.
const NEXT_NOTICE: Duration = Duration::from_secs(10);
/// A client that gives up on a silent connection hears something this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// So much before the server would end the statement or the session the client has its answer: a tenth of what the server
/// allows, within these bounds.
const MARGINS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// A statement that rules hold.
pub(crate) struct Asks {
    pub(crate) request_id: Arc<str>,
    pub(crate) permit: Arc<Permit>,
    pub(crate) ask: Ask,
    pub(crate) rules: BTreeSet<String>,
    pub(crate) duties: Vec<Duty>,
    /// `None`: it does not run yet.
    pub(crate) running: Option<Instant>,
    pub(crate) card: Card,
}

/// What came of it.
pub(crate) enum Sought {
    Covered(Covered, RequestId),
    Refused(Box<Refusal>),
    /// By the client.
    Cancelled,
}

impl Session {
    /// Before it runs: a permit that nothing holds, with the approval that made it so, or why not.
    pub(crate) async fn seek_leave(
        &mut self,
        request_id: &Arc<str>,
        permit: Arc<Permit>,
        parameters: &Values<'_>,
    ) -> Result<Result<(Arc<Permit>, Option<RequestId>), Unheld>, SessionEnd> {
        if !permit.is_held() {
            return Ok(Ok((permit, None)));
        }
        let causes = permit.plans.iter().flat_map(|plan| &plan.bulk.causes);
        let rules: BTreeSet<String> = causes.filter_map(|cause| cause.rule.clone()).collect();
        let asks = self.asks((request_id, &permit), parameters, (rules, None))?;
        let facts = permit.facts.clone();
        match self.seek(asks).await? {
            Sought::Covered(covered, approval) => {
                let permit = Arc::new(permit.under(&covered, approval.as_str()));
                Ok(Ok((permit, Some(approval))))
            }
            Sought::Refused(refusal) => Ok(Err(Unheld::Refused(Box::new(Refused { refusal: *refusal, facts })))),
            Sought::Cancelled => Ok(Err(Unheld::Cancelled(cancelled()))),
        }
    }

    /// While it runs: what is kept of it stays, and so does what has just come.
    pub(crate) async fn hold_running(&mut self, at: (Arrived, bool), rules: BTreeSet<String>) -> Done {
        let (permit, values, started) = match self.pipeline.front() {
            Some((_, Due::Query(query))) => (Arc::clone(&query.permit), None, query.started),
            Some((_, Due::Execute(execute))) => {
                (Arc::clone(&execute.portal.permit), execute.portal.values, execute.started)
            }
            Some(_) | None => return Err(SessionEnd::UnexpectedAnswer("a row")),
        };
        let request_id = self.request_in_front();
        let values = Values::Digested(values);
        let asks = self.asks((&request_id, &permit), &values, (rules, Some(started)))?;
        match self.seek(asks).await? {
            Sought::Covered(covered, approval) => {
                let agreed = self.counted().map(|counted| {
                    counted.under = Some(approval);
                    counted.tally.agreed(&covered)
                });
                if agreed != Some(true) {
                    let refusal = self.held_here(None).ceiling();
                    return self.fail_running(Some(at.0), refusal);
                }
                self.io.outbox.release_covered(&covered);
                if let Some(counted) = self.counted() {
                    counted.tally.released();
                }
                self.progress.go_on(at.0, at.1);
                Ok(())
            }
            Sought::Refused(refusal) => self.fail_running(Some(at.0), *refusal),
            Sought::Cancelled => self.fail_with(Some(at.0), cancelled(), OutcomeResult::Cancelled),
        }
    }

    async fn seek(&mut self, mut asks: Asks) -> Result<Sought, SessionEnd> {
        let state = self.shared.dependencies.state.clone();
        if !state.is_current() {
            return Ok(refused(Refusal::not_enforceable("the state store cannot be asked for approvals")));
        }
        if let Some(sought) = self.take_use(&asks).await? {
            return Ok(sought);
        }
        let now = moment();
        let facts = &self.picture.facts;
        let Some(asking) = self.picture.policy.policy.asking(&facts.principal, &asks.rules, &asks.duties, now) else {
            return Ok(refused(Refusal::not_enforceable("the rule that holds this statement asks nobody")));
        };
        asks.card.mode = asking.mode.into();
        asks.card.sample = self.sample(asking.sample);
        asks.card.estimate = self.estimate(&asks.permit, self.answer_by(&asks)).await?;
        let new = NewRequest {
            ask: asks.ask.clone(),
            terms: asking.terms.clone(),
            fingerprint: asks.permit.facts.fingerprint.clone().unwrap_or_default(),
            card: asks.card.clone().encoded(),
            tell: self.shared.dependencies.tell.clone(),
        };
        let (asked, stays) = self.done_in_any_case(state.ask(new, now)).await;
        let id = match asked {
            Ok(Asked::Opened(id)) => {
                // Nobody is let through by it: that it is missing in the record holds nothing up.
                let _recorded = self.record_approval(&asks, &id, HeldEvent::Requested);
                id
            }
            Ok(Asked::Found {
                id, rerun: Rerun::Waits | Rerun::Collects | Rerun::Refused | Rerun::AsksAnew, ..
            }) => id,
            Ok(Asked::TooMany { whose, limit }) => {
                stays?;
                let whose = match whose {
                    Whose::Everybody => "everybody together",
                    Whose::Asker => "you",
                    Whose::AskerToday => "you within a day",
                };
                return Ok(refused(self.words(&asks).too_many(whose, limit)));
            }
            Err(problem) => {
                stays?;
                return Ok(self.broken(&problem));
            }
        };
        let sought = match stays {
            Ok(()) => self.wait(&asks, &asking, &id).await,
            Err(end) => Err(end),
        };
        if matches!(sought, Err(_) | Ok(Sought::Cancelled)) {
            self.withdraw(&asks, &id).await;
        }
        sought
    }

    /// Until it is decided, or its time to wait is over.
    async fn wait(&mut self, asks: &Asks, asking: &Asking, id: &RequestId) -> Result<Sought, SessionEnd> {
        let since = Instant::now();
        // Before it is looked at: what is decided from here on is heard.
        let watch = self.shared.lookout.watch(id);
        let longest = self.may_wait(asks, asking);
        // Taken until the wait is over.
        let place = longest.and_then(|_| self.shared.waiting.place(&self.target));
        let longest = longest.filter(|_| place.is_some());
        let (mut told, mut heard, mut looks) = (FIRST_NOTICE, SIGN_OF_LIFE, true);
        loop {
            if looks && let Some(sought) = self.decided(asks, id).await? {
                return Ok(sought);
            }
            let waited = since.elapsed();
            let pending = || refused(self.words(asks).pending(id.as_str(), rfc3339(asking.terms.decide_by)));
            let left = longest.and_then(|longest| longest.checked_sub(waited)).filter(|_| !self.tenure.is_leaving());
            let Some(left) = left else {
                if !is_of_cursor(&asks.permit) {
                    return Ok(pending());
                }
                drop(watch);
                self.withdraw(asks, id).await;
                return Ok(refused(self.words(asks).not_in_time(id.as_str())));
            };
            if waited >= told {
                (told, heard) = (waited + NEXT_NOTICE, waited + SIGN_OF_LIFE);
                self.tell_waiting(id, asking.wait.saturating_sub(waited));
            } else if waited >= heard {
                heard = waited + SIGN_OF_LIFE;
                self.io.outbox.still_there();
            }
            let next = told.min(heard).saturating_sub(waited);
            let pause = left.min(next).max(Duration::from_millis(1));
            match self.pause(pause, &watch).await? {
                Paused::Over => looks = pause == left,
                Paused::Woken => looks = true,
                Paused::Cancelled => return Ok(Sought::Cancelled),
            }
        }
    }

    /// For so long, or until somebody has decided. The server is not read meanwhile.
    async fn pause(&mut self, longest: Duration, watch: &Watch) -> Result<Paused, SessionEnd> {
        let mut over = pin!(tokio::time::sleep(longest));
        loop {
            if let Some(asked) = self.cancel_asked() {
                drop(asked);
                return Ok(Paused::Cancelled);
            }
            let interest = Interest { client: self.hears_client(), upstream: false };
            tokio::select! {
                biased;
                () = &mut over => return Ok(Paused::Over),
                () = watch.decided() => return Ok(Paused::Woken),
                turn = self.turn_or_look(interest) => match turn? {
                    // Nobody waits any more.
                    Turn::ClientClosed | Turn::ClientEnded => return Err(SessionEnd::ClientClosed),
                    Turn::Client | Turn::Upstream | Turn::UpstreamClosed | Turn::Flushed => {}
                },
            }
        }
    }

    /// Where nothing can be read and all is written, a turn would come back at once.
    async fn turn_or_look(&mut self, interest: Interest) -> Result<Turn, SessionEnd> {
        if interest.client || !self.io.is_flushed() {
            return self.turn(interest).await;
        }
        self.looks.due().await;
        self.look()?;
        Ok(Turn::Flushed)
    }

    /// `None`: not yet.
    async fn decided(&mut self, asks: &Asks, id: &RequestId) -> Result<Option<Sought>, SessionEnd> {
        let state = self.shared.dependencies.state.clone();
        let request = match self.while_client_stays(state.request(id)).await? {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(Some(refused(self.words(asks).gone(id.as_str())))),
            Err(problem) => return Ok(Some(self.broken(&problem))),
        };
        let words = self.words(asks);
        Ok(match &request.progress.state {
            RequestState::Pending { .. } | RequestState::Escalated { .. } => None,
            RequestState::Approved(_) => match self.take_use(asks).await? {
                Some(sought) => Some(sought),
                None => Some(refused(self.words(asks).gone(id.as_str()))),
            },
            RequestState::Denied { reason, .. } => Some(refused(words.denied(id.as_str(), reason.as_str()))),
            RequestState::Revoked { reason, .. } => Some(refused(words.revoked(id.as_str(), reason.as_str()))),
            RequestState::Expired { .. } => Some(refused(words.expired(id.as_str()))),
            RequestState::Withdrawn { .. } | RequestState::Consumed { .. } => Some(refused(words.gone(id.as_str()))),
        })
    }

    /// `None`: there is no approval of it.
    async fn take_use(&mut self, asks: &Asks) -> Result<Option<Sought>, SessionEnd> {
        // What was approved is what the policy said then.
        if self.shared.dependencies.policy.load().generation != self.picture.policy.generation {
            return Ok(Some(refused(Refusal::statement_changed())));
        }
        let state = self.shared.dependencies.state.clone();
        let (taken, stays) = self.done_in_any_case(state.take_use(&asks.ask, moment())).await;
        let sought = self.used(asks, taken);
        stays.map(|()| sought)
    }

    /// What a use of an approval comes to; on record also where the client has left with it.
    fn used(&mut self, asks: &Asks, taken: Result<GrantUse, StateError>) -> Option<Sought> {
        match taken {
            Ok(GrantUse::Taken { id, covered }) => {
                if !asks.rules.iter().all(|rule| covered.lifts(rule)) {
                    return Some(refused(self.words(asks).gone(id.as_str())));
                }
                // On record before anything leaves on it, or nothing does.
                if !self.record_approval(asks, &id, HeldEvent::Consumed) {
                    return Some(refused(Refusal::not_enforceable("the audit log cannot be written")));
                }
                Some(Sought::Covered(covered, id))
            }
            Ok(GrantUse::Drifted { .. } | GrantUse::Nothing) => None,
            Err(problem) => Some(self.broken(&problem)),
        }
    }

    /// How long it may wait on its connection. `None`: not at all.
    fn may_wait(&self, asks: &Asks, asking: &Asking) -> Option<Duration> {
        let state = self.own.state.as_ref()?;
        let in_block = self.status != TransactionStatus::Idle || self.batch_open;
        let writes = asks.permit.plans.iter().any(|plan| plan.bulk.writes);
        // Locks of earlier writes would wait with it.
        let holds_locks = (in_block && self.has_written) || (asks.running.is_some() && writes);
        let limited = in_block && state.time_outs.transaction.is_some();
        if asking.mode == Mode::Async || state.standby || holds_locks || limited {
            return None;
        }
        let Some(by) = self.answer_by(asks) else { return Some(asking.wait) };
        Some(asking.wait.min(by.checked_duration_since(Instant::now())?))
    }

    /// When the client has its answer at the latest. `None`: the server allows any time.
    fn answer_by(&self, asks: &Asks) -> Option<Instant> {
        let time_outs = &self.own.state.as_ref()?.time_outs;
        let is_idle = asks.running.is_none() && self.status != TransactionStatus::Idle;
        // To the server a statement runs from the first message of its batch on.
        let batch = self.batch_open.then_some(self.batch_since);
        let limits = [
            (asks.running.or(batch), time_outs.statement),
            // The client may have taken its time before it asked.
            (is_idle.then_some(self.ready_since), time_outs.idle_in_transaction),
        ];
        let (least, most) = MARGINS;
        let by = |(since, time_out): (Option<Instant>, Option<Duration>)| {
            let time_out = time_out?;
            since?.checked_add(time_out.saturating_sub((time_out / 10).clamp(least, most)))
        };
        limits.into_iter().filter_map(by).min()
    }

    fn tell_waiting(&mut self, id: &RequestId, left: Duration) {
        let text = format!("waiting for a human to approve request {id}; for at most {} s more", left.as_secs());
        let hint = format!("an approver runs: exeat approvals approve {id}");
        self.io.outbox.notice(&Fields::new("NOTICE", "00000", &text).with(b'H', &hint));
    }

    /// Unless another session of the asker's waits for the same.
    async fn withdraw(&mut self, asks: &Asks, id: &RequestId) {
        if self.shared.lookout.is_watched(id) {
            return;
        }
        let decided = self.shared.dependencies.state.decide(id, Event::Withdraw, moment()).await;
        match decided {
            // As with what opened it, that it is missing in the record holds nothing up.
            Ok(Decided::Moved(_)) => drop(self.record_approval(asks, id, HeldEvent::Withdrawn)),
            Ok(Decided::Unmoved(_) | Decided::NoSuchRequest) => {}
            Err(problem) => {
                tracing::warn!(problem = exeat_store::chain(&problem), "a request that nobody waits for stays open");
            }
        }
    }

    /// While a stream runs on an approval: it ends when that is taken back.
    pub(crate) async fn stop_if_revoked(&mut self) -> Done {
        let revision = self.shared.dependencies.state.changes().borrow().approval;
        if self.progress.failing.is_some() {
            return Ok(());
        }
        let Some(counted) = self.counted() else { return Ok(()) };
        let Some(id) = counted.under.clone().filter(|_| counted.approvals_seen != revision) else { return Ok(()) };
        counted.approvals_seen = revision;
        match self.looked_at(&id, None).await? {
            Some(refusal) => self.fail_running(None, refusal),
            None => Ok(()),
        }
    }

    /// Before what rests under an approval goes on: does that still hold, and is it not over?
    pub(crate) async fn taken_back(&mut self, id: &RequestId) -> Result<Option<Refusal>, SessionEnd> {
        self.looked_at(id, Some(moment())).await
    }

    /// `now`: the time it must not have passed; what runs may run on past it.
    async fn looked_at(&mut self, id: &RequestId, now: Option<Moment>) -> Result<Option<Refusal>, SessionEnd> {
        let state = self.shared.dependencies.state.clone();
        let found = self.while_client_stays(state.request(id)).await?;
        let words = self.held_here(None);
        Ok(match found.map(|request| request.map(|request| request.progress.state)) {
            Ok(Some(RequestState::Approved(granted) | RequestState::Consumed { granted, .. })) => {
                now.filter(|now| *now >= granted.until).map(|_| words.gone(id.as_str()))
            }
            Ok(Some(RequestState::Revoked { reason, .. })) => Some(words.revoked(id.as_str(), reason.as_str())),
            Ok(
                Some(
                    RequestState::Pending { .. }
                    | RequestState::Escalated { .. }
                    | RequestState::Denied { .. }
                    | RequestState::Expired { .. }
                    | RequestState::Withdrawn { .. },
                )
                | None,
            ) => Some(words.gone(id.as_str())),
            Err(problem) => {
                tracing::error!(problem = exeat_store::chain(&problem), "an approval in use could not be looked at");
                Some(Refusal::not_enforceable("the state store cannot be asked for approvals"))
            }
        })
    }

    fn words<'a>(&'a self, asks: &'a Asks) -> Held<'a> {
        let cause = asks.permit.plans.iter().flat_map(|plan| &plan.bulk.causes).next();
        let counted = asks.duties.iter().map(|duty| &duty.relation).next();
        let relation = cause.map_or(counted, |cause| cause.relation.as_ref());
        // Only what the client's text names.
        let named = relation.filter(|relation| {
            let name = format!("{}.{}", relation.schema, relation.name);
            asks.permit.facts.named.contains(&name)
        });
        let rule = asks.rules.first().map(String::as_str);
        Held { target: &self.picture.facts.target, rule, relation: named }
    }

    fn broken(&self, problem: &StateError) -> Sought {
        tracing::error!(problem = exeat_store::chain(problem), "a held statement could not be asked for");
        refused(Refusal::not_enforceable("the state store cannot be asked for approvals"))
    }

    /// Whether it is on record.
    fn record_approval(&mut self, asks: &Asks, id: &RequestId, what: HeldEvent) -> bool {
        let rules: Vec<&str> = asks.rules.iter().map(String::as_str).collect();
        let change = HeldChange {
            what,
            approval: id.as_str(),
            request_id: &asks.request_id,
            rules: &rules,
            policy: policy_ref(&self.picture.policy),
        };
        let recorded = self.record.approval(&change);
        if let Err(problem) = &recorded {
            tracing::error!(problem = exeat_store::chain(problem), "could not record what became of a held statement");
        }
        recorded.is_ok()
    }
}

enum Paused {
    Over,
    Woken,
    Cancelled,
}

/// Why a held statement does not run.
pub(crate) enum Unheld {
    Refused(Box<Refused>),
    Cancelled(Fields),
}

fn refused(refusal: Refusal) -> Sought {
    Sought::Refused(Box::new(refusal))
}
