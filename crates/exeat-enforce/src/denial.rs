//! What policy says no to, in words: a rule that denies, a capability that no rule gives, and what stands behind a
//! statement's relations.

use exeat_policy::{Access, AccessRequest, Capability, Decision, Policy, Reason, RelationName};
use exeat_sql::Lineage;

use crate::evaluate::{SessionFacts, relation_name};
use crate::refusal::{Object, Refusal, RefusalCode};

/// A view does not launder a `deny`: a rule that denies what stands behind it denies the statement.
pub(crate) fn denied_behind(facts: &SessionFacts, policy: &Policy, lineage: &Lineage) -> Option<Refusal> {
    if lineage.reaches.is_empty() {
        return None;
    }
    let accesses = lineage
        .reaches
        .iter()
        .map(|oid| Access { capability: Capability::Read, relation: relation_name(&facts.snapshot, *oid) })
        .collect();
    let behind = policy.decide(&AccessRequest {
        principal: &facts.principal,
        target: &facts.target,
        accesses,
        presets: Vec::new(),
    });
    behind.reasons.iter().find_map(|reason| match reason {
        Reason::Denied { hidden: true, .. } => Some(hidden(facts)),
        Reason::Denied { rule, text, .. } => Some(
            Refusal::new(
                RefusalCode::Denied,
                text.clone().unwrap_or_else(|| "what this statement reaches is denied to you".to_owned()),
            )
            .rule(rule)
            .object(Object::at(&facts.target, None))
            .suggestion("read another relation"),
        ),
        Reason::Allowed { .. } | Reason::NoRule | Reason::CapabilityMissing { .. } => None,
    })
}

pub(crate) fn policy_refusal(facts: &SessionFacts, decision: &Decision) -> Refusal {
    let denied = decision.reasons.iter().find(|reason| matches!(reason, Reason::Denied { .. }));
    let missing = decision.reasons.iter().find(|reason| matches!(reason, Reason::CapabilityMissing { .. }));
    match denied.or(missing) {
        Some(Reason::Denied { hidden: true, .. }) => hidden(facts),
        Some(Reason::Denied { rule, text, access, hidden: false }) => Refusal::new(
            RefusalCode::Denied,
            text.clone().unwrap_or_else(|| format!("a rule denies you to {}", describe(access))),
        )
        .rule(rule)
        .object(Object::relation(&facts.target, access.relation.as_ref()))
        .suggestion(match access.relation {
            Some(_) => "leave this relation out of the statement",
            None => "ask the policy's owner whether it should be allowed",
        }),
        Some(Reason::CapabilityMissing { access }) => {
            Refusal::new(RefusalCode::CapabilityMissing, format!("no rule allows you to {}", describe(access)))
                .object(Object::relation(&facts.target, access.relation.as_ref()))
                .suggestion("ask the policy's owner for a rule that allows it, or leave it out of the statement")
        }
        Some(Reason::Allowed { .. } | Reason::NoRule) | None => {
            Refusal::new(RefusalCode::NoRule, format!("no rule speaks of you at target {:?}", facts.target))
                .object(Object::at(&facts.target, None))
                .suggestion("ask the policy's owner for a rule that names one of your groups")
        }
    }
}

/// Neither the rule nor its words may tell that there is something behind the statement.
fn hidden(facts: &SessionFacts) -> Refusal {
    Refusal::new(RefusalCode::Denied, "what this statement may reach is denied to you")
        .object(Object::at(&facts.target, None))
        .suggestion("read another relation, or leave out what may read anything")
}

fn describe(access: &Access) -> String {
    let capability = access.capability.name();
    match (&access.relation, access.capability) {
        (
            Some(RelationName { schema, name }),
            Capability::Read | Capability::Insert | Capability::Update | Capability::Delete,
        ) => format!("{capability} {schema}.{name}"),
        (Some(RelationName { schema, name }), _) => format!("run statements of kind {capability} on {schema}.{name}"),
        (None, _) => format!("run statements of kind {capability}"),
    }
}
