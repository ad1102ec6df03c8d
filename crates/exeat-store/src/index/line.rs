//! What the index reads of a line: borrowed from its bytes, lists left as they stand. The body is read by its type, so
//! that a type of event nobody here knows is a line of its session and nothing else.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    pub(super) seq: u64,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) session: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) source: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) target: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) principal: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) policy: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) body: Option<&'a RawValue>,
}

impl<'a> Line<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The body, as events of this type have it; without what does not read as that.
    pub(super) fn body<T: Deserialize<'a> + Default>(&self) -> T {
        self.body.and_then(|body| serde_json::from_str(body.get()).ok()).unwrap_or_default()
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Start<'a> {
    #[serde(borrow, default)]
    pub(super) database: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) login: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) application_name: Cow<'a, str>,
    pub(super) data_key: Option<KeySlot>,
    /// Of a start that was carried: where it stood, and when.
    pub(super) start_seq: Option<u64>,
    #[serde(borrow, default)]
    pub(super) started: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeySlot {
    pub(super) slot: u64,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Statement<'a> {
    #[serde(borrow, default)]
    pub(super) request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) decision: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) code: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) digest: Cow<'a, str>,
    /// Of the text, where it is not UTF-8.
    #[serde(borrow, default)]
    pub(super) encoding: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) columns: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) kinds: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) masked: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) relations: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) rules: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) touched: Option<&'a RawValue>,
    /// The lists above, where they did not fit.
    pub(super) lists: Option<Sealed>,
    pub(super) sql: Option<Sealed>,
}

/// Where a sealed blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Sealed {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// The lists of a statement.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Lists {
    pub(super) columns: Vec<String>,
    pub(super) kinds: Vec<String>,
    pub(super) masked: Vec<Masked>,
    pub(super) relations: Vec<String>,
    pub(super) rules: Vec<String>,
    pub(super) touched: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Masked {
    pub(super) column: String,
    pub(super) label: String,
    pub(super) mask: String,
}

impl Lists {
    pub(super) fn of(statement: &Statement<'_>) -> Self {
        fn read<T: for<'de> Deserialize<'de> + Default>(raw: Option<&RawValue>) -> T {
            raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
        }
        Self {
            columns: read(statement.columns),
            kinds: read(statement.kinds),
            masked: read(statement.masked),
            relations: read(statement.relations),
            rules: read(statement.rules),
            touched: read(statement.touched),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Outcome<'a> {
    #[serde(borrow, default)]
    pub(super) request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) result: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) sqlstate: Cow<'a, str>,
    #[serde(default)]
    pub(super) last: bool,
    #[serde(default)]
    pub(super) rows: u64,
    #[serde(default)]
    pub(super) duration_us: u64,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct End<'a> {
    #[serde(borrow, default)]
    pub(super) reason: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Approval<'a> {
    #[serde(borrow, default)]
    pub(super) approval: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Recovery {
    pub(super) unknown: Vec<Unknown>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Unknown {
    pub(super) seq: u64,
    pub(super) session: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PolicyChange {
    pub(super) accepted: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Policy {
    pub(super) version: u64,
    pub(super) sha256: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Principal {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) actor: String,
    pub(super) groups: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_an_unknown_type_is_still_a_line_of_its_session() {
        let bytes =
            br#"{"body":{"sql":7,"rows":"many"},"gateway":"g","seq":4,"session":"s","time":"t","type":"later","v":1}"#;
        let line = Line::parse(bytes).unwrap();
        assert_eq!((line.seq, line.session.as_ref(), line.kind.as_ref()), (4, "s", "later"));
        assert_eq!(line.body::<Outcome<'_>>().rows, 0);
        assert!(Line::parse(b"{\"seq\":4}").is_none());
    }

    #[test]
    fn lists_are_read_as_they_stand() {
        let bytes = br#"{"body":{"columns":["a.b.c"],"decision":"allow","masked":[{"column":"a.b.c","label":"l","mask":"m"}],"relations":["a.b"],"sql":{"bytes":3,"offset":1,"segment":0,"sha256":"00"}},"seq":4,"time":"t","type":"statement.intent"}"#;
        let line = Line::parse(bytes).unwrap();
        let statement: Statement<'_> = line.body();
        let lists = Lists::of(&statement);
        assert_eq!(
            (lists.columns.as_slice(), lists.masked.len(), lists.rules.len()),
            (&["a.b.c".to_owned()][..], 1, 0)
        );
        assert_eq!(statement.sql, Some(Sealed { segment: 0, offset: 1, bytes: 3 }));
    }
}
