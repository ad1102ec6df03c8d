//! What becomes of values that meet: through something total they stay in the result, through anything else they
//! are noted as used where that happens, and as alternatives each of them may be the result.

use pg_query::protobuf::Node;

use super::flows::Flows;
use super::scope::{PARTS_MAX, Value};
use super::select::Target;
use super::{Stop, Walk, Walker};
use crate::catalog::{Kinds, Oid};
use crate::{Flow, OpaqueReason, Origin, Use};

impl Walker<'_> {
    /// The values of these nodes, all in one that is made from them by what cannot fail.
    pub(crate) fn total_of<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Node>) -> Walk<Value> {
        let mut whole = Value { parts: 0, ..Value::computed() };
        for node in nodes {
            let value = self.value(node)?;
            whole = self.with(&whole, &value)?;
        }
        Ok(whole)
    }

    /// All of these values in one.
    pub(crate) fn all_of(&mut self, values: &[Value]) -> Walk<Value> {
        let whole = Value { parts: 0, ..Value::computed() };
        values.iter().try_fold(whole, |whole, value| self.with(&whole, value))
    }

    /// `whole` and one more value in it.
    pub(crate) fn with(&mut self, whole: &Value, value: &Value) -> Walk<Value> {
        self.operand(value)?;
        let flows = self.united(&whole.flows, &value.flows.total())?;
        let kinds = self.kinds_of(whole).and(self.kinds_of(value));
        Ok(Value { flows, parts: whole.parts.saturating_add(value.parts), kinds, ..Value::computed() })
    }

    /// A value made over by what cannot fail.
    pub(crate) fn changed(&self, value: &Value) -> Value {
        let flows = value.flows.total();
        Value { flows, parts: value.parts, kinds: self.kinds_of(value), ..Value::computed() }
    }

    pub(crate) fn kinds_of(&self, value: &Value) -> Kinds {
        value.of.map_or(value.kinds, |oid| self.snapshot.type_kinds(oid))
    }

    /// An output that reaches the client.
    pub(crate) fn projected(&mut self, target: &Target) -> Walk<()> {
        let streams = target.value.flows.list();
        self.spend(streams.len())?;
        streams.iter().try_for_each(|stream| {
            let how = match stream.how {
                Flow::Bare => Use::Projected,
                Flow::Total | Flow::Presence => Use::Derived,
            };
            self.record(stream.column, how, if stream.at < 0 { target.at } else { stream.at })
        })
    }

    pub(crate) fn united(&mut self, left: &Flows, right: &Flows) -> Walk<Flows> {
        self.spend(left.list().len() + right.list().len())?;
        Ok(left.union(right))
    }

    /// The values of these nodes go through something that may fail or says more than its result.
    pub(crate) fn partial_of<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Node>) -> Walk<Value> {
        nodes.into_iter().try_for_each(|node| self.expr(node, self.place))?;
        self.noticeable += 1;
        Ok(Value::computed())
    }

    /// The result of a function or operator: total as long as it is not built from very many values.
    pub(crate) fn result(&mut self, arguments: Value, is_total: bool, at: i32) -> Walk<Value> {
        if is_total && arguments.parts <= PARTS_MAX {
            return Ok(arguments);
        }
        self.noticeable += 1;
        self.consume(&arguments, self.place, at)?;
        Ok(Value { kinds: self.kinds_of(&arguments), ..Value::computed() })
    }

    /// A value of a type with code of its own may be given to nothing: that code would run.
    pub(crate) fn operand(&mut self, value: &Value) -> Walk<()> {
        let streams = value.flows.list();
        self.spend(streams.len())?;
        // What is changed was an operand before.
        for stream in streams.iter().filter(|stream| stream.how == Flow::Bare) {
            let known = self.snapshot.column(stream.column);
            if let Some(known) = known.filter(|known| self.snapshot.type_runs_code(known.type_oid)) {
                let name = self.snapshot.type_name(known.type_oid).unwrap_or("of a column").to_owned();
                return Err(Stop::Opaque { reason: OpaqueReason::Type { name }, at: stream.at });
            }
        }
        Ok(())
    }

    /// The result is one of these values, and what chooses is noted already. It stays bare only where every
    /// alternative is a stored value: what a client writes itself must not come back masked as its neighbour is,
    /// or the masks of chosen values tell which one the neighbour has.
    pub(crate) fn alternatives<'v>(&mut self, values: impl IntoIterator<Item = &'v Value>) -> Walk<Value> {
        let mut found: Option<Value> = None;
        let (mut kinds, mut nulls) = (Kinds::default(), None);
        for value in values {
            kinds = kinds.and(self.kinds_of(value));
            found = match found {
                // Nothing to choose, but it may say what type the others are of.
                found if value.null => {
                    nulls = nulls.or(value.of);
                    found
                }
                None => Some(Value { origin: Origin::None, ..value.clone() }),
                Some(found) => Some(self.either(&found, value)?),
            };
        }
        let found = found.unwrap_or_else(|| Value { null: true, ..Value::computed() });
        let of = found.of.filter(|of| nulls.is_none_or(|nulls| nulls == *of));
        Ok(Value { of, kinds, ..found })
    }

    fn either(&mut self, left: &Value, right: &Value) -> Walk<Value> {
        // Bringing both to one type may run code of either.
        if left.of != right.of {
            self.operand(left)?;
            self.operand(right)?;
        }
        if self.meeting_may_fail(left.of, right.of) {
            self.noticeable += 1;
            self.consume(left, self.place, super::NOWHERE)?;
            self.consume(right, self.place, super::NOWHERE)?;
            return Ok(Value::computed());
        }
        let kinds = self.kinds_of(left).and(self.kinds_of(right));
        let flows = self.united(&left.flows, &right.flows)?;
        let flows = if left.flows.is_bare() && right.flows.is_bare() { flows } else { flows.total() };
        let of = if left.of == right.of { left.of } else { None };
        Ok(Value { flows, of, parts: left.parts.max(right.parts), kinds, ..Value::computed() })
    }

    /// Implicit casts that fail for values out of the other type's range.
    fn meeting_may_fail(&self, left: Option<Oid>, right: Option<Oid>) -> bool {
        let (Some(left), Some(right)) = (left, right) else { return false };
        let pair = [self.snapshot.base_type(left), self.snapshot.base_type(right)];
        NARROWING.iter().any(|narrowing| narrowing.iter().all(|oid| pair.contains(oid)))
    }
}

/// numeric with float4 and float8; date with timestamp and timestamptz, and these two with each other.
const NARROWING: [[Oid; 2]; 5] = [
    [Oid(1700), Oid(700)],
    [Oid(1700), Oid(701)],
    [Oid(1082), Oid(1114)],
    [Oid(1082), Oid(1184)],
    [Oid(1114), Oid(1184)],
];
