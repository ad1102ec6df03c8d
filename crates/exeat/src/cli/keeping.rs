//! `exeat audit rotate-key` as typed.

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
