//! Keys of signed notes (<https://c2sp.org/signed-note>), Ed25519 only: the half that signs, and the half that is
//! handed to auditors as one line of text, `<name>+<key id>+<key>`.
//! Makes no key: a seed comes from whoever keeps it, and no seed is ever shown.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::hex;

/// Names are said to be URLs without a scheme; whatever is longer is something else.
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// A line of text: name, id, the key in base64, and what stands between.
const KEY_TEXT_BYTES_MAX: usize = KEY_NAME_BYTES_MAX + 64;

const SEED_BYTES: usize = 32;

/// Ed25519 in the list of the specification's signature types.
const ED25519_TYPE: u8 = 0x01;

/// What stands before an Ed25519 key in a SubjectPublicKeyInfo: <https://www.rfc-editor.org/rfc/rfc8410.html#section-4>.
const ED25519_SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Who signs: not empty, no space of any kind, no control character, no plus. Best a URL without its scheme.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_NAME_BYTES_MAX {
            return Err(KeyError::NameTooLong { bytes: text.len() });
        }
        let wrong = |sign: char| sign == '+' || sign.is_whitespace() || sign.is_control();
        if text.is_empty() || text.contains(wrong) {
            return Err(KeyError::Name { name: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells the keys of one name apart. Short, and no proof of anything: only the key itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

impl KeyId {
    pub(super) const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }

    /// The first bytes of SHA-256(name ‖ LF ‖ type ‖ public key).
    fn of(name: &KeyName, kind: u8, public: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(name.as_str().as_bytes());
        context.update(&[b'\n', kind]);
        context.update(public);
        Self(context.finish().as_ref().first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

/// The public half of a key, by which auditors know the log's signatures. Written as text with `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    id: KeyId,
    public: [u8; ED25519_PUBLIC_KEY_LEN],
}

impl VerifierKey {
    /// `public` as RFC 8032 encodes it.
    pub fn new(name: KeyName, public: [u8; ED25519_PUBLIC_KEY_LEN]) -> Self {
        let id = KeyId::of(&name, ED25519_TYPE, &public);
        Self { name, id, public }
    }

    pub fn name(&self) -> &KeyName {
        &self.name
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// As RFC 8032 encodes it.
    pub fn public_key(&self) -> &[u8; ED25519_PUBLIC_KEY_LEN] {
        &self.public
    }

    /// For tools that know nothing of notes, `openssl pkeyutl -verify` for one: RFC 8410's form of an Ed25519 key.
    pub fn to_pem(&self) -> String {
        let der = [ED25519_SPKI_HEAD.as_slice(), &self.public].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    pub(super) fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(text, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = Vec::with_capacity(1 + ED25519_PUBLIC_KEY_LEN);
        key.push(ED25519_TYPE);
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, self.id, STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_TEXT_BYTES_MAX {
            return Err(KeyError::TextTooLong { bytes: text.len() });
        }
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        let name: KeyName = name.parse()?;
        let written = hex::decode(id).map(KeyId);
        // Digits are read in either case; only one is ever written.
        let written = written.filter(|written| written.to_string() == id);
        let written = written.ok_or_else(|| KeyError::Id { name: name.clone(), id: id.to_owned() })?;
        let key = STANDARD.decode(key).map_err(|_| KeyError::Base64 { name: name.clone() })?;
        let (kind, public) = key.split_first().ok_or_else(|| KeyError::Base64 { name: name.clone() })?;
        let computed = KeyId::of(&name, *kind, public);
        if written != computed {
            return Err(KeyError::OtherId { name, written, computed });
        }
        if *kind != ED25519_TYPE {
            return Err(KeyError::Type { name, kind: *kind });
        }
        let Ok(public) = public.try_into() else {
            return Err(KeyError::Length { name, bytes: public.len() });
        };
        Ok(Self { name, id: computed, public })
    }
}

/// A key that signs notes. Shows only its public half.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl SigningKey {
    /// `seed` is the private key of RFC 8032: 32 random bytes. The caller wipes its copy.
    pub fn from_seed(name: KeyName, seed: &[u8; SEED_BYTES]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Seed { name: name.clone() })?;
        let Ok(public) = pair.public_key().as_ref().try_into() else {
            return Err(KeyError::Seed { name });
        };
        Ok(Self { pair, verifier: VerifierKey::new(name, public) })
    }

    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(super) fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.pair.sign(text).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifier)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("key name of {bytes} bytes exceeds the limit of {KEY_NAME_BYTES_MAX}")]
    NameTooLong { bytes: usize },
    #[error("key name {name:?} is empty, or has a space, a control character or a plus sign")]
    Name { name: String },
    #[error("verifier key of {bytes} bytes exceeds the limit of {KEY_TEXT_BYTES_MAX}")]
    TextTooLong { bytes: usize },
    #[error("verifier key is not of the form <name>+<key id>+<key>")]
    Form,
    #[error("verifier key {name} has the id {id:?}, which is not eight hex digits in lower case")]
    Id { name: KeyName, id: String },
    #[error("verifier key {name} has a key that is not base64")]
    Base64 { name: KeyName },
    #[error("verifier key {name} has the id {written}, but its key has the id {computed}")]
    OtherId { name: KeyName, written: KeyId, computed: KeyId },
    #[error("verifier key {name} is of type {kind:#04x}; only Ed25519, {ED25519_TYPE:#04x}, is known")]
    Type { name: KeyName, kind: u8 },
    #[error("verifier key {name} has {bytes} bytes, but an Ed25519 key has {ED25519_PUBLIC_KEY_LEN}")]
    Length { name: KeyName, bytes: usize },
    #[error("seed of key {name} was refused")]
    Seed { name: KeyName },
}

#[cfg(test)]
mod tests {
    use super::*;

    // The key of the signed-note specification's example, and the one Go's implementation is tested with.
    const EXAMPLE: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_SEED: &str = "810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173";

    #[test]
    fn published_keys_are_read_and_written_as_they_are() {
        for text in [EXAMPLE, PETER] {
            assert_eq!(text.parse::<VerifierKey>().unwrap().to_string(), text);
        }
        let key: VerifierKey = EXAMPLE.parse().unwrap();
        assert_eq!((key.name().as_str(), key.id().to_string().as_str()), ("example.com/foo", "530d903a"));
    }

    // As `openssl pkey -pubout` writes the public key of that seed.
    #[test]
    fn a_key_is_given_to_other_tools_as_they_write_it() {
        let key: VerifierKey = PETER.parse().unwrap();
        let base64 = "MCowBQYDK2VwAyEAGlzZBxQ8OExB6DDFvOEqqIF+xWSaqr8sMTiLNbLXRNY=";
        assert_eq!(key.to_pem(), format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n"));
    }

    #[test]
    fn a_seed_gives_the_published_key_and_is_never_shown() {
        let seed = hex::decode(PETER_SEED).unwrap();
        let key = SigningKey::from_seed("PeterNeumann".parse().unwrap(), &seed).unwrap();
        assert_eq!(key.verifier().to_string(), PETER);
        assert_eq!(format!("{key:?}"), format!("SigningKey({PETER})"));
        let signature = key.sign(b"text");
        assert!(key.verifier().has_signed(b"text", &signature));
        assert!(!key.verifier().has_signed(b"texT", &signature));
        let another: VerifierKey = EXAMPLE.parse().unwrap();
        assert!(!another.has_signed(b"text", &signature));
    }

    // Every part of a key, every altered character, as Go's implementation is tested.
    #[test]
    fn a_key_with_anything_missing_or_altered_is_refused() {
        for start in 0..PETER.len() {
            for end in start..=PETER.len() {
                let part = PETER.get(start..end).unwrap();
                assert!(part == PETER || part.parse::<VerifierKey>().is_err(), "{part:?}");
            }
        }
        for at in 0..PETER.len() {
            for bit in 0..7 {
                let mut altered = PETER.as_bytes().to_vec();
                altered[at] ^= 1 << bit;
                let altered = String::from_utf8(altered).unwrap();
                assert!(altered.parse::<VerifierKey>().is_err(), "{altered:?}");
            }
        }
        for more in ["\n", " ", "+", "="] {
            assert!(format!("{PETER}{more}").parse::<VerifierKey>().is_err());
            assert!(format!("{more}{PETER}").parse::<VerifierKey>().is_err());
        }
    }

    #[test]
    fn the_error_says_which_part_of_a_key_is_wrong() {
        let refused = |text: &str| text.parse::<VerifierKey>().unwrap_err();
        assert_eq!(refused("PeterNeumann+c74f20a3"), KeyError::Form);
        assert!(matches!(refused(&PETER.replace("Neumann", " Neumann")), KeyError::Name { .. }));
        assert!(matches!(refused(&PETER.replace("c74f20a3", "C74F20A3")), KeyError::Id { .. }));
        assert!(matches!(refused(&PETER.replace("c74f20a3", "c74f20a")), KeyError::Id { .. }));
        assert!(matches!(refused(&PETER.replace("ARpc", "A.pc")), KeyError::Base64 { .. }));
        assert!(matches!(refused(&PETER.replace("Peter", "Petra")), KeyError::OtherId { .. }));
        // Another length and another type, with ids that fit.
        let long = "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==";
        assert!(matches!(refused(long), KeyError::Base64 { .. } | KeyError::Length { .. }));
        let other = "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert!(matches!(refused(other), KeyError::Type { kind: 0x65, .. }));
        assert!(matches!(refused(&"+".repeat(100_000)), KeyError::TextTooLong { bytes: 100_000 }));
    }

    #[test]
    fn names_that_would_break_a_line_are_refused() {
        for wrong in ["", " ", "a b", "a+b", "a\nb", "a\tb", "a\u{a0}b", "a\u{2028}b", "a\u{3000}", "a\u{7f}"] {
            assert!(matches!(wrong.parse::<KeyName>(), Err(KeyError::Name { .. })), "{wrong:?}");
        }
        for right in ["example.com/foo", "π", "— "] {
            assert_eq!(right.trim().parse::<KeyName>().unwrap().as_str(), right.trim());
        }
        assert!("a".repeat(KEY_NAME_BYTES_MAX).parse::<KeyName>().is_ok());
        assert!(matches!("a".repeat(KEY_NAME_BYTES_MAX + 1).parse::<KeyName>(), Err(KeyError::NameTooLong { .. })));
    }
}
