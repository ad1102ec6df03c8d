//! Lines as log records of OpenTelemetry, in the JSON encoding of its protocol: the line is the body, byte for byte; what one
//! searches by stands in attributes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::reader::Told;

/// Where a collector takes logs, if the address says no path.
pub(super) const PATH: &str = "/v1/logs";

const INFO: (u8, &str) = (9, "INFO");
const WARN: (u8, &str) = (13, "WARN");

pub(super) fn body(batch: &[Told], gateway: &str) -> Value {
    let observed = Timestamp::now().as_nanosecond().to_string();
    let records: Vec<Value> = batch.iter().map(|told| record(told, &observed)).collect();
    json!({"resourceLogs": [{
        "resource": {"attributes": [text("service.name", "exeat"), text("service.instance.id", gateway)]},
        "scopeLogs": [{"scope": {"name": "exeat.record"}, "logRecords": records}],
    }]})
}

fn record(told: &Told, observed: &str) -> Value {
    let (number, word) = if told.is_notable { WARN } else { INFO };
    let mut attributes = vec![text("exeat.type", &told.kind)];
    if let Some(seq) = told.seq {
        // 64-bit integers are strings in the JSON encoding.
        attributes.push(json!({"key": "exeat.seq", "value": {"intValue": seq.to_string()}}));
    }
    attributes.extend(told.session.as_deref().map(|session| text("exeat.session", session)));
    let time =
        told.time.parse::<Timestamp>().map_or_else(|_| observed.to_owned(), |time| time.as_nanosecond().to_string());
    json!({
        "timeUnixNano": time, "observedTimeUnixNano": observed, "severityNumber": number, "severityText": word,
        "eventName": format!("exeat.{}", told.kind), "body": {"stringValue": told.text}, "attributes": attributes,
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// A collector may take a batch and reject some of it; the protocol forbids to send that again.
pub(super) fn look_at(answer: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return };
    let Some(partial) = answer.get("partialSuccess") else { return };
    let rejected = match partial.get("rejectedLogRecords") {
        Some(Value::String(number)) => number.parse().unwrap_or(0),
        Some(number) => number.as_u64().unwrap_or(0),
        None => 0,
    };
    if rejected > 0 {
        tracing::error!(rejected, "an OTLP receiver rejects log records; they are not sent again");
    }
}
