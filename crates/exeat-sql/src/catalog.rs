//! A snapshot of the part of pg_catalog that names resolve against. Built from rows of `QUERIES`, never changed.

use std::collections::HashMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Oid(pub u32);

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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error("catalog query {query:?} returned a row of another shape: {problem}")]
    Shape { query: &'static str, problem: String },
}

#[derive(Debug, Clone, Default)]
pub struct CatalogSnapshot {
    relations: HashMap<Oid, Relation>,
}

impl CatalogSnapshot {
    pub fn relation(&self, oid: Oid) -> Option<&Relation> {
        self.relations.get(&oid)
    }
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values()
    }
}
