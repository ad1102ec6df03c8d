//! What one row that a statement gives back holds of stored relations: for whoever counts what leaves. Never tells which
//! columns they are; that is the outputs' part.

use crate::catalog::Oid;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowContent {
    /// How many rows of each relation, at most: once for each time it stands in FROM, for each sub-select that gives a
    /// value, and for each aggregate that may pick a row of its own. Views and what stands behind them. Sorted.
    pub occurrences: Vec<(Oid, u32)>,
    /// Whether single values hold many rows.
    pub packing: Packing,
    /// Relations that are read whole. Sorted.
    pub whole: Vec<(Oid, Whole)>,
}

/// How many rows a value may hold beside its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packing {
    #[default]
    None,
    /// An aggregate makes arrays, documents or texts of rows: their elements count.
    Once,
    /// Of such values again, or round by round: elements hold more than one row, and only their length tells.
    Nested,
}

/// Read without a condition that chooses among its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Where it is named.
    pub at: Option<usize>,
    /// How many of its rows LIMIT lets through at most.
    pub limit: Option<u64>,
}

impl RowContent {
    pub(crate) fn without_places(&self) -> Self {
        let whole = self.whole.iter().map(|(oid, whole)| (*oid, Whole { at: None, ..*whole })).collect();
        Self { whole, ..self.clone() }
    }
}
