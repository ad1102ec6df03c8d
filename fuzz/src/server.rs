//! A model of the server: reads what was forwarded as `postgres.c` does and answers as it might.
//! It also sees to it that nothing reaches it that was not admitted.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BytesMut};

use crate::input::Input;
use crate::words;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered,
    Failed,
    Ignored,
}

/// Requests are numbered as they are written to the server.
pub type Number = usize;

#[derive(Default)]
pub struct Server {
    pub incoming: BytesMut,
    pub outgoing: BytesMut,
    /// Type byte of each message in `outgoing` and before, and the request it belongs to.
    pub truth: VecDeque<(u8, Number)>,
    pub fates: BTreeMap<Number, Fate>,
    /// After an error, up to the next Sync.
    ignoring: bool,
    copying: Option<(u8, Number)>,
    read: Number,
}

impl Server {
    pub fn is_idle(&self) -> bool {
        self.incoming.is_empty() && self.outgoing.is_empty() && self.copying.is_none()
    }

    pub fn is_ignoring(&self) -> bool {
        self.ignoring
    }

    pub fn waits_for_copy(&self) -> bool {
        self.copying.is_some() && self.incoming.is_empty()
    }

    /// Reads one message and answers it.
    pub fn step(&mut self, input: &mut Input<'_>) {
        let Some((tag, content)) = self.next_message() else { return };
        match tag {
            b'H' => return,
            b'd' | b'c' | b'f' => return self.copy_message(tag, input),
            b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'Q' => {}
            other => panic!("{:?} reached the server", char::from(other)),
        }
        let number = self.read;
        self.read += 1;
        let poison = has(&content, words::POISON);
        assert!(poison || !has(text(tag, &content), words::FORBIDDEN), "not admitted: {:?}", &content);
        match self.copying {
            Some(_) if tag == b'S' => self.settle(number, Fate::Ignored),
            Some((copy_tag, copy)) => {
                self.settle(number, Fate::Ignored);
                self.copying = None;
                self.fail(copy_tag, copy);
            }
            None => {
                self.ignoring &= tag != b'S';
                match (self.ignoring, poison) {
                    (true, _) => self.settle(number, Fate::Ignored),
                    (false, true) => self.fail(tag, number),
                    (false, false) => self.answer(tag, content.first().copied(), number, input),
                }
            }
        }
    }

    fn next_message(&mut self) -> Option<(u8, BytesMut)> {
        let header = self.incoming.first_chunk::<5>()?;
        let (tag, length) = (header[0], u32::from_be_bytes([header[1], header[2], header[3], header[4]]));
        let length = usize::try_from(length).expect("64 bits");
        assert!(length >= 4 && length < self.incoming.len(), "the gateway forwards whole frames only");
        let mut content = self.incoming.split_to(1 + length);
        content.advance(5);
        Some((tag, content))
    }

    fn copy_message(&mut self, tag: u8, input: &mut Input<'_>) {
        let Some((copy_tag, copy)) = self.copying.filter(|_| tag != b'd') else { return };
        self.copying = None;
        if tag == b'f' || input.choose(3) == 1 {
            self.fail(copy_tag, copy);
        } else {
            self.say(b"C", copy);
            self.finish(copy_tag, copy);
        }
    }

    fn answer(&mut self, tag: u8, target: Option<u8>, number: Number, input: &mut Input<'_>) {
        match input.choose(12) {
            7 => return self.fail(tag, number),
            8 => self.say(b"N", number),
            9 => self.say(b"S", number),
            10 => self.say(b"A", number),
            _ => {}
        }
        let choices: &[&str] = match (tag, target) {
            (b'P', _) => &["1"],
            (b'B', _) => &["2"],
            (b'C', _) => &["3"],
            (b'D', Some(b'S')) => &["tT", "tn", "tE"],
            (b'D', _) => &["T", "n"],
            (b'E', _) => &["C", "DC", "DDs", "I", "HddcC", "HcC", "DNDSC", "DE", "HdE", "G", "s"],
            (b'Q', _) => &["C", "TDDC", "CTC", "TDTDC", "I", "HdcC", "CHcCTC", "TDE", "CE", "CHdE", "G", "CG", "TNDC"],
            _ => &[""], // Sync
        };
        let answer = choices[input.choose(choices.len())];
        if let Some(before) = answer.strip_suffix('E') {
            self.say(before.as_bytes(), number);
            return self.fail(tag, number);
        }
        self.say(answer.as_bytes(), number);
        if answer.ends_with('G') {
            self.copying = Some((tag, number));
            return;
        }
        self.finish(tag, number);
    }

    fn finish(&mut self, tag: u8, number: Number) {
        if matches!(tag, b'Q' | b'S') {
            self.say(b"Z", number);
        }
        self.settle(number, Fate::Answered);
    }

    fn fail(&mut self, tag: u8, number: Number) {
        self.say(b"E", number);
        if matches!(tag, b'Q' | b'S') {
            return self.finish(tag, number);
        }
        self.ignoring = true;
        self.settle(number, Fate::Failed);
    }

    fn say(&mut self, tags: &[u8], number: Number) {
        for &tag in tags {
            self.outgoing.extend_from_slice(&words::answer(tag));
            self.truth.push_back((tag, number));
        }
    }

    fn settle(&mut self, number: Number, fate: Fate) {
        assert_eq!(self.fates.insert(number, fate), None, "the model settles each request once");
    }
}

/// The statement that a message brings. Names and types may be of any bytes.
fn text(tag: u8, content: &[u8]) -> &[u8] {
    let mut strings = content.split(|byte| *byte == 0);
    match tag {
        b'Q' => strings.next().unwrap_or_default(),
        b'P' => strings.nth(1).unwrap_or_default(),
        _ => &[],
    }
}

fn has(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|window| window == text.as_bytes())
}
