//! SELECT, VALUES and set operations: what a query level reads and the value of each of its output columns.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    LimitOption, LockClauseStrength, LockWaitPolicy, LockingClause, Node, ResTarget, SelectStmt, SetOperation,
};

use super::column::Resolved;
use super::scope::{Columns, Level, Value};
use super::{COLUMNS_MAX, NOWHERE, Walk, Walker, construct, inner, naming};
use crate::Use;

/// One output column.
#[derive(Debug, Clone)]
pub(crate) struct Target<'s> {
    pub(crate) name: Rc<str>,
    pub(crate) value: Value,
    /// Its expression, where it has one of its own; a column that came out of `*` has none.
    pub(crate) node: Option<&'s Node>,
    pub(crate) at: i32,
}

impl<'s> Target<'s> {
    pub(crate) fn computed(name: &str) -> Self {
        Self { name: Rc::from(name), value: Value::computed(), node: None, at: NOWHERE }
    }
}

/// Outputs as the columns of a sub-select.
pub(crate) fn columns_of(targets: &[Target<'_>]) -> Rc<Columns> {
    Rc::new(Columns::new(targets.iter().map(|target| (target.name.clone(), target.value.clone())).collect()))
}

impl Walker<'_> {
    /// `how`: the use made of columns inside computed outputs. Bare outputs are left to the caller.
    pub(crate) fn select<'s>(&mut self, stmt: &'s SelectStmt, how: Use) -> Walk<Vec<Target<'s>>> {
        self.deeper(|walker| {
            walker.levels.push(Level::default());
            let targets = walker.select_body(stmt, how)?;
            walker.levels.pop();
            Ok(targets)
        })
    }

    fn select_body<'s>(&mut self, stmt: &'s SelectStmt, how: Use) -> Walk<Vec<Target<'s>>> {
        if stmt.into_clause.is_some() {
            return construct("SELECT INTO", NOWHERE);
        }
        if let Some(with) = &stmt.with_clause {
            self.with_clause(with)?;
        }
        let targets = match SetOperation::try_from(stmt.op) {
            Ok(SetOperation::SetopNone) if stmt.values_lists.is_empty() => self.plain(stmt, how)?,
            Ok(SetOperation::SetopNone) => self.values(stmt, how)?,
            Ok(SetOperation::SetopUnion | SetOperation::SetopIntersect | SetOperation::SetopExcept) => {
                self.set_operation(stmt, how)?
            }
            Ok(SetOperation::Undefined) | Err(_) => return construct("a set operation of this kind", NOWHERE),
        };
        if targets.len() > COLUMNS_MAX {
            return construct("a result of more than 1664 columns", NOWHERE);
        }
        Ok(targets)
    }

    fn plain<'s>(&mut self, stmt: &'s SelectStmt, how: Use) -> Walk<Vec<Target<'s>>> {
        let SelectStmt {
            distinct_clause,
            into_clause: _,
            target_list,
            from_clause,
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
        self.read_from(from_clause)?;
        let targets = self.target_list(target_list, how)?;
        self.optional(where_clause, Use::Predicate)?;
        self.optional(having_clause, Use::Predicate)?;
        for node in group_clause {
            self.group_item(node, &targets)?;
        }
        for node in window_clause {
            let NodeEnum::WindowDef(window) = inner(node)? else { return construct("a WINDOW clause", NOWHERE) };
            self.window(window)?;
        }
        self.order_by(sort_clause, &targets)?;
        self.distinct(distinct_clause, &targets)?;
        self.limits(limit_offset, limit_count, *limit_option)?;
        self.locking(locking_clause)?;
        Ok(targets)
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
    pub(crate) fn target_list<'s>(&mut self, nodes: &'s [Node], how: Use) -> Walk<Vec<Target<'s>>> {
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
                let columns = self.resolve(reference)?;
                self.expand(columns, *location, &mut targets)?;
                continue;
            }
            let value = self.value(val, how)?;
            let name = match name.as_str() {
                "" => naming::figure(val, &self.link_names, self.snapshot.server_version()),
                alias => alias.to_owned(),
            };
            targets.push(Target { name: Rc::from(name), value, node: Some(val), at: *location });
        }
        Ok(targets)
    }

    /// `*` and `t.*` in a target list.
    fn expand(&mut self, columns: Resolved, at: i32, targets: &mut Vec<Target<'_>>) -> Walk<()> {
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
            targets.push(Target { name: name.clone(), value: value.clone(), node: None, at });
        }
        Ok(())
    }

    /// VALUES (..), (..): columns are column1, column2...
    fn values<'s>(&mut self, stmt: &'s SelectStmt, how: Use) -> Walk<Vec<Target<'s>>> {
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
        let mut width = 0;
        for list in values_lists {
            let NodeEnum::List(list) = inner(list)? else { return construct("VALUES of this form", NOWHERE) };
            width = list.items.len();
            list.items.iter().try_for_each(|item| self.expr(item, how))?;
        }
        let targets: Vec<_> = (1..=width).map(|number| Target::computed(&format!("column{number}"))).collect();
        self.set_order_by(sort_clause, &targets)?;
        self.limits(limit_offset, limit_count, *limit_option)?;
        Ok(targets)
    }

    /// UNION, INTERSECT, EXCEPT: the server announces no origin for the result; what each branch projects is used.
    fn set_operation<'s>(&mut self, stmt: &'s SelectStmt, how: Use) -> Walk<Vec<Target<'s>>> {
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
        let how = branch_use(stmt, how);
        let names = self.branch(left, how)?;
        self.branch(right, how)?;
        self.set_order_by(sort_clause, &names)?;
        self.limits(limit_offset, limit_count, stmt.limit_option)?;
        Ok(names)
    }

    /// One branch of a set operation: its outputs, all used.
    pub(crate) fn branch<'s>(&mut self, stmt: &'s SelectStmt, how: Use) -> Walk<Vec<Target<'s>>> {
        if how == Use::Key {
            self.check_sorting(NOWHERE)?;
        }
        let outputs = self.select(stmt, how)?;
        for target in &outputs {
            self.consume(&target.value, how, target.at)?;
        }
        Ok(outputs.iter().map(|target| Target::computed(&target.name)).collect())
    }
}

/// UNION ALL only passes values on; everything else, and an ORDER BY over the result, compares them.
pub(crate) fn branch_use(stmt: &SelectStmt, how: Use) -> Use {
    let passes_on = stmt.op == SetOperation::SetopUnion as i32 && stmt.all && stmt.sort_clause.is_empty();
    if passes_on { how } else { Use::Key }
}
