//! The question put to the policy and its answer.

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
        /// The principal must not learn that there is anything to deny.
        hidden: bool,
    },
    /// No rule of this policy speaks of this principal at this target at all.
    NoRule,
    /// Some rule allows the principal something here, but not this.
    CapabilityMissing {
        access: Access,
    },
}
