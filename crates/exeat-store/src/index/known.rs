//! What repeats from line to line, and the ids it has: names, principals, shapes of statements, texts. Each stands in the index
//! once; what is remembered here saves the question whether it does.

use std::collections::HashMap;

use ring::digest::{SHA256, digest};
use sqlx::{Row, SqliteConnection};

use super::fill::REMEMBERED_MAX;
use super::line::{Lists, Principal, Statement};
use super::rows::Rows;
use super::schema::fact;

/// Ids of what repeats. `all`: there is nothing else in the index.
#[derive(Debug, Default)]
pub(super) struct Ids<K> {
    ids: HashMap<K, i64>,
    last: i64,
    all: bool,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) sessions: i64,
    pub(super) names: Ids<String>,
    principals: Ids<String>,
    /// By digest: their lists may be as long as a line.
    shapes: Ids<Vec<u8>>,
    texts: Ids<String>,
}

impl Known {
    pub(super) async fn begin(db: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let row = sqlx::query(
            "SELECT (SELECT coalesce(max(id), 0) FROM session), (SELECT coalesce(max(id), 0) FROM name),
                (SELECT coalesce(max(id), 0) FROM principal), (SELECT coalesce(max(id), 0) FROM shape),
                (SELECT coalesce(max(id), 0) FROM text)",
        )
        .fetch_one(db)
        .await?;
        fn ids<K>(last: i64) -> Ids<K> {
            Ids { ids: HashMap::new(), last, all: last == 0 }
        }
        Ok(Self {
            sessions: row.try_get(0)?,
            names: ids(row.try_get(1)?),
            principals: ids(row.try_get(2)?),
            shapes: ids(row.try_get(3)?),
            texts: ids(row.try_get(4)?),
        })
    }
}

impl<K: std::hash::Hash + Eq> Ids<K> {
    fn new_id(&mut self, key: K) -> i64 {
        self.last += 1;
        self.ids.insert(key, self.last);
        self.last
    }

    fn bound(&mut self) {
        if self.ids.len() > REMEMBERED_MAX {
            self.ids.clear();
            self.all = false;
        }
    }
}

impl Ids<String> {
    pub(super) async fn id(
        &mut self,
        db: &mut SqliteConnection,
        rows: &mut Rows,
        name: String,
    ) -> Result<i64, sqlx::Error> {
        if let Some(id) = self.ids.get(&name) {
            return Ok(*id);
        }
        if !self.all
            && let Some(id) = id_of(db, "SELECT id FROM name WHERE text = ?", &name).await?
        {
            self.ids.insert(name, id);
            return Ok(id);
        }
        let id = self.new_id(name.clone());
        rows.name.push([id.into(), name.into()]);
        Ok(id)
    }
}

impl Known {
    pub(super) async fn principal(
        &mut self,
        db: &mut SqliteConnection,
        rows: &mut Rows,
        raw: &str,
    ) -> Result<i64, sqlx::Error> {
        if let Some(id) = self.principals.ids.get(raw) {
            return Ok(*id);
        }
        if !self.principals.all
            && let Some(id) = id_of(db, "SELECT id FROM principal WHERE raw = ?", raw).await?
        {
            self.principals.ids.insert(raw.to_owned(), id);
            return Ok(id);
        }
        let id = self.principals.new_id(raw.to_owned());
        let principal: Principal = serde_json::from_str(raw).unwrap_or_default();
        let Principal { iss, sub, actor, groups } = principal;
        rows.principal.push([id.into(), raw.into(), iss.into(), sub.into(), actor.into()]);
        for group in groups {
            rows.member.push([id.into(), group.into()]);
        }
        Ok(id)
    }

    /// 0: it has none.
    pub(super) async fn text(
        &mut self,
        db: &mut SqliteConnection,
        rows: &mut Rows,
        session: i64,
        statement: &Statement<'_>,
    ) -> Result<i64, sqlx::Error> {
        let (digest, Some(sealed)) = (statement.digest.as_ref(), statement.sql) else { return Ok(0) };
        if let Some(id) = self.texts.ids.get(digest) {
            return Ok(*id);
        }
        if !self.texts.all
            && let Some(id) = id_of(db, "SELECT id FROM text WHERE digest = ?", digest).await?
        {
            self.texts.ids.insert(digest.to_owned(), id);
            return Ok(id);
        }
        let id = self.texts.new_id(digest.to_owned());
        let mut place = format!("{}:{}:{}", sealed.segment, sealed.offset, sealed.bytes);
        if !statement.encoding.is_empty() {
            place.push(':');
            place.push_str(&statement.encoding);
        }
        rows.text.push([id.into(), digest.into(), session.into(), place.into()]);
        Ok(id)
    }

    pub(super) async fn shape(
        &mut self,
        db: &mut SqliteConnection,
        rows: &mut Rows,
        session: i64,
        statement: &Statement<'_>,
    ) -> Result<i64, sqlx::Error> {
        let mut raw = Vec::with_capacity(512);
        for part in [statement.decision.as_bytes(), statement.code.as_bytes()] {
            raw.extend_from_slice(part);
            raw.push(0);
        }
        let Statement { columns, kinds, masked, relations, rules, touched, .. } = statement;
        for list in [columns, kinds, masked, relations, rules, touched] {
            raw.extend_from_slice(list.map(|list| list.get().as_bytes()).unwrap_or_default());
            raw.push(0);
        }
        let sealed = statement.lists.map(|at| (format!("{}:{}:{}", at.segment, at.offset, at.bytes), session));
        if let Some((place, session)) = &sealed {
            raw.extend_from_slice(format!("{session}:{place}").as_bytes());
        }
        let key = digest(&SHA256, &raw).as_ref().to_vec();
        if let Some(id) = self.shapes.ids.get(&key) {
            return Ok(*id);
        }
        if !self.shapes.all {
            let found = sqlx::query("SELECT id FROM shape WHERE key = ?").bind(key.as_slice());
            if let Some(row) = found.fetch_optional(&mut *db).await? {
                let id = row.try_get(0)?;
                self.shapes.ids.insert(key, id);
                return Ok(id);
            }
        }
        let id = self.shapes.new_id(key.clone());
        rows.shape(id, key, statement, sealed);
        self.facts(db, rows, id, Lists::of(statement)).await?;
        Ok(id)
    }

    /// What a shape can be found by.
    pub(super) async fn facts(
        &mut self,
        db: &mut SqliteConnection,
        rows: &mut Rows,
        shape: i64,
        lists: Lists,
    ) -> Result<(), sqlx::Error> {
        let named = [
            (fact::RELATION, lists.relations),
            (fact::COLUMN, lists.columns),
            (fact::TOUCHED, lists.touched),
            (fact::RULE, lists.rules),
            (fact::KIND, lists.kinds),
        ];
        for (kind, names) in named {
            for name in names {
                let name = self.names.id(db, rows, name).await?;
                rows.fact.push([kind.into(), name.into(), shape.into()]);
            }
        }
        for (place, masked) in (0_i64..).zip(lists.masked) {
            let relation = relation_of(&masked.column).to_owned();
            rows.masked.push([
                shape.into(),
                place.into(),
                masked.column.into(),
                relation.into(),
                masked.label.into(),
                masked.mask.into(),
            ]);
        }
        Ok(())
    }

    pub(super) fn bound(&mut self) {
        self.names.bound();
        self.principals.bound();
        self.shapes.bound();
        self.texts.bound();
    }
}

/// `schema.relation` of `schema.relation.column`, where the names are written as PostgreSQL quotes them.
fn relation_of(column: &str) -> &str {
    let mut quoted = false;
    let mut last = None;
    for (at, character) in column.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '.' if !quoted => last = Some(at),
            _ => {}
        }
    }
    last.and_then(|at| column.get(..at)).unwrap_or(column)
}

async fn id_of(db: &mut SqliteConnection, question: &'static str, key: &str) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query(question).bind(key).fetch_optional(db).await?.map(|row| row.try_get(0)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_names_its_relation() {
        for (column, relation) in [
            ("public.customers.ssn", "public.customers"),
            ("public.\"odd.name\".\"a.b\"", "public.\"odd.name\""),
            ("ssn", "ssn"),
        ] {
            assert_eq!(relation_of(column), relation);
        }
    }
}
