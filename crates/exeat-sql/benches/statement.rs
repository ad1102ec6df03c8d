//! What a statement never seen before costs: `cargo bench -p exeat-sql` prints microseconds of CPU a statement, for
//! its parse by pg_query alone, which is the grammar and the tree, and for the whole analysis, which parses it too.
//! The ratio of the two is what to watch: it may be 3 at most.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::string_slice, reason = "what it measures must have worked")]

use std::hint::black_box;

use exeat_sql::{Analysis, CatalogSnapshot, PARSER_STACK_BYTES, Scope, parse_and_analyse};

#[path = "../tests/analysis/support.rs"]
#[allow(dead_code, reason = "the case tests print by names")]
mod support;

/// Each figure is the best of so many, which take turns.
const ROUNDS: usize = 7;
/// One round of one statement, about.
const ROUND_SECONDS: f64 = 0.3;

fn main() {
    let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn(table);
    thread.expect("a thread starts").join().expect("the benchmark ends");
}

fn table() {
    let snapshot = support::snapshot(include_str!("../tests/fixtures/shop.catalog"));
    let scope = support::scope(&snapshot, "");
    println!("| statement | bytes | parse µs | parse and analysis µs | ratio |");
    println!("|---|---|---|---|---|");
    for (name, sql) in statements() {
        let (parse, whole) = measure(&sql, &snapshot, &scope);
        println!("| {name} | {} | {parse:.1} | {whole:.1} | {:.2} |", sql.len(), whole / parse);
    }
}

fn statements() -> Vec<(&'static str, String)> {
    let joins: String =
        (1..10).map(|n| format!(" JOIN orders o{n} ON o{n}.customer_id = c.id AND o{n}.id > {n}")).collect();
    let row = |n: usize| format!("({n}, {}, 'item number {n}', {}.99)", n % 50, n % 400);
    let rows: Vec<String> = (0..2_900).map(row).collect();
    vec![
        ("point select", "SELECT id, email, city FROM customers WHERE id = 4711".to_owned()),
        ("update", "UPDATE orders SET note = 'x', total = total + 1 WHERE id = 4711".to_owned()),
        (
            "report",
            "WITH recent AS (SELECT customer_id, sum(total) AS spent, count(*) AS n FROM orders \
             WHERE created > now() - interval '30 days' GROUP BY customer_id) \
             SELECT c.id, c.city, r.spent, r.n, rank() OVER (PARTITION BY c.city ORDER BY r.spent DESC) AS place \
             FROM customers c JOIN recent r ON r.customer_id = c.id WHERE r.n > 3 ORDER BY r.spent DESC LIMIT 100"
                .to_owned(),
        ),
        ("ten-way join", format!("SELECT c.id, c.city, o1.total FROM customers c{joins} WHERE c.id = 4711")),
        (
            "INSERT of 100 KB",
            format!("INSERT INTO order_items (order_id, line, product, price) VALUES {}", rows.join(", ")),
        ),
        ("IN list of 100 KB", format!("SELECT id FROM codes WHERE id IN ({})", vec!["123456"; 14_000].join(", "))),
    ]
}

/// Microseconds of a parse alone and of the whole.
fn measure(sql: &str, snapshot: &CatalogSnapshot, scope: &Scope) -> (f64, f64) {
    let parse = || drop(black_box(pg_query::parse(black_box(sql), 0).expect("it parses")));
    let whole = || {
        let message = black_box(parse_and_analyse(black_box(sql), snapshot, scope).expect("it is analysed"));
        let known = message.statements.first().map(|statement| &statement.analysis);
        assert!(matches!(known, Some(Analysis::Known(_))), "not analysed: {sql:.60}");
    };
    let (mut best_parse, mut best_whole) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        best_parse = best_parse.min(timed(parse));
        best_whole = best_whole.min(timed(whole));
    }
    (best_parse, best_whole)
}

fn timed(work: impl Fn()) -> f64 {
    let (mut done, mut batch, started) = (0_u32, 1_u32, thread_seconds());
    loop {
        (0..batch).for_each(|_| work());
        done += batch;
        let seconds = thread_seconds() - started;
        if seconds >= ROUND_SECONDS {
            return seconds * 1e6 / f64::from(done);
        }
        // The kernel counts in ticks: seldom asked, often enough to end in time.
        batch = (done / 4).clamp(1, 10_000);
    }
}

/// CPU of this thread so far: what other programs of the machine do meanwhile is not in it.
fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).expect("a number") / 1e9
}
