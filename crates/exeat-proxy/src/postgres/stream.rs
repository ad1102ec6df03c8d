//! The client's side of the connection: plain on loopback listeners, TLS everywhere else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::identity::Thumbprint;
use crate::tls::{ALPN_POSTGRESQL, Offer};

#[derive(Debug)]
pub(crate) enum ClientStream {
    Plain(TcpStream),
    /// With what the client was shown.
    Tls(Box<TlsStream<TcpStream>>, Arc<Offer>),
}

impl ClientStream {
    /// Protocol version for the record; `None` without TLS.
    pub(crate) fn tls_version(&self) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream, _) => match stream.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => Some("1.2"),
                Some(rustls::ProtocolVersion::TLSv1_3) => Some("1.3"),
                Some(_) | None => Some("unknown"),
            },
        }
    }

    /// Channel binding of the certificate this client was shown, where there is one.
    pub(crate) fn end_point(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(_, offer) => offer.end_point(),
        }
    }

    /// The client's own certificate, which it proved to hold the key of.
    pub(crate) fn certificate(&self) -> Option<Thumbprint> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream, _) => Thumbprint::of(stream.get_ref().1.peer_certificates()?.first()?),
        }
    }

    /// Whether the client asked for PostgreSQL by name (ALPN). One that asked for something else only is not here.
    pub(crate) fn agreed_on_postgresql(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream, _) => stream.get_ref().1.alpn_protocol() == Some(ALPN_POSTGRESQL),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
