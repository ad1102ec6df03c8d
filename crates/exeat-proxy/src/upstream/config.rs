//! Which server, how far it is trusted, and with which login. Everything that can be known to be wrong without
//! connecting is an error here, at start.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exeat_policy::Principal;
use exeat_store::secret::SecretSource;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::keepalive::Keepalive;
use crate::tls::{ALPN_POSTGRESQL, ClientCertificate, Roots, TlsError, Trust, client_config_as};

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Chain and host name are verified.
    #[default]
    VerifyFull,
    /// Encrypted, certificate not verified. Channel binding, which this mode insists on, keeps an active attacker out
    /// of the session; he can still gather what he needs to guess a weak password.
    Require,
    /// Plain text, to loopback only.
    Off,
}

/// One PostgreSQL server and database. Holds its TLS settings ready: certificates are read once, at start.
#[derive(Clone)]
pub struct UpstreamConfig {
    host: String,
    port: u16,
    database: String,
    mode: TlsMode,
    tls: Option<UpstreamTls>,
    transport: Transport,
    /// Shared by all databases of the server.
    cancels: Arc<Semaphore>,
}

/// How a connection is protected, and the files that needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub mode: TlsMode,
    /// Trust anchors in place of the system's, for `verify-full`.
    pub ca: Option<PathBuf>,
    pub certificate: Option<ClientCertificate>,
}

/// Connections that cancel requests may have open to one server: each costs it a process.
const CANCELS_AT_ONCE_MAX: usize = 16;

/// How connections to a server are made and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    pub keepalive: Keepalive,
}

impl Default for Transport {
    /// libpq users set 10 s where they set a time.
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(10), keepalive: Keepalive::default() }
    }
}

#[derive(Clone)]
pub(super) struct UpstreamTls {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
}

#[derive(Debug, thiserror::Error)]
pub enum UpstreamConfigError {
    #[error(
        "host \"{host}\" is not a host name or address; give a name like db.internal (Unix sockets are not supported)"
    )]
    Host { host: String },
    #[error("tls: off is for loopback only, and \"{host}\" is not; use verify-full")]
    PlainText { host: String },
    #[error("a ca file has no use with tls: {mode}; use verify-full or leave ca out")]
    UnusedCa { mode: TlsMode },
    #[error("a client certificate has no use with tls: off; use verify-full or leave client_cert out")]
    UnusedCertificate,
    #[error("database name is empty; name the database of this target")]
    NoDatabase,
    #[error(transparent)]
    Tls(#[from] Box<TlsError>),
}

impl UpstreamConfig {
    /// `ca`: trust anchors in place of the system's, for `verify-full`.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        database: impl Into<String>,
        mode: TlsMode,
        ca: Option<PathBuf>,
    ) -> Result<Self, UpstreamConfigError> {
        Self::with_certificate(host, port, database, TlsFiles { mode, ca, certificate: None })
    }

    /// The same, with a certificate of ours for a server that asks for one.
    pub fn with_certificate(
        host: impl Into<String>,
        port: u16,
        database: impl Into<String>,
        files: TlsFiles,
    ) -> Result<Self, UpstreamConfigError> {
        let TlsFiles { mode, ca, certificate } = files;
        let (host, database) = (host.into(), database.into());
        if database.is_empty() {
            return Err(UpstreamConfigError::NoDatabase);
        }
        if ca.is_some() && mode != TlsMode::VerifyFull {
            return Err(UpstreamConfigError::UnusedCa { mode });
        }
        if certificate.is_some() && mode == TlsMode::Off {
            return Err(UpstreamConfigError::UnusedCertificate);
        }
        let server_name =
            ServerName::try_from(host.clone()).map_err(|_| UpstreamConfigError::Host { host: host.clone() })?;
        let trust = match mode {
            TlsMode::VerifyFull => Some(Trust::Full(ca.map_or(Roots::System, Roots::File))),
            TlsMode::Require => Some(Trust::EncryptOnly),
            TlsMode::Off if is_loopback_name(&host) => None,
            TlsMode::Off => return Err(UpstreamConfigError::PlainText { host }),
        };
        let tls = match trust {
            None => None,
            Some(trust) => {
                let client = client_config_as(&trust, &[ALPN_POSTGRESQL], certificate.as_ref()).map_err(Box::new)?;
                Some(UpstreamTls { client, server_name })
            }
        };
        let cancels = Arc::new(Semaphore::new(CANCELS_AT_ONCE_MAX));
        Ok(Self { host, port, database, mode, tls, transport: Transport::default(), cancels })
    }

    #[must_use]
    pub fn with_transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The same server, another database of it.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Waits for one of the connections that cancel requests may have.
    pub(super) async fn cancel_slot(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed: a failure would be a bug, and then there is no bound rather than no cancel.
        self.cancels.acquire().await.ok()
    }

    pub(super) fn tls(&self) -> Option<&UpstreamTls> {
        self.tls.as_ref()
    }
}

impl fmt::Debug for UpstreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamConfig({}:{}/{} tls {})", self.host, self.port, self.database, self.mode)
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VerifyFull => "verify-full",
            Self::Require => "require",
            Self::Off => "off",
        })
    }
}

/// The name alone; the address it resolves to is checked again when connecting.
fn is_loopback_name(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The weakest proof a login accepts from its server and gives to it. SCRAM, bound to the channel where there is one, is
/// always tried first by a server that knows it; what is weaker is for servers that do not, over a verified channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoginAuth {
    #[default]
    Scram,
    Md5,
    /// The password itself.
    Password,
    /// The server asks for nothing but the client certificate.
    Cert,
    /// The server asks for nothing.
    Trust,
}

impl LoginAuth {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scram => "scram",
            Self::Md5 => "md5",
            Self::Password => "password",
            Self::Cert => "cert",
            Self::Trust => "trust",
        }
    }

    pub fn needs_password(self) -> bool {
        match self {
            Self::Scram | Self::Md5 | Self::Password => true,
            Self::Cert | Self::Trust => false,
        }
    }
}

/// A database login and the principals it is for. An entry without conditions is for everyone.
#[derive(Debug, Clone)]
pub struct LoginConfig {
    /// At least one of these, unless empty.
    pub groups: Vec<String>,
    /// All of these, as rules match claims: the claim equals the value, or is a list that contains it.
    pub claims: Map<String, Value>,
    pub user: String,
    /// Sent as the startup parameter `role`.
    pub role: Option<String>,
    pub auth: LoginAuth,
    /// `None` only where `auth` needs none.
    pub password: Option<SecretSource>,
}

impl LoginConfig {
    fn is_for(&self, principal: &Principal) -> bool {
        let by_group = self.groups.is_empty() || self.groups.iter().any(|group| principal.groups.contains(group));
        by_group && self.claims.iter().all(|(name, wanted)| has_claim(principal, name, wanted))
    }
}

fn has_claim(principal: &Principal, name: &str, wanted: &Value) -> bool {
    match principal.claims.get(name) {
        None => false,
        Some(Value::Array(items)) => items.contains(wanted),
        Some(found) => found == wanted,
    }
}

/// The first login whose conditions the principal meets. `None`: this target has no login for it.
pub fn choose_login<'a>(logins: &'a [LoginConfig], principal: &Principal) -> Option<&'a LoginConfig> {
    logins.iter().find(|login| login.is_for(principal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn principal(groups: &[&str], claims: Value) -> Principal {
        Principal {
            issuer: "https://idp.example.com".to_owned(),
            subject: "u".to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            claims: claims.as_object().unwrap().clone(),
            actor: None,
            kind: exeat_policy::PrincipalKind::Human,
            token_id: None,
            instance: std::collections::BTreeMap::new(),
        }
    }

    fn login(user: &str, groups: &[&str], claims: Value) -> LoginConfig {
        LoginConfig {
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            claims: claims.as_object().unwrap().clone(),
            user: user.to_owned(),
            role: None,
            auth: LoginAuth::Scram,
            password: Some(SecretSource::Env("UNUSED".to_owned())),
        }
    }

    #[test]
    fn the_first_login_whose_conditions_all_hold_is_taken() {
        let logins = [
            login("dpo", &["dpo", "audit"], json!({})),
            login("payments", &["agents"], json!({"team": "payments", "level": 2})),
            login("reader", &["agents"], json!({})),
        ];
        let user = |groups: &[&str], claims| choose_login(&logins, &principal(groups, claims)).map(|l| l.user.clone());
        assert_eq!(user(&["agents", "audit"], json!({})).as_deref(), Some("dpo"));
        let payments = json!({"team": ["core", "payments"], "level": 2});
        assert_eq!(user(&["agents"], payments.clone()).as_deref(), Some("payments"));
        assert_eq!(user(&["agents"], json!({"team": "payments"})).as_deref(), Some("reader"));
        assert_eq!(user(&["agents"], json!({"team": "payments2", "level": 2})).as_deref(), Some("reader"));
        assert_eq!(user(&["agents"], json!({"team": "payments", "level": "2"})).as_deref(), Some("reader"));
        assert_eq!(user(&["Agents"], payments), None);
        assert_eq!(user(&[], json!({})), None);
        let for_all = [login("all", &[], json!({}))];
        assert_eq!(choose_login(&for_all, &principal(&[], json!({}))).map(|l| l.user.as_str()), Some("all"));
        assert!(choose_login(&[], &principal(&["dpo"], json!({}))).is_none());
    }

    #[test]
    fn settings_that_cannot_work_or_would_not_protect_are_refused() {
        let new =
            |host: &str, mode, ca: Option<&str>| UpstreamConfig::new(host, 5432, "shop", mode, ca.map(PathBuf::from));
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            assert!(new(host, TlsMode::Off, None).is_ok(), "{host}");
        }
        for host in ["db.internal", "192.0.2.1", "localhost.example.com", "::ffff:192.0.2.1", "0.0.0.0"] {
            let error = new(host, TlsMode::Off, None).unwrap_err().to_string();
            assert!(error.contains(host) && error.contains("loopback"), "{error}");
        }
        assert!(new("db.internal", TlsMode::Require, None).is_ok());
        assert!(matches!(
            new("db.internal", TlsMode::Require, Some("ca.pem")),
            Err(UpstreamConfigError::UnusedCa { .. })
        ));
        assert!(matches!(new("/run/postgresql", TlsMode::Require, None), Err(UpstreamConfigError::Host { .. })));
        assert!(matches!(new("", TlsMode::VerifyFull, None), Err(UpstreamConfigError::Host { .. })));
        let error = new("db.internal", TlsMode::VerifyFull, Some("/nowhere/ca.pem")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
        assert!(matches!(
            UpstreamConfig::new("localhost", 5432, "", TlsMode::Off, None),
            Err(UpstreamConfigError::NoDatabase)
        ));
    }
}
