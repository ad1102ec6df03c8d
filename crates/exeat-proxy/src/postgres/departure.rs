//! A client that leaves. One that has only ended its side gets the answers to what it had sent, as it would without a
//! gateway; one that is gone is noticed while the gateway waits for an exchange of its own, too. The two look the same
//! until something is written to them, so what is owed to a client that ended its side is waited for a while only.
//! What it sent is never cut short by being read early: it is kept, within a bound, until its turn comes.

use std::pin::pin;
use std::time::{Duration, Instant};

use super::io::{Interest, Turn};
use super::session::{Done, Session, SessionEnd};
use crate::large_messages::Front;

/// How long what a client sent before it ended its side may run on. Then it is cancelled.
pub(crate) const ABANDONED_MAX: Duration = Duration::from_secs(5);
/// What is read of a client while its messages wait: enough to notice the end of most, bounded for all.
const KEPT_BYTES_MAX: usize = 256 * 1024;

impl Session {
    /// Whether the client is read although what it says cannot be looked at yet.
    pub(crate) fn hears_client(&self) -> bool {
        let kept = &self.io.client.buffer;
        // A large message is left where it is: it has no room yet.
        let small = kept.len() < KEPT_BYTES_MAX && Front::of(kept).is_none() && !self.large.is_waiting();
        small && self.welcomed && !self.io.client_ended()
    }

    /// Does what is no exchange with this session's server, such as reading the catalog. The client may leave meanwhile.
    pub(crate) async fn while_client_stays<T>(&mut self, work: impl Future<Output = T>) -> Result<T, SessionEnd> {
        let mut work = pin!(work);
        loop {
            if !self.welcomed {
                return Ok(work.await);
            }
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                heard = self.hear_client() => heard?,
            }
        }
    }

    /// The same for what goes on where the client leaves: then it is waited for, and somebody has to see what came of it.
    pub(crate) async fn done_in_any_case<T>(&mut self, work: impl Future<Output = T>) -> (T, Done) {
        let mut work = pin!(work);
        match self.while_client_stays(work.as_mut()).await {
            Ok(done) => (done, Ok(())),
            Err(end) => (work.await, Err(end)),
        }
    }

    /// Until the client has said something, has left, or it is time to look whether the session still holds.
    async fn hear_client(&mut self) -> Done {
        if !self.hears_client() {
            self.looks.due().await;
            return self.look();
        }
        match self.turn(Interest { client: true, upstream: false }).await? {
            Turn::ClientClosed => Err(SessionEnd::ClientClosed),
            Turn::Client | Turn::ClientEnded | Turn::Upstream | Turn::UpstreamClosed | Turn::Flushed => Ok(()),
        }
    }

    /// All that the client said before it ended its side is on its way: the server is told that nothing more will
    /// come, answers, and closes.
    pub(crate) fn pass_on_end(&mut self) {
        if self.io.client_ended() && self.window_open() {
            self.io.end_upstream();
        }
    }

    /// The server has closed: by itself, or because the client had nothing more to say.
    pub(crate) fn upstream_end(&self) -> SessionEnd {
        if self.io.client_ended() { SessionEnd::ClientClosed } else { SessionEnd::UpstreamClosed }
    }

    /// Once a second: a client that ended its side and gets nothing may be gone altogether.
    pub(crate) fn abandon(&mut self) -> Done {
        if !self.io.client_ended() {
            return Ok(());
        }
        let since = *self.abandoned.get_or_insert_with(Instant::now);
        if since.elapsed() >= ABANDONED_MAX { Err(SessionEnd::ClientClosed) } else { Ok(()) }
    }
}
