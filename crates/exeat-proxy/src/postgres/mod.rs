//! PostgreSQL sessions: login, the session loop and everything one session owns.

mod answers;
mod authenticate;
mod batch;
pub(crate) mod cancel;
pub(crate) mod catalog;
mod copy;
pub(crate) mod destination;
mod due;
mod finish;
mod function;
mod gate;
mod io;
mod large;
pub(crate) mod login;
mod malformed;
mod notify;
mod outcome;
pub(crate) mod pass_through;
mod picture;
mod requests;
pub(crate) mod seat;
mod send;
pub(crate) mod session;
pub(crate) mod startup;
mod statements;
pub(crate) mod stream;
mod upstream_settings;
