//! A session's statements in the words of OCSF, for whatever reads that: Datastore Activity (class 6005) of version 1.3.0,
//! one object per statement. What the schema has no place for stands in `unmapped`.

use exeat_store::index::SessionRow;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::story::{Story, Telling};

const SCHEMA_VERSION: &str = "1.3.0";
const CLASS: u64 = 6005;

/// One JSON object a line.
pub(crate) fn ocsf(story: &Story) -> String {
    story.statements().map(|telling| format!("{}\n", activity(&story.session, telling))).collect()
}

/// `activity_id` and its name, by the first kind that says what is done.
fn activity_of(telling: &Telling) -> (u64, &'static str) {
    let named = telling.list("kinds").into_iter().find_map(|kind| match kind {
        "select" | "copy_out" => Some((4, "Query")),
        "insert" | "copy_in" | "merge" => Some((5, "Write")),
        "update" => Some((2, "Update")),
        "delete" | "truncate" => Some((7, "Delete")),
        _ => None,
    });
    named.unwrap_or((99, "Other"))
}

fn activity(session: &SessionRow, telling: &Telling) -> Value {
    let (activity, activity_name) = activity_of(telling);
    let time: i64 = telling.event.time().parse::<Timestamp>().map(Timestamp::as_millisecond).unwrap_or(0);
    let (status, status_name) = match telling.result() {
        "ok" | "suspended" | "parsed" => (1, "Success"),
        "error" | "cancelled" | "refused" | "rolled_back" | "skipped" => (2, "Failure"),
        _ => (0, "Unknown"),
    };
    let (severity, severity_name) = if telling.is_refused() { (2, "Low") } else { (1, "Informational") };
    let code = telling.last("sqlstate").filter(|code| !code.is_empty()).unwrap_or(telling.text_of("code"));
    let mut object = json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "Datastore Activity",
        "type_uid": CLASS * 100 + activity,
        "type_name": format!("Datastore Activity: {activity_name}"),
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "time": time,
        "duration": telling.sum("duration_us") / 1000,
        "metadata": metadata(session, telling),
        "actor": actor(session),
        "src_endpoint": {"ip": session.source},
        "dst_endpoint": {"name": session.target},
        "database": {"name": session.database, "type_id": 1, "type": "Relational"},
        "type_id": 1,
        "type": "Database",
        "unmapped": unmapped(telling),
    });
    if let Some(members) = object.as_object_mut() {
        for (member, text) in [("status_code", code), ("status_detail", telling.result())] {
            if !text.is_empty() {
                members.insert(member.to_owned(), text.into());
            }
        }
        if let Some(sql) = &telling.text {
            let bytes = telling.sum("bytes");
            members.insert(
                "query_info".to_owned(),
                json!({"query_string": sql, "uid": telling.text_of("request_id"), "bytes": bytes}),
            );
        }
        if let [relation] = telling.list("relations").as_slice() {
            members.insert("table".to_owned(), json!({"name": relation}));
        }
    }
    object
}

fn metadata(session: &SessionRow, telling: &Telling) -> Value {
    json!({
        "version": SCHEMA_VERSION,
        "product": {"name": "Exeat", "vendor_name": "Exeat", "version": env!("CARGO_PKG_VERSION")},
        "uid": telling.event.seq().to_string(),
        "sequence": telling.event.seq(),
        "original_time": telling.event.time(),
        "correlation_uid": session.session,
        "log_name": telling.event.value().get("gateway").cloned().unwrap_or(Value::Null),
        "event_code": telling.event.kind(),
    })
}

fn actor(session: &SessionRow) -> Value {
    let text = |member: &str| session.principal.get(member).and_then(Value::as_str).unwrap_or("");
    let groups = session.principal.get("groups").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let groups: Vec<Value> = groups.iter().map(|name| json!({"name": name})).collect();
    let mut actor = Map::new();
    actor.insert(
        "user".to_owned(),
        json!({"name": text("sub"), "uid": text("sub"), "domain": text("iss"), "type_id": 0, "groups": groups}),
    );
    actor.insert("session".to_owned(), json!({"uid": session.session, "issuer": text("iss")}));
    if !text("actor").is_empty() {
        // The agent that acts for the user.
        actor.insert("app_name".to_owned(), text("actor").into());
    }
    actor.into()
}

fn unmapped(telling: &Telling) -> Value {
    let mut unmapped = Map::new();
    for member in ["decision", "code", "kinds", "relations", "columns", "masked", "rules", "reasons"] {
        if let Some(value) = telling.body.get(member) {
            unmapped.insert(member.to_owned(), value.clone());
        }
    }
    for member in ["rows", "cells_masked"] {
        unmapped.insert(member.to_owned(), telling.sum(member).into());
    }
    unmapped.into()
}
