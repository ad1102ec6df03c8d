//! What a masked row costs: `cargo bench -p exeat-enforce` prints masked rows a second on one core, by type, strategy
//! and format, for rows of eight columns of which two are masked; the same as COPY data; and seconds for one cell of
//! 1 to 64 MiB, which must grow as the cell does. Seconds of CPU: what else the machine does is not in them.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]
#![allow(clippy::expect_used, reason = "what it measures must have worked")]

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use exeat_enforce::mask::{MaskKeys, TypeKin};
use exeat_enforce::plan::{CopiedColumn, CopyPlan, Outputs, PlannedColumn, PlannedOrigin, StatementPlan};
use exeat_enforce::release::copy::{CopyMasker, MaskedPieces};
use exeat_enforce::release::stream::RowStream;
use exeat_enforce::release::{BoundMask, Counts, Outbox, bind, release_row};
use exeat_enforce::scrub::Taint;
use exeat_enforce::seal::SealPlan;
use exeat_policy::{ColumnMask, Generalize, Lookup, Mask, Nulls};
use exeat_sql::{CatalogSnapshot, CopyFormat, CopyLayout, ForceQuote};
use exeat_wire::{BackendMessage, CopyResponse, DataRow, Format, RowDescription, backend, encode, split_backend};
use zeroize::Zeroizing;

const COLUMNS: usize = 8;
const ROWS: u32 = 200_000;
/// Of long cells in one measurement: the kernel counts CPU in ticks of some milliseconds.
const LONG_BYTES: usize = 2 << 30;
/// What a socket gives at once.
const PIECE_BYTES: usize = 64 * 1024;

const COARSE: Mask = Mask::Generalize(Generalize { bucket: Some(1000), ..Generalize::DEFAULT });

/// Type, what it is called, its value in text and in binary.
type Sample = (u32, &'static str, &'static [u8], &'static [u8]);

const TEXT: Sample = (25, "text", b"anna.kowalska@example.com", b"anna.kowalska@example.com");
const SAMPLES: [(Sample, Mask); 12] = [
    (TEXT, Mask::Redact),
    (TEXT, Mask::Nullify),
    (TEXT, Mask::Partial { first: 0, last: 4 }),
    (TEXT, Mask::Hash),
    (TEXT, Mask::Token),
    ((17, "bytea", b"\\x00112233445566778899aabbccddeeff", &[7; 16]), Mask::Hash),
    ((3802, "jsonb", b"{\"a\": 1}", b"\x01{\"a\": 1}"), Mask::Redact),
    ((1082, "date", b"2024-05-17", &[0, 0, 0x22, 0xc7]), COARSE),
    ((1184, "timestamptz", b"2024-05-17 10:11:12.5+02", &[0, 2, 0xbb, 0, 0, 0, 0, 0]), COARSE),
    ((23, "integer", b"52345", &[0, 0, 0xcc, 0x79]), COARSE),
    ((1700, "numeric", b"52345.67", &[0, 3, 0, 1, 0, 0, 0, 2, 0, 5, 9, 0x29, 0x1a, 0x2c]), COARSE),
    ((869, "inet", b"192.168.1.5", &[2, 32, 0, 4, 192, 168, 1, 5]), COARSE),
];

fn main() {
    let keys = Arc::new(MaskKeys::new(Zeroizing::new([7; 32])));
    let seals = SealPlan::default().with_keys(&keys, "shop");
    println!("| type | mask | text rows/s | binary rows/s | COPY text | COPY csv | COPY binary |");
    println!("|---|---|---|---|---|---|---|");
    for (sample, mask) in SAMPLES {
        let rows = [Format::Text, Format::Binary].map(|format| returned(&seals, sample, mask, format));
        let copies =
            [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary].map(|format| copied(&seals, sample, mask, format));
        let [text, binary] = rows.map(thousands);
        let [copy_text, csv, copy_binary] = copies.map(thousands);
        println!("| {} | {} | {text} | {binary} | {copy_text} | {csv} | {copy_binary} |", sample.1, mask.name());
    }
    println!("\n| cell | unmasked, row | masked, row | partial, row | masked, COPY text |");
    println!("|---|---|---|---|---|");
    for mib in [1, 4, 16, 64] {
        let row = |mask| long_row(&seals, mask, mib << 20);
        let (kept, masked, partial) =
            (row(None), row(Some(Mask::Redact)), row(Some(Mask::Partial { first: 1, last: 1 })));
        let copy = long_copy(&seals, mib << 20);
        println!("| {mib} MiB | {kept:.5} s | {masked:.5} s | {partial:.5} s | {copy:.5} s |");
    }
}

fn thousands(rows_a_second: f64) -> String {
    format!("{:.0} k", rows_a_second / 1000.0)
}

fn column_mask(mask: Mask) -> ColumnMask {
    ColumnMask { label: "ssn".to_owned(), mask, nulls: Nulls::Keep, lookup: Lookup::Refused, rule: "r".to_owned() }
}

fn bound(seals: &SealPlan, oid: u32, masks: &[Option<Mask>], format: Format) -> BoundMask {
    let planned = masks.iter().map(|mask| PlannedColumn {
        origin: PlannedOrigin::None,
        name: None,
        mask: mask.map(column_mask),
        watched: false,
    });
    let plan = StatementPlan { outputs: Outputs::Columns(planned.collect()), ..StatementPlan::quiet(Taint::Sealed) };
    bind(&plan, &described(oid, masks.len(), format), seals, &CatalogSnapshot::default(), |_| format).expect("bound")
}

fn described(oid: u32, columns: usize, format: Format) -> RowDescription {
    let mut bytes = BytesMut::new();
    bytes.put_u8(b'T');
    bytes.put_u32(u32::try_from(6 + 19 * columns).expect("few columns"));
    bytes.put_u16(u16::try_from(columns).expect("few columns"));
    for _ in 0..columns {
        bytes.put_slice(&[0; 7]);
        bytes.put_u32(oid);
        bytes.put_slice(&[0xff; 6]);
        bytes.put_i16(format.code());
    }
    match decode(bytes) {
        BackendMessage::RowDescription(described) => described,
        other => unreachable!("{other:?}"),
    }
}

fn decode(mut bytes: BytesMut) -> BackendMessage {
    backend::decode(split_backend(&mut bytes).expect("a message").expect("a whole one")).expect("it decodes")
}

fn data_row(cells: &[Option<&[u8]>]) -> DataRow {
    let mut bytes = BytesMut::new();
    encode::data_row(&mut bytes, cells).expect("a row");
    match decode(bytes) {
        BackendMessage::DataRow(row) => row,
        other => unreachable!("{other:?}"),
    }
}

fn two_of(mask: Mask) -> Vec<Option<Mask>> {
    (0..COLUMNS).map(|index| (index % 4 == 1).then_some(mask)).collect()
}

fn value(sample: Sample, format: Format) -> &'static [u8] {
    match format {
        Format::Text => sample.2,
        Format::Binary => sample.3,
    }
}

fn returned(seals: &SealPlan, sample: Sample, mask: Mask, format: Format) -> f64 {
    let bound = bound(seals, sample.0, &two_of(mask), format);
    let row = data_row(&[Some(value(sample, format)); COLUMNS]);
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    let started = cpu_seconds();
    for _ in 0..ROWS {
        release_row(&row, &bound, &mut counts, &mut out).expect("released");
        let length = out.len();
        out.advance(length);
    }
    f64::from(ROWS) / (cpu_seconds() - started)
}

fn layout(format: CopyFormat) -> CopyLayout {
    let is_csv = format == CopyFormat::Csv;
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

fn masker(seals: &SealPlan, oid: u32, masks: &[Option<Mask>], format: CopyFormat) -> CopyMasker {
    let copied = masks.iter().map(|mask| CopiedColumn {
        name: None,
        kin: TypeKin::of(oid, None),
        mask: mask.map(column_mask),
        force_quote: false,
    });
    let plan = CopyPlan { columns: copied.collect(), layout: layout(format) };
    let code = i16::from(format == CopyFormat::Binary);
    let mut bytes = BytesMut::new();
    bytes.put_u8(b'H');
    bytes.put_u32(u32::try_from(7 + 2 * masks.len()).expect("few columns"));
    bytes.put_u8(u8::try_from(code).expect("a code"));
    bytes.put_u16(u16::try_from(masks.len()).expect("few columns"));
    masks.iter().for_each(|_| bytes.put_i16(code));
    let begun: CopyResponse = match decode(bytes) {
        BackendMessage::CopyOutResponse(begun) => begun,
        other => unreachable!("{other:?}"),
    };
    CopyMasker::bind(&plan, &begun, seals).expect("bound")
}

fn copied(seals: &SealPlan, sample: Sample, mask: Mask, format: CopyFormat) -> f64 {
    let mut masker = masker(seals, sample.0, &two_of(mask), format);
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    let data = match format {
        CopyFormat::Text => [&[sample.2; COLUMNS].join(&b'\t')[..], b"\n"].concat().replace_backslashes(),
        CopyFormat::Csv => {
            let quoted = [b"\"", &sample.2.double_quotes()[..], b"\""].concat();
            [&vec![quoted; COLUMNS].join(&b',')[..], b"\n"].concat()
        }
        CopyFormat::Binary => {
            masker.release(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", &mut counts, &mut out).expect("released");
            let length = i32::try_from(sample.3.len()).expect("short").to_be_bytes();
            [&[0, 8][..], &[&length[..], sample.3].concat().repeat(COLUMNS)].concat()
        }
    };
    let started = cpu_seconds();
    for _ in 0..ROWS {
        masker.release(&data, &mut counts, &mut out).expect("released");
        let length = out.len();
        out.advance(length);
    }
    f64::from(ROWS) / (cpu_seconds() - started)
}

trait Escapes {
    fn replace_backslashes(&self) -> Vec<u8>;
    fn double_quotes(&self) -> Vec<u8>;
}

impl Escapes for [u8] {
    fn replace_backslashes(&self) -> Vec<u8> {
        self.iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b'\\' { 2 } else { 1 })).collect()
    }

    fn double_quotes(&self) -> Vec<u8> {
        self.iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 })).collect()
    }
}

/// How often a cell of so many bytes passes: the same bytes in all.
fn times(cell: usize) -> u32 {
    u32::try_from(LONG_BYTES / cell).expect("few")
}

/// A short cell in clear, the long one, another short one; as it comes from a socket.
fn long_row(seals: &SealPlan, mask: Option<Mask>, cell: usize) -> f64 {
    let bound = bound(seals, 25, &[None, mask, None], Format::Text);
    let long = vec![b'x'; cell];
    let row = data_row(&[Some(b"1"), Some(&long), Some(b"2")]);
    let payload = row.frame.payload();
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    let (times, started) = (times(cell), cpu_seconds());
    for _ in 0..times {
        let mut stream = RowStream::begin(payload.len());
        for piece in payload.chunks(PIECE_BYTES) {
            stream.pass(&mut BytesMut::from(piece), &bound, &mut counts, &mut out).expect("released");
            let length = out.len();
            out.advance(length);
        }
    }
    (cpu_seconds() - started) / f64::from(times)
}

fn long_copy(seals: &SealPlan, cell: usize) -> f64 {
    let mut masker = masker(seals, 25, &[None, Some(Mask::Redact), None], CopyFormat::Text);
    let data = [b"1\t", &vec![b'x'; cell][..], b"\t2\n"].concat();
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    let (times, started) = (times(cell), cpu_seconds());
    for _ in 0..times {
        let mut pieces = MaskedPieces::begin(data.len());
        for piece in data.chunks(PIECE_BYTES) {
            pieces.pass(&mut BytesMut::from(piece), &mut masker, &mut counts, &mut out).expect("released");
            let length = out.len();
            out.advance(length);
        }
    }
    (cpu_seconds() - started) / f64::from(times)
}

/// Of this thread so far.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).expect("a number") / 1e9
}
