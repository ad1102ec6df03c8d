//! A small server that reads requests as `postgres.c` does, and a wire that delays: whatever is sent in whatever
//! order, the pipeline says of each request what the server did with it, and refuses every message that could not
//! have come in its place.

use std::collections::{BTreeMap, VecDeque};

use exeat_wire::{Pipeline, Request, Sent, Step};
use proptest::prelude::*;

use crate::pipeline_rules::{Answer, MESSAGES, REQUESTS, ends_with_ready, message};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Failed,
    Ignored,
}

#[derive(Clone, Copy)]
enum Input {
    Request(Request, usize),
    CopyDone,
}

/// Random decisions, the same again for the same seed bytes.
struct Dice {
    faces: Vec<u8>,
    at: usize,
}

impl Dice {
    fn roll(&mut self, below: u8) -> u8 {
        self.at += 1;
        self.faces[self.at % self.faces.len()] % below
    }
}

#[derive(Default)]
struct Server {
    input: VecDeque<Input>,
    ignoring: bool,
    copying: Option<(Request, usize)>,
    /// Type byte and the request it belongs to.
    wire: VecDeque<(u8, Request, usize)>,
    fates: BTreeMap<usize, Fate>,
}

impl Server {
    fn say(&mut self, symbols: &str, request: Request, id: usize) {
        self.wire.extend(symbols.bytes().map(|symbol| (symbol, request, id)));
    }

    fn fail(&mut self, request: Request, id: usize) {
        self.say("E", request, id);
        if ends_with_ready(request) {
            self.say("Z", request, id);
            self.fates.insert(id, Fate::Answered);
        } else {
            self.ignoring = true;
            self.fates.insert(id, Fate::Failed);
        }
    }

    fn step(&mut self, dice: &mut Dice) {
        let Some(input) = self.input.pop_front() else { return };
        match (input, self.copying) {
            (Input::CopyDone, None) => {}
            (Input::CopyDone, Some((request, id))) => {
                self.copying = None;
                if dice.roll(3) == 0 {
                    self.fail(request, id);
                } else {
                    self.say("C", request, id);
                    self.finish(request, id);
                }
            }
            (Input::Request(Request::Sync, id), Some(_)) => {
                self.fates.insert(id, Fate::Ignored);
            }
            (Input::Request(_, id), Some((request, copy_id))) => {
                self.fates.insert(id, Fate::Ignored);
                self.copying = None;
                self.fail(request, copy_id);
            }
            (Input::Request(request, id), None) => {
                self.ignoring &= request != Request::Sync;
                if self.ignoring {
                    self.fates.insert(id, Fate::Ignored);
                } else {
                    self.answer(request, id, dice);
                }
            }
        }
    }

    fn finish(&mut self, request: Request, id: usize) {
        if request == Request::Query {
            self.say("Z", request, id);
        }
        self.fates.insert(id, Fate::Answered);
    }

    fn answer(&mut self, request: Request, id: usize, dice: &mut Dice) {
        if dice.roll(4) == 0 {
            self.say(["", "N", "S", "A"][usize::from(dice.roll(4))], request, id);
        }
        if dice.roll(6) == 0 {
            return self.fail(request, id);
        }
        let choices: &[&str] = match request {
            Request::Parse => &["1"],
            Request::Bind => &["2"],
            Request::Close => &["3"],
            Request::DescribeStatement => &["tT", "tn", "tE"],
            Request::DescribePortal => &["T", "n"],
            Request::Execute => &["C", "DC", "DDs", "I", "HddcC", "HcC", "DNDSC", "DE", "HdE", "G"],
            Request::Query => &["C", "TDDC", "CTC", "TDTDC", "I", "HdcC", "CHcCTC", "TDE", "CE", "CHdE", "G", "CG"],
            Request::FunctionCall => &["V", "VE"],
            Request::Sync | Request::CopyEnd => &[""],
        };
        let symbols = choices[usize::from(dice.roll(u8::try_from(choices.len()).unwrap()))];
        if let Some(before) = symbols.strip_suffix('E') {
            self.say(before, request, id);
            return self.fail(request, id);
        }
        self.say(symbols, request, id);
        if symbols.ends_with('G') {
            self.copying = Some((request, id));
            return;
        }
        if ends_with_ready(request) {
            self.say("Z", request, id);
        }
        self.fates.insert(id, Fate::Answered);
    }
}

/// The gateway's side: the pipeline, and what it said of each request.
struct Gateway {
    pipeline: Pipeline<usize>,
    fates: BTreeMap<usize, Fate>,
    /// The answer being read, with its request's id.
    reading: Option<(usize, Answer)>,
    copying: bool,
    /// A Query's COPY was broken off by another request: nothing but its error and the end of the session may follow.
    lost: bool,
}

impl Gateway {
    fn settle(&mut self, id: usize, fate: Fate) {
        assert_eq!(self.fates.insert(id, fate), None, "request {id} was settled twice");
    }

    fn send(&mut self, request: Request, id: usize, server: &mut Server) {
        let breaks = self.copying && request != Request::Sync;
        self.lost |= breaks && matches!(self.pipeline.front(), Some((Request::Query, _)));
        self.copying &= request == Request::Sync; // anything else ends the server's COPY
        match self.pipeline.sent(request, id) {
            Sent::Due => {}
            Sent::Skipped(context) => self.settle(context, Fate::Ignored),
        }
        server.input.push_back(Input::Request(request, id));
    }

    fn end_copy(&mut self, server: &mut Server) {
        if std::mem::take(&mut self.copying) {
            assert_eq!(self.pipeline.sent(Request::CopyEnd, usize::MAX), Sent::Skipped(usize::MAX));
            self.reading = self.reading.take().map(|(id, answer)| (id, answer.after(b'!').unwrap_or(answer)));
            server.input.push_back(Input::CopyDone);
        }
    }

    fn receive(&mut self, (symbol, request, id): (u8, Request, usize)) {
        let answer = match self.reading.take() {
            Some((known, answer)) if known == id => answer,
            _ => Answer::to(request),
        };
        self.try_all_others(&answer);
        assert_eq!(self.pipeline.front(), Some((&request, &id)));
        let step = self.pipeline.on_backend(&message(symbol)).unwrap();
        self.reading = answer.after(symbol).map(|after| (id, after));
        match step {
            Step::Asynchronous | Step::Partial | Step::CopyOut | Step::QueryFailed => {}
            Step::Completed { context, .. } => self.settle(context, Fate::Answered),
            Step::Failed { context, skipped, .. } => {
                self.settle(context, Fate::Failed);
                skipped.into_iter().for_each(|(_, id)| self.settle(id, Fate::Ignored));
            }
            Step::CopyIn { swallowed } => {
                self.copying = swallowed.iter().all(|(request, _)| *request == Request::Sync);
                self.lost |= !self.copying && request == Request::Query;
                swallowed.into_iter().for_each(|(_, id)| self.settle(id, Fate::Ignored));
            }
            Step::Fatal => panic!("the model is never fatal"),
        }
    }

    /// Every other message in this place is accepted exactly when the grammar has it there.
    fn try_all_others(&self, answer: &Answer) {
        for &symbol in MESSAGES {
            let accepted = self.pipeline.clone().on_backend(&message(symbol)).is_ok();
            // When the client broke the COPY off with another request, the grammar has no word for it: skip.
            let broken_copy = answer.after(b'!').is_some() && !self.copying && symbol == b'C';
            if !broken_copy {
                assert_eq!(accepted, answer.after(symbol).is_some(), "{}", symbol as char);
            }
        }
    }
}

fn run(requests: &[Request], schedule: &[u8], dice: &mut Dice) {
    let mut server = Server::default();
    let mut gateway =
        Gateway { pipeline: Pipeline::new(), fates: BTreeMap::new(), reading: None, copying: false, lost: false };
    let mut unsent = requests.iter().copied().enumerate();
    for action in schedule {
        match action {
            0 | 1 => {
                if let Some((id, request)) = unsent.next() {
                    gateway.send(request, id, &mut server);
                }
            }
            2 => server.step(dice),
            3 => gateway.end_copy(&mut server),
            _ => {
                if let Some(entry) = server.wire.pop_front() {
                    gateway.receive(entry);
                }
            }
        }
        if gateway.lost {
            return;
        }
    }
    for (id, request) in unsent {
        gateway.send(request, id, &mut server);
    }
    while !server.input.is_empty() || !server.wire.is_empty() || gateway.copying {
        if gateway.lost {
            return;
        }
        server.step(dice);
        if let Some(entry) = server.wire.pop_front() {
            gateway.receive(entry);
        }
        if server.input.is_empty() && server.wire.is_empty() {
            gateway.end_copy(&mut server);
        }
    }
    assert_eq!(gateway.pipeline.due(), 0);
    assert_eq!(gateway.fates, server.fates);
    assert_eq!(server.fates.len(), requests.len());
    assert_eq!(gateway.pipeline.is_skipping(), server.ignoring);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn every_request_meets_the_fate_the_server_gave_it(
        requests in prop::collection::vec(prop::sample::select(&REQUESTS[..]), 1..20),
        schedule in prop::collection::vec(0u8..6, 0..60),
        faces in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        run(&requests, &schedule, &mut Dice { faces, at: 0 });
    }
}
