//! SELECT, VALUES and set operations: what a query level reads and the value of each of its output columns.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    LimitOption, LockClauseStrength, LockWaitPolicy, LockingClause, Node, ResTarget, SelectStmt, SetOperation,
};

use super::column::Resolved;
use super::scope::{Columns, Level, Value};
use super::{COLUMNS_MAX, NOWHERE, Walk, Walker, construct, inner, naming};
use crate::{Origin, Output, Use};

/// One output column.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: Rc<str>,
    pub(crate) value: Value,
    pub(crate) at: i32,
}

impl Target {
    pub(crate) fn output(&self) -> Output {
        Output {
            origin: self.value.origin,
            flows: self.value.flows.list().iter().map(|stream| (stream.column, stream.how)).collect(),
            name: Some(self.name.to_string()),
            at: None,
        }
    }
}

/// Outputs as the columns of a sub-select.
pub(crate) fn columns_of(targets: &[Target]) -> Rc<Columns> {
    Rc::new(Columns::new(targets.iter().map(|target| (target.name.clone(), target.value.clone())).collect()))
}

impl Walker<'_> {
    /// Reads a query; what its outputs are used for is the caller's to say.
    pub(crate) fn select(&mut self, stmt: &SelectStmt) -> Walk<Vec<Target>> {
        self.deeper(|walker| {
            walker.levels.push(Level::default());
            let targets = walker.counting(|walker| walker.select_body(stmt))?;
            walker.levels.pop();
            Ok(targets)
        })
    }

    fn select_body(&mut self, stmt: &SelectStmt) -> Walk<Vec<Target>> {
        // Before WITH, whose queries are none.
        let outermost = std::mem::take(&mut self.outermost);
        if stmt.into_clause.is_some() {
            return construct("SELECT INTO", NOWHERE);
        }
        if let Some(with) = &stmt.with_clause {
            self.with_clause(with)?;
        }
        let targets = match SetOperation::try_from(stmt.op) {
            Ok(SetOperation::SetopNone) if stmt.values_lists.is_empty() => self.plain(stmt, outermost)?,
            Ok(SetOperation::SetopNone) => self.values(stmt)?,
            Ok(SetOperation::SetopUnion | SetOperation::SetopIntersect | SetOperation::SetopExcept) => {
                self.set_operation(stmt)?
            }
            Ok(SetOperation::Undefined) | Err(_) => return construct("a set operation of this kind", NOWHERE),
        };
        if targets.len() > COLUMNS_MAX {
            return construct("a result of more than 1664 columns", NOWHERE);
        }
        Ok(targets)
    }

    fn plain(&mut self, stmt: &SelectStmt, outermost: bool) -> Walk<Vec<Target>> {
        let before_from = self.settings_uses();
        self.read_from(&stmt.from_clause)?;
        let in_from = self.settings_uses() > before_from;
        let targets = self.target_list(&stmt.target_list)?;
        self.uncounted(|walker| walker.clauses(stmt, &targets, (outermost, in_from)))?;
        self.settle_whole(stmt)?;
        Ok(targets)
    }

    /// What chooses, groups and sorts the rows of a plain SELECT.
    fn clauses(&mut self, stmt: &SelectStmt, targets: &[Target], (outermost, in_from): (bool, bool)) -> Walk<()> {
        let SelectStmt {
            distinct_clause,
            into_clause: _,
            target_list: _,
            from_clause: _,
            where_clause,
            group_clause,
            group_distinct: _,
            having_clause,
            window_clause,
            values_lists: _,
            sort_clause,
            limit_offset,
            limit_count,
            limit_option,
            locking_clause,
            with_clause: _,
            op: _,
            all: _,
            larg: None,
            rarg: None,
        } = stmt
        else {
            return construct("a set operation of this form", NOWHERE);
        };
        let before_where = self.settings_uses();
        match where_clause.as_deref() {
            Some(condition) if outermost => self.condition(condition)?,
            Some(_) | None => self.optional(where_clause, Use::Predicate)?,
        }
        let used = in_from || self.settings_uses() > before_where;
        self.settings_bounded(where_clause.as_deref(), used)?;
        self.optional(having_clause, Use::Predicate)?;
        for node in group_clause {
            self.group_item(node, targets)?;
        }
        for node in window_clause {
            let NodeEnum::WindowDef(window) = inner(node)? else { return construct("a WINDOW clause", NOWHERE) };
            self.window(window)?;
        }
        self.order_by(sort_clause, targets)?;
        self.distinct(distinct_clause, targets)?;
        self.limits(limit_offset, limit_count, *limit_option)?;
        self.locking(locking_clause)
    }

    pub(crate) fn optional(&mut self, node: &Option<Box<Node>>, how: Use) -> Walk<()> {
        node.as_deref().map_or(Ok(()), |node| self.expr(node, how))
    }

    fn limits(&mut self, offset: &Option<Box<Node>>, count: &Option<Box<Node>>, option: i32) -> Walk<()> {
        match LimitOption::try_from(option) {
            Ok(LimitOption::Default | LimitOption::Count | LimitOption::WithTies) => {}
            // The grammar leaves it unset where there is no LIMIT.
            Ok(LimitOption::Undefined) if offset.is_none() && count.is_none() => {}
            Ok(LimitOption::Undefined) | Err(_) => return construct("a LIMIT of this kind", NOWHERE),
        }
        self.optional(offset, Use::Predicate)?;
        self.optional(count, Use::Predicate)
    }

    /// FOR UPDATE and its kin name tables, not columns; the server checks the names.
    fn locking(&mut self, clauses: &[Node]) -> Walk<()> {
        for clause in clauses {
            let NodeEnum::LockingClause(LockingClause { locked_rels: _, strength, wait_policy }) = inner(clause)?
            else {
                return construct("a locking clause of this form", NOWHERE);
            };
            if LockClauseStrength::try_from(*strength).is_err() || LockWaitPolicy::try_from(*wait_policy).is_err() {
                return construct("a locking clause of this kind", NOWHERE);
            }
            self.facts.locks_rows = true;
        }
        Ok(())
    }

    /// A target list or RETURNING: stars expanded, bare columns kept bare.
    pub(crate) fn target_list(&mut self, nodes: &[Node]) -> Walk<Vec<Target>> {
        let mut targets = Vec::with_capacity(nodes.len());
        for node in nodes {
            let NodeEnum::ResTarget(output) = inner(node)? else {
                return construct("an output column of this form", NOWHERE);
            };
            let ResTarget { name, indirection, val: Some(val), location } = output.as_ref() else {
                return construct("an output column without a value", output.location);
            };
            if !indirection.is_empty() {
                return construct("an output column of this form", *location);
            }
            if let NodeEnum::ColumnRef(reference) = inner(val)?
                && matches!(reference.fields.last().and_then(|field| field.node.as_ref()), Some(NodeEnum::AStar(_)))
            {
                if let [_] = reference.fields.as_slice() {
                    self.note_stars(reference.location);
                }
                let columns = self.resolve(reference)?;
                self.expand(columns, *location, &mut targets)?;
                continue;
            }
            let value = self.holds_target(val, |walker| walker.value(val))?;
            let name = match name.as_str() {
                "" => naming::figure(val, &self.link_names, self.snapshot.server_version()),
                alias => alias.to_owned(),
            };
            targets.push(Target { name: Rc::from(name), value, at: *location });
        }
        Ok(targets)
    }

    /// `*` alone names every column of every item.
    fn note_stars(&mut self, at: i32) {
        let items = self.levels.last().into_iter().flat_map(|level| &level.items);
        let relations = items.filter_map(|item| item.relation);
        relations.for_each(|relation| {
            self.facts.stars.entry(relation).or_insert(at);
        });
    }

    /// `*` and `t.*` in a target list.
    fn expand(&mut self, columns: Resolved, at: i32, targets: &mut Vec<Target>) -> Walk<()> {
        let lists: Vec<Rc<Columns>> = match columns {
            Resolved::Row(columns) => vec![columns],
            Resolved::Everything => {
                let items = self.levels.last().into_iter().flat_map(|level| &level.items);
                items.filter(|item| item.columns_visible).map(|item| item.columns.clone()).collect()
            }
            Resolved::Column(_) => return construct("a star of this form", at),
        };
        for (name, value) in lists.iter().flat_map(|columns| columns.list()) {
            self.spend(1)?;
            if targets.len() > COLUMNS_MAX {
                return construct("a result of more than 1664 columns", at);
            }
            targets.push(Target { name: name.clone(), value: value.clone(), at });
        }
        Ok(())
    }

    /// VALUES (..), (..): columns are column1, column2...
    fn values(&mut self, stmt: &SelectStmt) -> Walk<Vec<Target>> {
        let SelectStmt { values_lists, sort_clause, limit_offset, limit_count, limit_option, locking_clause, .. } =
            stmt;
        let rest_empty = stmt.distinct_clause.is_empty()
            && stmt.target_list.is_empty()
            && stmt.from_clause.is_empty()
            && stmt.where_clause.is_none()
            && stmt.group_clause.is_empty()
            && stmt.having_clause.is_none()
            && stmt.window_clause.is_empty()
            && stmt.larg.is_none()
            && stmt.rarg.is_none();
        if !rest_empty || !locking_clause.is_empty() {
            return construct("VALUES of this form", NOWHERE);
        }
        let mut columns: Vec<Value> = Vec::new();
        for (place, list) in values_lists.iter().enumerate() {
            let NodeEnum::List(list) = inner(list)? else { return construct("VALUES of this form", NOWHERE) };
            let row = list.items.iter().map(|item| self.value(item)).collect::<Walk<Vec<_>>>()?;
            columns = if place == 0 { row } else { self.united_values(&columns, &row)? };
        }
        let named = columns.into_iter().enumerate().map(|(place, value)| Target {
            name: Rc::from(format!("column{}", place + 1)),
            value: Value { origin: Origin::None, ..value },
            at: NOWHERE,
        });
        let targets: Vec<Target> = named.collect();
        self.set_order_by(sort_clause, &targets)?;
        self.limits(limit_offset, limit_count, *limit_option)?;
        Ok(targets)
    }

    /// UNION, INTERSECT, EXCEPT: the server announces no origin for the result; what each branch projects is used.
    fn set_operation(&mut self, stmt: &SelectStmt) -> Walk<Vec<Target>> {
        let SelectStmt { larg: Some(left), rarg: Some(right), sort_clause, limit_offset, limit_count, .. } = stmt
        else {
            return construct("a set operation of this form", NOWHERE);
        };
        let rest_empty = stmt.distinct_clause.is_empty()
            && stmt.target_list.is_empty()
            && stmt.from_clause.is_empty()
            && stmt.where_clause.is_none()
            && stmt.group_clause.is_empty()
            && stmt.having_clause.is_none()
            && stmt.window_clause.is_empty()
            && stmt.values_lists.is_empty();
        if !rest_empty || !stmt.locking_clause.is_empty() {
            return construct("a set operation of this form", NOWHERE);
        }
        let compares = compares(stmt);
        let (left, in_left) = self.counting_apart(|walker| walker.branch(left, compares))?;
        let (right, in_right) = self.counting_apart(|walker| walker.branch(right, compares))?;
        self.holds_either(in_left, &in_right)?;
        self.settle_whole(stmt)?;
        let targets = self.united_outputs(&left, &right)?;
        self.set_order_by(sort_clause, &targets)?;
        self.limits(limit_offset, limit_count, stmt.limit_option)?;
        Ok(targets)
    }

    /// One branch of a set operation; one that compares rows uses all outputs as keys.
    pub(crate) fn branch(&mut self, stmt: &SelectStmt, compares: bool) -> Walk<Vec<Target>> {
        let outputs = self.select(stmt)?;
        if compares {
            self.check_sorting(NOWHERE)?;
            outputs.iter().try_for_each(|target| self.consume(&target.value, Use::Key, target.at))?;
        }
        Ok(outputs)
    }

    /// The outputs of both branches under the names of the first: the server announces no origin for them.
    pub(crate) fn united_outputs(&mut self, left: &[Target], right: &[Target]) -> Walk<Vec<Target>> {
        let values = |targets: &[Target]| targets.iter().map(|target| target.value.clone()).collect::<Vec<_>>();
        let united = self.united_values(&values(left), &values(right))?;
        let named = left.iter().zip(united);
        Ok(named.map(|(target, value)| Target { value, ..target.clone() }).collect())
    }

    /// Where one has more columns than the other the server refuses both.
    fn united_values(&mut self, left: &[Value], right: &[Value]) -> Walk<Vec<Value>> {
        left.iter().zip(right).map(|(left, right)| self.alternatives([left, right])).collect()
    }
}

/// UNION ALL only passes values on; everything else compares them.
pub(crate) fn compares(stmt: &SelectStmt) -> bool {
    stmt.op != SetOperation::SetopUnion as i32 || !stmt.all
}
