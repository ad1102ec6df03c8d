//! Drift, case by case: what a change of a database leaves sealed, and what accepting it opens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails the test by panicking"
)]

use std::collections::BTreeMap;

use exeat_enforce::drift::{self, Drift, Unclassified};
use exeat_enforce::seal::SealPlan;
use exeat_policy::baseline::Known;
use exeat_policy::{Policy, PolicyContext, Principal, PrincipalKind, UNCLASSIFIED};
use exeat_sql::{CatalogSnapshot, ColumnId, Oid, QUERIES};

const POLICY: &str = "
version: 1
labels: {shop: {ssn: [public.customers.ssn, '*.*.tax_id'], email: [public.customers.email]}}
rules:
  - {id: mask, target: shop, relations: [public.customers], mask: {ssn: {with: partial, last: 4}}}
  - {id: all, target: shop, mask: {email: {with: redact}}}
";

fn policy(text: &str) -> Policy {
    let context =
        PolicyContext { default_issuer: Some("https://idp".to_owned()), targets: Some(vec!["shop".to_owned()]) };
    Policy::load(&[("policy.yaml".to_owned(), text.to_owned())], &context).unwrap_or_else(|faults| panic!("{faults}"))
}

fn principal() -> Principal {
    Principal {
        issuer: "https://idp".to_owned(),
        subject: "a".to_owned(),
        groups: Vec::new(),
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Workload,
        token_id: None,
        instance: BTreeMap::new(),
    }
}

/// One relation a line: OID, schema.name, then its columns as number:name:type, and a parent as ^OID.
fn catalog(text: &str) -> CatalogSnapshot {
    let schemas = [("11", "pg_catalog"), ("2200", "public"), ("2300", "pg_temp_3")];
    let row = |words: &[&str]| words.iter().map(|word| Some((*word).to_owned())).collect::<Vec<_>>();
    let (mut relations, mut columns, mut parents) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let oid = words.next().unwrap();
        let (schema, name) = words.next().unwrap().split_once('.').unwrap();
        let schema = schemas.iter().find(|(_, known)| *known == schema).unwrap().0;
        relations.push(row(&[oid, schema, name, "r", "f"]));
        for column in words {
            if let Some(parent) = column.strip_prefix('^') {
                parents.push(row(&[oid, parent]));
                continue;
            }
            let [number, name, kind] = column.split(':').collect::<Vec<_>>()[..] else { panic!("{column}") };
            columns.push(row(&[oid, number, name, kind, "-1"]));
        }
    }
    let results: Vec<Vec<Vec<Option<String>>>> = QUERIES
        .iter()
        .map(|query| match query.name {
            "database" => vec![row(&["5", "shop", "UTF8", "150018", "63"])],
            "schemas" => schemas.iter().map(|(oid, name)| row(&[oid, name])).collect(),
            "relations" => relations.clone(),
            "columns" => columns.clone(),
            "inheritance" => parents.clone(),
            _ => Vec::new(),
        })
        .collect();
    CatalogSnapshot::build(1, &results).unwrap()
}

const BEFORE: &str = "
    20001 public.customers 1:id:23 2:ssn:25 3:email:25 4:city:25
    20002 public.orders 1:id:23 2:note:25";

fn before() -> (Policy, Known) {
    let policy = policy(POLICY);
    let known = drift::observe(policy.labels("shop"), &catalog(BEFORE));
    (policy, known)
}

fn examine(now: &str, unclassified: Unclassified) -> Drift {
    let (policy, known) = before();
    drift::examine(policy.labels("shop"), &catalog(now), &known, unclassified)
}

fn findings(drift: &Drift) -> Vec<String> {
    drift.findings().map(ToString::to_string).filter(|text| !text.contains("*.*.tax_id")).collect()
}

/// What is sealed, `relation.attribute label mask`, in order.
fn sealed(policy: &Policy, now: &str, drift: &Drift) -> Vec<String> {
    let snapshot = catalog(now);
    let plan = SealPlan::compute(policy, &principal(), "shop", &snapshot, drift);
    let mut relations: Vec<_> = snapshot.relations().collect();
    relations.sort_by_key(|relation| relation.oid);
    let mut found = Vec::new();
    for relation in relations {
        for column in &relation.columns {
            let id = ColumnId { relation: relation.oid, attribute: column.attribute };
            if let Some(mask) = plan.column(id) {
                let kind = mask.mask.name();
                found.push(format!("{}.{} {} {kind}", relation.oid.0, column.name, mask.label));
            }
        }
    }
    found
}

fn check(now: &str, unclassified: Unclassified, expected_sealed: &[&str], expected_findings: &[&str]) {
    let drift = examine(now, unclassified);
    assert_eq!(sealed(&before().0, now, &drift), expected_sealed, "{now}");
    assert_eq!(findings(&drift), expected_findings, "{now}");
}

#[test]
fn what_was_accepted_and_is_unchanged_is_sealed_by_label_alone() {
    check(BEFORE, Unclassified::Seal, &["20001.ssn ssn partial", "20001.email email redact"], &[]);
}

#[test]
fn a_rename_keeps_the_label_and_the_rule_that_named_the_relation() {
    check(
        "20001 public.customers 1:id:23 2:x:25 3:email:25 4:city:25
         20002 public.orders 1:id:23 2:note:25",
        Unclassified::Seal,
        &["20001.x ssn partial", "20001.email email redact"],
        &[
            "public.customers.ssn is now public.customers.x and keeps label ssn; name it in the policy",
            "label ssn: no column matches public.customers.ssn",
        ],
    );
    // The rule masks in `public.customers` only, and the relation has left that name.
    check(
        "20001 public.people 1:id:23 2:ssn:25 3:email:25 4:city:25
         20002 public.orders 1:id:23 2:note:25",
        Unclassified::Allow,
        &["20001.ssn ssn partial", "20001.email email redact"],
        &[
            "public.customers.email is now public.people.email and keeps label email; name it in the policy",
            "public.customers.ssn is now public.people.ssn and keeps label ssn; name it in the policy",
            "label email: no column matches public.customers.email",
            "label ssn: no column matches public.customers.ssn",
        ],
    );
}

#[test]
fn a_new_column_is_sealed_on_a_labelled_relation_and_nowhere_else() {
    for unclassified in [Unclassified::Seal, Unclassified::Detect, Unclassified::Allow] {
        check(
            "20001 public.customers 1:id:23 2:ssn:25 3:email:25 4:town:25 5:phone:25
             20002 public.orders 1:id:23 2:note:25 3:more:25",
            unclassified,
            &["20001.ssn ssn partial", "20001.email email redact", "20001.phone unclassified redact"],
            &["column public.customers.phone is not accepted yet, sealed"],
        );
        check(
            "20001 public.customers 1:id:23 2:ssn:25 3:email:25 4:city:17
             20002 public.orders 1:id:23 2:note:25",
            unclassified,
            &["20001.ssn ssn partial", "20001.email email redact", "20001.city unclassified redact"],
            &["column public.customers.city is not accepted yet, sealed"],
        );
    }
}

#[test]
fn a_relation_outside_the_baseline_is_sealed_unless_the_target_lets_it_through() {
    let now = "
        20001 public.customers 1:id:23 2:ssn:25 3:email:25 4:city:25
        20003 public.copy 1:a:23 2:tax_id:25
        20004 pg_temp_3.mine 1:a:23";
    check(
        now,
        Unclassified::Seal,
        &[
            "20001.ssn ssn partial",
            "20001.email email redact",
            "20003.a unclassified redact",
            "20004.a unclassified redact",
        ],
        &["relation public.copy is not accepted yet, sealed"],
    );
    for unclassified in [Unclassified::Allow, Unclassified::Detect] {
        check(
            now,
            unclassified,
            &["20001.ssn ssn partial", "20001.email email redact"],
            &["relation public.copy is not accepted yet, not sealed"],
        );
    }
}

/// Dropped and made anew: the labels' names still find their columns, and nothing else is known.
#[test]
fn a_database_made_anew_is_sealed_until_it_is_accepted() {
    let now = "
        30001 public.customers 1:id:23 2:ssn:25 3:email:25 4:city:25 5:phone:25
        30002 public.orders 1:id:23 2:note:25";
    let gone =
        ["public.customers.email, bound to label email, is gone", "public.customers.ssn, bound to label ssn, is gone"];
    let new =
        |state| ["customers", "orders"].map(|name| format!("relation public.{name} is not accepted yet, {state}"));
    let expected: Vec<String> = new("sealed").into_iter().chain(gone.map(str::to_owned)).collect();
    check(
        now,
        Unclassified::Seal,
        &[
            "30001.id unclassified redact",
            "30001.ssn ssn partial",
            "30001.email email redact",
            "30001.city unclassified redact",
            "30001.phone unclassified redact",
            "30002.id unclassified redact",
            "30002.note unclassified redact",
        ],
        &expected.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    // Where whole relations are let through, a column that its namesake did not have is still new.
    let drift = examine(now, Unclassified::Allow);
    let expected = ["30001.ssn ssn partial", "30001.email email redact", "30001.phone unclassified redact"];
    assert_eq!(sealed(&before().0, now, &drift), expected);

    let (policy, known) = before();
    let accepted = drift::accepted(policy.labels("shop"), &catalog(now), &known);
    let drift = drift::examine(policy.labels("shop"), &catalog(now), &accepted, Unclassified::Seal);
    assert_eq!(sealed(&policy, now, &drift), ["30001.ssn ssn partial", "30001.email email redact"]);
    assert_eq!(findings(&drift), Vec::<String>::new());
}

/// A cluster restored from a dump counts OIDs anew.
#[test]
fn an_oid_that_means_another_relation_accepts_nothing() {
    let drift = examine(
        "20002 public.customers 1:id:23 2:ssn:25 3:email:25 4:city:25
         20001 public.invoices 1:id:23 2:note:25 3:more:25",
        Unclassified::Seal,
    );
    for (relation, attribute) in [(20002, 1), (20002, 4), (20001, 1)] {
        let id = ColumnId { relation: Oid(relation), attribute };
        assert!(drift.is_unclassified(id), "{relation} {attribute}");
    }
    assert!(!drift.is_unclassified(ColumnId { relation: Oid(20002), attribute: 2 }), "labelled by name");
}

#[test]
fn a_column_that_takes_the_place_of_a_bound_one_is_sealed() {
    // The label followed a rename by hand: it is bound to `x`, and the policy does not name `x`.
    let (policy, mut known) = before();
    for binding in known.bindings.iter_mut().filter(|binding| binding.label == "ssn") {
        binding.column_name = "x".to_owned();
    }
    let now = "
        20001 public.old 1:id:23 2:x:25 3:email:25 4:city:25
        30001 public.customers 1:id:23 2:x:25 3:city:25";
    let drift = drift::examine(policy.labels("shop"), &catalog(now), &known, Unclassified::Allow);
    assert!(drift.is_unclassified(ColumnId { relation: Oid(30001), attribute: 2 }));
    assert!(
        !drift.is_unclassified(ColumnId { relation: Oid(30001), attribute: 3 }),
        "let through as a namesake has it"
    );
    assert!(findings(&drift).iter().any(|text| text.starts_with("public.customers.x is another column")));
}

#[test]
fn accepting_keeps_a_label_with_a_renamed_column_until_the_policy_gives_its_name_up() {
    let (policy, known) = before();
    let now = "
        20001 public.customers 1:id:23 2:x:25 3:email:25 4:city:25 5:phone:25
        20002 public.orders 1:id:23 2:note:25";
    let mut known = known;
    for round in 0..3 {
        known = drift::accepted(policy.labels("shop"), &catalog(now), &known);
        let drift = drift::examine(policy.labels("shop"), &catalog(now), &known, Unclassified::Seal);
        assert_eq!(sealed(&policy, now, &drift), ["20001.x ssn partial", "20001.email email redact"], "round {round}");
    }
    let without = self::policy(&POLICY.replace("public.customers.ssn, ", ""));
    let drift = drift::examine(without.labels("shop"), &catalog(now), &known, Unclassified::Seal);
    assert_eq!(sealed(&without, now, &drift), ["20001.x ssn partial", "20001.email email redact"], "not accepted yet");
    known = drift::accepted(without.labels("shop"), &catalog(now), &known);
    let drift = drift::examine(without.labels("shop"), &catalog(now), &known, Unclassified::Seal);
    assert_eq!(sealed(&without, now, &drift), ["20001.email email redact"]);
}

#[test]
fn a_label_that_is_new_in_the_policy_is_bound_without_accepting_anything() {
    let (_, known) = before();
    let more = policy(
        &POLICY
            .replace("email: [", "note: [public.orders.note], email: [")
            .replace("mask: {ssn", "mask: {note: {with: nullify}, ssn")
            .replace("relations: [public.customers], ", ""),
    );
    let unbound = drift::unbound(more.labels("shop"), &catalog(BEFORE), &known);
    let found: Vec<_> = unbound.iter().map(|binding| (binding.label.as_str(), binding.column_name.as_str())).collect();
    assert_eq!(found, [("note", "note")]);
    assert_eq!(drift::unbound(before().0.labels("shop"), &catalog(BEFORE), &known), []);
}

#[test]
fn a_rule_may_name_unclassified_and_only_make_it_stricter() {
    let now = format!("{BEFORE}\n20003 public.copy 1:a:23");
    let drift = examine(&now, Unclassified::Seal);
    for (with, expected) in [("{with: nullify}", "nullify"), ("{with: partial, last: 4}", "redact")] {
        let text = POLICY.replace("mask: {email", &format!("mask: {{{UNCLASSIFIED}: {with}, email"));
        let last = sealed(&policy(&text), &now, &drift).pop().unwrap();
        assert_eq!(last, format!("20003.a {UNCLASSIFIED} {expected}"));
    }
}

#[test]
fn nothing_is_found_where_no_label_matches() {
    let (policy, _) = before();
    assert_eq!(drift::observe(policy.labels("shop"), &catalog("20002 public.orders 1:id:23")).bindings, []);
    assert_eq!(drift::observe(policy.labels("shop"), &catalog("")), Known::default());
}

#[test]
fn a_new_child_is_what_its_accepted_parents_are_and_seals_none_of_them() {
    let changed = |lines: &str| format!("{BEFORE}\n{lines}");
    // Of labelled and unlabelled parents alike; what the parent does not have is the child's own.
    check(
        &changed("20003 public.customers_2027 1:id:23 2:ssn:25 3:email:25 4:city:25 5:extra:25 ^20001"),
        Unclassified::Seal,
        &[
            "20001.ssn ssn partial",
            "20001.email email redact",
            "20003.ssn ssn partial",
            "20003.email email redact",
            "20003.extra unclassified redact",
        ],
        &["relation public.customers_2027 is not accepted yet, sealed"],
    );
    check(
        &changed("20003 public.orders_2027 1:id:23 2:note:25 ^20002\n20004 public.orders_may 1:id:23 2:note:25 ^20003"),
        Unclassified::Seal,
        &["20001.ssn ssn partial", "20001.email email redact"],
        &[
            "relation public.orders_2027 is not accepted yet, not sealed",
            "relation public.orders_may is not accepted yet, not sealed",
        ],
    );
    // A parent that nobody accepted vouches for nothing.
    check(
        &changed("20003 public.base 1:id:23\n20004 public.kid 1:id:23 ^20003"),
        Unclassified::Seal,
        &[
            "20001.ssn ssn partial",
            "20001.email email redact",
            "20003.id unclassified redact",
            "20004.id unclassified redact",
        ],
        &["relation public.base is not accepted yet, sealed", "relation public.kid is not accepted yet, sealed"],
    );
}

#[test]
fn what_is_unclassified_of_a_parent_is_of_its_children_and_not_the_other_way_beside_it() {
    // `more` is new on the labelled parent, and so it is for the child; `extra` of one child is not that of another.
    let now = "20001 public.customers 1:id:23 2:ssn:25 3:email:25 4:city:25 5:more:25
         20002 public.orders 1:id:23 2:note:25
         20003 public.one 1:id:23 2:ssn:25 3:email:25 4:city:25 5:more:25 6:extra:25 ^20001
         20004 public.two 1:id:23 2:ssn:25 3:email:25 4:city:25 5:more:25 6:extra:25 ^20001";
    let (policy, mut known) = before();
    let accepted = drift::observe(policy.labels("shop"), &catalog(now));
    known.baseline.extend(accepted.baseline.into_iter().filter(|relation| relation.name == "two"));
    let drift = drift::examine(policy.labels("shop"), &catalog(now), &known, Unclassified::Seal);
    let sealed = sealed(&policy, now, &drift);
    let unclassified: Vec<&String> = sealed.iter().filter(|line| line.contains(" unclassified ")).collect();
    assert_eq!(
        unclassified,
        [
            "20001.more unclassified redact",
            "20003.more unclassified redact",
            "20003.extra unclassified redact",
            "20004.more unclassified redact"
        ]
    );
}

#[test]
fn detect_seals_no_new_relation_and_looks_at_all_of_it() {
    let now =
        format!("{BEFORE}\n20003 public.fresh 1:id:23 2:note:25\n20004 public.orders_may 2:note:25 3:own:25 ^20002");
    let drift = examine(&now, Unclassified::Detect);
    let policy = before().0;
    assert_eq!(sealed(&policy, &now, &drift), ["20001.ssn ssn partial", "20001.email email redact"]);
    let snapshot = catalog(&now);
    let plan = SealPlan::compute(&policy, &principal(), "shop", &snapshot, &drift);
    let watched = |relation, attribute| plan.watches([ColumnId { relation: Oid(relation), attribute }].iter());
    assert!(watched(20003, 2) && watched(20004, 3), "what nobody has accepted");
    assert!(!watched(20002, 2) && !watched(20004, 2) && !watched(20001, 4), "what was, and what it vouches for");
    // Made anew under the name of one that was accepted: what is new in it is sealed all the same.
    let anew = "20009 public.customers 1:id:23 2:ssn:25 3:email:25 4:city:25 5:more:25";
    let drift = examine(anew, Unclassified::Detect);
    assert!(sealed(&policy, anew, &drift).contains(&"20009.more unclassified redact".to_owned()));
}
