//! `exeat sessions` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// A session as it happened: each statement, what was decided, and what the client got, byte for byte
    Replay(ReplayArgs),
}

/// Where a record is, and the keys that open it.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// The configuration file: it names the record and its keys
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub(crate) config: PathBuf,
    /// A copy of the record, in place of the configuration's data_dir
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The session's id, as every line of the record has it
    pub(crate) session: String,
    #[command(flatten)]
    pub(crate) record: RecordArgs,
    /// One JSON object per event, with what was sealed opened
    #[arg(long, conflicts_with_all = ["bytes", "speed", "step"])]
    pub(crate) json: bool,
    /// The bytes that the client got behind its login, and nothing else
    #[arg(long, conflicts_with_all = ["speed", "step"])]
    pub(crate) bytes: bool,
    /// With the pauses that there were, so many times as fast
    #[arg(long, value_name = "TIMES")]
    pub(crate) speed: Option<f64>,
    /// Statement by statement: Enter shows the next
    #[arg(long, conflicts_with = "speed")]
    pub(crate) step: bool,
}
