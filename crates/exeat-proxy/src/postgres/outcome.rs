//! What the session writes to the audit record: intents before, outcomes before the client's completion message.

use std::sync::Arc;
use std::time::Instant;

use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::Forgets;
use exeat_enforce::record::RecordFacts;
use exeat_enforce::refusal::Refusal;
use exeat_enforce::release::{Counts, Transcript};
use exeat_policy::Moment;
use exeat_policy::ledger::{Counted as Ledgered, CounterKey};
use exeat_policy::ruling::AppliedBudget;
use exeat_store::StoreError;
use exeat_store::record::{
    Committed, Decision, LimitReached, MaskedColumn, Outcome, OutcomeResult, Parameter, PolicyRef, Protocol,
    RecordReceipt, Sent, SessionRecord, Statement,
};
use exeat_wire::{Bind, Fields, Format, FunctionCall};

use super::batch::Ran;
use super::copy::copied_rows;
use super::counted::rfc3339;
use super::due::{Due, ExecuteDue, QueryDue};
use super::picture::Refused;
use super::session::{Done, Session, SessionEnd};
use super::statements::Portal;
use crate::config::LoadedPolicy;

/// How a statement ended, as the server said it.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) result: OutcomeResult,
    pub(crate) tag: Option<&'a str>,
    pub(crate) sqlstate: Option<String>,
}

impl Ended<'_> {
    /// With its transaction, and what ran in that before.
    fn took_back(&self) -> bool {
        match self.result {
            OutcomeResult::Error | OutcomeResult::Cancelled | OutcomeResult::RolledBack | OutcomeResult::Refused => {
                true
            }
            OutcomeResult::Ok | OutcomeResult::Suspended | OutcomeResult::Skipped | OutcomeResult::OutcomeUnknown => {
                false
            }
        }
    }
}

/// Commits the record. A sync of the disk is waited for on another thread, so that sessions share it.
pub(crate) async fn commit(record: &mut SessionRecord) -> Result<Committed, StoreError> {
    if let Some(due) = record.sync_due()
        && let Ok(synced) = tokio::task::spawn_blocking(move || due.wait()).await
    {
        synced?;
    }
    record.commit()
}

/// What the client is about to get, on record.
pub(crate) fn record_sent(record: &mut SessionRecord, transcript: &mut Transcript) -> Result<(), StoreError> {
    let piece = transcript.piece();
    record.sent(&Sent { messages: piece.kept, bytes: piece.bytes, rows: piece.rows })?;
    transcript.next();
    Ok(())
}

pub(crate) fn policy_ref(policy: &LoadedPolicy) -> PolicyRef<'_> {
    PolicyRef { version: policy.generation, sha256: &policy.sha256 }
}

/// Which message an intent is written for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Intent<'a> {
    Query,
    Parse { name: &'a str },
    Bind(&'a Bind),
    FunctionCall(&'a FunctionCall),
}

impl Session {
    /// Step 13: what is queued for both sides may leave behind this.
    pub(crate) async fn commit(&mut self) -> Result<Committed, StoreError> {
        self.io.outbox.transcribe(&mut self.transcript);
        record_sent(&mut self.record, &mut self.transcript)?;
        commit(&mut self.record).await
    }

    /// Step 8. An error means that nothing may be forwarded.
    pub(crate) fn record_intent(
        &mut self,
        request_id: &str,
        sql: &str,
        facts: &RecordFacts,
        intent: Intent<'_>,
    ) -> Result<RecordReceipt, Box<Refusal>> {
        let parameters = parameters(intent);
        let masked = masked(facts);
        let policy = policy_ref(&self.picture.policy);
        let mut statement = Statement {
            parameters: &parameters,
            ..described(Statement::new(request_id, sql, Decision::Allow, policy), facts, &masked)
        };
        let receipt = match intent {
            Intent::Query | Intent::FunctionCall(_) => self.record.intent(&statement),
            Intent::Parse { name } => {
                statement.protocol = Protocol::Extended;
                statement.name = Some(name);
                self.record.parse(&statement)
            }
            Intent::Bind(bind) => {
                statement.protocol = Protocol::Extended;
                statement.name = Some(bind.statement.as_str());
                statement.portal = Some(bind.portal.as_str());
                self.record.intent(&statement)
            }
        };
        receipt.map_err(|problem| {
            tracing::error!(
                problem = exeat_store::chain(&problem),
                "could not record a statement; it was not forwarded"
            );
            Box::new(Refusal::not_enforceable("the audit log cannot be written"))
        })
    }

    /// A refusal is recorded like an intent. When even that fails the refusal stands all the same.
    pub(crate) fn record_refusal(&mut self, request_id: &str, sql: &str, refused: &Refused) {
        let Refused { refusal, facts } = refused;
        self.questions.refused(refusal, request_id);
        self.refusals.noted(refusal.code);
        let masked = masked(facts);
        let reasons = [refusal.reason.clone()];
        let policy = policy_ref(&self.picture.policy);
        let statement = Statement {
            code: Some(refusal.code.as_str()),
            reasons: if facts.reasons.is_empty() { &reasons } else { &facts.reasons },
            ..described(Statement::new(request_id, sql, Decision::Refuse, policy), facts, &masked)
        };
        if let Err(problem) = self.record.intent(&statement) {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record a refusal");
        }
    }

    /// An error that the gateway says in the server's place, because it knows what the server would.
    pub(crate) fn record_said(&mut self, request_id: &str, sql: &str, fields: &Fields) {
        let sqlstate = fields.sqlstate().unwrap_or_default();
        let reasons = [format!("answered with {sqlstate} in the server's place")];
        let policy = policy_ref(&self.picture.policy);
        let statement = Statement { reasons: &reasons, ..Statement::new(request_id, sql, Decision::Refuse, policy) };
        if let Err(problem) = self.record.intent(&statement) {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record an error of the gateway's own");
        }
    }

    /// One statement of the Query in front has ended.
    pub(crate) fn query_ended(&mut self, ended: Ended<'_>) -> Done {
        let Some((_, Due::Query(query))) = self.pipeline.front_mut() else { return Ok(()) };
        query.counts.rows = ended.tag.and_then(copied_rows).unwrap_or(query.counts.rows);
        let failed = ended.took_back();
        let is_last = !query.may_fail_yet && query.index + 1 >= query.permit.plans.len();
        let outcome = Outcome {
            index: u32::try_from(query.index).unwrap_or(u32::MAX),
            last: failed || is_last,
            batch_from: self.batch.first().filter(|_| failed).map(AsRef::as_ref),
            ..outcome(&query.request_id, &ended, query.counts, query.started, policy_ref(&self.picture.policy))
        };
        // Before the client hears of it: a statement nobody can account for must not look finished.
        let _recorded = self.record.outcome(&outcome).map_err(SessionEnd::Outcome)?;
        self.batch.noted(ended.tag.unwrap_or_default().as_bytes());
        query.index += 1;
        query.done += usize::from(!failed);
        query.bound = None;
        query.counts = Counts::default();
        query.started = Instant::now();
        query.gate.shut();
        let (counted, cursor) = (query.counted.take(), query.cursor.take());
        let rested = self.rest_counters(counted, cursor.as_ref());
        if let (Some(rested), Some((_, Due::Query(query)))) = (rested, self.pipeline.front_mut()) {
            query.previous = Some(rested);
        }
        Ok(())
    }

    pub(crate) fn execute_ended(&mut self, execute: &mut ExecuteDue, ended: &Ended<'_>) -> Done {
        self.execution_ended((&execute.request_id, execute.counts, execute.started), ended)?;
        let _ = self.rest_counters(execute.counted.take(), Some(&execute.portal));
        Ok(())
    }

    /// Of an Execute of this request.
    pub(crate) fn execution_ended(
        &mut self,
        (request, counts, started): (&Arc<str>, Counts, Instant),
        ended: &Ended<'_>,
    ) -> Done {
        let policy = policy_ref(&self.picture.policy);
        let rows = ended.tag.and_then(copied_rows).unwrap_or(counts.rows);
        let counts = Counts { rows, ..counts };
        let before = self.batch.first().filter(|first| *first != request && ended.took_back());
        let outcome = Outcome {
            last: ended.result != OutcomeResult::Suspended,
            batch_from: before.map(AsRef::as_ref),
            ..outcome(request, ended, counts, started, policy)
        };
        let _recorded = self.record.outcome(&outcome).map_err(SessionEnd::Outcome)?;
        if matches!(ended.result, OutcomeResult::Ok | OutcomeResult::Suspended) {
            self.batch.ran(request, ended.tag.unwrap_or_default().as_bytes());
        }
        Ok(())
    }

    /// The batch's implicit transaction ended in another way than its Executes did.
    pub(crate) fn batch_ended(&mut self, ran: &Ran<Arc<str>>, ended: &Ended<'_>) -> Done {
        let policy = policy_ref(&self.picture.policy);
        let outcome = Outcome {
            batch_from: Some(&ran.first).filter(|first| **first != ran.last).map(AsRef::as_ref),
            ..outcome(&ran.last, ended, Counts::default(), Instant::now(), policy)
        };
        let _recorded = self.record.outcome(&outcome).map_err(SessionEnd::Outcome)?;
        Ok(())
    }

    /// The transaction of the gateway's own that a Query ran in ended in another way than the Query did.
    pub(crate) fn guarded_ended(&mut self, request_id: &str, ended: &Ended<'_>) -> Done {
        let policy = policy_ref(&self.picture.policy);
        let outcome = outcome(request_id, ended, Counts::default(), Instant::now(), policy);
        let _recorded = self.record.outcome(&outcome).map_err(SessionEnd::Outcome)?;
        Ok(())
    }

    /// An allowance is used up.
    pub(crate) fn record_limit(
        &mut self,
        request_id: &str,
        key: &CounterKey,
        applied: &AppliedBudget,
        (used, resets_at): (u64, Option<Moment>),
    ) {
        let relation = match &key.counted {
            Ledgered::Target => None,
            Ledgered::Relation(relation) | Ledgered::Label { relation, .. } => Some(relation),
        };
        let relation = relation.map(|relation| format!("{}.{}", relation.schema, relation.name));
        let label = match &key.counted {
            Ledgered::Label { label, .. } => Some(label.as_str()),
            Ledgered::Target | Ledgered::Relation(_) => None,
        };
        let resets_at = resets_at.and_then(rfc3339);
        let recorded = self.record.limit_reached(&LimitReached {
            request_id,
            kind: applied.unit.name(),
            label,
            relation: relation.as_deref(),
            used,
            limit: applied.budget.amount,
            resets_at: resets_at.as_deref(),
            policy: policy_ref(&self.picture.policy),
        });
        if let Err(problem) = recorded {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record that a limit was reached");
        }
    }

    /// A Query nobody will see the end of.
    pub(crate) fn request_ended(&mut self, query: &QueryDue, ended: Ended<'_>) -> Done {
        let outcome = Outcome {
            index: u32::try_from(query.index).unwrap_or(u32::MAX),
            ..outcome(&query.request_id, &ended, query.counts, query.started, policy_ref(&self.picture.policy))
        };
        let _recorded = self.record.outcome(&outcome).map_err(SessionEnd::Outcome)?;
        Ok(())
    }

    /// A Bind that failed or was skipped: there will be no Execute to close its intent.
    pub(crate) fn bind_ended(&mut self, portal: &Portal, ended: Ended<'_>) -> Done {
        let policy = policy_ref(&self.picture.policy);
        let outcome = Outcome {
            batch_from: self.batch.first().filter(|_| ended.took_back()).map(AsRef::as_ref),
            ..outcome(&portal.request_id, &ended, Counts::default(), Instant::now(), policy)
        };
        let _recorded = self.record.outcome(&outcome).map_err(SessionEnd::Outcome)?;
        Ok(())
    }

    /// The gateway has answered itself.
    pub(crate) fn question_ended(&mut self, request_id: &str) -> Result<(), StoreError> {
        let ended = Ended { result: OutcomeResult::Ok, tag: None, sqlstate: None };
        let policy = policy_ref(&self.picture.policy);
        let outcome = outcome(request_id, &ended, Counts::default(), Instant::now(), policy);
        self.record.outcome(&outcome).map(|_receipt| ())
    }

    /// A forwarded statement moves the session's picture and the transaction's taint.
    pub(crate) fn note_effects(&mut self, permit: &Permit) {
        self.taint = self.taint.max(permit.worst_taint());
        self.has_written |= permit.plans.iter().any(|plan| plan.bulk.writes);
        self.picture.note_effects(permit.plans.iter().map(|plan| plan.effect));
        if permit.plans.iter().any(|plan| plan.forgets == Some(Forgets::All)) {
            self.questions.forget_statements();
        }
    }
}

/// The clear part of an intent, on top of `bare`.
fn described<'a>(bare: Statement<'a>, facts: &'a RecordFacts, masked: &'a [MaskedColumn<'a>]) -> Statement<'a> {
    Statement {
        fingerprint: facts.fingerprint.as_deref(),
        kinds: &facts.kinds,
        relations: &facts.relations,
        columns: &facts.columns,
        touched: &facts.touched,
        masked,
        rules: &facts.rules,
        reasons: &facts.reasons,
        ..bare
    }
}

fn outcome<'a>(
    request_id: &'a str,
    ended: &'a Ended<'a>,
    counts: Counts,
    started: Instant,
    policy: PolicyRef<'a>,
) -> Outcome<'a> {
    Outcome {
        request_id,
        index: 0,
        result: ended.result,
        last: true,
        batch_from: None,
        tag: ended.tag,
        sqlstate: ended.sqlstate.as_deref(),
        rows: counts.rows,
        bytes: counts.bytes,
        cells_masked: counts.cells_masked,
        duration_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        policy,
    }
}

fn masked(facts: &RecordFacts) -> Vec<MaskedColumn<'_>> {
    facts
        .masked
        .iter()
        .map(|masked| MaskedColumn { column: &masked.column, label: &masked.label, mask: masked.mask })
        .collect()
}

fn parameters(intent: Intent<'_>) -> Vec<Parameter<'_>> {
    let (values, format): (_, &dyn Fn(usize) -> Option<Format>) = match intent {
        Intent::Query | Intent::Parse { .. } => return Vec::new(),
        Intent::Bind(bind) => (&bind.parameters, &|index| bind.parameter_format(index)),
        Intent::FunctionCall(call) => (&call.arguments, &|index| call.argument_format(index)),
    };
    values
        .iter()
        .enumerate()
        .map(|(index, value)| Parameter { value: value.as_deref(), binary: format(index) == Some(Format::Binary) })
        .collect()
}
