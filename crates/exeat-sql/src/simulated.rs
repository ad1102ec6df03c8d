//! What the statements of one message do to names, in order, while none of them has run: literal settings of
//! search_path and the ends of transactions are followed, what nobody can follow makes the rest of the message opaque.
//! Several statements in one message are one transaction up to a COMMIT or ROLLBACK among them.

use crate::catalog::{CatalogSnapshot, Oid, PG_CATALOG};
use crate::{Analysis, Scope, SessionCommand, StatementKind, TransactionCommand};

/// The server's prefix of schemas for temporary relations, which nobody else may use.
const TEMPORARY: &str = "pg_temp_";
/// The server cuts names to this many bytes, between characters.
const IDENTIFIER_BYTES_MAX: usize = 63;

const END: &str = "the end of a transaction or savepoint";

#[derive(Debug)]
pub(crate) struct Simulated<'a> {
    snapshot: &'a CatalogSnapshot,
    scope: &'a Scope,
    /// Why names may mean something else by now.
    pub(crate) names_changed_by: Option<&'static str>,
    /// What a rollback brings back.
    base: Vec<Oid>,
    session: Vec<Oid>,
    local: Option<Vec<Oid>>,
    path_moved: bool,
}

impl<'a> Simulated<'a> {
    pub(crate) fn new(snapshot: &'a CatalogSnapshot, scope: &'a Scope) -> Self {
        let path = &scope.search_path;
        Self {
            snapshot,
            scope,
            names_changed_by: None,
            base: path.clone(),
            session: path.clone(),
            local: None,
            path_moved: false,
        }
    }

    /// The search path of the next statement.
    pub(crate) fn path(&self) -> &[Oid] {
        self.local.as_ref().unwrap_or(&self.session)
    }

    /// A prepared statement is looked up with the path that the session has now, and the server takes its names by
    /// the one at its turn.
    pub(crate) fn path_moved(&self) -> bool {
        self.path_moved
    }

    pub(crate) fn after(&mut self, kind: &StatementKind, analysis: &Analysis) {
        let cause = match kind {
            StatementKind::Session(command) => self.session_command(command),
            StatementKind::Ddl | StatementKind::Code | StatementKind::Admin | StatementKind::Utility { .. } => {
                Some("a statement that may change the catalog")
            }
            StatementKind::Call => Some("a call of code that is not analysed"),
            StatementKind::Explain(explained) if explained.runs => return self.after(&explained.of, analysis),
            // What an EXECUTE or a FETCH does is known, and held against what follows, where names are; what
            // PREPARE, DECLARE and EXPLAIN carry does not run.
            StatementKind::SqlPrepare { .. }
            | StatementKind::SqlExecute { .. }
            | StatementKind::Cursor(_)
            | StatementKind::Explain(_) => None,
            StatementKind::Select
            | StatementKind::Insert
            | StatementKind::Update
            | StatementKind::Delete
            | StatementKind::Merge
            | StatementKind::CopyOut
            | StatementKind::CopyIn
            | StatementKind::CopyFile => match analysis {
                Analysis::Known(lineage) if !lineage.changes_settings => None,
                Analysis::Known(_) => Some("set_config"),
                Analysis::Opaque(_) => Some("a statement that is not analysed"),
                // It will not run: the message is refused whole.
                Analysis::Unresolved { .. } => None,
            },
        };
        self.names_changed_by = self.names_changed_by.or(cause);
    }

    /// Transaction ends take back SET LOCAL, and a rollback any SET, of this message or an earlier one.
    fn session_command(&mut self, command: &SessionCommand) -> Option<&'static str> {
        match command {
            SessionCommand::Set { setting, values, local } if setting == "search_path" => {
                let Some(path) = values.as_deref().map(|names| self.effective(names)) else {
                    return Some("SET search_path");
                };
                self.path_moved = true;
                if *local {
                    self.local = Some(path);
                } else {
                    (self.session, self.local) = (path, None);
                }
                None
            }
            SessionCommand::Reset { setting: None } => Some("RESET ALL"),
            SessionCommand::Reset { setting: Some(setting) } if setting == "search_path" => Some("RESET search_path"),
            SessionCommand::Discard { .. } => Some("DISCARD"),
            SessionCommand::Transaction(command) => self.transaction(*command),
            SessionCommand::Set { .. }
            | SessionCommand::Reset { .. }
            | SessionCommand::Show { .. }
            | SessionCommand::SetTransaction
            | SessionCommand::SetConstraints
            | SessionCommand::Deallocate { .. }
            | SessionCommand::CloseCursor { .. }
            | SessionCommand::Listen { .. }
            | SessionCommand::Unlisten { .. }
            | SessionCommand::Notify { .. } => None,
        }
    }

    fn transaction(&mut self, command: TransactionCommand) -> Option<&'static str> {
        match command {
            // What came before the message may be taken back with it, and nobody knows to what.
            TransactionCommand::Commit | TransactionCommand::Rollback if !self.scope.settled => Some(END),
            TransactionCommand::Commit => {
                self.base.clone_from(&self.session);
                self.local = None;
                None
            }
            TransactionCommand::Rollback => {
                self.session.clone_from(&self.base);
                self.local = None;
                None
            }
            TransactionCommand::RollbackTo | TransactionCommand::Prepare | TransactionCommand::TwoPhase => Some(END),
            TransactionCommand::Begin | TransactionCommand::Savepoint | TransactionCommand::Release => None,
        }
    }

    /// As the server makes a path of names: those that are there and that the role may use, once each, the temporary
    /// schema and pg_catalog in front where they are not named.
    fn effective(&self, names: &[String]) -> Vec<Oid> {
        let is_temporary =
            |oid: &&Oid| self.snapshot.schema_name(**oid).is_some_and(|name| name.starts_with(TEMPORARY));
        let temporary = self.scope.search_path.iter().find(is_temporary).copied();
        let mut path: Vec<Oid> = Vec::new();
        for name in names {
            let name = match name.as_str() {
                "$user" => self.scope.role.as_str(),
                other => other.get(..other.floor_char_boundary(IDENTIFIER_BYTES_MAX)).unwrap_or(other),
            };
            let schema = match name {
                "pg_temp" => temporary,
                _ => self.snapshot.schema_by_name(name).filter(|schema| self.scope.usable.contains(schema)),
            };
            path.extend(schema.filter(|schema| !path.contains(schema)));
        }
        for implicit in [Some(PG_CATALOG), temporary].into_iter().flatten() {
            if !path.contains(&implicit) {
                path.insert(0, implicit);
            }
        }
        path
    }
}
