//! Exports as syslog (RFC 5424), a message for each line: over TCP and TLS with octet counting (RFC 6587, RFC 5425), over UDP one
//! datagram each. Syslog confirms nothing; what TCP can tell is asked of it: after a while our side of the connection is ended,
//! and what the receiver has read to its end it has. UDP tells nothing.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use exeat_proxy::tls::{Roots, Trust, client_config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::reader::Told;
use super::{Delivered, ExportError, SyslogConfig, Transport};

/// For a connection with its handshake, for a batch, for the end.
const LIMIT: Duration = Duration::from_secs(15);

/// Facility "log audit".
const FACILITY: u8 = 13;
const WARNING: u8 = 4;
const INFORMATIONAL: u8 = 6;

/// The enterprise number that RFC 5612 keeps for whoever has none.
const STRUCTURE: &str = "exeat@32473";

/// What the header's fields may have.
const HOSTNAME_MAX: usize = 255;
const MSGID_MAX: usize = 32;

trait Duplex: AsyncRead + AsyncWrite + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Send + Sync> Duplex for T {}

enum Connection {
    Stream(Pin<Box<dyn Duplex>>),
    Datagrams(UdpSocket),
}

pub(super) struct Syslog {
    config: SyslogConfig,
    address: String,
    hostname: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    connection: Option<Connection>,
}

impl Syslog {
    /// Reads certificates; reaches nobody yet.
    pub(super) fn new(config: &SyslogConfig, gateway: &str) -> Result<Self, ExportError> {
        let tls = match config.transport {
            Transport::Tcp | Transport::Udp => None,
            Transport::Tls => {
                let roots = config.ca.clone().map_or(Roots::System, Roots::File);
                let name = ServerName::try_from(config.host.trim_matches(['[', ']']).to_owned());
                let name = name.map_err(|_| ExportError::Name { host: config.host.clone() })?;
                Some((client_config(&Trust::Full(roots), &[])?, name))
            }
        };
        let address = format!("{}:{}", config.host, config.port);
        Ok(Self { config: config.clone(), address, hostname: field(gateway, HOSTNAME_MAX), tls, connection: None })
    }

    pub(super) async fn tell(&mut self, batch: &[Told]) -> Result<Delivered, ExportError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.limited(self.connect()).await?,
        };
        let delivered = match &mut connection {
            Connection::Datagrams(socket) => {
                for told in batch {
                    let message = self.message(told);
                    let sent = self.limited(async { socket.send(message.as_bytes()).await.map_err(self.sending()) });
                    sent.await?;
                }
                Delivered::Yes
            }
            Connection::Stream(stream) => {
                let mut frames = String::new();
                for message in batch.iter().map(|told| self.message(told)) {
                    // Writing to a string does not fail.
                    let _ = write!(frames, "{} {message}", message.len());
                }
                self.still_open(stream).await?;
                let written = async {
                    stream.write_all(frames.as_bytes()).await?;
                    stream.flush().await
                };
                self.limited(async { written.await.map_err(self.sending()) }).await?;
                Delivered::OnTheWay(frames.len())
            }
        };
        self.connection = Some(connection);
        Ok(delivered)
    }

    /// Ends our side, and waits for the receiver's end: it comes when it has read everything. The next batch connects again.
    pub(super) async fn confirm(&mut self) -> Result<(), ExportError> {
        let Some(Connection::Stream(mut stream)) = self.connection.take() else { return Ok(()) };
        self.still_open(&mut stream).await?;
        let end = async {
            stream.shutdown().await?;
            let mut ignored = [0; 1024];
            loop {
                match stream.read(&mut ignored).await {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    // Many receivers close TCP without closing TLS.
                    Err(problem) if problem.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(problem) => return Err(problem),
                }
            }
        };
        self.limited(async { end.await.map_err(self.sending()) }).await
    }

    /// A receiver that has ended the connection on its own may not have read what was sent.
    async fn still_open(&self, stream: &mut Pin<Box<dyn Duplex>>) -> Result<(), ExportError> {
        let mut ignored = [0; 1024];
        let looked = tokio::select! {
            biased;
            read = stream.read(&mut ignored) => read,
            () = std::future::ready(()) => return Ok(()),
        };
        match looked {
            Ok(0) => Err(ExportError::Ended { address: self.address.clone() }),
            Ok(_) => Ok(()),
            Err(source) => Err(self.sending()(source)),
        }
    }

    async fn connect(&self) -> Result<Connection, ExportError> {
        let failed = |source| ExportError::Connect { address: self.address.clone(), source };
        if self.config.transport == Transport::Udp {
            let mut found = tokio::net::lookup_host(&self.address).await.map_err(failed)?;
            let peer = found.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            let any = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await.map_err(failed)?;
            socket.connect(peer).await.map_err(failed)?;
            return Ok(Connection::Datagrams(socket));
        }
        let tcp = TcpStream::connect(&self.address).await.map_err(failed)?;
        let Some((tls, name)) = &self.tls else { return Ok(Connection::Stream(Box::pin(tcp))) };
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name.clone(), tcp).await.map_err(failed)?;
        Ok(Connection::Stream(Box::pin(stream)))
    }

    async fn limited<T>(&self, work: impl Future<Output = Result<T, ExportError>>) -> Result<T, ExportError> {
        let slow = |_| ExportError::Slow { address: self.address.clone(), limit: LIMIT };
        timeout(LIMIT, work).await.map_err(slow)?
    }

    fn sending(&self) -> impl Fn(io::Error) -> ExportError + use<> {
        let address = self.address.clone();
        move |source| ExportError::Send { address: address.clone(), source }
    }

    fn message(&self, told: &Told) -> String {
        let severity = if told.is_notable { WARNING } else { INFORMATIONAL };
        let priority = FACILITY * 8 + severity;
        let mut structure = STRUCTURE.to_owned();
        let seq = told.seq.map(|seq| seq.to_string());
        for (name, value) in
            [("seq", seq.as_deref()), ("session", told.session.as_deref()), ("type", Some(told.kind.as_str()))]
        {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(structure, " {name}=\"{}\"", escaped(value));
            }
        }
        let (time, host, kind) = (&told.time, &self.hostname, field(&told.kind, MSGID_MAX));
        format!("<{priority}>1 {time} {host} exeat - {kind} [{structure}] {}", told.text)
    }
}

/// Printable ASCII without spaces, as the header's fields are.
fn field(text: &str, characters: usize) -> String {
    let kept: String = text.chars().filter(char::is_ascii_graphic).take(characters).collect();
    if kept.is_empty() { "-".to_owned() } else { kept }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '"' | '\\' | ']') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_rfc_5424_says() {
        let config = SyslogConfig { transport: Transport::Tcp, host: "localhost".to_owned(), port: 1, ca: None };
        let syslog = Syslog::new(&config, "exeat prod\n").unwrap();
        let told = Told {
            text: r#"{"seq":7}"#.to_owned(),
            seq: Some(7),
            kind: "auth.fail".to_owned(),
            session: Some("a\"b]c\\".to_owned()),
            time: "2026-11-22T00:48:44.836427Z".to_owned(),
            is_notable: true,
        };
        assert_eq!(
            syslog.message(&told),
            r#"<108>1 2026-11-22T00:48:44.836427Z exeatprod exeat - auth.fail [exeat@32473 seq="7" session="a\"b\]c\\" type="auth.fail"] {"seq":7}"#
        );
        let checkpoint = Told { seq: None, session: None, kind: "checkpoint".to_owned(), is_notable: false, ..told };
        assert!(syslog.message(&checkpoint).contains(r#" checkpoint [exeat@32473 type="checkpoint"] "#));
        assert!(syslog.message(&checkpoint).starts_with("<110>1 "));
    }
}
