//! What goes to a running gateway, by its console and with the caller's token; of it, `exeat limits` and `exeat discover`.
//! Never opens the gateway's store: the gateway checks who asks and records what changes.

use std::net::IpAddr;
use std::time::Duration;

use exeat_proxy::tls::{Roots, TlsError, Trust, client_config};
use exeat_store::secret::SecretString;
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::{Map, Value, json};

use crate::cli::{DiscoverArgs, LimitsArgs, LimitsCommand, RemoteArgs};
use crate::exit::{self, Exit};
use crate::plain;
use crate::render;

/// A catalog with many relations takes a moment.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("there is no token; set EXEAT_TOKEN")]
    NoToken,
    #[error("\"{url}\" is not http on a loopback address: a token would cross the network in clear; use a tunnel")]
    NotLoopback { url: String },
    #[error("could not reach the gateway's console at {url}; set --url or EXEAT_URL to listen.console")]
    Unreachable { url: Url, source: reqwest::Error },
    #[error("the console at {url} answered status {status} with no answer of a gateway's")]
    Answer { url: Url, status: StatusCode },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("could not make an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
}

pub(crate) async fn limits(args: LimitsArgs) -> Result<Exit, RemoteError> {
    let (filter, path) = match &args.command {
        LimitsCommand::Show(filter) => (filter, "/v1/limits/show"),
        LimitsCommand::Reset(filter) => (filter, "/v1/limits/reset"),
    };
    let members = [("principal", &filter.principal), ("target", &filter.target), ("label", &filter.label)];
    let answer = ask(&filter.remote, Call::post(path, wish(&members))).await?;
    finish(answer, filter.remote.json)
}

pub(crate) async fn discover(args: DiscoverArgs) -> Result<Exit, RemoteError> {
    let mut wish = wish(&[("target", &args.target), ("database", &args.database)]);
    wish.insert("accept".to_owned(), json!(args.accept));
    let answer = ask(&args.remote, Call::post("/v1/discover", wish)).await?;
    finish(answer, args.remote.json)
}

pub(super) fn wish(members: &[(&str, &Option<String>)]) -> Map<String, Value> {
    members.iter().filter_map(|(name, value)| Some(((*name).to_owned(), json!(value.as_ref()?)))).collect()
}

/// What is asked of the console.
pub(super) struct Call {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    pub(super) body: Option<Map<String, Value>>,
}

impl Call {
    pub(super) fn post(path: &str, body: Map<String, Value>) -> Self {
        Self { method: Method::POST, path: path.to_owned(), body: Some(body) }
    }
}

pub(super) enum Answer {
    Done(Value),
    NotAuthenticated(String),
    Refused(String),
    Failed(String),
}

pub(super) async fn ask(remote: &RemoteArgs, call: Call) -> Result<Answer, RemoteError> {
    let Call { method, path, body } = call;
    let url = address(&remote.url)?.join(&path).map_err(|_| RemoteError::NotLoopback { url: remote.url.clone() })?;
    let token = std::env::var("EXEAT_TOKEN").ok().filter(|token| !token.is_empty()).map(SecretString::new);
    let token = token.ok_or(RemoteError::NoToken)?;
    // The system's trust store is not needed for plain http, and may not exist.
    let tls = client_config(&Trust::Full(Roots::Nobody), &[b"http/1.1"])?;
    let client = Client::builder()
        .tls_backend_preconfigured(tls.as_ref().clone())
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .no_proxy()
        .build()
        .map_err(RemoteError::Client)?;
    let request = client.request(method, url.clone()).bearer_auth(token.expose());
    let request = match &body {
        Some(body) => request.json(body),
        None => request,
    };
    let unreachable = |source| RemoteError::Unreachable { url: url.clone(), source };
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let body: Value = response.json().await.map_err(|_| RemoteError::Answer { url: url.clone(), status })?;
    if status.is_success() {
        return Ok(Answer::Done(body));
    }
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let problem = text("error").ok_or(RemoteError::Answer { url, status })?;
    let problem = text("hint").map_or_else(|| problem.to_owned(), |hint| format!("{problem}; {hint}"));
    Ok(match status {
        StatusCode::UNAUTHORIZED => Answer::NotAuthenticated(problem),
        StatusCode::FORBIDDEN => Answer::Refused(problem),
        _ => Answer::Failed(problem),
    })
}

fn address(text: &str) -> Result<Url, RemoteError> {
    let refused = || RemoteError::NotLoopback { url: text.to_owned() };
    let url = Url::parse(text).map_err(|_| refused())?;
    let host = url.host_str().unwrap_or_default();
    let is_loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if url.scheme() == "http" && is_loopback { Ok(url) } else { Err(refused()) }
}

pub(super) fn finish(answer: Answer, as_json: bool) -> Result<Exit, RemoteError> {
    let (exit, problem) = match answer {
        Answer::Done(body) => {
            let text = if as_json { format!("{body:#}\n") } else { render::text(&body) };
            exit::print(&text).map_err(RemoteError::Output)?;
            return Ok(Exit::Ok);
        }
        Answer::NotAuthenticated(problem) => (Exit::NotAuthenticated, problem),
        Answer::Refused(problem) => (Exit::Refused, problem),
        Answer::Failed(problem) => (Exit::Error, problem),
    };
    exit::note(&format!("error: {}", plain::line(&problem)));
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_to_this_machine_only() {
        for url in ["http://127.0.0.1:6480", "http://localhost:1", "http://[::1]:6480/"] {
            assert!(address(url).is_ok(), "{url}");
        }
        for url in
            ["http://10.0.0.1:6480", "https://127.0.0.1", "http://localhost.evil.com", "127.0.0.1:6480", "file:///x"]
        {
            assert!(address(url).is_err(), "{url}");
        }
    }
}
