//! Composes wire, sql and policy: admits a request, plans and applies masking, scrubs what else leaves.
//! Pure: no I/O, and no clock, key or randomness that is not passed in.

pub mod admit;
pub mod asked;
pub mod builtin;
pub mod bulk;
mod called;
mod canonical;
pub mod card;
mod copy;
mod denial;
pub mod detect;
pub mod drift;
pub mod evaluate;
pub mod explain;
pub mod function_call;
pub mod held;
pub mod lookup;
pub mod mask;
pub mod named;
mod needs;
pub mod permit;
pub mod plan;
pub mod record;
mod referenced;
pub mod refusal;
pub mod release;
pub mod scrub;
pub mod seal;
pub mod settings;
mod shape;
pub mod stand_in;
pub mod tally;
mod uses;
pub mod weigh;
mod weight;
mod writes;
