//! Hostile text made visible. A statement, a name or a purpose may hold what moves a terminal's cursor, turns the
//! direction of what stands beside it, or shows nothing at all; whoever decides by such a text must see what is there.

use std::fmt::Write;

/// On one line: whatever is not a plain character stands there as `\u{…}`.
pub(crate) fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        push(character, &mut out);
    }
    out
}

/// Line by line, tabs kept.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = String> {
    text.split('\n').map(|part| {
        let mut out = String::with_capacity(part.len());
        for character in part.strip_suffix('\r').unwrap_or(part).chars() {
            match character {
                '\t' => out.push('\t'),
                other => push(other, &mut out),
            }
        }
        out
    })
}

fn push(character: char, out: &mut String) {
    if is_hidden(character) {
        // Writing to a string does not fail.
        let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
    } else {
        out.push(character);
    }
}

/// Shows nothing of itself, or changes how others show: controls, direction, joiners, fillers, tags, variation, private
/// use. Spaces that look like another are among them.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || (character.is_whitespace() && character != ' ')
        || matches!(
            u32::from(character),
            0xad | 0x34f
                | 0x61c
                | 0x115f..=0x1160
                | 0x17b4..=0x17b5
                | 0x180b..=0x180f
                | 0x200b..=0x200f
                | 0x2028..=0x202e
                | 0x2060..=0x206f
                | 0x2800
                | 0x3164
                | 0xe000..=0xf8ff
                | 0xfe00..=0xfe0f
                | 0xfeff
                | 0xffa0
                | 0xfff0..=0xffff
                | 0x1bca0..=0x1bca3
                | 0x1d173..=0x1d17a
                | 0xe0000..=0x10ffff
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_would_see_is_seen() {
        for (text, expected) in [
            ("SELECT 'ä' -- ok", "SELECT 'ä' -- ok"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("id\u{202e}drop", "id\\u{202e}drop"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("a\r\nb", "a\\u{d}\\u{a}b"),
            ("x\u{a0}y", "x\\u{a0}y"),
            ("t\u{e0041}", "t\\u{e0041}"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(line(text), expected, "{text:?}");
        }
        let shown: Vec<String> = lines("SELECT\r\n\t1 \u{7}\n-- who: boss").collect();
        assert_eq!(shown, ["SELECT", "\t1 \\u{7}", "-- who: boss"]);
    }
}
