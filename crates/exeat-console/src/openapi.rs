//! `/v1/openapi.json`: what the API answers, for programs. Written by hand and checked in; a test holds it against the
//! routes that are there.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::routes::Routes;

/// OpenAPI 3.1.
const DOCUMENT: &str = include_str!("openapi.json");

/// For everybody who reaches the listener: it says nothing of this gateway.
pub(crate) fn routes() -> Routes<()> {
    Routes::new().get("/v1/openapi.json", document)
}

async fn document() -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::{admin, approvals, freezes, handles, record};

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn operations(document: &Value) -> Vec<(String, String, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        paths
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().iter();
                methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
            })
            .collect()
    }

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let known = [
            handles::routes().known(),
            admin::routes().known(),
            approvals::routes().known(),
            freezes::routes().known(),
            record::routes().known(),
            routes().known(),
        ];
        let known: BTreeSet<(String, String)> =
            known.concat().into_iter().map(|(method, path)| (method.to_string(), path.to_owned())).collect();
        let document = document();
        let said: BTreeSet<(String, String)> =
            operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
        assert_eq!(said, known);
    }

    #[test]
    fn the_description_holds_together() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        let mut names = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let place = format!("{method} {path}");
            assert!(names.insert(operation["operationId"].as_str().expect(&place).to_owned()), "{place}");
            assert!(operation["summary"].is_string(), "{place}");
            let responses = operation["responses"].as_object().expect(&place);
            assert!(responses.keys().any(|status| status.starts_with('2')), "{place}");
            let needs_token = !operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(responses.contains_key("401"), needs_token, "{place}");
            let named: BTreeSet<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let said: BTreeSet<&str> = parameters
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(said, named, "{place}");
        }
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            if let Some(reference) = value["$ref"].as_str() {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            match value {
                Value::Array(items) => open.extend(items),
                Value::Object(members) => open.extend(members.values()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
    }
}
