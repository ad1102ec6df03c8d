//! The ledger's arithmetic against counting each row with its time.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use exeat_policy::Moment;
use exeat_policy::ledger::{BUCKETS, Bucket, Budget, CHUNK_MAX, CHUNK_MIN, Purse, Reservation, Resets, Want, chunk};
use proptest::prelude::*;

const HOUR: Duration = Duration::from_hours(1);

fn at(millis: i64) -> Moment {
    Moment::from_unix_millis(millis)
}

fn buckets(counted: &BTreeMap<Moment, u64>) -> Vec<Bucket> {
    counted.iter().map(|(ends_at, used)| Bucket { ends_at: *ends_at, used: *used }).collect()
}

proptest! {
    /// Against the truth, which keeps the time of every row: within no window does more leave than the budget, and what
    /// left counts no longer than a bucket past its window.
    #[test]
    fn no_window_sees_more_than_its_budget(
        amount in 0_u64..200,
        start in -5_000_000_i64..5_000_000,
        asks in prop::collection::vec((0_i64..900_000, 0_u64..40, 0_u64..80), 1..200),
    ) {
        let budget = Budget { amount, window: HOUR };
        let mut counted = BTreeMap::new();
        let mut truth: Vec<(i64, u64)> = Vec::new();
        let mut now = start;
        for (pause, at_least, more) in asks {
            now += pause;
            let want = Want { at_least, at_most: at_least + more / 2, ahead: more };
            let hour = 3_600_000;
            let within = |from: i64| truth.iter().filter(|(t, _)| *t > from).map(|(_, n)| n).sum::<u64>();
            match budget.reserve(&buckets(&counted), want, at(now)) {
                Reservation::Reserved { amount: reserved, bucket, left } => {
                    prop_assert_eq!(left, amount - budget.used(&buckets(&counted), at(now)) - reserved);
                    prop_assert!((want.at_least..=want.at_most.max(want.ahead)).contains(&reserved));
                    prop_assert!(within(now - hour) + reserved <= amount);
                    prop_assert!(bucket > at(now) && bucket <= at(now + hour / i64::from(BUCKETS)));
                    *counted.entry(bucket).or_insert(0) += reserved;
                    truth.push((now, reserved));
                }
                Reservation::Exhausted { used, limit, resets_at } => {
                    prop_assert_eq!(limit, amount);
                    prop_assert!(used <= limit && limit - used < want.at_least);
                    let longest = hour + hour / i64::from(BUCKETS);
                    prop_assert!(within(now - longest) + want.at_least > amount, "refused without need");
                    match resets_at {
                        Resets::Never => prop_assert!(want.at_least > amount),
                        Resets::At(then) => {
                            prop_assert!(then > at(now) && then <= at(now + longest));
                            let again = |when| budget.reserve(&buckets(&counted), want, when);
                            let had = matches!(again(then), Reservation::Reserved { .. });
                            prop_assert!(had, "promised and not kept");
                            let early = again(at(then.unix_millis() - 1));
                            let refused = matches!(early, Reservation::Exhausted { .. });
                            prop_assert!(refused, "it could have been promised earlier");
                        }
                    }
                }
            }
        }
    }

    /// Many statements reserve in chunks, release row by row and stop anywhere, some without giving back: the sum of what
    /// was released never passes the budget, and a crash counts at most its chunk too much.
    #[test]
    fn chunks_release_no_more_than_was_reserved(
        amount in 0_u64..5000,
        statements in prop::collection::vec((0_u64..3000, 1_u64..5, any::<bool>()), 1..12),
    ) {
        let budget = Budget { amount, window: HOUR };
        let mut counted: BTreeMap<Moment, u64> = BTreeMap::new();
        let (mut released, mut lost) = (0_u64, 0_u64);
        for (rows, occurrences, crashes) in statements {
            let mut purse = Purse::EMPTY;
            let mut bucket = None;
            for _ in 0..rows {
                if let Err(missing) = purse.spend(occurrences) {
                    let want = Want { at_least: missing, at_most: chunk(purse.spent()).max(missing), ahead: 0 };
                    match budget.reserve(&buckets(&counted), want, at(0)) {
                        Reservation::Reserved { amount: reserved, bucket: into, .. } => {
                            *counted.entry(into).or_insert(0) += reserved;
                            bucket = Some(into);
                            purse.add(reserved);
                            prop_assert_eq!(purse.spend(occurrences), Ok(()));
                        }
                        Reservation::Exhausted { .. } => break,
                    }
                }
            }
            released += purse.spent();
            prop_assert!(purse.unspent() <= CHUNK_MAX);
            match bucket {
                Some(bucket) if !crashes => *counted.get_mut(&bucket).unwrap() -= purse.unspent(),
                Some(_) | None => lost += purse.unspent(),
            }
            let used = budget.used(&buckets(&counted), at(0));
            prop_assert_eq!(used, released + lost);
            prop_assert!(released <= amount);
        }
    }
}

#[test]
fn a_chunk_grows_with_the_result_and_shrinks_near_the_limit() {
    assert_eq!(chunk(0), CHUNK_MIN);
    assert_eq!(chunk(1000), 500);
    assert_eq!(chunk(u64::MAX), CHUNK_MAX);
    let reserved = |left, at_least| {
        let budget = Budget { amount: left, window: HOUR };
        match budget.reserve(&[], Want { at_least, at_most: chunk(1000).max(at_least), ahead: 5000 }, at(0)) {
            Reservation::Reserved { amount, .. } => amount,
            Reservation::Exhausted { .. } => 0,
        }
    };
    assert_eq!([1_000_000, 64_000, 32_000, 80, 7, 0].map(|left| reserved(left, 1)), [5000, 1000, 500, 10, 1, 0]);
    assert_eq!(reserved(80, 30), 30, "what the next row needs it gets whole");
}

#[test]
fn an_empty_purse_releases_nothing() {
    let mut purse = Purse::EMPTY;
    assert_eq!(purse.spend(1), Err(1));
    purse.add(3);
    assert_eq!(purse.spend(4), Err(1));
    assert_eq!((purse.spent(), purse.unspent()), (0, 3), "what does not suffice takes nothing");
    assert_eq!(purse.spend(3), Ok(()));
    assert_eq!(purse.spend(0), Ok(()), "a row without base rows costs nothing");
    assert_eq!((purse.spent(), purse.unspent()), (3, 0));
    purse.add(5);
    assert_eq!((purse.empty(), purse.spent(), purse.unspent()), (5, 3, 0));
    assert_eq!(purse.spend(1), Err(1), "what was taken out is not there to spend");
}

#[test]
fn what_was_counted_counts_at_least_a_window() {
    let budget = Budget { amount: 1, window: HOUR };
    let now = at(7_000);
    let Reservation::Reserved { bucket, .. } = budget.reserve(&[], Want { at_least: 1, at_most: 1, ahead: 0 }, now)
    else {
        panic!("an empty counter has room");
    };
    let kept = [Bucket { ends_at: bucket, used: 1 }];
    assert_eq!(budget.used(&kept, now.after(HOUR)), 1);
    assert_eq!(budget.used(&kept, budget.forgotten_at(bucket)), 0);
}

#[test]
fn of_two_budgets_the_smaller_amount_holds_over_the_longer_window() {
    let (few, long) = (Budget { amount: 5, window: HOUR }, Budget { amount: 50, window: HOUR * 24 });
    let both = Budget { amount: 5, window: HOUR * 24 };
    assert_eq!((few.and(long), long.and(few)), (both, both));
}
