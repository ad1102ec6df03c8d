//! FunctionCall messages: they name a function by OID alone, so policy decides them by a capability of their own.

use std::sync::Arc;

use exeat_policy::{Access, Capability, Policy};
use exeat_sql::StatementKind;

use crate::bulk::{self, Ruled};
use crate::denial::policy_refusal;
use crate::evaluate::{Evaluation, Permit, SessionFacts};
use crate::needs::Needs;
use crate::plan::{Outputs, StateEffect, StatementPlan};
use crate::record::RecordFacts;
use crate::scrub::Taint;

/// A FunctionCall: nothing is known of the function but its OID, and policy must name the capability.
pub fn evaluate_function_call(facts: &SessionFacts, policy: &Policy, oid: u32) -> Evaluation {
    let mut record = RecordFacts { kinds: vec!["function_call"], ..RecordFacts::default() };
    let accesses = vec![Access { capability: Capability::FunctionCall, relation: None }];
    let needs = Needs { accesses, presets: Vec::new() };
    let bulk = match bulk::rule(facts, policy, &StatementKind::Call, &needs, None) {
        Ruled::Permitted { decision, bulk } => {
            record.add(&decision);
            bulk
        }
        Ruled::Denied { decision } => {
            record.add(&decision);
            let refusal = policy_refusal(facts, &decision).suggestion("call the function with SELECT");
            return Evaluation::Refuse { refusal, facts: record };
        }
        Ruled::TooMuch { decision, refusal } => {
            record.add(&decision);
            return Evaluation::Refuse { refusal: *refusal, facts: record };
        }
    };
    let plan = StatementPlan {
        outputs: Outputs::FunctionResult,
        bulk,
        effect: StateEffect { rereads_state: true, ..StateEffect::default() },
        ..StatementPlan::quiet(if facts.seals.is_empty() { Taint::Clean } else { Taint::UserCode })
    };
    Evaluation::Permit(Arc::new(Permit::of_one(&function_text(oid), plan, record)))
}

/// A FunctionCall as the record words it.
pub fn function_text(oid: u32) -> String {
    format!("function call {oid}")
}
