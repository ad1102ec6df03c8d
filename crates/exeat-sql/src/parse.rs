//! Text to tree, with PostgreSQL's grammar: length first, then the grammar's own depth limit, then what the
//! grammar of another version would read differently. Runs on a thread with [`crate::PARSER_STACK_BYTES`].

use pg_query::FingerprintOptions;
use pg_query::protobuf::{ParseResult, ScanToken, Token};

use crate::catalog::bodies::{Names, SqlFunction};
use crate::walk::{NOWHERE, Stop, Walk, construct};
use crate::{CatalogSnapshot, MessageAnalysis, ParseFailure, STATEMENT_BYTES_MAX, Scope, message};

/// Analyses every statement of a simple Query, or the one of a Parse, in order. Call it on a thread with
/// [`crate::PARSER_STACK_BYTES`] of stack: decoding, walking and dropping the tree recurse.
pub fn parse_and_analyse(
    sql: &str,
    snapshot: &CatalogSnapshot,
    scope: &Scope,
) -> Result<MessageAnalysis, ParseFailure> {
    let tree = read(sql, snapshot)?;
    let fingerprint = pg_query::fingerprint(sql, 0, FingerprintOptions::default()).ok().map(|print| print.hex);
    let message::Analysed { statements, steps } = message::analyse(sql, &tree, snapshot, scope)?;
    Ok(MessageAnalysis { statements, fingerprint, steps })
}

/// The tree of a text that every supported server reads as we do.
fn read(sql: &str, snapshot: &CatalogSnapshot) -> Result<ParseResult, ParseFailure> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Err(ParseFailure::TooLong { bytes: sql.len() });
    }
    // A server with a one-byte encoding folds the case of letters beyond ASCII, and cuts names elsewhere.
    if !sql.is_ascii() && snapshot.encoding() != "UTF8" {
        let construct = format!("letters beyond ASCII in a database with encoding {}", snapshot.encoding());
        return Err(ParseFailure::NotAnalysed { construct });
    }
    check_rescans(sql)?;
    let tree = parse_tree(sql)?;
    check_numbers(sql)?;
    Ok(tree)
}

/// The statements of a function's body. Its `$1` become names that only parameters have: a parameter of a body has a
/// type and a value of its own, which one of the client's has not.
pub(crate) fn parse_body(function: &SqlFunction, snapshot: &CatalogSnapshot) -> Walk<ParseResult> {
    let unread = || construct("a body of this form", NOWHERE);
    let sql = match function.names {
        Names::Bound => bound_statements(&function.body),
        Names::Caller | Names::CallerAsOwner | Names::Own(_) => Some(function.body.clone()),
    };
    let Some(sql) = sql.filter(|sql| !sql.contains("\"$") && !sql.contains("&\"")) else { return unread() };
    let Ok(tokens) = pg_query::scan_tokens(&sql) else { return unread() };
    let mut named = String::with_capacity(sql.len());
    let mut rest = 0;
    for token in tokens.iter().filter(|token| token.token == Token::Param as i32) {
        let range = usize::try_from(token.start).ok().zip(usize::try_from(token.end).ok());
        let parts = range.and_then(|(start, end)| Some((sql.get(rest..start)?, sql.get(start..end)?, end)));
        let Some((before, parameter, end)) = parts else { return unread() };
        named.push_str(before);
        // Apart from what stands around it: `U&` before a quoted name would be part of it.
        named.push_str(" \"");
        named.push_str(parameter);
        named.push_str("\" ");
        rest = end;
    }
    named.push_str(sql.get(rest..).unwrap_or_default());
    match read(&named, snapshot) {
        Ok(tree) => Ok(tree),
        Err(ParseFailure::TooDeep) => Err(Stop::TooDeep),
        Err(ParseFailure::Syntax { .. } | ParseFailure::TooLong { .. } | ParseFailure::NotAnalysed { .. }) => unread(),
    }
}

/// What the server prints of a body that is kept as trees: `RETURN x`, or statements between BEGIN ATOMIC and END.
fn bound_statements(printed: &str) -> Option<String> {
    let printed = printed.trim();
    if let Some(value) = printed.strip_prefix("RETURN ") {
        return Some(format!("SELECT {value}"));
    }
    printed.strip_prefix("BEGIN ATOMIC").and_then(|rest| rest.strip_suffix("END")).map(str::to_owned)
}

/// PostgreSQL's scanner reads a whole run of operator characters and puts most of it back at every `/*`, `+` and
/// `-` inside: 400 KB of `/*/*/*` keep it busy for minutes. This bounds the characters read again, to under a
/// second; no statement made for reading comes near it.
const RESCANNED_BYTES_MAX: usize = 50_000_000;

fn check_rescans(sql: &str) -> Result<(), ParseFailure> {
    let is_operator = |byte: &u8| {
        matches!(
            byte,
            b'~' | b'!'
                | b'@'
                | b'#'
                | b'^'
                | b'&'
                | b'|'
                | b'`'
                | b'?'
                | b'+'
                | b'-'
                | b'*'
                | b'/'
                | b'%'
                | b'<'
                | b'>'
                | b'='
        )
    };
    let mut rescanned: usize = 0;
    for run in sql.as_bytes().split(|byte| !is_operator(byte)) {
        let comments = run.windows(2).filter(|pair| pair == b"/*").count();
        // A run that begins with `--` is a comment to the end of its line, read once.
        let signs = if run.starts_with(b"--") { 0 } else { run.iter().filter(|byte| b"+-".contains(byte)).count() };
        rescanned = rescanned.saturating_add(run.len().saturating_mul(comments + signs));
    }
    if rescanned > RESCANNED_BYTES_MAX {
        return Err(ParseFailure::NotAnalysed { construct: "an overlong run of operator characters".to_owned() });
    }
    Ok(())
}

/// The tree alone. pg_query's summary of it may panic on shapes it did not expect: that is a refusal here.
pub(crate) fn parse_tree(sql: &str) -> Result<ParseResult, ParseFailure> {
    match std::panic::catch_unwind(|| pg_query::parse(sql, 0)) {
        Ok(Ok(result)) => Ok(result.protobuf),
        Ok(Err(pg_query::Error::Decode(_))) => Err(ParseFailure::TooDeep),
        Ok(Err(pg_query::Error::Parse(message))) => Err(failure(message)),
        Ok(Err(other)) => Err(ParseFailure::Syntax { message: other.to_string() }),
        Err(_) => Err(ParseFailure::NotAnalysed { construct: "a statement of an unexpected shape".to_owned() }),
    }
}

fn failure(message: String) -> ParseFailure {
    let too_deep = ["stack depth limit exceeded", "memory exhausted", "parse tree is nested too deeply"];
    if too_deep.iter().any(|words| message.contains(words)) {
        return ParseFailure::TooDeep;
    }
    // Older servers read `123abc` as `123 AS abc`: whatever the probe said, it would not be about this text.
    if message.contains("trailing junk after") {
        return ParseFailure::NotAnalysed { construct: "a number followed by a letter".to_owned() };
    }
    ParseFailure::Syntax { message }
}

/// `1_000` and `0x1F` are numbers since PostgreSQL 16; before, they were a number and a name after it.
fn check_numbers(sql: &str) -> Result<(), ParseFailure> {
    let suspect = |pair: &[u8]| match pair {
        [digit, next] => digit.is_ascii_digit() && (next.is_ascii_alphabetic() || *next == b'_' || *next >= 0x80),
        _ => false,
    };
    if !sql.as_bytes().windows(2).any(suspect) {
        return Ok(());
    }
    let tokens = pg_query::scan_tokens(sql).map_err(|error| ParseFailure::Syntax { message: error.to_string() })?;
    match tokens.iter().find(|token| is_new_number(sql, token)) {
        Some(_) => Err(ParseFailure::NotAnalysed { construct: "a number followed by a letter".to_owned() }),
        None => Ok(()),
    }
}

fn is_new_number(sql: &str, token: &ScanToken) -> bool {
    if token.token != Token::Iconst as i32 && token.token != Token::Fconst as i32 {
        return false;
    }
    let range = usize::try_from(token.start).ok().zip(usize::try_from(token.end).ok());
    let text = range.and_then(|(start, end)| sql.get(start..end));
    // Digits, one point, an exponent: the same number on every version.
    !text.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_the_scanner_would_read_again_and_again_are_refused() {
        for sql in ["/*".repeat(100_000), format!("SELECT {}1", "+-".repeat(100_000)), "@/*".repeat(50_000)] {
            assert!(matches!(check_rescans(&sql), Err(ParseFailure::NotAnalysed { .. })), "{sql:.20}");
        }
        for sql in [format!("/{}/ SELECT 1", "*".repeat(5_000)), "-".repeat(100_000), "- 1 ".repeat(100_000)] {
            assert_eq!(check_rescans(&sql), Ok(()), "{sql:.20}");
        }
    }

    #[test]
    fn numbers_every_version_reads_alike_pass() {
        for sql in ["SELECT 1, 2.5, .5, 1e10, 1.5E-3", "SELECT a1b, \"1a\", '1a', $$1a$$, E'1a' -- 1a"] {
            assert_eq!(check_numbers(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn numbers_an_older_server_reads_as_number_and_alias_are_refused() {
        for sql in ["SELECT 1_000", "SELECT 0x1F", "SELECT 0b1", "SELECT 0o7", "SELECT 1_0.5 FROM t"] {
            assert!(matches!(check_numbers(sql), Err(ParseFailure::NotAnalysed { .. })), "{sql}");
        }
        for sql in ["SELECT 123abc", "SELECT 1a FROM t"] {
            assert!(matches!(parse_tree(sql), Err(ParseFailure::NotAnalysed { .. })), "{sql}");
        }
    }
}
