//! Decides statements for principals outside any session: analysed against the target's real catalog and decided as a
//! session would have it, but nothing reaches the database: the statements are read, not run. Runs the tests written in
//! the policy files that way, and holds each answer against what the test expects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exeat_enforce::drift::Drift;
use exeat_enforce::evaluate::{Evaluation, SessionFacts, evaluate};
use exeat_enforce::explain::{Audience, Decided, Explanation, OutputColumn, SourceColumn, explain};
use exeat_enforce::plan::{Outputs, StatementPlan};
use exeat_enforce::refusal::Refusal;
use exeat_enforce::seal::SealPlan;
use exeat_policy::{Expectation, Policy, PolicyTest, Principal};
use exeat_proxy::config::{AnalyseRequest, Analyser, Target};
use exeat_sql::catalog::Pins;
use exeat_sql::{MessageAnalysis, ParseFailure};

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
                Some(target) => catalog::read(target, &Pins::default()).await.map_err(|error| error.to_string()),
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
    let asked = Asked { principal: &test.principal, target: &test.target, statement: &test.statement };
    match judge(policy, &asked, catalog, analyser).await {
        Judgement::PassedThrough => allowed(&test.expect, &[], None),
        Judgement::NotParsed(failure) => unparsed(&test.expect, &failure),
        Judgement::Decided(known) => compare(&test.expect, &known, &known.explain(policy, &test.statement)),
        Judgement::NotKnown(problem) => Verdict::NotRun(problem),
    }
}

/// A statement of a principal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) target: &'a str,
    pub(crate) statement: &'a str,
}

pub(crate) enum Judgement {
    /// The principal's sessions are passed through, whatever they send: nothing is analysed there, nothing masked.
    PassedThrough,
    NotParsed(ParseFailure),
    Decided(Box<Known>),
    /// The parser gave no answer.
    NotKnown(String),
}

/// What a statement means, and what was decided.
pub(crate) struct Known {
    facts: SessionFacts,
    analysis: Arc<MessageAnalysis>,
    evaluation: Evaluation,
}

impl Known {
    /// For whoever writes the policy.
    pub(crate) fn explain(&self, policy: &Policy, sql: &str) -> Explanation {
        let Self { facts, analysis, evaluation } = self;
        explain(&Decided { facts, policy, sql, analysis, evaluation }, Audience::Operator)
    }
}

pub(crate) async fn judge(
    policy: &Policy,
    asked: &Asked<'_>,
    catalog: &TargetCatalog,
    analyser: &Analyser,
) -> Judgement {
    let Asked { principal, target, statement } = *asked;
    if policy.unrestricted(principal, target) {
        return Judgement::PassedThrough;
    }
    let request = AnalyseRequest {
        sql: statement.to_owned(),
        snapshot: Arc::clone(&catalog.snapshot),
        scope: Arc::clone(&catalog.scope),
    };
    let analysis = match analyser(request).await {
        Ok(Ok(analysis)) => analysis,
        Ok(Err(failure)) => return Judgement::NotParsed(failure),
        Err(_closed) => return Judgement::NotKnown("the parser gave no answer".to_owned()),
    };
    let facts = SessionFacts {
        principal: Arc::new(principal.clone()),
        target: target.to_owned(),
        snapshot: Arc::clone(&catalog.snapshot),
        seals: Arc::new(SealPlan::compute(policy, principal, target, &catalog.snapshot, &Drift::default())),
        administrator: catalog.administrator,
    };
    let evaluation = evaluate(&facts, policy, statement, &analysis);
    Judgement::Decided(Box::new(Known { facts, analysis, evaluation }))
}

/// What does not parse is the server's to answer; what is too long, too deep or not analysed is refused.
fn unparsed(expect: &Expectation, failure: &ParseFailure) -> Verdict {
    match failure {
        ParseFailure::Syntax { .. } => Verdict::Failed(failure.to_string()),
        ParseFailure::TooLong { .. } | ParseFailure::TooDeep | ParseFailure::NotAnalysed { .. } => {
            refused(expect, &Refusal::parse_failure(failure))
        }
    }
}

fn compare(expect: &Expectation, known: &Known, explanation: &Explanation) -> Verdict {
    match &known.evaluation {
        Evaluation::Permit(permit) => allowed(expect, &permit.plans, Some(explanation)),
        Evaluation::Refuse { refusal, .. } | Evaluation::Probe { refusal, .. } => refused(expect, refusal),
        Evaluation::Missing { missing, .. } => Verdict::Failed(missing.message.clone()),
    }
}

fn allowed(expect: &Expectation, plans: &[StatementPlan], explanation: Option<&Explanation>) -> Verdict {
    let is_held = explanation.is_some_and(Explanation::is_held);
    let (expected, lineage) = match expect {
        Expectation::Hold if is_held => return Verdict::Passed,
        Expectation::Hold => return Verdict::Failed("expected hold, it runs at once".to_owned()),
        Expectation::Deny { .. } if is_held => return Verdict::Failed("expected deny, held".to_owned()),
        Expectation::Deny { .. } => return Verdict::Failed("expected deny, allowed".to_owned()),
        Expectation::Allow { .. } if is_held => return Verdict::Failed("expected allow, held".to_owned()),
        Expectation::Allow { masked, lineage } => (masked, lineage),
    };
    if let Some(expected) = expected {
        let found = masked(plans);
        if found != *expected {
            return Verdict::Failed(format!("expected masked columns {expected:?}, found {found:?}"));
        }
    }
    let outputs = explanation.map_or(&[][..], Explanation::outputs);
    lineage.iter().find_map(|(name, columns)| differs(name, columns, outputs)).map_or(Verdict::Passed, Verdict::Failed)
}

/// Whether an output column is made of other stored columns than expected. Of a view's column, those behind it count.
fn differs(name: &str, expected: &BTreeSet<String>, outputs: &[OutputColumn]) -> Option<String> {
    let Some(output) = outputs.iter().find(|output| output.name.as_deref() == Some(name)) else {
        return Some(format!("expected the lineage of output column {name:?}, which the statement does not have"));
    };
    let stored = |source: &SourceColumn| match source.behind.as_slice() {
        [] => vec![source.column.clone()],
        behind => behind.to_vec(),
    };
    let found: BTreeSet<String> = output.from.iter().flatten().flat_map(stored).collect();
    (found != *expected).then(|| format!("expected {name:?} to come from {expected:?}, it comes from {found:?}"))
}

fn refused(expect: &Expectation, refusal: &Refusal) -> Verdict {
    let found = refusal.code.as_str();
    match expect {
        Expectation::Hold => Verdict::Failed(format!("expected hold, refused with {found}: {}", refusal.reason)),
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
