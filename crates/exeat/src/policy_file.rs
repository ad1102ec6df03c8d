//! The policy on disk: a file, or the `.yaml` files of a folder, read whole and loaded whole.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use exeat_policy::document::{DOCUMENT_BYTES_MAX, Diagnostics};
use exeat_policy::load::POLICY_FILES_MAX;
use exeat_policy::{Policy, PolicyContext};
use ring::digest::{Context, SHA256};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyFileError {
    #[error("could not read policy \"{}\"; check policy.path", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("policy folder \"{}\" holds no .yaml file; an empty policy refuses everything, so write one", path.display())]
    Empty { path: PathBuf },
    #[error("policy folder \"{}\" holds more than the limit of {POLICY_FILES_MAX} files", path.display())]
    TooMany { path: PathBuf },
    #[error("policy file \"{}\" exceeds the limit of {DOCUMENT_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("{0}")]
    Mistakes(Diagnostics),
}

/// The bytes of a policy at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyText {
    /// (path as shown in messages, text), in path order.
    files: Vec<(String, String)>,
    sha256: String,
}

impl PolicyText {
    pub(crate) fn read(path: &Path) -> Result<Self, PolicyFileError> {
        let paths = if path.is_dir() { folder(path)? } else { vec![path.to_owned()] };
        let mut files = Vec::with_capacity(paths.len());
        let mut digest = Context::new(&SHA256);
        for path in paths {
            let text = read_bounded(&path)?;
            digest.update(text.as_bytes());
            files.push((path.display().to_string(), text));
        }
        let sha256 = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { files, sha256 })
    }

    /// Of the files' bytes in path order, hex.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    pub(crate) fn load(&self, context: &PolicyContext) -> Result<Policy, PolicyFileError> {
        Policy::load(&self.files, context).map_err(PolicyFileError::Mistakes)
    }
}

/// Hidden files are an editor's, not the policy's.
fn folder(path: &Path) -> Result<Vec<PathBuf>, PolicyFileError> {
    let error = |source| PolicyFileError::Read { path: path.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(error)? {
        let file = entry.map_err(error)?.path();
        let hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && file.is_file() {
            paths.push(file);
        }
        if paths.len() > POLICY_FILES_MAX {
            return Err(PolicyFileError::TooMany { path: path.to_owned() });
        }
    }
    if paths.is_empty() {
        return Err(PolicyFileError::Empty { path: path.to_owned() });
    }
    paths.sort();
    Ok(paths)
}

fn read_bounded(path: &Path) -> Result<String, PolicyFileError> {
    let error = |source| PolicyFileError::Read { path: path.to_owned(), source };
    let limit = u64::try_from(DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    let file = fs::File::open(path).map_err(error)?;
    file.take(limit.saturating_add(1)).read_to_string(&mut text).map_err(error)?;
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(PolicyFileError::TooLong { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "version: 1\nrules:\n  - {id: one, allow: [read]}\n";
    const TWO: &str = "version: 1\nrules:\n  - {id: two, allow: [read]}\n";

    fn rule_ids(path: &Path) -> Vec<String> {
        let policy = PolicyText::read(path).unwrap().load(&PolicyContext::default()).unwrap();
        policy.rules().iter().map(|rule| rule.id().to_owned()).collect()
    }

    #[test]
    fn a_folder_is_its_yaml_files_in_order_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.yaml"), TWO).unwrap();
        fs::write(folder.path().join("a.yml"), ONE).unwrap();
        fs::write(folder.path().join(".draft.yaml"), "not: [a policy").unwrap();
        fs::write(folder.path().join("notes.txt"), "not a policy").unwrap();
        assert_eq!(rule_ids(folder.path()), ["one", "two"]);
    }

    #[test]
    fn an_empty_folder_is_refused_and_so_is_a_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(PolicyText::read(folder.path()), Err(PolicyFileError::Empty { .. })));
        let missing = PolicyText::read(&folder.path().join("absent.yaml")).unwrap_err();
        assert!(matches!(missing, PolicyFileError::Read { .. }));
        assert!(missing.to_string().contains("absent.yaml"), "{missing}");
    }

    #[test]
    fn another_byte_is_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        fs::write(&file, ONE).unwrap();
        let before = PolicyText::read(&file).unwrap();
        fs::write(&file, format!("{ONE}# reviewed\n")).unwrap();
        assert_ne!(before.sha256(), PolicyText::read(&file).unwrap().sha256());
    }
}
