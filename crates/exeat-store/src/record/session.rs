//! One session's part of the record: its data key, its envelope rendered once, and the receipts that its statements
//! need before they may leave the gateway. One task owns it; buffers are reused from event to event.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exeat_policy::{Principal, PrincipalKind};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::Shared;
use super::event::{
    Decision, MaskedColumn, Outcome, Parameter, PolicyRef, Protocol, SessionStart, Statement, TokenRef,
};
use super::json::{self, Object};
use super::tail::{Appended, Entry, Hole, LINE_BYTES_MAX, position, wide};
use super::texts::{SealedText, SealedTexts, TextDigest};
use crate::hex;
use crate::keys::DataKey;
use crate::{StoreError, read};

/// Groups in the envelope of every line; a principal of hundreds has the whole list sealed at its start.
const GROUPS_BYTES_MAX: usize = 2048;

/// Intents of one session that wait for their last outcome. A client that binds portals and never runs them cannot
/// make the gateway remember more; the oldest is then no longer waited for.
pub const OPEN_INTENTS_MAX: usize = 4096;

/// Buffer kept from event to event; what a rare large statement needed is given back.
const BUFFER_BYTES_KEPT: usize = 16 * 1024;

/// Proof that a statement's intent is on record. Not `Clone`: one intent, one send.
#[derive(Debug)]
#[must_use = "an intent is recorded in order to act on it"]
pub struct RecordReceipt {
    seq: u64,
}

impl RecordReceipt {
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// Proof that an outcome is on record. Not `Clone`: one outcome, one completion message.
#[derive(Debug)]
#[must_use = "an outcome is recorded in order to answer the client"]
pub struct OutcomeReceipt {
    seq: u64,
}

impl OutcomeReceipt {
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// Proof that everything a session appended is in the file, or on the disk where the configuration asks for that.
/// Whoever writes to a socket asks for it: bytes go out only after what they stand for.
#[derive(Debug)]
#[must_use = "what is committed may be sent"]
pub struct Committed(());

/// A sync of the disk that a session waits for, on a thread that may block.
#[derive(Debug)]
#[must_use = "nothing is synced before it is waited for"]
pub struct SyncDue {
    shared: Arc<Shared>,
    upto: u64,
}

impl SyncDue {
    pub fn wait(self) -> Result<(), StoreError> {
        self.shared.journal.commit(self.upto)
    }
}

/// The record of one session. Dropped without `end`, it writes `session.end` itself, as well as it can.
#[derive(Debug)]
pub struct SessionRecord {
    shared: Arc<Shared>,
    session: String,
    key: DataKey,
    /// Nonce of the next blob.
    counter: u64,
    policy: KnownPolicy,
    /// `,"principal":{…}`
    principal: Vec<u8>,
    pub(super) entry: Entry,
    sealed: SealedTexts,
    /// Intents whose last outcome is still due, oldest first.
    open: VecDeque<(String, u64)>,
    /// The buffer of a request that is closed, for the next one's name.
    spare: String,
    /// Every event of this session is before this `seq`.
    upto: u64,
    ended: bool,
}

/// What the envelope was rendered from.
#[derive(Debug, Default)]
struct KnownPolicy {
    version: u64,
    sha256: String,
}

/// A sealed blob, in the file or in the entry that brings it there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) place: Place,
    pub(super) bytes: u64,
    pub(super) sha256: [u8; SHA256_OUTPUT_LEN],
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    File {
        segment: u64,
        offset: u64,
    },
    /// From the start of `Entry::blobs`.
    Entry {
        relative: u64,
    },
}

impl SessionRecord {
    pub(super) fn start(shared: Arc<Shared>, start: &SessionStart<'_>) -> Result<Self, StoreError> {
        let (key, wrapped) = shared.keys.new_data_key(start.session)?;
        let slot = shared.journal.append_key(&wrapped)?;
        let (principal, groups_cut) = render_principal(start.principal);
        let mut record = Self {
            session: start.session.to_owned(),
            key,
            counter: 0,
            policy: KnownPolicy::default(),
            principal,
            entry: Entry::default(),
            sealed: SealedTexts::default(),
            open: VecDeque::new(),
            spare: String::new(),
            upto: 0,
            // Until its start is on record there is nothing to end.
            ended: true,
            shared,
        };
        json::fragment(&mut record.entry.middle, |line| {
            // A fragment's comma stands in front: the first key must not look like the first of an object.
            line.text("session", start.session);
            line.text("source", start.source);
            line.text("target", start.target);
        });
        record.write_start(start, slot, &wrapped, groups_cut)?;
        record.ended = false;
        Ok(record)
    }

    /// A Parse that goes upstream: it can fold constants, and raise.
    pub fn parse(&mut self, statement: &Statement<'_>) -> Result<RecordReceipt, StoreError> {
        self.write_statement("statement.parse", statement, false)
    }

    /// A Query or a Bind, before it goes upstream or is refused.
    pub fn intent(&mut self, statement: &Statement<'_>) -> Result<RecordReceipt, StoreError> {
        let opens = match statement.decision {
            Decision::Allow => true,
            Decision::Refuse => false,
        };
        let receipt = self.write_statement("statement.intent", statement, opens)?;
        if opens {
            if self.open.len() >= OPEN_INTENTS_MAX {
                self.open.pop_front();
            }
            let mut request = std::mem::take(&mut self.spare);
            request.clear();
            request.push_str(statement.request_id);
            self.open.push_back((request, receipt.seq));
        }
        Ok(receipt)
    }

    /// How a statement ended, before the client hears of it.
    pub fn outcome(&mut self, outcome: &Outcome<'_>) -> Result<OutcomeReceipt, StoreError> {
        // Answers come in the order of the requests: the first is mostly the one.
        let closed = self.open.iter().position(|(request, _)| request == outcome.request_id).filter(|_| outcome.last);
        self.begin("statement.outcome");
        self.entry.closes.extend(closed.and_then(|index| self.open.get(index)).map(|(_, seq)| *seq));
        json::object(&mut self.entry.head, |line| {
            line.object("body", |body| {
                body.optional("batch_from", outcome.batch_from);
                body.number("bytes", outcome.bytes);
                body.number("cells_masked", outcome.cells_masked);
                body.number("duration_us", outcome.duration_us);
                body.number("index", outcome.index);
                body.boolean("last", outcome.last);
                body.text("request_id", outcome.request_id);
                body.text("result", outcome.result.as_str());
                body.number("rows", outcome.rows);
                body.optional("sqlstate", outcome.sqlstate);
                body.optional("tag", outcome.tag);
            });
        });
        let appended = self.finish(Some(outcome.policy))?;
        if let Some((request, _)) = closed.and_then(|index| self.open.remove(index)) {
            self.spare = request;
        }
        Ok(OutcomeReceipt { seq: appended.seq })
    }

    /// Puts everything appended so far, by any session, into the file (`fsync`: onto the disk). Costs next to nothing
    /// where another session's commit has done so. After an error nothing that was appended since the last commit
    /// may be acted on, and no answer released.
    pub fn commit(&self) -> Result<Committed, StoreError> {
        self.shared.journal.commit(self.upto).map(|()| Committed(()))
    }

    /// The sync of the disk that a commit needs first, if it needs one. It takes milliseconds: an async caller waits
    /// for it elsewhere, and lets other sessions append what the next sync takes with it.
    pub fn sync_due(&self) -> Option<SyncDue> {
        let due = self.shared.journal.is_durable() && !self.is_committed();
        due.then(|| SyncDue { shared: Arc::clone(&self.shared), upto: self.upto })
    }

    /// Whether a commit would have nothing to do.
    pub fn is_committed(&self) -> bool {
        self.shared.journal.is_committed(self.upto)
    }

    /// The session is over; intents that still wait for an outcome have none to come.
    pub fn end(mut self, reason: &str) -> Result<(), StoreError> {
        self.write_end(reason)
    }

    fn write_end(&mut self, reason: &str) -> Result<(), StoreError> {
        self.ended = true;
        self.begin("session.end");
        self.entry.closes.extend(self.open.iter().map(|(_, seq)| *seq));
        let unanswered = self.open.iter().map(|(request, _)| request.as_str()).take(read::LISTED_MAX);
        json::object(&mut self.entry.head, |line| {
            line.object("body", |body| {
                body.text("reason", reason);
                body.texts("unanswered", unanswered);
            });
        });
        self.finish(None)?;
        self.shared.journal.commit(self.upto)
    }

    fn write_start(
        &mut self,
        start: &SessionStart<'_>,
        slot: u64,
        wrapped: &[u8],
        groups_cut: bool,
    ) -> Result<(), StoreError> {
        self.begin("session.start");
        let groups = if groups_cut { Some(self.seal_groups(&start.principal.groups)?) } else { None };
        let holes = &mut self.entry.holes;
        json::object(&mut self.entry.head, |line| {
            line.object("body", |body| {
                body.optional("application_name", start.application_name);
                body.signed("backend_pid", start.backend_pid);
                body.optional("backend_start", start.backend_start);
                body.object("data_key", |key| {
                    key.text("alg", "A256GCM");
                    key.text("sha256", &hex::text(digest(&SHA256, wrapped).as_ref()));
                    key.number("slot", slot);
                });
                body.text("database", start.database);
                body.optional("handle", start.handle);
                if !start.principal.instance.is_empty() {
                    body.object("instance", |instance| {
                        for (key, value) in start.principal.instance.iter().take(read::LISTED_MAX) {
                            instance.named(key, value);
                        }
                    });
                }
                body.text(
                    "kind",
                    match start.principal.kind {
                        PrincipalKind::Human => "human",
                        PrincipalKind::Workload => "workload",
                    },
                );
                if let Some(groups) = &groups {
                    write_blob(body, "lists", groups, holes);
                }
                body.text("login", start.login);
                body.optional("tls", start.tls);
                token(body, start.token);
            });
        });
        self.finish(Some(start.policy))?;
        self.shared.journal.commit(self.upto)
    }

    fn seal_groups(&mut self, groups: &[String]) -> Result<Stored, StoreError> {
        let mut plain = Vec::new();
        json::object(&mut plain, |lists| lists.texts("groups", groups.iter().map(String::as_str)));
        self.seal(read::BlobKind::Lists, &plain)
    }

    fn write_statement(
        &mut self,
        kind: &'static str,
        statement: &Statement<'_>,
        opens: bool,
    ) -> Result<RecordReceipt, StoreError> {
        self.begin(kind);
        self.entry.opens = opens;
        let forgotten = if opens && self.open.len() >= OPEN_INTENTS_MAX { self.open.front() } else { None };
        self.entry.closes.extend(forgotten.map(|(_, seq)| *seq));
        let (text, fresh) = self.seal_text(statement.sql)?;
        let parameters = if statement.parameters.is_empty() {
            None
        } else {
            Some(self.seal(read::BlobKind::Parameters, &render_parameters(statement.parameters))?)
        };
        self.set_policy(statement.policy);
        let mut blobs = Blobs { text, parameters, lists: None };
        render_statement(&mut self.entry, statement, &blobs);
        if self.entry.line_bytes() > LINE_BYTES_MAX {
            blobs.lists = Some(self.seal(read::BlobKind::Lists, &render_lists(statement))?);
            render_statement(&mut self.entry, statement, &blobs);
        }
        let appended = self.finish(Some(statement.policy))?;
        if fresh {
            let stored = text.stored.appended(appended);
            self.sealed.insert(statement.sql, SealedText { stored, ..text });
        }
        Ok(RecordReceipt { seq: appended.seq })
    }

    /// The text as the record names it, and whether this entry brings it there.
    fn seal_text(&mut self, text: &[u8]) -> Result<(SealedText, bool), StoreError> {
        if let Some(known) = self.sealed.find(text) {
            return Ok((known, false));
        }
        let mut digest: TextDigest = [0; SHA256_OUTPUT_LEN];
        digest.iter_mut().zip(self.shared.keys.digest(text).as_ref()).for_each(|(to, from)| *to = *from);
        if let Some(known) = self.sealed.find_long(&digest) {
            return Ok((known, false));
        }
        let stored = self.seal(read::BlobKind::Sql, text)?;
        Ok((SealedText { digest, stored }, true))
    }

    pub(super) fn begin(&mut self, kind: &'static str) {
        self.clear();
        self.entry.holes.clear();
        self.entry.closes.clear();
        self.entry.opens = false;
        self.entry.kind = kind;
    }

    /// Seals into the entry's blobs, under a nonce that no other blob of this key has.
    fn seal(&mut self, kind: read::BlobKind, plain: &[u8]) -> Result<Stored, StoreError> {
        let start = self.entry.blobs.len();
        let counter = self.counter;
        self.counter += 1;
        self.key.seal(counter, kind.aad(), plain, &mut self.entry.blobs)?;
        let sealed = self.entry.blobs.get(start..).unwrap_or_default();
        let mut sha256 = [0; SHA256_OUTPUT_LEN];
        sha256.iter_mut().zip(digest(&SHA256, sealed).as_ref()).for_each(|(to, from)| *to = *from);
        Ok(Stored { place: Place::Entry { relative: wide(start) }, bytes: wide(sealed.len()), sha256 })
    }

    /// Adds the envelope and writes. `policy` is the one in force; without one, the one last named.
    pub(super) fn finish(&mut self, policy: Option<PolicyRef<'_>>) -> Result<Appended, StoreError> {
        if let Some(policy) = policy {
            self.set_policy(policy);
        }
        self.entry.head.pop();
        let appended = self.shared.journal.append(&self.entry);
        self.clear();
        let appended = appended?;
        self.upto = appended.seq.saturating_add(1);
        Ok(appended)
    }

    /// At once: a session may be idle for hours after a large statement.
    fn clear(&mut self) {
        for buffer in [&mut self.entry.head, &mut self.entry.blobs] {
            buffer.clear();
            buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    fn set_policy(&mut self, policy: PolicyRef<'_>) {
        let known = &mut self.policy;
        let envelope = &mut self.entry.envelope;
        if known.version == policy.version && known.sha256 == policy.sha256 && !envelope.is_empty() {
            return;
        }
        known.version = policy.version;
        policy.sha256.clone_into(&mut known.sha256);
        envelope.clear();
        json::fragment(envelope, |line| {
            line.text("gateway", &self.shared.gateway);
            line.object("policy", |object| policy_members(object, policy));
        });
        envelope.extend_from_slice(&self.principal);
    }

    pub fn session(&self) -> &str {
        &self.session
    }
}

impl Drop for SessionRecord {
    fn drop(&mut self) {
        if !self.ended {
            // A task that died cannot be told; the next write of the record shows whether the store is broken.
            let _ = self.write_end("abandoned");
        }
    }
}

impl Stored {
    /// The same blob once its entry is in the file.
    fn appended(self, appended: Appended) -> Self {
        match self.place {
            Place::File { .. } => self,
            Place::Entry { relative } => Self {
                place: Place::File { segment: appended.blob_segment, offset: appended.blob_offset + relative },
                ..self
            },
        }
    }
}

struct Blobs {
    text: SealedText,
    parameters: Option<Stored>,
    /// Set when the lists do not fit the line.
    lists: Option<Stored>,
}

fn render_statement(entry: &mut Entry, statement: &Statement<'_>, blobs: &Blobs) {
    entry.head.clear();
    entry.holes.clear();
    let holes = &mut entry.holes;
    let lists = blobs.lists.is_none();
    json::object(&mut entry.head, |line| {
        line.object("body", |body| {
            body.optional("code", statement.code);
            if lists {
                body.texts("columns", statement.columns.iter().map(String::as_str));
            }
            body.text(
                "decision",
                match statement.decision {
                    Decision::Allow => "allow",
                    Decision::Refuse => "refuse",
                },
            );
            push_hex(body.key("digest"), &blobs.text.digest);
            body.optional("encoding", statement.encoding);
            body.optional("fingerprint", statement.fingerprint);
            if lists {
                body.texts("kinds", statement.kinds.iter().copied());
            }
            if let Some(stored) = &blobs.lists {
                write_blob(body, "lists", stored, holes);
            }
            if lists {
                masked(body, statement.masked);
            }
            body.optional("name", statement.name);
            if let Some(stored) = &blobs.parameters {
                write_blob(body, "parameters", stored, holes);
            }
            body.optional("portal", statement.portal);
            body.text(
                "protocol",
                match statement.protocol {
                    Protocol::Simple => "simple",
                    Protocol::Extended => "extended",
                },
            );
            if lists {
                body.texts("reasons", statement.reasons.iter().map(String::as_str));
                body.texts("relations", statement.relations.iter().map(String::as_str));
            }
            body.text("request_id", statement.request_id);
            if lists {
                body.texts("rules", statement.rules.iter().map(String::as_str));
            }
            write_blob(body, "sql", &blobs.text.stored, holes);
        });
    });
}

fn render_lists(statement: &Statement<'_>) -> Vec<u8> {
    let mut plain = Vec::new();
    json::object(&mut plain, |lists| {
        lists.texts("columns", statement.columns.iter().map(String::as_str));
        lists.texts("kinds", statement.kinds.iter().copied());
        masked(lists, statement.masked);
        lists.texts("reasons", statement.reasons.iter().map(String::as_str));
        lists.texts("relations", statement.relations.iter().map(String::as_str));
        lists.texts("rules", statement.rules.iter().map(String::as_str));
    });
    plain
}

fn masked(object: &mut Object<'_>, columns: &[MaskedColumn<'_>]) {
    json::list(object.key("masked"), columns, |out, column| {
        json::object(out, |object| {
            object.text("column", column.column);
            object.text("label", column.label);
            object.text("mask", column.mask);
        });
    });
}

/// A list of what the client bound: text as text, what is binary or not UTF-8 as `{"b64": …}`, NULL as null.
fn render_parameters(parameters: &[Parameter<'_>]) -> Vec<u8> {
    let mut plain = Vec::new();
    json::list(&mut plain, parameters, |out, parameter| {
        let Some(value) = parameter.value else { return out.extend_from_slice(b"null") };
        match std::str::from_utf8(value) {
            Ok(text) if !parameter.binary => json::string(out, text),
            _ => json::object(out, |object| json::string(object.key("b64"), &STANDARD.encode(value))),
        }
    });
    plain
}

fn write_blob(object: &mut Object<'_>, key: &'static str, stored: &Stored, holes: &mut Vec<Hole>) {
    let out = object.key(key);
    out.extend_from_slice(b"{\"bytes\":");
    json::number(out, stored.bytes);
    out.push(b',');
    match stored.place {
        Place::File { segment, offset } => position(out, segment, offset),
        Place::Entry { relative } => holes.push(Hole { at: out.len(), relative }),
    }
    out.extend_from_slice(b",\"sha256\":");
    push_hex(out, &stored.sha256);
    out.push(b'}');
}

fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    hex::push(out, bytes);
    out.push(b'"');
}

pub(super) fn policy_members(object: &mut Object<'_>, policy: PolicyRef<'_>) {
    object.text("sha256", policy.sha256);
    object.number("version", policy.version);
}

pub(super) fn token(body: &mut Object<'_>, token: Option<TokenRef<'_>>) {
    if let Some(token) = token {
        body.object("token", |object| {
            object.optional("id", token.id);
            object.text("sha256_8", token.sha256_8);
        });
    }
}

/// The envelope's principal, and whether groups were left out of it.
pub(super) fn render_principal(principal: &Principal) -> (Vec<u8>, bool) {
    let mut left = GROUPS_BYTES_MAX;
    let fitting = principal.groups.iter().take_while(|group| {
        let room = left.checked_sub(group.len() + 3);
        left = room.unwrap_or(0);
        room.is_some()
    });
    let shown: Vec<&str> = fitting.map(String::as_str).collect();
    let cut = shown.len() < principal.groups.len();
    let mut out = Vec::new();
    json::fragment(&mut out, |line| {
        line.object("principal", |object| {
            object.optional("actor", principal.actor.as_deref());
            object.texts("groups", shown);
            if cut {
                object.number("groups_total", wide(principal.groups.len()));
            }
            object.text("iss", &principal.issuer);
            object.text("sub", &principal.subject);
        });
    });
    (out, cut)
}
