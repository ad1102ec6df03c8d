//! Who waits for a human, and the one task that looks whether anybody has decided: a thousand that look each for
//! themselves leave the store no time for the decisions. Says only that looking is worth it; what was decided whoever is
//! woken reads itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exeat_store::state::{RequestId, State};
use tokio::sync::{Notify, watch};

/// Where nothing is heard: another gateway's word may be lost on its way.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Lookout {
    state: State,
    waiting: Mutex<HashMap<RequestId, Vec<Arc<Notify>>>>,
}

/// As long as it lives somebody waits.
#[derive(Debug)]
pub(crate) struct Watch {
    lookout: Arc<Lookout>,
    id: RequestId,
    woken: Arc<Notify>,
}

impl Lookout {
    pub(crate) fn new(state: State) -> Self {
        Self { state, waiting: Mutex::default() }
    }

    pub(crate) fn watch(self: &Arc<Self>, id: &RequestId) -> Watch {
        let woken = Arc::new(Notify::new());
        self.waiting().entry(id.clone()).or_default().push(Arc::clone(&woken));
        Watch { lookout: Arc::clone(self), id: id.clone(), woken }
    }

    /// Whether somebody waits for this.
    pub(crate) fn is_watched(&self, id: &RequestId) -> bool {
        self.waiting().contains_key(id)
    }

    /// Until the gateway ends.
    pub(crate) async fn run(self: Arc<Self>, mut end: watch::Receiver<bool>) {
        let mut changes = self.state.changes();
        loop {
            let is_told = tokio::select! {
                _ = end.wait_for(|ended| *ended) => return,
                changed = changes.changed() => changed.is_ok(),
                () = tokio::time::sleep(LOOK_EVERY) => true,
            };
            if !is_told {
                // Without a store that tells there is the next look.
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if !self.waiting().is_empty() {
                self.look().await;
            }
        }
    }

    async fn look(&self) {
        match self.state.open_requests().await {
            Ok(open) => {
                let waiting = self.waiting();
                let decided = waiting.iter().filter(|(id, _)| !open.contains(*id));
                decided.flat_map(|(_, all)| all).for_each(|one| one.notify_one());
            }
            // They wait on: nothing of theirs leaves, and whoever has no time left looks for itself.
            Err(problem) => {
                tracing::warn!(problem = exeat_store::chain(&problem), "could not look for decisions");
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<RequestId, Vec<Arc<Notify>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    pub(crate) async fn decided(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.lookout.waiting();
        if let Some(all) = waiting.get_mut(&self.id) {
            all.retain(|one| !Arc::ptr_eq(one, &self.woken));
            if all.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}
