//! The fields of ErrorResponse and NoticeResponse: read, built, written. Values tolerate any encoding, because an
//! error before login comes in whatever encoding the server likes, and losing the error would hide its cause.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::frame::Frame;
use crate::reader::Reader;
use crate::text::Hidden;

/// The protocol defines 18 codes, each at most once.
pub const FIELDS_MAX: usize = 64;

/// Longest text of one field that we build. A refusal's detail is far below it.
pub const FIELD_TEXT_BYTES_MAX: usize = 256 * 1024;

/// Field codes of the protocol.
pub mod code {
    /// Localized severity.
    pub const SEVERITY: u8 = b'S';
    /// Severity, never localized (since PostgreSQL 9.6).
    pub const SEVERITY_PLAIN: u8 = b'V';
    pub const SQLSTATE: u8 = b'C';
    pub const MESSAGE: u8 = b'M';
    pub const DETAIL: u8 = b'D';
    pub const HINT: u8 = b'H';
    pub const POSITION: u8 = b'P';
}

#[derive(Clone, PartialEq, Eq)]
pub struct Fields {
    entries: Vec<(u8, Bytes)>, // INVARIANT: no code is 0 or comes twice, no value holds NUL.
    frame: Option<Frame>,
}

impl Fields {
    /// A new error or notice. `severity` goes into both severity fields.
    pub fn new(severity: &str, sqlstate: &str, message: &str) -> Self {
        Self { entries: Vec::with_capacity(6), frame: None }
            .with(code::SEVERITY, severity)
            .with(code::SEVERITY_PLAIN, severity)
            .with(code::SQLSTATE, sqlstate)
            .with(code::MESSAGE, message)
    }

    /// Sets one field. NUL would end the value and let the rest be read as other fields, so it becomes U+FFFD;
    /// text beyond [`FIELD_TEXT_BYTES_MAX`] is cut. Code 0 is the protocol's end mark and is ignored.
    #[must_use]
    pub fn with(mut self, code: u8, text: &str) -> Self {
        if code == 0 {
            return self;
        }
        self.frame = None; // what came no longer is what this says
        let value = Bytes::from(safe_text(text).into_owned());
        match self.entries.iter_mut().find(|(known, _)| *known == code) {
            Some((_, old)) => *old = value,
            None => self.entries.push((code, value)),
        }
        self
    }

    /// Keeps the named fields only.
    #[must_use]
    pub fn only(mut self, codes: &[u8]) -> Self {
        self.entries.retain(|(code, _)| codes.contains(code));
        self.frame = None;
        self
    }

    /// A field's text; bytes that are not UTF-8 are replaced.
    pub fn get(&self, code: u8) -> Option<Cow<'_, str>> {
        self.get_bytes(code).map(String::from_utf8_lossy)
    }

    pub fn get_bytes(&self, code: u8) -> Option<&[u8]> {
        self.entries.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_ref())
    }

    /// Codes and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.entries.iter().map(|(code, value)| (*code, value.as_ref()))
    }

    /// The severity in English, whatever language the server speaks.
    pub fn severity(&self) -> Option<Cow<'_, str>> {
        self.get(code::SEVERITY_PLAIN).or_else(|| self.get(code::SEVERITY))
    }

    pub fn sqlstate(&self) -> Option<Cow<'_, str>> {
        self.get(code::SQLSTATE)
    }

    pub fn message(&self) -> Option<Cow<'_, str>> {
        self.get(code::MESSAGE)
    }

    /// FATAL or PANIC: the connection ends with this error.
    pub fn ends_connection(&self) -> bool {
        matches!(self.severity().as_deref(), Some("FATAL" | "PANIC"))
    }

    /// The message as it came, if it came from a server and was not changed since.
    pub fn frame(&self) -> Option<&Frame> {
        self.frame.as_ref()
    }

    pub fn encode_error(&self, out: &mut BytesMut) {
        self.encode(b'E', out);
    }

    pub fn encode_notice(&self, out: &mut BytesMut) {
        self.encode(b'N', out);
    }

    fn encode(&self, tag: u8, out: &mut BytesMut) {
        let body: usize = self.entries.iter().map(|(_, value)| value.len().saturating_add(2)).sum();
        // INVARIANT: a decoded message has less than 1 GiB, and built fields add at most FIELDS_MAX limits to it.
        let length = u32::try_from(body.saturating_add(5)).unwrap_or(u32::MAX);
        out.put_u8(tag);
        out.put_u32(length);
        for (code, value) in &self.entries {
            out.put_u8(*code);
            out.extend_from_slice(value);
            out.put_u8(0);
        }
        out.put_u8(0);
    }

    pub(crate) fn decode(message: &'static str, frame: Frame) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message, frame.payload());
        let mut entries: Vec<(u8, Bytes)> = Vec::new();
        loop {
            let code = reader.u8()?;
            if code == 0 {
                break;
            }
            if entries.iter().any(|(known, _)| *known == code) {
                return Err(DecodeError::Duplicate { message, what: "field" });
            }
            if entries.len() == FIELDS_MAX {
                let count = entries.len().saturating_add(1);
                return Err(DecodeError::TooMany { message, what: "fields", count, limit: FIELDS_MAX });
            }
            entries.push((code, reader.c_bytes()?));
        }
        reader.finish()?;
        Ok(Self { entries, frame: Some(frame) })
    }
}

fn safe_text(text: &str) -> Cow<'_, str> {
    let text = text.get(..text.floor_char_boundary(FIELD_TEXT_BYTES_MAX)).unwrap_or_default();
    if memchr::memchr(0, text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\0', "\u{fffd}"))
}

/// Severity, SQLSTATE and sizes: messages and details quote values.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (code, value) in self.iter() {
            let key = char::from(code);
            match code {
                code::SEVERITY_PLAIN | code::SQLSTATE => map.entry(&key, &String::from_utf8_lossy(value)),
                _ => map.entry(&key, &Hidden(value.len())),
            };
        }
        map.finish()
    }
}
