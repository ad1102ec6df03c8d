//! The session's prepared statements and portals as the server will have them once it answered what was sent.
//! Entries made by messages the server skipped or refused are taken back, in reverse order.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::{Forgets, StatementPlan};
use exeat_enforce::release::BoundMask;
use exeat_sql::MessageAnalysis;
use exeat_wire::backend::RowDescription;
use exeat_wire::frontend::Format;

/// A statement the server has under a name (the unnamed one is "").
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: Arc<str>,
    /// At Parse time; a Bind whose analysis differs is refused.
    pub(crate) analysis: Option<Arc<MessageAnalysis>>,
    pub(crate) permit: Arc<Permit>,
    /// The description the server gave for a Describe of the statement, with the catalog version it was checked
    /// against: lets a later Execute go without a Describe of its own.
    pub(crate) described: OnceLock<(u64, RowDescription)>,
}

/// A bound portal with its own mask plan.
#[derive(Debug)]
pub(crate) struct Portal {
    pub(crate) request_id: Arc<str>,
    pub(crate) permit: Arc<Permit>,
    /// Generation of the policy it was bound under.
    pub(crate) policy: u64,
    pub(crate) result_formats: Vec<Format>,
    /// Set by the first description the server gives for it; rows without it are never released.
    pub(crate) bound: OnceLock<BoundMask>,
    /// A Describe of this portal is already on its way, the client's or ours.
    pub(crate) describe_sent: std::sync::atomic::AtomicBool,
}

impl Portal {
    pub(crate) fn plan(&self) -> Option<&StatementPlan> {
        self.permit.plans.first()
    }

    pub(crate) fn format(&self, column: usize) -> Format {
        match self.result_formats.as_slice() {
            [] => Format::Text,
            [all] => *all,
            each => each.get(column).copied().unwrap_or(Format::Text),
        }
    }
}

/// How to take one change back.
#[derive(Debug)]
pub(crate) enum Undo {
    Statement { name: String, before: Option<Arc<Statement>> },
    Portal { name: String, before: Option<Arc<Portal>> },
}

/// At most this many names of each kind in one session.
pub(crate) const NAMES_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Names {
    statements: HashMap<String, Arc<Statement>>,
    portals: HashMap<String, Arc<Portal>>,
}

impl Names {
    pub(crate) fn statement(&self, name: &str) -> Option<&Arc<Statement>> {
        self.statements.get(name)
    }

    pub(crate) fn portal(&self, name: &str) -> Option<&Arc<Portal>> {
        self.portals.get(name)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.statements.len() < NAMES_MAX && self.portals.len() < NAMES_MAX
    }

    pub(crate) fn put_statement(&mut self, name: &str, statement: Arc<Statement>) -> Undo {
        let before = self.statements.insert(name.to_owned(), statement);
        Undo::Statement { name: name.to_owned(), before }
    }

    pub(crate) fn put_portal(&mut self, name: &str, portal: Arc<Portal>) -> Undo {
        let before = self.portals.insert(name.to_owned(), portal);
        Undo::Portal { name: name.to_owned(), before }
    }

    pub(crate) fn close_statement(&mut self, name: &str) -> Option<Undo> {
        let before = self.statements.remove(name)?;
        Some(Undo::Statement { name: name.to_owned(), before: Some(before) })
    }

    pub(crate) fn close_portal(&mut self, name: &str) -> Option<Undo> {
        let before = self.portals.remove(name)?;
        Some(Undo::Portal { name: name.to_owned(), before: Some(before) })
    }

    pub(crate) fn undo(&mut self, change: Undo) {
        match change {
            Undo::Statement { name, before: Some(before) } => drop(self.statements.insert(name, before)),
            Undo::Statement { name, before: None } => drop(self.statements.remove(&name)),
            Undo::Portal { name, before: Some(before) } => drop(self.portals.insert(name, before)),
            Undo::Portal { name, before: None } => drop(self.portals.remove(&name)),
        }
    }

    /// A simple Query drops the unnamed statement and portal.
    pub(crate) fn forget_unnamed(&mut self) {
        self.statements.remove("");
        self.portals.remove("");
    }

    /// SQL's own DEALLOCATE and DISCARD reach the names of the protocol too. A name that is gone here and still
    /// there at the server is refused; the other way round another statement could stand behind it.
    pub(crate) fn forget_statements(&mut self, forgotten: Option<&Forgets>) {
        match forgotten {
            Some(Forgets::All) => self.statements.clear(),
            Some(Forgets::One(name)) => drop(self.statements.remove(name)),
            None => {}
        }
    }

    /// The end of a transaction closes every portal.
    pub(crate) fn forget_portals(&mut self) {
        if !self.portals.is_empty() {
            self.portals.clear();
        }
    }
}
