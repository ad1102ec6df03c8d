//! Framing, and the builders of raw messages that the other tests use. These follow the protocol's documentation
//! and not this crate's encoder.

use bytes::BytesMut;
use exeat_wire::frame::{
    BACKEND_FRAME_BYTES_MAX, BACKEND_SHORT_FRAME_BYTES_MAX, FRONTEND_FRAME_BYTES_MAX, LOGIN_FRAME_BYTES_MAX,
};
use exeat_wire::{
    BackendMessage, DecodeError, Frame, FrontendMessage, backend, frontend, split_backend, split_frontend,
    split_startup,
};
use proptest::prelude::*;

/// Type byte, length, content.
pub(crate) fn raw(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), content].concat()
}

pub(crate) fn server_frame(tag: u8, content: &[u8]) -> Frame {
    let mut buf = BytesMut::from(raw(tag, content).as_slice());
    split_backend(&mut buf).unwrap().unwrap()
}

pub(crate) fn server(tag: u8, content: &[u8]) -> Result<BackendMessage, DecodeError> {
    backend::decode(server_frame(tag, content))
}

pub(crate) fn client(tag: u8, content: &[u8]) -> Result<FrontendMessage, DecodeError> {
    let mut buf = BytesMut::from(raw(tag, content).as_slice());
    let frame = split_frontend(&mut buf, FRONTEND_FRAME_BYTES_MAX)?.unwrap();
    assert!(buf.is_empty());
    frontend::decode(frame)
}

fn header(tag: u8, length: i32) -> BytesMut {
    BytesMut::from([&[tag][..], &length.to_be_bytes()].concat().as_slice())
}

const CLIENT_TAGS: &[u8] = b"QPBDECHSXdcfFp";
const SERVER_TAGS: &[u8] = b"RKSZTDCIENA123ntsGHWdcVv";

#[test]
fn unknown_types_are_refused_by_their_first_byte() {
    for tag in 0..=u8::MAX {
        let known = CLIENT_TAGS.contains(&tag);
        assert_eq!(split_frontend(&mut BytesMut::from(&[tag][..]), 1 << 20).is_ok(), known, "client {tag}");
        let known = SERVER_TAGS.contains(&tag);
        assert_eq!(split_backend(&mut BytesMut::from(&[tag][..])).is_ok(), known, "server {tag}");
    }
}

#[test]
fn unknown_type_is_named_readably() {
    let error = split_frontend(&mut BytesMut::from(&b"\x01abc"[..]), 100).unwrap_err();
    assert_eq!(error.to_string(), r#"message type "\x01" from the client is not known"#);
}

#[test]
fn lengths_below_four_are_refused_and_four_is_not() {
    for length in [i32::MIN, -1, 0, 3] {
        assert!(
            matches!(split_frontend(&mut header(b'S', length), 100), Err(DecodeError::FrameTooShort { .. })),
            "{length}"
        );
        assert!(matches!(split_backend(&mut header(b'1', length)), Err(DecodeError::FrameTooShort { .. })), "{length}");
    }
    assert!(split_frontend(&mut header(b'S', 4), 100).unwrap().is_some());
    assert!(split_backend(&mut header(b'1', 4)).unwrap().is_some());
}

/// For each type the longest announced length that is waited for; one more is refused with the header alone.
#[test]
fn announced_lengths_stop_at_the_limit() {
    let client_limits: [(&[u8], usize); 3] =
        [(b"QPBFd", FRONTEND_FRAME_BYTES_MAX), (b"DECSHXcf", 10_001), (b"p", LOGIN_FRAME_BYTES_MAX)];
    for (tags, limit) in client_limits {
        for &tag in tags {
            let length = i32::try_from(limit - 1).unwrap();
            assert_eq!(split_frontend(&mut header(tag, length), usize::MAX), Ok(None));
            let error = split_frontend(&mut header(tag, length + 1), usize::MAX).unwrap_err();
            assert!(matches!(error, DecodeError::FrameTooLarge { limit_bytes, .. } if limit_bytes == limit));
        }
    }
    let server_limits: [(&[u8], usize); 2] =
        [(b"DdENV", BACKEND_FRAME_BYTES_MAX), (b"RKSZTCIA123ntsGHWcv", BACKEND_SHORT_FRAME_BYTES_MAX)];
    for (tags, limit) in server_limits {
        for &tag in tags {
            let length = i32::try_from(limit - 1).unwrap();
            assert_eq!(split_backend(&mut header(tag, length)), Ok(None));
            assert!(split_backend(&mut header(tag, length + 1)).is_err());
        }
    }
}

#[test]
fn the_callers_limit_counts_the_whole_frame() {
    let bytes = raw(b'Q', b"select 1\0");
    assert!(split_frontend(&mut BytesMut::from(bytes.as_slice()), bytes.len()).unwrap().is_some());
    let error = split_frontend(&mut BytesMut::from(bytes.as_slice()), bytes.len() - 1).unwrap_err();
    assert_eq!(error.to_string(), r#"message "Q" from the client has 14 bytes, the limit is 13"#);
}

#[test]
fn a_frame_keeps_its_bytes() {
    let bytes = raw(b'Q', b"select 1\0");
    let mut buf = BytesMut::from([bytes.as_slice(), b"S"].concat().as_slice());
    let frame = split_frontend(&mut buf, 100).unwrap().unwrap();
    assert_eq!((frame.tag(), frame.bytes().as_ref()), (b'Q', bytes.as_slice()));
    assert_eq!(frame.payload().as_ref(), b"select 1\0");
    assert_eq!(buf.as_ref(), b"S");
    assert_eq!(frame.into_bytes(), bytes);
}

#[test]
fn debug_output_shows_no_content() {
    let secret = "hunter2-sealed-value";
    let content = format!("{secret}\0");
    let mut value = vec![0, 1];
    value.extend_from_slice(&u32::try_from(secret.len()).unwrap().to_be_bytes());
    value.extend_from_slice(secret.as_bytes());
    let bind = [b"\0\0\0\0", value.as_slice(), b"\0\0"].concat();
    let shown = [
        format!("{:?}", client(b'Q', content.as_bytes()).unwrap()),
        format!("{:?}", client(b'P', format!("\0{secret}\0\0\0").as_bytes()).unwrap()),
        format!("{:?}", client(b'p', content.as_bytes()).unwrap()),
        format!("{:?}", client(b'B', &bind).unwrap()),
        format!("{:?}", server(b'D', &value).unwrap()),
        format!("{:?}", server(b'E', format!("SERROR\0M{secret}\0\0").as_bytes()).unwrap()),
        format!("{:?}", server(b'A', format!("\0\0\0\x01ch\0{secret}\0").as_bytes()).unwrap()),
        format!("{:?}", server(b'K', format!("\0\0\0\x01{secret}").as_bytes()).unwrap()),
        format!("{:?}", server(b'R', format!("\0\0\0\x0b{secret}").as_bytes()).unwrap()),
    ];
    for text in shown {
        assert!(!text.contains("hunter2") && !text.contains("104, 117, 110"), "{text}");
    }
}

/// Every message of a stream, or where and how it breaks.
fn read_all(
    chunks: &[&[u8]],
    split: impl Fn(&mut BytesMut) -> Result<Option<Frame>, DecodeError>,
) -> (Vec<Frame>, Option<DecodeError>) {
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        loop {
            match split(&mut buf) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn framed(tags: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let message = (prop::sample::select(tags), prop::collection::vec(any::<u8>(), 0..24));
    prop::collection::vec(message, 1..6)
        .prop_map(|messages| messages.iter().flat_map(|(tag, content)| raw(*tag, content)).collect())
}

proptest! {
    #[test]
    fn cutting_a_stream_anywhere_changes_nothing(
        client_bytes in framed(CLIENT_TAGS), server_bytes in framed(SERVER_TAGS),
    ) {
        for (bytes, of_client) in [(client_bytes, true), (server_bytes, false)] {
            let split = |buf: &mut BytesMut| if of_client { split_frontend(buf, 1 << 16) } else { split_backend(buf) };
            let whole = read_all(&[&bytes], split);
            prop_assert!(whole.1.is_none());
            prop_assert_eq!(whole.0.iter().flat_map(|frame| frame.bytes().to_vec()).collect::<Vec<_>>(), bytes.clone());
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                prop_assert_eq!(&read_all(&[head, tail], split), &whole);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&read_all(&single, split), &whole);
        }
    }

    #[test]
    fn any_bytes_are_messages_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut buf = BytesMut::from(bytes.as_slice());
        while let Ok(Some(frame)) = split_frontend(&mut buf, 1 << 16) {
            let _ = frontend::decode(frame);
        }
        let mut buf = BytesMut::from(bytes.as_slice());
        while let Ok(Some(frame)) = split_backend(&mut buf) {
            let _ = backend::decode(frame);
        }
        let _ = split_startup(&mut BytesMut::from(bytes.as_slice()));
    }

    /// Reaches every decoder: the header is right, the content is anything. What decodes holds its own bytes.
    #[test]
    fn any_content_is_a_message_or_an_error(
        client_tag in prop::sample::select(CLIENT_TAGS),
        server_tag in prop::sample::select(SERVER_TAGS),
        content in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..64),
    ) {
        let _ = client(client_tag, &content);
        if let Ok(message) = server(server_tag, &content) {
            if let Some(frame) = message.frame() {
                prop_assert_eq!(frame.bytes().to_vec(), raw(server_tag, &content));
            }
            if let BackendMessage::DataRow(row) = message {
                let _ = row.cells().count();
            }
        }
        let length = u32::try_from(content.len() + 8).unwrap().to_be_bytes();
        let packet = [&length, &[0, 3, 0, 0][..], &content].concat();
        let _ = split_startup(&mut BytesMut::from(packet.as_slice()));
    }
}
