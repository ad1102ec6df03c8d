//! Analysis from outside: case files, and statements built to hurt.

// The lints' exception for tests covers test functions only; these are their helpers.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]

mod cases;
mod hostile;
mod support;
