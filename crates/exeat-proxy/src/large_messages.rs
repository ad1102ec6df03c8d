//! The memory that clients' large messages may take, over all sessions. A message that is kept whole, a statement or
//! the parameters of one, is analysed or recorded before a byte of it goes on, so a session's buffer grows to its
//! size: enough sessions that send one each, or half of one each and then nothing, would take all memory there is.
//! So a session takes a message's whole size from one budget before it reads on, and gives it back when the message
//! is on its way to the server. It waits where there is none left, and is not refused.
//!
//! Never waits for more while it holds some: a message takes all it needs at once, and the next one takes its own when
//! the last has gone. Small messages, rows and COPY data, which pass in pieces, never come here.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use exeat_wire::LARGE_MESSAGE_BYTES_MIN;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::ConnectionLimits;

const KIB: usize = 1024;

#[derive(Debug)]
pub(crate) struct LargeMessages {
    /// In KiB.
    free: Arc<Semaphore>,
    all_kib: u32,
    patience: Duration,
}

impl LargeMessages {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        let all_kib = kib(limits.large_messages_bytes);
        let free = Arc::new(Semaphore::new(usize::try_from(all_kib).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { free, all_kib, patience: limits.large_message_timeout }
    }

    /// What one session holds of it.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), claim: Claim::None }
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX)
}

/// The large message that stands first in a client's buffer and is not whole yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Front {
    pub(crate) frame_bytes: usize,
    /// How much of it has come.
    pub(crate) here: usize,
}

impl Front {
    /// Of bytes that begin where a message does.
    pub(crate) fn of(buffer: &[u8]) -> Option<Self> {
        let frame_bytes = exeat_wire::large_message_bytes(buffer)?;
        Some(Self { frame_bytes, here: buffer.len() }).filter(|front| front.here < front.frame_bytes)
    }
}

/// A client that began a large message and does not go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("client sent {here} bytes of a message of {frame_bytes} and no more for {patience:?}")]
pub(crate) struct Stalled {
    here: usize,
    frame_bytes: usize,
    patience: Duration,
}

/// Whether a session's buffer still needs the room it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Same,
    /// The large message has gone.
    Released,
}

#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<LargeMessages>,
    claim: Claim,
}

enum Claim {
    None,
    Waiting { front: Front, permit: Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send + Sync>> },
    Held { coming: Option<Coming>, _permit: OwnedSemaphorePermit },
}

/// A message that is being read.
#[derive(Debug)]
struct Coming {
    front: Front,
    /// What had come at the last mark, and when that was.
    mark: (usize, Instant),
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Waiting { front, .. } => write!(f, "Waiting({front:?})"),
            Self::Held { coming, .. } => write!(f, "Held({coming:?})"),
        }
    }
}

impl Share {
    /// Between two turns: what stands first, how many bytes the session keeps in its buffers, and whether it could
    /// read. It claims nothing it could not go on to read: what it holds, only its client can hold up.
    pub(crate) fn settle(&mut self, front: Option<Front>, kept_bytes: usize, reads: bool) -> Settled {
        let mut settled = Settled::Same;
        if let Claim::Held { coming, .. } = &mut self.claim {
            *coming = coming.take().and_then(|coming| coming.goes_on(front));
            if coming.is_none() && kept_bytes < LARGE_MESSAGE_BYTES_MIN {
                self.claim = Claim::None;
                settled = Settled::Released;
            }
        }
        if let (Claim::None, Some(front), true) = (&self.claim, front, reads) {
            let kib = kib(front.frame_bytes).min(self.budget.all_kib);
            let free = Arc::clone(&self.budget.free);
            let permit = Box::pin(async move {
                match free.acquire_many_owned(kib).await {
                    Ok(permit) => permit,
                    // Never closed; if it were, nobody reads on.
                    Err(_) => std::future::pending().await,
                }
            });
            self.claim = Claim::Waiting { front, permit };
        }
        settled
    }

    /// Whether the client must not be read: its next message has not got its room yet.
    pub(crate) fn keeps_from_reading(&self, front: Option<Front>) -> bool {
        match &self.claim {
            Claim::None | Claim::Held { coming: Some(_), .. } => false,
            Claim::Waiting { .. } => true,
            Claim::Held { coming: None, .. } => front.is_some(),
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.claim, Claim::Waiting { .. })
    }

    /// Until the room that is waited for is there. The place in the queue stays between polls.
    pub(crate) fn poll_granted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Claim::Waiting { front, permit } = &mut self.claim else { return Poll::Pending };
        let permit = ready!(permit.as_mut().poll(cx));
        let coming = Coming { front: *front, mark: (front.here, Instant::now()) };
        self.claim = Claim::Held { coming: Some(coming), _permit: permit };
        Poll::Ready(())
    }

    /// Once a second: a client may be slow, but what it holds others wait for.
    pub(crate) fn look(&mut self) -> Result<(), Stalled> {
        let Claim::Held { coming: Some(coming), .. } = &mut self.claim else { return Ok(()) };
        let (here, since) = coming.mark;
        let Front { here: now_here, frame_bytes } = coming.front;
        if now_here >= here.saturating_add(LARGE_MESSAGE_BYTES_MIN) {
            coming.mark = (now_here, Instant::now());
        } else if since.elapsed() >= self.budget.patience {
            return Err(Stalled { here: now_here, frame_bytes, patience: self.budget.patience });
        }
        Ok(())
    }
}

impl Coming {
    /// `None`: it is whole, and `front` is another one. A read brings less than a large message, so of another there
    /// is less than there was of this one.
    fn goes_on(mut self, front: Option<Front>) -> Option<Self> {
        self.front = front.filter(|front| front.here >= self.front.here)?;
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = KIB * KIB;

    fn budget(mib: usize, patience: Duration) -> Arc<LargeMessages> {
        Arc::new(LargeMessages::new(ConnectionLimits {
            large_messages_bytes: mib * MIB,
            large_message_timeout: patience,
            ..ConnectionLimits::default()
        }))
    }

    fn front(mib: usize, here: usize) -> Option<Front> {
        Some(Front { frame_bytes: mib * MIB, here })
    }

    async fn is_granted(share: &mut Share) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(share.poll_granted(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_message_waits_until_there_is_room_for_all_of_it() {
        let budget = budget(64, Duration::MAX);
        let (mut one, mut two) = (budget.share(), budget.share());
        one.settle(front(40, 10), 10, true);
        assert!(one.keeps_from_reading(front(40, 10)) && is_granted(&mut one).await);
        assert!(!one.keeps_from_reading(front(40, 10)));
        two.settle(front(40, 10), 10, true);
        assert!(!is_granted(&mut two).await && two.keeps_from_reading(front(40, 10)));
        // Whole, but not gone yet: the next one behind it is not read, nor does it ask for room.
        assert_eq!(one.settle(front(40, 20), 40 * MIB, true), Settled::Same);
        assert_eq!(one.settle(front(30, 19), 40 * MIB, true), Settled::Same);
        assert!(one.keeps_from_reading(front(30, 19)) && !one.keeps_from_reading(None));
        assert!(!is_granted(&mut two).await);
        assert_eq!(one.settle(None, MIB - 1, true), Settled::Released);
        assert!(is_granted(&mut two).await);
        drop(two);
        assert_eq!(budget.free.available_permits(), 64 * KIB);
    }

    #[tokio::test]
    async fn who_waits_and_leaves_takes_nothing_along() {
        let budget = budget(64, Duration::MAX);
        let (mut one, mut two) = (budget.share(), budget.share());
        one.settle(front(64, 10), 10, true);
        assert!(is_granted(&mut one).await);
        two.settle(front(64, 10), 10, true);
        assert!(!is_granted(&mut two).await);
        drop(one); // its room goes to the one that waits
        drop(two);
        assert_eq!(budget.free.available_permits(), 64 * KIB);
    }

    #[tokio::test]
    async fn a_message_larger_than_the_budget_takes_all_of_it() {
        let budget = budget(2, Duration::MAX);
        let mut share = budget.share();
        share.settle(front(65, 10), 10, false);
        assert!(!share.is_waiting(), "what cannot be read claims nothing");
        share.settle(front(65, 10), 10, true);
        assert!(is_granted(&mut share).await);
    }

    #[tokio::test]
    async fn only_who_goes_on_may_hold_room() {
        let budget = budget(64, Duration::ZERO);
        let mut share = budget.share();
        share.settle(front(40, 10), 10, true);
        assert_eq!(share.look(), Ok(()), "who waits for room holds nobody up");
        assert!(is_granted(&mut share).await);
        share.settle(front(40, 10 + MIB), 10 + MIB, true);
        assert_eq!(share.look(), Ok(()));
        share.settle(front(40, 9 + 2 * MIB), 9 + 2 * MIB, true);
        assert!(share.look().is_err(), "less than a MiB more");
        share.settle(None, 40 * MIB, true);
        assert_eq!(share.look(), Ok(()), "whole: the server is the one to wait for");
    }
}
