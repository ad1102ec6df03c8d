//! How much memory an analysis keeps, about: for whoever keeps many of them and has to say how much that may be.
//! An estimate from above for what a hostile statement can make large; what allocators add is not in it.

use std::mem::size_of;

use crate::{
    Analysis, ColumnId, ColumnUse, Flow, Given, GivenRow, Lineage, LookupValue, MessageAnalysis, Oid, Output,
    StatementAnalysis,
};

impl MessageAnalysis {
    pub fn bytes(&self) -> usize {
        let fingerprint = self.fingerprint.as_ref().map_or(0, String::len);
        size_of::<Self>() + fingerprint + self.statements.iter().map(statement).sum::<usize>()
    }
}

impl LookupValue {
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Literal(text) | Self::LiteralArray(text) => text.len(),
                Self::Parameter(_) | Self::ParameterArray(_) => 0,
            }
    }
}

fn statement(statement: &StatementAnalysis) -> usize {
    // Names and literals that the kind holds, or a reason, stand in the text.
    let own = size_of::<StatementAnalysis>() + statement.text.len();
    own + match &statement.analysis {
        Analysis::Known(known) => lineage(known),
        Analysis::Opaque(opaque) => opaque.reason.to_string().len(),
        Analysis::Unresolved { name, .. } => name.len(),
    }
}

fn lineage(lineage: &Lineage) -> usize {
    let sets =
        [&lineage.reads, &lineage.called, &lineage.functions, &lineage.writes, &lineage.reaches, &lineage.changes];
    let numbers = sets.iter().map(|set| tree::<Oid>(set.len())).sum::<usize>();
    let shown = tree::<String>(lineage.shown.named.len()) + lineage.shown.named.iter().map(String::len).sum::<usize>();
    let lookups = lineage.lookups.iter().flat_map(|lookup| &lookup.values).map(LookupValue::bytes).sum::<usize>();
    let set_columns: usize = lineage.sets.iter().map(|list| size_of_val(list) + tree::<i16>(list.columns.len())).sum();
    let settings = lineage.settings.iter().map(|(name, value)| {
        size_of::<(String, Option<String>)>() + name.len() + value.as_ref().map_or(0, String::len)
    });
    let defines = lineage.defines.iter().map(|definition| {
        let names = definition.makes.iter().map(|made| size_of_val(made) + made.name.len());
        tree::<Oid>(definition.alters.len()) + names.sum::<usize>()
    });
    size_of::<Lineage>()
        + numbers
        + defines.sum::<usize>()
        + tree::<(Oid, Oid)>(lineage.hides.len())
        + tree::<(Oid, Option<usize>)>(lineage.unbounded.len())
        + tree::<(Oid, Option<usize>)>(lineage.stars.len())
        + size_of_val(lineage.content.occurrences.as_slice())
        + size_of_val(lineage.content.whole.as_slice())
        + lineage.rows.iter().map(row).sum::<usize>()
        + shown
        + size_of_val(lineage.lookups.as_slice())
        + lookups
        + tree::<ColumnUse>(lineage.uses.len())
        + size_of_val(lineage.notifies.as_slice())
        + set_columns
        + settings.sum::<usize>()
        + lineage.outputs.iter().flatten().map(output).sum::<usize>()
}

fn row(row: &GivenRow) -> usize {
    let given = row.values.iter().map(|(_, given)| match given {
        Given::Value { value, .. } => value.bytes(),
        Given::Null | Given::Computed => 0,
    });
    size_of::<GivenRow>() + size_of_val(&*row.values) + given.sum::<usize>()
}

fn output(output: &Output) -> usize {
    size_of::<Output>() + output.name.as_ref().map_or(0, String::len) + tree::<(ColumnId, Flow)>(output.flows.len())
}

/// A B-tree's nodes are half full at worst, and of eleven places.
fn tree<T>(members: usize) -> usize {
    if members == 0 { 0 } else { (2 * members).max(11) * size_of::<T>() + 4 * size_of::<usize>() }
}
