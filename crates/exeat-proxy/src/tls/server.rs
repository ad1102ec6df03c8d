//! The certificate shown to clients, and the authorities of theirs: loaded and checked whole, swapped when the files
//! change, the last good one kept while they do not fit together (certificate and key are rarely replaced in one step).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{ALPN_POSTGRESQL, TlsError, parse_certificates, provider, read_bounded, server_end_point};

/// Two small files read once a second cost nothing, and content is compared because modification times of mounted
/// secrets do not change reliably.
const POLL: Duration = Duration::from_secs(1);

/// The listener's TLS: what is offered to a new connection follows its files.
#[derive(Debug)]
pub struct ServerTls {
    files: Files,
    alpn: Vec<Vec<u8>>,
    current: ArcSwap<Offer>,
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// What one connection is offered. It stays the same for the connection's life, so that channel binding speaks of
/// the certificate its client saw, whatever the files hold by then. Resumption stays within one offer.
#[derive(Debug)]
pub struct Offer {
    config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    client_roots: Vec<CertificateDer<'static>>,
    end_point: Option<Vec<u8>>,
}

impl Offer {
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Channel binding `tls-server-end-point` of the certificate, where there is one.
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }
}

/// What a look at the files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    Replaced,
}

impl ServerTls {
    /// Loads certificate chain and key, checks that they belong together, and speaks PostgreSQL. With `client_ca`
    /// clients are asked for a certificate: one they show must be of these authorities, showing none is not refused.
    pub fn load(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let files = Files { cert: cert.to_owned(), key: key.to_owned(), client_ca: client_ca.map(Path::to_owned) };
        Self::load_files(files, &[ALPN_POSTGRESQL])
    }

    /// The same for a listener of other protocols. A client that asks for none is served, one that asks for others
    /// only is refused in the handshake.
    pub fn load_with_alpn(cert: &Path, key: &Path, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        Self::load_files(Files { cert: cert.to_owned(), key: key.to_owned(), client_ca: None }, alpn)
    }

    fn load_files(files: Files, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
        let current = ArcSwap::from_pointee(load_offer(&files, &alpn)?);
        Ok(Self { files, alpn, current })
    }

    /// For one connection; the next one asks again.
    pub fn offer(&self) -> Arc<Offer> {
        self.current.load_full()
    }

    /// Reads the files again. On error what is in use stays.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        let fresh = load_offer(&self.files, &self.alpn)?;
        let current = self.current.load();
        // The chain identifies certificate and key: a new key needs a new leaf certificate.
        if fresh.chain == current.chain && fresh.client_roots == current.client_roots {
            return Ok(Reload::Unchanged);
        }
        self.current.store(Arc::new(fresh));
        Ok(Reload::Replaced)
    }

    /// Follows the files until `shutdown` turns true. Says a problem once, not every second.
    pub async fn watch(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut reported: Option<String> = None;
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            let problem = match self.reload() {
                Ok(Reload::Unchanged) => None,
                Ok(Reload::Replaced) => {
                    tracing::info!(cert = %self.files.cert.display(), "server certificate replaced");
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = &problem
                && reported.as_ref() != Some(problem)
            {
                tracing::warn!(cert = %self.files.cert.display(), problem, "server certificate not replaced, the one in use stays");
            }
            reported = problem;
        }
    }
}

fn load_offer(files: &Files, alpn: &[Vec<u8>]) -> Result<Offer, TlsError> {
    let certified = load_pair(&files.cert, &files.key)?;
    let client_roots = match &files.client_ca {
        None => Vec::new(),
        Some(path) => parse_certificates("client CA", path, &read_bounded("client CA", path)?)?,
    };
    let chain = certified.cert.clone();
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(client_verifier(path, &client_roots)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = alpn.to_vec();
    let end_point = chain.first().and_then(|leaf| server_end_point(leaf));
    Ok(Offer { config: Arc::new(config), chain, client_roots, end_point })
}

/// A certificate only adds to a token, so a client may come without one.
fn client_verifier(path: &Path, roots: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|cause| TlsError::BadRoot { path: path.to_owned(), cause })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))
}

pub(super) fn load_pair(cert_path: &Path, key_path: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = parse_certificates("certificate", cert_path, &read_bounded("certificate", cert_path)?)?;
    let key_pem = zeroize::Zeroizing::new(read_bounded("private key", key_path)?);
    let key =
        PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| TlsError::NoPrivateKey { path: key_path.to_owned() })?;
    let unusable = |cause| TlsError::Unusable { cert: cert_path.to_owned(), key: key_path.to_owned(), cause };
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(certified) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { cert: cert_path.to_owned(), key: key_path.to_owned() })
        }
        Err(cause) => Err(unusable(cause)),
    }
}
