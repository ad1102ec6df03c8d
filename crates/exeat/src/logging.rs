//! Logging to stderr: level by EXEAT_LOG, as text or JSON lines, colours only on a terminal that wants them.
//! Never statement text, row values or credentials above `debug`; that is the callers' rule, this is only the pipe.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Libraries below `warn` say little an operator can act on.
const DEFAULT_FILTER: &str = "warn,exeat=info,exeat_proxy=info,exeat_store=info,exeat_console=info";

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    #[error("EXEAT_LOG is {given:?}, which is no log filter; use a level such as info, or exeat_proxy=debug: {source}")]
    Filter { given: String, source: tracing_subscriber::filter::ParseError },
}

/// Installs the process's one subscriber, and a panic hook that says where and not what: the words of a panic may
/// quote the text that was being worked on.
pub(crate) fn install(format: LogFormat) -> Result<(), LoggingError> {
    let filter = match std::env::var("EXEAT_LOG") {
        Ok(given) if !given.is_empty() => {
            EnvFilter::try_new(&given).map_err(|source| LoggingError::Filter { given, source })?
        }
        Ok(_) | Err(_) => EnvFilter::new(DEFAULT_FILTER),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.with_ansi(colours()).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current().name().map(str::to_owned);
        tracing::error!(place, thread, "a thread panicked");
    }));
    Ok(())
}

/// Colours on a terminal, unless NO_COLOR says no.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
