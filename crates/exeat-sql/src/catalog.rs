//! A snapshot of the part of pg_catalog that names resolve against. Built from rows of `QUERIES`, never changed.
//! Lookups answer what the server would find; they never guess: an OID or name the snapshot lacks is `None`.

pub(crate) mod bodies;
mod build;
mod calls;
pub(crate) mod policies;
mod queries;
mod session;
mod trust;
mod types;
mod writes;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub(crate) use calls::{Argument, Reviewed};
pub use queries::{
    CatalogQuery, FINGERPRINT_QUERY, QUERIES, SESSION_STATE_QUERY, VIEW_LIST, VIEWS, one_view, these_views,
};
pub use session::{SessionState, TimeOuts};
pub use trust::{Pins, QualifiedName, Trust, TrustError, TrustedFunction, Untrusted};
pub(crate) use types::{Kinds, Operands, Type, UserCast, UserFunction, UserOperator};
pub use writes::CheckedTogether;

use writes::Triggers;

use crate::classes::Entry;
use crate::walk::view::ViewLineage;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Oid(pub u32);

/// The schema pg_catalog; its OID is fixed by initdb on every version.
pub const PG_CATALOG: Oid = Oid(11);

/// FirstNormalObjectId: what initdb made is below it.
const FIRST_USER_OID: Oid = Oid(16384);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnId {
    pub relation: Oid,
    /// pg_attribute.attnum; negative for system columns.
    pub attribute: i16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    PartitionedTable,
    View,
    MaterializedView,
    ForeignTable,
    Sequence,
    CompositeType,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub attribute: i16,
    pub name: String,
    pub type_oid: Oid,
    /// `None` for a column that holds what was written to it.
    pub generated: Option<Generated>,
}

/// A generated column, stored or virtual: its value says something about the columns it is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generated {
    /// Columns of its own relation.
    pub from: BTreeSet<i16>,
    /// Its expression uses a function, operator or type that did not come with the server, and may say anything.
    pub user_code: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    pub oid: Oid,
    pub schema: Oid,
    pub schema_name: String,
    pub name: String,
    pub kind: RelationKind,
    /// Live columns in attribute order (dropped ones left out).
    pub columns: Vec<Column>,
}

impl Relation {
    /// Only its own session can take it away.
    pub fn is_temporary(&self) -> bool {
        self.schema_name.starts_with("pg_temp_")
    }

    /// Part of the metadata preset: made by initdb in pg_catalog or information_schema.
    pub fn is_metadata(&self) -> bool {
        self.oid < FIRST_USER_OID && (self.schema == PG_CATALOG || self.schema_name == "information_schema")
    }
}

/// System columns of every stored relation, by name; their numbers are fixed by the server.
const SYSTEM_COLUMNS: [(&str, i16); 6] =
    [("ctid", -1), ("xmin", -2), ("cmin", -3), ("xmax", -4), ("cmax", -5), ("tableoid", -6)];

pub(crate) fn system_column(name: &str) -> Option<i16> {
    SYSTEM_COLUMNS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error("catalog query {query:?} returned a row of another shape: {problem}")]
    Shape { query: &'static str, problem: String },
    #[error("{got} catalog results instead of {expected}")]
    Results { got: usize, expected: usize },
    /// The server was built with another NAMEDATALEN: names would be cut elsewhere than here.
    #[error("the server cuts identifiers at {bytes} bytes, this gateway at 63")]
    IdentifierLength { bytes: String },
}

/// What a relation makes the server run beside the statement itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RelationFacts {
    pub(crate) rules: bool,
    pub(crate) row_security: bool,
    pub(crate) policies: bool,
    /// A default, generated column, constraint, index or partition key uses a user's function, operator or type.
    pub(crate) calls_user_code: bool,
}

/// A foreign key: `columns` of `relation` reference `target_columns` of `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    pub(crate) relation: Oid,
    pub columns: Vec<i16>,
    pub target: Oid,
    pub target_columns: Vec<i16>,
    /// ON UPDATE or ON DELETE changes the referencing rows instead of refusing.
    pub(crate) update_acts: bool,
    pub(crate) delete_acts: bool,
}

#[derive(Debug, Clone, Default)]
pub struct CatalogSnapshot {
    version: u64,
    database: Oid,
    database_name: String,
    encoding: String,
    server_version: u32,
    schemas: HashMap<Oid, String>,
    schema_oids: HashMap<String, Oid>,
    relations: HashMap<Oid, Relation>,
    relation_oids: HashMap<Oid, HashMap<String, Oid>>,
    type_modifiers: HashMap<ColumnId, i32>,
    facts: HashMap<Oid, RelationFacts>,
    /// Columns whose default, or that of their domain, calls a user's code: what it gives could come from anywhere.
    code_defaults: HashSet<ColumnId>,
    /// The search path under which the server printed definitions, by which it chose what to leave unqualified.
    definition_path: Vec<Oid>,
    views: HashMap<Oid, String>,
    /// Somebody is changing them.
    unread_views: HashSet<Oid>,
    view_lineages: HashMap<Oid, Result<ViewLineage, String>>,
    versions: Arc<Versions>,
    parents: HashMap<Oid, Vec<Oid>>,
    children: HashMap<Oid, Vec<Oid>>,
    triggers: HashMap<Oid, Triggers>,
    /// Row-security policies by relation, and what they look at.
    policies: HashMap<Oid, Vec<policies::RowPolicy>>,
    policy_lineages: HashMap<Oid, Result<ViewLineage, String>>,
    trusted: trust::Trusted,
    checked_together: HashMap<Oid, Vec<CheckedTogether>>,
    foreign_keys: Vec<ForeignKey>,
    keys_of: HashMap<Oid, Vec<usize>>,
    keys_to: HashMap<Oid, Vec<usize>>,
    types: HashMap<Oid, Type>,
    type_oids: HashMap<Oid, HashMap<String, Oid>>,
    functions: HashMap<String, Vec<UserFunction>>,
    /// Those whose bodies can be read.
    sql_functions: HashMap<Oid, bodies::SqlFunction>,
    /// Whether every one of this name is in the tables.
    built_in_functions: HashMap<String, bool>,
    /// Members of extensions that the tables know.
    reviewed_functions: HashMap<Oid, &'static Entry>,
    operators: HashMap<String, Vec<UserOperator>>,
    casts: Vec<UserCast>,
    /// Columns whose collation takes different texts for equal.
    collated: HashSet<ColumnId>,
    default_opclass_types: Vec<Oid>,
    event_triggers: bool,
}

/// What changes with every change of a relation, a schema or a function, by its OID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions(HashMap<Oid, String>);

impl Versions {
    /// Whether the definitions of `oid` are the same in both; what came with the server has none.
    pub fn agree(&self, other: &Self, oid: Oid) -> bool {
        self.0.get(&oid) == other.0.get(&oid)
    }
}

impl Default for Oid {
    /// InvalidOid, as the server uses it.
    fn default() -> Self {
        Self(0)
    }
}

impl CatalogSnapshot {
    /// The number given to `build`: part of every analysis cache key.
    pub fn version(&self) -> u64 {
        self.version
    }
    pub fn database(&self) -> Oid {
        self.database
    }
    pub fn database_name(&self) -> &str {
        &self.database_name
    }
    /// The database's own encoding, by PostgreSQL's name (`UTF8`).
    pub fn encoding(&self) -> &str {
        &self.encoding
    }
    /// server_version_num: 150018 is 15.18.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }
    pub fn relation(&self, oid: Oid) -> Option<&Relation> {
        self.relations.get(&oid)
    }
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values()
    }
    pub fn relation_by_name(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relation_in(self.schema_by_name(schema)?, name)
    }
    pub fn relation_in(&self, schema: Oid, name: &str) -> Option<&Relation> {
        self.relations.get(self.relation_oids.get(&schema)?.get(name)?)
    }
    /// Is anything a statement could mean called so: a relation, a column, a type or a function?
    pub(crate) fn has_name(&self, name: &str) -> bool {
        let named = |names: &HashMap<String, Oid>| names.contains_key(name);
        self.relation_oids.values().any(named)
            || self.type_oids.values().any(named)
            || self.functions.contains_key(name)
            || self.built_in_functions.contains_key(name)
            || self.relations.values().any(|relation| relation.columns.iter().any(|column| column.name == name))
    }
    pub fn schema_name(&self, oid: Oid) -> Option<&str> {
        self.schemas.get(&oid).map(String::as_str)
    }
    pub(crate) fn schema_oids(&self) -> impl Iterator<Item = Oid> {
        self.schemas.keys().copied()
    }
    pub fn schema_by_name(&self, name: &str) -> Option<Oid> {
        self.schema_oids.get(name).copied()
    }
    /// A live user column; system columns have a name but no entry.
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.relation(id.relation)?.columns.iter().find(|column| column.attribute == id.attribute)
    }
    pub fn column_name(&self, id: ColumnId) -> Option<&str> {
        let system = SYSTEM_COLUMNS.iter().find(|(_, number)| *number == id.attribute).map(|(name, _)| *name);
        system.or_else(|| self.column(id).map(|column| column.name.as_str()))
    }
    /// Every inheritance or partition parent and child of `oid`, transitively, both ways, without `oid` itself.
    pub fn family(&self, oid: Oid) -> BTreeSet<Oid> {
        closure(oid, &[&self.parents, &self.children])
    }
    /// Inheritance and partition parents, transitively: what rows of `oid` come out of as well.
    pub fn ancestors(&self, oid: Oid) -> BTreeSet<Oid> {
        closure(oid, &[&self.parents])
    }
    pub fn descendants(&self, oid: Oid) -> BTreeSet<Oid> {
        closure(oid, &[&self.children])
    }
    pub fn versions(&self) -> &Arc<Versions> {
        &self.versions
    }
    /// The query behind a user's view or materialized view.
    pub fn view_definition(&self, oid: Oid) -> Option<&str> {
        self.views.get(&oid).map(String::as_str)
    }
    /// What that query does, or why we cannot tell.
    pub fn view_lineage(&self, oid: Oid) -> Option<&Result<ViewLineage, String>> {
        self.view_lineages.get(&oid)
    }
    pub(crate) fn definition_path(&self) -> &[Oid] {
        &self.definition_path
    }
    /// Views whose definitions could not be read.
    pub(crate) fn unread_views(&self) -> impl Iterator<Item = Oid> {
        self.unread_views.iter().copied()
    }
    /// Whether a user's code may run with every definition.
    pub(crate) fn has_event_triggers(&self) -> bool {
        self.event_triggers
    }
    pub(crate) fn facts(&self, oid: Oid) -> RelationFacts {
        self.facts.get(&oid).copied().unwrap_or_default()
    }
    pub(crate) fn default_runs_code(&self, id: ColumnId) -> bool {
        self.code_defaults.contains(&id)
    }
    /// Whether two texts are equal only where they are the same, by the column's collation.
    /// Whether two of its values are equal only where their bytes are.
    pub fn compares_bytes(&self, id: ColumnId) -> bool {
        !self.collated.contains(&id)
    }
    pub(crate) fn type_modifier(&self, id: ColumnId) -> i32 {
        self.type_modifiers.get(&id).copied().unwrap_or(-1)
    }
    /// Foreign keys that `oid` declares.
    pub fn foreign_keys_of(&self, oid: Oid) -> impl Iterator<Item = &ForeignKey> {
        self.keys_of.get(&oid).into_iter().flatten().filter_map(|index| self.foreign_keys.get(*index))
    }
    /// Foreign keys that reference `oid`.
    pub(crate) fn foreign_keys_to(&self, oid: Oid) -> impl Iterator<Item = &ForeignKey> {
        self.keys_to.get(&oid).into_iter().flatten().filter_map(|index| self.foreign_keys.get(*index))
    }
}

/// What is reached from `oid`, without itself.
fn closure(oid: Oid, steps: &[&HashMap<Oid, Vec<Oid>>]) -> BTreeSet<Oid> {
    let mut found = BTreeSet::from([oid]);
    let mut open = vec![oid];
    while let Some(member) = open.pop() {
        for next in steps.iter().filter_map(|step| step.get(&member)).flatten() {
            if found.insert(*next) {
                open.push(*next);
            }
        }
    }
    found.remove(&oid);
    found
}
