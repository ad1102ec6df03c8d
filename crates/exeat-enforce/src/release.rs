//! Release: what of the server's answer may reach the client, and in what form. Masks rows in the stream, scrubs
//! errors, filters what belongs to no statement. The only place that appends server data to an `Outbox`.

pub mod copy;
mod outbox;
pub mod stream;
mod transcript;

use exeat_policy::ColumnMask;
use exeat_sql::{CatalogSnapshot, ColumnId, Oid};
use exeat_wire::{BackendMessage, CellAction, DataRow, DecodeError, Field, Format, RowDescription};

pub use self::outbox::{Outbox, Reply};
pub use self::transcript::{LEFT_OUT, Piece, StreamPlace, Transcript, TranscriptLimits};
use crate::mask::{MaskEncoder, TypeKin};
use crate::plan::{CopyStream, Outputs, PlannedColumn, PlannedOrigin, StatementPlan};
use crate::scrub::{self, Taint};
use crate::seal::SealPlan;

/// A plan held against the real row description: how each cell is treated from here on.
#[derive(Debug, Clone)]
pub struct BoundMask {
    /// `None`: nothing is checked, whatever the number of columns.
    columns: Option<Vec<Option<MaskEncoder>>>,
    masks_any: bool,
}

impl BoundMask {
    /// Where nothing is sealed for the session and the statement's rows were not predicted.
    pub const UNCHECKED: &'static Self = &Self { columns: None, masks_any: false };
}

/// The server described another result than analysis predicted: nothing of it is released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskMismatch {
    #[error("the server describes {described} columns where {predicted} were predicted")]
    Count { described: usize, predicted: usize },
    #[error("column {index} comes from another place than predicted")]
    Origin { index: usize },
    #[error("column {index} has another name than predicted")]
    Name { index: usize },
    #[error("column {index} has another type than the catalog says")]
    Type { index: usize },
    #[error("the server copies in another format than the statement says")]
    Format,
    #[error("the server returns rows where none were predicted")]
    Rows,
}

/// `formats(i)` is the wire format of column `i`: from Bind where the description came from a Describe of the
/// statement, else from the description itself.
pub fn bind(
    plan: &StatementPlan,
    described: &RowDescription,
    seals: &SealPlan,
    snapshot: &CatalogSnapshot,
    formats: impl Fn(usize) -> Format,
) -> Result<BoundMask, MaskMismatch> {
    let fields = &described.fields;
    let mut columns = Vec::with_capacity(fields.len());
    match &plan.outputs {
        Outputs::None | Outputs::FunctionResult | Outputs::Copied(_) => return Err(MaskMismatch::Rows),
        Outputs::Unchecked => return Ok(BoundMask::UNCHECKED.clone()),
        Outputs::ByOrigin => {
            for (index, field) in fields.iter().enumerate() {
                // What stands behind an origin is not known: a relation that is looked at may be.
                let treated = Treated { mask: seals.column(origin(field)), watched: seals.watches_any() };
                columns.push(encoder(treated, type_kin(field, snapshot), formats(index), seals));
            }
        }
        Outputs::Columns(planned) => {
            if planned.len() != fields.len() {
                return Err(MaskMismatch::Count { described: fields.len(), predicted: planned.len() });
            }
            for (index, (planned, field)) in planned.iter().zip(fields).enumerate() {
                cross_check(index, planned, field, seals, snapshot)?;
                let treated = Treated { mask: planned.mask.as_ref(), watched: planned.watched };
                columns.push(encoder(treated, type_kin(field, snapshot), formats(index), seals));
            }
        }
    }
    let masks_any = columns.iter().any(Option::is_some);
    Ok(BoundMask { columns: Some(columns), masks_any })
}

fn origin(field: &Field) -> ColumnId {
    ColumnId { relation: Oid(field.table_oid), attribute: field.attribute }
}

fn cross_check(
    index: usize,
    planned: &PlannedColumn,
    field: &Field,
    seals: &SealPlan,
    snapshot: &CatalogSnapshot,
) -> Result<(), MaskMismatch> {
    let whole_row = field.attribute == 0;
    // A whole row is announced as attribute 0 of its table: it holds every sealed column of it.
    if whole_row && planned.mask.is_none() && seals.relation(Oid(field.table_oid)).is_some() {
        return Err(MaskMismatch::Origin { index });
    }
    let announced = (field.table_oid != 0 && !whole_row).then(|| origin(field));
    let known = match (&planned.origin, announced) {
        (PlannedOrigin::Column(expected), Some(announced)) if *expected == announced => Some(announced),
        (PlannedOrigin::None | PlannedOrigin::OneOf(_), None) => None,
        (PlannedOrigin::OneOf(columns), Some(announced)) if columns.contains(&announced) => Some(announced),
        (PlannedOrigin::Column(_) | PlannedOrigin::None | PlannedOrigin::OneOf(_), _) => {
            return Err(MaskMismatch::Origin { index });
        }
    };
    if planned.name.as_ref().is_some_and(|name| name.as_bytes() != field.name.as_bytes()) {
        return Err(MaskMismatch::Name { index });
    }
    let known = known.and_then(|id| snapshot.column(id));
    if known.is_some_and(|column| snapshot.base_type(column.type_oid) != snapshot.base_type(Oid(field.type_oid))) {
        return Err(MaskMismatch::Type { index });
    }
    Ok(())
}

struct Treated<'a> {
    mask: Option<&'a ColumnMask>,
    watched: bool,
}

fn encoder(treated: Treated<'_>, kin: TypeKin, format: Format, seals: &SealPlan) -> Option<MaskEncoder> {
    match treated.mask {
        Some(mask) => Some(seals.encoder(mask, kin, format)),
        None => seals.tripwire(kin, format, treated.watched),
    }
}

fn type_kin(field: &Field, snapshot: &CatalogSnapshot) -> TypeKin {
    let oid = Oid(field.type_oid);
    TypeKin::of(oid.0, snapshot.type_name(oid))
}

/// What a statement let through, for the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub rows: u64,
    pub bytes: u64,
    pub cells_masked: u64,
}

/// One row to the client, masked as bound.
pub fn release_row(
    row: &DataRow,
    bound: &BoundMask,
    counts: &mut Counts,
    out: &mut Outbox,
) -> Result<(), ReleaseError> {
    let columns = bound.columns.as_deref();
    if columns.is_some_and(|columns| columns.len() != row.field_count()) {
        return Err(ReleaseError::RowShape);
    }
    let before = out.bytes.len();
    if let Some(columns) = columns.filter(|_| bound.masks_any) {
        let mut masked = 0;
        row.rewrite_with(&mut out.bytes, &mut out.scratch, |index, cell, scratch| {
            match columns.get(index).and_then(Option::as_ref) {
                Some(encoder) => {
                    let action = encoder.apply(cell, scratch);
                    masked += u64::from(cell.is_some() && action != CellAction::Keep);
                    action
                }
                None => CellAction::Keep,
            }
        })?;
        counts.cells_masked += masked;
    } else {
        out.bytes.extend_from_slice(row.frame.bytes());
    }
    counts.rows += 1;
    counts.bytes += u64::try_from(out.bytes.len().saturating_sub(before)).unwrap_or(u64::MAX);
    Ok(())
}

/// The messages of a COPY, as its plan has it. Data on its way out passes as it is: what has sealed columns in it goes
/// through a `CopyMasker`.
pub fn release_copy(
    message: &BackendMessage,
    copy: CopyStream,
    counts: &mut Counts,
    out: &mut Outbox,
) -> Result<(), ReleaseError> {
    let frame = match (message, copy) {
        (BackendMessage::CopyInResponse(begun), CopyStream::In)
        | (BackendMessage::CopyOutResponse(begun), CopyStream::Out) => &begun.frame,
        (BackendMessage::CopyData(data), CopyStream::Out) => {
            counts.rows += 1;
            counts.bytes += u64::try_from(data.bytes().len()).unwrap_or(u64::MAX);
            data
        }
        (BackendMessage::CopyDone, CopyStream::Out) => message.frame().ok_or(ReleaseError::NotAllowed)?,
        _ => return Err(ReleaseError::NotAllowed),
    };
    out.bytes.extend_from_slice(frame.bytes());
    Ok(())
}

/// The value of a FunctionCall that was admitted as one.
pub fn release_function_result(
    message: &BackendMessage,
    plan: &StatementPlan,
    counts: &mut Counts,
    out: &mut Outbox,
) -> Result<(), ReleaseError> {
    let (BackendMessage::FunctionCallResponse(frame), Outputs::FunctionResult) = (message, &plan.outputs) else {
        return Err(ReleaseError::NotAllowed);
    };
    counts.rows += 1;
    counts.bytes += u64::try_from(frame.bytes().len()).unwrap_or(u64::MAX);
    out.bytes.extend_from_slice(frame.bytes());
    Ok(())
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ReleaseError {
    #[error("a row has another number of columns than its description")]
    RowShape,
    #[error("the server sent a message that is not allowed here")]
    NotAllowed,
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A notification as the server brings it.
#[derive(Debug, Clone, Copy)]
pub struct Notified<'a> {
    /// Process id of the backend that sent it.
    pub pid: i32,
    pub channel: &'a str,
    pub payload: &'a str,
}

/// Everything but rows. `taint` is the worst of what the message may carry; `notified` says which notifications
/// pass.
pub fn release(
    message: &BackendMessage,
    taint: Taint,
    correlation: &str,
    notified: &mut dyn FnMut(Notified<'_>) -> bool,
    out: &mut Outbox,
) -> Result<(), ReleaseError> {
    match message {
        BackendMessage::ErrorResponse(fields) => {
            scrub::scrub_error(fields, taint, correlation).encode_error(&mut out.bytes)
        }
        BackendMessage::NoticeResponse(fields) => {
            if let Some(notice) = scrub::scrub_notice(fields, taint, correlation) {
                notice.encode_notice(&mut out.bytes);
            }
        }
        BackendMessage::NotificationResponse { frame, pid, channel, payload } => {
            if notified(Notified { pid: *pid, channel: channel.as_str(), payload: payload.as_str() }) {
                out.bytes.extend_from_slice(frame.bytes());
            }
        }
        // A value that user code may have set is a message from user code.
        BackendMessage::ParameterStatus { frame, .. } => {
            if taint < Taint::UserCode {
                out.bytes.extend_from_slice(frame.bytes());
            }
        }
        BackendMessage::RowDescription(_)
        | BackendMessage::ParameterDescription { .. }
        | BackendMessage::CommandComplete { .. }
        | BackendMessage::EmptyQueryResponse
        | BackendMessage::ParseComplete
        | BackendMessage::BindComplete
        | BackendMessage::CloseComplete
        | BackendMessage::NoData
        | BackendMessage::PortalSuspended
        | BackendMessage::ReadyForQuery(_) => {
            let frame = message.frame().ok_or(ReleaseError::NotAllowed)?;
            out.bytes.extend_from_slice(frame.bytes());
        }
        BackendMessage::DataRow(_)
        | BackendMessage::Authentication(_)
        | BackendMessage::BackendKeyData { .. }
        | BackendMessage::CopyInResponse(_)
        | BackendMessage::CopyOutResponse(_)
        | BackendMessage::CopyBothResponse(_)
        | BackendMessage::CopyData(_)
        | BackendMessage::CopyDone
        | BackendMessage::FunctionCallResponse(_)
        | BackendMessage::NegotiateProtocolVersion { .. } => return Err(ReleaseError::NotAllowed),
    }
    Ok(())
}
