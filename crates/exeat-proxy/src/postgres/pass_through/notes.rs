//! What the pass-through road remembers of the messages it passed on, for the record alone: which text a Bind
//! binds, which intent an Execute's outcome belongs to. The server's own state is the truth; nothing here decides
//! whether a message passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use exeat_wire::peek;

use super::super::statements::{ChangeId, Names};

/// Texts of prepared statements remembered by one session. Past it a Bind's record names its statement and not the
/// text, which stands in the record of its Parse.
const TEXT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The text of a prepared statement, while it is remembered.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) sql: Arc<str>,
    texts: Arc<AtomicU64>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.texts.fetch_sub(wide(self.sql.len()), Ordering::Relaxed);
    }
}

/// A portal: the intent its rows belong to, and whether that intent has its last outcome.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) request: u64,
    pub(super) settled: AtomicBool,
}

impl Bound {
    pub(super) fn new(request: u64) -> Arc<Self> {
        Arc::new(Self { request, settled: AtomicBool::new(false) })
    }
}

#[derive(Debug, Default)]
pub(super) struct Notes {
    names: Names<Prepared, Bound>,
    texts: Arc<AtomicU64>,
}

impl Notes {
    /// The text behind a name, if this session prepared it by a message and it is still remembered.
    pub(super) fn text(&self, name: &[u8]) -> Option<Arc<str>> {
        self.names.statement(&String::from_utf8_lossy(name)).map(|prepared| Arc::clone(&prepared.sql))
    }

    pub(super) fn portal(&self, name: &[u8]) -> Option<Arc<Bound>> {
        self.names.portal(&String::from_utf8_lossy(name)).map(Arc::clone)
    }

    /// Whether which text or portal this message means depends on an answer that is still to come.
    pub(super) fn in_doubt(&self, tag: u8, frame: &[u8]) -> bool {
        if !self.names.has_doubts() {
            return false;
        }
        let text = String::from_utf8_lossy;
        match tag {
            b'B' => peek::bind(frame).is_some_and(|view| self.names.statement_in_doubt(&text(view.statement))),
            b'E' => peek::execute(frame).is_some_and(|portal| self.names.portal_in_doubt(&text(portal))),
            _ => false,
        }
    }

    /// A Sync is passed on.
    pub(super) fn synced(&mut self) {
        self.names.synced();
    }

    pub(super) fn parsed(&mut self, name: &[u8], sql: &str) -> ChangeId {
        let name = String::from_utf8_lossy(name);
        let kept = self.texts.load(Ordering::Relaxed).saturating_add(wide(sql.len()));
        if kept > TEXT_BYTES_MAX || !self.names.has_room() {
            return self.names.close_statement(&name);
        }
        self.texts.store(kept, Ordering::Relaxed);
        self.names.put_statement(&name, Arc::new(Prepared { sql: Arc::from(sql), texts: Arc::clone(&self.texts) }))
    }

    pub(super) fn bound(&mut self, name: &[u8], portal: Arc<Bound>) -> ChangeId {
        let name = String::from_utf8_lossy(name);
        if !self.names.has_room() {
            return self.names.close_portal(&name);
        }
        self.names.put_portal(&name, portal)
    }

    pub(super) fn closed(&mut self, kind: u8, name: &[u8]) -> ChangeId {
        let name = String::from_utf8_lossy(name);
        if kind == b'S' { self.names.close_statement(&name) } else { self.names.close_portal(&name) }
    }

    /// A simple Query drops the unnamed statement and portal.
    pub(super) fn queried(&mut self) -> ChangeId {
        self.names.query(Vec::new())
    }

    pub(super) fn confirm(&mut self, change: ChangeId) {
        self.names.confirm(change);
    }

    pub(super) fn discard(&mut self, change: ChangeId) {
        self.names.discard(change);
    }

    /// The end of a transaction closes every portal. Called only when nothing is on its way.
    pub(super) fn forget_portals(&mut self) {
        self.names.forget_portals();
    }
}

/// Rows and bytes of an answer, as they are on their way to the client.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Counted {
    pub(super) fn row(&mut self, frame_bytes: usize) {
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(wide(frame_bytes));
    }
}

/// One statement under way: the intent it belongs to, its place in it, and what its answer came to so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) request: u64,
    pub(super) index: u32,
    pub(super) counted: Counted,
    pub(super) started: Instant,
}

impl Run {
    pub(super) fn of(request: u64) -> Self {
        Self { request, index: 0, counted: Counted::default(), started: Instant::now() }
    }

    /// The next statement of the same Query.
    pub(super) fn next(self) -> Self {
        Self { index: self.index.saturating_add(1), ..Self::of(self.request) }
    }
}

/// What was sent and is to be answered.
#[derive(Debug)]
pub(super) enum Owed {
    Query {
        run: Run,
        change: ChangeId,
    },
    Parse {
        change: ChangeId,
    },
    Bind {
        portal: Arc<Bound>,
        change: ChangeId,
    },
    Execute {
        portal: Arc<Bound>,
        run: Run,
    },
    FunctionCall {
        run: Run,
    },
    Close {
        change: Option<ChangeId>,
    },
    /// Describe, Sync, and the end of COPY data: nothing of them is on record.
    Unrecorded,
    /// Sent in place of a message that could not be recorded.
    Poison,
}

pub(super) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
