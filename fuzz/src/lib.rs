//! What the fuzz targets share: a bound on allocation, messages written anew from what was decoded, and a
//! conversation's two ends: the gateway as far as it is pure, and a model of the server; masks; statements.

pub mod gateway;
pub mod input;
pub mod masking;
pub mod memory;
pub mod peeked;
pub mod rebuild;
pub mod server;
pub mod statement;
pub mod walked;
pub mod words;
