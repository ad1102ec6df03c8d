//! Control plane: health, handles, limits and what is accepted of a database today; the rest of the API, web console and MCP later.
//!
//! The console listener is another door than the data plane's, with another audience: operators and their
//! monitoring. It never sees a client's socket, a statement or a row.

pub mod admin;
pub mod handles;
pub mod health;
pub mod server;

pub use admin::{AdminDesk, DiscoverWish, Discovered};
pub use handles::{Asked, DeskError, HandleDesk, HandleWish, NewHandle, Reply};
pub use health::{Check, CheckState, Readiness, StatusFn};
pub use server::{ConsoleError, Desks, serve};
