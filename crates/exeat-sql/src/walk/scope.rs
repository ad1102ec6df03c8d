//! What names mean at one place of a statement: the range-table items in sight, level by level, as the server's
//! own namespace lists keep them. Only data and lookups inside one level; `column` walks the levels.

use std::collections::HashMap;
use std::rc::Rc;

use super::content::Held;
use super::flows::{Flows, Stream};
use crate::Origin;
use crate::catalog::{ColumnId, Kinds, Oid};
use crate::hidden::MARK;

/// What is known of a value on its way through a statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    /// What the server will announce it as.
    pub(crate) origin: Origin,
    /// The stored columns it is made from. What of them was compared, or went through something that may fail, is
    /// noted where it happened.
    pub(crate) flows: Flows,
    /// Its type, where the catalog or a cast fixes it.
    pub(crate) of: Option<Oid>,
    /// The literal NULL, which is no alternative to anything.
    pub(crate) null: bool,
    /// How many values its size may be the sum of: builders of builders could outgrow the server's limit.
    pub(crate) parts: u32,
    /// What it may be made of where its type is not known.
    pub(crate) kinds: Kinds,
}

/// Parts a built value may have before its size could make a statement fail.
pub(crate) const PARTS_MAX: u32 = 1_000;

impl Value {
    pub(crate) fn column(id: ColumnId, of: Option<Oid>, at: i32) -> Self {
        Self {
            origin: Origin::Column(id),
            flows: Flows::column(id, at),
            of,
            null: false,
            parts: 1,
            kinds: Kinds::default(),
        }
    }

    /// A constant, or what holds nothing of a stored column.
    pub(crate) fn computed() -> Self {
        Self { origin: Origin::None, flows: Flows::default(), of: None, null: false, parts: 1, kinds: Kinds::default() }
    }

    /// The same value under a name of its own: `at` is the place of that name.
    pub(crate) fn named_at(&self, at: i32) -> Self {
        Self { flows: self.flows.named_at(at), ..self.clone() }
    }

    /// All of it as one row.
    pub(crate) fn into_row(self) -> Self {
        Self { kinds: Kinds { rows: true, ..self.kinds }, ..self }
    }

    /// All of it as one array.
    pub(crate) fn into_list(self) -> Self {
        Self { kinds: Kinds { lists: true, ..self.kinds }, ..self }
    }

    /// A parameter, or what a function in FROM gives back: the text does not say of which type.
    pub(crate) fn of_some_type() -> Self {
        Self { kinds: Kinds { json: true, ..Kinds::default() }, ..Self::computed() }
    }
}

/// Named columns in order, with an index. A name that occurs twice is ambiguous to the server too.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Columns {
    list: Vec<(Rc<str>, Value)>,
    index: HashMap<Rc<str>, Option<usize>>,
}

/// Answer of a lookup by name.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<T> {
    One(T),
    Many,
    None,
}

impl Columns {
    pub(crate) fn new(list: Vec<(Rc<str>, Value)>) -> Self {
        let mut index = HashMap::with_capacity(list.len());
        for (place, (name, _)) in list.iter().enumerate() {
            index.entry(name.clone()).and_modify(|seen| *seen = None).or_insert(Some(place));
            // The server would find it, and look no further.
            if let Some(hidden) = name.strip_prefix(MARK) {
                index.insert(Rc::from(hidden), None);
            }
        }
        Self { list, index }
    }

    /// Is a column among them whose name stands for nothing here?
    pub(crate) fn hides(&self) -> bool {
        self.list.iter().any(|(name, _)| name.starts_with(MARK))
    }

    pub(crate) fn list(&self) -> &[(Rc<str>, Value)] {
        &self.list
    }

    pub(crate) fn find(&self, name: &str) -> Found<&Value> {
        match self.index.get(name) {
            None => Found::None,
            Some(None) => Found::Many,
            Some(Some(place)) => self.list.get(*place).map_or(Found::None, |(_, value)| Found::One(value)),
        }
    }

    /// The same columns, with nothing stored in those that `empty` says so of.
    pub(crate) fn without_flows(&self, empty: impl Fn(ColumnId) -> bool) -> Rc<Self> {
        let emptied = |value: &Value| match value.origin {
            Origin::Column(id) if empty(id) => Value { of: value.of, kinds: value.kinds, ..Value::computed() },
            Origin::Column(_) | Origin::None | Origin::Unknown => value.clone(),
        };
        Rc::new(Self::new(self.list.iter().map(|(name, value)| (name.clone(), emptied(value))).collect()))
    }

    /// Whether every column is made from the same stored ones.
    pub(crate) fn same_flows(&self, other: &Self) -> bool {
        let how = |stream: &Stream| (stream.column, stream.how);
        let flows = |columns: &Self| -> Vec<Vec<_>> {
            columns.list.iter().map(|(_, value)| value.flows.list().iter().map(how).collect()).collect()
        };
        flows(self) == flows(other)
    }

    /// The first columns take the names of an alias list; more names than columns is the server's error.
    pub(crate) fn renamed(self: &Rc<Self>, names: &[&str]) -> Option<Rc<Self>> {
        if names.is_empty() {
            return Some(self.clone());
        }
        if names.len() > self.list.len() {
            return None;
        }
        let mut list = self.list.clone();
        for ((name, _), new) in list.iter_mut().zip(names) {
            *name = Rc::from(*new);
        }
        Some(Rc::new(Self::new(list)))
    }
}

/// One range-table item as names see it.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// By which it can be qualified; `None` for a join or sub-select without alias.
    pub(crate) name: Option<Rc<str>>,
    /// A stored relation without alias: `schema.relation.column` finds it.
    pub(crate) unaliased: Option<Oid>,
    /// A relation or view, alias or not.
    pub(crate) relation: Option<Oid>,
    /// A stored relation, alias or not: it has system columns.
    pub(crate) stored: Option<Oid>,
    pub(crate) columns: Rc<Columns>,
    /// Seen by unqualified column names.
    pub(crate) columns_visible: bool,
    /// Seen from inside LATERAL only, and whether the server lets it be used there.
    pub(crate) lateral_only: bool,
    pub(crate) lateral_ok: bool,
    /// A function: its real columns depend on the type it returns.
    pub(crate) function: bool,
}

impl Item {
    pub(crate) fn new(name: Option<&str>, columns: Rc<Columns>) -> Self {
        Self {
            name: name.map(Rc::from),
            unaliased: None,
            relation: None,
            stored: None,
            columns,
            columns_visible: true,
            lateral_only: false,
            lateral_ok: true,
            function: false,
        }
    }
}

/// A WITH query; `columns` is `None` while it may not be used yet.
#[derive(Debug, Clone)]
pub(crate) struct Cte {
    pub(crate) name: String,
    pub(crate) columns: Option<Rc<Columns>>,
    /// What its rows hold.
    pub(crate) content: Rc<Held>,
}

/// One query level.
#[derive(Debug, Default)]
pub(crate) struct Level {
    pub(crate) items: Vec<Item>,
    pub(crate) ctes: Vec<Cte>,
    /// What the view of the server's settings is called, each time FROM itself names it.
    pub(crate) settings: Vec<Rc<str>>,
    /// A LATERAL item of this level's FROM is being read.
    pub(crate) lateral_active: bool,
}
