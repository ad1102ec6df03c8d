//! The server's own words, where the client hears others or none: kept for the auditors, if there are any, before
//! anything is said in their place. Sealed here and never looked at again.

use std::sync::Arc;

use exeat_enforce::scrub::Taint;
use exeat_store::auditors::Auditors;
use exeat_store::record::{Withheld, WithheldKind};
use exeat_wire::{BackendMessage, Fields};

use super::due::Due;
use super::outcome::policy_ref;
use super::session::{Done, Session, SessionEnd};

/// Of one message: what is longer is cut.
const ORIGINAL_BYTES_MAX: usize = 12 * 1024;

/// The same of texts full of what JSON takes six bytes for. A line of the record must hold it, sealed and in base64.
const ESCAPED_BYTES_MAX: usize = 3 * 1024;
const SPELLED_BYTES_MAX: usize = 20 * 1024;

/// Stands where a text was cut.
const CUT: &str = " […]";

impl Session {
    /// Of a message that is about to be scrubbed. `request`: whose answer it is in.
    pub(crate) fn keep_original(&mut self, message: &BackendMessage, taint: Taint, request: Option<&str>) -> Done {
        let Some(auditors) = self.auditors().filter(|_| taint > Taint::Clean) else { return Ok(()) };
        let (kind, fields) = match message {
            BackendMessage::ErrorResponse(fields) => (WithheldKind::Error, fields),
            BackendMessage::NoticeResponse(fields) => (WithheldKind::Notice, fields),
            _ => return Ok(()),
        };
        let sealed = auditors.seal(&spelled(fields)).map_err(SessionEnd::Outcome)?;
        let policy = policy_ref(&self.picture.policy);
        let withheld = Withheld { request_id: request, kind, sealed: &sealed, policy };
        self.record.withheld(&withheld).map_err(SessionEnd::Outcome)
    }

    fn auditors(&self) -> Option<Arc<Auditors>> {
        self.shared.dependencies.auditors.clone()
    }
}

/// Whose answer it is.
pub(crate) fn request_of(due: &Due) -> Option<Arc<str>> {
    match due {
        Due::Query(query) => Some(Arc::clone(&query.request_id)),
        Due::Execute(execute) => Some(Arc::clone(&execute.request_id)),
        Due::Bind { portal, .. } | Due::DescribePortal { portal, .. } => Some(Arc::clone(&portal.request_id)),
        Due::Parse { .. }
        | Due::DescribeStatement { .. }
        | Due::Close { .. }
        | Due::Sync
        | Due::Poison(_)
        | Due::Own => None,
    }
}

/// As a JSON object of the protocol's field codes.
fn spelled(fields: &Fields) -> Vec<u8> {
    let whole = object(fields, ORIGINAL_BYTES_MAX);
    if whole.len() <= SPELLED_BYTES_MAX { whole } else { object(fields, ESCAPED_BYTES_MAX) }
}

fn object(fields: &Fields, bytes_max: usize) -> Vec<u8> {
    let mut left = bytes_max;
    let mut object = serde_json::Map::new();
    for (code, value) in fields.iter() {
        let text = String::from_utf8_lossy(value);
        let kept = kept(&text, left);
        left = left.saturating_sub(kept.len());
        let text = if kept.len() < text.len() { format!("{kept}{CUT}") } else { kept.to_owned() };
        object.insert(char::from(code).to_string(), text.into());
    }
    serde_json::Value::Object(object).to_string().into_bytes()
}

fn kept(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_kept_whole_or_marked_as_cut() {
        let fields = Fields::new("ERROR", "P0001", "é\n\"x\"").with(b'D', "more");
        let expected = serde_json::json!({"S": "ERROR", "V": "ERROR", "C": "P0001", "M": "é\n\"x\"", "D": "more"});
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&spelled(&fields)).unwrap(), expected);
        let fields = Fields::new("ERROR", "P0001", &"é".repeat(ORIGINAL_BYTES_MAX)).with(b'D', "more");
        let cut: serde_json::Value = serde_json::from_slice(&spelled(&fields)).unwrap();
        let ends = |field: &str, end: &str| cut[field].as_str().unwrap().ends_with(end);
        assert!(ends("M", &format!("é{CUT}")) && ends("D", CUT));
        assert!(spelled(&fields).len() < ORIGINAL_BYTES_MAX + 200);
    }

    #[test]
    fn what_is_escaped_may_not_outgrow_a_line() {
        // Control characters take six bytes each in JSON.
        let fields = Fields::new("ERROR", "P0001", &"\u{1}".repeat(ORIGINAL_BYTES_MAX));
        assert!(spelled(&fields).len() <= SPELLED_BYTES_MAX);
    }
}
