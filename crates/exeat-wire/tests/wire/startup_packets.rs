//! The first packet of a connection.

use bytes::BytesMut;
use exeat_wire::startup::STARTUP_PARAMETERS_MAX;
use exeat_wire::{Startup, StartupMessage, split_startup};

fn packet(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&length.to_be_bytes(), content].concat()
}

fn read(bytes: &[u8]) -> Result<Option<StartupMessage>, String> {
    split_startup(&mut BytesMut::from(bytes)).map_err(|error| error.to_string())
}

fn parameters(content: &[u8]) -> Result<Startup, String> {
    match read(&packet(&[b"\0\x03\0\0", content].concat()))? {
        Some(StartupMessage::Startup(startup)) => Ok(startup),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn requests_before_startup() {
    assert_eq!(read(b"\0\0\0\x08\x04\xd2\x16\x2f"), Ok(Some(StartupMessage::SslRequest)));
    assert_eq!(read(b"\0\0\0\x08\x04\xd2\x16\x30"), Ok(Some(StartupMessage::GssEncRequest)));
    let cancel = StartupMessage::Cancel { pid: 7, secret: (&b"abcd"[..]).into() };
    assert_eq!(read(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd"), Ok(Some(cancel)));
}

#[test]
fn requests_of_another_size_are_refused() {
    assert_eq!(read(b"\0\0\0\x09\x04\xd2\x16\x2fx").unwrap_err(), "startup packet has 1 bytes after its content");
    assert_eq!(
        read(b"\0\0\0\x0f\x04\xd2\x16\x2e\0\0\0\x07abc").unwrap_err(),
        "CancelRequest ends before its content does"
    );
    let cancel =
        |key_bytes: usize| read(&packet(&[b"\x04\xd2\x16\x2e\0\0\0\x07", vec![1; key_bytes].as_slice()].concat()));
    assert!(cancel(256).is_ok());
    assert_eq!(cancel(257).unwrap_err(), "CancelRequest has 257 bytes of cancel key, the limit is 256");
}

#[test]
fn parameters_in_order() {
    let startup = parameters(b"user\0agent\0database\0shop\0options\0\0\0").unwrap();
    let expected = [("user", "agent"), ("database", "shop"), ("options", "")];
    let expected: Vec<(String, String)> = expected.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    assert_eq!(startup, Startup { major: 3, minor: 0, parameters: expected });
    assert_eq!((startup.parameter("user"), startup.parameter("role")), (Some("agent"), None));
    assert_eq!(parameters(b"\0").unwrap().parameters, vec![]);
}

#[test]
fn ambiguous_parameters_are_refused() {
    assert_eq!(parameters(b"user\0a\0user\0b\0\0").unwrap_err(), "startup packet names the same parameter twice");
    assert_eq!(parameters(b"user\0a\0\0x").unwrap_err(), "startup packet has 1 bytes after its content");
    assert_eq!(parameters(b"user\0a\0").unwrap_err(), "startup packet ends before its content does");
    assert_eq!(parameters(b"user\0a").unwrap_err(), "startup packet ends before its content does");
    assert_eq!(parameters(b"user\0").unwrap_err(), "startup packet ends before its content does");
    assert_eq!(parameters(b"").unwrap_err(), "startup packet ends before its content does");
    assert_eq!(parameters(b"user\0\xff\0\0").unwrap_err(), "startup packet has text that is not UTF-8");
    let many = |count: usize| {
        let list: String = (0..count).map(|i| format!("p{i}\0v\0")).collect();
        parameters(format!("{list}\0").as_bytes())
    };
    assert!(many(STARTUP_PARAMETERS_MAX).is_ok());
    assert_eq!(many(STARTUP_PARAMETERS_MAX + 1).unwrap_err(), "startup packet has 129 parameters, the limit is 128");
}

#[test]
fn lengths_are_refused_by_the_header_alone() {
    for length in [0, 4, 7, 10_001, i32::MAX, -1] {
        let error = read(&length.to_be_bytes()).unwrap_err();
        assert_eq!(error, format!("startup packet announces {length} bytes, it may have from 8 to 10000"));
    }
    assert_eq!(read(&8i32.to_be_bytes()), Ok(None));
    assert_eq!(read(&10_000i32.to_be_bytes()), Ok(None));
    assert!(read(b"GET / HTTP/1.1\r\n").is_err());
}

#[test]
fn a_packet_cut_anywhere_waits() {
    let whole = packet(b"\0\x03\0\0user\0agent\0\0");
    for end in 0..whole.len() {
        assert_eq!(read(&whole[..end]), Ok(None), "{end}");
    }
    let mut buf = BytesMut::from([whole.as_slice(), b"p"].concat().as_slice());
    assert!(matches!(split_startup(&mut buf), Ok(Some(StartupMessage::Startup(_)))));
    assert_eq!(buf.as_ref(), b"p");
}

#[test]
fn a_tls_handshake_is_left_in_the_buffer() {
    let mut buf = BytesMut::from(&b"\x16\x03\x01"[..]);
    assert_eq!(split_startup(&mut buf), Ok(Some(StartupMessage::DirectTls)));
    assert_eq!(buf.as_ref(), b"\x16\x03\x01");
}

#[test]
fn versions() {
    let version = |major: u16, minor: u16| {
        let head = [major.to_be_bytes(), minor.to_be_bytes()].concat();
        match read(&packet(&[head.as_slice(), b"user\0a\0\0"].concat()))? {
            Some(StartupMessage::Startup(startup)) => Ok((startup.agreed_minor(), startup.needs_negotiation())),
            other => Err(format!("{other:?}")),
        }
    };
    assert_eq!(version(3, 0), Ok((0, false)));
    assert_eq!(version(3, 2), Ok((2, false)));
    assert_eq!(version(3, 3), Ok((2, true)));
    assert_eq!(version(3, 9999), Ok((2, true)));
    for major in [0, 2, 4, 1234] {
        let error = format!("protocol version {major}.0 is not supported, versions 3.0 to 3.2 are");
        assert_eq!(version(major, 0), Err(error));
    }
}

#[test]
fn protocol_options_are_negotiated() {
    let startup = parameters(b"user\0a\0_pq_.column_encryption\x001\0\0").unwrap();
    assert_eq!(startup.protocol_options().collect::<Vec<_>>(), ["_pq_.column_encryption"]);
    assert!(startup.needs_negotiation());
    assert!(!parameters(b"user\0a\0\0").unwrap().needs_negotiation());
}
