//! The listener: accepts connections within the limits, runs one task per session, stops gracefully.

use std::net::SocketAddr;

use tokio::task::JoinHandle;

use crate::config::{Config, Dependencies};

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("could not listen on {address}: {source}; choose another address for listen.postgres or stop what holds it")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
}

/// A running data plane.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    accept: JoinHandle<()>,
}

/// Binds and starts. Returns once the listener is bound; sessions run until `dependencies.shutdown` turns true.
pub async fn serve(_config: Config, _dependencies: Dependencies) -> Result<Server, ServeError> {
    Err(ServeError::Listen {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        source: std::io::Error::other("being written"),
    })
}

/// What readiness says of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStatus {
    pub name: String,
    /// `Err` says what is wrong in words that may be shown on the console listener.
    pub state: Result<(), String>,
}

impl Server {
    /// Connects to every target's database as the catalog connection would.
    pub async fn probe_targets(&self) -> Vec<TargetStatus> {
        Vec::new()
    }

    /// Waits until the listener and every session have ended (bounded by the drain deadline).
    pub async fn join(self) {
        let _ = self.accept.await;
    }
}
