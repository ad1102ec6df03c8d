//! The part of a session's state that names resolve against, as read by `SESSION_STATE_QUERY`.

use super::{CatalogError, Oid};
use crate::Scope;

const NAME: &str = "session state";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    pub database: Oid,
    /// Schemas in resolution order: pg_temp first if it exists, pg_catalog where the server puts it, nothing the
    /// role may not use.
    pub search_path: Vec<Oid>,
    pub current_user: String,
    pub session_user: String,
    pub client_encoding: String,
    pub standard_conforming_strings: bool,
}

impl SessionState {
    /// The six text values of the row, in order.
    pub fn from_row(row: &[Option<String>]) -> Result<Self, CatalogError> {
        let [database, path, current_user, session_user, encoding, strings] = row else {
            return Err(shape(format!("{} columns instead of 6", row.len())));
        };
        Ok(Self {
            database: oid(text(database, "database")?)?,
            // pg_catalog is always searched, so an empty path means a row we must not trust.
            search_path: text(path, "search path")?.split(',').map(oid).collect::<Result<_, _>>()?,
            current_user: text(current_user, "current user")?.to_owned(),
            session_user: text(session_user, "session user")?.to_owned(),
            client_encoding: text(encoding, "client encoding")?.to_owned(),
            standard_conforming_strings: match text(strings, "standard_conforming_strings")? {
                "on" => true,
                "off" => false,
                other => return Err(shape(format!("standard_conforming_strings is {other:?}"))),
            },
        })
    }

    pub fn scope(&self) -> Scope {
        Scope { search_path: self.search_path.clone() }
    }
}

fn text<'a>(cell: &'a Option<String>, what: &str) -> Result<&'a str, CatalogError> {
    cell.as_deref().ok_or_else(|| shape(format!("{what} is null")))
}

fn oid(text: &str) -> Result<Oid, CatalogError> {
    text.parse().map(Oid).map_err(|_| shape(format!("{text:?} is not an OID")))
}

fn shape(problem: String) -> CatalogError {
    CatalogError::Shape { query: NAME, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<Option<String>> {
        cells.iter().map(|c| Some((*c).to_owned())).collect()
    }

    #[test]
    fn reads_the_row_of_a_plain_session() {
        let state = SessionState::from_row(&row(&["5", "11,2200", "agent", "agent", "UTF8", "on"])).unwrap();
        assert_eq!(state.scope().search_path, [Oid(11), Oid(2200)]);
        assert!(state.standard_conforming_strings);
    }

    #[test]
    fn refuses_a_row_it_cannot_read_whole() {
        for cells in [
            &["5", "", "a", "a", "UTF8", "on"][..],
            &["5", "11,x", "a", "a", "UTF8", "on"],
            &["-5", "11", "a", "a", "UTF8", "on"],
            &["5", "11", "a", "a", "UTF8", "maybe"],
            &["5", "11", "a", "a", "UTF8"],
        ] {
            assert!(SessionState::from_row(&row(cells)).is_err(), "{cells:?}");
        }
        let mut null = row(&["5", "11", "a", "a", "UTF8", "on"]);
        null[1] = None;
        assert!(SessionState::from_row(&null).is_err());
    }
}
