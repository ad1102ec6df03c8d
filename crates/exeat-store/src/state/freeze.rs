//! Freezes: subjects and targets that nothing is released to or from until somebody lifts it. Whoever holds sessions
//! waits on `State::changes` and reads all of them again; a store that cannot be asked is no store without freezes.

use exeat_policy::approval::Remark;
use exeat_policy::{Moment, Person};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::changes::{Topic, moved};
use super::error::Fault;
use super::{State, StateError};

/// Together: far more than people set by hand, few enough to read whole.
pub const FREEZES_MAX: i64 = 10_000;

/// What stands still.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frozen {
    /// A human, a workload, or an agent in whatever it does for others.
    Subject(Person),
    Target(String),
}

impl Frozen {
    /// Kind, issuer and name: the columns it is found by.
    fn parts(&self) -> [&str; 3] {
        match self {
            Self::Subject(person) => ["subject", &person.issuer, &person.subject],
            Self::Target(name) => ["target", "", name],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    pub what: Frozen,
    pub by: Person,
    pub reason: Remark,
    pub at: Moment,
}

/// What became of freezing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeVerdict {
    Frozen,
    /// Somebody was first; theirs stays as it is.
    FrozenBefore,
    TooMany,
}

impl State {
    pub async fn freeze(&self, freeze: &Freeze) -> Result<FreezeVerdict, StateError> {
        let freeze = freeze.clone();
        self.access("freeze", move |backend| async move {
            let mut transaction = backend.write("freezes").await?;
            let row = sqlx::query("SELECT count(*) AS many FROM frozen").fetch_one(&mut *transaction).await?;
            if row.try_get::<i64, _>("many")? >= FREEZES_MAX {
                return Ok(FreezeVerdict::TooMany);
            }
            let [kind, issuer, name] = freeze.what.parts();
            let done = sqlx::query(
                "INSERT INTO frozen (kind, issuer, name, by_issuer, by_subject, reason, frozen_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            )
            .bind(kind)
            .bind(issuer)
            .bind(name)
            .bind(freeze.by.issuer.as_str())
            .bind(freeze.by.subject.as_str())
            .bind(freeze.reason.as_str())
            .bind(freeze.at.unix_millis())
            .execute(&mut *transaction)
            .await?;
            if done.rows_affected() == 0 {
                return Ok(FreezeVerdict::FrozenBefore);
            }
            let change = moved(&backend, &mut transaction, Topic::Freeze).await?;
            transaction.commit().await?;
            backend.changes.tell(&change);
            Ok(FreezeVerdict::Frozen)
        })
        .await
    }

    /// Says whether there was anything to lift.
    pub async fn thaw(&self, what: &Frozen) -> Result<bool, StateError> {
        let what = what.clone();
        self.access("lift a freeze", move |backend| async move {
            let mut transaction = backend.write("freezes").await?;
            let [kind, issuer, name] = what.parts();
            let done = sqlx::query("DELETE FROM frozen WHERE kind = $1 AND issuer = $2 AND name = $3")
                .bind(kind)
                .bind(issuer)
                .bind(name)
                .execute(&mut *transaction)
                .await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            let change = moved(&backend, &mut transaction, Topic::Freeze).await?;
            transaction.commit().await?;
            backend.changes.tell(&change);
            Ok(true)
        })
        .await
    }

    /// All of them, in order.
    pub async fn freezes(&self) -> Result<Vec<Freeze>, StateError> {
        self.access("read freezes", |backend| async move {
            let rows = sqlx::query("SELECT kind, issuer, name, by_issuer, by_subject, reason, frozen_at FROM frozen")
                .fetch_all(&backend.pool)
                .await?;
            let mut found =
                rows.iter().map(|row| read(row).ok_or(Fault::Shape("a freeze"))).collect::<Result<Vec<_>, _>>()?;
            found.sort_by(|a, b| a.what.cmp(&b.what));
            Ok(found)
        })
        .await
    }
}

fn read(row: &AnyRow) -> Option<Freeze> {
    let text = |column: &str| row.try_get::<String, _>(column).ok();
    let what = match text("kind")?.as_str() {
        "subject" => Frozen::Subject(Person { issuer: text("issuer")?, subject: text("name")? }),
        "target" => Frozen::Target(text("name")?),
        _ => return None,
    };
    Some(Freeze {
        what,
        by: Person { issuer: text("by_issuer")?, subject: text("by_subject")? },
        reason: Remark::try_from(text("reason")?).ok()?,
        at: Moment::from_unix_millis(row.try_get("frozen_at").ok()?),
    })
}
