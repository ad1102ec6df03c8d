//! Proofs that stand alone (<https://c2sp.org/tlog-proof>): one record, the way from it to the root, and the checkpoint
//! that says so. The record itself is in the part that the format leaves to its users, so that one file and the public
//! key are all that an auditor needs; that part is believed for nothing but its hash.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::hash::{TreeHash, TreeHead, leaf_hash};
use super::key::VerifierKey;
use super::note::NOTE_BYTES_MAX;
use super::proof::{InclusionProof, PROOF_HASHES_MAX, ProofError};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// The largest proof: of the longest record, in base64, and the longest checkpoint.
pub const LOG_PROOF_BYTES_MAX: usize = NOTE_BYTES_MAX + 64 * 1024;

/// A proof as it is written. What it says is not believed before [`LogProof::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    index: u64,
    hashes: InclusionProof,
    /// A signed checkpoint, as it stands.
    checkpoint: String,
    record: Vec<u8>,
}

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Whose log.
    pub origin: String,
    pub head: TreeHead,
    /// The record's place, from 0.
    pub index: u64,
    /// The line, without its line break.
    pub record: Vec<u8>,
}

impl LogProof {
    pub fn new(index: u64, hashes: InclusionProof, checkpoint: String, record: Vec<u8>) -> Self {
        Self { index, hashes, checkpoint, record }
    }

    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn hashes(&self) -> &[TreeHash] {
        self.hashes.hashes()
    }

    pub fn record(&self) -> &[u8] {
        &self.record
    }

    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    pub fn parse(text: &str) -> Result<Self, LogProofError> {
        if text.len() > LOG_PROOF_BYTES_MAX {
            return Err(LogProofError::TooLong { bytes: text.len() });
        }
        // The first empty line ends the proof's own part; the checkpoint has one more.
        let (own, checkpoint) = text.split_once("\n\n").ok_or(LogProofError::CutOff)?;
        let mut lines = own.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(LogProofError::OtherFormat);
        }
        let mut line = lines.next().ok_or(LogProofError::CutOff)?;
        let record = match line.strip_prefix("extra ") {
            None => return Err(LogProofError::NoRecord),
            Some(extra) => STANDARD.decode(extra).map_err(|_| LogProofError::Extra)?,
        };
        line = lines.next().ok_or(LogProofError::CutOff)?;
        let index = line.strip_prefix("index ").and_then(plain_number).ok_or(LogProofError::Index)?;
        let mut hashes = Vec::new();
        for (number, line) in (1..).zip(lines) {
            if number > PROOF_HASHES_MAX {
                return Err(LogProofError::Proof(ProofError::TooLong { hashes: number }));
            }
            hashes.push(TreeHash::from_base64(line).ok_or(LogProofError::Hash { number })?);
        }
        let hashes = InclusionProof::from_hashes(hashes)?;
        Ok(Self { index, hashes, checkpoint: checkpoint.to_owned(), record })
    }

    /// Whether one of these keys signed a checkpoint of a log that has this record at this place.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Proven, LogProofError> {
        let origin = keys.first().map(|key| key.name().as_str().to_owned()).unwrap_or_default();
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), &origin, keys)?;
        self.hashes.verify(&leaf_hash(&self.record), self.index, checkpoint.head())?;
        Ok(Proven { origin, head: *checkpoint.head(), index: self.index, record: self.record.clone() })
    }
}

/// Decimal digits, without sign or leading zeros.
fn plain_number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

impl fmt::Display for LogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nextra {}\nindex {}", STANDARD.encode(&self.record), self.index)?;
        self.hashes.hashes().iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogProofError {
    #[error("proof of {bytes} bytes exceeds the limit of {LOG_PROOF_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("it is no proof: its first line is not \"{FIRST_LINE}\"")]
    OtherFormat,
    #[error("proof ends before its checkpoint: it was cut off")]
    CutOff,
    #[error("proof does not have the record itself (a line \"extra\")")]
    NoRecord,
    #[error("the record in the proof is not in base64")]
    Extra,
    #[error("proof names no place in the log (a line \"index\", then digits)")]
    Index,
    #[error("hash {number} of the proof is not 32 bytes in base64")]
    Hash { number: usize },
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

#[cfg(test)]
mod tests {
    use super::super::key::SigningKey;
    use super::super::note::Note;
    use super::*;

    /// A log of two records, and the proof of its second.
    fn proof() -> (LogProof, SigningKey) {
        let key = SigningKey::from_seed("log".parse().unwrap(), &[1; 32]).unwrap();
        let (first, second) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let head = TreeHead::new(2, TreeHash::of_node(&first, &second)).unwrap();
        let note = Note::sign(&Checkpoint::new("log", head).unwrap().to_string(), &[&key]).unwrap().to_string();
        let hashes = InclusionProof::from_hashes(vec![first]).unwrap();
        (LogProof::new(1, hashes, note, b"b".to_vec()), key)
    }

    #[test]
    fn a_proof_is_written_as_the_specification_says_and_read_again() {
        let (proof, key) = proof();
        let text = proof.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(&lines[..3], ["c2sp.org/tlog-proof@v1", "extra Yg==", "index 1"]);
        assert_eq!((lines[3], lines[4], lines[5]), (leaf_hash(b"a").to_string().as_str(), "", "log"));
        assert!(lines[9].starts_with("— log "), "{text}");
        let read = LogProof::parse(&text).unwrap();
        assert_eq!(read, proof);
        let proven = read.verify(&[key.verifier().clone()]).unwrap();
        assert_eq!((proven.origin.as_str(), proven.index, proven.record.as_slice()), ("log", 1, b"b".as_slice()));
    }

    #[test]
    fn whatever_is_altered_in_a_proof_is_refused() {
        let (proof, key) = proof();
        let text = proof.to_string();
        let keys = [key.verifier().clone()];
        for (from, to) in [
            ("extra Yg==", "extra Yw=="),
            ("extra Yg==", "extra Yg="),
            ("extra Yg==\n", ""),
            ("index 1", "index 0"),
            ("index 1", "index 01"),
            ("index 1", "index 2"),
            ("tlog-proof@v1", "tlog-proof@v2"),
            ("log\n2\n", "log\n3\n"),
            ("log\n2\n", "gol\n2\n"),
            ("— log ", "— gol "),
            ("\n\nlog", "\nlog"),
        ] {
            let altered = text.replacen(from, to, 1);
            assert_ne!(altered, text, "{from}");
            let verdict = LogProof::parse(&altered).and_then(|proof| proof.verify(&keys));
            assert!(verdict.is_err(), "{from} as {to}");
        }
        let without = text.replacen(&format!("{}\n", leaf_hash(b"a")), "", 1);
        let verdict = LogProof::parse(&without).and_then(|proof| proof.verify(&keys));
        assert!(matches!(verdict, Err(LogProofError::Proof(ProofError::TooShort { .. }))), "{verdict:?}");
        let stranger = SigningKey::from_seed("log".parse().unwrap(), &[2; 32]).unwrap();
        assert!(proof.verify(&[stranger.verifier().clone()]).is_err());
        assert!(proof.verify(&[]).is_err());
    }
}
