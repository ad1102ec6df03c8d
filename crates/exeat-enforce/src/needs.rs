//! What a statement asks of policy: the capabilities it needs, on which relations.

use std::collections::BTreeSet;

use exeat_policy::{Access, AccessRequest, Capability, Policy, Preset, RelationName};
use exeat_sql::{
    Definition, Lineage, NewRelation, Oid, Relation, SessionCommand, StatementKind, TransactionCommand, Write, Writing,
};

use crate::evaluate::{SessionFacts, relation_name};
use crate::named;
use crate::settings;
use crate::shape::is_labelled;

/// What a statement asks of policy.
#[derive(Default)]
pub(crate) struct Needs {
    pub(crate) accesses: Vec<Access>,
    pub(crate) presets: Vec<Preset>,
}

pub(crate) fn request<'a>(facts: &'a SessionFacts, kind: &StatementKind, needs: &Needs) -> AccessRequest<'a> {
    let mut accesses = needs.accesses.clone();
    if accesses.is_empty() && needs.presets.is_empty() {
        accesses.push(Access { capability: capability(kind), relation: None });
    }
    AccessRequest { principal: &facts.principal, target: &facts.target, accesses, presets: needs.presets.clone() }
}

/// The capability a statement of this kind needs where it names no relation we know.
pub(crate) fn capability(kind: &StatementKind) -> Capability {
    match named::acts_as(kind) {
        StatementKind::Select
        | StatementKind::Session(_)
        | StatementKind::Explain(_)
        | StatementKind::SqlPrepare { .. }
        | StatementKind::Cursor(_) => Capability::Read,
        StatementKind::Insert => Capability::Insert,
        StatementKind::Update => Capability::Update,
        StatementKind::Delete => Capability::Delete,
        StatementKind::Merge => Capability::Merge,
        StatementKind::Ddl => Capability::Ddl,
        StatementKind::Call => Capability::Call,
        StatementKind::Code => Capability::Code,
        StatementKind::CopyOut => Capability::Read,
        StatementKind::CopyIn => Capability::CopyIn,
        StatementKind::CopyFile => Capability::Files,
        StatementKind::Admin => Capability::Admin,
        // Beside `opaque` where it is not analysed.
        StatementKind::Utility { name: "TRUNCATE" } => Capability::Delete,
        StatementKind::Utility { name: "LOCK" } => Capability::Update,
        StatementKind::Utility { name: "VACUUM or ANALYZE" } => Capability::Ddl,
        StatementKind::SqlExecute { .. } | StatementKind::Utility { .. } => Capability::Opaque,
    }
}

pub(crate) fn needs_of(facts: &SessionFacts, policy: &Policy, kind: &StatementKind, lineage: &Lineage) -> Needs {
    let mut needs = Needs::default();
    if facts.administrator && settings::shows_hidden(&lineage.shown) {
        needs.accesses.push(Access { capability: Capability::Admin, relation: None });
    }
    if let StatementKind::Session(command) = kind {
        match command {
            // A prepared transaction belongs to the role, which other principals share.
            SessionCommand::Transaction(TransactionCommand::Prepare | TransactionCommand::TwoPhase) => {
                needs.accesses.push(Access { capability: Capability::Admin, relation: None });
            }
            _ => needs.presets.push(Preset::Session),
        }
        return needs;
    }
    let kind = named::acts_as(kind);
    let is_metadata = |oid: &Oid| facts.snapshot.relation(*oid).is_some_and(Relation::is_metadata);
    let mut ask = |capability, oid: &Oid| {
        if is_metadata(oid) && capability == Capability::Read {
            needs.presets.push(Preset::Metadata);
        } else {
            needs.accesses.push(Access { capability, relation: relation_name(&facts.snapshot, *oid) });
        }
    };
    for oid in &lineage.reads {
        ask(Capability::Read, oid);
        if lineage.locks_rows {
            ask(Capability::Update, oid);
        }
    }
    // What stands behind a view is no name of the statement's: the view is what needs to be allowed.
    for writing in lineage.writing.iter().filter(|writing| writing.through.is_none()) {
        ask(written_by(kind, *writing), &writing.relation);
    }
    let told: BTreeSet<Oid> = lineage.writing.iter().map(|writing| writing.relation).collect();
    for oid in lineage.writes.difference(&told) {
        ask(capability(kind), oid);
    }
    if *kind == StatementKind::CopyFile {
        needs.accesses.push(Access { capability: Capability::Files, relation: None });
    }
    if lineage.large_objects || lineage.server_files {
        needs.accesses.push(Access { capability: Capability::Reader, relation: None });
    }
    if lineage.metadata_only {
        needs.presets.push(Preset::Metadata);
    }
    if let Some(definition) = &lineage.defines {
        needs.accesses.extend(defined(facts, policy, kind, definition));
    }
    needs.presets.dedup();
    needs
}

/// What a definition works on; where it names no relation, the capability alone.
fn defined(facts: &SessionFacts, policy: &Policy, kind: &StatementKind, definition: &Definition) -> Vec<Access> {
    let capability = capability(kind);
    let mut accesses = Vec::new();
    for oid in &definition.alters {
        let relation = relation_name(&facts.snapshot, *oid);
        if is_labelled(facts, policy, *oid) || facts.seals.tells(*oid) {
            accesses.push(Access { capability: Capability::DdlLabelled, relation: relation.clone() });
        }
        accesses.push(Access { capability, relation });
    }
    let made = definition.makes.iter().map(|made| Access { capability, relation: Some(new_name(facts, made)) });
    accesses.extend(made);
    if accesses.is_empty() {
        accesses.push(Access { capability, relation: None });
    }
    accesses
}

fn new_name(facts: &SessionFacts, made: &NewRelation) -> RelationName {
    let schema = made.schema.and_then(|schema| facts.snapshot.schema_name(schema)).unwrap_or("pg_temp");
    RelationName { schema: schema.to_owned(), name: made.name.clone() }
}

fn written_by(kind: &StatementKind, writing: Writing) -> Capability {
    match (kind, writing.write) {
        (StatementKind::CopyIn | StatementKind::CopyFile, _) => Capability::CopyIn,
        _ if writing.by_merge => Capability::Merge,
        (_, Write::Insert) => Capability::Insert,
        (_, Write::Update) => Capability::Update,
        (_, Write::Delete) => Capability::Delete,
    }
}
