//! Rows on stdin, one JSON object a line; the same rows masked on stdout. For `e2e/masking_reference.py`, which knows
//! by an implementation of its own what must come out. The keys are those of a root of zeros, target `shop`.
//!
//! `{"format": "t"|"b", "columns": [[type oid, mask, "keep"|"hide"] | [type oid], …], "cells": [hex | null, …]}` is
//! a DataRow; with `"copy": {…}` and `"data": hex` instead of cells it is COPY data, cut into messages of `"cut"` bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a tool of the tests")]

use std::io::{BufRead, BufWriter, Write};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use exeat_enforce::mask::{MaskKeys, TypeKin};
use exeat_enforce::plan::{CopiedColumn, CopyPlan, Outputs, PlannedColumn, PlannedOrigin, StatementPlan};
use exeat_enforce::release::copy::CopyMasker;
use exeat_enforce::release::{Counts, Outbox, bind, release_row};
use exeat_enforce::scrub::Taint;
use exeat_enforce::seal::SealPlan;
use exeat_policy::{ColumnMask, Generalize, Lookup, Mask, Nulls, Period};
use exeat_sql::{CatalogSnapshot, CopyFormat, CopyLayout, ForceQuote};
use exeat_wire::{BackendMessage, Format, backend, encode, split_backend};
use serde_json::{Value, json};
use zeroize::Zeroizing;

fn main() {
    let keys = Arc::new(MaskKeys::new(Zeroizing::new([0; 32])));
    let seals = SealPlan::default().with_keys(&keys, "shop");
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let row: Value = serde_json::from_str(&line.expect("lines of UTF-8")).expect("JSON");
        let masked = if row.get("copy").is_some() { copied(&row, &seals) } else { returned(&row, &seals) };
        writeln!(out, "{masked}").expect("a reader");
    }
}

struct Described {
    oid: u32,
    mask: Option<ColumnMask>,
}

fn columns(row: &Value) -> Vec<Described> {
    let columns = row["columns"].as_array().expect("columns");
    columns
        .iter()
        .map(|column| Described {
            oid: u32::try_from(column[0].as_u64().expect("an oid")).expect("an oid"),
            mask: column[1].as_str().map(|mask| ColumnMask {
                label: "ssn".to_owned(),
                mask: parse_mask(mask),
                nulls: if column[2] == "hide" { Nulls::Hide } else { Nulls::Keep },
                lookup: Lookup::Refused,
                rule: "r".to_owned(),
            }),
        })
        .collect()
}

fn parse_mask(text: &str) -> Mask {
    let words: Vec<&str> = text.split(':').collect();
    match words.as_slice() {
        ["redact"] => Mask::Redact,
        ["nullify"] => Mask::Nullify,
        ["hash"] => Mask::Hash,
        ["token"] => Mask::Token,
        ["partial", first, last] => {
            Mask::Partial { first: first.parse().expect("a number"), last: last.parse().expect("a number") }
        }
        ["generalize", to, bucket, ipv4, ipv6] => Mask::Generalize(Generalize {
            to: if *to == "month" { Period::Month } else { Period::Year },
            bucket: bucket.parse().ok(),
            ipv4: ipv4.parse().expect("bits"),
            ipv6: ipv6.parse().expect("bits"),
        }),
        other => panic!("no mask {other:?}"),
    }
}

fn format(row: &Value) -> Format {
    if row["format"] == "b" { Format::Binary } else { Format::Text }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(bytes: &BytesMut) -> BackendMessage {
    let frame = split_backend(&mut bytes.clone()).expect("a message").expect("a whole message");
    backend::decode(frame).expect("a message that decodes")
}

fn returned(row: &Value, seals: &SealPlan) -> Value {
    let columns = columns(row);
    let format = format(row);
    let mut bytes = BytesMut::new();
    bytes.put_u8(b'T');
    bytes.put_i32(i32::try_from(6 + 19 * columns.len()).expect("few columns"));
    bytes.put_i16(i16::try_from(columns.len()).expect("few columns"));
    for column in &columns {
        bytes.put_slice(&[0; 7]); // no name, no relation
        bytes.put_u32(column.oid);
        bytes.put_slice(&[0xff; 6]); // of any size, without modifier
        bytes.put_i16(format.code());
    }
    let BackendMessage::RowDescription(described) = decode(&bytes) else { panic!("no description") };
    let planned = columns.into_iter().map(|column| PlannedColumn {
        origin: PlannedOrigin::None,
        name: None,
        mask: column.mask,
        watched: false,
    });
    let plan = StatementPlan { outputs: Outputs::Columns(planned.collect()), ..StatementPlan::quiet(Taint::Sealed) };
    let bound = bind(&plan, &described, seals, &CatalogSnapshot::default(), |_| format).expect("as predicted");
    let cells: Vec<Option<Vec<u8>>> =
        row["cells"].as_array().expect("cells").iter().map(|cell| cell.as_str().map(unhex)).collect();
    let cells: Vec<Option<&[u8]>> = cells.iter().map(Option::as_deref).collect();
    let mut bytes = BytesMut::new();
    encode::data_row(&mut bytes, &cells).expect("a row");
    let BackendMessage::DataRow(data) = decode(&bytes) else { panic!("no row") };
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    release_row(&data, &bound, &mut counts, &mut out).expect("the row fits");
    let BackendMessage::DataRow(masked) = decode(&BytesMut::from(out.chunk())) else { panic!("no row") };
    json!(masked.cells().map(|cell| cell.expect("a cell").map(hex)).collect::<Vec<_>>())
}

fn copied(row: &Value, seals: &SealPlan) -> Value {
    let copy = &row["copy"];
    let byte = |name: &str| copy[name].as_str().and_then(|text| text.bytes().next()).expect("one byte");
    let layout = CopyLayout {
        format: match copy["format"].as_str() {
            Some("csv") => CopyFormat::Csv,
            Some("binary") => CopyFormat::Binary,
            _ => CopyFormat::Text,
        },
        delimiter: byte("delimiter"),
        null: copy["null"].as_str().expect("a null string").to_owned(),
        header: copy["header"] == true,
        quote: byte("quote"),
        escape: byte("escape"),
        force_quote: if copy["force"] == true { ForceQuote::All } else { ForceQuote::None },
    };
    let columns = columns(row).into_iter().map(|column| CopiedColumn {
        name: None,
        kin: TypeKin::of(column.oid, None),
        mask: column.mask,
        force_quote: copy["force"] == true,
    });
    let plan = CopyPlan { columns: columns.collect(), layout };
    let code = i8::from(plan.layout.format == CopyFormat::Binary);
    let mut bytes = BytesMut::new();
    bytes.put_u8(b'H');
    bytes.put_i32(i32::try_from(7 + 2 * plan.columns.len()).expect("few columns"));
    bytes.put_i8(code);
    bytes.put_i16(i16::try_from(plan.columns.len()).expect("few columns"));
    plan.columns.iter().for_each(|_| bytes.put_i16(code.into()));
    let BackendMessage::CopyOutResponse(begun) = decode(&bytes) else { panic!("no COPY") };
    let mut masker = CopyMasker::bind(&plan, &begun, seals).expect("as predicted");
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    let data = unhex(row["data"].as_str().expect("data"));
    let cut = usize::try_from(row["cut"].as_u64().expect("a size")).expect("a size");
    for piece in data.chunks(cut.max(1)) {
        masker.release(piece, &mut counts, &mut out).expect("the stream adds up");
    }
    masker.end().expect("the stream is whole");
    let (mut stream, mut masked) = (BytesMut::from(out.chunk()), Vec::new());
    while let Some(frame) = split_backend(&mut stream).expect("messages") {
        masked.extend_from_slice(frame.payload_slice());
    }
    json!(hex(&masked))
}
