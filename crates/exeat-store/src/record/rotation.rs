//! The line by which one signing key hands over to the next. It names both, the key before it signs the tree that the line
//! is in, and the signer finds what it has to do in the line itself: after a crash as while it runs.

use std::path::Path;

use serde::Deserialize;

use super::json;
use super::logs::{self, LogPlace};
use super::{NotaryError, Recorder, Requester, render, requested};
use crate::StoreError;
use crate::keys::KeySet;
use crate::tree::{SignerMemory, VerifierKey};

pub(crate) const KIND: &str = "key.rotate";

/// How every such line ends. Nothing else does: a quote within a text is written with a backslash.
const END: &[u8] = br#""type":"key.rotate","v":1}"#;

/// What became of it: both keys have signed.
#[derive(Debug, Clone)]
pub struct Rotated {
    pub old: VerifierKey,
    pub new: VerifierKey,
    /// Of the new key; the first is 0.
    pub number: u64,
}

/// A key of the log that is written, and the sizes of the checkpoints that it signs.
#[derive(Debug, Clone)]
pub struct Signer {
    pub key: VerifierKey,
    pub from: u64,
    /// `None`: it signs now.
    pub until: Option<u64>,
}

/// All keys of the log in a gateway's folder that is written, in order; the first key where there is no log yet.
pub fn signers(data_dir: &Path, gateway: &str, keys: &KeySet) -> Result<Vec<Signer>, StoreError> {
    let origin = logs::current_origin(data_dir, gateway)?;
    let files = LogPlace::current(data_dir).files();
    let memory =
        files.memory()?.map(|kept| SignerMemory::parse(&kept.text)).transpose().map_err(NotaryError::Memory)?;
    let current = memory.map_or(0, |memory| memory.key());
    let sizes: Vec<u64> = files.rotations()?.into_iter().map(|(size, _)| size).collect();
    let before = u64::try_from(sizes.len()).unwrap_or(u64::MAX);
    let mut signers = Vec::new();
    let mut from = 0;
    for (number, until) in (current.saturating_sub(before)..=current).zip(sizes.into_iter().map(Some).chain([None])) {
        let key = keys.numbered_key(&origin, number)?.verifier().clone();
        signers.push(Signer { key, from, until });
        from = until.unwrap_or(from);
    }
    Ok(signers)
}

/// The number of the key that a line names, if it is such a line.
pub(super) fn number(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Line {
        body: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        number: u64,
    }
    if !line.ends_with(END) {
        return None;
    }
    serde_json::from_slice::<Line>(line).ok().map(|line| line.body.number)
}

impl Recorder {
    /// Hands over to the next signing key: returns when both have signed. `by`: who asked; nobody where the command was
    /// run beside a gateway that stands still.
    pub fn rotate_key(&self, by: Option<Requester<'_>>) -> Result<Rotated, StoreError> {
        let shared = &self.shared;
        let number = shared.journal.notary().ask_for_next_key()?;
        let appended = self.keys_of(number).and_then(|rotated| {
            let mut entry = shared.entry(KIND, None, |body| {
                // Longer than a text may be where the gateway's name is.
                json::string(body.key("new"), &rotated.new.to_string());
                body.number("number", number);
                json::string(body.key("old"), &rotated.old.to_string());
                render::token(body, by.map(|by| by.token));
            });
            requested(&mut entry, by);
            json::fragment(&mut entry.middle, |line| line.optional("source", by.map(|by| by.source)));
            shared.journal.append(&entry).map(|appended| (rotated, appended.seq))
        });
        // What is appended reaches the file sooner or later, and is acted on then.
        let (rotated, seq) = appended.inspect_err(|_| shared.journal.notary().take_back_next_key())?;
        shared.journal.commit(seq.saturating_add(1))?;
        shared.journal.notary().wait_for_key(number).map(|()| rotated)
    }

    fn keys_of(&self, number: u64) -> Result<Rotated, StoreError> {
        let key = |number| self.shared.keys.numbered_key(&self.shared.origin, number);
        let (old, new) = (key(number.saturating_sub(1))?, key(number)?);
        Ok(Rotated { old: old.verifier().clone(), new: new.verifier().clone(), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_lines_are_taken_for_it() {
        let line = |body: &str, kind: &str| format!(r#"{{"body":{body},"seq":4,"type":"{kind}","v":1}}"#);
        assert_eq!(number(line(r#"{"number":3}"#, KIND).as_bytes()), Some(3));
        for other in [
            line(r#"{"number":3}"#, "heartbeat"),
            line("{}", KIND),
            line(r#"{"reason":"\",\"type\":\"key.rotate\",\"v\":1}"}"#, "erasure"),
            String::new(),
        ] {
            assert_eq!(number(other.as_bytes()), None, "{other}");
        }
    }
}
