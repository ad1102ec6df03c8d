//! Fixtures and printing for the case tests.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use exeat_sql::{
    Analysis, CatalogSnapshot, ColumnId, Flow, Given, Lineage, LookupValue, MessageAnalysis, Oid, Origin,
    PARSER_STACK_BYTES, ParseFailure, QUERIES, Scope, Use, Writing, parse_and_analyse,
};

/// A snapshot from rows captured by `examples/catalog_script.rs`.
pub(crate) fn snapshot(text: &str) -> CatalogSnapshot {
    let mut rows: HashMap<&str, Vec<Vec<Option<String>>>> = HashMap::new();
    let mut section = "";
    for line in text.lines() {
        match line.strip_prefix("== ") {
            Some(name) => section = name,
            None => rows.entry(section).or_default().push(line.split('\t').map(cell).collect()),
        }
    }
    let results: Vec<_> = QUERIES.iter().map(|query| rows.remove(query.name).unwrap_or_default()).collect();
    on_parser_stack(|| CatalogSnapshot::build(1, &results)).expect("the fixture is a whole catalog")
}

/// One value in COPY's text format.
fn cell(text: &str) -> Option<String> {
    if text == "\\N" {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (plain, false) => out.push(plain),
            (_, true) => match characters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
        }
    }
    Some(out)
}

/// `public` and the implicit pg_catalog before it, unless the case names schemas. The role is `hr`, uses every schema but
/// one called `ext`, and is in a transaction that has touched nothing, but where the case says `unsettled` first.
pub(crate) fn scope(snapshot: &CatalogSnapshot, schemas: &str) -> Scope {
    let (settled, schemas) = schemas.strip_prefix("unsettled").map_or((true, schemas), |rest| (false, rest.trim()));
    let names = if schemas.is_empty() { "pg_catalog, public" } else { schemas };
    let oid = |name: &str| snapshot.schema_by_name(name).unwrap_or(Oid(4_000_000_000));
    let search_path = names.split(',').map(|name| oid(name.trim())).collect();
    let schemas = snapshot.relations().map(|relation| relation.schema).collect::<BTreeSet<_>>();
    let usable = schemas.into_iter().filter(|schema| snapshot.schema_name(*schema) != Some("ext")).collect();
    Scope { search_path, usable, role: "hr".to_owned(), settled, ..Scope::default() }
}

/// Analyses on a thread with the stack the parser needs.
pub(crate) fn analyse(sql: &str, snapshot: &CatalogSnapshot, scope: &Scope) -> Result<MessageAnalysis, ParseFailure> {
    on_parser_stack(|| parse_and_analyse(sql, snapshot, scope))
}

fn on_parser_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(threads, work);
        thread.expect("a thread starts").join().expect("analysis does not panic")
    })
}

pub(crate) fn print(outcome: &Result<MessageAnalysis, ParseFailure>, sql: &str, snapshot: &CatalogSnapshot) -> String {
    let message = match outcome {
        Err(failure) => return format!("failure: {failure}\n"),
        Ok(message) => message,
    };
    let mut out = String::new();
    for (number, statement) in message.statements.iter().enumerate() {
        if message.statements.len() > 1 {
            writeln!(out, "[{}] {}", number + 1, &sql[statement.text.clone()]).unwrap();
        }
        writeln!(out, "kind: {:?}", statement.kind).unwrap();
        match &statement.analysis {
            Analysis::Opaque(opaque) => {
                writeln!(out, "opaque: {} at {:?}", opaque.reason, opaque.at.unwrap_or(0)).unwrap();
            }
            Analysis::Unresolved { name, at } => {
                writeln!(out, "unresolved: {name} at {:?}", at.unwrap_or(0)).unwrap();
            }
            Analysis::Known(lineage) => print_lineage(&mut out, lineage, snapshot),
        }
    }
    if message.statements.is_empty() {
        out.push_str("empty\n");
    }
    out
}

fn print_lineage(out: &mut String, lineage: &Lineage, snapshot: &CatalogSnapshot) {
    for (what, oids) in [("reads", &lineage.reads), ("writes", &lineage.writes), ("reaches", &lineage.reaches)] {
        if !oids.is_empty() {
            let mut names: Vec<_> = oids.iter().map(|oid| relation(*oid, snapshot)).collect();
            names.sort();
            writeln!(out, "{what}: {}", names.join(", ")).unwrap();
        }
    }
    if let Some(definition) = &lineage.defines {
        let altered: Vec<_> = definition.alters.iter().map(|oid| relation(*oid, snapshot)).collect();
        if !altered.is_empty() {
            writeln!(out, "alters: {}", altered.join(", ")).unwrap();
        }
        for made in &definition.makes {
            let schema = made.schema.and_then(|schema| snapshot.schema_name(schema)).unwrap_or("pg_temp");
            let unless = if made.new { "" } else { " unless it is there" };
            writeln!(out, "makes: {schema}.{}{unless}", made.name).unwrap();
        }
    }
    let kinds: Vec<_> = lineage.writing.iter().map(|writing| (writing.write, writing.by_merge)).collect();
    let plain = kinds.iter().all(|(_, by_merge)| !by_merge) && kinds.len() == lineage.writes.len();
    if !plain {
        let does = |writing: &Writing| {
            let view = writing.through.map(|view| format!(" through {}", relation(view, snapshot)));
            let by = if writing.by_merge { " by merge".to_owned() } else { view.unwrap_or_default() };
            format!("{:?} {}{by}", writing.write, relation(writing.relation, snapshot)).to_lowercase()
        };
        writeln!(out, "does: {}", lineage.writing.iter().map(does).collect::<Vec<_>>().join(", ")).unwrap();
    }
    for (what, found) in [("every row of", &lineage.unbounded), ("every column of", &lineage.stars)] {
        for (oid, at) in found {
            writeln!(out, "{what}: {}@{}", relation(*oid, snapshot), at.unwrap_or(0)).unwrap();
        }
    }
    print_columns(out, lineage, snapshot);
    print_client_values(out, lineage, snapshot);
    let others = lineage.shown.others.then_some("others");
    let shown: Vec<_> = lineage.shown.named.iter().map(String::as_str).chain(others).collect();
    if !shown.is_empty() {
        writeln!(out, "shows settings: {}", shown.join(", ")).unwrap();
    }
    for (setting, value) in &lineage.settings {
        writeln!(out, "sets: {setting} = {}", value.as_deref().unwrap_or("a parameter")).unwrap();
    }
    for (flag, set) in [
        ("rewritten", lineage.rewritten),
        ("notifies", !lineage.notifies.is_empty()),
        ("large objects", lineage.large_objects),
        ("files of the server", lineage.server_files),
        ("user code", lineage.user_code),
        ("locks rows", lineage.locks_rows),
        ("changes settings", lineage.changes_settings),
        ("relation sizes", lineage.relation_sizes),
        ("metadata only", lineage.metadata_only),
    ] {
        if set {
            writeln!(out, "{flag}").unwrap();
        }
    }
}

/// What the client compares columns with, and what it gives for those that keys look at.
fn print_client_values(out: &mut String, lineage: &Lineage, snapshot: &CatalogSnapshot) {
    let elsewhere = |shared: bool| if shared { ", which stands elsewhere" } else { "" };
    for lookup in &lineage.lookups {
        let values: Vec<_> = lookup.values.iter().map(client_value).collect();
        let shared = elsewhere(lookup.shares_parameters);
        writeln!(out, "looks up: {} = {}{shared}", column(lookup.column, snapshot), values.join(" or ")).unwrap();
    }
    for row in &lineage.rows {
        let given = |(attribute, given): &(i16, Given)| {
            let column = column(ColumnId { relation: row.relation, attribute: *attribute }, snapshot);
            match given {
                Given::Null => format!("{column} NULL"),
                Given::Value { value, shared, .. } => format!("{column} {}{}", client_value(value), elsewhere(*shared)),
                Given::Computed => format!("{column} computed"),
            }
        };
        let values: Vec<_> = row.values.iter().map(given).collect();
        writeln!(out, "gives by {:?}: {}", row.write, values.join("; ")).unwrap();
    }
    if let Some(cursor) = &lineage.positioned {
        writeln!(out, "at cursor: {cursor}").unwrap();
    }
}

/// Where outputs come from, and what every column is used for.
fn print_columns(out: &mut String, lineage: &Lineage, snapshot: &CatalogSnapshot) {
    for output in lineage.outputs.iter().flatten() {
        let origin = match &output.origin {
            Origin::Column(id) => column(*id, snapshot),
            Origin::None => "computed".to_owned(),
            Origin::Unknown => "one of".to_owned(),
        };
        let made = |(id, flow): (&ColumnId, &Flow)| match flow {
            Flow::Bare => column(*id, snapshot),
            Flow::Total => format!("~{}", column(*id, snapshot)),
            Flow::Presence => format!("?{}", column(*id, snapshot)),
        };
        let mut from: Vec<String> = output.flows.iter().map(made).collect();
        from.sort();
        let from = match output.origin {
            Origin::Column(_) if from == [origin.as_str()] => String::new(),
            _ if from.is_empty() => String::new(),
            Origin::Column(_) | Origin::None | Origin::Unknown => format!(" ({})", from.join(", ")),
        };
        writeln!(out, "output: {} <- {origin}{from}", output.name.as_deref().unwrap_or("?")).unwrap();
    }
    let uses = [
        Use::Projected,
        Use::Derived,
        Use::Expression,
        Use::Predicate,
        Use::Lookup,
        Use::Key,
        Use::Referenced,
        Use::Presence,
        Use::Written,
        Use::Source,
    ];
    for how in uses {
        let uses = lineage.uses.iter().filter(|known| known.how == how);
        let at = |at: Option<usize>| at.map_or(String::new(), |at| format!("@{at}"));
        let mut names: Vec<_> =
            uses.map(|known| format!("{}{}", column(known.column, snapshot), at(known.at))).collect();
        names.sort();
        if !names.is_empty() {
            writeln!(out, "{}: {}", format!("{how:?}").to_lowercase(), names.join(", ")).unwrap();
        }
    }
}

pub(crate) fn relation(oid: Oid, snapshot: &CatalogSnapshot) -> String {
    let known = snapshot.relation(oid).expect("a relation of the snapshot");
    if known.schema_name == "public" { known.name.clone() } else { format!("{}.{}", known.schema_name, known.name) }
}

fn column(id: ColumnId, snapshot: &CatalogSnapshot) -> String {
    let name = snapshot.column_name(id).expect("a column of the snapshot");
    format!("{}.{name}", relation(id.relation, snapshot))
}

fn client_value(value: &LookupValue) -> String {
    match value {
        LookupValue::Literal(text) => text.clone(),
        LookupValue::Parameter(number) => format!("${number}"),
        LookupValue::LiteralArray(text) => format!("any of {text}"),
        LookupValue::ParameterArray(number) => format!("any of ${number}"),
    }
}
