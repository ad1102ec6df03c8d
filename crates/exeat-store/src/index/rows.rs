//! The rows that wait for their tables.

use sqlx::SqliteConnection;

use super::batch::{Batch, Cell};
use super::fill::{Pending, Session};
use super::line::Statement;

#[derive(Debug)]
pub(super) struct Rows {
    pub(super) name: Batch,
    pub(super) principal: Batch,
    pub(super) member: Batch,
    session: Batch,
    shape: Batch,
    pub(super) fact: Batch,
    pub(super) masked: Batch,
    pub(super) text: Batch,
    statement: Batch,
    used: Batch,
    pub(super) place: Batch,
    pub(super) open: Batch,
    pub(super) approval_line: Batch,
    pub(super) policy: Batch,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            name: Batch::new("INSERT INTO name (id, text)", 2),
            principal: Batch::new("INSERT INTO principal (id, raw, iss, sub, actor)", 5),
            member: Batch::new("INSERT OR IGNORE INTO member (principal, name)", 2),
            session: Batch::new(
                "INSERT OR REPLACE INTO session (id, name, principal, target, database, login, application, source,
                    slot, first_at, last_at, first_seq, last_seq, statements, refused, failed, rows, ended, erased)",
                19,
            ),
            shape: Batch::new("INSERT INTO shape (id, key, decision, code, sealed, origin)", 6),
            fact: Batch::new("INSERT OR IGNORE INTO fact (kind, name, shape)", 3),
            masked: Batch::new("INSERT OR IGNORE INTO masked (shape, place, column_name, relation, label, mask)", 6),
            text: Batch::new("INSERT INTO text (id, digest, session, sealed)", 4),
            statement: Batch::new(
                "INSERT OR REPLACE INTO statement (session, seq, at, shape, text, result, sqlstate, rows, micros)",
                9,
            ),
            used: Batch::new("INSERT OR IGNORE INTO used (kind, value, session)", 3),
            place: Batch::new("INSERT OR IGNORE INTO place (session, segment, offset)", 3),
            open: Batch::new("INSERT OR REPLACE INTO open (session, seq, request, closed)", 4),
            approval_line: Batch::new("INSERT OR IGNORE INTO approval_line (approval, segment, offset)", 3),
            policy: Batch::new("INSERT OR REPLACE INTO policy (seq, at, version, sha256, accepted)", 5),
        }
    }

    pub(super) fn session(&mut self, session: &Session) {
        self.session.push([
            session.id.into(),
            session.name.as_str().into(),
            session.principal.into(),
            session.target.as_str().into(),
            session.database.as_str().into(),
            session.login.as_str().into(),
            session.application.as_str().into(),
            session.source.as_str().into(),
            session.slot.into(),
            session.first.1.into(),
            session.last.1.into(),
            session.first.0.into(),
            session.last.0.into(),
            session.statements.into(),
            session.refused.into(),
            session.failed.into(),
            session.rows.into(),
            session.ended.as_str().into(),
            i64::from(session.erased).into(),
        ]);
    }

    /// `sealed`: where its lists are, and whose.
    pub(super) fn shape(&mut self, id: i64, key: Vec<u8>, statement: &Statement<'_>, sealed: Option<(String, i64)>) {
        let (decision, code) = (statement.decision.as_ref(), statement.code.as_ref());
        let (place, origin) =
            sealed.map_or((Cell::Null, Cell::Null), |(place, origin)| (Cell::Text(place), Cell::Int(origin)));
        self.shape.push([id.into(), Cell::Blob(key), decision.into(), code.into(), place, origin]);
    }

    pub(super) fn statement(&mut self, session: i64, pending: &Pending) {
        self.statement.push(
            [
                session,
                pending.seq,
                pending.at,
                pending.shape,
                pending.text,
                pending.result,
                pending.sqlstate,
                pending.rows,
                pending.micros,
            ]
            .map(Cell::Int),
        );
    }

    /// Once for each session.
    pub(super) fn used(&mut self, session: &mut Session, kind: i64, value: i64) {
        if session.is_first(kind, value) {
            self.used.push([kind.into(), value.into(), session.id.into()]);
        }
    }

    pub(super) async fn flush(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for batch in [
            &mut self.name,
            &mut self.principal,
            &mut self.member,
            &mut self.session,
            &mut self.shape,
            &mut self.fact,
            &mut self.masked,
            &mut self.text,
            &mut self.statement,
            &mut self.used,
            &mut self.place,
            &mut self.open,
            &mut self.approval_line,
            &mut self.policy,
        ] {
            batch.flush(db).await?;
        }
        Ok(())
    }
}
