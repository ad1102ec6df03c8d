//! Which record is read, with which keys, by which index.

use std::path::{Path, PathBuf};

use exeat_store::StoreError;
use exeat_store::evidence::EvidenceError;
use exeat_store::index::{CaughtUp, Index, IndexError, IndexPlace};
use exeat_store::keys::{KeySet, KeySource};

use crate::cli::sessions::ReadArgs;
use crate::config::{Config, ConfigError};
use crate::exit;
use crate::transcript::TranscriptError;

/// Longer than this, and somebody waiting is told what for.
const LINES_UNTOLD_MAX: u64 = 500_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("which record: give --data DIR, a gateway's data_dir or a copy, or --config FILE")]
    NoFolder,
    #[error("keys folder \"{}\" holds no master.key", path.display())]
    NoKeys { path: PathBuf },
    #[error(transparent)]
    Evidence(EvidenceError),
    #[error("record {seq} cannot be replayed")]
    Transcript { seq: u64, source: TranscriptError },
    #[error("an export of all there is to it goes into a folder: name it with --out")]
    NoOut,
    #[error("\"{}\" is not empty; name a new folder", path.display())]
    Occupied { path: PathBuf },
    #[error("could not write \"{}\"", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
}

/// A record and its index, up to date.
#[derive(Debug)]
pub(crate) struct OpenRecord {
    pub(crate) data_dir: PathBuf,
    pub(crate) index: Index,
    pub(crate) keys: Option<KeySet>,
    pub(crate) config: Option<Config>,
}

impl OpenRecord {
    pub(crate) async fn open(args: &ReadArgs) -> Result<Self, RecordError> {
        let config = args.config.as_deref().map(Config::load).transpose()?;
        let configured = config.as_ref().map(|config| config.data_dir.clone());
        let data_dir = args.data.clone().or(configured).ok_or(RecordError::NoFolder)?;
        let keys = match (&args.keys, &config) {
            (Some(folder), _) => Some(open_keys(&KeySource::Folder(folder.clone()), &data_dir)?),
            // Another gateway's record has other keys; a copy of this one's has the same.
            (None, Some(config)) if is_sealed_alike(&data_dir, &config.data_dir) => {
                Some(open_keys(&config.keys, &data_dir)?)
            }
            (None, _) => None,
        };
        let place = match &args.index {
            Some(path) => IndexPlace::File(path.clone()),
            None => IndexPlace::beside(&data_dir),
        };
        let mut index = Index::open(&place, &data_dir).await?;
        let done = index.catch_up(keys.as_ref(), |lines| tell(&place, lines)).await?;
        tell_end(&place, done);
        Ok(Self { data_dir, index, keys, config })
    }
}

/// By what each says of its master.
fn is_sealed_alike(one: &Path, other: &Path) -> bool {
    let check = |folder: &Path| std::fs::read(folder.join("key-check")).ok();
    one == other || check(one).is_some_and(|found| check(other) == Some(found))
}

/// Never makes keys: that is the gateway's.
fn open_keys(source: &KeySource, data_dir: &Path) -> Result<KeySet, RecordError> {
    if let KeySource::Folder(folder) = source
        && !folder.join("master.key").exists()
    {
        return Err(RecordError::NoKeys { path: folder.clone() });
    }
    Ok(KeySet::open(source, data_dir)?)
}

fn tell(place: &IndexPlace, lines: u64) {
    if lines > 0 && lines.is_multiple_of(LINES_UNTOLD_MAX) {
        exit::note(&format!("indexing ({}): {lines} records", shown(place)));
    }
}

fn tell_end(place: &IndexPlace, done: CaughtUp) {
    if done.lines > LINES_UNTOLD_MAX && *place == IndexPlace::Memory {
        exit::note("the index was made in memory, for this once: name a file with --index to keep it");
    }
    if done.lists_left > 0 {
        exit::note(&format!(
            "{} statements name more columns than fit their line, and are not searched by them without the keys: give --config or --keys",
            done.lists_left
        ));
    }
}

fn shown(place: &IndexPlace) -> String {
    match place {
        IndexPlace::Memory => "in memory".to_owned(),
        IndexPlace::File(path) => path.display().to_string(),
    }
}
