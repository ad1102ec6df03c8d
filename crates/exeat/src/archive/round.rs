//! One round: what was signed since the last is shipped, first what lines name and last what vouches for them, so that whoever
//! copies the archive at any moment has a log that verifies up to its checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use exeat_store::archive::{self, Lines, Named, Signed};
use exeat_store::follow::Follower;
use jiff::Timestamp;
use serde_json::Value;

use super::keys::Keys;
use super::place::{Place, PlaceConfig, PlaceError};
use super::{Archive, RoundError, blocking, wide};

/// Blob segments whose end in the archive is remembered: lines name the last one, or the one before.
const SEGMENTS_KEPT: usize = 4;

/// An archive as far as it goes.
pub(super) struct Round {
    place: Place,
    data_dir: PathBuf,
    origin: String,
    /// At the first line that is not archived.
    lines: Option<Follower>,
    /// So many are under the archive's checkpoint.
    anchored: u64,
    keys: Keys,
    /// By segment, the first byte that is not archived.
    blobs: BTreeMap<u64, u64>,
    /// Checkpoints by two keys that are archived.
    rotations: BTreeSet<String>,
}

impl Round {
    /// Where the archive ends, as the archive itself says. `None`: nothing is signed yet.
    pub(super) async fn begin(config: &PlaceConfig, data_dir: &Path) -> Result<Option<Self>, RoundError> {
        let (config, folder) = (config.clone(), data_dir.to_owned());
        let opened = blocking(move || {
            let Some(signed) = archive::signed(&folder)? else { return Ok(None) };
            let place = Place::open(&config, &signed.origin)?;
            Ok(Some((signed, place)))
        });
        let Some((signed, place)) = opened.await? else { return Ok(None) };
        place.probe().await?;
        let anchored = anchored(&place, data_dir, &signed).await?;
        let lines = lines_behind(&place, data_dir, (anchored, signed.size)).await?;
        let keys = Keys::begin(&place, data_dir, &signed).await?;
        Ok(Some(Self {
            place,
            data_dir: data_dir.to_owned(),
            origin: signed.origin,
            lines: Some(lines),
            anchored,
            keys,
            blobs: BTreeMap::new(),
            rotations: BTreeSet::new(),
        }))
    }

    pub(super) fn anchored(&self) -> u64 {
        self.anchored
    }

    /// Ships what is new, and says up to when everything is anchored.
    pub(super) async fn go(&mut self, archive: &Archive) -> Result<(), RoundError> {
        let folder = self.data_dir.clone();
        // Before the log is looked at: what is written meanwhile is later.
        let now = SystemTime::now();
        let signed = blocking(move || Ok(archive::signed(&folder)?)).await?;
        let Some(signed) = signed.filter(|signed| signed.origin == self.origin) else {
            return Err(RoundError::NotOurs { name: archive::CHECKPOINT.to_owned() });
        };
        if signed.size > self.anchored {
            self.ship_lines(signed.size).await?;
            self.anchor(&signed).await?;
        }
        let unanchored = self.first_unanchored().await?;
        self.keys.forget(unanchored).await?;
        archive.window.note(unanchored.map_or(now, |time| time.min(now)));
        Ok(())
    }

    async fn ship_lines(&mut self, end: u64) -> Result<(), RoundError> {
        loop {
            let Some(mut follower) = self.lines.take() else { return Err(RoundError::Ending) };
            let read = blocking(move || {
                let lines = Lines::next(&mut follower, end)?;
                Ok((lines, follower))
            });
            let (lines, follower) = read.await?;
            self.lines = Some(follower);
            let Some(lines) = lines else { break };
            self.ship_named(&lines.named).await?;
            self.place.create(&lines.name(), &lines.bytes).await?;
            self.keys.owe(&lines.named.destroyed);
        }
        let found = self.lines.as_ref().map_or(0, Follower::next_seq);
        // What is signed and not in the log is for a human.
        if found == end { Ok(()) } else { Err(RoundError::Ahead { archived: end, signed: found }) }
    }

    /// What lines name, before the lines.
    async fn ship_named(&mut self, named: &Named) -> Result<(), RoundError> {
        for (segment, end) in &named.blobs {
            self.ship_blobs(*segment, *end).await?;
        }
        self.keys.ship(named.slots).await
    }

    async fn ship_blobs(&mut self, segment: u64, end: u64) -> Result<(), RoundError> {
        let mut from = match self.blobs.get(&segment) {
            Some(from) => *from,
            None => self.blobs_end(segment).await?,
        };
        let folder = self.data_dir.clone();
        let is_gone = from < end && blocking(move || Ok(archive::is_gone(&folder, segment)?)).await?;
        while from < end && !is_gone {
            let folder = self.data_dir.clone();
            let piece = blocking(move || Ok(archive::blob_piece(&folder, segment, from, end)?)).await?;
            self.place.create(&archive::blob_name(segment, from), &piece).await?;
            from = from.saturating_add(wide(piece.len()));
        }
        self.blobs.insert(segment, from);
        while self.blobs.len() > SEGMENTS_KEPT {
            self.blobs.pop_first();
        }
        Ok(())
    }

    /// Where the archive's pieces of a segment end. The last of them must be this gateway's.
    async fn blobs_end(&self, segment: u64) -> Result<u64, RoundError> {
        let of = |name: &str| archive::blob_numbers_of(name).filter(|(found, _)| *found == segment);
        let before = segment.checked_sub(1).map(|before| archive::blob_name(before, u64::MAX));
        let pieces = self.place.list(archive::BLOBS, before.as_deref(), |name| of(name).is_some()).await?;
        let Some((from, bytes)) = pieces.iter().filter_map(|(name, bytes)| Some((of(name)?.1, *bytes))).max() else {
            return Ok(0);
        };
        let (name, end) = (archive::blob_name(segment, from), from.saturating_add(bytes));
        let found = self.place.get(&name).await?;
        let folder = self.data_dir.clone();
        // One that is not there here either is not this gateway's.
        let own = blocking(move || Ok(archive::blob_piece(&folder, segment, from, end).ok())).await?;
        if own.is_some() && own == found { Ok(end) } else { Err(RoundError::NotOurs { name }) }
    }

    /// Tiles, and what was signed: the checkpoint is what makes it an anchor.
    async fn anchor(&mut self, signed: &Signed) -> Result<(), RoundError> {
        for path in archive::new_tiles(self.anchored, signed.size) {
            let folder = self.data_dir.clone();
            let tile = blocking(move || Ok(archive::tile(&folder, &path)?)).await?;
            self.place.create(&archive::tile_name(&path), &tile).await?;
        }
        let folder = self.data_dir.clone();
        for (name, note) in blocking(move || Ok(archive::rotations(&folder)?)).await? {
            // Without it a copy cannot tell that the key of before agreed.
            if self.rotations.insert(name.clone()) {
                self.place.create(&name, &note).await?;
            }
        }
        if let Some(found) = self.place.make(&signed.name(), &signed.note).await? {
            // By another key, after a rotation: what counts is what it says.
            if !Signed::read(found).is_ok_and(|found| found.says_as(signed)) {
                return Err(PlaceError::Other { name: signed.name() }.into());
            }
        }
        self.place.replace(archive::CHECKPOINT, &signed.note).await?;
        self.anchored = signed.size;
        Ok(())
    }

    /// When the first line was written that is not anchored.
    async fn first_unanchored(&mut self) -> Result<Option<SystemTime>, RoundError> {
        let Some(mut follower) = self.lines.take() else { return Err(RoundError::Ending) };
        let (line, follower) = blocking(move || Ok((follower.peek()?, follower))).await?;
        self.lines = Some(follower);
        let event: Option<Value> = line.and_then(|line| serde_json::from_slice(&line).ok());
        let time = event.as_ref().and_then(|event| event.get("time")?.as_str()?.parse::<Timestamp>().ok());
        Ok(time.map(SystemTime::from))
    }
}

/// How many lines are under the archive's checkpoint, which this gateway's log must extend.
async fn anchored(place: &Place, data_dir: &Path, signed: &Signed) -> Result<u64, RoundError> {
    let Some(note) = place.get(archive::CHECKPOINT).await? else { return Ok(0) };
    let archived = Signed::read(note)?;
    if archived.origin != signed.origin {
        return Err(RoundError::NotOurs { name: archive::CHECKPOINT.to_owned() });
    }
    if archived.size > signed.size {
        return Err(RoundError::Ahead { archived: archived.size, signed: signed.size });
    }
    let (folder, size) = (data_dir.to_owned(), archived.size);
    blocking(move || Ok(archive::extends(&folder, &archived)?)).await?;
    Ok(size)
}

/// At the first line that is not archived: a round that did not come to its end leaves lines behind the checkpoint. They must
/// be this gateway's.
async fn lines_behind(place: &Place, data_dir: &Path, (anchored, signed): (u64, u64)) -> Result<Follower, RoundError> {
    let before = anchored.checked_sub(1).map(archive::lines_name);
    let behind = |name: &str| archive::number_of(name).is_some_and(|first| first >= anchored);
    let pieces = place.list(archive::LINES, before.as_deref(), behind).await?;
    let Some((last, _)) = pieces.last() else {
        let folder = data_dir.to_owned();
        // An archive that has nothing yet begins with what retention has left.
        let first = blocking(move || Ok(archive::first_line(&folder)?)).await?;
        return Ok(Follower::new(data_dir, if anchored == 0 { first } else { anchored }));
    };
    let first = archive::number_of(last).unwrap_or(anchored);
    let name = archive::lines_name(first);
    let Some(found) = place.get(&name).await? else { return Err(RoundError::NotOurs { name }) };
    let next = first.saturating_add(wide(found.iter().filter(|byte| **byte == b'\n').count()));
    if next > signed {
        return Err(RoundError::Ahead { archived: next, signed });
    }
    let folder = data_dir.to_owned();
    let read = blocking(move || {
        let mut follower = Follower::new(&folder, first);
        let own = follower.read(next, found.len())?;
        Ok((own == found).then_some(follower))
    });
    read.await?.ok_or(RoundError::NotOurs { name })
}
