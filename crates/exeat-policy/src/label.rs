//! A label: the name of a kind of sensitive data and the columns that carry it.

use crate::document::Span;
use crate::pattern::ColumnPattern;

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

    /// Where it is written.
    pub fn place(&self) -> &Span {
        &self.place
    }
}
