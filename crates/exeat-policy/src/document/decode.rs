//! Reading values out of nodes: each helper names what was expected and what stands there, and goes on.
//! `None` always means that a diagnostic was pushed. Messages name kinds, not values: a value may be a secret
//! written in the wrong place.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::suggest::closest;
use super::{Entry, Node, Value};

impl Node {
    /// What stands here, for messages: "a string", "a list".
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::String(_) => "a string",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// Reads a mapping whose keys the format fixes.
    pub fn mapping(&self, diags: &mut Diagnostics) -> Option<MappingReader<'_>> {
        let entries = self.entries(diags)?;
        Some(MappingReader { node: self, entries, known: Vec::new() })
    }

    /// Reads a mapping whose keys the user chooses.
    pub fn entries(&self, diags: &mut Diagnostics) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => self.expected("a mapping", diags),
        }
    }

    /// Text that is not empty and holds no control characters.
    pub fn as_string(&self, diags: &mut Diagnostics) -> Option<&str> {
        let text = self.as_text(diags)?;
        if text.is_empty() {
            diags.error(&self.span, format!("{} is empty", self.subject()));
            return None;
        }
        if text.contains(char::is_control) {
            diags.error(&self.span, format!("{} contains a line break or control character", self.subject()));
            return None;
        }
        Some(text)
    }

    /// Any text: it may be empty or span lines.
    pub fn as_text(&self, diags: &mut Diagnostics) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                self.mismatch("a string", diags).help("quote it to make it text");
                None
            }
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => self.expected("a string", diags),
        }
    }

    pub fn as_bool(&self, diags: &mut Diagnostics) -> Option<bool> {
        match &self.value {
            Value::Bool(value) => Some(*value),
            _ => self.expected("true or false", diags),
        }
    }

    /// A whole number within bounds, both included.
    pub fn as_integer(&self, range: RangeInclusive<i64>, diags: &mut Diagnostics) -> Option<i64> {
        let Value::Integer(number) = &self.value else { return self.expected("a whole number", diags) };
        if range.contains(number) {
            return Some(*number);
        }
        let (first, last) = (range.start(), range.end());
        diags.error(&self.span, format!("{} is {number}, it must be from {first} to {last}", self.subject()));
        None
    }

    /// A list; it may be empty.
    pub fn as_list(&self, diags: &mut Diagnostics) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            Value::String(_) => {
                self.mismatch("a list", diags).help("put it in brackets: [...]");
                None
            }
            _ => self.expected("a list", diags),
        }
    }

    /// A list of at least one string (see [`Node::as_string`]), each once.
    pub fn as_strings(&self, diags: &mut Diagnostics) -> Option<Vec<String>> {
        let items = self.as_list(diags)?;
        if items.is_empty() {
            diags
                .error(&self.span, format!("{} is an empty list", self.subject()))
                .help("name at least one, or leave it out");
            return None;
        }
        let mut strings: Vec<String> = Vec::new();
        let mut complete = true;
        for item in items {
            let Some(text) = item.as_string(diags) else {
                complete = false;
                continue;
            };
            if strings.iter().any(|seen| seen == text) {
                diags.error(&item.span, format!("`{text}` stands here twice"));
                complete = false;
            }
            strings.push(text.to_owned());
        }
        complete.then_some(strings)
    }

    /// One of a closed list of names, each with its meaning.
    pub fn one_of<T: Copy>(&self, choices: &[(&str, T)], diags: &mut Diagnostics) -> Option<T> {
        let text = self.as_string(diags)?;
        if let Some((_, meaning)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*meaning);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let help = match closest(text, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("one of: {}", names.join(", ")),
        };
        diags.error(&self.span, format!("{} has no choice `{text}`", self.subject())).help(help);
        None
    }

    /// A length of time with its unit: `500ms`, `120s`, `15m`, `24h`, `7d`.
    pub fn as_duration(&self, diags: &mut Diagnostics) -> Option<Duration> {
        const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        self.quantity(UNITS, "a duration such as 500ms, 120s, 15m, 24h or 7d", diags).map(Duration::from_millis)
    }

    /// A size with its unit: `512B`, `64KiB`, `1MiB`, `2GiB`.
    pub fn as_bytes(&self, diags: &mut Diagnostics) -> Option<u64> {
        const UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        self.quantity(UNITS, "a size such as 512B, 64KiB, 1MiB or 2GiB", diags)
    }

    /// The same value as JSON, to compare with claims of a token.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::String(text) => text.as_str().into(),
            Value::Sequence(items) => items.iter().map(Node::to_json).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// The object of a message: the key this value stands under.
    pub fn subject(&self) -> String {
        match (&self.key, self.item) {
            (Some(key), false) => format!("`{key}`"),
            (Some(key), true) => format!("an item of `{key}`"),
            (None, false) => "the file".to_owned(),
            (None, true) => "an item of the file".to_owned(),
        }
    }

    /// Pushes "`key` must be …, not …".
    pub fn expected<T>(&self, what: &str, diags: &mut Diagnostics) -> Option<T> {
        self.mismatch(what, diags);
        None
    }

    fn mismatch<'d>(&self, what: &str, diags: &'d mut Diagnostics) -> &'d mut Diagnostic {
        diags.error(&self.span, format!("{} must be {what}, not {}", self.subject(), self.kind()))
    }

    fn quantity(&self, units: &[(&str, u64)], what: &str, diags: &mut Diagnostics) -> Option<u64> {
        let text = match &self.value {
            Value::String(text) => text.as_str(),
            _ => return self.expected(what, diags),
        };
        let digits = text.chars().take_while(char::is_ascii_digit).count();
        let amount = text.split_at_checked(digits).and_then(|(number, unit)| {
            let factor = units.iter().find(|(name, _)| *name == unit)?.1;
            number.parse::<u64>().ok()?.checked_mul(factor)
        });
        if amount.is_none() {
            diags.error(&self.span, format!("{} must be {what}", self.subject()));
        }
        amount
    }
}

/// Takes a mapping apart key by key and reports what nobody asked for.
#[derive(Debug)]
pub struct MappingReader<'a> {
    node: &'a Node,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

impl<'a> MappingReader<'a> {
    /// The mapping itself, for diagnostics about it as a whole.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    pub fn required(&mut self, key: &'static str, diags: &mut Diagnostics) -> Option<&'a Node> {
        let found = self.optional(key);
        if found.is_none() {
            diags.error(&self.node.span, format!("{} lacks the key `{key}`", self.node.subject()));
        }
        found
    }

    pub fn optional(&mut self, key: &'static str) -> Option<&'a Node> {
        self.optional_entry(key).map(|entry| &entry.value)
    }

    /// Like [`MappingReader::optional`], with the place of the key.
    pub fn optional_entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Keys the format has but this version cannot honour: an obligation not understood must not load.
    pub fn unsupported(&mut self, keys: &[&'static str], diags: &mut Diagnostics) {
        for key in keys {
            if let Some(entry) = self.optional_entry(key) {
                diags
                    .error(&entry.key_span, format!("`{key}` is not supported by this version"))
                    .help("remove it; loading without it would enforce less than is written here");
            }
        }
    }

    /// Reports every key that was not asked for.
    pub fn finish(self, diags: &mut Diagnostics) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let help = match closest(&entry.key, self.known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            diags.error(&entry.key_span, format!("unknown key `{}` in {}", entry.key, self.node.subject())).help(help);
        }
    }
}
