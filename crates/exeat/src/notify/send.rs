//! One destination: what is due for it is claimed, posted and crossed out, a few at once. An answer's body is not read.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exeat_store::secret::{SecretError, SecretString};
use exeat_store::state::{Claimed, Message, State, StateError};
use jiff::Timestamp;
use reqwest::{Client, StatusCode, Url, header};
use ring::hmac;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::message::Said;
use super::{Destination, Kind, slack};
use crate::clock::now;
use crate::outbound::{self, OutboundError};

/// Shorter together than the outbox's first pause: an attempt is over before the next one begins.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// What waits for its next attempt is looked for this often; what is new is heard of at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Standard Webhooks: a secret of 24 to 64 bytes in base64 behind this prefix.
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the secret in {origin} is not {SECRET_PREFIX} and 24 to 64 bytes in base64")]
    NotASecret { origin: String },
    #[error("could not post")]
    Post(#[source] reqwest::Error),
    #[error("was answered with status {0}")]
    Status(StatusCode),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the gateway is ending")]
    Ending,
}

/// Where to, and how it is signed; read anew for every batch.
struct Address {
    url: Url,
    key: Option<hmac::Key>,
}

/// Reads what a destination names, without sending anything. Blocks.
pub(crate) fn check(destination: &Destination) -> Result<(), SendError> {
    let address = resolve(destination)?;
    client(destination, &address.url).map(drop)
}

/// Sends until `shutdown` turns true.
pub(super) async fn follow(
    destination: Destination,
    gateway: String,
    state: State,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut changes = state.changes();
    let post = Arc::new(Post { destination, gateway, state });
    let mut works = true;
    loop {
        let seen = changes.borrow_and_update().approval;
        let more = match post.batch().await {
            Ok(sent) => {
                works = true;
                sent > 0
            }
            Err(problem) => {
                if std::mem::take(&mut works) {
                    let name = post.destination.name.as_str();
                    tracing::error!(name, problem = exeat_store::chain(&problem), "messages cannot be sent");
                }
                false
            }
        };
        if more && !*shutdown.borrow() {
            continue;
        }
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            _ = changes.wait_for(|now| now.approval != seen), if works => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

struct Post {
    destination: Destination,
    gateway: String,
    state: State,
}

impl Post {
    /// Says how many messages were due.
    async fn batch(self: &Arc<Self>) -> Result<usize, SendError> {
        let Claimed { messages, given_up } = self.state.claim_messages(&self.destination.name, now()).await?;
        let name = self.destination.name.as_str();
        for message in given_up {
            tracing::error!(name, approval = %message.request, "a message did not arrive and is given up");
        }
        if messages.is_empty() {
            return Ok(0);
        }
        let post = Arc::clone(self);
        // Files and commands; a message that was claimed comes up again where they fail.
        let resolved = tokio::task::spawn_blocking(move || {
            let address = resolve(&post.destination)?;
            let client = client(&post.destination, &address.url)?;
            Ok::<_, SendError>((address, client))
        });
        let (address, client) = resolved.await.map_err(|_| SendError::Ending)??;
        let shared = Arc::new((address, client));
        let due = messages.len();
        let mut sending = JoinSet::new();
        for message in messages {
            let (post, shared) = (Arc::clone(self), Arc::clone(&shared));
            sending.spawn(async move {
                let sent = post.send(&message, &shared).await;
                (message, sent)
            });
        }
        while let Some(sent) = sending.join_next().await {
            if let Ok((message, Err(problem))) = sent {
                let (approval, attempt) = (&message.request, message.attempt);
                // Its URL may hold a token.
                let problem = exeat_store::chain(&problem);
                tracing::warn!(name, %approval, attempt, problem, "a message did not arrive");
            }
        }
        Ok(due)
    }

    async fn send(&self, message: &Message, (address, client): &(Address, Client)) -> Result<(), SendError> {
        let Some(request) = self.state.request(&message.request).await? else {
            // Nobody needs to hear of it any more.
            return Ok(self.state.delivered(message).await?);
        };
        let said = Said::new(&self.gateway, message, &request);
        let body = match &self.destination.kind {
            Kind::Webhook { .. } => said.to_json().to_string(),
            Kind::Slack => slack::body(&said).to_string(),
        };
        let mut post = client.post(address.url.clone()).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &address.key {
            let sent_at = Timestamp::now().as_second();
            post = post
                .header("webhook-id", &message.id)
                .header("webhook-timestamp", sent_at)
                .header("webhook-signature", signature(key, (&message.id, sent_at), &body));
        }
        let answer = post.body(body).send().await.map_err(|error| SendError::Post(error.without_url()))?;
        if !answer.status().is_success() {
            return Err(SendError::Status(answer.status()));
        }
        Ok(self.state.delivered(message).await?)
    }
}

/// `v1,` and the HMAC-SHA256 of id, time and body, in base64.
fn signature(key: &hmac::Key, (id, sent_at): (&str, i64), body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{sent_at}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

fn resolve(destination: &Destination) -> Result<Address, SendError> {
    let url = outbound::address(&destination.url)?;
    let key = match &destination.kind {
        Kind::Slack => None,
        Kind::Webhook { secret } => {
            let problem = || SendError::NotASecret { origin: secret.to_string() };
            Some(key_of(&secret.resolve()?).ok_or_else(problem)?)
        }
    };
    Ok(Address { url, key })
}

fn key_of(secret: &SecretString) -> Option<hmac::Key> {
    let bytes = STANDARD.decode(secret.expose().trim().strip_prefix(SECRET_PREFIX)?).ok()?;
    SECRET_BYTES.contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn client(destination: &Destination, url: &Url) -> Result<Client, SendError> {
    Ok(outbound::client(url, destination.ca.as_deref(), (CONNECT_TIMEOUT, ANSWER_TIMEOUT))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own example.
    #[test]
    fn a_signature_is_as_standard_webhooks_says() {
        let key = key_of(&SecretString::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())).unwrap();
        let signed = signature(&key, ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330), r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for secret in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_", "whsec_%%%"] {
            assert!(key_of(&SecretString::new(secret.to_owned())).is_none(), "{secret}");
        }
    }
}
