//! Sessions as the record has them: which record is meant, its index brought up to date, and a session told statement by
//! statement. Reads files only, a gateway's own or a copy; takes no lock that a gateway would wait for.

mod bundle;
mod csv;
mod html;
mod ocsf;
mod record;
mod seen;
mod story;

pub(crate) use bundle::{bundle, write_new};
pub(crate) use csv::{csv, csv_header, csv_rows};
pub(crate) use ocsf::ocsf;
pub(crate) use record::{OpenRecord, RecordError};
pub(crate) use story::{Step, Story, Telling, session_json};
