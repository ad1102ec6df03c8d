//! Reading the record: events in order, sealed texts with the keys, and one line per event for people.
//! Works on a copy as well as on a folder a gateway writes to, takes no lock and changes nothing. A last line that
//! is still being written is not an event yet.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::keys::{DataKey, KeySet};
use crate::record::{BLOB_BYTES_MAX, CARRIED, LINE_BYTES_MAX, LogPlace, START, logs, open_frame};
use crate::stored::Stored;
use crate::{StoreError, hex};

/// A large record is read in large pieces.
const READ_BYTES: usize = 256 * 1024;

/// Names shown in one list for people, or listed where the rest does not matter.
pub(crate) const LISTED_MAX: usize = 20;

/// What a sealed blob holds. Part of what it is sealed with: one cannot be read as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// Statement text.
    Sql,
    /// A JSON list of what was bound.
    Parameters,
    /// Lists that did not fit their line, as the JSON members they would have been.
    Lists,
    /// Messages as the client got them.
    Sent,
}

impl BlobKind {
    /// The member of a line's body that names such a blob.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Parameters => "parameters",
            Self::Lists => "lists",
            Self::Sent => "sent",
        }
    }

    pub(crate) fn aad(self) -> &'static [u8] {
        self.as_str().as_bytes()
    }
}

/// Where a sealed blob is, as a line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRef {
    pub kind: BlobKind,
    pub segment: u64,
    pub offset: u64,
    pub bytes: u64,
    /// Of the stored bytes, hex.
    pub sha256: String,
    /// Of the text inside, as PostgreSQL calls it, where it is not UTF-8.
    pub encoding: Option<String>,
}

/// One event of the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The line as it stands in the file, without its line break: what a verifier hashes.
    pub line: String,
    value: Value,
}

impl Event {
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.to_owned();
        let value: Value = serde_json::from_str(&line).ok()?;
        value.is_object().then_some(Self { line, value })
    }

    /// The whole event.
    pub fn value(&self) -> &Value {
        &self.value
    }

    pub fn seq(&self) -> u64 {
        self.value.get("seq").and_then(Value::as_u64).unwrap_or(0)
    }

    pub fn kind(&self) -> &str {
        self.text("type")
    }

    pub fn time(&self) -> &str {
        self.text("time")
    }

    pub fn session(&self) -> Option<&str> {
        self.value.get("session").and_then(Value::as_str)
    }

    /// A member of the body.
    pub fn body(&self, member: &str) -> Option<&Value> {
        self.value.get("body")?.get(member)
    }

    pub fn blob(&self, kind: BlobKind) -> Option<BlobRef> {
        let found = self.body(kind.as_str())?;
        let number = |member| found.get(member).and_then(Value::as_u64);
        Some(BlobRef {
            kind,
            segment: number("segment")?,
            offset: number("offset")?,
            bytes: number("bytes")?,
            sha256: found.get("sha256")?.as_str()?.to_owned(),
            encoding: match kind {
                BlobKind::Sql => self.body("encoding").and_then(Value::as_str).map(str::to_owned),
                BlobKind::Parameters | BlobKind::Lists | BlobKind::Sent => None,
            },
        })
    }

    fn text(&self, member: &str) -> &str {
        self.value.get(member).and_then(Value::as_str).unwrap_or("")
    }
}

/// A record's folder, open for reading.
#[derive(Debug)]
pub struct Log {
    data_dir: PathBuf,
    stored: Stored,
    /// Data keys of sessions, as they are met.
    keys: HashMap<String, DataKey>,
}

/// `data_dir` of a gateway, or a copy of it.
pub fn open_log(data_dir: &Path) -> Result<Log, StoreError> {
    LogPlace::current(data_dir).segments()?;
    Ok(Log { data_dir: data_dir.to_owned(), stored: Stored::of(data_dir), keys: HashMap::new() })
}

impl Log {
    /// All events, in order: first those of logs that were kept aside, each with numbers of its own.
    pub fn events(&self) -> Result<Events, StoreError> {
        self.events_with(None)
    }

    /// Those that name this session, and all that is said of approvals outside of sessions. Other lines are passed over
    /// unread, so that one session of a large record is found in the time that it takes to read the files; that their
    /// numbers follow each other is not looked at.
    pub fn events_of(&self, session: &str) -> Result<Events, StoreError> {
        self.events_with(Some(Wanted::of(session)))
    }

    fn events_with(&self, wanted: Option<Wanted>) -> Result<Events, StoreError> {
        let mut paths = Vec::new();
        for place in logs(&self.data_dir)? {
            // Folders are renamed one after the other: there may be a tree without its log for a moment.
            if place.log.exists() {
                paths.extend(place.segments()?.into_iter().map(|segment| Span::whole(place.segment(segment))));
            }
        }
        Ok(Events { spans: paths.into_iter(), current: None, wanted })
    }

    /// The same where it is known in which parts of the files they stand: `index` says so.
    pub fn events_in(&self, session: &str, spans: Vec<Span>) -> Events {
        Events { spans: spans.into_iter(), current: None, wanted: Some(Wanted::of(session)) }
    }

    /// The text of a blob that an event of this session names, as [`shown`].
    pub fn unseal(&mut self, session: &str, blob: &BlobRef, keys: &KeySet) -> Result<String, StoreError> {
        let plain = self.unseal_bytes(session, blob, keys)?;
        Ok(shown(plain, blob.encoding.as_deref()))
    }

    /// The same, byte for byte as it was sealed.
    pub fn unseal_bytes(&mut self, session: &str, blob: &BlobRef, keys: &KeySet) -> Result<Vec<u8>, StoreError> {
        let refused = || StoreError::Unsealing { what: blob.kind.as_str(), session: session.to_owned() };
        if !self.keys.contains_key(session) {
            let key = self.find_key(session, keys)?;
            self.keys.insert(session.to_owned(), key);
        }
        let key = self.keys.get(session).ok_or_else(refused)?;
        let length = usize::try_from(blob.bytes).ok().filter(|bytes| *bytes <= BLOB_BYTES_MAX).ok_or_else(refused)?;
        let sealed = self.stored.blob_bytes(blob.segment, blob.offset, length)?;
        if hex::text(digest(&SHA256, &sealed).as_ref()) != blob.sha256 {
            return Err(refused());
        }
        key.open(blob.kind.aad(), &sealed).and_then(|frame| open_frame(&frame)).ok_or_else(refused)
    }

    /// Takes a session's key by the line that begins it: nothing has to be looked for any more. Another line, or one whose key
    /// does not open, changes nothing.
    pub fn know(&mut self, start: &Event, keys: &KeySet) {
        let Some(session) = start.session().filter(|_| [START, CARRIED].contains(&start.kind())) else { return };
        if let Ok(key) = self.key_of(start, session, keys) {
            self.keys.insert(session.to_owned(), key);
        }
    }

    fn key_of(&self, start: &Event, session: &str, keys: &KeySet) -> Result<DataKey, StoreError> {
        let missing = || StoreError::NoSession { session: session.to_owned() };
        let slot = start.body("data_key").and_then(|key| key.get("slot")).and_then(Value::as_u64);
        let wrapped = self.stored.slot(slot.ok_or_else(missing)?)?;
        if wrapped.iter().all(|byte| *byte == 0) {
            return Err(StoreError::Erased { session: session.to_owned() });
        }
        keys.unwrap_data_key(session, &wrapped)
    }

    fn find_key(&self, session: &str, keys: &KeySet) -> Result<DataKey, StoreError> {
        let missing = || StoreError::NoSession { session: session.to_owned() };
        let mut problem = None;
        for event in self.events_of(session)? {
            let event = match event {
                Ok(event) => event,
                Err(damage) => {
                    problem = Some(damage);
                    continue;
                }
            };
            if ![START, CARRIED].contains(&event.kind()) || event.session() != Some(session) {
                continue;
            }
            return self.key_of(&event, session, keys);
        }
        Err(problem.unwrap_or_else(missing))
    }
}

/// Lines of one session, and whatever is said of approvals outside of sessions.
#[derive(Debug)]
struct Wanted {
    session: Finder<'static>,
    approvals: Finder<'static>,
}

impl Wanted {
    fn of(session: &str) -> Self {
        Self {
            session: Finder::new(&format!("\"session\":{}", Value::from(session))).into_owned(),
            approvals: Finder::new("\"type\":\"approval."),
        }
    }

    fn may_be(&self, line: &[u8]) -> bool {
        self.session.find(line).is_some() || self.approvals.find(line).is_some()
    }
}

/// A part of one file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    path: PathBuf,
    from: u64,
    /// Lines that begin before it are read.
    until: u64,
}

impl Span {
    fn whole(path: PathBuf) -> Self {
        Self { path, from: 0, until: u64::MAX }
    }

    /// `from`: where a line begins.
    pub(crate) fn new(path: PathBuf, from: u64, until: u64) -> Self {
        Self { path, from, until }
    }

    fn open(self) -> Result<Segment, StoreError> {
        let Self { path, from, until } = self;
        let mut file = File::open(&path).map_err(StoreError::io("open", &path))?;
        file.seek(SeekFrom::Start(from)).map_err(StoreError::io("read", &path))?;
        let room = usize::try_from(until.saturating_sub(from)).unwrap_or(usize::MAX).min(READ_BYTES);
        Ok(Segment { path, file: BufReader::with_capacity(room, file), offset: from, until })
    }
}

/// Iterator over a record's events.
#[derive(Debug)]
pub struct Events {
    spans: std::vec::IntoIter<Span>,
    current: Option<Segment>,
    /// Other lines are not looked at.
    wanted: Option<Wanted>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    until: u64,
}

impl Segment {
    /// `None` at the end, and before a line that is not whole yet.
    fn next(&mut self, wanted: Option<&Wanted>) -> Result<Option<Event>, StoreError> {
        let mut line = Vec::new();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        while self.offset < self.until {
            line.clear();
            let read = self.file.by_ref().take(limit).read_until(b'\n', &mut line);
            let read = read.map_err(StoreError::io("read", &self.path))?;
            if line.pop() != Some(b'\n') {
                return Ok(None);
            }
            let offset = self.offset;
            self.offset += u64::try_from(read).unwrap_or(u64::MAX);
            if wanted.is_some_and(|wanted| !wanted.may_be(&line)) {
                continue;
            }
            let damaged = || StoreError::Damaged { path: self.path.clone(), offset, problem: "a line is not an event" };
            return Event::parse(&line).map(Some).ok_or_else(damaged);
        }
        Ok(None)
    }
}

impl Iterator for Events {
    type Item = Result<Event, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(segment) = &mut self.current {
                match segment.next(self.wanted.as_ref()) {
                    Ok(Some(event)) => return Some(Ok(event)),
                    Ok(None) => self.current = None,
                    Err(error) => {
                        // What follows damage is not shown as if it followed what came before. Another log is whole.
                        let log = self.current.take().and_then(|damaged| damaged.path.parent().map(Path::to_owned));
                        let rest = self.spans.as_slice().iter().filter(|span| span.path.parent() != log.as_deref());
                        self.spans = rest.cloned().collect::<Vec<_>>().into_iter();
                        return Some(Err(error));
                    }
                }
            }
            match self.spans.next()?.open() {
                Ok(segment) => self.current = Some(segment),
                // Retention may take a file between the look at the folder and this.
                Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(problem) => return Some(Err(problem)),
            }
        }
    }
}

/// A client's bytes as text: decoded where the encoding is one we read, else with every byte that is not ASCII as
/// `\xNN`, and a backslash as two. For people: [`Log::unseal_bytes`] has it as it came.
pub fn shown(bytes: Vec<u8>, encoding: Option<&str>) -> String {
    let bytes = match encoding {
        // Every byte is the code point of its character.
        Some("LATIN1") => return bytes.into_iter().map(char::from).collect(),
        None | Some("UTF8" | "SQL_ASCII") => match String::from_utf8(bytes) {
            Ok(text) => return text,
            Err(problem) => problem.into_bytes(),
        },
        Some(_) => bytes,
    };
    if bytes.is_ascii() { bytes.into_iter().map(char::from).collect() } else { escaped(&bytes) }
}

/// Bytes that are no text: what is not ASCII as `\xNN`, and a backslash as two.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0..=0x7f => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// The event as one line for people: when, what, who, and what came of it. Shows nothing that is sealed.
pub fn describe(event: &Event) -> String {
    let mut line = format!("{}  {:<17}", event.time(), event.kind());
    if let Some(principal) = event.value().get("principal") {
        let name = |member| principal.get(member).and_then(Value::as_str);
        line.push_str("  ");
        line.push_str(&plain(name("sub").unwrap_or("?")));
        if let Some(actor) = name("actor") {
            line.push_str(&format!(" (by {})", plain(actor)));
        }
    }
    if let Some(target) = event.value().get("target").and_then(Value::as_str) {
        line.push_str(&format!(" at {}", plain(target)));
    }
    for part in parts(event) {
        line.push_str("  ");
        line.push_str(&part);
    }
    line
}

fn parts(event: &Event) -> Vec<String> {
    let text = |member| event.body(member).and_then(Value::as_str).map(plain);
    let named = |member: &str, shown: &str| {
        let value = event.body(member)?;
        let value = value.as_str().map_or_else(|| value.to_string(), plain);
        Some(format!("{shown}{value}"))
    };
    let list = |member: &str, shown: &str| {
        let names = names(event.body(member)?);
        (!names.is_empty()).then(|| format!("{shown}{}", names.join(", ")))
    };
    let parts = match event.kind() {
        "statement.intent" | "statement.parse" => vec![
            text("decision"),
            named("code", ""),
            list("kinds", ""),
            list("relations", "on "),
            list("masked", "masked "),
            list("rules", "by "),
            list("reasons", "because "),
        ],
        "statement.outcome" => vec![
            text("result"),
            named("tag", ""),
            named("sqlstate", "sqlstate "),
            named("batch_from", "with all from "),
            named("rows", "rows "),
            named("cells_masked", "cells masked "),
        ],
        "session.start" => vec![named("database", "database "), named("login", "as "), named("backend_pid", "pid ")],
        "session.carried" => vec![
            named("started", "began "),
            named("database", "database "),
            named("login", "as "),
            named("backend_pid", "pid "),
        ],
        "retention" => {
            vec![named("first", "gone from record "), named("next", "to before "), named("older_than", "older than ")]
        }
        "session.end" | "auth.fail" => vec![text("reason"), list("unanswered", "unanswered ")],
        "policy.changed" => vec![named("accepted", "accepted "), text("path"), text("problem")],
        "config.changed" => vec![text("what"), text("path")],
        "recovery" => vec![
            named("cut_bytes", "bytes cut "),
            list("unknown", "outcome unknown "),
            named("log", "kept aside "),
            text("problem"),
        ],
        "approval.requested" | "approval.consumed" | "approval.withdrawn" | "approval.escalated"
        | "approval.expired" => {
            vec![text("approval"), list("rules", "by ")]
        }
        "approval.decided" | "approval.revoked" | "approval.reviewed" | "approval.void" => {
            vec![text("approval"), text("decision"), text("finding"), named("reason", "because "), text("problem")]
        }
        "heartbeat" => vec![named("open", "open ")],
        _ => Vec::new(),
    };
    parts.into_iter().flatten().collect()
}

/// The words of a list: texts, or the telling members of objects.
fn names(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names: Vec<String> = items
        .iter()
        .take(LISTED_MAX)
        .map(|item| {
            let member = |name| item.get(name).and_then(Value::as_str).map(plain);
            match (item.as_str(), member("column"), member("mask"), member("request_id")) {
                (Some(text), ..) => plain(text),
                (None, Some(column), Some(mask), _) => format!("{column} ({mask})"),
                (None, _, _, Some(request)) => request,
                (None, ..) => item.to_string(),
            }
        })
        .collect();
    if items.len() > LISTED_MAX {
        names.push(format!("and {} more", items.len() - LISTED_MAX));
    }
    names
}

/// Names come from databases and tokens: nothing of them may move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
