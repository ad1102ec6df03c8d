//! The data as a server writes it, cut anywhere; what must come out is written beside it.

use bytes::BytesMut;
use exeat_policy::Mask;
use exeat_sql::{CopyLayout, ForceQuote};

use super::*;
use crate::mask::{REDACTED, SEEN_BYTES_MAX, TypeKin};

const TEXT: CopyFormat = CopyFormat::Text;
const CSV: CopyFormat = CopyFormat::Csv;
const BINARY: CopyFormat = CopyFormat::Binary;

fn layout(format: CopyFormat) -> CopyLayout {
    let is_csv = format == CSV;
    CopyLayout {
        format,
        delimiter: if is_csv { b',' } else { b'\t' },
        null: if is_csv { String::new() } else { "\\N".to_owned() },
        header: false,
        quote: b'"',
        escape: b'"',
        force_quote: ForceQuote::None,
    }
}

/// `id` in clear, `secret` masked, `note` in clear.
fn masker(layout: &CopyLayout, mask: Mask) -> CopyMasker {
    let format = if layout.format == BINARY { Format::Binary } else { Format::Text };
    let column = |name: &str, mask: Option<Mask>| Column {
        encoder: mask.map(|mask| MaskEncoder::plan(mask, TypeKin::Text, format, None)),
        name: Some(name.to_owned()),
        force_quote: layout.force_quote == ForceQuote::All,
    };
    let plan = CopyPlan { columns: Vec::new(), layout: layout.clone() };
    CopyMasker::new(&plan, vec![column("id", None), column("secret", Some(mask)), column("note", None)])
}

/// What the client gets: the content of its messages, one after the other.
fn content(out: &Outbox) -> Vec<u8> {
    let (mut rest, mut content) = (out.chunk(), Vec::new());
    while let Some((header, tail)) = rest.split_first_chunk::<HEADER_BYTES>() {
        assert_eq!(header[0], b'd');
        let length = usize::try_from(i32::from_be_bytes([header[1], header[2], header[3], header[4]])).unwrap() - 4;
        assert!(length > 0, "no empty message");
        content.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    assert!(rest.is_empty());
    content
}

fn in_messages(masker: &mut CopyMasker, data: &[u8], size: usize) -> Result<(Vec<u8>, Counts), ReleaseError> {
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    for message in data.chunks(size) {
        masker.release(message, &mut counts, &mut out)?;
    }
    masker.end()?;
    assert_eq!(counts.bytes, out.len() as u64);
    Ok((content(&out), counts))
}

/// As one large message that arrives in pieces.
fn in_pieces(masker: &mut CopyMasker, data: &[u8], size: usize) -> Result<(Vec<u8>, Counts), ReleaseError> {
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    let mut pieces = MaskedPieces::begin(data.len());
    let mut input = BytesMut::new();
    for piece in data.chunks(size) {
        input.extend_from_slice(piece);
        pieces.pass(&mut input, masker, &mut counts, &mut out)?;
    }
    assert_eq!(counts.bytes, out.len() as u64);
    Ok((content(&out), counts))
}

fn check(layout: &CopyLayout, mask: Mask, data: &[u8], expected: &[u8]) {
    for size in [1, 2, 3, 5, 1000] {
        let (found, _) = in_messages(&mut masker(layout, mask), data, size).expect("the stream adds up");
        let (found, expected) = (String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
        assert_eq!(found, expected, "{layout:?} in messages of {size}");
    }
}

#[test]
fn text_cells_are_masked_wherever_the_stream_is_cut() {
    let data = b"1\tsecret\ta\\tb\n2\t\\N\t\\N\n3\t\\\\N\t\n4\tse\\ncr\\\\et\\t\tx\n5\t\t\n";
    check(&layout(TEXT), Mask::Redact, data, b"1\t[redacted by exeat]\ta\\tb\n2\t\\N\t\\N\n3\t[redacted by exeat]\t\n4\t[redacted by exeat]\tx\n5\t[redacted by exeat]\t\n");
    check(&layout(TEXT), Mask::Nullify, data, b"1\t\\N\ta\\tb\n2\t\\N\t\\N\n3\t\\N\t\n4\t\\N\tx\n5\t\\N\t\n");
    // What is shown of a value is what it means, written down again: a tab at its end is one character.
    let partial = Mask::Partial { first: 0, last: 2 };
    check(&layout(TEXT), partial, data, b"1\t****et\ta\\tb\n2\t\\N\t\\N\n3\t*N\t\n4\t*******t\\t\tx\n5\t\t\n");
    let piped = CopyLayout { delimiter: b'|', null: "\\none".to_owned(), ..layout(TEXT) };
    check(&piped, partial, b"1|a\\|b\\||\\none\n2|\\none|\\|\n", b"1|**b\\||\\none\n2|\\none|\\|\n");
}

#[test]
fn csv_cells_are_masked_wherever_the_stream_is_cut() {
    let data = b"1,secret,\"a,b\"\n2,,\n3,\"\",\"two\nlines\"\n4,\"se\"\"cr,\net\",x\n";
    check(
        &layout(CSV),
        Mask::Redact,
        data,
        b"1,[redacted by exeat],\"a,b\"\n2,,\n3,[redacted by exeat],\"two\nlines\"\n4,[redacted by exeat],x\n",
    );
    let partial = Mask::Partial { first: 3, last: 0 };
    check(&layout(CSV), partial, data, b"1,sec***,\"a,b\"\n2,,\n3,\"\",\"two\nlines\"\n4,\"se\"\"******\",x\n");
    let spaced = CopyLayout { delimiter: b' ', null: "none".to_owned(), force_quote: ForceQuote::All, ..layout(CSV) };
    check(&spaced, Mask::Redact, b"1 none x\n2 \"none\" y\n", b"1 none x\n2 \"[redacted by exeat]\" y\n");
    let escaped = CopyLayout { quote: b'\'', escape: b'\\', ..layout(CSV) };
    let data = b"1,'it\\'s \\\\',x\n2,a\\b,'\\''\n";
    check(&escaped, Mask::Partial { first: 0, last: 3 }, data, b"1,***s \\,x\n2,**b,'\\''\n");
}

#[test]
fn a_header_names_the_columns_it_was_planned_with_or_ends_the_copy() {
    for format in [TEXT, CSV] {
        let layout = CopyLayout { header: true, ..layout(format) };
        let separated = |line: &str| line.replace(' ', if format == CSV { "," } else { "\t" });
        let good = separated("id secret note\n1 x y\n");
        let masked = good.replace('x', REDACTED);
        check(&layout, Mask::Redact, good.as_bytes(), masked.as_bytes());
        for bad in ["id leaked note\n", "id secret\n", "id secret note more\n"] {
            assert!(in_messages(&mut masker(&layout, Mask::Redact), separated(bad).as_bytes(), 3).is_err(), "{bad}");
        }
    }
}

fn binary_row(cells: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = i16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
    for cell in cells {
        row.extend(cell.map_or(-1, |cell| i32::try_from(cell.len()).unwrap()).to_be_bytes());
        row.extend_from_slice(cell.unwrap_or_default());
    }
    row
}

fn binary(rows: &[[Option<&[u8]>; 3]]) -> Vec<u8> {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    data.extend(rows.iter().flat_map(|row| binary_row(row)));
    data.extend((-1_i16).to_be_bytes());
    data
}

#[test]
fn binary_cells_are_masked_wherever_the_stream_is_cut() {
    let data = binary(&[[Some(b"1"), Some(b"secret"), Some(b"")], [None, None, None], [Some(b"3"), Some(b""), None]]);
    let redacted = Some(REDACTED.as_bytes());
    let masked = binary(&[[Some(b"1"), redacted, Some(b"")], [None, None, None], [Some(b"3"), redacted, None]]);
    check(&layout(BINARY), Mask::Redact, &data, &masked);
    let shown = binary(&[[Some(b"1"), Some(b"s****t"), Some(b"")], [None, None, None], [Some(b"3"), Some(b""), None]]);
    check(&layout(BINARY), Mask::Partial { first: 1, last: 1 }, &data, &shown);
}

#[test]
fn a_stream_that_does_not_add_up_is_an_error() {
    let good = binary(&[[Some(b"1"), Some(b"x"), Some(b"y")]]);
    for (format, data, why) in [
        (TEXT, &b"1\tx\n"[..], "too few cells"),
        (TEXT, b"1\tx\ty\tz\n", "too many"),
        (TEXT, b"1\tx\ty", "the end in a row"),
        (CSV, b"1,\"x\"y,z\n", "something behind a closing quote"),
        (CSV, b"1,\"x,y\n", "a quote that stays open"),
        (BINARY, &good[..good.len() - 2], "no trailer"),
        (BINARY, &good[1..], "another signature"),
        (BINARY, &[&good[..], b"x"].concat(), "something behind the trailer"),
        (BINARY, &[&good[..19], &[0, 2, 0, 0, 0, 0]].concat(), "another number of cells"),
        (BINARY, &[&good[..19], &[0, 3, 0xff, 0xff, 0xff, 0xfe]].concat(), "a negative length"),
    ] {
        for size in [1, 7, 1000] {
            let found = in_messages(&mut masker(&layout(format), Mask::Redact), data, size);
            assert!(found.is_err(), "{why} by {size}");
        }
    }
    assert!(in_messages(&mut masker(&layout(BINARY), Mask::Redact), &good, 1).is_ok());
}

#[test]
fn long_messages_are_masked_in_pieces_and_hold_little() {
    let long = vec![b'x'; 3 * SEEN_BYTES_MAX];
    for mask in [Mask::Redact, Mask::Partial { first: 1, last: 1 }, Mask::Nullify] {
        for (before, after) in [(&b"1"[..], &long[..]), (&long, b"2")] {
            for (format, delimiter) in [(TEXT, b'\t'), (CSV, b',')] {
                let data = [before, &[delimiter], &long, &[delimiter], after, b"\n"].concat();
                let shown: &[u8] = match (mask, format) {
                    (Mask::Nullify, CopyFormat::Text) => b"\\N",
                    (Mask::Nullify, _) => b"",
                    _ => REDACTED.as_bytes(),
                };
                let expected = [before, &[delimiter], shown, &[delimiter], after, b"\n"].concat();
                let (found, counts) = in_pieces(&mut masker(&layout(format), mask), &data, 8192).unwrap();
                assert!(found == expected, "{mask:?} {format:?}");
                assert_eq!((counts.rows, counts.cells_masked), (1, 1));
            }
            let data = binary(&[[Some(before), Some(&long), Some(after)]]);
            let shown = if mask == Mask::Nullify { None } else { Some(REDACTED.as_bytes()) };
            let (found, _) = in_pieces(&mut masker(&layout(BINARY), mask), &data[..data.len() - 2], 8192).unwrap();
            assert!(found == binary(&[[Some(before), shown, Some(after)]])[..found.len()], "{mask:?}");
        }
    }
    // Its twin: what a mask may look at is looked at.
    let data = [b"1\t", &long[..SEEN_BYTES_MAX], b"\t2\n"].concat();
    let (found, _) = in_pieces(&mut masker(&layout(TEXT), Mask::Partial { first: 1, last: 1 }), &data, 8192).unwrap();
    assert!(found.starts_with(b"1\tx*") && found.ends_with(b"*x\t2\n"));
}

#[test]
fn a_row_that_waits_too_long_for_its_mask_comes_in_several_messages() {
    let long = vec![b'x'; HELD_BYTES_MAX + 100_000];
    let data = [&long[..], b"\tsecret\t\n"].concat();
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    let mut pieces = MaskedPieces::begin(data.len());
    let mut masker = masker(&layout(TEXT), Mask::Redact);
    let mut most = 0;
    for piece in data.chunks(65_536) {
        pieces.pass(&mut BytesMut::from(piece), &mut masker, &mut counts, &mut out).unwrap();
        most = most.max(pieces.held.len());
    }
    assert!(most <= HELD_BYTES_MAX, "{most}");
    assert!(content(&out) == [&long[..], b"\t[redacted by exeat]\t\n"].concat());
}

#[test]
fn a_second_row_in_a_message_whose_length_is_out_ends_the_copy() {
    let row = [b"1\tsecret\t", &vec![b'x'; 10_000][..], b"\n"].concat();
    let data = [&row[..], &row].concat();
    assert!(in_pieces(&mut masker(&layout(TEXT), Mask::Redact), &data, 1000).is_err());
    // Its twin: whole, or in messages of its own, it passes.
    assert!(in_messages(&mut masker(&layout(TEXT), Mask::Redact), &data, 1000).is_ok());
    assert!(in_pieces(&mut masker(&layout(TEXT), Mask::Redact), &row, 1000).is_ok());
}
