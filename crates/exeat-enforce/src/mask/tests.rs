//! What comes out of masks, type by type.

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
