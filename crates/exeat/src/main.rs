//! Exeat: the gateway's command line, configuration and wiring. No logic of its own: what a statement reads, who
//! may do what and what leaves the gateway is decided in the crates below.

mod admin;
mod approvals;
mod archive;
mod catalog;
mod cli;
mod clock;
mod commands;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod export;
mod forgetting;
mod freezes;
mod gateway;
mod handles;
mod keeping;
mod logging;
mod notify;
mod outbound;
mod plain;
mod policy_file;
mod policy_tests;
mod pool;
mod progress;
mod readiness;
mod reload;
mod render;
mod roles;
mod sessions;
mod sweeps;
mod transcript;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{AuditCommand, Cli, Command, PolicyCommand};
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            exit::report(error.as_ref());
            Exit::Error.into()
        }
    }
}

fn start(cli: Cli) -> Result<Exit, Box<dyn Error>> {
    logging::install(cli.log_format)?;
    // Before anything makes an HTTPS client, which looks for the process's provider.
    exeat_proxy::tls::install_ring_provider();
    // Deep stacks (address space, not memory) let a session parse its own short statements without a change of thread.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(exeat_sql::PARSER_STACK_BYTES)
        .on_thread_start(pool::mark_deep_stack)
        .build()?;
    let exit = runtime.block_on(run(cli.command));
    // A resolver or a file read that hangs must not keep a finished command from ending.
    runtime.shutdown_background();
    exit
}

async fn run(command: Command) -> Result<Exit, Box<dyn Error>> {
    match command {
        Command::Serve(args) => Ok(commands::serve::run(args).await?),
        Command::Check(args) => Ok(commands::check::run(args).await?),
        Command::Policy(PolicyCommand::Test(args)) => Ok(commands::policy::test(args).await?),
        Command::Policy(PolicyCommand::Explain(args)) => Ok(commands::explain::explain(args).await?),
        Command::Audit(AuditCommand::Verify(args)) => Ok(commands::audit::verify(args)?),
        Command::Audit(AuditCommand::Prove(args)) => Ok(commands::prove::prove(args)?),
        Command::Audit(AuditCommand::Export(args)) => Ok(commands::export::run(*args).await?),
        Command::Audit(AuditCommand::Access(args)) => Ok(commands::access::access(args).await?),
        Command::Audit(AuditCommand::Key(args)) => Ok(commands::audit::key(args)?),
        Command::Audit(AuditCommand::RotateKey(args)) => Ok(commands::keeping::rotate_key(args).await?),
        Command::Sessions(command) => Ok(commands::sessions::run(command).await?),
        Command::Audit(AuditCommand::Erase(args)) => Ok(commands::keeping::erase(args).await?),
        Command::Audit(AuditCommand::Hold(args)) => Ok(commands::keeping::hold(args, "/v1/record/holds").await?),
        Command::Audit(AuditCommand::Release(args)) => {
            Ok(commands::keeping::hold(args, "/v1/record/holds/release").await?)
        }
        Command::Audit(AuditCommand::Holds(args)) => Ok(commands::keeping::holds(args).await?),
        Command::Approvals(args) => Ok(commands::approvals::approvals(args).await?),
        Command::Freeze(args) => Ok(commands::approvals::freeze(args).await?),
        Command::Thaw(args) => Ok(commands::approvals::thaw(args).await?),
        Command::Freezes(args) => Ok(commands::approvals::freezes(args).await?),
        Command::Limits(args) => Ok(commands::remote::limits(args).await?),
        Command::Discover(args) => Ok(commands::remote::discover(args).await?),
        #[cfg(feature = "demo")]
        Command::Demo(args) => Ok(demo::run(args).await?),
    }
}
