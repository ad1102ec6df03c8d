//! Erasure: a session's data key is destroyed, and with it all that is sealed by it; its lines stay, so that the log still
//! verifies. Who and why is on record before the key goes, and that it is gone behind it; what a crash leaves between is
//! completed at the next start. A session that runs and one under a legal hold are refused, the latter on record.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::journal::{Journal, KEYS_FILE, slot_bytes};
use super::json::{self, Object};
use super::register::{BEGUN, DONE, ERASURE, HOLD_LIFTED, HOLD_SET, LegalHold, REFUSED, Register, Started, Whose};
use super::{Recorder, Requester, Shared, render, requested};
use crate::{StoreError, hex};

/// In data_dir while a key is being destroyed.
const MARKER: &str = "erasing";

/// What is to be erased, and why.
#[derive(Debug, Clone)]
pub struct Erasure<'a> {
    pub whose: &'a Whose,
    /// Of a principal's sessions: those that began before, as a line's time or the beginning of one.
    pub before: Option<&'a str>,
    pub reason: &'a str,
}

/// What became of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Erased {
    pub erased: Vec<String>,
    /// Session, and why not.
    pub refused: Vec<(String, String)>,
    /// Erased earlier.
    pub already: u64,
}

/// Sessions whose keys are in use, and the file of sealed texts that was written when they began: they name none before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Mutex<BTreeMap<String, u64>>>);

/// One of them; it runs no more when this is dropped.
#[derive(Debug)]
pub(super) struct Runs {
    running: Running,
    session: String,
}

impl Running {
    /// Whoever does not see it among those that run yet, sees no later file of sealed texts than it names.
    pub(super) fn begin(&self, session: &str, journal: &Journal) -> Result<Runs, StoreError> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(session.to_owned(), journal.blob_segment()?);
        Ok(Runs { running: self.clone(), session: session.to_owned() })
    }

    /// Who runs now.
    pub(super) fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has(&self, session: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(session)
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
    }
}

/// A session whose key is being destroyed.
#[derive(Serialize, Deserialize)]
struct Marker {
    session: String,
    slot: u64,
}

impl Recorder {
    /// Destroys keys, one after the other, each on record. One session that cannot be erased is an error; of a principal's
    /// the others are erased.
    pub fn erase(&self, erasure: &Erasure<'_>, by: Requester<'_>) -> Result<Erased, StoreError> {
        let shared = &self.shared;
        let _alone = shared.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let register = Register::read(&shared.data_dir, |session| session.is_of(erasure.whose))?;
        erasure.whose.check(&register.sessions)?;
        let mut erased = Erased::default();
        match erasure.whose {
            _ if !register.sessions.is_empty() => {}
            Whose::Session(session) => return Err(StoreError::NoSession { session: session.clone() }),
            // A name that is misspelt must not look like one that is erased.
            whose @ Whose::Principal { .. } => return Err(StoreError::NoSessions { what: whose.to_string() }),
        }
        let is_due = |session: &&Started| erasure.before.is_none_or(|before| session.time.as_str() < before);
        for session in register.sessions.iter().filter(is_due) {
            match (shared.erase_one(session, register.hold_on(session), (erasure.reason, by)), erasure.whose) {
                (Ok(()), _) => erased.erased.push(session.session.clone()),
                (Err(StoreError::Erased { .. }), Whose::Principal { .. }) => erased.already += 1,
                (
                    Err(
                        problem @ (StoreError::Held { .. }
                        | StoreError::Running { .. }
                        | StoreError::AnothersKey { .. }),
                    ),
                    Whose::Principal { .. },
                ) => {
                    erased.refused.push((session.session.clone(), problem.to_string()));
                }
                (Err(problem), _) => return Err(problem),
            }
        }
        Ok(erased)
    }

    /// What it covers is not erased until somebody lifts it.
    pub fn hold(&self, whose: &Whose, reason: &str, by: Requester<'_>) -> Result<LegalHold, StoreError> {
        let shared = &self.shared;
        let _alone = shared.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let register = Register::read(&shared.data_dir, |session| whose.covers(session))?;
        whose.check(&register.sessions)?;
        if let Some(hold) = register.holds.iter().find(|hold| hold.whose == *whose) {
            return Err(StoreError::HeldAlready { what: whose.to_string(), reason: hold.reason.clone() });
        }
        if let (Whose::Session(session), true) = (whose, register.sessions.is_empty()) {
            return Err(StoreError::NoSession { session: session.clone() });
        }
        shared.write_keeping(HOLD_SET, Some(by), |body| whose_body(body, whose, reason))?;
        let set = self.holds_now()?.into_iter().find(|hold| hold.whose == *whose);
        set.ok_or_else(|| StoreError::NotHeld { what: whose.to_string() })
    }

    /// Says what was lifted.
    pub fn release(&self, whose: &Whose, reason: &str, by: Requester<'_>) -> Result<LegalHold, StoreError> {
        let shared = &self.shared;
        let _alone = shared.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = self.holds_now()?.into_iter().find(|hold| hold.whose == *whose);
        let lifted = stands.ok_or_else(|| StoreError::NotHeld { what: whose.to_string() })?;
        shared.write_keeping(HOLD_LIFTED, Some(by), |body| whose_body(body, whose, reason))?;
        Ok(lifted)
    }

    /// Those that stand, in the order they were set.
    pub fn holds(&self) -> Result<Vec<LegalHold>, StoreError> {
        self.holds_now()
    }

    fn holds_now(&self) -> Result<Vec<LegalHold>, StoreError> {
        Register::read(&self.shared.data_dir, |_| false).map(|register| register.holds)
    }
}

impl Shared {
    fn erase_one(
        &self,
        session: &Started,
        hold: Option<&LegalHold>,
        (reason, by): (&str, Requester<'_>),
    ) -> Result<(), StoreError> {
        let name = || session.session.clone();
        if self.running.has(&session.session) {
            return Err(StoreError::Running { session: name() });
        }
        match key_in_slot(&self.data_dir, session)? {
            InSlot::Own => {}
            InSlot::Destroyed => return Err(StoreError::Erased { session: name() }),
            InSlot::AnothersKey => return Err(StoreError::AnothersKey { session: name(), slot: session.slot }),
        }
        if let Some(hold) = hold {
            let problem =
                StoreError::Held { session: name(), what: hold.whose.to_string(), reason: hold.reason.clone() };
            self.write_erasure(session, (REFUSED, Some(&problem.to_string())), (reason, Some(by)))?;
            return Err(problem);
        }
        self.erase_all(std::slice::from_ref(session), (reason, Some(by)))
    }

    /// Of sessions that have ended, that nobody holds, and whose keys are there. Without `by` it is the gateway itself.
    pub(super) fn erase_all(
        &self,
        sessions: &[Started],
        (reason, by): (&str, Option<Requester<'_>>),
    ) -> Result<(), StoreError> {
        let marker = self.data_dir.join(MARKER);
        let marked = |session: &Started| Marker { session: session.session.clone(), slot: session.slot };
        put_marker(&marker, &sessions.iter().map(marked).collect::<Vec<Marker>>())?;
        for session in sessions {
            self.write_erasure(session, (BEGUN, None), (reason, by))?;
        }
        // Power may be lost behind this: a key that is gone without a line would be a finding.
        self.journal.sync_all()?;
        destroy(&self.data_dir, sessions)?;
        for session in sessions {
            self.write_erasure(session, (DONE, None), (reason, None))?;
        }
        fs::remove_file(&marker).map_err(StoreError::io("remove", &marker))
    }

    /// What a crash left between the line and the key.
    pub(super) fn complete_erasure(&self) -> Result<(), StoreError> {
        let path = self.data_dir.join(MARKER);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(problem) => return Err(StoreError::io("read", &path)(problem)),
        };
        // One that was cut off came before its line.
        let one = || serde_json::from_slice(&bytes).map(|marker| vec![marker]);
        let marked: Vec<Marker> = serde_json::from_slice(&bytes).or_else(|_| one()).unwrap_or_default();
        let is_marked = |session: &Started| {
            marked.iter().any(|marker| (&marker.session, marker.slot) == (&session.session, session.slot))
        };
        let register = Register::read(&self.data_dir, is_marked)?;
        for session in &register.sessions {
            let last = register.erasures.iter().rev().find(|(erased, _)| *erased == session.session);
            if last.is_some_and(|(_, state)| state == BEGUN)
                && key_in_slot(&self.data_dir, session)? != InSlot::AnothersKey
            {
                destroy(&self.data_dir, std::slice::from_ref(session))?;
                self.write_erasure(session, (DONE, None), ("", None))?;
            }
        }
        fs::remove_file(&path).map_err(StoreError::io("remove", &path))
    }

    fn write_erasure(
        &self,
        session: &Started,
        (state, problem): (&'static str, Option<&str>),
        (reason, by): (&str, Option<Requester<'_>>),
    ) -> Result<(), StoreError> {
        self.write_keeping(ERASURE, by, |body| {
            body.text("of", &session.sub);
            body.optional("of_iss", Some(session.iss.as_str()).filter(|issuer| !issuer.is_empty()));
            body.optional("problem", problem);
            if !reason.is_empty() {
                body.text("reason", reason);
            }
            body.text("session", &session.session);
            body.number("slot", session.slot);
            body.text("state", state);
        })
    }

    /// `body`: its members before `token`.
    fn write_keeping(
        &self,
        kind: &'static str,
        by: Option<Requester<'_>>,
        body: impl FnOnce(&mut Object<'_>),
    ) -> Result<(), StoreError> {
        let mut entry = self.entry(kind, None, |object| {
            body(object);
            render::token(object, by.map(|by| by.token));
        });
        requested(&mut entry, by);
        json::fragment(&mut entry.middle, |line| line.optional("source", by.map(|by| by.source)));
        self.write(&entry)
    }
}

fn whose_body(body: &mut Object<'_>, whose: &Whose, reason: &str) {
    match whose {
        Whose::Principal { issuer, subject } => {
            body.text("of", subject);
            body.optional("of_iss", issuer.as_deref());
            body.text("reason", reason);
        }
        Whose::Session(name) => {
            body.text("reason", reason);
            body.text("session", name);
        }
    }
}

fn put_marker(path: &Path, marker: &[Marker]) -> Result<(), StoreError> {
    let written = serde_json::to_vec(marker).map_err(io::Error::from).and_then(|bytes| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(StoreError::io("write", path))
}

/// What stands where a session's line says that its key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InSlot {
    Own,
    Destroyed,
    /// The end of the keys was lost with the power, and the slot given to another session.
    AnothersKey,
}

pub(super) fn key_in_slot(data_dir: &Path, session: &Started) -> Result<InSlot, StoreError> {
    let wrapped = crate::stored::Stored::of(data_dir).slot(session.slot)?;
    Ok(match hex::text(digest(&SHA256, &wrapped).as_ref()) {
        _ if wrapped.iter().all(|byte| *byte == 0) => InSlot::Destroyed,
        found if found == session.key_sha256 => InSlot::Own,
        _ => InSlot::AnothersKey,
    })
}

/// Overwrites the wrapped keys, onto the disk. The file the journal has open only ever appends.
fn destroy(data_dir: &Path, sessions: &[Started]) -> Result<(), StoreError> {
    let path = data_dir.join(KEYS_FILE);
    let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| {
        let (width, length) = (slot_bytes(), file.metadata()?.len());
        for session in sessions {
            let at = session.slot.saturating_mul(width);
            if length < at.saturating_add(width) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&vec![0; usize::try_from(width).unwrap_or_default()])?;
        }
        file.sync_data()
    });
    written.map_err(StoreError::io("destroy a key in", &path))
}
