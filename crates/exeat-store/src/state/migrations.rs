//! The tables, migration by migration. A migration that has run anywhere is never edited: what changes is a new one.
//! The SQL is the part that SQLite and PostgreSQL share: TEXT and BIGINT, primary keys, no functions.

use sqlx::{Connection, Row, SqliteConnection};

/// By version, from 1.
const MIGRATIONS: &[&[&str]] = &[BINDINGS_BASELINE_AND_PROBES, PINS];

const BINDINGS_BASELINE_AND_PROBES: &[&str] = &[
    // That a baseline was taken, even where it has become empty since.
    "CREATE TABLE baseline (
        target TEXT NOT NULL, database_name TEXT NOT NULL, accepted_at BIGINT NOT NULL,
        PRIMARY KEY (target, database_name))",
    // `columns`: JSON, [[attribute, name, type OID], ...] in attribute order.
    "CREATE TABLE baseline_relation (
        target TEXT NOT NULL, database_name TEXT NOT NULL, oid BIGINT NOT NULL,
        schema_name TEXT NOT NULL, relation_name TEXT NOT NULL, columns TEXT NOT NULL,
        PRIMARY KEY (target, database_name, oid))",
    "CREATE TABLE binding (
        target TEXT NOT NULL, database_name TEXT NOT NULL, label TEXT NOT NULL,
        oid BIGINT NOT NULL, attribute BIGINT NOT NULL,
        schema_name TEXT NOT NULL, relation_name TEXT NOT NULL, column_name TEXT NOT NULL,
        PRIMARY KEY (target, database_name, label, oid, attribute))",
    // One row for each distinct value a principal has tried: `digest` is keyed, the value stands nowhere.
    // `actor` is '' where nobody acts for the subject.
    "CREATE TABLE probe (
        issuer TEXT NOT NULL, subject TEXT NOT NULL, actor TEXT NOT NULL,
        target TEXT NOT NULL, label TEXT NOT NULL, relation TEXT NOT NULL,
        digest TEXT NOT NULL, tried_at BIGINT NOT NULL, window_ms BIGINT NOT NULL,
        PRIMARY KEY (issuer, subject, actor, target, label, relation, digest))",
];

/// `object`: kind and name; `sha256`: of its definition, in hex.
const PINS: &[&str] = &["CREATE TABLE pin (
        target TEXT NOT NULL, database_name TEXT NOT NULL, object TEXT NOT NULL,
        sha256 TEXT NOT NULL, pinned_at BIGINT NOT NULL,
        PRIMARY KEY (target, database_name, object))"];

#[derive(Debug)]
pub(super) enum Migrated {
    UpToDate,
    /// Made by a gateway that knows more.
    Newer {
        found: i64,
    },
}

pub(super) fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the tables up to this gateway's version, all or nothing.
pub(super) async fn run(connection: &mut SqliteConnection) -> Result<Migrated, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)")
        .execute(&mut *transaction)
        .await?;
    let row = sqlx::query("SELECT coalesce(max(version), 0) AS version FROM schema_version")
        .fetch_one(&mut *transaction)
        .await?;
    let found: i64 = row.try_get("version")?;
    if found > known_version() {
        return Ok(Migrated::Newer { found });
    }
    for (version, statements) in (1_i64..).zip(MIGRATIONS) {
        if version <= found {
            continue;
        }
        for statement in *statements {
            sqlx::query(*statement).execute(&mut *transaction).await?;
        }
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(version)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(Migrated::UpToDate)
}
