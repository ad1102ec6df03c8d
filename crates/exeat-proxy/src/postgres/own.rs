//! What a session has made itself. A relation that nobody has accepted yet is sealed for everyone but the session that
//! made it, from nothing sealed, in a statement that succeeded. Known within its transaction, by the catalog that this
//! connection sees, and when that is committed; what was rolled back is forgotten.

use std::collections::BTreeSet;

use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::StateEffect;
use exeat_sql::{
    CatalogSnapshot, CursorCommand, MessageAnalysis, NewRelation, Oid, Relation, StatementKind, TransactionCommand,
};

/// The server's own prefix of schemas for temporary relations.
const TEMPORARY: &str = "pg_temp_";

#[derive(Debug, Default)]
pub(crate) struct OwnRelations {
    proven: BTreeSet<Oid>,
    /// Made since the snapshot was read, in a transaction that has not been rolled back.
    made: Vec<NewRelation>,
    /// DDL was sent in a transaction that may still be open.
    defined: bool,
}

impl OwnRelations {
    pub(crate) fn proven(&self) -> &BTreeSet<Oid> {
        &self.proven
    }

    pub(crate) fn note_effect(&mut self, effect: StateEffect) {
        self.defined |= effect.changes_catalog;
        if effect.transaction.is_some_and(takes_back) {
            self.rolled_back();
        }
    }

    /// Something failed, or the client took it back: what was made may be gone, and its name another's.
    pub(crate) fn rolled_back(&mut self) {
        self.made.clear();
    }

    pub(crate) fn is_defined(&self) -> bool {
        self.defined
    }

    /// The server is between transactions: what was defined is in the catalog or gone. Whether anything was.
    pub(crate) fn at_rest(&mut self) -> bool {
        std::mem::take(&mut self.defined)
    }

    /// Every statement of a message has succeeded. What one of them takes back may have been made by one before.
    pub(crate) fn succeeded(&mut self, permit: &Permit) {
        if permit.plans.iter().any(|plan| plan.effect.transaction.is_some_and(takes_back)) {
            self.rolled_back();
        } else {
            self.made.extend(permit.plans.iter().flat_map(|plan| plan.makes.iter().cloned()));
        }
    }

    /// A new snapshot: finds what was made, by name and because `before` did not have it.
    pub(crate) fn find(&mut self, before: &CatalogSnapshot, now: &CatalogSnapshot) {
        for made in std::mem::take(&mut self.made) {
            let is_it = |relation: &&Relation| {
                let in_schema = match made.schema {
                    Some(schema) => relation.schema == schema,
                    // The server lets nobody read another session's.
                    None => relation.schema_name.starts_with(TEMPORARY),
                };
                in_schema && relation.name == made.name && before.relation(relation.oid).is_none()
            };
            self.proven.extend(now.relations().filter(is_it).map(|relation| relation.oid));
        }
        self.proven.retain(|oid| now.relation(*oid).is_some());
    }

    /// Another policy may seal what these were made from.
    pub(crate) fn forget(&mut self) {
        self.proven.clear();
        self.made.clear();
    }
}

/// Whether some statement of the message depends on what names mean.
pub(crate) fn resolves_names(analysis: &MessageAnalysis) -> bool {
    analysis.statements.iter().any(|statement| {
        // A cursor was resolved when it was declared.
        !matches!(statement.kind, StatementKind::Session(_) | StatementKind::Cursor(CursorCommand::Fetch { .. }))
    })
}

/// Ends of a transaction or of a part of it that do not keep what it did, or not under this session's hands.
fn takes_back(command: TransactionCommand) -> bool {
    match command {
        TransactionCommand::Rollback
        | TransactionCommand::RollbackTo
        | TransactionCommand::Prepare
        | TransactionCommand::TwoPhase => true,
        TransactionCommand::Begin
        | TransactionCommand::Commit
        | TransactionCommand::Savepoint
        | TransactionCommand::Release => false,
    }
}
