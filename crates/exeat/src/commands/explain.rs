//! `exeat policy explain`: what would become of a principal's statement, and why. Reads the policy and the target's
//! catalog; the statement is never sent.

use exeat_enforce::refusal::Refusal;
use exeat_policy::{Policy, Principal, PrincipalKind};
use exeat_sql::ParseFailure;
use exeat_sql::catalog::Pins;
use serde_json::{Value, json};

use crate::catalog::{self, CatalogReadError};
use crate::cli::{AsWords, PolicyExplainArgs};
use crate::config::{Config, ConfigError};
use crate::exit::{self, Exit};
use crate::policy_file::{PolicyFileError, PolicyText};
use crate::policy_tests::{self, Asked, Judgement};
use crate::pool::{self, PoolError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Catalog(#[from] CatalogReadError),
    #[error("target \"{name}\" is not configured; there is: {known}")]
    NoTarget { name: String, known: String },
    #[error("the configuration has several targets: name one with --target; there is: {known}")]
    WhichTarget { known: String },
    #[error("{0}")]
    NotKnown(String),
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
}

/// Ends with 3 where the statement would be refused.
pub(crate) async fn explain(args: PolicyExplainArgs) -> Result<Exit, ExplainError> {
    let config = Config::load(&args.config)?;
    let path = args.policy.as_deref().unwrap_or(&config.policy);
    let context = config.policy_context();
    let policy = PolicyText::read(path)?.load(&context)?;
    let targets = &config.proxy.targets;
    let known = || targets.keys().cloned().collect::<Vec<_>>().join(", ");
    let target = match (&args.target, targets.len()) {
        (Some(name), _) => {
            let no_target = || ExplainError::NoTarget { name: name.clone(), known: known() };
            targets.get(name).ok_or_else(no_target)?
        }
        (None, 1) => targets.values().next().ok_or_else(|| ExplainError::WhichTarget { known: known() })?,
        (None, _) => return Err(ExplainError::WhichTarget { known: known() }),
    };
    let principal = principal(args.principal, context.default_issuer.as_deref().unwrap_or_default());
    let catalog = catalog::read(target, &Pins::default()).await?;
    let analyser = pool::start()?;
    let asked = Asked { principal: &principal, target: &target.name, statement: &args.statement };
    let answer = answer(&policy, &asked, policy_tests::judge(&policy, &asked, &catalog, &analyser).await);
    let answer = answer.map_err(ExplainError::NotKnown)?;
    let out = if args.json { format!("{:#}\n", answer.json) } else { answer.text };
    exit::print(&out).map_err(ExplainError::Output)?;
    Ok(if answer.permitted { Exit::Ok } else { Exit::Refused })
}

fn principal(words: AsWords, default_issuer: &str) -> Principal {
    let AsWords { subject, groups, actor, issuer, workload, claims } = words;
    Principal {
        issuer: issuer.unwrap_or_else(|| default_issuer.to_owned()),
        subject,
        groups,
        claims,
        actor,
        kind: if workload { PrincipalKind::Workload } else { PrincipalKind::Human },
        token_id: None,
        instance: std::collections::BTreeMap::new(),
    }
}

struct Answer {
    permitted: bool,
    json: Value,
    text: String,
}

fn answer(policy: &Policy, asked: &Asked<'_>, judgement: Judgement) -> Result<Answer, String> {
    match judgement {
        Judgement::PassedThrough => {
            let text = "decision: permit\nreason: nothing restricts this principal here: its sessions pass as they \
                are, authenticated and recorded\n";
            let json = json!({"v": 1, "decision": "permit", "passed_through": true, "text": text});
            Ok(Answer { permitted: true, json, text: text.to_owned() })
        }
        Judgement::Decided(known) => {
            let told = known.explain(policy, asked.statement);
            let (json, text) = (told.json(asked.statement, None), told.text(asked.statement));
            Ok(Answer { permitted: told.is_permitted(), json, text })
        }
        // A client would see the server's own words.
        Judgement::NotParsed(failure @ ParseFailure::Syntax { .. }) => Err(failure.to_string()),
        Judgement::NotParsed(failure) => {
            let refusal = Refusal::parse_failure(&failure);
            let text =
                format!("decision: refuse, {} ({})\nreason: {failure}\n", refusal.code.as_str(), refusal.sqlstate());
            let code = refusal.code.as_str();
            let refusal = json!({"code": code, "reason": refusal.reason, "suggestion": refusal.suggestion});
            Ok(Answer {
                permitted: false,
                json: json!({"v": 1, "decision": "refuse", "refusal": refusal, "text": text}),
                text,
            })
        }
        Judgement::NotKnown(problem) => Err(problem),
    }
}
