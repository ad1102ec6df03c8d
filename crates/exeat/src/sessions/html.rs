//! A session as one page: opens from a disk, without a server, a network or a script. Everything in it that somebody else
//! wrote is text, with what nobody would see made visible; the page itself forbids the browser everything else.

use std::fmt::Write as _;

use exeat_store::read;
use serde_json::Value;

use super::story::{Step, Story, Telling};
use crate::plain;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}\
h1{font-size:1.4rem}table{border-collapse:collapse}th{text-align:left;padding-right:1.5rem;vertical-align:top;font-weight:600}\
pre{background:#f4f4f2;padding:.6rem .8rem;overflow-x:auto;white-space:pre-wrap;word-break:break-word;margin:.4rem 0}\
article{border-left:4px solid #4a7d4f;margin:1rem 0;padding:.1rem 1rem}article.refuse{border-color:#b3382c}\
article.failed{border-color:#c08a1e}.time{color:#666}.why{color:#444}p.event{color:#555;margin:.3rem 0}";

/// What stands beside the page.
#[derive(Debug)]
pub(crate) struct Beside<'a> {
    /// Lines with a proof, of how many.
    pub(crate) proved: usize,
    pub(crate) lines: usize,
    /// The public key, as `audit verify` takes it.
    pub(crate) key: Option<&'a str>,
    /// Records that the checkpoint was signed for.
    pub(crate) signed: u64,
    pub(crate) origin: &'a str,
    /// What the client got.
    pub(crate) has_rows: bool,
}

pub(crate) fn page(story: &Story, beside: &Beside<'_>) -> String {
    let session = &story.session;
    let name = escaped(&session.session);
    let mut out = String::with_capacity(4096);
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Session {name}</title><style>{STYLE}</style></head><body>\n<h1>Session {name}</h1>\n"
    );
    facts(story, &mut out);
    out.push_str("<h2>What happened</h2>\n");
    for step in &story.steps {
        match step {
            Step::Statement(telling) => statement(telling, story, &mut out),
            Step::Other(event) => {
                let _ = writeln!(out, "<p class=\"event\">{}</p>", escaped(&read::describe(event)));
            }
        }
    }
    check(beside, &mut out);
    out.push_str("</body></html>\n");
    out
}

fn facts(story: &Story, out: &mut String) {
    let session = &story.session;
    let who = |member: &str| session.principal.get(member).and_then(Value::as_str).unwrap_or("").to_owned();
    let groups = session.principal.get("groups").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let groups: Vec<&str> = groups.iter().filter_map(Value::as_str).collect();
    let counts = format!(
        "{} statements, {} refused, {} failed, {} rows",
        session.statements, session.refused, session.failed, session.rows
    );
    let erased = if session.erased { "its texts and values were erased" } else { "" };
    let gone =
        session.gone_before.map(|first| format!("what the session did before record {first}: retention took it"));
    out.push_str("<table>\n");
    for (name, value) in [
        ("subject", who("sub")),
        ("acting agent", who("actor")),
        ("issuer", who("iss")),
        ("groups", groups.join(", ")),
        ("target", format!("{}/{}", session.target, session.database)),
        ("database role", session.login.clone()),
        ("from", session.source.clone()),
        ("application", session.application.clone()),
        ("begun", session.first_at.to_string()),
        ("last event", session.last_at.to_string()),
        ("ended", session.ended.clone().unwrap_or_default()),
        ("in all", counts),
        ("erased", erased.to_owned()),
        ("not here", gone.unwrap_or_default()),
    ] {
        if !value.is_empty() {
            let _ = writeln!(out, "<tr><th>{name}</th><td>{}</td></tr>", escaped(&value));
        }
    }
    out.push_str("</table>\n");
}

fn statement(telling: &Telling, story: &Story, out: &mut String) {
    let class = match (telling.is_refused(), telling.last("sqlstate")) {
        (true, _) => "refuse",
        (_, Some(_)) => "failed",
        (_, None) => "allow",
    };
    let _ = writeln!(
        out,
        "<article class=\"{class}\"><p><span class=\"time\">{}</span> record {} · <b>{}</b> · {}",
        escaped(telling.event.time()),
        telling.event.seq(),
        escaped(telling.text_of("decision")),
        escaped(telling.result())
    );
    for value in [Some(telling.text_of("code")), telling.last("tag"), telling.last("sqlstate")].into_iter().flatten() {
        if !value.is_empty() {
            let _ = write!(out, " · {}", escaped(value));
        }
    }
    if !telling.outcomes.is_empty() {
        let _ = write!(out, " · {} rows · {} µs", telling.sum("rows"), telling.sum("duration_us"));
    }
    out.push_str("</p>\n");
    match &telling.text {
        Some(text) => {
            let lines: Vec<String> = plain::lines(text).collect();
            let _ = writeln!(out, "<pre>{}</pre>", entities(&lines.join("\n")));
        }
        None => {
            let _ = writeln!(out, "<pre>[{}]</pre>", story.without_text());
        }
    }
    if let Some(parameters) = &telling.parameters {
        let _ = writeln!(out, "<pre>{}</pre>", escaped(&parameters.to_string()));
    }
    for (member, before) in [("relations", "on"), ("rules", "by"), ("reasons", "because")] {
        let names = telling.list(member);
        if !names.is_empty() {
            let _ = writeln!(out, "<p class=\"why\">{before} {}</p>", escaped(&names.join(", ")));
        }
    }
    for (column, label, mask) in telling.masked() {
        let _ =
            writeln!(out, "<p class=\"why\">masked {} as {}: {}</p>", escaped(column), escaped(label), escaped(mask));
    }
    out.push_str("</article>\n");
}

fn check(beside: &Beside<'_>, out: &mut String) {
    let key = beside.key.unwrap_or("KEY");
    let _ = writeln!(
        out,
        "<h2>How to check it</h2>\n<p>Beside this page: <code>events.jsonl</code>, the records of this session as they stand in \
         the log <code>{}</code>; in <code>proofs</code> one file for each that is signed ({} of {}), and \
         <code>checkpoint</code>, signed for the log's first {} records. This page is made from them and proves nothing by \
         itself.</p>\n<pre>exeat audit verify --proof proofs/N.tlog-proof --key {}</pre>\n\
         <p>A proof (c2sp.org/tlog-proof) holds the record itself, the hashes from it to the root of the log's Merkle tree, \
         and the signed root. Compare the key with one that you have from elsewhere: whoever made this bundle could have \
         made the key in it too. That nothing of the session was left out shows in the numbers of the records against the \
         whole log, not here.</p>",
        escaped(beside.origin),
        beside.proved,
        beside.lines,
        beside.signed,
        escaped(key)
    );
    if beside.has_rows {
        out.push_str("<p><code>rows.jsonl</code>: what the client got, message by message, masked as it saw it.</p>\n");
    }
    if beside.key.is_none() {
        out.push_str("<p>The public key is not in this bundle: it is what <code>exeat audit key</code> prints.</p>\n");
    }
}

/// On one line, and nothing but text.
fn escaped(text: &str) -> String {
    entities(&plain::line(text))
}

fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_text() {
        let shown = escaped("<img src=x onerror='alert(1)'>\u{202e}&\"");
        assert_eq!(shown, "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;\\u{202e}&amp;&quot;");
    }
}
