//! Control plane: health and the API (handles, limits, what is accepted of a database, approvals, freezes, the record) today; web
//! console and MCP later.
//!
//! The console listener is another door than the data plane's, with another audience: operators and their
//! monitoring. It never sees a client's socket, and of statements and rows only the card of one that waits for a human.

pub mod admin;
pub mod approvals;
pub mod freezes;
pub mod handles;
pub mod health;
mod openapi;
pub mod record;
mod routes;
pub mod server;
pub mod view;

pub use admin::{AdminDesk, DiscoverWish, Discovered, Limits};
pub use approvals::{Act, Acted, ApprovalDesk, Cursor, ListWish, Page, ScopeWish, WithdrawWish};
pub use freezes::{FreezeDesk, FreezeKind, FreezeWish};
pub use handles::{Asked, DeskError, HandleDesk, HandleWish, NewHandle, Reply};
pub use health::{Check, CheckState, Readiness, StatusFn};
pub use record::{EraseWish, RecordDesk};
pub use server::{ConsoleError, Desks, serve};
pub use view::{RuleStanding, Shown};
