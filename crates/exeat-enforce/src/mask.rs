//! Masks: what stands in a sealed cell instead of its value, valid in the column's type and in the cell's format.
//! Pure. A type that a mask cannot be written in becomes NULL, and NULL stays NULL unless policy hides it. What does
//! not decode as UTF-8 is replaced whole. No mask ever depends on more of the value than it shows.

mod bytea;
pub(crate) mod date;
pub mod keyed;
mod kin;
mod network;
mod number;
mod partial;

use std::sync::Arc;

use exeat_policy::{Detector, Generalize, Mask, Nulls};
use exeat_wire::{CellAction, Format};

pub use self::keyed::{LabelKeys, MaskKeys};
pub use self::kin::TypeKin;

use crate::detect;

use self::date::DateKin;
use self::keyed::Input;
use self::number::NumberKin;

/// What a client sees instead of a text.
pub const REDACTED: &str = "[redacted by exeat]";

/// Longest value a mask looks at. What identifies somebody is short; of a longer value nothing is told, so that
/// masking never holds more of a row than this.
pub const SEEN_BYTES_MAX: usize = 64 * 1024;

/// The same as a JSON string.
const REDACTED_JSON: &str = "\"[redacted by exeat]\"";

/// jsonb in binary format is a version byte and the text.
const JSONB_VERSION: u8 = 1;

/// How the cells of one column are replaced.
#[derive(Debug, Clone)]
pub struct MaskEncoder {
    action: Action,
    nulls: Nulls,
}

#[derive(Debug, Clone)]
enum Action {
    Null,
    /// The same bytes whatever the value.
    Constant(Box<[u8]>),
    Partial {
        first: usize,
        last: usize,
        padded: bool,
    },
    Hash(Keyed),
    Token(Keyed),
    Date {
        how: Generalize,
        kin: DateKin,
        format: Format,
    },
    Number {
        bucket: u64,
        kin: NumberKin,
        format: Format,
    },
    Network {
        how: Generalize,
        format: Format,
    },
    /// A column that no mask covers: kept, unless something is found in it.
    Detect {
        detectors: Arc<[Detector]>,
        redacted: Box<[u8]>,
    },
}

#[derive(Debug, Clone)]
struct Keyed {
    keys: Arc<LabelKeys>,
    kin: TypeKin,
    format: Format,
    /// For what is not digested or encrypted; `None` is NULL.
    redacted: Option<Box<[u8]>>,
}

impl MaskEncoder {
    /// `Mask::Refuse` never gets here: its statements are refused. Should one, its cells are NULL. Digests and tokens
    /// for which there are no keys are redacted.
    pub fn plan(mask: Mask, kin: TypeKin, format: Format, keys: Option<Arc<LabelKeys>>) -> Self {
        let redacted = redacted(kin, format);
        let constant = |redacted: Option<Box<[u8]>>| redacted.map_or(Action::Null, Action::Constant);
        let action = match mask {
            Mask::Nullify | Mask::Refuse => Action::Null,
            Mask::Redact => constant(redacted),
            Mask::Partial { first, last } if kin.is_text() => {
                let padded = kin == TypeKin::PaddedText;
                Action::Partial { first: first.into(), last: last.into(), padded }
            }
            Mask::Partial { .. } => Action::Null,
            Mask::Generalize(how) => generalize(how, kin, format),
            Mask::Hash if !keyed::hashes(kin) => Action::Null,
            Mask::Token if !keyed::tokens(kin) => Action::Null,
            Mask::Hash | Mask::Token => match keys {
                Some(keys) => {
                    let keyed = Keyed { keys, kin, format, redacted };
                    if mask == Mask::Hash { Action::Hash(keyed) } else { Action::Token(keyed) }
                }
                None => constant(redacted),
            },
        };
        Self { action, nulls: Nulls::Keep }
    }

    /// For a column that no mask covers. `None`: nothing is looked for in such a type.
    pub fn tripwire(detectors: &Arc<[Detector]>, kin: TypeKin, format: Format) -> Option<Self> {
        if detectors.is_empty() || !(kin.is_text() || matches!(kin, TypeKin::Json | TypeKin::Jsonb)) {
            return None;
        }
        let redacted = redacted(kin, format)?;
        let action = Action::Detect { detectors: Arc::clone(detectors), redacted };
        Some(Self { action, nulls: Nulls::Keep })
    }

    /// Whether it keeps most cells, and the column is no sealed one.
    pub fn is_tripwire(&self) -> bool {
        matches!(self.action, Action::Detect { .. })
    }

    #[must_use]
    pub fn with_nulls(self, nulls: Nulls) -> Self {
        Self { nulls, ..self }
    }

    /// Whether the replacement of a value of so many bytes depends on the value.
    pub fn looks_at(&self, bytes: usize) -> bool {
        !self.is_constant() && bytes <= SEEN_BYTES_MAX
    }

    /// Whether every value gets the same replacement.
    pub fn is_constant(&self) -> bool {
        match self.action {
            Action::Null | Action::Constant(_) => true,
            Action::Partial { .. }
            | Action::Hash(_)
            | Action::Token(_)
            | Action::Date { .. }
            | Action::Number { .. }
            | Action::Network { .. }
            | Action::Detect { .. } => false,
        }
    }

    /// The replacement of a value that was not looked at and is not NULL.
    pub fn apply_unseen(&self, out: &mut Vec<u8>) -> CellAction {
        let bytes = match &self.action {
            Action::Null | Action::Date { .. } | Action::Number { .. } | Action::Network { .. } => {
                return CellAction::Null;
            }
            Action::Detect { .. } => return CellAction::Keep,
            Action::Constant(bytes) => bytes.as_ref(),
            Action::Hash(keyed) | Action::Token(keyed) => match &keyed.redacted {
                Some(bytes) => bytes,
                None => return CellAction::Null,
            },
            Action::Partial { .. } => REDACTED.as_bytes(),
        };
        out.extend_from_slice(bytes);
        CellAction::Replaced
    }

    /// Writes the replacement into `out`, which the caller hands over empty, unless the cell becomes NULL.
    pub fn apply(&self, value: Option<&[u8]>, out: &mut Vec<u8>) -> CellAction {
        let Some(value) = value else { return self.apply_null(out) };
        if !self.looks_at(value.len()) {
            return self.apply_unseen(out);
        }
        let written = match &self.action {
            Action::Null | Action::Constant(_) => return self.apply_unseen(out),
            Action::Partial { first, last, padded } => {
                let Ok(text) = std::str::from_utf8(value) else { return self.apply_unseen(out) };
                partial::partial(text, *first, *last, *padded, out);
                Some(())
            }
            Action::Hash(keyed) | Action::Token(keyed) => {
                let mut decoded = Vec::new();
                let Some(value) = keyed::canonical(keyed.kin, keyed.format, value, &mut decoded) else {
                    return self.apply_unseen(out);
                };
                return self.apply_keyed(Input::Value(value), out);
            }
            Action::Date { how, kin, format } => date::generalize(*kin, how.to, *format, value, out),
            Action::Number { bucket, kin, format } => number::generalize(*kin, *bucket, *format, value, out),
            Action::Network { how, format } => network::generalize(*how, *format, value, out),
            Action::Detect { detectors, redacted } => {
                if !std::str::from_utf8(value).is_ok_and(|text| detect::finds(detectors, text)) {
                    return CellAction::Keep;
                }
                out.extend_from_slice(redacted);
                Some(())
            }
        };
        match written {
            Some(()) => CellAction::Replaced,
            None => {
                out.clear();
                CellAction::Null
            }
        }
    }

    fn apply_null(&self, out: &mut Vec<u8>) -> CellAction {
        match (self.nulls, &self.action) {
            (Nulls::Keep, _) => CellAction::Null,
            (Nulls::Hide, Action::Hash(_) | Action::Token(_)) => self.apply_keyed(Input::Null, out),
            (
                Nulls::Hide,
                Action::Null
                | Action::Constant(_)
                | Action::Partial { .. }
                | Action::Date { .. }
                | Action::Number { .. }
                | Action::Network { .. }
                | Action::Detect { .. },
            ) => self.apply_unseen(out),
        }
    }

    fn apply_keyed(&self, input: Input<'_>, out: &mut Vec<u8>) -> CellAction {
        match &self.action {
            Action::Hash(keyed) => keyed::write_digest(&keyed.keys, keyed.kin, keyed.format, input, out),
            Action::Token(keyed) => {
                if !keyed::write_token(&keyed.keys, keyed.kin, keyed.format, input, out) {
                    return self.apply_unseen(out);
                }
            }
            Action::Null
            | Action::Constant(_)
            | Action::Partial { .. }
            | Action::Date { .. }
            | Action::Number { .. }
            | Action::Network { .. }
            | Action::Detect { .. } => return self.apply_unseen(out),
        }
        CellAction::Replaced
    }
}

/// What this gateway put in the place of a value, on its way back to be written or compared: the value it stood for
/// would be lost. A hash looks like any other text.
pub fn stands_for_a_value(text: &str) -> bool {
    text == REDACTED || text == REDACTED_JSON || keyed::is_token(text)
}

/// `None`: the type has no place for the constant.
fn redacted(kin: TypeKin, format: Format) -> Option<Box<[u8]>> {
    let bytes = match (kin, format) {
        // Text and json are the same bytes in both formats.
        (TypeKin::Text | TypeKin::Name | TypeKin::PaddedText, _) | (TypeKin::Bytea, Format::Binary) => {
            REDACTED.as_bytes().to_vec()
        }
        (TypeKin::Json, _) | (TypeKin::Jsonb, Format::Text) => REDACTED_JSON.as_bytes().to_vec(),
        (TypeKin::Jsonb, Format::Binary) => [&[JSONB_VERSION], REDACTED_JSON.as_bytes()].concat(),
        (TypeKin::Bytea, Format::Text) => {
            let mut text = Vec::new();
            bytea::write(REDACTED.as_bytes(), &mut text);
            text
        }
        (
            TypeKin::Uuid
            | TypeKin::Date
            | TypeKin::Timestamp
            | TypeKin::Timestamptz
            | TypeKin::Int2
            | TypeKin::Int4
            | TypeKin::Int8
            | TypeKin::Float4
            | TypeKin::Float8
            | TypeKin::Numeric
            | TypeKin::Inet
            | TypeKin::Cidr
            | TypeKin::Other,
            _,
        ) => return None,
    };
    Some(bytes.into_boxed_slice())
}

fn generalize(how: Generalize, kin: TypeKin, format: Format) -> Action {
    let date = |kin| Action::Date { how, kin, format };
    let number = |kin| how.bucket.map_or(Action::Null, |bucket| Action::Number { bucket, kin, format });
    match kin {
        TypeKin::Date => date(DateKin::Date),
        TypeKin::Timestamp => date(DateKin::Timestamp),
        TypeKin::Timestamptz => date(DateKin::Timestamptz),
        TypeKin::Int2 => number(NumberKin::Int2),
        TypeKin::Int4 => number(NumberKin::Int4),
        TypeKin::Int8 => number(NumberKin::Int8),
        TypeKin::Float4 => number(NumberKin::Float4),
        TypeKin::Float8 => number(NumberKin::Float8),
        TypeKin::Numeric => number(NumberKin::Numeric),
        TypeKin::Inet | TypeKin::Cidr => Action::Network { how, format },
        TypeKin::Text
        | TypeKin::Name
        | TypeKin::PaddedText
        | TypeKin::Json
        | TypeKin::Jsonb
        | TypeKin::Bytea
        | TypeKin::Uuid
        | TypeKin::Other => Action::Null,
    }
}

#[cfg(test)]
mod tests;
