//! What the client of a session got, as JSON lines: rows as it saw them, errors, tags. For an export; `replay` shows the same.

use exeat_store::index::{Index, SessionEvents, SessionRow};
use exeat_store::keys::KeySet;
use exeat_store::read::BlobKind;
use serde_json::json;

use super::RecordError;
use crate::transcript::{Formats, Reader};

/// One line for each message, with the record that brought it. `None`: nothing of it can be read.
pub(super) fn seen(
    index: &Index,
    session: &SessionRow,
    events: &SessionEvents,
    keys: Option<&KeySet>,
) -> Result<Option<String>, RecordError> {
    let Some(keys) = keys else { return Ok(None) };
    let (mut reader, mut formats) = (Reader::default(), Formats::default());
    let mut out = String::new();
    // Messages may have begun in what retention took.
    let mut is_behind_gap = true;
    for event in &events.events {
        is_behind_gap &= !["session.start", "statement.intent"].contains(&event.kind());
        if is_behind_gap {
            continue;
        }
        let Some(blob) = event.blob(BlobKind::Sent) else { continue };
        let Some(piece) = index.unseal(session, &blob, keys)? else { return Ok(None) };
        let heard = reader.piece(&piece);
        let heard = heard.map_err(|source| RecordError::Transcript { seq: event.seq(), source })?;
        for heard in heard {
            out.push_str(&format!("{}\n", json!({"seq": event.seq(), "sent": heard.to_json(&mut formats)})));
        }
    }
    Ok((!out.is_empty()).then_some(out))
}
