//! The tamper-evident log, its pure half: from lines to a Merkle tree, from the tree to tiles, proofs and signed
//! checkpoints, and back to a verdict an auditor can repeat with other tools.
//! Nothing here opens a file, looks at a clock or makes a key: lines, tiles, notes and keys are handed in, and the
//! same input gives the same output forever. Everything read from outside is refused unless it is written exactly as
//! the specifications say; no function panics on it.
//!
//! - leaves, nodes, proofs: RFC 6962, <https://www.rfc-editor.org/rfc/rfc6962.html#section-2.1>, with SHA-256
//! - tiles: <https://c2sp.org/tlog-tiles>
//! - signed notes and keys: <https://c2sp.org/signed-note>, Ed25519
//! - checkpoints: <https://c2sp.org/tlog-checkpoint>
//! - proofs as files: <https://c2sp.org/tlog-proof>

mod checkpoint;
mod frontier;
mod hash;
mod key;
mod log_proof;
mod memory;
mod note;
mod proof;
mod prove;
mod tile;

pub use checkpoint::{Checkpoint, CheckpointError, ORIGIN_BYTES_MAX};
pub use frontier::{Frontier, FrontierError};
pub use hash::{HASH_BYTES, HeadError, TREE_SIZE_MAX, TreeHash, TreeHead, leaf_hash};
pub use key::{KEY_NAME_BYTES_MAX, KeyError, KeyId, KeyName, SigningKey, VerifierKey};
pub use log_proof::{LOG_PROOF_BYTES_MAX, LogProof, LogProofError, Proven};
pub use memory::{SignError, SignerMemory};
pub use note::{NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX, Note, NoteError, NoteSignature, VerifiedNote};
pub use proof::{ConsistencyProof, InclusionProof, PROOF_HASHES_MAX, ProofError};
pub use prove::{ProveError, Prover};
pub use tile::{TILE_BYTES_MAX, TILE_HASHES_MAX, Tile, TileError, TilePath, TileReader};
