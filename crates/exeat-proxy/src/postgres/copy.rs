//! COPY on the session. From the client: its data goes to the server only between the server's CopyInResponse to
//! an admitted COPY FROM and the end of that COPY, in pieces as they come; whatever else it sends of the kind is
//! swallowed, as the server does. To the client: as `release_copy` has it, or masked where sealed columns are in it.
//! Between sending a statement that will ask for data and the server's word on it nothing of the client's is looked
//! at: what it sent ahead is data or the next message, and only the server's answer says which.

use bytes::{Buf, BytesMut};
use exeat_enforce::admit::CopyPass;
use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::{CopyStream, Outputs, StatementPlan};
use exeat_enforce::release::copy::CopyMasker;
use exeat_enforce::release::{Counts, release_copy};
use exeat_enforce::stand_in::{StandIn, StandIns, in_copy_data};
use exeat_wire::{BackendMessage, Fields, FrontendMessage, Request, encode, split_copy_data};

use super::due::{Due, ExecuteDue, QueryDue};
use super::session::{Done, Session, SessionEnd};

/// Where the session stands between a client that copies in and the server that takes it.
#[derive(Debug, Default)]
pub(crate) struct CopyIn {
    phase: Phase,
    /// Bytes of the CopyData frame under way that have not come yet.
    frame_left: usize,
    /// Whether that frame goes to the server. One that was begun is sent to its end, also when the COPY has failed
    /// by then: the server ignores it, but not half of it.
    frame_pass: Option<CopyPass>,
    /// Looks through the data where what stands for a sealed value must not come back.
    looking: Option<StandIns>,
    /// What did. Known to the server once the frame it came in is whole.
    found: Option<StandIn>,
    /// What the client hears in place of the server's word on the end we put to it.
    refused: Option<Fields>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Off,
    /// A statement that takes data was sent; the server has not asked for it yet.
    Awaited,
    /// The server asked for it.
    Running(CopyPass),
}

impl CopyIn {
    /// Whether the client's next bytes must wait for the server's.
    pub(crate) fn awaited(&self) -> bool {
        matches!(self.phase, Phase::Awaited)
    }

    pub(crate) fn running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    /// Whether the client's next bytes belong to a CopyData that was begun.
    pub(crate) fn inside_frame(&self) -> bool {
        self.frame_left > 0
    }

    /// A statement was sent that may ask for data.
    pub(crate) fn sent(&mut self, permit: &Permit) {
        if permit.plans.iter().any(|plan| plan.copy == CopyStream::In) {
            self.phase = Phase::Awaited;
        }
    }

    /// A request is answered, `due` are left. Nothing is sent behind the one that is awaited: with none left it is
    /// answered too.
    pub(crate) fn answered(&mut self, due: usize) {
        if due == 0 {
            self.phase = Phase::Off;
        }
    }

    /// The front request failed: data runs for no other, and the server ignores what of it is still on its way.
    pub(crate) fn failed(&mut self, due: usize) {
        if matches!(self.phase, Phase::Running(_)) {
            self.phase = Phase::Off;
        }
        self.answered(due);
    }

    /// Why the COPY that failed was ended, where it was not the server's doing.
    pub(crate) fn take_refusal(&mut self) -> Option<Fields> {
        self.refused.take()
    }
}

impl Session {
    /// Passes on or drops what there is of the client's CopyData. `false`: the rest of a frame is still to come.
    pub(crate) fn pass_copy_data(&mut self) -> Result<bool, SessionEnd> {
        loop {
            let buffer = &mut self.io.client.buffer;
            let piece = buffer.len().min(self.copy_in.frame_left);
            if piece > 0 {
                let data = buffer.split_to(piece).freeze();
                self.copy_in.frame_left -= piece;
                let CopyIn { looking, frame_pass, found, .. } = &mut self.copy_in;
                if frame_pass.is_some() && found.is_none() {
                    *found = looking.as_mut().and_then(|looking| looking.are_in(&data));
                }
                self.copy_data(data);
            }
            if self.copy_in.frame_left > 0 {
                return Ok(false);
            }
            if let Some(found) = self.copy_in.found.take() {
                self.refuse_copy(found)?;
            }
            let head = split_copy_data(&mut self.io.client.buffer).map_err(SessionEnd::Client)?;
            let Some((header, length)) = head else { return Ok(true) };
            self.copy_in.frame_left = length;
            self.copy_in.frame_pass = match &self.copy_in.phase {
                Phase::Running(pass) => Some(pass.clone()),
                Phase::Off | Phase::Awaited => None,
            };
            self.copy_data(header);
        }
    }

    /// Nothing of it is kept: the server takes the COPY back. What the client still sends is dropped.
    fn refuse_copy(&mut self, found: StandIn) -> Done {
        let Phase::Running(pass) = std::mem::take(&mut self.copy_in.phase) else { return Ok(()) };
        let mut end = BytesMut::new();
        encode::copy_fail(&mut end, "refused by exeat").map_err(|problem| SessionEnd::State(problem.to_string()))?;
        self.io.outgoing.copy(&pass, end.freeze());
        let _ = self.pipeline.sent(Request::CopyEnd, Due::Own);
        let request_id = self.new_request();
        self.copy_in.refused = Some(in_copy_data(&self.picture.facts.target, found).to_fields(&request_id));
        self.copy_in.looking = None;
        Ok(())
    }

    fn copy_data(&mut self, data: bytes::Bytes) {
        let Some(pass) = &self.copy_in.frame_pass else { return };
        if let Some(counts) = front_counts(self.pipeline.front_mut().map(|(_, due)| due)) {
            counts.bytes += u64::try_from(data.remaining()).unwrap_or(u64::MAX);
        }
        self.io.outgoing.copy(pass, data);
    }

    /// A message of the client's while the server takes data. `None`: it belongs to the COPY and is dealt with.
    pub(crate) fn copy_message(&mut self, message: FrontendMessage) -> Result<Option<FrontendMessage>, SessionEnd> {
        let Phase::Running(pass) = &self.copy_in.phase else { return Ok(Some(message)) };
        match message {
            FrontendMessage::CopyDone => self.io.outgoing.write(encode::copy_done),
            FrontendMessage::CopyFail(frame) => self.io.outgoing.copy(pass, frame.into_bytes()),
            // The server ignores these for the convenience of clients that send them after every Execute.
            FrontendMessage::Flush | FrontendMessage::Sync => return Ok(None),
            FrontendMessage::Terminate => return Ok(Some(message)),
            // To the server the end of the COPY and of the connection: it has lost its place in the stream.
            FrontendMessage::Query(_)
            | FrontendMessage::Parse(_)
            | FrontendMessage::Bind(_)
            | FrontendMessage::Describe(_)
            | FrontendMessage::Execute(_)
            | FrontendMessage::Close(_)
            | FrontendMessage::CopyData(_)
            | FrontendMessage::FunctionCall(_)
            | FrontendMessage::Password(_) => {
                return Err(SessionEnd::ClientMessage("a message that is no COPY data, in the middle of a COPY"));
            }
        }
        // It has no answer of its own: nothing is due for it.
        let _ = self.pipeline.sent(Request::CopyEnd, Due::Own);
        // A Query may hold another COPY; an Execute is over, and its answer may wait for the client's Sync.
        let more = match self.pipeline.front() {
            Some((_, Due::Query(query))) => {
                query.permit.plans.iter().skip(query.index.saturating_add(1)).any(|plan| plan.copy == CopyStream::In)
            }
            Some(_) | None => false,
        };
        self.copy_in.phase = if more { Phase::Awaited } else { Phase::Off };
        Ok(None)
    }

    /// The server wants data. It gets the client's only where the statement was admitted as one that takes it.
    pub(crate) fn copy_in_begins(&mut self, message: &BackendMessage, swallowed: bool) -> Done {
        let pass = front_copy(self.pipeline.front().map(|(_, due)| due)).and_then(CopyPass::of);
        let (Some(pass), true, false) = (pass, self.copy_in.awaited(), swallowed) else {
            return Err(SessionEnd::Copy);
        };
        let looks = front_plan(self.pipeline.front().map(|(_, due)| due)).is_some_and(|plan| plan.writes_values);
        self.copy_in.looking = looks.then(StandIns::default);
        self.copy_in.phase = Phase::Running(pass);
        self.release_copy(message)
    }

    /// CopyInResponse, CopyOutResponse, and what follows that.
    pub(crate) fn release_copy(&mut self, message: &BackendMessage) -> Done {
        if let BackendMessage::CopyOutResponse(begun) = message {
            let plan = front_plan(self.pipeline.front().map(|(_, due)| due));
            self.copy_out = match plan.map(|plan| &plan.outputs) {
                Some(Outputs::Copied(plan)) => Some(CopyMasker::bind(plan, begun, &self.picture.facts.seals)?),
                Some(_) | None => None,
            };
        }
        let due = self.pipeline.front_mut().map(|(_, due)| due);
        let copy = front_copy(due.as_deref()).unwrap_or(CopyStream::None);
        let counts = front_counts(due).ok_or(SessionEnd::Copy)?;
        match (&mut self.copy_out, message) {
            (Some(masker), BackendMessage::CopyData(data)) if copy == CopyStream::Out => {
                masker.release(data.payload_slice(), counts, &mut self.io.outbox)?;
                return Ok(());
            }
            (Some(masker), BackendMessage::CopyDone) => {
                masker.end()?;
                self.copy_out = None;
            }
            (Some(_) | None, _) => {}
        }
        release_copy(message, copy, counts, &mut self.io.outbox)?;
        Ok(())
    }
}

/// What the statement that answers now was admitted for.
pub(crate) fn front_copy(due: Option<&Due>) -> Option<CopyStream> {
    front_plan(due).map(|plan| plan.copy)
}

fn front_plan(due: Option<&Due>) -> Option<&StatementPlan> {
    match due? {
        Due::Query(query) => query.plan(),
        Due::Execute(execute) => execute.portal.plan(),
        Due::Parse { .. }
        | Due::Bind { .. }
        | Due::DescribeStatement { .. }
        | Due::DescribePortal { .. }
        | Due::Close { .. }
        | Due::Sync
        | Due::Poison(_)
        | Due::Own => None,
    }
}

pub(crate) fn front_counts(due: Option<&mut Due>) -> Option<&mut Counts> {
    match due? {
        Due::Query(query) => {
            let QueryDue { counts, .. } = query.as_mut();
            Some(counts)
        }
        Due::Execute(execute) => {
            let ExecuteDue { counts, .. } = execute.as_mut();
            Some(counts)
        }
        Due::Parse { .. }
        | Due::Bind { .. }
        | Due::DescribeStatement { .. }
        | Due::DescribePortal { .. }
        | Due::Close { .. }
        | Due::Sync
        | Due::Poison(_)
        | Due::Own => None,
    }
}

/// Rows of a COPY, from the tag with which it ends.
pub(crate) fn copied_rows(tag: &str) -> Option<u64> {
    tag.strip_prefix("COPY ")?.parse().ok()
}
