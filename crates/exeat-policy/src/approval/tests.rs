//! Every state against every event. The tables name each pair: a new state or event does not compile before somebody has
//! said what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;

const ASKED: Moment = Moment::from_unix_millis(1_000_000);
const EXPIRES: Duration = Duration::from_mins(15);
const WIDEST: Scope =
    Scope { ceiling: Ceiling { rows: Some(500), bytes: None, affected: None }, uses: USES_MAX, lasts: EXPIRES };

fn at(seconds: u64) -> Moment {
    ASKED.after(Duration::from_secs(seconds))
}

fn principal(subject: &str) -> Principal {
    Principal {
        issuer: "https://idp".to_owned(),
        subject: subject.to_owned(),
        groups: Vec::new(),
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Human,
        token_id: None,
        instance: BTreeMap::new(),
    }
}

const FIRST: Standing = Standing { first: true, second: false, break_glass: BreakGlass::Refused };
const SECOND: Standing = Standing { first: false, second: true, break_glass: BreakGlass::Refused };

fn human(subject: &str, standing: &[(&str, Standing)]) -> Approver {
    let standing = standing.iter().map(|(rule, standing)| ((*rule).to_owned(), *standing)).collect();
    Approver::new(&principal(subject), standing).unwrap()
}

fn owner(subject: &str) -> Approver {
    human(subject, &[("bulk", FIRST)])
}

fn breaker(subject: &str) -> Approver {
    human(subject, &[("bulk", Standing { break_glass: BreakGlass::WithReason, ..Standing::default() })])
}

fn remark(text: &str) -> Remark {
    Remark::try_from(text.to_owned()).unwrap()
}

fn terms(quorum: u32) -> Terms {
    Terms {
        asker: Asker { human: principal("dana").asker().human, actor: Some("agent-7".to_owned()) },
        demands: vec![Demand { rule: "bulk".to_owned(), quorum, escalates_at: Some(at(60)) }],
        asked_at: ASKED,
        decide_by: ASKED.after(EXPIRES),
        widest: WIDEST,
    }
}

fn run(terms: &Terms, events: Vec<(Event, Moment)>) -> Result<Progress, Unmoved> {
    let mut progress = Progress::START;
    for (event, now) in events {
        progress = step(terms, &progress, event, now)?.progress;
    }
    Ok(progress)
}

fn approve(by: &str) -> Event {
    Event::Approve { by: owner(by), scope: terms(1).usual() }
}

fn deny() -> Event {
    Event::Deny { by: owner("ann"), reason: remark("not for this") }
}

fn revoke() -> Event {
    Event::Revoke { by: owner("ann"), reason: remark("enough") }
}

fn break_glass() -> Event {
    Event::BreakGlass { by: breaker("kim"), reason: Some(remark("outage")) }
}

fn review(by: &str) -> Event {
    Event::Review { by: owner(by), finding: Finding::Justified, remark: remark("seen") }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateKind {
    Pending,
    Escalated,
    Approved,
    Denied,
    /// Without anything granted.
    Expired,
    GrantExpired,
    Withdrawn,
    Consumed,
    Revoked,
    /// Approved by one human alone, not reviewed yet.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventKind {
    Approve,
    Deny,
    Escalate,
    Expire,
    Withdraw,
    Consume,
    Revoke,
    BreakGlass,
    Review,
}

impl StateKind {
    const ALL: [Self; 10] = [
        Self::Pending,
        Self::Escalated,
        Self::Approved,
        Self::Denied,
        Self::Expired,
        Self::GrantExpired,
        Self::Withdrawn,
        Self::Consumed,
        Self::Revoked,
        Self::Broken,
    ];

    fn of(progress: &Progress) -> Self {
        match &progress.state {
            State::Pending { .. } => Self::Pending,
            State::Escalated { .. } => Self::Escalated,
            State::Approved(Granted { by: GrantedBy::Quorum(_), .. }) => Self::Approved,
            State::Approved(Granted { by: GrantedBy::BreakGlass { .. }, .. }) => Self::Broken,
            State::Denied { .. } => Self::Denied,
            State::Expired { granted: None, .. } => Self::Expired,
            State::Expired { granted: Some(_), .. } => Self::GrantExpired,
            State::Withdrawn { .. } => Self::Withdrawn,
            State::Consumed { .. } => Self::Consumed,
            State::Revoked { .. } => Self::Revoked,
        }
    }

    /// How a request gets there, all within its first 70 seconds but what has to wait.
    fn road(self) -> Vec<(Event, Moment)> {
        match self {
            Self::Pending => vec![],
            Self::Escalated => vec![(Event::Escalate, at(60))],
            Self::Approved => vec![(approve("ann"), at(10))],
            Self::Denied => vec![(deny(), at(10))],
            Self::Expired => vec![(Event::Expire, at(900))],
            Self::GrantExpired => vec![(approve("ann"), at(10)), (Event::Expire, at(910))],
            Self::Withdrawn => vec![(Event::Withdraw, at(10))],
            Self::Consumed => vec![(approve("ann"), at(10)), (Event::Consume, at(11))],
            Self::Revoked => vec![(approve("ann"), at(10)), (revoke(), at(11))],
            Self::Broken => vec![(break_glass(), at(10))],
        }
    }
}

impl EventKind {
    const ALL: [Self; 9] = [
        Self::Approve,
        Self::Deny,
        Self::Escalate,
        Self::Expire,
        Self::Withdraw,
        Self::Consume,
        Self::Revoke,
        Self::BreakGlass,
        Self::Review,
    ];

    /// One that would be taken if the state takes any of its kind.
    fn sample(self) -> Event {
        match self {
            Self::Approve => approve("bea"),
            Self::Deny => deny(),
            Self::Escalate => Event::Escalate,
            Self::Expire => Event::Expire,
            Self::Withdraw => Event::Withdraw,
            Self::Consume => Event::Consume,
            Self::Revoke => revoke(),
            Self::BreakGlass => break_glass(),
            Self::Review => review("bea"),
        }
    }

    fn of(event: &Event) -> Self {
        match event {
            Event::Approve { .. } => Self::Approve,
            Event::Deny { .. } => Self::Deny,
            Event::Escalate => Self::Escalate,
            Event::Expire => Self::Expire,
            Event::Withdraw => Self::Withdraw,
            Event::Consume => Self::Consume,
            Event::Revoke { .. } => Self::Revoke,
            Event::BreakGlass { .. } => Self::BreakGlass,
            Event::Review { .. } => Self::Review,
        }
    }
}

/// What has to follow 70 seconds after the request was made; `None`: nothing.
fn expected(state: StateKind, event: EventKind) -> Option<StateKind> {
    use StateKind as S;
    match event {
        EventKind::Approve => match state {
            S::Pending | S::Escalated => Some(S::Approved),
            S::Approved | S::Denied | S::Expired | S::GrantExpired => None,
            S::Withdrawn | S::Consumed | S::Revoked | S::Broken => None,
        },
        EventKind::Deny => match state {
            S::Pending | S::Escalated => Some(S::Denied),
            S::Approved | S::Denied | S::Expired | S::GrantExpired => None,
            S::Withdrawn | S::Consumed | S::Revoked | S::Broken => None,
        },
        EventKind::Escalate => match state {
            S::Pending => Some(S::Escalated),
            // Told already.
            S::Escalated => None,
            S::Approved | S::Denied | S::Expired | S::GrantExpired => None,
            S::Withdrawn | S::Consumed | S::Revoked | S::Broken => None,
        },
        // Not yet, or over already.
        EventKind::Expire => match state {
            S::Pending | S::Escalated | S::Approved | S::Broken => None,
            S::Denied | S::Expired | S::GrantExpired | S::Withdrawn | S::Consumed | S::Revoked => None,
        },
        EventKind::Withdraw => match state {
            S::Pending | S::Escalated => Some(S::Withdrawn),
            S::Approved | S::Denied | S::Expired | S::GrantExpired => None,
            S::Withdrawn | S::Consumed | S::Revoked | S::Broken => None,
        },
        EventKind::Consume => match state {
            S::Approved | S::Broken => Some(S::Consumed),
            S::Pending | S::Escalated | S::Denied | S::Expired => None,
            S::GrantExpired | S::Withdrawn | S::Consumed | S::Revoked => None,
        },
        EventKind::Revoke => match state {
            S::Approved | S::GrantExpired | S::Consumed | S::Broken => Some(S::Revoked),
            S::Pending | S::Escalated | S::Denied | S::Expired | S::Withdrawn | S::Revoked => None,
        },
        EventKind::BreakGlass => match state {
            S::Pending | S::Escalated => Some(S::Broken),
            S::Approved | S::Denied | S::Expired | S::GrantExpired => None,
            S::Withdrawn | S::Consumed | S::Revoked | S::Broken => None,
        },
        EventKind::Review => match state {
            S::Broken => Some(S::Broken),
            S::Pending | S::Escalated | S::Approved | S::Denied | S::Expired => None,
            S::GrantExpired | S::Withdrawn | S::Consumed | S::Revoked => None,
        },
    }
}

#[test]
fn every_state_answers_every_event_as_written_down() {
    let terms = terms(1);
    for state in StateKind::ALL {
        let before = run(&terms, state.road()).unwrap();
        assert_eq!(StateKind::of(&before), state, "the road leads there");
        for event in EventKind::ALL {
            assert_eq!(EventKind::of(&event.sample()), event);
            let after = step(&terms, &before, event.sample(), at(70));
            let found = after.as_ref().ok().map(|after| StateKind::of(&after.progress));
            assert_eq!(found, expected(state, event), "{state:?} {event:?}: {after:?}");
        }
    }
}

#[test]
fn once_its_time_is_over_a_request_can_only_expire() {
    let terms = terms(1);
    for state in [StateKind::Pending, StateKind::Escalated] {
        let before = run(&terms, state.road()).unwrap();
        for event in EventKind::ALL {
            let after = step(&terms, &before, event.sample(), terms.decide_by);
            let found = after.ok().map(|after| StateKind::of(&after.progress));
            let expires = (event == EventKind::Expire).then_some(StateKind::Expired);
            assert_eq!(found, expires, "{state:?} {event:?}");
        }
    }
}

#[test]
fn once_its_time_is_over_a_grant_has_no_use_left() {
    let terms = terms(1);
    for state in [StateKind::Approved, StateKind::Broken] {
        let before = run(&terms, state.road()).unwrap();
        let last = at(10 + EXPIRES.as_secs());
        assert_eq!(step(&terms, &before, Event::Consume, last), Err(Unmoved::GrantExpired));
        let after = step(&terms, &before, Event::Expire, last).unwrap().progress;
        assert_eq!(StateKind::of(&after), StateKind::GrantExpired);
    }
}

#[test]
fn whatever_happens_nothing_is_granted_without_the_quorum() {
    // Every sequence of up to four events by two approvers, the asker, the agent and a stranger.
    let terms = terms(2);
    let by = ["ann", "bea", "dana", "agent-7"];
    let approvals = by.iter().map(|by| Event::Approve { by: owner(by), scope: terms.usual() });
    let stranger = Event::Approve { by: human("eve", &[("other", FIRST)]), scope: terms.usual() };
    let others = [stranger, Event::Escalate, Event::Expire, Event::Consume, review("ann"), revoke()];
    let events: Vec<Event> = approvals.chain(others).collect();
    let mut reached = vec![(Progress::START, BTreeSet::new())];
    let mut granted = 0;
    for _ in 0..4 {
        let mut next = Vec::new();
        for (before, yes) in &reached {
            for event in &events {
                let Ok(after) = step(&terms, before, event.clone(), at(70)) else { continue };
                let mut yes: BTreeSet<String> = yes.clone();
                if let Event::Approve { by, .. } = event {
                    yes.insert(by.person().subject.clone());
                }
                if let State::Approved(_) = after.progress.state {
                    granted += 1;
                    assert_eq!(yes, BTreeSet::from(["ann".to_owned(), "bea".to_owned()]));
                }
                next.push((after.progress, yes));
            }
        }
        reached = next;
    }
    assert!(granted > 0);
}

#[test]
fn nobody_approves_their_own() {
    let terms = terms(1);
    for subject in ["dana", "agent-7"] {
        let event = Event::Approve { by: owner(subject), scope: terms.usual() };
        assert_eq!(run(&terms, vec![(event, at(1))]), Err(Unmoved::OwnRequest), "{subject}");
    }
    let mut elsewhere = principal("dana");
    elsewhere.issuer = "https://other".to_owned();
    let by = Approver::new(&elsewhere, BTreeMap::from([("bulk".to_owned(), FIRST)])).unwrap();
    let namesake = Event::Approve { by, scope: terms.usual() };
    assert!(run(&terms, vec![(namesake, at(1))]).is_ok(), "the same word from another issuer is somebody else");
}

#[test]
fn agents_and_workloads_are_no_approvers() {
    let standing = || BTreeMap::from([("bulk".to_owned(), FIRST)]);
    let through_agent = Principal { actor: Some("agent-7".to_owned()), ..principal("ann") };
    let workload = Principal { kind: PrincipalKind::Workload, ..principal("ann") };
    let mut nested = principal("ann");
    nested.claims.insert("act".to_owned(), serde_json::json!({}));
    for refused in [through_agent, workload, nested] {
        assert_eq!(Approver::new(&refused, standing()), Err(Unmoved::NotAHuman));
    }
    assert!(Approver::new(&principal("ann"), standing()).is_ok());
}

#[test]
fn a_quorum_is_of_distinct_humans() {
    let terms = terms(2);
    let twice = vec![(approve("ann"), at(1)), (approve("ann"), at(2))];
    assert_eq!(run(&terms, twice), Err(Unmoved::AlreadyApproved));
    let one = run(&terms, vec![(approve("ann"), at(1))]).unwrap();
    assert_eq!(StateKind::of(&one), StateKind::Pending);
    let two = run(&terms, vec![(approve("ann"), at(1)), (approve("bea"), at(2))]).unwrap();
    assert_eq!(StateKind::of(&two), StateKind::Approved);
}

#[test]
fn every_rule_that_holds_has_to_be_met() {
    let mut terms = terms(1);
    terms.demands.push(Demand { rule: "copies".to_owned(), quorum: 1, escalates_at: None });
    let approve = |by: Approver| Event::Approve { by, scope: WIDEST };
    let one = run(&terms, vec![(approve(owner("ann")), at(1))]).unwrap();
    assert_eq!(StateKind::of(&one), StateKind::Pending);
    let copies = human("cem", &[("copies", FIRST)]);
    let both = run(&terms, vec![(approve(owner("ann")), at(1)), (approve(copies), at(2))]).unwrap();
    assert_eq!(StateKind::of(&both), StateKind::Approved);
    let alone = human("lee", &[("bulk", FIRST), ("copies", FIRST)]);
    let alone = run(&terms, vec![(approve(alone), at(1))]).unwrap();
    assert_eq!(StateKind::of(&alone), StateKind::Approved, "one human may be an approver of both");
    terms.demands.clear();
    assert_eq!(run(&terms, vec![(approve(owner("ann")), at(1))]), Err(Unmoved::NotAnApprover));
}

#[test]
fn the_second_group_decides_once_it_is_due() {
    let terms = terms(1);
    let approve = || Event::Approve { by: human("oz", &[("bulk", SECOND)]), scope: terms.usual() };
    let deny = || Event::Deny { by: human("oz", &[("bulk", SECOND)]), reason: remark("no") };
    assert_eq!(run(&terms, vec![(approve(), at(59))]), Err(Unmoved::TooEarly));
    assert_eq!(run(&terms, vec![(deny(), at(59))]), Err(Unmoved::TooEarly));
    let due = run(&terms, vec![(approve(), at(60))]).unwrap();
    assert_eq!(StateKind::of(&due), StateKind::Approved, "also if nobody has noticed yet that it is");
    let first = run(&terms, vec![(Event::Escalate, at(60)), (super::tests::approve("ann"), at(61))]).unwrap();
    assert_eq!(StateKind::of(&first), StateKind::Approved, "the first group still may");
    let mut never = terms.clone();
    never.demands[0].escalates_at = None;
    assert_eq!(run(&never, vec![(approve(), at(600))]), Err(Unmoved::NotAnApprover));
    assert_eq!(run(&never, vec![(Event::Escalate, at(600))]), Err(Unmoved::TooEarly));
}

#[test]
fn who_becomes_due_for_another_rule_may_approve_that_too() {
    let mut terms = terms(2);
    terms.demands.push(Demand { rule: "copies".to_owned(), quorum: 1, escalates_at: Some(at(60)) });
    let oz = || Event::Approve { by: human("oz", &[("bulk", FIRST), ("copies", SECOND)]), scope: WIDEST };
    assert_eq!(run(&terms, vec![(oz(), at(1)), (oz(), at(59))]), Err(Unmoved::AlreadyApproved));
    let both = run(&terms, vec![(oz(), at(1)), (oz(), at(60))]).unwrap();
    assert_eq!(StateKind::of(&both), StateKind::Pending, "twice one human is one of a quorum of two");
    let third = vec![(oz(), at(1)), (oz(), at(60)), (oz(), at(61))];
    assert_eq!(run(&terms, third), Err(Unmoved::AlreadyApproved));
    let other = run(&terms, vec![(oz(), at(1)), (oz(), at(60)), (approve("ann"), at(61))]).unwrap();
    assert_eq!(StateKind::of(&other), StateKind::Approved);
}

#[test]
fn each_second_group_is_told_once() {
    let mut terms = terms(1);
    terms.demands.push(Demand { rule: "copies".to_owned(), quorum: 1, escalates_at: Some(at(120)) });
    let told = run(&terms, vec![(Event::Escalate, at(60))]).unwrap();
    assert_eq!(step(&terms, &told, Event::Escalate, at(119)), Err(Unmoved::TooEarly));
    let both = step(&terms, &told, Event::Escalate, at(120)).unwrap();
    assert_eq!(both.notice, Some(Notice::SecondGroup));
    assert_eq!(step(&terms, &both.progress, Event::Escalate, at(800)), Err(Unmoved::TooEarly));
}

fn granted_by(progress: &Progress) -> &Granted {
    match &progress.state {
        State::Approved(granted) => granted,
        other => panic!("{}", other.name()),
    }
}

#[test]
fn an_approver_may_narrow_and_not_widen() {
    let terms = terms(1);
    let with = |scope: Scope| run(&terms, vec![(Event::Approve { by: owner("ann"), scope }, at(1))]);
    let usual = terms.usual();
    let ceiling = |rows, bytes| Scope { ceiling: Ceiling { rows, bytes, affected: None }, ..usual };
    for narrow in [ceiling(Some(500), None), ceiling(Some(0), Some(10)), Scope { uses: USES_MAX, ..usual }] {
        assert_eq!(granted_by(&with(narrow).unwrap()).ceiling, narrow.ceiling);
        assert_eq!(granted_by(&with(narrow).unwrap()).uses_left, narrow.uses);
    }
    let longer = Scope { lasts: EXPIRES + Duration::from_millis(1), ..usual };
    let oftener = Scope { uses: USES_MAX + 1, ..usual };
    for wide in [ceiling(Some(501), None), ceiling(None, None), longer, oftener] {
        assert_eq!(with(wide), Err(Unmoved::TooWide));
    }
    for empty in [Scope { uses: 0, ..usual }, Scope { lasts: Duration::ZERO, ..usual }] {
        assert_eq!(with(empty), Err(Unmoved::EmptyScope));
    }
}

#[test]
fn of_several_approvals_the_narrowest_holds() {
    let terms = terms(2);
    let scope = |rows, uses, seconds| Scope {
        ceiling: Ceiling { rows: Some(rows), bytes: None, affected: None },
        uses,
        lasts: Duration::from_secs(seconds),
    };
    let ann = Event::Approve { by: owner("ann"), scope: scope(100, 3, 600) };
    let bea = Event::Approve { by: owner("bea"), scope: scope(400, 2, 60) };
    let both = run(&terms, vec![(ann, at(1)), (bea, at(2))]).unwrap();
    let granted = granted_by(&both);
    assert_eq!((granted.ceiling.rows, granted.uses_left, granted.until), (Some(100), 2, at(62)));
}

#[test]
fn each_use_is_used_once() {
    let terms = terms(1);
    let scope = Scope { uses: 2, ..terms.usual() };
    let twice = Event::Approve { by: owner("ann"), scope };
    let used = |uses: usize| {
        let mut events = vec![(twice.clone(), at(1))];
        events.extend(std::iter::repeat_n((Event::Consume, at(2)), uses));
        run(&terms, events)
    };
    assert_eq!(granted_by(&used(1).unwrap()).uses_left, 1);
    assert_eq!(StateKind::of(&used(2).unwrap()), StateKind::Consumed);
    assert_eq!(used(3), Err(Unmoved::Closed { state: "consumed" }));
}

#[test]
fn broken_glass_is_looked_at_by_somebody_else() {
    let terms = terms(1);
    let alert = step(&terms, &Progress::START, break_glass(), at(1)).unwrap();
    assert_eq!((alert.notice, &alert.progress.review), (Some(Notice::Alert), &Review::Due { since: at(1) }));
    let both = Standing { first: true, break_glass: BreakGlass::Allowed, ..Standing::default() };
    for (by, refused) in [("kim", Unmoved::OwnReview), ("dana", Unmoved::OwnRequest)] {
        let event =
            Event::Review { by: human(by, &[("bulk", both)]), finding: Finding::Justified, remark: remark("fine") };
        assert_eq!(step(&terms, &alert.progress, event, at(2)), Err(refused));
    }
    let used = step(&terms, &alert.progress, Event::Consume, at(2)).unwrap().progress;
    assert!(matches!(used.review, Review::Due { .. }), "the review is owed after the use as before");
    let seen = step(&terms, &used, review("ann"), at(3)).unwrap().progress;
    assert!(matches!(seen.review, Review::Done { .. }));
    assert_eq!(step(&terms, &seen, review("bea"), at(4)), Err(Unmoved::NoReviewDue));
}

#[test]
fn glass_is_broken_only_where_every_rule_lets_this_human() {
    let mut terms = terms(1);
    let event = |by: Approver, reason: Option<&str>| Event::BreakGlass { by, reason: reason.map(remark) };
    let start = |terms: &Terms, event| step(terms, &Progress::START, event, at(1)).map(|_| ());
    assert_eq!(start(&terms, event(owner("ann"), Some("outage"))), Err(Unmoved::NotYoursToBreak));
    assert_eq!(start(&terms, event(breaker("kim"), None)), Err(Unmoved::ReasonMissing));
    assert_eq!(start(&terms, event(breaker("kim"), Some("outage"))), Ok(()));
    assert_eq!(start(&terms, event(breaker("dana"), Some("outage"))), Ok(()), "it is for whoever stands there alone");
    terms.demands.push(Demand { rule: "copies".to_owned(), quorum: 1, escalates_at: None });
    assert_eq!(start(&terms, event(breaker("kim"), Some("outage"))), Err(Unmoved::NotYoursToBreak));
    terms.demands.clear();
    assert_eq!(start(&terms, event(breaker("kim"), Some("outage"))), Err(Unmoved::NotYoursToBreak));
}

#[test]
fn what_an_identical_statement_finds() {
    let terms = terms(1);
    for (state, soon, late) in [
        (StateKind::Pending, Rerun::Waits, Rerun::AsksAnew),
        (StateKind::Escalated, Rerun::Waits, Rerun::AsksAnew),
        (StateKind::Approved, Rerun::Collects, Rerun::AsksAnew),
        (StateKind::Broken, Rerun::Collects, Rerun::AsksAnew),
        (StateKind::Denied, Rerun::Refused, Rerun::AsksAnew),
        (StateKind::Revoked, Rerun::Refused, Rerun::AsksAnew),
        (StateKind::Expired, Rerun::AsksAnew, Rerun::AsksAnew),
        (StateKind::GrantExpired, Rerun::AsksAnew, Rerun::AsksAnew),
        (StateKind::Withdrawn, Rerun::AsksAnew, Rerun::AsksAnew),
        (StateKind::Consumed, Rerun::AsksAnew, Rerun::AsksAnew),
    ] {
        let progress = run(&terms, state.road()).unwrap();
        assert_eq!((progress.rerun(&terms, at(70)), progress.rerun(&terms, at(2000))), (soon, late), "{state:?}");
    }
}

#[test]
fn a_request_is_the_same_after_it_was_kept() {
    for state in StateKind::ALL {
        let progress = run(&terms(1), state.road()).unwrap();
        let kept = serde_json::to_string(&progress).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&kept).unwrap(), progress, "{kept}");
    }
    let kept = serde_json::to_string(&terms(1)).unwrap();
    assert_eq!(serde_json::from_str::<Terms>(&kept).unwrap(), terms(1));
    assert!(serde_json::from_str::<Progress>(r#"{"state":{"pending":{"approvals":[]}}}"#).is_err());
    assert!(serde_json::from_str::<Progress>(r#"{"state":{"done":{}},"review":"not_demanded"}"#).is_err());
}

#[test]
fn remarks_are_bounded() {
    assert_eq!(Remark::try_from(" ".to_owned()), Err(RemarkError::Empty));
    assert_eq!(Remark::try_from("x".repeat(501)), Err(RemarkError::TooLong { bytes: 501 }));
    assert_eq!(Remark::try_from("a\nb".to_owned()), Err(RemarkError::ControlCharacter));
    assert_eq!(remark(&"x".repeat(500)).as_str().len(), 500);
}
