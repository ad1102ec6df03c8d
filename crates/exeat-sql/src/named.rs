//! Statements about other statements: EXPLAIN, PREPARE, EXECUTE and cursors. What they carry is analysed as if it
//! stood alone; what they refer to by name is left to whoever knows the session.

use pg_query::NodeEnum;
use pg_query::protobuf::{DefElem, ExecuteStmt, ExplainStmt, Node, ResTarget, SelectStmt};

use crate::walk::{NOWHERE, Walk, construct};
use crate::{CursorCommand, Explained, StatementKind, statement};

/// CURSOR_OPT_HOLD of the server's parsenodes.h.
const HOLD: i32 = 0x0020;

pub(crate) fn kind(node: &NodeEnum) -> Option<StatementKind> {
    Some(match node {
        NodeEnum::ExplainStmt(stmt) => StatementKind::Explain(explained(stmt)),
        NodeEnum::PrepareStmt(stmt) => {
            StatementKind::SqlPrepare { name: stmt.name.clone(), of: Box::new(kind_of(stmt.query.as_deref())) }
        }
        NodeEnum::ExecuteStmt(stmt) => StatementKind::SqlExecute { name: stmt.name.clone() },
        NodeEnum::DeclareCursorStmt(stmt) => StatementKind::Cursor(CursorCommand::Declare {
            name: stmt.portalname.clone(),
            hold: stmt.options & HOLD != 0,
        }),
        NodeEnum::FetchStmt(stmt) => {
            StatementKind::Cursor(CursorCommand::Fetch { name: stmt.portalname.clone(), moves: stmt.ismove })
        }
        _ => return None,
    })
}

fn kind_of(node: Option<&Node>) -> StatementKind {
    match node.and_then(|node| node.node.as_ref()) {
        Some(node) => statement::kind(node),
        None => StatementKind::Utility { name: "an empty statement" },
    }
}

/// What is analysed in the place of such a statement.
pub(crate) enum Subject<'a> {
    /// The statement it carries.
    Inner(&'a NodeEnum),
    /// The types it declares for its parameters.
    Parameters(&'a [Node]),
    /// Values of its own, as the outputs of a SELECT without FROM.
    Values(Box<SelectStmt>),
    /// Nothing: it refers to what is analysed elsewhere.
    Nothing,
}

/// `None`: it is no such statement.
pub(crate) fn subjects(node: &NodeEnum) -> Walk<Option<Vec<Subject<'_>>>> {
    Ok(Some(match node {
        NodeEnum::ExplainStmt(stmt) => {
            known_options(stmt)?;
            vec![inner(stmt.query.as_deref())?]
        }
        NodeEnum::DeclareCursorStmt(stmt) => vec![inner(stmt.query.as_deref())?],
        NodeEnum::PrepareStmt(stmt) => vec![Subject::Parameters(&stmt.argtypes), inner(stmt.query.as_deref())?],
        NodeEnum::ExecuteStmt(stmt) => vec![Subject::Values(arguments(stmt))],
        NodeEnum::FetchStmt(_) => vec![Subject::Nothing],
        _ => return Ok(None),
    }))
}

fn inner(node: Option<&Node>) -> Walk<Subject<'_>> {
    match node.and_then(|node| node.node.as_ref()) {
        Some(node) => Ok(Subject::Inner(node)),
        None => construct("an empty syntax node", NOWHERE),
    }
}

/// EXECUTE's arguments are expressions without FROM; the server takes no sub-select there, nor does the gateway.
fn arguments(stmt: &ExecuteStmt) -> Box<SelectStmt> {
    let target = |value: Node| Node {
        node: Some(NodeEnum::ResTarget(Box::new(ResTarget { val: Some(Box::new(value)), ..ResTarget::default() }))),
    };
    let target_list = stmt.params.iter().cloned().map(target).collect();
    let limit_option = pg_query::protobuf::LimitOption::Default.into();
    let op = pg_query::protobuf::SetOperation::SetopNone.into();
    Box::new(SelectStmt { target_list, limit_option, op, ..SelectStmt::default() })
}

/// Options that only change how the plan is shown.
const HARMLESS: [&str; 6] = ["verbose", "settings", "generic_plan", "timing", "summary", "format"];

/// Options whose amounts depend on how wide stored values are.
const SIZES: [&str; 4] = ["buffers", "wal", "memory", "serialize"];

fn known_options(stmt: &ExplainStmt) -> Walk<()> {
    for option in options(stmt) {
        let name = option.defname.as_str();
        if !HARMLESS.contains(&name) && !SIZES.contains(&name) && !matches!(name, "analyze" | "costs") {
            return construct("an option of EXPLAIN", option.location);
        }
    }
    Ok(())
}

fn options(stmt: &ExplainStmt) -> impl Iterator<Item = &DefElem> {
    stmt.options.iter().filter_map(|node| match &node.node {
        Some(NodeEnum::DefElem(option)) => Some(option.as_ref()),
        _ => None,
    })
}

/// The last word on an option counts, as for the server.
fn explained(stmt: &ExplainStmt) -> Explained {
    let last = |name: &str| options(stmt).filter(|option| option.defname == name).map(is_on).last();
    let runs = last("analyze").unwrap_or(false);
    Explained {
        of: Box::new(kind_of(stmt.query.as_deref())),
        runs,
        costs: last("costs").unwrap_or(true),
        // PostgreSQL 18 shows buffers with ANALYZE unless told not to.
        sizes: last("buffers").unwrap_or(runs) || SIZES.iter().any(|name| last(name).unwrap_or(false)),
    }
}

/// What is not clearly off is on.
fn is_on(option: &DefElem) -> bool {
    let Some(value) = option.arg.as_ref().and_then(|node| node.node.as_ref()) else { return true };
    match value {
        NodeEnum::String(text) => !["false", "off", "none"].iter().any(|off| text.sval.eq_ignore_ascii_case(off)),
        NodeEnum::Integer(number) => number.ival != 0,
        NodeEnum::Boolean(value) => value.boolval,
        _ => true,
    }
}
