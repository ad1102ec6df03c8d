//! The demo's own token issuer: a key made at start that lives in this process's memory and nowhere else.
//!
//! The gateway trusts it like any other issuer, through a JWKS file with the public half. This is the only place
//! in the program that can sign a token, it belongs to the `demo` command, and a build without the feature `demo`
//! does not contain it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

/// What the demo's tokens and its configuration agree on.
pub(super) const ISSUER: &str = "https://demo.exeat.invalid";
pub(super) const AUDIENCE: &str = "exeat-demo";

/// A working day: long enough to play, short enough to be worthless tomorrow.
const TOKEN_SECONDS: u64 = 8 * 60 * 60;

const KEY_ID: &str = "demo";

/// Length of an uncompressed P-256 point: a tag and two coordinates.
const POINT_BYTES: usize = 65;
const COORDINATE_BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("could not make the demo's signing key: the system gives no randomness")]
    Key,
    #[error("could not sign a token: the system gives no randomness")]
    Sign,
    #[error("the system clock stands before 1970; set it")]
    Clock,
}

/// One of the demo's identities.
#[derive(Debug, Clone, Copy)]
pub(super) struct Persona {
    pub(super) subject: &'static str,
    pub(super) group: &'static str,
}

pub(super) const AGENT: Persona = Persona { subject: "agent-7", group: "agents" };
pub(super) const OFFICER: Persona = Persona { subject: "dana", group: "dpo" };

pub(super) struct Issuer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    pub(super) fn new() -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| TokenError::Key)?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).map_err(|_| TokenError::Key)?;
        Ok(Self { key, random })
    }

    /// The public half, as the gateway reads it.
    pub(super) fn jwks(&self) -> Result<String, TokenError> {
        let point = self.key.public_key().as_ref();
        let coordinates = point.split_first().filter(|_| point.len() == POINT_BYTES).map(|(_tag, rest)| rest);
        let (x, y) = coordinates.and_then(|rest| rest.split_at_checked(COORDINATE_BYTES)).ok_or(TokenError::Key)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y});
        Ok(json!({"keys": [key]}).to_string())
    }

    pub(super) fn token(&self, persona: Persona) -> Result<String, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| TokenError::Clock)?.as_secs();
        let header = json!({"alg": "ES256", "kid": KEY_ID, "typ": "at+jwt"});
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": persona.subject, "groups": [persona.group],
            "iat": now, "exp": now + TOKEN_SECONDS, "jti": format!("demo-{}-{now}", persona.subject),
        });
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(|_| TokenError::Sign)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_token_verifies_with_the_published_key_only() {
        let issuer = Issuer::new().unwrap();
        let token = issuer.token(AGENT).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();

        let jwks: serde_json::Value = serde_json::from_str(&issuer.jwks().unwrap()).unwrap();
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwks["keys"][0][name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let published = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        published.verify(signed.as_bytes(), &signature).unwrap();

        let other = Issuer::new().unwrap();
        let stranger = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, other.key.public_key().as_ref().to_vec());
        assert!(stranger.verify(signed.as_bytes(), &signature).is_err());
    }
}
