//! A grant covers what was approved and nothing that differs from it in any field.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use exeat_policy::approval::{
    Approver, BreakGlass, Ceiling, Demand, Event, Progress, Remark, Scope, Standing, Terms, step,
};
use exeat_policy::grant::{Ask, Digest, Drift, Grant};
use exeat_policy::{Asker, Moment, Person, Principal, PrincipalKind};

/// What differs, and how to make it so.
type Change = (Drift, Box<dyn Fn(&mut Ask)>);

const START: Moment = Moment::from_unix_millis(0);
const LASTS: Duration = Duration::from_mins(15);

fn ask() -> Ask {
    let person = Person { issuer: "https://idp".to_owned(), subject: "dana".to_owned() };
    Ask {
        asker: Asker { human: person, actor: Some("agent-7".to_owned()) },
        target: "shop".to_owned(),
        database: "shop".to_owned(),
        role: "reader".to_owned(),
        statement: Digest::new([1; 32]),
        parameters: Digest::new([2; 32]),
        objects: Digest::new([3; 32]),
        masks: Digest::new([4; 32]),
        policy: Digest::new([5; 32]),
    }
}

fn terms() -> Terms {
    let ceiling = Ceiling { rows: Some(1000), bytes: None, affected: None };
    Terms {
        asker: ask().asker,
        demands: vec![Demand { rule: "bulk".to_owned(), quorum: 1, escalates_at: None }],
        asked_at: START,
        decide_by: START.after(LASTS),
        widest: Scope { ceiling, uses: 3, lasts: LASTS },
    }
}

fn approver() -> Approver {
    let principal = Principal {
        issuer: "https://idp".to_owned(),
        subject: "ann".to_owned(),
        groups: Vec::new(),
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Human,
        token_id: None,
        instance: BTreeMap::new(),
    };
    let standing = Standing { first: true, second: false, break_glass: BreakGlass::Allowed };
    Approver::new(&principal, BTreeMap::from([("bulk".to_owned(), standing)])).unwrap()
}

fn after(events: Vec<Event>) -> Progress {
    events
        .into_iter()
        .fold(Progress::START, |progress, event| step(&terms(), &progress, event, START).unwrap().progress)
}

fn approve() -> Event {
    Event::Approve { by: approver(), scope: terms().widest }
}

fn grant() -> Grant {
    Grant::of(&terms(), &after(vec![approve()]), ask()).unwrap()
}

#[test]
fn any_drift_is_a_new_request() {
    let other = Digest::new([9; 32]);
    let changes: Vec<Change> = vec![
        (Drift::Human, Box::new(|ask| ask.asker.human.subject.push('x'))),
        (Drift::Human, Box::new(|ask| ask.asker.human.issuer.push('x'))),
        (Drift::Actor, Box::new(|ask| ask.asker.actor = None)),
        (Drift::Actor, Box::new(|ask| ask.asker.actor = Some(String::new()))),
        (Drift::Target, Box::new(|ask| ask.target.push('x'))),
        (Drift::Database, Box::new(|ask| ask.database.push('x'))),
        (Drift::Role, Box::new(|ask| ask.role.push('x'))),
        (Drift::Statement, Box::new(move |ask| ask.statement = other)),
        (Drift::Parameters, Box::new(move |ask| ask.parameters = other)),
        (Drift::Objects, Box::new(move |ask| ask.objects = other)),
        (Drift::Masks, Box::new(move |ask| ask.masks = other)),
        (Drift::Policy, Box::new(move |ask| ask.policy = other)),
    ];
    assert_eq!(grant().covers(&ask(), START).map(|covered| covered.ceiling().rows), Ok(Some(1000)));
    let mut encodings = BTreeSet::from([ask().encoded()]);
    let mut seen = BTreeSet::new();
    for (drift, change) in &changes {
        let mut changed = ask();
        change(&mut changed);
        assert_eq!(grant().covers(&changed, START).map(|_| ()), Err(*drift));
        assert!(encodings.insert(changed.encoded()), "{drift:?} is not in what a store finds it by");
        seen.insert(*drift);
    }
    assert_eq!(encodings.len(), changes.len() + 1);
    let unseen = |drift: Drift| match drift {
        Drift::Expired | Drift::UsedUp => false,
        Drift::Human | Drift::Actor | Drift::Target | Drift::Database | Drift::Role => !seen.contains(&drift),
        Drift::Statement | Drift::Parameters | Drift::Objects | Drift::Masks | Drift::Policy => !seen.contains(&drift),
    };
    assert!(!Drift::ALL.iter().copied().any(unseen));
}

#[test]
fn no_two_asks_are_the_same_bytes() {
    let mut one = ask();
    let mut other = ask();
    (one.target, one.database) = ("ab".to_owned(), "c".to_owned());
    (other.target, other.database) = ("a".to_owned(), "bc".to_owned());
    assert_ne!(one.encoded(), other.encoded());
    let mut nobody = ask();
    let mut empty = ask();
    (nobody.asker.actor, empty.asker.actor) = (None, Some(String::new()));
    assert_ne!(nobody.encoded(), empty.encoded());
}

#[test]
fn a_grant_ends_with_its_time_and_its_uses() {
    let last = START.after(LASTS);
    assert_eq!(grant().covers(&ask(), last).map(|_| ()), Err(Drift::Expired));
    assert!(grant().covers(&ask(), Moment::from_unix_millis(last.unix_millis() - 1)).is_ok());
    let used = |uses: usize| {
        let events = std::iter::once(approve()).chain(std::iter::repeat_n(Event::Consume, uses)).collect();
        Grant::of(&terms(), &after(events), ask())
    };
    assert_eq!(used(2).map(|grant| grant.uses_left()), Some(1));
    assert_eq!(used(3), None);
}

#[test]
fn only_what_was_approved_leaves_a_grant() {
    let remark = || Remark::try_from("no".to_owned()).unwrap();
    let nothing = [
        vec![],
        vec![Event::Deny { by: approver(), reason: remark() }],
        vec![Event::Withdraw],
        vec![approve(), Event::Revoke { by: approver(), reason: remark() }],
    ];
    for events in nothing {
        assert_eq!(Grant::of(&terms(), &after(events), ask()), None);
    }
    let broken = Grant::of(&terms(), &after(vec![Event::BreakGlass { by: approver(), reason: None }]), ask());
    assert_eq!(broken.map(|grant| grant.uses_left()), Some(1));
    let mut elses = ask();
    elses.asker.actor = None;
    assert_eq!(Grant::of(&terms(), &after(vec![approve()]), elses), None, "another asker's request grants nothing");
}

#[test]
fn a_grant_lifts_the_rules_whose_approvers_agreed() {
    let covered = grant().covers(&ask(), START).unwrap();
    assert!(covered.lifts("bulk"));
    assert!(!covered.lifts("copies"));
}

#[test]
fn digests_are_read_as_they_are_written() {
    let digest = Digest::new(std::array::from_fn(|index| u8::try_from(index * 7).unwrap()));
    assert_eq!(Digest::try_from(digest.to_string()), Ok(digest));
    for wrong in ["", "00", &"0".repeat(63), &"0".repeat(65), &"G0".repeat(32), &"AA".repeat(32), &"é".repeat(32)] {
        assert!(Digest::try_from(wrong.to_owned()).is_err(), "{wrong}");
    }
}
