//! A bound on what reading may allocate: by the bytes that came, never by a number they announce. Going past it
//! fails the allocation, which aborts the process, which the engine reports with the input.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// The dearest content is a stream of empty messages: five bytes each become a decoded message of a hundred, in a
/// list that doubles as it grows, and a target compares two such lists.
const BYTES_EACH: usize = 256;
/// Room for what does not depend on the input: queues, error texts, the target's own lists.
const BYTES_ALWAYS: usize = 256 * 1024;

/// Runs `work`, which may hold so much more memory than now as `input_bytes` justify.
pub fn bounded<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    bounded_to(input_bytes * BYTES_EACH + BYTES_ALWAYS, work)
}

/// Runs `work`, which may hold so many bytes more than now.
pub fn bounded_to<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    HEAP.set_limit(HEAP.allocated() + bytes).expect("the limit is above what is allocated");
    let result = work();
    HEAP.set_limit(usize::MAX).expect("no limit is above what is allocated");
    result
}
