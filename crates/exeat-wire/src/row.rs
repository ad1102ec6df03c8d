//! Rows and their description. `DataRow` is the hot path: it is walked in place and rewritten into the outgoing
//! buffer, cells that stay are copied in runs, nothing is allocated for a row.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::error::{DecodeError, Peer, Tag};
use crate::frame::Frame;
use crate::reader::Reader;
use crate::text::{Format, WireStr};

/// PostgreSQL's own limit (`MaxTupleAttributeNumber`): "target lists can have at most 1664 entries".
pub const COLUMNS_MAX: usize = 1664;

/// The number of cells stands before the cells.
const COUNT_BYTES: usize = 2;

const ROW: &str = "DataRow";
const DESCRIPTION: &str = "RowDescription";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDescription {
    pub frame: Frame,
    pub fields: Vec<Field>,
}

/// One result column as the server announces it.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    pub name: WireStr,
    /// Zero: no column of a relation.
    pub table_oid: u32,
    /// Zero: no column of a relation; negative for system columns.
    pub attribute: i16,
    pub type_oid: u32,
    pub type_size: i16,
    pub type_modifier: i32,
    /// In the answer to Describe of a statement the server does not know the format yet and says text.
    pub format: Format,
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field({}.{} type {} {:?})", self.table_oid, self.attribute, self.type_oid, self.format)
    }
}

impl RowDescription {
    pub(crate) fn decode(frame: Frame) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(DESCRIPTION, frame.payload());
        let count = reader.count(19)?;
        check_columns(DESCRIPTION, count)?;
        let fields = (0..count).map(|_| field(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        Ok(Self { frame, fields })
    }
}

fn field(reader: &mut Reader) -> Result<Field, DecodeError> {
    Ok(Field {
        name: reader.c_str()?,
        table_oid: reader.u32()?,
        attribute: reader.i16()?,
        type_oid: reader.u32()?,
        type_size: reader.i16()?,
        type_modifier: reader.i32()?,
        format: reader.format()?,
    })
}

fn check_columns(message: &'static str, count: usize) -> Result<(), DecodeError> {
    if count > COLUMNS_MAX {
        return Err(DecodeError::TooMany { message, what: "columns", count, limit: COLUMNS_MAX });
    }
    Ok(())
}

/// One row. Its cells are checked while they are walked, so a row nobody looks into costs nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRow {
    pub frame: Frame,
    field_count: usize,
}

/// What becomes of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellAction {
    Keep,
    Null,
    /// The new value is what was written into the scratch buffer.
    Replaced,
}

impl DataRow {
    pub(crate) fn decode(frame: Frame) -> Result<Self, DecodeError> {
        let Some(count) = frame.payload_slice().first_chunk::<2>() else {
            return Err(DecodeError::Truncated { message: ROW });
        };
        let field_count = usize::from(u16::from_be_bytes(*count));
        check_columns(ROW, field_count)?;
        Ok(Self { frame, field_count })
    }

    pub fn field_count(&self) -> usize {
        self.field_count
    }

    /// The cells in order. An error ends the iteration, and what stands after the last cell is one.
    pub fn cells(&self) -> impl Iterator<Item = Result<Option<&[u8]>, DecodeError>> {
        let mut walk = Walk::new(self);
        let mut over = false;
        std::iter::from_fn(move || {
            if over {
                return None;
            }
            let next = walk.next_cell().map(|cell| cell.map(|(value, _)| value)).transpose();
            over = !matches!(next, Some(Ok(_)));
            next
        })
    }

    /// Appends this row to `out`, each cell as `replace` says. The scratch buffer is empty at each call. On an
    /// error `out` is as it was: no half frame ever stands in it.
    pub fn rewrite(
        &self,
        out: &mut BytesMut,
        replace: impl FnMut(usize, Option<&[u8]>, &mut Vec<u8>) -> CellAction,
    ) -> Result<(), DecodeError> {
        // An empty `Vec` allocates at its first use only; `rewrite_with` spares that one too.
        self.rewrite_with(out, &mut Vec::new(), replace)
    }

    /// [`Self::rewrite`] with a scratch buffer that the caller keeps from row to row.
    pub fn rewrite_with(
        &self,
        out: &mut BytesMut,
        scratch: &mut Vec<u8>,
        replace: impl FnMut(usize, Option<&[u8]>, &mut Vec<u8>) -> CellAction,
    ) -> Result<(), DecodeError> {
        let start = out.len();
        let written = self.append(out, scratch, replace);
        scratch.clear();
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn append(
        &self,
        out: &mut BytesMut,
        scratch: &mut Vec<u8>,
        mut replace: impl FnMut(usize, Option<&[u8]>, &mut Vec<u8>) -> CellAction,
    ) -> Result<(), DecodeError> {
        let payload = self.frame.payload_slice();
        let start = out.len();
        out.reserve(self.frame.bytes().len());
        out.put_u8(b'D');
        out.put_u32(0); // the length, known at the end
        let mut walk = Walk::new(self);
        let mut copied = 0;
        let mut index = 0;
        while let Some((value, span)) = walk.next_cell()? {
            scratch.clear();
            let action = replace(index, value, scratch);
            index = index.saturating_add(1);
            let length = match action {
                CellAction::Keep => continue,
                CellAction::Null => -1,
                CellAction::Replaced => i32::try_from(scratch.len()).map_err(|_| too_large(scratch.len()))?,
            };
            out.extend_from_slice(payload.get(copied..span.start).unwrap_or_default());
            copied = span.end;
            out.put_i32(length);
            if action == CellAction::Replaced {
                out.extend_from_slice(scratch);
            }
        }
        out.extend_from_slice(payload.get(copied..).unwrap_or_default());
        set_length(out, start)
    }
}

/// Writes the frame's length where its header stands.
fn set_length(out: &mut BytesMut, start: usize) -> Result<(), DecodeError> {
    let counted = out.len().saturating_sub(start).saturating_sub(1);
    let length = i32::try_from(counted).map_err(|_| too_large(counted))?;
    let header = out.get_mut(start.saturating_add(1)..).and_then(|rest| rest.first_chunk_mut::<4>());
    if let Some(field) = header {
        *field = length.to_be_bytes();
    }
    Ok(())
}

fn too_large(frame_bytes: usize) -> DecodeError {
    const LENGTH_MAX: usize = i32::MAX.unsigned_abs() as usize;
    DecodeError::FrameTooLarge { peer: Peer::Server, tag: Tag(b'D'), frame_bytes, limit_bytes: LENGTH_MAX }
}

/// A walk over the cells of one row.
struct Walk<'a> {
    payload: &'a [u8],
    at: usize,
    left: usize,
}

/// A cell's value and where it stands in the payload, its length field included.
type Cell<'a> = (Option<&'a [u8]>, std::ops::Range<usize>);

impl<'a> Walk<'a> {
    fn new(row: &'a DataRow) -> Self {
        Self { payload: row.frame.payload_slice(), at: COUNT_BYTES, left: row.field_count }
    }

    /// The next cell; `None` after the last one, where the payload must end.
    fn next_cell(&mut self) -> Result<Option<Cell<'a>>, DecodeError> {
        let rest = self.payload.get(self.at..).unwrap_or_default();
        let Some(left) = self.left.checked_sub(1) else {
            if rest.is_empty() {
                return Ok(None);
            }
            return Err(DecodeError::TrailingBytes { message: ROW, extra_bytes: rest.len() });
        };
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Err(DecodeError::Truncated { message: ROW });
        };
        let length = i32::from_be_bytes(*length);
        let value = match usize::try_from(length) {
            Ok(count) => Some(rest.get(..count).ok_or(DecodeError::Truncated { message: ROW })?),
            Err(_) if length == -1 => None,
            Err(_) => {
                return Err(DecodeError::Value { message: ROW, what: "value length", value: i64::from(length) });
            }
        };
        let start = self.at;
        self.at = start.saturating_add(4).saturating_add(value.map_or(0, <[u8]>::len));
        self.left = left;
        Ok(Some((value, start..self.at)))
    }
}
