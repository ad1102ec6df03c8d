//! Column references: the server's rules for one, two, three and four names, level by level outward.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{AIndirection, ColumnRef, Node};

use super::scope::{Columns, Found, Item, Value};
use super::{NOWHERE, Stop, Walk, Walker, construct, inner, string, unresolved};
use crate::catalog::{ColumnId, Oid, system_column};

/// What a reference stands for.
#[derive(Debug)]
pub(crate) enum Resolved {
    Column(Value),
    /// A whole row, or `t.*`.
    Row(Rc<Columns>),
    /// `*` alone.
    Everything,
}

/// The parts of a reference: names, then possibly a star.
fn parts(reference: &ColumnRef) -> Walk<(Vec<&str>, bool)> {
    let ColumnRef { fields, location } = reference;
    let star = matches!(fields.last().and_then(|node| node.node.as_ref()), Some(NodeEnum::AStar(_)));
    let names = fields.iter().take(fields.len() - usize::from(star)).map(string).collect::<Option<Vec<_>>>();
    match names {
        Some(names) => Ok((names, star)),
        None => construct("a column reference of this form", *location),
    }
}

impl Walker<'_> {
    /// In the body of a function, what no column is may be a parameter; `$1` is nothing else, whatever a column is
    /// called.
    pub(crate) fn resolve(&mut self, reference: &ColumnRef) -> Walk<Resolved> {
        if self.parameters.is_some()
            && let (names, false) = parts(reference)?
            && let [name] = names.as_slice()
            && name.starts_with('$')
        {
            return self
                .parameter_read(&names)
                .map_or_else(|| unresolved(name, reference.location), |found| Ok(Resolved::Column(found)));
        }
        match self.resolve_column(reference) {
            Err(Stop::Unresolved { name, at }) => match parts(reference)? {
                (names, false) => {
                    self.parameter_read(&names).map(Resolved::Column).ok_or(Stop::Unresolved { name, at })
                }
                (_, true) => unresolved(&name, at),
            },
            Ok(Resolved::Column(value)) => {
                self.note_lazy(&value);
                Ok(Resolved::Column(value))
            }
            resolved => resolved,
        }
    }

    fn resolve_column(&mut self, reference: &ColumnRef) -> Walk<Resolved> {
        let at = reference.location;
        let (resolved, of) = self.resolved(reference)?;
        if let Some(relation) = of {
            self.facts.stars.entry(relation).or_insert(at);
        }
        Ok(resolved)
    }

    /// With the relation whose columns it names all at once.
    pub(crate) fn resolved(&mut self, reference: &ColumnRef) -> Walk<(Resolved, Option<Oid>)> {
        let at = reference.location;
        let row = |item: Item| (Resolved::Row(item.columns), item.relation);
        let one = |value| (Resolved::Column(value), None);
        let (names, star) = parts(reference)?;
        let full = names.join(".");
        if star {
            return match names.as_slice() {
                [] => Ok((Resolved::Everything, None)),
                table => Ok(row(self.item(table, &full, at)?)),
            };
        }
        match names.as_slice() {
            [] => construct("a column reference of this form", at),
            [name] => match self.unqualified(name, false, at)? {
                Some(value) => Ok(one(value)),
                // A name that is no column may be a table's: the whole row.
                None => Ok(row(self.item(&[name], name, at)?)),
            },
            [table @ .., column] => {
                let item = self.item(table, &full, at)?;
                match column_of(&item, column) {
                    Found::One(value) => Ok(one(value)),
                    // The server would now try `column` as a function of the row: the probe tells, we refuse.
                    Found::Many | Found::None => unresolved(&full, at),
                }
            }
        }
    }

    /// Is it a whole row, which is there or is not (an outer join may leave none), whatever is in it?
    pub(crate) fn is_plain_row(&mut self, node: &Node) -> Walk<bool> {
        let NodeEnum::ColumnRef(reference) = inner(node)? else { return Ok(false) };
        let (names, star) = parts(reference)?;
        let may_be_row = match names.as_slice() {
            [] => false,
            [_] if !star && self.parameter(&names).is_some() => false,
            [name] => star || self.unqualified(name, false, reference.location)?.is_none(),
            _ => star,
        };
        // What a function gives back as a row may be NULL for reasons of its own.
        Ok(may_be_row && !self.item(&names, &names.join("."), reference.location)?.function)
    }

    /// An unqualified column name. `None` if no level has it; ambiguity is the server's error.
    pub(crate) fn unqualified(&mut self, name: &str, local_only: bool, at: i32) -> Walk<Option<Value>> {
        for depth in (0..self.levels.len()).rev() {
            let Some(level) = self.levels.get(depth) else { continue };
            let mut found = None;
            let mut outside = depth + 1 < self.levels.len();
            for item in level.items.iter().filter(|item| item.columns_visible) {
                if item.lateral_only && !level.lateral_active {
                    continue;
                }
                match column_of(item, name) {
                    Found::None => {}
                    Found::One(value) if found.is_none() && usable(item) => {
                        outside |= item.lateral_only;
                        found = Some(value);
                    }
                    Found::One(_) | Found::Many => return unresolved(name, at),
                }
            }
            let steps = level.items.len() + 1;
            self.spend(steps)?;
            if found.is_some() || local_only {
                self.facts.correlated |= found.is_some() && outside;
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The item that `table`, `schema.table` or `database.schema.table` names.
    fn item(&mut self, names: &[&str], full: &str, at: i32) -> Walk<Item> {
        let wanted = match names {
            [table] => Wanted::Name(table),
            [schema, table] => self.wanted_relation(schema, table, full, at)?,
            [database, schema, table] if *database == self.snapshot.database_name() => {
                self.wanted_relation(schema, table, full, at)?
            }
            _ => return unresolved(full, at),
        };
        for depth in (0..self.levels.len()).rev() {
            let Some(level) = self.levels.get(depth) else { continue };
            let mut found: Option<&Item> = None;
            for item in level.items.iter().filter(|item| wanted.is(item)) {
                if item.lateral_only && !level.lateral_active {
                    continue;
                }
                if found.is_some() || !usable(item) {
                    return unresolved(full, at);
                }
                found = Some(item);
            }
            let (found, steps) = (found.cloned(), level.items.len() + 1);
            self.spend(steps)?;
            if let Some(item) = found {
                self.facts.correlated |= item.lateral_only || depth + 1 < self.levels.len();
                return Ok(item);
            }
        }
        unresolved(full, at)
    }

    fn wanted_relation<'n>(&self, schema: &str, table: &str, full: &str, at: i32) -> Walk<Wanted<'n>> {
        let relation = self.schema_named(schema).and_then(|schema| self.relation_in_sight(&[schema], table));
        match relation {
            Some(relation) => Ok(Wanted::Relation(relation.oid)),
            None => unresolved(full, at),
        }
    }

    /// `(t).column`, which the server reads as `t.column`. Every other field selection is for the caller.
    pub(crate) fn row_field(&mut self, indirection: &AIndirection) -> Walk<Option<(Value, i32)>> {
        let AIndirection { arg, indirection } = indirection;
        let (Some(arg), [field]) = (arg.as_deref(), indirection.as_slice()) else { return Ok(None) };
        let (NodeEnum::ColumnRef(reference), Some(field)) = (inner(arg)?, string(field)) else { return Ok(None) };
        let at = reference.location;
        match self.resolved(reference)?.0 {
            Resolved::Row(columns) => match columns.find(field) {
                Found::One(value) => {
                    self.note_lazy(value);
                    Ok(Some((value.clone(), at)))
                }
                Found::Many | Found::None => Ok(None),
            },
            Resolved::Column(_) | Resolved::Everything => Ok(None),
        }
    }

    /// The text a bare reference to a single name, as ORDER BY and GROUP BY treat apart.
    pub(crate) fn single_name(node: &Node) -> Option<(&str, i32)> {
        match &node.node {
            Some(NodeEnum::ColumnRef(ColumnRef { fields, location })) => match fields.as_slice() {
                [field] => string(field).map(|name| (name, *location)),
                _ => None,
            },
            _ => None,
        }
    }
}

enum Wanted<'n> {
    Name(&'n str),
    Relation(Oid),
}

impl Wanted<'_> {
    fn is(&self, item: &Item) -> bool {
        match self {
            Wanted::Name(name) => item.name.as_deref() == Some(*name),
            Wanted::Relation(oid) => item.unaliased == Some(*oid),
        }
    }
}

/// A column of an item, its system columns included.
fn column_of(item: &Item, name: &str) -> Found<Value> {
    match item.columns.find(name) {
        Found::One(value) => Found::One(value.clone()),
        Found::Many => Found::Many,
        Found::None => match (item.stored, system_column(name)) {
            (Some(relation), Some(attribute)) => {
                Found::One(Value::column(ColumnId { relation, attribute }, None, NOWHERE))
            }
            _ => Found::None,
        },
    }
}

/// The server refuses some items inside LATERAL: the left side of a RIGHT or FULL join, an UPDATE's target.
fn usable(item: &Item) -> bool {
    !item.lateral_only || item.lateral_ok
}
