//! `exeat policy test`: the tests written in the policy files, against the targets' catalogs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::cli::PolicyTestArgs;
use crate::config::{Config, ConfigError};
use crate::exit::{self, Exit};
use crate::policy_file::{PolicyFileError, PolicyText};
use crate::policy_tests::{self, Catalogs, Report, Verdict};
use crate::pool::{self, PoolError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyTestError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
}

/// A failing test ends with 3, one that could not run with 1.
pub(crate) async fn test(args: PolicyTestArgs) -> Result<Exit, PolicyTestError> {
    let config = Config::load(&args.config)?;
    let path = args.policy.as_deref().unwrap_or(&config.policy);
    let policy = PolicyText::read(path)?.load(&config.policy_context())?;
    for warning in policy.warnings().iter() {
        exit::note(&warning.to_string());
    }
    let analyser = pool::start()?;
    let catalogs = Catalogs::read(&policy, &config.proxy.targets).await;
    let reports = policy_tests::run(&policy, &catalogs, &analyser).await;
    let out = if args.json { format!("{:#}\n", reports_json(&reports)) } else { reports_text(&reports) };
    exit::print(&out).map_err(PolicyTestError::Output)?;
    if reports.is_empty() {
        exit::note("the policy has no tests");
    }
    Ok(ending(&reports))
}

fn ending(reports: &[Report]) -> Exit {
    let any = |wanted: fn(&Verdict) -> bool| reports.iter().any(|report| wanted(&report.verdict));
    if any(|verdict| matches!(verdict, Verdict::Failed(_))) {
        return Exit::Refused;
    }
    if any(|verdict| matches!(verdict, Verdict::NotRun(_))) { Exit::Error } else { Exit::Ok }
}

pub(crate) fn reports_json(reports: &[Report]) -> Value {
    reports
        .iter()
        .map(|report| {
            let (verdict, detail) = words(&report.verdict);
            json!({"place": report.place, "target": report.target, "as": report.subject,
                   "result": verdict, "detail": detail})
        })
        .collect()
}

pub(crate) fn reports_text(reports: &[Report]) -> String {
    let mut out = String::new();
    for report in reports {
        let (verdict, detail) = words(&report.verdict);
        let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _written = writeln!(out, "{verdict}  {} as {} at {}{detail}", report.place, report.subject, report.target);
    }
    out
}

fn words(verdict: &Verdict) -> (&'static str, Option<&str>) {
    match verdict {
        Verdict::Passed => ("passed", None),
        Verdict::Failed(problem) => ("failed", Some(problem)),
        Verdict::NotRun(problem) => ("not run", Some(problem)),
    }
}
