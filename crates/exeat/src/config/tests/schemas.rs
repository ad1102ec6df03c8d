//! The JSON Schemas under docs/schemas, held against what really reads the files: each object of a schema has the keys
//! that its decoder knows, requires the same, and every example of the documentation is valid.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use exeat_policy::document::Document;
use exeat_policy::{Policy, PolicyContext};
use serde_json::{Value, json};

use super::super::Config;

/// No decoder has a key like it, or close to it.
const NO_KEY: &str = "zzzzzzzzzzzz";

#[derive(Debug, Clone)]
enum Step {
    Key(String),
    /// Any name, in a map of the operator's own names.
    Name,
    Item,
}

struct Schema {
    name: &'static str,
    root: Value,
    /// Everything that the decoder says of a file.
    said: fn(&str) -> String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn schemas() -> [Schema; 2] {
    let read = |name: &str| {
        let text = std::fs::read_to_string(folder().join("schemas").join(name)).expect("a shipped schema");
        serde_json::from_str(&text).expect("JSON")
    };
    let said_of_policy =
        |text: &str| match Policy::load(&[("f".to_owned(), text.to_owned())], &PolicyContext::default()) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        };
    let said_of_config = |text: &str| match Config::parse("f", text, Path::new("/nowhere")) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    };
    [
        Schema { name: "policy", root: read("policy.schema.json"), said: said_of_policy },
        Schema { name: "exeat", root: read("exeat.schema.json"), said: said_of_config },
    ]
}

impl Schema {
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self.root.pointer(reference.trim_start_matches('#')).expect("a definition"),
            None => schema,
        }
    }

    /// Every object with keys of ours, and the way to it.
    fn objects<'a>(&'a self, schema: &'a Value, way: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, &'a Value)>) {
        let schema = self.resolve(schema);
        let mut below = |step: Option<Step>, schema: &'a Value, found: &mut Vec<(Vec<Step>, &'a Value)>| {
            let depth = way.len();
            way.extend(step);
            self.objects(schema, way, found);
            way.truncate(depth);
        };
        schema["anyOf"].as_array().into_iter().flatten().for_each(|one| below(None, one, found));
        if schema["items"].is_object() {
            below(Some(Step::Item), &schema["items"], found);
        }
        if schema["additionalProperties"].is_object() {
            below(Some(Step::Name), &schema["additionalProperties"], found);
        }
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            below(Some(Step::Key(key.clone())), inner, found);
        }
        if schema["properties"].is_object() {
            found.push((way.clone(), schema));
        }
    }

    /// What the decoder says of a file that holds nothing but `object` at the end of the way.
    fn says(&self, way: &[Step], object: Value) -> String {
        let file = way.iter().rev().fold(object, |inner, step| match step {
            Step::Key(key) => json!({ key: inner }),
            Step::Name => json!({"x": inner}),
            Step::Item => json!([inner]),
        });
        (self.said)(&file.to_string())
    }

    fn problems(&self, schema: &Value, value: &Value) -> Option<String> {
        let schema = self.resolve(schema);
        let kinds = match &schema["type"] {
            Value::String(kind) => vec![kind.as_str()],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is = |kind: &str| match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            other => panic!("type {other}"),
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind)) {
            return Some(format!("{value} is no {kinds:?}"));
        }
        if let Some(choices) = schema["enum"].as_array()
            && !choices.contains(value)
        {
            return Some(format!("{value} is none of {choices:?}"));
        }
        if !schema["const"].is_null() && schema["const"] != *value {
            return Some(format!("{value} is not {}", schema["const"]));
        }
        if let Some(ways) = schema["anyOf"].as_array()
            && ways.iter().all(|way| self.problems(way, value).is_some())
        {
            return Some(format!("{value} is none of several"));
        }
        let number = value.as_i64();
        if schema["minimum"].as_i64().zip(number).is_some_and(|(least, number)| number < least)
            || schema["maximum"].as_i64().zip(number).is_some_and(|(most, number)| number > most)
        {
            return Some(format!("{value} is out of bounds"));
        }
        let items = value.as_array().into_iter().flatten();
        let in_items = schema["items"]
            .is_object()
            .then(|| items.into_iter().find_map(|item| self.problems(&schema["items"], item)));
        in_items.flatten().or_else(|| self.of_members(schema, value))
    }

    fn of_members(&self, schema: &Value, value: &Value) -> Option<String> {
        let members = value.as_object()?;
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(missing) = required.into_iter().find(|key| !members.contains_key(*key)) {
            return Some(format!("{value} lacks {missing}"));
        }
        members.iter().find_map(|(key, member)| match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => Some(format!("{key} is unknown")),
            (Value::Null, other @ Value::Object(_)) => self.problems(other, member),
            (Value::Null, _) => None,
            (known, _) => self.problems(known, member),
        })
    }
}

fn listed(text: &str, before: &str) -> Option<BTreeSet<String>> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.lines().next()?.split(", ").map(str::to_owned).collect())
}

#[test]
fn a_schema_knows_the_keys_that_its_decoder_knows() {
    for schema in schemas() {
        let mut found = Vec::new();
        schema.objects(&schema.root, &mut Vec::new(), &mut found);
        assert!(found.len() > 5, "{}", schema.name);
        for (way, object) in found {
            let place = format!("{} {way:?}", schema.name);
            let said = schema.says(&way, json!({ NO_KEY: 1 }));
            let (_, behind) = said.split_once(&format!("unknown key `{NO_KEY}`")).expect(&place);
            let known = listed(behind, "known here: ").expect(&place);
            let ours: BTreeSet<String> = object["properties"].as_object().unwrap().keys().cloned().collect();
            assert!(ours.is_subset(&known), "{place}: the schema has {:?} beside", ours.difference(&known));
            for key in known.difference(&ours) {
                let said = schema.says(&way, json!({ key: null }));
                let reserved = said.contains(&format!("`{key}` is not supported"));
                assert!(reserved, "{place}: the schema lacks `{key}`\n{said}");
            }
        }
    }
}

#[test]
fn a_schema_requires_what_its_decoder_requires() {
    for schema in schemas() {
        let mut found = Vec::new();
        schema.objects(&schema.root, &mut Vec::new(), &mut found);
        for (way, object) in found {
            let said = schema.says(&way, json!({}));
            for key in object["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let lacks = said.contains(&format!("lacks the key `{key}`")) || said.contains("limits nothing");
                assert!(lacks, "{} {way:?} requires {key}\n{said}", schema.name);
            }
        }
    }
}

/// What stands between fences of a page, where it is YAML.
fn fenced(page: &str) -> Vec<String> {
    page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

#[test]
fn every_example_of_the_documentation_is_valid() {
    let [policy, config] = schemas();
    let mut checked = 0;
    let mut check = |schema: &Schema, of: &Value, value: &Value, place: &str| {
        assert_eq!(schema.problems(of, value), None, "{place}: {value}");
        checked += 1;
    };
    let parsed = |name: &str, text: &str| Document::parse(name, text).map(|document| document.to_json());
    for (name, schema) in [("policy.yaml", &policy), ("exeat.yaml", &config)] {
        let text = std::fs::read_to_string(folder().join("examples").join(name)).unwrap();
        check(schema, &schema.root, &parsed(name, &text).unwrap(), name);
    }
    for page in std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        if page.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let place = page.display().to_string();
        for text in fenced(&std::fs::read_to_string(&page).unwrap()) {
            let value = parsed(&place, &text).expect(&place);
            match &value {
                Value::Array(rules) => {
                    rules.iter().for_each(|rule| check(&policy, &policy.root["$defs"]["rule"], rule, &place));
                }
                Value::Object(members) => {
                    for (key, member) in members {
                        let of = [(&policy, &policy.root["properties"]), (&config, &config.root["properties"])];
                        let who = (&policy, &policy.root["$defs"]["rule"]["properties"]);
                        let target = (&config, &config.root["$defs"]["postgres"]["properties"]);
                        let known = of.into_iter().chain([who, target]).find(|(_, keys)| !keys[key].is_null());
                        let (schema, keys) = known.unwrap_or_else(|| panic!("{place}: {key}"));
                        check(schema, &keys[key], member, &place);
                    }
                }
                other => panic!("{place}: {other}"),
            }
        }
    }
    assert!(checked > 15, "{checked}");
}

#[test]
fn what_is_wrong_is_not_valid() {
    let [policy, config] = schemas();
    for wrong in [
        json!({"rules": []}),
        json!({"version": 2}),
        json!({"version": 1, "rule": []}),
        json!({"version": 1, "rules": [{"id": "r", "allow": ["reads"]}]}),
        json!({"version": 1, "rules": [{"id": "r", "mask": {"ssn": {"with": "partial", "last": 65}}}]}),
    ] {
        assert!(policy.problems(&policy.root, &wrong).is_some(), "{wrong}");
    }
    assert!(config.problems(&config.root, &json!({})).is_some());
}
