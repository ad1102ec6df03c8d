//! Checkpoints (<https://c2sp.org/tlog-checkpoint>): what a log says of itself under its signature, namely its
//! origin, its size and its root. Two of them and the tiles are enough to show that nothing in between was altered.
//! Signing goes through the signer's memory only.

use std::fmt;

use super::hash::{HeadError, TreeHash, TreeHead};
use super::key::VerifierKey;
use super::note::{Note, NoteError};

/// Origins are said to be URLs without a scheme; whatever is longer is something else.
pub const ORIGIN_BYTES_MAX: usize = 255;

/// What a log says of itself: whose log, how long, under which root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    head: TreeHead,
    extensions: Vec<String>,
}

impl Checkpoint {
    pub fn new(origin: &str, head: TreeHead) -> Result<Self, CheckpointError> {
        Self::with_extensions(origin, head, Vec::new())
    }

    /// Extension lines mean nothing to others; the specification advises against them.
    pub fn with_extensions(origin: &str, head: TreeHead, extensions: Vec<String>) -> Result<Self, CheckpointError> {
        check_origin(origin)?;
        for (line, text) in (4..).zip(&extensions) {
            if text.is_empty() {
                return Err(CheckpointError::EmptyLine { line });
            }
            if let Some(sign) = text.chars().find(|sign| *sign < ' ') {
                return Err(CheckpointError::Control { line, sign });
            }
        }
        Ok(Self { origin: origin.to_owned(), head, extensions })
    }

    /// Reads the text of a note: at least three lines, none empty.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines = text.strip_suffix('\n').ok_or(CheckpointError::NoEnd)?;
        let mut lines = lines.split('\n');
        let mut next = |line: usize| lines.next().ok_or(CheckpointError::TooShort { lines: line - 1 });
        let (origin, size, root) = (next(1)?, next(2)?, next(3)?);
        let size = parse_size(size)?;
        let root = TreeHash::from_base64(root).ok_or_else(|| CheckpointError::Root { root: beginning(root) })?;
        Self::with_extensions(origin, TreeHead::new(size, root)?, lines.map(str::to_owned).collect())
    }

    /// Reads a signed checkpoint of the log `origin`, and believes it if at least one of the keys signed it.
    pub fn open(note: &[u8], origin: &str, keys: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let verified = Note::parse(note)?.verify(keys)?;
        let checkpoint = Self::parse(verified.text())?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::OtherOrigin { expected: origin.to_owned(), found: checkpoint.origin });
        }
        Ok(checkpoint)
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl fmt::Display for Checkpoint {
    /// The text that is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size(), self.head.root())?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

pub(super) fn check_origin(origin: &str) -> Result<(), CheckpointError> {
    if origin.len() > ORIGIN_BYTES_MAX {
        return Err(CheckpointError::OriginTooLong { bytes: origin.len() });
    }
    if origin.is_empty() {
        return Err(CheckpointError::EmptyLine { line: 1 });
    }
    match origin.chars().find(|sign| *sign < ' ') {
        Some(sign) => Err(CheckpointError::Control { line: 1, sign }),
        None => Ok(()),
    }
}

/// Decimal digits, without sign or leading zeros.
fn parse_size(text: &str) -> Result<u64, CheckpointError> {
    let refused = || CheckpointError::Size { size: beginning(text) };
    let size: u64 = text.parse().map_err(|_| refused())?;
    if size.to_string() == text { Ok(size) } else { Err(refused()) }
}

/// As much of a line as an error quotes.
fn beginning(line: &str) -> String {
    line.chars().take(64).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("checkpoint does not end with a line feed: it was cut off")]
    NoEnd,
    #[error("checkpoint has {lines} lines, but needs three: origin, size and root")]
    TooShort { lines: usize },
    #[error("line {line} of the checkpoint is empty")]
    EmptyLine { line: usize },
    #[error("line {line} of the checkpoint has the control character {sign:?}")]
    Control { line: usize, sign: char },
    #[error("origin of {bytes} bytes exceeds the limit of {ORIGIN_BYTES_MAX}")]
    OriginTooLong { bytes: usize },
    #[error("checkpoint has the size {size:?}, which is not a number of records in plain digits")]
    Size { size: String },
    #[error("checkpoint has the root {root:?}, which is not 32 bytes in base64")]
    Root { root: String },
    #[error("line {line:?} of the signer's memory is no number of a key")]
    KeyNumber { line: String },
    #[error("checkpoint is of the log {found:?}, not of {expected:?}")]
    OtherOrigin { expected: String, found: String },
    #[error("checkpoint has a size and a root that no log has")]
    Head(#[from] HeadError),
    #[error("could not verify the checkpoint")]
    Note(#[from] NoteError),
}

#[cfg(test)]
mod tests {
    use super::super::key::SigningKey;
    use super::super::{TREE_SIZE_MAX, leaf_hash};
    use super::*;

    // The specification's own example; its key is not published.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    const EXAMPLE_SIGNATURE: &str = "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

    fn key(name: &str, seed: u8) -> SigningKey {
        SigningKey::from_seed(name.parse().unwrap(), &[seed; 32]).unwrap()
    }

    fn edited(line: usize, text: &str) -> Result<Checkpoint, CheckpointError> {
        let mut lines: Vec<&str> = EXAMPLE.lines().collect();
        lines[line - 1] = text;
        Checkpoint::parse(&format!("{}\n", lines.join("\n")))
    }

    #[test]
    fn the_published_checkpoint_is_read_and_written_as_it_is() {
        let checkpoint = Checkpoint::parse(EXAMPLE).unwrap();
        assert_eq!((checkpoint.origin(), checkpoint.head().size()), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(checkpoint.head().root().to_string(), "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=");
        assert_eq!(checkpoint.to_string(), EXAMPLE);
        let note = format!("{EXAMPLE}\n{EXAMPLE_SIGNATURE}");
        assert_eq!(Note::parse(note.as_bytes()).unwrap().to_string(), note);
        let stranger = [key("example.com/behind-the-sofa", 1).verifier().clone()];
        let error = Checkpoint::open(note.as_bytes(), "example.com/behind-the-sofa", &stranger).unwrap_err();
        assert!(matches!(error, CheckpointError::Note(NoteError::Unknown { .. })), "{error}");
    }

    #[test]
    fn extension_lines_are_kept_in_their_order() {
        let text = format!("{EXAMPLE}one\ntwo three\n");
        let checkpoint = Checkpoint::parse(&text).unwrap();
        assert_eq!(checkpoint.extensions(), ["one", "two three"]);
        assert_eq!(checkpoint.to_string(), text);
        assert_eq!(Checkpoint::parse(&format!("{EXAMPLE}one\n\ntwo\n")), Err(CheckpointError::EmptyLine { line: 5 }));
        let head = *checkpoint.head();
        let broken = Checkpoint::with_extensions("log", head, vec!["a\nb".to_owned()]);
        assert_eq!(broken, Err(CheckpointError::Control { line: 4, sign: '\n' }));
    }

    #[test]
    fn the_error_says_what_is_wrong_with_a_checkpoint() {
        assert_eq!(Checkpoint::parse(""), Err(CheckpointError::NoEnd));
        assert_eq!(Checkpoint::parse(EXAMPLE.trim_end()), Err(CheckpointError::NoEnd));
        assert_eq!(Checkpoint::parse("log\n"), Err(CheckpointError::TooShort { lines: 1 }));
        assert_eq!(Checkpoint::parse("log\n5\n"), Err(CheckpointError::TooShort { lines: 2 }));
        assert_eq!(edited(1, ""), Err(CheckpointError::EmptyLine { line: 1 }));
        assert_eq!(edited(1, "a\tb"), Err(CheckpointError::Control { line: 1, sign: '\t' }));
        let bytes = ORIGIN_BYTES_MAX + 1;
        assert_eq!(edited(1, &"a".repeat(bytes)), Err(CheckpointError::OriginTooLong { bytes }));
        for size in ["", "-1", "+1", "01", "1 ", "1.0", "0x10", "٣", "18446744073709551616"] {
            assert_eq!(edited(2, size), Err(CheckpointError::Size { size: size.to_owned() }));
        }
        let size = TREE_SIZE_MAX + 1;
        assert_eq!(edited(2, &size.to_string()), Err(CheckpointError::Head(HeadError::TooLarge { size })));
        assert!(edited(2, &TREE_SIZE_MAX.to_string()).is_ok());
        assert!(matches!(edited(2, "0"), Err(CheckpointError::Head(HeadError::RootOfNothing { .. }))));
        for root in
            ["", "CsUY", "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I", "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J="]
        {
            assert_eq!(edited(3, root), Err(CheckpointError::Root { root: root.to_owned() }));
        }
        let long = edited(3, &"A".repeat(100_000)).unwrap_err();
        assert!(long.to_string().len() < 256);
    }

    #[test]
    fn a_checkpoint_is_believed_for_its_log_and_by_its_key_alone() {
        let (ours, theirs) = (key("log", 1), key("log", 2));
        let checkpoint = Checkpoint::new("log", TreeHead::new(1, leaf_hash(b"a")).unwrap()).unwrap();
        let note = Note::sign(&checkpoint.to_string(), &[&ours]).unwrap().to_string();
        let open = |origin, key: &SigningKey| Checkpoint::open(note.as_bytes(), origin, &[key.verifier().clone()]);
        assert_eq!(open("log", &ours), Ok(checkpoint));
        assert!(matches!(open("log", &theirs), Err(CheckpointError::Note(NoteError::Unknown { .. }))));
        let other = open("another", &ours).unwrap_err();
        assert_eq!(other.to_string(), "checkpoint is of the log \"log\", not of \"another\"");
        let text = Note::sign("any text\n", &[&ours]).unwrap().to_string();
        let error = Checkpoint::open(text.as_bytes(), "log", &[ours.verifier().clone()]).unwrap_err();
        assert_eq!(error, CheckpointError::TooShort { lines: 1 });
    }
}
