//! Whose signatures count for a log. A gateway's logs have its name, those begun after one was kept aside a number behind
//! it, and all of them the same key: whoever has it under one of these names has it for all.

use super::chain::Chain;
use crate::tree::{Checkpoint, KeyName, Note, VerifierKey};

/// What a checkpoint says of itself, whoever signed it.
pub(super) fn unverified(note: &[u8]) -> Result<Checkpoint, String> {
    let words = |problem: &dyn std::error::Error| crate::chain(problem);
    let parsed = Note::parse(note).map_err(|problem| words(&problem))?;
    let text = parsed.to_string();
    let end = text.rfind("\n\n").map_or(text.len(), |at| at + 1);
    Checkpoint::parse(text.get(..end).unwrap_or_default()).map_err(|problem| words(&problem))
}

/// The checkpoint, if one of the keys signed it that counted when it was made. Without `by_key`, what it says about itself.
pub(super) fn opened(note: &[u8], keys: &[VerifierKey], chain: &Chain, by_key: bool) -> Result<Checkpoint, String> {
    let said = unverified(note)?;
    if !by_key {
        return Ok(said);
    }
    let mut known = for_log(said.origin(), keys);
    if known.is_empty() {
        return Err(format!("it is of the log {:?}, and none of the given keys is of that", said.origin()));
    }
    let size = said.head().size();
    known.retain(|key| chain.counts(key, size));
    if known.is_empty() {
        return Err(format!("at {size} records another key signs than those that are known"));
    }
    Checkpoint::open(note, said.origin(), &known).map_err(|problem| crate::chain(&problem))
}

/// The given keys, under the name of this log.
pub(super) fn for_log(origin: &str, keys: &[VerifierKey]) -> Vec<VerifierKey> {
    let Ok(name) = origin.parse::<KeyName>() else { return Vec::new() };
    let ours = keys.iter().filter(|key| is_of(key.name().as_str(), origin));
    let mut found: Vec<VerifierKey> = Vec::new();
    for key in ours.map(|key| VerifierKey::new(name.clone(), *key.public_key())) {
        if !found.contains(&key) {
            found.push(key);
        }
    }
    found
}

/// Whether both are logs of one gateway.
fn is_of(key: &str, origin: &str) -> bool {
    key == origin
        || gateway(origin) == Some(key)
        || gateway(key).is_some_and(|name| Some(name) == gateway(origin) || name == origin)
}

/// Without the number of a log behind it.
fn gateway(origin: &str) -> Option<&str> {
    let (name, number) = origin.rsplit_once('/')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_count_for_the_logs_of_their_gateway_only() {
        for (key, origin, counts) in [
            ("gw", "gw", true),
            ("gw", "gw/1", true),
            ("gw/2", "gw", true),
            ("gw/2", "gw/11", true),
            ("gw", "gw/x", false),
            ("gw", "gw/", false),
            ("gw", "gw2", false),
            ("a", "b", false),
            ("a/1", "b/1", false),
            ("gw/1", "gw/1/1", true),
        ] {
            assert_eq!(is_of(key, origin), counts, "{key} {origin}");
        }
    }
}
