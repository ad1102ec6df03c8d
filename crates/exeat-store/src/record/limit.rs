//! Allowances that are used up and statements that are held, as a session's record says it.

use super::event::{HeldChange, HeldEvent, LimitReached};
use super::json;
use super::session::SessionRecord;
use crate::StoreError;

impl SessionRecord {
    /// An allowance is used up. The refusal that follows is an event of its own.
    pub fn limit_reached(&mut self, reached: &LimitReached<'_>) -> Result<(), StoreError> {
        self.begin("limit.reached")?;
        json::object(&mut self.entry.head, |line| {
            line.object("body", |body| {
                body.text("kind", reached.kind);
                body.optional("label", reached.label);
                body.number("limit", reached.limit);
                body.optional("relation", reached.relation);
                body.text("request_id", reached.request_id);
                body.optional("resets_at", reached.resets_at);
                body.number("used", reached.used);
            });
        });
        self.finish(Some(reached.policy)).map(drop)
    }

    /// A held statement was asked for, or runs on an approval.
    pub fn approval(&mut self, change: &HeldChange<'_>) -> Result<(), StoreError> {
        self.begin(match change.what {
            HeldEvent::Requested => "approval.requested",
            HeldEvent::Consumed => "approval.consumed",
            HeldEvent::Withdrawn => "approval.withdrawn",
        })?;
        json::object(&mut self.entry.head, |line| {
            line.object("body", |body| {
                body.text("approval", change.approval);
                body.text("request_id", change.request_id);
                body.texts("rules", change.rules.iter().copied());
            });
        });
        self.finish(Some(change.policy)).map(drop)
    }
}
