//! `exeat sessions replay`: a session out of the record, as it happened. Reads files; shows what was sealed to whoever has the keys.

use std::collections::HashSet;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Duration;

use exeat_store::StoreError;
use exeat_store::index::{INDEX_FILE, Index, IndexError, IndexPlace};
use exeat_store::keys::KeySet;
use exeat_store::read::{self, BlobKind, Event, Log, Span, open_log};
use exeat_wire::BackendMessage;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::sessions::ReplayArgs;
use crate::config::{Config, ConfigError};
use crate::exit::{self, Exit};
use crate::plain;
use crate::transcript::{Formats, Heard, LeftOut, Reader, TranscriptError};

/// Longest pause that is waited out between two events.
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("record {seq} cannot be replayed")]
    Transcript { seq: u64, source: TranscriptError },
    #[error("--speed is {0}; give a number above 0, such as 1 or 10")]
    Speed(f64),
    #[error("could not write to standard output")]
    Output(#[source] io::Error),
}

/// How it is shown.
enum View {
    Json,
    Bytes,
    Text(Pace),
}

enum Pace {
    AtOnce,
    Speed(f64),
    Step,
}

pub(crate) async fn run(args: &ReplayArgs) -> Result<Exit, ReplayError> {
    let view = match (args.json, args.bytes, args.speed, args.step) {
        (true, ..) => View::Json,
        (_, true, ..) => View::Bytes,
        (.., Some(speed), _) if !speed.is_finite() || speed <= 0.0 => return Err(ReplayError::Speed(speed)),
        (.., Some(speed), _) => View::Text(Pace::Speed(speed)),
        (.., true) => View::Text(Pace::Step),
        (..) => View::Text(Pace::AtOnce),
    };
    let config = Config::load(&args.record.config)?;
    let keys = KeySet::open(&config.keys, &config.data_dir)?;
    let data_dir = args.record.data.as_ref().unwrap_or(&config.data_dir);
    let log = open_log(data_dir)?;
    let events = match spans(data_dir, &args.session).await {
        Ok(Some(spans)) => log.events_in(&args.session, spans),
        // The log has everything; it only takes longer to read. So do sessions of logs that were kept aside.
        Ok(None) | Err(_) => log.events_of(&args.session)?,
    };
    let mut replay = Replay::new(log, &keys, &args.session, view);
    let mut found = false;
    for event in events {
        let event = event?;
        if replay.is_of_session(&event) {
            if !found && event.kind() != "session.start" {
                exit::note("the session's beginning is gone by retention; what is left of it follows");
            }
            found = true;
            match replay.show(&event) {
                // Whoever read it has what they wanted.
                Err(ReplayError::Output(problem)) if problem.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(Exit::Ok);
                }
                shown => shown?,
            }
            if event.kind() == "session.end" {
                break;
            }
        }
    }
    if !found {
        return Err(StoreError::NoSession { session: args.session.clone() }.into());
    }
    Ok(replay.end())
}

/// Where the session's lines are, if there is an index. None is made for it: reading the log once is less.
async fn spans(data_dir: &Path, session: &str) -> Result<Option<Vec<Span>>, IndexError> {
    let path = data_dir.join(INDEX_FILE);
    if !std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
        return Ok(None);
    }
    let mut index = Index::open(&IndexPlace::File(path), data_dir).await?;
    index.catch_up(None, |_| ()).await?;
    let session = index.session(session).await?;
    index.spans(&session).await.map(Some)
}

/// A whole session for people to read.
pub(crate) fn as_text(log: Log, keys: &KeySet, session: &str) -> Result<String, ReplayError> {
    let events = log.events_of(session)?;
    let mut replay = Replay::new(log, keys, session, View::Text(Pace::AtOnce));
    let mut text = String::new();
    for event in events {
        let event = event?;
        if replay.is_of_session(&event) {
            text.push_str(&String::from_utf8_lossy(&replay.event(&event)?));
        }
    }
    Ok(text)
}

struct Replay<'a> {
    log: Log,
    keys: &'a KeySet,
    session: &'a str,
    view: View,
    reader: Reader,
    formats: Formats,
    last: Option<Timestamp>,
    /// That the session asked for or used, so far.
    approvals: HashSet<String>,
    /// Bytes that were not kept.
    left_out: u64,
    /// What comes before is gone: messages may have begun in it.
    is_behind_gap: bool,
}

impl<'a> Replay<'a> {
    fn new(log: Log, keys: &'a KeySet, session: &'a str, view: View) -> Self {
        Self {
            log,
            keys,
            session,
            view,
            reader: Reader::default(),
            formats: Formats::default(),
            last: None,
            approvals: HashSet::new(),
            left_out: 0,
            is_behind_gap: true,
        }
    }

    /// Its own, or a decision about an approval of its own.
    fn is_of_session(&mut self, event: &Event) -> bool {
        let approval = event.body("approval").and_then(Value::as_str);
        match (event.session(), approval) {
            (Some(session), approval) if session == self.session => {
                self.approvals.extend(approval.map(str::to_owned));
                true
            }
            (None, Some(approval)) => self.approvals.contains(approval),
            _ => false,
        }
    }

    fn show(&mut self, event: &Event) -> Result<(), ReplayError> {
        let shown = self.event(event)?;
        self.pause(event)?;
        let mut out = io::stdout().lock();
        out.write_all(&shown).and_then(|()| out.flush()).map_err(ReplayError::Output)
    }

    fn event(&mut self, event: &Event) -> Result<Vec<u8>, ReplayError> {
        self.log.know(event, self.keys);
        if ["session.start", "statement.intent"].contains(&event.kind()) {
            self.is_behind_gap = false;
        }
        let heard = match self.unsealed(event, BlobKind::Sent)? {
            None => Vec::new(),
            Some(_) if self.is_behind_gap => Vec::new(),
            Some(piece) => {
                self.reader.piece(&piece).map_err(|source| ReplayError::Transcript { seq: event.seq(), source })?
            }
        };
        for heard in &heard {
            if let Heard::LeftOut(mark) = heard {
                self.left_out = self.left_out.saturating_add(mark.bytes);
            }
        }
        Ok(match &self.view {
            View::Bytes => heard.iter().filter_map(Heard::bytes).flatten().collect(),
            View::Json => self.as_json(event, &heard)?.into_bytes(),
            View::Text(_) => self.as_text(event, &heard)?.into_bytes(),
        })
    }

    fn end(&self) -> Exit {
        if self.left_out == 0 || !matches!(self.view, View::Bytes) {
            return Exit::Ok;
        }
        exit::note(&format!(
            "{} bytes of rows are not in it: they were past `audit.results`; their digests are shown by --json",
            self.left_out
        ));
        Exit::Error
    }

    fn unsealed(&mut self, event: &Event, kind: BlobKind) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(blob) = event.blob(kind) else { return Ok(None) };
        self.log.unseal_bytes(self.session, &blob, self.keys).map(Some)
    }

    fn text(&mut self, event: &Event) -> Result<Option<String>, StoreError> {
        let Some(blob) = event.blob(BlobKind::Sql) else { return Ok(None) };
        self.log.unseal(self.session, &blob, self.keys).map(Some)
    }

    fn parameters(&mut self, event: &Event) -> Result<Option<Value>, StoreError> {
        let parameters = self.unsealed(event, BlobKind::Parameters)?;
        Ok(parameters.and_then(|parameters| serde_json::from_slice(&parameters).ok()))
    }

    fn as_json(&mut self, event: &Event, heard: &[Heard]) -> Result<String, ReplayError> {
        let sent: Vec<Value> = heard.iter().map(|heard| heard.to_json(&mut self.formats)).collect();
        let mut shown = json!({"v": 1, "event": event.value()});
        if let Some(members) = shown.as_object_mut() {
            members.extend(self.text(event)?.map(|sql| ("sql".to_owned(), json!(sql))));
            members.extend(self.parameters(event)?.map(|parameters| ("parameters".to_owned(), parameters)));
            if !sent.is_empty() {
                members.insert("sent".to_owned(), Value::Array(sent));
            }
        }
        Ok(format!("{shown}\n"))
    }

    fn as_text(&mut self, event: &Event, heard: &[Heard]) -> Result<String, ReplayError> {
        let mut shown = match event.kind() {
            // What it brought is shown, not that it did.
            "session.sent" => String::new(),
            _ => format!("{}\n", plain::line(&read::describe(event))),
        };
        if let Some(sql) = self.text(event)? {
            plain::lines(&sql).for_each(|line| shown.push_str(&format!("    {line}\n")));
        }
        if let Some(parameters) = self.parameters(event)? {
            shown.push_str(&format!("    with {}\n", plain::line(&parameters.to_string())));
        }
        for heard in heard {
            if let Some(line) = self.line(heard) {
                shown.push_str(&format!("  | {}\n", plain::line(&line)));
            }
        }
        Ok(shown)
    }

    /// What a person wants to see of a message; the rest is the protocol's.
    fn line(&mut self, heard: &Heard) -> Option<String> {
        let message = match heard {
            Heard::Message(message) => message,
            Heard::Raw(frame) => return Some(format!("{} bytes in another encoding", frame.bytes().len())),
            Heard::LeftOut(LeftOut { rows, bytes, .. }) => {
                return Some(format!("({rows} rows, {bytes} bytes not kept)"));
            }
        };
        match message {
            BackendMessage::RowDescription(description) => {
                self.formats.describe(description);
                Some(description.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(" | "))
            }
            BackendMessage::DataRow(row) => {
                let cells = self.formats.cells(row);
                let cells = cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned));
                Some(cells.collect::<Vec<_>>().join(" | "))
            }
            BackendMessage::CopyData(frame) => {
                Some(String::from_utf8_lossy(frame.payload_slice()).trim_end_matches('\n').to_owned())
            }
            BackendMessage::CommandComplete { tag, .. } => Some(tag.as_str().to_owned()),
            BackendMessage::ErrorResponse(fields) | BackendMessage::NoticeResponse(fields) => Some(format!(
                "{} {}: {}",
                fields.severity().unwrap_or_default(),
                fields.sqlstate().unwrap_or_default(),
                fields.message().unwrap_or_default()
            )),
            BackendMessage::NotificationResponse { channel, payload, .. } => {
                Some(format!("notified on {}: {}", channel.as_str(), payload.as_str()))
            }
            BackendMessage::PortalSuspended => Some("(more to come)".to_owned()),
            BackendMessage::Authentication(_)
            | BackendMessage::BackendKeyData { .. }
            | BackendMessage::NegotiateProtocolVersion { .. }
            | BackendMessage::ParameterStatus { .. }
            | BackendMessage::ReadyForQuery(_)
            | BackendMessage::EmptyQueryResponse
            | BackendMessage::ParseComplete
            | BackendMessage::BindComplete
            | BackendMessage::CloseComplete
            | BackendMessage::NoData
            | BackendMessage::ParameterDescription { .. }
            | BackendMessage::CopyInResponse(_)
            | BackendMessage::CopyOutResponse(_)
            | BackendMessage::CopyBothResponse(_)
            | BackendMessage::CopyDone
            | BackendMessage::FunctionCallResponse(_) => None,
        }
    }

    fn pause(&mut self, event: &Event) -> Result<(), ReplayError> {
        let now: Option<Timestamp> = event.time().parse().ok();
        let since = self.last.zip(now).map(|(last, now)| now.duration_since(last).unsigned_abs());
        self.last = now.or(self.last);
        match &self.view {
            View::Text(Pace::Speed(speed)) => {
                std::thread::sleep(since.unwrap_or_default().div_f64(*speed).min(PAUSE_MAX));
                Ok(())
            }
            View::Text(Pace::Step) if event.kind() == "statement.intent" => {
                let mut line = String::new();
                io::stdin().lock().read_line(&mut line).map(drop).map_err(ReplayError::Output)
            }
            View::Json | View::Bytes | View::Text(Pace::AtOnce | Pace::Step) => Ok(()),
        }
    }
}
