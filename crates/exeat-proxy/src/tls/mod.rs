//! TLS on both sides: the certificate we show to clients (reloaded when its files change) and how far we trust the
//! servers we call. rustls over ring, given explicitly everywhere. Never falls back to plain text: a handshake that
//! fails is an error, and only a configuration that says `off` leaves TLS out.

mod binding;
mod client;
mod server;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

pub use binding::server_end_point;
pub use client::{ClientCertificate, Roots, Trust, client_config, client_config_as};
pub use server::{Offer, Reload, ServerTls};

/// A certificate chain or a private key in PEM is a few KiB; a system bundle a few hundred.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// The protocol name of PostgreSQL in ALPN: required for direct TLS, sent by libpq 17 and later always.
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// Texts are complete, causes included: they become lines of a list of mistakes as often as the end of a program.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("could not read {what} file \"{}\"; check its path and permissions: {cause}", path.display())]
    Read { what: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{what} file \"{}\" has {bytes} bytes, more than the limit of {PEM_BYTES_MAX}", path.display())]
    TooLarge { what: &'static str, path: PathBuf, bytes: u64 },
    #[error("{what} file \"{}\" is not PEM: {reason}", path.display())]
    NotPem { what: &'static str, path: PathBuf, reason: String },
    #[error("no certificate in file \"{}\"; expected PEM with BEGIN CERTIFICATE", path.display())]
    NoCertificate { path: PathBuf },
    #[error("no private key in file \"{}\"; expected PEM with BEGIN PRIVATE KEY (PKCS #8, SEC1 or PKCS #1, not encrypted)", path.display())]
    NoPrivateKey { path: PathBuf },
    #[error("private key \"{}\" does not belong to the first certificate of \"{}\"; the leaf certificate must come first", key.display(), cert.display())]
    KeyMismatch { cert: PathBuf, key: PathBuf },
    #[error("could not use certificate \"{}\" with private key \"{}\": {cause}", cert.display(), key.display())]
    Unusable { cert: PathBuf, key: PathBuf, cause: rustls::Error },
    #[error("the system has no trusted certificates ({reason}); install the package ca-certificates or name a CA file")]
    NoSystemRoots { reason: String },
    #[error("certificate in CA file \"{}\" cannot be a trust anchor: {cause}", path.display())]
    BadRoot { path: PathBuf, cause: rustls::Error },
    #[error("could not set up TLS: {0}")]
    Setup(rustls::Error),
}

/// For libraries that look for a process-wide default (the HTTP client panics without one). Harmless when repeated.
pub fn install_ring_provider() {
    // Err means that a provider is installed already: the first one stays, and ours is always passed explicitly.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read_bounded(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let read_error = |cause| TlsError::Read { what, path: path.to_owned(), cause };
    let bytes = std::fs::metadata(path).map_err(read_error)?.len();
    if bytes > PEM_BYTES_MAX {
        return Err(TlsError::TooLarge { what, path: path.to_owned(), bytes });
    }
    std::fs::read(path).map_err(read_error)
}

fn parse_certificates(what: &'static str, path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| TlsError::NotPem { what, path: path.to_owned(), reason: error.to_string() })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}
