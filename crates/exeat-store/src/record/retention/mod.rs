//! Retention: what is older than the configuration keeps is forgotten, on record. Keys of sessions that ended long ago are
//! destroyed, as by an erasure; whole files go away from the log's beginning, and with them the sealed texts that nobody
//! reads any more. The tree's hashes stay, so that everything behind the cut verifies as before.
//!
//! Nothing goes that is not named by a line that is signed: first the line, then the files, oldest first. A crash between
//! leaves files that the next round takes away because the line says so. What a round cannot take now (a legal hold, an
//! archive that is behind) it leaves, with everything after it.

mod carried;
mod covered;
mod plan;
mod removal;
mod survey;

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub(crate) use carried::KEY_CARRIED;
pub(crate) use covered::Covered;

use super::erasure::{InSlot, key_in_slot};
use super::logs::{LogPlace, asides};
use super::register::Register;
use super::{Recorder, Shared};
use crate::StoreError;
use plan::{Limits, Plan};
use survey::Survey;

pub(crate) const RETENTION: &str = "retention";

/// Keys destroyed in one round: the rest comes in the next, and whoever asks for an erasure meanwhile does not wait for long.
const ERASED_PER_ROUND_MAX: usize = 10_000;

/// Keys destroyed under one sync of the disk.
const ERASED_AT_ONCE: usize = 128;

/// Files of each kind taken in one round: what names them fits one line.
const FILES_PER_ROUND_MAX: usize = 64;

/// Tiles are kept whole, so only lines under full ones go.
const TILE_LINES: u64 = 256;

/// Rounds and files come at least so often.
const STEP_MAX: Duration = Duration::from_hours(24);

/// How long what is kept. Sealed texts never longer than the lines that name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    lines: Option<Duration>,
    texts: Duration,
}

impl Retention {
    /// `None` where nothing is to be forgotten, or texts would be kept for longer than lines.
    pub fn new(lines: Option<Duration>, texts: Option<Duration>) -> Option<Self> {
        let texts = texts.or(lines)?;
        lines.is_none_or(|lines| texts <= lines).then_some(Self { lines, texts })
    }

    pub fn lines(&self) -> Option<Duration> {
        self.lines
    }

    pub fn texts(&self) -> Duration {
        self.texts
    }

    /// Files go whole, so none spans more than this; what is due waits no longer for its round.
    pub fn step(&self) -> Duration {
        (self.texts / 16).min(STEP_MAX)
    }
}

/// What a round goes by beside the configuration.
#[derive(Clone, Copy)]
pub struct RoundOf<'a> {
    pub now: Timestamp,
    /// Before this line everything is with whoever else is to have it.
    pub passed: u64,
    /// Asked while files are read: whether to leave it at that.
    pub is_ending: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for RoundOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoundOf").field("now", &self.now).field("passed", &self.passed).finish_non_exhaustive()
    }
}

/// What a round came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Sessions whose keys were destroyed.
    pub erased: u64,
    /// Sessions that are due and under a legal hold.
    pub held: u64,
    /// Lines that are gone now: the first, and the one behind the last.
    pub lines: Option<(u64, u64)>,
    /// Files of sealed texts that are gone now.
    pub blobs: u64,
    /// There may be more to do at once.
    pub is_partial: bool,
    /// Lines are due and stay, and why.
    pub waits: Option<&'static str>,
}

impl Recorder {
    /// One round. Takes as long as reading the record does.
    pub fn forget(&self, retention: &Retention, round: RoundOf<'_>) -> Result<Forgotten, StoreError> {
        let RoundOf { now, passed, is_ending } = round;
        let shared = &self.shared;
        let _alone = shared.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        shared.begin_segments(retention, now)?;
        // Before it is asked who runs: whoever begins later writes to this file of sealed texts or a later one.
        let blob_segment = shared.journal.blob_segment()?;
        // Before the lines are read: whoever runs no more has all of them on record.
        let running = shared.running.all();
        let texts_before = before(now, retention.texts);
        let mut survey = Survey::read(&shared.data_dir, &texts_before, is_ending)?;
        removal::remove_named(&shared.data_dir, &survey.retained, shared.journal.notary().signed())?;
        let mut done = Forgotten::default();
        shared.erase_old((&mut survey, &running), is_ending, &mut done)?;
        let limits = Limits {
            lines_before: retention.lines.map(|kept| before(now, kept)),
            texts_before,
            passed,
            is_ending,
            signed: shared.journal.notary().signed(),
            oldest_open: shared.journal.oldest_open()?,
            has_asides: !asides(&shared.data_dir)?.is_empty(),
            blob_segment,
        };
        let plan = Plan::make(&shared.data_dir, (&survey, &running), &limits)?;
        done.waits = plan.waits;
        shared.follow_plan(&plan, &mut done)?;
        Ok(done)
    }
}

/// So long before now, as lines have their time: they are compared as texts.
fn before(now: Timestamp, kept: Duration) -> String {
    let kept = SignedDuration::try_from(kept).unwrap_or(SignedDuration::MAX);
    format!("{:.6}", now.checked_sub(kept).unwrap_or(Timestamp::MIN))
}

impl Shared {
    /// A file that has grown old is left, whatever its size: it goes away only whole.
    fn begin_segments(&self, retention: &Retention, now: Timestamp) -> Result<(), StoreError> {
        let begun = survey::last_begun(&LogPlace::current(&self.data_dir))?;
        if begun.is_some_and(|begun| begun < before(now, retention.step())) {
            self.journal.begin_segments()?;
        }
        Ok(())
    }

    /// Of the sessions that ended long ago all but those under a legal hold; and no line says so each time.
    fn erase_old(
        &self,
        (survey, running): (&mut Survey, &BTreeMap<String, u64>),
        is_ending: &dyn Fn() -> bool,
        done: &mut Forgotten,
    ) -> Result<(), StoreError> {
        let due = survey.ended(running);
        let register = Register::read(&self.data_dir, |_| false)?;
        let (held, due): (Vec<_>, Vec<_>) = due.into_iter().partition(|session| register.hold_on(session).is_some());
        let mut free = Vec::new();
        for session in due {
            match key_in_slot(&self.data_dir, &session)? {
                InSlot::Own => free.push(session),
                InSlot::AnothersKey => drop(survey.lost.insert(session.session)),
                InSlot::Destroyed => {}
            }
        }
        done.held = u64::try_from(held.len()).unwrap_or(u64::MAX);
        survey.holds = register.holds;
        done.is_partial = free.len() > ERASED_PER_ROUND_MAX;
        free.truncate(ERASED_PER_ROUND_MAX);
        for sessions in free.chunks(ERASED_AT_ONCE) {
            if is_ending() {
                return Err(StoreError::Ending);
            }
            self.erase_all(sessions, ("retention", None))?;
            done.erased += u64::try_from(sessions.len()).unwrap_or(u64::MAX);
            sessions.iter().for_each(|session| survey.erased(session));
        }
        Ok(())
    }

    fn follow_plan(&self, plan: &Plan, done: &mut Forgotten) -> Result<(), StoreError> {
        if plan.files.is_empty() && plan.blobs.is_empty() {
            return Ok(());
        }
        for carry in &plan.carried {
            carry.write(self)?;
        }
        let seq = plan.write(self)?;
        // Files are gone for good: so must be what says so.
        self.journal.sync_all()?;
        self.journal.notary().wait_until_signed(seq.saturating_add(1))?;
        removal::remove_named(&self.data_dir, &plan.named(seq), seq.saturating_add(1))?;
        done.lines = plan.files.first().zip(plan.files.last()).map(|(first, last)| (first.first, last.next));
        done.blobs = u64::try_from(plan.blobs.len()).unwrap_or(u64::MAX);
        done.is_partial |= plan.files.len() >= FILES_PER_ROUND_MAX || plan.blobs.len() >= FILES_PER_ROUND_MAX;
        Ok(())
    }
}
