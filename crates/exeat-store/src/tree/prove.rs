//! Proofs computed from tiles: the splits of RFC 6962, section 2.1, with every subtree's root taken from the tile
//! that has it, so that a proof in a log of ten million records reads a handful of files.
//! Gives out no proof that does not verify against the head it was asked for: a damaged tile is an error here, not a
//! surprise for the auditor.

use super::hash::{TreeHash, TreeHead};
use super::proof::{ConsistencyProof, InclusionProof, ProofError};
use super::tile::{TILE_HASHES_MAX, TileError, TileReader, Tiles};

/// Proofs in the tree of one head. The tiles of that size must be there, partial or full.
#[derive(Debug)]
pub struct Prover<'r, R> {
    head: TreeHead,
    tiles: Tiles<'r, R>,
}

impl<'r, R: TileReader> Prover<'r, R> {
    /// Fails unless the tiles lead to the head's root.
    pub fn open(head: TreeHead, reader: &'r R) -> Result<Self, ProveError> {
        Ok(Self { head, tiles: Tiles::open(&head, reader)? })
    }

    /// The hash of record `index`, counted from 0, as the tiles have it.
    pub fn leaf(&mut self, index: u64) -> Result<TreeHash, ProveError> {
        self.within(index)?;
        let tile = u64::from(TILE_HASHES_MAX);
        let hashes = self.tiles.hashes(0, index / tile)?;
        let found = usize::try_from(index % tile).ok().and_then(|place| hashes.get(place));
        found.copied().ok_or(ProveError::BeyondTree { index, size: self.head.size() })
    }

    /// That record `index`, counted from 0, is in the tree.
    pub fn inclusion(&mut self, index: u64) -> Result<InclusionProof, ProveError> {
        self.within(index)?;
        let mut path = Vec::new();
        let (mut start, mut end) = (0, self.head.size());
        while end - start > 1 {
            let middle = split(start, end);
            if index < middle {
                path.push(self.tiles.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.tiles.range(start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        let proof = InclusionProof::from_hashes(path).map_err(|source| self.contradiction(source))?;
        let leaf = self.leaf(index)?;
        proof.verify(&leaf, index, &self.head).map_err(|source| self.contradiction(source))?;
        Ok(proof)
    }

    /// That the tree of head `older` is the beginning of this one.
    pub fn consistency(&mut self, older: &TreeHead) -> Result<ConsistencyProof, ProveError> {
        let (before, after) = (older.size(), self.head.size());
        if before > after {
            return Err(ProveError::Shrunk { before, after });
        }
        let found = self.tiles.range(0, before)?;
        if found != *older.root() {
            return Err(ProveError::NotExtended { before, after, root: *older.root(), found });
        }
        let mut path = Vec::new();
        if before > 0 {
            self.subproof(before, &mut path)?;
        }
        let proof = ConsistencyProof::from_hashes(path).map_err(|source| self.contradiction(source))?;
        proof.verify(older, &self.head).map_err(|source| self.contradiction(source))?;
        Ok(proof)
    }

    /// SUBPROOF of RFC 6962, section 2.1.2, from the leaf's end.
    fn subproof(&mut self, before: u64, path: &mut Vec<TreeHash>) -> Result<(), ProveError> {
        let (mut start, mut end) = (0, self.head.size());
        while before != end {
            let middle = split(start, end);
            if before <= middle {
                path.push(self.tiles.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.tiles.range(start, middle)?);
                start = middle;
            }
        }
        // Where nothing was left behind, the rest is the older tree itself, whose root the verifier has.
        if start > 0 {
            path.push(self.tiles.range(start, end)?);
        }
        path.reverse();
        Ok(())
    }

    fn within(&self, index: u64) -> Result<(), ProveError> {
        let size = self.head.size();
        if index < size { Ok(()) } else { Err(ProveError::BeyondTree { index, size }) }
    }

    fn contradiction(&self, source: ProofError) -> ProveError {
        ProveError::Contradiction { size: self.head.size(), source }
    }
}

/// Where RFC 6962 splits the leaves from `start` to before `end`, of which there are two or more: the left part has
/// the greatest power of two that is less than all.
fn split(start: u64, end: u64) -> u64 {
    start + (1 << (end - start - 1).ilog2())
}

#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error("record {index} is not in a log of size {size}")]
    BeyondTree { index: u64, size: u64 },
    #[error(
        "checkpoint of size {after} is older than the checkpoint of size {before}: records were cut off, or the two were given in the wrong order"
    )]
    Shrunk { before: u64, after: u64 },
    #[error(
        "log of size {after} does not begin with the checkpoint of size {before}: its first {before} records have the root {found}, the checkpoint says {root}"
    )]
    NotExtended { before: u64, after: u64, root: TreeHash, found: TreeHash },
    #[error(
        "tiles contradict the checkpoint of size {size}; restore them from a copy, or compute them again from the log"
    )]
    Contradiction { size: u64, source: ProofError },
    #[error(transparent)]
    Tile(#[from] TileError),
}
