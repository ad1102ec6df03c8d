//! What the pass-through road remembers of the messages it passed on, for the record alone: which text a Bind
//! binds, which intent an Execute's outcome belongs to. The server's own state is the truth; nothing here decides
//! whether a message passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use exeat_enforce::plan::Forgets;
use exeat_wire::peek;

use super::super::statements::{ChangeId, NAME_BYTES_MAX, Names};

/// Texts of prepared statements remembered by one session. Past it a Bind's record names its statement and not the
/// text, which stands in the record of its Parse.
const TEXT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The text of a prepared statement, while it is remembered.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) sql: Arc<[u8]>,
    pub(super) forgets: Option<Forgets>,
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
    /// What running it takes away.
    pub(super) forgets: Option<Forgets>,
    pub(super) settled: AtomicBool,
}

impl Bound {
    pub(super) fn new(request: u64, forgets: Option<Forgets>) -> Arc<Self> {
        Arc::new(Self { request, forgets, settled: AtomicBool::new(false) })
    }
}

#[derive(Debug, Default)]
pub(super) struct Notes {
    names: Names<Prepared, Bound>,
    texts: Arc<AtomicU64>,
}

impl Notes {
    /// The text behind a name, if this session prepared it by a message and it is still remembered.
    pub(super) fn statement(&self, name: &[u8]) -> Option<&Prepared> {
        self.names.statement(&kept(name)).map(Arc::as_ref)
    }

    pub(super) fn portal(&self, name: &[u8]) -> Option<Arc<Bound>> {
        self.names.portal(&kept(name)).map(Arc::clone)
    }

    /// Whether which text or portal this message means depends on an answer that is still to come.
    pub(super) fn in_doubt(&self, tag: u8, frame: &[u8]) -> bool {
        if !self.names.has_doubts() {
            return false;
        }
        match tag {
            b'B' => peek::bind(frame).is_some_and(|view| self.names.statement_in_doubt(&kept(view.statement))),
            b'E' => peek::execute(frame).is_some_and(|portal| self.names.portal_in_doubt(&kept(portal))),
            _ => false,
        }
    }

    /// A Sync is passed on.
    pub(super) fn synced(&mut self) {
        self.names.synced();
    }

    pub(super) fn parsed(&mut self, name: &[u8], sql: &[u8]) -> ChangeId {
        let name = kept(name);
        let bytes = self.texts.load(Ordering::Relaxed).saturating_add(wide(sql.len()));
        if bytes > TEXT_BYTES_MAX || !self.names.has_room() {
            return self.names.close_statement(&name);
        }
        self.texts.store(bytes, Ordering::Relaxed);
        let prepared = Prepared { sql: Arc::from(sql), forgets: forgets(sql), texts: Arc::clone(&self.texts) };
        self.names.put_statement(&name, Arc::new(prepared))
    }

    pub(super) fn bound(&mut self, name: &[u8], portal: Arc<Bound>) -> ChangeId {
        let name = kept(name);
        if !self.names.has_room() {
            return self.names.close_portal(&name);
        }
        self.names.put_portal(&name, portal)
    }

    pub(super) fn closed(&mut self, kind: u8, name: &[u8]) -> ChangeId {
        let name = kept(name);
        if kind == b'S' { self.names.close_statement(&name) } else { self.names.close_portal(&name) }
    }

    /// A simple Query drops the unnamed statement and portal, and what its text takes away.
    pub(super) fn queried(&mut self, sql: &[u8]) -> ChangeId {
        self.names.query(forgets(sql).into_iter().collect())
    }

    /// A portal is run whose text takes statements away.
    pub(super) fn executed(&mut self, portal: &Bound) -> Option<ChangeId> {
        portal.forgets.clone().map(|forgets| self.names.query(vec![forgets]))
    }

    pub(super) fn confirm(&mut self, change: ChangeId) {
        self.names.confirm(change);
    }

    pub(super) fn discard(&mut self, change: ChangeId) {
        self.names.discard(change);
    }

    /// A statement has ended with this tag. Behind CLOSE a portal's name may be that of another cursor.
    pub(super) fn ended(&mut self, tag: &[u8]) {
        if tag.starts_with(b"CLOSE CURSOR") || tag == b"DISCARD ALL" {
            self.names.forget_portals(|_| false);
        }
    }

    /// The end of a transaction closes every portal. Called only when nothing is on its way.
    pub(super) fn forget_portals(&mut self) {
        self.names.forget_portals(|_| false);
    }
}

/// A name as the server keeps it: cut, and byte for byte, in whatever encoding.
fn kept(name: &[u8]) -> String {
    name.iter().take(NAME_BYTES_MAX).copied().map(char::from).collect()
}

/// The prepared statements that this text may take away. It is not parsed: wherever it speaks of such a thing and does
/// nothing but name one of them, nothing is known of any of them afterwards. A text that puts the word together while
/// it runs is not recognised.
fn forgets(bytes: &[u8]) -> Option<Forgets> {
    let begins = |at: usize, word: &[u8]| {
        let here = bytes.get(at..at.saturating_add(word.len()));
        here.is_some_and(|here| here.eq_ignore_ascii_case(word))
    };
    let mut starts = bytes.iter().enumerate().filter(|(_, byte)| matches!(byte, b'd' | b'D'));
    let speaks = starts.any(|(at, _)| begins(at, b"deallocate") || begins(at, b"discard"));
    speaks.then(|| std::str::from_utf8(bytes).ok().and_then(only_deallocates).map_or(Forgets::All, Forgets::One))
}

/// The name in a text that is `DEALLOCATE [PREPARE] name [;]` and nothing else.
fn only_deallocates(sql: &str) -> Option<String> {
    let sql = sql.trim_ascii();
    let mut words = sql.strip_suffix(';').unwrap_or(sql).split_ascii_whitespace();
    words.next().filter(|word| word.eq_ignore_ascii_case("deallocate"))?;
    let name = match (words.next()?, words.next(), words.next()) {
        (name, None, None) => name,
        (word, Some(name), None) if word.eq_ignore_ascii_case("prepare") => name,
        _ => return None,
    };
    let name = match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.to_owned(),
        None => name.to_ascii_lowercase(),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let known = !name.is_empty() && name.bytes().all(plain) && name != "all";
    known.then(|| kept(name.as_bytes()))
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
    /// Its last outcome is on record.
    pub(super) over: bool,
}

impl Run {
    pub(super) fn of(request: u64) -> Self {
        Self { request, index: 0, counted: Counted::default(), started: Instant::now(), over: false }
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
        change: Option<ChangeId>,
    },
    FunctionCall {
        run: Run,
    },
    Close {
        change: Option<ChangeId>,
    },
    /// Nothing of it is on record, unless it fails.
    Sync,
    /// Describe, and the end of COPY data: nothing of them is on record.
    Unrecorded,
    /// Sent in place of a message that could not be recorded.
    Poison,
}

pub(super) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_where_the_server_takes_them_for_one() {
        let long = "n".repeat(NAME_BYTES_MAX);
        let mut notes = Notes::default();
        let first = notes.parsed(format!("{long}x").as_bytes(), b"SELECT 1");
        notes.confirm(first);
        let closed = notes.closed(b'S', format!("{long}y").as_bytes());
        notes.confirm(closed);
        assert!(notes.statement(format!("{long}x").as_bytes()).is_none());
        let [one, other] = [&b"caf\xe8"[..], b"caf\xe9"];
        let change = notes.parsed(one, b"SELECT 1");
        notes.confirm(change);
        assert!(notes.statement(one).is_some() && notes.statement(other).is_none());
    }

    #[test]
    fn what_a_text_deallocates_is_forgotten() {
        let one = |name: &str| Some(Forgets::One(name.to_owned()));
        assert_eq!(forgets(b"DEALLOCATE _pg3_0"), one("_pg3_0"));
        assert_eq!(forgets(b" deallocate PREPARE S1 ;"), one("s1"));
        assert_eq!(forgets(b"DEALLOCATE \"S1\""), one("S1"));
        for sql in [
            "DEALLOCATE s; PREPARE s AS SELECT 2",
            "DEALLOCATE ALL",
            "DEALLOCATE PREPARE ALL;",
            "DEALLOCATE /**/ s",
            "DEALLOCATE \"a\"\"b\"",
            "discard all",
            "DO $$ BEGIN EXECUTE 'Deallocate s'; END $$",
        ] {
            assert_eq!(forgets(sql.as_bytes()), Some(Forgets::All), "{sql}");
        }
        assert_eq!(forgets(b"DEALLOCATE caf\xe9"), Some(Forgets::All), "in another encoding");
        assert_eq!(forgets(b"SELECT d, disc, dealloc FROM t"), None);
    }
}
