//! Durable state: the audit record, the keys that seal it, what else must outlive the gateway, and the secrets of the
//! configuration.
//! Everything a caller gets back from here is proof of a finished write. Never sees a protocol, and never an
//! unmasked row; SQL and parameters reach a file only sealed.

pub mod archive;
pub mod auditors;
mod error;
pub mod evidence;
pub mod follow;
mod hex;
pub mod index;
pub mod keys;
pub mod read;
pub mod record;
pub mod secret;
pub mod state;
mod stored;
pub mod tree;
pub mod verify;

pub use error::{StoreError, chain};
