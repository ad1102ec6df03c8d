//! Whether the condition of a write limits it to some of the target's rows. A guard against the forgotten WHERE, and
//! no more: what a condition lets through is only known by counting. Decided by the text alone; what is not understood
//! limits nothing.

use pg_query::NodeEnum;
use pg_query::protobuf::{AExpr, AExprKind, BoolExpr, BoolExprType, ColumnRef, Node, RangeVar, SubLink};

use super::string;
use crate::catalog::Relation;

/// Conditions nested deeper are taken as no limit.
const DEPTH_MAX: usize = 64;

/// The name by which a statement knows the relation it writes to.
pub(crate) fn target_name<'a>(relation: &'a Relation, table: &'a RangeVar) -> &'a str {
    table.alias.as_ref().map_or(relation.name.as_str(), |alias| &alias.aliasname)
}

/// Whether the condition limits the relation, under the name it has in the statement, to some of its rows.
pub(crate) fn is_limited(relation: &Relation, name: &str, condition: Option<&Node>) -> bool {
    is_chosen_from(name, &|column| relation.columns.iter().any(|known| known.name == column), condition)
}

/// Whether it limits whatever has such columns.
pub(crate) fn is_chosen_from(name: &str, has: &dyn Fn(&str) -> bool, condition: Option<&Node>) -> bool {
    condition.is_some_and(|condition| Target { name, has }.limits(condition, DEPTH_MAX))
}

struct Target<'a> {
    /// Its alias, or its name.
    name: &'a str,
    has: &'a dyn Fn(&str) -> bool,
}

impl Target<'_> {
    fn limits(&self, condition: &Node, depth: usize) -> bool {
        let (Some(node), Some(depth)) = (&condition.node, depth.checked_sub(1)) else { return false };
        match node {
            NodeEnum::BoolExpr(expr) => {
                let BoolExpr { xpr: _, boolop, args, location: _ } = expr.as_ref();
                match BoolExprType::try_from(*boolop) {
                    Ok(BoolExprType::AndExpr) => args.iter().any(|arg| self.limits(arg, depth)),
                    Ok(BoolExprType::OrExpr) => !args.is_empty() && args.iter().all(|arg| self.limits(arg, depth)),
                    Ok(BoolExprType::NotExpr) => args.iter().all(|arg| self.limits(arg, depth)),
                    Ok(BoolExprType::Undefined) | Err(_) => false,
                }
            }
            NodeEnum::AExpr(expr) if is_self_comparison(expr) => false,
            // Which row it is, the cursor says.
            NodeEnum::CurrentOfExpr(_) => true,
            _ => self.is_named_in(condition, depth),
        }
    }

    /// Whether a column of the target stands somewhere in the expression.
    fn is_named_in(&self, expression: &Node, depth: usize) -> bool {
        let (Some(node), Some(depth)) = (&expression.node, depth.checked_sub(1)) else { return false };
        let any = |nodes: &[Node]| nodes.iter().any(|node| self.is_named_in(node, depth));
        let one = |node: &Option<Box<Node>>| node.as_deref().is_some_and(|node| self.is_named_in(node, depth));
        match node {
            NodeEnum::ColumnRef(reference) => self.is(reference),
            NodeEnum::AExpr(expr) => one(&expr.lexpr) || one(&expr.rexpr),
            NodeEnum::BoolExpr(expr) => any(&expr.args),
            NodeEnum::NullTest(test) => one(&test.arg),
            NodeEnum::BooleanTest(test) => one(&test.arg),
            NodeEnum::TypeCast(cast) => one(&cast.arg),
            NodeEnum::CollateClause(clause) => one(&clause.arg),
            NodeEnum::AIndirection(indirection) => one(&indirection.arg),
            NodeEnum::FuncCall(call) => any(&call.args),
            NodeEnum::CoalesceExpr(expr) => any(&expr.args),
            NodeEnum::MinMaxExpr(expr) => any(&expr.args),
            NodeEnum::RowExpr(expr) => any(&expr.args),
            NodeEnum::AArrayExpr(expr) => any(&expr.elements),
            NodeEnum::List(list) => any(&list.items),
            NodeEnum::CaseExpr(expr) => one(&expr.arg) || any(&expr.args) || one(&expr.defresult),
            NodeEnum::CaseWhen(when) => one(&when.expr) || one(&when.result),
            NodeEnum::SubLink(link) => self.is_named_in_link(link, depth),
            _ => false,
        }
    }

    /// `id IN (SELECT …)` and a sub-select whose own WHERE names the target with its name, as one that looks it up does.
    fn is_named_in_link(&self, link: &SubLink, depth: usize) -> bool {
        if link.testexpr.as_deref().is_some_and(|tested| self.is_named_in(tested, depth)) {
            return true;
        }
        let Some(NodeEnum::SelectStmt(select)) = link.subselect.as_deref().and_then(|node| node.node.as_ref()) else {
            return false;
        };
        let hidden = select.from_clause.iter().any(|item| self.is_hidden_by(item, depth));
        !hidden && select.where_clause.as_deref().is_some_and(|condition| self.is_qualified_in(condition, depth))
    }

    /// In a sub-select, where a name without its table's may be another's.
    fn is_qualified_in(&self, condition: &Node, depth: usize) -> bool {
        let (Some(node), Some(depth)) = (&condition.node, depth.checked_sub(1)) else { return false };
        let one = |node: &Option<Box<Node>>| node.as_deref().is_some_and(|node| self.is_qualified_in(node, depth));
        match node {
            NodeEnum::ColumnRef(reference) => reference.fields.len() > 1 && self.is(reference),
            NodeEnum::BoolExpr(expr) if BoolExprType::try_from(expr.boolop) == Ok(BoolExprType::OrExpr) => {
                !expr.args.is_empty() && expr.args.iter().all(|arg| self.is_qualified_in(arg, depth))
            }
            NodeEnum::BoolExpr(expr) => expr.args.iter().any(|arg| self.is_qualified_in(arg, depth)),
            NodeEnum::AExpr(expr) => one(&expr.lexpr) != one(&expr.rexpr),
            _ => false,
        }
    }

    /// Whether an item of a FROM goes by the target's name, or may.
    fn is_hidden_by(&self, item: &Node, depth: usize) -> bool {
        let (Some(node), Some(depth)) = (&item.node, depth.checked_sub(1)) else { return true };
        match node {
            NodeEnum::RangeVar(table) => {
                let name = table.alias.as_ref().map_or(table.relname.as_str(), |alias| alias.aliasname.as_str());
                name == self.name
            }
            NodeEnum::RangeSubselect(query) => query.alias.as_ref().is_some_and(|alias| alias.aliasname == self.name),
            NodeEnum::JoinExpr(join) => [&join.larg, &join.rarg]
                .into_iter()
                .any(|side| side.as_deref().is_none_or(|side| self.is_hidden_by(side, depth))),
            _ => true,
        }
    }

    /// `column`, `target.column`, `schema.table.column`. Of a name that more than one table has the server would not
    /// know whose it is.
    fn is(&self, reference: &ColumnRef) -> bool {
        let names: Option<Vec<&str>> = reference.fields.iter().map(string).collect();
        match names.as_deref() {
            Some([column]) => (self.has)(column),
            Some([.., table, column]) => *table == self.name && (self.has)(column),
            Some([]) | None => false,
        }
    }
}

/// `x = x`: one column beside itself, whatever operator stands between.
fn is_self_comparison(expr: &AExpr) -> bool {
    let AExpr { kind, name: _, lexpr, rexpr, rexpr_list_start: _, rexpr_list_end: _, location: _ } = expr;
    let (Some(left), Some(right)) = (column(lexpr.as_deref()), column(rexpr.as_deref())) else { return false };
    let (Some((left, of)), Some((right, of_other))) = (left.split_last(), right.split_last()) else { return false };
    // Without a table's name it can only be the one column of that name.
    let same_table = of.is_empty() || of_other.is_empty() || of.last() == of_other.last();
    AExprKind::try_from(*kind) != Ok(AExprKind::AexprNullif) && left == right && same_table
}

fn column(node: Option<&Node>) -> Option<Vec<&str>> {
    match node?.node.as_ref()? {
        NodeEnum::ColumnRef(reference) => reference.fields.iter().map(string).collect(),
        _ => None,
    }
}
