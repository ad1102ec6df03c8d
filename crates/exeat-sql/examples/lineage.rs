//! Prints what analysis predicts, by object numbers, for a test to hold against what a server says itself:
//! `lineage CATALOG < STATEMENTS`, the statements ended by NUL bytes. A catalog is what `catalog_script` makes psql write.
//!
//! First `behind COLUMN COLUMN…`: what a view's column is made from, and what chooses the view's rows; of attribute 0 only
//! what chooses them. Then per statement: `known`, `opaque` or `failed`; for each output `output ORIGIN COLUMN…` (`-` where
//! it is computed, `?` where it cannot be told); `use COLUMN` and `reads RELATION`; `end`. A column is `relation.attribute`.

// It shares the helpers of the case tests, and like them may stop at a fixture it cannot read.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::string_slice)]

use std::io::{BufRead, Write};

use exeat_sql::{Analysis, CatalogSnapshot, ColumnId, Lineage, Origin, Scope};

#[path = "../tests/analysis/support.rs"]
#[allow(dead_code, reason = "the case tests print by names")]
mod support;

fn main() -> std::io::Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        return Err(std::io::Error::other("name a catalog"));
    };
    let snapshot = support::snapshot(&std::fs::read_to_string(path)?);
    let scope = support::scope(&snapshot, "");
    let mut out = std::io::stdout().lock();
    write!(out, "{}", views(&snapshot).concat())?;
    for text in std::io::stdin().lock().split(0) {
        let sql = String::from_utf8(text?).map_err(std::io::Error::other)?;
        writeln!(out, "{}end", said(&sql, &snapshot, &scope))?;
    }
    Ok(())
}

fn views(snapshot: &CatalogSnapshot) -> Vec<String> {
    let mut found = Vec::new();
    for view in snapshot.relations() {
        let Some(Ok(lineage)) = snapshot.view_lineage(view.oid) else { continue };
        let choosing: Vec<String> = lineage.influences.iter().map(|id| column(*id)).collect();
        found.push(format!("behind {}.0 {}\n", view.oid.0, choosing.join(" ")));
        for (attribute, flows) in &lineage.columns {
            let behind: Vec<String> = flows.keys().chain(&lineage.influences).map(|id| column(*id)).collect();
            found.push(format!("behind {}.{attribute} {}\n", view.oid.0, behind.join(" ")));
        }
    }
    found
}

fn said(sql: &str, snapshot: &CatalogSnapshot, scope: &Scope) -> String {
    let Ok(message) = support::analyse(sql, snapshot, scope) else { return "failed\n".to_owned() };
    let [statement] = message.statements.as_slice() else { return "failed\n".to_owned() };
    match &statement.analysis {
        Analysis::Known(lineage) => format!("known\n{}", lines(lineage).concat()),
        Analysis::Opaque(_) => "opaque\n".to_owned(),
        Analysis::Unresolved { .. } => "failed\n".to_owned(),
    }
}

fn lines(lineage: &Lineage) -> Vec<String> {
    let outputs = lineage.outputs.iter().flatten().map(|output| {
        let origin = match output.origin {
            Origin::Column(id) => column(id),
            Origin::None => "-".to_owned(),
            Origin::Unknown => "?".to_owned(),
        };
        let flows: Vec<String> = output.flows.keys().map(|id| column(*id)).collect();
        format!("output {origin} {}\n", flows.join(" "))
    });
    let uses = lineage.uses.iter().map(|used| format!("use {}\n", column(used.column)));
    let reads = lineage.reads.union(&lineage.reaches).map(|oid| format!("reads {}\n", oid.0));
    outputs.chain(uses).chain(reads).collect()
}

fn column(id: ColumnId) -> String {
    format!("{}.{}", id.relation.0, id.attribute)
}
