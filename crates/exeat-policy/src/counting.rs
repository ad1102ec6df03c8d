//! One answer counted against what a ruling left owed: may what was kept leave, does a human have to be asked, or is the
//! statement at its end. Pure arithmetic. Keeping rows and releasing them is the data plane's; that what leaves within a
//! window is on the ledger too, the store's.

use std::collections::BTreeSet;

use crate::approval::Ceiling;
use crate::grant::Covered;
use crate::ruling::{Duty, Measure};

/// The counters of one answer: a Query's result, or a cursor's or portal's over all its fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counting {
    relations: Vec<Counter>,
    /// An approval covers the statement.
    ceiling: Option<Ceiling>,
    passed: Option<Passed>,
}

/// What has been passed; it stays so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Passed {
    rules: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Counter {
    duty: Duty,
    /// How many rows of the relation one row of the answer holds.
    times: u32,
    rows: u64,
    bytes: u64,
    affected: u64,
}

/// Where an answer stands after one more row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// Nothing is passed.
    Within,
    /// These rules hold it: what is kept stays, this row with it.
    Past { rules: BTreeSet<String> },
    /// What was approved is used up: this row does not leave, and the statement ends.
    Ended,
}

/// Proof that an answer, or the part of it that a fetch asked for, has passed nothing: what is kept of it may leave. Made
/// by [`Counting::within`] only.
#[derive(Debug, PartialEq, Eq)]
pub struct WithinThreshold(());

impl Counting {
    /// Each duty with how many rows of its relation one row of the answer holds.
    pub fn new(duties: impl IntoIterator<Item = (Duty, u32)>, ceiling: Option<Ceiling>) -> Self {
        let counter = |(duty, times)| Counter { duty, times, rows: 0, bytes: 0, affected: 0 };
        Self { relations: duties.into_iter().map(counter).collect(), ceiling, passed: None }
    }

    /// Do rows have to be kept until more is known? Under a ceiling they leave one by one.
    pub fn keeps(&self) -> bool {
        // What a write gives back stays as long as what it did may be taken back.
        let threshold = |counter: &Counter| {
            let measures = [Measure::Rows, Measure::Bytes];
            let rows = counter.times > 0 && measures.iter().any(|measure| counter.duty.threshold(*measure).is_some());
            rows || counter.duty.threshold(Measure::Affected).is_some()
        };
        self.ceiling.is_none() && self.relations.iter().any(threshold)
    }

    /// One more row. `scale`: how many rows its values hold for one, where they hold many; `bytes`: its length.
    pub fn row(&mut self, scale: u64, bytes: u64) -> Passage {
        for counter in self.relations.iter_mut().filter(|counter| counter.times > 0) {
            counter.rows = counter.rows.saturating_add(u64::from(counter.times).saturating_mul(scale));
            counter.bytes = counter.bytes.saturating_add(bytes);
        }
        self.passage()
    }

    /// More cannot be kept: that counts as passing whatever is in force, for nobody can know that it will not.
    pub fn full(&mut self) -> Passage {
        let first = |counter: &Counter| {
            let measures: &[Measure] = match counter.times {
                0 => &[Measure::Affected],
                _ => &[Measure::Rows, Measure::Bytes, Measure::Affected],
            };
            let rule = |measure: &Measure| counter.duty.threshold(*measure).map(|threshold| threshold.rule.clone());
            measures.iter().filter_map(rule).collect::<Vec<_>>()
        };
        let rules: BTreeSet<String> = self.relations.iter().flat_map(first).collect();
        self.passed.get_or_insert_default().rules.extend(rules);
        self.passage()
    }

    /// May what was kept so far leave? Asked when the answer ends, or a fetch does.
    pub fn within(&self) -> Option<WithinThreshold> {
        self.passed.is_none().then_some(WithinThreshold(()))
    }

    /// Rows that a write changed.
    pub fn affected(&mut self, rows: u64) -> Passage {
        for counter in &mut self.relations {
            counter.affected = counter.affected.saturating_add(rows);
        }
        self.passage()
    }

    /// Going on under an approval: what was kept counts, for it leaves now, and a human may have allowed less than is
    /// there. Then it has ended before anything left.
    #[must_use]
    pub fn under(self, covered: &Covered) -> Self {
        let lift = |mut counter: Counter| {
            counter.duty.thresholds.retain(|threshold| !covered.lifts(&threshold.rule));
            counter
        };
        let relations = self.relations.into_iter().map(lift).collect();
        let mut under = Self { relations, ceiling: Some(covered.ceiling()), passed: None };
        under.passage();
        under
    }

    /// Another answer of the same message: what that has counted of the same relations counts here.
    pub fn follow(&mut self, other: &Self) {
        for counter in &mut self.relations {
            let before = other.relations.iter().find(|before| before.duty.relation == counter.duty.relation);
            let Some(before) = before else { continue };
            counter.rows = counter.rows.saturating_add(before.rows);
            counter.bytes = counter.bytes.saturating_add(before.bytes);
            counter.affected = counter.affected.saturating_add(before.affected);
        }
    }

    /// May it go on? Under an approval that allows less than was counted before it came it may not.
    pub fn has_ended(&self) -> bool {
        self.ceiling.is_some() && self.passed.is_some()
    }

    /// Rows of each duty's relation so far, for whoever is asked.
    pub fn rows(&self) -> impl Iterator<Item = (&Duty, u64)> {
        self.relations.iter().map(|counter| (&counter.duty, counter.rows))
    }

    /// Bytes of the answer so far.
    pub fn bytes(&self) -> u64 {
        self.relations.iter().map(|counter| counter.bytes).max().unwrap_or_default()
    }

    fn passage(&mut self) -> Passage {
        let past = |counter: &Counter| {
            let rows = counter.duty.passed(Measure::Rows, counter.rows);
            let bytes = counter.duty.passed(Measure::Bytes, counter.bytes);
            let affected = counter.duty.passed(Measure::Affected, counter.affected);
            rows.chain(bytes).chain(affected).map(str::to_owned).collect::<Vec<_>>()
        };
        let rules: BTreeSet<String> = self.relations.iter().flat_map(past).collect();
        let over = self.ceiling.is_some_and(|ceiling| self.relations.iter().any(|counter| counter.is_over(ceiling)));
        if over || !rules.is_empty() {
            self.passed.get_or_insert_default().rules.extend(rules);
        }
        match (&self.passed, self.ceiling) {
            (None, _) => Passage::Within,
            (Some(_), Some(_)) => Passage::Ended,
            (Some(passed), None) => Passage::Past { rules: passed.rules.clone() },
        }
    }
}

impl Counter {
    fn is_over(&self, ceiling: Ceiling) -> bool {
        let Ceiling { rows, bytes, affected } = ceiling;
        rows.is_some_and(|rows| rows < self.rows)
            || bytes.is_some_and(|bytes| bytes < self.bytes)
            || affected.is_some_and(|affected| affected < self.affected)
    }
}
