//! Names in SQL: what a message's statements refer to (FETCH, EXECUTE), looked up among what the session has made,
//! and what they make (DECLARE, PREPARE). SQL and the protocol share both name spaces, as at the server.
//! A prepared statement is analysed and decided again each time it is named; a cursor keeps the plan it was declared
//! with, under the policy it was declared under.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use exeat_enforce::evaluate::{Evaluation, Permit};
use exeat_enforce::named::{KnownNames, Made, Missing, Prepared};
use exeat_enforce::refusal::{Refusal, RefusalCode};
use exeat_sql::{MessageAnalysis, Reference};
use exeat_store::state::RequestId;
use exeat_wire::Fields;

use super::counted::Resting;
use super::outcome::Intent;
use super::picture::{Refused, Unclear};
use super::send::OWN_NAME;
use super::session::{Session, SessionEnd};
use super::statements::{NAMES_MAX, Portal, Statement, Step};

/// What the names of a message stand for, or why that cannot be told.
pub(crate) enum Named {
    Known(KnownNames),
    Refuse(Box<Refused>),
    /// What was waited for has failed, and the server skips this message too.
    Skipped,
}

impl Session {
    /// Looks up what the statements refer to; names still on their way are waited for.
    pub(crate) async fn named(&mut self, analysis: &MessageAnalysis) -> Result<Named, SessionEnd> {
        let mut known = KnownNames::default();
        for reference in analysis.references() {
            while self.in_doubt(reference) {
                self.await_answers().await?;
            }
            if self.pipeline.is_skipping() {
                return Ok(Named::Skipped);
            }
            let found = match reference {
                Reference::Cursor(name) => self.know_cursor(name, &mut known),
                Reference::Prepared(name) => self.know_prepared(name, &mut known).await?,
            };
            if let Err(refused) = found {
                return Ok(Named::Refuse(refused));
            }
        }
        Ok(Named::Known(known))
    }

    fn in_doubt(&self, reference: Reference<'_>) -> bool {
        match reference {
            Reference::Cursor(name) => self.names.portal_in_doubt(name),
            Reference::Prepared(name) => self.names.statement_in_doubt(name),
        }
    }

    fn know_cursor(&self, name: &str, known: &mut KnownNames) -> Result<(), Box<Refused>> {
        let Some(portal) = self.names.portal(name) else { return Ok(()) };
        // Its masks are those of another policy: it must be declared again.
        if portal.policy != self.picture.policy.generation {
            return Err(changed(&portal.permit));
        }
        known.add_cursor(name, Arc::clone(&portal.permit));
        Ok(())
    }

    async fn know_prepared(
        &mut self,
        name: &str,
        known: &mut KnownNames,
    ) -> Result<Result<(), Box<Refused>>, SessionEnd> {
        let Some(statement) = self.names.statement(name).cloned() else { return Ok(Ok(())) };
        let Some(kind) = statement.kind().cloned() else { return Ok(Ok(())) };
        // What names others itself is not followed any further.
        if statement.analysis.references().next().is_some() {
            return Ok(Ok(()));
        }
        let (again, evaluation) = match self.evaluate_alone(&statement.sql).await? {
            Ok(evaluated) => evaluated,
            Err(Unclear::Refuse(refusal)) => return Ok(Err(Box::new(Refused::plain(refusal)))),
            Err(Unclear::Syntax(_) | Unclear::Skipped) => return Ok(Err(changed(&statement.permit))),
        };
        let permit = match evaluation {
            Evaluation::Permit(permit) => statement.runs(permit).filter(|_| statement.still_means(&again)),
            Evaluation::Refuse { refusal, facts } => return Ok(Err(Box::new(Refused { refusal, facts }))),
            Evaluation::Probe { .. } | Evaluation::Missing { .. } => None,
        };
        let Some(permit) = permit else { return Ok(Err(changed(&statement.permit))) };
        known.add_prepared(name, Prepared { kind, permit, origin: Arc::clone(&statement.permit) });
        Ok(Ok(()))
    }

    /// Whether the names a permit relies on still stand for what they did when it was given.
    pub(crate) fn still_stand(&self, permit: &Permit) -> bool {
        let names = permit.names();
        let cursors = names
            .cursors()
            .all(|(name, permit)| self.names.portal(name).is_some_and(|portal| Arc::ptr_eq(&portal.permit, permit)));
        let prepared = names.prepared().all(|(name, prepared)| {
            self.names.statement(name).is_some_and(|known| Arc::ptr_eq(&known.permit, &prepared.origin))
        });
        cursors && prepared
    }

    /// Whether a portal, or a name its statement refers to, depends on an answer still to come.
    pub(crate) fn portal_in_doubt(&self, name: &str) -> bool {
        self.names.portal_in_doubt(name)
            || self.names.portal(name).is_some_and(|portal| self.names_in_doubt_of(&portal.permit))
    }

    pub(crate) fn statement_in_doubt(&self, name: &str) -> bool {
        self.names.statement_in_doubt(name)
            || self.names.statement(name).is_some_and(|statement| self.names_in_doubt_of(&statement.permit))
    }

    fn names_in_doubt_of(&self, permit: &Permit) -> bool {
        let names = permit.names();
        names.cursors().any(|(name, _)| self.names.portal_in_doubt(name))
            || names.prepared().any(|(name, _)| self.names.statement_in_doubt(name))
    }

    /// What the statements of a permitted message do to names, each as it succeeds.
    pub(crate) fn steps(
        &self,
        permit: &Permit,
        (request_id, approval): (&Arc<str>, Option<&RequestId>),
        analysis: &Arc<MessageAnalysis>,
    ) -> Vec<(usize, Step)> {
        let mut steps = Vec::new();
        for (index, plan) in permit.plans.iter().enumerate() {
            steps.extend(plan.forgets.clone().map(|forgets| (index, Step::Forget(forgets))));
            steps.extend(plan.closes.clone().map(|closes| (index, Step::Close(closes))));
            let step = match &plan.made {
                Some(Made::Cursor { name, hold, permit }) => {
                    let cursor = self.declared(permit, *hold, request_id);
                    let cursor = Arc::new(Portal { approval: approval.cloned(), ..cursor });
                    Step::Declare { name: name.clone(), cursor }
                }
                Some(Made::Statement { name, permit, .. }) => {
                    let (sql, permit, analysis) = (Arc::from(permit.sql()), Arc::clone(permit), Arc::clone(analysis));
                    let statement = Arc::new(Statement { sql, permit, analysis, index, by_sql: true, types: None });
                    Step::Prepare { name: name.clone(), statement }
                }
                None => continue,
            };
            steps.push((index, step));
        }
        steps
    }

    fn declared(&self, permit: &Arc<Permit>, hold: bool, request_id: &Arc<str>) -> Portal {
        Portal {
            request_id: Arc::clone(request_id),
            permit: Arc::clone(permit),
            policy: self.picture.policy.generation,
            // What it reads was fixed, and held against the catalog, when it was declared.
            analysed: self.analysed(None),
            result_formats: Vec::new(),
            notifies: Vec::new(),
            bound: OnceLock::new(),
            declared: true,
            hold,
            describe_sent: AtomicBool::new(false),
            scale: OnceLock::new(),
            resting: Resting::default(),
            values: None,
            approval: None,
        }
    }

    /// Whether what the message makes has room, under names that are the client's to give.
    pub(crate) fn refuse_made(&self, permit: &Permit) -> Option<Refusal> {
        let mut made = permit.plans.iter().filter_map(|plan| plan.made.as_ref()).peekable();
        made.peek()?;
        if !self.names.has_room() || permit.plans.len() > NAMES_MAX {
            return Some(too_many_names());
        }
        made.any(|made| match made {
            Made::Cursor { name, .. } | Made::Statement { name, .. } => name == OWN_NAME,
        })
        .then(own_name)
    }

    /// The request whose outcome an Execute reports. A protocol portal's intent is its Bind's; a cursor of SQL was
    /// declared by a statement that has ended, so running it is on record first.
    pub(crate) fn execute_intent(&mut self, portal: &Portal) -> Result<Arc<str>, Box<Refusal>> {
        if !portal.declared {
            return Ok(Arc::clone(&portal.request_id));
        }
        let request_id = self.new_request();
        let permit = Arc::clone(&portal.permit);
        let _receipt = self.record_intent(&request_id, permit.sql(), &permit.facts, Intent::Query)?;
        Ok(request_id)
    }
}

fn changed(permit: &Permit) -> Box<Refused> {
    Box::new(Refused { refusal: Refusal::statement_changed(), facts: permit.facts.clone() })
}

/// The server's own words for a name nobody made.
pub(crate) fn missing_fields(missing: &Missing) -> Fields {
    Fields::new("ERROR", missing.sqlstate, &missing.message)
}

pub(crate) fn own_name() -> Refusal {
    Refusal::new(RefusalCode::Denied, format!("{OWN_NAME:?} is the gateway's own name"))
        .suggestion("use another statement or portal name")
}

pub(crate) fn too_many_names() -> Refusal {
    Refusal::new(
        RefusalCode::StatementTooLarge,
        format!("the session holds {NAMES_MAX} prepared statements or portals, the most allowed"),
    )
    .suggestion("close the ones you no longer need")
}
