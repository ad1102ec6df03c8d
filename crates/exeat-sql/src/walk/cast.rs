//! Casts and type names: which type a name means on the search path, and whether casting to it runs a user's code.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{AConst, Node, TypeCast, TypeName, a_const};

use super::scope::Value;
use super::{Stop, Walk, Walker, construct, strings, unresolved};
use crate::catalog::{ColumnId, Oid};
use crate::{OpaqueReason, Use};

/// PostgreSQL 14 gained and lost, in minor releases, the rule by which `varchar(80)::varchar` keeps its origin.
const FIRST_SETTLED_VERSION: u32 = 150_000;

/// What a cast of a column to its own type leaves of it.
enum SameType {
    Column,
    Computed,
    Unknown,
}

impl Walker<'_> {
    pub(crate) fn cast(&mut self, cast: &TypeCast, how: Use) -> Walk<()> {
        let TypeCast { arg, type_name, location } = cast;
        let Some(of) = type_name else { return construct("a cast of this form", *location) };
        self.cast_target(of)?;
        self.optional(arg, how)
    }

    /// A cast whose value is passed on: one to the column's own type is no cast at all, and keeps the origin.
    pub(crate) fn cast_value(&mut self, cast: &TypeCast, how: Use) -> Walk<Value> {
        let TypeCast { arg: Some(arg), type_name: Some(of), location } = cast else {
            return construct("a cast of this form", cast.location);
        };
        let target = self.cast_target(of)?;
        let value = self.value(arg, how)?;
        let column = match &value {
            Value::Column(column) => *column,
            Value::Computed(_) => {
                self.consume(&value, how, *location)?;
                return Ok(Value::computed());
            }
            Value::Unpredictable(_) => return Ok(value),
        };
        let own_type = self.snapshot.column(column).map(|known| known.type_oid);
        if !of.array_bounds.is_empty() || own_type.is_none() {
            return Ok(Value::Unpredictable(Rc::from([column])));
        }
        if own_type != Some(target) {
            self.consume(&value, how, *location)?;
            return Ok(Value::computed());
        }
        match self.same_type_cast(column, of) {
            SameType::Column => Ok(value),
            SameType::Computed => {
                self.consume(&value, how, *location)?;
                Ok(Value::computed())
            }
            SameType::Unknown => Ok(Value::Unpredictable(Rc::from([column]))),
        }
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
            [name] => self.path.iter().find_map(|schema| self.snapshot.type_in(*schema, name)),
            [schema, name] => self.schema_named(schema).and_then(|schema| self.snapshot.type_in(schema, name)),
            _ => return construct("a type name of this form", at),
        };
        match found {
            None => unresolved(&names.join("."), at),
            Some(oid) if self.snapshot.cast_runs_code(oid) => {
                Err(Stop::Opaque { reason: OpaqueReason::Type { name: names.join(".") }, at })
            }
            Some(oid) => Ok(oid),
        }
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
