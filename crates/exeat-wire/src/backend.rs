//! What a server may say. Decoding checks the whole message (rows excepted, see [`DataRow`]).
//! Messages of the login carry no frame: they belong to one connection, and the keys and challenges in them must
//! not be passed on by accident.

use std::fmt;

use bytes::Bytes;

use crate::error::{DecodeError, Peer, Tag};
use crate::fields::Fields;
use crate::frame::Frame;
use crate::reader::Reader;
use crate::row::COLUMNS_MAX;
pub use crate::row::{CellAction, DataRow, Field, RowDescription};
use crate::startup::cancel_key;
use crate::text::{Format, Hidden, WireStr};

/// A server's list of names (SASL mechanisms, protocol options it does not know); real ones have under ten.
pub const NAMES_MAX: usize = 128;

#[derive(Clone, PartialEq, Eq)]
pub enum BackendMessage {
    Authentication(Authentication),
    BackendKeyData {
        pid: i32,
        /// 4 bytes in protocol 3.0, up to 256 in 3.2.
        secret: Bytes,
    },
    NegotiateProtocolVersion {
        /// The newest version the server speaks, major in the upper 16 bits (some servers leave it 0).
        newest: u32,
        /// Protocol options it does not know.
        options: Vec<WireStr>,
    },
    ParameterStatus {
        frame: Frame,
        name: WireStr,
        value: WireStr,
    },
    ReadyForQuery(TransactionStatus),
    RowDescription(RowDescription),
    DataRow(DataRow),
    CommandComplete {
        frame: Frame,
        tag: WireStr,
    },
    EmptyQueryResponse,
    ErrorResponse(Fields),
    NoticeResponse(Fields),
    NotificationResponse {
        frame: Frame,
        pid: i32,
        channel: WireStr,
        payload: WireStr,
    },
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    ParameterDescription {
        frame: Frame,
        types: Vec<u32>,
    },
    PortalSuspended,
    CopyInResponse(CopyResponse),
    CopyOutResponse(CopyResponse),
    CopyBothResponse(CopyResponse),
    CopyData(Frame),
    CopyDone,
    FunctionCallResponse(Frame),
}

#[derive(Clone, PartialEq, Eq)]
pub enum Authentication {
    Ok,
    CleartextPassword,
    Md5 {
        salt: [u8; 4],
    },
    Sasl {
        mechanisms: Vec<WireStr>,
    },
    SaslContinue(Bytes),
    SaslFinal(Bytes),
    /// A method we do not speak (Kerberos, GSSAPI, SSPI, ...), by its number.
    Other(i32),
}

/// The state a server reports with ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

impl TransactionStatus {
    pub fn code(self) -> u8 {
        match self {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InTransaction => b'T',
            TransactionStatus::Failed => b'E',
        }
    }
}

/// The start of a COPY in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyResponse {
    pub frame: Frame,
    pub format: Format,
    pub column_formats: Vec<Format>,
}

static READY_IDLE: Frame = Frame::constant(b'Z', b"Z\0\0\0\x05I");
static READY_IN_TRANSACTION: Frame = Frame::constant(b'Z', b"Z\0\0\0\x05T");
static READY_FAILED: Frame = Frame::constant(b'Z', b"Z\0\0\0\x05E");
static EMPTY_QUERY_RESPONSE: Frame = Frame::constant(b'I', b"I\0\0\0\x04");
static PARSE_COMPLETE: Frame = Frame::constant(b'1', b"1\0\0\0\x04");
static BIND_COMPLETE: Frame = Frame::constant(b'2', b"2\0\0\0\x04");
static CLOSE_COMPLETE: Frame = Frame::constant(b'3', b"3\0\0\0\x04");
static NO_DATA: Frame = Frame::constant(b'n', b"n\0\0\0\x04");
static PORTAL_SUSPENDED: Frame = Frame::constant(b's', b"s\0\0\0\x04");
static COPY_DONE: Frame = Frame::constant(b'c', b"c\0\0\0\x04");

impl BackendMessage {
    /// The message byte for byte, to be passed on. `None` for messages of the login, which never are, and for
    /// errors and notices that were changed or built here.
    pub fn frame(&self) -> Option<&Frame> {
        match self {
            BackendMessage::Authentication(_)
            | BackendMessage::BackendKeyData { .. }
            | BackendMessage::NegotiateProtocolVersion { .. } => None,
            BackendMessage::ErrorResponse(fields) | BackendMessage::NoticeResponse(fields) => fields.frame(),
            BackendMessage::ParameterStatus { frame, .. }
            | BackendMessage::CommandComplete { frame, .. }
            | BackendMessage::NotificationResponse { frame, .. }
            | BackendMessage::ParameterDescription { frame, .. }
            | BackendMessage::CopyData(frame)
            | BackendMessage::FunctionCallResponse(frame) => Some(frame),
            BackendMessage::RowDescription(description) => Some(&description.frame),
            BackendMessage::DataRow(row) => Some(&row.frame),
            BackendMessage::CopyInResponse(copy)
            | BackendMessage::CopyOutResponse(copy)
            | BackendMessage::CopyBothResponse(copy) => Some(&copy.frame),
            BackendMessage::ReadyForQuery(TransactionStatus::Idle) => Some(&READY_IDLE),
            BackendMessage::ReadyForQuery(TransactionStatus::InTransaction) => Some(&READY_IN_TRANSACTION),
            BackendMessage::ReadyForQuery(TransactionStatus::Failed) => Some(&READY_FAILED),
            BackendMessage::EmptyQueryResponse => Some(&EMPTY_QUERY_RESPONSE),
            BackendMessage::ParseComplete => Some(&PARSE_COMPLETE),
            BackendMessage::BindComplete => Some(&BIND_COMPLETE),
            BackendMessage::CloseComplete => Some(&CLOSE_COMPLETE),
            BackendMessage::NoData => Some(&NO_DATA),
            BackendMessage::PortalSuspended => Some(&PORTAL_SUSPENDED),
            BackendMessage::CopyDone => Some(&COPY_DONE),
        }
    }

    /// The message's name in the protocol.
    pub fn name(&self) -> &'static str {
        match self {
            BackendMessage::Authentication(_) => "Authentication",
            BackendMessage::BackendKeyData { .. } => "BackendKeyData",
            BackendMessage::NegotiateProtocolVersion { .. } => "NegotiateProtocolVersion",
            BackendMessage::ParameterStatus { .. } => "ParameterStatus",
            BackendMessage::ReadyForQuery(_) => "ReadyForQuery",
            BackendMessage::RowDescription(_) => "RowDescription",
            BackendMessage::DataRow(_) => "DataRow",
            BackendMessage::CommandComplete { .. } => "CommandComplete",
            BackendMessage::EmptyQueryResponse => "EmptyQueryResponse",
            BackendMessage::ErrorResponse(_) => "ErrorResponse",
            BackendMessage::NoticeResponse(_) => "NoticeResponse",
            BackendMessage::NotificationResponse { .. } => "NotificationResponse",
            BackendMessage::ParseComplete => "ParseComplete",
            BackendMessage::BindComplete => "BindComplete",
            BackendMessage::CloseComplete => "CloseComplete",
            BackendMessage::NoData => "NoData",
            BackendMessage::ParameterDescription { .. } => "ParameterDescription",
            BackendMessage::PortalSuspended => "PortalSuspended",
            BackendMessage::CopyInResponse(_) => "CopyInResponse",
            BackendMessage::CopyOutResponse(_) => "CopyOutResponse",
            BackendMessage::CopyBothResponse(_) => "CopyBothResponse",
            BackendMessage::CopyData(_) => "CopyData",
            BackendMessage::CopyDone => "CopyDone",
            BackendMessage::FunctionCallResponse(_) => "FunctionCallResponse",
        }
    }
}

pub fn decode(frame: Frame) -> Result<BackendMessage, DecodeError> {
    use BackendMessage as M;
    match frame.tag() {
        b'D' => DataRow::decode(frame).map(M::DataRow),
        b'T' => RowDescription::decode(frame).map(M::RowDescription),
        b'C' => command_complete(frame),
        b'Z' => transaction_status(&frame).map(M::ReadyForQuery),
        b'E' => Fields::decode("ErrorResponse", frame).map(M::ErrorResponse),
        b'N' => Fields::decode("NoticeResponse", frame).map(M::NoticeResponse),
        b'1' => empty(&frame, M::ParseComplete),
        b'2' => empty(&frame, M::BindComplete),
        b'3' => empty(&frame, M::CloseComplete),
        b'I' => empty(&frame, M::EmptyQueryResponse),
        b'n' => empty(&frame, M::NoData),
        b's' => empty(&frame, M::PortalSuspended),
        b'c' => empty(&frame, M::CopyDone),
        b't' => parameter_description(frame),
        b'S' => parameter_status(frame),
        b'A' => notification(frame),
        b'G' => copy_response("CopyInResponse", frame).map(M::CopyInResponse),
        b'H' => copy_response("CopyOutResponse", frame).map(M::CopyOutResponse),
        b'W' => copy_response("CopyBothResponse", frame).map(M::CopyBothResponse),
        b'd' => Ok(M::CopyData(frame)),
        b'V' => function_result(frame).map(M::FunctionCallResponse),
        b'R' => authentication(&frame).map(M::Authentication),
        b'K' => backend_key_data(&frame),
        b'v' => negotiate_protocol_version(&frame),
        tag => Err(DecodeError::UnknownTag { peer: Peer::Server, tag: Tag(tag) }),
    }
}

fn empty(frame: &Frame, message: BackendMessage) -> Result<BackendMessage, DecodeError> {
    Reader::new(message.name(), frame.payload()).finish()?;
    Ok(message)
}

fn command_complete(frame: Frame) -> Result<BackendMessage, DecodeError> {
    let mut reader = Reader::new("CommandComplete", frame.payload());
    let tag = reader.c_str()?;
    reader.finish()?;
    Ok(BackendMessage::CommandComplete { frame, tag })
}

fn transaction_status(frame: &Frame) -> Result<TransactionStatus, DecodeError> {
    const MESSAGE: &str = "ReadyForQuery";
    let mut reader = Reader::new(MESSAGE, frame.payload());
    let status = match reader.u8()? {
        b'I' => TransactionStatus::Idle,
        b'T' => TransactionStatus::InTransaction,
        b'E' => TransactionStatus::Failed,
        other => {
            return Err(DecodeError::Value { message: MESSAGE, what: "transaction status", value: i64::from(other) });
        }
    };
    reader.finish()?;
    Ok(status)
}

fn parameter_description(frame: Frame) -> Result<BackendMessage, DecodeError> {
    let mut reader = Reader::new("ParameterDescription", frame.payload());
    let types = reader.u32s()?;
    reader.finish()?;
    Ok(BackendMessage::ParameterDescription { frame, types })
}

fn parameter_status(frame: Frame) -> Result<BackendMessage, DecodeError> {
    let mut reader = Reader::new("ParameterStatus", frame.payload());
    let name = reader.c_str()?;
    let value = reader.c_str()?;
    reader.finish()?;
    Ok(BackendMessage::ParameterStatus { frame, name, value })
}

fn notification(frame: Frame) -> Result<BackendMessage, DecodeError> {
    let mut reader = Reader::new("NotificationResponse", frame.payload());
    let pid = reader.i32()?;
    let channel = reader.c_str()?;
    let payload = reader.c_str()?;
    reader.finish()?;
    Ok(BackendMessage::NotificationResponse { frame, pid, channel, payload })
}

/// One value.
fn function_result(frame: Frame) -> Result<Frame, DecodeError> {
    let mut reader = Reader::new("FunctionCallResponse", frame.payload());
    reader.value()?;
    reader.finish()?;
    Ok(frame)
}

fn copy_response(message: &'static str, frame: Frame) -> Result<CopyResponse, DecodeError> {
    let mut reader = Reader::new(message, frame.payload());
    let format = Format::from_code(i16::from(reader.u8()?), message)?;
    let column_formats = reader.formats()?;
    reader.finish()?;
    let count = column_formats.len();
    if count > COLUMNS_MAX {
        return Err(DecodeError::TooMany { message, what: "columns", count, limit: COLUMNS_MAX });
    }
    Ok(CopyResponse { frame, format, column_formats })
}

fn authentication(frame: &Frame) -> Result<Authentication, DecodeError> {
    const MESSAGE: &str = "Authentication";
    let mut reader = Reader::new(MESSAGE, frame.payload());
    let request = match reader.i32()? {
        0 => Authentication::Ok,
        3 => Authentication::CleartextPassword,
        5 => Authentication::Md5 { salt: reader.array()? },
        10 => Authentication::Sasl { mechanisms: mechanisms(MESSAGE, &mut reader)? },
        11 => Authentication::SaslContinue(reader.rest()),
        12 => Authentication::SaslFinal(reader.rest()),
        other => {
            reader.rest();
            Authentication::Other(other)
        }
    };
    reader.finish()?;
    Ok(request)
}

/// Names up to an empty one.
fn mechanisms(message: &'static str, reader: &mut Reader) -> Result<Vec<WireStr>, DecodeError> {
    let mut names = Vec::new();
    loop {
        let name = reader.c_str()?;
        if name.is_empty() {
            return Ok(names);
        }
        if names.len() == NAMES_MAX {
            let count = names.len().saturating_add(1);
            return Err(DecodeError::TooMany { message, what: "mechanisms", count, limit: NAMES_MAX });
        }
        names.push(name);
    }
}

fn backend_key_data(frame: &Frame) -> Result<BackendMessage, DecodeError> {
    const MESSAGE: &str = "BackendKeyData";
    let mut reader = Reader::new(MESSAGE, frame.payload());
    let pid = reader.i32()?;
    let secret = cancel_key(MESSAGE, &mut reader)?;
    Ok(BackendMessage::BackendKeyData { pid, secret })
}

fn negotiate_protocol_version(frame: &Frame) -> Result<BackendMessage, DecodeError> {
    const MESSAGE: &str = "NegotiateProtocolVersion";
    let mut reader = Reader::new(MESSAGE, frame.payload());
    let newest = reader.u32()?;
    let announced = reader.u32()?;
    let count = usize::try_from(announced).unwrap_or(usize::MAX);
    if count > NAMES_MAX {
        return Err(DecodeError::TooMany { message: MESSAGE, what: "options", count, limit: NAMES_MAX });
    }
    let options = (0..count).map(|_| reader.c_str()).collect::<Result<Vec<_>, _>>()?;
    reader.finish()?;
    Ok(BackendMessage::NegotiateProtocolVersion { newest, options })
}

impl fmt::Debug for BackendMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendMessage::Authentication(request) => write!(f, "Authentication({request:?})"),
            BackendMessage::ReadyForQuery(status) => write!(f, "ReadyForQuery({status:?})"),
            BackendMessage::ErrorResponse(fields) => write!(f, "ErrorResponse({fields:?})"),
            BackendMessage::NoticeResponse(fields) => write!(f, "NoticeResponse({fields:?})"),
            BackendMessage::ParameterStatus { name, .. } => write!(f, "ParameterStatus({:?})", name.as_str()),
            other => match other.frame() {
                Some(frame) => write!(f, "{}({} bytes)", other.name(), frame.bytes().len()),
                None => f.write_str(other.name()),
            },
        }
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authentication::Ok => f.write_str("Ok"),
            Authentication::CleartextPassword => f.write_str("CleartextPassword"),
            Authentication::Md5 { .. } => f.write_str("Md5"),
            Authentication::Sasl { mechanisms } => {
                let names: Vec<&str> = mechanisms.iter().map(WireStr::as_str).collect();
                write!(f, "Sasl({names:?})")
            }
            Authentication::SaslContinue(data) => write!(f, "SaslContinue({:?})", Hidden(data.len())),
            Authentication::SaslFinal(data) => write!(f, "SaslFinal({:?})", Hidden(data.len())),
            Authentication::Other(code) => write!(f, "Other({code})"),
        }
    }
}
