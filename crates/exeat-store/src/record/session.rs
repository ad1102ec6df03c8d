//! One session's part of the record: its data key, its envelope rendered once, and the receipts that its statements
//! need before they may leave the gateway. One task owns it; buffers are reused from event to event.

use std::collections::VecDeque;
use std::sync::Arc;

use exeat_policy::PrincipalKind;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::Shared;
use super::erasure::Runs;
use super::event::{Decision, Outcome, PolicyRef, SessionStart, Statement};
use super::json;
use super::render::{
    Blobs, Place, Stored, policy_members, render_lists, render_outcome, render_parameters, render_principal,
    render_statement, token, write_blob,
};
use super::sent::Sent;
use super::tail::{Appended, Entry, LINE_BYTES_MAX, wide};
use super::texts::{SealedText, SealedTexts, TextDigest};
use crate::hex;
use crate::keys::DataKey;
use crate::{StoreError, read};

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
pub struct OutcomeReceipt(());

/// Proof that everything a session appended is in the file, or on the disk where the configuration asks for that.
/// Whoever writes to a socket asks for it: bytes go out only after what they stand for.
#[derive(Debug)]
#[must_use = "what is committed may be sent"]
pub struct Committed {
    sent: u64,
}

impl Committed {
    /// How much of what goes to the client is on record, in bytes since its login.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

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
    /// The entry is an outcome that waits for what the client gets with it: where in its head that goes.
    held: Option<usize>,
    /// Where a blob is made before it is sealed.
    frame: Vec<u8>,
    /// Bytes for the client that are on record.
    sent: u64,
    /// Every event of this session is before this `seq`.
    upto: u64,
    ended: bool,
    _runs: Runs,
}

/// What the envelope was rendered from.
#[derive(Debug, Default)]
struct KnownPolicy {
    version: u64,
    sha256: String,
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
            held: None,
            frame: Vec::new(),
            sent: 0,
            upto: 0,
            // Until its start is on record there is nothing to end.
            ended: true,
            _runs: shared.running.begin(start.session, &shared.journal)?,
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

    /// How a statement ended, before the client hears of it. It is appended with what the client gets, or before the
    /// session's next event.
    pub fn outcome(&mut self, outcome: &Outcome<'_>) -> Result<OutcomeReceipt, StoreError> {
        // Answers come in the order of the requests: the first is mostly the one.
        let closed = self.open.iter().position(|(request, _)| request == outcome.request_id).filter(|_| outcome.last);
        self.begin("statement.outcome")?;
        self.entry.closes.extend(closed.and_then(|index| self.open.get(index)).map(|(_, seq)| *seq));
        self.held = Some(render_outcome(&mut self.entry.head, outcome));
        self.set_policy(outcome.policy);
        if let Some((request, _)) = closed.and_then(|index| self.open.remove(index)) {
            self.spare = request;
        }
        Ok(OutcomeReceipt(()))
    }

    /// What the client is about to get. After an error it is not on record, and may be given again with what follows it.
    pub fn sent(&mut self, sent: &Sent<'_>) -> Result<(), StoreError> {
        if sent.bytes == 0 {
            return self.settle(None);
        }
        if self.held.is_none() {
            self.begin("session.sent")?;
            // A line of its own, with the same members as an outcome has of it.
            let entry = &mut self.entry.head;
            entry.extend_from_slice(b"{\"body\":{\"bytes\":");
            json::number(entry, sent.bytes);
            entry.extend_from_slice(b",\"rows\":");
            json::number(entry, sent.rows);
            self.held = Some(entry.len());
            entry.extend_from_slice(b"}}");
        }
        let settled = self.settle(Some(sent));
        if settled.is_ok() {
            self.sent = self.sent.saturating_add(sent.bytes);
        }
        settled
    }

    /// Puts everything appended so far, by any session, into the file (`fsync`: onto the disk). Costs next to nothing
    /// where another session's commit has done so. After an error nothing that was appended since the last commit
    /// may be acted on, and no answer released.
    pub fn commit(&mut self) -> Result<Committed, StoreError> {
        self.settle(None)?;
        self.shared.journal.commit(self.upto).map(|()| Committed { sent: self.sent })
    }

    /// The sync of the disk that a commit needs first, if it needs one. It takes milliseconds: an async caller waits
    /// for it elsewhere, and lets other sessions append what the next sync takes with it.
    pub fn sync_due(&self) -> Option<SyncDue> {
        let due = self.shared.journal.is_durable() && !self.is_committed();
        due.then(|| SyncDue { shared: Arc::clone(&self.shared), upto: self.upto })
    }

    /// Whether a commit would have nothing to do.
    pub fn is_committed(&self) -> bool {
        self.held.is_none() && self.shared.journal.is_committed(self.upto)
    }

    /// The session is over; intents that still wait for an outcome have none to come.
    pub fn end(mut self, reason: &str) -> Result<(), StoreError> {
        self.write_end(reason)
    }

    fn write_end(&mut self, reason: &str) -> Result<(), StoreError> {
        self.ended = true;
        self.begin("session.end")?;
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
        self.begin("session.start")?;
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
        self.begin(kind)?;
        self.entry.opens = opens;
        self.entry.forwards = match statement.decision {
            Decision::Allow => true,
            Decision::Refuse => false,
        };
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

    /// An error leaves the event before this one waiting, and begins nothing.
    pub(super) fn begin(&mut self, kind: &'static str) -> Result<(), StoreError> {
        self.settle(None)?;
        self.clear();
        self.entry.holes.clear();
        self.entry.closes.clear();
        self.entry.opens = false;
        self.entry.forwards = false;
        self.entry.kind = kind;
        Ok(())
    }

    /// Appends the event that waits, with what the client gets. After an error it waits on.
    fn settle(&mut self, sent: Option<&Sent<'_>>) -> Result<(), StoreError> {
        let Some(at) = self.held else { return Ok(()) };
        let mut member = 0;
        if let Some(sent) = sent {
            let stored = self.seal(read::BlobKind::Sent, sent.messages)?;
            member = self.insert(at, &stored);
        }
        // The envelope closes the line.
        self.entry.head.pop();
        match self.shared.journal.append(&self.entry) {
            Ok(appended) => {
                self.upto = appended.seq.saturating_add(1);
                self.held = None;
                self.clear();
                Ok(())
            }
            Err(problem) => {
                self.entry.head.drain(at..at + member);
                self.entry.head.push(b'}');
                self.entry.blobs.clear();
                self.entry.holes.clear();
                Err(problem)
            }
        }
    }

    /// Names the blob in the middle of the head; gives how many bytes that took.
    fn insert(&mut self, at: usize, stored: &Stored) -> usize {
        let member = &mut self.frame;
        member.clear();
        json::fragment(member, |body| write_blob(body, read::BlobKind::Sent.as_str(), stored, &mut self.entry.holes));
        for hole in &mut self.entry.holes {
            hole.at += at;
        }
        let bytes = member.len();
        self.entry.head.splice(at..at, member.drain(..));
        bytes
    }

    /// Seals into the entry's blobs, as a frame of its own and under a nonce that no other blob of this key has.
    fn seal(&mut self, kind: read::BlobKind, plain: &[u8]) -> Result<Stored, StoreError> {
        let start = self.entry.blobs.len();
        let counter = self.counter;
        self.counter += 1;
        self.frame.clear();
        self.shared.frames.put(plain, &mut self.frame)?;
        self.key.seal(counter, kind.aad(), &self.frame, &mut self.entry.blobs)?;
        self.frame.shrink_to(BUFFER_BYTES_KEPT);
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
