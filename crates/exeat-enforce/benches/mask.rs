//! What a masked row costs: `cargo bench -p exeat-enforce` prints masked rows a second on one core, by type, strategy
//! and format, for rows of eight columns of which two are masked; the same as COPY data; and the time that one cell of
//! 1 KiB to 64 MiB takes, which must grow as the cell does. Time of CPU: what else the machine does is not in it.
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
/// One measurement, about: the kernel counts CPU in ticks of some milliseconds.
const SECONDS: f64 = 0.4;
/// What a socket gives at once.
const PIECE_BYTES: usize = 64 * 1024;

const COARSE: Mask = Mask::Generalize(Generalize { bucket: Some(1000), ..Generalize::DEFAULT });

/// The first OID that is not the server's own.
const USER_TYPE: u32 = 16_384;
/// A longer row is not assembled, and passes piece by piece.
const ASSEMBLED_BYTES: usize = 256 << 10;

/// Type, what it is called, its value in text and in binary.
type Sample = (u32, &'static str, &'static [u8], &'static [u8]);

const PARTIAL: Mask = Mask::Partial { first: 0, last: 4 };

/// Each type with the strategies that leave it something; every other one makes its values NULL, as `nullify` does.
const SAMPLES: [(Sample, &[Mask]); 16] = [
    (
        (25, "text", b"anna.kowalska@example.com", b"anna.kowalska@example.com"),
        &[Mask::Redact, PARTIAL, Mask::Hash, Mask::Token, Mask::Nullify],
    ),
    (
        (1043, "varchar", b"anna.kowalska@example.com", b"anna.kowalska@example.com"),
        &[Mask::Redact, PARTIAL, Mask::Hash, Mask::Token],
    ),
    (
        (17, "bytea", b"\\x00112233445566778899aabbccddeeff", &[7; 16]),
        &[Mask::Redact, Mask::Hash, Mask::Token, Mask::Nullify],
    ),
    ((114, "json", b"{\"a\": 1}", b"{\"a\": 1}"), &[Mask::Redact, Mask::Hash]),
    ((3802, "jsonb", b"{\"a\": 1}", b"\x01{\"a\": 1}"), &[Mask::Redact, Mask::Hash]),
    ((1700, "numeric", b"52345.67", &[0, 3, 0, 1, 0, 0, 0, 2, 0, 5, 9, 0x29, 0x1a, 0x2c]), &[COARSE, Mask::Nullify]),
    ((20, "bigint", b"52345", &[0, 0, 0, 0, 0, 0, 0xcc, 0x79]), &[COARSE]),
    ((23, "integer", b"52345", &[0, 0, 0xcc, 0x79]), &[COARSE]),
    ((701, "double precision", b"52345.5", &[0x40, 0xe9, 0x8f, 0x30, 0, 0, 0, 0]), &[COARSE]),
    ((1082, "date", b"2024-05-17", &[0, 0, 0x22, 0xc7]), &[COARSE]),
    ((1184, "timestamptz", b"2024-05-17 10:11:12.5+02", &[0, 2, 0xbb, 0, 0, 0, 0, 0]), &[COARSE]),
    (
        (
            2950,
            "uuid",
            b"6ecd8c99-4036-403d-bf84-cf8400f67836",
            b"\x6e\xcd\x8c\x99\x40\x36\x40\x3d\xbf\x84\xcf\x84\0\xf6\x78\x36",
        ),
        &[Mask::Hash, Mask::Nullify],
    ),
    ((869, "inet", b"192.168.1.5", &[2, 32, 0, 4, 192, 168, 1, 5]), &[COARSE]),
    (
        (
            1007,
            "integer[]",
            b"{1,2}",
            &[
                0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0,
                0, 2,
            ],
        ),
        &[Mask::Nullify],
    ),
    ((USER_TYPE, "an enum", b"pending", b"pending"), &[Mask::Nullify]),
    (
        (
            USER_TYPE,
            "a composite",
            b"(1,Riga)",
            &[0, 0, 0, 2, 0, 0, 0, 23, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 4, b'R', b'i', b'g', b'a'],
        ),
        &[Mask::Nullify],
    ),
];

fn main() {
    let keys = Arc::new(MaskKeys::new(Zeroizing::new([7; 32])));
    let seals = SealPlan::default().with_keys(&keys, "shop");
    println!("| type | strategy | text | binary | COPY text | COPY csv | COPY binary |");
    println!("|---|---|---|---|---|---|---|");
    for (sample, masks) in SAMPLES {
        masks.iter().for_each(|mask| println!("{}", line(&seals, sample, *mask)));
    }
    println!(
        "\n| cell | not masked, µs | `redact`, µs | `partial`, µs | `redact` in COPY text, µs | `redact`, µs a MiB |"
    );
    println!("|---|---|---|---|---|---|");
    for kib in [1_u32, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10] {
        let bytes = usize::try_from(kib << 10).expect("a few MiB");
        let row = |mask| long_row(&seals, mask, bytes);
        let (kept, masked, partial) =
            (row(None), row(Some(Mask::Redact)), row(Some(Mask::Partial { first: 1, last: 1 })));
        let copy = long_copy(&seals, bytes);
        let size = if kib < 1024 { format!("{kib} KiB") } else { format!("{} MiB", kib >> 10) };
        let [kept, masked, partial, copy] = [kept, masked, partial, copy].map(|seconds| seconds * 1e6);
        let a_mib = masked * 1024.0 / f64::from(kib);
        println!("| {size} | {kept:.2} | {masked:.2} | {partial:.2} | {copy:.2} | {a_mib:.0} |");
    }
}

/// One line of the table: rows a second in every format.
fn line(seals: &SealPlan, sample: Sample, mask: Mask) -> String {
    let rows = [Format::Text, Format::Binary].map(|format| returned(seals, sample, mask, format));
    let copies =
        [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary].map(|format| copied(seals, sample, mask, format));
    let [text, binary] = rows.map(thousands);
    let [copy_text, csv, copy_binary] = copies.map(thousands);
    format!("| {} | `{}` | {text} | {binary} | {copy_text} | {csv} | {copy_binary} |", sample.1, mask.name())
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
    let seconds = timed(|| {
        release_row(&row, &bound, &mut counts, &mut out).expect("released");
        sent(&mut out);
    });
    1.0 / seconds
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
    let seconds = timed(|| {
        masker.release(&data, &mut counts, &mut out).expect("released");
        sent(&mut out);
    });
    1.0 / seconds
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

/// A long value between two short ones as it comes from a socket: in one buffer that is filled again and again, so that
/// no cell is longer than what the processor has at hand.
fn pieces<'a>(before: &'a [u8], cell: usize, long: &'a [u8], after: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let whole = std::iter::repeat_n(long, cell / PIECE_BYTES);
    let rest = long.get(..cell % PIECE_BYTES).expect("less than a piece");
    std::iter::once(before).chain(whole).chain([rest, after])
}

/// Seconds for a row of a short cell in clear, a long one, another short one.
fn long_row(seals: &SealPlan, mask: Option<Mask>, cell: usize) -> f64 {
    let bound = bound(seals, 25, &[None, mask, None], Format::Text);
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    if cell < ASSEMBLED_BYTES {
        let row = data_row(&[Some(b"1"), Some(&vec![b'x'; cell]), Some(b"2")]);
        return timed(|| {
            release_row(&row, &bound, &mut counts, &mut out).expect("released");
            sent(&mut out);
        });
    }
    let length = i32::try_from(cell).expect("short").to_be_bytes();
    let before = [&[0, 3, 0, 0, 0, 1, b'1'], &length[..]].concat();
    let after = [0, 0, 0, 1, b'2'];
    let long = vec![b'x'; PIECE_BYTES];
    timed(|| {
        let mut stream = RowStream::begin(before.len() + cell + after.len());
        for piece in pieces(&before, cell, &long, &after) {
            stream.pass(&mut BytesMut::from(piece), &bound, &mut counts, &mut out).expect("released");
            sent(&mut out);
        }
    })
}

fn long_copy(seals: &SealPlan, cell: usize) -> f64 {
    let mut masker = masker(seals, 25, &[None, Some(Mask::Redact), None], CopyFormat::Text);
    let (before, after, long) = (b"1\t", b"\t2\n", vec![b'x'; PIECE_BYTES]);
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    timed(|| {
        let mut copied = MaskedPieces::begin(before.len() + cell + after.len());
        for piece in pieces(before, cell, &long, after) {
            copied.pass(&mut BytesMut::from(piece), &mut masker, &mut counts, &mut out).expect("released");
            sent(&mut out);
        }
    })
}

/// The socket took it.
fn sent(out: &mut Outbox) {
    let length = out.len();
    out.advance(length);
}

/// Seconds of this thread's CPU for one run of `work`.
fn timed(mut work: impl FnMut()) -> f64 {
    let (mut done, mut batch, started) = (0_u32, 1_u32, cpu_seconds());
    loop {
        (0..batch).for_each(|_| work());
        done += batch;
        let seconds = cpu_seconds() - started;
        if seconds >= SECONDS {
            return seconds / f64::from(done);
        }
        batch = (done / 4).clamp(1, 1_000_000);
    }
}

/// Of this thread so far.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).expect("a number") / 1e9
}
