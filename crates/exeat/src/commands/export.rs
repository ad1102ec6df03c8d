//! `exeat audit export`: what is on record of many sessions, for other programs: the lines as they were signed, or one row or
//! object for each statement. Session by session, the oldest first, so that it takes no more memory than one of them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::cli::sessions::{AuditExportArgs, AuditExportFormat};
use crate::exit::Exit;
use crate::sessions::{self, OpenRecord, RecordError, Story};

pub(crate) async fn run(args: AuditExportArgs) -> Result<Exit, RecordError> {
    let mut record = OpenRecord::open(&args.record).await?;
    let which = super::sessions::filter(args.which, u32::MAX);
    let mut found = record.index.sessions(&which, record.keys.as_ref()).await?;
    found.reverse();
    let mut out = match &args.out {
        Some(path) => {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            Output::File(made.map_err(|source| RecordError::Write { path: path.clone(), source })?)
        }
        None => Output::Standard(io::stdout()),
    };
    if args.format == AuditExportFormat::Csv && !out.put(&sessions::csv_header())? {
        return Ok(Exit::Ok);
    }
    for session in found {
        let events = record.index.events(&session).await?;
        let text = match args.format {
            AuditExportFormat::Lines => events.events.iter().map(|event| format!("{}\n", event.line)).collect(),
            AuditExportFormat::Csv => {
                sessions::csv_rows(&Story::tell(&record.index, session, &events, record.keys.as_ref())?)
            }
            AuditExportFormat::Ocsf => {
                sessions::ocsf(&Story::tell(&record.index, session, &events, record.keys.as_ref())?)
            }
        };
        if !out.put(&text)? {
            break;
        }
    }
    Ok(Exit::Ok)
}

enum Output {
    File(File),
    Standard(io::Stdout),
}

impl Output {
    /// Whether anybody still reads it.
    fn put(&mut self, text: &str) -> Result<bool, RecordError> {
        let written = match self {
            Self::File(file) => file.write_all(text.as_bytes()),
            Self::Standard(out) => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
        };
        match written {
            Ok(()) => Ok(true),
            Err(problem) if problem.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(problem) => Err(RecordError::Output(problem)),
        }
    }
}
