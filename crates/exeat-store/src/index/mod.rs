//! The index of a record: which sessions did what, found without reading the whole log. SQLite, made from the log's
//! lines and brought up to date by whoever asks. The log is the truth: an index that does not end with a line of the log, or
//! is of another version, is made anew, and any may be deleted at any time.
//! Holds what lines say in clear. Of sealed texts it holds keyed hashes of their words, so that who has no key learns
//! nothing from it, and of a session that was erased not even these.

mod batch;
mod erase;
mod fill;
mod known;
mod line;
mod reader;
mod rows;
mod schema;
mod search;
mod sessions;
mod texts;
mod vault;

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use crate::StoreError;
use crate::keys::KeySet;
use fill::Filler;
use line::Line;
use reader::{Cursor, LogReader};

pub use search::{Access, AccessFilter, Filter, Seen};
pub use sessions::{PolicyRow, SessionEvents, SessionRow};

/// The index's name in data_dir.
pub const INDEX_FILE: &str = "index.db";

/// Lines between two commits, and their bytes: their rows wait in memory.
const LINES_PER_COMMIT: usize = 100_000;
const BYTES_PER_COMMIT: usize = 256 * 1024 * 1024;

/// Once is enough, unless sessions are erased meanwhile.
const ANEW_MAX: usize = 4;

/// Whoever else brings it up to date may take as long as a large record takes.
const BUSY_SECONDS_MAX: u64 = 600;

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("could not use the index {place}; it may be deleted at any time, it is made anew from the log")]
    Database { place: String, source: sqlx::Error },
    #[error("{place} is a database of something else; name a file that is an index, or none yet")]
    NoIndex { place: String },
    #[error("texts cannot be searched without the keys: give --config or --keys")]
    TextNeedsKeys,
    #[error("{text:?} has no word to search for")]
    NoWords { text: String },
    #[error("\"{session}\" is not a session of this record")]
    NoSession { session: String },
}

/// Where an index lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexPlace {
    File(PathBuf),
    /// For this once: made anew each time.
    Memory,
}

impl IndexPlace {
    /// In data_dir, where files can be made there.
    pub fn beside(data_dir: &Path) -> Self {
        let path = data_dir.join(INDEX_FILE);
        if make(&path).is_ok() { Self::File(path) } else { Self::Memory }
    }
}

/// What bringing it up to date came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CaughtUp {
    pub lines: u64,
    /// From the log's beginning.
    pub rebuilt: bool,
    /// Whose words are in the index now.
    pub texts: u64,
    /// Statement texts whose words are not: no keys, or not readable.
    pub texts_left: u64,
    /// Statements whose relations, columns, rules and masks are not, for the same reasons: too many for their line.
    pub lists_left: u64,
}

/// An open index of one record.
#[derive(Debug)]
pub struct Index {
    db: SqliteConnection,
    data_dir: PathBuf,
    place: String,
    file: Option<PathBuf>,
    /// Sessions that are erased and say which key was theirs only behind what they did.
    erased_late: HashSet<String>,
}

fn remove(path: &Path) -> Result<(), StoreError> {
    std::fs::remove_file(path).map_err(StoreError::io("remove the broken index", path))?;
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    // There may be none.
    let _ = std::fs::remove_file(journal);
    Ok(())
}

/// Private: names of relations and of people are in it.
fn make(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

impl Index {
    /// `data_dir` of a gateway, or a copy of it.
    pub async fn open(place: &IndexPlace, data_dir: &Path) -> Result<Self, IndexError> {
        let own = matches!(place, IndexPlace::File(path) if *path == data_dir.join(INDEX_FILE));
        let mut opened = Self::connect(place, data_dir).await;
        if own && matches!(&opened, Err(IndexError::Database { source, .. }) if is_broken(source)) {
            remove(&data_dir.join(INDEX_FILE))?;
            opened = Self::connect(place, data_dir).await;
        }
        opened
    }

    async fn connect(place: &IndexPlace, data_dir: &Path) -> Result<Self, IndexError> {
        let (options, shown) = match place {
            IndexPlace::Memory => (SqliteConnectOptions::new().in_memory(true), "in memory".to_owned()),
            IndexPlace::File(path) => {
                make(path).map_err(StoreError::io("make", path))?;
                (SqliteConnectOptions::new().filename(path), format!("\"{}\"", path.display()))
            }
        };
        let options = options
            .journal_mode(SqliteJournalMode::Truncate)
            // What a loss of power may break is made anew.
            .synchronous(SqliteSynchronous::Off)
            .busy_timeout(Duration::from_secs(BUSY_SECONDS_MAX))
            .pragma("cache_size", "-131072")
            .pragma("temp_store", "MEMORY")
            // What is deleted is overwritten: an erased session leaves no hash in a free page.
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        let failed = |source| IndexError::Database { place: shown.clone(), source };
        let mut db = options.connect().await.map_err(failed)?;
        let known = "SELECT (SELECT application_id FROM pragma_application_id), count(*) FROM sqlite_master";
        let row = sqlx::query(known).fetch_one(&mut db).await.map_err(failed)?;
        let (application, tables): (i64, i64) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        if tables > 0 && application != schema::APPLICATION {
            // Its tables would be dropped.
            return Err(IndexError::NoIndex { place: shown });
        }
        if tables == 0 {
            let mark = format!("PRAGMA application_id = {}", schema::APPLICATION);
            sqlx::query(sqlx::AssertSqlSafe(mark)).execute(&mut db).await.map_err(failed)?;
        }
        let file = match place {
            IndexPlace::File(path) => Some(path.clone()),
            IndexPlace::Memory => None,
        };
        Ok(Self { db, data_dir: data_dir.to_owned(), place: shown, file, erased_late: HashSet::new() })
    }

    /// Reads what the log has got since. With keys also the words of texts; `told` hears how many lines are done.
    pub async fn catch_up(&mut self, keys: Option<&KeySet>, mut told: impl FnMut(u64)) -> Result<CaughtUp, IndexError> {
        let mut done = match self.lines(&mut told).await {
            // A file that is none of ours, or broken: the log has everything.
            Err(IndexError::Database { source, .. }) if is_broken(&source) => {
                self.make_anew().await?;
                self.lines(&mut told).await?
            }
            result => result?,
        };
        let mut anew = 0;
        while !self.forget_erased().await? && anew < ANEW_MAX {
            // A text of an erased session was to be read there and nowhere else: others have it too.
            anew += 1;
            self.erased_late = self.erased_late().await?;
            self.make_anew().await?;
            done = self.lines(&mut told).await?;
        }
        if let Some(keys) = keys {
            keys.check(&self.data_dir, false)?;
            self.read_lists(keys).await?;
            done.texts = self.read_texts(keys).await?;
        }
        let left = sqlx::query("SELECT count(*) FROM text WHERE sealed IS NOT NULL").fetch_one(&mut self.db).await;
        let left: i64 = left.and_then(|row| row.try_get(0)).map_err(self.failed())?;
        done.texts_left = u64::try_from(left).unwrap_or(0);
        let unread = "SELECT count(*) FROM shape WHERE sealed IS NOT NULL
            AND origin NOT IN (SELECT id FROM session WHERE erased <> 0)";
        let left = sqlx::query(unread).fetch_one(&mut self.db).await;
        let left: i64 = left.and_then(|row| row.try_get(0)).map_err(self.failed())?;
        done.lists_left = u64::try_from(left).unwrap_or(0);
        Ok(done)
    }

    async fn lines(&mut self, told: &mut impl FnMut(u64)) -> Result<CaughtUp, IndexError> {
        let mut done = CaughtUp::default();
        let mut state: Option<(Cursor, LogReader, Filler)> = None;
        let failed = self.failed();
        loop {
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.db).await.map_err(&failed)?;
            let result = self.some_lines(&mut state, &mut done).await;
            let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
            let ended = sqlx::raw_sql(end).execute(&mut self.db).await.map_err(&failed);
            let more = result?;
            ended?;
            told(done.lines);
            if !more {
                return Ok(done);
            }
        }
    }

    /// Within a transaction. Whether there may be more.
    async fn some_lines(
        &mut self,
        state: &mut Option<(Cursor, LogReader, Filler)>,
        done: &mut CaughtUp,
    ) -> Result<bool, IndexError> {
        let failed = self.failed();
        let known = self.cursor().await?;
        let current = match (state.take(), known) {
            // Nobody else was here.
            (Some(ours), Some(known)) if ours.0 == known => ours,
            (_, Some(known)) if known.is_in(&self.data_dir)? => {
                let reader = LogReader::from(&self.data_dir, &known)?;
                (known, reader, self.filler().await?)
            }
            _ => {
                self.create().await?;
                done.rebuilt = true;
                done.lines = 0;
                let cursor = Cursor::at_beginning(&self.data_dir)?;
                let reader = LogReader::from(&self.data_dir, &cursor)?;
                (cursor, reader, self.filler().await?)
            }
        };
        let (mut cursor, mut reader, mut filler) = current;
        let (mut lines, mut bytes) = (0, 0);
        while lines < LINES_PER_COMMIT && bytes < BYTES_PER_COMMIT {
            let Some(at) = reader.next()? else { break };
            let line = Line::parse(reader.line()).ok_or_else(|| reader.damaged(at))?;
            filler.take(&mut self.db, &line, at).await.map_err(&failed)?;
            cursor.next_seq = line.seq.saturating_add(1);
            lines += 1;
            bytes += reader.line().len();
        }
        if lines > 0 {
            reader.mark(&mut cursor);
            filler.flush(&mut self.db).await.map_err(&failed)?;
            self.keep(&cursor).await?;
            done.lines += u64::try_from(lines).unwrap_or(0);
        }
        *state = Some((cursor, reader, filler));
        Ok(lines == LINES_PER_COMMIT || bytes >= BYTES_PER_COMMIT)
    }

    async fn filler(&mut self) -> Result<Filler, IndexError> {
        let erased = self.empty_slots()?.into_iter().collect();
        Filler::begin(&mut self.db, (erased, self.erased_late.clone())).await.map_err(self.failed())
    }

    /// `None`: there is none, or of another version.
    async fn cursor(&mut self) -> Result<Option<Cursor>, IndexError> {
        let failed = self.failed();
        let has = sqlx::query("SELECT 1 FROM sqlite_master WHERE name = 'cursor'");
        if has.fetch_optional(&mut self.db).await.map_err(&failed)?.is_none() {
            return Ok(None);
        }
        let row = sqlx::query("SELECT * FROM cursor WHERE version = ?").bind(schema::VERSION);
        let row = match row.fetch_optional(&mut self.db).await {
            Ok(row) => row,
            // Another program's table of that name.
            Err(problem) if is_broken(&problem) => return Err(failed(problem)),
            Err(_) => None,
        };
        row.map(|row| Cursor::read(&row).map_err(&failed)).transpose()
    }

    async fn keep(&mut self, cursor: &Cursor) -> Result<(), IndexError> {
        let failed = self.failed();
        sqlx::query("DELETE FROM cursor").execute(&mut self.db).await.map_err(&failed)?;
        cursor.insert(schema::VERSION).execute(&mut self.db).await.map_err(&failed)?;
        Ok(())
    }

    /// Empty tables in place of whatever is there.
    async fn create(&mut self) -> Result<(), IndexError> {
        let failed = self.failed();
        // Virtual tables first: their own tables go with them.
        let tables = sqlx::query(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
                ORDER BY sql LIKE 'CREATE VIRTUAL%' DESC",
        );
        for row in tables.fetch_all(&mut self.db).await.map_err(&failed)? {
            let name: String = row.try_get(0).map_err(&failed)?;
            let drop = format!("DROP TABLE IF EXISTS \"{}\"", name.replace('"', "\"\""));
            sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&mut self.db).await.map_err(&failed)?;
        }
        for table in schema::TABLES {
            sqlx::query(*table).execute(&mut self.db).await.map_err(&failed)?;
        }
        Ok(())
    }

    /// Throws everything away; of a file that has been ours, the file.
    async fn make_anew(&mut self) -> Result<(), IndexError> {
        let failed = self.failed();
        let Some(path) = self.file.clone() else {
            sqlx::query("DELETE FROM cursor").execute(&mut self.db).await.map_err(&failed)?;
            return Ok(());
        };
        remove(&path)?;
        let fresh = Self::connect(&IndexPlace::File(path), &self.data_dir).await?;
        let old = std::mem::replace(&mut self.db, fresh.db);
        // It was of a file that is gone.
        let _ = old.close().await;
        Ok(())
    }

    fn failed(&self) -> impl Fn(sqlx::Error) -> IndexError + use<> {
        let place = self.place.clone();
        move |source| IndexError::Database { place: place.clone(), source }
    }
}

/// SQLITE_CORRUPT and SQLITE_NOTADB, extended or not.
fn is_broken(problem: &sqlx::Error) -> bool {
    let code = problem.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// As a pattern of names: `*` stands for any characters, everything else for itself.
fn glob(pattern: &str) -> String {
    pattern.replace('[', "[[]").replace('?', "[?]")
}
