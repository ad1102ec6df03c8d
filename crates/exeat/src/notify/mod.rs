//! Messages about statements that wait for humans: to webhooks as Standard Webhooks says, and to chat.
//!
//! What there is to say stands in the store's outbox, put there in the step that made it true; here it is sent, again and
//! again within bounds, with the same id every time. Each destination has a task and a time limit of its own, so that one
//! which is down slows nobody. A message tells, and decides nothing: whoever answers comes with a token of their own.

mod message;
mod send;
mod slack;

use std::path::PathBuf;

use exeat_store::secret::SecretSource;
use exeat_store::state::{State, Tell};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use send::check;

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// By which the outbox knows it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// It may hold a token: read when it is needed, and shown nowhere.
    pub(crate) url: SecretSource,
    /// In place of the system's authorities.
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Signed with the secret.
    Webhook { secret: SecretSource },
    /// A chat's incoming webhook, as Slack's is.
    Slack,
}

/// The names that new requests are to be told to.
pub(crate) fn tell(destinations: &[Destination]) -> Tell {
    Tell(destinations.iter().map(|destination| destination.name.clone()).collect())
}

/// Sends what is due until `shutdown` turns true.
pub(crate) async fn run(
    destinations: Vec<Destination>,
    gateway: String,
    state: State,
    shutdown: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    for destination in destinations {
        tasks.spawn(send::follow(destination, gateway.clone(), state.clone(), shutdown.clone()));
    }
    while tasks.join_next().await.is_some() {}
}
