//! How a command ends: exit codes, and errors printed once, with their causes, at the top.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit codes of every command. Usage errors (2) are clap's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    Error,
    /// The policy refuses what was asked, or a test of the policy fails.
    Refused,
    /// An approval counts, and another one is needed.
    Pending,
    NotAuthenticated,
    /// A record is not what was signed.
    Unverified,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => ExitCode::SUCCESS,
            Exit::Error => ExitCode::from(1),
            Exit::Refused => ExitCode::from(3),
            Exit::Pending => ExitCode::from(4),
            Exit::NotAuthenticated => ExitCode::from(5),
            Exit::Unverified => ExitCode::from(6),
        }
    }
}

/// Prints `error: what: cause: cause` on stderr. Several lines (diagnostics of a file) are printed as they are.
pub(crate) fn report(error: &dyn Error) {
    let text = exeat_store::chain(error);
    let prefix = if text.starts_with("error") || text.starts_with("warning") { "" } else { "error: " };
    note(&format!("{prefix}{}", text.trim_end()));
}

/// One message for a person, on stderr. A closed stderr is nobody listening: not an error of the command.
pub(crate) fn note(line: &str) {
    let _nobody_listens = writeln!(io::stderr().lock(), "{line}");
}

/// Data, on stdout. A reader that closed the pipe (`| head`) has what it wanted.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
