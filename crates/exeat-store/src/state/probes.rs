//! Probes: every distinct value of a sealed column that a principal tries counts once within a window, before the
//! statement that tries it is forwarded. Exact under concurrency: one transaction looks, counts and refuses. The
//! window rolls: a value counts from the moment it was first tried until the window's length later, so that no day's
//! end gives a second allowance.

use std::fmt;
use std::time::Duration;

use exeat_policy::Principal;
use jiff::Timestamp;
use ring::hmac;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::{State, StateError};
use crate::hex;

/// Values one statement may try at once: far above any limit, far below what would hold the store up.
pub const VALUES_MAX: usize = 10_000;

/// What one statement is about to try. `Debug` leaves the values out.
#[derive(Clone, Copy)]
pub struct Probe<'a> {
    pub principal: &'a Principal,
    pub target: &'a str,
    pub label: &'a str,
    /// `schema.relation`.
    pub relation: &'a str,
    /// In one form per value, whatever the protocol: callers decide which values are equal.
    pub values: &'a [&'a [u8]],
    pub limit: u32,
    pub window: Duration,
}

impl fmt::Debug for Probe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe")
            .field("target", &self.target)
            .field("label", &self.label)
            .field("relation", &self.relation)
            .field("values", &self.values.len())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// On file: the statement may go.
    Counted { used: u32, limit: u32 },
    /// Nothing was counted. `resets_at`: when as many values have aged out as this statement needs.
    Exhausted { used: u32, limit: u32, resets_at: Timestamp },
}

/// Which counters; what is `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitFilter {
    /// `sub`, or the agent acting for it.
    pub principal: Option<String>,
    pub target: Option<String>,
    pub label: Option<String>,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUse {
    pub issuer: String,
    pub subject: String,
    pub actor: Option<String>,
    pub target: String,
    pub label: String,
    pub relation: String,
    pub used: u64,
    /// When the oldest counted value ages out.
    pub next_free: Timestamp,
}

impl State {
    /// Counts before anything is forwarded. An error counts nothing, and nothing may be forwarded.
    pub async fn probe(&self, probe: &Probe<'_>, now: Timestamp) -> Result<ProbeVerdict, StateError> {
        if probe.values.len() > VALUES_MAX {
            return Err(StateError::TooManyValues { values: probe.values.len(), limit: VALUES_MAX });
        }
        let mut digests: Vec<String> =
            probe.values.iter().map(|value| digest(&self.shared.probe_key, probe, value)).collect();
        digests.sort_unstable();
        digests.dedup();
        let mut connection = self.shared.connection.lock().await;
        let counted = count(&mut connection, probe, &digests, now).await;
        self.noted(counted.map_err(StateError::access("count a probe")))
    }

    /// What counts at this moment, in order.
    pub async fn limits(&self, filter: &LimitFilter, now: Timestamp) -> Result<Vec<LimitUse>, StateError> {
        let action = || StateError::access("list limits");
        let mut connection = self.shared.connection.lock().await;
        let rows = filtered(
            sqlx::query(
                "SELECT issuer, subject, actor, target, label, relation, count(*) AS used, \
                 min(tried_at + window_ms) AS next_free FROM probe \
                 WHERE ($1 = '' OR subject = $1 OR actor = $1) AND ($2 = '' OR target = $2) \
                   AND ($3 = '' OR label = $3) AND tried_at + window_ms > $4 \
                 GROUP BY issuer, subject, actor, target, label, relation \
                 ORDER BY issuer, subject, actor, target, label, relation",
            ),
            filter,
        )
        .bind(now.as_millisecond())
        .fetch_all(&mut *connection)
        .await;
        let rows = self.noted(rows.map_err(action()))?;
        rows.iter().map(limit_use).collect()
    }

    /// Forgets what was counted. Says how many counters there were.
    pub async fn reset_limits(&self, filter: &LimitFilter) -> Result<usize, StateError> {
        let mut connection = self.shared.connection.lock().await;
        let reset = reset(&mut connection, filter).await;
        self.noted(reset.map_err(StateError::access("reset limits")))
    }
}

/// Bound to what the value was tried on: equal values of two columns are not to be told from the file.
fn digest(key: &hmac::Key, probe: &Probe<'_>, value: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [probe.target.as_bytes(), probe.label.as_bytes(), probe.relation.as_bytes(), value] {
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    hex::text(context.sign().as_ref())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// $1 to $6: whose counter of what.
fn keyed<'q>(query: Query<'q>, probe: &'q Probe<'_>) -> Query<'q> {
    let principal = probe.principal;
    query
        .bind(principal.issuer.as_str())
        .bind(principal.subject.as_str())
        .bind(principal.actor.as_deref().unwrap_or_default())
        .bind(probe.target)
        .bind(probe.label)
        .bind(probe.relation)
}

/// $1 to $3.
fn filtered<'q>(query: Query<'q>, filter: &'q LimitFilter) -> Query<'q> {
    [&filter.principal, &filter.target, &filter.label]
        .into_iter()
        .fold(query, |query, wanted| query.bind(wanted.as_deref().unwrap_or_default()))
}

async fn count(
    connection: &mut SqliteConnection,
    probe: &Probe<'_>,
    digests: &[String],
    now: Timestamp,
) -> Result<ProbeVerdict, sqlx::Error> {
    let window = i64::try_from(probe.window.as_millis()).unwrap_or(i64::MAX);
    let now = now.as_millisecond();
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    // What has aged out counts no more, and need not be kept.
    keyed(
        sqlx::query(
            "DELETE FROM probe WHERE issuer = $1 AND subject = $2 AND actor = $3 AND target = $4 AND label = $5 \
             AND relation = $6 AND tried_at <= $7",
        ),
        probe,
    )
    .bind(now.saturating_sub(window))
    .execute(&mut *transaction)
    .await?;
    let mut fresh = 0_u32;
    for digest in digests {
        let done = keyed(
            sqlx::query(
                "INSERT INTO probe (issuer, subject, actor, target, label, relation, digest, tried_at, window_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
            ),
            probe,
        )
        .bind(digest)
        .bind(now)
        .bind(window)
        .execute(&mut *transaction)
        .await?;
        fresh = fresh.saturating_add(u32::from(done.rows_affected() > 0));
    }
    let used = keyed(
        sqlx::query(
            "SELECT tried_at FROM probe WHERE issuer = $1 AND subject = $2 AND actor = $3 AND target = $4 \
             AND label = $5 AND relation = $6 ORDER BY tried_at",
        ),
        probe,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let total = u32::try_from(used.len()).unwrap_or(u32::MAX);
    // A value tried before costs nothing, even where a policy change has left more on file than it allows now.
    if fresh == 0 || total <= probe.limit {
        transaction.commit().await?;
        return Ok(ProbeVerdict::Counted { used: total, limit: probe.limit });
    }
    transaction.rollback().await?;
    let excess = usize::try_from(total - probe.limit).unwrap_or(usize::MAX);
    let last = used.get(excess.saturating_sub(1)).or(used.last());
    let frees_at = last.map(|row| row.try_get::<i64, _>("tried_at")).transpose()?.unwrap_or(now);
    let resets_at = Timestamp::from_millisecond(frees_at.saturating_add(window)).unwrap_or(Timestamp::MAX);
    Ok(ProbeVerdict::Exhausted { used: total.saturating_sub(fresh), limit: probe.limit, resets_at })
}

async fn reset(connection: &mut SqliteConnection, filter: &LimitFilter) -> Result<usize, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let counters = filtered(
        sqlx::query(
            "SELECT DISTINCT issuer, subject, actor, target, label, relation FROM probe \
             WHERE ($1 = '' OR subject = $1 OR actor = $1) AND ($2 = '' OR target = $2) AND ($3 = '' OR label = $3)",
        ),
        filter,
    )
    .fetch_all(&mut *transaction)
    .await?;
    filtered(
        sqlx::query(
            "DELETE FROM probe \
             WHERE ($1 = '' OR subject = $1 OR actor = $1) AND ($2 = '' OR target = $2) AND ($3 = '' OR label = $3)",
        ),
        filter,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(counters.len())
}

fn limit_use(row: &SqliteRow) -> Result<LimitUse, StateError> {
    let shape = |_| StateError::Shape { what: "a counter" };
    let actor: String = row.try_get("actor").map_err(shape)?;
    let used: i64 = row.try_get("used").map_err(shape)?;
    let next_free: i64 = row.try_get("next_free").map_err(shape)?;
    Ok(LimitUse {
        issuer: row.try_get("issuer").map_err(shape)?,
        subject: row.try_get("subject").map_err(shape)?,
        actor: Some(actor).filter(|actor| !actor.is_empty()),
        target: row.try_get("target").map_err(shape)?,
        label: row.try_get("label").map_err(shape)?,
        relation: row.try_get("relation").map_err(shape)?,
        used: u64::try_from(used).unwrap_or_default(),
        next_free: Timestamp::from_millisecond(next_free).unwrap_or(Timestamp::MAX),
    })
}
