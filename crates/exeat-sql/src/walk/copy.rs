//! COPY: what leaves by COPY TO, and what COPY FROM writes. The columns of COPY TO reach the client without a row
//! description to check them against, so every one of them counts as used, and nothing is left to a prediction.

use pg_query::NodeEnum;
use pg_query::protobuf::{CopyStmt, DefElem, Node, RangeVar};

use super::dml::Write;
use super::scope::Level;
use super::{NOWHERE, Walk, Walker, construct, inner, named_construct, string, unresolved};
use crate::Use;
use crate::catalog::{ColumnId, Relation};

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
    pub(crate) fn copy(&mut self, stmt: &CopyStmt) -> Walk<()> {
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
                self.optional(where_clause, Use::Predicate)
            }
            (Some(table), None, false) if where_clause.is_none() => self.copied_relation(table, attlist),
            (None, Some(query), false) if attlist.is_empty() && where_clause.is_none() => self.copied_query(query),
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

    fn copied_relation(&mut self, table: &RangeVar, attlist: &[Node]) -> Walk<()> {
        let source = self.relation(table)?;
        self.touch_read(source, table.location)?;
        self.copied_columns(source, attlist, |walker, source, attribute| {
            walker.record(ColumnId { relation: source.oid, attribute }, Use::Projected, NOWHERE)
        })
    }

    /// The columns named, or all: generated ones too, which the server leaves out.
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
            let Some(column) = relation.columns.iter().find(|column| column.name == name) else {
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

    fn copied_query(&mut self, query: &Node) -> Walk<()> {
        let NodeEnum::SelectStmt(select) = inner(query)? else {
            return construct("COPY of a query that changes data", NOWHERE);
        };
        for target in self.select(select)? {
            self.projected(&target)?;
        }
        Ok(())
    }
}
