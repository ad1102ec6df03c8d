//! Prints a psql script that writes a catalog fixture: `cargo run -p exeat-sql --example catalog_script |
//! psql -X -q DSN > tests/fixtures/NAME.catalog`, on a database made from `tests/fixtures/NAME.sql`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = '';")?;
    for query in exeat_sql::QUERIES {
        writeln!(out, "\\echo == {}", query.name)?;
        writeln!(out, "COPY ({}) TO STDOUT;", query.sql)?;
    }
    writeln!(out, "COMMIT;")
}
