//! Types, and the user-defined functions, operators and casts that could run instead of a reviewed built-in.
//! Answers one question: may this run code we have not read? When in doubt, yes.

use super::{Argument, CatalogSnapshot, FIRST_USER_OID, Oid, PG_CATALOG, RelationKind};
use crate::classes::{Class, Entry, Printing};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) class: TypeClass,
    pub(crate) input: Oid,
    pub(crate) output: Oid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeClass {
    Base,
    Array { element: Oid },
    Composite,
    Domain { base: Oid },
    Enum,
    Range,
    Pseudo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserFunction {
    pub(crate) oid: Oid,
    pub(crate) schema: Oid,
    pub(crate) arguments: Vec<Oid>,
    /// A member of an extension that the tables know.
    pub(crate) reviewed: Option<&'static Entry>,
    /// Of its whole definition; `None` for a member of an extension or an aggregate.
    pub(crate) definition: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserOperator {
    pub(crate) schema: Oid,
    /// 0 for a prefix operator.
    pub(crate) left: Oid,
    pub(crate) right: Oid,
    /// The function behind it, a member of an extension that the tables know.
    pub(crate) reviewed: Option<&'static Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserCast {
    pub(crate) source: Oid,
    pub(crate) target: Oid,
    pub(crate) runs_user_function: bool,
    pub(crate) class: Class,
    pub(crate) context: CastContext,
}

/// When the server applies a cast without being asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CastContext {
    Implicit,
    /// In INSERT and UPDATE only.
    Assignment,
    Explicit,
}

/// Which operands are untyped literals or parameters: they take the type of whatever operator is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Operands {
    pub(crate) left_open: bool,
    pub(crate) right_open: bool,
}

/// What makes comparing or printing a value fail that otherwise could not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    /// Rows, compared column by column until one differs or is of a type without equality.
    pub(crate) rows: bool,
    /// Arrays, which are put together only where their dimensions fit.
    pub(crate) lists: bool,
    /// JSON as text, which JSONB may not take.
    pub(crate) json: bool,
    /// A type that prints by code of its own.
    pub(crate) odd: bool,
}

impl Kinds {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows || other.rows,
            lists: self.lists || other.lists,
            json: self.json || other.json,
            odd: self.odd || other.odd,
        }
    }
}

/// A parameter whose type the client leaves to the server, and the type of a literal without one.
const UNSPECIFIED: Oid = Oid(0);
const UNKNOWN: Oid = Oid(705);

/// Chains of domains over arrays over domains end; a row that says otherwise is not believed.
const TYPE_DEPTH_MAX: u8 = 32;

impl CatalogSnapshot {
    /// May working with a value of this type (comparing, sorting, calling a function on it) run code that did not
    /// come with the server? Also the test for parameter types that a client declares in Parse: refuse those.
    pub fn type_runs_code(&self, oid: Oid) -> bool {
        self.runs_code(oid, TYPE_DEPTH_MAX)
    }

    fn runs_code(&self, oid: Oid, depth: u8) -> bool {
        if oid < FIRST_USER_OID {
            return false;
        }
        let Some(depth) = depth.checked_sub(1) else { return true };
        match self.types.get(&oid).map(|known| known.class) {
            Some(TypeClass::Enum) => false,
            Some(TypeClass::Array { element }) => self.runs_code(element, depth),
            Some(TypeClass::Domain { base }) => self.runs_code(base, depth),
            Some(TypeClass::Base) => !self.is_extension_type(oid),
            // Rows are worked with column by column.
            Some(TypeClass::Composite) => {
                self.has_code_of_its_own(oid)
                    || self.fields(oid).is_none_or(|mut fields| fields.any(|field| self.runs_code(field, depth)))
            }
            Some(TypeClass::Range | TypeClass::Pseudo) | None => true,
        }
    }

    /// Casts or a default operator class of this type.
    fn has_code_of_its_own(&self, oid: Oid) -> bool {
        let of_casts = |cast: &UserCast| cast.runs_user_function && (cast.source == oid || cast.target == oid);
        self.casts.iter().any(of_casts) || self.default_opclass_types.contains(&oid)
    }

    /// What a value of this type is made of, as far as comparing and printing it are concerned.
    pub(crate) fn type_kinds(&self, oid: Oid) -> Kinds {
        let fails = |form| self.print_class(form, oid) != Class::Total;
        let odd = fails(Printing::Json);
        let class = self.types.get(&self.base_type(oid)).map(|known| known.class);
        let lists = matches!(class, Some(TypeClass::Array { .. } | TypeClass::Pseudo) | None);
        Kinds { rows: self.holds_rows(oid, TYPE_DEPTH_MAX), lists, json: odd || fails(Printing::Jsonb), odd }
    }

    fn holds_rows(&self, oid: Oid, depth: u8) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return true };
        match self.types.get(&self.base_type(oid)).map(|known| known.class) {
            Some(TypeClass::Array { element }) => self.holds_rows(element, depth),
            Some(TypeClass::Base | TypeClass::Enum | TypeClass::Range) => false,
            Some(TypeClass::Composite | TypeClass::Pseudo | TypeClass::Domain { .. }) | None => true,
        }
    }

    /// A base type whose input and output are members of an extension that the tables know: only a superuser makes
    /// base types, and these two functions belong to one extension's type.
    fn is_extension_type(&self, oid: Oid) -> bool {
        let known = self.types.get(&oid);
        known.is_some_and(|known| self.is_reviewed(known.input) && self.is_reviewed(known.output))
    }

    /// Functions of this name that the operator vouches for.
    pub(crate) fn trusted_functions(&self, schemas: &[Oid], name: &str) -> impl Iterator<Item = Oid> {
        let named = self.functions.get(name).into_iter().flatten();
        let visible = named.filter(|function| schemas.contains(&function.schema)).map(|function| function.oid);
        visible.filter(|oid| self.trusts_function(*oid))
    }

    /// Is this function, or operator's function, one that only computes, or that the operator vouches for?
    pub(super) fn is_harmless(&self, function: Oid) -> bool {
        let reviewed = self.reviewed_functions.get(&function);
        reviewed.is_some_and(|entry| entry.class <= Class::Metadata) || self.trusts_function(function)
    }

    /// Is this a member of an extension that the tables know and do not leave opaque?
    pub(super) fn is_reviewed(&self, function: Oid) -> bool {
        self.reviewed_functions.get(&function).is_some_and(|entry| entry.class != Class::Opaque)
    }

    /// `anyelement`, `record`, `cstring` and the like: no value is stored as one.
    pub(crate) fn is_server_pseudo(&self, oid: Oid) -> bool {
        oid < FIRST_USER_OID && self.types.get(&oid).map(|known| known.class) == Some(TypeClass::Pseudo)
    }

    /// The type that the server announces for a column of this one: a domain's values go out as its base type's.
    pub fn base_type(&self, oid: Oid) -> Oid {
        let mut oid = oid;
        for _ in 0..TYPE_DEPTH_MAX {
            match self.types.get(&oid).map(|known| known.class) {
                Some(TypeClass::Domain { base }) => oid = base,
                Some(_) | None => break,
            }
        }
        oid
    }

    /// One value, not a row and not a list. Unknown types are not.
    pub(crate) fn is_scalar(&self, oid: Oid) -> bool {
        match self.types.get(&self.base_type(oid)).map(|known| known.class) {
            Some(TypeClass::Base | TypeClass::Enum | TypeClass::Range) => true,
            Some(TypeClass::Array { .. } | TypeClass::Composite | TypeClass::Domain { .. } | TypeClass::Pseudo)
            | None => false,
        }
    }

    pub(crate) fn is_scalar_array(&self, oid: Oid) -> bool {
        match self.types.get(&self.base_type(oid)).map(|known| known.class) {
            Some(TypeClass::Array { element }) => self.is_scalar(element),
            Some(_) | None => false,
        }
    }

    /// May a parameter of this type hold rows? Row types that come with the server included.
    pub fn type_holds_rows(&self, oid: Oid) -> bool {
        if oid == UNSPECIFIED || oid == UNKNOWN {
            return false;
        }
        !self.is_scalar(oid) && !self.is_scalar_array(oid)
    }

    /// May a cast to this type run a user's code: a domain's checks, an input function, a user's cast function?
    pub(crate) fn cast_runs_code(&self, oid: Oid) -> bool {
        let by_cast = self
            .casts
            .iter()
            .any(|cast| cast.runs_user_function && cast.target == oid && self.enters_expressions(cast.source));
        by_cast || self.input_runs_code(oid, TYPE_DEPTH_MAX)
    }

    fn input_runs_code(&self, oid: Oid, depth: u8) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return true };
        match self.types.get(&oid).map(|known| known.class) {
            Some(TypeClass::Enum) => false,
            Some(TypeClass::Array { element }) => self.input_runs_code(element, depth),
            Some(TypeClass::Base) => oid >= FIRST_USER_OID && !self.is_extension_type(oid),
            Some(TypeClass::Range | TypeClass::Domain { .. }) => oid >= FIRST_USER_OID,
            Some(TypeClass::Composite | TypeClass::Pseudo) | None => true,
        }
    }

    /// Is there a user's cast that the server may apply on its own between types every statement uses?
    pub(crate) fn has_hidden_casts(&self) -> bool {
        self.casts.iter().any(|cast| {
            cast.runs_user_function
                && cast.context != CastContext::Explicit
                && !self.type_runs_code(cast.source)
                && !self.type_runs_code(cast.target)
        })
    }

    /// Does a user's default operator class stand behind sorting or grouping of a type that enters expressions?
    pub(crate) fn has_hidden_opclass(&self) -> bool {
        self.default_opclass_types.iter().any(|oid| *oid < FIRST_USER_OID)
    }

    /// Can a value of this type be an operand? Values of types that run code cannot: using such a column makes
    /// the statement opaque before any candidate is chosen, unless a built-in value turns into one by itself.
    fn enters_expressions(&self, oid: Oid) -> bool {
        let implicit = |cast: &&UserCast| cast.context == CastContext::Implicit && cast.target == oid;
        // Of a whole row nobody says which type it is of.
        let is_row = matches!(self.types.get(&oid).map(|known| known.class), Some(TypeClass::Composite));
        is_row
            || !self.type_runs_code(oid)
            || self.casts.iter().filter(implicit).any(|cast| !self.type_runs_code(cast.source))
    }

    /// May a call of `name` by a session that searches `schemas` run a user's function? Arity does not count, for
    /// defaults and VARIADIC bend it, save for a member of an extension, whose defaults the tables know.
    pub(crate) fn user_function_visible(&self, schemas: &[Oid], name: &str, arguments: &[Argument]) -> bool {
        self.functions.get(name).into_iter().flatten().any(|function| {
            let fits = |(oid, argument): (&Oid, &Argument)| argument.is_open() || self.enters_expressions(*oid);
            function.reviewed.is_none_or(|entry| entry.class == Class::Opaque && entry.takes(arguments.len()))
                && !self.trusts_function(function.oid)
                && schemas.contains(&function.schema)
                && function.arguments.iter().zip(arguments).all(fits)
        })
    }

    /// The same for an operator; a prefix operator has a right operand only.
    pub(crate) fn user_operator_visible(&self, schemas: &[Oid], name: &str, operands: Operands) -> bool {
        self.operators.get(name).into_iter().flatten().any(|operator| {
            let left = operands.left_open || operator.left == Oid(0) || self.enters_expressions(operator.left);
            let right = operands.right_open || self.enters_expressions(operator.right);
            operator.reviewed.is_none_or(|entry| entry.class == Class::Opaque)
                && schemas.contains(&operator.schema)
                && left
                && right
        })
    }

    /// Does any function, or any type that could be cast to by calling it, go by this name in these schemas?
    pub(crate) fn function_exists(&self, schemas: &[Oid], name: &str) -> bool {
        self.function_named(schemas, name) || schemas.iter().any(|schema| self.type_in(*schema, name).is_some())
    }

    pub(crate) fn function_named(&self, schemas: &[Oid], name: &str) -> bool {
        let built_in = schemas.contains(&PG_CATALOG) && self.built_in_functions.contains_key(name);
        let users = self.functions.get(name).into_iter().flatten();
        built_in || users.into_iter().any(|function| schemas.contains(&function.schema))
    }

    /// Are all functions and types of this name in these schemas reviewed functions of the server?
    pub(crate) fn is_built_in_alone(&self, schemas: &[Oid], name: &str) -> bool {
        let mut users = self.functions.get(name).into_iter().flatten();
        schemas.contains(&PG_CATALOG)
            && self.built_in_functions.get(name) == Some(&true)
            && !users.any(|function| schemas.contains(&function.schema))
            && schemas.iter().all(|schema| self.type_in(*schema, name).is_none())
    }

    /// Does a user's operator of this name exist anywhere?
    pub(crate) fn user_operator_exists(&self, name: &str) -> bool {
        self.operators.contains_key(name)
    }

    /// Functions, operators, and types that are not rows of its relations or arrays.
    pub(crate) fn schema_holds_more_than_relations(&self, schema: Oid) -> bool {
        let is_plain = |(name, oid): (&String, &Oid)| match self.types.get(oid).map(|known| known.class) {
            Some(TypeClass::Composite) => {
                self.relation_in(schema, name).is_some_and(|relation| relation.kind != RelationKind::CompositeType)
            }
            Some(TypeClass::Array { element }) => self.types.get(&element).is_some_and(|element| {
                element.class == TypeClass::Composite && self.type_in(schema, &element.name).is_some()
            }),
            Some(
                TypeClass::Base | TypeClass::Domain { .. } | TypeClass::Enum | TypeClass::Range | TypeClass::Pseudo,
            )
            | None => false,
        };
        self.functions.values().flatten().any(|function| function.schema == schema)
            || self.operators.values().flatten().any(|operator| operator.schema == schema)
            || !self.type_oids.get(&schema).into_iter().flatten().all(is_plain)
    }

    pub(crate) fn type_in(&self, schema: Oid, name: &str) -> Option<Oid> {
        self.type_oids.get(&schema)?.get(name).copied()
    }

    pub fn type_name(&self, oid: Oid) -> Option<&str> {
        self.types.get(&oid).map(|known| known.name.as_str())
    }

    /// A user's type of this name would turn a one-argument call into a cast to it.
    pub(crate) fn call_may_be_cast(&self, schemas: &[Oid], name: &str) -> bool {
        schemas.iter().filter_map(|schema| self.type_in(*schema, name)).any(|oid| {
            let composite = matches!(self.types.get(&oid).map(|known| known.class), Some(TypeClass::Composite));
            oid >= FIRST_USER_OID && !composite && self.input_runs_code(oid, TYPE_DEPTH_MAX)
        })
    }
}
