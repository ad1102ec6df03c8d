//! Messages that are passed on in pieces: however the stream is cut, the walk sees the messages that splitting sees,
//! refuses where it refuses, and lets every byte through once.

use bytes::{Buf, BytesMut};
use exeat_wire::frame::FRONTEND_FRAME_BYTES_MAX;
use exeat_wire::{
    Arrival, DecodeError, Frame, LARGE_FRAME_BYTES_MIN, Peer, Walk, Walked, peek, split_arrival, split_backend,
    split_copy_data, split_frontend,
};

/// Type and size of each message begun, why it ended, and how many bytes were let through.
#[derive(Debug, PartialEq)]
struct Way {
    messages: Vec<(u8, usize)>,
    error: Option<DecodeError>,
    through: usize,
}

pub fn check(peer: Peer, stream: &[u8], cut: usize) {
    let whole = walk(peer, stream, [stream.len()]);
    assert_eq!(walk(peer, stream, [cut % (stream.len() + 1), stream.len()]), whole);
    let step = cut % 61 + 1;
    assert_eq!(walk(peer, stream, (step..stream.len() + step).step_by(step)), whole);

    let mut buffer = BytesMut::from(stream);
    let mut begun = whole.messages.iter();
    loop {
        match split(peer, &mut buffer) {
            Ok(Some(frame)) => {
                assert_eq!(begun.next(), Some(&(frame.tag(), frame.bytes().len())));
                // Whatever it holds, its views do not fail.
                let bytes = frame.bytes();
                let _ = (peek::query(bytes), peek::parse(bytes), peek::bind(bytes), peek::execute(bytes));
                let _ = (peek::named(bytes), peek::command_tag(bytes), peek::error(bytes));
            }
            // Nothing more, or the beginning of a message that the walk may have let through already.
            Ok(None) => return assert!(begun.count() <= 1 && whole.error.is_none()),
            // A client's COPY data may be longer where it is not assembled.
            Err(DecodeError::FrameTooLarge { .. }) if peer == Peer::Client && buffer.first() == Some(&b'd') => return,
            Err(error) => {
                assert_eq!(begun.next(), None);
                return assert_eq!(whole.error, Some(error));
            }
        }
    }
}

fn split(peer: Peer, buffer: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
    match peer {
        Peer::Client => {
            let mut ahead = buffer.clone();
            let frame = split_frontend(buffer, FRONTEND_FRAME_BYTES_MAX)?;
            if let (Some(frame), Ok(Some((header, length)))) = (&frame, split_copy_data(&mut ahead)) {
                assert_eq!((header.len(), header.len() + length), (5, frame.bytes().len()));
            }
            Ok(frame)
        }
        Peer::Server => split_backend(buffer),
    }
}

/// Walks over `stream` while it arrives up to each of `ends`.
fn walk(peer: Peer, stream: &[u8], ends: impl IntoIterator<Item = usize>) -> Way {
    let mut walk = Walk::new(peer);
    let mut way = Way { messages: Vec::new(), error: None, through: 0 };
    for end in ends {
        let end = end.min(stream.len());
        loop {
            match walk.step(&stream[way.through.min(end)..end]) {
                Ok(Walked::More) => break,
                Ok(Walked::Body { bytes }) => {
                    assert!(bytes > 0);
                    way.through += bytes;
                }
                Ok(Walked::Message { tag, frame_bytes, seen }) => {
                    assert!(seen.len() >= 5 && seen.len() <= frame_bytes && seen[0] == tag);
                    way.messages.push((tag, frame_bytes));
                    way.through += seen.len();
                }
                Err(error) => {
                    assert!(!walk.is_inside());
                    return Way { error: Some(error), ..way };
                }
            }
        }
        assert!(way.through <= end);
    }
    way
}

/// Rows and COPY data that are announced as long: the header comes off, and only there.
pub fn check_arrivals(stream: &[u8]) {
    let (mut buffer, mut beside) = (BytesMut::from(stream), BytesMut::from(stream));
    loop {
        match split_arrival(&mut buffer) {
            Ok(Some(Arrival::Whole(frame))) => assert_eq!(split_backend(&mut beside), Ok(Some(frame))),
            Ok(Some(Arrival::Large(large))) => {
                assert!(large.payload_bytes + 5 >= LARGE_FRAME_BYTES_MIN);
                assert!(large.stand_in().is_ok());
                beside.advance(5);
                assert_eq!(buffer, beside);
                return;
            }
            Ok(None) => return assert_eq!(split_backend(&mut beside), Ok(None)),
            Err(error) => return assert_eq!(split_backend(&mut beside), Err(error)),
        }
    }
}
