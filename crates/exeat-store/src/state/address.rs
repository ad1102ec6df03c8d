//! Where the state store is, and how it is reached: a file in data_dir, or a PostgreSQL whose address is a secret.
//!
//! Of an address everything that matters is said in it or refused: the driver would fill gaps from the environment.
//! TLS is as for targets: `verify-full` unless the address says less, none on loopback only. Never shows a password.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::any::AnyConnectOptions;
use url::Url;

use crate::secret::{SecretError, SecretSource};

/// Which store a gateway keeps its state in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateSource {
    /// A file in data_dir, for one gateway.
    Embedded,
    /// A PostgreSQL shared by gateways: `postgres://user:password@host:port/database`.
    Postgres(SecretSource),
}

impl StateSource {
    /// Whether the address can be read and is one, without going there.
    pub fn check(&self) -> Result<(), AddressError> {
        match self {
            Self::Embedded => Ok(()),
            Self::Postgres(source) => Address::resolve(source).map(drop),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("could not read the state store's address")]
    Secret(#[from] SecretError),
    #[error("the state store's address does not read as postgres://user:password@host:port/database")]
    Unreadable,
    #[error("the state store's address names no {missing}; write postgres://user:password@host:port/database")]
    Incomplete { missing: &'static str },
    #[error("the state store's address has the parameter \"{name}\"; it takes {}", PARAMETERS.join(", "))]
    Parameter { name: String },
    #[error("the state store's address has an sslmode that is none of verify-full, require and disable")]
    SslMode,
    #[error("sslmode=disable is for loopback only, and the state store is at \"{host}\"; use verify-full")]
    Plain { host: String },
}

/// Of the driver's own, those that say how TLS is spoken.
const PARAMETERS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// An address that has been looked at. Holds the password: no `Debug`.
pub(super) struct Address {
    pub(super) options: AnyConnectOptions,
    /// Without user and password.
    pub(super) shown: String,
    /// Over a network without TLS.
    pub(super) is_plain: bool,
}

impl Address {
    /// SQLite's own form of address; every byte of the path that could mean something in it is escaped.
    pub(super) fn embedded(path: &Path) -> Result<Self, sqlx::Error> {
        use std::fmt::Write;
        let mut url = "sqlite://".to_owned();
        for byte in std::path::absolute(path)?.as_os_str().as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => url.push(char::from(*byte)),
                other => write!(url, "%{other:02X}").map_err(|_| sqlx::Error::Protocol("an address".to_owned()))?,
            }
        }
        let options = AnyConnectOptions::from_str(&url)?.disable_statement_logging();
        Ok(Self { options, shown: path.display().to_string(), is_plain: false })
    }

    /// Reads the secret: may wait for a command, and must not be called where others wait for the thread.
    pub(super) fn resolve(source: &SecretSource) -> Result<Self, AddressError> {
        Self::postgres(source.resolve()?.expose())
    }

    fn postgres(text: &str) -> Result<Self, AddressError> {
        let mut url = Url::parse(text).map_err(|_| AddressError::Unreadable)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(AddressError::Unreadable);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned);
        let host = host.ok_or(AddressError::Incomplete { missing: "host" })?;
        if url.username().is_empty() {
            return Err(AddressError::Incomplete { missing: "user" });
        }
        let database = url.path().trim_start_matches('/').to_owned();
        if database.is_empty() {
            return Err(AddressError::Incomplete { missing: "database" });
        }
        let parameters: Vec<(String, String)> =
            url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        if let Some((name, _)) = parameters.iter().find(|(name, _)| !PARAMETERS.contains(&name.as_str())) {
            return Err(AddressError::Parameter { name: name.clone() });
        }
        let asked = parameters.iter().find(|(name, _)| name == "sslmode").map(|(_, value)| value.as_str());
        let mode = tls(asked, &host)?;
        let port = url.port().unwrap_or(5432);
        url.set_port(Some(port)).map_err(|()| AddressError::Unreadable)?;
        url.query_pairs_mut()
            .clear()
            .extend_pairs(parameters.iter().filter(|(name, _)| name != "sslmode"))
            .append_pair("sslmode", mode)
            .append_pair("application_name", "exeat");
        let options = AnyConnectOptions::from_url(&url).map_err(|_| AddressError::Unreadable)?;
        Ok(Self {
            options: options.disable_statement_logging(),
            shown: format!("postgres://{host}:{port}/{database}"),
            is_plain: mode == "disable" && !is_socket(&host),
        })
    }
}

/// A socket's folder stands as the host, escaped: `%2Frun%2Fpostgresql`.
fn is_socket(host: &str) -> bool {
    host.starts_with("%2F") || host.starts_with("%2f")
}

fn tls(asked: Option<&str>, host: &str) -> Result<&'static str, AddressError> {
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = plain == "localhost" || plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match asked {
        // There is no TLS on a socket, and nobody in between.
        None | Some("disable") if is_socket(host) => Ok("disable"),
        None | Some("verify-full") => Ok("verify-full"),
        Some("require") => Ok("require"),
        Some("disable") if is_loopback => Ok("disable"),
        Some("disable") => Err(AddressError::Plain { host: host.to_owned() }),
        Some(_) => Err(AddressError::SslMode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        Address::postgres(text).map(|address| address.options.database_url.to_string()).unwrap()
    }

    fn refused(text: &str) -> String {
        Address::postgres(text).err().unwrap().to_string()
    }

    #[test]
    fn tls_is_verified_unless_the_address_says_less_and_none_is_for_loopback() {
        let tail = |mode: &str| format!("sslmode={mode}&application_name=exeat");
        assert_eq!(url("postgres://u:p@db/x"), format!("postgres://u:p@db:5432/x?{}", tail("verify-full")));
        assert!(url("postgresql://u@db:1/x?sslmode=verify-full").ends_with(&tail("verify-full")));
        assert!(url("postgres://u@db/x?sslmode=require&sslrootcert=/ca").ends_with(&tail("require")));
        assert!(url("postgres://u@db/x?sslmode=require&sslrootcert=/ca").contains("sslrootcert=%2Fca"));
        for host in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert!(url(&format!("postgres://u@{host}/x?sslmode=disable")).ends_with(&tail("disable")), "{host}");
        }
        assert!(url("postgres://u@%2Frun/x").ends_with(&tail("disable")));
        for host in ["db", "10.0.0.1", "localhost.example.com", "[::2]"] {
            let refusal = refused(&format!("postgres://u@{host}/x?sslmode=disable"));
            assert!(refusal.contains("loopback only"), "{refusal}");
        }
        for mode in ["prefer", "allow", "verify-ca", "", "off"] {
            assert!(refused(&format!("postgres://u@localhost/x?sslmode={mode}")).contains("none of"), "{mode}");
        }
    }

    #[test]
    fn an_address_says_everything_and_nothing_unknown() {
        for (text, missing) in [
            ("postgres:///x", "no host"),
            ("postgres://db/x", "no user"),
            ("postgres://u@db", "no database"),
            ("postgres://u@db/", "no database"),
            ("postgres://u@db/x?host=elsewhere", "\"host\""),
            ("postgres://u@db/x?options=-cfsync%3Doff", "\"options\""),
            ("mysql://u@db/x", "does not read"),
            ("hunter2", "does not read"),
        ] {
            let refusal = refused(text);
            assert!(refusal.contains(missing) && !refusal.contains("hunter2"), "{text}: {refusal}");
        }
        let address = Address::postgres("postgres://user:hunter2@db:7000/x").ok().unwrap();
        assert_eq!(address.shown, "postgres://db:7000/x");
    }

    #[test]
    fn a_path_reads_back_as_it_was() {
        let address = Address::embedded(Path::new("/a b/50%/q?x#y/exeat.db")).unwrap();
        assert_eq!(address.options.database_url.as_str(), "sqlite:///a%20b/50%25/q%3Fx%23y/exeat.db");
    }
}
