//! What can only be judged with all files read: ids, names of targets and labels, rules that can never act, and
//! grants that reach around a mask. Errors where the policy would enforce less than its author reads in it,
//! warnings where it does what it says and that is probably not meant.

use std::collections::BTreeMap;

use crate::decision::Capability;
use crate::document::{Diagnostics, Span, closest};
use crate::label::{Label, UNCLASSIFIED};
use crate::load::{Draft, MaskMention, POLICY_RULES_MAX};
use crate::policy::Policy;
use crate::rule::{Effects, LabelMask, Rule};
use crate::selftest;
use crate::who::Who;

pub(crate) fn check(draft: &Draft<'_>, diags: &mut Diagnostics) {
    let policy = &draft.policy;
    if let Some((_, place)) = draft.ids.get(POLICY_RULES_MAX) {
        diags.error(place, format!("{} rules exceed the limit of {POLICY_RULES_MAX}", draft.ids.len()));
        return;
    }
    check_ids(&draft.ids, diags);
    for rule in &policy.rules {
        check_reachable(rule, diags);
        check_holds(rule, &policy.labels, diags);
    }
    for mention in &draft.masks {
        check_masks(mention, &policy.labels, diags);
    }
    for test in &policy.tests {
        selftest::check(test, &policy.labels, diags);
    }
}

/// Warnings about a policy that has no errors.
pub(crate) fn warn(policy: &Policy) -> Diagnostics {
    let mut warnings = Diagnostics::new();
    for rule in &policy.rules {
        warn_around_masks(rule, policy, &mut warnings);
    }
    for (target, label) in
        policy.labels.iter().flat_map(|(target, labels)| labels.iter().map(move |label| (target, label)))
    {
        let used =
            policy.rules.iter().any(|rule| rule.is_for(target) && masks(rule).iter().any(|m| m.label == label.name));
        if !used {
            warnings.warning(&label.place, format!("label `{}` of target `{target}` is masked for nobody", label.name));
        }
    }
    warnings
}

fn masks(rule: &Rule) -> &[LabelMask] {
    match &rule.effects {
        Effects::Grant { masks, .. } => masks,
        Effects::Deny { .. } => &[],
    }
}

fn check_ids(ids: &[(String, Span)], diags: &mut Diagnostics) {
    let mut seen: BTreeMap<&str, &Span> = BTreeMap::new();
    for (id, place) in ids {
        if let Some(first) = seen.get(id.as_str()) {
            diags
                .error(place, format!("rule id `{id}` is already used at {first}"))
                .help("ids stand in refusals and records: give each rule its own");
        } else {
            seen.insert(id, place);
        }
    }
}

/// A rule whose every group or subject is excepted again says something its author did not mean.
fn check_reachable(rule: &Rule, diags: &mut Diagnostics) {
    let Some(Who { conditions, except: Some(except) }) = &rule.who else { return };
    if except.issuers.is_some() || except.actors.is_some() || except.kind.is_some() || !except.claims.is_empty() {
        return;
    }
    let swallowed = match (&except.groups, &except.subjects) {
        (Some(excepted), None) => contains_all(excepted, conditions.groups.as_deref()),
        (None, Some(excepted)) => contains_all(excepted, conditions.subjects.as_deref()),
        (Some(_), Some(_)) | (None, None) => false,
    };
    if swallowed {
        diags.error(&rule.place, format!("rule `{}` can never match: `except` takes out everyone it names", rule.id));
    }
}

fn contains_all(excepted: &[String], named: Option<&[String]>) -> bool {
    named.is_some_and(|named| named.iter().all(|name| excepted.contains(name)))
}

/// What holds or counts is about relations that are named or carry a label; where there are neither it does nothing.
fn check_holds(rule: &Rule, labels: &BTreeMap<String, Vec<Label>>, diags: &mut Diagnostics) {
    let labelled = labels.iter().any(|(target, labels)| rule.is_for(target) && !labels.is_empty());
    if rule.hold().is_some() && rule.relations.is_none() && !labelled {
        diags
            .error(
                &rule.place,
                format!("the hold of rule `{}` never acts: no relation of its targets has a label", rule.id),
            )
            .help("name the relations it is about with `relations`");
    }
}

fn check_masks(mention: &MaskMention, labels: &BTreeMap<String, Vec<Label>>, diags: &mut Diagnostics) {
    let is_for = |target: &String| mention.targets.as_ref().is_none_or(|targets| targets.contains(target));
    let known: Vec<&Label> =
        labels.iter().filter(|(target, _)| is_for(target)).flat_map(|(_, labels)| labels).collect();
    for entry in &mention.masks {
        // No column carries it by name, and any may come to carry it.
        if entry.label == UNCLASSIFIED && !known.is_empty() {
            continue;
        }
        let mut named = known.iter().filter(|label| label.name == entry.label).peekable();
        if named.peek().is_none() {
            let help = match closest(&entry.label, known.iter().map(|label| label.name.as_str())) {
                Some(close) => format!("did you mean `{close}`?"),
                None => "define it under `labels` for a target of this rule".to_owned(),
            };
            let message = format!("there is no label `{}` at the targets of this rule", entry.label);
            diags.error(&entry.place, message).help(help);
            continue;
        }
        let Some(relations) = &mention.relations else { continue };
        let acts = named
            .flat_map(|label| &label.patterns)
            .any(|pattern| relations.iter().any(|relation| relation.overlaps(pattern.relation())));
        if !acts {
            let message = format!("the mask of label `{}` never acts: no column of it is in `relations`", entry.label);
            diags.error(&entry.place, message);
        }
    }
}

/// Capabilities given by name only reach data past the masks; given to someone with masks they deserve a look.
fn warn_around_masks(rule: &Rule, policy: &Policy, warnings: &mut Diagnostics) {
    let Effects::Grant { allow, .. } = &rule.effects else { return };
    let around: Vec<&str> =
        allow.iter().filter(|capability| capability.by_name_only()).copied().map(Capability::name).collect();
    if around.is_empty() {
        return;
    }
    let masking = policy.rules.iter().find(|other| {
        let shared = policy.labels.keys().any(|target| rule.is_for(target) && other.is_for(target));
        shared && !masks(other).is_empty() && may_be_same(rule.who.as_ref(), other.who.as_ref())
    });
    if let Some(masking) = masking {
        let message = format!(
            "rule `{}` allows {} to principals that rule `{}` gives masks: these reach data past a mask",
            rule.id,
            around.join(", "),
            masking.id
        );
        warnings.warning(&rule.place, message).help("except the principals from the mask, or name fewer capabilities");
    }
}

/// Do an allow and a mask speak of the same principals, as far as their words tell?
fn may_be_same(allow: Option<&Who>, mask: Option<&Who>) -> bool {
    let Some(mask) = mask else { return true };
    let allowed = allow.map(|who| &who.conditions);
    if let (Some(except), Some(allowed)) = (&mask.except, allowed) {
        let by_group = except.groups.as_ref().is_some_and(|e| contains_all(e, allowed.groups.as_deref()));
        let by_subject = except.subjects.as_ref().is_some_and(|e| contains_all(e, allowed.subjects.as_deref()));
        if by_group || by_subject {
            return false;
        }
    }
    let apart = |a: Option<&Vec<String>>, b: Option<&Vec<String>>| match (a, b) {
        (Some(a), Some(b)) => !a.iter().any(|name| b.contains(name)),
        (Some(_) | None, Some(_) | None) => false,
    };
    let groups = apart(allowed.and_then(|a| a.groups.as_ref()), mask.conditions.groups.as_ref());
    let subjects = apart(allowed.and_then(|a| a.subjects.as_ref()), mask.conditions.subjects.as_ref());
    let issuers = apart(allowed.and_then(|a| a.issuers.as_ref()), mask.conditions.issuers.as_ref());
    !(groups || subjects || issuers)
}
