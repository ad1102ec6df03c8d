//! `/v1/record`: what is done to the record itself, by whoever looks after it.
//! HTTP only: who may, and that it is on record before it is done, is the desk's.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use exeat_store::record::Rotated;
use serde_json::{Value, json};

use crate::admin::{members, unknown};
use crate::handles::{Asked, DeskError, Reply, answer, asked, refuse};
use crate::routes::Routes;
use crate::server::Peer;

pub trait RecordDesk: Send + Sync {
    /// Hands over to the next signing key; answers when both have signed.
    fn rotate_key(&self, asked: Asked) -> Reply<Rotated>;
}

type Desk = Arc<dyn RecordDesk>;

pub(crate) fn routes() -> Routes<Desk> {
    Routes::new().post("/v1/record/rotate-key", rotate)
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
    fn a_rotation_has_no_wishes() {
        assert!(nothing(b"").is_ok() && nothing(b"{}").is_ok());
        assert!(nothing(br#"{"number": 3}"#).is_err() && nothing(b"[]").is_err());
    }
}
