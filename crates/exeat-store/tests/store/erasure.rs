//! Keys that are destroyed: on record before and behind, completed after a crash, refused where a session runs or is under a
//! legal hold, and never in silence.

use std::fs;
use std::process::Command;

use exeat_policy::Principal;
use exeat_store::StoreError;
use exeat_store::read::{BlobKind, open_log};
use exeat_store::record::{Erased, Erasure, Recorder, Requester, TokenRef, Whose};
use exeat_store::verify::{Against, Finding, Verification, verify};

use super::common::{Place, allowed, done, principal, start};

const SLOT: usize = 60;

fn session(recorder: &Recorder, name: &str, subject: &str) {
    session_of(recorder, name, &Principal { subject: subject.to_owned(), ..principal() });
}

fn session_of(recorder: &Recorder, name: &str, principal: &Principal) {
    let mut record = recorder.start_session(&start(name, principal)).unwrap();
    let _ = record.intent(&allowed("r1", &format!("select '{name}'"))).unwrap();
    let _ = record.outcome(&done("r1")).unwrap();
    record.end("terminated").unwrap();
}

fn by(principal: &Principal) -> Requester<'_> {
    Requester { principal, source: "127.0.0.1:1", token: TokenRef { id: None, sha256_8: "0a1b2c3d" } }
}

fn boss() -> Principal {
    Principal { subject: "boss".to_owned(), ..principal() }
}

fn of(session: &str) -> Whose {
    Whose::Session(session.to_owned())
}

fn principal_of(issuer: Option<&str>, subject: &str) -> Whose {
    Whose::Principal { issuer: issuer.map(str::to_owned), subject: subject.to_owned() }
}

fn erase(recorder: &Recorder, whose: &Whose, before: Option<&str>) -> Result<Erased, StoreError> {
    recorder.erase(&Erasure { whose, before, reason: "asked for" }, by(&boss()))
}

/// Of ann: s1 and s2; of bob: s3.
fn written(recorder: &Recorder) {
    for (name, subject) in [("s1", "ann"), ("s2", "ann"), ("s3", "bob")] {
        session(recorder, name, subject);
    }
}

fn text_of(place: &Place, session: &str) -> Result<String, StoreError> {
    let intents = place.of_kind("statement.intent");
    let sql = intents.iter().find(|event| event.session() == Some(session)).unwrap().blob(BlobKind::Sql).unwrap();
    open_log(&place.data()).unwrap().unseal(session, &sql, &place.keys())
}

fn held_against(place: &Place) -> Verification {
    verify(&place.data(), &Against::default()).unwrap()
}

/// What the record says of erasures: session and state.
fn states(place: &Place) -> Vec<(String, String)> {
    let text = |event: &exeat_store::read::Event, member| event.body(member).unwrap().as_str().unwrap().to_owned();
    place.of_kind("erasure").iter().map(|event| (text(event, "session"), text(event, "state"))).collect()
}

fn state(session: &str, state: &str) -> (String, String) {
    (session.to_owned(), state.to_owned())
}

#[test]
fn an_erased_session_cannot_be_read_the_others_can_and_the_log_verifies() {
    let place = Place::new();
    let recorder = place.open();
    written(&recorder);
    assert_eq!(erase(&recorder, &of("s2"), None).unwrap().erased, ["s2"]);
    assert_eq!(states(&place), [state("s2", "begun"), state("s2", "done")]);
    let line = &place.of_kind("erasure")[0];
    assert_eq!((line.body("of").unwrap(), line.body("reason").unwrap()), (&"ann".into(), &"asked for".into()));
    assert_eq!(line.value()["principal"]["sub"], "boss");
    assert!(matches!(text_of(&place, "s2"), Err(StoreError::Erased { .. })));
    assert_eq!(text_of(&place, "s1").unwrap(), "select 's1'");
    assert!(matches!(erase(&recorder, &of("s2"), None), Err(StoreError::Erased { .. })), "once is enough");
    assert!(matches!(erase(&recorder, &of("s9"), None), Err(StoreError::NoSession { .. })));
    // A new session's key goes behind the others.
    session(&recorder, "s4", "ann");
    drop(recorder);
    assert_eq!(text_of(&place, "s4").unwrap(), "select 's4'");
    let found = held_against(&place);
    assert!(found.is_clean() && found.erased == 1, "{found:?}");
}

#[test]
fn a_slot_that_has_become_anothers_is_left_alone() {
    let place = Place::new();
    let recorder = place.open();
    written(&recorder);
    // As after a loss of power that took the end of the keys, and new sessions that came behind it.
    let path = place.data().join("session-keys");
    let mut keys = fs::read(&path).unwrap();
    keys.copy_within(2 * SLOT..3 * SLOT, SLOT);
    fs::write(&path, &keys).unwrap();
    let found = erase(&recorder, &of("s2"), None);
    assert!(matches!(found, Err(StoreError::AnothersKey { slot: 1, .. })), "{found:?}");
    assert_eq!(fs::read(&path).unwrap(), keys);
    let ann = erase(&recorder, &principal_of(None, "ann"), None).unwrap();
    assert_eq!((ann.erased.as_slice(), ann.refused.len()), (&["s1".to_owned()][..], 1));
    assert_eq!(states(&place), [state("s1", "begun"), state("s1", "done")]);
}

#[test]
fn all_of_a_principal_are_erased_but_what_runs_or_began_later() {
    let place = Place::new();
    let recorder = place.open();
    written(&recorder);
    let ann = Principal { subject: "ann".to_owned(), ..principal() };
    let running = recorder.start_session(&start("s5", &ann)).unwrap();
    let whose = principal_of(None, "ann");
    assert_eq!(erase(&recorder, &whose, Some("2020-01-01")).unwrap(), Erased::default());
    assert!(matches!(erase(&recorder, &of("s5"), None), Err(StoreError::Running { .. })));
    let erased = erase(&recorder, &whose, Some("2999-01-01")).unwrap();
    assert_eq!(erased.erased, ["s1", "s2"]);
    assert!(erased.refused[0].0 == "s5" && erased.refused[0].1.contains("is running"), "{erased:?}");
    running.end("terminated").unwrap();
    let rest = erase(&recorder, &whose, None).unwrap();
    assert_eq!((rest.erased, rest.already), (vec!["s5".to_owned()], 2));
    assert_eq!(text_of(&place, "s3").unwrap(), "select 's3'");
    drop(recorder);
    assert!(held_against(&place).is_clean());
}

#[test]
fn a_legal_hold_refuses_by_name_and_on_record_until_it_is_lifted_and_survives_a_restart() {
    let place = Place::new();
    let recorder = place.open();
    written(&recorder);
    let boss = boss();
    let ann = principal_of(None, "ann");
    let set = recorder.hold(&ann, "case 12", by(&boss)).unwrap();
    assert_eq!((set.whose.clone(), set.reason.as_str(), set.by.as_str()), (ann.clone(), "case 12", "boss"));
    assert!(matches!(recorder.hold(&ann, "again", by(&boss)), Err(StoreError::HeldAlready { .. })));
    assert!(matches!(recorder.hold(&of("s9"), "x", by(&boss)), Err(StoreError::NoSession { .. })));
    recorder.hold(&of("s3"), "case 13", by(&boss)).unwrap();
    drop(recorder);
    let recorder = place.open();
    assert_eq!(recorder.holds().unwrap().len(), 2);
    for session in ["s1", "s3"] {
        let refused = erase(&recorder, &of(session), None).unwrap_err().to_string();
        assert!(refused.contains("under a legal hold, by ") && refused.contains("case 1"), "{refused}");
        assert_eq!(states(&place).last().unwrap(), &state(session, "refused"));
    }
    let all = erase(&recorder, &ann, None).unwrap();
    assert!(all.erased.is_empty() && all.refused.len() == 2, "{all:?}");
    // An agent's work for others is held with the agent.
    let runner = principal_of(None, "runner");
    recorder.release(&ann, "closed", by(&boss)).unwrap();
    assert!(matches!(recorder.release(&ann, "closed", by(&boss)), Err(StoreError::NotHeld { .. })));
    recorder.hold(&runner, "case 14", by(&boss)).unwrap();
    assert!(matches!(erase(&recorder, &of("s1"), None), Err(StoreError::Held { .. })));
    recorder.release(&runner, "closed", by(&boss)).unwrap();
    assert_eq!(erase(&recorder, &ann, None).unwrap().erased, ["s1", "s2"]);
    assert!(matches!(erase(&recorder, &of("s3"), None), Err(StoreError::Held { .. })), "another hold stands");
    drop(recorder);
    assert!(held_against(&place).is_clean());
}

#[test]
fn of_two_issuers_subjects_of_one_name_each_is_somebody() {
    let place = Place::new();
    let recorder = place.open();
    written(&recorder);
    let (here, there) = (principal().issuer, "https://other.example.com".to_owned());
    let ann = Principal { subject: "ann".to_owned(), issuer: there.clone(), actor: None, ..principal() };
    session_of(&recorder, "s4", &ann);
    let boss = boss();
    for refused in [
        erase(&recorder, &principal_of(None, "ann"), None).unwrap_err(),
        recorder.hold(&principal_of(None, "ann"), "case 12", by(&boss)).unwrap_err(),
    ] {
        assert!(matches!(refused, StoreError::SeveralIssuers { .. }), "{refused}");
        assert!(refused.to_string().contains(&here) && refused.to_string().contains(&there), "{refused}");
    }
    assert!(place.of_kind("erasure").is_empty() && recorder.holds().unwrap().is_empty());
    let erased = erase(&recorder, &principal_of(Some(&there), "ann"), None).unwrap();
    assert_eq!(erased.erased, ["s4"]);
    assert_eq!(place.of_kind("erasure")[0].body("of_iss").unwrap(), there.as_str());
    assert!(text_of(&place, "s1").is_ok() && text_of(&place, "s2").is_ok());
    let unknown = erase(&recorder, &principal_of(Some("https://nobody"), "ann"), None).unwrap_err();
    assert!(matches!(unknown, StoreError::NoSessions { .. }), "{unknown}");
    // A hold is as narrow as it is said, for an agent too; without an issuer it is for any.
    let hold = |issuer: Option<&str>, subject| recorder.hold(&principal_of(issuer, subject), "case 12", by(&boss));
    hold(Some(&there), "ann").unwrap();
    hold(Some(&there), "runner").unwrap();
    assert_eq!(erase(&recorder, &of("s1"), None).unwrap().erased, ["s1"]);
    assert!(matches!(recorder.release(&principal_of(None, "ann"), "x", by(&boss)), Err(StoreError::NotHeld { .. })));
    hold(None, "runner").unwrap();
    assert!(matches!(erase(&recorder, &of("s2"), None), Err(StoreError::Held { .. })));
    drop(recorder);
    let recorder = place.open();
    assert_eq!(recorder.holds().unwrap().len(), 3, "holds are told apart after a restart");
}

#[test]
fn a_name_that_lines_cut_is_refused_and_not_taken_for_another() {
    let place = Place::new();
    let recorder = place.open();
    let long = |end: &str| format!("{}{end}", "n".repeat(600));
    session(&recorder, "s1", &long("1"));
    session(&recorder, "s2", &long("2"));
    session(&recorder, "s3", &"m".repeat(512));
    let start = &place.of_kind("session.start")[0];
    let cut = start.value()["principal"]["sub"].as_str().unwrap().to_owned();
    for name in [long("1"), cut] {
        let whose = principal_of(None, &name);
        assert!(matches!(erase(&recorder, &whose, None), Err(StoreError::LongName { .. })), "{name}");
        assert!(matches!(recorder.hold(&whose, "x", by(&boss())), Err(StoreError::LongName { .. })), "{name}");
    }
    assert!(recorder.holds().unwrap().is_empty() && place.of_kind("legal_hold.set").is_empty());
    assert_eq!(erase(&recorder, &principal_of(None, &"m".repeat(512)), None).unwrap().erased, ["s3"]);
    assert_eq!(erase(&recorder, &of("s2"), None).unwrap().erased, ["s2"]);
    assert!(text_of(&place, "s1").is_ok());
}

#[test]
fn a_crash_before_the_key_was_destroyed_is_completed_and_one_before_the_line_is_not() {
    let place = Place::new();
    let recorder = place.open();
    written(&recorder);
    drop(recorder);
    let marker = place.data().join("erasing");
    // Only the marker: nobody has it on record.
    fs::write(&marker, r#"{"session":"s1","slot":0}"#).unwrap();
    drop(place.open());
    assert!(!marker.exists() && text_of(&place, "s1").is_ok());
    // The folder as it is with the line written and the key still there.
    let between = place.base.path().join("between");
    assert!(Command::new("cp").arg("-a").args([&place.data(), &between]).status().unwrap().success());
    erase(&place.open(), &of("s1"), None).unwrap();
    let log = fs::read_to_string(place.log_file()).unwrap();
    let written = log.split_inclusive('\n').take_while(|line| !line.contains("\"state\":\"done\""));
    fs::write(between.join("log").join(place.log_file().file_name().unwrap()), written.collect::<String>()).unwrap();
    fs::remove_dir_all(place.data()).unwrap();
    fs::rename(&between, place.data()).unwrap();
    fs::write(&marker, r#"{"session":"s1","slot":0}"#).unwrap();
    assert!(text_of(&place, "s1").is_ok());
    drop(place.open());
    assert!(matches!(text_of(&place, "s1"), Err(StoreError::Erased { .. })));
    assert_eq!(states(&place), [state("s1", "begun"), state("s1", "done")]);
    assert!(!marker.exists() && held_against(&place).is_clean());
}

#[test]
fn a_key_that_is_gone_in_silence_altered_or_still_there_is_found() {
    let place = Place::new();
    let recorder = place.open();
    written(&recorder);
    erase(&recorder, &of("s1"), None).unwrap();
    drop(recorder);
    let path = place.data().join("session-keys");
    let keys = fs::read(&path).unwrap();
    let found = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = keys.clone();
        change(&mut changed);
        fs::write(&path, changed).unwrap();
        held_against(&place).findings().0.to_vec()
    };
    assert_eq!(found(&|_| {}), []);
    let silent = found(&|keys| keys[SLOT..2 * SLOT].fill(0));
    assert_eq!(silent, [Finding::ErasedInSilence { session: "s2".to_owned() }]);
    let altered = found(&|keys| keys[SLOT + 7] ^= 1);
    assert!(matches!(altered[..], [Finding::Key { problem: "is not the one that was recorded", .. }]), "{altered:?}");
    let back = found(&|keys| keys[..SLOT].fill(7));
    assert!(back.contains(&Finding::NotErased { session: "s1".to_owned() }), "{back:?}");
    let cut = found(&|keys| keys.truncate(2 * SLOT));
    assert!(matches!(cut[..], [Finding::Key { problem: "is missing", .. }]), "{cut:?}");
}
