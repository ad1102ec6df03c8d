//! Where an archive is: a folder or an S3 bucket behind one API. Puts are create-only but for what may change by design;
//! an object that is there with other bytes is an error that names it, and is left as it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exeat_proxy::tls::{Roots, TlsError};
use exeat_store::secret::{SecretError, SecretSource};
use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig};
use reqwest::Url;

use crate::outbound;

/// A piece of 8 MiB in this time; whatever is slower falls behind.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A round that fails is tried again anyway.
const RETRIES_MAX: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a bucket must refuse to make twice. It stays there.
const PROBE: &str = "probe";
const PROBE_TEXT: &[u8] = b"exeat looks here whether this place refuses to write an object twice\n";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlaceConfig {
    pub(crate) kind: PlaceKind,
    /// As configured, for messages.
    pub(crate) url: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    /// It is there already: a folder of ours would hide that nothing is mounted.
    Folder(PathBuf),
    S3(S3Config),
}

/// What is not said comes from the AWS environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3Config {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) access_key: Option<SecretSource>,
    pub(crate) secret_key: Option<SecretSource>,
    /// In place of the system's authorities.
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("the archive's folder \"{}\" cannot be opened; it must exist before the gateway writes there", path.display())]
    Folder { path: PathBuf, source: object_store::Error },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the archive's endpoint {endpoint:?} is neither https nor http on a loopback address")]
    Plain { endpoint: String },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("could not make an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("the bucket's settings do not hold together")]
    Settings(#[source] object_store::Error),
    #[error("could not {action} \"{name}\" in the archive")]
    Object { action: &'static str, name: String, source: object_store::Error },
    #[error(
        "\"{name}\" is in the archive with other bytes; nothing was overwritten. Another gateway archives under this name, or the log or the archive was altered"
    )]
    Other { name: String },
    #[error(
        "the archive overwrites what it was asked to make new: it ignores If-None-Match, and nothing in it would be kept as it was"
    )]
    Overwrites,
}

/// Of one gateway: everything lies under its name.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    store: Arc<dyn ObjectStore>,
    /// What all of them lie under.
    root: String,
    prefix: Path,
}

impl Place {
    /// Reads secrets and certificates; blocks. Reaches nothing yet.
    pub(crate) fn open(config: &PlaceConfig, origin: &str) -> Result<Self, PlaceError> {
        let (store, prefix): (Arc<dyn ObjectStore>, _) = match &config.kind {
            PlaceKind::Folder(path) => {
                let opened = LocalFileSystem::new_with_prefix(path);
                let store = opened.map_err(|source| PlaceError::Folder { path: path.clone(), source })?;
                (Arc::new(store.with_fsync(true)), "")
            }
            PlaceKind::S3(s3) => (Arc::new(bucket(s3)?), s3.prefix.as_str()),
        };
        Ok(Self { store, root: prefix.to_owned(), prefix: Path::from(format!("{prefix}/{origin}")) })
    }

    /// Where another log of this gateway is archived.
    pub(crate) fn beside(&self, origin: &str) -> Self {
        Self { prefix: Path::from(format!("{}/{origin}", self.root)), ..self.clone() }
    }

    /// Fails unless an object that is there cannot be made again.
    pub(crate) async fn probe(&self) -> Result<(), PlaceError> {
        for _ in 0..2 {
            match self.put(PROBE, PROBE_TEXT, PutMode::Create).await {
                Ok(()) => {}
                Err(object_store::Error::AlreadyExists { .. }) => return Ok(()),
                Err(source) => return Err(failed("make", PROBE)(source)),
            }
        }
        Err(PlaceError::Overwrites)
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, PlaceError> {
        let got = match self.store.get(&self.path(name)).await {
            Ok(got) => got.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(problem) => Err(problem),
        };
        got.map(|bytes| Some(bytes.to_vec())).map_err(failed("read", name))
    }

    /// `Some`: it was there already, with these bytes, which are others.
    pub(crate) async fn make(&self, name: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, PlaceError> {
        match self.put(name, bytes, PutMode::Create).await {
            Ok(()) => Ok(None),
            Err(object_store::Error::AlreadyExists { .. }) => {
                Ok(self.get(name).await?.filter(|found| found.as_slice() != bytes))
            }
            Err(source) => Err(failed("make", name)(source)),
        }
    }

    /// For what never changes: fails where it is there with other bytes.
    pub(crate) async fn create(&self, name: &str, bytes: &[u8]) -> Result<(), PlaceError> {
        match self.make(name, bytes).await? {
            None => Ok(()),
            Some(_) => Err(PlaceError::Other { name: name.to_owned() }),
        }
    }

    /// For what changes by design.
    pub(crate) async fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), PlaceError> {
        self.put(name, bytes, PutMode::Overwrite).await.map_err(failed("write", name))
    }

    async fn put(&self, name: &str, bytes: &[u8], mode: PutMode) -> Result<(), object_store::Error> {
        let payload = PutPayload::from(bytes.to_vec());
        let options = PutOptions { mode, ..PutOptions::default() };
        self.store.put_opts(&self.path(name), payload, options).await.map(drop)
    }

    /// Names in a folder and their sizes, those behind `after` only, for as long as `wanted` says so of a name. A bucket
    /// gives them in order, a folder in any.
    pub(crate) async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, u64)>, PlaceError> {
        let prefix = self.path(folder);
        let mut listed = match after {
            Some(after) => self.store.list_with_offset(Some(&prefix), &self.path(after)),
            None => self.store.list(Some(&prefix)),
        };
        let mut found = Vec::new();
        while let Some(object) = listed.next().await {
            let object = object.map_err(failed("list", folder))?;
            if let Some(name) = object.location.filename()
                && wanted(name)
            {
                found.push((name.to_owned(), object.size));
            }
        }
        found.sort();
        Ok(found)
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }
}

fn failed(action: &'static str, name: &str) -> impl FnOnce(object_store::Error) -> PlaceError + use<> {
    let name = name.to_owned();
    move |source| PlaceError::Object { action, name, source }
}

fn bucket(s3: &S3Config) -> Result<object_store::aws::AmazonS3, PlaceError> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(&s3.bucket);
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(key) = &s3.access_key {
        builder = builder.with_access_key_id(key.resolve()?.expose().trim());
    }
    if let Some(key) = &s3.secret_key {
        builder = builder.with_secret_access_key(key.resolve()?.expose().trim());
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let url = endpoint.as_deref().map(Url::parse).transpose();
    let refused = || PlaceError::Plain { endpoint: endpoint.clone().unwrap_or_default() };
    let url = url.map_err(|_| refused())?;
    if url.as_ref().is_some_and(|url| !outbound::is_private(url)) {
        return Err(refused());
    }
    let is_plain = url.is_some_and(|url| url.scheme() == "http");
    let roots = if is_plain { Roots::Nobody } else { s3.ca.clone().map_or(Roots::System, Roots::File) };
    let client = outbound::builder(roots, (CONNECT_TIMEOUT, ANSWER_TIMEOUT))?.build().map_err(PlaceError::Client)?;
    let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
    builder
        .with_allow_http(is_plain)
        .with_http_connector(Connector(client))
        .with_retry(retry)
        .build()
        .map_err(PlaceError::Settings)
}

/// The gateway's own client: its TLS, its authorities.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}
