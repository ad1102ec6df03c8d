//! Data plane: listeners, TLS, login, upstreams, session loops.

pub mod anchored;
pub mod auth;
pub mod config;
pub mod freezes;
pub mod identity;
mod keepalive;
mod large_messages;
mod limits;
mod lookout;
mod postgres;
pub mod remembered;
pub mod server;
pub mod spares;
pub mod tls;
pub mod upstream;
mod waiting;
mod workers;

pub use workers::SessionThreads;
