//! Which columns are sealed for one principal, on one catalog snapshot, under one policy.
//! Labels bind by name here; the result is keyed by OID and attribute number, so nothing after this page
//! looks at a name again to decide whether a value is sensitive.

use std::collections::{BTreeMap, HashMap};

use exeat_policy::{ColumnMask, Mask, Policy, Principal, RelationName};
use exeat_sql::{CatalogSnapshot, ColumnId, Oid, Relation, RelationKind};

use crate::builtin;

/// Sealed columns by relation. Empty where no label of the target is masked for the principal.
#[derive(Debug, Clone, Default)]
pub struct SealPlan {
    relations: HashMap<Oid, RelationSeal>,
}

#[derive(Debug, Clone)]
pub struct RelationSeal {
    pub name: RelationName,
    columns: BTreeMap<i16, ColumnMask>,
}

impl SealPlan {
    pub fn compute(policy: &Policy, principal: &Principal, target: &str, snapshot: &CatalogSnapshot) -> Self {
        if !policy.masks_any(principal, target) {
            return Self::default();
        }
        let mut plan = Self::default();
        for relation in snapshot.relations() {
            if matches!(relation.kind, RelationKind::CompositeType) {
                continue;
            }
            let name = RelationName { schema: relation.schema_name.clone(), name: relation.name.clone() };
            let columns = sealed_columns(policy, principal, target, relation, &name);
            if !columns.is_empty() {
                plan.relations.insert(relation.oid, RelationSeal { name, columns });
            }
        }
        plan
    }

    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }

    pub fn column(&self, id: ColumnId) -> Option<&ColumnMask> {
        self.relations.get(&id.relation)?.columns.get(&id.attribute)
    }

    pub fn relation(&self, oid: Oid) -> Option<&RelationSeal> {
        self.relations.get(&oid)
    }
}

fn sealed_columns(
    policy: &Policy,
    principal: &Principal,
    target: &str,
    relation: &Relation,
    name: &RelationName,
) -> BTreeMap<i16, ColumnMask> {
    let mut sealed = BTreeMap::new();
    for column in &relation.columns {
        let labels: Vec<String> = policy
            .labels(target)
            .iter()
            .filter(|label| label.matches(&name.schema, &name.name, &column.name))
            .map(|label| label.name().to_owned())
            .collect();
        let by_label = if labels.is_empty() { None } else { policy.column_mask(principal, target, name, &labels) };
        // A value-bearing system column is sealed whatever the rules say, as long as anything is sealed at all:
        // statistics and statement texts carry values of the columns that are.
        let built_in = builtin::label(&name.schema, &name.name, &column.name).map(|label| ColumnMask {
            label: label.to_owned(),
            mask: Mask::Redact,
            rule: "built-in".to_owned(),
        });
        let strictest = match (by_label, built_in) {
            (Some(labelled), Some(built_in)) if built_in.mask > labelled.mask => Some(built_in),
            (labelled, built_in) => labelled.or(built_in),
        };
        if let Some(mask) = strictest {
            sealed.insert(column.attribute, mask);
        }
    }
    sealed
}
