//! What is told of a statement before it runs: to the operator everything, to a principal nothing of relations that it
//! did not name or may not touch.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use exeat_enforce::evaluate::evaluate;
use exeat_enforce::explain::{Audience, Decided, Explanation, explain};

const POLICY: &str = "
version: 1
labels:
  shop: {ssn: ['public.customers.ssn'], email: ['public.customers.email']}
rules:
  - {id: read, who: {groups: [agents]}, target: shop, allow: [read]}
  - {id: mask, target: shop, mask: {ssn: {with: partial, last: 4}, email: {with: redact}}}
  - {id: no-staff, target: shop, deny: true, relations: ['hr.*'], reason: 'ask the people team'}
";

fn explained(sql: &str, audience: Audience) -> Explanation {
    support::on_parser_stack(|| {
        let snapshot = Arc::new(support::shop());
        let policy = support::policy(POLICY);
        let facts = support::session(&snapshot, &policy, support::principal("agent-7 agents"));
        let analysis = support::analyse(sql, &snapshot).expect("it parses");
        let evaluation = evaluate(&facts, &policy, sql, &analysis);
        let decided = Decided { facts: &facts, policy: &policy, sql, analysis: &analysis, evaluation: &evaluation };
        explain(&decided, audience)
    })
}

fn text(sql: &str, audience: Audience) -> String {
    explained(sql, audience).text(sql)
}

#[test]
fn a_permitted_statement_shows_where_every_value_comes_from() {
    let sql = "SELECT id, c.ssn AS x,\n  coalesce(email, city), 1\nFROM customers c WHERE id = 1";
    let expected = "\
decision: permit
rules: read
kind: select

  SELECT id, c.ssn AS x,
         ^^ id: public.customers.id
             ^^^^^ x: public.customers.ssn; masked by rule mask: partial as ssn
    coalesce(email, city), 1
    ^^^^^^^^ coalesce: one of public.customers.email, public.customers.city; masked by rule mask: redact as email
                           ^ ?column?: no stored column
  FROM customers c WHERE id = 1
                         ^^ chooses rows or values: public.customers.id
";
    assert_eq!(text(sql, Audience::Operator), expected);
    assert_eq!(text(sql, Audience::Principal), expected);
}

#[test]
fn a_refused_statement_shows_where_and_what_would_be_allowed() {
    let sql = "SELECT id FROM customers WHERE ssn = '1'";
    let expected = "\
decision: refuse, masked_column_in_predicate (42501)
reason: ssn is sealed for you; it may be selected (masked) but not compared
rules: read
kind: select

  SELECT id FROM customers WHERE ssn = '1'
         ^^ id: public.customers.id
                                 ^^^ chooses rows or values: public.customers.ssn, sealed by rule mask as ssn: refused

allowed instead:
  select ssn (masked)
  columns of public.customers that are not sealed: id, city, tags, home, created
  use ssn as a plain output column only
";
    assert_eq!(text(sql, Audience::Operator), expected);
    assert_eq!(text(sql, Audience::Principal), expected);
}

#[test]
fn the_operator_sees_through_views_and_a_principal_only_what_it_named() {
    let sql = "SELECT email FROM paying_again";
    let operator = text(sql, Audience::Operator);
    assert!(operator.contains("public.paying_again.email (which is made from public.customers.email)"), "{operator}");
    let principal = explained(sql, Audience::Principal);
    let (json, text) = (principal.json(sql, Some("req_1")).to_string(), principal.text(sql));
    for said in [json, text] {
        assert!(said.contains("public.paying_again.email") && !said.contains("customers"), "{said}");
    }
}

#[test]
fn columns_of_what_a_principal_may_not_touch_are_not_told() {
    let sql = "SELECT * FROM hr.employees";
    let operator = explained(sql, Audience::Operator).json(sql, None).to_string();
    assert!(operator.contains("hr.employees.salary") && operator.contains("\"denied\""), "{operator}");
    let principal = explained(sql, Audience::Principal);
    let (json, text) = (principal.json(sql, Some("req_1")), principal.text(sql));
    assert_eq!(json["refusal"]["code"], "denied");
    assert_eq!(json["uses"], serde_json::json!([]));
    // Not even as the name of an output: the star is the client's, what it stands for is not.
    assert!(!text.contains("salary") && !json.to_string().contains("salary"), "{json}");
    assert_eq!(json["outputs"].as_array().map(Vec::len), Some(4));
    // What it may read of the same statement it is told.
    let both = text_of("SELECT c.id, e.id FROM customers c, hr.employees e");
    assert!(both.contains("public.customers.id") && !both.contains("hr.employees.id"), "{both}");
}

fn text_of(sql: &str) -> String {
    text(sql, Audience::Principal)
}

#[test]
fn the_json_keeps_its_members_and_its_text() {
    let sql = "SELECT id, ssn FROM customers WHERE id = 1";
    let said = explained(sql, Audience::Principal).json(sql, Some("req_1"));
    assert_eq!(said["decision"], "permit");
    assert_eq!(said["rules"], serde_json::json!(["read"]));
    assert_eq!(said["relations"], serde_json::json!(["public.customers"]));
    let masked = serde_json::json!([{"column": "public.customers.ssn", "label": "ssn", "mask": "partial"}]);
    assert_eq!(said["masked"], masked);
    assert_eq!(said["outputs"][1]["from"][0]["column"], "public.customers.ssn");
    assert_eq!(said["outputs"][1]["at"], 12);
    assert_eq!(said["outputs"][1]["mask"]["rule"], "mask");
    assert!(
        said["uses"]
            .as_array()
            .unwrap()
            .contains(&serde_json::json!({"column": "public.customers.id", "how": "lookup", "at": 37}))
    );
    assert_eq!(said["text"], text_of(sql));
    let refused = explained("SELECT ssn || id FROM nowhere", Audience::Principal).json("", Some("req_2"));
    assert_eq!(
        (refused["decision"].as_str(), refused["refusal"]["request_id"].as_str()),
        (Some("unresolved"), Some("req_2"))
    );
}

#[test]
fn neither_control_characters_nor_length_reach_the_reader() {
    let sql = "SELECT id AS \"a\u{1b}[2J\u{202e}b\"\r\n, 'x\u{7}'\tFROM customers";
    let shown = text(sql, Audience::Operator);
    assert!(shown.chars().all(|character| character == '\n' || !character.is_control()), "{shown:?}");
    assert!(!shown.contains('\u{202e}'));
    let long = format!("SELECT {} ssn FROM customers", "id, ".repeat(1_500));
    let many_lines = format!("SELECT {}ssn FROM customers", "id,\n".repeat(1_500));
    for sql in [long, many_lines] {
        let shown = text(&sql, Audience::Operator);
        assert!(shown.len() < 120_000 && shown.contains("there is more"), "{}", shown.len());
    }
}

#[test]
fn a_message_of_several_statements_and_one_not_understood_are_marked_where_they_stand() {
    let sql = "SELECT id FROM codes;\nSELECT hr.tax(1), * FROM nowhere";
    let shown = text(sql, Audience::Operator);
    assert!(shown.contains("  SELECT id FROM codes;\n         ^^ id: public.codes.id\n"), "{shown}");
    assert!(shown.contains("does not resolve") || shown.contains("not on the reviewed list"), "{shown}");
}
