//! Expressions. Every node kind the grammar can put into one is either walked whole or stops the walk.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AArrayExpr, AConst, AExpr, AExprKind, AIndices, AIndirection, BoolExpr, BoolExprType, BoolTestType, BooleanTest,
    CaseExpr, CaseWhen, CoalesceExpr, CollateClause, GroupingFunc, MinMaxExpr, MinMaxOp, Node, NullTest, NullTestType,
    RowExpr, SqlValueFunction, SqlValueFunctionOp, SubLink, SubLinkType, a_const,
};

use super::column::Resolved;
use super::scope::Value;
use super::{NOWHERE, Stop, Walk, Walker, construct, inner, named_construct, strings, unresolved};
use crate::catalog::{Oid, Operands, PG_CATALOG};
use crate::{OpaqueReason, Use, operators};

impl Walker<'_> {
    /// A node in a place whose value is passed on: a bare column stays bare, all else is an expression.
    pub(crate) fn value(&mut self, node: &Node, how: Use) -> Walk<Value> {
        self.deeper(|walker| match inner(node)? {
            NodeEnum::ColumnRef(reference) => match walker.resolve(reference)? {
                Resolved::Column(value) => Ok(value),
                Resolved::Row(_) | Resolved::Everything => walker.expr(node, how).map(|()| Value::computed()),
            },
            NodeEnum::AIndirection(indirection) => match walker.row_field(indirection)? {
                Some((value, _)) => Ok(value),
                None => walker.expr(node, how).map(|()| Value::computed()),
            },
            // A cast may leave the column as it is, and then the server announces it.
            NodeEnum::TypeCast(cast) => walker.cast_value(cast, how),
            NodeEnum::FuncCall(call) => walker.call_value(call, how),
            _ => walker.expr(node, how).map(|()| Value::computed()),
        })
    }

    pub(crate) fn expr(&mut self, node: &Node, how: Use) -> Walk<()> {
        self.deeper(|walker| walker.expression(inner(node)?, how))
    }

    pub(crate) fn exprs(&mut self, nodes: &[Node], how: Use) -> Walk<()> {
        nodes.iter().try_for_each(|node| self.expr(node, how))
    }

    fn expression(&mut self, node: &NodeEnum, how: Use) -> Walk<()> {
        match node {
            NodeEnum::AConst(AConst { isnull: _, location: _, val: _ }) | NodeEnum::ParamRef(_) => Ok(()),
            NodeEnum::ColumnRef(reference) => match self.resolve(reference)? {
                Resolved::Column(value) => self.consume(&value, how, reference.location),
                Resolved::Row(columns) => {
                    let values = columns.list().iter();
                    values.map(|(_, value)| value).try_for_each(|value| self.consume(value, how, reference.location))
                }
                Resolved::Everything => construct("a star in an expression", reference.location),
            },
            NodeEnum::AExpr(expr) => self.operation(expr, how),
            NodeEnum::BoolExpr(expr) => self.boolean(expr, how),
            NodeEnum::FuncCall(call) => self.call(call, how),
            NodeEnum::TypeCast(cast) => self.cast(cast, how),
            NodeEnum::SubLink(link) => self.sub_link(link, how),
            NodeEnum::CaseExpr(case) => self.case(case, how),
            NodeEnum::AIndirection(indirection) => self.indirection(indirection, how),
            NodeEnum::AArrayExpr(AArrayExpr { elements, list_start: _, list_end: _, location: _ }) => {
                self.exprs(elements, how)
            }
            NodeEnum::List(list) => self.exprs(&list.items, how),
            NodeEnum::CollateClause(collate) => {
                let CollateClause { arg, collname: _, location: _ } = collate.as_ref();
                self.optional(arg, how)
            }
            NodeEnum::NullTest(test) => self.null_test(test, how),
            NodeEnum::BooleanTest(test) => self.boolean_test(test, how),
            _ => self.constructor(node, how),
        }
    }

    /// COALESCE, GREATEST, ROW, GROUPING and the value functions: no operand decides what code runs by its name.
    fn constructor(&mut self, node: &NodeEnum, how: Use) -> Walk<()> {
        match node {
            NodeEnum::CoalesceExpr(expr) => {
                let CoalesceExpr { xpr: _, coalescetype: _, coalescecollid: _, args, location: _ } = expr.as_ref();
                self.exprs(args, how)
            }
            NodeEnum::RowExpr(expr) => {
                let RowExpr { xpr: _, args, row_typeid: _, row_format: _, colnames: _, location: _ } = expr.as_ref();
                self.exprs(args, how)
            }
            NodeEnum::GroupingFunc(expr) => {
                let GroupingFunc { xpr: _, args, refs: _, agglevelsup: _, location: _ } = expr.as_ref();
                self.exprs(args, how)
            }
            NodeEnum::MinMaxExpr(expr) => self.extreme(expr, how),
            NodeEnum::SqlvalueFunction(function) => {
                let SqlValueFunction { xpr: _, op, r#type: _, typmod: _, location } = function.as_ref();
                match SqlValueFunctionOp::try_from(*op) {
                    Ok(SqlValueFunctionOp::SqlvalueFunctionOpUndefined) | Err(_) => {
                        construct("a value function of this kind", *location)
                    }
                    Ok(_) => Ok(()),
                }
            }
            NodeEnum::XmlExpr(xml) => construct("an XML expression", xml.location),
            NodeEnum::XmlSerialize(xml) => construct("XMLSERIALIZE", xml.location),
            NodeEnum::JsonFuncExpr(json) => construct("a JSON query function", json.location),
            NodeEnum::SetToDefault(default) => construct("DEFAULT outside a list of values", default.location),
            NodeEnum::CurrentOfExpr(_) => construct("CURRENT OF", NOWHERE),
            _ => construct("an expression of this kind", NOWHERE),
        }
    }

    fn boolean(&mut self, expr: &BoolExpr, how: Use) -> Walk<()> {
        let BoolExpr { xpr: _, boolop, args, location } = expr;
        match BoolExprType::try_from(*boolop) {
            Ok(BoolExprType::AndExpr | BoolExprType::OrExpr | BoolExprType::NotExpr) => self.exprs(args, how),
            Ok(BoolExprType::Undefined) | Err(_) => construct("a Boolean operator of this kind", *location),
        }
    }

    fn null_test(&mut self, test: &NullTest, how: Use) -> Walk<()> {
        let NullTest { xpr: _, arg, nulltesttype, argisrow: _, location } = test;
        match NullTestType::try_from(*nulltesttype) {
            Ok(NullTestType::IsNull | NullTestType::IsNotNull) => self.optional(arg, how),
            Ok(NullTestType::Undefined) | Err(_) => construct("a null test of this kind", *location),
        }
    }

    fn boolean_test(&mut self, test: &BooleanTest, how: Use) -> Walk<()> {
        let BooleanTest { xpr: _, arg, booltesttype, location } = test;
        match BoolTestType::try_from(*booltesttype) {
            Ok(BoolTestType::Undefined) | Err(_) => construct("a Boolean test of this kind", *location),
            Ok(_) => self.optional(arg, how),
        }
    }

    fn extreme(&mut self, expr: &MinMaxExpr, how: Use) -> Walk<()> {
        let MinMaxExpr { xpr: _, minmaxtype: _, minmaxcollid: _, inputcollid: _, op, args, location } = expr;
        match MinMaxOp::try_from(*op) {
            Ok(MinMaxOp::IsGreatest | MinMaxOp::IsLeast) => {
                self.check_sorting(*location)?;
                self.exprs(args, how)
            }
            Ok(MinMaxOp::Undefined) | Err(_) => construct("a comparison of this kind", *location),
        }
    }

    fn operation(&mut self, expr: &AExpr, how: Use) -> Walk<()> {
        let AExpr { kind, name, lexpr, rexpr, rexpr_list_start: _, rexpr_list_end: _, location } = expr;
        let at = *location;
        let Some(names) = strings(name) else { return construct("an operator of this form", at) };
        let open = |operand: &Option<Box<Node>>| operand.as_deref().is_some_and(is_open);
        let operands = Operands { left_open: open(lexpr), right_open: open(rexpr) };
        match AExprKind::try_from(*kind) {
            Ok(
                AExprKind::AexprOp
                | AExprKind::AexprOpAny
                | AExprKind::AexprOpAll
                | AExprKind::AexprDistinct
                | AExprKind::AexprNotDistinct
                | AExprKind::AexprNullif
                | AExprKind::AexprIn
                | AExprKind::AexprLike
                | AExprKind::AexprIlike
                | AExprKind::AexprSimilar,
            ) => self.operator(&names, operands, at)?,
            // The server turns these into comparisons with the operators it finds on the path.
            Ok(
                AExprKind::AexprBetween
                | AExprKind::AexprNotBetween
                | AExprKind::AexprBetweenSym
                | AExprKind::AexprNotBetweenSym,
            ) => ["<", ">", "<=", ">="].iter().try_for_each(|implied| self.operator(&[implied], operands, at))?,
            Ok(AExprKind::Undefined) | Err(_) => return construct("an operator of this kind", at),
        }
        self.optional(lexpr, how)?;
        self.optional(rexpr, how)
    }

    /// May this operator name stand for code we have not read?
    pub(crate) fn operator(&mut self, names: &[&str], operands: Operands, at: i32) -> Walk<()> {
        self.spend(1)?;
        let pg_catalog = [PG_CATALOG];
        let (schemas, name): (&[Oid], &str) = match names {
            [name] => (self.path, name),
            ["pg_catalog", name] => (&pg_catalog, name),
            _ => (&[], ""),
        };
        if !operators::is_reviewed(name) {
            if names.len() == 1 && !self.snapshot.user_operator_exists(name) {
                return unresolved(name, at);
            }
            return Err(Stop::Opaque { reason: OpaqueReason::Operator { name: names.join(".") }, at });
        }
        if self.snapshot.user_operator_visible(schemas, name, operands) {
            return named_construct(format!("operator {name}, for which a user-defined one may be chosen,"), at);
        }
        Ok(())
    }

    fn case(&mut self, case: &CaseExpr, how: Use) -> Walk<()> {
        let CaseExpr { xpr: _, casetype: _, casecollid: _, arg, args, defresult, location } = case;
        if let Some(arg) = arg {
            let operands = Operands { left_open: is_open(arg), right_open: true };
            self.operator(&["="], operands, *location)?;
        }
        self.optional(arg, Use::Predicate)?;
        for when in args {
            let NodeEnum::CaseWhen(when) = inner(when)? else { return construct("CASE of this form", *location) };
            let CaseWhen { xpr: _, expr, result, location: _ } = when.as_ref();
            self.optional(expr, Use::Predicate)?;
            self.optional(result, how)?;
        }
        self.optional(defresult, how)
    }

    fn sub_link(&mut self, link: &SubLink, how: Use) -> Walk<()> {
        let SubLink { xpr: _, sub_link_type, sub_link_id: _, testexpr, oper_name, subselect, location } = link;
        let at = *location;
        let Some(NodeEnum::SelectStmt(stmt)) = subselect.as_ref().and_then(|node| node.node.as_ref()) else {
            return construct("a sub-select of this form", at);
        };
        match SubLinkType::try_from(*sub_link_type) {
            // Only whether there is a row counts; bare outputs are never computed.
            Ok(SubLinkType::ExistsSublink) => return self.select(stmt, Use::Predicate).map(|_| ()),
            Ok(SubLinkType::AnySublink | SubLinkType::AllSublink | SubLinkType::RowcompareSublink) => {
                // What a sub-select gives back has a type; what is compared with it may have none.
                let left_open = testexpr.as_deref().is_some_and(is_open);
                let operands = Operands { left_open, right_open: false };
                match strings(oper_name).as_deref() {
                    // IN (SELECT ...) leaves the name out.
                    Some([]) => self.operator(&["="], operands, at)?,
                    Some(names) => self.operator(names, operands, at)?,
                    None => return construct("an operator of this form", at),
                }
            }
            Ok(SubLinkType::ExprSublink | SubLinkType::ArraySublink) => {}
            Ok(SubLinkType::Undefined | SubLinkType::MultiexprSublink | SubLinkType::CteSublink) | Err(_) => {
                return construct("a sub-select of this kind", at);
            }
        }
        self.optional(testexpr, how)?;
        let outputs = self.select(stmt, how)?;
        if let Some(first) = outputs.first() {
            self.link_names.insert(at, first.name.clone());
        }
        outputs.iter().try_for_each(|target| self.consume(&target.value, how, target.at))
    }

    /// Subscripts, and `(t).column`. Other field selections may be calls: `('/etc/passwd').pg_read_file` is one.
    fn indirection(&mut self, node: &AIndirection, how: Use) -> Walk<()> {
        if let Some((value, at)) = self.row_field(node)? {
            return self.consume(&value, how, at);
        }
        let AIndirection { arg, indirection } = node;
        self.optional(arg, how)?;
        for step in indirection {
            let NodeEnum::AIndices(indices) = inner(step)? else {
                return construct("the selection of a field of a composite value", NOWHERE);
            };
            let AIndices { is_slice: _, lidx, uidx } = indices.as_ref();
            self.optional(lidx, how)?;
            self.optional(uidx, how)?;
        }
        Ok(())
    }
}

/// An untyped literal, NULL or parameter, or a row or list that holds one: it takes the type the chosen operator or
/// function wants. Every other expression has a type of its own.
pub(crate) fn is_open(node: &Node) -> bool {
    match &node.node {
        Some(NodeEnum::AConst(constant)) => constant.isnull || matches!(constant.val, Some(a_const::Val::Sval(_))),
        Some(NodeEnum::ParamRef(_)) => true,
        Some(NodeEnum::RowExpr(row)) => row.args.iter().any(is_open),
        Some(NodeEnum::List(list)) => list.items.iter().any(is_open),
        Some(NodeEnum::AArrayExpr(array)) => array.elements.iter().any(is_open),
        Some(NodeEnum::NamedArgExpr(_) | NodeEnum::CollateClause(_)) | None => true,
        Some(_) => false,
    }
}
