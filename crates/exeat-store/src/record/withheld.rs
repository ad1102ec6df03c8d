//! What the server said and the client did not hear, as a session's record keeps it: sealed for the auditors, who alone can
//! read it. In the line itself, so that `jq`, `base64` and `age` are all it takes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::event::{Withheld, WithheldKind};
use super::json;
use super::session::SessionRecord;
use crate::StoreError;

impl SessionRecord {
    /// Before the client hears what stands in its place.
    pub fn withheld(&mut self, withheld: &Withheld<'_>) -> Result<(), StoreError> {
        self.begin("message.withheld")?;
        json::object(&mut self.entry.head, |line| {
            line.object("body", |body| {
                body.text(
                    "kind",
                    match withheld.kind {
                        WithheldKind::Error => "error",
                        WithheldKind::Notice => "notice",
                    },
                );
                // Longer than any text in clear may be, and nothing in it needs an escape.
                let original = body.key("original");
                original.push(b'"');
                original.extend_from_slice(STANDARD.encode(withheld.sealed).as_bytes());
                original.push(b'"');
                body.optional("request_id", withheld.request_id);
            });
        });
        self.finish(Some(withheld.policy)).map(drop)
    }
}
