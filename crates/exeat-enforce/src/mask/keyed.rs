//! Digests and tokens: what stands for a value and is equal where values are equal, under keys of one label at one
//! target. Keys are handed in; whoever has none gets the redacted constant instead.

use std::sync::Arc;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::kin::TypeKin;
use super::{JSONB_VERSION, bytea};
use exeat_wire::Format;

/// What every token begins with, so that whoever finds one knows what it is.
pub const TOKEN_PREFIX: &str = "ext_";

/// Bits of a digest that come out: enough that two values of one column never meet by chance.
const DIGEST_BYTES: usize = 16;

const ROOT_BYTES: usize = 32;
const SIV_KEY_BYTES: usize = 64;
/// Of a token's header: which key it was made with.
const KEY_ID_BYTES: usize = 3;
const TOKEN_VERSION: u8 = 1;
/// Version, key and authentication stand before what is encrypted.
const TOKEN_BYTES_MIN: usize = 1 + KEY_ID_BYTES + 16;
/// As many letters as that takes behind the prefix, six bits each.
pub(crate) const TOKEN_LETTERS_MIN: usize = (TOKEN_BYTES_MIN * 8).div_ceil(6);

/// The server's types of names hold no more.
const NAME_BYTES_MAX: usize = 63;

/// What the keys of all labels are derived from.
pub struct MaskKeys {
    root: Zeroizing<[u8; ROOT_BYTES]>,
}

impl std::fmt::Debug for MaskKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskKeys(hidden)")
    }
}

impl MaskKeys {
    pub fn new(root: Zeroizing<[u8; ROOT_BYTES]>) -> Self {
        Self { root }
    }

    /// What tells values apart without telling them, for one purpose.
    pub fn digest(&self, purpose: &str, bytes: &[u8]) -> [u8; ROOT_BYTES] {
        let mut mac = hmac(&self.root);
        for part in [b"digest v1".as_slice(), purpose.as_bytes(), bytes] {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Values of one label are the same person's wherever the label is: they share their keys within a target.
    pub fn label(&self, target: &str, label: &str) -> Arc<LabelKeys> {
        let derive = |purpose: &str| {
            let mut mac = hmac(&self.root);
            for part in [purpose, target, label] {
                // The length in front keeps ("a", "bc") and ("ab", "c") apart.
                mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                mac.update(part.as_bytes());
            }
            Zeroizing::new(<[u8; ROOT_BYTES]>::from(mac.finalize().into_bytes()))
        };
        let mut siv = Zeroizing::new([0; SIV_KEY_BYTES]);
        let (mac, encryption) = (derive("token mac v1"), derive("token encryption v1"));
        for (to, from) in siv.iter_mut().zip(mac.iter().chain(encryption.iter())) {
            *to = *from;
        }
        let id = derive("token key id v1");
        let id = id.first_chunk::<KEY_ID_BYTES>().copied().unwrap_or_default();
        Arc::new(LabelKeys { hash: hmac(&derive("hash v1")), siv, id })
    }
}

/// The keys of one label at one target.
pub struct LabelKeys {
    hash: Hmac<Sha256>,
    siv: Zeroizing<[u8; SIV_KEY_BYTES]>,
    id: [u8; KEY_ID_BYTES],
}

impl std::fmt::Debug for LabelKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LabelKeys(hidden)")
    }
}

/// What is digested or encrypted. A NULL that hides must not be the empty value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    Null,
    Value(&'a [u8]),
}

impl LabelKeys {
    fn digest(&self, input: Input<'_>) -> [u8; DIGEST_BYTES] {
        let mut mac = self.hash.clone();
        match input {
            Input::Null => mac.update(&[0]),
            Input::Value(value) => {
                mac.update(&[1]);
                mac.update(value);
            }
        }
        mac.finalize().into_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// `None`: the library would not encrypt it.
    fn token(&self, input: Input<'_>) -> Option<String> {
        let (header, value) = header_of(input);
        let sealed = self.cipher()?.encrypt([header], value).ok()?;
        let token = [&[TOKEN_VERSION][..], &self.id, &sealed].concat();
        Some(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(token)))
    }

    fn cipher(&self) -> Option<Aes256Siv> {
        Aes256Siv::new_from_slice(self.siv.as_slice()).ok()
    }

    /// The value a token of this label stands for. `None`: it is none, or one of another label, or was tampered with.
    pub fn open(&self, token: &str) -> Option<Zeroizing<Vec<u8>>> {
        let token = decode(token)?;
        let sealed = token.strip_prefix(&[TOKEN_VERSION])?.strip_prefix(&self.id)?;
        let (header, _) = header_of(Input::Value(&[]));
        self.cipher()?.decrypt([header], sealed).ok().map(Zeroizing::new)
    }
}

fn header_of(input: Input<'_>) -> (&'static [u8], &[u8]) {
    match input {
        Input::Null => (b"exeat token v1 null", &[]),
        Input::Value(value) => (b"exeat token v1", value),
    }
}

fn decode(token: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(token.strip_prefix(TOKEN_PREFIX)?).ok()
}

/// Does a text have the shape of a token? Whose it is only its key can tell.
pub fn is_token(text: &str) -> bool {
    let shaped = |token: Vec<u8>| token.first() == Some(&TOKEN_VERSION) && token.len() >= TOKEN_BYTES_MIN;
    decode(text).is_some_and(shaped)
}

/// A key shorter than the digest's block is filled up with zeros, by HMAC's own definition.
fn hmac(key: &[u8; ROOT_BYTES]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    Hmac::new(&(*block).into())
}

/// The bytes that make two values of a type equal, whatever the format they come in.
pub(super) fn canonical<'a>(
    kin: TypeKin,
    format: Format,
    value: &'a [u8],
    decoded: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    match (kin, format) {
        (TypeKin::Text | TypeKin::Name, _) => std::str::from_utf8(value).ok().map(str::as_bytes),
        (TypeKin::PaddedText, _) => std::str::from_utf8(value).ok().map(|text| text.trim_end_matches(' ').as_bytes()),
        (TypeKin::Json, _) | (TypeKin::Jsonb, Format::Text) => std::str::from_utf8(value).ok().map(str::as_bytes),
        (TypeKin::Jsonb, Format::Binary) => {
            let text = value.strip_prefix(&[JSONB_VERSION])?;
            std::str::from_utf8(text).ok().map(str::as_bytes)
        }
        (TypeKin::Bytea, Format::Binary) => Some(value),
        (TypeKin::Bytea, Format::Text) => {
            *decoded = bytea::read(value)?;
            Some(decoded)
        }
        (TypeKin::Uuid, Format::Binary) => (value.len() == 16).then_some(value),
        (TypeKin::Uuid, Format::Text) => {
            let digits: Vec<u8> = value.iter().copied().filter(|byte| *byte != b'-').collect();
            *decoded = digits.chunks(2).map(bytea::pair).collect::<Option<Vec<u8>>>()?;
            (decoded.len() == 16).then_some(decoded)
        }
        (
            TypeKin::Date
            | TypeKin::Timestamp
            | TypeKin::Timestamptz
            | TypeKin::Int2
            | TypeKin::Int4
            | TypeKin::Int8
            | TypeKin::Float4
            | TypeKin::Float8
            | TypeKin::Numeric
            | TypeKin::Inet
            | TypeKin::Cidr
            | TypeKin::Other,
            _,
        ) => None,
    }
}

/// Whether digests can be written into the type.
pub(super) fn hashes(kin: TypeKin) -> bool {
    kin.is_text() || matches!(kin, TypeKin::Json | TypeKin::Jsonb | TypeKin::Bytea | TypeKin::Uuid)
}

/// Whether tokens can.
pub(super) fn tokens(kin: TypeKin) -> bool {
    kin.is_text() || kin == TypeKin::Bytea
}

pub(super) fn write_digest(keys: &LabelKeys, kin: TypeKin, format: Format, input: Input<'_>, out: &mut Vec<u8>) {
    let digest = keys.digest(input);
    match (kin, format) {
        (TypeKin::Bytea, Format::Binary) => out.extend_from_slice(&digest),
        (TypeKin::Bytea, Format::Text) => bytea::write(&digest, out),
        (TypeKin::Uuid, _) => write_uuid(digest, format, out),
        (TypeKin::Json, _) | (TypeKin::Jsonb, Format::Text) => quoted(&digest, out),
        (TypeKin::Jsonb, Format::Binary) => {
            out.push(JSONB_VERSION);
            quoted(&digest, out);
        }
        _ => bytea::write_hex(&digest, out),
    }
}

fn quoted(digest: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    bytea::write_hex(digest, out);
    out.push(b'"');
}

/// Marked as of a maker's own kind (version 8, RFC 9562), so that nobody takes it for the value it stands for.
fn write_uuid(mut digest: [u8; DIGEST_BYTES], format: Format, out: &mut Vec<u8>) {
    digest[6] = digest[6] & 0x0f | 0x80;
    digest[8] = digest[8] & 0x3f | 0x80;
    if format == Format::Binary {
        out.extend_from_slice(&digest);
        return;
    }
    for (index, byte) in digest.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        bytea::write_hex(std::slice::from_ref(byte), out);
    }
}

/// `false`: nothing was written, for the token does not fit the type.
pub(super) fn write_token(keys: &LabelKeys, kin: TypeKin, format: Format, input: Input<'_>, out: &mut Vec<u8>) -> bool {
    let Some(token) = keys.token(input) else { return false };
    if kin == TypeKin::Name && token.len() > NAME_BYTES_MAX {
        return false;
    }
    match (kin, format) {
        (TypeKin::Bytea, Format::Text) => bytea::write(token.as_bytes(), out),
        _ => out.extend_from_slice(token.as_bytes()),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seed: u8) -> MaskKeys {
        MaskKeys::new(Zeroizing::new([seed; ROOT_BYTES]))
    }

    #[test]
    fn tokens_open_under_their_own_label_only() {
        let label = keys(1).label("shop", "ssn");
        for value in [&b""[..], b"123-45-6789", &[b'x'; 5000]] {
            let token = label.token(Input::Value(value)).unwrap();
            assert!(token.starts_with(TOKEN_PREFIX) && is_token(&token));
            assert_eq!(label.open(&token).unwrap().as_slice(), value);
            assert_eq!(label.token(Input::Value(value)).unwrap(), token, "equal values, equal tokens");
            for other in [keys(1).label("shop", "card"), keys(1).label("crm", "ssn"), keys(2).label("shop", "ssn")] {
                assert!(other.open(&token).is_none());
                assert_ne!(other.token(Input::Value(value)).unwrap(), token);
            }
            let mut tampered = token.clone().into_bytes();
            let middle = tampered.len() / 2;
            tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
            assert!(label.open(std::str::from_utf8(&tampered).unwrap()).is_none());
        }
        assert!(label.open(&label.token(Input::Null).unwrap()).is_none(), "a NULL is no value to give back");
        for no_token in ["", "ext_", "ext_AAAA", "external", "ext_not base64!", "[redacted by exeat]"] {
            assert!(!is_token(no_token) && label.open(no_token).is_none(), "{no_token}");
        }
    }

    #[test]
    fn names_of_target_and_label_do_not_run_together() {
        let digest = |target: &str, label: &str| keys(1).label(target, label).digest(Input::Value(b"x"));
        assert_ne!(digest("a", "bc"), digest("ab", "c"));
        assert_eq!(digest("a", "bc"), digest("a", "bc"));
    }

    #[test]
    fn null_is_neither_digested_nor_sealed_as_the_empty_value() {
        let label = keys(1).label("shop", "ssn");
        assert_ne!(label.digest(Input::Null), label.digest(Input::Value(b"")));
        assert_ne!(label.digest(Input::Null), label.digest(Input::Value(&[0])));
        assert_ne!(label.token(Input::Null), label.token(Input::Value(b"")));
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let keys = keys(7);
        assert_eq!(format!("{keys:?} {:?}", keys.label("shop", "ssn")), "MaskKeys(hidden) LabelKeys(hidden)");
    }
}
