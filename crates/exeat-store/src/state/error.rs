//! What can go wrong with the state store. Names the store and the next step; never a value.

use crate::StoreError;
use crate::state::address::AddressError;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Files(#[from] StoreError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(
        "could not open the state store \"{place}\"; restore it from a backup, or move it away to begin without bindings and counters"
    )]
    Open { place: String, source: sqlx::Error },
    #[error("could not reach the state store \"{place}\"; the login must be able to create and write tables there")]
    Reach { place: String, source: sqlx::Error },
    #[error(
        "state store \"{place}\" is damaged: {problem}; restore it from a backup, or move it away to begin without bindings and counters"
    )]
    Damaged { place: String, problem: String },
    #[error(
        "state store \"{place}\" has version {found}, this gateway knows versions up to {known}; run a newer gateway"
    )]
    Newer { place: String, found: i64, known: i64 },
    #[error(
        "state store \"{place}\" belongs to gateways with another master key; all gateways of one store need the same keys"
    )]
    OtherKey { place: String },
    #[error("state store \"{place}\" has the encoding {found}; give the gateways a database in UTF8")]
    Encoding { place: String, found: String },
    #[error("could not {action} in the state store")]
    Access { action: &'static str, source: sqlx::Error },
    #[error("could not {action} in the state store within the limit of {seconds} s")]
    Slow { action: &'static str, seconds: u64 },
    #[error("could not {action} in the state store: the gateway is ending")]
    Ending { action: &'static str },
    #[error("{what} in the state store does not read as this gateway wrote it; restore the store from a backup")]
    Shape { what: &'static str },
    #[error("a statement tries {values} values, the limit is {limit} at once")]
    TooManyValues { values: usize, limit: usize },
    #[error("a statement is counted on {counters} counters, the limit is {limit} at once")]
    TooManyCounters { counters: usize, limit: usize },
    #[error("a request shows {bytes} bytes, the limit is {limit}")]
    CardTooLong { bytes: usize, limit: usize },
}

/// What can go wrong inside one access; which access it was is known where it began.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(sqlx::Error),
    Shape(&'static str),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    pub(super) fn of(self, action: &'static str) -> StateError {
        match self {
            Self::Sql(source) => StateError::Access { action, source },
            Self::Shape(what) => StateError::Shape { what },
        }
    }
}
