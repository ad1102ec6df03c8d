//! Resolved configuration of the data plane, and what the program hands to it. Checked before it gets here:
//! `exeat` turns the file as written into these types and reports every mistake at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use exeat_enforce::drift::Unclassified;
use exeat_enforce::mask::MaskKeys;
pub use exeat_enforce::release::TranscriptLimits;
use exeat_policy::Policy;
use exeat_sql::catalog::Trust;
use exeat_sql::{CatalogSnapshot, MessageAnalysis, ParseFailure, Scope};
use exeat_store::auditors::Auditors;
use exeat_store::record::Recorder;
use exeat_store::state::{State, Tell};
/// The least that `large_messages_bytes` may be: room for one message.
pub use exeat_wire::frame::FRONTEND_FRAME_BYTES_MAX as LARGE_MESSAGES_BYTES_MIN;
use tokio::sync::{oneshot, watch};

use crate::anchored::Anchored;
use crate::auth::Handles;
use crate::freezes::CurrentFreezes;
use crate::identity::Verifier;
pub use crate::keepalive::Keepalive;
use crate::upstream::{LoginConfig, UpstreamConfig};
use crate::workers::SessionThreads;

#[derive(Debug, Clone)]
pub struct Config {
    pub listen: Listen,
    pub targets: BTreeMap<String, Target>,
}

#[derive(Debug, Clone)]
pub struct Listen {
    pub address: SocketAddr,
    pub tls: ListenTls,
    pub auth: ListenAuth,
    /// Target of a startup packet whose database names no target.
    pub default_target: Option<String>,
    pub limits: ConnectionLimits,
    pub keepalive: Keepalive,
    /// Threads that run sessions; `None`: half the cores.
    pub threads: Option<NonZeroUsize>,
    /// How long a session between transactions may say nothing.
    pub idle_timeout: Option<Duration>,
    /// How long open transactions may go on once the gateway is told to end.
    pub drain: Duration,
}

/// How clients prove themselves that do not choose by their user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListenAuth {
    /// A token or a handle's password as the password, in clear inside TLS: what every driver can do.
    #[default]
    Password,
    OauthBearer,
}

#[derive(Debug, Clone)]
pub enum ListenTls {
    /// Loopback only; the configuration refuses it elsewhere.
    Off,
    Files {
        cert: PathBuf,
        key: PathBuf,
        /// Authorities of clients' certificates, for tokens bound to one. Never an identity by itself.
        client_ca: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Sessions, not counting whoever has not proved yet who it is.
    pub connections: usize,
    pub unauthenticated: usize,
    pub per_principal: usize,
    pub per_source: usize,
    pub failed_logins_per_minute: u32,
    /// Memory for large messages of clients, all sessions together.
    pub large_messages_bytes: usize,
    /// How long a client may take over each MiB of one.
    pub large_message_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 1000,
            unauthenticated: 1000,
            per_principal: 100,
            per_source: 500,
            failed_logins_per_minute: 20,
            large_messages_bytes: 256 * 1024 * 1024,
            large_message_timeout: Duration::from_secs(60),
        }
    }
}

/// Which databases of its server a target stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Databases {
    /// The one named in `upstream`.
    One,
    /// `database: "*"`: the client names one. `upstream` names the one that probes and policy tests log in to.
    Every,
}

#[derive(Debug, Clone)]
pub struct Target {
    pub name: String,
    /// Of a session's own copy: the database the session is in.
    pub upstream: UpstreamConfig,
    pub databases: Databases,
    /// First match wins.
    pub logins: Vec<LoginConfig>,
    /// `catalog: {bounded: …}`: how old the knowledge of the catalog may be when a statement is analysed.
    pub catalog_bound: Duration,
    /// `catalog: strict`: no answer begins before the catalog was looked at again, however short the statement ran.
    pub catalog_strict: bool,
    /// The longest a session's statements may run unless the session says otherwise while it runs.
    pub statement_timeout: Option<Duration>,
    pub allow_newer_server: bool,
    pub allow_privileged_login: bool,
    /// How many held statements may wait for a human on their connections.
    pub held_max: usize,
    /// What becomes of relations that nobody has accepted yet.
    pub unclassified: Unclassified,
    /// What of its databases' own code the operator vouches for.
    pub trust: Trust,
    /// NOTIFY channels whose notifications pass to every session.
    pub channels: Vec<String>,
}

impl Target {
    /// Does the operator vouch for anything?
    pub(crate) fn trusts(&self) -> bool {
        self.trust != Trust::default()
    }
}

/// A policy that loaded whole, with the version every record names.
#[derive(Debug)]
pub struct LoadedPolicy {
    pub policy: Policy,
    /// Counts up with every successful load of this process.
    pub generation: u64,
    /// Of the files' bytes in path order, hex.
    pub sha256: String,
}

/// One statement text to parse and analyse on a thread with a big stack.
#[derive(Debug)]
pub struct AnalyseRequest {
    pub sql: String,
    pub snapshot: Arc<CatalogSnapshot>,
    pub scope: Arc<Scope>,
}

pub type AnalyseResult = Result<Arc<MessageAnalysis>, ParseFailure>;

/// The parser pool as a function value. A closed channel means that the pool could not answer (it is full, or its
/// thread died): the statement is then refused as not enforceable.
pub type Analyser = Arc<dyn Fn(AnalyseRequest) -> oneshot::Receiver<AnalyseResult> + Send + Sync>;

/// Everything the data plane needs besides its configuration.
#[derive(Clone)]
pub struct Dependencies {
    pub policy: Arc<ArcSwap<LoadedPolicy>>,
    pub recorder: Arc<Recorder>,
    pub state: State,
    pub analyser: Analyser,
    pub verifier: Arc<Verifier>,
    pub threads: SessionThreads,
    pub handles: Arc<Handles>,
    /// What digests and tokens are made with.
    pub mask_keys: Arc<MaskKeys>,
    /// Whom the server's own words are kept for, where the client gets others.
    pub auditors: Option<Arc<Auditors>>,
    /// How much of each statement's answer the record keeps.
    pub results: TranscriptLimits,
    /// Who is told of statements that wait for humans.
    pub tell: Tell,
    /// Kept current by whoever runs the gateway.
    pub freezes: CurrentFreezes,
    /// Kept current by whoever archives the record.
    pub anchored: Arc<Anchored>,
    /// Becomes true once: stop accepting, let running transactions finish (bounded), close.
    pub shutdown: watch::Receiver<bool>,
}

impl std::fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependencies").finish_non_exhaustive()
    }
}
