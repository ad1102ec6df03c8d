//! What time alone does to requests: second groups are told, what nobody decided or used in time expires, and what is
//! long over is removed. Every gateway of a store may sweep; each step happens once.

use exeat_policy::Moment;
use exeat_policy::approval::{Event, Notice};
use sqlx::Row;

use super::{Decided, RequestId};
use crate::state::error::Fault;
use crate::state::{State, StateError};

/// In one sweep.
pub const SWEPT_MAX: i64 = 200;

/// A request that is over is kept this long for whoever looks at earlier decisions; the record keeps it for good.
const KEPT_DAYS: i64 = 30;

/// A request that time has moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    pub id: RequestId,
    pub notice: Option<Notice>,
}

impl State {
    /// Moves what is due. As many as [`SWEPT_MAX`]: there may be more.
    pub async fn sweep_requests(&self, now: Moment) -> Result<Vec<Swept>, StateError> {
        let due = self
            .access("find requests that are due", move |backend| async move {
                let rows = sqlx::query("SELECT id FROM request WHERE due_at <= $1 ORDER BY due_at LIMIT $2")
                    .bind(now.unix_millis())
                    .bind(SWEPT_MAX)
                    .fetch_all(&backend.pool)
                    .await?;
                let ids = rows.iter().map(|row| row.try_get::<String, _>("id")).collect::<Result<Vec<_>, _>>()?;
                Ok(ids)
            })
            .await?;
        let mut swept = Vec::new();
        for id in due.into_iter().map(RequestId) {
            // Whichever of the two it is time for; another gateway may have been faster with either.
            for event in [Event::Expire, Event::Escalate] {
                match self.decide(&id, event, now).await? {
                    Decided::Moved(step) => {
                        swept.push(Swept { id: id.clone(), notice: step.notice });
                        break;
                    }
                    Decided::Unmoved(_) => {}
                    Decided::NoSuchRequest => break,
                }
            }
        }
        Ok(swept)
    }

    /// Removes what has been over for long. Every so often is enough.
    pub async fn forget_requests(&self, now: Moment) -> Result<(), StateError> {
        let kept_from = now.unix_millis().saturating_sub(KEPT_DAYS * 24 * 60 * 60 * 1000);
        self.access("forget requests", move |backend| async move {
            sqlx::query(
                "DELETE FROM request WHERE is_open = 0 AND review_due = 0 AND due_at IS NULL AND changed_at < $1",
            )
            .bind(kept_from)
            .execute(&backend.pool)
            .await?;
            Ok::<(), Fault>(())
        })
        .await
    }
}
