//! Reads a target's catalog once, as a new session with one of its logins would see it: for `check --connect` and
//! the policy's tests. The data plane keeps its own, live.

use std::sync::Arc;

use exeat_proxy::config::Target;
use exeat_proxy::upstream::{CatalogConnection, UpstreamError};
use exeat_sql::catalog::{QUERIES, SESSION_STATE_QUERY, SessionState};
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

/// What names mean at a target, at one moment.
#[derive(Debug)]
pub(crate) struct TargetCatalog {
    pub(crate) snapshot: Arc<CatalogSnapshot>,
    pub(crate) scope: Arc<Scope>,
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

/// By the last login, the one for everyone who has none of their own.
pub(crate) async fn read(target: &Target) -> Result<TargetCatalog, CatalogReadError> {
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

    let snapshot = CatalogSnapshot::build(1, &results).map_err(shape)?;
    let row = state.first().map_or(&[][..], Vec::as_slice);
    let state = SessionState::from_row(row).map_err(shape)?;
    Ok(TargetCatalog { snapshot: Arc::new(snapshot), scope: Arc::new(state.scope()) })
}
