//! Requests for approval and what is granted, as the store keeps them. What follows from an event is
//! `exeat_policy::approval::step`'s to say; here it happens once: whoever decides, consumes or sweeps is alone with the
//! request from reading it to writing it, whichever gateway it comes through.
//!
//! Statements, parameters and samples of rows are in the *card* only, which is sealed under a key of the request's own
//! before it leaves this process.

mod list;
mod row;
mod sweep;

use std::sync::Arc;

use exeat_policy::Moment;
use exeat_policy::approval::{Event, Notice, Progress, Rerun, Step, Terms, Unmoved, step};
use exeat_policy::grant::{Ask, Covered, Drift, Grant};
use ring::digest::{SHA256, digest};
use sqlx::{AnyConnection, Row};

pub use list::{Earlier, Listed, RequestFilter, SHOWN_MAX, Wanted};
pub use sweep::{SWEPT_MAX, Swept};

use self::row::{Stored, due_at, is_open};
use super::backend::Backend;
use super::changes::{Topic, moved};
use super::error::Fault;
use super::outbox::{self, Tell, Told};
use super::{State, StateError};
use crate::hex;
use crate::keys::KeySet;

/// Requests that wait for humans at once: humans read no more.
pub const OPEN_MAX: i64 = 1_000;

/// Of one human, whatever agents act for them: nobody takes the places of all.
pub const OPEN_OF_ASKER_MAX: i64 = 100;

/// Of one human within a day, decided or not: a request that is withdrawn makes no room for the next.
pub const ASKED_PER_DAY_MAX: i64 = 1_000;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Longest card.
pub const CARD_BYTES_MAX: usize = 64 * 1024;

/// Names a request: 128 random bits, so that nobody guesses another's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// As somebody wrote it: what names nothing is found to name nothing.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a held statement asks for.
#[derive(Clone)]
pub struct NewRequest {
    pub ask: Ask,
    pub terms: Terms,
    /// By which decisions about statements of the same shape are found.
    pub fingerprint: String,
    /// What approvers are shown.
    pub card: Vec<u8>,
    /// Who is told of it and of what becomes of it.
    pub tell: Tell,
}

/// One request, whole.
#[derive(Clone)]
pub struct Request {
    pub id: RequestId,
    pub ask: Ask,
    pub terms: Terms,
    pub progress: Progress,
    pub fingerprint: String,
    pub card: Vec<u8>,
    /// When its progress last changed.
    pub changed_at: Moment,
}

/// Without what the card says.
impl std::fmt::Debug for NewRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewRequest").field("ask", &self.ask).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("state", &self.progress.state.name())
            .finish_non_exhaustive()
    }
}

/// What became of asking.
#[derive(Debug)]
pub enum Asked {
    /// A new request.
    Opened(RequestId),
    /// The same was asked before, and this is what that means now.
    Found { id: RequestId, progress: Box<Progress>, rerun: Rerun },
    /// No more requests are taken.
    TooMany { whose: Whose, limit: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Everybody,
    Asker,
    AskerToday,
}

/// What became of an event.
#[derive(Debug)]
pub enum Decided {
    Moved(Box<Step>),
    Unmoved(Unmoved),
    NoSuchRequest,
}

/// What became of running a statement on a grant.
#[derive(Debug)]
pub enum GrantUse {
    /// One use is used, on file.
    Taken { id: RequestId, covered: Covered },
    /// There is a grant, and it does not cover this.
    Drifted { id: RequestId, drift: Drift },
    /// Nothing was granted, or not any more.
    Nothing,
}

impl State {
    /// Opens a request, or finds the one that an identical run has left.
    pub async fn ask(&self, new: NewRequest, now: Moment) -> Result<Asked, StateError> {
        if new.card.len() > CARD_BYTES_MAX {
            return Err(StateError::CardTooLong { bytes: new.card.len(), limit: CARD_BYTES_MAX });
        }
        let id = RequestId(self.random_name("apr")?);
        let message = self.random_name("msg")?;
        let card = row::seal(&self.shared.keys, &id, &new.card)?;
        self.access("open a request", move |backend| async move {
            ask(&backend, Opening { id, new, card, message }, now).await
        })
        .await
    }

    /// Lets an event happen to a request, if it may.
    pub async fn decide(&self, id: &RequestId, event: Event, now: Moment) -> Result<Decided, StateError> {
        let (id, message) = (id.clone(), self.random_name("msg")?);
        self.access("decide a request", move |backend| async move {
            let mut transaction = backend.write(&lock(&id)).await?;
            let Some(stored) = row::by_id(&mut transaction, &id).await? else { return Ok(Decided::NoSuchRequest) };
            let step = match step(&stored.terms, &stored.progress, event, now) {
                Ok(step) => step,
                Err(why) => return Ok(Decided::Unmoved(why)),
            };
            write(&mut transaction, &stored, &step, (&message, now)).await?;
            let change = moved(&backend, &mut transaction, Topic::Approval).await?;
            transaction.commit().await?;
            backend.changes.tell(&change);
            Ok(Decided::Moved(Box::new(step)))
        })
        .await
    }

    /// Takes one use of what was granted for this statement. Exactly one caller gets it.
    pub async fn take_use(&self, asked: &Ask, now: Moment) -> Result<GrantUse, StateError> {
        let (asked, message) = (asked.clone(), self.random_name("msg")?);
        self.access("use a grant", move |backend| async move { take(&backend, &asked, (&message, now)).await }).await
    }

    /// One request with its card.
    pub async fn request(&self, id: &RequestId) -> Result<Option<Request>, StateError> {
        let wanted = id.clone();
        let found = self
            .access("read a request", move |backend| async move {
                let mut connection = backend.pool.acquire().await?;
                row::by_id(&mut connection, &wanted).await
            })
            .await?;
        found.map(|stored| stored.opened(&self.shared.keys)).transpose()
    }
}

/// By what it is found again: every field a grant is bound to.
fn ask_digest(ask: &Ask) -> String {
    hex::text(digest(&SHA256, &ask.encoded()).as_ref())
}

fn lock(id: &RequestId) -> String {
    format!("request {id}")
}

struct Opening {
    id: RequestId,
    new: NewRequest,
    card: String,
    message: String,
}

async fn ask(backend: &Backend, opening: Opening, now: Moment) -> Result<Asked, Fault> {
    let Opening { id, new, card, message } = opening;
    // One at a time, whoever asks: so that identical runs find each other and the bounds are exact.
    let mut transaction = backend.write("requests").await?;
    if let Some(stored) = row::latest(&mut transaction, &new.ask).await? {
        let rerun = stored.progress.rerun(&stored.terms, now);
        match rerun {
            Rerun::Waits | Rerun::Collects | Rerun::Refused => {
                return Ok(Asked::Found { id: stored.id, progress: Box::new(stored.progress), rerun });
            }
            Rerun::AsksAnew => {}
        }
    }
    if let Some((whose, limit)) = full(&mut transaction, &new, now).await? {
        return Ok(Asked::TooMany { whose, limit });
    }
    let stored = Stored {
        id: id.clone(),
        ask: new.ask,
        terms: new.terms,
        progress: Progress::START,
        fingerprint: new.fingerprint,
        tell: new.tell,
        card,
        changed_at: now,
        version: 0,
    };
    row::insert(&mut transaction, &stored).await?;
    outbox::put(&mut transaction, (&message, &stored.tell), (&id, Told::Asked), now).await?;
    let change = moved(backend, &mut transaction, Topic::Approval).await?;
    transaction.commit().await?;
    backend.changes.tell(&change);
    Ok(Asked::Opened(id))
}

async fn full(
    transaction: &mut AnyConnection,
    new: &NewRequest,
    now: Moment,
) -> Result<Option<(Whose, i64)>, sqlx::Error> {
    let human = &new.ask.asker.human;
    let counted = sqlx::query(
        "SELECT (SELECT count(*) FROM request WHERE is_open = 1 AND decide_by > $1) AS everybody, \
         (SELECT count(*) FROM request WHERE is_open = 1 AND decide_by > $1 AND issuer = $2 AND subject = $3) AS asker, \
         (SELECT count(*) FROM request WHERE issuer = $2 AND subject = $3 AND asked_at > $4) AS today",
    )
    .bind(now.unix_millis())
    .bind(human.issuer.as_str())
    .bind(human.subject.as_str())
    .bind(now.unix_millis().saturating_sub(DAY_MS))
    .fetch_one(transaction)
    .await?;
    let bounds = [
        ("everybody", Whose::Everybody, OPEN_MAX),
        ("asker", Whose::Asker, OPEN_OF_ASKER_MAX),
        ("today", Whose::AskerToday, ASKED_PER_DAY_MAX),
    ];
    for (column, whose, limit) in bounds {
        if counted.try_get::<i64, _>(column)? >= limit {
            return Ok(Some((whose, limit)));
        }
    }
    Ok(None)
}

async fn take(backend: &Backend, asked: &Ask, (message, now): (&str, Moment)) -> Result<GrantUse, Fault> {
    // Found once without a lock, to know what to lock, and read again behind it.
    let mut connection = backend.pool.acquire().await?;
    let Some(found) = row::latest(&mut connection, asked).await? else { return Ok(GrantUse::Nothing) };
    drop(connection);
    let mut transaction = backend.write(&lock(&found.id)).await?;
    let Some(stored) = row::by_id(&mut transaction, &found.id).await? else { return Ok(GrantUse::Nothing) };
    let Some(grant) = Grant::of(&stored.terms, &stored.progress, stored.ask.clone()) else {
        return Ok(GrantUse::Nothing);
    };
    let covered = match grant.covers(asked, now) {
        Ok(covered) => covered,
        Err(drift) => return Ok(GrantUse::Drifted { id: stored.id, drift }),
    };
    let Ok(step) = step(&stored.terms, &stored.progress, Event::Consume, now) else { return Ok(GrantUse::Nothing) };
    write(&mut transaction, &stored, &step, (message, now)).await?;
    let change = moved(backend, &mut transaction, Topic::Approval).await?;
    transaction.commit().await?;
    backend.changes.tell(&change);
    Ok(GrantUse::Taken { id: stored.id, covered })
}

/// The next state, over exactly the one it follows from.
async fn write(
    transaction: &mut AnyConnection,
    before: &Stored,
    step: &Step,
    (message, now): (&str, Moment),
) -> Result<(), Fault> {
    let progress = &step.progress;
    let text = serde_json::to_string(progress).map_err(|_| Fault::Shape("a request"))?;
    let done = sqlx::query(
        "UPDATE request SET progress = $1, state = $2, is_open = $3, review_due = $4, due_at = $5, changed_at = $6, \
         version = version + 1 WHERE id = $7 AND version = $8",
    )
    .bind(text)
    .bind(progress.state.name())
    .bind(i64::from(is_open(progress)))
    .bind(i64::from(row::review_due(progress)))
    .bind(due_at(&before.terms, progress).map(Moment::unix_millis))
    .bind(now.unix_millis())
    .bind(before.id.as_str())
    .bind(before.version)
    .execute(&mut *transaction)
    .await?;
    // The lock makes it so; where it did not, nothing may follow.
    if done.rows_affected() != 1 {
        return Err(Fault::Shape("a request that somebody else moved"));
    }
    let told = match step.notice {
        None => return Ok(()),
        Some(Notice::Closed) => Told::Closed,
        Some(Notice::SecondGroup) => Told::SecondGroup,
        Some(Notice::Alert) => Told::Alert,
        Some(Notice::Stop) => Told::Stop,
    };
    outbox::put(transaction, (message, &before.tell), (&before.id, told), now).await?;
    Ok(())
}

/// For whoever opens cards: the store keeps the keys as long as it is open.
pub(super) type Keys = Arc<KeySet>;
