//! What is needed behind the cut of what stands before it: the beginning of a session that goes on, because its key is found
//! by it, and the lines by which one signing key handed over to the next, because who trusts the one trusts the other by them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use serde_json::Value;

use super::survey::{At, Line};
use crate::StoreError;
use crate::record::logs::LogPlace;
use crate::record::register::CARRIED;
use crate::record::tail::{Entry, LINE_BYTES_MAX};
use crate::record::{ROTATION, Shared, json};

/// A line that names a signing key, as it stood: the tree has its hash.
pub(crate) const KEY_CARRIED: &str = "key.carried";

#[derive(Debug)]
pub(super) enum Carry {
    /// `is_erased`: a record says so, which may go before what is carried does.
    Session {
        at: At,
        is_erased: bool,
    },
    Key {
        seq: u64,
        line: String,
    },
}

impl Carry {
    /// A line that names a signing key, or has carried one already.
    pub(super) fn of_key(line: &Line<'_>, bytes: &[u8]) -> Option<Self> {
        let text = || String::from_utf8(bytes.to_vec()).ok();
        if line.kind == ROTATION {
            return Some(Self::Key { seq: line.seq, line: text()? });
        }
        if line.kind != KEY_CARRIED {
            return None;
        }
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let body = value.get("body")?;
        Some(Self::Key { seq: body.get("seq")?.as_u64()?, line: body.get("line")?.as_str()?.to_owned() })
    }

    /// In the order of lines.
    pub(super) fn place(&self) -> (u64, u64) {
        match self {
            Self::Session { at, .. } => (at.segment, at.offset),
            Self::Key { seq, .. } => (*seq, 0),
        }
    }

    /// Committed with the line behind it.
    pub(super) fn write(&self, shared: &Shared) -> Result<(), StoreError> {
        let entry = match self {
            Self::Key { seq, line } => shared.entry(KEY_CARRIED, None, |body| {
                json::string(body.key("line"), line);
                body.number("seq", *seq);
            }),
            Self::Session { at, is_erased } => {
                let place = LogPlace::current(&shared.data_dir);
                let damaged = || StoreError::Damaged {
                    path: place.segment(at.segment),
                    offset: at.offset,
                    problem: "a line is not the beginning of a session",
                };
                session_entry(&read_line(&place, *at)?, *is_erased).ok_or_else(damaged)?
            }
        };
        shared.journal.append(&entry).map(drop)
    }
}

fn read_line(place: &LogPlace, at: At) -> Result<Vec<u8>, StoreError> {
    let path = place.segment(at.segment);
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let read = File::open(&path).and_then(|mut file| {
        file.seek(SeekFrom::Start(at.offset))?;
        BufReader::new(file.take(limit)).read_until(b'\n', &mut line)
    });
    read.map_err(StoreError::io("read", &path))?;
    Ok(line)
}

/// The line's own words, and where and when it stood.
fn session_entry(line: &[u8], is_erased: bool) -> Option<Entry> {
    let line: BTreeMap<String, Value> = serde_json::from_slice(line).ok()?;
    let mut body: BTreeMap<String, Value> = serde_json::from_value(line.get("body")?.clone()).ok()?;
    body.entry("start_seq".to_owned()).or_insert(line.get("seq")?.clone());
    body.entry("started".to_owned()).or_insert(line.get("time")?.clone());
    if is_erased {
        body.insert("erased".to_owned(), Value::Bool(true));
    }
    let mut entry = Entry { kind: CARRIED, ..Entry::default() };
    entry.head.extend_from_slice(b"{\"body\":");
    serde_json::to_writer(&mut entry.head, &body).ok()?;
    for (out, members) in [
        (&mut entry.head, ["gateway", "policy", "principal"].as_slice()),
        (&mut entry.middle, ["session", "source", "target"].as_slice()),
    ] {
        for (member, value) in members.iter().filter_map(|member| Some((member, line.get(*member)?))) {
            out.extend_from_slice(format!(",\"{member}\":").as_bytes());
            serde_json::to_writer(&mut *out, value).ok()?;
        }
    }
    Some(entry)
}
