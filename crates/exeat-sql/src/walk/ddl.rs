//! Definitions: what CREATE, ALTER and DROP of relations, schemas, sequences and enums touch, and the kin of them that
//! act on whole relations (TRUNCATE, VACUUM, ANALYZE). Their queries and expressions are analysed where they
//! stand, because the server keeps them and runs them later, when nobody looks: one that calls a user's code, or has an
//! effect on a session, is not let in. Forms that are not taken apart here stay opaque.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterObjectSchemaStmt, CommentStmt, CreateSchemaStmt, CreateSeqStmt, CreateTableAsStmt, DropBehavior, DropStmt,
    IntoClause, Node, ObjectType, RangeVar, RefreshMatViewStmt, RenameStmt, SelectStmt, TruncateStmt, VacuumStmt,
    ViewStmt,
};

use super::{NOWHERE, Walk, Walker, construct, inner, relation_property, strings, unresolved};
use crate::catalog::{Oid, PG_CATALOG, Relation, RelationKind};
use crate::{NewRelation, Use, Write};

/// How each is known to refusals.
const NO_SUCH_FORM: &str = "a definition of this form";

impl<'a> Walker<'a> {
    /// Whether the statement is a definition that is analysed.
    pub(crate) fn definition(&mut self, node: &NodeEnum) -> Walk<bool> {
        // What fills a table runs here and now; everything else is kept for other sessions.
        self.bound = !matches!(node, NodeEnum::SelectStmt(_) | NodeEnum::CreateTableAsStmt(_));
        match node {
            NodeEnum::SelectStmt(select) => self.select_into(select)?,
            NodeEnum::CreateTableAsStmt(stmt) => self.create_table_as(stmt)?,
            NodeEnum::ViewStmt(stmt) => self.create_view(stmt)?,
            NodeEnum::CreateStmt(stmt) => self.create_table(stmt)?,
            NodeEnum::AlterTableStmt(stmt) => self.alter_table(stmt)?,
            NodeEnum::IndexStmt(stmt) => self.create_index(stmt)?,
            NodeEnum::DropStmt(stmt) => self.drop(stmt)?,
            NodeEnum::RenameStmt(stmt) => self.rename(stmt)?,
            NodeEnum::AlterObjectSchemaStmt(stmt) => self.move_schema(stmt)?,
            NodeEnum::CommentStmt(stmt) => self.comment(stmt)?,
            NodeEnum::CreateSchemaStmt(stmt) => create_schema(stmt)?,
            NodeEnum::CreateSeqStmt(stmt) => self.create_sequence(stmt)?,
            // Labels are literals, and an enum has no code of its own.
            NodeEnum::CreateEnumStmt(_) => {}
            NodeEnum::RefreshMatViewStmt(stmt) => self.refresh(stmt)?,
            NodeEnum::VacuumStmt(stmt) => self.vacuum(stmt)?,
            NodeEnum::TruncateStmt(stmt) => self.truncate(stmt)?,
            _ => return Ok(false),
        }
        self.without_effects()?;
        self.facts.user_code |= self.snapshot.has_event_triggers();
        self.facts.defines.get_or_insert_default();
        Ok(true)
    }

    /// What is kept runs again in other sessions, or now for each row: a setting it changes would be seen by nobody.
    fn without_effects(&self) -> Walk<()> {
        let facts = &self.facts;
        let has_effect = !facts.settings.is_empty() || !facts.notifies.is_empty() || facts.session_effect.is_some();
        if has_effect || facts.large_objects || facts.relation_sizes {
            return construct("a call with an effect in a definition", NOWHERE);
        }
        Ok(())
    }

    /// A relation that is there and that the statement alters, drops or works on.
    pub(crate) fn altered(&mut self, table: &RangeVar) -> Walk<&'a Relation> {
        let relation = self.relation(table)?;
        self.alters(relation, table.location)?;
        Ok(relation)
    }

    pub(crate) fn alters(&mut self, relation: &Relation, at: i32) -> Walk<()> {
        if relation.is_metadata() {
            return relation_property(relation, "is part of the system catalogs", at);
        }
        match relation.kind {
            RelationKind::Table
            | RelationKind::PartitionedTable
            | RelationKind::View
            | RelationKind::MaterializedView
            | RelationKind::Sequence => {}
            RelationKind::ForeignTable => return relation_property(relation, "is a foreign table", at),
            RelationKind::CompositeType => return unresolved(&relation.name, at),
        }
        self.facts.user_code |= self.snapshot.facts(relation.oid).calls_user_code;
        self.facts.defines.get_or_insert_default().alters.insert(relation.oid);
        Ok(())
    }

    /// `new`: the statement fails if there is one of this name.
    pub(crate) fn makes(&mut self, table: &RangeVar, new: bool) -> Walk<()> {
        let RangeVar { catalogname, schemaname, relname, inh: _, relpersistence, alias: _, location } = table;
        if !catalogname.is_empty() && catalogname != self.snapshot.database_name() {
            return unresolved(&format!("{catalogname}.{schemaname}.{relname}"), *location);
        }
        let schema = if relpersistence == "t" || schemaname == "pg_temp" {
            self.schema_named("pg_temp")
        } else if schemaname.is_empty() {
            Some(self.creation_schema()?)
        } else {
            match self.schema_named(schemaname) {
                Some(schema) => Some(schema),
                None => return unresolved(schemaname, *location),
            }
        };
        if schema == Some(PG_CATALOG) || schemaname == "information_schema" {
            return construct("a definition in a schema of the server's own", *location);
        }
        let made = NewRelation { schema, name: relname.clone(), new };
        self.facts.defines.get_or_insert_default().makes.push(made);
        Ok(())
    }

    /// Where an unqualified name is made: not in what the server adds to the path by itself.
    fn creation_schema(&self) -> Walk<Oid> {
        let is_own = |schema: &&Oid| {
            **schema != PG_CATALOG
                && !self.snapshot.schema_name(**schema).is_some_and(|name| name.starts_with("pg_temp_"))
        };
        match self.path.iter().find(is_own) {
            Some(schema) => Ok(*schema),
            None => construct("a definition without a schema on the search path", NOWHERE),
        }
    }

    /// A query whose rows or text the server keeps: what it gives is written.
    fn kept(&mut self, query: &SelectStmt) -> Walk<()> {
        let outside = std::mem::replace(&mut self.place, Use::Source);
        let outputs = self.select(query)?;
        self.place = outside;
        outputs.iter().try_for_each(|target| self.consume(&target.value, Use::Source, target.at))
    }

    fn kept_node(&mut self, query: Option<&Node>) -> Walk<()> {
        let Some(query) = query else { return construct(NO_SUCH_FORM, NOWHERE) };
        match inner(query)? {
            NodeEnum::SelectStmt(select) => self.kept(select),
            _ => construct("a definition from something other than a query", NOWHERE),
        }
    }

    fn select_into(&mut self, select: &SelectStmt) -> Walk<()> {
        let Some(into) = &select.into_clause else { return construct(NO_SUCH_FORM, NOWHERE) };
        self.kept(&SelectStmt { into_clause: None, ..select.clone() })?;
        self.made_from(into, true)
    }

    fn create_table_as(&mut self, stmt: &CreateTableAsStmt) -> Walk<()> {
        let CreateTableAsStmt { query, into: Some(into), objtype, is_select_into: _, if_not_exists } = stmt else {
            return construct(NO_SUCH_FORM, NOWHERE);
        };
        match ObjectType::try_from(*objtype) {
            Ok(ObjectType::ObjectTable) => {}
            Ok(ObjectType::ObjectMatview) => self.bound = true,
            _ => return construct(NO_SUCH_FORM, NOWHERE),
        }
        self.kept_node(query.as_deref())?;
        self.made_from(into, !*if_not_exists)
    }

    fn made_from(&mut self, into: &IntoClause, new: bool) -> Walk<()> {
        let IntoClause {
            rel: Some(table),
            col_names: _,
            access_method,
            options: _,
            on_commit: _,
            table_space_name: _,
            view_query: None,
            skip_data: _,
        } = into
        else {
            return construct(NO_SUCH_FORM, NOWHERE);
        };
        if !access_method.is_empty() {
            return construct("a table access method", table.location);
        }
        self.makes(table, new)
    }

    fn create_view(&mut self, stmt: &ViewStmt) -> Walk<()> {
        let ViewStmt { view: Some(view), aliases: _, query, replace, options: _, with_check_option: _ } = stmt else {
            return construct(NO_SUCH_FORM, NOWHERE);
        };
        self.kept_node(query.as_deref())?;
        self.makes(view, !*replace)?;
        let snapshot = self.snapshot;
        let made = self.facts.defines.as_ref().and_then(|definition| definition.makes.last());
        let there = made.and_then(|made| snapshot.relation_in(made.schema?, &made.name));
        match there {
            Some(there) if *replace => self.alters(there, view.location),
            Some(_) | None => Ok(()),
        }
    }

    fn drop(&mut self, stmt: &DropStmt) -> Walk<()> {
        let DropStmt { objects, remove_type, behavior, missing_ok, concurrent: _ } = stmt;
        let cascade = DropBehavior::try_from(*behavior) != Ok(DropBehavior::DropRestrict);
        for object in objects {
            match ObjectType::try_from(*remove_type) {
                Ok(
                    ObjectType::ObjectTable
                    | ObjectType::ObjectView
                    | ObjectType::ObjectMatview
                    | ObjectType::ObjectSequence,
                ) => self.drop_relation(object, *missing_ok, cascade)?,
                Ok(ObjectType::ObjectSchema) => self.drop_schema(object, cascade)?,
                // Without CASCADE nothing depends on it.
                Ok(ObjectType::ObjectType | ObjectType::ObjectDomain) if !cascade => {}
                _ => return construct("DROP of this kind", NOWHERE),
            }
        }
        Ok(())
    }

    fn drop_relation(&mut self, object: &Node, missing_ok: bool, cascade: bool) -> Walk<()> {
        let NodeEnum::List(names) = inner(object)? else { return construct("DROP of this form", NOWHERE) };
        let table = named_range(&names.items)?;
        match self.relation(&table) {
            Ok(relation) => {
                self.alters(relation, NOWHERE)?;
                if cascade { self.alters_what_stands_on(relation.oid) } else { Ok(()) }
            }
            // What is hidden is not passed over by the server.
            Err(super::Stop::Unresolved { .. }) if missing_ok && !self.is_there(&table) => Ok(()),
            Err(stop) => Err(stop),
        }
    }

    /// Views, transitively, and the foreign keys of other relations.
    fn alters_what_stands_on(&mut self, relation: Oid) -> Walk<()> {
        let snapshot = self.snapshot;
        let mut open = vec![relation];
        let mut seen = std::collections::BTreeSet::from([relation]);
        while let Some(below) = open.pop() {
            let mut above: Vec<Oid> = snapshot.foreign_keys_to(below).map(|key| key.relation).collect();
            above.extend(snapshot.family(below));
            for view in snapshot.relations() {
                self.spend(1)?;
                match snapshot.view_lineage(view.oid) {
                    Some(Ok(lineage)) if lineage.reads.contains(&below) => above.push(view.oid),
                    Some(Ok(_)) | None => {}
                    Some(Err(_)) => return construct("CASCADE beside views that are not analysed", NOWHERE),
                }
            }
            for oid in above {
                let Some(found) = snapshot.relation(oid) else { continue };
                self.alters(found, NOWHERE)?;
                // A foreign key goes alone, what stands on its relation stays.
                if snapshot.view_lineage(oid).is_some() && seen.insert(oid) {
                    open.push(oid);
                }
            }
        }
        Ok(())
    }

    fn drop_schema(&mut self, object: &Node, cascade: bool) -> Walk<()> {
        let NodeEnum::String(name) = inner(object)? else { return construct("DROP SCHEMA of this form", NOWHERE) };
        let Some(schema) = self.snapshot.schema_by_name(&name.sval) else { return unresolved(&name.sval, NOWHERE) };
        if !cascade {
            return Ok(());
        }
        if self.snapshot.schema_holds_more_than_relations(schema) {
            return construct("DROP SCHEMA CASCADE of more than relations", NOWHERE);
        }
        let snapshot = self.snapshot;
        for relation in snapshot.relations().filter(|relation| relation.schema == schema) {
            self.alters(relation, NOWHERE)?;
            self.alters_what_stands_on(relation.oid)?;
        }
        Ok(())
    }

    fn rename(&mut self, stmt: &RenameStmt) -> Walk<()> {
        let RenameStmt {
            rename_type,
            relation_type: _,
            relation: Some(table),
            object: _,
            subname: _,
            newname: _,
            behavior: _,
            missing_ok: _,
        } = stmt
        else {
            return construct("RENAME of this kind", NOWHERE);
        };
        match ObjectType::try_from(*rename_type) {
            Ok(
                ObjectType::ObjectTable
                | ObjectType::ObjectView
                | ObjectType::ObjectMatview
                | ObjectType::ObjectSequence
                | ObjectType::ObjectColumn
                | ObjectType::ObjectTabconstraint,
            ) => self.altered(table).map(|_| ()),
            _ => construct("RENAME of this kind", table.location),
        }
    }

    fn move_schema(&mut self, stmt: &AlterObjectSchemaStmt) -> Walk<()> {
        let AlterObjectSchemaStmt { object_type: _, relation: Some(table), object: None, newschema, missing_ok: _ } =
            stmt
        else {
            return construct("SET SCHEMA of this kind", NOWHERE);
        };
        if self.schema_named(newschema).is_none() {
            return unresolved(newschema, NOWHERE);
        }
        self.altered(table).map(|_| ())
    }

    fn comment(&mut self, stmt: &CommentStmt) -> Walk<()> {
        let CommentStmt { objtype, object: Some(object), comment: _ } = stmt else {
            return construct(NO_SUCH_FORM, NOWHERE);
        };
        let names = match inner(object)? {
            NodeEnum::List(names) => names.items.as_slice(),
            _ => return construct("COMMENT of this kind", NOWHERE),
        };
        let relation = match ObjectType::try_from(*objtype) {
            Ok(
                ObjectType::ObjectTable
                | ObjectType::ObjectView
                | ObjectType::ObjectMatview
                | ObjectType::ObjectSequence,
            ) => names,
            Ok(ObjectType::ObjectColumn) => names.split_last().map_or(names, |(_, relation)| relation),
            _ => return construct("COMMENT of this kind", NOWHERE),
        };
        self.altered(&named_range(relation)?).map(|_| ())
    }

    fn create_sequence(&mut self, stmt: &CreateSeqStmt) -> Walk<()> {
        let CreateSeqStmt { sequence: Some(sequence), options, owner_id: _, for_identity: _, if_not_exists } = stmt
        else {
            return construct(NO_SUCH_FORM, NOWHERE);
        };
        let is_plain =
            |node: &Node| matches!(&node.node, Some(NodeEnum::DefElem(option)) if option.defname != "owned_by");
        if !options.iter().all(is_plain) {
            return construct("a sequence with an owner", sequence.location);
        }
        self.makes(sequence, !*if_not_exists)
    }

    /// Runs the definition and keeps its rows.
    fn refresh(&mut self, stmt: &RefreshMatViewStmt) -> Walk<()> {
        let RefreshMatViewStmt { concurrent: _, skip_data: _, relation: Some(table) } = stmt else {
            return construct(NO_SUCH_FORM, NOWHERE);
        };
        let view = self.altered(table)?;
        if view.kind != RelationKind::MaterializedView {
            return unresolved(&view.name, table.location);
        }
        self.touch_read(view, table.location)
    }

    fn vacuum(&mut self, stmt: &VacuumStmt) -> Walk<()> {
        let VacuumStmt { options, rels, is_vacuumcmd: _ } = stmt;
        if rels.is_empty() {
            return construct("VACUUM or ANALYZE of every relation", NOWHERE);
        }
        for option in options {
            let NodeEnum::DefElem(option) = inner(option)? else { return construct(NO_SUCH_FORM, NOWHERE) };
            // VERBOSE and its kin tell how much is stored.
            if !matches!(option.defname.as_str(), "analyze" | "freeze" | "full" | "skip_locked" | "truncate") {
                return construct("an option of VACUUM or ANALYZE", option.location);
            }
        }
        for node in rels {
            let NodeEnum::VacuumRelation(one) = inner(node)? else { return construct(NO_SUCH_FORM, NOWHERE) };
            let Some(table) = &one.relation else { return construct(NO_SUCH_FORM, NOWHERE) };
            self.altered(table)?;
        }
        Ok(())
    }

    fn truncate(&mut self, stmt: &TruncateStmt) -> Walk<()> {
        let TruncateStmt { relations, restart_seqs: _, behavior } = stmt;
        if DropBehavior::try_from(*behavior) == Ok(DropBehavior::DropCascade) {
            return construct("TRUNCATE CASCADE", NOWHERE);
        }
        for node in relations {
            let NodeEnum::RangeVar(table) = inner(node)? else { return construct(NO_SUCH_FORM, NOWHERE) };
            self.target(table, Write::Delete)?;
            let relation = self.altered(table)?;
            self.facts.unbounded.entry(relation.oid).or_insert(table.location);
        }
        Ok(())
    }
}

fn create_schema(stmt: &CreateSchemaStmt) -> Walk<()> {
    match stmt {
        CreateSchemaStmt { schemaname, authrole: None, schema_elts, if_not_exists: _ }
            if schema_elts.is_empty() && !schemaname.is_empty() =>
        {
            Ok(())
        }
        _ => construct("CREATE SCHEMA with an owner or elements", NOWHERE),
    }
}

/// A dotted name as FROM would have it.
fn named_range(names: &[Node]) -> Walk<RangeVar> {
    let Some(names) = strings(names) else { return construct(NO_SUCH_FORM, NOWHERE) };
    let (catalog, schema, name) = match names.as_slice() {
        [name] => ("", "", *name),
        [schema, name] => ("", *schema, *name),
        [catalog, schema, name] => (*catalog, *schema, *name),
        _ => return construct(NO_SUCH_FORM, NOWHERE),
    };
    Ok(RangeVar {
        catalogname: catalog.to_owned(),
        schemaname: schema.to_owned(),
        relname: name.to_owned(),
        inh: true,
        relpersistence: "p".to_owned(),
        alias: None,
        location: NOWHERE,
    })
}
