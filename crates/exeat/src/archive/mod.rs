//! The archive: what is on record, copied off the machine in pieces that never change, and the checkpoints with it, so that
//! nobody who has this machine can write anew what was archived.
//!
//! A task of its own reads the record's files; nothing waits for it. What it could not ship is shipped in a later round, from
//! where the archive itself says that it ends.

mod keys;
mod place;
mod round;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use exeat_console::Check;
use exeat_proxy::anchored::Anchored;
use exeat_store::archive::ArchiveError;
use tokio::sync::watch;

pub(crate) use place::{PlaceConfig, PlaceError, PlaceKind, S3Config};

use place::Place;
use round::Round;

/// Whoever ends the gateway waits no longer for the end of its record to be archived.
const REST_WITHIN: Duration = Duration::from_secs(10);

/// `audit.archive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchiveConfig {
    pub(crate) place: PlaceConfig,
    /// From the end of one round to the beginning of the next.
    pub(crate) every: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(
        "\"{name}\" in the archive is not what this gateway has there: another gateway archives under this name, or the log or the archive was altered"
    )]
    NotOurs { name: String },
    #[error(
        "the archive has records up to {archived}, and the log signed ends at {signed}: an old copy of data_dir was put back, or another gateway has this name"
    )]
    Ahead { archived: u64, signed: u64 },
    #[error("the gateway is ending")]
    Ending,
}

impl From<exeat_store::StoreError> for RoundError {
    fn from(problem: exeat_store::StoreError) -> Self {
        Self::Archive(problem.into())
    }
}

/// What a round came to.
#[derive(Debug, Default)]
struct Status {
    /// Why the last round did not come to its end.
    problem: Option<String>,
    /// How many lines are archived under an archived checkpoint.
    anchored: Option<u64>,
}

/// The archive of this gateway, as the rest of the gateway sees it.
#[derive(Debug)]
pub(crate) struct Archive {
    config: ArchiveConfig,
    data_dir: PathBuf,
    window: Arc<Anchored>,
    status: ArcSwap<Status>,
}

impl Archive {
    pub(crate) fn new(config: ArchiveConfig, data_dir: PathBuf, window: Arc<Anchored>) -> Self {
        Self { config, data_dir, window, status: ArcSwap::default() }
    }

    /// Rounds until `shutdown` turns true.
    pub(crate) async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut works = true;
        let mut round: Option<Round> = None;
        loop {
            let done = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                done = self.round(&mut round) => done,
            };
            let anchored = round.as_ref().map(Round::anchored).or(self.status.load().anchored);
            let problem = done.err().map(|problem| {
                // Everything is opened, read and found anew: secrets may have changed, and what of a round arrived is not known.
                round = None;
                exeat_store::chain(&problem)
            });
            match &problem {
                Some(problem) if works => {
                    tracing::error!(place = self.config.place.url, problem, "the record is not archived")
                }
                None if !works => tracing::info!(place = self.config.place.url, "the record is archived again"),
                Some(_) | None => {}
            }
            works = problem.is_none();
            self.status.store(Arc::new(Status { problem, anchored }));
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(self.config.every) => {}
            }
        }
    }

    /// One round more, for what was signed behind the last, where the archive takes it in time.
    pub(crate) async fn ship_the_rest(&self) {
        let done = tokio::time::timeout(REST_WITHIN, self.round(&mut None)).await.unwrap_or(Err(RoundError::Ending));
        if let Err(problem) = done {
            let (place, problem) = (&self.config.place.url, exeat_store::chain(&problem));
            tracing::error!(place, problem, "the end of the record is not archived; the next start does it");
        }
    }

    /// Before this line everything is in the archive.
    pub(crate) fn passed(&self) -> u64 {
        self.status.load().anchored.unwrap_or(0)
    }

    async fn round(&self, round: &mut Option<Round>) -> Result<(), RoundError> {
        if round.is_none() {
            *round = Round::begin(&self.config.place, &self.data_dir).await?;
        }
        match round {
            Some(round) => round.go(self).await,
            // Nothing is signed yet, so nothing can be archived; what is on record waits.
            None => Ok(()),
        }
    }

    /// For `/readyz`. What is not archived makes the gateway unready only where the configuration asks for it.
    pub(crate) fn check(&self) -> Check {
        let status = self.status.load();
        let age = self.window.age().filter(|_| status.anchored.is_some());
        let known = match (age, status.anchored) {
            (Some(age), Some(records)) => format!("{records} records anchored {} s ago", age.as_secs()),
            _ => "nothing is known to be anchored yet".to_owned(),
        };
        let detail = match &status.problem {
            Some(problem) => format!("{known}; {problem}"),
            None => known,
        };
        if self.window.is_overdue() {
            return Check::failed("archive", detail);
        }
        if status.problem.is_some() {
            return Check::degraded("archive", detail);
        }
        Check { detail: Some(detail), ..Check::ok("archive") }
    }
}

/// Reads what the configuration names, without reaching it. Blocks.
pub(crate) fn check(config: &ArchiveConfig, name: &str) -> Result<(), PlaceError> {
    Place::open(&config.place, name).map(drop)
}

/// Files are read beside the runtime's own threads.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, RoundError> + Send + 'static,
) -> Result<T, RoundError> {
    tokio::task::spawn_blocking(read).await.map_err(|_| RoundError::Ending)?
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
