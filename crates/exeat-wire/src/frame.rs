//! Frames: where one message ends and the next begins, under a limit for each type of message.
//! Looks at the type byte and the length only. Refuses by the header alone, before a body is waited for, so that
//! neither garbage nor an announced gigabyte can hold a session's memory.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::error::{DecodeError, Peer, Tag};

/// Largest frame read from a client once it is authenticated: a value of 64 MiB plus room for the rest of its
/// Bind. Statements have their own, smaller limit where they are parsed; COPY data comes in small frames.
pub const FRONTEND_FRAME_BYTES_MAX: usize = 65 * 1024 * 1024;

/// From this size on a message of a client's that is kept whole is large: whoever reads it should know that there is
/// room for it.
pub const LARGE_MESSAGE_BYTES_MIN: usize = 1024 * 1024;

/// Largest frame read from a client that has not proved who it is. A token has at most 16 KiB; the server's own
/// limit for authentication messages is 64 KiB.
pub const LOGIN_FRAME_BYTES_MAX: usize = 64 * 1024;

/// The server's own limit (`PQ_SMALL_MESSAGE_LIMIT`) for messages that carry no more than a name.
pub const FRONTEND_SMALL_FRAME_BYTES_MAX: usize = 10_000 + 1;

/// Largest frame read from a server. PostgreSQL builds every message in one allocation of less than 1 GiB, so a
/// longer one is not from PostgreSQL. It is assembled before it is passed on: one such row costs that much memory.
pub const BACKEND_FRAME_BYTES_MAX: usize = 1024 * 1024 * 1024 + 4;

/// Largest frame of a server message that carries neither row, COPY data nor error text. The longest legitimate
/// ones are ParameterDescription (262 KB), RowDescription (under 1 MB) and ParameterStatus (a setting's text).
pub const BACKEND_SHORT_FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Type byte of CopyData, in both directions.
const COPY_DATA: u8 = b'd';

/// Type byte and length.
pub(crate) const HEADER_BYTES: usize = 5;

/// One whole message as it came: type byte, length, content. Cloning copies no bytes. `Debug` shows its size
/// only: content may be a token, a statement or a row.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    tag: u8,
    bytes: Bytes, // INVARIANT: at least `HEADER_BYTES`, starts with `tag`, its length field is its length.
}

impl Frame {
    pub fn tag(&self) -> u8 {
        self.tag
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// What follows the header.
    pub fn payload(&self) -> Bytes {
        let mut payload = self.bytes.clone();
        bytes::Buf::advance(&mut payload, HEADER_BYTES.min(self.bytes.len()));
        payload
    }

    pub fn payload_slice(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// A message without content, or with one fixed byte. For messages that carry nothing to keep.
    pub(crate) const fn constant(tag: u8, bytes: &'static [u8]) -> Self {
        Self { tag, bytes: Bytes::from_static(bytes) }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}, {} bytes)", Tag(self.tag), self.bytes.len())
    }
}

/// Takes the next client message out of `buf`, or nothing when it is not whole yet. `limit_bytes` is the
/// session's limit at this point (before or after login); types that carry little have their own, smaller one.
pub fn split_frontend(buf: &mut BytesMut, limit_bytes: usize) -> Result<Option<Frame>, DecodeError> {
    split(buf, Peer::Client, |tag| frontend_limit(tag).map(|limit| limit.min(limit_bytes)))
}

/// Takes the header of a client's CopyData out of `buf`, if that is what stands there, with the length of what
/// follows: COPY data is passed on in pieces and never assembled, so the server's own limit does for it.
pub fn split_copy_data(buf: &mut BytesMut) -> Result<Option<(Bytes, usize)>, DecodeError> {
    if buf.first() != Some(&COPY_DATA) {
        return Ok(None);
    }
    let Some(frame_bytes) = frame_bytes(buf, COPY_DATA, Peer::Client, BACKEND_FRAME_BYTES_MAX)? else {
        return Ok(None);
    };
    Ok(Some((buf.split_to(HEADER_BYTES).freeze(), frame_bytes.saturating_sub(HEADER_BYTES))))
}

/// Takes the header of a server message of at least `least_bytes` out of `buf`; gives back the length of its content.
pub(crate) fn take_large_header(buf: &mut BytesMut, least_bytes: usize) -> Result<Option<usize>, DecodeError> {
    let Some(&tag) = buf.first() else { return Ok(None) };
    let limit_bytes = backend_limit(tag).unwrap_or(0);
    match frame_bytes(buf, tag, Peer::Server, limit_bytes)? {
        Some(frame_bytes) if frame_bytes >= least_bytes => {
            bytes::Buf::advance(buf, HEADER_BYTES);
            Ok(Some(frame_bytes.saturating_sub(HEADER_BYTES)))
        }
        Some(_) | None => Ok(None),
    }
}

/// The size of the client's message that `buf` begins with, where it is a large one that is kept whole. What may not be
/// is for `split_frontend` to refuse.
pub fn large_message_bytes(buf: &[u8]) -> Option<usize> {
    let tag = *buf.first()?;
    if !matches!(tag, b'Q' | b'P' | b'B' | b'F') {
        return None;
    }
    let frame_bytes = frame_bytes(buf, tag, Peer::Client, FRONTEND_FRAME_BYTES_MAX).ok()??;
    Some(frame_bytes).filter(|bytes| *bytes >= LARGE_MESSAGE_BYTES_MIN)
}

/// Takes the next server message out of `buf`, or nothing when it is not whole yet.
pub fn split_backend(buf: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
    split(buf, Peer::Server, backend_limit)
}

/// `None`: no such message from a client.
fn frontend_limit(tag: u8) -> Option<usize> {
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' => Some(FRONTEND_FRAME_BYTES_MAX),
        b'D' | b'E' | b'C' | b'S' | b'H' | b'X' | b'c' | b'f' => Some(FRONTEND_SMALL_FRAME_BYTES_MAX),
        b'p' => Some(LOGIN_FRAME_BYTES_MAX),
        _ => None,
    }
}

/// `None`: no such message from a server.
fn backend_limit(tag: u8) -> Option<usize> {
    match tag {
        b'D' | b'd' | b'E' | b'N' | b'V' => Some(BACKEND_FRAME_BYTES_MAX),
        b'R' | b'K' | b'S' | b'Z' | b'T' | b'C' | b'I' | b'A' | b'1' | b'2' | b'3' | b'n' | b't' | b's' | b'G'
        | b'H' | b'W' | b'c' | b'v' => Some(BACKEND_SHORT_FRAME_BYTES_MAX),
        _ => None,
    }
}

fn split(buf: &mut BytesMut, peer: Peer, limit_of: impl Fn(u8) -> Option<usize>) -> Result<Option<Frame>, DecodeError> {
    let Some(&tag) = buf.first() else { return Ok(None) };
    let Some(limit_bytes) = limit_of(tag) else {
        return Err(DecodeError::UnknownTag { peer, tag: Tag(tag) });
    };
    let Some(frame_bytes) = frame_bytes(buf, tag, peer, limit_bytes)? else { return Ok(None) };
    if buf.len() < frame_bytes {
        return Ok(None);
    }
    Ok(Some(Frame { tag, bytes: buf.split_to(frame_bytes).freeze() }))
}

/// The size of the frame whose header stands at the start of `buf`; `None` while it does not stand there whole.
pub(crate) fn frame_bytes(buf: &[u8], tag: u8, peer: Peer, limit_bytes: usize) -> Result<Option<usize>, DecodeError> {
    let Some(length) = buf.get(1..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let frame_bytes = match usize::try_from(length) {
        Ok(counted) if counted >= 4 => counted.saturating_add(1),
        Ok(_) | Err(_) => return Err(DecodeError::FrameTooShort { peer, tag: Tag(tag), length }),
    };
    if frame_bytes > limit_bytes {
        return Err(DecodeError::FrameTooLarge { peer, tag: Tag(tag), frame_bytes, limit_bytes });
    }
    Ok(Some(frame_bytes))
}
