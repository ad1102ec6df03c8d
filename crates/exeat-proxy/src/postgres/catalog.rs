//! What the gateway knows of one database's catalog, kept fresh within the target's bound.
//! One catalog connection per database, opened when a session needs it and closed with the last one, or when none
//! has asked for a while: a connection that nobody uses stands in the way of DROP DATABASE and the like.
//! Never answers with a snapshot older than the bound: then it reads again, or says that it cannot.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use exeat_enforce::drift::Drift;
use exeat_enforce::seal::SealPlan;
use exeat_sql::catalog::{FINGERPRINT_QUERY, Pins, QUERIES, VIEW_LIST, VIEWS, one_view};
use exeat_sql::{CatalogError, CatalogSnapshot, MessageAnalysis, Oid, ParseFailure, Scope};
use exeat_store::state::DatabaseRef;
use tokio::sync::Mutex as AsyncMutex;

use super::drift::{DriftError, Judged, Keeper, Seen};
use crate::config::{AnalyseRequest, Analyser, LoadedPolicy, Target};
use crate::remembered::{AnalysisKey, Generation, Remembered};
use crate::upstream::{CatalogConnection, LoginConfig, Problem, Rows, UpstreamError};

/// Different ones that are compared with a new session's.
const SEALS_MAX: usize = 64;

/// Versions of snapshots that one session alone sees; everybody's count from 1.
const OVERLAY_VERSIONS: u64 = 1 << 63;

/// Idle for this long, sessions wait for a new catalog connection when they come back: some ten milliseconds.
const REST_AFTER: Duration = Duration::from_secs(10);

/// How long the server may go on with a definition whose session the gateway has lost.
const LEFT_OPEN: Duration = Duration::from_secs(10);

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
    remembered: Arc<Remembered>,
}

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
        Self { databases, keeper, seen: Arc::default(), remembered: Arc::default() }
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
        let catalog = Arc::new(DatabaseCatalog {
            target: Arc::clone(target),
            database,
            login: Arc::clone(login),
            current: ArcSwapOption::empty(),
            asked: AtomicBool::new(true),
            connection: AsyncMutex::new(Reader {
                connection: None,
                version: 0,
                seen: None,
                views_held: false,
                failed_at: None,
            }),
            overlays: AtomicU64::new(0),
            definitions: Mutex::default(),
            generation: Generation::new(),
            remembered: Arc::clone(&self.remembered),
            keeper: self.keeper.clone(),
            seen: Arc::clone(&self.seen),
            judged: ArcSwapOption::empty(),
            seals: Mutex::default(),
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
    /// How many snapshots of their own sessions have read.
    overlays: AtomicU64,
    definitions: Mutex<Definitions>,
    keeper: Keeper,
    seen: Arc<Seen>,
    judged: ArcSwapOption<Judged>,
    /// Of sessions that are open: most have the same.
    seals: Mutex<Vec<Weak<SealPlan>>>,
}

/// What sessions of this gateway are defining: long before it shows in the catalog it moves what names mean for whoever
/// waits for its locks.
#[derive(Debug, Default)]
struct Definitions {
    /// Sessions with definitions in a transaction that may still be open.
    open: usize,
    /// When the last of them was in the catalog or gone.
    settled: Option<Instant>,
}

/// A session's definitions, from the first one sent until the server is between transactions.
#[derive(Debug)]
pub(crate) struct Defining {
    database: Arc<DatabaseCatalog>,
    is_settled: bool,
}

impl Defining {
    pub(crate) fn settle(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Defining {
    fn drop(&mut self) {
        let at = if self.is_settled { Instant::now() } else { Instant::now() + LEFT_OPEN };
        let mut definitions = self.database.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        definitions.open = definitions.open.saturating_sub(1);
        definitions.settled = definitions.settled.max(Some(at));
    }
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
    /// The fingerprint and when its reading began.
    seen: Option<(Instant, Arc<str>)>,
    /// Last time somebody kept us from reading some view: they are read one by one, so that nobody waits again.
    views_held: bool,
    /// Those who waited through a failure share it instead of trying one after another.
    failed_at: Option<Instant>,
}

#[derive(Debug)]
struct Verified {
    snapshot: Arc<CatalogSnapshot>,
    fingerprint: Arc<str>,
    at: Instant,
    /// Of what was accepted as trusted.
    trusted: u64,
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
        let is_fresh = verified.at.elapsed() <= self.target.catalog_bound && verified.trusted == self.trusted();
        is_fresh.then(|| Arc::clone(&verified.snapshot))
    }

    /// What everybody saw when it had this fingerprint, if that is what was read last.
    pub(crate) fn snapshot_of(&self, fingerprint: &str) -> Option<Arc<CatalogSnapshot>> {
        let current = self.current.load();
        let verified = current.as_ref().filter(|verified| *verified.fingerprint == *fingerprint)?;
        Some(Arc::clone(&verified.snapshot))
    }

    /// Somebody changed it: no session goes on with what was read before.
    pub(crate) fn expire(&self) {
        self.current.store(None);
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

    /// What moves with every committed change of the catalog, read after it was asked for. Waits for nobody's locks on
    /// relations, as reading definitions may.
    pub(crate) async fn fingerprint(&self) -> Result<Arc<str>, CatalogUnavailable> {
        self.asked.store(true, Ordering::Relaxed);
        let asked = Instant::now();
        let mut reader = self.connection.lock().await;
        if let Some((_, seen)) = reader.seen.as_ref().filter(|(at, _)| *at > asked) {
            return Ok(Arc::clone(seen));
        }
        if reader.failed_at.is_some_and(|failed_at| failed_at > asked) {
            return Err(CatalogUnavailable::JustFailed);
        }
        let at = Instant::now();
        // Put back when it is read: whoever stops waiting leaves no connection in the middle of an answer.
        let connection = reader.connection.take();
        match self.fingerprint_of(connection).await {
            Ok((connection, fingerprint)) => {
                reader.connection = Some(connection);
                reader.seen = Some((at, Arc::clone(&fingerprint)));
                Ok(fingerprint)
            }
            Err(problem) => {
                reader.failed_at = Some(Instant::now());
                Err(problem)
            }
        }
    }

    async fn fingerprint_of(
        &self,
        connection: Option<CatalogConnection>,
    ) -> Result<(CatalogConnection, Arc<str>), CatalogUnavailable> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => CatalogConnection::connect(&self.target.upstream, &self.login).await?,
        };
        let fingerprint = single_value(connection.query(FINGERPRINT_QUERY).await?);
        Ok((connection, Arc::from(fingerprint)))
    }

    /// For a snapshot that is one session's own: no other has this version.
    pub(crate) fn overlay_version(&self) -> u64 {
        OVERLAY_VERSIONS | self.overlays.fetch_add(1, Ordering::Relaxed)
    }

    /// The same as other sessions have, where they have the same: it is the largest part of what an idle one keeps.
    pub(crate) fn shared_seals(&self, seals: SealPlan) -> Arc<SealPlan> {
        let mut all = self.seals.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(|known| **known == seals) {
            return known;
        }
        let seals = Arc::new(seals);
        if all.len() < SEALS_MAX {
            all.push(Arc::downgrade(&seals));
        }
        seals
    }

    pub(crate) fn define(self: &Arc<Self>) -> Defining {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner).open += 1;
        Defining { database: Arc::clone(self), is_settled: false }
    }

    /// Whether definitions of sessions other than `own` were open or came into the catalog since then.
    pub(crate) fn was_defined(&self, since: Instant, own: Option<&Defining>) -> bool {
        let definitions = self.definitions.lock().unwrap_or_else(PoisonError::into_inner);
        definitions.open > usize::from(own.is_some()) || definitions.settled.is_some_and(|settled| settled >= since)
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
        let (mut connection, fingerprint) = self.fingerprint_of(reader.connection.take()).await?;
        reader.seen = Some((at, Arc::clone(&fingerprint)));
        // Before it is read: what is accepted meanwhile is seen next time.
        let trusted = self.trusted();
        let is_same = |verified: &Arc<Verified>| verified.fingerprint == fingerprint && verified.trusted == trusted;
        if let Some(verified) = self.current.load_full().filter(|verified| !changed && is_same(verified)) {
            let snapshot = Arc::clone(&verified.snapshot);
            self.current.store(Some(Arc::new(Verified { snapshot: Arc::clone(&snapshot), fingerprint, at, trusted })));
            reader.connection = Some(connection);
            return Ok(snapshot);
        }
        let (rows, is_whole) = read_all(&mut connection, reader.views_held).await?;
        reader.connection = Some(connection);
        reader.views_held = !is_whole;
        // What is missing may be there without a trace when whoever holds it gives up: it is asked for each time.
        let fingerprint = if is_whole { fingerprint } else { Arc::from("") };
        reader.version += 1;
        let snapshot = Arc::new(self.build(reader.version, &rows).await?);
        self.current.store(Some(Arc::new(Verified { snapshot: Arc::clone(&snapshot), fingerprint, at, trusted })));
        Ok(snapshot)
    }

    /// Names that the target's configuration trusts are held against what they stood for when they were first seen.
    async fn build(&self, version: u64, rows: &[Rows]) -> Result<CatalogSnapshot, CatalogUnavailable> {
        let trust = &self.target.trust;
        let database = DatabaseRef { target: &self.target.name, name: self.target.upstream.database() };
        let pinned = if self.target.trusts() { self.keeper.pins(database).await? } else { Pins::default() };
        let snapshot = CatalogSnapshot::build_trusting(version, rows, trust, &pinned)?;
        if snapshot.database() != self.database {
            return Err(CatalogUnavailable::OtherDatabase { expected: self.database.0, found: snapshot.database().0 });
        }
        if snapshot.pins().0.iter().all(|pin| pinned.holds(pin)) {
            return Ok(snapshot);
        }
        let held = self.keeper.pin(database, snapshot.pins()).await?;
        if snapshot.pins().0.iter().all(|pin| held.holds(pin)) {
            return Ok(snapshot);
        }
        // Another gateway saw another definition first.
        Ok(CatalogSnapshot::build_trusting(version, rows, trust, &held)?)
    }

    /// Moves when what is trusted may have.
    fn trusted(&self) -> u64 {
        if self.target.trusts() { self.keeper.state.revision() } else { 0 }
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

    /// As `drift`, of a catalog that one session alone sees.
    pub(crate) async fn drift_apart(
        &self,
        policy: &LoadedPolicy,
        snapshot: &CatalogSnapshot,
    ) -> Result<Arc<Drift>, CatalogUnavailable> {
        Ok(self.keeper.judge_apart(&self.target, snapshot, policy).await?)
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

/// All catalog queries see one snapshot of the server's. And whether every view could be read.
async fn read_all(connection: &mut CatalogConnection, one_by_one: bool) -> Result<(Vec<Rows>, bool), UpstreamError> {
    connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut results = Vec::with_capacity(QUERIES.len());
    let mut is_whole = true;
    for query in QUERIES {
        let rows = match query.name {
            VIEWS => read_views(connection, query.sql, one_by_one).await?,
            _ => connection.query(query.sql).await?,
        };
        is_whole &= query.name != VIEWS || rows.iter().all(|row| row.iter().all(Option::is_some));
        results.push(rows);
    }
    connection.query("COMMIT").await?;
    Ok((results, is_whole))
}

/// Views that somebody is changing come without a definition, so that they alone cannot be used.
async fn read_views(connection: &mut CatalogConnection, sql: &str, one_by_one: bool) -> Result<Rows, UpstreamError> {
    connection.query("SAVEPOINT views").await?;
    if !one_by_one {
        match connection.query(sql).await {
            Err(problem) if is_lock_timeout(&problem) => {}
            read => return read,
        }
    }
    connection.query("ROLLBACK TO views; SET LOCAL lock_timeout = 20").await?;
    let mut views = connection.query(VIEW_LIST).await?;
    for view in &mut views {
        let oid = view.first().and_then(Option::as_deref).and_then(|oid| oid.parse().ok()).unwrap_or_default();
        connection.query("SAVEPOINT view").await?;
        match connection.query(&one_view(Oid(oid))).await {
            Ok(definition) => view.push(Some(single_value(definition))),
            Err(problem) if is_lock_timeout(&problem) => {
                connection.query("ROLLBACK TO view").await?;
                view.push(None);
            }
            Err(problem) => return Err(problem),
        }
        connection.query("RELEASE view").await?;
    }
    Ok(views)
}

fn is_lock_timeout(problem: &UpstreamError) -> bool {
    matches!(&problem.problem, Problem::Refused { sqlstate, .. } if sqlstate == "55P03")
}

fn single_value(rows: Vec<Vec<Option<String>>>) -> String {
    rows.into_iter().flatten().flatten().next().unwrap_or_default()
}
