//! Bytes as lower-case hex digits, the way digests and keys stand in files.

pub(crate) fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    // Written in place, pair by pair: a digest of a statement is worded for every line.
    let start = out.len();
    out.resize(start + bytes.len() * 2, b'0');
    let (pairs, _) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0x0f)];
    }
}

fn digit(nibble: u8) -> u8 {
    nibble + if nibble < 10 { b'0' } else { b'a' - 10 }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    push(&mut out, bytes);
    String::from_utf8_lossy(&out).into_owned()
}

/// `None` unless `text` is exactly `N` bytes in hex digits.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            *byte = (*byte << 4) | value(*digit)?;
        }
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_it_writes_and_nothing_of_another_length() {
        let bytes = [0, 1, 0x7f, 0x80, 0xff];
        assert_eq!(text(&bytes), "00017f80ff");
        assert_eq!(decode::<5>("00017F80ff"), Some(bytes));
        assert_eq!(decode::<5>("00017f80f"), None);
        assert_eq!(decode::<4>("00017f80ff"), None);
        assert_eq!(decode::<5>("00017f80fg"), None);
    }
}
