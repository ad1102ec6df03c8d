//! One answer counted, row by row.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use exeat_policy::approval::{Approver, Ceiling, Demand, Event, Progress, Scope, Standing, Terms, step};
use exeat_policy::counting::{Counting, Passage};
use exeat_policy::grant::{Ask, Covered, Digest, Grant};
use exeat_policy::ruling::{Duty, Measure, Threshold};
use exeat_policy::{Asker, Moment, Person, Principal, PrincipalKind, RelationName};
use proptest::prelude::*;

fn duty(name: &str, thresholds: &[(Measure, u64, &str)]) -> Duty {
    let relation = RelationName { schema: "public".to_owned(), name: name.to_owned() };
    let threshold = |(measure, amount, rule): &(Measure, u64, &str)| Threshold {
        measure: *measure,
        amount: *amount,
        rule: (*rule).to_owned(),
    };
    let mut thresholds: Vec<Threshold> = thresholds.iter().map(threshold).collect();
    thresholds.sort();
    Duty { relation, thresholds, budgets: Vec::new() }
}

fn past(rules: &[&str]) -> Passage {
    Passage::Past { rules: rules.iter().map(|rule| (*rule).to_owned()).collect() }
}

/// What one human's approval covers.
fn covered(rules: &[&str], ceiling: Ceiling) -> Covered {
    let now = Moment::from_unix_millis(0);
    let lasts = Duration::from_mins(15);
    let asker = Asker { human: Person { issuer: "i".to_owned(), subject: "dana".to_owned() }, actor: None };
    let demand = |rule: &&str| Demand { rule: (*rule).to_owned(), quorum: 1, escalates_at: None };
    let terms = Terms {
        asker: asker.clone(),
        demands: rules.iter().map(demand).collect(),
        asked_at: now,
        decide_by: now.after(lasts),
        widest: Scope { ceiling, uses: 1, lasts },
    };
    let principal = Principal {
        issuer: "i".to_owned(),
        subject: "ann".to_owned(),
        groups: Vec::new(),
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Human,
        token_id: None,
        instance: BTreeMap::new(),
    };
    let first = Standing { first: true, ..Standing::default() };
    let by = Approver::new(&principal, rules.iter().map(|rule| ((*rule).to_owned(), first)).collect()).unwrap();
    let approve = Event::Approve { by, scope: terms.widest };
    let progress = step(&terms, &Progress::START, approve, now).unwrap().progress;
    let digest = Digest::new([0; 32]);
    let ask = Ask {
        asker,
        target: String::new(),
        database: String::new(),
        role: String::new(),
        statement: digest,
        parameters: digest,
        objects: digest,
        masks: digest,
        policy: digest,
    };
    Grant::of(&terms, &progress, ask.clone()).unwrap().covers(&ask, now).unwrap()
}

#[test]
fn the_threshold_itself_passes_and_one_more_does_not() {
    let mut counting = Counting::new([(duty("customers", &[(Measure::Rows, 100, "bulk")]), 1)], None);
    assert!(counting.keeps());
    for _ in 0..100 {
        assert_eq!(counting.row(1, 10), Passage::Within);
    }
    assert!(counting.within().is_some());
    assert_eq!(counting.row(1, 10), past(&["bulk"]));
    assert!(counting.within().is_none());
    assert_eq!(counting.row(1, 10), past(&["bulk"]), "it stays passed");
}

#[test]
fn a_row_counts_for_each_time_a_relation_stands_in_it() {
    let four = || duty("customers", &[(Measure::Rows, 100, "bulk")]);
    let mut counting = Counting::new([(four(), 4)], None);
    for _ in 0..25 {
        assert_eq!(counting.row(1, 0), Passage::Within);
    }
    assert_eq!(counting.row(1, 0), past(&["bulk"]));
    let mut packed = Counting::new([(four(), 1)], None);
    assert_eq!(packed.row(101, 0), past(&["bulk"]), "an array of a hundred and one");
    let mut counts_only = Counting::new([(four(), 0)], None);
    assert!(!counts_only.keeps());
    assert_eq!(counts_only.row(u64::MAX, u64::MAX), Passage::Within, "count(*) holds no row");
    let mut huge = Counting::new([(four(), u32::MAX)], None);
    assert_eq!(huge.row(u64::MAX, u64::MAX), past(&["bulk"]), "no sum wraps around");
}

#[test]
fn whichever_measure_or_relation_is_passed_first_holds() {
    let customers = duty("customers", &[(Measure::Rows, 10, "bulk"), (Measure::Bytes, 50, "weight")]);
    let payments = duty("payments", &[(Measure::Rows, 5, "cards")]);
    let both = || Counting::new([(customers.clone(), 1), (payments.clone(), 1)], None);
    let mut bytes = both();
    assert_eq!(bytes.row(1, 50), Passage::Within);
    assert_eq!(bytes.row(1, 1), past(&["weight"]));
    let mut rows = both();
    let last = (0..6).map(|_| rows.row(1, 0)).last();
    assert_eq!(last, Some(past(&["cards"])));
    let all = both().row(11, 51);
    assert_eq!(all, past(&["bulk", "cards", "weight"]));
}

#[test]
fn what_cannot_be_kept_is_past() {
    let mut counting = Counting::new([(duty("customers", &[(Measure::Rows, 100, "bulk")]), 1)], None);
    assert_eq!(counting.row(1, 0), Passage::Within);
    assert_eq!(counting.full(), past(&["bulk"]));
    assert!(counting.within().is_none());
    assert_eq!(counting.row(1, 0), past(&["bulk"]), "and stays so");
}

#[test]
fn under_an_approval_rows_leave_up_to_its_ceiling() {
    let counted = || Counting::new([(duty("customers", &[(Measure::Rows, 2, "bulk")]), 1)], None);
    let mut held = counted();
    while held.row(1, 0) == Passage::Within {}
    let rows = |rows| Ceiling { rows: Some(rows), ..Ceiling::default() };
    let narrow = held.clone().under(&covered(&["bulk"], rows(2)));
    assert!(!narrow.keeps() && narrow.has_ended(), "less than was counted: nothing of it leaves");
    assert!(narrow.within().is_none());
    let mut wide = held.clone().under(&covered(&["bulk"], rows(4)));
    assert!(!wide.has_ended() && wide.within().is_some());
    assert_eq!((wide.row(1, 0), wide.row(1, 0)), (Passage::Within, Passage::Ended), "three were counted before");
    let mut whole = held.clone().under(&covered(&["bulk"], Ceiling::default()));
    assert!((0..1000).all(|_| whole.row(1, 1 << 20) == Passage::Within));
    let mut light = held.under(&covered(&["bulk"], Ceiling { bytes: Some(9), ..Ceiling::default() }));
    assert_eq!((light.row(1, 9), light.row(1, 1)), (Passage::Within, Passage::Ended));
}

#[test]
fn another_rule_s_threshold_ends_what_its_approvers_did_not_see() {
    let both = duty("customers", &[(Measure::Rows, 2, "bulk"), (Measure::Rows, 4, "huge")]);
    let mut counting = Counting::new([(both, 1)], None).under(&covered(&["bulk"], Ceiling::default()));
    let passages: Vec<Passage> = (0..5).map(|_| counting.row(1, 0)).collect();
    assert_eq!(passages[3], Passage::Within);
    assert_eq!(passages[4], Passage::Ended);
}

#[test]
fn what_is_not_owed_is_never_past() {
    let mut counting = Counting::new([(duty("customers", &[(Measure::Affected, 1, "writes")]), 1)], None);
    assert!(counting.keeps(), "what it did may have to be taken back");
    assert!((0..1000).all(|_| counting.row(1000, 1000) == Passage::Within));
    assert_eq!((counting.affected(1), counting.affected(1)), (Passage::Within, past(&["writes"])));
    let mut none = Counting::new([], None);
    assert_eq!((none.row(1, 1), none.affected(u64::MAX)), (Passage::Within, Passage::Within));
}

proptest! {
    /// Against sums: what leaves by the proof is never more than any threshold, and a hold never comes early.
    #[test]
    fn what_leaves_is_within_every_threshold(
        thresholds in prop::collection::vec((any::<bool>(), 0_u64..60), 1..4),
        times in 0_u32..3,
        rows in prop::collection::vec((1_u64..4, 0_u64..9), 0..60),
    ) {
        let measure = |is_rows| if is_rows { Measure::Rows } else { Measure::Bytes };
        let named: Vec<(Measure, u64, String)> =
            thresholds.iter().enumerate().map(|(index, (is_rows, amount))| {
                (measure(*is_rows), *amount, format!("r{index}"))
            }).collect();
        let borrowed: Vec<(Measure, u64, &str)> =
            named.iter().map(|(measure, amount, rule)| (*measure, *amount, rule.as_str())).collect();
        let mut counting = Counting::new([(duty("customers", &borrowed), times)], None);
        let (mut sum_rows, mut sum_bytes) = (0, 0);
        for (scale, bytes) in rows {
            let passage = counting.row(scale, bytes);
            if times > 0 {
                sum_rows += u64::from(times) * scale;
                sum_bytes += bytes;
            }
            let expected: BTreeSet<String> = named
                .iter()
                .filter(|(measure, amount, _)| {
                    if *measure == Measure::Rows { sum_rows > *amount } else { sum_bytes > *amount }
                })
                .map(|(_, _, rule)| rule.clone())
                .collect();
            prop_assert_eq!(counting.within().is_some(), expected.is_empty());
            let expected = if expected.is_empty() { Passage::Within } else { Passage::Past { rules: expected } };
            prop_assert_eq!(passage, expected);
        }
    }
}
