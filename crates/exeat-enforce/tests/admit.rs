//! A permit opens the way for its own text only, whatever message carries it, and the bytes sent are the client's.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use bytes::BytesMut;
use exeat_enforce::admit::{Verdict, admit_bind, admit_parse, admit_query};
use exeat_enforce::evaluate::{Evaluation, Permit, evaluate};
use exeat_enforce::refusal::RefusalCode;
use exeat_wire::{FrontendMessage, encode, frontend, split_frontend};

const SQL: &str = "select id from codes";

/// Texts that mean the same, or nearly: the comparison is of bytes, not of meaning.
const OTHERS: [&str; 4] =
    ["select id from codes;", "SELECT id from codes", " select id from codes", "delete from codes"];

fn permit() -> Arc<Permit> {
    let snapshot = Arc::new(support::shop());
    let policy = support::policy("version: 1\nrules:\n  - id: read\n    target: shop\n    allow: [read]\n");
    let session = support::session(&snapshot, &policy, support::principal("a"));
    let analysis = support::on_parser_stack(|| support::analyse(SQL, &snapshot)).unwrap();
    match evaluate(&session, &policy, SQL, &analysis) {
        Evaluation::Permit(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// The client's message and its bytes.
fn sent(write: impl FnOnce(&mut BytesMut)) -> (FrontendMessage, Vec<u8>) {
    let mut buffer = BytesMut::new();
    write(&mut buffer);
    let bytes = buffer.to_vec();
    let frame = split_frontend(&mut buffer, 1024).unwrap().expect("a whole message");
    (frontend::decode(frame).unwrap(), bytes)
}

fn verdict(message: FrontendMessage, prepared: &str, permit: &Arc<Permit>) -> Verdict {
    match message {
        FrontendMessage::Query(query) => admit_query(query, permit),
        FrontendMessage::Parse(parse) => admit_parse(parse, permit),
        FrontendMessage::Bind(bind) => admit_bind(bind, prepared, permit),
        other => panic!("{other:?}"),
    }
}

/// A Query, a Parse and a Bind of this text.
fn messages(sql: &str) -> [(FrontendMessage, Vec<u8>); 3] {
    [
        sent(|out| encode::query(out, sql).unwrap()),
        sent(|out| encode::parse(out, "s", sql, &[]).unwrap()),
        sent(|out| encode::bind(out, "p", "s", &[Some("1")], &[]).unwrap()),
    ]
}

#[test]
fn the_text_that_was_permitted_is_forwarded_byte_for_byte() {
    let permit = permit();
    for (message, bytes) in messages(SQL) {
        match verdict(message, SQL, &permit) {
            Verdict::Forward(admitted) => {
                assert!(Arc::ptr_eq(admitted.permit(), &permit));
                assert_eq!(admitted.into_frame().bytes()[..], bytes[..]);
            }
            Verdict::Refuse(refusal) => panic!("{refusal:?}"),
        }
    }
}

#[test]
fn any_other_text_is_refused() {
    let permit = permit();
    for other in OTHERS {
        for (message, _) in messages(other) {
            match verdict(message, other, &permit) {
                Verdict::Forward(admitted) => panic!("{other}: {admitted:?}"),
                Verdict::Refuse(refusal) => assert_eq!(refusal.code, RefusalCode::NotEnforceable, "{other}"),
            }
        }
    }
}
