//! What the logs say of sessions whose keys are there: when they began, whether anything happened in them since. Reads every
//! line, and remembers only sessions that began before the time that is asked for and are not erased.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;

use super::removal::Named;
use super::{Covered, RETENTION};
use crate::StoreError;
use crate::archive::{forgotten_slots, slots_in};
use crate::record::journal::KEYS_FILE;
use crate::record::logs::{LogPlace, logs};
use crate::record::register::{BEGUN, CARRIED, END, ERASURE, LegalHold, START, Started};
use crate::record::tail::LINE_BYTES_MAX;

/// What is read of a line.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    pub(super) seq: u64,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) session: Cow<'a, str>,
    #[serde(borrow, default)]
    principal: Who<'a>,
    #[serde(borrow)]
    body: Body<'a>,
}

#[derive(Deserialize, Default)]
struct Who<'a> {
    #[serde(borrow, default)]
    iss: Cow<'a, str>,
    #[serde(borrow, default)]
    sub: Cow<'a, str>,
    #[serde(borrow)]
    actor: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data_key: Option<Slot<'a>>,
    #[serde(borrow)]
    started: Option<Cow<'a, str>>,
    /// Of an erasure: whose, and how far.
    #[serde(borrow)]
    session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
    /// Of a session that was carried.
    #[serde(default)]
    erased: bool,
    sql: Option<Blob>,
    parameters: Option<Blob>,
    lists: Option<Blob>,
    sent: Option<Blob>,
}

#[derive(Deserialize)]
struct Slot<'a> {
    slot: u64,
    #[serde(borrow, default)]
    sha256: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Blob {
    segment: u64,
}

impl Line<'_> {
    /// The session that it begins, or is carried of its beginning.
    pub(super) fn started(&self) -> Option<Started> {
        if self.kind != START && self.kind != CARRIED {
            return None;
        }
        let Slot { slot, sha256 } = self.body.data_key.as_ref()?;
        let (slot, key_sha256) = (*slot, sha256.clone().into_owned());
        let time = self.body.started.as_ref().unwrap_or(&self.time).clone().into_owned();
        Some(Started { slot, key_sha256, time, ..self.whose() })
    }

    /// The session whose erasure it puts on record.
    pub(super) fn erased(&self) -> Option<&str> {
        if self.kind == CARRIED {
            return self.body.erased.then_some(self.session.as_ref());
        }
        let is_erasure = self.kind == ERASURE && self.body.state.as_deref() == Some(BEGUN);
        self.body.session.as_deref().filter(|_| is_erasure)
    }

    /// Whose session it is of, where that is all that is asked.
    pub(super) fn whose(&self) -> Started {
        Started {
            session: self.session.clone().into_owned(),
            slot: 0,
            key_sha256: String::new(),
            iss: self.principal.iss.clone().into_owned(),
            sub: self.principal.sub.clone().into_owned(),
            actor: self.principal.actor.clone().map(Cow::into_owned),
            time: String::new(),
        }
    }

    /// The oldest file of sealed texts that it names.
    pub(super) fn blob_segment(&self) -> Option<u64> {
        let Body { sql, parameters, lists, sent, .. } = &self.body;
        [sql, parameters, lists, sent].into_iter().flatten().map(|blob| blob.segment).min()
    }
}

/// Where a line stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// The whole lines of these files. One that is no event ends it: what cannot be read is not forgotten either.
pub(super) fn each_line(
    (place, segments): (&LogPlace, &[u64]),
    is_ending: &dyn Fn() -> bool,
    mut each: impl FnMut(At, &Line<'_>, &[u8]),
) -> Result<(), StoreError> {
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    for segment in segments.iter().copied() {
        if is_ending() {
            return Err(StoreError::Ending);
        }
        let path = place.segment(segment);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let mut file = BufReader::with_capacity(256 * 1024, file);
        let mut offset = 0;
        loop {
            bytes.clear();
            let read = file.by_ref().take(limit).read_until(b'\n', &mut bytes);
            let read = read.map_err(StoreError::io("read", &path))?;
            if bytes.pop() != Some(b'\n') {
                break;
            }
            let Ok(line) = serde_json::from_slice::<Line<'_>>(&bytes) else {
                return Err(StoreError::Damaged { path, offset, problem: "a line is not an event" });
            };
            each(At { segment, offset }, &line, &bytes);
            offset += u64::try_from(read).unwrap_or(u64::MAX);
        }
    }
    Ok(())
}

/// When the file that is written was begun.
pub(super) fn last_begun(place: &LogPlace) -> Result<Option<String>, StoreError> {
    let Some(segment) = place.segments()?.last().copied() else { return Ok(None) };
    let path = place.segment(segment);
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut first = Vec::new();
    let read = File::open(&path).and_then(|file| BufReader::new(file.take(limit)).read_until(b'\n', &mut first));
    read.map_err(StoreError::io("read", &path))?;
    Ok(serde_json::from_slice::<Line<'_>>(&first).ok().map(|line| line.time.into_owned()))
}

#[derive(Debug)]
struct Alive {
    started: Started,
    /// Something of it is newer than the time asked for.
    is_recent: bool,
}

#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Sessions that began before the time asked for and whose keys are there.
    alive: HashMap<String, Alive>,
    /// Other sessions whose beginning was read, and that have not ended: what they do is nothing to remember.
    others: HashSet<String>,
    /// Sessions that did something recently in lines before the one that says who they are: what was carried of their
    /// beginning stands behind what they did since.
    recent: HashSet<String>,
    /// What signed lines of the log that is written say retention took.
    pub(super) retained: Vec<Named>,
    /// Of that log: the first line that is not older.
    pub(super) first_recent: Option<u64>,
    /// Slots whose key is destroyed, ascending.
    destroyed: Vec<u64>,
    pub(super) holds: Vec<LegalHold>,
    /// Sessions whose slot has another's key: theirs was lost with the power, and nobody reads them.
    pub(super) lost: HashSet<String>,
}

impl Survey {
    pub(super) fn read(data_dir: &Path, before: &str, is_ending: &dyn Fn() -> bool) -> Result<Self, StoreError> {
        let mut survey = Self { destroyed: destroyed(data_dir)?, ..Self::default() };
        let current = LogPlace::current(data_dir);
        for place in logs(data_dir)?.into_iter().filter(|place| place.log.exists()) {
            let is_current = place.log == current.log;
            each_line((&place, &place.segments()?), is_ending, |_, line, bytes| {
                survey.take(line, before);
                let is_recent = line.time.as_ref() >= before;
                if is_current && is_recent && survey.first_recent.is_none() {
                    survey.first_recent = Some(line.seq);
                }
                if is_current && line.kind == RETENTION {
                    survey.retained.extend(Named::read(line.seq, bytes));
                }
            })?;
        }
        Ok(survey)
    }

    fn take(&mut self, line: &Line<'_>, before: &str) {
        if line.session.is_empty() {
            return;
        }
        let session = line.session.as_ref();
        // When a beginning was carried says nothing of when the session did anything.
        let is_recent = line.time.as_ref() >= before && line.kind != CARRIED;
        if let Some(known) = self.alive.get_mut(session) {
            known.is_recent |= is_recent;
            return;
        }
        let Some(started) = line.started() else {
            self.take_unknown(session, is_recent, line.kind == END);
            return;
        };
        let is_recent = self.recent.remove(session) || is_recent;
        if started.time.as_str() < before && !self.is_destroyed(started.slot) {
            self.alive.insert(started.session.clone(), Alive { started, is_recent });
        } else {
            self.others.insert(started.session);
        }
    }

    fn take_unknown(&mut self, session: &str, is_recent: bool, is_end: bool) {
        let is_other = if is_end { self.others.remove(session) } else { self.others.contains(session) };
        if is_recent && !is_other && !self.recent.contains(session) {
            self.recent.insert(session.to_owned());
        }
    }

    /// Those that ended before the time asked for, oldest first.
    pub(super) fn ended(&self, running: &BTreeMap<String, u64>) -> Vec<Started> {
        let ended = |session: &&Alive| !session.is_recent && !running.contains_key(&session.started.session);
        let mut found: Vec<Started> =
            self.alive.values().filter(ended).map(|session| session.started.clone()).collect();
        found.sort_by_key(|session| session.slot);
        found
    }

    /// Whether lines before `signed` say that everything before this one is gone.
    pub(super) fn covers(&self, first: u64, signed: u64) -> bool {
        let mut covered = Covered::default();
        for named in self.retained.iter().filter(|named| named.seq < signed) {
            covered.add(named.files.iter().map(|file| (file.first, file.next)));
        }
        covered.reaches(first).is_ok()
    }

    pub(super) fn erased(&mut self, session: &Started) {
        self.alive.remove(&session.session);
        if let Err(at) = self.destroyed.binary_search(&session.slot) {
            self.destroyed.insert(at, session.slot);
        }
    }

    pub(super) fn is_destroyed(&self, slot: u64) -> bool {
        self.destroyed.binary_search(&slot).is_ok()
    }

    /// Whether somebody may still read what is sealed of a session that began before the time asked for.
    pub(super) fn is_alive(&self, session: &str) -> bool {
        self.alive.contains_key(session)
    }
}

fn destroyed(data_dir: &Path) -> Result<Vec<u64>, StoreError> {
    let path = data_dir.join(KEYS_FILE);
    match std::fs::metadata(&path) {
        Ok(found) => forgotten_slots(data_dir, slots_in(found.len())),
        Err(problem) if problem.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(problem) => Err(StoreError::io("look at", &path)(problem)),
    }
}
