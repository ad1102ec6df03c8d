//! Between analysis and answer the server may have waited for a lock, and the catalog may have moved under the
//! statement. An answer that begins later than the catalog's bound, or while or after other
//! sessions of this gateway were defining something, or any answer where the catalog is taken strictly, is held until the
//! catalog was looked at again; if it moved, the statement is analysed and decided once more, and its answer passes only where it means the same
//! under definitions that nobody touched. Else the session ends before a byte of it.

use std::sync::Arc;
use std::time::Instant;

use exeat_enforce::evaluate::{Evaluation, Permit, SessionFacts, evaluate_with};
use exeat_enforce::plan::Outputs;
use exeat_enforce::seal::SealPlan;
use exeat_sql::{Analysis, CatalogSnapshot, Lineage, MessageAnalysis, Oid, Scope, Versions};
use exeat_wire::BackendMessage;

use super::answers::is_asynchronous;
use super::catalog::DatabaseCatalog;
use super::due::Due;
use super::own::resolves_names;
use super::session::{Done, Session, SessionEnd};
use crate::config::Target;

/// What a statement was analysed against, and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Analysed {
    /// Version of the catalog.
    pub(crate) catalog: u64,
    pub(crate) versions: Arc<Versions>,
    /// It was this connection's own, with DDL that nobody else sees: the fingerprint of everybody's beside it.
    pub(crate) beside: Option<Arc<str>>,
    pub(crate) scope: Arc<Scope>,
    /// `None` for a FunctionCall: nothing was analysed, so nothing can have come to mean something else.
    pub(crate) analysis: Option<Arc<MessageAnalysis>>,
    pub(crate) at: Instant,
}

impl Analysed {
    /// Whether functions in SQL are called. The server holds no lock on those, and reads their bodies when it first
    /// calls them: before any row, and in a portal long after it was bound.
    fn calls_bodies(&self) -> bool {
        self.analysis.as_ref().is_some_and(|analysis| known(analysis).any(|lineage| !lineage.functions.is_empty()))
    }
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) analysed: Analysed,
    verified: Instant,
    /// The current statement's answer has begun: what it reads is fixed.
    open: bool,
}

impl Gate {
    pub(crate) fn new(analysed: Analysed) -> Self {
        let verified = if analysed.calls_bodies() { analysed.at } else { Instant::now() };
        Self { analysed, verified, open: false }
    }

    /// Whether the catalog must be looked at before the answer may begin. `defined`: another session of this gateway has
    /// had definitions under way since the analysis, whose locks the statement may have waited for.
    fn holds(&self, target: &Target, defined: bool) -> bool {
        let strictly = !self.open && (target.catalog_strict || defined) && self.resolves_names();
        (!self.open || self.analysed.calls_bodies()) && (strictly || self.verified.elapsed() > target.catalog_bound)
    }

    fn resolves_names(&self) -> bool {
        self.analysed.analysis.as_ref().is_some_and(|analysis| resolves_names(analysis))
    }

    /// The next statement of the same message begins.
    pub(crate) fn shut(&mut self) {
        self.open = false;
    }
}

impl Session {
    pub(crate) fn analysed(&self, analysis: Option<Arc<MessageAnalysis>>) -> Analysed {
        let snapshot = &self.picture.facts.snapshot;
        Analysed {
            catalog: snapshot.version(),
            versions: Arc::clone(snapshot.versions()),
            beside: self.picture.overlay.as_ref().map(|overlay| Arc::clone(&overlay.beside)),
            scope: Arc::clone(&self.picture.scope),
            analysis,
            at: Instant::now(),
        }
    }

    /// Before the first byte of an answer that was long in coming: does the statement still mean what was analysed?
    pub(crate) async fn pass_gate(&mut self, message: &BackendMessage) -> Done {
        // ReadyForQuery carries nothing of a statement's answer.
        if is_asynchronous(message) || matches!(message, BackendMessage::ReadyForQuery(_)) {
            return Ok(());
        }
        let Some(gate) = self.front_gate() else { return Ok(()) };
        // A definition moves the catalog itself, and its answer is a tag or a rebuilt error.
        if !gate.holds(&self.target, self.was_defined(gate.analysed.at)) || self.front_defines() {
            return self.open_gate();
        }
        let Some(database) = self.picture.database.clone() else { return Err(SessionEnd::CatalogMoved) };
        if let Some(beside) = gate.analysed.beside.clone() {
            return self.pass_gate_beside(&database, &beside).await;
        }
        // Read after the answer began, so after any change the statement can have waited for.
        let now = self.while_client_stays(database.refresh(false)).await?.map_err(|problem| {
            tracing::error!(target_name = %self.target.name, problem = exeat_store::chain(&problem), "catalog could not be read");
            SessionEnd::CatalogMoved
        })?;
        let Some(gate) = self.front_gate() else { return Ok(()) };
        if now.version() != gate.analysed.catalog {
            let analysed = gate.analysed.clone();
            if !self.means_the_same(&analysed, &now).await {
                return Err(SessionEnd::CatalogMoved);
            }
            if self.catalog_moved(Arc::clone(&now)).await.is_none() {
                return Err(SessionEnd::CatalogMoved);
            }
        }
        if let Some(gate) = self.front_gate_mut() {
            gate.analysed.catalog = now.version();
            gate.analysed.versions = Arc::clone(now.versions());
            gate.verified = Instant::now();
        }
        self.open_gate()
    }

    /// Whether what this session's names mean may have been moved by another's definitions since then.
    pub(crate) fn was_defined(&self, since: Instant) -> bool {
        let own = self.picture.defining.as_ref();
        self.picture.database.as_ref().is_some_and(|database| database.was_defined(since, own))
    }

    /// While the statement runs its own connection cannot be asked, and the transaction's own definitions cannot have
    /// changed: it is enough that nobody else's have.
    async fn pass_gate_beside(&mut self, database: &DatabaseCatalog, beside: &str) -> Done {
        let now = self.while_client_stays(database.fingerprint()).await?.map_err(|problem| {
            tracing::error!(target_name = %self.target.name, problem = exeat_store::chain(&problem), "catalog could not be read");
            SessionEnd::CatalogMoved
        })?;
        if *now != *beside {
            return Err(SessionEnd::CatalogMoved);
        }
        if let Some(gate) = self.front_gate_mut() {
            gate.verified = Instant::now();
        }
        self.open_gate()
    }

    fn open_gate(&mut self) -> Done {
        if let Some(gate) = self.front_gate_mut() {
            gate.open = true;
        }
        Ok(())
    }

    fn front_defines(&self) -> bool {
        let (gate, index) = match self.pipeline.front() {
            Some((_, Due::Query(query))) => (&query.gate, query.index),
            Some((_, Due::Execute(execute))) => (&execute.gate, 0),
            Some(_) | None => return false,
        };
        let statement = gate.analysed.analysis.as_ref().and_then(|analysis| analysis.statements.get(index));
        match statement.map(|statement| &statement.analysis) {
            Some(Analysis::Known(lineage)) => lineage.defines.is_some() && lineage.outputs.is_none(),
            Some(Analysis::Opaque(_) | Analysis::Unresolved { .. }) | None => false,
        }
    }

    fn front_gate(&self) -> Option<&Gate> {
        match self.pipeline.front() {
            Some((_, Due::Query(query))) => Some(&query.gate),
            Some((_, Due::Execute(execute))) => Some(&execute.gate),
            Some(_) | None => None,
        }
    }

    fn front_gate_mut(&mut self) -> Option<&mut Gate> {
        match self.pipeline.front_mut() {
            Some((_, Due::Query(query))) => Some(&mut query.gate),
            Some((_, Due::Execute(execute))) => Some(&mut execute.gate),
            Some(_) | None => None,
        }
    }

    /// Analysed, decided and planned again against the catalog of now: is anything different?
    async fn means_the_same(&self, analysed: &Analysed, now: &Arc<CatalogSnapshot>) -> bool {
        let (permit, described) = match self.pipeline.front() {
            Some((_, Due::Query(query))) => (&query.permit, false),
            Some((_, Due::Execute(execute))) => (&execute.portal.permit, execute.portal.bound.get().is_some()),
            Some(_) | None => return false,
        };
        let Some(before) = &analysed.analysis else { return true };
        // What a prepared statement reads is not told by the text that executes it.
        if permit.names().prepared().next().is_some() {
            return false;
        }
        // Masks by origin that were bound under the old catalog may lack a column that is sealed by now.
        if described && permit.plans.iter().any(|plan| plan.outputs == Outputs::ByOrigin) {
            return false;
        }
        let touched = touched(before).chain(analysed.scope.search_path.iter().copied());
        if !touched.into_iter().all(|oid| analysed.versions.agree(now.versions(), oid)) {
            return false;
        }
        let Some(database) = &self.picture.database else { return false };
        let analyser = &self.shared.dependencies.analyser;
        match database.analyse(analyser, now, &analysed.scope, permit.sql()).await {
            Some(Ok(again)) => again == *before && self.decides_the_same(permit, &again, now).await,
            Some(Err(_)) | None => false,
        }
    }

    async fn decides_the_same(&self, permit: &Permit, analysis: &MessageAnalysis, now: &Arc<CatalogSnapshot>) -> bool {
        let facts = &self.picture.facts;
        let policy = &self.picture.policy.policy;
        let Some(drift) = self.drift(&self.picture.policy, now).await else { return false };
        let seals = SealPlan::compute(policy, &facts.principal, &facts.target, now, &drift);
        if seals.is_empty() != facts.seals.is_empty() {
            return false;
        }
        let facts = SessionFacts { snapshot: Arc::clone(now), seals: Arc::new(seals), ..facts.clone() };
        match evaluate_with(&facts, policy, permit.sql(), analysis, permit.names()) {
            Evaluation::Permit(again) => again.plans == permit.plans,
            Evaluation::Refuse { .. } | Evaluation::Probe { .. } | Evaluation::Missing { .. } => false,
        }
    }
}

fn known(analysis: &MessageAnalysis) -> impl Iterator<Item = &Lineage> {
    analysis.statements.iter().filter_map(|statement| match &statement.analysis {
        Analysis::Known(lineage) => Some(&**lineage),
        Analysis::Opaque(_) | Analysis::Unresolved { .. } => None,
    })
}

/// Every relation the statements read, write, reach or look a key up in, and every function whose body they run.
fn touched(analysis: &MessageAnalysis) -> impl Iterator<Item = Oid> {
    known(analysis).flat_map(|lineage| {
        let named = lineage.reads.iter().chain(&lineage.writes).chain(&lineage.reaches).copied();
        let named = named.chain(lineage.functions.iter().copied());
        named.chain(lineage.uses.iter().map(|used| used.column.relation))
    })
}
