//! What the gateway says about its own state: `/livez` and `/readyz`.
//!
//! The state is asked for by a function value at each request, so that this crate holds none of it. The answer
//! names the parts that are checked and why one is not well; it never carries a credential or a peer's bytes.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

/// Asked at each request to `/readyz`; must not block.
pub type StatusFn = Arc<dyn Fn() -> Readiness + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckState {
    Ok,
    /// Not as it should be, but statements are still answered: shown, does not turn readiness off.
    Degraded,
    /// The gateway cannot do its work.
    Failed,
}

/// One part of the gateway and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `listener`, `identity`, `policy`, `record`, `target shop`...
    pub name: String,
    pub state: CheckState,
    /// Why, when not ok; one sentence in the gateway's own words.
    pub detail: Option<String>,
}

impl Check {
    pub fn ok(name: impl Into<String>) -> Self {
        Self { name: name.into(), state: CheckState::Ok, detail: None }
    }

    pub fn degraded(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), state: CheckState::Degraded, detail: Some(detail.into()) }
    }

    pub fn failed(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), state: CheckState::Failed, detail: Some(detail.into()) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    pub checks: Vec<Check>,
}

impl Readiness {
    /// Ready when something was checked and nothing of it failed: no check at all is not a good sign.
    pub fn is_ready(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.state != CheckState::Failed)
    }

    pub fn to_json(&self) -> Value {
        let checks: Map<String, Value> =
            self.checks.iter().map(|check| (check.name.clone(), check_json(check))).collect();
        json!({"ready": self.is_ready(), "checks": checks})
    }
}

fn check_json(check: &Check) -> Value {
    let state = match check.state {
        CheckState::Ok => "ok",
        CheckState::Degraded => "degraded",
        CheckState::Failed => "failed",
    };
    match &check.detail {
        None => json!({"state": state}),
        Some(detail) => json!({"state": state, "detail": detail}),
    }
}

/// `/livez`: this process answers. `/readyz`: it can do its work.
pub(crate) fn router(status: StatusFn) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).with_state(status)
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(status): State<StatusFn>) -> Response {
    let readiness = status();
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (code, headers, format!("{}\n", readiness.to_json())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_check_makes_the_whole_not_ready() {
        let readiness = Readiness { checks: vec![Check::ok("listener"), Check::failed("record", "disk is full")] };
        assert!(!readiness.is_ready());
        let expected = json!({"ready": false, "checks": {
            "listener": {"state": "ok"}, "record": {"state": "failed", "detail": "disk is full"}}});
        assert_eq!(readiness.to_json(), expected);
    }

    #[test]
    fn a_degraded_check_is_shown_and_leaves_it_ready() {
        let readiness =
            Readiness { checks: vec![Check::ok("listener"), Check::degraded("target shop", "cannot be reached")] };
        assert!(readiness.is_ready());
        assert_eq!(readiness.to_json()["checks"]["target shop"]["state"], "degraded");
    }

    #[test]
    fn nothing_checked_is_not_ready() {
        assert!(!Readiness::default().is_ready());
    }
}
