//! `audit:` of exeat.yaml: how durable the record is, how long it is kept, and who may read what the gateway withheld. Where the record
//! is copied to and who is told of it stands in files of their own.

use std::ops::RangeInclusive;
use std::time::Duration;

use exeat_policy::document::{MappingReader, Node};
use exeat_proxy::config::TranscriptLimits;
use exeat_store::auditors::{AUDITORS_MAX, Auditor, Auditors};
use exeat_store::record::{Durability, Retention};

use super::Reading;
use crate::archive::ArchiveConfig;
use crate::export::ExportConfig;

/// More than any client takes of one statement; counts and digests are kept of what is past it.
const RESULT_ROWS_MAX: i64 = 1_000_000_000;

/// Seconds are for whoever tries it out.
const KEPT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(100 * 366 * 24);

#[derive(Debug, Clone, Default)]
pub(crate) struct Audit {
    pub(crate) durability: Durability,
    /// How much of each statement's answer is kept as the client got it.
    pub(crate) results: TranscriptLimits,
    /// Whom the server's own words are kept for.
    pub(crate) auditors: Option<Auditors>,
    /// Where the record is copied to.
    pub(crate) archive: Option<ArchiveConfig>,
    /// How old what is not archived may become before statements at sealed data are refused.
    pub(crate) require_archive: Option<Duration>,
    /// Who else is told what is on record.
    pub(crate) export: Vec<ExportConfig>,
    /// How long what is kept; without it everything for ever.
    pub(crate) retention: Option<Retention>,
}

impl Reading<'_> {
    pub(super) fn audit(&mut self, reader: &mut MappingReader<'_>) -> Option<Audit> {
        let Some(node) = reader.optional("audit") else { return Some(Audit::default()) };
        let mut inner = node.mapping(&mut self.diags)?;
        let durability = match inner.optional("durability") {
            None => Some(Durability::Os),
            Some(node) => node.one_of(&[("os", Durability::Os), ("fsync", Durability::Fsync)], &mut self.diags),
        };
        let results = match inner.optional("results") {
            None => Some(TranscriptLimits::default()),
            Some(node) => self.results(node),
        };
        let kept = inner.optional("sealed_originals");
        let auditors = inner.optional("auditors");
        let auditors = self.originals(kept, auditors);
        let archived = self.archived(&mut inner);
        let export = match inner.optional("export") {
            None => Some(Vec::new()),
            Some(node) => self.exports(node),
        };
        let retention = match inner.optional("retention") {
            None => Some(None),
            Some(node) => self.retention(node).map(Some),
        };
        inner.finish(&mut self.diags);
        let (archive, require_archive) = archived?;
        Some(Audit {
            durability: durability?,
            results: results?,
            auditors: auditors?,
            archive,
            require_archive,
            export: export?,
            retention: retention?,
        })
    }

    fn retention(&mut self, node: &Node) -> Option<Retention> {
        let mut inner = node.mapping(&mut self.diags)?;
        let lines = self.optional_duration(&mut inner, "lines", KEPT);
        let texts = self.optional_duration(&mut inner, "texts", KEPT);
        inner.finish(&mut self.diags);
        let (lines, texts) = (lines?, texts?);
        let retention = Retention::new(lines, texts);
        if retention.is_none() {
            let problem = match (lines, texts) {
                (None, None) => "`retention` says neither how long `lines` are kept nor how long `texts`".to_owned(),
                _ => format!("`texts` are kept for {texts:?}, longer than the `lines` that name them, {lines:?}"),
            };
            self.diags.error(&node.span, problem).help("such as {lines: 400d, texts: 90d}, or one of them");
        }
        retention
    }

    fn results(&mut self, node: &Node) -> Option<TranscriptLimits> {
        let mut inner = node.mapping(&mut self.diags)?;
        let usual = TranscriptLimits::default();
        let rows = match inner.optional("rows") {
            None => Some(usual.rows),
            Some(node) => {
                let rows = node.as_integer(0..=RESULT_ROWS_MAX, &mut self.diags);
                rows.and_then(|rows| u64::try_from(rows).ok())
            }
        };
        let bytes = match inner.optional("bytes") {
            None => Some(usual.bytes),
            Some(node) => node.as_bytes(&mut self.diags),
        };
        inner.finish(&mut self.diags);
        Some(TranscriptLimits { rows: rows?, bytes: bytes? })
    }

    /// Whether originals are kept, and for whom: neither means anything without the other.
    fn originals(&mut self, kept: Option<&Node>, auditors: Option<&Node>) -> Option<Option<Auditors>> {
        let keeps = match kept {
            None => false,
            Some(node) => node.as_bool(&mut self.diags)?,
        };
        match (keeps, kept, auditors) {
            (true, _, Some(node)) => self.auditors(node).map(Some),
            (true, Some(kept), None) => {
                self.diags.error(&kept.span, "`sealed_originals` needs `auditors` to seal them for").help(
                    "make a key with `age-keygen`, keep it elsewhere, and name its public half: auditors: [age1…]",
                );
                None
            }
            (_, _, Some(node)) => {
                self.diags
                    .error(&node.span, "`auditors` has nothing to read without `sealed_originals: true`")
                    .help("add it, or leave `auditors` out");
                None
            }
            (_, _, None) => Some(None),
        }
    }

    fn auditors(&mut self, node: &Node) -> Option<Auditors> {
        let names = node.as_strings(&mut self.diags)?;
        let mut found = Vec::with_capacity(names.len());
        for (item, name) in node.as_list(&mut self.diags)?.iter().zip(&names) {
            match Auditor::parse(name) {
                Some(auditor) => found.push(auditor),
                None => {
                    // It may be the secret half.
                    self.diags.error(&item.span, "this is not the public half of an age key").hide_source().help(
                        "it begins with `age1` and stands in the file that `age-keygen` made, behind `public key:`",
                    );
                }
            }
        }
        if found.len() != names.len() {
            return None;
        }
        let read = Auditors::new(found);
        if read.is_none() {
            self.diags
                .error(&node.span, format!("`auditors` takes 1 to {AUDITORS_MAX} keys, here are {}", names.len()));
        }
        read
    }
}
