//! What a statement reads, writes, returns and is influenced by, given a catalog snapshot.
//! Pure. Knows neither principals nor policy nor the network. Everything not understood is `Opaque`.

pub mod analysis;
pub mod catalog;
mod classes;
mod hidden;
mod message;
mod named;
mod parse;
mod position;
mod rows;
mod simulated;
mod statement;
mod walk;
mod weight;

pub use analysis::{
    Analysis, ColumnUse, CopyFormat, CopyLayout, CursorCommand, Definition, Explained, Flow, ForceQuote, Given,
    GivenRow, Lineage, Lookup, LookupValue, MessageAnalysis, NewRelation, Notification, NotifyText, Opaque,
    OpaqueReason, Origin, Output, ParseFailure, Reference, SessionCommand, SetList, ShownSettings, StatementAnalysis,
    StatementKind, TransactionCommand, Use, Write, Writing,
};
pub use catalog::{
    CatalogError, CatalogQuery, CatalogSnapshot, CheckedTogether, Column, ColumnId, FINGERPRINT_QUERY, Generated, Oid,
    PG_CATALOG, QUERIES, Relation, RelationKind, SESSION_STATE_QUERY, SessionState, Versions,
};
pub use hidden::{Asking, Disguised, Hidden};
pub use parse::parse_and_analyse;
pub use rows::{Packing, RowContent, Whole};
pub use walk::lookup::{element as lookup_element, takes as lookup_takes};
pub use walk::view::ViewLineage;

use std::sync::Arc;

/// Longest text handed to the parser. Documented bound: SQL below it is never refused for its size alone.
pub const STATEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Steps that the analysis of one message may take: nodes visited, names compared, columns expanded.
pub const STEPS_MAX: usize = walk::STEPS_MAX;

/// Stack a thread needs before it may call [`parse_and_analyse`]: decode, walk and drop of the tree recurse.
pub const PARSER_STACK_BYTES: usize = 64 * 1024 * 1024;

/// What of the session's state names resolve against.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Effective search path as the server reports it (`current_schemas(true)`, as OIDs): pg_temp first if it
    /// exists, implicit pg_catalog in its place.
    pub search_path: Vec<Oid>,
    /// Schemas that the role may use: where a literal search_path may lead.
    pub usable: Vec<Oid>,
    /// Whom `$user` in a search_path means.
    pub role: String,
    /// The open transaction, if there is one, has not touched what names mean: its end changes nothing of it.
    pub settled: bool,
    /// What policy hides from the session's principal.
    pub hidden: Arc<Hidden>,
}
