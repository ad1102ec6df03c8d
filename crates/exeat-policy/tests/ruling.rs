//! Rulings over a small space, enumerated: the order of rules changes nothing, and a rule that restricts never loosens.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use exeat_policy::ruling::{Copied, Measure, ReadShape, Touch, Verdict, WriteShape};
use exeat_policy::{
    Access, AccessRequest, Capability, Policy, PolicyContext, Principal, PrincipalKind, RelationName, Ruling,
    StatementFacts, StatementKind,
};

const ISSUER: &str = "https://idp.example.com";

const HEAD: &str = "version: 1\nlabels:\n  shop: {ssn: [\"public.customers.ssn\"]}\nrules:\n";

const RESTRICTING: [&str; 8] = [
    "  - {id: a, target: shop, hold: {rows: 100, approvers: {groups: [x]}}}\n",
    "  - {id: b, target: shop, hold: {rows: 10, bytes: 1KiB, approvers: {groups: [y]}}}\n",
    "  - {id: c, target: shop, statements: [copy_out], hold: {approvers: {groups: [x]}}}\n",
    "  - {id: d, target: shop, unbounded: hold, hold: {rows: 50, approvers: {groups: [x]}}}\n",
    "  - {id: e, target: shop, unbounded: deny}\n",
    "  - {id: f, deny: true, target: shop, relations: [\"hr.*\"]}\n",
    "  - {id: g, who: {groups: [agents]}, limit: {rows: 30}}\n",
    "  - {id: h, target: shop, limit: {bytes: 1MiB, cells: 9}}\n",
];

fn principal() -> Principal {
    Principal {
        issuer: ISSUER.to_owned(),
        subject: "agent-7".to_owned(),
        groups: vec!["agents".to_owned()],
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Human,
        token_id: None,
        instance: BTreeMap::new(),
    }
}

fn load(rules: &[&str]) -> Policy {
    let allow = "  - {id: all, target: shop, allow: [all], mask: {ssn: {with: redact}}}\n";
    let text = format!("{HEAD}{allow}{}", rules.concat());
    let context = PolicyContext { default_issuer: Some(ISSUER.to_owned()), targets: None };
    Policy::load(&[("p.yaml".to_owned(), text)], &context).unwrap_or_else(|diags| panic!("{diags}"))
}

fn statements() -> Vec<(Vec<Access>, StatementFacts)> {
    let mut statements = Vec::new();
    let reads = [ReadShape::Nothing, ReadShape::Restricted, ReadShape::Unbounded { limit: None }];
    for read in reads.into_iter().chain([10, 60, 1000].map(|limit| ReadShape::Unbounded { limit: Some(limit) })) {
        for kind in [StatementKind::Select, StatementKind::CopyOut] {
            for (schema, is_labelled) in [("public", true), ("public", false), ("hr", false)] {
                let relation = RelationName { schema: schema.to_owned(), name: "customers".to_owned() };
                let access = Access { capability: Capability::Read, relation: Some(relation.clone()) };
                let write = WriteShape::Nothing;
                for copied in [Copied::No, Copied::AtMost(20), Copied::Unknown] {
                    let relation = relation.clone();
                    let touch = Touch { relation, is_labelled, read, write, copied, takes_star: false };
                    statements.push((vec![access.clone()], StatementFacts { kind, touches: vec![touch] }));
                }
            }
        }
    }
    let call = Access { capability: Capability::Call, relation: None };
    statements.push((vec![call], StatementFacts { kind: StatementKind::Call, touches: Vec::new() }));
    statements
}

fn rulings(policy: &Policy) -> Vec<Ruling> {
    let principal = principal();
    let ask = |(accesses, facts): (Vec<Access>, StatementFacts)| {
        let request = AccessRequest { principal: &principal, target: "shop", accesses, presets: Vec::new() };
        policy.rule_on(&request, &facts, None)
    };
    statements().into_iter().map(ask).collect()
}

fn rank(ruling: &Ruling) -> u8 {
    match ruling.verdict {
        Verdict::Permit => 0,
        Verdict::Hold(_) => 1,
        Verdict::Deny(_) => 2,
    }
}

/// What has to be the same whatever the order: everything but the order of causes and reasons.
fn essence(ruling: &Ruling) -> (u8, BTreeSet<String>, String) {
    let causes = match &ruling.verdict {
        Verdict::Permit => &Vec::new(),
        Verdict::Hold(causes) | Verdict::Deny(causes) => causes,
    };
    (rank(ruling), causes.iter().map(|cause| format!("{cause:?}")).collect(), format!("{:?}", ruling.duties))
}

#[test]
fn the_order_of_rules_changes_nothing() {
    let forwards = rulings(&load(&RESTRICTING));
    for first in 0..RESTRICTING.len() {
        let mut rules = RESTRICTING;
        rules.rotate_left(first);
        for reverse in [false, true] {
            if reverse {
                rules.reverse();
            }
            for (found, expected) in rulings(&load(&rules)).iter().zip(&forwards) {
                assert_eq!(essence(found), essence(expected), "{rules:?}");
            }
        }
    }
    let seen: BTreeSet<u8> = forwards.iter().map(rank).collect();
    assert_eq!(seen, BTreeSet::from([0, 1, 2]), "the space has all three verdicts");
}

#[test]
fn a_rule_that_restricts_never_loosens() {
    let smallest = |ruling: &Ruling| -> u64 {
        let thresholds = ruling.duties.iter().filter_map(|duty| duty.threshold(Measure::Rows));
        thresholds.map(|threshold| threshold.amount).min().unwrap_or(u64::MAX)
    };
    for chosen in 0_u32..1 << RESTRICTING.len() {
        let rules: Vec<&str> =
            (0..).zip(RESTRICTING).filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, r)| r).collect();
        let before = rulings(&load(&rules));
        for rule in RESTRICTING.iter().filter(|rule| !rules.contains(rule)) {
            let more: Vec<&str> = rules.iter().copied().chain([*rule]).collect();
            for (after, before) in rulings(&load(&more)).iter().zip(&before) {
                // A smaller threshold makes more LIMITs unbounded, so no verdict may fall by it either.
                assert!(rank(after) >= rank(before), "{rule} after {rules:?}: {before:?} became {after:?}");
                assert!(smallest(after) <= smallest(before), "{rule} after {rules:?}");
            }
        }
    }
}

#[test]
fn a_session_that_anything_counts_or_holds_is_not_passed_through() {
    let context = PolicyContext { default_issuer: Some(ISSUER.to_owned()), targets: None };
    let load = |rules: &str| {
        let text = format!("{HEAD}  - {{id: all, target: shop, allow: [all]}}\n{rules}");
        Policy::load(&[("p.yaml".to_owned(), text)], &context).unwrap_or_else(|diags| panic!("{diags}"))
    };
    assert!(load("").unrestricted(&principal(), "shop"));
    for rule in RESTRICTING {
        assert!(!load(rule).unrestricted(&principal(), "shop"), "{rule}");
    }
    assert!(load("  - {id: o, who: {groups: [others]}, limit: {rows: 1}}\n").unrestricted(&principal(), "shop"));
    assert!(load("  - {id: o, limit: {probes: 1}}\n").unrestricted(&principal(), "shop"), "nothing is sealed");
}

#[test]
fn who_decides_is_said_in_words_and_nobody_for_a_rule_that_holds_nothing() {
    let rule = "  - {id: a, target: shop, hold: {rows: 1, approvers: {groups: [x, y], kind: human, except: {subjects: \
                [ann]}}, escalate: {after: 60s, to: {claims: {team: ops}}}, break_glass: {who: {subjects: [boss]}}}}\n";
    let policy = load(&[rule, RESTRICTING[4]]);
    let found = policy.deciders("a").unwrap();
    assert_eq!(found.approvers, "groups x, y; kind human; except subjects ann");
    assert_eq!(found.escalates_to.as_deref(), Some("claim team = \"ops\""));
    assert_eq!(found.break_glass.as_deref(), Some("subjects boss"));
    assert_eq!(policy.deciders("e"), None);
    assert_eq!(policy.deciders("gone"), None);
}
