//! Runs the tests written in the policy files: each statement is analysed against the target's real catalog and
//! decided as it would be for a session, and the answer is held against what the test expects. Nothing of a test
//! reaches the database: the statements are read, not run.

use std::collections::BTreeMap;
use std::sync::Arc;

use exeat_enforce::drift::Drift;
use exeat_enforce::evaluate::{Evaluation, SessionFacts, evaluate};
use exeat_enforce::plan::{Outputs, StatementPlan};
use exeat_enforce::refusal::Refusal;
use exeat_enforce::seal::SealPlan;
use exeat_policy::{Expectation, Policy, PolicyTest};
use exeat_proxy::config::{AnalyseRequest, Analyser, Target};

use crate::catalog::{self, TargetCatalog};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    /// The target's catalog could not be read, so nobody knows.
    NotRun(String),
}

/// One test and how it went.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// file:line:column.
    pub(crate) place: String,
    pub(crate) target: String,
    pub(crate) subject: String,
    pub(crate) verdict: Verdict,
}

/// Catalogs of the targets that the policy's tests speak of.
pub(crate) struct Catalogs(BTreeMap<String, Result<TargetCatalog, String>>);

impl Catalogs {
    pub(crate) async fn read(policy: &Policy, targets: &BTreeMap<String, Target>) -> Self {
        let mut catalogs = BTreeMap::new();
        for test in policy.tests() {
            if catalogs.contains_key(&test.target) {
                continue;
            }
            let read = match targets.get(&test.target) {
                Some(target) => catalog::read(target).await.map_err(|error| error.to_string()),
                None => Err(format!("target \"{}\" is not configured", test.target)),
            };
            catalogs.insert(test.target.clone(), read);
        }
        Self(catalogs)
    }
}

/// Runs every test, in file order.
pub(crate) async fn run(policy: &Policy, catalogs: &Catalogs, analyser: &Analyser) -> Vec<Report> {
    let mut reports = Vec::with_capacity(policy.tests().len());
    for test in policy.tests() {
        let verdict = match catalogs.0.get(&test.target) {
            Some(Ok(catalog)) => run_one(policy, test, catalog, analyser).await,
            Some(Err(problem)) => Verdict::NotRun(problem.clone()),
            None => Verdict::NotRun(format!("target \"{}\" is not configured", test.target)),
        };
        reports.push(Report {
            place: test.place.to_string(),
            target: test.target.clone(),
            subject: test.principal.subject.clone(),
            verdict,
        });
    }
    reports
}

async fn run_one(policy: &Policy, test: &PolicyTest, catalog: &TargetCatalog, analyser: &Analyser) -> Verdict {
    // Its session is passed through, whatever it sends: nothing is analysed there, nothing masked.
    if policy.unrestricted(&test.principal, &test.target) {
        return allowed(&test.expect, &[]);
    }
    let request = AnalyseRequest {
        sql: test.statement.clone(),
        snapshot: Arc::clone(&catalog.snapshot),
        scope: Arc::clone(&catalog.scope),
    };
    let analysis = match analyser(request).await {
        Ok(Ok(analysis)) => analysis,
        Ok(Err(failure)) => return Verdict::Failed(failure.to_string()),
        Err(_closed) => return Verdict::NotRun("the parser gave no answer".to_owned()),
    };
    let facts = SessionFacts {
        principal: Arc::new(test.principal.clone()),
        target: test.target.clone(),
        snapshot: Arc::clone(&catalog.snapshot),
        seals: Arc::new(SealPlan::compute(policy, &test.principal, &test.target, &catalog.snapshot, &Drift::default())),
        administrator: catalog.administrator,
    };
    compare(&test.expect, &evaluate(&facts, policy, &test.statement, &analysis))
}

fn compare(expect: &Expectation, evaluation: &Evaluation) -> Verdict {
    match evaluation {
        Evaluation::Permit(permit) => allowed(expect, &permit.plans),
        Evaluation::Refuse { refusal, .. } | Evaluation::Probe { refusal, .. } => refused(expect, refusal),
        Evaluation::Missing { missing, .. } => Verdict::Failed(missing.message.clone()),
    }
}

fn allowed(expect: &Expectation, plans: &[StatementPlan]) -> Verdict {
    match expect {
        Expectation::Allow { masked: None } => Verdict::Passed,
        Expectation::Allow { masked: Some(expected) } => {
            let found = masked(plans);
            if found == *expected {
                return Verdict::Passed;
            }
            Verdict::Failed(format!("expected masked columns {expected:?}, found {found:?}"))
        }
        Expectation::Deny { .. } => Verdict::Failed("expected deny, allowed".to_owned()),
    }
}

fn refused(expect: &Expectation, refusal: &Refusal) -> Verdict {
    let found = refusal.code.as_str();
    match expect {
        Expectation::Allow { .. } => {
            Verdict::Failed(format!("expected allow, refused with {found}: {}", refusal.reason))
        }
        Expectation::Deny { code: Some(code) } if code != found => {
            Verdict::Failed(format!("expected refusal {code}, refused with {found}: {}", refusal.reason))
        }
        Expectation::Deny { .. } => Verdict::Passed,
    }
}

/// Output column to label. A column without a name of its own is named by its place, from 1.
fn masked(plans: &[StatementPlan]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for plan in plans {
        let columns: Vec<_> = match &plan.outputs {
            Outputs::Columns(columns) => columns.iter().map(|column| (&column.name, &column.mask)).collect(),
            Outputs::Copied(plan) => plan.columns.iter().map(|column| (&column.name, &column.mask)).collect(),
            Outputs::None | Outputs::ByOrigin | Outputs::FunctionResult | Outputs::Unchecked => Vec::new(),
        };
        for (index, (name, mask)) in columns.into_iter().enumerate() {
            let Some(mask) = mask else { continue };
            let name = name.clone().unwrap_or_else(|| format!("column {}", index + 1));
            found.insert(name, mask.label.clone());
        }
    }
    found
}

/// How all of them went, for whoever has to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Summary {
    Passed,
    Failed(String),
    NotRun(String),
}

pub(crate) fn summarise(reports: &[Report]) -> Summary {
    let failed: Vec<String> = reports
        .iter()
        .filter_map(|report| match &report.verdict {
            Verdict::Failed(problem) => Some(format!("test at {}: {problem}", report.place)),
            Verdict::Passed | Verdict::NotRun(_) => None,
        })
        .collect();
    if !failed.is_empty() {
        return Summary::Failed(failed.join("; "));
    }
    let not_run = reports.iter().find_map(|report| match &report.verdict {
        Verdict::NotRun(problem) => Some(format!("test at {}: {problem}", report.place)),
        Verdict::Passed | Verdict::Failed(_) => None,
    });
    not_run.map_or(Summary::Passed, Summary::NotRun)
}
