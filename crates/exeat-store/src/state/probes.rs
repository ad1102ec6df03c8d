//! Probes: every distinct value of a sealed column that a principal tries counts once within a window, before the
//! statement that tries it is forwarded. Exact under concurrency: one transaction looks, counts and refuses. The
//! window rolls: a value counts from the moment it was first tried until the window's length later, so that no day's
//! end gives a second allowance.

use std::fmt;
use std::time::Duration;

use exeat_policy::Principal;
use jiff::Timestamp;
use ring::hmac;
use sqlx::Row;
use sqlx::any::{Any, AnyArguments, AnyRow};

use super::backend::Backend;
use super::error::Fault;
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

/// Whose counter of what, and what counts now.
struct Tries {
    issuer: String,
    subject: String,
    /// '' where nobody acts for the subject.
    actor: String,
    target: String,
    label: String,
    relation: String,
    digests: Vec<String>,
    limit: u32,
    window_ms: i64,
}

impl Tries {
    fn of(probe: &Probe<'_>, key: &hmac::Key) -> Self {
        let mut digests: Vec<String> = probe.values.iter().map(|value| digest(key, probe, value)).collect();
        digests.sort_unstable();
        digests.dedup();
        Self {
            issuer: probe.principal.issuer.clone(),
            subject: probe.principal.subject.clone(),
            actor: probe.principal.actor.clone().unwrap_or_default(),
            target: probe.target.to_owned(),
            label: probe.label.to_owned(),
            relation: probe.relation.to_owned(),
            digests,
            limit: probe.limit,
            window_ms: i64::try_from(probe.window.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn parts(&self) -> [&str; 6] {
        [&self.issuer, &self.subject, &self.actor, &self.target, &self.label, &self.relation].map(String::as_str)
    }
}

impl State {
    /// Counts before anything is forwarded. An error counts nothing, and nothing may be forwarded.
    pub async fn probe(&self, probe: &Probe<'_>, now: Timestamp) -> Result<ProbeVerdict, StateError> {
        if probe.values.len() > VALUES_MAX {
            return Err(StateError::TooManyValues { values: probe.values.len(), limit: VALUES_MAX });
        }
        let tries = Tries::of(probe, self.shared.keys.probes());
        self.access("count a probe", move |backend| async move { count(&backend, &tries, now).await }).await
    }

    /// What counts at this moment, in order.
    pub async fn limits(&self, filter: &LimitFilter, now: Timestamp) -> Result<Vec<LimitUse>, StateError> {
        let filter = filter.clone();
        self.access("list limits", move |backend| async move {
            let rows = filtered(
                sqlx::query(
                    "SELECT issuer, subject, actor, target, label, relation, count(*) AS used, \
                     min(tried_at + window_ms) AS next_free FROM probe \
                     WHERE ($1 = '' OR subject = $1 OR actor = $1) AND ($2 = '' OR target = $2) \
                       AND ($3 = '' OR label = $3) AND tried_at + window_ms > $4 \
                     GROUP BY issuer, subject, actor, target, label, relation",
                ),
                &filter,
            )
            .bind(now.as_millisecond())
            .fetch_all(&backend.pool)
            .await?;
            let mut uses = rows.iter().map(limit_use).collect::<Result<Vec<_>, _>>()?;
            // Here and not by the database: each orders text its own way.
            uses.sort_by(|a, b| a.parts().cmp(&b.parts()));
            Ok(uses)
        })
        .await
    }

    /// Forgets what was counted. Says how many counters there were.
    pub async fn reset_limits(&self, filter: &LimitFilter) -> Result<usize, StateError> {
        let filter = filter.clone();
        self.access("reset limits", move |backend| async move { Ok(reset(&backend, &filter).await?) }).await
    }
}

impl LimitUse {
    fn parts(&self) -> (&str, &str, Option<&str>, [&str; 3]) {
        (&self.issuer, &self.subject, self.actor.as_deref(), [&self.target, &self.label, &self.relation])
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

type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// $1 to $6: whose counter of what.
fn keyed<'q>(query: Query<'q>, tries: &'q Tries) -> Query<'q> {
    tries.parts().into_iter().fold(query, |query, part| query.bind(part))
}

/// $1 to $3.
fn filtered<'q>(query: Query<'q>, filter: &'q LimitFilter) -> Query<'q> {
    [&filter.principal, &filter.target, &filter.label]
        .into_iter()
        .fold(query, |query, wanted| query.bind(wanted.as_deref().unwrap_or_default()))
}

async fn count(backend: &Backend, tries: &Tries, now: Timestamp) -> Result<ProbeVerdict, Fault> {
    let now = now.as_millisecond();
    let mut transaction = backend.write(&format!("probe {}", tries.parts().join("\n"))).await?;
    // What has aged out counts no more, and need not be kept.
    keyed(
        sqlx::query(
            "DELETE FROM probe WHERE issuer = $1 AND subject = $2 AND actor = $3 AND target = $4 AND label = $5 \
             AND relation = $6 AND tried_at <= $7",
        ),
        tries,
    )
    .bind(now.saturating_sub(tries.window_ms))
    .execute(&mut *transaction)
    .await?;
    let mut fresh = 0_u32;
    for digest in &tries.digests {
        let done = keyed(
            sqlx::query(
                "INSERT INTO probe (issuer, subject, actor, target, label, relation, digest, tried_at, window_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
            ),
            tries,
        )
        .bind(digest.as_str())
        .bind(now)
        .bind(tries.window_ms)
        .execute(&mut *transaction)
        .await?;
        fresh = fresh.saturating_add(u32::from(done.rows_affected() > 0));
    }
    let used = keyed(
        sqlx::query(
            "SELECT tried_at FROM probe WHERE issuer = $1 AND subject = $2 AND actor = $3 AND target = $4 \
             AND label = $5 AND relation = $6 ORDER BY tried_at",
        ),
        tries,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let total = u32::try_from(used.len()).unwrap_or(u32::MAX);
    // A value tried before costs nothing, even where a policy change has left more on file than it allows now.
    if fresh == 0 || total <= tries.limit {
        transaction.commit().await?;
        return Ok(ProbeVerdict::Counted { used: total, limit: tries.limit });
    }
    transaction.rollback().await?;
    let excess = usize::try_from(total - tries.limit).unwrap_or(usize::MAX);
    let last = used.get(excess.saturating_sub(1)).or(used.last());
    let frees_at = last.map(|row| row.try_get::<i64, _>("tried_at")).transpose()?.unwrap_or(now);
    let resets_at = Timestamp::from_millisecond(frees_at.saturating_add(tries.window_ms)).unwrap_or(Timestamp::MAX);
    Ok(ProbeVerdict::Exhausted { used: total.saturating_sub(fresh), limit: tries.limit, resets_at })
}

async fn reset(backend: &Backend, filter: &LimitFilter) -> Result<usize, sqlx::Error> {
    let mut transaction = backend.write("reset").await?;
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

fn limit_use(row: &AnyRow) -> Result<LimitUse, Fault> {
    let shape = |_| Fault::Shape("a counter");
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
