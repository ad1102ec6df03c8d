//! `audit.archive` and `audit.require_archive`: where the record is copied to, and how long statements may go without.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use exeat_policy::document::{MappingReader, Node, Value};

use super::Reading;
use super::identity::optional;
use crate::archive::{ArchiveConfig, PlaceConfig, PlaceKind, S3Config};

const EVERY_DEFAULT: Duration = Duration::from_secs(10);
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
const REQUIRED: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_hours(24);

/// The archive, and how old what is not in it may become.
type Archived = (Option<ArchiveConfig>, Option<Duration>);

/// What a mapping says beside the URL.
#[derive(Default)]
struct Keys {
    region: Option<String>,
    endpoint: Option<String>,
    access_key: Option<exeat_store::secret::SecretSource>,
    secret_key: Option<exeat_store::secret::SecretSource>,
    ca: Option<PathBuf>,
}

impl Reading<'_> {
    pub(super) fn archived(&mut self, reader: &mut MappingReader<'_>) -> Option<Archived> {
        let archive = optional(reader, "archive", |node| self.archive(node));
        let required_node = reader.optional("require_archive");
        let required = match required_node {
            None => Some(None),
            Some(node) => self.duration(node, REQUIRED).map(Some),
        };
        let (archive, required) = (archive?, required?);
        let Some((node, window)) = required_node.zip(required) else { return Some((archive, required)) };
        match &archive {
            None => {
                self.diags
                    .error(&node.span, "`require_archive` has nothing to require without `archive`")
                    .help("name one: archive: s3://BUCKET/PREFIX or file:///FOLDER");
                None
            }
            Some(archive) if window < archive.every * 2 => {
                let every = archive.every;
                self.diags
                    .error(&node.span, format!("`require_archive` is {window:?}, and a round begins every {every:?}"))
                    .help("give it at least twice the time of a round, or set `every` of `archive`");
                None
            }
            Some(_) => Some((archive, required)),
        }
    }

    /// `s3://bucket/prefix`, `file:///folder`, or a mapping with that as its `url`.
    fn archive(&mut self, node: &Node) -> Option<ArchiveConfig> {
        if let Value::String(_) = node.value {
            let place = self.place(node, Keys::default())?;
            return Some(ArchiveConfig { place, every: EVERY_DEFAULT });
        }
        let mut reader = node.mapping(&mut self.diags)?;
        let url = reader.required("url", &mut self.diags);
        let text = |diags: &mut _, node: &Node| node.as_string(diags).map(str::to_owned);
        let region = optional(&mut reader, "region", |node| text(&mut self.diags, node));
        let endpoint = optional(&mut reader, "endpoint", |node| text(&mut self.diags, node));
        let access_key = optional(&mut reader, "access_key", |node| self.secret(node));
        let secret_key = optional(&mut reader, "secret_key", |node| self.secret(node));
        let ca = optional(&mut reader, "ca", |node| self.path(node));
        let every = self.optional_duration(&mut reader, "every", EVERY);
        reader.finish(&mut self.diags);
        let keys =
            Keys { region: region?, endpoint: endpoint?, access_key: access_key?, secret_key: secret_key?, ca: ca? };
        if keys.access_key.is_some() != keys.secret_key.is_some() {
            self.diags
                .error(&node.span, "an archive has an `access_key` and a `secret_key`, or neither")
                .hide_source()
                .help("without them the AWS environment is asked: variables, a web identity, the instance");
            return None;
        }
        Some(ArchiveConfig { place: self.place(url?, keys)?, every: every?.unwrap_or(EVERY_DEFAULT) })
    }

    fn place(&mut self, node: &Node, keys: Keys) -> Option<PlaceConfig> {
        let url = node.as_string(&mut self.diags)?.to_owned();
        let kind = if let Some(folder) = url.strip_prefix("file://").filter(|folder| folder.starts_with('/')) {
            PlaceKind::Folder(Path::new(folder).to_owned())
        } else if let Some((bucket, prefix)) =
            url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            && is_bucket(bucket)
        {
            let Keys { region, endpoint, access_key, secret_key, ca } = keys;
            let prefix = prefix.trim_matches('/').to_owned();
            let bucket = bucket.to_owned();
            PlaceKind::S3(S3Config { bucket, prefix, region, endpoint, access_key, secret_key, ca })
        } else {
            self.diags
                .error(&node.span, "an archive is s3://BUCKET/PREFIX or file:///FOLDER")
                .hide_source()
                .help("keys stand beside it: archive: {url: s3://…, access_key: {env: …}, secret_key: {env: …}}");
            return None;
        };
        Some(PlaceConfig { kind, url })
    }
}

/// No `user:password@host`, say: a secret in a URL would be shown.
fn is_bucket(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_')
}
