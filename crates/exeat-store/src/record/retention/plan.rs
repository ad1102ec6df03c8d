//! What may go: as many files of the log's beginning as nothing holds back, and the files of sealed texts that nobody reads
//! any more. Decides, and changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::carried::Carry;
use super::removal::{BlobFile, LogFile, Named, measured};
use super::survey::{At, Line, Survey, each_line};
use super::{FILES_PER_ROUND_MAX, RETENTION, TILE_LINES};
use crate::StoreError;
use crate::record::journal::{BLOB_FOLDER, blob_path, numbered};
use crate::record::logs::{LogPlace, logs};
use crate::record::register::{CARRIED, Started};
use crate::record::{Shared, json};

/// What holds files back, as it was before the lines were read.
pub(super) struct Limits<'a> {
    /// `None`: lines are kept for ever.
    pub(super) lines_before: Option<String>,
    pub(super) texts_before: String,
    /// Before this line everything is with whoever else is to have it.
    pub(super) passed: u64,
    pub(super) signed: u64,
    pub(super) oldest_open: Option<u64>,
    pub(super) is_ending: &'a dyn Fn() -> bool,
    pub(super) has_asides: bool,
    /// The one that is written.
    pub(super) blob_segment: u64,
}

impl Limits<'_> {
    /// Why lines before this one stay, if they do.
    fn keeps(&self, next: u64, survey: &Survey) -> Option<&'static str> {
        let hold = survey.holds.iter().map(|hold| hold.seq).min();
        let under_tiles = self.signed.saturating_sub(self.signed % TILE_LINES);
        match () {
            () if self.has_asides => Some("a log that was kept aside lies beside them"),
            () if next > under_tiles => Some("they are not signed under whole tiles yet"),
            () if next > self.passed => Some("the archive or an export has not got them"),
            () if self.oldest_open.is_some_and(|open| next > open) => Some("a statement in them has not ended"),
            () if hold.is_some_and(|hold| next > hold) => Some("a legal hold that stands was set in them"),
            () => None,
        }
    }

    /// Whether every line whose texts are due is with whoever else is to have it.
    fn has_passed_texts(&self, survey: &Survey) -> bool {
        self.passed >= survey.first_recent.unwrap_or(u64::MAX)
    }
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) files: Vec<LogFile>,
    pub(super) blobs: Vec<BlobFile>,
    pub(super) carried: Vec<Carry>,
    /// Of which nothing is left.
    sessions: u64,
    older_than: String,
    pub(super) waits: Option<&'static str>,
}

impl Plan {
    pub(super) fn make(
        data_dir: &Path,
        (survey, running): (&Survey, &BTreeMap<String, u64>),
        limits: &Limits<'_>,
    ) -> Result<Self, StoreError> {
        let place = LogPlace::current(data_dir);
        let segments = place.segments()?;
        let mut beginning = Beginning::default();
        let mut waits = beginning.read(&place, &segments, (survey, limits))?;
        let blob_files = numbered(&data_dir.join(BLOB_FOLDER), ".seg")?;
        let blobs_may_go = blob_files.len() > 1 && limits.has_passed_texts(survey);
        if beginning.files.is_empty() && !blobs_may_go {
            return Ok(Self { waits, ..Self::default() });
        }
        let rest = segments.get(beginning.oldest_blobs.len()..).unwrap_or_default();
        let mut oldest_blob = beginning.read_rest(&place, rest, (survey, limits))?;
        let cut = beginning.cut(survey, running);
        if cut < beginning.files.len() {
            waits = Some("a session in them is under a legal hold, or its key could not be destroyed yet");
        }
        let mut plan = Self { waits, ..Self::default() };
        for (first, next) in beginning.files.iter().take(cut).copied() {
            let (bytes, sha256) = measured(&place.segment(first))?;
            plan.files.push(LogFile { first, next, bytes, sha256 });
        }
        let kept = beginning.oldest_blobs.iter().skip(cut).copied();
        oldest_blob = kept.fold(oldest_blob, u64::min);
        for session in beginning.sessions.values().filter(|session| session.first < cut) {
            match session.goes_on(cut, running) {
                false => plan.sessions += 1,
                true => {
                    let Some(start) = session.to_carry(cut) else { continue };
                    oldest_blob = oldest_blob.min(start.blob);
                    plan.carried.push(Carry::Session { at: start.at, is_erased: session.is_erased });
                }
            }
        }
        plan.carried.sort_by_key(|carry| carry.place());
        plan.carried.extend(beginning.rotations.into_iter().filter(|(at, _)| *at < cut).map(|(_, carry)| carry));
        if blobs_may_go {
            let of_asides = oldest_of_asides(data_dir, (survey, limits))?;
            // Who runs remembers what it has sealed, and names it again.
            let of_running = running.values().copied().min().unwrap_or(u64::MAX);
            let end = oldest_blob.min(of_asides).min(of_running).min(limits.blob_segment);
            let free = blob_files.into_iter().filter(|segment| *segment < end);
            for segment in free.take(FILES_PER_ROUND_MAX) {
                let (bytes, sha256) = measured(&blob_path(data_dir, segment))?;
                plan.blobs.push(BlobFile { segment, bytes, sha256 });
            }
        }
        plan.older_than = match (&limits.lines_before, plan.files.is_empty()) {
            (Some(before), false) => before.clone(),
            _ => limits.texts_before.clone(),
        };
        Ok(plan)
    }

    /// Puts on record what is about to go, and says by which line.
    pub(super) fn write(&self, shared: &Shared) -> Result<u64, StoreError> {
        let entry = shared.entry(RETENTION, None, |body| {
            json::list(body.key("blobs"), &self.blobs, |out, file| {
                json::object(out, |object| {
                    object.number("bytes", file.bytes);
                    object.number("segment", file.segment);
                    object.text("sha256", &file.sha256);
                });
            });
            json::list(body.key("files"), &self.files, |out, file| {
                json::object(out, |object| {
                    object.number("bytes", file.bytes);
                    object.number("first", file.first);
                    object.number("next", file.next);
                    object.text("sha256", &file.sha256);
                });
            });
            let ends = self.files.first().zip(self.files.last());
            if let Some((first, _)) = ends {
                body.number("first", first.first);
            }
            if let Some((_, last)) = ends {
                body.number("next", last.next);
            }
            body.text("older_than", &self.older_than);
            body.number("sessions", self.sessions);
        });
        let seq = shared.journal.append(&entry)?.seq;
        shared.journal.commit(seq.saturating_add(1))?;
        Ok(seq)
    }

    /// As whoever reads that line has it.
    pub(super) fn named(&self, seq: u64) -> [Named; 1] {
        [Named { seq, files: self.files.clone(), blobs: self.blobs.clone() }]
    }
}

/// A session that has lines in the files that may go. Files are counted from the first.
#[derive(Debug)]
struct Known {
    whose: Started,
    slot: Option<u64>,
    first: usize,
    /// Of its last line in the files that were read for this.
    last: Option<usize>,
    starts: Vec<Start>,
    is_beyond: bool,
    is_carried_beyond: bool,
    /// A record says that its key was to be destroyed.
    is_erased: bool,
}

/// Where its beginning stands, or what was carried of it.
#[derive(Debug, Clone, Copy)]
struct Start {
    file: usize,
    at: At,
    /// The file of sealed texts that it names, or none such.
    blob: u64,
}

impl Known {
    /// Whether it has lines behind the cut, or will have.
    fn goes_on(&self, cut: usize, running: &BTreeMap<String, u64>) -> bool {
        self.is_beyond || self.last.is_some_and(|last| last >= cut) || running.contains_key(&self.whose.session)
    }

    /// What would be gone and is needed.
    fn to_carry(&self, cut: usize) -> Option<Start> {
        let is_there = self.is_carried_beyond || self.starts.iter().any(|start| start.file >= cut);
        self.starts.iter().rfind(|start| start.file < cut && !is_there).copied()
    }
}

/// The files of the log that may go, and who has lines in them.
#[derive(Debug, Default)]
struct Beginning {
    /// First line, and the one behind the last.
    files: Vec<(u64, u64)>,
    /// Of every file that was read for this: the oldest of sealed texts that is needed for it.
    oldest_blobs: Vec<u64>,
    sessions: HashMap<String, Known>,
    rotations: Vec<(usize, Carry)>,
}

impl Beginning {
    /// Says why files that are old enough stay, if some do.
    fn read(
        &mut self,
        place: &LogPlace,
        segments: &[u64],
        (survey, limits): (&Survey, &Limits<'_>),
    ) -> Result<Option<&'static str>, StoreError> {
        let Some(before) = limits.lines_before.as_deref() else { return Ok(None) };
        if segments.first().is_some_and(|first| !survey.covers(*first, limits.signed)) {
            // What follows would vouch for it.
            return Ok(Some("records before them are gone, and no record says why: `exeat audit verify` says more"));
        }
        for pair in segments.windows(2).take(FILES_PER_ROUND_MAX) {
            let [first, next] = *pair else { break };
            let (file, mut oldest_blob, mut is_old) = (self.oldest_blobs.len(), u64::MAX, true);
            each_line((place, &[first]), limits.is_ending, |at, line, bytes| {
                is_old &= line.time.as_ref() < before;
                self.take((file, at), line, bytes);
                oldest_blob = oldest_blob.min(needed(line, survey, limits));
            })?;
            self.oldest_blobs.push(oldest_blob);
            if !is_old {
                break;
            }
            if let Some(why) = limits.keeps(next, survey) {
                return Ok(Some(why));
            }
            self.files.push((first, next));
        }
        Ok(None)
    }

    fn take(&mut self, (file, at): (usize, At), line: &Line<'_>, bytes: &[u8]) {
        self.rotations.extend(Carry::of_key(line, bytes).map(|carry| (file, carry)));
        if line.session.is_empty() {
            self.note_erasure(line);
            return;
        }
        let session = self.sessions.entry(line.session.clone().into_owned()).or_insert_with(|| Known {
            whose: line.whose(),
            slot: None,
            first: file,
            last: None,
            starts: Vec::new(),
            is_beyond: false,
            is_carried_beyond: false,
            is_erased: false,
        });
        if let Some(started) = line.started() {
            session.slot = Some(started.slot);
            session.starts.push(Start { file, at, blob: line.blob_segment().unwrap_or(u64::MAX) });
        }
        if line.kind != CARRIED {
            session.last = Some(file);
        }
        self.note_erasure(line);
    }

    fn note_erasure(&mut self, line: &Line<'_>) {
        if let Some(session) = line.erased().and_then(|session| self.sessions.get_mut(session)) {
            session.is_erased = true;
        }
    }

    /// The lines behind. Gives the oldest file of sealed texts that they need.
    fn read_rest(
        &mut self,
        place: &LogPlace,
        rest: &[u64],
        (survey, limits): (&Survey, &Limits<'_>),
    ) -> Result<u64, StoreError> {
        let mut oldest_blob = u64::MAX;
        each_line((place, rest), limits.is_ending, |_, line, _| {
            oldest_blob = oldest_blob.min(needed(line, survey, limits));
            self.note_erasure(line);
            let Some(session) = self.sessions.get_mut(line.session.as_ref()) else { return };
            if line.kind == CARRIED {
                session.is_carried_beyond = true;
                session.slot = line.started().map(|started| started.slot).or(session.slot);
            } else {
                session.is_beyond = true;
            }
        })?;
        Ok(oldest_blob)
    }

    /// How many files go. None that has a line of a session under a legal hold, or of one that would be forgotten with its
    /// key still there.
    fn cut(&self, survey: &Survey, running: &BTreeMap<String, u64>) -> usize {
        let mut cut = self.files.len();
        loop {
            let holds_back = |session: &&Known| {
                let is_held = survey.holds.iter().any(|hold| hold.covers(&session.whose));
                let has_key = session.slot.is_some_and(|slot| !survey.is_destroyed(slot))
                    && !survey.lost.contains(&session.whose.session);
                session.first < cut && (is_held || has_key && !session.goes_on(cut, running))
            };
            match self.sessions.values().filter(holds_back).map(|session| session.first).min() {
                Some(first) => cut = first,
                None => return cut,
            }
        }
    }
}

/// The oldest file of sealed texts that a line keeps: none, where nobody can read what it names.
fn needed(line: &Line<'_>, survey: &Survey, limits: &Limits<'_>) -> u64 {
    let is_recent = line.time.as_ref() >= limits.texts_before.as_str();
    let named = line.blob_segment().filter(|_| is_recent || survey.is_alive(&line.session));
    named.unwrap_or(u64::MAX)
}

/// Logs that were kept aside name the same files.
fn oldest_of_asides(data_dir: &Path, (survey, limits): (&Survey, &Limits<'_>)) -> Result<u64, StoreError> {
    let current = LogPlace::current(data_dir);
    let mut oldest = u64::MAX;
    for place in logs(data_dir)?.into_iter().filter(|place| place.log != current.log && place.log.exists()) {
        let each = |_, line: &Line<'_>, _: &[u8]| oldest = oldest.min(needed(line, survey, limits));
        each_line((&place, &place.segments()?), limits.is_ending, each)?;
    }
    Ok(oldest)
}
