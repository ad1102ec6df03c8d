//! A statement that waits for humans: what was asked for, what has become of it, and every step that may follow.
//!
//! A request is approved when every rule that holds the statement has its quorum of distinct humans, none of them the
//! asker; one denial ends it. What an approval leaves behind is a scope, from which [`crate::grant::Grant`] is made; it
//! overrides no decision. Pure: [`step`] says what follows from an event at a moment, or why nothing does. Keeping it, and
//! making sure that two steps at once do not both count, is the store's; that a name is who it says, the caller's.

mod scope;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::scope::{Ceiling, Scope, USES_MAX};
pub use self::step::{Notice, Step, step};
use crate::moment::Moment;
use crate::principal::{Asker, Person, Principal, PrincipalKind};

/// Longest text a human adds to a decision, in bytes: it travels to the client and into the record.
pub const REMARK_BYTES_MAX: usize = 500;

/// What was asked for. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    pub asker: Asker,
    /// One for each rule that holds the statement; all have to be met.
    pub demands: Vec<Demand>,
    pub asked_at: Moment,
    /// From then on nobody decides it any more.
    pub decide_by: Moment,
    /// The most an approval may allow.
    pub widest: Scope,
}

/// What one rule wants before it lets a statement through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    pub rule: String,
    pub quorum: u32,
    /// When the rule's second group may decide too.
    pub escalates_at: Option<Moment>,
}

impl Terms {
    /// What an approver gives who says nothing else: all that may be given, once.
    pub fn usual(&self) -> Scope {
        Scope { uses: self.widest.uses.min(1), ..self.widest }
    }
}

/// What has become of a request. Made by [`Progress::START`] and [`step`]; kept and given back as it is by the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    pub state: State,
    pub review: Review,
}

impl Progress {
    /// Nobody has decided.
    pub const START: Self = Self { state: State::Pending { approvals: Vec::new() }, review: Review::NotDemanded };
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    Pending {
        approvals: Vec<Approval>,
    },
    /// As pending; some rule's second group has been told.
    Escalated {
        approvals: Vec<Approval>,
        at: Moment,
    },
    Approved(Granted),
    Denied {
        by: Person,
        reason: Remark,
        at: Moment,
    },
    /// Nobody decided in time, or what was granted was not used in time.
    Expired {
        at: Moment,
        granted: Option<Granted>,
    },
    /// The asker stopped waiting.
    Withdrawn {
        at: Moment,
    },
    /// Every use is used. The last one may still be running.
    Consumed {
        at: Moment,
        granted: Granted,
    },
    /// What was granted is taken back: a stream that runs on it ends.
    Revoked {
        by: Person,
        reason: Remark,
        at: Moment,
        granted: Granted,
    },
}

impl State {
    /// The name in records, tables and the command line.
    pub fn name(&self) -> &'static str {
        match self {
            State::Pending { .. } => "pending",
            State::Escalated { .. } => "escalated",
            State::Approved(_) => "approved",
            State::Denied { .. } => "denied",
            State::Expired { .. } => "expired",
            State::Withdrawn { .. } => "withdrawn",
            State::Consumed { .. } => "consumed",
            State::Revoked { .. } => "revoked",
        }
    }
}

/// One human's yes, and the rules it counts for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    pub by: Person,
    pub rules: BTreeSet<String>,
    pub scope: Scope,
    pub at: Moment,
}

/// What an approval left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    pub by: GrantedBy,
    pub at: Moment,
    pub until: Moment,
    pub ceiling: Ceiling,
    pub uses_left: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GrantedBy {
    Quorum(Vec<Approval>),
    /// One human alone, in an emergency that the rules provide for.
    BreakGlass {
        by: Person,
        reason: Option<Remark>,
    },
}

/// Whether somebody has to look at it afterwards: what was granted by breaking the glass is reviewed by another human.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Review {
    NotDemanded,
    Due { since: Moment },
    Done { by: Person, at: Moment, finding: Finding, remark: Remark },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    Justified,
    Unjustified,
}

/// What can happen to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Approve {
        by: Approver,
        scope: Scope,
    },
    Deny {
        by: Approver,
        reason: Remark,
    },
    /// A rule's second group is due to be told.
    Escalate,
    /// Its time, or that of what was granted, is over.
    Expire,
    /// The client that waits cancelled or left.
    Withdraw,
    /// One use is about to be released.
    Consume,
    Revoke {
        by: Approver,
        reason: Remark,
    },
    BreakGlass {
        by: Approver,
        reason: Option<Remark>,
    },
    Review {
        by: Approver,
        finding: Finding,
        remark: Remark,
    },
}

/// A human, and what each rule of a request lets this one do. Made from a verified token anew for every decision: groups
/// and policies change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    person: Person,
    standing: BTreeMap<String, Standing>,
}

/// What one rule says of one human.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// One of its `approvers`.
    pub first: bool,
    /// One of those it escalates to.
    pub second: bool,
    pub break_glass: BreakGlass,
}

/// Whether a human may let a statement through alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BreakGlass {
    #[default]
    Refused,
    Allowed,
    WithReason,
}

impl Approver {
    /// Agents and workloads decide nothing, whoever they act for.
    pub fn new(principal: &Principal, standing: BTreeMap<String, Standing>) -> Result<Self, Unmoved> {
        let acted_for = principal.actor.is_some() || principal.claims.contains_key("act");
        match principal.kind {
            PrincipalKind::Human if !acted_for => Ok(Self { person: principal.asker().human, standing }),
            PrincipalKind::Human | PrincipalKind::Workload => Err(Unmoved::NotAHuman),
        }
    }

    pub fn person(&self) -> &Person {
        &self.person
    }

    /// What one of the request's rules lets this human do.
    pub fn standing(&self, demand: &Demand) -> Standing {
        self.standing.get(&demand.rule).copied().unwrap_or_default()
    }
}

/// Words of a human about a decision: not empty, bounded, on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Remark(String);

impl Remark {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemarkError {
    #[error("the reason is empty")]
    Empty,
    #[error("the reason of {bytes} bytes exceeds the limit of {REMARK_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the reason contains a line break or control character")]
    ControlCharacter,
}

impl TryFrom<String> for Remark {
    type Error = RemarkError;

    fn try_from(text: String) -> Result<Self, RemarkError> {
        if text.trim().is_empty() {
            return Err(RemarkError::Empty);
        }
        if text.len() > REMARK_BYTES_MAX {
            return Err(RemarkError::TooLong { bytes: text.len() });
        }
        if text.contains(char::is_control) {
            return Err(RemarkError::ControlCharacter);
        }
        Ok(Self(text))
    }
}

impl From<Remark> for String {
    fn from(remark: Remark) -> Self {
        remark.0
    }
}

/// Why an event changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmoved {
    #[error("the request is {state}")]
    Closed { state: &'static str },
    #[error("nobody has approved the request, it is {state}")]
    NotGranted { state: &'static str },
    #[error("the time to decide is over")]
    TooLate,
    #[error("it is not time for that yet")]
    TooEarly,
    #[error("what was granted has expired")]
    GrantExpired,
    #[error("whoever asks, or is asked for, does not decide")]
    OwnRequest,
    #[error("only a human with a token of their own decides")]
    NotAHuman,
    #[error("no rule of this request names you among its approvers")]
    NotAnApprover,
    #[error("you have approved this request already, it waits for another human")]
    AlreadyApproved,
    #[error("an approval may narrow what is asked for, not widen it")]
    TooWide,
    #[error("an approval of no run or no time is none: deny it instead")]
    EmptyScope,
    #[error("not every rule of this request may be broken by you")]
    NotYoursToBreak,
    #[error("breaking the glass needs a reason here")]
    ReasonMissing,
    #[error("no review is due")]
    NoReviewDue,
    #[error("whoever broke the glass does not review it")]
    OwnReview,
}

/// What becomes of the same statement, asked again by the same session or another of the same asker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rerun {
    /// It is this request still: no second one is made.
    Waits,
    /// It uses what was granted.
    Collects,
    /// A human has said no, and is not asked again at once.
    Refused,
    /// A new request.
    AsksAnew,
}

impl Progress {
    pub fn rerun(&self, terms: &Terms, now: Moment) -> Rerun {
        let then = |holds: bool, answer: Rerun| if holds { answer } else { Rerun::AsksAnew };
        match &self.state {
            State::Pending { .. } | State::Escalated { .. } => then(now < terms.decide_by, Rerun::Waits),
            State::Approved(granted) => then(now < granted.until && granted.uses_left > 0, Rerun::Collects),
            State::Denied { .. } => then(now < terms.decide_by, Rerun::Refused),
            State::Revoked { granted, .. } => then(now < granted.until, Rerun::Refused),
            State::Expired { .. } | State::Withdrawn { .. } | State::Consumed { .. } => Rerun::AsksAnew,
        }
    }
}

#[cfg(test)]
mod tests;
