//! What analysis says about a statement. Flat, owned, principal-free: one `MessageAnalysis` is shared by
//! every session that sends the same text under the same search path and catalog version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::{ColumnId, Oid};
use crate::rows::RowContent;

/// All statements of one simple Query, or the single statement of one Parse.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageAnalysis {
    /// In order. Empty for an empty query string (only white space and comments).
    pub statements: Vec<StatementAnalysis>,
    /// pg_query's fingerprint of the whole text, 16 hex digits; `None` when it does not parse. Groups
    /// statements in the record; never an approval key (literals do not change it).
    pub fingerprint: Option<String>,
    /// What it cost to analyse: nodes visited, names compared, columns expanded. At most [`crate::STEPS_MAX`], or
    /// what stood at that limit is opaque.
    pub steps: usize,
}

/// The text does not parse with the grammar we have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseFailure {
    /// Candidate for the parse probe: the server's own answer decides what the client sees.
    #[error("statement does not parse: {message}")]
    Syntax { message: String },
    /// Refused here with 54000 before any parser sees it.
    #[error("statement of {bytes} bytes exceeds the limit of {STATEMENT_BYTES_MAX}", STATEMENT_BYTES_MAX = crate::STATEMENT_BYTES_MAX)]
    TooLong { bytes: usize },
    /// The grammar's own stack or memory limit, or our walker's; 54000.
    #[error("statement is nested too deeply")]
    TooDeep,
    /// A construct we must not guess about (newer than the upstream, digits followed by an identifier).
    #[error("statement uses {construct}, which this gateway does not analyse")]
    NotAnalysed { construct: String },
}

#[derive(Debug, Clone, PartialEq)]
pub struct StatementAnalysis {
    /// Byte range of this statement's own text in the message.
    pub text: std::ops::Range<usize>,
    pub kind: StatementKind,
    pub analysis: Analysis,
}

/// What the statement is, as far as the grammar alone tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementKind {
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    /// CREATE/ALTER/DROP of anything that is neither code nor administration.
    Ddl,
    Call,
    /// DO, CREATE FUNCTION/PROCEDURE/OPERATOR/CAST/RULE/TRIGGER/EXTENSION...
    Code,
    /// COPY relation or query TO/FROM STDIN/STDOUT.
    CopyOut,
    CopyIn,
    /// COPY to or from a server file or program.
    CopyFile,
    /// SET ROLE, SET SESSION AUTHORIZATION, ALTER SYSTEM/ROLE/DATABASE, slots, publications, subscriptions.
    Admin,
    Session(SessionCommand),
    Explain(Explained),
    /// PREPARE name AS statement: analysed as that statement, whose kind is `of`.
    SqlPrepare {
        name: String,
        of: Box<StatementKind>,
    },
    /// EXECUTE name: what it runs is the session's to know.
    SqlExecute {
        name: String,
    },
    Cursor(CursorCommand),
    /// VACUUM, ANALYZE, CLUSTER, REINDEX, LOCK and every other utility; `name` is the node's name.
    Utility {
        name: &'static str,
    },
}

/// EXPLAIN and what of the plan it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The statement explained.
    pub of: Box<StatementKind>,
    /// ANALYZE: the statement runs.
    pub runs: bool,
    /// Costs and row estimates, which are statistics of the values.
    pub costs: bool,
    /// BUFFERS, WAL, MEMORY, SERIALIZE: amounts that tell how wide stored values are.
    pub sizes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CursorCommand {
    /// Analysed as its query.
    Declare {
        name: String,
        /// WITH HOLD: it outlives its transaction.
        hold: bool,
    },
    /// FETCH and MOVE: what they read is the session's to know.
    Fetch { name: String, moves: bool },
}

/// A name that a statement refers to and only the session can tell the meaning of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A cursor of SQL or a portal of the protocol: one name space.
    Cursor(&'a str),
    /// A statement prepared by SQL or by the protocol: one name space.
    Prepared(&'a str),
}

impl StatementKind {
    pub fn reference(&self) -> Option<Reference<'_>> {
        match self {
            Self::Cursor(CursorCommand::Fetch { name, .. }) => Some(Reference::Cursor(name)),
            Self::SqlExecute { name } => Some(Reference::Prepared(name)),
            Self::Explain(explained) => explained.of.reference(),
            Self::Cursor(CursorCommand::Declare { .. })
            | Self::Select
            | Self::Insert
            | Self::Update
            | Self::Delete
            | Self::Merge
            | Self::Ddl
            | Self::Call
            | Self::Code
            | Self::CopyOut
            | Self::CopyIn
            | Self::CopyFile
            | Self::Admin
            | Self::Session(_)
            | Self::SqlPrepare { .. }
            | Self::Utility { .. } => None,
        }
    }
}

impl MessageAnalysis {
    /// The names its statements refer to, in order.
    pub fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.statements.iter().filter_map(StatementAnalysis::reference)
    }
}

impl StatementAnalysis {
    pub fn reference(&self) -> Option<Reference<'_>> {
        let positioned = match &self.analysis {
            Analysis::Known(lineage) => lineage.positioned.as_deref().map(Reference::Cursor),
            Analysis::Opaque(_) | Analysis::Unresolved { .. } => None,
        };
        self.kind.reference().or(positioned)
    }

    /// The same statement with the same meaning, wherever in a message it stands.
    pub fn means_the_same(&self, other: &Self) -> bool {
        let same = match (&self.analysis, &other.analysis) {
            (Analysis::Known(one), Analysis::Known(another)) => {
                Arc::ptr_eq(one, another) || one.without_places() == another.without_places()
            }
            (Analysis::Opaque(one), Analysis::Opaque(another)) => one.reason == another.reason,
            (Analysis::Unresolved { name: one, .. }, Analysis::Unresolved { name: another, .. }) => one == another,
            (Analysis::Known(_) | Analysis::Opaque(_) | Analysis::Unresolved { .. }, _) => false,
        };
        same && self.kind == other.kind
    }
}

impl Lineage {
    fn without_places(&self) -> Self {
        let uses = self.uses.iter().map(|used| ColumnUse { at: None, ..*used }).collect();
        let nowhere = |places: &BTreeMap<Oid, Option<usize>>| places.keys().map(|oid| (*oid, None)).collect();
        let placeless = |output: &Output| Output { at: None, ..output.clone() };
        let outputs = self.outputs.as_ref().map(|outputs| outputs.iter().map(placeless).collect());
        let (unbounded, stars) = (nowhere(&self.unbounded), nowhere(&self.stars));
        let content = self.content.without_places();
        Self { uses, outputs, unbounded, stars, content, ..self.clone() }
    }
}

/// Statements that act on the session only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionCommand {
    Transaction(TransactionCommand),
    /// `value` is `None` when a value is not a plain literal.
    Set {
        setting: String,
        values: Option<Vec<String>>,
        local: bool,
    },
    /// SET x TO DEFAULT, RESET x; `None` is RESET ALL.
    Reset {
        setting: Option<String>,
    },
    Show {
        setting: String,
    },
    SetTransaction,
    SetConstraints,
    Discard {
        all: bool,
    },
    Deallocate {
        name: Option<String>,
    },
    CloseCursor {
        name: Option<String>,
    },
    Listen {
        channel: String,
    },
    Unlisten {
        channel: Option<String>,
    },
    Notify {
        channel: String,
        payload: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionCommand {
    Begin,
    Commit,
    Rollback,
    Savepoint,
    Release,
    RollbackTo,
    /// PREPARE TRANSACTION: an end of the transaction, also of one that failed.
    Prepare,
    /// COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Analysis {
    /// Every name resolved, every node understood.
    Known(Arc<Lineage>),
    /// We cannot tell what it reads. Refused in every sealed session.
    Opaque(Opaque),
    /// A name does not resolve against the snapshot: parse probe.
    Unresolved { name: String, at: Option<usize> },
}

/// Why a statement is opaque, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque {
    pub reason: OpaqueReason,
    /// 1-based character position in the message, as PostgreSQL counts.
    pub at: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpaqueReason {
    #[error("function {name} is not on the reviewed list")]
    Function { name: String },
    #[error("operator {name} is not on the reviewed list")]
    Operator { name: String },
    #[error("type {name} runs code of its own")]
    Type { name: String },
    #[error("{construct} is not analysed yet")]
    Construct { construct: String },
    #[error("relation {relation} {property}")]
    Relation { relation: String, property: String },
}

/// Where things come from and go to. Relations and columns are named by OID: names are for people.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lineage {
    /// Relations named by the statement (directly, also inside sub-selects and CTEs), each once. A target of
    /// INSERT, UPDATE or DELETE is among them only if the statement also reads a column of it.
    pub reads: BTreeSet<Oid>,
    /// Those of `reads` that only the bodies of called functions name: a refusal must not.
    pub called: BTreeSet<Oid>,
    /// Functions whose bodies were read: the server reads them again when it runs them.
    pub functions: BTreeSet<Oid>,
    /// Relations written to (INSERT/UPDATE/DELETE/MERGE targets, those in WITH too).
    pub writes: BTreeSet<Oid>,
    pub reads_aside: bool,  // Rows of something in FROM, beside the row that is written.
    pub writes_aside: bool, // By a WITH: how many rows, the server does not say.
    /// What is done to each of them.
    pub writing: BTreeSet<Writing>,
    /// The columns of each SET list, list by list: what one list leaves as it was, another does not replace.
    pub sets: BTreeSet<SetList>,
    /// The rows that are written, where a key looks at them. None of a COPY.
    pub rows: Vec<GivenRow>,
    /// The cursor whose row is written (WHERE CURRENT OF).
    pub positioned: Option<String>,
    /// Relations whose rows an UPDATE, DELETE or MERGE changes without a condition that limits it to some of them, and
    /// where they are named.
    pub unbounded: BTreeMap<Oid, Option<usize>>,
    /// Relations all of whose columns are named at once: by a star, as a whole row, or by COPY without a list.
    pub stars: BTreeMap<Oid, Option<usize>>,
    /// A trigger may change the rows that RETURNING gives back: they may hold anything.
    pub rewritten: bool,
    /// Relations reached without being named: behind views and materialized views (transitively), inheritance or partition
    /// parents and children, relations a foreign key's ON UPDATE/DELETE action would change. What a `deny` says of them
    /// holds for the statement. A foreign key that only checks stands in `uses` instead, as `Referenced`.
    pub reaches: BTreeSet<Oid>,
    /// Those of `reaches` that a foreign key's action would change.
    pub changes: BTreeSet<Oid>,
    /// Output columns in order: of a SELECT, of RETURNING, or of COPY TO the client. `None` where nothing is returned.
    pub outputs: Option<Vec<Output>>,
    /// How many rows of which relations a row of the outputs holds.
    pub content: RowContent,
    /// How COPY TO the client writes its rows down; `None` for every other statement, and where it cannot be told.
    pub copy_layout: Option<CopyLayout>,
    /// Every column the statement touches, and how. What is in an output is `Use::Projected` or `Use::Derived`;
    /// anything else is one of the others.
    pub uses: BTreeSet<ColumnUse>,
    /// What stands behind `Use::Lookup`, in the order found.
    pub lookups: Vec<Lookup>,
    /// A trigger, rule, row-security policy, view body, user-typed default or the like may run: errors, notices and
    /// SQLSTATEs may then be of user code.
    pub user_code: bool,
    /// SELECT ... FOR UPDATE/SHARE or LOCK: needs the `update` capability.
    pub locks_rows: bool,
    /// It calls a function that may change the search path or another setting: the session re-reads its state after it.
    pub changes_settings: bool,
    /// The (name in lower case, value) pairs of its set_config calls, in order: to be checked as SET is. `None` is a
    /// value that comes as a parameter.
    pub settings: Vec<(String, Option<String>)>,
    /// What NOTIFY and calls of pg_notify send, in order.
    pub notifies: Vec<Notification>,
    /// It calls a size function (`\dt+` does). Sizes tell something about stored values: admission must refuse
    /// this where any column of the target is sealed for the principal, whatever relations it names.
    pub relation_sizes: bool,
    /// A column is read from within another query level, from LATERAL, behind a view or in a function. A plan that ran may
    /// then say how often its values repeat: they are the keys of a cache.
    pub correlated: bool,
    /// Relations that it asks the size of by a name in its text, and so no others.
    pub sized: BTreeSet<Oid>,
    /// It reads or writes large objects, which no column label reaches.
    pub large_objects: bool,
    /// It reads a view of the catalog that shows what stands in the server's files.
    pub server_files: bool,
    /// Settings of the server that it shows.
    pub shown: ShownSettings,
    /// Relations that its names would mean if those that they do mean went away, with these.
    pub hides: BTreeMap<Oid, Oid>,
    /// It reads nothing but pg_catalog and information_schema (the metadata preset), or nothing at all.
    pub metadata_only: bool,
    /// What it defines, alters or takes away; `None` for statements that do nothing of the kind.
    pub defines: Option<Definition>,
}

/// What DDL, and LOCK, TRUNCATE, VACUUM and ANALYZE, work on beside rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definition {
    /// Relations that are there before it.
    pub alters: BTreeSet<Oid>,
    pub makes: Vec<NewRelation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelation {
    /// `None`: the session's own temporary schema, which the first temporary relation makes.
    pub schema: Option<Oid>,
    pub name: String,
    /// The statement fails where there is one of this name: if it succeeds, this one was made by it.
    pub new: bool,
}

/// Which settings of the server a statement shows, by SHOW or by the view pg_settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShownSettings {
    /// By name, in lower case.
    pub named: BTreeSet<String>,
    /// Ones that the text does not name, or where they were set.
    pub others: bool,
}

impl ShownSettings {
    pub(crate) fn add(&mut self, more: &Self) {
        self.named.extend(more.named.iter().cloned());
        self.others |= more.others;
    }
}

/// A notification as the statement words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub channel: NotifyText,
    pub payload: NotifyText,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyText {
    Literal(String),
    /// `$n`.
    Parameter(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writing {
    pub relation: Oid,
    pub write: Write,
    pub by_merge: bool,
    /// The view that the statement names in its place: `writing` has that one too.
    pub through: Option<Oid>,
}

/// What one SET of an UPDATE, of ON CONFLICT or of a branch of MERGE assigns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetList {
    pub relation: Oid,
    pub columns: BTreeSet<i16>,
}

/// A row that the statement writes, or what one SET list makes of rows, as far as keys look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenRow {
    pub relation: Oid,
    pub write: Write,
    /// What is given for the columns written that stand in a key; all others are left as they are, or at their defaults.
    /// By attribute number, each once: a list, for a megabyte of text brings very many rows.
    pub values: Box<[(i16, Given)]>,
}

impl GivenRow {
    pub fn value(&self, attribute: i16) -> Option<&Given> {
        self.values.iter().find(|(known, _)| *known == attribute).map(|(_, given)| given)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    Null,
    /// A value of the client's own for a column of type `of`, compared by that type's own equality.
    Value {
        of: Oid,
        value: LookupValue,
        /// It is a parameter that stands elsewhere too, where the server may learn another type for it.
        shared: bool,
    },
    /// Anything else, a default among it.
    Computed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Write {
    Insert,
    Update,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What RowDescription must announce.
    pub origin: Origin,
    /// Every stored column whose value is in it. What is compared, or goes through something that may fail, is in
    /// `uses` and not here.
    pub flows: BTreeMap<ColumnId, Flow>,
    /// The result-column name the server will announce, where the statement or the catalog fixes it.
    pub name: Option<String>,
    /// Where the statement says it: 1-based character position in the message, where it says it at all.
    pub at: Option<usize>,
}

impl Output {
    /// A value that holds nothing of a stored column.
    pub fn computed(name: Option<&str>) -> Self {
        Self { origin: Origin::None, flows: BTreeMap::new(), name: name.map(str::to_owned), at: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Exactly one column's value, unchanged.
    Column(ColumnId),
    /// Computed, a constant, a set operation's column...
    None,
    /// Versions differ, or the type that decides is not known: none, or one of the columns that flow into it.
    Unknown,
}

/// A stored column compared, by its type's own equality, with values that the client brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    pub column: ColumnId,
    /// The column's type, below domains.
    pub of: Oid,
    /// Each of them; NULL, which equals nothing, is left out.
    pub values: Vec<LookupValue>,
    /// One of its parameters stands elsewhere too, where the server may learn another type for it than the column's.
    pub shares_parameters: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub enum LookupValue {
    /// As text that the column's type reads.
    Literal(String),
    /// `$n`.
    Parameter(usize),
    /// As text that an array of the column's type reads.
    LiteralArray(String),
    /// `$n`, an array.
    ParameterArray(usize),
}

impl LookupValue {
    /// The parameter it is.
    pub fn parameter(&self) -> Option<usize> {
        match self {
            Self::Parameter(number) | Self::ParameterArray(number) => Some(*number),
            Self::Literal(_) | Self::LiteralArray(_) => None,
        }
    }
}

/// Without the value, which is somebody's data.
impl std::fmt::Debug for LookupValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal(..)"),
            Self::LiteralArray(_) => f.write_str("LiteralArray(..)"),
            Self::Parameter(number) => write!(f, "${number}"),
            Self::ParameterArray(number) => write!(f, "ANY (${number})"),
        }
    }
}

/// How a stored column's value is in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// Only whether it is NULL: what `count` makes of it.
    Presence,
    /// Unchanged: the whole value is this column's, or that of another `Bare` one beside it.
    Bare,
    /// Through functions, operators and casts that cannot fail, or together with something else.
    Total,
}

/// How the rows of a COPY are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyLayout {
    pub format: CopyFormat,
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// The first line names the columns.
    pub header: bool,
    pub quote: u8,
    pub escape: u8,
    pub force_quote: ForceQuote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// Columns whose values are quoted in CSV whether they need to be or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForceQuote {
    None,
    All,
    Columns(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnUse {
    pub column: ColumnId,
    pub how: Use,
    /// 1-based character position in the message; the first one found.
    pub at: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A bare output column of the statement.
    Projected,
    /// Part of an output column, through nothing that can fail.
    Derived,
    /// An argument of a function, operator or cast that may fail, or says more than its value.
    Expression,
    /// WHERE, ON, HAVING, FILTER, CASE condition, LIMIT: decides which rows or values come out.
    Predicate,
    /// A condition of a plain SELECT that asks whether the column equals a value of the client's own.
    Lookup,
    /// USING/NATURAL, GROUP BY, ORDER BY, DISTINCT, UNION/INTERSECT/EXCEPT, window partition or order.
    Key,
    /// Decides or computes something by how often it is NULL, which `count` says.
    Presence,
    /// A foreign key of what is written looks for the value that is given.
    Referenced,
    /// Target of a write.
    Written,
    /// Source of a write.
    Source,
}
