//! The session's prepared statements and portals as the server will have them once it answered what was sent.
//! What was sent stands on top of what was confirmed, so that a message the server skips leaves no trace.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::{Forgets, StatementPlan};
use exeat_enforce::release::BoundMask;
use exeat_sql::MessageAnalysis;
use exeat_wire::frontend::Format;

use super::gate::Analysed;

/// A statement the server has under a name (the unnamed one is "").
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: Arc<str>,
    /// At Parse time; a Bind whose analysis differs is refused.
    pub(crate) analysis: Arc<MessageAnalysis>,
    pub(crate) permit: Arc<Permit>,
}

/// A bound portal with its own mask plan.
#[derive(Debug)]
pub(crate) struct Portal {
    pub(crate) request_id: Arc<str>,
    pub(crate) permit: Arc<Permit>,
    /// Generation of the policy it was bound under.
    pub(crate) policy: u64,
    pub(crate) analysed: Analysed,
    pub(crate) result_formats: Vec<Format>,
    /// What its statement notifies, as (channel, payload).
    pub(crate) notifies: Vec<(String, String)>,
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

/// At most this many names of each kind in one session.
pub(crate) const NAMES_MAX: usize = 10_000;
/// The server cuts longer names, so that two of them may mean one; here they are refused.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// What a message does to the names when the server comes to it.
#[derive(Debug)]
enum Change<S, P> {
    Statement {
        name: String,
        to: Option<Arc<S>>,
    },
    Portal {
        name: String,
        to: Option<Arc<P>>,
    },
    /// A simple Query drops the unnamed statement and portal, and what its own DEALLOCATE or DISCARD names.
    Query {
        forgets: Vec<Forgets>,
    },
    /// A FunctionCall has no part in them.
    Nothing,
}

/// Names one change that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChangeId(u64);

/// What the server has confirmed, and on top of it what was sent and is not answered yet, in order. A change the
/// server fails or skips is simply left out; nothing is ever put back over what came after it.
///
/// What stands behind a name differs from road to road: the ordinary one keeps permits, the pass-through one texts.
#[derive(Debug)]
pub(crate) struct Names<S = Statement, P = Portal> {
    statements: HashMap<String, Arc<S>>,
    portals: HashMap<String, Arc<P>>,
    pending: VecDeque<(ChangeId, Change<S, P>)>,
    next: u64,
    /// The last change before the last Sync.
    before_sync: u64,
}

impl<S, P> Default for Names<S, P> {
    fn default() -> Self {
        Self { statements: HashMap::new(), portals: HashMap::new(), pending: VecDeque::new(), next: 0, before_sync: 0 }
    }
}

impl<S, P> Names<S, P> {
    /// As the server will have it when it has answered everything sent so far.
    pub(crate) fn statement(&self, name: &str) -> Option<&Arc<S>> {
        for (_, change) in self.pending.iter().rev() {
            match change {
                Change::Statement { name: changed, to } if changed == name => return to.as_ref(),
                Change::Query { forgets } if name.is_empty() || forgets.iter().any(|gone| gone.names(name)) => {
                    return None;
                }
                Change::Statement { .. } | Change::Portal { .. } | Change::Query { .. } | Change::Nothing => {}
            }
        }
        self.statements.get(name)
    }

    pub(crate) fn portal(&self, name: &str) -> Option<&Arc<P>> {
        for (_, change) in self.pending.iter().rev() {
            match change {
                Change::Portal { name: changed, to } if changed == name => return to.as_ref(),
                Change::Query { .. } if name.is_empty() => return None,
                Change::Statement { .. } | Change::Portal { .. } | Change::Query { .. } | Change::Nothing => {}
            }
        }
        self.portals.get(name)
    }

    /// Whether what stands behind the name depends on an answer that is still to come. Within a batch it does not:
    /// where a message fails, the server skips what builds on it. Behind a Sync the server goes on, with what it had.
    pub(crate) fn statement_in_doubt(&self, name: &str) -> bool {
        self.in_doubt(|change| match change {
            Change::Statement { name: changed, .. } => changed == name,
            Change::Portal { .. } | Change::Nothing => false,
            Change::Query { forgets } => name.is_empty() || forgets.iter().any(|gone| gone.names(name)),
        })
    }

    pub(crate) fn portal_in_doubt(&self, name: &str) -> bool {
        self.in_doubt(|change| match change {
            Change::Statement { .. } | Change::Nothing => false,
            Change::Portal { name: changed, .. } => changed == name,
            Change::Query { .. } => name.is_empty(),
        })
    }

    fn in_doubt(&self, concerns: impl Fn(&Change<S, P>) -> bool) -> bool {
        let latest = self.pending.iter().rev().find(|(_, change)| concerns(change));
        latest.is_some_and(|(id, _)| id.0 <= self.before_sync)
    }

    /// Whether any name can be in doubt: rarely, and to know it costs nothing.
    pub(crate) fn has_doubts(&self) -> bool {
        self.pending.front().is_some_and(|(id, _)| id.0 <= self.before_sync)
    }

    /// A Sync is sent: what comes now is read by the server whatever became of what went before.
    pub(crate) fn synced(&mut self) {
        self.before_sync = self.next;
    }

    pub(crate) fn has_room(&self) -> bool {
        self.statements.len().max(self.portals.len()) + self.pending.len() < NAMES_MAX
    }

    pub(crate) fn put_statement(&mut self, name: &str, statement: Arc<S>) -> ChangeId {
        self.push(Change::Statement { name: name.to_owned(), to: Some(statement) })
    }

    pub(crate) fn put_portal(&mut self, name: &str, portal: Arc<P>) -> ChangeId {
        self.push(Change::Portal { name: name.to_owned(), to: Some(portal) })
    }

    pub(crate) fn close_statement(&mut self, name: &str) -> ChangeId {
        self.push(Change::Statement { name: name.to_owned(), to: None })
    }

    pub(crate) fn close_portal(&mut self, name: &str) -> ChangeId {
        self.push(Change::Portal { name: name.to_owned(), to: None })
    }

    /// A simple Query, or an Execute that deallocates.
    pub(crate) fn query(&mut self, forgets: Vec<Forgets>) -> ChangeId {
        self.push(Change::Query { forgets })
    }

    pub(crate) fn function_call(&mut self) -> ChangeId {
        self.push(Change::Nothing)
    }

    fn push(&mut self, change: Change<S, P>) -> ChangeId {
        self.next += 1;
        let id = ChangeId(self.next);
        self.pending.push_back((id, change));
        id
    }

    /// The server has done it.
    pub(crate) fn confirm(&mut self, id: ChangeId) {
        match self.take(id) {
            Some(Change::Statement { name, to }) => put(&mut self.statements, name, to),
            Some(Change::Portal { name, to }) => put(&mut self.portals, name, to),
            Some(Change::Query { forgets }) => {
                self.statements.retain(|name, _| !name.is_empty() && !forgets.iter().any(|gone| gone.names(name)));
                self.portals.remove("");
            }
            Some(Change::Nothing) | None => {}
        }
    }

    /// The server has not done it and will not.
    pub(crate) fn discard(&mut self, id: ChangeId) {
        self.take(id);
    }

    fn take(&mut self, id: ChangeId) -> Option<Change<S, P>> {
        // Answers come in order, so it is the first one unless others before it were discarded out of turn.
        let at = self.pending.iter().position(|(pending, _)| *pending == id)?;
        self.pending.remove(at).map(|(_, change)| change)
    }

    /// The end of a transaction closes every portal. Called only when nothing is on its way.
    pub(crate) fn forget_portals(&mut self) {
        if !self.portals.is_empty() {
            self.portals.clear();
        }
    }
}

fn put<T>(names: &mut HashMap<String, Arc<T>>, name: String, to: Option<Arc<T>>) {
    match to {
        Some(to) => drop(names.insert(name, to)),
        None => drop(names.remove(&name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Texts = Names<String, ()>;

    fn statement(sql: &str) -> Arc<String> {
        Arc::new(sql.to_owned())
    }

    fn text(names: &Texts, name: &str) -> Option<String> {
        names.statement(name).map(|statement| statement.to_string())
    }

    #[test]
    fn what_is_on_its_way_counts_and_what_failed_does_not() {
        let mut names = Texts::default();
        let first = names.put_statement("s", statement("first"));
        assert_eq!(text(&names, "s").as_deref(), Some("first"));
        names.confirm(first);
        let second = names.put_statement("s", statement("second"));
        assert_eq!(text(&names, "s").as_deref(), Some("second"));
        names.discard(second);
        assert_eq!(text(&names, "s").as_deref(), Some("first"));
    }

    #[test]
    fn a_skipped_close_is_not_put_back_over_a_later_parse() {
        let mut names = Texts::default();
        let old = names.put_statement("s", statement("old"));
        names.confirm(old);
        let skipped = names.close_statement("s"); // behind an error of its batch
        let close = names.close_statement("s"); // the next batch, sent ahead
        let new = names.put_statement("s", statement("new"));
        names.discard(skipped);
        names.confirm(close);
        names.confirm(new);
        assert_eq!(text(&names, "s").as_deref(), Some("new"));
    }

    #[test]
    fn behind_a_sync_a_name_is_in_doubt_until_the_server_has_answered() {
        let mut names = Texts::default();
        let first = names.put_statement("s", statement("first"));
        assert!(!names.statement_in_doubt("s"));
        names.synced();
        assert!(names.statement_in_doubt("s") && !names.statement_in_doubt("t"));
        names.confirm(first);
        assert!(!names.statement_in_doubt("s"));
        let second = names.put_statement("s", statement("second"));
        names.synced();
        let third = names.put_statement("s", statement("third"));
        assert!(!names.statement_in_doubt("s"));
        names.discard(third);
        assert!(names.statement_in_doubt("s"));
        names.discard(second);
        assert!(!names.statement_in_doubt("s"));
        assert_eq!(text(&names, "s").as_deref(), Some("first"));
    }

    #[test]
    fn a_query_takes_the_unnamed_and_what_it_deallocates() {
        let mut names = Texts::default();
        for name in ["", "a", "b"] {
            let id = names.put_statement(name, statement(name));
            names.confirm(id);
        }
        let one = names.query(vec![Forgets::One("a".to_owned())]);
        let seen = |names: &Texts| ["", "a", "b"].map(|name| names.statement(name).is_some());
        assert_eq!(seen(&names), [false, false, true]);
        names.confirm(one);
        assert_eq!(seen(&names), [false, false, true]);
        let all = names.query(vec![Forgets::All]);
        assert_eq!(seen(&names), [false; 3]);
        names.discard(all);
        assert_eq!(seen(&names), [false, false, true]);
    }
}
