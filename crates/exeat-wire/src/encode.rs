//! Messages the gateway itself says, appended to an outgoing buffer. Never used for what a peer said: that goes on
//! as the bytes it came in.
//! Text with NUL is refused, not cut: it would end early, and what follows would be read as something else. Claims
//! of a token and names of a catalog end up in these messages, so this is an attack, not an accident.
//! On an error the buffer is as it was.

use bytes::{BufMut, BytesMut};

use crate::backend::TransactionStatus;
use crate::frontend::Target;
use crate::startup::{CANCEL_CODE, SSL_CODE};
use crate::text::Format;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("text of {message} holds a NUL character, which ends text in the protocol")]
    Nul { message: &'static str },
    #[error("{message} would have {bytes} bytes, the protocol's limit is {limit}", limit = i32::MAX)]
    TooLarge { message: &'static str, bytes: usize },
    #[error("{message} would have {count} values, the protocol's limit is {limit}", limit = u16::MAX)]
    TooMany { message: &'static str, count: usize },
}

type Encoded = Result<(), EncodeError>;

/// A message being written.
struct Writer<'a> {
    name: &'static str,
    out: &'a mut BytesMut,
}

impl Writer<'_> {
    fn text(&mut self, text: &str) -> Encoded {
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(EncodeError::Nul { message: self.name });
        }
        self.out.extend_from_slice(text.as_bytes());
        self.out.put_u8(0);
        Ok(())
    }

    fn count(&mut self, count: usize) -> Encoded {
        let field = u16::try_from(count).map_err(|_| EncodeError::TooMany { message: self.name, count })?;
        self.out.put_u16(field);
        Ok(())
    }

    fn length(&mut self, bytes: usize) -> Encoded {
        let field = i32::try_from(bytes).map_err(|_| EncodeError::TooLarge { message: self.name, bytes })?;
        self.out.put_i32(field);
        Ok(())
    }

    fn value(&mut self, value: Option<&[u8]>) -> Encoded {
        let Some(value) = value else {
            self.out.put_i32(-1);
            return Ok(());
        };
        self.length(value.len())?;
        self.out.extend_from_slice(value);
        Ok(())
    }

    fn formats(&mut self, formats: &[Format]) -> Encoded {
        self.count(formats.len())?;
        for format in formats {
            self.out.put_i16(format.code());
        }
        Ok(())
    }
}

/// Writes type byte (if any), length and what `body` writes; all of it or nothing.
fn message(
    out: &mut BytesMut,
    name: &'static str,
    tag: Option<u8>,
    body: impl FnOnce(&mut Writer<'_>) -> Encoded,
) -> Encoded {
    let start = out.len();
    if let Some(tag) = tag {
        out.put_u8(tag);
    }
    let header = out.len();
    out.put_u32(0);
    let written = body(&mut Writer { name, out }).and_then(|()| {
        let bytes = out.len().saturating_sub(header);
        let length = i32::try_from(bytes).map_err(|_| EncodeError::TooLarge { message: name, bytes })?;
        if let Some(field) = out.get_mut(header..).and_then(|rest| rest.first_chunk_mut::<4>()) {
            *field = length.to_be_bytes();
        }
        Ok(())
    });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

// To clients.

pub fn authentication_ok(out: &mut BytesMut) {
    out.extend_from_slice(b"R\0\0\0\x08\0\0\0\0");
}

pub fn authentication_cleartext_password(out: &mut BytesMut) {
    out.extend_from_slice(b"R\0\0\0\x08\0\0\0\x03");
}

pub fn authentication_sasl(out: &mut BytesMut, mechanisms: &[&str]) -> Encoded {
    message(out, "AuthenticationSASL", Some(b'R'), |w| {
        w.out.put_i32(10);
        mechanisms.iter().try_for_each(|name| w.text(name))?;
        w.text("")
    })
}

pub fn authentication_sasl_continue(out: &mut BytesMut, data: &[u8]) -> Encoded {
    sasl(out, "AuthenticationSASLContinue", 11, data)
}

pub fn authentication_sasl_final(out: &mut BytesMut, data: &[u8]) -> Encoded {
    sasl(out, "AuthenticationSASLFinal", 12, data)
}

fn sasl(out: &mut BytesMut, name: &'static str, code: i32, data: &[u8]) -> Encoded {
    message(out, name, Some(b'R'), |w| {
        w.out.put_i32(code);
        w.out.extend_from_slice(data);
        Ok(())
    })
}

pub fn backend_key_data(out: &mut BytesMut, pid: i32, secret: &[u8]) -> Encoded {
    message(out, "BackendKeyData", Some(b'K'), |w| {
        w.out.put_i32(pid);
        w.out.extend_from_slice(secret);
        Ok(())
    })
}

pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) -> Encoded {
    message(out, "ParameterStatus", Some(b'S'), |w| {
        w.text(name)?;
        w.text(value)
    })
}

pub fn ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    out.extend_from_slice(b"Z\0\0\0\x05");
    out.put_u8(status.code());
}

/// `minor` is the newest minor version of protocol 3 that will be spoken; the server writes it as a full version.
pub fn negotiate_protocol_version(out: &mut BytesMut, minor: u16, unknown_options: &[&str]) -> Encoded {
    const NAME: &str = "NegotiateProtocolVersion";
    message(out, NAME, Some(b'v'), |w| {
        w.out.put_u16(3);
        w.out.put_u16(minor);
        w.length(unknown_options.len())?;
        unknown_options.iter().try_for_each(|name| w.text(name))
    })
}

pub fn parse_complete(out: &mut BytesMut) {
    out.extend_from_slice(b"1\0\0\0\x04");
}

pub fn bind_complete(out: &mut BytesMut) {
    out.extend_from_slice(b"2\0\0\0\x04");
}

pub fn close_complete(out: &mut BytesMut) {
    out.extend_from_slice(b"3\0\0\0\x04");
}

pub fn no_data(out: &mut BytesMut) {
    out.extend_from_slice(b"n\0\0\0\x04");
}

pub fn portal_suspended(out: &mut BytesMut) {
    out.extend_from_slice(b"s\0\0\0\x04");
}

pub fn empty_query_response(out: &mut BytesMut) {
    out.extend_from_slice(b"I\0\0\0\x04");
}

pub fn parameter_description(out: &mut BytesMut, types: &[u32]) -> Encoded {
    message(out, "ParameterDescription", Some(b't'), |w| {
        w.count(types.len())?;
        types.iter().for_each(|oid| w.out.put_u32(*oid));
        Ok(())
    })
}

/// A column of an answer the gateway makes itself; it has no origin in a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    pub name: &'a str,
    pub type_oid: u32,
    /// -1 for types of variable length.
    pub type_size: i16,
    pub format: Format,
}

pub fn row_description(out: &mut BytesMut, columns: &[Column<'_>]) -> Encoded {
    message(out, "RowDescription", Some(b'T'), |w| {
        w.count(columns.len())?;
        columns.iter().try_for_each(|column| {
            w.text(column.name)?;
            w.out.put_u32(0);
            w.out.put_i16(0);
            w.out.put_u32(column.type_oid);
            w.out.put_i16(column.type_size);
            w.out.put_i32(-1);
            w.out.put_i16(column.format.code());
            Ok(())
        })
    })
}

pub fn data_row(out: &mut BytesMut, values: &[Option<&[u8]>]) -> Encoded {
    message(out, "DataRow", Some(b'D'), |w| {
        w.count(values.len())?;
        values.iter().try_for_each(|value| w.value(*value))
    })
}

pub fn command_complete(out: &mut BytesMut, tag: &str) -> Encoded {
    message(out, "CommandComplete", Some(b'C'), |w| w.text(tag))
}

// To servers.

pub fn ssl_request(out: &mut BytesMut) {
    out.put_u32(8);
    out.put_u32(SSL_CODE);
}

pub fn cancel_request(out: &mut BytesMut, pid: i32, secret: &[u8]) -> Encoded {
    message(out, "CancelRequest", None, |w| {
        w.out.put_u32(CANCEL_CODE);
        w.out.put_i32(pid);
        w.out.extend_from_slice(secret);
        Ok(())
    })
}

/// Parameters with an empty name would end the list early; they are left to the caller's types to rule out and
/// refused here as a NUL would be.
pub fn startup(out: &mut BytesMut, minor: u16, parameters: &[(&str, &str)]) -> Encoded {
    const NAME: &str = "StartupMessage";
    message(out, NAME, None, |w| {
        w.out.put_u16(3);
        w.out.put_u16(minor);
        for (name, value) in parameters {
            if name.is_empty() {
                return Err(EncodeError::Nul { message: NAME });
            }
            w.text(name)?;
            w.text(value)?;
        }
        w.text("")
    })
}

pub fn password(out: &mut BytesMut, password: &str) -> Encoded {
    message(out, "PasswordMessage", Some(b'p'), |w| w.text(password))
}

pub fn sasl_initial_response(out: &mut BytesMut, mechanism: &str, data: &[u8]) -> Encoded {
    message(out, "SASLInitialResponse", Some(b'p'), |w| {
        w.text(mechanism)?;
        w.value(Some(data))
    })
}

pub fn sasl_response(out: &mut BytesMut, data: &[u8]) -> Encoded {
    message(out, "SASLResponse", Some(b'p'), |w| {
        w.out.extend_from_slice(data);
        Ok(())
    })
}

pub fn query(out: &mut BytesMut, sql: &str) -> Encoded {
    message(out, "Query", Some(b'Q'), |w| w.text(sql))
}

pub fn parse(out: &mut BytesMut, name: &str, sql: &str, parameter_types: &[u32]) -> Encoded {
    message(out, "Parse", Some(b'P'), |w| {
        w.text(name)?;
        w.text(sql)?;
        w.count(parameter_types.len())?;
        parameter_types.iter().for_each(|oid| w.out.put_u32(*oid));
        Ok(())
    })
}

/// Binds parameters in text format. `result_formats` as in the protocol: none, one for all, or one per column.
pub fn bind(
    out: &mut BytesMut,
    portal: &str,
    statement: &str,
    parameters: &[Option<&str>],
    result_formats: &[Format],
) -> Encoded {
    message(out, "Bind", Some(b'B'), |w| {
        w.text(portal)?;
        w.text(statement)?;
        w.formats(&[])?;
        w.count(parameters.len())?;
        parameters.iter().try_for_each(|value| w.value(value.map(str::as_bytes)))?;
        w.formats(result_formats)
    })
}

pub fn describe(out: &mut BytesMut, target: Target, name: &str) -> Encoded {
    targeted(out, "Describe", b'D', target, name)
}

pub fn close(out: &mut BytesMut, target: Target, name: &str) -> Encoded {
    targeted(out, "Close", b'C', target, name)
}

fn targeted(out: &mut BytesMut, message_name: &'static str, tag: u8, target: Target, name: &str) -> Encoded {
    message(out, message_name, Some(tag), |w| {
        w.out.put_u8(target.code());
        w.text(name)
    })
}

/// `max_rows` 0 means all.
pub fn execute(out: &mut BytesMut, portal: &str, max_rows: i32) -> Encoded {
    message(out, "Execute", Some(b'E'), |w| {
        w.text(portal)?;
        w.out.put_i32(max_rows);
        Ok(())
    })
}

pub fn flush(out: &mut BytesMut) {
    out.extend_from_slice(b"H\0\0\0\x04");
}

pub fn sync(out: &mut BytesMut) {
    out.extend_from_slice(b"S\0\0\0\x04");
}

pub fn terminate(out: &mut BytesMut) {
    out.extend_from_slice(b"X\0\0\0\x04");
}

pub fn copy_done(out: &mut BytesMut) {
    out.extend_from_slice(b"c\0\0\0\x04");
}

pub fn copy_fail(out: &mut BytesMut, reason: &str) -> Encoded {
    message(out, "CopyFail", Some(b'f'), |w| w.text(reason))
}
