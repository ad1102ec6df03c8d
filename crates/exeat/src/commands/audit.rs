//! `exeat audit`: the record as evidence. Reads files only; needs no gateway and, but for its own key, no secret.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use exeat_store::StoreError;
use exeat_store::keys::KeySet;
use exeat_store::record::{Signer, signers};
use exeat_store::verify::{Against, HandedOver, Verification, verify_telling};
use serde_json::{Value, json};

use super::prove::{self, ProveCommandError};
use crate::cli::{AuditKeyArgs, AuditVerifyArgs};
use crate::config::{Config, ConfigError};
use crate::exit::{self, Exit};
use crate::plain;
use crate::progress::Progress;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Proof(#[from] ProveCommandError),
    #[error("name the folder of a record, or a --proof")]
    NoFolder,
    #[error("could not read the checkpoint \"{}\"", path.display())]
    Checkpoint { path: PathBuf, source: io::Error },
    #[error("could not write to standard output")]
    Output(#[source] io::Error),
}

pub(crate) fn verify(args: AuditVerifyArgs) -> Result<Exit, AuditError> {
    let folder = match (args.folder, &args.proof) {
        (Some(folder), _) => folder,
        (None, Some(proof)) => return Ok(prove::verify(proof, &args.keys, args.json)?),
        (None, None) => return Err(AuditError::NoFolder),
    };
    let older = args.checkpoints.into_iter().map(|path| match std::fs::read(&path) {
        Ok(note) => Ok((path.display().to_string(), note)),
        Err(source) => Err(AuditError::Checkpoint { path, source }),
    });
    let older = older.collect::<Result<Vec<_>, _>>()?;
    let found = held_against(&folder, &Against { keys: &args.keys, older: &older })?;
    let text = if args.json { as_json(&found) } else { as_text(&found) };
    exit::print(&text).map_err(AuditError::Output)?;
    Ok(if found.is_clean() { Exit::Ok } else { Exit::Unverified })
}

fn held_against(folder: &Path, against: &Against<'_>) -> Result<Verification, StoreError> {
    let mut progress = Progress::new();
    verify_telling(folder, against, &mut |far| {
        progress.tell((far.bytes, far.bytes_in_all), || format!("{} records", far.lines));
    })
}

pub(crate) fn key(args: AuditKeyArgs) -> Result<Exit, AuditError> {
    let config = Config::load(&args.config)?;
    let signers = signers(&config.data_dir, &config.name, &KeySet::open(&config.keys, &config.data_dir)?)?;
    let text = match (&signers[..], args.pem) {
        ([.., signer], true) => signer.key.to_pem(),
        ([signer], false) => format!("{}\n", signer.key),
        (signers, _) => signers.iter().map(with_records).collect(),
    };
    exit::print(&text).map_err(AuditError::Output)?;
    Ok(Exit::Ok)
}

/// A key that handed over or took over, and which checkpoints it signs.
fn with_records(signer: &Signer) -> String {
    let Signer { key, from, until } = signer;
    match until {
        Some(until) => format!("{key}  from {from} to {until} records\n"),
        None => format!("{key}  from {from} records on\n"),
    }
}

pub(crate) fn as_text(found: &Verification) -> String {
    let mut text = String::new();
    for log in &found.kept_aside {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: kept aside, because it did not hold what was signed", plain::line(&log.name));
        told(log, &mut text);
    }
    if !found.kept_aside.is_empty() {
        let _ = writeln!(text, "{}: the one that is written now", plain::line(&found.name));
    }
    told(found, &mut text);
    if !found.by_key {
        text.push_str("open   signatures were not looked at: give --key, as `exeat audit key` prints it\n");
    }
    text
}

fn told(found: &Verification, text: &mut String) {
    let (findings, more) = found.findings();
    for finding in findings {
        let _ = writeln!(text, "WRONG  {}", plain::line(&finding.to_string()));
    }
    if more > 0 {
        let _ = writeln!(text, "WRONG  {more} more");
    }
    let (there, readable) = (found.lines.saturating_sub(found.first), found.blobs.saturating_sub(found.blobs_gone));
    let _ = writeln!(text, "read   {there} records, {readable} sealed texts");
    if found.first > 0 && found.is_gone_rightly {
        let last = found.first.saturating_sub(1);
        let _ = writeln!(text, "gone   records 0 to {last} by retention, their hashes are in the tree");
    }
    if found.blobs_gone > 0 {
        let _ = writeln!(text, "gone   {} sealed texts of erased sessions by retention", found.blobs_gone);
    }
    if let Some(head) = &found.signed {
        let by = if found.by_key { "signed" } else { "in the tree of the checkpoint" };
        let _ = writeln!(text, "ok     {} records are {by}, root {}", head.size(), head.root());
    }
    for (name, size) in &found.extends {
        let _ = writeln!(text, "ok     extends {} of {size} records", plain::line(name));
    }
    if found.erased > 0 {
        let _ = writeln!(text, "erased {} sessions, on record with who and why", found.erased);
    }
    for link in &found.handed_over {
        let HandedOver { seq, size, old, new, is_trusted } = link;
        let (state, words) = match (is_trusted, found.by_key) {
            (true, _) => ("ok    ", "trusted as the one before it"),
            (false, true) => ("open  ", "the one before it is not known"),
            (false, false) => ("open  ", "no key was given"),
        };
        let _ = writeln!(
            text,
            "{state} record {seq} hands over to {}, both signed {size} records: {words} ({})",
            plain::line(&new.to_string()),
            old.id()
        );
    }
    if found.unsigned > 0 {
        let _ = writeln!(text, "open   {} records behind it are not signed yet", found.unsigned);
    }
}

fn as_json(found: &Verification) -> String {
    let mut shown = members(found);
    if let Some(object) = shown.as_object_mut() {
        object.insert("v".to_owned(), json!(1));
        object.insert("clean".to_owned(), json!(found.is_clean()));
        object.insert("kept_aside".to_owned(), found.kept_aside.iter().map(members).collect());
    }
    format!("{shown}\n")
}

/// Of one log.
fn members(found: &Verification) -> Value {
    let (findings, more) = found.findings();
    json!({
        "log": found.name,
        "records": found.lines,
        "first": found.first,
        "gone_by_retention": found.first > 0 && found.is_gone_rightly,
        "sealed_texts": found.blobs,
        "sealed_texts_gone": found.blobs_gone,
        "signed": found.signed.as_ref().map(|head| json!({"records": head.size(), "root": head.root().to_string()})),
        "not_signed_yet": found.unsigned,
        "signatures": found.by_key,
        "extends": found.extends.iter().map(|(name, size)| json!({"name": name, "records": size})).collect::<Vec<_>>(),
        "erased_sessions": found.erased,
        "handed_over": found.handed_over.iter().map(|link| json!({
            "record": link.seq, "records": link.size, "old": link.old.to_string(), "new": link.new.to_string(),
            "trusted": link.is_trusted,
        })).collect::<Vec<_>>(),
        "wrong": findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "wrong_beside": more,
    })
}
