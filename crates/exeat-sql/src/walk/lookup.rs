//! Lookups: conditions of a plain SELECT that ask whether a stored column equals values of the client's own. Each tells of
//! one value whether it is there, so that the values can be counted. Recognised only where the server certainly compares
//! by the type's own equality. Which value a text stands for is not asked here: of a date it may depend on the session's
//! settings, and whoever counts must know. Everything else stays the predicate it is.

use pg_query::NodeEnum;
use pg_query::protobuf::{AArrayExpr, AConst, AExpr, AExprKind, BoolExpr, BoolExprType, ColumnRef};
use pg_query::protobuf::{List, Node, ParamRef, TypeCast, TypeName, a_const};

use super::column::Resolved;
use super::expr::is_open;
use super::scope::Value;
use super::{Walk, Walker, inner, strings};
use crate::catalog::{ColumnId, Oid, Operands, Relation, RelationKind};
use crate::{Flow, Lookup, LookupValue, Origin, Use};

/// Types by their fixed numbers.
const BOOL: Oid = Oid(16);
const BYTEA: Oid = Oid(17);
const NAME: Oid = Oid(19);
const INTEGERS: [Oid; 3] = [Oid(20), Oid(21), Oid(23)];
const BIGINT: Oid = Oid(20);
const TEXT: Oid = Oid(25);
const BPCHAR: Oid = Oid(1042);
const VARCHAR: Oid = Oid(1043);
const NUMERIC: Oid = Oid(1700);
/// cidr, macaddr8, macaddr, inet, date, timestamp, timestamptz, uuid.
const OTHERS: [Oid; 8] = [Oid(650), Oid(774), Oid(829), Oid(869), Oid(1082), Oid(1114), Oid(1184), Oid(2950)];

/// Of the types above the array, by its fixed number, and what it is made of.
const ARRAYS: [(Oid, Oid); 18] = [
    (Oid(651), Oid(650)),
    (Oid(775), Oid(774)),
    (Oid(1000), BOOL),
    (Oid(1001), BYTEA),
    (Oid(1003), NAME),
    (Oid(1005), Oid(21)),
    (Oid(1007), Oid(23)),
    (Oid(1009), TEXT),
    (Oid(1014), BPCHAR),
    (Oid(1015), VARCHAR),
    (Oid(1016), BIGINT),
    (Oid(1040), Oid(829)),
    (Oid(1041), Oid(869)),
    (Oid(1115), Oid(1114)),
    (Oid(1182), Oid(1082)),
    (Oid(1185), Oid(1184)),
    (Oid(1231), NUMERIC),
    (Oid(2951), Oid(2950)),
];

/// What an array of this type is made of, where columns can be looked up by that.
pub fn element(array: Oid) -> Option<Oid> {
    ARRAYS.iter().find(|(of, _)| *of == array).map(|(_, element)| *element)
}

/// Can columns of the first type be looked up by values of the second, each of which then stands for one of the first?
/// bpchar drops blanks at its end and name cuts: values that lose something on the way would count once for two.
pub fn takes(column: Oid, value: Oid) -> bool {
    match column {
        TEXT | VARCHAR => matches!(value, TEXT | VARCHAR),
        BPCHAR => matches!(value, BPCHAR | TEXT | VARCHAR),
        NUMERIC => value == NUMERIC || INTEGERS.contains(&value),
        _ if INTEGERS.contains(&column) => INTEGERS.contains(&value),
        BOOL | BYTEA | NAME => value == column,
        _ => OTHERS.contains(&column) && value == column,
    }
}

/// A comparison by the form of its text.
struct Compared<'a> {
    reference: &'a ColumnRef,
    with: With<'a>,
}

enum With<'a> {
    Each(&'a [Node]),
    /// `ARRAY[...]`, and what it is cast to.
    Array(&'a [Node], Option<&'a TypeName>),
    /// An array as one value, and what it is cast to.
    Whole(&'a NodeEnum, Option<&'a TypeName>),
}

/// What stands where a value might.
pub(crate) enum Tried {
    Value(LookupValue),
    /// Equal to nothing.
    Null,
    Unclear,
}

impl Walker<'_> {
    /// A condition that must hold for a row to come: the parts of an AND one by one.
    pub(crate) fn condition(&mut self, node: &Node) -> Walk<()> {
        self.deeper(|walker| match inner(node)? {
            NodeEnum::BoolExpr(expr) if BoolExprType::try_from(expr.boolop) == Ok(BoolExprType::AndExpr) => {
                let BoolExpr { xpr: _, boolop: _, args, location: _ } = expr.as_ref();
                args.iter().try_for_each(|part| walker.condition(part))
            }
            NodeEnum::AExpr(expr) => match walker.lookup(expr)? {
                Some((lookup, at)) => {
                    walker.record(lookup.column, Use::Lookup, at)?;
                    walker.facts.lookups.push(lookup);
                    Ok(())
                }
                None => walker.expr(node, Use::Predicate),
            },
            _ => walker.expr(node, Use::Predicate),
        })
    }

    /// With where the column is named. `None`: it is another comparison.
    fn lookup(&mut self, expr: &AExpr) -> Walk<Option<(Lookup, i32)>> {
        let Some(compared) = compared(expr) else { return Ok(None) };
        let Resolved::Column(value) = self.resolve(compared.reference)? else { return Ok(None) };
        let Some((column, of)) = self.plain_column(&value) else { return Ok(None) };
        let Some(values) = self.compared_values(&compared.with, of)? else { return Ok(None) };
        // No user's operator may be meant: beside that one, the type's own is what the server finds.
        let open = |operand: &Option<Box<Node>>| operand.as_deref().is_some_and(is_open);
        let operands = Operands { left_open: open(&expr.lexpr), right_open: open(&expr.rexpr) };
        self.operator(&strings(&expr.name).unwrap_or_default(), operands, expr.location)?;
        Ok(Some((Lookup { column, of, values, shares_parameters: false }, compared.reference.location)))
    }

    /// `None`: not all of them can be told.
    fn compared_values(&mut self, with: &With<'_>, of: Oid) -> Walk<Option<Vec<LookupValue>>> {
        let (nodes, array) = match with {
            With::Each(nodes) => (*nodes, None),
            With::Array(nodes, array) => (*nodes, *array),
            With::Whole(_, array) => (&[][..], *array),
        };
        if let Some(array) = array
            && !self.is_cast_for(array, of, true)?
        {
            return Ok(None);
        }
        self.spend(nodes.len())?;
        let mut values = Vec::with_capacity(nodes.len());
        let mut add = |tried| match tried {
            Tried::Value(value) => {
                values.push(value);
                true
            }
            Tried::Null => true,
            Tried::Unclear => false,
        };
        if let With::Whole(node, _) = with
            && !add(whole(node))
        {
            return Ok(None);
        }
        for node in nodes {
            if !add(self.tried(node, of)?) {
                return Ok(None);
            }
        }
        Ok(Some(values))
    }

    /// A column of a table, as it is stored, that can be looked up.
    pub(crate) fn plain_column(&self, value: &Value) -> Option<(ColumnId, Oid)> {
        let Origin::Column(column) = value.origin else { return None };
        let alone = matches!(value.flows.list(), [stream] if stream.column == column && stream.how == Flow::Bare);
        let relation = self.snapshot.relation(column.relation)?;
        let is_table = match relation.kind {
            RelationKind::Table | RelationKind::PartitionedTable => !Relation::is_metadata(relation),
            RelationKind::View
            | RelationKind::MaterializedView
            | RelationKind::ForeignTable
            | RelationKind::Sequence
            | RelationKind::CompositeType => false,
        };
        let of = self.snapshot.base_type(self.snapshot.column(column)?.type_oid);
        let comparable = takes(of, of) && self.snapshot.compares_bytes(column);
        (alone && is_table && comparable).then_some((column, of))
    }

    pub(crate) fn tried(&mut self, node: &Node, of: Oid) -> Walk<Tried> {
        if let NodeEnum::TypeCast(cast) = inner(node)? {
            let TypeCast { arg: Some(arg), type_name: Some(name), location: _ } = cast.as_ref() else {
                return Ok(Tried::Unclear);
            };
            // A number that becomes a text is another value than the text that it is written as.
            let plain = is_open(arg);
            return Ok(if plain && self.is_cast_for(name, of, false)? {
                plainly(inner(arg)?, of)
            } else {
                Tried::Unclear
            });
        }
        Ok(plainly(inner(node)?, of))
    }

    /// Whether a cast to this leaves a value that the column is looked up by.
    fn is_cast_for(&mut self, name: &TypeName, of: Oid, is_array: bool) -> Walk<bool> {
        let target = self.cast_target(name)?;
        let plain = name.typmods.is_empty() && name.array_bounds.len() == usize::from(is_array);
        // In binary, a parameter's bytes would be one number as a numeric and another as an integer.
        Ok(plain && takes(of, target) && (of != NUMERIC || target == NUMERIC))
    }
}

fn compared(expr: &AExpr) -> Option<Compared<'_>> {
    let AExpr { kind, name, lexpr, rexpr, rexpr_list_start: _, rexpr_list_end: _, location: _ } = expr;
    if !matches!(strings(name)?.as_slice(), ["="] | ["pg_catalog", "="]) {
        return None;
    }
    let (left, right) = (lexpr.as_deref()?, rexpr.as_deref()?);
    let each = |reference, values| Compared { reference, with: With::Each(values) };
    match AExprKind::try_from(*kind) {
        Ok(AExprKind::AexprOp) => {
            let turned = || Some(each(column(right)?, std::slice::from_ref(left)));
            column(left).map(|reference| each(reference, std::slice::from_ref(right))).or_else(turned)
        }
        Ok(AExprKind::AexprIn) => match right.node.as_ref()? {
            NodeEnum::List(List { items }) => Some(each(column(left)?, items.as_slice())),
            _ => None,
        },
        Ok(AExprKind::AexprOpAny) => Some(Compared { reference: column(left)?, with: array(right)? }),
        _ => None,
    }
}

fn column(node: &Node) -> Option<&ColumnRef> {
    match node.node.as_ref()? {
        NodeEnum::ColumnRef(reference) => Some(reference),
        _ => None,
    }
}

/// What stands behind ANY, possibly cast.
fn array(node: &Node) -> Option<With<'_>> {
    let (target, array) = match node.node.as_ref()? {
        NodeEnum::TypeCast(cast) => (Some(cast.type_name.as_ref()?), cast.arg.as_ref()?.node.as_ref()?),
        node => (None, node),
    };
    match array {
        NodeEnum::AArrayExpr(AArrayExpr { elements, list_start: _, list_end: _, location: _ }) => {
            Some(With::Array(elements.as_slice(), target))
        }
        NodeEnum::ParamRef(_) | NodeEnum::AConst(_) => Some(With::Whole(array, target)),
        _ => None,
    }
}

/// An array that comes as one value.
fn whole(node: &NodeEnum) -> Tried {
    match node {
        NodeEnum::ParamRef(parameter) => numbered(parameter, LookupValue::ParameterArray),
        NodeEnum::AConst(AConst { isnull: true, location: _, val: _ }) => Tried::Null,
        NodeEnum::AConst(AConst { isnull: false, location: _, val: Some(a_const::Val::Sval(text)) }) => {
            Tried::Value(LookupValue::LiteralArray(text.sval.clone()))
        }
        _ => Tried::Unclear,
    }
}

fn numbered(parameter: &ParamRef, value: fn(usize) -> LookupValue) -> Tried {
    let number = usize::try_from(parameter.number).ok().filter(|number| *number > 0);
    number.map_or(Tried::Unclear, |number| Tried::Value(value(number)))
}

/// A literal or parameter, without a cast.
fn plainly(node: &NodeEnum, of: Oid) -> Tried {
    let constant = match node {
        NodeEnum::AConst(constant) => constant,
        NodeEnum::ParamRef(parameter) => return numbered(parameter, LookupValue::Parameter),
        _ => return Tried::Unclear,
    };
    let AConst { isnull, location: _, val } = constant;
    let is_number = of == NUMERIC || INTEGERS.contains(&of);
    let literal = match val {
        _ if *isnull => return Tried::Null,
        Some(a_const::Val::Sval(text)) => Some(text.sval.clone()),
        Some(a_const::Val::Ival(number)) if is_number => Some(number.ival.to_string()),
        // What does not fit an integer of four bytes; with a point or an exponent it is a numeric.
        Some(a_const::Val::Fval(number)) if of == NUMERIC || (of == BIGINT && is_whole(&number.fval)) => {
            Some(number.fval.clone())
        }
        Some(a_const::Val::Boolval(value)) if of == BOOL => Some(value.boolval.to_string()),
        Some(a_const::Val::Ival(_) | a_const::Val::Fval(_) | a_const::Val::Boolval(_) | a_const::Val::Bsval(_))
        | None => None,
    };
    literal.map_or(Tried::Unclear, |text| Tried::Value(LookupValue::Literal(text)))
}

fn is_whole(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_type_counts_only_where_it_stands_for_one_of_the_columns() {
        let types = [BOOL, BYTEA, NAME, BIGINT, TEXT, BPCHAR, VARCHAR, NUMERIC, Oid(2950), Oid(1082), Oid(701)];
        let taken: Vec<(u32, u32)> = types
            .iter()
            .flat_map(|column| types.iter().map(move |value| (*column, *value)))
            .filter(|(column, value)| column != value && takes(*column, *value))
            .map(|(column, value)| (column.0, value.0))
            .collect();
        assert_eq!(taken, [(25, 1043), (1042, 25), (1042, 1043), (1043, 25), (1700, 20)]);
        let own = |oid: u32| takes(Oid(oid), Oid(oid));
        assert!(own(25) && own(21) && own(2950) && own(1082), "text, smallint, uuid, date");
        assert!(!own(1266) && !own(790) && !own(701), "timetz, money, double precision");
    }
}
