//! Masks planned from a few bytes, and what must hold of everything that comes out of them.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use bytes::{BufMut, BytesMut};
use exeat_enforce::mask::{MaskKeys, SEEN_BYTES_MAX, TypeKin};
use exeat_enforce::plan::{CopiedColumn, CopyPlan, Outputs, PlannedColumn, PlannedOrigin, StatementPlan};
use exeat_enforce::release::copy::{CopyMasker, MaskedPieces};
use exeat_enforce::release::stream::RowStream;
use exeat_enforce::release::{BoundMask, Counts, Outbox, bind, release_row};
use exeat_enforce::scrub::Taint;
use exeat_enforce::seal::SealPlan;
use exeat_policy::{ColumnMask, Generalize, Lookup, Mask, Nulls, Period};
use exeat_sql::{CatalogSnapshot, CopyFormat, CopyLayout, ForceQuote};
use exeat_wire::{BackendMessage, Format, backend, split_backend};
use zeroize::Zeroizing;

/// Types of every kin a mask is written into, and one of none.
const TYPES: [u32; 20] =
    [25, 19, 1042, 114, 3802, 17, 2950, 1082, 1114, 1184, 21, 23, 20, 700, 701, NUMERIC, 869, 650, 16, 1009];

const NUMERIC: u32 = 1700;

const MASKS: [Option<Mask>; 8] = [
    None,
    Some(Mask::Redact),
    Some(Mask::Nullify),
    Some(Mask::Partial { first: 1, last: 3 }),
    Some(Mask::Hash),
    Some(Mask::Token),
    Some(Mask::Generalize(Generalize { to: Period::Month, bucket: Some(7), ipv4: 20, ipv6: 50 })),
    Some(Mask::Generalize(Generalize { to: Period::Year, bucket: Some(1_000_000_000_000), ipv4: 0, ipv6: 0 })),
];

static SEALS: LazyLock<SealPlan> =
    LazyLock::new(|| SealPlan::default().with_keys(&Arc::new(MaskKeys::new(Zeroizing::new([0; 32]))), "shop"));

#[derive(Debug, Clone, Copy)]
struct Column {
    oid: u32,
    mask: Option<Mask>,
    nulls: Nulls,
}

#[derive(Debug)]
pub struct Plan {
    columns: Vec<Column>,
    way: u8,
    cut: usize,
}

impl Plan {
    /// Way and number of columns, where to cut, two bytes for each column.
    pub fn read(input: &[u8]) -> Option<(Self, &[u8])> {
        let [way, high, low, rest @ ..] = input else { return None };
        let (columns, stream) = rest.split_at_checked(2 * (usize::from(way / 16) % 4 + 1))?;
        let columns = columns.chunks(2).map(|column| Column {
            oid: TYPES[usize::from(column[0]) % TYPES.len()],
            mask: MASKS[usize::from(column[1]) % MASKS.len()],
            nulls: if column[1] & 128 == 0 { Nulls::Keep } else { Nulls::Hide },
        });
        let cut = usize::from(u16::from_be_bytes([*high, *low])) + 1;
        Some((Self { columns: columns.collect(), way: way % 16, cut }, stream))
    }

    /// Whether a numeric is put into a bucket, which is the one mask that writes its digits out.
    pub fn reads_digits(&self) -> bool {
        let generalized = |column: &Column| matches!(column.mask, Some(Mask::Generalize(_)));
        self.columns.iter().any(|column| column.oid == NUMERIC && generalized(column))
    }

    pub fn check(&self, stream: &[u8]) {
        let layout = |format, delimiter, null: &str, quote, escape| CopyLayout {
            format,
            delimiter,
            null: null.to_owned(),
            header: self.way & 8 != 0,
            quote,
            escape,
            force_quote: ForceQuote::None,
        };
        match self.way % 8 {
            0 | 1 => self.row(stream, Format::Text),
            2 => self.row(stream, Format::Binary),
            3 => self.copy(stream, layout(CopyFormat::Text, b'\t', "\\N", b'"', b'"')),
            4 => self.copy(stream, layout(CopyFormat::Csv, b',', "", b'"', b'"')),
            5 => self.copy(stream, layout(CopyFormat::Csv, b';', "none", b'\'', b'\\')),
            6 => self.copy(stream, layout(CopyFormat::Text, b'|', "\\X", b'"', b'"')),
            _ => self.copy(stream, CopyLayout { header: false, ..layout(CopyFormat::Binary, b',', "", b'"', b'"') }),
        }
    }

    fn mask(column: &Column) -> Option<ColumnMask> {
        let (label, rule) = ("ssn".to_owned(), "r".to_owned());
        column.mask.map(|mask| ColumnMask { label, mask, nulls: column.nulls, lookup: Lookup::Refused, rule })
    }

    fn bound(&self, format: Format) -> BoundMask {
        let mut bytes = BytesMut::new();
        bytes.put_u8(b'T');
        bytes.put_u32(u32::try_from(6 + 19 * self.columns.len()).expect("few columns"));
        bytes.put_u16(u16::try_from(self.columns.len()).expect("few columns"));
        for column in &self.columns {
            bytes.put_slice(&[0; 7]);
            bytes.put_u32(column.oid);
            bytes.put_slice(&[0xff; 6]);
            bytes.put_i16(format.code());
        }
        let BackendMessage::RowDescription(described) = decode(&bytes) else { panic!("no description") };
        let planned = |column| PlannedColumn {
            origin: PlannedOrigin::None,
            name: None,
            mask: Self::mask(column),
            watched: false,
        };
        let plan = StatementPlan {
            outputs: Outputs::Columns(self.columns.iter().map(planned).collect()),
            ..StatementPlan::quiet(Taint::Sealed)
        };
        bind(&plan, &described, &SEALS, &CatalogSnapshot::default(), |_| format).expect("as predicted")
    }

    /// The stream is the cells of a row, their number excepted: most inputs are then rows of the planned shape.
    fn row(&self, stream: &[u8], format: Format) {
        let bound = self.bound(format);
        let mut bytes = BytesMut::new();
        bytes.put_u8(b'D');
        bytes.put_u32(u32::try_from(stream.len() + 6).expect("inputs are short"));
        bytes.put_u16(u16::try_from(self.columns.len()).expect("few columns"));
        bytes.put_slice(stream);
        let BackendMessage::DataRow(row) = decode(&bytes) else { panic!("no row") };
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        let released = release_row(&row, &bound, &mut counts, &mut out);
        let mut pieces = Outbox::default();
        let mut streamed = RowStream::begin(bytes.len() - 5);
        let mut input = BytesMut::new();
        let mut failed = false;
        for piece in bytes[5..].chunks(self.cut) {
            input.extend_from_slice(piece);
            failed |= streamed.pass(&mut input, &bound, &mut Counts::default(), &mut pieces).is_err();
            if failed {
                break;
            }
        }
        let masked = self.columns.iter().any(|column| column.mask.is_some());
        if released.is_err() {
            assert!(failed && out.is_empty());
            return;
        }
        // Without a mask a row is not looked into as a whole; in pieces it is.
        assert!(!failed || !masked, "a row in pieces fails as the whole does");
        if failed {
            return;
        }
        assert_eq!(out.chunk(), pieces.chunk(), "cutting changes nothing");
        let BackendMessage::DataRow(now) = decode(&BytesMut::from(out.chunk())) else { panic!("no row") };
        assert_eq!(now.field_count(), self.columns.len());
        for ((before, after), column) in row.cells().zip(now.cells()).zip(&self.columns) {
            let (before, after) = (before.expect("a cell"), after.expect("a cell"));
            match column.mask {
                None => assert_eq!(before, after),
                Some(mask) => Self::holds(mask, column, format, before, after),
            }
        }
    }

    fn holds(mask: Mask, column: &Column, format: Format, before: Option<&[u8]>, after: Option<&[u8]>) {
        assert!(before.is_some() || after.is_none() || column.nulls == Nulls::Hide, "NULL stays NULL");
        let Some(after) = after else { return };
        assert!(valid(column.oid, format, after), "{column:?} {format:?} {after:?}");
        let bound = match mask {
            Mask::Redact | Mask::Nullify | Mask::Refuse => 64,
            Mask::Partial { .. } | Mask::Hash | Mask::Token | Mask::Generalize(_) => {
                4 * before.map_or(0, <[u8]>::len).min(SEEN_BYTES_MAX) + 128 * 1024
            }
        };
        assert!(after.len() <= bound, "no more than a mask has to say");
        if let (Mask::Redact, Some(before)) = (mask, before) {
            assert!(
                after != before
                    || before.windows(19).any(|part| part == b"[redacted by exeat]")
                    || is_hex_of_it(before)
            );
        }
    }

    fn copy(&self, stream: &[u8], layout: CopyLayout) {
        let copied = |column: &Column| CopiedColumn {
            name: None,
            kin: TypeKin::of(column.oid, None),
            mask: Self::mask(column),
            force_quote: false,
        };
        let plan = CopyPlan { columns: self.columns.iter().map(copied).collect(), layout };
        let whole = self.feed(&plan, stream, stream.len().max(1));
        assert_eq!(self.feed(&plan, stream, self.cut), whole, "cutting changes nothing");
        let pieces = self.pieces(&plan, stream);
        if let (Some((content, true)), Some(pieces)) = (&whole, pieces) {
            assert_eq!(&pieces, content, "a long message in pieces is the same");
        }
        let Some((content, true)) = whole else { return };
        // What was masked can be masked again: it is framed as it was, cell by cell.
        let again =
            self.feed(&plan, &content, content.len().max(1)).expect("what comes out is a stream of the same kind");
        assert!(again.1, "and it ends where it did");
    }

    fn masker(&self, plan: &CopyPlan) -> CopyMasker {
        let code = i16::from(plan.layout.format == CopyFormat::Binary);
        let mut bytes = BytesMut::new();
        bytes.put_u8(b'H');
        bytes.put_u32(u32::try_from(7 + 2 * self.columns.len()).expect("few columns"));
        bytes.put_u8(u8::try_from(code).expect("a code"));
        bytes.put_u16(u16::try_from(self.columns.len()).expect("few columns"));
        self.columns.iter().for_each(|_| bytes.put_i16(code));
        let BackendMessage::CopyOutResponse(begun) = decode(&bytes) else { panic!("no COPY") };
        CopyMasker::bind(plan, &begun, &SEALS).expect("as predicted")
    }

    /// What comes out, and whether it ended as a stream does. `None`: it does not add up.
    fn feed(&self, plan: &CopyPlan, stream: &[u8], size: usize) -> Option<(Vec<u8>, bool)> {
        let mut masker = self.masker(plan);
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        for piece in stream.chunks(size) {
            masker.release(piece, &mut counts, &mut out).ok()?;
        }
        Some((content(&out), masker.end().is_ok()))
    }

    fn pieces(&self, plan: &CopyPlan, stream: &[u8]) -> Option<Vec<u8>> {
        let mut masker = self.masker(plan);
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        let mut pieces = MaskedPieces::begin(stream.len());
        for piece in stream.chunks(self.cut) {
            pieces.pass(&mut BytesMut::from(piece), &mut masker, &mut counts, &mut out).ok()?;
        }
        Some(content(&out))
    }
}

fn is_hex_of_it(before: &[u8]) -> bool {
    before.starts_with(b"\\x5b7265646163746564")
}

fn decode(bytes: &BytesMut) -> BackendMessage {
    let frame = split_backend(&mut bytes.clone()).expect("a message").expect("a whole message");
    backend::decode(frame).expect("a message that decodes")
}

fn content(out: &Outbox) -> Vec<u8> {
    let (mut stream, mut content) = (BytesMut::from(out.chunk()), Vec::new());
    while let Some(frame) = split_backend(&mut stream).expect("whole messages") {
        assert_eq!(frame.tag(), b'd');
        assert!(!frame.payload_slice().is_empty());
        content.extend_from_slice(frame.payload_slice());
    }
    assert!(stream.is_empty());
    content
}

/// Whether a server would take it for a value of the type.
fn valid(oid: u32, format: Format, value: &[u8]) -> bool {
    let text = std::str::from_utf8(value);
    match (oid, format) {
        (25 | 1042, _) => text.is_ok(),
        (19, _) => text.is_ok() && value.len() < 128 * 1024,
        (114, _) | (3802, Format::Text) => is_json_string(value),
        (3802, Format::Binary) => value.strip_prefix(&[1]).is_some_and(is_json_string),
        (17, Format::Binary) => true,
        (17, Format::Text) => value.starts_with(b"\\x") && value.len().is_multiple_of(2),
        (2950, Format::Binary) | (1114 | 1184 | 20 | 701, Format::Binary) => matches!(value.len(), 8 | 16),
        (2950, Format::Text) => value.len() == 36,
        (1082 | 23 | 700, Format::Binary) => value.len() == 4,
        (21, Format::Binary) => value.len() == 2,
        (1082 | 1114 | 1184, Format::Text) => text.is_ok_and(|text| text.len() >= 10 && text.contains("-01")),
        (21, Format::Text) => text.is_ok_and(|text| text.parse::<i16>().is_ok()),
        (23, Format::Text) => text.is_ok_and(|text| text.parse::<i32>().is_ok()),
        (20, Format::Text) => text.is_ok_and(|text| text.parse::<i64>().is_ok()),
        (700 | 701, Format::Text) => text.is_ok_and(|text| text.parse::<f64>().is_ok_and(f64::is_finite)),
        (1700, Format::Text) => {
            let digits = value.strip_prefix(b"-").unwrap_or(value);
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        (1700, Format::Binary) => value.len() >= 8 && value.len().is_multiple_of(2),
        (869 | 650, Format::Text) => text.is_ok_and(|text| {
            text.split_once('/').is_some_and(|(address, bits)| {
                address.parse::<IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 128)
            })
        }),
        (869 | 650, Format::Binary) => matches!(value.len(), 8 | 20),
        // Other types are NULL under every mask.
        _ => false,
    }
}

fn is_json_string(value: &[u8]) -> bool {
    let inside = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inside.is_some_and(|inside| !inside.iter().any(|byte| matches!(byte, b'"' | b'\\') || *byte < 32))
}
