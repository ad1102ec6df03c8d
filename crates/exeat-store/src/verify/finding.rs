//! What is wrong with a record, in words that name the record or the file.

use std::fmt;

use crate::record::LOG_FOLDER;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Altered {
        seq: u64,
    },
    Missing {
        seq: u64,
    },
    OutOfOrder {
        seq: u64,
        place: u64,
    },
    NoEvent {
        after: u64,
        file: String,
        offset: u64,
    },
    Shorter {
        signed: u64,
        found: u64,
    },
    Blob {
        seq: u64,
        problem: &'static str,
    },
    NoCheckpoint,
    Checkpoint {
        name: String,
        problem: String,
    },
    Contradicts {
        name: String,
        size: u64,
    },
    Beyond {
        name: String,
        size: u64,
        found: u64,
    },
    LogMissing {
        name: String,
    },
    /// A log beside the one that is written, and no line says why.
    Uncited {
        name: String,
    },
    Tile {
        path: String,
        problem: &'static str,
    },
    OtherLog {
        name: String,
        origin: String,
    },
    Key {
        seq: u64,
        problem: &'static str,
    },
    ErasedInSilence {
        session: String,
    },
    NotErased {
        session: String,
    },
    Rotation {
        seq: u64,
        problem: String,
    },
    Gone {
        first: u64,
        next: u64,
    },
    NoHashes {
        first: u64,
        next: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered { seq } => write!(f, "record {seq} is not the one that was signed"),
            Self::Missing { seq } => write!(f, "record {seq} is missing"),
            Self::OutOfOrder { seq, place } => write!(f, "record {seq} stands where record {place} belongs"),
            Self::NoEvent { after, file, offset } => {
                write!(
                    f,
                    "what follows record {after} is no event (\"{file}\", byte {offset}); nothing behind it was read"
                )
            }
            Self::Shorter { signed, found } => {
                write!(f, "the log ends after {found} records, and {signed} were signed: its end was cut off")
            }
            Self::Blob { seq, problem } => write!(f, "a sealed text of record {seq} {problem}"),
            Self::NoCheckpoint => f.write_str("the record has no checkpoint: nothing in it is signed"),
            Self::Checkpoint { name, problem } => write!(f, "{name}: {problem}"),
            Self::Contradicts { name, size } => {
                write!(f, "{name}: the first {size} records are not those that it was signed for")
            }
            Self::LogMissing { name } if name == LOG_FOLDER => write!(f, "the log that is written is missing"),
            Self::LogMissing { name } => {
                write!(f, "the log \"{name}\" is missing, which the record says was kept aside")
            }
            Self::Uncited { name } => {
                write!(f, "the log \"{name}\" is here, and no record says that it was kept aside")
            }
            Self::Tile { path, problem } => write!(f, "the tree's \"{path}\" {problem}"),
            Self::Key { seq, problem } => write!(f, "the sealed key of the session that record {seq} begins {problem}"),
            Self::ErasedInSilence { session } => {
                write!(f, "the key of session \"{session}\" was destroyed, and no record says who did it")
            }
            Self::NotErased { session } => {
                write!(f, "session \"{session}\" is recorded as erased, and its key is there")
            }
            Self::Rotation { seq, problem } => write!(f, "record {seq} hands over to another signing key, {problem}"),
            Self::Gone { first, next } => {
                let last = next.saturating_sub(1);
                write!(
                    f,
                    "records {first} to {last} are gone, and no signed record says that retention took their files"
                )
            }
            Self::NoHashes { first, next } => {
                let last = next.saturating_sub(1);
                write!(f, "records {first} to {last} are gone, and the tree has their hashes no more")
            }
            Self::OtherLog { name, origin } => write!(f, "{name}: is of the log {origin}, which is not here"),
            Self::Beyond { name, size, found } => {
                write!(
                    f,
                    "{name}: signed for {size} records, and the log has {found}: an old copy, or its end was cut off"
                )
            }
        }
    }
}
