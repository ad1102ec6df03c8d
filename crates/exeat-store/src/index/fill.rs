//! From lines to rows: who a session is, what its statements were about and how they ended. Remembers what repeats, so
//! that most lines cost one row; what it remembers is bounded and found again in the index.

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::known::Known;
use super::line::{Approval, End, Line, Lists, Outcome, Policy, PolicyChange, Recovery, Start, Statement};
use super::rows::Rows;
use super::schema::{result_number, used};
use crate::record::{CARRIED, OPEN_INTENTS_MAX, START};

/// Sessions, names, shapes and texts remembered: of each so many.
pub(super) const REMEMBERED_MAX: usize = 500_000;

/// Lines of a session are found again by blocks of the log of this size.
pub(super) const BLOCK_BYTES: u64 = 64 * 1024;

/// Where a line stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

#[derive(Debug)]
pub(super) struct Filler {
    sessions: HashMap<String, Session>,
    known: Known,
    /// Slots whose key is destroyed: the texts of their sessions are nobody's to read.
    erased: HashSet<i64>,
    /// Sessions of which that is known before the line comes that names their slot.
    erased_late: HashSet<String>,
    /// Whether a line has said which policy is in force.
    knows_policy: bool,
    pub(super) rows: Rows,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) principal: Option<i64>,
    pub(super) target: String,
    pub(super) database: String,
    pub(super) login: String,
    pub(super) application: String,
    pub(super) source: String,
    pub(super) slot: Option<i64>,
    pub(super) first: (i64, i64),
    pub(super) last: (i64, i64),
    pub(super) statements: i64,
    pub(super) refused: i64,
    pub(super) failed: i64,
    pub(super) rows: i64,
    pub(super) ended: String,
    pub(super) erased: bool,
    pub(super) open: VecDeque<Pending>,
    pub(super) recent: Option<Pending>,
    block: Option<(u64, u64)>,
    used: HashSet<(i64, i64)>,
    pub(super) changed: bool,
}

/// A statement as far as its outcomes are known.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    pub(super) request: String,
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) shape: i64,
    pub(super) text: i64,
    pub(super) result: i64,
    pub(super) sqlstate: i64,
    pub(super) rows: i64,
    pub(super) micros: i64,
}

pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Microseconds since 1970.
pub(super) fn moment(time: &str) -> i64 {
    time.parse::<Timestamp>().map(Timestamp::as_microsecond).unwrap_or(0)
}

impl Filler {
    pub(super) async fn begin(
        db: &mut SqliteConnection,
        (erased, erased_late): (HashSet<i64>, HashSet<String>),
    ) -> Result<Self, sqlx::Error> {
        let accepted = sqlx::query("SELECT 1 FROM policy WHERE accepted <> 0 LIMIT 1").fetch_optional(&mut *db).await?;
        let known = Known::begin(db).await?;
        let knows_policy = accepted.is_some();
        Ok(Self { sessions: HashMap::new(), known, erased, erased_late, knows_policy, rows: Rows::new() })
    }

    /// One line; its rows wait for [`Filler::flush`].
    pub(super) async fn take(&mut self, db: &mut SqliteConnection, line: &Line<'_>, at: At) -> Result<(), sqlx::Error> {
        let time = moment(&line.time);
        if line.session.is_empty() {
            return self.take_outside(db, line, at, time).await;
        }
        if !self.knows_policy && matches!(line.kind.as_ref(), START | "statement.intent" | "statement.parse") {
            self.policy_of(line, time);
        }
        let mut session = self.session(db, line, time).await?;
        if line.kind != CARRIED {
            session.last = (int(line.seq), time);
        }
        session.changed = true;
        let block = (at.segment, at.offset / BLOCK_BYTES);
        if session.block != Some(block) {
            session.block = Some(block);
            self.rows.place.push([session.id.into(), int(at.segment).into(), int(at.offset).into()]);
        }
        match line.kind.as_ref() {
            START | CARRIED => {
                self.start(&mut session, line);
                if session.last.0 == 0 {
                    // What is carried of a session's beginning is nothing that it did.
                    session.last = (int(line.seq), session.first.1);
                }
            }
            "statement.intent" | "statement.parse" => self.statement(db, &mut session, line, time).await?,
            "statement.outcome" => self.outcome(db, &mut session, line).await?,
            "session.end" => {
                session.ended = line.body::<End<'_>>().reason.into_owned();
                for mut pending in session.open.drain(..) {
                    pending.result = result_number("outcome_unknown");
                    self.rows.statement(session.id, &pending);
                }
            }
            "session.erased" => session.erased = true,
            kind if kind.starts_with("approval.") => {
                let approval = line.body::<Approval<'_>>().approval.into_owned();
                let name = self.known.names.id(db, &mut self.rows, approval).await?;
                self.rows.used(&mut session, used::APPROVAL, name);
            }
            _ => {}
        }
        self.sessions.insert(session.name.clone(), session);
        Ok(())
    }

    async fn take_outside(
        &mut self,
        db: &mut SqliteConnection,
        line: &Line<'_>,
        at: At,
        time: i64,
    ) -> Result<(), sqlx::Error> {
        match line.kind.as_ref() {
            "policy.changed" => {
                let accepted = line.body::<PolicyChange>().accepted;
                self.policy(line, time, accepted);
                self.knows_policy |= accepted;
            }
            "recovery" => {
                for unknown in line.body::<Recovery>().unknown {
                    let Some(mut session) = self.find(db, &unknown.session).await? else { continue };
                    let place = session.open.iter().position(|pending| pending.seq == int(unknown.seq));
                    if let Some(mut pending) = place.and_then(|place| session.open.remove(place)) {
                        pending.result = result_number("outcome_unknown");
                        self.rows.statement(session.id, &pending);
                    }
                    session.changed = true;
                    self.sessions.insert(session.name.clone(), session);
                }
            }
            kind if kind.starts_with("approval.") => {
                let approval = line.body::<Approval<'_>>().approval.into_owned();
                self.rows.approval_line.push([approval.into(), int(at.segment).into(), int(at.offset).into()]);
            }
            _ => {}
        }
        Ok(())
    }

    /// The line that said which policy is in force is gone: this one was decided by it. What was carried may name an older
    /// one, and an outcome the one that its statement began under.
    fn policy_of(&mut self, line: &Line<'_>, time: i64) {
        if line.policy.is_some() {
            self.policy(line, time, true);
            self.knows_policy = true;
        }
    }

    fn policy(&mut self, line: &Line<'_>, time: i64, accepted: bool) {
        let policy: Policy = line.policy.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let (seq, version) = (int(line.seq), int(policy.version));
        let accepted = i64::from(accepted);
        self.rows.policy.push([seq.into(), time.into(), version.into(), policy.sha256.into(), accepted.into()]);
    }

    fn start(&self, session: &mut Session, line: &Line<'_>) {
        let start: Start<'_> = line.body();
        if let Some(seq) = start.start_seq {
            session.first = (int(seq), moment(&start.started));
        }
        session.database = start.database.into_owned();
        session.login = start.login.into_owned();
        session.application = start.application_name.into_owned();
        session.slot = start.data_key.map(|key| int(key.slot));
        session.erased = session.slot.is_some_and(|slot| self.erased.contains(&slot));
    }

    async fn statement(
        &mut self,
        db: &mut SqliteConnection,
        session: &mut Session,
        line: &Line<'_>,
        at: i64,
    ) -> Result<(), sqlx::Error> {
        let statement: Statement<'_> = line.body();
        let parsed = line.kind == "statement.parse";
        let text = match session.erased {
            true => 0,
            false => self.known.text(db, &mut self.rows, session.id, &statement).await?,
        };
        if text != 0 {
            self.rows.used(session, used::TEXT, text);
        }
        // What is only parsed reads nothing.
        let shape = if parsed { 0 } else { self.known.shape(db, &mut self.rows, session.id, &statement).await? };
        if shape != 0 {
            self.rows.used(session, used::SHAPE, shape);
        }
        let mut pending = Pending { seq: int(line.seq), at, shape, text, ..Pending::default() };
        if parsed {
            pending.result = result_number("parsed");
            self.rows.statement(session.id, &pending);
            return Ok(());
        }
        session.statements += 1;
        if statement.decision != "allow" {
            session.refused += 1;
            pending.result = result_number("refused");
            self.rows.statement(session.id, &pending);
            return Ok(());
        }
        pending.request = statement.request_id.into_owned();
        if session.open.len() >= OPEN_INTENTS_MAX
            && let Some(forgotten) = session.open.pop_front()
        {
            self.rows.statement(session.id, &forgotten);
        }
        session.open.push_back(pending);
        Ok(())
    }

    async fn outcome(
        &mut self,
        db: &mut SqliteConnection,
        session: &mut Session,
        line: &Line<'_>,
    ) -> Result<(), sqlx::Error> {
        let outcome: Outcome<'_> = line.body();
        let sqlstate = match outcome.sqlstate.as_ref() {
            "" => 0,
            code => {
                session.failed += 1;
                let name = self.known.names.id(db, &mut self.rows, code.to_owned()).await?;
                self.rows.used(session, used::SQLSTATE, name);
                name
            }
        };
        session.rows = session.rows.saturating_add(int(outcome.rows));
        // Let through, and refused while it ran: humans denied it, or a limit was reached.
        let is_refused = outcome.result == "refused";
        session.refused += i64::from(is_refused);
        let place = session.open.iter().position(|pending| pending.request == outcome.request_id);
        let pending = match place {
            Some(place) => session.open.get_mut(place),
            // Batches that fail at their end have one more.
            None => session.recent.as_mut().filter(|recent| recent.request == outcome.request_id),
        };
        let Some(pending) = pending else { return Ok(()) };
        pending.rows = pending.rows.saturating_add(int(outcome.rows));
        pending.micros = pending.micros.saturating_add(int(outcome.duration_us));
        if sqlstate != 0 {
            pending.sqlstate = sqlstate;
        }
        let result = result_number(&outcome.result);
        let worse = result > pending.result || pending.result <= result_number("skipped");
        if worse {
            pending.result = result;
        }
        if place.is_none() || outcome.last {
            self.rows.statement(session.id, pending);
        }
        let shape = pending.shape;
        if is_refused && shape != 0 {
            self.rows.used(session, used::REFUSED_AFTER, shape);
        }
        if let Some(place) = place.filter(|_| outcome.last) {
            session.recent = session.open.remove(place);
        }
        Ok(())
    }

    /// Takes it out of what is remembered; whoever took it puts it back.
    async fn session(&mut self, db: &mut SqliteConnection, line: &Line<'_>, time: i64) -> Result<Session, sqlx::Error> {
        if let Some(session) = self.find(db, &line.session).await? {
            return Ok(session);
        }
        self.known.sessions += 1;
        let principal = match line.principal {
            None => None,
            Some(raw) => Some(self.known.principal(db, &mut self.rows, raw.get()).await?),
        };
        // A source port says nothing a month later; the line has it.
        let source = line.source.rsplit_once(':').map_or(line.source.as_ref(), |(address, _)| address);
        Ok(Session {
            id: self.known.sessions,
            name: line.session.clone().into_owned(),
            principal,
            target: line.target.clone().into_owned(),
            source: source.trim_matches(['[', ']']).to_owned(),
            first: (int(line.seq), time),
            erased: self.erased_late.contains(line.session.as_ref()),
            ..Session::default()
        })
    }

    async fn find(&mut self, db: &mut SqliteConnection, name: &str) -> Result<Option<Session>, sqlx::Error> {
        if let Some(session) = self.sessions.remove(name) {
            return Ok(Some(session));
        }
        let row = sqlx::query("SELECT * FROM session WHERE name = ?").bind(name).fetch_optional(&mut *db).await?;
        let Some(row) = row else { return Ok(None) };
        let mut session = read_session(&row)?;
        let open = sqlx::query(
            "SELECT open.request, open.closed, statement.* FROM open JOIN statement USING (session, seq)
                WHERE session = ? ORDER BY seq",
        );
        for row in open.bind(session.id).fetch_all(db).await? {
            let pending = read_pending(&row)?;
            if row.try_get::<i64, _>("closed")? == 0 {
                session.open.push_back(pending);
            } else {
                session.recent = Some(pending);
            }
        }
        Ok(Some(session))
    }

    /// Everything into the tables. Sessions that ended are forgotten, and all where there are too many.
    pub(super) async fn flush(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for session in self.sessions.values_mut().filter(|session| session.changed) {
            session.changed = false;
            self.rows.session(session);
            sqlx::query("DELETE FROM open WHERE session = ?").bind(session.id).execute(&mut *db).await?;
            if !session.ended.is_empty() {
                continue;
            }
            for pending in &session.open {
                self.rows.statement(session.id, pending);
            }
            for (pending, closed) in
                session.open.iter().map(|open| (open, 0)).chain(session.recent.iter().map(|recent| (recent, 1)))
            {
                let request = pending.request.as_str();
                self.rows.open.push([session.id.into(), pending.seq.into(), request.into(), closed.into()]);
            }
        }
        self.rows.flush(db).await?;
        let many = self.sessions.values().map(|session| 1 + session.used.len() / 8).sum::<usize>() > REMEMBERED_MAX;
        self.sessions.retain(|_, session| !many && session.ended.is_empty());
        self.known.bound();
        Ok(())
    }
}

impl Session {
    /// Whether the session has not had it before, as far as is remembered.
    pub(super) fn is_first(&mut self, kind: i64, value: i64) -> bool {
        self.used.insert((kind, value))
    }
}

fn read_session(row: &SqliteRow) -> Result<Session, sqlx::Error> {
    Ok(Session {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        principal: row.try_get("principal")?,
        target: row.try_get("target")?,
        database: row.try_get("database")?,
        login: row.try_get("login")?,
        application: row.try_get("application")?,
        source: row.try_get("source")?,
        slot: row.try_get("slot")?,
        first: (row.try_get("first_seq")?, row.try_get("first_at")?),
        last: (row.try_get("last_seq")?, row.try_get("last_at")?),
        statements: row.try_get("statements")?,
        refused: row.try_get("refused")?,
        failed: row.try_get("failed")?,
        rows: row.try_get("rows")?,
        ended: row.try_get("ended")?,
        erased: row.try_get::<i64, _>("erased")? != 0,
        ..Session::default()
    })
}

fn read_pending(row: &SqliteRow) -> Result<Pending, sqlx::Error> {
    Ok(Pending {
        request: row.try_get("request")?,
        seq: row.try_get("seq")?,
        at: row.try_get("at")?,
        shape: row.try_get("shape")?,
        text: row.try_get("text")?,
        result: row.try_get("result")?,
        sqlstate: row.try_get("sqlstate")?,
        rows: row.try_get("rows")?,
        micros: row.try_get("micros")?,
    })
}

impl Filler {
    /// Lists that stood sealed beside their line.
    pub(super) async fn sealed_lists(
        &mut self,
        db: &mut SqliteConnection,
        shape: i64,
        lists: Lists,
    ) -> Result<(), sqlx::Error> {
        self.known.facts(db, &mut self.rows, shape, lists).await
    }
}
