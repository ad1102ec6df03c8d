//! Masks: what stands in a sealed cell instead of its value, valid in the column's type and in the cell's format.
//! Pure. A type that a mask cannot be written in becomes NULL, and NULL stays NULL unless policy hides it. What does
//! not decode as UTF-8 is replaced whole. No mask ever depends on more of the value than it shows.

mod bytea;
pub(crate) mod date;
pub mod keyed;
mod kin;
mod network;
mod number;
mod partial;

use std::sync::Arc;

use exeat_policy::{Detector, Generalize, Mask, Nulls};
use exeat_wire::{CellAction, Format};

pub use self::keyed::{LabelKeys, MaskKeys};
pub use self::kin::TypeKin;

use crate::detect;

use self::date::DateKin;
use self::keyed::Input;
use self::number::NumberKin;

/// What a client sees instead of a text.
pub const REDACTED: &str = "[redacted by exeat]";

/// Longest value a mask looks at. What identifies somebody is short; of a longer value nothing is told, so that
/// masking never holds more of a row than this.
pub const SEEN_BYTES_MAX: usize = 64 * 1024;

/// The same as a JSON string.
const REDACTED_JSON: &str = "\"[redacted by exeat]\"";

/// jsonb in binary format is a version byte and the text.
const JSONB_VERSION: u8 = 1;

/// How the cells of one column are replaced.
#[derive(Debug, Clone)]
pub struct MaskEncoder {
    action: Action,
    nulls: Nulls,
}

#[derive(Debug, Clone)]
enum Action {
    Null,
    /// The same bytes whatever the value.
    Constant(Box<[u8]>),
    Partial {
        first: usize,
        last: usize,
        padded: bool,
    },
    Hash(Keyed),
    Token(Keyed),
    Date {
        how: Generalize,
        kin: DateKin,
        format: Format,
    },
    Number {
        bucket: u64,
        kin: NumberKin,
        format: Format,
    },
    Network {
        how: Generalize,
        format: Format,
    },
    /// A column that no mask covers: kept, unless something is found in it.
    Detect {
        detectors: Arc<[Detector]>,
        redacted: Box<[u8]>,
    },
}

#[derive(Debug, Clone)]
struct Keyed {
    keys: Arc<LabelKeys>,
    kin: TypeKin,
    format: Format,
    /// For what is not digested or encrypted; `None` is NULL.
    redacted: Option<Box<[u8]>>,
}

impl MaskEncoder {
    /// `Mask::Refuse` never gets here: its statements are refused. Should one, its cells are NULL. Digests and tokens
    /// for which there are no keys are redacted.
    pub fn plan(mask: Mask, kin: TypeKin, format: Format, keys: Option<Arc<LabelKeys>>) -> Self {
        let redacted = redacted(kin, format);
        let constant = |redacted: Option<Box<[u8]>>| redacted.map_or(Action::Null, Action::Constant);
        let action = match mask {
            Mask::Nullify | Mask::Refuse => Action::Null,
            Mask::Redact => constant(redacted),
            Mask::Partial { first, last } if kin.is_text() => {
                let padded = kin == TypeKin::PaddedText;
                Action::Partial { first: first.into(), last: last.into(), padded }
            }
            Mask::Partial { .. } => Action::Null,
            Mask::Generalize(how) => generalize(how, kin, format),
            Mask::Hash if !keyed::hashes(kin) => Action::Null,
            Mask::Token if !keyed::tokens(kin) => Action::Null,
            Mask::Hash | Mask::Token => match keys {
                Some(keys) => {
                    let keyed = Keyed { keys, kin, format, redacted };
                    if mask == Mask::Hash { Action::Hash(keyed) } else { Action::Token(keyed) }
                }
                None => constant(redacted),
            },
        };
        Self { action, nulls: Nulls::Keep }
    }

    /// For a column that no mask covers. `None`: nothing is looked for in such a type.
    pub fn tripwire(detectors: &Arc<[Detector]>, kin: TypeKin, format: Format) -> Option<Self> {
        if detectors.is_empty() || !(kin.is_text() || matches!(kin, TypeKin::Json | TypeKin::Jsonb)) {
            return None;
        }
        let redacted = redacted(kin, format)?;
        let action = Action::Detect { detectors: Arc::clone(detectors), redacted };
        Some(Self { action, nulls: Nulls::Keep })
    }

    /// Whether it keeps most cells, and the column is no sealed one.
    pub fn is_tripwire(&self) -> bool {
        matches!(self.action, Action::Detect { .. })
    }

    #[must_use]
    pub fn with_nulls(self, nulls: Nulls) -> Self {
        Self { nulls, ..self }
    }

    /// Whether the replacement of a value of so many bytes depends on the value.
    pub fn looks_at(&self, bytes: usize) -> bool {
        !self.is_constant() && bytes <= SEEN_BYTES_MAX
    }

    /// Whether every value gets the same replacement.
    pub fn is_constant(&self) -> bool {
        match self.action {
            Action::Null | Action::Constant(_) => true,
            Action::Partial { .. }
            | Action::Hash(_)
            | Action::Token(_)
            | Action::Date { .. }
            | Action::Number { .. }
            | Action::Network { .. }
            | Action::Detect { .. } => false,
        }
    }

    /// The replacement of a value that was not looked at and is not NULL.
    pub fn apply_unseen(&self, out: &mut Vec<u8>) -> CellAction {
        let bytes = match &self.action {
            Action::Null | Action::Date { .. } | Action::Number { .. } | Action::Network { .. } => {
                return CellAction::Null;
            }
            Action::Detect { .. } => return CellAction::Keep,
            Action::Constant(bytes) => bytes.as_ref(),
            Action::Hash(keyed) | Action::Token(keyed) => match &keyed.redacted {
                Some(bytes) => bytes,
                None => return CellAction::Null,
            },
            Action::Partial { .. } => REDACTED.as_bytes(),
        };
        out.extend_from_slice(bytes);
        CellAction::Replaced
    }

    /// Writes the replacement into `out`, which the caller hands over empty, unless the cell becomes NULL.
    pub fn apply(&self, value: Option<&[u8]>, out: &mut Vec<u8>) -> CellAction {
        let Some(value) = value else { return self.apply_null(out) };
        if !self.looks_at(value.len()) {
            return self.apply_unseen(out);
        }
        let written = match &self.action {
            Action::Null | Action::Constant(_) => return self.apply_unseen(out),
            Action::Partial { first, last, padded } => {
                let Ok(text) = std::str::from_utf8(value) else { return self.apply_unseen(out) };
                partial::partial(text, *first, *last, *padded, out);
                Some(())
            }
            Action::Hash(keyed) | Action::Token(keyed) => {
                let mut decoded = Vec::new();
                let Some(value) = keyed::canonical(keyed.kin, keyed.format, value, &mut decoded) else {
                    return self.apply_unseen(out);
                };
                return self.apply_keyed(Input::Value(value), out);
            }
            Action::Date { how, kin, format } => date::generalize(*kin, how.to, *format, value, out),
            Action::Number { bucket, kin, format } => number::generalize(*kin, *bucket, *format, value, out),
            Action::Network { how, format } => network::generalize(*how, *format, value, out),
            Action::Detect { detectors, redacted } => {
                if !std::str::from_utf8(value).is_ok_and(|text| detect::finds(detectors, text)) {
                    return CellAction::Keep;
                }
                out.extend_from_slice(redacted);
                Some(())
            }
        };
        match written {
            Some(()) => CellAction::Replaced,
            None => {
                out.clear();
                CellAction::Null
            }
        }
    }

    fn apply_null(&self, out: &mut Vec<u8>) -> CellAction {
        match (self.nulls, &self.action) {
            (Nulls::Keep, _) => CellAction::Null,
            (Nulls::Hide, Action::Hash(_) | Action::Token(_)) => self.apply_keyed(Input::Null, out),
            (
                Nulls::Hide,
                Action::Null
                | Action::Constant(_)
                | Action::Partial { .. }
                | Action::Date { .. }
                | Action::Number { .. }
                | Action::Network { .. }
                | Action::Detect { .. },
            ) => self.apply_unseen(out),
        }
    }

    fn apply_keyed(&self, input: Input<'_>, out: &mut Vec<u8>) -> CellAction {
        match &self.action {
            Action::Hash(keyed) => keyed::write_digest(&keyed.keys, keyed.kin, keyed.format, input, out),
            Action::Token(keyed) => {
                if !keyed::write_token(&keyed.keys, keyed.kin, keyed.format, input, out) {
                    return self.apply_unseen(out);
                }
            }
            Action::Null
            | Action::Constant(_)
            | Action::Partial { .. }
            | Action::Date { .. }
            | Action::Number { .. }
            | Action::Network { .. }
            | Action::Detect { .. } => return self.apply_unseen(out),
        }
        CellAction::Replaced
    }
}

/// What this gateway put in the place of a value, on its way back to be written or compared: the value it stood for
/// would be lost. A hash looks like any other text.
pub fn stands_for_a_value(text: &str) -> bool {
    text == REDACTED || text == REDACTED_JSON || keyed::is_token(text)
}

/// `None`: the type has no place for the constant.
fn redacted(kin: TypeKin, format: Format) -> Option<Box<[u8]>> {
    let bytes = match (kin, format) {
        // Text and json are the same bytes in both formats.
        (TypeKin::Text | TypeKin::Name | TypeKin::PaddedText, _) | (TypeKin::Bytea, Format::Binary) => {
            REDACTED.as_bytes().to_vec()
        }
        (TypeKin::Json, _) | (TypeKin::Jsonb, Format::Text) => REDACTED_JSON.as_bytes().to_vec(),
        (TypeKin::Jsonb, Format::Binary) => [&[JSONB_VERSION], REDACTED_JSON.as_bytes()].concat(),
        (TypeKin::Bytea, Format::Text) => {
            let mut text = Vec::new();
            bytea::write(REDACTED.as_bytes(), &mut text);
            text
        }
        (
            TypeKin::Uuid
            | TypeKin::Date
            | TypeKin::Timestamp
            | TypeKin::Timestamptz
            | TypeKin::Int2
            | TypeKin::Int4
            | TypeKin::Int8
            | TypeKin::Float4
            | TypeKin::Float8
            | TypeKin::Numeric
            | TypeKin::Inet
            | TypeKin::Cidr
            | TypeKin::Other,
            _,
        ) => return None,
    };
    Some(bytes.into_boxed_slice())
}

fn generalize(how: Generalize, kin: TypeKin, format: Format) -> Action {
    let date = |kin| Action::Date { how, kin, format };
    let number = |kin| how.bucket.map_or(Action::Null, |bucket| Action::Number { bucket, kin, format });
    match kin {
        TypeKin::Date => date(DateKin::Date),
        TypeKin::Timestamp => date(DateKin::Timestamp),
        TypeKin::Timestamptz => date(DateKin::Timestamptz),
        TypeKin::Int2 => number(NumberKin::Int2),
        TypeKin::Int4 => number(NumberKin::Int4),
        TypeKin::Int8 => number(NumberKin::Int8),
        TypeKin::Float4 => number(NumberKin::Float4),
        TypeKin::Float8 => number(NumberKin::Float8),
        TypeKin::Numeric => number(NumberKin::Numeric),
        TypeKin::Inet | TypeKin::Cidr => Action::Network { how, format },
        TypeKin::Text
        | TypeKin::Name
        | TypeKin::PaddedText
        | TypeKin::Json
        | TypeKin::Jsonb
        | TypeKin::Bytea
        | TypeKin::Uuid
        | TypeKin::Other => Action::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::partial::shown;
    use zeroize::Zeroizing;

    const KINS: [TypeKin; 19] = [
        TypeKin::Text,
        TypeKin::Name,
        TypeKin::PaddedText,
        TypeKin::Json,
        TypeKin::Jsonb,
        TypeKin::Bytea,
        TypeKin::Uuid,
        TypeKin::Date,
        TypeKin::Timestamp,
        TypeKin::Timestamptz,
        TypeKin::Int2,
        TypeKin::Int4,
        TypeKin::Int8,
        TypeKin::Float4,
        TypeKin::Float8,
        TypeKin::Numeric,
        TypeKin::Inet,
        TypeKin::Cidr,
        TypeKin::Other,
    ];
    const COARSE: Generalize = Generalize { bucket: Some(10), ..Generalize::DEFAULT };
    const MASKS: [Mask; 7] = [
        Mask::Redact,
        Mask::Nullify,
        Mask::Refuse,
        Mask::Partial { first: 1, last: 1 },
        Mask::Hash,
        Mask::Token,
        Mask::Generalize(COARSE),
    ];
    const FORMATS: [Format; 2] = [Format::Text, Format::Binary];

    fn keys() -> Option<Arc<LabelKeys>> {
        Some(MaskKeys::new(Zeroizing::new([1; 32])).label("shop", "ssn"))
    }

    fn encoder(mask: Mask, kin: TypeKin, format: Format) -> MaskEncoder {
        MaskEncoder::plan(mask, kin, format, keys())
    }

    /// `None` is NULL.
    fn apply(encoder: &MaskEncoder, value: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match encoder.apply(value, &mut out) {
            CellAction::Null => {
                assert!(out.is_empty());
                None
            }
            CellAction::Replaced => Some(out),
            CellAction::Keep => panic!("a mask never keeps"),
        }
    }

    fn mask(mask: Mask, kin: TypeKin, format: Format, value: &[u8]) -> Option<Vec<u8>> {
        apply(&encoder(mask, kin, format), Some(value))
    }

    fn partial_text(first: u16, last: u16, value: &str) -> String {
        String::from_utf8(mask(Mask::Partial { first, last }, TypeKin::Text, Format::Text, value.as_bytes()).unwrap())
            .unwrap()
    }

    #[test]
    fn null_stays_null_under_every_mask_type_and_format() {
        for each in MASKS {
            for (kin, format) in KINS.iter().flat_map(|kin| FORMATS.map(|format| (*kin, format))) {
                assert_eq!(apply(&encoder(each, kin, format), None), None);
            }
        }
    }

    #[test]
    fn a_hidden_null_comes_out_as_a_value_would() {
        for (each, kin) in MASKS.iter().flat_map(|each| KINS.map(|kin| (*each, kin))) {
            for format in FORMATS {
                let encoder = encoder(each, kin, format).with_nulls(Nulls::Hide);
                let hidden = apply(&encoder, None);
                let redacted = mask(Mask::Redact, kin, format, b"x");
                match each {
                    Mask::Redact | Mask::Nullify | Mask::Refuse => {
                        assert_eq!(hidden, mask(each, kin, format, b"x"), "{each:?} {kin:?}")
                    }
                    Mask::Partial { .. } => assert_eq!(hidden.is_some(), kin.is_text()),
                    Mask::Hash => assert_eq!(hidden.is_some(), keyed::hashes(kin)),
                    Mask::Token => assert_eq!(hidden.is_some(), keyed::tokens(kin)),
                    Mask::Generalize(_) => assert_eq!(hidden, None),
                }
                if matches!(each, Mask::Hash | Mask::Token) && hidden.is_some() {
                    assert_ne!(hidden, redacted, "it is no other than values are");
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
            (TypeKin::Date, None, None),
            (TypeKin::Uuid, None, None),
            (TypeKin::Numeric, None, None),
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
        for kin in KINS.into_iter().filter(|kin| !kin.is_text()) {
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
    fn hash_and_token_are_equal_where_values_are_in_every_format() {
        let uuid = "3d813cbb-47fb-42ba-91df-831e1593ac29";
        let bits: Vec<u8> = uuid.replace('-', "").as_bytes().chunks(2).map(|pair| bytea::pair(pair).unwrap()).collect();
        for (each, kin, text, binary) in [
            (Mask::Hash, TypeKin::Bytea, &b"\\x00ff"[..], &b"\x00\xff"[..]),
            (Mask::Token, TypeKin::Bytea, b"\\000\\377", b"\x00\xff"),
            (Mask::Hash, TypeKin::Jsonb, b"{\"a\": 1}", b"\x01{\"a\": 1}"),
            (Mask::Hash, TypeKin::Uuid, uuid.as_bytes(), &bits),
        ] {
            let in_text = mask(each, kin, Format::Text, text).unwrap();
            let in_binary = mask(each, kin, Format::Binary, binary).unwrap();
            let back = match kin {
                TypeKin::Bytea => bytea::read(&in_text).unwrap(),
                TypeKin::Jsonb => [&[JSONB_VERSION][..], &in_text].concat(),
                _ => {
                    let digits: Vec<u8> = in_text.iter().copied().filter(|byte| *byte != b'-').collect();
                    digits.chunks(2).map(|pair| bytea::pair(pair).unwrap()).collect()
                }
            };
            assert_eq!(back, in_binary, "{kin:?}");
        }
        for each in [Mask::Hash, Mask::Token] {
            let plain = mask(each, TypeKin::Text, Format::Text, b"abc");
            assert_eq!(mask(each, TypeKin::PaddedText, Format::Binary, b"abc   "), plain, "padding is not value");
            assert_eq!(mask(each, TypeKin::Text, Format::Binary, b"abc"), plain);
            assert_ne!(mask(each, TypeKin::Text, Format::Text, b"abd"), plain);
            let redacted = Some(REDACTED.as_bytes().to_vec());
            assert_eq!(mask(each, TypeKin::Text, Format::Text, b"ab\xff"), redacted, "what does not decode");
            assert_eq!(apply(&MaskEncoder::plan(each, TypeKin::Text, Format::Text, None), Some(b"abc")), redacted);
            let long = vec![b'x'; SEEN_BYTES_MAX + 1];
            assert_eq!(mask(each, TypeKin::Text, Format::Text, &long), redacted);
            assert_ne!(mask(each, TypeKin::Text, Format::Text, &long[1..]), redacted);
        }
        let token = mask(Mask::Token, TypeKin::Name, Format::Text, b"abc").unwrap();
        assert!(token.starts_with(b"ext_") && token.len() < 64);
        let name = [b'x'; 63];
        let long = mask(Mask::Token, TypeKin::Name, Format::Text, &name);
        assert_eq!(long.as_deref(), Some(REDACTED.as_bytes()), "no name is as long as its token");
    }

    #[test]
    fn what_stands_for_a_value_is_known_when_it_comes_back() {
        let token = mask(Mask::Token, TypeKin::Text, Format::Text, b"abc").unwrap();
        for shown in [REDACTED, "\"[redacted by exeat]\"", std::str::from_utf8(&token).unwrap()] {
            assert!(stands_for_a_value(shown), "{shown}");
        }
        for other in ["", "redacted", "ext_", "external drive", "***-**-6789"] {
            assert!(!stands_for_a_value(other), "{other}");
        }
    }

    #[test]
    fn a_tripwire_keeps_what_it_finds_nothing_in() {
        let detectors: Arc<[Detector]> = Arc::from([Detector::UsSsn]);
        for (kin, format, redacted) in [
            (TypeKin::Text, Format::Text, &b"[redacted by exeat]"[..]),
            (TypeKin::Name, Format::Binary, b"[redacted by exeat]"),
            (TypeKin::Json, Format::Text, b"\"[redacted by exeat]\""),
            (TypeKin::Jsonb, Format::Binary, b"\x01\"[redacted by exeat]\""),
        ] {
            let tripwire = MaskEncoder::tripwire(&detectors, kin, format).unwrap();
            assert!(tripwire.is_tripwire() && tripwire.looks_at(10) && !tripwire.looks_at(SEEN_BYTES_MAX + 1));
            let mut out = Vec::new();
            assert_eq!(tripwire.apply(Some(b"{\"ssn\": \"123-45-6789\"}"), &mut out), CellAction::Replaced);
            assert_eq!(out, redacted);
            for kept in [Some(&b"{\"ssn\": \"000-45-6789\"}"[..]), Some(b"\xff 123-45-6789"), Some(b"")] {
                let mut out = Vec::new();
                assert_eq!(tripwire.apply(kept, &mut out), CellAction::Keep);
                assert!(out.is_empty());
            }
            assert_eq!(tripwire.apply(None, &mut Vec::new()), CellAction::Null);
        }
        for kin in [TypeKin::Bytea, TypeKin::Int4, TypeKin::Other] {
            assert!(MaskEncoder::tripwire(&detectors, kin, Format::Text).is_none());
        }
        assert!(MaskEncoder::tripwire(&Arc::from([]), TypeKin::Text, Format::Text).is_none());
    }

    #[test]
    fn what_cannot_be_made_coarser_is_null() {
        for (kin, value) in [
            (TypeKin::Date, &b"infinity"[..]),
            (TypeKin::Int4, b"x"),
            (TypeKin::Inet, b"x"),
            (TypeKin::Numeric, b"NaN"),
            (TypeKin::Text, b"2024-05-17"),
        ] {
            assert_eq!(mask(Mask::Generalize(COARSE), kin, Format::Text, value), None);
        }
        let without = Mask::Generalize(Generalize { bucket: None, ..COARSE });
        assert_eq!(mask(without, TypeKin::Int4, Format::Text, b"25"), None, "no bucket, no number");
        assert_eq!(mask(Mask::Generalize(COARSE), TypeKin::Int4, Format::Text, b"25"), Some(b"20".to_vec()));
        // A binary address is written as far as it is understood: nothing of that is left behind.
        assert_eq!(mask(Mask::Generalize(COARSE), TypeKin::Inet, Format::Binary, &[2, 32, 0, 4, 1]), None);
    }

    #[test]
    fn kin_follows_the_oid_and_the_name_of_citext() {
        for (oid, name, kin) in [
            (25, None, TypeKin::Text),
            (1043, Some("varchar"), TypeKin::Text),
            (19, None, TypeKin::Name),
            (1082, None, TypeKin::Date),
            (1700, None, TypeKin::Numeric),
            (2950, None, TypeKin::Uuid),
            (1042, None, TypeKin::PaddedText),
            (114, None, TypeKin::Json),
            (3802, None, TypeKin::Jsonb),
            (17, None, TypeKin::Bytea),
            (16_500, Some("citext"), TypeKin::Text),
            (16_500, Some("mood"), TypeKin::Other),
            (16_500, None, TypeKin::Other),
            // text[], "char", xml, unknown, cstring
            (23, Some("int4"), TypeKin::Int4),
            (1007, Some("_int4"), TypeKin::Other),
            (790, Some("money"), TypeKin::Other),
            (3904, Some("int4range"), TypeKin::Other),
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
