//! Which tokens of an issuer with a key file are believed, and for how long.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::KeyPair;
use serde_json::json;
use tokio::sync::watch;

use super::super::issuer::Timing;
use super::super::*;
use super::{FILE_ISSUER, Private, TestKey, claims, claims_for, jwks, now, until};

fn file_config(path: &Path) -> IssuerConfig {
    IssuerConfig { jwks: JwksSource::File(path.to_owned()), ..IssuerConfig::new(FILE_ISSUER, "exeat") }
}

pub(super) struct FileIssuer {
    pub(super) verifier: Arc<Verifier>,
    pub(super) folder: tempfile::TempDir,
}

impl FileIssuer {
    pub(super) fn new(keys: &[&TestKey]) -> Self {
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

    pub(super) async fn verify(&self, token: &str) -> Result<Verified, IdentityError> {
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
