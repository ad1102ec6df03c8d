//! What a session begins with once its login is done, whichever road it takes, and how long it may stay.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use exeat_store::record::SessionRecord;
use tokio::sync::watch;
use tokio::time::Instant;

use super::cancel::CancelKey;
use super::session::{Client, Done, Ending, GRACE, SessionEnd};
use crate::config::{LoadedPolicy, Target};
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

/// How long a session may stay: as long as its identity holds and the gateway runs, and then until it is between
/// transactions.
#[derive(Debug)]
pub(crate) struct Tenure {
    shutdown: watch::Receiver<bool>,
    /// Set when the session must end as soon as it is between transactions, at the latest then.
    leaving: Option<(Ending, Instant)>,
}

impl Tenure {
    pub(crate) fn new(shutdown: watch::Receiver<bool>) -> Self {
        Self { shutdown, leaving: None }
    }

    /// Once a second: do identity and gateway still hold?
    pub(crate) fn look(&mut self, verifier: &Verifier, identity: &Verified) {
        if self.leaving.is_some() {
            return;
        }
        let ending = if *self.shutdown.borrow() {
            Some(Ending::Shutdown)
        } else if verifier.still_valid(identity).is_err() {
            Some(Ending::IdentityExpired)
        } else {
            None
        };
        self.leaving = ending.map(|ending| (ending, Instant::now() + GRACE));
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
