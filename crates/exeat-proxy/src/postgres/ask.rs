//! What an approval of a statement is bound to, and what a human is shown of it. Digests, so that a store can find the
//! request of an identical run without the statement; of values a keyed one, for there may be few enough to try.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use exeat_enforce::card::{
    CARD_VERSION, Card, CardCause, CardMask, CardMode, CardParameter, CardPrincipal, CardVolume,
};
use exeat_enforce::evaluate::Permit;
use exeat_enforce::held::why;
use exeat_policy::RelationName;
use exeat_policy::grant::{Ask, Digest};
use exeat_policy::ruling::{Duty, Measure};
use exeat_wire::{Bind, Format, FunctionCall};
use ring::digest::{SHA256, digest};

use super::due::Due;
use super::held::Asks;
use super::session::{Session, SessionEnd};

/// The values that a statement runs with.
pub(crate) enum Values<'a> {
    None,
    Of(&'a Bind, Option<&'a [u32]>),
    Call(&'a FunctionCall),
    /// As they were when the portal was bound.
    Digested(Option<Digest>),
}

/// What goes into a digest, each part with its length before it.
#[derive(Default)]
struct Parts(Vec<u8>);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.extend_from_slice(part);
    }

    fn digest(&self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        Digest::new(bytes)
    }
}

impl Session {
    /// The digest of what a Bind brings.
    pub(crate) fn digest_of(&self, values: &Values<'_>) -> Digest {
        let mut parts = Parts::default();
        match values {
            Values::Digested(Some(digest)) => return *digest,
            Values::None | Values::Digested(None) => {}
            Values::Call(call) => {
                for (index, value) in call.arguments.iter().enumerate() {
                    let binary = call.argument_format(index) == Some(Format::Binary);
                    parts.add(&[u8::from(binary), u8::from(value.is_some())]);
                    parts.add(value.as_deref().unwrap_or_default());
                }
            }
            Values::Of(bind, types) => {
                for (index, value) in bind.parameters.iter().enumerate() {
                    let declared = types.and_then(|types| types.get(index)).copied().unwrap_or_default();
                    let binary = bind.parameter_format(index) == Some(Format::Binary);
                    parts.add(&declared.to_be_bytes());
                    parts.add(&[u8::from(binary), u8::from(value.is_some())]);
                    parts.add(value.as_deref().unwrap_or_default());
                }
            }
        }
        Digest::new(self.shared.dependencies.mask_keys.digest("approval", &parts.0))
    }

    /// The statement as it is asked about. `running`: since when, if it runs.
    pub(crate) fn asks(
        &self,
        (request_id, permit): (&Arc<str>, &Arc<Permit>),
        values: &Values<'_>,
        (rules, running): (BTreeSet<String>, Option<Instant>),
    ) -> Result<Asks, SessionEnd> {
        let facts = &self.picture.facts;
        let policy = Digest::try_from(self.picture.policy.sha256.clone())
            .map_err(|_| SessionEnd::State("the policy has no digest".to_owned()))?;
        let ask = Ask {
            asker: facts.principal.asker(),
            target: facts.target.clone(),
            database: self.target.upstream.database().to_owned(),
            role: self.picture.role.clone(),
            statement: {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(digest(&SHA256, permit.sql().as_bytes()).as_ref());
                Digest::new(bytes)
            },
            parameters: self.digest_of(values),
            objects: self.objects(permit),
            masks: masks(permit),
            policy,
        };
        let counted = permit.plans.iter().flat_map(|plan| &plan.bulk.counted);
        let duties: Vec<Duty> = counted.map(|counted| counted.duty.clone()).collect();
        let card = self.card((request_id, permit), values, &rules, &duties);
        Ok(Asks { request_id: Arc::clone(request_id), permit: Arc::clone(permit), ask, rules, duties, running, card })
    }

    /// What its names stand for: relations and functions by what they are, and where names are looked for.
    fn objects(&self, permit: &Permit) -> Digest {
        let mut parts = Parts::default();
        for oid in &self.picture.scope.search_path {
            parts.add(&oid.0.to_be_bytes());
        }
        for qualified in &permit.facts.relations {
            parts.add(qualified.as_bytes());
            let (schema, name) = qualified.split_once('.').unwrap_or_default();
            let relation = self.picture.facts.snapshot.relation_by_name(schema, name);
            parts.add(&relation.map(|relation| relation.oid.0).unwrap_or_default().to_be_bytes());
        }
        let names = permit.names();
        let cursors = names.cursors().map(|(name, permit)| (name, permit.sql()));
        let prepared = names.prepared().map(|(name, prepared)| (name, prepared.permit.sql()));
        for (name, sql) in cursors.chain(prepared) {
            parts.add(name.as_bytes());
            parts.add(sql.as_bytes());
        }
        // Where a cursor stands only its session knows: what it gives is let through while it waits, and never later.
        if is_of_cursor(permit) {
            parts.add(self.record.session().as_bytes());
            parts.add(&self.next_request.to_be_bytes());
        }
        parts.digest()
    }

    fn card(
        &self,
        (request_id, permit): (&Arc<str>, &Arc<Permit>),
        values: &Values<'_>,
        rules: &BTreeSet<String>,
        duties: &[Duty],
    ) -> Card {
        let facts = &self.picture.facts;
        let principal = &facts.principal;
        Card {
            v: CARD_VERSION,
            request_id: request_id.to_string(),
            session: self.record.session().to_owned(),
            sql: shown_sql(permit),
            is_cut: false,
            parameters: shown(values),
            principal: CardPrincipal {
                issuer: principal.issuer.clone(),
                subject: principal.subject.clone(),
                actor: principal.actor.clone(),
                kind: principal.kind.into(),
            },
            target: facts.target.clone(),
            database: self.target.upstream.database().to_owned(),
            role: self.picture.role.clone(),
            causes: causes(permit, rules, duties),
            relations: permit.facts.relations.clone(),
            labels: permit
                .facts
                .masked
                .iter()
                .map(|masked| masked.label.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            masks: permit
                .facts
                .masked
                .iter()
                .map(|masked| CardMask {
                    column: masked.column.clone(),
                    label: masked.label.clone(),
                    mask: masked.mask.to_owned(),
                })
                .collect(),
            so_far: self.so_far(),
            released_before: self.released.iter().map(|(relation, rows)| (qualified(relation), *rows)).collect(),
            estimate: None,
            sample: None,
            purpose: self.questions.purpose(),
            // As the rules say, which is not asked yet.
            mode: CardMode::Sync,
        }
    }

    fn so_far(&self) -> CardVolume {
        let counted = match self.pipeline.front() {
            Some((_, Due::Query(query))) => query.counted.as_deref(),
            Some((_, Due::Execute(execute))) => execute.counted.as_deref(),
            Some(_) | None => None,
        };
        let Some(counted) = counted else { return CardVolume::default() };
        let rows = counted.tally.rows().map(|(relation, rows)| (qualified(relation), rows));
        CardVolume { rows: rows.collect::<BTreeMap<_, _>>(), bytes: counted.tally.bytes() }
    }
}

/// The masks in force for what it returns.
fn masks(permit: &Permit) -> Digest {
    let mut parts = Parts::default();
    for plan in &permit.plans {
        // Every part of a plan for its outputs is in its debug text, and the same plan gives the same text.
        parts.add(format!("{:?}", plan.outputs).as_bytes());
    }
    parts.digest()
}

/// Does it fetch from a cursor?
pub(crate) fn is_of_cursor(permit: &Permit) -> bool {
    permit.names().cursors().next().is_some()
}

/// With what stands behind the names it uses.
fn shown_sql(permit: &Permit) -> String {
    let names = permit.names();
    let cursors = names.cursors().map(|(name, permit)| ("cursor", name, permit.sql()));
    let prepared = names.prepared().map(|(name, prepared)| ("prepared statement", name, prepared.permit.sql()));
    let behind = cursors.chain(prepared).map(|(what, name, sql)| format!("\n-- {what} {name:?}:\n{sql}"));
    let whole = is_of_cursor(permit)
        .then(|| "\n-- approved is all that the cursor still gives, up to the rows you allow".to_owned());
    std::iter::once(permit.sql().to_owned()).chain(behind).chain(whole).collect()
}

fn qualified(relation: &RelationName) -> String {
    format!("{}.{}", relation.schema, relation.name)
}

fn shown(values: &Values<'_>) -> Vec<CardParameter> {
    let Values::Of(bind, _) = values else { return Vec::new() };
    let parameter = |(index, value): (usize, &Option<bytes::Bytes>)| match value {
        None => CardParameter::Null,
        Some(value) if bind.parameter_format(index) == Some(Format::Binary) => {
            CardParameter::Binary { bytes: u64::try_from(value.len()).unwrap_or(u64::MAX) }
        }
        Some(value) => CardParameter::Text(String::from_utf8_lossy(value).into_owned()),
    };
    bind.parameters.iter().enumerate().map(parameter).collect()
}

fn causes(permit: &Permit, rules: &BTreeSet<String>, duties: &[Duty]) -> Vec<CardCause> {
    let before = permit.plans.iter().flat_map(|plan| &plan.bulk.causes).filter_map(|cause| {
        Some(CardCause {
            rule: cause.rule.clone()?,
            relation: cause.relation.as_ref().map(qualified),
            why: why(cause).to_owned(),
        })
    });
    let past = duties.iter().flat_map(|duty| {
        duty.thresholds.iter().map(|threshold| {
            let measured = match threshold.measure {
                Measure::Rows => "rows",
                Measure::Bytes => "bytes",
                Measure::Affected => "rows changed",
            };
            CardCause {
                rule: threshold.rule.clone(),
                relation: Some(qualified(&duty.relation)),
                why: format!("more than {} {measured}", threshold.amount),
            }
        })
    });
    before.chain(past).filter(|cause| rules.contains(&cause.rule)).collect()
}
