//! Retention at a running gateway: a task that has the record forget what is older than the configuration keeps, once the
//! archive and every export have it. What goes wrong is told and tried again; statements go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exeat_store::StoreError;
use exeat_store::record::{Forgotten, Recorder, Retention, RoundOf};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::archive::Archive;
use crate::export::{ExportError, Exports};

/// Where more is due at once, or something has to be waited for.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_hours(1);

#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("a round did not come to its end")]
    Task(#[from] tokio::task::JoinError),
}

/// What rounds go by.
pub(crate) struct Forgetting {
    pub(crate) retention: Retention,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) archive: Option<Arc<Archive>>,
    pub(crate) exports: Arc<Exports>,
}

/// Whoever drops it ends the round that runs on another thread.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Forgetting {
    /// Rounds until `shutdown` turns true.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let step = this.retention.step().max(AGAIN_AFTER);
        let mut waits = None;
        loop {
            let done = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                done = Arc::clone(&this).round() => done,
            };
            let pause = match done {
                Ok(done) => {
                    tell(&done, &mut waits);
                    match (done.is_partial, done.waits) {
                        (true, _) => AGAIN_AFTER,
                        (false, Some(_)) => step.min(RETRY_AFTER),
                        (false, None) => step,
                    }
                }
                Err(problem) => {
                    let problem = exeat_store::chain(&problem);
                    tracing::error!(problem, "what is older than audit.retention keeps could not be forgotten");
                    step.min(RETRY_AFTER)
                }
            };
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn round(self: Arc<Self>) -> Result<Forgotten, RoundError> {
        let ends = Ends(Arc::default());
        let is_ending = Arc::clone(&ends.0);
        let done = tokio::task::spawn_blocking(move || {
            let archived = self.archive.as_ref().map_or(u64::MAX, |archive| archive.passed());
            let passed = archived.min(self.exports.passed()?);
            let is_ending = || is_ending.load(Ordering::Relaxed);
            let round = RoundOf { now: Timestamp::now(), passed, is_ending: &is_ending };
            Ok::<_, RoundError>(self.recorder.forget(&self.retention, round)?)
        });
        let done = done.await?;
        drop(ends);
        done
    }
}

/// What holds lines back is told once.
fn tell(done: &Forgotten, waits: &mut Option<&'static str>) {
    let Forgotten { erased, lines, blobs, .. } = *done;
    if erased > 0 || lines.is_some() || blobs > 0 {
        let (first, next) = lines.unzip();
        tracing::info!(sessions = erased, first, next, blobs, "what is older than audit.retention keeps is forgotten");
    }
    if let Some(why) = done.waits
        && *waits != done.waits
    {
        tracing::warn!(why, held = done.held, "lines are older than audit.retention keeps, and stay");
    }
    *waits = done.waits;
}
