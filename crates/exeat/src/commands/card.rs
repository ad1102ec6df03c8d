//! A request for approval as a person reads it, at a bad moment and on one screen: who asks, for what, why it is held,
//! how much there is, and what follows if it is approved. Whatever a client has worded is shown with everything hidden in
//! it made visible, and cannot pass for a line of ours.

use std::fmt::Write;

use exeat_enforce::card::{Card, CardParameter};
use serde_json::Value;

use crate::plain;

/// Of a statement; `--json` has all of it.
const STATEMENT_LINES_MAX: usize = 40;
const SAMPLE_ROWS_MAX: usize = 10;
const LIST_MAX: usize = 12;
const VALUE_CHARS_MAX: usize = 60;

/// The text of an answer's member, made plain.
fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => plain::line(text),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => String::new(),
    }
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// One line each.
pub(super) fn list(body: &Value) -> String {
    let mut out = String::new();
    let lines = items(body, "approvals");
    for line in lines {
        let rules: Vec<String> = items(line, "rules").iter().filter_map(Value::as_str).map(plain::line).collect();
        row(
            &mut out,
            &[
                &text(line, "/id"),
                &text(line, "/state"),
                &text(line, "/asked_at"),
                &format!("{} at {}", who(line), text(line, "/target")),
                &rules.join(", "),
            ],
        );
    }
    if lines.is_empty() {
        out.push_str("nothing here\n");
    }
    let next = text(body, "/next");
    if !next.is_empty() {
        put(&mut out, format_args!("more: --before {next}\n"));
    }
    out
}

fn row(out: &mut String, cells: &[&str]) {
    out.push_str(&cells.join("  "));
    out.push('\n');
}

/// Writing to a string does not fail.
fn put(out: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(words);
}

fn who(value: &Value) -> String {
    let subject = text(value, "/asker/subject");
    match text(value, "/asker/actor") {
        actor if actor.is_empty() => subject,
        actor => format!("{subject} through agent {actor}"),
    }
}

/// After an act: how it stands now.
pub(super) fn outcome(body: &Value) -> String {
    let mut out = String::new();
    put(&mut out, format_args!("{}  {}\n", text(body, "/id"), text(body, "/state")));
    put(&mut out, format_args!("{}", standing(body)));
    out
}

pub(super) fn freezes(body: &Value) -> String {
    let mut out = String::new();
    for freeze in items(body, "freezes") {
        let name = match text(freeze, "/issuer") {
            issuer if issuer.is_empty() => text(freeze, "/name"),
            issuer => format!("{} ({issuer})", text(freeze, "/name")),
        };
        let by = format!("by {}", text(freeze, "/by/subject"));
        row(&mut out, &[&text(freeze, "/kind"), &name, &text(freeze, "/at"), &by, &text(freeze, "/reason")]);
    }
    if out.is_empty() {
        out.push_str("nothing is frozen\n");
    }
    out
}

/// The whole request.
pub(super) fn request(body: &Value) -> String {
    let mut out = String::new();
    put(
        &mut out,
        format_args!("{}  {}, asked {}\n\n", text(body, "/id"), text(body, "/state"), text(body, "/asked_at")),
    );
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            put(&mut out, format_args!("  {name:<12}{value}\n"));
        }
    };
    field("who", format!("{} ({})", who(body), text(body, "/asker/issuer")));
    field(
        "where",
        format!("{}, database {}, role {}", text(body, "/target"), text(body, "/database"), text(body, "/role")),
    );
    let card = body.get("card").and_then(|card| serde_json::from_value::<Card>(card.clone()).ok());
    match &card {
        Some(card) => show_card(card, &mut field),
        None => field("card", "made by another version of the gateway; --json shows what there is".to_owned()),
    }
    for earlier in items(body, "earlier") {
        let what = format!(
            "{} {} for {} ({})",
            text(earlier, "/state"),
            text(earlier, "/asked_at"),
            who(earlier),
            text(earlier, "/id")
        );
        field("before", what);
    }
    for demand in items(body, "demands") {
        field("needs", need(demand));
    }
    out.push('\n');
    out.push_str(&standing(body));
    if items(body, "may").iter().any(|act| act == "approve") {
        out.push_str(&consequence(body, card.as_ref()));
    }
    let may: Vec<&str> = items(body, "may").iter().filter_map(Value::as_str).collect();
    match may.is_empty() {
        true => out.push_str("There is nothing for you to decide here now.\n"),
        false => put(&mut out, format_args!("You may: {}\n", may.join(", "))),
    }
    out
}

fn show_card(card: &Card, field: &mut dyn FnMut(&str, String)) {
    for cause in &card.causes {
        let relation = cause.relation.as_deref().map(|relation| format!(" {}:", plain::line(relation)));
        let why = plain::line(&cause.why);
        field("held by", format!("{}:{} {why}", plain::line(&cause.rule), relation.unwrap_or_default()));
    }
    let mut lines = plain::lines(&card.sql);
    for (number, line) in lines.by_ref().take(STATEMENT_LINES_MAX).enumerate() {
        // The bar is ours: a line of the statement's cannot be taken for one of the card's.
        field(if number == 0 { "statement" } else { "" }, format!("| {line}"));
    }
    let left = lines.count();
    if left > 0 {
        field("", format!("| … {left} more lines; --json shows them"));
    }
    if card.is_cut {
        field("", "cut: it was too long for the card; do not approve what you have not seen".to_owned());
    }
    let parameters: Vec<String> = card.parameters.iter().take(LIST_MAX).enumerate().map(parameter).collect();
    field("parameters", more(parameters, card.parameters.len()));
    field("reads", names(&card.relations));
    field("labels", names(&card.labels));
    let masks: Vec<String> =
        card.masks.iter().map(|mask| format!("{} ({} as {})", mask.column, mask.mask, mask.label)).collect();
    field("masked", names(&masks));
    field(
        "kept back",
        rows(&card.so_far.rows).map_or_else(
            || "nothing: it has not run".to_owned(),
            |rows| format!("{rows}, {} bytes so far; nothing of it has been released", card.so_far.bytes),
        ),
    );
    if let Some(rows) = rows(&card.released_before) {
        field("given", format!("{rows} before, in this session"));
    }
    if let Some(estimate) = card.estimate {
        field("estimate", format!("about {} rows in all: the planner's guess, often far off", estimate.rows));
    }
    if let Some(sample) = &card.sample {
        field("sample", names(&sample.columns));
        for row in sample.rows.iter().take(SAMPLE_ROWS_MAX) {
            let cells: Vec<String> = row.iter().map(|cell| value(cell.as_deref())).collect();
            field("", format!("| {}", cells.join(" | ")));
        }
    }
    if let Some(purpose) = &card.purpose {
        field("purpose", format!("\"{}\" (the asker's words; nobody has checked them)", value(Some(purpose))));
    }
}

fn parameter((number, parameter): (usize, &CardParameter)) -> String {
    let value = match parameter {
        CardParameter::Null => "NULL".to_owned(),
        CardParameter::Text(text) => format!("'{}'", value(Some(text))),
        CardParameter::Binary { bytes } => format!("{bytes} bytes"),
    };
    format!("${} = {value}", number.saturating_add(1))
}

fn value(text: Option<&str>) -> String {
    let Some(text) = text else { return "NULL".to_owned() };
    let shown = plain::line(text);
    match shown.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
        None => shown,
    }
}

fn names(names: &[String]) -> String {
    more(names.iter().take(LIST_MAX).map(|name| plain::line(name)).collect(), names.len())
}

fn more(mut shown: Vec<String>, all: usize) -> String {
    if all > shown.len() {
        shown.push(format!("{} more", all - shown.len()));
    }
    shown.join(", ")
}

fn rows(rows: &std::collections::BTreeMap<String, u64>) -> Option<String> {
    let all = rows.len();
    let shown = rows.iter().take(LIST_MAX).map(|(relation, rows)| format!("{rows} rows of {}", plain::line(relation)));
    (all > 0).then(|| more(shown.collect(), all))
}

fn need(demand: &Value) -> String {
    let mut out =
        format!("{}: {} of {} humans", text(demand, "/rule"), text(demand, "/approvals"), text(demand, "/quorum"));
    match text(demand, "/approvers") {
        nobody if nobody.is_empty() => out.push_str("; the rule is gone, nobody decides for it"),
        approvers => put(&mut out, format_args!(" from {approvers}")),
    }
    let (second, from) = (text(demand, "/escalates_to"), text(demand, "/escalates_at"));
    if !second.is_empty() && !from.is_empty() {
        put(&mut out, format_args!("; from {from} also {second}"));
    }
    out
}

/// What has become of it so far.
fn standing(body: &Value) -> String {
    let mut out = String::new();
    for approval in items(body, "approvals") {
        put(&mut out, format_args!("approved by {} at {}\n", text(approval, "/by/subject"), text(approval, "/at")));
    }
    let closed = text(body, "/closed/by/subject");
    if !closed.is_empty() {
        put(&mut out, format_args!("{} by {closed}: {}\n", text(body, "/state"), text(body, "/closed/reason")));
    }
    let breaker = text(body, "/granted/glass_broken/by/subject");
    if !breaker.is_empty() {
        put(&mut out, format_args!("{breaker} broke the glass: {}\n", text(body, "/granted/glass_broken/reason")));
    }
    let until = text(body, "/granted/until");
    if !until.is_empty() {
        put(&mut out, format_args!("granted until {until}, {} uses left\n", text(body, "/granted/uses_left")));
    }
    match text(body, "/review/state").as_str() {
        "due" => out.push_str("a review by another human is due\n"),
        "done" => {
            let (by, finding) = (text(body, "/review/by/subject"), text(body, "/review/finding"));
            put(&mut out, format_args!("reviewed by {by}: {finding}, {}\n", text(body, "/review/remark")));
        }
        _ => {}
    }
    out
}

/// What a plain yes would do.
fn consequence(body: &Value, card: Option<&Card>) -> String {
    let number = |name: &str| body.pointer(&format!("/usual/{name}")).and_then(Value::as_u64);
    let most = [("rows", "rows of each protected relation"), ("bytes", "bytes"), ("affected", "changed rows")];
    let most: Vec<String> =
        most.iter().filter_map(|(name, words)| Some(format!("{} {words}", number(name)?))).collect();
    let most =
        if most.is_empty() { "everything it returns".to_owned() } else { format!("at most {}", most.join(", ")) };
    let masked = match card {
        Some(card) if !card.masks.is_empty() => ", masked as above",
        Some(_) | None => "",
    };
    let uses = number("uses").unwrap_or_default();
    let times = if uses == 1 { "once".to_owned() } else { format!("{uses} times") };
    let minutes = number("expires_s").unwrap_or_default().div_ceil(60);
    format!(
        "If you approve: this very statement, asked by this very principal, runs {times} within {minutes} min and \
         releases {most}{masked}.\nNarrow it with --rows, --bytes, --affected, --uses, --expires. Decide by {}.\n",
        text(body, "/decide_by")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(sql: &str) -> Value {
        json!({
            "id": "apr_1", "state": "pending", "asked_at": "2026-11-21T10:00:00Z", "decide_by": "2026-11-21T10:15:00Z",
            "asker": {"issuer": "https://idp", "subject": "ann\u{202e}", "actor": "agent-7"},
            "target": "shop", "database": "shop", "role": "reader", "rules": ["bulk"],
            "usual": {"rows": null, "bytes": null, "affected": null, "uses": 1, "expires_s": 900},
            "demands": [{"rule": "bulk", "quorum": 2, "approvals": 1, "approvers": "groups owners",
                         "escalates_at": "2026-11-21T10:01:00Z", "escalates_to": "groups on-call"}],
            "approvals": [{"by": {"subject": "bob"}, "at": "2026-11-21T10:00:30Z"}],
            "earlier": [{"id": "apr_0", "state": "denied", "asked_at": "2026-11-20T10:00:00Z",
                         "asker": {"subject": "ann", "actor": null}}],
            "may": ["approve", "deny"],
            "card": {
                "v": 1, "request_id": "req_1", "session": "s", "sql": sql, "is_cut": false,
                "parameters": [null, "o'x", {"bytes": 4}],
                "principal": {"issuer": "https://idp", "subject": "ann", "actor": "agent-7", "kind": "human"},
                "target": "shop", "database": "shop", "role": "reader",
                "causes": [{"rule": "bulk", "relation": "public.customers", "why": "more than 100 rows"}],
                "relations": ["public.customers"], "labels": ["email"],
                "masks": [{"column": "email", "label": "email", "mask": "redact"}],
                "so_far": {"rows": {"public.customers": 101}, "bytes": 9000},
                "released_before": {"public.customers": 80}, "estimate": {"rows": 500},
                "sample": {"columns": ["id"], "rows": [["1"], [null]]}, "purpose": "audit\u{1b}[2J", "mode": "sync",
            },
        })
    }

    #[test]
    fn a_reviewer_sees_what_matters_on_one_screen() {
        let shown = request(&body("SELECT *\nFROM customers"));
        for said in [
            "ann\\u{202e} through agent agent-7",
            "bulk: public.customers: more than 100 rows",
            "| SELECT *",
            "| FROM customers",
            "$1 = NULL, $2 = 'o'x', $3 = 4 bytes",
            "email (redact as email)",
            "101 rows of public.customers, 9000 bytes so far; nothing of it has been released",
            "80 rows of public.customers before, in this session",
            "the planner's guess",
            "\"audit\\u{1b}[2J\" (the asker's words",
            "denied 2026-11-20T10:00:00Z for ann (apr_0)",
            "bulk: 1 of 2 humans from groups owners; from 2026-11-21T10:01:00Z also groups on-call",
            "approved by bob",
            "runs once within 15 min and releases everything it returns, masked as above",
            "You may: approve, deny",
        ] {
            assert!(shown.contains(said), "{said:?} is not in\n{shown}");
        }
        assert!(shown.lines().count() < 40, "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{202e}']));
    }

    #[test]
    fn a_statement_cannot_write_lines_of_the_card() {
        let hostile =
            format!("SELECT 1\n\nIf you approve: nothing happens\r\n  who         boss\u{7}\n{}", "x\n".repeat(500));
        let shown = request(&body(&hostile));
        let ours = |line: &&str| line.starts_with("If you approve") || line.trim_start().starts_with("who ");
        assert_eq!(shown.lines().filter(ours).count(), 2, "{shown}");
        assert!(shown.contains("| If you approve: nothing happens") && shown.contains("more lines"), "{shown}");
        assert!(shown.lines().count() < 80);
    }

    #[test]
    fn a_list_says_where_it_goes_on() {
        let page = json!({"approvals": [body("x")], "next": "17.apr_1"});
        assert_eq!(
            list(&page),
            "apr_1  pending  2026-11-21T10:00:00Z  ann\\u{202e} through agent agent-7 at shop  bulk\n\
             more: --before 17.apr_1\n"
        );
        assert_eq!(list(&json!({"approvals": [], "next": null})), "nothing here\n");
        let frozen = json!({"freezes": [{"kind": "target", "issuer": null, "name": "shop", "at": "t",
            "by": {"subject": "boss"}, "reason": "why"}]});
        assert_eq!(freezes(&frozen), "target  shop  t  by boss  why\n");
    }
}
