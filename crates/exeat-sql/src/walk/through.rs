//! Writes through views: the server turns them into writes of the one table behind, with the view's own condition beside
//! the statement's. Taken for such is every view that reads one table and nothing else; whether it is written through is
//! the server's to say, before it looks at any row. The table is no name of the statement's: nothing here says it.

use std::collections::BTreeSet;

use super::{Walk, Walker, relation_property};
use crate::catalog::{ColumnId, Oid, Relation, RelationKind};
use crate::{Flow, SetList, Use, Write, Writing};

impl<'a> Walker<'a> {
    pub(crate) fn written_view(&mut self, view: &'a Relation, writes: &BTreeSet<Write>, at: i32) -> Walk<&'a Relation> {
        let refused = || relation_property(view, "is a view that no write is followed through", at);
        let Some(base) = self.behind(view) else { return refused() };
        // A trigger on a view stands in the place of the write.
        let replaced = |write: &Write| !self.snapshot.trigger_functions(view.oid, *write).is_empty();
        if self.snapshot.facts(view.oid).rules || writes.iter().any(replaced) {
            return refused();
        }
        self.touch_read(view, at)?;
        if self.touch(base, at).and_then(|()| self.written_table(base, writes, at)).is_err() {
            return refused();
        }
        self.facts.writes.insert(view.oid);
        for write in writes {
            let writing = |relation, through| Writing { relation, write: *write, by_merge: false, through };
            self.facts.writing.extend([writing(view.oid, None), writing(base.oid, Some(view.oid))]);
        }
        Ok(view)
    }

    /// The one table that a view reads.
    fn behind(&self, view: &Relation) -> Option<&'a Relation> {
        let lineage = self.snapshot.view_lineage(view.oid)?.as_ref().ok()?;
        let mut reads = lineage.reads.iter();
        let (Some(base), None, true) = (reads.next(), reads.next(), lineage.views.is_empty()) else { return None };
        let base = self.snapshot.relation(*base)?;
        let is_table = matches!(base.kind, RelationKind::Table | RelationKind::PartitionedTable);
        (is_table && !base.is_metadata()).then_some(base)
    }

    /// The table written in a view's place.
    pub(crate) fn table_behind(&self, view: &Relation) -> Option<&'a Relation> {
        let writing = self.facts.writing.iter().find(|writing| writing.through == Some(view.oid))?;
        self.snapshot.relation(writing.relation)
    }

    /// What is written of the view is written of its table. To be called when all of it is known.
    pub(crate) fn written_behind(&mut self, view: &Relation) -> Walk<()> {
        let Some(base) = self.table_behind(view).map(|base| base.oid) else { return Ok(()) };
        let written =
            self.facts.uses.keys().filter(|(column, how)| column.relation == view.oid && *how == Use::Written);
        let all: BTreeSet<i16> = written.map(|(column, _)| column.attribute).collect();
        let lists = self.facts.sets.iter().filter(|set| set.relation == view.oid).map(|set| set.columns.clone());
        let lists: Vec<_> = lists.chain([all]).filter(|list| !list.is_empty()).collect();
        for list in lists {
            self.spend(list.len())?;
            let columns = list.iter().map(|attribute| self.column_behind(view.oid, *attribute, base));
            let Some(columns) = columns.collect::<Option<BTreeSet<i16>>>() else {
                return relation_property(view, "is a view, and a column written is none of its table", super::NOWHERE);
            };
            self.facts.sets.insert(SetList { relation: base, columns });
        }
        Ok(())
    }

    fn column_behind(&self, view: Oid, attribute: i16, base: Oid) -> Option<i16> {
        let lineage = self.snapshot.view_lineage(view)?.as_ref().ok()?;
        let mut made = lineage.columns.get(&attribute)?.iter();
        match (made.next()?, made.next()) {
            ((ColumnId { relation, attribute }, Flow::Bare), None) if *relation == base => Some(*attribute),
            _ => None,
        }
    }
}
