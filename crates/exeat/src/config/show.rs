//! The resolved configuration as a person or a program reads it: everything said, every default filled in, and of
//! a secret only where it is.

use std::path::Path;

use exeat_enforce::drift::Unclassified;
use exeat_proxy::config::{Databases, Keepalive, Listen, ListenAuth, ListenTls, Target};
use exeat_proxy::identity::{Algorithm, IssuerConfig, JwksSource};
use exeat_proxy::upstream::LoginConfig;
use exeat_store::auditors::Auditors;
use exeat_store::keys::KeySource;
use exeat_store::record::Durability;
use exeat_store::secret::SecretSource;
use exeat_store::state::StateSource;
use serde_json::{Map, Value, json};

use super::Config;
use super::audit::Audit;
use crate::archive::{ArchiveConfig, PlaceKind};
use crate::export::{ExportConfig, ExportKind, PostConfig, SyslogConfig, Transport};
use crate::notify::{Destination, Kind};

/// The whole configuration. Secrets appear as their source.
pub(crate) fn show(config: &Config) -> Value {
    let targets: Map<String, Value> =
        config.proxy.targets.iter().map(|(name, target)| (name.clone(), show_target(target))).collect();
    json!({
        "name": config.name,
        "data_dir": path(&config.data_dir),
        "keys": match &config.keys {
            KeySource::Folder(folder) => path(folder),
            KeySource::Master(source) => json!({"master": secret(source)}),
        },
        "store": match &config.store {
            StateSource::Embedded => json!("embedded"),
            StateSource::Postgres(source) => secret(source),
        },
        "listen": {
            "postgres": show_listen(&config.proxy.listen),
            "console": config.console.map(|address| json!({"address": address.to_string()})),
        },
        "console": {"roles": {
            "admin": config.roles.admin, "approver": config.roles.approver, "auditor": config.roles.auditor,
            "viewer": config.roles.viewer,
        }},
        "identity": config.identity.iter().map(show_issuer).collect::<Vec<_>>(),
        "targets": targets,
        "policy": {"path": path(&config.policy)},
        "notify": config.notify.iter().map(show_destination).collect::<Vec<_>>(),
        "audit": show_audit(&config.audit),
    })
}

fn show_audit(audit: &Audit) -> Value {
    json!({
        "durability": match audit.durability {
            Durability::Os => "os",
            Durability::Fsync => "fsync",
        },
        "results": {"rows": audit.results.rows, "bytes": audit.results.bytes},
        "sealed_originals": audit.auditors.is_some(),
        "auditors": audit.auditors.as_ref().map_or(0, Auditors::count),
        "archive": audit.archive.as_ref().map(show_archive),
        "require_archive": audit.require_archive.map(seconds),
        "retention": audit.retention.map(|retention| json!({
            "lines": retention.lines().map(seconds), "texts": seconds(retention.texts()),
        })),
        "export": audit.export.iter().map(show_export).collect::<Vec<_>>(),
    })
}

fn show_listen(listen: &Listen) -> Value {
    let limits = listen.limits;
    json!({
        "address": listen.address.to_string(),
        "tls": match &listen.tls {
            ListenTls::Off => json!("off"),
            ListenTls::Files { cert, key, client_ca } => {
                json!({"cert": path(cert), "key": path(key), "client_ca": client_ca.as_deref().map(path)})
            }
        },
        "auth": match listen.auth {
            ListenAuth::Password => "password",
            ListenAuth::OauthBearer => "oauthbearer",
        },
        "default_target": listen.default_target,
        "limits": {
            "connections": limits.connections,
            "unauthenticated": limits.unauthenticated,
            "per_principal": limits.per_principal,
            "per_source": limits.per_source,
            "failed_logins": format!("{}/min", limits.failed_logins_per_minute),
            "large_messages": limits.large_messages_bytes,
            "large_message_timeout": seconds(limits.large_message_timeout),
        },
        "keepalive": keepalive(listen.keepalive),
        "idle_timeout": listen.idle_timeout.map(seconds),
        "drain": seconds(listen.drain),
    })
}

fn show_archive(archive: &ArchiveConfig) -> Value {
    let mut shown = json!({"url": archive.place.url, "every": seconds(archive.every)});
    if let (PlaceKind::S3(s3), Value::Object(members)) = (&archive.place.kind, &mut shown) {
        members.insert("region".to_owned(), json!(s3.region));
        members.insert("endpoint".to_owned(), json!(s3.endpoint));
        members.insert("access_key".to_owned(), s3.access_key.as_ref().map_or(Value::Null, secret));
        members.insert("secret_key".to_owned(), s3.secret_key.as_ref().map_or(Value::Null, secret));
        members.insert("ca".to_owned(), s3.ca.as_deref().map_or(Value::Null, path));
    }
    shown
}

fn show_export(export: &ExportConfig) -> Value {
    let posted = |post: &PostConfig| {
        let headers: Map<String, Value> =
            post.headers.iter().map(|(name, value)| (name.clone(), secret(value))).collect();
        json!({"url": secret(&post.url), "headers": headers, "ca": post.ca.as_deref().map(path)})
    };
    let (kind, shown) = match &export.kind {
        ExportKind::Syslog(SyslogConfig { transport, host, port, ca }) => {
            let scheme = match transport {
                Transport::Tcp => "tcp",
                Transport::Tls => "tls",
                Transport::Udp => "udp",
            };
            ("syslog", json!({"address": format!("{scheme}://{host}:{port}"), "ca": ca.as_deref().map(path)}))
        }
        ExportKind::Http(post) => ("http", posted(post)),
        ExportKind::Otlp(post) => ("otlp", posted(post)),
    };
    json!({"name": export.name, kind: shown})
}

fn show_destination(destination: &Destination) -> Value {
    let Destination { name, kind, url, ca } = destination;
    let ca = ca.as_deref().map(path);
    match kind {
        Kind::Webhook { secret: key } => {
            json!({"name": name, "webhook": {"url": secret(url), "secret": secret(key), "ca": ca}})
        }
        Kind::Slack => json!({"name": name, "slack": {"url": secret(url), "ca": ca}}),
    }
}

fn show_issuer(issuer: &IssuerConfig) -> Value {
    json!({
        "issuer": issuer.issuer,
        "audience": issuer.audience,
        "groups": issuer.groups.to_string(),
        "keys": match &issuer.jwks {
            JwksSource::Discovery => json!("discovery"),
            JwksSource::File(file) => json!({"jwks_file": path(file)}),
        },
        "kind": issuer.kind.map(|kind| match kind {
            exeat_policy::PrincipalKind::Human => "human",
            exeat_policy::PrincipalKind::Workload => "workload",
        }),
        "algorithms": issuer.algorithms.iter().map(|algorithm| Algorithm::name(*algorithm)).collect::<Vec<_>>(),
        "ca": issuer.ca.as_deref().map(path),
        "max_stale": seconds(issuer.max_stale),
        "session_max": issuer.session_max.map(seconds),
        "allow_id_tokens": issuer.allow_id_tokens,
        "scope": issuer.scope,
    })
}

fn show_target(target: &Target) -> Value {
    let upstream = &target.upstream;
    json!({"postgres": {
        "host": upstream.host(),
        "port": upstream.port(),
        "database": match target.databases {
            Databases::One => upstream.database(),
            Databases::Every => "*",
        },
        "probe_database": upstream.database(),
        "tls": upstream.mode().to_string(),
        "logins": target.logins.iter().map(show_login).collect::<Vec<_>>(),
        "connect_timeout": milliseconds(upstream.transport().connect_timeout),
        "keepalive": keepalive(upstream.transport().keepalive),
        "statement_timeout": target.statement_timeout.map(milliseconds),
        "catalog": match target.catalog_strict {
            true => json!("strict"),
            false => json!({"bounded": milliseconds(target.catalog_bound)}),
        },
        "allow_newer_server": target.allow_newer_server,
        "allow_privileged_login": target.allow_privileged_login,
        "held_max": target.held_max,
        "unclassified": match target.unclassified {
            Unclassified::Seal => "seal",
            Unclassified::Detect => "detect",
            Unclassified::Allow => "allow",
        },
        "trust": {
            "functions": names(&target.trust.functions),
            "views": names(&target.trust.views),
            "triggers": names(&target.trust.triggers),
            "policies": names(&target.trust.policies),
        },
        "declassify": names(&target.trust.declassify),
        "channels": target.channels,
    }})
}

fn names<T: ToString>(names: &[T]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn show_login(login: &LoginConfig) -> Value {
    let mut shown = Map::new();
    if !login.groups.is_empty() {
        shown.insert("groups".to_owned(), json!(login.groups));
    }
    if !login.claims.is_empty() {
        shown.insert("claims".to_owned(), json!(login.claims));
    }
    shown.insert("user".to_owned(), json!(login.user));
    if let Some(role) = &login.role {
        shown.insert("role".to_owned(), json!(role));
    }
    shown.insert("auth".to_owned(), json!(login.auth.as_str()));
    if let Some(password) = &login.password {
        shown.insert("password".to_owned(), secret(password));
    }
    Value::Object(shown)
}

/// Where a secret is. A command's arguments may hold what should not be shown: its program only.
fn secret(source: &SecretSource) -> Value {
    match source {
        SecretSource::Env(name) => json!({"env": name}),
        SecretSource::File(file) => json!({"file": path(file)}),
        SecretSource::Command(argv) => json!({"command": [argv.first().map_or("", String::as_str), "…"]}),
    }
}

fn path(path: &Path) -> Value {
    json!(path.display().to_string())
}

fn keepalive(keepalive: Keepalive) -> Value {
    json!({
        "idle": seconds(keepalive.idle),
        "interval": seconds(keepalive.interval),
        "count": keepalive.count,
        "user_timeout": keepalive.user_timeout.map(seconds),
    })
}

fn milliseconds(duration: std::time::Duration) -> Value {
    json!(format!("{}ms", duration.as_millis()))
}

fn seconds(duration: std::time::Duration) -> Value {
    json!(format!("{}s", duration.as_secs()))
}
