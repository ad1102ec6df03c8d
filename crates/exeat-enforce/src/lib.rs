//! Composes wire, sql and policy: admits a request, plans and applies masking, scrubs what else leaves.
//! Pure: no I/O, and no clock, key or randomness that is not passed in.

pub mod builtin;
pub mod mask;
pub mod refusal;
pub mod scrub;
pub mod settings;
