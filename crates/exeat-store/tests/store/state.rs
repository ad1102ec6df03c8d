//! The state store on a real file: bindings and baselines by whoever is first, probes exact however many count at
//! once and however the process ends.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::time::Duration;

use exeat_policy::Principal;
use exeat_policy::baseline::{AcceptedColumn, AcceptedRelation, Binding, Known};
use exeat_store::state::{
    DatabaseRef, LimitFilter, PinnedDefinitions, Probe, ProbeVerdict, State, StateError, Taken, VALUES_MAX,
};
use jiff::Timestamp;

use super::common::{Place, child_of, open_state, principal};

const SHOP: DatabaseRef<'static> = DatabaseRef { target: "shop", name: "shop" };
const DAY: Duration = Duration::from_hours(24);

pub(crate) fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

pub(crate) fn on_each_store(test: impl Fn(Place)) {
    Place::of_each_store().into_iter().for_each(test);
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn binding(label: &str, attribute: i16, column: &str) -> Binding {
    Binding {
        label: label.to_owned(),
        relation: u32::MAX,
        attribute,
        schema_name: "public".to_owned(),
        relation_name: "cust\"omers".to_owned(),
        column_name: column.to_owned(),
    }
}

fn known(column: &str) -> Known {
    let column_of = |attribute, name: &str| AcceptedColumn { attribute, name: name.to_owned(), type_oid: u32::MAX };
    Known {
        bindings: vec![binding("ssn", 2, column)],
        baseline: vec![
            AcceptedRelation {
                oid: 16385,
                schema_name: "public".to_owned(),
                name: "empty".to_owned(),
                columns: Vec::new(),
            },
            AcceptedRelation {
                oid: u32::MAX,
                schema_name: "public".to_owned(),
                name: "cust\"omers".to_owned(),
                columns: vec![column_of(1, "id"), column_of(2, column)],
            },
        ],
    }
}

struct Try<'a> {
    principal: &'a Principal,
    relation: &'a str,
    values: &'a [&'a str],
    limit: u32,
}

async fn probe(state: &State, tried: Try<'_>, now: Timestamp) -> Result<ProbeVerdict, StateError> {
    let values: Vec<&[u8]> = tried.values.iter().map(|value| value.as_bytes()).collect();
    let probe = Probe {
        principal: tried.principal,
        target: "shop",
        label: "email",
        relation: tried.relation,
        values: &values,
        limit: tried.limit,
        window: DAY,
    };
    state.probe(&probe, now).await
}

async fn of_agent(state: &State, values: &[&str], limit: u32, now: Timestamp) -> ProbeVerdict {
    let principal = principal();
    probe(state, Try { principal: &principal, relation: "public.customers", values, limit }, now).await.unwrap()
}

fn counted(used: u32, limit: u32) -> ProbeVerdict {
    ProbeVerdict::Counted { used, limit }
}

#[test]
fn the_first_finder_takes_the_baseline_and_a_restart_keeps_it() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            assert_eq!(state.known(SHOP).await.unwrap(), None);
            let before = state.revision();
            assert_eq!(state.take_baseline(SHOP, &known("ssn"), at(0)).await.unwrap(), Taken::Now);
            assert_ne!(state.revision(), before);
            let second = state.take_baseline(SHOP, &known("other"), at(1)).await.unwrap();
            assert_eq!(second, Taken::Before(known("ssn")));
            let reports = DatabaseRef { name: "reports", ..SHOP };
            assert_eq!(state.known(reports).await.unwrap(), None, "another database of the same target");
        });
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            assert_eq!(state.known(SHOP).await.unwrap(), Some(known("ssn")));
            state.accept(SHOP, &known("other"), at(2)).await.unwrap();
            assert_eq!(state.known(SHOP).await.unwrap(), Some(known("other")));
            state.accept(SHOP, &Known::default(), at(3)).await.unwrap();
            assert_eq!(state.known(SHOP).await.unwrap(), Some(Known::default()), "accepted as empty is not unknown");
        });
    });
}

#[test]
fn what_is_pinned_first_holds_until_somebody_accepts_another() {
    on_each_store(|place| {
        let pins = |of: &[(&str, &str)]| -> PinnedDefinitions {
            of.iter().map(|(object, sha256)| ((*object).to_owned(), (*sha256).to_owned())).collect()
        };
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            assert_eq!(state.pins(SHOP).await.unwrap(), pins(&[]));
            let first = pins(&[("view a.v", "11")]);
            assert_eq!(state.pin(SHOP, &first, at(0)).await.unwrap(), first);
            // Who comes later, perhaps another gateway, is told what holds.
            let held = pins(&[("function a.f()", "33"), ("view a.v", "11")]);
            assert_eq!(
                state.pin(SHOP, &pins(&[("view a.v", "22"), ("function a.f()", "33")]), at(1)).await.unwrap(),
                held
            );
            let reports = DatabaseRef { name: "reports", ..SHOP };
            assert_eq!(state.pins(reports).await.unwrap(), pins(&[]), "another database of the same target");
        });
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            assert_eq!(state.pins(SHOP).await.unwrap().len(), 2, "a restart keeps them");
            let before = state.revision();
            state.accept_pins(SHOP, &pins(&[("view a.v", "22")]), at(2)).await.unwrap();
            assert_ne!(state.revision(), before);
            assert_eq!(state.pins(SHOP).await.unwrap(), pins(&[("view a.v", "22")]));
        });
    });
}

#[test]
fn of_many_finders_at_once_one_is_first() {
    on_each_store(|place| {
        block(async {
            let mut finders = tokio::task::JoinSet::new();
            for number in 0..8 {
                // Handles of their own, as other processes would have.
                let state = open_state(place.base.path()).await.unwrap();
                finders.spawn(async move {
                    let mine = known(&format!("column{number}"));
                    let taken = state.take_baseline(SHOP, &mine, at(0)).await.unwrap();
                    (taken == Taken::Now, state.known(SHOP).await.unwrap().unwrap(), mine)
                });
            }
            let found = finders.join_all().await;
            let winners: Vec<_> = found.iter().filter(|(first, _, _)| *first).collect();
            assert_eq!(winners.len(), 1);
            assert!(found.iter().all(|(_, seen, _)| *seen == winners[0].2));
        });
    });
}

#[test]
fn binding_more_leaves_what_is_bound_as_it_was() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            state.take_baseline(SHOP, &known("ssn"), at(0)).await.unwrap();
            let revision = state.revision();
            assert_eq!(state.bind(SHOP, &[binding("ssn", 2, "renamed")]).await.unwrap(), 0);
            assert_eq!(state.revision(), revision, "nothing changed");
            assert_eq!(state.bind(SHOP, &[binding("ssn", 3, "more"), binding("email", 2, "ssn")]).await.unwrap(), 2);
            let bindings = state.known(SHOP).await.unwrap().unwrap().bindings;
            assert_eq!(bindings, [binding("email", 2, "ssn"), binding("ssn", 2, "ssn"), binding("ssn", 3, "more")]);
        });
    });
}

#[test]
fn each_distinct_value_counts_once_and_the_limit_holds() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            assert_eq!(of_agent(&state, &["a", "b", "a"], 3, at(0)).await, counted(2, 3));
            assert_eq!(of_agent(&state, &["a"], 3, at(1)).await, counted(2, 3));
            let exhausted = |used, seconds| ProbeVerdict::Exhausted {
                used,
                limit: 3,
                resets_at: at(seconds).checked_add(jiff::SignedDuration::from_hours(24)).unwrap(),
            };
            assert_eq!(of_agent(&state, &["c", "d"], 3, at(2)).await, exhausted(2, 0));
            assert_eq!(of_agent(&state, &["c"], 3, at(3)).await, counted(3, 3), "a refused try counted nothing");
            assert_eq!(of_agent(&state, &["d"], 3, at(4)).await, exhausted(3, 0));
            assert_eq!(of_agent(&state, &["b"], 3, at(5)).await, counted(3, 3), "known values stay free");
            assert_eq!(of_agent(&state, &["b"], 1, at(5)).await, counted(3, 1), "under a smaller limit too");
            assert_eq!(of_agent(&state, &[], 3, at(5)).await, counted(3, 3));
            // A day after the first two, not at the day's end.
            assert_eq!(of_agent(&state, &["d"], 3, at(86_399)).await, exhausted(3, 0));
            assert_eq!(of_agent(&state, &["d", "e"], 3, at(86_400)).await, counted(3, 3));
        });
    });
}

#[test]
fn counters_are_apart_by_principal_agent_relation_and_survive_a_restart() {
    on_each_store(|place| {
        let mut other = principal();
        other.actor = None;
        let agent = principal();
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            for (who, relation) in [(&agent, "public.a"), (&agent, "public.b"), (&other, "public.a")] {
                let tried = Try { principal: who, relation, values: &["x"], limit: 1 };
                assert_eq!(probe(&state, tried, at(0)).await.unwrap(), counted(1, 1));
            }
        });
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let tried = || Try { principal: &agent, relation: "public.a", values: &["y"], limit: 1 };
            assert!(matches!(probe(&state, tried(), at(1)).await.unwrap(), ProbeVerdict::Exhausted { used: 1, .. }));
            assert_eq!(state.limits(&LimitFilter::default(), at(1)).await.unwrap().len(), 3);
            let of_runner = LimitFilter { principal: Some("runner".to_owned()), ..LimitFilter::default() };
            let listed = state.limits(&of_runner, at(1)).await.unwrap();
            assert_eq!(listed.iter().map(|one| one.relation.as_str()).collect::<Vec<_>>(), ["public.a", "public.b"]);
            assert_eq!((listed[0].used, listed[0].actor.as_deref()), (1, Some("runner")));
            assert_eq!(state.limits(&of_runner, at(86_400)).await.unwrap(), [], "aged out");
            let elsewhere = LimitFilter { target: Some("crm".to_owned()), ..of_runner.clone() };
            assert_eq!(state.reset_limits(&elsewhere).await.unwrap(), 0);
            assert_eq!(state.reset_limits(&of_runner).await.unwrap(), 2);
            assert_eq!(probe(&state, tried(), at(2)).await.unwrap(), counted(1, 1));
            assert_eq!(
                state.limits(&LimitFilter::default(), at(1)).await.unwrap().len(),
                2,
                "the other's is still there"
            );
        });
    });
}

#[test]
fn a_limit_is_exact_however_many_try_at_once() {
    on_each_store(|place| {
        block(async {
            // Two handles: two connections to the file, as two processes would have.
            let states = [open_state(place.base.path()).await.unwrap(), open_state(place.base.path()).await.unwrap()];
            let mut tries = tokio::task::JoinSet::new();
            for number in 0..120 {
                let state = states[number % 2].clone();
                // Every value is tried twice.
                tries.spawn(async move { of_agent(&state, &[&format!("v{}", number / 2)], 20, at(0)).await });
            }
            let admitted =
                tries.join_all().await.into_iter().filter(|verdict| matches!(verdict, ProbeVerdict::Counted { .. }));
            assert!(admitted.count() >= 20);
            assert_eq!(states[0].limits(&LimitFilter::default(), at(0)).await.unwrap()[0].used, 20);
        });
    });
}

#[test]
fn what_was_counted_stays_counted_whenever_the_process_is_killed() {
    if let Some(base) = child_of() {
        block(async {
            let state = open_state(&base).await.unwrap();
            for number in 0.. {
                let value = format!("v{number}");
                of_agent(&state, &[&value], u32::MAX, at(0)).await;
                println!("forwarded {value} .");
            }
        });
    }
    on_each_store(|place| {
        let lines = 40;
        let mut child = place.child_running("state::what_was_counted_stays_counted_whenever_the_process_is_killed");
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let is_whole = |line: &String| line.contains("forwarded ") && line.ends_with('.');
        let mut forwarded: BTreeSet<String> = said.by_ref().map(Result::unwrap).filter(is_whole).take(lines).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        forwarded.extend(said.map_while(Result::ok).filter(is_whole));
        assert!(forwarded.len() >= lines);
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let used = state.limits(&LimitFilter::default(), at(0)).await.unwrap()[0].used;
            let said = u64::try_from(forwarded.len()).unwrap();
            // One more may have been counted and not said.
            assert!(used == said || used == said + 1, "{used} counted, {said} forwarded");
        });
    });
}

#[test]
fn the_files_are_private_and_hold_no_value() {
    let place = Place::new();
    block(async {
        let state = open_state(place.base.path()).await.unwrap();
        of_agent(&state, &["someone@example.com"], 5, at(0)).await;
        let files: Vec<_> = place.data_files();
        assert!(!files.is_empty());
        for file in files {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(7).any(|part| part == b"someone"), "{}", file.display());
        }
    });
    let shown = format!(
        "{:?}",
        Probe {
            principal: &principal(),
            target: "shop",
            label: "email",
            relation: "public.a",
            values: &[b"hunter2"],
            limit: 1,
            window: DAY
        }
    );
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
}

#[test]
fn a_store_that_cannot_be_used_is_refused_at_the_start() {
    let place = Place::new();
    let folder = place.data().join("state");
    let file = folder.join("exeat.db");
    block(async {
        drop(open_state(place.base.path()).await.unwrap());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = open_state(place.base.path()).await.unwrap_err().to_string();
        assert!(refused.contains("mode 644"), "{refused}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        open_state(place.base.path()).await.unwrap();
    });
    // Another one: connections of the first may still be closing, and write when they do.
    let broken = Place::new();
    let folder = broken.data().join("state");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).unwrap();
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join("exeat.db")).unwrap();
    file.write_all(b"this is no database, however often it is opened").unwrap();
    let refused = block(open_state(broken.base.path())).unwrap_err();
    assert!(matches!(refused, StateError::Open { .. }), "{refused:?}");
}

#[test]
fn more_values_than_a_statement_may_try_are_refused_whole() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let many: Vec<String> = (0..=VALUES_MAX).map(|number| number.to_string()).collect();
            let many: Vec<&str> = many.iter().map(String::as_str).collect();
            let principal = principal();
            let tried = |values| Try { principal: &principal, relation: "public.a", values, limit: u32::MAX };
            let refused = probe(&state, tried(&many), at(0)).await.unwrap_err();
            assert!(matches!(refused, StateError::TooManyValues { limit: VALUES_MAX, .. }), "{refused:?}");
            assert_eq!(state.limits(&LimitFilter::default(), at(0)).await.unwrap(), []);
            assert_eq!(probe(&state, tried(&many[..100]), at(0)).await.unwrap(), counted(100, u32::MAX));
            state.health().await.unwrap();
        });
    });
}
