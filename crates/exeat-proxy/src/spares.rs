//! What is on the ledger and not spent. What one statement leaves of a counter the next one of the same asker takes, before
//! it asks the store for more: two questions to the store for every statement would cost more than most statements do.
//! What nobody takes for a second goes back, and so does at once what a statement had counted and did not release.
//!
//! Nothing here may be spent twice or counted too little: an amount is with one answer, here, or on its way back, and what
//! is lost on any of these ways stays counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exeat_enforce::tally::Missing;
use exeat_policy::Moment;
use exeat_policy::ledger::{self, Budget, CounterKey, Want};
use exeat_store::state::{Reserved, State};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

/// How long something lies here before it goes back.
const LIES_AT_MOST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Spares {
    state: State,
    all: Mutex<All>,
    owing: Notify,
    /// One at a time writes, so that whoever waits for it knows that what others took to write is on file too.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct All {
    of: HashMap<CounterKey, Vec<Spare>>,
    owed: Vec<Reserved>,
}

/// Of one counter, reserved under one budget: under another it was not asked whether there is room.
#[derive(Debug)]
struct Spare {
    budget: Budget,
    parts: Vec<Reserved>,
    /// What left of it since it lies here.
    spent: u64,
    /// Since the last look.
    is_used: bool,
}

impl Spare {
    /// As of the last reservation. What lies here is missing for whoever asks at another gateway.
    fn may_lie(&self) -> u64 {
        self.parts.last().map_or(0, |part| ledger::may_lie(part.left()))
    }

    fn amount(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.amount()))
    }
}

impl Spares {
    pub(crate) fn new(state: State) -> Self {
        Self { state, all: Mutex::default(), owing: Notify::new(), writing: tokio::sync::Mutex::default() }
    }

    /// What is here of it, as far as it is wanted and may still be spent.
    pub(crate) fn take(&self, missing: &Missing, now: Moment) -> Vec<Reserved> {
        let mut all = self.all();
        let All { of, owed } = &mut *all;
        let Some(spare) = find(of, &missing.key, missing.budget) else { return Vec::new() };
        spare.is_used = true;
        let mut wanted = missing.want(0).at_most;
        let mut taken = Vec::new();
        while wanted > 0
            && let Some(mut part) = spare.parts.pop()
        {
            if part.counted_in() <= now {
                owed.push(part);
                continue;
            }
            if part.amount() > wanted {
                taken.push(part.split(wanted));
                spare.parts.push(part);
                break;
            }
            wanted -= part.amount();
            taken.push(part);
        }
        taken
    }

    /// What to ask the store for: the more the faster it is spent.
    pub(crate) fn want(&self, missing: &Missing) -> Want {
        let mut all = self.all();
        missing.want(find(&mut all.of, &missing.key, missing.budget).map_or(0, |spare| spare.spent))
    }

    /// `spent`: what left of the counter.
    pub(crate) fn put(&self, key: &CounterKey, budget: Budget, (parts, spent): (Vec<Reserved>, u64)) {
        let mut all = self.all();
        let All { of, owed } = &mut *all;
        if find(of, key, budget).is_none() {
            let spare = Spare { budget, parts: Vec::new(), spent: 0, is_used: true };
            of.entry(key.clone()).or_default().push(spare);
        }
        let Some(spare) = find(of, key, budget) else { return };
        spare.is_used = true;
        spare.spent = spare.spent.saturating_add(spent);
        spare.parts.extend(parts);
        while spare.amount() > spare.may_lie()
            && let Some(part) = spare.parts.pop()
        {
            owed.push(part);
            self.owing.notify_one();
        }
    }

    /// Nobody is to spend it.
    pub(crate) fn give_back(&self, parts: Vec<Reserved>) {
        if !parts.is_empty() {
            self.all().owed.extend(parts);
            self.owing.notify_one();
        }
    }

    /// Until the gateway ends. What is left then `give_back_all` writes.
    pub(crate) async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut look = interval(LIES_AT_MOST);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = self.owing.notified() => {}
                _ = look.tick() => self.all().look(),
            }
            self.write().await;
        }
    }

    /// Everything, and waits until it is on file.
    pub async fn give_back_all(&self) {
        self.all().end();
        self.write().await;
    }

    async fn write(&self) {
        let _one = self.writing.lock().await;
        let owed = std::mem::take(&mut self.all().owed);
        // Boxed: a session that asks for this once need not be as large for the rest of its life.
        if let Err(problem) = Box::pin(self.state.give_back(owed)).await {
            tracing::warn!(problem = exeat_store::chain(&problem), "what was reserved and not released stays counted");
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// What nobody took or put since the last look goes back.
    fn look(&mut self) {
        let Self { of, owed } = self;
        of.retain(|_, spares| {
            spares.retain_mut(|spare| {
                let is_used = std::mem::take(&mut spare.is_used);
                if !is_used {
                    owed.append(&mut spare.parts);
                }
                is_used
            });
            !spares.is_empty()
        });
    }

    fn end(&mut self) {
        let spares = std::mem::take(&mut self.of).into_values().flatten();
        self.owed.extend(spares.flat_map(|spare| spare.parts));
    }
}

fn find<'a>(of: &'a mut HashMap<CounterKey, Vec<Spare>>, key: &CounterKey, budget: Budget) -> Option<&'a mut Spare> {
    of.get_mut(key)?.iter_mut().find(|spare| spare.budget == budget)
}
