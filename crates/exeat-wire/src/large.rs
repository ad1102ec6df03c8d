//! Rows and COPY data that are too long to be assembled: their header is taken off, their content is left to be
//! passed on in pieces. Everything else is a frame, as ever.

use bytes::BytesMut;

use crate::backend::{BackendMessage, decode};
use crate::error::DecodeError;
use crate::frame::{self, Frame, split_backend};

/// From this size on a row or a piece of COPY data is not assembled. Below it one copy in memory costs less than
/// the book-keeping.
pub const LARGE_FRAME_BYTES_MIN: usize = 256 * 1024;

/// The next thing a server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    Whole(Frame),
    Large(Large),
}

/// The header of a message whose content follows in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Large {
    pub kind: LargeKind,
    /// Bytes of content.
    pub payload_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LargeKind {
    Row,
    CopyData,
}

impl Large {
    /// A message of the same kind without content: to the protocol's state machine they are the same.
    pub fn stand_in(&self) -> Result<BackendMessage, DecodeError> {
        decode(match self.kind {
            LargeKind::Row => Frame::constant(b'D', b"D\0\0\0\x06\0\0"),
            LargeKind::CopyData => Frame::constant(b'd', b"d\0\0\0\x04"),
        })
    }
}

/// Takes the next server message out of `buf`, or the header of one that is too long to wait for.
pub fn split_arrival(buf: &mut BytesMut) -> Result<Option<Arrival>, DecodeError> {
    let kind = match buf.first() {
        Some(b'D') => LargeKind::Row,
        Some(b'd') => LargeKind::CopyData,
        Some(_) | None => return Ok(split_backend(buf)?.map(Arrival::Whole)),
    };
    match frame::take_large_header(buf, LARGE_FRAME_BYTES_MIN)? {
        Some(payload_bytes) => Ok(Some(Arrival::Large(Large { kind, payload_bytes }))),
        None => Ok(split_backend(buf)?.map(Arrival::Whole)),
    }
}
