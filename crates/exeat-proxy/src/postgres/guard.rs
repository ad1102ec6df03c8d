//! What a write did must be taken back where too much of it would leave or has changed. In the extended protocol it is not
//! committed before the client's Sync, which waits for the answer; a Query commits with its own end, so outside a block
//! the gateway puts a transaction of its own around it: constant texts, with the client's own bytes between them.

use std::sync::Arc;

use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::{CopyStream, Outputs, StateEffect, StatementPlan};
use exeat_enforce::refusal::{Object, Refusal, RefusalCode};
use exeat_store::record::OutcomeResult;
use exeat_store::state::RequestId;
use exeat_wire::{BackendMessage, Fields, TransactionStatus};

use super::due::Due;
use super::held::Unheld;
use super::outcome::Ended;
use super::picture::Refused;
use super::session::{Done, Session, SessionEnd};

impl Session {
    /// Before a Query is sent: whether it now runs in a transaction of the gateway's.
    pub(crate) async fn guard(&mut self, permit: &Arc<Permit>) -> Result<Result<bool, Box<Refused>>, SessionEnd> {
        if !permit.is_counted() {
            return Ok(Ok(false));
        }
        let refused = |refusal: Refusal| Ok(Err(Box::new(Refused { refusal, facts: permit.facts.clone() })));
        // The server runs on while one of them is held, and some of what it does nothing takes back.
        if permit.plans.len() > 1 && !permit.plans.iter().all(can_be_taken_back) {
            let reason = "rows of this message are counted, and another statement of it does what cannot be taken back";
            let refusal = Refusal::new(RefusalCode::NotEnforceable, reason)
                .object(Object::at(&self.picture.facts.target, None))
                .suggestion("send BEGIN and COMMIT, SET, PREPARE, cursors and the like as messages of their own");
            return refused(refusal);
        }
        for id in self.approvals_of_cursors(permit) {
            if let Some(refusal) = self.taken_back(&id).await? {
                return refused(refusal);
            }
        }
        if !permit.plans.iter().any(|plan| plan.bulk.writes) {
            return Ok(Ok(false));
        }
        // An open batch would be committed with it, and whether there is a block by now the batch decides.
        if self.batch_open {
            let reason = "what this writes is counted, and messages before it wait for their Sync";
            let refusal = Refusal::new(RefusalCode::NotEnforceable, reason)
                .object(Object::at(&self.picture.facts.target, None))
                .suggestion("end the batch with a Sync first");
            return refused(refusal);
        }
        // Whether it stands in a block only the answers to what went before tell.
        while self.pipeline.due() > 0 && !self.pipeline.is_skipping() {
            self.await_answers().await?;
        }
        if self.status != TransactionStatus::Idle {
            return Ok(Ok(false));
        }
        match self.own_command("BEGIN").await? {
            None => Ok(Ok(true)),
            Some(_) => {
                refused(Refusal::not_enforceable("the server begins no transaction for a write that is counted"))
            }
        }
    }

    /// What the cursors that it fetches from run on.
    fn approvals_of_cursors(&self, permit: &Permit) -> Vec<RequestId> {
        let portals = permit.names().cursors().filter_map(|(name, _)| self.names.portal(name));
        portals.filter_map(|portal| portal.resting.under().or_else(|| portal.approval.clone())).collect()
    }

    /// A refusal of what was not sent after all.
    pub(crate) async fn refuse_guarded(&mut self, guarded: bool, fields: &Fields) -> Done {
        if guarded {
            self.own_command("ROLLBACK").await?;
        }
        self.refuse_simple(fields).await
    }

    pub(crate) async fn refuse_unheld(&mut self, request_id: &str, sql: &str, unheld: Unheld) -> Done {
        match unheld {
            Unheld::Refused(refused) => {
                self.record_refusal(request_id, sql, &refused);
                self.refuse_simple(&refused.refusal.to_fields(request_id)).await
            }
            Unheld::Cancelled(fields) => {
                self.record_said(request_id, sql, &fields);
                self.refuse_simple(&fields).await
            }
        }
    }

    /// The guarded Query has been answered, but for its ReadyForQuery. `refusal`: what of it must not be.
    pub(crate) async fn end_guarded(&mut self, request_id: &str, refusal: Option<Fields>) -> Done {
        let failed = self.status == TransactionStatus::Failed;
        let end = if failed || refusal.is_some() { "ROLLBACK" } else { "COMMIT" };
        // What deferred constraints and triggers say at its end is of all that ran in it: the end forgets what that was.
        let taint = self.taint;
        if let Some(fields) = self.own_command(end).await? {
            let ended = Ended {
                result: OutcomeResult::RolledBack,
                tag: None,
                sqlstate: fields.sqlstate().map(std::borrow::Cow::into_owned),
            };
            self.guarded_ended(request_id, &ended)?;
            self.picture.own.rolled_back();
            self.release_of(&BackendMessage::ErrorResponse(fields), taint, Some(request_id))?;
        }
        if let Some(fields) = refusal {
            self.io.outbox.error(&fields);
        }
        self.io.outbox.ready_for_query(self.status);
        Ok(())
    }

    /// A constant of the gateway's own. `Some`: the server's error.
    async fn own_command(&mut self, text: &'static str) -> Result<Option<Fields>, SessionEnd> {
        self.cancelling.settle().await;
        self.sender().own_command(text)?;
        while self.pipeline.iter().any(|(_, due)| matches!(due, Due::Own)) {
            self.await_answers().await?;
        }
        Ok(self.own.failed.take())
    }
}

/// A query, or a write of rows: it leaves nothing behind that the end of its transaction does not settle, and nothing of what
/// the session has under names.
fn can_be_taken_back(plan: &StatementPlan) -> bool {
    let StatementPlan { effect, forgets, closes, made, makes, copy, notifies, bulk, outputs, .. } = plan;
    let quiet = *effect == StateEffect::default() && forgets.is_none() && closes.is_none() && made.is_none();
    let rows = bulk.writes || !matches!(outputs, Outputs::None);
    quiet && makes.is_empty() && notifies.is_empty() && *copy != CopyStream::In && rows
}
