//! Bindings and baselines: taken once by whoever finds a database first, added to where a label matches more, and
//! replaced whole when a person accepts what is there.

use exeat_policy::baseline::{AcceptedColumn, AcceptedRelation, Binding, Known};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::{State, StateError};

/// Which database: OIDs mean something within one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseRef<'a> {
    pub target: &'a str,
    pub name: &'a str,
}

/// Who was first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    Now,
    /// What somebody else has taken before, and what counts.
    Before(Known),
}

impl State {
    /// `None`: nobody has found labelled relations there yet.
    pub async fn known(&self, database: DatabaseRef<'_>) -> Result<Option<Known>, StateError> {
        let mut connection = self.shared.connection.lock().await;
        self.noted(read(&mut connection, database).await)
    }

    /// Takes what was found as the baseline, unless there is one.
    pub async fn take_baseline(
        &self,
        database: DatabaseRef<'_>,
        found: &Known,
        now: Timestamp,
    ) -> Result<Taken, StateError> {
        let taken = {
            let mut connection = self.shared.connection.lock().await;
            self.noted(take(&mut connection, database, found, now).await)?
        };
        if taken == Taken::Now {
            self.moved();
        }
        Ok(taken)
    }

    /// Binds more columns; those bound already stay as they are. Says how many are new.
    pub async fn bind(&self, database: DatabaseRef<'_>, bindings: &[Binding]) -> Result<u64, StateError> {
        let added = {
            let mut connection = self.shared.connection.lock().await;
            let added = add(&mut connection, database, bindings).await.map_err(StateError::access("bind labels"));
            self.noted(added)?
        };
        if added > 0 {
            self.moved();
        }
        Ok(added)
    }

    /// Replaces bindings and baseline by what a person has accepted.
    pub async fn accept(&self, database: DatabaseRef<'_>, found: &Known, now: Timestamp) -> Result<(), StateError> {
        {
            let mut connection = self.shared.connection.lock().await;
            let replaced = replace(&mut connection, database, found, now).await;
            self.noted(replaced.map_err(StateError::access("accept a baseline")))?;
        }
        self.moved();
        Ok(())
    }
}

async fn read(connection: &mut SqliteConnection, database: DatabaseRef<'_>) -> Result<Option<Known>, StateError> {
    let action = || StateError::access("read a baseline");
    // One moment for all three: an acceptance must not come in between.
    let mut transaction = connection.begin().await.map_err(action())?;
    let taken = sqlx::query("SELECT accepted_at FROM baseline WHERE target = $1 AND database_name = $2")
        .bind(database.target)
        .bind(database.name)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(action())?;
    if taken.is_none() {
        return Ok(None);
    }
    let relations = sqlx::query(
        "SELECT oid, schema_name, relation_name, columns FROM baseline_relation \
         WHERE target = $1 AND database_name = $2 ORDER BY oid",
    )
    .bind(database.target)
    .bind(database.name)
    .fetch_all(&mut *transaction)
    .await
    .map_err(action())?;
    let bindings = sqlx::query(
        "SELECT label, oid, attribute, schema_name, relation_name, column_name FROM binding \
         WHERE target = $1 AND database_name = $2 ORDER BY label, oid, attribute",
    )
    .bind(database.target)
    .bind(database.name)
    .fetch_all(&mut *transaction)
    .await
    .map_err(action())?;
    Ok(Some(Known {
        bindings: bindings.iter().map(binding).collect::<Result<_, _>>()?,
        baseline: relations.iter().map(relation).collect::<Result<_, _>>()?,
    }))
}

async fn take(
    connection: &mut SqliteConnection,
    database: DatabaseRef<'_>,
    found: &Known,
    now: Timestamp,
) -> Result<Taken, StateError> {
    let action = || StateError::access("take a baseline");
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(action())?;
    if let Some(known) = read(&mut transaction, database).await? {
        return Ok(Taken::Before(known));
    }
    insert(&mut transaction, database, found, now).await.map_err(action())?;
    transaction.commit().await.map_err(action())?;
    Ok(Taken::Now)
}

async fn replace(
    connection: &mut SqliteConnection,
    database: DatabaseRef<'_>,
    found: &Known,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for forget in [
        "DELETE FROM binding WHERE target = $1 AND database_name = $2",
        "DELETE FROM baseline_relation WHERE target = $1 AND database_name = $2",
        "DELETE FROM baseline WHERE target = $1 AND database_name = $2",
    ] {
        sqlx::query(forget).bind(database.target).bind(database.name).execute(&mut *transaction).await?;
    }
    insert(&mut transaction, database, found, now).await?;
    transaction.commit().await
}

async fn insert(
    connection: &mut SqliteConnection,
    database: DatabaseRef<'_>,
    found: &Known,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO baseline (target, database_name, accepted_at) VALUES ($1, $2, $3)")
        .bind(database.target)
        .bind(database.name)
        .bind(now.as_millisecond())
        .execute(&mut *connection)
        .await?;
    for relation in &found.baseline {
        sqlx::query(
            "INSERT INTO baseline_relation (target, database_name, oid, schema_name, relation_name, columns) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(database.target)
        .bind(database.name)
        .bind(i64::from(relation.oid))
        .bind(&relation.schema_name)
        .bind(&relation.name)
        .bind(columns_json(&relation.columns))
        .execute(&mut *connection)
        .await?;
    }
    insert_bindings(connection, database, &found.bindings).await?;
    Ok(())
}

async fn add(
    connection: &mut SqliteConnection,
    database: DatabaseRef<'_>,
    bindings: &[Binding],
) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let added = insert_bindings(&mut transaction, database, bindings).await?;
    transaction.commit().await?;
    Ok(added)
}

async fn insert_bindings(
    connection: &mut SqliteConnection,
    database: DatabaseRef<'_>,
    bindings: &[Binding],
) -> Result<u64, sqlx::Error> {
    let mut added = 0;
    for binding in bindings {
        let done = sqlx::query(
            "INSERT INTO binding \
             (target, database_name, label, oid, attribute, schema_name, relation_name, column_name) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        )
        .bind(database.target)
        .bind(database.name)
        .bind(&binding.label)
        .bind(i64::from(binding.relation))
        .bind(i64::from(binding.attribute))
        .bind(&binding.schema_name)
        .bind(&binding.relation_name)
        .bind(&binding.column_name)
        .execute(&mut *connection)
        .await?;
        added += done.rows_affected();
    }
    Ok(added)
}

fn columns_json(columns: &[AcceptedColumn]) -> String {
    let rows: Vec<(i16, &str, u32)> =
        columns.iter().map(|column| (column.attribute, column.name.as_str(), column.type_oid)).collect();
    serde_json::json!(rows).to_string()
}

fn relation(row: &SqliteRow) -> Result<AcceptedRelation, StateError> {
    let shape = || StateError::Shape { what: "a relation of a baseline" };
    let columns: String = row.try_get("columns").map_err(|_| shape())?;
    let columns: Vec<(i16, String, u32)> = serde_json::from_str(&columns).map_err(|_| shape())?;
    Ok(AcceptedRelation {
        oid: number(row, "oid").ok_or_else(shape)?,
        schema_name: row.try_get("schema_name").map_err(|_| shape())?,
        name: row.try_get("relation_name").map_err(|_| shape())?,
        columns: columns
            .into_iter()
            .map(|(attribute, name, type_oid)| AcceptedColumn { attribute, name, type_oid })
            .collect(),
    })
}

fn binding(row: &SqliteRow) -> Result<Binding, StateError> {
    let shape = || StateError::Shape { what: "a binding of a label" };
    Ok(Binding {
        label: row.try_get("label").map_err(|_| shape())?,
        relation: number(row, "oid").ok_or_else(shape)?,
        attribute: number(row, "attribute").ok_or_else(shape)?,
        schema_name: row.try_get("schema_name").map_err(|_| shape())?,
        relation_name: row.try_get("relation_name").map_err(|_| shape())?,
        column_name: row.try_get("column_name").map_err(|_| shape())?,
    })
}

fn number<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Option<T> {
    T::try_from(row.try_get::<i64, _>(column).ok()?).ok()
}
