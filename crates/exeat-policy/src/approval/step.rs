//! The one function that moves a request. Every event has its own match over every state, so that a new state or event
//! does not compile before somebody has decided what follows.

use std::collections::BTreeSet;

use super::scope::Scope;
use super::{
    Approval, Approver, BreakGlass, Demand, Event, Granted, GrantedBy, Progress, Remark, Review, State, Terms, Unmoved,
};
use crate::moment::Moment;
use crate::principal::Person;

/// What follows from an event, and who has to hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub progress: Progress,
    pub notice: Option<Notice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Whoever waits, and whoever was asked: it is decided or over.
    Closed,
    /// The second group of every rule that is due.
    SecondGroup,
    /// Everybody who was asked, and whoever watches: one human alone has let it through.
    Alert,
    /// A stream may be running on it: it ends.
    Stop,
}

/// What follows from the event at this moment, or why nothing does.
pub fn step(terms: &Terms, progress: &Progress, event: Event, now: Moment) -> Result<Step, Unmoved> {
    let state = &progress.state;
    let review = progress.review.clone();
    match event {
        Event::Approve { by, scope } => {
            let before = undecided(terms, state, now)?;
            let approval = approval(terms, before.approvals, &by, scope, now)?;
            Ok(approved(terms, &before, approval, now))
        }
        Event::Deny { by, reason } => {
            undecided(terms, state, now)?;
            other_human(terms, &by)?;
            counts_for(terms, &by, now)?;
            let state = State::Denied { by: by.person, reason, at: now };
            Ok(Step { progress: Progress { state, review }, notice: Some(Notice::Closed) })
        }
        Event::Escalate => {
            let state = escalated(terms, &undecided(terms, state, now)?, now)?;
            Ok(Step { progress: Progress { state, review }, notice: Some(Notice::SecondGroup) })
        }
        Event::Expire => {
            let state = expired(terms, state, now)?;
            Ok(Step { progress: Progress { state, review }, notice: Some(Notice::Closed) })
        }
        Event::Withdraw => {
            undecided(terms, state, now)?;
            let state = State::Withdrawn { at: now };
            Ok(Step { progress: Progress { state, review }, notice: Some(Notice::Closed) })
        }
        Event::Consume => {
            let state = consumed(state, now)?;
            Ok(Step { progress: Progress { state, review }, notice: None })
        }
        Event::Revoke { by, reason } => {
            let granted = granted(state)?.clone();
            any_standing(terms, &by)?;
            let state = State::Revoked { by: by.person, reason, at: now, granted };
            Ok(Step { progress: Progress { state, review }, notice: Some(Notice::Stop) })
        }
        Event::BreakGlass { by, reason } => {
            undecided(terms, state, now)?;
            let state = State::Approved(broken(terms, by, reason, now)?);
            let review = Review::Due { since: now };
            Ok(Step { progress: Progress { state, review }, notice: Some(Notice::Alert) })
        }
        Event::Review { by, finding, remark } => {
            reviewable(terms, progress, &by)?;
            let review = Review::Done { by: by.person, at: now, finding, remark };
            Ok(Step { progress: Progress { state: state.clone(), review }, notice: None })
        }
    }
}

/// A request that can still be decided.
struct Undecided<'a> {
    approvals: &'a [Approval],
    /// When second groups were last told.
    told_at: Option<Moment>,
}

impl Undecided<'_> {
    fn state(approvals: Vec<Approval>, told_at: Option<Moment>) -> State {
        match told_at {
            None => State::Pending { approvals },
            Some(at) => State::Escalated { approvals, at },
        }
    }
}

fn undecided<'a>(terms: &Terms, state: &'a State, now: Moment) -> Result<Undecided<'a>, Unmoved> {
    let undecided = match state {
        State::Pending { approvals } => Undecided { approvals, told_at: None },
        State::Escalated { approvals, at } => Undecided { approvals, told_at: Some(*at) },
        State::Approved(_)
        | State::Denied { .. }
        | State::Expired { .. }
        | State::Withdrawn { .. }
        | State::Consumed { .. }
        | State::Revoked { .. } => return Err(Unmoved::Closed { state: state.name() }),
    };
    if now < terms.decide_by { Ok(undecided) } else { Err(Unmoved::TooLate) }
}

/// What was granted and can be taken back. A use that has begun may run on after the last use and after the time are over.
fn granted(state: &State) -> Result<&Granted, Unmoved> {
    match state {
        State::Approved(granted) | State::Consumed { granted, .. } | State::Expired { granted: Some(granted), .. } => {
            Ok(granted)
        }
        State::Pending { .. } | State::Escalated { .. } => Err(Unmoved::NotGranted { state: state.name() }),
        State::Denied { .. }
        | State::Expired { granted: None, .. }
        | State::Withdrawn { .. }
        | State::Revoked { .. } => Err(Unmoved::Closed { state: state.name() }),
    }
}

fn approval(
    terms: &Terms,
    approvals: &[Approval],
    by: &Approver,
    scope: Scope,
    now: Moment,
) -> Result<Approval, Unmoved> {
    other_human(terms, by)?;
    let rules = counts_for(terms, by, now)?;
    // Once more only where that counts for a rule it did not count for before: its second group became due.
    let before = approvals.iter().filter(|approval| approval.by == by.person).flat_map(|approval| &approval.rules);
    if rules.is_subset(&before.cloned().collect()) {
        return Err(Unmoved::AlreadyApproved);
    }
    if !scope.is_within(terms.widest) {
        return Err(Unmoved::TooWide);
    }
    if scope.is_empty() {
        return Err(Unmoved::EmptyScope);
    }
    Ok(Approval { by: by.person.clone(), rules, scope, at: now })
}

fn other_human(terms: &Terms, by: &Approver) -> Result<(), Unmoved> {
    if terms.asker.includes(&by.person) { Err(Unmoved::OwnRequest) } else { Ok(()) }
}

/// The rules that the human may decide for at this moment.
fn counts_for(terms: &Terms, by: &Approver, now: Moment) -> Result<BTreeSet<String>, Unmoved> {
    let counts = |demand: &&Demand| {
        let standing = by.standing(demand);
        standing.first || (standing.second && demand.escalates_at.is_some_and(|at| at <= now))
    };
    let rules: BTreeSet<String> = terms.demands.iter().filter(counts).map(|demand| demand.rule.clone()).collect();
    if !rules.is_empty() {
        return Ok(rules);
    }
    let later = terms.demands.iter().any(|demand| demand.escalates_at.is_some() && by.standing(demand).second);
    Err(if later { Unmoved::TooEarly } else { Unmoved::NotAnApprover })
}

/// Taking back and looking at it afterwards widens nothing: both groups may at any time.
fn any_standing(terms: &Terms, by: &Approver) -> Result<(), Unmoved> {
    let standing = terms.demands.iter().map(|demand| by.standing(demand)).any(|found| found.first || found.second);
    if standing { Ok(()) } else { Err(Unmoved::NotAnApprover) }
}

/// One more approval: the request is granted once every rule has its quorum.
fn approved(terms: &Terms, before: &Undecided<'_>, approval: Approval, now: Moment) -> Step {
    let approvals: Vec<Approval> = before.approvals.iter().cloned().chain([approval]).collect();
    if !met(terms, &approvals) {
        let state = Undecided::state(approvals, before.told_at);
        return Step { progress: Progress { state, review: Review::NotDemanded }, notice: None };
    }
    let scope = approvals.iter().map(|approval| approval.scope).fold(terms.widest, Scope::and);
    let state = State::Approved(Granted {
        by: GrantedBy::Quorum(approvals),
        at: now,
        until: now.after(scope.lasts),
        ceiling: scope.ceiling,
        uses_left: scope.uses,
    });
    Step { progress: Progress { state, review: Review::NotDemanded }, notice: Some(Notice::Closed) }
}

/// A request that demands nothing is never met: it came about by mistake.
fn met(terms: &Terms, approvals: &[Approval]) -> bool {
    let has_quorum = |demand: &Demand| {
        let humans: BTreeSet<&Person> = approvals
            .iter()
            .filter(|approval| approval.rules.contains(&demand.rule))
            .map(|approval| &approval.by)
            .collect();
        u32::try_from(humans.len()).unwrap_or(u32::MAX) >= demand.quorum.max(1)
    };
    !terms.demands.is_empty() && terms.demands.iter().all(has_quorum)
}

/// Each rule's second group is told once, when it is due.
fn escalated(terms: &Terms, before: &Undecided<'_>, now: Moment) -> Result<State, Unmoved> {
    let mut due = terms.demands.iter().filter_map(|demand| demand.escalates_at).filter(|at| *at <= now);
    if due.any(|at| before.told_at.is_none_or(|told| told < at)) {
        Ok(Undecided::state(before.approvals.to_vec(), Some(now)))
    } else {
        Err(Unmoved::TooEarly)
    }
}

fn expired(terms: &Terms, state: &State, now: Moment) -> Result<State, Unmoved> {
    let (ends, granted) = match state {
        State::Pending { .. } | State::Escalated { .. } => (terms.decide_by, None),
        State::Approved(granted) => (granted.until, Some(granted.clone())),
        State::Denied { .. }
        | State::Expired { .. }
        | State::Withdrawn { .. }
        | State::Consumed { .. }
        | State::Revoked { .. } => return Err(Unmoved::Closed { state: state.name() }),
    };
    if now < ends { Err(Unmoved::TooEarly) } else { Ok(State::Expired { at: now, granted }) }
}

fn consumed(state: &State, now: Moment) -> Result<State, Unmoved> {
    let granted = match state {
        State::Approved(granted) => granted,
        State::Pending { .. } | State::Escalated { .. } => {
            return Err(Unmoved::NotGranted { state: state.name() });
        }
        State::Denied { .. }
        | State::Expired { .. }
        | State::Withdrawn { .. }
        | State::Consumed { .. }
        | State::Revoked { .. } => return Err(Unmoved::Closed { state: state.name() }),
    };
    if now >= granted.until {
        return Err(Unmoved::GrantExpired);
    }
    let uses_left = granted.uses_left.saturating_sub(1);
    let granted = Granted { uses_left, ..granted.clone() };
    Ok(if uses_left == 0 { State::Consumed { at: now, granted } } else { State::Approved(granted) })
}

/// The asker's own human may break the glass, where a rule says so: that is what it is for, and why it is reviewed.
fn broken(terms: &Terms, by: Approver, reason: Option<Remark>, now: Moment) -> Result<Granted, Unmoved> {
    if terms.demands.is_empty() {
        return Err(Unmoved::NotYoursToBreak);
    }
    for demand in &terms.demands {
        match by.standing(demand).break_glass {
            BreakGlass::Refused => return Err(Unmoved::NotYoursToBreak),
            BreakGlass::WithReason if reason.is_none() => return Err(Unmoved::ReasonMissing),
            BreakGlass::WithReason | BreakGlass::Allowed => {}
        }
    }
    let Scope { ceiling, uses, lasts } = terms.usual();
    let by = GrantedBy::BreakGlass { by: by.person, reason };
    Ok(Granted { by, at: now, until: now.after(lasts), ceiling, uses_left: uses })
}

fn reviewable(terms: &Terms, progress: &Progress, by: &Approver) -> Result<(), Unmoved> {
    match progress.review {
        Review::Due { .. } => {}
        Review::NotDemanded | Review::Done { .. } => return Err(Unmoved::NoReviewDue),
    }
    let granted = match &progress.state {
        State::Approved(granted)
        | State::Consumed { granted, .. }
        | State::Revoked { granted, .. }
        | State::Expired { granted: Some(granted), .. } => granted,
        State::Pending { .. }
        | State::Escalated { .. }
        | State::Denied { .. }
        | State::Expired { granted: None, .. }
        | State::Withdrawn { .. } => return Err(Unmoved::NoReviewDue),
    };
    match &granted.by {
        GrantedBy::BreakGlass { by: breaker, .. } if *breaker == by.person => return Err(Unmoved::OwnReview),
        GrantedBy::BreakGlass { .. } | GrantedBy::Quorum(_) => {}
    }
    other_human(terms, by)?;
    any_standing(terms, by)
}
