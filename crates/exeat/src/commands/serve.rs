//! `exeat serve`: the gateway in the foreground until SIGTERM or SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;
use crate::config::{Config, ConfigError};
use crate::exit::Exit;
use crate::gateway::{Gateway, StartError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("could not listen for signals")]
    Signals(#[source] io::Error),
}

pub(crate) async fn run(args: ServeArgs) -> Result<Exit, ServeCommandError> {
    let config = Config::load(&args.config)?;
    let name = config.name.clone();
    let mut signals = Signals::listen().map_err(ServeCommandError::Signals)?;
    let gateway = tokio::select! {
        started = Gateway::start(config) => started?,
        // Asked to end before there was anything to end.
        _ = signals.next() => return Ok(Exit::Ok),
    };
    let console = gateway.console.map(|address| address.to_string());
    tracing::info!(name, address = %gateway.address, console, "serving");
    let signal = signals.next().await;
    tracing::info!(signal, "shutting down: no new connections, open transactions may finish");
    tokio::select! {
        () = gateway.stop() => Ok(Exit::Ok),
        // Asked twice: whoever asks does not want to wait.
        _ = signals.next() => Ok(Exit::Error),
    }
}

/// The signals that end a foreground program.
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
