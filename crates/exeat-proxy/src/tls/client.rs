//! How far we trust a server we call. `Full` is the default everywhere; `EncryptOnly` exists because PostgreSQL's
//! `require` does, and is safe against an active attacker only together with channel binding.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::server::load_pair;
use super::{TlsError, parse_certificates, provider, read_bounded};

/// Whose signature makes a server certificate good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's store.
    System,
    /// Only the certificates of this PEM file.
    File(PathBuf),
    /// Every certificate is refused: for a client that speaks plain text on loopback and must do nothing else.
    Nobody,
}

/// What is checked of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Chain, validity and host name.
    Full(Roots),
    /// Nothing but possession of the key: whoever answers is believed. Listens to no passive eavesdropper, stops no
    /// active one.
    EncryptOnly,
}

/// A certificate of ours and its key, for servers that ask for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A client configuration for `trust`, asking for the protocols `alpn` (none asks for nothing).
pub fn client_config(trust: &Trust, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_as(trust, alpn, None)
}

/// The same, showing `certificate` to a server that asks.
pub fn client_config_as(
    trust: &Trust,
    alpn: &[&[u8]],
    certificate: Option<&ClientCertificate>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?;
    let builder = match trust {
        Trust::Full(roots) => builder.with_root_certificates(root_store(roots)?),
        Trust::EncryptOnly => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { algorithms }))
        }
    };
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { cert, key }) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(load_pair(cert, key)?)))
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn root_store(roots: &Roots) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Nobody => {}
        Roots::File(path) => {
            for certificate in parse_certificates("CA", path, &read_bounded("CA", path)?)? {
                store.add(certificate).map_err(|cause| TlsError::BadRoot { path: path.clone(), cause })?;
            }
        }
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            // A bundle may hold a few certificates webpki cannot read; only an empty result is a problem.
            let (added, _ignored) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let reason = match found.errors.first() {
                    Some(error) => error.to_string(),
                    None => "no certificate found".to_owned(),
                };
                return Err(TlsError::NoSystemRoots { reason });
            }
        }
    }
    Ok(store)
}

/// Accepts every certificate, but still demands proof that the server holds its key: without that, channel binding
/// to the certificate would bind to nothing.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
