//! Statement texts that a session has sealed already: a prepared statement is sealed once, however often it runs.
//! A text is known again by comparing it, or, where it is too long to be kept, by its keyed digest; never by a hash
//! alone, which could put another statement's text on record. Bounded, and forgets everything when full.

use super::render::Stored;

pub(super) type TextDigest = [u8; 32];

/// Texts remembered, short and long together.
const TEXTS_MAX: usize = 64;

/// A longer text is not kept for comparing.
const TEXT_BYTES_MAX: usize = 1024;

/// All the texts kept: a session should stay small.
const KEPT_BYTES_MAX: usize = 8 * 1024;

/// What the record needs to name a sealed text.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealedText {
    pub(super) digest: TextDigest,
    pub(super) stored: Stored,
}

#[derive(Debug, Default)]
pub(super) struct SealedTexts {
    /// Says where to look, apart from the rest so that looking stays cheap.
    hashes: Vec<u64>,
    known: Vec<Known>,
    kept: Vec<u8>,
}

#[derive(Debug)]
struct Known {
    /// Where the text is kept; `None` for a long one.
    kept: Option<(usize, usize)>,
    text: SealedText,
}

impl SealedTexts {
    /// A text that is kept, found by comparing it.
    pub(super) fn find(&self, text: &[u8]) -> Option<SealedText> {
        let hash = spread(text);
        let mut candidates = self.hashes.iter().zip(&self.known).filter(|(at, _)| **at == hash);
        candidates.find(|(_, known)| self.text(known) == Some(text)).map(|(_, known)| known.text)
    }

    /// A long text, found by its digest. Short ones are found without making one.
    pub(super) fn find_long(&self, digest: &TextDigest) -> Option<SealedText> {
        self.known.iter().filter(|known| known.kept.is_none()).map(|known| known.text).find(|at| at.digest == *digest)
    }

    pub(super) fn insert(&mut self, text: &[u8], sealed: SealedText) {
        let short = text.len() <= TEXT_BYTES_MAX;
        if self.known.len() >= TEXTS_MAX || short && self.kept.len() + text.len() > KEPT_BYTES_MAX {
            self.hashes.clear();
            self.known.clear();
            self.kept.clear();
        }
        let kept = short.then(|| {
            let start = self.kept.len();
            self.kept.extend_from_slice(text);
            (start, self.kept.len())
        });
        self.hashes.push(spread(text));
        self.known.push(Known { kept, text: sealed });
    }

    fn text(&self, known: &Known) -> Option<&[u8]> {
        known.kept.and_then(|(start, end)| self.kept.get(start..end))
    }
}

/// Texts that differ mostly differ here. Whoever makes them agree makes their own session compare a few more.
fn spread(text: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(ODD);
    let (words, rest) = text.as_chunks::<8>();
    let whole = words
        .iter()
        .fold(u64::try_from(text.len()).unwrap_or_default(), |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(whole, |hash, byte| mix(hash, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::super::render::Place;
    use super::*;

    fn sealed(number: u8) -> SealedText {
        let stored = Stored { place: Place::File { segment: 0, offset: u64::from(number) }, bytes: 1, sha256: [0; 32] };
        SealedText { digest: [number; 32], stored }
    }

    #[test]
    fn texts_are_known_by_what_they_say() {
        let mut texts = SealedTexts::default();
        let long = vec![b'x'; TEXT_BYTES_MAX + 1];
        texts.insert(b"select 1", sealed(1));
        texts.insert(b"", sealed(2));
        texts.insert(&long, sealed(3));
        assert_eq!(texts.find(b"select 1").unwrap().digest, [1; 32]);
        assert_eq!(texts.find(b"").unwrap().digest, [2; 32]);
        assert!(texts.find(b"select 2").is_none());
        // Too long to compare: only its digest tells it from another.
        assert!(texts.find(&long).is_none());
        assert_eq!(texts.find_long(&[3; 32]).unwrap().digest, [3; 32]);
        assert!(texts.find_long(&[1; 32]).is_none());
    }

    #[test]
    fn texts_with_one_hash_are_still_told_apart() {
        let mut texts = SealedTexts::default();
        texts.insert(b"select 1", sealed(1));
        texts.hashes = vec![spread(b"select 2")];
        assert!(texts.find(b"select 2").is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut texts = SealedTexts::default();
        for number in 0..10_000 {
            texts.insert(format!("select {number} {}", "x".repeat(number % 1500)).as_bytes(), sealed(0));
            assert!(texts.known.len() <= TEXTS_MAX && texts.kept.len() <= KEPT_BYTES_MAX);
            assert_eq!(texts.known.len(), texts.hashes.len());
        }
    }
}
