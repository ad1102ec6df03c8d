//! One module per command: reads its arguments, calls what does the work, prints the answer.

pub(crate) mod access;
pub(crate) mod approvals;
pub(crate) mod audit;
mod card;
pub(crate) mod check;
mod could;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod keeping;
pub(crate) mod policy;
pub(crate) mod prove;
pub(crate) mod remote;
pub(crate) mod replay;
pub(crate) mod serve;
pub(crate) mod sessions;
