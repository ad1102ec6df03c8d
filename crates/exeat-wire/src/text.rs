//! Text and value formats as they stand in messages.

use std::fmt;

use bytes::Bytes;

use crate::error::DecodeError;

/// A string of a message: UTF-8, without NUL, a slice of the read buffer. Cloning copies no bytes.
/// `Debug` shows its size only: it may be statement text with values in it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct WireStr(Bytes); // INVARIANT: UTF-8, checked by the only constructor.

impl WireStr {
    /// The protocol leaves the encoding to the session; here it is UTF-8 or nothing, because text that is
    /// analysed in one encoding and executed in another is a hole.
    pub(crate) fn new(bytes: Bytes, message: &'static str) -> Result<Self, DecodeError> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(DecodeError::NotUtf8 { message }),
        }
    }

    pub fn as_str(&self) -> &str {
        // The check costs a pass over the bytes, but the unchecked conversion is `unsafe`. The default is out of
        // reach by the invariant.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for WireStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireStr({} bytes)", self.0.len())
    }
}

/// Stands in `Debug` output for bytes that must not be shown.
pub(crate) struct Hidden(pub(crate) usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

/// How a value is written. The protocol has two; a third would be a value no mask understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Text,
    Binary,
}

impl Format {
    pub(crate) fn from_code(code: i16, message: &'static str) -> Result<Self, DecodeError> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(DecodeError::Value { message, what: "format code", value: i64::from(other) }),
        }
    }

    pub fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }

    /// The format of value `index` where the message gave `codes`: none means all text, one means all of that.
    /// `None` when there are several and none for this value.
    pub(crate) fn of(codes: &[Format], index: usize) -> Option<Format> {
        match codes {
            [] => Some(Format::Text),
            [all] => Some(*all),
            several => several.get(index).copied(),
        }
    }
}
