//! COPY data on its way to the client with sealed columns in it: taken apart into cells as the layout of the
//! statement has them, masked, and written down again. The data is one stream, cut into messages anywhere. A stream
//! that does not add up ends the session; of a masked cell no more is held than its mask looks at.

mod binary;
mod lines;

use bytes::{BufMut, Bytes, BytesMut};
use exeat_sql::CopyFormat;
use exeat_wire::{CopyResponse, Format};

use self::binary::BinaryRows;
use self::lines::Lines;
use super::{Counts, MaskMismatch, Outbox, ReleaseError};
use crate::mask::MaskEncoder;
use crate::plan::CopyPlan;
use crate::seal::SealPlan;

/// Type byte and length.
const HEADER_BYTES: usize = 5;

/// Most of a long row that waits for its last masked cell. A row that is longer up to there comes in several
/// messages, as the protocol lets it.
pub const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A COPY under way.
#[derive(Debug)]
pub struct CopyMasker {
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    Lines(Lines),
    Binary(BinaryRows),
}

/// One column of the stream.
#[derive(Debug)]
struct Column {
    encoder: Option<MaskEncoder>,
    /// What a header line must call it.
    name: Option<String>,
    force_quote: bool,
}

impl CopyMasker {
    /// Holds the plan against what the server says it will send.
    pub fn bind(plan: &CopyPlan, begun: &CopyResponse, seals: &SealPlan) -> Result<Self, MaskMismatch> {
        let (described, predicted) = (begun.column_formats.len(), plan.columns.len());
        if described != predicted {
            return Err(MaskMismatch::Count { described, predicted });
        }
        let format = match plan.layout.format {
            CopyFormat::Text | CopyFormat::Csv => Format::Text,
            CopyFormat::Binary => Format::Binary,
        };
        if begun.format != format || begun.column_formats.iter().any(|column| *column != format) {
            return Err(MaskMismatch::Format);
        }
        let columns = plan.columns.iter().map(|column| Column {
            encoder: column.mask.as_ref().map(|mask| seals.encoder(mask, column.kin, format)),
            name: column.name.clone(),
            force_quote: column.force_quote,
        });
        Ok(Self::new(plan, columns.collect()))
    }

    fn new(plan: &CopyPlan, columns: Vec<Column>) -> Self {
        let rows = match plan.layout.format {
            CopyFormat::Text | CopyFormat::Csv => Rows::Lines(Lines::new(&plan.layout, columns)),
            CopyFormat::Binary => Rows::Binary(BinaryRows::new(columns)),
        };
        Self { rows }
    }

    fn feed(&mut self, data: &[u8], counts: &mut Counts, out: &mut BytesMut) -> Result<(), ReleaseError> {
        match &mut self.rows {
            Rows::Lines(lines) => lines.feed(data, counts, out),
            Rows::Binary(rows) => rows.feed(data, counts, out),
        }
    }

    /// Whether what comes next may still be masked before the row under way ends.
    fn masks_left(&self) -> bool {
        match &self.rows {
            Rows::Lines(lines) => lines.masks_left(),
            Rows::Binary(rows) => rows.masks_left(),
        }
    }

    /// The server says that it has sent everything.
    pub fn end(&self) -> Result<(), ReleaseError> {
        let whole = match &self.rows {
            Rows::Lines(lines) => lines.is_between_rows(),
            Rows::Binary(rows) => rows.has_ended(),
        };
        if whole { Ok(()) } else { Err(ReleaseError::RowShape) }
    }

    /// One message of data.
    pub fn release(&mut self, data: &[u8], counts: &mut Counts, out: &mut Outbox) -> Result<(), ReleaseError> {
        let start = out.bytes.len();
        out.bytes.put_u8(b'd');
        out.bytes.put_i32(0); // the length, known at the end
        let fed = self.feed(data, counts, &mut out.bytes);
        let length = out.bytes.len().saturating_sub(start).saturating_sub(1);
        if fed.is_err() || length < HEADER_BYTES {
            // Nothing of it is to be seen, or all of it belongs to a cell that has not ended.
            out.bytes.truncate(start);
            return fed;
        }
        let length = i32::try_from(length).map_err(|_| ReleaseError::RowShape)?;
        let header = out.bytes.get_mut(start.saturating_add(1)..).and_then(|rest| rest.first_chunk_mut::<4>());
        if let Some(field) = header {
            *field = length.to_be_bytes();
        }
        counts.bytes += u64::try_from(out.bytes.len().saturating_sub(start)).unwrap_or(u64::MAX);
        Ok(())
    }
}

/// One message too long to be assembled.
#[derive(Debug)]
pub struct MaskedPieces {
    left: usize,
    held: BytesMut,
    /// The length of the message is out: nothing may change it any more.
    framed: bool,
}

impl MaskedPieces {
    pub fn begin(payload_bytes: usize) -> Self {
        Self { left: payload_bytes, held: BytesMut::new(), framed: false }
    }

    /// Takes what there is out of `input`. `true`: it is all out.
    pub fn pass(
        &mut self,
        input: &mut BytesMut,
        masker: &mut CopyMasker,
        counts: &mut Counts,
        out: &mut Outbox,
    ) -> Result<bool, ReleaseError> {
        let piece: Bytes = input.split_to(input.len().min(self.left)).freeze();
        self.left = self.left.saturating_sub(piece.len());
        let before = out.bytes.len();
        if self.framed {
            masker.feed(&piece, counts, &mut out.bytes)?;
            let written = out.bytes.len().saturating_sub(before);
            if written != piece.len() || (self.left > 0 && masker.masks_left()) {
                // Another row in the same message, which no server sends, would change a length that is out.
                return Err(ReleaseError::RowShape);
            }
        } else {
            masker.feed(&piece, counts, &mut self.held)?;
            if self.left > 0 && !masker.masks_left() {
                self.flush(self.left, out)?;
                self.framed = true;
            } else if self.left == 0 || self.held.len() > HELD_BYTES_MAX {
                self.flush(0, out)?;
            }
        }
        counts.bytes += u64::try_from(out.bytes.len().saturating_sub(before)).unwrap_or(u64::MAX);
        Ok(self.left == 0)
    }

    /// What is held, as a message in which `follow` bytes are still to come.
    fn flush(&mut self, follow: usize, out: &mut Outbox) -> Result<(), ReleaseError> {
        let length = self.held.len().saturating_add(follow);
        if length > 0 {
            out.bytes.put_u8(b'd');
            let counted = length.saturating_add(HEADER_BYTES - 1);
            out.bytes.put_i32(i32::try_from(counted).map_err(|_| ReleaseError::RowShape)?);
            out.bytes.extend_from_slice(&std::mem::take(&mut self.held));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
