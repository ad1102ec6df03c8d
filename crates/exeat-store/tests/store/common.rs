//! What the tests of the record share: a folder with keys and data, events to write, and a second process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use exeat_policy::{Principal, PrincipalKind};
use exeat_store::StoreError;
use exeat_store::keys::{KeySet, KeySource};
use exeat_store::read::{Event, open_log};
use exeat_store::record::{
    Decision, Durability, Outcome, OutcomeResult, PolicyRef, Recorder, RecorderConfig, SessionStart, Statement,
    TokenRef,
};
use exeat_store::secret::SecretSource;
use exeat_store::state::{State, StateConfig, StateError, StateSource};

use super::server::{run_at, run_in_file, server};

pub(crate) const POLICY: PolicyRef<'static> = PolicyRef { version: 3, sha256: "abc123" };

pub(crate) struct Place {
    pub(crate) base: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { base: tempfile::tempdir().unwrap() }
    }

    /// A place for each kind of state store. The shared one's address stands in a file there.
    pub(crate) fn of_each_store() -> Vec<Self> {
        let shared = server().map(|server| {
            let place = Self::new();
            std::fs::write(place.base.path().join(STORE_URL), server.new_database()).unwrap();
            place
        });
        std::iter::once(Self::new()).chain(shared).collect()
    }

    /// The shared store's address, if this place has one.
    pub(crate) fn store_url(&self) -> Option<String> {
        std::fs::read_to_string(self.base.path().join(STORE_URL)).ok()
    }

    /// A statement of the test itself, beside the gateway.
    pub(crate) fn run_in_store(&self, statement: &str) {
        match std::fs::read_to_string(self.base.path().join(STORE_URL)) {
            Ok(url) => run_at(&url, &[statement]).unwrap(),
            Err(_) => run_in_file(&self.data().join("state/exeat.db"), statement).unwrap(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.base.path().join("data")
    }

    pub(crate) fn keys_folder(&self) -> PathBuf {
        self.base.path().join("keys")
    }

    pub(crate) fn keys(&self) -> Arc<KeySet> {
        keys_at(self.base.path()).unwrap()
    }

    pub(crate) fn open(&self) -> Recorder {
        self.try_open(Durability::Os).unwrap()
    }

    /// A test beside this one may just be starting a child process, which holds a copy of the folder's lock from its
    /// fork to its exec: a lock given back here is free a moment later.
    pub(crate) fn try_open(&self, durability: Durability) -> Result<Recorder, StoreError> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match open_at(self.base.path(), durability) {
                Err(StoreError::Locked { .. }) if std::time::Instant::now() < deadline => std::thread::yield_now(),
                opened => return opened,
            }
        }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        open_log(&self.data()).unwrap().events().unwrap().map(Result::unwrap).collect()
    }

    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.kind() == kind).collect()
    }

    /// The log's last file.
    pub(crate) fn log_file(&self) -> PathBuf {
        let mut files: Vec<_> =
            std::fs::read_dir(self.data().join("log")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.pop().unwrap()
    }

    /// Every file under the folder, keys left out.
    pub(crate) fn data_files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, files) } else { files.push(path) }
            }
        }
        let mut files = Vec::new();
        walk(&self.data(), &mut files);
        files
    }

    /// Runs the named test of this program again as a process of its own, in which `child_of` gives the folder.
    pub(crate) fn child(&self, test: &str) -> Output {
        self.child_under(test, "exec \"$0\" \"$@\"")
    }

    /// The same through a shell line that ends in running `"$0" "$@"`.
    pub(crate) fn child_under(&self, test: &str, script: &str) -> Output {
        self.child_command(test, script).output().unwrap()
    }

    /// The same, left running.
    pub(crate) fn child_running(&self, test: &str) -> Child {
        self.child_command(test, "exec \"$0\" \"$@\"").stdout(Stdio::piped()).spawn().unwrap()
    }

    fn child_command(&self, test: &str, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CHILD, self.base.path());
        command
    }
}

/// How often a gateway is killed, for each kind of store (KILLS=100 for a long look; a grant has no more uses).
pub(crate) fn kills() -> usize {
    std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

const CHILD: &str = "EXEAT_STORE_TEST_CHILD";

/// The folder to work on, if this process is a child of a test.
pub(crate) fn child_of() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

pub(crate) const STORE_URL: &str = "store-url";

pub(crate) async fn open_state(base: &Path) -> Result<State, StateError> {
    let url = base.join(STORE_URL);
    let source = match url.exists() {
        true => StateSource::Postgres(SecretSource::File(url)),
        false => StateSource::Embedded,
    };
    let config = StateConfig { data_dir: &base.join("data"), source: &source, durability: Durability::Os };
    State::open(&config, &keys_at(base).unwrap()).await
}

pub(crate) fn keys_at(base: &Path) -> Result<Arc<KeySet>, StoreError> {
    KeySet::open(&KeySource::Folder(base.join("keys")), &base.join("data")).map(Arc::new)
}

pub(crate) fn open_at(base: &Path, durability: Durability) -> Result<Recorder, StoreError> {
    let config = RecorderConfig { data_dir: base.join("data"), gateway: "exeat-test".to_owned(), durability };
    Recorder::open(&config, keys_at(base)?)
}

pub(crate) fn principal() -> Principal {
    Principal {
        issuer: "https://idp.example.com".to_owned(),
        subject: "agent-7".to_owned(),
        groups: vec!["agents".to_owned(), "night \"shift\"".to_owned()],
        claims: serde_json::Map::new(),
        actor: Some("runner".to_owned()),
        kind: PrincipalKind::Workload,
        token_id: Some("jti-1".to_owned()),
        instance: BTreeMap::from([("pod".to_owned(), "p-1".to_owned())]),
    }
}

pub(crate) fn start<'a>(session: &'a str, principal: &'a Principal) -> SessionStart<'a> {
    SessionStart {
        session,
        principal,
        source: "127.0.0.1:5000",
        target: "shop",
        database: "shop",
        login: "shop_reader",
        backend_pid: 4711,
        backend_start: Some("2026-11-21T00:00:00Z"),
        application_name: Some("psql"),
        policy: POLICY,
        tls: Some("TLSv1.3"),
        token: Some(TokenRef { id: Some("jti-1"), sha256_8: "0a1b2c3d" }),
        handle: None,
    }
}

pub(crate) fn allowed<'a>(request_id: &'a str, sql: &'a str) -> Statement<'a> {
    Statement::new(request_id, sql, Decision::Allow, POLICY)
}

pub(crate) fn done(request_id: &str) -> Outcome<'_> {
    Outcome {
        request_id,
        index: 0,
        result: OutcomeResult::Ok,
        batch_from: None,
        last: true,
        tag: Some("SELECT 1"),
        sqlstate: None,
        rows: 1,
        bytes: 40,
        cells_masked: 1,
        duration_us: 250,
        policy: POLICY,
    }
}
