//! Pins: which definition each name that the operator trusts stood for when it was first seen. Kept as digests, for as
//! long as nobody accepts another: a definition exchanged while the gateway was down is noticed when it is back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{Connection, Row, SqliteConnection};

use super::known::DatabaseRef;
use super::{State, StateError};

/// Digests of definitions by what they are of (`view reporting.stats`).
pub type PinnedDefinitions = BTreeMap<String, String>;

impl State {
    pub async fn pins(&self, database: DatabaseRef<'_>) -> Result<PinnedDefinitions, StateError> {
        let mut connection = self.shared.connection.lock().await;
        self.noted(read(&mut connection, database).await.map_err(StateError::access("read what is trusted")))
    }

    /// Pins what is not pinned yet, and gives back what holds: another gateway may have been first.
    pub async fn pin(
        &self,
        database: DatabaseRef<'_>,
        found: &PinnedDefinitions,
        now: Timestamp,
    ) -> Result<PinnedDefinitions, StateError> {
        let mut connection = self.shared.connection.lock().await;
        let pinned = add(&mut connection, database, found, now).await;
        self.noted(pinned.map_err(StateError::access("pin what is trusted")))
    }

    /// From now on the names stand for these definitions, and nothing else is pinned.
    pub async fn accept_pins(
        &self,
        database: DatabaseRef<'_>,
        found: &PinnedDefinitions,
        now: Timestamp,
    ) -> Result<(), StateError> {
        {
            let mut connection = self.shared.connection.lock().await;
            let replaced = replace(&mut connection, database, found, now).await;
            self.noted(replaced.map_err(StateError::access("accept what is trusted")))?;
        }
        self.moved();
        Ok(())
    }
}

async fn read(connection: &mut SqliteConnection, database: DatabaseRef<'_>) -> Result<PinnedDefinitions, sqlx::Error> {
    let rows = sqlx::query("SELECT object, sha256 FROM pin WHERE target = $1 AND database_name = $2")
        .bind(database.target)
        .bind(database.name)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("object")?, row.try_get("sha256")?))).collect()
}

async fn add(
    connection: &mut SqliteConnection,
    database: DatabaseRef<'_>,
    found: &PinnedDefinitions,
    now: Timestamp,
) -> Result<PinnedDefinitions, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    insert(&mut transaction, database, found, now).await?;
    let pinned = read(&mut transaction, database).await?;
    transaction.commit().await?;
    Ok(pinned)
}

async fn replace(
    connection: &mut SqliteConnection,
    database: DatabaseRef<'_>,
    found: &PinnedDefinitions,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("DELETE FROM pin WHERE target = $1 AND database_name = $2")
        .bind(database.target)
        .bind(database.name)
        .execute(&mut *transaction)
        .await?;
    insert(&mut transaction, database, found, now).await?;
    transaction.commit().await
}

async fn insert(
    connection: &mut SqliteConnection,
    database: DatabaseRef<'_>,
    found: &PinnedDefinitions,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    for (object, sha256) in found {
        sqlx::query(
            "INSERT INTO pin (target, database_name, object, sha256, pinned_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (target, database_name, object) DO NOTHING",
        )
        .bind(database.target)
        .bind(database.name)
        .bind(object)
        .bind(sha256)
        .bind(now.as_millisecond())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
