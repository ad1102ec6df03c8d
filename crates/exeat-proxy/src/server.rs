//! The listener: accepts connections within the limits, runs one task per session, stops gracefully.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use exeat_policy::Principal;
use exeat_wire::Fields;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::config::{Config, Dependencies, ListenTls, Target};
use crate::postgres::cancel::CancelKeys;
use crate::postgres::catalog::Catalogs;
use crate::postgres::{login, session, startup, stream};
use crate::tls::ServerTls;
use crate::upstream::{CatalogConnection, UpstreamError};

/// How long sessions may finish after shutdown began, beyond the grace each of them has.
const DRAIN: Duration = Duration::from_secs(65);
/// The last words to a client that was refused before its session began.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Over a connection limit a client is told so, but no more than this many at once: the rest is closed unheard.
const REFUSALS_AT_ONCE_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "could not listen on {address}: {source}; choose another address for listen.postgres or stop what holds it"
    )]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
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
    principals: Counted<(String, String, Option<String>)>,
    sources: Counted<IpAddr>,
}

pub(crate) type PrincipalGuard = CountGuard<(String, String, Option<String>)>;

impl Shared {
    /// `Err` is the limit.
    pub(crate) fn count_principal(&self, principal: &Principal) -> Result<PrincipalGuard, usize> {
        let limit = self.config.listen.limits.per_principal;
        self.principals.enter(login::principal_key(principal), limit).ok_or(limit)
    }
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
    let shared = Arc::new(Shared {
        failures: Failures::new(config.listen.limits.failed_logins_per_minute),
        config,
        targets,
        dependencies,
        tls,
        catalogs: Catalogs::default(),
        cancel_keys: Arc::default(),
        principals: Counted::default(),
        sources: Counted::default(),
    });
    let accept = tokio::spawn(accept(listener, Arc::clone(&shared), shutdown));
    Ok(Server { address, shared, accept, certificates })
}

/// What readiness says of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStatus {
    pub name: String,
    /// `Err` says what is wrong in words that may be shown on the console listener.
    pub state: Result<(), String>,
}

impl Server {
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

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut shutdown: watch::Receiver<bool>) {
    let mut sessions = JoinSet::new();
    let mut refusals = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
            Some(_) = refusals.join_next() => continue,
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
        let room = sessions.len() < shared.config.listen.limits.connections;
        let guard = shared.sources.enter(source.ip(), shared.config.listen.limits.per_source).filter(|_| room);
        match guard {
            Some(guard) => drop(sessions.spawn(connection(Arc::clone(&shared), stream, source, guard))),
            None if refusals.len() < REFUSALS_AT_ONCE_MAX => drop(refusals.spawn(turn_away(stream))),
            None => drop(stream),
        }
    }
    drop(listener);
    let drained = timeout(DRAIN, async { while sessions.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(sessions = sessions.len(), "sessions did not end in time and are closed");
        sessions.shutdown().await;
    }
}

/// Told without TLS: before the startup packet there is nothing else to say it in, and it holds nothing secret.
async fn turn_away(mut stream: TcpStream) {
    let fields = Fields::new("FATAL", "53300", "too many connections").with(b'H', "try again when others have ended");
    let mut out = BytesMut::new();
    fields.encode_error(&mut out);
    let _ = timeout(LAST_WORDS, stream.write_all(&out)).await;
}

async fn connection(shared: Arc<Shared>, tcp: TcpStream, source: SocketAddr, _counted: CountGuard<IpAddr>) {
    if let Err(problem) = tcp.set_nodelay(true) {
        tracing::debug!(%source, problem = exeat_store::chain(&problem), "could not set TCP_NODELAY");
    }
    let client = session::Client::new(stream::ClientStream::Plain(tcp), BytesMut::new());
    let arrival = match timeout(startup::LOGIN_DEADLINE, startup::receive(&shared, client, source)).await {
        Ok(Ok(arrival)) => arrival,
        Ok(Err(refused)) => {
            let (client, problem) = *refused;
            tracing::debug!(%source, problem = exeat_store::chain(&problem), "connection ended before authentication");
            return close(client, problem.fields()).await;
        }
        Err(_elapsed) => {
            tracing::debug!(%source, "connection did not authenticate in time");
            return;
        }
    };
    let applicant = match arrival {
        startup::Arrival::Applicant(applicant) => applicant,
        startup::Arrival::Cancelled(client) => return close(*client, None).await,
    };
    match login::admit(&shared, *applicant).await {
        Ok(session) => session.run().await,
        Err(refused) => {
            let (client, problem) = *refused;
            if problem.is_ours() {
                tracing::error!(%source, problem = exeat_store::chain(&problem), "login failed for a reason of our own");
            }
            close(client, Some(problem.fields())).await;
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

/// How many of each key there are now.
#[derive(Debug)]
struct Counted<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Default for Counted<K> {
    fn default() -> Self {
        Self { counts: Arc::default() }
    }
}

/// Counted for as long as it lives.
#[derive(Debug)]
pub(crate) struct CountGuard<K: Eq + Hash> {
    key: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash + Clone> Counted<K> {
    fn enter(&self, key: K, limit: usize) -> Option<CountGuard<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(CountGuard { key, counts: Arc::clone(&self.counts) })
    }
}

impl<K: Eq + Hash> Drop for CountGuard<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Failed logins by source in the last minute.
#[derive(Debug)]
pub(crate) struct Failures {
    per_minute: u32,
    seen: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// Sources remembered; past it the oldest minute is forgotten first.
const FAILURE_SOURCES_MAX: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

impl Failures {
    fn new(per_minute: u32) -> Self {
        Self { per_minute, seen: Mutex::default() }
    }

    pub(crate) fn too_many(&self, source: IpAddr) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&source).is_some_and(|(since, count)| since.elapsed() < MINUTE && *count >= self.per_minute)
    }

    pub(crate) fn note(&self, source: IpAddr) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= FAILURE_SOURCES_MAX {
            seen.retain(|_, (since, _)| since.elapsed() < MINUTE);
        }
        let entry = seen.entry(source).or_insert((Instant::now(), 0));
        if entry.0.elapsed() >= MINUTE {
            *entry = (Instant::now(), 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}
