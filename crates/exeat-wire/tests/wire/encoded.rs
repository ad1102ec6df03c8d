//! What the gateway says itself: bytes as documented, and read back as meant.

use bytes::BytesMut;
use exeat_wire::encode::{self, Column, EncodeError};
use exeat_wire::frame::FRONTEND_FRAME_BYTES_MAX;
use exeat_wire::{
    Authentication, BackendMessage, Format, FrontendMessage, StartupMessage, Target, TransactionStatus, backend,
    frontend, split_backend, split_frontend, split_startup,
};
use proptest::prelude::*;

use crate::bytes_in::raw;

fn written(write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out).unwrap();
    out.to_vec()
}

fn always(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    written(|out| {
        write(out);
        Ok(())
    })
}

#[test]
fn to_clients_as_documented() {
    let ready = |status| always(|out| encode::ready_for_query(out, status));
    let column = Column { name: "a", type_oid: 25, type_size: -1, format: Format::Binary };
    let cases: Vec<(Vec<u8>, u8, &[u8])> = vec![
        (always(encode::authentication_ok), b'R', b"\0\0\0\0"),
        (always(encode::authentication_cleartext_password), b'R', b"\0\0\0\x03"),
        (written(|out| encode::authentication_sasl(out, &["A", "B"])), b'R', b"\0\0\0\x0aA\0B\0\0"),
        (written(|out| encode::authentication_sasl_continue(out, b"r=x")), b'R', b"\0\0\0\x0br=x"),
        (written(|out| encode::authentication_sasl_final(out, b"v=x")), b'R', b"\0\0\0\x0cv=x"),
        (written(|out| encode::backend_key_data(out, 7, b"abcd")), b'K', b"\0\0\0\x07abcd"),
        (written(|out| encode::parameter_status(out, "a", "b")), b'S', b"a\0b\0"),
        (ready(TransactionStatus::Idle), b'Z', b"I"),
        (ready(TransactionStatus::InTransaction), b'Z', b"T"),
        (ready(TransactionStatus::Failed), b'Z', b"E"),
        (
            written(|out| encode::negotiate_protocol_version(out, 2, &["_pq_.x"])),
            b'v',
            b"\0\x03\0\x02\0\0\0\x01_pq_.x\0",
        ),
        (always(encode::parse_complete), b'1', b""),
        (always(encode::bind_complete), b'2', b""),
        (always(encode::close_complete), b'3', b""),
        (always(encode::no_data), b'n', b""),
        (always(encode::portal_suspended), b's', b""),
        (always(encode::empty_query_response), b'I', b""),
        (written(|out| encode::parameter_description(out, &[23])), b't', b"\0\x01\0\0\0\x17"),
        (
            written(|out| encode::row_description(out, &[column])),
            b'T',
            b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01",
        ),
        (written(|out| encode::data_row(out, &[Some(b"x"), None])), b'D', b"\0\x02\0\0\0\x01x\xff\xff\xff\xff"),
        (written(|out| encode::command_complete(out, "SELECT 1")), b'C', b"SELECT 1\0"),
    ];
    for (bytes, tag, content) in cases {
        assert_eq!(bytes, raw(tag, content), "{}", tag as char);
        let mut buf = BytesMut::from(bytes.as_slice());
        assert!(backend::decode(split_backend(&mut buf).unwrap().unwrap()).is_ok(), "{}", tag as char);
    }
}

#[test]
fn to_servers_as_documented() {
    let cases: Vec<(Vec<u8>, u8, &[u8])> = vec![
        (written(|out| encode::password(out, "pw")), b'p', b"pw\0"),
        (written(|out| encode::sasl_initial_response(out, "M", b"n,,")), b'p', b"M\0\0\0\0\x03n,,"),
        (written(|out| encode::sasl_response(out, b"c=")), b'p', b"c="),
        (written(|out| encode::query(out, "select 1")), b'Q', b"select 1\0"),
        (written(|out| encode::parse(out, "s", "select $1", &[23])), b'P', b"s\0select $1\0\0\x01\0\0\0\x17"),
        (
            written(|out| encode::bind(out, "p", "s", &[Some("a"), None], &[Format::Binary])),
            b'B',
            b"p\0s\0\0\0\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\x01\0\x01",
        ),
        (written(|out| encode::describe(out, Target::Statement, "s")), b'D', b"Ss\0"),
        (written(|out| encode::describe(out, Target::Portal, "")), b'D', b"P\0"),
        (written(|out| encode::close(out, Target::Portal, "p")), b'C', b"Pp\0"),
        (written(|out| encode::execute(out, "p", 5)), b'E', b"p\0\0\0\0\x05"),
        (always(encode::flush), b'H', b""),
        (always(encode::sync), b'S', b""),
        (always(encode::terminate), b'X', b""),
        (written(|out| encode::copy_fail(out, "no")), b'f', b"no\0"),
    ];
    for (bytes, tag, content) in cases {
        assert_eq!(bytes, raw(tag, content), "{}", tag as char);
        let mut buf = BytesMut::from(bytes.as_slice());
        let frame = split_frontend(&mut buf, FRONTEND_FRAME_BYTES_MAX).unwrap().unwrap();
        assert!(frontend::decode(frame).is_ok(), "{}", tag as char);
    }
}

#[test]
fn packets_without_a_type() {
    assert_eq!(always(encode::ssl_request), b"\0\0\0\x08\x04\xd2\x16\x2f");
    let cancel = written(|out| encode::cancel_request(out, 7, b"abcd"));
    assert_eq!(cancel, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd");
    let startup = written(|out| encode::startup(out, 2, &[("user", "a"), ("options", "")]));
    assert_eq!(startup, b"\0\0\0\x19\0\x03\0\x02user\0a\0options\0\0\0");
}

/// A NUL in a claim or a name must not become a parameter, a field or a statement of its own.
#[test]
fn text_with_nul_is_refused_and_leaves_nothing() {
    type Write = fn(&mut BytesMut) -> Result<(), EncodeError>;
    let cases: [Write; 17] = [
        |out| encode::startup(out, 0, &[("user", "a\0database\0other")]),
        |out| encode::startup(out, 0, &[("us\0er", "a")]),
        |out| encode::startup(out, 0, &[("", "a")]),
        |out| encode::password(out, "a\0b"),
        |out| encode::sasl_initial_response(out, "M\0", b""),
        |out| encode::query(out, "select 1\0"),
        |out| encode::parse(out, "s\0", "", &[]),
        |out| encode::parse(out, "", "a\0b", &[]),
        |out| encode::bind(out, "p\0", "", &[], &[]),
        |out| encode::bind(out, "", "s\0", &[], &[]),
        |out| encode::describe(out, Target::Portal, "\0"),
        |out| encode::close(out, Target::Portal, "\0"),
        |out| encode::execute(out, "\0", 0),
        |out| encode::copy_fail(out, "\0"),
        |out| encode::parameter_status(out, "a", "\0"),
        |out| encode::authentication_sasl(out, &["A", "\0"]),
        |out| encode::row_description(out, &[Column { name: "\0", type_oid: 25, type_size: -1, format: Format::Text }]),
    ];
    for (index, write) in cases.iter().enumerate() {
        let mut out = BytesMut::from(&b"before"[..]);
        assert!(matches!(write(&mut out), Err(EncodeError::Nul { .. })), "case {index}");
        assert_eq!(out.as_ref(), b"before", "case {index}");
    }
}

#[test]
fn counts_beyond_the_protocol_are_refused() {
    let types = |count: usize| encode::parse(&mut BytesMut::new(), "", "", &vec![23; count]);
    assert_eq!(types(65_535), Ok(()));
    assert_eq!(types(65_536), Err(EncodeError::TooMany { message: "Parse", count: 65_536 }));
    let row = |count: usize| encode::data_row(&mut BytesMut::new(), &vec![None; count]);
    assert_eq!(row(65_536), Err(EncodeError::TooMany { message: "DataRow", count: 65_536 }));
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn client(out: &mut BytesMut) -> FrontendMessage {
    frontend::decode(split_frontend(out, FRONTEND_FRAME_BYTES_MAX).unwrap().unwrap()).unwrap()
}

fn server(out: &mut BytesMut) -> BackendMessage {
    backend::decode(split_backend(out).unwrap().unwrap()).unwrap()
}

proptest! {
    #[test]
    fn client_messages_read_back(
        (one, two) in (text(), text()),
        values in prop::collection::vec(prop::option::of("\\PC{0,8}"), 0..6),
        types in prop::collection::vec(any::<u32>(), 0..6),
        rows in any::<i32>(),
    ) {
        let mut out = BytesMut::new();
        encode::parse(&mut out, &one, &two, &types).unwrap();
        let FrontendMessage::Parse(parse) = client(&mut out) else { panic!("not a Parse") };
        prop_assert_eq!((parse.name.as_str(), parse.sql.as_str(), &parse.parameter_types), (&*one, &*two, &types));

        let parameters: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        encode::bind(&mut out, &one, &two, &parameters, &[Format::Text, Format::Binary]).unwrap();
        let FrontendMessage::Bind(bind) = client(&mut out) else { panic!("not a Bind") };
        prop_assert_eq!((bind.portal.as_str(), bind.statement.as_str()), (&*one, &*two));
        let read: Vec<Option<&[u8]>> = bind.parameters.iter().map(|value| value.as_deref()).collect();
        prop_assert_eq!(read, parameters.iter().map(|value| value.map(str::as_bytes)).collect::<Vec<_>>());
        prop_assert_eq!(bind.result_formats, vec![Format::Text, Format::Binary]);

        encode::execute(&mut out, &one, rows).unwrap();
        let FrontendMessage::Execute(execute) = client(&mut out) else { panic!("not an Execute") };
        prop_assert_eq!((execute.portal.as_str(), execute.max_rows), (&*one, rows));
        prop_assert!(out.is_empty());
    }

    #[test]
    fn server_messages_read_back(
        (one, two) in (text(), text()),
        values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..8)), 0..6),
        pid in any::<i32>(),
        key in prop::collection::vec(any::<u8>(), 4..=256),
    ) {
        let mut out = BytesMut::new();
        let cells: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
        encode::data_row(&mut out, &cells).unwrap();
        let BackendMessage::DataRow(row) = server(&mut out) else { panic!("not a DataRow") };
        prop_assert_eq!(row.cells().collect::<Result<Vec<_>, _>>().unwrap(), cells);

        encode::parameter_status(&mut out, &one, &two).unwrap();
        let BackendMessage::ParameterStatus { name, value, .. } = server(&mut out) else { panic!("another") };
        prop_assert_eq!((name.as_str(), value.as_str()), (&*one, &*two));

        encode::backend_key_data(&mut out, pid, &key).unwrap();
        let BackendMessage::BackendKeyData { pid: read_pid, secret } = server(&mut out) else { panic!("another") };
        prop_assert_eq!((read_pid, secret.as_ref()), (pid, key.as_slice()));

        encode::authentication_sasl_continue(&mut out, &key).unwrap();
        let expected = BackendMessage::Authentication(Authentication::SaslContinue(key.clone().into()));
        prop_assert_eq!(server(&mut out), expected);

        encode::cancel_request(&mut out, pid, &key).unwrap();
        let expected = StartupMessage::Cancel { pid, secret: key.into() };
        prop_assert_eq!(split_startup(&mut out), Ok(Some(expected)));
    }

    #[test]
    fn startup_reads_back(values in prop::collection::btree_map("[^\0]{1,8}", text(), 0..6), minor in 0u16..4) {
        let mut out = BytesMut::new();
        let list: Vec<(&str, &str)> = values.iter().map(|(name, value)| (&**name, &**value)).collect();
        encode::startup(&mut out, minor, &list).unwrap();
        let Ok(Some(StartupMessage::Startup(startup))) = split_startup(&mut out) else { panic!("not a startup") };
        let read: Vec<(&str, &str)> = startup.parameters.iter().map(|(name, value)| (&**name, &**value)).collect();
        prop_assert_eq!((startup.major, startup.minor, read), (3, minor, list));
    }
}
