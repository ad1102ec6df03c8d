//! `exeat audit`: the record as evidence. Reads files only; needs no gateway and, but for its own key, no secret.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use exeat_store::StoreError;
use exeat_store::keys::KeySet;
use exeat_store::verify::{Against, Verification, verify as hold_against};
use serde_json::json;

use crate::cli::{AuditKeyArgs, AuditVerifyArgs};
use crate::config::{Config, ConfigError};
use crate::exit::{self, Exit};
use crate::plain;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("could not read the checkpoint \"{}\"", path.display())]
    Checkpoint { path: PathBuf, source: io::Error },
    #[error("could not write to standard output")]
    Output(#[source] io::Error),
}

pub(crate) fn verify(args: AuditVerifyArgs) -> Result<Exit, AuditError> {
    let older = args.checkpoints.into_iter().map(|path| match std::fs::read(&path) {
        Ok(note) => Ok((path.display().to_string(), note)),
        Err(source) => Err(AuditError::Checkpoint { path, source }),
    });
    let older = older.collect::<Result<Vec<_>, _>>()?;
    let found = hold_against(&args.folder, &Against { keys: &args.keys, older: &older })?;
    let text = if args.json { as_json(&found) } else { as_text(&found) };
    exit::print(&text).map_err(AuditError::Output)?;
    Ok(if found.is_clean() { Exit::Ok } else { Exit::Unverified })
}

pub(crate) fn key(args: AuditKeyArgs) -> Result<Exit, AuditError> {
    let config = Config::load(&args.config)?;
    let key = KeySet::open(&config.keys, &config.data_dir)?.signing_key(&config.name)?;
    let text = if args.pem { key.verifier().to_pem() } else { format!("{}\n", key.verifier()) };
    exit::print(&text).map_err(AuditError::Output)?;
    Ok(Exit::Ok)
}

fn as_text(found: &Verification) -> String {
    let mut text = String::new();
    let (findings, more) = found.findings();
    for finding in findings {
        // Writing to a string does not fail.
        let _ = writeln!(text, "WRONG  {}", plain::line(&finding.to_string()));
    }
    if more > 0 {
        let _ = writeln!(text, "WRONG  {more} more");
    }
    let _ = writeln!(text, "read   {} records, {} sealed texts", found.lines, found.blobs);
    if let Some(head) = &found.signed {
        let by = if found.by_key { "signed" } else { "in the tree of the checkpoint" };
        let _ = writeln!(text, "ok     {} records are {by}, root {}", head.size(), head.root());
    }
    for (name, size) in &found.extends {
        let _ = writeln!(text, "ok     extends {} of {size} records", plain::line(name));
    }
    if found.unsigned > 0 {
        let _ = writeln!(text, "open   {} records behind it are not signed yet", found.unsigned);
    }
    if !found.by_key {
        text.push_str("open   signatures were not looked at: give --key, as `exeat audit key` prints it\n");
    }
    text
}

fn as_json(found: &Verification) -> String {
    let (findings, more) = found.findings();
    let shown = json!({
        "v": 1,
        "clean": found.is_clean(),
        "records": found.lines,
        "sealed_texts": found.blobs,
        "signed": found.signed.as_ref().map(|head| json!({"records": head.size(), "root": head.root().to_string()})),
        "not_signed_yet": found.unsigned,
        "signatures": found.by_key,
        "extends": found.extends.iter().map(|(name, size)| json!({"name": name, "records": size})).collect::<Vec<_>>(),
        "wrong": findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "wrong_beside": more,
    });
    format!("{shown}\n")
}
