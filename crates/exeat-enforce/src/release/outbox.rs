//! What is on its way to the client. Only what was released is in it, and the client's socket is fed from nothing else.

use bytes::{Buf, BytesMut};
use exeat_policy::counting::WithinThreshold;
use exeat_policy::grant::Covered;
use exeat_wire::encode::EncodeError;
use exeat_wire::{BackendMessage, DataRow, Fields, Format, TransactionStatus, backend, encode, split_backend};

use super::transcript::{StreamPlace, Transcript};
use crate::refusal::Refusal;

/// Of what is kept, for a look at its first rows.
const LOOKED_AT_BYTES_MAX: usize = 64 * 1024;

/// Bytes cleared for the client. Filled here only; the client writer drains it.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(super) bytes: BytesMut,
    /// Where a masked cell is made before it is framed; kept from row to row.
    pub(super) scratch: Vec<u8>,
    /// From here on nothing leaves before it is known whether it may: see `keep`.
    kept_from: Option<usize>,
    place: StreamPlace,
}

impl Outbox {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left that may leave.
    pub fn is_empty(&self) -> bool {
        self.leaving() == 0
    }

    /// How many bytes may leave: all but what is kept.
    pub fn leaving(&self) -> usize {
        self.kept_from.map_or(self.bytes.len(), |from| from.min(self.bytes.len()))
    }

    /// What is to be written next.
    pub fn chunk(&self) -> &[u8] {
        self.bytes.chunk().get(..self.leaving()).unwrap_or_default()
    }

    /// `written` bytes of `chunk` reached the socket.
    pub fn advance(&mut self, written: usize) {
        let written = written.min(self.leaving());
        self.bytes.advance(written);
        self.kept_from = self.kept_from.map(|from| from.saturating_sub(written));
        self.place.advance(written);
    }

    /// Everything that may leave is in the transcript behind this.
    pub fn transcribe(&mut self, transcript: &mut Transcript) {
        let leaving = self.bytes.get(..self.leaving()).unwrap_or_default();
        self.place.transcribe(leaving, transcript);
    }

    /// How many bytes may leave where so much of the stream is on record.
    pub fn on_record(&self, recorded: u64) -> usize {
        self.place.on_record(recorded).min(self.leaving())
    }

    /// Takes back what was queued after the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.place.take_back(self.bytes.len());
        if self.kept_bytes() == 0 {
            self.kept_from = None;
        }
    }

    /// What is queued from now on stays until one of the three ends of keeping: too many rows may follow.
    pub fn keep(&mut self) {
        self.kept_from.get_or_insert(self.bytes.len());
    }

    pub fn kept_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(self.leaving())
    }

    /// The first rows of what is kept, for whoever is asked about it: as the client would get them.
    pub fn first_kept(&self, rows_max: usize) -> Vec<DataRow> {
        let kept = self.bytes.get(self.leaving()..).unwrap_or_default();
        let mut looked_at = BytesMut::from(kept.get(..LOOKED_AT_BYTES_MAX).unwrap_or(kept));
        let mut rows = Vec::new();
        while rows.len() < rows_max
            && let Ok(Some(frame)) = split_backend(&mut looked_at)
        {
            if let Ok(BackendMessage::DataRow(row)) = backend::decode(frame) {
                rows.push(row);
            }
        }
        rows
    }

    /// The answer has passed no threshold: what was kept may leave.
    pub fn release_within(&mut self, _within: WithinThreshold) {
        self.kept_from = None;
    }

    /// Humans have allowed this very statement: what was kept may leave.
    pub fn release_covered(&mut self, _covered: &Covered) {
        self.kept_from = None;
    }

    /// Nobody allows it: what was kept is gone.
    pub fn drop_kept(&mut self) {
        self.bytes.truncate(self.leaving());
        self.kept_from = None;
    }

    /// The gateway's own word to a client that waits, in front of what is kept.
    pub fn notice(&mut self, fields: &Fields) {
        let kept = self.bytes.split_off(self.leaving());
        fields.encode_notice(&mut self.bytes);
        self.kept_from = self.kept_from.map(|_| self.bytes.len());
        self.bytes.unsplit(kept);
    }

    /// A word to a client that waits which its user never sees: the value that the setting has in every session here. Some
    /// clients give up on a connection that says nothing.
    pub fn still_there(&mut self) {
        let kept = self.bytes.split_off(self.leaving());
        // It fits.
        let _ = encode::parameter_status(&mut self.bytes, "standard_conforming_strings", "on");
        self.kept_from = self.kept_from.map(|_| self.bytes.len());
        self.bytes.unsplit(kept);
    }

    /// The gateway's own refusal in the place of the refused statement's answer.
    pub fn refuse(&mut self, refusal: &Refusal, request_id: &str) {
        refusal.to_fields(request_id).encode_error(&mut self.bytes);
    }

    /// An error text of the gateway's own making.
    pub fn error(&mut self, fields: &Fields) {
        fields.encode_error(&mut self.bytes);
    }

    pub fn ready_for_query(&mut self, status: TransactionStatus) {
        encode::ready_for_query(&mut self.bytes, status);
    }

    /// A message of an answer that the gateway gives itself.
    pub fn reply(&mut self, reply: Reply<'_>) -> Result<(), EncodeError> {
        let out = &mut self.bytes;
        match reply {
            Reply::Parsed => encode::parse_complete(out),
            Reply::Bound => encode::bind_complete(out),
            Reply::Closed => encode::close_complete(out),
            Reply::NoData => encode::no_data(out),
            Reply::Parameters => encode::parameter_description(out, &[])?,
            Reply::Description { column, format } => {
                let column = encode::Column { name: column, type_oid: TEXT_OID, type_size: -1, format };
                encode::row_description(out, &[column])?;
            }
            Reply::Row(text) => encode::data_row(out, &[Some(text.as_bytes())])?,
            Reply::Complete(tag) => encode::command_complete(out, tag)?,
        }
        Ok(())
    }

    /// Messages of the login exchange, which carry nothing of a statement. They stand in front of what the server said
    /// meanwhile: no client expects a notice before it is let in.
    pub fn login(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let early = self.bytes.split();
        write(&mut self.bytes);
        self.place.login(self.bytes.len());
        self.bytes.unsplit(early);
    }
}

/// The type text, alike in both formats.
const TEXT_OID: u32 = 25;

/// What the gateway says where it answers in the server's place: one column of text, of its own making.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    Parsed,
    Bound,
    Closed,
    NoData,
    /// There are none.
    Parameters,
    Description {
        column: &'a str,
        format: Format,
    },
    Row(&'a str),
    Complete(&'a str),
}

#[cfg(test)]
mod tests {
    use exeat_policy::counting::Counting;

    use super::*;

    fn queued(outbox: &mut Outbox, text: &str) {
        outbox.reply(Reply::Complete(text)).unwrap();
    }

    fn left(outbox: &mut Outbox) -> Vec<u8> {
        let mut left = Vec::new();
        while !outbox.is_empty() {
            left.push(outbox.chunk()[0]);
            outbox.advance(1);
        }
        left
    }

    /// A count that nothing was owed for.
    fn within() -> WithinThreshold {
        Counting::new([], None).within().unwrap()
    }

    #[test]
    fn nothing_that_is_kept_leaves() {
        let mut outbox = Outbox::default();
        queued(&mut outbox, "before");
        outbox.keep();
        queued(&mut outbox, "rows");
        let kept = outbox.kept_bytes();
        assert!(kept > 0 && left(&mut outbox).ends_with(b"before\0"));
        outbox.keep();
        queued(&mut outbox, "more");
        assert!(outbox.is_empty() && outbox.chunk().is_empty() && outbox.kept_bytes() > kept);
        outbox.advance(1000);
        outbox.release_within(within());
        let all = left(&mut outbox);
        assert!(all.windows(5).any(|part| part == b"rows\0") && all.ends_with(b"more\0"));
    }

    #[test]
    fn what_is_dropped_never_leaves_and_what_follows_does() {
        let mut outbox = Outbox::default();
        outbox.keep();
        queued(&mut outbox, "rows");
        outbox.drop_kept();
        queued(&mut outbox, "after");
        let all = left(&mut outbox);
        assert!(all.ends_with(b"after\0") && !all.windows(4).any(|part| part == b"rows"));
    }

    #[test]
    fn a_notice_goes_in_front_of_what_is_kept() {
        let mut outbox = Outbox::default();
        queued(&mut outbox, "before");
        outbox.keep();
        queued(&mut outbox, "rows");
        outbox.notice(&Fields::new("NOTICE", "00000", "waiting"));
        let first = left(&mut outbox);
        assert!(first.windows(7).any(|part| part == b"waiting") && !first.windows(4).any(|part| part == b"rows"));
        outbox.notice(&Fields::new("NOTICE", "00000", "still waiting"));
        assert!(left(&mut outbox).windows(5).any(|part| part == b"still"));
        outbox.release_within(within());
        assert!(left(&mut outbox).ends_with(b"rows\0"));
    }
}
