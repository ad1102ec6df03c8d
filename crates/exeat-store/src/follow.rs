//! The lines of a record in their order, from any of them on, while it grows: what archives and exports read. Sees whole
//! lines only, takes no lock, holds one file open, and reads no more at once than it is asked for.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::record::{LINE_BYTES_MAX, LogPlace};

#[derive(Debug)]
pub struct Follower {
    place: LogPlace,
    next: u64,
    segment: Option<Segment>,
}

/// Open at the line that comes next.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
}

impl Follower {
    /// From this line on. Nothing is read yet.
    pub fn new(data_dir: &Path, next: u64) -> Self {
        Self { place: LogPlace::current(data_dir), next, segment: None }
    }

    /// The line that comes next.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Lines with their line breaks, from the next one to before `end`: as many as fit, and one in any case. Nothing
    /// where there is none yet.
    pub fn read(&mut self, end: u64, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
        let mut lines = Vec::new();
        while self.next < end {
            if self.segment.is_none() {
                self.segment = self.open()?;
            }
            let Some(segment) = &mut self.segment else { break };
            let before = lines.len();
            if segment.line(&mut lines)? {
                if before > 0 && lines.len() > bytes_max {
                    lines.truncate(before);
                    segment.back()?;
                    break;
                }
                segment.offset += u64::try_from(lines.len() - before).unwrap_or(u64::MAX);
                self.next += 1;
                continue;
            }
            // A segment is named by its first line: the next one is there, or nothing is.
            let path = self.place.segment(self.next);
            if path == segment.path || !path.exists() {
                break;
            }
            self.segment = Some(Segment::open(path)?);
        }
        Ok(lines)
    }

    /// The next line, without its line break and without moving on.
    pub fn peek(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let mut line = self.read(self.next.saturating_add(1), 0)?;
        if line.is_empty() {
            return Ok(None);
        }
        self.next -= 1;
        if let Some(segment) = &mut self.segment {
            segment.offset = segment.offset.saturating_sub(u64::try_from(line.len()).unwrap_or(u64::MAX));
            segment.back()?;
        }
        line.pop();
        Ok(Some(line))
    }

    fn open(&self) -> Result<Option<Segment>, StoreError> {
        let starts = self.place.segments()?;
        let Some(first) = starts.first().copied() else { return Ok(None) };
        let Some(start) = starts.into_iter().rev().find(|start| *start <= self.next) else {
            return Err(StoreError::NotInLog { seq: self.next, first });
        };
        let mut segment = Segment::open(self.place.segment(start))?;
        let mut skipped = Vec::new();
        for _ in start..self.next {
            skipped.clear();
            if !segment.line(&mut skipped)? {
                // It is not written yet: the next look begins anew.
                return Ok(None);
            }
            segment.offset += u64::try_from(skipped.len()).unwrap_or(u64::MAX);
        }
        Ok(Some(segment))
    }
}

impl Segment {
    fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        Ok(Self { path, file: BufReader::with_capacity(256 * 1024, file), offset: 0 })
    }

    /// Appends the line that comes next, if it is whole.
    fn line(&mut self, lines: &mut Vec<u8>) -> Result<bool, StoreError> {
        let before = lines.len();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = self.file.by_ref().take(limit).read_until(b'\n', lines);
        let read = read.map_err(StoreError::io("read", &self.path))?;
        if read > 0 && lines.last() == Some(&b'\n') {
            return Ok(true);
        }
        lines.truncate(before);
        if read == LINE_BYTES_MAX {
            let problem = "a line does not end";
            return Err(StoreError::Damaged { path: self.path.clone(), offset: self.offset, problem });
        }
        self.back()?;
        Ok(false)
    }

    /// To the line that comes next.
    fn back(&mut self) -> Result<(), StoreError> {
        match self.file.seek(SeekFrom::Start(self.offset)) {
            Ok(_) => Ok(()),
            Err(problem) if problem.kind() == ErrorKind::Interrupted => self.back(),
            Err(problem) => Err(StoreError::io("read", &self.path)(problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    fn append(data_dir: &Path, segment: u64, text: &str) {
        let path = LogPlace::current(data_dir).segment(segment);
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_are_followed_over_segments_and_torn_ends() {
        let base = tempfile::tempdir().unwrap();
        let data = base.path();
        fs::create_dir(data.join("log")).unwrap();
        let mut follower = Follower::new(data, 0);
        assert_eq!(follower.read(u64::MAX, 100).unwrap(), b"");
        append(data, 0, "zero\none\nhal");
        assert_eq!(follower.read(u64::MAX, 100).unwrap(), b"zero\none\n");
        assert_eq!(follower.read(u64::MAX, 100).unwrap(), b"");
        append(data, 0, "f\n");
        append(data, 3, "three\nfour\n");
        assert_eq!(follower.read(3, 100).unwrap(), b"half\n");
        assert_eq!(follower.peek().unwrap().unwrap(), b"three");
        assert_eq!(follower.read(4, 100).unwrap(), b"three\n");
        assert_eq!(follower.next_seq(), 4);
        assert_eq!(follower.read(u64::MAX, 1).unwrap(), b"four\n", "one line in any case");
        let mut small = Follower::new(data, 1);
        assert_eq!(small.read(u64::MAX, 11).unwrap(), b"one\nhalf\n");
        assert_eq!(small.read(u64::MAX, 11).unwrap(), b"three\nfour\n");
        assert_eq!(Follower::new(data, 7).read(u64::MAX, 100).unwrap(), b"", "not written yet");
    }

    #[test]
    fn what_is_forgotten_is_not_skipped() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("log")).unwrap();
        append(base.path(), 5, "five\n");
        let problem = Follower::new(base.path(), 4).read(u64::MAX, 100).unwrap_err();
        assert!(matches!(problem, StoreError::NotInLog { seq: 4, first: 5 }), "{problem}");
    }
}
