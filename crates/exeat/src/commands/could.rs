//! Who could have read a column: everybody who is on record and everybody whom rules name, put to the policy of that time as
//! a session's statement would be. Decides nothing itself. What the policy is not told here it cannot weigh: claims, and
//! what the database's catalog was; both are said beside the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use exeat_policy::named::{ANYBODY, NAMED_MAX};
use exeat_policy::ruling::{Cause, Copied, ReadShape, Ruling, Threshold, Touch, Verdict, WriteShape};
use exeat_policy::{
    Access, AccessRequest, Capability, ColumnMask, Mask, Named, Policy, Principal, PrincipalKind, Reason, RelationName,
    StatementFacts, StatementKind,
};
use exeat_store::index::Seen;
use serde_json::{Map, Value, json};

use crate::plain;

/// A column by its three names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    relation: RelationName,
    name: String,
}

impl Column {
    /// Why nobody is asked about it, otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('.').collect();
        match parts.as_slice() {
            [schema, ..] if matches!(*schema, "pg_catalog" | "information_schema") => Err(
                "the server's own catalogs have no rules: ask `exeat policy explain` what a statement about them becomes"
                    .to_owned(),
            ),
            [schema, relation, name] if !text.contains('*') && parts.iter().all(|part| !part.is_empty()) => Ok(Self {
                relation: RelationName { schema: (*schema).to_owned(), name: (*relation).to_owned() },
                name: (*name).to_owned(),
            }),
            _ => Err(format!("{text:?} is not one column: name it as schema.relation.column, without *")),
        }
    }
}

/// What becomes of a statement that selects the column of some rows, by a condition.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    form: Form,
    /// As it would be masked, where it is.
    mask: Option<ColumnMask>,
    rules: BTreeSet<String>,
    /// What else becomes of all rows at once.
    at_once: Option<String>,
    /// A rule holds it past so much.
    past: Vec<Threshold>,
    /// What would be looked for in it in clear.
    detect: Vec<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Clear,
    Masked,
    /// Until a human lets it through, by these rules.
    Held(Vec<String>),
    Denied(Vec<String>),
}

impl Form {
    fn word(&self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Masked => "masked",
            Self::Held(_) => "held",
            Self::Denied(_) => "denied",
        }
    }
}

fn ask(policy: &Policy, principal: &Principal, target: &str, column: &Column) -> Answer {
    let Column { relation, name } = column;
    let labels = policy.labels(target).iter().filter(|label| label.matches(&relation.schema, &relation.name, name));
    let labels: Vec<String> = labels.map(|label| label.name().to_owned()).collect();
    let mask = policy.column_mask(principal, target, relation, &labels);
    let access = Access { capability: Capability::Read, relation: Some(relation.clone()) };
    let request = AccessRequest { principal, target, accesses: vec![access], presets: Vec::new() };
    let ruling = |read| {
        let touch = Touch {
            relation: relation.clone(),
            is_labelled: policy
                .labels(target)
                .iter()
                .any(|label| label.patterns().any(|one| one.relation().matches(relation))),
            read,
            write: WriteShape::Nothing,
            copied: Copied::No,
            takes_star: false,
        };
        policy.rule_on(&request, &StatementFacts { kind: StatementKind::Select, touches: vec![touch] }, None)
    };
    let (some, all) = (ruling(ReadShape::Restricted), ruling(ReadShape::Unbounded { limit: None }));
    let form = form(&some, mask.as_ref());
    let mut rules: BTreeSet<String> = some.decision.rules.iter().cloned().collect();
    rules.extend(mask.iter().map(|mask| mask.rule.clone()));
    rules.extend(causes(&some.verdict).iter().filter_map(|cause| cause.rule.clone()));
    let detect = match form {
        Form::Clear => policy.detectors(principal, target).into_iter().map(|detector| detector.name()).collect(),
        Form::Masked | Form::Held(_) | Form::Denied(_) => Vec::new(),
    };
    let is_denied = matches!(form, Form::Denied(_));
    let at_once = (all.verdict != some.verdict && !is_denied).then(|| match &all.verdict {
        Verdict::Permit => "permitted".to_owned(),
        Verdict::Hold(causes) => format!("held{}", by(causes)),
        Verdict::Deny(causes) => format!("denied{}", by(causes)),
    });
    let past = some.duties.into_iter().flat_map(|duty| duty.thresholds).collect();
    Answer { form, mask: mask.filter(|_| !is_denied), rules, at_once, past, detect }
}

fn form(ruling: &Ruling, mask: Option<&ColumnMask>) -> Form {
    match (&ruling.verdict, mask) {
        (Verdict::Deny(causes), _) => {
            let mut why: Vec<String> = ruling.decision.reasons.iter().filter_map(words).collect();
            why.extend(causes.iter().filter_map(|cause| Some(format!("rule {}", cause.rule.as_ref()?))));
            Form::Denied(why)
        }
        (_, Some(ColumnMask { mask: Mask::Refuse, label, rule, .. })) => {
            Form::Denied(vec![format!("rule {rule} refuses what is labelled {label}")])
        }
        (Verdict::Hold(causes), _) => Form::Held(causes.iter().filter_map(|cause| cause.rule.clone()).collect()),
        (Verdict::Permit, Some(_)) => Form::Masked,
        (Verdict::Permit, None) => Form::Clear,
    }
}

fn causes(verdict: &Verdict) -> &[Cause] {
    match verdict {
        Verdict::Permit => &[],
        Verdict::Hold(causes) | Verdict::Deny(causes) => causes,
    }
}

fn by(causes: &[Cause]) -> String {
    let rules: Vec<&str> = causes.iter().filter_map(|cause| cause.rule.as_deref()).collect();
    if rules.is_empty() { String::new() } else { format!(" by {}", rules.join(", ")) }
}

fn words(reason: &Reason) -> Option<String> {
    match reason {
        Reason::Allowed { .. } => None,
        Reason::Denied { rule, text: Some(text), .. } => Some(format!("rule {rule}: {text}")),
        Reason::Denied { rule, text: None, .. } => Some(format!("rule {rule}")),
        Reason::NoRule => Some("no rule allows it anything there".to_owned()),
        Reason::CapabilityMissing { .. } => Some("no rule allows it to read the relation".to_owned()),
    }
}

/// Somebody and the answer.
#[derive(Debug)]
struct Told {
    who: Somebody,
    target: String,
    answer: Answer,
}

#[derive(Debug)]
enum Somebody {
    /// Of lines, and what sessions they had at the target. `kind`: where the answer hangs on it.
    OnRecord {
        raw: Value,
        at: Vec<Seen>,
        kind: Option<&'static str>,
    },
    ByRule(Box<Named>),
}

/// All answers under one policy.
#[derive(Debug)]
pub(crate) struct Could {
    column: String,
    told: Vec<Told>,
    notes: Vec<String>,
}

impl Could {
    /// `seen`: who is on record by then, as often as they were somewhere else. `targets`: that are asked about.
    pub(crate) fn ask(policy: &Policy, column: &Column, seen: Vec<Seen>, targets: &BTreeSet<String>) -> Self {
        let mut people: Vec<(Value, BTreeMap<String, Vec<Seen>>)> = Vec::new();
        for one in seen {
            // They come by principal.
            if people.last().is_none_or(|(raw, _)| *raw != one.principal) {
                people.push((one.principal.clone(), BTreeMap::new()));
            }
            if let Some((_, at)) = people.last_mut() {
                at.entry(one.target.clone()).or_default().push(one);
            }
        }
        let notes = notes(policy, &people, targets);
        let mut told = Vec::new();
        for target in targets {
            for (raw, at) in &mut people {
                let at = at.remove(target).unwrap_or_default();
                told.extend(on_record(policy, column, (raw, at), target));
            }
            told.extend(policy.named(target).into_iter().map(|named| Told {
                answer: ask(policy, &named.principal, target, column),
                who: Somebody::ByRule(Box::new(named)),
                target: target.clone(),
            }));
        }
        let column = format!("{}.{}.{}", column.relation.schema, column.relation.name, column.name);
        Self { column, told, notes }
    }

    pub(crate) fn json(&self) -> Value {
        let told = |is_wanted: fn(&Somebody) -> bool| -> Vec<Value> {
            self.told.iter().filter(|told| is_wanted(&told.who)).map(Told::json).collect()
        };
        json!({
            "on_record": told(|who| matches!(who, Somebody::OnRecord { .. })),
            "by_rule": told(|who| matches!(who, Somebody::ByRule(_))),
            "notes": self.notes,
        })
    }

    pub(crate) fn text(&self, out: &mut String) {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "Who could have read {} by that policy, some rows by a condition:",
            plain::line(&self.column)
        );
        for told in self.told.iter().filter(|told| matches!(told.who, Somebody::OnRecord { .. })) {
            let _ = writeln!(out, "  {}", told.line());
        }
        out.push_str("and whoever its rules name:\n");
        for told in self.told.iter().filter(|told| matches!(told.who, Somebody::ByRule(_))) {
            let _ = writeln!(out, "  {}", told.line());
        }
        for note in &self.notes {
            let _ = writeln!(out, "  ({})", plain::line(note));
        }
    }
}

/// Once, or for a human and for a workload where these differ: lines do not say which it was.
fn on_record(policy: &Policy, column: &Column, (raw, at): (&Value, Vec<Seen>), target: &str) -> Vec<Told> {
    let asked = |kind| ask(policy, &principal(raw, kind), target, column);
    let (human, workload) = (asked(PrincipalKind::Human), asked(PrincipalKind::Workload));
    let answers = if human == workload {
        vec![(None, human)]
    } else {
        vec![(Some("human"), human), (Some("workload"), workload)]
    };
    let told = answers.into_iter().map(|(kind, answer)| Told {
        who: Somebody::OnRecord { raw: raw.clone(), at: at.clone(), kind },
        target: target.to_owned(),
        answer,
    });
    told.collect()
}

/// As far as lines have it.
fn principal(raw: &Value, kind: PrincipalKind) -> Principal {
    let text = |member: &str| raw.get(member).and_then(Value::as_str).map(str::to_owned);
    let groups = raw.get("groups").and_then(Value::as_array).into_iter().flatten();
    Principal {
        issuer: text("iss").unwrap_or_default(),
        subject: text("sub").unwrap_or_default(),
        groups: groups.filter_map(Value::as_str).map(str::to_owned).collect(),
        claims: Map::new(),
        actor: text("actor"),
        kind,
        token_id: None,
        instance: BTreeMap::new(),
    }
}

/// What the answers do not know.
fn notes(policy: &Policy, people: &[(Value, BTreeMap<String, Vec<Seen>>)], targets: &BTreeSet<String>) -> Vec<String> {
    let mut notes = vec![
        "labels count by name, also for what a relation is; what the database had become, its own privileges, and approvals \
         that were given are not asked"
            .to_owned(),
    ];
    for target in targets {
        let asking = policy.asks_claims(target);
        if !asking.is_empty() {
            notes.push(format!(
                "claims are not on record: whoever had those that rules of {target} ask for ({}) may have got another answer",
                asking.join(", ")
            ));
        }
        if policy.named(target).len() >= NAMED_MAX {
            notes.push(format!("rules of {target} name more than {NAMED_MAX}, and the rest is not shown"));
        }
    }
    let any = |member: &str| people.iter().any(|(raw, _)| raw.get(member).is_some());
    if any("actor") {
        notes.push("of an agent that acted for others its name is on record, not its own groups".to_owned());
    }
    if any("groups_total") {
        notes.push("some principals had more groups than their lines have room for: those are not asked".to_owned());
    }
    notes
}

impl Told {
    fn json(&self) -> Value {
        let Self { who, target, answer } = self;
        let mut shown = match who {
            Somebody::OnRecord { raw, at, kind } => {
                let at = at.iter().map(|seen| {
                    json!({
                        "database": seen.database,
                        "login": seen.login,
                        "sessions": seen.sessions,
                        "first": seen.first_at.to_string(),
                        "last": seen.last_at.to_string(),
                    })
                });
                json!({"principal": raw, "kind": kind, "seen_there": at.collect::<Vec<_>>()})
            }
            Somebody::ByRule(named) => json!({"who": somebody(&named.principal), "named_by": named.rules}),
        };
        let why = match &answer.form {
            Form::Clear | Form::Masked => &[][..],
            Form::Held(rules) => rules,
            Form::Denied(why) => why,
        };
        let past =
            answer.past.iter().map(|past| json!({"measure": measure(past), "amount": past.amount, "rule": past.rule}));
        let more = json!({
            "target": target,
            "read": answer.form.word(),
            "why": why,
            "mask": answer.mask.as_ref().map(|mask| mask.mask.name()),
            "label": answer.mask.as_ref().map(|mask| mask.label.as_str()),
            "rules": answer.rules,
            "all_rows_at_once": answer.at_once,
            "held_past": past.collect::<Vec<_>>(),
            "detect": answer.detect,
        });
        if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
            shown.extend(more);
        }
        shown
    }

    fn line(&self) -> String {
        let Self { who, target, answer } = self;
        let mut line = match who {
            Somebody::OnRecord { raw, kind, .. } => {
                let as_kind = kind.map(|kind| format!(", as a {kind}")).unwrap_or_default();
                format!("{}{as_kind}", somebody(&principal(raw, PrincipalKind::Human)))
            }
            Somebody::ByRule(named) => somebody(&named.principal),
        };
        let _ = write!(line, " at {}: ", plain::line(target));
        let masked =
            answer.mask.as_ref().map(|mask| format!("masked by {} as {}", mask.mask.name(), plain::line(&mask.label)));
        match (&answer.form, masked) {
            (Form::Clear | Form::Masked, None) => line.push_str("IN CLEAR"),
            (Form::Clear | Form::Masked, Some(masked)) => line.push_str(&masked),
            (Form::Held(rules), masked) => {
                let then = masked.unwrap_or_else(|| "IN CLEAR".to_owned());
                let _ = write!(line, "held by {}, then {then}", plain::line(&rules.join(", ")));
            }
            (Form::Denied(why), _) => {
                let _ = write!(line, "denied ({})", plain::line(&why.join("; ")));
                return line;
            }
        }
        if let Some(at_once) = &answer.at_once {
            let _ = write!(line, "; all rows at once {}", plain::line(at_once));
        }
        for past in &answer.past {
            let _ = write!(line, "; past {} {} held by {}", past.amount, measure(past), plain::line(&past.rule));
        }
        if !answer.detect.is_empty() {
            let _ = write!(line, "; {} looked for", answer.detect.join(", "));
        }
        let _ = write!(line, " ({})", plain::line(&answer.rules.iter().cloned().collect::<Vec<_>>().join(", ")));
        line
    }
}

fn measure(threshold: &Threshold) -> &'static str {
    use exeat_policy::ruling::Measure;
    match threshold.measure {
        Measure::Rows => "rows",
        Measure::Bytes => "bytes",
        Measure::Affected => "rows changed",
    }
}

/// In words: a name, or whoever fits.
fn somebody(principal: &Principal) -> String {
    let Principal { subject, groups, claims, actor, kind, .. } = principal;
    let mut out = if subject == ANYBODY { "anybody".to_owned() } else { plain::line(subject) };
    match actor.as_deref() {
        Some(ANYBODY) => out.push_str(" (by any agent)"),
        Some(actor) => {
            let _ = write!(out, " (by {})", plain::line(actor));
        }
        None => {}
    }
    if !groups.is_empty() {
        let _ = write!(out, " of {}", plain::line(&groups.join(", ")));
    }
    for (name, value) in claims {
        let _ = write!(out, " with {} {}", plain::line(name), plain::line(&value.to_string()));
    }
    if *kind == PrincipalKind::Workload {
        out.push_str(" (a workload)");
    }
    out
}
