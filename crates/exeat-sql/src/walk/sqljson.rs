//! SQL/JSON and XML in expressions: what the grammar has nodes of its own for. What puts JSON together can be such that it
//! cannot fail; all the rest may, so that whatever goes into it is used where it stands. A server that does not know a form yet reads it as a call of a function that goes by
//! its name: then it is not what is analysed here.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    JsonAggConstructor, JsonArgument, JsonArrayAgg, JsonArrayConstructor, JsonArrayQueryConstructor, JsonBehavior,
    JsonFormat, JsonFormatType, JsonFuncExpr, JsonIsPredicate, JsonKeyValue, JsonObjectAgg, JsonObjectConstructor,
    JsonOutput, JsonParseExpr, JsonScalarExpr, JsonSerializeExpr, JsonValueExpr, Node, XmlExpr, XmlSerialize,
};

use super::call::is_constant;
use super::scope::Value;
use super::{NOWHERE, Walk, Walker, construct, inner};
use crate::Use;
use crate::catalog::Oid;
use crate::classes::Printing;

/// JSON_OBJECT, JSON_ARRAY, their aggregates, IS JSON.
const CONSTRUCTORS_SINCE: u32 = 160_000;

/// JSON, JSON_SCALAR, JSON_SERIALIZE, JSON_EXISTS, JSON_QUERY, JSON_VALUE, JSON_TABLE.
pub(crate) const QUERIES_SINCE: u32 = 170_000;

const JSON: Oid = Oid(114);
const JSONB: Oid = Oid(3802);
const TEXT: Oid = Oid(25);

/// JSON that is being put together.
struct Json {
    whole: Value,
    of: Oid,
    /// How its values are printed; `None` where putting it together may fail.
    form: Option<Printing>,
    at: i32,
}

impl Walker<'_> {
    pub(crate) fn sql_json(&mut self, node: &NodeEnum) -> Walk<Value> {
        match node {
            NodeEnum::JsonObjectConstructor(object) => {
                let JsonObjectConstructor { exprs, output, absent_on_null: _, unique, location } = object;
                let mut json = self.json_builder((CONSTRUCTORS_SINCE, *location), output, *unique)?;
                exprs.iter().try_for_each(|pair| self.json_pair(&mut json, pair))?;
                self.built(json)
            }
            NodeEnum::JsonArrayConstructor(array) => {
                let JsonArrayConstructor { exprs, output, absent_on_null: _, location } = array;
                let mut json = self.json_builder((CONSTRUCTORS_SINCE, *location), output, false)?;
                for element in exprs {
                    let NodeEnum::JsonValueExpr(value) = inner(element)? else {
                        return construct("JSON_ARRAY of this form", *location);
                    };
                    self.json_part(&mut json, value)?;
                }
                self.built(json)
            }
            NodeEnum::JsonArrayQueryConstructor(array) => {
                let JsonArrayQueryConstructor { query, output, format, absent_on_null: _, location } = array.as_ref();
                let mut json = self.json_builder((CONSTRUCTORS_SINCE, *location), output, !is_default(format))?;
                let Some(NodeEnum::SelectStmt(query)) = query.as_deref().and_then(|node| node.node.as_ref()) else {
                    return construct("JSON_ARRAY of this form", *location);
                };
                // It may take its time.
                self.noticeable += 1;
                let outputs = self.counting_packed(|walker| walker.apart(|walker| walker.select(query)))?;
                outputs.iter().try_for_each(|target| self.json_value_in(&mut json, &target.value))?;
                self.built(json)
            }
            NodeEnum::JsonObjectAgg(aggregate) => {
                let JsonObjectAgg { constructor, arg, absent_on_null: _, unique } = aggregate.as_ref();
                self.holds_packing();
                let mut json = self.json_aggregate(constructor, *unique)?;
                if let Some(pair) = arg.as_deref() {
                    self.json_key_and_value(&mut json, pair)?;
                }
                self.built(json)
            }
            NodeEnum::JsonArrayAgg(aggregate) => {
                let JsonArrayAgg { constructor, arg, absent_on_null: _ } = aggregate.as_ref();
                self.holds_packing();
                let mut json = self.json_aggregate(constructor, false)?;
                if let Some(value) = arg.as_deref() {
                    self.json_part(&mut json, value)?;
                }
                self.built(json)
            }
            NodeEnum::JsonScalarExpr(scalar) => {
                let JsonScalarExpr { expr, output, location } = scalar.as_ref();
                let mut json = self.json_builder((QUERIES_SINCE, *location), output, false)?;
                let value = self.optional_value(expr)?;
                self.json_value_in(&mut json, &value)?;
                self.built(json)
            }
            NodeEnum::JsonIsPredicate(test) => {
                let JsonIsPredicate { expr, format: _, item_type: _, unique_keys: _, location } = test.as_ref();
                self.since(CONSTRUCTORS_SINCE, *location)?;
                self.noticeable += 1;
                self.in_place(expr)?;
                Ok(Value::computed())
            }
            _ => {
                self.noticeable += 1;
                self.sql_json_query(node)
            }
        }
    }

    /// JSON about to be put together. Which values are left out (ABSENT ON NULL) says which are NULL, and the result, which
    /// is masked whole, does not say even that. What may fail is not put together here: a type to give back that cuts or
    /// checks, and UNIQUE KEYS, which compares.
    fn json_builder(&mut self, (since, at): (u32, i32), output: &Option<JsonOutput>, may_fail: bool) -> Walk<Json> {
        self.since(since, at)?;
        let (of, form) = match output.as_ref().and_then(|output| output.type_name.as_ref()) {
            None => (JSON, Some(Printing::Json)),
            Some(of) => {
                let whole = of.typmods.is_empty() && of.array_bounds.is_empty();
                match self.cast_target(of)? {
                    oid if !whole => (oid, None),
                    JSONB => (JSONB, Some(Printing::Jsonb)),
                    oid @ (JSON | TEXT) => (oid, Some(Printing::Json)),
                    oid => (oid, None),
                }
            }
        };
        let whole = Value { parts: 0, ..Value::computed() };
        Ok(Json { whole, of, form: form.filter(|_| !may_fail), at })
    }

    fn json_part(&mut self, json: &mut Json, value: &JsonValueExpr) -> Walk<()> {
        let JsonValueExpr { raw_expr, formatted_expr, format } = value;
        if formatted_expr.is_some() {
            return construct("a JSON value of this form", json.at);
        }
        // Text that is to be taken for JSON is read.
        if !is_default(format) {
            json.form = None;
        }
        let value = self.optional_value(raw_expr)?;
        self.json_value_in(json, &value)
    }

    fn json_value_in(&mut self, json: &mut Json, value: &Value) -> Walk<()> {
        let kinds = self.kinds_of(value);
        json.form = json.form.filter(|form| !(kinds.odd || kinds.json && *form == Printing::Jsonb));
        json.whole = self.with(&json.whole, value)?;
        Ok(())
    }

    fn json_pair(&mut self, json: &mut Json, node: &Node) -> Walk<()> {
        match inner(node)? {
            NodeEnum::JsonKeyValue(pair) => self.json_key_and_value(json, pair),
            _ => construct("JSON_OBJECT of this form", json.at),
        }
    }

    /// A key that is NULL raises, whatever the value is.
    fn json_key_and_value(&mut self, json: &mut Json, pair: &JsonKeyValue) -> Walk<()> {
        let JsonKeyValue { key, value } = pair;
        if !key.as_deref().is_some_and(is_constant) {
            self.noticeable += 1;
        }
        self.in_place(key)?;
        value.as_deref().map_or(Ok(()), |value| self.json_part(json, value))
    }

    fn built(&mut self, json: Json) -> Walk<Value> {
        let Json { whole, of, form, at } = json;
        let result = self.result(whole, form.is_some(), at)?;
        Ok(Value { of: Some(of), ..result })
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
            NodeEnum::JsonSerializeExpr(serialize) => {
                let JsonSerializeExpr { expr, output, location } = serialize.as_ref();
                let raw = expr.as_deref().and_then(|expr| expr.raw_expr.as_ref());
                let mut json = self.json_builder((QUERIES_SINCE, *location), output, false)?;
                let value = raw.map_or_else(|| Ok(Value::computed()), |raw| self.value(raw))?;
                // Anything else is read as JSON first.
                json.form = json.form.filter(|_| matches!(value.of, Some(JSON | JSONB)));
                json.whole = self.with(&json.whole, &value)?;
                json.of = if output.is_some() { json.of } else { TEXT };
                return self.built(json);
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

    fn json_aggregate(&mut self, constructor: &Option<Box<JsonAggConstructor>>, may_fail: bool) -> Walk<Json> {
        let Some(constructor) = constructor else { return construct("a JSON aggregate of this form", NOWHERE) };
        let JsonAggConstructor { output, agg_filter, agg_order, over, location } = constructor.as_ref();
        let json = self.json_builder((CONSTRUCTORS_SINCE, *location), output, may_fail)?;
        if !agg_order.is_empty() {
            self.check_sorting(*location)?;
        }
        self.plain_order(agg_order)?;
        self.optional(agg_filter, Use::Predicate)?;
        over.as_deref().map_or(Ok(()), |window| self.window(window))?;
        Ok(json)
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

/// FORMAT is not written.
fn is_default(format: &Option<JsonFormat>) -> bool {
    let kind = |format: &JsonFormat| JsonFormatType::try_from(format.format_type);
    format.as_ref().is_none_or(|format| kind(format) == Ok(JsonFormatType::JsFormatDefault))
}
