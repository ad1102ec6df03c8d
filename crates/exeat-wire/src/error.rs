//! Why bytes are not a message. One enum for both directions: the reader is the same, only the peer differs.
//! Never carries content, only names, sizes and limits, so that it can be logged and shown.

use std::fmt;

/// Who sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Client,
    Server,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Client => "client",
            Peer::Server => "server",
        })
    }
}

/// A message's type byte, printed so that hostile bytes stay readable and harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub u8);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The peer's bytes do not follow the protocol. There is no way to go on: the stream has lost its framing or its
/// meaning, so the session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("message type {tag} from the {peer} is not known")]
    UnknownTag { peer: Peer, tag: Tag },
    #[error("message {tag} from the {peer} has {frame_bytes} bytes, the limit is {limit_bytes}")]
    FrameTooLarge { peer: Peer, tag: Tag, frame_bytes: usize, limit_bytes: usize },
    #[error("message {tag} from the {peer} announces a length of {length}, the least is 4")]
    FrameTooShort { peer: Peer, tag: Tag, length: i32 },
    #[error("startup packet announces {length} bytes, it may have from 8 to {limit_bytes}", limit_bytes = crate::startup::STARTUP_BYTES_MAX)]
    StartupLength { length: i32 },
    #[error("protocol version {major}.{minor} is not supported, versions 3.0 to 3.2 are")]
    ProtocolVersion { major: u16, minor: u16 },
    #[error("{message} ends before its content does")]
    Truncated { message: &'static str },
    #[error("{message} has {extra_bytes} bytes after its content")]
    TrailingBytes { message: &'static str, extra_bytes: usize },
    #[error("{message} has text that is not UTF-8")]
    NotUtf8 { message: &'static str },
    #[error("{message} has {count} {what}, the limit is {limit}")]
    TooMany { message: &'static str, what: &'static str, count: usize, limit: usize },
    #[error("{message} has {value} as its {what}, which has no meaning")]
    Value { message: &'static str, what: &'static str, value: i64 },
    #[error("{message} names the same {what} twice")]
    Duplicate { message: &'static str, what: &'static str },
    #[error("{message} has {codes} format codes for {values} {what}")]
    FormatCount { message: &'static str, what: &'static str, codes: usize, values: usize },
}
