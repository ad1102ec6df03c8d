//! Before a session: TLS, the startup packet and the proof of identity, under one deadline. Nothing a client says here
//! reaches a database, and nothing it is told depends on whether a target exists before it has proved who it is.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use exeat_wire::startup::TLS_HANDSHAKE;
use exeat_wire::{DecodeError, Fields, Startup, StartupMessage, split_startup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::authenticate::{Presented, converse};
use super::io::Inbound;
use super::stream::ClientStream;
use crate::server::Shared;

/// From accept to the last byte of the proof. A stalled client must not hold a slot for longer.
pub(crate) const LOGIN_DEADLINE: Duration = Duration::from_secs(15);
/// How long the one who asked for a cancel is kept waiting for it.
const CANCEL_SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// SSLRequest and GSSENCRequest may each come once before the startup packet.
const NEGOTIATIONS_MAX: usize = 2;

/// A client that has said what it wants, unchecked, and given what proves who it is.
pub(crate) struct Applicant {
    pub(crate) client: Inbound<ClientStream>,
    pub(crate) startup: Startup,
    pub(crate) presented: Presented,
    pub(crate) source: SocketAddr,
}

pub(crate) enum Arrival {
    Applicant(Box<Applicant>),
    /// A CancelRequest, already handled: the connection is over.
    Cancelled(Box<Inbound<ClientStream>>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartupError {
    #[error("client left before it was authenticated")]
    Left,
    #[error("i/o failed before authentication")]
    Io(#[from] std::io::Error),
    #[error("client broke the protocol before authentication: {0}")]
    Protocol(#[from] DecodeError),
    #[error("client sent bytes ahead of the TLS handshake")]
    BytesBeforeTls,
    #[error("client opened with TLS where none can begin")]
    DirectTls,
    #[error("client opened with TLS and did not ask for the protocol postgresql (ALPN)")]
    NoAlpn,
    #[error("client did not ask for TLS")]
    PlainText,
    #[error("client sent something else than a password")]
    NotAPassword,
    #[error("client asked for a replication connection")]
    Replication,
}

impl StartupError {
    /// What the client is told before the connection closes.
    pub(crate) fn fields(&self) -> Option<Fields> {
        match self {
            // Whoever opens with TLS and means another protocol must not be fed bytes of ours.
            Self::Left | Self::Io(_) | Self::DirectTls | Self::NoAlpn => None,
            Self::Protocol(problem) => Some(Fields::new("FATAL", "08P01", &problem.to_string())),
            Self::BytesBeforeTls => Some(Fields::new("FATAL", "08P01", "unencrypted bytes after the request for TLS")),
            Self::PlainText => Some(
                Fields::new("FATAL", "28000", "this listener takes connections over TLS only")
                    .with(b'H', "connect with sslmode=verify-full"),
            ),
            Self::NotAPassword => Some(Fields::new("FATAL", "08P01", "expected a password message")),
            Self::Replication => Some(
                Fields::new("FATAL", "42501", "replication connections are not available through the gateway")
                    .with(b'H', "use an ordinary connection"),
            ),
        }
    }
}

/// The client with the reason why it goes no further.
pub(crate) type Refused = Box<(Inbound<ClientStream>, StartupError)>;

/// Reads up to the last of what proves who the client is. Cancel safe only in that dropping it closes the connection.
pub(crate) async fn receive(
    shared: &Shared,
    client: Inbound<ClientStream>,
    source: SocketAddr,
) -> Result<Arrival, Refused> {
    let mut client = direct_tls(shared, client).await?;
    let mut negotiations = 0;
    let startup = loop {
        let message = match next_startup(&mut client).await {
            Ok(message) => message,
            Err(problem) => return Err(Box::new((client, problem))),
        };
        negotiations += 1;
        match message {
            StartupMessage::SslRequest if negotiations <= NEGOTIATIONS_MAX => {
                client = answer_ssl(shared, client).await?;
            }
            StartupMessage::GssEncRequest if negotiations <= NEGOTIATIONS_MAX => {
                if let Err(problem) = client.stream.write_all(b"N").await {
                    return Err(Box::new((client, problem.into())));
                }
            }
            StartupMessage::SslRequest | StartupMessage::GssEncRequest => {
                return Err(Box::new((client, StartupError::BytesBeforeTls)));
            }
            StartupMessage::Cancel { pid, secret } => {
                if let Some(settled) = shared.cancel_keys.request(pid, &secret) {
                    let _ = timeout(CANCEL_SETTLES_WITHIN, settled).await;
                }
                return Ok(Arrival::Cancelled(Box::new(client)));
            }
            StartupMessage::DirectTls => return Err(Box::new((client, StartupError::DirectTls))),
            StartupMessage::Startup(startup) => break startup,
        }
    };
    let conversed = match admissible(shared, &client, &startup) {
        Ok(()) => converse(shared, &mut client, &startup, source).await,
        Err(problem) => Err(problem),
    };
    match conversed {
        Ok(presented) => Ok(Arrival::Applicant(Box::new(Applicant { client, startup, presented, source }))),
        Err(problem) => Err(Box::new((client, problem))),
    }
}

/// What refuses a connection whoever it is.
fn admissible(shared: &Shared, client: &Inbound<ClientStream>, startup: &Startup) -> Result<(), StartupError> {
    if shared.tls.is_some() && matches!(client.stream, ClientStream::Plain(_)) {
        return Err(StartupError::PlainText);
    }
    if startup.parameter("replication").is_some_and(|value| !matches!(value, "" | "false" | "off" | "no" | "0")) {
        return Err(StartupError::Replication);
    }
    Ok(())
}

async fn next_startup(client: &mut Inbound<ClientStream>) -> Result<StartupMessage, StartupError> {
    loop {
        if let Some(message) = split_startup(&mut client.buffer)? {
            return Ok(message);
        }
        read_more(client).await?;
    }
}

async fn read_more(client: &mut Inbound<ClientStream>) -> Result<(), StartupError> {
    if client.stream.read_buf(&mut client.buffer).await? == 0 { Err(StartupError::Left) } else { Ok(()) }
}

/// A client may open with the handshake itself (`sslnegotiation=direct`). Its first byte is looked at, not taken: it
/// belongs to the handshake.
async fn direct_tls(shared: &Shared, client: Inbound<ClientStream>) -> Result<Inbound<ClientStream>, Refused> {
    let Inbound { stream, buffer, .. } = client;
    let ClientStream::Plain(tcp) = stream else { return Ok(Inbound::new(stream, buffer)) };
    let mut first = [0; 1];
    let problem = match tcp.peek(&mut first).await {
        Ok(1..) if first != [TLS_HANDSHAKE] => return Ok(Inbound::new(ClientStream::Plain(tcp), buffer)),
        Ok(1..) => match &shared.tls {
            Some(tls) => {
                let client = handshake(tls, tcp, buffer).await?;
                // Without the name a browser, or whoever steers one, could be talking to us in another protocol.
                let agreed = client.stream.agreed_on_postgresql();
                return if agreed { Ok(client) } else { Err(Box::new((client, StartupError::NoAlpn))) };
            }
            None => StartupError::DirectTls,
        },
        Ok(0) => StartupError::Left,
        Err(problem) => problem.into(),
    };
    Err(Box::new((Inbound::new(ClientStream::Plain(tcp), buffer), problem)))
}

/// One byte, then the handshake. Whatever the client sent ahead of it came in clear and must not be taken for
/// something that was protected.
async fn answer_ssl(shared: &Shared, mut client: Inbound<ClientStream>) -> Result<Inbound<ClientStream>, Refused> {
    if !client.buffer.is_empty() {
        return Err(Box::new((client, StartupError::BytesBeforeTls)));
    }
    let (Some(tls), ClientStream::Plain(_)) = (&shared.tls, &client.stream) else {
        return match client.stream.write_all(b"N").await {
            Ok(()) => Ok(client),
            Err(problem) => Err(Box::new((client, problem.into()))),
        };
    };
    if let Err(problem) = client.stream.write_all(b"S").await {
        return Err(Box::new((client, problem.into())));
    }
    let Inbound { stream, buffer, .. } = client;
    match stream {
        ClientStream::Plain(tcp) => handshake(tls, tcp, buffer).await,
        tls @ ClientStream::Tls(..) => Err(Box::new((Inbound::new(tls, buffer), StartupError::BytesBeforeTls))),
    }
}

async fn handshake(
    tls: &crate::tls::ServerTls,
    tcp: TcpStream,
    buffer: BytesMut,
) -> Result<Inbound<ClientStream>, Refused> {
    let offer = tls.offer();
    match offer.acceptor().accept(tcp).into_fallible().await {
        Ok(stream) => Ok(Inbound::new(ClientStream::Tls(Box::new(stream), offer), buffer)),
        // The TLS alert has said why; a protocol error in clear would only confuse the client.
        Err((problem, tcp)) => Err(Box::new((Inbound::new(ClientStream::Plain(tcp), buffer), problem.into()))),
    }
}
