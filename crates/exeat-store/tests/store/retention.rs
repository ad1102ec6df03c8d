//! What is older than is kept: it goes whole, on record, and what stays verifies and reads as before. What must not go stays,
//! and what went without a line that says so is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use exeat_policy::Principal;
use exeat_store::StoreError;
use exeat_store::evidence::{self, EvidenceError};
use exeat_store::index::{Filter, Index, IndexPlace, SessionRow};
use exeat_store::read::{BlobKind, open_log};
use exeat_store::record::{
    Forgotten, PolicyChange, PolicyRef, Recorder, Requester, Retention, RoundOf, SessionRecord, TokenRef, Whose,
};
use exeat_store::tree::VerifierKey;
use exeat_store::verify::{Against, Finding, Verification, verify};
use jiff::{SignedDuration, Timestamp};

use super::common::{POLICY, Place, allowed, done, principal, start};

const DAY: Duration = Duration::from_hours(24);

fn day() -> SignedDuration {
    SignedDuration::from_hours(24)
}

fn lines() -> Retention {
    Retention::new(Some(DAY), None).unwrap()
}

fn texts() -> Retention {
    Retention::new(None, Some(DAY)).unwrap()
}

fn say(record: &mut SessionRecord, statements: usize) {
    for number in 0..statements {
        let request = format!("r{number}");
        let sql = format!("select {number} from customers -- {}", record.session());
        let _ = record.intent(&allowed(&request, &sql)).unwrap();
        let _ = record.outcome(&done(&request)).unwrap();
    }
    let _ = record.commit().unwrap();
}

fn begin(recorder: &Recorder, session: &str) -> SessionRecord {
    recorder.start_session(&start(session, &principal())).unwrap()
}

fn session(recorder: &Recorder, name: &str, statements: usize) {
    let mut record = begin(recorder, name);
    say(&mut record, statements);
    record.end("terminated").unwrap();
}

fn at(now: Timestamp, passed: u64) -> RoundOf<'static> {
    RoundOf { now, passed, is_ending: &|| false }
}

/// New files, and nothing is old enough to go.
fn turn(recorder: &Recorder) {
    let now = Timestamp::now() + SignedDuration::from_hours(2);
    let done = recorder.forget(&lines(), at(now, u64::MAX)).unwrap();
    assert_eq!((done.erased, done.lines), (0, None), "{done:?}");
}

/// A round a day after `then`, once what is there is signed.
fn forget(recorder: &Recorder, retention: &Retention, then: Timestamp) -> Forgotten {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let mut all = Forgotten::default();
    loop {
        let done = recorder.forget(retention, at(then + day(), u64::MAX)).unwrap();
        all.erased += done.erased;
        all.blobs += done.blobs;
        all.lines = done.lines.map(|(first, next)| (all.lines.map_or(first, |(first, _)| first), next)).or(all.lines);
        (all.held, all.waits, all.is_partial) = (done.held, done.waits, done.is_partial);
        if done.waits != Some("they are not signed under whole tiles yet") {
            return all;
        }
        assert!(std::time::Instant::now() < deadline, "{done:?}");
        std::thread::yield_now();
    }
}

fn key(place: &Place) -> VerifierKey {
    place.keys().signing_key("exeat-test").unwrap().verifier().clone()
}

fn checked(place: &Place, data: &Path, older: &[(String, Vec<u8>)]) -> Verification {
    verify(data, &Against { keys: &[key(place)], older }).unwrap()
}

fn findings(place: &Place, data: &Path) -> Vec<Finding> {
    checked(place, data, &[]).findings().0.to_vec()
}

fn clean(place: &Place) -> Verification {
    let found = checked(place, &place.data(), &[]);
    assert!(found.is_clean(), "{:?}", found.findings());
    found
}

fn files(data: &Path, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(data.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn copied(place: &Place) -> tempfile::TempDir {
    let copied = tempfile::tempdir().unwrap();
    copy(&place.data(), copied.path());
    copied
}

fn text_of(place: &Place, session: &str) -> Result<String, StoreError> {
    let intents = place.of_kind("statement.intent");
    let sql = intents.iter().rfind(|event| event.session() == Some(session)).unwrap().blob(BlobKind::Sql).unwrap();
    open_log(&place.data()).unwrap().unseal(session, &sql, &place.keys())
}

/// Old sessions in two files, then a moment, then new ones.
fn written(place: &Place) -> (Recorder, Timestamp) {
    let recorder = place.open();
    session(&recorder, "old-1", 150);
    turn(&recorder);
    session(&recorder, "old-2", 150);
    turn(&recorder);
    let then = Timestamp::now();
    session(&recorder, "new-1", 200);
    session(&recorder, "new-2", 200);
    (recorder, then)
}

#[test]
fn what_is_old_goes_and_what_stays_verifies_reads_and_goes_on() {
    let place = Place::new();
    let (recorder, then) = written(&place);
    let note = fs::read(place.data().join("tree/checkpoint")).unwrap();
    let done = forget(&recorder, &lines(), then);
    assert_eq!((done.erased, done.waits, done.is_partial), (2, None, false), "{done:?}");
    let (first, next) = done.lines.unwrap();
    assert!(first == 0 && next > 600 && done.blobs == 2, "{done:?}");
    assert_eq!(place.events()[0].seq(), next);
    let line = &place.of_kind("retention")[0];
    assert_eq!(line.body("first").and_then(serde_json::Value::as_u64), Some(0));
    assert_eq!(line.body("files").unwrap().as_array().unwrap().len(), 2);
    assert_eq!(line.body("sessions").and_then(serde_json::Value::as_u64), Some(2));
    let found = checked(&place, &place.data(), &[("older".to_owned(), note.clone())]);
    assert!(found.is_clean() && found.is_gone_rightly && found.first == next, "{found:?}");
    assert_eq!(found.extends.len(), 1, "roots come from the tiles");
    assert!(text_of(&place, "new-1").unwrap().ends_with("-- new-1"));
    assert!(matches!(evidence::prove(&place.data(), 17), Err(EvidenceError::Gone { seq: 17, first }) if first == next));
    evidence::prove(&place.data(), next).unwrap();
    assert_eq!(forget(&recorder, &lines(), then).lines, None, "once is enough");
    drop(recorder);
    // A gateway goes on behind the gap, and cuts again.
    let recorder = place.open();
    assert!(recorder.kept_aside().is_empty());
    session(&recorder, "newer", 300);
    clean(&place);
    let again = forget(&recorder, &lines(), Timestamp::now());
    assert!(again.lines.unwrap().0 == next, "{again:?}");
    session(&recorder, "newest", 300);
    drop(recorder);
    assert!(clean(&place).first > next);
}

#[test]
fn what_the_archive_has_not_got_or_nobody_signed_or_a_log_kept_aside_lies_by_stays() {
    let place = Place::new();
    let (recorder, then) = written(&place);
    for passed in [0, 1, 300] {
        let done = recorder.forget(&lines(), at(then + day(), passed)).unwrap();
        assert_eq!((done.lines, done.blobs), (None, 0), "{done:?}");
        assert!(done.waits.is_some());
    }
    fs::create_dir(place.data().join("log-1")).unwrap();
    let done = forget(&recorder, &lines(), then);
    assert_eq!((done.lines, done.waits), (None, Some("a log that was kept aside lies beside them")));
    fs::remove_dir(place.data().join("log-1")).unwrap();
    assert!(forget(&recorder, &lines(), then).lines.is_some());
}

#[test]
fn a_session_that_goes_on_is_carried_over_every_cut_and_is_read_by_what_was_carried() {
    let place = Place::new();
    let recorder = place.open();
    let mut long = begin(&recorder, "long");
    say(&mut long, 5);
    session(&recorder, "old", 300);
    turn(&recorder);
    let then = Timestamp::now();
    session(&recorder, "new", 300);
    let done = forget(&recorder, &lines(), then);
    assert!(done.lines.is_some() && done.erased == 1, "{done:?}");
    assert!(place.of_kind("session.start").iter().all(|start| start.session() == Some("new")));
    let carried = place.of_kind("session.carried");
    assert_eq!(carried.len(), 1);
    assert_eq!((carried[0].session(), &carried[0].value()["principal"]["sub"]), (Some("long"), &"agent-7".into()));
    assert_eq!(carried[0].body("start_seq").and_then(serde_json::Value::as_u64), Some(1));
    say(&mut long, 5);
    assert!(text_of(&place, "long").unwrap().ends_with("-- long"));
    turn(&recorder);
    let then = Timestamp::now();
    session(&recorder, "newer", 600);
    assert!(forget(&recorder, &lines(), then).lines.is_some());
    let again = place.of_kind("session.carried");
    assert_eq!((again.len(), again[0].body("started")), (1, carried[0].body("started")));
    assert!(again[0].seq() > carried[0].seq() && again[0].body("start_seq") == carried[0].body("start_seq"));
    say(&mut long, 1);
    long.end("terminated").unwrap();
    assert!(text_of(&place, "long").unwrap().ends_with("-- long"));
    clean(&place);
    // Erased by age when it has ended, by what was carried.
    let done = forget(&recorder, &texts(), Timestamp::now());
    assert!(done.erased >= 1, "{done:?}");
    assert!(matches!(text_of(&place, "long"), Err(StoreError::Erased { .. })));
    drop(recorder);
    clean(&place);
}

#[test]
fn a_session_that_ended_before_it_was_carried_keeps_its_texts_for_as_long_as_others_and_no_longer() {
    let place = Place::new();
    let recorder = place.open();
    let mut long = begin(&recorder, "long");
    say(&mut long, 5);
    session(&recorder, "old", 300);
    turn(&recorder);
    let began = Timestamp::now();
    say(&mut long, 5);
    long.end("terminated").unwrap();
    session(&recorder, "new", 300);
    let ended = Timestamp::now();
    let done = forget(&recorder, &lines(), began);
    assert!(done.lines.is_some() && done.erased == 1, "{done:?}");
    assert_eq!(place.of_kind("session.carried").len(), 1);
    // What it did since stands before what was carried.
    assert_eq!(forget(&recorder, &texts(), began).erased, 0);
    assert!(text_of(&place, "long").unwrap().ends_with("-- long"));
    // That it was carried is nothing that it did.
    assert_eq!(forget(&recorder, &texts(), ended).erased, 2);
    assert!(matches!(text_of(&place, "long"), Err(StoreError::Erased { .. })));
    drop(recorder);
    clean(&place);
}

#[test]
fn a_session_that_is_carried_after_it_was_erased_stays_erased_on_record() {
    let place = Place::new();
    let recorder = place.open();
    let mut long = begin(&recorder, "long");
    session(&recorder, "old", 300);
    turn(&recorder);
    let first = Timestamp::now();
    say(&mut long, 5);
    long.end("terminated").unwrap();
    turn(&recorder);
    assert_eq!(forget(&recorder, &texts(), Timestamp::now()).erased, 2);
    turn(&recorder);
    let erased = Timestamp::now();
    session(&recorder, "new", 600);
    assert!(forget(&recorder, &lines(), first).lines.is_some());
    assert_eq!(place.of_kind("session.carried")[0].body("erased"), Some(&true.into()));
    clean(&place);
    session(&recorder, "newer", 600);
    assert!(forget(&recorder, &lines(), erased).lines.is_some());
    let begun = place.of_kind("erasure").iter().any(|line| line.body("session") == Some(&"long".into()));
    assert!(!begun && place.of_kind("session.carried").len() == 1);
    drop(recorder);
    assert_eq!(clean(&place).erased, 1);
}

#[test]
fn a_legal_hold_keeps_keys_texts_and_lines_until_it_is_lifted() {
    let place = Place::new();
    let (recorder, then) = written(&place);
    let boss = Principal { subject: "boss".to_owned(), ..principal() };
    let by =
        || Requester { principal: &boss, source: "127.0.0.1:1", token: TokenRef { id: None, sha256_8: "0a1b2c3d" } };
    let held = Whose::Session("old-2".to_owned());
    recorder.hold(&held, "case 7", by()).unwrap();
    let done = forget(&recorder, &lines(), then);
    assert_eq!((done.erased, done.held), (1, 1), "{done:?}");
    assert!(done.waits.unwrap().contains("legal hold"), "{done:?}");
    let (_, next) = done.lines.unwrap();
    assert!(place.events().iter().any(|event| event.session() == Some("old-2")));
    assert!(text_of(&place, "old-2").is_ok() && place.events()[0].seq() == next);
    assert_eq!(forget(&recorder, &lines(), then).held, 1);
    let refused =
        place.of_kind("erasure").iter().filter(|event| event.body("state") == Some(&"refused".into())).count();
    assert_eq!(refused, 0, "a held session does not fill the log");
    recorder.release(&held, "closed", by()).unwrap();
    let done = forget(&recorder, &lines(), then);
    assert!(done.erased == 1 && done.lines.unwrap().0 == next, "{done:?}");
    drop(recorder);
    clean(&place);
}

#[test]
fn texts_alone_are_destroyed_and_their_room_comes_back_and_nothing_else_may_be_missing() {
    let place = Place::new();
    let (recorder, then) = written(&place);
    let before = copied(&place);
    let done = forget(&recorder, &texts(), then);
    assert_eq!((done.erased, done.blobs, done.lines), (2, 2, None), "{done:?}");
    assert_eq!(files(&place.data(), "blobs").len(), 2);
    assert!(matches!(text_of(&place, "old-1"), Err(StoreError::Erased { .. })));
    assert!(text_of(&place, "new-1").is_ok());
    drop(recorder);
    let found = clean(&place);
    assert_eq!((found.erased, found.blobs_gone), (2, 300));
    // The next file's sessions are not erased, and no line names it.
    fs::remove_file(&files(&place.data(), "blobs")[0]).unwrap();
    let found = checked(&place, &place.data(), &[]);
    assert!(found.findings().0.iter().all(|finding| matches!(finding, Finding::Blob { .. })), "{found:?}");
    assert!(!found.is_clean());
    // Without any line.
    fs::remove_file(&files(before.path(), "blobs")[0]).unwrap();
    assert!(!checked(&place, before.path(), &[]).is_clean());
}

#[test]
fn a_crash_between_the_line_and_the_files_is_made_good_by_the_next_round() {
    let place = Place::new();
    let (recorder, then) = written(&place);
    let before = copied(&place);
    let (_, next) = forget(&recorder, &lines(), then).lines.unwrap();
    drop(recorder);
    let old = files(before.path(), "log");
    for left in [&old[..2], &old[1..2], &[]] {
        for file in left {
            fs::copy(file, place.data().join("log").join(file.file_name().unwrap())).unwrap();
        }
        for blob in &files(before.path(), "blobs")[..left.len()] {
            fs::copy(blob, place.data().join("blobs").join(blob.file_name().unwrap())).unwrap();
        }
        assert_eq!(clean(&place).first == next, left.is_empty());
        let recorder = place.open();
        clean(&place);
        recorder.forget(&lines(), at(then, u64::MAX)).unwrap();
        drop(recorder);
        assert_eq!(clean(&place).first, next);
    }
    // Another file of that name is nobody's to take away.
    let [first, ..] = &old[..] else { panic!() };
    let back = place.data().join("log").join(first.file_name().unwrap());
    fs::write(&back, "{}\n").unwrap();
    let recorder = place.open();
    assert!(recorder.forget(&lines(), at(then, u64::MAX)).is_err(), "a line is not an event");
    assert!(back.exists());
}

#[test]
fn what_is_gone_without_a_signed_line_or_its_hashes_is_found() {
    let place = Place::new();
    let (recorder, then) = written(&place);
    let before = copied(&place);
    let (_, next) = forget(&recorder, &lines(), then).lines.unwrap();
    drop(recorder);
    // One file more than the line says.
    let more = copied(&place);
    let log = files(more.path(), "log");
    fs::remove_file(&log[0]).unwrap();
    let first = log[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let gone = findings(&place, more.path());
    assert!(gone.contains(&Finding::Gone { first: next, next: first }) || gone.len() > 1, "{gone:?}");
    assert!(!checked(&place, more.path(), &[]).is_gone_rightly);
    // No line at all; and one that nobody signed.
    fs::remove_file(&files(before.path(), "log")[0]).unwrap();
    let first: u64 = files(before.path(), "log")[0].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let gone = Finding::Gone { first: 0, next: first };
    assert!(findings(&place, before.path()).contains(&gone));
    let last = files(before.path(), "log").pop().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    let seq = last.file_stem().unwrap().to_str().unwrap().parse::<usize>().unwrap() + text.lines().count();
    let forged = format!(
        r#"{{"body":{{"blobs":[],"files":[{{"bytes":1,"first":0,"next":{first},"sha256":""}}]}},"gateway":"exeat-test","seq":{seq},"time":"2026-01-01T00:00:00.000000Z","type":"retention","v":1}}"#
    );
    fs::write(&last, format!("{text}{forged}\n")).unwrap();
    assert!(findings(&place, before.path()).contains(&gone));
    // The hashes of what is gone.
    let tile = place.data().join("tree/tile/0/000");
    let hashes = fs::read(&tile).unwrap();
    let mut altered = hashes.clone();
    altered[40] ^= 1;
    fs::write(&tile, altered).unwrap();
    let found = findings(&place, &place.data());
    assert!(matches!(found[..], [Finding::Tile { .. }, Finding::Contradicts { .. }]), "{found:?}");
    fs::remove_file(&tile).unwrap();
    assert_eq!(findings(&place, &place.data())[0], Finding::NoHashes { first: 0, next });
    fs::write(&tile, hashes).unwrap();
    clean(&place);
}

#[test]
fn keys_that_handed_over_in_lines_that_are_gone_still_lead_to_the_last() {
    let place = Place::new();
    let recorder = place.open();
    session(&recorder, "old", 300);
    recorder.rotate_key(None).unwrap();
    turn(&recorder);
    let then = Timestamp::now();
    session(&recorder, "new", 300);
    assert!(forget(&recorder, &lines(), then).lines.is_some());
    assert!(place.of_kind("key.rotate").is_empty() && place.of_kind("key.carried").len() == 1);
    recorder.rotate_key(None).unwrap();
    turn(&recorder);
    let then = Timestamp::now();
    session(&recorder, "newer", 600);
    assert!(forget(&recorder, &lines(), then).lines.is_some());
    assert_eq!(place.of_kind("key.carried").len(), 2);
    drop(recorder);
    let found = clean(&place);
    assert!(found.handed_over.len() == 2 && found.handed_over.iter().all(|link| link.is_trusted), "{found:?}");
    // Another line than the one that is in the tree hands over nothing.
    let log = files(&place.data(), "log").pop().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("\\\"number\\\":1", "\\\"number\\\":7", 1)).unwrap();
    let found = findings(&place, &place.data());
    assert!(found.iter().any(|finding| matches!(finding, Finding::Rotation { .. })), "{found:?}");
}

async fn rows(index: &mut Index) -> Vec<SessionRow> {
    index.sessions(&Filter { limit: 100, ..Filter::default() }, None).await.unwrap()
}

#[tokio::test]
async fn an_index_that_was_there_before_a_cut_says_what_one_made_anew_says() {
    let place = Place::new();
    let recorder = place.open();
    let mut long = begin(&recorder, "long");
    say(&mut long, 5);
    session(&recorder, "old", 300);
    turn(&recorder);
    let then = Timestamp::now();
    session(&recorder, "new", 300);
    let mut kept = Index::open(&IndexPlace::beside(&place.data()), &place.data()).await.unwrap();
    kept.catch_up(None, |_| {}).await.unwrap();
    assert_eq!(rows(&mut kept).await.len(), 3);
    say(&mut long, 3);
    assert!(forget(&recorder, &lines(), then).lines.is_some());
    long.end("terminated").unwrap();
    assert!(kept.catch_up(None, |_| {}).await.unwrap().rebuilt);
    let mut anew = Index::open(&IndexPlace::Memory, &place.data()).await.unwrap();
    anew.catch_up(None, |_| {}).await.unwrap();
    let found = rows(&mut kept).await;
    let shown = |rows: &[SessionRow]| format!("{rows:?}");
    assert_eq!(shown(&found), shown(&rows(&mut anew).await));
    let names: Vec<&str> = found.iter().map(|row| row.session.as_str()).collect();
    assert!(names.contains(&"long") && names.contains(&"new") && !names.contains(&"old"), "{names:?}");
    let long = found.iter().find(|row| row.session == "long").unwrap();
    assert_eq!((long.first_seq, long.statements, long.database.as_str()), (1, 3, "shop"));
    let events = kept.events(long).await.unwrap().events;
    assert!(events.iter().any(|event| event.kind() == "session.carried"));
    assert!(
        kept.text(long, events.iter().find(|event| event.kind() == "statement.intent").unwrap(), &place.keys())
            .unwrap()
            .is_some()
    );
    assert!(!kept.catch_up(None, |_| {}).await.unwrap().rebuilt);
}

#[tokio::test]
async fn a_text_is_found_that_a_session_had_too_that_is_erased_and_was_carried() {
    let place = Place::new();
    let recorder = place.open();
    let say_heron = |record: &mut SessionRecord| {
        let _ = record.intent(&allowed("h1", "select 'heron'")).unwrap();
        let _ = record.outcome(&done("h1")).unwrap();
    };
    let mut long = begin(&recorder, "long");
    session(&recorder, "old", 300);
    turn(&recorder);
    let began = Timestamp::now();
    say_heron(&mut long);
    long.end("terminated").unwrap();
    assert_eq!(forget(&recorder, &texts(), Timestamp::now()).erased, 2);
    let mut new = begin(&recorder, "new");
    say_heron(&mut new);
    say(&mut new, 300);
    assert!(forget(&recorder, &lines(), began).lines.is_some());
    assert_eq!(place.of_kind("session.carried")[0].body("erased"), Some(&true.into()));
    let keys = place.keys();
    for at in [IndexPlace::beside(&place.data()), IndexPlace::Memory] {
        let mut index = Index::open(&at, &place.data()).await.unwrap();
        index.catch_up(Some(&keys), |_| {}).await.unwrap();
        let heron = Filter { text: Some("heron".to_owned()), limit: 100, ..Filter::default() };
        let found = index.sessions(&heron, Some(&keys)).await.unwrap();
        let names: Vec<&str> = found.iter().map(|row| row.session.as_str()).collect();
        assert_eq!(names, ["new"], "{at:?}");
        assert!(!index.catch_up(Some(&keys), |_| {}).await.unwrap().rebuilt);
    }
}

#[tokio::test]
async fn the_policy_in_force_is_known_when_the_line_that_said_so_is_gone() {
    let place = Place::new();
    let recorder = place.open();
    let change = PolicyChange { policy: POLICY, previous: None, path: "policies", accepted: true, problem: None };
    recorder.policy_changed(&change).unwrap();
    session(&recorder, "old", 300);
    turn(&recorder);
    let then = Timestamp::now();
    recorder.policy_changed(&PolicyChange { accepted: false, problem: Some("line 3: typo"), ..change }).unwrap();
    session(&recorder, "new", 300);
    assert!(forget(&recorder, &lines(), then).lines.is_some());
    assert_eq!(place.of_kind("policy.changed").len(), 1);
    let mut kept = Index::open(&IndexPlace::beside(&place.data()), &place.data()).await.unwrap();
    kept.catch_up(None, |_| {}).await.unwrap();
    let shown = async |index: &mut Index| {
        let policies = index.policies().await.unwrap();
        assert!(policies.iter().all(|policy| policy.at >= then), "{policies:?}");
        policies.into_iter().map(|policy| (policy.version, policy.accepted)).collect::<Vec<_>>()
    };
    assert_eq!(shown(&mut kept).await, [(3, false), (3, true)]);
    // A session that began under the one before does not turn it back.
    let policy = PolicyRef { version: 4, sha256: "def456" };
    recorder.policy_changed(&PolicyChange { policy, previous: Some(POLICY), ..change }).unwrap();
    session(&recorder, "newer", 1);
    kept.catch_up(None, |_| {}).await.unwrap();
    let mut anew = Index::open(&IndexPlace::Memory, &place.data()).await.unwrap();
    anew.catch_up(None, |_| {}).await.unwrap();
    for index in [&mut kept, &mut anew] {
        assert_eq!(shown(index).await, [(3, false), (3, true), (4, true)]);
    }
}

#[tokio::test]
async fn a_session_did_nothing_when_it_was_carried() {
    let place = Place::new();
    let recorder = place.open();
    let _idle = begin(&recorder, "idle");
    session(&recorder, "old", 300);
    turn(&recorder);
    let then = Timestamp::now();
    session(&recorder, "new", 300);
    assert!(forget(&recorder, &lines(), then).lines.is_some());
    let mut index = Index::open(&IndexPlace::Memory, &place.data()).await.unwrap();
    index.catch_up(None, |_| {}).await.unwrap();
    let rows = rows(&mut index).await;
    let idle = rows.iter().find(|row| row.session == "idle").unwrap();
    assert!(idle.last_at == idle.first_at && idle.last_at < then, "{idle:?}");
    let since = Filter { since: Some(then), limit: 100, ..Filter::default() };
    let found = index.sessions(&since, None).await.unwrap();
    assert_eq!(found.iter().map(|row| row.session.as_str()).collect::<Vec<_>>(), ["new"]);
}
