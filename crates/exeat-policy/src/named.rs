//! Whom the rules of a target name: for each of their conditions somebody who fits it and nothing more. For whoever asks a
//! policy about people that nobody has seen. Decides nothing: each is a principal like any other, to be put to the policy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;

use crate::policy::Policy;
use crate::principal::{Principal, PrincipalKind};
use crate::rule::Rule;
use crate::who::{Actors, Conditions};

/// Principals of one policy, at most: rules may list as many subjects as they like.
pub const NAMED_MAX: usize = 1000;

/// The subject, and the agent, that stand for any: no issuer gives out this name.
pub const ANYBODY: &str = "*";

/// Somebody, by the words of rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    pub principal: Principal,
    /// Which name them, or except them.
    pub rules: BTreeSet<String>,
}

impl Policy {
    /// In the order in which they are named. Of several groups, subjects or agents in one condition each is somebody.
    pub fn named(&self, target: &str) -> Vec<Named> {
        let mut named: Vec<Named> = Vec::new();
        let everybody = Conditions::default();
        for rule in self.rules().iter().filter(|rule| rule.is_for(target)) {
            let who = rule.who.as_ref();
            let conditions = who.map_or(&everybody, |who| &who.conditions);
            let excepted = who.and_then(|who| who.except.as_ref());
            for principal in [conditions].into_iter().chain(excepted).flat_map(|said| self.fitting(said)) {
                let rule = rule.id().to_owned();
                let is_full = named.len() >= NAMED_MAX;
                match named.iter_mut().find(|known| known.principal == principal) {
                    Some(known) => drop(known.rules.insert(rule)),
                    None if !is_full => {
                        named.push(Named { principal, rules: BTreeSet::from([rule]) });
                    }
                    None => {}
                }
            }
        }
        named
    }

    /// The rules of a target that ask for claims of a token, beside subject, groups, issuer, agent and kind.
    pub fn asks_claims(&self, target: &str) -> Vec<&str> {
        let asks = |rule: &&Rule| {
            let who = rule.who.as_ref();
            let except = who.and_then(|who| who.except.as_ref());
            who.map(|who| &who.conditions).into_iter().chain(except).any(|said| !said.claims.is_empty())
        };
        self.rules().iter().filter(|rule| rule.is_for(target)).filter(asks).map(Rule::id).collect()
    }

    fn fitting(&self, said: &Conditions) -> Vec<Principal> {
        let issuer = said.issuers.as_ref().and_then(|issuers| issuers.first()).unwrap_or(&self.default_issuer);
        let one = |list: &Option<Vec<String>>| match list {
            Some(list) => list.iter().cloned().map(Some).collect(),
            None => vec![None],
        };
        let actors = match &said.actors {
            None => vec![None],
            Some(Actors::Any) => vec![Some(ANYBODY.to_owned())],
            Some(Actors::Named(names)) => names.iter().cloned().map(Some).collect(),
        };
        let groups = one(&said.groups);
        let somebody = |(subject, group, actor): (&Option<String>, &Option<String>, &Option<String>)| Principal {
            issuer: issuer.clone(),
            subject: subject.clone().unwrap_or_else(|| ANYBODY.to_owned()),
            groups: group.clone().into_iter().collect(),
            claims: said.claims.iter().cloned().collect::<Map<_, _>>(),
            actor: actor.clone(),
            kind: said.kind.unwrap_or(PrincipalKind::Human),
            token_id: None,
            instance: BTreeMap::new(),
        };
        let subjects = one(&said.subjects);
        let pairs = subjects.iter().flat_map(|subject| groups.iter().map(move |group| (subject, group)));
        let all = pairs.flat_map(|(subject, group)| actors.iter().map(move |actor| (subject, group, actor)));
        all.take(NAMED_MAX).map(somebody).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyContext;

    const POLICY: &str = "
version: 1
rules:
  - {id: reads, target: shop, who: {groups: [agents, analysts]}, allow: [read]}
  - {id: masks, target: shop, who: {except: {groups: [analysts]}}, detect: [card]}
  - {id: ann, target: shop, who: {subjects: [ann], actors: [bot]}, allow: [read]}
  - {id: paid, target: shop, who: {claims: {team: payments}, kind: workload}, allow: [read]}
  - {id: elsewhere, target: crm, who: {subjects: [eve]}, deny: true}
";

    #[test]
    fn each_is_named_once_with_the_rules_that_say_so() {
        let context = PolicyContext { default_issuer: Some("https://idp".to_owned()), targets: None };
        let policy = Policy::load(&[("policy.yaml".to_owned(), POLICY.to_owned())], &context).unwrap();
        let told = |target| {
            let told = policy.named(target).into_iter().map(|Named { principal, rules }| {
                let Principal { subject, groups, actor, claims, .. } = principal;
                let actor = actor.map(|actor| format!(" by {actor}")).unwrap_or_default();
                format!("{subject}{actor} {groups:?} {} {rules:?}", claims.len())
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(
            told("shop"),
            [
                r#"* ["agents"] 0 {"reads"}"#,
                r#"* ["analysts"] 0 {"masks", "reads"}"#,
                r#"* [] 0 {"masks"}"#,
                r#"ann by bot [] 0 {"ann"}"#,
                r#"* [] 1 {"paid"}"#,
            ]
        );
        assert_eq!(told("crm"), [r#"eve [] 0 {"elsewhere"}"#]);
        assert_eq!((policy.asks_claims("shop"), policy.asks_claims("crm")), (vec!["paid"], vec![]));
    }
}
