//! What a crash left behind: a torn last line is cut, open intents are closed as unknown, both on record.
//! Reads only as far back as the last segment's first heartbeat says that intents were open. Repairs nothing but
//! the end of the last file: damage elsewhere is for a human, and the record does not open.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;

use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::file::AppendFile;
use super::journal::{BLOB_FOLDER, Journal, LOG_FOLDER, Position, log_path, numbered};
use super::json;
use super::tail::{Entry, LINE_BYTES_MAX};
use crate::{StoreError, hex};

/// Open intents on one recovery line; a crash of a thousand sessions makes several lines.
const OPEN_PER_LINE: usize = 100;

#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) position: Position,
    pub(super) findings: Findings,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    cut: Option<Cut>,
    open: Vec<OpenIntent>,
    /// Lines that nobody had signed: what a crash left of the last second, or what was written behind the gateway's back.
    pub(super) unsigned: Option<Range<u64>>,
}

/// Bytes taken off the end of the last file.
#[derive(Debug, PartialEq)]
struct Cut {
    bytes: u64,
    sha256: String,
}

#[derive(Debug)]
struct OpenIntent {
    seq: u64,
    session: String,
    request_id: String,
}

/// What recovery reads of a line.
#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    session: Cow<'a, str>,
    #[serde(borrow, default)]
    body: Body<'a>,
}

#[derive(Deserialize, Default)]
struct Body<'a> {
    #[serde(borrow, default)]
    request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    decision: Cow<'a, str>,
    #[serde(default)]
    last: bool,
    oldest_open_seq: Option<u64>,
    #[serde(default)]
    unknown: Vec<Unknown>,
}

/// An intent that an earlier recovery closed.
#[derive(Deserialize)]
struct Unknown {
    seq: u64,
}

/// `signed`: so many lines are not cut, whatever became of them. Where they are not whole any more, the log is the notary's
/// to refuse as it is.
pub(super) fn recover(data_dir: &Path, signed: u64) -> Result<Recovered, StoreError> {
    let segments = numbered(&data_dir.join(LOG_FOLDER), ".jsonl")?;
    let blob_segment = numbered(&data_dir.join(BLOB_FOLDER), ".seg")?.last().copied().unwrap_or(0);
    let Some(last) = segments.last().copied() else {
        let position = Position { log: None, blob_segment, next_seq: 0 };
        return Ok(Recovered { position, findings: Findings::default() });
    };
    let mut file = AppendFile::open(log_path(data_dir, last))?;
    let from = scan_start(data_dir, &segments)?;
    let mut scan = Scan::default();
    for segment in segments.iter().copied().filter(|segment| *segment >= from) {
        scan.segment(&log_path(data_dir, segment), segment == last)?;
    }
    let next_seq = scan.next_seq.unwrap_or(last);
    let cut = match scan.tail {
        Some(offset) if next_seq >= signed => Some(cut_tail(&mut file, offset)?),
        Some(_) | None => None,
    };
    let log = if file.len() == 0 { None } else { Some(file) };
    let open = scan.open.into_iter().map(|((session, request_id), seq)| OpenIntent { seq, session, request_id });
    let findings = Findings { cut, open: open.collect(), unsigned: None };
    // An emptied last segment is named by its first number: it is simply begun again.
    let next_seq = if log.is_none() { last } else { next_seq };
    Ok(Recovered { position: Position { log, blob_segment, next_seq }, findings })
}

/// Writes what was found, if anything was.
pub(super) fn report(journal: &Journal, gateway: &str, findings: &Findings) -> Result<(), StoreError> {
    let mut once = (findings.cut.as_ref(), findings.unsigned.as_ref());
    if findings.open.is_empty() && once != (None, None) {
        return write_report(journal, gateway, once, &[]);
    }
    for open in findings.open.chunks(OPEN_PER_LINE) {
        write_report(journal, gateway, std::mem::take(&mut once), open)?;
    }
    Ok(())
}

fn write_report(
    journal: &Journal,
    gateway: &str,
    (cut, unsigned): (Option<&Cut>, Option<&Range<u64>>),
    open: &[OpenIntent],
) -> Result<(), StoreError> {
    let mut entry = Entry { kind: "recovery", ..Entry::default() };
    json::object(&mut entry.head, |line| {
        line.object("body", |body| {
            if let Some(cut) = cut {
                body.number("cut_bytes", cut.bytes);
                body.text("cut_sha256", &cut.sha256);
            }
            if !open.is_empty() {
                body.text("result", "outcome_unknown");
                json::list(body.key("unknown"), open, |out, intent| {
                    json::object(out, |object| {
                        object.text("request_id", &intent.request_id);
                        object.number("seq", intent.seq);
                        object.text("session", &intent.session);
                    });
                });
            }
            if let Some(unsigned) = unsigned {
                body.object("unsigned", |range| {
                    range.number("end", unsigned.end);
                    range.number("first", unsigned.start);
                });
            }
        });
        line.text("gateway", gateway);
    });
    entry.head.pop();
    let appended = journal.append(&entry)?;
    journal.commit(appended.seq.saturating_add(1))
}

/// The first segment that can hold an intent still open: the one the last segment's heartbeat points into.
fn scan_start(data_dir: &Path, segments: &[u64]) -> Result<u64, StoreError> {
    for segment in segments.iter().rev().copied() {
        let path = log_path(data_dir, segment);
        let mut first = Vec::new();
        open(&path)?.read_until(b'\n', &mut first).map_err(StoreError::io("read", &path))?;
        let Ok(line) = serde_json::from_slice::<Line<'_>>(&first) else { continue };
        if line.kind == "heartbeat" {
            let oldest = line.body.oldest_open_seq.unwrap_or(segment);
            return Ok(segments.iter().rev().copied().find(|start| *start <= oldest).unwrap_or(0));
        }
    }
    Ok(0)
}

#[derive(Default)]
struct Scan {
    next_seq: Option<u64>,
    open: BTreeMap<(String, String), u64>,
    /// Where the last file stops being whole lines.
    tail: Option<u64>,
}

impl Scan {
    fn segment(&mut self, path: &Path, last: bool) -> Result<(), StoreError> {
        let mut file = open(path)?;
        let mut line = Vec::new();
        let mut offset = 0_u64;
        loop {
            line.clear();
            // Never more than a line may have: a file of another kind is not read into memory whole.
            let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
            let read = file.by_ref().take(limit).read_until(b'\n', &mut line).map_err(StoreError::io("read", path))?;
            if read == 0 {
                return Ok(());
            }
            let whole = line.last() == Some(&b'\n');
            match self.line(&line).filter(|()| whole) {
                Some(()) => offset += u64::try_from(read).unwrap_or(u64::MAX),
                // No line break ends a write that was cut short; a NUL fills blocks that never reached the disk.
                None if last && (!whole && at_end(&mut file, path)? || line.contains(&0)) => {
                    self.tail = Some(offset);
                    return Ok(());
                }
                None => {
                    let problem = if whole { "a line is not the next event" } else { "a line does not end" };
                    return Err(StoreError::Damaged { path: path.to_owned(), offset, problem });
                }
            }
        }
    }

    /// `None` if it is not the event that comes next.
    fn line(&mut self, bytes: &[u8]) -> Option<()> {
        let line: Line<'_> = serde_json::from_slice(bytes).ok()?;
        if self.next_seq.is_some_and(|next| next != line.seq) {
            return None;
        }
        self.next_seq = Some(line.seq.checked_add(1)?);
        let key = || (line.session.clone().into_owned(), line.body.request_id.clone().into_owned());
        match line.kind.as_ref() {
            "statement.intent" if line.body.decision == "allow" => {
                self.open.insert(key(), line.seq);
            }
            "statement.outcome" if line.body.last => {
                self.open.remove(&key());
            }
            "session.end" => self.open.retain(|(session, _), _| *session != line.session),
            "recovery" => self.open.retain(|_, seq| !line.body.unknown.iter().any(|unknown| unknown.seq == *seq)),
            _ => {}
        }
        Some(())
    }
}

fn at_end(file: &mut impl BufRead, path: &Path) -> Result<bool, StoreError> {
    file.fill_buf().map(<[u8]>::is_empty).map_err(StoreError::io("read", path))
}

fn open(path: &Path) -> Result<BufReader<File>, StoreError> {
    File::open(path).map(|file| BufReader::with_capacity(64 * 1024, file)).map_err(StoreError::io("open", path))
}

fn cut_tail(file: &mut AppendFile, offset: u64) -> Result<Cut, StoreError> {
    let path = file.path().to_owned();
    let mut tail = open(&path)?;
    tail.seek_relative(i64::try_from(offset).unwrap_or(i64::MAX)).map_err(StoreError::io("read", &path))?;
    let mut digest = Context::new(&SHA256);
    let mut bytes = 0_u64;
    loop {
        let chunk = tail.fill_buf().map_err(StoreError::io("read", &path))?;
        if chunk.is_empty() {
            break;
        }
        digest.update(chunk);
        let length = chunk.len();
        bytes += u64::try_from(length).unwrap_or(u64::MAX);
        tail.consume(length);
    }
    file.cut_to(offset)?;
    Ok(Cut { bytes, sha256: hex::text(digest.finish().as_ref()) })
}
