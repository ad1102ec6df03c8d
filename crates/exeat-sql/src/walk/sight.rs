//! What names find, as far as the principal may know of it. Where the server would find what policy hides, nothing is
//! found, and nobody looks further: whatever stood behind it would not be what the server means.

use super::Walker;
use crate::catalog::{Column, ColumnId, Oid, Relation};

impl<'a> Walker<'a> {
    /// In the first of these schemas that has one.
    pub(crate) fn relation_in_sight(&self, schemas: &[Oid], name: &str) -> Option<&'a Relation> {
        self.first_relation(schemas, name).filter(|found| !self.is_hidden(found))
    }

    /// Does the name stand for a relation that is hidden?
    pub(crate) fn names_hidden(&self, schemas: &[Oid], name: &str) -> bool {
        self.first_relation(schemas, name).is_some_and(|found| self.is_hidden(found))
    }

    fn first_relation(&self, schemas: &[Oid], name: &str) -> Option<&'a Relation> {
        schemas.iter().find_map(|schema| self.snapshot.relation_in(*schema, name))
    }

    /// A relation has a type of its own name, and one for arrays of it.
    pub(crate) fn type_in_sight(&self, schemas: &[Oid], name: &str) -> Option<Oid> {
        let found = |schema: &Oid| Some((*schema, self.snapshot.type_in(*schema, name)?));
        let (schema, oid) = schemas.iter().find_map(found)?;
        let row_of = |name: &str| self.names_hidden(&[schema], name);
        let hidden = row_of(name) || name.strip_prefix('_').is_some_and(row_of);
        (!hidden).then_some(oid)
    }

    /// A function, or a type that could be cast to by calling it.
    pub(crate) fn function_in_sight(&self, schemas: &[Oid], name: &str) -> bool {
        self.snapshot.function_named(schemas, name) || self.type_in_sight(schemas, name).is_some()
    }

    pub(crate) fn column_in_sight<'r>(&self, relation: &'r Relation, name: &str) -> Option<&'r Column> {
        let found = relation.columns.iter().find(|column| column.name == name)?;
        let id = ColumnId { relation: relation.oid, attribute: found.attribute };
        (!self.hidden.is_some_and(|hidden| hidden.column(id))).then_some(found)
    }

    fn is_hidden(&self, relation: &Relation) -> bool {
        self.hidden.is_some_and(|hidden| hidden.relation(relation.oid))
    }
}
