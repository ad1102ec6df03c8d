//! Rows and COPY data too long to be assembled, on their way from the server to the client in pieces. What admits
//! and masks them is what admits and masks short ones; only the bytes come in parts.

use bytes::Buf;
use exeat_enforce::plan::CopyStream;
use exeat_enforce::release::copy::MaskedPieces;
use exeat_enforce::release::stream::{CopyPieces, RowStream};
use exeat_enforce::release::{BoundMask, Counts, MaskMismatch};
use exeat_wire::{Large, LargeKind, Step};

use super::answers::bound_of;
use super::copy::{front_copy, front_counts};
use super::counted::Arrived;
use super::due::{Due, ExecuteDue, QueryDue};
use super::session::{Done, Session, SessionEnd};

/// The message of the front request's answer that is on its way.
#[derive(Debug)]
pub(crate) enum Passing {
    Row(RowStream),
    Copy(CopyPieces),
    MaskedCopy(MaskedPieces),
    /// So many bytes of it are still to come, for nobody.
    Dropped(usize),
}

impl Session {
    /// The header of a large message was read.
    pub(crate) async fn large_begins(&mut self, large: Large, counts: bool) -> Done {
        let stand_in = large.stand_in().map_err(SessionEnd::Server)?;
        self.pass_gate(&stand_in).await?;
        if counts && let Some(why) = self.count_large(&large) {
            self.progress.stop(Arrived::Large(large), why);
            return Ok(());
        }
        let step = self.pipeline.on_backend(&stand_in)?;
        if step_is_other(&step) {
            return Err(SessionEnd::UnexpectedAnswer(stand_in.name()));
        }
        if self.progress.failing.is_some() {
            self.passing = Some(Passing::Dropped(large.payload_bytes));
            return Ok(());
        }
        self.passing = Some(match large.kind {
            LargeKind::Row => Passing::Row(RowStream::begin(large.payload_bytes)),
            LargeKind::CopyData if self.copy_out.is_some() => {
                Passing::MaskedCopy(MaskedPieces::begin(large.payload_bytes))
            }
            LargeKind::CopyData => {
                let due = self.pipeline.front_mut().map(|(_, due)| due);
                let copy = front_copy(due.as_deref()).unwrap_or(CopyStream::None);
                let counts = front_counts(due).ok_or(SessionEnd::Copy)?;
                Passing::Copy(CopyPieces::begin(copy, large.payload_bytes, counts, &mut self.io.outbox)?)
            }
        });
        Ok(())
    }

    /// Passes on what there is of the message under way. `false`: the rest is still to come.
    pub(crate) fn large_goes_on(&mut self) -> Result<bool, SessionEnd> {
        let Some(passing) = &mut self.passing else { return Ok(true) };
        let due = self.pipeline.front_mut().map(|(_, due)| due);
        let input = &mut self.io.upstream.buffer;
        let over = match passing {
            Passing::Row(row) => {
                let (bound, counts) = front_bound(due)?;
                row.pass(input, bound, counts, &mut self.io.outbox)?
            }
            Passing::MaskedCopy(pieces) => {
                let masker = self.copy_out.as_mut().ok_or(SessionEnd::Copy)?;
                pieces.pass(input, masker, front_counts(due).ok_or(SessionEnd::Copy)?, &mut self.io.outbox)?
            }
            Passing::Dropped(left) => {
                let piece = input.len().min(*left);
                input.advance(piece);
                *left -= piece;
                *left == 0
            }
            Passing::Copy(copy) => copy.pass(input, front_counts(due).ok_or(SessionEnd::Copy)?, &mut self.io.outbox),
        };
        if over {
            self.passing = None;
        }
        Ok(over)
    }
}

/// Rows and COPY data never end an answer.
fn step_is_other<T>(step: &Step<T>) -> bool {
    match step {
        Step::Partial => false,
        Step::Asynchronous
        | Step::Completed { .. }
        | Step::Failed { .. }
        | Step::QueryFailed
        | Step::CopyIn { .. }
        | Step::CopyOut
        | Step::Fatal => true,
    }
}

/// The masks of the answer in front, and its counts. There are none for a request that returns no rows to the client.
pub(crate) fn front_bound(due: Option<&mut Due>) -> Result<(&BoundMask, &mut Counts), SessionEnd> {
    match due {
        Some(Due::Query(query)) => {
            let QueryDue { bound, counts, .. } = query.as_mut();
            Ok((bound.as_ref().ok_or(MaskMismatch::Rows)?, counts))
        }
        Some(Due::Execute(execute)) => {
            let ExecuteDue { portal, counts, .. } = execute.as_mut();
            Ok((bound_of(portal.bound.get(), portal.plan())?, counts))
        }
        Some(
            Due::Parse { .. }
            | Due::Bind { .. }
            | Due::DescribeStatement { .. }
            | Due::DescribePortal { .. }
            | Due::Close { .. }
            | Due::Sync
            | Due::Poison(_)
            | Due::Own,
        )
        | None => Err(SessionEnd::UnexpectedAnswer("a row")),
    }
}
