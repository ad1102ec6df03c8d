//! `exeat approvals` and `exeat freeze` as typed.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::RemoteArgs;

#[derive(Debug, Args)]
pub(crate) struct ApprovalsArgs {
    #[command(subcommand)]
    pub(crate) command: ApprovalsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Requests, newest first: those that wait for humans, unless --state says otherwise
    List(ListArgs),
    /// One request on one screen: who asks, for what, why it is held, and what follows if it is approved
    Show(OneArgs),
    /// Say yes, to all that is asked for or to less of it
    Approve(ApproveArgs),
    /// Say no; whoever asked is told the reason
    Deny(ReasonArgs),
    /// Take back what was granted; what runs on it ends
    Revoke(ReasonArgs),
    /// Let it through alone, in an emergency that the rules provide for: it alerts, and must be reviewed
    BreakGlass(BreakGlassArgs),
    /// Say what you found, looking at what was let through by breaking the glass
    Review(ReviewArgs),
    /// Withdraw a request, or all of a principal or target, as if the asker had stopped waiting (role admin)
    Withdraw(WithdrawArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[arg(long, value_enum, default_value_t = ListState::Open)]
    pub(crate) state: ListState,
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Of this subject, or agent acting for one
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) principal: Option<String>,
    /// On a page
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,
    /// Older than the page before: what that printed as its next
    #[arg(long, value_name = "CURSOR")]
    pub(crate) before: Option<String>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListState {
    /// Waits for humans
    Open,
    /// Let through by breaking the glass, and not looked at since
    Review,
    All,
}

impl ListState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Review => "review",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    #[arg(value_parser = id)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    #[arg(value_parser = id)]
    pub(crate) id: String,
    /// At most so many rows of each protected relation in one run
    #[arg(long)]
    pub(crate) rows: Option<u64>,
    /// At most so many bytes in one run
    #[arg(long)]
    pub(crate) bytes: Option<u64>,
    /// At most so many rows changed in one run
    #[arg(long)]
    pub(crate) affected: Option<u64>,
    /// How often it may run; once, unless said otherwise
    #[arg(long)]
    pub(crate) uses: Option<u32>,
    /// For how long, such as 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) expires: Option<Duration>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReasonArgs {
    #[arg(value_parser = id)]
    pub(crate) id: String,
    /// On one line
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BreakGlassArgs {
    #[arg(value_parser = id)]
    pub(crate) id: String,
    /// On one line; rules may demand it
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReviewArgs {
    #[arg(value_parser = id)]
    pub(crate) id: String,
    #[arg(value_enum)]
    pub(crate) finding: FindingArg,
    /// On one line
    #[arg(long)]
    pub(crate) remark: String,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FindingArg {
    Justified,
    Unjustified,
}

impl FindingArg {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Justified => "justified",
            Self::Unjustified => "unjustified",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct WithdrawArgs {
    #[arg(value_parser = id, required_unless_present_any = ["principal", "target"], conflicts_with_all = ["principal", "target"])]
    pub(crate) id: Option<String>,
    /// All that are open of this subject, or agent acting for one
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) principal: Option<String>,
    /// All that are open at this target
    #[arg(long)]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FreezeArgs {
    #[command(flatten)]
    pub(crate) what: FrozenArgs,
    /// On one line; it goes on record
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ThawArgs {
    #[command(flatten)]
    pub(crate) what: FrozenArgs,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FrozenArgs {
    /// A target where one has the name, else a subject: a human, a workload or an agent
    #[arg(value_name = "SUBJECT|TARGET")]
    pub(crate) name: String,
    /// It is a subject, though a target has the name
    #[arg(long)]
    pub(crate) subject: bool,
    /// It is a target
    #[arg(long, conflicts_with_all = ["subject", "issuer"])]
    pub(crate) target: bool,
    /// The subject's issuer; the first that is configured, unless said otherwise
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FreezesArgs {
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// It becomes a part of an address.
fn id(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain { Ok(text.to_owned()) } else { Err("it is no id; `exeat approvals list` prints them".to_owned()) }
}

fn span(text: &str) -> Result<Duration, String> {
    let problem = || "it is no time such as 90s, 5m or 1h".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(problem)?;
    let number: u64 = number.parse().map_err(|_| problem())?;
    let seconds = match unit {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    };
    seconds.map(Duration::from_secs).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ids_are_read_strictly() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(span("1h"), Ok(Duration::from_hours(1)));
        for wrong in ["", "s", "5", "5 m", "-1s", "1d", "5é"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        assert!(id("apr_0f").is_ok());
        for wrong in ["", "../limits", "a b", "a/deny"] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }
}
