//! Keys: one master key, and what is derived from it or wrapped by it.
//! The master lives in a folder of its own (or behind a secret source), outside the data it protects. A session's
//! record is sealed with a data key of its own, wrapped by the master, so that one session can be erased by
//! destroying one key. No key is ever shown, logged or written unwrapped, except the master's own file (0600).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::StoreError;
use crate::hex;
use crate::secret::SecretSource;
use crate::tree::SigningKey;

pub(crate) const KEY_BYTES: usize = 32;

/// Nonce, encrypted key, tag.
pub(crate) const WRAPPED_BYTES: usize = NONCE_LEN + KEY_BYTES + TAG_BYTES;

pub(crate) const TAG_BYTES: usize = 16;

const MASTER_FILE: &str = "master.key";

/// In data_dir: tells whether a master key is the one the data was sealed with, and nothing else about it.
pub(crate) const CHECK_FILE: &str = "key-check";

/// A key file holds 64 hex digits; whatever is longer is another file.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Where the master key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A folder (0700), made with a fresh key at first start.
    Folder(PathBuf),
    /// A secret of 32 bytes in hex or base64, kept by the operator.
    Master(SecretSource),
}

/// The master key and the keys derived from it.
pub struct KeySet {
    wrap: LessSafeKey,
    digest: hmac::Key,
    probes: hmac::Key,
    words: hmac::Key,
    memory: hmac::Key,
    masks: Master,
    signing: Master,
    /// What later signing keys come from: none of them from the one before it.
    rotations: Master,
    check: [u8; KEY_BYTES],
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySet(hidden)")
    }
}

/// A session's data key, in memory for as long as the session's record is written or read.
pub(crate) struct DataKey {
    key: LessSafeKey,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(hidden)")
    }
}

impl KeySet {
    /// Opens the keys, or makes them at first start. `data_dir` need not exist yet.
    pub fn open(source: &KeySource, data_dir: &Path) -> Result<Self, StoreError> {
        let master = match source {
            KeySource::Folder(folder) => master_of_folder(folder, data_dir)?,
            KeySource::Master(secret) => {
                let text = secret.resolve().map_err(|source| StoreError::MasterSource { source })?;
                parse_master(text.expose()).ok_or_else(|| StoreError::MasterShape { origin: secret.to_string() })?
            }
        };
        Self::derive(&master)
    }

    fn derive(master: &Master) -> Result<Self, StoreError> {
        let root = Salt::new(HKDF_SHA256, b"exeat master v1").extract(master.as_slice());
        let wrap = aead_key(expand(&root, b"wrap session keys v1")?.as_slice())?;
        let digest = hmac::Key::new(hmac::HMAC_SHA256, expand(&root, b"digest statements v1")?.as_slice());
        let probes = hmac::Key::new(hmac::HMAC_SHA256, expand(&root, b"digest probed values v1")?.as_slice());
        let words = hmac::Key::new(hmac::HMAC_SHA256, expand(&root, b"index words v1")?.as_slice());
        let memory = hmac::Key::new(hmac::HMAC_SHA256, expand(&root, b"signer memory v1")?.as_slice());
        let check = *expand(&root, b"recognise the master v1")?;
        let masks = expand(&root, b"mask values v1")?;
        let signing = expand(&root, b"sign checkpoints v1")?;
        let rotations = expand(&root, b"rotate signing keys v1")?;
        Ok(Self { wrap, digest, probes, words, memory, masks, signing, rotations, check })
    }

    /// What the keys of masks are derived from: the same values get the same tokens for as long as the master lives.
    pub fn mask_root(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        self.masks.clone()
    }

    /// What signs the log of this name, before any rotation.
    pub fn signing_key(&self, name: &str) -> Result<SigningKey, StoreError> {
        self.numbered_key(name, 0)
    }

    /// What signs it after so many rotations.
    pub fn numbered_key(&self, name: &str, number: u64) -> Result<SigningKey, StoreError> {
        let seed = match number {
            0 => self.signing.clone(),
            _ => {
                let root = Prk::new_less_safe(HKDF_SHA256, self.rotations.as_slice());
                expand(&root, format!("sign checkpoints v1 number {number}").as_bytes())?
            }
        };
        let key = name.parse().and_then(|name| SigningKey::from_seed(name, &seed));
        key.map_err(|source| StoreError::GatewayName { name: name.to_owned(), source })
    }

    /// A digest that only holders of the master can compute: a plain hash of a short literal could be guessed.
    pub(crate) fn digest(&self, text: &[u8]) -> hmac::Tag {
        hmac::sign(&self.digest, text)
    }

    /// The key under which probed values are told apart; the values themselves are kept nowhere.
    pub(crate) fn probes(&self) -> &hmac::Key {
        &self.probes
    }

    /// The key under which the signer knows its own memory again.
    pub(crate) fn memory(&self) -> &hmac::Key {
        &self.memory
    }

    /// The key under which an index knows the words of texts.
    pub(crate) fn words(&self) -> &hmac::Key {
        &self.words
    }

    /// Compares the master with the one the data was sealed with; writes the check at first start. `fresh` says
    /// that the data folder has no record yet. The caller holds the folder's lock.
    pub(crate) fn check(&self, data_dir: &Path, fresh: bool) -> Result<(), StoreError> {
        let path = data_dir.join(CHECK_FILE);
        let expected = hex::text(&self.check);
        match fs::read_to_string(&path) {
            Ok(found) if found.trim_end() == expected => Ok(()),
            Ok(_) => Err(StoreError::MasterMismatch { path: data_dir.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && fresh => write_new(&path, &expected),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::KeyCheckMissing { path: data_dir.to_owned() })
            }
            Err(error) => Err(StoreError::io("read key check", &path)(error)),
        }
    }

    /// A new data key and its wrapped form, which opens only as that session's.
    pub(crate) fn new_data_key(&self, session: &str) -> Result<(DataKey, [u8; WRAPPED_BYTES]), StoreError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        random(key.as_mut_slice())?;
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = *key;
        let tag = self
            .wrap
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), wrap_aad(session), &mut sealed)
            .map_err(|_| StoreError::Sealing)?;
        let mut wrapped = [0; WRAPPED_BYTES];
        for (to, from) in wrapped.iter_mut().zip(nonce.iter().chain(&sealed).chain(tag.as_ref())) {
            *to = *from;
        }
        Ok((DataKey { key: aead_key(key.as_slice())? }, wrapped))
    }

    pub(crate) fn unwrap_data_key(&self, session: &str, wrapped: &[u8]) -> Result<DataKey, StoreError> {
        let refused = || StoreError::Unsealing { what: "the data key", session: session.to_owned() };
        let (nonce, sealed) = wrapped.split_first_chunk::<NONCE_LEN>().ok_or_else(refused)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let key = self
            .wrap
            .open_in_place(Nonce::assume_unique_for_key(*nonce), wrap_aad(session), &mut sealed)
            .map_err(|_| refused())?;
        Ok(DataKey { key: aead_key(key)? })
    }
}

impl DataKey {
    /// Appends nonce, ciphertext and tag to `out`. `counter` never repeats under one key: it is the nonce, and the
    /// key belongs to one session in one process.
    pub(crate) fn seal(&self, counter: u64, aad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), StoreError> {
        let mut nonce = [0; NONCE_LEN];
        for (to, from) in nonce.iter_mut().rev().zip(counter.to_le_bytes()) {
            *to = from;
        }
        let start = out.len();
        out.reserve(NONCE_LEN + plain.len() + TAG_BYTES);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let body = out.get_mut(start + NONCE_LEN..).ok_or(StoreError::Sealing)?;
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), body)
            .map_err(|_| StoreError::Sealing)?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// `None` if the bytes were not sealed with this key for this purpose.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let plain = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut body).ok()?.len();
        body.truncate(plain);
        Some(body)
    }
}

type Master = Zeroizing<[u8; KEY_BYTES]>;

fn wrap_aad(session: &str) -> Aad<Vec<u8>> {
    Aad::from([b"exeat session key v1\0", session.as_bytes()].concat())
}

fn aead_key(bytes: &[u8]) -> Result<LessSafeKey, StoreError> {
    UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new).map_err(|_| StoreError::Sealing)
}

fn expand(root: &Prk, purpose: &[u8]) -> Result<Master, StoreError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    root.expand(&[purpose], HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut_slice()))
        .map_err(|_| StoreError::Sealing)?;
    Ok(key)
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), StoreError> {
    SystemRandom::new().fill(bytes).map_err(|_| StoreError::NoRandomness)
}

fn parse_master(text: &str) -> Option<Master> {
    let text = text.trim();
    if let Some(key) = hex::decode::<KEY_BYTES>(text) {
        return Some(Zeroizing::new(key));
    }
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

fn master_of_folder(folder: &Path, data_dir: &Path) -> Result<Master, StoreError> {
    refuse_inside(folder, data_dir)?;
    let path = folder.join(MASTER_FILE);
    if !folder.exists() || !path.exists() {
        if data_dir.join(CHECK_FILE).exists() {
            return Err(StoreError::MasterMissing { key: path, data_dir: data_dir.to_owned() });
        }
        make_private_dir(folder)?;
        refuse_open_to_others(folder)?;
        let mut fresh = Zeroizing::new([0; KEY_BYTES]);
        random(fresh.as_mut_slice())?;
        write_new(&path, &Zeroizing::new(hex::text(fresh.as_slice())))?;
    }
    refuse_open_to_others(folder)?;
    refuse_open_to_others(&path)?;
    let mut text = Zeroizing::new(String::new());
    File::open(&path)
        .and_then(|file| file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(StoreError::io("read master key file", &path))?;
    parse_master(&text).ok_or_else(|| StoreError::MasterShape { origin: format!("file \"{}\"", path.display()) })
}

/// Compared as written and as resolved: either way of lying inside counts.
fn refuse_inside(folder: &Path, data_dir: &Path) -> Result<(), StoreError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| absolute(path));
    if absolute(folder).starts_with(absolute(data_dir)) || resolved(folder).starts_with(resolved(data_dir)) {
        return Err(StoreError::KeysInData { path: folder.to_owned() });
    }
    Ok(())
}

/// Makes the folder readable by its owner alone; leaves an existing one as it is.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io("create folder", path))
}

pub(crate) fn refuse_open_to_others(path: &Path) -> Result<(), StoreError> {
    refuse_mode(path, 0o077)
}

pub(crate) fn refuse_writable_by_others(path: &Path) -> Result<(), StoreError> {
    refuse_mode(path, 0o002)
}

fn refuse_mode(path: &Path, refused: u32) -> Result<(), StoreError> {
    let metadata = fs::metadata(path).map_err(StoreError::io("look at", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & refused != 0 {
        return Err(StoreError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

/// A new private file, whole or not at all: written beside and moved into place.
fn write_new(path: &Path, text: &str) -> Result<(), StoreError> {
    let beside = path.with_extension("new");
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
    written.and_then(|()| fs::rename(&beside, path)).map_err(StoreError::io("write", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync folder", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn first_start_makes_a_private_folder_and_the_next_reads_it() {
        let base = tempfile::tempdir().unwrap();
        let (keys, data) = (base.path().join("keys"), base.path().join("data"));
        let first = KeySet::open(&KeySource::Folder(keys.clone()), &data).unwrap();
        assert_eq!(mode(&keys), 0o700);
        assert_eq!(mode(&keys.join(MASTER_FILE)), 0o600);
        let again = KeySet::open(&KeySource::Folder(keys), &data).unwrap();
        assert_eq!(first.check, again.check);
        assert_eq!(format!("{first:?}"), "KeySet(hidden)");
    }

    #[test]
    fn keys_open_to_others_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let (keys, data) = (base.path().join("keys"), base.path().join("data"));
        let source = KeySource::Folder(keys.clone());
        KeySet::open(&source, &data).unwrap();
        for (path, loose) in [(keys.clone(), 0o750), (keys.join(MASTER_FILE), 0o640), (keys.join(MASTER_FILE), 0o604)] {
            let before = mode(&path);
            chmod(&path, loose);
            let error = KeySet::open(&source, &data).unwrap_err();
            assert!(matches!(error, StoreError::Permissions { .. }), "{error}");
            assert!(error.to_string().contains("chmod"));
            chmod(&path, before);
        }
        KeySet::open(&source, &data).unwrap();
    }

    #[test]
    fn keys_inside_the_data_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let data = base.path().join("data");
        for folder in [data.join("keys"), data.clone(), base.path().join("./data/./deeper/keys")] {
            let error = KeySet::open(&KeySource::Folder(folder), &data).unwrap_err();
            assert!(matches!(error, StoreError::KeysInData { .. }), "{error}");
        }
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, base.path().join("link")).unwrap();
        let error = KeySet::open(&KeySource::Folder(base.path().join("link")), &data).unwrap_err();
        assert!(matches!(error, StoreError::KeysInData { .. }), "{error}");
        assert!(KeySet::open(&KeySource::Folder(base.path().join("data-keys")), &data).is_ok());
    }

    #[test]
    fn a_lost_master_is_not_replaced_by_a_new_one() {
        let base = tempfile::tempdir().unwrap();
        let (keys, data) = (base.path().join("keys"), base.path().join("data"));
        let source = KeySource::Folder(keys.clone());
        let set = KeySet::open(&source, &data).unwrap();
        fs::create_dir(&data).unwrap();
        set.check(&data, true).unwrap();
        fs::remove_file(keys.join(MASTER_FILE)).unwrap();
        assert!(matches!(KeySet::open(&source, &data), Err(StoreError::MasterMissing { .. })));
        assert!(!keys.join(MASTER_FILE).exists());
    }

    #[test]
    fn masters_are_read_as_hex_or_base64_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let open = |text: &str| {
            let path = base.path().join("master");
            fs::write(&path, text).unwrap();
            KeySet::open(&KeySource::Master(SecretSource::File(path)), &base.path().join("data"))
        };
        let hex = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let base64 = "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=";
        assert_eq!(open(&format!("{hex}\n")).unwrap().check, open(base64).unwrap().check);
        for wrong in [hex.get(..62).unwrap(), "not a key", "AAAA"] {
            let error = open(wrong).unwrap_err();
            assert!(matches!(error, StoreError::MasterShape { .. }));
            assert!(!error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_wrapped_key_opens_for_its_session_only() {
        let keys = KeySet::derive(&Zeroizing::new([7; KEY_BYTES])).unwrap();
        let (key, wrapped) = keys.new_data_key("s1").unwrap();
        let mut sealed = Vec::new();
        key.seal(0, b"sql", b"select 1", &mut sealed).unwrap();
        let reopened = keys.unwrap_data_key("s1", &wrapped).unwrap();
        assert_eq!(reopened.open(b"sql", &sealed).unwrap(), b"select 1");
        assert_eq!(reopened.open(b"parameters", &sealed), None);
        assert!(keys.unwrap_data_key("s2", &wrapped).is_err());
        let mut altered = sealed.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert_eq!(reopened.open(b"sql", &altered), None);
        let other = KeySet::derive(&Zeroizing::new([8; KEY_BYTES])).unwrap();
        assert!(other.unwrap_data_key("s1", &wrapped).is_err());
    }

    #[test]
    fn equal_texts_under_one_key_differ_when_sealed() {
        let keys = KeySet::derive(&Zeroizing::new([7; KEY_BYTES])).unwrap();
        let (key, _) = keys.new_data_key("s1").unwrap();
        let seal = |counter| {
            let mut sealed = Vec::new();
            key.seal(counter, b"sql", b"select 1", &mut sealed).unwrap();
            sealed
        };
        assert_ne!(seal(0), seal(1));
    }
}
