//! A session as a folder that stands alone: its records as they stand in the log, a proof for each, what keys let one read,
//! and a page that shows it. Written into a new folder, private to its owner.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use exeat_store::evidence::{self, EvidenceError};
use exeat_store::index::SessionEvents;
use exeat_store::read::Event;
use exeat_store::record::signers;
use exeat_store::tree::VerifierKey;
use serde_json::{Value, json};

use super::html::{self, Beside};
use super::seen;
use super::story::{Story, Telling, session_json};
use super::{OpenRecord, RecordError};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bundled {
    pub(crate) lines: usize,
    pub(crate) proved: usize,
    pub(crate) has_key: bool,
}

pub(crate) fn bundle(
    record: &OpenRecord,
    story: &Story,
    events: &SessionEvents,
    out: &Path,
) -> Result<Bundled, RecordError> {
    let (note, checkpoint) = evidence::checkpoint(&record.data_dir)?;
    let all: Vec<&Event> = events.events.iter().chain(&events.approvals).collect();
    let signed = checkpoint.head().size();
    let provable = all.iter().filter(|event| event.seq() < signed);
    let lines: Vec<(u64, &[u8])> = provable.map(|event| (event.seq(), event.line.as_bytes())).collect();
    // The checkpoint may have moved on since: each proof has its own.
    let proofs = evidence::prove_lines(&record.data_dir, lines)?;
    let mut keys = public_keys(record, events).into_iter().rev();
    let key = keys.find(|key| proofs.iter().all(|proof| proof.verify(std::slice::from_ref(key)).is_ok()));
    let folder = Folder::make(out)?;
    folder.write("events.jsonl", &lines_of(&events.events))?;
    if !events.approvals.is_empty() {
        folder.write("approvals.jsonl", &lines_of(&events.approvals))?;
    }
    let statements: Vec<Value> = story.statements().map(Telling::json).collect();
    let session = json!({"v": 1, "session": session_json(&story.session), "statements": statements});
    folder.write("session.json", &format!("{session:#}\n"))?;
    let rows = seen::seen(&record.index, &story.session, events, record.keys.as_ref())?;
    if let Some(rows) = &rows {
        folder.write("rows.jsonl", rows)?;
    }
    folder.write("checkpoint", &note)?;
    let proved = folder.inside("proofs")?;
    for proof in &proofs {
        proved.write(&format!("{}.tlog-proof", proof.index()), &proof.to_string())?;
    }
    let key_text = key.as_ref().map(ToString::to_string);
    if let (Some(key), Some(text)) = (&key, &key_text) {
        folder.write("key", &format!("{text}\n"))?;
        folder.write("key.pem", &key.to_pem())?;
    }
    let beside = Beside {
        proved: proofs.len(),
        lines: all.len(),
        key: key_text.as_deref(),
        signed,
        origin: checkpoint.origin(),
        has_rows: rows.is_some(),
    };
    folder.write("index.html", &html::page(story, &beside))?;
    Ok(Bundled { lines: all.len(), proved: proofs.len(), has_key: key.is_some() })
}

/// Of who signs the log, in order; only who has the master can say them.
fn public_keys(record: &OpenRecord, events: &SessionEvents) -> Vec<VerifierKey> {
    let gateway = events.events.first().and_then(|event| event.value().get("gateway")).and_then(Value::as_str);
    let (Some(keys), Some(gateway)) = (&record.keys, gateway) else { return Vec::new() };
    let signers = signers(&record.data_dir, gateway, keys).unwrap_or_default();
    signers.into_iter().map(|signer| signer.key).collect()
}

fn lines_of(events: &[Event]) -> String {
    events.iter().map(|event| format!("{}\n", event.line)).collect()
}

impl From<EvidenceError> for RecordError {
    fn from(problem: EvidenceError) -> Self {
        Self::Evidence(problem)
    }
}

/// A folder of ours, of new files.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn make(path: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Write { path: path.to_owned(), source };
        let occupied = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(RecordError::Occupied { path: path.to_owned() });
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        Ok(Self { path: path.to_owned() })
    }

    fn inside(&self, name: &str) -> Result<Self, RecordError> {
        Self::make(&self.path.join(name))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), RecordError> {
        write_new(&self.path.join(name), text)
    }
}

/// Private, and never over another file.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), RecordError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| RecordError::Write { path: path.to_owned(), source })
}
