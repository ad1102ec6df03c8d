//! Rows too long to be assembled, masked as they come. Cells that stay pass on as they arrive; a masked cell's own
//! bytes are dropped as they arrive, but for the little that a partial mask looks at.
//! A row's length stands before its cells, and the last masked cell decides it: what comes before that cell is held
//! back until then, what comes after it is not. A row that does not add up ends the session.

use bytes::{BufMut, BytesMut};
use exeat_wire::{CellAction, DecodeError};

use super::{BoundMask, Counts, Outbox, ReleaseError};
use crate::mask::MaskEncoder;
use crate::plan::CopyStream;

const ROW: &str = "DataRow";
/// Type byte and length.
const HEADER_BYTES: usize = 5;

/// One row on its way through.
#[derive(Debug)]
pub struct RowStream {
    /// Bytes of the row that have not come yet.
    left: usize,
    /// Its length as it will be, as far as the masks are known.
    length: usize,
    at: At,
    cells: usize,
    index: usize,
    /// Cells in front of the last masked one. Empty once the row's header is out.
    held: BytesMut,
    framed: bool,
}

#[derive(Debug)]
enum At {
    /// The number of cells comes next.
    Count,
    /// A cell's length, or the end.
    Length,
    /// So much of a cell that stays.
    Kept(usize),
    /// So much of a masked cell that no mask looks at.
    Dropped(usize),
    /// So much of a masked cell whose mask looks at it.
    Seen(usize, Vec<u8>),
}

impl RowStream {
    pub fn begin(payload_bytes: usize) -> Self {
        let held = BytesMut::new();
        Self { left: payload_bytes, length: payload_bytes, at: At::Count, cells: 0, index: 0, held, framed: false }
    }

    /// Takes what there is of the row out of `input`. `true`: the row is out.
    pub fn pass(
        &mut self,
        input: &mut BytesMut,
        bound: &BoundMask,
        counts: &mut Counts,
        out: &mut Outbox,
    ) -> Result<bool, ReleaseError> {
        let before = out.bytes.len();
        while self.step(input, bound, counts, out)? {}
        counts.bytes += u64::try_from(out.bytes.len().saturating_sub(before)).unwrap_or(u64::MAX);
        let ended = self.left == 0 && matches!(self.at, At::Length) && self.index == self.cells;
        if !ended && self.left == 0 {
            return Err(DecodeError::Truncated { message: ROW }.into());
        }
        counts.rows += u64::from(ended);
        Ok(ended)
    }

    /// One thing at a time. `false`: more bytes are needed, or the row has ended.
    fn step(
        &mut self,
        input: &mut BytesMut,
        bound: &BoundMask,
        counts: &mut Counts,
        out: &mut Outbox,
    ) -> Result<bool, ReleaseError> {
        match &mut self.at {
            At::Count => {
                let Some(count) = self.take::<2>(input)? else { return Ok(false) };
                self.cells = usize::from(u16::from_be_bytes(count));
                if bound.columns.as_ref().is_some_and(|columns| columns.len() != self.cells) {
                    return Err(ReleaseError::RowShape);
                }
                self.put(&count, out);
                self.at = At::Length;
                self.frame_if_known(bound, out)?;
            }
            At::Length if self.index == self.cells => {
                if self.left > 0 {
                    return Err(DecodeError::TrailingBytes { message: ROW, extra_bytes: self.left }.into());
                }
                return Ok(false);
            }
            At::Length => {
                let Some(length) = self.take::<4>(input)? else { return Ok(false) };
                self.cell(i32::from_be_bytes(length), bound, counts, out)?;
            }
            At::Kept(left) => {
                let Some(piece) = take_piece(input, left) else { return Ok(false) };
                let over = *left == 0;
                self.left = self.left.saturating_sub(piece.len());
                self.put(&piece, out);
                self.end_cell(over);
            }
            At::Dropped(left) => {
                let Some(piece) = take_piece(input, left) else { return Ok(false) };
                let over = *left == 0;
                self.left = self.left.saturating_sub(piece.len());
                if over {
                    self.masked(bound, |encoder, scratch| encoder.apply_unseen(scratch), out)?;
                }
            }
            At::Seen(left, seen) => {
                let Some(piece) = take_piece(input, left) else { return Ok(false) };
                seen.extend_from_slice(&piece);
                let value = (*left == 0).then(|| std::mem::take(seen));
                self.left = self.left.saturating_sub(piece.len());
                if let Some(value) = value {
                    self.masked(bound, |encoder, scratch| encoder.apply(Some(&value), scratch), out)?;
                }
            }
        }
        Ok(true)
    }

    /// A cell begins.
    fn cell(
        &mut self,
        announced: i32,
        bound: &BoundMask,
        counts: &mut Counts,
        out: &mut Outbox,
    ) -> Result<(), ReleaseError> {
        let length = match usize::try_from(announced) {
            Ok(length) if length > self.left => return Err(DecodeError::Truncated { message: ROW }.into()),
            Ok(length) => Some(length),
            Err(_) if announced == -1 => None,
            Err(_) => {
                let value = i64::from(announced);
                return Err(DecodeError::Value { message: ROW, what: "value length", value }.into());
            }
        };
        let Some(encoder) = encoder(bound, self.index) else {
            self.put(&announced.to_be_bytes(), out);
            self.at = length.map_or(At::Length, At::Kept);
            self.end_cell(length.is_none_or(|length| length == 0));
            return Ok(());
        };
        let Some(length) = length else {
            return self.masked(bound, |encoder, scratch| encoder.apply(None, scratch), out);
        };
        counts.cells_masked += 1;
        // What the mask will put in its place is added when it is known.
        self.length = self.length.saturating_sub(length);
        match length {
            0 => self.masked(bound, |encoder, scratch| encoder.apply(Some(&[]), scratch), out)?,
            length if encoder.looks_at(length) => self.at = At::Seen(length, Vec::with_capacity(length)),
            length => self.at = At::Dropped(length),
        }
        Ok(())
    }

    fn end_cell(&mut self, over: bool) {
        if over {
            self.index = self.index.saturating_add(1);
            self.at = At::Length;
        }
    }

    /// Puts the masked cell's replacement in its place.
    fn masked(
        &mut self,
        bound: &BoundMask,
        apply: impl FnOnce(&MaskEncoder, &mut Vec<u8>) -> CellAction,
        out: &mut Outbox,
    ) -> Result<(), ReleaseError> {
        let mut scratch = std::mem::take(&mut out.scratch);
        scratch.clear();
        let action = match encoder(bound, self.index) {
            Some(encoder) => apply(encoder, &mut scratch),
            None => CellAction::Null, // out of reach: only a masked cell gets here
        };
        match action {
            CellAction::Replaced => {
                let length = i32::try_from(scratch.len()).map_err(|_| ReleaseError::RowShape)?;
                self.put(&length.to_be_bytes(), out);
                self.put(&scratch, out);
                self.length = self.length.saturating_add(scratch.len());
            }
            // A mask never keeps; should one, the cell is NULL.
            CellAction::Null | CellAction::Keep => self.put(&(-1_i32).to_be_bytes(), out),
        }
        out.scratch = scratch;
        self.end_cell(true);
        self.frame_if_known(bound, out)
    }

    /// Writes the row's header once no masked cell is left to change its length.
    fn frame_if_known(&mut self, bound: &BoundMask, out: &mut Outbox) -> Result<(), ReleaseError> {
        let rest = bound.columns.iter().flatten().skip(self.index);
        if self.framed || rest.flatten().any(|encoder| !encoder.is_tripwire()) {
            return Ok(());
        }
        let counted = self.length.saturating_add(HEADER_BYTES - 1);
        out.bytes.put_u8(b'D');
        out.bytes.put_i32(i32::try_from(counted).map_err(|_| ReleaseError::RowShape)?);
        out.bytes.extend_from_slice(&std::mem::take(&mut self.held));
        self.framed = true;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], out: &mut Outbox) {
        if self.framed {
            out.bytes.extend_from_slice(bytes);
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    /// The next `N` bytes, once they are there.
    fn take<const N: usize>(&mut self, input: &mut BytesMut) -> Result<Option<[u8; N]>, ReleaseError> {
        if self.left < N {
            return Err(DecodeError::Truncated { message: ROW }.into());
        }
        let Some(bytes) = input.first_chunk::<N>().copied() else { return Ok(None) };
        bytes::Buf::advance(input, N);
        self.left = self.left.saturating_sub(N);
        Ok(Some(bytes))
    }
}

/// What there is of a cell that lacks `left` bytes. `None`: nothing has come yet.
fn take_piece(input: &mut BytesMut, left: &mut usize) -> Option<BytesMut> {
    let piece = input.split_to(input.len().min(*left));
    *left = left.saturating_sub(piece.len());
    (!piece.is_empty()).then_some(piece)
}

/// A tripwire does not reach here: it would hold rows of any length back for a column that is not sealed.
fn encoder(bound: &BoundMask, index: usize) -> Option<&MaskEncoder> {
    bound.columns.as_ref()?.get(index)?.as_ref().filter(|encoder| !encoder.is_tripwire())
}

/// COPY data on its way out in pieces.
#[derive(Debug)]
pub struct CopyPieces {
    left: usize,
}

impl CopyPieces {
    /// Only for a COPY that was admitted as one that sends data.
    pub fn begin(
        copy: CopyStream,
        payload_bytes: usize,
        counts: &mut Counts,
        out: &mut Outbox,
    ) -> Result<Self, ReleaseError> {
        if copy != CopyStream::Out {
            return Err(ReleaseError::NotAllowed);
        }
        let counted = payload_bytes.saturating_add(HEADER_BYTES - 1);
        out.bytes.put_u8(b'd');
        out.bytes.put_i32(i32::try_from(counted).map_err(|_| ReleaseError::RowShape)?);
        counts.rows += 1;
        counts.bytes += u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
        Ok(Self { left: payload_bytes })
    }

    /// Takes what there is out of `input`. `true`: it is all out.
    pub fn pass(&mut self, input: &mut BytesMut, counts: &mut Counts, out: &mut Outbox) -> bool {
        let piece = input.split_to(input.len().min(self.left));
        out.bytes.extend_from_slice(&piece);
        self.left = self.left.saturating_sub(piece.len());
        counts.bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{SEEN_BYTES_MAX, TypeKin};
    use crate::release::release_row;
    use exeat_policy::Mask;
    use exeat_wire::{BackendMessage, DataRow, Format, backend, encode, split_backend};

    const MASKS: [Option<Mask>; 4] =
        [None, Some(Mask::Redact), Some(Mask::Nullify), Some(Mask::Partial { first: 0, last: 2 })];
    const CELLS: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"1"), Some(b"secret text")];

    fn bound(masks: &[Option<Mask>]) -> BoundMask {
        let plan = |mask: &Option<Mask>| mask.map(|mask| MaskEncoder::plan(mask, TypeKin::Text, Format::Text, None));
        let columns: Vec<_> = masks.iter().map(plan).collect();
        let masks_any = columns.iter().any(Option::is_some);
        BoundMask { columns: Some(columns), masks_any }
    }

    fn row(cells: &[Option<&[u8]>]) -> BytesMut {
        let mut bytes = BytesMut::new();
        encode::data_row(&mut bytes, cells).unwrap();
        bytes
    }

    fn decoded(bytes: &BytesMut) -> DataRow {
        let frame = split_backend(&mut bytes.clone()).unwrap().unwrap();
        match backend::decode(frame).unwrap() {
            BackendMessage::DataRow(row) => row,
            other => panic!("{other:?}"),
        }
    }

    fn assembled(bytes: &BytesMut, bound: &BoundMask) -> (Vec<u8>, Counts) {
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        release_row(&decoded(bytes), bound, &mut counts, &mut out).unwrap();
        (out.chunk().to_vec(), counts)
    }

    /// The row in pieces of `size` bytes.
    fn streamed(bytes: &BytesMut, bound: &BoundMask, size: usize) -> Result<(Vec<u8>, Counts), ReleaseError> {
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        let payload = &bytes[HEADER_BYTES..];
        let mut stream = RowStream::begin(payload.len());
        let mut input = BytesMut::new();
        for piece in payload.chunks(size) {
            input.extend_from_slice(piece);
            stream.pass(&mut input, bound, &mut counts, &mut out)?;
        }
        assert!(input.is_empty());
        assert_eq!(counts.rows, 1, "the row has ended");
        Ok((out.chunk().to_vec(), counts))
    }

    #[test]
    fn a_row_in_pieces_is_the_row_as_a_whole() {
        for masks in MASKS.iter().flat_map(|a| MASKS.iter().flat_map(move |b| MASKS.map(|c| [*a, *b, c]))) {
            let bound = bound(&masks);
            for cells in CELLS.iter().flat_map(|a| CELLS.iter().flat_map(move |b| CELLS.map(|c| [*a, *b, c]))) {
                let bytes = row(&cells);
                let whole = assembled(&bytes, &bound);
                for size in [1, 2, 3, 7, 1000] {
                    assert_eq!(streamed(&bytes, &bound, size).unwrap(), whole, "{masks:?} {cells:?} by {size}");
                }
            }
        }
    }

    #[test]
    fn rows_that_nothing_checks_pass_as_they_are() {
        for cells in [&[][..], &CELLS[..]] {
            let bytes = row(cells);
            assert_eq!(streamed(&bytes, BoundMask::UNCHECKED, 3).unwrap().0, bytes.to_vec());
        }
    }

    #[test]
    fn long_values_of_every_mask_are_hidden() {
        let long = vec![b'x'; SEEN_BYTES_MAX + 1];
        for mask in MASKS.into_iter().flatten() {
            let bound = bound(&[None, Some(mask), None]);
            let bytes = row(&[Some(b"a"), Some(&long), Some(b"b")]);
            let whole = assembled(&bytes, &bound);
            assert!(whole.0.len() < 100, "{mask:?}");
            assert_eq!(streamed(&bytes, &bound, 1000).unwrap(), whole);
        }
        // Its twin: a value as long as a partial mask may look at keeps its ends.
        let bound = bound(&[Some(Mask::Partial { first: 0, last: 2 })]);
        let bytes = row(&[Some(&long[1..])]);
        assert_eq!(streamed(&bytes, &bound, 1000).unwrap(), assembled(&bytes, &bound));
        assert!(assembled(&bytes, &bound).0.ends_with(b"**xx"));
    }

    #[test]
    fn a_row_that_does_not_add_up_is_an_error() {
        let bound = bound(&[None, Some(Mask::Redact)]);
        let good = row(&[Some(b"abc"), Some(b"secret")]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let longer = [&good[..], b"x"].concat();
        for (what, bytes) in [
            ("another number of columns", with(6, 3)),
            ("a first cell longer than the row", with(10, 200)),
            ("a first cell that eats the second's length", with(10, 5)),
            ("a second cell shorter than the rest", with(17, 5)),
            ("a second cell longer than the rest", with(17, 7)),
            ("a negative length", with(7, 0x80)),
            ("bytes after the last cell", BytesMut::from(&longer[..])),
            ("no count", BytesMut::from(&good[..6])),
            ("no cells", BytesMut::from(&good[..7])),
        ] {
            for size in [1, 4, 1000] {
                assert!(streamed(&bytes, &bound, size).is_err(), "{what} by {size}");
            }
        }
        assert!(streamed(&good, &bound, 1).is_ok());
    }

    #[test]
    fn copy_data_in_pieces_is_framed_as_it_came() {
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        for copy in [CopyStream::None, CopyStream::In] {
            assert!(CopyPieces::begin(copy, 5, &mut counts, &mut out).is_err());
        }
        assert!(out.is_empty());
        let mut pieces = CopyPieces::begin(CopyStream::Out, 5, &mut counts, &mut out).unwrap();
        assert!(!pieces.pass(&mut BytesMut::from(&b"ab"[..]), &mut counts, &mut out));
        let mut rest = BytesMut::from(&b"cdeZ"[..]);
        assert!(pieces.pass(&mut rest, &mut counts, &mut out));
        assert_eq!((out.chunk(), &rest[..]), (&b"d\0\0\0\x09abcde"[..], &b"Z"[..]));
        assert_eq!((counts.rows, counts.bytes), (1, 10));
    }
}
