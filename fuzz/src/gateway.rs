//! The gateway as far as it is pure: framing, decoding, `Pipeline`, and the session's rules of what is forwarded,
//! replaced, skipped and released. What it says of each request is held against what the server did.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use exeat_wire::frame::FRONTEND_FRAME_BYTES_MAX;
use exeat_wire::{
    BackendMessage, FrontendMessage, Pipeline, Request, Sent, Step, Target, backend, frontend, split_backend,
    split_frontend,
};

use crate::server::{Fate, Number, Server};
use crate::words;

/// As in a session, but small enough to be reached.
const WINDOW_REQUESTS_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Client,
    /// A constant with a syntax error, in place of a refused message.
    Poison,
}

/// The end of COPY data is noted and has no answer and no fate.
const COPY_END: Number = Number::MAX;

type Due = (Number, Whose);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Client,
    /// A client sent something else in the place of COPY data.
    BrokenCopy,
    Server,
}

#[derive(Default)]
pub struct Gateway {
    pipeline: Pipeline<Due>,
    from_client: BytesMut,
    from_server: BytesMut,
    /// A message of the batch was refused: what follows is skipped up to the client's Sync.
    refusing: bool,
    fates: BTreeMap<Number, Fate>,
    written: Number,
    ended: Option<Ended>,
}

impl Gateway {
    pub fn ended(&self) -> bool {
        self.ended.is_some()
    }

    pub fn ended_by_a_broken_copy(&self) -> bool {
        self.ended == Some(Ended::BrokenCopy)
    }

    pub fn ended_by_client(&self) -> bool {
        self.ended == Some(Ended::Client)
    }

    /// Takes in a piece of the client's stream; what is admitted goes to the server.
    pub fn client_says(&mut self, piece: &[u8], server: &mut Server) {
        self.from_client.extend_from_slice(piece);
        while self.ended.is_none() && self.pipeline.due() < WINDOW_REQUESTS_MAX {
            let message = match split_frontend(&mut self.from_client, FRONTEND_FRAME_BYTES_MAX) {
                Ok(Some(frame)) => frontend::decode(frame),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            match message {
                Ok(message) => self.exchange(message, &mut server.incoming),
                Err(_) => self.ended = Some(Ended::Client),
            }
        }
    }

    fn exchange(&mut self, message: FrontendMessage, out: &mut BytesMut) {
        use FrontendMessage as M;
        match message {
            M::Sync => {
                self.refusing = false;
                self.send(Request::Sync, b"S\0\0\0\x04", out);
            }
            M::Terminate | M::Password(_) => self.ended = Some(Ended::Client),
            _ if self.refusing || self.pipeline.is_skipping() => {}
            M::Query(query) if query.sql.as_str().contains(words::FORBIDDEN) => self.refuse_simple(out),
            M::FunctionCall(_) => self.refuse_simple(out),
            M::Parse(parse) if parse.sql.as_str().contains(words::FORBIDDEN) => {
                self.refusing = true;
                self.write(Request::Parse, &words::parse("__exeat", words::POISON), Whose::Poison, out);
                out.extend_from_slice(&words::FLUSH);
            }
            M::Query(query) => self.send(Request::Query, query.frame.bytes(), out),
            M::Parse(parse) => self.send(Request::Parse, parse.frame.bytes(), out),
            M::Bind(bind) => self.send(Request::Bind, bind.frame.bytes(), out),
            M::Execute(execute) => self.send(Request::Execute, execute.frame.bytes(), out),
            M::Close(close) => self.send(Request::Close, close.frame.bytes(), out),
            M::Describe(describe) => {
                let request = match describe.target {
                    Target::Statement => Request::DescribeStatement,
                    Target::Portal => Request::DescribePortal,
                };
                self.send(request, describe.frame.bytes(), out);
            }
            M::Flush => out.extend_from_slice(&words::FLUSH),
            M::CopyData(frame) => out.extend_from_slice(frame.bytes()),
            M::CopyDone => self.end_copy(&words::COPY_DONE, out),
            M::CopyFail(frame) => self.end_copy(frame.bytes(), out),
        }
    }

    fn refuse_simple(&mut self, out: &mut BytesMut) {
        self.write(Request::Query, &words::query(words::POISON), Whose::Poison, out);
    }

    fn end_copy(&mut self, message: &[u8], out: &mut BytesMut) {
        let _ = self.pipeline.sent(Request::CopyEnd, (COPY_END, Whose::Client));
        out.extend_from_slice(message);
    }

    fn send(&mut self, request: Request, frame: &[u8], out: &mut BytesMut) {
        self.write(request, frame, Whose::Client, out);
    }

    fn write(&mut self, request: Request, frame: &[u8], whose: Whose, out: &mut BytesMut) {
        // A session ends over it: whether the COPY had failed before, the server alone knows.
        if self.pipeline.is_copying_in() && request != Request::Sync {
            self.ended = Some(Ended::BrokenCopy);
        }
        let number = self.written;
        self.written += 1;
        if let Sent::Skipped((number, _)) = self.pipeline.sent(request, (number, whose)) {
            self.settle(number, Fate::Ignored);
        }
        out.extend_from_slice(frame);
        assert!(self.pipeline.due() <= WINDOW_REQUESTS_MAX);
    }

    /// Takes in a piece of the server's stream. `truth`: what it consists of, if the server is honest.
    pub fn server_says(&mut self, piece: &Bytes, mut truth: Option<&mut VecDeque<(u8, Number)>>) {
        self.from_server.extend_from_slice(piece);
        while self.ended.is_none() {
            let message = match split_backend(&mut self.from_server) {
                Ok(Some(frame)) => backend::decode(frame),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let honest = truth.as_mut().and_then(|truth| truth.pop_front());
            match message {
                Ok(message) => self.answer(&message, honest),
                Err(_) => self.ended = Some(Ended::Server),
            }
            let understood = self.ended.is_none() || self.ended_by_a_broken_copy();
            assert!(honest.is_none() || understood, "an honest answer was not understood");
        }
    }

    fn answer(&mut self, message: &BackendMessage, honest: Option<(u8, Number)>) {
        let front = self.pipeline.front().map(|(request, due)| (*request, *due));
        if let Some((tag, number)) = honest {
            assert_eq!(message.frame().map(|frame| frame.tag()), Some(tag));
            assert_eq!(front.map(|(_, (front, _))| front), Some(number), "matched to another request");
        }
        let Ok(step) = self.pipeline.on_backend(message) else {
            self.ended = Some(Ended::Server);
            return;
        };
        let poisoned = front.is_some_and(|(_, (_, whose))| whose == Whose::Poison);
        match step {
            Step::Asynchronous => assert!(is_asynchronous(message)),
            Step::Fatal => self.ended = Some(Ended::Server),
            // Poison has no answer but its error: a server that gives another is not PostgreSQL.
            Step::Partial | Step::CopyOut | Step::CopyIn { .. } if poisoned => self.ended = Some(Ended::Server),
            Step::Partial | Step::CopyOut => self.release(message, front),
            Step::Completed { context: (number, _), .. } => {
                self.settle(number, Fate::Answered);
                self.release(message, front);
            }
            Step::Failed { context: (number, _), skipped, .. } => {
                assert!(matches!(message, BackendMessage::ErrorResponse(_)));
                self.settle(number, Fate::Failed);
                skipped.into_iter().for_each(|(_, (number, _))| self.settle(number, Fate::Ignored));
            }
            Step::QueryFailed => assert!(front.is_some()),
            Step::CopyIn { swallowed } => {
                let data_only = |request: &Request| matches!(request, Request::Sync | Request::CopyEnd);
                if !swallowed.iter().all(|(request, _)| data_only(request)) {
                    self.ended = Some(Ended::BrokenCopy);
                }
                swallowed.into_iter().for_each(|(_, (number, _))| self.settle(number, Fate::Ignored));
                self.release(message, front);
            }
        }
    }

    /// The message goes to the client: it must be one that its request can be answered by.
    fn release(&self, message: &BackendMessage, front: Option<(Request, Due)>) {
        use BackendMessage as M;
        let (request, _) = front.expect("what is released belongs to a request");
        let runs = matches!(request, Request::Query | Request::Execute);
        let fits = match message {
            M::DataRow(_) | M::CommandComplete { .. } | M::EmptyQueryResponse => runs,
            M::CopyInResponse(_) | M::CopyOutResponse(_) | M::CopyData(_) | M::CopyDone => runs,
            M::RowDescription(_) => {
                matches!(request, Request::Query | Request::DescribeStatement | Request::DescribePortal)
            }
            M::ParameterDescription { .. } => request == Request::DescribeStatement,
            M::NoData => matches!(request, Request::DescribeStatement | Request::DescribePortal),
            M::ParseComplete => request == Request::Parse,
            M::BindComplete => request == Request::Bind,
            M::CloseComplete => request == Request::Close,
            M::PortalSuspended => request == Request::Execute,
            M::ReadyForQuery(_) => matches!(request, Request::Query | Request::Sync),
            M::Authentication(_)
            | M::BackendKeyData { .. }
            | M::NegotiateProtocolVersion { .. }
            | M::ErrorResponse(_)
            | M::NoticeResponse(_)
            | M::ParameterStatus { .. }
            | M::NotificationResponse { .. }
            | M::CopyBothResponse(_)
            | M::FunctionCallResponse(_) => false,
        };
        assert!(fits, "{} released as an answer to {request}", message.name());
    }

    fn settle(&mut self, number: Number, fate: Fate) {
        if number == COPY_END {
            return;
        }
        assert_eq!(self.fates.insert(number, fate), None, "request {number} was settled twice");
    }

    /// After everything was answered by an honest server.
    pub fn check_fates(&self, server: &Server) {
        assert_eq!(self.pipeline.due(), 0);
        assert_eq!(self.fates, server.fates);
        assert_eq!(self.fates.len(), self.written);
        assert_eq!(self.pipeline.is_skipping(), server.is_ignoring());
    }
}

fn is_asynchronous(message: &BackendMessage) -> bool {
    matches!(
        message,
        BackendMessage::NoticeResponse(_)
            | BackendMessage::ParameterStatus { .. }
            | BackendMessage::NotificationResponse { .. }
    )
}
