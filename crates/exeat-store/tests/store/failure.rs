//! What goes wrong around the record: crashes, full disks, other keys, other processes.

use std::io::{BufRead, Write};
use std::os::unix::fs::MetadataExt;

use crate::common::{Place, allowed, child_of, done, open_at, principal, start};
use exeat_store::StoreError;
use exeat_store::record::{Durability, Outcome, Statement};
use serde_json::json;

fn append(path: &std::path::Path, bytes: &[u8]) {
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn some_events(place: &Place) {
    let recorder = place.open();
    let mut session = recorder.start_session(&start("s1", &principal())).unwrap();
    let _ = session.intent(&allowed("req_1", "select 1")).unwrap();
    let _ = session.outcome(&done("req_1")).unwrap();
    session.end("terminated").unwrap();
}

#[test]
fn a_restart_goes_on_with_the_next_number_and_says_nothing() {
    let place = Place::new();
    some_events(&place);
    some_events(&place);
    let events = place.events();
    assert_eq!(events.len(), 9);
    assert!(events.iter().zip(0..).all(|(event, seq)| event.seq() == seq));
    assert!(place.of_kind("recovery").is_empty());
}

#[test]
fn a_torn_last_line_is_cut_and_reported() {
    for tail in [&b"{\"body\":{\"bytes\":0"[..], b"{", b"\0\0\0\0\0\0\n\0\0", &[b'x'; 3000]] {
        let place = Place::new();
        some_events(&place);
        let before = place.events();
        append(&place.log_file(), tail);
        // A reader next to the gateway does not take half a line for an event.
        if !tail.contains(&b'\n') {
            assert_eq!(place.events(), before);
        }
        some_events(&place);
        let events = place.events();
        assert_eq!(events[..before.len()], before);
        assert!(events.iter().zip(0..).all(|(event, seq)| event.seq() == seq));
        let recovery = place.of_kind("recovery").remove(0);
        assert_eq!(recovery.body("cut_bytes"), Some(&json!(tail.len())));
        assert_eq!(recovery.body("cut_sha256").unwrap().as_str().unwrap().len(), 64);
    }
}

#[test]
fn damage_that_no_crash_makes_keeps_the_record_closed() {
    let place = Place::new();
    some_events(&place);
    let path = place.log_file();
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let without_second = [&lines[..1], &lines[2..]].concat().join("\n") + "\n";
    let repeated = format!("{whole}{}\n", lines[4]);
    let garbled = whole.replacen("\"seq\":2", "\"seq\":x", 1);
    let endless = format!("{whole}{}\n{}", "x".repeat(40_000), "y".repeat(10));
    for damaged in [without_second, repeated, garbled, endless, format!("{whole}not an event\n")] {
        std::fs::write(&path, &damaged).unwrap();
        let error = place.try_open(Durability::Os).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged, "left for a human as it is");
    }
    std::fs::write(&path, &whole).unwrap();
    place.open();
}

#[test]
fn a_crash_leaves_open_intents_that_the_next_start_closes() {
    if let Some(base) = child_of() {
        let recorder = open_at(&base, Durability::Os).unwrap();
        let principal = principal();
        let mut one = recorder.start_session(&start("s1", &principal)).unwrap();
        let mut two = recorder.start_session(&start("s2", &principal)).unwrap();
        let _ = one.intent(&allowed("answered", "select 1")).unwrap();
        let _ = one.outcome(&done("answered")).unwrap();
        let refused = Statement { decision: exeat_store::record::Decision::Refuse, ..allowed("refused", "select 2") };
        let _ = one.intent(&refused).unwrap();
        let _ = one.intent(&allowed("half", "select 3; select 4")).unwrap();
        let _ = one.outcome(&Outcome { last: false, ..done("half") }).unwrap();
        let _ = two.intent(&allowed("waiting", "select pg_sleep(9)")).unwrap();
        let mut three = recorder.start_session(&start("s3", &principal)).unwrap();
        let _ = three.intent(&allowed("ended", "select 5")).unwrap();
        three.end("disconnected").unwrap();
        std::process::abort();
    }
    let place = Place::new();
    let output = place.child("failure::a_crash_leaves_open_intents_that_the_next_start_closes");
    assert!(!output.status.success());
    drop(place.open());
    let recovery = place.of_kind("recovery");
    assert_eq!(recovery.len(), 1);
    let seq_of = |request: &str| {
        let intents = place.of_kind("statement.intent");
        intents.iter().find(|event| event.body("request_id") == Some(&json!(request))).unwrap().seq()
    };
    let mut body = recovery[0].value()["body"].clone();
    // How many were signed before the end is the clock's matter; the rest is named up to the last.
    let unsigned = body.as_object_mut().unwrap().remove("unsigned").unwrap();
    assert!(unsigned["first"].as_u64() < unsigned["end"].as_u64(), "{unsigned}");
    assert_eq!(unsigned["end"], json!(recovery[0].seq()));
    assert_eq!(
        body,
        json!({"result": "outcome_unknown", "unknown": [
            {"request_id": "half", "seq": seq_of("half"), "session": "s1"},
            {"request_id": "waiting", "seq": seq_of("waiting"), "session": "s2"},
        ]})
    );
    drop(place.open());
    assert_eq!(place.of_kind("recovery").len(), 1, "closed once");
}

#[test]
fn intents_left_open_in_an_earlier_file_are_found() {
    if let Some(base) = child_of() {
        let recorder = open_at(&base, Durability::Os).unwrap();
        let principal = principal();
        let mut long = recorder.start_session(&start("s1", &principal)).unwrap();
        let _ = long.intent(&allowed("long", "select 1")).unwrap();
        let mut busy = recorder.start_session(&start("s2", &principal)).unwrap();
        let reasons = vec!["x".repeat(500); 60];
        for _ in 0..2300 {
            let _ = busy.parse(&Statement { reasons: &reasons, ..allowed("busy", "select 2") }).unwrap();
        }
        let _ = busy.intent(&allowed("late", "select 3")).unwrap();
        let _ = busy.commit().unwrap();
        std::process::abort();
    }
    let place = Place::new();
    place.child("failure::intents_left_open_in_an_earlier_file_are_found");
    let files = || std::fs::read_dir(place.data().join("log")).unwrap().count();
    assert_eq!(files(), 2, "the child began a second file");
    drop(place.open());
    let recovery = place.of_kind("recovery").remove(0);
    let requests: Vec<_> =
        recovery.body("unknown").unwrap().as_array().unwrap().iter().map(|item| item["request_id"].clone()).collect();
    assert_eq!(requests, [json!("long"), json!("late")]);
    let events = place.events();
    assert!(events.iter().zip(0..).all(|(event, seq)| event.seq() == seq));
    // Nothing is gone on with that lost what was signed.
    std::fs::write(place.log_file(), "{\"body\":").unwrap();
    assert_eq!(place.open().kept_aside(), ["log-1"]);
}

#[test]
fn another_master_key_is_refused() {
    let place = Place::new();
    some_events(&place);
    let key = place.keys_folder().join("master.key");
    let original = std::fs::read(&key).unwrap();
    std::fs::write(&key, "11".repeat(32)).unwrap();
    let error = place.try_open(Durability::Os).unwrap_err();
    assert!(matches!(error, StoreError::MasterMismatch { .. }), "{error}");
    std::fs::write(&key, &original).unwrap();
    drop(place.open());
    // Taking the check away does not make another key acceptable.
    std::fs::remove_file(place.data().join("key-check")).unwrap();
    std::fs::write(&key, "11".repeat(32)).unwrap();
    assert!(matches!(place.try_open(Durability::Os), Err(StoreError::KeyCheckMissing { .. })));
}

#[test]
fn two_processes_do_not_share_a_folder() {
    if let Some(base) = child_of() {
        let error = open_at(&base, Durability::Os).unwrap_err();
        println!("child: {error}");
        return;
    }
    let place = Place::new();
    let recorder = place.open();
    assert!(matches!(open_at(place.base.path(), Durability::Os), Err(StoreError::Locked { .. })));
    let output = place.child("failure::two_processes_do_not_share_a_folder");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("is in use by another process"));
    drop(recorder);
    place.open();
}

/// A limit on file size stands for a disk that breaks its promise of room: the kernel takes what fits and then says no.
#[test]
fn what_cannot_be_written_is_committed_for_nobody_and_waits_in_order() {
    if let Some(base) = child_of() {
        let recorder = open_at(&base, Durability::Os).unwrap();
        let principal = principal();
        let mut session = recorder.start_session(&start("s1", &principal)).unwrap();
        let mut other = recorder.start_session(&start("s2", &principal)).unwrap();
        let mut idle = recorder.start_session(&start("s3", &principal)).unwrap();
        let reasons = vec!["x".repeat(500); 50];
        let large = Statement { reasons: &reasons, ..allowed("large", "select 1") };
        let mut written = 0;
        let error = loop {
            let _ = other.intent(&allowed("beside", "select 2")).unwrap();
            let _ = session.parse(&large).unwrap();
            match session.commit() {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Io { action: "append to", .. }), "{error}");
        // Each session hears of it from its own commit; one with nothing at stake goes on.
        assert!(!session.is_committed() && !other.is_committed() && idle.is_committed());
        assert!(matches!(session.commit(), Err(StoreError::Io { .. })));
        assert!(matches!(other.commit(), Err(StoreError::Io { .. })));
        let _ = idle.commit().unwrap();
        // Nothing is taken behind what could not be written, however small.
        assert!(matches!(session.intent(&allowed("small", "select 2")), Err(StoreError::Io { .. })));
        assert!(matches!(recorder.heartbeat(), Err(StoreError::Io { .. })));
        assert!(matches!(recorder.health(), Err(StoreError::Io { .. })));
        // With room again, what waited is written before anything new.
        let limit = std::process::Command::new("prlimit")
            .args(["--fsize=unlimited:unlimited", "--pid", &std::process::id().to_string()])
            .status();
        assert!(limit.unwrap().success());
        recorder.health().unwrap();
        assert!(session.is_committed() && other.is_committed());
        let _ = session.intent(&allowed("after", "select 2")).unwrap();
        let _ = session.commit().unwrap();
        println!("child: wrote {written}");
        std::process::abort();
    }
    let place = Place::new();
    let name = "failure::what_cannot_be_written_is_committed_for_nobody_and_waits_in_order";
    // ulimit counts in blocks of 512 bytes in POSIX shells and 1024 in some: both end within a few large lines.
    let output = place.child_under(name, "trap '' XFSZ; ulimit -S -f 128; exec \"$0\" \"$@\"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("child: wrote"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(place.log_file()).unwrap();
    assert!(text.ends_with('\n'));
    let before = place.events();
    assert!(before.iter().zip(0..).all(|(event, seq)| event.seq() == seq));
    assert_eq!(before.last().unwrap().body("request_id"), Some(&json!("after")));
    assert!(place.of_kind("statement.intent").iter().all(|event| event.body("request_id") != Some(&json!("small"))));
    drop(place.open());
    let recovery = place.of_kind("recovery").remove(0);
    assert!(recovery.body("cut_bytes").is_none(), "nothing was torn");
}

/// What a statement's bytes wait for: its intent in the file. The child says a request's name where a gateway would send
/// it; whenever it is killed, whatever it said is on record.
#[test]
fn nothing_leaves_before_its_intent_whenever_the_process_is_killed() {
    if let Some(base) = child_of() {
        let recorder = open_at(&base, Durability::Os).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let recorder = recorder.clone();
                scope.spawn(move || {
                    let principal = principal();
                    let mut session = recorder.start_session(&start(&format!("s{thread}"), &principal)).unwrap();
                    for batch in 0_u64.. {
                        let names = [0, 1, 2].map(|number| format!("req_{thread}_{batch}_{number}"));
                        for name in &names {
                            let _ = session.intent(&allowed(name, &format!("select '{name}'"))).unwrap();
                        }
                        let _ = session.commit().unwrap();
                        for name in &names {
                            println!("sent {name}");
                            let _ = session.outcome(&done(name)).unwrap();
                        }
                    }
                });
            }
        });
    }
    for lines in [1, 50, 777] {
        let place = Place::new();
        let name = "failure::nothing_leaves_before_its_intent_whenever_the_process_is_killed";
        let mut child = place.child_running(name);
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut sent: Vec<String> =
            said.by_ref().map(Result::unwrap).filter(|l| l.contains("sent ")).take(lines).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        sent.extend(said.map_while(Result::ok).filter(|line| line.contains("sent ")));
        assert!(sent.len() >= lines);
        drop(place.open());
        let intents: std::collections::HashSet<String> = place
            .of_kind("statement.intent")
            .iter()
            .map(|event| event.body("request_id").unwrap().as_str().unwrap().to_owned())
            .collect();
        for line in sent {
            let (_, name) = line.split_once("sent ").unwrap();
            // The last line may be cut short by the kill.
            let whole = intents.contains(name) || intents.iter().any(|intent| intent.starts_with(name));
            assert!(whole, "{name} left and is not on record");
        }
    }
}

#[test]
fn room_reserved_by_a_killed_gateway_is_not_read_and_is_given_back() {
    if let Some(base) = child_of() {
        let recorder = open_at(&base, Durability::Os).unwrap();
        let mut session = recorder.start_session(&start("s1", &principal())).unwrap();
        let _ = session.intent(&allowed("req_1", "select 1")).unwrap();
        let _ = session.commit().unwrap();
        std::process::abort();
    }
    let place = Place::new();
    place.child("failure::room_reserved_by_a_killed_gateway_is_not_read_and_is_given_back");
    let spare = || -> u64 {
        let files = place.data_files();
        files
            .iter()
            .map(|file| std::fs::metadata(file).unwrap())
            .map(|m| (m.blocks() * 512).saturating_sub(m.len()))
            .sum()
    };
    let kept = spare();
    let recorder = place.open();
    assert_eq!(place.of_kind("recovery").len(), 1);
    assert!(place.of_kind("recovery")[0].body("cut_bytes").is_none());
    let open = spare();
    drop(recorder);
    assert!(spare() < 128 * 1024, "{}", spare());
    // Where the file system reserves at all, both processes held more than that.
    assert_eq!(kept > 1024 * 1024, open > 1024 * 1024);
}

#[test]
fn a_data_folder_that_is_a_file_is_named_in_the_error() {
    let place = Place::new();
    std::fs::write(place.data(), "").unwrap();
    let error = place.try_open(Durability::Os).unwrap_err();
    assert!(error.to_string().contains("data"), "{error}");
}
