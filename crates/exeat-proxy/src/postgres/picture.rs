//! The session's picture of itself, and what statements mean in it: steps 4 to 6 of the life of a query.
//! Search path and role are read on the session's own connection, the catalog through the database's snapshot,
//! the policy from the loaded one; whenever any of them may have moved, the picture is made anew before the next
//! statement is analysed.

use std::sync::Arc;

use exeat_enforce::drift::Drift;
use exeat_enforce::evaluate::{Evaluation, Permit, SessionFacts, evaluate, evaluate_with};
use exeat_enforce::mask::MaskKeys;
use exeat_enforce::plan::StateEffect;
use exeat_enforce::record::RecordFacts;
use exeat_enforce::refusal::Refusal;
use exeat_enforce::seal::SealPlan;
use exeat_policy::Principal;
use exeat_sql::catalog::{SESSION_STATE_QUERY, SessionState};
use exeat_sql::{Asking, CatalogSnapshot, MessageAnalysis, ParseFailure, Scope, TransactionCommand};
use exeat_wire::{Fields, TransactionStatus};

use super::asked::Question;
use super::catalog::{CatalogUnavailable, DatabaseCatalog, Defining};
use super::due::Due;
use super::named::{Named, missing_fields};
use super::outcome::Intent;
use super::overlay::{Overlay, Room};
use super::own::{OwnRelations, resolves_names};
use super::send::OWN_NAME;
use super::session::{Session, SessionEnd};
use crate::config::LoadedPolicy;
use crate::remembered::Generation;

/// The session's state is one row, with a list of the schemas that the role may use.
const STATE_ROOM: Room = Room { rows: 1, bytes: 4 * 1024 * 1024 };

pub(crate) struct Picture {
    pub(crate) facts: SessionFacts,
    pub(crate) policy: Arc<LoadedPolicy>,
    /// `None` only until the session's first look at itself has said which database it is in: nothing is permitted
    /// before.
    pub(crate) database: Option<Arc<DatabaseCatalog>>,
    pub(crate) scope: Arc<Scope>,
    /// Whom the statements must run as: the login's role, or its user.
    pub(crate) role: String,
    mask_keys: Arc<MaskKeys>,
    /// The session's state must be read again before the next analysis.
    pub(crate) stale: bool,
    /// A setting the state depends on was changed in the open transaction: its end may take it back.
    pub(crate) moved: bool,
    pub(crate) catalog_changed: bool,
    pub(crate) own: OwnRelations,
    /// What it defines moves what names mean for other sessions.
    pub(crate) defining: Option<Defining>,
    /// Where the snapshot in `facts` is the open transaction's, not everybody's.
    pub(crate) overlay: Option<Overlay>,
    /// Of what was accepted of the database, as the seals know it.
    revision: u64,
    /// Under which what texts come to is remembered: a new one for every new picture.
    generation: Generation,
}

/// What was found out about a text that may run.
pub(crate) type Understanding = (Arc<Permit>, Arc<MessageAnalysis>);

/// What to do with a text.
pub(crate) enum Understood {
    Permit(Arc<Permit>, Arc<MessageAnalysis>),
    Refuse(Box<Refused>),
    /// The server's own answer to what does not parse or resolve there either.
    Answered(Fields),
    /// What the server would say, which has not seen the text: it is poisoned in its place.
    Said(Fields),
    /// The gateway answers itself.
    Own(Arc<Question>),
    /// An earlier message of the same batch failed while we asked: the server skips this one too.
    Skipped,
}

/// A refusal and what the record says of the statement it concerns.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) facts: RecordFacts,
}

impl Refused {
    /// Nothing is known of the statement but its text.
    pub(crate) fn plain(refusal: Refusal) -> Self {
        Self { refusal, facts: RecordFacts::default() }
    }
}

impl Understood {
    fn refuse(refusal: Refusal) -> Self {
        Self::Refuse(Box::new(Refused::plain(refusal)))
    }
}

impl Picture {
    pub(crate) fn new(
        principal: Arc<Principal>,
        target: &str,
        policy: Arc<LoadedPolicy>,
        role: String,
        mask_keys: &Arc<MaskKeys>,
    ) -> Self {
        let facts = SessionFacts {
            principal,
            target: target.to_owned(),
            snapshot: Arc::new(CatalogSnapshot::default()),
            seals: Arc::new(SealPlan::default()),
            // Until the session says otherwise.
            administrator: true,
        };
        Self {
            facts,
            policy,
            database: None,
            scope: Arc::new(Scope::default()),
            role,
            mask_keys: Arc::clone(mask_keys),
            stale: true,
            moved: false,
            catalog_changed: false,
            own: OwnRelations::default(),
            defining: None,
            overlay: None,
            revision: 0,
            generation: Generation::new(),
        }
    }

    /// A new policy or catalog: seals are computed again, nothing evaluated before counts.
    pub(crate) fn renew(&mut self, policy: Arc<LoadedPolicy>, snapshot: Arc<CatalogSnapshot>, drift: &Drift) {
        self.overlay = None;
        let seals = SealPlan::compute(&policy.policy, &self.facts.principal, &self.facts.target, &snapshot, drift);
        self.facts.snapshot = snapshot;
        if self.scope.hidden != *seals.hidden() {
            let hidden = Arc::clone(seals.hidden());
            self.scope = Arc::new(Scope { hidden, ..Scope::clone(&self.scope) });
        }
        let seals = seals.with_keys(&self.mask_keys, &self.facts.target);
        self.facts.seals = match &self.database {
            Some(database) => database.shared_seals(seals),
            None => Arc::new(seals),
        };
        self.policy = policy;
        self.generation = Generation::new();
    }

    pub(crate) fn note_effects(&mut self, effects: impl Iterator<Item = StateEffect>) {
        for effect in effects {
            if effect.rereads_state {
                self.stale = true;
                self.moved = true;
            }
            let ends = matches!(
                effect.transaction,
                Some(
                    TransactionCommand::Commit
                        | TransactionCommand::Rollback
                        | TransactionCommand::RollbackTo
                        | TransactionCommand::Prepare
                )
            );
            self.stale |= ends && self.moved;
            self.catalog_changed |= effect.changes_catalog;
            if effect.moves_names && self.defining.is_none() {
                self.defining = self.database.as_ref().map(DatabaseCatalog::define);
            }
            self.own.note_effect(effect);
        }
    }

    /// A Sync or Query was sent: when the server has run it, the transaction may have ended and taken back what it
    /// changed. Said when it is sent, because the client may send more before the server says so.
    pub(crate) fn transaction_may_end(&mut self) {
        self.stale |= self.moved;
    }

    /// The server is between transactions, and nothing is on its way that could have begun another.
    pub(crate) fn at_rest(&mut self) {
        self.stale |= self.moved;
        self.moved = false;
        // Only now does another connection see it.
        if self.own.at_rest() {
            self.catalog_changed = true;
            if let Some(database) = &self.database {
                database.expire();
            }
            if let Some(defining) = self.defining.take() {
                defining.settle();
            }
        }
    }
}

impl Session {
    /// What the text means here and now. Waits for the server only where the picture must be renewed or the text
    /// does not resolve.
    pub(crate) async fn understand(
        &mut self,
        sql: &str,
        parameter_types: &[u32],
        extended: bool,
    ) -> Result<Understood, SessionEnd> {
        let understood = self.understand_text(sql, parameter_types, extended).await?;
        let refusal = match &understood {
            Understood::Permit(permit, _) => match self.not_anchored(permit) {
                Some(refusal) => Some(refusal),
                None => self.refused_too_often(permit).await?,
            },
            _ => None,
        };
        Ok(refusal.map_or(understood, Understood::refuse))
    }

    async fn understand_text(
        &mut self,
        sql: &str,
        parameter_types: &[u32],
        extended: bool,
    ) -> Result<Understood, SessionEnd> {
        match self.renew_picture(self.in_failed_block()).await? {
            Renewed::Yes => {}
            Renewed::Skipped => return Ok(Understood::Skipped),
            Renewed::Refuse(refusal) => return Ok(Understood::refuse(refusal)),
        }
        let failed_block = self.in_failed_block();
        let understood = self.evaluate_once(sql).await?;
        if let Ok((analysis, evaluation)) = &understood
            && let Some(answered) = self.question(sql, analysis, evaluation)
        {
            return Ok(answered);
        }
        let (statement, name, refusal) = match understood {
            Err(Unclear::Refuse(refusal)) => return Ok(Understood::refuse(refusal)),
            Err(Unclear::Skipped) => return Ok(Understood::Skipped),
            Ok((analysis, Evaluation::Permit(permit))) if failed_block && !runs_in_failed_block(&permit) => {
                drop((analysis, permit));
                return Ok(Understood::Answered(aborted_block()));
            }
            Ok((analysis, Evaluation::Permit(permit))) => {
                return Ok(match self.refuse_made(&permit) {
                    Some(refusal) => Understood::refuse(refusal),
                    None => Understood::Permit(permit, analysis),
                });
            }
            Ok((_, Evaluation::Refuse { refusal, facts })) => {
                return Ok(Understood::Refuse(Box::new(Refused { refusal, facts })));
            }
            _ if failed_block => return Ok(Understood::Answered(aborted_block())),
            Ok((_, Evaluation::Missing { missing, .. })) => return Ok(Understood::Said(missing_fields(&missing))),
            Ok((_, Evaluation::Probe { statement, name, refusal })) => (statement, Some(name), refusal),
            Err(Unclear::Syntax(refusal)) => (0..sql.len(), None, refusal),
        };
        let text = sql.get(statement).unwrap_or(sql);
        let asking = self.asking(text, name.as_deref());
        let (asked, disguised) = match &asking {
            Asking::AsItIs => (text, None),
            Asking::Disguised(disguised) => (disguised.sql.as_str(), Some(disguised)),
            Asking::Never => return Ok(Understood::refuse(refusal)),
        };
        match self.probe(asked, parameter_types, extended).await? {
            OwnAnswer::Failed(answer) => return Ok(Understood::Answered(self.told_of_names(answer, disguised))),
            OwnAnswer::Skipped => return Ok(Understood::Skipped),
            OwnAnswer::Refused(refusal) => return Ok(Understood::refuse(*refusal)),
            OwnAnswer::Done => {}
        }
        // The server knows what we do not: our catalog is behind. Once more with a new one.
        self.picture.catalog_changed = true;
        self.picture.stale = true;
        match self.renew_picture(false).await? {
            Renewed::Yes => {}
            Renewed::Skipped => return Ok(Understood::Skipped),
            Renewed::Refuse(refusal) => return Ok(Understood::refuse(refusal)),
        }
        Ok(match self.evaluate_once(sql).await? {
            Ok((analysis, Evaluation::Permit(permit))) => Understood::Permit(permit, analysis),
            Ok((_, Evaluation::Refuse { refusal, facts })) => Understood::Refuse(Box::new(Refused { refusal, facts })),
            Ok((_, Evaluation::Missing { missing, .. })) => Understood::Said(missing_fields(&missing)),
            Ok((_, Evaluation::Probe { .. })) | Err(Unclear::Syntax(_)) => Understood::refuse(refusal),
            Err(Unclear::Refuse(refusal)) => Understood::refuse(refusal),
            Err(Unclear::Skipped) => Understood::Skipped,
        })
    }

    /// Steps 4 to 6 with the picture as it is, and with what the session has under names.
    async fn evaluate_once(&mut self, sql: &str) -> Result<Evaluated, SessionEnd> {
        let alone = self.evaluate_alone(sql).await?;
        let analysis = match alone {
            Ok((analysis, _)) if analysis.references().next().is_some() => analysis,
            _ => return Ok(alone),
        };
        let names = match self.named(&analysis).await? {
            Named::Known(names) => names,
            Named::Refuse(refused) => {
                let Refused { refusal, facts } = *refused;
                return Ok(Ok((analysis, Evaluation::Refuse { refusal, facts })));
            }
            Named::Skipped => return Ok(Err(Unclear::Skipped)),
        };
        let evaluation = evaluate_with(&self.picture.facts, &self.picture.policy.policy, sql, &analysis, &names);
        Ok(Ok((analysis, evaluation)))
    }

    /// As if the session had made no names.
    pub(crate) async fn evaluate_alone(&mut self, sql: &str) -> Result<Evaluated, SessionEnd> {
        let evaluated = self.evaluate_as_seen(sql).await;
        let resolves = evaluated.as_ref().is_ok_and(|(analysis, _)| resolves_names(analysis));
        if !resolves || !self.picture.own.is_defined() || self.in_failed_block() {
            return Ok(evaluated);
        }
        // The transaction's own definitions are read when the first statement needs them.
        match self.renew_overlay().await? {
            Renewed::Yes => Ok(self.evaluate_as_seen(sql).await),
            Renewed::Refuse(refusal) => Ok(Err(Unclear::Refuse(refusal))),
            Renewed::Skipped => Ok(Err(Unclear::Skipped)),
        }
    }

    /// With the catalog of the picture.
    async fn evaluate_as_seen(&mut self, sql: &str) -> Evaluated {
        let analyser = &self.shared.dependencies.analyser;
        let (snapshot, scope) = (&self.picture.facts.snapshot, &self.picture.scope);
        let Some(database) = &self.picture.database else {
            return Err(Unclear::Refuse(Refusal::not_enforceable("the session's database is not known")));
        };
        if let Some(known) = database.remembered().evaluation(self.picture.generation, sql) {
            return Ok(known);
        }
        let analysis = match database.analyse(analyser, snapshot, scope, sql).await {
            None => return Err(Unclear::Refuse(Refusal::not_enforceable("the parser pool is overloaded"))),
            Some(Ok(analysis)) => analysis,
            Some(Err(failure @ ParseFailure::Syntax { .. })) => {
                return Err(Unclear::Syntax(Refusal::parse_failure(&failure)));
            }
            Some(Err(failure)) => return Err(Unclear::Refuse(Refusal::parse_failure(&failure))),
        };
        let evaluation = evaluate(&self.picture.facts, &self.picture.policy.policy, sql, &analysis);
        let evaluated = (analysis, evaluation);
        database.remembered().keep_evaluation(self.picture.generation, sql, &evaluated);
        Ok(evaluated)
    }

    /// The catalog moved while a statement ran that means the same all the same. `None`: what follows cannot be told.
    pub(crate) async fn catalog_moved(&mut self, snapshot: Arc<CatalogSnapshot>) -> Option<()> {
        let policy = Arc::clone(&self.picture.policy);
        let drift = self.drift(&policy, &snapshot).await?;
        self.picture.renew(policy, snapshot, &drift);
        self.picture.stale = true;
        Some(())
    }

    /// What follows from what is known of the database. `None`: it cannot be told, which the log says.
    pub(crate) async fn drift(&self, policy: &LoadedPolicy, snapshot: &CatalogSnapshot) -> Option<Arc<Drift>> {
        let database = self.picture.database.as_ref()?;
        self.for_itself(database.drift(policy, snapshot).await)
    }

    /// As `drift`, of a catalog that only this session sees: nothing of it is kept.
    pub(crate) async fn drift_apart(&self, policy: &LoadedPolicy, snapshot: &CatalogSnapshot) -> Option<Arc<Drift>> {
        let database = self.picture.database.as_ref()?;
        self.for_itself(database.drift_apart(policy, snapshot).await)
    }

    fn for_itself(&self, drift: Result<Arc<Drift>, CatalogUnavailable>) -> Option<Arc<Drift>> {
        let own = self.picture.own.proven();
        drift
            .map(|drift| if own.is_empty() { drift } else { Arc::new(drift.with_own(own)) })
            .inspect_err(|problem| {
                tracing::error!(target_name = %self.target.name, problem = exeat_store::chain(problem), "statements are refused");
            })
            .ok()
    }

    /// Brings policy, catalog and session state up to date.
    pub(crate) async fn renew_picture(&mut self, failed_block: bool) -> Result<Renewed, SessionEnd> {
        self.await_definitions().await?;
        if self.picture.own.is_defined() {
            return self.renew_judgement().await;
        }
        let Some(snapshot) = self.renew_snapshot().await? else {
            return Ok(Renewed::Refuse(Refusal::not_enforceable("the database's catalog cannot be read")));
        };
        let catalog_moved = snapshot.version() != self.picture.facts.snapshot.version();
        let policy_moved = self.shared.dependencies.policy.load().generation != self.picture.policy.generation;
        if catalog_moved {
            self.picture.own.find(&self.picture.facts.snapshot, &snapshot);
        }
        if policy_moved {
            self.picture.own.forget();
        }
        // Before it is read: what is accepted meanwhile is seen next time.
        let revision = self.picture.database.as_ref().map_or(0, |database| database.revision());
        if policy_moved || catalog_moved || revision != self.picture.revision {
            let policy = self.shared.dependencies.policy.load_full();
            let Some(drift) = self.drift(&policy, &snapshot).await else {
                return Ok(Renewed::Refuse(Refusal::not_enforceable("what is known of the database cannot be read")));
            };
            self.picture.renew(policy, snapshot, &drift);
            self.picture.revision = revision;
            // A schema that was made, dropped, renamed or granted changes what the path means without any SET.
            self.picture.stale |= catalog_moved;
        }
        // In a failed block nothing can be read, and nothing but its end will run.
        if self.picture.stale && !failed_block {
            return self.read_state().await;
        }
        Ok(Renewed::Yes)
    }

    /// Within a transaction that has defined something: policy and what was accepted. What names mean is read where a
    /// statement needs it, for the locks of this transaction may be in the way of whoever else reads it.
    async fn renew_judgement(&mut self) -> Result<Renewed, SessionEnd> {
        let policy = self.shared.dependencies.policy.load_full();
        let policy_moved = policy.generation != self.picture.policy.generation;
        let revision = self.picture.database.as_ref().map_or(0, |database| database.revision());
        if policy_moved {
            self.picture.own.forget();
        }
        if policy_moved || revision != self.picture.revision {
            let snapshot = Arc::clone(&self.picture.facts.snapshot);
            let Some(drift) = self.drift_apart(&policy, &snapshot).await else {
                return Ok(Renewed::Refuse(Refusal::not_enforceable("what is known of the database cannot be read")));
            };
            self.picture.renew(policy, snapshot, &drift);
            self.picture.revision = revision;
        }
        Ok(Renewed::Yes)
    }

    /// What was defined is in the catalog only when the server has run it.
    async fn await_definitions(&mut self) -> Result<(), SessionEnd> {
        if !self.picture.own.is_defined() || self.pipeline.due() == 0 {
            return Ok(());
        }
        if self.batch_open {
            self.sender().flush();
        }
        while self.pipeline.due() > 0 && !self.pipeline.is_skipping() && !self.pipeline.is_copying_in() {
            self.await_answers().await?;
        }
        Ok(())
    }

    /// The catalog as it is within the bound. `None`: it cannot be read.
    async fn renew_snapshot(&mut self) -> Result<Option<Arc<CatalogSnapshot>>, SessionEnd> {
        let Some(database) = self.picture.database.clone() else { return Ok(None) };
        let changed = std::mem::take(&mut self.picture.catalog_changed);
        let read = async { if changed { database.refresh(true).await } else { database.snapshot().await } };
        let read = self.while_client_stays(read).await?;
        Ok(read
            .inspect_err(|problem| {
                self.picture.catalog_changed = true;
                tracing::error!(target_name = %self.target.name, problem = exeat_store::chain(problem), "catalog could not be read");
            })
            .ok())
    }

    /// Search path, role and database, read on this connection.
    pub(crate) async fn read_state(&mut self) -> Result<Renewed, SessionEnd> {
        self.cancelling.settle().await;
        self.own.begin(STATE_ROOM);
        self.sender().catalog_read(SESSION_STATE_QUERY)?;
        match self.end_own_exchange().await? {
            OwnAnswer::Done => {}
            OwnAnswer::Skipped => return Ok(Renewed::Skipped),
            OwnAnswer::Refused(refusal) => return Ok(Renewed::Refuse(*refusal)),
            // The block failed behind answers that were still on their way: only its end can run now, and that needs
            // no names.
            OwnAnswer::Failed(_) if self.in_failed_block() => return Ok(Renewed::Yes),
            OwnAnswer::Failed(problem) => {
                tracing::error!(sqlstate = ?problem.sqlstate(), "session state could not be read");
                return Ok(Renewed::Refuse(Refusal::not_enforceable("the session's own state cannot be read")));
            }
        }
        let row = self.own.rows.pop().ok_or_else(|| SessionEnd::State("no row".to_owned()))?;
        let state = SessionState::from_row(&row).map_err(|problem| SessionEnd::State(problem.to_string()))?;
        if state.current_user != self.picture.role {
            return Err(SessionEnd::Role { expected: self.picture.role.clone(), found: state.current_user });
        }
        let hidden = Arc::clone(&self.picture.scope.hidden);
        let scope = Scope { hidden, ..state.scope(!self.picture.moved) };
        if *self.picture.scope != scope || self.picture.facts.administrator != state.administrator {
            self.picture.facts.administrator = state.administrator;
            self.picture.scope = Arc::new(scope);
            self.picture.generation = Generation::new();
        }
        self.picture.stale = false;
        self.own.state = Some(state);
        Ok(Renewed::Yes)
    }

    pub(crate) fn in_failed_block(&self) -> bool {
        self.status == TransactionStatus::Failed && self.pipeline.due() == 0
    }

    /// Asks the server to parse what we cannot. `Some`: its error is the answer.
    async fn probe(&mut self, sql: &str, parameter_types: &[u32], extended: bool) -> Result<OwnAnswer, SessionEnd> {
        self.cancelling.settle().await;
        // The server sees this text before anybody has understood it: that too is on record first.
        let request_id = self.new_request();
        if let Err(refusal) = self.record_intent(&request_id, sql, &probe_facts(), Intent::Parse { name: OWN_NAME }) {
            return Ok(OwnAnswer::Refused(refusal));
        }
        let types = if extended { parameter_types } else { &[] };
        self.sender().parse_probe(sql, types)?;
        self.end_own_exchange().await
    }

    /// Ends the gateway's own messages and waits for their answers. Inside a batch of the client's with a Flush: a
    /// Sync would commit it. Else with a Sync, which also ends a skip after an error.
    pub(crate) async fn end_own_exchange(&mut self) -> Result<OwnAnswer, SessionEnd> {
        if self.batch_open {
            self.sender().flush();
        } else {
            self.sender().sync(Due::Own);
        }
        while self.pipeline.iter().any(|(_, due)| matches!(due, Due::Own)) {
            self.await_answers().await?;
        }
        Ok(match self.own.failed.take() {
            Some(problem) => OwnAnswer::Failed(problem),
            // Not our message failed but one of the client's before it, and the server skips both.
            None if self.pipeline.is_skipping() => OwnAnswer::Skipped,
            None => OwnAnswer::Done,
        })
    }
}

/// What became of the gateway's own exchange on this connection.
pub(crate) enum OwnAnswer {
    Done,
    Failed(Fields),
    Skipped,
    /// It was not sent.
    Refused(Box<Refusal>),
}

/// What became of bringing the picture up to date.
pub(crate) enum Renewed {
    Yes,
    Refuse(Refusal),
    Skipped,
}

type Evaluated = Result<(Arc<MessageAnalysis>, Evaluation), Unclear>;

/// Why a text has no evaluation.
pub(crate) enum Unclear {
    /// Our grammar does not take it; the server may.
    Syntax(Refusal),
    Refuse(Refusal),
    Skipped,
}

fn probe_facts() -> RecordFacts {
    RecordFacts {
        kinds: vec!["probe"],
        reasons: vec!["does not parse or resolve here: the server is asked to parse it, not to run it".to_owned()],
        ..RecordFacts::default()
    }
}

/// Its end, and a text without a statement, which the server answers in any state.
fn runs_in_failed_block(permit: &Permit) -> bool {
    permit.plans.first().is_none_or(|plan| {
        matches!(
            plan.effect.transaction,
            Some(
                TransactionCommand::Commit
                    | TransactionCommand::Rollback
                    | TransactionCommand::RollbackTo
                    | TransactionCommand::Prepare
            )
        )
    })
}

/// What the server says to anything but the end of a failed block. Said here because names cannot be resolved there.
fn aborted_block() -> Fields {
    Fields::new("ERROR", "25P02", "current transaction is aborted, commands ignored until end of transaction block")
}
