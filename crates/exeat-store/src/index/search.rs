//! Questions to the index, each one query. What is asked about statements holds of one and the same statement.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::schema::{fact, result_number, used};
use super::sessions::{SessionRow, count, time};
use super::texts::Hasher;
use super::{Index, IndexError, glob};
use crate::keys::KeySet;

/// Which sessions. Of names a `*` stands for any characters.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Subject, or the agent that acted for it.
    pub principal: Option<String>,
    pub group: Option<String>,
    pub target: Option<String>,
    pub database: Option<String>,
    /// Address, without its port.
    pub source: Option<String>,
    /// `schema.relation`.
    pub relation: Option<String>,
    /// `schema.relation.column`: read, written, or asked about.
    pub column: Option<String>,
    /// Of a column that was masked; with `relation` and `column`, of that one.
    pub label: Option<String>,
    /// That it was masked by.
    pub mask: Option<String>,
    pub kind: Option<String>,
    pub decision: Option<String>,
    pub rule: Option<String>,
    /// Of the refusal.
    pub code: Option<String>,
    pub sqlstate: Option<String>,
    pub approval: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Words, or phrases in quotes, of a statement's text.
    pub text: Option<String>,
    /// Newest first.
    pub limit: u32,
}

/// Whose statements read a column.
#[derive(Debug, Clone)]
pub struct AccessFilter {
    /// `schema.relation.column`.
    pub column: String,
    pub target: Option<String>,
    pub database: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Timestamp,
}

/// One principal's reading of a column, in one form.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// As lines have it.
    pub principal: serde_json::Value,
    pub target: String,
    pub database: String,
    /// `None`: in clear.
    pub mask: Option<String>,
    pub label: Option<String>,
    pub sessions: u64,
    pub statements: u64,
    pub rows: u64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    /// One of the sessions.
    pub session: String,
}

/// Somebody who had sessions, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// As lines have it.
    pub principal: serde_json::Value,
    pub target: String,
    pub database: String,
    pub login: String,
    pub sessions: u64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

type Query = QueryBuilder<Sqlite>;

impl Filter {
    fn asks_shape(&self) -> bool {
        let Self { relation, column, label, mask, kind, decision, rule, code, .. } = self;
        [relation, column, label, mask, kind, decision, rule, code].into_iter().any(Option::is_some)
    }

    /// More than one thing is asked of one statement: `used` alone cannot tell.
    fn asks_one_statement(&self) -> bool {
        let parts = [
            self.asks_shape(),
            self.text.is_some(),
            self.sqlstate.is_some(),
            self.since.is_some() || self.until.is_some(),
        ];
        let asked = parts.iter().filter(|asked| **asked).count();
        asked > 1
    }

    /// Statements that were let through and refused while they ran are meant too, where refused ones are asked for: humans
    /// denied them, or a limit was reached. Their refusal has no code on record.
    fn asks_refused_after(&self) -> bool {
        self.decision.is_some() && self.code.is_none()
    }

    /// `WITH` what shapes and texts are meant.
    fn wanted(&self, query: &mut Query, words: Option<String>) {
        query.push("WITH want_shape AS MATERIALIZED (");
        self.shapes(query);
        pattern(query, "decision", self.decision.as_deref());
        pattern(query, "code", self.code.as_deref());
        query.push(")");
        if self.asks_refused_after() {
            query.push(", want_refused AS MATERIALIZED (");
            self.shapes(query);
            query.push(" AND decision = 'allow'");
            pattern(query, "'refuse'", self.decision.as_deref());
            query.push(")");
        }
        if let Some(words) = words {
            query.push(", want_text AS MATERIALIZED (SELECT rowid AS id FROM words WHERE words MATCH ");
            query.push_bind(words).push(")");
        }
    }

    /// By what they are about, whatever was decided.
    fn shapes(&self, query: &mut Query) {
        query.push("SELECT id FROM shape WHERE 1");
        for (kind, also, name) in [
            (fact::RELATION, fact::RELATION, &self.relation),
            (fact::COLUMN, fact::TOUCHED, &self.column),
            (fact::RULE, fact::RULE, &self.rule),
            (fact::KIND, fact::KIND, &self.kind),
        ] {
            if let Some(name) = name {
                query.push(" AND id IN (SELECT shape FROM fact WHERE kind IN (").push_bind(kind);
                query.push(", ").push_bind(also);
                query.push(") AND name IN (SELECT id FROM name WHERE text GLOB ").push_bind(glob(name)).push("))");
            }
        }
        if self.label.is_some() || self.mask.is_some() {
            query.push(" AND id IN (SELECT shape FROM masked WHERE 1");
            for (column, name) in [
                ("label", &self.label),
                ("mask", &self.mask),
                ("relation", &self.relation),
                ("column_name", &self.column),
            ] {
                pattern(query, column, name.as_deref());
            }
            query.push(")");
        }
    }

    fn of_session(&self, query: &mut Query) {
        if let Some(name) = &self.principal {
            let name = glob(name);
            query.push(" AND (principal.sub GLOB ").push_bind(name.clone());
            query.push(" OR principal.actor GLOB ").push_bind(name).push(")");
        }
        if let Some(group) = &self.group {
            query.push(" AND principal.id IN (SELECT principal FROM member WHERE name GLOB ");
            query.push_bind(glob(group)).push(")");
        }
        for (column, name) in
            [("session.target", &self.target), ("session.database", &self.database), ("session.source", &self.source)]
        {
            pattern(query, column, name.as_deref());
        }
        if let Some(since) = self.since {
            query.push(" AND session.last_at >= ").push_bind(since.as_microsecond());
        }
        if let Some(until) = self.until {
            query.push(" AND session.first_at <= ").push_bind(until.as_microsecond());
        }
        if let Some(approval) = &self.approval {
            has(query, used::APPROVAL);
            query.push("(SELECT id FROM name WHERE text GLOB ").push_bind(glob(approval)).push("))");
        }
    }

    fn of_statements(&self, query: &mut Query) {
        if self.asks_shape() {
            query.push(" AND session.id IN (SELECT session FROM used WHERE kind = ").push_bind(used::SHAPE);
            query.push(" AND value IN (SELECT id FROM want_shape)");
            if self.asks_refused_after() {
                query.push(" UNION SELECT session FROM used WHERE kind = ").push_bind(used::REFUSED_AFTER);
                query.push(" AND value IN (SELECT id FROM want_refused)");
            }
            query.push(")");
        }
        if self.text.is_some() {
            has(query, used::TEXT);
            query.push("(SELECT id FROM want_text))");
        }
        if let Some(sqlstate) = &self.sqlstate {
            has(query, used::SQLSTATE);
            query.push("(SELECT id FROM name WHERE text GLOB ").push_bind(glob(sqlstate)).push("))");
        }
        if !self.asks_one_statement() {
            return;
        }
        query.push(" AND EXISTS (SELECT 1 FROM statement WHERE statement.session = session.id");
        if self.asks_shape() {
            query.push(" AND (statement.shape IN (SELECT id FROM want_shape)");
            if self.asks_refused_after() {
                query.push(" OR statement.shape IN (SELECT id FROM want_refused) AND statement.result = ");
                query.push_bind(result_number("refused"));
            }
            query.push(")");
        }
        if self.text.is_some() {
            query.push(" AND statement.text IN (SELECT id FROM want_text)");
        }
        if let Some(sqlstate) = &self.sqlstate {
            query.push(" AND statement.sqlstate IN (SELECT id FROM name WHERE text GLOB ");
            query.push_bind(glob(sqlstate)).push(")");
        }
        if let Some(since) = self.since {
            query.push(" AND statement.at >= ").push_bind(since.as_microsecond());
        }
        if let Some(until) = self.until {
            query.push(" AND statement.at <= ").push_bind(until.as_microsecond());
        }
        query.push(")");
    }
}

fn has(query: &mut Query, kind: i64) {
    query.push(" AND session.id IN (SELECT session FROM used WHERE kind = ").push_bind(kind).push(" AND value IN ");
}

fn pattern(query: &mut Query, column: &'static str, name: Option<&str>) {
    if let Some(name) = name {
        query.push(" AND ").push(column).push(" GLOB ").push_bind(glob(name));
    }
}

impl Index {
    /// Newest first. Texts are searched with the keys that they were indexed with.
    pub async fn sessions(&mut self, filter: &Filter, keys: Option<&KeySet>) -> Result<Vec<SessionRow>, IndexError> {
        let words = match (&filter.text, keys) {
            (None, _) => None,
            (Some(_), None) => return Err(IndexError::TextNeedsKeys),
            (Some(text), Some(keys)) => {
                let words = Hasher::new(keys).question(text);
                Some(words.ok_or_else(|| IndexError::NoWords { text: text.clone() })?)
            }
        };
        let mut query = Query::new("");
        filter.wanted(&mut query, words);
        query.push(
            " SELECT session.*, principal.raw, coalesce((SELECT first FROM cursor), 0) AS log_first
                FROM session LEFT JOIN principal ON principal.id = session.principal
                WHERE 1",
        );
        filter.of_session(&mut query);
        filter.of_statements(&mut query);
        query.push(" ORDER BY session.id DESC LIMIT ").push_bind(i64::from(filter.limit));
        let failed = self.failed();
        let rows = query.build().fetch_all(&mut self.db).await.map_err(&failed)?;
        rows.iter().map(SessionRow::read).collect::<Result<_, _>>().map_err(failed)
    }

    /// Who read a column, masked by what or in clear: what was allowed and not refused after.
    pub async fn access(&mut self, filter: &AccessFilter) -> Result<Vec<Access>, IndexError> {
        let mut query = Query::new(
            "WITH read AS MATERIALIZED (SELECT DISTINCT fact.shape, name.text AS column_name FROM fact
                JOIN name ON name.id = fact.name JOIN shape ON shape.id = fact.shape
                WHERE shape.decision = 'allow' AND fact.kind = ",
        );
        query.push_bind(fact::COLUMN).push(" AND name.text GLOB ").push_bind(glob(&filter.column)).push(")");
        // Several columns of one statement are one statement.
        let is_one = !filter.column.contains('*');
        self.accesses(query, filter, if is_one { "SELECT" } else { "SELECT DISTINCT" }).await
    }

    /// Whose statements were let through without a look at what they read: of these the record knows no columns.
    pub async fn unanalysed(&mut self, filter: &AccessFilter) -> Result<Vec<Access>, IndexError> {
        let query = Query::new(
            "WITH read AS MATERIALIZED (SELECT id AS shape, NULL AS column_name FROM shape
                WHERE decision = 'allow' AND sealed IS NULL AND id NOT IN (SELECT shape FROM fact))",
        );
        self.accesses(query, filter, "SELECT").await
    }

    /// `query`: the shapes and columns that count as `read`. What was refused after all, a statement that humans denied or
    /// one past a limit, has read nothing unless rows of it had left.
    async fn accesses(
        &mut self,
        mut query: Query,
        filter: &AccessFilter,
        select: &'static str,
    ) -> Result<Vec<Access>, IndexError> {
        let failed = self.failed();
        query.push(
            " SELECT raw, target, database, mask, label, count(DISTINCT id) AS sessions, count(*) AS statements,
                sum(rows) AS rows, min(at) AS first_at, max(at) AS last_at, max(name) AS session FROM (",
        );
        query.push(select).push(
            " principal.raw, session.target, session.database, masked.mask, masked.label, session.id, session.name,
                statement.seq, statement.rows, statement.at
            FROM session JOIN statement ON statement.session = session.id JOIN read ON read.shape = statement.shape
                LEFT JOIN masked ON masked.shape = read.shape AND masked.column_name = read.column_name
                LEFT JOIN principal ON principal.id = session.principal
            WHERE session.id IN (SELECT session FROM used WHERE kind = ",
        );
        query.push_bind(used::SHAPE).push(" AND value IN (SELECT shape FROM read))");
        query.push(" AND (statement.rows > 0 OR statement.result NOT IN (");
        query.push_bind(result_number("refused")).push(", ").push_bind(result_number("skipped")).push("))");
        pattern(&mut query, "session.target", filter.target.as_deref());
        pattern(&mut query, "session.database", filter.database.as_deref());
        if let Some(since) = filter.since {
            query.push(" AND statement.at >= ").push_bind(since.as_microsecond());
        }
        query.push(" AND statement.at <= ").push_bind(filter.until.as_microsecond());
        query.push(") GROUP BY raw, target, database, mask, label ORDER BY last_at DESC");
        let rows = query.build().fetch_all(&mut self.db).await.map_err(&failed)?;
        rows.iter().map(access).collect::<Result<_, _>>().map_err(failed)
    }

    /// Everybody whose session had begun by then, whatever they did there.
    pub async fn seen(&mut self, until: Timestamp) -> Result<Vec<Seen>, IndexError> {
        let failed = self.failed();
        let query = sqlx::query(
            "SELECT principal.raw, session.target, session.database, session.login, count(*) AS sessions,
                min(session.first_at) AS first_at, max(session.last_at) AS last_at
            FROM session JOIN principal ON principal.id = session.principal WHERE session.first_at <= ?
            GROUP BY principal.id, session.target, session.database, session.login
            ORDER BY principal.sub, principal.actor, principal.id, session.target, session.database, session.login",
        );
        let rows = query.bind(until.as_microsecond()).fetch_all(&mut self.db).await.map_err(&failed)?;
        rows.iter().map(seen).collect::<Result<_, _>>().map_err(failed)
    }
}

fn seen(row: &sqlx::sqlite::SqliteRow) -> Result<Seen, sqlx::Error> {
    let raw: String = row.try_get("raw")?;
    Ok(Seen {
        principal: serde_json::from_str(&raw).unwrap_or(serde_json::Value::Null),
        target: row.try_get("target")?,
        database: row.try_get("database")?,
        login: row.try_get("login")?,
        sessions: count(row, "sessions")?,
        first_at: time(row, "first_at")?,
        last_at: time(row, "last_at")?,
    })
}

fn access(row: &sqlx::sqlite::SqliteRow) -> Result<Access, sqlx::Error> {
    let raw: Option<String> = row.try_get("raw")?;
    Ok(Access {
        principal: raw.and_then(|raw| serde_json::from_str(&raw).ok()).unwrap_or(serde_json::Value::Null),
        target: row.try_get("target")?,
        database: row.try_get("database")?,
        mask: row.try_get("mask")?,
        label: row.try_get("label")?,
        sessions: count(row, "sessions")?,
        statements: count(row, "statements")?,
        rows: count(row, "rows")?,
        first_at: time(row, "first_at")?,
        last_at: time(row, "last_at")?,
        session: row.try_get("session")?,
    })
}
