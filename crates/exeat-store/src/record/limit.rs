//! Allowances that are used up, as a session's record says it.

use super::event::LimitReached;
use super::json;
use super::session::SessionRecord;
use crate::StoreError;

impl SessionRecord {
    /// An allowance is used up. The refusal that follows is an event of its own.
    pub fn limit_reached(&mut self, reached: &LimitReached<'_>) -> Result<(), StoreError> {
        self.begin("limit.reached");
        json::object(&mut self.entry.head, |line| {
            line.object("body", |body| {
                body.text("kind", reached.kind);
                body.text("label", reached.label);
                body.number("limit", reached.limit);
                body.text("relation", reached.relation);
                body.text("request_id", reached.request_id);
                body.text("resets_at", reached.resets_at);
                body.number("used", reached.used);
            });
        });
        self.finish(Some(reached.policy)).map(drop)
    }
}
