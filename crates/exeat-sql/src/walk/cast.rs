//! Casts and type names: which type a name means on the search path, and whether casting to it runs a user's code.

use pg_query::NodeEnum;
use pg_query::protobuf::{AConst, Node, TypeCast, TypeName, a_const};

use super::expr::is_open;
use super::scope::Value;
use super::{Stop, Walk, Walker, construct, inner, strings, unresolved};
use crate::catalog::{Argument, ColumnId, Oid};
use crate::classes::Class;
use crate::{OpaqueReason, Origin};

/// PostgreSQL 14 gained and lost, in minor releases, the rule by which `varchar(80)::varchar` keeps its origin.
const FIRST_SETTLED_VERSION: u32 = 150_000;

/// text, varchar and bpchar: an explicit cast cuts what is too long.
const STRINGS: [Oid; 3] = [Oid(25), Oid(1043), Oid(1042)];

/// Source and target, by their fixed numbers: smallint 21, integer 23, bigint 20, real 700, double 701, numeric 1700,
/// boolean 16, date 1082, time 1083, timestamp 1114, timestamptz 1184, json 114, jsonb 3802, name 19.
const WIDENING: [(u32, u32); 19] = [
    (21, 23),
    (21, 20),
    (21, 1700),
    (21, 700),
    (21, 701),
    (23, 20),
    (23, 1700),
    (23, 700),
    (23, 701),
    (23, 16),
    (20, 1700),
    (20, 700),
    (20, 701),
    (700, 701),
    (16, 23),
    (1114, 1082),
    (1184, 1082),
    (1114, 1083),
    (3802, 114),
];

/// What a cast of a column to its own type leaves of it.
enum SameType {
    Column,
    Computed,
    Unknown,
}

impl Walker<'_> {
    /// A cast to the column's own type is no cast at all, and keeps the origin.
    pub(crate) fn cast(&mut self, cast: &TypeCast) -> Walk<Value> {
        let TypeCast { arg: Some(arg), type_name: Some(of), location } = cast else {
            return construct("a cast of this form", cast.location);
        };
        let target = self.type_named(of)?;
        // The server leaves the value as it is, or says that there is none of such a type.
        if self.snapshot.is_server_pseudo(target) && of.array_bounds.is_empty() {
            let value = self.value(arg)?;
            self.operand(&value)?;
            return self.called_as_type(&value, *location);
        }
        let target = self.cast_target(of)?;
        let value = self.value(arg)?;
        let is_array = !of.array_bounds.is_empty();
        let kinds = self.snapshot.type_kinds(target);
        let whole = Value { of: (!is_array).then_some(target), null: value.null, kinds, ..self.changed(&value) };
        let column = match value.origin {
            Origin::Column(column) => column,
            Origin::Unknown => return Ok(value),
            // What is cast to where it is written down fails there, whatever else happens.
            Origin::None if is_open(arg) || matches!(inner(arg)?, NodeEnum::AConst(_)) => return Ok(whole),
            Origin::None => return self.cast_whole(&value, whole, is_array, *location),
        };
        if is_array || value.of.is_none() {
            self.noticeable += 1;
            return Ok(Value { origin: Origin::Unknown, of: None, kinds, ..value });
        }
        if value.of != Some(target) {
            return self.cast_whole(&value, whole, is_array, *location);
        }
        match self.same_type_cast(column, of) {
            SameType::Column => Ok(value),
            SameType::Computed if STRINGS.contains(&target) => {
                self.operand(&value)?;
                Ok(whole)
            }
            SameType::Computed => {
                self.noticeable += 1;
                self.consume(&value, self.place, *location)?;
                Ok(Value { of: Some(target), ..Value::computed() })
            }
            SameType::Unknown => Ok(Value { origin: Origin::Unknown, ..value }),
        }
    }

    /// A cast that changes the value, or may.
    fn cast_whole(&mut self, value: &Value, whole: Value, is_array: bool, at: i32) -> Walk<Value> {
        let is_total = !is_array && whole.of.is_some_and(|target| self.cast_is_total(value.of, target));
        self.noticeable += usize::from(!is_total);
        if value.flows.is_empty() {
            return Ok(Value { parts: value.parts, ..whole });
        }
        self.operand(value)?;
        if is_total {
            return Ok(whole);
        }
        self.consume(value, self.place, at)?;
        Ok(Value { of: whole.of, kinds: whole.kinds, ..Value::computed() })
    }

    /// Casts that cannot fail: to text from anything that comes with the server, to a wider number, to less of a
    /// time, from a domain to what it is made of.
    pub(crate) fn cast_is_total(&self, source: Option<Oid>, target: Oid) -> bool {
        if STRINGS.contains(&target) {
            let class = |oid| self.snapshot.cast_class(Argument::Typed(oid), target, false);
            return source.is_none_or(|oid| class(oid) == Class::Total);
        }
        let Some(source) = source.map(|oid| self.snapshot.base_type(oid)) else { return false };
        source == target || WIDENING.contains(&(source.0, target.0))
    }

    fn same_type_cast(&self, column: ColumnId, of: &TypeName) -> SameType {
        let own = self.snapshot.type_modifier(column);
        let wanted = modifier(of);
        match wanted {
            Some(wanted) if wanted == own => SameType::Column,
            Some(_) if self.snapshot.server_version() >= FIRST_SETTLED_VERSION => SameType::Computed,
            Some(_) | None => SameType::Unknown,
        }
    }

    /// The type a cast names, if casting to it runs no code but the server's.
    pub(crate) fn cast_target(&mut self, of: &TypeName) -> Walk<Oid> {
        let oid = self.type_named(of)?;
        if self.snapshot.cast_runs_code(oid) {
            let name = strings(&of.names).unwrap_or_default().join(".");
            return Err(Stop::Opaque { reason: OpaqueReason::Type { name }, at: of.location });
        }
        Ok(oid)
    }

    fn type_named(&mut self, of: &TypeName) -> Walk<Oid> {
        let TypeName { names, type_oid: _, setof, pct_type, typmods, typemod: _, array_bounds: _, location } = of;
        let at = *location;
        if *setof || *pct_type {
            return construct("a type of this form", at);
        }
        if !typmods.iter().all(|node| matches!(&node.node, Some(NodeEnum::AConst(_)))) {
            return construct("a type modifier that is not a constant", at);
        }
        let Some(names) = strings(names) else { return construct("a type name of this form", at) };
        self.spend(1)?;
        let found = match names.as_slice() {
            [name] => {
                let bent = |schema: &&Oid| self.snapshot.type_in(**schema, name).is_some();
                if self.any_path && self.path.iter().filter(bent).count() > 1 {
                    return construct("a type that the path of another role decides", at);
                }
                self.type_in_sight(&self.path, name)
            }
            [schema, name] => self.schema_named(schema).and_then(|schema| self.type_in_sight(&[schema], name)),
            _ => return construct("a type name of this form", at),
        };
        found.map_or_else(|| unresolved(&names.join("."), at), Ok)
    }

    /// A schema by name; pg_temp is the session's own, if the path has one.
    pub(crate) fn schema_named(&self, name: &str) -> Option<Oid> {
        if name != "pg_temp" {
            return self.snapshot.schema_by_name(name);
        }
        let own = |schema: &&Oid| self.snapshot.schema_name(**schema).is_some_and(|name| name.starts_with("pg_temp_"));
        self.path.iter().find(own).copied()
    }
}

/// The modifier a type name gives, as the server encodes it; `None` where we do not know the encoding.
fn modifier(of: &TypeName) -> Option<i32> {
    const HEADER: i32 = 4;
    let name = strings(&of.names)?.last().copied()?;
    let numbers = of.typmods.iter().map(number).collect::<Option<Vec<_>>>()?;
    match (name, numbers.as_slice()) {
        // `char` without length is char(1).
        ("bpchar", []) => None,
        (_, []) => Some(-1),
        ("varchar" | "bpchar", [length]) => length.checked_add(HEADER),
        ("numeric", [precision]) => precision.checked_mul(1 << 16)?.checked_add(HEADER),
        ("numeric", [precision, scale @ 0..=1000]) => precision.checked_mul(1 << 16)?.checked_add(scale + HEADER),
        ("timestamp" | "timestamptz" | "time" | "timetz", [precision @ 0..=6]) => Some(*precision),
        _ => None,
    }
}

fn number(node: &Node) -> Option<i32> {
    match &node.node {
        Some(NodeEnum::AConst(AConst { isnull: false, location: _, val: Some(a_const::Val::Ival(number)) })) => {
            Some(number.ival)
        }
        _ => None,
    }
}
