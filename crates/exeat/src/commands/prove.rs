//! `exeat audit prove`, and its other end: one record's place in the signed log, as a file that stands alone.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use exeat_store::evidence::{self, EvidenceError};
use exeat_store::tree::{LOG_PROOF_BYTES_MAX, LogProof, LogProofError, Proven, VerifierKey, leaf_hash};
use serde_json::{Value, json};

use crate::cli::AuditProveArgs;
use crate::exit::{self, Exit};
use crate::plain;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProveCommandError {
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    #[error("could not read the proof \"{}\"", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("could not write \"{}\"", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
}

/// Ends with 6 where the record is not the one that was signed, with 3 where it is gone.
pub(crate) fn prove(args: AuditProveArgs) -> Result<Exit, ProveCommandError> {
    let proof = match evidence::prove(&args.folder, args.seq) {
        Ok(proof) => proof,
        Err(problem @ EvidenceError::Altered { .. }) => {
            exit::report(&problem);
            return Ok(Exit::Unverified);
        }
        Err(problem @ EvidenceError::Gone { .. }) => {
            exit::report(&problem);
            return Ok(Exit::Refused);
        }
        Err(problem) => return Err(problem.into()),
    };
    let text = if args.json { as_json(&proof) } else { proof.to_string() };
    match &args.out {
        Some(path) => {
            std::fs::write(path, text).map_err(|source| ProveCommandError::Write { path: path.clone(), source })?
        }
        None => exit::print(&text).map_err(ProveCommandError::Output)?,
    }
    Ok(Exit::Ok)
}

fn as_json(proof: &LogProof) -> String {
    let shown = json!({
        "v": 1,
        "index": proof.index(),
        "record": String::from_utf8_lossy(proof.record()),
        "leaf": leaf_hash(proof.record()).to_string(),
        "path": proof.hashes().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "checkpoint": proof.checkpoint(),
    });
    format!("{shown}\n")
}

/// Ends with 6 where it does not hold.
pub(super) fn verify(path: &Path, keys: &[VerifierKey], json: bool) -> Result<Exit, ProveCommandError> {
    let limit = u64::try_from(LOG_PROOF_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text));
    let verdict = match read {
        Ok(_) => LogProof::parse(&text).and_then(|proof| proof.verify(keys)),
        // Bytes that are no text are no proof.
        Err(problem) if problem.kind() == std::io::ErrorKind::InvalidData => Err(LogProofError::OtherFormat),
        Err(source) => return Err(ProveCommandError::Read { path: path.to_owned(), source }),
    };
    let out = match (&verdict, json) {
        (Ok(proven), true) => format!("{}\n", verdict_json(proven)),
        (Err(problem), true) => {
            format!("{}\n", json!({"v": 1, "clean": false, "wrong": [exeat_store::chain(problem)]}))
        }
        (Ok(proven), false) => verdict_text(proven),
        (Err(problem), false) => format!("WRONG  {}\n", plain::line(&exeat_store::chain(problem))),
    };
    exit::print(&out).map_err(ProveCommandError::Output)?;
    Ok(if verdict.is_ok() { Exit::Ok } else { Exit::Unverified })
}

fn verdict_json(proven: &Proven) -> Value {
    json!({
        "v": 1,
        "clean": true,
        "log": proven.origin,
        "index": proven.index,
        "records": proven.head.size(),
        "root": proven.head.root().to_string(),
        "record": String::from_utf8_lossy(&proven.record),
    })
}

fn verdict_text(proven: &Proven) -> String {
    let mut text = String::new();
    let Proven { origin, head, index, record } = proven;
    // Writing to a string does not fail.
    let _ = writeln!(text, "ok     record {index} of {} in the log {origin}, root {}", head.size(), head.root());
    let _ = writeln!(text, "{}", plain::line(&String::from_utf8_lossy(record)));
    text
}
