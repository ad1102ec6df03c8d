//! Prints the analysis of each line of standard input as a statement against a catalog fixture:
//! `cargo run -p exeat-sql --example analyse tests/fixtures/shop.catalog < statements`.

// It shares the helpers of the case tests, and like them may stop at a fixture it cannot read.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::string_slice)]

use std::io::{BufRead, Write};

#[path = "../tests/analysis/support.rs"]
mod support;

fn main() -> std::io::Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        return Err(std::io::Error::other("name a catalog fixture"));
    };
    let snapshot = support::snapshot(&std::fs::read_to_string(path)?);
    let scope = support::scope(&snapshot, "");
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let sql = line?;
        let outcome = support::analyse(&sql, &snapshot, &scope);
        writeln!(out, "> {sql}\n{}", support::print(&outcome, &sql, &snapshot))?;
    }
    Ok(())
}
