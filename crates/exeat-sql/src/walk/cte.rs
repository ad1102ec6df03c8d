//! WITH: queries by name, in the order and with the visibility the server gives them.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{CommonTableExpr, Node, SelectStmt, SetOperation, WithClause};

use super::content::{Held, accumulated};
use super::scope::{Columns, Cte, Value};
use super::select::{Target, columns_of, compares};
use super::{NOWHERE, Walk, Walker, construct, inner, strings, unresolved};

/// Its columns, and what its rows hold.
type Query = (Rc<Columns>, Rc<Held>);

/// Rounds in which the columns of a recursive query get their values from one another. Two are usual.
const ROUNDS_MAX: usize = 20;

impl Walker<'_> {
    pub(crate) fn with_clause(&mut self, with: &WithClause) -> Walk<()> {
        let WithClause { ctes, recursive, location } = with;
        let mut queries = Vec::with_capacity(ctes.len());
        for node in ctes {
            let NodeEnum::CommonTableExpr(cte) = inner(node)? else { return construct("a WITH clause", *location) };
            queries.push(cte.as_ref());
        }
        if *recursive {
            // Every name of the list hides tables in all its queries, also before its own turn.
            for cte in &queries {
                self.bind(Cte { name: cte.ctename.clone(), columns: None, content: Rc::default() });
            }
        }
        for cte in queries {
            // Rows of a WITH query are there where its name is.
            let (columns, content) = if *recursive { self.recursive_query(cte)? } else { self.with_query(cte)? };
            if *recursive {
                self.rebind(&cte.ctename, &columns, &content);
            } else {
                self.bind(Cte { name: cte.ctename.clone(), columns: Some(columns), content });
            }
        }
        Ok(())
    }

    fn bind(&mut self, cte: Cte) {
        if let Some(level) = self.levels.last_mut() {
            level.ctes.push(cte);
        }
    }

    fn rebind(&mut self, name: &str, columns: &Rc<Columns>, content: &Rc<Held>) {
        let ctes = self.levels.last_mut().into_iter().flat_map(|level| &mut level.ctes);
        for cte in ctes.filter(|cte| cte.name == name) {
            (cte.columns, cte.content) = (Some(columns.clone()), content.clone());
        }
    }

    fn with_query(&mut self, cte: &CommonTableExpr) -> Walk<Query> {
        let (query, names) = taken_apart(cte)?;
        let depth = self.levels.len();
        self.facts.writes_aside |= !matches!(query, NodeEnum::SelectStmt(_));
        let (outputs, content) = self.counting_apart(|walker| match query {
            NodeEnum::SelectStmt(query) => walker.apart(|walker| walker.select(query)),
            NodeEnum::InsertStmt(insert) => walker.apart(|walker| walker.insert(insert)).map(Option::unwrap_or_default),
            NodeEnum::UpdateStmt(update) => walker.apart(|walker| walker.update(update)).map(Option::unwrap_or_default),
            NodeEnum::DeleteStmt(delete) => walker.apart(|walker| walker.delete(delete)).map(Option::unwrap_or_default),
            NodeEnum::MergeStmt(merge) => walker.apart(|walker| walker.merge(merge)).map(Option::unwrap_or_default),
            _ => construct("WITH of a statement of this kind", cte.location),
        })?;
        // A statement that writes leaves its own level behind.
        self.levels.truncate(depth);
        Ok((alias(&outputs, &names, cte)?, Rc::new(content)))
    }

    /// A recursive UNION reads its own result: the first branch fixes the columns, then the second is read with
    /// the name bound to them. Anything else of a WITH RECURSIVE may not mention itself.
    fn recursive_query(&mut self, cte: &CommonTableExpr) -> Walk<Query> {
        let (query, names) = taken_apart(cte)?;
        let NodeEnum::SelectStmt(query) = query else { return self.with_query(cte) };
        let SelectStmt { op, larg: Some(left), rarg: Some(right), .. } = query.as_ref() else {
            return self.with_query(cte);
        };
        let plain_union = *op == SetOperation::SetopUnion as i32
            && query.with_clause.is_none()
            && query.into_clause.is_none()
            && query.sort_clause.is_empty()
            && query.limit_count.is_none()
            && query.limit_offset.is_none()
            && query.locking_clause.is_empty();
        if !plain_union {
            return self.with_query(cte);
        }
        let compares = compares(query);
        let (first, in_first) = self.counting_apart(|walker| walker.apart(|walker| walker.branch(left, compares)))?;
        let mut columns = alias(&first, &names, cte)?;
        let mut content = Rc::new(in_first.clone());
        // What the second branch adds to a column, it may read from it in the next round.
        for _ in 0..ROUNDS_MAX {
            self.rebind(&cte.ctename, &columns, &content);
            let read = |walker: &mut Self| walker.apart(|walker| walker.branch(right, compares));
            let (second, in_second) = self.counting_apart(read)?;
            content = Rc::new(accumulated(&in_first, &in_second));
            let both = alias(&self.united_outputs(&first, &second)?, &names, cte)?;
            let settled = columns.same_flows(&both);
            columns = both;
            if settled {
                return Ok((columns, content));
            }
        }
        construct("a WITH RECURSIVE query that moves values between its columns this often", cte.location)
    }

    /// The WITH query a bare table name stands for, if one is in sight.
    pub(crate) fn cte_in_sight(&self, name: &str, at: i32) -> Walk<Option<Query>> {
        let found = self.levels.iter().rev().find_map(|level| level.ctes.iter().find(|cte| cte.name == name));
        match found {
            None => Ok(None),
            Some(Cte { columns: Some(columns), content, .. }) => Ok(Some((columns.clone(), content.clone()))),
            Some(Cte { columns: None, .. }) => construct("a WITH RECURSIVE query that refers ahead or to itself", at),
        }
    }
}

fn taken_apart(cte: &CommonTableExpr) -> Walk<(&NodeEnum, Vec<&str>)> {
    let CommonTableExpr {
        ctename: _,
        aliascolnames,
        ctematerialized: _,
        ctequery: Some(query),
        search_clause: None,
        cycle_clause: None,
        location,
        cterecursive: _,
        cterefcount: _,
        ctecolnames: _,
        ctecoltypes: _,
        ctecoltypmods: _,
        ctecolcollations: _,
    } = cte
    else {
        return construct("WITH with SEARCH or CYCLE", cte.location);
    };
    Ok((inner(query)?, column_names(aliascolnames, *location)?))
}

fn column_names(nodes: &[Node], at: i32) -> Walk<Vec<&str>> {
    strings(nodes).map_or_else(|| construct("a column list of this form", at), Ok)
}

fn alias(outputs: &[Target], names: &[&str], cte: &CommonTableExpr) -> Walk<Rc<Columns>> {
    match columns_of(outputs).renamed(names) {
        Some(columns) => Ok(columns),
        None => unresolved(&cte.ctename, cte.location),
    }
}

/// Columns of a set-returning function and the like: computed, under these names.
pub(crate) fn computed_columns(names: impl IntoIterator<Item = String>) -> Rc<Columns> {
    let list = names.into_iter().map(|name| (Rc::from(name), Value::of_some_type())).collect();
    Rc::new(Columns::new(list))
}

/// No position of its own.
pub(crate) fn alias_names(nodes: &[Node]) -> Walk<Vec<&str>> {
    column_names(nodes, NOWHERE)
}
