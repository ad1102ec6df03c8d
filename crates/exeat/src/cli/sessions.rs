//! `exeat sessions` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::clock;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// Sessions on record, newest first; what is asked about statements holds of one and the same
    List(Box<ListArgs>),
    /// One session, statement by statement
    Show(ShowArgs),
    /// One session as a folder that stands alone: records, proofs, and a page that opens without a server
    Export(ExportArgs),
    /// A session as it happened: each statement, what was decided, and what the client got, byte for byte
    Replay(ReplayArgs),
}

/// Which record is read, and what helps with it.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// The gateway's data_dir, or a copy of it; without it the one that the configuration names
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The configuration file: it names data_dir and the keys
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The folder of the keys, for texts of statements
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
    /// Keep the index here; without it in data_dir, or where that cannot be written nowhere
    #[arg(long, value_name = "FILE")]
    pub(crate) index: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) record: ReadArgs,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    /// So many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which sessions.
#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    /// Of this subject, or of the agent that acted for one; in this and other names * stands for anything
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) principal: Option<String>,
    /// Of a principal in this group
    #[arg(long)]
    pub(crate) group: Option<String>,
    #[arg(long)]
    pub(crate) target: Option<String>,
    #[arg(long)]
    pub(crate) database: Option<String>,
    /// From this address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) source: Option<String>,
    /// With a statement about this relation (schema.relation)
    #[arg(long)]
    pub(crate) relation: Option<String>,
    /// With a statement that read this column (schema.relation.column)
    #[arg(long)]
    pub(crate) column: Option<String>,
    /// With a statement for which a column of this label was masked; with --relation or --column, one of that
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// With a statement for which a column was masked so (partial, redact, ...)
    #[arg(long)]
    pub(crate) mask: Option<String>,
    /// With a statement of this kind (select, insert, ...)
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// With a statement that was let through, or one that was not
    #[arg(long, value_enum)]
    pub(crate) decision: Option<DecisionWord>,
    /// With a statement that this rule had a say in
    #[arg(long)]
    pub(crate) rule: Option<String>,
    /// With a refusal of this code (denied, ...)
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// With a statement that ended with this error of the server
    #[arg(long)]
    pub(crate) sqlstate: Option<String>,
    /// That asked for or used this approval
    #[arg(long, value_name = "ID")]
    pub(crate) approval: Option<String>,
    /// Not before: 2026-11-20, 2026-11-20T08:00:00Z, or how long ago (90m, 24h, 7d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<Timestamp>,
    /// Not after; of a day its end
    #[arg(long, value_name = "TIME", value_parser = until)]
    pub(crate) until: Option<Timestamp>,
    /// With a statement whose text has these words; a phrase in double quotes. Needs the keys
    #[arg(long, value_name = "WORDS")]
    pub(crate) text: Option<String>,
}

/// `exeat audit export`
#[derive(Debug, Args)]
pub(crate) struct AuditExportArgs {
    #[command(flatten)]
    pub(crate) record: ReadArgs,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    #[arg(long, value_enum)]
    pub(crate) format: AuditExportFormat,
    /// A new file; without it standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditExportFormat {
    /// The records themselves, line by line as they were signed
    Lines,
    /// A row for each statement
    Csv,
    /// OCSF 1.3.0, Datastore Activity: a JSON object a line, one for each statement
    Ocsf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DecisionWord {
    Allow,
    Refuse,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The session, as `exeat sessions list` names it
    #[arg(value_name = "ID")]
    pub(crate) session: String,
    #[command(flatten)]
    pub(crate) record: ReadArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The session, as `exeat sessions list` names it
    #[arg(value_name = "ID")]
    pub(crate) session: String,
    #[command(flatten)]
    pub(crate) record: ReadArgs,
    #[arg(long, value_enum, default_value_t = ExportFormat::Bundle)]
    pub(crate) format: ExportFormat,
    /// A new folder; with --format csv and ocsf a new file, and without it standard output
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Everything, with proofs
    Bundle,
    /// A row for each statement
    Csv,
    /// OCSF 1.3.0, Datastore Activity: a JSON object a line, one for each statement
    Ocsf,
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

/// `exeat audit access`
#[derive(Debug, Args)]
pub(crate) struct AccessArgs {
    /// The column (schema.relation.column)
    #[arg(long)]
    pub(crate) column: String,
    /// Up to then: 2026-11-20 (its end), 2026-11-20T08:00:00Z, or how long ago (90m, 24h, 7d)
    #[arg(long, value_name = "TIME", value_parser = until)]
    pub(crate) at: Timestamp,
    /// From then on; without it from the record's beginning
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<Timestamp>,
    #[arg(long)]
    pub(crate) target: Option<String>,
    #[arg(long)]
    pub(crate) database: Option<String>,
    /// The policy file or folder of that time, where it is not the configured one; its digest must be the one on record
    #[arg(long, value_name = "PATH")]
    pub(crate) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) record: ReadArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    clock::point(text, clock::Edge::Begin)
}

pub(crate) fn until(text: &str) -> Result<Timestamp, String> {
    clock::point(text, clock::Edge::End)
}
