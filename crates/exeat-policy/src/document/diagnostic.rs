//! Mistakes of a file: collected, ordered by position, shown with the source line and a caret under the place.
//! Never holds more of a file than a window around the place, and nothing of it where the line may hold a secret.

use std::fmt;

use super::Span;

/// Characters of a line shown before and after the place: long lines are cut, and cutting bounds the memory.
const EXCERPT_CHARS_MAX: usize = 100;

/// Longest message or help: both quote what the file says, and a file may say a megabyte.
const TEXT_CHARS_MAX: usize = 400;

/// Mistakes shown in full; a file with more has one cause, and a terminal has an end.
const SHOWN_MAX: usize = 100;

/// Is the file refused, or only worth a second look?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: String,
    /// From 1; 0 for what concerns the whole file.
    pub line: usize,
    pub column: usize,
    pub length: usize,
    pub message: String,
    pub help: Option<String>,
    /// What is shown of the line and where in it the place begins, both counted in characters.
    excerpt: Option<(String, usize)>,
}

impl Diagnostic {
    /// Adds what to do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(shown(&help.into()));
        self
    }

    /// Keeps the source line out of the message: for places where a secret may have been written literally.
    pub fn hide_source(&mut self) -> &mut Self {
        self.excerpt = None;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(out, "{severity}: {}", self.message)?;
        let gutter = self.line.to_string().len();
        if self.line == 0 {
            writeln!(out, "--> {}", self.file)?;
        } else {
            writeln!(out, "{:gutter$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
        }
        if let Some((text, start)) = &self.excerpt {
            let room = text.chars().count().saturating_sub(*start).max(1);
            let carets = "^".repeat(self.length.clamp(1, room));
            writeln!(out, "{:gutter$} |", "")?;
            writeln!(out, "{} | {text}", self.line)?;
            writeln!(out, "{:gutter$} | {:start$}{carets}", "", "")?;
        }
        match &self.help {
            Some(help) => writeln!(out, "{:gutter$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

/// All mistakes found so far. As an error it prints every one of them, in order of position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
}

impl Diagnostics {
    pub fn new() -> Self {
        Self::default()
    }

    /// A mistake at a place; the caller may add help to what is returned.
    pub fn error(&mut self, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, span, message.into())
    }

    /// Something allowed that is probably not meant.
    pub fn warning(&mut self, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Warning, span, message.into())
    }

    /// A mistake that concerns a file as a whole (it is empty, it could not be read).
    pub fn file_error(&mut self, file: &str, message: impl Into<String>) -> &mut Diagnostic {
        self.items.push_mut(Diagnostic {
            severity: Severity::Error,
            file: shown(file),
            line: 0,
            column: 0,
            length: 0,
            message: shown(&message.into()),
            help: None,
            excerpt: None,
        })
    }

    pub fn extend(&mut self, other: Diagnostics) {
        self.items.extend(other.items);
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }

    /// Orders by file name, line and column.
    pub fn sort(&mut self) {
        self.items.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    }

    /// `value` if nothing is wrong, else everything that is. Warnings alone count as nothing wrong and are dropped:
    /// take them out before, where they matter.
    pub fn into_result<T>(mut self, value: Option<T>) -> Result<T, Diagnostics> {
        self.sort();
        match value {
            Some(value) if !self.has_errors() => Ok(value),
            Some(_) | None => Err(self),
        }
    }

    fn push(&mut self, severity: Severity, span: &Span, message: String) -> &mut Diagnostic {
        self.items.push_mut(Diagnostic {
            severity,
            file: shown(span.file()),
            line: span.line,
            column: span.column,
            length: span.length,
            message: shown(&message),
            help: None,
            excerpt: excerpt(span),
        })
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{item}")?;
        }
        match self.items.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(out, "\n… and {more} more"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// The line of the place, cut to a window around it.
fn excerpt(span: &Span) -> Option<(String, usize)> {
    let is_break = |c: char| c == '\n' || c == '\r';
    let (before, after) = span.source.text.split_at_checked(span.offset)?;
    let mut head: Vec<char> = before.chars().rev().take_while(|c| !is_break(*c)).take(EXCERPT_CHARS_MAX).collect();
    head.reverse();
    let tail = after.chars().take_while(|c| !is_break(*c)).take(EXCERPT_CHARS_MAX);
    let start = head.len();
    let text = head.into_iter().chain(tail).map(|c| if c == '\t' { ' ' } else { visible(c) }).collect();
    Some((text, start))
}

fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(TEXT_CHARS_MAX).map(visible).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Control and direction characters would let a hostile policy draft repaint the terminal of whoever reviews it.
fn visible(c: char) -> char {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if turns || c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
}
