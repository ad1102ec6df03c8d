//! Rows as lines: COPY's text and CSV formats. Where a cell ends is read as the server writes it; what a cell means
//! is only read where a mask looks at it.

use bytes::BytesMut;
use exeat_sql::{CopyFormat, CopyLayout};
use exeat_wire::CellAction;
use memchr::{memchr2, memchr3};

use super::super::{Counts, ReleaseError};
use super::Column;
use crate::mask::{MaskEncoder, SEEN_BYTES_MAX};

/// Longest name of a header line, as it may be written down: twice what a name can be, and quotes.
const NAME_BYTES_MAX: usize = 130;

#[derive(Debug)]
pub(super) struct Lines {
    format: CopyFormat,
    delimiter: u8,
    null: Vec<u8>,
    quote: u8,
    escape: u8,
    columns: Vec<Column>,
    /// The line under way names the columns.
    header: bool,
    column: usize,
    /// Something of the line under way has come.
    begun: bool,
    at: At,
    /// The masked cell, or name, under way, as it is written down.
    raw: Vec<u8>,
    /// There was more of it than anybody looks at.
    over: bool,
    scratch: Vec<u8>,
}

/// Where in a cell the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Plain,
    /// Text: after a backslash. CSV: after an escape inside quotes.
    Escape,
    Quoted,
    /// After a quote inside quotes that are escaped by doubling.
    Quote,
    /// After the closing quote.
    Closed,
}

enum End {
    Cell,
    Row,
}

impl Lines {
    pub(super) fn new(layout: &CopyLayout, columns: Vec<Column>) -> Self {
        Self {
            format: layout.format,
            delimiter: layout.delimiter,
            null: layout.null.clone().into_bytes(),
            quote: layout.quote,
            escape: layout.escape,
            columns,
            header: layout.header,
            column: 0,
            begun: false,
            at: At::Start,
            raw: Vec::new(),
            over: false,
            scratch: Vec::new(),
        }
    }

    pub(super) fn is_between_rows(&self) -> bool {
        !self.begun
    }

    pub(super) fn masks_left(&self) -> bool {
        self.header || self.columns.iter().skip(self.column).any(|column| column.encoder.is_some())
    }

    pub(super) fn feed(&mut self, data: &[u8], counts: &mut Counts, out: &mut BytesMut) -> Result<(), ReleaseError> {
        let mut rest = data;
        while !rest.is_empty() {
            self.begun = true;
            let (length, end) = self.scan(rest)?;
            let (cell, tail) = rest.split_at_checked(length).ok_or(ReleaseError::RowShape)?;
            self.content(cell, out)?;
            let Some(end) = end else { return Ok(()) };
            let (separator, tail) = tail.split_at_checked(1).ok_or(ReleaseError::RowShape)?;
            self.end_cell(counts, out)?;
            out.extend_from_slice(separator);
            self.next(end, counts)?;
            rest = tail;
        }
        Ok(())
    }

    fn next(&mut self, end: End, counts: &mut Counts) -> Result<(), ReleaseError> {
        self.at = At::Start;
        self.column = self.column.saturating_add(1);
        let last = self.column == self.columns.len();
        match end {
            End::Cell if last => return Err(ReleaseError::RowShape),
            End::Cell => {}
            End::Row if !last => return Err(ReleaseError::RowShape),
            End::Row => {
                counts.rows += u64::from(!self.header);
                (self.header, self.column, self.begun) = (false, 0, false);
            }
        }
        Ok(())
    }

    /// How many bytes belong to the cell, and what ends it, if anything does.
    fn scan(&mut self, data: &[u8]) -> Result<(usize, Option<End>), ReleaseError> {
        match self.format {
            CopyFormat::Csv => self.scan_csv(data),
            CopyFormat::Text | CopyFormat::Binary => Ok(self.scan_text(data)),
        }
    }

    fn scan_text(&mut self, data: &[u8]) -> (usize, Option<End>) {
        let mut from = usize::from(self.at == At::Escape);
        self.at = At::Plain;
        while let Some(rest) = data.get(from..) {
            let Some(found) = memchr3(self.delimiter, b'\n', b'\\', rest) else { break };
            let at = from.saturating_add(found);
            match data.get(at) {
                Some(b'\\') if at.saturating_add(1) == data.len() => self.at = At::Escape,
                Some(b'\\') => {}
                Some(b'\n') => return (at, Some(End::Row)),
                Some(_) | None => return (at, Some(End::Cell)),
            }
            from = at.saturating_add(2);
        }
        (data.len(), None)
    }

    fn scan_csv(&mut self, data: &[u8]) -> Result<(usize, Option<End>), ReleaseError> {
        let mut at = 0;
        while let Some(byte) = data.get(at).copied() {
            let rest = data.get(at..).unwrap_or_default();
            match self.at {
                At::Start if byte == self.quote => self.at = At::Quoted,
                At::Start => {
                    self.at = At::Plain;
                    continue;
                }
                At::Plain | At::Closed if byte == b'\n' => return Ok((at, Some(End::Row))),
                At::Plain | At::Closed if byte == self.delimiter => return Ok((at, Some(End::Cell))),
                // The server writes nothing behind a closing quote.
                At::Closed => return Err(ReleaseError::RowShape),
                At::Plain => {
                    at = at.saturating_add(memchr2(self.delimiter, b'\n', rest).unwrap_or(rest.len()));
                    continue;
                }
                At::Escape => self.at = At::Quoted,
                At::Quote if byte == self.quote => self.at = At::Quoted,
                At::Quote => {
                    self.at = At::Closed;
                    continue;
                }
                At::Quoted => match memchr2(self.quote, self.escape, rest) {
                    None => return Ok((data.len(), None)),
                    Some(found) => {
                        at = at.saturating_add(found);
                        self.at = match data.get(at) {
                            Some(byte) if *byte == self.quote && self.quote == self.escape => At::Quote,
                            Some(byte) if *byte == self.quote => At::Closed,
                            Some(_) | None => At::Escape,
                        };
                    }
                },
            }
            at = at.saturating_add(1);
        }
        Ok((data.len(), None))
    }

    fn encoder(&self) -> Option<&MaskEncoder> {
        self.columns.get(self.column)?.encoder.as_ref()
    }

    fn content(&mut self, cell: &[u8], out: &mut BytesMut) -> Result<(), ReleaseError> {
        let bound = match (self.header, self.encoder()) {
            (true, _) => NAME_BYTES_MAX,
            (false, None) => {
                out.extend_from_slice(cell);
                return Ok(());
            }
            // Enough to tell whether it is NULL.
            (false, Some(encoder)) if encoder.is_constant() => self.null.len().saturating_add(1),
            // Every byte may be escaped, and quotes stand around it.
            (false, Some(_)) => 2 * SEEN_BYTES_MAX + 2,
        };
        let room = bound.saturating_sub(self.raw.len());
        self.over |= cell.len() > room;
        self.raw.extend_from_slice(cell.get(..room).unwrap_or(cell));
        if self.header && self.over {
            return Err(ReleaseError::RowShape);
        }
        Ok(())
    }

    fn end_cell(&mut self, counts: &mut Counts, out: &mut BytesMut) -> Result<(), ReleaseError> {
        if self.header {
            return self.end_name(out);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let Some(encoder) = self.encoder() else { return Ok(()) };
        // Quotes are no part of the null string: a quoted cell is never NULL.
        let is_null = !self.over && self.raw == self.null;
        let action = match (is_null, self.over || encoder.is_constant()) {
            (true, _) => encoder.apply(None, &mut scratch),
            (false, true) => encoder.apply_unseen(&mut scratch),
            (false, false) => encoder.apply(Some(&self.meaning()), &mut scratch),
        };
        counts.cells_masked += u64::from(!is_null);
        match action {
            CellAction::Replaced => self.write(&scratch, out),
            // A mask never keeps; should one, the cell is NULL.
            CellAction::Null | CellAction::Keep => out.extend_from_slice(&self.null),
        }
        self.scratch = scratch;
        self.raw.clear();
        self.over = false;
        Ok(())
    }

    /// A name is a channel too: it must be the one that the statement or the catalog gave.
    fn end_name(&mut self, out: &mut BytesMut) -> Result<(), ReleaseError> {
        let expected = self.columns.get(self.column).and_then(|column| column.name.as_deref());
        if expected.is_some_and(|name| name.as_bytes() != self.meaning()) {
            return Err(ReleaseError::RowShape);
        }
        out.extend_from_slice(&std::mem::take(&mut self.raw));
        Ok(())
    }

    /// What the cell under way stands for.
    fn meaning(&self) -> Vec<u8> {
        match self.format {
            CopyFormat::Csv => self.unquoted(),
            CopyFormat::Text | CopyFormat::Binary => unescaped(&self.raw),
        }
    }

    fn unquoted(&self) -> Vec<u8> {
        let Some(inside) = self.raw.strip_prefix(&[self.quote]) else { return self.raw.clone() };
        let inside = inside.strip_suffix(&[self.quote]).unwrap_or(inside);
        let mut value = Vec::with_capacity(inside.len());
        let mut bytes = inside.iter().copied();
        while let Some(byte) = bytes.next() {
            value.push(if byte == self.escape { bytes.next().unwrap_or(byte) } else { byte });
        }
        value
    }

    /// As the server would write the value down.
    fn write(&self, value: &[u8], out: &mut BytesMut) {
        if self.format != CopyFormat::Csv {
            return write_escaped(value, self.delimiter, out);
        }
        let special = |byte: &u8| *byte == self.delimiter || *byte == self.quote || matches!(byte, b'\n' | b'\r');
        let forced = self.columns.get(self.column).is_some_and(|column| column.force_quote);
        if !forced && value != self.null && value != b"\\." && !value.iter().any(special) {
            return out.extend_from_slice(value);
        }
        out.extend_from_slice(&[self.quote]);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.extend_from_slice(&[self.escape]);
            }
            out.extend_from_slice(&[*byte]);
        }
        out.extend_from_slice(&[self.quote]);
    }
}

/// The letters of the control characters that text format writes with a backslash.
const ESCAPES: [(u8, u8); 6] = [(8, b'b'), (12, b'f'), (b'\n', b'n'), (b'\r', b'r'), (b'\t', b't'), (11, b'v')];

fn unescaped(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        let next = if byte == b'\\' { bytes.next() } else { None };
        value.push(next.map_or(byte, |next| {
            ESCAPES.iter().find(|(_, letter)| *letter == next).map_or(next, |(control, _)| *control)
        }));
    }
    value
}

fn write_escaped(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    for byte in value {
        match ESCAPES.iter().find(|(control, _)| control == byte) {
            Some((_, letter)) => out.extend_from_slice(&[b'\\', *letter]),
            None if *byte == b'\\' || *byte == delimiter => out.extend_from_slice(&[b'\\', *byte]),
            None => out.extend_from_slice(&[*byte]),
        }
    }
}
