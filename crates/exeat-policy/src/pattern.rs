//! Patterns of relation and column names: `schema.table`, `schema.table.column`, `*` for any whole part.
//!
//! A pattern that matches nothing protects nothing, so everything PostgreSQL and a reader could understand
//! differently (capitals without quotes, `*` inside a part, names longer than PostgreSQL keeps) is refused here.
//! Never resolves a name: matching is by the names of a catalog that has already folded them.

use std::fmt;

use crate::decision::RelationName;

/// PostgreSQL cuts identifiers to this many bytes (NAMEDATALEN - 1).
const IDENTIFIER_BYTES_MAX: usize = 63;

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("pattern `{pattern}` has {found} part(s), it needs {needed}: {shape}")]
    PartCount { pattern: String, found: usize, needed: usize, shape: &'static str },
    #[error("pattern `{pattern}` has an empty part")]
    EmptyPart { pattern: String },
    #[error("pattern `{pattern}` has a double quote that does not enclose a whole part")]
    Quote { pattern: String },
    #[error("`*` stands for a whole part only, `{part}` mixes it with other characters")]
    PartialWildcard { part: String },
    #[error(
        "part `{part}` has capital letters: write it in lower case, or as \"{part}\" if the name was created in quotes"
    )]
    Capitals { part: String },
    #[error("part `{part}` is not a plain name: put it in double quotes")]
    NeedsQuotes { part: String },
    #[error("part `{part}` has {bytes} bytes, PostgreSQL names have at most {IDENTIFIER_BYTES_MAX}")]
    TooLong { part: String, bytes: usize },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Any,
    Name(String),
}

impl Part {
    fn matches(&self, name: &str) -> bool {
        match self {
            Part::Any => true,
            Part::Name(wanted) => wanted == name,
        }
    }

    fn overlaps(&self, other: &Part) -> bool {
        match (self, other) {
            (Part::Any, _) | (_, Part::Any) => true,
            (Part::Name(a), Part::Name(b)) => a == b,
        }
    }
}

/// `schema.table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationPattern {
    schema: Part,
    relation: Part,
}

impl RelationPattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let [schema, relation] = parts(text, "schema.table")?;
        Ok(RelationPattern { schema, relation })
    }

    pub fn matches(&self, relation: &RelationName) -> bool {
        self.schema.matches(&relation.schema) && self.relation.matches(&relation.name)
    }

    /// Could one relation match both?
    pub fn overlaps(&self, other: &RelationPattern) -> bool {
        self.schema.overlaps(&other.schema) && self.relation.overlaps(&other.relation)
    }
}

/// `schema.table.column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnPattern {
    relation: RelationPattern,
    column: Part,
}

impl ColumnPattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let [schema, relation, column] = parts(text, "schema.table.column")?;
        Ok(ColumnPattern { relation: RelationPattern { schema, relation }, column })
    }

    pub fn matches(&self, schema: &str, relation: &str, column: &str) -> bool {
        self.relation.schema.matches(schema) && self.relation.relation.matches(relation) && self.column.matches(column)
    }

    pub fn relation(&self) -> &RelationPattern {
        &self.relation
    }
}

/// As it could be written in a policy.
impl fmt::Display for ColumnPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.relation.schema, self.relation.relation, self.column)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Any => f.write_str("*"),
            Part::Name(name) if name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') => {
                f.write_str(name)
            }
            Part::Name(name) => write!(f, "\"{}\"", name.replace('"', "\"\"")),
        }
    }
}

fn parts<const N: usize>(text: &str, shape: &'static str) -> Result<[Part; N], PatternError> {
    let raw = split(text)?;
    let found = raw.len();
    let parts = raw.into_iter().map(RawPart::check).collect::<Result<Vec<_>, _>>()?;
    parts.try_into().map_err(|_| PatternError::PartCount { pattern: text.to_owned(), found, needed: N, shape })
}

#[derive(Default)]
struct RawPart {
    text: String,
    quoted: bool,
}

/// Cuts at dots outside double quotes; inside, a doubled quote stands for one.
fn split(pattern: &str) -> Result<Vec<RawPart>, PatternError> {
    let broken = || PatternError::Quote { pattern: pattern.to_owned() };
    let mut done = Vec::new();
    let mut part = RawPart::default();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '.' => done.push(std::mem::take(&mut part)),
            '"' if part.text.is_empty() && !part.quoted => {
                part.quoted = true;
                part.text = quoted(&mut chars).ok_or_else(broken)?;
            }
            _ if c == '"' || part.quoted => return Err(broken()),
            _ => part.text.push(c),
        }
    }
    done.push(part);
    if done.iter().any(|part| part.text.is_empty()) {
        return Err(PatternError::EmptyPart { pattern: pattern.to_owned() });
    }
    Ok(done)
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()? {
            '"' if chars.next_if_eq(&'"').is_none() => return Some(text),
            c => text.push(c),
        }
    }
}

impl RawPart {
    fn check(self) -> Result<Part, PatternError> {
        let part = self.text;
        if !self.quoted {
            if part == "*" {
                return Ok(Part::Any);
            }
            if part.contains('*') {
                return Err(PatternError::PartialWildcard { part });
            }
            let starts = part.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
            if !starts || !part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                return Err(PatternError::NeedsQuotes { part });
            }
            if part.chars().any(char::is_uppercase) {
                return Err(PatternError::Capitals { part });
            }
        }
        match part.len() {
            0..=IDENTIFIER_BYTES_MAX => Ok(Part::Name(part)),
            bytes => Err(PatternError::TooLong { part, bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ColumnPattern, PatternError, RelationPattern};
    use crate::decision::RelationName;

    #[test]
    fn columns_match_part_by_part() {
        for (pattern, schema, table, column, expected) in [
            ("public.customers.ssn", "public", "customers", "ssn", true),
            ("public.customers.ssn", "public", "customers", "ssn2", false),
            ("public.customers.ssn", "public", "customer", "ssn", false),
            ("public.customers.ssn", "hr", "customers", "ssn", false),
            ("*.*.tax_id", "any", "thing", "tax_id", true),
            ("*.*.tax_id", "any", "thing", "Tax_id", false),
            ("public.api_keys.*", "public", "api_keys", "whatever", true),
            ("public.\"Api.Keys\".*", "public", "Api.Keys", "k", true),
            ("public.\"Api.Keys\".*", "public", "api.keys", "k", false),
            ("public.\"a\"\"b\".\"*\"", "public", "a\"b", "*", true),
            ("public.\"a\"\"b\".\"*\"", "public", "a\"b", "x", false),
        ] {
            let parsed = ColumnPattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(schema, table, column), expected, "{pattern} on {schema}.{table}.{column}");
        }
    }

    #[test]
    fn relations_match_and_overlap() {
        let hr = RelationPattern::parse("hr.*").unwrap();
        let pay = RelationPattern::parse("*.payroll").unwrap();
        let shop = RelationPattern::parse("public.orders").unwrap();
        assert!(hr.matches(&RelationName { schema: "hr".into(), name: "payroll".into() }));
        assert!(!hr.matches(&RelationName { schema: "hr2".into(), name: "payroll".into() }));
        assert!(hr.overlaps(&pay) && pay.overlaps(&hr));
        assert!(!hr.overlaps(&shop) && !pay.overlaps(&shop));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let long = "x".repeat(64);
        type Expected = fn(&PatternError) -> bool;
        let cases: Vec<(String, Expected)> = vec![
            ("customers.ssn".into(), |e| matches!(e, PatternError::PartCount { found: 2, needed: 3, .. })),
            ("a.b.c.d".into(), |e| matches!(e, PatternError::PartCount { found: 4, .. })),
            ("".into(), |e| matches!(e, PatternError::EmptyPart { .. })),
            ("a..b".into(), |e| matches!(e, PatternError::EmptyPart { .. })),
            ("a.b.\"\"".into(), |e| matches!(e, PatternError::EmptyPart { .. })),
            ("a.b.\"c".into(), |e| matches!(e, PatternError::Quote { .. })),
            ("a.b.c\"d\"".into(), |e| matches!(e, PatternError::Quote { .. })),
            ("a.b.\"c\"d".into(), |e| matches!(e, PatternError::Quote { .. })),
            ("a.b.tax_*".into(), |e| matches!(e, PatternError::PartialWildcard { .. })),
            ("public.Customers.ssn".into(), |e| matches!(e, PatternError::Capitals { .. })),
            ("public.order-items.id".into(), |e| matches!(e, PatternError::NeedsQuotes { .. })),
            ("public.customers. ssn".into(), |e| matches!(e, PatternError::NeedsQuotes { .. })),
            ("public.1st.id".into(), |e| matches!(e, PatternError::NeedsQuotes { .. })),
            (format!("a.b.{long}"), |e| matches!(e, PatternError::TooLong { bytes: 64, .. })),
        ];
        for (pattern, expected) in cases {
            let error = ColumnPattern::parse(&pattern).unwrap_err();
            assert!(expected(&error), "{pattern}: {error}");
        }
    }
}
