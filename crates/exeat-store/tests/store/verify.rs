//! A record that was altered in any way says so, and which record it is; one that was not is signed as far as it goes.

use std::fs;
use std::path::{Path, PathBuf};

use exeat_store::chain;
use exeat_store::record::Recorder;
use exeat_store::tree::{Checkpoint, Note, SigningKey, TreeHead, VerifierKey};
use exeat_store::verify::{Against, Finding, Verification, verify};

use super::common::{Place, allowed, done, principal, start};

const GATEWAY: &str = "exeat-test";

/// So many statements in a session of that name.
fn write(recorder: &Recorder, session: &str, statements: usize) {
    let principal = principal();
    let mut record = recorder.start_session(&start(session, &principal)).unwrap();
    for number in 0..statements {
        let request = format!("req_{session}_{number}");
        let sql = format!("select {number} from customers where ssn = '123-45-6789'");
        let _ = record.intent(&allowed(&request, &sql)).unwrap();
        let _ = record.outcome(&done(&request)).unwrap();
    }
    record.end("terminated").unwrap();
}

/// A closed record of more than one tile.
fn written() -> Place {
    let place = Place::new();
    let recorder = place.open();
    write(&recorder, "s1", 200);
    drop(recorder);
    place
}

fn key(place: &Place) -> VerifierKey {
    place.keys().signing_key(GATEWAY).unwrap().verifier().clone()
}

fn checked(place: &Place, data: &Path) -> Verification {
    verify(data, &Against { keys: &[key(place)], older: &[] }).unwrap()
}

fn findings(found: &Verification) -> Vec<Finding> {
    found.findings().0.to_vec()
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

/// What is found in a copy whose lines were changed in this way.
fn after(place: &Place, change: impl FnOnce(&mut Vec<String>)) -> Verification {
    let copied = tempfile::tempdir().unwrap();
    copy(&place.data(), copied.path());
    let log = log_file(copied.path());
    let mut lines: Vec<String> = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(&log, lines.into_iter().map(|line| line + "\n").collect::<String>()).unwrap();
    checked(place, copied.path())
}

fn log_file(data: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.pop().unwrap()
}

#[test]
fn what_was_written_is_signed_to_its_end_across_restarts() {
    let place = written();
    let first = checked(&place, &place.data());
    assert_eq!(findings(&first), []);
    let head = first.signed.unwrap();
    // A heartbeat, a start and an end beside the statements.
    assert_eq!((first.lines, head.size(), first.unsigned, first.blobs), (403, 403, 0, 200));
    let note = fs::read(place.data().join("tree/checkpoint")).unwrap();
    for session in ["s2", "s3"] {
        write(&place.open(), session, 150);
    }
    let again =
        verify(&place.data(), &Against { keys: &[key(&place)], older: &[("the older one".to_owned(), note.clone())] })
            .unwrap();
    assert_eq!(findings(&again), []);
    assert_eq!(again.extends, [("the older one".to_owned(), 403)]);
    assert_eq!(again.signed.unwrap().size(), again.lines);
    assert!(again.lines > 1000, "{}", again.lines);
    // Without the key everything but the signature is looked at.
    let unkeyed = verify(&place.data(), &Against { keys: &[], older: &[("older".to_owned(), note)] }).unwrap();
    assert!(unkeyed.is_clean() && !unkeyed.by_key && unkeyed.extends.len() == 1);
}

#[test]
fn one_flipped_bit_anywhere_names_its_record() {
    let place = written();
    for seq in [0, 1, 200, 255, 256, 402] {
        let found = after(&place, |lines| {
            let line = &mut lines[seq];
            // Within a text: what stays is still an event.
            let at = line.find("\"gateway\":\"exeat").unwrap() + 11;
            let mut bytes = std::mem::take(line).into_bytes();
            bytes[at] ^= 1;
            *line = String::from_utf8(bytes).unwrap();
        });
        let seq = u64::try_from(seq).unwrap();
        let contradicts = Finding::Contradicts { name: "the checkpoint".to_owned(), size: 403 };
        assert_eq!(findings(&found), [Finding::Altered { seq }, contradicts]);
    }
}

#[test]
fn a_line_that_is_removed_added_swapped_or_no_event_is_named() {
    let place = written();
    let removed = after(&place, |lines| drop(lines.remove(17)));
    assert_eq!(findings(&removed)[0], Finding::Missing { seq: 17 });
    assert!(findings(&removed).len() > 2 && !removed.is_clean());
    let swapped = after(&place, |lines| lines.swap(17, 18));
    assert_eq!(findings(&swapped)[..2], [Finding::Missing { seq: 17 }, Finding::OutOfOrder { seq: 17, place: 18 }]);
    let twice = after(&place, |lines| lines.insert(18, lines[17].clone()));
    assert_eq!(findings(&twice)[0], Finding::OutOfOrder { seq: 17, place: 18 });
    let broken = after(&place, |lines| lines[17].truncate(30));
    assert!(matches!(&findings(&broken)[0], Finding::NoEvent { after: 16, .. }), "{:?}", findings(&broken));
    let cut = after(&place, |lines| lines.truncate(300));
    assert_eq!(findings(&cut), [Finding::Shorter { signed: 403, found: 300 }]);
}

#[test]
fn a_forged_checkpoint_and_an_old_log_are_told_by_the_key_and_by_whoever_kept_a_newer_one() {
    let place = written();
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    copy(&place.data(), &old);
    write(&place.open(), "s2", 50);
    let newer = fs::read(place.data().join("tree/checkpoint")).unwrap();
    let keys = [key(&place)];
    let replayed = verify(&old, &Against { keys: &keys, older: &[("newer".to_owned(), newer)] }).unwrap();
    let beyond = Finding::Beyond { name: "newer".to_owned(), size: 505, found: 403 };
    assert_eq!(findings(&replayed), [beyond]);
    // A log of the same length with other content, signed by another key in the same name.
    let other = SigningKey::from_seed(GATEWAY.parse().unwrap(), &[7; 32]).unwrap();
    let root = exeat_store::tree::leaf_hash(b"something else");
    let head = TreeHead::new(403, root).unwrap();
    let forged = Note::sign(&Checkpoint::new(GATEWAY, head).unwrap().to_string(), &[&other]).unwrap();
    fs::write(old.join("tree/checkpoint"), forged.to_string()).unwrap();
    let found = checked(&place, &old);
    assert!(matches!(&findings(&found)[..], [Finding::Checkpoint { .. }]), "{:?}", findings(&found));
    fs::remove_file(old.join("tree/checkpoint")).unwrap();
    assert_eq!(findings(&checked(&place, &old)), [Finding::NoCheckpoint]);
}

#[test]
fn a_sealed_text_that_was_altered_cut_off_or_removed_names_its_record() {
    let place = written();
    let blobs = place.data().join("blobs/00000000000000000000.seg");
    let bytes = fs::read(&blobs).unwrap();
    let mut altered = bytes.clone();
    altered[10] ^= 1;
    fs::write(&blobs, &altered).unwrap();
    let is_other = Finding::Blob { seq: 2, problem: "is not the one that was recorded" };
    assert_eq!(findings(&checked(&place, &place.data())), [is_other]);
    fs::write(&blobs, &bytes[..bytes.len() - 1]).unwrap();
    let found = findings(&checked(&place, &place.data()));
    assert!(matches!(&found[..], [Finding::Blob { seq: 400, problem: "is cut off" }]), "{found:?}");
    fs::remove_file(&blobs).unwrap();
    let found = checked(&place, &place.data());
    let (named, more) = found.findings();
    assert_eq!((named.len(), more), (20, 180));
}

#[test]
fn a_tile_that_is_missing_or_altered_is_found_whatever_its_level() {
    let place = written();
    let tile = |path: &str| (place.data().join("tree").join(path), path.to_owned());
    let (whole, name) = tile("tile/0/000");
    let bytes = fs::read(&whole).unwrap();
    fs::remove_file(&whole).unwrap();
    let missing = Finding::Tile { path: name, problem: "is missing" };
    assert_eq!(findings(&checked(&place, &place.data())), [missing]);
    fs::write(&whole, bytes).unwrap();
    assert!(checked(&place, &place.data()).is_clean());
    // Of the level above there is a part: one hash.
    let (above, name) = tile("tile/1/000.p/1");
    let mut bytes = fs::read(&above).unwrap();
    bytes[3] ^= 1;
    fs::write(&above, bytes).unwrap();
    let altered = Finding::Tile { path: name, problem: "is not what the records give" };
    assert_eq!(findings(&checked(&place, &place.data())), [altered]);
}

#[test]
fn a_log_that_no_record_speaks_of_and_a_log_that_is_gone_are_found() {
    let place = written();
    copy(&place.data().join("log"), &place.data().join("log-1"));
    copy(&place.data().join("tree"), &place.data().join("tree-1"));
    let found = checked(&place, &place.data());
    assert!(!found.is_clean() && found.findings().0.is_empty());
    assert_eq!(findings(&found.kept_aside[0]), [Finding::Uncited { name: "log-1".to_owned() }]);
    fs::remove_dir_all(place.data().join("log")).unwrap();
    assert!(findings(&checked(&place, &place.data())).contains(&Finding::LogMissing { name: "log".to_owned() }));
}

#[test]
fn a_gateway_does_not_start_without_its_signer_s_memory_or_under_another_name() {
    let place = written();
    let memory = place.data().join("tree/signer");
    let text = fs::read_to_string(&memory).unwrap();
    fs::remove_file(&memory).unwrap();
    let forgotten = chain(&place.try_open(exeat_store::record::Durability::Os).unwrap_err());
    assert!(forgotten.contains("restore \"tree\""), "{forgotten}");
    fs::write(&memory, text).unwrap();
    assert!(place.open().kept_aside().is_empty());
}

#[test]
fn what_is_written_is_signed_within_a_second_while_the_gateway_runs() {
    let place = Place::new();
    let recorder = place.open();
    write(&recorder, "s1", 3);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let found = checked(&place, &place.data());
        if found.is_clean() && found.signed.is_some_and(|head| head.size() == found.lines) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{:?}", found);
        std::thread::yield_now();
    }
    assert!(recorder.health().is_ok());
}
