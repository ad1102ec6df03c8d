//! What the session knows about each message it sent: whose it is, and what to do with the answer.

use std::sync::Arc;
use std::time::Instant;

use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::StatementPlan;
use exeat_enforce::release::{BoundMask, Counts};

use exeat_wire::Fields;

use super::statements::{Portal, Statement, Undo};

/// The context of one request whose answer is due.
#[derive(Debug)]
pub(crate) enum Due {
    Query(Box<QueryDue>),
    Parse {
        undo: Undo,
    },
    Bind {
        undo: Undo,
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
        undo: Option<Undo>,
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
    pub(crate) bound: Option<BoundMask>,
    pub(crate) counts: Counts,
    pub(crate) started: Instant,
}

impl QueryDue {
    pub(crate) fn new(permit: Arc<Permit>, request_id: Arc<str>) -> Self {
        Self { permit, request_id, index: 0, bound: None, counts: Counts::default(), started: Instant::now() }
    }

    pub(crate) fn plan(&self) -> Option<&StatementPlan> {
        self.permit.plans.get(self.index)
    }
}

/// One Execute on its way.
#[derive(Debug)]
pub(crate) struct ExecuteDue {
    pub(crate) portal: Arc<Portal>,
    pub(crate) counts: Counts,
    pub(crate) started: Instant,
}

impl ExecuteDue {
    pub(crate) fn new(portal: Arc<Portal>) -> Self {
        Self { portal, counts: Counts::default(), started: Instant::now() }
    }
}
