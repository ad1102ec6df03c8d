//! What is read and checked and not carried out yet: holds and what is counted for them. A policy that asks for it does
//! not load, for it would enforce less than it says. This is the one place that names it.

use crate::document::{Diagnostics, Entry, Node, Value};

const RULE_KEYS: &[&str] = &["hold", "unbounded", "statements"];
const LIMIT_KEYS: &[&str] = &["rows", "cells", "bytes", "refusals"];
const KEYS_THAT_HOLD: &[&str] = &["select_star", "unbounded_writes"];

pub(super) fn refuse(root: &Node, diags: &mut Diagnostics) {
    for entry in entries(root).iter().filter(|entry| entry.key == "rules") {
        let Value::Sequence(rules) = &entry.value.value else { continue };
        for entry in rules.iter().flat_map(entries) {
            refuse_in_rule(entry, diags);
        }
    }
}

fn refuse_in_rule(entry: &Entry, diags: &mut Diagnostics) {
    let key = entry.key.as_str();
    if RULE_KEYS.contains(&key) {
        refuse_key(entry, diags);
    }
    if key == "limit" {
        entries(&entry.value).iter().filter(|entry| LIMIT_KEYS.contains(&entry.key.as_str())).for_each(|entry| {
            refuse_key(entry, diags);
        });
    }
    if KEYS_THAT_HOLD.contains(&key) && matches!(&entry.value.value, Value::String(word) if word == "hold") {
        let message = format!("`hold` for {} is not supported by this version", entry.value.subject());
        diags.error(&entry.value.span, message);
    }
}

fn refuse_key(entry: &Entry, diags: &mut Diagnostics) {
    diags
        .error(&entry.key_span, format!("`{}` is not supported by this version", entry.key))
        .help("remove it; loading without it would enforce less than is written here");
}

/// Other shapes are mistakes, and reported where they are read.
fn entries(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Mapping(entries) => entries,
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) | Value::Sequence(_) => {
            &[]
        }
    }
}
