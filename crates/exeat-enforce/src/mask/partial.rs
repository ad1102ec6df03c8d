//! The ends of a text, the rest as stars.

/// First and last characters, one `*` for each between. Where a value is too short to show them and still hide
/// half of itself, both ends give way in proportion.
pub(super) fn partial(text: &str, first: usize, last: usize, padded: bool, out: &mut Vec<u8>) {
    let value = if padded { text.trim_end_matches(' ') } else { text };
    let padding = text.strip_prefix(value).unwrap_or_default();
    let length = value.chars().count();
    let (first, last) = shown(length, first, last);
    let hidden = length.saturating_sub(first).saturating_sub(last);
    let mut rest = value.chars();
    let mut buffer = [0; 4];
    for character in rest.by_ref().take(first) {
        out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
    }
    out.extend(std::iter::repeat_n(b'*', hidden));
    for character in rest.skip(hidden) {
        out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
    }
    out.extend_from_slice(padding.as_bytes());
}

/// How many characters of each end are shown: as asked for, or half of the value in sum, rounded down.
pub(super) fn shown(length: usize, first: usize, last: usize) -> (usize, usize) {
    let half = length / 2;
    let asked = first.saturating_add(last);
    if asked <= half {
        return (first, last);
    }
    // `asked` is above 0 here: it is above half.
    let first = half.saturating_mul(first) / asked;
    (first, half.saturating_sub(first))
}
