//! How a client proves who it is where the password field is not enough: handles, SCRAM-SHA-256 for their secrets, and
//! OAUTHBEARER for tokens.
//!
//! The mechanisms are pure: bytes of one message in, bytes of the next or a refusal out; sockets, nonces and the
//! clock belong to the login. What proves an identity is always a verified token: a handle only lends it for a while.
//! Never keeps a secret it does not need: of a handle's password there is a SCRAM verifier, in memory alone.

pub(crate) mod bearer;
mod handles;
pub(crate) mod scram;

use crate::identity::{IdentityError, LeaseError};
use bearer::BearerError;
use scram::ScramError;

pub use bearer::bearer_token;
pub(crate) use handles::{
    Challenge, PREFIX as HANDLE_PREFIX, name_of as handle_of_password, well_formed as is_handle_name,
};
pub use handles::{
    HANDLES_PER_PRINCIPAL_MAX, Handles, IssueError, Issued, LIFETIME_DEFAULT, LIFETIME_MAX, LIFETIME_MIN, RevokeError,
    Revoked, Wish,
};

/// Why a client is not who it would have to be, in words it may see.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// One text for all of these: which handles there are is not to be found out by asking.
    #[error("handle is unknown, expired or revoked, or its password is wrong")]
    Handle,
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Scram(ScramError),
    #[error(transparent)]
    Bearer(#[from] BearerError),
    #[error("no token given")]
    Discovery,
    #[error("too many failed logins from this address")]
    TooManyFailures,
    #[error("no randomness for a nonce")]
    Randomness,
}

impl From<ScramError> for AuthError {
    fn from(problem: ScramError) -> Self {
        match problem {
            ScramError::Proof => Self::Handle,
            other => Self::Scram(other),
        }
    }
}

impl AuthError {
    /// A wrong password is answered as a server answers it.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Identity(problem) => problem.sqlstate(),
            Self::Handle => "28P01",
            Self::Lease(_)
            | Self::Scram(_)
            | Self::Bearer(_)
            | Self::Discovery
            | Self::TooManyFailures
            | Self::Randomness => "28000",
        }
    }

    /// What to do about it, one sentence for the client's HINT.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Identity(problem) => problem.hint(),
            Self::Handle => "make a new handle, and give its name as the user and its whole password",
            Self::Lease(LeaseError::Target { .. }) => {
                "give the handle's target as dbname, or make a handle for this one"
            }
            Self::Lease(LeaseError::Source) => "make a handle for this address, or without source",
            Self::Scram(ScramError::Binding | ScramError::Downgrade) => {
                "somebody may stand in between; check the gateway's certificate (sslmode=verify-full)"
            }
            Self::Scram(_) | Self::Bearer(_) => "check the driver; psql and libpq speak this as PostgreSQL does",
            Self::Discovery => "get an access token from the issuer just named",
            Self::TooManyFailures => "wait a minute, then connect with a valid token",
            Self::Randomness => "try again later",
        }
    }

    /// Stable name for the record and for metrics.
    pub fn reason_code(&self) -> &'static str {
        match self {
            Self::Identity(problem) => problem.reason_code(),
            Self::Handle => "handle_refused",
            Self::Lease(LeaseError::Target { .. }) => "handle_target",
            Self::Lease(LeaseError::Source) => "handle_source",
            Self::Scram(ScramError::Binding | ScramError::Downgrade) => "channel_binding",
            Self::Scram(_) | Self::Bearer(_) => "sasl_malformed",
            Self::Discovery => "token_missing",
            Self::TooManyFailures => "too_many_failures",
            Self::Randomness => "no_randomness",
        }
    }

    /// Whether it counts as a wrong guess against the address it came from.
    pub(crate) fn is_a_guess(&self) -> bool {
        match self {
            Self::Identity(_) | Self::Handle | Self::Lease(_) | Self::Scram(_) | Self::Bearer(_) => true,
            Self::Discovery | Self::TooManyFailures | Self::Randomness => false,
        }
    }
}
