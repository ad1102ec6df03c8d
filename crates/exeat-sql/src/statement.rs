//! What a statement is, from its syntax alone. A statement this page does not name is `Utility`, never `Select`.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, CopyStmt, DiscardMode, Node, ObjectType, TransactionStmtKind, VariableSetKind, VariableSetStmt, a_const,
};

use crate::{CursorCommand, SessionCommand, StatementKind, TransactionCommand, named};

pub(crate) fn kind(node: &NodeEnum) -> StatementKind {
    match node {
        NodeEnum::SelectStmt(select) if select.into_clause.is_some() => StatementKind::Ddl,
        NodeEnum::SelectStmt(_) => StatementKind::Select,
        NodeEnum::InsertStmt(_) => StatementKind::Insert,
        NodeEnum::UpdateStmt(_) => StatementKind::Update,
        NodeEnum::DeleteStmt(_) => StatementKind::Delete,
        NodeEnum::MergeStmt(_) => StatementKind::Merge,
        NodeEnum::CallStmt(_) => StatementKind::Call,
        NodeEnum::CopyStmt(copy) => copy_kind(copy),
        _ => {
            let session = || session(node).map(StatementKind::Session);
            named::kind(node).or_else(session).unwrap_or_else(|| definition(node))
        }
    }
}

fn copy_kind(copy: &CopyStmt) -> StatementKind {
    match (copy.is_program || !copy.filename.is_empty(), copy.is_from) {
        (true, _) => StatementKind::CopyFile,
        (false, true) => StatementKind::CopyIn,
        (false, false) => StatementKind::CopyOut,
    }
}

/// Statements that act on the session only. SET ROLE is none of them.
fn session(node: &NodeEnum) -> Option<SessionCommand> {
    Some(match node {
        NodeEnum::TransactionStmt(stmt) => SessionCommand::Transaction(transaction(stmt.kind)?),
        NodeEnum::VariableSetStmt(stmt) => return set(stmt),
        NodeEnum::VariableShowStmt(stmt) => SessionCommand::Show { setting: stmt.name.to_ascii_lowercase() },
        NodeEnum::ConstraintsSetStmt(_) => SessionCommand::SetConstraints,
        NodeEnum::DiscardStmt(stmt) => {
            SessionCommand::Discard { all: DiscardMode::try_from(stmt.target) == Ok(DiscardMode::DiscardAll) }
        }
        NodeEnum::DeallocateStmt(stmt) => SessionCommand::Deallocate { name: some(&stmt.name) },
        NodeEnum::ClosePortalStmt(stmt) => SessionCommand::CloseCursor { name: some(&stmt.portalname) },
        NodeEnum::ListenStmt(stmt) => SessionCommand::Listen { channel: stmt.conditionname.clone() },
        NodeEnum::UnlistenStmt(stmt) => SessionCommand::Unlisten { channel: some(&stmt.conditionname) },
        NodeEnum::NotifyStmt(stmt) => {
            SessionCommand::Notify { channel: stmt.conditionname.clone(), payload: stmt.payload.clone() }
        }
        _ => return None,
    })
}

fn some(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

fn transaction(kind: i32) -> Option<TransactionCommand> {
    Some(match TransactionStmtKind::try_from(kind).ok()? {
        TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => TransactionCommand::Begin,
        TransactionStmtKind::TransStmtCommit => TransactionCommand::Commit,
        TransactionStmtKind::TransStmtRollback => TransactionCommand::Rollback,
        TransactionStmtKind::TransStmtSavepoint => TransactionCommand::Savepoint,
        TransactionStmtKind::TransStmtRelease => TransactionCommand::Release,
        TransactionStmtKind::TransStmtRollbackTo => TransactionCommand::RollbackTo,
        TransactionStmtKind::TransStmtPrepare => TransactionCommand::Prepare,
        TransactionStmtKind::TransStmtCommitPrepared | TransactionStmtKind::TransStmtRollbackPrepared => {
            TransactionCommand::TwoPhase
        }
        TransactionStmtKind::Undefined => return None,
    })
}

/// Settings that are an identity: changing them is administration.
const IDENTITY_SETTINGS: [&str; 2] = ["role", "session_authorization"];

fn set(stmt: &VariableSetStmt) -> Option<SessionCommand> {
    let VariableSetStmt { kind, name, args, jumble_args: _, is_local, location: _ } = stmt;
    let setting = name.to_ascii_lowercase();
    if IDENTITY_SETTINGS.contains(&setting.as_str()) {
        return None;
    }
    match VariableSetKind::try_from(*kind).ok()? {
        VariableSetKind::VarSetValue => {
            Some(SessionCommand::Set { setting, values: args.iter().map(plain).collect(), local: *is_local })
        }
        VariableSetKind::VarSetDefault | VariableSetKind::VarReset => {
            Some(SessionCommand::Reset { setting: Some(setting) })
        }
        VariableSetKind::VarResetAll => Some(SessionCommand::Reset { setting: None }),
        // SET TRANSACTION SNAPSHOT takes over another session's view of the data: not among them.
        VariableSetKind::VarSetMulti if matches!(name.as_str(), "TRANSACTION" | "SESSION CHARACTERISTICS") => {
            Some(SessionCommand::SetTransaction)
        }
        VariableSetKind::VarSetMulti | VariableSetKind::VarSetCurrent | VariableSetKind::Undefined => None,
    }
}

/// A value of SET as the text it stands for.
fn plain(node: &Node) -> Option<String> {
    let Some(NodeEnum::AConst(AConst { isnull: false, location: _, val: Some(val) })) = &node.node else {
        return None;
    };
    match val {
        a_const::Val::Ival(number) => Some(number.ival.to_string()),
        a_const::Val::Fval(number) => Some(number.fval.clone()),
        a_const::Val::Boolval(value) => Some(if value.boolval { "true" } else { "false" }.to_owned()),
        a_const::Val::Sval(text) => Some(text.sval.clone()),
        a_const::Val::Bsval(_) => None,
    }
}

/// Definitions and administration, sorted by what running them can lead to.
fn definition(node: &NodeEnum) -> StatementKind {
    match node {
        NodeEnum::DoStmt(_)
        | NodeEnum::CreateFunctionStmt(_)
        | NodeEnum::AlterFunctionStmt(_)
        | NodeEnum::CreateTrigStmt(_)
        | NodeEnum::CreateEventTrigStmt(_)
        | NodeEnum::AlterEventTrigStmt(_)
        | NodeEnum::RuleStmt(_)
        | NodeEnum::CreatePolicyStmt(_)
        | NodeEnum::AlterPolicyStmt(_)
        | NodeEnum::CreateExtensionStmt(_)
        | NodeEnum::AlterExtensionStmt(_)
        | NodeEnum::AlterExtensionContentsStmt(_)
        | NodeEnum::CreateCastStmt(_)
        | NodeEnum::CreateTransformStmt(_)
        | NodeEnum::CreateConversionStmt(_)
        | NodeEnum::CreatePlangStmt(_)
        | NodeEnum::CreateOpClassStmt(_)
        | NodeEnum::CreateOpFamilyStmt(_)
        | NodeEnum::AlterOpFamilyStmt(_)
        | NodeEnum::AlterOperatorStmt(_)
        | NodeEnum::DefineStmt(_)
        | NodeEnum::CreateRangeStmt(_)
        | NodeEnum::CreateAmStmt(_)
        | NodeEnum::LoadStmt(_) => StatementKind::Code,
        NodeEnum::DropStmt(stmt) => drop_kind(stmt.remove_type),
        NodeEnum::CreateStmt(_)
        | NodeEnum::AlterTableStmt(_)
        | NodeEnum::AlterTableMoveAllStmt(_)
        | NodeEnum::CreateTableAsStmt(_)
        | NodeEnum::RefreshMatViewStmt(_)
        | NodeEnum::ViewStmt(_)
        | NodeEnum::IndexStmt(_)
        | NodeEnum::CreateSchemaStmt(_)
        | NodeEnum::CreateSeqStmt(_)
        | NodeEnum::AlterSeqStmt(_)
        | NodeEnum::CreateDomainStmt(_)
        | NodeEnum::AlterDomainStmt(_)
        | NodeEnum::CompositeTypeStmt(_)
        | NodeEnum::CreateEnumStmt(_)
        | NodeEnum::AlterEnumStmt(_)
        | NodeEnum::AlterTypeStmt(_)
        | NodeEnum::CreateStatsStmt(_)
        | NodeEnum::AlterStatsStmt(_)
        | NodeEnum::AlterCollationStmt(_)
        | NodeEnum::AlterTsdictionaryStmt(_)
        | NodeEnum::AlterTsconfigurationStmt(_)
        | NodeEnum::RenameStmt(_)
        | NodeEnum::AlterObjectSchemaStmt(_)
        | NodeEnum::AlterObjectDependsStmt(_)
        | NodeEnum::CommentStmt(_) => StatementKind::Ddl,
        _ => administration(node),
    }
}

/// Dropping what holds code is as far-reaching as making it.
fn drop_kind(of: i32) -> StatementKind {
    match ObjectType::try_from(of) {
        Ok(
            ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview
            | ObjectType::ObjectIndex
            | ObjectType::ObjectSequence
            | ObjectType::ObjectSchema
            | ObjectType::ObjectType
            | ObjectType::ObjectDomain
            | ObjectType::ObjectCollation
            | ObjectType::ObjectStatisticExt,
        ) => StatementKind::Ddl,
        _ => StatementKind::Code,
    }
}

fn administration(node: &NodeEnum) -> StatementKind {
    match node {
        NodeEnum::VariableSetStmt(_)
        | NodeEnum::AlterSystemStmt(_)
        | NodeEnum::CreateRoleStmt(_)
        | NodeEnum::AlterRoleStmt(_)
        | NodeEnum::AlterRoleSetStmt(_)
        | NodeEnum::DropRoleStmt(_)
        | NodeEnum::GrantStmt(_)
        | NodeEnum::GrantRoleStmt(_)
        | NodeEnum::AlterDefaultPrivilegesStmt(_)
        | NodeEnum::AlterOwnerStmt(_)
        | NodeEnum::DropOwnedStmt(_)
        | NodeEnum::ReassignOwnedStmt(_)
        | NodeEnum::SecLabelStmt(_)
        | NodeEnum::CreatedbStmt(_)
        | NodeEnum::AlterDatabaseStmt(_)
        | NodeEnum::AlterDatabaseRefreshCollStmt(_)
        | NodeEnum::AlterDatabaseSetStmt(_)
        | NodeEnum::DropdbStmt(_)
        | NodeEnum::CreateTableSpaceStmt(_)
        | NodeEnum::DropTableSpaceStmt(_)
        | NodeEnum::AlterTableSpaceOptionsStmt(_)
        | NodeEnum::CreatePublicationStmt(_)
        | NodeEnum::AlterPublicationStmt(_)
        | NodeEnum::CreateSubscriptionStmt(_)
        | NodeEnum::AlterSubscriptionStmt(_)
        | NodeEnum::DropSubscriptionStmt(_)
        | NodeEnum::CreateFdwStmt(_)
        | NodeEnum::AlterFdwStmt(_)
        | NodeEnum::CreateForeignServerStmt(_)
        | NodeEnum::AlterForeignServerStmt(_)
        | NodeEnum::CreateForeignTableStmt(_)
        | NodeEnum::ImportForeignSchemaStmt(_)
        | NodeEnum::CreateUserMappingStmt(_)
        | NodeEnum::AlterUserMappingStmt(_)
        | NodeEnum::DropUserMappingStmt(_) => StatementKind::Admin,
        NodeEnum::TruncateStmt(_) => StatementKind::Utility { name: "TRUNCATE" },
        NodeEnum::LockStmt(_) => StatementKind::Utility { name: "LOCK" },
        NodeEnum::VacuumStmt(_) => StatementKind::Utility { name: "VACUUM or ANALYZE" },
        NodeEnum::ClusterStmt(_) => StatementKind::Utility { name: "CLUSTER" },
        NodeEnum::ReindexStmt(_) => StatementKind::Utility { name: "REINDEX" },
        NodeEnum::CheckPointStmt(_) => StatementKind::Utility { name: "CHECKPOINT" },
        _ => StatementKind::Utility { name: "a utility statement" },
    }
}

/// In words, for "... is not analysed yet".
pub(crate) fn name(node: &NodeEnum, kind: &StatementKind) -> &'static str {
    match kind {
        StatementKind::Select => "SELECT",
        StatementKind::Insert => "INSERT",
        StatementKind::Update => "UPDATE",
        StatementKind::Delete => "DELETE",
        StatementKind::Merge => "MERGE",
        StatementKind::Call => "CALL",
        StatementKind::CopyOut => "COPY TO",
        StatementKind::CopyIn => "COPY FROM",
        StatementKind::CopyFile => "COPY to or from a file or program",
        StatementKind::Explain(_) => "EXPLAIN",
        StatementKind::SqlPrepare { .. } => "PREPARE",
        StatementKind::SqlExecute { .. } => "EXECUTE",
        StatementKind::Cursor(CursorCommand::Declare { .. }) => "DECLARE",
        StatementKind::Cursor(CursorCommand::Fetch { .. }) => "FETCH",
        StatementKind::Code => "a statement that defines or runs code",
        StatementKind::Admin => "an administrative statement",
        StatementKind::Session(_) => "a session command",
        StatementKind::Utility { name } => name,
        StatementKind::Ddl => match node {
            NodeEnum::SelectStmt(_) => "SELECT INTO",
            NodeEnum::CreateTableAsStmt(_) => "CREATE TABLE AS",
            _ => "a statement that defines or drops an object",
        },
    }
}
