//! Files that a signed line names are taken away, oldest first: of the log never but its beginning, and nothing that is not
//! as long as the line says.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use ring::digest::{Context, SHA256};
use serde::Deserialize;

use crate::record::journal::{BLOB_FOLDER, blob_path, numbered};
use crate::record::logs::LogPlace;
use crate::{StoreError, hex};

/// What one line says is gone.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Named {
    #[serde(skip)]
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) files: Vec<LogFile>,
    #[serde(default)]
    pub(super) blobs: Vec<BlobFile>,
}

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct LogFile {
    pub(super) first: u64,
    /// The line behind its last.
    pub(super) next: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// One file of sealed texts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct BlobFile {
    pub(super) segment: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Named {
    pub(super) fn read(seq: u64, line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            body: Named,
        }
        serde_json::from_slice::<Line>(line).ok().map(|line| Self { seq, ..line.body })
    }
}

/// What lines before `signed` say. Does nothing where it is done.
pub(super) fn remove_named(data_dir: &Path, named: &[Named], signed: u64) -> Result<(), StoreError> {
    let signed: Vec<&Named> = named.iter().filter(|named| named.seq < signed).collect();
    let place = LogPlace::current(data_dir);
    while let [first, next, ..] = place.segments()?[..] {
        let file = signed.iter().flat_map(|named| &named.files).find(|file| (file.first, file.next) == (first, next));
        let Some(file) = file else { break };
        if !remove(&place.segment(first), file.bytes)? {
            break;
        }
    }
    let segments = numbered(&data_dir.join(BLOB_FOLDER), ".seg")?;
    for file in signed.iter().flat_map(|named| &named.blobs) {
        // The last one is written.
        let is_left = segments.contains(&file.segment) && segments.last() != Some(&file.segment);
        if is_left {
            remove(&blob_path(data_dir, file.segment), file.bytes)?;
        }
    }
    Ok(())
}

/// False where it is another file than the one that was named.
fn remove(path: &Path, bytes: u64) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(found) if found.len() != bytes => return Ok(false),
        Ok(_) => {}
        Err(problem) if problem.kind() == ErrorKind::NotFound => return Ok(true),
        Err(problem) => return Err(StoreError::io("look at", path)(problem)),
    }
    fs::remove_file(path).map_err(StoreError::io("remove", path))?;
    Ok(true)
}

/// How long a file is, and its hash.
pub(super) fn measured(path: &Path) -> Result<(u64, String), StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let (mut digest, mut chunk, mut bytes) = (Context::new(&SHA256), vec![0; 256 * 1024], 0_u64);
    loop {
        let read = file.read(&mut chunk).map_err(StoreError::io("read", path))?;
        if read == 0 {
            return Ok((bytes, hex::text(digest.finish().as_ref())));
        }
        digest.update(chunk.get(..read).unwrap_or_default());
        bytes += u64::try_from(read).unwrap_or(u64::MAX);
    }
}
