//! Any text as a statement: it is analysed, decided and explained, in bounded steps and memory, without a panic, and
//! what is said of it holds together (see `exeat_fuzz::statement`).
//!
//! Input: who asks, then the text.

#![no_main]

use exeat_fuzz::statement;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((way, text)) = input.split_first() else { return };
    statement::check(*way, &String::from_utf8_lossy(text));
});
