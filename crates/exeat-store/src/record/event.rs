//! What callers tell the record, event by event. Borrowed: an event is rendered at once and kept nowhere.
//! Texts here stand in clear lines, except where the field says that it is sealed: callers put names, codes and
//! counts into them, never a value, a token or a piece of SQL.

use std::fmt;

use exeat_policy::Principal;

/// The policy in force, as every line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRef<'a> {
    pub version: u64,
    /// Hex.
    pub sha256: &'a str,
}

/// How a token is named in a record: enough to find it at the issuer, nothing to use it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRef<'a> {
    /// `jti`, where the token has one.
    pub id: Option<&'a str>,
    /// The first 8 hex digits of its SHA-256.
    pub sha256_8: &'a str,
}

#[derive(Debug, Clone, Copy)]
pub struct SessionStart<'a> {
    pub session: &'a str,
    pub principal: &'a Principal,
    /// Address and port the client came from.
    pub source: &'a str,
    pub target: &'a str,
    pub database: &'a str,
    /// Database role the gateway logged in as.
    pub login: &'a str,
    /// With `backend_start` it finds the session in the server's own logs.
    pub backend_pid: i32,
    pub backend_start: Option<&'a str>,
    pub application_name: Option<&'a str>,
    pub policy: PolicyRef<'a>,
    /// Protocol version towards the client; `None` without TLS.
    pub tls: Option<&'a str>,
    pub token: Option<TokenRef<'a>>,
    /// The handle it came in with, made from that token.
    pub handle: Option<&'a str>,
}

#[derive(Debug, Clone, Copy)]
pub struct AuthFailure<'a> {
    pub source: &'a str,
    pub target: Option<&'a str>,
    /// Why, as a code: `expired`, `unknown_issuer`, `no_login`...
    pub reason: &'a str,
    /// As the token claims; unverified unless the reason says otherwise.
    pub issuer: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub token: Option<TokenRef<'a>>,
    /// As the client names it, and shaped like one; there may be no such handle.
    pub handle: Option<&'a str>,
    pub tls: Option<&'a str>,
}

/// A handle was made or taken back by its principal.
#[derive(Debug, Clone, Copy)]
pub struct HandleChange<'a> {
    pub what: HandleEvent<'a>,
    pub handle: &'a str,
    pub principal: &'a Principal,
    /// Address and port the request came from.
    pub source: &'a str,
    pub target: &'a str,
    /// What the request was made with.
    pub token: TokenRef<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleEvent<'a> {
    Issued {
        /// RFC 3339.
        expires: &'a str,
        /// The only addresses it may be used from.
        bound_to: Option<&'a str>,
    },
    Revoked,
}

/// Who changed something by hand, and how they came.
#[derive(Debug, Clone, Copy)]
pub struct Requester<'a> {
    pub principal: &'a Principal,
    /// Address and port the request came from.
    pub source: &'a str,
    /// What the request was made with.
    pub token: TokenRef<'a>,
}

/// What is known of a database has changed.
#[derive(Debug, Clone, Copy)]
pub struct BaselineChange<'a> {
    pub what: BaselineEvent,
    pub target: &'a str,
    pub database: &'a str,
    /// In the baseline now; 0 where it did not change.
    pub relations: usize,
    /// Now; of `Bound` only those that are new.
    pub bindings: usize,
    /// Definitions of what is trusted, accepted with it.
    pub definitions: usize,
    /// `None`: the first session there, or a label that is new in the policy.
    pub by: Option<Requester<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaselineEvent {
    Taken,
    Bound,
    Accepted,
}

/// Counters were set back. What is `None` was any.
#[derive(Debug, Clone, Copy)]
pub struct LimitReset<'a> {
    pub principal: Option<&'a str>,
    pub target: Option<&'a str>,
    pub label: Option<&'a str>,
    pub by: Requester<'a>,
}

/// A statement was refused because an allowance was used up.
#[derive(Debug, Clone, Copy)]
pub struct LimitReached<'a> {
    pub request_id: &'a str,
    /// `probes`, `rows`...
    pub kind: &'a str,
    pub label: Option<&'a str>,
    pub relation: Option<&'a str>,
    pub used: u64,
    pub limit: u64,
    /// In RFC 3339; `None`: never, for one row alone is more.
    pub resets_at: Option<&'a str>,
    pub policy: PolicyRef<'a>,
}

/// What became of a statement that a rule holds, as its session sees it.
#[derive(Debug, Clone, Copy)]
pub struct HeldChange<'a> {
    pub what: HeldEvent,
    /// The request for approval.
    pub approval: &'a str,
    pub request_id: &'a str,
    pub rules: &'a [&'a str],
    pub policy: PolicyRef<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldEvent {
    Requested,
    /// One use of it, by this statement.
    Consumed,
    /// The asker waits no more: it has left, or cancelled.
    Withdrawn,
}

/// A message of the server that the client got in other words, or not at all.
#[derive(Clone, Copy)]
pub struct Withheld<'a> {
    /// `None` for what belongs to no request.
    pub request_id: Option<&'a str>,
    pub kind: WithheldKind,
    /// Sealed for the auditors: the gateway cannot read it again.
    pub sealed: &'a [u8],
    pub policy: PolicyRef<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithheldKind {
    Error,
    Notice,
}

impl fmt::Debug for Withheld<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withheld")
            .field("request_id", &self.request_id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    Extended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Refuse,
}

/// A parameter of a Bind; its value is sealed, and `Debug` shows its size only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    pub value: Option<&'a [u8]>,
    pub binary: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskedColumn<'a> {
    pub column: &'a str,
    pub label: &'a str,
    pub mask: &'a str,
}

impl fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameter").field("bytes", &self.value.map(<[u8]>::len)).field("binary", &self.binary).finish()
    }
}

/// One simple Query with all its statements, one Parse, or one Bind. `Debug` leaves its text and values out.
#[derive(Clone, Copy)]
pub struct Statement<'a> {
    pub request_id: &'a str,
    pub protocol: Protocol,
    /// Prepared statement's name, where the client gave one.
    pub name: Option<&'a str>,
    /// Portal's name, where the client gave one.
    pub portal: Option<&'a str>,
    /// Sealed, byte for byte as it came.
    pub sql: &'a [u8],
    /// The client's encoding, where it is another than UTF-8.
    pub encoding: Option<&'a str>,
    /// Sealed.
    pub parameters: &'a [Parameter<'a>],
    pub fingerprint: Option<&'a str>,
    pub kinds: &'a [&'a str],
    pub relations: &'a [String],
    /// Read.
    pub columns: &'a [String],
    /// Written, or asked about, and not read.
    pub touched: &'a [String],
    pub masked: &'a [MaskedColumn<'a>],
    pub decision: Decision,
    /// Code of the refusal.
    pub code: Option<&'a str>,
    pub rules: &'a [String],
    pub reasons: &'a [String],
    pub policy: PolicyRef<'a>,
}

impl<'a> Statement<'a> {
    /// A statement about which nothing is known but its text; the rest is filled in by struct update.
    pub fn new(
        request_id: &'a str,
        sql: &'a (impl AsRef<[u8]> + ?Sized),
        decision: Decision,
        policy: PolicyRef<'a>,
    ) -> Self {
        Self {
            request_id,
            protocol: Protocol::Simple,
            name: None,
            portal: None,
            sql: sql.as_ref(),
            encoding: None,
            parameters: &[],
            fingerprint: None,
            kinds: &[],
            relations: &[],
            columns: &[],
            touched: &[],
            masked: &[],
            decision,
            code: None,
            rules: &[],
            reasons: &[],
            policy,
        }
    }
}

impl fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("request_id", &self.request_id)
            .field("sql_bytes", &self.sql.len())
            .field("parameters", &self.parameters)
            .field("decision", &self.decision)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeResult {
    Ok,
    Error,
    Cancelled,
    /// The portal stopped at its row limit and may go on.
    Suspended,
    /// The server skipped it after an error before it.
    Skipped,
    /// It ran, and what it did was taken back: the transaction of its batch failed at its end.
    RolledBack,
    Refused,
    /// Nobody saw how it ended.
    OutcomeUnknown,
}

impl OutcomeResult {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Suspended => "suspended",
            Self::Skipped => "skipped",
            Self::RolledBack => "rolled_back",
            Self::Refused => "refused",
            Self::OutcomeUnknown => "outcome_unknown",
        }
    }
}

/// How one statement of a Query, or one Execute, ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    pub request_id: &'a str,
    /// Which statement of the request, from 0.
    pub index: u32,
    pub result: OutcomeResult,
    /// No other outcome of this request is due: a crash after this leaves nothing open.
    pub last: bool,
    /// The first request of the implicit transaction that ends with this outcome, where it began before this
    /// request: what the session's outcomes since then have said shares this end.
    pub batch_from: Option<&'a str>,
    /// The command tag, as PostgreSQL words it.
    pub tag: Option<&'a str>,
    pub sqlstate: Option<&'a str>,
    /// Released to the client; of a COPY from it, taken.
    pub rows: u64,
    pub bytes: u64,
    pub cells_masked: u64,
    pub duration_us: u64,
    /// The policy the outcome was released under.
    pub policy: PolicyRef<'a>,
}

#[derive(Debug, Clone, Copy)]
pub struct PolicyChange<'a> {
    /// The policy now in force.
    pub policy: PolicyRef<'a>,
    pub previous: Option<PolicyRef<'a>>,
    /// File or folder it came from.
    pub path: &'a str,
    /// False: the new files did not load, and the policy stays.
    pub accepted: bool,
    /// First diagnostic of files that did not load.
    pub problem: Option<&'a str>,
}

#[derive(Debug, Clone, Copy)]
pub struct ConfigChange<'a> {
    pub path: &'a str,
    /// Of the file now in force, hex.
    pub sha256: &'a str,
    /// What changed, in a few words: `started`, `reloaded`.
    pub what: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_text_nor_values() {
        let parameters = [Parameter { value: Some(b"hunter2"), binary: false }];
        let policy = PolicyRef { version: 1, sha256: "00" };
        let statement = Statement {
            parameters: &parameters,
            ..Statement::new("req_1", "select 'hunter2'", Decision::Allow, policy)
        };
        let shown = format!("{statement:?}");
        assert!(shown.contains("req_1") && shown.contains("Some(7)"), "{shown}");
        for form in ["hunter2", "104, 117"] {
            assert!(!shown.contains(form), "{shown}");
        }
    }
}
