//! Signing keys hand over: the line, both signatures, the new key alone; and what an auditor with either key comes to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use exeat_store::StoreError;
use exeat_store::record::{Durability, Recorder};
use exeat_store::tree::{Note, VerifierKey};
use exeat_store::verify::{Against, Finding, Verification, verify};

use super::common::{Place, principal, start};

const GATEWAY: &str = "exeat-test";

fn session(recorder: &Recorder, name: &str) {
    let principal = principal();
    recorder.start_session(&start(name, &principal)).unwrap().end("terminated").unwrap();
}

fn key(place: &Place, number: u64) -> VerifierKey {
    place.keys().numbered_key(GATEWAY, number).unwrap().verifier().clone()
}

fn held(place: &Place, keys: &[VerifierKey], older: &[(String, Vec<u8>)]) -> Verification {
    verify(&place.data(), &Against { keys, older }).unwrap()
}

fn rotations(place: &Place) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(place.data().join("tree/rotations")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Two rotations, with sessions before, between and behind them, and the checkpoints of each part.
fn rotated() -> (Place, Vec<(String, Vec<u8>)>) {
    let place = Place::new();
    let mut kept = Vec::new();
    for number in 0..3 {
        let recorder = place.open();
        session(&recorder, &format!("s{number}"));
        drop(recorder);
        kept.push((format!("kept-{number}"), fs::read(place.data().join("tree/checkpoint")).unwrap()));
        if number < 2 {
            let rotated = place.open().rotate_key(None).unwrap();
            assert_eq!(
                (rotated.number, rotated.old, rotated.new),
                (number + 1, key(&place, number), key(&place, number + 1))
            );
        }
    }
    (place, kept)
}

#[test]
fn a_hand_over_that_the_disk_did_not_name_at_once_is_named_before_anything_else_is_signed() {
    let place = Place::new();
    let recorder = place.open();
    session(&recorder, "s0");
    // Whatever size the checkpoint of both keys has: its name is taken by what a rename does not replace.
    let taken: Vec<PathBuf> = (0..64).map(|size| place.data().join(format!("tree/rotations/{size:020}"))).collect();
    for path in &taken {
        fs::create_dir_all(path.join("in the way")).unwrap();
    }
    fs::set_permissions(place.data().join("tree/rotations"), fs::Permissions::from_mode(0o700)).unwrap();
    recorder.rotate_key(None).unwrap();
    session(&recorder, "s1");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while recorder.health().is_ok() {
        assert!(std::time::Instant::now() < deadline, "that it has no name is said");
        std::thread::yield_now();
    }
    for path in &taken {
        fs::remove_dir_all(path).unwrap();
    }
    drop(recorder);
    assert_eq!(rotations(&place).len(), 1);
    let found = held(&place, &[key(&place, 0)], &[]);
    assert!(found.is_clean() && found.handed_over.len() == 1, "{found:?}");
}

#[test]
fn a_key_hands_over_by_a_line_and_a_checkpoint_of_both_and_is_chained_to_from_the_first() {
    let (place, kept) = rotated();
    assert_eq!(place.of_kind("key.rotate").len(), 2);
    let files = rotations(&place);
    assert_eq!(files.len(), 2);
    let both = Note::parse(&fs::read(&files[0]).unwrap()).unwrap();
    both.verify_every(&[key(&place, 0), key(&place, 1)]).unwrap();
    let last = Note::parse(&fs::read(place.data().join("tree/checkpoint")).unwrap()).unwrap();
    assert!(last.verify(&[key(&place, 2)]).is_ok() && last.verify(&[key(&place, 1), key(&place, 0)]).is_err());
    // Whoever has any of the three comes to all of it, older checkpoints of other keys too.
    for number in 0..3 {
        let found = held(&place, &[key(&place, number)], &kept);
        assert!(found.is_clean(), "{number}: {found:?}");
        assert_eq!((found.signed.unwrap().size(), found.extends.len()), (found.lines, 3));
        assert!(found.handed_over.len() == 2 && found.handed_over.iter().all(|link| link.is_trusted), "{found:?}");
    }
    let stranger = held(&place, &[place.keys().numbered_key(GATEWAY, 7).unwrap().verifier().clone()], &[]);
    assert!(!stranger.is_clean() && !stranger.handed_over[0].is_trusted, "{stranger:?}");
}

#[test]
fn a_rotation_without_the_checkpoint_of_both_is_found_and_leads_to_no_key() {
    let (place, _) = rotated();
    let file = rotations(&place).remove(0);
    let note = fs::read_to_string(&file).unwrap();
    let one_of_both: String =
        note.lines().filter(|line| !line.contains(&old_signature(&note))).map(|line| format!("{line}\n")).collect();
    for change in [None, Some(one_of_both), Some("nonsense".to_owned())] {
        match change {
            None => fs::remove_file(&file).unwrap(),
            Some(text) => fs::write(&file, text).unwrap(),
        }
        let found = held(&place, &[key(&place, 0)], &[]);
        let problems: Vec<String> = found.findings().0.iter().map(ToString::to_string).collect();
        assert!(
            problems[0].contains("hands over to another signing key, and no checkpoint is signed by both"),
            "{problems:?}"
        );
        assert!(found.signed.is_none(), "the first key says nothing of what a later one signed");
    }
    fs::write(&file, note).unwrap();
    assert!(held(&place, &[key(&place, 0)], &[]).is_clean());
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}

/// The line of the key that handed over.
fn old_signature(note: &str) -> String {
    note.lines().find(|line| line.starts_with('\u{2014}')).unwrap().to_owned()
}

#[test]
fn what_an_old_key_signs_behind_its_end_does_not_count() {
    let (place, _) = rotated();
    let keys = place.keys();
    let text = fs::read_to_string(place.data().join("tree/checkpoint")).unwrap();
    let text = text.split_once("\n\n").unwrap().0;
    let forged = Note::sign(&format!("{text}\n"), &[&keys.numbered_key(GATEWAY, 0).unwrap()]).unwrap();
    fs::write(place.data().join("tree/checkpoint"), forged.to_string()).unwrap();
    for number in 0..3 {
        let found = held(&place, &[key(&place, number)], &[]);
        assert!(matches!(found.findings().0, [Finding::Checkpoint { .. }]), "{found:?}");
    }
}

#[test]
fn a_rotation_goes_on_behind_a_crash_whatever_of_it_was_written() {
    let place = Place::new();
    let recorder = place.open();
    session(&recorder, "s1");
    drop(recorder);
    let tree = place.data().join("tree");
    let before = place.base.path().join("before");
    copy(&tree, &before);
    place.open().rotate_key(None).unwrap();
    let file = rotations(&place).remove(0);
    let note = fs::read(&file).unwrap();
    // The line is written, and nothing is signed; a checkpoint that nobody remembers lies about.
    let behind = place.base.path().join("behind");
    fs::rename(&tree, &behind).unwrap();
    fs::rename(&before, &tree).unwrap();
    fs::write(tree.join("rotating"), &note).unwrap();
    assert!(place.open().kept_aside().is_empty());
    assert!(held(&place, &[key(&place, 0)], &[]).is_clean());
    assert!(!tree.join("rotating").exists() && rotations(&place).len() == 1);
    // The memory knows of it, and it has no name yet.
    fs::remove_dir_all(&tree).unwrap();
    fs::rename(&behind, &tree).unwrap();
    fs::rename(rotations(&place).remove(0), tree.join("rotating")).unwrap();
    let recorder = place.open();
    session(&recorder, "s2");
    assert_eq!(recorder.rotate_key(None).unwrap().number, 2);
    drop(recorder);
    let found = held(&place, &[key(&place, 0)], &[]);
    assert!(found.is_clean() && found.handed_over.len() == 2, "{found:?}");
}

#[test]
fn a_new_log_is_signed_by_the_key_that_the_one_kept_aside_had_come_to() {
    let (place, _) = rotated();
    fs::remove_file(place.log_file()).unwrap();
    drop(place.open());
    let found = held(&place, &[key(&place, 2)], &[]);
    assert!(found.findings().0.is_empty() && found.signed.is_some(), "{found:?}");
    let by_the_first = held(&place, &[key(&place, 0)], &[]);
    assert!(by_the_first.signed.is_none(), "the chain is gone with the log");
}

#[test]
fn a_disk_that_does_not_take_both_signatures_is_tried_again() {
    let place = Place::new();
    let recorder = place.open();
    session(&recorder, "s1");
    drop(recorder);
    // A folder where the file belongs: both have signed, and nobody can keep it.
    fs::write(place.data().join("tree/rotations"), "").unwrap();
    let recorder = place.try_open(Durability::Os).unwrap();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| recorder.rotate_key(None));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while place.of_kind("key.rotate").is_empty() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(matches!(recorder.rotate_key(None), Err(StoreError::Rotating)), "nobody else asks meanwhile");
        fs::remove_file(place.data().join("tree/rotations")).unwrap();
        asked.join().unwrap()
    });
    assert_eq!(asked.unwrap().number, 1, "it was tried again");
    drop(recorder);
    assert!(held(&place, &[key(&place, 0)], &[]).is_clean());
}
