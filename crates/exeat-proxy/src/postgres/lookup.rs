//! Values of sealed columns that a statement looks up are counted here, in the state store and before anything of the
//! statement is recorded as allowed or forwarded. What cannot be counted is not forwarded; what was counted and then was
//! not forwarded stays counted.

use std::collections::BTreeMap;

use exeat_enforce::evaluate::Permit;
use exeat_enforce::lookup::{Parameters, PlannedLookup};
use exeat_enforce::refusal::Refusal;
use exeat_policy::RelationName;
use exeat_store::record::LimitReached;
use exeat_store::state::{Probe, ProbeVerdict, VALUES_MAX};
use jiff::Timestamp;

use super::outcome::policy_ref;
use super::picture::Refused;
use super::session::{Session, SessionEnd};

/// What is tried under one counter, and one of the lookups that try it, for the words of a refusal.
struct Tried<'a> {
    lookup: &'a PlannedLookup,
    values: Vec<Vec<u8>>,
}

impl Session {
    /// Counts what the permitted message looks up. `Some`: it must not be forwarded, and why.
    pub(crate) async fn count_lookups(
        &mut self,
        request_id: &str,
        permit: &Permit,
        parameters: Option<Parameters<'_>>,
    ) -> Result<Option<Box<Refused>>, SessionEnd> {
        if permit.plans.iter().all(|plan| plan.lookups.is_empty()) {
            return Ok(None);
        }
        let refused = |refusal| Ok(Some(Box::new(Refused { refusal, facts: permit.facts.clone() })));
        let tried = match tried(&self.picture.facts.target, permit, parameters) {
            Ok(tried) => tried,
            Err(refusal) => return refused(*refusal),
        };
        for one in tried.into_values().filter(|one| !one.values.is_empty()) {
            if let Some(refusal) = self.count(request_id, &one).await? {
                return refused(refusal);
            }
        }
        Ok(None)
    }

    async fn count(&mut self, request_id: &str, tried: &Tried<'_>) -> Result<Option<Refusal>, SessionEnd> {
        let Tried { lookup, values } = tried;
        let target = self.picture.facts.target.clone();
        if values.len() > VALUES_MAX {
            return Ok(Some(lookup.too_many(&target, values.len(), VALUES_MAX)));
        }
        let (state, principal) = (self.shared.dependencies.state.clone(), self.picture.facts.principal.clone());
        let relation = format!("{}.{}", lookup.relation.schema, lookup.relation.name);
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let limit = lookup.limit.limit;
        let probe = Probe {
            principal: &principal,
            target: &target,
            label: &lookup.label,
            relation: &relation,
            values: &values,
            limit: limit.probes,
            window: limit.window,
        };
        let now = Timestamp::now();
        let (used, resets_at) = match self.while_client_stays(state.probe(&probe, now)).await? {
            Ok(ProbeVerdict::Counted { .. }) => return Ok(None),
            Ok(ProbeVerdict::Exhausted { used, resets_at, .. }) => (used, resets_at),
            Err(problem) => {
                tracing::error!(problem = exeat_store::chain(&problem), "a lookup could not be counted");
                return Ok(Some(Refusal::not_enforceable("what is looked up cannot be counted")));
            }
        };
        let after = resets_at.duration_since(now).as_secs().saturating_add(1);
        // To the second: what stands behind it tells nothing more to whoever waits.
        let resets_at = resets_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let recorded = self.record.limit_reached(&LimitReached {
            request_id,
            kind: "probes",
            label: Some(&lookup.label),
            relation: Some(&relation),
            used: used.into(),
            limit: limit.probes.into(),
            resets_at: Some(&resets_at),
            policy: policy_ref(&self.picture.policy),
        });
        if let Err(problem) = recorded {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record that a limit was reached");
        }
        Ok(Some(lookup.exhausted(&target, used, u64::try_from(after).unwrap_or_default(), resets_at)))
    }
}

/// By label and relation, one question to the store for each: what one counter has no room for is not counted there at
/// all, be it of one list or of several statements.
fn tried<'a>(
    target: &str,
    permit: &'a Permit,
    parameters: Option<Parameters<'_>>,
) -> Result<BTreeMap<(&'a str, &'a RelationName), Tried<'a>>, Box<Refusal>> {
    let mut found: BTreeMap<_, Tried<'a>> = BTreeMap::new();
    for lookup in permit.plans.iter().flat_map(|plan| &plan.lookups) {
        let counter = (lookup.label.as_str(), &lookup.relation);
        let tried = found.entry(counter).or_insert_with(|| Tried { lookup, values: Vec::new() });
        tried.values.extend(lookup.tried(target, parameters)?);
    }
    Ok(found)
}
