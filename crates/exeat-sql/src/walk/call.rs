//! Function calls: only names of the reviewed list, only where no user's function could answer instead.

use pg_query::NodeEnum;
use pg_query::protobuf::{AConst, FuncCall, NamedArgExpr, Node, TypeCast, a_const};

use super::expr::is_open;
use super::scope::Value;
use super::{Stop, Walk, Walker, construct, inner, named_construct, strings, total, unresolved};
use crate::catalog::PG_CATALOG;
use crate::functions::{self, Review};
use crate::{Notification, NotifyText, OpaqueReason, Origin, Use};

impl Walker<'_> {
    pub(crate) fn call(&mut self, call: &FuncCall) -> Walk<Value> {
        let FuncCall {
            funcname,
            args,
            agg_order,
            agg_filter,
            over,
            agg_within_group: _,
            agg_star: _,
            agg_distinct,
            func_variadic: _,
            funcformat: _,
            location,
        } = call;
        let at = *location;
        let Some(names) = strings(funcname) else { return construct("a function name of this form", at) };
        let open: Vec<bool> = args.iter().map(is_open).collect();
        // A named argument may stand anywhere: all places are then open.
        let named = args.iter().any(|arg| matches!(&arg.node, Some(NodeEnum::NamedArgExpr(_))));
        let open = if named { vec![true; open.len()] } else { open };
        let review = self.review(&names, &open, at)?;
        self.check_review(review, &names.join("."), args, at)?;
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
        if let [argument] = values.as_slice()
            && self.snapshot.type_in(PG_CATALOG, name).is_some()
        {
            return self.called_as_type(argument, at);
        }
        let mut whole = Value { parts: 0, ..Value::computed() };
        for value in &values {
            whole = self.with(&whole, value)?;
        }
        self.result(whole, review == Review::Free && total::function(name), at)
    }

    /// `date(x)` of a date is no call to the server but x itself.
    fn called_as_type(&mut self, argument: &Value, at: i32) -> Walk<Value> {
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
    fn review(&mut self, names: &[&str], open: &[bool], at: i32) -> Walk<Review> {
        self.spend(1)?;
        let unreviewed = || Err(Stop::Opaque { reason: OpaqueReason::Function { name: names.join(".") }, at });
        let pg_catalog = [PG_CATALOG];
        let (schemas, name) = match names {
            [name] => (self.path, *name),
            ["pg_catalog", name] => (&pg_catalog[..], *name),
            _ => return unreviewed(),
        };
        // The server's own "does not exist" is the better answer, and says how close the caller was.
        if !self.snapshot.function_exists(schemas, name) {
            return unresolved(name, at);
        }
        let shadowed = self.snapshot.user_function_visible(schemas, name, open)
            || (open.len() == 1 && self.snapshot.call_may_be_cast(schemas, name));
        match functions::review(name) {
            Some(_) if shadowed => {
                named_construct(format!("function {name}, for which a user-defined one may be chosen,"), at)
            }
            Some(review) => Ok(review),
            None => unreviewed(),
        }
    }

    fn check_review(&mut self, review: Review, name: &str, args: &[Node], at: i32) -> Walk<()> {
        match review {
            Review::Free => Ok(()),
            Review::Reader => {
                self.facts.large_objects = true;
                Ok(())
            }
            Review::Size => {
                self.facts.relation_sizes = true;
                Ok(())
            }
            Review::CurrentSetting => match args.first().and_then(literal) {
                Some(name) if functions::is_readable_setting(&name.to_ascii_lowercase()) => Ok(()),
                Some(_) => construct("current_setting of a setting that is not on the reviewed list", at),
                None => construct("current_setting of a computed name", at),
            },
            Review::SetConfig => match args {
                [setting, value, local] if is_literal(local) => match (literal(setting), literal(value)) {
                    (Some(setting), text) if text.is_some() || is_parameter(value) => {
                        self.facts.settings.push((setting.to_ascii_lowercase(), text.map(str::to_owned)));
                        Ok(())
                    }
                    _ => construct("set_config with a computed name or value", at),
                },
                _ => construct("set_config with computed arguments", at),
            },
            Review::Notify => match args {
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
            Review::Effect if args.iter().all(is_literal) => {
                self.facts.session_effect.get_or_insert((name.to_owned(), at));
                Ok(())
            }
            Review::Effect => named_construct(format!("{name} with computed arguments"), at),
        }
    }
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
