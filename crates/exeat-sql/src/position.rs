//! Byte offsets to the positions PostgreSQL reports: characters, counted from 1.

/// Characters are counted once per this many bytes; a position then costs at most one such stretch.
const STRETCH_BYTES: usize = 1024;

#[derive(Debug)]
pub(crate) struct Positions<'t> {
    text: &'t str,
    /// Characters before each stretch; empty for ASCII text, where bytes are characters.
    before: Vec<usize>,
}

impl<'t> Positions<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let mut before = Vec::new();
        if !text.is_ascii() {
            let mut characters = 0;
            for stretch in text.as_bytes().chunks(STRETCH_BYTES) {
                before.push(characters);
                characters += starts(stretch);
            }
        }
        Self { text, before }
    }

    /// `None` for the parser's "no position".
    pub(crate) fn character(&self, byte: i32) -> Option<usize> {
        let byte = usize::try_from(byte).ok()?;
        if self.before.is_empty() {
            return Some(byte + 1);
        }
        let stretch = byte / STRETCH_BYTES;
        let inside = self.text.as_bytes().get(stretch * STRETCH_BYTES..byte)?;
        Some(self.before.get(stretch)? + starts(inside) + 1)
    }
}

/// Bytes that begin a character.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| !matches!(byte, 0x80..=0xBF)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_characters_not_bytes() {
        let text = format!("{}x", "é".repeat(2000));
        assert_eq!(Positions::new(&text).character(4000), Some(2001));
        assert_eq!(Positions::new("abc").character(2), Some(3));
        assert_eq!(Positions::new("é").character(-1), None);
        assert_eq!(Positions::new("é").character(9), None);
    }
}
