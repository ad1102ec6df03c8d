//! What a write makes the server look at beside what is written: triggers by what they fire for, and columns that one
//! index, constraint or partition key looks at together.

use super::{CatalogSnapshot, Oid};
use crate::Write;

/// Columns of one relation that are checked together: whether a write of some succeeds may say what the others hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedTogether {
    pub columns: Vec<i16>,
    /// A unique index or exclusion constraint: success says whether another row holds the same.
    pub unique: bool,
    /// A unique index over columns alone, each compared by its own type's own equality and as its collation does: the
    /// same values given are the same key, and other rows tell of no other value.
    pub plain: bool,
}

/// Bits of pg_trigger.tgtype.
const ROW: u16 = 1;
const BEFORE: u16 = 2;
const INSTEAD: u16 = 64;

/// The triggers of one relation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Triggers(pub(crate) Vec<u16>);

impl Triggers {
    fn for_event(&self, write: Write) -> impl Iterator<Item = u16> {
        let event = match write {
            Write::Insert => 4,
            Write::Delete => 8,
            Write::Update => 16,
        };
        self.0.iter().copied().filter(move |kind| kind & event != 0)
    }
}

impl CatalogSnapshot {
    pub fn checked_together(&self, relation: Oid) -> &[CheckedTogether] {
        self.checked_together.get(&relation).map_or(&[], Vec::as_slice)
    }

    /// Does writing so run a trigger?
    pub fn fires(&self, relation: Oid, write: Write) -> bool {
        self.triggers.get(&relation).is_some_and(|triggers| triggers.for_event(write).next().is_some())
    }

    /// May a trigger change the row that RETURNING then gives back?
    pub(crate) fn rewrites_rows(&self, relation: Oid, write: Write) -> bool {
        let rewrites = |kind: u16| kind & ROW != 0 && kind & (BEFORE | INSTEAD) != 0;
        self.triggers.get(&relation).is_some_and(|triggers| triggers.for_event(write).any(rewrites))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_counts_for_what_it_fires_for() {
        let mut snapshot = CatalogSnapshot::default();
        // BEFORE UPDATE FOR EACH ROW, AFTER INSERT FOR EACH STATEMENT.
        snapshot.triggers.insert(Oid(1), Triggers(vec![ROW | BEFORE | 16, 4]));
        let fires = |write| (snapshot.fires(Oid(1), write), snapshot.rewrites_rows(Oid(1), write));
        assert_eq!(fires(Write::Update), (true, true));
        assert_eq!(fires(Write::Insert), (true, false));
        assert_eq!(fires(Write::Delete), (false, false));
        assert!(!snapshot.fires(Oid(2), Write::Update));
    }
}
