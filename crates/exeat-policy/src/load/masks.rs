//! `mask:` of a rule: for each label a strategy and what it takes. What a strategy does not take is a mistake, for
//! whoever wrote it expects it to act.

use crate::document::{Diagnostics, Entry, Node};
use crate::mask::{Generalize, Lookup, Mask, Nulls, Period};
use crate::rule::LabelMask;

/// Most characters a partial mask may keep at either end; more is not a mask.
const PARTIAL_CHARS_MAX: i64 = 64;

/// Widest bucket of numbers: what a float can still count in whole numbers.
const BUCKET_MAX: i64 = 1_000_000_000_000;

/// A strategy by its name, before its parameters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Plain(Mask),
    Partial,
    Generalize,
}

const STRATEGIES: &[(&str, Strategy)] = &[
    ("redact", Strategy::Plain(Mask::Redact)),
    ("nullify", Strategy::Plain(Mask::Nullify)),
    ("partial", Strategy::Partial),
    ("hash", Strategy::Plain(Mask::Hash)),
    ("token", Strategy::Plain(Mask::Token)),
    ("generalize", Strategy::Generalize),
    ("refuse", Strategy::Plain(Mask::Refuse)),
];

const PARTIAL_KEYS: [&str; 2] = ["first", "last"];
const GENERALIZE_KEYS: [&str; 4] = ["to", "bucket", "ipv4", "ipv6"];

pub(super) fn read_masks(node: &Node, diags: &mut Diagnostics) -> Option<Vec<LabelMask>> {
    let entries = node.entries(diags)?;
    if entries.is_empty() {
        diags.error(&node.span, "`mask` names no label");
        return None;
    }
    let masks: Vec<Option<LabelMask>> = entries
        .iter()
        .map(|entry| {
            let (mask, nulls, lookup) = read_mask(&entry.value, diags)?;
            Some(LabelMask { label: entry.key.clone(), place: entry.key_span.clone(), mask, nulls, lookup })
        })
        .collect();
    masks.into_iter().collect()
}

fn read_mask(node: &Node, diags: &mut Diagnostics) -> Option<(Mask, Nulls, Lookup)> {
    let mut reader = node.mapping(diags)?;
    let with = reader.required("with", diags);
    let ends = PARTIAL_KEYS.map(|key| reader.optional_entry(key));
    let coarse = GENERALIZE_KEYS.map(|key| reader.optional_entry(key));
    let nulls = reader.optional_entry("nulls");
    let lookup = reader.optional_entry("lookup");
    if let Some(restore) = reader.optional_entry("restore") {
        refuse_restore(restore, diags);
    }
    reader.finish(diags);
    let strategy = with?.one_of(STRATEGIES, diags)?;
    let mask = match strategy {
        Strategy::Plain(mask) => Some(mask),
        Strategy::Partial => read_partial(node, ends, diags),
        Strategy::Generalize => read_generalize(coarse, diags),
    };
    if strategy != Strategy::Partial {
        belongs_to("partial", &ends, diags);
    }
    if strategy != Strategy::Generalize {
        belongs_to("generalize", &coarse, diags);
    }
    let mask = mask?;
    let nulls = nulls.map_or(Some(Nulls::Keep), |entry| read_nulls(entry, mask, diags));
    let lookup = lookup.map_or(Some(Lookup::Refused), |entry| read_lookup(entry, mask, diags));
    Some((mask, nulls?, lookup?))
}

/// A token that comes back could only be turned into its value by changing the client's own message.
fn refuse_restore(entry: &Entry, diags: &mut Diagnostics) {
    diags
        .error(&entry.key_span, "`restore` is not supported: what a client sends reaches a database unchanged")
        .help("remove it; a token that comes back as a value to write is refused, so that it destroys nothing");
}

fn read_lookup(entry: &Entry, mask: Mask, diags: &mut Diagnostics) -> Option<Lookup> {
    let lookup = entry.value.one_of(&[("equality", Lookup::Equality)], diags)?;
    if mask == Mask::Refuse {
        diags
            .error(&entry.key_span, "`lookup` does not go with `with: refuse`: such a column may not be used at all")
            .help("use `with: nullify`, which shows nothing either");
        return None;
    }
    Some(lookup)
}

fn belongs_to(strategy: &str, entries: &[Option<&Entry>], diags: &mut Diagnostics) {
    for entry in entries.iter().flatten() {
        diags.error(&entry.key_span, format!("`{}` belongs to `with: {strategy}`", entry.key));
    }
}

fn read_nulls(entry: &Entry, mask: Mask, diags: &mut Diagnostics) -> Option<Nulls> {
    let nulls = entry.value.one_of(&[("keep", Nulls::Keep), ("hide", Nulls::Hide)], diags)?;
    if nulls == Nulls::Hide && matches!(mask, Mask::Generalize(_)) {
        diags
            .error(&entry.key_span, "`nulls: hide` does not go with `with: generalize`: no date or number is neutral")
            .help("use `with: redact`, which makes dates and numbers NULL as well");
        return None;
    }
    Some(nulls)
}

fn read_partial(node: &Node, ends: [Option<&Entry>; 2], diags: &mut Diagnostics) -> Option<Mask> {
    let [first, last] = ends.map(|entry| match entry {
        Some(entry) => u16::try_from(entry.value.as_integer(0..=PARTIAL_CHARS_MAX, diags)?).ok(),
        None => Some(0),
    });
    let (first, last) = (first?, last?);
    if first == 0 && last == 0 {
        diags.error(&node.span, "`with: partial` keeps nothing").help("add `first` or `last`, or use `with: redact`");
        return None;
    }
    Some(Mask::Partial { first, last })
}

fn read_generalize(entries: [Option<&Entry>; 4], diags: &mut Diagnostics) -> Option<Mask> {
    let [to, bucket, ipv4, ipv6] = entries;
    let to = match to {
        Some(entry) => entry.value.one_of(&[("month", Period::Month), ("year", Period::Year)], diags),
        None => Some(Generalize::DEFAULT.to),
    };
    let bucket = match bucket {
        Some(entry) => entry.value.as_integer(2..=BUCKET_MAX, diags).map(|bucket| u64::try_from(bucket).ok()),
        None => Some(Generalize::DEFAULT.bucket),
    };
    let bits = |entry: Option<&Entry>, default: u8, max: i64, diags: &mut Diagnostics| match entry {
        Some(entry) => u8::try_from(entry.value.as_integer(0..=max, diags)?).ok(),
        None => Some(default),
    };
    // An address whole is no network.
    let ipv4 = bits(ipv4, Generalize::DEFAULT.ipv4, 31, diags);
    let ipv6 = bits(ipv6, Generalize::DEFAULT.ipv6, 127, diags);
    Some(Mask::Generalize(Generalize { to: to?, bucket: bucket?, ipv4: ipv4?, ipv6: ipv6? }))
}
