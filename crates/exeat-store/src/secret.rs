//! Secrets of the configuration: where they come from, and a wrapper that never shows them.
//! A secret stands in the environment, in a file or behind a command, never in a configuration file itself.
//! Whatever a source returns is bounded in size, and a command in time; no error here quotes what was read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use zeroize::{Zeroize, Zeroizing};

/// The longest credential in practice is a token of 16 KiB; anything longer is the wrong file.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// A vault's command line over a slow network; a login must not hang longer than a client waits.
pub const COMMAND_SECONDS_MAX: u64 = 10;

/// A value that is wiped when dropped and shows nothing of itself.
pub struct Secret<T: Zeroize>(Zeroizing<T>);

/// Passwords and the like.
pub type SecretString = Secret<String>;

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Where a secret is read from, each time it is needed: a rotated file counts at the next use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; one trailing line break is not part of the secret.
    File(PathBuf),
    /// A command and its arguments, run without a shell; its standard output is the secret.
    Command(Vec<String>),
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("environment variable \"{name}\" is not set; it should hold a secret")]
    EnvMissing { name: String },
    #[error("environment variable \"{name}\" is not UTF-8")]
    EnvNotUtf8 { name: String },
    #[error("could not read secret file \"{}\"", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("command of a secret is empty; give the program and its arguments")]
    CommandEmpty,
    #[error("could not run secret command \"{program}\"")]
    Command { program: String, source: io::Error },
    #[error("secret command \"{program}\" ended with {status}")]
    CommandFailed { program: String, status: String },
    #[error("secret command \"{program}\" did not end within the limit of {COMMAND_SECONDS_MAX} s")]
    CommandSlow { program: String },
    #[error("secret of {origin} is longer than the limit of {SECRET_BYTES_MAX} bytes")]
    TooLong { origin: String },
    #[error("secret of {origin} is empty")]
    Empty { origin: String },
    #[error("secret of {origin} is not UTF-8")]
    NotUtf8 { origin: String },
}

impl fmt::Display for SecretSource {
    /// Names the source, as a configuration shown to people does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable \"{name}\""),
            Self::File(path) => write!(f, "file \"{}\"", path.display()),
            // Arguments may hold what should not be shown.
            Self::Command(argv) => write!(f, "command \"{}\"", argv.first().map_or("", String::as_str)),
        }
    }
}

impl SecretSource {
    pub fn resolve(&self) -> Result<SecretString, SecretError> {
        let bytes = match self {
            Self::Env(name) => read_env(name)?,
            Self::File(path) => read_file(path)?,
            Self::Command(argv) => run(argv)?,
        };
        self.check(bytes)
    }

    fn check(&self, mut bytes: Zeroizing<Vec<u8>>) -> Result<SecretString, SecretError> {
        let origin = || self.to_string();
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(SecretError::TooLong { origin: origin() });
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotUtf8 { origin: origin() })?;
        if text.is_empty() {
            return Err(SecretError::Empty { origin: origin() });
        }
        Ok(Secret::new(text.to_owned()))
    }
}

fn read_env(name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    match std::env::var(name) {
        Ok(value) => Ok(Zeroizing::new(value.into_bytes())),
        Err(std::env::VarError::NotPresent) => Err(SecretError::EnvMissing { name: name.to_owned() }),
        Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::EnvNotUtf8 { name: name.to_owned() }),
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    read_bounded(file).map_err(failed)
}

/// One byte more than the limit at most, so that the caller can tell.
fn read_bounded(source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let limit = SECRET_BYTES_MAX.saturating_add(1);
    // Allocated once: a vector that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    source.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn run(argv: &[String]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let (program, arguments) = argv.split_first().ok_or(SecretError::CommandEmpty)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| SecretError::Command { program: program.clone(), source })?;
    let result = collect(program, &mut child);
    // Ended already where all went well; else it is given up, and its exit tells nothing.
    let _ = child.kill();
    let _ = child.wait();
    result
}

fn collect(program: &str, child: &mut Child) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |source| SecretError::Command { program: program.to_owned(), source };
    let slow = || SecretError::CommandSlow { program: program.to_owned() };
    let deadline = Instant::now() + Duration::from_secs(COMMAND_SECONDS_MAX);
    let output = child.stdout.take().ok_or_else(|| failed(io::Error::other("no standard output")))?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        // After the deadline nobody receives; the pipe closes with the process that is killed then.
        let _ = send.send(read_bounded(output));
    });
    let left = deadline.saturating_duration_since(Instant::now());
    let bytes = receive.recv_timeout(left).map_err(|_| slow())?.map_err(failed)?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Ok(bytes);
    }
    // Its output is closed, so it is about to end; the standard library cannot wait with a deadline.
    loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(bytes),
            Some(status) => {
                return Err(SecretError::CommandFailed { program: program.to_owned(), status: status.to_string() });
            }
            None if Instant::now() >= deadline => return Err(slow()),
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str) -> SecretSource {
        SecretSource::Command(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    fn file(content: &[u8]) -> (tempfile::TempDir, SecretSource) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (folder, SecretSource::File(path))
    }

    #[test]
    fn debug_shows_nothing_of_the_value() {
        let secret = SecretString::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert_eq!(secret.clone().expose(), "hunter2");
    }

    #[test]
    fn only_one_line_break_at_the_end_is_cut() {
        for (content, expected) in
            [(&b"pass word\n"[..], "pass word"), (b"pass\r\n", "pass"), (b"pass\n\n", "pass\n"), (b" pass ", " pass ")]
        {
            let (_folder, source) = file(content);
            assert_eq!(source.resolve().unwrap().expose(), expected);
        }
    }

    #[test]
    fn files_are_refused_empty_missing_too_long_or_not_text() {
        let (_folder, source) = file(b"\n");
        assert!(matches!(source.resolve(), Err(SecretError::Empty { .. })));
        let (_folder, source) = file(&[b'x'; SECRET_BYTES_MAX]);
        assert!(source.resolve().is_ok());
        let (_folder, source) = file(&[b'x'; SECRET_BYTES_MAX + 1]);
        assert!(matches!(source.resolve(), Err(SecretError::TooLong { .. })));
        let (_folder, source) = file(b"\xff\xfe");
        assert!(matches!(source.resolve(), Err(SecretError::NotUtf8 { .. })));
        let missing = SecretSource::File("/nonexistent/secret".into());
        assert_eq!(missing.resolve().unwrap_err().to_string(), "could not read secret file \"/nonexistent/secret\"");
    }

    #[test]
    fn a_command_gives_its_output_and_no_failure_quotes_it() {
        assert_eq!(command("echo s3cret").resolve().unwrap().expose(), "s3cret");
        let failed = command("echo s3cret; exit 3").resolve().unwrap_err();
        assert!(matches!(failed, SecretError::CommandFailed { .. }));
        assert!(!format!("{failed:?} {failed}").contains("s3cret"));
        assert!(matches!(SecretSource::Command(vec![]).resolve(), Err(SecretError::CommandEmpty)));
        let missing = SecretSource::Command(vec!["/nonexistent/program".to_owned()]);
        assert!(matches!(missing.resolve(), Err(SecretError::Command { .. })));
    }

    #[test]
    fn endless_output_of_a_command_is_cut_off() {
        assert!(matches!(command("exec yes").resolve(), Err(SecretError::TooLong { .. })));
    }

    #[test]
    fn an_unset_variable_is_named() {
        let error = SecretSource::Env("EXEAT_TEST_NO_SUCH_VARIABLE".to_owned()).resolve().unwrap_err();
        assert!(error.to_string().contains("EXEAT_TEST_NO_SUCH_VARIABLE"));
        assert!(SecretSource::Env("PATH".to_owned()).resolve().is_ok());
    }

    #[test]
    fn display_names_the_source_without_arguments() {
        assert_eq!(command("echo s3cret").to_string(), "command \"sh\"");
    }
}
