//! Sealed blobs against the digests that lines have of them. Every reference is held against its digest. Blobs lie in their
//! files in the order of the lines, so a file stays open and is read ahead; and a blob that many lines name, as a
//! statement that is run again and again, is read once while it is remembered. Neither may find anything: what does not
//! come out right so is read anew, from its own file and alone, for a running gateway may have written since.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};

use super::line::Named;
use crate::record::BLOB_BYTES_MAX;
use crate::stored::{Piece, Stored};
use crate::{StoreError, hex};

/// Read at once where one blob follows the other.
const AHEAD_BYTES: usize = 512 * 1024;

/// Blobs remembered: twice so many at most, of 64 bytes each.
const REMEMBERED_MAX: usize = 64 * 1024;

/// What is wrong with a blob whose file is not there.
pub(super) const MISSING: &str = "is missing";

type Digest = [u8; SHA256_OUTPUT_LEN];

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    segment: u64,
    offset: u64,
    bytes: usize,
}

pub(super) struct Blobs {
    data_dir: PathBuf,
    stored: Stored,
    ahead: Option<Ahead>,
    /// What was read and how it came out: lately, and before that.
    lately: HashMap<Place, Digest>,
    before: HashMap<Place, Digest>,
}

impl Blobs {
    pub(super) fn of(data_dir: &Path) -> Self {
        let (lately, before) = (HashMap::new(), HashMap::new());
        Self { data_dir: data_dir.to_owned(), stored: Stored::of(data_dir), ahead: None, lately, before }
    }

    /// What is wrong with it.
    pub(super) fn hold(&mut self, named: &Named<'_>) -> Result<Option<&'static str>, StoreError> {
        let (Some(segment), Some(offset), Some(bytes)) = (named.segment, named.offset, named.bytes) else {
            return Ok(Some("is not named rightly"));
        };
        let Some(bytes) = usize::try_from(bytes).ok().filter(|bytes| *bytes <= BLOB_BYTES_MAX) else {
            return Ok(Some("is not named rightly"));
        };
        let place = Place { segment, offset, bytes };
        let said = named.sha256.as_deref().unwrap_or_default();
        if self.known(place).is_some_and(|known| is_said(&known, said)) {
            return Ok(None);
        }
        let found = self.read_ahead(place).filter(|found| is_said(found, said));
        let found = match found {
            Some(found) => found,
            None => match self.read(place)? {
                Ok(found) => found,
                Err(problem) => return Ok(Some(problem)),
            },
        };
        self.remember(place, found);
        Ok((!is_said(&found, said)).then_some("is not the one that was recorded"))
    }

    fn known(&mut self, place: Place) -> Option<Digest> {
        if let Some(known) = self.lately.get(&place) {
            return Some(*known);
        }
        let known = self.before.remove(&place)?;
        self.remember(place, known);
        Some(known)
    }

    fn remember(&mut self, place: Place, digest: Digest) {
        if self.lately.len() >= REMEMBERED_MAX {
            self.before = std::mem::take(&mut self.lately);
        }
        self.lately.insert(place, digest);
    }

    /// `None`: nothing is said about it.
    fn read_ahead(&mut self, place: Place) -> Option<Digest> {
        if self.ahead.as_ref().is_none_or(|ahead| !ahead.has(place)) {
            // Another buffer is not made for every piece.
            let buffer = self.ahead.take().map(|ahead| ahead.buffer).unwrap_or_default();
            self.ahead = Some(Ahead::open(self.stored.piece(place.segment, place.offset)?, place.segment, buffer));
        }
        self.ahead.as_mut()?.read(place)
    }

    /// Alone, wherever its bytes lie.
    fn read(&self, place: Place) -> Result<Result<Digest, &'static str>, StoreError> {
        let Ok(mut file) = self.stored.blob(place.segment, place.offset) else { return Ok(Err(MISSING)) };
        let (mut digest, mut chunk, mut left) = (Context::new(&SHA256), vec![0; 64 * 1024], place.bytes);
        while left > 0 {
            let most = left.min(chunk.len());
            let part = chunk.get_mut(..most).unwrap_or_default();
            let read = file.read(part).map_err(StoreError::io("read a sealed text of", &self.data_dir))?;
            if read == 0 {
                return Ok(Err("is cut off"));
            }
            digest.update(part.get(..read).unwrap_or_default());
            left = left.saturating_sub(read);
        }
        Ok(Ok(bytes(digest.finish().as_ref())))
    }
}

/// As lines write it: in small hex digits.
fn is_said(digest: &Digest, said: &str) -> bool {
    hex::decode(said).as_ref() == Some(digest) && !said.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn bytes(digest: &[u8]) -> Digest {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    for (to, from) in bytes.iter_mut().zip(digest) {
        *to = *from;
    }
    bytes
}

/// One file, kept open.
struct Ahead {
    segment: u64,
    piece: Piece,
    /// Where the buffer's first byte lies in its segment.
    at: u64,
    buffer: Vec<u8>,
}

impl Ahead {
    fn open(piece: Piece, segment: u64, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { segment, at: piece.begin, piece, buffer }
    }

    fn has(&self, place: Place) -> bool {
        self.segment == place.segment && place.offset >= self.piece.begin && place.offset < self.piece.end
    }

    fn read(&mut self, place: Place) -> Option<Digest> {
        if self.buffered(place).is_none() {
            let end = self.at.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
            // One that lies elsewhere is read alone.
            let goes_on = place.offset >= self.at && place.offset <= end;
            let wanted = if goes_on { place.bytes.max(AHEAD_BYTES) } else { place.bytes };
            self.at = place.offset;
            self.buffer.resize(wanted, 0);
            let from = place.offset.saturating_sub(self.piece.begin);
            let read = read_at(&self.piece.file, &mut self.buffer, (from, place.bytes)).unwrap_or(0);
            self.buffer.truncate(read);
        }
        self.buffered(place).map(|sealed| bytes(digest(&SHA256, sealed).as_ref()))
    }

    fn buffered(&self, place: Place) -> Option<&[u8]> {
        let from = usize::try_from(place.offset.checked_sub(self.at)?).ok()?;
        self.buffer.get(from..)?.get(..place.bytes)
    }
}

/// As much as one reading gives, and so many bytes at least where the file has them.
fn read_at(file: &File, into: &mut [u8], (from, wanted): (u64, usize)) -> std::io::Result<usize> {
    let mut done = 0;
    loop {
        let at = from.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        let read = file.read_at(into.get_mut(done..).unwrap_or_default(), at)?;
        done += read;
        if read == 0 || done >= wanted {
            return Ok(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::record::{BLOB_FOLDER, blob_path};
    use crate::stored::blob_part;

    /// A reference to these bytes of segment 3, as a line has it that was written for `sealed`.
    fn named(offset: u64, sealed: &[u8]) -> Named<'static> {
        Named {
            segment: Some(3),
            offset: Some(offset),
            bytes: u64::try_from(sealed.len()).ok(),
            sha256: Some(Cow::Owned(hex::text(digest(&SHA256, sealed).as_ref()))),
        }
    }

    fn folder() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join(BLOB_FOLDER)).unwrap();
        base
    }

    #[test]
    fn every_reference_is_held_against_its_own_digest() {
        let base = folder();
        fs::write(blob_path(base.path(), 3), "onetwothree").unwrap();
        let mut blobs = Blobs::of(base.path());
        for _ in 0..2 {
            assert_eq!(blobs.hold(&named(0, b"one")).unwrap(), None);
            assert_eq!(blobs.hold(&named(3, b"two")).unwrap(), None);
            assert_eq!(blobs.hold(&named(3, b"one")).unwrap(), Some("is not the one that was recorded"));
            assert_eq!(blobs.hold(&named(4, b"two")).unwrap(), Some("is not the one that was recorded"));
            assert_eq!(blobs.hold(&named(9, b"three")).unwrap(), Some("is cut off"));
            assert_eq!(blobs.hold(&named(6, b"three")).unwrap(), None);
            let elsewhere = Named { segment: Some(4), ..named(0, b"one") };
            assert_eq!(blobs.hold(&elsewhere).unwrap(), Some("is missing"));
            for part in ["segment", "offset", "bytes"] {
                let mut unnamed = named(0, b"one");
                match part {
                    "segment" => unnamed.segment = None,
                    "offset" => unnamed.offset = None,
                    _ => unnamed.bytes = u64::try_from(BLOB_BYTES_MAX).ok().map(|most| most + 1),
                }
                assert_eq!(blobs.hold(&unnamed).unwrap(), Some("is not named rightly"), "{part}");
            }
            let large =
                Named { sha256: named(0, b"one").sha256.map(|said| said.to_uppercase().into()), ..named(0, b"one") };
            assert_eq!(blobs.hold(&large).unwrap(), Some("is not the one that was recorded"));
        }
    }

    #[test]
    fn what_a_running_gateway_writes_behind_what_was_read_ahead_is_found() {
        let base = folder();
        let path = blob_path(base.path(), 3);
        // Room is reserved before it is written.
        fs::write(&path, [b"one".as_slice(), &[0; 100]].concat()).unwrap();
        let mut blobs = Blobs::of(base.path());
        assert_eq!(blobs.hold(&named(0, b"one")).unwrap(), None);
        fs::File::options().write(true).open(&path).unwrap().write_all_at(b"two", 3).unwrap();
        assert_eq!(blobs.hold(&named(3, b"two")).unwrap(), None);
    }

    #[test]
    fn blobs_are_read_from_the_pieces_of_an_archive_in_any_order_and_over_their_borders() {
        let base = folder();
        for (offset, bytes) in [(0, "onetw"), (5, "othree"), (11, "four")] {
            fs::write(base.path().join(BLOB_FOLDER).join(blob_part(3, offset)), bytes).unwrap();
        }
        let mut blobs = Blobs::of(base.path());
        for (offset, sealed) in [(11, "four"), (0, "one"), (3, "two"), (6, "three"), (0, "onetwothreefour")] {
            assert_eq!(blobs.hold(&named(offset, sealed.as_bytes())).unwrap(), None, "{sealed}");
        }
        assert_eq!(blobs.hold(&named(14, b"rest")).unwrap(), Some("is cut off"));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let base = folder();
        let mut blobs = Blobs::of(base.path());
        for segment in 0..3 * u64::try_from(REMEMBERED_MAX).unwrap() {
            blobs.remember(Place { segment, offset: 0, bytes: 1 }, [0; SHA256_OUTPUT_LEN]);
        }
        assert!(blobs.lately.len() <= REMEMBERED_MAX && blobs.before.len() <= REMEMBERED_MAX);
    }
}
