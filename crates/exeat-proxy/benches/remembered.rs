//! What a statement costs that is remembered: `cargo bench -p exeat-proxy` prints microseconds of CPU of one core for
//! finding by its text what it comes to for a session, and for analysing and evaluating it where that is forgotten.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]
#![allow(clippy::expect_used, reason = "what it measures must have worked")]

use std::hint::black_box;
use std::sync::Arc;

use exeat_enforce::evaluate::{Evaluation, evaluate};
use exeat_proxy::remembered::{Generation, Remembered};

#[path = "../../exeat-enforce/tests/support/mod.rs"]
mod support;

/// One measurement, about.
const SECONDS: f64 = 0.5;
/// Other statements remembered beside the one looked up.
const OTHERS: usize = 5_000;

const POLICY: &str = "
version: 1
labels: {shop: {ssn: ['public.customers.ssn'], email: ['public.customers.email']}}
rules:
  - {id: read, who: {groups: [agents]}, target: shop, allow: [read]}
  - {id: mask, target: shop, mask: {ssn: {with: partial, last: 4}, email: {with: redact}}}
";

fn main() {
    support::on_parser_stack(|| {
        let (snapshot, policy) = (Arc::new(support::shop()), support::policy(POLICY));
        let facts = support::session(&snapshot, &policy, support::principal("agent-7 agents"));
        let found_out = |sql: &str| {
            let analysis = Arc::new(support::analyse(sql, &snapshot).expect("it is analysed"));
            let evaluation = evaluate(&facts, &policy, sql, &analysis);
            assert!(matches!(evaluation, Evaluation::Permit(_)), "refused: {sql:.60}");
            (analysis, evaluation)
        };
        let (remembered, session) = (Remembered::default(), Generation::new());
        for number in 0..OTHERS {
            let sql = format!("SELECT {number}");
            remembered.keep_evaluation(session, &sql, &found_out(&sql));
        }
        println!("| statement | bytes | remembered µs | forgotten µs |");
        println!("|---|---|---|---|");
        for (name, sql) in [
            ("point select, masked", "SELECT id, email, ssn FROM customers WHERE id = 4711".to_owned()),
            ("IN list of 8 KB", format!("SELECT id FROM codes WHERE id IN ({})", vec!["1234567"; 1_000].join(","))),
        ] {
            remembered.keep_evaluation(session, &sql, &found_out(&sql));
            let known = timed(|| drop(black_box(remembered.evaluation(session, black_box(&sql)).expect("remembered"))));
            let anew = timed(|| drop(black_box(found_out(black_box(&sql)))));
            println!("| {name} | {} | {known:.2} | {anew:.1} |", sql.len());
        }
    });
}

/// Microseconds of this thread's CPU. The kernel counts it in ticks: seldom asked, often enough to end in time.
fn timed(work: impl Fn()) -> f64 {
    let (mut done, mut batch, started) = (0_u32, 1_u32, thread_seconds());
    loop {
        (0..batch).for_each(|_| work());
        done += batch;
        let seconds = thread_seconds() - started;
        if seconds >= SECONDS {
            return seconds * 1e6 / f64::from(done);
        }
        batch = (done / 4).clamp(1, 100_000);
    }
}

fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).expect("a number") / 1e9
}
