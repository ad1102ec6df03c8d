//! `exeat audit access`: who read a column, and in what form, as the record has it; and who could have, by the policy that was
//! in force. The record has that policy's digest only, so the other half is answered where its files are at hand, and
//! otherwise it says which policy it was: never by another one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use exeat_policy::{Policy, PolicyContext};
use exeat_store::index::{Access, AccessFilter, IndexError, PolicyRow};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::could::{Column, Could};
use crate::cli::sessions::AccessArgs;
use crate::config::Config;
use crate::exit::{self, Exit};
use crate::plain;
use crate::policy_file::{PolicyFileError, PolicyText};
use crate::sessions::{OpenRecord, RecordError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    #[error("--policy is not the policy of that time: \"{}\" has the sha256 {found}, and in force was version {version} with the sha256 {sha256}", path.display())]
    OtherPolicy { path: PathBuf, found: String, version: u64, sha256: String },
    #[error("no policy is on record by then, so --policy cannot be the one that was in force")]
    NoPolicyThen,
}

/// The policy of that time, as far as it can be named.
#[derive(Debug)]
struct InForce {
    policy: PolicyRow,
    /// Whether the configured policy is the same; `None` without a configuration, or where it cannot be read.
    is_configured: Option<bool>,
}

/// Who could have read it, or why that is not answered.
type Answered = Result<Could, String>;

pub(crate) async fn access(args: AccessArgs) -> Result<Exit, AccessError> {
    let mut record = OpenRecord::open(&args.record).await?;
    let filter = AccessFilter {
        column: args.column,
        target: args.target,
        database: args.database,
        since: args.since,
        until: args.at,
    };
    let found = record.index.access(&filter).await?;
    let unanalysed = record.index.unanalysed(&filter).await?;
    let in_force = in_force(record.index.policies().await?, args.at).map(|policy| {
        let configured = record.config.as_ref().and_then(|config| PolicyText::read(&config.policy).ok());
        let is_configured = configured.map(|text| text.sha256() == policy.sha256);
        InForce { policy, is_configured }
    });
    let could = could(&mut record, (&filter, in_force.as_ref()), args.policy.as_deref()).await?;
    let shown = Shown { filter: &filter, found: (&found, &unanalysed), in_force: in_force.as_ref(), could: &could };
    let text = if args.json { shown.json() } else { shown.text() };
    exit::print(&text).map_err(RecordError::Output)?;
    Ok(Exit::Ok)
}

async fn could(
    record: &mut OpenRecord,
    (filter, in_force): (&AccessFilter, Option<&InForce>),
    given: Option<&Path>,
) -> Result<Answered, AccessError> {
    let policy = match policy(record.config.as_ref(), in_force, given)? {
        Ok(policy) => policy,
        Err(why) => return Ok(Err(why)),
    };
    let column = match Column::parse(&filter.column) {
        Ok(column) => column,
        Err(why) => return Ok(Err(why)),
    };
    let several = |name: &Option<String>| name.as_ref().is_some_and(|name| name.contains('*'));
    if several(&filter.target) || several(&filter.database) {
        return Ok(Err("name one target, one database, or all by leaving them out".to_owned()));
    }
    let mut seen = record.index.seen(filter.until).await?;
    seen.retain(|seen| filter.database.as_ref().is_none_or(|database| *database == seen.database));
    let configured = record.config.iter().flat_map(|config| config.proxy.targets.keys().cloned());
    let targets: BTreeSet<String> = match &filter.target {
        Some(target) => BTreeSet::from([target.clone()]),
        None => configured.chain(seen.iter().map(|seen| seen.target.clone())).collect(),
    };
    Ok(Ok(Could::ask(&policy, &column, seen, &targets)))
}

/// The policy that was in force, from files whose digest is the one on record.
fn policy(
    config: Option<&Config>,
    in_force: Option<&InForce>,
    given: Option<&Path>,
) -> Result<Result<Policy, String>, AccessError> {
    let Some(InForce { policy: row, .. }) = in_force else {
        return if given.is_some() {
            Err(AccessError::NoPolicyThen)
        } else {
            Ok(Err("no policy is on record by then".to_owned()))
        };
    };
    let text = match (given, config) {
        (Some(path), _) => {
            let text = PolicyText::read(path)?;
            if text.sha256() != row.sha256 {
                return Err(AccessError::OtherPolicy {
                    path: path.to_owned(),
                    found: text.sha256().to_owned(),
                    version: row.version,
                    sha256: row.sha256.clone(),
                });
            }
            Some(text)
        }
        // One that cannot be read is not at hand.
        (None, Some(config)) => PolicyText::read(&config.policy).ok().filter(|text| text.sha256() == row.sha256),
        (None, None) => None,
    };
    let Some(text) = text else {
        return Ok(Err("the files of that policy are not at hand: give them with --policy".to_owned()));
    };
    let Some(config) = config else {
        return Ok(Err("allows count for tokens of the first issuer that is configured: give --config".to_owned()));
    };
    // Rules of that time may be about targets that there are no more.
    let context = PolicyContext { targets: None, ..config.policy_context() };
    Ok(Ok(text.load(&context)?))
}

/// The last that came into force by then.
fn in_force(policies: Vec<PolicyRow>, at: Timestamp) -> Option<PolicyRow> {
    policies.into_iter().rev().find(|policy| policy.accepted && policy.at <= at)
}

/// What is printed.
struct Shown<'a> {
    filter: &'a AccessFilter,
    /// Who read it, and whose statements nobody looked into.
    found: (&'a [Access], &'a [Access]),
    in_force: Option<&'a InForce>,
    could: &'a Answered,
}

impl Shown<'_> {
    fn json(&self) -> String {
        let Self { filter, found, in_force, could } = self;
        let one = |access: &Access| {
            json!({
                "principal": access.principal,
                "target": access.target,
                "database": access.database,
                "mask": access.mask,
                "label": access.label,
                "sessions": access.sessions,
                "statements": access.statements,
                "rows": access.rows,
                "first": access.first_at.to_string(),
                "last": access.last_at.to_string(),
                "session": access.session,
            })
        };
        let [read, unanalysed] = [found.0, found.1].map(|found| found.iter().map(one).collect::<Vec<Value>>());
        let policy = in_force.map(|in_force| {
            json!({
                "version": in_force.policy.version,
                "sha256": in_force.policy.sha256,
                "since": in_force.policy.at.to_string(),
                "seq": in_force.policy.seq,
                "is_configured": in_force.is_configured,
            })
        });
        let shown = json!({
            "v": 1,
            "column": filter.column,
            "since": filter.since.map(|since| since.to_string()),
            "until": filter.until.to_string(),
            "read": read,
            "may_have_read": unanalysed,
            "policy_in_force": policy,
            "could": could.as_ref().ok().map(Could::json),
            "answers": if could.is_ok() { json!(["who read it", "who could have read it"]) } else { json!(["who read it"]) },
            "does_not_answer": could.as_ref().err().map(|why| json!({"question": "who could have read it", "why": why})),
        });
        format!("{shown}\n")
    }

    fn text(&self) -> String {
        let Self { filter, found, in_force, could } = self;
        let mut out = String::new();
        let column = plain::line(&filter.column);
        let since = filter.since.map(|since| format!("from {since} ")).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(out, "Who read {column} {since}up to {}, as the record has it:", filter.until);
        let (read, unanalysed) = *found;
        if read.is_empty() {
            out.push_str("  nobody\n");
        }
        for access in read {
            let form = match (&access.mask, &access.label) {
                (Some(mask), Some(label)) => format!("masked by {} as {}", plain::line(mask), plain::line(label)),
                (Some(mask), None) => format!("masked by {}", plain::line(mask)),
                (None, _) => "IN CLEAR".to_owned(),
            };
            told(access, &form, &mut out);
        }
        if !unanalysed.is_empty() {
            out.push_str(
                "Who may have read it, by statements that the policy lets pass without a look at what they read:\n",
            );
        }
        for access in unanalysed {
            told(access, "not analysed, in clear where it was read", &mut out);
        }
        out.push_str("The policy in force then:\n");
        match in_force {
            None => out.push_str("  none is on record by then\n"),
            Some(InForce { policy, is_configured }) => {
                let _ = writeln!(
                    out,
                    "  version {}, sha256 {}, since {}{}",
                    policy.version,
                    plain::line(&policy.sha256),
                    policy.at,
                    match is_configured {
                        Some(true) => "; it is the one that is configured",
                        Some(false) => "; the one that is configured is another",
                        None => "",
                    }
                );
            }
        }
        match could {
            Ok(could) => could.text(&mut out),
            Err(why) => {
                let _ = writeln!(out, "Who could have read it is not answered here: {}", plain::line(why));
            }
        }
        out
    }
}

fn told(access: &Access, form: &str, out: &mut String) {
    let name = |member: &str| access.principal.get(member).and_then(Value::as_str).map(plain::line);
    // Writing to a string does not fail.
    let _ = write!(out, "  {}", name("sub").unwrap_or_else(|| "?".to_owned()));
    if let Some(actor) = name("actor") {
        let _ = write!(out, " (by {actor})");
    }
    let _ = writeln!(
        out,
        " at {}/{}: {form}; {} statements in {} sessions, {} rows, last {} ({})",
        plain::line(&access.target),
        plain::line(&access.database),
        access.statements,
        access.sessions,
        access.rows,
        access.last_at,
        plain::line(&access.session)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_a_time_is_the_last_that_was_accepted_by_then() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let policy =
            |seq, second, accepted| PolicyRow { seq, at: at(second), version: seq, sha256: String::new(), accepted };
        let policies = || vec![policy(1, 10, true), policy(2, 20, false), policy(3, 30, true)];
        let found = |second| in_force(policies(), at(second)).map(|policy| policy.seq);
        assert_eq!((found(9), found(10), found(25), found(30)), (None, Some(1), Some(1), Some(3)));
    }
}
