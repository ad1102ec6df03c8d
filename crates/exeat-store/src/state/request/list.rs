//! Requests in bounded pages, newest first, and earlier decisions about statements of the same shape. Without cards.

use std::collections::BTreeSet;

use exeat_policy::approval::{Progress, Review, State as RequestState, Terms};
use exeat_policy::grant::Ask;
use exeat_policy::{Asker, Moment, Person};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::RequestId;
use crate::state::error::Fault;
use crate::state::{State, StateError};

/// On one page.
pub const SHOWN_MAX: u32 = 100;

/// Which requests; what is `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFilter {
    pub wanted: Wanted,
    pub target: Option<String>,
    /// Whoever asked, by subject, or the agent acting for them.
    pub principal: Option<String>,
    /// Older than this one: where the last page ended.
    pub before: Option<(Moment, RequestId)>,
    pub limit: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    #[default]
    All,
    /// What waits for humans.
    Open,
    /// What was let through by breaking the glass and nobody has looked at since.
    ReviewDue,
}

/// A line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: RequestId,
    pub ask: Ask,
    pub terms: Terms,
    pub progress: Progress,
    pub changed_at: Moment,
}

/// What was decided about a statement of the same shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    pub id: RequestId,
    pub asker: Asker,
    pub asked_at: Moment,
    pub state: RequestState,
    pub review: Review,
}

impl State {
    /// What waits for humans: at most [`super::OPEN_MAX`], and a few that were asked at once.
    pub async fn open_requests(&self) -> Result<BTreeSet<RequestId>, StateError> {
        self.access("look for decisions", move |backend| async move {
            let rows = sqlx::query("SELECT id FROM request WHERE is_open = 1").fetch_all(&backend.pool).await?;
            rows.iter().map(|row| Ok(RequestId(row.try_get("id")?))).collect()
        })
        .await
    }

    pub async fn requests(&self, filter: &RequestFilter) -> Result<Vec<Listed>, StateError> {
        let filter = filter.clone();
        self.access("list requests", move |backend| async move {
            // Of each its own statement, for each has its own index.
            let wanted = match filter.wanted {
                Wanted::All => "",
                Wanted::Open => "is_open = 1 AND",
                Wanted::ReviewDue => "review_due = 1 AND",
            };
            let (before, id) = match &filter.before {
                Some((at, id)) => (at.unix_millis(), id.as_str()),
                None => (i64::MAX, ""),
            };
            let text = format!(
                "SELECT id, ask, terms, progress, changed_at FROM request \
                 WHERE {wanted} ($1 = '' OR target = $1) AND ($2 = '' OR subject = $2 OR actor = $2) \
                   AND asked_at <= $3 AND (asked_at < $3 OR id < $4) \
                 ORDER BY asked_at DESC, id DESC LIMIT $5",
            );
            let rows = sqlx::query(AssertSqlSafe(text))
                .bind(filter.target.as_deref().unwrap_or_default())
                .bind(filter.principal.as_deref().unwrap_or_default())
                .bind(before)
                .bind(id)
                .bind(i64::from(filter.limit.min(SHOWN_MAX)))
                .fetch_all(&backend.pool)
                .await?;
            rows.iter().map(|row| listed(row).ok_or(Fault::Shape("a request"))).collect()
        })
        .await
    }

    /// Newest first. What still waits is not among them.
    pub async fn earlier(&self, fingerprint: &str, limit: u32) -> Result<Vec<Earlier>, StateError> {
        let fingerprint = fingerprint.to_owned();
        self.access("list decisions", move |backend| async move {
            let rows = sqlx::query(
                "SELECT id, issuer, subject, actor, asked_at, progress FROM request \
                 WHERE fingerprint = $1 AND is_open = 0 ORDER BY asked_at DESC, id DESC LIMIT $2",
            )
            .bind(fingerprint)
            .bind(i64::from(limit.min(SHOWN_MAX)))
            .fetch_all(&backend.pool)
            .await?;
            rows.iter().map(|row| earlier(row).ok_or(Fault::Shape("a request"))).collect()
        })
        .await
    }
}

fn listed(row: &AnyRow) -> Option<Listed> {
    let json = |column: &str| row.try_get::<String, _>(column).ok();
    Some(Listed {
        id: RequestId(json("id")?),
        ask: serde_json::from_str(&json("ask")?).ok()?,
        terms: serde_json::from_str(&json("terms")?).ok()?,
        progress: serde_json::from_str(&json("progress")?).ok()?,
        changed_at: Moment::from_unix_millis(row.try_get("changed_at").ok()?),
    })
}

fn earlier(row: &AnyRow) -> Option<Earlier> {
    let text = |column: &str| row.try_get::<String, _>(column).ok();
    let Progress { state, review } = serde_json::from_str(&text("progress")?).ok()?;
    Some(Earlier {
        id: RequestId(text("id")?),
        asker: Asker {
            human: Person { issuer: text("issuer")?, subject: text("subject")? },
            actor: row.try_get("actor").ok()?,
        },
        asked_at: Moment::from_unix_millis(row.try_get("asked_at").ok()?),
        state,
        review,
    })
}
