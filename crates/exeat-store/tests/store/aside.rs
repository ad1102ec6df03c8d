//! A log that does not hold what was signed is kept aside as it is, a new one says so, and both are verified.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use exeat_store::archive;
use exeat_store::read::{BlobKind, open_log};
use exeat_store::record::Recorder;
use exeat_store::tree::VerifierKey;
use exeat_store::verify::{Against, Finding, Verification, verify};

use super::common::{Place, allowed, done, principal, start};

const GATEWAY: &str = "exeat-test";

fn write(recorder: &Recorder, session: &str, statements: usize) {
    let principal = principal();
    let mut record = recorder.start_session(&start(session, &principal)).unwrap();
    for number in 0..statements {
        let request = format!("req_{session}_{number}");
        let _ = record.intent(&allowed(&request, &format!("select {number}"))).unwrap();
        let _ = record.outcome(&done(&request)).unwrap();
    }
    record.end("terminated").unwrap();
}

/// 403 lines, all signed.
fn written() -> Place {
    let place = Place::new();
    write(&place.open(), "s1", 200);
    place
}

fn key(place: &Place, name: &str) -> VerifierKey {
    place.keys().signing_key(name).unwrap().verifier().clone()
}

fn checked(place: &Place, key: VerifierKey) -> Verification {
    verify(&place.data(), &Against { keys: &[key], older: &[] }).unwrap()
}

fn lines(log: &Path) -> Vec<String> {
    fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
}

fn put(log: &Path, lines: &[String]) {
    fs::write(log, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

fn cut(place: &Place) {
    let log = place.log_file();
    put(&log, &lines(&log)[..299]);
}

#[test]
fn a_log_that_was_cut_is_kept_aside_and_the_new_one_says_what_was_signed() {
    let place = written();
    let signed = fs::read_to_string(place.data().join("tree/signer")).unwrap();
    let (signed, tag) = signed.rsplit_once("tag ").unwrap();
    assert_eq!(tag.len(), 65);
    cut(&place);
    let kept = fs::read(place.log_file()).unwrap();
    let recorder = place.open();
    assert_eq!(recorder.kept_aside(), ["log-1"]);
    write(&recorder, "s2", 5);
    drop(recorder);
    assert_eq!(fs::read(place.data().join("log-1/00000000000000000000.jsonl")).unwrap(), kept, "as it was");
    let new = lines(&place.log_file());
    assert!(new[0].contains("\"seq\":0,") && new[0].contains("\"type\":\"heartbeat\""), "{}", new[0]);
    let told: serde_json::Value = serde_json::from_str(&new[1]).unwrap();
    assert_eq!(told["type"], "recovery");
    assert_eq!((&told["body"]["log"], &told["body"]["found"]), (&"log-1".into(), &299.into()));
    assert_eq!(told["body"]["signed"], signed);
    let problem = told["body"]["problem"].as_str().unwrap();
    assert!(problem.contains("299 lines, fewer than the 403 that were signed"), "{problem}");
    let checkpoint = fs::read_to_string(place.data().join("tree/checkpoint")).unwrap();
    assert!(checkpoint.starts_with("exeat-test/1\n"), "{checkpoint}");

    // Its key is the gateway's, by either name.
    for name in [GATEWAY, "exeat-test/1"] {
        let found = checked(&place, key(&place, name));
        assert!(!found.is_clean() && found.findings().0.is_empty(), "{found:?}");
        assert_eq!(found.signed.unwrap().size(), found.lines);
        let [old] = &found.kept_aside[..] else { panic!("{found:?}") };
        let words = "what the next log says was signed".to_owned();
        let expected =
            [Finding::Shorter { signed: 403, found: 299 }, Finding::Beyond { name: words, size: 403, found: 299 }];
        assert_eq!((old.name.as_str(), old.lines, old.findings().0), ("log-1", 299, &expected[..]));
    }
    let strange = checked(&place, key(&place, "another"));
    assert!(strange.signed.is_none() && strange.kept_aside[0].signed.is_none());

    // The next start has nothing more to say, and goes on.
    drop(place.open());
    assert_eq!(place.of_kind("recovery").len(), 1 + 1, "one of them closes what was open in the old log");
    // Sessions of both are read.
    let mut log = open_log(&place.data()).unwrap();
    let intents = place.of_kind("statement.intent");
    for (session, text) in [("s1", "select 7"), ("s2", "select 3")] {
        let texts = intents.iter().filter(|event| event.session() == Some(session));
        let texts: Vec<String> = texts
            .map(|event| log.unseal(session, &event.blob(BlobKind::Sql).unwrap(), &place.keys()).unwrap())
            .collect();
        assert!(texts.iter().any(|unsealed| unsealed == text), "{texts:?}");
    }
}

#[test]
fn an_archive_of_the_log_before_has_the_same_slots_up_to_the_first_of_the_new_log() {
    let place = written();
    let earlier =
        |place: &Place| archive::earlier(&place.data(), &archive::signed(&place.data()).unwrap().unwrap()).unwrap();
    assert_eq!(earlier(&place), []);
    cut(&place);
    write(&place.open(), "s2", 5);
    let found = earlier(&place);
    let [first] = &found[..] else { panic!("{found:?}") };
    assert_eq!((first.origin.as_str(), first.slots_end(&place.data()).unwrap()), (GATEWAY, 1));
    // Another one kept aside, in which no session began.
    write(&place.open(), "s3", 200);
    cut(&place);
    drop(place.open());
    let found = earlier(&place);
    let ends: Vec<_> = found.iter().map(|log| (log.origin.as_str(), log.slots_end(&place.data()).unwrap())).collect();
    assert_eq!(ends, [(GATEWAY, 1), ("exeat-test/1", u64::MAX)]);
    write(&place.open(), "s4", 1);
    assert_eq!(earlier(&place)[1].slots_end(&place.data()).unwrap(), 3);
}

#[test]
fn an_altered_line_an_altered_tree_and_a_memory_that_is_none_are_told_apart_and_all_kept() {
    type Change = fn(&Place);
    let changes: [(Change, &str); 6] = [
        (
            |place| {
                let (log, mut all) = (place.log_file(), lines(&place.log_file()));
                all[400] = all[400].replace("exeat-test", "exeat-best");
                put(&log, &all);
            },
            "record 400 is not the one that was signed",
        ),
        (
            |place| {
                let tiles = place.data().join("tree/tile/0/001.p");
                let tile = fs::read_dir(tiles).unwrap().next().unwrap().unwrap().path();
                let mut bytes = fs::read(&tile).unwrap();
                bytes[0] ^= 1;
                fs::write(tile, bytes).unwrap();
            },
            "does not lead to what was signed",
        ),
        (|place| fs::remove_dir_all(place.data().join("tree/tile")).unwrap(), "does not lead to what was signed"),
        (|place| fs::write(place.data().join("tree/signer"), "").unwrap(), "who has not the master key"),
        (forget_and_begin_anew, "who has not the master key"),
        (
            |place| {
                let path = place.data().join("tree/signer");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replacen("\n403\n", "\n402\n", 1)).unwrap();
            },
            "who has not the master key",
        ),
    ];
    for (change, words) in changes {
        let place = written();
        change(&place);
        assert_eq!(place.open().kept_aside(), ["log-1"], "{words}");
        let told = place.of_kind("recovery").remove(0);
        let problem = told.body("problem").unwrap().as_str().unwrap().to_owned();
        assert!(problem.contains(words), "{problem}");
        let found = checked(&place, key(&place, GATEWAY));
        assert!(found.findings().0.is_empty() && found.kept_aside[0].lines == 403, "{found:?}");
    }
}

/// A log of somebody's own, and for the signer that it has signed nothing yet.
fn forget_and_begin_anew(place: &Place) {
    let (log, mut all) = (place.log_file(), lines(&place.log_file()));
    all[7] = all[7].replace("exeat-test", "exeat-best");
    put(&log, &all);
    let tree = place.data().join("tree");
    fs::remove_dir_all(&tree).unwrap();
    fs::create_dir(&tree).unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(tree.join("signer"), format!("{GATEWAY}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")).unwrap();
}

#[test]
fn what_is_signed_is_not_cut_whatever_became_of_it() {
    let place = written();
    let log = place.log_file();
    let mut bytes = fs::read(&log).unwrap();
    bytes[700] = 0;
    fs::write(&log, &bytes).unwrap();
    assert_eq!(place.open().kept_aside(), ["log-1"]);
    assert_eq!(fs::read(place.data().join("log-1").join(log.file_name().unwrap())).unwrap(), bytes, "as it was");
}

#[test]
fn lines_that_nobody_had_signed_are_named_at_the_next_start_and_after_a_clean_end_there_are_none() {
    let place = written();
    drop(place.open());
    assert_eq!(place.of_kind("recovery").len(), 0);
    let mut all = lines(&place.log_file());
    let next = all.len();
    all.push(all[0].replacen("\"seq\":0,", &format!("\"seq\":{next},"), 1));
    put(&place.log_file(), &all);
    drop(place.open());
    let told = place.of_kind("recovery");
    let expected = serde_json::json!({"unsigned": {"first": next, "end": next + 1}});
    assert_eq!(told.iter().map(|event| &event.value()["body"]).collect::<Vec<_>>(), [&expected]);
    assert!(checked(&place, key(&place, GATEWAY)).is_clean());
}

#[test]
fn a_second_one_gets_the_next_number_and_one_that_is_taken_away_is_missed() {
    let place = written();
    cut(&place);
    write(&place.open(), "s2", 5);
    let older = fs::read(place.data().join("tree/checkpoint")).unwrap();
    fs::remove_file(place.log_file()).unwrap();
    assert_eq!(place.open().kept_aside(), ["log-2"]);
    let against = [("kept".to_owned(), older)];
    let against = Against { keys: &[key(&place, GATEWAY)], older: &against };
    let found = verify(&place.data(), &against).unwrap();
    let names: Vec<&str> = found.kept_aside.iter().map(|log| log.name.as_str()).collect();
    assert_eq!(names, ["log-1", "log-2"]);
    assert!(found.findings().0.is_empty(), "{found:?}");
    // What somebody kept of a log is held against that log.
    let beyond =
        found.kept_aside[1].findings().0.iter().any(|f| matches!(f, Finding::Beyond { name, .. } if name == "kept"));
    assert!(beyond, "{found:?}");
    fs::remove_dir_all(place.data().join("log-2")).unwrap();
    fs::remove_dir_all(place.data().join("tree-2")).unwrap();
    let found = verify(&place.data(), &against).unwrap();
    let missing = Finding::LogMissing { name: "log-2".to_owned() };
    let other = Finding::OtherLog { name: "kept".to_owned(), origin: "exeat-test/1".to_owned() };
    assert_eq!(found.findings().0, [missing, other]);
}

#[test]
fn a_crash_between_the_two_folders_is_gone_on_with() {
    let place = written();
    cut(&place);
    let kept = fs::read(place.log_file()).unwrap();
    // As it is behind the first rename.
    let note = r#"{"found":300,"problem":"it was cut","signed":null}"#;
    fs::write(place.data().join("tree/set-aside"), note).unwrap();
    fs::rename(place.data().join("tree"), place.data().join("tree-1")).unwrap();
    assert_eq!(place.open().kept_aside(), ["log-1"]);
    assert_eq!(fs::read(place.data().join("log-1/00000000000000000000.jsonl")).unwrap(), kept);
    let told = place.of_kind("recovery");
    assert_eq!(told[0].body("problem").unwrap(), "it was cut");
    let found = checked(&place, key(&place, GATEWAY));
    assert!(found.findings().0.is_empty() && found.kept_aside.len() == 1, "{found:?}");
    assert!(place.open().kept_aside().is_empty());
}
