//! A connection to a server: plain or TLS behind one type, so that a session does not care.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use exeat_wire::encode;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::{UpstreamConfig, UpstreamTls};
use super::error::Problem;

/// Implements `AsyncRead` and `AsyncWrite`.
#[derive(Debug)]
pub enum UpstreamStream {
    /// Loopback only.
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl UpstreamStream {
    /// TCP, then TLS as configured. No deadline of its own.
    pub(super) async fn open(config: &UpstreamConfig) -> Result<Self, Problem> {
        let tcp = open_tcp(config).await?;
        // Requests are small and each waits for its answer.
        let set = tcp.set_nodelay(true).and_then(|()| config.transport().keepalive.apply(&tcp));
        set.map_err(|cause| Problem::Connect { cause })?;
        match config.tls() {
            None => Ok(Self::Plain(tcp)),
            Some(tls) => Ok(Self::Tls(Box::new(start_tls(tcp, tls).await?))),
        }
    }

    pub(super) fn peer_is_loopback(&self) -> bool {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        tcp.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// The server's certificate: `None` without TLS.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.get_ref().1.peer_certificates()?.first(),
        }
    }

    pub fn is_tls(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(_) => true,
        }
    }
}

async fn open_tcp(config: &UpstreamConfig) -> Result<TcpStream, Problem> {
    let connect_error = |cause| Problem::Connect { cause };
    let mut last = None;
    for address in lookup_host((config.host(), config.port())).await.map_err(connect_error)? {
        // A name that passed as loopback in the configuration may resolve to anything.
        if config.tls().is_none() && !is_loopback(address.ip()) {
            return Err(Problem::NotLoopback { address: address.ip() });
        }
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = Some(error),
        }
    }
    let none = || io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    Err(connect_error(last.unwrap_or_else(none)))
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

async fn start_tls(mut tcp: TcpStream, tls: &UpstreamTls) -> Result<TlsStream<TcpStream>, Problem> {
    const STAGE: &str = "asking for TLS";
    let lost = |cause| Problem::Lost { stage: STAGE, cause };
    let mut request = BytesMut::new();
    encode::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(lost)?;
    // Exactly one byte: whatever an attacker sends in clear after it must fail the handshake, not be read as the
    // server's later answer (CVE-2021-23222).
    let mut answer = [0; 1];
    if tcp.read(&mut answer).await.map_err(lost)? == 0 {
        return Err(Problem::Closed { stage: STAGE });
    }
    match answer {
        [b'S'] => {}
        [b'N'] => return Err(Problem::TlsNotOffered),
        // 'E' too: an error in clear is not the server's word yet.
        [byte] => return Err(Problem::NotPostgres { byte }),
    }
    TlsConnector::from(tls.client.clone())
        .connect(tls.server_name.clone(), tcp)
        .await
        .map_err(|cause| Problem::Handshake { cause })
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
