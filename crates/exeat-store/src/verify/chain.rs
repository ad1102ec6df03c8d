//! Signing keys that handed over to each other. A line names the next key, a checkpoint that covers it is signed by both: so
//! whoever trusts the older key may trust the newer one, and the older signs nothing behind that.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::keys;
use crate::tree::{Note, TreeHash, VerifierKey};

/// What a line says.
#[derive(Debug)]
pub(super) struct RotationLine {
    seq: u64,
    old: VerifierKey,
    new: VerifierKey,
}

impl RotationLine {
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn read(seq: u64, old: Option<String>, new: Option<String>) -> Option<Self> {
        Some(Self { seq, old: old?.parse().ok()?, new: new?.parse().ok()? })
    }
}

/// One key that took over.
#[derive(Debug, Clone)]
pub struct HandedOver {
    /// The line that names it.
    pub seq: u64,
    /// Records under the checkpoint that both signed.
    pub size: u64,
    pub old: VerifierKey,
    pub new: VerifierKey,
    /// Whether it counts: it, or one that leads to it, was given.
    pub is_trusted: bool,
}

/// All of one log, in order.
#[derive(Debug, Default)]
pub(super) struct Chain {
    links: Vec<HandedOver>,
}

impl Chain {
    /// `notes`: checkpoints that two keys signed. `roots`: the log's own. Lines that are not `signed` yet hand over nothing.
    pub(super) fn of(
        lines: &[RotationLine],
        notes: &[Vec<u8>],
        (roots, signed): (&BTreeMap<u64, TreeHash>, u64),
    ) -> (Self, Vec<Finding>) {
        let (mut chain, mut problems) = (Self::default(), Vec::new());
        for line in lines {
            let problem = |problem: &str| Finding::Rotation { seq: line.seq, problem: problem.to_owned() };
            if chain.links.last().is_some_and(|last| last.new != line.old) {
                problems.push(problem("but from a key that does not sign"));
                continue;
            }
            let both = [line.old.clone(), line.new.clone()];
            let covers = |note: &Vec<u8>| {
                let said = keys::unverified(note).ok().filter(|said| said.head().size() > line.seq)?;
                let size = said.head().size();
                let is_ours = roots.get(&size) == Some(said.head().root()) && said.origin() == line.old.name().as_str();
                let by_both = Note::parse(note).is_ok_and(|note| note.verify_every(&both).is_ok());
                (is_ours && by_both).then_some(size)
            };
            match notes.iter().filter_map(covers).min() {
                Some(size) => chain.links.push(HandedOver {
                    seq: line.seq,
                    size,
                    old: line.old.clone(),
                    new: line.new.clone(),
                    is_trusted: false,
                }),
                None if line.seq < signed => problems.push(problem("and no checkpoint is signed by both")),
                None => {}
            }
        }
        (chain, problems)
    }

    /// Adds keys that known ones lead to: the next, and those before, whose signatures the next one's tree holds.
    pub(super) fn extend(&self, known: &mut Vec<VerifierKey>) {
        for link in &self.links {
            add(known, &link.old, &link.new);
        }
        for link in self.links.iter().rev() {
            add(known, &link.new, &link.old);
        }
    }

    /// Takes away those that signed no more at the log's end: they do not sign the next log.
    pub(super) fn leave(&self, known: &mut Vec<VerifierKey>) {
        for link in self.handed_over(known).iter().filter(|link| link.is_trusted) {
            known.retain(|key| key.public_key() != link.old.public_key());
        }
    }

    pub(super) fn handed_over(&self, known: &[VerifierKey]) -> Vec<HandedOver> {
        let is_trusted = |key: &VerifierKey| keys::for_log(key.name().as_str(), known).contains(key);
        self.links.iter().map(|link| HandedOver { is_trusted: is_trusted(&link.new), ..link.clone() }).collect()
    }

    /// Whether the key may sign a checkpoint of this size.
    pub(super) fn counts(&self, key: &VerifierKey, size: u64) -> bool {
        let from = self.links.iter().find(|link| link.new == *key).map(|link| link.size);
        let until = self.links.iter().find(|link| link.old == *key).map(|link| link.size);
        let is_in_chain = self.links.is_empty() || from.is_some() || until.is_some();
        is_in_chain && from.is_none_or(|from| size >= from) && until.is_none_or(|until| size <= until)
    }
}

fn add(known: &mut Vec<VerifierKey>, trusted: &VerifierKey, other: &VerifierKey) {
    let origin = trusted.name().as_str();
    if keys::for_log(origin, known).contains(trusted) && !keys::for_log(origin, known).contains(other) {
        known.push(other.clone());
    }
}
