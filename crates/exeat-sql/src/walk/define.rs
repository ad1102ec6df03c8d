//! CREATE TABLE, ALTER TABLE and CREATE INDEX: types, defaults, generated columns, checks, keys. What is checked against
//! rows that are there already is a use of their columns: whether it succeeds tells about them.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterTableCmd, AlterTableStmt, AlterTableType, ColumnDef, ConstrType, Constraint, CreateStmt, IndexElem, IndexStmt,
    Node, ObjectType, PartitionBoundSpec, PartitionElem, PartitionRangeDatum, RangeVar, TableLikeClause, TypeName,
};

use super::scope::{Columns, Item, Level, Value};
use super::{NOWHERE, Stop, Walk, Walker, construct, inner, string, strings, unresolved};
use crate::Use;
use crate::catalog::{ColumnId, Oid, Relation, RelationKind};

/// What the server takes for types, and are a sequence and a default.
const SERIALS: [(&str, Oid); 6] = [
    ("smallserial", Oid(21)),
    ("serial2", Oid(21)),
    ("serial", Oid(23)),
    ("serial4", Oid(23)),
    ("bigserial", Oid(20)),
    ("serial8", Oid(20)),
];

/// The table whose columns and constraints are read.
#[derive(Clone, Copy)]
enum Subject<'a> {
    /// Its name; it has no rows yet.
    Made(&'a RangeVar),
    There(&'a Relation),
}

impl<'a> Walker<'a> {
    pub(crate) fn create_table(&mut self, stmt: &CreateStmt) -> Walk<()> {
        let CreateStmt {
            relation: Some(table),
            table_elts,
            inh_relations,
            partbound,
            partspec,
            of_typename: None,
            constraints,
            nnconstraints,
            options: _,
            oncommit: _,
            tablespacename: _,
            access_method,
            if_not_exists,
        } = stmt
        else {
            return construct("CREATE TABLE of this form", NOWHERE);
        };
        if !access_method.is_empty() || !constraints.is_empty() || !nnconstraints.is_empty() {
            return construct("CREATE TABLE of this form", table.location);
        }
        self.makes(table, !*if_not_exists)?;
        let mut columns = self.inherited(inh_relations)?;
        for node in table_elts {
            self.column_names(node, &mut columns)?;
        }
        self.levels.push(Level::default());
        if let Some(bound) = partbound {
            self.partition_bound(bound)?;
        }
        let item = Item::new(Some(table.relname.as_str()), Rc::new(Columns::new(columns)));
        self.items_mut().push(item);
        let subject = Subject::Made(table);
        for node in table_elts {
            match inner(node)? {
                NodeEnum::ColumnDef(column) => self.column_definition(column, subject)?,
                NodeEnum::Constraint(constraint) => self.constraint(constraint, subject)?,
                NodeEnum::TableLikeClause(_) => {}
                _ => return construct("CREATE TABLE of this form", table.location),
            }
        }
        for node in partspec.iter().flat_map(|spec| &spec.part_params) {
            let NodeEnum::PartitionElem(element) = inner(node)? else {
                return construct("a partition key of this form", table.location);
            };
            let PartitionElem { name: _, expr, collation: _, opclass, location } = element.as_ref();
            if !opclass.is_empty() {
                return construct("an operator class", *location);
            }
            self.optional(expr, Use::Key)?;
        }
        self.levels.pop();
        Ok(())
    }

    /// Columns of the parents; a parent with a child is another relation.
    fn inherited(&mut self, parents: &[Node]) -> Walk<Vec<(Rc<str>, Value)>> {
        let mut columns = Vec::new();
        for node in parents {
            let NodeEnum::RangeVar(parent) = inner(node)? else {
                return construct("CREATE TABLE of this form", NOWHERE);
            };
            let parent = self.altered(parent)?;
            self.add_columns_of(parent, &mut columns)?;
        }
        Ok(columns)
    }

    /// Empty columns of the same names and types.
    fn add_columns_of(&mut self, relation: &Relation, columns: &mut Vec<(Rc<str>, Value)>) -> Walk<()> {
        self.spend(relation.columns.len())?;
        for column in &relation.columns {
            if !columns.iter().any(|(name, _)| **name == *column.name) {
                let value = Value { of: Some(column.type_oid), ..Value::computed() };
                columns.push((Rc::from(&*column.name), value));
            }
        }
        Ok(())
    }

    fn column_names(&mut self, node: &Node, columns: &mut Vec<(Rc<str>, Value)>) -> Walk<()> {
        match inner(node)? {
            NodeEnum::ColumnDef(column) => {
                let of = match &column.type_name {
                    Some(name) => Some(self.column_type(name)?),
                    None => None,
                };
                columns.push((Rc::from(&*column.colname), Value { of, ..Value::computed() }));
                Ok(())
            }
            NodeEnum::TableLikeClause(TableLikeClause { relation: Some(like), options: _, relation_oid: _ }) => {
                let like = self.relation(like)?;
                if matches!(like.kind, RelationKind::CompositeType | RelationKind::ForeignTable) {
                    return construct("LIKE of a relation of this kind", NOWHERE);
                }
                self.add_columns_of(like, columns)
            }
            _ => Ok(()),
        }
    }

    /// A type that runs a user's code is refused, as in a cast.
    fn column_type(&mut self, of: &TypeName) -> Walk<Oid> {
        let names = strings(&of.names).unwrap_or_default();
        let serial = SERIALS.iter().find(|(name, _)| names.as_slice() == [*name]);
        match serial {
            Some((_, oid)) if of.array_bounds.is_empty() => Ok(*oid),
            Some(_) | None => self.cast_target(of),
        }
    }

    fn partition_bound(&mut self, bound: &PartitionBoundSpec) -> Walk<()> {
        let PartitionBoundSpec {
            strategy: _,
            is_default: _,
            modulus: _,
            remainder: _,
            listdatums,
            lowerdatums,
            upperdatums,
            location: _,
        } = bound;
        for node in listdatums.iter().chain(lowerdatums).chain(upperdatums) {
            match inner(node)? {
                NodeEnum::PartitionRangeDatum(datum) => {
                    let PartitionRangeDatum { kind: _, value, location: _ } = datum.as_ref();
                    self.optional(value, Use::Key)?;
                }
                // MINVALUE and MAXVALUE come as names of columns.
                NodeEnum::ColumnRef(_) => {}
                _ => self.expr(node, Use::Key)?,
            }
        }
        Ok(())
    }

    fn column_definition(&mut self, column: &ColumnDef, subject: Subject<'_>) -> Walk<()> {
        let ColumnDef { raw_default, cooked_default: None, constraints, fdwoptions, .. } = column else {
            return construct("a column of this form", column.location);
        };
        if !fdwoptions.is_empty() {
            return construct("a column of this form", column.location);
        }
        self.optional(raw_default, Use::Source)?;
        for node in constraints {
            let NodeEnum::Constraint(constraint) = inner(node)? else {
                return construct("a column of this form", column.location);
            };
            self.constraint(constraint, subject)?;
        }
        // A key of its own names no column: a new column holds what its default gives.
        Ok(())
    }

    fn constraint(&mut self, constraint: &Constraint, subject: Subject<'_>) -> Walk<()> {
        let at = constraint.location;
        match ConstrType::try_from(constraint.contype) {
            Ok(
                ConstrType::ConstrNull
                | ConstrType::ConstrIdentity
                | ConstrType::ConstrAttrDeferrable
                | ConstrType::ConstrAttrNotDeferrable
                | ConstrType::ConstrAttrDeferred
                | ConstrType::ConstrAttrImmediate
                | ConstrType::ConstrAttrEnforced
                | ConstrType::ConstrAttrNotEnforced,
            ) => Ok(()),
            Ok(ConstrType::ConstrNotnull) => self.keys(&constraint.keys, Use::Predicate, subject, at),
            Ok(ConstrType::ConstrDefault | ConstrType::ConstrGenerated) => {
                self.optional(&constraint.raw_expr, Use::Source)
            }
            Ok(ConstrType::ConstrCheck) => self.optional(&constraint.raw_expr, Use::Predicate),
            Ok(ConstrType::ConstrPrimary | ConstrType::ConstrUnique) => {
                if !constraint.indexname.is_empty() || constraint.without_overlaps {
                    return construct("a key of this form", at);
                }
                self.keys(&constraint.keys, Use::Key, subject, at)?;
                self.keys(&constraint.including, Use::Key, subject, at)
            }
            Ok(ConstrType::ConstrForeign) => {
                self.keys(&constraint.fk_attrs, Use::Key, subject, at)?;
                self.references(constraint, subject)
            }
            Ok(ConstrType::ConstrExclusion | ConstrType::Undefined) | Err(_) => {
                construct("a constraint of this kind", at)
            }
        }
    }

    /// Columns of the subject by name. Those of a table that is made hold nothing yet.
    fn keys(&mut self, names: &[Node], how: Use, subject: Subject<'_>, at: i32) -> Walk<()> {
        let Subject::There(relation) = subject else { return Ok(()) };
        for node in names {
            let Some(name) = string(node) else { return construct("a key of this form", at) };
            match self.column_in_sight(relation, name) {
                Some(column) => {
                    self.record(ColumnId { relation: relation.oid, attribute: column.attribute }, how, at)?;
                }
                // A column that the same statement adds, or that is not there.
                None => self.spend(1)?,
            }
        }
        Ok(())
    }

    /// Rows that are there, and every row written from now on, look the other side's columns up.
    fn references(&mut self, constraint: &Constraint, subject: Subject<'_>) -> Walk<()> {
        let Some(other) = &constraint.pktable else { return construct("a key of this form", constraint.location) };
        let relation = match (self.relation(other), subject) {
            (Ok(relation), _) => relation,
            (Err(Stop::Unresolved { .. }), Subject::Made(table)) if table.relname == other.relname => return Ok(()),
            (Err(stop), _) => return Err(stop),
        };
        self.alters(relation, other.location)?;
        if !constraint.pk_attrs.is_empty() {
            return self.keys(&constraint.pk_attrs, Use::Key, Subject::There(relation), other.location);
        }
        let snapshot = self.snapshot;
        let unique = snapshot.checked_together(relation.oid).iter().filter(|together| together.unique);
        for attribute in unique.flat_map(|together| &together.columns) {
            self.record(ColumnId { relation: relation.oid, attribute: *attribute }, Use::Key, other.location)?;
        }
        Ok(())
    }

    pub(crate) fn create_index(&mut self, stmt: &IndexStmt) -> Walk<()> {
        let IndexStmt {
            relation: Some(table),
            access_method: _,
            index_params,
            index_including_params,
            where_clause,
            exclude_op_names,
            ..
        } = stmt
        else {
            return construct("CREATE INDEX of this form", NOWHERE);
        };
        if !exclude_op_names.is_empty() {
            return construct("CREATE INDEX of this form", table.location);
        }
        let relation = self.altered(table)?;
        self.in_sight(relation)?;
        for node in index_params.iter().chain(index_including_params) {
            let NodeEnum::IndexElem(element) = inner(node)? else {
                return construct("CREATE INDEX of this form", table.location);
            };
            let IndexElem { name, expr, indexcolname: _, collation: _, opclass, opclassopts, .. } = element.as_ref();
            if !opclass.is_empty() || !opclassopts.is_empty() {
                return construct("an operator class", table.location);
            }
            self.optional(expr, Use::Key)?;
            if name.is_empty() {
                continue;
            }
            match self.column_in_sight(relation, name) {
                Some(column) => {
                    let column = ColumnId { relation: relation.oid, attribute: column.attribute };
                    self.record(column, Use::Key, table.location)?;
                }
                None => return unresolved(name, table.location),
            }
        }
        self.optional(where_clause, Use::Predicate)?;
        self.levels.pop();
        Ok(())
    }

    /// A level with the relation's columns.
    fn in_sight(&mut self, relation: &Relation) -> Walk<()> {
        let item = self.uncounted(|walker| walker.relation_item(relation, (None, &[]), NOWHERE))?;
        self.levels.push(Level::default());
        self.items_mut().push(item);
        Ok(())
    }

    pub(crate) fn alter_table(&mut self, stmt: &AlterTableStmt) -> Walk<()> {
        let AlterTableStmt { relation: Some(table), cmds, objtype, missing_ok: _ } = stmt else {
            return construct("ALTER of this form", NOWHERE);
        };
        if ObjectType::try_from(*objtype) != Ok(ObjectType::ObjectTable) {
            return construct("ALTER of this kind", table.location);
        }
        let relation = self.altered(table)?;
        if !matches!(relation.kind, RelationKind::Table | RelationKind::PartitionedTable) {
            return construct("ALTER TABLE of something else", table.location);
        }
        self.in_sight(relation)?;
        for node in cmds {
            let NodeEnum::AlterTableCmd(command) = inner(node)? else {
                return construct("ALTER of this form", table.location);
            };
            self.alter(command, relation, table.location)?;
        }
        self.levels.pop();
        Ok(())
    }

    fn alter(&mut self, command: &AlterTableCmd, relation: &Relation, at: i32) -> Walk<()> {
        let AlterTableCmd { subtype, name, num: _, newowner: None, def, behavior: _, missing_ok: _, recurse: _ } =
            command
        else {
            return construct("ALTER TABLE of this kind", at);
        };
        let subject = Subject::There(relation);
        let def = def.as_deref().map(inner).transpose()?;
        match (AlterTableType::try_from(*subtype), def) {
            (Ok(AlterTableType::AtAddColumn), Some(NodeEnum::ColumnDef(column))) => {
                if let Some(of) = &column.type_name {
                    self.column_type(of)?;
                }
                self.column_definition(column, subject)
            }
            (Ok(AlterTableType::AtColumnDefault), None) => Ok(()),
            (Ok(AlterTableType::AtColumnDefault), Some(_)) => self.optional(&command.def, Use::Source),
            (Ok(AlterTableType::AtAddConstraint), Some(NodeEnum::Constraint(constraint))) => {
                self.constraint(constraint, subject)
            }
            (Ok(AlterTableType::AtSetNotNull), None) => self.existing(relation, name, Use::Predicate, at),
            (Ok(AlterTableType::AtAlterColumnType), Some(NodeEnum::ColumnDef(column))) => {
                let Some(of) = &column.type_name else { return construct("ALTER TABLE of this kind", at) };
                self.column_type(of)?;
                self.existing(relation, name, Use::Expression, at)?;
                self.optional(&column.raw_default, Use::Source)
            }
            (
                Ok(
                    AlterTableType::AtDropNotNull
                    | AlterTableType::AtDropColumn
                    | AlterTableType::AtDropConstraint
                    | AlterTableType::AtDropExpression
                    | AlterTableType::AtSetStatistics
                    | AlterTableType::AtSetStorage
                    | AlterTableType::AtSetCompression
                    | AlterTableType::AtSetLogged
                    | AlterTableType::AtSetUnLogged,
                ),
                _,
            ) => Ok(()),
            (Ok(AlterTableType::AtAddInherit | AlterTableType::AtDropInherit), Some(NodeEnum::RangeVar(parent))) => {
                self.altered(parent).map(|_| ())
            }
            _ => construct("ALTER TABLE of this kind", at),
        }
    }

    fn existing(&mut self, relation: &Relation, name: &str, how: Use, at: i32) -> Walk<()> {
        match self.column_in_sight(relation, name) {
            Some(column) => self.record(ColumnId { relation: relation.oid, attribute: column.attribute }, how, at),
            None => unresolved(name, at),
        }
    }
}
