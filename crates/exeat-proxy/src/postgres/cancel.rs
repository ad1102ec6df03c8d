//! Cancel keys: the client gets the server's process id and a secret of ours; a CancelRequest that names both
//! wakes the session, which alone decides whether one of the client's own statements is there to be cancelled.
//! The connection that brought the request stays open until the session has settled it, as it does at a server:
//! clients take the end of that connection for leave to send their next statement.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::due::Due;
use super::io::{Interest, Turn};
use super::session::{Done, READS_BEFORE_CANCEL_MAX, Session, SessionEnd};
use crate::config::Target;

/// Secrets have exactly 4 bytes in protocol 3.0...
const SECRET_BYTES_3_0: usize = 4;
/// ...and may be longer from 3.2 on: as long as the server's own, which nobody guesses.
const SECRET_BYTES_3_2: usize = 32;

type Key = (i32, Vec<u8>);

/// Requests that wait for one session to look at them; more are dropped, the session is being cancelled anyway.
const REQUESTS_MAX: usize = 16;

/// A request to cancel; dropping it tells the one who asked that it is settled.
pub(crate) type Asked = oneshot::Sender<()>;

#[derive(Debug, Default)]
pub(crate) struct CancelKeys {
    keys: Mutex<HashMap<Key, mpsc::Sender<Asked>>>,
}

/// Registered for as long as it lives.
#[derive(Debug)]
pub(crate) struct CancelKey {
    pub(crate) pid: i32,
    pub(crate) secret: Vec<u8>,
    pub(crate) requests: mpsc::Receiver<Asked>,
    registry: Arc<CancelKeys>,
}

impl CancelKeys {
    /// `minor` is that of the protocol spoken. `None` when the system has no randomness to give.
    pub(crate) fn register(registry: &Arc<Self>, pid: i32, minor: u16) -> Option<CancelKey> {
        let mut secret = vec![0; if minor >= 2 { SECRET_BYTES_3_2 } else { SECRET_BYTES_3_0 }];
        SystemRandom::new().fill(&mut secret).ok()?;
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let mut keys = registry.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert((pid, secret.clone()), sender);
        drop(keys);
        Some(CancelKey { pid, secret, requests, registry: Arc::clone(registry) })
    }

    /// Says nothing either way, like PostgreSQL: who asks learns nothing. What comes back is done once the request
    /// is settled.
    pub(crate) fn request(&self, pid: i32, secret: &[u8]) -> Option<oneshot::Receiver<()>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = keys.get(&(pid, secret.to_vec()))?;
        let (asked, settled) = oneshot::channel();
        sessions.try_send(asked).ok().map(|()| settled)
    }
}

/// Cancel requests on their way to the server, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Cancelling {
    task: Option<JoinHandle<()>>,
    /// Set as long as the task has something to do.
    busy: Arc<AtomicBool>,
    landed: Arc<Notify>,
}

impl Cancelling {
    /// Told at the end of each request: the next one may go. Apart from the session, which reads and writes while it
    /// listens for it.
    pub(crate) fn landed(&self) -> Arc<Notify> {
        Arc::clone(&self.landed)
    }

    pub(crate) fn under_way(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Asks the server to cancel what backend `key` runs. `asked` is settled when the server has taken the request.
    pub(crate) fn forward(&mut self, target: &Arc<Target>, key: &(i32, Bytes), asked: Option<Asked>) {
        let target = Arc::clone(target);
        let (pid, secret) = key.clone();
        let (busy, landed) = (Arc::clone(&self.busy), self.landed());
        busy.store(true, Ordering::Release);
        self.task = Some(tokio::spawn(async move {
            if let Err(problem) = crate::upstream::cancel(&target.upstream, pid, &secret).await {
                tracing::warn!(target_name = %target.name, problem = exeat_store::chain(&problem), "could not forward a cancel request");
            }
            drop(asked);
            busy.store(false, Ordering::Release);
            landed.notify_one();
        }));
    }

    /// Returns once the request under way has landed.
    pub(crate) async fn settle(&mut self) {
        if let Some(task) = &mut self.task {
            let _ = task.await;
            self.task = None;
        }
    }
}

impl Session {
    /// The client's cancel of a statement behind which nothing was sent: it goes on at once.
    pub(crate) fn cancel_running(&mut self) {
        if !self.cancelling.under_way()
            && let Some(asked) = self.cancel_asked()
        {
            self.cancelling.forward(&self.target, &self.upstream_key, Some(asked));
        }
    }

    /// A cancel that was heard and that its asker still waits for.
    pub(crate) fn cancel_asked(&mut self) -> Option<Asked> {
        self.cancel_due.take().filter(|asked| !asked.is_closed())
    }

    /// A cancel is for what the client sent before it asked: that is taken in first, as far as it is here, and what
    /// it says goes out. Then the cancel is forwarded if a statement of the client's own is running; the gateway's are
    /// never cancelled.
    pub(crate) async fn cancel_in_order(&mut self) -> Done {
        // Who was told that it is settled may have sent the next statement since.
        let Some(asked) = self.cancel_asked() else { return Ok(()) };
        for _ in 0..READS_BEFORE_CANCEL_MAX {
            let committed = self.commit().await.map_err(SessionEnd::Outcome)?;
            self.io.clear(committed);
            let interest = Interest { client: self.window_open(), upstream: false };
            let interest = Interest { client: self.has_room(interest) && interest.client, ..interest };
            if self.io.turn_now(interest).await? != Some(Turn::Client) {
                break;
            }
            self.take_messages().await?;
        }
        let running = matches!(
            self.pipeline.front(),
            Some((_, Due::Query(_) | Due::Execute(_) | Due::Bind { .. } | Due::Parse { .. }))
        );
        if running {
            self.cancelling.forward(&self.target, &self.upstream_key, Some(asked));
        }
        Ok(())
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        let mut keys = self.registry.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&(self.pid, std::mem::take(&mut self.secret)));
    }
}
