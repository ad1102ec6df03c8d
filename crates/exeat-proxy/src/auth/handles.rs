//! Handles: short-lived passwords made from a token, for clients that cannot carry one (old password files, poolers,
//! `channel_binding=require`).
//!
//! A handle lends the identity of its token, for one target, never for longer than the token lives. It exists in the
//! memory of this process alone, as a SCRAM verifier: a restart takes all of them back. Salts come from the handle's
//! name by a key of the process, so that a name nobody has is answered like any other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exeat_policy::Principal;
use exeat_store::secret::SecretString;
use jiff::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::scram::{SALT_BYTES, ScramVerifier};
use crate::identity::{Lease, Network, Verified};

/// Whoever logs in under a name with this prefix has a handle's password, or none.
pub(crate) const PREFIX: &str = "exh_";

pub const LIFETIME_MIN: Duration = Duration::from_secs(5 * 60);
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(10 * 60);
pub const LIFETIME_MAX: Duration = Duration::from_secs(15 * 60);

/// Live at once for one principal: one for each program that needs another password than its neighbour.
pub const HANDLES_PER_PRINCIPAL_MAX: usize = 20;
/// Live at once for everybody. Each keeps the claims of its token, 16 KiB at most.
const HANDLES_MAX: usize = 10_000;

const NAME_BYTES: usize = 10;
const SECRET_BYTES: usize = 32;

/// What is asked for; the token says for whom.
#[derive(Debug, Clone)]
pub struct Wish {
    pub target: String,
    pub lifetime: Duration,
    /// Only from here.
    pub source: Option<Network>,
}

/// A new handle. The password is in nobody's memory but its owner's from here on.
#[derive(Debug)]
pub struct Issued {
    pub handle: String,
    pub password: SecretString,
    pub expires: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error(
        "principal has {HANDLES_PER_PRINCIPAL_MAX} handles, the most allowed; revoke one or wait until one expires"
    )]
    TooMany,
    #[error("this gateway has {HANDLES_MAX} handles, the most it keeps; try again later")]
    Full,
    #[error("lifetime is {asked} s, it must be from {} to {} s", LIFETIME_MIN.as_secs(), LIFETIME_MAX.as_secs())]
    Lifetime { asked: u64 },
    #[error("the token has expired")]
    Expired,
    #[error("no randomness for a handle")]
    Randomness,
}

/// A handle that was taken back, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    pub handle: String,
    pub target: String,
}

/// Whose handles there are is nobody else's business: another's is answered like one that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("handle does not exist, or is not yours")]
pub struct RevokeError;

/// What a name is checked against: a real handle's verifier, or one no password has.
pub(crate) struct Challenge {
    pub(crate) verifier: ScramVerifier,
    pub(crate) identity: Option<Verified>,
}

struct Entry {
    verifier: ScramVerifier,
    identity: Verified,
    lease: Arc<Lease>,
}

/// All handles of this process.
pub struct Handles {
    live: Mutex<HashMap<String, Entry>>,
    salts: hmac::Key,
    nobody: hmac::Key,
    random: SystemRandom,
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handles").field("live", &self.live().len()).finish_non_exhaustive()
    }
}

impl Handles {
    /// Fails without randomness.
    pub fn new() -> Result<Self, IssueError> {
        let random = SystemRandom::new();
        let key = || hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| IssueError::Randomness);
        Ok(Self { live: Mutex::default(), salts: key()?, nobody: key()?, random })
    }

    /// Lends `identity` as wished, at most for as long as it lasts itself.
    pub fn issue(&self, identity: &Verified, wish: Wish) -> Result<Issued, IssueError> {
        if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&wish.lifetime) {
            return Err(IssueError::Lifetime { asked: wish.lifetime.as_secs() });
        }
        let now = Timestamp::now();
        let wished = SystemTime::from(now).checked_add(wish.lifetime).unwrap_or(identity.expires_at);
        let expires = Timestamp::try_from(wished.min(identity.expires_at))
            .ok()
            .filter(|end| *end > now)
            .ok_or(IssueError::Expired)?;
        let handle = format!("{PREFIX}{}", hex(&self.random_bytes::<NAME_BYTES>()?));
        let secret = zeroize::Zeroizing::new(self.random_bytes::<SECRET_BYTES>()?);
        let password = SecretString::new(format!("{handle}_{}", URL_SAFE_NO_PAD.encode(secret.as_ref())));
        let verifier = ScramVerifier::derive(password.expose(), self.salt(&handle));
        let lease = Arc::new(Lease::new(handle.clone(), wish.target, wish.source, expires));
        let entry = Entry { verifier, identity: identity.lent(Arc::clone(&lease)), lease };

        let mut live = self.live();
        live.retain(|_, entry| !entry.lease.ended(now));
        if live.len() >= HANDLES_MAX {
            return Err(IssueError::Full);
        }
        let owned = live.values().filter(|entry| same(&entry.identity.principal, &identity.principal)).count();
        if owned >= HANDLES_PER_PRINCIPAL_MAX {
            return Err(IssueError::TooMany);
        }
        live.insert(handle.clone(), entry);
        Ok(Issued { handle, password, expires })
    }

    /// Takes a handle back; sessions that came in with it end. Its principal may, and the human for whom an agent
    /// made it.
    pub fn revoke(&self, handle: &str, by: &Principal) -> Result<Revoked, RevokeError> {
        let mut live = self.live();
        let entry = live.get(handle).filter(|entry| owns(by, &entry.identity.principal)).ok_or(RevokeError)?;
        if entry.lease.ended(Timestamp::now()) {
            return Err(RevokeError);
        }
        entry.lease.revoke();
        let revoked = Revoked { handle: entry.lease.handle.clone(), target: entry.lease.target.clone() };
        live.remove(handle);
        Ok(revoked)
    }

    /// For a client that logs in under this name. The same work, and the same salt each time, whether there is such a
    /// handle or not.
    pub(crate) fn challenge(&self, name: &str) -> Challenge {
        let salt = self.salt(name);
        let nobody = ScramVerifier::of_nobody(salt, digest(&self.nobody, name));
        let live = self.live();
        match live.get(name).filter(|entry| !entry.lease.ended(Timestamp::now())) {
            Some(entry) => Challenge { verifier: entry.verifier.clone(), identity: Some(entry.identity.clone()) },
            None => Challenge { verifier: nobody, identity: None },
        }
    }

    /// For a password that came in clear, inside TLS: `None` is not a handle's, or not one that holds.
    pub(crate) fn by_password(&self, password: &str) -> Option<Verified> {
        let challenge = self.challenge(name_of(password)?);
        let proven = challenge.verifier.matches(password);
        challenge.identity.filter(|_| proven)
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Nothing panics while it is held; if something did, the map is still whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn salt(&self, name: &str) -> [u8; SALT_BYTES] {
        let mut salt = [0; SALT_BYTES];
        salt.iter_mut().zip(digest(&self.salts, name)).for_each(|(to, from)| *to = from);
        salt
    }

    fn random_bytes<const N: usize>(&self) -> Result<[u8; N], IssueError> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).map_err(|_| IssueError::Randomness)?;
        Ok(bytes)
    }
}

/// The handle's name in its password, `exh_NAME_SECRET`.
pub(crate) fn name_of(password: &str) -> Option<&str> {
    let (name, _) = password.strip_prefix(PREFIX)?.split_once('_')?;
    password.get(..PREFIX.len().saturating_add(name.len()))
}

/// A name that may stand in the record: what a client says it is, only if it looks like one of ours.
pub(crate) fn well_formed(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 2 * NAME_BYTES && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn same(a: &Principal, b: &Principal) -> bool {
    (&a.issuer, &a.subject, &a.actor) == (&b.issuer, &b.subject, &b.actor)
}

fn owns(by: &Principal, principal: &Principal) -> bool {
    same(by, principal) || (by.actor.is_none() && (&by.issuer, &by.subject) == (&principal.issuer, &principal.subject))
}

fn digest(key: &hmac::Key, name: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(hmac::sign(key, name.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
