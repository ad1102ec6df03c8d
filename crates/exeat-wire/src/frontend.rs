//! What a client may say after startup. Decoding checks the whole message, so that whoever holds one of these
//! types need not look at bytes again; the frame that came is kept and is what goes on.

use std::fmt;

use bytes::Bytes;

use crate::error::{DecodeError, Peer, Tag};
use crate::frame::Frame;
use crate::reader::Reader;
pub use crate::text::Format;
use crate::text::{Hidden, WireStr};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrontendMessage {
    Query(Query),
    Parse(Parse),
    Bind(Bind),
    Describe(Describe),
    Execute(Execute),
    Close(Close),
    Flush,
    Sync,
    Terminate,
    CopyData(Frame),
    CopyDone,
    CopyFail(Frame),
    FunctionCall(FunctionCall),
    /// Password, SASLInitialResponse or SASLResponse: which one, only the login knows.
    Password(Frame),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub frame: Frame,
    pub sql: WireStr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parse {
    pub frame: Frame,
    pub name: WireStr,
    pub sql: WireStr,
    pub parameter_types: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Bind {
    pub frame: Frame,
    pub portal: WireStr,
    pub statement: WireStr,
    pub parameter_formats: Vec<Format>,
    pub parameters: Vec<Option<Bytes>>,
    pub result_formats: Vec<Format>,
}

impl Bind {
    /// `None` only for a parameter this Bind does not have while it gives several formats.
    pub fn parameter_format(&self, index: usize) -> Option<Format> {
        Format::of(&self.parameter_formats, index)
    }

    /// `None` when the Bind gives several result formats and none for this column. (The server refuses such a
    /// Bind; whoever must know a format cannot guess it.)
    pub fn result_format(&self, index: usize) -> Option<Format> {
        Format::of(&self.result_formats, index)
    }
}

impl fmt::Debug for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<Option<Hidden>> =
            self.parameters.iter().map(|value| value.as_ref().map(|bytes| Hidden(bytes.len()))).collect();
        f.debug_struct("Bind")
            .field("frame", &self.frame)
            .field("parameters", &sizes)
            .field("parameter_formats", &self.parameter_formats)
            .field("result_formats", &self.result_formats)
            .finish_non_exhaustive()
    }
}

/// Calls a function by its OID.
#[derive(Clone, PartialEq, Eq)]
pub struct FunctionCall {
    pub frame: Frame,
    pub oid: u32,
    pub argument_formats: Vec<Format>,
    pub arguments: Vec<Option<Bytes>>,
    pub result_format: Format,
}

impl FunctionCall {
    /// `None` only for an argument this call does not have while it gives several formats.
    pub fn argument_format(&self, index: usize) -> Option<Format> {
        Format::of(&self.argument_formats, index)
    }
}

impl fmt::Debug for FunctionCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionCall")
            .field("frame", &self.frame)
            .field("oid", &self.oid)
            .field("arguments", &self.arguments.len())
            .field("result_format", &self.result_format)
            .finish_non_exhaustive()
    }
}

/// What Describe and Close speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Statement,
    Portal,
}

impl Target {
    pub(crate) fn code(self) -> u8 {
        match self {
            Target::Statement => b'S',
            Target::Portal => b'P',
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Describe {
    pub frame: Frame,
    pub target: Target,
    pub name: WireStr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execute {
    pub frame: Frame,
    pub portal: WireStr,
    /// Zero or less: all rows.
    pub max_rows: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub frame: Frame,
    pub target: Target,
    pub name: WireStr,
}

pub fn decode(frame: Frame) -> Result<FrontendMessage, DecodeError> {
    match frame.tag() {
        b'Q' => query(frame).map(FrontendMessage::Query),
        b'P' => parse(frame).map(FrontendMessage::Parse),
        b'B' => bind(frame).map(FrontendMessage::Bind),
        b'D' => {
            target("Describe", &frame).map(|(target, name)| FrontendMessage::Describe(Describe { frame, target, name }))
        }
        b'E' => execute(frame).map(FrontendMessage::Execute),
        b'C' => target("Close", &frame).map(|(target, name)| FrontendMessage::Close(Close { frame, target, name })),
        b'H' => empty("Flush", &frame, FrontendMessage::Flush),
        b'S' => empty("Sync", &frame, FrontendMessage::Sync),
        b'X' => empty("Terminate", &frame, FrontendMessage::Terminate),
        b'd' => Ok(FrontendMessage::CopyData(frame)),
        b'c' => empty("CopyDone", &frame, FrontendMessage::CopyDone),
        b'f' => copy_fail(frame),
        b'F' => function_call(frame).map(FrontendMessage::FunctionCall),
        b'p' => Ok(FrontendMessage::Password(frame)),
        tag => Err(DecodeError::UnknownTag { peer: Peer::Client, tag: Tag(tag) }),
    }
}

/// The first answer to AuthenticationSASL. Its content is the mechanism's to understand.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslInitialResponse {
    pub mechanism: WireStr,
    /// `None`: the client waits for the server to begin.
    pub data: Option<Bytes>,
}

/// It may hold a token.
impl fmt::Debug for SaslInitialResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslInitialResponse")
            .field("data", &self.data.as_ref().map(|data| Hidden(data.len())))
            .finish_non_exhaustive()
    }
}

/// Takes a password message apart whose sender was asked to begin a SASL exchange.
pub fn sasl_initial_response(frame: &Frame) -> Result<SaslInitialResponse, DecodeError> {
    let mut reader = Reader::new("SASLInitialResponse", frame.payload());
    let mechanism = reader.c_str()?;
    let data = reader.value()?;
    reader.finish()?;
    Ok(SaslInitialResponse { mechanism, data })
}

fn query(frame: Frame) -> Result<Query, DecodeError> {
    let mut reader = Reader::new("Query", frame.payload());
    let sql = reader.c_str()?;
    reader.finish()?;
    Ok(Query { frame, sql })
}

fn parse(frame: Frame) -> Result<Parse, DecodeError> {
    let mut reader = Reader::new("Parse", frame.payload());
    let name = reader.c_str()?;
    let sql = reader.c_str()?;
    let parameter_types = reader.u32s()?;
    reader.finish()?;
    Ok(Parse { frame, name, sql, parameter_types })
}

fn bind(frame: Frame) -> Result<Bind, DecodeError> {
    const MESSAGE: &str = "Bind";
    let mut reader = Reader::new(MESSAGE, frame.payload());
    let portal = reader.c_str()?;
    let statement = reader.c_str()?;
    let parameter_formats = reader.formats()?;
    let count = reader.count(4)?;
    let codes = parameter_formats.len();
    if codes > 1 && codes != count {
        return Err(DecodeError::FormatCount { message: MESSAGE, what: "parameters", codes, values: count });
    }
    let parameters = (0..count).map(|_| reader.value()).collect::<Result<Vec<_>, _>>()?;
    let result_formats = reader.formats()?;
    reader.finish()?;
    Ok(Bind { frame, portal, statement, parameter_formats, parameters, result_formats })
}

fn target(message: &'static str, frame: &Frame) -> Result<(Target, WireStr), DecodeError> {
    let mut reader = Reader::new(message, frame.payload());
    let target = match reader.u8()? {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        other => return Err(DecodeError::Value { message, what: "target", value: i64::from(other) }),
    };
    let name = reader.c_str()?;
    reader.finish()?;
    Ok((target, name))
}

fn execute(frame: Frame) -> Result<Execute, DecodeError> {
    let mut reader = Reader::new("Execute", frame.payload());
    let portal = reader.c_str()?;
    let max_rows = reader.i32()?;
    reader.finish()?;
    Ok(Execute { frame, portal, max_rows })
}

fn function_call(frame: Frame) -> Result<FunctionCall, DecodeError> {
    const MESSAGE: &str = "FunctionCall";
    let mut reader = Reader::new(MESSAGE, frame.payload());
    let oid = reader.u32()?;
    let argument_formats = reader.formats()?;
    let count = reader.count(4)?;
    let codes = argument_formats.len();
    if codes > 1 && codes != count {
        return Err(DecodeError::FormatCount { message: MESSAGE, what: "arguments", codes, values: count });
    }
    let arguments = (0..count).map(|_| reader.value()).collect::<Result<Vec<_>, _>>()?;
    let result_format = reader.format()?;
    reader.finish()?;
    Ok(FunctionCall { frame, oid, argument_formats, arguments, result_format })
}

fn copy_fail(frame: Frame) -> Result<FrontendMessage, DecodeError> {
    let mut reader = Reader::new("CopyFail", frame.payload());
    reader.c_str()?;
    reader.finish()?;
    Ok(FrontendMessage::CopyFail(frame))
}

fn empty(name: &'static str, frame: &Frame, message: FrontendMessage) -> Result<FrontendMessage, DecodeError> {
    Reader::new(name, frame.payload()).finish()?;
    Ok(message)
}
