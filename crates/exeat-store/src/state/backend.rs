//! The database behind the state store, SQLite or PostgreSQL, through one API and one set of SQL texts. What they do
//! not share is here and nowhere else: how a transaction begins, what is set on a connection, and how others are told.
//!
//! Writers of one subject wait for each other: SQLite takes one writer at a time, on PostgreSQL the transaction takes
//! an advisory lock first, and what it reads after that is what the one before it left. Never retries: whether a
//! transaction whose end was not heard has happened is unknown, and the caller refuses.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Connection, Row, Transaction};

use super::address::Address;
use super::changes::Changes;
use super::error::StateError;
use super::migrations::{self, Migrated};
use crate::record::Durability;

/// How long a caller waits for the store at most, and how long the store may work for it. A session stands still
/// meanwhile, and refuses after.
pub(super) const ACCESS_SECONDS_MAX: u64 = 10;

/// Less than that, so that the server's word comes first: connections are told the same.
const SERVER_WAIT_SECONDS: u64 = 5;

/// Sessions that count at once wait for the disk of the store together on these many.
const POSTGRES_CONNECTIONS_MAX: u32 = 8;

/// A connection that was used a moment ago is taken without asking whether it still stands.
const IDLE_UNTESTED_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
}

pub(super) struct Backend {
    pub(super) kind: Kind,
    pub(super) pool: AnyPool,
    /// For errors.
    pub(super) place: String,
    pub(super) is_plain: bool,
    pub(super) changes: Changes,
    /// An access has failed since somebody last wrote: see `State::health`.
    pub(super) failed: AtomicBool,
}

impl Backend {
    pub(super) async fn sqlite(address: Address, durability: Durability) -> Result<Self, StateError> {
        // One connection: the file takes one writer at a time anyway, and whoever waits, waits in turn.
        let options = AnyPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        Self::open(Setup { kind: Kind::Sqlite, durability }, options, address).await
    }

    pub(super) async fn postgres(address: Address) -> Result<Self, StateError> {
        let options = AnyPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS_MAX)
            .before_acquire(|connection, seen| {
                Box::pin(async move {
                    if seen.idle_for > IDLE_UNTESTED_MAX {
                        within(connection.ping()).await?;
                    }
                    Ok(true)
                })
            })
            // Rolls back what was left half-way; a server that is gone must not keep the connection's place.
            .after_release(|connection, _| {
                Box::pin(async move {
                    within(connection.ping()).await?;
                    Ok(true)
                })
            });
        Self::open(Setup { kind: Kind::Postgres, durability: Durability::Os }, options, address).await
    }

    async fn open(setup: Setup, options: AnyPoolOptions, address: Address) -> Result<Self, StateError> {
        sqlx::any::install_default_drivers();
        let Address { options: connect, shown: place, is_plain } = address;
        let kind = setup.kind;
        let failed = |source| match kind {
            Kind::Sqlite => StateError::Open { place: place.clone(), source },
            Kind::Postgres => StateError::Reach { place: place.clone(), source },
        };
        // Once without the pool, which tries again and again and does not say what was wrong.
        let first = async {
            let mut connection = connect.connect().await?;
            setup.settle(&mut connection).await?;
            connection.close().await
        };
        within(first).await.map_err(failed)?;
        let pool = options
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(SERVER_WAIT_SECONDS))
            .after_connect(move |connection, _| Box::pin(setup.settle(connection)))
            .connect_with(connect)
            .await
            .map_err(failed)?;
        let backend = Self {
            kind,
            pool,
            place: place.clone(),
            is_plain,
            changes: Changes::new(),
            failed: AtomicBool::new(false),
        };
        backend.look_it_over(&failed).await?;
        match migrations::run(&backend).await.map_err(failed)? {
            Migrated::UpToDate => {}
            Migrated::Newer { found } => {
                return Err(StateError::Newer { place, found, known: migrations::known_version() });
            }
        }
        // Tables that need no migration are read only so far; a store that cannot be written must not start.
        backend.write_something().await.map_err(failed)?;
        Ok(backend)
    }

    async fn look_it_over(&self, failed: &impl Fn(sqlx::Error) -> StateError) -> Result<(), StateError> {
        let question = match self.kind {
            Kind::Sqlite => "PRAGMA quick_check(1)",
            Kind::Postgres => "SELECT current_setting('server_encoding')",
        };
        let row = sqlx::query(question).fetch_one(&self.pool).await.map_err(failed)?;
        let answer: String = row.try_get(0).map_err(failed)?;
        let place = self.place.clone();
        match self.kind {
            Kind::Sqlite if answer != "ok" => Err(StateError::Damaged { place, problem: answer }),
            Kind::Postgres if answer != "UTF8" => Err(StateError::Encoding { place, found: answer }),
            Kind::Sqlite | Kind::Postgres => Ok(()),
        }
    }

    /// For several reads of one moment.
    pub(super) async fn read(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool
            .begin_with(match self.kind {
                Kind::Sqlite => "BEGIN",
                Kind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            })
            .await
    }

    /// Alone among those who write about `subject`.
    pub(super) async fn write(&self, subject: &str) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.write_about(&BTreeSet::from([subject.to_owned()])).await
    }

    /// Alone among those who write about any of them. In one order everywhere: nobody waits in a circle.
    pub(super) async fn write_about(
        &self,
        subjects: &BTreeSet<String>,
    ) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let mut transaction = self
            .pool
            .begin_with(match self.kind {
                Kind::Sqlite => "BEGIN IMMEDIATE",
                Kind::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            })
            .await?;
        match self.kind {
            Kind::Sqlite => {}
            Kind::Postgres => {
                for number in subjects.iter().map(|subject| lock_number(subject)).collect::<BTreeSet<_>>() {
                    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(number).execute(&mut *transaction).await?;
                }
            }
        }
        Ok(transaction)
    }

    /// A write that changes nothing.
    pub(super) async fn write_something(&self) -> Result<(), sqlx::Error> {
        let mut transaction = self.write("schema_version").await?;
        sqlx::query("UPDATE schema_version SET version = version").execute(&mut *transaction).await?;
        transaction.commit().await
    }
}

/// Locks of a database are numbers, shared by all who use it.
fn lock_number(subject: &str) -> i64 {
    let hash = digest(&SHA256, format!("exeat {subject}").as_bytes());
    let (number, _) = hash.as_ref().split_first_chunk().unwrap_or((&[0; 8], &[]));
    i64::from_le_bytes(*number)
}

/// What every new connection is told.
#[derive(Clone, Copy)]
struct Setup {
    kind: Kind,
    durability: Durability,
}

impl Setup {
    async fn settle(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        for setting in self.settings() {
            sqlx::query(*setting).fetch_all(&mut *connection).await?;
        }
        Ok(())
    }

    fn settings(self) -> &'static [&'static str] {
        match (self.kind, self.durability) {
            (Kind::Sqlite, Durability::Os) => &["PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"],
            (Kind::Sqlite, Durability::Fsync) => &["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"],
            (Kind::Postgres, Durability::Os | Durability::Fsync) => &[
                // What was counted must survive the server's end, whatever its default is.
                "SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') = 'off'",
                "SELECT set_config('statement_timeout', '5s', false)",
                "SELECT set_config('lock_timeout', '5s', false)",
                "SELECT set_config('idle_in_transaction_session_timeout', '10s', false)",
            ],
        }
    }
}

pub(super) async fn within<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let limit = Duration::from_secs(SERVER_WAIT_SECONDS);
    tokio::time::timeout(limit, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
