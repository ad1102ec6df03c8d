//! exeat.yaml: read strictly, resolved whole, every mistake reported at once with its place.
//!
//! What comes out is what the crates take: nothing downstream looks at the file again. Paths are relative to the
//! file's folder. Secrets are named here, never read: whoever needs one resolves it at that moment. Keys that
//! belong to later versions are refused by name, since running without what they ask for would be worse.

mod archive;
mod audit;
mod export;
mod identity;
mod listen;
mod notify;
mod secret;
mod show;
mod target;
mod times;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use exeat_policy::PolicyContext;
use exeat_policy::document::{Diagnostics, Document, MappingReader, Node};
use exeat_proxy::identity::IssuerConfig;
use exeat_store::keys::KeySource;
use exeat_store::state::StateSource;
use ring::digest::{SHA256, digest};

pub(crate) use show::show;

use audit::Audit;

use crate::notify::Destination;
use crate::roles::ConsoleRoles;

/// The configuration, resolved.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where it was read from, and the SHA-256 of that in hex.
    pub(crate) file: PathBuf,
    pub(crate) sha256: String,
    /// Origin of the record, shown in every line of it.
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) keys: KeySource,
    pub(crate) store: StateSource,
    pub(crate) audit: Audit,
    pub(crate) identity: Vec<IssuerConfig>,
    /// A file or a folder of files.
    pub(crate) policy: PathBuf,
    pub(crate) console: Option<SocketAddr>,
    pub(crate) roles: ConsoleRoles,
    /// Who is told of statements that wait for humans.
    pub(crate) notify: Vec<Destination>,
    pub(crate) proxy: exeat_proxy::config::Config,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("could not read configuration file \"{}\"; name it with --config", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Mistakes(Diagnostics),
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(read)?;
        let absolute = std::path::absolute(path).map_err(read)?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        Self::parse(&path.display().to_string(), &text, folder).map_err(ConfigError::Mistakes)
    }

    /// `folder` is what relative paths start from.
    pub(crate) fn parse(file_name: &str, text: &str, folder: &Path) -> Result<Self, Diagnostics> {
        let root = Document::parse(file_name, text)?;
        let source = (PathBuf::from(file_name), hex(digest(&SHA256, text.as_bytes()).as_ref()));
        let mut reading = Reading { diags: Diagnostics::new(), folder };
        let config = reading.config(&root, source);
        reading.diags.into_result(config)
    }

    /// What the policy is read against.
    pub(crate) fn policy_context(&self) -> PolicyContext {
        PolicyContext {
            default_issuer: self.identity.first().map(|issuer| issuer.issuer.clone()),
            targets: Some(self.proxy.targets.keys().cloned().collect()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One pass over the tree. Every method pushes what is wrong and goes on; `None` means that something was.
struct Reading<'a> {
    diags: Diagnostics,
    folder: &'a Path,
}

impl Reading<'_> {
    fn config(&mut self, root: &Node, (file, sha256): (PathBuf, String)) -> Option<Config> {
        let mut reader = root.mapping(&mut self.diags)?;
        let name = self.name(&mut reader);
        let data_dir = self.path_or(&mut reader, "data_dir", "data");
        let keys = self.keys(&mut reader);
        let store = self.store(&mut reader);
        let audit = self.audit(&mut reader);
        let targets = reader.required("targets", &mut self.diags).and_then(|node| self.targets(node));
        let listeners = reader.required("listen", &mut self.diags).and_then(|node| self.listen(node, targets.as_ref()));
        let identity = reader.required("identity", &mut self.diags).and_then(|node| self.issuers(node));
        let policy = reader.required("policy", &mut self.diags).and_then(|node| self.policy(node));
        let roles = match reader.optional("console") {
            None => Some(ConsoleRoles::default()),
            Some(node) => self.console(node),
        };
        let notify = match reader.optional("notify") {
            None => Some(Vec::new()),
            Some(node) => self.notify(node),
        };
        reader.finish(&mut self.diags);
        let (listen, console) = listeners?;
        Some(Config {
            file,
            sha256,
            name: name?,
            data_dir: data_dir?,
            keys: keys?,
            store: store?,
            audit: audit?,
            identity: identity?,
            policy: policy?,
            console,
            roles: roles?,
            notify: notify?,
            proxy: exeat_proxy::config::Config { listen, targets: targets? },
        })
    }

    fn name(&mut self, reader: &mut MappingReader<'_>) -> Option<String> {
        match reader.optional("name") {
            None => Some("exeat".to_owned()),
            Some(node) => node.as_string(&mut self.diags).map(str::to_owned),
        }
    }

    /// A folder of keys, or `{master: {env|file|command}}`.
    fn keys(&mut self, reader: &mut MappingReader<'_>) -> Option<KeySource> {
        use exeat_policy::document::Value;
        let Some(node) = reader.optional("keys") else { return Some(KeySource::Folder(self.folder.join("keys"))) };
        if let Value::String(_) = node.value {
            return self.path(node).map(KeySource::Folder);
        }
        let mut inner = node.mapping(&mut self.diags)?;
        let master = inner.required("master", &mut self.diags).and_then(|node| self.secret(node));
        inner.finish(&mut self.diags);
        master.map(KeySource::Master)
    }

    /// `embedded`, or the secret that holds a server's address.
    fn store(&mut self, reader: &mut MappingReader<'_>) -> Option<StateSource> {
        use exeat_policy::document::Value;
        let Some(node) = reader.optional("store") else { return Some(StateSource::Embedded) };
        match &node.value {
            Value::String(text) if text == "embedded" => Some(StateSource::Embedded),
            Value::Mapping(_) => self.secret(node).map(StateSource::Postgres),
            _ => {
                self.diags
                    .error(&node.span, "`store` is neither `embedded` nor the source of an address")
                    .hide_source()
                    .help("an address holds a password: write {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}");
                None
            }
        }
    }

    /// `console: {roles: {admin: [groups], …}}`.
    fn console(&mut self, node: &Node) -> Option<ConsoleRoles> {
        let mut reader = node.mapping(&mut self.diags)?;
        let roles = reader.required("roles", &mut self.diags).and_then(|node| self.roles(node));
        reader.finish(&mut self.diags);
        roles
    }

    fn roles(&mut self, node: &Node) -> Option<ConsoleRoles> {
        let mut reader = node.mapping(&mut self.diags)?;
        let [admin, approver, auditor, viewer] =
            ["admin", "approver", "auditor", "viewer"].map(|role| match reader.optional(role) {
                None => Some(Vec::new()),
                Some(node) => node.as_strings(&mut self.diags),
            });
        reader.finish(&mut self.diags);
        Some(ConsoleRoles { admin: admin?, approver: approver?, auditor: auditor?, viewer: viewer? })
    }

    fn policy(&mut self, node: &Node) -> Option<PathBuf> {
        let mut reader = node.mapping(&mut self.diags)?;
        reader.unsupported(&["store"], &mut self.diags);
        let path = reader.required("path", &mut self.diags).and_then(|node| self.path(node));
        reader.finish(&mut self.diags);
        path
    }

    fn path_or(&mut self, reader: &mut MappingReader<'_>, key: &'static str, default: &str) -> Option<PathBuf> {
        match reader.optional(key) {
            None => Some(self.folder.join(default)),
            Some(node) => self.path(node),
        }
    }

    /// A path, relative to the configuration file's folder.
    fn path(&mut self, node: &Node) -> Option<PathBuf> {
        let text = node.as_string(&mut self.diags)?;
        let path = Path::new(text.strip_prefix("./").unwrap_or(text));
        Some(if path.as_os_str().is_empty() { self.folder.to_owned() } else { self.folder.join(path) })
    }
}

#[cfg(test)]
mod tests;
