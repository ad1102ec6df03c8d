//! The log's lines from a place on, and how an index knows that place again.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use ring::digest::{SHA256, digest};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{Row, query::Query};

use super::fill::{At, int};
use crate::record::{LINE_BYTES_MAX, LogPlace};
use crate::{StoreError, hex};

/// How far the log is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) next_seq: u64,
    segment: u64,
    offset: u64,
    line_at: u64,
    line: String,
    /// What the log began with: where retention has taken its beginning since, the index has too much.
    first: u64,
}

impl Cursor {
    pub(super) fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let number = |column: &str| row.try_get::<i64, _>(column).map(|found| u64::try_from(found).unwrap_or(0));
        Ok(Self {
            next_seq: number("next_seq")?,
            segment: number("segment")?,
            offset: number("offset")?,
            line_at: number("line_at")?,
            line: row.try_get("line")?,
            first: number("first")?,
        })
    }

    pub(super) fn insert(&self, version: i64) -> Query<'_, Sqlite, SqliteArguments> {
        let row = "INSERT INTO cursor (version, next_seq, segment, offset, line_at, line, first)
            VALUES (?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(row)
            .bind(version)
            .bind(int(self.next_seq))
            .bind(int(self.segment))
            .bind(int(self.offset))
            .bind(int(self.line_at))
            .bind(self.line.as_str())
            .bind(int(self.first))
    }

    /// Of an index that has nothing yet.
    pub(super) fn at_beginning(data_dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { first: first(&LogPlace::current(data_dir))?, ..Self::default() })
    }

    /// Whether the log begins where it did, and still has the line that was read last, where it was.
    pub(super) fn is_in(&self, data_dir: &Path) -> Result<bool, StoreError> {
        let log = LogPlace::current(data_dir);
        if first(&log)? != self.first {
            return Ok(false);
        }
        let path = log.segment(self.segment);
        let Some(length) = self.offset.checked_sub(self.line_at).filter(|length| *length > 0) else { return Ok(false) };
        let Ok(length) = usize::try_from(length) else { return Ok(false) };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(problem) => return Err(StoreError::io("open", &path)(problem)),
        };
        let mut line = vec![0; length.min(LINE_BYTES_MAX)];
        file.seek(SeekFrom::Start(self.line_at)).map_err(StoreError::io("read", &path))?;
        if file.read_exact(&mut line).is_err() {
            return Ok(false);
        }
        Ok(line.pop() == Some(b'\n') && hash(&line) == self.line)
    }
}

fn first(log: &LogPlace) -> Result<u64, StoreError> {
    Ok(log.segments()?.first().copied().unwrap_or(0))
}

fn hash(line: &[u8]) -> String {
    hex::text(digest(&SHA256, line).as_ref())
}

#[derive(Debug)]
pub(super) struct LogReader {
    log: LogPlace,
    segment: u64,
    offset: u64,
    file: Option<BufReader<File>>,
    /// The last whole line, and what has been read of the one behind it.
    line: Vec<u8>,
    coming: Vec<u8>,
    last: At,
}

impl LogReader {
    pub(super) fn from(data_dir: &Path, cursor: &Cursor) -> Result<Self, StoreError> {
        let last = At { segment: cursor.segment, offset: cursor.line_at };
        let (segment, offset) = (cursor.segment, cursor.offset);
        let mut reader = Self {
            log: LogPlace::current(data_dir),
            segment,
            offset,
            file: None,
            line: Vec::new(),
            coming: Vec::new(),
            last,
        };
        if cursor.line.is_empty() {
            // From the first segment there is.
            reader.segment = cursor.first;
        }
        Ok(reader)
    }

    /// The next whole line, and where it begins. `None` at the end, and before a line that is being written.
    pub(super) fn next(&mut self) -> Result<Option<At>, StoreError> {
        loop {
            if let Some(at) = self.next_here()? {
                return Ok(Some(at));
            }
            let segments = self.log.segments()?;
            let Some(next) = segments.into_iter().find(|segment| *segment > self.segment) else { return Ok(None) };
            self.segment = next;
            self.offset = 0;
            self.file = None;
        }
    }

    fn next_here(&mut self) -> Result<Option<At>, StoreError> {
        let path = self.log.segment(self.segment);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut file = match File::open(&path) {
                    Ok(file) => file,
                    Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(problem) => return Err(StoreError::io("open", &path)(problem)),
                };
                file.seek(SeekFrom::Start(self.offset)).map_err(StoreError::io("read", &path))?;
                self.file.insert(BufReader::with_capacity(256 * 1024, file))
            }
        };
        self.coming.clear();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = file.by_ref().take(limit).read_until(b'\n', &mut self.coming);
        let read = read.map_err(StoreError::io("read", &path))?;
        if self.coming.last() != Some(&b'\n') {
            // Read again from its beginning when it is whole.
            self.file = None;
            return Ok(None);
        }
        self.coming.pop();
        std::mem::swap(&mut self.line, &mut self.coming);
        self.last = At { segment: self.segment, offset: self.offset };
        self.offset += u64::try_from(read).unwrap_or(0);
        Ok(Some(self.last))
    }

    /// Without its line break.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    pub(super) fn damaged(&self, at: At) -> StoreError {
        StoreError::Damaged { path: self.log.segment(at.segment), offset: at.offset, problem: "a line is not an event" }
    }

    /// After the line that was read last.
    pub(super) fn mark(&self, cursor: &mut Cursor) {
        cursor.segment = self.last.segment;
        cursor.line_at = self.last.offset;
        // The reader may have left for a segment that is still empty.
        cursor.offset = self.last.offset.saturating_add(u64::try_from(self.line.len()).unwrap_or(0)).saturating_add(1);
        cursor.line = hash(&self.line);
    }
}
