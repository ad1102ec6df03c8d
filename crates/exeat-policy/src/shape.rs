//! What rules say of a statement's shape, whatever it reads: stars where columns are sealed, and writes that no condition
//! limits to some of a relation's rows. The strictest counts, and without a rule a relation with a label is not changed
//! as a whole.

use crate::decision::RelationName;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::rule::Rule;
use crate::who;

/// The keys `select_star` and `unbounded_writes` of one rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) select_star: Option<Stance>,
    pub(crate) unbounded_writes: Option<Stance>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stance {
    Deny,
    Allow,
}

/// Whether a write may change every row of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WholeWrite<'a> {
    Allowed,
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
        let denies = |rule: &&Rule| {
            rule.shape().unbounded_writes == Some(Stance::Deny)
                && rule.restricts(principal, target, &self.default_issuer)
        };
        if let Some(rule) = self.rules.iter().filter(covers).find(denies) {
            return WholeWrite::Denied { rule: Some(rule.id()) };
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
            let Shape { select_star, unbounded_writes } = rule.shape();
            let denies = [select_star, unbounded_writes].contains(&Some(Stance::Deny));
            denies && rule.restricts(principal, target, &self.default_issuer)
        })
    }
}
