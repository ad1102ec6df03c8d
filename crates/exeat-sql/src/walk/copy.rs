//! COPY: what leaves by COPY TO, and what COPY FROM writes. The columns of COPY TO reach the client without a row
//! description to check them against: which they are is decided here alone.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{CopyStmt, DefElem, Node, RangeVar};

use super::scope::{Level, Value};
use super::select::Target;
use super::{NOWHERE, Walk, Walker, construct, inner, named_construct, string, unresolved};
use crate::catalog::{ColumnId, Relation};
use crate::{Use, Write};

/// Options that say how rows are written down, and nothing about which.
const OPTIONS: [&str; 15] = [
    "format",
    "freeze",
    "delimiter",
    "null",
    "default",
    "header",
    "quote",
    "escape",
    "force_quote",
    "force_not_null",
    "force_null",
    "encoding",
    "on_error",
    "reject_limit",
    "log_verbosity",
];

impl Walker<'_> {
    /// What COPY TO takes out, column by column; `None` for COPY FROM.
    pub(crate) fn copy(&mut self, stmt: &CopyStmt) -> Walk<Option<Vec<Target>>> {
        let CopyStmt { relation, query, attlist, is_from, is_program: _, filename: _, options, where_clause } = stmt;
        self.copy_options(options)?;
        self.levels.push(Level::default());
        match (relation, query, is_from) {
            (Some(table), None, true) => {
                let target = self.target(table, Write::Insert)?;
                self.copied_columns(target, attlist, |walker, target, attribute| {
                    walker.written(target, attribute, NOWHERE)
                })?;
                self.left_out_of_copy(target, attlist)?;
                // The condition sees the new row, with what its defaults computed.
                let item = self.target_item(target, table)?;
                self.items_mut().push(item);
                self.optional(where_clause, Use::Predicate)?;
                Ok(None)
            }
            (Some(table), None, false) if where_clause.is_none() => self.copied_relation(table, attlist).map(Some),
            (None, Some(query), false) if attlist.is_empty() && where_clause.is_none() => {
                self.copied_query(query).map(Some)
            }
            _ => construct("COPY of this form", NOWHERE),
        }
    }

    fn copy_options(&self, options: &[Node]) -> Walk<()> {
        for node in options {
            let NodeEnum::DefElem(option) = inner(node)? else {
                return construct("an option of COPY of this form", NOWHERE);
            };
            let DefElem { defnamespace, defname, arg: _, defaction: _, location, arg_location: _ } = option.as_ref();
            if !defnamespace.is_empty() || !OPTIONS.contains(&defname.as_str()) {
                return named_construct(format!("option {defname} of COPY"), *location);
            }
        }
        Ok(())
    }

    fn copied_relation(&mut self, table: &RangeVar, attlist: &[Node]) -> Walk<Vec<Target>> {
        let source = self.relation(table)?;
        self.touch_read(source, table.location)?;
        self.holds_relation(source.oid, &source.name, table.location);
        self.all_whole();
        if attlist.is_empty() {
            self.facts.stars.entry(source.oid).or_insert(table.location);
        }
        let mut targets = Vec::new();
        self.copied_columns(source, attlist, |_, source, attribute| {
            let Some(column) = source.columns.iter().find(|column| column.attribute == attribute) else {
                return Ok(());
            };
            // The server leaves generated columns out, and answers a list that names one with an error.
            if column.generated.is_none() {
                let id = ColumnId { relation: source.oid, attribute };
                let value = Value::column(id, Some(column.type_oid), NOWHERE);
                targets.push(Target { name: Rc::from(column.name.as_str()), value, at: NOWHERE });
            }
            Ok(())
        })?;
        Ok(targets)
    }

    /// The columns named, or all.
    fn copied_columns(
        &mut self,
        relation: &Relation,
        attlist: &[Node],
        mut note: impl FnMut(&mut Self, &Relation, i16) -> Walk<()>,
    ) -> Walk<()> {
        self.spend(attlist.len().saturating_add(relation.columns.len()))?;
        if attlist.is_empty() {
            return relation.columns.iter().try_for_each(|column| note(self, relation, column.attribute));
        }
        for node in attlist {
            let Some(name) = string(node) else { return construct("a column list of this form", NOWHERE) };
            let Some(column) = self.column_in_sight(relation, name) else {
                return unresolved(name, NOWHERE);
            };
            note(self, relation, column.attribute)?;
        }
        Ok(())
    }

    fn left_out_of_copy(&mut self, target: &Relation, attlist: &[Node]) -> Walk<()> {
        let named: Vec<&str> = attlist.iter().filter_map(string).collect();
        let left = target.columns.iter().filter(|column| !named.is_empty() && !named.contains(&column.name.as_str()));
        for column in left {
            self.spend(named.len())?;
            if self.domain_runs_code(target, column.attribute) {
                self.facts.user_code = true;
            }
        }
        Ok(())
    }

    fn copied_query(&mut self, query: &Node) -> Walk<Vec<Target>> {
        let NodeEnum::SelectStmt(select) = inner(query)? else {
            return construct("COPY of a query that changes data", NOWHERE);
        };
        self.select(select)
    }
}
