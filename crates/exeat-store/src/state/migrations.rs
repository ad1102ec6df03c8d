//! The tables, migration by migration. A migration that has run anywhere is never edited: what changes is a new one.
//! The SQL is the part that SQLite and PostgreSQL share: TEXT and BIGINT, primary keys, no functions.

use sqlx::Row;

use super::backend::Backend;

/// By version, from 1.
const MIGRATIONS: &[&[&str]] = &[BINDINGS_BASELINE_AND_PROBES, PINS, KEY_AND_REVISIONS, EXPOSURE_AND_REQUESTS];

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

const KEY_AND_REVISIONS: &[&str] = &[
    // One row: what tells whether two gateways have the same master key, and nothing else about it.
    "CREATE TABLE store_key (id BIGINT NOT NULL PRIMARY KEY, key_check TEXT NOT NULL)",
    // Moves with every change that gateways must hear of.
    "CREATE TABLE revision (topic TEXT NOT NULL PRIMARY KEY, number BIGINT NOT NULL)",
    "INSERT INTO revision (topic, number) VALUES ('baseline', 0), ('approval', 0), ('freeze', 0)",
];

const EXPOSURE_AND_REQUESTS: &[&str] = &[
    // One row for each bucket of a counter. `counter`: a digest of who, where and what. `born`: which row it is, since a
    // counter that was reset gets new ones. `label`: '' where none is counted. `counted`: JSON.
    "CREATE TABLE exposure (
        counter TEXT NOT NULL, ends_at BIGINT NOT NULL, born BIGINT NOT NULL,
        used BIGINT NOT NULL, forget_at BIGINT NOT NULL,
        issuer TEXT NOT NULL, subject TEXT NOT NULL, actor TEXT, target TEXT NOT NULL,
        label TEXT NOT NULL, counted TEXT NOT NULL, unit TEXT NOT NULL,
        PRIMARY KEY (counter, ends_at))",
    "CREATE INDEX exposure_forget_at ON exposure (forget_at)",
    // `ask`, `terms`, `progress`, `tell`: JSON. `card`: sealed. `is_open`, `review_due`: 0 or 1. `due_at`: when time alone
    // moves it next.
    "CREATE TABLE request (
        id TEXT NOT NULL PRIMARY KEY, ask_digest TEXT NOT NULL, fingerprint TEXT NOT NULL,
        target TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, actor TEXT,
        state TEXT NOT NULL, is_open BIGINT NOT NULL, review_due BIGINT NOT NULL,
        asked_at BIGINT NOT NULL, decide_by BIGINT NOT NULL, due_at BIGINT, changed_at BIGINT NOT NULL,
        version BIGINT NOT NULL,
        ask TEXT NOT NULL, terms TEXT NOT NULL, progress TEXT NOT NULL, tell TEXT NOT NULL, card TEXT NOT NULL)",
    "CREATE INDEX request_ask ON request (ask_digest, asked_at)",
    "CREATE INDEX request_fingerprint ON request (fingerprint, asked_at)",
    "CREATE INDEX request_open ON request (is_open, asked_at)",
    "CREATE INDEX request_review ON request (review_due, asked_at)",
    "CREATE INDEX request_asker ON request (issuer, subject, asked_at)",
    "CREATE INDEX request_asked_at ON request (asked_at)",
    "CREATE INDEX request_due_at ON request (due_at)",
    "CREATE TABLE frozen (
        kind TEXT NOT NULL, issuer TEXT NOT NULL, name TEXT NOT NULL,
        by_issuer TEXT NOT NULL, by_subject TEXT NOT NULL, reason TEXT NOT NULL, frozen_at BIGINT NOT NULL,
        PRIMARY KEY (kind, issuer, name))",
    "CREATE TABLE outbox (
        id TEXT NOT NULL PRIMARY KEY, destination TEXT NOT NULL, request TEXT NOT NULL, told TEXT NOT NULL,
        told_at BIGINT NOT NULL, attempts BIGINT NOT NULL, next_at BIGINT NOT NULL)",
    "CREATE INDEX outbox_next_at ON outbox (next_at)",
    "CREATE INDEX outbox_destination ON outbox (destination)",
];

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
pub(super) async fn run(backend: &Backend) -> Result<Migrated, sqlx::Error> {
    // Before the table that tells the version is made: two gateways may start at once.
    let mut transaction = backend.write("migrations").await?;
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
