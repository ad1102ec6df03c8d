//! The command line as typed: commands, options and their help. Decides nothing.

pub(crate) mod approvals;
pub(crate) mod keeping;
pub(crate) mod sessions;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use exeat_store::tree::VerifierKey;

#[derive(Debug, Parser)]
#[command(
    name = "exeat",
    version,
    about = "A gateway between AI agents and PostgreSQL: every statement as someone, within policy, masked, on record"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// How messages on stderr are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway
    Serve(ServeArgs),
    /// Check the configuration and the policy, print them resolved, secrets hidden
    Check(CheckArgs),
    /// Work with policy files
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The audit log as evidence: offline, on a copy, without a gateway
    #[command(subcommand)]
    Audit(AuditCommand),
    /// What sessions asked and got, out of the record
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// Statements that wait for humans, at a running gateway
    Approvals(approvals::ApprovalsArgs),
    /// Stop a subject or a target at once: no logins, and open sessions end within a second
    Freeze(approvals::FreezeArgs),
    /// Lift a freeze
    Thaw(approvals::ThawArgs),
    /// Who and what is frozen
    Freezes(approvals::FreezesArgs),
    /// What is counted against limits, at a running gateway
    Limits(LimitsArgs),
    /// What a database has become since it was accepted, and accepting what is there now
    Discover(DiscoverArgs),
    /// See it work: a sample database, identities, a policy and the gateway in one process
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub(crate) config: PathBuf,
    /// Also connect to every target with every login, and run the policy's tests against its catalog
    #[arg(long)]
    pub(crate) connect: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Run the tests written in the policy files against the targets' catalogs
    Test(PolicyTestArgs),
    /// Say what would become of a statement, and why: decision, rules, where each value comes from, what instead
    Explain(PolicyExplainArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Hold every record against its tree, its checkpoint and older checkpoints, and sealed texts against their digests
    Verify(AuditVerifyArgs),
    /// Prove that one record is in the signed log, in a file that anybody with the public key can check
    Prove(AuditProveArgs),
    /// Give what is on record of many sessions to another program: lines, CSV, OCSF
    Export(Box<sessions::AuditExportArgs>),
    /// Say who read a column and in what form, and who could have by the policy of that time
    Access(sessions::AccessArgs),
    /// Print the public keys that checkpoints are signed by, each with the records where it signs
    Key(AuditKeyArgs),
    /// Hand over to the next signing key, at a running gateway (role admin) or beside one that stands still
    RotateKey(keeping::RotateKeyArgs),
    /// Destroy the keys of a session, or of all of a principal's: texts and results cannot be read any more (role admin)
    Erase(keeping::EraseArgs),
    /// Keep a session, or all of a principal's, from being erased (role admin)
    Hold(keeping::HoldArgs),
    /// Lift a legal hold (role admin)
    Release(keeping::HoldArgs),
    /// What must not be erased
    Holds(keeping::HoldsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// The gateway's data_dir, or a copy of it
    #[arg(required_unless_present = "proof", conflicts_with = "proof")]
    pub(crate) folder: Option<PathBuf>,
    /// Check this proof alone, as `exeat audit prove` wrote it; needs --key
    #[arg(long, value_name = "FILE", requires = "keys", conflicts_with = "checkpoints")]
    pub(crate) proof: Option<PathBuf>,
    /// A key whose signatures count, as `exeat audit key` prints it; may be repeated
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) keys: Vec<VerifierKey>,
    /// A checkpoint that was kept earlier: the log must extend it; may be repeated
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub(crate) checkpoints: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditProveArgs {
    /// The gateway's data_dir, or a copy of it
    pub(crate) folder: PathBuf,
    /// The record's number, as its line has it in `seq`
    #[arg(long, value_name = "N")]
    pub(crate) seq: u64,
    /// Write the proof here instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// As JSON: the line, its hash, the hashes on its way to the root, the checkpoint
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditKeyArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub(crate) config: PathBuf,
    /// The one that signs now, as PEM, for openssl
    #[arg(long)]
    pub(crate) pem: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyTestArgs {
    /// The configuration file: it names the policy and the targets
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub(crate) config: PathBuf,
    /// Test this policy file or folder instead of the one the configuration names
    #[arg(long, value_name = "PATH")]
    pub(crate) policy: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyExplainArgs {
    /// The configuration file: it names the policy and the targets
    #[arg(long, value_name = "FILE", env = "EXEAT_CONFIG")]
    pub(crate) config: PathBuf,
    /// Ask this policy file or folder instead of the one the configuration names
    #[arg(long, value_name = "PATH")]
    pub(crate) policy: Option<PathBuf>,
    /// For whom: sub=agent-7,groups=agents,bots; also actor, issuer, kind=workload and claims.NAME=VALUE
    #[arg(long = "as", value_name = "WHO", value_parser = as_words)]
    pub(crate) principal: AsWords,
    /// The target; may be left out where there is one
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The statement; it is read, not run
    pub(crate) statement: String,
}

/// `key=value` by commas; a part without a key continues the list before it. The issuer stays open: the configuration's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AsWords {
    pub(crate) subject: String,
    pub(crate) groups: Vec<String>,
    pub(crate) actor: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) workload: bool,
    pub(crate) claims: serde_json::Map<String, serde_json::Value>,
}

fn as_words(text: &str) -> Result<AsWords, String> {
    let (mut subject, mut workload) = (None, false);
    let (mut groups, mut actor, mut issuer, mut claims) = (Vec::new(), None, None, serde_json::Map::new());
    let mut last = "";
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((last, part));
        let again = !part.contains('=');
        match (key, value) {
            ("groups", group) => groups.push(group.to_owned()),
            ("sub", name) if !again => subject = Some(name.to_owned()),
            ("actor", name) if !again => actor = Some(name.to_owned()),
            ("issuer", name) if !again => issuer = Some(name.to_owned()),
            ("kind", "workload") if !again => workload = true,
            ("kind", "human") if !again => workload = false,
            _ => match key.strip_prefix("claims.") {
                // As in a token: a number, true and false are what they look like, everything else is text.
                Some(claim) if !again => {
                    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
                    claims.insert(claim.to_owned(), value);
                }
                _ => {
                    return Err(format!(
                        "{part:?} is none of sub=, groups=, actor=, issuer=, kind=human|workload, claims.NAME="
                    ));
                }
            },
        }
        last = key;
    }
    let subject = subject.ok_or("it lacks sub=, the subject")?;
    Ok(AsWords { subject, groups, actor, issuer, workload, claims })
}

#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    #[command(subcommand)]
    pub(crate) command: LimitsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Print the counters
    #[command(alias = "list")]
    Show(LimitsFilterArgs),
    /// Set counters back, all that match
    Reset(LimitsFilterArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LimitsFilterArgs {
    /// Of this subject, or agent acting for one
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) principal: Option<String>,
    #[arg(long)]
    pub(crate) target: Option<String>,
    #[arg(long)]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// The target; may be left out where there is one, or a default
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// The database, for a target of every database
    #[arg(long)]
    pub(crate) database: Option<String>,
    /// Accept what is there: what is sealed only because nobody had accepted it opens
    #[arg(long)]
    pub(crate) accept: bool,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// The token is in EXEAT_TOKEN: a command line shows in the process list.
#[derive(Debug, Args)]
pub(crate) struct RemoteArgs {
    /// The running gateway's console (listen.console); the token is taken from EXEAT_TOKEN
    #[arg(long, value_name = "URL", env = "EXEAT_URL", default_value = "http://127.0.0.1:6480")]
    pub(crate) url: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Run the sample statements as both identities, show both answers side by side and the record, then exit
    #[arg(long = "try")]
    pub(crate) try_out: bool,
    /// Use this PostgreSQL instead of a throw-away one (postgres://user:password@host:port/database); the role
    /// must be allowed to create roles and databases
    #[arg(long, value_name = "URL", env = "EXEAT_DEMO_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// Port of the gateway on 127.0.0.1; without it 6432, or a free one when that is taken
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_principal_is_said_in_words() {
        let words =
            as_words("sub=agent-7,groups=agents,bots,claims.team=payments,claims.level=3,kind=workload").unwrap();
        assert_eq!((words.subject.as_str(), words.groups), ("agent-7", vec!["agents".to_owned(), "bots".to_owned()]));
        assert_eq!(serde_json::Value::from(words.claims), serde_json::json!({"team": "payments", "level": 3}));
        assert!(words.workload && words.actor.is_none() && words.issuer.is_none());
        for wrong in ["groups=agents", "sub=a,b", "sub=a,group=b", "sub=a,kind=robot", "agent-7", ""] {
            assert!(as_words(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn serve_without_a_configuration_is_a_usage_error() {
        let error = Cli::try_parse_from(["exeat", "check", "--json"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
