//! Names that a principal is to take for names of nothing: relations and columns that policy hides. The walk does not
//! find them, so that a statement on one is unresolved like any that names what does not exist. What the server says of
//! such a name is then asked with another in its place, one that is nowhere: only so the answer is the server's own,
//! with its fields, its position and its language, without the server ever seeing the hidden name from this session.
//! Never executed, and never sent in place of a client's message.

use std::collections::{BTreeSet, HashSet};

use pg_query::protobuf::{KeywordKind, ScanToken, Token};

use crate::catalog::{CatalogSnapshot, ColumnId, Oid, Relation};

/// The server cuts longer names, and says so.
const NAME_BYTES_MAX: usize = 63;

/// Letters of a name in the place of a hidden one; more would not make it rarer.
const LETTERS_MAX: usize = 12;

/// Names tried before giving up: the short ones may all be taken.
const TRIES_MAX: usize = 2_000;

/// Marks the names of hidden columns within the walk: no identifier holds a NUL.
pub(crate) const MARK: char = '\0';

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hidden {
    relations: BTreeSet<Oid>,
    columns: BTreeSet<ColumnId>,
    /// Schema and name of each relation.
    relation_names: BTreeSet<(String, String)>,
    column_names: BTreeSet<String>,
}

/// How to ask the server about a statement that names what is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asking {
    /// With its own text: no hidden name is meant.
    AsItIs,
    Disguised(Disguised),
    /// Not at all: the name is hidden, and cannot be taken out of the text.
    Never,
}

/// A text in which no hidden name stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disguised {
    pub sql: String,
    /// What stands in it.
    name: String,
    /// For this.
    hidden: String,
}

impl Hidden {
    pub fn new(snapshot: &CatalogSnapshot, relations: BTreeSet<Oid>, columns: BTreeSet<ColumnId>) -> Self {
        let named = |relation: &Relation| (relation.schema_name.clone(), relation.name.clone());
        let relation_names = relations.iter().filter_map(|oid| snapshot.relation(*oid)).map(named).collect();
        let column_names = columns.iter().filter_map(|id| snapshot.column_name(*id)).map(str::to_owned).collect();
        Self { relations, columns, relation_names, column_names }
    }

    pub fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.columns.is_empty()
    }

    pub fn relation(&self, oid: Oid) -> bool {
        self.relations.contains(&oid)
    }

    pub fn column(&self, id: ColumnId) -> bool {
        self.columns.contains(&id)
    }

    /// The statement `sql`, in which the analysis did not find `unresolved`. Where no hidden name could be taken out of
    /// such a text, no name is asked about in it: else whether one is asked about would tell which are hidden.
    pub fn asking(&self, sql: &str, unresolved: &str, snapshot: &CatalogSnapshot) -> Asking {
        // A quoted name may hold points.
        let behind = unresolved.match_indices('.').filter_map(|(at, _)| unresolved.get(at + 1..));
        let names: Vec<&str> = std::iter::once(unresolved).chain(behind).collect();
        match names.iter().find(|name| self.names(name)) {
            Some(name) => match self.disguised(sql, name, snapshot) {
                Replaced::With(disguised) => Asking::Disguised(disguised),
                Replaced::Absent | Replaced::Impossible => Asking::Never,
            },
            None => {
                let impossible = |name: &&str| replaced(sql, name, snapshot, |_, _| true) == Replaced::Impossible;
                if names.iter().any(impossible) { Asking::Never } else { Asking::AsItIs }
            }
        }
    }

    fn names(&self, name: &str) -> bool {
        self.column_names.contains(name) || self.relation_names.iter().any(|(_, known)| known == name)
    }

    fn disguised(&self, sql: &str, name: &str, snapshot: &CatalogSnapshot) -> Replaced {
        let of_column = self.column_names.contains(name);
        replaced(sql, name, snapshot, |words, at| of_column || self.may_be_relation(name, qualifier(words, at)))
    }

    /// Behind a qualifier it is the hidden relation only if that is its schema: the same name in another schema stays.
    fn may_be_relation(&self, name: &str, qualifier: Option<&str>) -> bool {
        qualifier.is_none_or(|schema| self.relation_names.contains(&(schema.to_owned(), name.to_owned())))
    }
}

/// What becomes of a text in which another name is to stand for one.
#[derive(Debug, PartialEq)]
enum Replaced {
    With(Disguised),
    /// It does not stand there.
    Absent,
    /// It may stand there in a way that is not read here, or there is no other name.
    Impossible,
}

/// `is_it`: whether the word at this place, which is written so, means the name.
fn replaced(sql: &str, name: &str, snapshot: &CatalogSnapshot, is_it: impl Fn(&[Word<'_>], usize) -> bool) -> Replaced {
    let tokens = pg_query::scan_tokens(sql).unwrap_or_default();
    let words: Option<Vec<Word<'_>>> = tokens.iter().map(|token| word(sql, token)).collect();
    let Some(words) = words.filter(|words| !words.is_empty()) else { return Replaced::Impossible };
    let stands =
        |at: &usize| words.get(*at).is_some_and(|word| word.name.as_deref() == Some(name)) && is_it(&words, *at);
    let places: Vec<usize> = (0..words.len()).filter(stands).collect();
    let Some(room) = places.iter().filter_map(|at| words.get(*at)).map(Word::letters).min() else {
        return Replaced::Absent;
    };
    let taken: HashSet<&str> = words.iter().filter_map(|word| word.name.as_deref()).collect();
    let written = nowhere(room.min(LETTERS_MAX), snapshot, &taken).and_then(|other| {
        let sql = rewritten(sql, places.iter().filter_map(|at| words.get(*at)), &other)?;
        Some(Disguised { sql, name: other, hidden: name.to_owned() })
    });
    written.map_or(Replaced::Impossible, Replaced::With)
}

fn rewritten<'w>(sql: &str, places: impl Iterator<Item = &'w Word<'w>>, other: &str) -> Option<String> {
    let mut out = String::with_capacity(sql.len());
    let mut done = 0;
    for word in places {
        out.push_str(sql.get(done..word.start)?);
        // As many characters as before, so that positions stay.
        out.push_str(other);
        out.extend(std::iter::repeat_n(' ', word.letters().checked_sub(other.chars().count())?));
        done = word.end;
    }
    out.push_str(sql.get(done..)?);
    Some(out)
}

impl Disguised {
    /// What the server said, about the name that the client sent.
    pub fn undo(&self, said: &str) -> String {
        let mut out = String::with_capacity(said.len());
        let mut rest = said;
        while let Some((before, after)) = rest.split_once(self.name.as_str()) {
            let inside = |character: char| character.is_alphanumeric() || character == '_' || character == '$';
            let whole = !before.ends_with(inside) && !after.starts_with(inside);
            out.push_str(before);
            out.push_str(if whole { &self.hidden } else { &self.name });
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

/// One token and, where it may be a name, which.
struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    name: Option<String>,
}

impl Word<'_> {
    /// How long a name without quotes may be in its place.
    fn letters(&self) -> usize {
        self.text.chars().count()
    }
}

/// `None`: a name written in a way that is not read here.
fn word<'a>(sql: &'a str, token: &ScanToken) -> Option<Word<'a>> {
    let (start, end) = (usize::try_from(token.start).ok()?, usize::try_from(token.end).ok()?);
    let text = sql.get(start..end)?;
    let folded = || Some(text.chars().map(|character| character.to_ascii_lowercase()).collect());
    let name = match Token::try_from(token.token) {
        Ok(Token::Ident) => match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(quoted) => Some(quoted.replace("\"\"", "\"")),
            None => folded(),
        },
        Ok(Token::Uident) => Some(unescaped(text)?),
        Ok(Token::Uescape) => return None,
        Ok(_) if token.keyword_kind == KeywordKind::NoKeyword as i32 => None,
        Ok(_) => folded(),
        Err(_) => return None,
    };
    let name = name.map(|name: String| cut(&name).to_owned());
    Some(Word { text, start, end, name })
}

/// As the server cuts names.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

/// `U&"d\0061t\+000061"`.
fn unescaped(text: &str) -> Option<String> {
    let inner = text.get(2..)?.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\"");
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner.as_str();
    while let Some((before, escaped)) = rest.split_once('\\') {
        out.push_str(before);
        if let Some(behind) = escaped.strip_prefix('\\') {
            out.push('\\');
            rest = behind;
            continue;
        }
        let (digits, width) = match escaped.strip_prefix('+') {
            Some(digits) => (digits, 6),
            None => (escaped, 4),
        };
        out.push(char::from_u32(u32::from_str_radix(digits.get(..width)?, 16).ok()?)?);
        rest = digits.get(width..)?;
    }
    out.push_str(rest);
    Some(out)
}

/// The name before the point before it.
fn qualifier<'a>(words: &'a [Word<'_>], at: usize) -> Option<&'a str> {
    let before = |steps: usize| words.get(at.checked_sub(steps)?);
    before(1).filter(|point| point.text == ".").and_then(|_| before(2)?.name.as_deref())
}

/// A name of so many letters that nothing has: not in the catalog, not in the statement, and no keyword.
fn nowhere(letters: usize, snapshot: &CatalogSnapshot, taken: &HashSet<&str>) -> Option<String> {
    (0..TRIES_MAX).map(|number| spelled(number, letters)).find(|name| {
        let keyword = || {
            let tokens = pg_query::scan_tokens(name).unwrap_or_default();
            tokens.iter().any(|token| token.keyword_kind != KeywordKind::NoKeyword as i32) || tokens.len() != 1
        };
        !taken.contains(name.as_str()) && !snapshot.has_name(name) && !keyword()
    })
}

fn spelled(mut number: usize, letters: usize) -> String {
    const LETTERS: &[u8] = b"qzxjkvwybfghpmcdulnrotisea";
    let mut name = String::with_capacity(letters);
    for _ in 0..letters {
        let letter = LETTERS.get(number % LETTERS.len()).copied().unwrap_or(b'q');
        name.insert(0, char::from(letter));
        number /= LETTERS.len();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden() -> Hidden {
        Hidden {
            relation_names: BTreeSet::from([("hr".to_owned(), "salaries".to_owned())]),
            column_names: BTreeSet::from(["ssn".to_owned()]),
            ..Hidden::default()
        }
    }

    fn disguised(sql: &str, name: &str) -> Option<String> {
        match hidden().asking(sql, name, &CatalogSnapshot::default()) {
            Asking::Disguised(found) => Some(found.sql),
            Asking::AsItIs | Asking::Never => None,
        }
    }

    #[test]
    fn every_way_of_writing_the_name_is_found_and_positions_stay() {
        for (sql, name, expected) in [
            ("select * from hr.salaries", "hr.salaries", "select * from hr.qqqqqqqq"),
            ("select * from HR . SALARIES x", "hr.salaries", "select * from HR . qqqqqqqq x"),
            ("select * from \"salaries\" , salaries", "salaries", "select * from qqqqqqqq   , qqqqqqqq"),
            (r#"select U&"\0073sn" from t"#, "ssn", "select qqqqqqqqqqq from t"),
            ("select t.ssn, 'ssn', $1 -- ssn\nfrom t", "t.ssn", "select t.qqq, 'ssn', $1 -- ssn\nfrom t"),
            ("select * from public.salaries, hr.salaries", "hr.salaries", "select * from public.salaries, hr.qqqqqqqq"),
            ("select é, ssn from t", "ssn", "select é, qqq from t"),
        ] {
            let found = disguised(sql, name).unwrap();
            assert_eq!(found, expected);
            assert_eq!(found.chars().count(), sql.chars().count());
        }
    }

    #[test]
    fn what_is_not_hidden_is_not_touched() {
        let asking = |sql, name| hidden().asking(sql, name, &CatalogSnapshot::default());
        assert_eq!(asking("select * from nothing", "nothing"), Asking::AsItIs);
        assert_eq!(asking("select ssn uescape '!'", "ssn"), Asking::Never);
        assert_eq!(asking("select 1 from public.salaries", "salaries"), Asking::Never);
    }

    #[test]
    fn where_a_hidden_name_could_not_be_asked_about_no_other_is() {
        let asking = |sql: &str, name| hidden().asking(sql, name, &CatalogSnapshot::default());
        for name in ["ssn", "zip"] {
            assert_eq!(asking(&format!("select U&\"!0041\" uescape '!', {name} from t"), name), Asking::Never);
        }
        // Every name of one letter is taken.
        let letters: Vec<String> = ('a'..='z').map(|letter| format!("1 as {letter}")).collect();
        let sql = format!("select {} from t order by x", letters.join(", "));
        assert_eq!(asking(&sql, "x"), Asking::Never);
        assert_eq!(asking("select a === b from t", "==="), Asking::AsItIs);
    }

    #[test]
    fn the_other_name_is_nobodys() {
        assert_eq!(disguised("select qqq, ssn from qqz", "ssn").unwrap(), "select qqq, qqx from qqz");
        let keyword = Hidden { column_names: BTreeSet::from(["x".to_owned()]), ..Hidden::default() };
        let Asking::Disguised(found) = keyword.asking("select x", "x", &CatalogSnapshot::default()) else { panic!() };
        assert_eq!(found.sql, "select q");
        let quoted = Hidden { column_names: BTreeSet::from(["a.b".to_owned()]), ..Hidden::default() };
        let Asking::Disguised(found) = quoted.asking("select t.\"a.b\"", "t.a.b", &CatalogSnapshot::default()) else {
            panic!()
        };
        assert_eq!(found.sql, "select t.qqqqq");
    }

    #[test]
    fn the_answer_speaks_of_the_clients_name() {
        let disguised = Disguised { sql: String::new(), name: "q".to_owned(), hidden: "ssn".to_owned() };
        assert_eq!(disguised.undo("column t.q does not exist, q"), "column t.ssn does not exist, ssn");
        assert_eq!(disguised.undo("quite q_1"), "quite q_1");
    }
}
