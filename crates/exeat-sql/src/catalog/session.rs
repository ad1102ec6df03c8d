//! The part of a session's state that names resolve against, as read by `SESSION_STATE_QUERY`.

use std::sync::Arc;
use std::time::Duration;

use super::{CatalogError, Oid};
use crate::Scope;

const NAME: &str = "session state";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    pub database: Oid,
    /// Schemas in resolution order: pg_temp first if it exists, pg_catalog where the server puts it, nothing the
    /// role may not use.
    pub search_path: Vec<Oid>,
    /// Schemas that the current user may use.
    pub usable: Vec<Oid>,
    pub current_user: String,
    pub session_user: String,
    pub client_encoding: String,
    pub standard_conforming_strings: bool,
    /// Whether each query of the transaction sees what was committed before it.
    pub reads_committed: bool,
    /// The server shows this role what it hides from others: every setting, and where it was set.
    pub administrator: bool,
    /// The server replays another's changes: they may cancel what waits here.
    pub standby: bool,
    pub time_outs: TimeOuts,
}

/// How long the server lets a session take; `None`: as long as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeOuts {
    pub statement: Option<Duration>,
    pub transaction: Option<Duration>,
    pub idle_in_transaction: Option<Duration>,
}

impl SessionState {
    /// The thirteen text values of the row, in order.
    pub fn from_row(row: &[Option<String>]) -> Result<Self, CatalogError> {
        let [database, path, usable, current_user, session_user, encoding, strings, isolation, rest @ ..] = row else {
            return Err(shape(format!("{} columns instead of 13", row.len())));
        };
        let [administrator, standby, statement, transaction, idle] = rest else {
            return Err(shape(format!("{} columns instead of 13", row.len())));
        };
        Ok(Self {
            database: oid(text(database, "database")?)?,
            // pg_catalog is always searched, so an empty path means a row we must not trust.
            search_path: text(path, "search path")?.split(',').map(oid).collect::<Result<_, _>>()?,
            usable: text(usable, "usable schemas")?.split(',').map(oid).collect::<Result<_, _>>()?,
            current_user: text(current_user, "current user")?.to_owned(),
            session_user: text(session_user, "session user")?.to_owned(),
            client_encoding: text(encoding, "client encoding")?.to_owned(),
            standard_conforming_strings: match text(strings, "standard_conforming_strings")? {
                "on" => true,
                "off" => false,
                other => return Err(shape(format!("standard_conforming_strings is {other:?}"))),
            },
            reads_committed: matches!(text(isolation, "transaction_isolation")?, "read committed" | "read uncommitted"),
            administrator: boolean(text(administrator, "administrator")?, "whether the role is an administrator")?,
            standby: boolean(text(standby, "standby")?, "whether the server is a standby")?,
            time_outs: TimeOuts {
                statement: time_out(text(statement, "statement_timeout")?)?,
                // Servers before 17 have none.
                transaction: transaction.as_deref().map_or(Ok(None), time_out)?,
                idle_in_transaction: time_out(text(idle, "idle_in_transaction_session_timeout")?)?,
            },
        })
    }

    /// `settled`: as in [`Scope`]. Nothing is hidden in it.
    pub fn scope(&self, settled: bool) -> Scope {
        let (role, hidden) = (self.current_user.clone(), Arc::default());
        Scope { search_path: self.search_path.clone(), usable: self.usable.clone(), role, settled, hidden }
    }
}

fn text<'a>(cell: &'a Option<String>, what: &str) -> Result<&'a str, CatalogError> {
    cell.as_deref().ok_or_else(|| shape(format!("{what} is null")))
}

fn boolean(text: &str, what: &str) -> Result<bool, CatalogError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(shape(format!("{what} is {other:?}"))),
    }
}

/// As the server shows it: a number and the largest unit that divides it.
fn time_out(text: &str) -> Result<Option<Duration>, CatalogError> {
    let unknown = || shape(format!("a time-out of {text:?}"));
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let millis = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(unknown()),
    };
    let number: u64 = number.parse().map_err(|_| unknown())?;
    Ok((number > 0).then(|| Duration::from_millis(number.saturating_mul(millis))))
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

    const REST: [&str; 4] = ["false", "0", "0", "0"];

    fn row(cells: &[&str]) -> Vec<Option<String>> {
        cells.iter().chain(&REST).map(|c| Some((*c).to_owned())).collect()
    }

    #[test]
    fn time_outs_are_read_as_the_server_shows_them() {
        let millis = |text| time_out(text).unwrap().map(|time| time.as_millis());
        assert_eq!(
            ["0", "1500ms", "5s", "2min", "1h", "1d"].map(millis),
            [None, Some(1500), Some(5000), Some(120_000), Some(3_600_000), Some(86_400_000)]
        );
        for text in ["", "5 s", "-1", "5w", "s"] {
            assert!(time_out(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn reads_the_row_of_a_plain_session() {
        let row = row(&["5", "11,2200", "11", "agent", "agent", "UTF8", "on", "read committed", "false"]);
        let state = SessionState::from_row(&row).unwrap();
        assert_eq!(state.scope(true).search_path, [Oid(11), Oid(2200)]);
        assert_eq!(state.usable, [Oid(11)]);
        assert!(state.standard_conforming_strings && state.reads_committed && !state.administrator);
    }

    #[test]
    fn refuses_a_row_it_cannot_read_whole() {
        for cells in [
            &["5", "", "11", "a", "a", "UTF8", "on", "serializable", "false"][..],
            &["5", "11,x", "11", "a", "a", "UTF8", "on", "serializable", "false"],
            &["-5", "11", "11", "a", "a", "UTF8", "on", "serializable", "false"],
            &["5", "11", "", "a", "a", "UTF8", "on", "serializable", "false"],
            &["5", "11", "11", "a", "a", "UTF8", "maybe", "serializable", "false"],
            &["5", "11", "11", "a", "a", "UTF8", "on", "serializable", "maybe"],
            &["5", "11", "11", "a", "a", "UTF8", "on", "serializable"],
        ] {
            assert!(SessionState::from_row(&row(cells)).is_err(), "{cells:?}");
        }
        for (place, wrong) in [(9, "maybe"), (10, "soon"), (12, "")] {
            let mut cells = row(&["5", "11", "11", "a", "a", "UTF8", "on", "serializable", "true"]);
            assert!(SessionState::from_row(&cells).is_ok());
            cells[place] = Some(wrong.to_owned());
            assert!(SessionState::from_row(&cells).is_err(), "{place}");
        }
        let mut null = row(&["5", "11", "11", "a", "a", "UTF8", "on", "serializable", "true"]);
        null[1] = None;
        assert!(SessionState::from_row(&null).is_err());
    }
}
