//! The class of a call, an operator or a cast: the worst over every reviewed candidate that the server might choose.
//! A candidate is left out only where the server certainly does not choose it; what is unknown about an argument
//! leaves all candidates in. Users' functions are not judged here: `user_function_visible` finds them first.

use super::types::{CastContext, Type, TypeClass};
use super::{CatalogSnapshot, FIRST_USER_OID, Oid, PG_CATALOG};
use crate::classes::{self, Class, Facet, Kind, Parameter, Printing};

/// What is known of an argument or operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument {
    /// A literal without a type, or a parameter: it takes the type of whatever is chosen.
    Literal,
    /// An expression of this type. Only where the type is certain.
    Typed(Oid),
    Unknown,
}

impl Argument {
    pub(crate) fn is_open(self) -> bool {
        self == Argument::Literal
    }
}

/// What the tables say about all reviewed candidates together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reviewed {
    pub(crate) class: Class,
    pub(crate) facet: Option<Facet>,
    /// Of the worst candidate; an aggregate has no ordinary function of the same name in the tables' extensions.
    pub(crate) kind: Kind,
    pub(crate) returns_set: bool,
}

impl Reviewed {
    fn worse(self, other: Self) -> Self {
        // Two candidates that ask for different looks: none of the looks is enough.
        let conflict = match (self.facet, other.facet) {
            (None | Some(Facet::Prints { .. }), None | Some(Facet::Prints { .. })) => false,
            (one, other) => one != other,
        };
        let worst = if other.class > self.class { other } else { self };
        let facet = worst.facet.or(self.facet).or(other.facet);
        let class = if conflict { Class::Opaque } else { worst.class };
        let returns_set = self.returns_set || other.returns_set;
        Reviewed { class, facet, returns_set, ..worst }
    }
}

/// How an argument fits a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fit {
    how: How,
    /// Of the conversion that the server adds.
    class: Class,
    /// The parameter's type is the preferred one of its category: what the server prefers where nothing is exact.
    preferred: bool,
    /// And the argument's type is certainly of that category.
    surely_preferred: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Exact,
    /// The server converts it.
    Certain,
    Possible,
}

impl Fit {
    fn new(how: How, class: Class) -> Self {
        Self { how, class, preferred: false, surely_preferred: false }
    }
}

/// An argument and what the catalog says of its type, looked up once: a common operator has a hundred candidates.
struct Offered<'a> {
    argument: Argument,
    /// Below domains.
    of: Oid,
    known: Option<&'a Type>,
    /// Types that the server's own casts make of it unasked.
    casts: &'static [(&'static str, Class)],
    /// Types that a user's cast makes of it unasked.
    users: Vec<(&'a str, Class)>,
}

/// Of every category the type that the server prefers.
const PREFERRED: [&str; 8] = ["text", "bool", "float8", "oid", "timestamptz", "interval", "inet", "varbit"];

/// Arrays of composites of arrays end; a catalog that says otherwise is not believed.
const PRINT_DEPTH_MAX: u8 = 16;

impl CatalogSnapshot {
    /// The reviewed candidates for a call of `name` by a session that searches `schemas`; `None` if there is none.
    /// `in_place`: every argument stands at the place of its parameter; else pass all of them as unknown.
    pub(crate) fn call_class(&self, schemas: &[Oid], name: &str, arguments: &[Argument]) -> Option<Reviewed> {
        let searched = schemas.contains(&PG_CATALOG);
        let built_in = if searched { classes::built_in(name) } else { &[] };
        let members = self.functions.get(name).into_iter().flatten();
        let members = members.filter(|function| schemas.contains(&function.schema)).filter_map(|found| found.reviewed);
        let fitting = built_in.iter().map(|entry| (entry, true)).chain(members.map(|entry| (entry, false)));
        let offered = self.offered(arguments);
        let fitting = fitting.filter_map(|(entry, built_in)| {
            let fits = fits(&entry.parameters, &offered, built_in)?;
            Some((entry, fits))
        });
        let worst = chosen(fitting.collect()).into_iter().map(|(entry, fits)| {
            let class = self.with_conversions(entry.class, entry.facet, &fits, arguments);
            Reviewed { class, facet: entry.facet, kind: entry.kind, returns_set: entry.returns_set }
        });
        // What the operator vouches for may be run, but nobody says that it cannot fail.
        let trusted = self.trusted_functions(schemas, name).next().map(|_| Reviewed {
            class: Class::Partial,
            facet: None,
            kind: Kind::Function,
            returns_set: false,
        });
        let mut worst = worst.chain(trusted).reduce(Reviewed::worse)?;
        if searched && self.built_in_functions.get(name) == Some(&false) {
            worst.class = Class::Opaque;
        }
        Some(worst)
    }

    /// The worst that any reviewed operator of this name may do, whatever its operands; `None` if there is none.
    pub(crate) fn operator_name_class(&self, schemas: &[Oid], name: &str) -> Option<Class> {
        let searched = schemas.contains(&PG_CATALOG);
        let built_in = classes::operator(name).iter().filter(|_| searched).map(|known| known.class);
        let users = self.operators.get(name).into_iter().flatten();
        let users = users.filter(|known| schemas.contains(&known.schema)).filter_map(|known| known.reviewed);
        built_in.chain(users.map(|entry| entry.class)).max()
    }

    /// Can two values of this type be compared without an error? What came with the server can, but for arrays and rows
    /// of what can not.
    pub(crate) fn comparison_is_total(&self, schemas: &[Oid], oid: Oid) -> bool {
        let oid = self.base_type(oid);
        let class = self.types.get(&oid).map(|known| known.class);
        if oid < FIRST_USER_OID || !matches!(class, Some(TypeClass::Base)) {
            return true;
        }
        let value = Argument::Typed(oid);
        ["=", "<"].iter().all(|name| self.operator_class(schemas, name, Some(value), value) == Some(Class::Total))
    }

    /// The class of an operator by its operands; a prefix operator has no left one.
    pub(crate) fn operator_class(
        &self,
        schemas: &[Oid],
        name: &str,
        left: Option<Argument>,
        right: Argument,
    ) -> Option<Class> {
        let operands: Vec<_> = left.into_iter().chain([right]).collect();
        let offered = self.offered(&operands);
        let plain = |type_name| Parameter { type_name, optional: false, rest: false };
        let mut found = Vec::new();
        for known in classes::operator(name).iter().filter(|_| schemas.contains(&PG_CATALOG)) {
            let both = [plain(known.left), plain(known.right)];
            let parameters = if known.left == "-" { &both[1..] } else { &both[..] };
            if let Some(fits) = fits(parameters, &offered, true) {
                found.push(((known.class, known.facet), fits));
            }
        }
        for operator in self.operators.get(name).into_iter().flatten() {
            let Some(entry) = operator.reviewed.filter(|_| schemas.contains(&operator.schema)) else { continue };
            if let Some(fits) = fits(&entry.parameters, &offered, false) {
                found.push(((entry.class, entry.facet), fits));
            }
        }
        let class = |((class, facet), fits): (_, Vec<Fit>)| self.with_conversions(class, facet, &fits, &operands);
        chosen(found).into_iter().map(class).max()
    }

    /// A cast that the text asks for. `modified`: the type has a modifier (`varchar(5)`).
    pub(crate) fn cast_class(&self, from: Argument, to: Oid, modified: bool) -> Class {
        let source = match from {
            // Converted once, when the statement is parsed or bound, whatever the rows hold.
            Argument::Literal => return Class::Total,
            Argument::Typed(source) => self.base_type(source),
            Argument::Unknown => return Class::Partial,
        };
        if self.cast_runs_code(to) {
            return Class::Opaque;
        }
        let (Some(source_name), Some(target_name)) = (self.type_name(source), self.type_name(to)) else {
            return Class::Opaque;
        };
        if self.base_type(to) != to {
            return Class::Partial;
        }
        let pair = |source, target| classes::cast(source, target).map_or(Class::Partial, |found| found.class);
        let fits = if modified { pair(target_name, target_name) } else { Class::Total };
        if source == to {
            return fits;
        }
        let users = self.casts.iter().find(|cast| cast.source == source && cast.target == to);
        let built_in = source < FIRST_USER_OID && to < FIRST_USER_OID;
        let class = match (users, built_in.then(|| classes::cast(source_name, target_name)).flatten()) {
            (Some(cast), _) => cast.class,
            (None, Some(found)) => found.class,
            (None, None) if to < FIRST_USER_OID && matches!(target_name, "text" | "varchar" | "bpchar") => {
                self.print_class(Printing::Text, source)
            }
            (None, None) => Class::Partial,
        };
        class.max(fits)
    }

    /// What printing a value of this type as text, JSON or JSONB may do; of a whole row, ask for each column.
    pub(crate) fn print_class(&self, form: Printing, oid: Oid) -> Class {
        self.printed(form, oid, PRINT_DEPTH_MAX)
    }

    fn printed(&self, form: Printing, oid: Oid, depth: u8) -> Class {
        let oid = self.base_type(oid);
        let (Some(known), Some(depth)) = (self.types.get(&oid), depth.checked_sub(1)) else { return Class::Opaque };
        match known.class {
            TypeClass::Enum => Class::Total,
            TypeClass::Array { element } => self.printed(form, element, depth),
            TypeClass::Base if oid < FIRST_USER_OID => match (form, known.name.as_str()) {
                // Put together anew: what JSON takes and JSONB does not raises.
                (Printing::Jsonb, "json") => Class::Partial,
                (Printing::Text | Printing::Json | Printing::Jsonb, "text" | "varchar" | "bpchar" | "json") => {
                    Class::Total
                }
                (Printing::Text | Printing::Json | Printing::Jsonb, name) => {
                    classes::cast(name, "text").map_or(Class::Partial, |found| found.class)
                }
            },
            TypeClass::Base => match (form, self.reviewed_functions.get(&known.output)) {
                // JSON looks for a cast of the type's own first.
                (Printing::Json | Printing::Jsonb, Some(_)) => Class::Partial,
                (Printing::Text, Some(entry)) => entry.class,
                (_, None) => Class::Opaque,
            },
            // Of a range over a built-in type.
            TypeClass::Range if oid < FIRST_USER_OID => Class::Total,
            TypeClass::Composite => self.fields(oid).map_or(Class::Partial, |fields| {
                fields.map(|field| self.printed(form, field, depth)).max().unwrap_or(Class::Total)
            }),
            TypeClass::Range | TypeClass::Domain { .. } | TypeClass::Pseudo => Class::Partial,
        }
    }

    fn offered(&self, arguments: &[Argument]) -> Vec<Offered<'_>> {
        let offered = |argument: &Argument| {
            let of = match argument {
                Argument::Literal | Argument::Unknown => Oid(0),
                Argument::Typed(oid) => self.base_type(*oid),
            };
            let known = self.types.get(&of);
            let implicit = self.casts.iter().filter(|cast| cast.source == of && cast.context == CastContext::Implicit);
            let users = implicit.filter_map(|cast| Some((self.type_name(cast.target)?, cast.class))).collect();
            let casts = classes::implicit_from(known.map_or("", |known| known.name.as_str()));
            Offered { argument: *argument, of, known, casts, users }
        };
        arguments.iter().map(offered).collect()
    }

    /// A candidate's own class, and that of what the server does to its arguments.
    fn with_conversions(&self, class: Class, facet: Option<Facet>, fits: &[Fit], arguments: &[Argument]) -> Class {
        let converted = fits.iter().map(|fit| fit.class).fold(class, Class::max);
        let Some(Facet::Prints { form, keys }) = facet else { return converted };
        let printed = arguments.iter().enumerate().map(|(place, argument)| match argument {
            Argument::Literal => Class::Total,
            Argument::Unknown => Class::Partial,
            Argument::Typed(_) if keys && place % 2 == 0 => Class::Partial,
            Argument::Typed(oid) => self.print_class(form, *oid),
        });
        printed.fold(converted, Class::max)
    }
}

/// How each argument fits; `None`: this candidate cannot be meant.
fn fits(parameters: &[Parameter], arguments: &[Offered<'_>], built_in: bool) -> Option<Vec<Fit>> {
    if !classes::takes(parameters, arguments.len()) {
        return None;
    }
    let last = parameters.last().filter(|last| last.rest);
    let places = parameters.iter().chain(last.into_iter().cycle());
    arguments.iter().zip(places).map(|(argument, place)| fit(place, argument, built_in)).collect()
}

fn fit(parameter: &Parameter, argument: &Offered<'_>, built_in: bool) -> Option<Fit> {
    let type_name = parameter.type_name;
    match argument.argument {
        Argument::Literal => return Some(Fit::new(How::Certain, Class::Total)),
        Argument::Unknown => {
            let fit = Fit::new(How::Possible, classes::implicit_to(type_name));
            return Some(Fit { preferred: PREFERRED.contains(&type_name), ..fit });
        }
        Argument::Typed(_) => {}
    }
    let (how, class) = typed_fit(parameter, argument, built_in)?;
    let source = argument.known.map_or("", |known| known.name.as_str());
    let from_server = argument.of < FIRST_USER_OID;
    let preferred = PREFERRED.contains(&type_name);
    let surely_preferred = type_name == "text" && from_server && matches!(source, "varchar" | "bpchar" | "name");
    Some(Fit { preferred, surely_preferred, ..Fit::new(how, class) })
}

fn typed_fit(parameter: &Parameter, argument: &Offered<'_>, built_in: bool) -> Option<(How, Class)> {
    let type_name = parameter.type_name;
    let Some(known) = argument.known else { return Some((How::Possible, Class::Partial)) };
    if parameter.rest && type_name != "any" {
        return Some((How::Possible, Class::Partial));
    }
    // An extension's function may take a type of the server's or of its own.
    if known.name == type_name && (!built_in || argument.of < FIRST_USER_OID) {
        return Some((How::Exact, Class::Total));
    }
    if let Some(takes) = takes(type_name, known.class) {
        return takes.then_some((How::Possible, Class::Total));
    }
    let from_server = argument.of < FIRST_USER_OID;
    let own = argument.casts.iter().find(|(target, _)| *target == type_name).filter(|_| from_server);
    if let Some((_, class)) = own {
        return Some((How::Certain, *class));
    }
    let users = argument.users.iter().filter(|(target, _)| *target == type_name).map(|(_, class)| *class).max();
    if let Some(class) = users {
        return Some((How::Possible, class));
    }
    let arrays = type_name.starts_with('_') && matches!(known.class, TypeClass::Array { .. });
    arrays.then_some((How::Possible, Class::Partial))
}

/// Does a pseudo-type take values of this kind? `None`: it is no pseudo-type.
fn takes(pseudo: &str, class: TypeClass) -> Option<bool> {
    if !pseudo.starts_with("any") && pseudo != "record" {
        return None;
    }
    Some(match pseudo {
        "any" | "anyelement" | "anycompatible" => true,
        "anynonarray" | "anycompatiblenonarray" => !matches!(class, TypeClass::Array { .. }),
        "anyarray" | "anycompatiblearray" => matches!(class, TypeClass::Array { .. } | TypeClass::Pseudo),
        "anyenum" => matches!(class, TypeClass::Enum),
        "anyrange" | "anycompatiblerange" | "anymultirange" | "anycompatiblemultirange" => {
            matches!(class, TypeClass::Range)
        }
        "record" => matches!(class, TypeClass::Composite | TypeClass::Pseudo),
        _ => return None,
    })
}

/// Leaves out what the server certainly does not choose. Of the candidates that the arguments can be converted to it
/// keeps those with the most exact matches, then those with the most exact or preferred types. Only a candidate that
/// certainly can be meant sets the mark, by what it certainly has; the others are held to it by what they may have.
fn chosen<T>(candidates: Vec<(T, Vec<Fit>)>) -> Vec<(T, Vec<Fit>)> {
    let exact = |fits: &[Fit]| fits.iter().filter(|fit| fit.how == How::Exact).count();
    let most = |fits: &[Fit]| fits.iter().filter(|fit| fit.how == How::Exact || fit.preferred).count();
    let least = |fits: &[Fit]| fits.iter().filter(|fit| fit.how == How::Exact || fit.surely_preferred).count();
    let certain = |fits: &[Fit]| fits.iter().all(|fit| fit.how != How::Possible);
    let mark = candidates.iter().filter(|(_, fits)| certain(fits)).map(|(_, fits)| exact(fits)).max().unwrap_or(0);
    let kept: Vec<_> = candidates.into_iter().filter(|(_, fits)| exact(fits) >= mark).collect();
    let mark = kept.iter().filter(|(_, fits)| certain(fits)).map(|(_, fits)| least(fits)).max().unwrap_or(0);
    kept.into_iter().filter(|(_, fits)| most(fits) >= mark).collect()
}
