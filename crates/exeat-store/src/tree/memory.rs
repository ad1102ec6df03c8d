//! The signer's memory: the last checkpoint it signed, and the refusal to sign any that contradicts it.
//! It is what keeps a log that was rolled back, or altered behind the gateway's back, from being signed again as if
//! nothing had happened. A memory that is lost protects no longer: whoever keeps it must store it before the note
//! leaves, and must not start an empty one for a log that has records.

use super::checkpoint::{Checkpoint, CheckpointError};
use super::hash::TreeHead;
use super::key::SigningKey;
use super::note::{Note, NoteError};
use super::proof::{ConsistencyProof, ProofError};

const KEY_WORD: &str = "key ";

/// What was signed last of one log. Stored as text: `text` and `parse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerMemory {
    last: Checkpoint,
    /// How many keys there were before the one that signs.
    key: u64,
}

impl SignerMemory {
    /// For a log that has no record yet, and the number of the key that is to sign it.
    pub fn new(origin: &str, key: u64) -> Result<Self, CheckpointError> {
        Ok(Self { last: Checkpoint::new(origin, TreeHead::empty())?, key })
    }

    /// Reads what `text` wrote.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let read = Checkpoint::parse(text)?;
        let key = match read.extensions() {
            [] => 0,
            [key] => read_key(key).ok_or_else(|| CheckpointError::KeyNumber { line: key.clone() })?,
            [_, other, ..] => return Err(CheckpointError::KeyNumber { line: other.clone() }),
        };
        Ok(Self { last: Checkpoint::new(read.origin(), *read.head())?, key })
    }

    /// Three lines: origin, size, root; and the number of the key, if it is not the first.
    pub fn text(&self) -> String {
        match self.key {
            0 => self.last.to_string(),
            key => format!("{}{KEY_WORD}{key}\n", self.last),
        }
    }

    /// The number of the key that signs.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// From now on the next key signs. The caller has had both sign.
    pub fn hand_over(&mut self) {
        self.key = self.key.saturating_add(1);
    }

    /// What was signed last; size 0 if nothing was.
    pub fn last(&self) -> &TreeHead {
        self.last.head()
    }

    /// Signs a checkpoint that `proof` shows to extend the last one, and remembers it. The same size and root may be
    /// signed again, by other keys for instance. After a refusal the memory is as it was.
    /// The caller stores the memory before it lets anybody see the note.
    pub fn sign(
        &mut self,
        checkpoint: &Checkpoint,
        proof: &ConsistencyProof,
        keys: &[&SigningKey],
    ) -> Result<Note, SignError> {
        if checkpoint.origin() != self.last.origin() {
            let (expected, found) = (self.last.origin().to_owned(), checkpoint.origin().to_owned());
            return Err(SignError::OtherOrigin { expected, found });
        }
        proof.verify(self.last.head(), checkpoint.head()).map_err(|source| match source {
            ProofError::Shrunk { older, newer } => SignError::Shrunk { older, newer },
            ProofError::Forked { size, older, newer } => SignError::Forked { size, older, newer },
            source @ (ProofError::BeyondTree { .. }
            | ProofError::TooLong { .. }
            | ProofError::TooShort { .. }
            | ProofError::NotIncluded { .. }
            | ProofError::NotOlder { .. }
            | ProofError::NotNewer { .. }) => {
                SignError::NotExtended { older: self.last().size(), newer: checkpoint.head().size(), source }
            }
        })?;
        let note = Note::sign(&checkpoint.to_string(), keys)?;
        self.last = Checkpoint::new(checkpoint.origin(), *checkpoint.head())?;
        Ok(note)
    }
}

fn read_key(line: &str) -> Option<u64> {
    let number = line.strip_prefix(KEY_WORD)?;
    number.parse().ok().filter(|key: &u64| *key > 0 && key.to_string() == number)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error(
        "checkpoint of size {newer} is older than the last one signed, of size {older}: records were cut off, or an old copy of the log was put back; restore the log"
    )]
    Shrunk { older: u64, newer: u64 },
    #[error(
        "checkpoint of size {size} has the root {newer}, but the one signed before had {older}: the log was altered; restore it from a copy"
    )]
    Forked { size: u64, older: super::TreeHash, newer: super::TreeHash },
    #[error("checkpoint of size {newer} is not shown to extend the last one signed, of size {older}")]
    NotExtended { older: u64, newer: u64, source: ProofError },
    #[error("checkpoint is of the log {found:?}, but this signer signs for {expected:?}")]
    OtherOrigin { expected: String, found: String },
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;

    use super::super::{Frontier, Prover, Tile, TilePath, TileReader, TreeHash, leaf_hash};
    use super::*;

    const ORIGIN: &str = "gateway.example/log";

    #[derive(Default)]
    struct Files(BTreeMap<TilePath, Vec<u8>>);

    impl TileReader for Files {
        fn read(&self, path: &TilePath) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.get(path).cloned())
        }
    }

    /// A log whose records begin with the same `common` ones, whoever writes the rest.
    struct Log {
        files: Files,
        heads: Vec<TreeHead>,
    }

    impl Log {
        fn new(size: u64, common: u64, writer: &str) -> Self {
            let (mut frontier, mut files) = (Frontier::new(), Files::default());
            let mut heads = vec![frontier.head()];
            for index in 0..size {
                let writer = if index < common { "both" } else { writer };
                let full = frontier.append(leaf_hash(format!("{writer} {index}").as_bytes())).unwrap();
                let tiles: Vec<Tile> = full.into_iter().chain(frontier.partial_tiles()).collect();
                files.0.extend(tiles.iter().map(|tile| (*tile.path(), tile.to_bytes())));
                heads.push(frontier.head());
            }
            Self { files, heads }
        }

        fn proof(&self, older: usize, newer: usize) -> ConsistencyProof {
            let mut prover = Prover::open(self.heads[newer], &self.files).unwrap();
            prover.consistency(&self.heads[older]).unwrap()
        }

        fn checkpoint(&self, size: usize) -> Checkpoint {
            Checkpoint::new(ORIGIN, self.heads[size]).unwrap()
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(ORIGIN.parse().unwrap(), &[seed; 32]).unwrap()
    }

    fn empty() -> ConsistencyProof {
        ConsistencyProof::from_hashes(Vec::new()).unwrap()
    }

    #[test]
    fn a_log_that_grows_is_signed_at_every_size_and_across_restarts() {
        let (log, key) = (Log::new(40, 0, "we"), key(1));
        let mut memory = SignerMemory::new(ORIGIN, 0).unwrap();
        for (older, newer) in [(0, 0), (0, 1), (1, 2), (2, 7), (7, 8), (8, 8), (8, 33), (33, 40)] {
            let checkpoint = log.checkpoint(newer);
            let note = memory.sign(&checkpoint, &log.proof(older, newer), &[&key]).unwrap().to_string();
            assert_eq!(Checkpoint::open(note.as_bytes(), ORIGIN, &[key.verifier().clone()]), Ok(checkpoint));
            assert_eq!(memory.last(), &log.heads[newer]);
            assert_eq!(SignerMemory::parse(&memory.text()).unwrap(), memory);
            memory = SignerMemory::parse(&memory.text()).unwrap();
        }
    }

    #[test]
    fn nothing_that_contradicts_what_was_signed_is_signed() {
        let (ours, theirs, key) = (Log::new(40, 20, "we"), Log::new(40, 20, "they"), key(1));
        let mut memory = SignerMemory::new(ORIGIN, 0).unwrap();
        memory.sign(&ours.checkpoint(30), &empty(), &[&key]).unwrap();
        let before = memory.clone();
        let mut refused = |checkpoint: &Checkpoint, proof: &ConsistencyProof| {
            let error = memory.sign(checkpoint, proof, &[&key]).unwrap_err();
            assert_eq!(memory, before);
            error
        };
        let shrunk = refused(&ours.checkpoint(12), &ours.proof(12, 30));
        assert_eq!(shrunk, SignError::Shrunk { older: 30, newer: 12 });
        assert!(shrunk.to_string().starts_with("checkpoint of size 12 is older than the last one signed, of size 30"));
        assert_eq!(refused(&ours.checkpoint(0), &empty()), SignError::Shrunk { older: 30, newer: 0 });
        let forked = refused(&theirs.checkpoint(30), &empty());
        assert!(matches!(forked, SignError::Forked { size: 30, .. }), "{forked}");
        for proof in [theirs.proof(30, 40), ours.proof(30, 40), theirs.proof(20, 40), empty()] {
            let extended = refused(&theirs.checkpoint(40), &proof);
            assert!(matches!(extended, SignError::NotExtended { older: 30, newer: 40, .. }), "{extended}");
        }
        for proof in [ours.proof(29, 40), ours.proof(30, 39), empty()] {
            assert!(matches!(refused(&ours.checkpoint(40), &proof), SignError::NotExtended { .. }));
        }
        let other = Checkpoint::new("another", ours.heads[40]).unwrap();
        assert!(matches!(refused(&other, &ours.proof(30, 40)), SignError::OtherOrigin { .. }));
        assert!(memory.sign(&ours.checkpoint(40), &ours.proof(30, 40), &[&key]).is_ok());
    }

    #[test]
    fn a_checkpoint_that_could_not_be_signed_is_not_remembered() {
        let log = Log::new(2, 0, "we");
        let mut memory = SignerMemory::new(ORIGIN, 0).unwrap();
        assert_eq!(memory.sign(&log.checkpoint(2), &empty(), &[]), Err(SignError::Note(NoteError::NoSignatures)));
        assert_eq!(memory.last(), &TreeHead::empty());
    }

    #[test]
    fn two_keys_sign_the_same_checkpoint_when_one_hands_over() {
        let (log, old, new) = (Log::new(5, 0, "we"), key(1), key(2));
        let mut memory = SignerMemory::new(ORIGIN, 0).unwrap();
        memory.sign(&log.checkpoint(5), &empty(), &[&old]).unwrap();
        let note = memory.sign(&log.checkpoint(5), &empty(), &[&old, &new]).unwrap();
        let keys = [old.verifier().clone(), new.verifier().clone()];
        assert_eq!(note.verify_every(&keys).unwrap().signers(), keys);
    }

    #[test]
    fn the_key_that_signs_is_remembered() {
        let mut memory = SignerMemory::new(ORIGIN, 0).unwrap();
        memory.hand_over();
        memory.hand_over();
        assert!(memory.text().ends_with("\nkey 2\n"), "{}", memory.text());
        let read = SignerMemory::parse(&memory.text()).unwrap();
        assert_eq!((read.key(), &read), (2, &memory));
        for wrong in ["key 0", "key 01", "key", "key two", "keys 2", "key 2\nkey 3"] {
            let text = memory.text().replace("key 2", wrong);
            assert!(SignerMemory::parse(&text).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_memory_that_was_altered_is_refused() {
        let text = SignerMemory::new(ORIGIN, 0).unwrap().text();
        assert_eq!(text, format!("{ORIGIN}\n0\n{}\n", TreeHash::of_nothing()));
        for end in 0..text.len() {
            assert!(SignerMemory::parse(text.get(..end).unwrap()).is_err());
        }
        assert!(SignerMemory::parse(&text.replace("\n0\n", "\n7\n")).is_ok(), "the text is no proof by itself");
        assert!(SignerMemory::new("", 0).is_err());
    }
}
