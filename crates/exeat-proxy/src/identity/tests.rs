//! The verifier against real keys, files and a real HTTP server on loopback that plays the issuer.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::issuer::Timing;
use super::*;
use crate::tls::ServerTls;

const FILE_ISSUER: &str = "https://idp.example.com";

// ---- keys and tokens

enum Private {
    Ec(EcdsaKeyPair, &'static str, &'static str),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

struct TestKey {
    kid: String,
    private: Private,
}

impl TestKey {
    fn es256(kid: &str) -> Self {
        Self::ec(kid, &signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", "ES256")
    }

    fn es384(kid: &str) -> Self {
        Self::ec(kid, &signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", "ES384")
    }

    fn ec(
        kid: &str,
        algorithm: &'static signature::EcdsaSigningAlgorithm,
        curve: &'static str,
        alg: &'static str,
    ) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        Self { kid: kid.to_owned(), private: Private::Ec(pair, curve, alg) }
    }

    fn ed25519(kid: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { kid: kid.to_owned(), private: Private::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()) }
    }

    /// ring makes no RSA keys, so openssl does.
    fn rsa(kid: &str) -> Self {
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"])
            .output()
            .expect("this test needs the command openssl (package openssl)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // PKCS #8 or, from some versions, PKCS #1.
        let pair = RsaKeyPair::from_pkcs8(&made.stdout).or_else(|_| RsaKeyPair::from_der(&made.stdout)).unwrap();
        Self { kid: kid.to_owned(), private: Private::Rsa(pair) }
    }

    fn alg(&self) -> &'static str {
        match &self.private {
            Private::Ec(_, _, alg) => alg,
            Private::Ed(_) => "EdDSA",
            Private::Rsa(_) => "RS256",
        }
    }

    fn jwk(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.private {
            Private::Ec(pair, curve, _) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Private::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
            Private::Rsa(pair) => {
                let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "n": b64(&public.n), "e": b64(&public.e)})
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Ec(pair, ..) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Private::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding =
                    if alg == "PS256" { &signature::RSA_PSS_SHA256 } else { &signature::RSA_PKCS1_SHA256 };
                let mut out = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut out).unwrap();
                out
            }
        }
    }

    fn token(&self, claims: &Value) -> String {
        self.token_as(self.alg(), claims)
    }

    fn token_as(&self, alg: &str, claims: &Value) -> String {
        let header = json!({"alg": alg, "kid": self.kid, "typ": "at+jwt"}).to_string();
        self.token_of(alg, &header, &claims.to_string())
    }

    /// Signs exactly these texts.
    fn token_of(&self, alg: &str, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(alg, signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

fn jwks(keys: &[&TestKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn claims_for(issuer: &str) -> Value {
    json!({
        "iss": issuer, "sub": "dana", "aud": "exeat", "iat": now(), "exp": now() + 300, "jti": "t-1",
        "groups": ["agents"], "act": {"sub": "agent-7", "act": {"sub": "outer-agent"}}
    })
}

fn claims() -> Value {
    claims_for(FILE_ISSUER)
}

// ---- an issuer with a key file

fn file_config(path: &Path) -> IssuerConfig {
    IssuerConfig { jwks: JwksSource::File(path.to_owned()), ..IssuerConfig::new(FILE_ISSUER, "exeat") }
}

struct FileIssuer {
    verifier: Arc<Verifier>,
    folder: tempfile::TempDir,
}

impl FileIssuer {
    fn new(keys: &[&TestKey]) -> Self {
        Self::with(keys, |config| config)
    }

    fn with(keys: &[&TestKey], change: impl FnOnce(IssuerConfig) -> IssuerConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, jwks(keys)).unwrap();
        let timing = Timing { answer_within: Duration::ZERO, ..Timing::default() };
        let verifier = Arc::new(Verifier::with_timing(vec![change(file_config(&path))], timing).unwrap());
        Self { verifier, folder }
    }

    async fn verify(&self, token: &str) -> Result<Verified, IdentityError> {
        self.verifier.verify(token).await
    }

    async fn refusal(&self, token: &str) -> IdentityError {
        match self.verify(token).await {
            Ok(verified) => panic!("accepted as {:?}", verified.principal),
            Err(error) => error,
        }
    }
}

#[tokio::test]
async fn every_default_algorithm_verifies_under_its_own_key_only() {
    let rsa = TestKey::rsa("r");
    let keys = [TestKey::es256("a"), TestKey::es384("b"), TestKey::ed25519("c"), rsa];
    let issuer = FileIssuer::new(&keys.iter().collect::<Vec<_>>());
    for key in &keys {
        let verified = issuer.verify(&key.token(&claims())).await.unwrap();
        assert_eq!(verified.principal.subject, "dana");
        for kid in keys.iter().map(|other| &other.kid).filter(|kid| **kid != key.kid) {
            let header = json!({"alg": key.alg(), "kid": kid}).to_string();
            let token = key.token_of(key.alg(), &header, &claims().to_string());
            assert!(matches!(issuer.refusal(&token).await, IdentityError::UnknownKey { .. }));
        }
    }
    let pss = keys[3].token_as("PS256", &claims());
    assert!(issuer.verify(&pss).await.is_ok());
}

#[tokio::test]
async fn the_principal_is_what_the_token_says() {
    let key = TestKey::es256("a");
    let token = key.token(&claims());
    let verified = FileIssuer::new(&[&key]).verify(&token).await.unwrap();
    let principal = &verified.principal;
    assert_eq!((principal.issuer.as_str(), principal.subject.as_str()), (FILE_ISSUER, "dana"));
    assert_eq!(principal.groups, ["agents"]);
    assert_eq!(principal.actor.as_deref(), Some("agent-7"));
    assert_eq!(principal.claims["aud"], "exeat");
    assert_eq!(verified.token_ref.jti.as_deref(), Some("t-1"));
    assert_eq!(verified.token_ref.sha256_8, TokenRef::of_unverified(&token).sha256_8);
    assert_eq!(verified.token_ref.sha256_8.len(), 8);
    let exp = claims()["exp"].as_u64().unwrap();
    let ends = verified.expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(ends.abs_diff(exp) <= 2, "{ends} {exp}");
}

#[tokio::test]
async fn unsigned_symmetric_and_swapped_algorithms_are_refused() {
    let (key, rsa) = (TestKey::es256("a"), TestKey::rsa("r"));
    let issuer = FileIssuer::new(&[&key, &rsa]);
    let claims = claims().to_string();
    let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);

    for alg in ["none", "None", "NONE", ""] {
        let unsigned = format!("{}.{}.", b64(&json!({"alg": alg, "kid": "a"}).to_string()), b64(&claims));
        assert!(matches!(issuer.refusal(&unsigned).await, IdentityError::AlgorithmNotAllowed { .. }), "{alg}");
    }
    // The public key as an HMAC secret, in every form an attacker can get it.
    let public = key.jwk().to_string();
    let Private::Ec(pair, ..) = &key.private else { unreachable!() };
    for secret in [public.as_bytes(), pair.public_key().as_ref(), jwks(&[&key]).as_bytes()] {
        let signed = format!("{}.{}", b64(r#"{"alg":"HS256","kid":"a"}"#), b64(&claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert!(matches!(issuer.refusal(&token).await, IdentityError::AlgorithmNotAllowed { .. }));
    }
    // A PKCS #1 signature called PSS, and a signature by the right kind of key that is not the issuer's.
    let header = r#"{"alg":"PS256","kid":"r"}"#;
    let token = rsa.token_of("RS256", header, &claims);
    assert!(matches!(issuer.refusal(&token).await, IdentityError::BadSignature { .. }));
    let forged = TestKey::es256("a").token(&claims_for(FILE_ISSUER));
    assert!(matches!(issuer.refusal(&forged).await, IdentityError::BadSignature { .. }));
}

#[tokio::test]
async fn the_issuers_own_list_of_algorithms_decides() {
    let key = TestKey::es256("a");
    let only = |algorithm| FileIssuer::with(&[&key], |config| IssuerConfig { algorithms: vec![algorithm], ..config });
    assert!(only(Algorithm::Es256).verify(&key.token(&claims())).await.is_ok());
    let refusal = only(Algorithm::Rs256).refusal(&key.token(&claims())).await;
    let expected = IdentityError::AlgorithmNotAllowed { name: "ES256".to_owned(), issuer: FILE_ISSUER.to_owned() };
    assert_eq!(refusal, expected);
}

#[tokio::test]
async fn keys_carried_by_the_token_are_not_believed() {
    let (key, mine) = (TestKey::es256("a"), TestKey::es256("a"));
    let issuer = FileIssuer::new(&[&key]);
    let header = json!({"alg": "ES256", "kid": "a", "jwk": mine.jwk(), "jku": "http://127.0.0.1:1/keys"}).to_string();
    let token = mine.token_of("ES256", &header, &claims().to_string());
    assert!(matches!(issuer.refusal(&token).await, IdentityError::BadSignature { .. }));
}

#[tokio::test]
async fn duplicated_members_are_refused_even_when_signed() {
    let key = TestKey::es256("a");
    let issuer = FileIssuer::new(&[&key]);
    let good = claims().to_string();
    let twice = good.replacen('{', r#"{"sub":"admin","#, 1);
    let nested = good.replacen(r#""act":{"#, r#""act":{"sub":"admin","#, 1);
    for (header, claims) in [
        (r#"{"alg":"ES256","kid":"a","kid":"b"}"#, good.as_str()),
        (r#"{"alg":"ES256","kid":"a"}"#, twice.as_str()),
        (r#"{"alg":"ES256","kid":"a"}"#, nested.as_str()),
    ] {
        let refusal = issuer.refusal(&key.token_of("ES256", header, claims)).await;
        assert!(matches!(refusal, IdentityError::Malformed { .. }), "{refusal}");
    }
    assert!(issuer.verify(&key.token_of("ES256", r#"{"alg":"ES256","kid":"a"}"#, &good)).await.is_ok());
}

#[tokio::test]
async fn the_issuer_is_exact_and_its_keys_are_its_own() {
    let (a, b) = (TestKey::es256("same"), TestKey::es256("same"));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, key: &TestKey| {
        let path = folder.path().join(name);
        std::fs::write(&path, jwks(&[key])).unwrap();
        path
    };
    let config =
        |issuer: &str, path| IssuerConfig { jwks: JwksSource::File(path), ..IssuerConfig::new(issuer, "exeat") };
    let verifier = Verifier::new(vec![
        config("https://a.example.com", write("a", &a)),
        config("https://b.example.com", write("b", &b)),
    ])
    .unwrap();
    let verify = async |key: &TestKey, issuer: &str| verifier.verify(&key.token(&claims_for(issuer))).await.map(|_| ());
    assert_eq!(verify(&a, "https://a.example.com").await, Ok(()));
    assert_eq!(verify(&b, "https://b.example.com").await, Ok(()));
    for (key, issuer) in [(&a, "https://b.example.com"), (&b, "https://a.example.com")] {
        assert!(matches!(verify(key, issuer).await, Err(IdentityError::BadSignature { .. })));
    }
    for issuer in ["https://a.example.com/", "https://A.example.com", "https://c.example.com", ""] {
        assert!(matches!(verify(&a, issuer).await, Err(IdentityError::UnknownIssuer { .. })), "{issuer}");
    }
    let mut without = claims();
    without.as_object_mut().unwrap().remove("iss");
    let error = verifier.verify(&a.token(&without)).await.unwrap_err();
    assert_eq!(error, IdentityError::Claim { claim: "iss".to_owned(), problem: "is missing" });
}

#[tokio::test]
async fn two_keys_of_one_kid_both_verify_and_each_is_trusted_for_itself() {
    let (first, second) = (TestKey::es256("k"), TestKey::es256("k"));
    let issuer = FileIssuer::new(&[&first, &second]);
    let of_first = issuer.verify(&first.token(&claims())).await.unwrap();
    let of_second = issuer.verify(&second.token(&claims())).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Arc::clone(&issuer.verifier).run(stopped));
    // The kid stays, the first key goes: sessions of the second go on.
    std::fs::write(issuer.folder.path().join("keys.json"), jwks(&[&second])).unwrap();
    until(|| issuer.verifier.still_valid(&of_first).is_err()).await;
    let removed = IdentityError::KeyRemoved { issuer: FILE_ISSUER.to_owned() };
    assert_eq!(issuer.verifier.still_valid(&of_first), Err(removed));
    assert_eq!(issuer.verifier.still_valid(&of_second), Ok(()));
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_session_ends_with_its_token_or_at_the_longest_duration() {
    let key = TestKey::es256("a");
    let issuer = FileIssuer::new(&[&key]);
    let mut soon = claims();
    soon["exp"] = json!(now() + 1);
    let verified = issuer.verify(&key.token(&soon)).await.unwrap();
    until(|| issuer.verifier.still_valid(&verified).is_err()).await;
    assert!(matches!(issuer.verifier.still_valid(&verified), Err(IdentityError::Expired { .. })));

    let bounded = FileIssuer::with(&[&key], |config| IssuerConfig { session_max: Some(Duration::ZERO), ..config });
    let verified = bounded.verify(&key.token(&claims())).await.unwrap();
    assert!(matches!(bounded.verifier.still_valid(&verified), Err(IdentityError::SessionTooLong { .. })));
    assert!(verified.expires_at <= SystemTime::now());
}

#[tokio::test]
async fn nothing_that_is_shown_contains_the_token() {
    let key = TestKey::es256("a");
    let issuer = FileIssuer::new(&[&key]);
    let token = key.token(&claims());
    let mut shown = format!("{:?} {:?}", issuer.verify(&token).await.unwrap(), issuer.verifier);
    let tampered = format!("{}AAAA", token.split_at(token.len() - 4).0);
    let mut expired = claims();
    expired["exp"] = json!(now() - 3600);
    expired["iat"] = json!(now() - 7200);
    for bad in [tampered.clone(), key.token(&expired), token.replacen('.', "", 1), token.to_uppercase()] {
        let error = issuer.refusal(&bad).await;
        shown += &format!(" {error} {error:?} {} {}", error.hint(), error.reason_code());
    }
    for part in token.split('.').chain(tampered.split('.')) {
        assert!(!shown.contains(part.split_at(part.len() / 2).0), "{shown}");
    }
}

#[tokio::test]
async fn hostile_names_are_shown_bounded_and_escaped() {
    let key = TestKey::es256("a");
    let issuer = FileIssuer::new(&[&key]);
    let mut claims = claims();
    claims["iss"] = json!(format!("evil\n2026-01-01 ERROR {}", "x".repeat(5000)));
    let text = issuer.refusal(&key.token(&claims)).await.to_string();
    assert!(!text.contains('\n') && text.len() < 400, "{text}");
}

#[test]
fn mistakes_of_the_configuration_are_reported_together() {
    let config = |issuer: &str| IssuerConfig::new(issuer, "exeat");
    let no_audience = IssuerConfig { audience: vec![], ..config("https://b.example.com") };
    let missing = IssuerConfig { jwks: JwksSource::File("/nowhere/keys.json".into()), ..config("cluster") };
    let bad_ca = IssuerConfig { ca: Some("/nowhere/ca.pem".into()), ..config("https://d.example.com") };
    let errors = Verifier::new(vec![
        config("http://idp.example.com"),
        config("ftp://idp.example.com"),
        config("https://user:pw@idp.example.com"),
        no_audience.clone(),
        no_audience,
        missing,
        bad_ca,
    ])
    .unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 7, "{texts:#?}");
    for (text, part) in texts.iter().zip([
        "not loopback",
        "scheme \"ftp\"",
        "user, query",
        "no audience",
        "configured twice",
        "could not read jwks_file \"/nowhere/keys.json\"",
        "could not read CA file \"/nowhere/ca.pem\"",
    ]) {
        assert!(text.contains(part), "{text} should contain {part}");
    }
    assert!(matches!(Verifier::new(vec![]).unwrap_err()[..], [IssuerConfigError::NoIssuer]));
}

/// Waits for a condition another task brings about.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// ---- an issuer on the network

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
        let acceptor = tls.map(ServerTls::acceptor);
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
