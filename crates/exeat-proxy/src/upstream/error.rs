//! What went wrong with a server, for the operator's log: which server, as whom, what, and what to do next. Clients
//! get [`UpstreamError::client_message`] instead: addresses, logins and the server's words are not theirs to know.

use std::time::Duration;

use exeat_store::secret::SecretError;
use exeat_wire::DecodeError;
use exeat_wire::encode::EncodeError;

/// A failed connection, login or query of the gateway's own. The text is complete, causes included: it is one line of
/// a log.
#[derive(Debug, thiserror::Error)]
#[error("upstream {server} as \"{user}\": {problem}")]
pub struct UpstreamError {
    /// `host:port/database`
    pub server: String,
    pub user: String,
    pub problem: Problem,
}

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("could not read the password from {origin}: {}", with_causes(.cause))]
    Password { origin: String, cause: SecretError },
    #[error("could not connect: {cause}; check host and port, and that the server runs")]
    Connect { cause: std::io::Error },
    #[error("{address} is not loopback, so tls: off is refused; use tls: verify-full")]
    NotLoopback { address: std::net::IpAddr },
    #[error("no answer within {} s while {stage}; check that it is a PostgreSQL server and not overloaded", limit.as_secs())]
    Deadline { stage: &'static str, limit: Duration },
    #[error("the server offers no TLS; turn ssl on there (tls: off is possible on loopback only)")]
    TlsNotOffered,
    #[error("the server answered the TLS request with byte {byte:#04x}; is it a PostgreSQL server")]
    NotPostgres { byte: u8 },
    #[error("TLS handshake failed: {cause}; check the host name, the certificate and the ca file")]
    Handshake { cause: std::io::Error },
    #[error("connection lost while {stage}: {cause}")]
    Lost { stage: &'static str, cause: std::io::Error },
    #[error("the server closed the connection while {stage}")]
    Closed { stage: &'static str },
    #[error(
        "the server asks for {method} authentication, which is refused; set password_encryption and pg_hba.conf to scram-sha-256, or allow what an old server knows with auth: md5 or auth: password at the login"
    )]
    AuthenticationMethod { method: String },
    #[error(
        "the server let us in without authentication, which is accepted on loopback only; set pg_hba.conf to scram-sha-256, or say auth: cert or auth: trust at the login"
    )]
    TrustRefused,
    #[error(
        "the server asks for {method} authentication, which is for tls: verify-full and loopback only; use verify-full"
    )]
    Unverified { method: &'static str },
    #[error("the server asks for a password and the login has none (auth: {auth}); give it one, or check pg_hba.conf")]
    NoPassword { auth: &'static str },
    #[error("tls: require needs the server's channel binding and {why}; use verify-full")]
    NoChannelBinding { why: &'static str },
    #[error(
        "SCRAM authentication failed: {reason}; is it the right server, and is its password stored as SCRAM-SHA-256"
    )]
    Scram { reason: String },
    #[error("the server refused: {message} ({sqlstate}); {}", next_step(.sqlstate))]
    Refused { sqlstate: String, message: String },
    #[error("the server sent what the protocol does not allow: {0}")]
    Decode(#[from] DecodeError),
    #[error("the server sent {message} while {stage}, which the protocol does not allow there")]
    Unexpected { message: &'static str, stage: &'static str },
    #[error("the server sent more than {limit} {unit} while {stage}")]
    TooMuch { limit: usize, unit: &'static str, stage: &'static str },
    #[error("server version \"{version}\" is not understood")]
    Version { version: String },
    #[error("startup parameter \"{name}\" is the gateway's own and cannot be passed on")]
    ReservedParameter { name: String },
    #[error("could not write the request: {0}")]
    Encode(#[from] EncodeError),
    #[error("a value of a catalog row is not UTF-8")]
    NotUtf8,
    #[error("an earlier query of this connection was not read to its end; open another one")]
    Unfinished,
}

impl UpstreamError {
    /// All a client may know.
    pub fn client_message(&self, target: &str) -> String {
        format!("target \"{target}\" cannot be reached")
    }
}

/// The commonest refusals at login, by SQLSTATE.
fn next_step(sqlstate: &str) -> &'static str {
    match sqlstate {
        "28P01" | "28000" => "check user and password of the login, and pg_hba.conf",
        "3D000" => "create the database or correct its name",
        "42501" => "grant the login what it needs, or correct its role",
        "42704" | "22023" => "correct the role of the login",
        "53300" => "raise max_connections or lower the gateway's limit",
        "57P03" => "wait until the server accepts connections",
        _ => "see the server's log",
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
