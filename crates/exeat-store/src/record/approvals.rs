//! What people decide about statements that wait for them, and what they freeze: on record before it takes effect. What
//! time alone does to requests follows when it has happened.

use exeat_policy::Asker;
use exeat_policy::approval::{Ceiling, Finding, Scope};

use super::event::Requester;
use super::json::{self, Object};
use super::{Recorder, render, requested};
use crate::StoreError;

/// Something somebody does about a request, or that time does.
#[derive(Debug, Clone, Copy)]
pub struct ApprovalChange<'a> {
    pub what: ApprovalEvent<'a>,
    /// The request's own id.
    pub approval: &'a str,
    pub target: &'a str,
    pub asker: &'a Asker,
    /// `None`: nobody, time has come.
    pub by: Option<Requester<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalEvent<'a> {
    /// One human's yes; the request may wait for others still.
    Approved(Scope),
    Denied {
        reason: &'a str,
    },
    /// One human alone lets it through, to be reviewed.
    BrokenGlass {
        reason: Option<&'a str>,
    },
    Reviewed {
        finding: Finding,
        remark: &'a str,
    },
    Revoked {
        reason: &'a str,
    },
    /// By an administrator, in the asker's place.
    Withdrawn,
    Escalated,
    Expired,
    /// What was on its way to be decided was not, somebody else was faster: the event before this one had no effect.
    Void {
        problem: &'a str,
    },
}

/// A freeze is about to hold, or to be lifted.
#[derive(Debug, Clone, Copy)]
pub struct FreezeChange<'a> {
    pub what: FreezeEvent<'a>,
    /// The subject's issuer; `None` for a target.
    pub issuer: Option<&'a str>,
    pub name: &'a str,
    pub by: Requester<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeEvent<'a> {
    Set { reason: &'a str },
    Lifted,
}

impl ApprovalEvent<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Approved(_) | Self::Denied { .. } | Self::BrokenGlass { .. } => "approval.decided",
            Self::Reviewed { .. } => "approval.reviewed",
            Self::Revoked { .. } => "approval.revoked",
            Self::Withdrawn => "approval.withdrawn",
            Self::Escalated => "approval.escalated",
            Self::Expired => "approval.expired",
            Self::Void { .. } => "approval.void",
        }
    }

    /// Members from `decision` on, in order.
    fn members(&self, body: &mut Object<'_>) {
        match *self {
            Self::Approved(scope) => {
                body.text("decision", "approved");
                body.object("scope", |object| scope_members(object, scope));
            }
            Self::Denied { reason } => {
                body.text("decision", "denied");
                body.text("reason", reason);
            }
            Self::BrokenGlass { reason } => {
                body.text("decision", "glass_broken");
                body.optional("reason", reason);
            }
            Self::Reviewed { finding, remark } => {
                let finding = match finding {
                    Finding::Justified => "justified",
                    Finding::Unjustified => "unjustified",
                };
                body.text("finding", finding);
                body.text("reason", remark);
            }
            Self::Revoked { reason } => body.text("reason", reason),
            Self::Void { problem } => body.text("problem", problem),
            Self::Withdrawn | Self::Escalated | Self::Expired => {}
        }
    }
}

fn scope_members(object: &mut Object<'_>, scope: Scope) {
    let Scope { ceiling: Ceiling { rows, bytes, affected }, uses, lasts } = scope;
    let mut number = |key: &'static str, value: Option<u64>| {
        if let Some(value) = value {
            object.number(key, value);
        }
    };
    number("affected", affected);
    number("bytes", bytes);
    number("rows", rows);
    number("seconds", Some(lasts.as_secs()));
    number("uses", Some(u64::from(uses)));
}

impl Recorder {
    /// Before it takes effect, where somebody does it.
    pub fn approval_changed(&self, change: &ApprovalChange<'_>) -> Result<(), StoreError> {
        let mut entry = self.shared.entry(change.what.kind(), None, |body| {
            body.text("approval", change.approval);
            body.object("asker", |object| {
                object.optional("actor", change.asker.actor.as_deref());
                object.text("iss", &change.asker.human.issuer);
                object.text("sub", &change.asker.human.subject);
            });
            change.what.members(body);
            render::token(body, change.by.map(|by| by.token));
        });
        requested(&mut entry, change.by);
        json::fragment(&mut entry.middle, |line| {
            line.optional("source", change.by.map(|by| by.source));
            line.text("target", change.target);
        });
        self.shared.write(&entry)
    }

    /// Before it holds, or is lifted.
    pub fn freeze_changed(&self, change: &FreezeChange<'_>) -> Result<(), StoreError> {
        let (kind, reason) = match change.what {
            FreezeEvent::Set { reason } => ("freeze.set", Some(reason)),
            FreezeEvent::Lifted => ("freeze.lifted", None),
        };
        let subject = change.issuer.map(|_| change.name);
        let mut entry = self.shared.entry(kind, None, |body| {
            body.optional("of", subject);
            body.optional("of_iss", change.issuer);
            body.optional("reason", reason);
            render::token(body, Some(change.by.token));
        });
        requested(&mut entry, Some(change.by));
        json::fragment(&mut entry.middle, |line| {
            line.text("source", change.by.source);
            if subject.is_none() {
                line.text("target", change.name);
            }
        });
        self.shared.write(&entry)
    }
}
