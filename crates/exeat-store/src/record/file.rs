//! One file of the record: it grows by whole records, with room on the disk reserved ahead of its end.
//! A write is whole or undone: after any failure the file is cut back to its last whole record before anything else
//! is written. Its size never says more than what was written: reserved room lies behind the end and is given back
//! when the file is left.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::StoreError;

#[derive(Debug)]
pub(crate) struct AppendFile {
    file: File,
    path: PathBuf,
    /// End of the last whole record.
    len: u64,
    /// Bytes past `len` may be in the file.
    torn: bool,
    /// Written since the last sync.
    unsynced: bool,
    /// Up to here a write does not run out of space.
    reserved: u64,
    reserving: Reserving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserving {
    Works,
    /// The file system cannot, or did not keep its word.
    Fails,
}

impl AppendFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let len = file.metadata().map_err(StoreError::io("look at", &path))?.len();
        Ok(Self { file, path, len, torn: false, unsynced: true, reserved: 0, reserving: Reserving::Works })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the bytes and returns where they begin.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        self.mend()?;
        let offset = self.len;
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if let Err(source) = (&self.file).write_all(bytes) {
            self.torn = true;
            if end <= self.reserved {
                self.reserving = Reserving::Fails;
            }
            // Tried at once, so that a reader sees whole lines; tried again before the next write if it fails.
            let _ = self.mend();
            return Err(StoreError::Io { action: "append to", path: self.path.clone(), source });
        }
        self.len = end;
        self.unsynced = true;
        Ok(offset)
    }

    /// Back to `len`: what was appended after it is undone.
    pub(crate) fn cut_to(&mut self, len: u64) -> Result<(), StoreError> {
        self.len = self.len.min(len);
        self.torn = true;
        self.mend()
    }

    fn mend(&mut self) -> Result<(), StoreError> {
        if self.torn {
            self.file.set_len(self.len).map_err(StoreError::io("cut back", &self.path))?;
            self.torn = false;
            self.unsynced = true;
            // Cutting gives back whatever lies behind the end.
            self.reserved = 0;
        }
        Ok(())
    }

    /// Asks for room for `bytes` more, and returns the offset up to which there is room: `len` or less where there
    /// is none.
    pub(crate) fn reserve(&mut self, bytes: u64) -> u64 {
        let end = self.len.saturating_add(bytes);
        if self.reserving == Reserving::Works && !self.torn && self.reserved < end {
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.len, bytes) {
                Ok(()) => self.reserved = end,
                // Full today is not full tomorrow.
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::INTR) => self.keep_reserved(),
                Err(_) => self.reserving = Reserving::Fails,
            }
        }
        match self.reserving {
            Reserving::Works => self.reserved,
            Reserving::Fails => 0,
        }
    }

    /// Some file systems keep the part they had room for, and the other files may need it: only what was promised before stays.
    fn keep_reserved(&mut self) {
        let left = self.reserved.saturating_sub(self.len);
        let _ = self.file.set_len(self.len);
        if left == 0 || fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.len, left).is_err() {
            self.reserved = 0;
        }
    }

    /// Whether the disk promises room for so much more, if it promises anything.
    pub(crate) fn has_room(&mut self, bytes: u64) -> bool {
        let promised = self.reserve(bytes);
        self.reserving == Reserving::Fails || promised >= self.len.saturating_add(bytes)
    }

    /// What is written is on the disk.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        }
        Ok(())
    }
}

impl Drop for AppendFile {
    fn drop(&mut self) {
        if self.reserved > self.len {
            // What is not given back costs space until the file is opened and left again, and nothing else.
            let _ = self.file.set_len(self.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_full_device_fails_every_write_and_moves_no_end() {
        let mut file = AppendFile::open(PathBuf::from("/dev/full")).unwrap();
        let first = file.append(b"line\n").unwrap_err();
        assert!(matches!(first, StoreError::Io { action: "append to", .. }), "{first}");
        assert_eq!(file.len(), 0);
        // A device cannot be cut back, so nothing may be written after what may lie there.
        let second = file.append(b"line\n").unwrap_err();
        assert!(matches!(second, StoreError::Io { action: "cut back", .. }), "{second}");
        assert_eq!(file.reserve(1), 0);
    }

    #[test]
    fn cutting_back_undoes_what_was_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = AppendFile::open(path.clone()).unwrap();
        assert_eq!(file.append(b"one\n").unwrap(), 0);
        let second = file.append(b"two\n").unwrap();
        file.cut_to(second).unwrap();
        assert_eq!(file.append(b"three\n").unwrap(), 4);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\nthree\n");
        assert_eq!(AppendFile::open(path).unwrap().len(), 10);
    }

    #[test]
    fn reserved_room_does_not_show_in_the_size_and_is_given_back() {
        const ROOM: u64 = 4 * 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let held = || std::fs::metadata(&path).unwrap().blocks() * 512;
        let mut file = AppendFile::open(path.clone()).unwrap();
        file.append(b"line\n").unwrap();
        let room = file.reserve(ROOM);
        if room == 0 {
            return; // A file system without reservations is written through; there is nothing to give back.
        }
        assert_eq!(room, 5 + ROOM);
        assert!(held() >= ROOM);
        file.append(b"more\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"line\nmore\n");
        drop(file);
        assert!(held() < ROOM, "{}", held());
        // A crash gives nothing back; whoever opens the file next does.
        let mut crashed = AppendFile::open(path.clone()).unwrap();
        crashed.reserve(ROOM);
        std::mem::forget(crashed);
        assert!(held() >= ROOM);
        let mut again = AppendFile::open(path.clone()).unwrap();
        assert_eq!(again.len(), 10);
        again.reserve(1);
        drop(again);
        assert!(held() < ROOM, "{}", held());
        assert_eq!(std::fs::read(&path).unwrap(), b"line\nmore\n");
    }
}
