//! Limits as policy words them: how much of something a principal may use up within a window. Counting is the store's.

use std::time::Duration;

use crate::ledger::{Budget, Unit};

/// How many distinct values of sealed columns a principal may try within a window, for each label of each relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeLimit {
    pub probes: u32,
    /// It rolls: a value counts for this long from when it was first tried.
    pub window: Duration,
}

impl ProbeLimit {
    /// Where no rule says anything.
    pub const DEFAULT: Self = Self { probes: 20, window: Duration::from_hours(24) };

    /// What holds where both do: the smaller number over the longer window, for neither need be stricter in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { probes: self.probes.min(other.probes), window: self.window.max(other.window) }
    }
}

/// `limit:` of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) window: Duration,
    pub(crate) probes: Option<u32>,
    pub(crate) rows: Option<u64>,
    pub(crate) cells: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) refusals: Option<u64>,
}

impl Limits {
    pub(crate) fn probe_limit(self) -> Option<ProbeLimit> {
        self.probes.map(|probes| ProbeLimit { probes, window: self.window })
    }

    pub(crate) fn budget(self, unit: Unit) -> Option<Budget> {
        let amount = match unit {
            Unit::Rows => self.rows,
            Unit::Bytes => self.bytes,
            Unit::Cells => self.cells,
            Unit::Probes => self.probes.map(u64::from),
            Unit::Refusals => self.refusals,
            // What `hold` says where no `limit` does.
            Unit::UnapprovedRows => None,
        };
        amount.map(|amount| Budget { amount, window: self.window })
    }

    /// Does it limit more than what is tried of sealed columns?
    pub(crate) fn counts(self) -> bool {
        [self.rows, self.cells, self.bytes, self.refusals].iter().any(Option::is_some)
    }
}

/// The limit that holds for one principal, and the first rule that gives its number; `None`: no rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedLimit {
    pub limit: ProbeLimit,
    pub rule: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_limits_the_smaller_number_holds_over_the_longer_window() {
        let hour = ProbeLimit { probes: 5, window: Duration::from_hours(1) };
        let both = ProbeLimit { probes: 5, window: Duration::from_hours(24) };
        assert_eq!(hour.and(ProbeLimit::DEFAULT), both);
        assert_eq!(ProbeLimit::DEFAULT.and(hour), both);
    }
}
