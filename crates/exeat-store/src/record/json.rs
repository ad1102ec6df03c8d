//! JSON into a reused buffer: keys in the order they are given (callers give them sorted), strings escaped exactly
//! as serde_json does, so that a line parsed and written again is the same line.

/// Longest single text in a clear line. Names are 63 bytes in PostgreSQL; what is longer is cut and marked.
pub(crate) const TEXT_BYTES_MAX: usize = 512;

const CUT_MARK: &str = "…";

/// Writes `{…}`.
pub(crate) fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    write(&mut Object { out, first: true });
    out.push(b'}');
}

/// Members for the middle of an object: each with a comma in front.
pub(crate) fn fragment(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    write(&mut Object { out, first: false });
}

pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    /// The buffer, after the key: the caller appends one value. Keys are ours and need no escape.
    pub(crate) fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if std::mem::take(&mut self.first) { b"\"" } else { b",\"" });
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// How far the buffer goes.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// A member named by somebody else.
    pub(crate) fn named(&mut self, name: &str, value: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        bounded(self.out, name);
        self.out.push(b':');
        bounded(self.out, value);
    }

    pub(crate) fn text(&mut self, key: &'static str, value: &str) {
        bounded(self.key(key), value);
    }

    pub(crate) fn optional(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    pub(crate) fn number(&mut self, key: &'static str, value: impl Into<u64>) {
        number(self.key(key), value.into());
    }

    pub(crate) fn signed(&mut self, key: &'static str, value: i32) {
        let out = self.key(key);
        if value < 0 {
            out.push(b'-');
        }
        number(out, u64::from(value.unsigned_abs()));
    }

    pub(crate) fn boolean(&mut self, key: &'static str, value: bool) {
        self.key(key).extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(crate) fn object(&mut self, key: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        object(self.key(key), write);
    }

    pub(crate) fn texts<'t>(&mut self, key: &'static str, values: impl IntoIterator<Item = &'t str>) {
        list(self.key(key), values, bounded);
    }
}

pub(crate) fn list<T>(out: &mut Vec<u8>, values: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    let mut first = true;
    for value in values {
        if !first {
            out.push(b',');
        }
        first = false;
        write(out, value);
    }
    out.push(b']');
}

pub(crate) fn number(out: &mut Vec<u8>, value: u64) {
    // As many digits as the largest number has.
    let mut digits = [b'0'; 20];
    let mut left = value;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
        used += 1;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// A string of at most `TEXT_BYTES_MAX` bytes.
pub(crate) fn bounded(out: &mut Vec<u8>, text: &str) {
    if text.len() <= TEXT_BYTES_MAX {
        return string(out, text);
    }
    let mut kept = String::with_capacity(TEXT_BYTES_MAX);
    for character in text.chars() {
        if kept.len() + character.len_utf8() + CUT_MARK.len() > TEXT_BYTES_MAX {
            break;
        }
        kept.push(character);
    }
    kept.push_str(CUT_MARK);
    string(out, &kept);
}

/// Whether a name stands in lines as it is: one that was cut there is no name, for several may look like it.
pub(crate) fn is_whole(name: &str) -> bool {
    let may_be_cut = name.ends_with(CUT_MARK) && name.len() + char::MAX.len_utf8() > TEXT_BYTES_MAX;
    name.len() <= TEXT_BYTES_MAX && !may_be_cut
}

pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Looks at every byte whatever it finds: that way the compiler takes many at a time.
    let escapes = text.bytes().fold(false, |any, byte| any | (byte < 0x20) | (byte == b'"') | (byte == b'\\'));
    if !escapes {
        out.extend_from_slice(text.as_bytes());
    } else {
        for byte in text.bytes() {
            escaped(out, byte);
        }
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        0x00..=0x1f => {
            out.extend_from_slice(b"\\u00");
            crate::hex::push(out, &[byte]);
            return;
        }
        _ => {
            out.push(byte);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_serde_json_does() {
        let every: String = (0..0x250).filter_map(char::from_u32).chain("😀\u{2028}".chars()).collect();
        let mut out = Vec::new();
        string(&mut out, &every);
        assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&every).unwrap());
    }

    #[test]
    fn long_texts_are_cut_at_a_character_and_marked() {
        for text in ["x".repeat(TEXT_BYTES_MAX), "é".repeat(TEXT_BYTES_MAX), "😀".repeat(TEXT_BYTES_MAX)] {
            let mut out = Vec::new();
            bounded(&mut out, &text);
            let back: String = serde_json::from_slice(&out).unwrap();
            assert!(back.len() <= TEXT_BYTES_MAX);
            assert_eq!(back == text, text.len() <= TEXT_BYTES_MAX);
            assert_eq!(back.ends_with(CUT_MARK), back != text);
        }
    }

    #[test]
    fn objects_hold_what_was_written() {
        let mut out = Vec::new();
        object(&mut out, |o| {
            o.object("a", |inner| inner.named("x\"", "y"));
            o.boolean("b", true);
            o.texts("c", ["x", "{"]);
            o.number("d", u64::MAX);
            o.optional("e", None);
            o.text("f", "{");
            o.signed("g", i32::MIN);
            o.number("h", 0_u64);
        });
        let expected =
            r#"{"a":{"x\"":"y"},"b":true,"c":["x","{"],"d":18446744073709551615,"f":"{","g":-2147483648,"h":0}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
