//! Requests of `ruling/` cases: a line in, what becomes of the statement in words.

use std::collections::{BTreeMap, BTreeSet};

use exeat_policy::approval::{Approver, BreakGlass, Event, Progress, Standing, step};
use exeat_policy::grant::{Ask, Covered, Digest, Grant};
use exeat_policy::ledger::Budget;
use exeat_policy::ruling::{Asking, Cause, Copied, Duty, Measure, ReadShape, Touch, Verdict, WriteShape};
use exeat_policy::{
    Access, AccessRequest, Capability, Moment, Policy, Principal, PrincipalKind, Ruling, StatementFacts, StatementKind,
};

use super::{describe_reason, named, relation_name};

const NOW: Moment = Moment::from_unix_millis(0);

pub(super) fn ask(policy: &Policy, principal: &Principal, request: &str) -> String {
    let (target, what) = request.split_once(' ').unwrap();
    if let Some(rules) = what.strip_prefix("approver ") {
        return approver(policy, principal, rules);
    }
    let mut parts = what.split('|').map(str::trim);
    let (accesses, statement) = parse(parts.next().unwrap());
    let request = AccessRequest { principal, target, accesses, presets: Vec::new() };
    let mut covered = None;
    let mut past = None;
    for part in parts {
        match part.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["covered", rules @ ..] => covered = Some(cover(policy, &request, &statement, rules)),
            ["past", measure, amount] => past = Some((parse_measure(measure), amount.parse::<u64>().unwrap())),
            other => panic!("cannot read {other:?}"),
        }
    }
    let ruling = policy.rule_on(&request, &statement, covered.as_ref());
    let mut lines = describe(&ruling);
    let rules: BTreeSet<String> = match (&ruling.verdict, past) {
        (Verdict::Hold(causes), _) => causes.iter().filter_map(|cause| cause.rule.clone()).collect(),
        (Verdict::Permit, Some((measure, amount))) => {
            ruling.duties.iter().flat_map(|duty| duty.passed(measure, amount)).map(str::to_owned).collect()
        }
        (Verdict::Permit | Verdict::Deny(_), _) => BTreeSet::new(),
    };
    let asking = policy.asking(principal, &rules, &ruling.duties, NOW);
    lines.extend(asking.iter().flat_map(describe_asking));
    lines.join("\n")
}

/// What a human may do about requests of these rules.
fn approver(policy: &Policy, principal: &Principal, rules: &str) -> String {
    let demand = |rule: &str| exeat_policy::approval::Demand { rule: rule.to_owned(), quorum: 1, escalates_at: None };
    let demands: Vec<_> = rules.split_whitespace().map(demand).collect();
    let approver = match policy.approver(principal, &demands) {
        Ok(approver) => approver,
        Err(why) => return why.to_string(),
    };
    let line = |demand: &exeat_policy::approval::Demand| {
        let standing = approver.standing(demand);
        let mut words = vec![format!("{}:", demand.rule)];
        words.extend(standing.first.then(|| "first".to_owned()));
        words.extend(standing.second.then(|| "second".to_owned()));
        words.extend((standing.break_glass != BreakGlass::Refused).then(|| format!("{:?}", standing.break_glass)));
        words.join(" ")
    };
    demands.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn parse(text: &str) -> (Vec<Access>, StatementFacts) {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let kind = *StatementKind::ALL.iter().find(|known| known.name() == kind).expect("a kind of statement");
    let mut accesses = Vec::new();
    let mut touches = Vec::new();
    for part in rest.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, flags) = part.split_once(' ').unwrap_or((part, ""));
        if !name.contains('.') {
            accesses.push(Access { capability: named(name), relation: None });
            continue;
        }
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let writes = !matches!(kind, StatementKind::Select | StatementKind::CopyOut);
        let unbounded = flags.iter().find_map(|flag| match *flag {
            "unbounded" => Some(None),
            flag => flag.strip_prefix("limit=").map(|limit| Some(limit.parse().unwrap())),
        });
        touches.push(Touch {
            relation: relation_name(name),
            is_labelled: flags.contains(&"labelled"),
            read: match unbounded {
                Some(limit) => ReadShape::Unbounded { limit },
                None if writes => ReadShape::Nothing,
                None => ReadShape::Restricted,
            },
            write: match writes {
                true if flags.contains(&"whole") => WriteShape::Whole,
                true => WriteShape::Some,
                false => WriteShape::Nothing,
            },
            copied: flags.iter().fold(Copied::No, |copied, flag| match flag.strip_prefix("copied") {
                None => copied,
                Some("") => Copied::Unknown,
                Some(rows) => Copied::AtMost(rows.trim_start_matches('=').parse().unwrap()),
            }),
            takes_star: flags.contains(&"star"),
        });
        let capability = if writes { named(kind.name()) } else { Capability::Read };
        accesses.push(Access { capability, relation: Some(relation_name(name)) });
    }
    (accesses, StatementFacts { kind, touches })
}

fn parse_measure(name: &str) -> Measure {
    match name {
        "rows" => Measure::Rows,
        "bytes" => Measure::Bytes,
        "affected" => Measure::Affected,
        other => panic!("no measure {other}"),
    }
}

/// An approval of this statement by everybody whom the rules want, as wide as it may be.
fn cover(policy: &Policy, request: &AccessRequest<'_>, statement: &StatementFacts, rules: &[&str]) -> Covered {
    let rules: BTreeSet<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    let duties = policy.rule_on(request, statement, None).duties;
    let Asking { terms, .. } = policy.asking(request.principal, &rules, &duties, NOW).unwrap();
    let mut progress = Progress::START;
    for human in ["ann", "bea", "cem"] {
        let by = Principal { subject: human.to_owned(), actor: None, kind: PrincipalKind::Human, ..plain(request) };
        let standing = Standing { first: true, ..Standing::default() };
        let by = Approver::new(&by, rules.iter().map(|rule| (rule.clone(), standing)).collect()).unwrap();
        if let Ok(next) = step(&terms, &progress, Event::Approve { by, scope: terms.widest }, NOW) {
            progress = next.progress;
        }
    }
    let digest = Digest::new([0; 32]);
    let ask = Ask {
        asker: terms.asker.clone(),
        target: request.target.to_owned(),
        database: String::new(),
        role: String::new(),
        statement: digest,
        parameters: digest,
        objects: digest,
        masks: digest,
        policy: digest,
    };
    Grant::of(&terms, &progress, ask.clone()).unwrap().covers(&ask, NOW).unwrap()
}

fn plain(request: &AccessRequest<'_>) -> Principal {
    Principal { claims: serde_json::Map::new(), instance: BTreeMap::new(), ..request.principal.clone() }
}

fn describe(ruling: &Ruling) -> Vec<String> {
    let mut lines = Vec::new();
    match &ruling.verdict {
        Verdict::Permit => lines.push("permit".to_owned()),
        Verdict::Hold(causes) => lines.extend(causes.iter().map(|cause| format!("hold {}", describe_cause(cause)))),
        Verdict::Deny(causes) => {
            lines.extend(causes.iter().map(|cause| format!("deny {}", describe_cause(cause))));
            if causes.is_empty() {
                lines.extend(ruling.decision.reasons.iter().map(|reason| format!("deny {}", describe_reason(reason))));
            }
        }
    }
    lines.extend(ruling.duties.iter().flat_map(describe_duty));
    lines.extend(ruling.ceiling.map(|ceiling| format!("ceiling {ceiling:?}")));
    lines
}

fn describe_cause(cause: &Cause) -> String {
    let relation =
        cause.relation.as_ref().map_or_else(|| "any".to_owned(), |name| format!("{}.{}", name.schema, name.name));
    format!("{:?} {relation} by {}", cause.why, cause.rule.as_deref().unwrap_or("no rule"))
}

fn describe_duty(duty: &Duty) -> Vec<String> {
    let name = format!("{}.{}", duty.relation.schema, duty.relation.name);
    let thresholds = duty.thresholds.iter().map(|threshold| {
        let first = duty.threshold(threshold.measure) == Some(threshold);
        let force = if first { "" } else { ", behind another" };
        format!("{name}: past {} {:?} by {}{force}", threshold.amount, threshold.measure, threshold.rule)
    });
    let budgets = duty.budgets.iter().map(|applied| {
        let Budget { amount, window } = applied.budget;
        format!("{name}: {amount} {} in {window:?} by {}, {:?}", applied.unit.name(), applied.rule, applied.reached)
    });
    thresholds.chain(budgets).collect()
}

fn describe_asking(asking: &Asking) -> Vec<String> {
    let Asking { terms, wait, mode, sample } = asking;
    let seconds = |at: Moment| at.unix_millis() / 1000;
    let demands = terms.demands.iter().map(|demand| {
        let escalates = demand.escalates_at.map_or_else(String::new, |at| format!(", others from {}s", seconds(at)));
        format!("asks {} of {}{escalates}", demand.quorum, demand.rule)
    });
    let by = seconds(terms.decide_by);
    let shows = if *sample > 0 { format!(", shows {sample} rows") } else { String::new() };
    demands
        .chain([format!("within {by}s, waits {wait:?}, {mode:?}, at most {:?}{shows}", terms.widest.ceiling)])
        .collect()
}
