//! The session's prepared statements and portals as the server will have them once it answered what was sent.
//! What was sent stands on top of what was confirmed, so that a message the server skips leaves no trace.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::{Forgets, StatementPlan};
use exeat_enforce::release::BoundMask;
use exeat_enforce::weigh::Scale;
use exeat_policy::grant::Digest;
use exeat_sql::{MessageAnalysis, StatementKind};
use exeat_store::state::RequestId;
use exeat_wire::frontend::Format;

use super::counted::Resting;
use super::gate::Analysed;

/// A statement the server has under a name (the unnamed one is "").
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: Arc<str>,
    /// At Parse time; a Bind whose analysis differs is refused.
    pub(crate) analysis: Arc<MessageAnalysis>,
    /// Of what runs when it is executed.
    pub(crate) permit: Arc<Permit>,
    /// Which statement of what was analysed made it.
    pub(crate) index: usize,
    /// By PREPARE: `sql` is that statement's own text, and what runs is what it carries.
    pub(crate) by_sql: bool,
    /// What the client declared its parameters as; `None` where only the server knows.
    pub(crate) types: Option<Arc<[u32]>>,
}

impl Statement {
    /// Whether its text, analysed again, still means what the server prepared.
    pub(crate) fn still_means(&self, again: &Arc<MessageAnalysis>) -> bool {
        if Arc::ptr_eq(&self.analysis, again) {
            return true;
        }
        match (self.analysis.statements.get(self.index), again.statements.as_slice()) {
            (Some(before), [now]) => before.means_the_same(now),
            (None, []) => true,
            (Some(_) | None, _) => false,
        }
    }

    /// Of what runs, from the permit of its text.
    pub(crate) fn runs(&self, permit: Arc<Permit>) -> Option<Arc<Permit>> {
        if self.by_sql { permit.prepared().cloned() } else { Some(permit) }
    }

    pub(crate) fn kind(&self) -> Option<&StatementKind> {
        match &self.analysis.statements.get(self.index)?.kind {
            StatementKind::SqlPrepare { of, .. } if self.by_sql => Some(of),
            kind => Some(kind),
        }
    }
}

/// A bound portal, or a cursor of SQL, with its own mask plan.
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
    /// A cursor of SQL: its query is its DECLARE's.
    pub(crate) declared: bool,
    /// It outlives its transaction.
    pub(crate) hold: bool,
    /// A Describe of this portal is already on its way, the client's or ours.
    pub(crate) describe_sent: std::sync::atomic::AtomicBool,
    /// How its rows are weighed, where single values may hold many.
    pub(crate) scale: OnceLock<Scale>,
    /// Its counters, between two fetches.
    pub(crate) resting: Resting,
    /// Of the values it was bound with, where somebody may be asked about it.
    pub(crate) values: Option<Digest>,
    /// What let it through that a rule holds.
    pub(crate) approval: Option<RequestId>,
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

/// What one statement does to the names, once it has succeeded.
#[derive(Debug)]
pub(crate) enum Step<S = Statement, P = Portal> {
    /// DEALLOCATE and DISCARD.
    Forget(Forgets),
    /// CLOSE and DISCARD.
    Close(Forgets),
    /// PREPARE.
    Prepare { name: String, statement: Arc<S> },
    /// DECLARE.
    Declare { name: String, cursor: Arc<P> },
}

impl<S, P> Step<S, P> {
    /// What stands behind a statement's name after it; `None`: it does not concern that name.
    fn statement(&self, name: &str) -> Option<Option<&Arc<S>>> {
        match self {
            Self::Forget(forgets) => forgets.names(name).then_some(None),
            Self::Prepare { name: prepared, statement } => (prepared == name).then_some(Some(statement)),
            Self::Close(_) | Self::Declare { .. } => None,
        }
    }

    fn portal(&self, name: &str) -> Option<Option<&Arc<P>>> {
        match self {
            Self::Close(closes) => closes.names(name).then_some(None),
            Self::Declare { name: declared, cursor } => (declared == name).then_some(Some(cursor)),
            Self::Forget(_) | Self::Prepare { .. } => None,
        }
    }
}

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
    /// What statements do: each step with the number of the statement in its message that takes it.
    Run {
        /// A simple Query drops the unnamed statement and portal.
        unnamed: bool,
        steps: Vec<(usize, Step<S, P>)>,
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
                Change::Run { unnamed: true, .. } if name.is_empty() => return None,
                Change::Run { steps, .. } => {
                    if let Some(found) = steps.iter().rev().find_map(|(_, step)| step.statement(name)) {
                        return found;
                    }
                }
                Change::Statement { .. } | Change::Portal { .. } | Change::Nothing => {}
            }
        }
        self.statements.get(name)
    }

    pub(crate) fn portal(&self, name: &str) -> Option<&Arc<P>> {
        for (_, change) in self.pending.iter().rev() {
            match change {
                Change::Portal { name: changed, to } if changed == name => return to.as_ref(),
                Change::Run { unnamed: true, .. } if name.is_empty() => return None,
                Change::Run { steps, .. } => {
                    if let Some(found) = steps.iter().rev().find_map(|(_, step)| step.portal(name)) {
                        return found;
                    }
                }
                Change::Statement { .. } | Change::Portal { .. } | Change::Nothing => {}
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
            Change::Run { unnamed, steps } => {
                (*unnamed && name.is_empty()) || steps.iter().any(|(_, step)| step.statement(name).is_some())
            }
        })
    }

    pub(crate) fn portal_in_doubt(&self, name: &str) -> bool {
        self.in_doubt(|change| match change {
            Change::Statement { .. } | Change::Nothing => false,
            Change::Portal { name: changed, .. } => changed == name,
            Change::Run { unnamed, steps } => {
                (*unnamed && name.is_empty()) || steps.iter().any(|(_, step)| step.portal(name).is_some())
            }
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
        let steps = forgets.into_iter().map(|forgets| (0, Step::Forget(forgets))).collect();
        self.push(Change::Run { unnamed: true, steps })
    }

    /// What the statements of a simple Query do, or the one of an Execute.
    pub(crate) fn run(&mut self, is_query: bool, steps: Vec<(usize, Step<S, P>)>) -> ChangeId {
        self.push(Change::Run { unnamed: is_query, steps })
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
        self.confirm_first(id, usize::MAX);
    }

    /// The server has come as far as this many statements of the message.
    pub(crate) fn confirm_first(&mut self, id: ChangeId, done: usize) {
        match self.take(id) {
            Some(Change::Statement { name, to }) => put(&mut self.statements, name, to),
            Some(Change::Portal { name, to }) => put(&mut self.portals, name, to),
            Some(Change::Run { unnamed, steps }) => {
                if unnamed {
                    self.statements.remove("");
                    self.portals.remove("");
                }
                steps.into_iter().filter(|(index, _)| *index < done).for_each(|(_, step)| self.take_step(step));
            }
            Some(Change::Nothing) | None => {}
        }
    }

    fn take_step(&mut self, step: Step<S, P>) {
        match step {
            Step::Forget(forgets) => self.statements.retain(|name, _| !forgets.names(name)),
            Step::Close(closes) => self.portals.retain(|name, _| !closes.names(name)),
            Step::Prepare { name, statement } => drop(self.statements.insert(name, statement)),
            Step::Declare { name, cursor } => drop(self.portals.insert(name, cursor)),
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

    /// The end of a transaction closes every portal but those that `outlive` it. Called only when nothing is on its
    /// way. One kept that the server has not is harmless: a portal of that name can only be made anew.
    pub(crate) fn forget_portals(&mut self, outlives: impl Fn(&P) -> bool) {
        if !self.portals.is_empty() {
            self.portals.retain(|_, portal| outlives(portal));
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
    fn a_query_that_fails_has_done_what_stood_before_the_failure() {
        let prepare = |name: &str| Step::Prepare { name: name.to_owned(), statement: statement(name) };
        let mut names = Texts::default();
        let first = names.run(true, vec![(0, prepare("a")), (1, Step::Forget(Forgets::All)), (2, prepare("b"))]);
        assert!(names.statement("a").is_none() && names.statement("b").is_some());
        names.confirm_first(first, 1);
        assert!(names.statement("a").is_some() && names.statement("b").is_none());
        let second = names.run(false, vec![(0, Step::Forget(Forgets::One("a".to_owned())))]);
        names.confirm_first(second, 0);
        assert!(names.statement("a").is_some());
    }

    #[test]
    fn cursors_share_their_names_with_portals_and_end_with_the_transaction_unless_held() {
        let declare = |name: &str, cursor: i32| Step::Declare { name: name.to_owned(), cursor: Arc::new(cursor) };
        let mut names = Names::<String, i32>::default();
        let bound = names.put_portal("p", Arc::new(1));
        names.confirm(bound);
        let declared = names.run(true, vec![(0, declare("c", 2)), (1, declare("h", 3))]);
        assert_eq!(names.portal("c").map(|cursor| **cursor), Some(2));
        names.confirm(declared);
        let closed = names.run(true, vec![(0, Step::Close(Forgets::One("p".to_owned())))]);
        assert!(names.portal("p").is_none());
        names.discard(closed);
        assert!(names.portal("p").is_some());
        names.forget_portals(|cursor| *cursor == 3);
        assert_eq!(["p", "c", "h"].map(|name| names.portal(name).is_some()), [false, false, true]);
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
