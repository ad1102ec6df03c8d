//! DDL of the open transaction. No other connection sees it, so the catalog is read on the session's own, in the
//! gateway's own extended messages and without a Sync where one would commit. Each query of such a reading sees what was
//! committed before it: the fingerprint of what everybody sees, before and after, says that all of them saw the same.
//! The picture it gives is this session's alone and goes with the transaction; nothing of it reaches the state store.

use std::sync::Arc;
use std::time::Instant;

use exeat_enforce::refusal::{Refusal, RefusalCode};
use exeat_sql::catalog::{QUERIES, VIEWS, these_views};
use exeat_sql::{CatalogError, CatalogSnapshot};

use super::catalog::DatabaseCatalog;
use super::picture::{OwnAnswer, Renewed};
use super::session::{Done, Own, Session, SessionEnd};

/// As for the catalog connection.
const CATALOG_ROOM: Room = Room { rows: 2_000_000, bytes: 256 * 1024 * 1024 };

/// Readings that others' definitions come between, before the statement is refused.
const READINGS_MAX: usize = 3;

/// What the answers to the gateway's own questions may bring.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Room {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// The picture's snapshot is this connection's own.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// Fingerprint of what everybody sees beside it.
    pub(crate) beside: Arc<str>,
    verified: Instant,
}

type Cells = Vec<Vec<Option<String>>>;

impl Session {
    /// Brings the picture up to date within a transaction that has defined something. Not in a failed block.
    pub(crate) async fn renew_overlay(&mut self) -> Result<Renewed, SessionEnd> {
        let Some(database) = self.picture.database.clone() else { return Ok(unreadable()) };
        if !self.picture.stale
            && let Some(overlay) = &self.picture.overlay
        {
            if overlay.verified.elapsed() <= self.target.catalog_bound {
                return Ok(Renewed::Yes);
            }
            let at = Instant::now();
            let Some(now) = self.fingerprint(&database).await? else { return Ok(unreadable()) };
            if let Some(overlay) = self.picture.overlay.as_mut().filter(|overlay| overlay.beside == now) {
                overlay.verified = at;
                return Ok(Renewed::Yes);
            }
        }
        for _ in 0..READINGS_MAX {
            let verified = Instant::now();
            let Some(beside) = self.fingerprint(&database).await? else { return Ok(unreadable()) };
            match self.read_state().await? {
                Renewed::Yes => {}
                other => return Ok(other),
            }
            if !self.own.state.as_ref().is_some_and(|state| state.reads_committed) {
                return Ok(Renewed::Refuse(after_definition()));
            }
            let everybodys = database.snapshot_of(&beside).unwrap_or_default();
            let results = match self.read_catalog(&everybodys).await? {
                Ok(results) => results,
                Err(other) => return Ok(other),
            };
            if self.fingerprint(&database).await?.is_none_or(|now| now != beside) {
                continue;
            }
            let version = database.overlay_version();
            let path = &self.picture.scope.search_path;
            let snapshot = CatalogSnapshot::build_beside(version, &results, path, &everybodys);
            return self.see(snapshot, Overlay { beside, verified }).await;
        }
        Ok(Renewed::Refuse(Refusal::not_enforceable("the database's catalog changes faster than it can be read")))
    }

    async fn see(
        &mut self,
        snapshot: Result<CatalogSnapshot, CatalogError>,
        overlay: Overlay,
    ) -> Result<Renewed, SessionEnd> {
        let snapshot = match snapshot {
            Ok(snapshot) => Arc::new(snapshot),
            Err(problem) => {
                tracing::error!(target_name = %self.target.name, problem = exeat_store::chain(&problem), "catalog could not be read");
                return Ok(unreadable());
            }
        };
        self.picture.own.find(&self.picture.facts.snapshot, &snapshot);
        let policy = Arc::clone(&self.picture.policy);
        let Some(drift) = self.drift_apart(&policy, &snapshot).await else {
            return Ok(Renewed::Refuse(Refusal::not_enforceable("what is known of the database cannot be read")));
        };
        self.picture.renew(policy, snapshot, &drift);
        self.picture.overlay = Some(overlay);
        Ok(Renewed::Yes)
    }

    /// `None`: it cannot be read, which the log says.
    async fn fingerprint(&mut self, database: &DatabaseCatalog) -> Result<Option<Arc<str>>, SessionEnd> {
        let read = self.while_client_stays(database.fingerprint()).await?;
        Ok(read
            .inspect_err(|problem| {
                tracing::error!(target_name = %self.target.name, problem = exeat_store::chain(problem), "catalog could not be read");
            })
            .ok())
    }

    /// The rows of every query of a snapshot, read on this connection. To print a definition the server locks what it
    /// names, as reading it would, until the transaction ends: only those are printed that may differ.
    async fn read_catalog(&mut self, everybodys: &CatalogSnapshot) -> Result<Result<Vec<Cells>, Renewed>, SessionEnd> {
        let but_views: Vec<&str> = QUERIES.iter().filter(|query| query.name != VIEWS).map(|query| query.sql).collect();
        let mut results = match self.read_rows(&but_views).await? {
            Ok(results) => results,
            other => return Ok(other),
        };
        let place = QUERIES.iter().position(|query| query.name == VIEWS).unwrap_or_default();
        results.insert(place.min(results.len()), Vec::new());
        let changed = match everybodys.changed_views(&results) {
            Ok(changed) => changed,
            Err(problem) => return Err(SessionEnd::State(problem.to_string())),
        };
        if !changed.is_empty() {
            let views = match self.read_rows(&[&these_views(&changed)]).await? {
                Ok(views) => views,
                other => return Ok(other),
            };
            if let (Some(rows), Some(views)) = (results.get_mut(place), views.into_iter().next()) {
                *rows = views;
            }
        }
        Ok(Ok(results))
    }

    async fn read_rows(&mut self, queries: &[&str]) -> Result<Result<Vec<Cells>, Renewed>, SessionEnd> {
        self.cancelling.settle().await;
        self.own.begin(CATALOG_ROOM);
        for sql in queries {
            self.sender().catalog_read(sql)?;
        }
        match self.end_own_exchange().await? {
            OwnAnswer::Done => {}
            OwnAnswer::Skipped => return Ok(Err(Renewed::Skipped)),
            OwnAnswer::Refused(refusal) => return Ok(Err(Renewed::Refuse(*refusal))),
            OwnAnswer::Failed(problem) => {
                tracing::error!(sqlstate = ?problem.sqlstate(), "the catalog could not be read within a transaction");
                return Ok(Err(unreadable()));
            }
        }
        let results = self.own.take_results();
        if results.len() == queries.len() {
            Ok(Ok(results))
        } else {
            Err(SessionEnd::State(format!("{} catalog results instead of {}", results.len(), queries.len())))
        }
    }
}

impl Own {
    pub(crate) fn begin(&mut self, room: Room) {
        self.rows.clear();
        self.ends.clear();
        self.room = room;
    }

    pub(crate) fn keep(&mut self, row: Vec<Option<String>>) -> Done {
        let taken = size_of_val(row.as_slice()) + row.iter().flatten().map(String::len).sum::<usize>();
        let (Some(rows), Some(bytes)) = (self.room.rows.checked_sub(1), self.room.bytes.checked_sub(taken)) else {
            return Err(SessionEnd::State("more rows than expected".to_owned()));
        };
        self.room = Room { rows, bytes };
        self.rows.push(row);
        Ok(())
    }

    /// The rows of each query that has ended.
    fn take_results(&mut self) -> Vec<Cells> {
        let mut rows = std::mem::take(&mut self.rows).into_iter();
        let mut taken = 0;
        let ends = std::mem::take(&mut self.ends);
        ends.into_iter()
            .map(|end| {
                let count = end.saturating_sub(taken);
                taken = end;
                rows.by_ref().take(count).collect()
            })
            .collect()
    }
}

fn unreadable() -> Renewed {
    Renewed::Refuse(Refusal::not_enforceable("the database's catalog cannot be read"))
}

/// Under the older snapshot of a stricter isolation level the catalog reads as it was, and names mean what it is.
fn after_definition() -> Refusal {
    Refusal::new(
        RefusalCode::OpaqueStatement,
        "a statement after one that defines or drops an object is not analysed in a transaction that is not READ COMMITTED",
    )
    .suggestion("commit the transaction first, or use READ COMMITTED")
}
