//! `limit:` of a rule: how much a principal may use up within a window. And the amounts that a `hold` counts, which are
//! written alike.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::document::{Diagnostics, Entry, Node};
use crate::limit::{Limits, ProbeLimit};

/// Beyond this a column might as well not be sealed.
const PROBES_MAX: i64 = 10_000;

/// Beyond this nobody limits anything.
const AMOUNT_MAX: i64 = 1_000_000_000_000;
const BYTES_MAX: u64 = 1 << 50;

/// A shorter window would hand the allowance out anew while the client waits for it.
const WINDOW: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 366);

pub(super) fn read_limit(node: &Node, relations: Option<&Entry>, diags: &mut Diagnostics) -> Option<Limits> {
    let mut reader = node.mapping(diags)?;
    let window = reader.optional("window");
    let probes = reader.optional("probes");
    let [rows, cells, bytes] = ["rows", "cells", "bytes"].map(|key| reader.optional(key));
    let refusals = reader.optional_entry("refusals");
    reader.finish(diags);
    if probes.is_none() && refusals.is_none() && [rows, cells, bytes].iter().all(Option::is_none) {
        diags.error(&node.span, "`limit` limits nothing").help("give it an amount, such as `probes: 20`");
        return None;
    }
    let window = window.map_or(Some(ProbeLimit::DEFAULT.window), |node| read_span(node, WINDOW, diags));
    let probes = probes.map(|node| u32::try_from(node.as_integer(0..=PROBES_MAX, diags)?).ok());
    let rows = rows.map(|node| read_amount(node, diags));
    let cells = cells.map(|node| read_amount(node, diags));
    let bytes = bytes.map(|node| read_bytes(node, diags));
    let refused = refusals.map(|entry| read_refusals(entry, relations, diags));
    // An amount that is written and not understood must not turn into no limit.
    let all = |read: Option<Option<u64>>| read.map_or(Some(None), |read| read.map(Some));
    Some(Limits {
        window: window?,
        probes: probes.map_or(Some(None), |read| read.map(Some))?,
        rows: all(rows)?,
        cells: all(cells)?,
        bytes: all(bytes)?,
        refusals: all(refused)?,
    })
}

/// A refused statement may have named any relation, or none.
fn read_refusals(entry: &Entry, relations: Option<&Entry>, diags: &mut Diagnostics) -> Option<u64> {
    if let Some(relations) = relations {
        let message = "`refusals` are counted for a target as a whole: a rule that limits them takes no `relations`";
        diags.error(&relations.key_span, message).help("write a rule of its own for it");
        return None;
    }
    u64::try_from(entry.value.as_integer(1..=AMOUNT_MAX, diags)?).ok()
}

pub(super) fn read_amount(node: &Node, diags: &mut Diagnostics) -> Option<u64> {
    u64::try_from(node.as_integer(0..=AMOUNT_MAX, diags)?).ok()
}

pub(super) fn read_bytes(node: &Node, diags: &mut Diagnostics) -> Option<u64> {
    let bytes = node.as_bytes(diags)?;
    if bytes <= BYTES_MAX {
        return Some(bytes);
    }
    diags.error(&node.span, format!("{} is {bytes} bytes, it must be at most {BYTES_MAX}", node.subject()));
    None
}

pub(super) fn read_span(node: &Node, range: RangeInclusive<Duration>, diags: &mut Diagnostics) -> Option<Duration> {
    let span = node.as_duration(diags)?;
    if range.contains(&span) {
        return Some(span);
    }
    let (min, max) = (range.start(), range.end());
    diags.error(&node.span, format!("{} is {span:?}, it must be from {min:?} to {max:?}", node.subject()));
    None
}
