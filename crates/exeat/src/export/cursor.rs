//! How far an export has come, on the disk: whose log, which line comes next, which checkpoint was told last. Written whole or
//! not at all, after what it says was taken: a gateway that is killed before tells some lines again.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ExportError;

const FOLDER: &str = "export";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// The log's origin: another one begins at 0 again.
    pub(super) log: String,
    /// The line that comes next.
    pub(super) next: u64,
    /// Of the checkpoint that was told last.
    pub(super) checkpoint: u64,
}

#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
}

impl Cursor {
    pub(super) fn of(data_dir: &Path, name: &str) -> Self {
        Self { path: data_dir.join(FOLDER).join(name) }
    }

    /// `None`: nothing was ever taken.
    pub(super) fn read(&self) -> Result<Option<Position>, ExportError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(problem) if problem.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed("read", source)),
        };
        let position = serde_json::from_slice(&text).ok().and_then(|value: Value| {
            let number = |member| value.get(member)?.as_u64();
            let log = value.get("log")?.as_str()?.to_owned();
            Some(Position { log, next: number("next")?, checkpoint: number("checkpoint")? })
        });
        position.map(Some).ok_or_else(|| ExportError::Cursor { path: self.path.clone() })
    }

    pub(super) fn write(&self, position: &Position) -> Result<(), ExportError> {
        if let Some(folder) = self.path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|source| self.failed("make the folder of", source))?;
        }
        let Position { log, next, checkpoint } = position;
        let text = json!({"checkpoint": checkpoint, "log": log, "next": next}).to_string();
        let unfinished = self.path.with_extension("unfinished");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_data()))
            .and_then(|()| fs::rename(&unfinished, &self.path));
        written.map_err(|source| self.failed("write", source))
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> ExportError {
        ExportError::CursorFile { action, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_what_was_written_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let cursor = Cursor::of(folder.path(), "siem");
        assert_eq!(cursor.read().unwrap(), None);
        for next in [1, 20] {
            let position = Position { log: "gateway/1".to_owned(), next, checkpoint: next / 2 };
            cursor.write(&position).unwrap();
            assert_eq!(cursor.read().unwrap(), Some(position));
        }
        for text in ["", "{", "{}", r#"{"log":"x","next":-1,"checkpoint":0}"#] {
            fs::write(folder.path().join("export/siem"), text).unwrap();
            assert!(matches!(cursor.read(), Err(ExportError::Cursor { .. })), "{text}");
        }
    }
}
