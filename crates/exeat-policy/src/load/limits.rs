//! `limit:` of a rule: how much a principal may use up within a window.

use std::time::Duration;

use crate::document::{Diagnostics, Node};
use crate::limit::ProbeLimit;

/// Beyond this a column might as well not be sealed.
const PROBES_MAX: i64 = 10_000;

/// A shorter window would hand the allowance out anew while the client waits for it.
const WINDOW_MIN: Duration = Duration::from_mins(1);
const WINDOW_MAX: Duration = Duration::from_hours(24 * 366);

const KEYS_UNSUPPORTED: &[&str] = &["rows", "cells", "bytes", "refusals"];

pub(super) fn read_limit(node: &Node, diags: &mut Diagnostics) -> Option<ProbeLimit> {
    let mut reader = node.mapping(diags)?;
    let probes = reader.optional("probes");
    let window = reader.optional("window");
    let reserved = KEYS_UNSUPPORTED.iter().any(|key| reader.optional(key).is_some());
    reader.unsupported(KEYS_UNSUPPORTED, diags);
    reader.finish(diags);
    if probes.is_none() && !reserved {
        diags.error(&node.span, "`limit` limits nothing").help("give it `probes`");
    }
    let window = window.map_or(Some(ProbeLimit::DEFAULT.window), |node| read_window(node, diags));
    let probes = u32::try_from(probes?.as_integer(0..=PROBES_MAX, diags)?).ok();
    if reserved {
        return None;
    }
    Some(ProbeLimit { probes: probes?, window: window? })
}

fn read_window(node: &Node, diags: &mut Diagnostics) -> Option<Duration> {
    let window = node.as_duration(diags)?;
    if (WINDOW_MIN..=WINDOW_MAX).contains(&window) {
        return Some(window);
    }
    let message = format!("{} is {window:?}, it must be from {WINDOW_MIN:?} to {WINDOW_MAX:?}", node.subject());
    diags.error(&node.span, message);
    None
}
