//! What one export is to tell next: lines in their order, and each checkpoint that was the last one when the export looked,
//! behind the lines that it is for.

use std::path::{Path, PathBuf};

use exeat_store::StoreError;
use exeat_store::archive::{self, Signed};
use exeat_store::follow::Follower;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::ExportError;
use super::cursor::{Cursor, Position};

/// Told at once. A line has 32 KiB at most.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// A line, or a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// One JSON object; a line's is byte for byte what stands on record.
    pub(super) text: String,
    /// A checkpoint has none.
    pub(super) seq: Option<u64>,
    pub(super) kind: String,
    pub(super) session: Option<String>,
    /// RFC 3339, UTC, to the microsecond.
    pub(super) time: String,
    /// A refusal or a login that failed: somebody may want to look.
    pub(super) is_notable: bool,
}

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    #[serde(rename = "type")]
    kind: String,
    session: Option<String>,
    time: String,
    #[serde(default)]
    body: Body,
}

#[derive(Deserialize, Default)]
struct Body {
    decision: Option<String>,
    result: Option<String>,
}

impl Body {
    /// Before it ran, or while it was held or ran.
    fn is_refusal(&self) -> bool {
        self.decision.as_deref() == Some("refuse") || self.result.as_deref() == Some("refused")
    }
}

#[derive(Debug)]
pub(super) struct Reader {
    data_dir: PathBuf,
    gateway: String,
    cursor: Cursor,
    follower: Follower,
    /// Where `next` will go on.
    ahead: Position,
}

impl Reader {
    /// `None`: nothing is signed yet, so that nobody can say which log it is.
    pub(super) fn open(data_dir: &Path, gateway: &str, name: &str) -> Result<Option<Self>, ExportError> {
        let cursor = Cursor::of(data_dir, name);
        let Some(Signed { origin: log, .. }) = archive::signed(data_dir)? else { return Ok(None) };
        let ahead = match cursor.read()? {
            Some(position) if position.log == log => position,
            Some(position) => {
                tracing::warn!(name, from = position.log, to = log, "the log was begun anew, and an export with it");
                Position { log, ..Position::default() }
            }
            // Retention may have taken the log's beginning before anybody was told.
            None => Position { log, next: archive::first_line(data_dir)?, ..Position::default() },
        };
        let follower = Follower::new(data_dir, ahead.next);
        Ok(Some(Self { data_dir: data_dir.to_owned(), gateway: gateway.to_owned(), cursor, follower, ahead }))
    }

    /// What comes next; nothing where there is nothing new.
    pub(super) fn next(&mut self) -> Result<Vec<Told>, ExportError> {
        let signed = archive::signed(&self.data_dir)?;
        // What is not signed yet may not be on the disk: after a loss of power another line could stand in its place.
        let end = signed.as_ref().map_or(0, |signed| signed.size);
        let first = self.follower.next_seq();
        let lines = match self.follower.read(end, BATCH_BYTES_MAX) {
            Ok(lines) => lines,
            Err(StoreError::NotInLog { seq, first }) => {
                tracing::error!(seq, first, "lines that an export has not told are not in the log any more");
                self.follower = Follower::new(&self.data_dir, first);
                self.follower.read(end, BATCH_BYTES_MAX)?
            }
            Err(problem) => return Err(problem.into()),
        };
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut told: Vec<Told> = lines.zip(first..).map(|(line, seq)| Told::line(line, seq)).collect();
        self.ahead.next = self.follower.next_seq();
        let is_new = |signed: &Signed| signed.size > self.ahead.checkpoint && signed.size <= self.ahead.next;
        if let Some(signed) = signed.filter(is_new) {
            self.ahead.checkpoint = signed.size;
            told.push(Told::checkpoint(&signed, &self.gateway));
        }
        Ok(told)
    }

    /// Everything so far was taken.
    pub(super) fn taken(&self) -> Result<(), ExportError> {
        self.cursor.write(&self.ahead)
    }
}

impl Told {
    fn line(line: &[u8], seq: u64) -> Self {
        let text = String::from_utf8_lossy(line).into_owned();
        let Ok(Line { seq, kind, session, time, body }) = serde_json::from_str(&text) else {
            // It is told as it stands; whoever verifies the log says what it is.
            let (kind, time) = ("unreadable".to_owned(), now());
            return Self { text, seq: Some(seq), kind, session: None, time, is_notable: true };
        };
        let is_notable = matches!(kind.as_str(), "auth.fail" | "limit.reached") || body.is_refusal();
        Self { text, seq: Some(seq), kind, session, time, is_notable }
    }

    fn checkpoint(signed: &Signed, gateway: &str) -> Self {
        let time = now();
        let kind = "checkpoint".to_owned();
        let body =
            json!({"note": String::from_utf8_lossy(&signed.note), "origin": signed.origin, "records": signed.size});
        let text = json!({"body": body, "gateway": gateway, "time": time, "type": kind, "v": 1}).to_string();
        Self { text, seq: None, kind, session: None, time, is_notable: false }
    }
}

fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_before_and_while_it_ran_are_notable_and_nothing_else_is() {
        for (kind, body, is_notable) in [
            ("statement.intent", r#"{"decision":"refuse"}"#, true),
            ("statement.intent", r#"{"decision":"allow"}"#, false),
            ("statement.outcome", r#"{"result":"refused"}"#, true),
            ("statement.outcome", r#"{"result":"error"}"#, false),
            ("limit.reached", r#"{"kind":"rows"}"#, true),
            ("auth.fail", "{}", true),
            ("heartbeat", "{}", false),
        ] {
            let line = format!(r#"{{"body":{body},"seq":4,"time":"t","type":"{kind}","v":1}}"#);
            assert_eq!(Told::line(line.as_bytes(), 4).is_notable, is_notable, "{line}");
        }
    }
}
