//! What a session begins with once its login is done, whichever road it takes, and how long it may stay.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use exeat_store::record::SessionRecord;
use tokio::sync::watch;
use tokio::time::Instant;

use super::cancel::CancelKey;
use super::session::{Client, Done, Ending, GRACE, SessionEnd};
use crate::config::{Listen, LoadedPolicy, Target};
use crate::identity::{Verified, Verifier};
use crate::limits::SessionGuard;
use crate::server::Shared;
use crate::upstream::UpstreamStream;

pub(crate) struct Seat {
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Arc<Target>,
    pub(crate) identity: Verified,
    pub(crate) policy: Arc<LoadedPolicy>,
    pub(crate) client: Client,
    pub(crate) upstream: UpstreamStream,
    /// Read from the server behind its login, not yet decoded.
    pub(crate) upstream_bytes: BytesMut,
    pub(crate) record: SessionRecord,
    pub(crate) cancel_key: CancelKey,
    pub(crate) upstream_key: (i32, Bytes),
    pub(crate) tenure: Tenure,
    pub(crate) counted: SessionGuard,
}

/// How long a session may stay: as long as its identity holds, its client says something now and then and the
/// gateway runs, and then until it is between transactions.
#[derive(Debug)]
pub(crate) struct Tenure {
    shutdown: watch::Receiver<bool>,
    drain: Duration,
    idle_timeout: Option<Duration>,
    /// When the client last said anything, or was last seen in a transaction.
    active_at: Instant,
    /// Set when the session must end as soon as it is between transactions, at the latest then.
    leaving: Option<(Ending, Instant)>,
}

impl Tenure {
    pub(crate) fn new(shutdown: watch::Receiver<bool>, listen: &Listen) -> Self {
        let Listen { drain, idle_timeout, .. } = *listen;
        Self { shutdown, drain, idle_timeout, active_at: Instant::now(), leaving: None }
    }

    /// The client said something.
    pub(crate) fn heard(&mut self) {
        if self.idle_timeout.is_some() {
            self.active_at = Instant::now();
        }
    }

    /// Once a second: do identity and gateway still hold, and is anybody there?
    pub(crate) fn look(&mut self, verifier: &Verifier, identity: &Verified, mid_transaction: bool) {
        if mid_transaction {
            self.heard();
        }
        if self.leaving.is_some() {
            return;
        }
        let now = Instant::now();
        self.leaving = if *self.shutdown.borrow() {
            Some((Ending::Shutdown, now + self.drain))
        } else if verifier.still_valid(identity).is_err() {
            Some((Ending::IdentityExpired, now + GRACE))
        } else if self.idle_timeout.is_some_and(|limit| now.duration_since(self.active_at) >= limit) {
            Some((Ending::Idle, now))
        } else {
            None
        };
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    pub(crate) fn leave_if_due(&self, mid_transaction: bool) -> Done {
        match self.leaving {
            Some((ending, latest)) if !mid_transaction || Instant::now() >= latest => Err(SessionEnd::Leaving(ending)),
            Some(_) | None => Ok(()),
        }
    }
}
