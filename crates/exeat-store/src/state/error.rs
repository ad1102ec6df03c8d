//! What can go wrong with the state store. Names the file and the next step; never a value.

use std::path::PathBuf;

use crate::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Files(#[from] StoreError),
    #[error("could not open the state store \"{}\"; restore it from a backup, or move it away to begin without bindings and counters", path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("state store \"{}\" is damaged: {problem}; restore it from a backup, or move it away to begin without bindings and counters", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("state store \"{}\" has version {found}, this gateway knows versions up to {known}; run a newer gateway", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("could not {action} in the state store")]
    Access { action: &'static str, source: sqlx::Error },
    #[error("{what} in the state store does not read as this gateway wrote it; restore the store from a backup")]
    Shape { what: &'static str },
    #[error("a statement tries {values} values, the limit is {limit} at once")]
    TooManyValues { values: usize, limit: usize },
}

impl StateError {
    pub(super) fn access(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Access { action, source }
    }
}
