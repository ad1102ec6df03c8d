//! Row-security policies: the conditions that the server adds to every query on a relation. They are the operator's code,
//! and read as a query on that relation alone would be.

use super::{CatalogSnapshot, Oid, Relation};
use crate::walk::view::ViewLineage;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowPolicy {
    pub(crate) name: String,
    /// Empty where it has none.
    using: String,
    with_check: String,
    /// Command, kind and roles.
    applies: String,
}

impl RowPolicy {
    pub(super) fn new([name, using, with_check, applies]: [String; 4]) -> Self {
        Self { name, using, with_check, applies }
    }

    pub(super) fn definition(&self) -> String {
        format!("{} USING ({}) WITH CHECK ({})", self.applies, self.using, self.with_check)
    }

    /// A query whose conditions are this policy's.
    pub(crate) fn as_query(&self, relation: &Relation) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let (schema, name) = (quoted(&relation.schema_name), quoted(&relation.name));
        let conditions = [&self.using, &self.with_check];
        let conditions: Vec<String> =
            conditions.into_iter().filter(|text| !text.is_empty()).map(|text| format!("({text})")).collect();
        match conditions.as_slice() {
            [] => format!("SELECT 1 FROM {schema}.{name}"),
            conditions => format!("SELECT 1 FROM {schema}.{name} WHERE {}", conditions.join(" AND ")),
        }
    }
}

impl CatalogSnapshot {
    /// Policies that decide by themselves which rows there are: those that the operator does not vouch for.
    pub(crate) fn untrusted_policies(&self, relation: Oid) -> impl Iterator<Item = &RowPolicy> {
        let policies = self.policies.get(&relation).into_iter().flatten();
        policies.filter(move |policy| !self.trusts_policy(relation, &policy.name))
    }

    /// Relations that row security holds for.
    pub(crate) fn with_policies(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values().filter(|relation| {
            let facts = self.facts(relation.oid);
            facts.row_security && facts.policies
        })
    }

    /// What the policies of a relation look at, or why we cannot tell; `None` where it has none.
    pub fn policy_lineage(&self, oid: Oid) -> Option<&Result<ViewLineage, String>> {
        self.policy_lineages.get(&oid)
    }
}
