//! `exeat audit access`: who read a column, and in what form, as the record has it. Which rules would have let whom at it is in the
//! policy of that time, of which the record has the digest only: that half is named, not guessed.

use std::fmt::Write as _;

use exeat_store::index::{Access, AccessFilter, PolicyRow};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::sessions::AccessArgs;
use crate::exit::{self, Exit};
use crate::plain;
use crate::policy_file::PolicyText;
use crate::sessions::{OpenRecord, RecordError};

/// The policy of that time, as far as it can be named.
#[derive(Debug)]
struct InForce {
    policy: PolicyRow,
    /// Whether the configured policy is the same; `None` without a configuration, or where it cannot be read.
    is_configured: Option<bool>,
}

pub(crate) async fn access(args: AccessArgs) -> Result<Exit, RecordError> {
    let mut record = OpenRecord::open(&args.record).await?;
    let filter = AccessFilter {
        column: args.column,
        target: args.target,
        database: args.database,
        since: args.since,
        until: args.at,
    };
    let found = record.index.access(&filter).await?;
    let in_force = in_force(record.index.policies().await?, args.at).map(|policy| {
        let configured = record.config.as_ref().and_then(|config| PolicyText::read(&config.policy).ok());
        let is_configured = configured.map(|text| text.sha256() == policy.sha256);
        InForce { policy, is_configured }
    });
    let text = if args.json {
        as_json(&filter, &found, in_force.as_ref())
    } else {
        as_text(&filter, &found, in_force.as_ref())
    };
    exit::print(&text).map_err(RecordError::Output)?;
    Ok(Exit::Ok)
}

/// The last that came into force by then.
fn in_force(policies: Vec<PolicyRow>, at: Timestamp) -> Option<PolicyRow> {
    policies.into_iter().rev().find(|policy| policy.accepted && policy.at <= at)
}

fn as_json(filter: &AccessFilter, found: &[Access], in_force: Option<&InForce>) -> String {
    let read: Vec<Value> = found
        .iter()
        .map(|access| {
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
        })
        .collect();
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
        "policy_in_force": policy,
        "answers": ["who read it"],
        "does_not_answer": ["who the policy would have let read it"],
    });
    format!("{shown}\n")
}

fn as_text(filter: &AccessFilter, found: &[Access], in_force: Option<&InForce>) -> String {
    let mut out = String::new();
    let column = plain::line(&filter.column);
    let since = filter.since.map(|since| format!("from {since} ")).unwrap_or_default();
    // Writing to a string does not fail.
    let _ = writeln!(out, "Who read {column} {since}up to {}, as the record has it:", filter.until);
    if found.is_empty() {
        out.push_str("  nobody\n");
    }
    for access in found {
        let name = |member: &str| access.principal.get(member).and_then(Value::as_str).map(plain::line);
        let form = match (&access.mask, &access.label) {
            (Some(mask), Some(label)) => format!("masked by {} as {}", plain::line(mask), plain::line(label)),
            (Some(mask), None) => format!("masked by {}", plain::line(mask)),
            (None, _) => "IN CLEAR".to_owned(),
        };
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
    out.push_str(
        "Who the policy would have let read it is not answered here: the record has the policy's digest only.\n",
    );
    match in_force {
        None => out.push_str("  no policy is on record by then\n"),
        Some(InForce { policy, is_configured }) => {
            let _ = writeln!(
                out,
                "  in force: version {}, sha256 {}, since {}",
                policy.version,
                plain::line(&policy.sha256),
                policy.at
            );
            out.push_str(match is_configured {
                Some(true) => {
                    "  it is the one that is configured: ask it with `exeat policy explain --as … STATEMENT`\n"
                }
                Some(false) => {
                    "  the one that is configured is another: look for this digest where policies are kept\n"
                }
                None => "  with --config it is compared with the one that is configured\n",
            });
        }
    }
    out
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
