//! Writes a record as a gateway would, of sessions that nobody had: for measuring what reads it.
//!
//! `make_record FOLDER --sessions N --statements M` makes FOLDER/data and FOLDER/keys, N sessions of M statements each,
//! nearly two lines to a statement (a session has a start and an end), some masked, some refused, some failed. With
//! `--rows R` every answer has so many rows, kept on record. Nothing is left to chance but keys and times: the same
//! numbers make the same sessions.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use exeat_policy::{Principal, PrincipalKind};
use exeat_store::keys::{KeySet, KeySource};
use exeat_store::record::{
    Decision, Durability, MaskedColumn, Outcome, OutcomeResult, PolicyRef, Recorder, RecorderConfig, Sent,
    SessionRecord, SessionStart, Statement, TokenRef,
};

const POLICY: PolicyRef<'static> =
    PolicyRef { version: 3, sha256: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" };

/// Sessions that run at once, as lines of many stand between each other's.
const AT_ONCE: usize = 50;

const RELATIONS: [&str; 8] = [
    "public.customers",
    "public.orders",
    "public.payments",
    "public.products",
    "hr.salaries",
    "public.tickets",
    "public.events",
    "public.addresses",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut folder = None;
    let (mut sessions, mut statements, mut rows) = (100_usize, 100_usize, 0_usize);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--sessions" => sessions = arguments.next().ok_or("--sessions N")?.parse()?,
            "--statements" => statements = arguments.next().ok_or("--statements M")?.parse()?,
            "--rows" => rows = arguments.next().ok_or("--rows R")?.parse()?,
            path => folder = Some(PathBuf::from(path)),
        }
    }
    let folder = folder.ok_or("make_record FOLDER --sessions N --statements M")?;
    let data_dir = folder.join("data");
    let keys = KeySet::open(&KeySource::Folder(folder.join("keys")), &data_dir)?;
    let config = RecorderConfig { data_dir, gateway: "exeat-made".to_owned(), durability: Durability::Os };
    let recorder = Recorder::open(&config, keys)?;
    let mut first = 0;
    while first < sessions {
        let last = sessions.min(first + AT_ONCE);
        let mut running = Vec::with_capacity(AT_ONCE);
        for number in first..last {
            running.push((number, start(&recorder, number)?));
        }
        for turn in 0..statements {
            for (number, session) in &mut running {
                statement(session, (*number, turn), rows)?;
            }
        }
        for (_, session) in running {
            session.end("client closed")?;
        }
        first = last;
    }
    Ok(())
}

fn start(recorder: &Recorder, number: usize) -> Result<SessionRecord, Box<dyn Error>> {
    let principal = Principal {
        issuer: "https://idp.example.com".to_owned(),
        subject: format!("agent-{}", number % 200),
        groups: vec!["agents".to_owned(), format!("team-{}", number % 7)],
        claims: serde_json::Map::new(),
        actor: None,
        kind: PrincipalKind::Workload,
        token_id: None,
        instance: BTreeMap::new(),
    };
    let source = format!("10.0.{}.{}:{}", number % 4, number % 250, 40_000 + number % 20_000);
    Ok(recorder.start_session(&SessionStart {
        session: &format!("ses_{number:032x}"),
        principal: &principal,
        source: &source,
        target: if number.is_multiple_of(5) { "crm" } else { "shop" },
        database: "shop",
        login: "shop_reader",
        backend_pid: 4711,
        backend_start: None,
        application_name: Some("psql"),
        policy: POLICY,
        tls: Some("TLSv1.3"),
        token: Some(TokenRef { id: None, sha256_8: "0a1b2c3d" }),
        handle: None,
    })?)
}

/// Mostly the same few texts, as prepared statements are; each tenth with a literal of its own.
fn statement(session: &mut SessionRecord, (number, turn): (usize, usize), rows: usize) -> Result<(), Box<dyn Error>> {
    let step = number.wrapping_mul(31).wrapping_add(turn);
    let relation = RELATIONS.get(step % RELATIONS.len()).copied().unwrap_or("public.orders");
    let request = format!("req_{number:016x}{turn:016x}");
    let sql = if step.is_multiple_of(10) {
        format!("SELECT id, email, ssn FROM {relation} WHERE id = {} AND note = 'n{step}'", number * 1000 + turn)
    } else {
        format!("SELECT id, email, ssn FROM {relation} WHERE id = $1")
    };
    let columns = [format!("{relation}.email"), format!("{relation}.id"), format!("{relation}.ssn")];
    let masked = [
        MaskedColumn { column: &columns[0], label: "email", mask: "redact" },
        MaskedColumn { column: &columns[2], label: "ssn", mask: "partial" },
    ];
    let refused = relation == "hr.salaries";
    let decision = if refused { Decision::Refuse } else { Decision::Allow };
    let _receipt = session.intent(&Statement {
        kinds: &["select"],
        relations: &[relation.to_owned()],
        columns: &columns,
        masked: if refused { &[] } else { &masked },
        code: refused.then_some("denied"),
        rules: &[if refused { "no-payroll" } else { "agents-read" }.to_owned()],
        ..Statement::new(&request, &sql, decision, POLICY)
    })?;
    if refused {
        return Ok(());
    }
    let failed = step.is_multiple_of(997);
    let tag = format!("SELECT {}", rows.max(1));
    let _receipt = session.outcome(&Outcome {
        request_id: &request,
        index: 0,
        result: if failed { OutcomeResult::Error } else { OutcomeResult::Ok },
        last: true,
        batch_from: None,
        tag: (!failed).then_some(&tag),
        sqlstate: failed.then_some("57014"),
        rows: if failed { 0 } else { u64::try_from(rows.max(1))? },
        bytes: 40,
        cells_masked: 2,
        duration_us: 250,
        policy: POLICY,
    })?;
    if rows > 0 && !failed {
        let messages = answer(step, rows);
        session.sent(&Sent {
            messages: &messages,
            bytes: u64::try_from(messages.len())?,
            rows: u64::try_from(rows)?,
        })?;
    }
    let _committed = session.commit()?;
    Ok(())
}

/// What a client gets: what the columns are called, rows, and that it was all.
fn answer(step: usize, rows: usize) -> Vec<u8> {
    let mut messages = Vec::new();
    let names = ["id", "email", "ssn"];
    let mut described = 3_u16.to_be_bytes().to_vec();
    for name in names {
        described.extend_from_slice(name.as_bytes());
        // No table; text of any length, as text.
        described.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    }
    message(&mut messages, b'T', &described);
    for row in 0..rows {
        let cells =
            [format!("{}", step * 100 + row), "[redacted by exeat]".to_owned(), format!("*******{:04}", step % 10_000)];
        let mut data = 3_u16.to_be_bytes().to_vec();
        for cell in cells {
            data.extend_from_slice(&u32::try_from(cell.len()).unwrap_or(0).to_be_bytes());
            data.extend_from_slice(cell.as_bytes());
        }
        message(&mut messages, b'D', &data);
    }
    message(&mut messages, b'C', format!("SELECT {rows}\0").as_bytes());
    message(&mut messages, b'Z', b"I");
    messages
}

fn message(messages: &mut Vec<u8>, tag: u8, body: &[u8]) {
    messages.push(tag);
    messages.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or(0).to_be_bytes());
    messages.extend_from_slice(body);
}
