//! JSON values as indented text for people. The same data as `--json`, in the same order.

use serde_json::Value;

use crate::plain;

/// `key: value` lines, nested by two spaces; absent values are left out.
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(members) => {
            for (key, member) in members.iter().filter(|(_, member)| !member.is_null()) {
                out.push_str(&"  ".repeat(depth));
                out.push_str(key);
                out.push(':');
                write_member(member, depth, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&"  ".repeat(depth));
                out.push('-');
                write_member(item, depth, out);
            }
        }
        _ => out.push_str(&scalar(value)),
    }
}

/// What stands behind `key:` or `-`: on the same line when it fits there, else below.
fn write_member(member: &Value, depth: usize, out: &mut String) {
    if is_flat(member) {
        out.push(' ');
        out.push_str(&scalar(member));
        out.push('\n');
        return;
    }
    out.push('\n');
    write(member, depth + 1, out);
}

fn is_flat(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.iter().all(|item| !item.is_object() && !item.is_array()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => plain::line(text),
        Value::Array(items) => format!("[{}]", items.iter().map(scalar).collect::<Vec<_>>().join(", ")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nesting_is_indented_and_absent_values_are_left_out() {
        let value = json!({"a": {"b": 1, "none": null}, "list": [{"x": true}], "names": ["p", "q"]});
        assert_eq!(text(&value), "a:\n  b: 1\nlist:\n  -\n    x: true\nnames: [p, q]\n");
    }
}
