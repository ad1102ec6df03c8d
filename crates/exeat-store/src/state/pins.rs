//! Pins: which definition each name that the operator trusts stood for when it was first seen. Kept as digests, for as
//! long as nobody accepts another: a definition exchanged while the gateway was down is noticed when it is back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{AnyConnection, Row};

use super::backend::Backend;
use super::changes::{Topic, moved};
use super::known::{Database, DatabaseRef};
use super::{State, StateError};

/// Digests of definitions by what they are of (`view reporting.stats`).
pub type PinnedDefinitions = BTreeMap<String, String>;

impl State {
    pub async fn pins(&self, database: DatabaseRef<'_>) -> Result<PinnedDefinitions, StateError> {
        let database = Database::of(database);
        self.access("read what is trusted", move |backend| async move {
            let mut connection = backend.pool.acquire().await?;
            Ok(read(&mut connection, &database).await?)
        })
        .await
    }

    /// Pins what is not pinned yet, and gives back what holds: another gateway may have been first.
    pub async fn pin(
        &self,
        database: DatabaseRef<'_>,
        found: &PinnedDefinitions,
        now: Timestamp,
    ) -> Result<PinnedDefinitions, StateError> {
        let (database, found) = (Database::of(database), found.clone());
        self.access("pin what is trusted", move |backend| async move {
            let mut transaction = backend.write(&database.lock()).await?;
            insert(&mut transaction, &database, &found, now).await?;
            let pinned = read(&mut transaction, &database).await?;
            transaction.commit().await?;
            Ok(pinned)
        })
        .await
    }

    /// From now on the names stand for these definitions, and nothing else is pinned.
    pub async fn accept_pins(
        &self,
        database: DatabaseRef<'_>,
        found: &PinnedDefinitions,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let (database, found) = (Database::of(database), found.clone());
        self.access("accept what is trusted", move |backend| async move {
            Ok(replace(&backend, &database, &found, now).await?)
        })
        .await
    }
}

async fn read(connection: &mut AnyConnection, database: &Database) -> Result<PinnedDefinitions, sqlx::Error> {
    let rows = sqlx::query("SELECT object, sha256 FROM pin WHERE target = $1 AND database_name = $2")
        .bind(database.target.as_str())
        .bind(database.name.as_str())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("object")?, row.try_get("sha256")?))).collect()
}

async fn replace(
    backend: &Backend,
    database: &Database,
    found: &PinnedDefinitions,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut transaction = backend.write(&database.lock()).await?;
    sqlx::query("DELETE FROM pin WHERE target = $1 AND database_name = $2")
        .bind(database.target.as_str())
        .bind(database.name.as_str())
        .execute(&mut *transaction)
        .await?;
    insert(&mut transaction, database, found, now).await?;
    let change = moved(backend, &mut transaction, Topic::Baseline).await?;
    transaction.commit().await?;
    backend.changes.tell(&change);
    Ok(())
}

async fn insert(
    connection: &mut AnyConnection,
    database: &Database,
    found: &PinnedDefinitions,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    for (object, sha256) in found {
        sqlx::query(
            "INSERT INTO pin (target, database_name, object, sha256, pinned_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (target, database_name, object) DO NOTHING",
        )
        .bind(database.target.as_str())
        .bind(database.name.as_str())
        .bind(object.as_str())
        .bind(sha256.as_str())
        .bind(now.as_millisecond())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
