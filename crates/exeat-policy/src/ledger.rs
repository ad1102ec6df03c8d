//! The exposure ledger's arithmetic: how much of something an asker has seen within a window, how much may be seen now,
//! and when more. Keeping the counters, and reserving on one of them once at a time, is the store's.
//!
//! *The window rolls.* With fixed windows the end of one and the beginning of the next give twice the allowance within
//! minutes. A counter that rolls exactly would have to keep every row's time, so amounts are kept in buckets of a
//! [`BUCKETS`]th of the window: what falls into a bucket counts until a whole window after the bucket's end. It counts
//! for at least the window and for at most a bucket more; never for less.
//!
//! *Reserved before released.* Rows are reserved in the ledger, in chunks, before they leave; what is left of the last
//! chunk is there for the asker's next statement, and given back when none comes. It is spent only while its bucket is
//! not over: what leaves later is counted later. A crash counts at most the chunks too much and never a row too little.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decision::RelationName;
use crate::moment::{Moment, millis};
use crate::principal::Asker;

/// Parts of a window: a day's allowance comes back by the hour.
pub const BUCKETS: u32 = 24;

/// Smallest chunk, for short results are the most frequent.
pub const CHUNK_MIN: u64 = 16;

/// Largest chunk: what a crash may count too much, and few enough reservations that they cost nothing beside the rows.
pub const CHUNK_MAX: u64 = 4096;

/// What is left is shared by so many: nobody gets more of it at once, unless the next row needs more.
const SHARE_OF_LEFT: u64 = 8;

/// As that, of what nobody needs yet.
const SHARE_THAT_LIES: u64 = 64;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Base rows of a protected relation that flow into what leaves.
    Rows,
    /// Such rows that left without a human's approval: what `hold: {rows}` bounds where no `limit` says otherwise.
    UnapprovedRows,
    /// Bytes of results that rows of a protected relation flow into.
    Bytes,
    /// Values of sealed columns that leave masked.
    Cells,
    /// Values of sealed columns that are tried.
    Probes,
    /// Statements refused.
    Refusals,
}

impl Unit {
    pub const ALL: &'static [Unit] =
        &[Unit::Rows, Unit::UnapprovedRows, Unit::Bytes, Unit::Cells, Unit::Probes, Unit::Refusals];

    /// The name in policies, records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Rows => "rows",
            Unit::UnapprovedRows => "unapproved_rows",
            Unit::Bytes => "bytes",
            Unit::Cells => "cells",
            Unit::Probes => "probes",
            Unit::Refusals => "refusals",
        }
    }
}

/// What a counter is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Counted {
    /// Refusals.
    Target,
    /// Rows, approved or not, and bytes.
    Relation(RelationName),
    /// Cells and probes.
    Label { label: String, relation: RelationName },
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterKey {
    pub asker: Asker,
    pub target: String,
    pub counted: Counted,
    pub unit: Unit,
}

/// So much within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub amount: u64,
    pub window: Duration,
}

/// What was counted up to a moment: one row of the store. Where policy has changed the window, a counter has buckets of
/// different lengths; only their ends matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    pub ends_at: Moment,
    pub used: u64,
}

/// What a statement wants to reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// What the next row needs: less is of no use.
    pub at_least: u64,
    /// What it would rather have, see [`chunk`].
    pub at_most: u64,
    /// What it would have for statements that may follow. 0: nothing for them.
    pub ahead: u64,
}

/// The answer to a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// To be added to the bucket before anything leaves.
    Reserved {
        amount: u64,
        bucket: Moment,
        /// What others may still reserve.
        left: u64,
    },
    Exhausted {
        used: u64,
        limit: u64,
        resets_at: Resets,
    },
}

/// When what was wanted will be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resets {
    At(Moment),
    /// One row alone is more than the whole budget.
    Never,
}

impl Budget {
    /// What holds where both do: the smaller amount over the longer window, for neither need be stricter in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { amount: self.amount.min(other.amount), window: self.window.max(other.window) }
    }

    /// The end of the bucket that something happening now falls into. The same for every gateway.
    pub fn bucket(&self, now: Moment) -> Moment {
        let length = millis(self.window / BUCKETS).max(1);
        let into = now.unix_millis().rem_euclid(length);
        Moment::from_unix_millis(now.unix_millis().saturating_add(length - into))
    }

    /// When a bucket counts no more. From then on it need not be kept.
    pub fn forgotten_at(&self, bucket: Moment) -> Moment {
        bucket.after(self.window)
    }

    /// How much counts at this moment.
    pub fn used(&self, buckets: &[Bucket], now: Moment) -> u64 {
        let counting = buckets.iter().filter(|bucket| self.forgotten_at(bucket.ends_at) > now);
        counting.fold(0, |sum, bucket| sum.saturating_add(bucket.used))
    }

    /// How much may be reserved now, given everything counted so far.
    pub fn reserve(&self, buckets: &[Bucket], want: Want, now: Moment) -> Reservation {
        let used = self.used(buckets, now);
        let left = self.amount.saturating_sub(used);
        if want.at_least <= left {
            // Others reserve from the same, and what they hold unused is missing there.
            let fair = want.at_most.min(left / SHARE_OF_LEFT).max(want.ahead.min(may_lie(left)));
            let amount = fair.clamp(want.at_least, left);
            return Reservation::Reserved { amount, bucket: self.bucket(now), left: left - amount };
        }
        let resets_at = self.resets_at(buckets, want.at_least, now);
        Reservation::Exhausted { used, limit: self.amount, resets_at }
    }

    /// The first moment at which so much is left, if nothing is added until then.
    pub fn resets_at(&self, buckets: &[Bucket], amount: u64, now: Moment) -> Resets {
        if amount > self.amount {
            return Resets::Never;
        }
        let mut ends: Vec<Moment> = buckets.iter().map(|bucket| self.forgotten_at(bucket.ends_at)).collect();
        ends.sort_unstable();
        let has_room = |at: &Moment| self.amount.saturating_sub(self.used(buckets, *at)) >= amount;
        let later = ends.into_iter().filter(|end| *end > now);
        std::iter::once(now).chain(later).find(has_room).map_or(Resets::Never, Resets::At)
    }
}

/// How much to reserve next: half as much again as has been released, so that a long result asks rarely and a short one
/// takes little. Near the limit [`Budget::reserve`] gives less.
pub fn chunk(released: u64) -> u64 {
    (released / 2).clamp(CHUNK_MIN, CHUNK_MAX)
}

/// How much may be reserved for statements that nobody has sent yet, with so much left for all: near the limit nothing.
pub fn may_lie(left: u64) -> u64 {
    left / SHARE_THAT_LIES
}

/// What is reserved for one running statement and what of it is spent.
#[derive(Debug, PartialEq, Eq)]
pub struct Purse {
    reserved: u64,
    spent: u64,
}

impl Purse {
    /// Empty: nothing can be released from it.
    pub const EMPTY: Self = Self { reserved: 0, spent: 0 };

    /// After the store has the amount on file, and only then.
    pub fn add(&mut self, reserved: u64) {
        self.reserved = self.reserved.saturating_add(reserved);
    }

    /// Takes out what is unspent: it is for others, or may not be spent any more.
    pub fn empty(&mut self) -> u64 {
        let unspent = self.unspent();
        self.reserved = self.spent;
        unspent
    }

    /// Takes what a row needs, or says how much has to be reserved first; then nothing is taken.
    pub fn spend(&mut self, amount: u64) -> Result<(), u64> {
        match self.unspent().checked_sub(amount) {
            Some(_) => {
                self.spent = self.spent.saturating_add(amount);
                Ok(())
            }
            None => Err(amount - self.unspent()),
        }
    }

    pub fn spent(&self) -> u64 {
        self.spent
    }

    pub fn unspent(&self) -> u64 {
        self.reserved.saturating_sub(self.spent)
    }
}
