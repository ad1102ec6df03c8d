//! What servers say, against bytes written by hand from the protocol's documentation.

use exeat_wire::fields::{FIELD_TEXT_BYTES_MAX, FIELDS_MAX};
use exeat_wire::{Authentication, BackendMessage, Fields, WireStr};

use crate::bytes_in::{raw, server};

fn check(tag: u8, content: &[u8], expected: &str) {
    let shown = match server(tag, content) {
        Ok(message) => {
            let whole = raw(tag, content);
            match message.frame() {
                Some(frame) => assert_eq!(frame.bytes().as_ref(), whole.as_slice()),
                None => assert!(b"RKv".contains(&tag), "no frame for {}", tag as char),
            }
            show(&message)
        }
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(shown, expected, "{} {}", tag as char, content.escape_ascii());
}

fn names(list: &[WireStr]) -> Vec<&str> {
    list.iter().map(WireStr::as_str).collect()
}

fn show(message: &BackendMessage) -> String {
    use BackendMessage as M;
    match message {
        M::Authentication(Authentication::Md5 { salt }) => format!("Md5 {salt:?}"),
        M::Authentication(Authentication::Sasl { mechanisms }) => format!("Sasl {:?}", names(mechanisms)),
        M::Authentication(Authentication::SaslContinue(data)) => format!("SaslContinue {data:?}"),
        M::Authentication(Authentication::SaslFinal(data)) => format!("SaslFinal {data:?}"),
        M::Authentication(other) => format!("Authentication {other:?}"),
        M::BackendKeyData { pid, secret } => format!("BackendKeyData {pid} {secret:?}"),
        M::NegotiateProtocolVersion { newest, options } => format!("Negotiate {newest:#x} {:?}", names(options)),
        M::ParameterStatus { name, value, .. } => format!("ParameterStatus {}={}", name.as_str(), value.as_str()),
        M::ReadyForQuery(status) => format!("ReadyForQuery {status:?}"),
        M::RowDescription(description) => {
            let fields = description.fields.iter().map(|f| {
                format!(
                    "{} {}.{} {} {} {} {:?}",
                    f.name.as_str(),
                    f.table_oid,
                    f.attribute,
                    f.type_oid,
                    f.type_size,
                    f.type_modifier,
                    f.format
                )
            });
            format!("RowDescription {:?}", fields.collect::<Vec<_>>())
        }
        M::DataRow(row) => format!("DataRow {:?}", row.cells().collect::<Vec<_>>()),
        M::CommandComplete { tag, .. } => format!("CommandComplete {}", tag.as_str()),
        M::ErrorResponse(fields) | M::NoticeResponse(fields) => {
            let entries = fields.iter().map(|(code, value)| format!("{}{}", code as char, value.escape_ascii()));
            format!("{} {:?}", message.name(), entries.collect::<Vec<_>>())
        }
        M::NotificationResponse { pid, channel, payload, .. } => {
            format!("Notification {pid} {} {}", channel.as_str(), payload.as_str())
        }
        M::ParameterDescription { types, .. } => format!("ParameterDescription {types:?}"),
        M::CopyInResponse(copy) | M::CopyOutResponse(copy) | M::CopyBothResponse(copy) => {
            format!("{} {:?} {:?}", message.name(), copy.format, copy.column_formats)
        }
        M::CopyData(frame) | M::FunctionCallResponse(frame) => format!("{} {:?}", message.name(), frame.payload()),
        M::EmptyQueryResponse
        | M::ParseComplete
        | M::BindComplete
        | M::CloseComplete
        | M::NoData
        | M::PortalSuspended
        | M::CopyDone => message.name().to_owned(),
    }
}

#[test]
fn messages_of_the_login() {
    check(b'R', b"\0\0\0\0", "Authentication Ok");
    check(b'R', b"\0\0\0\x03", "Authentication CleartextPassword");
    check(b'R', b"\0\0\0\x05\x01\x02\x03\x04", "Md5 [1, 2, 3, 4]");
    check(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", r#"Sasl ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]"#);
    check(b'R', b"\0\0\0\x0br=x,s=y,i=4096", r#"SaslContinue b"r=x,s=y,i=4096""#);
    check(b'R', b"\0\0\0\x0cv=z", r#"SaslFinal b"v=z""#);
    check(b'R', b"\0\0\0\x07", "Authentication Other(7)");
    check(b'R', b"\0\0\0\x08gss", "Authentication Other(8)");
    check(b'K', b"\0\0\x04\xd2abcd", r#"BackendKeyData 1234 b"abcd""#);
    check(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.x\0", r#"Negotiate 0x30000 ["_pq_.x"]"#);
    check(b'S', b"client_encoding\0UTF8\0", "ParameterStatus client_encoding=UTF8");
}

#[test]
fn messages_of_the_session() {
    check(b'Z', b"I", "ReadyForQuery Idle");
    check(b'Z', b"T", "ReadyForQuery InTransaction");
    check(b'Z', b"E", "ReadyForQuery Failed");
    check(
        b'T',
        b"\0\x02email\0\0\0\x40\x01\0\x02\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01",
        r#"RowDescription ["email 16385.2 25 -1 -1 Text", "n 0.0 23 4 -1 Binary"]"#,
    );
    check(b'T', b"\0\0", "RowDescription []");
    check(b'D', b"\0\x02\0\0\0\x01A\xff\xff\xff\xff", "DataRow [Ok(Some([65])), Ok(None)]");
    check(b'D', b"\0\0", "DataRow []");
    check(b'C', b"SELECT 1\0", "CommandComplete SELECT 1");
    check(b'I', b"", "EmptyQueryResponse");
    check(b'E', b"SERROR\0C42501\0Mno\0\0", r#"ErrorResponse ["SERROR", "C42501", "Mno"]"#);
    check(b'N', b"SNOTICE\0\0", r#"NoticeResponse ["SNOTICE"]"#);
    check(b'E', b"SFEHLER\0M\xe4\0\0", r#"ErrorResponse ["SFEHLER", "M\\xe4"]"#);
    check(b'A', b"\0\0\0\x07ch\0hi\0", "Notification 7 ch hi");
    check(b'1', b"", "ParseComplete");
    check(b'2', b"", "BindComplete");
    check(b'3', b"", "CloseComplete");
    check(b'n', b"", "NoData");
    check(b's', b"", "PortalSuspended");
    check(b't', b"\0\x01\0\0\0\x17", "ParameterDescription [23]");
    check(b'G', b"\0\0\x02\0\0\0\0", "CopyInResponse Text [Text, Text]");
    check(b'H', b"\x01\0\x01\0\x01", "CopyOutResponse Binary [Binary]");
    check(b'W', b"\0\0\0", "CopyBothResponse Text []");
    check(b'd', b"1\n", r#"CopyData b"1\n""#);
    check(b'c', b"", "CopyDone");
    check(b'V', b"\xff\xff\xff\xff", r#"FunctionCallResponse b"\xff\xff\xff\xff""#);
}

#[test]
fn broken_messages_are_refused() {
    check(b'R', b"\0\0\0", "error: Authentication ends before its content does");
    check(b'R', b"\0\0\0\0x", "error: Authentication has 1 bytes after its content");
    check(b'R', b"\0\0\0\x05\x01\x02\x03", "error: Authentication ends before its content does");
    check(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0", "error: Authentication ends before its content does");
    check(b'R', b"\0\0\0\x0a\0x", "error: Authentication has 1 bytes after its content");
    check(b'K', b"\0\0\x04\xd2abc", "error: BackendKeyData ends before its content does");
    let long_key = [&b"\0\0\0\x01"[..], &[7; 257]].concat();
    check(b'K', &long_key, "error: BackendKeyData has 257 bytes of cancel key, the limit is 256");
    check(
        b'v',
        b"\0\x03\0\0\xff\xff\xff\xff",
        "error: NegotiateProtocolVersion has 4294967295 options, the limit is 128",
    );
    check(b'v', b"\0\x03\0\0\0\0\0\x02a\0", "error: NegotiateProtocolVersion ends before its content does");
    check(b'S', b"name\0", "error: ParameterStatus ends before its content does");
    check(b'S', b"name\0\xff\0", "error: ParameterStatus has text that is not UTF-8");
    check(b'Z', b"X", "error: ReadyForQuery has 88 as its transaction status, which has no meaning");
    check(b'Z', b"", "error: ReadyForQuery ends before its content does");
    check(b'Z', b"II", "error: ReadyForQuery has 1 bytes after its content");
    check(
        b'T',
        b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x02",
        "error: RowDescription has 2 as its format code, which has no meaning",
    );
    check(b'T', b"\xff\xff", "error: RowDescription ends before its content does");
    check(b'T', b"\0\0\0", "error: RowDescription has 1 bytes after its content");
    check(b'D', b"\0", "error: DataRow ends before its content does");
    check(b'C', b"SELECT 1\0\0", "error: CommandComplete has 1 bytes after its content");
    check(b'C', b"SELECT 1", "error: CommandComplete ends before its content does");
    check(b'E', b"SERROR\0", "error: ErrorResponse ends before its content does");
    check(b'E', b"SERROR\0\0x", "error: ErrorResponse has 1 bytes after its content");
    check(b'E', b"Ma\0Mb\0\0", "error: ErrorResponse names the same field twice");
    check(b'1', b"x", "error: ParseComplete has 1 bytes after its content");
    check(b't', b"\0\x02\0\0\0\x17", "error: ParameterDescription ends before its content does");
    check(b't', b"\0\0\0", "error: ParameterDescription has 1 bytes after its content");
    check(b'A', b"\0\0\0\x07ch\0", "error: NotificationResponse ends before its content does");
    check(b'G', b"\x02\0\0", "error: CopyInResponse has 2 as its format code, which has no meaning");
    check(b'H', b"\0\0\x01", "error: CopyOutResponse ends before its content does");
    check(b'c', b"x", "error: CopyDone has 1 bytes after its content");
}

#[test]
fn rows_have_at_most_1664_columns() {
    let field = b"\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
    let description = |count: u16| [&count.to_be_bytes(), field.repeat(usize::from(count)).as_slice()].concat();
    assert!(server(b'T', &description(1664)).is_ok());
    check(b'T', &description(1665), "error: RowDescription has 1665 columns, the limit is 1664");
    let row = |count: u16| [&count.to_be_bytes(), [255; 4].repeat(usize::from(count)).as_slice()].concat();
    assert!(server(b'D', &row(1664)).is_ok());
    check(b'D', &row(1665), "error: DataRow has 1665 columns, the limit is 1664");
    let formats = |count: u16| [&[0], &count.to_be_bytes()[..], &[0, 0].repeat(usize::from(count))].concat();
    assert!(server(b'G', &formats(1664)).is_ok());
    check(b'G', &formats(1665), "error: CopyInResponse has 1665 columns, the limit is 1664");
}

#[test]
fn lists_of_names_are_bounded() {
    let error = |count: usize| (1..=count).flat_map(|c| [u8::try_from(c).unwrap(), 0]).chain([0]).collect::<Vec<_>>();
    assert!(server(b'E', &error(FIELDS_MAX)).is_ok());
    check(b'E', &error(FIELDS_MAX + 1), "error: ErrorResponse has 65 fields, the limit is 64");
    let sasl = |count: usize| [&b"\0\0\0\x0a"[..], &b"m\0".repeat(count), b"\0"].concat();
    assert!(server(b'R', &sasl(128)).is_ok());
    check(b'R', &sasl(129), "error: Authentication has 129 mechanisms, the limit is 128");
}

fn encoded(fields: &Fields) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    fields.encode_error(&mut out);
    out.to_vec()
}

#[test]
fn built_errors_have_the_documented_bytes() {
    let fields = Fields::new("ERROR", "42501", "not allowed").with(b'H', "ask first");
    assert_eq!(encoded(&fields), raw(b'E', b"SERROR\0VERROR\0C42501\0Mnot allowed\0Hask first\0\0"));
    let mut out = bytes::BytesMut::new();
    Fields::new("NOTICE", "00000", "held").encode_notice(&mut out);
    assert_eq!(out.to_vec(), raw(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mheld\0\0"));
}

#[test]
fn text_of_an_error_cannot_open_another_field() {
    let fields = Fields::new("ERROR", "42501", "a\0Hinjected").with(0, "ended");
    match server(b'E', encoded(&fields).get(5..).unwrap()) {
        Ok(BackendMessage::ErrorResponse(read)) => {
            assert_eq!(read.message().as_deref(), Some("a\u{fffd}Hinjected"));
            assert_eq!((read.get(b'H'), read.iter().count()), (None, 4));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn text_of_an_error_is_cut_at_a_character() {
    let text = format!("{}é", "a".repeat(FIELD_TEXT_BYTES_MAX - 1));
    let fields = Fields::new("ERROR", "42501", &text);
    assert_eq!(fields.message().unwrap().len(), FIELD_TEXT_BYTES_MAX - 1);
    let fields = Fields::new("ERROR", "42501", &"a".repeat(FIELD_TEXT_BYTES_MAX));
    assert_eq!(fields.message().unwrap().len(), FIELD_TEXT_BYTES_MAX);
}

#[test]
fn a_changed_error_is_no_longer_the_servers() {
    let Ok(BackendMessage::ErrorResponse(fields)) = server(b'E', b"SFEHLER\0VERROR\0C23505\0Mx\0DKey (a)=(1)\0\0")
    else {
        panic!("not an error");
    };
    assert!(fields.frame().is_some());
    assert_eq!(fields.severity().as_deref(), Some("ERROR"));
    assert!(fields.clone().with(b'M', "y").frame().is_none());
    let kept = fields.clone().only(b"SVC");
    assert!(kept.frame().is_none());
    assert_eq!(encoded(&kept), raw(b'E', b"SFEHLER\0VERROR\0C23505\0\0"));
    assert_eq!(encoded(&fields), fields.frame().unwrap().bytes().to_vec());
}

#[test]
fn only_fatal_and_panic_end_the_connection() {
    let ends = |content: &[u8]| match server(b'E', content) {
        Ok(BackendMessage::ErrorResponse(fields)) => fields.ends_connection(),
        other => panic!("{other:?}"),
    };
    assert!(ends(b"SFATAL\0\0") && ends(b"SPANIK\0VPANIC\0\0") && ends(b"VFATAL\0SERROR\0\0"));
    assert!(!ends(b"SERROR\0\0") && !ends(b"SFATAL\0VERROR\0\0") && !ends(b"\0"));
}
