//! Statements against a catalog taken from a real server (the fixture of exeat-sql's cases), and what must hold of
//! everything that is said of them. A thread of its own has the stack that the parser asks for.

use std::collections::HashMap;
use std::panic;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex};

use exeat_enforce::drift::Drift;
use exeat_enforce::evaluate::{Evaluation, SessionFacts, evaluate};
use exeat_enforce::explain::{Audience, Decided, explain};
use exeat_enforce::plan::Outputs;
use exeat_enforce::seal::SealPlan;
use exeat_policy::{Policy, PolicyContext, Principal, PrincipalKind};
use exeat_sql::{
    Analysis, CatalogSnapshot, ColumnId, Flow, Lineage, MessageAnalysis, PARSER_STACK_BYTES, QUERIES, STEPS_MAX, Scope,
    StatementKind, Use, parse_and_analyse,
};

use crate::memory;

const CATALOG: &str = include_str!("../../crates/exeat-sql/tests/fixtures/shop.catalog");

const POLICY: &str = "
version: 1
labels: {shop: {ssn: ['*.*.ssn'], email: ['public.customers.email']}}
rules:
  - {id: read, who: {groups: [agents]}, target: shop, allow: [read]}
  - {id: write, who: {groups: [writers]}, target: shop, allow: [read, insert, update, delete, merge, copy_in, call]}
  - {id: mask, target: shop, mask: {ssn: {with: partial, last: 4}, email: {with: redact, lookup: equality}}}
  - {id: hidden, target: shop, deny: true, relations: ['hr.*']}
";

/// Only of a relation that the policy denies.
const HIDDEN: &str = "salary";

/// The dearest text is a short expression of many stars: four bytes come to the columns of the widest relation, twice,
/// in the tree of the walk and in what is kept of it.
const BYTES_EACH: usize = 32 * 1024;
/// Room for what a text of any length may come to within the limit of steps.
const BYTES_ALWAYS: usize = 192 * 1024 * 1024;

/// A step may pay for a list of this many.
const STEPS_AT_ONCE: usize = 1_000_000;

struct World {
    policy: Policy,
    scope: Scope,
    sessions: [SessionFacts; 2],
}

/// Where statements go, and where the word comes from that one is done with.
type Worker = (SyncSender<(u8, String)>, Receiver<()>);

static WORKER: LazyLock<Mutex<Worker>> = LazyLock::new(|| {
    pass_over_the_parsers_panics();
    let (give, work) = sync_channel::<(u8, String)>(0);
    let (done, answer) = sync_channel(0);
    let run = move || {
        let world = World::new();
        while let Ok((way, sql)) = work.recv() {
            world.check(way, &sql);
            done.send(()).expect("somebody waits");
        }
    };
    std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn(run).expect("a thread starts");
    Mutex::new((give, answer))
});

/// They are caught and become refusals; the engine's hook would end the process at each.
fn pass_over_the_parsers_panics() {
    let ours = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|at| at.file().contains("pg_query")) {
            ours(info);
        }
    }));
}

pub fn check(way: u8, sql: &str) {
    let worker = WORKER.lock().expect("one at a time");
    worker.0.send((way, sql.to_owned())).expect("the worker works");
    worker.1.recv().expect("the worker answers");
}

impl World {
    fn new() -> Self {
        let snapshot = Arc::new(snapshot());
        let context = PolicyContext { default_issuer: Some("fuzz".to_owned()), targets: Some(vec!["shop".to_owned()]) };
        let policy = Policy::load(&[("policy.yaml".to_owned(), POLICY.to_owned())], &context).expect("a policy");
        let path = ["pg_catalog", "public"].map(|name| snapshot.schema_by_name(name).expect("a schema"));
        let sessions = ["agents", "writers"].map(|group| {
            let principal = principal(group);
            let seals = SealPlan::compute(&policy, &principal, "shop", &snapshot, &Drift::default());
            SessionFacts {
                principal: Arc::new(principal),
                target: "shop".to_owned(),
                snapshot: Arc::clone(&snapshot),
                seals: Arc::new(seals),
                administrator: false,
            }
        });
        let (search_path, usable) = (path.to_vec(), path.to_vec());
        let scope = Scope { search_path, usable, role: "hr".to_owned(), settled: true, ..Scope::default() };
        Self { policy, scope, sessions }
    }

    fn check(&self, way: u8, sql: &str) {
        let facts = &self.sessions[usize::from(way & 1)];
        let analyse = || parse_and_analyse(sql, &facts.snapshot, &self.scope);
        let Ok(analysis) = memory::bounded_to(sql.len() * BYTES_EACH + BYTES_ALWAYS, analyse) else { return };
        assert!(analysis.steps <= STEPS_MAX + STEPS_AT_ONCE, "{} steps", analysis.steps);
        hangs_together(sql, &analysis, &facts.snapshot);
        if way & 2 != 0 {
            assert_eq!(analyse().as_ref(), Ok(&analysis), "the same text means the same");
        }
        let evaluation = evaluate(facts, &self.policy, sql, &analysis);
        if let Evaluation::Permit(permit) = &evaluation {
            assert_eq!(permit.plans.len(), analysis.statements.len());
            for (statement, plan) in analysis.statements.iter().zip(&permit.plans) {
                if let Analysis::Known(lineage) = &statement.analysis {
                    is_sealed(facts, &statement.kind, lineage, &plan.outputs);
                }
            }
        }
        let decided = Decided { facts, policy: &self.policy, sql, analysis: &analysis, evaluation: &evaluation };
        for audience in [Audience::Operator, Audience::Principal] {
            let told = explain(&decided, audience);
            let (text, json) = (told.text(sql), told.json(sql, Some("req_1")).to_string());
            let harmless = |character: char| character == '\n' || !character.is_control();
            assert!(text.chars().all(harmless), "{text:?}");
            let hidden = audience == Audience::Principal && !sql.to_lowercase().contains(HIDDEN);
            assert!(!hidden || !(text.contains(HIDDEN) || json.contains(HIDDEN)), "{text}\n{json}");
        }
    }
}

/// Places lie in the text, columns exist, and what flows into an output is among the uses.
fn hangs_together(sql: &str, analysis: &MessageAnalysis, snapshot: &CatalogSnapshot) {
    let characters = sql.chars().count();
    for statement in &analysis.statements {
        assert!(sql.get(statement.text.clone()).is_some(), "{:?}", statement.text);
        let lineage = match &statement.analysis {
            Analysis::Known(lineage) => lineage,
            Analysis::Opaque(opaque) => {
                assert!(opaque.at.is_none_or(|at| (1..=characters + 1).contains(&at)), "{opaque:?}");
                continue;
            }
            Analysis::Unresolved { at, .. } => {
                assert!(at.is_none_or(|at| (1..=characters + 1).contains(&at)), "{at:?}");
                continue;
            }
        };
        let used =
            |how: &[Use], column| lineage.uses.iter().any(|used| used.column == column && how.contains(&used.how));
        for used in &lineage.uses {
            assert!(used.at.is_none_or(|at| (1..=characters + 1).contains(&at)), "{used:?}");
            assert!(snapshot.column_name(used.column).is_some(), "{used:?}");
        }
        for output in lineage.outputs.iter().flatten() {
            assert!(output.at.is_none_or(|at| (1..=characters + 1).contains(&at)), "{output:?}");
            let told = |column| used(&[Use::Projected, Use::Derived], column);
            assert!(output.flows.keys().all(|column| told(*column)), "{output:?}");
        }
    }
}

/// Of a permitted statement: what a sealed column flows into is masked, and nothing else is made of it.
fn is_sealed(facts: &SessionFacts, kind: &StatementKind, lineage: &Lineage, outputs: &Outputs) {
    let sealed = |used: &&exeat_sql::ColumnUse| facts.seals.column(used.column).is_some();
    for used in lineage.uses.iter().filter(sealed) {
        let told = [Use::Projected, Use::Derived, Use::Written, Use::Lookup, Use::Presence];
        assert!(told.contains(&used.how), "{used:?}");
    }
    let masks: Vec<bool> = match outputs {
        Outputs::Columns(columns) => columns.iter().map(|column| column.mask.is_some()).collect(),
        Outputs::Copied(copied) => copied.columns.iter().map(|column| column.mask.is_some()).collect(),
        Outputs::None | Outputs::ByOrigin | Outputs::FunctionResult | Outputs::Unchecked => Vec::new(),
    };
    // What EXPLAIN, PREPARE and DECLARE carry does not come out.
    if matches!(kind, StatementKind::Explain(_) | StatementKind::SqlPrepare { .. } | StatementKind::Cursor(_)) {
        return;
    }
    for (place, output) in lineage.outputs.iter().flatten().enumerate() {
        let shown = |(column, how): (&ColumnId, &Flow)| *how != Flow::Presence && facts.seals.column(*column).is_some();
        if output.flows.iter().any(shown) {
            assert_eq!(masks.get(place), Some(&true), "{output:?}");
        }
    }
}

fn principal(group: &str) -> Principal {
    Principal {
        issuer: "fuzz".to_owned(),
        subject: "agent-7".to_owned(),
        groups: vec![group.to_owned()],
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Workload,
        token_id: None,
        instance: Default::default(),
    }
}

fn snapshot() -> CatalogSnapshot {
    let mut rows: HashMap<&str, Vec<Vec<Option<String>>>> = HashMap::new();
    let mut section = "";
    for line in CATALOG.lines() {
        match line.strip_prefix("== ") {
            Some(name) => section = name,
            None => rows.entry(section).or_default().push(line.split('\t').map(cell).collect()),
        }
    }
    let results: Vec<_> = QUERIES.iter().map(|query| rows.remove(query.name).unwrap_or_default()).collect();
    CatalogSnapshot::build(1, &results).expect("the fixture is a whole catalog")
}

/// One value in COPY's text format.
fn cell(text: &str) -> Option<String> {
    let plain = text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
    (text != "\\N").then_some(plain)
}
