//! A log that does not hold what was signed is kept aside as it is, and a new one begun: evidence is neither repaired nor
//! gone on with as if nothing had happened. Two folders are renamed, and a crash may come between: a note in the tree's
//! folder, written first, says what is under way until the new log has it on record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::journal::Journal;
use super::json;
use super::logs::{LogPlace, asides};
use super::tail::Entry;
use crate::{StoreError, keys};

/// Until it is on record; then it has the other name.
const NOTE: &str = "set-aside";
const RECORDED: &str = "set-aside.recorded";

/// What the new log says about the one kept aside.
#[derive(Debug, Serialize, Deserialize)]
struct SetAside {
    /// Lines that it had.
    found: u64,
    problem: String,
    /// What was signed last: origin, size and root.
    signed: Option<String>,
}

/// The number that the next one gets.
fn next(data_dir: &Path) -> Result<u64, StoreError> {
    Ok(asides(data_dir)?.last().copied().unwrap_or(0).saturating_add(1))
}

/// Keeps the log aside. `found`: lines that it has.
pub(super) fn set_aside(data_dir: &Path, problem: &str, found: u64) -> Result<(), StoreError> {
    let current = LogPlace::current(data_dir);
    let signed = current.files().memory().unwrap_or_default().map(|kept| kept.text);
    let note = SetAside { found, problem: problem.to_owned(), signed };
    let path = current.tree.join(NOTE);
    let written = serde_json::to_vec(&note).map_err(io::Error::from).and_then(|bytes| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(StoreError::io("write", &path))?;
    finish(data_dir)
}

/// Goes on with what a crash interrupted. Leaves folders for a new log where one was kept aside.
pub(super) fn finish(data_dir: &Path) -> Result<(), StoreError> {
    let current = LogPlace::current(data_dir);
    if current.tree.join(NOTE).exists() {
        rename(&current.tree, &LogPlace::aside(data_dir, next(data_dir)?).tree)?;
        sync(data_dir)?;
    }
    for number in asides(data_dir)? {
        let place = LogPlace::aside(data_dir, number);
        if place.tree.join(NOTE).exists() && !place.log.exists() {
            rename(&current.log, &place.log)?;
            sync(data_dir)?;
        }
    }
    keys::make_private_dir(&current.log)
}

/// Puts on record what was kept aside and is not on record yet. Says the names.
pub(super) fn report(journal: &Journal, gateway: &str, data_dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for number in asides(data_dir)? {
        let place = LogPlace::aside(data_dir, number);
        let path = place.tree.join(NOTE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => continue,
            Err(problem) => return Err(StoreError::io("read", &path)(problem)),
        };
        // A note that a crash cut off was never acted on; what is there now says as much as it did.
        let note = serde_json::from_slice(&bytes).unwrap_or_else(|_| SetAside {
            found: 0,
            problem: "what was found is not known any more".to_owned(),
            signed: place.files().memory().unwrap_or_default().map(|kept| kept.text),
        });
        write(journal, gateway, (&place.name, &note))?;
        journal.sync_all()?;
        rename(&path, &place.tree.join(RECORDED))?;
        names.push(place.name);
    }
    Ok(names)
}

fn write(journal: &Journal, gateway: &str, (name, note): (&str, &SetAside)) -> Result<(), StoreError> {
    let mut entry = Entry { kind: "recovery", ..Entry::default() };
    json::object(&mut entry.head, |line| {
        line.object("body", |body| {
            body.number("found", note.found);
            body.text("log", name);
            body.text("problem", &note.problem);
            body.optional("signed", note.signed.as_deref());
        });
        line.text("gateway", gateway);
    });
    entry.head.pop();
    let appended = journal.append(&entry)?;
    journal.commit(appended.seq.saturating_add(1))
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("keep aside", from))
}

fn sync(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(StoreError::io("sync folder", folder))
}
