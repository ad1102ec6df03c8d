//! The right edge of the tree: all that must be in memory to go on appending, whatever lies to the left.
//! One hash for each complete subtree along the edge, and the hashes of the tiles that are not full yet: at most
//! 63 + 8 · 255 hashes (66 KiB) for the largest tree there can be. Each node of the tree is hashed once.

use super::hash::{TREE_SIZE_MAX, TreeHash, TreeHead};
use super::tile::{TILE_HASHES_MAX, TILE_HEIGHT, Tile, TileError, TileReader, Tiles, fold};

/// An append-only tree, as far as appending needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// Roots of complete subtrees, the largest first: one for each bit that is set in `size`.
    edge: Vec<TreeHash>,
    /// By level: the hashes of the tile that is not full yet.
    open: Vec<Vec<TreeHash>>,
}

impl Frontier {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frontier as it was when the tree had this head: a restart. Reads one tile of each level. Fails unless the
    /// tiles lead to the head's root, so that a log never goes on from an edge that was altered.
    pub fn restore<R: TileReader>(head: &TreeHead, reader: &R) -> Result<Self, FrontierError> {
        let mut tiles = Tiles::open(head, reader)?;
        let (size, edge) = (head.size(), tiles.edge()?);
        let mut open = Vec::new();
        let mut in_level = size;
        while in_level > 0 {
            let index = in_level / u64::from(TILE_HASHES_MAX);
            let partial = in_level % u64::from(TILE_HASHES_MAX) > 0;
            let level = u8::try_from(open.len()).unwrap_or(u8::MAX);
            open.push(if partial { tiles.hashes(level, index)?.to_vec() } else { Vec::new() });
            in_level = index;
        }
        Ok(Self { size, edge, open })
    }

    /// Takes the next leaf. Gives the tiles that became full with it, to be written once and never again: one for
    /// every 256 leaves, and with every 65,536th one of the next level, and so on.
    pub fn append(&mut self, leaf: TreeHash) -> Result<Vec<Tile>, FrontierError> {
        if self.size >= TREE_SIZE_MAX {
            return Err(FrontierError::Full);
        }
        let mut full = Vec::new();
        let mut hash = leaf;
        let mut height = 0;
        full.extend(self.collect(height, hash));
        // As in counting: every bit that is set is carried, and what it stood for becomes the left neighbour.
        while (self.size >> height) % 2 == 1
            && let Some(left) = self.edge.pop()
        {
            hash = TreeHash::of_node(&left, &hash);
            height += 1;
            if height % TILE_HEIGHT == 0 {
                full.extend(self.collect(height, hash));
            }
        }
        self.edge.push(hash);
        self.size += 1;
        Ok(full)
    }

    /// Puts the root of a subtree into the tile of its level; gives the tile if that filled it.
    fn collect(&mut self, height: u32, hash: TreeHash) -> Option<Tile> {
        let level = usize::try_from(height / TILE_HEIGHT).unwrap_or(usize::MAX);
        while self.open.len() <= level {
            self.open.push(Vec::new());
        }
        let open = self.open.get_mut(level)?;
        open.push(hash);
        if open.len() < usize::from(TILE_HASHES_MAX) {
            return None;
        }
        let hashes = std::mem::take(open);
        Some(Tile::of(narrow(level), self.tile_index(level), hashes))
    }

    /// Where the leaf that comes next lies in the tiles of a level.
    fn tile_index(&self, level: usize) -> u64 {
        let height = TILE_HEIGHT * (u32::from(narrow(level)) + 1);
        self.size.checked_shr(height).unwrap_or(0)
    }

    /// The partial tiles of this size, at most one of each level: to be written with a checkpoint of it. What has the
    /// name of a tile given out earlier has its bytes too.
    pub fn partial_tiles(&self) -> Vec<Tile> {
        let levels = self.open.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty());
        levels.map(|(level, hashes)| Tile::of(narrow(level), self.tile_index(level), hashes.clone())).collect()
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn root(&self) -> TreeHash {
        fold(&self.edge)
    }

    pub fn head(&self) -> TreeHead {
        TreeHead::of(self.size, self.root())
    }
}

fn narrow(level: usize) -> u8 {
    u8::try_from(level).unwrap_or(u8::MAX)
}

#[derive(Debug, thiserror::Error)]
pub enum FrontierError {
    #[error("log has {TREE_SIZE_MAX} records, which is the limit; begin a new one")]
    Full,
    #[error(
        "tiles of the tree of size {size} lead to the root {found}, but the checkpoint says {root}; restore the tiles from a copy, or compute them again from the log"
    )]
    OtherRoot { size: u64, root: TreeHash, found: TreeHash },
    #[error(transparent)]
    Tile(#[from] TileError),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::time::Instant;

    use super::super::hash::leaf_hash;
    use super::super::tile::TilePath;
    use super::*;

    #[derive(Default)]
    struct Files(BTreeMap<TilePath, Vec<u8>>);

    impl Files {
        fn write(&mut self, tiles: Vec<Tile>) {
            for tile in tiles {
                let bytes = tile.to_bytes();
                let before = self.0.insert(*tile.path(), bytes.clone());
                assert!(before.is_none_or(|before| before == bytes), "{} changed", tile.path());
            }
        }
    }

    impl TileReader for Files {
        fn read(&self, path: &TilePath) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.get(path).cloned())
        }
    }

    fn leaf(index: u64) -> TreeHash {
        leaf_hash(format!("{{\"seq\":{index}}}").as_bytes())
    }

    fn names(tiles: &[Tile]) -> Vec<String> {
        tiles.iter().map(|tile| tile.path().to_string()).collect()
    }

    /// The definition of RFC 6962, word for word.
    fn root_of(leaves: &[TreeHash]) -> TreeHash {
        match leaves {
            [] => TreeHash::of_nothing(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                TreeHash::of_node(&root_of(left), &root_of(right))
            }
        }
    }

    // Both sizes are the specification's own examples.
    #[test]
    fn the_tiles_are_those_the_specification_counts() {
        let mut frontier = Frontier::new();
        let mut full = Vec::new();
        for index in 0..256 {
            full.extend(frontier.append(leaf(index)).unwrap());
        }
        assert_eq!(names(&full), ["tile/0/000"]);
        assert_eq!(names(&frontier.partial_tiles()), ["tile/1/000.p/1"]);
        for index in 256..70_000 {
            full.extend(frontier.append(leaf(index)).unwrap());
        }
        let of_level = |level| full.iter().filter(|tile| tile.path().level() == level).count();
        assert_eq!((of_level(0), of_level(1), full.len()), (273, 1, 274));
        assert!(full.iter().all(|tile| tile.path().is_full() && tile.hashes().len() == 256));
        let partial = ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"];
        assert_eq!(names(&frontier.partial_tiles()), partial);
    }

    #[test]
    fn a_restart_at_any_size_goes_on_from_the_same_edge() {
        let mut frontier = Frontier::new();
        let mut files = Files::default();
        assert_eq!(Frontier::restore(&TreeHead::empty(), &files).unwrap(), frontier);
        let edges = 65_500..65_800;
        for index in 0..edges.end {
            files.write(frontier.append(leaf(index)).unwrap());
            if index < 800 || edges.contains(&index) {
                files.write(frontier.partial_tiles());
                assert_eq!(Frontier::restore(&frontier.head(), &files).unwrap(), frontier, "size {}", frontier.size());
            }
        }
    }

    #[test]
    fn a_restart_does_with_the_full_tile_where_the_partial_one_was_deleted() {
        let mut frontier = Frontier::new();
        let mut files = Files::default();
        let mut then = frontier.clone();
        for index in 0..300 {
            files.write(frontier.append(leaf(index)).unwrap());
            if frontier.size() == 100 {
                then = frontier.clone();
            }
        }
        assert!(files.0.keys().all(TilePath::is_full));
        assert_eq!(Frontier::restore(&then.head(), &files).unwrap(), then);
    }

    #[test]
    fn a_restart_from_other_tiles_than_the_checkpoints_is_refused() {
        let mut frontier = Frontier::new();
        let mut files = Files::default();
        for index in 0..600 {
            files.write(frontier.append(leaf(index)).unwrap());
        }
        files.write(frontier.partial_tiles());
        let head = frontier.head();
        let read: Vec<TilePath> = frontier.partial_tiles().iter().map(|tile| *tile.path()).collect();
        for path in read {
            let whole = files.0.get(&path).unwrap().clone();
            for at in 0..whole.len() {
                files.0.get_mut(&path).unwrap()[at] ^= 0x10;
                let error = Frontier::restore(&head, &files).unwrap_err();
                assert!(matches!(error, FrontierError::Tile(TileError::OtherRoot { size: 600, .. })), "{error}");
                files.0.get_mut(&path).unwrap()[at] ^= 0x10;
            }
            files.0.insert(path, whole[1..].to_vec());
            assert!(matches!(Frontier::restore(&head, &files), Err(FrontierError::Tile(TileError::Length { .. }))));
            files.0.remove(&path);
            assert!(matches!(Frontier::restore(&head, &files), Err(FrontierError::Tile(TileError::Missing { .. }))));
            files.0.insert(path, whole);
        }
        assert_eq!(Frontier::restore(&head, &files).unwrap(), frontier);
        // A head of which there are no tiles at all.
        let beyond = TreeHead::new(TREE_SIZE_MAX, leaf(0)).unwrap();
        assert!(matches!(Frontier::restore(&beyond, &files), Err(FrontierError::Tile(TileError::Missing { .. }))));
    }

    #[test]
    fn a_reader_that_fails_is_not_a_missing_tile() {
        struct Broken;
        impl TileReader for Broken {
            fn read(&self, _: &TilePath) -> io::Result<Option<Vec<u8>>> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let mut frontier = Frontier::new();
        frontier.append(leaf(0)).unwrap();
        let error = Frontier::restore(&frontier.head(), &Broken).unwrap_err();
        assert_eq!(crate::chain(&error), "could not read tile \"tile/0/000.p/1\": the disk is gone");
    }

    #[test]
    fn a_million_leaves_leave_a_bounded_edge_behind() {
        const LEAVES: u64 = 1_000_000;
        let leaves: Vec<TreeHash> = (0..LEAVES).map(leaf).collect();
        let mut frontier = Frontier::new();
        let begun = Instant::now();
        let (mut held_max, mut tiles) = (0, 0);
        for leaf in &leaves {
            tiles += frontier.append(*leaf).unwrap().len();
            held_max = held_max.max(frontier.edge.len() + frontier.open.iter().map(Vec::len).sum::<usize>());
        }
        println!("{LEAVES} leaves in {:?}, {held_max} hashes held at most", begun.elapsed());
        assert!(held_max <= 3 * 255 + 20, "{held_max}");
        assert_eq!(tiles, 3906 + 15);
        assert_eq!(frontier.head(), TreeHead::new(LEAVES, root_of(&leaves)).unwrap());
    }

    #[test]
    fn a_full_log_takes_no_more() {
        let mut full = Frontier { size: TREE_SIZE_MAX, ..Frontier::default() };
        assert!(matches!(full.append(leaf(0)), Err(FrontierError::Full)));
        assert_eq!(full.size(), TREE_SIZE_MAX);
    }
}
