//! Expressions that the server evaluates only if others before them leave the question open: AND, OR, COALESCE, lists and
//! comparisons part by part. What such a part does, when it does something that a client can notice (an error, an
//! effect, time), tells of the values that decided whether it came to it: these are then compared, not projected.

use pg_query::NodeEnum;
use pg_query::protobuf::Node;

use super::scope::Value;
use super::{NOWHERE, Walk, Walker};
use crate::catalog::RelationKind;
use crate::{Origin, Use};

impl Walker<'_> {
    /// Values of which each is asked for only if those before it say too little.
    pub(crate) fn in_turn<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Node>) -> Walk<Vec<Value>> {
        let mut values: Vec<Value> = Vec::new();
        let mut told = false;
        for node in nodes {
            let before = self.noticeable;
            let value = self.value(node)?;
            told |= self.noticeable > before && values.iter().any(|earlier| !earlier.flows.is_empty());
            values.push(value);
        }
        self.settle(values, told)
    }

    /// The same where the order is the server's own.
    pub(crate) fn in_some_order<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Node>) -> Walk<Vec<Value>> {
        let before = self.noticeable;
        let values = nodes.into_iter().map(|node| self.value(node)).collect::<Walk<Vec<_>>>()?;
        let told = self.noticeable > before;
        self.settle(values, told)
    }

    fn settle(&mut self, values: Vec<Value>, told: bool) -> Walk<Vec<Value>> {
        if !told {
            return Ok(values);
        }
        values.iter().try_for_each(|value| self.consume(value, Use::Predicate, NOWHERE))?;
        Ok(values
            .into_iter()
            .map(|value| Value { of: value.of, null: value.null, kinds: value.kinds, ..Value::computed() })
            .collect())
    }

    /// A column that is no stored one, or may be none, stands for an expression, which the server may evaluate where it is named.
    pub(crate) fn note_lazy(&mut self, value: &Value) {
        self.noticeable += usize::from(!self.is_stored(value));
    }

    fn is_stored(&self, value: &Value) -> bool {
        let Origin::Column(column) = value.origin else { return false };
        let Some(relation) = self.snapshot.relation(column.relation) else { return false };
        let computed = self.snapshot.column(column).is_some_and(|column| column.generated.is_some());
        match relation.kind {
            RelationKind::Table | RelationKind::PartitionedTable | RelationKind::MaterializedView => !computed,
            RelationKind::View | RelationKind::ForeignTable | RelationKind::Sequence | RelationKind::CompositeType => {
                false
            }
        }
    }
}

/// Rows are compared column by column, until two differ.
pub(crate) fn compares_parts(node: &Node) -> bool {
    match &node.node {
        Some(NodeEnum::RowExpr(_)) => true,
        Some(NodeEnum::List(list)) => list.items.iter().any(compares_parts),
        Some(_) | None => false,
    }
}
