//! What gateways of one store hear of each other's changes: accepted baselines, decisions about approvals, freezes.
//!
//! Every such change moves a number in the store, in the same transaction. The number is the truth; a notification
//! only says that looking is worth it now. Whoever waits is woken when a number has moved and reads again what it
//! needs. On SQLite there is one gateway: what it changes itself is all there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::any::AnyRow;
use sqlx::postgres::PgListener;
use sqlx::{AnyConnection, Row};
use tokio::sync::watch;

use super::address::Address;
use super::backend::{Backend, Kind, within};
use super::error::{Fault, StateError};
use crate::secret::SecretSource;

/// Between two looks without a notification: what another gateway changes is known here within a second.
const LOOK_EVERY: Duration = Duration::from_millis(800);

/// Without an answer for this long, something may be in force that this gateway has not heard of.
const UNHEARD_MAX: Duration = Duration::from_secs(3);

const CHANNEL: &str = "exeat_state";

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Bindings and accepted baselines.
    Baseline,
    /// Requests for approval, decisions and grants.
    Approval,
    /// Frozen subjects and targets.
    Freeze,
}

impl Topic {
    fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Approval => "approval",
            Self::Freeze => "freeze",
        }
    }
}

/// Numbers that move with every change; nothing else about them matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Revisions {
    pub baseline: u64,
    pub approval: u64,
    pub freeze: u64,
}

impl Revisions {
    fn of(&mut self, topic: Topic) -> &mut u64 {
        match topic {
            Topic::Baseline => &mut self.baseline,
            Topic::Approval => &mut self.approval,
            Topic::Freeze => &mut self.freeze,
        }
    }

    /// Numbers only grow: a look that was overtaken by a change of our own must not take it back.
    fn later(self, other: Self) -> Self {
        Self {
            baseline: self.baseline.max(other.baseline),
            approval: self.approval.max(other.approval),
            freeze: self.freeze.max(other.freeze),
        }
    }
}

/// A change that is in the transaction and not yet told.
#[must_use]
pub(super) struct Moved {
    topic: Topic,
    number: u64,
}

pub(super) struct Changes {
    told: watch::Sender<Revisions>,
    opened: Instant,
    /// Milliseconds after `opened`.
    heard: AtomicU64,
    /// Where others change things too.
    shared: AtomicBool,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self {
            told: watch::channel(Revisions::default()).0,
            opened: Instant::now(),
            heard: AtomicU64::new(0),
            shared: AtomicBool::new(false),
        }
    }

    pub(super) fn now(&self) -> Revisions {
        *self.told.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Revisions> {
        self.told.subscribe()
    }

    pub(super) fn is_current(&self) -> bool {
        let heard = self.opened + Duration::from_millis(self.heard.load(Ordering::Acquire));
        !self.shared.load(Ordering::Acquire) || heard.elapsed() <= UNHEARD_MAX
    }

    /// After the commit.
    pub(super) fn tell(&self, moved: &Moved) {
        let mut found = Revisions::default();
        *found.of(moved.topic) = moved.number;
        self.found(found);
    }

    fn found(&self, found: Revisions) {
        self.told.send_if_modified(|known| {
            let before = *known;
            *known = before.later(found);
            *known != before
        });
    }

    fn heard(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.fetch_max(since, Ordering::AcqRel);
    }
}

/// Says in the transaction that something has changed. The last step before the commit: everybody who changes
/// anything of the topic waits for this row.
pub(super) async fn moved(
    backend: &Backend,
    transaction: &mut AnyConnection,
    topic: Topic,
) -> Result<Moved, sqlx::Error> {
    let row = sqlx::query("UPDATE revision SET number = number + 1 WHERE topic = $1 RETURNING number")
        .bind(topic.name())
        .fetch_one(&mut *transaction)
        .await?;
    match backend.kind {
        Kind::Sqlite => {}
        Kind::Postgres => {
            sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&mut *transaction).await?;
        }
    }
    let number: i64 = row.try_get("number")?;
    Ok(Moved { topic, number: u64::try_from(number).unwrap_or_default() })
}

/// Reads the numbers, and tells who waits.
pub(super) async fn look(backend: &Backend) -> Result<(), Fault> {
    let rows = sqlx::query("SELECT topic, number FROM revision").fetch_all(&backend.pool).await?;
    let mut found = Revisions::default();
    for row in &rows {
        let (topic, number) = read(row).ok_or(Fault::Shape("a revision"))?;
        if let Some(topic) = [Topic::Baseline, Topic::Approval, Topic::Freeze].iter().find(|one| one.name() == topic) {
            *found.of(*topic) = number;
        }
    }
    backend.changes.found(found);
    backend.changes.heard();
    Ok(())
}

fn read(row: &AnyRow) -> Option<(String, u64)> {
    Some((row.try_get("topic").ok()?, u64::try_from(row.try_get::<i64, _>("number").ok()?).ok()?))
}

/// Looks when told to and now and then, until it is aborted. Where the store does not answer, its address is read
/// again: a password may have been changed.
pub(super) async fn follow(backend: Arc<Backend>, source: SecretSource) {
    backend.changes.shared.store(true, Ordering::Release);
    let mut listener = None;
    loop {
        if listener.is_none() {
            listener = within(listen(&backend)).await.ok();
        }
        tokio::select! {
            is_standing = hinted(&mut listener) => if !is_standing { listener = None; },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let seen = tokio::time::timeout(UNHEARD_MAX, look(&backend)).await;
        if let Ok(Ok(())) = seen {
            continue;
        }
        backend.failed.store(true, Ordering::Relaxed);
        let source = source.clone();
        let resolved = tokio::task::spawn_blocking(move || Address::resolve(&source)).await;
        if let Ok(Ok(address)) = resolved {
            backend.pool.set_connect_options(address.options);
        }
    }
}

async fn listen(backend: &Backend) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect(backend.pool.connect_options().database_url.as_str()).await?;
    // Whatever was sent meanwhile is lost in any case; the next look finds it.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Returns when something was sent (true) or the connection is gone (false).
async fn hinted(listener: &mut Option<PgListener>) -> bool {
    let Some(listener) = listener else { return std::future::pending().await };
    let Ok(Some(_)) = listener.try_recv().await else { return false };
    while listener.next_buffered().is_some() {}
    true
}

impl super::State {
    /// Moves with every change of bindings or baselines: whoever keeps what it read compares. A change by another
    /// gateway moves it within a second.
    pub fn revision(&self) -> u64 {
        self.shared.backend.changes.now().baseline
    }

    /// To wait on: it changes when anything has, here at once and elsewhere within a second.
    pub fn changes(&self) -> watch::Receiver<Revisions> {
        self.shared.backend.changes.subscribe()
    }

    /// Whether what other gateways have changed is known. Where it is not, a freeze or a revocation may be in force
    /// that this gateway has not heard of.
    pub fn is_current(&self) -> bool {
        self.shared.backend.changes.is_current()
    }
}

pub(super) async fn first_look(backend: &Backend) -> Result<(), StateError> {
    look(backend).await.map_err(|fault| fault.of("read revisions"))
}
