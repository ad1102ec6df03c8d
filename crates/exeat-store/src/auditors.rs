//! Seals for the auditors: what the gateway itself must not be able to read again once it is written. In the age format
//! (age-encryption.org/v1) for X25519 recipients, so that `age --decrypt` opens it with the key that only the auditors
//! hold; a gateway has the public half alone. Never opens anything.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::StoreError;

const POINT_BYTES: usize = 32;
const FILE_KEY_BYTES: usize = 16;
const PAYLOAD_NONCE_BYTES: usize = 16;

/// The format seals in chunks of 64 KiB; what is sealed here fits one.
pub const SEALED_BYTES_MAX: usize = 64 * 1024;

/// Recipients of one target are people, not machines.
pub const AUDITORS_MAX: usize = 16;

/// Characters of a recipient's data part, with its checksum.
const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM_CHARACTERS: usize = 6;

/// The public half of an auditor's key: `age1…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auditor([u8; POINT_BYTES]);

/// Who may read what is sealed. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auditors(Vec<Auditor>);

impl Auditor {
    /// `None`: no age recipient of kind X25519, or one with a typing mistake.
    pub fn parse(text: &str) -> Option<Self> {
        let data: Vec<u8> = text
            .strip_prefix("age1")?
            .bytes()
            .map(|byte| CHARSET.iter().position(|known| *known == byte).and_then(|at| u8::try_from(at).ok()))
            .collect::<Option<_>>()?;
        let digits = data.len().checked_sub(CHECKSUM_CHARACTERS)?;
        (checksum(&data) == 1).then_some(())?;
        bytes_of(data.get(..digits)?).map(Self)
    }
}

impl Auditors {
    pub fn new(auditors: Vec<Auditor>) -> Option<Self> {
        (1..=AUDITORS_MAX).contains(&auditors.len()).then_some(Self(auditors))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// At most `SEALED_BYTES_MAX`.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        if plain.len() > SEALED_BYTES_MAX {
            return Err(StoreError::Sealing);
        }
        let mut file_key = Zeroizing::new([0; FILE_KEY_BYTES]);
        random(file_key.as_mut_slice())?;
        let mut out = b"age-encryption.org/v1\n".to_vec();
        for auditor in &self.0 {
            stanza(auditor, file_key.as_slice(), &mut out)?;
        }
        out.extend_from_slice(b"---");
        let header = hmac::Key::new(hmac::HMAC_SHA256, derived(&[], file_key.as_slice(), b"header")?.as_slice());
        let mac = hmac::sign(&header, &out);
        out.extend_from_slice(format!(" {}\n", STANDARD_NO_PAD.encode(mac.as_ref())).as_bytes());
        let mut nonce = [0; PAYLOAD_NONCE_BYTES];
        random(&mut nonce)?;
        out.extend_from_slice(&nonce);
        // The last chunk, and the first: a counter of zero, and the mark of the last.
        let mut chunk_nonce = [0; NONCE_LEN];
        if let Some(last) = chunk_nonce.last_mut() {
            *last = 1;
        }
        let payload = derived(&nonce, file_key.as_slice(), b"payload")?;
        encrypt(&payload, chunk_nonce, plain, &mut out)?;
        Ok(out)
    }
}

/// The file key, for one recipient.
fn stanza(auditor: &Auditor, file_key: &[u8], out: &mut Vec<u8>) -> Result<(), StoreError> {
    let secret = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| StoreError::NoRandomness)?;
    let share = secret.compute_public_key().map_err(|_| StoreError::Sealing)?;
    let salt = [share.as_ref(), &auditor.0].concat();
    let wrap = agree_ephemeral(secret, &UnparsedPublicKey::new(&X25519, &auditor.0), |shared| {
        derived(&salt, shared, b"age-encryption.org/v1/X25519")
    });
    let wrap = wrap.map_err(|_| StoreError::Sealing)??;
    let mut wrapped = Vec::with_capacity(FILE_KEY_BYTES + CHACHA20_POLY1305.tag_len());
    encrypt(&wrap, [0; NONCE_LEN], file_key, &mut wrapped)?;
    let (share, wrapped) = (STANDARD_NO_PAD.encode(share.as_ref()), STANDARD_NO_PAD.encode(wrapped));
    out.extend_from_slice(format!("-> X25519 {share}\n{wrapped}\n").as_bytes());
    Ok(())
}

fn derived(salt: &[u8], secret: &[u8], purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[purpose], HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut_slice()))
        .map_err(|_| StoreError::Sealing)?;
    Ok(key)
}

/// Each key seals one text: its nonce is fixed.
fn encrypt(key: &[u8; 32], nonce: [u8; NONCE_LEN], plain: &[u8], out: &mut Vec<u8>) -> Result<(), StoreError> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).map(LessSafeKey::new).map_err(|_| StoreError::Sealing)?;
    let start = out.len();
    out.extend_from_slice(plain);
    let body = out.get_mut(start..).ok_or(StoreError::Sealing)?;
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), body)
        .map_err(|_| StoreError::Sealing)?;
    out.extend_from_slice(tag.as_ref());
    Ok(())
}

fn random(bytes: &mut [u8]) -> Result<(), StoreError> {
    SystemRandom::new().fill(bytes).map_err(|_| StoreError::NoRandomness)
}

/// Bech32 (BIP 173) over the prefix "age" and these characters; 1 where none is mistyped.
fn checksum(data: &[u8]) -> u32 {
    const GENERATORS: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let prefix = b"age";
    let high = prefix.iter().map(|byte| byte >> 5);
    let low = prefix.iter().map(|byte| byte & 31);
    high.chain([0]).chain(low).chain(data.iter().copied()).fold(1, |state: u32, value| {
        let top = state >> 25;
        let shifted = (state & 0x01ff_ffff) << 5 ^ u32::from(value);
        let set = GENERATORS.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1);
        set.fold(shifted, |state, (_, generator)| state ^ generator)
    })
}

/// Five bits a character; what is left over is zero.
fn bytes_of(data: &[u8]) -> Option<[u8; POINT_BYTES]> {
    let mut bytes = Vec::with_capacity(POINT_BYTES);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for value in data {
        held = held << 5 | u32::from(*value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    (bits < 5 && held == 0).then_some(())?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the format's own description.
    const EXAMPLE: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    fn recipients_are_read_and_typing_mistakes_are_not() {
        let auditor = Auditor::parse(EXAMPLE).unwrap();
        assert_eq!(Auditors::new(vec![auditor; AUDITORS_MAX + 1]), None);
        for at in 4..EXAMPLE.len() {
            let mut wrong = EXAMPLE.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'q' { b'p' } else { b'q' };
            assert_eq!(Auditor::parse(std::str::from_utf8(&wrong).unwrap()), None, "{at}");
        }
        let data = EXAMPLE.strip_prefix("age1").unwrap();
        let (secret, cut) = (format!("AGE-SECRET-KEY-1{data}"), EXAMPLE.strip_suffix('p').unwrap());
        for other in ["", "age1", "age1q", data, cut, &EXAMPLE.to_uppercase(), &secret] {
            assert_eq!(Auditor::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_sealed_says_nothing_and_never_looks_the_same() {
        let auditors = Auditors::new(vec![Auditor::parse(EXAMPLE).unwrap(); 2]).unwrap();
        let plain = b"the same secret of forty characters here";
        let (one, other) = (auditors.seal(plain).unwrap(), auditors.seal(plain).unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with(b"age-encryption.org/v1\n-> X25519 "));
        assert!(!one.windows(6).any(|window| window == b"secret"));
        assert_eq!(one.len(), other.len());
        assert!(auditors.seal(&vec![0; SEALED_BYTES_MAX + 1]).is_err());
        assert_eq!(Auditors::new(Vec::new()), None);
    }
}
