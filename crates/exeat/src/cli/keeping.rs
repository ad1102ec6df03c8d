//! `exeat audit rotate-key`, `erase`, `hold`, `release` and `holds` as typed.

use std::path::PathBuf;

use clap::Args;

use super::RemoteArgs;

#[derive(Debug, Args)]
pub(crate) struct RotateKeyArgs {
    /// Of a gateway that stands still: hand over in its data_dir instead of asking a running one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EraseArgs {
    #[command(flatten)]
    pub(crate) whose: WhoseArgs,
    /// The subject's issuer; needed where several have one of this name
    #[arg(long, value_name = "ISSUER", requires = "principal")]
    pub(crate) issuer: Option<String>,
    /// Of a principal's sessions those that began before: 2026-01-31, or a time with its zone
    #[arg(long, value_name = "DATE", requires = "principal")]
    pub(crate) before: Option<String>,
    /// On one line; it goes on record
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    pub(crate) whose: WhoseArgs,
    /// The subject's issuer; needed where several have one of this name
    #[arg(long, value_name = "ISSUER", requires = "principal")]
    pub(crate) issuer: Option<String>,
    /// On one line; it goes on record
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhoseArgs {
    /// One session
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// All of this subject
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) principal: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HoldsArgs {
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}
