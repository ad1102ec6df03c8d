//! One row of the table of requests: how it is written, read and sealed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exeat_policy::Moment;
use exeat_policy::approval::{Progress, Review, State, Terms};
use exeat_policy::grant::Ask;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Keys, Request, RequestId, ask_digest};
use crate::keys::{KeySet, WRAPPED_BYTES};
use crate::state::StateError;
use crate::state::error::Fault;
use crate::state::outbox::Tell;

/// Tells a card from whatever else a data key may seal.
const CARD_AAD: &[u8] = b"exeat approval card v1";

/// As it stands in the table.
pub(super) struct Stored {
    pub(super) id: RequestId,
    pub(super) ask: Ask,
    pub(super) terms: Terms,
    pub(super) progress: Progress,
    pub(super) fingerprint: String,
    pub(super) tell: Tell,
    /// Sealed.
    pub(super) card: String,
    pub(super) changed_at: Moment,
    pub(super) version: i64,
}

impl Stored {
    pub(super) fn opened(self, keys: &KeySet) -> Result<Request, StateError> {
        let card = open(keys, &self.id, &self.card)?;
        let Self { id, ask, terms, progress, fingerprint, changed_at, .. } = self;
        Ok(Request { id, ask, terms, progress, fingerprint, card, changed_at })
    }
}

/// Its data key, wrapped by the master as this request's, and what that has sealed; in base64.
pub(super) fn seal(keys: &Keys, id: &RequestId, card: &[u8]) -> Result<String, StateError> {
    let (key, wrapped) = keys.new_data_key(id.as_str())?;
    let mut bytes = wrapped.to_vec();
    key.seal(0, CARD_AAD, card, &mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

fn open(keys: &KeySet, id: &RequestId, card: &str) -> Result<Vec<u8>, StateError> {
    let shape = || StateError::Shape { what: "the card of a request" };
    let bytes = STANDARD.decode(card).map_err(|_| shape())?;
    let (wrapped, sealed) = bytes.split_first_chunk::<WRAPPED_BYTES>().ok_or_else(shape)?;
    keys.unwrap_data_key(id.as_str(), wrapped)?.open(CARD_AAD, sealed).ok_or_else(shape)
}

pub(super) fn is_open(progress: &Progress) -> bool {
    match &progress.state {
        State::Pending { .. } | State::Escalated { .. } => true,
        State::Approved(_)
        | State::Denied { .. }
        | State::Expired { .. }
        | State::Withdrawn { .. }
        | State::Consumed { .. }
        | State::Revoked { .. } => false,
    }
}

pub(super) fn review_due(progress: &Progress) -> bool {
    match progress.review {
        Review::Due { .. } => true,
        Review::NotDemanded | Review::Done { .. } => false,
    }
}

/// When time alone moves it next.
pub(super) fn due_at(terms: &Terms, progress: &Progress) -> Option<Moment> {
    let after = |told: Option<Moment>| {
        let times = terms.demands.iter().filter_map(|demand| demand.escalates_at);
        times.filter(|at| told.is_none_or(|told| told < *at)).chain([terms.decide_by]).min()
    };
    match &progress.state {
        State::Pending { .. } => after(None),
        State::Escalated { at, .. } => after(Some(*at)),
        State::Approved(granted) => Some(granted.until),
        State::Denied { .. }
        | State::Expired { .. }
        | State::Withdrawn { .. }
        | State::Consumed { .. }
        | State::Revoked { .. } => None,
    }
}

pub(super) async fn insert(transaction: &mut AnyConnection, stored: &Stored) -> Result<(), Fault> {
    let shape = |_| Fault::Shape("a request");
    let Stored { id, ask, terms, progress, fingerprint, tell, card, changed_at, version } = stored;
    let human = &ask.asker.human;
    sqlx::query(
        "INSERT INTO request (id, ask_digest, fingerprint, target, issuer, subject, actor, state, is_open, review_due, \
         asked_at, decide_by, due_at, changed_at, version, ask, terms, progress, tell, card) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
    )
    .bind(id.as_str())
    .bind(ask_digest(ask))
    .bind(fingerprint.as_str())
    .bind(ask.target.as_str())
    .bind(human.issuer.as_str())
    .bind(human.subject.as_str())
    .bind(ask.asker.actor.as_deref())
    .bind(progress.state.name())
    .bind(i64::from(is_open(progress)))
    .bind(i64::from(review_due(progress)))
    .bind(terms.asked_at.unix_millis())
    .bind(terms.decide_by.unix_millis())
    .bind(due_at(terms, progress).map(Moment::unix_millis))
    .bind(changed_at.unix_millis())
    .bind(*version)
    .bind(serde_json::to_string(ask).map_err(shape)?)
    .bind(serde_json::to_string(terms).map_err(shape)?)
    .bind(serde_json::to_string(progress).map_err(shape)?)
    .bind(serde_json::to_string(tell).map_err(shape)?)
    .bind(card.as_str())
    .execute(transaction)
    .await?;
    Ok(())
}

pub(super) async fn by_id(connection: &mut AnyConnection, id: &RequestId) -> Result<Option<Stored>, Fault> {
    let row = sqlx::query(
        "SELECT id, ask, terms, progress, fingerprint, tell, card, changed_at, version FROM request WHERE id = $1",
    )
    .bind(id.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(|row| read(&row).ok_or(Fault::Shape("a request"))).transpose()
}

/// The last request of identical runs.
pub(super) async fn latest(connection: &mut AnyConnection, ask: &Ask) -> Result<Option<Stored>, Fault> {
    let row = sqlx::query(
        "SELECT id, ask, terms, progress, fingerprint, tell, card, changed_at, version FROM request \
         WHERE ask_digest = $1 ORDER BY asked_at DESC, id DESC LIMIT 1",
    )
    .bind(ask_digest(ask))
    .fetch_optional(connection)
    .await?;
    let stored = row.map(|row| read(&row).ok_or(Fault::Shape("a request"))).transpose()?;
    match stored {
        // The digest is of all of it; a row that says otherwise was not written by a gateway.
        Some(stored) if stored.ask != *ask => Err(Fault::Shape("a request")),
        found => Ok(found),
    }
}

fn read(row: &AnyRow) -> Option<Stored> {
    let json = |column: &str| row.try_get::<String, _>(column).ok();
    Some(Stored {
        id: RequestId(json("id")?),
        ask: serde_json::from_str(&json("ask")?).ok()?,
        terms: serde_json::from_str(&json("terms")?).ok()?,
        progress: serde_json::from_str(&json("progress")?).ok()?,
        fingerprint: json("fingerprint")?,
        tell: serde_json::from_str(&json("tell")?).ok()?,
        card: json("card")?,
        changed_at: Moment::from_unix_millis(row.try_get("changed_at").ok()?),
        version: row.try_get("version").ok()?,
    })
}
