//! FunctionCall messages: they name a function by OID alone, so policy decides them by a capability of their own.

use std::sync::Arc;

use exeat_policy::{Access, AccessRequest, Capability, Effect, Policy};

use crate::denial::policy_refusal;
use crate::evaluate::{Evaluation, Permit, SessionFacts};
use crate::plan::{Outputs, StateEffect, StatementPlan};
use crate::record::RecordFacts;
use crate::scrub::Taint;

/// A FunctionCall: nothing is known of the function but its OID, and policy must name the capability.
pub fn evaluate_function_call(facts: &SessionFacts, policy: &Policy, oid: u32) -> Evaluation {
    let mut record = RecordFacts { kinds: vec!["function_call"], ..RecordFacts::default() };
    let decision = policy.decide(&AccessRequest {
        principal: &facts.principal,
        target: &facts.target,
        accesses: vec![Access { capability: Capability::FunctionCall, relation: None }],
        presets: Vec::new(),
    });
    record.add(&decision);
    if decision.effect == Effect::Deny {
        let refusal = policy_refusal(facts, &decision).suggestion("call the function with SELECT");
        return Evaluation::Refuse { refusal, facts: record };
    }
    let plan = StatementPlan {
        outputs: Outputs::FunctionResult,
        effect: StateEffect { rereads_state: true, ..StateEffect::default() },
        ..StatementPlan::quiet(if facts.seals.is_empty() { Taint::Clean } else { Taint::UserCode })
    };
    Evaluation::Permit(Arc::new(Permit::of_one(&function_text(oid), plan, record)))
}

/// A FunctionCall as the record words it.
pub(crate) fn function_text(oid: u32) -> String {
    format!("function call {oid}")
}
