//! Evaluation: what a message's statements need in policy's words, what policy says, and what each statement's
//! answer must look like. Knows no bytes; the result is shared by every message of the session with the same
//! text until the policy, the catalog or the search path changes.

use std::sync::Arc;

use exeat_policy::{
    Access, AccessRequest, Capability, ColumnMask, Decision, Effect, Lookup, Mask, Nulls, Policy, Preset, Principal,
    Reason, RelationName,
};
use exeat_sql::{
    Analysis, CatalogSnapshot, Lineage, MessageAnalysis, NewRelation, Oid, Opaque, OpaqueReason, Origin, Output,
    StatementAnalysis, StatementKind,
};

use crate::bulk::{self, Ruled};
use crate::called;
use crate::copy;
use crate::denial::{denied_behind, policy_refusal};
use crate::named::{self, At, KnownNames, Missing, Settled};
use crate::needs::{Needs, capability, needs_of};
pub use crate::permit::{Evaluation, Permit};
use crate::plan::{CopyStream, Forgets, Outputs, PlannedColumn, PlannedOrigin, StateEffect, StatementPlan};
use crate::record;
use crate::refusal::{Object, Refusal, RefusalCode};
use crate::scrub::Taint;
use crate::seal::SealPlan;
use crate::settings;
use crate::{lookup, uses, writes};

/// What the session is, for decisions. Rebuilt whole when policy or catalog change; never edited.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    pub principal: Arc<Principal>,
    pub target: String,
    pub snapshot: Arc<CatalogSnapshot>,
    pub seals: Arc<SealPlan>,
    /// The login is one that the server hides no setting from.
    pub administrator: bool,
}

/// A message that refers to no names but its own.
pub fn evaluate(facts: &SessionFacts, policy: &Policy, sql: &str, analysis: &MessageAnalysis) -> Evaluation {
    evaluate_with(facts, policy, sql, analysis, &KnownNames::default())
}

/// `names`: what stands behind the names the message refers to, before it.
pub fn evaluate_with(
    facts: &SessionFacts,
    policy: &Policy,
    sql: &str,
    analysis: &MessageAnalysis,
    names: &KnownNames,
) -> Evaluation {
    let mut plans: Vec<StatementPlan> = Vec::with_capacity(analysis.statements.len());
    let mut record = record::facts(facts, analysis);
    if analysis.statements.is_empty() {
        let decision = decide_nothing(facts, policy);
        record.add(&decision);
        if decision.effect == Effect::Deny {
            return Evaluation::Refuse { refusal: policy_refusal(facts, &decision), facts: record };
        }
    }
    let mut at_hand = names.clone();
    let mut moved = false;
    for statement in &analysis.statements {
        let text = sql.get(statement.text.clone()).unwrap_or(sql);
        if moved && !matches!(statement.kind, StatementKind::Session(_)) {
            return Evaluation::Refuse { refusal: moved_refusal(facts), facts: record };
        }
        let at = At { facts, policy, names: &at_hand, statement, text };
        match settled(&at, evaluate_statement(facts, policy, statement, text)) {
            Step::Permit { plan, decision } => {
                record.add(&decision);
                if let Some(behind) = at_hand.behind(&statement.kind) {
                    record.absorb(&behind.facts);
                }
                moved |= statement.kind.reference().is_some() && plan.effect.rereads_state;
                at_hand.after(&plan);
                plans.push(*plan);
            }
            Step::Refuse { refusal, decision } => {
                if let Some(decision) = decision {
                    record.add(&decision);
                }
                return Evaluation::Refuse { refusal, facts: record };
            }
            Step::Missing(missing) => return Evaluation::Missing { missing, facts: record },
            Step::Probe { name, refusal } => {
                return Evaluation::Probe { statement: statement.text.clone(), name, refusal };
            }
        }
    }
    Evaluation::Permit(Arc::new(Permit::new(sql, plans, record, names.clone())))
}

/// What the statement carries is permitted: then what it is itself counts.
fn settled(at: &At<'_>, step: Step) -> Step {
    match step {
        Step::Permit { plan, decision } => match at.settle(*plan) {
            Settled::Plan(plan) => Step::Permit { plan, decision },
            Settled::Refuse(refusal) => Step::Refuse { refusal, decision: Some(decision) },
            Settled::Missing(missing) => Step::Missing(missing),
        },
        Step::Refuse { .. } | Step::Probe { .. } | Step::Missing(_) => step,
    }
}

/// A prepared statement may change what names mean, which is known only where it is executed.
fn moved_refusal(facts: &SessionFacts) -> Refusal {
    Refusal::new(
        RefusalCode::OpaqueStatement,
        "a statement after one that changes settings by EXECUTE or FETCH in the same message is not analysed",
    )
    .object(Object::at(&facts.target, None))
    .suggestion("send the statements one by one")
}

/// The empty message does nothing, but is not sent for those whom policy gives nothing either.
fn decide_nothing(facts: &SessionFacts, policy: &Policy) -> Decision {
    policy.decide(&AccessRequest {
        principal: &facts.principal,
        target: &facts.target,
        accesses: Vec::new(),
        presets: vec![Preset::Session],
    })
}

enum Step {
    Permit { plan: Box<StatementPlan>, decision: Decision },
    Refuse { refusal: Refusal, decision: Option<Decision> },
    Probe { name: String, refusal: Refusal },
    Missing(Missing),
}

fn evaluate_statement(facts: &SessionFacts, policy: &Policy, statement: &StatementAnalysis, text: &str) -> Step {
    match &statement.analysis {
        Analysis::Unresolved { name, at } => Step::Probe { name: name.clone(), refusal: unresolved(facts, name, *at) },
        Analysis::Opaque(opaque) => evaluate_opaque(facts, policy, statement, opaque),
        Analysis::Known(lineage) => match evaluate_known(facts, policy, statement, text, lineage) {
            Step::Refuse { refusal, decision } => {
                Step::Refuse { refusal: called::unnamed(facts, lineage, refusal), decision }
            }
            step @ (Step::Permit { .. } | Step::Probe { .. } | Step::Missing(_)) => step,
        },
    }
}

fn unresolved(facts: &SessionFacts, name: &str, at: Option<usize>) -> Refusal {
    Refusal::new(RefusalCode::UnresolvedName, format!("{name:?} does not resolve against the catalog"))
        .object(Object::at(&facts.target, at))
        .suggestion("check the spelling, or write the name with its schema")
}

fn evaluate_opaque(facts: &SessionFacts, policy: &Policy, statement: &StatementAnalysis, opaque: &Opaque) -> Step {
    let mut accesses = vec![
        Access { capability: capability(&statement.kind), relation: None },
        Access { capability: Capability::Opaque, relation: None },
    ];
    accesses.dedup();
    let needs = Needs { accesses, presets: Vec::new() };
    match bulk::rule(facts, policy, &statement.kind, &needs, None) {
        Ruled::TooMuch { decision, refusal } => Step::Refuse { refusal: *refusal, decision: Some(decision) },
        Ruled::Permitted { decision, .. } if copy::takes_out(&statement.kind) && !facts.seals.is_empty() => {
            Step::Refuse { refusal: copy::refusal(facts), decision: Some(decision) }
        }
        Ruled::Permitted { decision, bulk } => {
            let plan = StatementPlan {
                // The operator named `opaque`: what the server says a column is still gets its mask.
                outputs: if facts.seals.checks_nothing() { Outputs::Unchecked } else { Outputs::ByOrigin },
                taint: if facts.seals.is_empty() { Taint::Clean } else { Taint::UserCode },
                effect: StateEffect::unknown(named::acts_as(&statement.kind)),
                forgets: Forgets::of(&statement.kind),
                closes: named::closes(&statement.kind),
                made: None,
                makes: Vec::new(),
                copy: CopyStream::of(&statement.kind),
                notifies: Vec::new(),
                lookups: Vec::new(),
                bulk,
                writes_values: !facts.seals.is_empty(),
            };
            Step::Permit { plan: Box::new(plan), decision }
        }
        Ruled::Denied { decision } => {
            let refusal =
                if lacks_opaque(&decision) { opaque_refusal(facts, opaque) } else { policy_refusal(facts, &decision) };
            Step::Refuse { refusal, decision: Some(decision) }
        }
    }
}

/// Whether what stands in the way is that the statement is not understood, and neither a deny nor, for those who may
/// run such statements, another capability.
fn lacks_opaque(decision: &Decision) -> bool {
    decision
        .reasons
        .iter()
        .any(|reason| matches!(reason, Reason::CapabilityMissing { access } if access.capability == Capability::Opaque))
}

fn opaque_refusal(facts: &SessionFacts, opaque: &Opaque) -> Refusal {
    let code = match opaque.reason {
        OpaqueReason::Function { .. } => RefusalCode::OpaqueFunction,
        OpaqueReason::Operator { .. }
        | OpaqueReason::Type { .. }
        | OpaqueReason::Construct { .. }
        | OpaqueReason::Relation { .. } => RefusalCode::OpaqueStatement,
    };
    Refusal::new(code, format!("the gateway cannot tell what this statement reads: {}", opaque.reason))
        .object(Object::at(&facts.target, opaque.at))
        .suggestion("use plain SELECT, INSERT, UPDATE or DELETE with built-in functions")
}

fn evaluate_known(
    facts: &SessionFacts,
    policy: &Policy,
    statement: &StatementAnalysis,
    text: &str,
    lineage: &Lineage,
) -> Step {
    let kind = &statement.kind;
    // A relation without a name in the snapshot cannot be held against any rule.
    let altered = lineage.defines.iter().flat_map(|definition| &definition.alters);
    let mut touched = lineage.reads.iter().chain(&lineage.writes).chain(&lineage.reaches).chain(altered);
    if touched.any(|oid| facts.snapshot.relation(*oid).is_none()) {
        return Step::Refuse { refusal: Refusal::catalog_drift(), decision: None };
    }
    let needs = needs_of(facts, policy, kind, lineage);
    let (decision, bulk) = match bulk::rule(facts, policy, kind, &needs, Some(lineage)) {
        Ruled::Permitted { decision, bulk } => (decision, Ok(bulk)),
        // Said last: what is wrong with what it reads matters more.
        Ruled::TooMuch { decision, refusal } => (decision, Err(refusal)),
        Ruled::Denied { decision } => {
            return Step::Refuse { refusal: policy_refusal(facts, &decision), decision: Some(decision) };
        }
    };
    if let Some(refusal) = denied_behind(facts, policy, lineage) {
        return Step::Refuse { refusal, decision: Some(decision) };
    }
    let refusal = settings_refusal(facts, kind, lineage)
        .or_else(|| copy::to_a_file(facts, kind, lineage))
        .or_else(|| uses::refusal(facts, lineage));
    if let Some(refusal) = refusal {
        return Step::Refuse { refusal, decision: Some(decision) };
    }
    let outputs = match kind {
        StatementKind::CopyOut => copy::plan(facts, lineage, outputs_of(facts, lineage)),
        _ => Ok(outputs_of(facts, lineage)),
    };
    let outputs = match outputs {
        Ok(outputs) => outputs,
        Err(refusal) => return Step::Refuse { refusal: *refusal, decision: Some(decision) },
    };
    let probes = writes::probes(facts, policy, text, lineage);
    let lookups = match probes.and_then(|written| Ok([lookup::planned(facts, policy, lineage)?, written].concat())) {
        Ok(lookups) => lookups,
        Err(refusal) => return Step::Refuse { refusal: *refusal, decision: Some(decision) },
    };
    let bulk = match bulk {
        Ok(bulk) => bulk,
        Err(refusal) => return Step::Refuse { refusal: *refusal, decision: Some(decision) },
    };
    let mut effect = effect_of(kind, lineage);
    // What the operator vouches for is not read: it may define something on its way.
    if facts.snapshot.runs_trusted_functions(lineage) {
        (effect.changes_catalog, effect.moves_names, effect.rereads_state) = (true, true, true);
    }
    let plan = StatementPlan {
        outputs,
        taint: taint_of(facts, kind, lineage).max(bulk.taint()),
        effect,
        forgets: Forgets::of(kind),
        closes: named::closes(kind),
        made: None,
        makes: makes(kind, lineage),
        copy: CopyStream::of(kind),
        notifies: lineage.notifies.clone(),
        lookups,
        bulk,
        writes_values: !facts.seals.is_empty() && !lineage.writes.is_empty(),
    };
    Step::Permit { plan: Box::new(plan), decision }
}

fn effect_of(kind: &StatementKind, lineage: &Lineage) -> StateEffect {
    let effect = StateEffect::of(named::acts_as(kind), lineage.changes_settings);
    // What is only made was not what a name meant.
    let alters = lineage.defines.as_ref().is_none_or(|definition| !definition.alters.is_empty());
    StateEffect { moves_names: effect.moves_names && alters, ..effect }
}

/// Relations that are the statement's own work if it succeeds; EXPLAIN makes none.
fn makes(kind: &StatementKind, lineage: &Lineage) -> Vec<NewRelation> {
    match (kind, &lineage.defines) {
        (StatementKind::Ddl, Some(definition)) => definition.makes.iter().filter(|made| made.new).cloned().collect(),
        _ => Vec::new(),
    }
}

fn settings_refusal(facts: &SessionFacts, kind: &StatementKind, lineage: &Lineage) -> Option<Refusal> {
    let problem = match kind {
        StatementKind::Session(command) => settings::refuse_command(command),
        _ => None,
    };
    let problem = problem.or_else(|| {
        lineage
            .settings
            .iter()
            .find_map(|(name, value)| settings::refuse_setting(name, value.as_ref().map(std::slice::from_ref)))
    });
    problem.map(|refused| refused.into_refusal().object(Object::at(&facts.target, None)))
}

fn outputs_of(facts: &SessionFacts, lineage: &Lineage) -> Outputs {
    let Some(outputs) = &lineage.outputs else { return Outputs::None };
    Outputs::Columns(outputs.iter().map(|output| planned(facts, output, lineage.rewritten)).collect())
}

pub(crate) fn planned(facts: &SessionFacts, output: &Output, rewritten: bool) -> PlannedColumn {
    let origin = match output.origin {
        Origin::Column(id) => PlannedOrigin::Column(id),
        Origin::None => PlannedOrigin::None,
        Origin::Unknown => PlannedOrigin::OneOf(output.flows.keys().copied().collect()),
    };
    let made = facts.seals.mask_of(&output.flows);
    let mask = if rewritten && !facts.seals.is_empty() { Some(rewritten_mask(made)) } else { made };
    let watched = facts.seals.watches(output.flows.keys());
    PlannedColumn { origin, name: output.name.clone(), mask, watched }
}

/// What a trigger made of a row may hold anything that it could read.
fn rewritten_mask(made: Option<ColumnMask>) -> ColumnMask {
    let mask = made.map_or(Mask::Redact, |made| made.mask.max(Mask::Redact));
    let (nulls, lookup) = (Nulls::Hide, Lookup::Refused);
    ColumnMask { label: "trigger".to_owned(), mask, nulls, lookup, rule: "built-in".to_owned() }
}

fn taint_of(facts: &SessionFacts, kind: &StatementKind, lineage: &Lineage) -> Taint {
    if facts.seals.is_empty() {
        return Taint::Clean;
    }
    // What stands in a server's file may be anything, and errors quote its lines.
    if lineage.user_code || *kind == StatementKind::CopyFile {
        return Taint::UserCode;
    }
    if uses_sealed(facts, lineage) { Taint::Sealed } else { Taint::Clean }
}

pub(crate) fn uses_sealed(facts: &SessionFacts, lineage: &Lineage) -> bool {
    // A row that fails a check is quoted whole.
    let in_family =
        |oid: &Oid| facts.snapshot.family(*oid).iter().chain([oid]).any(|oid| facts.seals.relation(*oid).is_some());
    let altered = || lineage.defines.iter().flat_map(|definition| &definition.alters);
    lineage.large_objects
        || lineage.writes.iter().chain(altered()).any(in_family)
        || lineage.uses.iter().any(|used| facts.seals.column(used.column).is_some())
}

pub(crate) fn relation_name(snapshot: &CatalogSnapshot, oid: Oid) -> Option<RelationName> {
    snapshot
        .relation(oid)
        .map(|relation| RelationName { schema: relation.schema_name.clone(), name: relation.name.clone() })
}
