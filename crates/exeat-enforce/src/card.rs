//! The card: what a human is shown who is asked to let a statement through.
//!
//! Everything the decision rests on, as the gateway saw it: who asks and for whom, the statement, what it reads, what is
//! masked in what it returns, how much has flowed already. The statement, its parameters, the purpose and names are the
//! asker's own words and hostile: whoever shows a card escapes them. A card is bounded; what does not fit is cut, and the
//! card says so, for nobody should approve a statement whose end they have not seen without knowing it.

use std::collections::BTreeMap;

use exeat_policy::{Mode, PrincipalKind};
use serde::{Deserialize, Serialize};

/// Longest card, encoded. The store takes no longer ones.
pub const CARD_BYTES_MAX: usize = 64 * 1024;

/// The form of this version.
pub const CARD_VERSION: u32 = 1;

/// Where texts and lists are cut at first; halved until all of it fits.
const SQL_BYTES_MAX: usize = 32 * 1024;
const TEXT_BYTES_MAX: usize = 2 * 1024;
const LIST_MAX: usize = 256;

/// Below this no text or list is cut any further: names of relations have at most 63 bytes each.
const LEAST: usize = 16;

/// Stands at the end of a text that was cut.
pub const CUT_MARK: &str = " … [cut]";

/// Read leniently: a card outlives the gateway that made it, and a later one may say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub v: u32,
    /// The request as the session's record names it.
    pub request_id: String,
    pub session: String,
    /// The client's own, whole unless `is_cut`.
    pub sql: String,
    /// Something of it was cut: the statement, a parameter, a list.
    #[serde(default)]
    pub is_cut: bool,
    pub parameters: Vec<CardParameter>,
    pub principal: CardPrincipal,
    pub target: String,
    pub database: String,
    /// At the server.
    pub role: String,
    pub causes: Vec<CardCause>,
    /// `schema.relation`, protected ones that rows flow from, then the others.
    pub relations: Vec<String>,
    pub labels: Vec<String>,
    /// What is masked in what it returns.
    pub masks: Vec<CardMask>,
    /// Kept back so far: the result goes on.
    pub so_far: CardVolume,
    /// Rows of each protected relation that this session has been given before.
    pub released_before: BTreeMap<String, u64>,
    pub estimate: Option<CardEstimate>,
    /// Masked rows of those kept back, where policy lets approvers see some.
    pub sample: Option<CardSample>,
    /// What the asker says it is for. Nobody has checked it.
    pub purpose: Option<String>,
    pub mode: CardMode,
}

/// NULL, a text, or of a binary value its size alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CardParameter {
    Null,
    Text(String),
    Binary { bytes: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardPrincipal {
    pub issuer: String,
    /// The human, or the workload.
    pub subject: String,
    /// The agent that acts for it.
    pub actor: Option<String>,
    pub kind: CardKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CardKind {
    Human,
    Workload,
}

impl From<PrincipalKind> for CardKind {
    fn from(kind: PrincipalKind) -> Self {
        match kind {
            PrincipalKind::Human => Self::Human,
            PrincipalKind::Workload => Self::Workload,
        }
    }
}

/// One rule that holds it, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardCause {
    pub rule: String,
    pub relation: Option<String>,
    /// In words: `more than 100 rows`.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardMask {
    pub column: String,
    pub label: String,
    pub mask: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardVolume {
    /// By protected relation.
    pub rows: BTreeMap<String, u64>,
    pub bytes: u64,
}

/// The planner's guess, often wrong by orders of magnitude; nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardEstimate {
    pub rows: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardSample {
    pub columns: Vec<String>,
    /// `None`: NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

/// Whether the client waits on its connection or asks again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CardMode {
    Sync,
    Async,
}

impl From<Mode> for CardMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Sync => Self::Sync,
            Mode::Async => Self::Async,
        }
    }
}

/// How much of texts and lists is kept.
#[derive(Clone, Copy)]
struct Room {
    sql: usize,
    text: usize,
    list: usize,
}

impl Card {
    /// As the store keeps it: JSON of at most [`CARD_BYTES_MAX`] bytes.
    pub fn encoded(mut self) -> Vec<u8> {
        let mut room = Room { sql: SQL_BYTES_MAX, text: TEXT_BYTES_MAX, list: LIST_MAX };
        loop {
            let cut = self.cut(room);
            self.is_cut |= cut;
            // Maps with texts for keys, texts and numbers: nothing that JSON cannot say.
            let bytes = serde_json::to_vec(&self).unwrap_or_default();
            if bytes.len() <= CARD_BYTES_MAX {
                return bytes;
            }
            if room.list == LEAST {
                // Rows wide enough to matter are not what the decision rests on.
                self.sample = None;
            }
            if room.sql == LEAST {
                self.so_far.rows.clear();
                self.released_before.clear();
            }
            room = Room {
                sql: (room.sql / 2).max(LEAST),
                text: (room.text / 2).max(LEAST),
                list: (room.list / 2).max(LEAST),
            };
        }
    }

    pub fn decoded(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Without the rows: for whoever waits for them.
    #[must_use]
    pub fn without_sample(self) -> Self {
        Self { sample: None, ..self }
    }

    /// Says whether anything was cut.
    fn cut(&mut self, room: Room) -> bool {
        // Taken apart, so that a new field does not compile before it is bounded.
        let Self {
            v: _,
            request_id,
            session,
            sql,
            is_cut: _,
            parameters,
            principal: CardPrincipal { issuer, subject, actor, kind: _ },
            target,
            database,
            role,
            causes,
            relations,
            labels,
            masks,
            so_far: CardVolume { rows: so_far, bytes: _ },
            released_before,
            estimate: _,
            sample,
            purpose,
            mode: _,
        } = self;
        let mut cut = cut_text(sql, room.sql);
        for text in [request_id, session, issuer, subject, target, database, role] {
            cut |= cut_text(text, room.text);
        }
        for text in actor.iter_mut().chain(purpose) {
            cut |= cut_text(text, room.text);
        }
        cut |= cut_parameters(parameters, room);
        cut |= cut_list(causes, room, |CardCause { rule, relation, why }, most| {
            let other = relation.as_mut().is_some_and(|relation| cut_text(relation, most));
            cut_text(rule, most) | cut_text(why, most) | other
        });
        cut |= cut_list(relations, room, cut_text) | cut_list(labels, room, cut_text);
        cut |= cut_list(masks, room, |CardMask { column, label, mask }, most| {
            cut_text(column, most) | cut_text(label, most) | cut_text(mask, most)
        });
        cut |= cut_map(so_far, room.list) | cut_map(released_before, room.list);
        if let Some(CardSample { columns, rows }) = sample {
            cut |= cut_list(columns, room, cut_text);
            cut |= cut_list(rows, room, |row, most| {
                let room = Room { text: most, ..room };
                cut_list(row, room, |cell, most| cell.as_mut().is_some_and(|cell| cut_text(cell, most)))
            });
        }
        cut
    }
}

fn cut_parameters(parameters: &mut Vec<CardParameter>, room: Room) -> bool {
    cut_list(parameters, room, |parameter, most| match parameter {
        CardParameter::Text(text) => cut_text(text, most),
        CardParameter::Null | CardParameter::Binary { .. } => false,
    })
}

fn cut_list<T>(list: &mut Vec<T>, room: Room, cut_item: impl Fn(&mut T, usize) -> bool) -> bool {
    let mut cut = list.len() > room.list;
    list.truncate(room.list);
    for item in list {
        cut |= cut_item(item, room.text);
    }
    cut
}

fn cut_map(map: &mut BTreeMap<String, u64>, most: usize) -> bool {
    let cut = map.len() > most;
    while map.len() > most {
        map.pop_last();
    }
    cut
}

fn cut_text(text: &mut String, most: usize) -> bool {
    if text.len() <= most.saturating_add(CUT_MARK.len()) {
        return false;
    }
    // What was cut before ends in a mark already.
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.truncate(end);
    text.push_str(CUT_MARK);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card {
            v: CARD_VERSION,
            request_id: "req_1".to_owned(),
            session: "s".to_owned(),
            sql: "SELECT * FROM customers WHERE id > $1".to_owned(),
            is_cut: false,
            parameters: vec![
                CardParameter::Null,
                CardParameter::Text("7".to_owned()),
                CardParameter::Binary { bytes: 4 },
            ],
            principal: CardPrincipal {
                issuer: "https://idp.example.com".to_owned(),
                subject: "ann".to_owned(),
                actor: Some("agent-7".to_owned()),
                kind: CardKind::Human,
            },
            target: "shop".to_owned(),
            database: "shop".to_owned(),
            role: "shop_reader".to_owned(),
            causes: vec![CardCause {
                rule: "bulk".to_owned(),
                relation: Some("public.customers".to_owned()),
                why: "more than 100 rows".to_owned(),
            }],
            relations: vec!["public.customers".to_owned()],
            labels: vec!["email".to_owned()],
            masks: vec![CardMask { column: "email".to_owned(), label: "email".to_owned(), mask: "redact".to_owned() }],
            so_far: CardVolume { rows: BTreeMap::from([("public.customers".to_owned(), 101)]), bytes: 9000 },
            released_before: BTreeMap::new(),
            estimate: Some(CardEstimate { rows: 500 }),
            sample: Some(CardSample {
                columns: vec!["id".to_owned()],
                rows: vec![vec![Some("1".to_owned())], vec![None]],
            }),
            purpose: None,
            mode: CardMode::Sync,
        }
    }

    #[test]
    fn a_card_comes_back_as_it_was_and_a_later_one_may_say_more() {
        let bytes = card().encoded();
        assert_eq!(Card::decoded(&bytes), Some(card()));
        let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["parameters"], serde_json::json!([null, "7", {"bytes": 4}]));
        value["later"] = serde_json::json!({"x": 1});
        assert_eq!(Card::decoded(value.to_string().as_bytes()), Some(card()));
        assert_eq!(Card::decoded(b"SELECT 1"), None);
        assert_eq!(card().without_sample().sample, None);
    }

    #[test]
    fn whatever_is_in_it_a_card_fits_and_says_that_it_was_cut() {
        let long = "\u{1}ä".repeat(40_000);
        let texts = |count: usize| vec![long.clone(); count];
        let huge = [
            Card { sql: long.clone(), ..card() },
            Card { parameters: vec![CardParameter::Text(long.clone()); 300], ..card() },
            Card { relations: texts(300), ..card() },
            Card { purpose: Some(long.clone()), role: long.clone(), ..card() },
            Card {
                sample: Some(CardSample { columns: texts(1), rows: vec![vec![Some("\u{1}".repeat(90)); 1600]; 10] }),
                ..card()
            },
            Card { released_before: (0..5000).map(|number| (format!("public.{number:060}"), 1)).collect(), ..card() },
        ];
        for (number, card) in huge.into_iter().enumerate() {
            let bytes = card.encoded();
            assert!(!bytes.is_empty() && bytes.len() <= CARD_BYTES_MAX, "{number}: {}", bytes.len());
            assert!(Card::decoded(&bytes).unwrap().is_cut, "{number}");
        }
        let cut = Card::decoded(&Card { sql: long, ..card() }.encoded()).unwrap();
        assert!(cut.sql.ends_with(CUT_MARK) && cut.sql.len() > 4096, "{}", cut.sql.len());
    }
}
