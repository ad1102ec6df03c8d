//! The verifier against real keys, files and a real HTTP server on loopback that plays the issuer. Here: the keys and
//! the tokens they sign.

mod file_issuer;
mod http_issuer;
mod lent;

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};

const FILE_ISSUER: &str = "https://idp.example.com";

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

/// Waits for a condition another task brings about.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
