//! The tables in memory. A row that does not read as it should is left out, and what it named has no class; the tests
//! hold that there is none.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::{Class, Facet, Printing};

const FUNCTIONS: &str = include_str!("../../classes/functions.tsv");
const EXTENSIONS: &str = include_str!("../../classes/extensions.tsv");
const OPERATORS: &str = include_str!("../../classes/operators.tsv");
const CASTS: &str = include_str!("../../classes/casts.tsv");

/// One function of pg_proc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) class: Class,
    pub(crate) kind: Kind,
    pub(crate) returns_set: bool,
    pub(crate) facet: Option<Facet>,
    pub(crate) parameters: Vec<Parameter>,
    /// MD5 of the bodies that were reviewed, of a function in SQL; empty for one in C.
    sources: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Function,
    Procedure,
    Aggregate,
    /// WITHIN GROUP, hypothetical ones included.
    OrderedSet,
    Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) type_name: &'static str,
    /// It has a default.
    pub(crate) optional: bool,
    /// VARIADIC: it takes all further arguments.
    pub(crate) rest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OperatorEntry {
    pub(crate) class: Class,
    pub(crate) facet: Option<Facet>,
    /// `-` for a prefix operator.
    pub(crate) left: &'static str,
    pub(crate) right: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CastEntry {
    pub(crate) class: Class,
    /// The server applies it without being asked to.
    pub(crate) implicit: bool,
}

impl Entry {
    pub(crate) fn has_types(&self, types: &[&str]) -> bool {
        self.parameters.iter().map(|parameter| parameter.type_name).eq(types.iter().copied())
    }

    /// Can it be called with so many arguments?
    pub(crate) fn takes(&self, arguments: usize) -> bool {
        takes(&self.parameters, arguments)
    }

    #[cfg(test)]
    pub(super) fn signature(&self) -> String {
        let types: Vec<_> = self.parameters.iter().map(|parameter| parameter.type_name).collect();
        if types.is_empty() { "()".to_owned() } else { types.join(",") }
    }
}

/// Can something with these parameters be called with so many arguments?
pub(crate) fn takes(parameters: &[Parameter], arguments: usize) -> bool {
    let rest = parameters.last().is_some_and(|last| last.rest);
    let required = parameters.iter().filter(|parameter| !parameter.optional && !parameter.rest).count();
    arguments >= required && (rest || arguments <= parameters.len())
}

/// Every function of pg_catalog with this name, on any supported server.
pub(crate) fn built_in(name: &str) -> &'static [Entry] {
    TABLES.functions.get(name).map_or(&[], Vec::as_slice)
}

/// A member of an extension, by its types' names. `source`: empty for one in C, else the MD5 of its body.
pub(crate) fn extension_member(extension: &str, name: &str, types: &[&str], source: &str) -> Option<&'static Entry> {
    let mut members = TABLES.extensions.get(extension)?.get(name)?.iter();
    let body_fits = |entry: &&Entry| {
        let known = if source.is_empty() { entry.sources.is_empty() } else { entry.sources.contains(&source) };
        // What is opaque is so with any body.
        known || entry.class == Class::Opaque
    };
    members.find(|entry| entry.has_types(types)).filter(body_fits)
}

/// Whether members of this extension are in the tables.
pub(crate) fn knows_extension(extension: &str) -> bool {
    TABLES.extensions.contains_key(extension)
}

/// Every operator of pg_catalog with this name.
pub(crate) fn operator(name: &str) -> &'static [OperatorEntry] {
    TABLES.operators.get(name).map_or(&[], Vec::as_slice)
}

/// An explicit cast between types of pg_catalog that has an entry of its own or goes through text output.
pub(crate) fn cast(source: &str, target: &str) -> Option<CastEntry> {
    TABLES.casts.get(target)?.get(source).copied()
}

/// What the server turns a value of this type into on its own.
pub(crate) fn implicit_from(source: &str) -> &'static [(&'static str, Class)] {
    TABLES.implicit_from.get(source).map_or(&[], Vec::as_slice)
}

/// The worst that the server may do on its own to turn a value of another type into this one.
pub(crate) fn implicit_to(target: &str) -> Class {
    TABLES.implicit_to.get(target).copied().unwrap_or(Class::Total)
}

struct Tables {
    functions: HashMap<&'static str, Vec<Entry>>,
    extensions: HashMap<&'static str, HashMap<&'static str, Vec<Entry>>>,
    operators: HashMap<&'static str, Vec<OperatorEntry>>,
    casts: HashMap<&'static str, HashMap<&'static str, CastEntry>>,
    implicit_from: HashMap<&'static str, Vec<(&'static str, Class)>>,
    /// The worst of all other types.
    implicit_to: HashMap<&'static str, Class>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let mut tables = Tables {
        functions: HashMap::new(),
        extensions: HashMap::new(),
        operators: HashMap::new(),
        casts: HashMap::new(),
        implicit_from: HashMap::new(),
        implicit_to: HashMap::new(),
    };
    for row in rows(FUNCTIONS) {
        if let [name, rest @ ..] = row.as_slice() {
            tables.functions.entry(name).or_default().extend(entries(rest));
        }
    }
    for row in rows(EXTENSIONS) {
        if let [extension, name, rest @ ..] = row.as_slice() {
            let members = tables.extensions.entry(extension).or_default();
            members.entry(name).or_default().extend(entries(rest));
        }
    }
    for row in rows(OPERATORS) {
        if let [name, rest @ ..] = row.as_slice() {
            tables.operators.entry(name).or_default().extend(operators(rest));
        }
    }
    for row in rows(CASTS) {
        if let [source, target, class, context] = row.as_slice()
            && let Some(class) = class_named(class)
        {
            let implicit = *context == "i";
            tables.casts.entry(target).or_default().insert(source, CastEntry { class, implicit });
            if implicit {
                tables.implicit_from.entry(source).or_default().push((target, class));
            }
            if implicit && source != target {
                let worst = tables.implicit_to.entry(target).or_insert(class);
                *worst = class.max(*worst);
            }
        }
    }
    tables
});

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().filter(|line| !line.starts_with("# ")).map(|line| line.split('\t').collect())
}

fn entries(columns: &[&'static str]) -> Vec<Entry> {
    let [class, kind, facets, signatures] = columns else { return Vec::new() };
    let (Some(class), Some((kind, returns_set)), Some(notes)) = (class_named(class), kind_named(kind), notes(facets))
    else {
        return Vec::new();
    };
    let entry = |signature| Entry {
        class,
        kind,
        returns_set,
        facet: notes.facet,
        parameters: parameters(signature),
        sources: notes.sources.clone(),
    };
    signatures.split(' ').map(entry).collect()
}

fn parameters(signature: &'static str) -> Vec<Parameter> {
    let one = |text: &'static str| {
        let (text, rest) = text.strip_suffix('*').map_or((text, false), |text| (text, true));
        let (type_name, optional) = text.strip_suffix('=').map_or((text, false), |text| (text, true));
        Parameter { type_name, optional, rest }
    };
    if signature == "()" { Vec::new() } else { signature.split(',').map(one).collect() }
}

fn operators(columns: &[&'static str]) -> Vec<OperatorEntry> {
    let [class, facets, operands] = columns else { return Vec::new() };
    let (Some(class), Some(notes)) = (class_named(class), notes(facets)) else { return Vec::new() };
    let entry = |(left, right)| OperatorEntry { class, facet: notes.facet, left, right };
    operands.split(' ').filter_map(|pair| pair.split_once(',')).map(entry).collect()
}

fn class_named(name: &str) -> Option<Class> {
    Some(match name {
        "total" => Class::Total,
        "partial" => Class::Partial,
        "ambient" => Class::Ambient,
        "metadata" => Class::Metadata,
        "reader" => Class::Reader,
        "effect" => Class::Effect,
        "opaque" => Class::Opaque,
        _ => return None,
    })
}

fn kind_named(name: &str) -> Option<(Kind, bool)> {
    let (name, returns_set) = name.strip_suffix('s').map_or((name, false), |name| (name, true));
    let kind = match name {
        "f" => Kind::Function,
        "p" => Kind::Procedure,
        "a" => Kind::Aggregate,
        "o" => Kind::OrderedSet,
        "w" => Kind::Window,
        _ => return None,
    };
    Some((kind, returns_set))
}

#[derive(Default)]
struct Notes {
    facet: Option<Facet>,
    sources: Vec<&'static str>,
}

fn notes(column: &'static str) -> Option<Notes> {
    const MD5_DIGITS: usize = 32;
    let prints = |form, keys| Facet::Prints { form, keys };
    let mut notes = Notes::default();
    for name in column.split(',').filter(|name| *name != "-") {
        let facet = match name {
            "text" => prints(Printing::Text, false),
            "json" => prints(Printing::Json, false),
            "jsonb" => prints(Printing::Jsonb, false),
            "json-keys" => prints(Printing::Json, true),
            "jsonb-keys" => prints(Printing::Jsonb, true),
            "large-object" => Facet::LargeObject,
            "size" => Facet::Size,
            "current-setting" => Facet::CurrentSetting,
            "set-config" => Facet::SetConfig,
            "notify" => Facet::Notify,
            "sleep" => Facet::Sleep,
            "advisory-lock" => Facet::AdvisoryLock,
            "sequence" => Facet::Sequence,
            digest if digest.len() == MD5_DIGITS => {
                notes.sources.push(digest);
                continue;
            }
            _ => return None,
        };
        if notes.facet.replace(facet).is_some() {
            return None;
        }
    }
    Some(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many functions, operators or casts a table names.
    fn named(table: &'static str, grouped: bool) -> usize {
        rows(table).map(|row| if grouped { row.last().unwrap().split(' ').count() } else { 1 }).sum()
    }

    #[test]
    fn every_row_is_read() {
        let entries: usize = TABLES.functions.values().map(Vec::len).sum();
        assert_eq!(entries, named(FUNCTIONS, true));
        let members = TABLES.extensions.values().flat_map(HashMap::values);
        assert_eq!(members.map(Vec::len).sum::<usize>(), named(EXTENSIONS, true));
        assert_eq!(TABLES.operators.values().map(Vec::len).sum::<usize>(), named(OPERATORS, true));
        assert_eq!(TABLES.casts.values().map(HashMap::len).sum::<usize>(), named(CASTS, false));
    }

    #[test]
    fn everything_of_every_supported_server_has_a_class() {
        let servers = include_str!("../../tests/fixtures/built_in.tsv");
        let mut checked = [0_usize; 5];
        for row in rows(servers) {
            let [majors, what, name, types] = row[..] else { panic!("{row:?}") };
            for one in types.split(' ') {
                let parts: Vec<_> = one.split(',').filter(|part| *part != "()").collect();
                let known = match what {
                    "f" => built_in(name).iter().filter(|entry| entry.has_types(&parts)).count(),
                    "o" => operator(name).iter().filter(|entry| [entry.left, entry.right] == parts[..]).count(),
                    "c" => usize::from(cast(name, one).is_some()),
                    _ => panic!("{what}"),
                };
                assert_eq!(known, 1, "{what} {name} {one}");
                for major in majors.split(' ') {
                    checked[major.parse::<usize>().unwrap() - 14] += 1;
                }
            }
        }
        assert!(checked.iter().all(|count| *count > 4_000), "{checked:?}");
    }

    #[test]
    fn overloads_of_a_name_share_what_else_to_look_at() {
        let exempt = ["quote_literal", "quote_nullable", "||"];
        for (name, entries) in TABLES.functions.iter().filter(|(name, _)| !exempt.contains(*name)) {
            let first = entries.first().and_then(|entry| entry.facet);
            assert!(entries.iter().all(|entry| entry.facet == first), "{name}");
        }
    }

    #[test]
    fn an_sql_member_is_known_by_its_body() {
        let types = ["citext", "citext"];
        let entry = &TABLES.extensions["citext"]["strpos"][0];
        for source in &entry.sources {
            assert_eq!(extension_member("citext", "strpos", &types, source), Some(entry));
        }
        assert_eq!(extension_member("citext", "strpos", &types, "d41d8cd98f00b204e9800998ecf8427e"), None);
        assert_eq!(extension_member("citext", "strpos", &types, ""), None, "in C, where the table says SQL");
        assert_eq!(extension_member("citext", "citext_eq", &types, entry.sources[0]), None, "in SQL, where it says C");
    }

    #[test]
    fn a_conversion_that_the_server_may_add_counts() {
        assert_eq!(implicit_to("float8"), Class::Partial, "from numeric");
        assert_eq!(implicit_to("timestamp"), Class::Partial, "from date");
        assert_eq!(implicit_to("text"), Class::Total);
    }
}
