//! Words of statements. A text is unsealed once, taken apart, and forgotten: what stays is a hash of each word under a key
//! derived from the master, in their order, so that who has the keys can look for words and phrases and nobody else can.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ring::hmac;
use sqlx::Row;

use super::batch::Batch;
use super::line::Lists;
use super::vault::{Owner, Vault, parse_place};
use super::{Index, IndexError};
use crate::hex;
use crate::keys::KeySet;
use crate::read::{BlobKind, shown};

/// Words of one text that are searched: a bulk insert's values beyond them are not.
const WORDS_MAX: usize = 4096;

/// A longer word is searched by its beginning, in characters.
const WORD_CHARACTERS_MAX: usize = 128;

const TEXTS_PER_COMMIT: i64 = 20_000;

const HASHES_KEPT_MAX: usize = 100_000;

/// First bytes of a word's hash.
const HASH_BYTES: usize = 8;

/// Words as hashes, those met before at hand.
pub(super) struct Hasher<'k> {
    key: &'k hmac::Key,
    known: HashMap<String, String>,
}

impl<'k> Hasher<'k> {
    pub(super) fn new(keys: &'k KeySet) -> Self {
        Self { key: keys.words(), known: HashMap::new() }
    }

    fn push(&mut self, word: String, out: &mut String) {
        if self.known.len() >= HASHES_KEPT_MAX {
            self.known.clear();
        }
        if !out.is_empty() {
            out.push(' ');
        }
        match self.known.entry(word) {
            Entry::Occupied(known) => out.push_str(known.get()),
            Entry::Vacant(place) => {
                let tag = hmac::sign(self.key, place.key().as_bytes());
                let hash = hex::text(tag.as_ref().get(..HASH_BYTES).unwrap_or_default());
                out.push_str(place.insert(hash));
            }
        }
    }

    /// The hashes of a text's words, by spaces.
    pub(super) fn hashes(&mut self, text: &str) -> String {
        let mut out = String::new();
        for word in words(text).take(WORDS_MAX) {
            self.push(word, &mut out);
        }
        out
    }

    /// What is asked of the index: every part, and the words of a part in quotes beside each other.
    pub(super) fn question(&mut self, text: &str) -> Option<String> {
        let mut parts = Vec::new();
        for (number, part) in text.split('"').enumerate() {
            if number % 2 == 1 {
                parts.push(self.hashes(part));
            } else {
                parts.extend(words(part).map(|word| self.hashes(&word)));
            }
        }
        parts.retain(|part| !part.is_empty());
        (!parts.is_empty()).then(|| parts.iter().map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(" AND "))
    }
}

/// Runs of letters, digits and underscores, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split(|character: char| !(character.is_alphanumeric() || character == '_'));
    parts
        .filter(|part| !part.is_empty())
        .map(|part| part.chars().take(WORD_CHARACTERS_MAX).flat_map(char::to_lowercase).collect())
}

impl Index {
    /// Texts whose words are not in the index yet. How many are now.
    pub(super) async fn read_texts(&mut self, keys: &KeySet) -> Result<u64, IndexError> {
        let failed = self.failed();
        let mut vault = None;
        let mut hasher = Hasher::new(keys);
        let mut done = 0;
        let mut after = 0_i64;
        loop {
            let texts = sqlx::query(
                "SELECT text.id, text.sealed, session.id AS session, session.name, session.slot FROM text
                    JOIN session ON session.id = text.session WHERE text.sealed IS NOT NULL AND text.id > ?
                    ORDER BY text.id LIMIT ?",
            );
            let texts = texts.bind(after).bind(TEXTS_PER_COMMIT).fetch_all(&mut self.db).await.map_err(&failed)?;
            if texts.is_empty() {
                return Ok(done);
            }
            let vault = match &mut vault {
                Some(vault) => vault,
                none => none.insert(Vault::open(&self.data_dir, keys)),
            };
            let mut rows = Batch::new("INSERT OR REPLACE INTO words (rowid, text)", 2);
            let first = after;
            for row in &texts {
                let id: i64 = row.try_get("id").map_err(&failed)?;
                after = id;
                let Some(text) = self.text_of(vault, row)? else { continue };
                rows.push([id.into(), hasher.hashes(&text).into()]);
                done += 1;
            }
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.db).await.map_err(&failed)?;
            let ids = (first, after);
            let written = self.put_words(&mut rows, ids).await.map_err(&failed);
            let end = if written.is_ok() { "COMMIT" } else { "ROLLBACK" };
            sqlx::raw_sql(end).execute(&mut self.db).await.map_err(&failed)?;
            written?;
        }
    }

    fn text_of(&self, vault: &mut Vault<'_>, row: &sqlx::sqlite::SqliteRow) -> Result<Option<String>, IndexError> {
        let failed = self.failed();
        let place: String = row.try_get("sealed").map_err(&failed)?;
        let Some((place, encoding)) = parse_place(&place) else { return Ok(None) };
        let owner = Owner {
            session: row.try_get("session").map_err(&failed)?,
            name: row.try_get("name").map_err(&failed)?,
            slot: row.try_get("slot").map_err(&failed)?,
        };
        let plain = vault.unseal(owner, BlobKind::Sql, place)?;
        Ok(plain.map(|plain| shown(plain, encoding)))
    }

    /// What could not be read has no words, and is not tried again.
    async fn put_words(&mut self, rows: &mut Batch, (first, last): (i64, i64)) -> Result<(), sqlx::Error> {
        rows.flush(&mut self.db).await?;
        let done = sqlx::query("UPDATE text SET sealed = NULL WHERE id > ? AND id <= ? AND sealed IS NOT NULL");
        done.bind(first).bind(last).execute(&mut self.db).await?;
        Ok(())
    }

    /// Lists that did not fit their line.
    pub(super) async fn read_lists(&mut self, keys: &KeySet) -> Result<(), IndexError> {
        let failed = self.failed();
        let shapes = sqlx::query("SELECT id, sealed, origin FROM shape WHERE sealed IS NOT NULL");
        let shapes = shapes.fetch_all(&mut self.db).await.map_err(&failed)?;
        if shapes.is_empty() {
            return Ok(());
        }
        let mut vault = Vault::open(&self.data_dir, keys);
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.db).await.map_err(&failed)?;
        let mut filler = self.filler().await?;
        for row in shapes {
            let (shape, sealed): (i64, String) = (row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?);
            let origin: i64 = row.try_get(2).map_err(&failed)?;
            let Some(lists) = self.lists_of(&mut vault, (&sealed, origin)).await? else { continue };
            filler.sealed_lists(&mut self.db, shape, lists).await.map_err(&failed)?;
            let done = sqlx::query("UPDATE shape SET sealed = NULL WHERE id = ?").bind(shape);
            done.execute(&mut self.db).await.map_err(&failed)?;
        }
        filler.flush(&mut self.db).await.map_err(&failed)?;
        sqlx::raw_sql("COMMIT").execute(&mut self.db).await.map_err(&failed)?;
        Ok(())
    }

    async fn lists_of(
        &mut self,
        vault: &mut Vault<'_>,
        (sealed, session): (&str, i64),
    ) -> Result<Option<Lists>, IndexError> {
        let failed = self.failed();
        let row = sqlx::query("SELECT name, slot FROM session WHERE id = ?").bind(session);
        let row = row.fetch_optional(&mut self.db).await.map_err(&failed)?;
        let (Some(row), Some((place, _))) = (row, parse_place(sealed)) else {
            return Ok(None);
        };
        let name: String = row.try_get(0).map_err(&failed)?;
        let owner = Owner { session, name: &name, slot: row.try_get(1).map_err(&failed)? };
        let plain = vault.unseal(owner, BlobKind::Lists, place)?;
        Ok(plain.and_then(|plain| serde_json::from_slice(&plain).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_apart_as_one_would_look_for_them() {
        let text = "SELECT \"Customer_Id\", 'Ärger@example.com' FROM shop.orders WHERE n=42.5";
        let found: Vec<String> = words(text).collect();
        let expected =
            ["select", "customer_id", "ärger", "example", "com", "from", "shop", "orders", "where", "n", "42", "5"];
        assert_eq!(found, expected);
    }
}
