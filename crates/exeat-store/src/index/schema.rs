//! The tables of the index. Made whole or not at all: an index of another version is thrown away and made anew, for
//! nothing stands in it that the log does not say.
//!
//! What repeats from statement to statement stands once: names (`name`), and everything a decision says about a statement
//! (`shape`, with its `fact`s and what was `masked`). `used` says which sessions had a shape, a text, an error or an
//! approval, once each: a search reads that first, and statements only of the sessions it leaves.

/// Moves with every change of what stands below or of how it is filled.
pub(super) const VERSION: i64 = 4;

/// In the file's header: whose it is. `EXIX`.
pub(super) const APPLICATION: i64 = 0x4558_4958;

pub(super) const TABLES: &[&str] = &[
    // One row: how far the log is read. `line`: SHA-256 of the last line, in hex; it stands at `line_at` of the segment.
    // `first`: the record that the log began with.
    "CREATE TABLE cursor (version INTEGER NOT NULL, next_seq INTEGER NOT NULL, segment INTEGER NOT NULL,
        offset INTEGER NOT NULL, line_at INTEGER NOT NULL, line TEXT NOT NULL,
        first INTEGER NOT NULL)",
    "CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
    // `raw`: as lines have it.
    "CREATE TABLE principal (id INTEGER PRIMARY KEY, raw TEXT NOT NULL UNIQUE, iss TEXT NOT NULL, sub TEXT NOT NULL,
        actor TEXT NOT NULL)",
    "CREATE TABLE member (principal INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (principal, name)) WITHOUT ROWID",
    // `slot`: of its wrapped data key. Times in microseconds since 1970. `ended`: why, '' while it goes on.
    "CREATE TABLE session (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, principal INTEGER, target TEXT NOT NULL,
        database TEXT NOT NULL, login TEXT NOT NULL, application TEXT NOT NULL, source TEXT NOT NULL, slot INTEGER,
        first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
        statements INTEGER NOT NULL, refused INTEGER NOT NULL, failed INTEGER NOT NULL, rows INTEGER NOT NULL,
        ended TEXT NOT NULL, erased INTEGER NOT NULL)",
    "CREATE INDEX session_slot ON session (slot)",
    // `key`: SHA-256 of what makes it one shape. `sealed`: where the lists are that did not fit the line and have not
    // been read; `origin`: the session whose they are, read or not.
    "CREATE TABLE shape (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, decision TEXT NOT NULL, code TEXT NOT NULL,
        sealed TEXT, origin INTEGER)",
    "CREATE INDEX shape_origin ON shape (origin) WHERE origin IS NOT NULL",
    "CREATE TABLE fact (kind INTEGER NOT NULL, name INTEGER NOT NULL, shape INTEGER NOT NULL,
        PRIMARY KEY (kind, name, shape)) WITHOUT ROWID",
    "CREATE TABLE masked (shape INTEGER NOT NULL, place INTEGER NOT NULL, column_name TEXT NOT NULL,
        relation TEXT NOT NULL, label TEXT NOT NULL, mask TEXT NOT NULL, PRIMARY KEY (shape, place)) WITHOUT ROWID",
    // `sealed`: where it is, and its encoding where it is not UTF-8, until its words are in the index.
    "CREATE TABLE text (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, session INTEGER NOT NULL, sealed TEXT)",
    "CREATE INDEX text_sealed ON text (id) WHERE sealed IS NOT NULL",
    "CREATE TABLE statement (session INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, shape INTEGER NOT NULL,
        text INTEGER NOT NULL, result INTEGER NOT NULL, sqlstate INTEGER NOT NULL, rows INTEGER NOT NULL,
        micros INTEGER NOT NULL, PRIMARY KEY (session, seq)) WITHOUT ROWID",
    "CREATE TABLE used (kind INTEGER NOT NULL, value INTEGER NOT NULL, session INTEGER NOT NULL,
        PRIMARY KEY (kind, value, session)) WITHOUT ROWID",
    // Where lines of a session are: the first in each block of the log.
    "CREATE TABLE place (session INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
        PRIMARY KEY (session, segment, offset)) WITHOUT ROWID",
    // Statements whose last outcome is not there yet, and each session's last that has it.
    "CREATE TABLE open (session INTEGER NOT NULL, seq INTEGER NOT NULL, request TEXT NOT NULL, closed INTEGER NOT NULL,
        PRIMARY KEY (session, seq)) WITHOUT ROWID",
    // Lines outside sessions: decisions about approvals, and policies.
    "CREATE TABLE approval_line (approval TEXT NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
        PRIMARY KEY (approval, segment, offset)) WITHOUT ROWID",
    "CREATE TABLE policy (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, version INTEGER NOT NULL, sha256 TEXT NOT NULL,
        accepted INTEGER NOT NULL)",
    // Keyed hashes of words, and nothing of the text: neither SQLite nor a thief of the file can say it back.
    "CREATE VIRTUAL TABLE words USING fts5(text, content='', contentless_delete=1, tokenize='ascii')",
];

/// Kinds of `fact`.
pub(super) mod fact {
    pub(in crate::index) const RELATION: i64 = 1;
    pub(in crate::index) const COLUMN: i64 = 2;
    pub(in crate::index) const RULE: i64 = 3;
    pub(in crate::index) const KIND: i64 = 4;
    /// A column that is written or asked about, and not read.
    pub(in crate::index) const TOUCHED: i64 = 5;
}

/// Kinds of `used`.
pub(super) mod used {
    pub(in crate::index) const SHAPE: i64 = 1;
    pub(in crate::index) const TEXT: i64 = 2;
    pub(in crate::index) const SQLSTATE: i64 = 3;
    pub(in crate::index) const APPROVAL: i64 = 4;
    /// The shape of a statement that was let through and refused while it ran.
    pub(in crate::index) const REFUSED_AFTER: i64 = 5;
}

/// How a statement ended, as a number; its place in the list.
pub(super) const RESULTS: [&str; 10] =
    ["", "parsed", "ok", "suspended", "skipped", "error", "cancelled", "rolled_back", "refused", "outcome_unknown"];

pub(super) fn result_number(name: &str) -> i64 {
    RESULTS.iter().position(|known| *known == name).and_then(|at| i64::try_from(at).ok()).unwrap_or(0)
}
