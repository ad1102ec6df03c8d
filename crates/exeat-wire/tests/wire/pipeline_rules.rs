//! The answers a request may get, as one regular expression for each over the messages' type bytes, and the
//! pipeline compared with it in every reachable state, message by message.

use std::collections::HashSet;

use exeat_wire::{BackendMessage, Pipeline, PipelineError, Request, Sent, Step};

use crate::bytes_in::server;

/// Error-free answers, from the protocol's documentation. `!` stands for the client ending its COPY data.
fn grammar(request: Request) -> Re {
    parse(match request {
        Request::Parse => "1",
        Request::Bind => "2",
        Request::Close => "3",
        Request::DescribeStatement => "t(T|n)",
        Request::DescribePortal => "T|n",
        Request::Execute => "D*(C|s)|I|G!C|Hd*cC",
        Request::Query => "(((TD*)*C|G!C|Hd*cC)((TD*)*C|G!C|Hd*cC)*|I)Z",
        Request::FunctionCall => "VZ",
        Request::Sync => "Z",
        Request::CopyEnd => "",
    })
}

pub(crate) const REQUESTS: [Request; 9] = [
    Request::Parse,
    Request::Bind,
    Request::DescribeStatement,
    Request::DescribePortal,
    Request::Execute,
    Request::Close,
    Request::Sync,
    Request::Query,
    Request::FunctionCall,
];

/// Requests whose error is followed by ReadyForQuery and not by skipping.
pub(crate) fn ends_with_ready(request: Request) -> bool {
    matches!(request, Request::Sync | Request::Query | Request::FunctionCall)
}

/// `F` is an ErrorResponse that is FATAL.
pub(crate) const MESSAGES: &[u8] = b"RKSZTDCIENA123ntsGHWcdVvF";

pub(crate) fn message(symbol: u8) -> BackendMessage {
    let (tag, content): (u8, &[u8]) = match symbol {
        b'R' => (b'R', b"\0\0\0\0"),
        b'K' => (b'K', b"\0\0\0\x01abcd"),
        b'S' => (b'S', b"a\0b\0"),
        b'Z' => (b'Z', b"I"),
        b'T' | b'D' | b't' => (symbol, b"\0\0"),
        b'C' => (b'C', b"SELECT 0\0"),
        b'E' => (b'E', b"SERROR\0\0"),
        b'F' => (b'E', b"SFATAL\0\0"),
        b'N' => (b'N', b"SNOTICE\0\0"),
        b'A' => (b'A', b"\0\0\0\x01c\0\0"),
        b'G' | b'H' | b'W' => (symbol, b"\0\0\0"),
        b'v' => (b'v', b"\0\x03\0\0\0\0\0\0"),
        b'V' => (b'V', b"\xff\xff\xff\xff"),
        other => (other, b""),
    };
    server(tag, content).unwrap()
}

/// What may still come for one request.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    request: Request,
    rest: Re,
}

impl Answer {
    pub(crate) fn to(request: Request) -> Self {
        Self { request, rest: grammar(request) }
    }

    /// What may come after `symbol`; `None` when it cannot come here.
    pub(crate) fn after(&self, symbol: u8) -> Option<Self> {
        let rest = match symbol {
            b'N' | b'S' | b'A' => self.rest.clone(),
            b'F' => Re::Empty,
            b'E' if ends_with_ready(self.request) => parse("Z"),
            b'E' => Re::Empty,
            symbol => derive(&self.rest, symbol),
        };
        (rest != Re::Void).then_some(Self { request: self.request, rest })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest == Re::Empty
    }
}

#[test]
fn every_message_in_every_state() {
    for request in REQUESTS {
        let mut pipeline = Pipeline::new();
        assert_eq!(pipeline.sent(request, ()), Sent::Due);
        let mut seen = HashSet::new();
        let mut open = vec![(Answer::to(request), pipeline)];
        while let Some((answer, pipeline)) = open.pop() {
            if !seen.insert((answer.clone(), format!("{pipeline:?}"))) {
                continue;
            }
            assert!(seen.len() < 50, "{request}: the walk does not end");
            if let Some(after) = answer.after(b'!') {
                let mut pipeline = pipeline.clone();
                assert_eq!(pipeline.sent(Request::CopyEnd, ()), Sent::Skipped(()));
                open.push((after, pipeline));
            }
            for &symbol in MESSAGES {
                let mut pipeline = pipeline.clone();
                let step = pipeline.on_backend(&message(symbol));
                let context = format!("{} after {} states of {request}", symbol as char, seen.len());
                check_step(&answer, symbol, &step, &context);
                if let (Some(after), Ok(Step::Partial | Step::QueryFailed | Step::CopyOut | Step::CopyIn { .. })) =
                    (answer.after(symbol), &step)
                {
                    open.push((after, pipeline));
                }
            }
        }
    }
}

fn check_step(answer: &Answer, symbol: u8, step: &Result<Step<()>, PipelineError>, context: &str) {
    let Some(after) = answer.after(symbol) else {
        let name = message(symbol).name();
        assert_eq!(step, &Err(PipelineError::Unexpected { message: name, request: answer.request }), "{context}");
        return;
    };
    let expected = match symbol {
        b'N' | b'S' | b'A' => Step::Asynchronous,
        b'F' => Step::Fatal,
        b'E' if ends_with_ready(answer.request) => Step::QueryFailed,
        b'E' => Step::Failed { request: answer.request, context: (), skipped: vec![] },
        b'G' => Step::CopyIn { swallowed: vec![] },
        b'H' => Step::CopyOut,
        _ if after.is_over() => Step::Completed { request: answer.request, context: () },
        _ => Step::Partial,
    };
    assert_eq!(step, &Ok(expected), "{context}");
}

#[test]
fn nothing_but_asynchronous_messages_without_a_request() {
    for &symbol in MESSAGES {
        let step = Pipeline::<()>::new().on_backend(&message(symbol));
        let expected = match symbol {
            b'N' | b'S' | b'A' => Ok(Step::Asynchronous),
            b'F' => Ok(Step::Fatal),
            _ => Err(PipelineError::Unsolicited { message: message(symbol).name() }),
        };
        assert_eq!(step, expected, "{}", symbol as char);
    }
}

#[test]
fn nothing_follows_a_fatal_error() {
    let mut pipeline = Pipeline::new();
    assert_eq!(pipeline.sent(Request::Query, 1), Sent::Due);
    assert_eq!(pipeline.on_backend(&message(b'F')), Ok(Step::Fatal));
    assert_eq!(pipeline.sent(Request::Query, 2), Sent::Skipped(2));
    for &symbol in MESSAGES {
        let expected = Err(PipelineError::AfterFatal { message: message(symbol).name() });
        assert_eq!(pipeline.clone().on_backend(&message(symbol)), expected);
    }
    assert_eq!(pipeline.into_due().collect::<Vec<_>>(), [(Request::Query, 1)]);
}

fn sent(requests: &[Request]) -> Pipeline<usize> {
    let mut pipeline = Pipeline::new();
    for (id, request) in requests.iter().enumerate() {
        assert_eq!(pipeline.sent(*request, id), Sent::Due);
    }
    pipeline
}

#[test]
fn an_extended_error_skips_to_the_queued_sync() {
    use Request::{Bind, Execute, Parse, Query, Sync};
    let mut pipeline = sent(&[Parse, Bind, Query, Sync, Execute]);
    let step = pipeline.on_backend(&message(b'E')).unwrap();
    assert_eq!(step, Step::Failed { request: Parse, context: 0, skipped: vec![(Bind, 1), (Query, 2)] });
    assert!(!pipeline.is_skipping());
    assert_eq!(pipeline.on_backend(&message(b'Z')).unwrap(), Step::Completed { request: Sync, context: 3 });
    assert_eq!(pipeline.front(), Some((&Execute, &4)));
}

#[test]
fn an_extended_error_skips_to_a_sync_yet_to_come() {
    use Request::{Bind, Execute, Parse, Query, Sync};
    let mut pipeline = sent(&[Parse, Bind]);
    let step = pipeline.on_backend(&message(b'E')).unwrap();
    assert_eq!(step, Step::Failed { request: Parse, context: 0, skipped: vec![(Bind, 1)] });
    assert!(pipeline.is_skipping());
    assert_eq!(pipeline.sent(Execute, 2), Sent::Skipped(2));
    assert_eq!(pipeline.sent(Query, 3), Sent::Skipped(3));
    assert_eq!(pipeline.due(), 0);
    assert_eq!(pipeline.sent(Sync, 4), Sent::Due);
    assert!(!pipeline.is_skipping());
    assert_eq!(pipeline.sent(Query, 5), Sent::Due);
    assert_eq!(pipeline.due(), 2);
}

#[test]
fn a_failed_sync_or_query_skips_nothing() {
    use Request::{Parse, Query, Sync};
    for first in [Query, Sync, Request::FunctionCall] {
        let mut pipeline = sent(&[first, Parse]);
        assert_eq!(pipeline.on_backend(&message(b'E')).unwrap(), Step::QueryFailed);
        assert_eq!(pipeline.on_backend(&message(b'Z')).unwrap(), Step::Completed { request: first, context: 0 });
        assert_eq!(pipeline.on_backend(&message(b'1')).unwrap(), Step::Completed { request: Parse, context: 1 });
    }
}

#[test]
fn copy_in_swallows_what_was_sent_too_early() {
    use Request::{Execute, Parse, Query, Sync};
    let mut pipeline = sent(&[Execute, Sync, Sync]);
    let step = pipeline.on_backend(&message(b'G')).unwrap();
    assert_eq!(step, Step::CopyIn { swallowed: vec![(Sync, 1), (Sync, 2)] });
    assert_eq!(pipeline.sent(Sync, 3), Sent::Skipped(3));
    assert!(pipeline.clone().on_backend(&message(b'C')).is_err(), "data has not ended");
    assert_eq!(pipeline.sent(Request::CopyEnd, 9), Sent::Skipped(9));
    assert_eq!(pipeline.sent(Sync, 4), Sent::Due);
    assert_eq!(pipeline.on_backend(&message(b'C')).unwrap(), Step::Completed { request: Execute, context: 0 });
    assert_eq!(pipeline.on_backend(&message(b'Z')).unwrap(), Step::Completed { request: Sync, context: 4 });

    let mut pipeline = sent(&[Query, Parse, Sync]);
    let step = pipeline.on_backend(&message(b'G')).unwrap();
    assert_eq!(step, Step::CopyIn { swallowed: vec![(Parse, 1)] });
    assert!(pipeline.clone().on_backend(&message(b'C')).is_err(), "the COPY was broken off");
    assert_eq!(pipeline.on_backend(&message(b'E')).unwrap(), Step::QueryFailed);
    // Whether the Parse broke the COPY off or stands behind one that had failed, the server alone knows.
    assert!(pipeline.clone().on_backend(&message(b'Z')).is_err());
    assert_eq!(pipeline.on_backend(&message(b'F')).unwrap(), Step::Fatal);
}

#[test]
fn the_end_of_copy_data_may_be_sent_before_the_server_asks_for_data() {
    use Request::{CopyEnd, Parse, Query, Sync};
    let mut pipeline = sent(&[Query, CopyEnd, Parse, Sync]);
    let step = pipeline.on_backend(&message(b'G')).unwrap();
    assert_eq!(step, Step::CopyIn { swallowed: vec![(CopyEnd, 1)] });
    assert_eq!(pipeline.on_backend(&message(b'C')).unwrap(), Step::Partial);
    assert_eq!(pipeline.on_backend(&message(b'Z')).unwrap(), Step::Completed { request: Query, context: 0 });
    assert_eq!(pipeline.on_backend(&message(b'1')).unwrap(), Step::Completed { request: Parse, context: 2 });
}

#[test]
fn the_end_of_copy_data_outside_a_copy_is_ignored() {
    use Request::{CopyEnd, Query, Sync};
    assert_eq!(Pipeline::new().sent(CopyEnd, 0), Sent::Skipped(0));
    let mut pipeline = sent(&[Query, CopyEnd, CopyEnd, Sync]);
    assert_eq!(pipeline.on_backend(&message(b'E')).unwrap(), Step::QueryFailed);
    assert_eq!(pipeline.on_backend(&message(b'Z')).unwrap(), Step::Completed { request: Query, context: 0 });
    assert_eq!(pipeline.front(), Some((&Sync, &3)));
    assert_eq!(pipeline.sent(CopyEnd, 4), Sent::Due);
    assert_eq!(pipeline.on_backend(&message(b'Z')).unwrap(), Step::Completed { request: Sync, context: 3 });
    assert_eq!(pipeline.due(), 0);
}

#[test]
fn the_type_byte_alone_says_the_same_as_the_message() {
    for &symbol in MESSAGES {
        let whole = message(symbol);
        let tag = whole.frame().map(exeat_wire::Frame::tag);
        let Some(known) = tag.and_then(exeat_wire::Answer::from_tag) else { continue };
        assert_eq!(known.name(), whole.name());
        if !matches!(known, exeat_wire::Answer::ErrorResponse { .. }) {
            assert_eq!(known, exeat_wire::Answer::of(&whole));
        }
    }
}

#[test]
fn errors_name_what_came_and_what_was_due() {
    let error = sent(&[Request::DescribeStatement]).on_backend(&message(b'D')).unwrap_err();
    assert_eq!(error.to_string(), "server sent DataRow while it owed the answer to Describe of a statement");
    let error = sent(&[]).on_backend(&message(b'D')).unwrap_err();
    assert_eq!(error.to_string(), "server sent DataRow while it owed no answer");
}

/// A regular expression, small enough to be obviously right: derivatives by one symbol.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Re {
    Void,
    Empty,
    Symbol(u8),
    Then(Box<Re>, Box<Re>),
    Or(Box<Re>, Box<Re>),
    Star(Box<Re>),
}

fn then(left: Re, right: Re) -> Re {
    match (left, right) {
        (Re::Void, _) | (_, Re::Void) => Re::Void,
        (Re::Empty, other) | (other, Re::Empty) => other,
        (left, right) => Re::Then(left.into(), right.into()),
    }
}

fn or(left: Re, right: Re) -> Re {
    match (left, right) {
        (Re::Void, other) | (other, Re::Void) => other,
        (left, right) if left == right => left,
        (left, right) => Re::Or(left.into(), right.into()),
    }
}

fn nullable(re: &Re) -> bool {
    match re {
        Re::Void | Re::Symbol(_) => false,
        Re::Empty | Re::Star(_) => true,
        Re::Then(left, right) => nullable(left) && nullable(right),
        Re::Or(left, right) => nullable(left) || nullable(right),
    }
}

fn derive(re: &Re, symbol: u8) -> Re {
    match re {
        Re::Void | Re::Empty => Re::Void,
        Re::Symbol(own) if *own == symbol => Re::Empty,
        Re::Symbol(_) => Re::Void,
        Re::Or(left, right) => or(derive(left, symbol), derive(right, symbol)),
        Re::Star(inner) => then(derive(inner, symbol), re.clone()),
        Re::Then(left, right) => {
            let through = then(derive(left, symbol), right.as_ref().clone());
            if nullable(left) { or(through, derive(right, symbol)) } else { through }
        }
    }
}

fn parse(text: &str) -> Re {
    let mut rest = text.as_bytes();
    let re = alternatives(&mut rest);
    assert!(rest.is_empty(), "{text}");
    re
}

fn alternatives(rest: &mut &[u8]) -> Re {
    let mut re = Re::Void;
    loop {
        let mut sequence = Re::Empty;
        while let Some((&symbol, tail)) = rest.split_first() {
            if matches!(symbol, b'|' | b')') {
                break;
            }
            *rest = tail;
            let mut item = Re::Symbol(symbol);
            if symbol == b'(' {
                item = alternatives(rest);
                *rest = rest.strip_prefix(b")").unwrap();
            }
            if let Some(tail) = rest.strip_prefix(b"*") {
                *rest = tail;
                item = Re::Star(item.into());
            }
            sequence = then(sequence, item);
        }
        re = or(re, sequence);
        match rest.strip_prefix(b"|") {
            Some(tail) => *rest = tail,
            None => return re,
        }
    }
}

#[test]
fn the_oracle_knows_its_grammar() {
    let over = |request: Request, symbols: &str| {
        let mut answer = Answer::to(request);
        for symbol in symbols.bytes() {
            answer = answer.after(symbol)?;
        }
        Some(answer.is_over())
    };
    assert_eq!(over(Request::Query, "TDDCCTCZ"), Some(true));
    assert_eq!(over(Request::Query, "TD"), Some(false));
    assert_eq!(over(Request::Query, "DC"), None);
    assert_eq!(over(Request::Query, "IC"), None);
    assert_eq!(over(Request::Execute, "DDs"), Some(true));
    assert_eq!(over(Request::Execute, "TD"), None);
    assert_eq!(over(Request::Execute, "GC"), None);
    assert_eq!(over(Request::Execute, "G!C"), Some(true));
}
