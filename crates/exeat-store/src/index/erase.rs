//! What the record has forgotten, the index forgets: words of sessions whose key is destroyed, and sessions that stand in
//! no segment of the log any more.

use std::collections::HashSet;
use std::io::{BufReader, ErrorKind, Read};

use sqlx::Row;

use super::schema::used;
use super::{Index, IndexError};
use crate::StoreError;
use crate::record::{LogPlace, slot_bytes};
use crate::stored::Stored;

/// Of `session.erased`: it is, and what it had in the index is gone.
const DONE: i64 = 2;

impl Index {
    /// False where a text has to be looked for anew: it was to be read from a session that is erased, and others have it.
    pub(super) async fn forget_erased(&mut self) -> Result<bool, IndexError> {
        let failed = self.failed();
        for slot in self.empty_slots()? {
            let erased = sqlx::query("UPDATE session SET erased = 1 WHERE slot = ? AND erased = 0").bind(slot);
            erased.execute(&mut self.db).await.map_err(&failed)?;
        }
        let mut ids = self.ids("SELECT id FROM session WHERE erased = 1", 0).await?;
        let first = LogPlace::current(&self.data_dir).segments()?.first().copied().unwrap_or(0);
        let gone = self.ids("SELECT id FROM session WHERE last_seq < ?", super::fill::int(first)).await?;
        ids.extend(&gone);
        if !ids.is_empty() {
            self.forget_all(&ids, &gone).await?;
        }
        // Whoever forgot before may have been killed before it looked.
        let orphans = "SELECT 1 FROM text LEFT JOIN session ON session.id = text.session
            WHERE text.sealed IS NOT NULL AND (session.id IS NULL OR session.erased = ?) LIMIT 1";
        let orphans = sqlx::query(orphans).bind(DONE).fetch_optional(&mut self.db).await.map_err(failed)?;
        Ok(orphans.is_none())
    }

    /// Names of erased sessions whose beginning the log has no more: what was carried of it stands behind what they did.
    pub(super) async fn erased_late(&mut self) -> Result<HashSet<String>, IndexError> {
        let failed = self.failed();
        let names = "SELECT name FROM session WHERE erased <> 0 AND first_seq < (SELECT first FROM cursor)";
        let rows = sqlx::query(names).fetch_all(&mut self.db).await.map_err(&failed)?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)
    }

    async fn forget_all(&mut self, ids: &[i64], gone: &[i64]) -> Result<(), IndexError> {
        let failed = self.failed();
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.db).await.map_err(&failed)?;
        let result = self.forget(ids, gone).await.map_err(&failed);
        let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        sqlx::raw_sql(end).execute(&mut self.db).await.map_err(&failed)?;
        result
    }

    async fn forget(&mut self, ids: &[i64], gone: &[i64]) -> Result<(), sqlx::Error> {
        let db = &mut self.db;
        for id in ids {
            for forget in [
                "DELETE FROM used WHERE session = ? AND kind = 2",
                "UPDATE statement SET text = 0 WHERE session = ?",
                // Lists that were sealed for their length, and read since.
                "DELETE FROM fact WHERE shape IN (SELECT id FROM shape WHERE origin = ?)",
                "DELETE FROM masked WHERE shape IN (SELECT id FROM shape WHERE origin = ?)",
                "UPDATE session SET erased = 2 WHERE id = ?",
            ] {
                sqlx::query(forget).bind(id).execute(&mut *db).await?;
            }
        }
        for id in gone {
            for forget in [
                "DELETE FROM used WHERE session = ?",
                "DELETE FROM statement WHERE session = ?",
                "DELETE FROM place WHERE session = ?",
                "DELETE FROM open WHERE session = ?",
                "DELETE FROM session WHERE id = ?",
            ] {
                sqlx::query(forget).bind(id).execute(&mut *db).await?;
            }
        }
        // Nobody has them any more.
        let left = "SELECT id FROM text WHERE id NOT IN (SELECT value FROM used WHERE kind = ?)";
        for row in sqlx::query(left).bind(used::TEXT).fetch_all(&mut *db).await? {
            let id: i64 = row.try_get(0)?;
            for forget in ["DELETE FROM words WHERE rowid = ?", "DELETE FROM text WHERE id = ?"] {
                sqlx::query(forget).bind(id).execute(&mut *db).await?;
            }
        }
        // Deleted words stay in their segments until these are merged.
        sqlx::query("INSERT INTO words (words) VALUES ('optimize')").execute(&mut *db).await?;
        Ok(())
    }

    async fn ids(&mut self, question: &'static str, bound: i64) -> Result<Vec<i64>, IndexError> {
        let failed = self.failed();
        let mut query = sqlx::query(question);
        if question.contains('?') {
            query = query.bind(bound);
        }
        let rows = query.fetch_all(&mut self.db).await.map_err(&failed)?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)
    }

    /// Slots whose key is destroyed.
    pub(super) fn empty_slots(&self) -> Result<Vec<i64>, IndexError> {
        let stored = Stored::of(&self.data_dir);
        let keys = match stored.keys() {
            Ok(keys) => keys,
            // A copy without keys: nothing in it can be unsealed, and nothing of it was erased here.
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(problem) => return Err(problem.into()),
        };
        let mut file = BufReader::with_capacity(256 * 1024, keys);
        let mut slot = vec![0; usize::try_from(slot_bytes()).unwrap_or(1)];
        let mut empty = Vec::new();
        for number in 0.. {
            match file.read_exact(&mut slot) {
                Ok(()) if slot.iter().all(|byte| *byte == 0) => empty.push(number),
                Ok(()) => {}
                Err(problem) if problem.kind() == ErrorKind::UnexpectedEof => break,
                Err(problem) => return Err(StoreError::io("read keys of", &self.data_dir)(problem).into()),
            }
        }
        Ok(empty)
    }
}
