//! Tiles: the hashes of the tree in files that never change, 256 hashes each, as C2SP tlog-tiles lays them out
//! (<https://c2sp.org/tlog-tiles>). Tile `index` of level `level` holds the roots of 256 neighbouring subtrees of
//! 256^`level` leaves; the last one of a level is partial, and its width is part of its name.
//! Knows names and bytes; where they lie is the reader's business.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::io;
use std::str::FromStr;

use super::hash::{HASH_BYTES, TreeHash, TreeHead};

/// Hashes in a full tile.
pub const TILE_HASHES_MAX: u16 = 256;

/// Bytes of a full tile. A reader need read no more than one byte beyond this.
pub const TILE_BYTES_MAX: usize = 256 * HASH_BYTES;

/// log2 of the hashes in a full tile: what one level of tiles spans of the tree's height.
pub(super) const TILE_HEIGHT: u32 = 8;

/// Levels a name may have by the specification. A tree of the greatest size needs eight.
const LEVEL_MAX: u8 = 63;

/// A name is shorter: level, seven elements for the greatest index, and the width.
const PATH_BYTES_MAX: usize = 64;

/// Tiles held while proofs are computed, 16 KiB each with their nodes. A proof touches two of each level at most.
const TILES_KEPT_MAX: usize = 64;

/// The name of a tile: `tile/0/x001/234`, or `tile/0/x001/234.p/17` for a partial one of 17 hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    level: u8,
    index: u64,
    width: u16,
}

impl TilePath {
    /// `width` in hashes, from 1 to 256; 256 is a full tile.
    pub fn new(level: u8, index: u64, width: u16) -> Result<Self, TileError> {
        if level > LEVEL_MAX {
            return Err(TileError::Level { level });
        }
        if width == 0 || width > TILE_HASHES_MAX {
            return Err(TileError::Width { width });
        }
        Ok(Self { level, index, width })
    }

    pub fn level(&self) -> u8 {
        self.level
    }

    /// From the left, within the level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Hashes in the tile.
    pub fn width(&self) -> u16 {
        self.width
    }

    pub fn is_full(&self) -> bool {
        self.width == TILE_HASHES_MAX
    }

    /// The tile that this one becomes, or is.
    pub fn to_full(self) -> Self {
        Self { width: TILE_HASHES_MAX, ..self }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        let mut unit = 1;
        while self.index / unit >= 1000 {
            unit *= 1000;
        }
        while unit > 1 {
            write!(f, "x{:03}/", self.index / unit % 1000)?;
            unit /= 1000;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for TilePath {
    type Err = TileError;

    /// Takes the one way of writing a name that `Display` has, and no other.
    fn from_str(text: &str) -> Result<Self, TileError> {
        let refused = || TileError::Path { path: text.chars().take(PATH_BYTES_MAX).collect() };
        if text.len() > PATH_BYTES_MAX {
            return Err(refused());
        }
        let path = parse_path(text).ok_or_else(refused)?;
        // Signs, leading zeros and needless elements are read above; none is written.
        let mut written = String::with_capacity(text.len());
        write!(written, "{path}").map_err(|_| refused())?;
        if written == text { Ok(path) } else { Err(refused()) }
    }
}

fn parse_path(text: &str) -> Option<TilePath> {
    let (level, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, width.parse().ok().filter(|width| *width < TILE_HASHES_MAX)?),
        None => (rest, TILE_HASHES_MAX),
    };
    let number = index.split('/').try_fold(0_u64, |number, element| {
        let digits: u64 = element.strip_prefix('x').unwrap_or(element).parse().ok()?;
        number.checked_mul(1000)?.checked_add(digits)
    })?;
    TilePath::new(level.parse().ok()?, number, width).ok()
}

/// A tile with its hashes, as many as its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    path: TilePath,
    hashes: Vec<TreeHash>,
}

impl Tile {
    /// Refuses a file that is not exactly as long as its name says.
    pub fn parse(path: TilePath, bytes: &[u8]) -> Result<Self, TileError> {
        let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
        if !rest.is_empty() || hashes.len() != usize::from(path.width) {
            return Err(TileError::Length { path, bytes: bytes.len() });
        }
        Ok(Self { path, hashes: hashes.iter().copied().map(TreeHash::from_bytes).collect() })
    }

    /// INVARIANT: one to 256 hashes, and a level below 64; kept by the frontier, the only caller.
    pub(super) fn of(level: u8, index: u64, hashes: Vec<TreeHash>) -> Self {
        let width = u16::try_from(hashes.len()).unwrap_or(TILE_HASHES_MAX);
        Self { path: TilePath { level, index, width }, hashes }
    }

    pub fn path(&self) -> &TilePath {
        &self.path
    }

    pub fn hashes(&self) -> &[TreeHash] {
        &self.hashes
    }

    /// The file's content: the hashes, 32 bytes each, in their order.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(TreeHash::as_bytes).copied().collect()
    }
}

/// Where tiles are read from: a folder, an archive, a map in a test.
pub trait TileReader {
    /// The whole file of this name, or `None` if there is no such file.
    fn read(&self, path: &TilePath) -> io::Result<Option<Vec<u8>>>;
}

/// The tiles of the tree of one head, read as they are asked for. Every hash they give leads to the head's root: what
/// stands at the right edge is compared with it at once, a full tile with the hash that the level above has of it.
#[derive(Debug)]
pub(super) struct Tiles<'r, R> {
    size: u64,
    reader: &'r R,
    kept: BTreeMap<(u8, u64), Rows>,
}

/// A tile's part of the tree: its hashes, the nodes over each two of them, and so on up.
type Rows = Vec<Vec<TreeHash>>;

impl<'r, R: TileReader> Tiles<'r, R> {
    pub(super) fn open(head: &TreeHead, reader: &'r R) -> Result<Self, TileError> {
        let size = head.size();
        let mut tiles = Self { size, reader, kept: BTreeMap::new() };
        let found = fold(&tiles.edge()?);
        if found != *head.root() {
            return Err(TileError::OtherRoot { size, root: *head.root(), found });
        }
        Ok(tiles)
    }

    /// The roots of the complete subtrees that the whole tree consists of, the largest first.
    pub(super) fn edge(&mut self) -> Result<Vec<TreeHash>, TileError> {
        self.subtrees(0, self.size)
    }

    /// The hashes of a tile, as many as the tree of this size has there.
    pub(super) fn hashes(&mut self, level: u8, index: u64) -> Result<&[TreeHash], TileError> {
        Ok(self.rows(level, index)?.first().map_or(&[], Vec::as_slice))
    }

    fn rows(&mut self, level: u8, index: u64) -> Result<&[Vec<TreeHash>], TileError> {
        let at = (level, index);
        if !self.kept.contains_key(&at) {
            let rows = self.read(level, index)?;
            if self.kept.len() >= TILES_KEPT_MAX {
                self.kept.clear();
            }
            self.kept.insert(at, rows);
        }
        Ok(self.kept.get(&at).map_or(&[], Vec::as_slice))
    }

    fn read(&mut self, level: u8, index: u64) -> Result<Rows, TileError> {
        let outside = || TileError::OutsideTree { level, index, size: self.size };
        let in_level = self.size.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0);
        let before = index.checked_mul(u64::from(TILE_HASHES_MAX)).ok_or_else(outside)?;
        let there = in_level.checked_sub(before).filter(|there| *there > 0).ok_or_else(outside)?;
        let width = u16::try_from(there).unwrap_or(TILE_HASHES_MAX).min(TILE_HASHES_MAX);
        let path = TilePath::new(level, index, width)?;
        let rows = rows_over(self.tile(path)?);
        if path.is_full() {
            let expected = self.subtree(TILE_HEIGHT * (u32::from(level) + 1), index)?;
            if rows.last().and_then(|row| row.first()) != Some(&expected) {
                return Err(TileError::Altered { path, size: self.size });
            }
        }
        Ok(rows)
    }

    fn tile(&self, path: TilePath) -> Result<Vec<TreeHash>, TileError> {
        if let Some(bytes) = self.file(&path)? {
            return Ok(Tile::parse(path, &bytes)?.hashes);
        }
        // A log may delete a partial tile once the full one is there; that one begins with the same hashes.
        let full = path.to_full();
        match self.file(&full)? {
            Some(bytes) if !path.is_full() => {
                let mut hashes = Tile::parse(full, &bytes)?.hashes;
                hashes.truncate(usize::from(path.width));
                Ok(hashes)
            }
            _ => Err(TileError::Missing { path, size: self.size }),
        }
    }

    fn file(&self, path: &TilePath) -> Result<Option<Vec<u8>>, TileError> {
        self.reader.read(path).map_err(|source| TileError::Unreadable { path: *path, source })
    }

    /// The root of a complete subtree: the `index`-th of those with 2^`height` leaves.
    fn subtree(&mut self, height: u32, index: u64) -> Result<TreeHash, TileError> {
        let size = self.size;
        let level = u8::try_from(height / TILE_HEIGHT).unwrap_or(u8::MAX);
        let row = height % TILE_HEIGHT;
        let in_row = u64::from(TILE_HASHES_MAX) >> row;
        let rows = self.rows(level, index / in_row)?;
        let place = usize::try_from(index % in_row).unwrap_or(usize::MAX);
        let found = usize::try_from(row).ok().and_then(|row| rows.get(row)).and_then(|row| row.get(place));
        found.copied().ok_or(TileError::OutsideTree { level, index, size })
    }

    /// The root over the leaves from `start` to before `end`. INVARIANT: `start` is where a subtree of at least as
    /// many leaves begins, as for every subtree that RFC 6962 splits a tree into.
    pub(super) fn range(&mut self, start: u64, end: u64) -> Result<TreeHash, TileError> {
        self.subtrees(start, end).map(|roots| fold(&roots))
    }

    fn subtrees(&mut self, start: u64, end: u64) -> Result<Vec<TreeHash>, TileError> {
        let mut roots = Vec::new();
        let mut at = start;
        while at < end {
            let height = (end - at).ilog2();
            roots.push(self.subtree(height, at >> height)?);
            at += 1 << height;
        }
        Ok(roots)
    }
}

fn rows_over(hashes: Vec<TreeHash>) -> Rows {
    let mut rows = vec![hashes];
    while let Some(row) = rows.last().filter(|row| row.len() > 1) {
        rows.push(row.as_chunks().0.iter().map(|[left, right]| TreeHash::of_node(left, right)).collect());
    }
    rows
}

/// One root over complete subtrees that stand side by side, the largest on the left: the smaller ones join first.
pub(super) fn fold(roots: &[TreeHash]) -> TreeHash {
    let joined = roots.iter().rev().copied().reduce(|right, left| TreeHash::of_node(&left, &right));
    joined.unwrap_or_else(TreeHash::of_nothing)
}

#[derive(Debug, thiserror::Error)]
pub enum TileError {
    #[error("tile level {level} exceeds the limit of {LEVEL_MAX}")]
    Level { level: u8 },
    #[error("tile width of {width} hashes is not between 1 and {TILE_HASHES_MAX}")]
    Width { width: u16 },
    #[error(
        "tile name {path:?} is not of the form \"tile/<level>/<index>\", as in \"tile/0/x001/234\" or \"tile/0/x001/234.p/17\""
    )]
    Path { path: String },
    #[error("tile \"{path}\" has {bytes} bytes, but {expected} by its name", expected = usize::from(path.width()) * HASH_BYTES)]
    Length { path: TilePath, bytes: usize },
    #[error(
        "tile \"{path}\" of the tree of size {size} is missing; restore it from a copy, or compute the tiles again from the log"
    )]
    Missing { path: TilePath, size: u64 },
    #[error(
        "tile \"{path}\" was altered: in the tree of size {size}, the level above has another hash of it; restore it from a copy"
    )]
    Altered { path: TilePath, size: u64 },
    #[error(
        "tiles of the tree of size {size} lead to the root {found}, but the checkpoint says {root}; restore the tiles from a copy, or compute them again from the log"
    )]
    OtherRoot { size: u64, root: TreeHash, found: TreeHash },
    #[error("could not read tile \"{path}\"")]
    Unreadable { path: TilePath, source: io::Error },
    #[error("a tree of size {size} has nothing at level {level}, index {index}")]
    OutsideTree { level: u8, index: u64, size: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(level: u8, index: u64, width: u16, text: &str) {
        let path = TilePath::new(level, index, width).unwrap();
        assert_eq!(path.to_string(), text);
        assert_eq!(text.parse::<TilePath>().unwrap(), path);
    }

    // The index is the specification's own example.
    #[test]
    fn names_are_written_as_the_specification_says_and_read_back() {
        check(0, 1_234_067, 256, "tile/0/x001/x234/067");
        check(0, 0, 256, "tile/0/000");
        check(0, 0, 1, "tile/0/000.p/1");
        check(1, 999, 255, "tile/1/999.p/255");
        check(2, 1000, 256, "tile/2/x001/000");
        check(63, u64::MAX, 7, "tile/63/x018/x446/x744/x073/x709/x551/615.p/7");
    }

    #[test]
    fn a_name_written_otherwise_is_refused() {
        let wrong = [
            "",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "tile/0/1",
            "tile/0/0001",
            "tile/0/x000/001",
            "tile/0/x001",
            "tile/0/001/234",
            "tile/0/x001/x234",
            "tile/0/x1/234",
            "tile/00/001",
            "tile/+0/001",
            "tile/64/001",
            "tile/-1/001",
            "tile/256/001",
            "tile/0/+01",
            "tile/0/-01",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/0/001.p/",
            "tile/0/001.p",
            "tile/0/001.p/1/",
            "tile/0/001/",
            "tile/0//001",
            "/tile/0/001",
            "tile/entries/001",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/../000",
            "Tile/0/000",
            "tile/0/٠٠١",
        ];
        for text in wrong {
            let error = text.parse::<TilePath>().unwrap_err();
            assert!(matches!(&error, TileError::Path { path } if path == text), "{text:?}: {error}");
        }
        let long = format!("tile/0/{}", "x001/".repeat(100_000));
        assert!(long.parse::<TilePath>().unwrap_err().to_string().len() < 256);
    }

    #[test]
    fn a_tile_is_as_long_as_its_name_says() {
        let path: TilePath = "tile/0/000.p/2".parse().unwrap();
        let bytes = [7; 64];
        assert_eq!(Tile::parse(path, &bytes).unwrap().to_bytes(), bytes);
        for wrong in [0, 32, 63, 65, 96] {
            let error = Tile::parse(path, &vec![7; wrong]).unwrap_err();
            assert_eq!(error.to_string(), format!("tile \"tile/0/000.p/2\" has {wrong} bytes, but 64 by its name"));
        }
        assert!(Tile::parse(path.to_full(), &[7; TILE_BYTES_MAX]).is_ok());
    }

    #[test]
    fn levels_and_widths_out_of_bounds_are_refused() {
        assert!(matches!(TilePath::new(64, 0, 1), Err(TileError::Level { level: 64 })));
        for width in [0, 257] {
            assert!(matches!(TilePath::new(0, 0, width), Err(TileError::Width { .. })));
        }
    }
}
