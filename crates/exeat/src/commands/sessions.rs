//! `exeat sessions`: what sessions did, as a record says it. Needs no gateway; texts of statements need the keys.

use std::error::Error;
use std::fmt::Write as _;

use exeat_store::index::{Filter, SessionRow};
use exeat_store::read;
use serde_json::{Value, json};

use crate::cli::sessions::{DecisionWord, ExportArgs, ExportFormat, ListArgs, SessionsCommand, ShowArgs, WhichArgs};
use crate::exit::{self, Exit};
use crate::plain;
use crate::sessions::{self, OpenRecord, RecordError, Step, Story, Telling, session_json};

pub(crate) async fn run(command: SessionsCommand) -> Result<Exit, Box<dyn Error>> {
    Ok(match command {
        SessionsCommand::List(args) => list(*args).await?,
        SessionsCommand::Show(args) => show(args).await?,
        SessionsCommand::Export(args) => export(args).await?,
        SessionsCommand::Replay(args) => super::replay::run(&args).await?,
    })
}

async fn list(args: ListArgs) -> Result<Exit, RecordError> {
    let mut record = OpenRecord::open(&args.record).await?;
    let json = args.json;
    let limit = args.limit;
    let found = record.index.sessions(&filter(args.which, limit), record.keys.as_ref()).await?;
    let text = if json {
        let sessions: Vec<Value> = found.iter().map(session_json).collect();
        format!("{}\n", json!({"v": 1, "sessions": sessions}))
    } else {
        found.iter().map(line).collect()
    };
    exit::print(&text).map_err(RecordError::Output)?;
    if !json && u32::try_from(found.len()).is_ok_and(|found| found == limit) {
        exit::note(&format!("there may be more than the newest {limit}: --limit, or --until for older ones"));
    }
    Ok(Exit::Ok)
}

pub(super) fn filter(args: WhichArgs, limit: u32) -> Filter {
    let decision = args.decision.map(|decision| match decision {
        DecisionWord::Allow => "allow".to_owned(),
        DecisionWord::Refuse => "refuse".to_owned(),
    });
    Filter {
        principal: args.principal,
        group: args.group,
        target: args.target,
        database: args.database,
        source: args.source,
        relation: args.relation,
        column: args.column,
        label: args.label,
        mask: args.mask,
        kind: args.kind,
        decision,
        rule: args.rule,
        code: args.code,
        sqlstate: args.sqlstate,
        approval: args.approval,
        since: args.since,
        until: args.until,
        text: args.text,
        limit,
    }
}

/// Who, where, and how much of what.
fn line(session: &SessionRow) -> String {
    let name = |member: &str| session.principal.get(member).and_then(Value::as_str).map(plain::line);
    let mut out =
        format!("{:.3}  {}  {}", session.first_at, plain::line(&session.session), name("sub").unwrap_or_default());
    // Writing to a string does not fail.
    if let Some(actor) = name("actor") {
        let _ = write!(out, " (by {actor})");
    }
    let _ = write!(
        out,
        " at {}/{} from {}  {} statements, {} rows",
        plain::line(&session.target),
        plain::line(&session.database),
        plain::line(&session.source),
        session.statements,
        session.rows
    );
    for (number, what) in [(session.refused, "refused"), (session.failed, "failed")] {
        if number > 0 {
            let _ = write!(out, ", {number} {what}");
        }
    }
    if session.erased {
        out.push_str(", erased");
    }
    if let Some(first) = session.gone_before {
        let _ = write!(out, ", partly gone: before record {first}");
    }
    out.push('\n');
    out
}

async fn show(args: ShowArgs) -> Result<Exit, RecordError> {
    let mut record = OpenRecord::open(&args.record).await?;
    let session = record.index.session(&args.session).await?;
    let events = record.index.events(&session).await?;
    let story = Story::tell(&record.index, session, &events, record.keys.as_ref())?;
    let text = if args.json {
        let steps: Vec<Value> = story
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Statement(telling) => Some(json!({"statement": telling.json()})),
                // Decisions are listed apart.
                Step::Other(event) => event.session().map(|_| json!({"event": event.value()})),
            })
            .collect();
        let approvals: Vec<&Value> = events.approvals.iter().map(|event| event.value()).collect();
        format!(
            "{}\n",
            json!({"v": 1, "session": session_json(&story.session), "steps": steps, "approvals": approvals})
        )
    } else {
        told(&story)
    };
    exit::print(&text).map_err(RecordError::Output)?;
    Ok(Exit::Ok)
}

async fn export(args: ExportArgs) -> Result<Exit, RecordError> {
    let mut record = OpenRecord::open(&args.record).await?;
    let session = record.index.session(&args.session).await?;
    let events = record.index.events(&session).await?;
    let story = Story::tell(&record.index, session, &events, record.keys.as_ref())?;
    let text = match args.format {
        ExportFormat::Csv => sessions::csv(&story),
        ExportFormat::Ocsf => sessions::ocsf(&story),
        ExportFormat::Bundle => {
            let out = args.out.ok_or(RecordError::NoOut)?;
            let done = sessions::bundle(&record, &story, &events, &out)?;
            if done.proved < done.lines {
                let left = done.lines - done.proved;
                exit::note(&format!("{left} of {} records are not signed yet, and have no proof", done.lines));
            }
            if !done.has_key {
                exit::note("the public key is not in it: without the keys of the gateway nobody here can say it");
            }
            return Ok(Exit::Ok);
        }
    };
    match &args.out {
        Some(path) => sessions::write_new(path, &text)?,
        None => exit::print(&text).map_err(RecordError::Output)?,
    }
    Ok(Exit::Ok)
}

fn told(story: &Story) -> String {
    let mut out = line(&story.session);
    for step in &story.steps {
        out.push('\n');
        match step {
            Step::Statement(telling) => tell(telling, story, &mut out),
            Step::Other(event) => {
                out.push_str(&plain::line(&read::describe(event)));
                out.push('\n');
            }
        }
    }
    out
}

fn tell(telling: &Telling, story: &Story, out: &mut String) {
    let joined = |names: Vec<&str>| names.into_iter().map(plain::line).collect::<Vec<_>>().join(", ");
    // Writing to a string does not fail.
    let _ = write!(out, "{}  {}  {}", telling.event.time(), telling.text_of("decision"), plain::line(telling.result()));
    for (member, before) in [("code", "  "), ("tag", "  "), ("sqlstate", "  sqlstate ")] {
        let value = telling.last(member).or_else(|| telling.body.get(member).and_then(Value::as_str));
        if let Some(value) = value {
            let _ = write!(out, "{before}{}", plain::line(value));
        }
    }
    if !telling.outcomes.is_empty() {
        let _ = write!(out, "  rows {}  {} µs", telling.sum("rows"), telling.sum("duration_us"));
    }
    out.push('\n');
    for (member, before) in [("kinds", ""), ("relations", "on "), ("rules", "by "), ("reasons", "because ")] {
        let names = telling.list(member);
        if !names.is_empty() {
            let _ = writeln!(out, "    {before}{}", joined(names));
        }
    }
    for (column, label, mask) in telling.masked() {
        let _ = writeln!(out, "    masked {} as {}: {}", plain::line(column), plain::line(label), plain::line(mask));
    }
    match &telling.text {
        Some(text) => plain::lines(text).for_each(|line| {
            let _ = writeln!(out, "    | {line}");
        }),
        None => {
            let _ = writeln!(out, "    | [{}]", story.without_text());
        }
    }
    if let Some(parameters) = &telling.parameters {
        let _ = writeln!(out, "    with {}", plain::line(&parameters.to_string()));
    }
}
