//! Requests, grants, freezes and messages on both kinds of store: each step happens once, whoever comes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

use exeat_policy::approval::{
    Approver, Ceiling, Demand, Event, Notice, Remark, Rerun, Scope, Standing, State as RequestState, Terms, USES_MAX,
};
use exeat_policy::grant::{Ask, Digest, Drift};
use exeat_policy::{Asker, Moment, Person, Principal, PrincipalKind};
use exeat_store::state::{
    ASKED_PER_DAY_MAX, Asked, Decided, Freeze, FreezeVerdict, Frozen, GrantUse, NewRequest, OPEN_MAX,
    OPEN_OF_ASKER_MAX, RequestFilter, RequestId, State, Tell, Told, Wanted, Whose,
};

use super::common::{Place, child_of, kills, open_state, principal};
use super::server::run_at;
use super::state::{block, on_each_store};

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: i64) -> Moment {
    Moment::from_unix_millis((1_800_000_000 + seconds) * 1000)
}

fn person(subject: &str) -> Person {
    Person { issuer: "https://idp.example.com".to_owned(), subject: subject.to_owned() }
}

fn remark(text: &str) -> Remark {
    Remark::try_from(text.to_owned()).unwrap()
}

fn asks(subject: &str, statement: u8) -> Ask {
    Ask {
        asker: Asker { human: person(subject), actor: Some("runner".to_owned()) },
        target: "shop".to_owned(),
        database: "shop".to_owned(),
        role: "shop_reader".to_owned(),
        statement: Digest::new([statement; 32]),
        parameters: Digest::new([0; 32]),
        objects: Digest::new([0; 32]),
        masks: Digest::new([0; 32]),
        policy: Digest::new([0; 32]),
    }
}

fn scope(uses: u32) -> Scope {
    Scope { ceiling: Ceiling { rows: Some(500), ..Ceiling::default() }, uses, lasts: 15 * MINUTE }
}

fn terms(ask: &Ask, quorum: u32, asked_at: Moment) -> Terms {
    let escalates_at = Some(asked_at.after(MINUTE));
    Terms {
        asker: ask.asker.clone(),
        demands: vec![Demand { rule: "bulk".to_owned(), quorum, escalates_at }],
        asked_at,
        decide_by: asked_at.after(2 * MINUTE),
        widest: scope(USES_MAX),
    }
}

fn request(ask: &Ask, quorum: u32, now: Moment) -> NewRequest {
    NewRequest {
        ask: ask.clone(),
        terms: terms(ask, quorum, now),
        fingerprint: "select-from-customers".to_owned(),
        card: b"SELECT * FROM customers -- hunter2".to_vec(),
        tell: Tell(vec!["ops".to_owned()]),
    }
}

async fn opened(state: &State, ask: &Ask, quorum: u32, now: Moment) -> RequestId {
    match state.ask(request(ask, quorum, now), now).await.unwrap() {
        Asked::Opened(id) => id,
        other => panic!("{other:?}"),
    }
}

fn approver(subject: &str) -> Approver {
    let human = Principal { subject: subject.to_owned(), actor: None, kind: PrincipalKind::Human, ..principal() };
    let standing = Standing { first: true, ..Standing::default() };
    Approver::new(&human, BTreeMap::from([("bulk".to_owned(), standing)])).unwrap()
}

fn approve(subject: &str, uses: u32) -> Event {
    Event::Approve { by: approver(subject), scope: scope(uses) }
}

fn deny(subject: &str) -> Event {
    Event::Deny { by: approver(subject), reason: remark("not today") }
}

async fn granted(state: &State, ask: &Ask, uses: u32) -> RequestId {
    let id = opened(state, ask, 1, at(0)).await;
    assert!(matches!(state.decide(&id, approve("boss", uses), at(1)).await.unwrap(), Decided::Moved(_)));
    id
}

async fn two(place: &Place) -> [State; 2] {
    [open_state(place.base.path()).await.unwrap(), open_state(place.base.path()).await.unwrap()]
}

#[test]
fn an_identical_run_finds_its_request_and_any_drift_asks_anew() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let ask = asks("agent", 1);
            let id = opened(&state, &ask, 1, at(0)).await;
            let found = state.ask(request(&ask, 1, at(5)), at(5)).await.unwrap();
            assert!(matches!(&found, Asked::Found { id: same, rerun: Rerun::Waits, .. } if *same == id), "{found:?}");
            assert!(matches!(state.take_use(&ask, at(5)).await.unwrap(), GrantUse::Nothing), "nobody approved");
            state.decide(&id, approve("boss", 1), at(6)).await.unwrap();
            let found = state.ask(request(&ask, 1, at(7)), at(7)).await.unwrap();
            assert!(matches!(found, Asked::Found { rerun: Rerun::Collects, .. }), "{found:?}");
            let drifted = [
                Ask { asker: Asker { human: person("other"), actor: Some("runner".to_owned()) }, ..ask.clone() },
                Ask { asker: Asker { human: person("agent"), actor: None }, ..ask.clone() },
                Ask { target: "crm".to_owned(), ..ask.clone() },
                Ask { database: "reports".to_owned(), ..ask.clone() },
                Ask { role: "shop_dpo".to_owned(), ..ask.clone() },
                Ask { statement: Digest::new([9; 32]), ..ask.clone() },
                Ask { parameters: Digest::new([9; 32]), ..ask.clone() },
                Ask { objects: Digest::new([9; 32]), ..ask.clone() },
                Ask { masks: Digest::new([9; 32]), ..ask.clone() },
                Ask { policy: Digest::new([9; 32]), ..ask.clone() },
            ];
            for ask in drifted {
                assert!(matches!(state.take_use(&ask, at(7)).await.unwrap(), GrantUse::Nothing), "{ask:?}");
                opened(&state, &ask, 1, at(7)).await;
            }
            let taken = state.take_use(&ask, at(8)).await.unwrap();
            assert!(matches!(&taken, GrantUse::Taken { id: same, .. } if *same == id), "{taken:?}");
            assert!(matches!(state.take_use(&ask, at(8)).await.unwrap(), GrantUse::Nothing), "it was good for one");
            opened(&state, &ask, 1, at(9)).await;
        });
    });
}

#[test]
fn a_denial_is_not_asked_again_at_once_and_an_old_grant_covers_nothing() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let ask = asks("agent", 1);
            let id = opened(&state, &ask, 1, at(0)).await;
            let Decided::Moved(step) = state.decide(&id, deny("boss"), at(1)).await.unwrap() else { panic!("denied") };
            assert_eq!(step.notice, Some(Notice::Closed));
            let found = state.ask(request(&ask, 1, at(2)), at(2)).await.unwrap();
            assert!(matches!(found, Asked::Found { rerun: Rerun::Refused, .. }), "{found:?}");
            let late = state.decide(&id, approve("chief", 1), at(3)).await.unwrap();
            assert!(matches!(late, Decided::Unmoved(_)), "{late:?}");
            opened(&state, &ask, 1, at(300)).await;
            let other = asks("agent", 2);
            granted(&state, &other, 5).await;
            let late = state.take_use(&other, at(10_000)).await.unwrap();
            assert!(matches!(late, GrantUse::Drifted { drift: Drift::Expired, .. }), "{late:?}");
            let nobody = state.decide(&RequestId::new("apr_none"), deny("boss"), at(1)).await.unwrap();
            assert!(matches!(nobody, Decided::NoSuchRequest));
            let earlier = state.earlier("select-from-customers", 10).await.unwrap();
            let states: Vec<_> = earlier.iter().map(|one| one.state.name()).collect();
            assert_eq!(states.iter().filter(|state| **state == "denied").count(), 1);
            assert_eq!(states.len(), 2, "what waits is not among them: {states:?}");
        });
    });
}

#[test]
fn of_two_who_decide_at_once_one_decides() {
    on_each_store(|place| {
        block(async {
            let states = two(&place).await;
            for round in 0..20 {
                let ask = asks("agent", round);
                let id = opened(&states[0], &ask, 1, at(0)).await;
                let (yes, no) = tokio::join!(
                    states[0].decide(&id, approve("boss", 1), at(1)),
                    states[1].decide(&id, deny("chief"), at(1))
                );
                let moved = [yes.unwrap(), no.unwrap()].map(|decided| matches!(decided, Decided::Moved(_)));
                assert_eq!(moved.iter().filter(|moved| **moved).count(), 1, "{moved:?}");
                let state = states[1].request(&id).await.unwrap().unwrap().progress.state;
                assert_eq!(matches!(state, RequestState::Approved(_)), moved[0], "{state:?}");
            }
        });
    });
}

#[test]
fn a_quorum_counts_every_human_however_they_come() {
    on_each_store(|place| {
        block(async {
            let states = two(&place).await;
            let ask = asks("agent", 1);
            let id = opened(&states[0], &ask, 3, at(0)).await;
            let (one, other, again) = tokio::join!(
                states[0].decide(&id, approve("boss", 1), at(1)),
                states[1].decide(&id, approve("chief", 1), at(1)),
                states[1].decide(&id, approve("boss", 1), at(1)),
            );
            let moved = [one, other, again].map(|decided| matches!(decided.unwrap(), Decided::Moved(_)));
            assert_eq!(moved.iter().filter(|moved| **moved).count(), 2, "the same human counts once");
            assert!(matches!(states[0].take_use(&ask, at(2)).await.unwrap(), GrantUse::Nothing));
            states[0].decide(&id, approve("owner", 1), at(2)).await.unwrap();
            assert!(matches!(states[1].take_use(&ask, at(2)).await.unwrap(), GrantUse::Taken { .. }));
        });
    });
}

#[test]
fn a_grant_is_used_as_often_as_it_says_however_many_come_at_once() {
    on_each_store(|place| {
        block(async {
            let states = two(&place).await;
            let ask = asks("agent", 1);
            granted(&states[0], &ask, 3).await;
            let mut takers = tokio::task::JoinSet::new();
            for number in 0..20 {
                let (state, ask) = (states[number % 2].clone(), ask.clone());
                takers
                    .spawn(async move { matches!(state.take_use(&ask, at(2)).await.unwrap(), GrantUse::Taken { .. }) });
            }
            assert_eq!(takers.join_all().await.into_iter().filter(|taken| *taken).count(), 3);
        });
    });
}

#[test]
fn what_is_revoked_stops_and_is_not_used_again() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let ask = asks("agent", 1);
            let id = granted(&state, &ask, 5).await;
            assert!(matches!(state.take_use(&ask, at(2)).await.unwrap(), GrantUse::Taken { .. }));
            let revoke = Event::Revoke { by: approver("chief"), reason: remark("enough") };
            let Decided::Moved(step) = state.decide(&id, revoke, at(3)).await.unwrap() else { panic!("revoked") };
            assert_eq!(step.notice, Some(Notice::Stop));
            assert!(matches!(state.take_use(&ask, at(4)).await.unwrap(), GrantUse::Nothing));
        });
    });
}

#[test]
fn time_escalates_and_expires_each_request_once() {
    on_each_store(|place| {
        block(async {
            let states = two(&place).await;
            let id = opened(&states[0], &asks("agent", 1), 1, at(0)).await;
            assert_eq!(states[0].sweep_requests(at(30)).await.unwrap(), []);
            for (now, notice, name) in [(61, Notice::SecondGroup, "escalated"), (121, Notice::Closed, "expired")] {
                let (one, other) = tokio::join!(states[0].sweep_requests(at(now)), states[1].sweep_requests(at(now)));
                let swept: Vec<_> = one.unwrap().into_iter().chain(other.unwrap()).collect();
                assert_eq!(swept.len(), 1, "{swept:?}");
                assert_eq!((&swept[0].id, swept[0].notice), (&id, Some(notice)));
                assert_eq!(states[0].request(&id).await.unwrap().unwrap().progress.state.name(), name);
            }
            assert_eq!(states[0].sweep_requests(at(200)).await.unwrap(), []);
            states[0].forget_requests(at(40 * 24 * 3600)).await.unwrap();
            assert!(states[0].request(&id).await.unwrap().is_none(), "it is over for long");
        });
    });
}

/// A copy of every request that is none itself.
fn copied(copy: i64, is_open: i64) -> String {
    let columns = "fingerprint, target, issuer, subject, actor, state, review_due, asked_at, decide_by, changed_at, \
                   version, ask, terms, progress, tell, card";
    format!(
        "INSERT INTO request (id, ask_digest, is_open, {columns}) SELECT id || '-{copy}', ask_digest || '-{copy}', \
         {is_open}, {columns} FROM request WHERE id NOT LIKE '%-%'"
    )
}

#[test]
fn a_thousand_wait_in_pages_and_the_next_is_refused() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            for asker in 0..OPEN_MAX / OPEN_OF_ASKER_MAX {
                opened(&state, &asks(&format!("agent-{asker}"), 1), 1, at(asker)).await;
            }
            // The others are copies, at the same moments.
            for copy in 1..OPEN_OF_ASKER_MAX {
                place.run_in_store(&copied(copy, 1));
            }
            let refusal = state.ask(request(&asks("agent-0", 200), 1, at(30)), at(30)).await.unwrap();
            assert!(matches!(refusal, Asked::TooMany { whose: Whose::Everybody, .. }), "{refusal:?}");
            let began = std::time::Instant::now();
            let mut filter = RequestFilter { wanted: Wanted::Open, limit: 1000, ..RequestFilter::default() };
            let mut seen = BTreeSet::new();
            loop {
                let page = state.requests(&filter).await.unwrap();
                assert!(page.len() <= 100);
                let Some(last) = page.last() else { break };
                filter.before = Some((last.terms.asked_at, last.id.clone()));
                for line in page {
                    assert!(seen.insert(line.id), "shown twice");
                }
            }
            assert_eq!(i64::try_from(seen.len()).unwrap(), OPEN_MAX);
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            let of_one =
                RequestFilter { principal: Some("agent-3".to_owned()), limit: 100, ..RequestFilter::default() };
            assert_eq!(state.requests(&of_one).await.unwrap().len(), 100);
            // What time has taken makes room.
            opened(&state, &asks("agent-0", 201), 1, at(1000)).await;
        });
    });
}

#[test]
fn one_asker_takes_no_more_than_a_share_of_the_places() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            for number in 0..OPEN_OF_ASKER_MAX {
                opened(&state, &asks("agent", u8::try_from(number).unwrap()), 1, at(0)).await;
            }
            let refusal = state.ask(request(&asks("agent", 255), 1, at(1)), at(1)).await.unwrap();
            assert!(matches!(refusal, Asked::TooMany { whose: Whose::Asker, .. }), "{refusal:?}");
            opened(&state, &asks("other", 255), 1, at(1)).await;
            // What is over makes room, up to a day's number.
            place.run_in_store("UPDATE request SET is_open = 0 WHERE subject = 'agent'");
            for copy in 1..ASKED_PER_DAY_MAX / OPEN_OF_ASKER_MAX {
                opened(&state, &asks("agent", 100), 1, at(2)).await;
                place.run_in_store(&copied(copy, 0));
                place.run_in_store("DELETE FROM request WHERE is_open = 1 AND subject = 'agent'");
            }
            let now = 3;
            let refusal = state.ask(request(&asks("agent", 200), 1, at(now)), at(now)).await.unwrap();
            assert!(matches!(refusal, Asked::TooMany { whose: Whose::AskerToday, .. }), "{refusal:?}");
        });
    });
}

#[test]
fn the_card_is_sealed_and_opens_as_this_request_s_only() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let id = opened(&state, &asks("agent", 1), 1, at(0)).await;
            let other = opened(&state, &asks("agent", 2), 1, at(0)).await;
            let read = state.request(&id).await.unwrap().unwrap();
            assert_eq!(read.card, b"SELECT * FROM customers -- hunter2");
            assert!(!format!("{read:?}").contains("hunter2"));
            // On PostgreSQL this divides by nothing where it finds something.
            place.run_in_store(
                "SELECT 1 / (CASE WHEN count(*) = 0 THEN 1 ELSE 0 END) FROM request WHERE card LIKE '%hunter%'",
            );
            for file in place.data().exists().then(|| place.data_files()).into_iter().flatten() {
                let bytes = std::fs::read(&file).unwrap();
                assert!(!bytes.windows(7).any(|part| part == b"hunter2"), "{}", file.display());
            }
            place.run_in_store(&format!(
                "UPDATE request SET card = (SELECT card FROM request WHERE id = '{id}') WHERE id = '{other}'"
            ));
            assert!(state.request(&other).await.is_err());
        });
    });
}

#[test]
fn a_freeze_stands_until_it_is_lifted() {
    on_each_store(|place| {
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let mut heard = state.changes();
            heard.mark_unchanged();
            let freeze = |what: Frozen| Freeze { what, by: person("boss"), reason: remark("incident"), at: at(0) };
            let (agent, target) = (Frozen::Subject(person("agent")), Frozen::Target("shop".to_owned()));
            assert_eq!(state.freeze(&freeze(agent.clone())).await.unwrap(), FreezeVerdict::Frozen);
            assert!(heard.has_changed().unwrap());
            assert_eq!(state.freeze(&freeze(agent.clone())).await.unwrap(), FreezeVerdict::FrozenBefore);
            assert_eq!(state.freeze(&freeze(target.clone())).await.unwrap(), FreezeVerdict::Frozen);
            assert_eq!(state.freezes().await.unwrap(), [freeze(agent.clone()), freeze(target.clone())]);
            assert!(state.thaw(&agent).await.unwrap());
            assert!(!state.thaw(&agent).await.unwrap());
            assert_eq!(state.freezes().await.unwrap(), [freeze(target)]);
        });
    });
}

#[test]
fn messages_come_up_until_they_arrive_or_are_given_up() {
    on_each_store(|place| {
        block(async {
            let states = two(&place).await;
            let id = opened(&states[0], &asks("agent", 1), 1, at(0)).await;
            let (one, other) =
                tokio::join!(states[0].claim_messages("ops", at(0)), states[1].claim_messages("ops", at(0)));
            let claimed: Vec<_> = one.unwrap().messages.into_iter().chain(other.unwrap().messages).collect();
            assert_eq!(claimed.len(), 1, "one of two gets it: {claimed:?}");
            assert_eq!((&claimed[0].request, claimed[0].told, claimed[0].attempt), (&id, Told::Asked, 1));
            assert_eq!(states[0].claim_messages("ops", at(14)).await.unwrap().messages, []);
            assert_eq!(states[0].claim_messages("other", at(15)).await.unwrap().messages, []);
            let again = states[0].claim_messages("ops", at(15)).await.unwrap().messages;
            assert_eq!((&again[0].id, again[0].attempt), (&claimed[0].id, 2));
            states[0].delivered(&again[0]).await.unwrap();
            states[0].decide(&id, deny("boss"), at(16)).await.unwrap();
            let mut attempts = 0;
            let given_up = loop {
                let mut claimed = states[0].claim_messages("ops", at(16 + attempts * 100_000)).await.unwrap();
                match claimed.given_up.pop() {
                    Some(message) => break message,
                    None => assert_eq!(claimed.messages[0].told, Told::Closed),
                }
                attempts += 1;
                assert!(attempts < 20);
            };
            assert_eq!((given_up.told, attempts), (Told::Closed, 8));
            assert_eq!(states[0].claim_messages("ops", at(10_000_000)).await.unwrap().messages, []);
            opened(&states[0], &asks("agent", 2), 1, at(20)).await;
            states[0].forget_messages(at(20 + 4 * 24 * 3600)).await.unwrap();
            assert_eq!(states[0].claim_messages("ops", at(20)).await.unwrap().messages, [], "nobody sent it for days");
        });
    });
}

#[test]
fn a_decision_wakes_who_waits_at_another_gateway_within_a_second() {
    on_each_store(|place| {
        let Some(url) = place.store_url() else { return };
        block(async {
            let states = two(&place).await;
            for (round, is_cut) in [false, true, true].into_iter().enumerate() {
                let ask = asks("agent", u8::try_from(round).unwrap());
                let id = opened(&states[0], &ask, 1, at(0)).await;
                let mut heard = states[1].changes();
                // What was asked has to be heard first, else it would pass for the decision.
                while states[1].changes().borrow().approval < states[0].changes().borrow().approval {
                    heard.changed().await.unwrap();
                }
                heard.mark_unchanged();
                if is_cut {
                    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                               WHERE datname = current_database() AND query LIKE 'LISTEN%'";
                    run_at(&url, &[cut]).unwrap();
                }
                states[0].decide(&id, approve("boss", 1), at(1)).await.unwrap();
                let woken = tokio::time::timeout(Duration::from_secs(1), heard.changed()).await;
                woken.expect("heard within a second").unwrap();
                assert!(matches!(states[1].take_use(&ask, at(2)).await.unwrap(), GrantUse::Taken { .. }));
            }
        });
    });
}

/// Uses of one round: those of all rounds stay below what a grant is good for.
const USES_OF_A_ROUND: usize = 6;

#[test]
fn no_use_is_taken_twice_whenever_a_gateway_is_killed() {
    let ask = asks("agent", 1);
    if let Some(base) = child_of() {
        block(use_until_killed(&base, &ask));
    }
    on_each_store(|place| {
        block(async { granted(&open_state(place.base.path()).await.unwrap(), &ask, USES_MAX).await });
        let mut used = 0;
        for round in 0..kills() {
            used += killed_after(&place, round % (USES_OF_A_ROUND + 1));
        }
        block(async {
            let state = open_state(place.base.path()).await.unwrap();
            let listed = state.requests(&RequestFilter { limit: 1, ..RequestFilter::default() }).await.unwrap();
            let RequestState::Approved(granted) = &listed[0].progress.state else { panic!("{listed:?}") };
            let taken = usize::try_from(USES_MAX - granted.uses_left).unwrap();
            assert!((used..=used + kills()).contains(&taken), "{taken} on file, {used} used in {} rounds", kills());
        });
    });
}

async fn use_until_killed(base: &Path, ask: &Ask) {
    let state = open_state(base).await.unwrap();
    for _ in 0..USES_OF_A_ROUND {
        assert!(matches!(state.take_use(ask, at(2)).await.unwrap(), GrantUse::Taken { .. }));
        println!("used .");
    }
    // The parent's end of the pipe never closes before the kill.
    std::future::pending().await
}

/// How often the child said that it had used the grant before it was killed.
fn killed_after(place: &Place, lines: usize) -> usize {
    let mut child = place.child_running("requests::no_use_is_taken_twice_whenever_a_gateway_is_killed");
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let is_use = |line: &String| line.ends_with("used .");
    let first = said.by_ref().filter(is_use).take(lines).count();
    child.kill().unwrap();
    child.wait().unwrap();
    first + said.filter(is_use).count()
}
