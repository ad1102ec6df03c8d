//! The listener: accepts connections within the limits, runs one task per session, stops gracefully.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use exeat_enforce::drift::Drift;
use exeat_wire::Fields;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::config::{Config, Dependencies, ListenTls, Target};
use crate::large_messages::LargeMessages;
use crate::limits::{Failures, Lobby, LobbyPlace, Sessions};
use crate::lookout::Lookout;
use crate::postgres::cancel::CancelKeys;
use crate::postgres::catalog::Catalogs;
use crate::postgres::drift::Keeper;
use crate::postgres::{login, session, startup, stream};
use crate::spares::Spares;
use crate::tls::ServerTls;
use crate::upstream::{CatalogConnection, UpstreamError};
use crate::waiting::Waiting;
use crate::workers::Workers;

/// How long sessions may take for their last words when the time to drain is over.
const AFTER_DRAIN: Duration = Duration::from_secs(5);
/// The last words to a client that was refused before its session began.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// With the lobby full a client is told so, and a cancel request heard, but no more than this many at once: the rest
/// is closed unheard.
const TURNED_AWAY_AT_ONCE_MAX: usize = 64;
/// How long each of them may take to say what it wants.
const TURN_AWAY_DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "could not listen on {address}: {source}; choose another address for listen.postgres or stop what holds it"
    )]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    #[error("could not start the threads that run sessions: {0}")]
    Threads(#[source] std::io::Error),
}

/// What all sessions share. Nothing here belongs to a single one.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) targets: HashMap<String, Arc<Target>>,
    pub(crate) dependencies: Dependencies,
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) catalogs: Catalogs,
    pub(crate) cancel_keys: Arc<CancelKeys>,
    pub(crate) failures: Failures,
    pub(crate) sessions: Sessions,
    pub(crate) large_messages: Arc<LargeMessages>,
    /// Statements that wait for a human.
    pub(crate) waiting: Waiting,
    pub(crate) lookout: Arc<Lookout>,
    pub(crate) spares: Arc<Spares>,
    /// Held by whoever asks the planner for the sake of a human.
    pub(crate) guessing: tokio::sync::Mutex<()>,
    lobby: Lobby,
}

/// A running data plane.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
    certificates: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("targets", &self.targets.len()).finish_non_exhaustive()
    }
}

/// Binds and starts. Returns once the listener is bound; sessions run until `dependencies.shutdown` turns true.
pub async fn serve(config: Config, dependencies: Dependencies) -> Result<Server, ServeError> {
    let address = config.listen.address;
    let tls = match &config.listen.tls {
        ListenTls::Off => None,
        ListenTls::Files { cert, key, client_ca } => Some(Arc::new(ServerTls::load(cert, key, client_ca.as_deref())?)),
    };
    let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| ServeError::Listen { address, source })?;
    let shutdown = dependencies.shutdown.clone();
    let certificates = tls.clone().map(|tls| tokio::spawn(tls.watch(shutdown.clone())));
    let targets = config.targets.iter().map(|(name, target)| (name.clone(), Arc::new(target.clone()))).collect();
    let keeper = Keeper { state: dependencies.state.clone(), recorder: Arc::clone(&dependencies.recorder) };
    let catalogs = Catalogs::new(keeper);
    let shared = Arc::new(Shared {
        failures: Failures::new(config.listen.limits.failed_logins_per_minute),
        sessions: Sessions::new(config.listen.limits),
        large_messages: Arc::new(LargeMessages::new(config.listen.limits)),
        waiting: Waiting::default(),
        lookout: Arc::new(Lookout::new(dependencies.state.clone())),
        spares: Arc::new(Spares::new(dependencies.state.clone())),
        guessing: tokio::sync::Mutex::default(),
        lobby: Lobby::new(config.listen.limits.unauthenticated),
        config,
        targets,
        dependencies,
        tls,
        catalogs,
        cancel_keys: Arc::default(),
    });
    let workers = Workers::start(shared.dependencies.threads).map_err(ServeError::Threads)?;
    let accept = tokio::spawn(accept(listener, workers, Arc::clone(&shared), shutdown));
    Ok(Server { address, shared, accept, certificates })
}

/// What readiness says of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStatus {
    pub name: String,
    /// `Err` says what is wrong in words that may be shown on the console listener.
    pub state: Result<(), String>,
}

/// What one database has become since it was accepted.
#[derive(Debug, Clone)]
pub struct DatabaseDrift {
    pub target: String,
    pub database: String,
    pub drift: Arc<Drift>,
}

/// Counts wrong tokens shown at other doors together with those of this one.
#[derive(Debug, Clone)]
pub struct Guesses(Arc<Shared>);

impl Guesses {
    pub fn too_many(&self, source: std::net::IpAddr) -> bool {
        self.0.failures.too_many(source)
    }

    pub fn note(&self, source: std::net::IpAddr) {
        self.0.failures.note(source);
    }
}

impl Server {
    pub fn guesses(&self) -> Guesses {
        Guesses(Arc::clone(&self.shared))
    }

    /// What is on the ledger and not spent.
    pub fn spares(&self) -> Arc<Spares> {
        Arc::clone(&self.shared.spares)
    }

    /// What has drifted, as sessions saw it last.
    pub fn drift(&self) -> Vec<DatabaseDrift> {
        let seen = self.shared.catalogs.drift().into_iter();
        seen.map(|(target, database, drift)| DatabaseDrift { target, database, drift }).collect()
    }

    /// Logs in to every target's database as its last login, the one without conditions where there is one.
    pub async fn probe_targets(&self) -> Vec<TargetStatus> {
        let mut found = Vec::with_capacity(self.shared.targets.len());
        for target in self.shared.config.targets.values() {
            found.push(TargetStatus { name: target.name.clone(), state: probe(target).await });
        }
        found
    }

    /// Waits until the listener and every session have ended (bounded by the drain deadline).
    pub async fn join(self) {
        let _ = self.accept.await;
        if let Some(certificates) = self.certificates {
            let _ = certificates.await;
        }
    }
}

/// Hosts, ports and logins are for the log: readiness is read without a login.
async fn probe(target: &Target) -> Result<(), String> {
    let login = target.logins.last().ok_or_else(|| "no login".to_owned())?;
    let reached = async {
        let mut connection = CatalogConnection::connect(&target.upstream, login).await?;
        connection.query("SELECT 1").await?;
        connection.close().await;
        Ok::<(), UpstreamError>(())
    };
    reached.await.map_err(|problem| {
        tracing::warn!(target_name = %target.name, problem = exeat_store::chain(&problem), "target cannot be reached");
        problem.client_message(&target.name)
    })
}

async fn accept(listener: TcpListener, mut workers: Workers, shared: Arc<Shared>, mut shutdown: watch::Receiver<bool>) {
    let (ended, end) = watch::channel(false);
    let giving_back = tokio::spawn(Arc::clone(&shared.spares).run(end.clone()));
    let looking = tokio::spawn(Arc::clone(&shared.lookout).run(end));
    let mut sessions = JoinSet::new();
    let mut turned_away = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
            Some(_) = turned_away.join_next() => continue,
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(problem) => {
                tracing::warn!(problem = exeat_store::chain(&problem), "could not accept a connection");
                // Out of file descriptors, usually: the listener must not spin on it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match shared.lobby.enter(source.ip().into(), Instant::now()) {
            Some(place) => match (stream.into_std(), workers.next()) {
                // Taken off this runtime: its thread waits for it from here on.
                (Ok(stream), Some(worker)) => {
                    let session = connection(Arc::clone(&shared), stream, source, place);
                    drop(sessions.spawn_on(session, worker));
                }
                (Ok(_), None) => {}
                (Err(problem), _) => {
                    tracing::warn!(problem = exeat_store::chain(&problem), "could not hand a connection over");
                }
            },
            None if turned_away.len() < TURNED_AWAY_AT_ONCE_MAX => {
                drop(turned_away.spawn(turn_away(Arc::clone(&shared), stream, source)));
            }
            None => drop(stream),
        }
    }
    drop(listener);
    let drained =
        timeout(shared.config.listen.drain + AFTER_DRAIN, async { while sessions.join_next().await.is_some() {} })
            .await;
    if drained.is_err() {
        tracing::warn!(sessions = sessions.len(), "sessions did not end in time and are closed");
    }
    sessions.shutdown().await;
    turned_away.shutdown().await;
    ended.send_replace(true);
    let _ = giving_back.await;
    let _ = looking.await;
    shared.spares.give_back_all().await;
}

/// What it wants is heard, for it may be a cancel, and answered in the channel it chose; who it is, is not asked.
async fn turn_away(shared: Arc<Shared>, tcp: TcpStream, source: SocketAddr) {
    tracing::debug!(%source, "connection turned away: too many others have not logged in yet");
    let Some(applicant) = arrive(&shared, tcp, source, TURN_AWAY_DEADLINE).await else { return };
    let fields = Fields::new("FATAL", "53300", "too many connections are logging in")
        .with(b'H', "try again in a moment; the operator may raise limits.unauthenticated");
    close(applicant.client, Some(fields)).await;
}

async fn connection(shared: Arc<Shared>, tcp: std::net::TcpStream, source: SocketAddr, place: LobbyPlace) {
    let tcp = match TcpStream::from_std(tcp) {
        Ok(tcp) => tcp,
        Err(problem) => {
            tracing::warn!(%source, problem = exeat_store::chain(&problem), "could not take a connection over");
            return;
        }
    };
    let mut shutdown = shared.dependencies.shutdown.clone();
    // Boxed, here and below: what a login needs is given back before the session begins, which may be idle for hours.
    let arrival = tokio::select! {
        arrival = Box::pin(arrive(&shared, tcp, source, startup::LOGIN_DEADLINE)) => arrival,
        () = place.given_away() => {
            tracing::debug!(%source, "connection stalled before authentication and made way for another");
            return;
        }
        _ = shutdown.wait_for(|stop| *stop) => return,
    };
    let Some(applicant) = arrival else { return };
    place.proving();
    match Box::pin(login::admit(&shared, applicant, place)).await {
        Ok(session) => session.run().await,
        Err(refused) => {
            let (client, problem) = *refused;
            if problem.is_ours() {
                tracing::error!(%source, problem = exeat_store::chain(&problem), "login failed for a reason of our own");
            }
            Box::pin(close(client, Some(problem.fields()))).await;
        }
    }
}

/// Up to what proves who it is. `None`: the connection is over, and its client has been told why.
async fn arrive(shared: &Shared, tcp: TcpStream, source: SocketAddr, deadline: Duration) -> Option<startup::Applicant> {
    if let Err(problem) = tcp.set_nodelay(true).and_then(|()| shared.config.listen.keepalive.apply(&tcp)) {
        tracing::debug!(%source, problem = exeat_store::chain(&problem), "could not set the options of a connection");
    }
    let client = session::Client::new(stream::ClientStream::Plain(tcp), BytesMut::new());
    match timeout(deadline, startup::receive(shared, client, source)).await {
        Ok(Ok(startup::Arrival::Applicant(applicant))) => Some(*applicant),
        Ok(Ok(startup::Arrival::Cancelled(client))) => {
            close(*client, None).await;
            None
        }
        Ok(Err(refused)) => {
            let (client, problem) = *refused;
            tracing::debug!(%source, problem = exeat_store::chain(&problem), "connection ended before authentication");
            close(client, problem.fields()).await;
            None
        }
        Err(_elapsed) => {
            tracing::debug!(%source, "connection did not authenticate in time");
            None
        }
    }
}

async fn close(mut client: session::Client, fields: Option<Fields>) {
    let mut out = BytesMut::new();
    if let Some(fields) = fields {
        fields.encode_error(&mut out);
    }
    let farewell = async {
        client.stream.write_all(&out).await?;
        client.stream.shutdown().await
    };
    let _ = timeout(LAST_WORDS, farewell).await;
}
