//! The question put to the policy and its answer.

use std::cmp::{Ordering, Reverse};

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

impl Capability {
    /// Every capability: what `all` stands for, and the closed list of names an `allow` may use.
    pub const ALL: &'static [Capability] = &[
        Capability::Read,
        Capability::Insert,
        Capability::Update,
        Capability::Delete,
        Capability::Merge,
        Capability::CopyIn,
        Capability::Ddl,
        Capability::Call,
        Capability::Code,
        Capability::DdlLabelled,
        Capability::Reader,
        Capability::Files,
        Capability::Admin,
        Capability::Replication,
        Capability::FunctionCall,
        Capability::Opaque,
    ];

    /// The name in `allow` lists and refusals.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Read => "read",
            Capability::Insert => "insert",
            Capability::Update => "update",
            Capability::Delete => "delete",
            Capability::Merge => "merge",
            Capability::CopyIn => "copy_in",
            Capability::Ddl => "ddl",
            Capability::Call => "call",
            Capability::Code => "code",
            Capability::DdlLabelled => "ddl_labelled",
            Capability::Reader => "reader",
            Capability::Files => "files",
            Capability::Admin => "admin",
            Capability::Replication => "replication",
            Capability::FunctionCall => "function_call",
            Capability::Opaque => "opaque",
        }
    }

    /// May a statement with this capability change data, so that a read-only login would break it?
    pub fn writes(self) -> bool {
        match self {
            Capability::Read | Capability::Reader | Capability::Replication => false,
            Capability::Insert
            | Capability::Update
            | Capability::Delete
            | Capability::Merge
            | Capability::CopyIn
            | Capability::Ddl
            | Capability::Call
            | Capability::Code
            | Capability::DdlLabelled
            | Capability::Files
            | Capability::Admin
            | Capability::FunctionCall
            | Capability::Opaque => true,
        }
    }

    /// What a statement needing this can touch besides the relations its access names.
    pub fn reach(self) -> Reach {
        match self {
            Capability::Read
            | Capability::Insert
            | Capability::Update
            | Capability::Delete
            | Capability::Merge
            | Capability::CopyIn => Reach::Relations,
            Capability::Ddl | Capability::DdlLabelled | Capability::Admin => Reach::Server,
            Capability::Call
            | Capability::Code
            | Capability::Reader
            | Capability::Files
            | Capability::Replication
            | Capability::FunctionCall
            | Capability::Opaque => Reach::Unknown,
        }
    }

    /// Does it reach around the masks, so that giving it to a principal with masks deserves a warning?
    pub fn by_name_only(self) -> bool {
        match self {
            Capability::DdlLabelled
            | Capability::Reader
            | Capability::Files
            | Capability::Admin
            | Capability::Replication
            | Capability::FunctionCall
            | Capability::Opaque => true,
            Capability::Read
            | Capability::Insert
            | Capability::Update
            | Capability::Delete
            | Capability::Merge
            | Capability::CopyIn
            | Capability::Ddl
            | Capability::Call
            | Capability::Code => false,
        }
    }
}

/// What an access without a relation may still touch. Decides how it meets rules that are limited to relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The relations named, so none: `SELECT 1`.
    Relations,
    /// Things that are no relations: a limited allow does not extend to them, a limited deny does not mean them.
    Server,
    /// Any data: a limited allow does not extend to it, and a deny of any relation may be about it.
    Unknown,
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
    /// A `deny: true` rule matched; `text` is its `reason`. For statements that only use presets (SET, BEGIN),
    /// `access` is a read of no relation.
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

/// How a sealed column's values are replaced. Ordered by strictness, weakest first (`max` is the strictest):
/// of two partial masks the one that keeps fewer characters is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Mask {
    /// Compared in order. `Reverse` makes keeping less the stricter; the last part only breaks ties.
    fn strictness(self) -> (u8, Reverse<u32>, Reverse<u16>) {
        match self {
            Mask::Partial { first, last } => (0, Reverse(u32::from(first) + u32::from(last)), Reverse(first)),
            Mask::Redact => (1, Reverse(0), Reverse(0)),
            Mask::Nullify => (2, Reverse(0), Reverse(0)),
            Mask::Refuse => (3, Reverse(0), Reverse(0)),
        }
    }
}

impl Ord for Mask {
    fn cmp(&self, other: &Self) -> Ordering {
        self.strictness().cmp(&other.strictness())
    }
}

impl PartialOrd for Mask {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What policy says about one labelled column for one principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMask {
    pub label: String,
    pub mask: Mask,
    /// The rule whose mask won.
    pub rule: String,
}
