//! Cancel keys: the client gets the server's process id and a secret of ours; a CancelRequest that names both
//! wakes the session, which alone decides whether one of the client's own statements is there to be cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;

/// Secrets have exactly 4 bytes in protocol 3.0...
const SECRET_BYTES_3_0: usize = 4;
/// ...and may be longer from 3.2 on: as long as the server's own, which nobody guesses.
const SECRET_BYTES_3_2: usize = 32;

type Key = (i32, Vec<u8>);

#[derive(Debug, Default)]
pub(crate) struct CancelKeys {
    keys: Mutex<HashMap<Key, Arc<Notify>>>,
}

/// Registered for as long as it lives.
#[derive(Debug)]
pub(crate) struct CancelKey {
    pub(crate) pid: i32,
    pub(crate) secret: Vec<u8>,
    pub(crate) requested: Arc<Notify>,
    registry: Arc<CancelKeys>,
}

impl CancelKeys {
    /// `minor` is that of the protocol spoken. `None` when the system has no randomness to give.
    pub(crate) fn register(registry: &Arc<Self>, pid: i32, minor: u16) -> Option<CancelKey> {
        let mut secret = vec![0; if minor >= 2 { SECRET_BYTES_3_2 } else { SECRET_BYTES_3_0 }];
        SystemRandom::new().fill(&mut secret).ok()?;
        let requested = Arc::new(Notify::new());
        let mut keys = registry.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert((pid, secret.clone()), Arc::clone(&requested));
        drop(keys);
        Some(CancelKey { pid, secret, requested, registry: Arc::clone(registry) })
    }

    /// Answers nothing either way, like PostgreSQL: who asks learns nothing.
    pub(crate) fn request(&self, pid: i32, secret: &[u8]) {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requested) = keys.get(&(pid, secret.to_vec())) {
            requested.notify_one();
        }
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        let mut keys = self.registry.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&(self.pid, std::mem::take(&mut self.secret)));
    }
}
