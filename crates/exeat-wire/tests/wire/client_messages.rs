//! What clients say, against bytes written by hand from the protocol's documentation.

use exeat_wire::{Format, FrontendMessage, Target};

use crate::bytes_in::client;

fn check(tag: u8, content: &[u8], expected: &str) {
    let shown = match client(tag, content) {
        Ok(message) => show(&message),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(shown, expected, "{} {}", tag as char, content.escape_ascii());
}

fn show(message: &FrontendMessage) -> String {
    use FrontendMessage as M;
    match message {
        M::Query(query) => format!("Query {:?}", query.sql.as_str()),
        M::Parse(parse) => {
            format!("Parse {:?} {:?} {:?}", parse.name.as_str(), parse.sql.as_str(), parse.parameter_types)
        }
        M::Bind(bind) => format!(
            "Bind {:?} {:?} {:?} {:?} {:?}",
            bind.portal.as_str(),
            bind.statement.as_str(),
            bind.parameter_formats,
            bind.parameters.iter().map(|value| value.as_ref().map(|b| b.to_vec())).collect::<Vec<_>>(),
            bind.result_formats
        ),
        M::Describe(describe) => format!("Describe {:?} {:?}", describe.target, describe.name.as_str()),
        M::Close(close) => format!("Close {:?} {:?}", close.target, close.name.as_str()),
        M::Execute(execute) => format!("Execute {:?} {}", execute.portal.as_str(), execute.max_rows),
        M::Flush => "Flush".into(),
        M::Sync => "Sync".into(),
        M::Terminate => "Terminate".into(),
        M::CopyData(frame) => format!("CopyData {:?}", frame.payload()),
        M::CopyDone => "CopyDone".into(),
        M::CopyFail(_) => "CopyFail".into(),
        M::FunctionCall(call) => format!("{call:?}"),
        M::Password(frame) => format!("Password {:?}", frame.payload()),
    }
}

#[test]
fn messages_as_documented() {
    check(b'Q', b"select 1\0", r#"Query "select 1""#);
    check(b'Q', b"\0", r#"Query """#);
    check(b'Q', "select 'é'\0".as_bytes(), r#"Query "select 'é'""#);
    check(b'P', b"s1\0select $1\0\0\x02\0\0\0\x17\0\0\0\x19", r#"Parse "s1" "select $1" [23, 25]"#);
    check(b'P', b"\0\0\0\0", r#"Parse "" "" []"#);
    check(b'B', b"\0\0\0\0\0\0\0\0", r#"Bind "" "" [] [] []"#);
    check(
        b'B',
        b"p\0s\0\0\x02\0\0\0\x01\0\x02\0\0\0\x01A\xff\xff\xff\xff\0\x01\0\x01",
        r#"Bind "p" "s" [Text, Binary] [Some([65]), None] [Binary]"#,
    );
    check(b'B', b"\0\0\0\x01\0\x01\0\x01\0\0\0\0\0\0", r#"Bind "" "" [Binary] [Some([])] []"#);
    check(b'D', b"Ss\0", r#"Describe Statement "s""#);
    check(b'D', b"P\0", r#"Describe Portal """#);
    check(b'C', b"Pp\0", r#"Close Portal "p""#);
    check(b'C', b"S\0", r#"Close Statement """#);
    check(b'E', b"p\0\0\0\0\x05", r#"Execute "p" 5"#);
    check(b'E', b"\0\xff\xff\xff\xff", r#"Execute "" -1"#);
    check(b'H', b"", "Flush");
    check(b'S', b"", "Sync");
    check(b'X', b"", "Terminate");
    check(b'd', b"1\t2\n", r#"CopyData b"1\t2\n""#);
    check(b'c', b"", "CopyDone");
    check(b'f', b"no\0", "CopyFail");
    check(
        b'F',
        b"\0\0\0\x07\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01",
        "FunctionCall { frame: Frame(\"F\", 26 bytes), oid: 7, arguments: 2, result_format: Binary, .. }",
    );
    check(b'F', b"\0\0\0\x01", "error: FunctionCall ends before its content does");
    check(b'F', b"\0\0\0\x07\0\x02\0\x01\0\x01\0\0\0\0", "error: FunctionCall has 2 format codes for 0 arguments");
    check(b'p', b"token\0", r#"Password b"token\0""#);
}

#[test]
fn content_that_ends_early_is_refused() {
    check(b'Q', b"", "error: Query ends before its content does");
    check(b'Q', b"select 1", "error: Query ends before its content does");
    check(b'P', b"s\0select 1\0", "error: Parse ends before its content does");
    check(b'P', b"s\0select 1\0\0\x01\0\0\0", "error: Parse ends before its content does");
    check(b'P', b"\0\0\xff\xff\0\0\0\x17", "error: Parse ends before its content does");
    check(b'B', b"\0\0\0\0\0\x01\0\0\0\x02A\0\0", "error: Bind ends before its content does");
    check(b'B', b"\0\0\xff\xff\0\0", "error: Bind ends before its content does");
    check(b'B', b"\0\0\0\0\xff\xff\0\0\0\0\0\0", "error: Bind ends before its content does");
    check(b'B', b"\0\0\0\0\0\0", "error: Bind ends before its content does");
    check(b'D', b"S", "error: Describe ends before its content does");
    check(b'E', b"\0\0\0\0", "error: Execute ends before its content does");
    check(b'f', b"no", "error: CopyFail ends before its content does");
}

#[test]
fn content_that_goes_on_is_refused() {
    check(b'Q', b"select 1\0drop table t\0", "error: Query has 13 bytes after its content");
    check(b'P', b"\0\0\0\0\0", "error: Parse has 1 bytes after its content");
    check(b'B', b"\0\0\0\0\0\0\0\0\0", "error: Bind has 1 bytes after its content");
    check(b'D', b"Ss\0\0", "error: Describe has 1 bytes after its content");
    check(b'E', b"p\0\0\0\0\x05\0", "error: Execute has 1 bytes after its content");
    check(b'C', b"Pp\0p\0", "error: Close has 2 bytes after its content");
    check(b'H', b"\0", "error: Flush has 1 bytes after its content");
    check(b'S', b"\0", "error: Sync has 1 bytes after its content");
    check(b'X', b"\0", "error: Terminate has 1 bytes after its content");
    check(b'c', b"\0", "error: CopyDone has 1 bytes after its content");
}

#[test]
fn values_without_a_meaning_are_refused() {
    check(b'Q', b"select '\xff'\0", "error: Query has text that is not UTF-8");
    check(b'P', b"\xc3\x28\0\0\0\0", "error: Parse has text that is not UTF-8");
    check(b'D', b"Xs\0", "error: Describe has 88 as its target, which has no meaning");
    check(b'C', b"s\0", "error: Close has 115 as its target, which has no meaning");
    check(b'B', b"\0\0\0\x01\0\x02\0\0\0\0", "error: Bind has 2 as its format code, which has no meaning");
    check(b'B', b"\0\0\0\0\0\0\0\x01\xff\xff", "error: Bind has -1 as its format code, which has no meaning");
    check(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", "error: Bind has -2 as its value length, which has no meaning");
    check(b'B', b"\0\0\0\x02\0\0\0\0\0\x01\0\0\0\0\0\0", "error: Bind has 2 format codes for 1 parameters");
}

#[test]
fn formats_are_none_one_or_one_for_each() {
    let bind = |content: &[u8]| match client(b'B', content) {
        Ok(FrontendMessage::Bind(bind)) => bind,
        other => panic!("{other:?}"),
    };
    let none = bind(b"\0\0\0\0\0\x01\0\0\0\0\0\0");
    assert_eq!((none.parameter_format(0), none.result_format(1600)), (Some(Format::Text), Some(Format::Text)));
    let one = bind(b"\0\0\0\x01\0\x01\0\x01\0\0\0\0\0\x01\0\x01");
    assert_eq!((one.parameter_format(0), one.result_format(1600)), (Some(Format::Binary), Some(Format::Binary)));
    let each = bind(b"\0\0\0\0\0\0\0\x02\0\0\0\x01");
    assert_eq!((each.result_format(0), each.result_format(1)), (Some(Format::Text), Some(Format::Binary)));
    assert_eq!(each.result_format(2), None);
}

#[test]
fn targets_are_not_confused() {
    for (code, expected) in [(b'S', Target::Statement), (b'P', Target::Portal)] {
        match (client(b'D', &[code, 0]), client(b'C', &[code, 0])) {
            (Ok(FrontendMessage::Describe(describe)), Ok(FrontendMessage::Close(close))) => {
                assert_eq!((describe.target, close.target), (expected, expected));
            }
            other => panic!("{other:?}"),
        }
    }
}
