//! Walks over a stream of messages that is passed on as it is: says where each message begins and ends and shows
//! those whose content matters whole; the rest it lets through as it arrives, without assembling it. Nothing is
//! copied. Refuses by the header what the protocol does not know.

use std::fmt;

use crate::error::{DecodeError, Peer, Tag};
use crate::frame::{
    BACKEND_FRAME_BYTES_MAX, BACKEND_SHORT_FRAME_BYTES_MAX, FRONTEND_FRAME_BYTES_MAX, FRONTEND_SMALL_FRAME_BYTES_MAX,
    HEADER_BYTES, LOGIN_FRAME_BYTES_MAX, frame_bytes,
};

/// What is shown of a long error: severity and SQLSTATE come first in it.
const ERROR_HEAD_BYTES: usize = 16 * 1024;

/// What the next bytes of the stream are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Walked<'a> {
    /// Nothing can be said before more bytes come.
    More,
    /// The next `bytes` bytes go on with a message that was begun before.
    Body { bytes: usize },
    /// A message. `seen` is what is at hand of it, header included: all of it where `seen.len() == frame_bytes`,
    /// else the rest follows as `Body`.
    Message { tag: u8, frame_bytes: usize, seen: &'a [u8] },
}

impl fmt::Debug for Walked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::More => f.write_str("More"),
            Self::Body { bytes } => write!(f, "Body({bytes} bytes)"),
            Self::Message { tag, frame_bytes, seen } => {
                write!(f, "Message({}, {} of {frame_bytes} bytes)", Tag(*tag), seen.len())
            }
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    peer: Peer,
    /// Bytes of the message begun that have not come yet.
    rest: usize,
}

impl Walk {
    pub fn new(peer: Peer) -> Self {
        Self { peer, rest: 0 }
    }

    /// Whether a message is begun and not over.
    pub fn is_inside(&self) -> bool {
        self.rest > 0
    }

    /// The next step over `bytes`, which begin where the last step ended.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Walked<'a>, DecodeError> {
        if self.rest > 0 {
            let here = self.rest.min(bytes.len());
            self.rest -= here;
            return Ok(if here == 0 { Walked::More } else { Walked::Body { bytes: here } });
        }
        let Some(&tag) = bytes.first() else { return Ok(Walked::More) };
        let peer = self.peer;
        let Some(Kept { limit_bytes, whole_bytes }) = kept(peer, tag) else {
            return Err(DecodeError::UnknownTag { peer, tag: Tag(tag) });
        };
        let Some(frame_bytes) = frame_bytes(bytes, tag, peer, limit_bytes)? else { return Ok(Walked::More) };
        if bytes.len() < frame_bytes.min(whole_bytes.max(HEADER_BYTES)) {
            return Ok(Walked::More);
        }
        let seen = bytes.get(..frame_bytes).unwrap_or(bytes);
        self.rest = frame_bytes - seen.len();
        Ok(Walked::Message { tag, frame_bytes, seen })
    }
}

/// How much of a message there may be, and how much of it is waited for before it is shown.
struct Kept {
    limit_bytes: usize,
    whole_bytes: usize,
}

/// `None`: no such message from this peer.
fn kept(peer: Peer, tag: u8) -> Option<Kept> {
    let whole = |limit_bytes| Kept { limit_bytes, whole_bytes: limit_bytes };
    Some(match (peer, tag) {
        (Peer::Client, b'Q' | b'P' | b'B' | b'F') => whole(FRONTEND_FRAME_BYTES_MAX),
        (Peer::Client, b'D' | b'E' | b'C' | b'S' | b'H' | b'X' | b'c' | b'f') => whole(FRONTEND_SMALL_FRAME_BYTES_MAX),
        (Peer::Client, b'p') => whole(LOGIN_FRAME_BYTES_MAX),
        // The server takes COPY data in messages of any size it can allocate.
        (Peer::Client, b'd') => Kept { limit_bytes: BACKEND_FRAME_BYTES_MAX, whole_bytes: 0 },
        (Peer::Server, b'E' | b'N') => Kept { limit_bytes: BACKEND_FRAME_BYTES_MAX, whole_bytes: ERROR_HEAD_BYTES },
        (Peer::Server, b'C' | b'Z' | b'S') => whole(BACKEND_SHORT_FRAME_BYTES_MAX),
        (Peer::Server, b'D' | b'd' | b'V') => Kept { limit_bytes: BACKEND_FRAME_BYTES_MAX, whole_bytes: 0 },
        (
            Peer::Server,
            b'R' | b'K' | b'T' | b'I' | b'A' | b'1' | b'2' | b'3' | b'n' | b't' | b's' | b'G' | b'H' | b'W' | b'c'
            | b'v',
        ) => Kept { limit_bytes: BACKEND_SHORT_FRAME_BYTES_MAX, whole_bytes: 0 },
        (Peer::Client | Peer::Server, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(tag: u8, content: usize) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(content + 4).unwrap().to_be_bytes());
        bytes.extend(std::iter::repeat_n(b'x', content));
        bytes
    }

    /// Walks over `stream` as it arrives in pieces; returns tags, sizes and how many bytes were let through.
    fn walk(peer: Peer, stream: &[u8], pieces: &[usize]) -> (Vec<(u8, usize)>, usize) {
        let mut walk = Walk::new(peer);
        let (mut messages, mut through, mut have) = (Vec::new(), 0usize, 0usize);
        for piece in pieces.iter().chain([&usize::MAX]) {
            have = have.saturating_add(*piece).min(stream.len());
            loop {
                match walk.step(&stream[through..have]).unwrap() {
                    Walked::More => break,
                    Walked::Body { bytes } => through += bytes,
                    Walked::Message { tag, frame_bytes, seen } => {
                        assert!(seen.len() <= frame_bytes);
                        messages.push((tag, frame_bytes));
                        through += seen.len();
                    }
                }
            }
        }
        assert!(!walk.is_inside());
        (messages, through)
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_messages_are_the_same(
            sizes in prop::collection::vec((prop::sample::select(b"DdCZETSN1".to_vec()), 0usize..70), 1..8),
            pieces in prop::collection::vec(1usize..40, 0..20),
        ) {
            let stream: Vec<u8> = sizes.iter().flat_map(|(tag, content)| frame(*tag, *content)).collect();
            let expected: Vec<(u8, usize)> = sizes.iter().map(|(tag, content)| (*tag, content + 5)).collect();
            prop_assert_eq!(walk(Peer::Server, &stream, &pieces), (expected, stream.len()));
        }
    }

    #[test]
    fn rows_stream_and_statements_are_whole() {
        let row = frame(b'D', 100);
        let shown = Walk::new(Peer::Server).step(&row[..20]).unwrap();
        assert_eq!(shown, Walked::Message { tag: b'D', frame_bytes: 105, seen: &row[..20] });
        let query = frame(b'Q', 100);
        assert_eq!(Walk::new(Peer::Client).step(&query[..104]).unwrap(), Walked::More);
        let shown = Walk::new(Peer::Client).step(&query).unwrap();
        assert_eq!(shown, Walked::Message { tag: b'Q', frame_bytes: 105, seen: &query });
    }

    #[test]
    fn a_long_error_shows_its_beginning() {
        let error = frame(b'E', 40_000);
        assert_eq!(Walk::new(Peer::Server).step(&error[..ERROR_HEAD_BYTES - 1]).unwrap(), Walked::More);
        let mut walk = Walk::new(Peer::Server);
        assert!(matches!(walk.step(&error[..ERROR_HEAD_BYTES]).unwrap(), Walked::Message { tag: b'E', .. }));
        assert!(walk.is_inside());
    }

    #[test]
    fn the_header_alone_refuses() {
        let announced = |tag: u8, length: i32| [&[tag][..], &length.to_be_bytes()].concat();
        for (peer, bytes) in [
            (Peer::Client, b"y".to_vec()),
            (Peer::Server, b"Q".to_vec()),
            (Peer::Client, announced(b'Q', 3)),
            (Peer::Client, announced(b'Q', -1)),
            (Peer::Client, announced(b'S', 20_000)),
            (Peer::Client, announced(b'Q', i32::MAX)),
            (Peer::Server, announced(b'D', i32::MAX)),
            (Peer::Server, announced(b'T', 3_000_000)),
        ] {
            assert!(Walk::new(peer).step(&bytes).is_err(), "{bytes:?}");
        }
    }
}
