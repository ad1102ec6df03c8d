//! What the client hears of names that policy hides: the server's own answer to a name that is nowhere, which is asked
//! for with such a name. And of any name that is nowhere, no more than that: the server likes to suggest others.

use exeat_sql::{Asking, Disguised};
use exeat_wire::Fields;
use exeat_wire::fields::code;

use super::session::Session;

/// What the server says of tables, columns and types that do not exist. Their hints and details name what does.
const NO_SUCH_NAME: [&str; 3] = ["42P01", "42703", "42704"];

/// Fields that say nothing of other names: severity, code, message, positions, and where in the server's source.
const KEPT: &[u8] = b"SVCMPpqFLR";

impl Session {
    /// How the server may be asked about a statement that does not resolve. `name`: what it names, if it parses.
    pub(crate) fn asking(&self, statement: &str, name: Option<&str>) -> Asking {
        let hidden = &self.picture.scope.hidden;
        match name {
            Some(name) if !hidden.is_empty() => hidden.asking(statement, name, &self.picture.facts.snapshot),
            Some(_) | None => Asking::AsItIs,
        }
    }

    /// The server's answer as the client may hear it.
    pub(crate) fn told_of_names(&self, answer: Fields, disguised: Option<&Disguised>) -> Fields {
        if self.picture.scope.hidden.is_empty() {
            return answer;
        }
        let of_names = answer.sqlstate().is_some_and(|state| NO_SUCH_NAME.contains(&state.as_ref()));
        let answer = if of_names { answer.only(KEPT) } else { answer };
        let Some(disguised) = disguised else { return answer };
        [code::MESSAGE, code::DETAIL, code::HINT].into_iter().fold(answer, |answer, code| {
            let text = answer.get(code).map(|text| disguised.undo(&text));
            match text {
                Some(text) => answer.with(code, &text),
                None => answer,
            }
        })
    }
}
