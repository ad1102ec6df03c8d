//! FROM: tables, sub-selects and functions as range-table items, with LATERAL as the server scopes it.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{Alias, FuncCall, Node, RangeFunction, RangeSubselect, RangeVar};

use super::body::{Returned, as_call};
use super::cte::{alias_names, computed_columns};
use super::scope::{Columns, Item, Value};
use super::select::columns_of;
use super::{NOWHERE, Walk, Walker, construct, inner, named_construct, strings, unresolved};
use crate::Use;
use crate::catalog::{Relation, RelationKind};
use crate::classes::{TableShape, table_shape};

/// An alias taken apart: name and column names.
pub(crate) fn alias_parts(alias: &Option<Alias>) -> Walk<(Option<&str>, Vec<&str>)> {
    match alias {
        None => Ok((None, Vec::new())),
        Some(Alias { aliasname, colnames }) => Ok((Some(aliasname), alias_names(colnames)?)),
    }
}

impl<'a> Walker<'a> {
    pub(crate) fn read_from(&mut self, nodes: &[Node]) -> Walk<()> {
        for node in nodes {
            let mut items = self.read_item(node)?;
            // Later items of the list see earlier ones only from inside LATERAL.
            for item in &mut items {
                (item.lateral_only, item.lateral_ok) = (true, true);
            }
            self.items_mut().extend(items);
        }
        for item in self.items_mut() {
            (item.lateral_only, item.lateral_ok) = (false, true);
        }
        Ok(())
    }

    /// The items of the level being read.
    pub(crate) fn items_mut(&mut self) -> &mut Vec<Item> {
        match self.levels.last_mut() {
            Some(level) => &mut level.items,
            None => &mut self.outside,
        }
    }

    /// Items that one entry of FROM adds; the last one stands for the whole entry.
    pub(crate) fn read_item(&mut self, node: &Node) -> Walk<Vec<Item>> {
        self.deeper(|walker| match inner(node)? {
            NodeEnum::RangeVar(table) => Ok(vec![walker.range_var(table)?]),
            NodeEnum::RangeSubselect(query) => Ok(vec![walker.sub_select(query)?]),
            NodeEnum::RangeFunction(function) => Ok(vec![walker.function(function)?]),
            NodeEnum::JoinExpr(join) => walker.join(join),
            NodeEnum::RangeTableSample(sample) => construct("TABLESAMPLE", sample.location),
            NodeEnum::RangeTableFunc(function) => construct("XMLTABLE", function.location),
            NodeEnum::JsonTable(table) => construct("JSON_TABLE", table.location),
            _ => construct("a FROM item of this kind", NOWHERE),
        })
    }

    fn range_var(&mut self, table: &RangeVar) -> Walk<Item> {
        let RangeVar { catalogname, schemaname, relname, inh: _, relpersistence: _, alias, location } = table;
        let (alias, names) = alias_parts(alias)?;
        if catalogname.is_empty()
            && schemaname.is_empty()
            && let Some(columns) = self.cte_in_sight(relname, *location)?
        {
            return renamed(Item::new(Some(alias.unwrap_or(relname)), columns), &names, *location);
        }
        let relation = self.relation(table)?;
        self.touch_read(relation, *location)?;
        if Some(relation.oid) == self.settings_view
            && let Some(level) = self.levels.last_mut()
        {
            level.settings.push(Rc::from(alias.unwrap_or(relname)));
        }
        self.relation_item(relation, (alias, &names), *location)
    }

    /// A stored relation as an item.
    pub(crate) fn relation_item(
        &mut self,
        relation: &Relation,
        (alias, names): (Option<&str>, &[&str]),
        at: i32,
    ) -> Walk<Item> {
        let columns = self.relation_columns(relation);
        let mut item = Item::new(Some(alias.unwrap_or(&relation.name)), columns);
        item.relation = Some(relation.oid);
        // A view has no system columns: the server would look for them further out.
        item.stored = (relation.kind != RelationKind::View).then_some(relation.oid);
        item.unaliased = alias.is_none().then_some(relation.oid);
        renamed(item, names, at)
    }

    /// The relation a name stands for, by the effective search path or its schema.
    pub(crate) fn relation(&self, table: &RangeVar) -> Walk<&'a Relation> {
        let RangeVar { catalogname, schemaname, relname, inh: _, relpersistence: _, alias: _, location } = table;
        let full = if schemaname.is_empty() { relname.clone() } else { format!("{schemaname}.{relname}") };
        if !catalogname.is_empty() && catalogname != self.snapshot.database_name() {
            return unresolved(&format!("{catalogname}.{full}"), *location);
        }
        let snapshot = self.snapshot;
        let found = if schemaname.is_empty() {
            self.path.iter().find_map(|schema| snapshot.relation_in(*schema, relname))
        } else {
            self.schema_named(schemaname).and_then(|schema| snapshot.relation_in(schema, relname))
        };
        found.map_or_else(|| unresolved(&full, *location), Ok)
    }

    fn sub_select(&mut self, query: &RangeSubselect) -> Walk<Item> {
        let RangeSubselect { lateral, subquery: Some(subquery), alias } = query else {
            return construct("a sub-select of this form", NOWHERE);
        };
        let NodeEnum::SelectStmt(stmt) = inner(subquery)? else {
            return construct("a sub-select of this form", NOWHERE);
        };
        let outputs = self.laterally(*lateral, |walker| walker.apart(|walker| walker.select(stmt)))?;
        let (alias, names) = alias_parts(alias)?;
        renamed(Item::new(alias, columns_of(&outputs)), &names, NOWHERE)
    }

    /// Reads a query of its own: what goes through something that may fail in it does so for itself.
    pub(crate) fn apart<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let outside = std::mem::replace(&mut self.place, Use::Expression);
        let outcome = walk(self)?;
        self.place = outside;
        Ok(outcome)
    }

    /// Runs with this level's earlier items in sight or out of it.
    fn laterally<T>(&mut self, lateral: bool, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let depth = self.levels.len();
        let before = self.set_lateral(depth, lateral);
        let outcome = walk(self)?;
        self.set_lateral(depth, before);
        Ok(outcome)
    }

    fn set_lateral(&mut self, depth: usize, lateral: bool) -> bool {
        let level = depth.checked_sub(1).and_then(|last| self.levels.get_mut(last));
        level.is_some_and(|level| std::mem::replace(&mut level.lateral_active, lateral))
    }

    /// A function of the reviewed list of set-returning ones, whose columns we know.
    fn function(&mut self, function: &RangeFunction) -> Walk<Item> {
        let RangeFunction { lateral: _, ordinality, is_rowsfrom, functions, alias, coldeflist } = function;
        let (false, [list], []) = (*is_rowsfrom, functions.as_slice(), coldeflist.as_slice()) else {
            return construct("ROWS FROM or a function with a column definition list", NOWHERE);
        };
        let NodeEnum::List(list) = inner(list)? else { return construct("a function in FROM", NOWHERE) };
        // A pair of the call and its own column definitions, which must be absent.
        let call = match list.items.as_slice() {
            [call] | [call, Node { node: None }] => call,
            _ => return construct("a function in FROM with column definitions", NOWHERE),
        };
        let (alias, names) = alias_parts(alias)?;
        if let Some(called) = as_call(call)
            && let Some(returned) = self.laterally(true, |walker| walker.apart(|walker| walker.body_call(called)))?
        {
            let item = self.called_item(called, returned, (alias, *ordinality))?;
            return renamed(item, &names, NOWHERE);
        }
        self.laterally(true, |walker| walker.expr(call, Use::Expression))?;
        let (own_name, columns) = match inner(call)? {
            NodeEnum::FuncCall(call) => self.function_columns(call, alias)?,
            // current_date and the like: one column.
            NodeEnum::SqlvalueFunction(_) => return construct("a value function in FROM", NOWHERE),
            _ => return construct("an expression in FROM", NOWHERE),
        };
        let ordinality = ordinality.then(|| "ordinality".to_owned());
        let columns = computed_columns(columns.into_iter().chain(ordinality));
        let mut item = renamed(Item::new(Some(alias.unwrap_or(own_name)), columns), &names, NOWHERE)?;
        item.function = true;
        Ok(item)
    }

    /// A function in SQL: its columns hold what its body puts into them.
    fn called_item(
        &mut self,
        call: &FuncCall,
        returned: Returned,
        (alias, ordinality): (Option<&str>, bool),
    ) -> Walk<Item> {
        let name = strings(&call.funcname).and_then(|names| names.last().copied()).unwrap_or_default();
        let columns = match returned {
            Returned::Value(value) => vec![(self.scalar_name(call, name, alias)?, value)],
            Returned::Row(columns) => columns,
        };
        let numbered = ordinality.then(|| ("ordinality".to_owned(), Value::computed()));
        let columns = columns.into_iter().chain(numbered).map(|(name, value)| (Rc::from(name.as_str()), value));
        let columns = Rc::new(Columns::new(columns.collect()));
        let mut item = Item::new(Some(alias.unwrap_or(name)), columns);
        item.function = true;
        Ok(item)
    }

    /// The one column of a function that gives back values is called as its OUT parameter, else as its alias.
    fn scalar_name(&mut self, call: &FuncCall, name: &str, alias: Option<&str>) -> Walk<String> {
        let searched = strings(&call.funcname).and_then(|names| self.searched(&names));
        let Some((schemas, searched_name)) = searched else { return construct("a function in FROM", call.location) };
        match self.snapshot.sql_candidates(&schemas, searched_name, call.args.len()).as_slice() {
            [only] => Ok(match only.columns.as_slice() {
                [(column, _)] if !column.is_empty() => column.clone(),
                _ => alias.unwrap_or(name).to_owned(),
            }),
            _ => named_construct(format!("function {name} in FROM, of which there are several,"), call.location),
        }
    }

    fn function_columns<'c>(&mut self, call: &'c FuncCall, alias: Option<&str>) -> Walk<(&'c str, Vec<String>)> {
        let name = strings(&call.funcname).and_then(|names| names.last().copied());
        let Some(name) = name else { return construct("a function in FROM", call.location) };
        let columns = match table_shape(name) {
            Some(TableShape::Scalar) if name == "unnest" => {
                for array in &call.args {
                    if !self.laterally(true, |walker| walker.is_scalar_array(array))? {
                        return construct(
                            "unnest in FROM of an array whose element type the text does not show (a cast would)",
                            call.location,
                        );
                    }
                }
                // unnest(a, b) is a column per array; each is named unnest unless there is one and it has an alias.
                match call.args.len() {
                    1 => vec![alias.unwrap_or(name).to_owned()],
                    arrays => vec![name.to_owned(); arrays],
                }
            }
            Some(TableShape::Scalar) => vec![alias.unwrap_or(name).to_owned()],
            Some(TableShape::Columns(columns)) => columns.iter().map(|column| (*column).to_owned()).collect(),
            None => return named_construct(format!("function {name} in FROM"), call.location),
        };
        Ok((name, columns))
    }
}

pub(crate) fn renamed(mut item: Item, names: &[&str], at: i32) -> Walk<Item> {
    match item.columns.renamed(names) {
        Some(columns) => {
            item.columns = columns;
            Ok(item)
        }
        None => unresolved(&names.join(", "), at),
    }
}

/// A named part of a join: its columns under the alias only.
pub(crate) fn named_part(name: &str, columns: Rc<Columns>) -> Item {
    Item { columns_visible: false, ..Item::new(Some(name), columns) }
}
