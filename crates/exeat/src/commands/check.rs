//! `exeat check`: both files validated, everything resolved and printed, secrets hidden. Connects to nothing unless
//! asked to, and changes nothing: no folder is made, no key, no record.

use exeat_policy::Policy;
use exeat_proxy::config::{Config as ProxyConfig, ListenTls, Target};
use exeat_proxy::identity::{IssuerConfigError, Verifier};
use exeat_proxy::tls::{ServerTls, TlsError};
use exeat_proxy::upstream::{CatalogConnection, LoginConfig, UpstreamError};
use exeat_store::secret::SecretSource;
use serde_json::{Map, Value, json};

use super::policy::{reports_json, reports_text};
use crate::archive;
use crate::catalog;
use crate::cli::CheckArgs;
use crate::config::{self, Config, ConfigError};
use crate::exit::{self, Exit};
use crate::export;
use crate::notify;
use crate::policy_file::{PolicyFileError, PolicyText};
use crate::policy_tests::{self, Catalogs, Report, Verdict};
use crate::pool::{self, PoolError};
use crate::render;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    #[error("the configuration does not hold together: {0}")]
    Parts(String),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
}

pub(crate) async fn run(args: CheckArgs) -> Result<Exit, CheckError> {
    let config = Config::load(&args.config)?;
    let text = PolicyText::read(&config.policy)?;
    let policy = text.load(&config.policy_context())?;
    check_parts(&config)?;
    for warning in policy.warnings().iter() {
        exit::note(&warning.to_string());
    }
    let mut shown = json!({
        "configuration": config::show(&config),
        "policy": summary(&policy, text.sha256()),
    });
    let mut ended = Exit::Ok;
    let mut reports = Vec::new();
    if args.connect {
        let (targets, reachable) = connect(&policy, &config.proxy).await;
        reports = run_tests(&policy, &config.proxy).await?;
        if let Value::Object(members) = &mut shown {
            members.insert("targets".to_owned(), targets);
            members.insert("tests".to_owned(), reports_json(&reports));
        }
        if !reachable || reports.iter().any(|report| report.verdict != Verdict::Passed) {
            ended = Exit::Error;
        }
    }
    let out = match args.json {
        true => format!("{shown:#}\n"),
        false => {
            if let Value::Object(members) = &mut shown {
                members.remove("tests");
            }
            format!("{}{}", render::text(&shown), reports_text(&reports))
        }
    };
    exit::print(&out).map_err(CheckError::Output)?;
    if ended == Exit::Ok {
        exit::note("the configuration and the policy are fine");
    }
    Ok(ended)
}

/// What only their owners can check: certificates, issuers, secrets.
fn check_parts(config: &Config) -> Result<(), CheckError> {
    let mut problems = Vec::new();
    if let ListenTls::Files { cert, key, client_ca } = &config.proxy.listen.tls
        && let Err(error) = ServerTls::load(cert, key, client_ca.as_deref())
    {
        problems.push(TlsError::to_string(&error));
    }
    if let Err(errors) = Verifier::new(config.identity.clone()) {
        problems.extend(errors.iter().map(IssuerConfigError::to_string));
    }
    if let Err(error) = config.store.check() {
        problems.push(exeat_store::chain(&error));
    }
    if let Some(Err(error)) = config.audit.archive.as_ref().map(|archive| archive::check(archive, &config.name)) {
        problems.push(format!("audit.archive: {}", exeat_store::chain(&error)));
    }
    for export in &config.audit.export {
        if let Err(error) = export::check(export) {
            problems.push(format!("audit.export \"{}\": {}", export.name, exeat_store::chain(&error)));
        }
    }
    for destination in &config.notify {
        if let Err(error) = notify::check(destination) {
            problems.push(format!("notify \"{}\": {}", destination.name, exeat_store::chain(&error)));
        }
    }
    for target in config.proxy.targets.values() {
        for login in &target.logins {
            if let Some(Err(error)) = login.password.as_ref().map(SecretSource::resolve) {
                problems.push(format!("target \"{}\", login \"{}\": {error}", target.name, login.user));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(CheckError::Parts(problems.join("; "))) }
}

fn summary(policy: &Policy, sha256: &str) -> Value {
    json!({
        "sha256": sha256,
        "rules": policy.rules().iter().map(|rule| rule.id().to_owned()).collect::<Vec<_>>(),
        "tests": policy.tests().len(),
        "warnings": policy.warnings().len(),
    })
}

async fn connect(policy: &Policy, proxy: &ProxyConfig) -> (Value, bool) {
    let mut shown = Map::new();
    let mut good = true;
    for target in proxy.targets.values() {
        let mut logins = Vec::new();
        for login in &target.logins {
            let answer = match connect_login(policy, target, login).await {
                Ok(answer) => answer,
                Err(problem) => {
                    good = false;
                    json!({"error": problem})
                }
            };
            logins.push(json!({"login": login.user, "answer": answer}));
        }
        shown.insert(target.name.clone(), Value::Array(logins));
    }
    (Value::Object(shown), good)
}

async fn connect_login(policy: &Policy, target: &Target, login: &LoginConfig) -> Result<Value, String> {
    let words = |error: UpstreamError| error.to_string();
    let mut connection = CatalogConnection::connect(&target.upstream, login).await.map_err(words)?;
    let labels = policy.labels(&target.name);
    let excess = match labels.is_empty() {
        true => Vec::new(),
        false => catalog::excess_privileges(&mut connection, labels).await.map_err(words)?,
    };
    if !excess.is_empty() && !target.allow_privileged_login {
        return Err(format!(
            "the login {}; use a plain role, or set allow_privileged_login to accept that",
            excess.join(", ")
        ));
    }
    Ok(json!({"server_version_num": connection.server_version_num(), "privileges": excess}))
}

async fn run_tests(policy: &Policy, proxy: &ProxyConfig) -> Result<Vec<Report>, CheckError> {
    let analyser = pool::start()?;
    let catalogs = Catalogs::read(policy, &proxy.targets).await;
    Ok(policy_tests::run(policy, &catalogs, &analyser).await)
}
