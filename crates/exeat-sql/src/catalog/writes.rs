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

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    /// pg_trigger.tgtype.
    pub(crate) kind: u16,
    pub(crate) function: Oid,
    pub(crate) definition: String,
}

/// The triggers of one relation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Triggers(pub(crate) Vec<Trigger>);

impl Triggers {
    fn for_event(&self, write: Write) -> impl Iterator<Item = &Trigger> {
        let event = match write {
            Write::Insert => 4,
            Write::Delete => 8,
            Write::Update => 16,
        };
        self.0.iter().filter(move |trigger| trigger.kind & event != 0)
    }
}

impl CatalogSnapshot {
    pub fn checked_together(&self, relation: Oid) -> &[CheckedTogether] {
        self.checked_together.get(&relation).map_or(&[], Vec::as_slice)
    }

    /// Does writing so run a trigger that the operator does not vouch for?
    pub fn fires(&self, relation: Oid, write: Write) -> bool {
        self.run_by(relation, write).any(|trigger| !self.trusts_trigger(relation, &trigger.name))
    }

    /// The functions of all triggers that writing so runs.
    pub(crate) fn trigger_functions(&self, relation: Oid, write: Write) -> impl Iterator<Item = Oid> {
        self.run_by(relation, write).map(|trigger| trigger.function)
    }

    fn run_by(&self, relation: Oid, write: Write) -> impl Iterator<Item = &Trigger> {
        self.triggers.get(&relation).into_iter().flat_map(move |triggers| triggers.for_event(write))
    }

    /// May a trigger that the operator does not vouch for change the row that RETURNING then gives back?
    pub(crate) fn rewrites_rows(&self, relation: Oid, write: Write) -> bool {
        let rewrites = |kind: u16| kind & ROW != 0 && kind & (BEFORE | INSTEAD) != 0;
        self.run_by(relation, write)
            .any(|trigger| rewrites(trigger.kind) && !self.trusts_trigger(relation, &trigger.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_counts_for_what_it_fires_for() {
        let mut snapshot = CatalogSnapshot::default();
        // BEFORE UPDATE FOR EACH ROW, AFTER INSERT FOR EACH STATEMENT.
        let trigger = |kind| Trigger { name: "t".to_owned(), kind, function: Oid(9), definition: String::new() };
        snapshot.triggers.insert(Oid(1), Triggers(vec![trigger(ROW | BEFORE | 16), trigger(4)]));
        let fires = |write| (snapshot.fires(Oid(1), write), snapshot.rewrites_rows(Oid(1), write));
        assert_eq!(fires(Write::Update), (true, true));
        assert_eq!(fires(Write::Insert), (true, false));
        assert_eq!(fires(Write::Delete), (false, false));
        assert!(!snapshot.fires(Oid(2), Write::Update));
    }
}
