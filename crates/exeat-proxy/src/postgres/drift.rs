//! What is known of a database, and what has drifted from it. Taken when the first session finds labelled relations
//! there; judged for all sessions of the database at once, when the catalog moved, the policy, or what was accepted. A
//! store that cannot be read or written leaves nothing to judge by, and no statement passes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use exeat_enforce::drift::{self, Drift};
use exeat_policy::baseline::Known;
use exeat_sql::CatalogSnapshot;
use exeat_sql::catalog::Pins;
use exeat_store::StoreError;
use exeat_store::record::{BaselineChange, BaselineEvent, Recorder};
use exeat_store::state::{DatabaseRef, State, StateError, Taken};
use jiff::Timestamp;

use crate::config::{LoadedPolicy, Target};

#[derive(Debug, thiserror::Error)]
pub(crate) enum DriftError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("what was taken as the baseline could not be recorded")]
    Record(#[from] StoreError),
}

/// What was judged, and from what.
#[derive(Debug)]
pub(crate) struct Judged {
    catalog: u64,
    policy: u64,
    /// Of the state store; `known` is as of it.
    revision: u64,
    known: Option<Arc<Known>>,
    pub(crate) drift: Arc<Drift>,
}

impl Judged {
    pub(crate) fn is_of(&self, snapshot: &CatalogSnapshot, policy: &LoadedPolicy, state: &State) -> bool {
        self.catalog == snapshot.version() && self.policy == policy.generation && self.revision == state.revision()
    }
}

/// Where knowledge is kept and its changes are recorded.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) state: State,
    pub(crate) recorder: Arc<Recorder>,
}

impl Keeper {
    /// `before`: what was judged of this database last.
    pub(crate) async fn judge(
        &self,
        target: &Target,
        snapshot: &CatalogSnapshot,
        policy: &LoadedPolicy,
        before: Option<&Judged>,
    ) -> Result<Judged, DriftError> {
        let labels = policy.policy.labels(&target.name);
        // Before what is read: a change in between makes this one out of date, not the next.
        let mut revision = self.state.revision();
        let mut known = None;
        if !labels.is_empty() {
            known = match before.filter(|before| before.revision == revision).and_then(|before| before.known.clone()) {
                Some(known) => Some(known),
                None => self.known(target, snapshot, policy).await?.map(Arc::new),
            };
        }
        let database = DatabaseRef { target: &target.name, name: snapshot.database_name() };
        if let Some(before) = known.take() {
            let unbound = drift::unbound(labels, snapshot, &before);
            known = Some(before);
            if !unbound.is_empty() {
                let added = self.state.bind(database, &unbound).await?;
                let count = usize::try_from(added).unwrap_or(usize::MAX);
                self.record(BaselineEvent::Bound, database, (0, count))?;
                known = self.state.known(database).await?.map(Arc::new);
            }
            revision = self.state.revision();
        }
        let drift = match &known {
            Some(known) => drift::examine(labels, snapshot, known, target.unclassified),
            None => drift::untrusted(snapshot),
        };
        let (catalog, policy) = (snapshot.version(), policy.generation);
        Ok(Judged { catalog, policy, revision, known, drift: Arc::new(drift) })
    }

    /// As `judge`, of a catalog that one session alone sees: nothing is taken, nothing bound.
    pub(crate) async fn judge_apart(
        &self,
        target: &Target,
        snapshot: &CatalogSnapshot,
        policy: &LoadedPolicy,
    ) -> Result<Arc<Drift>, DriftError> {
        let labels = policy.policy.labels(&target.name);
        if labels.is_empty() {
            return Ok(Arc::default());
        }
        let database = DatabaseRef { target: &target.name, name: snapshot.database_name() };
        let known = self.state.known(database).await?;
        Ok(known
            .map_or_else(Arc::default, |known| Arc::new(drift::examine(labels, snapshot, &known, target.unclassified))))
    }

    /// What trusted names stand for, of those that were ever seen.
    pub(crate) async fn pins(&self, database: DatabaseRef<'_>) -> Result<Pins, DriftError> {
        Ok(Pins(self.state.pins(database).await?))
    }

    /// Takes what names seen for the first time stand for. What holds then comes back.
    pub(crate) async fn pin(&self, database: DatabaseRef<'_>, found: &Pins) -> Result<Pins, DriftError> {
        let held = self.state.pin(database, &found.0, Timestamp::now()).await?;
        tracing::info!(
            target_name = database.target,
            database = database.name,
            pinned = held.len(),
            "trusted definitions taken"
        );
        Ok(Pins(held))
    }

    /// `None`: nothing is known, and there is nothing to take.
    async fn known(
        &self,
        target: &Target,
        snapshot: &CatalogSnapshot,
        policy: &LoadedPolicy,
    ) -> Result<Option<Known>, DriftError> {
        let database = DatabaseRef { target: &target.name, name: snapshot.database_name() };
        if let Some(known) = self.state.known(database).await? {
            return Ok(Some(known));
        }
        let found = drift::observe(policy.policy.labels(&target.name), snapshot);
        if found.bindings.is_empty() {
            return Ok(None);
        }
        match self.state.take_baseline(database, &found, Timestamp::now()).await? {
            Taken::Before(known) => Ok(Some(known)),
            Taken::Now => {
                let counts = (found.baseline.len(), found.bindings.len());
                tracing::info!(
                    target_name = database.target,
                    database = database.name,
                    relations = counts.0,
                    bindings = counts.1,
                    "baseline taken"
                );
                self.record(BaselineEvent::Taken, database, counts)?;
                Ok(Some(found))
            }
        }
    }

    fn record(
        &self,
        what: BaselineEvent,
        database: DatabaseRef<'_>,
        (relations, bindings): (usize, usize),
    ) -> Result<(), StoreError> {
        let change = BaselineChange {
            what,
            target: database.target,
            database: database.name,
            relations,
            bindings,
            definitions: 0,
            by: None,
        };
        self.recorder.baseline_changed(&change)
    }
}

/// What each database was last seen to have drifted by, for readiness. By target and database.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    databases: Mutex<BTreeMap<(String, String), Arc<Drift>>>,
}

impl Seen {
    pub(crate) fn note(&self, target: &str, database: &str, drift: &Arc<Drift>) {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.insert((target.to_owned(), database.to_owned()), Arc::clone(drift));
    }

    pub(crate) fn all(&self) -> Vec<(String, String, Arc<Drift>)> {
        let databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.iter().map(|((target, name), drift)| (target.clone(), name.clone(), Arc::clone(drift))).collect()
    }
}
