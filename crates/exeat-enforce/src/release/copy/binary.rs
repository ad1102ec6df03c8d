//! Rows in COPY's binary format: a signature, then for each row the number of its cells and each with its length in
//! front, then a trailer.

use bytes::BytesMut;
use exeat_wire::CellAction;

use super::super::{Counts, ReleaseError};
use super::Column;
use crate::mask::MaskEncoder;

/// The signature, no flags, no extension: what every server we speak to sends.
const PREAMBLE: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// In the place of a row's number of cells.
const TRAILER: i16 = -1;

#[derive(Debug)]
pub(super) struct BinaryRows {
    columns: Vec<Column>,
    column: usize,
    at: At,
    /// Part of a number, or of the preamble, that has come.
    part: Vec<u8>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum At {
    Preamble,
    /// The number of cells comes next.
    Count,
    /// A cell's length.
    Length,
    /// So much of a cell that stays.
    Kept(usize),
    /// So much of a masked cell that no mask looks at.
    Dropped(usize),
    /// So much of a masked cell whose mask looks at it.
    Seen(usize, Vec<u8>),
    Ended,
}

impl BinaryRows {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, column: 0, at: At::Preamble, part: Vec::new(), scratch: Vec::new() }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.at, At::Ended)
    }

    pub(super) fn masks_left(&self) -> bool {
        self.columns.iter().skip(self.column).any(|column| column.encoder.is_some())
    }

    pub(super) fn feed(&mut self, data: &[u8], counts: &mut Counts, out: &mut BytesMut) -> Result<(), ReleaseError> {
        let mut rest = data;
        while !rest.is_empty() {
            match &mut self.at {
                At::Preamble => {
                    let Some(preamble) = take::<19>(&mut self.part, &mut rest) else { break };
                    if preamble != *PREAMBLE {
                        return Err(ReleaseError::RowShape);
                    }
                    out.extend_from_slice(&preamble);
                    self.at = At::Count;
                }
                At::Count => {
                    let Some(count) = take::<2>(&mut self.part, &mut rest) else { break };
                    self.begin_row(i16::from_be_bytes(count))?;
                    out.extend_from_slice(&count);
                }
                At::Length => {
                    let Some(length) = take::<4>(&mut self.part, &mut rest) else { break };
                    self.begin_cell(i32::from_be_bytes(length), counts, out)?;
                }
                At::Kept(left) => {
                    let piece = split(&mut rest, left);
                    out.extend_from_slice(piece);
                    if *left == 0 {
                        self.next(counts);
                    }
                }
                At::Dropped(left) => {
                    split(&mut rest, left);
                    if *left == 0 {
                        self.masked(|encoder, scratch| encoder.apply_unseen(scratch), counts, out)?;
                    }
                }
                At::Seen(left, seen) => {
                    let piece = split(&mut rest, left);
                    seen.extend_from_slice(piece);
                    if *left == 0 {
                        let value = std::mem::take(seen);
                        self.masked(|encoder, scratch| encoder.apply(Some(&value), scratch), counts, out)?;
                    }
                }
                At::Ended => return Err(ReleaseError::RowShape),
            }
        }
        Ok(())
    }

    fn begin_row(&mut self, count: i16) -> Result<(), ReleaseError> {
        self.at = match usize::try_from(count) {
            Ok(cells) if cells == self.columns.len() => At::Length,
            Err(_) if count == TRAILER => At::Ended,
            Ok(_) | Err(_) => return Err(ReleaseError::RowShape),
        };
        Ok(())
    }

    fn encoder(&self) -> Option<&MaskEncoder> {
        self.columns.get(self.column)?.encoder.as_ref()
    }

    fn begin_cell(&mut self, announced: i32, counts: &mut Counts, out: &mut BytesMut) -> Result<(), ReleaseError> {
        let length = match usize::try_from(announced) {
            Ok(length) => Some(length),
            Err(_) if announced == -1 => None,
            Err(_) => return Err(ReleaseError::RowShape),
        };
        let Some(encoder) = self.encoder() else {
            out.extend_from_slice(&announced.to_be_bytes());
            match length {
                Some(length) if length > 0 => self.at = At::Kept(length),
                Some(_) | None => self.next(counts),
            }
            return Ok(());
        };
        let looked_at = length.is_some_and(|length| encoder.looks_at(length));
        counts.cells_masked += u64::from(length.is_some());
        match length {
            None => self.masked(|encoder, scratch| encoder.apply(None, scratch), counts, out)?,
            Some(0) => self.masked(|encoder, scratch| encoder.apply(Some(&[]), scratch), counts, out)?,
            Some(length) if looked_at => self.at = At::Seen(length, Vec::with_capacity(length)),
            Some(length) => self.at = At::Dropped(length),
        }
        Ok(())
    }

    fn masked(
        &mut self,
        apply: impl FnOnce(&MaskEncoder, &mut Vec<u8>) -> CellAction,
        counts: &mut Counts,
        out: &mut BytesMut,
    ) -> Result<(), ReleaseError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let action = match self.encoder() {
            Some(encoder) => apply(encoder, &mut scratch),
            None => CellAction::Null, // out of reach: only a masked cell gets here
        };
        match action {
            CellAction::Replaced => {
                let length = i32::try_from(scratch.len()).map_err(|_| ReleaseError::RowShape)?;
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&scratch);
            }
            // A mask never keeps; should one, the cell is NULL.
            CellAction::Null | CellAction::Keep => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
        self.scratch = scratch;
        self.next(counts);
        Ok(())
    }

    fn next(&mut self, counts: &mut Counts) {
        self.column = self.column.saturating_add(1);
        self.at = At::Length;
        if self.column == self.columns.len() {
            counts.rows += 1;
            self.column = 0;
            self.at = At::Count;
        }
    }
}

/// What there is of a cell that lacks `left` bytes.
fn split<'a>(rest: &mut &'a [u8], left: &mut usize) -> &'a [u8] {
    let length = rest.len().min(*left);
    let (piece, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
    *rest = tail;
    *left = left.saturating_sub(piece.len());
    piece
}

/// The next `N` bytes, once they are there; `part` keeps those that came before.
fn take<const N: usize>(part: &mut Vec<u8>, rest: &mut &[u8]) -> Option<[u8; N]> {
    let mut lacks = N.saturating_sub(part.len());
    part.extend_from_slice(split(rest, &mut lacks));
    let whole = part.first_chunk::<N>().copied();
    if whole.is_some() {
        part.clear();
    }
    whole
}
