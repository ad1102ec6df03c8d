//! How a session's events are written into their lines: members in order, sealed blobs by where they are and what they hash to.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exeat_policy::Principal;
use ring::digest::SHA256_OUTPUT_LEN;

use super::event::{Decision, MaskedColumn, Outcome, Parameter, PolicyRef, Protocol, Statement, TokenRef};
use super::json::{self, Object};
use super::tail::{Appended, Entry, Hole, position, wide};
use super::texts::SealedText;
use crate::hex;

/// Groups in the envelope of every line; a principal of hundreds has the whole list sealed at its start.
const GROUPS_BYTES_MAX: usize = 2048;

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

impl Stored {
    /// The same blob once its entry is in the file.
    pub(super) fn appended(self, appended: Appended) -> Self {
        match self.place {
            Place::File { .. } => self,
            Place::Entry { relative } => Self {
                place: Place::File { segment: appended.blob_segment, offset: appended.blob_offset + relative },
                ..self
            },
        }
    }
}

pub(super) struct Blobs {
    pub(super) text: SealedText,
    pub(super) parameters: Option<Stored>,
    /// Set when the lists do not fit the line.
    pub(super) lists: Option<Stored>,
}

pub(super) fn render_statement(entry: &mut Entry, statement: &Statement<'_>, blobs: &Blobs) {
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
            if lists && !statement.touched.is_empty() {
                body.texts("touched", statement.touched.iter().map(String::as_str));
            }
        });
    });
}

pub(super) fn render_lists(statement: &Statement<'_>) -> Vec<u8> {
    let mut plain = Vec::new();
    json::object(&mut plain, |lists| {
        lists.texts("columns", statement.columns.iter().map(String::as_str));
        lists.texts("kinds", statement.kinds.iter().copied());
        masked(lists, statement.masked);
        lists.texts("reasons", statement.reasons.iter().map(String::as_str));
        lists.texts("relations", statement.relations.iter().map(String::as_str));
        lists.texts("rules", statement.rules.iter().map(String::as_str));
        lists.texts("touched", statement.touched.iter().map(String::as_str));
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
pub(super) fn render_parameters(parameters: &[Parameter<'_>]) -> Vec<u8> {
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

/// Where in it the member goes that names what the client got.
pub(super) fn render_outcome(head: &mut Vec<u8>, outcome: &Outcome<'_>) -> usize {
    let mut at = 0;
    json::object(head, |line| {
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
            at = body.len();
            body.optional("sqlstate", outcome.sqlstate);
            body.optional("tag", outcome.tag);
        });
    });
    at
}

pub(super) fn write_blob(object: &mut Object<'_>, key: &'static str, stored: &Stored, holes: &mut Vec<Hole>) {
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
