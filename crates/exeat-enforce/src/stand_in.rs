//! What the gateway put in the place of values, coming back among what a client writes: the value it stood for would be
//! lost. A guard against accidents, found by its bytes wherever they stand, in literals, parameters and COPY data; whoever
//! wants to destroy what he may write needs no such text. A hash looks like any other text, and is not found. A token is
//! never turned back into its value: that would change what the client sent, which goes to a database as it came.

use exeat_wire::Bind;

use crate::evaluate::{Permit, SessionFacts};
use crate::mask::REDACTED;
use crate::mask::keyed::{TOKEN_LETTERS_MIN, TOKEN_PREFIX};
use crate::refusal::{Object, Refusal, RefusalCode};

/// The longest of what is looked for.
const LETTERS_MAX: usize = if REDACTED.len() > TOKEN_PREFIX.len() + TOKEN_LETTERS_MIN {
    REDACTED.len()
} else {
    TOKEN_PREFIX.len() + TOKEN_LETTERS_MIN
};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    Redacted,
    Token,
}

impl StandIn {
    /// The first of them among these bytes.
    pub fn among(bytes: &[u8]) -> Option<Self> {
        bytes.iter().enumerate().find_map(|(at, byte)| {
            let rest = || bytes.get(at..).unwrap_or_default();
            match byte {
                b'[' => rest().starts_with(REDACTED.as_bytes()).then_some(Self::Redacted),
                b'e' => begins_token(rest()).then_some(Self::Token),
                _ => None,
            }
        })
    }

    fn named(self) -> &'static str {
        match self {
            Self::Redacted => REDACTED,
            Self::Token => "a token (ext_…)",
        }
    }
}

/// The prefix, the version in the first eight bits, and as many letters as the shortest has.
fn begins_token(bytes: &[u8]) -> bool {
    let Some(letters) = bytes.strip_prefix(TOKEN_PREFIX.as_bytes()).and_then(|rest| rest.get(..TOKEN_LETTERS_MIN))
    else {
        return false;
    };
    matches!(letters, [b'A', b'Q'..=b'Z' | b'a'..=b'f', ..])
        && letters.iter().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_'))
}

/// Looks through data that comes in pieces.
#[derive(Debug, Default)]
pub struct StandIns {
    /// The end of the piece before, which may be the beginning of one.
    tail: Vec<u8>,
}

impl StandIns {
    pub fn are_in(&mut self, piece: &[u8]) -> Option<StandIn> {
        let (head, _) = piece.split_at_checked(LETTERS_MAX).unwrap_or((piece, &[]));
        self.tail.extend_from_slice(head);
        if let Some(found) = StandIn::among(&self.tail).or_else(|| StandIn::among(piece)) {
            return Some(found);
        }
        let last = piece.len().checked_sub(LETTERS_MAX).and_then(|at| piece.get(at..));
        if let Some(last) = last {
            self.tail.clear();
            self.tail.extend_from_slice(last);
        }
        let surplus = self.tail.len().saturating_sub(LETTERS_MAX);
        self.tail.drain(..surplus);
        None
    }
}

/// A parameter with which a statement of this permit would write one.
pub fn in_parameters(target: &str, permit: &Permit, bind: &Bind) -> Option<Refusal> {
    if !permit.plans.iter().any(|plan| plan.writes_values) {
        return None;
    }
    let brought = bind.parameters.iter().zip(1_usize..);
    let mut brought = brought.filter_map(|(value, number)| Some((StandIn::among(value.as_deref()?)?, number)));
    brought.next().map(|(found, number)| refusal(target, &format!("${number}"), found))
}

/// COPY data that holds one.
pub fn in_copy_data(target: &str, found: StandIn) -> Refusal {
    refusal(target, "the data of this COPY", found)
}

pub(crate) fn in_text(facts: &SessionFacts, text: &str) -> Option<Refusal> {
    StandIn::among(text.as_bytes()).map(|found| refusal(&facts.target, "this statement", found))
}

fn refusal(target: &str, place: &str, found: StandIn) -> Refusal {
    let found = found.named();
    Refusal::new(
        RefusalCode::MaskedColumnInWrite,
        format!(
            "{place} holds {found}, which stands for a value you were not shown; writing it would destroy that value"
        ),
    )
    .object(Object::at(target, None))
    .suggestion("leave the column out of what you write, or write a value of your own; the gateway turns nothing back")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::keyed::is_token;

    const TOKEN: &str = "ext_AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn found_wherever_it_stands() {
        assert!(is_token(TOKEN));
        for text in [TOKEN, REDACTED] {
            for around in
                [text.to_owned(), format!("1\t{text}\n"), format!("{{\"a\": [\"{text}\"]}}"), format!("x{text}x")]
            {
                assert!(StandIn::among(around.as_bytes()).is_some(), "{around}");
            }
            assert_eq!(StandIn::among(&text.as_bytes()[..text.len().min(LETTERS_MAX) - 1]), None);
        }
        for other in ["", "[redacted]", "ext_", "next_AQAA", "ext_BQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "external"]
        {
            assert_eq!(StandIn::among(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn found_however_the_data_is_cut() {
        for text in [TOKEN, REDACTED] {
            let data = format!("before {text} behind").into_bytes();
            for first in 0..data.len() {
                for second in first..data.len() {
                    let mut looking = StandIns::default();
                    let pieces = [&data[..first], &data[first..second], &data[second..]];
                    assert!(pieces.into_iter().any(|piece| looking.are_in(piece).is_some()), "{first} {second}");
                }
            }
            let mut looking = StandIns::default();
            assert!(data.chunks(1).any(|piece| looking.are_in(piece).is_some()));
            let mut looking = StandIns::default();
            assert!(!data[..7].chunks(1).chain([&data[8..]]).any(|piece| looking.are_in(piece).is_some()));
        }
    }
}
