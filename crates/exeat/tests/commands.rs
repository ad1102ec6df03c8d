//! The program as a user meets it: exit codes, what goes to which stream, and messages that name the object, the
//! limit and the next step.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test by panicking")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

const JWKS: &str = r#"{"keys": []}"#;
const POLICY: &str = "version: 1\nrules:\n  - {id: read, who: {groups: [agents]}, target: shop, allow: [read]}\n";

/// A folder with a good configuration for loopback; `edit` changes the text.
fn folder(edit: impl Fn(String) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = "\
listen:
  postgres: {address: '127.0.0.1:0', tls: off}
identity:
  - {issuer: test, audience: exeat, jwks_file: jwks.json}
targets:
  shop:
    postgres:
      host: 127.0.0.1
      port: 1
      database: shop
      tls: off
      logins:
        - {user: shop_reader, password: {file: reader.password}}
policy: {path: policy.yaml}
";
    for (name, text) in [("jwks.json", JWKS), ("policy.yaml", POLICY), ("reader.password", "hunter2-not-shown\n")] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    fs::write(folder.path().join("exeat.yaml"), edit(config.to_owned())).unwrap();
    folder
}

fn exeat(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exeat"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("EXEAT_CONFIG")
        .env_remove("EXEAT_LOG")
        .output()
        .unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_prints_what_it_resolved_and_hides_secrets() {
    let folder = folder(|config| config);
    let (code, out, err) = said(&exeat(folder.path(), &["check", "--config", "exeat.yaml", "--json"]));
    assert_eq!(code, Some(0), "{err}");
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["configuration"]["targets"]["shop"]["postgres"]["port"], 1);
    assert_eq!(shown["policy"]["rules"][0], "read");
    assert!(out.contains("reader.password") && !out.contains("hunter2"), "{out}");
    let (_, text, _) = said(&exeat(folder.path(), &["check", "--config", "exeat.yaml"]));
    assert!(text.contains("port: 1") && !text.contains("hunter2"), "{text}");
}

#[test]
fn check_changes_nothing() {
    let folder = folder(|config| config);
    exeat(folder.path(), &["check", "--config", "exeat.yaml"]);
    assert!(!folder.path().join("data").exists() && !folder.path().join("keys").exists());
}

#[test]
fn a_mistake_in_the_configuration_ends_with_1_and_its_place_on_stderr() {
    let folder = folder(|config| config.replace("database: shop", "databse: shop"));
    let (code, out, err) = said(&exeat(folder.path(), &["check", "--config", "exeat.yaml"]));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("exeat.yaml:10:7") && err.contains("did you mean `database`?"), "{err}");
}

#[test]
fn a_mistake_in_the_policy_names_the_policy_file() {
    let folder = folder(|config| config);
    fs::write(folder.path().join("policy.yaml"), POLICY.replace("allow", "alow")).unwrap();
    for command in ["check", "serve"] {
        let (code, _, err) = said(&exeat(folder.path(), &[command, "--config", "exeat.yaml"]));
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("policy.yaml:3:") && err.contains("did you mean `allow`?"), "{err}");
    }
}

#[test]
fn what_is_not_there_is_named_with_the_next_step() {
    let missing_config = folder(|config| config);
    let (code, _, err) = said(&exeat(missing_config.path(), &["serve", "--config", "absent.yaml"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("could not read configuration file \"absent.yaml\"") && err.contains("--config"), "{err}");

    let missing_secret = folder(|config| config.replace("reader.password", "absent.password"));
    let (code, _, err) = said(&exeat(missing_secret.path(), &["check", "--config", "exeat.yaml"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("target \"shop\", login \"shop_reader\"") && err.contains("absent.password"), "{err}");

    let missing_key = folder(|config| config.replace("tls: off}", "tls: {cert: no.crt, key: no.key}}"));
    let (code, _, err) = said(&exeat(missing_key.path(), &["check", "--config", "exeat.yaml"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("no.crt"), "{err}");
}

#[test]
fn check_connect_tells_an_unreachable_target_from_a_good_configuration() {
    let folder = folder(|config| config);
    let (code, out, _) = said(&exeat(folder.path(), &["check", "--config", "exeat.yaml", "--connect", "--json"]));
    assert_eq!(code, Some(1));
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    let answer = shown["targets"]["shop"][0]["answer"]["error"].as_str().unwrap();
    assert!(answer.contains("127.0.0.1:1") && answer.contains("could not connect"), "{answer}");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let data = folder(|config| config.replace("127.0.0.1:0", &address));
    let (code, _, err) = said(&exeat(data.path(), &["serve", "--config", "exeat.yaml"]));
    assert_eq!(code, Some(1));
    assert!(err.contains(&address) && err.contains("listen.postgres"), "{err}");

    let console =
        folder(|config| config.replace("identity:", &format!("  console: {{address: '{address}'}}\nidentity:")));
    let (code, _, err) = said(&exeat(console.path(), &["serve", "--config", "exeat.yaml"]));
    assert_eq!(code, Some(1));
    assert!(err.contains(&address) && err.contains("listen.console"), "{err}");
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let folder = folder(|config| config);
    assert_eq!(exeat(folder.path(), &["serve", "--cofnig", "exeat.yaml"]).status.code(), Some(2));
    assert_eq!(exeat(folder.path(), &["serve"]).status.code(), Some(2));
}

#[test]
fn tests_of_a_policy_that_cannot_run_are_no_success() {
    let folder = folder(|config| config);
    let tests = "tests:\n  - as: {sub: a, groups: [agents]}\n    target: shop\n    statement: SELECT 1\n    expect: {decision: allow}\n";
    fs::write(folder.path().join("policy.yaml"), format!("{POLICY}{tests}")).unwrap();
    let (code, out, _) = said(&exeat(folder.path(), &["policy", "test", "--config", "exeat.yaml"]));
    assert_eq!(code, Some(1));
    assert!(out.contains("not run") && out.contains("could not connect"), "{out}");
}
