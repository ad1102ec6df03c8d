//! `targets:` — the databases behind the gateway and the roles it logs in as.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use exeat_enforce::drift::Unclassified;
use exeat_policy::document::{Entry, MappingReader, Node, Value};
use exeat_proxy::config::{Databases, Target};
use exeat_proxy::tls::ClientCertificate;
use exeat_proxy::upstream::{
    LoginAuth, LoginConfig, TlsFiles, TlsMode, Transport, UpstreamConfig, UpstreamConfigError,
};
use exeat_sql::catalog::{QualifiedName, Trust, TrustError, TrustedFunction};

use super::Reading;
use super::identity::optional;

const TARGET_KEYS_UNSUPPORTED: &[&str] = &["http"];
const POSTGRES_KEYS_UNSUPPORTED: &[&str] = &["mode", "hide", "sealed_originals"];

/// Held statements that may wait for a human on their connections: each pins one to the server.
const HELD_MAX_DEFAULT: usize = 10;
const HELD_MAX_MAX: i64 = 10_000;

const TLS_MODES: &[(&str, TlsMode)] =
    &[("verify-full", TlsMode::VerifyFull), ("require", TlsMode::Require), ("off", TlsMode::Off)];

const UNCLASSIFIED: &[(&str, Unclassified)] =
    &[("seal", Unclassified::Seal), ("detect", Unclassified::Detect), ("allow", Unclassified::Allow)];

const LOGIN_AUTH: &[(&str, LoginAuth)] = &[
    ("scram", LoginAuth::Scram),
    ("md5", LoginAuth::Md5),
    ("password", LoginAuth::Password),
    ("cert", LoginAuth::Cert),
    ("trust", LoginAuth::Trust),
];

const DEFAULT_PORT: u16 = 5432;

/// As `database`: every database of the server.
const EVERY_DATABASE: &str = "*";
/// Every server has it unless somebody dropped it.
const PROBE_DATABASE_DEFAULT: &str = "postgres";

/// How old the knowledge of a catalog may be, unless configured.
const CATALOG_BOUND_DEFAULT: Duration = Duration::from_secs(1);
/// Beyond a minute a renamed column would go unnoticed for longer than an agent needs.
const CATALOG_BOUND: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// The server's own bounds: milliseconds in 31 bits.
const STATEMENT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24 * 24);

/// Longest name of a target: it is a database name on the client's side, which PostgreSQL cuts at 63 bytes.
const TARGET_NAME_BYTES_MAX: usize = 63;

impl Reading<'_> {
    pub(super) fn targets(&mut self, node: &Node) -> Option<BTreeMap<String, Target>> {
        let entries = node.entries(&mut self.diags)?;
        if entries.is_empty() {
            self.diags.error(&node.span, "`targets` is empty").help("add a database under a name of your choice");
            return None;
        }
        let read: Vec<Option<Target>> = entries.iter().map(|entry| self.target(entry)).collect();
        read.into_iter().map(|target| target.map(|target| (target.name.clone(), target))).collect()
    }

    fn target(&mut self, entry: &Entry) -> Option<Target> {
        let name = &entry.key;
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !plain || name.len() > TARGET_NAME_BYTES_MAX {
            let message = format!("`{name}` is no name for a target");
            let rule = format!("letters, digits, `_` and `-`, at most {TARGET_NAME_BYTES_MAX}");
            self.diags.error(&entry.key_span, message).help(rule);
            return None;
        }
        let mut reader = entry.value.mapping(&mut self.diags)?;
        reader.unsupported(TARGET_KEYS_UNSUPPORTED, &mut self.diags);
        let postgres = reader.required("postgres", &mut self.diags).and_then(|node| self.postgres(name, node));
        reader.finish(&mut self.diags);
        postgres
    }

    fn postgres(&mut self, name: &str, node: &Node) -> Option<Target> {
        let mut reader = node.mapping(&mut self.diags)?;
        let (databases, database) = self.databases(&mut reader).unzip();
        let upstream = self.upstream(&mut reader, database);
        let logins = reader.required("logins", &mut self.diags).and_then(|node| self.logins(node));
        let catalog = match reader.optional("catalog") {
            None => Some((CATALOG_BOUND_DEFAULT, false)),
            Some(node) => self.catalog(node),
        };
        let (catalog_bound, catalog_strict) = catalog.unzip();
        let transport = self.transport(&mut reader);
        let statement_timeout = self.optional_duration(&mut reader, "statement_timeout", STATEMENT_TIMEOUT);
        let allow_newer_server = self.switch(&mut reader, "allow_newer_server");
        let allow_privileged_login = self.switch(&mut reader, "allow_privileged_login");
        let held_max = match reader.optional("held_max") {
            None => Some(HELD_MAX_DEFAULT),
            Some(node) => node.as_integer(0..=HELD_MAX_MAX, &mut self.diags).and_then(|n| n.try_into().ok()),
        };
        let unclassified = match reader.optional("unclassified") {
            None => Some(Unclassified::default()),
            Some(node) => node.one_of(UNCLASSIFIED, &mut self.diags),
        };
        let trust = self.trust(&mut reader);
        let channels = match reader.optional("channels") {
            None => Some(Vec::new()),
            Some(node) => node.as_strings(&mut self.diags),
        };
        reader.unsupported(POSTGRES_KEYS_UNSUPPORTED, &mut self.diags);
        reader.finish(&mut self.diags);
        Some(Target {
            name: name.to_owned(),
            upstream: upstream?.with_transport(transport?),
            databases: databases?,
            logins: logins?,
            catalog_bound: catalog_bound?,
            catalog_strict: catalog_strict?,
            statement_timeout: statement_timeout?,
            allow_newer_server: allow_newer_server?,
            allow_privileged_login: allow_privileged_login?,
            held_max: held_max?,
            unclassified: unclassified?,
            trust: trust?,
            channels: channels?,
        })
    }

    /// `trust` and `declassify`: what the operator vouches for, by name.
    fn trust(&mut self, reader: &mut MappingReader<'_>) -> Option<Trust> {
        let named = |parts| move |text: &str| QualifiedName::parse(text, parts);
        let declassify = self.names(reader, "declassify", named(3));
        let Some(node) = reader.optional("trust") else {
            return Some(Trust { declassify: declassify?, ..Trust::default() });
        };
        let mut reader = node.mapping(&mut self.diags)?;
        let functions = self.names(&mut reader, "functions", TrustedFunction::parse);
        let views = self.names(&mut reader, "views", named(2));
        let triggers = self.names(&mut reader, "triggers", named(3));
        let policies = self.names(&mut reader, "policies", named(3));
        reader.finish(&mut self.diags);
        Some(Trust {
            functions: functions?,
            views: views?,
            triggers: triggers?,
            policies: policies?,
            declassify: declassify?,
        })
    }

    fn names<T>(
        &mut self,
        reader: &mut MappingReader<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, TrustError>,
    ) -> Option<Vec<T>> {
        let Some(node) = reader.optional(key) else { return Some(Vec::new()) };
        let items = node.as_list(&mut self.diags)?;
        let read: Vec<Option<T>> = items
            .iter()
            .map(|item| match parse(item.as_string(&mut self.diags)?) {
                Ok(name) => Some(name),
                Err(problem) => {
                    self.diags.error(&item.span, problem.to_string());
                    None
                }
            })
            .collect();
        read.into_iter().collect()
    }

    fn upstream(&mut self, reader: &mut MappingReader<'_>, database: Option<String>) -> Option<UpstreamConfig> {
        let place = reader.node();
        let host_node = reader.required("host", &mut self.diags);
        let host = host_node.and_then(|node| self.owned(node));
        let port = match reader.optional("port") {
            None => Some(DEFAULT_PORT),
            Some(node) => node.as_integer(1..=65535, &mut self.diags).and_then(|port| port.try_into().ok()),
        };
        let ca_node = reader.optional("ca");
        let ca = match ca_node {
            None => Some(None),
            Some(node) => self.path(node).map(Some),
        };
        let tls_node = reader.optional("tls");
        let tls = match tls_node {
            None => Some(TlsMode::VerifyFull),
            Some(node) => node.one_of(TLS_MODES, &mut self.diags),
        };
        let cert_node = reader.optional("client_cert");
        let certificate = match cert_node {
            None => Some(None),
            Some(node) => self.client_certificate(node).map(Some),
        };
        let files = TlsFiles { mode: tls?, ca: ca?, certificate: certificate? };
        match UpstreamConfig::with_certificate(host?, port?, database?, files) {
            Ok(upstream) => Some(upstream),
            Err(error) => {
                let wrong = match &error {
                    UpstreamConfigError::Host { .. } | UpstreamConfigError::NoDatabase => host_node,
                    UpstreamConfigError::PlainText { .. } => tls_node,
                    UpstreamConfigError::UnusedCertificate => cert_node,
                    UpstreamConfigError::UnusedCa { .. } | UpstreamConfigError::Tls(_) => ca_node.or(cert_node),
                };
                self.diags.error(&wrong.unwrap_or(place).span, error.to_string());
                None
            }
        }
    }

    fn client_certificate(&mut self, node: &Node) -> Option<ClientCertificate> {
        let mut reader = node.mapping(&mut self.diags)?;
        let cert = reader.required("cert", &mut self.diags).and_then(|node| self.path(node));
        let key = reader.required("key", &mut self.diags).and_then(|node| self.path(node));
        reader.finish(&mut self.diags);
        Some(ClientCertificate { cert: cert?, key: key? })
    }

    /// Which databases, and the one to log in to when no client names one.
    fn databases(&mut self, reader: &mut MappingReader<'_>) -> Option<(Databases, String)> {
        let database = reader.required("database", &mut self.diags).and_then(|node| self.owned(node));
        let probe_node = reader.optional("probe_database");
        let probe = match probe_node {
            None => Some(None),
            Some(node) => self.owned(node).map(Some),
        };
        match (database?, probe?) {
            (every, probe) if every == EVERY_DATABASE => {
                Some((Databases::Every, probe.unwrap_or_else(|| PROBE_DATABASE_DEFAULT.to_owned())))
            }
            (database, None) => Some((Databases::One, database)),
            (_, Some(_)) => {
                let place = probe_node.unwrap_or(reader.node());
                self.diags
                    .error(&place.span, "`probe_database` is for `database: \"*\"` only")
                    .help("remove it: the target's own database is probed");
                None
            }
        }
    }

    /// The bound, and whether every answer waits for another look.
    fn catalog(&mut self, node: &Node) -> Option<(Duration, bool)> {
        if matches!(&node.value, Value::String(text) if text == "strict") {
            return Some((CATALOG_BOUND_DEFAULT, true));
        }
        let mut reader = node.mapping(&mut self.diags)?;
        let bounded = reader.required("bounded", &mut self.diags);
        reader.finish(&mut self.diags);
        let node = bounded?;
        self.duration(node, CATALOG_BOUND).map(|bound| (bound, false))
    }

    fn transport(&mut self, reader: &mut MappingReader<'_>) -> Option<Transport> {
        let default = Transport::default();
        let keepalive = self.keepalive(reader);
        let connect_timeout = self.optional_duration(reader, "connect_timeout", CONNECT_TIMEOUT);
        Some(Transport { connect_timeout: connect_timeout?.unwrap_or(default.connect_timeout), keepalive: keepalive? })
    }

    fn switch(&mut self, reader: &mut MappingReader<'_>, key: &'static str) -> Option<bool> {
        match reader.optional(key) {
            None => Some(false),
            Some(node) => node.as_bool(&mut self.diags),
        }
    }

    fn logins(&mut self, node: &Node) -> Option<Vec<LoginConfig>> {
        let items = node.as_list(&mut self.diags)?;
        if items.is_empty() {
            self.diags.error(&node.span, "`logins` is empty: nobody could reach this target").help("add a login");
            return None;
        }
        let read: Vec<Option<LoginConfig>> = items.iter().map(|item| self.login(item)).collect();
        let logins: Vec<LoginConfig> = read.into_iter().collect::<Option<_>>()?;
        // First match wins: what stands behind a login for everyone is never reached.
        let everyone = logins.iter().position(|login| login.groups.is_empty() && login.claims.is_empty());
        if let Some(shadowed) = everyone.and_then(|index| items.get(index + 1)) {
            self.diags
                .error(&shadowed.span, "this login is never reached: one before it matches everyone")
                .hide_source()
                .help("put the login without `groups` and `claims` last");
            return None;
        }
        Some(logins)
    }

    fn login(&mut self, node: &Node) -> Option<LoginConfig> {
        let mut reader = node.mapping(&mut self.diags)?;
        let groups = match reader.optional("groups") {
            None => Some(Vec::new()),
            Some(node) => node.as_strings(&mut self.diags),
        };
        let claims = match reader.optional("claims") {
            None => Some(serde_json::Map::new()),
            Some(node) => self.claims(node),
        };
        let user = reader.required("user", &mut self.diags).and_then(|node| self.owned(node));
        let role = optional(&mut reader, "role", |node| self.owned(node));
        let auth = match reader.optional("auth") {
            None => Some(LoginAuth::default()),
            Some(node) => node.one_of(LOGIN_AUTH, &mut self.diags),
        };
        let password = if auth.is_some_and(|auth| !auth.needs_password()) {
            Some(None)
        } else {
            reader.required("password", &mut self.diags).and_then(|node| self.secret(node)).map(Some)
        };
        reader.finish(&mut self.diags);
        Some(LoginConfig {
            groups: groups?,
            claims: claims?,
            user: user?,
            role: role?,
            auth: auth?,
            password: password?,
        })
    }

    fn claims(&mut self, node: &Node) -> Option<serde_json::Map<String, serde_json::Value>> {
        let entries = node.entries(&mut self.diags)?;
        Some(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
    }

    fn owned(&mut self, node: &Node) -> Option<String> {
        node.as_string(&mut self.diags).map(str::to_owned)
    }
}
