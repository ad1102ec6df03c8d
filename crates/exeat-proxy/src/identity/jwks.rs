//! A JWK set (RFC 7517) as the keys we can use. A key of another kind or purpose is left out, never an error: sets
//! are shared with other readers. A set that does not parse, or holds a secret key, is refused whole.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde_json::{Map, Value};

use super::json;
use super::jws::{Algorithm, PublicKey};

/// The largest published sets hold some dozens of keys.
const KEYS_MAX: usize = 200;

/// Bits of an RSA modulus: below is breakable, above is only a way to burn our time.
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

/// SHA-256 over kind and key material. A session remembers this and not the kid: a kid can be given to another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    /// `alg` of the JWK: the key is for this algorithm alone.
    algorithm: Option<Algorithm>,
    pub(super) public: PublicKey,
    pub(super) fingerprint: Fingerprint,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let set = json::parse_object(bytes).map_err(|reason| format!("key set is malformed: {reason}"))?;
        let Some(Value::Array(members)) = set.get("keys") else {
            return Err("key set has no \"keys\" list".to_owned());
        };
        if members.len() > KEYS_MAX {
            return Err(format!("key set has {} keys, more than the limit of {KEYS_MAX}", members.len()));
        }
        let mut keys: Vec<Key> = Vec::new();
        for member in members {
            let Value::Object(jwk) = member else {
                return Err("key set has a member that is not a JSON object".to_owned());
            };
            // `d` of RSA, EC and OKP keys, `k` of symmetric ones.
            if jwk.contains_key("d") || jwk.contains_key("k") {
                return Err("key set contains a private or symmetric key; publish public keys only".to_owned());
            }
            if let Some(key) = usable_key(jwk)
                && !keys.contains(&key)
            {
                keys.push(key);
            }
        }
        Ok(Self { keys })
    }

    /// Keys that may have signed a token with this header. Without a kid only an unambiguous key counts.
    pub(super) fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<&Key> {
        let usable = |key: &&Key| key.public.fits(algorithm) && key.algorithm.is_none_or(|only| only == algorithm);
        match kid {
            Some(kid) => self.keys.iter().filter(usable).filter(|key| key.kid.as_deref() == Some(kid)).collect(),
            None => {
                let all: Vec<&Key> = self.keys.iter().filter(usable).collect();
                if all.len() == 1 { all } else { Vec::new() }
            }
        }
    }

    pub(super) fn holds(&self, fingerprint: &Fingerprint) -> bool {
        self.keys.iter().any(|key| key.fingerprint == *fingerprint)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

fn usable_key(jwk: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if jwk.contains_key("use") && text("use") != Some("sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops") {
        operations.as_array()?.iter().find(|operation| operation.as_str() == Some("verify"))?;
    }
    let algorithm = match jwk.get("alg") {
        None => None,
        Some(name) => Some(Algorithm::from_name(name.as_str()?)?),
    };
    let kid = match jwk.get("kid") {
        None => None,
        Some(kid) => Some(kid.as_str()?.to_owned()),
    };
    let public = public_key(jwk)?;
    if algorithm.is_some_and(|algorithm| !public.fits(algorithm)) {
        return None;
    }
    let fingerprint = fingerprint(&public);
    Some(Key { kid, algorithm, public, fingerprint })
}

fn public_key(jwk: &Map<String, Value>) -> Option<PublicKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let coordinate = |name: &str, length: usize| bytes(name).filter(|bytes| bytes.len() == length);
    let point = |length: usize| {
        let mut point = vec![4];
        point.extend(coordinate("x", length)?);
        point.extend(coordinate("y", length)?);
        Some(point)
    };
    match (text("kty")?, text("crv")) {
        ("RSA", None) => rsa_key(bytes("n")?, bytes("e")?),
        ("EC", Some("P-256")) => point(32).map(PublicKey::P256),
        ("EC", Some("P-384")) => point(48).map(PublicKey::P384),
        ("OKP", Some("Ed25519")) => coordinate("x", 32).map(PublicKey::Ed25519),
        _ => None,
    }
}

fn rsa_key(modulus: Vec<u8>, exponent: Vec<u8>) -> Option<PublicKey> {
    // Some issuers keep the sign byte of their big-integer library; ring refuses leading zeros.
    let modulus: Vec<u8> = modulus.into_iter().skip_while(|byte| *byte == 0).collect();
    let bits = modulus.len() * 8;
    (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits).then_some(PublicKey::Rsa { modulus, exponent })
}

fn fingerprint(key: &PublicKey) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    match key {
        PublicKey::Rsa { modulus, exponent } => {
            context.update(b"rsa:");
            context.update(exponent);
            context.update(b":");
            context.update(modulus);
        }
        PublicKey::P256(point) => {
            context.update(b"p-256:");
            context.update(point);
        }
        PublicKey::P384(point) => {
            context.update(b"p-384:");
            context.update(point);
        }
        PublicKey::Ed25519(key) => {
            context.update(b"ed25519:");
            context.update(key);
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Fingerprint(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // Points of RFC 7515 A.3 and RFC 8037 A.2.
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
    const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn parse(keys: Value) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn ec(extra: Value) -> Value {
        let mut key = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "a"});
        key.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        key
    }

    #[test]
    fn keys_for_verifying_are_kept_and_others_left_out() {
        let modulus = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        let kept = [
            ec(json!({})),
            ec(json!({"use": "sig", "alg": "ES256", "key_ops": ["verify"]})),
            json!({"kty": "OKP", "crv": "Ed25519", "x": ED}),
            json!({"kty": "RSA", "n": modulus(256), "e": "AQAB"}),
        ];
        for key in kept {
            assert_eq!(parse(json!([key])).map(|set| set.len()), Ok(1), "{key}");
        }
        let left_out = [
            ec(json!({"use": "enc"})),
            ec(json!({"use": 1})),
            ec(json!({"key_ops": ["encrypt"]})),
            ec(json!({"alg": "HS256"})),
            ec(json!({"alg": "RS256"})),
            ec(json!({"crv": "P-521"})),
            ec(json!({"x": "AAAA"})),
            ec(json!({"kid": 5})),
            json!({"kty": "OKP", "crv": "X25519", "x": ED}),
            json!({"kty": "RSA", "n": modulus(128), "e": "AQAB"}),
            json!({"kty": "RSA", "n": modulus(2048), "e": "AQAB"}),
            json!({"kty": "XYZ"}),
            json!({}),
        ];
        for key in left_out {
            assert_eq!(parse(json!([key])).map(|set| set.len()), Ok(0), "{key}");
        }
    }

    #[test]
    fn sets_with_secrets_or_of_another_shape_are_refused() {
        assert!(parse(json!([{"kty": "oct", "k": "AAAA"}])).unwrap_err().contains("symmetric"));
        assert!(parse(json!([ec(json!({"d": "AAAA"}))])).unwrap_err().contains("private"));
        assert!(parse(json!(["x"])).is_err());
        assert!(parse(json!({})).is_err());
        assert!(KeySet::parse(b"{}").is_err());
        assert!(KeySet::parse(br#"{"keys":[],"keys":[]}"#).is_err());
        assert!(parse(json!(vec![json!({}); KEYS_MAX + 1])).unwrap_err().contains("limit"));
    }

    #[test]
    fn a_key_is_found_by_kid_and_algorithm_and_without_kid_only_when_alone() {
        let two = parse(json!([ec(json!({})), {"kty": "OKP", "crv": "Ed25519", "x": ED, "kid": "a"}])).unwrap();
        assert_eq!(two.candidates(Some("a"), Algorithm::Es256).len(), 1);
        assert_eq!(two.candidates(Some("a"), Algorithm::EdDsa).len(), 1);
        assert_eq!(two.candidates(Some("a"), Algorithm::Es384).len(), 0);
        assert_eq!(two.candidates(Some("A"), Algorithm::Es256).len(), 0);
        assert_eq!(two.candidates(None, Algorithm::Es256).len(), 1);
        let ambiguous = parse(json!([ec(json!({})), ec(json!({"kid": "b", "x": Y, "y": X}))])).unwrap();
        assert_eq!(ambiguous.candidates(None, Algorithm::Es256).len(), 0);
        let listed_twice = parse(json!([ec(json!({})), ec(json!({}))])).unwrap();
        assert_eq!(listed_twice.len(), 1);
    }
}
