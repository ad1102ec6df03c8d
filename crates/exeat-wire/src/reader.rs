//! Cursor over one message's payload. Every read is checked; the names of message and content go into the error.

use bytes::Bytes;

use crate::error::DecodeError;
use crate::text::{Format, WireStr};

pub(crate) struct Reader {
    message: &'static str,
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(message: &'static str, payload: Bytes) -> Self {
        Self { message, rest: payload }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, DecodeError> {
        if count > self.rest.len() {
            return Err(DecodeError::Truncated { message: self.message });
        }
        Ok(self.rest.split_to(count))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, _)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { message: self.message });
        };
        let head = *head;
        bytes::Buf::advance(&mut self.rest, N);
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A 16-bit count of things of at least `least_bytes` each. The server reads these counts unsigned. One that
    /// the rest of the message cannot hold is refused here, so callers may allocate by it.
    pub(crate) fn count(&mut self, least_bytes: usize) -> Result<usize, DecodeError> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count.saturating_mul(least_bytes) > self.rest.len() {
            return Err(DecodeError::Truncated { message: self.message });
        }
        Ok(count)
    }

    /// Bytes up to the next NUL, which is consumed.
    pub(crate) fn c_bytes(&mut self) -> Result<Bytes, DecodeError> {
        let Some(end) = memchr::memchr(0, &self.rest) else {
            return Err(DecodeError::Truncated { message: self.message });
        };
        let bytes = self.rest.split_to(end);
        bytes::Buf::advance(&mut self.rest, 1);
        Ok(bytes)
    }

    pub(crate) fn c_str(&mut self) -> Result<WireStr, DecodeError> {
        WireStr::new(self.c_bytes()?, self.message)
    }

    pub(crate) fn format(&mut self) -> Result<Format, DecodeError> {
        Format::from_code(self.i16()?, self.message)
    }

    pub(crate) fn formats(&mut self) -> Result<Vec<Format>, DecodeError> {
        let count = self.count(2)?;
        (0..count).map(|_| self.format()).collect()
    }

    pub(crate) fn u32s(&mut self) -> Result<Vec<u32>, DecodeError> {
        let count = self.count(4)?;
        (0..count).map(|_| self.u32()).collect()
    }

    /// A value with its own length before it; -1 is NULL, any other negative length has no meaning.
    pub(crate) fn value(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let length = self.i32()?;
        match usize::try_from(length) {
            Ok(count) => Ok(Some(self.take(count)?)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::Value { message: self.message, what: "value length", value: i64::from(length) }),
        }
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// The server refuses what follows a message's content, so do we: two readers that disagree on where a
    /// message ends disagree on what it says.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::TrailingBytes { message: self.message, extra_bytes: self.rest.len() })
    }
}
