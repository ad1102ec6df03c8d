//! What a client got, out of the record: the pieces of a session's transcript put together, and each message in words. The bytes
//! are the client's; words are made from them here and nowhere before.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use exeat_enforce::release::LEFT_OUT;
use exeat_wire::{
    BackendMessage, CopyResponse, DataRow, Fields, Format, Frame, RowDescription, backend, split_backend,
};
use serde_json::{Map, Value, json};

/// Tag and length.
const HEADER_BYTES: usize = 5;

/// One thing that a client got, or that stands for what is not kept.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(BackendMessage),
    /// A message whose words are in no encoding we read.
    Raw(Frame),
    LeftOut(LeftOut),
}

/// What was past the limits of its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) messages: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// SHA-256 of those bytes.
    pub(crate) digest: [u8; 32],
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TranscriptError {
    #[error("what was recorded of the answer is no message of the protocol")]
    Message(#[from] exeat_wire::DecodeError),
    #[error("a mark of what was left out is not whole")]
    Mark,
}

/// Puts pieces together. A message may begin in one and end in the next.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    bytes: BytesMut,
}

impl Reader {
    /// What is whole with this piece.
    pub(crate) fn piece(&mut self, piece: &[u8]) -> Result<Vec<Heard>, TranscriptError> {
        self.bytes.extend_from_slice(piece);
        let mut heard = Vec::new();
        loop {
            if self.bytes.first() == Some(&LEFT_OUT) {
                let Some(mark) = left_out(&mut self.bytes)? else { return Ok(heard) };
                heard.push(Heard::LeftOut(mark));
                continue;
            }
            let Some(frame) = split_backend(&mut self.bytes)? else { return Ok(heard) };
            heard.push(match backend::decode(frame.clone()) {
                Ok(message) => Heard::Message(message),
                Err(_) => Heard::Raw(frame),
            });
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn left_out(bytes: &mut BytesMut) -> Result<Option<LeftOut>, TranscriptError> {
    let Some(length) = bytes.get(1..HEADER_BYTES).and_then(|length| length.try_into().ok()) else { return Ok(None) };
    let end = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).saturating_add(1);
    if bytes.len() < end {
        return Ok(None);
    }
    let mark: Bytes = bytes.split_to(end).freeze();
    let number = |at: usize| mark.get(at..at + 8).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
    let digest = mark.get(HEADER_BYTES + 24..).and_then(|digest| digest.try_into().ok());
    let (Some(messages), Some(rows), Some(bytes), Some(digest)) =
        (number(HEADER_BYTES), number(HEADER_BYTES + 8), number(HEADER_BYTES + 16), digest)
    else {
        return Err(TranscriptError::Mark);
    };
    Ok(Some(LeftOut { messages, rows, bytes, digest }))
}

impl Heard {
    /// As the client got it; `None` where that is not kept.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Message(BackendMessage::ErrorResponse(fields) | BackendMessage::NoticeResponse(fields)) => {
                fields.frame().map(|frame| frame.bytes().clone())
            }
            Self::Message(message) => message.frame().map(|frame| frame.bytes().clone()),
            Self::Raw(frame) => Some(frame.bytes().clone()),
            Self::LeftOut(_) => None,
        }
    }

    /// For programs: a cell is text, or `{"b64": …}` where it is binary or no UTF-8.
    pub(crate) fn to_json(&self, formats: &mut Formats) -> Value {
        match self {
            Self::Message(message) => message_json(message, formats),
            Self::Raw(frame) => {
                json!({"message": char::from(frame.tag()).to_string(), "b64": STANDARD.encode(frame.bytes())})
            }
            Self::LeftOut(mark) => json!({"left_out": {
                "messages": mark.messages, "rows": mark.rows, "bytes": mark.bytes, "sha256": hex(&mark.digest),
            }}),
        }
    }
}

/// How the columns of the result under way are written. The last description in a session says so.
#[derive(Debug, Default)]
pub(crate) struct Formats(Vec<Format>);

impl Formats {
    fn of(&self, column: usize) -> Format {
        self.0.get(column).copied().unwrap_or(Format::Text)
    }

    pub(crate) fn describe(&mut self, description: &RowDescription) {
        self.0 = description.fields.iter().map(|field| field.format).collect();
    }

    pub(crate) fn cells(&self, row: &DataRow) -> Vec<Value> {
        row.cells()
            .enumerate()
            .map(|(column, cell)| match cell {
                Ok(None) | Err(_) => Value::Null,
                Ok(Some(cell)) => value(cell, self.of(column)),
            })
            .collect()
    }
}

fn value(bytes: &[u8], format: Format) -> Value {
    match (format, std::str::from_utf8(bytes)) {
        (Format::Text, Ok(text)) => json!(text),
        (Format::Text | Format::Binary, _) => json!({"b64": STANDARD.encode(bytes)}),
    }
}

fn message_json(message: &BackendMessage, formats: &mut Formats) -> Value {
    match message {
        BackendMessage::RowDescription(description) => {
            formats.describe(description);
            json!({"columns": description.fields.iter().map(|field| json!({
                "name": field.name.as_str(), "type": field.type_oid, "format": format_word(field.format),
            })).collect::<Vec<_>>()})
        }
        BackendMessage::DataRow(row) => json!({"row": formats.cells(row)}),
        BackendMessage::CopyData(frame) => json!({"copy": value(frame.payload_slice(), Format::Text)}),
        BackendMessage::CommandComplete { tag, .. } => json!({"tag": tag.as_str()}),
        BackendMessage::ErrorResponse(fields) => json!({"error": fields_json(fields)}),
        BackendMessage::NoticeResponse(fields) => json!({"notice": fields_json(fields)}),
        BackendMessage::ReadyForQuery(status) => json!({"ready": char::from(status.code()).to_string()}),
        BackendMessage::ParameterStatus { name, value, .. } => {
            json!({"parameter": {"name": name.as_str(), "value": value.as_str()}})
        }
        BackendMessage::NotificationResponse { pid, channel, payload, .. } => {
            json!({"notification": {"pid": pid, "channel": channel.as_str(), "payload": payload.as_str()}})
        }
        BackendMessage::ParameterDescription { types, .. } => json!({"parameters": types}),
        BackendMessage::FunctionCallResponse(frame) => {
            json!({"result": {"b64": STANDARD.encode(frame.payload_slice())}})
        }
        BackendMessage::CopyInResponse(copy)
        | BackendMessage::CopyOutResponse(copy)
        | BackendMessage::CopyBothResponse(copy) => copy_json(message.name(), copy),
        BackendMessage::Authentication(_)
        | BackendMessage::BackendKeyData { .. }
        | BackendMessage::NegotiateProtocolVersion { .. }
        | BackendMessage::EmptyQueryResponse
        | BackendMessage::ParseComplete
        | BackendMessage::BindComplete
        | BackendMessage::CloseComplete
        | BackendMessage::NoData
        | BackendMessage::PortalSuspended
        | BackendMessage::CopyDone => json!({"message": message.name()}),
    }
}

fn copy_json(name: &str, copy: &CopyResponse) -> Value {
    json!({"message": name, "format": format_word(copy.format)})
}

fn format_word(format: Format) -> &'static str {
    match format {
        Format::Text => "text",
        Format::Binary => "binary",
    }
}

/// By the protocol's field codes.
fn fields_json(fields: &Fields) -> Value {
    let text = |bytes: &[u8]| value(bytes, Format::Text);
    Value::Object(fields.iter().map(|(code, bytes)| (char::from(code).to_string(), text(bytes))).collect::<Map<_, _>>())
}
