//! TCP keepalive: how a connection whose other end is gone without a word (power, a pulled cable, a firewall that
//! forgot it) is noticed, on either side of a session. A peer that is merely slow or silent is never taken for dead.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub count: u32,
    /// How long bytes of ours may stay unacknowledged. None by default: Linux counts the time a living peer's window
    /// is closed, too, and a client may well leave a page of rows unread for an hour.
    pub user_timeout: Option<Duration>,
}

impl Default for Keepalive {
    /// Ninety seconds: shorter than what the usual firewalls and load balancers wait before they forget.
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 3, user_timeout: None }
    }
}

impl Keepalive {
    pub(crate) fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        let probes = TcpKeepalive::new().with_time(self.idle).with_interval(self.interval).with_retries(self.count);
        socket.set_tcp_keepalive(&probes)?;
        // The option is Linux's; elsewhere the configuration refuses it.
        #[cfg(target_os = "linux")]
        if let Some(limit) = self.user_timeout {
            socket.set_tcp_user_timeout(Some(limit))?;
        }
        Ok(())
    }
}
