//! The configuration's reader: what a good file becomes, and each way of being wrong.

mod schemas;

use std::num::NonZeroUsize;
use std::time::Duration;

use exeat_enforce::drift::Unclassified;
use exeat_proxy::config::{Databases, Keepalive, ListenTls};
use exeat_proxy::upstream::TlsMode;
use exeat_store::record::Durability;
use exeat_store::secret::SecretSource;
use exeat_store::state::StateSource;
use serde_json::json;

use super::*;

/// The smallest configuration that serves anybody.
const SMALL: &str = "\
listen:
  postgres: {address: '127.0.0.1:6432', tls: off}
identity:
  - {issuer: https://idp.example.com, audience: exeat}
targets:
  shop:
    postgres:
      host: localhost
      database: shop
      tls: off
      logins:
        - {user: shop_reader, password: {env: SHOP_PASSWORD}}
policy: {path: policy.yaml}
";

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse("exeat.yaml", text, Path::new("/etc/exeat"))
}

/// `from` replaced by `to` in the small configuration, which must make a difference.
fn changed(from: &str, to: &str) -> Result<Config, Diagnostics> {
    assert!(SMALL.contains(from), "{from:?} is not in the sample");
    parse(&SMALL.replace(from, to))
}

#[track_caller]
fn refused(from: &str, to: &str, expected: &str) {
    let text = changed(from, to).unwrap_err().to_string();
    assert!(text.contains(expected), "expected {expected:?} in:\n{text}");
}

#[test]
fn the_small_configuration_has_its_defaults_filled_in() {
    let config = parse(SMALL).unwrap();
    assert_eq!(config.name, "exeat");
    assert_eq!(config.data_dir, Path::new("/etc/exeat/data"));
    assert_eq!(config.policy, Path::new("/etc/exeat/policy.yaml"));
    assert!(matches!(&config.keys, KeySource::Folder(folder) if folder == Path::new("/etc/exeat/keys")));
    assert_eq!(config.audit.durability, Durability::Os);
    assert_eq!(config.console, None);
    assert_eq!(config.proxy.listen.limits.connections, 1000);
    let target = &config.proxy.targets["shop"];
    assert_eq!((target.upstream.port(), target.upstream.mode()), (5432, TlsMode::Off));
    assert_eq!(target.catalog_bound, Duration::from_secs(1));
    assert!(!target.allow_newer_server && !target.allow_privileged_login);
    assert_eq!(target.logins[0].password, Some(SecretSource::Env("SHOP_PASSWORD".to_owned())));
    assert_eq!(config.policy_context().default_issuer.as_deref(), Some("https://idp.example.com"));
}

#[test]
fn the_example_in_the_documentation_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/examples/exeat.yaml")).unwrap();
    // The example's certificate authority is a file of its reader's.
    let config = parse(&text.replace("      ca: db-ca.crt\n", "")).unwrap();
    assert_eq!(config.proxy.targets["shop"].logins.len(), 3);
    assert!(matches!(config.proxy.listen.tls, ListenTls::Files { .. }));
    let shown = show(&config).to_string();
    assert!(shown.contains("SHOP_DPO_PASSWORD") && shown.contains("/run/secrets/shop"), "{shown}");
}

#[test]
fn what_the_readme_shows_loads() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let block = |name: &str| {
        let start = format!("```yaml\n# {name}\n");
        let rest = readme.split(&start).nth(1).unwrap_or_else(|| panic!("README.md shows no {name}"));
        rest.split("```").next().unwrap().to_owned()
    };
    let config = parse(&block("exeat.yaml")).unwrap();
    let policy = vec![("policy.yaml".to_owned(), block("policy.yaml"))];
    let policy = exeat_policy::Policy::load(&policy, &config.policy_context()).unwrap();
    assert!(policy.warnings().is_empty(), "{}", policy.warnings());
    assert_eq!(policy.rules().len(), 3);
}

#[test]
fn five_mistakes_are_reported_at_once_in_order() {
    let text = SMALL
        .replace("tls: off}", "tsl: off}")
        .replace("audience: exeat", "audiense: exeat")
        .replace("database: shop", "database: 7")
        .replace("user: shop_reader", "user: ''")
        .replace("{path: policy.yaml}", "{file: policy.yaml}");
    let diags = parse(&text).unwrap_err();
    let lines: Vec<usize> = diags.iter().map(|diagnostic| diagnostic.line).collect();
    assert!(lines.is_sorted(), "{diags}");
    for line in [2, 4, 9, 12, 13] {
        assert!(lines.contains(&line), "nothing about line {line} in:\n{diags}");
    }
    assert!(diags.to_string().contains("did you mean `tls`?"), "{diags}");
}

#[test]
fn tls_may_be_off_on_loopback_only() {
    refused("127.0.0.1:6432", "0.0.0.0:6432", "`tls: off` is for loopback addresses only");
    refused("host: localhost", "host: db.internal", "tls: off is for loopback only");
    assert!(changed("127.0.0.1:6432", "[::1]:6432").is_ok());
}

#[test]
fn a_literal_secret_is_refused_and_not_shown() {
    for literal in ["hunter2", "{hunter2: x, env: A}", "[hunter2]", "{env: A, file: hunter2}"] {
        let text = changed("{env: SHOP_PASSWORD}", literal).unwrap_err().to_string();
        assert!(
            text.contains("env, file and command") || text.contains("{env: NAME}") || text.contains("unknown key"),
            "{text}"
        );
        if literal == "hunter2" {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}

#[test]
fn secrets_come_from_files_and_commands_too() {
    let file = changed("{env: SHOP_PASSWORD}", "{file: secrets/shop}").unwrap();
    let password = &file.proxy.targets["shop"].logins[0].password;
    assert_eq!(*password, Some(SecretSource::File("/etc/exeat/secrets/shop".into())));
    let command = changed("{env: SHOP_PASSWORD}", "{command: [vault, read, read]}").unwrap();
    let password = &command.proxy.targets["shop"].logins[0].password;
    let vault = ["vault", "read", "read"].map(str::to_owned).to_vec();
    assert_eq!(*password, Some(SecretSource::Command(vault)));
    // Arguments of a command are not shown: they may be as secret as what it prints.
    assert!(!show(&command).to_string().contains("\"read\""));
}

#[test]
fn what_is_not_accepted_is_sealed_and_nobody_may_accept_unless_said_otherwise() {
    let config = changed("policy:", "store: embedded\npolicy:").unwrap();
    assert_eq!(config.proxy.targets["shop"].unclassified, Unclassified::Seal);
    assert_eq!(config.roles, ConsoleRoles::default());
    let said = "      host: localhost\n      unclassified: allow\n";
    let config = changed("      host: localhost\n", said).unwrap();
    assert_eq!(config.proxy.targets["shop"].unclassified, Unclassified::Allow);
    let config = changed("policy:", "console: {roles: {admin: [ops]}}\npolicy:").unwrap();
    assert_eq!(config.roles.admin, ["ops"]);
    refused("      host: localhost\n", "      host: localhost\n      unclassified: open\n", "`open`");
    refused("policy:", "console: {roles: {admins: [ops]}}\npolicy:", "`admins`");
}

#[test]
fn what_the_operator_vouches_for_is_named_with_all_its_parts() {
    let with = |text: &str| changed("      host: localhost\n", &format!("      host: localhost\n      {text}\n"));
    let said = "trust: {functions: ['public.slugify(text)'], triggers: [public.t.audit]}\n      declassify: ['r.v.*']";
    let config = with(said).unwrap();
    let trust = &config.proxy.targets["shop"].trust;
    assert_eq!((trust.functions.len(), trust.triggers.len(), trust.declassify.len()), (1, 1, 1));
    let shown = show(&config).to_string();
    assert!(shown.contains("public.slugify(text)") && shown.contains("r.v.*"), "{shown}");
    for (wrong, said) in [
        ("trust: {functions: [slugify]}", "schema.name(type, type)"),
        ("trust: {views: [v]}", "2 parts"),
        ("trust: {trigger: []}", "`trigger`"),
        ("declassify: ['v.c']", "3 parts"),
    ] {
        refused("      host: localhost\n", &format!("      host: localhost\n      {wrong}\n"), said);
    }
}

#[test]
fn originals_are_kept_for_somebody_or_not_at_all() {
    let key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let with = |audit: &str| format!("audit: {audit}\npolicy:");
    let config = changed("policy:", &with(&format!("{{sealed_originals: true, auditors: [{key}]}}"))).unwrap();
    assert_eq!(config.audit.auditors.as_ref().map(|auditors| auditors.count()), Some(1));
    assert_eq!(show(&config)["audit"]["sealed_originals"], true);
    assert!(changed("policy:", &with("{sealed_originals: false}")).unwrap().audit.auditors.is_none());
    for (audit, said) in [
        ("{sealed_originals: true}".to_owned(), "needs `auditors`"),
        (format!("{{auditors: [{key}]}}"), "without `sealed_originals: true`"),
        (format!("{{sealed_originals: true, auditors: [{key}x]}}"), "not the public half of an age key"),
        ("{sealed_originals: true, auditors: []}".to_owned(), "auditors"),
    ] {
        refused("policy:", &with(&audit), said);
    }
    let secret = "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SSDRZ0H";
    let problem = changed("policy:", &with(&format!("{{sealed_originals: true, auditors: [{secret}]}}"))).unwrap_err();
    assert!(!problem.to_string().contains("QQQSY"), "{problem}");
}

#[test]
fn the_store_is_embedded_or_at_an_address_that_stands_elsewhere() {
    assert_eq!(changed("policy:", "policy:").unwrap().store, StateSource::Embedded);
    let config = changed("policy:", "store: {env: EXEAT_STORE_URL}\npolicy:").unwrap();
    assert_eq!(config.store, StateSource::Postgres(SecretSource::Env("EXEAT_STORE_URL".to_owned())));
    assert!(show(&config).to_string().contains(r#""store":{"env":"EXEAT_STORE_URL"}"#));
    let refusal = "`store` is neither `embedded` nor the source of an address";
    refused("policy:", "store: 'postgres://u:hunter2@db/x'\npolicy:", refusal);
    refused("policy:", "store: [embedded]\npolicy:", refusal);
    refused("policy:", "store: {url: x}\npolicy:", "`url`");
}

#[test]
fn messages_go_where_a_secret_says_and_each_place_has_its_name() {
    let with = |notify: &str| format!("notify:\n{notify}policy:");
    assert_eq!(changed("policy:", "policy:").unwrap().notify, []);
    let hook = "  - webhook: {url: {env: HOOK}, secret: {env: HOOK_SECRET}, ca: ca.pem}\n";
    let config =
        changed("policy:", &with(&format!("{hook}  - slack: {{url: {{env: CHAT}}}}\n    name: ops\n"))).unwrap();
    let names: Vec<&str> = config.notify.iter().map(|destination| destination.name.as_str()).collect();
    assert_eq!(names, ["webhook", "ops"]);
    assert_eq!(config.notify[0].ca.as_deref(), Some(Path::new("/etc/exeat/ca.pem")));
    assert_eq!(show(&config)["notify"][0]["webhook"]["secret"], serde_json::json!({"env": "HOOK_SECRET"}));
    for (wrong, said) in [
        (format!("{hook}{hook}"), "have the name \"webhook\""),
        ("  - webhook: {url: {env: HOOK}}\n".to_owned(), "lacks the key `secret`"),
        ("  - slack: {url: 'https://hooks.example.com/token'}\n".to_owned(), "names no source of a secret"),
        ("  - {name: x}\n".to_owned(), "one kind of destination"),
        ("  - {slack: {url: {env: A}}, webhook: {url: {env: A}, secret: {env: B}}}\n".to_owned(), "one kind"),
        ("  - {slack: {url: {env: A}}, name: 'a b'}\n".to_owned(), "no name for a destination"),
        ("  - {mail: {to: x}}\n".to_owned(), "`mail`"),
    ] {
        refused("policy:", &with(&wrong), said);
    }
    let secret = changed("policy:", &with("  - slack: {url: 'https://hooks.example.com/token'}\n")).unwrap_err();
    assert!(!secret.to_string().contains("hooks.example.com"), "{secret}");
}

#[test]
fn retention_names_how_long_lines_and_texts_are_kept_and_texts_never_longer() {
    let with = |retention: &str| format!("audit: {{retention: {retention}}}\npolicy:");
    assert!(changed("policy:", &with("{lines: 1d}")).unwrap().audit.retention.is_some());
    for (retention, lines, texts) in [
        ("{lines: 400d, texts: 90d}", json!("34560000s"), json!("7776000s")),
        ("{lines: 2d}", json!("172800s"), json!("172800s")),
        ("{texts: 5s}", json!(null), json!("5s")),
    ] {
        let config = changed("policy:", &with(retention)).unwrap();
        assert_eq!(show(&config)["audit"]["retention"], json!({"lines": lines, "texts": texts}));
    }
    for (retention, said) in [
        ("{}", "neither how long `lines` are kept"),
        ("{lines: 1d, texts: 2d}", "longer than the `lines`"),
        ("{lines: 999ms}", "must be from"),
        ("{texts: 1d, rows: 1d}", "rows"),
    ] {
        refused("policy:", &with(retention), said);
    }
}

#[test]
fn how_much_of_an_answer_is_kept_has_a_default_and_bounds() {
    let with = |results: &str| format!("audit: {{results: {results}}}\npolicy:");
    let limits = |results: &str| {
        let limits = changed("policy:", &with(results)).unwrap().audit.results;
        (limits.rows, limits.bytes)
    };
    assert_eq!(limits("{}"), (1000, 1024 * 1024));
    assert_eq!(limits("{rows: 0}"), (0, 1024 * 1024));
    assert_eq!(limits("{rows: 5, bytes: 64KiB}"), (5, 64 * 1024));
    for (wrong, said) in [("{rows: -1}", "rows"), ("{bytes: 5}", "a size such as"), ("{cells: 5}", "`cells`")] {
        refused("policy:", &with(wrong), said);
    }
}

#[test]
fn what_later_versions_know_is_refused_by_name() {
    for (from, to, key) in [
        ("listen:\n", "listen:\n  http: {address: '127.0.0.1:1', tls: off}\n", "`http`"),
        ("      host: localhost\n", "      host: localhost\n      mode: observe\n", "`mode`"),
        ("{path: policy.yaml}", "{path: policy.yaml, store: true}", "`store`"),
    ] {
        refused(from, to, &format!("{key} is not supported by this version"));
    }
    let strict = parse(&SMALL.replace("      tls: off\n", "      tls: off\n      catalog: strict\n")).unwrap();
    assert!(strict.proxy.targets["shop"].catalog_strict);
    refused("      tls: off\n", "      tls: off\n      catalog: lax\n", "a mapping");
    assert!(changed("policy:", "store: embedded\npolicy:").is_ok());
}

#[test]
fn a_target_may_stand_for_every_database_of_its_server() {
    let upstream = |config: Config| {
        let target = &config.proxy.targets["shop"];
        (target.databases, target.upstream.database().to_owned())
    };
    let every = changed("database: shop", "database: '*'").unwrap();
    assert_eq!(show(&every)["targets"]["shop"]["postgres"]["database"], "*");
    assert_eq!(upstream(every), (Databases::Every, "postgres".to_owned()));
    let probed = changed("database: shop", "database: '*'\n      probe_database: ops").unwrap();
    assert_eq!(show(&probed)["targets"]["shop"]["postgres"]["probe_database"], "ops");
    assert_eq!(upstream(probed), (Databases::Every, "ops".to_owned()));
    assert_eq!(upstream(parse(SMALL).unwrap()), (Databases::One, "shop".to_owned()));
    refused("database: shop", "database: shop\n      probe_database: ops", "is for `database: \"*\"` only");
    refused("database: shop", "database: '*'\n      probe_database: ''", "`probe_database` is empty");
}

#[test]
fn numbers_have_limits_and_the_message_says_them() {
    refused("tls: off}", "tls: off, limits: {connections: 0}}", "from 1 to 100000");
    refused("tls: off}", "tls: off, limits: {failed_logins: 20}}", "such as 20/min");
    refused("tls: off}", "tls: off, limits: {large_messages: 64MiB}}", "from 65MiB");
    refused("      host: localhost\n", "      host: localhost\n      port: 70000\n", "from 1 to 65535");
    refused("      tls: off\n", "      tls: off\n      catalog: {bounded: 2h}\n", "it must be from 100ms to 60s");
    refused("tls: off}", "tls: off, keepalive: {idle: 10ms}}", "from 1s to 7200s");
    refused("tls: off}", "tls: off, keepalive: {count: 0}}", "from 1 to 100");
    refused("tls: off}", "tls: off, drain: 2h}", "from 0ns to 3600s");
    refused("tls: off}", "tls: off, threads: 0}", "from 1 to 1024");
    refused("tls: off}", "tls: off, idle_timeout: 1ms}", "from 1s to 86400s");
    refused("      tls: off\n", "      tls: off\n      connect_timeout: 5m\n", "from 100ms to 60s");
    let config =
        changed("tls: off}", "tls: off, limits: {per_source: 7, failed_logins: 3/min, large_messages: 65MiB}}")
            .unwrap();
    assert_eq!(config.proxy.listen.limits.large_messages_bytes, 65 << 20);
    assert_eq!(config.proxy.listen.limits.per_source, 7);
    assert_eq!(config.proxy.listen.limits.failed_logins_per_minute, 3);
}

#[test]
fn times_have_defaults_and_each_side_its_own() {
    let defaults = parse(SMALL).unwrap().proxy;
    let keepalive = Keepalive::default();
    assert_eq!((defaults.listen.keepalive, defaults.listen.idle_timeout), (keepalive, None));
    assert_eq!(defaults.listen.drain, Duration::from_secs(60));
    assert_eq!(defaults.targets["shop"].upstream.transport().keepalive, keepalive);
    assert_eq!(defaults.targets["shop"].statement_timeout, None);

    let listen =
        changed("tls: off}", "tls: off, keepalive: {idle: 7s}, idle_timeout: 10m, drain: 5s, threads: 3}").unwrap();
    let shown = show(&listen)["listen"]["postgres"].clone();
    assert_eq!((&shown["idle_timeout"], &shown["drain"]), (&"600s".into(), &"5s".into()));
    let listen = listen.proxy;
    assert_eq!(listen.listen.threads, NonZeroUsize::new(3));
    assert_eq!(listen.listen.keepalive, Keepalive { idle: Duration::from_secs(7), ..keepalive });
    assert_eq!(listen.targets["shop"].upstream.transport().keepalive, keepalive);

    let times = "      connect_timeout: 2s\n      statement_timeout: 30s\n      keepalive: {user_timeout: 90s}\n";
    let target =
        changed("      tls: off\n", &format!("      tls: off\n{times}")).unwrap().proxy.targets["shop"].clone();
    assert_eq!(target.statement_timeout, Some(Duration::from_secs(30)));
    let transport = target.upstream.transport();
    assert_eq!(transport.connect_timeout, Duration::from_secs(2));
    assert_eq!(transport.keepalive.user_timeout, Some(Duration::from_secs(90)));
}

#[test]
fn a_login_behind_one_for_everyone_is_never_reached() {
    let second = "        - {user: shop_reader, password: {env: SHOP_PASSWORD}}\n";
    let shadowed = format!("{second}        - {{groups: [dpo], user: dpo, password: {{env: DPO}}}}\n");
    refused(second, &shadowed, "never reached");
    let ordered = format!("        - {{groups: [dpo], user: dpo, password: {{env: DPO}}}}\n{second}");
    assert_eq!(changed(second, &ordered).unwrap().proxy.targets["shop"].logins.len(), 2);
}

#[test]
fn names_must_exist_and_be_names() {
    refused("tls: off}", "tls: off, default_target: shoop}", "did you mean `shop`?");
    refused("  shop:\n", "  'sh op':\n", "no name for a target");
    refused("- {issuer", "- {algorithms: [HS256], issuer", "has no choice `HS256`");
    refused("127.0.0.1:6432", "localhost:6432", "an IP address and a port");
}

#[test]
fn nobody_to_let_in_and_nothing_behind_are_mistakes() {
    refused("  - {issuer: https://idp.example.com, audience: exeat}\n", "  []\n", "`identity` is empty");
    refused("        - {user: shop_reader, password: {env: SHOP_PASSWORD}}\n", "        []\n", "`logins` is empty");
    refused("password: {env: SHOP_PASSWORD}}", "password: {env: SHOP_PASSWORD}, auth: md4}", "md5");
    refused("password: {env: SHOP_PASSWORD}}", "auth: md5}", "password");
    refused("password: {env: SHOP_PASSWORD}}", "password: {env: SHOP_PASSWORD}, auth: trust}", "password");
    let trusting = changed("password: {env: SHOP_PASSWORD}}", "auth: trust}").unwrap();
    assert_eq!(trusting.proxy.targets["shop"].logins[0].password, None);
}
