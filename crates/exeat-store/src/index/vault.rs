//! Sealed blobs, opened by the slot that the index knows a session's key by: no need to look for the session's start.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use ring::digest::{SHA256, digest};

use super::line::Sealed;
use crate::keys::{DataKey, KeySet};
use crate::read::{BlobKind, BlobRef};
use crate::record::{BLOB_BYTES_MAX, open_frame};
use crate::stored::Stored;
use crate::{StoreError, hex};

/// Data keys kept at hand.
const KEYS_MAX: usize = 4096;

pub(super) struct Vault<'k> {
    keys: &'k KeySet,
    stored: Stored,
    known: HashMap<i64, Option<DataKey>>,
}

/// Whose blob it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) session: i64,
    pub(super) name: &'a str,
    pub(super) slot: Option<i64>,
}

impl<'k> Vault<'k> {
    pub(super) fn open(data_dir: &Path, keys: &'k KeySet) -> Self {
        Self { keys, stored: Stored::of(data_dir), known: HashMap::new() }
    }

    /// `None`: erased, or not readable as what it should be.
    pub(super) fn unseal(
        &mut self,
        owner: Owner<'_>,
        kind: BlobKind,
        at: Sealed,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.unseal_as(owner, (kind, at), |_| true)
    }

    /// The same, where it is the one whose digest a line has.
    pub(super) fn unseal_named(&mut self, owner: Owner<'_>, blob: &BlobRef) -> Result<Option<Vec<u8>>, StoreError> {
        let at = Sealed { segment: blob.segment, offset: blob.offset, bytes: blob.bytes };
        let is_it = |sealed: &[u8]| hex::text(digest(&SHA256, sealed).as_ref()) == blob.sha256;
        self.unseal_as(owner, (blob.kind, at), is_it)
    }

    fn unseal_as(
        &mut self,
        owner: Owner<'_>,
        (kind, at): (BlobKind, Sealed),
        is_it: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(length) = usize::try_from(at.bytes).ok().filter(|bytes| *bytes <= BLOB_BYTES_MAX) else {
            return Ok(None);
        };
        if !self.known.contains_key(&owner.session) {
            if self.known.len() >= KEYS_MAX {
                self.known.clear();
            }
            let key = self.data_key(owner)?;
            self.known.insert(owner.session, key);
        }
        let Some(key) = self.known.get(&owner.session).and_then(Option::as_ref) else { return Ok(None) };
        let sealed = there(self.stored.blob_bytes(at.segment, at.offset, length))?.filter(|sealed| is_it(sealed));
        let frame = sealed.and_then(|sealed| key.open(kind.aad(), &sealed));
        Ok(frame.and_then(|frame| open_frame(&frame)))
    }

    fn data_key(&self, owner: Owner<'_>) -> Result<Option<DataKey>, StoreError> {
        let slot = owner.slot.and_then(|slot| u64::try_from(slot).ok());
        let Some(slot) = slot else { return Ok(None) };
        let wrapped = there(self.stored.slot(slot))?.filter(|wrapped| wrapped.iter().any(|byte| *byte != 0));
        Ok(wrapped.and_then(|wrapped| self.keys.unwrap_data_key(owner.name, &wrapped).ok()))
    }
}

/// What is not there, or not to its end, is none.
fn there(read: Result<Vec<u8>, StoreError>) -> Result<Option<Vec<u8>>, StoreError> {
    match read {
        Err(StoreError::Io { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) =>
        {
            Ok(None)
        }
        read => read.map(Some),
    }
}

impl std::fmt::Debug for Vault<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(hidden)")
    }
}

/// As the index keeps it: `segment:offset:bytes`, and an encoding that is not UTF-8 behind it.
pub(super) fn parse_place(text: &str) -> Option<(Sealed, Option<&str>)> {
    let mut parts = text.splitn(4, ':');
    let mut number = || parts.next()?.parse().ok();
    let sealed = Sealed { segment: number()?, offset: number()?, bytes: number()? };
    Some((sealed, parts.next()))
}
