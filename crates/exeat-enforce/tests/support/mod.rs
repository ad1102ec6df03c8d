//! What the tests of this crate share: a catalog captured from a real server, policies, principals, and the texts
//! that a statement's evaluation is written down as.

// The lint wall exempts test functions, not the helpers they share; not every test file uses every helper.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, dead_code)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use exeat_enforce::drift::Drift;
use exeat_enforce::evaluate::SessionFacts;
use exeat_enforce::seal::SealPlan;
use exeat_policy::{Policy, PolicyContext, Principal, PrincipalKind};
use exeat_sql::catalog::{Pins, Trust};
use exeat_sql::{
    CatalogSnapshot, Hidden, MessageAnalysis, PARSER_STACK_BYTES, ParseFailure, QUERIES, Scope, parse_and_analyse,
};

pub(crate) const TARGET: &str = "shop";
const ISSUER: &str = "https://idp.example.com";

/// The rows the catalog queries gave on a real server; `shop.sql` beside the file says what was in it.
pub(crate) fn shop() -> CatalogSnapshot {
    on_parser_stack(|| shop_trusting(&Trust::default(), &Pins::default(), |text| text))
}

/// The same where the operator vouches for some of it, after `change` to the rows' text.
pub(crate) fn shop_trusting(trust: &Trust, pins: &Pins, change: impl Fn(String) -> String) -> CatalogSnapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../exeat-sql/tests/fixtures/shop.catalog");
    let text = std::fs::read_to_string(path).expect("the shop fixture is readable");
    let text = change(text);
    let mut rows: HashMap<&str, Vec<Vec<Option<String>>>> = HashMap::new();
    let mut section = "";
    for line in text.lines() {
        match line.strip_prefix("== ") {
            Some(name) => section = name,
            None => rows.entry(section).or_default().push(line.split('\t').map(cell).collect()),
        }
    }
    let results: Vec<_> = QUERIES.iter().map(|query| rows.remove(query.name).unwrap_or_default()).collect();
    CatalogSnapshot::build_trusting(1, &results, trust, pins).expect("the fixture is a whole catalog")
}

/// One value in COPY's text format. The fixture holds view definitions, hence line breaks.
fn cell(text: &str) -> Option<String> {
    let plain = text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
    (text != "\\N").then_some(plain)
}

pub(crate) fn policy(text: &str) -> Policy {
    let context = PolicyContext { default_issuer: Some(ISSUER.to_owned()), targets: Some(vec![TARGET.to_owned()]) };
    // What holds and counts is decided here before a gateway carries it out.
    Policy::load(&[("policy.yaml".to_owned(), text.to_owned())], &context).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A subject and its groups, in words.
pub(crate) fn principal(words: &str) -> Principal {
    let mut words = words.split_whitespace().map(str::to_owned);
    Principal {
        issuer: ISSUER.to_owned(),
        subject: words.next().expect("a principal has a subject"),
        groups: words.collect(),
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Workload,
        token_id: None,
        instance: std::collections::BTreeMap::new(),
    }
}

/// As the session makes them.
pub(crate) fn session(snapshot: &Arc<CatalogSnapshot>, policy: &Policy, principal: Principal) -> SessionFacts {
    let seals = SealPlan::compute(policy, &principal, TARGET, snapshot, &Drift::default());
    // Behind a login of the server's own administrators.
    let administrator = principal.groups.iter().any(|group| group == "behind-superuser");
    SessionFacts {
        administrator,
        principal: Arc::new(principal),
        target: TARGET.to_owned(),
        snapshot: Arc::clone(snapshot),
        seals: Arc::new(seals),
    }
}

pub(crate) fn analyse(sql: &str, snapshot: &CatalogSnapshot) -> Result<MessageAnalysis, ParseFailure> {
    analyse_hiding(sql, snapshot, Arc::default())
}

/// As the session would, which does not see what policy hides.
#[allow(dead_code)] // not every test has a session
pub(crate) fn analyse_for(sql: &str, session: &SessionFacts) -> Result<MessageAnalysis, ParseFailure> {
    analyse_hiding(sql, &session.snapshot, Arc::clone(session.seals.hidden()))
}

fn analyse_hiding(sql: &str, snapshot: &CatalogSnapshot, hidden: Arc<Hidden>) -> Result<MessageAnalysis, ParseFailure> {
    let path = ["pg_catalog", "public"].map(|name| snapshot.schema_by_name(name).expect("a schema of the fixture"));
    parse_and_analyse(sql, snapshot, &Scope { search_path: path.to_vec(), hidden, ..Scope::default() })
}

/// Runs on a thread with the stack that the parser asks for.
pub(crate) fn on_parser_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(threads, work);
        thread.expect("a thread starts").join().expect("nothing panics")
    })
}
