//! What a write makes the server look at beside what is written: triggers by what they fire for, and columns that one
//! index, constraint or partition key looks at together.

use std::collections::BTreeSet;

use super::{CatalogSnapshot, Oid, Relation, RelationKind};
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
    /// UPDATE OF these; of any column where there are none.
    pub(crate) columns: Vec<i16>,
}

impl Trigger {
    fn is_for(&self, write: Write) -> bool {
        let event = match write {
            Write::Insert => 4,
            Write::Delete => 8,
            Write::Update => 16,
        };
        self.kind & event != 0
    }

    /// Whether it may change the row.
    fn rewrites(&self) -> bool {
        self.kind & ROW != 0 && self.kind & (BEFORE | INSTEAD) != 0
    }

    /// Whether a SET list of these columns is one that it is for. What other triggers change beside it does not count,
    /// but a generated column may be made anew by any of them.
    fn looks_at(&self, relation: &Relation, set: &BTreeSet<&str>) -> bool {
        let listed = |attribute: &i16| {
            let column = relation.columns.iter().find(|column| column.attribute == *attribute);
            column.is_none_or(|column| column.generated.is_some() || set.contains(column.name.as_str()))
        };
        self.columns.is_empty() || self.columns.iter().any(listed)
    }
}

/// The triggers of one relation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Triggers(pub(crate) Vec<Trigger>);

impl CatalogSnapshot {
    pub fn checked_together(&self, relation: Oid) -> &[CheckedTogether] {
        self.checked_together.get(&relation).map_or(&[], Vec::as_slice)
    }

    /// Does writing so to `target`, or to what its rows are stored in, run a trigger that the operator does not vouch for?
    /// `set`: the columns that SET lists name; of partitions too, whose columns go by the same names.
    pub fn fires(&self, target: Oid, write: Write, set: &BTreeSet<&str>) -> bool {
        self.run_by(target, write, Some(set)).iter().any(|(of, trigger)| !self.trusts_trigger(*of, &trigger.name))
    }

    /// The functions of all triggers that writing so may run, whichever columns it sets.
    pub(crate) fn trigger_functions(&self, target: Oid, write: Write) -> BTreeSet<Oid> {
        self.run_by(target, write, None).into_iter().map(|(_, trigger)| trigger.function).collect()
    }

    /// May a trigger that the operator does not vouch for change the row that RETURNING then gives back?
    pub(crate) fn rewrites_rows(&self, target: Oid, write: Write, set: &BTreeSet<&str>) -> bool {
        let run = self.run_by(target, write, Some(set));
        run.iter().any(|(of, trigger)| trigger.rewrites() && !self.trusts_trigger(*of, &trigger.name))
    }

    fn run_by(&self, target: Oid, write: Write, set: Option<&BTreeSet<&str>>) -> Vec<(Oid, &Trigger)> {
        let mut family = self.family(target);
        family.insert(target);
        let all = |write: Write| {
            let members = family.iter().filter_map(|oid| Some((*oid, self.relation(*oid)?, self.triggers.get(oid)?)));
            members.flat_map(move |(oid, relation, triggers)| {
                let runs = move |trigger: &&Trigger| {
                    trigger.is_for(write)
                        && (write != Write::Update || set.is_none_or(|set| trigger.looks_at(relation, set)))
                };
                triggers.0.iter().filter(runs).map(move |trigger| (oid, trigger))
            })
        };
        let mut run: Vec<_> = all(write).collect();
        if write == Write::Update && self.may_move(&family, set, run.iter().any(|(_, trigger)| trigger.rewrites())) {
            // A row that goes to another partition is deleted here and inserted there.
            run.extend(all(Write::Delete));
            run.extend(all(Write::Insert));
        }
        run
    }

    /// Whether an UPDATE may give a row a partition key of another partition.
    fn may_move(&self, family: &BTreeSet<Oid>, set: Option<&BTreeSet<&str>>, rewritten: bool) -> bool {
        let partitioned = family.iter().filter_map(|oid| self.relation(*oid));
        let mut partitioned = partitioned.filter(|relation| relation.kind == RelationKind::PartitionedTable).peekable();
        let Some(set) = set.filter(|_| !rewritten) else { return partitioned.peek().is_some() };
        partitioned.any(|relation| {
            let mut keyed = self.checked_together(relation.oid).iter().flat_map(|together| &together.columns);
            keyed.any(|attribute| {
                let column = relation.columns.iter().find(|column| column.attribute == *attribute);
                column.is_none_or(|column| set.contains(column.name.as_str()))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Column;

    const TABLE: Oid = Oid(1);
    const OTHER: Oid = Oid(2);

    /// BEFORE UPDATE OF b FOR EACH ROW, AFTER INSERT FOR EACH STATEMENT, on a table of a and b.
    fn snapshot(kind: RelationKind) -> CatalogSnapshot {
        let mut snapshot = CatalogSnapshot::default();
        let trigger = |kind, columns| {
            let (name, definition) = ("t".to_owned(), String::new());
            Trigger { name, kind, function: Oid(9), definition, columns }
        };
        snapshot.triggers.insert(TABLE, Triggers(vec![trigger(ROW | BEFORE | 16, vec![2]), trigger(4, vec![])]));
        let column =
            |attribute, name: &str| Column { attribute, name: name.to_owned(), type_oid: Oid(25), generated: None };
        for oid in [TABLE, OTHER] {
            let (schema_name, name) = ("public".to_owned(), format!("t{}", oid.0));
            let columns = vec![column(1, "a"), column(2, "b"), column(3, "c")];
            snapshot.relations.insert(oid, Relation { oid, schema: Oid(2200), schema_name, name, kind, columns });
        }
        let key = CheckedTogether { columns: vec![1], unique: false, plain: false };
        snapshot.checked_together.insert(TABLE, vec![key]);
        snapshot
    }

    #[test]
    fn a_trigger_counts_for_what_it_fires_for() {
        let snapshot = snapshot(RelationKind::Table);
        let fires = |write, set: &[&str]| {
            let set = set.iter().copied().collect();
            (snapshot.fires(TABLE, write, &set), snapshot.rewrites_rows(TABLE, write, &set))
        };
        assert_eq!(fires(Write::Update, &["b"]), (true, true));
        assert_eq!(fires(Write::Update, &["a", "c"]), (false, false));
        assert_eq!(fires(Write::Insert, &[]), (true, false));
        assert_eq!(fires(Write::Delete, &[]), (false, false));
        assert!(!snapshot.fires(OTHER, Write::Update, &BTreeSet::from(["b"])));
    }

    #[test]
    fn a_row_that_changes_its_partition_is_inserted() {
        let snapshot = snapshot(RelationKind::PartitionedTable);
        let fires = |column| snapshot.fires(TABLE, Write::Update, &BTreeSet::from([column]));
        assert!(fires("a") && fires("b"));
        assert!(!fires("c"));
    }
}
