//! Step 1: from a proof of identity to a session. Verifies what is not verified yet, finds target, rules and database
//! login, connects upstream as that login, reads the session's own state, writes session.start, and only then says
//! AuthenticationOk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use exeat_enforce::refusal::{Object, Refusal, RefusalCode};
use exeat_store::StoreError;
use exeat_store::record::{AuthFailure, SessionRecord, SessionStart, TokenRef};
use exeat_store::secret::SecretString;
use exeat_wire::{Fields, Startup, TransactionStatus, encode};

use super::authenticate::{Claim, Presented, Trace};
use super::cancel::{CancelKey, CancelKeys};
use super::destination::{self, NotFound, ServerWords, words_for_client};
use super::finish;
use super::io::Inbound;
use super::outcome::policy_ref;
use super::pass_through::PassThrough;
use super::picture::{Picture, Renewed};
use super::seat::{Seat, Tenure};
use super::session::{Session, SessionEnd};
use super::startup::Applicant;
use super::stream::ClientStream;
use super::upstream_settings::{SettingsError, limit_statements, upstream_settings};
use crate::auth::{AuthError, handle_of_password};
use crate::config::{LoadedPolicy, Target};
use crate::freezes::Standstill;
use crate::identity::Verified;
use crate::limits::{Full, LobbyPlace, SessionGuard};
use crate::server::Shared;
use crate::upstream::{self, Connected, LoginConfig, UpstreamError, choose_login};

/// Newest and oldest major version whose catalog and grammar the analysis knows.
const SERVER_MAJOR_MAX: u32 = 18;
const SERVER_MAJOR_MIN: u32 = 14;

/// The session's first question concerns nothing that could be locked; who stalls here has no session to wait in.
const STATE_DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error("{0} is frozen")]
    Frozen(Standstill),
    #[error("no rule speaks of this principal at target {0:?}")]
    NoRule(String),
    #[error("no login of target {0:?} is for this principal")]
    NoLogin(String),
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Setting(#[from] SettingsError),
    #[error("target {target:?}: {words}")]
    ServerRefused { target: String, words: ServerWords },
    #[error("could not reach target {target:?}: {source}")]
    Upstream { target: String, source: UpstreamError },
    #[error(
        "server of target {target:?} has version {version}; sealed sessions need {SERVER_MAJOR_MIN} to {SERVER_MAJOR_MAX}"
    )]
    ServerVersion { target: String, version: u32 },
    #[error("login {user:?} of target {target:?} is a superuser; set allow_privileged_login to accept that")]
    PrivilegedLogin { target: String, user: String },
    #[error("could not read the session's state at target {target:?}: {problem}")]
    State { target: String, problem: String },
    #[error("could not record the session")]
    Record(#[from] StoreError),
    #[error("the gateway is shutting down")]
    ShuttingDown,
    #[error("no randomness for a cancel key")]
    Randomness,
}

impl LoginError {
    /// What the client is told. Inner detail of target and gateway stays in the log.
    pub(crate) fn fields(&self) -> Fields {
        match self {
            Self::Auth(problem) => {
                Fields::new("FATAL", problem.sqlstate(), &problem.to_string()).with(b'H', problem.hint())
            }
            Self::NotFound(problem) => not_found(problem),
            Self::Frozen(standstill) => finish::frozen(*standstill),
            Self::NoRule(target) => {
                Refusal::new(RefusalCode::NoRule, format!("no rule lets you use target \"{target}\""))
                    .object(Object::at(target, None))
                    .suggestion("ask the policy's owner for a rule that names one of your groups")
                    .to_fatal_fields("login")
            }
            Self::NoLogin(target) => {
                Fields::new("FATAL", "42501", &format!("no database login of target \"{target}\" is for you"))
                    .with(b'H', "ask the operator for a login that names one of your groups")
            }
            Self::Full(full) => Fields::new("FATAL", "53300", &full.to_string()).with(
                b'H',
                match full {
                    Full::Gateway(_) => "try again when others have ended; the operator may raise limits.connections",
                    Full::Source(_) => "close one of them first; the operator may raise limits.per_source",
                    Full::Principal(_) => "close one of them first; the operator may raise limits.per_principal",
                },
            ),
            Self::Setting(problem) => problem.fields(),
            Self::ShuttingDown => Fields::new("FATAL", "57P03", &self.to_string()).with(b'H', "try again in a moment"),
            Self::ServerRefused { words, .. } => Fields::new("FATAL", &words.sqlstate, &words.message),
            Self::Upstream { target, .. } => {
                Fields::new("FATAL", "58030", &format!("target \"{target}\" cannot be reached"))
                    .with(b'H', "try again later; the operator finds the cause in the gateway's log")
            }
            Self::ServerVersion { target, .. } | Self::PrivilegedLogin { target, .. } | Self::State { target, .. } => {
                Fields::new("FATAL", "58030", &format!("policy cannot be enforced at target \"{target}\""))
                    .with(b'H', "the operator finds the cause in the gateway's log")
            }
            Self::Record(_) | Self::Randomness => {
                Fields::new("FATAL", "58030", "the gateway cannot record this session")
                    .with(b'H', "try again later; the operator finds the cause in the gateway's log and in /readyz")
            }
        }
    }

    /// Something the operator must look at, as opposed to a client that may not.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::Auth(_)
            | Self::NotFound(_)
            | Self::Frozen(_)
            | Self::NoRule(_)
            | Self::NoLogin(_)
            | Self::Full(_)
            | Self::ServerRefused { .. }
            | Self::ShuttingDown
            | Self::Setting(_) => false,
            Self::Upstream { .. }
            | Self::ServerVersion { .. }
            | Self::PrivilegedLogin { .. }
            | Self::State { .. }
            | Self::Record(_)
            | Self::Randomness => true,
        }
    }

    fn reason_code(&self) -> &'static str {
        match self {
            Self::Auth(problem) => problem.reason_code(),
            Self::NotFound(NotFound::Target(_)) => "unknown_target",
            Self::NotFound(NotFound::WhichDatabase(_) | NotFound::Database { .. }) => "unknown_database",
            Self::Frozen(Standstill::Subject) => "frozen_subject",
            Self::Frozen(Standstill::Target) => "frozen_target",
            Self::NoRule(_) => "no_rule",
            Self::NoLogin(_) => "no_login",
            Self::Full(_) => "too_many_sessions",
            Self::Setting(_) => "setting_refused",
            Self::ShuttingDown => "shutting_down",
            Self::ServerRefused { .. } => "server_refused",
            Self::Upstream { .. } => "target_unreachable",
            Self::ServerVersion { .. } => "server_version",
            Self::PrivilegedLogin { .. } => "privileged_login",
            Self::State { .. } => "state_unreadable",
            Self::Record(_) => "not_recorded",
            Self::Randomness => "no_randomness",
        }
    }
}

fn not_found(problem: &NotFound) -> Fields {
    let hint = match problem {
        NotFound::Target(_) => "give the name of a target as dbname; the operator knows which there are".to_owned(),
        NotFound::WhichDatabase(target) => format!("name it after the target: dbname={target}/DATABASE"),
        NotFound::Database { target, .. } => format!("this target is one database: dbname={target}"),
    };
    Fields::new("FATAL", "3D000", &problem.to_string()).with(b'H', &hint)
}

/// Everything known before the server is asked.
struct Granted {
    identity: Verified,
    target: Arc<Target>,
    login: Arc<LoginConfig>,
    policy: Arc<LoadedPolicy>,
    counted: SessionGuard,
}

/// A session ready to run.
pub(crate) enum Road {
    Ordinary(Box<Session>),
    /// Nothing restricts its principal at the target.
    PassThrough(Box<PassThrough>),
}

impl Road {
    pub(crate) async fn run(self) {
        match self {
            Self::Ordinary(session) => Box::pin(session.run()).await,
            Self::PassThrough(session) => Box::pin(session.run()).await,
        }
    }
}

/// A session ready to run, or the client with the reason why not.
pub(crate) async fn admit(shared: &Arc<Shared>, applicant: Applicant, place: LobbyPlace) -> Result<Road, Failed> {
    let Applicant { client, startup, presented: Presented { trace, claim }, source } = applicant;
    let wanted = wanted_target(&startup).to_owned();
    let granted = match identify(shared, claim, &client, &wanted, source).await {
        Ok(granted) => granted,
        Err(problem) => {
            record_failure(shared, source, &wanted, &trace, &problem);
            return Err(Box::new((client, problem)));
        }
    };
    // Counted as a session from here on, and no longer as somebody who may be anybody.
    drop(place);
    match open(shared, client, startup, granted, source).await {
        Ok(session) => Ok(session),
        Err(failed) => {
            record_failure(shared, source, &wanted, &trace, &failed.1);
            Err(failed)
        }
    }
}

fn wanted_target(startup: &Startup) -> &str {
    // As at the server: an empty name means what no name means.
    let named = startup.parameter("database").filter(|name| !name.is_empty());
    named.or_else(|| startup.parameter("user")).unwrap_or_default()
}

async fn identify(
    shared: &Arc<Shared>,
    claim: Claim,
    client: &Inbound<ClientStream>,
    wanted: &str,
    source: SocketAddr,
) -> Result<Granted, LoginError> {
    let identity = match claim {
        Claim::Password(password) => by_password(shared, &password, client, source).await?,
        Claim::Proven(identity) => *identity,
        Claim::Failed(problem) => return Err(problem.into()),
    };
    let target = destination::find(&shared.targets, shared.config.listen.default_target.as_deref(), wanted)?;
    if let Some(lease) = identity.lease() {
        lease.allows(&target.name, source.ip()).map_err(AuthError::from)?;
    }
    // Behind the token and the target's existence, before anything is told of policy.
    if let Some(standstill) = shared.dependencies.freezes.load().between(&identity.principal, &target.name) {
        return Err(LoginError::Frozen(standstill));
    }
    let policy = shared.dependencies.policy.load_full();
    if !policy.policy.knows(&identity.principal, &target.name) {
        return Err(LoginError::NoRule(target.name.clone()));
    }
    let login =
        choose_login(&target.logins, &identity.principal).ok_or_else(|| LoginError::NoLogin(target.name.clone()))?;
    let login = Arc::new(login.clone());
    let counted = shared.sessions.enter(&identity.principal, source.ip().into())?;
    Ok(Granted { identity, target, login, policy, counted })
}

/// A password in clear holds a token or a handle's password; their first letters tell them apart.
async fn by_password(
    shared: &Shared,
    password: &SecretString,
    client: &Inbound<ClientStream>,
    source: SocketAddr,
) -> Result<Verified, AuthError> {
    if shared.failures.too_many(source.ip()) {
        return Err(AuthError::TooManyFailures);
    }
    let identity = match handle_of_password(password.expose()) {
        Some(_) => shared.dependencies.handles.by_password(password.expose()).ok_or(AuthError::Handle)?,
        None => shared.dependencies.verifier.verify_with(password.expose(), client.stream.certificate()).await?,
    };
    Ok(identity)
}

fn record_failure(shared: &Shared, source: SocketAddr, target: &str, trace: &Trace, problem: &LoginError) {
    if let LoginError::Auth(problem) = problem {
        if problem.is_a_guess() {
            shared.failures.note(source.ip());
        }
        if *problem == AuthError::Discovery {
            // Nobody tried to get in: the client asked where to go for a token.
            tracing::debug!(%source, "client asked for the issuer of tokens");
            return;
        }
    }
    let (token, handle) = (trace.token_sha256_8.as_deref(), trace.handle.as_deref());
    tracing::info!(%source, target_name = ?target, token, handle, problem = exeat_store::chain(problem), "login failed");
    let failure = AuthFailure {
        source: &source.to_string(),
        target: Some(target),
        reason: problem.reason_code(),
        issuer: None,
        subject: None,
        token: token.map(|sha256_8| TokenRef { id: None, sha256_8 }),
        handle,
        tls: None,
    };
    if let Err(problem) = shared.dependencies.recorder.auth_failed(&failure) {
        tracing::error!(problem = exeat_store::chain(&problem), "could not record a failed login");
    }
}

/// For the digits, in their order. Few consonants: hardly a word comes of them.
const ID_LETTERS: [char; 10] = ['a', 'b', 'c', 'd', 'e', 'f', 'i', 'l', 'o', 'u'];

pub(crate) type Failed = Box<(Inbound<ClientStream>, LoginError)>;

/// A session's id, which every refusal shows: in letters, for a run of digits in it looks like a card, a phone number or
/// a piece of a sealed value to whoever scans answers for those. As long for every id and in the ids' order, which is
/// that of time.
fn letters(id: uuid::Uuid) -> String {
    let decimal = format!("{:039}", id.as_u128());
    decimal.chars().filter_map(|digit| digit.to_digit(10)).filter_map(|digit| ID_LETTERS.get(digit as usize)).collect()
}

async fn open(
    shared: &Arc<Shared>,
    client: Inbound<ClientStream>,
    startup: Startup,
    granted: Granted,
    source: SocketAddr,
) -> Result<Road, Failed> {
    let session_id = letters(uuid::Uuid::now_v7());
    let principal = Arc::new(granted.identity.principal.clone());
    let mut shutdown = shared.dependencies.shutdown.clone();
    let connected = tokio::select! {
        connected = connect(&startup, &granted, &session_id) => connected,
        // A server that does not answer must not hold up the end.
        _ = shutdown.wait_for(|stop| *stop) => Err(LoginError::ShuttingDown),
    };
    let connected = match connected {
        Ok(connected) => connected,
        Err(problem) => return Err(Box::new((client, problem))),
    };
    let opening = Opening {
        session_id: &session_id,
        source: &source.to_string(),
        application_name: startup.parameter("application_name"),
        tls: client.stream.tls_version(),
    };
    let record = match start_record(shared, &granted, &connected, &opening) {
        Ok(record) => record,
        Err(problem) => return Err(Box::new((client, problem.into()))),
    };
    let Some(cancel_key) = CancelKeys::register(&shared.cancel_keys, connected.backend_pid, startup.agreed_minor())
    else {
        return Err(Box::new((client, LoginError::Randomness)));
    };
    let seat = Seat {
        shared: Arc::clone(shared),
        target: Arc::clone(&granted.target),
        identity: granted.identity,
        policy: Arc::clone(&granted.policy),
        client,
        upstream: connected.stream,
        upstream_bytes: connected.buffer,
        record,
        upstream_key: (connected.backend_pid, connected.cancel_secret),
        cancel_key,
        tenure: Tenure::new(shared, &granted.target.name),
        counted: granted.counted,
    };
    let welcome = welcome(&seat.cancel_key, &connected.parameters);
    if granted.policy.policy.unrestricted(&principal, &granted.target.name) {
        return Ok(Road::PassThrough(Box::new(PassThrough::new(seat, &welcome, &connected.parameters))));
    }
    let role = granted.login.role.clone().unwrap_or_else(|| granted.login.user.clone());
    let picture = Picture::new(principal, &granted.target.name, granted.policy, role, &shared.dependencies.mask_keys);
    let mut session = Session::new(seat, picture);
    if let Err(problem) = session.first_picture(&granted.login).await {
        let problem = LoginError::State { target: granted.target.name.clone(), problem };
        return Err(Box::new((session.give_up().await, problem)));
    }
    session.io.outbox.login(|out| out.extend_from_slice(&welcome));
    session.welcomed = true;
    Ok(Road::Ordinary(Box::new(session)))
}

/// AuthenticationOk and what follows it up to the first ReadyForQuery.
fn welcome(key: &CancelKey, parameters: &[(String, String)]) -> BytesMut {
    let mut out = BytesMut::new();
    encode::authentication_ok(&mut out);
    for (name, value) in parameters {
        let _ = encode::parameter_status(&mut out, name, value);
    }
    let _ = encode::backend_key_data(&mut out, key.pid, &key.secret);
    encode::ready_for_query(&mut out, TransactionStatus::Idle);
    out
}

async fn connect(startup: &Startup, granted: &Granted, session_id: &str) -> Result<Connected, LoginError> {
    let principal = &granted.identity.principal;
    let target = &granted.target;
    let unrestricted = granted.policy.policy.unrestricted(principal, &target.name);
    let read_only = !granted.policy.policy.grants_write(principal, &target.name);
    let mut settings = upstream_settings(startup, principal, session_id, unrestricted, read_only)?;
    if let Some(limit) = target.statement_timeout {
        limit_statements(&mut settings, limit);
    }
    let parameters: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let connected = upstream::connect(&target.upstream, &granted.login, &parameters).await.map_err(|source| {
        let chosen = if unrestricted { parameters.as_slice() } else { &[] };
        match words_for_client(target, chosen, &source.problem) {
            Some(words) => LoginError::ServerRefused { target: target.name.clone(), words },
            None => LoginError::Upstream { target: target.name.clone(), source },
        }
    })?;
    let superuser = connected.parameters.iter().any(|(name, value)| name == "is_superuser" && value == "on");
    if superuser && !target.allow_privileged_login {
        return Err(LoginError::PrivilegedLogin { target: target.name.clone(), user: granted.login.user.clone() });
    }
    if unrestricted {
        return Ok(connected);
    }
    let major = connected.server_version_num / 10_000;
    let newer = major > SERVER_MAJOR_MAX && !target.allow_newer_server;
    if newer || major < SERVER_MAJOR_MIN {
        return Err(LoginError::ServerVersion { target: target.name.clone(), version: connected.server_version_num });
    }
    Ok(connected)
}

/// What the record says of the connection a session came in on.
struct Opening<'a> {
    session_id: &'a str,
    source: &'a str,
    application_name: Option<&'a str>,
    tls: Option<&'static str>,
}

fn start_record(
    shared: &Shared,
    granted: &Granted,
    connected: &Connected,
    opening: &Opening<'_>,
) -> Result<SessionRecord, StoreError> {
    let token = &granted.identity.token_ref;
    shared.dependencies.recorder.start_session(&SessionStart {
        session: opening.session_id,
        principal: &granted.identity.principal,
        source: opening.source,
        target: &granted.target.name,
        database: granted.target.upstream.database(),
        login: &granted.login.user,
        backend_pid: connected.backend_pid,
        backend_start: None,
        application_name: opening.application_name,
        policy: policy_ref(&granted.policy),
        tls: opening.tls,
        token: Some(TokenRef { id: token.jti.as_deref(), sha256_8: &token.sha256_8 }),
        handle: granted.identity.lease().map(|lease| lease.handle.as_str()),
    })
}

impl Session {
    /// A session on the ordinary road knows its path, role and catalog before the first statement.
    async fn first_picture(&mut self, login: &Arc<LoginConfig>) -> Result<(), String> {
        let state = tokio::time::timeout(STATE_DEADLINE, self.read_state()).await;
        let state = state.map_err(|_| format!("the server did not answer within {} s", STATE_DEADLINE.as_secs()))?;
        match state.map_err(|end: SessionEnd| end.to_string())? {
            Renewed::Yes => {}
            Renewed::Refuse(refusal) => return Err(refusal.reason),
            Renewed::Skipped => return Err("the server skipped the question".to_owned()),
        }
        let database = self.own.state.as_ref().map(|state| state.database).unwrap_or_default();
        let catalog = self.shared.catalogs.database(&self.target, database, login);
        self.picture.database = Some(catalog);
        match self.renew_picture(false).await.map_err(|end| end.to_string())? {
            Renewed::Yes => Ok(()),
            Renewed::Refuse(refusal) => Err(refusal.reason),
            Renewed::Skipped => Err("the server skipped the question".to_owned()),
        }
    }

    /// The session never began: the client gets its stream back to be told why.
    async fn give_up(mut self) -> Inbound<ClientStream> {
        self.io.last_words(None, true);
        let _ = self.io.turn(super::io::Interest { client: false, upstream: false }).await;
        let Self { record, io, .. } = self;
        if let Err(problem) = record.end("state_unreadable") {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record the end of a session");
        }
        io.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_letters_of_one_length_in_the_order_of_time() {
        let ids = [0, 1, 9, 10, u128::MAX - 1, u128::MAX].map(|bits| letters(uuid::Uuid::from_u128(bits)));
        assert!(ids.is_sorted_by(|earlier, later| earlier < later), "{ids:?}");
        for id in ids {
            assert!(id.len() == 39 && id.bytes().all(|byte| byte.is_ascii_lowercase()), "{id}");
        }
    }
}
