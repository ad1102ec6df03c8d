//! The first packet of a connection, which has no type byte: a request for encryption, a cancel, or the startup
//! packet with its parameters. Never decides whether a connection may go on, and knows no user or database.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::reader::Reader;
use crate::text::Hidden;

/// The server's own limit (`MAX_STARTUP_PACKET_LENGTH`).
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// The largest cancel key of protocol 3.2; in 3.0 a key has 4 bytes.
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

/// Real clients send under ten parameters. Bounds the search for duplicates.
pub const STARTUP_PARAMETERS_MAX: usize = 128;

/// The newest minor version of protocol 3 that the messages of this crate follow.
pub const PROTOCOL_MINOR_MAX: u16 = 2;

/// Parameters with this prefix ask for protocol options; we know none, and the answer must list them.
pub const PROTOCOL_OPTION_PREFIX: &str = "_pq_.";

pub(crate) const CANCEL_CODE: u32 = 80_877_102;
pub(crate) const SSL_CODE: u32 = 80_877_103;
pub(crate) const GSS_ENC_CODE: u32 = 80_877_104;

/// First byte of a TLS record that carries a handshake.
pub const TLS_HANDSHAKE: u8 = 0x16;

const MESSAGE: &str = "startup packet";

#[derive(Clone, PartialEq, Eq)]
pub enum StartupMessage {
    SslRequest,
    GssEncRequest,
    Cancel {
        pid: i32,
        secret: Bytes,
    },
    Startup(Startup),
    /// The client opened with a TLS handshake (`sslnegotiation=direct`). Nothing was taken out of the buffer: it
    /// belongs to the TLS acceptor, which must insist on the protocol name `postgresql`.
    DirectTls,
}

impl fmt::Debug for StartupMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartupMessage::SslRequest => f.write_str("SslRequest"),
            StartupMessage::GssEncRequest => f.write_str("GssEncRequest"),
            StartupMessage::Cancel { pid, secret } => {
                f.debug_struct("Cancel").field("pid", pid).field("secret", &Hidden(secret.len())).finish()
            }
            StartupMessage::Startup(startup) => startup.fmt(f),
            StartupMessage::DirectTls => f.write_str("DirectTls"),
        }
    }
}

/// Major version 3, any minor: a client that asks for a newer minor is told ours and may go on.
#[derive(Clone, PartialEq, Eq)]
pub struct Startup {
    pub major: u16,
    pub minor: u16,
    /// In the client's order, each name once, names not empty.
    pub parameters: Vec<(String, String)>,
}

impl Startup {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Protocol options asked for. All are unknown to us, so all go into NegotiateProtocolVersion.
    pub fn protocol_options(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with(PROTOCOL_OPTION_PREFIX))
    }

    /// The minor version to speak: the client's, or ours if the client's is newer. (3.1 was never released; the
    /// server takes it without a word, so do we.)
    pub fn agreed_minor(&self) -> u16 {
        self.minor.min(PROTOCOL_MINOR_MAX)
    }

    /// Whether the client must be told by NegotiateProtocolVersion that it does not get what it asked for.
    pub fn needs_negotiation(&self) -> bool {
        self.minor != self.agreed_minor() || self.protocol_options().next().is_some()
    }
}

/// Names only: values may hold what belongs to the user.
impl fmt::Debug for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.parameters.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Startup")
            .field("major", &self.major)
            .field("minor", &self.minor)
            .field("parameters", &names)
            .finish()
    }
}

/// Takes the next startup-phase packet out of `buf`, or nothing when it is not whole yet.
///
/// After `SslRequest` or `GssEncRequest` the caller must refuse a connection whose buffer is not empty: bytes sent
/// before the handshake came in clear and must not be read as if they had been protected.
pub fn split_startup(buf: &mut BytesMut) -> Result<Option<StartupMessage>, DecodeError> {
    if buf.first() == Some(&TLS_HANDSHAKE) {
        return Ok(Some(StartupMessage::DirectTls));
    }
    let Some(length) = buf.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let packet_bytes = match usize::try_from(length) {
        Ok(counted) if (8..=STARTUP_BYTES_MAX).contains(&counted) => counted,
        Ok(_) | Err(_) => return Err(DecodeError::StartupLength { length }),
    };
    if buf.len() < packet_bytes {
        return Ok(None);
    }
    let mut reader = Reader::new(MESSAGE, buf.split_to(packet_bytes).freeze());
    reader.i32()?;
    let message = match reader.u32()? {
        SSL_CODE => StartupMessage::SslRequest,
        GSS_ENC_CODE => StartupMessage::GssEncRequest,
        CANCEL_CODE => StartupMessage::Cancel { pid: reader.i32()?, secret: cancel_key("CancelRequest", &mut reader)? },
        version => StartupMessage::Startup(startup(version, &mut reader)?),
    };
    reader.finish()?;
    Ok(Some(message))
}

pub(crate) fn cancel_key(message: &'static str, reader: &mut Reader) -> Result<Bytes, DecodeError> {
    let key = reader.rest();
    match key.len() {
        0..=3 => Err(DecodeError::Truncated { message }),
        4..=CANCEL_KEY_BYTES_MAX => Ok(key),
        count => Err(DecodeError::TooMany { message, what: "bytes of cancel key", count, limit: CANCEL_KEY_BYTES_MAX }),
    }
}

fn startup(version: u32, reader: &mut Reader) -> Result<Startup, DecodeError> {
    let [major_high, major_low, minor_high, minor_low] = version.to_be_bytes();
    let major = u16::from_be_bytes([major_high, major_low]);
    let minor = u16::from_be_bytes([minor_high, minor_low]);
    if major != 3 {
        return Err(DecodeError::ProtocolVersion { major, minor });
    }
    let mut parameters: Vec<(String, String)> = Vec::new();
    loop {
        let name = reader.c_str()?;
        if name.is_empty() {
            break;
        }
        // The server lets the last one win. A gateway that reads the first would check another user than the
        // one that logs in.
        if parameters.iter().any(|(known, _)| known == name.as_str()) {
            return Err(DecodeError::Duplicate { message: MESSAGE, what: "parameter" });
        }
        if parameters.len() == STARTUP_PARAMETERS_MAX {
            let count = parameters.len().saturating_add(1);
            return Err(DecodeError::TooMany {
                message: MESSAGE,
                what: "parameters",
                count,
                limit: STARTUP_PARAMETERS_MAX,
            });
        }
        let value = reader.c_str()?;
        parameters.push((name.as_str().to_owned(), value.as_str().to_owned()));
    }
    Ok(Startup { major, minor, parameters })
}
