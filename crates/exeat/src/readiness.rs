//! What `/readyz` answers from: the parts of the gateway, looked at in the background so that a probe never waits.
//!
//! A target that is down does not make the gateway unready while another answers: taking the gateway out of
//! service would take the others away too. When none answers there is nothing to be ready for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use exeat_console::{Check, CheckState, Readiness};
use exeat_proxy::identity::Verifier;
use exeat_proxy::server::{DatabaseDrift, Server, TargetStatus};
use exeat_store::record::Recorder;
use exeat_store::state::State;
use tokio::sync::watch;

use crate::archive::Archive;
use crate::export::Exports;

/// A target that is down is looked for often, one that is up seldom: each look is a login.
const LOOK_EVERY_DOWN: Duration = Duration::from_millis(500);
const LOOK_EVERY_UP: Duration = Duration::from_secs(10);

/// The record is asked more often than targets: it is a lock and, after a failure, one write.
const RECORD_LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Health {
    verifier: Arc<Verifier>,
    policy_problem: Arc<ArcSwap<Option<String>>>,
    record_problem: ArcSwap<Option<String>>,
    state_problem: ArcSwap<Option<String>>,
    /// What sessions saw last.
    drift: ArcSwap<Vec<DatabaseDrift>>,
    /// `None` before the first look.
    targets: ArcSwap<Option<Vec<TargetStatus>>>,
    archive: Option<Arc<Archive>>,
    exports: Arc<Exports>,
    stopping: AtomicBool,
}

impl Health {
    pub(crate) fn new(
        verifier: Arc<Verifier>,
        policy_problem: Arc<ArcSwap<Option<String>>>,
        (archive, exports): (Option<Arc<Archive>>, Arc<Exports>),
    ) -> Self {
        Self {
            verifier,
            policy_problem,
            record_problem: ArcSwap::default(),
            state_problem: ArcSwap::default(),
            drift: ArcSwap::default(),
            targets: ArcSwap::default(),
            archive,
            exports,
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on not ready: whoever balances load should look elsewhere.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let listener = match self.stopping.load(Ordering::Relaxed) {
            true => Check::failed("listener", "shutting down"),
            false => Check::ok("listener"),
        };
        let mut checks = vec![listener, self.identity(), self.policy(), self.record(), self.state()];
        checks.extend(self.archive.iter().map(|archive| archive.check()));
        checks.extend(self.exports.checks());
        checks.extend(targets(self.targets.load().as_ref().as_deref()));
        checks.extend(drift(&self.drift.load()));
        Readiness { checks }
    }

    /// One issuer whose keys are known is enough to let somebody in.
    fn identity(&self) -> Check {
        let issuers = self.verifier.status();
        let missing: Vec<String> = issuers
            .iter()
            .filter(|issuer| !issuer.ready)
            .map(|issuer| match &issuer.failure {
                Some(failure) => format!("issuer \"{}\": {failure}", issuer.issuer),
                None => format!("issuer \"{}\" has no keys yet", issuer.issuer),
            })
            .collect();
        if missing.is_empty() && !issuers.is_empty() {
            return Check::ok("identity");
        }
        let detail = missing.join("; ");
        if missing.len() < issuers.len() {
            Check::degraded("identity", detail)
        } else {
            Check::failed("identity", detail)
        }
    }

    /// A gateway that runs has a policy; the files may hold one that it did not take.
    fn policy(&self) -> Check {
        match self.policy_problem.load().as_ref() {
            None => Check::ok("policy"),
            Some(problem) => Check::degraded("policy", problem.clone()),
        }
    }

    fn record(&self) -> Check {
        match self.record_problem.load().as_ref() {
            None => Check::ok("record"),
            Some(problem) => Check::failed("record", problem.clone()),
        }
    }

    fn state(&self) -> Check {
        match self.state_problem.load().as_ref() {
            None => Check::ok("state"),
            Some(problem) => Check::failed("state", problem.clone()),
        }
    }

    /// Looks until `shutdown` turns true.
    pub(crate) async fn follow(
        self: Arc<Self>,
        server: Arc<Server>,
        recorder: Arc<Recorder>,
        state: State,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut until_targets = Duration::ZERO;
        loop {
            self.look_at_record(&recorder);
            self.look_at_state(&state).await;
            self.drift.store(Arc::new(server.drift()));
            if until_targets.is_zero() {
                let found = server.probe_targets().await;
                let down = found.iter().any(|target| target.state.is_err());
                until_targets = if down { LOOK_EVERY_DOWN } else { LOOK_EVERY_UP };
                self.targets.store(Arc::new(Some(found)));
            }
            let pause = until_targets.min(RECORD_LOOK_EVERY);
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => until_targets = until_targets.saturating_sub(pause),
            }
        }
    }

    async fn look_at_state(&self, state: &State) {
        let problem = state.health().await.err();
        if let Some(error) = &problem {
            tracing::error!(error = exeat_store::chain(error), "the state store cannot be written");
        }
        let mut words = problem.map(|_| "the state store cannot be written; see the log".to_owned());
        if words.is_none() && !state.is_current() {
            let unheard = "the state store does not answer: freezes and revocations may hold that are not known here";
            words = Some(unheard.to_owned());
        }
        self.state_problem.store(Arc::new(words));
    }

    fn look_at_record(&self, recorder: &Recorder) {
        let problem = recorder.health().err();
        if let Some(error) = &problem {
            tracing::error!(error = exeat_store::chain(error), "the record cannot be written: statements are refused");
        }
        self.record_problem.store(Arc::new(problem.map(|_| "the record cannot be written; see the log".to_owned())));
    }
}

/// As many as fit a probe's answer; `exeat discover` shows them all.
const FINDINGS_SHOWN: usize = 3;

/// A database that has drifted is served all the same: what nobody has accepted is sealed.
fn drift(databases: &[DatabaseDrift]) -> Vec<Check> {
    databases
        .iter()
        .map(|seen| {
            let name = format!("drift {}/{}", seen.target, seen.database);
            let count = seen.drift.findings().count();
            if count == 0 {
                return Check::ok(name);
            }
            let shown: Vec<String> = seen.drift.findings().take(FINDINGS_SHOWN).map(ToString::to_string).collect();
            let more =
                if count > FINDINGS_SHOWN { format!("; {} more", count - FINDINGS_SHOWN) } else { String::new() };
            Check::degraded(name, format!("{}{more}", shown.join("; ")))
        })
        .collect()
}

fn targets(found: Option<&[TargetStatus]>) -> Vec<Check> {
    let Some(found) = found else { return vec![Check::failed("targets", "not looked at yet")] };
    let state = match found.iter().any(|target| target.state.is_ok()) {
        true => CheckState::Degraded,
        false => CheckState::Failed,
    };
    found
        .iter()
        .map(|target| {
            let name = format!("target {}", target.name);
            match &target.state {
                Ok(()) => Check::ok(name),
                Err(problem) => Check { name, state, detail: Some(problem.clone()) },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, state: Result<(), &str>) -> TargetStatus {
        TargetStatus { name: name.to_owned(), state: state.map_err(str::to_owned) }
    }

    #[test]
    fn one_target_that_answers_keeps_the_gateway_ready_and_shows_the_other() {
        let found = [status("crm", Err("cannot be reached")), status("shop", Ok(()))];
        let readiness = Readiness { checks: targets(Some(&found)) };
        assert!(readiness.is_ready());
        assert_eq!(readiness.checks[0], Check::degraded("target crm", "cannot be reached"));
    }

    #[test]
    fn no_target_that_answers_is_not_ready() {
        let found = [status("shop", Err("cannot be reached"))];
        assert!(!Readiness { checks: targets(Some(&found)) }.is_ready());
        assert!(!Readiness { checks: targets(None) }.is_ready());
    }
}
