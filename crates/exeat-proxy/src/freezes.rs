//! Who and what stands still: subjects and targets that somebody has frozen, as far as this gateway has heard.
//! Whoever runs the gateway keeps the set current; logins and open sessions look at it. An identity that is frozen is so
//! wherever it appears: for itself, for whoever acts for it, and as the agent that acts for another.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use exeat_policy::{Person, Principal};
use exeat_store::state::{Freeze, Frozen};

/// Swapped whole.
pub type CurrentFreezes = Arc<ArcSwap<Freezes>>;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Freezes {
    subjects: BTreeSet<Person>,
    targets: BTreeSet<String>,
}

/// Why somebody goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standstill {
    Subject,
    Target,
}

impl std::fmt::Display for Standstill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Subject => "the identity",
            Self::Target => "the target",
        })
    }
}

impl Freezes {
    pub fn new(freezes: Vec<Freeze>) -> Self {
        let mut found = Self::default();
        for freeze in freezes {
            match freeze.what {
                Frozen::Subject(person) => drop(found.subjects.insert(person)),
                Frozen::Target(name) => drop(found.targets.insert(name)),
            }
        }
        found
    }

    /// Is the principal, or the agent acting for it, frozen?
    pub fn subject(&self, principal: &Principal) -> bool {
        // Asked by every session once a second, and mostly there is none.
        if self.subjects.is_empty() {
            return false;
        }
        let person = |subject: &str| Person { issuer: principal.issuer.clone(), subject: subject.to_owned() };
        let human = self.subjects.contains(&person(&principal.subject));
        human || principal.actor.as_deref().is_some_and(|actor| self.subjects.contains(&person(actor)))
    }

    pub fn target(&self, name: &str) -> bool {
        self.targets.contains(name)
    }

    /// What keeps the principal from the target.
    pub fn between(&self, principal: &Principal, target: &str) -> Option<Standstill> {
        if self.subject(principal) {
            return Some(Standstill::Subject);
        }
        self.target(target).then_some(Standstill::Target)
    }
}

#[cfg(test)]
mod tests {
    use exeat_policy::approval::Remark;
    use exeat_policy::{Moment, PrincipalKind};

    use super::*;

    fn person(issuer: &str, subject: &str) -> Person {
        Person { issuer: issuer.to_owned(), subject: subject.to_owned() }
    }

    fn principal(issuer: &str, subject: &str, actor: Option<&str>) -> Principal {
        Principal {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            groups: Vec::new(),
            claims: serde_json::Map::new(),
            actor: actor.map(str::to_owned),
            kind: PrincipalKind::Human,
            token_id: None,
            instance: Default::default(),
        }
    }

    #[test]
    fn an_identity_stands_still_wherever_it_appears_and_its_namesake_elsewhere_does_not() {
        let freeze = |what: Frozen| Freeze {
            what,
            by: person("a", "boss"),
            reason: Remark::try_from("x".to_owned()).unwrap(),
            at: Moment::from_unix_millis(0),
        };
        let freezes =
            Freezes::new(vec![freeze(Frozen::Subject(person("a", "x"))), freeze(Frozen::Target("crm".to_owned()))]);
        for (issuer, subject, actor, target, expected) in [
            ("a", "x", None, "shop", Some(Standstill::Subject)),
            ("a", "x", Some("y"), "shop", Some(Standstill::Subject)),
            ("a", "y", Some("x"), "shop", Some(Standstill::Subject)),
            ("b", "x", None, "shop", None),
            ("a", "y", None, "shop", None),
            ("a", "y", None, "crm", Some(Standstill::Target)),
        ] {
            let who = principal(issuer, subject, actor);
            assert_eq!(freezes.between(&who, target), expected, "{issuer} {subject} {actor:?} {target}");
            assert_eq!(Freezes::default().between(&who, target), None);
        }
    }
}
