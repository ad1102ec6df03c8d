//! Hashes of the tree, and the two numbers that stand for all of it: how many leaves, and the root over them.
//! RFC 6962, section 2.1: a leaf is hashed behind a byte 0x00 and a node behind 0x01, so that no line of the log can
//! pass for a node of the tree.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, Digest, SHA256, digest};

pub const HASH_BYTES: usize = 32;

/// Leaves in one tree, at most: every other implementation counts them in a signed 64-bit number.
pub const TREE_SIZE_MAX: u64 = u64::MAX >> 1;

/// SHA-256 of a leaf, of a node, or of nothing. Shown in base64, as checkpoints write it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeHash([u8; HASH_BYTES]);

impl TreeHash {
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// The root of a tree without leaves: SHA-256 of no bytes.
    pub fn of_nothing() -> Self {
        Self::from_digest(digest(&SHA256, &[]))
    }

    /// SHA-256(0x01 ‖ left ‖ right).
    pub(super) fn of_node(left: &Self, right: &Self) -> Self {
        let mut bytes = [1; 1 + 2 * HASH_BYTES];
        for (to, from) in bytes.iter_mut().skip(1).zip(left.0.iter().chain(&right.0)) {
            *to = *from;
        }
        Self::from_digest(digest(&SHA256, &bytes))
    }

    /// Standard base64 with its padding, exactly 44 characters.
    pub(super) fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    fn from_digest(digest: Digest) -> Self {
        let mut bytes = [0; HASH_BYTES];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeHash({self})")
    }
}

/// SHA-256(0x00 ‖ line): the leaf of one line of the log. The line comes without the LF that ends it.
pub fn leaf_hash(line: &[u8]) -> TreeHash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(line);
    TreeHash::from_digest(context.finish())
}

/// The state of a tree: its number of leaves and its root. Two trees of one size and one root are the same tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    size: u64,
    root: TreeHash,
}

impl TreeHead {
    /// Fails if no tree can have this size and root.
    pub fn new(size: u64, root: TreeHash) -> Result<Self, HeadError> {
        if size > TREE_SIZE_MAX {
            return Err(HeadError::TooLarge { size });
        }
        if size == 0 && root != TreeHash::of_nothing() {
            return Err(HeadError::RootOfNothing { root });
        }
        Ok(Self { size, root })
    }

    /// INVARIANT: a size within the limit and the root of a tree of that size; kept by the frontier, the only caller.
    pub(super) fn of(size: u64, root: TreeHash) -> Self {
        Self { size, root }
    }

    /// Before the first leaf.
    pub fn empty() -> Self {
        Self { size: 0, root: TreeHash::of_nothing() }
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn root(&self) -> &TreeHash {
        &self.root
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("tree size of {size} leaves exceeds the limit of {TREE_SIZE_MAX}")]
    TooLarge { size: u64 },
    #[error(
        "tree of size 0 is given the root {root}, but a tree without leaves has the root {}",
        TreeHash::of_nothing()
    )]
    RootOfNothing { root: TreeHash },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    fn hex_of(hash: &TreeHash) -> String {
        hex::text(hash.as_bytes())
    }

    // The constants every implementation of RFC 6962 agrees on.
    #[test]
    fn nothing_leaf_and_node_hash_as_the_rfc_says() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex_of(&TreeHash::of_nothing()), nothing);
        let empty_leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(hex_of(&leaf_hash(b"")), empty_leaf);
        let pair = TreeHash::of_node(&leaf_hash(b""), &leaf_hash(&[0]));
        assert_eq!(hex_of(&pair), "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
    }

    #[test]
    fn a_line_that_looks_like_a_node_does_not_hash_like_one() {
        let (left, right) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let line = [left.as_bytes().as_slice(), right.as_bytes()].concat();
        assert_ne!(leaf_hash(&line), TreeHash::of_node(&left, &right));
    }

    #[test]
    fn base64_is_read_back_and_read_strictly() {
        let hash = leaf_hash(b"a");
        let text = hash.to_string();
        assert_eq!(text.len(), 44);
        assert_eq!(TreeHash::from_base64(&text), Some(hash));
        let unpadded = text.trim_end_matches('=').to_owned();
        let longer = STANDARD.encode([7; 33]);
        let shorter = STANDARD.encode([7; 31]);
        // The last digit before the padding carries two bits that nobody reads: they must be zero.
        let loose = format!("{}B=", "A".repeat(42));
        for wrong in [unpadded, longer, shorter, loose, format!("{text} "), String::new()] {
            assert_eq!(TreeHash::from_base64(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn heads_that_no_tree_can_have_are_refused() {
        let some = leaf_hash(b"a");
        assert_eq!(TreeHead::new(0, TreeHash::of_nothing()), Ok(TreeHead::empty()));
        assert_eq!(TreeHead::new(0, some), Err(HeadError::RootOfNothing { root: some }));
        assert!(TreeHead::new(TREE_SIZE_MAX, some).is_ok());
        let size = TREE_SIZE_MAX + 1;
        assert_eq!(TreeHead::new(size, some), Err(HeadError::TooLarge { size }));
    }
}
