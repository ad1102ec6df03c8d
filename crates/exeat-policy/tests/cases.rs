//! Walks `tests/cases`: one plain file per case, sections beginning with `-- name`.
//!
//! `decide/`: `-- policy` once, then `-- principal`, `-- request`, `-- expect` as often as wanted; a principal stays
//! until the next one. A request is one line: `TARGET ACCESS; ACCESS…` with accesses like `read public.customers`,
//! `read` (of no relation), `session`, `metadata`, `nothing`; or `TARGET mask SCHEMA.TABLE LABEL LABEL…`; or
//! `TARGET facts`; or `TARGET approver RULE…`. `load/`: `-- policy` and the diagnostics it gives. `ruling/`: a
//! request is
//! `TARGET KIND SCHEMA.TABLE FLAG…; SCHEMA.TABLE FLAG… | covered RULE…` with the flags `labelled`, `unbounded`, `limit=N`,
//! `copied`, `copied=N`, `whole`, `star`; instead of relations a capability may stand; `| past MEASURE N` asks what is asked for then.
//! EXEAT_REWRITE_CASES=1 writes what was found into the files, for a human to read the diff.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use exeat_policy::{
    Access, AccessRequest, Capability, Effect, Mask, Nulls, Policy, PolicyContext, Preset, Principal, Reason,
    RelationName,
};

const ISSUER: &str = "https://idp.example.com";

#[test]
fn decisions_are_as_written_down() {
    check_folder("decide", decide);
}

#[test]
fn mistakes_are_reported_as_written_down() {
    check_folder("load", load);
}

#[test]
fn rulings_are_as_written_down() {
    check_folder("ruling", |sections| decide_with(sections, ruling::ask));
}

#[path = "cases/ruling.rs"]
mod ruling;

/// How a question to a policy is answered.
type Ask = fn(&Policy, &Principal, &str) -> String;

/// The answer to each `expect` section of a case, in order.
type Answer = fn(&[Section]) -> Vec<String>;

struct Section {
    name: String,
    body: String,
}

fn check_folder(folder: &str, answer: Answer) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 2, "no cases in {}", root.display());
    let failures: Vec<String> = files.iter().filter_map(|file| check_file(file, answer)).collect();
    assert!(failures.is_empty(), "{} case(s) differ:\n{}", failures.len(), failures.join("\n"));
}

fn check_file(file: &Path, answer: Answer) -> Option<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut sections = split(&text);
    let answers = answer(&sections);
    let expects = sections.iter_mut().filter(|section| section.name == "expect");
    let mut differences = String::new();
    let mut seen = 0;
    for (index, (section, found)) in expects.zip(&answers).enumerate() {
        seen += 1;
        if section.body.trim_end() != found.trim_end() {
            differences +=
                &format!("{} expect {}:\nexpected:\n{}\nfound:\n{found}\n", file.display(), index + 1, section.body);
            section.body = format!("{}\n\n", found.trim_end());
        }
    }
    assert_eq!(seen, answers.len(), "{}: sections and answers do not pair up", file.display());
    assert!(seen > 0, "{}: expects nothing", file.display());
    if differences.is_empty() {
        return None;
    }
    if std::env::var_os("EXEAT_REWRITE_CASES").is_some() {
        let rewritten: String =
            sections.iter().map(|section| format!("-- {}\n{}", section.name, section.body)).collect();
        std::fs::write(file, format!("{}\n", rewritten.trim_end())).unwrap();
    }
    Some(differences)
}

fn split(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("-- ") {
            Some(name) => sections.push(Section { name: name.to_owned(), body: String::new() }),
            None => {
                let section = sections.last_mut().expect("a case begins with a section");
                section.body += line;
                section.body.push('\n');
            }
        }
    }
    sections
}

fn context() -> PolicyContext {
    let targets = ["shop", "crm", "shop2"].map(str::to_owned).to_vec();
    PolicyContext { default_issuer: Some(ISSUER.to_owned()), targets: Some(targets) }
}

fn load(sections: &[Section]) -> Vec<String> {
    let policies = sections.iter().filter(|section| section.name == "policy");
    policies
        .map(|section| match Policy::load(&[("policy.yaml".to_owned(), section.body.clone())], &context()) {
            Ok(policy) if policy.warnings().is_empty() => "loads".to_owned(),
            Ok(policy) => format!("loads with\n{}", policy.warnings()),
            Err(diags) => diags.to_string(),
        })
        .collect()
}

fn decide(sections: &[Section]) -> Vec<String> {
    decide_with(sections, ask)
}

fn decide_with(sections: &[Section], ask: Ask) -> Vec<String> {
    let mut policy = None;
    let mut principal = None;
    let mut answers = Vec::new();
    for section in sections {
        match section.name.as_str() {
            "policy" => {
                let files = [("policy.yaml".to_owned(), section.body.clone())];
                policy = Some(Policy::load(&files, &context()).unwrap_or_else(|diags| panic!("{diags}")));
            }
            "principal" => principal = Some(parse_principal(&section.body)),
            "request" => {
                let (policy, principal) = (policy.as_ref().unwrap(), principal.as_ref().unwrap());
                answers.push(ask(policy, principal, section.body.trim()));
            }
            "expect" => {}
            other => panic!("unknown section `{other}`"),
        }
    }
    answers
}

/// The shape of a principal is the one of in-file tests.
fn parse_principal(body: &str) -> Principal {
    let test = format!(
        "version: 1\ntests:\n  - as: {}\n    target: shop\n    statement: x\n    expect: {{decision: allow}}\n",
        body.trim()
    );
    let policy = Policy::load(&[("principal".to_owned(), test)], &context()).unwrap_or_else(|diags| panic!("{diags}"));
    let mut principal = policy.tests()[0].principal.clone();
    if let Some(actor) = &principal.actor {
        principal.claims.entry("act").or_insert_with(|| serde_json::json!({ "sub": actor }));
    }
    principal
}

fn ask(policy: &Policy, principal: &Principal, request: &str) -> String {
    let (target, what) = request.split_once(' ').unwrap();
    let words: Vec<&str> = what.split_whitespace().collect();
    match words.as_slice() {
        ["facts"] => facts(policy, principal, target),
        ["mask", relation, labels @ ..] => {
            let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            match policy.column_mask(principal, target, &relation_name(relation), &labels) {
                None => "clear".to_owned(),
                Some(mask) => {
                    let nulls = if mask.nulls == Nulls::Hide { " nulls hidden" } else { "" };
                    format!("{}{nulls} as {} by {}", describe_mask(mask.mask), mask.label, mask.rule)
                }
            }
        }
        _ => describe_decision(policy, principal, target, what),
    }
}

fn facts(policy: &Policy, principal: &Principal, target: &str) -> String {
    let facts = [
        ("known", policy.knows(principal, target)),
        ("writes", policy.grants_write(principal, target)),
        ("masked", policy.masks_any(principal, target)),
        ("unrestricted", policy.unrestricted(principal, target)),
    ];
    let held: Vec<&str> = facts.iter().filter(|(_, holds)| *holds).map(|(name, _)| *name).collect();
    if held.is_empty() { "nothing".to_owned() } else { held.join(" ") }
}

fn describe_mask(mask: Mask) -> String {
    match mask {
        Mask::Partial { first, last } => format!("partial {first}/{last}"),
        Mask::Generalize(how) => format!("generalize {:?} {:?} {}/{}", how.to, how.bucket, how.ipv4, how.ipv6),
        Mask::Token | Mask::Hash | Mask::Redact | Mask::Nullify | Mask::Refuse => mask.name().to_owned(),
    }
}

fn describe_decision(policy: &Policy, principal: &Principal, target: &str, what: &str) -> String {
    let mut request = AccessRequest { principal, target, accesses: Vec::new(), presets: Vec::new() };
    for part in what.split(';') {
        let words: Vec<&str> = part.split_whitespace().collect();
        match words.as_slice() {
            ["nothing"] => {}
            ["session"] => request.presets.push(Preset::Session),
            ["metadata"] => request.presets.push(Preset::Metadata),
            [capability] => request.accesses.push(Access { capability: named(capability), relation: None }),
            [capability, relation] => {
                let relation = Some(relation_name(relation));
                request.accesses.push(Access { capability: named(capability), relation });
            }
            other => panic!("cannot read access {other:?}"),
        }
    }
    let decision = policy.decide(&request);
    let reasons: Vec<String> = decision.reasons.iter().map(describe_reason).collect();
    let effect = match decision.effect {
        Effect::Permit => "permit",
        Effect::Deny => "deny",
    };
    format!("{effect} [{}]\n{}", decision.rules.join(" "), reasons.join("\n"))
}

fn named(name: &str) -> Capability {
    *Capability::ALL.iter().find(|capability| capability.name() == name).expect("a capability")
}

fn relation_name(text: &str) -> RelationName {
    let (schema, name) = text.split_once('.').expect("schema.table");
    RelationName { schema: schema.to_owned(), name: name.to_owned() }
}

fn describe_reason(reason: &Reason) -> String {
    let access = |access: &Access| match &access.relation {
        Some(relation) => format!("{} {}.{}", access.capability.name(), relation.schema, relation.name),
        None => access.capability.name().to_owned(),
    };
    match reason {
        Reason::Allowed { rule } => format!("allowed by {rule}"),
        Reason::Denied { rule, text, access: denied, hidden: _ } => {
            format!("denied by {rule}: {} ({})", access(denied), text.as_deref().unwrap_or("no reason given"))
        }
        Reason::NoRule => "no rule".to_owned(),
        Reason::CapabilityMissing { access: missing } => format!("missing: {}", access(missing)),
    }
}
