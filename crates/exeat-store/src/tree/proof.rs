//! Proofs and their verdicts: that a record is in a tree, and that a newer tree has all of an older one in its place.
//! RFC 6962, sections 2.1.1 and 2.1.2, say what a proof holds; RFC 9162, sections 2.1.3.2 and 2.1.4.2
//! (<https://www.rfc-editor.org/rfc/rfc9162.html#section-2.1.3.2>), how to check one, step by step. The check shares
//! no code with what computes proofs.
//! A proof speaks of the size and the root it is checked against, and of no others: both come from a checkpoint whose
//! signature was verified, or the verdict means nothing.

use super::hash::{TREE_SIZE_MAX, TreeHash, TreeHead};

/// Hashes in the longest proof: one for each level of the largest tree, and the one that a consistency proof begins
/// with.
pub const PROOF_HASHES_MAX: usize = 64;

/// That a leaf is at one place of a tree: the neighbours on the way from the leaf to the root, the leaf's own first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof(Vec<TreeHash>);

impl InclusionProof {
    pub fn from_hashes(hashes: Vec<TreeHash>) -> Result<Self, ProofError> {
        bounded(hashes).map(Self)
    }

    pub fn hashes(&self) -> &[TreeHash] {
        &self.0
    }

    /// Whether `leaf` is the hash of record `index`, counted from 0, in the tree of this head.
    pub fn verify(&self, leaf: &TreeHash, index: u64, head: &TreeHead) -> Result<(), ProofError> {
        let size = head.size();
        if index >= size {
            return Err(ProofError::BeyondTree { index, size });
        }
        let mut walk = Walk { node: index, last: size - 1 };
        let mut root = *leaf;
        for neighbour in &self.0 {
            root = match walk.step().ok_or(ProofError::TooLong { hashes: self.0.len() })? {
                Side::Left => TreeHash::of_node(neighbour, &root),
                Side::Right => TreeHash::of_node(&root, neighbour),
            };
        }
        if !walk.at_root() {
            return Err(ProofError::TooShort { hashes: self.0.len() });
        }
        if root != *head.root() {
            return Err(ProofError::NotIncluded { index, size, root: *head.root(), found: root });
        }
        Ok(())
    }
}

/// That a tree begins with all the leaves of an older one, unaltered and in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof(Vec<TreeHash>);

impl ConsistencyProof {
    pub fn from_hashes(hashes: Vec<TreeHash>) -> Result<Self, ProofError> {
        bounded(hashes).map(Self)
    }

    pub fn hashes(&self) -> &[TreeHash] {
        &self.0
    }

    /// Whether the tree of head `newer` is the one of head `older` with nothing but leaves appended. Between equal
    /// sizes, and from the empty tree, there is nothing to prove and the proof is empty.
    pub fn verify(&self, older: &TreeHead, newer: &TreeHead) -> Result<(), ProofError> {
        if older.size() > newer.size() {
            return Err(ProofError::Shrunk { older: older.size(), newer: newer.size() });
        }
        if older.size() == newer.size() && older.root() != newer.root() {
            let size = older.size();
            return Err(ProofError::Forked { size, older: *older.root(), newer: *newer.root() });
        }
        if older.size() == newer.size() || older.size() == 0 {
            return if self.0.is_empty() { Ok(()) } else { Err(ProofError::TooLong { hashes: self.0.len() }) };
        }
        self.verify_growth(older, newer)
    }

    fn verify_growth(&self, older: &TreeHead, newer: &TreeHead) -> Result<(), ProofError> {
        let mut walk = Walk { node: older.size() - 1, last: newer.size() - 1 };
        // Up to the largest subtree that ends where the older tree ends: it is in both trees.
        walk.climb(walk.node.trailing_ones());
        let mut hashes = self.0.iter();
        // The older tree may be that subtree; its root is known and not part of the proof.
        let common = if older.size().is_power_of_two() { Some(older.root()) } else { hashes.next() };
        let common = *common.ok_or(ProofError::TooShort { hashes: 0 })?;
        let (mut older_root, mut newer_root) = (common, common);
        for neighbour in hashes {
            match walk.step().ok_or(ProofError::TooLong { hashes: self.0.len() })? {
                Side::Left => {
                    older_root = TreeHash::of_node(neighbour, &older_root);
                    newer_root = TreeHash::of_node(neighbour, &newer_root);
                }
                Side::Right => newer_root = TreeHash::of_node(&newer_root, neighbour),
            }
        }
        if !walk.at_root() {
            return Err(ProofError::TooShort { hashes: self.0.len() });
        }
        if older_root != *older.root() {
            return Err(ProofError::NotOlder { size: older.size(), root: *older.root(), found: older_root });
        }
        if newer_root != *newer.root() {
            return Err(ProofError::NotNewer { size: newer.size(), root: *newer.root(), found: newer_root });
        }
        Ok(())
    }
}

fn bounded(hashes: Vec<TreeHash>) -> Result<Vec<TreeHash>, ProofError> {
    if hashes.len() > PROOF_HASHES_MAX {
        return Err(ProofError::TooLong { hashes: hashes.len() });
    }
    Ok(hashes)
}

/// Where the neighbour stands.
enum Side {
    Left,
    Right,
}

/// The way from a node up to the root, by the bits of its place in the row and of the last place there.
struct Walk {
    node: u64,
    last: u64,
}

impl Walk {
    /// Which side the next neighbour stands on; `None` at the root, which has none.
    fn step(&mut self) -> Option<Side> {
        if self.at_root() {
            return None;
        }
        let left = self.node % 2 == 1 || self.node == self.last;
        if self.node.is_multiple_of(2) && left {
            // The last node of an uneven row has no neighbour: it moves up as it is, until it has one.
            self.climb(self.node.trailing_zeros());
        }
        self.climb(1);
        Some(if left { Side::Left } else { Side::Right })
    }

    fn climb(&mut self, rows: u32) {
        self.node = self.node.checked_shr(rows).unwrap_or(0);
        self.last = self.last.checked_shr(rows).unwrap_or(0);
    }

    fn at_root(&self) -> bool {
        self.last == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("record {index} is not in a log of size {size}: its last record is {last}", last = last_of(*size))]
    BeyondTree { index: u64, size: u64 },
    #[error("proof of {hashes} hashes is longer than any for these sizes")]
    TooLong { hashes: usize },
    #[error("proof of {hashes} hashes is shorter than any for these sizes")]
    TooShort { hashes: usize },
    #[error(
        "record {index} is not in the log as the checkpoint of size {size} has it: record and proof lead to the root {found}, the checkpoint says {root}"
    )]
    NotIncluded { index: u64, size: u64, root: TreeHash, found: TreeHash },
    #[error(
        "checkpoint of size {newer} is older than the checkpoint of size {older}: records were cut off, or the two were given in the wrong order"
    )]
    Shrunk { older: u64, newer: u64 },
    #[error("two checkpoints of size {size} have different roots, {older} and {newer}: the log was forked")]
    Forked { size: u64, older: TreeHash, newer: TreeHash },
    #[error(
        "proof does not begin with the checkpoint of size {size}: it leads to the root {found}, the checkpoint says {root}"
    )]
    NotOlder { size: u64, root: TreeHash, found: TreeHash },
    #[error(
        "proof does not end with the checkpoint of size {size}: it leads to the root {found}, the checkpoint says {root}"
    )]
    NotNewer { size: u64, root: TreeHash, found: TreeHash },
}

fn last_of(size: u64) -> String {
    match size.min(TREE_SIZE_MAX).checked_sub(1) {
        Some(last) => last.to_string(),
        None => "none".to_owned(),
    }
}
