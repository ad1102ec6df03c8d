//! Compact JWS (RFC 7515) over ring: split, read the header, verify. Only asymmetric algorithms exist here, so
//! `none` and a public key used as an HMAC secret cannot even be expressed.
//!
//! Written over ring rather than a JWT library: a library would verify through a process-wide provider that panics
//! when missing, reads headers with duplicate members, and leaves claims, keys and key choice to us anyway.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};

use super::error::IdentityError;
use super::json;

/// Tokens of people in many groups reach 8 KiB; drivers send up to 60 KiB, but what is longer than this is refused
/// before it is parsed.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Key names are compared, recorded and shown: real ones have up to 64 characters.
const KID_BYTES_MAX: usize = 256;

/// Signature algorithms of RFC 7518 and RFC 8037 that a verifier with only public keys can check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// What an issuer may use when its configuration does not say.
    pub const DEFAULT: [Self; 5] = [Self::Rs256, Self::Ps256, Self::Es256, Self::Es384, Self::EdDsa];

    const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// By its name in a header, a JWK or the configuration. `none` and HS* have no value here on purpose.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            // RFC 9864's fully specified name of the only EdDSA curve supported.
            "Ed25519" => Some(Self::EdDsa),
            _ => Self::ALL.into_iter().find(|algorithm| algorithm.name() == name),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A public key of a JWKS, checked for size and shape. Its kind fixes the algorithms it can be used with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => matches!(self, Self::Rsa { .. }),
            Algorithm::Es256 => matches!(self, Self::P256(_)),
            Algorithm::Es384 => matches!(self, Self::P384(_)),
            Algorithm::EdDsa => matches!(self, Self::Ed25519(_)),
        }
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match self {
            Self::Rsa { modulus, exponent } => rsa_parameters(algorithm).is_some_and(|parameters| {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature).is_ok()
            }),
            Self::P256(point) => verifies(&signature::ECDSA_P256_SHA256_FIXED, point, message, signature),
            Self::P384(point) => verifies(&signature::ECDSA_P384_SHA384_FIXED, point, message, signature),
            Self::Ed25519(key) => verifies(&signature::ED25519, key, message, signature),
        }
    }
}

fn verifies(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => None,
    }
}

/// What the header says, for choosing a key. Keys and URLs it may carry (`jwk`, `jku`, `x5u`, `x5c`) are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// As written: the issuer's allow-list decides.
    pub(super) algorithm: String,
    pub(super) kid: Option<String>,
    /// `typ: at+jwt`: the issuer itself says that this is an access token (RFC 9068).
    pub(super) is_access_token: bool,
}

/// A token taken apart, signature not yet checked. No `Debug`: it holds the token.
pub(super) struct Unverified<'a> {
    pub(super) header: Header,
    /// Not to be believed before [`Unverified::verify`].
    pub(super) claims: Map<String, Value>,
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, IdentityError> {
        if token.is_empty() {
            return Err(IdentityError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(IdentityError::TooLarge { bytes: token.len() });
        }
        let not_a_token = |reason| IdentityError::NotAToken { reason };
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| not_a_token("it has no dots"))?;
        let (header, claims) = signed.split_once('.').ok_or_else(|| not_a_token("it has only two parts"))?;
        if claims.contains('.') {
            return Err(not_a_token("it has more than three parts (an encrypted token?)"));
        }
        Ok(Self {
            header: parse_header(json_part("header", header)?)?,
            claims: json_part("payload", claims)?,
            signed: signed.as_bytes(),
            signature: decode_part("signature", signature)?,
        })
    }

    /// Did the holder of `key` sign exactly this text with `algorithm`?
    pub(super) fn verify(&self, algorithm: Algorithm, key: &PublicKey) -> bool {
        key.verifies(algorithm, self.signed, &self.signature)
    }
}

fn decode_part(part: &'static str, text: &str) -> Result<Vec<u8>, IdentityError> {
    // The engine refuses padding and stray bits: one token, one spelling.
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| IdentityError::Malformed { part, reason: "it is not base64url without padding".to_owned() })
}

fn json_part(part: &'static str, text: &str) -> Result<Map<String, Value>, IdentityError> {
    json::parse_object(&decode_part(part, text)?).map_err(|reason| IdentityError::Malformed { part, reason })
}

fn parse_header(header: Map<String, Value>) -> Result<Header, IdentityError> {
    let malformed = |reason: String| IdentityError::Malformed { part: "header", reason };
    let Some(Value::String(algorithm)) = header.get("alg") else {
        return Err(malformed("it has no alg".to_owned()));
    };
    // `crit` lists extensions a reader must understand (RFC 7515, 4.1.11): we understand none. `enc` and `zip`
    // belong to encrypted tokens.
    if let Some(name) = ["crit", "enc", "zip"].into_iter().find(|name| header.contains_key(*name)) {
        return Err(malformed(format!("it carries \"{name}\", which is not supported")));
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
        Some(_) => return Err(malformed(format!("its kid is not a string of at most {KID_BYTES_MAX} bytes"))),
    };
    let typ = match header.get("typ") {
        None => None,
        Some(Value::String(typ)) => Some(typ.to_ascii_lowercase()),
        Some(_) => return Err(malformed("its typ is not a string".to_owned())),
    };
    // Tokens of other kinds are signed with the same keys (logout tokens, security events, DPoP proofs): explicit
    // typing (RFC 8725, 3.11) keeps them out.
    let is_access_token = match typ.as_deref() {
        None | Some("jwt" | "application/jwt") => false,
        Some("at+jwt" | "application/at+jwt") => true,
        Some(_) => return Err(malformed("its typ is neither JWT nor at+jwt".to_owned())),
    };
    Ok(Header { algorithm: algorithm.clone(), kid, is_access_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b64(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn header_of(json: &str) -> Result<Header, IdentityError> {
        Unverified::parse(&format!("{}.{}.AA", b64(json), b64("{}"))).map(|token| token.header)
    }

    #[test]
    fn algorithms_go_by_their_exact_names_and_none_or_hmac_do_not_exist() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        for name in ["none", "None", "HS256", "HS384", "HS512", "rs256", "ES256K", "ES512", "RSA-OAEP", ""] {
            assert_eq!(Algorithm::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn rfc_7515_example_a3_verifies_and_any_changed_byte_does_not() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let mut point = vec![4];
        point.extend(URL_SAFE_NO_PAD.decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU").unwrap());
        point.extend(URL_SAFE_NO_PAD.decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap());
        let key = PublicKey::P256(point);
        let parsed = Unverified::parse(token).unwrap();
        assert!(parsed.verify(Algorithm::Es256, &key));
        for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| *algorithm != Algorithm::Es256) {
            assert!(!parsed.verify(algorithm, &key), "{algorithm}");
        }
        let mut changed = Unverified::parse(token).unwrap();
        changed.signature[10] ^= 1;
        assert!(!changed.verify(Algorithm::Es256, &key));
        let other = token.replacen("eyJpc3Mi", "eyJpc3Ni", 1);
        assert!(Unverified::parse(&other).map_or(true, |token| !token.verify(Algorithm::Es256, &key)));
    }

    #[test]
    fn rfc_8037_example_a4_verifies() {
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key = PublicKey::Ed25519(URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap());
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(key.verifies(Algorithm::EdDsa, signed.as_bytes(), &signature));
        assert!(!key.verifies(Algorithm::EdDsa, b"other", &signature));
    }

    #[test]
    fn headers_of_access_tokens_pass() {
        let plain = Header { algorithm: "ES256".to_owned(), kid: Some("a".to_owned()), is_access_token: false };
        assert_eq!(header_of(r#"{"alg":"ES256","kid":"a"}"#), Ok(plain.clone()));
        assert_eq!(header_of(r#"{"alg":"ES256","kid":"a","typ":"jwt"}"#), Ok(plain.clone()));
        assert_eq!(
            header_of(r#"{"alg":"ES256","kid":"a","typ":"application/at+JWT"}"#),
            Ok(Header { is_access_token: true, ..plain })
        );
    }

    #[test]
    fn headers_not_understood_are_refused() {
        let long_kid = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(KID_BYTES_MAX + 1));
        for json in [
            r#"{}"#,
            r#"{"alg":1}"#,
            r#"{"alg":"ES256","alg":"none"}"#,
            r#"{"alg":"ES256","crit":["exp"]}"#,
            r#"{"alg":"ES256","enc":"A128GCM"}"#,
            r#"{"alg":"ES256","zip":"DEF"}"#,
            r#"{"alg":"ES256","kid":7}"#,
            r#"{"alg":"ES256","typ":"logout+jwt"}"#,
            r#"{"alg":"ES256","typ":"dpop+jwt"}"#,
            r#"{"alg":"ES256","typ":["JWT"]}"#,
            &long_kid,
        ] {
            assert!(
                matches!(header_of(json), Err(IdentityError::Malformed { part: "header", .. })),
                "{json}: {:?}",
                header_of(json)
            );
        }
    }

    #[test]
    fn texts_that_are_no_token_say_so() {
        let pass = |text: &str| Unverified::parse(text).map(|_| ());
        assert_eq!(pass(""), Err(IdentityError::Missing));
        assert_eq!(pass(&"a".repeat(TOKEN_BYTES_MAX + 1)), Err(IdentityError::TooLarge { bytes: TOKEN_BYTES_MAX + 1 }));
        for text in ["hunter2", "a.b", "a.b.c.d", "a.b.c.d.e"] {
            assert!(matches!(pass(text), Err(IdentityError::NotAToken { .. })), "{text}");
        }
        let (header, claims) = (b64(r#"{"alg":"ES256"}"#), b64("{}"));
        for text in [
            format!("{header}=.{claims}.AA"),
            format!("{header}.{claims}.A"),
            format!("{header}.{claims}.AB"),
            format!("{header}.{claims}.A+A/"),
            format!("{header}.{claims}.AA\n"),
            format!("{}.{claims}.AA", b64("[]")),
        ] {
            assert!(matches!(pass(&text), Err(IdentityError::Malformed { .. })), "{text}");
        }
    }
}
