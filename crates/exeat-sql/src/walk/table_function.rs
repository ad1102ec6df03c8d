//! Rows in FROM that the grammar has nodes of its own for: TABLESAMPLE, JSON_TABLE and XMLTABLE.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    JsonTable, JsonTableColumn, JsonTableColumnType, JsonTablePathSpec, Node, RangeTableFunc, RangeTableFuncCol,
    RangeTableSample,
};

use super::cte::computed_columns;
use super::from::{alias_parts, renamed};
use super::scope::Item;
use super::sqljson::QUERIES_SINCE;
use super::{NOWHERE, Walk, Walker, construct, inner, strings};
use crate::Use;
use crate::catalog::{ColumnId, PG_CATALOG};

/// The system column that says where a row is stored.
const CTID: i16 = -1;

impl Walker<'_> {
    /// A part of a table's rows, taken by chance: by rows, or by whole pages, which tells how many fit on one.
    pub(crate) fn table_sample(&mut self, sample: &RangeTableSample) -> Walk<Item> {
        let RangeTableSample { relation: Some(relation), method, args, repeatable, location } = sample else {
            return construct("TABLESAMPLE of this form", sample.location);
        };
        let NodeEnum::RangeVar(table) = inner(relation)? else {
            return construct("TABLESAMPLE of this form", *location);
        };
        let Some(names) = strings(method) else { return construct("TABLESAMPLE of this form", *location) };
        let Some((schemas, name)) = self.searched(&names) else {
            return construct("TABLESAMPLE of this form", *location);
        };
        if !schemas.contains(&PG_CATALOG) || !self.snapshot.is_built_in_alone(&schemas, name) {
            return construct("TABLESAMPLE with a method that is not the server's own", *location);
        }
        let item = self.range_var(table)?;
        let Some(oid) = item.stored else { return construct("TABLESAMPLE of this form", *location) };
        match name {
            "bernoulli" => {}
            "system" => self.record(ColumnId { relation: oid, attribute: CTID }, Use::Predicate, *location)?,
            _ => return construct("TABLESAMPLE with a method that is not the server's own", *location),
        }
        args.iter().try_for_each(|arg| self.expr(arg, Use::Predicate))?;
        self.optional(repeatable, Use::Predicate)?;
        Ok(item)
    }

    pub(crate) fn json_table(&mut self, table: &JsonTable) -> Walk<Item> {
        let JsonTable { context_item, pathspec, passing, columns, on_error, alias, lateral: _, location } = table;
        self.since(QUERIES_SINCE, *location)?;
        // It decides how many rows there are.
        self.laterally(true, |walker| {
            walker.apart(|walker| {
                walker.json_value(context_item)?;
                path(pathspec, *location)?;
                walker.json_passing(passing)?;
                walker.json_behavior(on_error)
            })
        })?;
        let mut names = Vec::new();
        self.laterally(true, |walker| walker.apart(|walker| walker.json_columns(columns, &mut names)))?;
        let (alias, renames) = alias_parts(alias)?;
        renamed(Item::new(Some(alias.unwrap_or("json_table")), computed_columns(names)), &renames, *location)
    }

    /// The columns of one level in their order, then those of the levels nested in it.
    fn json_columns(&mut self, columns: &[Node], names: &mut Vec<String>) -> Walk<()> {
        let mut nested = Vec::new();
        for node in columns {
            let NodeEnum::JsonTableColumn(column) = inner(node)? else {
                return construct("a column of JSON_TABLE of this form", NOWHERE);
            };
            let JsonTableColumn {
                coltype,
                name,
                type_name,
                pathspec,
                format: _,
                wrapper: _,
                quotes: _,
                columns,
                on_empty,
                on_error,
                location,
            } = column.as_ref();
            path(pathspec, *location)?;
            self.json_behavior(on_empty)?;
            self.json_behavior(on_error)?;
            if let Some(of) = type_name {
                self.cast_target(of)?;
            }
            match JsonTableColumnType::try_from(*coltype) {
                Ok(
                    JsonTableColumnType::JtcForOrdinality
                    | JsonTableColumnType::JtcRegular
                    | JsonTableColumnType::JtcExists
                    | JsonTableColumnType::JtcFormatted,
                ) => names.push(name.clone()),
                Ok(JsonTableColumnType::JtcNested) => nested.push(columns),
                Ok(JsonTableColumnType::Undefined) | Err(_) => {
                    return construct("a column of JSON_TABLE of this form", *location);
                }
            }
        }
        nested.into_iter().try_for_each(|columns| self.deeper(|walker| walker.json_columns(columns, names)))
    }

    pub(crate) fn xml_table(&mut self, table: &RangeTableFunc) -> Walk<Item> {
        let RangeTableFunc { lateral: _, docexpr, rowexpr, namespaces, columns, alias, location } = table;
        let mut names = Vec::with_capacity(columns.len());
        self.laterally(true, |walker| {
            walker.apart(|walker| {
                walker.optional(docexpr, Use::Expression)?;
                walker.optional(rowexpr, Use::Expression)?;
                for node in namespaces {
                    let NodeEnum::ResTarget(namespace) = inner(node)? else {
                        return construct("XMLNAMESPACES of this form", *location);
                    };
                    walker.optional(&namespace.val, Use::Expression)?;
                }
                columns.iter().try_for_each(|node| walker.xml_column(node, &mut names))
            })
        })?;
        let (alias, renames) = alias_parts(alias)?;
        renamed(Item::new(Some(alias.unwrap_or("xmltable")), computed_columns(names)), &renames, *location)
    }

    fn xml_column(&mut self, node: &Node, names: &mut Vec<String>) -> Walk<()> {
        let NodeEnum::RangeTableFuncCol(column) = inner(node)? else {
            return construct("a column of XMLTABLE of this form", NOWHERE);
        };
        let RangeTableFuncCol {
            colname,
            type_name,
            for_ordinality: _,
            is_not_null: _,
            colexpr,
            coldefexpr,
            location: _,
        } = column.as_ref();
        if let Some(of) = type_name {
            self.cast_target(of)?;
        }
        self.optional(colexpr, Use::Expression)?;
        self.optional(coldefexpr, Use::Expression)?;
        names.push(colname.clone());
        Ok(())
    }
}

/// A path is a constant of the text.
fn path(spec: &Option<Box<JsonTablePathSpec>>, at: i32) -> Walk<()> {
    let Some(JsonTablePathSpec { string, name: _, name_location: _, location: _ }) = spec.as_deref() else {
        return Ok(());
    };
    match string.as_deref().and_then(|node| node.node.as_ref()) {
        Some(NodeEnum::AConst(_)) | None => Ok(()),
        Some(_) => construct("a computed path of JSON_TABLE", at),
    }
}
