//! The explanation as text: first the decision, then the statement with marks under the places that something is said
//! of, then what would be allowed instead. Control characters of the statement and of names never reach the reader's
//! terminal, and neither the length nor the number of lines of a statement makes the text long.

use std::fmt::Write as _;

use exeat_policy::{ColumnMask, Nulls};
use exeat_sql::{Flow, Use};

use super::{Decision, Explanation, OutputColumn, SourceColumn};

/// Places marked. A statement with more is read by programs.
const MARKS_MAX: usize = 200;
/// Lines of a statement shown although nothing is said of them.
const PLAIN_LINES_MAX: usize = 40;
/// Of a line; longer ones are shown in part.
const LINE_CHARACTERS_MAX: usize = 160;
/// Shown before a mark where the line is shown in part.
const BEFORE_CHARACTERS: usize = 40;
/// Sources named of one output.
const SOURCES_MAX: usize = 8;
const INDENT: &str = "  ";

struct Mark {
    /// Position in the statement's characters, from 0.
    at: usize,
    words: String,
}

/// What is said about the statement: under its text, or after it.
#[derive(Default)]
struct Said {
    marks: Vec<Mark>,
    placeless: Vec<String>,
}

impl Said {
    fn add(&mut self, at: Option<usize>, words: String) {
        match at.and_then(|at| at.checked_sub(1)) {
            Some(at) => self.marks.push(Mark { at, words }),
            None => self.placeless.push(words),
        }
    }
}

pub(super) fn render(told: &Explanation, sql: &str) -> String {
    let mut out = String::new();
    head(told, &mut out);
    let mut said = said(told);
    let more = told.more || said.marks.len() > MARKS_MAX || said.placeless.len() > MARKS_MAX;
    said.marks.sort_by_key(|mark| mark.at);
    said.marks.truncate(MARKS_MAX);
    said.placeless.truncate(MARKS_MAX);
    out.push('\n');
    statement(sql, &said.marks, &mut out);
    for words in &said.placeless {
        line(&mut out, INDENT, words);
    }
    if more {
        line(&mut out, INDENT, "there is more: as JSON all of it is told");
    }
    if !told.instead.is_empty() {
        out.push_str("\nallowed instead:\n");
        told.instead.iter().for_each(|words| line(&mut out, INDENT, words));
    }
    out
}

fn head(told: &Explanation, out: &mut String) {
    let (decision, reason) = match &told.decision {
        Decision::Permit => ("permit".to_owned(), None),
        Decision::Hold => ("hold: a human is asked before it runs".to_owned(), None),
        Decision::Refuse(refusal) => {
            (format!("refuse, {} ({})", refusal.code.as_str(), refusal.sqlstate()), Some(&refusal.reason))
        }
        Decision::Unresolved(refusal) => (
            "the server's own answer; where it knows the name, the catalog is read again".to_owned(),
            Some(&refusal.reason),
        ),
        Decision::Error(missing) => (format!("error {}", missing.sqlstate), Some(&missing.message)),
    };
    line(out, "decision: ", &decision);
    if let Some(reason) = reason {
        line(out, "reason: ", reason);
    }
    if !told.rules.is_empty() {
        line(out, "rules: ", &told.rules.join(", "));
    }
    line(out, "kind: ", &told.kinds.join(", "));
    for (about, words) in told.volume.lines() {
        line(out, about, &words);
    }
}

fn said(told: &Explanation) -> Said {
    let mut said = Said::default();
    for output in &told.outputs {
        said.add(output.at, output_words(output));
    }
    for unclear in &told.unclear {
        said.add(unclear.at, unclear.why.clone());
    }
    let refused = match &told.decision {
        Decision::Refuse(refusal) => refusal.object.at,
        Decision::Permit | Decision::Hold | Decision::Unresolved(_) | Decision::Error(_) => None,
    };
    for used in &told.uses {
        let does = match used.how {
            // Said of the output column.
            Use::Projected | Use::Derived => continue,
            Use::Expression => "computed with",
            Use::Lookup if used.mask.is_some() && refused.is_none() => "looked up, each value of yours counts",
            Use::Predicate | Use::Lookup => "chooses rows or values",
            Use::Presence => "asked only whether it is NULL",
            Use::Key => "sorted, grouped, joined or deduplicated by",
            Use::Referenced => "looked for by a foreign key",
            Use::Written => "written",
            Use::Source => "written elsewhere",
        };
        let sealed = used.mask.as_ref().map(|mask| format!(", sealed by rule {} as {}", mask.rule, mask.label));
        let here = if refused.is_some() && used.at == refused && used.mask.is_some() { ": refused" } else { "" };
        said.add(used.at, format!("{does}: {}{}{here}", used.column, sealed.unwrap_or_default()));
    }
    said
}

fn output_words(output: &OutputColumn) -> String {
    let name = output.name.as_deref().unwrap_or("a column without a name");
    let from = match &output.from {
        None => "as when it was prepared".to_owned(),
        Some(from) if from.is_empty() && output.hidden => "from what the statement does not name".to_owned(),
        Some(from) if from.is_empty() => "no stored column".to_owned(),
        Some(from) => {
            let hidden = if output.hidden { ", and from what the statement does not name" } else { "" };
            format!("{}{}{hidden}", manner(from), sources(from))
        }
    };
    format!("{name}: {from}{}", output.mask.as_ref().map(mask_words).unwrap_or_default())
}

fn manner(from: &[SourceColumn]) -> &'static str {
    match from {
        _ if from.iter().any(|source| source.how == Flow::Total) => "made from ",
        _ if from.iter().any(|source| source.how == Flow::Presence) => "made from which are NULL of ",
        [_] => "",
        _ => "one of ",
    }
}

fn sources(from: &[SourceColumn]) -> String {
    let name = |source: &SourceColumn| match source.behind.as_slice() {
        [] => source.column.clone(),
        behind => format!("{} (which is made from {})", source.column, behind.join(", ")),
    };
    let shown: Vec<String> = from.iter().take(SOURCES_MAX).map(name).collect();
    let more = from.len().saturating_sub(SOURCES_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn mask_words(mask: &ColumnMask) -> String {
    let nulls = if mask.nulls == Nulls::Hide { ", NULL too" } else { "" };
    format!("; masked by rule {}: {} as {}{nulls}", mask.rule, mask.mask.name(), mask.label)
}

fn statement(sql: &str, marks: &[Mark], out: &mut String) {
    let few = sql.lines().take(PLAIN_LINES_MAX + 1).count() <= PLAIN_LINES_MAX;
    let (mut start, mut skipped, mut marks) = (0, false, marks);
    for text in sql.split('\n') {
        let characters: Vec<char> = text.chars().collect();
        let end = start + characters.len();
        let here = marks.partition_point(|mark| mark.at <= end);
        let (mine, rest) = marks.split_at(here);
        marks = rest;
        if few || !mine.is_empty() {
            if std::mem::take(&mut skipped) {
                line(out, INDENT, "…");
            }
            marked_line(&characters, start, mine, out);
        } else {
            skipped = true;
        }
        start = end + 1;
    }
}

fn marked_line(characters: &[char], start: usize, marks: &[Mark], out: &mut String) {
    if characters.len() <= LINE_CHARACTERS_MAX {
        line(out, INDENT, &characters.iter().collect::<String>());
        marks.iter().for_each(|mark| caret(characters, mark.at - start.min(mark.at), 0, mark, out));
        return;
    }
    if marks.is_empty() {
        shown_in_part(characters, 0, out);
    }
    let mut shown = None;
    for mark in marks {
        let column = mark.at - start.min(mark.at);
        let from = match shown {
            Some(from) if column + BEFORE_CHARACTERS < from + LINE_CHARACTERS_MAX => from,
            _ => {
                let from = column.saturating_sub(BEFORE_CHARACTERS);
                shown_in_part(characters, from, out);
                from
            }
        };
        shown = Some(from);
        caret(characters, column, from, mark, out);
    }
}

fn shown_in_part(characters: &[char], from: usize, out: &mut String) {
    let part: String = characters.iter().skip(from).take(LINE_CHARACTERS_MAX).collect();
    let more = if characters.len() > from + LINE_CHARACTERS_MAX { "…" } else { "" };
    line(out, INDENT, &format!("{part}{more}"));
}

/// Under the whole word or dotted name at the place.
fn caret(characters: &[char], column: usize, from: usize, mark: &Mark, out: &mut String) {
    let in_name = |character: &&char| character.is_alphanumeric() || "_$.\"*".contains(**character);
    let width = characters.iter().skip(column).take_while(in_name).count();
    let width = width.clamp(1, LINE_CHARACTERS_MAX.saturating_sub(column - from).max(1));
    line(out, INDENT, &format!("{}{} {}", " ".repeat(column - from), "^".repeat(width), mark.words));
}

/// Names and statements may hold what a terminal acts on.
fn line(out: &mut String, before: &str, text: &str) {
    let harmless = text.chars().map(|character| if is_harmless(character) { character } else { ' ' });
    // Writing to a String cannot fail.
    let _written = write!(out, "{before}{}", harmless.collect::<String>().trim_end());
    out.push('\n');
}

/// Neither control characters nor those that turn the direction of what follows.
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
