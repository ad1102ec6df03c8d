//! How much an approval lets through, how often and until when. An approver may narrow what is asked, never widen it, and
//! of several approvals the narrowest holds in every respect.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Most runs that one approval may be good for.
pub const USES_MAX: u32 = 1000;

/// What one run may release, counted as thresholds count. `None`: as much as the result has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// Of each protected relation.
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    /// Rows changed by a write.
    pub affected: Option<u64>,
}

impl Ceiling {
    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let Self { rows, bytes, affected } = other;
        Self {
            rows: smaller(self.rows, rows),
            bytes: smaller(self.bytes, bytes),
            affected: smaller(self.affected, affected),
        }
    }

    fn is_within(self, other: Self) -> bool {
        self.and(other) == self
    }
}

fn smaller(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

/// A ceiling for each run, how many runs, and how long after the approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    pub ceiling: Ceiling,
    pub uses: u32,
    pub lasts: Duration,
}

impl Scope {
    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            ceiling: self.ceiling.and(other.ceiling),
            uses: self.uses.min(other.uses),
            lasts: self.lasts.min(other.lasts),
        }
    }

    /// Does it allow nothing that the other does not?
    pub fn is_within(self, other: Self) -> bool {
        self.ceiling.is_within(other.ceiling) && self.uses <= other.uses && self.lasts <= other.lasts
    }

    /// An approval of no run or of no time is a denial that does not say so.
    pub fn is_empty(self) -> bool {
        self.uses == 0 || self.lasts.is_zero()
    }
}
