//! The logs of one data folder: the one that is written, and those kept aside because they did not hold what had been
//! signed (`log-1` with `tree-1`, and so on). Blobs and session keys are shared by all. Each log has an origin of its own,
//! so that no checkpoint of one is taken for another's.

use std::path::{Path, PathBuf};

use super::journal::{LOG_FOLDER, log_file_name, numbered};
use super::tree_files::{TREE_FOLDER, TreeFiles};
use crate::StoreError;
use crate::tree::SignerMemory;

/// One log and its tree.
#[derive(Debug, Clone)]
pub(crate) struct LogPlace {
    /// Of its folder: `log`, or `log-1`.
    pub(crate) name: String,
    pub(crate) log: PathBuf,
    pub(crate) tree: PathBuf,
}

impl LogPlace {
    /// The one that is written.
    pub(crate) fn current(data_dir: &Path) -> Self {
        Self { name: LOG_FOLDER.to_owned(), log: data_dir.join(LOG_FOLDER), tree: data_dir.join(TREE_FOLDER) }
    }

    pub(crate) fn aside(data_dir: &Path, number: u64) -> Self {
        let name = format!("{LOG_FOLDER}-{number}");
        Self { log: data_dir.join(&name), tree: data_dir.join(format!("{TREE_FOLDER}-{number}")), name }
    }

    /// First numbers of its files, ascending.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, StoreError> {
        numbered(&self.log, ".jsonl")
    }

    pub(crate) fn segment(&self, first_seq: u64) -> PathBuf {
        self.log.join(log_file_name(first_seq))
    }

    pub(crate) fn files(&self) -> TreeFiles {
        TreeFiles::of(&self.tree)
    }
}

/// All of them, in the order they were written: the one that is written last.
pub(crate) fn logs(data_dir: &Path) -> Result<Vec<LogPlace>, StoreError> {
    let mut places: Vec<LogPlace> =
        asides(data_dir)?.into_iter().map(|number| LogPlace::aside(data_dir, number)).collect();
    places.push(LogPlace::current(data_dir));
    Ok(places)
}

/// The numbers of those kept aside, ascending.
pub(crate) fn asides(data_dir: &Path) -> Result<Vec<u64>, StoreError> {
    let listed = std::fs::read_dir(data_dir).map_err(StoreError::io("list folder", data_dir))?;
    let mut numbers = Vec::new();
    for entry in listed {
        let name = entry.map_err(StoreError::io("list folder", data_dir))?.file_name();
        let number = |folder: &str| name.to_str()?.strip_prefix(folder)?.strip_prefix('-')?.parse::<u64>().ok();
        numbers.extend(number(LOG_FOLDER).or_else(|| number(TREE_FOLDER)));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// What the log that is written is called, or the first one will be.
pub(super) fn current_origin(data_dir: &Path, gateway: &str) -> Result<String, StoreError> {
    if !data_dir.exists() {
        return Ok(gateway.to_owned());
    }
    Ok(origin(gateway, asides(data_dir)?.last().copied().unwrap_or(0)))
}

/// What the logs begun before the one of this origin are called, with how many had been kept aside when each began: of those
/// that are there and of all since.
pub(crate) fn origins_before(data_dir: &Path, current: &str) -> Result<Vec<(u64, String)>, StoreError> {
    let asides = asides(data_dir)?;
    let (Some(first), Some(last)) = (asides.first(), asides.last()) else { return Ok(Vec::new()) };
    let Some(gateway) = current.strip_suffix(&format!("/{last}")) else { return Ok(Vec::new()) };
    Ok((first.saturating_sub(1)..*last).map(|number| (number, origin(gateway, number))).collect())
}

/// Those begun after that many had been kept aside, in their order.
pub(crate) fn logs_behind(data_dir: &Path, number: u64) -> Result<Vec<LogPlace>, StoreError> {
    // A log gets the number that follows how many had been kept aside when it began.
    let behind = asides(data_dir)?.into_iter().filter(|aside| *aside > number.saturating_add(1));
    let mut places: Vec<LogPlace> = behind.map(|aside| LogPlace::aside(data_dir, aside)).collect();
    places.push(LogPlace::current(data_dir));
    Ok(places)
}

/// The number of the key that signed last in a log that was kept aside, for the one after it.
pub(crate) fn last_key(data_dir: &Path) -> Result<u64, StoreError> {
    let mut last = 0;
    for number in asides(data_dir)? {
        let files = LogPlace::aside(data_dir, number).files();
        let memory = files.memory().ok().flatten().and_then(|kept| SignerMemory::parse(&kept.text).ok());
        // Without a memory there are still the checkpoints by which one key handed over to the next.
        let handed_over = u64::try_from(files.rotations().map_or(0, |notes| notes.len())).unwrap_or(0);
        last = last.max(memory.map_or(handed_over, |memory| memory.key()));
    }
    Ok(last)
}

/// What a gateway's log is called in its checkpoints, once so many were kept aside.
fn origin(gateway: &str, asides: u64) -> String {
    if asides == 0 { gateway.to_owned() } else { format!("{gateway}/{asides}") }
}
