//! A throw-away PostgreSQL for the demo: finds server programs (or installs them where it may), makes a cluster in
//! the demo's folder and runs it on loopback, never as root.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::keeper::{Keeper, KeeperError, Watched};

/// Debian's and its kin's place for server programs, which is on nobody's PATH.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";

/// Users to run as instead of root, the first that exists.
const UNPRIVILEGED_USERS: [&str; 2] = ["postgres", "nobody"];

/// Lines of a server's log worth showing with an error.
const LOG_LINES_SHOWN: usize = 5;

/// Ports tried. Each is looked up free and taken a moment later; losing that race three times is no accident.
const LAUNCHES_MAX: u32 = 3;

pub(super) const SUPERUSER: &str = "postgres";

#[derive(Debug, thiserror::Error)]
pub(crate) enum PostgresError {
    #[error(
        "found no PostgreSQL server programs (initdb, postgres) in {DEBIAN_VERSIONS}/*/bin, on PATH or by pg_config; \
         install them (Debian: apt-get install postgresql; Fedora: dnf install postgresql-server; \
         macOS: brew install postgresql), or give --database-url postgres://user:password@host:port/database"
    )]
    NoPrograms,
    #[error("apt-get could not install PostgreSQL: {said}; install it by hand, or give --database-url")]
    Install { said: String },
    #[error("could not run {program}")]
    Run { program: String, source: std::io::Error },
    #[error("{program} failed: {said}")]
    Failed { program: &'static str, said: String },
    #[error("PostgreSQL does not run as root, and neither {} exists on this machine; start the demo as an ordinary user",
            UNPRIVILEGED_USERS.join(" nor "))]
    NoUser,
    #[error("could not prepare {}: {source}", path.display())]
    Prepare { path: PathBuf, source: std::io::Error },
    #[error("found no free port on 127.0.0.1")]
    Port(#[source] std::io::Error),
    #[error("the demo's PostgreSQL ended while starting: {log}")]
    Ended { log: String },
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// A user and group to run as.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

/// A running cluster. It is stopped by the keeper, not by this value.
#[derive(Debug)]
pub(super) struct Postgres {
    pub(super) port: u16,
    /// Server programs' folder: psql often lives there too.
    pub(super) programs: PathBuf,
    home: PathBuf,
    user: Option<User>,
    child: Child,
    watched: Option<Watched>,
    launches: u32,
}

impl Postgres {
    /// Makes a cluster whose superuser has this password and starts it. It may not answer yet: see
    /// [`Self::keep_alive`].
    pub(super) fn start(keeper: &mut Keeper, password: &str) -> Result<Self, PostgresError> {
        let programs = find_or_install(keeper.superuser())?;
        let user = if keeper.superuser() { Some(unprivileged_user()?) } else { None };
        let home = keeper.folder().join("postgres");
        prepare(&home, user)?;
        init(&home, &programs, user, (keeper, password))?;
        let port = free_port()?;
        let child = launch(&home, &programs, user, port)?;
        let watched = Some(keeper.watch(&child)?);
        Ok(Self { port, programs, home, user, child, watched, launches: 1 })
    }

    /// An error once the server process has ended, unless it ended because somebody took its port between our look
    /// and its start: then it is started again on another.
    pub(super) fn keep_alive(&mut self, keeper: &mut Keeper) -> Result<(), PostgresError> {
        if matches!(self.child.try_wait(), Ok(None)) {
            return Ok(());
        }
        let log = last_lines(&log_of(&self.home));
        if !log.contains("Address already in use") || self.launches >= LAUNCHES_MAX {
            return Err(PostgresError::Ended { log });
        }
        if let Some(watched) = self.watched.take() {
            keeper.forget(watched)?;
        }
        self.port = free_port()?;
        self.child = launch(&self.home, &self.programs, self.user, self.port)?;
        self.watched = Some(keeper.watch(&self.child)?);
        self.launches += 1;
        Ok(())
    }

    /// Waits for the end that the keeper has brought about.
    pub(super) fn reap(mut self) {
        // A process that cannot be waited for has gone already.
        let _gone = self.child.wait();
    }
}

fn log_of(home: &Path) -> PathBuf {
    home.join("log")
}

fn launch(home: &Path, programs: &Path, user: Option<User>, port: u16) -> Result<Child, PostgresError> {
    let log = log_of(home);
    let prepare = |source| PostgresError::Prepare { path: log.clone(), source };
    let output = fs::File::create(&log).map_err(prepare)?;
    let errors = output.try_clone().map_err(prepare)?;
    let mut command = program(programs, "postgres", user);
    command.arg("-D").arg(home.join("data")).stdout(output).stderr(errors);
    for setting in settings(port) {
        command.args(["-c", &setting]);
    }
    command.spawn().map_err(|source| PostgresError::Run { program: "postgres".to_owned(), source })
}

/// Durability is for data that outlives the process.
fn settings(port: u16) -> [String; 8] {
    [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "fsync=off".to_owned(),
        "shared_buffers=32MB".to_owned(),
        "max_connections=60".to_owned(),
        "logging_collector=off".to_owned(),
        "cluster_name=exeat-demo".to_owned(),
    ]
}

/// A folder of its own for the server, owned by whoever runs it.
fn prepare(home: &Path, user: Option<User>) -> Result<(), PostgresError> {
    let error = |source| PostgresError::Prepare { path: home.to_owned(), source };
    fs::create_dir(home).map_err(error)?;
    match user {
        Some(user) => chown(home, Some(user.uid), Some(user.gid)).map_err(error),
        None => Ok(()),
    }
}

fn init(
    home: &Path,
    programs: &Path,
    user: Option<User>,
    (keeper, password): (&mut Keeper, &str),
) -> Result<(), PostgresError> {
    let secret = home.join("password");
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&secret)
        .and_then(|mut file| file.write_all(password.as_bytes()));
    let owned = written.and_then(|()| match user {
        Some(user) => chown(&secret, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    });
    owned.map_err(|source| PostgresError::Prepare { path: secret.clone(), source })?;

    let mut command = program(programs, "initdb", user);
    command.arg("-D").arg(home.join("data")).arg("--pwfile").arg(&secret);
    command.args(["-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"]);
    let run_error = |source| PostgresError::Run { program: "initdb".to_owned(), source };
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(run_error)?;
    let watched = keeper.watch(&child)?;
    let output = child.wait_with_output().map_err(run_error)?;
    keeper.forget(watched)?;
    fs::remove_file(&secret).map_err(|source| PostgresError::Prepare { path: secret, source })?;
    check("initdb", &output)
}

/// A server program with a small environment, out of the terminal's reach: Ctrl-C is ours to handle.
fn program(folder: &Path, name: &str, user: Option<User>) -> Command {
    let mut command = Command::new(folder.join(name));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::null()).process_group(0);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

fn check(program: &'static str, output: &Output) -> Result<(), PostgresError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(PostgresError::Failed { program, said: tail(&said) })
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines.into_iter().skip(skipped).collect::<Vec<_>>().join("; ")
}

fn last_lines(log: &Path) -> String {
    match fs::read_to_string(log) {
        Ok(text) => tail(&text),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}

fn free_port() -> Result<u16, PostgresError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(PostgresError::Port)?;
    listener.local_addr().map(|address| address.port()).map_err(PostgresError::Port)
}

/// PostgreSQL refuses to run as root, rightly.
fn unprivileged_user() -> Result<User, PostgresError> {
    let number = |flag: &str, name: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok().filter(|id| *id != 0)
    };
    UNPRIVILEGED_USERS
        .iter()
        .find_map(|name| Some(User { uid: number("-u", name)?, gid: number("-g", name)? }))
        .ok_or(PostgresError::NoUser)
}

fn find_or_install(superuser: bool) -> Result<PathBuf, PostgresError> {
    if let Some(found) = find() {
        return Ok(found);
    }
    if !superuser || find_on_path("apt-get").is_none() {
        return Err(PostgresError::NoPrograms);
    }
    install()?;
    find().ok_or(PostgresError::NoPrograms)
}

/// The newest of Debian's versions, then PATH, then what pg_config says.
fn find() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN_VERSIONS).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut debian: Vec<PathBuf> = versions.map(|version| version.join("bin")).filter(|bin| complete(bin)).collect();
    debian.sort_by_key(|bin| version_of(bin));
    debian.pop().or_else(|| find_on_path("initdb").filter(|bin| complete(bin))).or_else(by_pg_config)
}

fn by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let bin = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    complete(&bin).then_some(bin)
}

fn complete(bin: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|name| bin.join(name).is_file())
}

fn version_of(bin: &Path) -> u32 {
    let version = bin.parent().and_then(Path::file_name).and_then(OsStr::to_str);
    version.and_then(|text| text.split('.').next()?.parse().ok()).unwrap_or(0)
}

/// The folder of a program on PATH.
pub(super) fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).find(|folder| folder.join(name).is_file())
}

/// Debian's package would start a cluster of its own: switched off first, unless somebody configured that already.
fn install() -> Result<(), PostgresError> {
    const CONFIGURATION: &str = "/etc/postgresql-common/createcluster.conf";
    crate::exit::note("installing PostgreSQL with apt-get (this machine has no server programs)");
    let path = Path::new(CONFIGURATION);
    if !path.exists() {
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(path, "create_main_cluster = false\n"))
            .map_err(|source| PostgresError::Prepare { path: path.to_owned(), source })?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y", "-o", "Dpkg::Options::=--force-confold"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command.output().map_err(|source| PostgresError::Run { program: "apt-get".to_owned(), source })
    };
    // Out-of-date package lists are no reason to give up: the install says what is missing.
    let _listed = apt(&["update"])?;
    let output = apt(&["install", "--no-install-recommends", "postgresql"])?;
    if output.status.success() {
        return Ok(());
    }
    Err(PostgresError::Install { said: tail(&String::from_utf8_lossy(&output.stderr)) })
}
