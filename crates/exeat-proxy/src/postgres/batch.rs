//! Which requests of the extended protocol share one implicit transaction: it ends with the batch, after each of them
//! has had its outcome. When that end fails, or is not seen, the record must be able to say for which of them.
//! Follows the server's answers in their order; decides nothing about what passes.

/// The Executes answered since the last ReadyForQuery, by the requests whose intents they belong to.
#[derive(Debug)]
pub(crate) struct Batch<R> {
    ran: Option<Ran<R>>,
    /// In a transaction block: its end is a statement of its own, with an outcome of its own.
    block: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Ran<R> {
    pub(crate) first: R,
    pub(crate) last: R,
}

/// What a statement did to the transaction it ran in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    GoesOn,
    Ended,
}

impl<R> Default for Batch<R> {
    fn default() -> Self {
        Self { ran: None, block: false }
    }
}

impl<R: Clone> Batch<R> {
    /// An Execute was answered, and with this tag if it ran to its end.
    pub(crate) fn ran(&mut self, request: &R, tag: &[u8]) {
        match (self.noted(tag), &mut self.ran) {
            (Noted::Ended, _) => {}
            (Noted::GoesOn, Some(ran)) => ran.last = request.clone(),
            (Noted::GoesOn, ran) => *ran = Some(Ran { first: request.clone(), last: request.clone() }),
        }
    }

    /// A statement ended, be it of an Execute or of a Query behind them.
    pub(crate) fn noted(&mut self, tag: &[u8]) -> Noted {
        match tag {
            b"BEGIN" | b"START TRANSACTION" => self.block = true,
            // What stood before it has its end, and so has it.
            b"COMMIT" | b"PREPARE TRANSACTION" => {
                self.ended(false);
                return Noted::Ended;
            }
            // To a savepoint or of the whole block: the tag does not tell.
            b"ROLLBACK" => {
                self.ran = None;
                return Noted::Ended;
            }
            _ => {}
        }
        Noted::GoesOn
    }

    /// The server said ReadyForQuery.
    pub(crate) fn ended(&mut self, in_block: bool) {
        *self = Self { ran: None, block: in_block };
    }

    /// What ran and shares the end of the implicit transaction.
    pub(crate) fn open(&self) -> Option<&Ran<R>> {
        self.ran.as_ref().filter(|_| !self.block)
    }

    /// What a Sync that failed took back. Within a block it would have ended nothing, so there was none.
    pub(crate) fn taken_back(&self) -> Option<&Ran<R>> {
        self.ran.as_ref()
    }

    /// The request that the implicit transaction began with.
    pub(crate) fn first(&self) -> Option<&R> {
        self.open().map(|ran| &ran.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(batch: &Batch<u64>) -> Option<(u64, u64)> {
        batch.open().map(|ran| (ran.first, ran.last))
    }

    #[test]
    fn what_ran_since_the_last_end_shares_the_next() {
        let mut batch = Batch::default();
        assert_eq!(span(&batch), None);
        batch.ran(&1, b"INSERT 0 1");
        batch.ran(&2, b"");
        assert_eq!(span(&batch), Some((1, 2)));
        batch.ran(&3, b"COMMIT");
        assert_eq!(span(&batch), None, "committed by itself");
        batch.ran(&4, b"INSERT 0 1");
        assert_eq!(span(&batch), Some((4, 4)));
        batch.ended(false);
        assert_eq!(span(&batch), None);
    }

    #[test]
    fn in_a_block_a_sync_ends_nothing() {
        let mut batch = Batch::default();
        batch.ran(&1, b"INSERT 0 1");
        batch.ran(&2, b"BEGIN");
        batch.ran(&3, b"INSERT 0 1");
        assert_eq!(span(&batch), None);
        batch.ended(true);
        batch.ran(&4, b"INSERT 0 1");
        assert_eq!(span(&batch), None);
        batch.ran(&5, b"ROLLBACK");
        batch.ran(&6, b"INSERT 0 1");
        assert_eq!(span(&batch), None, "it may have been to a savepoint");
        assert_eq!(batch.taken_back().map(|ran| (ran.first, ran.last)), Some((6, 6)));
    }
}
