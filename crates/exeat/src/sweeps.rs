//! What time alone does to requests, budgets and messages: second groups are told, what nobody decided or used in time
//! expires, and what is long over is forgotten. Every gateway of a store sweeps; each step happens once, wherever.

use std::sync::Arc;
use std::time::Duration;

use exeat_policy::approval::Notice;
use exeat_store::record::{ApprovalChange, ApprovalEvent, Recorder};
use exeat_store::state::{State, StateError, Swept};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::now;

const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What is kept for days need not go to the second.
const FORGET_EVERY: Duration = Duration::from_mins(10);

/// Until `shutdown` turns true.
pub(crate) async fn run(state: State, recorder: Arc<Recorder>, mut shutdown: watch::Receiver<bool>) {
    let mut forgotten: Option<Instant> = None;
    let mut works = true;
    loop {
        let done = match forgotten {
            Some(at) if at.elapsed() < FORGET_EVERY => sweep(&state, &recorder).await,
            Some(_) | None => {
                forgotten = Some(Instant::now());
                match forget(&state).await {
                    Ok(()) => sweep(&state, &recorder).await,
                    Err(problem) => Err(problem),
                }
            }
        };
        if let Err(problem) = &done
            && works
        {
            tracing::error!(problem = exeat_store::chain(problem), "requests for approval cannot be swept");
        }
        works = done.is_ok();
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
    }
}

async fn forget(state: &State) -> Result<(), StateError> {
    state.forget_exposures(now()).await?;
    state.forget_requests(now()).await?;
    state.forget_messages(now()).await
}

async fn sweep(state: &State, recorder: &Recorder) -> Result<(), StateError> {
    for Swept { id, notice } in state.sweep_requests(now()).await? {
        let what = match notice {
            Some(Notice::SecondGroup) => ApprovalEvent::Escalated,
            Some(Notice::Closed | Notice::Alert | Notice::Stop) | None => ApprovalEvent::Expired,
        };
        let Some(request) = state.request(&id).await? else { continue };
        let change = ApprovalChange {
            what,
            approval: id.as_str(),
            target: &request.ask.target,
            asker: &request.ask.asker,
            by: None,
        };
        if let Err(problem) = recorder.approval_changed(&change) {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record what time did to a request");
        }
    }
    Ok(())
}
