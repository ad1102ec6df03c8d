//! Who is asking: tokens of configured OIDC issuers become a [`Principal`](exeat_policy::Principal).
//!
//! A token proves an identity when its signature verifies under a key its own issuer publishes now, and every claim
//! that says for whom, until when and on whose behalf it speaks holds. Anything not understood refuses: an unknown
//! algorithm, a critical header, a duplicated JSON member, a token bound to a key we cannot check, or to a certificate
//! that was not shown.
//!
//! Never does: believe a key or a URL named by a token, use a symmetric algorithm, put a token into an error, a log
//! line or a `Debug` output. The only traces of a token are its `jti` and eight hex digits of its SHA-256.

mod claims;
mod config;
mod error;
mod fetch;
mod issuer;
mod json;
mod jwks;
mod jws;
mod lease;
mod verifier;

#[cfg(test)]
mod tests;

pub use claims::Thumbprint;
pub use config::{ClaimPath, Discovery, IssuerConfig, IssuerConfigError, JwksSource, MAX_STALE_DEFAULT, SCOPE_DEFAULT};
pub use error::IdentityError;
pub use jws::Algorithm;
pub use lease::{Lease, LeaseError, Network, NotANetwork};
pub use verifier::{IssuerStatus, TokenRef, Verified, Verifier};
