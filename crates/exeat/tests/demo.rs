//! Commands that need a database, against the demo's own: it is started as a user would, and ended the same way.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails the test by panicking"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

/// A running demo. Killing it is enough: its keeper does the rest.
struct Demo {
    child: Child,
    folder: PathBuf,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_exeat"))
            .args(["demo", "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let policy = lines
            .filter_map(|line| line.strip_prefix("policy ").map(str::to_owned))
            .find_map(|line| line.split_whitespace().next().map(PathBuf::from))
            .unwrap_or_else(|| panic!("the demo did not start; what it lacks stands above"));
        Self { child, folder: policy.parent().unwrap().to_owned() }
    }

    fn config(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.folder.join("exeat.yaml")).unwrap()).unwrap()
    }

    /// The demo's configuration with other logins, in a file beside it.
    fn with_login(&self, name: &str, login: Value, privileged: bool) -> PathBuf {
        let mut config = self.config();
        config["targets"]["shop"]["postgres"]["logins"] = json!([login]);
        config["targets"]["shop"]["postgres"]["allow_privileged_login"] = json!(privileged);
        let path = self.folder.join(name);
        fs::write(&path, config.to_string()).unwrap();
        path
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn exeat(arguments: &[&str], config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exeat")).args(arguments).arg("--config").arg(config).output().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn check_and_policy_test_speak_with_the_database() {
    let demo = Demo::start();
    let config = demo.folder.join("exeat.yaml");

    let good = exeat(&["check", "--connect", "--json"], &config);
    let shown = json_of(&good);
    assert_eq!(good.status.code(), Some(0), "{shown:#}");
    assert_eq!(shown["targets"]["shop"][1]["login"], "shop_reader");
    assert!(shown["tests"].as_array().unwrap().iter().all(|test| test["result"] == "passed"), "{shown:#}");

    // A superuser reads past every permission: refused, and accepted only by name.
    let password = demo.folder.join("administrator.password");
    let login = json!({"user": "postgres", "password": {"file": password.to_str().unwrap()}});
    let refused = exeat(&["check", "--connect", "--json"], &demo.with_login("refused.yaml", login.clone(), false));
    let problem = json_of(&refused)["targets"]["shop"][0]["answer"]["error"].to_string();
    assert_eq!(refused.status.code(), Some(1));
    assert!(problem.contains("is a superuser") && problem.contains("allow_privileged_login"), "{problem}");
    let accepted = exeat(&["check", "--connect", "--json"], &demo.with_login("accepted.yaml", login, true));
    assert_eq!(accepted.status.code(), Some(0), "{:#}", json_of(&accepted));

    // A test that expects too much fails, and its twin as shipped passes.
    let policy = fs::read_to_string(demo.folder.join("policy.yaml")).unwrap();
    let wrong = demo.folder.join("wrong.yaml");
    fs::write(&wrong, policy.replace("masked: {x: ssn}", "masked: {}")).unwrap();
    assert_eq!(exeat(&["policy", "test"], &config).status.code(), Some(0));
    let failed = exeat(&["policy", "test", "--policy", wrong.to_str().unwrap(), "--json"], &config);
    assert_eq!(failed.status.code(), Some(3));
    let detail = json_of(&failed)[0]["detail"].to_string();
    assert!(detail.contains("expected masked columns {}") && detail.contains("ssn"), "{detail}");
}
