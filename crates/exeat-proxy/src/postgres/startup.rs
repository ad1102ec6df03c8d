//! Before a session: TLS, the startup packet and the token, under one deadline. Nothing a client says here reaches
//! a database, and nothing it is told depends on whether a target exists before it has proved who it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use exeat_wire::frame::LOGIN_FRAME_BYTES_MAX;
use exeat_wire::{
    DecodeError, Fields, FrontendMessage, Startup, StartupMessage, encode, frontend, split_frontend, split_startup,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::io::Inbound;
use super::stream::ClientStream;
use crate::server::Shared;

/// From accept to the last byte of the token. A stalled client must not hold a slot for longer.
pub(crate) const LOGIN_DEADLINE: Duration = Duration::from_secs(15);
/// SSLRequest and GSSENCRequest may each come once before the startup packet.
const NEGOTIATIONS_MAX: usize = 2;

/// A client that has said what it wants and given a token, both unchecked.
pub(crate) struct Applicant {
    pub(crate) client: Inbound<ClientStream>,
    pub(crate) startup: Startup,
    pub(crate) token: exeat_store::secret::SecretString,
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
    #[error("client asked for direct TLS, which this version does not take")]
    DirectTls,
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
            Self::Left | Self::Io(_) | Self::DirectTls => None,
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

/// Reads up to the token. Cancel safe only in that dropping it closes the connection.
pub(crate) async fn receive(
    shared: &Shared,
    mut client: Inbound<ClientStream>,
    source: SocketAddr,
) -> Result<Arrival, Refused> {
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
                shared.cancel_keys.request(pid, &secret);
                return Ok(Arrival::Cancelled(Box::new(client)));
            }
            StartupMessage::DirectTls => return Err(Box::new((client, StartupError::DirectTls))),
            StartupMessage::Startup(startup) => break startup,
        }
    };
    match token(shared, &mut client, &startup).await {
        Ok(token) => Ok(Arrival::Applicant(Box::new(Applicant { client, startup, token, source }))),
        Err(problem) => Err(Box::new((client, problem))),
    }
}

async fn token(
    shared: &Shared,
    client: &mut Inbound<ClientStream>,
    startup: &Startup,
) -> Result<exeat_store::secret::SecretString, StartupError> {
    if shared.tls.is_some() && matches!(client.stream, ClientStream::Plain(_)) {
        return Err(StartupError::PlainText);
    }
    if startup.parameter("replication").is_some_and(|value| !matches!(value, "" | "false" | "off" | "no" | "0")) {
        return Err(StartupError::Replication);
    }
    let mut out = BytesMut::new();
    if startup.needs_negotiation() {
        let options: Vec<&str> = startup.protocol_options().collect();
        // Names come from a decoded packet and fit; an unanswered option would only mislead the client.
        encode::negotiate_protocol_version(&mut out, startup.agreed_minor(), &options)
            .map_err(|_| StartupError::NotAPassword)?;
    }
    encode::authentication_cleartext_password(&mut out);
    client.stream.write_all(&out).await?;
    client.stream.flush().await?;
    let frame = loop {
        match split_frontend(&mut client.buffer, LOGIN_FRAME_BYTES_MAX)? {
            Some(frame) => break frame,
            None => read_more(client).await?,
        }
    };
    let FrontendMessage::Password(frame) = frontend::decode(frame)? else { return Err(StartupError::NotAPassword) };
    let payload = frame.payload();
    let text = payload.strip_suffix(&[0]).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.map(|text| exeat_store::secret::SecretString::new(text.to_owned())).ok_or(StartupError::NotAPassword)
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
        tls @ ClientStream::Tls(_) => Err(Box::new((Inbound::new(tls, buffer), StartupError::BytesBeforeTls))),
    }
}

async fn handshake(
    tls: &Arc<crate::tls::ServerTls>,
    tcp: TcpStream,
    buffer: BytesMut,
) -> Result<Inbound<ClientStream>, Refused> {
    match tls.acceptor().accept(tcp).into_fallible().await {
        Ok(stream) => Ok(Inbound::new(ClientStream::Tls(Box::new(stream)), buffer)),
        // The TLS alert has said why; a protocol error in clear would only confuse the client.
        Err((problem, tcp)) => Err(Box::new((Inbound::new(ClientStream::Plain(tcp), buffer), problem.into()))),
    }
}
