//! `listen:` — the data plane's address, its TLS and limits, and the console's address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use exeat_policy::document::{MappingReader, Node, Value, closest};
use exeat_proxy::config::{ConnectionLimits, LARGE_MESSAGES_BYTES_MIN, Listen, ListenAuth, ListenTls, Target};

use super::Reading;
use super::identity::optional;

const LISTEN_KEYS_UNSUPPORTED: &[&str] = &["http"];
const LISTEN_AUTH: &[(&str, ListenAuth)] =
    &[("password", ListenAuth::Password), ("oauthbearer", ListenAuth::OauthBearer)];

/// Upper bound of configurable connection counts: beyond it file descriptors and memory give out first.
const CONNECTIONS_MAX: i64 = 100_000;
const FAILED_LOGINS_MAX: u32 = 100_000;

/// More than any machine has cores to run them on.
const THREADS_MAX: i64 = 1024;
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
/// More memory than machines have.
const LARGE_MESSAGES_BYTES_MAX: usize = 1 << 40;
const LARGE_MESSAGE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
/// Service managers kill what has not ended within some 90 s.
const DRAIN_DEFAULT: Duration = Duration::from_secs(60);
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

impl Reading<'_> {
    pub(super) fn listen(
        &mut self,
        node: &Node,
        targets: Option<&BTreeMap<String, Target>>,
    ) -> Option<(Listen, Option<SocketAddr>)> {
        let mut reader = node.mapping(&mut self.diags)?;
        let postgres =
            reader.required("postgres", &mut self.diags).and_then(|node| self.listen_postgres(node, targets));
        let console = reader.optional("console").map(|node| self.listen_console(node));
        reader.unsupported(LISTEN_KEYS_UNSUPPORTED, &mut self.diags);
        reader.finish(&mut self.diags);
        match console {
            None => Some((postgres?, None)),
            Some(console) => Some((postgres?, Some(console?))),
        }
    }

    fn listen_console(&mut self, node: &Node) -> Option<SocketAddr> {
        let mut reader = node.mapping(&mut self.diags)?;
        let address = reader.required("address", &mut self.diags).and_then(|node| self.address(node));
        reader.finish(&mut self.diags);
        address
    }

    fn listen_postgres(&mut self, node: &Node, targets: Option<&BTreeMap<String, Target>>) -> Option<Listen> {
        let mut reader = node.mapping(&mut self.diags)?;
        let address = reader.required("address", &mut self.diags).and_then(|node| self.address(node));
        let tls = reader.required("tls", &mut self.diags).and_then(|node| self.listen_tls(node, address));
        let auth = match reader.optional("auth") {
            None => Some(ListenAuth::default()),
            Some(node) => node.one_of(LISTEN_AUTH, &mut self.diags),
        };
        let default_target = self.default_target(&mut reader, targets);
        let limits = match reader.optional("limits") {
            None => Some(ConnectionLimits::default()),
            Some(node) => self.limits(node),
        };
        let keepalive = self.keepalive(&mut reader);
        let idle_timeout = self.optional_duration(&mut reader, "idle_timeout", IDLE_TIMEOUT);
        let drain = self.optional_duration(&mut reader, "drain", DRAIN);
        let threads = optional(&mut reader, "threads", |node| {
            node.as_integer(1..=THREADS_MAX, &mut self.diags).and_then(|count| count.try_into().ok())
        });
        reader.finish(&mut self.diags);
        Some(Listen {
            address: address?,
            tls: tls?,
            auth: auth?,
            default_target: default_target?,
            limits: limits?,
            keepalive: keepalive?,
            threads: threads?.and_then(NonZeroUsize::new),
            idle_timeout: idle_timeout?,
            drain: drain?.unwrap_or(DRAIN_DEFAULT),
        })
    }

    /// `{cert, key}`, or `off` where the listener is out of reach of others.
    fn listen_tls(&mut self, node: &Node, address: Option<SocketAddr>) -> Option<ListenTls> {
        match &node.value {
            Value::String(text) if text == "off" => {
                // An address that could not be read has been reported already.
                if address.is_some_and(|address| !address.ip().is_loopback()) {
                    self.diags
                        .error(&node.span, "`tls: off` is for loopback addresses only")
                        .help("tokens would cross the network in clear; give tls: {cert: FILE, key: FILE}, or listen on 127.0.0.1");
                    return None;
                }
                Some(ListenTls::Off)
            }
            Value::Mapping(_) => {
                let mut reader = node.mapping(&mut self.diags)?;
                let cert = reader.required("cert", &mut self.diags).and_then(|node| self.path(node));
                let key = reader.required("key", &mut self.diags).and_then(|node| self.path(node));
                let client_ca = optional(&mut reader, "client_ca", |node| self.path(node));
                reader.finish(&mut self.diags);
                Some(ListenTls::Files { cert: cert?, key: key?, client_ca: client_ca? })
            }
            _ => node.expected("{cert: FILE, key: FILE} or off", &mut self.diags),
        }
    }

    fn default_target(
        &mut self,
        reader: &mut MappingReader<'_>,
        targets: Option<&BTreeMap<String, Target>>,
    ) -> Option<Option<String>> {
        let Some(node) = reader.optional("default_target") else { return Some(None) };
        let name = node.as_string(&mut self.diags)?;
        // Targets that could not be read have been reported already; only their names are missing here.
        let targets = targets?;
        if targets.contains_key(name) {
            return Some(Some(name.to_owned()));
        }
        let help = match closest(name, targets.keys().map(String::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "name a key of `targets`".to_owned(),
        };
        self.diags.error(&node.span, format!("`default_target` names no target `{name}`")).help(help);
        None
    }

    fn limits(&mut self, node: &Node) -> Option<ConnectionLimits> {
        let default = ConnectionLimits::default();
        let mut reader = node.mapping(&mut self.diags)?;
        let connections = self.count(&mut reader, "connections", default.connections);
        let unauthenticated = self.count(&mut reader, "unauthenticated", default.unauthenticated);
        let per_principal = self.count(&mut reader, "per_principal", default.per_principal);
        let per_source = self.count(&mut reader, "per_source", default.per_source);
        let failed_logins = match reader.optional("failed_logins") {
            None => Some(default.failed_logins_per_minute),
            Some(node) => self.per_minute(node),
        };
        let large_messages = match reader.optional("large_messages") {
            None => Some(default.large_messages_bytes),
            Some(node) => self.large_messages(node),
        };
        let large_message_timeout = self.optional_duration(&mut reader, "large_message_timeout", LARGE_MESSAGE_TIMEOUT);
        reader.finish(&mut self.diags);
        Some(ConnectionLimits {
            connections: connections?,
            unauthenticated: unauthenticated?,
            per_principal: per_principal?,
            per_source: per_source?,
            failed_logins_per_minute: failed_logins?,
            large_messages_bytes: large_messages?,
            large_message_timeout: large_message_timeout?.unwrap_or(default.large_message_timeout),
        })
    }

    fn large_messages(&mut self, node: &Node) -> Option<usize> {
        let bytes = node.as_bytes(&mut self.diags)?;
        match usize::try_from(bytes) {
            Ok(bytes) if (LARGE_MESSAGES_BYTES_MIN..=LARGE_MESSAGES_BYTES_MAX).contains(&bytes) => Some(bytes),
            Ok(_) | Err(_) => {
                self.diags
                    .error(&node.span, format!("{} is {bytes} bytes, it must be from 65MiB to 1024GiB", node.subject()))
                    .help("the largest message of a client has 65 MiB");
                None
            }
        }
    }

    fn count(&mut self, reader: &mut MappingReader<'_>, key: &'static str, default: usize) -> Option<usize> {
        match reader.optional(key) {
            None => Some(default),
            Some(node) => node.as_integer(1..=CONNECTIONS_MAX, &mut self.diags).and_then(|n| n.try_into().ok()),
        }
    }

    /// `20/min`.
    fn per_minute(&mut self, node: &Node) -> Option<u32> {
        let count = match &node.value {
            Value::String(text) => text.strip_suffix("/min").and_then(|digits| digits.trim_end().parse().ok()),
            _ => None,
        };
        match count {
            Some(count @ 1..=FAILED_LOGINS_MAX) => Some(count),
            Some(_) | None => {
                node.expected(&format!("a rate from 1/min to {FAILED_LOGINS_MAX}/min, such as 20/min"), &mut self.diags)
            }
        }
    }

    /// An IP address and a port. Names are not resolved here: what is bound must not depend on a resolver.
    fn address(&mut self, node: &Node) -> Option<SocketAddr> {
        let text = node.as_string(&mut self.diags)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => node.expected("an IP address and a port, such as 127.0.0.1:6432 or [::1]:6432", &mut self.diags),
        }
    }
}
