//! Hot reload of the policy: looked at twice a second, loaded whole, tested, swapped whole, or left as it was.
//!
//! A change counts once two looks in a row found the same bytes, so that half a file still being written is never
//! the policy. Whatever is wrong with the new one (it does not load, a test fails, its tests cannot run because a
//! target is down), the last good one stays, the log says why, and readiness shows it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use exeat_policy::PolicyContext;
use exeat_proxy::config::{Analyser, Config as ProxyConfig, LoadedPolicy};
use exeat_store::record::{PolicyChange, PolicyRef, Recorder};
use tokio::sync::watch;

use crate::policy_file::{PolicyFileError, PolicyText};
use crate::policy_tests::{self, Catalogs, Summary};

const LOOK_EVERY: Duration = Duration::from_millis(400);

/// Policies whose tests could not run are tried again this often, in looks.
const RETRY_LOOKS: u32 = 8;

/// Everything a reload needs.
pub(crate) struct Reloader {
    pub(crate) path: PathBuf,
    pub(crate) context: PolicyContext,
    pub(crate) proxy: ProxyConfig,
    pub(crate) analyser: Analyser,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) current: Arc<ArcSwap<LoadedPolicy>>,
    /// What is wrong with the files as they are now; `None` when they are what is enforced.
    pub(crate) problem: Arc<ArcSwap<Option<String>>>,
}

#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Load(#[from] PolicyFileError),
    #[error("its tests fail: {0}")]
    Tests(String),
    #[error("its tests cannot run: {0}")]
    NotRun(String),
    #[error("the change could not be recorded")]
    Record(#[from] exeat_store::StoreError),
}

impl Reloader {
    /// Runs until `shutdown` turns true. What is not acted upon is remembered, so that a mistake is said once.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut seen = Looked::Policy(self.current.load().sha256.clone());
        let mut settled = seen.clone();
        let mut looks_to_retry = None;
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let text = PolicyText::read(&self.path);
            let looked = Looked::at(&text);
            let steady = looked == seen;
            seen = looked;
            looks_to_retry = match looks_to_retry {
                Some(looks) if looks > 0 => Some(looks - 1),
                other => other,
            };
            if !steady || (seen == settled && looks_to_retry != Some(0)) {
                continue;
            }
            settled = seen.clone();
            looks_to_retry = match self.consider(text).await {
                Err(ReloadError::NotRun(_)) => Some(RETRY_LOOKS),
                Ok(()) | Err(ReloadError::Load(_) | ReloadError::Tests(_) | ReloadError::Record(_)) => None,
            };
        }
    }

    async fn consider(&self, text: Result<PolicyText, PolicyFileError>) -> Result<(), ReloadError> {
        let result = match text {
            Ok(text) if text.sha256() == self.current.load().sha256 => Ok(()),
            Ok(text) => self.swap(&text).await,
            Err(error) => Err(ReloadError::Load(error)),
        };
        match &result {
            Ok(()) => self.problem.store(Arc::new(None)),
            Err(error) => {
                let text = exeat_store::chain(error);
                let path = self.path.display();
                tracing::error!(%path, "policy was not reloaded, the last good one stays:\n{}", text.trim_end());
                // The place in the console is small, and whoever reads it may not be who wrote the policy.
                self.problem.store(Arc::new(Some("the policy on disk was not loaded; see the log".to_owned())));
                self.record_refused(error);
            }
        }
        result
    }

    async fn swap(&self, text: &PolicyText) -> Result<(), ReloadError> {
        let policy = text.load(&self.context)?;
        let catalogs = Catalogs::read(&policy, &self.proxy.targets).await;
        let reports = policy_tests::run(&policy, &catalogs, &self.analyser).await;
        match policy_tests::summarise(&reports) {
            Summary::Passed => {}
            Summary::Failed(problem) => return Err(ReloadError::Tests(problem)),
            Summary::NotRun(problem) => return Err(ReloadError::NotRun(problem)),
        }
        let previous = self.current.load_full();
        let loaded = LoadedPolicy { policy, generation: previous.generation + 1, sha256: text.sha256().to_owned() };
        // On record before it is in force.
        self.recorder.policy_changed(&PolicyChange {
            policy: reference(&loaded),
            previous: Some(reference(&previous)),
            path: &self.path.display().to_string(),
            accepted: true,
            problem: None,
        })?;
        tracing::info!(generation = loaded.generation, sha256 = %loaded.sha256, "policy reloaded");
        self.current.store(Arc::new(loaded));
        Ok(())
    }

    fn record_refused(&self, error: &ReloadError) {
        let current = self.current.load_full();
        let text = error.to_string();
        let change = PolicyChange {
            policy: reference(&current),
            previous: None,
            path: &self.path.display().to_string(),
            accepted: false,
            problem: text.lines().next(),
        };
        if let Err(error) = self.recorder.policy_changed(&change) {
            tracing::error!(error = exeat_store::chain(&error), "a refused policy could not be recorded");
        }
    }
}

pub(crate) fn reference(loaded: &LoadedPolicy) -> PolicyRef<'_> {
    PolicyRef { version: loaded.generation, sha256: &loaded.sha256 }
}

/// What one look found, to compare with the next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Looked {
    /// Digest of what is there.
    Policy(String),
    /// It could not be read, for this reason.
    Unreadable(String),
}

impl Looked {
    fn at(text: &Result<PolicyText, PolicyFileError>) -> Self {
        match text {
            Ok(text) => Self::Policy(text.sha256().to_owned()),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}
