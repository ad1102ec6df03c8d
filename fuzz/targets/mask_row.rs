//! Masks over any bytes: a row or COPY data, cut anywhere. What comes out is framed as it was, every masked cell is
//! valid in its type or NULL, a cell without a mask is untouched, cutting changes nothing, and nothing is held that
//! the input does not justify.
//!
//! Input: what to mask how (see `exeat_fuzz::masking`), where the stream is cut, then the stream.

#![no_main]

use exeat_fuzz::{masking, memory};
use libfuzzer_sys::fuzz_target;

/// Counted as input where a numeric's digits are looked at: a few bytes stand for up to 131,072 of them.
const DIGITS_ROOM: usize = 2 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((plan, stream)) = masking::Plan::read(input) else { return };
    let room = if plan.reads_digits() { DIGITS_ROOM } else { 0 };
    memory::bounded(input.len() + room, || plan.check(stream));
});
