//! PostgreSQL v3 messages and protocol state: bytes in, typed messages out.
//! Pure. Knows neither sockets nor SQL. A message's original bytes are kept, because the bytes analysed are the
//! bytes forwarded. Both peers are hostile: every length is checked before it is used, every count is bounded by
//! the bytes that carry it, nothing panics, and nothing is allocated by a number a peer merely announced.
//! `Debug` of every type here shows shapes and sizes, never statement text, values, passwords or keys.

pub mod backend;
pub mod encode;
pub mod error;
pub mod fields;
pub mod frame;
pub mod frontend;
mod large;
pub mod peek;
pub mod pipeline;
mod reader;
pub mod row;
pub mod startup;
pub mod text;
pub mod walk;

pub use backend::{Authentication, BackendMessage, CopyResponse, TransactionStatus};
pub use error::{DecodeError, Peer, Tag};
pub use fields::Fields;
pub use frame::{Frame, LARGE_MESSAGE_BYTES_MIN, large_message_bytes, split_backend, split_copy_data, split_frontend};
pub use frontend::{Bind, Close, Describe, Execute, FrontendMessage, FunctionCall, Parse, Query, Target};
pub use large::{Arrival, LARGE_FRAME_BYTES_MIN, Large, LargeKind, split_arrival};
pub use pipeline::{Answer, Pipeline, PipelineError, Request, Sent, Step};
pub use row::{CellAction, DataRow, Field, RowDescription};
pub use startup::{Startup, StartupMessage, split_startup};
pub use text::{Format, WireStr};
pub use walk::{Walk, Walked};
