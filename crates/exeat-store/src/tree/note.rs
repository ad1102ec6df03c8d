//! Signed notes (<https://c2sp.org/signed-note>): a text, an empty line, and one line for each signature over it.
//! A parsed note does not show its text: that takes a verdict on the signatures. Signatures of unknown keys are
//! passed over, as the specification wants; one of a known key that does not verify refuses the whole note.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::key::{KeyId, KeyName, SigningKey, VerifierKey};

/// Sixteen signatures of the largest kind in use, which every verifier must take, and a text as long again.
pub const NOTE_BYTES_MAX: usize = 256 * 1024;

/// Four times what every verifier must take.
pub const NOTE_SIGNATURES_MAX: usize = 64;

/// A signature line: em dash and space before the name.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// One line of a note. Whether it is a signature at all is not known before a key has verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: KeyName,
    id: KeyId,
    bytes: Vec<u8>,
}

impl NoteSignature {
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// What the key made of the text: for Ed25519, the 64 bytes of RFC 8032.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn is_of(&self, key: &VerifierKey) -> bool {
        self.name == *key.name() && self.id == key.id()
    }
}

/// A note as written, not yet to be believed. `Display` writes it out byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Signs a text that ends in LF and has no other control character, with every key in its order.
    pub fn sign(text: &str, keys: &[&SigningKey]) -> Result<Self, NoteError> {
        check_text(text)?;
        let mut signatures: Vec<NoteSignature> = Vec::with_capacity(keys.len());
        for key in keys {
            let verifier = key.verifier();
            if signatures.iter().any(|there| there.is_of(verifier)) {
                return Err(NoteError::SignedTwice { name: verifier.name().clone(), id: verifier.id() });
            }
            let (name, id) = (verifier.name().clone(), verifier.id());
            signatures.push(NoteSignature { name, id, bytes: key.sign(text.as_bytes()) });
        }
        check_count(signatures.len())?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Reads a whole note, and nothing that is not exactly one.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { bytes: bytes.len() });
        }
        let note = str::from_utf8(bytes).map_err(|error| NoteError::Utf8 { at: error.valid_up_to() })?;
        check_text(note)?;
        // The text may have empty lines too: the last one divides.
        let at = note.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, signatures) = note.split_at_checked(at + 1).ok_or(NoteError::NoSignatures)?;
        let lines: Vec<&str> = signatures.split_terminator('\n').skip(1).collect();
        check_count(lines.len())?;
        let signatures = (1..).zip(lines).map(|(line, text)| parse_signature(line, text));
        Ok(Self { text: text.to_owned(), signatures: signatures.collect::<Result<_, _>>()? })
    }

    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Believes the text if at least one of these keys signed it, and none of them wrongly.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<VerifiedNote, NoteError> {
        let mut signers: Vec<VerifierKey> = Vec::new();
        for signature in &self.signatures {
            let mut candidates = keys.iter().filter(|key| signature.is_of(key));
            let Some(key) = candidates.next() else { continue };
            if candidates.any(|other| other != key) {
                return Err(NoteError::Ambiguous { name: key.name().clone(), id: key.id() });
            }
            if !key.has_signed(self.text.as_bytes(), &signature.bytes) {
                return Err(NoteError::Forged { name: key.name().clone(), id: key.id() });
            }
            if !signers.contains(key) {
                signers.push(key.clone());
            }
        }
        if signers.is_empty() {
            return Err(NoteError::Unknown { signers: named(&self.signatures) });
        }
        Ok(VerifiedNote { text: self.text.clone(), signers })
    }

    /// Believes the text only if every one of these keys signed it, as when one key hands over to another.
    pub fn verify_every(&self, keys: &[VerifierKey]) -> Result<VerifiedNote, NoteError> {
        let verified = self.verify(keys)?;
        match keys.iter().find(|key| !verified.signers.contains(key)) {
            Some(missing) => Err(NoteError::NotSignedBy { name: missing.name().clone(), id: missing.id() }),
            None => Ok(verified),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for signature in &self.signatures {
            let bytes = [signature.id.as_bytes(), signature.bytes.as_slice()].concat();
            writeln!(f, "{SIGNATURE_MARK}{} {}", signature.name, STANDARD.encode(bytes))?;
        }
        Ok(())
    }
}

/// Proof that keys of the verifier's choice signed the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedNote {
    text: String,
    signers: Vec<VerifierKey>,
}

impl VerifiedNote {
    /// With the LF that ends it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Those of the given keys that signed, at least one, in the order of their signatures.
    pub fn signers(&self) -> &[VerifierKey] {
        &self.signers
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if text.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLong { bytes: text.len() });
    }
    if !text.ends_with('\n') {
        return Err(NoteError::NoEnd);
    }
    let control = text.bytes().zip(0..).find(|(byte, _)| *byte < b' ' && *byte != b'\n');
    control.map_or(Ok(()), |(byte, at)| Err(NoteError::Control { byte, at }))
}

fn check_count(signatures: usize) -> Result<(), NoteError> {
    if signatures == 0 {
        return Err(NoteError::NoSignatures);
    }
    if signatures > NOTE_SIGNATURES_MAX {
        return Err(NoteError::TooManySignatures { signatures });
    }
    Ok(())
}

fn parse_signature(line: usize, text: &str) -> Result<NoteSignature, NoteError> {
    let refused = |problem| NoteError::Signature { line, problem };
    let rest = text.strip_prefix(SIGNATURE_MARK).ok_or(refused("does not begin with an em dash and a space"))?;
    let (name, signature) = rest.split_once(' ').ok_or(refused("has no space between name and signature"))?;
    let name = name.parse().map_err(|_| refused("has a name that no key can have"))?;
    let signature = STANDARD.decode(signature).map_err(|_| refused("has a signature that is not base64"))?;
    match signature.split_first_chunk() {
        Some((id, bytes)) if !bytes.is_empty() => {
            Ok(NoteSignature { name, id: KeyId::from_bytes(*id), bytes: bytes.to_vec() })
        }
        _ => Err(refused("has no bytes after the key id")),
    }
}

fn named(signatures: &[NoteSignature]) -> String {
    let names: Vec<String> =
        signatures.iter().map(|signature| format!("{}+{}", signature.name, signature.id)).collect();
    names.join(", ")
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("note of {bytes} bytes exceeds the limit of {NOTE_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("note is not UTF-8 at byte {at}")]
    Utf8 { at: usize },
    #[error("note does not end with a line feed: it was cut off")]
    NoEnd,
    #[error("note has the control character {byte:#04x} at byte {at}")]
    Control { byte: u8, at: usize },
    #[error("note has no signatures after an empty line")]
    NoSignatures,
    #[error("note of {signatures} signatures exceeds the limit of {NOTE_SIGNATURES_MAX}")]
    TooManySignatures { signatures: usize },
    #[error("signature line {line} of the note {problem}")]
    Signature { line: usize, problem: &'static str },
    #[error("key {name}+{id} is to sign the note twice")]
    SignedTwice { name: KeyName, id: KeyId },
    #[error("two different keys of the verifier go by {name}+{id}; give only the one that is meant")]
    Ambiguous { name: KeyName, id: KeyId },
    #[error("signature of {name}+{id} does not fit the note: note or signature were altered")]
    Forged { name: KeyName, id: KeyId },
    #[error("note is signed by none of the given keys, but by {signers}")]
    Unknown { signers: String },
    #[error("note is not signed by {name}+{id}")]
    NotSignedBy { name: KeyName, id: KeyId },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hex;

    // The specification's own notes; of the first, the key is not published.
    const QUASIMODO: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n\
        — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const EXAMPLE: &str = "This is an example message.\n\n\
        — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    // What Go's implementation, from which the format comes, is tested with.
    const PETER_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_SEED: &str = "810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173";
    const PETER: &str =
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const ENOCH_KEY: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
    const ENOCH: &str =
        "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n";

    fn key(text: &str) -> VerifierKey {
        text.parse().unwrap()
    }

    fn signer(name: &str, seed: u8) -> SigningKey {
        SigningKey::from_seed(name.parse().unwrap(), &[seed; 32]).unwrap()
    }

    fn parse(text: &str) -> Note {
        Note::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn published_notes_are_read_and_written_byte_for_byte() {
        for text in [QUASIMODO, EXAMPLE, &format!("{TEXT}\n{PETER}{ENOCH}")] {
            assert_eq!(parse(text).to_string(), text);
        }
        let note = parse(QUASIMODO);
        assert!(note.text.ends_with("di sole:\n\ned è subito sera.\n"));
        let signature = &note.signatures()[0];
        assert_eq!(signature.name().as_str(), "quasimodo.example/salvatore");
        assert_eq!(signature.key_id().to_string(), "367ba04b");
    }

    #[test]
    fn published_signatures_verify() {
        let verified = parse(EXAMPLE).verify(&[key(EXAMPLE_KEY)]).unwrap();
        assert_eq!(verified.text(), "This is an example message.\n");
        let note = parse(&format!("{TEXT}\n{PETER}{ENOCH}"));
        let (peter, enoch) = (key(PETER_KEY), key(ENOCH_KEY));
        let one = std::slice::from_ref(&peter);
        assert_eq!(note.verify(one).unwrap().signers(), one);
        assert_eq!(note.verify(&[enoch.clone(), peter.clone()]).unwrap().signers(), [peter, enoch]);
    }

    #[test]
    fn a_published_note_is_signed_byte_for_byte() {
        let seed = hex::decode(PETER_SEED).unwrap();
        let peter = SigningKey::from_seed("PeterNeumann".parse().unwrap(), &seed).unwrap();
        assert_eq!(Note::sign(TEXT, &[&peter]).unwrap().to_string(), format!("{TEXT}\n{PETER}"));
    }

    #[test]
    fn a_note_whose_keys_are_all_unknown_is_refused() {
        let note = parse(&format!("{TEXT}\n{PETER}{ENOCH}"));
        let signers = "PeterNeumann+c74f20a3, EnochRoot+af0cfe78".to_owned();
        assert_eq!(note.verify(&[]), Err(NoteError::Unknown { signers: signers.clone() }));
        assert_eq!(note.verify(&[key(EXAMPLE_KEY)]), Err(NoteError::Unknown { signers }));
    }

    // An id has four bytes: two keys that share one are found in no time, by an attacker too.
    #[test]
    fn two_keys_that_go_by_one_name_and_id_are_refused() {
        let mut seen = BTreeMap::new();
        let (one, other) = (0_u64..)
            .find_map(|number| {
                let mut public = [0; 32];
                public[..8].copy_from_slice(&number.to_le_bytes());
                let key = VerifierKey::new("log".parse().unwrap(), public);
                Some((seen.insert(key.id(), key.clone())?, key))
            })
            .unwrap();
        let signatures = vec![NoteSignature { name: one.name().clone(), id: one.id(), bytes: vec![0; 64] }];
        let note = Note { text: TEXT.to_owned(), signatures };
        let (name, id) = (one.name().clone(), one.id());
        assert_eq!(note.verify(&[one.clone(), other]), Err(NoteError::Ambiguous { name, id }));
        assert!(matches!(note.verify(&[one.clone(), one]), Err(NoteError::Forged { .. })));
    }

    // Also where another of the known keys signed well: somebody altered something.
    #[test]
    fn one_flipped_bit_refuses_the_note() {
        let keys = [key(PETER_KEY), key(ENOCH_KEY)];
        let whole = format!("{TEXT}\n{PETER}{ENOCH}");
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut altered = whole.as_bytes().to_vec();
                altered[at] ^= 1 << bit;
                let Ok(note) = Note::parse(&altered) else { continue };
                let result = note.verify_every(&keys);
                assert!(result.is_err(), "bit {bit} of byte {at}");
                if at < TEXT.len() {
                    assert!(matches!(result, Err(NoteError::Forged { .. })), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_note_cut_off_or_lengthened_is_refused() {
        let whole = format!("{TEXT}\n{PETER}");
        for end in 0..whole.len() {
            assert!(Note::parse(&whole.as_bytes()[..end]).is_err(), "{end}");
        }
        assert!(matches!(Note::parse(format!("{whole}more\n").as_bytes()), Err(NoteError::Signature { line: 2, .. })));
    }

    #[test]
    fn the_error_says_what_is_wrong_with_a_note() {
        let signature = |line: &str| match Note::parse(format!("{TEXT}\n{line}\n").as_bytes()) {
            Err(NoteError::Signature { line: 1, problem }) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(signature("- a AAAAAAA="), "does not begin with an em dash and a space");
        assert_eq!(signature("—a AAAAAAA="), "does not begin with an em dash and a space");
        assert_eq!(signature("— aAAAAAAA="), "has no space between name and signature");
        assert_eq!(signature("—  AAAAAAA="), "has a name that no key can have");
        assert_eq!(signature("— a+b AAAAAAA="), "has a name that no key can have");
        assert_eq!(signature("— Bad Name AAAAAAA="), "has a signature that is not base64");
        assert_eq!(signature("— a AAAAAAA"), "has a signature that is not base64");
        assert_eq!(signature("— a AAAAAAB="), "has a signature that is not base64");
        assert_eq!(signature("— a AAAAAAA= "), "has a signature that is not base64");
        assert_eq!(signature("— a "), "has no bytes after the key id");
        assert_eq!(signature("— a AAAAAA=="), "has no bytes after the key id");

        let refused = |bytes: &[u8]| Note::parse(bytes).unwrap_err();
        assert_eq!(refused(b""), NoteError::NoEnd);
        assert_eq!(refused(TEXT.as_bytes()), NoteError::NoSignatures);
        assert_eq!(refused(format!("{TEXT}\n").as_bytes()), NoteError::NoSignatures);
        assert_eq!(refused(PETER.as_bytes()), NoteError::NoSignatures);
        assert_eq!(refused(&[b"\xff", EXAMPLE.as_bytes()].concat()), NoteError::Utf8 { at: 0 });
        let control = NoteError::Control { byte: b'\r', at: 3 };
        assert_eq!(refused(format!("abc\r\n\n{PETER}").as_bytes()), control);
        let many = format!("{TEXT}\n{}", PETER.repeat(NOTE_SIGNATURES_MAX + 1));
        assert_eq!(refused(many.as_bytes()), NoteError::TooManySignatures { signatures: NOTE_SIGNATURES_MAX + 1 });
        let bytes = NOTE_BYTES_MAX + 1;
        assert_eq!(refused(&vec![b'\n'; bytes]), NoteError::TooLong { bytes });
    }

    #[test]
    fn as_many_signatures_as_every_verifier_must_take_are_taken() {
        let keys: Vec<SigningKey> = (0..16).map(|number| signer(&format!("key{number}"), number)).collect();
        let note = Note::sign(TEXT, &keys.iter().collect::<Vec<_>>()).unwrap();
        let known: Vec<VerifierKey> = keys.iter().map(|key| key.verifier().clone()).collect();
        assert_eq!(parse(&note.to_string()).verify_every(&known).unwrap().signers(), known);
    }

    #[test]
    fn a_hand_over_is_signed_by_both_keys() {
        let (old, new) = (signer("log", 1), signer("log", 2));
        let keys = [old.verifier().clone(), new.verifier().clone()];
        let both = Note::sign(TEXT, &[&old, &new]).unwrap();
        assert_eq!(both.verify_every(&keys).unwrap().signers(), keys);
        let one = Note::sign(TEXT, &[&old]).unwrap();
        assert!(one.verify(&keys).is_ok());
        let missing = NoteError::NotSignedBy { name: "log".parse().unwrap(), id: new.verifier().id() };
        assert_eq!(one.verify_every(&keys), Err(missing));
        assert!(matches!(Note::sign(TEXT, &[&old, &old]), Err(NoteError::SignedTwice { .. })));
    }

    #[test]
    fn a_signature_that_stands_twice_counts_once_and_a_wrong_one_beside_it_refuses() {
        let keys = [key(PETER_KEY)];
        assert_eq!(parse(&format!("{TEXT}\n{PETER}{PETER}")).verify(&keys).unwrap().signers(), keys);
        let other = parse(&format!("{TEXT}\n{PETER}{}", PETER.replace("ZJku", "ZJkv")));
        assert!(matches!(other.verify(&keys), Err(NoteError::Forged { .. })));
        let short = parse(&format!("{TEXT}\n{PETER}— PeterNeumann x08gowA=\n"));
        assert!(matches!(short.verify(&keys), Err(NoteError::Forged { .. })));
        // An id alone, or a name alone, is no known key.
        let stranger = parse(&format!("{TEXT}\n{PETER}{}", PETER.replace("PeterNeumann", "Peter")));
        assert_eq!(stranger.verify(&keys).unwrap().signers(), keys);
    }

    #[test]
    fn texts_that_cannot_be_a_note_are_not_signed() {
        let key = signer("log", 1);
        for (text, wrong) in
            [("", NoteError::NoEnd), ("abc", NoteError::NoEnd), ("a\tb\n", NoteError::Control { byte: b'\t', at: 1 })]
        {
            assert_eq!(Note::sign(text, &[&key]), Err(wrong));
        }
        assert_eq!(Note::sign(TEXT, &[]), Err(NoteError::NoSignatures));
        for text in ["\n", "\n\n", "a\n\n\n", "— a AAAAAAA=\n", "a\n\n— a AAAAAAA=\n"] {
            let note = Note::sign(text, &[&key]).unwrap().to_string();
            assert_eq!(parse(&note).verify(&[key.verifier().clone()]).unwrap().text(), text);
        }
    }
}
