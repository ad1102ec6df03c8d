//! The policy as a whole: the shipped example, folders of files, and small spaces enumerated against the sentences of
//! the contract.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use exeat_policy::document::Diagnostics;
use exeat_policy::{
    Access, AccessRequest, Capability, Effect, Expectation, Mask, Policy, PolicyContext, Principal, PrincipalKind,
    Reason, RelationName,
};

const ISSUER: &str = "https://idp.example.com";

fn load(texts: &[&str]) -> Result<Policy, Diagnostics> {
    let files: Vec<(String, String)> =
        texts.iter().enumerate().map(|(index, text)| (format!("{index}.yaml"), (*text).to_owned())).collect();
    Policy::load(&files, &PolicyContext { default_issuer: Some(ISSUER.to_owned()), targets: None })
}

fn principal(subject: &str, groups: &[&str], actor: Option<&str>) -> Principal {
    Principal {
        issuer: ISSUER.to_owned(),
        subject: subject.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        claims: serde_json::Map::new(),
        actor: actor.map(str::to_owned),
        kind: PrincipalKind::Human,
        token_id: None,
        instance: BTreeMap::new(),
    }
}

fn relation(name: &str) -> RelationName {
    RelationName { schema: "public".to_owned(), name: name.to_owned() }
}

fn reads(policy: &Policy, principal: &Principal, name: &str) -> Effect {
    let accesses = vec![Access { capability: Capability::Read, relation: Some(relation(name)) }];
    policy.decide(&AccessRequest { principal, target: "shop", accesses, presets: Vec::new() }).effect
}

#[test]
fn the_shipped_example_loads_and_does_what_it_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/policy.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let policy = load(&[&text]).unwrap_or_else(|diags| panic!("{diags}"));
    assert!(policy.warnings().is_empty(), "{}", policy.warnings());
    let agent = principal("agent-7", &["agents"], None);
    let officer = principal("dana", &["dpo"], None);
    let through_agent = principal("dana", &["dpo"], Some("agent-7"));
    let ssn = |who: &Principal| {
        policy.column_mask(who, "shop", &relation("customers"), &["ssn".to_owned()]).map(|found| found.mask)
    };
    assert_eq!(ssn(&agent), Some(Mask::Partial { first: 0, last: 4 }));
    assert_eq!(ssn(&officer), None);
    assert_eq!(ssn(&through_agent), Some(Mask::Partial { first: 0, last: 4 }));
    assert_eq!(reads(&policy, &agent, "customers"), Effect::Permit);
    assert_eq!(reads(&policy, &officer, "customers"), Effect::Permit);
    assert_eq!(reads(&policy, &through_agent, "customers"), Effect::Deny);
    assert_eq!(reads(&policy, &principal("eve", &[], None), "customers"), Effect::Deny);
    let labels: Vec<&str> =
        policy.labels("shop").iter().filter(|l| l.matches("public", "customers", "ssn")).map(|l| l.name()).collect();
    assert_eq!(labels, ["ssn"]);
    assert!(policy.labels("other").is_empty());
    let masked = Some(BTreeMap::from([("x".to_owned(), "ssn".to_owned())]));
    assert_eq!(policy.tests()[0].expect, Expectation::Allow { masked, lineage: BTreeMap::new() });
    assert_eq!(policy.tests()[0].principal.issuer, ISSUER);
}

#[test]
fn files_of_a_folder_are_one_policy() {
    let labels = "version: 1\nlabels:\n  shop: {ssn: [\"public.customers.ssn\"]}\n";
    let rules = "version: 1\nrules:\n  - id: m\n    target: shop\n    mask: {ssn: {with: redact}}\n  - id: r\n    allow: [read]\n";
    for files in [[labels, rules], [rules, labels]] {
        let policy = load(&files).unwrap_or_else(|diags| panic!("{diags}"));
        assert!(policy.masks_any(&principal("a", &[], None), "shop"));
    }
    assert!(load(&[rules]).is_err(), "the label is in the other file");
}

#[test]
fn duplicates_and_mistakes_of_all_files_are_reported_together() {
    let first = "version: 1\nlabels:\n  shop: {ssn: [\"a.b.c\"]}\nrules:\n  - id: r\n    allow: [read]\n";
    let second = "version: 1\nlabels:\n  shop: {ssn: [\"a.b.d\"]}\nrules:\n  - id: r\n    alow: [read]\n";
    let third = "rules: [";
    let diags = load(&[first, second, third]).unwrap_err();
    let messages: Vec<&str> = diags.iter().map(|item| item.message.as_str()).collect();
    let expected = [
        "label `ssn` is already defined at 0.yaml:3:10",
        "the rule does nothing",
        "rule id `r` is already used at 0.yaml:5:9",
        "unknown key `alow` in an item of `rules`",
        "not YAML: unclosed bracket '['",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn no_file_at_all_is_refused() {
    assert!(load(&[]).unwrap_err().to_string().contains("there is no policy file"));
    let policy = load(&["version: 1"]).unwrap();
    assert_eq!(reads(&policy, &principal("a", &["agents"], None), "customers"), Effect::Deny);
}

#[test]
fn too_many_rules_are_refused() {
    let rules = |count: usize| -> String {
        let body: String = (0..count).map(|n| format!("  - {{id: r{n}, allow: [read]}}\n")).collect();
        format!("version: 1\nrules:\n{body}")
    };
    assert!(load(&[&rules(1000)]).is_ok());
    assert!(load(&[&rules(1001)]).unwrap_err().to_string().contains("1001 rules exceed the limit of 1000"));
}

#[test]
fn without_a_default_issuer_no_token_is_granted_anything() {
    let files = [("p.yaml".to_owned(), "version: 1\nrules:\n  - id: all\n    allow: [all]\n".to_owned())];
    let policy = Policy::load(&files, &PolicyContext::default()).unwrap();
    assert!(!policy.knows(&principal("a", &[], None), "shop"));
    let unverified = Principal { issuer: String::new(), ..principal("a", &[], None) };
    assert!(policy.knows(&unverified, "shop"), "in-file tests have no issuer");
}

/// deny × allow × relation covered: deny beats allow, nothing is allowed by silence.
#[test]
fn effects_enumerated() {
    let rule = |id: &str, effect: &str, relations: Option<&str>| match relations {
        None => format!("  - {{id: {id}, {effect}}}\n"),
        Some(pattern) => format!("  - {{id: {id}, {effect}, relations: [\"{pattern}\"]}}\n"),
    };
    let scopes = [None, Some("public.customers"), Some("*.*"), Some("hr.*")];
    let covers = |scope: Option<&str>| scope != Some("hr.*");
    let denies = std::iter::once(None).chain(scopes.iter().map(|scope| Some(*scope)));
    for deny in denies {
        for allow in std::iter::once(None).chain(scopes.iter().map(|scope| Some(*scope))) {
            for deny_first in [true, false] {
                let denying = deny.map(|scope| rule("d", "deny: true", scope)).unwrap_or_default();
                let allowing = allow.map(|scope| rule("a", "allow: [read]", scope)).unwrap_or_default();
                let body = if deny_first { denying + &allowing } else { allowing + &denying };
                let policy =
                    load(&[&format!("version: 1\nrules:\n{body}  - {{id: z, target: none, allow: [read]}}\n")]);
                let denied = deny.is_some_and(covers);
                let allowed = allow.is_some_and(covers);
                let expected = if allowed && !denied { Effect::Permit } else { Effect::Deny };
                let found = reads(&policy.unwrap(), &principal("a", &[], None), "customers");
                assert_eq!(found, expected, "deny {deny:?}, allow {allow:?}, deny first {deny_first}");
            }
        }
    }
}

/// Every capability: allowed alone it permits itself and nothing else; `all` permits each.
#[test]
fn capabilities_enumerated() {
    let who = principal("a", &[], None);
    for granted in Capability::ALL {
        let policy = load(&[&format!("version: 1\nrules:\n  - {{id: r, allow: [{}]}}\n", granted.name())]).unwrap();
        let all = load(&["version: 1\nrules:\n  - {id: r, allow: [all]}\n"]).unwrap();
        for asked in Capability::ALL {
            for relation in [None, Some(relation("customers"))] {
                let accesses = vec![Access { capability: *asked, relation }];
                let request =
                    AccessRequest { principal: &who, target: "t", accesses: accesses.clone(), presets: Vec::new() };
                let decision = policy.decide(&request);
                if asked == granted {
                    assert_eq!(decision.reasons, [Reason::Allowed { rule: "r".to_owned() }]);
                } else {
                    assert_eq!(decision.reasons, [Reason::CapabilityMissing { access: accesses[0].clone() }]);
                }
                assert_eq!(decision.effect == Effect::Permit, asked == granted);
                assert_eq!(all.decide(&request).effect, Effect::Permit);
            }
        }
        assert_eq!(policy.grants_write(&who, "t"), granted.writes());
        assert!(!policy.unrestricted(&who, "t"));
        assert!(all.unrestricted(&who, "t"));
    }
}

/// The delegation row of the contract, for one condition on groups: human in the group or not, agent absent, other or
/// the named one, rule naming the agent, any agent or none.
#[test]
fn delegation_enumerated() {
    for (actors, named) in [("", None), (", actors: [agent-7]", Some("agent-7")), (", actors: [\"*\"]", Some("*"))] {
        let allow =
            load(&[&format!("version: 1\nrules:\n  - {{id: r, who: {{groups: [g]{actors}}}, allow: [read]}}\n")]);
        let deny = load(&[&format!(
            "version: 1\nrules:\n  - {{id: all, allow: [read]}}\n  - {{id: r, who: {{groups: [g]{actors}}}, deny: true}}\n"
        )]);
        let (allow, deny) = (allow.unwrap(), deny.unwrap());
        for member in [true, false] {
            for actor in [None, Some("agent-7"), Some("agent-8")] {
                let who = principal("h", if member { &["g"] } else { &[] }, actor);
                let acting = match (named, actor) {
                    (None, None) => true,
                    (None, Some(_)) | (Some(_), None) => false,
                    (Some(name), Some(actor)) => name == "*" || name == actor,
                };
                let allowed = reads(&allow, &who, "t") == Effect::Permit;
                assert_eq!(allowed, member && acting, "allow{actors}, member {member}, actor {actor:?}");
                // A deny without `actors` holds for the human through any agent.
                let meant = named.is_none() || acting;
                let denied = reads(&deny, &who, "t") == Effect::Deny;
                assert_eq!(denied, member && meant, "deny{actors}, member {member}, actor {actor:?}");
            }
        }
    }
}

#[test]
fn strictness_is_a_total_order_that_keeps_less() {
    let ordered = [
        Mask::Partial { first: 6, last: 4 },
        Mask::Partial { first: 4, last: 4 },
        Mask::Partial { first: 4, last: 0 },
        Mask::Partial { first: 0, last: 4 },
        Mask::Partial { first: 0, last: 1 },
        Mask::Redact,
        Mask::Nullify,
        Mask::Refuse,
    ];
    for (i, weaker) in ordered.iter().enumerate() {
        for (j, stricter) in ordered.iter().enumerate() {
            assert_eq!(weaker.cmp(stricter), i.cmp(&j), "{weaker:?} {stricter:?}");
        }
    }
}
