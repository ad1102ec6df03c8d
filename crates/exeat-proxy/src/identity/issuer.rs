//! One issuer's keys: fetched ahead of need by one task, swapped whole, trusted for `max_stale` after the last good
//! look. A key that is no longer in the set has lost our trust the moment the new set is stored.
//!
//! All fetching happens in [`Issuer::follow`], so any number of logins with an unknown kid cause one fetch, and at
//! most one per [`Timing::refetch_after`]; they wait for its end, bounded by [`Timing::answer_within`].

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::config::{IssuerConfig, IssuerConfigError, JwksSource};
use super::error::IdentityError;
use super::fetch::{FETCH_TIMEOUT, Fetcher};
use super::jwks::{Fingerprint, Key, KeySet};
use super::jws::Algorithm;

/// Key files are mounted and written by hand; the largest real sets are some dozens of KiB.
const KEY_FILE_BYTES_MAX: u64 = 512 * 1024;

/// When keys are looked at again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// Refresh of a discovered set: how long a key removed by the issuer is still believed.
    pub(super) refresh_every: Duration,
    /// Look at a key file.
    pub(super) reread_every: Duration,
    /// After a failure.
    pub(super) retry_after: Duration,
    /// Unknown kids cause at most one fetch in this time: their number is the attacker's choice.
    pub(super) refetch_after: Duration,
    /// How long a login waits for that fetch.
    pub(super) answer_within: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            refresh_every: Duration::from_secs(60),
            reread_every: Duration::from_secs(1),
            retry_after: Duration::from_secs(5),
            refetch_after: Duration::from_secs(30),
            answer_within: FETCH_TIMEOUT,
        }
    }
}

#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) config: IssuerConfig,
    source: Source,
    timing: Timing,
    state: ArcSwap<KeyState>,
    /// When a login last asked for an extra fetch.
    asked: Mutex<Option<Instant>>,
    /// Number of extra fetches asked for, and of the last one that has ended.
    wanted: watch::Sender<u64>,
    ended: watch::Sender<u64>,
    /// Shared by all issuers: counts changes of any key set.
    generation: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Source {
    Discovery(Box<Fetcher>),
    File(PathBuf),
}

#[derive(Debug, Default, Clone)]
pub(super) struct KeyState {
    pub(super) keys: KeySet,
    /// When the source last said that these are its keys.
    confirmed: Option<Instant>,
    /// Why the last look failed.
    pub(super) failure: Option<String>,
}

/// Where a key is, or why it is not there.
enum Lookup {
    Found(Vec<Key>),
    Missing,
    /// Never loaded, or older than `max_stale`.
    Stale,
}

impl Issuer {
    /// Reads a key file at once, so that a mistake in it stops the start; discovery begins with `follow`.
    pub(super) fn new(
        config: IssuerConfig,
        timing: Timing,
        generation: Arc<AtomicU64>,
    ) -> Result<Self, IssuerConfigError> {
        let (source, state) = match &config.jwks {
            JwksSource::Discovery => (Source::Discovery(Box::new(Fetcher::new(&config)?)), KeyState::default()),
            JwksSource::File(path) => {
                let keys = read_key_file(path)
                    .map_err(|reason| IssuerConfigError::JwksFile { issuer: config.issuer.clone(), reason })?;
                (Source::File(path.clone()), KeyState { keys, confirmed: Some(Instant::now()), failure: None })
            }
        };
        Ok(Self {
            config,
            source,
            timing,
            state: ArcSwap::from_pointee(state),
            asked: Mutex::new(None),
            wanted: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            generation,
        })
    }

    /// The keys that may have signed a token with this header, fetching once more if none is known.
    pub(super) async fn keys_for(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<Key>, IdentityError> {
        if let Lookup::Found(keys) = self.look_up(kid, algorithm) {
            return Ok(keys);
        }
        self.refetch().await;
        let issuer = self.config.issuer.clone();
        match self.look_up(kid, algorithm) {
            Lookup::Found(keys) => Ok(keys),
            Lookup::Missing => Err(IdentityError::UnknownKey { kid: kid.map(str::to_owned), issuer }),
            Lookup::Stale => Err(IdentityError::KeysUnavailable { issuer }),
        }
    }

    /// Is the key of a running session still published?
    pub(super) fn still_trusts(&self, fingerprint: &Fingerprint) -> Result<(), IdentityError> {
        let state = self.state.load();
        let issuer = || self.config.issuer.clone();
        if !self.is_fresh(&state) {
            return Err(IdentityError::KeysUnavailable { issuer: issuer() });
        }
        if !state.keys.holds(fingerprint) {
            return Err(IdentityError::KeyRemoved { issuer: issuer() });
        }
        Ok(())
    }

    pub(super) fn state(&self) -> Arc<KeyState> {
        self.state.load_full()
    }

    pub(super) fn is_fresh(&self, state: &KeyState) -> bool {
        state.confirmed.is_some_and(|at| at.elapsed() <= self.config.max_stale)
    }

    /// Keeps the keys current until `shutdown` turns true. Runs once per issuer.
    pub(super) async fn follow(&self, mut shutdown: watch::Receiver<bool>) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let number = *wanted.borrow_and_update();
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = self.refresh() => {}
            }
            self.ended.send_replace(number);
            let pause = match (&self.source, &self.state.load().failure) {
                (Source::File(_), _) => self.timing.reread_every,
                (Source::Discovery(_), Some(_)) => self.timing.retry_after,
                (Source::Discovery(_), None) => self.timing.refresh_every,
            };
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = wanted.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn look_up(&self, kid: Option<&str>, algorithm: Algorithm) -> Lookup {
        let state = self.state.load();
        if !self.is_fresh(&state) {
            return Lookup::Stale;
        }
        let keys = state.keys.candidates(kid, algorithm);
        if keys.is_empty() { Lookup::Missing } else { Lookup::Found(keys.into_iter().cloned().collect()) }
    }

    /// Waits for a fetch that began after this call or, within `refetch_after` of the last one, for that one.
    async fn refetch(&self) {
        let mut ended = self.ended.subscribe();
        let number = {
            // Nothing panics while it is held; a poisoned time is still a time.
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.is_none_or(|at| at.elapsed() >= self.timing.refetch_after) {
                *asked = Some(Instant::now());
                self.wanted.send_modify(|number| *number += 1);
            }
            *self.wanted.borrow()
        };
        // Time-out and a missing task both leave the keys as they are: the caller's second look decides.
        let _ = tokio::time::timeout(self.timing.answer_within, ended.wait_for(|last| *last >= number)).await;
    }

    async fn refresh(&self) {
        let fresh = match &self.source {
            Source::Discovery(fetcher) => fetcher.fetch().await.map_err(|error| error.to_string()),
            Source::File(path) => read_key_file_off_thread(path.clone()).await,
        };
        let before = self.state.load_full();
        match fresh {
            Ok(keys) => self.accept(keys, &before),
            Err(reason) => {
                if before.failure.as_ref() != Some(&reason) {
                    tracing::warn!(issuer = self.config.issuer, reason, "issuer keys not refreshed");
                }
                self.state.store(Arc::new(KeyState { failure: Some(reason), ..(*before).clone() }));
            }
        }
    }

    fn accept(&self, keys: KeySet, before: &KeyState) {
        let changed = keys != before.keys;
        let count = keys.len();
        self.state.store(Arc::new(KeyState { keys, confirmed: Some(Instant::now()), failure: None }));
        if changed {
            // After the store: who sees the new number finds the new keys.
            self.generation.fetch_add(1, Ordering::Release);
            tracing::info!(issuer = self.config.issuer, keys = count, "issuer keys replaced");
            if count == 0 {
                tracing::warn!(
                    issuer = self.config.issuer,
                    "issuer publishes no usable key, all its tokens are refused"
                );
            }
        } else if before.failure.is_some() {
            tracing::info!(issuer = self.config.issuer, keys = count, "issuer keys available again");
        }
    }
}

async fn read_key_file_off_thread(path: PathBuf) -> Result<KeySet, String> {
    match tokio::task::spawn_blocking(move || read_key_file(&path)).await {
        Ok(result) => result,
        Err(error) => Err(format!("key file reader stopped: {error}")),
    }
}

fn read_key_file(path: &Path) -> Result<KeySet, String> {
    let unreadable = |error: std::io::Error| format!("could not read jwks_file \"{}\": {error}", path.display());
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > KEY_FILE_BYTES_MAX {
        return Err(format!(
            "jwks_file \"{}\" has {bytes} bytes, more than the limit of {KEY_FILE_BYTES_MAX}",
            path.display()
        ));
    }
    let content = std::fs::read(path).map_err(unreadable)?;
    KeySet::parse(&content).map_err(|reason| format!("jwks_file \"{}\": {reason}", path.display()))
}
