//! Any bytes, from either side, cut anywhere. Nothing panics, nothing is allocated by an announced number, cutting
//! changes nothing, what was decoded says the bytes it came from, and the readers of messages that are passed on
//! unassembled see the same messages as those that take them apart.
//!
//! Input: one byte for the side, two for where the stream is cut, then the stream.

#![no_main]

use bytes::{Bytes, BytesMut};
use exeat_fuzz::{memory, peeked, rebuild, walked};
use exeat_wire::frame::{BACKEND_FRAME_BYTES_MAX, FRONTEND_FRAME_BYTES_MAX, LOGIN_FRAME_BYTES_MAX};
use exeat_wire::{
    Authentication, BackendMessage, CellAction, DataRow, DecodeError, FrontendMessage, Peer, StartupMessage, backend,
    frontend, split_backend, split_frontend, split_startup,
};
use libfuzzer_sys::fuzz_target;

/// Up to here a stream is also read byte by byte.
const BYTEWISE_BYTES_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let [side, high, low, stream @ ..] = input else { return };
    let cut = usize::from(u16::from_be_bytes([*high, *low]));
    memory::bounded(stream.len(), || match side % 4 {
        0 => check(stream, cut, next_startup, startup_says),
        1 => check(stream, cut, |buf| next_client(buf, LOGIN_FRAME_BYTES_MAX), client_says),
        2 => {
            check(stream, cut, |buf| next_client(buf, FRONTEND_FRAME_BYTES_MAX), client_says);
            walked::check(Peer::Client, stream, cut);
        }
        _ => {
            check(stream, cut, next_server, server_says);
            walked::check(Peer::Server, stream, cut);
            walked::check_arrivals(stream);
        }
    });
});

/// One message and the bytes it was taken from.
type Next<M> = Result<Option<(Bytes, M)>, DecodeError>;

/// What a stream was read as.
#[derive(Debug, PartialEq)]
struct Reading<M> {
    messages: Vec<(Bytes, M)>,
    /// Why reading ended before the bytes did.
    error: Option<DecodeError>,
}

fn check<M: std::fmt::Debug + PartialEq>(
    stream: &[u8],
    cut: usize,
    next: impl Fn(&mut BytesMut) -> Next<M>,
    says: impl Fn(&[u8], &M),
) {
    let whole = read([stream], &next);
    let (head, tail) = stream.split_at(cut % (stream.len() + 1));
    assert_eq!(read([head, tail], &next), whole, "cut at {}", head.len());
    assert_eq!(read(stream.chunks(cut % 61 + 2), &next), whole, "in pieces of {}", cut % 61 + 2);
    if stream.len() <= BYTEWISE_BYTES_MAX {
        assert_eq!(read(stream.chunks(1), &next), whole, "byte by byte");
    }
    let mut rest = stream;
    for (bytes, message) in &whole.messages {
        rest = rest.strip_prefix(bytes.as_ref()).expect("messages are the stream, in order, without a gap");
        says(bytes, message);
    }
    let _ = format!("{whole:?} {}", whole.error.as_ref().map(ToString::to_string).unwrap_or_default());
}

fn read<'a, M>(pieces: impl IntoIterator<Item = &'a [u8]>, next: impl Fn(&mut BytesMut) -> Next<M>) -> Reading<M> {
    let mut reading = Reading { messages: Vec::new(), error: None };
    let mut buffer = BytesMut::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match next(&mut buffer) {
                Ok(Some((bytes, _))) if bytes.is_empty() => return reading,
                Ok(Some(message)) => reading.messages.push(message),
                Ok(None) => break,
                Err(error) => return Reading { error: Some(error), ..reading },
            }
        }
    }
    reading
}

/// A TLS handshake takes nothing: no bytes.
fn next_startup(buffer: &mut BytesMut) -> Next<StartupMessage> {
    let before = buffer.clone();
    let message = split_startup(buffer)?;
    let taken = before.len() - buffer.len();
    // A copy: a slice would hold on to everything that follows, once for each message.
    Ok(message.map(|message| (Bytes::copy_from_slice(&before[..taken]), message)))
}

fn next_client(buffer: &mut BytesMut, limit_bytes: usize) -> Next<FrontendMessage> {
    let Some(frame) = split_frontend(buffer, limit_bytes)? else { return Ok(None) };
    assert!(frame.bytes().len() <= limit_bytes);
    Ok(Some((frame.bytes().clone(), frontend::decode(frame)?)))
}

fn next_server(buffer: &mut BytesMut) -> Next<BackendMessage> {
    let Some(frame) = split_backend(buffer)? else { return Ok(None) };
    assert!(frame.bytes().len() <= BACKEND_FRAME_BYTES_MAX);
    Ok(Some((frame.bytes().clone(), backend::decode(frame)?)))
}

fn startup_says(bytes: &[u8], message: &StartupMessage) {
    if let Some(again) = rebuild::startup(message) {
        assert_eq!(again, bytes);
    }
    if let StartupMessage::Startup(startup) = message {
        assert_eq!(startup.major, 3);
        assert!(startup.agreed_minor() <= startup.minor);
        let _ = (startup.needs_negotiation(), startup.parameter("user"), startup.protocol_options().count());
    }
}

fn client_says(bytes: &[u8], message: &FrontendMessage) {
    assert_eq!(rebuild::client(message), bytes);
    peeked::client(bytes, message);
    match message {
        FrontendMessage::Bind(bind) => {
            // Whatever is asked of a Bind has an answer, also for columns it does not have.
            let _ = (bind.parameter_format(bind.parameters.len()), bind.result_format(bind.result_formats.len()));
        }
        FrontendMessage::Password(frame) => {
            if let Ok(response) = frontend::sasl_initial_response(frame) {
                assert_eq!(rebuild::sasl_initial_response(&response), bytes);
            }
        }
        _ => {}
    }
}

fn server_says(bytes: &[u8], message: &BackendMessage) {
    match message {
        BackendMessage::Authentication(Authentication::Other(_)) => {}
        BackendMessage::DataRow(row) => row_says(bytes, row),
        _ => assert_eq!(rebuild::server(message), bytes),
    }
    if let Some(frame) = message.frame() {
        assert_eq!(frame.bytes(), bytes);
    }
    peeked::server(bytes, message);
    if let BackendMessage::ErrorResponse(fields) | BackendMessage::NoticeResponse(fields) = message {
        let rebuilt = fields.clone().with(b'M', "a\0b").only(b"MC");
        let mut out = BytesMut::new();
        rebuilt.encode_error(&mut out);
        let (_, message) = next_server(&mut out).expect("what we build is well formed").expect("and whole");
        let BackendMessage::ErrorResponse(read) = message else { panic!("an error stays an error") };
        assert!(read.iter().eq(rebuilt.iter()));
    }
}

/// Walking and rewriting agree on whether the row is whole; rewriting nothing changes nothing.
fn row_says(bytes: &[u8], row: &DataRow) {
    let cells: Result<Vec<_>, _> = row.cells().collect();
    let mut out = BytesMut::from(&b"before"[..]);
    let kept = row.rewrite(&mut out, |_, _, _| CellAction::Keep);
    assert_eq!(kept.is_ok(), cells.is_ok());
    let Ok(cells) = cells else {
        assert_eq!(out, &b"before"[..]);
        return;
    };
    assert_eq!(cells.len(), row.field_count());
    assert_eq!(out.split_off(6), bytes);
    let same = row.rewrite(&mut out, |index, value, scratch| {
        assert_eq!(value, cells[index]);
        match value {
            Some(value) => {
                scratch.extend_from_slice(value);
                CellAction::Replaced
            }
            None => CellAction::Null,
        }
    });
    assert!(same.is_ok());
    assert_eq!(out.split_off(6), bytes);
    let nothing = row.rewrite(&mut out, |_, _, _| CellAction::Null);
    assert!(nothing.is_ok());
    assert_eq!(out.split_off(6).len(), 5 + 2 + 4 * cells.len());
}
