//! What the answer to one statement must look like, and what the statement does to the session.

use exeat_policy::ColumnMask;
use exeat_sql::{ColumnId, CopyLayout, NewRelation, Notification, SessionCommand, StatementKind, TransactionCommand};

use crate::bulk::Bulk;
use crate::lookup::PlannedLookup;
use crate::mask::TypeKin;
use crate::named::Made;
use crate::scrub::Taint;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementPlan {
    pub outputs: Outputs,
    pub taint: Taint,
    pub effect: StateEffect,
    /// Prepared statements that are gone after it.
    pub forgets: Option<Forgets>,
    /// Cursors that are gone after it.
    pub closes: Option<Forgets>,
    /// The cursor or prepared statement it makes.
    pub made: Option<Made>,
    /// Relations that are its own work if it succeeds, made from nothing that is sealed.
    pub makes: Vec<NewRelation>,
    pub copy: CopyStream,
    /// What it notifies: of its own notifications a session hears these, and no others.
    pub notifies: Vec<Notification>,
    /// Values of sealed columns that it tries: counted before it is forwarded.
    pub lookups: Vec<PlannedLookup>,
    /// What rules hold of it, and count of its rows.
    pub bulk: Bulk,
    /// It writes what the client brings, while columns are sealed: what stands for a sealed value must not be among it.
    pub writes_values: bool,
}

impl StatementPlan {
    /// Returns nothing and changes nothing.
    pub fn quiet(taint: Taint) -> Self {
        Self {
            outputs: Outputs::None,
            taint,
            effect: StateEffect::default(),
            forgets: None,
            closes: None,
            made: None,
            makes: Vec::new(),
            copy: CopyStream::None,
            notifies: Vec::new(),
            lookups: Vec::new(),
            bulk: Bulk::default(),
            writes_values: false,
        }
    }
}

/// Whether COPY data flows while the statement runs, and which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStream {
    None,
    /// From the client to the server.
    In,
    /// From the server to the client; masked where the outputs say so.
    Out,
}

impl CopyStream {
    pub fn of(kind: &StatementKind) -> Self {
        match kind {
            StatementKind::CopyIn => Self::In,
            StatementKind::CopyOut => Self::Out,
            // A server's file or program: nothing of it passes here.
            StatementKind::CopyFile
            | StatementKind::Select
            | StatementKind::Insert
            | StatementKind::Update
            | StatementKind::Delete
            | StatementKind::Merge
            | StatementKind::Ddl
            | StatementKind::Call
            | StatementKind::Code
            | StatementKind::Admin
            | StatementKind::Session(_)
            | StatementKind::Explain(_)
            | StatementKind::SqlPrepare { .. }
            | StatementKind::SqlExecute { .. }
            | StatementKind::Cursor(_)
            | StatementKind::Utility { .. } => Self::None,
        }
    }
}

/// What DEALLOCATE and DISCARD take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgets {
    All,
    One(String),
}

/// The server cuts identifiers to this many bytes, between characters.
const IDENTIFIER_BYTES_MAX: usize = 63;

impl Forgets {
    pub fn names(&self, statement: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(name) => name == statement,
        }
    }

    pub fn of(kind: &StatementKind) -> Option<Self> {
        match kind {
            StatementKind::Session(SessionCommand::Deallocate { name: Some(name) }) => {
                let cut = name.floor_char_boundary(IDENTIFIER_BYTES_MAX);
                Some(Self::One(name.get(..cut).unwrap_or(name).to_owned()))
            }
            StatementKind::Session(
                SessionCommand::Deallocate { name: None } | SessionCommand::Discard { all: true },
            ) => Some(Self::All),
            _ => None,
        }
    }
}

/// The prediction that the server's RowDescription is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outputs {
    /// Returns no rows; a row would be a lie of the server or a mistake of ours.
    None,
    Columns(Vec<PlannedColumn>),
    /// Named capability `opaque`: masked by the origin the server announces.
    ByOrigin,
    /// The one value of a FunctionCall, which nothing predicts: policy named the capability.
    FunctionResult,
    /// COPY to the client, with sealed columns in it.
    Copied(CopyPlan),
    /// Nothing is sealed for this session: rows pass as they are.
    Unchecked,
}

/// What the server must announce a column as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedOrigin {
    Column(ColumnId),
    None,
    /// No origin, or one of these columns.
    OneOf(Vec<ColumnId>),
}

/// What COPY to the client sends, and how it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPlan {
    pub columns: Vec<CopiedColumn>,
    pub layout: CopyLayout,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedColumn {
    /// What a header line must call it, where the statement or the catalog fixes that.
    pub name: Option<String>,
    /// No description of a COPY tells types: it is the catalog's for a bare column, and unknown for any other value.
    pub kin: TypeKin,
    pub mask: Option<ColumnMask>,
    pub force_quote: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedColumn {
    pub origin: PlannedOrigin,
    pub name: Option<String>,
    pub mask: Option<ColumnMask>,
    /// Without a mask, every detector looks at it: it is made from what nobody has accepted.
    pub watched: bool,
}

/// What the gateway has to do about its own picture of the session after the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateEffect {
    /// Search path, role or a pinned setting may have changed: read them again before the next analysis.
    pub rereads_state: bool,
    pub transaction: Option<TransactionCommand>,
    /// Its errors may be those of deferred constraints and triggers of the whole transaction.
    pub speaks_for_transaction: bool,
    /// DDL: the catalog snapshot is refreshed before the next analysis.
    pub changes_catalog: bool,
    /// It may take away or change what names mean by now, also for other sessions.
    pub moves_names: bool,
}

impl StateEffect {
    /// Of a statement that nobody can tell what it does of.
    pub fn unknown(kind: &StatementKind) -> Self {
        let own = Self::of(kind, true);
        let changes_catalog = own.changes_catalog || !matches!(kind, StatementKind::Session(_));
        Self { changes_catalog, moves_names: changes_catalog, ..own }
    }

    /// `may_set`: the statement may change settings in a way its kind does not show.
    pub fn of(kind: &StatementKind, may_set: bool) -> Self {
        let mut effect = Self { rereads_state: may_set, ..Self::default() };
        match kind {
            StatementKind::Session(SessionCommand::Transaction(command)) => {
                effect.transaction = Some(*command);
                effect.speaks_for_transaction = true;
                effect.rereads_state = matches!(command, TransactionCommand::RollbackTo);
            }
            StatementKind::Session(SessionCommand::Set { setting, .. }) => {
                effect.rereads_state = names_state(setting);
            }
            StatementKind::Session(SessionCommand::Reset { setting }) => {
                effect.rereads_state = setting.as_deref().is_none_or(names_state);
            }
            // It drops the session's temporary relations: their names go on to the next of the path.
            StatementKind::Session(SessionCommand::Discard { .. }) => {
                effect.changes_catalog = true;
                effect.rereads_state = true;
            }
            StatementKind::Ddl | StatementKind::Code => {
                effect.changes_catalog = true;
                effect.moves_names = true;
                effect.rereads_state = true;
            }
            StatementKind::Session(SessionCommand::SetConstraints) => {
                effect.rereads_state = false;
                effect.speaks_for_transaction = true;
            }
            StatementKind::Session(
                SessionCommand::Show { .. }
                | SessionCommand::SetTransaction
                | SessionCommand::Deallocate { .. }
                | SessionCommand::CloseCursor { .. }
                | SessionCommand::Listen { .. }
                | SessionCommand::Unlisten { .. }
                | SessionCommand::Notify { .. },
            ) => effect.rereads_state = false,
            // A procedure may define what it likes.
            StatementKind::Call => {
                effect.changes_catalog = true;
                effect.rereads_state = true;
            }
            StatementKind::Admin | StatementKind::Utility { .. } => effect.rereads_state = true,
            StatementKind::Select
            | StatementKind::Insert
            | StatementKind::Update
            | StatementKind::Delete
            | StatementKind::Merge
            | StatementKind::CopyOut
            | StatementKind::CopyIn
            | StatementKind::CopyFile
            | StatementKind::Explain(_)
            | StatementKind::SqlPrepare { .. }
            | StatementKind::SqlExecute { .. }
            | StatementKind::Cursor(_) => {}
        }
        effect
    }
}

/// Settings whose value our picture of the session depends on.
fn names_state(setting: &str) -> bool {
    const READ: &[&str] = &[
        "search_path",
        "role",
        "session_authorization",
        "client_encoding",
        "standard_conforming_strings",
        // How long a statement that is held may wait.
        "statement_timeout",
        "transaction_timeout",
        "idle_in_transaction_session_timeout",
    ];
    READ.iter().any(|name| setting.eq_ignore_ascii_case(name))
}
