//! Builds the tree of a document from the events of the YAML parser.
//!
//! Why not straight into structs: a struct knows no places, stops at the first mistake and cannot say what it did
//! not understand. Bounds (bytes, nodes, depth) are checked before anything is copied. Aliases are expanded here,
//! each repetition paid for; tags, merge keys, complex keys and further documents are refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::diagnostic::Diagnostics;
use super::{DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX, DOCUMENT_NODES_MAX, Entry, Node, Source, Span, Value};

pub(super) fn parse(file_name: &str, text: &str) -> Result<Node, Diagnostics> {
    let mut diags = Diagnostics::new();
    if text.len() > DOCUMENT_BYTES_MAX {
        let message = format!("file of {} bytes exceeds the limit of {DOCUMENT_BYTES_MAX}", text.len());
        diags.file_error(file_name, message).help("split it into several files of one folder");
        return Err(diags);
    }
    let source = Arc::new(Source { name: file_name.to_owned(), text: text.to_owned() });
    let mut builder = Builder::new(source);
    // Nesting is bounded by the scanner too, before it costs a token.
    let options = granit_parser::options! {
        emit_comments: false,
        disallow_directives: true,
        flow_nesting_limit: DOCUMENT_DEPTH_MAX,
        block_nesting_limit: DOCUMENT_DEPTH_MAX,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.event(event, &span),
            Err(error) => {
                let span = builder.span(error.marker(), error.marker());
                builder.diags.error(&span, format!("not YAML: {}", error.info()));
                Step::Stop
            }
        };
        if step == Step::Stop {
            return builder.diags.into_result(None);
        }
    }
    builder.finish(file_name)
}

/// Can reading go on after this event?
#[derive(PartialEq)]
enum Step {
    Continue,
    /// The rest of the file would be misread, or costs too much.
    Stop,
}

/// A list or mapping not yet closed.
struct Frame {
    span: Span,
    key: Option<Arc<str>>,
    item: bool,
    anchor: usize,
    open: Open,
}

enum Open {
    Sequence(Vec<Node>),
    Mapping(OpenMapping),
}

#[derive(Default)]
struct OpenMapping {
    entries: Vec<Entry>,
    /// Lines of the keys seen.
    seen: BTreeMap<String, usize>,
    /// The key whose value comes next.
    pending: Option<(String, Span)>,
}

/// What an anchor stands for, with its cost.
struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

struct Builder {
    source: Arc<Source>,
    diags: Diagnostics,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn new(source: Arc<Source>) -> Self {
        Builder {
            source,
            diags: Diagnostics::new(),
            stack: Vec::new(),
            anchors: BTreeMap::new(),
            nodes: 0,
            documents: 0,
            root: None,
        }
    }

    fn event(&mut self, event: Event<'_>, at: &granit_parser::Span) -> Step {
        let span = self.span(&at.start, &at.end);
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Step::Continue,
            Event::DocumentStart(..) => self.document(&span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.scalar(text.into_owned(), style, anchor, span)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.open(span, anchor, Open::Sequence(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.open(span, anchor, Open::Mapping(OpenMapping::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            // Events of options that are not switched on, and whatever a later parser adds.
            _ => {
                self.diags.error(&span, "this YAML construct is not supported");
                Step::Stop
            }
        }
    }

    fn finish(mut self, file_name: &str) -> Result<Node, Diagnostics> {
        if self.root.is_none() {
            self.diags.file_error(file_name, "the file is empty");
        }
        let root = self.root.take();
        self.diags.into_result(root)
    }

    fn document(&mut self, span: &Span) -> Step {
        self.documents += 1;
        if self.documents == 1 {
            return Step::Continue;
        }
        self.diags.error(span, "a second YAML document begins here").help("a file holds one document; use a file each");
        Step::Stop
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, anchor: usize, span: Span) -> Step {
        if self.awaits_key() {
            return self.take_key(text, style, anchor, span);
        }
        if !self.pay(1, &span) {
            return Step::Stop;
        }
        let value = match style {
            ScalarStyle::Plain => self.resolve(text, &span),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted | ScalarStyle::Literal | ScalarStyle::Folded => {
                Value::String(text)
            }
        };
        let (key, item) = self.context();
        let node = Node { span, key, item, value };
        self.remember(anchor, &node, 1, 1);
        self.place(node);
        Step::Continue
    }

    /// Keys are text whatever they look like: `1:` and `true:` are the keys "1" and "true".
    fn take_key(&mut self, text: String, style: ScalarStyle, anchor: usize, span: Span) -> Step {
        if anchor != 0 {
            self.diags.error(&span, "a key cannot carry an anchor").help("put the anchor on the value");
        }
        if style == ScalarStyle::Plain && text == "<<" {
            self.diags.error(&span, "merge keys (`<<`) are not supported").help("write the keys out");
        }
        if let Some(Frame { open: Open::Mapping(mapping), .. }) = self.stack.last_mut() {
            mapping.pending = Some((text, span));
        }
        Step::Continue
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Step {
        if self.awaits_key() {
            return self.refuse_complex_key(&span);
        }
        let Some((nodes, depth)) = self.anchors.get(&anchor).map(|anchored| (anchored.nodes, anchored.depth)) else {
            self.diags.error(&span, "the alias stands inside the value it repeats");
            return Step::Stop;
        };
        if !self.pay(nodes, &span) || !self.fits(depth, &span) {
            return Step::Stop;
        }
        let (key, item) = self.context();
        let copy = self.anchors.get(&anchor).map(|anchored| anchored.node.value.clone());
        if let Some(value) = copy {
            self.place(Node { span, key, item, value });
        }
        Step::Continue
    }

    fn open(&mut self, span: Span, anchor: usize, open: Open) -> Step {
        if self.awaits_key() {
            return self.refuse_complex_key(&span);
        }
        if !self.pay(1, &span) || !self.fits(1, &span) {
            return Step::Stop;
        }
        let (key, item) = self.context();
        self.stack.push(Frame { span, key, item, anchor, open });
        Step::Continue
    }

    fn close(&mut self) -> Step {
        let Some(frame) = self.stack.pop() else { return Step::Stop };
        let value = match frame.open {
            Open::Sequence(items) => Value::Sequence(items),
            Open::Mapping(mapping) => Value::Mapping(mapping.entries),
        };
        let node = Node { span: frame.span, key: frame.key, item: frame.item, value };
        if frame.anchor != 0 {
            let (nodes, depth) = size(&node);
            self.remember(frame.anchor, &node, nodes, depth);
        }
        self.place(node);
        Step::Continue
    }

    fn remember(&mut self, anchor: usize, node: &Node, nodes: usize, depth: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, depth });
        }
    }

    fn place(&mut self, node: Node) {
        match self.stack.last_mut().map(|frame| &mut frame.open) {
            None => self.root = Some(node),
            Some(Open::Sequence(items)) => items.push(node),
            Some(Open::Mapping(mapping)) => {
                let Some((key, key_span)) = mapping.pending.take() else { return };
                if let Some(line) = mapping.seen.get(&key) {
                    let message = format!("duplicate key `{key}`, first written in line {line}");
                    self.diags.error(&key_span, message).help("keep one of them");
                    return;
                }
                mapping.seen.insert(key.clone(), key_span.line);
                mapping.entries.push(Entry { key, key_span, value: node });
            }
        }
    }

    fn awaits_key(&self) -> bool {
        match self.stack.last().map(|frame| &frame.open) {
            Some(Open::Mapping(mapping)) => mapping.pending.is_none(),
            Some(Open::Sequence(_)) | None => false,
        }
    }

    /// The key the next value stands under, and whether it is an item of a list there.
    fn context(&self) -> (Option<Arc<str>>, bool) {
        match self.stack.last() {
            None => (None, false),
            Some(Frame { key, open: Open::Sequence(_), .. }) => (key.clone(), true),
            Some(Frame { open: Open::Mapping(mapping), .. }) => {
                (mapping.pending.as_ref().map(|(key, _)| Arc::from(key.as_str())), false)
            }
        }
    }

    fn refuse_complex_key(&mut self, span: &Span) -> Step {
        self.diags.error(span, "a key must be plain text, not a list, a mapping or an alias");
        Step::Stop
    }

    fn refuse_tag(&mut self, tagged: bool, at: &granit_parser::Span) {
        if tagged {
            let tag = at.tag_span().unwrap_or(*at);
            let span = self.span(&tag.start, &tag.end);
            self.diags.error(&span, "YAML tags (`!…`) are not supported").help("quote the value to make it text");
        }
    }

    fn pay(&mut self, nodes: usize, span: &Span) -> bool {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > DOCUMENT_NODES_MAX {
            let message = format!("the file exceeds the limit of {DOCUMENT_NODES_MAX} values, aliases counted");
            self.diags.error(span, message).help("split it into several files, or repeat less through aliases");
            return false;
        }
        true
    }

    fn fits(&mut self, depth: usize, span: &Span) -> bool {
        if self.stack.len().saturating_add(depth) > DOCUMENT_DEPTH_MAX {
            self.diags.error(span, format!("nested deeper than the limit of {DOCUMENT_DEPTH_MAX} levels"));
            return false;
        }
        true
    }

    /// The core schema of YAML 1.2, less what two readers could read differently.
    fn resolve(&mut self, text: String, span: &Span) -> Value {
        match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
            "true" | "True" | "TRUE" => return Value::Bool(true),
            "false" | "False" | "FALSE" => return Value::Bool(false),
            _ => {}
        }
        let digits = text.trim_start_matches(['+', '-']);
        let based = ["0x", "0o", "0b"].iter().any(|prefix| digits.starts_with(prefix));
        let number_like = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        if !number_like || based {
            return Value::String(text);
        }
        if digits.bytes().all(|b| b.is_ascii_digit()) {
            if digits.len() > 1 && digits.starts_with('0') {
                self.diags.error(span, "a number with leading zeros").help("quote it to make it text");
                return Value::Null;
            }
            if let Ok(number) = text.parse() {
                return Value::Integer(number);
            }
            self.diags.error(span, "a whole number beyond 64 bits").help("quote it to make it text");
            return Value::Null;
        }
        let float_like = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
        match text.parse::<f64>() {
            Ok(number) if float_like && number.is_finite() => Value::Float(number),
            Ok(_) | Err(_) => Value::String(text),
        }
    }

    fn span(&self, start: &Marker, end: &Marker) -> Span {
        let length = if end.line() == start.line() {
            end.index().saturating_sub(start.index()).max(1)
        } else if start.line() < end.line() {
            // Several lines: underline the rest of the first one (rendering cuts at its end).
            usize::MAX
        } else {
            1
        };
        let offset = start.byte_offset().unwrap_or(self.source.text.len());
        Span { source: self.source.clone(), offset, line: start.line(), column: start.col().saturating_add(1), length }
    }
}

/// Values of a subtree and its depth. Recursion is bounded by [`DOCUMENT_DEPTH_MAX`].
fn size(node: &Node) -> (usize, usize) {
    let children: Vec<&Node> = match &node.value {
        Value::Sequence(items) => items.iter().collect(),
        Value::Mapping(entries) => entries.iter().map(|entry| &entry.value).collect(),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => return (1, 1),
    };
    let (nodes, depth) = children
        .into_iter()
        .map(size)
        .fold((0, 0), |(nodes, depth): (usize, usize), child| (nodes.saturating_add(child.0), depth.max(child.1)));
    (nodes.saturating_add(1), depth + 1)
}
