//! Bindings and baselines: taken once by whoever finds a database first, added to where a label matches more, and
//! replaced whole when a person accepts what is there.

use exeat_policy::baseline::{AcceptedColumn, AcceptedRelation, Binding, Known};
use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::backend::Backend;
use super::changes::{Topic, moved};
use super::error::Fault;
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

/// The same, kept for as long as an access takes.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) target: String,
    pub(super) name: String,
}

impl Database {
    pub(super) fn of(database: DatabaseRef<'_>) -> Self {
        Self { target: database.target.to_owned(), name: database.name.to_owned() }
    }

    pub(super) fn lock(&self) -> String {
        format!("baseline {} {}", self.target, self.name)
    }
}

impl State {
    /// `None`: nobody has found labelled relations there yet.
    pub async fn known(&self, database: DatabaseRef<'_>) -> Result<Option<Known>, StateError> {
        let database = Database::of(database);
        self.access("read a baseline", move |backend| async move {
            // One moment for all of it: an acceptance must not come in between.
            let mut transaction = backend.read().await?;
            read(&mut transaction, &database).await
        })
        .await
    }

    /// Takes what was found as the baseline, unless there is one.
    pub async fn take_baseline(
        &self,
        database: DatabaseRef<'_>,
        found: &Known,
        now: Timestamp,
    ) -> Result<Taken, StateError> {
        let (database, found) = (Database::of(database), found.clone());
        self.access("take a baseline", move |backend| async move { take(&backend, &database, &found, now).await }).await
    }

    /// Binds more columns; those bound already stay as they are. Says how many are new.
    pub async fn bind(&self, database: DatabaseRef<'_>, bindings: &[Binding]) -> Result<u64, StateError> {
        let (database, bindings) = (Database::of(database), bindings.to_vec());
        self.access("bind labels", move |backend| async move {
            let mut transaction = backend.write(&database.lock()).await?;
            let added = insert_bindings(&mut transaction, &database, &bindings).await?;
            if added > 0 {
                let change = moved(&backend, &mut transaction, Topic::Baseline).await?;
                transaction.commit().await?;
                backend.changes.tell(&change);
            }
            Ok(added)
        })
        .await
    }

    /// Replaces bindings and baseline by what a person has accepted.
    pub async fn accept(&self, database: DatabaseRef<'_>, found: &Known, now: Timestamp) -> Result<(), StateError> {
        let (database, found) = (Database::of(database), found.clone());
        self.access("accept a baseline", move |backend| async move { replace(&backend, &database, &found, now).await })
            .await
    }
}

async fn read(connection: &mut AnyConnection, database: &Database) -> Result<Option<Known>, Fault> {
    let taken = sqlx::query("SELECT accepted_at FROM baseline WHERE target = $1 AND database_name = $2")
        .bind(database.target.as_str())
        .bind(database.name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if taken.is_none() {
        return Ok(None);
    }
    let relations = sqlx::query(
        "SELECT oid, schema_name, relation_name, columns FROM baseline_relation \
         WHERE target = $1 AND database_name = $2 ORDER BY oid",
    )
    .bind(database.target.as_str())
    .bind(database.name.as_str())
    .fetch_all(&mut *connection)
    .await?;
    let bindings = sqlx::query(
        "SELECT label, oid, attribute, schema_name, relation_name, column_name FROM binding \
         WHERE target = $1 AND database_name = $2",
    )
    .bind(database.target.as_str())
    .bind(database.name.as_str())
    .fetch_all(&mut *connection)
    .await?;
    let mut bindings = bindings.iter().map(binding).collect::<Result<Vec<_>, _>>()?;
    // Here and not by the database: each orders text its own way.
    bindings
        .sort_by(|a, b| (a.label.as_str(), a.relation, a.attribute).cmp(&(b.label.as_str(), b.relation, b.attribute)));
    Ok(Some(Known { bindings, baseline: relations.iter().map(relation).collect::<Result<_, _>>()? }))
}

async fn take(backend: &Backend, database: &Database, found: &Known, now: Timestamp) -> Result<Taken, Fault> {
    let mut transaction = backend.write(&database.lock()).await?;
    if let Some(known) = read(&mut transaction, database).await? {
        return Ok(Taken::Before(known));
    }
    insert(&mut transaction, database, found, now).await?;
    let change = moved(backend, &mut transaction, Topic::Baseline).await?;
    transaction.commit().await?;
    backend.changes.tell(&change);
    Ok(Taken::Now)
}

async fn replace(backend: &Backend, database: &Database, found: &Known, now: Timestamp) -> Result<(), Fault> {
    let mut transaction = backend.write(&database.lock()).await?;
    for forget in [
        "DELETE FROM binding WHERE target = $1 AND database_name = $2",
        "DELETE FROM baseline_relation WHERE target = $1 AND database_name = $2",
        "DELETE FROM baseline WHERE target = $1 AND database_name = $2",
    ] {
        sqlx::query(forget)
            .bind(database.target.as_str())
            .bind(database.name.as_str())
            .execute(&mut *transaction)
            .await?;
    }
    insert(&mut transaction, database, found, now).await?;
    let change = moved(backend, &mut transaction, Topic::Baseline).await?;
    transaction.commit().await?;
    backend.changes.tell(&change);
    Ok(())
}

async fn insert(
    connection: &mut AnyConnection,
    database: &Database,
    found: &Known,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO baseline (target, database_name, accepted_at) VALUES ($1, $2, $3)")
        .bind(database.target.as_str())
        .bind(database.name.as_str())
        .bind(now.as_millisecond())
        .execute(&mut *connection)
        .await?;
    for relation in &found.baseline {
        sqlx::query(
            "INSERT INTO baseline_relation (target, database_name, oid, schema_name, relation_name, columns) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(database.target.as_str())
        .bind(database.name.as_str())
        .bind(i64::from(relation.oid))
        .bind(relation.schema_name.as_str())
        .bind(relation.name.as_str())
        .bind(columns_json(&relation.columns))
        .execute(&mut *connection)
        .await?;
    }
    insert_bindings(connection, database, &found.bindings).await?;
    Ok(())
}

async fn insert_bindings(
    connection: &mut AnyConnection,
    database: &Database,
    bindings: &[Binding],
) -> Result<u64, sqlx::Error> {
    let mut added = 0;
    for binding in bindings {
        let done = sqlx::query(
            "INSERT INTO binding \
             (target, database_name, label, oid, attribute, schema_name, relation_name, column_name) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        )
        .bind(database.target.as_str())
        .bind(database.name.as_str())
        .bind(binding.label.as_str())
        .bind(i64::from(binding.relation))
        .bind(i64::from(binding.attribute))
        .bind(binding.schema_name.as_str())
        .bind(binding.relation_name.as_str())
        .bind(binding.column_name.as_str())
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

fn relation(row: &AnyRow) -> Result<AcceptedRelation, Fault> {
    let shape = || Fault::Shape("a relation of a baseline");
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

fn binding(row: &AnyRow) -> Result<Binding, Fault> {
    let shape = || Fault::Shape("a binding of a label");
    Ok(Binding {
        label: row.try_get("label").map_err(|_| shape())?,
        relation: number(row, "oid").ok_or_else(shape)?,
        attribute: number(row, "attribute").ok_or_else(shape)?,
        schema_name: row.try_get("schema_name").map_err(|_| shape())?,
        relation_name: row.try_get("relation_name").map_err(|_| shape())?,
        column_name: row.try_get("column_name").map_err(|_| shape())?,
    })
}

fn number<T: TryFrom<i64>>(row: &AnyRow, column: &str) -> Option<T> {
    T::try_from(row.try_get::<i64, _>(column).ok()?).ok()
}
