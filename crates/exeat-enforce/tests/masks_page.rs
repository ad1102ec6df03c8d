//! The table of `docs/masks.md` is held against the masks: where it says NULL nothing else comes out, and where it
//! says something else that does, in text and in binary.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use exeat_enforce::mask::{MaskEncoder, MaskKeys, TypeKin};
use exeat_policy::{Generalize, Mask};
use exeat_wire::{CellAction, Format};
use zeroize::Zeroizing;

/// Type as the page calls it, its oid, a value in text and in binary.
type Sample = (&'static str, u32, &'static [u8], &'static [u8]);

const SAMPLES: [Sample; 31] = [
    ("text", 25, b"secret", b"secret"),
    ("varchar", 1043, b"secret", b"secret"),
    ("citext", 16_999, b"secret", b"secret"),
    ("char(n)", 1042, b"secret  ", b"secret  "),
    ("name", 19, b"secret", b"secret"),
    ("json", 114, b"{\"a\":1}", b"{\"a\":1}"),
    ("jsonb", 3802, b"{\"a\": 1}", b"\x01{\"a\": 1}"),
    ("bytea", 17, b"\\x00ff", b"\x00\xff"),
    ("uuid", 2950, b"3d813cbb-47fb-42ba-91df-831e1593ac29", &[7; 16]),
    ("date", 1082, b"2024-05-17", &[0, 0, 0x22, 0xc7]),
    ("timestamp", 1114, b"2024-05-17 10:11:12", &[0, 2, 0xbb, 0, 0, 0, 0, 0]),
    ("timestamptz", 1184, b"2024-05-17 10:11:12+02", &[0, 2, 0xbb, 0, 0, 0, 0, 0]),
    ("smallint", 21, b"25", &[0, 25]),
    ("integer", 23, b"25", &[0, 0, 0, 25]),
    ("bigint", 20, b"25", &[0, 0, 0, 0, 0, 0, 0, 25]),
    ("real", 700, b"2.5", &[0x40, 0x20, 0, 0]),
    ("double precision", 701, b"2.5", &[0x40, 0x04, 0, 0, 0, 0, 0, 0]),
    ("numeric", 1700, b"25", &[0, 1, 0, 0, 0, 0, 0, 0, 0, 25]),
    ("inet", 869, b"10.1.2.3", &[2, 32, 0, 4, 10, 1, 2, 3]),
    ("cidr", 650, b"10.1.2.16/28", &[2, 28, 1, 4, 10, 1, 2, 16]),
    ("arrays", 1009, b"{a}", &[0; 20]),
    ("composites", 16_600, b"(1)", &[0; 4]),
    ("ranges", 3904, b"[1,2)", &[0; 9]),
    ("enums", 16_500, b"happy", b"happy"),
    ("boolean", 16, b"t", &[1]),
    ("time", 1083, b"10:00:00", &[0; 8]),
    ("interval", 1186, b"1 day", &[0; 16]),
    ("money", 790, b"$1.00", &[0; 8]),
    ("xml", 142, b"<a/>", b"<a/>"),
    ("arrays", 1007, b"{1}", &[0; 20]),
    ("arrays", 3807, b"{}", &[0; 12]),
];

fn mask(strategy: &str) -> Mask {
    match strategy {
        "redact" => Mask::Redact,
        "partial" => Mask::Partial { first: 1, last: 1 },
        "hash" => Mask::Hash,
        "token" => Mask::Token,
        "generalize" => Mask::Generalize(Generalize { bucket: Some(10), ..Generalize::DEFAULT }),
        other => panic!("the page has a strategy {other}"),
    }
}

#[test]
fn the_page_says_what_comes_out() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/masks.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut lines = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let strategies: Vec<&str> = lines.next().unwrap().split(" | ").skip(1).map(|name| name.trim_matches('`')).collect();
    let keys = MaskKeys::new(Zeroizing::new([1; 32])).label("shop", "ssn");
    let mut seen = Vec::new();
    for row in lines {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert_eq!(cells.len(), strategies.len() + 1, "{row}");
        let named: Vec<&str> = cells[0].trim_start_matches("everything else: ").split(", ").collect();
        for (_, oid, text, binary) in SAMPLES.iter().filter(|sample| named.contains(&sample.0)) {
            seen.push(*oid);
            for (strategy, says) in strategies.iter().zip(&cells[1..]) {
                for (format, value) in [(Format::Text, text), (Format::Binary, binary)] {
                    let kin = TypeKin::of(*oid, (*oid == 16_999).then_some("citext"));
                    let mut out = Vec::new();
                    let done =
                        MaskEncoder::plan(mask(strategy), kin, format, Some(keys.clone())).apply(Some(value), &mut out);
                    let what = format!("{} under {strategy} in {format:?}", cells[0]);
                    assert_eq!(done == CellAction::Null, *says == "NULL", "{what}: {says}");
                    let constant = says.trim_matches('`');
                    if format == Format::Text && constant.trim_start_matches('"').starts_with("[redacted") {
                        assert_eq!(std::str::from_utf8(&out).unwrap(), constant, "{what}");
                    }
                    assert!(out != *value, "{what}");
                }
            }
        }
    }
    assert_eq!(seen.len(), SAMPLES.len(), "a sample the page does not name: {seen:?}");
}
