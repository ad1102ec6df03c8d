//! The conversation in which a client proves who it is. The server names the method before the client has said
//! anything but its startup packet, so the packet decides: a handle's name as the user means SCRAM-SHA-256, `oauth` or
//! a listener set to it means OAUTHBEARER, anything else a password in clear, inside TLS, which holds a token or a
//! handle's password. Otherwise the user means nothing.
//!
//! Says nothing about targets, rules or databases, and never how far a proof was from right.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::BytesMut;
use exeat_store::secret::SecretString;
use exeat_wire::encode::EncodeError;
use exeat_wire::frame::LOGIN_FRAME_BYTES_MAX;
use exeat_wire::{Frame, FrontendMessage, Startup, encode, frontend, split_frontend};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::io::Inbound;
use super::startup::StartupError;
use super::stream::ClientStream;
use crate::auth::bearer::{self, BearerError, OAUTHBEARER, Opening};
use crate::auth::scram::{self, Exchange, ScramError};
use crate::auth::{AuthError, Challenge, HANDLE_PREFIX, is_handle_name};
use crate::config::ListenAuth;
use crate::identity::{IdentityError, TokenRef, Verified};
use crate::server::Shared;

/// `user=oauth` asks for OAUTHBEARER on a listener that takes passwords.
const OAUTH_USER: &str = "oauth";

/// As PostgreSQL's own.
const NONCE_BYTES: usize = 18;

/// How long a client that was told why its token is not good may take to say that it heard.
const HEARD_DEADLINE: Duration = Duration::from_secs(3);

/// What the client presented, as far as the conversation itself could check it.
pub(crate) struct Presented {
    pub(crate) trace: Trace,
    pub(crate) claim: Claim,
}

pub(crate) enum Claim {
    /// A token or a handle's password, unchecked.
    Password(SecretString),
    /// Checked in the exchange.
    Proven(Box<Verified>),
    Failed(AuthError),
}

/// What log and record may say of a credential that may be nobody's.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) token_sha256_8: Option<String>,
    pub(crate) handle: Option<String>,
}

impl Trace {
    pub(crate) fn of_password(password: &str) -> Self {
        match crate::auth::handle_of_password(password) {
            Some(name) => Self::of_handle(name),
            None => Self::of_token(password),
        }
    }

    fn of_token(token: &str) -> Self {
        Self { token_sha256_8: Some(TokenRef::of_unverified(token).sha256_8), handle: None }
    }

    fn of_handle(name: &str) -> Self {
        Self { token_sha256_8: None, handle: is_handle_name(name).then(|| name.to_owned()) }
    }
}

/// Speaks until the client has given all it has to give. The caller keeps the deadline.
pub(crate) async fn converse(
    shared: &Shared,
    client: &mut Inbound<ClientStream>,
    startup: &Startup,
    source: SocketAddr,
) -> Result<Presented, StartupError> {
    if startup.needs_negotiation() {
        let options: Vec<&str> = startup.protocol_options().collect();
        // An unanswered option would only mislead the client.
        say(client, |out| encode::negotiate_protocol_version(out, startup.agreed_minor(), &options)).await?;
    }
    // Guessing stops here for exchanges we check ourselves; a password in clear is counted when it is checked.
    let too_many = shared.failures.too_many(source.ip());
    match (startup.parameter("user").unwrap_or_default(), shared.config.listen.auth) {
        (user, _) if user.starts_with(HANDLE_PREFIX) => match too_many {
            true => Ok(failed(Trace::of_handle(user), AuthError::TooManyFailures)),
            false => handle(shared, client, user).await,
        },
        (OAUTH_USER, _) | (_, ListenAuth::OauthBearer) => match too_many {
            true => Ok(failed(Trace::default(), AuthError::TooManyFailures)),
            false => token(shared, client).await,
        },
        (_, ListenAuth::Password) => password(client).await,
    }
}

async fn password(client: &mut Inbound<ClientStream>) -> Result<Presented, StartupError> {
    say(client, |out| {
        encode::authentication_cleartext_password(out);
        Ok(())
    })
    .await?;
    let frame = answer(client).await?;
    let payload = frame.payload();
    let text = payload.strip_suffix(&[0]).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let password = SecretString::new(text.ok_or(StartupError::NotAPassword)?.to_owned());
    Ok(Presented { trace: Trace::of_password(password.expose()), claim: Claim::Password(password) })
}

/// SCRAM-SHA-256 for a handle's password, bound to the certificate the client was shown wherever it can be.
async fn handle(shared: &Shared, client: &mut Inbound<ClientStream>, name: &str) -> Result<Presented, StartupError> {
    let trace = Trace::of_handle(name);
    let end_point = client.stream.end_point().map(<[u8]>::to_vec);
    say(client, |out| encode::authentication_sasl(out, scram::mechanisms(end_point.as_deref()))).await?;
    let first = frontend::sasl_initial_response(&answer(client).await?)?;
    let Challenge { verifier, identity } = shared.dependencies.handles.challenge(name);
    let Some(nonce) = nonce() else { return Ok(failed(trace, AuthError::Randomness)) };
    let Some(data) = first.data else {
        return Ok(failed(trace, ScramError::Malformed("it has no content").into()));
    };
    let begun = Exchange::begin(first.mechanism.as_str(), &data, end_point.as_deref(), &nonce, verifier);
    let exchange = match begun {
        Ok(exchange) => exchange,
        Err(problem) => return Ok(failed(trace, problem.into())),
    };
    say(client, |out| encode::authentication_sasl_continue(out, exchange.server_first())).await?;
    let last = answer(client).await?;
    match (exchange.finish(&last.payload()), identity) {
        (Ok(proof), Some(identity)) => {
            say(client, |out| encode::authentication_sasl_final(out, proof.as_bytes())).await?;
            Ok(Presented { trace, claim: Claim::Proven(Box::new(identity)) })
        }
        // Nobody has the key to nobody's verifier.
        (Ok(_), None) => Ok(failed(trace, AuthError::Handle)),
        (Err(problem), _) => Ok(failed(trace, problem.into())),
    }
}

/// OAUTHBEARER: the token, or the question where to get one.
async fn token(shared: &Shared, client: &mut Inbound<ClientStream>) -> Result<Presented, StartupError> {
    say(client, |out| encode::authentication_sasl(out, &[OAUTHBEARER])).await?;
    let first = frontend::sasl_initial_response(&answer(client).await?)?;
    if first.mechanism.as_str() != OAUTHBEARER {
        return Ok(failed(Trace::default(), BearerError::Mechanism.into()));
    }
    let opening = match bearer::opening(&first.data.unwrap_or_default()) {
        Ok(opening) => opening,
        Err(problem) => return Ok(failed(Trace::default(), problem.into())),
    };
    let verifier = &shared.dependencies.verifier;
    let (trace, problem) = match opening {
        Opening::Discovery => (Trace::default(), AuthError::Discovery),
        Opening::Token(token) => {
            let trace = Trace::of_token(token.expose());
            match verifier.verify_with(token.expose(), client.stream.certificate()).await {
                Ok(verified) => return Ok(Presented { trace, claim: Claim::Proven(Box::new(verified)) }),
                Err(problem) => (trace, IdentityError::into(problem)),
            }
        }
    };
    let refusal = bearer::refusal(verifier.discovery().as_ref());
    say(client, |out| encode::authentication_sasl_continue(out, &refusal)).await?;
    // It says one byte that means nothing. Whether it does or leaves, its token was refused and that counts.
    let _ = timeout(HEARD_DEADLINE, answer(client)).await;
    Ok(failed(trace, problem))
}

fn failed(trace: Trace, problem: AuthError) -> Presented {
    Presented { trace, claim: Claim::Failed(problem) }
}

fn nonce() -> Option<String> {
    let mut bytes = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(STANDARD_NO_PAD.encode(bytes))
}

/// Names in these messages come from decoded packets and constants, so they fit; if not, nothing can be said.
async fn say(
    client: &mut Inbound<ClientStream>,
    write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), StartupError> {
    let mut out = BytesMut::new();
    write(&mut out).map_err(|_| StartupError::NotAPassword)?;
    client.stream.write_all(&out).await?;
    client.stream.flush().await?;
    Ok(())
}

/// The client's next message, which must be of the type that carries passwords.
async fn answer(client: &mut Inbound<ClientStream>) -> Result<Frame, StartupError> {
    let frame = loop {
        match split_frontend(&mut client.buffer, LOGIN_FRAME_BYTES_MAX)? {
            Some(frame) => break frame,
            None if client.stream.read_buf(&mut client.buffer).await? == 0 => return Err(StartupError::Left),
            None => {}
        }
    };
    match frontend::decode(frame)? {
        FrontendMessage::Password(frame) => Ok(frame),
        _ => Err(StartupError::NotAPassword),
    }
}
