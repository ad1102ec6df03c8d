//! Real handshakes between our two sides over a loopback socket, and real files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::server::Reload;
use super::*;

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A self-signed certificate for `host` in `cert.pem`, its key in `key.pem`. Returns the certificate.
    fn write_pair(&self, host: &str) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        self.write("cert.pem", &made.cert.pem());
        self.write("key.pem", &made.signing_key.serialize_pem());
        made.cert.der().clone()
    }

    fn load(&self) -> Result<Arc<ServerTls>, TlsError> {
        ServerTls::load(&self.path("cert.pem"), &self.path("key.pem"), None).map(Arc::new)
    }
}

/// Serves handshakes until the test ends.
async fn serve(tls: &Arc<ServerTls>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Arc::clone(tls);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tls.offer().acceptor();
            tokio::spawn(async move {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    let _ = tls.read(&mut [0; 1]).await;
                }
            });
        }
    });
    address
}

/// The certificate and the protocol agreed on, or why not.
async fn connect(
    address: SocketAddr,
    name: &str,
    trust: &Trust,
    alpn: &[&[u8]],
) -> Result<(CertificateDer<'static>, Option<Vec<u8>>), String> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(client_config(trust, alpn).map_err(|error| error.to_string())?);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
    let session = stream.get_ref().1;
    Ok((session.peer_certificates().unwrap()[0].clone(), session.alpn_protocol().map(<[u8]>::to_vec)))
}

fn trusting(path: &Path) -> Trust {
    Trust::Full(Roots::File(path.to_owned()))
}

#[tokio::test]
async fn full_trust_takes_the_right_name_and_authority_only() {
    let files = Files::new();
    let certificate = files.write_pair("db.internal");
    let other = rcgen::generate_simple_self_signed(vec!["db.internal".to_owned()]).unwrap();
    let other_ca = files.write("other.pem", &other.cert.pem());
    let address = serve(&files.load().unwrap()).await;
    let ca = trusting(&files.path("cert.pem"));

    assert_eq!(connect(address, "db.internal", &ca, &[]).await, Ok((certificate.clone(), None)));
    for (name, trust) in [("db.external", &ca), ("127.0.0.1", &ca), ("db.internal", &trusting(&other_ca))] {
        let error = connect(address, name, trust, &[]).await.unwrap_err();
        assert!(error.contains("certificate"), "{name}: {error}");
    }
    assert!(connect(address, "db.internal", &Trust::Full(Roots::Nobody), &[]).await.is_err());
    assert_eq!(connect(address, "any.name", &Trust::EncryptOnly, &[]).await, Ok((certificate, None)));
}

#[tokio::test]
async fn the_listener_agrees_on_postgresql_or_on_nothing() {
    let files = Files::new();
    files.write_pair("localhost");
    let address = serve(&files.load().unwrap()).await;
    let ca = trusting(&files.path("cert.pem"));
    let agreed = async |alpn: &[&[u8]]| connect(address, "localhost", &ca, alpn).await.map(|(_, protocol)| protocol);
    assert_eq!(agreed(&[ALPN_POSTGRESQL]).await, Ok(Some(b"postgresql".to_vec())));
    assert_eq!(agreed(&[]).await, Ok(None));
    assert!(agreed(&[b"http/1.1"]).await.is_err());
}

#[tokio::test]
async fn tls_1_2_is_spoken_too() {
    let files = Files::new();
    let certificate = files.write_pair("localhost");
    let address = serve(&files.load().unwrap()).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn a_new_certificate_is_served_once_both_files_fit_together() {
    let files = Files::new();
    let first = files.write_pair("localhost");
    let tls = files.load().unwrap();
    let address = serve(&tls).await;
    let served = async || connect(address, "localhost", &Trust::EncryptOnly, &[]).await.unwrap().0;
    assert_eq!(served().await, first);
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);

    let next = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    files.write("cert.pem", &next.cert.pem());
    assert!(matches!(tls.reload(), Err(TlsError::KeyMismatch { .. })));
    assert_eq!(served().await, first);
    std::fs::remove_file(files.path("key.pem")).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Read { .. })));
    assert_eq!(served().await, first);

    files.write("key.pem", &next.signing_key.serialize_pem());
    assert_eq!(tls.reload().unwrap(), Reload::Replaced);
    assert_eq!(served().await, *next.cert.der());
}

#[tokio::test]
async fn the_watching_task_follows_the_files_and_stops_when_told() {
    let files = Files::new();
    files.write_pair("localhost");
    let tls = files.load().unwrap();
    let address = serve(&tls).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(Arc::clone(&tls).watch(stopped));
    let next = files.write_pair("localhost");
    let deadline = Instant::now() + Duration::from_secs(20);
    while connect(address, "localhost", &Trust::EncryptOnly, &[]).await.unwrap().0 != next {
        assert!(Instant::now() < deadline, "the new certificate was not served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[test]
fn files_that_do_not_work_are_named_with_the_next_step() {
    let files = Files::new();
    files.write_pair("localhost");
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other_key = files.write("other.pem", &other.signing_key.serialize_pem());
    let empty = files.write("empty.pem", "");
    let broken = files.write("broken.pem", "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n");
    let huge = files.write("huge.pem", &" ".repeat(1024 * 1024 + 1));
    let missing = files.path("missing.pem");
    for (cert, key, text) in [
        (&missing, &key, "could not read certificate file"),
        (&cert, &missing, "could not read private key file"),
        (&empty, &key, "no certificate in file"),
        (&key, &key, "no certificate in file"),
        (&broken, &key, "is not PEM"),
        (&huge, &key, "more than the limit"),
        (&cert, &cert, "no private key in file"),
        (&cert, &other_key, "does not belong to the first certificate"),
    ] {
        let error = ServerTls::load(cert, key, None).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(".pem\""), "{error} should contain {text}");
    }
    assert!(ServerTls::load(&cert, &key, None).is_ok());
    let not_a_root = client_config(&trusting(&other_key), &[]).unwrap_err().to_string();
    assert!(not_a_root.contains("no certificate in file"), "{not_a_root}");
}

#[test]
fn channel_binding_follows_the_signature_of_the_certificate() {
    let signed_with = |algorithm| {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    };
    let hash = |algorithm, bytes: &[u8]| Some(digest::digest(algorithm, bytes).as_ref().to_vec());
    let p256 = signed_with(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(server_end_point(&p256), hash(&digest::SHA256, &p256));
    let p384 = signed_with(&rcgen::PKCS_ECDSA_P384_SHA384);
    assert_eq!(server_end_point(&p384), hash(&digest::SHA384, &p384));
    assert_eq!(server_end_point(&signed_with(&rcgen::PKCS_ED25519)), None);
    let signature_starts = p256.len() - 80;
    for length in 0..signature_starts {
        assert_eq!(server_end_point(&p256[..length]), None, "cut at {length}");
    }
    assert_eq!(server_end_point(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30]), None);
}
