//! What the session knows about each message it sent: whose it is, and what to do with the answer.

use std::sync::Arc;
use std::time::Instant;

use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::StatementPlan;
use exeat_enforce::release::{BoundMask, Counts};
use exeat_store::state::RequestId;

use exeat_wire::{BackendMessage, Fields};

use super::counted::Counted;
use super::gate::{Analysed, Gate};
use super::statements::{ChangeId, Portal, Statement};

/// The context of one request whose answer is due.
#[derive(Debug)]
pub(crate) enum Due {
    Query(Box<QueryDue>),
    Parse {
        change: ChangeId,
        permit: Arc<Permit>,
    },
    Bind {
        change: ChangeId,
        portal: Arc<Portal>,
    },
    DescribeStatement {
        statement: Arc<Statement>,
    },
    DescribePortal {
        portal: Arc<Portal>,
        /// Injected by the gateway before an Execute: its answer is swallowed.
        ours: bool,
    },
    Execute(Box<ExecuteDue>),
    Close {
        change: ChangeId,
    },
    Sync,
    /// A constant with a syntax error in place of a refused message: its ErrorResponse becomes the refusal.
    Poison(Box<Fields>),
    /// A step of the gateway's own exchange (parse probe, session state): answers are kept, not released.
    Own,
}

/// One simple Query on its way.
#[derive(Debug)]
pub(crate) struct QueryDue {
    pub(crate) permit: Arc<Permit>,
    pub(crate) request_id: Arc<str>,
    /// Which statement of the message answers now.
    pub(crate) index: usize,
    /// How many of them have succeeded.
    pub(crate) done: usize,
    pub(crate) bound: Option<BoundMask>,
    pub(crate) counts: Counts,
    pub(crate) started: Instant,
    pub(crate) change: ChangeId,
    pub(crate) gate: Gate,
    /// It ends an open batch of the extended protocol: deferred triggers of the batch speak in its error.
    pub(crate) ends_batch: bool,
    /// The value of a FunctionCall is here, and waits to be known as its end.
    pub(crate) result: Option<BackendMessage>,
    /// All its statements were answered, and it may fail all the same.
    pub(crate) may_fail_yet: bool,
    /// The counters of the statement that answers now, and the cursor they are of.
    pub(crate) counted: Option<Box<Counted>>,
    pub(crate) cursor: Option<Arc<Portal>>,
    /// Those of the statement before it in the message.
    pub(crate) previous: Option<Box<Counted>>,
    /// What let it through that a rule holds.
    pub(crate) approval: Option<RequestId>,
    /// It runs in a transaction of the gateway's own, which decides over it at its end.
    pub(crate) guarded: bool,
}

impl QueryDue {
    pub(crate) fn new(permit: Arc<Permit>, request_id: Arc<str>, change: ChangeId, analysed: Analysed) -> Self {
        Self {
            permit,
            request_id,
            index: 0,
            done: 0,
            bound: None,
            counts: Counts::default(),
            started: Instant::now(),
            change,
            gate: Gate::new(analysed),
            ends_batch: false,
            result: None,
            may_fail_yet: false,
            counted: None,
            cursor: None,
            previous: None,
            approval: None,
            guarded: false,
        }
    }

    pub(crate) fn let_through(mut self, approval: Option<RequestId>, guarded: bool) -> Self {
        (self.approval, self.guarded) = (approval, guarded);
        self
    }

    pub(crate) fn ending_batch(mut self, ends_batch: bool) -> Self {
        self.ends_batch = ends_batch;
        self
    }

    pub(crate) fn plan(&self) -> Option<&StatementPlan> {
        self.permit.plans.get(self.index)
    }
}

/// One Execute on its way.
#[derive(Debug)]
pub(crate) struct ExecuteDue {
    pub(crate) portal: Arc<Portal>,
    /// Whose intent its outcome closes: the Bind's, or its own where a cursor of SQL is run.
    pub(crate) request_id: Arc<str>,
    pub(crate) counts: Counts,
    pub(crate) started: Instant,
    /// What its own DEALLOCATE or DISCARD takes away.
    pub(crate) change: Option<ChangeId>,
    pub(crate) gate: Gate,
    pub(crate) counted: Option<Box<Counted>>,
}

impl ExecuteDue {
    pub(crate) fn new(portal: Arc<Portal>, request_id: Arc<str>, change: Option<ChangeId>) -> Self {
        let gate = Gate::new(portal.analysed.clone());
        Self { portal, request_id, counts: Counts::default(), started: Instant::now(), change, gate, counted: None }
    }
}
