//! How COPY TO writes its rows down, as far as it is said plainly. Whoever masks them has to find every cell as the
//! server means it: what is left open here is left alone, and such a COPY is refused where anything is sealed.

use pg_query::NodeEnum;
use pg_query::protobuf::{DefElem, Node};

use super::{inner, string};
use crate::analysis::{CopyFormat, CopyLayout, ForceQuote};

/// Longest null string taken for one.
const NULL_BYTES_MAX: usize = 64;

/// `None`: an option is given twice, has a value we do not know, or makes a layout whose cells cannot be told apart.
pub(crate) fn layout(options: &[Node]) -> Option<CopyLayout> {
    let mut seen: Vec<&str> = Vec::new();
    let mut given = Vec::new();
    for node in options {
        let Ok(NodeEnum::DefElem(option)) = inner(node) else { return None };
        if seen.contains(&option.defname.as_str()) {
            return None;
        }
        seen.push(&option.defname);
        given.push(option.as_ref());
    }
    let find = |name: &str| given.iter().copied().find(|option| option.defname == name);
    let format = match find("format").map(text) {
        None => CopyFormat::Text,
        Some(Some("text")) => CopyFormat::Text,
        Some(Some("csv")) => CopyFormat::Csv,
        Some(Some("binary")) => CopyFormat::Binary,
        Some(Some(_) | None) => return None,
    };
    if let Some(encoding) = find("encoding") {
        let name = text(encoding)?.replace(['-', '_'], "");
        if !name.eq_ignore_ascii_case("utf8") {
            return None;
        }
    }
    let is_csv = format == CopyFormat::Csv;
    let delimiter = match find("delimiter") {
        Some(option) => one_byte(option)?,
        None if is_csv => b',',
        None => b'\t',
    };
    let null = match find("null") {
        Some(option) => text(option)?,
        None if is_csv => "",
        None => "\\N",
    };
    let quote = find("quote").map_or(Some(b'"'), one_byte)?;
    let layout = CopyLayout {
        format,
        delimiter,
        null: null.to_owned(),
        header: find("header").map_or(Some(false), flag)?,
        quote,
        escape: find("escape").map_or(Some(quote), one_byte)?,
        force_quote: find("force_quote").map_or(Some(ForceQuote::None), force_quote)?,
    };
    is_exact(&layout).then_some(layout)
}

/// Whether every cell, and whether it is NULL, can be told from the bytes alone.
fn is_exact(layout: &CopyLayout) -> bool {
    let CopyLayout { format, delimiter, null, quote, escape, .. } = layout;
    let ends_a_row = |byte: u8| matches!(byte, b'\n' | b'\r' | 0);
    let null_is_plain =
        null.len() <= NULL_BYTES_MAX && !null.bytes().any(|byte| ends_a_row(byte) || byte == *delimiter);
    match format {
        CopyFormat::Binary => true,
        // The server quotes a value that looks like NULL.
        CopyFormat::Csv => {
            let apart = delimiter != quote && delimiter != escape && !null.bytes().any(|byte| byte == *quote);
            null_is_plain && apart && ![*delimiter, *quote, *escape].into_iter().any(ends_a_row)
        }
        // Nothing tells a value that looks like NULL from one, except a form that no value takes.
        CopyFormat::Text => {
            let delimits = !ends_a_row(*delimiter) && *delimiter != b'\\' && !delimiter.is_ascii_alphanumeric();
            null_is_plain && delimits && *delimiter != b'.' && no_value_is_written_as(null, *delimiter)
        }
    }
}

/// In text format a backslash stands only in front of a backslash, the delimiter, or the letter of a control
/// character: a text with another is never a value.
fn no_value_is_written_as(null: &str, delimiter: u8) -> bool {
    let mut bytes = null.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            continue;
        }
        match bytes.next() {
            Some(b'\\' | b'b' | b'f' | b'n' | b'r' | b't' | b'v') => {}
            Some(escaped) if escaped == delimiter => {}
            Some(_) | None => return true,
        }
    }
    false
}

fn text(option: &DefElem) -> Option<&str> {
    string(option.arg.as_deref()?)
}

/// The server takes single bytes only; others than ASCII are no characters of their own.
fn one_byte(option: &DefElem) -> Option<u8> {
    match text(option)?.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    }
}

fn flag(option: &DefElem) -> Option<bool> {
    let Some(value) = option.arg.as_deref() else { return Some(true) };
    match inner(value).ok()? {
        NodeEnum::Boolean(flag) => Some(flag.boolval),
        NodeEnum::Integer(number) => match number.ival {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        NodeEnum::String(word) => match word.sval.to_ascii_lowercase().as_str() {
            "true" | "on" => Some(true),
            "false" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn force_quote(option: &DefElem) -> Option<ForceQuote> {
    match inner(option.arg.as_deref()?).ok()? {
        NodeEnum::AStar(_) => Some(ForceQuote::All),
        NodeEnum::List(list) => list
            .items
            .iter()
            .map(|item| string(item).map(str::to_owned))
            .collect::<Option<_>>()
            .map(ForceQuote::Columns),
        _ => None,
    }
}
