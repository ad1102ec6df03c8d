//! Cancel keys: the client gets the server's process id and a secret of ours; a CancelRequest that names both
//! wakes the session, which alone decides whether one of the client's own statements is there to be cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;

/// Secrets are 4 bytes in protocol 3.0.
pub(crate) const SECRET_BYTES: usize = 4;

type Key = (i32, [u8; SECRET_BYTES]);

#[derive(Debug, Default)]
pub(crate) struct CancelKeys {
    keys: Mutex<HashMap<Key, Arc<Notify>>>,
}

/// Registered for as long as it lives.
#[derive(Debug)]
pub(crate) struct CancelKey {
    pub(crate) pid: i32,
    pub(crate) secret: [u8; SECRET_BYTES],
    pub(crate) requested: Arc<Notify>,
    registry: Arc<CancelKeys>,
}

impl CancelKeys {
    /// `None` when the system has no randomness to give.
    pub(crate) fn register(registry: &Arc<Self>, pid: i32) -> Option<CancelKey> {
        let mut secret = [0u8; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).ok()?;
        let requested = Arc::new(Notify::new());
        let mut keys = registry.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert((pid, secret), Arc::clone(&requested));
        drop(keys);
        Some(CancelKey { pid, secret, requested, registry: Arc::clone(registry) })
    }

    /// Answers nothing either way, like PostgreSQL: who asks learns nothing.
    pub(crate) fn request(&self, pid: i32, secret: &[u8]) {
        let Ok(secret) = <[u8; SECRET_BYTES]>::try_from(secret) else { return };
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requested) = keys.get(&(pid, secret)) {
            requested.notify_one();
        }
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        let mut keys = self.registry.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&(self.pid, self.secret));
    }
}
