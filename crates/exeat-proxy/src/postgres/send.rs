//! Everything that writes to the server after login. `statement` is the only function that sends a client's
//! statement, and it takes the proof of admission and the proof of the record; the others send messages without
//! a statement, or constant or gateway-made text.

use exeat_enforce::admit::{Admitted, Control};
use exeat_store::record::RecordReceipt;
use exeat_wire::{Pipeline, Request, Sent, Target, encode};

use super::due::Due;
use super::io::Outgoing;

/// The gateway's own statement and portal names. A client that uses them is refused.
pub(crate) const OWN_NAME: &str = "__exeat";

/// Not SQL in any version: PostgreSQL answers 42601 before it looks at anything else, also in a failed block.
pub(crate) const POISON_SQL: &str = "exeat refused this statement";

/// The server's side of the session as the senders see it.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) outgoing: &'a mut Outgoing,
    pub(crate) pipeline: &'a mut Pipeline<Due>,
}

/// The gateway could not write its own message (a name or text too long for the protocol).
#[derive(Debug, thiserror::Error)]
#[error("a message of the gateway's own does not fit the protocol")]
pub(crate) struct Unsendable;

/// A message that the server will skip is not queued as due; its context comes back.
pub(crate) type Skipped = Option<Due>;

fn skipped(sent: Sent<Due>) -> Skipped {
    match sent {
        Sent::Due => None,
        Sent::Skipped(due) => Some(due),
    }
}

impl Sender<'_> {
    /// Sends a client's statement: a Query, a Parse or a Bind.
    pub(crate) fn statement(
        &mut self,
        request: Request,
        admitted: Admitted,
        _receipt: RecordReceipt,
        due: Due,
    ) -> Skipped {
        self.outgoing.push(admitted.into_frame().into_bytes());
        skipped(self.pipeline.sent(request, due))
    }

    pub(crate) fn control(&mut self, request: Request, control: Control, due: Due) -> Skipped {
        self.outgoing.push(control.into_frame().into_bytes());
        skipped(self.pipeline.sent(request, due))
    }

    pub(crate) fn sync(&mut self, due: Due) -> Skipped {
        self.outgoing.write(encode::sync);
        skipped(self.pipeline.sent(Request::Sync, due))
    }

    pub(crate) fn flush(&mut self) {
        self.outgoing.write(encode::flush);
    }

    /// Poison in place of a message of the extended protocol: upstream skips to the client's own Sync.
    pub(crate) fn poison_extended(&mut self, due: Due) -> Result<Skipped, Unsendable> {
        self.own(|out| encode::parse(out, OWN_NAME, POISON_SQL, &[]))?;
        // Without a Flush the server may sit on its answer until the client's Sync, as it may on any other; a
        // client that waits for the refusal of a flushed message gets it this way.
        self.flush();
        Ok(skipped(self.pipeline.sent(Request::Parse, due)))
    }

    /// Poison in place of a simple Query or a FunctionCall.
    pub(crate) fn poison_simple(&mut self, due: Due) -> Result<Skipped, Unsendable> {
        self.own(|out| encode::query(out, POISON_SQL))?;
        Ok(skipped(self.pipeline.sent(Request::Query, due)))
    }

    /// BEGIN, COMMIT or ROLLBACK of the gateway's own, around a Query of the client's.
    pub(crate) fn own_command(&mut self, text: &'static str) -> Result<(), Unsendable> {
        self.own(|out| encode::query(out, text))?;
        self.pipeline.sent(Request::Query, Due::Own);
        Ok(())
    }

    /// A named Parse of one statement of the client's that is never executed, and the Close of what it made.
    pub(crate) fn parse_probe(&mut self, sql: &str, parameter_types: &[u32]) -> Result<(), Unsendable> {
        self.own(|out| encode::parse(out, OWN_NAME, sql, parameter_types))?;
        self.pipeline.sent(Request::Parse, Due::Own);
        self.close_own(Target::Statement)
    }

    /// A query of the gateway's own making on the session's connection, in extended messages under own names.
    pub(crate) fn catalog_read(&mut self, sql: &str) -> Result<(), Unsendable> {
        self.own(|out| encode::parse(out, OWN_NAME, sql, &[]))?;
        self.pipeline.sent(Request::Parse, Due::Own);
        self.own(|out| encode::bind(out, OWN_NAME, OWN_NAME, &[], &[]))?;
        self.pipeline.sent(Request::Bind, Due::Own);
        self.own(|out| encode::execute(out, OWN_NAME, 0))?;
        self.pipeline.sent(Request::Execute, Due::Own);
        self.close_own(Target::Portal)?;
        self.close_own(Target::Statement)
    }

    /// A Describe before an Execute whose portal the server has not described yet.
    pub(crate) fn describe_portal(&mut self, name: &str, due: Due) -> Result<Skipped, Unsendable> {
        self.own(|out| encode::describe(out, Target::Portal, name))?;
        Ok(skipped(self.pipeline.sent(Request::DescribePortal, due)))
    }

    fn close_own(&mut self, target: Target) -> Result<(), Unsendable> {
        self.own(|out| encode::close(out, target, OWN_NAME))?;
        self.pipeline.sent(Request::Close, Due::Own);
        Ok(())
    }

    fn own<E>(&mut self, encode: impl FnOnce(&mut bytes::BytesMut) -> Result<(), E>) -> Result<(), Unsendable> {
        let mut result = Ok(());
        self.outgoing.write(|out| result = encode(out).map_err(|_| Unsendable));
        result
    }
}
