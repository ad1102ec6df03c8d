//! Masks as policy words them: what stands in for a sealed value, and which of several wins.
//! Says nothing about bytes; what a strategy makes of a type is the enforcing side's.

use std::cmp::{Ordering, Reverse};

/// How a sealed column's values are replaced. Ordered by strictness, weakest first (`max` is the strictest):
/// of two partial masks the one that keeps fewer characters is stricter, of two that generalize the coarser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Deterministic authenticated encryption under a key of the label: equal values give equal tokens.
    Token,
    /// A keyed digest under a key of the label: equal values give equal digests.
    Hash,
    /// First and last characters kept, never more than half in sum; text kin only.
    Partial {
        first: u16,
        last: u16,
    },
    Generalize(Generalize),
    Redact,
    Nullify,
    /// The statement is refused.
    Refuse,
}

/// How coarse values become. A type for which nothing is said becomes NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generalize {
    /// Dates and timestamps become the first day of theirs.
    pub to: Period,
    /// Numbers become the multiple of this at or below them.
    pub bucket: Option<u64>,
    /// Addresses become the network of so many bits they are in.
    pub ipv4: u8,
    pub ipv6: u8,
}

/// Coarser is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    Month,
    Year,
}

impl Generalize {
    /// What a mask that says nothing more makes of dates and addresses.
    pub const DEFAULT: Self = Self { to: Period::Year, bucket: None, ipv4: 24, ipv6: 48 };

    /// The coarser of both in every respect.
    fn coarsest(self, other: Self) -> Self {
        let bucket = match (self.bucket, other.bucket) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (None, _) | (_, None) => None,
        };
        Self { to: self.to.max(other.to), bucket, ipv4: self.ipv4.min(other.ipv4), ipv6: self.ipv6.min(other.ipv6) }
    }

    fn strictness(self) -> [Reverse<u64>; 4] {
        let to = match self.to {
            Period::Month => 1,
            Period::Year => 0,
        };
        // Without a bucket numbers become NULL: stricter than any. `Reverse` of a smaller number is greater.
        let bucket = self.bucket.map_or(0, |bucket| u64::MAX - bucket);
        [to, bucket, u64::from(self.ipv4), u64::from(self.ipv6)].map(Reverse)
    }
}

impl Mask {
    /// The name of the strategy in policies and records.
    pub fn name(self) -> &'static str {
        match self {
            Mask::Token => "token",
            Mask::Hash => "hash",
            Mask::Partial { .. } => "partial",
            Mask::Generalize(_) => "generalize",
            Mask::Redact => "redact",
            Mask::Nullify => "nullify",
            Mask::Refuse => "refuse",
        }
    }

    /// What holds where both do: the stricter, and of two that generalize the coarser in every respect, for neither
    /// need be coarser in all of them.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Mask::Generalize(one), Mask::Generalize(other)) => Mask::Generalize(one.coarsest(other)),
            (one, other) => one.max(other),
        }
    }

    /// Compared in order. `Reverse` makes keeping less the stricter; the last parts only break ties.
    fn strictness(self) -> (u8, [Reverse<u64>; 4]) {
        let none = [Reverse(0); 4];
        match self {
            Mask::Token => (0, none),
            Mask::Hash => (1, none),
            Mask::Partial { first, last } => {
                let kept = u64::from(first) + u64::from(last);
                (2, [Reverse(kept), Reverse(first.into()), Reverse(0), Reverse(0)])
            }
            Mask::Generalize(how) => (3, how.strictness()),
            Mask::Redact => (4, none),
            Mask::Nullify => (5, none),
            Mask::Refuse => (6, none),
        }
    }
}

impl Ord for Mask {
    fn cmp(&self, other: &Self) -> Ordering {
        self.strictness().cmp(&other.strictness())
    }
}

impl PartialOrd for Mask {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether a NULL in a sealed column is seen to be one. The stricter is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Nulls {
    /// NULL stays NULL.
    #[default]
    Keep,
    /// A NULL comes out as some value would.
    Hide,
}

/// Whether a sealed column may be compared with values of the client's own, each of which is counted. The stricter is
/// greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Lookup {
    Equality,
    #[default]
    Refused,
}

/// What policy says about one labelled column for one principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMask {
    pub label: String,
    pub mask: Mask,
    pub nulls: Nulls,
    pub lookup: Lookup,
    /// The rule whose mask won.
    pub rule: String,
}

impl ColumnMask {
    /// What the gateway seals by itself: no rule names it.
    pub fn built_in(label: &str) -> Self {
        let (mask, nulls, lookup) = (Mask::Redact, Nulls::Keep, Lookup::Refused);
        Self { label: label.to_owned(), mask, nulls, lookup, rule: "built-in".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COARSE: Generalize = Generalize { to: Period::Year, bucket: Some(10), ipv4: 8, ipv6: 64 };
    const FINE: Generalize = Generalize { to: Period::Month, bucket: Some(1000), ipv4: 24, ipv6: 32 };

    #[test]
    fn strategies_are_ordered_as_the_strictest_wins() {
        let rising = [
            Mask::Token,
            Mask::Hash,
            Mask::Partial { first: 4, last: 4 },
            Mask::Partial { first: 2, last: 4 },
            Mask::Partial { first: 0, last: 4 },
            Mask::Generalize(FINE),
            Mask::Generalize(COARSE),
            Mask::Generalize(Generalize { bucket: Some(20), ..COARSE }),
            Mask::Generalize(Generalize { bucket: None, ..COARSE }),
            Mask::Generalize(Generalize { bucket: None, ipv4: 0, ..COARSE }),
            Mask::Redact,
            Mask::Nullify,
            Mask::Refuse,
        ];
        for (index, stricter) in rising.iter().enumerate() {
            for weaker in &rising[..index] {
                assert!(weaker < stricter, "{weaker:?} {stricter:?}");
                let both = weaker.and(*stricter);
                assert_eq!(both, stricter.and(*weaker), "the order of rules never matters");
                assert!(both >= *stricter, "{weaker:?} {stricter:?}");
            }
        }
    }

    #[test]
    fn two_that_generalize_are_coarsest_in_every_respect() {
        let both = Generalize { to: Period::Year, bucket: Some(1000), ipv4: 8, ipv6: 32 };
        assert_eq!(Mask::Generalize(COARSE).and(Mask::Generalize(FINE)), Mask::Generalize(both));
        let without = Generalize { bucket: None, ..FINE };
        assert_eq!(COARSE.coarsest(without).bucket, None);
    }
}
