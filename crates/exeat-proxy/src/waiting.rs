//! Places for statements that wait for a human on their connection: so many of each target, for each pins a connection to
//! its server. Whoever finds none is answered at once, and asks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Target;

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// Taken for as long as it lives.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<Mutex<HashMap<String, usize>>>,
    target: String,
}

impl Waiting {
    pub(crate) fn place(&self, target: &Target) -> Option<Place> {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.entry(target.name.clone()).or_default();
        if *taken >= target.held_max {
            return None;
        }
        *taken += 1;
        Some(Place { taken: Arc::clone(&self.taken), target: target.name.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&self.target) {
            *taken = taken.saturating_sub(1);
        }
    }
}
