//! Exports: the record's lines and its checkpoints, told to whoever else keeps an eye on them: syslog, HTTP, OTLP.
//!
//! Each is a reader of the log with a task and a cursor of its own, at least once and in order, in bounded memory; no
//! statement waits for any of them. Lines carry nothing that is sealed, so nothing secret leaves.

mod cursor;
mod otlp;
mod post;
mod reader;
mod syslog;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use exeat_console::Check;
use exeat_proxy::tls::TlsError;
use exeat_store::StoreError;
use exeat_store::archive::{self, ArchiveError};
use exeat_store::secret::SecretSource;
use reqwest::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::outbound::OutboundError;
use cursor::Cursor;
use post::Post;
use reader::{Reader, Told};
use syslog::Syslog;

/// New lines are looked for this often, where there were none.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Between attempts at a receiver that does not take what it is told.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What a receiver was told and has not confirmed is asked about after this long, or so many bytes.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);
const CONFIRM_BYTES: usize = 8 * 1024 * 1024;

/// `audit.export`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportConfig {
    /// Its cursor is known by it.
    pub(crate) name: String,
    pub(crate) kind: ExportKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExportKind {
    Syslog(SyslogConfig),
    /// Lines as they stand, one JSON object each.
    Http(PostConfig),
    Otlp(PostConfig),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyslogConfig {
    pub(crate) transport: Transport,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// In place of the system's authorities.
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Tls,
    Udp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PostConfig {
    pub(crate) url: SecretSource,
    pub(crate) headers: Vec<(String, SecretSource)>,
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cursor \"{}\" is not one; restore it, or remove it to tell the whole log again", path.display())]
    Cursor { path: PathBuf },
    #[error("could not {action} the cursor \"{}\"", path.display())]
    CursorFile { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the header {name:?} or its value cannot stand in a request")]
    Header { name: String },
    #[error("could not post")]
    Post(#[source] reqwest::Error),
    #[error("was answered with status {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{host:?} is no name that a certificate could have")]
    Name { host: String },
    #[error("could not reach {address}")]
    Connect { address: String, source: std::io::Error },
    #[error("could not send to {address}")]
    Send { address: String, source: std::io::Error },
    #[error("{address} ended the connection before it had everything")]
    Ended { address: String },
    #[error("{address} takes longer than {} s; a receiver must close a connection that was ended", limit.as_secs())]
    Slow { address: String, limit: Duration },
    #[error("the gateway is ending")]
    Ending,
}

/// Whether what a receiver was told is with it.
enum Delivered {
    Yes,
    /// So many bytes are on the way.
    OnTheWay(usize),
}

enum Receiver {
    Post(Box<Post>),
    Syslog(Box<Syslog>),
}

impl Receiver {
    async fn tell(&mut self, batch: &[Told]) -> Result<Delivered, ExportError> {
        match self {
            Self::Post(post) => post.tell(batch).await,
            Self::Syslog(syslog) => syslog.tell(batch).await,
        }
    }

    /// Returns when everything so far is with it.
    async fn confirm(&mut self) -> Result<(), ExportError> {
        match self {
            Self::Post(_) => Ok(()),
            Self::Syslog(syslog) => syslog.confirm().await,
        }
    }
}

/// The exports of one gateway.
#[derive(Debug)]
pub(crate) struct Exports {
    configs: Vec<ExportConfig>,
    gateway: String,
    data_dir: PathBuf,
    /// Why an export is behind, one for each.
    problems: RwLock<Vec<Option<String>>>,
}

impl Exports {
    pub(crate) fn new(configs: Vec<ExportConfig>, gateway: String, data_dir: PathBuf) -> Self {
        let problems = RwLock::new(vec![None; configs.len()]);
        Self { configs, gateway, data_dir, problems }
    }

    /// For `/readyz`: a receiver that is away makes nobody unready.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let problems = self.problems.read().unwrap_or_else(PoisonError::into_inner);
        let check = |(config, problem): (&ExportConfig, &Option<String>)| {
            let name = format!("export {}", config.name);
            match problem {
                None => Check::ok(name),
                Some(problem) => Check::degraded(name, problem.clone()),
            }
        };
        self.configs.iter().zip(problems.iter()).map(check).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.configs.len()
    }

    /// Before this line everything is with every receiver. Blocks.
    pub(crate) fn passed(&self) -> Result<u64, ExportError> {
        let Some(signed) = archive::signed(&self.data_dir)? else { return Ok(0) };
        let mut passed = u64::MAX;
        for config in &self.configs {
            let position = Cursor::of(&self.data_dir, &config.name).read()?;
            passed = passed.min(position.filter(|position| position.log == signed.origin).map_or(0, |at| at.next));
        }
        Ok(passed)
    }

    /// One of them, until `shutdown` turns true.
    pub(crate) async fn run(self: Arc<Self>, number: usize, mut shutdown: watch::Receiver<bool>) {
        let Some(config) = self.configs.get(number) else { return };
        let mut pause = PAUSE_FIRST;
        loop {
            let mut told = false;
            let ended = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                ended = self.tell_on(number, config, &mut told) => ended,
            };
            if told {
                pause = PAUSE_FIRST;
            }
            let Err(problem) = ended;
            let problem = exeat_store::chain(&problem);
            if !self.has_problem(number) {
                tracing::error!(name = config.name, problem, "an export is behind");
            }
            self.set_problem(number, Some(problem));
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }

    /// From the cursor on, until something goes wrong. `told`: something was taken.
    async fn tell_on(
        &self,
        number: usize,
        config: &ExportConfig,
        told: &mut bool,
    ) -> Result<std::convert::Infallible, ExportError> {
        let mut receiver = self.receiver(config)?;
        let mut reader = loop {
            let (data_dir, gateway, name) = (self.data_dir.clone(), self.gateway.clone(), config.name.clone());
            match blocking(move || Reader::open(&data_dir, &gateway, &name)).await? {
                Some(reader) => break reader,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        let (mut on_the_way, mut since) = (0, Instant::now());
        loop {
            let (batch, returned) = blocking(move || {
                let batch = reader.next()?;
                Ok((batch, reader))
            })
            .await?;
            reader = returned;
            let is_empty = batch.is_empty();
            let mut taken = false;
            if !is_empty {
                match receiver.tell(&batch).await? {
                    Delivered::Yes => taken = true,
                    Delivered::OnTheWay(bytes) => {
                        since = if on_the_way == 0 { Instant::now() } else { since };
                        on_the_way += bytes;
                    }
                }
            }
            if on_the_way > 0 && (on_the_way >= CONFIRM_BYTES || since.elapsed() >= CONFIRM_AFTER) {
                receiver.confirm().await?;
                (taken, on_the_way) = (true, 0);
            }
            if taken {
                reader = blocking(move || reader.taken().map(|()| reader)).await?;
                *told = true;
                if self.has_problem(number) {
                    tracing::info!(name = config.name, "an export goes on");
                    self.set_problem(number, None);
                }
            }
            if is_empty {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    fn receiver(&self, config: &ExportConfig) -> Result<Receiver, ExportError> {
        Ok(match &config.kind {
            ExportKind::Syslog(syslog) => Receiver::Syslog(Box::new(Syslog::new(syslog, &self.gateway)?)),
            ExportKind::Http(post) => Receiver::Post(Box::new(Post::new(post, post::Form::Lines)?)),
            ExportKind::Otlp(post) => {
                Receiver::Post(Box::new(Post::new(post, post::Form::Otlp(self.gateway.clone()))?))
            }
        })
    }

    fn has_problem(&self, number: usize) -> bool {
        let problems = self.problems.read().unwrap_or_else(PoisonError::into_inner);
        problems.get(number).is_some_and(Option::is_some)
    }

    fn set_problem(&self, number: usize, problem: Option<String>) {
        let mut problems = self.problems.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = problems.get_mut(number) {
            *known = problem;
        }
    }
}

/// Reads what an export names, without telling anybody anything. Blocks.
pub(crate) fn check(config: &ExportConfig) -> Result<(), ExportError> {
    let exports = Exports::new(Vec::new(), "exeat".to_owned(), PathBuf::new());
    exports.receiver(config).map(drop)
}

/// Files are read beside the runtime's own threads.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    tokio::task::spawn_blocking(read).await.map_err(|_| ExportError::Ending)?
}
