//! The record as written and read: shape of lines, what is sealed, what people see.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::common::{POLICY, Place, allowed, done, principal, start};
use exeat_store::StoreError;
use exeat_store::keys::{KeySet, KeySource};
use exeat_store::read::{BlobKind, Event, describe, open_log};
use exeat_store::record::{
    AuthFailure, ConfigChange, Decision, Durability, LINE_BYTES_MAX, MaskedColumn, OPEN_INTENTS_MAX, OutcomeResult,
    Parameter, PolicyChange, PolicyRef, Protocol, Statement, TokenRef,
};
use exeat_store::secret::SecretSource;
use serde_json::{Value, json};

const SECRETS: [&str; 4] = ["123-45-6789", "hunter2-parameter", "eyJhbGciOi.token.signature", "binary-\u{0}-secret"];

/// One event of every type, with secrets wherever a secret can be.
fn write_all(place: &Place) {
    let recorder = place.open();
    let principal = principal();
    recorder
        .auth_failed(&AuthFailure {
            source: "10.0.0.9:1",
            target: Some("shop"),
            reason: "expired",
            issuer: Some("https://idp.example.com"),
            subject: Some("agent-7"),
            token: Some(TokenRef { id: None, sha256_8: "0a1b2c3d" }),
            handle: None,
            tls: None,
        })
        .unwrap();
    let mut session = recorder.start_session(&start("s1", &principal)).unwrap();
    let sql = format!("select name, ssn from customers where ssn = '{}'", SECRETS[0]);
    let parameters = [
        Parameter { value: Some(SECRETS[1].as_bytes()), binary: false },
        Parameter { value: None, binary: false },
        Parameter { value: Some(SECRETS[3].as_bytes()), binary: true },
        Parameter { value: Some(b"\xff\xfe"), binary: false },
    ];
    let relations = ["public.customers".to_owned()];
    let columns = ["public.customers.name".to_owned(), "public.customers.ssn".to_owned()];
    let touched = ["public.customers.id".to_owned()];
    let masked = [MaskedColumn { column: "public.customers.ssn", label: "ssn", mask: "partial" }];
    let rules = ["agents-read".to_owned(), "mask-pii".to_owned()];
    let statement = Statement {
        protocol: Protocol::Extended,
        name: Some("q1"),
        portal: Some("p1"),
        parameters: &parameters,
        fingerprint: Some("50fde20626009aba"),
        kinds: &["select"],
        relations: &relations,
        columns: &columns,
        touched: &touched,
        masked: &masked,
        rules: &rules,
        ..allowed("req_1", &sql)
    };
    let _ = session.parse(&Statement { parameters: &[], ..statement }).unwrap();
    let _ = session.intent(&statement).unwrap();
    let _ = session.outcome(&done("req_1")).unwrap();
    let reasons = ["denied by rule no-payroll".to_owned()];
    let refused = Statement { code: Some("denied"), reasons: &reasons, ..statement };
    let _ = session.intent(&Statement { request_id: "req_2", decision: Decision::Refuse, ..refused }).unwrap();
    session.end("terminated").unwrap();
    let newer = PolicyRef { version: 4, sha256: "def456" };
    let change =
        PolicyChange { policy: newer, previous: Some(POLICY), path: "policy.yaml", accepted: true, problem: None };
    recorder.policy_changed(&change).unwrap();
    recorder.policy_changed(&PolicyChange { accepted: false, problem: Some("line 3: typo"), ..change }).unwrap();
    recorder.config_changed(&ConfigChange { path: "exeat.yaml", sha256: "00ff", what: "started" }).unwrap();
    recorder.heartbeat().unwrap();
}

fn one(place: &Place, kind: &str) -> Event {
    let mut events = place.of_kind(kind);
    assert_eq!(events.len(), 1, "{kind}");
    events.remove(0)
}

#[test]
fn every_line_is_canonical_json_with_the_envelope() {
    let place = Place::new();
    write_all(&place);
    let text = std::fs::read_to_string(place.log_file()).unwrap();
    assert!(text.ends_with('\n'));
    for (number, line) in text.lines().enumerate() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), line, "keys are sorted, nothing is spelled another way");
        assert_eq!(value["seq"], json!(number));
        assert_eq!(value["v"], json!(1));
        assert_eq!(value["gateway"], json!("exeat-test"));
        assert!(value["body"].is_object());
        let time = value["time"].as_str().unwrap();
        assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    }
    let kinds: Vec<String> = place.events().iter().map(|event| event.kind().to_owned()).collect();
    assert_eq!(
        kinds,
        [
            "heartbeat",
            "auth.fail",
            "session.start",
            "statement.parse",
            "statement.intent",
            "statement.outcome",
            "statement.intent",
            "session.end",
            "policy.changed",
            "policy.changed",
            "config.changed",
            "heartbeat"
        ]
    );
}

#[test]
fn a_statement_says_who_what_and_why_in_clear() {
    let place = Place::new();
    write_all(&place);
    let intent = place.of_kind("statement.intent").remove(0);
    let value = intent.value();
    assert_eq!(
        value["principal"],
        json!({"actor": "runner", "groups": ["agents", "night \"shift\""], "iss": "https://idp.example.com", "sub": "agent-7"})
    );
    assert_eq!(value["policy"], json!({"sha256": "abc123", "version": 3}));
    assert_eq!(
        (&value["session"], &value["source"], &value["target"]),
        (&json!("s1"), &json!("127.0.0.1:5000"), &json!("shop"))
    );
    let mut body = value["body"].clone();
    for sealed in ["sql", "parameters"] {
        let blob = body[sealed].take();
        let members: Vec<&str> = blob.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["bytes", "offset", "segment", "sha256"]);
    }
    assert_eq!(body["digest"].take().as_str().unwrap().len(), 64);
    assert_eq!(
        body,
        json!({
            "columns": ["public.customers.name", "public.customers.ssn"], "decision": "allow", "digest": null,
            "fingerprint": "50fde20626009aba", "kinds": ["select"],
            "masked": [{"column": "public.customers.ssn", "label": "ssn", "mask": "partial"}],
            "name": "q1", "parameters": null, "portal": "p1", "protocol": "extended", "reasons": [],
            "relations": ["public.customers"], "request_id": "req_1", "rules": ["agents-read", "mask-pii"], "sql": null,
            "touched": ["public.customers.id"]
        })
    );
    let outcome = one(&place, "statement.outcome");
    assert_eq!(
        outcome.value()["body"],
        json!({"bytes": 40, "cells_masked": 1, "duration_us": 250, "index": 0, "last": true, "request_id": "req_1",
               "result": "ok", "rows": 1, "tag": "SELECT 1"})
    );
    let start = one(&place, "session.start");
    assert_eq!(start.body("backend_pid"), Some(&json!(4711)));
    assert_eq!(start.body("login"), Some(&json!("shop_reader")));
    assert_eq!(start.body("token"), Some(&json!({"id": "jti-1", "sha256_8": "0a1b2c3d"})));
    assert_eq!(start.body("instance"), Some(&json!({"pod": "p-1"})));
}

#[test]
fn nothing_sealed_stands_in_any_file_and_the_keys_bring_it_back() {
    let place = Place::new();
    write_all(&place);
    let files = place.data_files();
    assert!(files.len() >= 5, "{files:?}");
    let mut secrets: Vec<Vec<u8>> = SECRETS.iter().map(|secret| secret.as_bytes().to_vec()).collect();
    secrets.push(b"customers where".to_vec());
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        for secret in &secrets {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
    let keys = place.keys();
    let mut log = open_log(&place.data()).unwrap();
    let intent = place.of_kind("statement.intent").remove(0);
    let sql = intent.blob(BlobKind::Sql).unwrap();
    assert!(log.unseal("s1", &sql, &keys).unwrap().contains(SECRETS[0]));
    let parameters = log.unseal("s1", &intent.blob(BlobKind::Parameters).unwrap(), &keys).unwrap();
    let parameters: Value = serde_json::from_str(&parameters).unwrap();
    assert_eq!(parameters, json!([SECRETS[1], null, {"b64": "YmluYXJ5LQAtc2VjcmV0"}, {"b64": "//4="}]));
    // The same bytes under another name, session or key do not open.
    let renamed = exeat_store::read::BlobRef { kind: BlobKind::Lists, ..sql.clone() };
    assert!(matches!(log.unseal("s1", &renamed, &keys), Err(StoreError::Unsealing { .. })));
    assert!(matches!(log.unseal("s2", &sql, &keys), Err(StoreError::NoSession { .. })));
    let moved = exeat_store::read::BlobRef { offset: sql.offset + 1, ..sql.clone() };
    assert!(log.unseal("s1", &moved, &keys).is_err());
    let other = place.keys_folder().join("other");
    std::fs::write(&other, "00".repeat(32)).unwrap();
    let other = KeySet::open(&KeySource::Master(SecretSource::File(other)), &place.data()).unwrap();
    let mut fresh = open_log(&place.data()).unwrap();
    assert!(matches!(fresh.unseal("s1", &sql, &other), Err(StoreError::Unsealing { .. })));
}

#[test]
fn a_session_whose_key_is_destroyed_reads_as_erased() {
    let place = Place::new();
    write_all(&place);
    let path = place.data().join("session-keys");
    let slots = std::fs::metadata(&path).unwrap().len();
    std::fs::write(&path, vec![0; usize::try_from(slots).unwrap()]).unwrap();
    let sql = place.of_kind("statement.intent").remove(0).blob(BlobKind::Sql).unwrap();
    let error = open_log(&place.data()).unwrap().unseal("s1", &sql, &place.keys()).unwrap_err();
    assert!(matches!(error, StoreError::Erased { .. }), "{error}");
}

#[test]
fn files_are_private() {
    let place = Place::new();
    write_all(&place);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for folder in [place.data(), place.data().join("log"), place.data().join("blobs")] {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
    for file in place.data_files() {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let chmod = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for (folder, refused, passes) in [("", 0o777, 0o755), ("log", 0o750, 0o700), ("blobs", 0o701, 0o700)] {
        chmod(place.data().join(folder), refused);
        assert!(matches!(place.try_open(Durability::Os), Err(StoreError::Permissions { .. })), "{folder}");
        chmod(place.data().join(folder), passes);
        place.open();
    }
}

#[test]
fn portals_that_are_bound_and_never_run_are_not_remembered_without_end() {
    let place = Place::new();
    let recorder = place.open();
    let principal = principal();
    let mut session = recorder.start_session(&start("s1", &principal)).unwrap();
    let open = |expected: usize| {
        recorder.heartbeat().unwrap();
        let heartbeat = place.of_kind("heartbeat").pop().unwrap();
        assert_eq!(heartbeat.body("open"), Some(&json!(expected)));
    };
    for number in 0..OPEN_INTENTS_MAX + 5 {
        let _ = session.intent(&allowed(&format!("req_{number}"), "select 1")).unwrap();
    }
    open(OPEN_INTENTS_MAX);
    // A late answer to a forgotten one is still put on record.
    let _ = session.outcome(&done("req_0")).unwrap();
    let _ = session.commit().unwrap();
    open(OPEN_INTENTS_MAX);
    let _ = session.outcome(&done("req_100")).unwrap();
    let _ = session.commit().unwrap();
    open(OPEN_INTENTS_MAX - 1);
    session.end("terminated").unwrap();
    open(0);
}

#[test]
fn a_text_sent_again_is_sealed_once() {
    let place = Place::new();
    let recorder = place.open();
    let principal = principal();
    let mut session = recorder.start_session(&start("s1", &principal)).unwrap();
    for request in ["a", "b", "c"] {
        let _ = session.intent(&allowed(request, "select 1")).unwrap();
    }
    let _ = session.intent(&allowed("d", "select 2")).unwrap();
    let _ = session.commit().unwrap();
    let blobs: Vec<_> =
        place.of_kind("statement.intent").iter().map(|event| event.blob(BlobKind::Sql).unwrap()).collect();
    assert_eq!(blobs[0], blobs[1]);
    assert_eq!(blobs[0], blobs[2]);
    assert_ne!(blobs[0], blobs[3]);
    let mut log = open_log(&place.data()).unwrap();
    assert_eq!(log.unseal("s1", &blobs[2], &place.keys()).unwrap(), "select 1");
    assert_eq!(log.unseal("s1", &blobs[3], &place.keys()).unwrap(), "select 2");
    // Another session has another key: the same text is sealed again, and its digest is the same.
    let mut other = recorder.start_session(&start("s2", &principal)).unwrap();
    let _ = other.intent(&allowed("e", "select 1")).unwrap();
    let _ = other.commit().unwrap();
    let events = place.of_kind("statement.intent");
    assert_ne!(events[4].blob(BlobKind::Sql).unwrap(), blobs[0]);
    assert_eq!(events[4].body("digest"), events[0].body("digest"));
    assert_ne!(events[3].body("digest"), events[0].body("digest"));
}

#[test]
fn lists_that_do_not_fit_the_line_are_sealed_beside_it() {
    let place = Place::new();
    let recorder = place.open();
    let principal = principal();
    let mut session = recorder.start_session(&start("s1", &principal)).unwrap();
    let columns: Vec<String> = (0..3000).map(|n| format!("public.wide.column_{n}")).collect();
    let statement = Statement { columns: &columns, kinds: &["select"], ..allowed("req_1", "select * from wide") };
    let _ = session.intent(&statement).unwrap();
    let _ = session.commit().unwrap();
    let intent = one(&place, "statement.intent");
    assert!(intent.line.len() < LINE_BYTES_MAX && intent.body("columns").is_none());
    let mut log = open_log(&place.data()).unwrap();
    let lists = log.unseal("s1", &intent.blob(BlobKind::Lists).unwrap(), &place.keys()).unwrap();
    let lists: Value = serde_json::from_str(&lists).unwrap();
    assert_eq!(lists["columns"].as_array().unwrap().len(), 3000);
    assert_eq!(lists["kinds"], json!(["select"]));
    let sql = log.unseal("s1", &intent.blob(BlobKind::Sql).unwrap(), &place.keys()).unwrap();
    assert_eq!(sql, "select * from wide");
}

#[test]
fn names_a_client_makes_endless_are_cut() {
    let place = Place::new();
    let recorder = place.open();
    let mut principal = principal();
    principal.groups = (0..500).map(|n| format!("group-number-{n:04}")).collect();
    let mut session = recorder.start_session(&start("s1", &principal)).unwrap();
    let long = "\u{1}".repeat(100_000);
    let _ = session.intent(&Statement { name: Some(&long), portal: Some(&long), ..allowed("r", "select 1") }).unwrap();
    let _ = session.commit().unwrap();
    let intent = one(&place, "statement.intent");
    assert!(intent.line.len() < LINE_BYTES_MAX);
    assert_eq!(intent.value()["principal"]["groups_total"], json!(500));
    let started = one(&place, "session.start");
    let lists =
        open_log(&place.data()).unwrap().unseal("s1", &started.blob(BlobKind::Lists).unwrap(), &place.keys()).unwrap();
    let lists: Value = serde_json::from_str(&lists).unwrap();
    assert_eq!(lists["groups"].as_array().unwrap().len(), 500);
}

#[test]
fn a_session_that_is_dropped_ends_on_record() {
    let place = Place::new();
    let recorder = place.open();
    let principal = principal();
    let mut session = recorder.start_session(&start("s1", &principal)).unwrap();
    let _ = session.intent(&allowed("req_1", "select 1")).unwrap();
    let _ = session.intent(&allowed("req_2", "select 1")).unwrap();
    let _ = session.outcome(&exeat_store::record::Outcome { last: false, ..done("req_1") }).unwrap();
    let _ = session.outcome(&exeat_store::record::Outcome { result: OutcomeResult::Error, ..done("req_2") }).unwrap();
    drop(session);
    let end = one(&place, "session.end");
    assert_eq!(end.value()["body"], json!({"reason": "abandoned", "unanswered": ["req_1"]}));
    recorder.start_session(&start("s2", &principal)).unwrap().end("terminated").unwrap();
    assert_eq!(place.of_kind("session.end").len(), 2);
}

#[test]
fn people_read_one_line_per_event_without_control_characters() {
    let place = Place::new();
    write_all(&place);
    let lines: Vec<String> = place.events().iter().map(describe).collect();
    let intent = lines.iter().find(|line| line.contains("statement.intent")).unwrap();
    for part in ["agent-7 (by runner) at shop", "allow", "on public.customers", "masked public.customers.ssn (partial)"]
    {
        assert!(intent.contains(part), "{intent}");
    }
    assert!(lines.iter().any(|line| line.contains("refuse  denied") && line.contains("because")));
    assert!(lines.iter().any(|line| line.contains("auth.fail") && line.contains("expired")));
    let principal = exeat_policy::Principal { subject: "x\u{1b}[2J\ny".to_owned(), ..principal() };
    place.open().start_session(&start("s9", &principal)).unwrap().end("x").unwrap();
    for line in place.events().iter().map(describe).chain(lines) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn sixteen_threads_write_one_order() {
    for durability in [Durability::Os, Durability::Fsync] {
        let place = Place::new();
        let recorder = place.try_open(durability).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let recorder = recorder.clone();
                let place = &place;
                scope.spawn(move || {
                    let (name, principal) = (format!("s{thread}"), principal());
                    let mut session = recorder.start_session(&start(&name, &principal)).unwrap();
                    for number in 0..25_u32 {
                        let request = format!("req_{thread}_{number}");
                        let sql = format!("select {number} -- {thread}");
                        let intent = session.intent(&allowed(&request, &sql)).unwrap();
                        let _ = session.outcome(&done(&request)).unwrap();
                        // Batches of different lengths, so that commits of one thread cover what others appended.
                        if number % (thread + 1) == 0 {
                            let _ = session.commit().unwrap();
                            assert!(session.is_committed());
                        }
                        if number == thread + 4 {
                            let _ = session.commit().unwrap();
                            let read = place.of_kind("statement.outcome");
                            assert!(
                                read.iter().any(|event| {
                                    event.seq() > intent.seq() && event.body("request_id") == Some(&json!(request))
                                }),
                                "committed and not to be read"
                            );
                        }
                    }
                    session.end("terminated").unwrap();
                });
            }
        });
        let events = place.events();
        assert_eq!(events.len(), 1 + 16 * (1 + 50 + 1));
        for (seq, event) in events.iter().enumerate() {
            assert_eq!(event.seq(), u64::try_from(seq).unwrap());
        }
        let (mut log, keys) = (open_log(&place.data()).unwrap(), place.keys());
        for event in events.iter().filter(|event| event.kind() == "statement.intent") {
            let session = event.session().unwrap();
            let sql = log.unseal(session, &event.blob(BlobKind::Sql).unwrap(), &keys).unwrap();
            let request = event.body("request_id").unwrap().as_str().unwrap();
            let (number, thread) =
                (sql.strip_prefix("select ").unwrap().split(' ').next().unwrap(), session.strip_prefix('s').unwrap());
            assert_eq!(request, format!("req_{thread}_{number}"));
        }
    }
}

#[test]
fn a_text_in_another_encoding_is_kept_byte_for_byte_and_shown_as_well_as_it_can_be() {
    let place = Place::new();
    let recorder = place.open();
    let principal = principal();
    let mut session = recorder.start_session(&start("s1", &principal)).unwrap();
    let texts: [(&[u8], Option<&str>, &str); 5] = [
        (b"select 'caf\xe9'", Some("LATIN1"), "select 'caf\u{e9}'"),
        (b"select 'caf\xe8'", Some("LATIN1"), "select 'caf\u{e8}'"),
        (b"select '\x83\x5c'", Some("SJIS"), "select '\\x83\\\\'"),
        (b"select 'caf\xe9'", None, "select 'caf\\xe9'"),
        ("select 'caf\u{e9}'".as_bytes(), None, "select 'caf\u{e9}'"),
    ];
    for (number, (sql, encoding, _)) in texts.iter().enumerate() {
        let request = number.to_string();
        let statement = exeat_store::record::Statement { sql, encoding: *encoding, ..allowed(&request, "") };
        let _ = session.intent(&statement).unwrap();
    }
    let _ = session.commit().unwrap();
    let mut log = open_log(&place.data()).unwrap();
    let events = place.of_kind("statement.intent");
    for (event, (sql, encoding, shown)) in events.iter().zip(texts) {
        let blob = event.blob(BlobKind::Sql).unwrap();
        assert_eq!(event.body("encoding").and_then(Value::as_str), encoding);
        assert_eq!(log.unseal_bytes("s1", &blob, &place.keys()).unwrap(), sql);
        assert_eq!(log.unseal("s1", &blob, &place.keys()).unwrap(), shown);
    }
    let digest = |index: usize| events[index].body("digest").cloned().unwrap();
    assert_ne!(digest(0), digest(1));
    assert_eq!(digest(0), digest(3), "of the bytes");
}
