//! What the demo shows: lines to paste, or with `--try` the same statements as two people, side by side, a refusal
//! as a program gets it, and the record of it all.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use exeat_store::StoreError;
use exeat_store::keys::{KeySet, KeySource};
use exeat_store::read::open_log;
use exeat_store::verify::{Against, verify};

use super::files::Files;
use super::postgres::find_on_path;
use crate::commands::audit;
use crate::commands::replay::{self, ReplayError};
use crate::exit;

/// Shown as both.
const SHARED: [&str; 2] = [
    "SELECT full_name, email, ssn FROM customers ORDER BY id LIMIT 4",
    "SELECT o.item, p.brand, p.card_number FROM orders o JOIN payments p ON p.order_id = o.id ORDER BY o.id LIMIT 4",
];

/// Refused for the agent.
const REFUSED: [&str; 2] =
    ["SELECT full_name FROM customers WHERE ssn = '137-54-7920'", "SELECT full_name, salary FROM hr.salaries"];

/// psql on a stuck server must not hang the tour.
const PSQL_TIMEOUT_SECONDS: &str = "20";

/// The tour waits so long for the last signature, and looks so often.
const SIGNED_WITHIN: Duration = Duration::from_secs(5);
const LOOKED_AGAIN_AFTER: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub(crate) enum TourError {
    #[error("found no psql; install it (Debian: apt-get install postgresql-client), or run the demo without --try")]
    NoPsql,
    #[error("could not run psql")]
    Run(#[source] std::io::Error),
    #[error("psql failed where it should not: {said}")]
    Failed { said: String },
    #[error("{statement:?} was to be refused and was not")]
    NotRefused { statement: &'static str },
    #[error("could not read the record")]
    Record(#[from] StoreError),
    #[error("could not replay the record")]
    Replay(#[from] ReplayError),
    #[error("the record is not what was signed")]
    Unverified,
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
}

/// psql and how it reaches the gateway.
pub(super) struct Psql {
    program: Option<PathBuf>,
    connection: String,
}

/// What psql printed, and whether it was content.
struct Said {
    out: String,
    err: String,
    success: bool,
}

impl Psql {
    /// `programs`: the server's folder, where psql may be too.
    pub(super) fn new(programs: Option<PathBuf>, port: u16, authority: &Path) -> Self {
        let beside = programs.filter(|folder| folder.join("psql").is_file());
        let program = find_on_path("psql").or(beside).map(|folder| folder.join("psql"));
        let connection = format!(
            "host=localhost port={port} dbname=shop user=agent sslmode=verify-full sslrootcert={}",
            authority.display()
        );
        Self { program, connection }
    }

    /// A line for a shell.
    fn line(&self, token: &str) -> String {
        let program = match &self.program {
            Some(found) if find_on_path("psql").is_none() => found.display().to_string(),
            Some(_) | None => "psql".to_owned(),
        };
        format!("PGPASSWORD='{token}' {program} \"{}\"", self.connection)
    }

    fn run(&self, token: &str, statement: &str) -> Result<Said, TourError> {
        let program = self.program.as_ref().ok_or(TourError::NoPsql)?;
        let output = Command::new(program)
            .args(["-X", "-q", "-P", "footer=off", "-P", "border=1", "-c", statement, &self.connection])
            .env("PGPASSWORD", token)
            .env("PGCONNECT_TIMEOUT", PSQL_TIMEOUT_SECONDS)
            .env_remove("PGOPTIONS")
            .stdin(Stdio::null())
            .output()
            .map_err(TourError::Run)?;
        Ok(Said {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            success: output.status.success(),
        })
    }
}

/// What to paste, and what to look at.
pub(super) fn invitation(
    psql: &Psql,
    agent: &str,
    officer: &str,
    files: &Files,
    console: Option<SocketAddr>,
) -> String {
    let console = console.map(|address| format!("http://{address}/readyz")).unwrap_or_default();
    format!(
        "Exeat stands between you and a sample shop: 500 customers, 1500 orders, 1200 payments.\n\
         \n\
         As an agent (agent-7, group agents): personal data leaves masked.\n\
         \n  {agent}\n\
         \n\
         As a data-protection officer (dana, group dpo): the same statements, in clear.\n\
         \n  {officer}\n\
         \n\
         Try, as each of them:\n\
         \n  {shared}\n  {refused}\n\
         \n\
         policy   {policy}   (edit it: a change counts within a second)\n\
         record   {record}\n\
         health   {console}\n\
         \n\
         Ctrl-C ends the demo and removes all of it.\n",
        agent = psql.line(agent),
        officer = psql.line(officer),
        shared = SHARED.map(|statement| format!("{statement};")).join("\n  "),
        refused = REFUSED.map(|statement| format!("{statement};")).join("\n  "),
        policy = files.policy.display(),
        record = files.data_dir.display(),
    )
}

/// Blocking: it waits for psql, on a thread that drives nothing else of the gateway.
pub(super) fn run(psql: &Psql, agent: &str, officer: &str, files: &Files) -> Result<(), TourError> {
    for statement in SHARED {
        let left = succeeded(psql.run(agent, statement)?)?;
        let right = succeeded(psql.run(officer, statement)?)?;
        show(&format!("\n{statement};\n\n"))?;
        show(&side_by_side(("agent-7 (agents)", &left), ("dana (dpo)", &right)))?;
    }
    for statement in REFUSED {
        let said = psql.run(agent, statement)?;
        if said.success {
            return Err(TourError::NotRefused { statement });
        }
        show(&format!("\n{statement};   -- agent-7\n\n{}", said.err))?;
    }
    show("\nThe record, as the holder of its keys replays it:\n\n")?;
    show(&record(files)?)?;
    show("The record, as anybody verifies it:\n\n")?;
    show(&evidence(files)?)
}

fn show(text: &str) -> Result<(), TourError> {
    exit::print(text).map_err(TourError::Output)
}

fn succeeded(said: Said) -> Result<String, TourError> {
    if said.success { Ok(said.out) } else { Err(TourError::Failed { said: said.err.trim().to_owned() }) }
}

/// Two texts as two columns.
fn side_by_side(left: (&str, &str), right: (&str, &str)) -> String {
    let lines = |(title, text): (&str, &str)| -> Vec<String> {
        let underline = "=".repeat(title.len());
        let body = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned);
        [title.to_owned(), underline].into_iter().chain(body).collect()
    };
    let (left, right) = (lines(left), lines(right));
    let width = left.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for index in 0..left.len().max(right.len()) {
        let line = |side: &[String]| side.get(index).cloned().unwrap_or_default();
        // Writing to a String cannot fail.
        let _written = writeln!(out, "{}", format!("{:width$}    {}", line(&left), line(&right)).trim_end());
    }
    out
}

/// What each session asked and got, as only the holder of the keys can read it.
fn record(files: &Files) -> Result<String, TourError> {
    let keys = KeySet::open(&KeySource::Folder(files.keys.clone()), &files.data_dir)?;
    let mut out = String::new();
    for event in open_log(&files.data_dir)?.events()? {
        let event = event?;
        if let (Some(session), "session.start") = (event.session(), event.kind()) {
            out.push_str(&replay::as_text(open_log(&files.data_dir)?, &keys, session)?);
            out.push('\n');
        }
    }
    Ok(out)
}

/// What an outsider needs no keys for. Lines are signed within a second: whoever looked at once would see most of them
/// unsigned.
fn evidence(files: &Files) -> Result<String, TourError> {
    let until = Instant::now() + SIGNED_WITHIN;
    let mut found = verify(&files.data_dir, &Against::default())?;
    while found.unsigned > 0 && Instant::now() < until {
        std::thread::sleep(LOOKED_AGAIN_AFTER);
        found = verify(&files.data_dir, &Against::default())?;
    }
    if !found.is_clean() {
        return Err(TourError::Unverified);
    }
    Ok(audit::as_text(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_beside_each_other_whatever_their_length() {
        let shown = side_by_side(("ab", "longer\n"), ("c", "x\ny\n"));
        assert_eq!(shown, "ab        c\n==        =\nlonger    x\n          y\n");
    }
}
