//! The tree against the vectors every implementation shares, against another's tree, and against whoever alters
//! one bit of anything.

use std::collections::BTreeMap;
use std::io;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use exeat_store::tree::{
    Checkpoint, ConsistencyProof, Frontier, HASH_BYTES, InclusionProof, Note, PROOF_HASHES_MAX, ProofError, ProveError,
    Prover, SignerMemory, SigningKey, TREE_SIZE_MAX, Tile, TileError, TilePath, TileReader, TreeHash, TreeHead,
    VerifierKey, leaf_hash,
};
use proptest::prelude::*;
use sha2::Sha256;

/// A log whose every size had a checkpoint.
#[derive(Default)]
struct Log {
    frontier: Frontier,
    tiles: BTreeMap<TilePath, Vec<u8>>,
    leaves: Vec<TreeHash>,
    heads: Vec<TreeHead>,
}

impl TileReader for Log {
    fn read(&self, path: &TilePath) -> io::Result<Option<Vec<u8>>> {
        Ok(self.tiles.get(path).cloned())
    }
}

impl Log {
    fn of<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> Self {
        let mut log = Self { heads: vec![TreeHead::empty()], ..Self::default() };
        for line in lines {
            let leaf = leaf_hash(line.as_ref());
            let full = log.frontier.append(leaf).unwrap();
            log.keep(full);
            log.keep(log.frontier.partial_tiles());
            log.leaves.push(leaf);
            log.heads.push(log.frontier.head());
        }
        log
    }

    fn numbered(size: u64) -> Self {
        Self::of((0..size).map(line))
    }

    fn keep(&mut self, tiles: Vec<Tile>) {
        self.tiles.extend(tiles.iter().map(|tile| (*tile.path(), tile.to_bytes())));
    }

    fn head(&self, size: u64) -> TreeHead {
        self.heads[at(size)]
    }

    fn prover(&self, size: u64) -> Prover<'_, Self> {
        Prover::open(self.head(size), self).unwrap()
    }
}

fn at(index: u64) -> usize {
    usize::try_from(index).unwrap()
}

fn line(index: u64) -> Vec<u8> {
    format!("{{\"seq\":{index},\"type\":\"heartbeat\"}}").into_bytes()
}

fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn concatenated(hashes: &[TreeHash]) -> Vec<u8> {
    hashes.iter().flat_map(TreeHash::as_bytes).copied().collect()
}

fn flipped(hash: &TreeHash, bit: usize) -> TreeHash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    TreeHash::from_bytes(bytes)
}

fn with_root(head: &TreeHead, root: TreeHash) -> TreeHead {
    TreeHead::new(head.size(), root).unwrap()
}

// The leaves, roots and proofs that the implementations of RFC 6962 have shared since the first.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
const INCLUSIONS: [(u64, u64, &[&str]); 7] = [
    (1, 0, &[]),
    (2, 0, &["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"]),
    (2, 1, &["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"]),
    (3, 2, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        5,
        1,
        &[
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
    (
        8,
        0,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        8,
        5,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
];
const CONSISTENCIES: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
];

#[test]
fn roots_and_proofs_are_those_of_the_shared_vectors() {
    let log = Log::of(LEAVES.map(bytes));
    for (size, root) in (0..).zip(ROOTS) {
        assert_eq!(log.head(size).root().as_bytes().as_slice(), bytes(root), "root of size {size}");
    }
    for (size, index, proof) in INCLUSIONS {
        let computed = log.prover(size).inclusion(index).unwrap();
        assert_eq!(concatenated(computed.hashes()), bytes(&proof.concat()), "record {index} in {size}");
    }
    for (older, newer, proof) in CONSISTENCIES {
        let computed = log.prover(newer).consistency(&log.head(older)).unwrap();
        assert_eq!(concatenated(computed.hashes()), bytes(&proof.concat()), "{older} in {newer}");
    }
}

// Past one full tile, and around the place where it becomes full.
#[test]
fn roots_and_proofs_are_those_of_anothers_tree() {
    const SIZE: u64 = 300;
    let log = Log::numbered(SIZE);
    let mut other: MemoryBackedTree<Sha256, Vec<u8>> = MemoryBackedTree::new();
    for size in 1..=SIZE {
        other.push(line(size - 1));
        assert_eq!(other.root().as_bytes().as_slice(), log.head(size).root().as_bytes());
        if size > 70 && !(250..262).contains(&size) && size != SIZE {
            continue;
        }
        let mut prover = log.prover(size);
        for before in 1..=size {
            let consistency = prover.consistency(&log.head(before)).unwrap();
            assert_eq!(concatenated(consistency.hashes()), other.prove_consistency(at(size - before)).as_bytes());
            let inclusion = prover.inclusion(before - 1).unwrap();
            assert_eq!(concatenated(inclusion.hashes()), other.prove_inclusion(at(before - 1)).as_bytes());
        }
    }
}

#[test]
fn every_proof_of_every_pair_verifies_there_and_nowhere_else() {
    const SIZE: u64 = 270;
    let log = Log::numbered(SIZE);
    for size in 1..=SIZE {
        let (head, mut prover) = (log.head(size), log.prover(size));
        for index in 0..size {
            let proof = prover.inclusion(index).unwrap();
            assert_eq!(proof.verify(&log.leaves[at(index)], index, &head), Ok(()));
            let neighbour = index ^ 1;
            assert!(proof.verify(&log.leaves[at(index)], neighbour, &head).is_err());
            assert!(proof.verify(&log.leaves[at(index)], index, &log.head(size - 1)).is_err());
            let older = log.head(index);
            let proof = prover.consistency(&older).unwrap();
            assert_eq!(proof.verify(&older, &head), Ok(()));
            if index > 0 {
                assert!(proof.verify(&log.head(index - 1), &head).is_err());
                assert!(proof.verify(&head, &older).is_err());
            }
        }
    }
}

#[test]
fn one_flipped_bit_anywhere_refuses_the_proof() {
    const SIZE: u64 = 13;
    let log = Log::numbered(SIZE);
    for size in 1..=SIZE {
        let (head, mut prover) = (log.head(size), log.prover(size));
        for index in 0..size {
            let leaf = log.leaves[at(index)];
            let proof = prover.inclusion(index).unwrap();
            for bit in 0..8 * HASH_BYTES {
                assert!(proof.verify(&flipped(&leaf, bit), index, &head).is_err());
                assert!(proof.verify(&leaf, index, &with_root(&head, flipped(head.root(), bit))).is_err());
                for place in 0..proof.hashes().len() {
                    let mut hashes = proof.hashes().to_vec();
                    hashes[place] = flipped(&hashes[place], bit);
                    let altered = InclusionProof::from_hashes(hashes).unwrap();
                    assert!(altered.verify(&leaf, index, &head).is_err());
                }
            }
            for bit in 0..64 {
                assert!(proof.verify(&leaf, index ^ (1 << bit), &head).is_err());
            }
            let older = log.head(index);
            let proof = prover.consistency(&older).unwrap();
            for bit in 0..8 * HASH_BYTES {
                if older.size() > 0 {
                    assert!(proof.verify(&with_root(&older, flipped(older.root(), bit)), &head).is_err());
                    assert!(proof.verify(&older, &with_root(&head, flipped(head.root(), bit))).is_err());
                }
                for place in 0..proof.hashes().len() {
                    let mut hashes = proof.hashes().to_vec();
                    hashes[place] = flipped(&hashes[place], bit);
                    let altered = ConsistencyProof::from_hashes(hashes).unwrap();
                    assert!(altered.verify(&older, &head).is_err());
                }
            }
        }
    }
}

#[test]
fn proofs_cut_off_lengthened_or_turned_around_are_refused() {
    let log = Log::numbered(300);
    let head = log.head(300);
    let mut prover = log.prover(300);
    let older = log.head(77);
    let inclusion = prover.inclusion(76).unwrap().hashes().to_vec();
    let consistency = prover.consistency(&older).unwrap().hashes().to_vec();
    let check = |hashes: &[TreeHash], whole: &[TreeHash], included: bool| {
        let result = if included {
            InclusionProof::from_hashes(hashes.to_vec()).and_then(|proof| proof.verify(&log.leaves[76], 76, &head))
        } else {
            ConsistencyProof::from_hashes(hashes.to_vec()).and_then(|proof| proof.verify(&older, &head))
        };
        if hashes.len() < whole.len() {
            assert_eq!(result, Err(ProofError::TooShort { hashes: hashes.len() }));
        } else if hashes.len() > whole.len() {
            assert_eq!(result, Err(ProofError::TooLong { hashes: hashes.len() }));
        } else {
            assert!(result.is_err());
        }
    };
    for (whole, included) in [(&inclusion, true), (&consistency, false)] {
        for end in 0..whole.len() {
            check(&whole[..end], whole, included);
        }
        for more in [1, 2, PROOF_HASHES_MAX + 1 - whole.len(), PROOF_HASHES_MAX] {
            check(&[whole.as_slice(), &vec![*head.root(); more]].concat(), whole, included);
        }
        let turned: Vec<TreeHash> = whole.iter().rev().copied().collect();
        check(&turned, whole, included);
    }
}

#[test]
fn an_auditor_reads_what_is_wrong() {
    let log = Log::numbered(20);
    let other = Log::of((0..20).map(|index| line(index + 1)));
    let empty = ConsistencyProof::from_hashes(Vec::new()).unwrap();
    let shrunk = empty.verify(&log.head(20), &log.head(12)).unwrap_err();
    let text = "checkpoint of size 12 is older than the checkpoint of size 20";
    assert!(shrunk.to_string().starts_with(text), "{shrunk}");
    let forked = empty.verify(&log.head(12), &other.head(12)).unwrap_err();
    assert!(forked.to_string().ends_with("the log was forked"), "{forked}");
    let proof = log.prover(20).inclusion(7).unwrap();
    let beyond = proof.verify(&log.leaves[7], 20, &log.head(20)).unwrap_err();
    assert_eq!(beyond.to_string(), "record 20 is not in a log of size 20: its last record is 19");
    let altered = proof.verify(&log.leaves[8], 7, &log.head(20)).unwrap_err();
    let text = "record 7 is not in the log as the checkpoint of size 20 has it";
    assert!(altered.to_string().starts_with(text), "{altered}");
    assert!(altered.to_string().ends_with(&log.head(20).root().to_string()), "{altered}");
    let none = proof.verify(&log.leaves[7], 0, &TreeHead::empty()).unwrap_err();
    assert_eq!(none.to_string(), "record 0 is not in a log of size 0: its last record is none");
}

// The hashes at the right edge lead to the head's root themselves; a full tile is known by the level above it.
#[test]
fn a_prover_gives_no_proof_from_tiles_that_were_altered() {
    const SIZE: u64 = 600;
    let mut log = Log::numbered(SIZE);
    let (newest, older) = (log.head(SIZE), log.head(257));
    for name in ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"] {
        let path: TilePath = name.parse().unwrap();
        for place in 0..usize::from(path.width()) {
            log.tiles.get_mut(&path).unwrap()[place * HASH_BYTES] ^= 1;
            let opened = Prover::open(newest, &log);
            if path.is_full() {
                let mut prover = opened.unwrap();
                for record in [256 * path.index(), 256 * path.index() + u64::try_from(place).unwrap()] {
                    let error = prover.inclusion(record).unwrap_err();
                    let text = format!("tile \"{name}\" was altered");
                    assert!(error.to_string().starts_with(&text), "{error}");
                }
                if path.index() == 1 {
                    assert!(matches!(prover.consistency(&older), Err(ProveError::Tile(TileError::Altered { .. }))));
                }
            } else {
                assert!(matches!(opened, Err(ProveError::Tile(TileError::OtherRoot { size: SIZE, .. }))));
            }
            log.tiles.get_mut(&path).unwrap()[place * HASH_BYTES] ^= 1;
        }
    }
    assert!(log.prover(SIZE).consistency(&older).is_ok());
    log.tiles.remove(&"tile/0/001".parse().unwrap());
    let missing = log.prover(SIZE).inclusion(300).unwrap_err();
    assert!(missing.to_string().starts_with("tile \"tile/0/001\" of the tree of size 600 is missing"), "{missing}");
    // What does not need the tile is still proven: a log may give up its oldest records.
    assert!(log.prover(SIZE).inclusion(599).is_ok());
}

#[test]
fn a_log_that_was_rewritten_is_not_consistent_with_its_older_checkpoints() {
    let log = Log::numbered(400);
    for altered in [0, 150, 299] {
        let rewritten = Log::of((0..400).map(|index| line(if index == altered { 999 } else { index })));
        for size in [altered + 1, 300] {
            let error = rewritten.prover(400).consistency(&log.head(size)).unwrap_err();
            assert!(matches!(error, ProveError::NotExtended { after: 400, .. }), "{error}");
        }
        assert!(rewritten.prover(400).consistency(&log.head(altered)).is_ok());
    }
    let swapped =
        Log::of((0..400).map(|index| line([index, 8, 7][usize::from(index == 7) + 2 * usize::from(index == 8)])));
    assert!(swapped.prover(400).consistency(&log.head(9)).is_err());
    let removed = Log::of((0..401).filter(|index| *index != 7).map(line));
    assert!(removed.prover(400).consistency(&log.head(8)).is_err());
    assert!(matches!(log.prover(300).consistency(&log.head(400)), Err(ProveError::Shrunk { before: 400, after: 300 })));
}

#[test]
fn sizes_at_the_limit_are_answered_without_a_panic() {
    let log = Log::numbered(3);
    let hashes = |count| vec![log.leaves[0]; count];
    for size in [1, 2, 3, 1 << 32, (1 << 62) - 1, 1 << 62, TREE_SIZE_MAX - 1, TREE_SIZE_MAX] {
        let head = TreeHead::new(size, *log.head(3).root()).unwrap();
        for count in 0..=PROOF_HASHES_MAX {
            let inclusion = InclusionProof::from_hashes(hashes(count)).unwrap();
            for index in [0, 1, size / 2, size - 1, size, u64::MAX] {
                assert!(inclusion.verify(&log.leaves[1], index, &head).is_err());
            }
            let consistency = ConsistencyProof::from_hashes(hashes(count)).unwrap();
            for older in [1, size / 2, size - 1] {
                let Ok(older) = TreeHead::new(older, log.leaves[1]) else { continue };
                assert!(older.size() == 0 || consistency.verify(&older, &head).is_err());
            }
        }
        if size > 3 {
            assert!(matches!(Prover::open(head, &log), Err(ProveError::Tile(TileError::Missing { .. }))));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_log_proves_what_it_has_and_nothing_that_was_altered(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 2..900),
        one in any::<prop::sample::Index>(),
        another in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let log = Log::of(&lines);
        let size = u64::try_from(lines.len()).unwrap();
        let index = u64::try_from(one.index(lines.len())).unwrap();
        let before = 1 + u64::try_from(another.index(lines.len() - 1)).unwrap();
        let (head, older) = (log.head(size), log.head(before));
        prop_assert_eq!(&Frontier::restore(&head, &log).unwrap(), &log.frontier);
        let mut prover = log.prover(size);
        let leaf = log.leaves[at(index)];

        let inclusion = prover.inclusion(index).unwrap();
        prop_assert_eq!(inclusion.verify(&leaf, index, &head), Ok(()));
        let mut hashes = inclusion.hashes().to_vec();
        let bits = bit.index(hashes.len() * 8 * HASH_BYTES);
        let place = bits / (8 * HASH_BYTES);
        hashes[place] = flipped(&hashes[place], bits % (8 * HASH_BYTES));
        prop_assert!(InclusionProof::from_hashes(hashes).unwrap().verify(&leaf, index, &head).is_err());
        let elsewhere = index ^ (1 << bit.index(64));
        prop_assert!(inclusion.verify(&leaf, elsewhere, &head).is_err());
        prop_assert!(inclusion.verify(&flipped(&leaf, bit.index(256)), index, &head).is_err());

        let consistency = prover.consistency(&older).unwrap();
        prop_assert_eq!(consistency.verify(&older, &head), Ok(()));
        let mut hashes = consistency.hashes().to_vec();
        let bits = bit.index(hashes.len() * 8 * HASH_BYTES);
        let place = bits / (8 * HASH_BYTES);
        hashes[place] = flipped(&hashes[place], bits % (8 * HASH_BYTES));
        prop_assert!(ConsistencyProof::from_hashes(hashes).unwrap().verify(&older, &head).is_err());
        let forged = with_root(&older, flipped(older.root(), bit.index(256)));
        prop_assert!(consistency.verify(&forged, &head).is_err());
    }
}

const NOTE_ALPHABET: &str = "([—+ =\\n]|[a-cA-C0-3]|\\PC|[\\x00-\\x1f]){0,80}";

/// What is read must be written the same: nobody can say one thing to a parser and another to a reader.
fn check_same<T: std::str::FromStr + std::fmt::Display>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string(), text);
    }
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_the_same_and_nothing_panics(
        noise in NOTE_ALPHABET,
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        seed in any::<[u8; 32]>(),
        size in 1..TREE_SIZE_MAX,
    ) {
        let key = SigningKey::from_seed("example.com/log".parse().unwrap(), &seed).unwrap();
        let head = TreeHead::new(size, TreeHash::from_bytes(seed)).unwrap();
        let checkpoint = Checkpoint::new("example.com/log", head).unwrap().to_string();
        let note = Note::sign(&checkpoint, &[&key]).unwrap().to_string();
        let path = TilePath::new(seed[0] % 64, size, u16::from(seed[1]) + 1).unwrap().to_string();
        let vkey = key.verifier().to_string();
        for whole in [note, checkpoint, path, vkey, noise.clone()] {
            let places: Vec<usize> = whole.char_indices().map(|(at, _)| at).chain([whole.len()]).collect();
            let (one, two) = (places[at.index(places.len())], places[cut.index(places.len())]);
            let (start, end) = (one.min(two), one.max(two));
            let replaced = [whole.get(..start).unwrap(), &noise, whole.get(end..).unwrap()].concat();
            for text in [&whole, &replaced] {
                if let Ok(read) = Note::parse(text.as_bytes()) {
                    prop_assert_eq!(&read.to_string(), text);
                }
                if let Ok(read) = Checkpoint::parse(text) {
                    prop_assert_eq!(&read.to_string(), text);
                }
                if let Ok(read) = SignerMemory::parse(text) {
                    prop_assert!(text.starts_with(&read.text()));
                }
                check_same::<TilePath>(text);
                check_same::<VerifierKey>(text);
            }
        }
        let _ = Note::parse(&bytes);
        let _ = Tile::parse(TilePath::new(0, 0, 2).unwrap(), &bytes);
    }
}
