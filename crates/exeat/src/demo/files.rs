//! The demo's files: what a person running the gateway would write by hand, in a folder of its own.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::certificates::Certificates;
use super::database::{OFFICER, Passwords, READER, Server};
use super::tokens;

const POLICY: &str = include_str!("policy.yaml");

#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("could not write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// Where they are.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    pub(super) config: PathBuf,
    pub(super) policy: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) keys: PathBuf,
}

/// What goes into them.
pub(super) struct Contents<'a> {
    pub(super) certificates: &'a Certificates,
    pub(super) jwks: &'a str,
    pub(super) server: &'a Server,
    pub(super) database: &'a str,
    pub(super) passwords: &'a Passwords,
}

impl Files {
    pub(super) fn make(parent: &Path) -> Result<Self, FileError> {
        let folder = parent.join("gateway");
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|source| FileError::Write { path: folder.clone(), source })?;
        Ok(Self {
            config: folder.join("exeat.yaml"),
            policy: folder.join("policy.yaml"),
            data_dir: folder.join("data"),
            keys: folder.join("keys"),
            folder,
        })
    }

    /// Writes everything but the listener's address, which may have to be tried.
    pub(super) fn write(&self, contents: &Contents<'_>) -> Result<Draft, FileError> {
        let jwks = self.secret("jwks.json", contents.jwks)?;
        self.secret("policy.yaml", POLICY)?;
        let reader = self.secret("reader.password", &contents.passwords.reader)?;
        let officer = self.secret("officer.password", &contents.passwords.officer)?;
        let cert = json!({"cert": path(&contents.certificates.cert), "key": path(&contents.certificates.key)});
        Ok(Draft(json!({
            "name": "exeat-demo",
            "data_dir": path(&self.data_dir),
            "keys": path(&self.keys),
            "listen": {
                "postgres": {"address": Value::Null, "tls": cert, "default_target": "shop"},
                "console": {"address": "127.0.0.1:0"},
            },
            "identity": [{
                "issuer": tokens::ISSUER, "audience": tokens::AUDIENCE, "groups": "groups", "jwks_file": path(&jwks),
            }],
            "targets": {"shop": {"postgres": target(contents, &reader, &officer)}},
            "policy": {"path": path(&self.policy)},
        })))
    }

    /// JSON is YAML, and serde_json quotes what needs it.
    pub(super) fn write_config(&self, draft: &Draft, port: u16) -> Result<(), FileError> {
        let mut config = draft.0.clone();
        if let Some(address) = config.pointer_mut("/listen/postgres/address") {
            *address = json!(format!("127.0.0.1:{port}"));
        }
        let error = |source| FileError::Write { path: self.config.clone(), source };
        std::fs::write(&self.config, format!("{config:#}\n")).map_err(error)
    }

    /// A file for this user alone.
    pub(super) fn secret(&self, name: &str, text: &str) -> Result<PathBuf, FileError> {
        let path = self.folder.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| FileError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

/// A configuration that lacks the listener's address.
pub(super) struct Draft(Value);

fn target(contents: &Contents<'_>, reader: &Path, officer: &Path) -> Value {
    let mut target = json!({
        "host": contents.server.host,
        "port": contents.server.port,
        "database": contents.database,
        "tls": contents.server.tls.to_string(),
        "logins": [
            {"groups": [tokens::OFFICER.group], "user": OFFICER, "password": {"file": path(officer)}},
            {"user": READER, "password": {"file": path(reader)}},
        ],
    });
    if let (Some(members), Some(ca)) = (target.as_object_mut(), &contents.server.ca) {
        members.insert("ca".to_owned(), path(ca));
    }
    target
}

fn path(path: &Path) -> Value {
    json!(path.display().to_string())
}
