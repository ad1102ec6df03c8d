//! Why a token was not accepted, in words its holder may see: what is wrong and what to do, never the token itself.

use jiff::Timestamp;

use super::jws::Algorithm;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IdentityError {
    #[error("no token given")]
    Missing,
    #[error("token of {bytes} bytes is longer than the limit of {}", super::jws::TOKEN_BYTES_MAX)]
    TooLarge { bytes: usize },
    #[error("the password is not a token: {reason}")]
    NotAToken { reason: &'static str },
    #[error("token {part} is malformed: {reason}")]
    Malformed { part: &'static str, reason: String },
    #[error("token is signed with {name}, which issuer \"{issuer}\" is not allowed to use")]
    AlgorithmNotAllowed { name: String, issuer: String },
    #[error("token issuer {} is not trusted here", quoted(.issuer))]
    UnknownIssuer { issuer: String },
    #[error("token is signed by key {} which issuer \"{issuer}\" does not publish", key_name(.kid))]
    UnknownKey { kid: Option<String>, issuer: String },
    #[error("token signature does not verify under the {algorithm} key of issuer \"{issuer}\"")]
    BadSignature { algorithm: Algorithm, issuer: String },
    #[error("the keys of issuer \"{issuer}\" are not available")]
    KeysUnavailable { issuer: String },
    #[error("token is for audience {}, not for this gateway", quoted(.found))]
    WrongAudience { found: String },
    #[error("token expired at {at}")]
    Expired { at: Timestamp },
    #[error("token is not valid before {at}")]
    NotYetValid { at: Timestamp },
    #[error("token was issued at {at}, which is in the future")]
    IssuedInFuture { at: Timestamp },
    #[error("token lives {lifetime_seconds} s, longer than the limit of {limit_seconds} s")]
    LivesTooLong { lifetime_seconds: u64, limit_seconds: u64 },
    #[error("claim \"{claim}\" of the token {problem}")]
    Claim { claim: String, problem: &'static str },
    #[error("token names more than {limit} groups")]
    TooManyGroups { limit: usize },
    #[error("token leaves the groups out (too many of them: marker \"{marker}\")")]
    GroupsOverage { marker: String },
    #[error("this is an ID token (\"{marker}\"), made for the program that signed in, not for this gateway")]
    IdToken { marker: &'static str },
    #[error("token is bound to a key or certificate (cnf), which cannot be checked on this connection")]
    Bound,
    #[error("token is bound to a client certificate, and none was shown on this connection")]
    CertificateMissing,
    #[error("token is bound to another client certificate than the one shown")]
    CertificateMismatch,
    #[error("the handle of this session expired")]
    HandleEnded,
    #[error("the handle of this session was revoked")]
    HandleRevoked,
    #[error("the signing key of this session's token is no longer published by issuer \"{issuer}\"")]
    KeyRemoved { issuer: String },
    #[error("this session reached its longest allowed duration at {at}")]
    SessionTooLong { at: Timestamp },
}

impl IdentityError {
    /// What to do about it, one sentence for the client's HINT.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing | Self::NotAToken { .. } => {
                "give an access token (a JWT, eyJ...) of a trusted issuer as the password"
            }
            Self::TooLarge { .. } => "ask the issuer for a smaller token, with fewer groups or claims",
            Self::Malformed { .. } | Self::Claim { .. } => "get a new access token from the issuer",
            Self::AlgorithmNotAllowed { .. } => {
                "the issuer must sign with an allowed asymmetric algorithm; ask the operator which ones are"
            }
            Self::UnknownIssuer { .. } => "get the token from the issuer this gateway trusts; ask its operator which",
            Self::UnknownKey { .. } | Self::BadSignature { .. } => {
                "get a new token; if that fails too, the operator should check the issuer's published keys"
            }
            Self::KeysUnavailable { .. } => "try again later; the operator should check the connection to the issuer",
            Self::WrongAudience { .. } => "ask the issuer for a token with this gateway's audience",
            Self::Expired { .. } | Self::KeyRemoved { .. } => "get a new token and connect again",
            Self::SessionTooLong { .. } => "connect again",
            Self::NotYetValid { .. } | Self::IssuedInFuture { .. } => {
                "wait, or check the clocks of the issuer and the gateway"
            }
            Self::LivesTooLong { .. } => "ask the issuer for a short-lived token",
            Self::TooManyGroups { .. } | Self::GroupsOverage { .. } => {
                "have the issuer put only the groups this gateway needs into the token"
            }
            Self::IdToken { .. } => "use the access token, not the ID token",
            Self::Bound => "ask the issuer for a bearer token, or for one bound to a certificate (x5t#S256)",
            Self::CertificateMissing | Self::CertificateMismatch => {
                "connect with the certificate the token was issued to (sslcert, sslkey)"
            }
            Self::HandleEnded | Self::HandleRevoked => "make a new handle and connect again",
        }
    }

    /// Whether somebody took the identity back, where other identities end with time: then not even an open
    /// transaction goes on.
    pub fn is_withdrawn(&self) -> bool {
        matches!(self, Self::HandleRevoked | Self::KeyRemoved { .. })
    }

    /// What is no token at all is a wrong password, as a server says it; any other problem is one of authorization.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Missing | Self::NotAToken { .. } => "28P01",
            _ => "28000",
        }
    }

    /// Stable name for the record and for metrics.
    pub fn reason_code(&self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::TooLarge { .. } => "token_too_large",
            Self::NotAToken { .. } => "not_a_token",
            Self::Malformed { .. } => "token_malformed",
            Self::AlgorithmNotAllowed { .. } => "algorithm_not_allowed",
            Self::UnknownIssuer { .. } => "unknown_issuer",
            Self::UnknownKey { .. } => "unknown_key",
            Self::BadSignature { .. } => "bad_signature",
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::WrongAudience { .. } => "wrong_audience",
            Self::Expired { .. } => "token_expired",
            Self::NotYetValid { .. } => "token_not_yet_valid",
            Self::IssuedInFuture { .. } => "token_issued_in_future",
            Self::LivesTooLong { .. } => "token_lives_too_long",
            Self::Claim { .. } => "claim_not_accepted",
            Self::TooManyGroups { .. } => "too_many_groups",
            Self::GroupsOverage { .. } => "groups_overage",
            Self::IdToken { .. } => "id_token",
            Self::Bound => "token_bound",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateMismatch => "certificate_mismatch",
            Self::HandleEnded => "handle_ended",
            Self::HandleRevoked => "handle_revoked",
            Self::KeyRemoved { .. } => "key_removed",
            Self::SessionTooLong { .. } => "session_too_long",
        }
    }
}

/// Text of an unverified token is hostile: bounded, and without control characters that could forge a log line.
fn quoted(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    let shown: String = text.chars().take(CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    let ellipsis = if text.chars().nth(CHARACTERS_MAX).is_some() { "..." } else { "" };
    format!("\"{shown}{ellipsis}\"")
}

fn key_name(kid: &Option<String>) -> String {
    match kid {
        Some(kid) => quoted(kid),
        None => "without a name (no kid)".to_owned(),
    }
}
