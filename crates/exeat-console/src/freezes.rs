//! `/v1/freezes`: subjects and targets that stand still, and who made them.
//! HTTP only: who may freeze, and that it is on record before it holds, is the desk's.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use exeat_policy::approval::Remark;
use exeat_store::state::Freeze;
use serde_json::{Value, json};

use crate::admin::{members, text, unknown};
use crate::approvals::remark;
use crate::handles::{Asked, DeskError, Reply, answer, asked, refuse};
use crate::routes::Routes;
use crate::server::Peer;
use crate::view;

pub trait FreezeDesk: Send + Sync {
    fn freezes(&self, asked: Asked) -> Reply<Vec<Freeze>>;
    fn freeze(&self, asked: Asked, wish: FreezeWish, reason: Remark) -> Reply<Freeze>;
    /// Says what was lifted.
    fn thaw(&self, asked: Asked, wish: FreezeWish) -> Reply<Freeze>;
}

/// What is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezeWish {
    pub name: String,
    /// `None`: a target where one has the name, else a subject.
    pub kind: Option<FreezeKind>,
    /// A subject's; `None`: the first that is configured.
    pub issuer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeKind {
    Subject,
    Target,
}

type Desk = Arc<dyn FreezeDesk>;

pub(crate) fn routes() -> Routes<Desk> {
    Routes::new().get("/v1/freezes", list).post("/v1/freezes", set).post("/v1/freezes/lift", lift)
}

async fn list(State(desk): State<Desk>, ConnectInfo(Peer(peer)): ConnectInfo<Peer>, headers: HeaderMap) -> Response {
    let reply = match asked(&headers, peer) {
        Err(error) => Err(error),
        Ok(asked) => desk.freezes(asked).await,
    };
    match reply {
        Ok(found) => {
            let found: Vec<Value> = found.iter().map(view::freeze).collect();
            answer(StatusCode::OK, &json!({"freezes": found}))
        }
        Err(error) => refuse(&error),
    }
}

async fn set(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), new_freeze(&body)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok((wish, reason))) => desk.freeze(asked, wish, reason).await,
    };
    match reply {
        Ok(freeze) => answer(StatusCode::CREATED, &view::freeze(&freeze)),
        Err(error) => refuse(&error),
    }
}

async fn lift(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), lifted(&body)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(wish)) => desk.thaw(asked, wish).await,
    };
    match reply {
        Ok(freeze) => answer(StatusCode::OK, &view::freeze(&freeze)),
        Err(error) => refuse(&error),
    }
}

fn new_freeze(body: &[u8]) -> Result<(FreezeWish, Remark), DeskError> {
    let (wish, reason) = wish(body, "name, kind, issuer, reason")?;
    let reason = reason.ok_or_else(|| DeskError::Wish("\"reason\" is missing: it goes on record".to_owned()))?;
    Ok((wish, reason))
}

fn lifted(body: &[u8]) -> Result<FreezeWish, DeskError> {
    match wish(body, "name, kind, issuer")? {
        (wish, None) => Ok(wish),
        (_, Some(_)) => Err(unknown("reason", "name, kind, issuer")),
    }
}

fn wish(body: &[u8], known: &str) -> Result<(FreezeWish, Option<Remark>), DeskError> {
    let (mut name, mut kind, mut issuer, mut reason) = (None, None, None, None);
    for (member, value) in members(body)? {
        match (member.as_str(), value.as_str()) {
            ("name", _) => name = Some(text(&member, value)?),
            ("issuer", _) => issuer = Some(text(&member, value)?),
            ("reason", _) => reason = Some(remark(&member, value)?),
            ("kind", Some("subject")) => kind = Some(FreezeKind::Subject),
            ("kind", Some("target")) => kind = Some(FreezeKind::Target),
            ("kind", _) => return Err(DeskError::Wish("\"kind\" is neither subject nor target".to_owned())),
            _ => return Err(unknown(&member, known)),
        }
    }
    let name = name.ok_or_else(|| DeskError::Wish("\"name\" is missing: a subject's or a target's".to_owned()))?;
    if kind == Some(FreezeKind::Target) && issuer.is_some() {
        return Err(DeskError::Wish("a target has no \"issuer\"".to_owned()));
    }
    Ok((FreezeWish { name, kind, issuer }, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_freeze_is_read_strictly() {
        let (wish, reason) =
            new_freeze(br#"{"name": "agent-7", "issuer": "https://a", "reason": "incident 4"}"#).unwrap();
        assert_eq!((wish.name.as_str(), wish.kind, wish.issuer.as_deref()), ("agent-7", None, Some("https://a")));
        assert_eq!(reason.as_str(), "incident 4");
        assert_eq!(lifted(br#"{"name": "shop", "kind": "target"}"#).unwrap().kind, Some(FreezeKind::Target));
        for body in [
            r#"{"name": "x"}"#,
            r#"{"reason": "x"}"#,
            r#"{"name": "", "reason": "x"}"#,
            r#"{"name": "x", "kind": "robot", "reason": "x"}"#,
            r#"{"name": "x", "kind": "target", "issuer": "a", "reason": "x"}"#,
            r#"{"name": "x", "reason": "x", "until": 5}"#,
        ] {
            assert!(matches!(new_freeze(body.as_bytes()), Err(DeskError::Wish(_))), "{body}");
        }
        assert!(lifted(br#"{"name": "x", "reason": "y"}"#).is_err());
    }
}
