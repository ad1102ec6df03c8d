//! The demo's folder and the promise that nothing of it stays behind.
//!
//! A destructor does not run when the process is killed, so cleaning up is the job of another process: a shell
//! that reads from a pipe we hold. Whatever ends us (Ctrl-C, an error half-way, `kill -9`, a closed terminal),
//! the pipe closes, and the shell stops the processes it was told of and removes the folder. It is the only road:
//! a clean end takes it too, so that it is walked every time.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Stops what it was told of with SIGINT (PostgreSQL's fast shutdown), after ten seconds with SIGKILL, then
/// removes the folder. It ignores the terminal's signals: they are what it is there for.
const KEEPER_SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=
while read -r word pid; do
    case $word in
        watch) pids="$pids $pid" ;;
        forget) kept=; for p in $pids; do [ "$p" = "$pid" ] || kept="$kept $p"; done; pids=$kept ;;
    esac
done
for p in $pids; do kill -INT "$p" 2>/dev/null; done
tries=100
while [ "$tries" -gt 0 ]; do
    alive=
    for p in $pids; do kill -0 "$p" 2>/dev/null && alive=$p; done
    [ -z "$alive" ] && break
    tries=$((tries - 1))
    sleep 0.1
done
for p in $pids; do kill -KILL "$p" 2>/dev/null; done
rm -rf -- "$1"
"#;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    #[error("could not make a folder in {}: {source}", parent.display())]
    Folder { parent: PathBuf, source: std::io::Error },
    #[error("could not start sh, which removes the demo's files at its end")]
    Start(#[source] std::io::Error),
    #[error("the process that removes the demo's files at its end has died")]
    Gone(#[source] std::io::Error),
}

/// A process the keeper will stop.
#[derive(Debug)]
pub(super) struct Watched(u32);

/// A temporary folder and the process that removes it.
#[derive(Debug)]
pub(super) struct Keeper {
    folder: PathBuf,
    superuser: bool,
    pipe: Option<ChildStdin>,
    shell: Child,
}

impl Keeper {
    /// Makes the folder (only its owner may list it) and starts the process.
    pub(super) fn start() -> Result<Self, KeeperError> {
        let parent = std::env::temp_dir();
        let error = |source| KeeperError::Folder { parent: parent.clone(), source };
        let folder = tempfile::Builder::new().prefix("exeat-demo-").tempdir_in(&parent).map_err(error)?;
        // Others may pass through (the database runs as another user when we are root) but not look around.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).map_err(error)?;
        let superuser = fs::metadata(folder.path()).map_err(error)?.uid() == 0;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", KEEPER_SCRIPT, "exeat-demo-keeper"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(KeeperError::Start)?;
        let pipe = shell.stdin.take();
        Ok(Self { folder: folder.keep(), superuser, pipe, shell })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Do we run as root? Then PostgreSQL must run as somebody else.
    pub(super) fn superuser(&self) -> bool {
        self.superuser
    }

    /// From now on this process ends with us.
    pub(super) fn watch(&mut self, process: &Child) -> Result<Watched, KeeperError> {
        let watched = Watched(process.id());
        self.tell("watch", &watched)?;
        Ok(watched)
    }

    /// The process has ended by itself, and its number may soon be another's.
    pub(super) fn forget(&mut self, watched: Watched) -> Result<(), KeeperError> {
        self.tell("forget", &watched)
    }

    fn tell(&mut self, word: &str, watched: &Watched) -> Result<(), KeeperError> {
        let closed = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let pipe = self.pipe.as_mut().ok_or_else(|| KeeperError::Gone(closed()))?;
        writeln!(pipe, "{word} {}", watched.0).map_err(KeeperError::Gone)
    }

    /// Lets the process clean up while ours goes on: call, reap the watched processes, then drop.
    pub(super) fn release(&mut self) {
        self.pipe = None;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.pipe = None;
        // A process that cannot be waited for has gone already.
        let _gone = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_stops_what_is_watched_and_removes_the_folder() {
        let mut keeper = Keeper::start().unwrap();
        let folder = keeper.folder().to_owned();
        fs::write(folder.join("file"), "x").unwrap();
        let mut watched = Command::new("sleep").arg("600").spawn().unwrap();
        keeper.watch(&watched).unwrap();
        keeper.release();
        assert!(!watched.wait().unwrap().success(), "the watched process was not stopped by a signal");
        drop(keeper);
        assert!(!folder.exists(), "{} is left behind", folder.display());
    }

    #[test]
    fn what_is_forgotten_is_left_alone() {
        let mut keeper = Keeper::start().unwrap();
        let mut other = Command::new("sleep").arg("600").spawn().unwrap();
        let watched = keeper.watch(&other).unwrap();
        keeper.forget(watched).unwrap();
        drop(keeper);
        assert!(other.try_wait().unwrap().is_none(), "a process that was forgotten has been stopped");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
