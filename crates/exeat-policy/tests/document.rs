//! The YAML reader against hostile and mistaken files: bombs are refused before they cost anything, no text panics,
//! every mistake of a file is reported, and nothing of a hidden line is shown.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use exeat_policy::document::{
    DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX, DOCUMENT_NODES_MAX, Diagnostics, Document, Node, Value,
};
use exeat_policy::{Policy, PolicyContext};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Node, Diagnostics> {
    Document::parse("file.yaml", text)
}

fn value<'a>(root: &'a Node, key: &str) -> &'a Node {
    let Value::Mapping(entries) = &root.value else { panic!("not a mapping") };
    &entries.iter().find(|entry| entry.key == key).unwrap().value
}

fn messages(diags: &Diagnostics) -> Vec<String> {
    diags.iter().map(|item| format!("{}:{} {}", item.line, item.column, item.message)).collect()
}

#[test]
fn scalars_follow_yaml_1_2() {
    let cases: Vec<(&str, Value)> = vec![
        ("NO", Value::String("NO".into())),
        ("no", Value::String("no".into())),
        ("on", Value::String("on".into())),
        ("y", Value::String("y".into())),
        ("true", Value::Bool(true)),
        ("False", Value::Bool(false)),
        ("\"true\"", Value::String("true".into())),
        ("~", Value::Null),
        ("", Value::Null),
        ("null", Value::Null),
        ("0", Value::Integer(0)),
        ("-12", Value::Integer(-12)),
        ("1.5", Value::Float(1.5)),
        ("1e3", Value::Float(1000.0)),
        ("1.2.3", Value::String("1.2.3".into())),
        ("12:30:00", Value::String("12:30:00".into())),
        ("0x1F", Value::String("0x1F".into())),
        ("1_000", Value::String("1_000".into())),
        (".inf", Value::String(".inf".into())),
        ("nan", Value::String("nan".into())),
        ("2026-01-01", Value::String("2026-01-01".into())),
        ("0.0.0.0:6432", Value::String("0.0.0.0:6432".into())),
        ("15m", Value::String("15m".into())),
        ("-", Value::Sequence(vec![])),
    ];
    for (text, expected) in cases {
        let root = parse(&format!("x: {text}\n"));
        if text == "-" {
            assert!(root.is_err(), "a dash opens a list, which cannot begin here");
            continue;
        }
        assert_eq!(value(&root.unwrap(), "x").value, expected, "{text}");
    }
}

#[test]
fn places_are_exact() {
    let root = parse("a: 1\nlist:\n  - é: [x, \"two words\"]\n").unwrap();
    let Value::Sequence(items) = &value(&root, "list").value else { panic!("not a list") };
    let Value::Mapping(entries) = &items[0].value else { panic!("not a mapping") };
    assert_eq!((entries[0].key_span.line, entries[0].key_span.column, entries[0].key_span.length), (3, 5, 1));
    let Value::Sequence(words) = &entries[0].value.value else { panic!("not a list") };
    assert_eq!((words[1].span.line, words[1].span.column, words[1].span.length), (3, 12, 11));
    assert_eq!(words[1].span.to_string(), "file.yaml:3:12");
    assert_eq!(words[1].subject(), "an item of `é`");
}

#[test]
fn bombs_are_refused_fast() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let before = level - 1;
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 9].join(", "));
    }
    let mut deep_aliases = String::from("a0: &a0 [x]\n");
    for level in 1..=DOCUMENT_DEPTH_MAX {
        deep_aliases += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    let bombs = [
        ("laughs", laughs, "values, aliases counted"),
        ("deep aliases", deep_aliases, "nested deeper"),
        ("deep flow", "[".repeat(200_000), "not YAML"),
        ("deep block", (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(), "not YAML"),
        ("deep dashes", "- ".repeat(100_000), "not YAML"),
        ("many values", format!("[{}]", "x,".repeat(DOCUMENT_NODES_MAX)), "values, aliases counted"),
        ("many bytes", "#".repeat(DOCUMENT_BYTES_MAX + 1), "exceeds the limit of 1048576"),
        ("many mistakes on one line", format!("{{{}}}", "a: 1, ".repeat(DOCUMENT_NODES_MAX - 1)), "duplicate key"),
        ("long keys", format!("? {}\n: x", "k".repeat(500_000)), ""),
        ("quotes", "\"".repeat(500_001), ""),
        ("anchors", "&a ".repeat(100_000), ""),
        ("tags", "!!x ".repeat(100_000), ""),
    ];
    for (name, text, expected) in bombs {
        let begin = Instant::now();
        let outcome = parse(&text);
        let shown = outcome.as_ref().map_or_else(ToString::to_string, |_| String::new());
        let took = begin.elapsed();
        assert!(shown.contains(expected), "{name}: {}", shown.chars().take(300).collect::<String>());
        assert!(shown.len() < 100_000, "{name}: report of {} bytes", shown.len());
        // Far above what any takes, far below what one expanded level more would.
        assert!(took < Duration::from_secs(5), "{name} took {took:?}");
    }
}

#[test]
fn the_bounds_themselves_are_allowed() {
    let items = DOCUMENT_NODES_MAX - 1;
    assert!(parse(&format!("[{}]", vec!["x"; items].join(","))).is_ok());
    assert!(parse(&format!("[{}]", vec!["x"; items + 1].join(","))).is_err());
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(DOCUMENT_DEPTH_MAX)).is_ok());
    assert!(parse(&nested(DOCUMENT_DEPTH_MAX + 1)).is_err());
}

#[test]
fn aliases_repeat_values_at_their_own_place() {
    let root = parse("a: &a {x: [1, 2]}\nb: *a\n").unwrap();
    assert_eq!(value(&root, "a").to_json(), value(&root, "b").to_json());
    assert_eq!(value(&root, "b").span.to_string(), "file.yaml:2:4");
    assert_eq!(value(&root, "b").subject(), "`b`");
}

#[test]
fn decoding_reports_every_mistake_in_order() {
    let text = "name: 7\nport: 70000\nwait: 15\nsize: 1MB\ntls: maybe\nlist: {}\nflag: yes\nempty: ''\nnmae: x\n";
    let root = parse(text).unwrap();
    let mut diags = Diagnostics::new();
    let mut reader = root.mapping(&mut diags).unwrap();
    assert_eq!(reader.required("missing", &mut diags), None);
    let mut node = |key| reader.optional(key).unwrap();
    let (flag, list, tls, size) = (node("flag"), node("list"), node("tls"), node("size"));
    let (wait, port, name, empty) = (node("wait"), node("port"), node("name"), node("empty"));
    assert_eq!(flag.as_bool(&mut diags), None);
    assert_eq!(list.as_list(&mut diags), None);
    assert_eq!(tls.one_of(&[("verify-full", 1), ("require", 2), ("off", 3)], &mut diags), None);
    assert_eq!(size.as_bytes(&mut diags), None);
    assert_eq!(wait.as_duration(&mut diags), None);
    assert_eq!(port.as_integer(1..=65535, &mut diags), None);
    assert_eq!(name.as_string(&mut diags), None);
    assert_eq!(empty.as_string(&mut diags), None);
    reader.finish(&mut diags);
    diags.sort();
    let expected = [
        "1:1 the file lacks the key `missing`",
        "1:7 `name` must be a string, not a number",
        "2:7 `port` is 70000, it must be from 1 to 65535",
        "3:7 `wait` must be a duration such as 500ms, 120s, 15m, 24h or 7d, not a number",
        "4:7 `size` must be a size such as 512B, 64KiB, 1MiB or 2GiB",
        "5:6 `tls` has no choice `maybe`",
        "6:7 `list` must be a list, not a mapping",
        "7:7 `flag` must be true or false, not a string",
        "8:8 `empty` is empty",
        "9:1 unknown key `nmae` in the file",
    ];
    assert_eq!(messages(&diags), expected);
    assert!(diags.to_string().contains("= help: did you mean `name`?"));
}

#[test]
fn quantities_are_read_with_their_unit() {
    let cases = [
        ("500ms", Some(Duration::from_millis(500))),
        ("120s", Some(Duration::from_secs(120))),
        ("15m", Some(Duration::from_secs(900))),
        ("24h", Some(Duration::from_secs(86_400))),
        ("7d", Some(Duration::from_secs(604_800))),
        ("s", None),
        ("-1s", None),
        ("1.5h", None),
        ("1 s", None),
        ("1S", None),
        ("99999999999999999999s", None),
        ("9999999999999999999d", None),
    ];
    for (text, expected) in cases {
        let mut diags = Diagnostics::new();
        let root = parse(&format!("x: {text}")).unwrap();
        assert_eq!(value(&root, "x").as_duration(&mut diags), expected, "{text}");
        assert_eq!(diags.is_empty(), expected.is_some(), "{text}");
    }
    for (text, expected) in [("512B", Some(512)), ("1MiB", Some(1 << 20)), ("2GiB", Some(2 << 30)), ("1mb", None)] {
        let mut diags = Diagnostics::new();
        let root = parse(&format!("x: {text}")).unwrap();
        assert_eq!(value(&root, "x").as_bytes(&mut diags), expected, "{text}");
        assert_eq!(diags.is_empty(), expected.is_some(), "{text}");
    }
}

#[test]
fn a_hidden_line_shows_nothing_of_it() {
    let root = parse("password: hunter2secret\n").unwrap();
    let mut diags = Diagnostics::new();
    diags.error(&value(&root, "password").span, "a secret is {env: …}, never a literal").hide_source();
    assert!(!diags.to_string().contains("hunter2"), "{diags}");
    assert!(!format!("{diags:?}").contains("hunter2"));
    let mut shown = Diagnostics::new();
    shown.error(&value(&root, "password").span, "twin");
    assert!(shown.to_string().contains("hunter2"), "the twin shows its line, or the test above proves nothing");
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    let text = format!("a: \"{}\"\na: 1\nb: [{}!x y]\n", "z".repeat(5000), "q, ".repeat(3000));
    let shown = parse(&text).unwrap_err().to_string();
    assert!(shown.lines().all(|line| line.chars().count() < 260), "{shown}");
    let caret = shown.lines().find(|line| line.contains("^^")).unwrap_or_else(|| panic!("{shown}"));
    let source = shown.lines().find(|line| line.starts_with("3 |")).unwrap();
    let at = caret.chars().take_while(|c| *c != '^').count();
    assert_eq!(source.chars().skip(at).take(2).collect::<String>(), "!x");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let shown = parse("a: \"\u{202e}x\"\na: \u{85}\n").unwrap_err().to_string();
    assert!(!shown.contains('\u{202e}') && !shown.contains('\u{85}'), "{shown:?}");
    let shown = parse("\"\u{202e}x\": 1\nversion: 1\n").unwrap();
    let mut diags = Diagnostics::new();
    shown.mapping(&mut diags).unwrap().finish(&mut diags);
    assert!(!diags.to_string().contains('\u{202e}'), "{diags}");
}

/// Fragments that reach deeper than random characters do.
fn fragments() -> impl Strategy<Value = String> {
    let words = vec![
        "version: 1\n",
        "labels:",
        "shop:",
        "ssn:",
        "rules:",
        "\n  - ",
        "id: r",
        "who:",
        "{",
        "}",
        "[",
        "]",
        ",",
        ": ",
        "allow: [read]",
        "mask:",
        "with: partial",
        "last: 4",
        "deny: true",
        "tests:",
        "as: {sub: a}",
        "&a ",
        "*a",
        "!!t ",
        "---\n",
        "...\n",
        "<<: ",
        "? ",
        "|\n",
        ">-\n",
        "\"",
        "'",
        "\n",
        "\n    ",
        "\t",
        "#",
        "\u{feff}",
        "\r",
        "é",
        "\0",
        "0x",
        "-9223372036854775809",
        "1e999",
        "~",
        "public.customers.ssn",
        "\"*\"",
        "%YAML 1.2\n",
    ];
    proptest::collection::vec(proptest::sample::select(words), 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in prop_oneof![any::<String>(), fragments()]) {
        let files = [("file.yaml".to_owned(), text)];
        if let Err(diags) = Policy::load(&files, &PolicyContext::default()) {
            // A refusal always says why, and what it says can be shown.
            prop_assert!(diags.has_errors());
            prop_assert!(!diags.to_string().is_empty());
        }
    }
}
