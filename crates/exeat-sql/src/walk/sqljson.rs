//! SQL/JSON and XML in expressions: what the grammar has nodes of its own for. All of it may fail, so that whatever goes
//! into it is used where it stands. A server that does not know a form yet reads it as a call of a function that goes by
//! its name: then it is not what is analysed here.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    JsonAggConstructor, JsonArgument, JsonArrayAgg, JsonArrayConstructor, JsonArrayQueryConstructor, JsonBehavior,
    JsonFuncExpr, JsonIsPredicate, JsonKeyValue, JsonObjectAgg, JsonObjectConstructor, JsonOutput, JsonParseExpr,
    JsonScalarExpr, JsonSerializeExpr, JsonValueExpr, Node, XmlExpr, XmlSerialize,
};

use super::scope::Value;
use super::{NOWHERE, Walk, Walker, construct, inner};
use crate::Use;

/// JSON_OBJECT, JSON_ARRAY, their aggregates, IS JSON.
const CONSTRUCTORS_SINCE: u32 = 160_000;

/// JSON, JSON_SCALAR, JSON_SERIALIZE, JSON_EXISTS, JSON_QUERY, JSON_VALUE, JSON_TABLE.
pub(crate) const QUERIES_SINCE: u32 = 170_000;

impl Walker<'_> {
    pub(crate) fn sql_json(&mut self, node: &NodeEnum) -> Walk<Value> {
        // Nearly all of it may fail, for reasons that no argument shows.
        self.noticeable += 1;
        match node {
            NodeEnum::JsonObjectConstructor(object) => {
                let JsonObjectConstructor { exprs, output, absent_on_null: _, unique: _, location } = object;
                self.since(CONSTRUCTORS_SINCE, *location)?;
                exprs.iter().try_for_each(|pair| self.json_pair(pair))?;
                self.json_output(output)?;
            }
            NodeEnum::JsonArrayConstructor(array) => {
                let JsonArrayConstructor { exprs, output, absent_on_null: _, location } = array;
                self.since(CONSTRUCTORS_SINCE, *location)?;
                exprs.iter().try_for_each(|element| self.json_element(element))?;
                self.json_output(output)?;
            }
            NodeEnum::JsonArrayQueryConstructor(array) => {
                let JsonArrayQueryConstructor { query, output, format: _, absent_on_null: _, location } =
                    array.as_ref();
                self.since(CONSTRUCTORS_SINCE, *location)?;
                let Some(NodeEnum::SelectStmt(query)) = query.as_deref().and_then(|node| node.node.as_ref()) else {
                    return construct("JSON_ARRAY of this form", *location);
                };
                let outputs = self.counting_packed(|walker| walker.apart(|walker| walker.select(query)))?;
                outputs.iter().try_for_each(|target| self.consume(&target.value, self.place, *location))?;
                self.json_output(output)?;
            }
            NodeEnum::JsonObjectAgg(aggregate) => {
                let JsonObjectAgg { constructor, arg, absent_on_null: _, unique: _ } = aggregate.as_ref();
                self.holds_packing();
                self.json_aggregate(constructor)?;
                if let Some(JsonKeyValue { key, value }) = arg.as_deref() {
                    self.in_place(key)?;
                    self.json_value(value)?;
                }
            }
            NodeEnum::JsonArrayAgg(aggregate) => {
                let JsonArrayAgg { constructor, arg, absent_on_null: _ } = aggregate.as_ref();
                self.holds_packing();
                self.json_aggregate(constructor)?;
                self.json_value(arg)?;
            }
            NodeEnum::JsonIsPredicate(test) => {
                let JsonIsPredicate { expr, format: _, item_type: _, unique_keys: _, location } = test.as_ref();
                self.since(CONSTRUCTORS_SINCE, *location)?;
                self.in_place(expr)?;
            }
            _ => return self.sql_json_query(node),
        }
        Ok(Value::computed())
    }

    /// What PostgreSQL 17 brought, and XML.
    fn sql_json_query(&mut self, node: &NodeEnum) -> Walk<Value> {
        match node {
            NodeEnum::JsonParseExpr(parse) => {
                let JsonParseExpr { expr, output, unique_keys: _, location } = parse.as_ref();
                self.since(QUERIES_SINCE, *location)?;
                self.json_value(expr)?;
                self.json_output(output)?;
            }
            NodeEnum::JsonScalarExpr(scalar) => {
                let JsonScalarExpr { expr, output, location } = scalar.as_ref();
                self.since(QUERIES_SINCE, *location)?;
                self.in_place(expr)?;
                self.json_output(output)?;
            }
            NodeEnum::JsonSerializeExpr(serialize) => {
                let JsonSerializeExpr { expr, output, location } = serialize.as_ref();
                self.since(QUERIES_SINCE, *location)?;
                self.json_value(expr)?;
                self.json_output(output)?;
            }
            NodeEnum::JsonFuncExpr(query) => self.json_query(query)?,
            NodeEnum::XmlExpr(xml) => return self.xml(xml),
            NodeEnum::XmlSerialize(xml) => {
                let XmlSerialize { xmloption: _, expr, type_name, indent: _, location } = xml.as_ref();
                let Some(of) = type_name else { return construct("XMLSERIALIZE of this form", *location) };
                self.cast_target(of)?;
                self.in_place(expr)?;
            }
            _ => return construct("an expression of this kind", NOWHERE),
        }
        Ok(Value::computed())
    }

    pub(crate) fn since(&self, version: u32, at: i32) -> Walk<()> {
        if self.snapshot.server_version() < version {
            return construct("SQL/JSON that this version of the server does not have", at);
        }
        Ok(())
    }

    /// What goes through something that may fail.
    fn in_place(&mut self, node: &Option<Box<Node>>) -> Walk<()> {
        self.optional(node, self.place)
    }

    fn json_query(&mut self, query: &JsonFuncExpr) -> Walk<()> {
        let JsonFuncExpr {
            op: _,
            column_name: _,
            context_item,
            pathspec,
            passing,
            output,
            on_empty,
            on_error,
            wrapper: _,
            quotes: _,
            location,
        } = query;
        self.since(QUERIES_SINCE, *location)?;
        self.json_value(context_item)?;
        self.in_place(pathspec)?;
        self.json_passing(passing)?;
        self.json_output(output)?;
        self.json_behavior(on_empty)?;
        self.json_behavior(on_error)
    }

    pub(crate) fn json_passing(&mut self, passing: &[Node]) -> Walk<()> {
        passing.iter().try_for_each(|node| match inner(node)? {
            NodeEnum::JsonArgument(argument) => {
                let JsonArgument { val, name: _ } = argument.as_ref();
                self.json_value(val)
            }
            _ => construct("PASSING of this form", NOWHERE),
        })
    }

    pub(crate) fn json_behavior(&mut self, behavior: &Option<Box<JsonBehavior>>) -> Walk<()> {
        let Some(JsonBehavior { btype: _, expr, coerce: _, location: _ }) = behavior.as_deref() else { return Ok(()) };
        self.in_place(expr)
    }

    fn json_pair(&mut self, node: &Node) -> Walk<()> {
        let NodeEnum::JsonKeyValue(pair) = inner(node)? else { return construct("JSON_OBJECT of this form", NOWHERE) };
        let JsonKeyValue { key, value } = pair.as_ref();
        self.in_place(key)?;
        self.json_value(value)
    }

    fn json_element(&mut self, node: &Node) -> Walk<()> {
        let NodeEnum::JsonValueExpr(value) = inner(node)? else { return construct("JSON_ARRAY of this form", NOWHERE) };
        let JsonValueExpr { raw_expr, formatted_expr, format: _ } = value.as_ref();
        self.in_place(raw_expr)?;
        self.in_place(formatted_expr)
    }

    pub(crate) fn json_value(&mut self, value: &Option<Box<JsonValueExpr>>) -> Walk<()> {
        let Some(JsonValueExpr { raw_expr, formatted_expr, format: _ }) = value.as_deref() else { return Ok(()) };
        self.in_place(raw_expr)?;
        self.in_place(formatted_expr)
    }

    fn json_output(&mut self, output: &Option<JsonOutput>) -> Walk<()> {
        match output {
            Some(JsonOutput { type_name: Some(of), returning: _ }) => self.cast_target(of).map(|_| ()),
            Some(JsonOutput { type_name: None, returning: _ }) | None => Ok(()),
        }
    }

    fn json_aggregate(&mut self, constructor: &Option<Box<JsonAggConstructor>>) -> Walk<()> {
        let Some(constructor) = constructor else { return construct("a JSON aggregate of this form", NOWHERE) };
        let JsonAggConstructor { output, agg_filter, agg_order, over, location } = constructor.as_ref();
        self.since(CONSTRUCTORS_SINCE, *location)?;
        if !agg_order.is_empty() {
            self.check_sorting(*location)?;
        }
        self.plain_order(agg_order)?;
        self.optional(agg_filter, Use::Predicate)?;
        over.as_deref().map_or(Ok(()), |window| self.window(window))?;
        self.json_output(output)
    }

    fn xml(&mut self, xml: &XmlExpr) -> Walk<Value> {
        let XmlExpr {
            xpr: _,
            op: _,
            name: _,
            named_args,
            arg_names: _,
            args,
            xmloption: _,
            indent: _,
            r#type: _,
            typmod: _,
            location,
        } = xml;
        for node in named_args {
            // An attribute or element: its value, and a name that is the text's own.
            match inner(node)? {
                NodeEnum::ResTarget(named) if named.indirection.is_empty() => self.in_place(&named.val)?,
                _ => return construct("an XML expression of this form", *location),
            }
        }
        self.partial_of(args)
    }
}
