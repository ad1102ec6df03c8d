//! What is configured per issuer, and the checks that need nothing but the configuration itself.

use std::path::PathBuf;
use std::time::Duration;

use exeat_policy::PrincipalKind;
use reqwest::Url;

use super::jws::Algorithm;

/// How long keys stay trusted while their source cannot be read: long enough for an outage over night, no longer
/// than the longest token lives.
pub const MAX_STALE_DEFAULT: Duration = Duration::from_secs(12 * 60 * 60);

/// What a client that asks by OAUTHBEARER is told to ask the issuer for.
pub const SCOPE_DEFAULT: &str = "openid";

/// Where a client without a token finds the issuer, and what to ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    pub configuration: String,
    pub scope: String,
}

/// One `identity:` entry.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// Compared with `iss` byte for byte.
    pub issuer: String,
    /// A token must name at least one of these in `aud`.
    pub audience: Vec<String>,
    pub groups: ClaimPath,
    pub jwks: JwksSource,
    /// `None`: told from the token (client credentials are a workload).
    pub kind: Option<PrincipalKind>,
    /// Signature algorithms accepted; the token's header only chooses among them.
    pub algorithms: Vec<Algorithm>,
    /// Trust anchor of the issuer's HTTPS, in place of the system's.
    pub ca: Option<PathBuf>,
    pub max_stale: Duration,
    /// Upper bound of one session's life, whatever the token says.
    pub session_max: Option<Duration>,
    /// ID tokens are made for the client that signed in, not for us: refused unless this is set.
    pub allow_id_tokens: bool,
    /// Scope to ask for, as told to clients of OAUTHBEARER.
    pub scope: String,
}

impl IssuerConfig {
    /// An issuer with the defaults: discovery, groups in `groups`, every supported default algorithm.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: vec![audience.into()],
            groups: ClaimPath::default(),
            jwks: JwksSource::Discovery,
            kind: None,
            algorithms: Algorithm::DEFAULT.to_vec(),
            ca: None,
            max_stale: MAX_STALE_DEFAULT,
            session_max: None,
            allow_id_tokens: false,
            scope: SCOPE_DEFAULT.to_owned(),
        }
    }

    /// OIDC Discovery, 4.1: a trailing slash of the issuer is removed before the path is appended.
    pub(super) fn discovery_address(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'))
    }

    /// Every mistake, not only the first.
    pub(super) fn check(&self) -> Vec<IssuerConfigError> {
        let issuer = self.issuer.clone();
        let mut errors = Vec::new();
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            errors.push(IssuerConfigError::NoAudience { issuer: issuer.clone() });
        }
        if self.algorithms.is_empty() {
            errors.push(IssuerConfigError::NoAlgorithm { issuer: issuer.clone() });
        }
        if self.groups.segments.iter().any(String::is_empty) {
            errors.push(IssuerConfigError::EmptyClaimPath { issuer: issuer.clone() });
        }
        match &self.jwks {
            JwksSource::Discovery => {
                if let Err(reason) = https_or_loopback(&self.issuer) {
                    errors.push(IssuerConfigError::IssuerUrl { issuer, reason });
                }
            }
            JwksSource::File(_) if self.issuer.is_empty() => errors.push(IssuerConfigError::EmptyIssuer),
            JwksSource::File(_) => {}
        }
        errors
    }
}

/// Where an issuer's public keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// OIDC discovery at `<issuer>/.well-known/openid-configuration`.
    Discovery,
    /// A file in JWKS format, read again when its content changes.
    File(PathBuf),
}

/// Where a claim is found: names from the outside in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath {
    segments: Vec<String>,
}

impl ClaimPath {
    /// `realm_access.roles` is two names. A name with `://` in it is one (claims named by URL are common and full
    /// of dots); any other name with a dot needs [`ClaimPath::from_segments`].
    pub fn from_dotted(text: &str) -> Self {
        let segments =
            if text.contains("://") { vec![text.to_owned()] } else { text.split('.').map(str::to_owned).collect() };
        Self { segments }
    }

    pub fn from_segments(segments: Vec<String>) -> Self {
        Self { segments }
    }

    pub(super) fn segments(&self) -> &[String] {
        &self.segments
    }
}

impl Default for ClaimPath {
    fn default() -> Self {
        Self { segments: vec!["groups".to_owned()] }
    }
}

impl std::fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.segments.join("."))
    }
}

/// Texts are complete, causes included: all mistakes are listed, one line each.
#[derive(Debug, thiserror::Error)]
pub enum IssuerConfigError {
    #[error("no identity issuer is configured; nobody could log in: add an entry under identity")]
    NoIssuer,
    #[error("an identity issuer has an empty name")]
    EmptyIssuer,
    #[error("issuer \"{issuer}\" is configured twice; write one entry with all its audiences")]
    Duplicate { issuer: String },
    #[error("issuer \"{issuer}\" {reason}; OIDC discovery needs https (http only on loopback), or name a jwks_file")]
    IssuerUrl { issuer: String, reason: String },
    #[error("issuer \"{issuer}\" has no audience; name the aud value its tokens carry for this gateway")]
    NoAudience { issuer: String },
    #[error("issuer \"{issuer}\" allows no signature algorithm; leave algorithms out for the defaults")]
    NoAlgorithm { issuer: String },
    #[error("issuer \"{issuer}\" has an empty name in its groups claim path; write it like realm_access.roles")]
    EmptyClaimPath { issuer: String },
    #[error("issuer \"{issuer}\": {cause}")]
    Tls { issuer: String, cause: Box<crate::tls::TlsError> },
    #[error("issuer \"{issuer}\": could not build its http client: {cause}")]
    HttpClient { issuer: String, cause: reqwest::Error },
    #[error("issuer \"{issuer}\": {reason}")]
    JwksFile { issuer: String, reason: String },
}

/// Keys fetched over plain http could be anybody's; loopback is the exception for local tests.
pub(super) fn https_or_loopback(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("has user, query or fragment parts".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err("uses http to a host that is not loopback".to_owned()),
        scheme => Err(format!("uses the scheme \"{scheme}\"")),
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
