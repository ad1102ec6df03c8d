//! `/v1/handles`: short-lived passwords made from a token, and taken back.
//!
//! HTTP only: who may have a handle and what it can do is the desk's to know, which the program hands in. A token or
//! a new password passes through here and is kept nowhere; so that neither crosses a network in clear, the desk
//! answers only where the listener is out of reach of others.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use exeat_store::secret::SecretString;
use serde_json::{Map, Value, json};

use crate::routes::Routes;
use crate::server::Peer;

/// A wish has a few short members; the longest is a reason of some 500 bytes.
pub(crate) const BODY_BYTES_MAX: usize = 4096;

/// An answer that takes a moment: the issuer's keys may have to be fetched.
pub type Reply<T> = Pin<Box<dyn Future<Output = Result<T, DeskError>> + Send>>;

/// Makes handles and takes them back.
pub trait HandleDesk: Send + Sync {
    fn issue(&self, asked: Asked, wish: HandleWish) -> Reply<NewHandle>;
    fn revoke(&self, asked: Asked, handle: String) -> Reply<()>;
}

/// Who asks, unchecked.
#[derive(Debug)]
pub struct Asked {
    /// The header `Authorization` as it came.
    pub authorization: SecretString,
    pub peer: SocketAddr,
}

/// What a handle should be; what is left out has a default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandleWish {
    pub target: Option<String>,
    pub lifetime_seconds: Option<u64>,
    pub source: Option<String>,
}

#[derive(Debug)]
pub struct NewHandle {
    pub handle: String,
    pub password: SecretString,
    pub target: String,
    /// RFC 3339.
    pub expires: String,
}

/// Why not, in words the client may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeskError {
    NotAuthenticated {
        problem: String,
        hint: &'static str,
    },
    NotHere(String),
    /// Whoever asks has proved who they are, and may not.
    NotAllowed(String),
    Wish(String),
    NotFound(String),
    /// It is so already, or not any more.
    Conflict(String),
    TooMany(String),
    Unavailable(String),
}

pub(crate) fn routes() -> Routes<Arc<dyn HandleDesk>> {
    Routes::new().post("/v1/handles", issue).delete("/v1/handles/{handle}", revoke)
}

async fn issue(
    State(desk): State<Arc<dyn HandleDesk>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), wish(&body)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(wish)) => desk.issue(asked, wish).await,
    };
    match reply {
        Ok(new) => {
            let body = json!({
                "handle": new.handle, "password": new.password.expose(), "target": new.target, "expires": new.expires,
            });
            answer(StatusCode::CREATED, &body)
        }
        Err(error) => refuse(&error),
    }
}

async fn revoke(
    State(desk): State<Arc<dyn HandleDesk>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    Path(handle): Path<String>,
    headers: HeaderMap,
) -> Response {
    let reply = match asked(&headers, peer) {
        Err(error) => Err(error),
        Ok(asked) => desk.revoke(asked, handle).await,
    };
    match reply {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse(&error),
    }
}

pub(crate) fn asked(headers: &HeaderMap, peer: SocketAddr) -> Result<Asked, DeskError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let one = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    let value = one.ok_or_else(|| DeskError::NotAuthenticated {
        problem: "there is no one header Authorization".to_owned(),
        hint: "send Authorization: Bearer TOKEN",
    })?;
    Ok(Asked { authorization: SecretString::new(value.to_owned()), peer })
}

/// Strict, like every other document: a misspelt `source` must not give a handle good from everywhere.
fn wish(body: &[u8]) -> Result<HandleWish, DeskError> {
    if body.is_empty() {
        return Ok(HandleWish::default());
    }
    let members: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| DeskError::Wish(format!("the body is not a JSON object: {error}")))?;
    let mut wish = HandleWish::default();
    for (name, value) in members {
        match (name.as_str(), value) {
            ("target", Value::String(target)) => wish.target = Some(target),
            ("source", Value::String(source)) => wish.source = Some(source),
            ("lifetime_seconds", Value::Number(number)) if number.is_u64() => wish.lifetime_seconds = number.as_u64(),
            ("target" | "source", _) => return Err(DeskError::Wish(format!("\"{name}\" is not a string"))),
            ("lifetime_seconds", _) => {
                return Err(DeskError::Wish("\"lifetime_seconds\" is not a whole number".to_owned()));
            }
            _ => {
                let text =
                    format!("\"{}\" is not known; there are target, lifetime_seconds, source", name.escape_debug());
                return Err(DeskError::Wish(text));
            }
        }
    }
    Ok(wish)
}

pub(crate) fn refuse(error: &DeskError) -> Response {
    let (status, problem, hint) = match error {
        DeskError::NotAuthenticated { problem, hint } => (StatusCode::UNAUTHORIZED, problem, Some(*hint)),
        DeskError::NotHere(problem) | DeskError::NotAllowed(problem) => (StatusCode::FORBIDDEN, problem, None),
        DeskError::Wish(problem) => (StatusCode::BAD_REQUEST, problem, None),
        DeskError::NotFound(problem) => (StatusCode::NOT_FOUND, problem, None),
        DeskError::Conflict(problem) => (StatusCode::CONFLICT, problem, None),
        DeskError::TooMany(problem) => (StatusCode::TOO_MANY_REQUESTS, problem, None),
        DeskError::Unavailable(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem, None),
    };
    let body = match hint {
        None => json!({"error": problem}),
        Some(hint) => json!({"error": problem, "hint": hint}),
    };
    let mut response = answer(status, &body);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

pub(crate) fn answer(status: StatusCode, body: &Value) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_strictly() {
        assert_eq!(wish(b""), Ok(HandleWish::default()));
        assert_eq!(wish(b"{}"), Ok(HandleWish::default()));
        let whole = br#"{"target": "shop", "lifetime_seconds": 300, "source": "10.0.0.0/8"}"#;
        let expected = HandleWish {
            target: Some("shop".to_owned()),
            lifetime_seconds: Some(300),
            source: Some("10.0.0.0/8".to_owned()),
        };
        assert_eq!(wish(whole), Ok(expected));
        for body in [
            r#"{"sources": "10.0.0.0/8"}"#,
            r#"{"lifetime_seconds": "300"}"#,
            r#"{"lifetime_seconds": -1}"#,
            r#"{"lifetime_seconds": 1.5}"#,
            r#"{"target": null}"#,
            "[]",
            "{",
            "null",
        ] {
            assert!(matches!(wish(body.as_bytes()), Err(DeskError::Wish(_))), "{body}");
        }
    }

    #[test]
    fn one_authorization_header_is_wanted() {
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert!(asked(&headers, peer).is_err());
        headers.append(header::AUTHORIZATION, "Bearer a".parse().unwrap());
        assert_eq!(asked(&headers, peer).unwrap().authorization.expose(), "Bearer a");
        headers.append(header::AUTHORIZATION, "Bearer b".parse().unwrap());
        assert!(asked(&headers, peer).is_err());
    }
}
