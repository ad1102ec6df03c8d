//! Rows of `QUERIES` to a snapshot. A row of another shape than asked for stops the build: a catalog that cannot
//! be read whole is not read at all.

use std::sync::Arc;

use super::bodies;
use super::policies::RowPolicy;
use super::queries::VIEWS;
use super::trust::{Pins, Trust};
use super::types::{CastContext, TypeClass};
use super::writes::{CheckedTogether, Trigger};
use super::{
    CatalogError, CatalogQuery, CatalogSnapshot, Column, ColumnId, FIRST_USER_OID, ForeignKey, Generated, Oid, QUERIES,
    Relation, RelationKind, Type, UserCast, UserFunction, UserOperator,
};
use crate::classes::{self, Class};
use crate::walk::view::DEFINITION_PATH;

/// Identifiers are cut at NAMEDATALEN - 1 bytes, here and on every server not rebuilt with another constant.
const IDENTIFIER_BYTES: &str = "63";

/// The one query whose rows are read after all others.
const CODE: &str = "code";

/// How the query says `CheckedTogether::plain`.
const PLAIN_KEY: &str = "plain";

type Rows = [Vec<Option<String>>];

impl CatalogSnapshot {
    /// `results[i]` holds the rows of `QUERIES[i]` as flat rows of text cells. Parses what stands behind views: call it
    /// on a thread with [`crate::PARSER_STACK_BYTES`] of stack.
    pub fn build(version: u64, results: &[Vec<Vec<Option<String>>>]) -> Result<Self, CatalogError> {
        Self::build_trusting(version, results, &Trust::default(), &Pins::default())
    }

    /// The same where the operator vouches for some of it. `pins`: what the names stood for when they were first seen.
    pub fn build_trusting(
        version: u64,
        results: &[Vec<Vec<Option<String>>>],
        trust: &Trust,
        pins: &Pins,
    ) -> Result<Self, CatalogError> {
        Self::build_under(version, results, &DEFINITION_PATH, None, (trust, pins))
    }

    /// As `build`, of what a session has read on its own connection, under its own search path. `beside`: what everybody
    /// sees, from which views are taken that [`CatalogSnapshot::changed_views`] does not name. Nobody vouches for what
    /// only one session sees.
    pub fn build_beside(
        version: u64,
        results: &[Vec<Vec<Option<String>>>],
        search_path: &[Oid],
        beside: &Self,
    ) -> Result<Self, CatalogError> {
        Self::build_under(version, results, search_path, Some(beside), (&Trust::default(), &Pins::default()))
    }

    /// Views whose definitions must be read for a snapshot beside this one: those that are new or changed, and those
    /// whose meaning may hang on something that is. `results`: the rows of `QUERIES` but for the views'.
    pub fn changed_views(&self, results: &[Vec<Vec<Option<String>>>]) -> Result<Vec<Oid>, CatalogError> {
        let mut now = CatalogSnapshot::default();
        for (query, rows) in QUERIES.iter().zip(results) {
            if matches!(query.name, "schemas" | "relations" | "versions") {
                now.load(query, rows)?;
            }
        }
        let agrees = |oid: &Oid| self.versions.agree(&now.versions, *oid);
        let is_unchanged = |view: &Relation| match self.view_lineages.get(&view.oid) {
            Some(Ok(lineage)) => {
                agrees(&view.oid) && lineage.reads.iter().all(agrees) && lineage.functions.iter().all(agrees)
            }
            Some(Err(_)) | None => false,
        };
        Ok(now.views_of_users().filter(|view| !is_unchanged(view)).map(|view| view.oid).collect())
    }

    fn views_of_users(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values().filter(|relation| {
            relation.oid >= FIRST_USER_OID
                && matches!(relation.kind, RelationKind::View | RelationKind::MaterializedView)
        })
    }

    fn build_under(
        version: u64,
        results: &[Vec<Vec<Option<String>>>],
        search_path: &[Oid],
        beside: Option<&Self>,
        (trust, pins): (&Trust, &Pins),
    ) -> Result<Self, CatalogError> {
        if results.len() != QUERIES.len() {
            return Err(CatalogError::Results { got: results.len(), expected: QUERIES.len() });
        }
        let mut snapshot = CatalogSnapshot { version, definition_path: search_path.to_vec(), ..Self::default() };
        for (query, rows) in QUERIES.iter().zip(results) {
            snapshot.load(query, rows)?;
        }
        snapshot.apply_trust(trust, pins);
        // Whether a type runs code is known once types and casts are.
        for (query, rows) in QUERIES.iter().zip(results).filter(|(query, _)| query.name == CODE) {
            rows.iter().try_for_each(|cells| snapshot.load_code(&Row { query: query.name, cells }))?;
        }
        snapshot.view_lineages = beside.map(|beside| beside.view_lineages.clone()).unwrap_or_default();
        let relations = &snapshot.relations;
        snapshot.view_lineages.retain(|oid, _| relations.contains_key(oid) && !snapshot.views.contains_key(oid));
        snapshot.check_complete()?;
        let read = crate::walk::view::lineages(&snapshot);
        snapshot.view_lineages.extend(read);
        snapshot.policy_lineages = crate::walk::view::policy_lineages(&snapshot);
        Ok(snapshot)
    }

    fn load(&mut self, query: &CatalogQuery, rows: &Rows) -> Result<(), CatalogError> {
        for cells in rows {
            let row = Row { query: query.name, cells };
            match query.name {
                "database" => self.load_database(&row)?,
                "schemas" => self.load_schema(&row)?,
                "relations" => self.load_relation(&row)?,
                "columns" => self.load_column(&row)?,
                "inheritance" => self.load_inheritance(&row)?,
                "versions" => {
                    let version = row.text(1)?.to_owned();
                    Arc::make_mut(&mut self.versions).0.insert(row.oid(0)?, version);
                }
                VIEWS => match cells.get(1) {
                    Some(None) => {
                        self.unread_views.insert(row.oid(0)?);
                    }
                    Some(Some(_)) | None => {
                        self.views.insert(row.oid(0)?, row.text(1)?.to_owned());
                    }
                },
                "triggers" => {
                    let (name, definition) = (row.text(2)?.to_owned(), row.text(4)?.to_owned());
                    let columns = row.list(5)?;
                    let trigger = Trigger { name, kind: row.number(1)?, function: row.oid(3)?, definition, columns };
                    self.triggers.entry(row.oid(0)?).or_default().0.push(trigger);
                }
                "checked together" => {
                    let plain = row.text(1)? == PLAIN_KEY;
                    let unique = plain || row.flag(1)?;
                    let together = CheckedTogether { unique, plain, columns: row.numbers(2)? };
                    self.checked_together.entry(row.oid(0)?).or_default().push(together);
                }
                "rules" => self.facts.entry(row.oid(0)?).or_default().rules = true,
                "policies" => {
                    let texts = [row.text(1)?, row.text(2)?, row.text(3)?, row.text(4)?].map(str::to_owned);
                    self.facts.entry(row.oid(0)?).or_default().policies = true;
                    self.policies.entry(row.oid(0)?).or_default().push(RowPolicy::new(texts));
                }
                "generated" => self.load_generated(&row)?,
                "collations" => {
                    self.collated.insert(ColumnId { relation: row.oid(0)?, attribute: row.number(1)? });
                }
                CODE => {}
                "foreign keys" => self.load_foreign_key(&row)?,
                "types" => self.load_type(&row)?,
                "functions" => self.load_function(&row)?,
                "sql functions" => self.load_sql_function(&row)?,
                "built-in functions" => self.load_built_in_function(&row)?,
                "operators" => self.load_operator(&row)?,
                "casts" => self.load_cast(&row)?,
                "event triggers" => self.event_triggers = true,
                "operator classes" => self.default_opclass_types.push(row.oid(0)?),
                _ => return Err(row.problem("has no reader".to_owned())),
            }
        }
        Ok(())
    }

    /// What must be there in every database; without it the rows came from somewhere else.
    fn check_complete(&self) -> Result<(), CatalogError> {
        let missing = |query, problem: &str| Err(CatalogError::Shape { query, problem: problem.to_owned() });
        if self.database == Oid(0) {
            return missing("database", "no row for the current database");
        }
        if self.schema_by_name("pg_catalog") != Some(super::PG_CATALOG) {
            return missing("schemas", "pg_catalog is missing");
        }
        for view in self.views_of_users() {
            let is_known = self.views.contains_key(&view.oid) || self.view_lineages.contains_key(&view.oid);
            if !is_known && !self.unread_views.contains(&view.oid) {
                return missing("views", &format!("no definition of {}.{}", view.schema_name, view.name));
            }
        }
        Ok(())
    }

    fn load_database(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        self.database = row.oid(0)?;
        self.database_name = row.text(1)?.to_owned();
        self.encoding = row.text(2)?.to_owned();
        self.server_version = row.number(3)?;
        match row.text(4)? {
            IDENTIFIER_BYTES => Ok(()),
            other => Err(CatalogError::IdentifierLength { bytes: other.to_owned() }),
        }
    }

    fn load_schema(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let (oid, name) = (row.oid(0)?, row.text(1)?);
        self.schemas.insert(oid, name.to_owned());
        self.schema_oids.insert(name.to_owned(), oid);
        Ok(())
    }

    fn load_relation(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let (oid, schema, name) = (row.oid(0)?, row.oid(1)?, row.text(2)?);
        let kind = match row.text(3)? {
            "r" => RelationKind::Table,
            "p" => RelationKind::PartitionedTable,
            "v" => RelationKind::View,
            "m" => RelationKind::MaterializedView,
            "f" => RelationKind::ForeignTable,
            "S" => RelationKind::Sequence,
            "c" => RelationKind::CompositeType,
            other => return Err(row.problem(format!("relation kind {other:?}"))),
        };
        if row.flag(4)? {
            self.facts.entry(oid).or_default().row_security = true;
        }
        let schema_name = self.schemas.get(&schema).ok_or_else(|| row.problem(format!("schema {}", schema.0)))?.clone();
        self.relation_oids.entry(schema).or_default().insert(name.to_owned(), oid);
        self.relations
            .insert(oid, Relation { oid, schema, schema_name, name: name.to_owned(), kind, columns: Vec::new() });
        Ok(())
    }

    fn load_column(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let (relation, attribute) = (row.oid(0)?, row.number::<i16>(1)?);
        let modifier = row.number::<i32>(4)?;
        if modifier != -1 {
            self.type_modifiers.insert(ColumnId { relation, attribute }, modifier);
        }
        let column = Column { attribute, name: row.text(2)?.to_owned(), type_oid: row.oid(3)?, generated: None };
        let owner = self.relations.get_mut(&relation);
        owner.ok_or_else(|| row.problem(format!("relation {}", relation.0)))?.columns.push(column);
        Ok(())
    }

    fn load_generated(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let column = self.column_mut(row)?.ok_or_else(|| row.problem("no such column".to_owned()))?;
        column.generated = Some(Generated { from: row.numbers(2)?.into_iter().collect(), user_code: false });
        Ok(())
    }

    /// One use, by an expression of a relation, of what did not come with the server.
    fn load_code(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let (relation, attribute) = (row.oid(0)?, row.number::<i16>(1)?);
        let harmless = match row.text(2)? {
            "t" => !self.cast_runs_code(row.oid(3)?),
            "f" => self.is_harmless(row.oid(3)?),
            // Only a superuser makes operator classes.
            "e" => classes::knows_extension(row.text(3)?),
            _ => false,
        };
        if harmless {
            return Ok(());
        }
        self.facts.entry(relation).or_default().calls_user_code = true;
        match self.column_mut(row)?.map(|column| &mut column.generated) {
            Some(Some(generated)) => generated.user_code = true,
            Some(None) => {
                self.code_defaults.insert(ColumnId { relation, attribute });
            }
            None => {}
        }
        Ok(())
    }

    /// The column that a row names first.
    fn column_mut(&mut self, row: &Row<'_>) -> Result<Option<&mut Column>, CatalogError> {
        let (relation, attribute) = (row.oid(0)?, row.number::<i16>(1)?);
        let owner = self.relations.get_mut(&relation);
        Ok(owner.and_then(|owner| owner.columns.iter_mut().find(|column| column.attribute == attribute)))
    }

    fn load_inheritance(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let (child, parent) = (row.oid(0)?, row.oid(1)?);
        // Partitioned indexes are in pg_inherits too; they carry no columns of their own.
        if self.relations.contains_key(&child) && self.relations.contains_key(&parent) {
            self.parents.entry(child).or_default().push(parent);
            self.children.entry(parent).or_default().push(child);
        }
        Ok(())
    }

    fn load_foreign_key(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let acts = |code: &str| match code {
            "a" | "r" => Ok(false),
            "c" | "n" | "d" => Ok(true),
            other => Err(row.problem(format!("foreign-key action {other:?}"))),
        };
        let key = ForeignKey {
            relation: row.oid(0)?,
            columns: row.numbers(1)?,
            target: row.oid(2)?,
            target_columns: row.numbers(3)?,
            update_acts: acts(row.text(4)?)?,
            delete_acts: acts(row.text(5)?)?,
        };
        let index = self.foreign_keys.len();
        self.keys_of.entry(key.relation).or_default().push(index);
        self.keys_to.entry(key.target).or_default().push(index);
        self.foreign_keys.push(key);
        Ok(())
    }

    fn load_type(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let (oid, schema, name) = (row.oid(0)?, row.oid(1)?, row.text(2)?);
        let (element, base) = (row.oid(5)?, row.oid(6)?);
        let class = match (row.text(3)?, row.text(4)?) {
            // `name`, `point` and the like are subscriptable without being arrays: the category tells.
            ("b", "A") if element != Oid(0) => TypeClass::Array { element },
            ("b", _) => TypeClass::Base,
            ("c", _) => TypeClass::Composite,
            ("d", _) => TypeClass::Domain { base },
            ("e", _) => TypeClass::Enum,
            ("r" | "m", _) => TypeClass::Range,
            ("p", _) => TypeClass::Pseudo,
            (other, _) => return Err(row.problem(format!("type kind {other:?}"))),
        };
        self.type_oids.entry(schema).or_default().insert(name.to_owned(), oid);
        let (input, output) = (row.oid(7)?, row.oid(8)?);
        self.types.insert(oid, Type { name: name.to_owned(), class, input, output });
        Ok(())
    }

    fn load_function(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let (oid, schema, name) = (row.oid(0)?, row.oid(1)?, row.text(2)?);
        let (arguments, extension, source) = (row.oids(3)?, row.text(4)?, row.text(5)?);
        let definition = Some(row.text(6)?).filter(|definition| !definition.is_empty()).map(str::to_owned);
        let types: Option<Vec<_>> = arguments.iter().map(|oid| self.type_name(*oid)).collect();
        let reviewed = types.and_then(|types| classes::extension_member(extension, name, &types, source));
        if let Some(entry) = reviewed {
            self.reviewed_functions.insert(oid, entry);
        }
        let function = UserFunction { oid, schema, arguments, reviewed, definition };
        self.functions.entry(name.to_owned()).or_default().push(function);
        Ok(())
    }

    fn load_sql_function(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let oid = row.oid(0)?;
        let source = bodies::Source {
            oid,
            name: row.text(1)?,
            arguments: row.oids(2)?,
            result: row.oid(3)?,
            strict: row.flag(4)?,
            security_definer: row.flag(5)?,
            settings: row.text(6)?,
            bound: row.flag(7)?,
            body: row.text(8)?,
            parameters: (row.text(9)?, row.text(10)?, row.oids(11)?),
        };
        if let Some(function) = self.sql_function(source) {
            self.sql_functions.insert(oid, function);
        }
        Ok(())
    }

    /// A function of the server's own that the tables do not have makes its whole name unreviewed.
    fn load_built_in_function(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let name = row.text(0)?;
        let types: Option<Vec<_>> = row.oids(1)?.iter().map(|oid| self.type_name(*oid)).collect();
        let known = types.is_some_and(|types| classes::built_in(name).iter().any(|entry| entry.has_types(&types)));
        let all_known = self.built_in_functions.entry(name.to_owned()).or_insert(true);
        *all_known &= known;
        Ok(())
    }

    fn load_operator(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let reviewed = self.reviewed_functions.get(&row.oid(4)?).copied();
        let operator = UserOperator { schema: row.oid(0)?, left: row.oid(2)?, right: row.oid(3)?, reviewed };
        self.operators.entry(row.text(1)?.to_owned()).or_default().push(operator);
        Ok(())
    }

    fn load_cast(&mut self, row: &Row<'_>) -> Result<(), CatalogError> {
        let context = match row.text(3)? {
            "i" => CastContext::Implicit,
            "a" => CastContext::Assignment,
            "e" => CastContext::Explicit,
            other => return Err(row.problem(format!("cast context {other:?}"))),
        };
        let function = row.oid(2)?;
        let runs_user_function = function >= FIRST_USER_OID && !self.is_reviewed(function);
        let class = match function {
            Oid(0) => Class::Total,
            _ => self.reviewed_functions.get(&function).map_or(Class::Opaque, |entry| entry.class),
        };
        self.casts.push(UserCast { source: row.oid(0)?, target: row.oid(1)?, runs_user_function, class, context });
        Ok(())
    }
}

struct Row<'a> {
    query: &'static str,
    cells: &'a [Option<String>],
}

impl Row<'_> {
    fn text(&self, index: usize) -> Result<&str, CatalogError> {
        let cell = self.cells.get(index).ok_or_else(|| self.problem(format!("column {index} is missing")))?;
        cell.as_deref().ok_or_else(|| self.problem(format!("column {index} is null")))
    }
    fn parse<T: std::str::FromStr>(&self, text: &str) -> Result<T, CatalogError> {
        text.parse().map_err(|_| self.problem(format!("{text:?} is not a number")))
    }
    fn number<T: std::str::FromStr>(&self, index: usize) -> Result<T, CatalogError> {
        self.parse(self.text(index)?)
    }
    fn oid(&self, index: usize) -> Result<Oid, CatalogError> {
        self.number(index).map(Oid)
    }
    /// An oidvector: `25 23`.
    fn oids(&self, index: usize) -> Result<Vec<Oid>, CatalogError> {
        Ok(self.list(index)?.into_iter().map(Oid).collect())
    }
    /// An int2vector is written so too.
    fn list<T: std::str::FromStr>(&self, index: usize) -> Result<Vec<T>, CatalogError> {
        self.text(index)?.split_whitespace().map(|text| self.parse(text)).collect()
    }
    fn flag(&self, index: usize) -> Result<bool, CatalogError> {
        match self.text(index)? {
            "t" | "true" => Ok(true),
            "f" | "false" => Ok(false),
            other => Err(self.problem(format!("{other:?} is not a boolean"))),
        }
    }
    /// An array of attribute numbers: `{1,2}`.
    fn numbers(&self, index: usize) -> Result<Vec<i16>, CatalogError> {
        let text = self.text(index)?;
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let inner = inner.ok_or_else(|| self.problem(format!("{text:?} is not an array")))?;
        inner.split(',').filter(|item| !item.is_empty()).map(|item| self.parse(item)).collect()
    }
    fn problem(&self, problem: String) -> CatalogError {
        CatalogError::Shape { query: self.query, problem }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn minimal() -> HashMap<&'static str, Vec<Vec<Option<String>>>> {
        HashMap::from([
            ("database", vec![row(&["5", "shop", "UTF8", "150018", "63"])]),
            ("schemas", vec![row(&["11", "pg_catalog"]), row(&["2200", "public"])]),
            ("relations", vec![row(&["16390", "2200", "customers", "r", "false"])]),
            ("columns", vec![row(&["16390", "1", "id", "23", "-1"]), row(&["16390", "3", "email", "1043", "68"])]),
        ])
    }
    fn row(cells: &[&str]) -> Vec<Option<String>> {
        cells.iter().map(|cell| Some((*cell).to_owned())).collect()
    }
    fn build(rows: &HashMap<&'static str, Vec<Vec<Option<String>>>>) -> Result<CatalogSnapshot, CatalogError> {
        let results: Vec<_> = QUERIES.iter().map(|query| rows.get(query.name).cloned().unwrap_or_default()).collect();
        CatalogSnapshot::build(7, &results)
    }

    #[test]
    fn builds_relations_with_their_live_columns() {
        let snapshot = build(&minimal()).unwrap();
        let customers = snapshot.relation_by_name("public", "customers").unwrap();
        let email = ColumnId { relation: customers.oid, attribute: 3 };
        assert_eq!(snapshot.column_name(email), Some("email"));
        assert_eq!(snapshot.type_modifier(email), 68);
        assert_eq!(snapshot.column_name(ColumnId { attribute: 2, ..email }), None);
        assert_eq!(snapshot.column_name(ColumnId { attribute: -6, ..email }), Some("tableoid"));
        assert!(snapshot.relation_by_name("public", "Customers").is_none());
    }

    #[test]
    fn family_is_closed_both_ways() {
        let mut rows = minimal();
        for oid in ["16391", "16392"] {
            rows.get_mut("relations").unwrap().push(row(&[oid, "2200", oid, "r", "f"]));
        }
        rows.insert("inheritance", vec![row(&["16391", "16390"]), row(&["16392", "16390"]), row(&["9", "16390"])]);
        let snapshot = build(&rows).unwrap();
        assert_eq!(snapshot.family(Oid(16391)).into_iter().collect::<Vec<_>>(), [Oid(16390), Oid(16392)]);
        assert!(snapshot.family(Oid(4)).is_empty());
    }

    #[test]
    fn generated_columns_and_defaults_say_what_they_use() {
        let mut rows = minimal();
        for (attribute, name) in [("4", "search"), ("5", "always"), ("6", "token"), ("7", "note"), ("8", "kind")] {
            rows.get_mut("columns").unwrap().push(row(&["16390", attribute, name, "25", "-1"]));
        }
        rows.insert("generated", vec![row(&["16390", "4", "{3}"]), row(&["16390", "5", "{}"])]);
        let used = [
            ["16390", "5", "x", ""],
            ["16390", "6", "f", "16600"],
            ["16390", "7", "t", "16500"],
            ["16390", "8", "t", "16501"],
        ];
        rows.insert("code", used.iter().map(|cells| row(cells)).collect());
        // An enum runs no code; the domain after it may.
        let types = [
            ["16500", "2200", "e", "e", "E", "0", "0", "1", "2"],
            ["16501", "2200", "d", "d", "S", "0", "25", "1", "2"],
        ];
        rows.insert("types", types.iter().map(|cells| row(cells)).collect());
        let snapshot = build(&rows).unwrap();
        let id = |attribute| ColumnId { relation: Oid(16390), attribute };
        let generated = |attribute| snapshot.column(id(attribute)).unwrap().generated.clone();
        assert_eq!(generated(3), None);
        assert_eq!(generated(4), Some(Generated { from: [3].into(), user_code: false }));
        assert_eq!(generated(5), Some(Generated { from: [].into(), user_code: true }));
        let defaults = (1..=8).filter(|attribute| snapshot.default_runs_code(id(*attribute)));
        assert_eq!(defaults.collect::<Vec<_>>(), [6, 8], "5 is generated and 7 uses an enum");
        assert!(snapshot.facts(Oid(16390)).calls_user_code);
        rows.insert("code", vec![row(&["16390", "7", "t", "16500"]), row(&["16390", "7", "e", "pg_trgm"])]);
        assert!(!build(&rows).unwrap().facts(Oid(16390)).calls_user_code);
        rows.insert("code", vec![row(&["16390", "7", "e", "somebodys"])]);
        assert!(build(&rows).unwrap().facts(Oid(16390)).calls_user_code);
    }

    #[test]
    fn refuses_rows_of_another_shape() {
        for (query, cells) in [
            ("relations", &["16390", "2200", "customers", "z", "f"][..]),
            ("relations", &["16390", "2201", "customers", "r", "f"]),
            ("columns", &["16399", "1", "id", "23", "-1"]),
            ("columns", &["16390", "70000", "id", "23", "-1"]),
            ("foreign keys", &["1", "1,2", "2", "{1}", "a", "a"]),
            ("types", &["1", "11", "x", "q", "U", "0", "0", "1", "2"]),
            ("casts", &["1", "2", "3", "x"]),
            ("inheritance", &["1"]),
            ("generated", &["16390", "2", "{1}"]),
            ("generated", &["16390", "3", "{70000}"]),
            ("code", &["16390", "1"]),
        ] {
            let mut rows = minimal();
            rows.entry(query).or_default().push(row(cells));
            assert!(matches!(build(&rows), Err(CatalogError::Shape { .. })), "{query} {cells:?}");
        }
        assert!(matches!(CatalogSnapshot::build(1, &[]), Err(CatalogError::Results { .. })));
    }

    #[test]
    fn refuses_a_server_that_cuts_names_elsewhere_and_a_view_without_definition() {
        let mut rows = minimal();
        rows.insert("database", vec![row(&["5", "shop", "UTF8", "150018", "127"])]);
        assert_eq!(build(&rows).unwrap_err(), CatalogError::IdentifierLength { bytes: "127".to_owned() });
        let mut rows = minimal();
        rows.get_mut("relations").unwrap().push(row(&["16400", "2200", "v", "v", "f"]));
        assert!(build(&rows).is_err());
        rows.insert("views", vec![row(&["16400", " SELECT 1;"])]);
        assert!(build(&rows).is_ok());
    }
}
