//! Who is asking, as the identity provider says and as rules match it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    pub issuer: String,
    /// `sub`: the human, or the workload. Never an e-mail address by our choice.
    pub subject: String,
    pub groups: Vec<String>,
    /// All claims of the token, for `who: {claims: …}` and logins.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// Outermost `act.sub` (RFC 8693): the agent acting for `subject`.
    pub actor: Option<String>,
    pub kind: PrincipalKind,
    /// `jti`, where the token has one.
    pub token_id: Option<String>,
    /// Pod uid, CI run id, SPIFFE id...: recorded.
    pub instance: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    Human,
    Workload,
}

impl Principal {
    /// Who asks, without what only this token says.
    pub fn asker(&self) -> Asker {
        Asker {
            human: Person { issuer: self.issuer.clone(), subject: self.subject.clone() },
            actor: self.actor.clone(),
        }
    }
}

/// A human or workload as its issuer knows it. The same words from another issuer are somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    pub issuer: String,
    pub subject: String,
}

/// Whom requests, grants and counters belong to: a human (or a workload), and the agent acting for it, as a pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asker {
    pub human: Person,
    pub actor: Option<String>,
}

impl Asker {
    /// Is the person either party of the pair? An agent is known to the issuer of the token that names it.
    pub fn includes(&self, person: &Person) -> bool {
        let acts = person.issuer == self.human.issuer && self.actor.as_ref() == Some(&person.subject);
        acts || *person == self.human
    }
}
