//! What the operator vouches for by name passes, for as long as the name stands for the definition it was trusted with;
//! and nothing beside it does.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use exeat_enforce::evaluate::{Evaluation, evaluate};
use exeat_enforce::plan::Outputs;
use exeat_sql::CatalogSnapshot;
use exeat_sql::catalog::{Pins, QualifiedName, Trust, TrustedFunction};

const POLICY: &str = "version: 1
labels:
  shop:
    ssn: ['public.customers.ssn', 'public.vouched.ssn', 'public.guarded_by_ssn.ssn']
rules:
  - {id: agents, target: shop, allow: [read, insert, update]}
  - {id: mask, target: shop, mask: {ssn: {with: redact}}}
";

fn names<const N: usize>(texts: [&str; N], parts: usize) -> Vec<QualifiedName> {
    texts.map(|text| QualifiedName::parse(text, parts).unwrap()).to_vec()
}

fn trusting(trust: &Trust) -> CatalogSnapshot {
    support::on_parser_stack(|| support::shop_trusting(trust, &Pins::default(), |text| text))
}

/// The masks of the outputs, or the words of the refusal.
fn outcome(snapshot: CatalogSnapshot, sql: &str) -> Result<Vec<bool>, String> {
    let snapshot = Arc::new(snapshot);
    let policy = support::policy(POLICY);
    let session = support::session(&snapshot, &policy, support::principal("a"));
    let analysis = support::on_parser_stack(|| support::analyse(sql, &snapshot)).unwrap();
    match evaluate(&session, &policy, sql, &analysis) {
        Evaluation::Permit(permit) => Ok(match &permit.plans[0].outputs {
            Outputs::Columns(columns) => columns.iter().map(|column| column.mask.is_some()).collect(),
            Outputs::None | Outputs::Unchecked | Outputs::ByOrigin | Outputs::FunctionResult | Outputs::Copied(_) => {
                Vec::new()
            }
        }),
        Evaluation::Refuse { refusal, .. } => Err(refusal.reason),
        other => panic!("{other:?}"),
    }
}

/// Refused without trust, and with it what is said.
fn opens(trust: &Trust, sql: &str, masks: &[bool]) {
    assert!(outcome(support::shop(), sql).is_err(), "{sql} passes by itself");
    assert_eq!(outcome(trusting(trust), sql).as_deref(), Ok(masks), "{sql}");
}

fn stays_refused(trust: &Trust, sql: &str) {
    assert!(outcome(trusting(trust), sql).is_err(), "{sql}");
}

#[test]
fn a_trusted_function_may_be_called_over_what_is_not_sealed() {
    let trust = Trust { functions: vec![TrustedFunction::parse("hr.slug(text)").unwrap()], ..Trust::default() };
    opens(&trust, "select hr.slug(city) from customers", &[false]);
    opens(&trust, "select slug from hr.slugs", &[false]);
    // Nobody says that it cannot fail.
    stays_refused(&trust, "select hr.slug(ssn) from customers");
    stays_refused(&trust, "select hr.unread(1)");
    let another = Trust { functions: vec![TrustedFunction::parse("hr.slug(integer)").unwrap()], ..Trust::default() };
    stays_refused(&another, "select hr.slug(city) from customers");
}

#[test]
fn a_trusted_view_may_choose_its_rows_by_sealed_columns_and_its_columns_stay_masked() {
    let trust = Trust { views: names(["hr.stats"], 2), ..Trust::default() };
    opens(&trust, "select city, n, first from hr.stats", &[false, false, true]);
    stays_refused(&trust, "select n from hr.stats where first = 'x'");
    stays_refused(&trust, "select id from hr.slugs");
}

#[test]
fn provenance_stops_at_a_declassified_column() {
    let trust = Trust { views: names(["hr.stats"], 2), declassify: names(["hr.stats.first"], 3), ..Trust::default() };
    opens(&trust, "select first from hr.stats where first <> 'x'", &[false]);
    // By itself it opens no view that a sealed column chooses the rows of.
    stays_refused(&Trust { declassify: names(["hr.stats.*"], 3), ..Trust::default() }, "select n from hr.stats");
    let opaque = Trust { views: names(["hr.slugs"], 2), ..Trust::default() };
    stays_refused(&opaque, "select slug from hr.slugs");
    opens(&Trust { declassify: names(["hr.slugs.*"], 3), ..opaque }, "select slug from hr.slugs", &[false]);
}

#[test]
fn a_write_may_run_a_trusted_trigger() {
    let trust = Trust { triggers: names(["public.vouched.audit"], 3), ..Trust::default() };
    opens(&trust, "insert into vouched (id, body) values (1, 'x') returning id, ssn", &[false, true]);
    opens(&trust, "update vouched set body = 'x' where id = 1", &[]);
    stays_refused(
        &Trust { triggers: names(["public.vouched.other"], 3), ..Trust::default() },
        "update vouched set body = 'x' where id = 1",
    );
}

#[test]
fn a_trusted_policy_may_choose_rows_by_sealed_columns() {
    let trust = Trust { policies: names(["public.guarded_by_ssn.by_ssn"], 3), ..Trust::default() };
    opens(&trust, "select id, ssn from guarded_by_ssn", &[false, true]);
    opens(&trust, "select id from over_guarded", &[false]);
    stays_refused(&trust, "select id from guarded_by_other");
    stays_refused(&trust, "select id from guarded_by_code");
    let code = Trust { policies: names(["public.guarded_by_code.by_code"], 3), ..Trust::default() };
    opens(&code, "select id from guarded_by_code", &[false]);
    assert_eq!(outcome(support::shop(), "select id from guarded"), Ok(vec![false]));
}

#[test]
fn another_definition_under_the_name_is_not_trusted_and_is_shown() {
    let trust = Trust {
        functions: vec![TrustedFunction::parse("hr.slug(text)").unwrap()],
        views: names(["hr.stats", "hr.gone"], 2),
        triggers: names(["public.vouched.audit"], 3),
        ..Trust::default()
    };
    let first = trusting(&trust);
    let pins = first.pins().clone();
    assert_eq!(
        first.untrusted().map(ToString::to_string).collect::<Vec<_>>(),
        ["view hr.gone is trusted and does not exist"]
    );
    let same = support::on_parser_stack(|| support::shop_trusting(&trust, &pins, |text| text));
    assert_eq!(outcome(same, "select n from hr.stats"), Ok(vec![false]));

    let changed = |from: &'static str, to: &'static str| {
        support::on_parser_stack(|| {
            support::shop_trusting(&trust, &pins, |text| {
                assert!(text.contains(from), "{from} is in the fixture");
                text.replace(from, to)
            })
        })
    };
    let snapshot = changed("min(customers.ssn)", "max(customers.ssn)");
    assert!(snapshot.untrusted().any(|untrusted| untrusted.to_string().starts_with("view hr.stats has another")));
    // Seen once, it is held to what it was, whatever it is in between.
    assert_eq!(snapshot.pins(), &pins);
    assert!(outcome(snapshot, "select n from hr.stats").is_err());
}
