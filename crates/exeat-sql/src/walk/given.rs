//! Values that a client writes: what it gives itself for the columns that keys look at, row by row, for success says
//! whether another row holds the same. And which parameters stand in more than one place: the server settles a
//! parameter's type by one of them.

use std::collections::{BTreeMap, BTreeSet};

use pg_query::NodeEnum;
use pg_query::protobuf::Node;

use super::lookup::{Tried, takes};
use super::{Facts, Walk, Walker};
use crate::catalog::{ColumnId, Oid, Relation};
use crate::{Given, GivenRow, LookupValue, Write};

/// What a row counts for beside its values: it is kept after the walk, and a megabyte holds many short ones.
const ROW_STEPS: usize = 15;

impl Walker<'_> {
    /// The rows of an INSERT. `rows`: `None` where they come from elsewhere than VALUES.
    pub(crate) fn given_rows(&mut self, target: &Relation, cols: &[Node], rows: Option<&[Node]>) -> Walk<()> {
        let places = self.keyed_places(target, cols)?;
        let Some(rows) = rows else { return self.given_at(target, &places, &[]) };
        for row in rows {
            let Some(NodeEnum::List(row)) = &row.node else { continue };
            self.given_at(target, &places, &row.items)?;
        }
        Ok(())
    }

    pub(crate) fn given_row(&mut self, target: &Relation, cols: &[Node], values: &[Node]) -> Walk<()> {
        let places = self.keyed_places(target, cols)?;
        self.given_at(target, &places, values)
    }

    /// Where in the list of an INSERT the columns stand that keys look at.
    fn keyed_places(&mut self, target: &Relation, cols: &[Node]) -> Walk<Vec<(usize, i16)>> {
        let keyed = self.keyed(target);
        self.spend(cols.len() + target.columns.len())?;
        let written: Vec<Option<i16>> = if cols.is_empty() {
            target.columns.iter().map(|column| Some(column.attribute)).collect()
        } else {
            cols.iter().map(|col| named_column(target, col)).collect()
        };
        let places = written.into_iter().enumerate();
        let places = places.filter_map(|(place, attribute)| attribute.map(|attribute| (place, attribute)));
        Ok(places.filter(|(_, attribute)| keyed.contains(attribute)).collect())
    }

    /// What is not among `values` comes from elsewhere, or is a default.
    fn given_at(&mut self, target: &Relation, places: &[(usize, i16)], values: &[Node]) -> Walk<()> {
        let mut given = Vec::with_capacity(places.len());
        for (place, attribute) in places {
            let value = match values.get(*place) {
                Some(value) => self.given_value(target, *attribute, value)?,
                None => Given::Computed,
            };
            given.push((*attribute, value));
        }
        self.given(target, Write::Insert, given)
    }

    /// What a SET list gives the rows it changes.
    pub(crate) fn given_list(&mut self, target: &Relation, list: &[Node]) -> Walk<()> {
        let keyed = self.keyed(target);
        let mut values = Vec::new();
        for node in list {
            let Some(NodeEnum::ResTarget(assignment)) = &node.node else { continue };
            let Some(attribute) = named_column(target, node).filter(|attribute| keyed.contains(attribute)) else {
                continue;
            };
            let given = match assignment.val.as_deref() {
                Some(value) => self.given_value(target, attribute, value)?,
                None => Given::Computed,
            };
            values.push((attribute, given));
        }
        self.given(target, Write::Update, values)
    }

    fn given(&mut self, target: &Relation, write: Write, mut values: Vec<(i16, Given)>) -> Walk<()> {
        self.spend(values.len() + 1)?;
        if values.is_empty() {
            return Ok(());
        }
        self.spend(ROW_STEPS)?;
        // A column named twice is the server's error.
        values.sort_by_key(|(attribute, _)| *attribute);
        values.dedup_by_key(|(attribute, _)| *attribute);
        self.facts.rows.push(GivenRow { relation: target.oid, write, values: values.into() });
        Ok(())
    }

    fn given_value(&mut self, target: &Relation, attribute: i16, node: &Node) -> Walk<Given> {
        let column = ColumnId { relation: target.oid, attribute };
        let Some(known) = self.snapshot.column(column) else { return Ok(Given::Computed) };
        let of = self.snapshot.base_type(known.type_oid);
        if !takes(of, of) || !self.snapshot.compares_bytes(column) {
            return Ok(Given::Computed);
        }
        let plain = matches!(&node.node, Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_) | NodeEnum::TypeCast(_)));
        if !plain {
            return Ok(Given::Computed);
        }
        Ok(match self.tried(node, of)? {
            Tried::Value(value) => Given::Value { of, value, shared: false },
            Tried::Null => Given::Null,
            Tried::Unclear => Given::Computed,
        })
    }

    /// Columns that a unique or foreign key of the relation, or of one whose rows are written through it, looks at.
    fn keyed(&self, target: &Relation) -> BTreeSet<i16> {
        let mut members = self.snapshot.family(target.oid);
        members.insert(target.oid);
        let members = members.iter().filter_map(|oid| self.snapshot.relation(*oid));
        let names: BTreeSet<&str> = members
            .flat_map(|member| {
                let checked = self.snapshot.checked_together(member.oid).iter();
                let keyed = checked.filter(|together| together.unique).flat_map(|together| &together.columns);
                let referencing = self.snapshot.foreign_keys_of(member.oid).flat_map(|key| &key.columns);
                let named = |attribute: &i16| member.columns.iter().find(|column| column.attribute == *attribute);
                keyed.chain(referencing).filter_map(named).map(|column| column.name.as_str()).collect::<Vec<_>>()
            })
            .collect();
        let columns = target.columns.iter().filter(|column| names.contains(column.name.as_str()));
        columns.map(|column| column.attribute).collect()
    }
}

fn named_column(target: &Relation, node: &Node) -> Option<i16> {
    let Some(NodeEnum::ResTarget(assignment)) = &node.node else { return None };
    target.columns.iter().find(|column| column.name == assignment.name).map(|column| column.attribute)
}

/// Marks the parameters whose type the server may learn from another place than a lookup or a column written.
pub(crate) fn settle(facts: &mut Facts) {
    let mut first: BTreeMap<usize, (Oid, bool)> = BTreeMap::new();
    let mut shared = BTreeSet::new();
    let mut elsewhere = std::mem::take(&mut facts.parameters);
    let compared = facts.lookups.iter().flat_map(|lookup| lookup.values.iter().map(|value| (lookup.of, value, false)));
    let written = facts.rows.iter().flat_map(|row| row.values.iter()).filter_map(|(_, given)| match given {
        Given::Value { of, value, shared: _ } => Some((*of, value, true)),
        Given::Null | Given::Computed => None,
    });
    for (of, value, is_walked) in compared.chain(written) {
        let Some(number) = value.parameter() else { continue };
        let as_here = (of, matches!(value, LookupValue::ParameterArray(_)));
        if *first.entry(number).or_insert(as_here) != as_here {
            shared.insert(number);
        }
        // A value on its way into a column is walked as every expression is.
        if is_walked && let Some(left) = elsewhere.get_mut(&number) {
            *left = left.saturating_sub(1);
        }
    }
    shared.extend(elsewhere.into_iter().filter(|(_, left)| *left > 0).map(|(number, _)| number));
    let is_shared = |value: &LookupValue| value.parameter().is_some_and(|number| shared.contains(&number));
    for lookup in &mut facts.lookups {
        lookup.shares_parameters = lookup.values.iter().any(is_shared);
    }
    for (_, given) in facts.rows.iter_mut().flat_map(|row| row.values.iter_mut()) {
        if let Given::Value { value, shared, .. } = given {
            *shared = is_shared(value);
        }
    }
}
