//! What the operator vouches for by name: functions that statements may call, views, triggers and policies that may use
//! sealed columns, and columns of views that show nothing sealed. A name stands for the definition that was first seen
//! under it; another definition under the same name is not trusted. Trust never widens by itself: a name that finds
//! nothing, or more than was meant, trusts nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::{CatalogSnapshot, Oid, RelationKind};

/// What a target's configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    pub functions: Vec<TrustedFunction>,
    pub views: Vec<QualifiedName>,
    /// Schema, table and trigger.
    pub triggers: Vec<QualifiedName>,
    /// Schema, table and policy.
    pub policies: Vec<QualifiedName>,
    /// Schema, view and column, or `*` for all its columns.
    pub declassify: Vec<QualifiedName>,
}

/// A name of several parts, as SQL writes it: folded to lower case unless quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QualifiedName {
    parts: Vec<String>,
    /// As it was written.
    text: String,
}

/// `schema.name(type, type)`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustedFunction {
    name: QualifiedName,
    /// By the names that pg_type has for them.
    arguments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("{text:?} is not a name of {parts} parts with dots between them")]
    Parts { text: String, parts: usize },
    #[error("{text:?} is not a function as schema.name(type, type)")]
    Function { text: String },
}

/// Digests of the definitions that names stood for when they were first seen, by kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins(pub BTreeMap<String, String>);

impl Pins {
    pub fn holds(&self, (name, digest): (&String, &String)) -> bool {
        self.0.get(name) == Some(digest)
    }
}

/// A name that trusts nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Untrusted {
    Missing { kind: &'static str, name: String },
    Changed { kind: &'static str, name: String },
}

/// What the names stand for in one snapshot.
#[derive(Debug, Clone, Default)]
pub(super) struct Trusted {
    pub(super) functions: HashSet<Oid>,
    views: HashSet<Oid>,
    triggers: HashSet<(Oid, String)>,
    policies: HashSet<(Oid, String)>,
    /// Attribute numbers by view.
    declassified: HashMap<Oid, BTreeSet<i16>>,
    pins: Pins,
    /// What the names stand for now, whatever they stood for before.
    found: Pins,
    problems: BTreeSet<Untrusted>,
}

impl QualifiedName {
    pub fn parse(text: &str, parts: usize) -> Result<Self, TrustError> {
        let found = split(text, '.').filter(|found| found.len() == parts && found.iter().all(|part| !part.is_empty()));
        let found = found.ok_or_else(|| TrustError::Parts { text: text.to_owned(), parts })?;
        Ok(Self { parts: found, text: text.to_owned() })
    }
}

impl std::fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl TrustedFunction {
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        let problem = || TrustError::Function { text: text.to_owned() };
        let (name, arguments) =
            text.trim_end().strip_suffix(')').and_then(|text| text.split_once('(')).ok_or_else(problem)?;
        let QualifiedName { parts, text: _ } = QualifiedName::parse(name, 2).map_err(|_| problem())?;
        let arguments = match arguments.trim() {
            "" => Vec::new(),
            arguments => arguments.split(',').map(type_name).collect::<Option<Vec<_>>>().ok_or_else(problem)?,
        };
        Ok(Self { name: QualifiedName { parts, text: text.to_owned() }, arguments })
    }
}

impl std::fmt::Display for TrustedFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name.fmt(f)
    }
}

/// The parts between separators that no quotes hide; `None` where quotes do not end, or do not stand around a part.
fn split(text: &str, separator: char) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, behind) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut part = String::new();
                let mut quoted = quoted;
                loop {
                    let (before, after) = quoted.split_once('"')?;
                    part.push_str(before);
                    match after.strip_prefix('"') {
                        Some(after) => {
                            part.push('"');
                            quoted = after;
                        }
                        None => break (part, after),
                    }
                }
            }
            None => {
                let end = rest.find(separator).unwrap_or(rest.len());
                let (part, behind) = rest.split_at(end);
                if part.contains('"') {
                    return None;
                }
                (part.trim().to_ascii_lowercase(), behind)
            }
        };
        parts.push(part);
        match behind.trim_start() {
            "" => return Some(parts),
            behind => rest = behind.strip_prefix(separator)?.trim_start(),
        }
    }
}

/// The name in pg_type of a type as SQL writes it.
fn type_name(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let (element, array) = match text.strip_suffix("[]") {
        Some(element) => (element.trim(), "_"),
        None => (text.as_str(), ""),
    };
    let name = match element {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "boolean" => "bool",
        "real" => "float4",
        "double precision" => "float8",
        "decimal" => "numeric",
        "character varying" => "varchar",
        "character" => "bpchar",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time with time zone" => "timetz",
        "time without time zone" => "time",
        "" => return None,
        other if other.contains(|character: char| character.is_whitespace() || character == '(') => return None,
        other => other,
    };
    Some(format!("{array}{name}"))
}

impl CatalogSnapshot {
    /// Finds what the names stand for, and holds it against what they stood for before.
    pub(super) fn apply_trust(&mut self, trust: &Trust, pins: &Pins) {
        let mut trusted = Trusted::default();
        for function in &trust.functions {
            if let Some(oid) = trusted.resolve("function", &function.name, pins, self.trusted_function(function)) {
                trusted.functions.insert(oid);
            }
        }
        for view in &trust.views {
            if let Some(oid) = trusted.resolve("view", view, pins, self.view_named(view)) {
                trusted.views.insert(oid);
            }
        }
        for trigger in &trust.triggers {
            if let Some(found) = trusted.resolve("trigger", trigger, pins, self.trigger_named(trigger)) {
                trusted.triggers.insert(found);
            }
        }
        for policy in &trust.policies {
            if let Some(found) = trusted.resolve("policy", policy, pins, self.policy_named(policy)) {
                trusted.policies.insert(found);
            }
        }
        for column in &trust.declassify {
            if let Some((view, columns)) = trusted.resolve("column", column, pins, self.columns_named(column)) {
                trusted.declassified.entry(view).or_default().extend(columns);
            }
        }
        self.trusted = trusted;
    }

    fn trusted_function(&self, function: &TrustedFunction) -> Option<(Oid, String)> {
        let [schema, name] = function.name.parts.as_slice() else { return None };
        let schema = self.schema_by_name(schema)?;
        let fits = |found: &&super::UserFunction| {
            found.schema == schema
                && found.arguments.len() == function.arguments.len()
                && found.arguments.iter().zip(&function.arguments).all(|(oid, name)| self.type_name(*oid) == Some(name))
        };
        let mut found = self.functions.get(name)?.iter().filter(fits);
        match (found.next(), found.next()) {
            (Some(only), None) => Some((only.oid, only.definition.clone()?)),
            (_, _) => None,
        }
    }

    fn view_named(&self, name: &QualifiedName) -> Option<(Oid, String)> {
        let [schema, view] = name.parts.as_slice() else { return None };
        let view = self.relation_by_name(schema, view)?;
        matches!(view.kind, RelationKind::View | RelationKind::MaterializedView)
            .then(|| Some((view.oid, self.views.get(&view.oid)?.clone())))?
    }

    fn trigger_named(&self, name: &QualifiedName) -> Option<((Oid, String), String)> {
        let [schema, table, trigger] = name.parts.as_slice() else { return None };
        let table = self.relation_by_name(schema, table)?.oid;
        let found = self.triggers.get(&table)?.0.iter().find(|found| found.name == *trigger)?;
        if found.definition.is_empty() {
            return None;
        }
        // Its own function's definition is the larger part of it.
        let function = self.functions.values().flatten().find(|function| function.oid == found.function);
        let code = function.map_or(Some(String::new()), |function| function.definition.clone())?;
        Some(((table, trigger.clone()), format!("{} {code}", found.definition)))
    }

    fn policy_named(&self, name: &QualifiedName) -> Option<((Oid, String), String)> {
        let [schema, table, policy] = name.parts.as_slice() else { return None };
        let table = self.relation_by_name(schema, table)?.oid;
        let found = self.policies.get(&table)?.iter().find(|found| found.name == *policy)?;
        Some(((table, policy.clone()), found.definition()))
    }

    fn columns_named(&self, name: &QualifiedName) -> Option<((Oid, BTreeSet<i16>), String)> {
        let [schema, view, column] = name.parts.as_slice() else { return None };
        let view = QualifiedName { parts: vec![schema.clone(), view.clone()], text: String::new() };
        let (oid, definition) = self.view_named(&view)?;
        let columns = self.relation(oid)?.columns.iter();
        let columns: BTreeSet<i16> =
            columns.filter(|known| column == "*" || known.name == *column).map(|known| known.attribute).collect();
        (!columns.is_empty()).then_some(((oid, columns), definition))
    }

    /// Whether the statement calls a function that the operator vouches for, and that nobody has read here.
    pub fn runs_trusted_functions(&self, lineage: &crate::Lineage) -> bool {
        lineage.functions.iter().any(|oid| self.trusts_function(*oid))
    }

    pub(crate) fn trusts_function(&self, oid: Oid) -> bool {
        self.trusted.functions.contains(&oid)
    }

    pub fn trusts_view(&self, oid: Oid) -> bool {
        self.trusted.views.contains(&oid)
    }

    pub(crate) fn trusts_trigger(&self, relation: Oid, name: &str) -> bool {
        self.trusted.triggers.contains(&(relation, name.to_owned()))
    }

    pub(crate) fn trusts_policy(&self, relation: Oid, name: &str) -> bool {
        self.trusted.policies.contains(&(relation, name.to_owned()))
    }

    /// Columns of a view that show nothing sealed, by the operator's word.
    pub(crate) fn declassified(&self, view: Oid) -> Option<&BTreeSet<i16>> {
        self.trusted.declassified.get(&view)
    }

    /// What the names stand for, for those that follow.
    pub fn pins(&self) -> &Pins {
        &self.trusted.pins
    }

    /// What they stand for now: what there is to accept.
    pub fn definitions(&self) -> &Pins {
        &self.trusted.found
    }

    /// Names that trust nothing here, in order.
    pub fn untrusted(&self) -> impl Iterator<Item = &Untrusted> {
        self.trusted.problems.iter()
    }
}

impl Trusted {
    /// `found`: what the name stands for now, and its definition.
    fn resolve<T>(
        &mut self,
        kind: &'static str,
        name: &QualifiedName,
        pins: &Pins,
        found: Option<(T, String)>,
    ) -> Option<T> {
        let key = format!("{kind} {name}");
        let before = pins.0.get(&key);
        if let Some(before) = before {
            self.pins.0.insert(key.clone(), before.clone());
        }
        let Some((what, definition)) = found else {
            self.problems.insert(Untrusted::Missing { kind, name: name.text.clone() });
            return None;
        };
        let definition = sha256(&definition);
        self.found.0.insert(key.clone(), definition.clone());
        if before.is_some_and(|before| *before != definition) {
            self.problems.insert(Untrusted::Changed { kind, name: name.text.clone() });
            return None;
        }
        self.pins.0.insert(key, definition);
        Some(what)
    }
}

fn sha256(definition: &str) -> String {
    Sha256::digest(definition).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Display for Untrusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { kind, name } => write!(f, "{kind} {name} is trusted and does not exist"),
            Self::Changed { kind, name } => {
                write!(f, "{kind} {name} has another definition than it was trusted with, and is not trusted any more")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_server_reads_them() {
        let parts = |text: &str, count| QualifiedName::parse(text, count).map(|name| name.parts);
        assert_eq!(parts("Public.V", 2), Ok(vec!["public".to_owned(), "v".to_owned()]));
        assert_eq!(parts("hr.\"A.\"\"b\"", 2), Ok(vec!["hr".to_owned(), "A.\"b".to_owned()]));
        assert_eq!(parts(" reporting . stats . * ", 3).map(|parts| parts.len()), Ok(3));
        for twisted in ["v", "a.b.c", "a.", ".b", "a.\"b", "a.b\"c\"", "a.\"b\"c", ""] {
            assert!(parts(twisted, 2).is_err(), "{twisted}");
        }
    }

    #[test]
    fn functions_are_named_with_their_argument_types() {
        let of = |text: &str| TrustedFunction::parse(text).map(|function| function.arguments);
        assert_eq!(of("public.slugify(text)"), Ok(vec!["text".to_owned()]));
        assert_eq!(of("public.f()"), Ok(Vec::new()));
        let names = ["int4", "_int8", "timestamptz", "status"].map(str::to_owned).to_vec();
        assert_eq!(of("a.f(integer, bigint[], timestamp with time zone, status)"), Ok(names));
        for twisted in ["public.slugify", "slugify(text)", "public.f(text", "public.f(text,)", "public.f(varchar(5))"] {
            assert!(of(twisted).is_err(), "{twisted}");
        }
    }
}
