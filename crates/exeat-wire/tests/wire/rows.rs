//! Rewriting rows, against a reference that decodes and builds anew.

use bytes::BytesMut;
use exeat_wire::{BackendMessage, CellAction, DataRow, DecodeError};
use proptest::prelude::*;

use crate::bytes_in::{raw, server};

type Cell = Option<Vec<u8>>;

fn content(cells: &[Cell]) -> Vec<u8> {
    let mut bytes = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            Some(value) => {
                bytes.extend_from_slice(&i32::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(value);
            }
            None => bytes.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
    bytes
}

fn row(content: &[u8]) -> DataRow {
    match server(b'D', content) {
        Ok(BackendMessage::DataRow(row)) => row,
        other => panic!("{other:?}"),
    }
}

fn keep(_: usize, _: Option<&[u8]>, _: &mut Vec<u8>) -> CellAction {
    CellAction::Keep
}

#[test]
fn replaced_null_and_kept_cells() {
    let row = row(b"\0\x03\0\0\0\x03ann\0\0\0\x02ab\xff\xff\xff\xff");
    let mut out = BytesMut::from(&b"before"[..]);
    row.rewrite(&mut out, |index, value, scratch| match index {
        0 => {
            assert_eq!(value, Some(&b"ann"[..]));
            scratch.extend_from_slice(b"[redacted]");
            CellAction::Replaced
        }
        1 => CellAction::Null,
        _ => {
            assert_eq!(value, None);
            CellAction::Keep
        }
    })
    .unwrap();
    let expected = raw(b'D', b"\0\x03\0\0\0\x0a[redacted]\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(out.as_ref(), [&b"before"[..], &expected].concat());
}

#[test]
fn scratch_is_empty_at_each_cell_and_after_the_row() {
    let row = row(b"\0\x02\0\0\0\x01a\0\0\0\x01b");
    let (mut out, mut scratch) = (BytesMut::new(), b"left over".to_vec());
    row.rewrite_with(&mut out, &mut scratch, |_, _, scratch| {
        assert!(scratch.is_empty());
        scratch.extend_from_slice(b"secret");
        CellAction::Keep
    })
    .unwrap();
    assert!(scratch.is_empty());
    assert_eq!(out.as_ref(), row.frame.bytes().as_ref());
}

#[test]
fn broken_rows_leave_nothing_behind() {
    let cases: [(&[u8], DecodeError); 6] = [
        (b"\0\x01", DecodeError::Truncated { message: "DataRow" }),
        (b"\0\x01\0\0\0", DecodeError::Truncated { message: "DataRow" }),
        (b"\0\x02\0\0\0\x01a\0\0\0\x02b", DecodeError::Truncated { message: "DataRow" }),
        (b"\0\x01\x7f\xff\xff\xffa", DecodeError::Truncated { message: "DataRow" }),
        (b"\0\x01\0\0\0\x01ab", DecodeError::TrailingBytes { message: "DataRow", extra_bytes: 1 }),
        (b"\0\x01\xff\xff\xff\xfe", DecodeError::Value { message: "DataRow", what: "value length", value: -2 }),
    ];
    for (content, expected) in cases {
        let row = row(content);
        let mut out = BytesMut::from(&b"before"[..]);
        let mut scratch = Vec::new();
        let replaced = row.rewrite_with(&mut out, &mut scratch, |_, _, scratch| {
            scratch.push(b'x');
            CellAction::Replaced
        });
        assert_eq!(replaced, Err(expected.clone()), "{}", content.escape_ascii());
        assert_eq!((out.as_ref(), scratch.len()), (&b"before"[..], 0));
        let mut cells = row.cells().skip_while(Result::is_ok);
        assert_eq!(cells.next(), Some(Err(expected)));
        assert_eq!(cells.next(), None);
    }
}

fn cells() -> impl Strategy<Value = Vec<Cell>> {
    prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..12)), 0..10)
}

fn action() -> impl Strategy<Value = Option<Cell>> {
    prop::option::of(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)))
}

proptest! {
    #[test]
    fn rewriting_equals_building_anew(cells in cells(), actions in prop::collection::vec(action(), 10)) {
        let row = row(&content(&cells));
        let mut out = BytesMut::new();
        let mut seen = Vec::new();
        row.rewrite(&mut out, |index, value, scratch| {
            seen.push(value.map(<[u8]>::to_vec));
            match &actions[index] {
                None => CellAction::Keep,
                Some(None) => CellAction::Null,
                Some(Some(new)) => {
                    scratch.extend_from_slice(new);
                    CellAction::Replaced
                }
            }
        }).unwrap();
        let expected: Vec<Cell> =
            cells.iter().zip(&actions).map(|(old, new)| new.clone().unwrap_or_else(|| old.clone())).collect();
        prop_assert_eq!(out.to_vec(), raw(b'D', &content(&expected)));
        prop_assert_eq!(&seen, &cells);
        let walked: Vec<Cell> = row.cells().map(|cell| cell.unwrap().map(<[u8]>::to_vec)).collect();
        prop_assert_eq!(walked, cells);
    }

    #[test]
    fn a_rewritten_row_is_whole_or_absent(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 2..40)) {
        let Ok(BackendMessage::DataRow(row)) = server(b'D', &bytes) else { return Ok(()) };
        let mut out = BytesMut::new();
        match row.rewrite(&mut out, keep) {
            Ok(()) => prop_assert_eq!(out.as_ref(), row.frame.bytes().as_ref()),
            Err(_) => prop_assert!(out.is_empty()),
        }
        prop_assert_eq!(row.rewrite(&mut out, keep).is_ok(), row.cells().all(|cell| cell.is_ok()));
    }
}
