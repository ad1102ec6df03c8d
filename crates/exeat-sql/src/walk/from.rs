//! FROM: tables, sub-selects and functions as range-table items, with LATERAL as the server scopes it.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{Alias, FuncCall, Node, RangeFunction, RangeSubselect, RangeVar};

use super::body::{Returned, as_call};
use super::cte::alias_names;
use super::scope::{Columns, Item, Value};
use super::select::columns_of;
use super::{NOWHERE, Walk, Walker, construct, inner, named_construct, strings, unresolved};
use crate::Use;
use crate::catalog::{Oid, Relation, RelationKind};
use crate::classes::{TableShape, table_shape};

/// Columns with their names.
type Named = Vec<(Rc<str>, Value)>;

/// An alias taken apart: name and column names.
pub(crate) fn alias_parts(alias: &Option<Alias>) -> Walk<(Option<&str>, Vec<&str>)> {
    match alias {
        None => Ok((None, Vec::new())),
        Some(Alias { aliasname, colnames }) => Ok((Some(aliasname), alias_names(colnames)?)),
    }
}

impl<'a> Walker<'a> {
    pub(crate) fn read_from(&mut self, nodes: &[Node]) -> Walk<()> {
        self.facts.reads_aside |= !nodes.is_empty();
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
            NodeEnum::RangeTableSample(sample) => walker.table_sample(sample).map(|item| vec![item]),
            NodeEnum::RangeTableFunc(function) => walker.xml_table(function).map(|item| vec![item]),
            NodeEnum::JsonTable(table) => walker.json_table(table).map(|item| vec![item]),
            _ => construct("a FROM item of this kind", NOWHERE),
        })
    }

    pub(crate) fn range_var(&mut self, table: &RangeVar) -> Walk<Item> {
        let RangeVar { catalogname, schemaname, relname, inh: _, relpersistence: _, alias, location } = table;
        let (alias, names) = alias_parts(alias)?;
        if catalogname.is_empty()
            && schemaname.is_empty()
            && let Some((columns, content)) = self.cte_in_sight(relname, *location)?
        {
            let name = alias.unwrap_or(relname);
            let item = renamed(Item::new(Some(name), columns), &names, *location)?;
            self.holds_query(&content, name, &item.columns)?;
            return Ok(item);
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
        self.holds_relation(relation.oid, alias.unwrap_or(&relation.name), at);
        let columns = self.relation_columns(relation);
        let mut item = Item::new(Some(alias.unwrap_or(&relation.name)), columns);
        item.relation = Some(relation.oid);
        // A view has no system columns: the server would look for them further out.
        item.stored = (relation.kind != RelationKind::View).then_some(relation.oid);
        item.unaliased = alias.is_none().then_some(relation.oid);
        renamed(item, names, at)
    }

    /// The relation a name stands for, by the effective search path or its schema.
    pub(crate) fn relation(&mut self, table: &RangeVar) -> Walk<&'a Relation> {
        let RangeVar { catalogname, schemaname, relname, inh: _, relpersistence: _, alias: _, location } = table;
        let full = if schemaname.is_empty() { relname.clone() } else { format!("{schemaname}.{relname}") };
        if !catalogname.is_empty() && catalogname != self.snapshot.database_name() {
            return unresolved(&format!("{catalogname}.{full}"), *location);
        }
        let bent = |schema: &&Oid| self.snapshot.relation_in(**schema, relname).is_some();
        if self.any_path && schemaname.is_empty() && self.path.iter().filter(bent).count() > 1 {
            return construct("a name that the path of another role decides", *location);
        }
        let schemas = self.schemas_of(table);
        let found = self.relation_in_sight(&schemas, relname);
        if let Some(found) = found.filter(|found| !found.is_metadata() && !found.is_temporary()) {
            let snapshot = self.snapshot;
            let named = schemas.iter().filter_map(|schema| snapshot.relation_in(*schema, relname));
            let hidden = named.filter(|named| named.oid != found.oid);
            self.facts.hides.extend(hidden.map(|hidden| (hidden.oid, found.oid)));
        }
        found.map_or_else(|| unresolved(&full, *location), Ok)
    }

    /// Although it may be hidden.
    pub(crate) fn is_there(&self, table: &RangeVar) -> bool {
        self.names_hidden(&self.schemas_of(table), &table.relname)
    }

    /// Where a name is looked up.
    pub(crate) fn schemas_of(&self, table: &RangeVar) -> Rc<[Oid]> {
        match table.schemaname.as_str() {
            "" => Rc::clone(&self.path),
            schema => self.schema_named(schema).into_iter().collect(),
        }
    }

    fn sub_select(&mut self, query: &RangeSubselect) -> Walk<Item> {
        let RangeSubselect { lateral, subquery: Some(subquery), alias } = query else {
            return construct("a sub-select of this form", NOWHERE);
        };
        let NodeEnum::SelectStmt(stmt) = inner(subquery)? else {
            return construct("a sub-select of this form", NOWHERE);
        };
        let read = |walker: &mut Self| walker.laterally(*lateral, |walker| walker.apart(|walker| walker.select(stmt)));
        let (outputs, content) = self.counting_apart(read)?;
        let (alias, names) = alias_parts(alias)?;
        let item = renamed(Item::new(alias, columns_of(&outputs)), &names, NOWHERE)?;
        self.holds_query(&content, alias.unwrap_or_default(), &item.columns)?;
        Ok(item)
    }

    /// Reads a query of its own: what goes through something that may fail in it does so for itself.
    pub(crate) fn apart<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let outside = std::mem::replace(&mut self.place, Use::Expression);
        let outcome = walk(self)?;
        self.place = outside;
        Ok(outcome)
    }

    /// Runs with this level's earlier items in sight or out of it.
    pub(crate) fn laterally<T>(&mut self, lateral: bool, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
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

    /// Functions of the reviewed list of set-returning ones, whose columns we know, or whose columns the text defines:
    /// one, or several side by side in ROWS FROM.
    fn function(&mut self, function: &RangeFunction) -> Walk<Item> {
        let RangeFunction { lateral: _, ordinality, is_rowsfrom: _, functions, alias, coldeflist } = function;
        let (alias, names) = alias_parts(alias)?;
        let only = functions.len() == 1;
        let mut own_name = None;
        let mut columns: Named = Vec::new();
        for list in functions {
            let NodeEnum::List(list) = inner(list)? else { return construct("a function in FROM", NOWHERE) };
            // A pair of the call and its own column definitions.
            let (call, own_definitions) = match list.items.as_slice() {
                [call] | [call, Node { node: None }] => (call, &[][..]),
                [call, definitions] => match inner(definitions)? {
                    NodeEnum::List(list) => (call, list.items.as_slice()),
                    _ => return construct("a function in FROM with column definitions", NOWHERE),
                },
                _ => return construct("a function in FROM with column definitions", NOWHERE),
            };
            let definitions = if own_definitions.is_empty() { coldeflist.as_slice() } else { own_definitions };
            let (name, found) = self.function_rows(call, alias.filter(|_| only), definitions)?;
            own_name.get_or_insert(name);
            self.spend(found.len())?;
            columns.extend(found);
        }
        let Some(own_name) = own_name else { return construct("a function in FROM", NOWHERE) };
        if *ordinality {
            columns.push((Rc::from("ordinality"), Value::computed()));
        }
        let columns = Rc::new(Columns::new(columns));
        let mut item = renamed(Item::new(Some(alias.unwrap_or(own_name)), columns), &names, NOWHERE)?;
        item.function = true;
        Ok(item)
    }

    /// What one function of FROM is called, and its columns.
    fn function_rows<'c>(
        &mut self,
        call: &'c Node,
        alias: Option<&str>,
        definitions: &[Node],
    ) -> Walk<(&'c str, Named)> {
        let named = |name: &String| (Rc::from(name.as_str()), Value::of_some_type());
        if definitions.is_empty()
            && let Some(called) = as_call(call)
            && let Some(returned) = self.laterally(true, |walker| walker.apart(|walker| walker.body_call(called)))?
        {
            return self.called_rows(called, returned, alias);
        }
        self.laterally(true, |walker| walker.expr(call, Use::Expression))?;
        match inner(call)? {
            NodeEnum::FuncCall(call) if definitions.is_empty() => {
                let (name, columns) = self.function_columns(call, alias)?;
                Ok((name, columns.iter().map(named).collect()))
            }
            NodeEnum::FuncCall(call) => {
                let name = strings(&call.funcname).and_then(|names| names.last().copied());
                let Some(name) = name else { return construct("a function in FROM", call.location) };
                Ok((name, self.defined_columns(definitions)?))
            }
            // current_date and the like: one column.
            NodeEnum::SqlvalueFunction(_) => construct("a value function in FROM", NOWHERE),
            _ => construct("an expression in FROM", NOWHERE),
        }
    }

    /// `AS t(a integer, b text)`, for a function that gives back rows of no type of its own.
    fn defined_columns(&mut self, definitions: &[Node]) -> Walk<Named> {
        let mut columns = Vec::with_capacity(definitions.len());
        for node in definitions {
            let NodeEnum::ColumnDef(column) = inner(node)? else {
                return construct("a column definition of this form", NOWHERE);
            };
            let Some(of) = &column.type_name else { return construct("a column without a type", column.location) };
            self.cast_target(of)?;
            columns.push((Rc::from(column.colname.as_str()), Value::of_some_type()));
        }
        Ok(columns)
    }

    /// A function in SQL: its columns hold what its body puts into them.
    fn called_rows<'c>(
        &mut self,
        call: &'c FuncCall,
        returned: Returned,
        alias: Option<&str>,
    ) -> Walk<(&'c str, Named)> {
        let name = strings(&call.funcname).and_then(|names| names.last().copied()).unwrap_or_default();
        let columns = match returned {
            Returned::Value(value) => vec![(self.scalar_name(call, name, alias)?, value)],
            Returned::Row(columns) => columns,
        };
        Ok((name, columns.into_iter().map(|(name, value)| (Rc::from(name.as_str()), value)).collect()))
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
