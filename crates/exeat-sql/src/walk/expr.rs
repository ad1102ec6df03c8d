//! Expressions. Every node kind the grammar can put into one is either walked whole or stops the walk.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AArrayExpr, AConst, AExpr, AExprKind, AIndices, AIndirection, BoolExpr, BoolExprType, BoolTestType, BooleanTest,
    CaseExpr, CaseWhen, CoalesceExpr, CollateClause, GroupingFunc, MinMaxExpr, MinMaxOp, Node, NullTest, NullTestType,
    RowExpr, SqlValueFunction, SqlValueFunctionOp, SubLink, SubLinkType, a_const,
};

use super::call::known;
use super::column::Resolved;
use super::scope::{Columns, PARTS_MAX, Value};
use super::{NOWHERE, Stop, Walk, Walker, construct, inner, lazy, named_construct, string, strings, total, unresolved};
use crate::catalog::{Argument, Oid, Operands};
use crate::classes::Class;
use crate::{OpaqueReason, Origin, Use};

/// Operators remembered for the rest of a statement.
const OPERATORS_KEPT_MAX: usize = 32;

/// Whether an operator between these cannot fail: a common one has a hundred candidates to look at.
pub(crate) struct OperatorAsked {
    name: String,
    left: Option<Argument>,
    right: Argument,
    schemas: Vec<Oid>,
    total: bool,
}

impl Walker<'_> {
    /// The value of an expression whose columns all are used as `how`.
    pub(crate) fn expr(&mut self, node: &Node, how: Use) -> Walk<()> {
        let outside = std::mem::replace(&mut self.place, how);
        let value = self.value(node)?;
        self.place = outside;
        self.consume(&value, how, NOWHERE)
    }

    /// What an expression passes on: a bare column stays bare.
    pub(crate) fn value(&mut self, node: &Node) -> Walk<Value> {
        self.deeper(|walker| walker.expression(inner(node)?))
    }

    fn expression(&mut self, node: &NodeEnum) -> Walk<Value> {
        match node {
            NodeEnum::AConst(AConst { isnull, location: _, val }) => Ok(constant(*isnull, val.as_ref())),
            NodeEnum::ParamRef(parameter) => {
                if let Ok(number) = usize::try_from(parameter.number) {
                    *self.facts.parameters.entry(number).or_default() += 1;
                }
                Ok(Value::of_some_type())
            }
            NodeEnum::ColumnRef(reference) => match self.resolve(reference)? {
                Resolved::Column(value) => Ok(value.named_at(reference.location)),
                Resolved::Row(columns) => self.row(&columns, reference.location),
                Resolved::Everything => construct("a star in an expression", reference.location),
            },
            NodeEnum::AExpr(expr) => self.operation(expr),
            NodeEnum::BoolExpr(expr) => self.boolean(expr),
            NodeEnum::FuncCall(call) => self.call(call),
            NodeEnum::TypeCast(cast) => self.cast(cast),
            NodeEnum::SubLink(link) => self.sub_link(link),
            NodeEnum::CaseExpr(case) => self.case(case),
            NodeEnum::AIndirection(indirection) => self.indirection(indirection),
            NodeEnum::AArrayExpr(array) => self.array(array),
            NodeEnum::List(list) => self.total_of(&list.items),
            NodeEnum::CollateClause(collate) => {
                let CollateClause { arg, collname: _, location: _ } = collate.as_ref();
                let value = self.optional_value(arg)?;
                Ok(Value { origin: Origin::None, ..value })
            }
            NodeEnum::NullTest(test) => self.null_test(test),
            NodeEnum::BooleanTest(test) => self.boolean_test(test),
            _ => self.constructor(node),
        }
    }

    /// Arrays of arrays must be of the same length each; those written out here are or are not, whatever they hold.
    fn array(&mut self, array: &AArrayExpr) -> Walk<Value> {
        let AArrayExpr { elements, list_start: _, list_end: _, location } = array;
        let mut whole = Value { parts: 0, ..Value::computed() };
        let mut fits = true;
        for element in elements {
            let value = self.value(element)?;
            fits &= matches!(&element.node, Some(NodeEnum::AArrayExpr(_))) || !self.kinds_of(&value).lists;
            whole = self.with(&whole, &value)?;
        }
        self.result(whole, fits, *location).map(Value::into_list)
    }

    /// A whole row: every column of it.
    pub(crate) fn row(&mut self, columns: &Columns, at: i32) -> Walk<Value> {
        let mut whole = Value::computed();
        for (_, value) in columns.list() {
            self.note_lazy(value);
            whole = self.with(&whole, &value.named_at(at))?;
        }
        Ok(whole.into_row())
    }

    pub(crate) fn optional_value(&mut self, node: &Option<Box<Node>>) -> Walk<Value> {
        node.as_deref().map_or_else(|| Ok(Value::computed()), |node| self.value(node))
    }

    /// COALESCE, GREATEST, ROW, GROUPING and the value functions: no operand decides what code runs by its name.
    fn constructor(&mut self, node: &NodeEnum) -> Walk<Value> {
        match node {
            NodeEnum::CoalesceExpr(expr) => {
                let CoalesceExpr { xpr: _, coalescetype: _, coalescecollid: _, args, location: _ } = expr.as_ref();
                let values = self.in_turn(args)?;
                self.alternatives(&values)
            }
            NodeEnum::RowExpr(expr) => {
                let RowExpr { xpr: _, args, row_typeid: _, row_format: _, colnames: _, location: _ } = expr.as_ref();
                self.total_of(args).map(Value::into_row)
            }
            NodeEnum::GroupingFunc(expr) => {
                let GroupingFunc { xpr: _, args, refs: _, agglevelsup: _, location: _ } = expr.as_ref();
                self.partial_of(args)
            }
            NodeEnum::MinMaxExpr(expr) => self.extreme(expr),
            NodeEnum::SqlvalueFunction(function) => {
                let SqlValueFunction { xpr: _, op, r#type: _, typmod: _, location } = function.as_ref();
                match SqlValueFunctionOp::try_from(*op) {
                    Ok(SqlValueFunctionOp::SqlvalueFunctionOpUndefined) | Err(_) => {
                        construct("a value function of this kind", *location)
                    }
                    Ok(_) => Ok(Value::computed()),
                }
            }
            // The name of a branch, in RETURNING of a MERGE.
            NodeEnum::MergeSupportFunc(_) => Ok(Value::computed()),
            NodeEnum::SetToDefault(default) => construct("DEFAULT outside a list of values", default.location),
            NodeEnum::CurrentOfExpr(_) => construct("CURRENT OF", NOWHERE),
            _ => self.sql_json(node),
        }
    }

    fn boolean(&mut self, expr: &BoolExpr) -> Walk<Value> {
        let BoolExpr { xpr: _, boolop, args, location } = expr;
        match BoolExprType::try_from(*boolop) {
            Ok(BoolExprType::AndExpr | BoolExprType::OrExpr | BoolExprType::NotExpr) => {
                let values = self.in_turn(args)?;
                self.all_of(&values)
            }
            Ok(BoolExprType::Undefined) | Err(_) => construct("a Boolean operator of this kind", *location),
        }
    }

    fn null_test(&mut self, test: &NullTest) -> Walk<Value> {
        let NullTest { xpr: _, arg, nulltesttype, argisrow: _, location } = test;
        match NullTestType::try_from(*nulltesttype) {
            Ok(NullTestType::IsNull | NullTestType::IsNotNull) => self.total_of(arg.as_deref()),
            Ok(NullTestType::Undefined) | Err(_) => construct("a null test of this kind", *location),
        }
    }

    fn boolean_test(&mut self, test: &BooleanTest) -> Walk<Value> {
        let BooleanTest { xpr: _, arg, booltesttype, location } = test;
        match BoolTestType::try_from(*booltesttype) {
            Ok(BoolTestType::Undefined) | Err(_) => construct("a Boolean test of this kind", *location),
            Ok(_) => self.total_of(arg.as_deref()),
        }
    }

    fn extreme(&mut self, expr: &MinMaxExpr) -> Walk<Value> {
        let MinMaxExpr { xpr: _, minmaxtype: _, minmaxcollid: _, inputcollid: _, op, args, location } = expr;
        match MinMaxOp::try_from(*op) {
            Ok(MinMaxOp::IsGreatest | MinMaxOp::IsLeast) => {
                self.check_sorting(*location)?;
                let values = args.iter().map(|arg| self.value(arg)).collect::<Walk<Vec<_>>>()?;
                let is_total = values.iter().all(|value| self.compares_totally(value));
                let either = self.alternatives(&values)?;
                self.operand(&either)?;
                let whole = self.changed(&either);
                self.result(whole, is_total, *location)
            }
            Ok(MinMaxOp::Undefined) | Err(_) => construct("a comparison of this kind", *location),
        }
    }

    fn operation(&mut self, expr: &AExpr) -> Walk<Value> {
        let AExpr { kind, name, lexpr, rexpr, rexpr_list_start: _, rexpr_list_end: _, location } = expr;
        let at = *location;
        let Some(names) = strings(name) else { return construct("an operator of this form", at) };
        let open = |operand: &Option<Box<Node>>| operand.as_deref().is_some_and(is_open);
        let operands = Operands { left_open: open(lexpr), right_open: open(rexpr) };
        let both = || lexpr.iter().chain(rexpr).map(Box::as_ref);
        match AExprKind::try_from(*kind) {
            Ok(
                AExprKind::AexprOp
                | AExprKind::AexprOpAny
                | AExprKind::AexprOpAll
                | AExprKind::AexprDistinct
                | AExprKind::AexprNotDistinct
                | AExprKind::AexprIn,
            ) => self.operator(&names, operands, at)?,
            Ok(AExprKind::AexprLike | AExprKind::AexprIlike | AExprKind::AexprSimilar) => {
                self.operator(&names, operands, at)?;
                return self.partial_of(both());
            }
            // Where the two are equal there is NULL instead of a value: a comparison anyone can see.
            Ok(AExprKind::AexprNullif) => {
                self.operator(&names, operands, at)?;
                self.noticeable += 1;
                let left = self.optional_value(lexpr)?;
                self.optional(rexpr, Use::Predicate)?;
                self.consume(&left, Use::Predicate, at)?;
                return Ok(self.changed(&left));
            }
            // The server turns these into comparisons with the operators it finds on the path.
            Ok(
                AExprKind::AexprBetween
                | AExprKind::AexprNotBetween
                | AExprKind::AexprBetweenSym
                | AExprKind::AexprNotBetweenSym,
            ) => {
                ["<", ">", "<=", ">="].iter().try_for_each(|implied| self.operator(&[implied], operands, at))?;
                let values = self.in_some_order(both())?;
                let is_total = values.iter().all(|value| self.compares_totally(value));
                let whole = self.all_of(&values)?;
                return self.result(whole, is_total, at);
            }
            Ok(AExprKind::Undefined) | Err(_) => return construct("an operator of this kind", at),
        }
        let in_list = matches!(AExprKind::try_from(*kind), Ok(AExprKind::AexprIn));
        let values = if in_list || both().any(lazy::compares_parts) {
            self.in_some_order(both())?
        } else {
            both().map(|node| self.value(node)).collect::<Walk<Vec<_>>>()?
        };
        let arguments: Vec<_> = both().zip(&values).map(|(node, value)| known(node, value)).collect();
        let is_total = self.operator_is_total(expr, &names, &arguments, &values);
        let operands = self.all_of(&values)?;
        self.result(operands, is_total, at)
    }

    /// Can this operation not fail, whatever its operands are? Where their types are not known, only a few can not.
    fn operator_is_total(&mut self, expr: &AExpr, names: &[&str], operands: &[Argument], values: &[Value]) -> bool {
        let Some((schemas, name)) = self.searched(names) else { return false };
        let plain = matches!(AExprKind::try_from(expr.kind), Ok(AExprKind::AexprOp));
        let (left, right) = match operands {
            [left, right] if plain => (Some(*left), *right),
            [right] if plain && expr.lexpr.is_none() => (None, *right),
            // Lists and DISTINCT compare the left operand with each of several others.
            _ => return total::operator(name) && values.iter().all(|value| self.compares_totally(value)),
        };
        if left == Some(Argument::Unknown) || right == Argument::Unknown {
            let lists = name == "||" && values.iter().any(|value| self.kinds_of(value).lists);
            return total::operator(name) && !lists && values.iter().all(|value| self.compares_totally(value));
        }
        let same = |known: &&OperatorAsked| {
            known.name == name && known.left == left && known.right == right && known.schemas == schemas
        };
        if let Some(known) = self.operators.iter().find(same) {
            return known.total;
        }
        let total = self.snapshot.operator_class(&schemas, name, left, right) == Some(Class::Total);
        if self.operators.len() < OPERATORS_KEPT_MAX {
            self.operators.push(OperatorAsked { name: name.to_owned(), left, right, schemas, total });
        }
        total
    }

    /// Whether two values of this type can be compared without an error; of an unknown type, a built-in one.
    fn compares_totally(&self, value: &Value) -> bool {
        !self.kinds_of(value).rows && value.of.is_none_or(|oid| self.snapshot.comparison_is_total(&self.path, oid))
    }

    /// May this operator name stand for code we have not read?
    pub(crate) fn operator(&mut self, names: &[&str], operands: Operands, at: i32) -> Walk<()> {
        self.spend(1)?;
        let (schemas, name) = self.searched(names).unwrap_or_default();
        let schemas = schemas.as_slice();
        if self.snapshot.operator_name_class(schemas, name).is_none_or(|worst| worst > Class::Metadata) {
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

    fn case(&mut self, case: &CaseExpr) -> Walk<Value> {
        let CaseExpr { xpr: _, casetype: _, casecollid: _, arg, args, defresult, location } = case;
        if let Some(arg) = arg {
            let operands = Operands { left_open: is_open(arg), right_open: true };
            self.operator(&["="], operands, *location)?;
        }
        self.optional(arg, Use::Predicate)?;
        let mut results = Vec::with_capacity(args.len() + 1);
        for when in args {
            let NodeEnum::CaseWhen(when) = inner(when)? else { return construct("CASE of this form", *location) };
            let CaseWhen { xpr: _, expr, result, location: _ } = when.as_ref();
            self.optional(expr, Use::Predicate)?;
            results.push(self.optional_value(result)?);
        }
        if defresult.is_some() {
            results.push(self.optional_value(defresult)?);
        }
        self.alternatives(&results)
    }

    fn sub_link(&mut self, link: &SubLink) -> Walk<Value> {
        let SubLink { xpr: _, sub_link_type, sub_link_id: _, testexpr, oper_name, subselect, location } = link;
        let at = *location;
        // It may take its time, and find two rows where one is wanted.
        self.noticeable += 1;
        let Some(NodeEnum::SelectStmt(stmt)) = subselect.as_ref().and_then(|node| node.node.as_ref()) else {
            return construct("a sub-select of this form", at);
        };
        match SubLinkType::try_from(*sub_link_type) {
            // Only whether there is a row counts: SELECT * of it names no column that anybody sees.
            Ok(SubLinkType::ExistsSublink) => {
                let stars = self.facts.stars.clone();
                self.spend(stars.len())?;
                self.counting_tested(|walker| walker.select(stmt))?;
                self.facts.stars = stars;
                Ok(Value::computed())
            }
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
                self.optional(testexpr, Use::Predicate)?;
                let outputs = self.counting_tested(|walker| walker.select(stmt))?;
                outputs.iter().try_for_each(|target| self.consume(&target.value, Use::Predicate, target.at))?;
                Ok(Value::computed())
            }
            Ok(SubLinkType::ExprSublink) => {
                let outputs = self.select(stmt)?;
                let (first, rest) = match outputs.as_slice() {
                    [] => return Ok(Value::computed()),
                    [first, rest @ ..] => (first, rest),
                };
                self.link_names.insert(at, first.name.clone());
                // More than one column is a row, compared with another or assigned to several columns.
                let first = Value { origin: Origin::None, ..first.value.clone() };
                if rest.is_empty() {
                    return Ok(first);
                }
                let row = rest.iter().try_fold(self.changed(&first), |row, target| self.with(&row, &target.value))?;
                Ok(row.into_row())
            }
            Ok(SubLinkType::ArraySublink) => {
                let outputs = self.counting_packed(|walker| walker.select(stmt))?;
                let Some(first) = outputs.first() else { return Ok(Value::computed()) };
                // Those of arrays must be of one length.
                let fits = !self.kinds_of(&first.value).lists;
                let whole = self.with(&Value::computed(), &first.value)?;
                self.result(whole, fits, at).map(Value::into_list)
            }
            Ok(SubLinkType::Undefined | SubLinkType::MultiexprSublink | SubLinkType::CteSublink) | Err(_) => {
                construct("a sub-select of this kind", at)
            }
        }
    }

    /// Subscripts, and `(t).column`. Other field selections may be calls: `('/etc/passwd').pg_read_file` is one.
    fn indirection(&mut self, node: &AIndirection) -> Walk<Value> {
        if let Some((value, at)) = self.row_field(node)? {
            return Ok(value.named_at(at));
        }
        let AIndirection { arg, indirection } = node;
        let whole = self.optional_value(arg)?;
        if let Some(field) = self.field_of(&whole, indirection)? {
            return Ok(field);
        }
        self.noticeable += 1;
        self.operand(&whole)?;
        for step in indirection {
            let NodeEnum::AIndices(indices) = inner(step)? else {
                return construct("the selection of a field of a composite value", NOWHERE);
            };
            let AIndices { is_slice: _, lidx, uidx } = indices.as_ref();
            // Which element is taken is a choice, and one from afar may fail.
            self.optional(lidx, self.place)?;
            self.optional(uidx, self.place)?;
        }
        Ok(self.changed(&whole))
    }

    /// `(t.home).city`: a field of a composite value, or one of a composite field. Taking it out runs no code of its type;
    /// a name that is no field may be a function's, and is left to the caller to refuse.
    fn field_of(&mut self, whole: &Value, steps: &[Node]) -> Walk<Option<Value>> {
        let Some(mut of) = whole.of else { return Ok(None) };
        for step in steps {
            let Some(column) = string(step).and_then(|name| self.snapshot.field(of, name)) else { return Ok(None) };
            of = column;
            self.spend(1)?;
        }
        if steps.is_empty() || self.snapshot.type_runs_code(of) {
            return Ok(None);
        }
        Ok(Some(Value { of: Some(of), ..self.changed(whole) }))
    }
}

/// A literal as long as this counts as that many values of an ordinary one.
const LITERAL_BYTES: usize = 64 * 1024;

fn constant(isnull: bool, val: Option<&a_const::Val>) -> Value {
    let bytes = match val {
        Some(a_const::Val::Sval(text)) => text.sval.len(),
        Some(a_const::Val::Ival(_) | a_const::Val::Fval(_) | a_const::Val::Boolval(_) | a_const::Val::Bsval(_))
        | None => 0,
    };
    let parts = if bytes > LITERAL_BYTES { PARTS_MAX } else { 1 };
    Value { null: isnull, parts, ..Value::computed() }
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
