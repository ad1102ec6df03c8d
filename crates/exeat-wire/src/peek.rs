//! What the record needs of a message that is passed on unchanged, read in place. Tolerates text in any encoding
//! and copies nothing; a message that does not follow the protocol has no view, and the server will say so itself.

use std::fmt;

use crate::frame::HEADER_BYTES;

/// The text of a Query.
pub fn query(frame: &[u8]) -> Option<&[u8]> {
    let (sql, rest) = c_str(frame.get(HEADER_BYTES..)?)?;
    rest.is_empty().then_some(sql)
}

/// A Parse: the statement's name and its text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParseView<'a> {
    pub name: &'a [u8],
    pub sql: &'a [u8],
}

pub fn parse(frame: &[u8]) -> Option<ParseView<'_>> {
    let (name, rest) = c_str(frame.get(HEADER_BYTES..)?)?;
    let (sql, rest) = c_str(rest)?;
    let (types, rest) = count(rest)?;
    (rest.len() == types * 4).then_some(ParseView { name, sql })
}

/// A Bind: whom it binds, and what it brings.
#[derive(Clone, PartialEq, Eq)]
pub struct BindView<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// Value, and whether it is binary; `None` is NULL.
    pub parameters: Vec<(Option<&'a [u8]>, bool)>,
}

pub fn bind(frame: &[u8]) -> Option<BindView<'_>> {
    let (portal, rest) = c_str(frame.get(HEADER_BYTES..)?)?;
    let (statement, rest) = c_str(rest)?;
    let (parameters, _result_formats) = values(rest)?;
    Some(BindView { portal, statement, parameters })
}

/// A FunctionCall: which function, and what it is given.
#[derive(Clone, PartialEq, Eq)]
pub struct CallView<'a> {
    pub oid: u32,
    /// Value, and whether it is binary; `None` is NULL.
    pub arguments: Vec<(Option<&'a [u8]>, bool)>,
}

pub fn function_call(frame: &[u8]) -> Option<CallView<'_>> {
    let (oid, rest) = frame.get(HEADER_BYTES..)?.split_first_chunk::<4>()?;
    let (arguments, rest) = values(rest)?;
    (rest.len() == 2).then_some(CallView { oid: u32::from_be_bytes(*oid), arguments })
}

/// Format codes and the values that they are of, and what follows them.
type Values<'a> = (Vec<(Option<&'a [u8]>, bool)>, &'a [u8]);

fn values(bytes: &[u8]) -> Option<Values<'_>> {
    let (formats, rest) = count(bytes)?;
    let (formats, rest) = rest.split_at_checked(formats * 2)?;
    let (values, mut rest) = count(rest)?;
    let mut found = Vec::with_capacity(values.min(rest.len() / 4));
    for index in 0..values {
        let (value, after) = value(rest)?;
        found.push((value, is_binary(formats, index)));
        rest = after;
    }
    Some((found, rest))
}

/// No codes: text; one: for all; else one each.
fn is_binary(formats: &[u8], index: usize) -> bool {
    let at = if formats.len() == 2 { 0 } else { index * 2 };
    formats.get(at..).and_then(|code| code.first_chunk::<2>()) == Some(&[0, 1])
}

/// The portal an Execute runs.
pub fn execute(frame: &[u8]) -> Option<&[u8]> {
    let (portal, rest) = c_str(frame.get(HEADER_BYTES..)?)?;
    (rest.len() == 4).then_some(portal)
}

/// What a Close or Describe names: `b'S'` or `b'P'`, and the name.
pub fn named(frame: &[u8]) -> Option<(u8, &[u8])> {
    let (kind, rest) = frame.get(HEADER_BYTES..)?.split_first()?;
    let (name, rest) = c_str(rest)?;
    rest.is_empty().then_some((*kind, name))
}

/// The setting that a ParameterStatus names, and its value.
pub fn parameter_status(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = c_str(frame.get(HEADER_BYTES..)?)?;
    let (value, rest) = c_str(rest)?;
    rest.is_empty().then_some((name, value))
}

/// The tag of a CommandComplete.
pub fn command_tag(frame: &[u8]) -> Option<&[u8]> {
    query(frame)
}

/// What stands first in an ErrorResponse. Reads as much as there is: a long error is not assembled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorView<'a> {
    /// FATAL or PANIC: the connection ends with it.
    pub fatal: bool,
    pub sqlstate: Option<&'a [u8]>,
}

pub fn error(seen: &[u8]) -> ErrorView<'_> {
    let mut view = ErrorView { fatal: false, sqlstate: None };
    let mut rest = seen.get(HEADER_BYTES..).unwrap_or_default();
    let mut plain_severity = false;
    while let Some((&code, after)) = rest.split_first()
        && code != 0
        && let Some((text, after)) = c_str(after)
    {
        match code {
            // The localized severity counts only where a server older than 9.6 sends no other.
            b'V' => {
                plain_severity = true;
                view.fatal = ends_connection(text);
            }
            b'S' if !plain_severity => view.fatal = ends_connection(text),
            b'C' => view.sqlstate = Some(text),
            _ => {}
        }
        rest = after;
    }
    view
}

fn ends_connection(severity: &[u8]) -> bool {
    matches!(severity, b"FATAL" | b"PANIC")
}

fn c_str(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn count(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    Some((usize::from(u16::from_be_bytes(*count)), rest))
}

fn value(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    match i32::from_be_bytes(*length) {
        -1 => Some((None, rest)),
        length => {
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some(value), rest))
        }
    }
}

impl fmt::Debug for ParseView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParseView").field("sql_bytes", &self.sql.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for BindView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BindView").field("parameters", &self.parameters.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for CallView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = self.arguments.len();
        f.debug_struct("CallView").field("oid", &self.oid).field("arguments", &arguments).finish_non_exhaustive()
    }
}

impl fmt::Debug for ErrorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorView").field("fatal", &self.fatal).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::{Fields, encode};

    #[test]
    fn what_the_encoder_writes_is_read_back() {
        let mut out = BytesMut::new();
        encode::parse(&mut out, "name", "SELECT $1", &[25]).unwrap();
        let view = parse(&out).unwrap();
        assert_eq!((view.name, view.sql), (&b"name"[..], &b"SELECT $1"[..]));
        assert!(parse(&out[..out.len() - 1]).is_none());

        let mut out = BytesMut::new();
        encode::query(&mut out, "SELECT 1").unwrap();
        assert_eq!(query(&out), Some(&b"SELECT 1"[..]));
        out.extend_from_slice(b"more");
        assert_eq!(query(&out), None);
    }

    #[test]
    fn a_parameter_status_shows_its_setting() {
        let mut out = BytesMut::new();
        encode::parameter_status(&mut out, "client_encoding", "LATIN1").unwrap();
        assert_eq!(parameter_status(&out), Some((&b"client_encoding"[..], &b"LATIN1"[..])));
        assert_eq!(parameter_status(&out[..out.len() - 1]), None);
    }

    #[test]
    fn a_bind_shows_its_values_with_their_formats() {
        let frame = b"B\0\0\0\x2ap\0s\0\0\x02\0\0\0\x01\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x01b\0\0";
        let view = bind(frame).unwrap();
        assert_eq!((view.portal, view.statement), (&b"p"[..], &b"s"[..]));
        assert_eq!(view.parameters, [(Some(&b"a"[..]), false), (None, true), (Some(&b"b"[..]), false)]);
        assert!(bind(&frame[..frame.len() - 4]).is_none());
    }

    #[test]
    fn a_call_shows_its_function_and_what_it_is_given() {
        let frame = b"F\0\0\0\x1b\0\0\0\xb1\0\x01\0\x01\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\0";
        let view = function_call(frame).unwrap();
        assert_eq!((view.oid, view.arguments), (177, vec![(Some(&b"a"[..]), true), (None, true)]));
        for wrong in [&frame[..frame.len() - 1], &frame[..8], &[&frame[..], b"x"].concat()] {
            assert!(function_call(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn the_plain_severity_counts() {
        let mut out = BytesMut::new();
        Fields::new("FATAL", "57P01", "gone").encode_error(&mut out);
        let view = error(&out);
        assert_eq!((view.fatal, view.sqlstate), (true, Some(&b"57P01"[..])));
        let localized = b"E\0\0\0\0SFATAL\0VERROR\0C22012\0Mtext\0\0";
        assert!(!error(localized).fatal);
        assert_eq!(error(&localized[..26]).sqlstate, Some(&b"22012"[..]));
    }
}
