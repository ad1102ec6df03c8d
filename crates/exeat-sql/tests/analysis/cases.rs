//! Runs every `tests/cases/**/*.case`, those in `newer` as on PostgreSQL 18: sections `-- path` (schemas, default
//! pg_catalog, public), `-- statement` and `-- expect`; those in `rows` say how many rows of what a row of the result
//! holds. With EXEAT_REWRITE_CASES set, expectations are written anew;
//! read the diff before committing it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use exeat_sql::{Analysis, CatalogSnapshot, MessageAnalysis, Oid, Packing, ParseFailure};

use crate::support;

/// One statement of a case file and what must come of it.
struct Case {
    path: String,
    statement: String,
    expect: String,
}

/// A file holds cases one after the other; a comment line of the file starts with `#`.
struct CaseFile {
    head: String,
    cases: Vec<Case>,
}

fn read(text: &str) -> CaseFile {
    let mut file = CaseFile { head: String::new(), cases: Vec::new() };
    let (mut section, mut path) = ("", String::new());
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            "-- path" => section = "path",
            "-- statement" => {
                section = "statement";
                let case = Case { path: std::mem::take(&mut path), statement: String::new(), expect: String::new() };
                file.cases.push(case);
            }
            "-- expect" => section = "expect",
            _ => match (section, file.cases.last_mut()) {
                ("path", _) => path = line.trim().to_owned(),
                ("statement", Some(case)) => case.statement.push_str(line),
                ("expect", Some(case)) if !line.trim().is_empty() => case.expect.push_str(line),
                ("expect", Some(_)) => {}
                _ => file.head.push_str(line),
            },
        }
    }
    file
}

fn write(file: &CaseFile, actual: &[String]) -> String {
    let mut text = file.head.clone();
    for (case, actual) in file.cases.iter().zip(actual) {
        if !case.path.is_empty() {
            writeln!(text, "-- path\n{}", case.path).unwrap();
        }
        writeln!(text, "-- statement\n{}\n-- expect\n{actual}", case.statement.trim_end()).unwrap();
    }
    text
}

fn case_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the case folder is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            case_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "case") {
            found.push(path);
        }
    }
}

fn check(path: &Path, snapshot: &CatalogSnapshot, failures: &mut Vec<String>) -> usize {
    let file = read(&std::fs::read_to_string(path).expect("a readable case file"));
    let actual: Vec<String> = file
        .cases
        .iter()
        .map(|case| {
            let statement = case.statement.trim_end();
            let outcome = support::analyse(statement, snapshot, &support::scope(snapshot, &case.path));
            match is_in(path, "rows") {
                true => print_rows(&outcome, snapshot),
                false => support::print(&outcome, statement, snapshot),
            }
        })
        .collect();
    if std::env::var_os("EXEAT_REWRITE_CASES").is_some() {
        std::fs::write(path, write(&file, &actual)).expect("a writable case file");
        return file.cases.len();
    }
    for (case, actual) in file.cases.iter().zip(&actual) {
        if case.expect != *actual {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            failures.push(format!("{name}: {}\nexpected:\n{}got:\n{actual}", case.statement, case.expect));
        }
    }
    file.cases.len()
}

/// How many rows of which relations a row of the result holds.
fn print_rows(outcome: &Result<MessageAnalysis, ParseFailure>, snapshot: &CatalogSnapshot) -> String {
    let statements = outcome.as_ref().map_or(&[][..], |message| &message.statements);
    let mut out = String::new();
    for statement in statements {
        let Analysis::Known(lineage) = &statement.analysis else {
            writeln!(out, "{:?}", statement.analysis).unwrap();
            continue;
        };
        let content = &lineage.content;
        let times = |(oid, count): &(Oid, u32)| match *count {
            1 => support::relation(*oid, snapshot),
            u32::MAX => format!("{} without end", support::relation(*oid, snapshot)),
            more => format!("{} {more} times", support::relation(*oid, snapshot)),
        };
        let held: Vec<_> = content.occurrences.iter().map(times).collect();
        let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
        let packing = match content.packing {
            Packing::None => "",
            Packing::Once => ", packed",
            Packing::Nested => ", packed again",
        };
        writeln!(out, "a row holds: {held}{packing}").unwrap();
        for (oid, whole) in &content.whole {
            let limit = whole.limit.map_or(String::new(), |limit| format!(" up to {limit}"));
            writeln!(out, "whole: {}@{}{limit}", support::relation(*oid, snapshot), whole.at.unwrap_or(0)).unwrap();
        }
    }
    out
}

fn catalog_of(path: &Path) -> &'static str {
    if is_in(path, "newer") { "newer" } else { "shop" }
}

fn is_in(path: &Path, folder: &str) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with(folder))
}

#[test]
fn every_case_says_what_its_statement_reads_returns_and_is_influenced_by() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let shop = std::fs::read_to_string(root.join("fixtures/shop.catalog")).expect("the shop fixture");
    // What newer servers know, on the same catalog.
    let newer = shop.replacen("\t150018\t", "\t180000\t", 1);
    let snapshots = BTreeMap::from([("shop", support::snapshot(&shop)), ("newer", support::snapshot(&newer))]);
    let mut files = Vec::new();
    case_files(&root.join("cases"), &mut files);
    files.sort();
    let mut failures = Vec::new();
    let checked: usize = files.iter().map(|path| check(path, &snapshots[catalog_of(path)], &mut failures)).sum();
    assert!(failures.is_empty(), "{} of {checked} cases differ\n{}", failures.len(), failures.join("\n"));
    assert!(checked > 100, "only {checked} cases found");
}
