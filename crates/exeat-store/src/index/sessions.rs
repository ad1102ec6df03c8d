//! Sessions as the index has them, and their lines, read where the index says that they stand.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use jiff::Timestamp;
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::fill::{BLOCK_BYTES, int};
use super::line::Line;
use super::schema::used;
use super::vault::{Owner, Vault};
use super::{Index, IndexError};
use crate::StoreError;
use crate::keys::KeySet;
use crate::read::{BlobKind, BlobRef, Event, Span};
use crate::record::{LINE_BYTES_MAX, LogPlace};

/// A session in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// Its place in the index.
    id: i64,
    pub session: String,
    /// As its lines have it.
    pub principal: Value,
    pub target: String,
    pub database: String,
    pub login: String,
    pub application: String,
    /// Without its port.
    pub source: String,
    slot: Option<i64>,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    pub first_seq: u64,
    /// Retention took what the session did before this record.
    pub gone_before: Option<u64>,
    pub last_seq: u64,
    pub statements: u64,
    pub refused: u64,
    /// With an error of the server.
    pub failed: u64,
    pub rows: u64,
    /// Why; `None` while it goes on, or where nobody saw its end.
    pub ended: Option<String>,
    pub erased: bool,
}

/// What the record says of a session.
#[derive(Debug)]
pub struct SessionEvents {
    /// In order.
    pub events: Vec<Event>,
    /// Decisions about approvals that the session asked for or used.
    pub approvals: Vec<Event>,
}

/// A policy that came into force, or did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    pub seq: u64,
    pub at: Timestamp,
    pub version: u64,
    pub sha256: String,
    pub accepted: bool,
}

pub(super) fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    Ok(Timestamp::from_microsecond(row.try_get(column)?).unwrap_or_default())
}

pub(super) fn count(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(|number| u64::try_from(number).unwrap_or(0))
}

/// What the log begins with, where the session began earlier.
fn gone_before(row: &SqliteRow) -> Result<Option<u64>, sqlx::Error> {
    let (began, first) = (count(row, "first_seq")?, count(row, "log_first")?);
    Ok((began < first).then_some(first))
}

impl SessionRow {
    pub(super) fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let ended: String = row.try_get("ended")?;
        let raw: Option<String> = row.try_get("raw")?;
        Ok(Self {
            id: row.try_get("id")?,
            session: row.try_get("name")?,
            principal: raw.and_then(|raw| serde_json::from_str(&raw).ok()).unwrap_or(Value::Null),
            target: row.try_get("target")?,
            database: row.try_get("database")?,
            login: row.try_get("login")?,
            application: row.try_get("application")?,
            source: row.try_get("source")?,
            slot: row.try_get("slot")?,
            first_at: time(row, "first_at")?,
            last_at: time(row, "last_at")?,
            first_seq: count(row, "first_seq")?,
            gone_before: gone_before(row)?,
            last_seq: count(row, "last_seq")?,
            statements: count(row, "statements")?,
            refused: count(row, "refused")?,
            failed: count(row, "failed")?,
            rows: count(row, "rows")?,
            ended: (!ended.is_empty()).then_some(ended),
            erased: row.try_get::<i64, _>("erased")? != 0,
        })
    }
}

fn place(row: &SqliteRow) -> Result<(u64, u64), sqlx::Error> {
    Ok((count(row, "segment")?, count(row, "offset")?))
}

/// Where the block ends that this byte is in.
fn block_end(offset: u64) -> u64 {
    (offset / BLOCK_BYTES).saturating_add(1).saturating_mul(BLOCK_BYTES)
}

impl Index {
    pub async fn session(&mut self, session: &str) -> Result<SessionRow, IndexError> {
        let failed = self.failed();
        let found = sqlx::query(
            "SELECT session.*, principal.raw, coalesce((SELECT first FROM cursor), 0) AS log_first
                FROM session LEFT JOIN principal ON principal.id = session.principal
                WHERE session.name = ?",
        );
        let row = found.bind(session).fetch_optional(&mut self.db).await.map_err(&failed)?;
        let row = row.ok_or_else(|| IndexError::NoSession { session: session.to_owned() })?;
        SessionRow::read(&row).map_err(failed)
    }

    /// Where lines of the session stand and decisions about its approvals, in order: parts of files that hold others'
    /// lines too.
    pub async fn spans(&mut self, session: &SessionRow) -> Result<Vec<Span>, IndexError> {
        let log = LogPlace::current(&self.data_dir);
        let mut places = self.places(session).await?;
        places.extend(self.approval_places(session).await?);
        let mut blocks: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (segment, offset) in places {
            let first = blocks.entry((segment, block_end(offset))).or_insert(offset);
            *first = offset.min(*first);
        }
        let span = |((segment, end), offset)| Span::new(log.segment(segment), offset, end);
        Ok(blocks.into_iter().map(span).collect())
    }

    /// Once for each block, whoever went on there.
    async fn places(&mut self, session: &SessionRow) -> Result<Vec<(u64, u64)>, IndexError> {
        let failed = self.failed();
        let places = sqlx::query(
            "SELECT segment, min(offset) AS offset FROM place WHERE session = ? GROUP BY segment, offset / ?
                ORDER BY 1, 2",
        );
        let rows = places.bind(session.id).bind(int(BLOCK_BYTES)).fetch_all(&mut self.db).await.map_err(&failed)?;
        rows.iter().map(place).collect::<Result<_, _>>().map_err(failed)
    }

    /// Every line of the session that the log still has, in order.
    pub async fn events(&mut self, session: &SessionRow) -> Result<SessionEvents, IndexError> {
        let mut events = Vec::new();
        for (segment, offset) in self.places(session).await? {
            self.block(segment, offset, &mut |line, bytes| {
                if line.session == session.session {
                    events.extend(Event::parse(bytes));
                }
            })?;
        }
        let mut approvals = Vec::new();
        for (segment, offset) in self.approval_places(session).await? {
            let mut first = true;
            self.block(segment, offset, &mut |_, bytes| {
                if std::mem::take(&mut first) {
                    approvals.extend(Event::parse(bytes));
                }
            })?;
        }
        Ok(SessionEvents { events, approvals })
    }

    /// Of each decision about an approval that the session asked for or used.
    async fn approval_places(&mut self, session: &SessionRow) -> Result<Vec<(u64, u64)>, IndexError> {
        let failed = self.failed();
        let lines = sqlx::query(
            "SELECT segment, offset FROM approval_line WHERE approval IN
                (SELECT name.text FROM used JOIN name ON name.id = used.value WHERE used.kind = ? AND used.session = ?)
                ORDER BY segment, offset",
        );
        let lines = lines.bind(used::APPROVAL).bind(session.id).fetch_all(&mut self.db).await.map_err(&failed)?;
        lines.iter().map(place).collect::<Result<_, _>>().map_err(failed)
    }

    /// The lines from here to the end of the block.
    fn block(&self, segment: u64, offset: u64, each: &mut dyn FnMut(&Line<'_>, &[u8])) -> Result<(), StoreError> {
        let path = LogPlace::current(&self.data_dir).segment(segment);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // Given up by retention.
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(problem) => return Err(StoreError::io("open", &path)(problem)),
        };
        file.seek(SeekFrom::Start(offset)).map_err(StoreError::io("read", &path))?;
        let mut file = BufReader::new(file);
        let end = block_end(offset);
        let (mut at, mut bytes) = (offset, Vec::new());
        while at < end {
            bytes.clear();
            let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
            let read = file.by_ref().take(limit).read_until(b'\n', &mut bytes);
            let read = read.map_err(StoreError::io("read", &path))?;
            if bytes.pop() != Some(b'\n') {
                return Ok(());
            }
            let Some(line) = Line::parse(&bytes) else {
                return Err(StoreError::Damaged { path, offset: at, problem: "a line is not an event" });
            };
            each(&line, &bytes);
            at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// A sealed blob of the session. `None`: erased, or not what it was.
    pub fn unseal(&self, session: &SessionRow, blob: &BlobRef, keys: &KeySet) -> Result<Option<Vec<u8>>, StoreError> {
        let mut vault = Vault::open(&self.data_dir, keys);
        let owner = Owner { session: session.id, name: &session.session, slot: session.slot };
        vault.unseal_named(owner, blob)
    }

    /// The text of a statement, as people read it.
    pub fn text(&self, session: &SessionRow, event: &Event, keys: &KeySet) -> Result<Option<String>, StoreError> {
        let Some(blob) = event.blob(BlobKind::Sql) else { return Ok(None) };
        let plain = self.unseal(session, &blob, keys)?;
        Ok(plain.map(|plain| crate::read::shown(plain, blob.encoding.as_deref())))
    }

    /// Policies, in the order in which they came.
    pub async fn policies(&mut self) -> Result<Vec<PolicyRow>, IndexError> {
        let failed = self.failed();
        let rows = sqlx::query("SELECT * FROM policy ORDER BY seq").fetch_all(&mut self.db).await.map_err(&failed)?;
        let read = |row: &SqliteRow| {
            Ok(PolicyRow {
                seq: count(row, "seq")?,
                at: time(row, "at")?,
                version: count(row, "version")?,
                sha256: row.try_get("sha256")?,
                accepted: row.try_get::<i64, _>("accepted")? != 0,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
    }
}
