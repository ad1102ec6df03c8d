//! The sample shop in a server: the demo's own, or one that `--database-url` names. In a server that is not ours
//! nothing that exists is touched, and what was made is dropped at the end.

use std::path::{Path, PathBuf};

use exeat_proxy::upstream::{
    CatalogConnection, LoginAuth, LoginConfig, TlsMode, UpstreamConfig, UpstreamConfigError, UpstreamError,
};
use exeat_store::secret::SecretSource;
use url::Url;

const SHOP: &str = include_str!("shop.sql");

/// Roles that the sample's policy and configuration speak of.
pub(super) const READER: &str = "shop_reader";
pub(super) const OFFICER: &str = "shop_dpo";

const DEFAULT_PORT: u16 = 5432;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("--database-url does not read as postgres://user:password@host:port/database: {problem}")]
    Url { problem: String },
    #[error(transparent)]
    Config(#[from] UpstreamConfigError),
    #[error("could not prepare the sample database")]
    Server(#[from] UpstreamError),
    #[error(
        "{what} exists already on that server and is not ours to change; if an earlier demo left it there, run: \
             DROP DATABASE IF EXISTS {database}; DROP ROLE IF EXISTS {READER}, {OFFICER};"
    )]
    Taken { what: String, database: String },
}

/// A PostgreSQL server and an administrator's login to it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: TlsMode,
    pub(super) ca: Option<PathBuf>,
    /// The database to connect to for making another.
    database: String,
    user: String,
    password: SecretSource,
}

impl Server {
    /// The demo's own server: loopback, password in a file of the demo's folder.
    pub(super) fn own(port: u16, user: &str, password: PathBuf) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
            tls: TlsMode::Off,
            ca: None,
            database: "postgres".to_owned(),
            user: user.to_owned(),
            password: SecretSource::File(password),
        }
    }

    /// Reads a URL; `keep` stores its password and says where.
    pub(super) fn from_url(text: &str, keep: impl FnOnce(&str) -> SecretSource) -> Result<Self, DatabaseError> {
        let problem = |problem: &str| DatabaseError::Url { problem: problem.to_owned() };
        // The parser's own words may quote the text, and the text holds a password.
        let url = Url::parse(text).map_err(|_| problem("it is no URL"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(problem("it does not begin with postgres://"));
        }
        let decode = |text: &str| percent_decoded(text).ok_or_else(|| problem("its %-escapes do not decode to UTF-8"));
        let host = decode(url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| problem("it names no host"))?)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let password = decode(url.password().ok_or_else(|| problem("it has no password"))?)?;
        let (tls, ca) = tls_options(&url, &host)?;
        let database = decode(url.path().trim_start_matches('/'))?;
        Ok(Self {
            host,
            port: url.port().unwrap_or(DEFAULT_PORT),
            tls,
            ca,
            database: if database.is_empty() { "postgres".to_owned() } else { database },
            user: decode(url.username())?,
            password: keep(&password),
        })
    }

    async fn connect(&self, database: &str) -> Result<CatalogConnection, DatabaseError> {
        let upstream = UpstreamConfig::new(&self.host, self.port, database, self.tls, self.ca.clone())?;
        let login = LoginConfig {
            groups: Vec::new(),
            claims: serde_json::Map::new(),
            user: self.user.clone(),
            role: None,
            auth: LoginAuth::Scram,
            password: Some(self.password.clone()),
        };
        let mut connection = CatalogConnection::connect(&upstream, &login).await?;
        connection.query("SET default_transaction_read_only = off").await?;
        Ok(connection)
    }

    /// Does it take connections yet?
    pub(super) async fn ping(&self) -> Result<(), DatabaseError> {
        self.connect(&self.database).await.map(drop)
    }

    /// An error if a name of ours is taken.
    pub(super) async fn refuse_taken(&self, database: &str) -> Result<(), DatabaseError> {
        let mut admin = self.connect(&self.database).await?;
        let query = format!(
            "SELECT 'role ' || rolname FROM pg_roles WHERE rolname IN ('{READER}', '{OFFICER}') \
             UNION ALL SELECT 'database ' || datname FROM pg_database WHERE datname = '{database}'"
        );
        let found = admin.query(&query).await?;
        match found.into_iter().flatten().flatten().next() {
            None => Ok(()),
            Some(what) => Err(DatabaseError::Taken { what, database: database.to_owned() }),
        }
    }

    /// Makes the database, its roles and its rows. Passwords are ours: letters, digits, `-` and `_`.
    pub(super) async fn install(&self, database: &str, passwords: &Passwords) -> Result<(), DatabaseError> {
        let mut admin = self.connect(&self.database).await?;
        admin.query(&format!("CREATE DATABASE {database}")).await?;
        drop(admin);
        let mut shop = self.connect(database).await?;
        shop.query(SHOP).await?;
        for (role, password) in [(READER, &passwords.reader), (OFFICER, &passwords.officer)] {
            shop.query(&format!("ALTER ROLE {role} PASSWORD '{password}'")).await?;
        }
        Ok(())
    }

    /// Drops what [`Self::install`] made.
    pub(super) async fn remove(&self, database: &str) -> Result<(), DatabaseError> {
        let mut admin = self.connect(&self.database).await?;
        admin.query(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await?;
        admin.query(&format!("DROP ROLE IF EXISTS {READER}, {OFFICER}")).await?;
        Ok(())
    }
}

/// Of the two roles. Made for the run.
pub(super) struct Passwords {
    pub(super) reader: String,
    pub(super) officer: String,
}

/// The URL library leaves escapes in its parts, but decodes them in query values.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [char::from(rest.next()?), char::from(rest.next()?)];
        let [high, low] = digits.map(|digit| digit.to_digit(16));
        bytes.push(u8::try_from(high? * 16 + low?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// `sslmode` and `sslrootcert` as psql knows them; without them, verify-full wherever it is not loopback.
fn tls_options(url: &Url, host: &str) -> Result<(TlsMode, Option<PathBuf>), DatabaseError> {
    let mut tls = if is_loopback(host) { TlsMode::Off } else { TlsMode::VerifyFull };
    let mut ca = None;
    for (key, value) in url.query_pairs() {
        match (key.as_ref(), value.as_ref()) {
            ("sslmode", "verify-full") => tls = TlsMode::VerifyFull,
            ("sslmode", "require") => tls = TlsMode::Require,
            ("sslmode", "disable") => tls = TlsMode::Off,
            ("sslrootcert", file) => ca = Some(Path::new(file).to_owned()),
            ("sslmode", _) => {
                let problem = "its sslmode must be verify-full, require or disable".to_owned();
                return Err(DatabaseError::Url { problem });
            }
            (other, _) => return Err(DatabaseError::Url { problem: format!("it has the unknown option {other:?}") }),
        }
    }
    Ok((tls, ca))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Server, String), DatabaseError> {
        let mut kept = String::new();
        let server = Server::from_url(text, |password| {
            kept = password.to_owned();
            SecretSource::Env("KEPT".to_owned())
        })?;
        Ok((server, kept))
    }

    #[test]
    fn a_url_gives_every_part_decoded() {
        let (server, password) = read("postgres://ad%40min:p%3Aw@db.internal:6000/main?sslrootcert=/ca.crt").unwrap();
        assert_eq!((server.host.as_str(), server.port, server.user.as_str()), ("db.internal", 6000, "ad@min"));
        assert_eq!((server.database.as_str(), password.as_str()), ("main", "p:w"));
        assert_eq!((server.tls, server.ca), (TlsMode::VerifyFull, Some(PathBuf::from("/ca.crt"))));
    }

    #[test]
    fn loopback_needs_no_tls_and_other_hosts_do() {
        assert_eq!(read("postgres://a:b@127.0.0.1/x").unwrap().0.tls, TlsMode::Off);
        assert_eq!(read("postgres://a:b@10.0.0.1/x").unwrap().0.tls, TlsMode::VerifyFull);
    }

    #[test]
    fn a_wrong_url_is_refused_without_showing_its_password() {
        for text in [
            "postgres://a:hunter2@",
            "mysql://a:hunter2@h/x",
            "postgres://a@h/x",
            "postgres://a:hunter2@h/x?sslmode=prefer",
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("--database-url") && !error.contains("hunter2"), "{error}");
        }
    }
}
