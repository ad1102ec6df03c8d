//! What can go wrong with the durable state. Names files, limits and the next step; never a key, a statement or a
//! parameter.

use std::io;
use std::path::{Path, PathBuf};

use crate::secret::SecretError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not {action} \"{}\"", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("folder \"{}\" is in use by another process; each gateway needs a data_dir of its own", path.display())]
    Locked { path: PathBuf },
    #[error("\"{}\" is open to other users (mode {mode:o}); run chmod go-rwx on it", path.display())]
    Permissions { path: PathBuf, mode: u32 },
    #[error("keys folder \"{}\" lies in data_dir; keep it elsewhere, so that a copy of the data is no copy of the keys", path.display())]
    KeysInData { path: PathBuf },
    #[error("master key of {origin} is not 32 bytes in hex or base64; make one with: openssl rand -hex 32")]
    MasterShape { origin: String },
    #[error("could not read the master key")]
    MasterSource { source: SecretError },
    #[error("master key file \"{}\" is missing, but \"{}\" was sealed with one; restore it from a backup", key.display(), data_dir.display())]
    MasterMissing { key: PathBuf, data_dir: PathBuf },
    #[error("data_dir \"{}\" was sealed with another master key; give that key, or another data_dir", path.display())]
    MasterMismatch { path: PathBuf },
    #[error("data_dir \"{}\" has a record but no key check; restore the file \"key-check\"", path.display())]
    KeyCheckMissing { path: PathBuf },
    #[error("the system gave no random bytes")]
    NoRandomness,
    #[error("the disk of \"{}\" has less than {bytes} bytes left for the record; make room there", path.display())]
    NoRoom { path: PathBuf, bytes: u64 },
    #[error("sealing failed")]
    Sealing,
    #[error("a text could not be put into its frame")]
    Frame(#[source] io::Error),
    #[error("could not unseal {what} of session \"{session}\": another key, or altered bytes")]
    Unsealing { what: &'static str, session: String },
    #[error("record of session \"{session}\" was erased")]
    Erased { session: String },
    #[error(
        "slot {slot} of the keys is not the one of session \"{session}\" any more, whose own key is lost: nothing is left to erase"
    )]
    AnothersKey { session: String, slot: u64 },
    #[error("session \"{session}\" is running; it can be erased when it has ended")]
    Running { session: String },
    #[error("session \"{session}\" is under a legal hold, by {what}: {reason}")]
    Held { session: String, what: String, reason: String },
    #[error("{what} is under a legal hold already: {reason}")]
    HeldAlready { what: String, reason: String },
    #[error("{what} is under no legal hold of its own")]
    NotHeld { what: String },
    #[error("no session of {what} is in the record")]
    NoSessions { what: String },
    #[error("several issuers have a {what} in the record: {issuers}; say which of them is meant")]
    SeveralIssuers { what: String, issuers: String },
    #[error(
        "a name of {bytes} bytes: lines keep less than {limit} of one and cut what is longer, so several may look alike; name the sessions one by one"
    )]
    LongName { bytes: usize, limit: usize },
    #[error("session \"{session}\" is not in the record")]
    NoSession { session: String },
    #[error("record file \"{}\" is damaged at byte {offset}: {problem}; restore it from a copy", path.display())]
    Damaged { path: PathBuf, offset: u64, problem: &'static str },
    #[error("record {seq} is not in the log any more: it begins with {first}")]
    NotInLog { seq: u64, first: u64 },
    #[error("event of {bytes} bytes exceeds the limit of {limit}", limit = crate::record::LINE_BYTES_MAX)]
    LineTooLong { bytes: usize },
    #[error("blob of {bytes} bytes exceeds the limit of {limit}", limit = crate::record::BLOB_BYTES_MAX)]
    BlobTooLong { bytes: usize },
    #[error("gateway name {name:?} cannot name the key that signs the log: {source}; choose another `name`")]
    GatewayName { name: String, source: crate::tree::KeyError },
    #[error(transparent)]
    Notary(#[from] crate::record::NotaryError),
    #[error("what is on record could not be signed: {problem}")]
    NotSigned { problem: String },
    #[error("one signing key is handing over to the next already; ask again when that is done")]
    Rotating,
    #[error("the record could not be made durable earlier; restart the gateway after the disk is checked")]
    NotDurable,
    #[error("the gateway is ending")]
    Ending,
    #[error("the record is closed after a failure inside the gateway; restart it")]
    Poisoned,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Errors that show their source in their own message would otherwise say it twice.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
