//! State that outlives the gateway and is not the record: what labels are bound to, what was accepted of each
//! database, which definitions are trusted, and how often each principal has tried values of sealed columns.
//!
//! One handle, one connection, short transactions: what a caller gets back is on file (durability `os`) or on the
//! disk (`fsync`), as with the record. Nothing is cached here, nothing is counted in memory. Never holds a value of a
//! column: probed values are keyed digests.

mod error;
mod known;
mod migrations;
mod pins;
mod probes;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ring::hmac;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::Mutex;

pub use error::StateError;
pub use known::{DatabaseRef, Taken};
pub use pins::PinnedDefinitions;
pub use probes::{LimitFilter, LimitUse, Probe, ProbeVerdict, VALUES_MAX};

use crate::keys::{self, KeySet};
use crate::record::Durability;
use migrations::Migrated;

/// In data_dir, private to the gateway.
const STATE_FOLDER: &str = "state";
const STATE_FILE: &str = "exeat.db";

/// How long another process (a backup) may keep us waiting.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// The open state store of one gateway. Cheap to clone; every clone is the same connection.
#[derive(Debug, Clone)]
pub struct State {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// Waited for in turn: the file takes one writer at a time anyway.
    connection: Mutex<SqliteConnection>,
    probe_key: hmac::Key,
    /// Counts changes of bindings and baselines made through this handle.
    revision: AtomicU64,
    failed: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

impl State {
    /// Opens the store in `data_dir`, or makes it. The caller holds the folder's lock (`Recorder::open`) and has
    /// checked the master key: digests under another key would count every value anew.
    pub async fn open(data_dir: &Path, keys: &KeySet, durability: Durability) -> Result<Self, StateError> {
        let folder = data_dir.join(STATE_FOLDER);
        keys::make_private_dir(&folder)?;
        keys::refuse_open_to_others(&folder)?;
        let path = folder.join(STATE_FILE);
        // Ours before SQLite's, which would make it as the umask says. Its companions take the mode of this one.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(crate::StoreError::io("open the state store", &path))?;
        keys::refuse_open_to_others(&path)?;
        let connection = connect(&path, durability).await?;
        let shared = Shared {
            path,
            connection: Mutex::new(connection),
            probe_key: keys.probes().clone(),
            revision: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Moves with every change of bindings or baselines: whoever keeps what it read compares.
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    fn moved(&self) {
        self.shared.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the store can be written. Only after a failure it is tried: a disk that has room again makes the
    /// gateway ready again without anybody's help.
    pub async fn health(&self) -> Result<(), StateError> {
        if !self.shared.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let action = StateError::access("write");
        let written = {
            let mut connection = self.shared.connection.lock().await;
            write_something(&mut connection).await
        };
        written.map_err(action).inspect(|()| self.shared.failed.store(false, Ordering::Relaxed))
    }

    /// Remembers for `health` that an access failed.
    fn noted<T>(&self, result: Result<T, StateError>) -> Result<T, StateError> {
        if result.is_err() {
            self.shared.failed.store(true, Ordering::Relaxed);
        }
        result
    }
}

async fn connect(path: &Path, durability: Durability) -> Result<SqliteConnection, StateError> {
    let open = |source| StateError::Open { path: path.to_owned(), source };
    let synchronous = match durability {
        Durability::Os => SqliteSynchronous::Normal,
        Durability::Fsync => SqliteSynchronous::Full,
    };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(BUSY_WAIT)
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(open)?;
    let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await.map_err(open)?;
    let verdict: String = row.try_get(0).map_err(open)?;
    if verdict != "ok" {
        return Err(StateError::Damaged { path: path.to_owned(), problem: verdict });
    }
    match migrations::run(&mut connection).await.map_err(open)? {
        Migrated::UpToDate => {}
        Migrated::Newer { found } => {
            return Err(StateError::Newer { path: path.to_owned(), found, known: migrations::known_version() });
        }
    }
    // Tables that need no migration are read only so far; a store that cannot be written must not start.
    write_something(&mut connection).await.map_err(open)?;
    Ok(connection)
}

/// A write that changes nothing.
async fn write_something(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("UPDATE schema_version SET version = version").execute(&mut *transaction).await?;
    transaction.commit().await
}
