//! The question put to the policy and its answer.

use crate::principal::Principal;

/// What a statement needs, by the names of the `allow` list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    Read,
    Insert,
    Update,
    Delete,
    Merge,
    CopyIn,
    Ddl,
    Call,
    Code,
    DdlLabelled,
    Reader,
    Files,
    Admin,
    Replication,
    FunctionCall,
    Opaque,
}

/// A relation by name, as policy patterns match it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationName {
    pub schema: String,
    pub name: String,
}

/// One thing a statement does. `relation: None` for what concerns no relation (SELECT 1, SET, BEGIN).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    pub capability: Capability,
    pub relation: Option<RelationName>,
}

/// A preset that comes with any `allow` of the principal at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    Session,
    Metadata,
}

#[derive(Debug)]
pub struct AccessRequest<'a> {
    pub principal: &'a Principal,
    pub target: &'a str,
    pub accesses: Vec<Access>,
    pub presets: Vec<Preset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Permit,
    Deny,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub effect: Effect,
    /// Ids of the rules that decided, in file order.
    pub rules: Vec<String>,
    pub reasons: Vec<Reason>,
}

/// Why, in words for the requester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    Allowed {
        rule: String,
    },
    /// A `deny: true` rule matched; `text` is its `reason`.
    Denied {
        rule: String,
        text: Option<String>,
        access: Access,
    },
    /// No rule of this policy speaks of this principal at this target at all.
    NoRule,
    /// Some rule allows the principal something here, but not this.
    CapabilityMissing {
        access: Access,
    },
}

/// How a sealed column's values are replaced. Ordered by strictness, weakest first (`max` is the strictest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mask {
    /// First and last characters kept, never more than half in sum; text kin only.
    Partial {
        first: u16,
        last: u16,
    },
    Redact,
    Nullify,
    /// The statement is refused.
    Refuse,
}

/// What policy says about one labelled column for one principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMask {
    pub label: String,
    pub mask: Mask,
    /// The rule whose mask won.
    pub rule: String,
}
