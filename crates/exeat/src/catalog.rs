//! Reads a target's catalog once: what a new session with one of its logins would see, for the policy's tests, and
//! what such a login may do that the gateway cannot hold, for `check --connect`. The data plane keeps its own, live.

use std::sync::Arc;

use exeat_policy::Label;
use exeat_proxy::config::Target;
use exeat_proxy::upstream::{CatalogConnection, UpstreamError};
use exeat_sql::catalog::{Pins, QUERIES, SESSION_STATE_QUERY, SessionState};
use exeat_sql::{CatalogError, CatalogSnapshot, Scope};

/// The catalog connection has a path of its own; a session starts with what its role or database is set to.
const SESSION_PATH_QUERY: &str = "SELECT pg_catalog.set_config('search_path', coalesce((\
    SELECT pg_catalog.substr(line, 13) \
    FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS line \
    WHERE line LIKE 'search_path=%' \
      AND s.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user)) \
      AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database \
                                WHERE datname = pg_catalog.current_database())) \
    ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1), '\"$user\", public'), false)";

/// One row per privilege that reads or writes past permissions, in words.
const ROLE_QUERY: &str = "SELECT p.words \
    FROM pg_catalog.pg_roles AS r, \
         LATERAL (VALUES (r.rolsuper, 'is a superuser'), (r.rolbypassrls, 'bypasses row security'), \
                         (r.rolreplication, 'may replicate')) AS p(held, words) \
    WHERE r.rolname = session_user AND p.held \
    UNION ALL SELECT 'is a member of ' || g.rolname \
    FROM pg_catalog.pg_roles AS g \
    WHERE g.rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program') \
      AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) \
      AND pg_catalog.pg_has_role(session_user, g.oid, 'MEMBER')";

/// Columns of relations that the login may change at will: ownership is inherited through roles.
const OWNED_QUERY: &str = "SELECT n.nspname, c.relname, a.attname \
    FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
      AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) \
      AND pg_catalog.pg_has_role(session_user, c.relowner, 'MEMBER')";

/// What names mean at a target, at one moment.
#[derive(Debug)]
pub(crate) struct TargetCatalog {
    pub(crate) snapshot: Arc<CatalogSnapshot>,
    pub(crate) scope: Arc<Scope>,
    /// The login is one that the server hides no setting from.
    pub(crate) administrator: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogReadError {
    #[error("target \"{target}\" has no login")]
    NoLogin { target: String },
    #[error("target \"{target}\": {source}")]
    Upstream { target: String, source: UpstreamError },
    #[error("target \"{target}\": the catalog does not read as expected: {source}")]
    Shape { target: String, source: CatalogError },
}

/// `pins`: what trusted names stood for before. By the last login, the one for everyone who has none of their own.
pub(crate) async fn read(target: &Target, pins: &Pins) -> Result<TargetCatalog, CatalogReadError> {
    let name = || target.name.clone();
    let login = target.logins.last().ok_or_else(|| CatalogReadError::NoLogin { target: name() })?;
    let upstream = |source| CatalogReadError::Upstream { target: name(), source };
    let shape = |source| CatalogReadError::Shape { target: name(), source };

    let mut connection = CatalogConnection::connect(&target.upstream, login).await.map_err(upstream)?;
    connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(upstream)?;
    let mut results = Vec::with_capacity(QUERIES.len());
    for query in QUERIES {
        results.push(connection.query(query.sql).await.map_err(upstream)?);
    }
    connection.query("COMMIT").await.map_err(upstream)?;
    connection.query(SESSION_PATH_QUERY).await.map_err(upstream)?;
    let state = connection.query(SESSION_STATE_QUERY).await.map_err(upstream)?;

    let snapshot = CatalogSnapshot::build_trusting(1, &results, &target.trust, pins).map_err(shape)?;
    let row = state.first().map_or(&[][..], Vec::as_slice);
    let state = SessionState::from_row(row).map_err(shape)?;
    Ok(TargetCatalog {
        snapshot: Arc::new(snapshot),
        scope: Arc::new(state.scope(true)),
        administrator: state.administrator,
    })
}

/// Why this login should not stand in front of sealed columns; empty when nothing speaks against it.
pub(crate) async fn excess_privileges(
    connection: &mut CatalogConnection,
    labels: &[Label],
) -> Result<Vec<String>, UpstreamError> {
    let rows = connection.query(ROLE_QUERY).await?;
    let mut found: Vec<String> = rows.into_iter().flatten().flatten().collect();
    for row in connection.query(OWNED_QUERY).await? {
        let [Some(schema), Some(table), Some(column)] = row.as_slice() else { continue };
        if labels.iter().any(|label| label.matches(schema, table, column)) {
            found.push(format!("owns {schema}.{table}, which has a label"));
        }
    }
    found.dedup();
    Ok(found)
}
