//! Which arrays hold one value per element. In FROM, unnest turns an array of rows into a column per field, under
//! names the statement does not show: a name written beside it would then mean something else to the server than
//! here. Only an array proven to hold scalars gives the one column the walker counts on.

use pg_query::NodeEnum;
use pg_query::protobuf::{AArrayExpr, AConst, FuncCall, Node, TypeCast};

use super::column::Resolved;
use super::{Walk, Walker, inner, strings};
use crate::catalog::Oid;

/// Functions of the reviewed list that return an array of text or name, whatever their arguments.
const TEXT_ARRAYS: &[&str] = &["current_schemas", "regexp_match", "regexp_split_to_array", "string_to_array"];

impl Walker<'_> {
    /// Asked of arguments that were walked before: names resolve, calls are reviewed.
    pub(crate) fn is_scalar_array(&mut self, node: &Node) -> Walk<bool> {
        self.deeper(|walker| match inner(node)? {
            NodeEnum::TypeCast(cast) => match walker.cast_type(cast)? {
                Some((element, true)) => Ok(walker.snapshot.is_scalar(element)),
                Some((array, false)) => Ok(walker.snapshot.is_scalar_array(array)),
                None => Ok(false),
            },
            NodeEnum::ColumnRef(reference) => match walker.resolve(reference)? {
                Resolved::Column(value) => Ok(value.of.is_some_and(|oid| walker.snapshot.is_scalar_array(oid))),
                Resolved::Row(_) | Resolved::Everything => Ok(false),
            },
            NodeEnum::AArrayExpr(AArrayExpr { elements, list_start: _, list_end: _, location: _ }) => {
                for element in elements {
                    if !walker.is_scalar_element(element)? {
                        return Ok(false);
                    }
                }
                Ok(!elements.is_empty())
            }
            NodeEnum::FuncCall(call) => Ok(returns_text_array(call)),
            _ => Ok(false),
        })
    }

    fn is_scalar_element(&mut self, node: &Node) -> Walk<bool> {
        match inner(node)? {
            NodeEnum::AConst(AConst { isnull: _, location: _, val: _ }) => Ok(true),
            NodeEnum::AArrayExpr(_) => self.is_scalar_array(node),
            NodeEnum::TypeCast(cast) => match self.cast_type(cast)? {
                Some((scalar, false)) => Ok(self.snapshot.is_scalar(scalar)),
                Some((_, true)) | None => Ok(false),
            },
            NodeEnum::ColumnRef(reference) => match self.resolve(reference)? {
                Resolved::Column(value) => Ok(value.of.is_some_and(|oid| self.snapshot.is_scalar(oid))),
                Resolved::Row(_) | Resolved::Everything => Ok(false),
            },
            _ => Ok(false),
        }
    }

    /// The type a cast names, and whether it is written as an array of it.
    fn cast_type(&mut self, cast: &TypeCast) -> Walk<Option<(Oid, bool)>> {
        let TypeCast { arg: _, type_name, location: _ } = cast;
        match type_name {
            Some(of) => Ok(Some((self.cast_target(of)?, !of.array_bounds.is_empty()))),
            None => Ok(None),
        }
    }
}

fn returns_text_array(call: &FuncCall) -> bool {
    let name = strings(&call.funcname).and_then(|names| names.last().copied());
    name.is_some_and(|name| TEXT_ARRAYS.contains(&name))
}
