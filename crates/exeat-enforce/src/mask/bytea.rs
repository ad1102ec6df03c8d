//! bytea in text format: read in both of the server's forms, for a client may choose by `bytea_output`, and written
//! in the hex form, which every server and driver reads.

/// `None`: not as a server writes it.
pub(super) fn read(text: &[u8]) -> Option<Vec<u8>> {
    match text.strip_prefix(b"\\x") {
        Some(digits) => digits.chunks(2).map(pair).collect(),
        None => escaped(text),
    }
}

pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    write_hex(bytes, out);
}

pub(super) fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

pub(super) fn pair(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    Some(nibble(*high)? << 4 | nibble(*low)?)
}

fn escaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        if let Some(tail) = rest.strip_prefix(b"\\") {
            out.push(b'\\');
            rest = tail;
            continue;
        }
        let (octal, tail) = rest.split_first_chunk::<3>()?;
        let digit = |sum: u16, digit: &u8| Some(sum * 8 + u16::try_from(char::from(*digit).to_digit(8)?).ok()?);
        out.push(u8::try_from(octal.iter().try_fold(0, digit)?).ok()?);
        rest = tail;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_the_same_bytes() {
        for (text, bytes) in [
            (&b"\\x00ff5c"[..], &b"\x00\xff\\"[..]),
            (b"\\000\\377\\\\", b"\x00\xff\\"),
            (b"\\x", b""),
            (b"", b""),
            (b"\\\\x41", b"\\x41"),
        ] {
            assert_eq!(read(text).as_deref(), Some(bytes));
            let mut out = Vec::new();
            write(bytes, &mut out);
            assert_eq!(read(&out).as_deref(), Some(bytes));
        }
        for broken in [&b"\\x0"[..], b"\\xzz", b"\\", b"\\12", b"\\400", b"\\+12"] {
            assert_eq!(read(broken), None, "{broken:?}");
        }
    }
}
