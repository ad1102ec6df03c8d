//! What a session begins with once its login is done, whichever road it takes, and how long it may stay.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use exeat_store::record::SessionRecord;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::cancel::CancelKey;
use super::session::{Client, Done, Ending, GRACE, SessionEnd};
use crate::config::{LoadedPolicy, Target};
use crate::freezes::CurrentFreezes;
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

/// How often a session looks whether its identity and policy still hold...
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// ...and after how long it looks before it hears anybody: one whose sockets always have something would never look.
const LOOK_OVERDUE: Duration = Duration::from_secs(2);

/// When to look at the clock, the identity and the policy although nothing happens.
#[derive(Debug)]
pub(crate) struct Looks {
    ticks: Interval,
    last: Instant,
}

impl Default for Looks {
    fn default() -> Self {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, last: Instant::now() }
    }
}

impl Looks {
    /// Until the next look. Cancel safe.
    pub(crate) async fn due(&mut self) {
        self.ticks.tick().await;
        self.last = Instant::now();
    }

    /// The next look has been put off by what the sockets brought: it comes first now. Reading the clock costs less
    /// than asking the timer in each turn.
    pub(crate) fn is_overdue(&self) -> bool {
        self.last.elapsed() >= LOOK_OVERDUE
    }
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
    freezes: CurrentFreezes,
    target: String,
    /// Set when the session must end as soon as it is between transactions, at the latest then.
    leaving: Option<(Ending, Instant)>,
}

impl Tenure {
    pub(crate) fn new(shared: &Shared, target: &str) -> Self {
        let (drain, idle_timeout) = (shared.config.listen.drain, shared.config.listen.idle_timeout);
        Self {
            shutdown: shared.dependencies.shutdown.clone(),
            drain,
            idle_timeout,
            active_at: Instant::now(),
            freezes: Arc::clone(&shared.dependencies.freezes),
            target: target.to_owned(),
            leaving: None,
        }
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
        let now = Instant::now();
        if *self.shutdown.borrow() {
            self.leave(Ending::Shutdown, now + self.drain);
        }
        if let Some(standstill) = self.freezes.load().between(&identity.principal, &self.target) {
            self.leave(Ending::Frozen(standstill), now);
        }
        match verifier.still_valid(identity) {
            Ok(()) => {}
            // Whoever took it back wants the session to stop, and not after one more statement.
            Err(reason) if reason.is_withdrawn() => self.leave(Ending::IdentityWithdrawn, now),
            Err(_) => self.leave(Ending::IdentityExpired, now + GRACE),
        }
        if self.idle_timeout.is_some_and(|limit| now.duration_since(self.active_at) >= limit) {
            self.leave(Ending::Idle, now);
        }
    }

    /// Of several reasons the one counts that ends the session first; of those that do so together, the first.
    fn leave(&mut self, ending: Ending, latest: Instant) {
        if self.leaving.is_none_or(|(_, sooner)| latest < sooner) {
            self.leaving = Some((ending, latest));
        }
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
