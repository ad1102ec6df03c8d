//! How much memory an evaluation keeps, about: for whoever keeps many of them and has to say how much that may be.
//! An estimate from above for what a hostile statement can make large; what allocators add is not in it.

use std::mem::size_of;

use exeat_policy::ColumnMask;

use crate::bulk::Bulk;
use crate::evaluate::{Evaluation, Permit};
use crate::lookup::PlannedLookup;
use crate::named::Made;
use crate::plan::{CopiedColumn, Outputs, PlannedColumn, PlannedOrigin, StatementPlan};
use crate::record::RecordFacts;
use crate::refusal::Refusal;

impl Evaluation {
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Permit(permit) => permitted(permit),
                Self::Refuse { refusal, facts } => refused(refusal) + record(facts),
                Self::Probe { statement: _, name, refusal } => name.len() + refused(refusal),
                Self::Missing { missing, facts } => missing.message.len() + record(facts),
            }
    }
}

/// What stands behind the names it relies on is kept by whoever made them.
fn permitted(permit: &Permit) -> usize {
    size_of::<Permit>() + permit.sql().len() + permit.plans.iter().map(plan).sum::<usize>() + record(&permit.facts)
}

fn plan(plan: &StatementPlan) -> usize {
    let outputs = match &plan.outputs {
        Outputs::Columns(columns) => columns.iter().map(column).sum(),
        Outputs::Copied(copied) => copied.columns.iter().map(copied_column).sum(),
        Outputs::None | Outputs::ByOrigin | Outputs::FunctionResult | Outputs::Unchecked => 0,
    };
    let made = match &plan.made {
        Some(Made::Cursor { permit, .. } | Made::Statement { permit, .. }) => permitted(permit),
        None => 0,
    };
    let lookups = plan.lookups.iter().map(PlannedLookup::bytes).sum::<usize>();
    size_of::<StatementPlan>() + bulk(&plan.bulk) + outputs + made + lookups + size_of_val(plan.notifies.as_slice())
}

fn bulk(bulk: &Bulk) -> usize {
    let causes = bulk.causes.iter().map(|cause| size_of_val(cause) + text(cause.rule.as_deref()));
    let counted = bulk.counted.iter().map(|counted| {
        let duty = &counted.duty;
        let thresholds = duty.thresholds.iter().map(|threshold| size_of_val(threshold) + threshold.rule.len());
        let budgets = duty.budgets.iter().map(|budget| size_of_val(budget) + budget.rule.len());
        size_of_val(counted) + thresholds.sum::<usize>() + budgets.sum::<usize>()
    });
    causes.sum::<usize>() + counted.sum::<usize>()
}

fn column(column: &PlannedColumn) -> usize {
    let PlannedColumn { origin, name, mask, watched: _ } = column;
    let origins = match origin {
        PlannedOrigin::Column(_) | PlannedOrigin::None => 0,
        PlannedOrigin::OneOf(ids) => size_of_val(ids.as_slice()),
    };
    size_of::<PlannedColumn>() + origins + text(name.as_deref()) + masked(mask.as_ref())
}

fn copied_column(column: &CopiedColumn) -> usize {
    size_of::<CopiedColumn>() + text(column.name.as_deref()) + masked(column.mask.as_ref())
}

fn masked(mask: Option<&ColumnMask>) -> usize {
    mask.map_or(0, |mask| mask.label.len() + mask.rule.len())
}

fn text(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

fn refused(refusal: &Refusal) -> usize {
    let Refusal { code: _, rule, object, reason, allowed, suggestion, .. } = refusal;
    let named = [rule, &object.target, &object.relation, &object.column, suggestion];
    size_of::<Refusal>() + reason.len() + texts(allowed) + named.iter().map(|part| text(part.as_deref())).sum::<usize>()
}

fn record(facts: &RecordFacts) -> usize {
    let RecordFacts { fingerprint, kinds, relations, named, columns, touched, masked, rules, reasons } = facts;
    let masked = masked.iter().map(|masked| size_of_val(masked) + masked.column.len() + masked.label.len());
    size_of::<RecordFacts>()
        + text(fingerprint.as_deref())
        + size_of_val(kinds.as_slice())
        + [relations, named, columns, touched, rules, reasons].into_iter().map(|list| texts(list)).sum::<usize>()
        + masked.sum::<usize>()
}

fn texts(list: &[String]) -> usize {
    list.iter().map(|text| size_of::<String>() + text.len()).sum()
}
