//! A session's statements as CSV (RFC 4180), one row each. What a statement or a name says must not become a formula in
//! whoever's spreadsheet, however it splits cells: an apostrophe stands in front of such a sign, which spreadsheets read as "this is text".

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
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    // Where a spreadsheet splits at semicolons or tabs, our quotes are inside a cell and count for nothing: a cell of its own may
    // begin behind each of them, and behind a line's end.
    let mut begins = true;
    for character in text.chars() {
        if begins && is_sign(character) {
            out.push('\'');
        }
        begins = ends_cell(character) || (begins && is_looked_past(character));
        match character {
            '"' => out.push_str("\"\""),
            '\0' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// What a formula begins with.
fn is_sign(character: char) -> bool {
    matches!(character, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠')
}

fn ends_cell(character: char) -> bool {
    matches!(character, ';' | '\t' | '\r' | '\n')
}

/// In front of a formula.
fn is_looked_past(character: char) -> bool {
    character == '"' || character.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula_and_never_two_cells() {
        for (text, expected) in [
            ("plain", "\"plain\""),
            ("", ""),
            ("120", "120"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("-- a comment", "\"'-- a comment\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"\t'=1\""),
            ("  =1", "\"  '=1\""),
            ("\u{a0}\u{3000}=1", "\"\u{a0}\u{3000}'=1\""),
            ("\r=1", "\"\r'=1\""),
            // Separators of other countries, in whose cells our quotes are no quotes.
            ("select 1;=HYPERLINK(\"x\")", "\"select 1;'=HYPERLINK(\"\"x\"\")\""),
            ("select 1; \"=1+1\"", "\"select 1; \"\"'=1+1\"\"\""),
            ("a\t@b", "\"a\t'@b\""),
            ("a\n-- b\r\n＝c", "\"a\n'-- b\r\n'＝c\""),
            ("a = 1; b=2", "\"a = 1; b=2\""),
            ("[{\"b64\":\"AA==\"}]", "\"[{\"\"b64\"\":\"\"AA==\"\"}]\""),
        ] {
            assert_eq!(cell(text), expected, "{text:?}");
        }
    }
}
