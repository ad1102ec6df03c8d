//! The sessions' wrapped keys in the archive: shipped as lines name them, and destroyed there when they were destroyed here. Each log has
//! an archive of its own, and each of these has the keys of all sessions so far: an erasure must reach those of logs that were kept
//! aside, too, where nothing else is ever written again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use exeat_store::archive::{self, Earlier, Signed};

use super::place::Place;
use super::{RoundError, blocking, wide};

/// The keys in the archives of all logs.
pub(super) struct Keys {
    data_dir: PathBuf,
    current: Pieces,
    earlier: Vec<(Earlier, Pieces)>,
    /// Slots that were found destroyed when we began, and when that was: what says who did it may not be archived yet.
    found: (SystemTime, BTreeSet<u64>),
}

/// Those in the archive of one log.
struct Pieces {
    place: Place,
    /// The first slot that is not archived there.
    end: u64,
    /// Slots that were destroyed here, and not yet there, by lines that are archived.
    owed: BTreeSet<u64>,
}

impl Keys {
    /// What is archived, and what of it must be destroyed.
    pub(super) async fn begin(place: &Place, data_dir: &Path, signed: &Signed) -> Result<Self, RoundError> {
        let (folder, signed) = (data_dir.to_owned(), signed.clone());
        let earlier = blocking(move || Ok(archive::earlier(&folder, &signed)?)).await?;
        let mut copies = Vec::new();
        for log in earlier {
            let place = place.beside(&log.origin);
            let end = last_piece(&place).await?.map_or(0, |(first, bytes)| ends(first, bytes));
            copies.push((log, Pieces { place, end, owed: BTreeSet::new() }));
        }
        let current = Pieces { end: own_end(place, data_dir).await?, place: place.clone(), owed: BTreeSet::new() };
        let end = copies.iter().map(|(_, copy)| copy.end).fold(current.end, u64::max);
        let found = (SystemTime::now(), BTreeSet::new());
        let mut keys = Self { data_dir: data_dir.to_owned(), current, earlier: copies, found };
        if end > 0 {
            let folder = data_dir.to_owned();
            // In the archive of a log that was kept aside there may be more than is left here.
            let found = blocking(move || {
                let end = end.min(archive::slots_here(&folder)?);
                Ok(archive::forgotten_slots(&folder, end)?)
            });
            keys.found.1 = found.await?.into_iter().collect();
        }
        Ok(keys)
    }

    /// Ships them up to this slot.
    pub(super) async fn ship(&mut self, slots: u64) -> Result<(), RoundError> {
        while self.current.end < slots {
            let (folder, from) = (self.data_dir.clone(), self.current.end);
            let piece = blocking(move || Ok(archive::keys_piece(&folder, from, slots)?)).await?;
            self.current.place.create(&archive::keys_name(from), &piece).await?;
            self.current.end = ends(from, wide(piece.len()));
        }
        Ok(())
    }

    /// These were destroyed here, by lines that are archived.
    pub(super) fn owe(&mut self, slots: &BTreeSet<u64>) {
        self.current.owed.extend(slots);
        for (_, copy) in &mut self.earlier {
            copy.owed.extend(slots.range(..copy.end));
        }
    }

    /// Keys that were destroyed here are destroyed there. `unanchored`: when the first line was written that is not archived.
    pub(super) async fn forget(&mut self, unanchored: Option<SystemTime>) -> Result<(), RoundError> {
        let (found_at, found) = &mut self.found;
        if unanchored.is_none_or(|time| time > *found_at) {
            let found = std::mem::take(found);
            self.owe(&found);
        }
        // Those not shipped yet are shipped as zeros, unless they were read before: they are looked at again.
        self.current.forget(&self.data_dir, self.current.end).await?;
        for (log, copy) in self.earlier.iter_mut().filter(|(_, copy)| !copy.owed.is_empty()) {
            let (folder, log) = (self.data_dir.clone(), log.clone());
            let end = blocking(move || Ok(log.slots_end(&folder)?)).await?;
            copy.forget(&self.data_dir, end.min(copy.end)).await?;
            // What is left is of sessions that are not in that archive.
            copy.owed.clear();
        }
        Ok(())
    }
}

impl Pieces {
    /// Destroys what is owed of the slots before `end`, which are the same there and here.
    async fn forget(&mut self, data_dir: &Path, end: u64) -> Result<(), RoundError> {
        let due: BTreeSet<u64> = self.owed.range(..end).copied().collect();
        if due.is_empty() {
            return Ok(());
        }
        let pieces = self.place.list(archive::KEYS, None, |_| true).await?;
        let firsts: BTreeSet<u64> = pieces.iter().filter_map(|(name, _)| archive::number_of(name)).collect();
        let mut by_piece: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for slot in due {
            let first = firsts.range(..=slot).next_back().copied().unwrap_or(0);
            by_piece.entry(first).or_default().push(slot);
        }
        for (first, slots) in by_piece {
            let name = archive::keys_name(first);
            let Some(mut piece) = self.place.get(&name).await? else { return Err(RoundError::NotOurs { name }) };
            let folder = data_dir.to_owned();
            let same_to = ends(first, wide(piece.len())).min(end);
            let own = blocking(move || {
                let end = same_to.min(archive::slots_here(&folder)?);
                Ok(archive::keys_piece(&folder, first, end)?)
            });
            let own = own.await?;
            if !piece.get(..own.len()).is_some_and(|found| archive::same_slots(&own, found)) {
                return Err(RoundError::NotOurs { name });
            }
            // Each of them, whatever was found of the one before.
            let destroyed = slots.iter().filter(|slot| archive::forget_slot(&mut piece, first, **slot)).count();
            if destroyed > 0 {
                self.place.replace(&name, &piece).await?;
            }
            for slot in slots {
                self.owed.remove(&slot);
            }
        }
        Ok(())
    }
}

/// The first slot of the keys that is not archived. What was archived last must be this gateway's, but for keys that were
/// destroyed since.
async fn own_end(place: &Place, data_dir: &Path) -> Result<u64, RoundError> {
    let Some((first, bytes)) = last_piece(place).await? else { return Ok(0) };
    let (name, end) = (archive::keys_name(first), ends(first, bytes));
    let found = place.get(&name).await?.unwrap_or_default();
    let folder = data_dir.to_owned();
    let own = blocking(move || Ok(archive::keys_piece(&folder, first, end).ok())).await?;
    let is_own = own.is_some_and(|own| archive::same_slots(&own, &found));
    if is_own { Ok(end) } else { Err(RoundError::NotOurs { name }) }
}

/// Its first slot, and how long it is.
async fn last_piece(place: &Place) -> Result<Option<(u64, u64)>, RoundError> {
    let pieces = place.list(archive::KEYS, None, |_| true).await?;
    Ok(pieces.iter().filter_map(|(name, bytes)| Some((archive::number_of(name)?, *bytes))).max())
}

/// Behind the last slot of so many bytes.
fn ends(first: u64, bytes: u64) -> u64 {
    first.saturating_add(archive::slots_in(bytes))
}
