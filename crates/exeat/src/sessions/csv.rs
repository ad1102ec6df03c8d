//! A session's statements as CSV (RFC 4180), one row each. What a statement or a name says must not become a formula in
//! whoever's spreadsheet: such a cell gets an apostrophe in front, which spreadsheets read as "this is text".

use serde_json::Value;

use super::story::{Story, Telling};

const COLUMNS: [&str; 24] = [
    "seq",
    "time",
    "session",
    "subject",
    "actor",
    "issuer",
    "target",
    "database",
    "decision",
    "code",
    "result",
    "sqlstate",
    "tag",
    "kinds",
    "relations",
    "masked",
    "rules",
    "reasons",
    "rows",
    "bytes",
    "cells_masked",
    "duration_us",
    "sql",
    "parameters",
];

pub(crate) fn csv(story: &Story) -> String {
    format!("{}{}", csv_header(), csv_rows(story))
}

pub(crate) fn csv_header() -> String {
    format!("{}\r\n", COLUMNS.join(","))
}

pub(crate) fn csv_rows(story: &Story) -> String {
    let mut out = String::new();
    for telling in story.statements() {
        let cells = row(story, telling);
        let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        out.push_str(&cells.join(","));
        out.push_str("\r\n");
    }
    out
}

fn row(story: &Story, telling: &Telling) -> [String; COLUMNS.len()] {
    let session = &story.session;
    let who = |member: &str| session.principal.get(member).and_then(Value::as_str).unwrap_or("").to_owned();
    let masked: Vec<String> =
        telling.masked().into_iter().map(|(column, label, mask)| format!("{column} as {label}: {mask}")).collect();
    [
        telling.event.seq().to_string(),
        telling.event.time().to_owned(),
        session.session.clone(),
        who("sub"),
        who("actor"),
        who("iss"),
        session.target.clone(),
        session.database.clone(),
        telling.text_of("decision").to_owned(),
        telling.text_of("code").to_owned(),
        telling.result().to_owned(),
        telling.last("sqlstate").unwrap_or("").to_owned(),
        telling.last("tag").unwrap_or("").to_owned(),
        telling.list("kinds").join(" "),
        telling.list("relations").join(" "),
        masked.join("; "),
        telling.list("rules").join(" "),
        telling.list("reasons").join("; "),
        telling.sum("rows").to_string(),
        telling.sum("bytes").to_string(),
        telling.sum("cells_masked").to_string(),
        telling.sum("duration_us").to_string(),
        telling.text.clone().unwrap_or_else(|| format!("[{}]", story.without_text())),
        telling.parameters.as_ref().map(Value::to_string).unwrap_or_default(),
    ]
}

fn cell(text: &str) -> String {
    // Spreadsheets look past white space in front.
    let first = text.trim_start_matches([' ', '\u{a0}']).chars().next();
    let formula = matches!(first, Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠'));
    let guard = if formula { "'" } else { "" };
    let text = text.replace('\0', "\u{fffd}");
    if formula || text.contains([',', '"', '\r', '\n']) || text.starts_with(' ') || text.ends_with(' ') {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula_and_never_two_cells() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("-- a comment", "\"'-- a comment\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("  =1", "\"'  =1\""),
            ("\r=1", "\"'\r=1\""),
            ("[{\"b64\":\"AA==\"}]", "\"[{\"\"b64\"\":\"\"AA==\"\"}]\""),
        ] {
            assert_eq!(cell(text), expected, "{text:?}");
        }
    }
}
