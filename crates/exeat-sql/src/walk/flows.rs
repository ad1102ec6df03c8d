//! Which stored columns flow into a value. Sets are shared and never changed: a value that is only passed on costs
//! nothing, and whoever unites two sets pays a step for each member.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::Flow;
use crate::catalog::ColumnId;

/// One column on its way into a value; `at` is where the statement last named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) column: ColumnId,
    pub(crate) how: Flow,
    pub(crate) at: i32,
}

/// INVARIANT: sorted by column, each column once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Flows(Option<Rc<[Stream]>>);

impl Flows {
    pub(crate) fn column(column: ColumnId, at: i32) -> Self {
        Self(Some(Rc::from([Stream { column, how: Flow::Bare, at }])))
    }

    pub(crate) fn list(&self) -> &[Stream] {
        self.0.as_deref().unwrap_or(&[])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    /// Every alternative is a stored value, unchanged.
    pub(crate) fn is_bare(&self) -> bool {
        !self.is_empty() && self.list().iter().all(|stream| stream.how == Flow::Bare)
    }

    /// The columns of both; what is changed on one way counts as changed.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let (Some(left), Some(right)) = (&self.0, &other.0) else {
            return if self.is_empty() { other.clone() } else { self.clone() };
        };
        if Rc::ptr_eq(left, right) {
            return self.clone();
        }
        let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
        let mut both = Vec::with_capacity(left.len() + right.len());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(l), Some(r)) => match l.column.cmp(&r.column) {
                    Ordering::Less => left.next().copied(),
                    Ordering::Greater => right.next().copied(),
                    Ordering::Equal => {
                        let how = l.how.max(r.how);
                        right.next();
                        left.next().map(|stream| Stream { how, ..*stream })
                    }
                },
                (Some(_), None) => left.next().copied(),
                (None, _) => right.next().copied(),
            };
            match next {
                Some(stream) => both.push(stream),
                None => return Self(Some(Rc::from(both))),
            }
        }
    }

    /// The same columns, changed on their way. What only says whether they are NULL says no more by that.
    pub(crate) fn total(&self) -> Self {
        if self.list().iter().all(|stream| stream.how != Flow::Bare) {
            return self.clone();
        }
        let changed = |how| if how == Flow::Bare { Flow::Total } else { how };
        Self(Some(self.list().iter().map(|stream| Stream { how: changed(stream.how), ..*stream }).collect()))
    }

    /// Of the same columns nothing but whether they are NULL. What is changed on its way may be NULL for other reasons.
    pub(crate) fn presence(&self) -> Self {
        let left = |how| if how == Flow::Bare { Flow::Presence } else { how };
        Self(
            self.0.as_ref().map(|list| list.iter().map(|stream| Stream { how: left(stream.how), ..*stream }).collect()),
        )
    }

    /// Every column at one place: that of the call which brought them.
    pub(crate) fn placed(&self, at: i32) -> Self {
        if self.is_empty() {
            return self.clone();
        }
        Self(Some(self.list().iter().map(|stream| Stream { at, ..*stream }).collect()))
    }

    /// One column named anew: refusals point at the place nearest to its use.
    pub(crate) fn named_at(&self, at: i32) -> Self {
        match self.list() {
            [stream] => Self(Some(Rc::from([Stream { at, ..*stream }]))),
            _ => self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Oid;

    fn column(attribute: i16) -> Flows {
        Flows::column(ColumnId { relation: Oid(1), attribute }, i32::from(attribute))
    }

    fn list(flows: &Flows) -> Vec<(i16, Flow)> {
        flows.list().iter().map(|stream| (stream.column.attribute, stream.how)).collect()
    }

    #[test]
    fn a_union_is_sorted_and_what_is_changed_once_stays_changed() {
        let both = column(3).union(&column(1)).union(&column(2).total()).union(&column(1).total());
        assert_eq!(list(&both), [(1, Flow::Total), (2, Flow::Total), (3, Flow::Bare)]);
        assert!(!both.is_bare() && column(1).union(&column(2)).is_bare());
        assert_eq!(both.union(&Flows::default()), both);
        assert_eq!(Flows::default().union(&both), both);
    }

    #[test]
    fn presence_stays_what_it_is_unless_the_value_comes_beside_it() {
        let counted = column(1).presence();
        assert_eq!(list(&counted.total()), [(1, Flow::Presence)]);
        assert_eq!(list(&column(1).total().presence()), [(1, Flow::Total)], "NULL may be the answer to a comparison");
        assert_eq!(list(&counted.union(&column(1))), [(1, Flow::Bare)]);
        assert!(!counted.is_bare());
    }

    #[test]
    fn nothing_is_not_bare() {
        assert!(!Flows::default().is_bare() && Flows::default().total().is_empty());
    }

    #[test]
    fn only_a_single_column_moves_to_where_it_is_named_again() {
        assert_eq!(column(1).named_at(7).list()[0].at, 7);
        assert_eq!(column(1).union(&column(2)).named_at(7).list()[0].at, 1);
    }
}
