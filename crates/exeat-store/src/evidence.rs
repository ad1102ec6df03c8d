//! Proofs from a record's files: that one line is in the log that its checkpoint was signed for. Works on a copy, offline,
//! without a key; a gateway may go on writing meanwhile.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::StoreError;
use crate::record::{LINE_BYTES_MAX, LogPlace};
use crate::tree::{Checkpoint, CheckpointError, LogProof, Note, NoteError, ProveError, Prover, leaf_hash};

/// A gateway that signs puts new tiles in the place of old ones: the next look finds both ends.
const LOOKS_MAX: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the record has no checkpoint: nothing in it is signed")]
    NoCheckpoint,
    #[error("could not read the checkpoint")]
    Note(#[from] NoteError),
    #[error("could not read the checkpoint")]
    Checkpoint(#[from] CheckpointError),
    #[error("record {seq} is not signed yet: the checkpoint has {size} records")]
    NotSigned { seq: u64, size: u64 },
    #[error("record {seq} is not in the log any more")]
    NotThere { seq: u64 },
    #[error(
        "record {seq} is gone: the log begins with {first}; the tree still has its hash, `exeat audit verify` says whether retention took it, and an archive may have it"
    )]
    Gone { seq: u64, first: u64 },
    #[error("record {seq} is not the one that was signed; `exeat audit verify` says more")]
    Altered { seq: u64 },
    #[error(transparent)]
    Prove(#[from] ProveError),
}

/// The signed checkpoint as it stands, and what it says.
pub fn checkpoint(data_dir: &Path) -> Result<(String, Checkpoint), EvidenceError> {
    let note = LogPlace::current(data_dir).files().checkpoint()?.ok_or(EvidenceError::NoCheckpoint)?;
    let text = Note::parse(&note)?.to_string();
    let end = text.rfind("\n\n").map_or(text.len(), |at| at + 1);
    let checkpoint = Checkpoint::parse(text.get(..end).unwrap_or_default())?;
    Ok((text, checkpoint))
}

/// A proof for each of these lines, under one checkpoint.
pub fn prove_lines<'l>(
    data_dir: &Path,
    lines: impl IntoIterator<Item = (u64, &'l [u8])> + Clone,
) -> Result<Vec<LogProof>, EvidenceError> {
    let mut looks = 0;
    loop {
        looks += 1;
        match look(data_dir, lines.clone()) {
            Err(EvidenceError::Prove(problem)) if looks < LOOKS_MAX => drop(problem),
            result => return result,
        }
    }
}

fn look<'l>(data_dir: &Path, lines: impl IntoIterator<Item = (u64, &'l [u8])>) -> Result<Vec<LogProof>, EvidenceError> {
    let (note, checkpoint) = checkpoint(data_dir)?;
    let files = LogPlace::current(data_dir).files();
    let mut prover = Prover::open(*checkpoint.head(), &files)?;
    let mut proofs = Vec::new();
    for (seq, line) in lines {
        let size = checkpoint.head().size();
        if seq >= size {
            return Err(EvidenceError::NotSigned { seq, size });
        }
        if prover.leaf(seq)? != leaf_hash(line) {
            return Err(EvidenceError::Altered { seq });
        }
        proofs.push(LogProof::new(seq, prover.inclusion(seq)?, note.clone(), line.to_vec()));
    }
    Ok(proofs)
}

/// A proof of record `seq`.
pub fn prove(data_dir: &Path, seq: u64) -> Result<LogProof, EvidenceError> {
    let (_, checkpoint) = checkpoint(data_dir)?;
    let size = checkpoint.head().size();
    if seq >= size {
        return Err(EvidenceError::NotSigned { seq, size });
    }
    let line = line(data_dir, seq)?;
    prove_lines(data_dir, [(seq, line.as_slice())])?.pop().ok_or(EvidenceError::NotThere { seq })
}

fn line(data_dir: &Path, seq: u64) -> Result<Vec<u8>, EvidenceError> {
    let not_there = EvidenceError::NotThere { seq };
    let log = LogPlace::current(data_dir);
    let segments = log.segments()?;
    let Some(segment) = segments.iter().rev().copied().find(|segment| *segment <= seq) else {
        return Err(segments.first().map_or(not_there, |first| EvidenceError::Gone { seq, first: *first }));
    };
    let path = log.segment(segment);
    let mut file = BufReader::new(File::open(&path).map_err(StoreError::io("open", &path))?);
    let mut line = Vec::new();
    for _ in segment..=seq {
        line.clear();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = file.by_ref().take(limit).read_until(b'\n', &mut line);
        read.map_err(StoreError::io("read", &path))?;
        if line.pop() != Some(b'\n') {
            return Err(not_there);
        }
    }
    Ok(line)
}
