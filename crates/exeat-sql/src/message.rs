//! All statements of one message, in order, against a simulated state: what an earlier one may change about
//! names makes a later one opaque. Turns what the walk found into an [`Analysis`].

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, ParseResult, RawStmt};

use crate::catalog::{CatalogSnapshot, Oid};
use crate::named::{self, Subject};
use crate::position::Positions;
use crate::simulated::Simulated;
use crate::statement;
use crate::walk::select::Target;
use crate::walk::settings::shown;
use crate::walk::view::expand_views;
use crate::walk::{Facts, NOWHERE, Stop, Walk, Walker, construct, copy_layout, given, inner};
use crate::{
    Analysis, ColumnUse, CursorCommand, Lineage, Notification, NotifyText, Opaque, OpaqueReason, Output, ParseFailure,
    Reference, RowContent, Scope, SessionCommand, ShownSettings, StatementAnalysis, StatementKind,
};

/// What a statement of a message is analysed with.
#[derive(Clone, Copy)]
struct Message<'a> {
    snapshot: &'a CatalogSnapshot,
    scope: &'a Scope,
    positions: &'a Positions<'a>,
    /// Taken by the statements so far: the limit holds for all of them together.
    steps: &'a Cell<usize>,
}

impl<'a> Message<'a> {
    /// Walks with what earlier statements left of the message's steps.
    fn walk<T>(&self, walk: impl FnOnce(&mut Walker<'a>) -> Walk<T>) -> Walk<T> {
        let mut walker = Walker::new(self.snapshot, &self.scope.search_path)?;
        walker.hidden = Some(&*self.scope.hidden);
        walker.steps = self.steps.get();
        let outcome = walk(&mut walker);
        self.steps.set(walker.steps);
        outcome
    }
}

pub(crate) struct Analysed {
    pub(crate) statements: Vec<StatementAnalysis>,
    pub(crate) steps: usize,
}

pub(crate) fn analyse(
    sql: &str,
    tree: &ParseResult,
    snapshot: &CatalogSnapshot,
    scope: &Scope,
) -> Result<Analysed, ParseFailure> {
    let (positions, steps) = (Positions::new(sql), Cell::new(0));
    let mut simulated = Simulated::new(snapshot, scope);
    let mut statements = Vec::with_capacity(tree.stmts.len());
    for raw in &tree.stmts {
        let text = own_text(sql, raw);
        let Some(node) = raw.stmt.as_ref().and_then(|node| node.node.as_ref()) else {
            return Err(ParseFailure::NotAnalysed { construct: "an empty syntax node".to_owned() });
        };
        let kind = statement::kind(node);
        let walked = match (&kind, simulated.names_changed_by) {
            (StatementKind::Session(command), _) => Ok(session_lineage(command)),
            // A cursor was resolved when it was declared.
            (StatementKind::Cursor(CursorCommand::Fetch { .. }), _) => Ok(nothing()),
            (_, Some(cause)) => construct(&format!("a statement after {cause} in the same message"), NOWHERE),
            (kind, None) if simulated.path_moved() && matches!(kind.reference(), Some(Reference::Prepared(_))) => {
                construct("EXECUTE after SET search_path in the same message", NOWHERE)
            }
            (_, None) => {
                let moved =
                    simulated.path_moved().then(|| Scope { search_path: simulated.path().to_vec(), ..scope.clone() });
                let scope = moved.as_ref().unwrap_or(scope);
                lineage(node, &kind, &Message { snapshot, scope, positions: &positions, steps: &steps })
            }
        };
        let start = i32::try_from(text.start).unwrap_or(NOWHERE);
        let opaque = |reason, at| {
            let at = positions.character(if at < 0 { start } else { at });
            Analysis::Opaque(Opaque { reason, at })
        };
        let analysis = match walked {
            Ok(lineage) => Analysis::Known(Arc::new(lineage)),
            Err(Stop::TooDeep) => return Err(ParseFailure::TooDeep),
            Err(Stop::Unresolved { name, at }) => Analysis::Unresolved { name, at: positions.character(at) },
            Err(Stop::Opaque { reason, at }) => opaque(reason, at),
            Err(Stop::Named { construct, at }) => opaque(OpaqueReason::Construct { construct }, at),
        };
        simulated.after(&kind, &analysis);
        statements.push(StatementAnalysis { text, kind, analysis });
    }
    Ok(Analysed { statements, steps: steps.get() })
}

/// The bytes of the statement without the white space and separators around it.
fn own_text(sql: &str, raw: &RawStmt) -> std::ops::Range<usize> {
    let start = usize::try_from(raw.stmt_location).unwrap_or(0).min(sql.len());
    let length = usize::try_from(raw.stmt_len).unwrap_or(0);
    let end = if length == 0 { sql.len() } else { start.saturating_add(length).min(sql.len()) };
    let text = sql.get(start..end).unwrap_or("");
    let trimmed = text.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let start = start + (text.len() - trimmed.len());
    let trimmed = trimmed.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == ';');
    start..start + trimmed.len()
}

/// SHOW returns rows: one column, or name, setting and description for all.
fn session_lineage(command: &SessionCommand) -> Lineage {
    let outputs = match command {
        SessionCommand::Show { setting } if setting == "all" => {
            Some(["name", "setting", "description"].map(|name| Output::computed(Some(name))).to_vec())
        }
        SessionCommand::Show { .. } => Some(vec![Output::computed(None)]),
        SessionCommand::Transaction(_)
        | SessionCommand::Set { .. }
        | SessionCommand::Reset { .. }
        | SessionCommand::SetTransaction
        | SessionCommand::SetConstraints
        | SessionCommand::Discard { .. }
        | SessionCommand::Deallocate { .. }
        | SessionCommand::CloseCursor { .. }
        | SessionCommand::Listen { .. }
        | SessionCommand::Unlisten { .. }
        | SessionCommand::Notify { .. } => None,
    };
    let notifies = match command {
        SessionCommand::Notify { channel, payload } => vec![Notification {
            channel: NotifyText::Literal(channel.clone()),
            payload: NotifyText::Literal(payload.clone()),
        }],
        _ => Vec::new(),
    };
    let shown = match command {
        SessionCommand::Show { setting } if setting == "all" => {
            ShownSettings { others: true, ..ShownSettings::default() }
        }
        SessionCommand::Show { setting } => ShownSettings { named: [setting.clone()].into(), others: false },
        _ => ShownSettings::default(),
    };
    Lineage { outputs, notifies, shown, metadata_only: true, ..Lineage::default() }
}

fn lineage(node: &NodeEnum, kind: &StatementKind, message: &Message<'_>) -> Walk<Lineage> {
    let Some(subjects) = named::subjects(node)? else {
        return plain_lineage(node, kind, message);
    };
    let mut found = nothing();
    for subject in subjects {
        found = match subject {
            Subject::Inner(node) => lineage(node, &statement::kind(node), message)?,
            Subject::Parameters(types) => {
                message.walk(|walker| declared_types(types, walker))?;
                nothing()
            }
            // Without FROM it reads nothing, whatever it computes.
            Subject::Values(select) => {
                let select = NodeEnum::SelectStmt(select);
                let values = plain_lineage(&select, &StatementKind::Select, message)?;
                if !values.reads.is_empty() {
                    return construct("a sub-select among the arguments of EXECUTE", NOWHERE);
                }
                // What it does would be lost behind what the prepared statement does.
                if values.changes_settings || !values.notifies.is_empty() || values.large_objects || values.user_code {
                    return construct("a call with an effect among the arguments of EXECUTE", NOWHERE);
                }
                Lineage { outputs: None, ..values }
            }
            Subject::Nothing => nothing(),
        };
    }
    // A cursor reads its functions when it is fetched from, and they may be other ones by then.
    if matches!(kind, StatementKind::Cursor(_)) && !found.functions.is_empty() {
        return construct("a cursor over calls of functions in SQL", NOWHERE);
    }
    Ok(found)
}

/// The server reads a parameter's value with its type's own functions, and a row brings columns of its own.
fn declared_types(types: &[Node], walker: &mut Walker<'_>) -> Walk<()> {
    for declared in types {
        let NodeEnum::TypeName(of) = inner(declared)? else { return construct("a type of this form", NOWHERE) };
        let oid = walker.cast_target(of)?;
        if walker.snapshot.type_holds_rows(oid) {
            return construct("a parameter that holds rows", of.location);
        }
    }
    Ok(())
}

/// Reads and returns nothing.
fn nothing() -> Lineage {
    Lineage { metadata_only: true, ..Lineage::default() }
}

fn plain_lineage(node: &NodeEnum, kind: &StatementKind, message: &Message<'_>) -> Walk<Lineage> {
    message.walk(|walker| walked(node, kind, message, walker))
}

fn walked(node: &NodeEnum, kind: &StatementKind, message: &Message<'_>, walker: &mut Walker<'_>) -> Walk<Lineage> {
    let Message { snapshot, positions, .. } = message;
    walker.outermost = matches!(node, NodeEnum::SelectStmt(select) if select.into_clause.is_none());
    let targets = match node {
        NodeEnum::SelectStmt(select) if select.into_clause.is_none() => Some(walker.select(select)?),
        NodeEnum::InsertStmt(insert) => walker.insert(insert)?,
        NodeEnum::UpdateStmt(update) => walker.update(update)?,
        NodeEnum::DeleteStmt(delete) => walker.delete(delete)?,
        NodeEnum::MergeStmt(merge) => walker.merge(merge)?,
        NodeEnum::CopyStmt(copy) => walker.copy(copy)?,
        NodeEnum::LockStmt(lock) => {
            walker.lock(lock)?;
            None
        }
        _ if walker.definition(node)? => None,
        _ => return construct(statement::name(node, kind), NOWHERE),
    };
    let outputs = targets.map(|targets| outputs(walker, &targets, positions)).transpose()?;
    // What goes to a file or program of the server does not reach the client.
    let outputs = outputs.filter(|_| *kind != StatementKind::CopyFile);
    let mut facts = std::mem::take(&mut walker.facts);
    expand_views(snapshot, &mut facts)?;
    let content = std::mem::take(&mut walker.content).finished();
    walker.spend(facts.reaches.len() + content.weight())?;
    let content = match outputs {
        Some(_) => content.row_content(snapshot, |at| positions.character(at)),
        None => RowContent::default(),
    };
    let lineage = finish(facts, outputs, snapshot, positions)?;
    let copy_layout = match node {
        NodeEnum::CopyStmt(copy) if *kind == StatementKind::CopyOut => copy_layout::layout(&copy.options),
        _ => None,
    };
    Ok(Lineage { copy_layout, content, ..lineage })
}

/// What an output column counts for, and each stored column in it, beside what finding it took. They are kept after the
/// walk: a megabyte of `SELECT *` would otherwise come to hundreds of times its length in memory.
const OUTPUT_STEPS: usize = 50;
const OUTPUT_STEPS_A_FLOW: usize = 10;

/// What reaches the client.
fn outputs(walker: &mut Walker<'_>, targets: &[Target], positions: &Positions<'_>) -> Walk<Vec<Output>> {
    let mut outputs = Vec::with_capacity(targets.len());
    for target in targets {
        walker.projected(target)?;
        walker.spend(OUTPUT_STEPS + OUTPUT_STEPS_A_FLOW * target.value.flows.list().len())?;
        outputs.push(Output { at: positions.character(target.at), ..target.output() });
    }
    Ok(outputs)
}

fn finish(
    mut facts: Facts,
    outputs: Option<Vec<Output>>,
    snapshot: &CatalogSnapshot,
    positions: &Positions<'_>,
) -> Walk<Lineage> {
    given::settle(&mut facts);
    let is_metadata = |oid: &Oid| snapshot.relation(*oid).is_some_and(|relation| relation.is_metadata());
    let behind = facts.reaches.union(&facts.changes);
    let shown = shown(&facts, snapshot);
    let reads: BTreeSet<Oid> = facts.reads.union(&facts.called).copied().collect();
    let metadata_only =
        facts.defines.is_none() && facts.writes.is_empty() && facts.reaches.is_empty() && reads.iter().all(is_metadata);
    if let Some((name, at)) = facts.session_effect
        && !metadata_only
    {
        return construct(&format!("{name} in a statement that reads or writes tables"), at);
    }
    let use_of =
        |((column, how), at): (&(_, _), &i32)| ColumnUse { column: *column, how: *how, at: positions.character(*at) };
    let named: BTreeSet<Oid> = reads.union(&facts.writes).copied().collect();
    let in_text = |oid: &Oid| facts.reads.contains(oid) || facts.writes.contains(oid);
    Ok(Lineage {
        reaches: behind.copied().filter(|oid| !named.contains(oid)).collect(),
        changes: facts.changes.difference(&named).copied().collect(),
        uses: facts.uses.iter().map(use_of).collect(),
        lookups: facts.lookups,
        called: facts.called.iter().copied().filter(|oid| !in_text(oid)).collect(),
        reads,
        functions: facts.functions,
        rows: facts.rows,
        writes: facts.writes,
        reads_aside: facts.reads_aside,
        writes_aside: facts.writes_aside,
        writing: facts.writing,
        sets: facts.sets,
        unbounded: placed(&facts.unbounded, positions),
        stars: placed(&facts.stars, positions),
        rewritten: facts.rewritten,
        positioned: facts.positioned,
        outputs,
        content: RowContent::default(),
        copy_layout: None,
        user_code: facts.user_code,
        locks_rows: facts.locks_rows,
        changes_settings: !facts.settings.is_empty(),
        settings: facts.settings,
        notifies: facts.notifies,
        relation_sizes: facts.relation_sizes,
        correlated: facts.correlated,
        sized: facts.sized,
        hides: facts.hides,
        large_objects: facts.large_objects,
        server_files: facts.server_files,
        shown,
        metadata_only,
        defines: facts.defines,
    })
}

fn placed(found: &BTreeMap<Oid, i32>, positions: &Positions<'_>) -> BTreeMap<Oid, Option<usize>> {
    found.iter().map(|(oid, at)| (*oid, positions.character(*at))).collect()
}
