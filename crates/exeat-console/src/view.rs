//! Requests for approval as JSON: the same words in the API, in what the command line reads and in messages.
//! Whatever of it a client has worded (the statement, its parameters, names) is a JSON string here and nothing else:
//! whoever shows it escapes it.

use std::time::Duration;

use exeat_enforce::card::Card;
use exeat_policy::approval::{Approval, Ceiling, Finding, Granted, GrantedBy, Progress, Review, Scope, State, Terms};
use exeat_policy::ruling::Deciders;
use exeat_policy::{Asker, Moment, Person};
use exeat_store::state::{Earlier, Exposure, Freeze, Frozen, LimitUse, Listed, Request};
use serde_json::{Map, Value, json};

/// One request with everything a decision rests on.
#[derive(Debug)]
pub struct Shown {
    pub request: Request,
    /// `None`: made by a gateway that says it otherwise.
    pub card: Option<Card>,
    /// Decisions about statements of the same shape, newest first.
    pub earlier: Vec<Earlier>,
    /// Of each rule that holds the statement.
    pub rules: Vec<RuleStanding>,
    /// What whoever asks may do about it now.
    pub may: Vec<&'static str>,
}

/// Who decides for a rule, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStanding {
    pub rule: String,
    /// `None`: the rule holds nothing any more, and nobody decides for it.
    pub deciders: Option<Deciders>,
}

impl Shown {
    pub fn to_json(&self) -> Value {
        let Request { id, ask, terms, progress, fingerprint, card: _, changed_at } = &self.request;
        let line = Listed {
            id: id.clone(),
            ask: ask.clone(),
            terms: terms.clone(),
            progress: progress.clone(),
            changed_at: *changed_at,
        };
        let Value::Object(mut members) = listed(&line) else { return Value::Null };
        let approvals = approvals(progress);
        let demands: Vec<Value> = terms
            .demands
            .iter()
            .map(|demand| {
                let counted = approvals.iter().filter(|approval| approval.rules.contains(&demand.rule)).count();
                let deciders = self.rules.iter().find(|one| one.rule == demand.rule);
                let deciders = deciders.and_then(|found| found.deciders.as_ref());
                json!({
                    "rule": demand.rule, "quorum": demand.quorum, "approvals": counted,
                    "escalates_at": demand.escalates_at.map(time),
                    "approvers": deciders.map(|found| &found.approvers),
                    "escalates_to": deciders.and_then(|found| found.escalates_to.as_ref()),
                    "break_glass": deciders.and_then(|found| found.break_glass.as_ref()),
                })
            })
            .collect();
        let more = [
            ("demands", Value::Array(demands)),
            ("usual", scope(terms.usual())),
            ("fingerprint", json!(fingerprint)),
            ("card", self.card.as_ref().map_or(Value::Null, |card| json!(card))),
            ("earlier", self.earlier.iter().map(earlier).collect()),
            ("may", json!(self.may)),
        ];
        members.extend(more.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(members)
    }
}

/// A line of a list: no statement in it.
pub fn listed(line: &Listed) -> Value {
    let Listed { id, ask, terms, progress, changed_at } = line;
    let Terms { asker: _, demands, asked_at, decide_by, widest } = terms;
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
    put("id", json!(id.as_str()));
    put("state", json!(progress.state.name()));
    put("asker", asker(&ask.asker));
    put("target", json!(ask.target));
    put("database", json!(ask.database));
    put("role", json!(ask.role));
    put("rules", demands.iter().map(|demand| demand.rule.as_str()).collect());
    put("asked_at", time(*asked_at));
    put("decide_by", time(*decide_by));
    put("changed_at", time(*changed_at));
    put("widest", scope(*widest));
    put("approvals", approvals(progress).iter().map(approval).collect());
    state_members(&progress.state, &mut put);
    put("review", review(&progress.review));
    Value::Object(members)
}

fn state_members(state: &State, put: &mut dyn FnMut(&str, Value)) {
    let mut closed = |by: &Person, reason: &str, at: Moment| {
        put("closed", json!({"by": person(by), "reason": reason, "at": time(at)}));
    };
    match state {
        State::Pending { .. } => {}
        State::Escalated { at, .. } => put("escalated_at", time(*at)),
        State::Approved(found) | State::Consumed { granted: found, .. } => put("granted", granted(found)),
        State::Denied { by, reason, at } => closed(by, reason.as_str(), *at),
        State::Expired { granted: found, .. } => {
            if let Some(found) = found {
                put("granted", granted(found));
            }
        }
        State::Withdrawn { .. } => {}
        State::Revoked { by, reason, at, granted: found } => {
            closed(by, reason.as_str(), *at);
            put("granted", granted(found));
        }
    }
}

fn approvals(progress: &Progress) -> &[Approval] {
    match &progress.state {
        State::Pending { approvals } | State::Escalated { approvals, .. } => approvals,
        State::Approved(granted)
        | State::Consumed { granted, .. }
        | State::Expired { granted: Some(granted), .. }
        | State::Revoked { granted, .. } => match &granted.by {
            GrantedBy::Quorum(approvals) => approvals,
            GrantedBy::BreakGlass { .. } => &[],
        },
        State::Denied { .. } | State::Expired { granted: None, .. } | State::Withdrawn { .. } => &[],
    }
}

fn approval(approval: &Approval) -> Value {
    json!({
        "by": person(&approval.by), "rules": approval.rules, "scope": scope(approval.scope), "at": time(approval.at),
    })
}

fn granted(granted: &Granted) -> Value {
    let Granted { by, at, until, ceiling, uses_left } = granted;
    let glass = match by {
        GrantedBy::Quorum(_) => Value::Null,
        GrantedBy::BreakGlass { by, reason } => {
            json!({"by": person(by), "reason": reason.as_ref().map(|reason| reason.as_str())})
        }
    };
    let Ceiling { rows, bytes, affected } = ceiling;
    json!({
        "at": time(*at), "until": time(*until), "rows": rows, "bytes": bytes, "affected": affected,
        "uses_left": uses_left, "glass_broken": glass,
    })
}

fn review(review: &Review) -> Value {
    match review {
        Review::NotDemanded => Value::Null,
        Review::Due { since } => json!({"state": "due", "since": time(*since)}),
        Review::Done { by, at, finding, remark } => {
            let finding = match finding {
                Finding::Justified => "justified",
                Finding::Unjustified => "unjustified",
            };
            json!({"state": "done", "by": person(by), "at": time(*at), "finding": finding, "remark": remark.as_str()})
        }
    }
}

fn earlier(earlier: &Earlier) -> Value {
    json!({
        "id": earlier.id.as_str(), "asker": asker(&earlier.asker), "asked_at": time(earlier.asked_at),
        "state": earlier.state.name(), "review": review(&earlier.review),
    })
}

/// What one run may release at most; null: as much as the result has.
fn scope(scope: Scope) -> Value {
    let Scope { ceiling: Ceiling { rows, bytes, affected }, uses, lasts } = scope;
    json!({"rows": rows, "bytes": bytes, "affected": affected, "uses": uses, "expires_s": seconds(lasts)})
}

fn seconds(span: Duration) -> u64 {
    span.as_secs()
}

fn asker(asker: &Asker) -> Value {
    json!({"issuer": asker.human.issuer, "subject": asker.human.subject, "actor": asker.actor})
}

fn person(person: &Person) -> Value {
    json!({"issuer": person.issuer, "subject": person.subject})
}

/// RFC 3339, in UTC.
pub fn time(moment: Moment) -> Value {
    jiff::Timestamp::from_millisecond(moment.unix_millis()).map_or(Value::Null, |time| json!(time.to_string()))
}

pub(crate) fn freeze(freeze: &Freeze) -> Value {
    let (kind, issuer, name) = match &freeze.what {
        Frozen::Subject(person) => ("subject", Some(&person.issuer), &person.subject),
        Frozen::Target(name) => ("target", None, name),
    };
    json!({
        "kind": kind, "issuer": issuer, "name": name, "by": person(&freeze.by), "reason": freeze.reason.as_str(),
        "at": time(freeze.at),
    })
}

pub(crate) fn probes(limit: &LimitUse) -> Value {
    json!({
        "kind": "probes", "issuer": limit.issuer, "subject": limit.subject, "actor": limit.actor,
        "target": limit.target, "label": limit.label, "relation": limit.relation,
        "used": limit.used, "next_free": limit.next_free.to_string(),
    })
}

pub(crate) fn exposure(exposure: &Exposure) -> Value {
    use exeat_policy::ledger::Counted;
    let key = &exposure.key;
    let (label, relation) = match &key.counted {
        Counted::Target => (None, None),
        Counted::Relation(relation) => (None, Some(relation)),
        Counted::Label { label, relation } => (Some(label), Some(relation)),
    };
    json!({
        "kind": key.unit.name(), "issuer": key.asker.human.issuer, "subject": key.asker.human.subject,
        "actor": key.asker.actor, "target": key.target, "label": label,
        "relation": relation.map(|relation| format!("{}.{}", relation.schema, relation.name)),
        "used": exposure.used, "next_free": time(exposure.next_free),
    })
}
