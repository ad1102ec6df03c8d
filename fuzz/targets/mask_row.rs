//! Masks over any bytes: a row or COPY data, cut anywhere. What comes out is framed as it was, every masked cell is
//! valid in its type or NULL, a cell without a mask is untouched, cutting changes nothing, and nothing is held that
//! the input does not justify.
//!
//! Input: what to mask how (see `exeat_fuzz::masking`), where the stream is cut, then the stream.

#![no_main]

use exeat_fuzz::{masking, memory};
use libfuzzer_sys::fuzz_target;

/// Counted as input: a numeric of a few bytes stands for up to 131,072 digits, and each way of masking it writes them.
const NUMERIC_ROOM: usize = 8 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((plan, stream)) = masking::Plan::read(input) else { return };
    memory::bounded(input.len() + NUMERIC_ROOM, || plan.check(stream));
});
