//! A throw-away PostgreSQL for the tests of the shared store: one server for the whole run, a database for each test.
//! It ends with this process, however that ends: a shell waits at a pipe of ours and stops it.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

/// Debian's place for server programs.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";

pub(crate) struct Server {
    port: u16,
    databases: AtomicU32,
    /// Its standard input is what keeps the server running.
    _shell: Child,
    _folder: tempfile::TempDir,
}

static SERVER: OnceLock<Option<Server>> = OnceLock::new();

/// `None`, said once, where there are no programs.
pub(crate) fn server() -> Option<&'static Server> {
    SERVER
        .get_or_init(|| {
            let programs = programs();
            if programs.is_none() {
                writeln!(std::io::stderr(), "left out: the store on PostgreSQL; no initdb in {DEBIAN_VERSIONS}/*/bin")
                    .unwrap();
            }
            programs.map(|programs| Server::start(&programs))
        })
        .as_ref()
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN_VERSIONS).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").is_file()).collect();
    found.sort();
    found.pop()
}

/// PostgreSQL does not run as root.
fn user() -> Option<(u32, u32)> {
    let number = |arguments: &[&str]| -> Option<u32> {
        String::from_utf8(Command::new("id").args(arguments).output().ok()?.stdout).ok()?.trim().parse().ok()
    };
    if number(&["-u"])? != 0 {
        return None;
    }
    let of = |name: &str| Some((number(&["-u", name])?, number(&["-g", name])?));
    of("postgres").or_else(|| of("nobody"))
}

impl Server {
    fn start(programs: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        let user = user();
        if let Some((uid, gid)) = user {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
            chown(&home, Some(uid), Some(gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = format!(
            "set -e; {bin}/initdb -D data -U store -A trust -E UTF8 --no-locale --no-sync >init.log 2>&1\n\
             {bin}/postgres -D data -c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
             -c fsync=off -c shared_buffers=32MB -c max_connections=120 -c autovacuum=off >log 2>&1 </dev/null & \
             server=$!; cat >/dev/null; kill -QUIT $server",
            bin = programs.display(),
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(&home).stdin(Stdio::piped()).process_group(0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        let shell = command.spawn().unwrap();
        let server = Self { port, databases: AtomicU32::new(0), _shell: shell, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(problem) = server.run("postgres", &["SELECT 1"]) {
            let said = || fs::read_to_string(home.join("init.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{problem}; {}", said());
            std::thread::yield_now();
        }
        server
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://store@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    pub(crate) fn new_database(&self) -> String {
        let name = format!("store_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &[&format!("CREATE DATABASE {name}")]).unwrap();
        self.url(&name)
    }

    fn run(&self, database: &str, statements: &[&str]) -> Result<(), sqlx::Error> {
        run_at(&self.url(database), statements)
    }
}

/// Statements of the test itself, beside the gateways.
pub(crate) fn run_at(url: &str, statements: &[&str]) -> Result<(), sqlx::Error> {
    apart(async {
        let mut connection = PgConnection::connect(url).await?;
        for statement in statements {
            sqlx::query(sqlx::AssertSqlSafe((*statement).to_owned())).fetch_all(&mut connection).await?;
        }
        connection.close().await
    })
}

pub(crate) fn run_in_file(path: &Path, statement: &str) -> Result<(), sqlx::Error> {
    apart(async {
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await?;
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        connection.close().await
    })
}

/// Callers may be in a runtime already.
fn apart<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        scope.spawn(move || runtime.block_on(work)).join().unwrap()
    })
}
