//! The store on real files, as its callers use it.

mod common;
mod failure;
mod record;
