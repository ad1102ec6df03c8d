//! The audit record: what is written before anything acts, and what proves that it was.
//! JSON lines, one event each, in the order of `seq`; SQL, parameters and long lists only in sealed blobs beside
//! them. A receipt is proof that an event is in the file (durability `os`) or on the disk (`fsync`); it exists in no
//! other way. A write that fails is an error for its caller and leaves no partial line behind.

mod approvals;
mod aside;
mod erasure;
mod event;
mod file;
mod journal;
mod json;
mod limit;
mod logs;
mod notary;
mod recovery;
mod register;
mod render;
mod retention;
mod rotation;
mod sent;
mod session;
mod stamp;
mod tail;
mod texts;
mod tree_files;
mod withheld;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use approvals::{ApprovalChange, ApprovalEvent, FreezeChange, FreezeEvent};
pub use erasure::{Erased, Erasure};
pub use event::{
    AuthFailure, BaselineChange, BaselineEvent, ConfigChange, Decision, HandleChange, HandleEvent, HeldChange,
    HeldEvent, LimitReached, LimitReset, MaskedColumn, Outcome, OutcomeResult, Parameter, PolicyChange, PolicyRef,
    Protocol, Requester, SessionStart, Statement, TokenRef, Withheld, WithheldKind,
};
pub(crate) use journal::{BLOB_FOLDER, KEYS_FILE, LOG_FOLDER, blob_path, numbered, slot_bytes};
use logs::current_origin;
pub(crate) use logs::{LogPlace, logs, logs_behind, origins_before};
pub use notary::NotaryError;
pub(crate) use register::{BEGUN, CARRIED, DONE, ERASURE, START};
pub use register::{LegalHold, Whose};
pub(crate) use retention::{Covered, KEY_CARRIED, RETENTION};
pub use retention::{Forgotten, Retention, RoundOf};
pub(crate) use rotation::KIND as ROTATION;
pub use rotation::{Rotated, Signer, signers};
pub use sent::Sent;
pub(crate) use sent::open_frame;
pub use session::{Committed, OPEN_INTENTS_MAX, OutcomeReceipt, RecordReceipt, SessionRecord, SyncDue};
pub use tail::{BLOB_BYTES_MAX, LINE_BYTES_MAX};
pub(crate) use tree_files::TreeFiles;

use crate::StoreError;
use crate::keys::{self, KeySet};
use crate::tree::SignerMemory;
use journal::Journal;
use json::Object;
use notary::Notary;
use sent::Frames;
use tail::{Appended, Entry};

const LOCK_FILE: &str = "lock";

/// What a receipt promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// In the operating system's hands: survives the end of the gateway by any signal.
    #[default]
    Os,
    /// On the disk: survives loss of power. Concurrent writers share a sync.
    Fsync,
}

#[derive(Debug, Clone)]
pub struct RecorderConfig {
    /// Made private (0700) if it does not exist.
    pub data_dir: PathBuf,
    /// The gateway's name, on every line.
    pub gateway: String,
    pub durability: Durability,
}

/// The open record of one gateway. Cheap to clone; every clone writes to the same files.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Journal,
    keys: Arc<KeySet>,
    frames: Frames,
    gateway: String,
    data_dir: PathBuf,
    running: erasure::Running,
    /// One at a time looks after the record.
    keeping: Mutex<()>,
    /// What the log is called in its checkpoints.
    origin: String,
    /// Logs that were kept aside when this record was opened.
    kept_aside: Vec<String>,
    /// Held for as long as the record is open.
    _lock: File,
}

impl Recorder {
    /// Takes the folder for this process, checks the master key, repairs what a crash left, and goes on from there. A log
    /// that does not hold what was signed is kept aside, and a new one begun.
    pub fn open(config: &RecorderConfig, keys: impl Into<Arc<KeySet>>) -> Result<Self, StoreError> {
        let keys = keys.into();
        let data_dir = config.data_dir.as_path();
        keys::make_private_dir(data_dir)?;
        // A mounted volume has the permissions its platform gives it; ours are the folders inside.
        keys::refuse_writable_by_others(data_dir)?;
        for folder in [data_dir.join(LOG_FOLDER), data_dir.join(BLOB_FOLDER)] {
            keys::make_private_dir(&folder)?;
            keys::refuse_open_to_others(&folder)?;
        }
        let lock = lock(data_dir)?;
        keys.check(data_dir, numbered(&data_dir.join(LOG_FOLDER), ".jsonl")?.is_empty())?;
        aside::finish(data_dir)?;
        let durable = config.durability == Durability::Fsync;
        let mut recovered = recovery::recover(data_dir, signed_lines(data_dir, &keys)?)?;
        if durable {
            // What a process that was killed left to the disk's caches is signed next, and may not be lost then.
            journal::sync_whole(data_dir)?;
        }
        let found = recovered.position.next_seq;
        let (notary, signed) = match open_notary(config, &keys, found) {
            Err(StoreError::Notary(problem)) if problem.is_contradiction() => {
                aside::set_aside(data_dir, &crate::chain(&problem), found)?;
                recovered.position.begin_anew();
                open_notary(config, &keys, 0)?
            }
            opened => opened?,
        };
        recovered.findings.unsigned = Some(signed..recovered.position.next_seq).filter(|lines| !lines.is_empty());
        let journal = Journal::open(data_dir, &config.gateway, recovered.position, (notary, durable))?;
        let kept_aside = aside::report(&journal, &config.gateway, data_dir)?;
        recovery::report(&journal, &config.gateway, &recovered.findings)?;
        if durable {
            journal.sync_all()?;
        }
        let origin = current_origin(data_dir, &config.gateway)?;
        let (frames, gateway) = (Frames::default(), config.gateway.clone());
        let (running, keeping, data_dir) = (erasure::Running::default(), Mutex::new(()), data_dir.to_owned());
        let shared =
            Shared { journal, keys, frames, gateway, data_dir, running, keeping, origin, kept_aside, _lock: lock };
        shared.complete_erasure()?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Folders of logs that did not hold what was signed and were kept aside when this record was opened.
    pub fn kept_aside(&self) -> &[String] {
        &self.shared.kept_aside
    }

    /// Begins a session's record: makes its data key and writes `session.start`.
    pub fn start_session(&self, start: &SessionStart<'_>) -> Result<SessionRecord, StoreError> {
        SessionRecord::start(Arc::clone(&self.shared), start)
    }

    /// A login that ended before there was a session.
    pub fn auth_failed(&self, failure: &AuthFailure<'_>) -> Result<(), StoreError> {
        let mut entry = self.shared.entry("auth.fail", None, |body| {
            body.optional("handle", failure.handle);
            body.optional("issuer", failure.issuer);
            body.text("reason", failure.reason);
            body.optional("subject", failure.subject);
            body.optional("tls", failure.tls);
            render::token(body, failure.token);
        });
        json::fragment(&mut entry.middle, |line| {
            line.text("source", failure.source);
            line.optional("target", failure.target);
        });
        self.shared.write(&entry)
    }

    /// Before its owner is told.
    pub fn handle_changed(&self, change: &HandleChange<'_>) -> Result<(), StoreError> {
        let kind = match change.what {
            HandleEvent::Issued { .. } => "handle.issued",
            HandleEvent::Revoked => "handle.revoked",
        };
        let mut entry = self.shared.entry(kind, None, |body| {
            if let HandleEvent::Issued { expires, bound_to } = change.what {
                body.optional("bound_to", bound_to);
                body.text("expires", expires);
            }
            body.text("handle", change.handle);
            render::token(body, Some(change.token));
        });
        entry.head.extend_from_slice(&render::render_principal(change.principal).0);
        json::fragment(&mut entry.middle, |line| {
            line.text("source", change.source);
            line.text("target", change.target);
        });
        self.shared.write(&entry).map(drop)
    }

    pub fn policy_changed(&self, change: &PolicyChange<'_>) -> Result<(), StoreError> {
        let entry = self.shared.entry("policy.changed", Some(change.policy), |body| {
            body.boolean("accepted", change.accepted);
            body.text("path", change.path);
            if let Some(previous) = change.previous {
                body.object("previous", |object| render::policy_members(object, previous));
            }
            body.optional("problem", change.problem);
        });
        self.shared.write(&entry)
    }

    pub fn config_changed(&self, change: &ConfigChange<'_>) -> Result<(), StoreError> {
        let entry = self.shared.entry("config.changed", None, |body| {
            body.text("path", change.path);
            body.text("sha256", change.sha256);
            body.text("what", change.what);
        });
        self.shared.write(&entry)
    }

    /// What labels are bound to, or what was accepted of a database.
    pub fn baseline_changed(&self, change: &BaselineChange<'_>) -> Result<(), StoreError> {
        let kind = match change.what {
            BaselineEvent::Taken => "baseline.taken",
            BaselineEvent::Bound => "baseline.bound",
            BaselineEvent::Accepted => "baseline.accepted",
        };
        let mut entry = self.shared.entry(kind, None, |body| {
            body.number("bindings", u64::try_from(change.bindings).unwrap_or(u64::MAX));
            body.text("database", change.database);
            if change.definitions > 0 {
                body.number("definitions", u64::try_from(change.definitions).unwrap_or(u64::MAX));
            }
            body.number("relations", u64::try_from(change.relations).unwrap_or(u64::MAX));
            render::token(body, change.by.map(|by| by.token));
        });
        requested(&mut entry, change.by);
        json::fragment(&mut entry.middle, |line| {
            line.optional("source", change.by.map(|by| by.source));
            line.text("target", change.target);
        });
        self.shared.write(&entry)
    }

    /// Before anything is forgotten.
    pub fn limits_reset(&self, reset: &LimitReset<'_>) -> Result<(), StoreError> {
        let mut entry = self.shared.entry("limit.reset", None, |body| {
            body.optional("label", reset.label);
            body.optional("of", reset.principal);
            render::token(body, Some(reset.by.token));
        });
        requested(&mut entry, Some(reset.by));
        json::fragment(&mut entry.middle, |line| {
            line.text("source", reset.by.source);
            line.optional("target", reset.target);
        });
        self.shared.write(&entry)
    }

    /// A sign of life, so that silence is evidence. The caller keeps the time.
    pub fn heartbeat(&self) -> Result<(), StoreError> {
        let appended = self.shared.journal.heartbeat()?;
        self.shared.journal.commit(appended.seq.saturating_add(1))
    }

    /// Whether events can be written. After a failed write it is tried: a disk that has room again makes the gateway
    /// ready again without anybody's help. What cannot be signed is no evidence.
    pub fn health(&self) -> Result<(), StoreError> {
        self.shared.journal.health()
    }
}

fn requested(entry: &mut Entry, by: Option<Requester<'_>>) {
    if let Some(by) = by {
        entry.head.extend_from_slice(&render::render_principal(by.principal).0);
    }
}

impl Shared {
    /// An entry outside any session.
    fn entry(&self, kind: &'static str, policy: Option<PolicyRef<'_>>, body: impl FnOnce(&mut Object<'_>)) -> Entry {
        let mut entry = Entry { kind, ..Entry::default() };
        json::object(&mut entry.head, |line| {
            line.object("body", body);
            line.text("gateway", &self.gateway);
            if let Some(policy) = policy {
                line.object("policy", |object| render::policy_members(object, policy));
            }
        });
        entry.head.pop();
        entry
    }

    /// For events that nothing follows: in the file before this returns.
    fn write(&self, entry: &Entry) -> Result<(), StoreError> {
        let appended: Appended = self.journal.append(entry)?;
        self.journal.commit(appended.seq.saturating_add(1))
    }
}

/// How many lines recovery may not cut. All, where what the signer remembers is not its own.
fn signed_lines(data_dir: &Path, keys: &KeySet) -> Result<u64, StoreError> {
    let Some(kept) = LogPlace::current(data_dir).files().memory()? else { return Ok(0) };
    let own = kept.is_own(keys).then(|| SignerMemory::parse(&kept.text).ok()).flatten();
    Ok(own.map_or(u64::MAX, |memory| memory.last().size()))
}

/// The signer of the log that is there, or of a new one, and how many lines had been signed.
fn open_notary(config: &RecorderConfig, keys: &Arc<KeySet>, next_seq: u64) -> Result<(Notary, u64), StoreError> {
    let origin = current_origin(&config.data_dir, &config.gateway)?;
    Notary::open(&config.data_dir, (Arc::clone(keys), &origin), next_seq, config.durability == Durability::Fsync)
}

fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let path = data_dir.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Io { action: "lock", path, source }),
    }
}
