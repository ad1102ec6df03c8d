//! Statements built to hurt: deep, wide, long. Each must end in an answer, in bounded time, without a panic or an
//! overflow of the parser thread's stack.

use std::time::{Duration, Instant};

use exeat_sql::{Analysis, CatalogSnapshot, ParseFailure, STATEMENT_BYTES_MAX, STEPS_MAX};

use crate::support;

/// Far above what any of these takes, far below what an exponential walk would; also on a busy machine.
const SECONDS_MAX: Duration = Duration::from_secs(60);

fn shop() -> CatalogSnapshot {
    support::snapshot(include_str!("../fixtures/shop.catalog"))
}

/// Analyses and gives one word for the outcome.
fn outcome(sql: &str, snapshot: &CatalogSnapshot) -> &'static str {
    let started = Instant::now();
    let answer = support::analyse(sql, snapshot, &support::scope(snapshot, ""));
    assert!(started.elapsed() < SECONDS_MAX, "{:?} for {:.60}", started.elapsed(), sql);
    match answer {
        Err(ParseFailure::TooLong { .. }) => "too long",
        Err(ParseFailure::TooDeep) => "too deep",
        Err(ParseFailure::Syntax { .. }) => "syntax",
        Err(ParseFailure::NotAnalysed { .. }) => "not analysed",
        Ok(message) => match message.statements.first().map(|statement| &statement.analysis) {
            None => "empty",
            Some(Analysis::Known(_)) => "known",
            Some(Analysis::Opaque(_)) => "opaque",
            Some(Analysis::Unresolved { .. }) => "unresolved",
        },
    }
}

/// Nested `depth` times around a core.
fn nested(open: &str, core: &str, close: &str, depth: usize) -> String {
    format!("{}{core}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn nesting_of_a_thousand_levels_is_analysed() {
    let snapshot = shop();
    for sql in [
        format!("SELECT {}", vec!["1"; 1000].join("+")),
        format!("SELECT {}", nested("abs(", "id", ")", 1000)) + " FROM codes",
        format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END", 500)),
        format!("SELECT {} FROM codes", nested("(SELECT ", "id", ")", 500)),
        format!("SELECT id FROM {} LIMIT 1", nested("(SELECT id FROM ", "codes", ") x", 500)),
        vec!["SELECT id FROM codes"; 1000].join(" UNION ALL "),
        format!("SELECT 1 FROM codes a0 {}", (1..400).map(|n| format!("JOIN codes a{n} ON true ")).collect::<String>()),
    ] {
        assert_eq!(outcome(&sql, &snapshot), "known", "{sql:.80}");
    }
}

#[test]
fn nesting_of_ten_thousand_levels_and_more_is_refused_or_analysed_but_never_fatal() {
    let snapshot = shop();
    for depth in [5_000, 10_000, 60_000] {
        for sql in [
            format!("SELECT {}", vec!["1"; depth].join("+")),
            format!("SELECT {}", nested("(", "1", ")", depth)),
            format!("SELECT {}", nested("abs(", "1", ")", depth)),
            format!("SELECT {}", nested("NOT ", "true", "", depth)),
            format!("SELECT {}", nested("- ", "1", "", depth)),
            format!("SELECT 1{}", "::int".repeat(depth)),
            format!("SELECT {}", nested("(SELECT ", "1", ")", depth)),
            format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END", depth)),
            format!("SELECT {}", nested("ARRAY[", "1", "]", depth)),
            format!("SELECT {}", nested("ROW(", "1", ")", depth)),
            format!("SELECT * FROM {}", nested("(SELECT * FROM ", "codes", ") x", depth)),
            format!("SELECT * FROM {} codes", "codes JOIN ".repeat(depth)),
            nested("WITH x AS (", "SELECT 1", ") SELECT 1", depth),
            vec!["SELECT 1"; depth].join(" UNION "),
        ] {
            if sql.len() <= STATEMENT_BYTES_MAX {
                assert_ne!(outcome(&sql, &snapshot), "empty", "{sql:.80}");
            }
        }
    }
}

#[test]
fn wide_statements_end() {
    let snapshot = shop();
    let list = |item: &str, times: usize| vec![item; times].join(",");
    for (sql, expected) in [
        (format!("SELECT {} FROM codes", list("id", 10_000)), "opaque"),
        (format!("SELECT {} FROM codes", list("*", 100_000)), "opaque"),
        (format!("SELECT {} FROM customers", list("id", 1_600)), "known"),
        (format!("SELECT id FROM codes WHERE id IN ({})", list("1", 400_000)), "known"),
        (format!("VALUES {}", list("(1)", 200_000)), "known"),
        (format!("SELECT id FROM codes GROUP BY {}", list("1", 400_000)), "known"),
        (format!("SELECT 1 FROM {}", list("codes", 100_000)), "known"),
        (format!("SELECT {} FROM {}", list("id", 1_000), list("codes", 100_000)), "unresolved"),
        (format!("SELECT 1 WHERE {}", list("x = x", 10_000).replace(',', " AND ")), "unresolved"),
        (format!("SELECT id FROM codes {}", "NATURAL JOIN codes ".repeat(2_000)), "known"),
        (format!("SELECT 1 FROM codes {}", "CROSS JOIN codes ".repeat(3_000)), "opaque"),
        (
            format!("SELECT 1 FROM {}", (0..3_000).map(|n| format!("(SELECT 1) a{n}")).collect::<Vec<_>>().join(",")),
            "known",
        ),
        ("SELECT 1;".repeat(100_000), "known"),
        (format!("SELECT '{}'", "x".repeat(1_000_000)), "known"),
        (format!("SELECT 1 {}", "/*".repeat(200_000)), "not analysed"),
        (format!("SELECT {}1", "+-".repeat(200_000)), "not analysed"),
        (format!("SELECT {}1", "+- ".repeat(200_000)), "too deep"),
        ("é".repeat(STATEMENT_BYTES_MAX / 2), "syntax"),
        ("x".repeat(STATEMENT_BYTES_MAX + 1), "too long"),
        (" ".repeat(STATEMENT_BYTES_MAX), "empty"),
        ("-- nothing".to_owned(), "empty"),
    ] {
        assert_eq!(outcome(&sql, &snapshot), expected, "{sql:.80}");
    }
}

#[test]
fn statements_that_explode_run_out_of_steps() {
    let snapshot = shop();
    // Each key uses all that the first output is made from again.
    let columns =
        (0..60).map(|n| format!("SELECT id, email, city FROM codes c{n}")).collect::<Vec<_>>().join(" UNION ALL ");
    let sum = vec!["id"; 4_000].join("+");
    let sql = format!("SELECT {sum} FROM codes GROUP BY {}", vec!["1"; 100_000].join(","));
    assert_eq!(outcome(&sql, &snapshot), "known", "what an output is made from is known after the first walk");
    assert_eq!(outcome(&columns, &snapshot), "known");
    // Thousands of values in one, each made of thousands of columns.
    let row = "coalesce(row(pg_attribute.*, pg_class.*, pg_type.*, pg_proc.*)::text, 'x')";
    let deep = format!(
        "SELECT {}{row}{} FROM pg_attribute, pg_class, pg_type, pg_proc",
        "coalesce(".repeat(3_000),
        format!(", {row})").repeat(3_000)
    );
    assert_eq!(outcome(&deep, &snapshot), "opaque");
    // Each level doubles the columns of the one below.
    let doubling = (1..60).map(|n| format!(", c{n} AS (SELECT a.*, b.* FROM c{} a, c{} b)", n - 1, n - 1));
    let sql = format!("WITH c0 AS (SELECT * FROM codes) {} SELECT 1", doubling.collect::<String>());
    assert_eq!(outcome(&sql, &snapshot), "opaque");
}

/// Steps taken and bytes kept by an analysis, whatever it says of the statements.
fn cost(sql: &str, snapshot: &CatalogSnapshot) -> (usize, usize) {
    let message = support::analyse(sql, snapshot, &support::scope(snapshot, "")).expect("it is analysed");
    (message.steps, message.bytes())
}

#[test]
fn a_megabyte_costs_steps_and_memory_in_proportion_to_its_length() {
    let snapshot = shop();
    let filled = |open: &str, item: &str, close: &str| {
        let times = (STATEMENT_BYTES_MAX - open.len() - close.len()) / item.len();
        format!("{open}{}{close}", item.repeat(times))
    };
    for sql in [
        filled("SELECT id FROM codes WHERE id IN (0", ",1", ")"),
        filled("INSERT INTO codes (id, email, city) VALUES (0, '', '')", ",(1,'a','b')", ""),
        filled("INSERT INTO customers (id, email) VALUES (0, '')", ",(1,'a')", ""),
        filled("SELECT id FROM codes WHERE true", " AND id = 1", ""),
        filled("SELECT id FROM codes GROUP BY id", ",city", ""),
        filled("SELECT 1 FROM codes c", ",codes", ""),
        filled("SELECT coalesce(id", ",id", ") FROM codes"),
        filled("SELECT 'x", "x", "'"),
        filled("", "SELECT id FROM codes;", ""),
        filled("", ";", ""),
        filled("SELECT id FROM codes WHERE id = 1", " OR city = 'é'", ""),
    ] {
        let (steps, bytes) = cost(&sql, &snapshot);
        assert!(steps <= 5 * sql.len(), "{steps} steps for {sql:.60}");
        assert!(bytes <= 96 * sql.len(), "{bytes} bytes for {sql:.60}");
    }
}

#[test]
fn twice_as_deep_costs_twice_as_much_and_ten_thousand_levels_never_more_than_the_limit() {
    let snapshot = shop();
    type Nest = fn(usize) -> String;
    let forms: [Nest; 9] = [
        |depth| format!("SELECT {}", nested("(", "1", ")", depth)),
        |depth| format!("SELECT {} FROM codes", nested("abs(", "id", ")", depth)),
        |depth| format!("SELECT {} FROM codes", vec!["id"; depth].join("+")),
        |depth| format!("SELECT {} FROM codes", nested("coalesce(id, ", "id", ")", depth)),
        |depth| format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END", depth)),
        |depth| format!("SELECT {} FROM codes", nested("(SELECT ", "id", ")", depth)),
        |depth| format!("SELECT id FROM {} LIMIT 1", nested("(SELECT id FROM ", "codes", ") x", depth)),
        |depth| vec!["SELECT id FROM codes"; depth].join(" UNION ALL "),
        |depth| nested("WITH x AS (", "SELECT 1", ") SELECT 1", depth),
    ];
    for form in forms {
        let (once, twice) = (cost(&form(250), &snapshot), cost(&form(500), &snapshot));
        assert!(twice.0 <= 3 * once.0 && twice.1 <= 3 * once.1, "{once:?}, {twice:?}: {:.60}", form(500));
        match support::analyse(&form(10_000), &snapshot, &support::scope(&snapshot, "")) {
            Ok(message) => {
                assert!(message.steps <= STEPS_MAX + 1, "{} steps", message.steps);
                assert!(message.bytes() <= 64 * form(10_000).len(), "{} bytes", message.bytes());
            }
            Err(failure) => assert_eq!(failure, ParseFailure::TooDeep),
        }
    }
}

#[test]
fn lists_of_ten_thousand_columns_cost_steps_and_memory_in_proportion() {
    let snapshot = shop();
    let list = |item: &str| vec![item; 10_000].join(",");
    let names = (0..10_000).map(|number| format!("c{number}")).collect::<Vec<_>>().join(",");
    for sql in [
        format!("SELECT {} FROM codes", list("id")),
        format!("SELECT {} FROM codes", list("*")),
        format!("SELECT {names} FROM codes"),
        format!("SELECT x.* FROM (SELECT {}) AS x({names})", list("1")),
        format!("INSERT INTO codes ({names}) VALUES ({})", list("1")),
        format!("INSERT INTO codes (id) VALUES {}", list("(1)")),
        format!("UPDATE codes SET {}", list("id = id")),
        format!("SELECT id FROM codes ORDER BY {}", list("city")),
        format!("SELECT row({}) FROM codes", list("codes.*")),
        format!("SELECT 1 FROM codes a JOIN codes b USING ({names})"),
        format!("SELECT count(*) FROM codes GROUP BY GROUPING SETS ({})", list("(id, city)")),
    ] {
        let (steps, bytes) = cost(&sql, &snapshot);
        assert!(steps <= 200 * 10_000, "{steps} steps for {sql:.60}");
        assert!(bytes <= 96 * sql.len(), "{bytes} bytes for {sql:.60}");
    }
}

#[test]
fn many_statements_share_one_budget_of_steps() {
    let snapshot = shop();
    let wide = "SELECT * FROM pg_attribute a, pg_class c, pg_type t, pg_proc p;";
    let sql = wide.repeat(STATEMENT_BYTES_MAX / wide.len());
    let message = support::analyse(&sql, &snapshot, &support::scope(&snapshot, "")).expect("it is analysed");
    assert!(message.bytes() <= 64 * STATEMENT_BYTES_MAX, "{} bytes", message.bytes());
    assert!(message.steps > STEPS_MAX, "the case no longer reaches the limit: {}", message.steps);
    // A statement that reaches the limit ends there.
    assert!(message.steps < STEPS_MAX + 100_000, "{}", message.steps);
    let known = |statement: &exeat_sql::StatementAnalysis| matches!(statement.analysis, Analysis::Known(_));
    let first_refused = message.statements.iter().position(|statement| !known(statement)).expect("one past the limit");
    assert!(first_refused > 100 && !message.statements[first_refused..].iter().any(known));
}

#[test]
fn a_megabyte_of_rows_under_a_key_is_analysed_and_weighs_little_more_than_its_text() {
    let snapshot = shop();
    for (row, rows) in [("(1,'a-long-name-of-twenty-thousand@example.com')", 20_000), ("(1,'a')", 120_000)] {
        let sql = format!("INSERT INTO customers (id, email) VALUES {}", vec![row; rows].join(","));
        let message = support::analyse(&sql, &snapshot, &support::scope(&snapshot, "")).expect("it parses");
        let [Analysis::Known(lineage)] = [&message.statements[0].analysis] else { panic!("{row} is known") };
        assert_eq!(lineage.rows.len(), rows);
        assert!(message.bytes() < 200 * rows + 3 * sql.len(), "{} bytes for {row}", message.bytes());
    }
}
