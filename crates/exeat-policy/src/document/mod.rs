//! Strict YAML with places: text in, a tree of nodes out, each knowing file, line and column.
//!
//! One reader for every YAML file of the product, so that all of them refuse the same things (duplicate keys,
//! unknown keys, tags, several documents, YAML 1.1 booleans, alias bombs) in the same words, with a caret under
//! the place and every mistake of a file reported at once. Decoding goes through [`MappingReader`] and the
//! `as_…` methods of [`Node`], which push a [`Diagnostic`] and return `None` instead of stopping.
//! Never opens a file, never substitutes variables, never guesses what a value could have meant.

mod decode;
mod diagnostic;
mod parse;
mod suggest;

use std::fmt;
use std::sync::Arc;

pub use decode::MappingReader;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use suggest::closest;

/// Longest file: a policy of several thousand rules fits, a misplaced dump does not.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// Most nodes of one file, those repeated through aliases counted each time: this is what stops alias bombs.
pub const DOCUMENT_NODES_MAX: usize = 20_000;

/// Deepest nesting, aliases included. The formats need eight levels; trees this shallow may be walked recursively.
pub const DOCUMENT_DEPTH_MAX: usize = 32;

/// A YAML file as text and the way to read it.
#[derive(Debug)]
pub struct Document;

impl Document {
    /// Reads one file. `file_name` is used in messages only.
    pub fn parse(file_name: &str, text: &str) -> Result<Node, Diagnostics> {
        parse::parse(file_name, text)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    /// The mapping key this value (or the list it is an item of) stands under: the object messages name.
    pub key: Option<Arc<str>>,
    /// Is it an item of a list?
    pub item: bool,
    pub value: Value,
}

/// What a node holds, by the core schema of YAML 1.2: `NO`, `on` and `0x1F`-like oddities stay what they look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// One `key: value` of a mapping, in file order. Keys are text and unique.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

/// A place in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    source: Arc<Source>,
    offset: usize,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In characters, at least 1.
    pub length: usize,
}

impl Span {
    /// The name the file was given to [`Document::parse`] with.
    pub fn file(&self) -> &str {
        &self.source.name
    }
}

impl fmt::Debug for Span {
    // The source text stays out: it may hold what must not be logged.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.source.name, self.line, self.column)
    }
}

#[derive(PartialEq, Eq)]
struct Source {
    name: String,
    text: String,
}
