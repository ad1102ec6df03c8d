//! Function calls: only names of the reviewed list, only where no user's function could answer instead.

use pg_query::NodeEnum;
use pg_query::protobuf::{AConst, FuncCall, NamedArgExpr, Node, TypeCast, a_const};

use super::column::Resolved;
use super::content::CallForm;
use super::expr::is_open;
use super::scope::{Found, Value};
use super::{Stop, Walk, Walker, construct, inner, named_construct, string, strings, total, unresolved};
use crate::catalog::{Argument, Kinds, Oid, PG_CATALOG, RelationKind, Reviewed};
use crate::classes::{Class, Facet, is_readable_setting};
use crate::{Notification, NotifyText, OpaqueReason, Origin, Use};

impl Walker<'_> {
    pub(crate) fn call(&mut self, call: &FuncCall) -> Walk<Value> {
        if let Some(field) = self.projection(call)? {
            return Ok(field);
        }
        match self.body_call(call)? {
            Some(returned) => self.returned_value(returned),
            None => self.reviewed_call(call),
        }
    }

    /// `ssn(c)`, which is `c.ssn` where no function goes by that name.
    fn projection(&mut self, call: &FuncCall) -> Walk<Option<Value>> {
        let ([name], [arg]) = (call.funcname.as_slice(), call.args.as_slice()) else { return Ok(None) };
        let (Some(name), Some(NodeEnum::ColumnRef(reference))) = (string(name), arg.node.as_ref()) else {
            return Ok(None);
        };
        let plain = call.agg_order.is_empty()
            && call.agg_filter.is_none()
            && call.over.is_none()
            && !(call.agg_within_group || call.agg_star || call.agg_distinct || call.func_variadic);
        if !plain || self.snapshot.function_exists(&self.path, name) {
            return Ok(None);
        }
        match self.resolved(reference)?.0 {
            Resolved::Row(columns) => match columns.find(name) {
                Found::One(value) => {
                    self.note_lazy(value);
                    Ok(Some(value.named_at(call.location)))
                }
                Found::Many | Found::None => Ok(None),
            },
            Resolved::Column(_) | Resolved::Everything => Ok(None),
        }
    }

    fn reviewed_call(&mut self, call: &FuncCall) -> Walk<Value> {
        let FuncCall {
            funcname,
            args,
            agg_order,
            agg_filter,
            over,
            agg_within_group,
            agg_star: _,
            agg_distinct,
            func_variadic,
            funcformat: _,
            location,
        } = call;
        let at = *location;
        let Some(names) = strings(funcname) else { return construct("a function name of this form", at) };
        let shape = |arg| if is_open(arg) { Argument::Literal } else { Argument::Unknown };
        // The aggregated arguments of WITHIN GROUP stand in its ORDER BY, and in pg_proc behind the direct ones.
        let aggregated = if *agg_within_group { agg_order.len() } else { 0 };
        let aggregated = std::iter::repeat_n(Argument::Unknown, aggregated);
        let arguments: Vec<_> = args.iter().map(shape).chain(aggregated).collect();
        // A named argument may stand anywhere: any of them may then be anything.
        let named = args.iter().any(|arg| matches!(&arg.node, Some(NodeEnum::NamedArgExpr(_))));
        let reviewed = self.review(&names, &arguments, named, at)?;
        self.check_review(reviewed, &names.join("."), args, at)?;
        let is_trusted = self.trusted_call(&names);
        let values = self.arguments(args)?;
        if *agg_distinct {
            self.check_sorting(at)?;
            values.iter().try_for_each(|value| self.consume(value, Use::Key, at))?;
        }
        if !agg_order.is_empty() {
            self.check_sorting(at)?;
        }
        self.plain_order(agg_order)?;
        self.optional(agg_filter, Use::Predicate)?;
        over.as_deref().map_or(Ok(()), |window| self.window(window))?;
        let name = names.last().copied().unwrap_or_default();
        let form = CallForm {
            over_window: over.is_some(),
            filtered: agg_filter.is_some(),
            plain: args.iter().all(is_plain),
            without_arguments: args.is_empty() && agg_order.is_empty(),
        };
        self.holds_call(name, reviewed.kind, form);
        if let [argument] = values.as_slice()
            && self.snapshot.type_in(PG_CATALOG, name).is_some()
        {
            return self.called_as_type(argument, at);
        }
        let mut whole = Value { parts: 0, ..Value::computed() };
        for (arg, value) in args.iter().zip(&values) {
            let counted = self.counted(&names, arg, value)?;
            whole = self.with(&whole, counted.as_ref().unwrap_or(value))?;
        }
        // The elements of a VARIADIC array stand where the table has arguments of their own. Of a set the arguments decide how
        // many rows there are.
        let is_total =
            !func_variadic && !is_trusted && !reviewed.returns_set && self.call_is_total(&names, args, &values);
        let mut result = self.result(whole, is_total, at)?;
        result.kinds.json |= total::makes_json(name);
        result.kinds.lists |= total::makes_list(name);
        Ok(result)
    }

    /// What the server's own `count` learns of its argument: of a whole row that it is there, of a stored value whether
    /// it is NULL.
    fn counted(&mut self, names: &[&str], arg: &Node, value: &Value) -> Walk<Option<Value>> {
        let own =
            |(schemas, name): (Vec<Oid>, &str)| name == "count" && self.snapshot.is_built_in_alone(&schemas, name);
        if !self.searched(names).is_some_and(own) {
            return Ok(None);
        }
        self.operand(value)?;
        if self.is_plain_row(arg)? {
            return Ok(Some(Value::computed()));
        }
        Ok(value.flows.is_bare().then(|| Value { flows: value.flows.presence(), ..Value::computed() }))
    }

    /// The table that a text is the name of, written so that nothing about the name is left to settle.
    fn plainly_named(&self, text: &str) -> Option<Oid> {
        let is_plain = |part: &str| {
            let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            let inside = |byte: u8| letter(byte) || byte.is_ascii_digit();
            part.len() <= 63 && part.bytes().next().is_some_and(letter) && part.bytes().all(inside)
        };
        let parts: Vec<&str> = text.split('.').collect();
        if self.any_path || !parts.iter().all(|part| is_plain(part)) {
            return None;
        }
        let (schemas, name) = self.searched(&parts)?;
        let found = self.relation_in_sight(&schemas, name)?;
        let is_table = matches!(found.kind, RelationKind::Table | RelationKind::PartitionedTable);
        is_table.then_some(found.oid)
    }

    /// Can this call not fail, whatever its arguments are? Where their types are not known, only a few names can not.
    fn call_is_total(&self, names: &[&str], args: &[Node], values: &[Value]) -> bool {
        let Some((schemas, name)) = self.searched(names) else { return false };
        let typed: Vec<_> = args.iter().zip(values).map(|(arg, value)| known(arg, value)).collect();
        let kinds = values.iter().map(|value| self.kinds_of(value)).fold(Kinds::default(), Kinds::and);
        let null_keys = total::takes_keys(name) && !args.iter().step_by(2).all(is_constant);
        if null_keys || total::fails_over(name, kinds) {
            return false;
        }
        if typed.contains(&Argument::Unknown) || typed.len() != args.len() {
            return total::function(name);
        }
        self.snapshot.call_class(&schemas, name, &typed).is_some_and(|found| found.class == Class::Total)
    }

    /// Notes a call of what the operator vouches for: code that nobody has read here, and that may be replaced.
    fn trusted_call(&mut self, names: &[&str]) -> bool {
        let Some((schemas, name)) = self.searched(names) else { return false };
        let trusted: Vec<Oid> = self.snapshot.trusted_functions(&schemas, name).collect();
        let any = !trusted.is_empty();
        self.facts.user_code |= any;
        self.facts.functions.extend(trusted);
        any
    }

    /// The schemas a name is looked up in, and the name itself.
    pub(crate) fn searched<'n>(&self, names: &[&'n str]) -> Option<(Vec<Oid>, &'n str)> {
        match names {
            [name] => Some((self.path.to_vec(), name)),
            [qualifier, name] => Some((self.schema_named(qualifier).into_iter().collect(), name)),
            _ => None,
        }
    }

    /// `date(x)` of a date is no call to the server but x itself.
    pub(crate) fn called_as_type(&mut self, argument: &Value, at: i32) -> Walk<Value> {
        self.noticeable += 1;
        match argument.origin {
            Origin::Column(_) | Origin::Unknown => {
                self.consume(argument, self.place, at)?;
                Ok(Value { origin: Origin::Unknown, ..argument.clone() })
            }
            Origin::None => {
                self.consume(argument, self.place, at)?;
                Ok(Value::computed())
            }
        }
    }

    fn arguments(&mut self, args: &[Node]) -> Walk<Vec<Value>> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(match inner(arg)? {
                NodeEnum::NamedArgExpr(named) => {
                    let NamedArgExpr { xpr: _, arg, name: _, argnumber: _, location: _ } = named.as_ref();
                    self.optional_value(arg)?
                }
                _ => self.value(arg)?,
            });
        }
        Ok(values)
    }

    /// The review of what this name resolves to, whatever its arguments turn out to be.
    fn review(&mut self, names: &[&str], arguments: &[Argument], named: bool, at: i32) -> Walk<Reviewed> {
        self.spend(1)?;
        let unreviewed = || Err(Stop::Opaque { reason: OpaqueReason::Function { name: names.join(".") }, at });
        let Some((schemas, name)) = self.searched(names) else { return unreviewed() };
        let schemas = schemas.as_slice();
        // The server's own "does not exist" is the better answer, and says how close the caller was.
        if !self.function_in_sight(schemas, name) {
            return unresolved(name, at);
        }
        // In FROM, unnest(a, b) is unnest(a) beside unnest(b); elsewhere the server knows no such function.
        let arguments = if name == "unnest" { arguments.get(..1).unwrap_or_default() } else { arguments };
        let anywhere = |with| if named { vec![with; arguments.len()] } else { arguments.to_vec() };
        let shadowed = self.snapshot.user_function_visible(schemas, name, &anywhere(Argument::Literal))
            || (arguments.len() == 1 && self.snapshot.call_may_be_cast(schemas, name));
        match self.snapshot.call_class(schemas, name, &anywhere(Argument::Unknown)) {
            Some(found) if found.class == Class::Opaque => unreviewed(),
            Some(_) if shadowed => {
                named_construct(format!("function {name}, for which a user-defined one may be chosen,"), at)
            }
            Some(found) => Ok(found),
            // Of this name, but not with so many arguments: the server says so.
            None if !shadowed && self.snapshot.is_built_in_alone(schemas, name) => unresolved(name, at),
            None => unreviewed(),
        }
    }

    fn check_review(&mut self, reviewed: Reviewed, name: &str, args: &[Node], at: i32) -> Walk<()> {
        let unreviewed = || Err(Stop::Opaque { reason: OpaqueReason::Function { name: name.to_owned() }, at });
        let Some(facet) = reviewed.facet else {
            return match reviewed.class {
                Class::Total | Class::Partial | Class::Ambient | Class::Metadata => Ok(()),
                Class::Reader | Class::Effect | Class::Opaque => unreviewed(),
            };
        };
        match facet {
            Facet::Prints { .. } => Ok(()),
            Facet::LargeObject => {
                self.facts.large_objects = true;
                Ok(())
            }
            Facet::Size => {
                match args.first().and_then(literal).and_then(|name| self.plainly_named(name)) {
                    Some(relation) => {
                        self.facts.reads.insert(relation);
                        self.facts.sized.insert(relation);
                    }
                    None => self.facts.relation_sizes = true,
                }
                Ok(())
            }
            Facet::Sequence => unreviewed(),
            Facet::CurrentSetting => match args.first().and_then(literal) {
                Some(name) if self.of_policy || is_readable_setting(&name.to_ascii_lowercase()) => Ok(()),
                Some(_) => construct("current_setting of a setting that is not on the reviewed list", at),
                None => construct("current_setting of a computed name", at),
            },
            Facet::SetConfig => match args {
                [setting, value, local] if is_literal(local) => match (literal(setting), literal(value)) {
                    (Some(setting), text) if text.is_some() || is_parameter(value) => {
                        self.facts.settings.push((setting.to_ascii_lowercase(), text.map(str::to_owned)));
                        Ok(())
                    }
                    _ => construct("set_config with a computed name or value", at),
                },
                _ => construct("set_config with computed arguments", at),
            },
            Facet::Notify => match args {
                [channel, payload] => match (notify_text(channel), notify_text(payload)) {
                    (Some(channel), Some(payload)) => {
                        self.facts.session_effect.get_or_insert((name.to_owned(), at));
                        self.facts.notifies.push(Notification { channel, payload });
                        Ok(())
                    }
                    _ => construct("pg_notify with a computed channel or payload", at),
                },
                _ => construct("pg_notify of this form", at),
            },
            Facet::Sleep | Facet::AdvisoryLock if args.iter().all(is_literal) => {
                self.facts.session_effect.get_or_insert((name.to_owned(), at));
                Ok(())
            }
            Facet::Sleep | Facet::AdvisoryLock => named_construct(format!("{name} with computed arguments"), at),
        }
    }
}

/// What is known of an argument from its text and its value.
pub(crate) fn known(node: &Node, value: &Value) -> Argument {
    const INT4: Oid = Oid(23);
    match (&node.node, value.of) {
        (Some(NodeEnum::AConst(AConst { isnull: false, location: _, val: Some(a_const::Val::Ival(_)) })), _) => {
            Argument::Typed(INT4)
        }
        (Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_)), _) if is_open(node) => Argument::Literal,
        (_, Some(oid)) => Argument::Typed(oid),
        (_, None) => Argument::Unknown,
    }
}

/// A literal that is not NULL.
pub(crate) fn is_constant(node: &Node) -> bool {
    matches!(&node.node, Some(NodeEnum::AConst(AConst { isnull: false, .. })))
}

/// A string literal, bare or cast (`'x'::text`).
fn literal(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::AConst(AConst { isnull: false, location: _, val: Some(a_const::Val::Sval(text)) }) => {
            Some(&text.sval)
        }
        NodeEnum::TypeCast(cast) => literal(text_cast(cast)?),
        _ => None,
    }
}

/// A parameter, bare or cast to text.
fn is_parameter(node: &Node) -> bool {
    parameter(node).is_some()
}

fn parameter(node: &Node) -> Option<i32> {
    match &node.node {
        Some(NodeEnum::ParamRef(parameter)) => Some(parameter.number),
        Some(NodeEnum::TypeCast(cast)) => text_cast(cast).and_then(parameter),
        _ => None,
    }
}

fn notify_text(node: &Node) -> Option<NotifyText> {
    let parameter = || parameter(node).map(NotifyText::Parameter);
    literal(node).map(|text| NotifyText::Literal(text.to_owned())).or_else(parameter)
}

/// What is cast to text.
fn text_cast(cast: &TypeCast) -> Option<&Node> {
    let TypeCast { arg, type_name, location: _ } = cast;
    let names = strings(&type_name.as_ref()?.names)?;
    if matches!(names.as_slice(), ["text"] | ["pg_catalog", "text"]) { arg.as_deref() } else { None }
}

fn is_literal(node: &Node) -> bool {
    match &node.node {
        Some(NodeEnum::AConst(_)) => true,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_literal),
        _ => false,
    }
}

/// A column as it is, or a constant.
fn is_plain(node: &Node) -> bool {
    matches!(&node.node, Some(NodeEnum::ColumnRef(_) | NodeEnum::AConst(_)))
}
