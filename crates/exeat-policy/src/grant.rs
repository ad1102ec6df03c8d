//! Grants: what an approval leaves behind, bound to one statement of one asker under everything it was judged by. A grant
//! decides nothing by itself. It is a fact with which the decision is made again; where anything it is bound to is
//! different, it covers nothing, and the statement asks anew. That a use is taken once only is the store's.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::approval::{Ceiling, Progress, State, Terms};
use crate::moment::Moment;
use crate::principal::Asker;

/// A digest that somebody else made (this crate digests nothing): 32 bytes, written as hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hex digits")]
pub struct DigestError;

impl Digest {
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(DigestError),
        };
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Ok((digit(*high)? << 4) | digit(*low)?),
            _ => Err(DigestError),
        });
        let bytes: Vec<u8> = pairs.collect::<Result<_, _>>()?;
        bytes.try_into().map(Self).map_err(|_| DigestError)
    }
}

/// A statement as it is about to run: everything that an approval of it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub asker: Asker,
    pub target: String,
    pub database: String,
    /// The role at the server: row security shows each its own rows.
    pub role: String,
    /// SHA-256 of the statement's exact bytes.
    pub statement: Digest,
    /// Of the values bound to it and their types, keyed: they may be few enough to try.
    pub parameters: Digest,
    /// Of the objects its names stand for: the same text under another search path reads something else.
    pub objects: Digest,
    /// Of the masks in force for what it returns.
    pub masks: Digest,
    /// SHA-256 of the policy's files.
    pub policy: Digest,
}

/// One thing a grant is bound to, or one of the bounds it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drift {
    Human,
    Actor,
    Target,
    Database,
    Role,
    Statement,
    Parameters,
    Objects,
    Masks,
    Policy,
    Expired,
    UsedUp,
}

impl Drift {
    pub const ALL: &'static [Drift] = &[
        Drift::Human,
        Drift::Actor,
        Drift::Target,
        Drift::Database,
        Drift::Role,
        Drift::Statement,
        Drift::Parameters,
        Drift::Objects,
        Drift::Masks,
        Drift::Policy,
        Drift::Expired,
        Drift::UsedUp,
    ];

    /// What is different, in words for whoever asks why there is no grant.
    pub fn name(self) -> &'static str {
        match self {
            Drift::Human => "who it is done for",
            Drift::Actor => "the agent",
            Drift::Target => "the target",
            Drift::Database => "the database",
            Drift::Role => "the role at the server",
            Drift::Statement => "the statement",
            Drift::Parameters => "the parameters",
            Drift::Objects => "what its names stand for",
            Drift::Masks => "the masks in force",
            Drift::Policy => "the policy",
            Drift::Expired => "the time is over",
            Drift::UsedUp => "every use is used",
        }
    }
}

impl Ask {
    /// The first thing in which the two differ.
    pub fn drift(&self, other: &Ask) -> Option<Drift> {
        // Taken apart, so that a new field does not compile before it is compared.
        let Ask { asker, target, database, role, statement, parameters, objects, masks, policy } = other;
        let Asker { human, actor } = asker;
        let same = [
            (self.asker.human == *human, Drift::Human),
            (self.asker.actor == *actor, Drift::Actor),
            (self.target == *target, Drift::Target),
            (self.database == *database, Drift::Database),
            (self.role == *role, Drift::Role),
            (self.statement == *statement, Drift::Statement),
            (self.parameters == *parameters, Drift::Parameters),
            (self.objects == *objects, Drift::Objects),
            (self.masks == *masks, Drift::Masks),
            (self.policy == *policy, Drift::Policy),
        ];
        same.into_iter().find_map(|(same, drift)| (!same).then_some(drift))
    }

    /// All of it as bytes, each part with its length before it, so that no two asks are the same bytes: what a store
    /// digests to find the request of an identical run.
    pub fn encoded(&self) -> Vec<u8> {
        let Ask { asker, target, database, role, statement, parameters, objects, masks, policy } = self;
        let Asker { human, actor } = asker;
        let actor_kind: &[u8] = if actor.is_some() { b"acts" } else { b"alone" };
        let parts: [&[u8]; 12] = [
            human.issuer.as_bytes(),
            human.subject.as_bytes(),
            actor_kind,
            actor.as_deref().unwrap_or_default().as_bytes(),
            target.as_bytes(),
            database.as_bytes(),
            role.as_bytes(),
            statement.bytes(),
            parameters.bytes(),
            objects.bytes(),
            masks.bytes(),
            policy.bytes(),
        ];
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// What humans allowed: one statement, so often, so long, so much of it each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    ask: Ask,
    /// The rules whose approvers have agreed.
    rules: BTreeSet<String>,
    ceiling: Ceiling,
    until: Moment,
    uses_left: u32,
}

/// A statement that a grant covers at this moment. The only way to say that a hold is lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    rules: BTreeSet<String>,
    ceiling: Ceiling,
}

impl Grant {
    /// What an approved request leaves behind; any other leaves nothing. `ask` is what was asked for then.
    pub fn of(terms: &Terms, progress: &Progress, ask: Ask) -> Option<Self> {
        let granted = match &progress.state {
            State::Approved(granted) => granted,
            State::Pending { .. }
            | State::Escalated { .. }
            | State::Denied { .. }
            | State::Expired { .. }
            | State::Withdrawn { .. }
            | State::Consumed { .. }
            | State::Revoked { .. } => return None,
        };
        // Whoever keeps both has to keep them together.
        let is_theirs = ask.asker == terms.asker;
        is_theirs.then(|| Self {
            ask,
            rules: terms.demands.iter().map(|demand| demand.rule.clone()).collect(),
            ceiling: granted.ceiling,
            until: granted.until,
            uses_left: granted.uses_left,
        })
    }

    /// Is this what was allowed, and is it allowed still?
    pub fn covers(&self, ask: &Ask, now: Moment) -> Result<Covered, Drift> {
        if let Some(drift) = self.ask.drift(ask) {
            return Err(drift);
        }
        if now >= self.until {
            return Err(Drift::Expired);
        }
        if self.uses_left == 0 {
            return Err(Drift::UsedUp);
        }
        Ok(Covered { rules: self.rules.clone(), ceiling: self.ceiling })
    }

    pub fn until(&self) -> Moment {
        self.until
    }

    pub fn uses_left(&self) -> u32 {
        self.uses_left
    }
}

impl Covered {
    /// Have the approvers of this rule agreed?
    pub fn lifts(&self, rule: &str) -> bool {
        self.rules.contains(rule)
    }

    /// What may be released in their place.
    pub fn ceiling(&self) -> Ceiling {
        self.ceiling
    }
}
