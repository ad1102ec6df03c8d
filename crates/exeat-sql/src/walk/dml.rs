//! INSERT, UPDATE, DELETE: what is written, what it is written from, what RETURNING gives back, and what the
//! target's keys, triggers and rules touch beside it.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    CurrentOfExpr, DeleteStmt, IndexElem, InferClause, InsertStmt, LockStmt, MultiAssignRef, Node, OnConflictAction,
    OnConflictClause, OverridingKind, RangeVar, ResTarget, ReturningClause, ReturningOption, ReturningOptionKind,
    SelectStmt, UpdateStmt,
};

use super::from::alias_parts;
use super::scope::{Item, Level};
use super::select::Target;
use super::{NOWHERE, Walk, Walker, bound, construct, inner, relation_property, unresolved};
use crate::catalog::{ColumnId, ForeignKey, Oid, Relation, RelationKind};
use crate::{SetList, Use, Write, Writing};

pub(crate) type Returned = Option<Vec<Target>>;

impl<'a> Walker<'a> {
    pub(crate) fn insert(&mut self, stmt: &InsertStmt) -> Walk<Returned> {
        let InsertStmt {
            relation: Some(table),
            cols,
            select_stmt,
            on_conflict_clause,
            returning_clause,
            with_clause,
            r#override,
        } = stmt
        else {
            return construct("INSERT of this form", NOWHERE);
        };
        if OverridingKind::try_from(*r#override).is_err() {
            return construct("INSERT with OVERRIDING of this kind", NOWHERE);
        }
        self.levels.push(Level::default());
        if let Some(with) = with_clause {
            self.with_clause(with)?;
        }
        let target = self.target(table, Write::Insert)?;
        self.insert_columns(target, cols)?;
        if let Some(source) = select_stmt {
            let NodeEnum::SelectStmt(source) = inner(source)? else { return construct("INSERT of this form", NOWHERE) };
            self.source(source)?;
            let plain = is_plain_values(source).then_some(source.values_lists.as_slice());
            self.given_rows(target, cols, plain)?;
        }
        let item = self.target_item(target, table)?;
        if let Some(conflict) = on_conflict_clause {
            self.on_conflict(target, &item, conflict)?;
        }
        self.items_mut().push(item);
        let left_out = self.left_out(target, cols)?;
        if left_out.iter().any(|attribute| self.domain_runs_code(target, *attribute)) {
            self.facts.user_code = true;
        }
        self.written_behind(target)?;
        self.returning(target, &left_out, returning_clause)
    }

    /// Columns that a list of an INSERT or a SET does not name.
    pub(crate) fn left_out(&mut self, target: &Relation, cols: &[Node]) -> Walk<BTreeSet<i16>> {
        self.spend(cols.len() + target.columns.len())?;
        let named: BTreeSet<&str> = cols
            .iter()
            .filter_map(|col| match &col.node {
                Some(NodeEnum::ResTarget(assignment)) => Some(assignment.name.as_str()),
                _ => None,
            })
            .collect();
        let left = target.columns.iter().filter(|column| !named.contains(column.name.as_str()));
        Ok(left.map(|column| column.attribute).collect())
    }

    /// A domain's checks look at what it is left at, also at NULL.
    pub(crate) fn domain_runs_code(&self, target: &Relation, attribute: i16) -> bool {
        let of = self.snapshot.column(ColumnId { relation: target.oid, attribute }).map(|known| known.type_oid);
        of.is_none_or(|oid| self.snapshot.base_type(oid) != oid && self.snapshot.cast_runs_code(oid))
    }

    /// What is written: everything the source projects.
    fn source(&mut self, source: &SelectStmt) -> Walk<()> {
        // VALUES of an INSERT may say DEFAULT, which no other VALUES may.
        if is_plain_values(source) {
            return self.value_rows(&source.values_lists);
        }
        let outside = std::mem::replace(&mut self.place, Use::Source);
        let outputs = self.select(source)?;
        self.place = outside;
        outputs.iter().try_for_each(|target| self.consume(&target.value, Use::Source, target.at))
    }

    fn value_rows(&mut self, rows: &[Node]) -> Walk<()> {
        for row in rows {
            let NodeEnum::List(row) = inner(row)? else { return construct("VALUES of this form", NOWHERE) };
            row.items.iter().try_for_each(|item| self.assigned(item))?;
        }
        Ok(())
    }

    /// A value on its way into a column: DEFAULT, or an expression.
    pub(crate) fn assigned(&mut self, node: &Node) -> Walk<()> {
        match inner(node)? {
            NodeEnum::SetToDefault(_) => {
                self.facts.says_default = true;
                Ok(())
            }
            NodeEnum::MultiAssignRef(assign) => {
                let MultiAssignRef { source, colno, ncolumns: _ } = assign.as_ref();
                // Every column of (a, b) = ... carries the same source; it counts once.
                if *colno > 1 { Ok(()) } else { self.multi_source(source) }
            }
            _ => self.expr(node, Use::Source),
        }
    }

    fn multi_source(&mut self, source: &Option<Box<Node>>) -> Walk<()> {
        let Some(source) = source else { return construct("SET (...) of this form", NOWHERE) };
        match inner(source)? {
            NodeEnum::RowExpr(row) => row.args.iter().try_for_each(|node| self.assigned(node)),
            _ => self.expr(source, Use::Source),
        }
    }

    pub(crate) fn insert_columns(&mut self, target: &Relation, cols: &[Node]) -> Walk<()> {
        if cols.is_empty() {
            let all: Vec<_> = target.columns.iter().map(|column| column.attribute).collect();
            return all.into_iter().try_for_each(|attribute| self.written(target, attribute, NOWHERE));
        }
        cols.iter().try_for_each(|col| self.assignment_target(target, col).map(|_| ()))
    }

    /// `col` of an INSERT list or `col = ...` of SET; gives back what is assigned.
    fn assignment_target<'n>(&mut self, target: &Relation, node: &'n Node) -> Walk<Option<&'n Node>> {
        let NodeEnum::ResTarget(assignment) = inner(node)? else {
            return construct("an assignment of this form", NOWHERE);
        };
        let ResTarget { name, indirection, val, location } = assignment.as_ref();
        if !indirection.is_empty() {
            return construct("an assignment to part of a column", *location);
        }
        match self.column_in_sight(target, name) {
            Some(column) => self.written(target, column.attribute, *location)?,
            None => return unresolved(name, *location),
        }
        Ok(val.as_deref())
    }

    pub(crate) fn written(&mut self, target: &Relation, attribute: i16, at: i32) -> Walk<()> {
        let column = ColumnId { relation: target.oid, attribute };
        self.facts.uses.entry((column, Use::Written)).or_insert(at);
        // Reading the new value in may run a domain's checks or a type's own input and cast functions.
        let of = self.snapshot.column(column).map(|known| known.type_oid);
        if of.is_none_or(|oid| self.snapshot.cast_runs_code(oid)) {
            self.facts.user_code = true;
        }
        self.spend(1)
    }

    pub(crate) fn update(&mut self, stmt: &UpdateStmt) -> Walk<Returned> {
        let UpdateStmt { relation: Some(table), target_list, where_clause, from_clause, returning_clause, with_clause } =
            stmt
        else {
            return construct("UPDATE of this form", NOWHERE);
        };
        self.levels.push(Level::default());
        if let Some(with) = with_clause {
            self.with_clause(with)?;
        }
        let target = self.target(table, Write::Update)?;
        self.target_and_from(target, table, from_clause)?;
        self.set_list(target, target_list)?;
        self.limited(target, table, where_clause.as_deref());
        self.chosen(where_clause)?;
        self.written_behind(target)?;
        self.returning(target, &BTreeSet::new(), returning_clause)
    }

    /// Notes a write that its condition does not limit to some rows.
    pub(crate) fn limited(&mut self, target: &Relation, table: &RangeVar, condition: Option<&Node>) {
        if !bound::is_limited(target, bound::target_name(target, table), condition) {
            self.facts.unbounded.entry(target.oid).or_insert(table.location);
        }
    }

    pub(crate) fn set_list(&mut self, target: &Relation, list: &[Node]) -> Walk<()> {
        for node in list {
            match self.assignment_target(target, node)? {
                Some(value) => self.assigned(value)?,
                None => return construct("SET of this form", NOWHERE),
            }
        }
        self.given_list(target, list)?;
        let left = self.left_out(target, list)?;
        let columns = target.columns.iter().map(|column| column.attribute).filter(|column| !left.contains(column));
        self.facts.sets.insert(SetList { relation: target.oid, columns: columns.collect() });
        Ok(())
    }

    /// LOCK reads nothing, and makes others wait as FOR UPDATE does. A view stands for what is behind it.
    pub(crate) fn lock(&mut self, stmt: &LockStmt) -> Walk<()> {
        let LockStmt { relations, mode: _, nowait: _ } = stmt;
        for node in relations {
            let NodeEnum::RangeVar(table) = inner(node)? else { return construct("LOCK of this form", NOWHERE) };
            let relation = self.relation(table)?;
            self.touch_read(relation, table.location)?;
        }
        self.facts.locks_rows = true;
        Ok(())
    }

    /// Which rows an UPDATE or DELETE changes: those that a condition chooses, or the one a cursor stands on.
    fn chosen(&mut self, condition: &Option<Box<Node>>) -> Walk<()> {
        if let Some(NodeEnum::CurrentOfExpr(current)) = condition.as_ref().and_then(|node| node.node.as_ref()) {
            let CurrentOfExpr { xpr: _, cvarno: _, cursor_name, cursor_param } = current.as_ref();
            if cursor_name.is_empty() || *cursor_param != 0 || self.facts.positioned.is_some() {
                return construct("CURRENT OF of this form", NOWHERE);
            }
            self.facts.positioned = Some(cursor_name.clone());
            return Ok(());
        }
        self.optional(condition, Use::Predicate)
    }

    pub(crate) fn delete(&mut self, stmt: &DeleteStmt) -> Walk<Returned> {
        let DeleteStmt { relation: Some(table), using_clause, where_clause, returning_clause, with_clause } = stmt
        else {
            return construct("DELETE of this form", NOWHERE);
        };
        self.levels.push(Level::default());
        if let Some(with) = with_clause {
            self.with_clause(with)?;
        }
        let target = self.target(table, Write::Delete)?;
        self.target_and_from(target, table, using_clause)?;
        self.limited(target, table, where_clause.as_deref());
        self.chosen(where_clause)?;
        self.written_behind(target)?;
        self.returning(target, &BTreeSet::new(), returning_clause)
    }

    /// The target in sight with the FROM items, though not from inside them.
    fn target_and_from(&mut self, target: &'a Relation, table: &RangeVar, from: &[Node]) -> Walk<()> {
        let mut item = self.target_item(target, table)?;
        (item.lateral_only, item.lateral_ok) = (true, false);
        self.items_mut().push(item);
        self.read_from(from)
    }

    pub(crate) fn target_item(&mut self, target: &'a Relation, table: &RangeVar) -> Walk<Item> {
        let (alias, names) = alias_parts(&table.alias)?;
        self.relation_item(target, (alias, &names), table.location)
    }

    /// Resolves the relation written to and notes all that writing it touches.
    pub(crate) fn target(&mut self, table: &RangeVar, write: Write) -> Walk<&'a Relation> {
        self.written_relation(table, &BTreeSet::from([write]), false)
    }

    pub(crate) fn merge_target(&mut self, table: &RangeVar, writes: &BTreeSet<Write>) -> Walk<&'a Relation> {
        self.written_relation(table, writes, true)
    }

    fn written_relation(&mut self, table: &RangeVar, writes: &BTreeSet<Write>, by_merge: bool) -> Walk<&'a Relation> {
        let at = table.location;
        let hidden = table.schemaname.is_empty() && self.cte_in_sight(&table.relname, at)?.is_some();
        if hidden {
            return construct("a write to a WITH query", at);
        }
        let target = self.relation(table)?;
        if target.is_metadata() {
            return relation_property(target, "is part of the system catalogs", at);
        }
        match target.kind {
            RelationKind::Table | RelationKind::PartitionedTable => {}
            RelationKind::View if !by_merge => return self.written_view(target, writes, at),
            RelationKind::View | RelationKind::MaterializedView => {
                return relation_property(target, "is a view that no write of this kind is followed through", at);
            }
            RelationKind::ForeignTable => return relation_property(target, "is a foreign table", at),
            RelationKind::Sequence | RelationKind::CompositeType => return unresolved(&target.name, at),
        }
        self.touch(target, at)?;
        self.written_table(target, writes, at)?;
        self.facts.writes.insert(target.oid);
        for write in writes {
            self.facts.writing.insert(Writing { relation: target.oid, write: *write, by_merge, through: None });
        }
        Ok(target)
    }

    /// What writing a table touches beside its rows.
    pub(crate) fn written_table(&mut self, target: &Relation, writes: &BTreeSet<Write>, at: i32) -> Walk<()> {
        let mut members = self.snapshot.family(target.oid);
        members.insert(target.oid);
        for member in &members {
            let facts = self.snapshot.facts(*member);
            if facts.rules {
                return relation_property(target, "has rules", at);
            }
            self.facts.user_code |= facts.calls_user_code;
        }
        writes.iter().for_each(|write| self.run_triggers(target, *write));
        writes.iter().try_for_each(|write| self.foreign_keys(&members, *write))
    }

    fn run_triggers(&mut self, target: &Relation, write: Write) {
        let functions = self.snapshot.trigger_functions(target.oid, write);
        self.facts.user_code |= !functions.is_empty();
        self.facts.functions.extend(functions);
    }

    /// A foreign key looks up the other side's columns; ON UPDATE and ON DELETE actions change its rows.
    fn foreign_keys(&mut self, members: &BTreeSet<Oid>, write: Write) -> Walk<()> {
        let snapshot = self.snapshot;
        if write != Write::Delete {
            for key in members.iter().flat_map(|member| snapshot.foreign_keys_of(*member)) {
                self.looked_up(key.target, &key.target_columns, Use::Referenced)?;
            }
        }
        if write == Write::Insert {
            return Ok(());
        }
        let acts = |key: &ForeignKey| if write == Write::Delete { key.delete_acts } else { key.update_acts };
        let mut open: Vec<Oid> = members.iter().copied().collect();
        let mut changed = members.clone();
        while let Some(relation) = open.pop() {
            for key in snapshot.foreign_keys_to(relation) {
                self.looked_up(key.relation, &key.columns, Use::Key)?;
                if !acts(key) {
                    continue;
                }
                if changed.insert(key.relation) {
                    // Its own triggers, rules and keys come into play as well.
                    self.facts.changes.insert(key.relation);
                    self.facts.changes.extend(snapshot.family(key.relation));
                    self.facts.user_code = true;
                    open.push(key.relation);
                } else {
                    // Rows of what is written already: of the whole tree below one of them, say.
                    self.facts.writes_aside = true;
                }
            }
        }
        Ok(())
    }

    fn looked_up(&mut self, relation: Oid, columns: &[i16], how: Use) -> Walk<()> {
        self.spend(columns.len() + 1)?;
        for attribute in columns {
            let column = ColumnId { relation, attribute: *attribute };
            self.facts.uses.entry((column, how)).or_insert(NOWHERE);
        }
        Ok(())
    }

    fn on_conflict(&mut self, target: &'a Relation, item: &Item, clause: &OnConflictClause) -> Walk<()> {
        let OnConflictClause { action, infer, target_list, where_clause, location } = clause;
        let updates = match OnConflictAction::try_from(*action) {
            Ok(OnConflictAction::OnconflictNothing) => false,
            Ok(OnConflictAction::OnconflictUpdate) => true,
            _ => return construct("ON CONFLICT of this kind", *location),
        };
        self.items_mut().push(item.clone());
        if let Some(infer) = infer {
            self.infer(target, infer)?;
        }
        if updates {
            let at = *location;
            if self.table_behind(target).is_some() {
                return relation_property(target, "is a view that no write of this kind is followed through", at);
            }
            self.foreign_keys(&BTreeSet::from([target.oid]), Write::Update)?;
            self.run_triggers(target, Write::Update);
            self.facts.writing.insert(Writing {
                relation: target.oid,
                write: Write::Update,
                by_merge: false,
                through: None,
            });
            let excluded = self.proposed(target);
            self.items_mut().push(excluded);
            self.set_list(target, target_list)?;
            self.optional(where_clause, Use::Predicate)?;
            if target_list.is_empty() {
                return construct("ON CONFLICT of this form", at);
            }
        }
        self.items_mut().clear();
        Ok(())
    }

    fn infer(&mut self, target: &Relation, infer: &InferClause) -> Walk<()> {
        let InferClause { index_elems, where_clause, conname, location } = infer;
        if !conname.is_empty() {
            return construct("ON CONFLICT ON CONSTRAINT", *location);
        }
        for node in index_elems {
            let NodeEnum::IndexElem(element) = inner(node)? else {
                return construct("ON CONFLICT of this form", *location);
            };
            let IndexElem { name, expr: None, indexcolname: _, collation: _, opclass, opclassopts, .. } =
                element.as_ref()
            else {
                return construct("ON CONFLICT on an expression", *location);
            };
            if !opclass.is_empty() || !opclassopts.is_empty() {
                return construct("ON CONFLICT with an operator class", *location);
            }
            let Some(column) = self.column_in_sight(target, name) else { return unresolved(name, *location) };
            self.record(ColumnId { relation: target.oid, attribute: column.attribute }, Use::Key, *location)?;
        }
        self.optional(where_clause, Use::Predicate)
    }

    /// `left_out`: the columns that the statement leaves to their defaults, beside those it says DEFAULT for.
    pub(crate) fn returning(
        &mut self,
        target: &'a Relation,
        left_out: &BTreeSet<i16>,
        clause: &Option<ReturningClause>,
    ) -> Walk<Returned> {
        let Some(ReturningClause { options, exprs }) = clause else { return Ok(None) };
        let aliases = self.row_aliases(options)?;
        let behind = self.table_behind(target);
        let stored = behind.unwrap_or(target);
        let set = self.set_names(stored);
        let rewrites = |writing: &Writing| {
            writing.relation == stored.oid && self.snapshot.rewrites_rows(stored.oid, writing.write, &set)
        };
        self.facts.rewritten |= self.facts.writing.iter().any(rewrites);
        let runs_code = |attribute| self.snapshot.default_runs_code(ColumnId { relation: target.oid, attribute });
        let filled = target.columns.iter().map(|column| column.attribute);
        if filled.filter(|at| self.facts.says_default || left_out.contains(at)).any(runs_code) {
            return relation_property(target, "has a default that calls code which is not analysed", NOWHERE);
        }
        if let Some(base) = behind {
            let mut columns =
                base.columns.iter().map(|column| ColumnId { relation: base.oid, attribute: column.attribute });
            if columns.any(|column| self.snapshot.default_runs_code(column)) {
                return relation_property(target, "is a view, and a default calls code which is not analysed", NOWHERE);
            }
        }
        // Both hold values of the same columns, as those are before and after; `*` does not stand for them.
        for alias in aliases {
            let item = self.uncounted(|walker| walker.relation_item(target, (Some(&alias), &[]), NOWHERE))?;
            self.items_mut().push(Item { columns_visible: false, ..item });
        }
        let targets = self.target_list(exprs)?;
        self.facts.reads.insert(target.oid);
        Ok(Some(targets))
    }

    /// The columns that SET lists of the statement name, which triggers may be for.
    fn set_names(&self, target: &'a Relation) -> BTreeSet<&'a str> {
        let lists = || self.facts.sets.iter().filter(|set| set.relation == target.oid);
        let named = target.columns.iter().filter(|column| lists().any(|set| set.columns.contains(&column.attribute)));
        named.map(|column| column.name.as_str()).collect()
    }

    /// What PostgreSQL 18 lets stand for the row before and after; up to 17 the server knows no such names.
    fn row_aliases(&mut self, options: &[Node]) -> Walk<Vec<String>> {
        let (mut old, mut new) = (None, None);
        for node in options {
            let NodeEnum::ReturningOption(ReturningOption { option, value, location }) = inner(node)? else {
                return construct("RETURNING WITH of this form", NOWHERE);
            };
            let alias = match ReturningOptionKind::try_from(*option) {
                Ok(ReturningOptionKind::ReturningOptionOld) => &mut old,
                Ok(ReturningOptionKind::ReturningOptionNew) => &mut new,
                Ok(ReturningOptionKind::Undefined) | Err(_) => {
                    return construct("RETURNING WITH of this form", *location);
                }
            };
            if alias.replace(value.clone()).is_some() {
                return construct("RETURNING WITH two names for one row", *location);
            }
        }
        let aliases = [old.unwrap_or_else(|| "old".to_owned()), new.unwrap_or_else(|| "new".to_owned())];
        // A table of that name hides the row or makes the name ambiguous, as the version has it.
        let [old, new] = &aliases;
        let taken = |item: &Item| item.name.as_deref().is_some_and(|name| name == old || name == new);
        if old == new || self.items_mut().iter().any(taken) {
            return construct("RETURNING with a table called old or new", NOWHERE);
        }
        Ok(aliases.into())
    }
}

/// VALUES alone, each of which is one row to write.
fn is_plain_values(source: &SelectStmt) -> bool {
    let no_limit = source.limit_count.is_none() && source.limit_offset.is_none();
    let alone = source.with_clause.is_none() && source.sort_clause.is_empty() && source.locking_clause.is_empty();
    !source.values_lists.is_empty() && no_limit && alone
}
