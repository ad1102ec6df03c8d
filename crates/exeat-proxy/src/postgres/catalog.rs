//! What the gateway knows of one database's catalog, kept fresh within the target's bound.
//! One catalog connection per database, opened when a session needs it and closed with the last one, or when none
//! has asked for a while: a connection that nobody uses stands in the way of DROP DATABASE and the like.
//! Never answers with a snapshot older than the bound: then it reads again, or says that it cannot.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use exeat_enforce::drift::Drift;
use exeat_sql::catalog::{FINGERPRINT_QUERY, Pins, QUERIES};
use exeat_sql::{CatalogError, CatalogSnapshot, MessageAnalysis, Oid, ParseFailure, Scope};
use tokio::sync::Mutex as AsyncMutex;

use super::drift::{DriftError, Judged, Keeper, Seen};
use crate::config::{AnalyseRequest, Analyser, LoadedPolicy, Target};
use crate::remembered::{AnalysisKey, Generation, Remembered};
use crate::upstream::{CatalogConnection, LoginConfig, UpstreamError};

/// Idle for this long, sessions wait for a new catalog connection when they come back: some ten milliseconds.
const REST_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogUnavailable {
    #[error("the catalog connection failed")]
    Upstream(#[from] UpstreamError),
    #[error("the catalog does not read as expected")]
    Shape(#[from] CatalogError),
    #[error("the catalog could not be read a moment ago")]
    JustFailed,
    #[error("the catalog connection reached database {found} where the session is in {expected}")]
    OtherDatabase { expected: u32, found: u32 },
    #[error("what is known of the database cannot be told")]
    Known(#[from] DriftError),
}

/// All databases known to the data plane.
#[derive(Debug)]
pub(crate) struct Catalogs {
    databases: Mutex<HashMap<DatabaseKey, Weak<DatabaseCatalog>>>,
    keeper: Keeper,
    seen: Arc<Seen>,
    pins: Mutex<HashMap<DatabaseKey, SharedPins>>,
    remembered: Arc<Remembered>,
}

/// What the names that the target's configuration trusts stood for when they were first seen: for as long as the
/// process lives, whoever comes and goes.
type SharedPins = Arc<AsyncMutex<Pins>>;

/// The OID is what sessions are in; the name is what a catalog connection asks for, and a database may get another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DatabaseKey {
    target: String,
    database: Oid,
    name: String,
}

impl Catalogs {
    pub(crate) fn new(keeper: Keeper) -> Self {
        let databases = Mutex::default();
        Self { databases, keeper, seen: Arc::default(), pins: Mutex::default(), remembered: Arc::default() }
    }

    /// What was last seen of every database, by target and name.
    pub(crate) fn drift(&self) -> Vec<(String, String, Arc<Drift>)> {
        self.seen.all()
    }

    /// The catalog of the database a session is in. `login` is the session's own: the catalog connection uses the
    /// login of the session that opened it.
    pub(crate) fn database(
        &self,
        target: &Arc<Target>,
        database: Oid,
        login: &Arc<LoginConfig>,
    ) -> Arc<DatabaseCatalog> {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.retain(|_, known| known.strong_count() > 0);
        let name = target.upstream.database().to_owned();
        let key = DatabaseKey { target: target.name.clone(), database, name };
        if let Some(known) = databases.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let pins = Arc::clone(self.pins.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default());
        let catalog = Arc::new(DatabaseCatalog {
            pins,
            target: Arc::clone(target),
            database,
            login: Arc::clone(login),
            current: ArcSwapOption::empty(),
            asked: AtomicBool::new(true),
            connection: AsyncMutex::new(Reader { connection: None, version: 0, failed_at: None }),
            generation: Generation::new(),
            remembered: Arc::clone(&self.remembered),
            keeper: self.keeper.clone(),
            seen: Arc::clone(&self.seen),
            judged: ArcSwapOption::empty(),
        });
        databases.insert(key, Arc::downgrade(&catalog));
        tokio::spawn(poll(Arc::downgrade(&catalog), target.catalog_bound));
        catalog
    }
}

/// Re-reads the fingerprint well within the bound, as long as sessions ask.
async fn poll(catalog: Weak<DatabaseCatalog>, bound: Duration) {
    let mut asked_at = Instant::now();
    loop {
        tokio::time::sleep(bound / 2).await;
        let Some(catalog) = catalog.upgrade() else { return };
        if catalog.asked.swap(false, Ordering::Relaxed) {
            asked_at = Instant::now();
        }
        if asked_at.elapsed() > REST_AFTER {
            catalog.rest().await;
            continue;
        }
        // A session that must know says so itself; here a failure only means that the snapshot ages.
        if let Err(problem) = catalog.refresh(false).await {
            tracing::warn!(target_name = %catalog.target.name, problem = exeat_store::chain(&problem), "catalog could not be read");
        }
    }
}

#[derive(Debug)]
pub(crate) struct DatabaseCatalog {
    target: Arc<Target>,
    database: Oid,
    login: Arc<LoginConfig>,
    current: ArcSwapOption<Verified>,
    /// Since the last look of `poll`.
    asked: AtomicBool,
    /// Single flight: whoever holds it reads for all.
    connection: AsyncMutex<Reader>,
    generation: Generation,
    remembered: Arc<Remembered>,
    keeper: Keeper,
    seen: Arc<Seen>,
    pins: SharedPins,
    judged: ArcSwapOption<Judged>,
}

impl Drop for DatabaseCatalog {
    /// The server would log a lost connection.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.get_mut().connection.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn(connection.close()));
        }
    }
}

#[derive(Debug)]
struct Reader {
    connection: Option<CatalogConnection>,
    version: u64,
    /// Those who waited through a failure share it instead of trying one after another.
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct Verified {
    snapshot: Arc<CatalogSnapshot>,
    fingerprint: String,
    at: Instant,
}

impl DatabaseCatalog {
    /// A snapshot verified within the bound.
    pub(crate) async fn snapshot(&self) -> Result<Arc<CatalogSnapshot>, CatalogUnavailable> {
        self.asked.store(true, Ordering::Relaxed);
        if let Some(verified) = self.fresh() {
            return Ok(verified);
        }
        self.refresh(false).await
    }

    fn fresh(&self) -> Option<Arc<CatalogSnapshot>> {
        let current = self.current.load();
        let verified = current.as_ref()?;
        (verified.at.elapsed() <= self.target.catalog_bound).then(|| Arc::clone(&verified.snapshot))
    }

    /// Compares the fingerprint and loads again if it changed. `changed`: the caller knows that it did.
    pub(crate) async fn refresh(&self, changed: bool) -> Result<Arc<CatalogSnapshot>, CatalogUnavailable> {
        let asked = Instant::now();
        let mut reader = self.connection.lock().await;
        // Somebody else read while we waited for the lock.
        if let Some(verified) = self.current.load_full().filter(|verified| verified.at > asked) {
            return Ok(Arc::clone(&verified.snapshot));
        }
        if reader.failed_at.is_some_and(|failed_at| failed_at > asked) {
            return Err(CatalogUnavailable::JustFailed);
        }
        let read = self.read(&mut reader, changed).await;
        if read.is_err() {
            reader.connection = None;
            reader.failed_at = Some(Instant::now());
        }
        read
    }

    async fn rest(&self) {
        let connection = self.connection.lock().await.connection.take();
        if let Some(connection) = connection {
            connection.close().await;
        }
    }

    async fn read(&self, reader: &mut Reader, changed: bool) -> Result<Arc<CatalogSnapshot>, CatalogUnavailable> {
        let at = Instant::now();
        // Put back when all is read: whoever stops waiting leaves no connection in the middle of an answer.
        let mut connection = match reader.connection.take() {
            Some(connection) => connection,
            None => CatalogConnection::connect(&self.target.upstream, &self.login).await?,
        };
        let fingerprint = single_value(connection.query(FINGERPRINT_QUERY).await?);
        let unchanged = self.current.load_full().filter(|verified| !changed && verified.fingerprint == fingerprint);
        if let Some(verified) = unchanged {
            let snapshot = Arc::clone(&verified.snapshot);
            self.current.store(Some(Arc::new(Verified { snapshot: Arc::clone(&snapshot), fingerprint, at })));
            reader.connection = Some(connection);
            return Ok(snapshot);
        }
        let rows = read_all(&mut connection).await?;
        reader.connection = Some(connection);
        reader.version += 1;
        let mut pins = self.pins.lock().await;
        let snapshot = Arc::new(CatalogSnapshot::build_trusting(reader.version, &rows, &self.target.trust, &pins)?);
        if snapshot.database() != self.database {
            return Err(CatalogUnavailable::OtherDatabase { expected: self.database.0, found: snapshot.database().0 });
        }
        *pins = snapshot.pins().clone();
        drop(pins);
        self.current.store(Some(Arc::new(Verified { snapshot: Arc::clone(&snapshot), fingerprint, at })));
        Ok(snapshot)
    }

    /// Moves when what was accepted of any database does.
    pub(crate) fn revision(&self) -> u64 {
        self.keeper.state.revision()
    }

    /// What follows from the database's bindings and baseline. Takes them where there are none yet.
    pub(crate) async fn drift(
        &self,
        policy: &LoadedPolicy,
        snapshot: &CatalogSnapshot,
    ) -> Result<Arc<Drift>, CatalogUnavailable> {
        let before = self.judged.load_full();
        if let Some(judged) = before.as_ref().filter(|judged| judged.is_of(snapshot, policy, &self.keeper.state)) {
            return Ok(Arc::clone(&judged.drift));
        }
        let judged = self.keeper.judge(&self.target, snapshot, policy, before.as_deref()).await?;
        let drift = Arc::clone(&judged.drift);
        self.seen.note(&self.target.name, snapshot.database_name(), &drift);
        self.judged.store(Some(Arc::new(judged)));
        Ok(drift)
    }

    /// Where what sessions find out is remembered.
    pub(crate) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Analysis of a text, from the cache or from the parser pool. `None`: the pool gave no answer.
    pub(crate) async fn analyse(
        &self,
        analyser: &Analyser,
        snapshot: &Arc<CatalogSnapshot>,
        scope: &Arc<Scope>,
        sql: &str,
    ) -> Option<Result<Arc<MessageAnalysis>, ParseFailure>> {
        let (database, version) = (self.generation, snapshot.version());
        let key = AnalysisKey { database, version, scope: Arc::clone(scope), sql: Arc::from(sql) };
        if let Some(known) = self.remembered.analysis(&key) {
            return Some(Ok(known));
        }
        let request = AnalyseRequest { sql: sql.to_owned(), snapshot: Arc::clone(snapshot), scope: Arc::clone(scope) };
        let result = analyser(request).await.ok()?;
        if let Ok(analysis) = &result {
            self.remembered.keep_analysis(key, analysis);
        }
        Some(result)
    }
}

/// All catalog queries see one snapshot of the server's.
async fn read_all(connection: &mut CatalogConnection) -> Result<Vec<Vec<Vec<Option<String>>>>, UpstreamError> {
    connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut results = Vec::with_capacity(QUERIES.len());
    for query in QUERIES {
        results.push(connection.query(query.sql).await?);
    }
    connection.query("COMMIT").await?;
    Ok(results)
}

fn single_value(rows: Vec<Vec<Option<String>>>) -> String {
    rows.into_iter().flatten().flatten().next().unwrap_or_default()
}
