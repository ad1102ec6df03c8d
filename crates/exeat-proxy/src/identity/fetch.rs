//! OIDC discovery and key sets over HTTP: two bounded GETs without redirects, to https (or loopback) only.

use std::time::Duration;

use reqwest::{Client, StatusCode, Url};

use super::config::{IssuerConfig, IssuerConfigError, https_or_loopback, is_loopback};
use super::json;
use super::jwks::KeySet;
use crate::tls::{Roots, Trust, client_config};

/// Discovery documents are about 2 KiB, key sets with certificate chains some dozens.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("could not get {url}: {reason}")]
    Http { url: Url, reason: String },
    #[error("{url} answered status {status} instead of 200")]
    Status { url: Url, status: StatusCode },
    #[error("{url} is longer than the limit of {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge { url: Url },
    #[error("{url} is not what was expected: {reason}")]
    Content { url: Url, reason: String },
}

/// Fetches one issuer's keys.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    issuer: String,
    discovery: Url,
}

impl Fetcher {
    pub(super) fn new(config: &IssuerConfig) -> Result<Self, IssuerConfigError> {
        let issuer = config.issuer.clone();
        let address = config.discovery_address();
        let discovery = https_or_loopback(&address)
            .map_err(|reason| IssuerConfigError::IssuerUrl { issuer: issuer.clone(), reason })?;
        let is_https = discovery.scheme() == "https";
        // The system's trust store is not needed, and may not exist, where everything is plain http on loopback.
        let roots = if is_https { config.ca.clone().map_or(Roots::System, Roots::File) } else { Roots::Nobody };
        let tls = client_config(&Trust::Full(roots), &[b"http/1.1"])
            .map_err(|cause| IssuerConfigError::Tls { issuer: issuer.clone(), cause: Box::new(cause) })?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(FETCH_TIMEOUT)
            .user_agent("exeat")
            .https_only(is_https);
        if !is_https {
            builder = builder.no_proxy();
        }
        let client =
            builder.build().map_err(|cause| IssuerConfigError::HttpClient { issuer: issuer.clone(), cause })?;
        Ok(Self { client, issuer, discovery })
    }

    pub(super) async fn fetch(&self) -> Result<KeySet, FetchError> {
        let content = |url: &Url, reason: String| FetchError::Content { url: url.clone(), reason };
        let document =
            json::parse_object(&self.get(&self.discovery).await?).map_err(|reason| content(&self.discovery, reason))?;
        let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str);
        // OIDC Discovery, 4.3: must be identical, or keys of one issuer could vouch for another.
        if text("issuer") != Some(self.issuer.as_str()) {
            let reason = format!("its issuer is not exactly \"{}\"", self.issuer);
            return Err(content(&self.discovery, reason));
        }
        let jwks_uri = text("jwks_uri").ok_or_else(|| content(&self.discovery, "it has no jwks_uri".to_owned()))?;
        let jwks_url = key_set_url(jwks_uri, &self.discovery)
            .map_err(|reason| content(&self.discovery, format!("its jwks_uri {reason}")))?;
        KeySet::parse(&self.get(&jwks_url).await?).map_err(|reason| content(&jwks_url, reason))
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let failed =
            |error: reqwest::Error| FetchError::Http { url: url.clone(), reason: with_causes(&error.without_url()) };
        let mut response = self.client.get(url.clone()).send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { url: url.clone(), status: response.status() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
                return Err(FetchError::TooLarge { url: url.clone() });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// The same scheme as discovery: an issuer on https may not send us to plain http, not even on loopback (that is our
/// own machine), and a loopback one stays there. Queries are common in key set addresses, unlike in issuers.
fn key_set_url(text: &str, discovery: &Url) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    if url.scheme() != discovery.scheme() {
        return Err(format!("uses the scheme \"{}\" and discovery \"{}\"", url.scheme(), discovery.scheme()));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err("uses http to a host that is not loopback".to_owned());
    }
    Ok(url)
}

/// The HTTP client says "error sending request" and hides the reason among its sources.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
