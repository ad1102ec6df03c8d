//! `hold:` of a rule: which statements wait for humans, for whom, and how long. Says nothing of any statement; what a
//! policy makes of one is in `ruling`.

use std::time::Duration;

use crate::approval::{BreakGlass, Standing};
use crate::principal::Principal;
use crate::who::{self, Who};

/// What a rule holds, by what it counts, and the humans who may let it through.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) rows: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) affected: Option<u64>,
    pub(crate) approvers: Who,
    pub(crate) quorum: u32,
    pub(crate) escalate: Option<Escalate>,
    pub(crate) break_glass: Option<BreakGlassRule>,
    /// How long a client is kept waiting for an answer on its connection.
    pub(crate) wait: Duration,
    /// How long the request can be decided, and what was granted be used.
    pub(crate) expires: Duration,
    pub(crate) mode: Mode,
    /// How many of the rows that wait, masked as they are, whoever decides is shown.
    pub(crate) sample: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Escalate {
    pub(crate) after: Duration,
    pub(crate) to: Who,
}

#[derive(Debug, Clone)]
pub(crate) struct BreakGlassRule {
    pub(crate) who: Who,
    pub(crate) reason_required: bool,
}

/// Whether a held statement waits on its connection, or is answered at once and asked again later. The second is the
/// stricter: it holds wherever a rule asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mode {
    #[default]
    Sync,
    Async,
}

impl Hold {
    /// Where a rule leaves them out.
    pub(crate) const WAIT: Duration = Duration::from_secs(120);
    pub(crate) const EXPIRES: Duration = Duration::from_mins(15);
    pub(crate) const QUORUM: u32 = 1;

    /// Does it count anything, rather than hold what it speaks of before it runs?
    pub(crate) fn counts(&self) -> bool {
        self.rows.is_some() || self.bytes.is_some() || self.affected.is_some()
    }

    /// What it lets a human do. Read as an allow is: only what its author can have meant.
    pub(crate) fn standing(&self, principal: &Principal, default_issuer: &str) -> Standing {
        let is = |who: &Who| who::grants(Some(who), principal, default_issuer);
        let break_glass = match &self.break_glass {
            Some(rule) if is(&rule.who) && rule.reason_required => BreakGlass::WithReason,
            Some(rule) if is(&rule.who) => BreakGlass::Allowed,
            Some(_) | None => BreakGlass::Refused,
        };
        let second = self.escalate.as_ref().is_some_and(|escalate| is(&escalate.to));
        Standing { first: is(&self.approvers), second, break_glass }
    }
}

/// What a statement is, by the names of `statements:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatementKind {
    Select,
    CopyOut,
    Insert,
    Update,
    Delete,
    Merge,
    Truncate,
    CopyIn,
    Ddl,
    Call,
    Code,
}

impl StatementKind {
    pub const ALL: &'static [StatementKind] = &[
        StatementKind::Select,
        StatementKind::CopyOut,
        StatementKind::Insert,
        StatementKind::Update,
        StatementKind::Delete,
        StatementKind::Merge,
        StatementKind::Truncate,
        StatementKind::CopyIn,
        StatementKind::Ddl,
        StatementKind::Call,
        StatementKind::Code,
    ];

    pub fn name(self) -> &'static str {
        match self {
            StatementKind::Select => "select",
            StatementKind::CopyOut => "copy_out",
            StatementKind::Insert => "insert",
            StatementKind::Update => "update",
            StatementKind::Delete => "delete",
            StatementKind::Merge => "merge",
            StatementKind::Truncate => "truncate",
            StatementKind::CopyIn => "copy_in",
            StatementKind::Ddl => "ddl",
            StatementKind::Call => "call",
            StatementKind::Code => "code",
        }
    }
}
