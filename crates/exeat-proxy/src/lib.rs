//! Data plane: listeners, TLS, login, upstreams, session loops.

pub mod identity;
pub mod tls;
pub mod upstream;
