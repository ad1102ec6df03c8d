//! The door: a token in, a principal or a reason out; later, whether that principal may stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use exeat_policy::Principal;
use jiff::Timestamp;
use ring::digest;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::claims::{self, Presented, Thumbprint};
use super::config::{Discovery, IssuerConfig, IssuerConfigError, JwksSource};
use super::error::IdentityError;
use super::issuer::{Issuer, Timing};
use super::jwks::Fingerprint;
use super::jws::{Algorithm, Unverified};
use super::lease::Lease;

/// All issuers this gateway trusts. Shared by every session; [`Verifier::run`] keeps the keys current.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Arc<Issuer>>,
    generation: Arc<AtomicU64>,
}

/// An identity that a token proved, with what is needed to notice its end.
#[derive(Clone)]
pub struct Verified {
    pub principal: Principal,
    /// The earlier of the token's end and the issuer's `session_max`.
    pub expires_at: SystemTime,
    pub token_ref: TokenRef,
    token_ends: Timestamp,
    session_ends: Option<Timestamp>,
    issuer: Arc<Issuer>,
    key: Fingerprint,
    lease: Option<Arc<Lease>>,
}

impl Verified {
    /// The same identity through a handle.
    pub(crate) fn lent(&self, lease: Arc<Lease>) -> Self {
        let expires_at = self.expires_at.min(SystemTime::from(lease.ends_at));
        Self { expires_at, lease: Some(lease), ..self.clone() }
    }

    /// The handle it came by, if any.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_deref()
    }
}

impl std::fmt::Debug for Verified {
    /// Who, not the claims: they are personal data, and a session with its identity is printed whole.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("issuer", &self.principal.issuer)
            .field("subject", &self.principal.subject)
            .field("token_ref", &self.token_ref)
            .finish_non_exhaustive()
    }
}

/// The only traces of a token that logs and records may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRef {
    pub jti: Option<String>,
    /// First 8 hex digits of the token's SHA-256.
    pub sha256_8: String,
}

impl TokenRef {
    /// For a token that was refused, or something that is none: nothing in it is believed but its digest.
    pub fn of_unverified(token: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let sha256_8 = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self { jti: None, sha256_8 }
    }
}

/// What readiness says of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerStatus {
    pub issuer: String,
    /// Usable keys known.
    pub keys: usize,
    /// Keys are loaded and not older than `max_stale`.
    pub ready: bool,
    /// Why the last look at the source failed.
    pub failure: Option<String>,
}

impl Verifier {
    /// Checks every issuer, reads key files, fetches nothing. All mistakes are reported together.
    pub fn new(configs: Vec<IssuerConfig>) -> Result<Self, Vec<IssuerConfigError>> {
        Self::with_timing(configs, Timing::default())
    }

    pub(super) fn with_timing(configs: Vec<IssuerConfig>, timing: Timing) -> Result<Self, Vec<IssuerConfigError>> {
        let generation = Arc::new(AtomicU64::new(0));
        let mut issuers: Vec<Arc<Issuer>> = Vec::new();
        let mut errors = Vec::new();
        if configs.is_empty() {
            errors.push(IssuerConfigError::NoIssuer);
        }
        let mut seen: Vec<String> = Vec::new();
        for config in configs {
            if seen.contains(&config.issuer) {
                errors.push(IssuerConfigError::Duplicate { issuer: config.issuer });
                continue;
            }
            seen.push(config.issuer.clone());
            let mistakes = config.check();
            if !mistakes.is_empty() {
                errors.extend(mistakes);
                continue;
            }
            match Issuer::new(config, timing, Arc::clone(&generation)) {
                Ok(issuer) => issuers.push(Arc::new(issuer)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self { issuers, generation }) } else { Err(errors) }
    }

    /// Keeps all keys current until `shutdown` turns true. Must run for discovery to work at all.
    pub async fn run(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for issuer in &self.issuers {
            let (issuer, shutdown) = (Arc::clone(issuer), shutdown.clone());
            tasks.spawn(async move { issuer.follow(shutdown).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Who holds this token? Waits for the issuer's keys if they are not known yet, some seconds at most. A token
    /// bound to a certificate is refused: none is known here.
    pub async fn verify(&self, token: &str) -> Result<Verified, IdentityError> {
        self.verify_with(token, None).await
    }

    /// The same for a client that proved the key of this certificate.
    pub async fn verify_with(&self, token: &str, certificate: Option<Thumbprint>) -> Result<Verified, IdentityError> {
        let unverified = Unverified::parse(token)?;
        let issuer = self.issuer_of(&unverified)?;
        let name = &unverified.header.algorithm;
        let algorithm =
            Algorithm::from_name(name).filter(|algorithm| issuer.config.algorithms.contains(algorithm)).ok_or_else(
                || IdentityError::AlgorithmNotAllowed { name: shown(name), issuer: issuer.config.issuer.clone() },
            )?;
        let keys = issuer.keys_for(unverified.header.kid.as_deref(), algorithm).await?;
        let key = keys
            .iter()
            .find(|key| unverified.verify(algorithm, &key.public))
            .ok_or_else(|| IdentityError::BadSignature { algorithm, issuer: issuer.config.issuer.clone() })?;

        let now = Timestamp::now();
        let presented = Presented { config: &issuer.config, certificate, now };
        let proven = claims::prove(unverified.claims, unverified.header.is_access_token, presented)?;
        let session_ends = issuer.config.session_max.and_then(|longest| now.checked_add(longest).ok());
        let end = session_ends.map_or(proven.ends_at, |session_end| session_end.min(proven.ends_at));
        Ok(Verified {
            expires_at: SystemTime::from(end),
            token_ref: TokenRef { jti: proven.principal.token_id.clone(), ..TokenRef::of_unverified(token) },
            principal: proven.principal,
            token_ends: proven.ends_at,
            session_ends,
            issuer: Arc::clone(issuer),
            key: key.fingerprint,
            lease: None,
        })
    }

    /// May a session with this identity go on? Cheap: no I/O, no waiting. Ask between statements, and whenever
    /// [`Verifier::generation`] has changed.
    pub fn still_valid(&self, verified: &Verified) -> Result<(), IdentityError> {
        // What was taken back comes first: an identity that also expired would be given time.
        if verified.lease().is_some_and(Lease::is_revoked) {
            return Err(IdentityError::HandleRevoked);
        }
        verified.issuer.still_trusts(&verified.key)?;
        let now = Timestamp::now();
        if now >= verified.token_ends {
            return Err(IdentityError::Expired { at: verified.token_ends });
        }
        if let Some(at) = verified.session_ends.filter(|at| now >= *at) {
            return Err(IdentityError::SessionTooLong { at });
        }
        if verified.lease().is_some_and(|lease| lease.ended(now)) {
            return Err(IdentityError::HandleEnded);
        }
        Ok(())
    }

    /// For clients that ask where tokens come from: the first issuer that can be discovered.
    pub fn discovery(&self) -> Option<Discovery> {
        let config = self.issuers.iter().map(|issuer| &issuer.config).find(|config| match config.jwks {
            JwksSource::Discovery => true,
            JwksSource::File(_) => false,
        })?;
        Some(Discovery { configuration: config.discovery_address(), scope: config.scope.clone() })
    }

    /// Changes when the keys of any issuer did.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// For readiness, in the order of the configuration.
    pub fn status(&self) -> Vec<IssuerStatus> {
        self.issuers
            .iter()
            .map(|issuer| {
                let state = issuer.state();
                IssuerStatus {
                    issuer: issuer.config.issuer.clone(),
                    keys: state.keys.len(),
                    ready: issuer.is_fresh(&state),
                    failure: state.failure.clone(),
                }
            })
            .collect()
    }

    fn issuer_of(&self, token: &Unverified<'_>) -> Result<&Arc<Issuer>, IdentityError> {
        let claim = |problem| IdentityError::Claim { claim: "iss".to_owned(), problem };
        match token.claims.get("iss") {
            None => Err(claim("is missing")),
            Some(Value::String(name)) => self
                .issuers
                .iter()
                .find(|issuer| issuer.config.issuer == *name)
                .ok_or_else(|| IdentityError::UnknownIssuer { issuer: name.clone() }),
            Some(_) => Err(claim("is not a string")),
        }
    }
}

/// The header is not verified yet: show no more of it than a name.
fn shown(algorithm: &str) -> String {
    algorithm.chars().take(32).filter(char::is_ascii_graphic).collect()
}
