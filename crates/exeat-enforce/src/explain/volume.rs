//! What an explanation says of volume: rules that hold the statement before it runs, and what is counted while it does.

use exeat_policy::RelationName;
use exeat_policy::ruling::Measure;
use serde_json::{Value, json};

use crate::held;
use crate::plan::StatementPlan;

#[derive(Debug, Clone, Default)]
pub(super) struct Volume {
    held: Vec<HeldBy>,
    counted: Vec<CountedRows>,
}

#[derive(Debug, Clone)]
struct HeldBy {
    rule: Option<String>,
    /// `None`: any, or one that is not told of.
    relation: Option<String>,
    why: &'static str,
}

#[derive(Debug, Clone)]
struct CountedRows {
    relation: String,
    /// In one row of the result.
    times: u32,
    past: Vec<Past>,
}

/// Past so many of what it is held, and by which rule.
#[derive(Debug, Clone)]
struct Past {
    amount: u64,
    of: &'static str,
    rule: String,
}

/// `tells`: may the reader know of the relation of this name?
pub(super) fn of(plans: &[StatementPlan], tells: impl Fn(&String) -> bool) -> Volume {
    let told = |relation: &RelationName| Some(format!("{}.{}", relation.schema, relation.name)).filter(&tells);
    let held = plans.iter().flat_map(|plan| &plan.bulk.causes).map(|cause| HeldBy {
        rule: cause.rule.clone(),
        relation: cause.relation.as_ref().and_then(told),
        why: held::why(cause),
    });
    let counted = plans.iter().flat_map(|plan| &plan.bulk.counted).filter_map(|counted| {
        let past = counted.duty.thresholds.iter().map(|threshold| Past {
            amount: threshold.amount,
            of: match threshold.measure {
                Measure::Rows => "rows",
                Measure::Bytes => "bytes",
                Measure::Affected => "rows changed",
            },
            rule: threshold.rule.clone(),
        });
        Some(CountedRows { relation: told(&counted.duty.relation)?, times: counted.times, past: past.collect() })
    });
    Volume { held: held.collect(), counted: counted.collect() }
}

impl Volume {
    pub(super) fn held_json(&self) -> Vec<Value> {
        let held = |HeldBy { rule, relation, why }: &HeldBy| json!({"rule": rule, "relation": relation, "why": why});
        self.held.iter().map(held).collect()
    }

    pub(super) fn counted_json(&self) -> Vec<Value> {
        let past = |Past { amount, of, rule }: &Past| json!({"amount": amount, "of": of, "rule": rule});
        let counted = |CountedRows { relation, times, past: all }: &CountedRows| json!({"relation": relation, "times": times, "past": all.iter().map(past).collect::<Vec<_>>()});
        self.counted.iter().map(counted).collect()
    }

    /// As lines, each with what it is about in front.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let held = self.held.iter().map(|HeldBy { rule, relation, why }| {
            let relation = relation.as_ref().map_or_else(String::new, |relation| format!("{relation}, "));
            let rule = rule.as_ref().map_or_else(String::new, |rule| format!(" (rule {rule})"));
            ("held: ", format!("{relation}{why}{rule}"))
        });
        let counted = self.counted.iter().map(|CountedRows { relation, times, past }| {
            let past = past.iter().map(|Past { amount, of, rule }| format!("; held past {amount} {of} (rule {rule})"));
            let times = if *times == 1 { String::new() } else { format!(", {times} times a row") };
            ("counted: ", format!("{relation}{times}{}", past.collect::<String>()))
        });
        held.chain(counted).collect()
    }
}
