//! Messages whose frame is whole and whose content does not decode. The server answers those with an error and goes
//! on, so does the gateway, in the server's words; the message itself never leaves. What has no answer of its own in
//! the protocol ends the session.

use exeat_wire::{DecodeError, Fields, Frame};

use super::session::{Done, Session, SessionEnd};

/// The server shows no more bytes of a character it cannot read.
const SHOWN_BYTES_MAX: usize = 4;

/// A message to answer with an error.
#[derive(Debug)]
pub(crate) struct Malformed {
    simple: bool,
    fields: Fields,
}

impl Malformed {
    pub(crate) fn of(frame: &Frame, problem: DecodeError) -> Result<Self, SessionEnd> {
        let simple = match frame.tag() {
            b'Q' | b'F' => true,
            b'P' | b'B' | b'D' | b'E' | b'C' => false,
            _ => return Err(SessionEnd::Client(problem)),
        };
        Ok(Self { simple, fields: words(frame, &problem) })
    }
}

impl Session {
    pub(crate) async fn answer_malformed(&mut self, malformed: Malformed) -> Done {
        if self.copy_in.running() {
            return Err(SessionEnd::ClientMessage("a message that is no COPY data, in the middle of a COPY"));
        }
        if self.refusing || self.pipeline.is_skipping() {
            return Ok(());
        }
        let request_id = self.new_request();
        self.record_said(&request_id, "", &malformed.fields);
        if malformed.simple {
            return self.refuse_simple(&malformed.fields).await;
        }
        self.refuse_extended(malformed.fields)
    }
}

fn words(frame: &Frame, problem: &DecodeError) -> Fields {
    let (sqlstate, text) = match problem {
        DecodeError::NotUtf8 { .. } => {
            ("22021", format!("invalid byte sequence for encoding \"UTF8\": {}", unreadable(&frame.payload())))
        }
        DecodeError::Value { what: "format code", value, .. } => ("22023", format!("unsupported format code: {value}")),
        DecodeError::FormatCount { codes, values, what: "parameters", .. } => {
            ("08P01", format!("bind message has {codes} parameter formats but {values} parameters"))
        }
        DecodeError::Truncated { .. } => ("08P01", "insufficient data left in message".to_owned()),
        DecodeError::TrailingBytes { .. } => ("08P01", "invalid message format".to_owned()),
        other => ("08P01", other.to_string()),
    };
    Fields::new("ERROR", sqlstate, &text)
}

/// The first character that is none, as the server shows it: as many bytes as its first one announces.
fn unreadable(payload: &[u8]) -> String {
    let at = std::str::from_utf8(payload).map_or_else(|problem| problem.valid_up_to(), str::len);
    let rest = payload.get(at..).unwrap_or_default();
    let announced = match rest.first() {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        Some(_) | None => 1,
    };
    // Text ends with its NUL.
    let bytes = rest.iter().take_while(|byte| **byte != 0).take(announced.min(SHOWN_BYTES_MAX));
    bytes.map(|byte| format!("0x{byte:02x}")).collect::<Vec<_>>().join(" ")
}
