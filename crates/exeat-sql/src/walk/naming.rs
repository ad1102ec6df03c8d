//! Names of output columns without alias, as the server makes them up (FigureColname). They matter beyond looks:
//! a sub-select's columns are referred to by them.

use std::collections::HashMap;
use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{AExprKind, JsonExprOp, MinMaxOp, Node, SqlValueFunctionOp, SubLinkType, XmlExprOp, a_const};

use super::string;

const UNNAMED: &str = "?column?";

/// How sure a name is: a cast keeps a `Certain` name and replaces a `Weak` one.
enum Name {
    None,
    Weak(String),
    Certain(String),
}

/// Names of the first output of scalar sub-selects walked so far, by their position: they lend it.
pub(crate) type SubLinkNames = HashMap<i32, Rc<str>>;

pub(crate) fn figure(node: &Node, links: &SubLinkNames, server_version: u32) -> String {
    match name(node, links, server_version) {
        Name::None => UNNAMED.to_owned(),
        Name::Weak(name) | Name::Certain(name) => name,
    }
}

fn name(node: &Node, links: &SubLinkNames, server_version: u32) -> Name {
    let certain = |text: &str| Name::Certain(text.to_owned());
    let last = |names: &[Node]| names.iter().rev().find_map(string).map(str::to_owned);
    let Some(inner) = &node.node else { return Name::None };
    match inner {
        NodeEnum::ColumnRef(reference) => last(&reference.fields).map_or(Name::None, Name::Certain),
        NodeEnum::AIndirection(indirection) => match (last(&indirection.indirection), &indirection.arg) {
            (Some(field), _) => Name::Certain(field),
            (None, Some(arg)) => name(arg, links, server_version),
            (None, None) => Name::None,
        },
        NodeEnum::FuncCall(call) => last(&call.funcname).map_or(Name::None, Name::Certain),
        NodeEnum::AExpr(expr) if expr.kind == AExprKind::AexprNullif as i32 => certain("nullif"),
        NodeEnum::TypeCast(cast) => {
            let argument = cast.arg.as_ref().map_or(Name::None, |arg| name(arg, links, server_version));
            match (argument, cast.type_name.as_ref().and_then(|of| last(&of.names))) {
                (kept @ Name::Certain(_), _) => kept,
                (_, Some(of)) => Name::Weak(of),
                (kept, None) => kept,
            }
        }
        NodeEnum::CollateClause(collate) => {
            collate.arg.as_ref().map_or(Name::None, |arg| name(arg, links, server_version))
        }
        NodeEnum::GroupingFunc(_) => certain("grouping"),
        NodeEnum::SubLink(link) => match SubLinkType::try_from(link.sub_link_type) {
            Ok(SubLinkType::ExistsSublink) => certain("exists"),
            Ok(SubLinkType::ArraySublink) => certain("array"),
            Ok(SubLinkType::ExprSublink) => links.get(&link.location).map_or(Name::None, |first| certain(first)),
            _ => Name::None,
        },
        NodeEnum::CaseExpr(case) => {
            let otherwise = case.defresult.as_ref().map_or(Name::None, |node| name(node, links, server_version));
            match otherwise {
                kept @ Name::Certain(_) => kept,
                Name::None | Name::Weak(_) => Name::Weak("case".to_owned()),
            }
        }
        NodeEnum::AArrayExpr(_) => certain("array"),
        NodeEnum::RowExpr(_) => certain("row"),
        NodeEnum::CoalesceExpr(_) => certain("coalesce"),
        NodeEnum::MinMaxExpr(expr) if expr.op == MinMaxOp::IsGreatest as i32 => certain("greatest"),
        NodeEnum::MinMaxExpr(_) => certain("least"),
        NodeEnum::MergeSupportFunc(_) => certain("merge_action"),
        NodeEnum::SqlvalueFunction(function) => certain(sql_value(function.op)),
        // Before PostgreSQL 15 the grammar wrapped TRUE and FALSE in a cast to bool.
        NodeEnum::AConst(constant) if server_version < 150_000 => match constant.val {
            Some(a_const::Val::Boolval(_)) => Name::Weak("bool".to_owned()),
            _ => Name::None,
        },
        _ => construct_name(inner).map_or(Name::None, certain),
    }
}

/// SQL/JSON and XML are called as functions would be.
fn construct_name(node: &NodeEnum) -> Option<&'static str> {
    Some(match node {
        NodeEnum::JsonObjectConstructor(_) => "json_object",
        NodeEnum::JsonArrayConstructor(_) | NodeEnum::JsonArrayQueryConstructor(_) => "json_array",
        NodeEnum::JsonObjectAgg(_) => "json_objectagg",
        NodeEnum::JsonArrayAgg(_) => "json_arrayagg",
        NodeEnum::JsonParseExpr(_) => "json",
        NodeEnum::JsonScalarExpr(_) => "json_scalar",
        NodeEnum::JsonSerializeExpr(_) => "json_serialize",
        NodeEnum::JsonFuncExpr(query) => match JsonExprOp::try_from(query.op) {
            Ok(JsonExprOp::JsonExistsOp) => "json_exists",
            Ok(JsonExprOp::JsonQueryOp) => "json_query",
            Ok(JsonExprOp::JsonValueOp) => "json_value",
            Ok(JsonExprOp::JsonTableOp | JsonExprOp::Undefined) | Err(_) => return None,
        },
        NodeEnum::XmlSerialize(_) => "xmlserialize",
        NodeEnum::XmlExpr(xml) => match XmlExprOp::try_from(xml.op) {
            Ok(XmlExprOp::IsXmlconcat) => "xmlconcat",
            Ok(XmlExprOp::IsXmlelement) => "xmlelement",
            Ok(XmlExprOp::IsXmlforest) => "xmlforest",
            Ok(XmlExprOp::IsXmlparse) => "xmlparse",
            Ok(XmlExprOp::IsXmlpi) => "xmlpi",
            Ok(XmlExprOp::IsXmlroot) => "xmlroot",
            Ok(XmlExprOp::IsXmlserialize) => "xmlserialize",
            Ok(XmlExprOp::IsDocument | XmlExprOp::Undefined) | Err(_) => return None,
        },
        _ => return None,
    })
}

fn sql_value(op: i32) -> &'static str {
    match SqlValueFunctionOp::try_from(op) {
        Ok(SqlValueFunctionOp::SvfopCurrentDate) => "current_date",
        Ok(SqlValueFunctionOp::SvfopCurrentTime | SqlValueFunctionOp::SvfopCurrentTimeN) => "current_time",
        Ok(SqlValueFunctionOp::SvfopCurrentTimestamp | SqlValueFunctionOp::SvfopCurrentTimestampN) => {
            "current_timestamp"
        }
        Ok(SqlValueFunctionOp::SvfopLocaltime | SqlValueFunctionOp::SvfopLocaltimeN) => "localtime",
        Ok(SqlValueFunctionOp::SvfopLocaltimestamp | SqlValueFunctionOp::SvfopLocaltimestampN) => "localtimestamp",
        Ok(SqlValueFunctionOp::SvfopCurrentRole) => "current_role",
        Ok(SqlValueFunctionOp::SvfopCurrentUser) => "current_user",
        Ok(SqlValueFunctionOp::SvfopUser) => "user",
        Ok(SqlValueFunctionOp::SvfopSessionUser) => "session_user",
        Ok(SqlValueFunctionOp::SvfopCurrentCatalog) => "current_catalog",
        Ok(SqlValueFunctionOp::SvfopCurrentSchema) => "current_schema",
        Ok(SqlValueFunctionOp::SqlvalueFunctionOpUndefined) | Err(_) => UNNAMED,
    }
}
