//! What verification looks at of a line, borrowed from its bytes. All of the line is read as JSON nevertheless, each text and
//! each number, so that nothing counts as an event that another reader would not take for one. A member that comes twice
//! counts as it came last.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    pub(super) seq: Option<u64>,
    /// `type`
    pub(super) kind: Option<Cow<'a, str>>,
    pub(super) session: Option<Cow<'a, str>>,
    body: Body<'a>,
}

/// Where a sealed blob is, as far as the line says it.
#[derive(Debug, Default)]
pub(super) struct Named<'a> {
    pub(super) segment: Option<u64>,
    pub(super) offset: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) sha256: Option<Cow<'a, str>>,
}

#[derive(Debug, Default)]
struct Body<'a> {
    sql: Option<Named<'a>>,
    parameters: Option<Named<'a>>,
    lists: Option<Named<'a>>,
    sent: Option<Named<'a>>,
}

impl<'a> Line<'a> {
    /// `None`: it is no JSON.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().map(|Read(line)| line)
    }

    /// In the order in which they are looked at.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Named<'a>> {
        let Body { sql, parameters, lists, sent } = &self.body;
        [sql, parameters, lists, sent].into_iter().flatten()
    }
}

/// Takes what it looks for out of any JSON value. What is of another kind than it looks for leaves it as it was.
trait Look<'de>: Default {
    fn text(&mut self, _text: Cow<'de, str>) {}

    fn number(&mut self, _number: u64) {}

    fn member<A: MapAccess<'de>>(&mut self, _name: &str, object: &mut A) -> Result<(), A::Error> {
        object.next_value::<Read<Nothing>>().map(drop)
    }
}

impl<'de> Look<'de> for Line<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, object: &mut A) -> Result<(), A::Error> {
        match name {
            "seq" => self.seq = number(object)?,
            "type" => self.kind = text(object)?,
            "session" => self.session = text(object)?,
            "body" => self.body = value(object)?,
            _ => value::<Nothing, A>(object).map(drop)?,
        }
        Ok(())
    }
}

impl<'de> Look<'de> for Body<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, object: &mut A) -> Result<(), A::Error> {
        match name {
            "sql" => self.sql = Some(value(object)?),
            "parameters" => self.parameters = Some(value(object)?),
            "lists" => self.lists = Some(value(object)?),
            "sent" => self.sent = Some(value(object)?),
            _ => value::<Nothing, A>(object).map(drop)?,
        }
        Ok(())
    }
}

impl<'de> Look<'de> for Named<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, object: &mut A) -> Result<(), A::Error> {
        match name {
            "segment" => self.segment = number(object)?,
            "offset" => self.offset = number(object)?,
            "bytes" => self.bytes = number(object)?,
            "sha256" => self.sha256 = text(object)?,
            _ => value::<Nothing, A>(object).map(drop)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Nothing;

impl Look<'_> for Nothing {}

#[derive(Default)]
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de> Look<'de> for Text<'de> {
    fn text(&mut self, text: Cow<'de, str>) {
        self.0 = Some(text);
    }
}

#[derive(Default)]
struct Number(Option<u64>);

impl Look<'_> for Number {
    fn number(&mut self, number: u64) {
        self.0 = Some(number);
    }
}

fn value<'de, T: Look<'de>, A: MapAccess<'de>>(object: &mut A) -> Result<T, A::Error> {
    object.next_value().map(|Read(value)| value)
}

fn text<'de, A: MapAccess<'de>>(object: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
    value(object).map(|Text(text)| text)
}

fn number<'de, A: MapAccess<'de>>(object: &mut A) -> Result<Option<u64>, A::Error> {
    value(object).map(|Number(number)| number)
}

/// What was taken out of a value.
struct Read<T>(T);

impl<'de, T: Look<'de>> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(Reader(PhantomData)).map(Self)
    }
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Look<'de>> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    /// Below zero only: what is not comes as `u64`.
    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        let mut found = T::default();
        found.number(number);
        Ok(found)
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<T, E> {
        let mut found = T::default();
        found.text(Cow::Borrowed(text));
        Ok(found)
    }

    /// With an escape in it.
    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        let mut found = T::default();
        found.text(Cow::Owned(text.to_owned()));
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        while list.next_element::<Read<Nothing>>()?.is_some() {}
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<T, A::Error> {
        let mut found = T::default();
        while let Some(Read(Text(name))) = object.next_key()? {
            found.member(name.as_deref().unwrap_or_default(), &mut object)?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What a reader of whole values finds in it: number, type, and of each blob its place and digest.
    fn slowly(line: &[u8]) -> Option<String> {
        let event: Value = serde_json::from_slice(line).ok()?;
        let kinds = ["sql", "parameters", "lists", "sent"];
        let blobs: Vec<_> = kinds.iter().filter_map(|kind| event.get("body")?.get(kind)).collect();
        let number = |blob: &Value, member| blob.get(member).and_then(Value::as_u64);
        let blobs: Vec<_> = blobs
            .iter()
            .map(|blob| {
                let sha256 = blob.get("sha256").and_then(Value::as_str);
                (number(blob, "segment"), number(blob, "offset"), number(blob, "bytes"), sha256)
            })
            .collect();
        let seq = event.get("seq").and_then(Value::as_u64);
        Some(format!("{seq:?} {:?} {blobs:?}", event.get("type").and_then(Value::as_str)))
    }

    fn here(line: &[u8]) -> Option<String> {
        let line = Line::parse(line)?;
        let blobs: Vec<_> =
            line.blobs().map(|blob| (blob.segment, blob.offset, blob.bytes, blob.sha256.as_deref())).collect();
        Some(format!("{:?} {:?} {blobs:?}", line.seq, line.kind.as_deref()))
    }

    #[test]
    fn finds_in_any_bytes_what_a_reader_of_whole_values_finds() {
        let deep = format!("{{\"seq\":1,\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        let lines: [&[u8]; 26] = [
            br#"{"body":{"sql":{"bytes":3,"offset":1,"segment":0,"sha256":"00"}},"seq":4,"type":"statement.intent","v":1}"#,
            br#"{"body":{"sent":{"bytes":3},"sql":{"offset":1}},"seq":4,"type":"t\u0079pe"}"#,
            br#"{"body":{"sql":null,"lists":7,"parameters":[{"bytes":1}],"sent":"x"},"seq":4}"#,
            br#"{"body":{"sql":{"bytes":-1,"offset":1.5,"segment":"0","sha256":7}},"seq":4,"type":7}"#,
            br#"{"seq":1,"seq":2,"type":"a","type":"b","body":{"sql":{"bytes":1}},"body":{"sent":{}}}"#,
            br#"{"seq":1,"seq":"2","body":7,"\u0073eq":9}"#,
            br#"{"seq":18446744073709551615}"#,
            br#"{"seq":18446744073709551616}"#,
            br#"{"seq":-0}"#,
            br#"{"seq":1e3}"#,
            br#"{"seq":1,"x":1e999}"#,
            br#"{"seq":1,"x":"\ud800"}"#,
            br#"{"seq":1,"x":"\q"}"#,
            b"{\"seq\":1,\"x\":\"\xff\"}",
            b"{\"seq\":1,\"x\":\"\x01\"}",
            b"{\"seq\":1,\"\xff\":1}",
            br#"{"seq":1} "#,
            br#"{"seq":1}}"#,
            br#"{"seq":1"#,
            br#"{"seq":01}"#,
            br#"[{"seq":1}]"#,
            br#""seq""#,
            b"7",
            b"",
            b"{}",
            deep.as_bytes(),
        ];
        for line in lines {
            assert_eq!(here(line), slowly(line), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn finds_in_a_line_that_was_altered_anywhere_what_a_reader_of_whole_values_finds() {
        let line = br#"{"body":{"digest":"a\n","masked":[{"column":"a.b","n":1.5e3}],"sent":{"bytes":12,"offset":0,"segment":3,"sha256":"ab"},"ok":true},"seq":41,"time":null,"type":"statement.outcome","v":1}"#;
        for at in 0..line.len() {
            for byte in [b'"', b'{', b'}', b',', b':', b'\\', b'0', b'-', b'e', b's', b' ', 0, 0x80] {
                let mut altered = line.to_vec();
                altered[at] = byte;
                assert_eq!(here(&altered), slowly(&altered), "{}", String::from_utf8_lossy(&altered));
            }
            assert_eq!(here(&line[..at]), slowly(&line[..at]));
        }
    }
}
