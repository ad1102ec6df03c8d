//! A session told statement by statement: what was asked, what was decided and why, how it ended. Outcomes are put to the
//! statement they belong to; everything else stands where it happened.

use std::collections::HashMap;

use exeat_store::index::{Index, SessionEvents, SessionRow};
use exeat_store::keys::KeySet;
use exeat_store::read::{BlobKind, Event};
use serde_json::{Map, Value, json};

use super::RecordError;

/// Of one session's texts and parameters so much is told whole; behind that long ones are cut. A client can have a megabyte of spaces
/// run ten thousand times, and whoever reads that must not need the memory for it.
const WHOLE_BYTES_MAX: usize = 64 * 1024 * 1024;
const CUT_BYTES: usize = 4 * 1024;

/// A statement and its outcomes.
#[derive(Debug)]
pub(crate) struct Telling {
    pub(crate) event: Event,
    /// The body, with lists that were sealed for their length in their place.
    pub(crate) body: Map<String, Value>,
    /// Bodies of its outcomes, in order.
    pub(crate) outcomes: Vec<Value>,
    /// With keys, unless it was erased.
    pub(crate) text: Option<String>,
    pub(crate) parameters: Option<Value>,
}

#[derive(Debug)]
pub(crate) enum Step {
    Statement(Box<Telling>),
    Other(Event),
}

#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) session: SessionRow,
    pub(crate) steps: Vec<Step>,
    /// Whether keys were given: texts that are missing then cannot be read.
    pub(crate) has_keys: bool,
}

impl Telling {
    pub(crate) fn text_of(&self, member: &str) -> &str {
        self.body.get(member).and_then(Value::as_str).unwrap_or("")
    }

    pub(crate) fn list(&self, member: &str) -> Vec<&str> {
        let items = self.body.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).collect()
    }

    /// Column, label, mask.
    pub(crate) fn masked(&self) -> Vec<(&str, &str, &str)> {
        let items = self.body.get("masked").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .map(|item| {
                let member = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or("");
                (member("column"), member("label"), member("mask"))
            })
            .collect()
    }

    pub(crate) fn sum(&self, member: &str) -> u64 {
        self.outcomes.iter().filter_map(|outcome| outcome.get(member).and_then(Value::as_u64)).sum()
    }

    /// Of the last outcome that has it.
    pub(crate) fn last(&self, member: &str) -> Option<&str> {
        self.outcomes.iter().rev().find_map(|outcome| outcome.get(member).and_then(Value::as_str))
    }

    pub(crate) fn result(&self) -> &str {
        match (self.event.kind(), self.text_of("decision"), self.last("result")) {
            ("statement.parse", _, _) => "parsed",
            (_, "refuse", None) => "refused",
            (_, _, Some(result)) => result,
            (_, _, None) => "not answered",
        }
    }

    /// By the decision, or later: while it was held, or at a limit.
    pub(crate) fn is_refused(&self) -> bool {
        self.text_of("decision") == "refuse" || self.result() == "refused"
    }

    pub(crate) fn json(&self) -> Value {
        let mut shown = self.body.clone();
        for sealed in ["sql", "parameters", "lists", "digest"] {
            shown.remove(sealed);
        }
        shown.insert("seq".to_owned(), self.event.seq().into());
        shown.insert("time".to_owned(), self.event.time().into());
        shown.insert("result".to_owned(), self.result().into());
        shown.insert("outcomes".to_owned(), self.outcomes.clone().into());
        if let Some(text) = &self.text {
            shown.insert("sql".to_owned(), text.as_str().into());
        }
        if let Some(parameters) = &self.parameters {
            shown.insert("parameters".to_owned(), parameters.clone());
        }
        shown.into()
    }
}

impl Story {
    pub(crate) fn tell(
        index: &Index,
        session: SessionRow,
        events: &SessionEvents,
        keys: Option<&KeySet>,
    ) -> Result<Self, RecordError> {
        let mut room = Room { left: WHOLE_BYTES_MAX };
        let mut steps = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        // Who decided stands between what was asked and what came of it.
        let mut all: Vec<&Event> = events.events.iter().chain(&events.approvals).collect();
        all.sort_by_key(|event| event.seq());
        for event in all {
            let request = event.body("request_id").and_then(Value::as_str).unwrap_or("").to_owned();
            match event.kind() {
                "statement.intent" | "statement.parse" => {
                    if event.kind() == "statement.intent" {
                        places.insert(request, steps.len());
                    }
                    let telling = statement((index, keys), &session, event, &mut room)?;
                    steps.push(Step::Statement(Box::new(telling)));
                }
                "statement.outcome" => {
                    let place = places.get(&request).and_then(|place| steps.get_mut(*place));
                    let body = event.value().get("body").cloned().unwrap_or(Value::Null);
                    match place {
                        Some(Step::Statement(telling)) => telling.outcomes.push(body),
                        // Of a statement that the log has no more.
                        _ => steps.push(Step::Other(event.clone())),
                    }
                }
                _ => steps.push(Step::Other(event.clone())),
            }
        }
        Ok(Self { session, steps, has_keys: keys.is_some() })
    }

    pub(crate) fn statements(&self) -> impl Iterator<Item = &Telling> {
        self.steps.iter().filter_map(|step| match step {
            Step::Statement(telling) => Some(telling.as_ref()),
            Step::Other(_) => None,
        })
    }

    /// Why a text is not there.
    pub(crate) fn without_text(&self) -> &'static str {
        match (self.session.erased, self.has_keys) {
            (true, _) => "erased",
            (false, true) => "not readable",
            (false, false) => "sealed",
        }
    }
}

/// What is left for texts that are told whole.
struct Room {
    left: usize,
}

impl Room {
    fn told(&mut self, mut text: String) -> String {
        let whole = text.len();
        match self.left.checked_sub(whole) {
            Some(left) => self.left = left,
            None if whole <= CUT_BYTES => {}
            None => {
                text.truncate(text.floor_char_boundary(CUT_BYTES));
                text.shrink_to_fit();
                text.push_str(&format!(" [… {whole} bytes; `exeat sessions replay` has them all]"));
            }
        }
        text
    }
}

fn statement(
    (index, keys): (&Index, Option<&KeySet>),
    session: &SessionRow,
    event: &Event,
    room: &mut Room,
) -> Result<Telling, RecordError> {
    let body = event.value().get("body").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut telling = Telling { event: event.clone(), body, outcomes: Vec::new(), text: None, parameters: None };
    let Some(keys) = keys else { return Ok(telling) };
    telling.text = index.text(session, event, keys)?.map(|text| room.told(text));
    let unsealed = |kind| -> Result<Option<String>, RecordError> {
        let Some(blob) = event.blob(kind) else { return Ok(None) };
        let plain = index.unseal(session, &blob, keys)?;
        Ok(plain.and_then(|plain| String::from_utf8(plain).ok()))
    };
    telling.parameters = unsealed(BlobKind::Parameters)?.and_then(|list| {
        let told = room.told(list);
        // One that was cut is no list any more.
        serde_json::from_str(&told).ok().or(Some(Value::String(told)))
    });
    let lists = unsealed(BlobKind::Lists)?.and_then(|lists| serde_json::from_str(&lists).ok());
    if let Some(Value::Object(lists)) = lists {
        telling.body.extend(lists);
    }
    Ok(telling)
}

/// A session as JSON: the same in a list, alone and in an export.
pub(crate) fn session_json(session: &SessionRow) -> Value {
    json!({
        "session": session.session,
        "principal": session.principal,
        "target": session.target,
        "database": session.database,
        "login": session.login,
        "application_name": session.application,
        "source": session.source,
        "begun": session.first_at.to_string(),
        "last": session.last_at.to_string(),
        "ended": session.ended,
        "statements": session.statements,
        "refused": session.refused,
        "failed": session.failed,
        "rows": session.rows,
        "erased": session.erased,
        "first_seq": session.first_seq,
        "gone_before": session.gone_before,
        "last_seq": session.last_seq,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_once_there_is_no_room_and_short_ones_never() {
        let mut room = Room { left: 10_000 };
        let long = "ä".repeat(4_000);
        assert_eq!(room.told(long.clone()), long);
        let cut = room.told(long.clone());
        assert!(
            cut.starts_with(&"ä".repeat(CUT_BYTES / 2)) && cut.len() < CUT_BYTES + 100 && cut.contains("8000 bytes"),
            "{cut}"
        );
        assert_eq!(room.told("short".repeat(500)), "short".repeat(500));
        assert!(room.told(format!("a{long}")).starts_with("aä"), "cut between characters");
    }
}
