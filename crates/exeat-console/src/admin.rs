//! `/v1/limits` and `/v1/discover`: what people look at and change of a running gateway.
//!
//! HTTP only, as with handles: who may do what, and what is on record before it is done, is the desk's.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use exeat_store::state::{Exposure, LimitFilter, LimitUse};
use serde_json::{Map, Value, json};

use crate::handles::{Asked, DeskError, Reply, answer, asked, refuse};
use crate::routes::Routes;
use crate::server::Peer;
use crate::view;

/// What can be looked at and changed by hand.
pub trait AdminDesk: Send + Sync {
    fn limits(&self, asked: Asked, filter: LimitFilter) -> Reply<Limits>;
    /// Says how many counters were set back.
    fn reset_limits(&self, asked: Asked, filter: LimitFilter) -> Reply<usize>;
    fn discover(&self, asked: Asked, wish: DiscoverWish) -> Reply<Discovered>;
}

/// What has been used of limits that last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Values of sealed columns that were tried.
    pub probes: Vec<LimitUse>,
    /// Rows, bytes, cells and refusals.
    pub exposures: Vec<Exposure>,
}

/// Which database, and whether what is there is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiscoverWish {
    pub target: Option<String>,
    /// For targets of every database.
    pub database: Option<String>,
    pub accept: bool,
}

/// What a database has become since it was accepted; with `accepted`, until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    pub target: String,
    pub database: String,
    /// A baseline was there before.
    pub known: bool,
    pub findings: Vec<String>,
    pub accepted: bool,
    /// There now.
    pub relations: usize,
    pub bindings: usize,
    /// Trusted names that stand for what they did when they were accepted.
    pub definitions: usize,
}

pub(crate) fn routes() -> Routes<Arc<dyn AdminDesk>> {
    Routes::new().post("/v1/limits/show", show).post("/v1/limits/reset", reset).post("/v1/discover", discover)
}

async fn show(
    State(desk): State<Arc<dyn AdminDesk>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), filter(&body)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(filter)) => desk.limits(asked, filter).await,
    };
    match reply {
        Ok(Limits { probes, exposures }) => {
            let probes = probes.iter().map(view::probes);
            let limits: Vec<Value> = probes.chain(exposures.iter().map(view::exposure)).collect();
            answer(StatusCode::OK, &json!({"limits": limits}))
        }
        Err(error) => refuse(&error),
    }
}

async fn reset(
    State(desk): State<Arc<dyn AdminDesk>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), filter(&body)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(filter)) => desk.reset_limits(asked, filter).await,
    };
    match reply {
        Ok(count) => answer(StatusCode::OK, &json!({"reset": count})),
        Err(error) => refuse(&error),
    }
}

async fn discover(
    State(desk): State<Arc<dyn AdminDesk>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), wish(&body)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(wish)) => desk.discover(asked, wish).await,
    };
    match reply {
        Ok(found) => answer(
            StatusCode::OK,
            &json!({
                "target": found.target, "database": found.database, "known": found.known,
                "findings": found.findings, "accepted": found.accepted,
                "relations": found.relations, "bindings": found.bindings, "definitions": found.definitions,
            }),
        ),
        Err(error) => refuse(&error),
    }
}

/// Strict: a misspelt `principal` must not set everybody's counters back, and an empty one is a mistake.
fn filter(body: &[u8]) -> Result<LimitFilter, DeskError> {
    let mut filter = LimitFilter::default();
    for (name, value) in members(body)? {
        let place = match name.as_str() {
            "principal" => &mut filter.principal,
            "target" => &mut filter.target,
            "label" => &mut filter.label,
            _ => return Err(unknown(&name, "principal, target, label")),
        };
        *place = Some(text(&name, value)?);
    }
    Ok(filter)
}

fn wish(body: &[u8]) -> Result<DiscoverWish, DeskError> {
    let mut wish = DiscoverWish::default();
    for (name, value) in members(body)? {
        match (name.as_str(), value) {
            ("target", value) => wish.target = Some(text(&name, value)?),
            ("database", value) => wish.database = Some(text(&name, value)?),
            ("accept", Value::Bool(accept)) => wish.accept = accept,
            ("accept", _) => return Err(DeskError::Wish("\"accept\" is neither true nor false".to_owned())),
            _ => return Err(unknown(&name, "target, database, accept")),
        }
    }
    Ok(wish)
}

pub(crate) fn members(body: &[u8]) -> Result<Map<String, Value>, DeskError> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|error| DeskError::Wish(format!("the body is not a JSON object: {error}")))
}

pub(crate) fn text(name: &str, value: Value) -> Result<String, DeskError> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        _ => Err(DeskError::Wish(format!("\"{name}\" is not a text, or is empty"))),
    }
}

pub(crate) fn unknown(name: &str, known: &str) -> DeskError {
    DeskError::Wish(format!("\"{}\" is not known; there are {known}", name.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_wishes_are_read_strictly() {
        assert_eq!(filter(b""), Ok(LimitFilter::default()));
        let of_agent = LimitFilter { principal: Some("agent-7".to_owned()), ..LimitFilter::default() };
        assert_eq!(filter(br#"{"principal": "agent-7"}"#), Ok(of_agent));
        let all = DiscoverWish { target: Some("a".to_owned()), database: Some("b".to_owned()), accept: true };
        assert_eq!(wish(br#"{"target": "a", "database": "b", "accept": true}"#), Ok(all));
        for body in [r#"{"principal": ""}"#, r#"{"princpal": "a"}"#, r#"{"label": null}"#, "[]", "{"] {
            assert!(matches!(filter(body.as_bytes()), Err(DeskError::Wish(_))), "{body}");
        }
        for body in [r#"{"accept": "yes"}"#, r#"{"accepts": true}"#, r#"{"database": 1}"#] {
            assert!(matches!(wish(body.as_bytes()), Err(DeskError::Wish(_))), "{body}");
        }
    }
}
