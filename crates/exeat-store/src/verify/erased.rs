//! Session keys and erasures: a key that is gone is on record as destroyed, and one that is recorded as destroyed is gone.
//! Keys are compared as they are stored, wrapped.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::finding::Finding;
use crate::record::{BEGUN, DONE};
use crate::stored::Stored;
use crate::{StoreError, hex};

/// Of all logs: a session may be erased long after its log was kept aside.
pub(super) struct Keys {
    stored: Stored,
    /// Sessions whose key is gone.
    destroyed: BTreeSet<String>,
    /// Sessions that a record says are to be erased.
    begun: BTreeSet<String>,
    /// And that they are, with their slots.
    done: BTreeMap<String, u64>,
}

impl Keys {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self { stored: Stored::of(data_dir), destroyed: BTreeSet::new(), begun: BTreeSet::new(), done: BTreeMap::new() }
    }

    /// What is wrong with the key of a session that begins.
    pub(super) fn started(&mut self, event: &Value) -> Result<Option<&'static str>, StoreError> {
        let body = event.get("body");
        // The record that said so may be gone; the one that has carried the session says it again.
        if body.and_then(|body| body.get("erased")).and_then(Value::as_bool) == Some(true) {
            self.begun.extend(event.get("session").and_then(Value::as_str).map(str::to_owned));
        }
        let Some(key) = event.get("body").and_then(|body| body.get("data_key")) else { return Ok(None) };
        let Some(slot) = key.get("slot").and_then(Value::as_u64) else { return Ok(Some("is not named rightly")) };
        let Some(wrapped) = self.read(slot)? else { return Ok(Some("is missing")) };
        if is_destroyed(&wrapped) {
            let session = event.get("session").and_then(Value::as_str).unwrap_or_default();
            self.destroyed.insert(session.to_owned());
            return Ok(None);
        }
        let found = hex::text(digest(&SHA256, &wrapped).as_ref());
        let is_it = key.get("sha256").and_then(Value::as_str) == Some(found.as_str());
        Ok((!is_it).then_some("is not the one that was recorded"))
    }

    /// Whether nobody can read what is sealed of it, and a record says who saw to that.
    pub(super) fn is_erased(&self, session: &str) -> bool {
        self.destroyed.contains(session) && self.begun.contains(session)
    }

    pub(super) fn erasure(&mut self, event: &Value) {
        let Some(body) = event.get("body") else { return };
        let text = |member| body.get(member).and_then(Value::as_str).unwrap_or_default();
        match text("state") {
            BEGUN => drop(self.begun.insert(text("session").to_owned())),
            DONE => {
                let slot = body.get("slot").and_then(Value::as_u64).unwrap_or(u64::MAX);
                self.done.insert(text("session").to_owned(), slot);
            }
            _ => {}
        }
    }

    /// How many sessions were erased, and what is wrong with that, when every line was read.
    pub(super) fn settle(self) -> Result<(u64, Vec<Finding>), StoreError> {
        let mut problems = Vec::new();
        let silent = self.destroyed.difference(&self.begun);
        problems.extend(silent.map(|session| Finding::ErasedInSilence { session: session.clone() }));
        for (session, slot) in &self.done {
            if self.read(*slot)?.is_some_and(|wrapped| !is_destroyed(&wrapped)) {
                problems.push(Finding::NotErased { session: session.clone() });
            }
        }
        let erased = self.destroyed.intersection(&self.begun).count();
        Ok((u64::try_from(erased).unwrap_or(u64::MAX), problems))
    }

    /// `None`: it is not there.
    fn read(&self, slot: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.stored.slot(slot) {
            Ok(wrapped) => Ok(Some(wrapped)),
            Err(StoreError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) =>
            {
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    }
}

fn is_destroyed(wrapped: &[u8]) -> bool {
    wrapped.iter().all(|byte| *byte == 0)
}
