//! A PostgreSQL of the tests' own, with roles for every way to log in, and TLS where a test wants it.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use exeat_proxy::upstream::{Connected, LoginAuth, LoginConfig, TlsMode, UpstreamConfig, UpstreamError, connect};
use exeat_store::secret::SecretSource;

pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) const PASSWORDS: [(&str, &str); 5] = [
    ("admin", "admin-secret"),
    ("reader", "pässwörd-of-reader"),
    ("cleartext", "clear-secret"),
    ("hashed", "hashed-secret"),
    ("trusting", "unused-secret"),
];

pub(crate) const HBA: &str = "\
local all all trust
host all trusting all trust
host all cleartext all password
host all hashed all md5
hostssl all bearer all cert
host all all all scram-sha-256
";

pub(crate) const SETUP: [&str; 7] = [
    "CREATE ROLE reader LOGIN PASSWORD 'pässwörd-of-reader'",
    "CREATE ROLE cleartext LOGIN PASSWORD 'clear-secret'",
    "CREATE ROLE trusting LOGIN",
    "CREATE ROLE bearer LOGIN",
    "CREATE ROLE payments_ro",
    "GRANT payments_ro TO reader",
    "SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN PASSWORD 'hashed-secret'",
];

impl Server {
    pub(crate) fn start(with_tls: bool) -> Self {
        let programs = find_programs();
        let folder = tempfile::Builder::new().prefix("exeat-upstream-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let owner = Owner::current();
        owner.give(&data);
        write_certificates(folder.path(), &owner);
        let password_file = folder.path().join("admin.password");
        std::fs::write(&password_file, "admin-secret").unwrap();
        owner.give(&password_file);

        let initdb = owner
            .command(&programs.join("initdb"))
            .args(["--no-sync", "--username=admin", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256"])
            .arg(format!("--pwfile={}", password_file.display()))
            .arg(format!("--pgdata={}", data.display()))
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();

        // The port is free now and taken in a moment: another process may be faster, so try again.
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = start_postgres(&programs, &folder, &owner, port, with_tls);
            if wait_until_ready(&programs, folder.path(), port, &mut process) {
                let server = Self { process, port, folder };
                for statement in SETUP {
                    let output = psql(&programs, server.folder.path(), port, statement);
                    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
                }
                return server;
            }
        }
        panic!("the server did not start: {}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
    }

    /// One server for the tests that run at the same time; stops with the last of them.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(true));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self, host: &str, mode: TlsMode) -> UpstreamConfig {
        let ca = (mode == TlsMode::VerifyFull).then(|| self.file("ca.pem"));
        UpstreamConfig::new(host, self.port, "postgres", mode, ca).unwrap()
    }

    pub(crate) fn login(&self, user: &str) -> LoginConfig {
        let password =
            PASSWORDS.iter().find(|(name, _)| *name == user).map_or("no such user", |(_, password)| password);
        self.login_with(user, password)
    }

    pub(crate) fn login_with(&self, user: &str, password: &str) -> LoginConfig {
        let mut file = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
        writeln!(file, "{password}").unwrap();
        let (_, path) = file.keep().unwrap();
        LoginConfig {
            groups: vec![],
            claims: serde_json::Map::new(),
            user: user.to_owned(),
            role: None,
            auth: LoginAuth::Scram,
            password: Some(SecretSource::File(path)),
        }
    }

    pub(crate) async fn connect_by(
        &self,
        auth: LoginAuth,
        host: &str,
        mode: TlsMode,
        user: &str,
    ) -> Result<Connected, UpstreamError> {
        let login = self.login(user);
        let password = login.password.clone().filter(|_| auth.needs_password());
        connect(&self.config(host, mode), &LoginConfig { auth, password, ..login }, &[]).await
    }

    pub(crate) async fn connect(&self, host: &str, mode: TlsMode, user: &str) -> Result<Connected, UpstreamError> {
        connect(&self.config(host, mode), &self.login(user), &[]).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown; a kill would leave shared memory behind.
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

/// PostgreSQL refuses to run as root.
pub(crate) struct Owner {
    pub(crate) unprivileged: Option<(u32, u32)>,
}

impl Owner {
    pub(crate) fn current() -> Self {
        let id = |flag: &str, name: Option<&str>| -> u32 {
            let output = Command::new("id").arg(flag).args(name).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
        };
        let is_root = id("-u", None) == 0;
        Self { unprivileged: is_root.then(|| (id("-u", Some("nobody")), id("-g", Some("nobody")))) }
    }

    pub(crate) fn give(&self, path: &Path) {
        if let Some((user, group)) = self.unprivileged {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C.UTF-8").env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).current_dir("/");
        if let Some((user, group)) = self.unprivileged {
            command.uid(user).gid(group);
        }
        command
    }
}

pub(crate) fn find_programs() -> PathBuf {
    let debian =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let mut found: Vec<PathBuf> = debian.filter(|folder| folder.join("initdb").exists()).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path).filter(|folder| folder.join("initdb").exists()));
    found.into_iter().next().expect(
        "this test needs the PostgreSQL server programs (initdb, postgres) under /usr/lib/postgresql/*/bin or in PATH: \
         install the package postgresql-15",
    )
}

pub(crate) fn start_postgres(
    programs: &Path,
    folder: &tempfile::TempDir,
    owner: &Owner,
    port: u16,
    with_tls: bool,
) -> Child {
    let folder = folder.path();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = owner.command(&programs.join("postgres"));
    command.arg("-D").arg(folder.join("data")).arg("-p").arg(port.to_string());
    for setting in [
        "listen_addresses=*".to_owned(),
        format!("unix_socket_directories={}", folder.join("data").display()),
        "fsync=off".to_owned(),
        "shared_buffers=8MB".to_owned(),
        "max_connections=30".to_owned(),
        format!("ssl={}", if with_tls { "on" } else { "off" }),
        format!("ssl_cert_file={}", folder.join("server.pem").display()),
        format!("ssl_key_file={}", folder.join("server.key").display()),
        format!("ssl_ca_file={}", folder.join("ca.pem").display()),
    ] {
        command.arg("-c").arg(setting);
    }
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

pub(crate) fn psql(programs: &Path, folder: &Path, port: u16, sql: &str) -> std::process::Output {
    Command::new(programs.join("psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "admin", "-d", "postgres", "-c", sql])
        .arg("-h")
        .arg(folder.join("data"))
        .arg("-p")
        .arg(port.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("PGCLIENTENCODING", "UTF8")
        .output()
        .unwrap()
}

pub(crate) fn wait_until_ready(programs: &Path, folder: &Path, port: u16, process: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while process.try_wait().unwrap().is_none() {
        if psql(programs, folder, port, "SELECT 1").status.success() {
            return true;
        }
        assert!(Instant::now() < deadline, "the server was not ready in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// `ca.pem` signs `server.pem` for localhost (and no address); `other-ca.pem` signs nothing; `relay.*` is a man in
/// the middle with a certificate of his own for localhost.
pub(crate) fn write_certificates(folder: &Path, owner: &Owner) {
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (rcgen::Issuer::new(params, key), pem)
    };
    let (issuer, ca) = authority("exeat test authority");
    let (_, other_ca) = authority("another authority");
    std::fs::write(folder.join("ca.pem"), ca).unwrap();
    std::fs::write(folder.join("other-ca.pem"), other_ca).unwrap();
    for name in ["server", "relay", "bearer", "reader"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        let key_path = folder.join(format!("{name}.key"));
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if name == "server" {
            owner.give(&key_path);
        }
    }
}
