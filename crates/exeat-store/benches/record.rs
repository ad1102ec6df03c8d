//! What one statement costs on record: its intent and its outcome, with the commits before either leaves.
//! `cargo bench -p exeat-store` prints microseconds of CPU a statement (user and system, all threads), with the
//! sessions that are ready together sharing their commits, as they do in the gateway; what the client gets is kept, as much
//! as the table says; and the memory of a session.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use exeat_policy::{Principal, PrincipalKind};
use exeat_store::StoreError;
use exeat_store::keys::{KeySet, KeySource};
use exeat_store::record::{
    Decision, Durability, Outcome, OutcomeResult, PolicyRef, Recorder, RecorderConfig, Sent, SessionRecord,
    SessionStart, Statement,
};

const STATEMENTS: u64 = 200_000;
/// Where each waits for a disk.
const SYNCED_STATEMENTS: u64 = 4_000;
const POLICY: PolicyRef<'static> =
    PolicyRef { version: 3, sha256: "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9" };

#[derive(Clone, Copy)]
enum Texts {
    /// A prepared statement.
    Same,
    /// Literals in the text.
    New,
}

fn main() -> Result<(), StoreError> {
    // First: nothing that was freed is there to be used again.
    let memory = memory_of_a_session()?;
    println!("| durability | sessions | threads | texts | answer | CPU µs a statement | µs elapsed |");
    println!("|---|---|---|---|---|---|---|");
    for (texts, named) in [(Texts::Same, "the same"), (Texts::New, "each new")] {
        for (sessions, threads) in [(1, 1), (16, 1), (16, 2)] {
            for answer in [0, 150, 16 * 1024] {
                let (cpu, elapsed) = measure((sessions, threads), texts, answer, Durability::Os)?;
                println!("| os | {sessions} | {threads} | {named} | {answer} B | {cpu:.2} | {elapsed:.2} |");
            }
        }
    }
    for sessions in [1, 16] {
        let (cpu, elapsed) = measure((sessions, 1), Texts::Same, 150, Durability::Fsync)?;
        println!("| fsync | {sessions} | 1 | the same | 150 B | {cpu:.2} | {elapsed:.2} |");
    }
    println!("\nmemory of a session after one statement: {memory:.1} KiB");
    Ok(())
}

/// KiB that each of a thousand sessions added.
fn memory_of_a_session() -> Result<f64, StoreError> {
    let base =
        tempfile::tempdir().map_err(|source| StoreError::Io { action: "make", path: "folder".into(), source })?;
    let recorder = open(base.path(), Durability::Os)?;
    let principal = principal();
    let mut held = Vec::new();
    let mut before = 0;
    for number in 0..1100 {
        if number == 100 {
            before = resident_kib();
        }
        let mut session =
            recorder.start_session(&start(&format!("0197aa11-7e32-7c11-9e55-2f4b6a{number:06}"), &principal))?;
        let _ = session.intent(&Statement::new("req_1", "SELECT 1", Decision::Allow, POLICY))?;
        let _ = session.outcome(&done("req_1"))?;
        let _ = session.commit()?;
        held.push(session);
    }
    Ok(f64::from(resident_kib() - before) / 1000.0)
}

fn resident_kib() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

fn measure(
    (sessions, threads): (u64, u64),
    texts: Texts,
    answer: usize,
    durability: Durability,
) -> Result<(f64, f64), StoreError> {
    let statements = match durability {
        Durability::Os => STATEMENTS,
        Durability::Fsync => SYNCED_STATEMENTS,
    };
    let answer = rows(answer);
    let base =
        tempfile::tempdir().map_err(|source| StoreError::Io { action: "make", path: "folder".into(), source })?;
    let recorder = open(base.path(), durability)?;
    let (before, started) = (cpu_seconds(), Instant::now());
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (recorder, answer) = (recorder.clone(), answer.as_slice());
                scope
                    .spawn(move || work(&recorder, (thread, sessions / threads), statements / threads, (texts, answer)))
            })
            .collect();
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(StoreError::Poisoned)))
    })?;
    let many = f64::from(u32::try_from(statements).unwrap_or(u32::MAX));
    let per = |seconds: f64| seconds * 1e6 / many;
    Ok((per(cpu_seconds() - before), per(started.elapsed().as_secs_f64())))
}

/// So many bytes that compress about as rows of text do.
fn rows(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut rows = Vec::new();
    while rows.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        rows.extend_from_slice(
            format!("{}|customer {}|[redacted]|2026-11-{:02}|", state >> 8, state >> 20, state % 30).as_bytes(),
        );
    }
    rows.truncate(bytes);
    rows
}

fn work(
    recorder: &Recorder,
    (thread, sessions): (u64, u64),
    statements: u64,
    (texts, answer): (Texts, &[u8]),
) -> Result<(), StoreError> {
    let principal = principal();
    let names: Vec<String> =
        (0..sessions).map(|n| format!("0197aa11-7e32-7c11-9e55-2f4b6a{thread:02}{n:04}")).collect();
    let mut open: Vec<SessionRecord> =
        names.iter().map(|name| recorder.start_session(&start(name, &principal))).collect::<Result<_, _>>()?;
    let mut sql = String::from("SELECT abalance FROM pgbench_accounts WHERE aid = $1;");
    for round in 0..statements / sessions {
        let requests: Vec<String> = names.iter().map(|name| format!("req_{name}_{round}")).collect();
        for (number, (session, request)) in open.iter_mut().zip(&requests).enumerate() {
            if let Texts::New = texts {
                sql = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {};", round * 100 + wide(number));
            }
            let statement = Statement { kinds: &["select"], ..Statement::new(request, &sql, Decision::Allow, POLICY) };
            let _ = session.intent(&statement)?;
        }
        for session in &mut open {
            let _ = session.commit()?;
        }
        for (session, request) in open.iter_mut().zip(&requests) {
            let _ = session.outcome(&done(request))?;
            session.sent(&Sent { messages: answer, bytes: wide(answer.len()), rows: 1 })?;
        }
        for session in &mut open {
            let _ = session.commit()?;
        }
    }
    open.into_iter().try_for_each(|session| session.end("terminated"))
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// User and system time of this process, in steps of ten milliseconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let (_, fields) = stat.rsplit_once(") ").unwrap_or_default();
    let ticks: u32 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / 100.0
}

fn open(base: &Path, durability: Durability) -> Result<Recorder, StoreError> {
    let keys = KeySet::open(&KeySource::Folder(base.join("keys")), &base.join("data")).map(Arc::new)?;
    let config = RecorderConfig { data_dir: base.join("data"), gateway: "exeat-bench".to_owned(), durability };
    Recorder::open(&config, keys)
}

fn principal() -> Principal {
    Principal {
        issuer: "https://idp.example.com".to_owned(),
        subject: "agent-7".to_owned(),
        groups: vec!["agents".to_owned()],
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Workload,
        token_id: None,
        instance: BTreeMap::new(),
    }
}

fn start<'a>(session: &'a str, principal: &'a Principal) -> SessionStart<'a> {
    SessionStart {
        session,
        principal,
        source: "127.0.0.1:50000",
        target: "shop",
        database: "bench",
        login: "bench",
        backend_pid: 4711,
        backend_start: None,
        application_name: Some("pgbench"),
        policy: POLICY,
        tls: None,
        token: None,
        handle: None,
    }
}

fn done(request_id: &str) -> Outcome<'_> {
    Outcome {
        request_id,
        index: 0,
        result: OutcomeResult::Ok,
        batch_from: None,
        last: true,
        tag: Some("SELECT 1"),
        sqlstate: None,
        rows: 1,
        bytes: 16,
        cells_masked: 0,
        duration_us: 187,
        policy: POLICY,
    }
}
