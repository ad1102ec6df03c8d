//! Any interleaving of client messages and server answers, as bytes that arrive in pieces, through the real framing,
//! decoding and `Pipeline`, under the session's own rules: statements are admitted or replaced by poison, what
//! follows a refusal is skipped up to the client's Sync, the window is bounded.
//!
//! The server is a model that reads the forwarded bytes as `postgres.c` does. As long as it is honest, every message
//! of its must be matched to the request it answers, and every request must meet the fate the server gave it. It may
//! also lie, with whole messages or with any bytes: then nothing may pass that no request could be answered by.
//!
//! Input: one byte an action, further bytes as the action needs them.

#![no_main]

use bytes::{Bytes, BytesMut};
use exeat_fuzz::gateway::Gateway;
use exeat_fuzz::input::Input;
use exeat_fuzz::memory;
use exeat_fuzz::server::Server;
use exeat_fuzz::words;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| memory::bounded(input.len() * 16, || Conversation::default().run(Input::new(input))));

/// Both peers, the gateway between them, and the bytes on their way.
#[derive(Default)]
struct Conversation {
    gateway: Gateway,
    server: Server,
    from_client: BytesMut,
    /// The client sent bytes that need not be messages.
    client_babbled: bool,
    /// The server said what it does not owe.
    server_lied: bool,
}

/// Actions until an honest conversation must have come to rest: each drains what one step of the server said.
const ROUNDS_MAX: usize = 10_000;

impl Conversation {
    fn run(mut self, mut input: Input<'_>) {
        while let Some(action) = input.byte() {
            self.act(action, &mut input);
            if self.gateway.ended() {
                return self.over();
            }
        }
        for _ in 0..ROUNDS_MAX {
            self.deliver_all();
            if self.gateway.ended() {
                return self.over();
            }
            if self.server.is_idle() {
                break;
            }
            if self.server.waits_for_copy() {
                self.from_client.extend_from_slice(&words::COPY_DONE);
            }
            self.server.step(&mut input);
        }
        // A client that babbled may have stopped inside a message, and the COPY never ends.
        if !self.server_lied && !self.client_babbled {
            self.gateway.check_fates(&self.server);
        }
    }

    fn act(&mut self, action: u8, input: &mut Input<'_>) {
        match action % 12 {
            0..=3 => self.from_client.extend_from_slice(&words::client(input.byte().unwrap_or_default())),
            4 => {
                self.client_babbled = true;
                self.from_client.extend_from_slice(input.piece());
            }
            5 => {
                let piece = self.from_client.split_to(input.up_to(self.from_client.len()));
                self.gateway.client_says(&piece, &mut self.server);
            }
            6 | 7 => self.server.step(input),
            8 => {
                let piece = self.server.outgoing.split_to(input.up_to(self.server.outgoing.len()));
                self.server_says(piece.freeze());
            }
            9 => self.lie(input.piece()),
            10 => self.lie(&words::server(input.byte().unwrap_or_default())),
            _ => self.deliver_all(),
        }
    }

    fn lie(&mut self, bytes: &[u8]) {
        self.server_lied |= !bytes.is_empty();
        self.server.outgoing.extend_from_slice(bytes);
    }

    fn deliver_all(&mut self) {
        let piece = self.from_client.split();
        self.gateway.client_says(&piece, &mut self.server);
        let piece = self.server.outgoing.split();
        self.server_says(piece.freeze());
    }

    fn server_says(&mut self, piece: Bytes) {
        let truth = (!self.server_lied).then_some(&mut self.server.truth);
        self.gateway.server_says(&piece, truth);
        // The window may have opened for what the client sent long ago.
        self.gateway.client_says(&[], &mut self.server);
    }

    /// The gateway ended the session: somebody must have given it a reason.
    fn over(&self) {
        let reason = self.server_lied
            || self.gateway.ended_by_a_broken_copy()
            || (self.client_babbled && self.gateway.ended_by_client());
        assert!(reason, "the session ended although both sides were honest");
    }
}
