//! Messages that are passed on in pieces: whose header is taken off, and whose is not.

use bytes::BytesMut;
use exeat_wire::frame::BACKEND_FRAME_BYTES_MAX;
use exeat_wire::{Arrival, DecodeError, LARGE_FRAME_BYTES_MIN, Large, LargeKind, split_arrival, split_copy_data};

fn header(tag: u8, frame_bytes: usize) -> BytesMut {
    let mut bytes = BytesMut::from(&[tag][..]);
    bytes.extend_from_slice(&u32::try_from(frame_bytes - 1).unwrap().to_be_bytes());
    bytes
}

#[test]
fn rows_and_copy_data_are_large_from_the_limit_on() {
    for (tag, kind) in [(b'D', LargeKind::Row), (b'd', LargeKind::CopyData)] {
        let mut large = header(tag, LARGE_FRAME_BYTES_MIN);
        let payload_bytes = LARGE_FRAME_BYTES_MIN - 5;
        assert_eq!(split_arrival(&mut large), Ok(Some(Arrival::Large(Large { kind, payload_bytes }))));
        assert!(large.is_empty(), "the header is off");
        // One byte less is waited for.
        let mut whole = header(tag, LARGE_FRAME_BYTES_MIN - 1);
        assert_eq!(split_arrival(&mut whole), Ok(None));
        whole.resize(LARGE_FRAME_BYTES_MIN - 1, 0);
        let Ok(Some(Arrival::Whole(frame))) = split_arrival(&mut whole) else { panic!("not whole") };
        assert_eq!(frame.bytes().len(), LARGE_FRAME_BYTES_MIN - 1);
    }
}

#[test]
fn nothing_else_is_large() {
    let mut error = header(b'E', LARGE_FRAME_BYTES_MIN);
    assert_eq!(split_arrival(&mut error), Ok(None));
    assert_eq!(error.len(), 5, "it waits for the rest");
    assert_eq!(split_arrival(&mut BytesMut::new()), Ok(None));
    assert_eq!(split_arrival(&mut BytesMut::from(&b"D\0\x10\0"[..])), Ok(None));
}

#[test]
fn a_large_message_has_the_limit_of_its_type() {
    let mut largest = header(b'D', BACKEND_FRAME_BYTES_MAX);
    assert!(matches!(split_arrival(&mut largest), Ok(Some(Arrival::Large(_)))));
    let mut larger = header(b'D', BACKEND_FRAME_BYTES_MAX + 1);
    assert!(matches!(split_arrival(&mut larger), Err(DecodeError::FrameTooLarge { .. })));
}

#[test]
fn a_stand_in_is_of_the_same_kind() {
    for (kind, name) in [(LargeKind::Row, "DataRow"), (LargeKind::CopyData, "CopyData")] {
        assert_eq!(Large { kind, payload_bytes: 1 }.stand_in().unwrap().name(), name);
    }
}

#[test]
fn the_header_of_a_clients_copy_data_comes_off_alone() {
    let mut bytes = BytesMut::from(&b"d\0\0\0\x07abcQ"[..]);
    let (head, length) = split_copy_data(&mut bytes).unwrap().unwrap();
    assert_eq!((&head[..], length, &bytes[..]), (&b"d\0\0\0\x07"[..], 3, &b"abcQ"[..]));
    // Anything else, and a header that is not whole, stays.
    for rest in [&b"Q\0\0\0\x05\0"[..], b"d\0\0\0", b""] {
        let mut bytes = BytesMut::from(rest);
        assert_eq!(split_copy_data(&mut bytes), Ok(None));
        assert_eq!(&bytes[..], rest);
    }
    assert!(matches!(
        split_copy_data(&mut BytesMut::from(&b"d\0\0\0\x03"[..])),
        Err(DecodeError::FrameTooShort { length: 3, .. })
    ));
    assert!(matches!(
        split_copy_data(&mut header(b'd', BACKEND_FRAME_BYTES_MAX + 1)),
        Err(DecodeError::FrameTooLarge { .. })
    ));
}
