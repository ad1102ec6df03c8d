//! Keys over the network: discovery, rotation, outages, and answers that bring no keys.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::issuer::Timing;
use super::super::*;
use super::{TestKey, claims_for, jwks, until};
use crate::tls::ServerTls;

struct HttpIssuer {
    url: String,
    answers: Arc<Mutex<Answers>>,
    server: JoinHandle<()>,
}

struct Answers {
    status: u16,
    discovery: String,
    keys: String,
    key_requests: usize,
}

impl HttpIssuer {
    async fn start(keys: &[&TestKey], tls: Option<&ServerTls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match tls {
            None => format!("http://127.0.0.1:{port}"),
            Some(_) => format!("https://localhost:{port}"),
        };
        let answers = Answers {
            status: 200,
            discovery: json!({"issuer": url, "jwks_uri": format!("{url}/keys?v=1")}).to_string(),
            keys: jwks(keys),
            key_requests: 0,
        };
        let answers = Arc::new(Mutex::new(answers));
        let acceptor = tls.map(|tls| tls.offer().acceptor());
        let served = Arc::clone(&answers);
        let server = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (served, acceptor) = (Arc::clone(&served), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => answer(tcp, &served).await,
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(tcp).await {
                                answer(tls, &served).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, answers, server }
    }

    fn set(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().unwrap());
    }

    fn key_requests(&self) -> usize {
        self.answers.lock().unwrap().key_requests
    }

    fn config(&self) -> IssuerConfig {
        IssuerConfig::new(&self.url, "exeat")
    }
}

impl Drop for HttpIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One request, one answer, close.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: &Mutex<Answers>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let (status, body) = {
        let mut answers = answers.lock().unwrap();
        if request.starts_with("GET /.well-known/openid-configuration ") {
            (answers.status, answers.discovery.clone())
        } else if request.starts_with("GET /keys?v=1 ") {
            answers.key_requests += 1;
            (answers.status, answers.keys.clone())
        } else {
            (404, String::new())
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nlocation: /keys?v=1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
    let _ = stream.shutdown().await;
}

struct Running {
    verifier: Arc<Verifier>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(config: IssuerConfig, timing: Timing) -> Self {
        let verifier = Arc::new(Verifier::with_timing(vec![config], timing).unwrap());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(Arc::clone(&verifier).run(stopped));
        Self { verifier, stop, task }
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }

    fn failure(&self) -> Option<String> {
        self.verifier.status().into_iter().next().unwrap().failure
    }
}

/// Nothing is looked at again by itself; every unknown kid may fetch.
const ON_DEMAND: Timing = Timing {
    refresh_every: Duration::from_secs(3600),
    reread_every: Duration::from_secs(3600),
    retry_after: Duration::from_secs(3600),
    refetch_after: Duration::ZERO,
    answer_within: Duration::from_secs(20),
};

#[tokio::test]
async fn keys_are_discovered_and_rotation_needs_one_fetch() {
    let (old, new) = (TestKey::es256("old"), TestKey::ed25519("new"));
    let issuer = HttpIssuer::start(&[&old], None).await;
    let running = Running::start(issuer.config(), ON_DEMAND);
    let session = running.verifier.verify(&old.token(&claims_for(&issuer.url))).await.unwrap();
    let generation = running.verifier.generation();
    assert_eq!(running.verifier.still_valid(&session), Ok(()));

    issuer.set(|answers| answers.keys = jwks(&[&old, &new]));
    assert!(running.verifier.verify(&new.token(&claims_for(&issuer.url))).await.is_ok());
    assert_eq!(running.verifier.still_valid(&session), Ok(()));
    assert_ne!(running.verifier.generation(), generation);

    issuer.set(|answers| answers.keys = jwks(&[&new]));
    let unknown = running.verifier.verify(&TestKey::es256("?").token(&claims_for(&issuer.url))).await.unwrap_err();
    assert!(matches!(unknown, IdentityError::UnknownKey { .. }));
    let removed = IdentityError::KeyRemoved { issuer: issuer.url.clone() };
    assert_eq!(running.verifier.still_valid(&session), Err(removed));
    let refusal = running.verifier.verify(&old.token(&claims_for(&issuer.url))).await.unwrap_err();
    assert!(matches!(refusal, IdentityError::UnknownKey { .. }));
    running.stop().await;
}

#[tokio::test]
async fn a_storm_of_unknown_kids_causes_one_fetch_and_then_none_for_a_while() {
    let key = TestKey::es256("a");
    let issuer = HttpIssuer::start(&[&key], None).await;
    let timing = Timing { refetch_after: Duration::from_secs(3600), ..ON_DEMAND };
    let running = Running::start(issuer.config(), timing);
    until(|| running.verifier.status().iter().all(|status| status.ready)).await;
    let before = issuer.key_requests();

    let mut storm = tokio::task::JoinSet::new();
    for n in 0..50 {
        let verifier = Arc::clone(&running.verifier);
        let token = TestKey::es256(&format!("unknown-{n}")).token(&claims_for(&issuer.url));
        storm.spawn(async move { verifier.verify(&token).await.map(|_| ()) });
    }
    while let Some(result) = storm.join_next().await {
        assert!(matches!(result.unwrap(), Err(IdentityError::UnknownKey { .. })));
    }
    assert_eq!(issuer.key_requests(), before + 1);
    // A known key is not held up by the throttle, and an unknown one is refused without asking.
    assert!(running.verifier.verify(&key.token(&claims_for(&issuer.url))).await.is_ok());
    assert!(running.verifier.verify(&TestKey::es256("z").token(&claims_for(&issuer.url))).await.is_err());
    assert_eq!(issuer.key_requests(), before + 1);
    running.stop().await;
}

#[tokio::test]
async fn an_outage_is_tolerated_until_max_stale_and_then_fails_closed() {
    let key = TestKey::es256("a");
    let token = |issuer: &HttpIssuer| key.token(&claims_for(&issuer.url));
    let issuer = HttpIssuer::start(&[&key], None).await;
    let running = Running::start(issuer.config(), ON_DEMAND);
    let session = running.verifier.verify(&token(&issuer)).await.unwrap();
    issuer.set(|answers| answers.status = 503);
    assert!(running.verifier.verify(&TestKey::es256("?").token(&claims_for(&issuer.url))).await.is_err());
    assert!(running.failure().unwrap().contains("503"));
    assert!(running.verifier.verify(&token(&issuer)).await.is_ok());
    assert_eq!(running.verifier.still_valid(&session), Ok(()));
    running.stop().await;

    issuer.set(|answers| answers.status = 200);
    let short = IssuerConfig { max_stale: Duration::from_millis(300), ..issuer.config() };
    let running = Running::start(short, ON_DEMAND);
    let session = running.verifier.verify(&token(&issuer)).await.unwrap();
    issuer.set(|answers| answers.status = 503);
    until(|| running.verifier.still_valid(&session).is_err()).await;
    let unavailable = IdentityError::KeysUnavailable { issuer: issuer.url.clone() };
    assert_eq!(running.verifier.still_valid(&session), Err(unavailable.clone()));
    assert_eq!(running.verifier.verify(&token(&issuer)).await.map(|_| ()), Err(unavailable));
    assert!(!running.verifier.status()[0].ready);
    // And back again.
    issuer.set(|answers| answers.status = 200);
    assert!(running.verifier.verify(&token(&issuer)).await.is_ok());
    running.stop().await;
}

#[tokio::test]
async fn answers_of_the_issuer_that_are_not_right_bring_no_keys() {
    let key = TestKey::es256("a");
    let issuer = HttpIssuer::start(&[&key], None).await;
    let good = issuer.answers.lock().unwrap().discovery.clone();
    let keys = jwks(&[&key]);
    let long = json!({"issuer": issuer.url, "jwks_uri": format!("{}/keys?v=1", issuer.url), "x": "x".repeat(600_000)});
    let cases = [
        (302, good.clone(), keys.clone(), "302"),
        (
            200,
            json!({"issuer": format!("{}/", issuer.url), "jwks_uri": issuer.url}).to_string(),
            keys.clone(),
            "not exactly",
        ),
        (200, json!({"issuer": issuer.url}).to_string(), keys.clone(), "no jwks_uri"),
        (200, json!({"issuer": issuer.url, "jwks_uri": "http://192.0.2.1/keys"}).to_string(), keys.clone(), "jwks_uri"),
        (200, json!({"issuer": issuer.url, "jwks_uri": "file:///etc/keys"}).to_string(), keys.clone(), "jwks_uri"),
        (200, "<html>".to_owned(), keys.clone(), "not JSON"),
        (200, long.to_string(), keys.clone(), "limit"),
        (200, good.clone(), "[]".to_owned(), "key set"),
        (200, good.clone(), json!({"keys": [{"kty": "oct", "k": "AAAA"}]}).to_string(), "symmetric"),
    ];
    for (status, discovery, keys, reason) in cases {
        issuer.set(|answers| (answers.status, answers.discovery, answers.keys) = (status, discovery, keys));
        let running = Running::start(issuer.config(), ON_DEMAND);
        let refusal = running.verifier.verify(&key.token(&claims_for(&issuer.url))).await.unwrap_err();
        assert!(matches!(refusal, IdentityError::KeysUnavailable { .. }), "{reason}: {refusal}");
        let failure = running.failure().unwrap();
        assert!(failure.contains(reason), "{failure} should contain {reason}");
        running.stop().await;
    }
}

#[tokio::test]
async fn https_issuers_are_verified_against_their_ca() {
    let key = TestKey::es256("a");
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, private) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&private, made.signing_key.serialize_pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other_ca = folder.path().join("other.pem");
    std::fs::write(&other_ca, other.cert.pem()).unwrap();
    let tls = ServerTls::load_with_alpn(&cert, &private, &[b"http/1.1"]).unwrap();
    let issuer = HttpIssuer::start(&[&key], Some(&tls)).await;
    let token = key.token(&claims_for(&issuer.url));

    let running = Running::start(IssuerConfig { ca: Some(cert), ..issuer.config() }, ON_DEMAND);
    assert!(running.verifier.verify(&token).await.is_ok(), "{:?}", running.failure());
    running.stop().await;

    let running = Running::start(IssuerConfig { ca: Some(other_ca), ..issuer.config() }, ON_DEMAND);
    assert!(matches!(running.verifier.verify(&token).await, Err(IdentityError::KeysUnavailable { .. })));
    assert!(running.failure().unwrap().contains("certificate"), "{:?}", running.failure());
    running.stop().await;
}
