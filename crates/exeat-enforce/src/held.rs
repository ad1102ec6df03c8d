//! What a client hears of a statement that a rule holds, or that has used up what may leave. In words that name the rule
//! and the relation, as far as the client may know of it, and say what to do.

use exeat_policy::RelationName;
use exeat_policy::ledger::Unit;
use exeat_policy::ruling::{AppliedBudget, Cause, Why};

use crate::refusal::{Object, Refusal, RefusalCode, Retry};

/// How long whoever asked waits before it asks again, where nobody says otherwise.
const ASK_AGAIN_S: u64 = 30;

/// A statement that a rule holds, for the words about it.
#[derive(Debug, Clone)]
pub struct Held<'a> {
    pub target: &'a str,
    pub rule: Option<&'a str>,
    /// `None` where the client's text does not name it.
    pub relation: Option<&'a RelationName>,
}

impl Held<'_> {
    fn refusal(&self, code: RefusalCode, reason: impl Into<String>) -> Refusal {
        let refusal = Refusal::new(code, reason).object(Object::relation(self.target, self.relation));
        match self.rule {
            Some(rule) => refusal.rule(rule),
            None => refusal,
        }
    }

    /// A human has been asked. `decide_by`: in RFC 3339.
    pub fn pending(&self, approval: &str, decide_by: Option<String>) -> Refusal {
        self.refusal(RefusalCode::ApprovalPending, format!("held until a human approves it: request {approval}"))
            .suggestion("send the identical statement again once it is approved; nothing of it has been released")
            .retry_as(Retry {
                state: Some("pending"),
                after_s: ASK_AGAIN_S,
                expires_at: decide_by,
                approval: Some(approval.to_owned()),
                ..Retry::default()
            })
    }

    /// Nobody has decided while it waited, and what a cursor gives can only be let through then.
    pub fn not_in_time(&self, approval: &str) -> Refusal {
        self.refusal(RefusalCode::ApprovalExpired, format!("nobody decided request {approval} while the cursor waited"))
            .suggestion("select without a cursor: what is approved then can be collected later")
    }

    /// `reason`: the human's own.
    pub fn denied(&self, approval: &str, reason: &str) -> Refusal {
        self.refusal(RefusalCode::ApprovalDenied, format!("request {approval} was denied: {reason}"))
            .suggestion("do not repeat it; ask for less, or talk to whoever denied it")
    }

    pub fn revoked(&self, approval: &str, reason: &str) -> Refusal {
        self.refusal(RefusalCode::ApprovalDenied, format!("approval {approval} was revoked: {reason}"))
            .suggestion("do not repeat it; talk to whoever revoked it")
    }

    pub fn expired(&self, approval: &str) -> Refusal {
        self.refusal(RefusalCode::ApprovalExpired, format!("nobody decided request {approval} in time"))
            .suggestion("send the statement again to ask anew")
    }

    /// It was withdrawn elsewhere, or used up by another run of the same statement.
    pub fn gone(&self, approval: &str) -> Refusal {
        self.refusal(RefusalCode::ApprovalExpired, format!("request {approval} is closed and lets nothing through"))
            .suggestion("send the statement again to ask anew")
    }

    /// Nobody can be asked any more: too many wait already.
    pub fn too_many(&self, whose: &str, limit: i64) -> Refusal {
        let reason = format!("held, and no further request can be made: {whose} has reached the limit of {limit}");
        self.refusal(RefusalCode::ApprovalDenied, reason)
            .suggestion("wait until some of them are decided, or withdraw them")
    }

    /// The approval let through less than there is.
    pub fn ceiling(&self) -> Refusal {
        self.refusal(RefusalCode::RowLimit, "the statement has more than what was approved, and ends here")
            .suggestion("ask for as much as you need, or narrow the statement")
    }
}

/// A budget is used up. `resets`: so many seconds from now, at this time in RFC 3339.
pub fn used_up(held: &Held<'_>, applied: &AppliedBudget, used: u64, resets: Option<(u64, String)>) -> Refusal {
    let (code, unit) = match applied.unit {
        Unit::Rows | Unit::UnapprovedRows => (RefusalCode::RowLimit, "rows"),
        Unit::Bytes => (RefusalCode::ByteLimit, "bytes"),
        Unit::Cells => (RefusalCode::CellLimit, "masked cells"),
        Unit::Probes => (RefusalCode::LookupProbes, "lookups"),
        Unit::Refusals => (RefusalCode::RefusalLimit, "refusals"),
    };
    let window = applied.budget.window.as_secs();
    let reason = format!("{used} of {} {unit} within {window} s are used up", applied.budget.amount);
    let refusal = held.refusal(code, reason);
    match resets {
        Some((after_s, at)) => {
            refusal.suggestion("ask for less, or wait until the window has moved on").retry(after_s, at)
        }
        None => refusal.suggestion("one row alone is more than the whole limit: select less of it"),
    }
}

/// Why it is held before it runs, in a few words.
pub fn why(cause: &Cause) -> &'static str {
    match cause.why {
        Why::Statement => "every such statement",
        Why::UnboundedRead => "it reads all rows",
        Why::UnboundedWrite => "it changes all rows",
        Why::Star => "it takes all columns",
        Why::Copy => "it copies rows to where nobody counts them",
        Why::Definition => "it alters what the rule is about",
        Why::Unseen => "what it touches cannot be counted while it runs",
    }
}
