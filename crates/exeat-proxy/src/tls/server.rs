//! The certificate shown to clients: loaded and checked whole, swapped when its files change, the last good one kept
//! while they do not fit together (certificate and key are rarely replaced in one step).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{ALPN_POSTGRESQL, TlsError, parse_certificates, provider, read_bounded};

/// Two small files read once a second cost nothing, and content is compared because modification times of mounted
/// secrets do not change reliably.
const POLL: Duration = Duration::from_secs(1);

/// The listener's TLS: one configuration for the life of the process, a certificate that follows its files.
#[derive(Debug)]
pub struct ServerTls {
    cert_path: PathBuf,
    key_path: PathBuf,
    resolver: Arc<HotCertificate>,
    config: Arc<ServerConfig>,
}

/// What a look at the files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    Replaced,
}

impl ServerTls {
    /// Loads certificate chain and key, checks that they belong together, and speaks PostgreSQL.
    pub fn load(cert_path: &Path, key_path: &Path) -> Result<Self, TlsError> {
        Self::load_with_alpn(cert_path, key_path, &[ALPN_POSTGRESQL])
    }

    /// The same for a listener of other protocols. A client that asks for none is served, one that asks for others
    /// only is refused in the handshake.
    pub fn load_with_alpn(cert_path: &Path, key_path: &Path, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let provider = provider();
        let resolver = Arc::new(HotCertificate { current: ArcSwap::from_pointee(load_pair(cert_path, key_path)?) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self { cert_path: cert_path.to_owned(), key_path: key_path.to_owned(), resolver, config: Arc::new(config) })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Reads the files again. On error the certificate in use stays.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        let fresh = load_pair(&self.cert_path, &self.key_path)?;
        if fresh.pair_id() == self.resolver.current.load().pair_id() {
            return Ok(Reload::Unchanged);
        }
        self.resolver.current.store(Arc::new(fresh));
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
                    tracing::info!(cert = %self.cert_path.display(), "server certificate replaced");
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = &problem
                && reported.as_ref() != Some(problem)
            {
                tracing::warn!(cert = %self.cert_path.display(), problem, "server certificate not replaced, the one in use stays");
            }
            reported = problem;
        }
    }
}

#[derive(Debug)]
struct HotCertificate {
    current: ArcSwap<LoadedPair>,
}

impl ResolvesServerCert for HotCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

#[derive(Debug)]
struct LoadedPair {
    certified: Arc<CertifiedKey>,
}

impl LoadedPair {
    /// The chain identifies the pair: a new key needs a new leaf certificate.
    fn pair_id(&self) -> &[rustls_pki_types::CertificateDer<'static>] {
        &self.certified.cert
    }
}

fn load_pair(cert_path: &Path, key_path: &Path) -> Result<LoadedPair, TlsError> {
    let chain = parse_certificates("certificate", cert_path, &read_bounded("certificate", cert_path)?)?;
    let key_pem = zeroize::Zeroizing::new(read_bounded("private key", key_path)?);
    let key =
        PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| TlsError::NoPrivateKey { path: key_path.to_owned() })?;
    let unusable = |cause| TlsError::Unusable { cert: cert_path.to_owned(), key: key_path.to_owned(), cause };
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(certified) => Ok(LoadedPair { certified: Arc::new(certified) }),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { cert: cert_path.to_owned(), key: key_path.to_owned() })
        }
        Err(cause) => Err(unusable(cause)),
    }
}
