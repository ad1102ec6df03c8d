//! FunctionCall: a function by its OID, past every analysis. Refused unless policy names the capability; then on
//! record with its arguments, sent as it came, and answered with the one value it gives.

use std::sync::Arc;

use exeat_enforce::admit::{Verdict, admit_function_call};
use exeat_enforce::evaluate::Evaluation;
use exeat_enforce::function_call::{evaluate_function_call, function_text};
use exeat_enforce::release::release_function_result;
use exeat_store::record::OutcomeResult;
use exeat_wire::{BackendMessage, FunctionCall, Request};

use super::ask::Values;
use super::due::{Due, QueryDue};
use super::named::missing_fields;
use super::outcome::{Ended, Intent};
use super::picture::{Refused, Renewed};
use super::session::{Done, Session, SessionEnd};

impl Session {
    pub(crate) async fn function_call(&mut self, call: FunctionCall) -> Done {
        let request_id = self.new_request();
        match self.renew_picture(self.in_failed_block()).await? {
            Renewed::Yes => {}
            Renewed::Skipped => return Ok(()),
            Renewed::Refuse(refusal) => {
                return self.refuse_call((&request_id, call.oid), Refused::plain(refusal)).await;
            }
        }
        let permit = match evaluate_function_call(&self.picture.facts, &self.picture.policy.policy, call.oid) {
            Evaluation::Permit(permit) => permit,
            Evaluation::Refuse { refusal, facts } => {
                return self.refuse_call((&request_id, call.oid), Refused { refusal, facts }).await;
            }
            Evaluation::Probe { refusal, .. } => {
                return self.refuse_call((&request_id, call.oid), Refused::plain(refusal)).await;
            }
            Evaluation::Missing { missing, .. } => return self.refuse_simple(&missing_fields(&missing)).await,
        };
        let refusal = match self.not_anchored(&permit) {
            Some(refusal) => Some(refusal),
            None => self.refused_too_often(&permit).await?,
        };
        if let Some(refusal) = refusal {
            return self.refuse_call((&request_id, call.oid), Refused { refusal, facts: permit.facts.clone() }).await;
        }
        let (permit, approval) = match self.seek_leave(&request_id, permit, &Values::Call(&call)).await? {
            Ok(leave) => leave,
            Err(unheld) => return self.refuse_unheld(&request_id, &function_text(call.oid), unheld).await,
        };
        let sql = Arc::clone(&permit);
        let receipt = match self.record_intent(&request_id, sql.sql(), &permit.facts, Intent::FunctionCall(&call)) {
            Ok(receipt) => receipt,
            Err(refusal) => return self.refuse_simple(&refusal.to_fields(&request_id)).await,
        };
        match admit_function_call(call, &permit) {
            Verdict::Refuse(refusal) => self.refuse_simple(&refusal.to_fields(&request_id)).await,
            Verdict::Forward(admitted) => {
                self.note_effects(&permit);
                let change = self.names.function_call();
                self.picture.transaction_may_end();
                let ends_batch = std::mem::take(&mut self.batch_open);
                let is_counted = permit.is_counted();
                let due = QueryDue::new(permit, request_id, change, self.analysed(None)).ending_batch(ends_batch);
                let due = Due::Query(Box::new(due.let_through(approval, false)));
                self.sender().statement(Request::FunctionCall, admitted, receipt, due);
                if is_counted { self.see_through(None).await } else { Ok(()) }
            }
        }
    }

    async fn refuse_call(&mut self, (request_id, oid): (&str, u32), refused: Refused) -> Done {
        self.record_refusal(request_id, &function_text(oid), &refused);
        self.refuse_simple(&refused.refusal.to_fields(request_id)).await
    }

    /// The value the function gave. The server says it before it commits what the function did, so whether that was
    /// the end only the next message tells, and the value waits for that.
    pub(crate) fn function_result(&mut self, message: &BackendMessage) -> Done {
        let Some((_, Due::Query(query))) = self.pipeline.front_mut() else {
            return Err(SessionEnd::UnexpectedAnswer(message.name()));
        };
        query.result = Some(message.clone());
        Ok(())
    }

    /// Another message came behind the value of the FunctionCall in front: ReadyForQuery, which ends it, or something
    /// else. Its outcome is on record before it leaves.
    pub(crate) fn settle_result(&mut self, next: &BackendMessage) -> Done {
        let Some((_, Due::Query(query))) = self.pipeline.front_mut() else { return Ok(()) };
        let query = query.as_mut();
        let is_end = matches!(next, BackendMessage::ReadyForQuery(_));
        if let Some(message) = query.result.take() {
            let plan = query.permit.plans.get(query.index).ok_or(SessionEnd::UnexpectedAnswer(message.name()))?;
            release_function_result(&message, plan, &mut query.counts, &mut self.io.outbox)?;
            query.may_fail_yet = !is_end;
        } else if is_end && query.may_fail_yet {
            query.may_fail_yet = false;
        } else {
            return Ok(());
        }
        self.query_ended(Ended { result: OutcomeResult::Ok, tag: None, sqlstate: None })
    }
}
