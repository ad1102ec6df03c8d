//! What the logs say of sessions and their keys: which there were, which are under a legal hold, whose keys were destroyed.
//! The lines are the truth, so they are read again for every question: few are asked, and none on the road of statements.
//! Of all other lines only the last bytes are looked at.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;

use super::json;
use super::logs::{LogPlace, logs};
use super::tail::LINE_BYTES_MAX;
use crate::StoreError;

pub(crate) const START: &str = "session.start";
/// What the start says, told again by retention for a session that it leaves lines of.
pub(crate) const CARRIED: &str = "session.carried";
pub(crate) const END: &str = "session.end";
pub(crate) const ERASURE: &str = "erasure";
pub(crate) const HOLD_SET: &str = "legal_hold.set";
pub(crate) const HOLD_LIFTED: &str = "legal_hold.lifted";

/// States of an erasure.
pub(crate) const BEGUN: &str = "begun";
pub(crate) const DONE: &str = "done";
pub(crate) const REFUSED: &str = "refused";

/// One session, or all of somebody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    Session(String),
    /// By subject, or as the agent that acted for one; where no issuer is said, of any.
    Principal {
        issuer: Option<String>,
        subject: String,
    },
}

impl Whose {
    /// Whether an erasure is about it: an agent's work for others is theirs.
    fn is(&self, session: &Started) -> bool {
        match self {
            Self::Session(name) => *name == session.session,
            Self::Principal { issuer, subject } => {
                *subject == session.sub && issuer.as_ref().is_none_or(|issuer| *issuer == session.iss)
            }
        }
    }

    /// Whether a hold is about it. An agent's issuer is its token's.
    pub(super) fn covers(&self, session: &Started) -> bool {
        match self {
            Self::Session(_) => self.is(session),
            Self::Principal { issuer, subject } => {
                let acts = session.actor.as_ref() == Some(subject);
                self.is(session) || (acts && issuer.as_ref().is_none_or(|issuer| *issuer == session.iss))
            }
        }
    }

    /// Refuses a name that stands for several: one longer than lines keep, and one of several issuers. `found`: its sessions.
    pub(super) fn check(&self, found: &[Started]) -> Result<(), StoreError> {
        let Self::Principal { issuer, subject } = self else { return Ok(()) };
        if let Some(name) = issuer.iter().chain([subject]).find(|name| !json::is_whole(name)) {
            return Err(StoreError::LongName { bytes: name.len(), limit: json::TEXT_BYTES_MAX });
        }
        let issuers: BTreeSet<&str> = found.iter().map(|session| session.iss.as_str()).collect();
        if issuer.is_none() && issuers.len() > 1 {
            let issuers: Vec<String> = issuers.iter().map(|issuer| issuer.escape_debug().to_string()).collect();
            return Err(StoreError::SeveralIssuers { what: self.to_string(), issuers: issuers.join(", ") });
        }
        Ok(())
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Session(name) => write!(f, "session \"{}\"", name.escape_debug()),
            Self::Principal { issuer: None, subject } => write!(f, "principal \"{}\"", subject.escape_debug()),
            Self::Principal { issuer: Some(issuer), subject } => {
                write!(f, "principal \"{}\" of {}", subject.escape_debug(), issuer.escape_debug())
            }
        }
    }
}

/// What may not be erased until somebody lifts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegalHold {
    pub whose: Whose,
    pub reason: String,
    /// When it was set, as its line says.
    pub since: String,
    /// The subject who set it.
    pub by: String,
    /// Of the line that set it.
    pub seq: u64,
}

impl LegalHold {
    pub(super) fn covers(&self, session: &Started) -> bool {
        self.whose.covers(session)
    }
}

/// A session, as its first line has it, or what was carried of that.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub(super) session: String,
    pub(super) slot: u64,
    /// Of the wrapped key in that slot, hex.
    pub(super) key_sha256: String,
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) actor: Option<String>,
    pub(super) time: String,
}

impl Started {
    /// Whether an erasure is about it.
    pub(super) fn is_of(&self, whose: &Whose) -> bool {
        whose.is(self)
    }
}

/// The answer to one question.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// Those that were asked for, in order.
    pub(super) sessions: Vec<Started>,
    /// That stand.
    pub(super) holds: Vec<LegalHold>,
    /// How far erasures came: session and state.
    pub(super) erasures: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Line {
    seq: u64,
    #[serde(default)]
    session: String,
    #[serde(default)]
    principal: Who,
    time: String,
    body: Body,
}

#[derive(Deserialize, Default)]
struct Who {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    actor: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    data_key: Option<DataKey>,
    session: Option<String>,
    of: Option<String>,
    of_iss: Option<String>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    state: String,
    /// When a session began whose first line is gone.
    started: Option<String>,
}

#[derive(Deserialize)]
struct DataKey {
    slot: u64,
    #[serde(default)]
    sha256: String,
}

impl Register {
    pub(super) fn read(data_dir: &Path, asked: impl Fn(&Started) -> bool) -> Result<Self, StoreError> {
        let mut register = Self::default();
        for place in logs(data_dir)?.into_iter().filter(|place| place.log.exists()) {
            each_line(&place, |line| register.take(line, &asked))?;
        }
        Ok(register)
    }

    pub(super) fn hold_on(&self, session: &Started) -> Option<&LegalHold> {
        self.holds.iter().find(|hold| hold.covers(session))
    }

    /// A line that cannot be read says nothing here; `verify` names it.
    fn take(&mut self, line: &[u8], asked: &impl Fn(&Started) -> bool) {
        let Some(kind) = kind_of(line) else { return };
        if ![START, CARRIED, ERASURE, HOLD_SET, HOLD_LIFTED].iter().any(|known| known.as_bytes() == kind) {
            return;
        }
        let Ok(Line { seq, session, principal, time, body }) = serde_json::from_slice::<Line>(line) else { return };
        let principal_of = |subject| Whose::Principal { issuer: body.of_iss, subject };
        let whose = body.session.clone().map(Whose::Session).or(body.of.map(principal_of));
        match (kind, whose) {
            (kind, _) if kind == START.as_bytes() || kind == CARRIED.as_bytes() => {
                let Some(key) = body.data_key else { return };
                let DataKey { slot, sha256: key_sha256 } = key;
                let Who { iss, sub, actor } = principal;
                let time = body.started.unwrap_or(time);
                let started = Started { session, slot, key_sha256, iss, sub, actor, time };
                // What is carried comes behind the first line, where that is still there.
                let is_known =
                    kind == CARRIED.as_bytes() && self.sessions.iter().any(|known| known.session == started.session);
                self.sessions.extend((!is_known && asked(&started)).then_some(started));
            }
            (kind, _) if kind == ERASURE.as_bytes() => {
                self.erasures.extend(body.session.map(|session| (session, body.state)));
            }
            (_, None) => {}
            (kind, Some(whose)) => {
                self.holds.retain(|hold| hold.whose != whose);
                if kind == HOLD_SET.as_bytes() {
                    self.holds.push(LegalHold { whose, reason: body.reason, since: time, by: principal.sub, seq });
                }
            }
        }
    }
}

/// The type of an event, from the end of its line, where it always stands: a quote within a text has a backslash.
fn kind_of(line: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b",\"type\":\"";
    const KIND_BYTES_MAX: usize = 64;
    let rest = line.strip_suffix(b"\",\"v\":1}")?;
    let near = rest.get(rest.len().saturating_sub(KIND_BYTES_MAX)..)?;
    let at = near.windows(MARK.len()).rposition(|window| window == MARK)?;
    near.get(at + MARK.len()..)
}

/// Whole lines, without their line breaks.
fn each_line(place: &LogPlace, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    for segment in place.segments()? {
        let path = place.segment(segment);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let mut file = BufReader::with_capacity(256 * 1024, file);
        loop {
            line.clear();
            file.by_ref().take(limit).read_until(b'\n', &mut line).map_err(StoreError::io("read", &path))?;
            match line.strip_suffix(b"\n") {
                Some(whole) => each(whole),
                None if line.is_empty() => break,
                None => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_s_type_is_read_from_its_end_only() {
        let line =
            br#"{"body":{"reason":"x\",\"type\":\"erasure\",\"v\":1}"},"seq":1,"time":"t","type":"heartbeat","v":1}"#;
        assert_eq!(kind_of(line), Some(b"heartbeat".as_slice()));
        for none in [b"".as_slice(), br#"{"type":"x"}"#, br#"","v":1}"#] {
            assert_eq!(kind_of(none), None);
        }
    }
}
