//! `/v1/record`: what is done to the record itself, by whoever looks after it.
//! HTTP only: who may, and that it is on record before it is done, is the desk's.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use exeat_policy::approval::Remark;
use exeat_store::record::{Erased, LegalHold, Rotated, Whose};
use serde_json::{Value, json};

use crate::admin::{members, text, unknown};
use crate::approvals::remark;
use crate::handles::{Asked, DeskError, Reply, answer, asked, refuse};
use crate::routes::Routes;
use crate::server::Peer;

pub trait RecordDesk: Send + Sync {
    /// Hands over to the next signing key; answers when both have signed.
    fn rotate_key(&self, asked: Asked) -> Reply<Rotated>;
    /// Destroys the keys of what is named.
    fn erase(&self, asked: Asked, wish: EraseWish) -> Reply<Erased>;
    fn holds(&self, asked: Asked) -> Reply<Vec<LegalHold>>;
    fn hold(&self, asked: Asked, whose: Whose, reason: Remark) -> Reply<LegalHold>;
    /// Says what was lifted.
    fn release(&self, asked: Asked, whose: Whose, reason: Remark) -> Reply<LegalHold>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EraseWish {
    pub whose: Whose,
    /// Of a principal's sessions: those that began before. As it came.
    pub before: Option<String>,
    pub reason: Remark,
}

type Desk = Arc<dyn RecordDesk>;

pub(crate) fn routes() -> Routes<Desk> {
    Routes::new()
        .post("/v1/record/rotate-key", rotate)
        .post("/v1/record/erasures", erase)
        .get("/v1/record/holds", holds)
        .post("/v1/record/holds", hold)
        .post("/v1/record/holds/release", release)
}

async fn rotate(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), nothing(&body)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(())) => desk.rotate_key(asked).await,
    };
    match reply {
        Ok(rotated) => answer(StatusCode::OK, &rotated_view(&rotated)),
        Err(error) => refuse(&error),
    }
}

async fn erase(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), wish(&body, true)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(wish)) => desk.erase(asked, wish).await,
    };
    match reply {
        Ok(Erased { erased, refused, already }) => {
            let refused = refused.iter().map(|(session, why)| json!({"session": session, "problem": why}));
            let refused: Vec<Value> = refused.collect();
            answer(StatusCode::OK, &json!({"erased": erased, "refused": refused, "already": already}))
        }
        Err(error) => refuse(&error),
    }
}

async fn holds(State(desk): State<Desk>, ConnectInfo(Peer(peer)): ConnectInfo<Peer>, headers: HeaderMap) -> Response {
    let reply = match asked(&headers, peer) {
        Err(error) => Err(error),
        Ok(asked) => desk.holds(asked).await,
    };
    match reply {
        Ok(holds) => {
            let holds: Vec<Value> = holds.iter().map(hold_view).collect();
            answer(StatusCode::OK, &json!({"holds": holds}))
        }
        Err(error) => refuse(&error),
    }
}

async fn hold(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), wish(&body, false)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(wish)) => desk.hold(asked, wish.whose, wish.reason).await,
    };
    one_hold(StatusCode::CREATED, reply)
}

async fn release(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), wish(&body, false)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(wish)) => desk.release(asked, wish.whose, wish.reason).await,
    };
    one_hold(StatusCode::OK, reply)
}

fn one_hold(done: StatusCode, reply: Result<LegalHold, DeskError>) -> Response {
    match reply {
        Ok(hold) => answer(done, &hold_view(&hold)),
        Err(error) => refuse(&error),
    }
}

fn hold_view(hold: &LegalHold) -> Value {
    let (session, principal, issuer) = match &hold.whose {
        Whose::Session(name) => (Some(name), None, None),
        Whose::Principal { issuer, subject } => (None, Some(subject), issuer.as_ref()),
    };
    let LegalHold { reason, since, by, .. } = hold;
    json!({"session": session, "principal": principal, "issuer": issuer, "reason": reason, "since": since, "by": by})
}

/// Strict: a misspelt `before` must not erase everything.
fn wish(body: &[u8], has_before: bool) -> Result<EraseWish, DeskError> {
    let known =
        if has_before { "session, principal, issuer, before, reason" } else { "session, principal, issuer, reason" };
    let (mut session, mut principal, mut issuer, mut before, mut reason) = (None, None, None, None, None);
    for (member, value) in members(body)? {
        match member.as_str() {
            "session" => session = Some(text(&member, value)?),
            "principal" => principal = Some(text(&member, value)?),
            "issuer" => issuer = Some(text(&member, value)?),
            "before" if has_before => before = Some(text(&member, value)?),
            "reason" => reason = Some(remark(&member, value)?),
            _ => return Err(unknown(&member, known)),
        }
    }
    let reason = reason.ok_or_else(|| DeskError::Wish("\"reason\" is missing: it goes on record".to_owned()))?;
    let whose = match (session, principal) {
        (Some(_), None) if issuer.is_some() => {
            return Err(DeskError::Wish("\"issuer\" goes with a \"principal\"".to_owned()));
        }
        (Some(session), None) => Whose::Session(session),
        (None, Some(subject)) => Whose::Principal { issuer, subject },
        _ => return Err(DeskError::Wish("name either a \"session\" or a \"principal\"".to_owned())),
    };
    if before.is_some() && matches!(whose, Whose::Session(_)) {
        return Err(DeskError::Wish("\"before\" goes with a \"principal\"".to_owned()));
    }
    Ok(EraseWish { whose, before, reason })
}

/// Also what the command shows where the gateway stands still.
pub fn rotated_view(rotated: &Rotated) -> Value {
    json!({"number": rotated.number, "old": rotated.old.to_string(), "new": rotated.new.to_string()})
}

fn nothing(body: &[u8]) -> Result<(), DeskError> {
    match members(body)?.into_iter().next() {
        None => Ok(()),
        Some((name, _)) => Err(unknown(&name, "no members")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_erase_and_to_hold_is_read_strictly() {
        let one = wish(br#"{"session": "s1", "reason": "asked for"}"#, true).unwrap();
        assert_eq!((one.whose, one.before), (Whose::Session("s1".to_owned()), None));
        let all = wish(br#"{"principal": "ann", "before": "2026-01-01", "reason": "x"}"#, true).unwrap();
        let ann =
            |issuer: Option<&str>| Whose::Principal { issuer: issuer.map(str::to_owned), subject: "ann".to_owned() };
        assert_eq!((all.whose, all.before.as_deref()), (ann(None), Some("2026-01-01")));
        let hers = wish(br#"{"principal": "ann", "issuer": "https://a", "reason": "x"}"#, false).unwrap();
        assert_eq!(hers.whose, ann(Some("https://a")));
        for body in [
            r#"{"session": "s1"}"#,
            r#"{"reason": "x"}"#,
            r#"{"session": "s1", "principal": "ann", "reason": "x"}"#,
            r#"{"session": "s1", "before": "2026-01-01", "reason": "x"}"#,
            r#"{"principal": "ann", "befor": "2026-01-01", "reason": "x"}"#,
            r#"{"principal": "", "reason": "x"}"#,
            r#"{"principal": "ann", "issuer": "", "reason": "x"}"#,
            r#"{"session": "s1", "issuer": "https://a", "reason": "x"}"#,
        ] {
            assert!(matches!(wish(body.as_bytes(), true), Err(DeskError::Wish(_))), "{body}");
        }
        assert!(wish(br#"{"principal": "ann", "before": "2026-01-01", "reason": "x"}"#, false).is_err());
    }

    #[test]
    fn a_rotation_has_no_wishes() {
        assert!(nothing(b"").is_ok() && nothing(b"{}").is_ok());
        assert!(nothing(br#"{"number": 3}"#).is_err() && nothing(b"[]").is_err());
    }
}
