//! A message for people in a chat that takes Slack's incoming webhooks. Everything a client has worded is plain text
//! there: no markup, no mention of anybody, no link that is followed to be shown.

use exeat_enforce::card::Card;
use exeat_policy::approval::Terms;
use exeat_store::state::Told;
use serde_json::{Value, json};

use super::message::Said;
use crate::plain;

/// A header takes 150 characters, a text 3,000, a field 2,000; escapes make them longer.
const HEADER_CHARS_MAX: usize = 100;
const STATEMENT_CHARS_MAX: usize = 1200;
const FIELD_CHARS_MAX: usize = 600;
const LIST_MAX: usize = 10;

pub(super) fn body(said: &Said<'_>) -> Value {
    let heading = heading(said);
    let mut blocks = vec![json!({"type": "header", "text": plain_text(&cut(&heading, HEADER_CHARS_MAX))})];
    blocks.push(json!({"type": "section", "fields": fields(said)}));
    if let Some(card) = &said.card {
        blocks.push(json!({"type": "section", "text": plain_text(&statement(card))}));
        if let Some(purpose) = &card.purpose {
            let purpose = format!("Stated purpose, which nobody has checked: {}", shown(purpose, FIELD_CHARS_MAX));
            blocks.push(json!({"type": "section", "text": plain_text(&purpose)}));
        }
    }
    let todo = format!("exeat approvals show {}", said.request.id);
    blocks.push(json!({"type": "context", "elements": [plain_text(&todo)]}));
    // What shows where blocks do not.
    let text = format!("{heading}: {}", said.request.id);
    json!({"text": text, "blocks": blocks, "unfurl_links": false, "unfurl_media": false, "link_names": false})
}

fn heading(said: &Said<'_>) -> String {
    let what = match said.message.told {
        Told::Asked => "A statement waits for approval",
        Told::Closed => "Decided or over",
        Told::SecondGroup => "Still waits for approval, and for you now too",
        Told::Alert => "The glass was broken: one person alone let a statement through",
        Told::Stop => "An approval was taken back",
    };
    format!("{what} ({}, {})", said.request.progress.state.name(), shown(&said.request.ask.target, 63))
}

fn fields(said: &Said<'_>) -> Vec<Value> {
    let ask = &said.request.ask;
    let Terms { demands, decide_by, .. } = &said.request.terms;
    let who = match &ask.asker.actor {
        Some(actor) => format!("{} through {}", ask.asker.human.subject, actor),
        None => ask.asker.human.subject.clone(),
    };
    let rules: Vec<String> =
        demands.iter().map(|demand| format!("{} (needs {})", demand.rule, demand.quorum)).collect();
    let until = exeat_console::view::time(*decide_by);
    let mut named = vec![
        ("Who", who),
        ("Where", format!("{}/{} as {}", ask.target, ask.database, ask.role)),
        ("Held by", rules.join(", ")),
        ("Decide by", until.as_str().unwrap_or_default().to_owned()),
    ];
    if let Some(card) = &said.card {
        let rows = card.so_far.rows.iter().take(LIST_MAX);
        let rows: Vec<String> = rows.map(|(relation, rows)| format!("{rows} rows of {relation}")).collect();
        let rows = if rows.is_empty() { "nothing has run".to_owned() } else { rows.join(", ") };
        named.push(("Kept back so far", rows));
        let labels: Vec<&str> = card.labels.iter().take(LIST_MAX).map(String::as_str).collect();
        if !labels.is_empty() {
            named.push(("Labels", labels.join(", ")));
        }
    }
    named.iter().map(|(name, value)| plain_text(&format!("{name}: {}", shown(value, FIELD_CHARS_MAX)))).collect()
}

fn statement(card: &Card) -> String {
    let lines: Vec<String> = plain::lines(&cut(&card.sql, STATEMENT_CHARS_MAX)).collect();
    defused(&lines.join("\n"))
}

fn plain_text(text: &str) -> Value {
    json!({"type": "plain_text", "text": text, "emoji": false})
}

fn shown(text: &str, most: usize) -> String {
    defused(&plain::line(&cut(text, most)))
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} … [cut]", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The three characters that chats read markup from, and the one that some of them read mentions from: that is shown as
/// its wide twin.
fn defused(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('@', "\u{ff20}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_mentions_nobody_and_is_no_markup() {
        let hostile = "<!channel> @here <https://evil.example|click> & \u{202e}*bold* :fire:";
        let shown = shown(hostile, 500);
        assert!(!shown.contains(['<', '>', '@', '\u{202e}']), "{shown}");
        assert!(shown.contains("&lt;!channel&gt; \u{ff20}here"), "{shown}");
        assert_eq!(cut(&"ä".repeat(11), 10), format!("{} … [cut]", "ä".repeat(10)));
        assert_eq!(cut("short", 10), "short");
    }
}
