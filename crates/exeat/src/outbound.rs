//! HTTP that the gateway begins itself: where it may go, and the client that goes there. An address is https, or http on
//! this machine; certificates are checked, redirects are not followed.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use exeat_proxy::tls::{Roots, TlsError, Trust, client_config};
use exeat_store::secret::{SecretError, SecretSource};
use reqwest::{Client, ClientBuilder, Url};

#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the address in {origin} is not a URL")]
    NotAUrl { origin: String },
    #[error("the address in {origin} is neither https nor http on a loopback address")]
    Plain { origin: String },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("could not make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// The address that a secret holds.
pub(crate) fn address(source: &SecretSource) -> Result<Url, OutboundError> {
    let origin = || source.to_string();
    let text = source.resolve()?;
    let url = Url::parse(text.expose().trim()).map_err(|_| OutboundError::NotAUrl { origin: origin() })?;
    if is_private(&url) { Ok(url) } else { Err(OutboundError::Plain { origin: origin() }) }
}

/// Whether nobody on the road can read along.
pub(crate) fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || url.scheme() == "http" && is_loopback(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// For one address. `ca`: in place of the system's authorities.
pub(crate) fn client(
    url: &Url,
    ca: Option<&Path>,
    (connect, answer): (Duration, Duration),
) -> Result<Client, OutboundError> {
    let is_https = url.scheme() == "https";
    // The system's trust store is not needed, and may not exist, where everything is plain http on loopback.
    let roots = match (is_https, ca) {
        (true, Some(ca)) => Roots::File(ca.to_owned()),
        (true, None) => Roots::System,
        (false, _) => Roots::Nobody,
    };
    let mut builder = builder(roots, (connect, answer))?.https_only(is_https);
    if !is_https {
        builder = builder.no_proxy();
    }
    builder.build().map_err(OutboundError::Client)
}

/// With the gateway's own TLS.
pub(crate) fn builder(roots: Roots, (connect, answer): (Duration, Duration)) -> Result<ClientBuilder, TlsError> {
    let tls = client_config(&Trust::Full(roots), &[b"http/1.1"])?;
    let builder = Client::builder().tls_backend_preconfigured(tls.as_ref().clone());
    let builder = builder.redirect(reqwest::redirect::Policy::none()).user_agent("exeat");
    Ok(builder.connect_timeout(connect).timeout(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_or_on_this_machine() {
        let resolved = |text: &str| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("url");
            std::fs::write(&path, text).unwrap();
            address(&SecretSource::File(path)).map(drop)
        };
        for url in ["https://hooks.example.com/x", "http://127.0.0.1:1/", "http://localhost/", "http://[::1]:2/x"] {
            assert!(resolved(url).is_ok(), "{url}");
        }
        for url in ["http://hooks.example.com/x", "http://localhost.evil.com", "ftp://127.0.0.1/", "not a url"] {
            let problem = resolved(url).unwrap_err();
            assert!(!problem.to_string().contains("evil"), "an address may hold a token: {problem}");
        }
    }
}
