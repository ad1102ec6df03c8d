//! The database behind a target: its own login over verified TLS, one connection per client session, one more for
//! the catalog, one per cancel request.
//!
//! The gateway proves itself with SCRAM-SHA-256, bound to the TLS channel wherever there is one, and demands the
//! same of the server: one that asks for the password in clear or as MD5, or that asks for nothing, is talked to only
//! where the login says so, over a verified channel or on loopback. Passwords are read from their source for each login
//! and appear in no error, log line or `Debug` output. Never sees a client's bytes.

mod catalog;
mod config;
mod error;
mod login;
mod stream;

pub use catalog::{CatalogConnection, Rows};
pub use config::{
    LoginAuth, LoginConfig, TlsFiles, TlsMode, Transport, UpstreamConfig, UpstreamConfigError, choose_login,
};
pub use error::{Problem, UpstreamError};
pub use login::{Connected, cancel, connect};
pub use stream::UpstreamStream;
