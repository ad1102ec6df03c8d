//! A label: the name of a kind of sensitive data and the columns that carry it.

use crate::document::Span;
use crate::pattern::ColumnPattern;

/// The implicit label of columns that nobody has accepted yet; it cannot be attached by hand.
pub const UNCLASSIFIED: &str = "unclassified";

/// One label of one target.
#[derive(Debug, Clone)]
pub struct Label {
    pub(crate) name: String,
    pub(crate) place: Span,
    pub(crate) patterns: Vec<ColumnPattern>,
}

impl Label {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does a column of this name carry the label?
    pub fn matches(&self, schema: &str, table: &str, column: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(schema, table, column))
    }

    pub fn patterns(&self) -> impl Iterator<Item = &ColumnPattern> {
        self.patterns.iter()
    }

    /// Where it is written.
    pub fn place(&self) -> &Span {
        &self.place
    }
}
