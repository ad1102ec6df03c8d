//! The wiring: from a resolved configuration to a running gateway and back to nothing.
//!
//! Order matters at both ends. At start everything that can fail without a client noticing comes before the
//! listener; at the end the listener closes first, sessions drain, and the record is the last thing to go.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use exeat_console::{ConsoleError, Desks, StatusFn};
use exeat_enforce::drift::Unclassified;
use exeat_enforce::mask::MaskKeys;
use exeat_proxy::anchored::Anchored;
use exeat_proxy::auth::{Handles, IssueError};
use exeat_proxy::config::{Analyser, Dependencies, ListenTls, LoadedPolicy};
use exeat_proxy::freezes::CurrentFreezes;
use exeat_proxy::identity::{IssuerConfigError, Verifier};
use exeat_proxy::server::{ServeError, Server};
use exeat_proxy::spares::Spares;
use exeat_proxy::upstream::TlsMode;
use exeat_store::StoreError;
use exeat_store::keys::KeySet;
use exeat_store::record::{ConfigChange, PolicyChange, Recorder, RecorderConfig, Retention};
use exeat_store::state::{State, StateConfig, StateError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::admin::{Admin, SharedAdmin};
use crate::approvals::{Approvals, SharedApprovals};
use crate::archive::Archive;
use crate::config::Config;
use crate::export::Exports;
use crate::forgetting::Forgetting;
use crate::freezes::{self, Freezes, SharedFreezes};
use crate::handles::{Desk, SharedDesk};
use crate::keeping::{Keeping, SharedKeeping};
use crate::notify::{self, Destination};
use crate::policy_file::{PolicyFileError, PolicyText};
use crate::policy_tests::{self, Catalogs, Summary};
use crate::pool::{self, PoolError};
use crate::readiness::Health;
use crate::reload::{Reloader, reference};
use crate::roles::Roles;
use crate::sweeps;

/// Background work has nothing to finish when the gateway ends.
const TASKS_END_WITHIN: Duration = Duration::from_secs(1);

/// What has the record on a thread of its own, a round of retention, ends soon after it is told to.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
const CLOSED_LOOK_EVERY: Duration = Duration::from_millis(10);

/// A sign of life in the record.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    #[error("the policy's tests fail: {0}")]
    PolicyTests(String),
    #[error("identity is not configured rightly: {}", list(.0))]
    Identity(Vec<IssuerConfigError>),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("could not listen on {address} (listen.console): {source}; choose another address or stop what holds it")]
    Console { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Handles(#[from] IssueError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

fn list(errors: &[IssuerConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) console: Option<SocketAddr>,
    pub(crate) health: Arc<Health>,
    server: Arc<Server>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Outlives the sessions: probes must be able to see that the gateway drains.
    console_task: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    archive: Option<Arc<Archive>>,
    /// Closed, and all of it signed, when nobody holds it any more.
    record: Weak<Recorder>,
}

impl Gateway {
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        warn_of_what_is_off(&config);
        let analyser = pool::start()?;
        let loaded = load_policy(&config, &analyser).await?;
        Self::start_with(config, analyser, loaded).await
    }

    /// With a policy that is loaded.
    pub(crate) async fn start_with(
        config: Config,
        analyser: Analyser,
        loaded: LoadedPolicy,
    ) -> Result<Self, StartError> {
        let keys = Arc::new(KeySet::open(&config.keys, &config.data_dir)?);
        let mask_keys = Arc::new(MaskKeys::new(keys.mask_root()));
        let recorder = open_record(&config, &keys)?;
        // Behind the record: that has taken the folder for this process and checked the keys.
        let state_config =
            StateConfig { data_dir: &config.data_dir, source: &config.store, durability: config.audit.durability };
        let state = State::open(&state_config, &keys).await?;
        record_start(&recorder, &loaded, &config)?;
        let verifier = Arc::new(Verifier::new(config.identity.clone()).map_err(StartError::Identity)?);
        let console = bind_console(config.console).await?;

        let handles = Arc::new(Handles::new()?);
        let freezes = freezes::first_look(&state).await?;
        let anchored = Arc::new(Anchored::new(config.audit.require_archive));
        let readers = Readers::new(&config, &anchored);
        let archive = readers.archive.clone();
        let (stop, shutdown) = watch::channel(false);
        let policy = Arc::new(ArcSwap::from_pointee(loaded));
        let dependencies = Dependencies {
            policy: Arc::clone(&policy),
            recorder: Arc::clone(&recorder),
            state: state.clone(),
            analyser: Arc::clone(&analyser),
            verifier: Arc::clone(&verifier),
            threads: pool::session_threads(config.proxy.listen.threads),
            handles: Arc::clone(&handles),
            mask_keys,
            results: config.audit.results,
            auditors: config.audit.auditors.clone().map(Arc::new),
            tell: notify::tell(&config.notify),
            freezes: Arc::clone(&freezes),
            anchored,
            shutdown: shutdown.clone(),
        };
        let server = Arc::new(exeat_proxy::server::serve(config.proxy.clone(), dependencies).await?);
        let desk = Arc::new(Desk {
            verifier: Arc::clone(&verifier),
            handles,
            recorder: Arc::clone(&recorder),
            guesses: server.guesses(),
            freezes: Arc::clone(&freezes),
            targets: config.proxy.targets.keys().cloned().collect(),
            default_target: config.proxy.listen.default_target.clone(),
            is_private: console.as_ref().is_some_and(|(_, address)| address.ip().is_loopback()),
        });
        let desks = desks(desk, &config, (state.clone(), server.spares()), Arc::clone(&policy));
        let reloader = Reloader {
            path: config.policy.clone(),
            context: config.policy_context(),
            proxy: config.proxy,
            analyser,
            recorder: Arc::clone(&recorder),
            current: policy,
            problem: Arc::default(),
        };
        let health = Arc::new(Health::new(Arc::clone(&verifier), Arc::clone(&reloader.problem), readers.seen()));

        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&verifier).run(shutdown.clone()));
        tasks.spawn(reloader.run(shutdown.clone()));
        let record = Arc::downgrade(&recorder);
        readers.start(&mut tasks, &recorder, &shutdown);
        keep_state(&mut tasks, (&state, freezes, &recorder), (config.notify, config.name), &shutdown);
        tasks.spawn(Arc::clone(&health).follow(Arc::clone(&server), recorder, state, shutdown.clone()));
        let (console, console_task) = console
            .map(|(listener, address)| {
                let (stop, stopped) = watch::channel(false);
                (address, (stop, tokio::spawn(serve_console(listener, Arc::clone(&health), desks, stopped))))
            })
            .unzip();
        Ok(Self { address: server.address, console, health, server, stop, tasks, console_task, archive, record })
    }

    /// Stops accepting, lets sessions drain within the data plane's deadline, ends every task.
    pub(crate) async fn stop(mut self) {
        self.health.stopping();
        self.stop.send_replace(true);
        // They end by themselves unless they wait for something, a server that does not answer, say.
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(TASKS_END_WITHIN, ended).await;
        self.tasks.shutdown().await;
        // Every task that shared the server has ended.
        if let Some(server) = Arc::into_inner(self.server) {
            server.join().await;
        }
        if let Some((stop, mut console)) = self.console_task {
            stop.send_replace(true);
            if timeout(TASKS_END_WITHIN, &mut console).await.is_err() {
                console.abort();
            }
        }
        // Nobody may come back to this machine to ship the record's end.
        if let Some(archive) = self.archive {
            let closed = async {
                while self.record.strong_count() > 0 {
                    tokio::time::sleep(CLOSED_LOOK_EVERY).await;
                }
            };
            let _ = timeout(CLOSED_WITHIN, closed).await;
            archive.ship_the_rest().await;
        }
    }
}

/// Who reads the record's files while it is written, beside the road of statements.
struct Readers {
    archive: Option<Arc<Archive>>,
    exports: Arc<Exports>,
    /// What all of them have may be forgotten.
    retention: Option<Retention>,
}

impl Readers {
    fn new(config: &Config, anchored: &Arc<Anchored>) -> Self {
        let data_dir = || config.data_dir.clone();
        let archive = config.audit.archive.clone();
        let archive = archive.map(|place| Arc::new(Archive::new(place, data_dir(), Arc::clone(anchored))));
        let exports = Exports::new(config.audit.export.clone(), config.name.clone(), data_dir());
        Self { archive, exports: Arc::new(exports), retention: config.audit.retention }
    }

    fn seen(&self) -> (Option<Arc<Archive>>, Arc<Exports>) {
        (self.archive.clone(), Arc::clone(&self.exports))
    }

    fn start(self, tasks: &mut JoinSet<()>, recorder: &Arc<Recorder>, shutdown: &watch::Receiver<bool>) {
        if let Some(retention) = self.retention {
            let (archive, exports) = (self.archive.clone(), Arc::clone(&self.exports));
            let forgetting = Forgetting { retention, recorder: Arc::clone(recorder), archive, exports };
            tasks.spawn(forgetting.run(shutdown.clone()));
        }
        if let Some(archive) = self.archive {
            tasks.spawn(archive.run(shutdown.clone()));
        }
        for number in 0..self.exports.count() {
            tasks.spawn(Arc::clone(&self.exports).run(number, shutdown.clone()));
        }
    }
}

/// Loads the policy and runs its tests where the target can be reached. A target that is down is no reason not to
/// start: nothing flows there either, and the log says which tests are owed.
async fn load_policy(config: &Config, analyser: &Analyser) -> Result<LoadedPolicy, StartError> {
    let text = PolicyText::read(&config.policy)?;
    let policy = text.load(&config.policy_context())?;
    for warning in policy.warnings().iter() {
        tracing::warn!("policy:\n{warning}");
    }
    let catalogs = Catalogs::read(&policy, &config.proxy.targets).await;
    let reports = policy_tests::run(&policy, &catalogs, analyser).await;
    match policy_tests::summarise(&reports) {
        Summary::Passed => {}
        Summary::Failed(problem) => return Err(StartError::PolicyTests(problem)),
        Summary::NotRun(problem) => tracing::warn!("the policy's tests were not run: {problem}"),
    }
    Ok(LoadedPolicy { policy, generation: 1, sha256: text.sha256().to_owned() })
}

fn open_record(config: &Config, keys: &Arc<KeySet>) -> Result<Arc<Recorder>, StoreError> {
    let recorder_config = RecorderConfig {
        data_dir: config.data_dir.clone(),
        gateway: config.name.clone(),
        durability: config.audit.durability,
    };
    let recorder = Recorder::open(&recorder_config, Arc::clone(keys))?;
    for log in recorder.kept_aside() {
        tracing::error!(
            log,
            "the log did not hold what was signed; it was kept aside and a new one begun: `exeat audit verify` says more"
        );
    }
    Ok(Arc::new(recorder))
}

fn record_start(recorder: &Recorder, loaded: &LoadedPolicy, config: &Config) -> Result<(), StoreError> {
    recorder.config_changed(&ConfigChange {
        path: &config.file.display().to_string(),
        sha256: &config.sha256,
        what: "started",
    })?;
    recorder.policy_changed(&PolicyChange {
        policy: reference(loaded),
        previous: None,
        path: &config.policy.display().to_string(),
        accepted: true,
        problem: None,
    })
}

/// What the configuration allows and an operator should not forget.
fn warn_of_what_is_off(config: &Config) {
    if matches!(config.proxy.listen.tls, ListenTls::Off) {
        tracing::warn!(address = %config.proxy.listen.address, "the listener speaks without TLS, on loopback only");
    }
    for target in config.proxy.targets.values() {
        if target.upstream.mode() == TlsMode::Off {
            tracing::warn!(name = target.name, "the target is reached without TLS, on loopback only");
        }
        match target.unclassified {
            Unclassified::Seal => {}
            Unclassified::Detect => tracing::warn!(
                name = target.name,
                "relations of the target that are not accepted are not sealed, only looked at by detectors"
            ),
            Unclassified::Allow => {
                tracing::warn!(name = target.name, "relations of the target that are not accepted are not sealed");
            }
        }
        if target.allow_privileged_login {
            tracing::warn!(name = target.name, "the target accepts privileged logins");
        }
        if target.allow_newer_server {
            tracing::warn!(name = target.name, "the target accepts a server newer than the grammar");
        }
    }
}

/// What goes on beside sessions and the console: freezes are followed, time moves requests, messages are sent, and the
/// record shows signs of life.
fn keep_state(
    tasks: &mut JoinSet<()>,
    (state, freezes, recorder): (&State, CurrentFreezes, &Arc<Recorder>),
    (destinations, name): (Vec<Destination>, String),
    shutdown: &watch::Receiver<bool>,
) {
    if state.is_plain() {
        tracing::warn!("the state store is reached without TLS, on loopback only");
    }
    tasks.spawn(freezes::follow(state.clone(), freezes, shutdown.clone()));
    tasks.spawn(sweeps::run(state.clone(), Arc::clone(recorder), shutdown.clone()));
    tasks.spawn(notify::run(destinations, name, state.clone(), shutdown.clone()));
    tasks.spawn(heartbeat(Arc::clone(recorder), shutdown.clone()));
}

/// Who answers at the console what needs a token.
fn desks(
    desk: Arc<Desk>,
    config: &Config,
    (state, spares): (State, Arc<Spares>),
    policy: Arc<ArcSwap<LoadedPolicy>>,
) -> Desks {
    let issuer = config.identity.first().map(|issuer| issuer.issuer.clone());
    let roles = Roles { groups: config.roles.clone(), issuer };
    let admin = SharedAdmin(Arc::new(Admin {
        desk: Arc::clone(&desk),
        state: state.clone(),
        spares,
        policy: Arc::clone(&policy),
        targets: config.proxy.targets.clone(),
        roles: roles.clone(),
    }));
    let freezes = SharedFreezes(Arc::new(Freezes {
        desk: Arc::clone(&desk),
        state: state.clone(),
        roles: roles.clone(),
        current: Arc::clone(&desk.freezes),
        issuers: config.identity.iter().map(|issuer| issuer.issuer.clone()).collect(),
    }));
    let keeping = SharedKeeping(Arc::new(Keeping { desk: Arc::clone(&desk), roles: roles.clone() }));
    let approvals = SharedApprovals(Arc::new(Approvals { desk: Arc::clone(&desk), state, policy, roles }));
    Desks {
        handles: Some(Arc::new(SharedDesk(desk))),
        admin: Some(Arc::new(admin)),
        approvals: Some(Arc::new(approvals)),
        freezes: Some(Arc::new(freezes)),
        record: Some(Arc::new(keeping)),
    }
}

async fn bind_console(address: Option<SocketAddr>) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let error = |source| StartError::Console { address, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok(Some((listener, bound)))
}

async fn serve_console(listener: TcpListener, health: Arc<Health>, desks: Desks, mut shutdown: watch::Receiver<bool>) {
    let status: StatusFn = Arc::new(move || health.readiness());
    let stopped = async move {
        // A dropped sender means the same as a true value.
        let _stopped = shutdown.wait_for(|stop| *stop).await.is_ok();
    };
    if let Err(ConsoleError::Serve(error)) = exeat_console::serve(listener, status, desks, stopped).await {
        tracing::error!(error = exeat_store::chain(&error), "the console listener ended");
    }
}

async fn heartbeat(recorder: Arc<Recorder>, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(HEARTBEAT_EVERY) => {}
        }
        if let Err(error) = recorder.heartbeat() {
            tracing::error!(error = exeat_store::chain(&error), "heartbeat could not be recorded");
        }
    }
}
