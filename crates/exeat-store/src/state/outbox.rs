//! Messages that have to be sent about requests: put down in the transaction that makes them true, so that neither is
//! there without the other. Whoever sends claims a message for a while and removes it when it has arrived; one that
//! nobody has removed comes up again, a bounded number of times. A message may therefore arrive twice, with the same
//! name. What it says is read from the request when it is sent: nothing of a statement stands here.

use exeat_policy::Moment;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::error::Fault;
use super::request::RequestId;
use super::{State, StateError};

/// Waiting for one destination. One that is down for days loses messages, and slows nobody.
pub const WAITING_MAX: i64 = 10_000;

/// Pauses before the next attempt, in seconds; after the last one a message is given up. The first is longer than an
/// attempt may take: nobody else begins one meanwhile.
const PAUSES: [i64; 8] = [15, 30, 120, 600, 1800, 7200, 18_000, 36_000];

/// Claimed at once for one destination, to be sent at once: all of them are over before the first pause is.
const CLAIMED_MAX: i64 = 8;

/// Whatever its attempts, a message this old tells nobody anything: its destination is in no configuration any more.
const KEPT_MS: i64 = 3 * 24 * 60 * 60 * 1000;

/// The destinations of a request's messages, by the names that configuration gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tell(pub Vec<String>);

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Asked,
    Closed,
    SecondGroup,
    Alert,
    Stop,
}

impl Told {
    const ALL: [Self; 5] = [Self::Asked, Self::Closed, Self::SecondGroup, Self::Alert, Self::Stop];

    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Closed => "closed",
            Self::SecondGroup => "second_group",
            Self::Alert => "alert",
            Self::Stop => "stop",
        }
    }
}

/// A message that somebody is about to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The same at every attempt.
    pub id: String,
    pub destination: String,
    pub request: RequestId,
    pub told: Told,
    pub at: Moment,
    /// From 1.
    pub attempt: u32,
}

/// What there is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    pub messages: Vec<Message>,
    /// They did not arrive, and are not tried again.
    pub given_up: Vec<Message>,
}

impl State {
    /// Takes what is due for one destination: nobody else gets it before its pause is over. Each destination by itself,
    /// so that one which is down is in nobody's way.
    pub async fn claim_messages(&self, destination: &str, now: Moment) -> Result<Claimed, StateError> {
        let destination = destination.to_owned();
        self.access("claim messages", move |backend| async move {
            let mut transaction = backend.write("outbox").await?;
            let rows = sqlx::query(
                "SELECT id, destination, request, told, told_at, attempts FROM outbox \
                 WHERE destination = $1 AND next_at <= $2 ORDER BY next_at LIMIT $3",
            )
            .bind(destination.as_str())
            .bind(now.unix_millis())
            .bind(CLAIMED_MAX)
            .fetch_all(&mut *transaction)
            .await?;
            let mut claimed = Claimed::default();
            for row in &rows {
                let mut message = read(row).ok_or(Fault::Shape("a message"))?;
                let pause = usize::try_from(message.attempt).ok().and_then(|attempts| PAUSES.get(attempts));
                let Some(pause) = pause else {
                    remove(&mut transaction, &message.id).await?;
                    claimed.given_up.push(message);
                    continue;
                };
                message.attempt = message.attempt.saturating_add(1);
                sqlx::query("UPDATE outbox SET attempts = $1, next_at = $2 WHERE id = $3")
                    .bind(i64::from(message.attempt))
                    .bind(now.unix_millis().saturating_add(pause * 1000))
                    .bind(message.id.as_str())
                    .execute(&mut *transaction)
                    .await?;
                claimed.messages.push(message);
            }
            transaction.commit().await?;
            Ok(claimed)
        })
        .await
    }

    /// It has arrived.
    pub async fn delivered(&self, message: &Message) -> Result<(), StateError> {
        let id = message.id.clone();
        self.access("remove a message", move |backend| async move {
            let mut connection = backend.pool.acquire().await?;
            Ok(remove(&mut connection, &id).await?)
        })
        .await
    }

    /// Removes what nobody has sent for so long that it is of no use.
    pub async fn forget_messages(&self, now: Moment) -> Result<(), StateError> {
        let kept_from = now.unix_millis().saturating_sub(KEPT_MS);
        self.access("forget messages", move |backend| async move {
            sqlx::query("DELETE FROM outbox WHERE told_at < $1").bind(kept_from).execute(&backend.pool).await?;
            Ok::<(), Fault>(())
        })
        .await
    }
}

async fn remove(connection: &mut AnyConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id).execute(connection).await.map(drop)
}

/// Puts a message down for each destination that has room.
pub(super) async fn put(
    transaction: &mut AnyConnection,
    (message, tell): (&str, &Tell),
    (request, told): (&RequestId, Told),
    now: Moment,
) -> Result<(), sqlx::Error> {
    for (number, destination) in tell.0.iter().enumerate() {
        sqlx::query(
            "INSERT INTO outbox (id, destination, request, told, told_at, attempts, next_at) \
             SELECT $1, $2, $3, $4, $5, 0, $5 WHERE (SELECT count(*) FROM outbox WHERE destination = $2) < $6",
        )
        .bind(format!("{message}_{number}"))
        .bind(destination.as_str())
        .bind(request.as_str())
        .bind(told.name())
        .bind(now.unix_millis())
        .bind(WAITING_MAX)
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}

fn read(row: &AnyRow) -> Option<Message> {
    let text = |column: &str| row.try_get::<String, _>(column).ok();
    let told = text("told")?;
    Some(Message {
        id: text("id")?,
        destination: text("destination")?,
        request: RequestId::new(&text("request")?),
        told: *Told::ALL.iter().find(|one| one.name() == told)?,
        at: Moment::from_unix_millis(row.try_get("told_at").ok()?),
        attempt: u32::try_from(row.try_get::<i64, _>("attempts").ok()?).ok()?,
    })
}
