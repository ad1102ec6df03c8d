//! State that outlives the gateway and is not the record: what labels are bound to, what was accepted of each
//! database, which definitions are trusted, what each principal has tried and been shown, requests for approval with
//! what was granted, and freezes.
//!
//! In a file of data_dir for one gateway, or in a PostgreSQL that several share. Short transactions: what a caller
//! gets back is on file (durability `os`) or on the disk (`fsync`), as with the record; on PostgreSQL it is what the
//! server calls committed. Nothing is counted in memory. Never holds a value of a column: probed values are keyed
//! digests.

mod address;
mod backend;
mod changes;
mod error;
mod exposure;
mod freeze;
mod known;
mod migrations;
mod outbox;
mod pins;
mod probes;
mod request;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ring::hmac;
use sqlx::Row;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub use address::{AddressError, StateSource};
pub use changes::{Revisions, Topic};
pub use error::StateError;
pub use exposure::{EXPOSURES_SHOWN_MAX, Exposure, LedgerVerdict, Reserved, WISHES_MAX, Wish};
pub use freeze::{FREEZES_MAX, Freeze, FreezeVerdict, Frozen};
pub use known::{DatabaseRef, Taken};
pub use outbox::{Claimed, Message, Tell, Told, WAITING_MAX};
pub use pins::PinnedDefinitions;
pub use probes::{LimitFilter, LimitUse, Probe, ProbeVerdict, VALUES_MAX};
pub use request::{
    ASKED_PER_DAY_MAX, Asked, CARD_BYTES_MAX, Decided, Earlier, GrantUse, Listed, NewRequest, OPEN_MAX,
    OPEN_OF_ASKER_MAX, Request, RequestFilter, RequestId, SHOWN_MAX, SWEPT_MAX, Swept, Wanted, Whose,
};

use crate::hex;
use crate::keys::{self, KeySet};
use crate::record::Durability;
use address::Address;
use backend::{ACCESS_SECONDS_MAX, Backend};
use error::Fault;

/// In data_dir, private to the gateway.
const STATE_FOLDER: &str = "state";
const STATE_FILE: &str = "exeat.db";

/// Which store, and how it writes.
#[derive(Debug)]
pub struct StateConfig<'a> {
    pub data_dir: &'a Path,
    pub source: &'a StateSource,
    /// Of the embedded store; a server has its own.
    pub durability: Durability,
}

/// The open state store of one gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Arc<Backend>,
    keys: Arc<KeySet>,
    /// Where every access runs: sessions have runtimes of their own, that come to a stop while one of them computes,
    /// and a session that ends must not leave a transaction behind half-way.
    home: Handle,
    follower: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("place", &self.backend.place).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

impl State {
    /// Opens the store, or makes it. The caller holds the lock of data_dir (`Recorder::open`) and has checked the
    /// master key against it. Stays with the runtime it is called in.
    pub async fn open(config: &StateConfig<'_>, keys: &Arc<KeySet>) -> Result<Self, StateError> {
        let (backend, follower) = match config.source {
            StateSource::Embedded => {
                let path = prepare_file(config.data_dir)?;
                let place = path.display().to_string();
                let address = Address::embedded(&path).map_err(|source| StateError::Open { place, source })?;
                (Arc::new(Backend::sqlite(address, config.durability).await?), None)
            }
            StateSource::Postgres(source) => {
                let backend = Arc::new(Backend::postgres(Address::resolve(source)?).await?);
                (Arc::clone(&backend), Some(changes::follow(backend, source.clone())))
            }
        };
        check_key(&backend, keys).await?;
        changes::first_look(&backend).await?;
        let shared =
            Shared { backend, keys: Arc::clone(keys), home: Handle::current(), follower: follower.map(tokio::spawn) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether the store is reached over a network without TLS.
    pub fn is_plain(&self) -> bool {
        self.shared.backend.is_plain
    }

    /// Whether the store can be written. Only after a failure it is tried: a disk that has room again makes the
    /// gateway ready again without anybody's help.
    pub async fn health(&self) -> Result<(), StateError> {
        if !self.shared.backend.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.access("write", |backend| async move { Ok(backend.write_something().await?) }).await?;
        self.shared.backend.failed.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Names that nobody guesses.
    fn random_name(&self, prefix: &str) -> Result<String, StateError> {
        let mut bytes = [0; 16];
        keys::random(&mut bytes)?;
        Ok(format!("{prefix}_{}", hex::text(&bytes)))
    }

    fn random_number(&self) -> Result<i64, StateError> {
        let mut bytes = [0; 8];
        keys::random(&mut bytes)?;
        Ok(i64::from_le_bytes(bytes))
    }

    /// One access: begun at once, bounded in time, and finished even where nobody waits for it any more.
    async fn access<T, W, F>(&self, action: &'static str, work: W) -> Result<T, StateError>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Backend>) -> F,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let working = work(Arc::clone(&self.shared.backend));
        let limit = Duration::from_secs(ACCESS_SECONDS_MAX);
        let ended = self.shared.home.spawn(async move { tokio::time::timeout(limit, working).await }).await;
        let result = match ended {
            Ok(Ok(done)) => done.map_err(|fault| fault.of(action)),
            Ok(Err(_)) => Err(StateError::Slow { action, seconds: ACCESS_SECONDS_MAX }),
            Err(_) => Err(StateError::Ending { action }),
        };
        if result.is_err() {
            self.shared.backend.failed.store(true, Ordering::Relaxed);
        }
        result
    }
}

fn prepare_file(data_dir: &Path) -> Result<std::path::PathBuf, StateError> {
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
    Ok(path)
}

/// Digests under another key would count every value anew: the first gateway leaves a mark that the others must
/// find to be their own.
async fn check_key(backend: &Backend, keys: &KeySet) -> Result<(), StateError> {
    let own = hex::text(hmac::sign(keys.probes(), b"exeat state store v1").as_ref());
    let marked = async {
        let mut transaction = backend.write("store_key").await?;
        sqlx::query("INSERT INTO store_key (id, key_check) VALUES (1, $1) ON CONFLICT DO NOTHING")
            .bind(own.as_str())
            .execute(&mut *transaction)
            .await?;
        let row = sqlx::query("SELECT key_check FROM store_key WHERE id = 1").fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        row.try_get::<String, _>("key_check")
    };
    let found = marked.await.map_err(|error| Fault::from(error).of("check the master key"))?;
    if found == own { Ok(()) } else { Err(StateError::OtherKey { place: backend.place.clone() }) }
}
