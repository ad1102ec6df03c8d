//! Masks: what stands in a sealed cell instead of its value, valid in the column's type and in the cell's format.
//! Pure. A type that a mask cannot be written in becomes NULL, and NULL stays NULL. What does not decode as UTF-8
//! is replaced whole. No mask ever depends on more of the value than it shows.

use exeat_policy::Mask;
use exeat_wire::{CellAction, Format};

/// What a client sees instead of a text.
pub const REDACTED: &str = "[redacted by exeat]";

/// Longest value a partial mask shows the ends of. What identifies somebody by its ends is short; a longer text is
/// redacted, so that masking never holds more of a row than this.
pub const PARTIAL_BYTES_MAX: usize = 64 * 1024;

/// The same as a JSON string.
const REDACTED_JSON: &str = "\"[redacted by exeat]\"";

/// jsonb in binary format is a version byte and the text.
const JSONB_VERSION: u8 = 1;

/// Types by what can be written into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeKin {
    /// text, varchar, name, citext.
    Text,
    /// bpchar: blanks at the end are padding, not value.
    PaddedText,
    Json,
    Jsonb,
    Bytea,
    /// Everything else, arrays of the above included: only NULL is surely valid.
    Other,
}

/// OIDs of built-in types are fixed in the server's sources.
const BYTEA: u32 = 17;
const NAME: u32 = 19;
const TEXT: u32 = 25;
const JSON: u32 = 114;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const JSONB: u32 = 3802;

impl TypeKin {
    /// By OID; `name` is the catalog's name of the type, for those that extensions bring. A type of that name that
    /// is not the extension's own gets a mask its input may not accept, but never its value.
    pub fn of(oid: u32, name: Option<&str>) -> Self {
        match oid {
            TEXT | VARCHAR | NAME => Self::Text,
            BPCHAR => Self::PaddedText,
            JSON => Self::Json,
            JSONB => Self::Jsonb,
            BYTEA => Self::Bytea,
            _ if name == Some("citext") => Self::Text,
            _ => Self::Other,
        }
    }
}

/// How the cells of one column are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskEncoder {
    action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Null,
    /// The same bytes whatever the value.
    Constant(Box<[u8]>),
    Partial {
        first: usize,
        last: usize,
        padded: bool,
    },
}

impl MaskEncoder {
    /// `Mask::Refuse` never gets here: its statements are refused. Should one, its cells are NULL.
    pub fn plan(mask: Mask, kin: TypeKin, format: Format) -> Self {
        let action = match mask {
            Mask::Nullify | Mask::Refuse => Action::Null,
            Mask::Redact => redact(kin, format),
            Mask::Partial { first, last } => match kin {
                TypeKin::Text => Action::Partial { first: first.into(), last: last.into(), padded: false },
                TypeKin::PaddedText => Action::Partial { first: first.into(), last: last.into(), padded: true },
                TypeKin::Json | TypeKin::Jsonb | TypeKin::Bytea | TypeKin::Other => Action::Null,
            },
        };
        Self { action }
    }

    /// Whether the replacement of a value of so many bytes depends on the value.
    pub fn looks_at(&self, bytes: usize) -> bool {
        match self.action {
            Action::Null | Action::Constant(_) => false,
            Action::Partial { .. } => bytes <= PARTIAL_BYTES_MAX,
        }
    }

    /// The replacement of a value that was not looked at and is not NULL.
    pub fn apply_unseen(&self, out: &mut Vec<u8>) -> CellAction {
        let bytes = match &self.action {
            Action::Null => return CellAction::Null,
            Action::Constant(bytes) => bytes,
            Action::Partial { .. } => REDACTED.as_bytes(),
        };
        out.extend_from_slice(bytes);
        CellAction::Replaced
    }

    /// Writes the replacement into `out`, which the caller hands over empty, unless the cell becomes NULL.
    pub fn apply(&self, value: Option<&[u8]>, out: &mut Vec<u8>) -> CellAction {
        let Some(value) = value else { return CellAction::Null };
        match &self.action {
            Action::Null => CellAction::Null,
            Action::Constant(bytes) => {
                out.extend_from_slice(bytes);
                CellAction::Replaced
            }
            Action::Partial { .. } if !self.looks_at(value.len()) => self.apply_unseen(out),
            Action::Partial { first, last, padded } => {
                match std::str::from_utf8(value) {
                    Ok(text) => partial(text, *first, *last, *padded, out),
                    Err(_) => out.extend_from_slice(REDACTED.as_bytes()),
                }
                CellAction::Replaced
            }
        }
    }
}

fn redact(kin: TypeKin, format: Format) -> Action {
    let bytes = match (kin, format) {
        (TypeKin::Other, _) => return Action::Null,
        // Text and json are the same bytes in both formats.
        (TypeKin::Text | TypeKin::PaddedText, _) => REDACTED.as_bytes().to_vec(),
        (TypeKin::Json, _) | (TypeKin::Jsonb, Format::Text) => REDACTED_JSON.as_bytes().to_vec(),
        (TypeKin::Jsonb, Format::Binary) => [&[JSONB_VERSION], REDACTED_JSON.as_bytes()].concat(),
        (TypeKin::Bytea, Format::Binary) => REDACTED.as_bytes().to_vec(),
        // Every server and driver reads the hex form, whatever bytea_output says.
        (TypeKin::Bytea, Format::Text) => {
            let digits: String = REDACTED.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("\\x{digits}").into_bytes()
        }
    };
    Action::Constant(bytes.into_boxed_slice())
}

/// First and last characters, one `*` for each between. Where a value is too short to show them and still hide
/// half of itself, both ends give way in proportion.
fn partial(text: &str, first: usize, last: usize, padded: bool, out: &mut Vec<u8>) {
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
fn shown(length: usize, first: usize, last: usize) -> (usize, usize) {
    let half = length / 2;
    let asked = first.saturating_add(last);
    if asked <= half {
        return (first, last);
    }
    // `asked` is above 0 here: it is above half.
    let first = half.saturating_mul(first) / asked;
    (first, half.saturating_sub(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINS: [TypeKin; 6] =
        [TypeKin::Text, TypeKin::PaddedText, TypeKin::Json, TypeKin::Jsonb, TypeKin::Bytea, TypeKin::Other];
    const FORMATS: [Format; 2] = [Format::Text, Format::Binary];

    /// `None` is NULL.
    fn mask(mask: Mask, kin: TypeKin, format: Format, value: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match MaskEncoder::plan(mask, kin, format).apply(Some(value), &mut out) {
            CellAction::Null => None,
            CellAction::Replaced => Some(out),
            CellAction::Keep => panic!("a mask never keeps"),
        }
    }

    fn partial_text(first: u16, last: u16, value: &str) -> String {
        String::from_utf8(mask(Mask::Partial { first, last }, TypeKin::Text, Format::Text, value.as_bytes()).unwrap())
            .unwrap()
    }

    #[test]
    fn null_stays_null_under_every_mask_type_and_format() {
        for each in [Mask::Redact, Mask::Nullify, Mask::Refuse, Mask::Partial { first: 1, last: 1 }] {
            for kin in KINS {
                for format in FORMATS {
                    let mut out = Vec::new();
                    assert!(matches!(MaskEncoder::plan(each, kin, format).apply(None, &mut out), CellAction::Null));
                    assert!(out.is_empty());
                }
            }
        }
    }

    #[test]
    fn redact_is_valid_in_its_type_and_format_or_null() {
        let json = b"\"[redacted by exeat]\"".to_vec();
        let text = b"[redacted by exeat]".to_vec();
        let hex = b"\\x5b72656461637465642062792065786561745d".to_vec();
        let binary_jsonb = b"\x01\"[redacted by exeat]\"".to_vec();
        for (kin, in_text, in_binary) in [
            (TypeKin::Text, Some(text.clone()), Some(text.clone())),
            (TypeKin::PaddedText, Some(text.clone()), Some(text.clone())),
            (TypeKin::Json, Some(json.clone()), Some(json.clone())),
            (TypeKin::Jsonb, Some(json), Some(binary_jsonb)),
            (TypeKin::Bytea, Some(hex), Some(text)),
            (TypeKin::Other, None, None),
        ] {
            assert_eq!(mask(Mask::Redact, kin, Format::Text, b"secret"), in_text, "{kin:?} text");
            assert_eq!(mask(Mask::Redact, kin, Format::Binary, b"secret"), in_binary, "{kin:?} binary");
        }
    }

    #[test]
    fn nullify_is_null_everywhere_and_so_is_a_refuse_that_got_here() {
        for kin in KINS {
            for format in FORMATS {
                assert_eq!(mask(Mask::Nullify, kin, format, b"secret"), None);
                assert_eq!(mask(Mask::Refuse, kin, format, b"secret"), None);
            }
        }
    }

    #[test]
    fn partial_shows_the_ends_of_texts_only() {
        for (first, last, value, expected) in [
            (0, 4, "123-45-6789", "*******6789"),
            (2, 2, "anna@example.com", "an************om"),
            (0, 0, "secret", "******"),
            (4, 4, "secret", "s***et"),
            (0, 4, "12345", "***45"),
            (4, 0, "12345", "12***"),
            (1, 1, "x", "*"),
            (1, 1, "xy", "*y"),
            (1, 0, "xy", "x*"),
            (9, 9, "", ""),
            (1, 1, "żółw", "ż**w"),
            (0, 1, "🦀🐚🦞🐙", "***🐙"),
        ] {
            assert_eq!(partial_text(first, last, value), expected, "{value} {first}/{last}");
        }
        for kin in [TypeKin::Json, TypeKin::Jsonb, TypeKin::Bytea, TypeKin::Other] {
            for format in FORMATS {
                assert_eq!(mask(Mask::Partial { first: 1, last: 1 }, kin, format, b"\"abcdef\""), None);
            }
        }
    }

    #[test]
    fn padding_of_char_columns_is_not_taken_for_value() {
        let padded = |value: &str| {
            let masked = mask(Mask::Partial { first: 0, last: 2 }, TypeKin::PaddedText, Format::Text, value.as_bytes());
            String::from_utf8(masked.unwrap()).unwrap()
        };
        assert_eq!(padded("abcdef    "), "****ef    ");
        assert_eq!(padded("    "), "    ");
        assert_eq!(padded(" a b "), "** b ");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_redacted_whole() {
        let masked = mask(Mask::Partial { first: 2, last: 2 }, TypeKin::Text, Format::Binary, b"ab\xffcd");
        assert_eq!(masked.as_deref(), Some(REDACTED.as_bytes()));
    }

    #[test]
    fn kin_follows_the_oid_and_the_name_of_citext() {
        for (oid, name, kin) in [
            (25, None, TypeKin::Text),
            (1043, Some("varchar"), TypeKin::Text),
            (19, None, TypeKin::Text),
            (1042, None, TypeKin::PaddedText),
            (114, None, TypeKin::Json),
            (3802, None, TypeKin::Jsonb),
            (17, None, TypeKin::Bytea),
            (16_500, Some("citext"), TypeKin::Text),
            (16_500, Some("mood"), TypeKin::Other),
            (16_500, None, TypeKin::Other),
            // int4, text[], "char", xml, unknown, cstring
            (23, Some("int4"), TypeKin::Other),
            (1009, Some("_text"), TypeKin::Other),
            (18, Some("char"), TypeKin::Other),
            (142, None, TypeKin::Other),
            (705, None, TypeKin::Other),
            (2275, None, TypeKin::Other),
        ] {
            assert_eq!(TypeKin::of(oid, name), kin, "{oid} {name:?}");
        }
    }

    #[test]
    fn partial_keeps_the_length_and_never_shows_more_than_half() {
        for length in 0..20 {
            let value: Vec<char> = ('a'..).take(length).collect();
            let text: String = value.iter().collect();
            for (first, last) in (0..22).flat_map(|first| (0..22).map(move |last| (first, last))) {
                let masked: Vec<char> = partial_text(first, last, &text).chars().collect();
                let (first, last) = (usize::from(first), usize::from(last));
                let (head, tail) = shown(length, first, last);
                assert_eq!(masked.len(), length);
                assert!(head <= first && tail <= last && head + tail <= length / 2);
                assert_eq!(head + tail, (first + last).min(length / 2), "nothing more is hidden than has to be");
                for (index, (shown, original)) in masked.iter().zip(&value).enumerate() {
                    let open = index < head || index >= length - tail;
                    assert_eq!(*shown, if open { *original } else { '*' });
                }
            }
        }
    }
}
