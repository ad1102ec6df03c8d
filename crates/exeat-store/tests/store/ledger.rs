//! The exposure ledger on both kinds of store: exact however many reserve at once, and never below what was released
//! however a gateway ends.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use exeat_policy::ledger::{BUCKETS, Budget, Counted, CounterKey, Resets, Unit, Want};
use exeat_policy::{Asker, Moment, Person, RelationName};
use exeat_store::state::{Exposure, LedgerVerdict, LimitFilter, Reserved, State, Wish};

use super::common::{Place, child_of, kills, open_state};
use super::state::{block, on_each_store};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn at(millis: i64) -> Moment {
    Moment::from_unix_millis(1_800_000_000_000 + millis)
}

fn key(subject: &str, relation: &str, unit: Unit) -> CounterKey {
    CounterKey {
        asker: Asker {
            human: Person { issuer: "https://idp.example.com".to_owned(), subject: subject.to_owned() },
            actor: Some("runner".to_owned()),
        },
        target: "shop".to_owned(),
        counted: Counted::Relation(RelationName { schema: "public".to_owned(), name: relation.to_owned() }),
        unit,
    }
}

fn wish(key: &CounterKey, limit: u64, (at_least, at_most): (u64, u64)) -> Wish {
    Wish { key: key.clone(), budget: Budget { amount: limit, window: DAY }, want: Want { at_least, at_most, ahead: 0 } }
}

async fn reserved(state: &State, wishes: &[Wish], now: Moment) -> Vec<Reserved> {
    match state.reserve(wishes, now).await.unwrap() {
        LedgerVerdict::Reserved(reserved) => reserved,
        exhausted @ LedgerVerdict::Exhausted { .. } => panic!("{exhausted:?}"),
    }
}

async fn all(state: &State, now: Moment) -> Vec<(String, u64)> {
    let found = state.exposures(&LimitFilter::default(), now).await.unwrap();
    found
        .iter()
        .map(|Exposure { key, used, .. }| (format!("{} {}", key.asker.human.subject, key.unit.name()), *used))
        .collect()
}

/// Splitmix64: enough to shake things, and the same again from the seed that is printed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        let seed = seed.unwrap_or_else(|| now.as_secs() ^ (u64::from(now.subsec_nanos()) << 32));
        println!("SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[test]
fn what_is_reserved_counts_until_it_ages_out_or_is_given_back() {
    on_each_store(|place| {
        let (rows, bytes) = (key("a", "t", Unit::Rows), key("a", "t", Unit::Bytes));
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let first = reserved(&state, &[wish(&rows, 10, (6, 6)), wish(&bytes, 100, (50, 50))], at(0)).await;
            assert_eq!(first.iter().map(Reserved::amount).collect::<Vec<_>>(), [6, 50]);
            // No more than a share of what is left, beyond what is needed at once.
            let second = reserved(&state, &[wish(&rows, 10, (1, 6))], at(1)).await;
            assert_eq!(second[0].amount(), 1);
            let mut second = reserved(&state, &[wish(&rows, 10, (3, 6))], at(1)).await;
            assert_eq!(second[0].amount(), 3);
            let verdict = state.reserve(&[wish(&bytes, 100, (1, 1)), wish(&rows, 10, (1, 1))], at(2)).await.unwrap();
            let LedgerVerdict::Exhausted { wish: 1, used: 10, limit: 10, resets_at: Resets::At(resets) } = verdict
            else {
                panic!("{verdict:?}")
            };
            assert_eq!(
                all(&state, at(2)).await,
                [("a rows".to_owned(), 10), ("a bytes".to_owned(), 50)],
                "all or none"
            );
            assert_eq!((second[0].split(2).amount(), second[0].amount()), (2, 1));
            state.give_back(second).await.unwrap();
            assert_eq!(all(&state, at(2)).await[0].1, 9, "what was split off stays");
            assert!(resets > at(0).after(DAY) && resets <= at(0).after(DAY + DAY / BUCKETS), "{resets:?}");
            let again = reserved(&state, &[wish(&rows, 10, (10, 10))], resets).await;
            assert_eq!(again[0].amount(), 10);
            assert_eq!(state.forget_exposures(resets).await.unwrap(), 2);
        });
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            assert_eq!(all(&state, at(0).after(DAY + HOUR)).await, [("a rows".to_owned(), 10)], "a restart keeps it");
        });
    });
}

#[test]
fn giving_back_what_was_reset_takes_nothing_from_what_is_counted_since() {
    on_each_store(|place| {
        let rows = key("a", "t", Unit::Rows);
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let before = reserved(&state, &[wish(&rows, 100, (80, 80))], at(0)).await;
            let other = LimitFilter { target: Some("crm".to_owned()), ..LimitFilter::default() };
            assert_eq!(state.reset_exposures(&other).await.unwrap(), 0);
            assert_eq!(state.reset_exposures(&LimitFilter::default()).await.unwrap(), 1);
            drop(reserved(&state, &[wish(&rows, 100, (50, 50))], at(1)).await);
            state.give_back(before).await.unwrap();
            assert_eq!(all(&state, at(1)).await, [("a rows".to_owned(), 50)]);
        });
    });
}

#[test]
fn nobody_gets_more_than_the_limit_and_nothing_is_lost_however_many_reserve_at_once() {
    on_each_store(|place| {
        let mut dice = Dice::new();
        let limits = [200 + dice.below(800), 100 + dice.below(400)];
        let seeds: Vec<u64> = (0..10).map(|_| dice.below(u64::MAX)).collect();
        block(async {
            // Two gateways, ten connections.
            let states = [open_state(place.base.path()).await.unwrap(), open_state(place.base.path()).await.unwrap()];
            let spent: Arc<[AtomicU64; 2]> = Arc::default();
            let mut statements = tokio::task::JoinSet::new();
            for (number, seed) in seeds.into_iter().enumerate() {
                let (state, spent) = (states[number % 2].clone(), Arc::clone(&spent));
                statements.spawn(async move { spend(&state, &spent, (limits, Dice(seed))).await });
            }
            let refused = statements.join_all().await.into_iter().sum::<u64>();
            let used = all(&states[0], at(0)).await;
            let spent = [0, 1].map(|one: usize| spent[one].load(Ordering::SeqCst));
            assert_eq!(used, [("a rows".to_owned(), spent[0]), ("a cells".to_owned(), spent[1])]);
            assert!(spent[0] <= limits[0] && spent[1] <= limits[1], "{spent:?} of {limits:?}");
            assert!(refused > 0, "nobody met the limit: {spent:?} of {limits:?}");
        });
    });
}

/// One connection: reserves on both counters, releases some of it, gives back the rest. Says how often it was refused.
async fn spend(state: &State, spent: &[AtomicU64; 2], (limits, mut dice): ([u64; 2], Dice)) -> u64 {
    let keys = [key("a", "t", Unit::Rows), key("a", "t", Unit::Cells)];
    let mut refused = 0;
    for _ in 0..20 {
        let wishes = [0, 1].map(|one: usize| {
            let least = 1 + dice.below(8);
            wish(&keys[one], limits[one], (least, least + dice.below(30)))
        });
        match state.reserve(&wishes, at(0)).await.unwrap() {
            LedgerVerdict::Exhausted { wish, used, limit, .. } => {
                assert!(used + wishes[wish].want.at_least > limit);
                refused += 1;
            }
            LedgerVerdict::Reserved(parts) => {
                let mut unspent = Vec::new();
                for (one, mut part) in parts.into_iter().enumerate() {
                    let released = dice.below(part.amount() + 1);
                    let before = spent[one].fetch_add(released, Ordering::SeqCst);
                    assert!(before + released <= limits[one]);
                    drop(part.split(released));
                    unspent.push(part);
                }
                state.give_back(unspent).await.unwrap();
            }
        }
    }
    refused
}

const CHUNK: u64 = 7;

#[test]
fn no_counter_is_below_what_was_released_whenever_a_gateway_is_killed() {
    if let Some(base) = child_of() {
        block(release_until_killed(&base));
    }
    on_each_store(|place| {
        let mut dice = Dice::new();
        let mut released = 0;
        for _ in 0..kills() {
            released += killed_after(&place, dice.below(12));
        }
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let used = all(&state, at(0)).await[0].1;
            let most = released + CHUNK * u64::try_from(kills()).unwrap();
            assert!((released..=most).contains(&used), "{used} counted, {released} released in {} rounds", kills());
        });
    });
}

async fn release_until_killed(base: &Path) {
    let state = open_state(base).await.unwrap();
    let rows = key("a", "t", Unit::Rows);
    let mut dice = Dice(u64::from(std::process::id()));
    loop {
        for mut part in reserved(&state, &[wish(&rows, u64::MAX, (1, CHUNK))], at(0)).await {
            let now = dice.below(part.amount() + 1);
            println!("released {now} .");
            drop(part.split(now));
            state.give_back(vec![part]).await.unwrap();
        }
    }
}

/// What the child said it had released before it was killed.
fn killed_after(place: &Place, lines: u64) -> u64 {
    let mut child = place.child_running("ledger::no_counter_is_below_what_was_released_whenever_a_gateway_is_killed");
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let amount = |line: String| {
        let (_, amount) = line.split_once("released ")?;
        amount.strip_suffix(" .")?.parse::<u64>().ok()
    };
    let first: u64 = said.by_ref().filter_map(amount).take(usize::try_from(lines).unwrap()).sum();
    child.kill().unwrap();
    child.wait().unwrap();
    first + said.filter_map(amount).sum::<u64>()
}
