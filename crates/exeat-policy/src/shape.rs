//! What rules say of a statement's shape, whatever it reads: stars where columns are sealed, and writes that no condition
//! limits to some of a relation's rows. The strictest counts, and without a rule a relation with a label is not changed
//! as a whole.

use crate::decision::RelationName;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::rule::Rule;
use crate::who;

/// The keys `select_star`, `unbounded_writes` and `unbounded` of one rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) select_star: Option<Stance>,
    pub(crate) unbounded_writes: Option<Stance>,
    pub(crate) unbounded: Option<Stance>,
}

impl Shape {
    /// Does any of it hold?
    pub(crate) fn holds(self) -> bool {
        let Self { select_star, unbounded_writes, unbounded } = self;
        [select_star, unbounded_writes, unbounded].contains(&Some(Stance::Hold))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stance {
    Deny,
    /// A human decides; the rule's `hold` says who.
    Hold,
    Allow,
}

/// Whether a write may change every row of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WholeWrite<'a> {
    Allowed,
    /// A human decides, by this rule.
    Held {
        rule: &'a str,
    },
    /// By this rule, or because no rule speaks of it.
    Denied {
        rule: Option<&'a str>,
    },
}

impl Policy {
    /// The rule that wants the columns of a relation with sealed ones named.
    pub fn forbids_star(&self, principal: &Principal, target: &str, relation: &RelationName) -> Option<&str> {
        let mut rules = self.rules.iter().filter(|rule| rule.covers_relation(relation));
        let forbids = |rule: &&Rule| {
            rule.shape().select_star == Some(Stance::Deny) && rule.restricts(principal, target, &self.default_issuer)
        };
        rules.find(forbids).map(Rule::id)
    }

    /// May a statement change every row of the relation, which has a label or not?
    pub fn whole_write(
        &self,
        principal: &Principal,
        target: &str,
        relation: &RelationName,
        is_labelled: bool,
    ) -> WholeWrite<'_> {
        let covers = |rule: &&Rule| {
            rule.is_for(target) && rule.covers_relation(relation) && (rule.relations.is_some() || is_labelled)
        };
        let says = |rule: &&Rule, stance: Stance| {
            rule.shape().unbounded_writes == Some(stance) && rule.restricts(principal, target, &self.default_issuer)
        };
        let first = |stance| self.rules.iter().filter(covers).find(|rule| says(rule, stance));
        if let Some(rule) = first(Stance::Deny) {
            return WholeWrite::Denied { rule: Some(rule.id()) };
        }
        if let Some(rule) = first(Stance::Hold) {
            return WholeWrite::Held { rule: rule.id() };
        }
        let allows = |rule: &Rule| {
            rule.shape().unbounded_writes == Some(Stance::Allow)
                && who::grants(rule.who.as_ref(), principal, &self.default_issuer)
        };
        if !is_labelled || self.rules.iter().filter(covers).any(allows) {
            WholeWrite::Allowed
        } else {
            WholeWrite::Denied { rule: None }
        }
    }

    /// Does a rule restrict the shape of this principal's statements at the target?
    pub(crate) fn restricts_shape(&self, principal: &Principal, target: &str) -> bool {
        self.rules.iter().any(|rule| {
            let Shape { select_star, unbounded_writes, unbounded } = rule.shape();
            let stances = [select_star, unbounded_writes, unbounded];
            let restricts = stances.contains(&Some(Stance::Deny)) || stances.contains(&Some(Stance::Hold));
            restricts && rule.restricts(principal, target, &self.default_issuer)
        })
    }
}
