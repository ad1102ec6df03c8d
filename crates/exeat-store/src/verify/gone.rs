//! What retention took away, as signed lines name it: whole files of the log's beginning, and files of sealed texts that
//! nobody can read any more. What is gone and named by none of them is a finding.

use std::collections::BTreeMap;

use serde_json::Value;

use super::blobs::MISSING;
use super::{Across, FINDINGS_MAX, Finding, Verification};
use crate::record::Covered;
use crate::tree::{HASH_BYTES, TILE_HASHES_MAX, Tile, TilePath, TreeHash};

/// What lines of one log say is gone of it.
#[derive(Debug, Default)]
pub(super) struct Retained {
    files: Covered,
}

impl Retained {
    pub(super) fn take(&mut self, event: &Value) {
        let number = |file: &Value, member| file.get(member).and_then(Value::as_u64);
        let files = listed(event, "files").iter();
        self.files.add(files.filter_map(|file| number(file, "first").zip(number(file, "next"))));
    }

    /// Whether everything before this record is named, file by file and to its end.
    pub(super) fn covers(&self, first: u64) -> Result<(), Finding> {
        self.files.reaches(first).map_err(|at| Finding::Gone { first: at, next: first })
    }
}

/// Blob segments that a line says are gone.
pub(super) fn blobs(event: &Value) -> impl Iterator<Item = u64> {
    listed(event, "blobs").iter().filter_map(|file| file.get("segment").and_then(Value::as_u64))
}

fn listed<'e>(event: &'e Value, member: &str) -> &'e [Value] {
    let found = event.get("body").and_then(|body| body.get(member)).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

/// The hashes of a tile of lines; none where its bytes are not whole hashes.
pub(super) fn hashes(bytes: &[u8]) -> Vec<TreeHash> {
    let width = u16::try_from(bytes.len() / HASH_BYTES).unwrap_or(0).min(TILE_HASHES_MAX);
    let parsed = TilePath::new(0, 0, width).and_then(|path| Tile::parse(path, bytes));
    parsed.map(|tile| tile.hashes().to_vec()).unwrap_or_default()
}

/// Sealed texts that lines name and that are not there: of each file and session the first records, and how many more.
#[derive(Debug, Default)]
pub(super) struct Lost {
    found: BTreeMap<(u64, String), (Vec<u64>, u64)>,
}

impl Lost {
    pub(super) fn add(&mut self, segment: u64, session: &str, seq: u64) {
        let (records, more) = self.found.entry((segment, session.to_owned())).or_default();
        if records.len() < FINDINGS_MAX {
            records.push(seq);
        } else {
            *more += 1;
        }
    }

    /// Once every log was read: whether they may be gone.
    pub(super) fn settle(self, across: &Across<'_>, done: &mut Verification) {
        for ((segment, session), (records, more)) in self.found {
            if across.blobs_gone.contains(&segment) && across.keys.is_erased(&session) {
                done.blobs_gone += more.saturating_add(u64::try_from(records.len()).unwrap_or(u64::MAX));
                continue;
            }
            for seq in records {
                done.find(Finding::Blob { seq, problem: MISSING });
            }
            done.more = done.more.saturating_add(usize::try_from(more).unwrap_or(usize::MAX));
        }
    }
}
