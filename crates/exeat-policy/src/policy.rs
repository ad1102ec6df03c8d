//! The loaded policy and every question put to it. Default deny; deny beats allow; of several masks the strictest
//! wins; the order of rules never changes an answer, only which of two equal rules is named (the first written).
//! Pure: same policy, same question, same answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::decision::{Access, AccessRequest, Capability, Decision, Effect, Reason, RelationName};
use crate::detector::Detector;
use crate::document::Diagnostics;
use crate::label::{Label, UNCLASSIFIED};
use crate::limit::{AppliedLimit, ProbeLimit};
use crate::mask::{ColumnMask, Mask};
use crate::principal::Principal;
use crate::rule::Rule;
use crate::selftest::PolicyTest;

/// What the policy is read against: facts of the configuration beside it.
#[derive(Debug, Clone, Default)]
pub struct PolicyContext {
    /// The first issuer of the configuration: allows without `issuers:` count for its tokens only. `None` (a policy
    /// checked without a configuration) makes them count for nobody but the principals of in-file tests.
    pub default_issuer: Option<String>,
    /// Names of the configured targets; rules for others are mistakes. `None`: not known, not checked.
    pub targets: Option<Vec<String>>,
}

/// All rules, labels and in-file tests of a set of policy files, checked. Made by [`Policy::load`] only.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) rules: Vec<Rule>,
    pub(crate) labels: BTreeMap<String, Vec<Label>>,
    pub(crate) tests: Vec<PolicyTest>,
    pub(crate) default_issuer: String,
    pub(crate) warnings: Diagnostics,
}

impl Policy {
    /// May this be done?
    pub fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let denials = self.denials(request, Rule::forbids);
        if !denials.is_empty() {
            return decision(Effect::Deny, denials);
        }
        let allows: Vec<(&Rule, &[Capability])> = self.allows(request.principal, request.target).collect();
        if allows.is_empty() {
            return decision(Effect::Deny, vec![Reason::NoRule]);
        }
        let mut used = BTreeSet::new();
        let mut missing = Vec::new();
        for access in &request.accesses {
            let granting = allows
                .iter()
                .position(|(rule, capabilities)| capabilities.contains(&access.capability) && rule.covers(access));
            match granting {
                Some(index) => {
                    used.insert(index);
                }
                None => missing.push(Reason::CapabilityMissing { access: access.clone() }),
            }
        }
        if !missing.is_empty() {
            return decision(Effect::Deny, missing);
        }
        // Last, so that whoever lacks the capability is told that, not of a rule about relations never named.
        let unseen = self.denials(request, Rule::may_forbid);
        if !unseen.is_empty() {
            return decision(Effect::Deny, unseen);
        }
        if request.accesses.is_empty() {
            // Presets and the empty statement come with any allow.
            used.insert(0);
        }
        let named = |index: usize| allows.get(index).map(|(rule, _)| Reason::Allowed { rule: rule.id.clone() });
        decision(Effect::Permit, used.into_iter().filter_map(named).collect())
    }

    /// How a column with these labels is masked: the strictest mask any rule gives any of them.
    pub fn column_mask(
        &self,
        principal: &Principal,
        target: &str,
        relation: &RelationName,
        labels: &[String],
    ) -> Option<ColumnMask> {
        let mut strictest: Option<ColumnMask> = None;
        for rule in self.rules.iter().filter(|rule| rule.covers_relation(relation)) {
            let masks = rule.masks(principal, target, &self.default_issuer);
            for entry in masks.iter().filter(|entry| labels.contains(&entry.label)) {
                let found = strictest.take();
                // Of two that refuse, one that hides says more.
                let hides = rule.hide && entry.mask == Mask::Refuse;
                let stricter = found.as_ref().is_none_or(|found| entry.mask > found.mask || hides);
                let own = (entry.mask, entry.nulls, entry.lookup);
                let (mask, nulls, lookup) = found.as_ref().map_or(own, |found| {
                    (entry.mask.and(found.mask), entry.nulls.max(found.nulls), entry.lookup.max(found.lookup))
                });
                let named = found.filter(|_| !stricter);
                let (label, rule) =
                    named.map_or_else(|| (entry.label.clone(), rule.id.clone()), |found| (found.label, found.rule));
                strictest = Some(ColumnMask { label, mask, nulls, lookup, rule });
            }
        }
        strictest
    }

    /// Is the relation to be taken for one that does not exist?
    pub fn hides(&self, principal: &Principal, target: &str, relation: &RelationName) -> bool {
        self.rules.iter().any(|rule| rule.hides(principal, target, relation, &self.default_issuer))
    }

    /// Is the column with this mask to be taken for one that does not exist?
    pub fn hides_column(&self, mask: &ColumnMask) -> bool {
        mask.mask == Mask::Refuse && self.rules.iter().any(|rule| rule.hide && rule.id == mask.rule)
    }

    /// How many values of sealed columns of a relation the principal may try.
    pub fn probe_limit(&self, principal: &Principal, target: &str, relation: &RelationName) -> AppliedLimit {
        let rules = self.rules.iter().filter(|rule| rule.covers_relation(relation));
        let limit = |rule: &Rule| rule.limits(principal, target, &self.default_issuer)?.probe_limit();
        let limits = rules.filter_map(|rule| Some((rule, limit(rule)?)));
        let mut applied: Option<AppliedLimit> = None;
        for (rule, limit) in limits {
            let named = || Some(rule.id.clone());
            applied = Some(match applied {
                None => AppliedLimit { limit, rule: named() },
                Some(known) => {
                    let rule = if limit.probes < known.limit.probes { named() } else { known.rule };
                    AppliedLimit { limit: known.limit.and(limit), rule }
                }
            });
        }
        applied.unwrap_or(AppliedLimit { limit: ProbeLimit::DEFAULT, rule: None })
    }

    /// The labels of a target.
    pub fn labels(&self, target: &str) -> &[Label] {
        self.labels.get(target).map_or(&[], Vec::as_slice)
    }

    /// Is some label of the target masked for the principal?
    pub fn masks_any(&self, principal: &Principal, target: &str) -> bool {
        let labels = self.labels(target);
        self.rules.iter().any(|rule| {
            rule.masks(principal, target, &self.default_issuer)
                .iter()
                .any(|entry| labels.iter().any(|label| entry.label == label.name() || entry.label == UNCLASSIFIED))
        })
    }

    /// What is looked for in columns that no mask covers.
    pub fn detectors(&self, principal: &Principal, target: &str) -> BTreeSet<Detector> {
        self.rules.iter().flat_map(|rule| rule.detects(principal, target, &self.default_issuer)).copied().collect()
    }

    /// May the session be passed through: everything allowed on every relation, nothing masked, denied, held or counted?
    pub fn unrestricted(&self, principal: &Principal, target: &str) -> bool {
        let everywhere: BTreeSet<Capability> = self
            .allows(principal, target)
            .filter(|(rule, _)| rule.relations.is_none())
            .flat_map(|(_, capabilities)| capabilities.iter().copied())
            .collect();
        let denied = self.rules.iter().any(|rule| rule.denies(principal, target, &self.default_issuer));
        let everything = Capability::ALL.iter().all(|capability| everywhere.contains(capability));
        let looked_at = !self.detectors(principal, target).is_empty() || self.restricts_shape(principal, target);
        let counted = self.holds_or_limits(principal, target);
        everything && !denied && !looked_at && !counted && !self.masks_any(principal, target)
    }

    /// Does any rule allow the principal anything at the target?
    pub fn knows(&self, principal: &Principal, target: &str) -> bool {
        self.allows(principal, target).next().is_some()
    }

    /// May the principal change anything at the target? If not, the login can be read-only.
    pub fn grants_write(&self, principal: &Principal, target: &str) -> bool {
        self.capabilities(principal, target).into_iter().any(Capability::writes)
    }

    /// Everything allowed somewhere at the target, for "what would be allowed instead".
    pub fn capabilities(&self, principal: &Principal, target: &str) -> BTreeSet<Capability> {
        self.allows(principal, target).flat_map(|(_, capabilities)| capabilities.iter().copied()).collect()
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The in-file tests, in file order. Running them needs SQL analysis and is done elsewhere.
    pub fn tests(&self) -> &[PolicyTest] {
        &self.tests
    }

    /// What is allowed but probably not meant.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    fn allows<'a>(
        &'a self,
        principal: &'a Principal,
        target: &'a str,
    ) -> impl Iterator<Item = (&'a Rule, &'a [Capability])> {
        self.rules.iter().filter_map(move |rule| Some((rule, rule.allows(principal, target, &self.default_issuer)?)))
    }

    /// One reason per deny rule and access it forbids. A deny of a whole target forbids presets too.
    fn denials(&self, request: &AccessRequest<'_>, forbids: fn(&Rule, &Access) -> bool) -> Vec<Reason> {
        let anything = Access { capability: Capability::Read, relation: None };
        let accesses = if request.accesses.is_empty() { std::slice::from_ref(&anything) } else { &request.accesses };
        let mut reasons = Vec::new();
        for rule in &self.rules {
            if !rule.denies(request.principal, request.target, &self.default_issuer) {
                continue;
            }
            reasons.extend(accesses.iter().filter(|access| forbids(rule, access)).map(|access| Reason::Denied {
                rule: rule.id.clone(),
                text: rule.reason().map(str::to_owned),
                access: access.clone(),
                hidden: rule.hide,
            }));
        }
        reasons
    }
}

fn decision(effect: Effect, reasons: Vec<Reason>) -> Decision {
    let mut rules: Vec<String> = Vec::new();
    for reason in &reasons {
        match reason {
            Reason::Allowed { rule } | Reason::Denied { rule, .. } => {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            Reason::NoRule | Reason::CapabilityMissing { .. } => {}
        }
    }
    Decision { effect, rules, reasons }
}
