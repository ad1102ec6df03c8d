//! Joins: what ON sees, how USING and NATURAL merge columns, and what stays in sight afterwards.

use std::rc::Rc;

use pg_query::protobuf::{JoinExpr, JoinType};

use super::from::{alias_parts, named_part, renamed};
use super::scope::{Columns, Found, Item, Value};
use super::{NOWHERE, Walk, Walker, construct, strings, unresolved};
use crate::catalog::{ColumnId, Oid, Operands};
use crate::{Origin, Use};

/// The kinds the grammar can produce.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
}

type Named = (Rc<str>, Value);

impl Walker<'_> {
    pub(crate) fn join(&mut self, join: &JoinExpr) -> Walk<Vec<Item>> {
        let JoinExpr {
            jointype,
            is_natural,
            larg: Some(larg),
            rarg: Some(rarg),
            using_clause,
            join_using_alias,
            quals,
            alias,
            rtindex: _,
        } = join
        else {
            return construct("a join of this form", NOWHERE);
        };
        let kind = match JoinType::try_from(*jointype) {
            Ok(JoinType::JoinInner) => Kind::Inner,
            Ok(JoinType::JoinLeft) => Kind::Left,
            Ok(JoinType::JoinRight) => Kind::Right,
            Ok(JoinType::JoinFull) => Kind::Full,
            _ => return construct("a join of this kind", NOWHERE),
        };
        let named_before = self.relations_named();
        let left = self.read_item(larg)?;
        let (mut items, right) = self.with_left_in_sight(left, kind, |walker| walker.read_item(rarg))?;
        let (Some(l), Some(r)) = (items.last().cloned(), right.last().cloned()) else {
            return construct("a join of this form", NOWHERE);
        };
        items.extend(right);
        let using = match (is_natural, strings(using_clause)) {
            (true, _) if l.function || r.function => return construct("NATURAL JOIN with a function", NOWHERE),
            (true, _) if l.columns.hides() || r.columns.hides() => {
                return construct("NATURAL JOIN of what is not known whole", NOWHERE);
            }
            (true, _) => common(&l.columns, &r.columns),
            (false, Some(names)) => names.into_iter().map(Rc::from).collect(),
            (false, None) => return construct("a USING list of this form", NOWHERE),
        };
        let (merged, columns) = self.merge_columns(&using, &l.columns, &r.columns, kind)?;
        if quals.is_some() || !using.is_empty() {
            self.tied_since(named_before);
        }
        if let Some(quals) = quals {
            items = self.among(items, |walker| walker.expr(quals, Use::Predicate))?;
        }
        let function = l.function || r.function;
        let (using_alias, using_names) = alias_parts(join_using_alias)?;
        if !using_names.is_empty() {
            return construct("a USING alias with columns", NOWHERE);
        }
        items.extend(using_alias.map(|name| named_part(name, Rc::new(Columns::new(merged)))));
        let (alias, names) = alias_parts(alias)?;
        let mut whole = renamed(Item::new(alias, Rc::new(Columns::new(columns))), &names, NOWHERE)?;
        whole.function = function;
        // With an alias the join hides its parts; without, they stay in sight by name only.
        if alias.is_some() {
            items.clear();
        }
        items.iter_mut().for_each(|item| item.columns_visible = false);
        items.push(whole);
        Ok(items)
    }

    /// Reads the right side; LATERAL inside it may look at the left side of an inner or left join.
    fn with_left_in_sight<T>(
        &mut self,
        mut left: Vec<Item>,
        kind: Kind,
        walk: impl FnOnce(&mut Self) -> Walk<T>,
    ) -> Walk<(Vec<Item>, T)> {
        for item in &mut left {
            (item.lateral_only, item.lateral_ok) = (true, matches!(kind, Kind::Inner | Kind::Left));
        }
        self.spend(left.len())?;
        let outer = self.items_mut().len();
        self.items_mut().append(&mut left);
        let outcome = walk(self)?;
        let mut left = self.items_mut().split_off(outer);
        for item in &mut left {
            (item.lateral_only, item.lateral_ok) = (false, true);
        }
        Ok((left, outcome))
    }

    /// Runs with these items, and no others of this level, in sight: the scope of ON.
    pub(crate) fn among(&mut self, items: Vec<Item>, walk: impl FnOnce(&mut Self) -> Walk<()>) -> Walk<Vec<Item>> {
        let outside = std::mem::replace(self.items_mut(), items);
        walk(self)?;
        Ok(std::mem::replace(self.items_mut(), outside))
    }

    /// Merged columns first, then the rest of both sides, as the server orders them.
    fn merge_columns(
        &mut self,
        using: &[Rc<str>],
        l: &Columns,
        r: &Columns,
        kind: Kind,
    ) -> Walk<(Vec<Named>, Vec<Named>)> {
        let mut merged = Vec::with_capacity(using.len());
        if !using.is_empty() {
            self.operator(&["="], Operands::default(), NOWHERE)?;
        }
        for name in using {
            let (Found::One(left), Found::One(right)) = (l.find(name), r.find(name)) else {
                return unresolved(name, NOWHERE);
            };
            self.consume(left, Use::Key, NOWHERE)?;
            self.consume(right, Use::Key, NOWHERE)?;
            merged.push((name.clone(), self.merged_value(left, right, kind)?));
        }
        self.spend((l.list().len() + r.list().len()).saturating_mul(using.len() + 1))?;
        let rest = |columns: &Columns| {
            let unmerged = columns.list().iter().filter(|(name, _)| !using.contains(name));
            unmerged.cloned().collect::<Vec<_>>()
        };
        let mut columns = merged.clone();
        columns.extend(rest(l));
        columns.extend(rest(r));
        Ok((merged, columns))
    }

    /// What the server makes of a merged column: one of the two sides if that needs no coercion, else a computed
    /// value; of unknown origin where we do not know which type it will choose.
    fn merged_value(&mut self, left: &Value, right: &Value, kind: Kind) -> Walk<Value> {
        let either = Value { origin: Origin::Unknown, ..self.alternatives([left, right])? };
        let computed = Value { origin: Origin::None, ..either.clone() };
        if kind == Kind::Full {
            return Ok(computed);
        }
        let (l, r) = match (left.origin, right.origin) {
            (Origin::Column(l), Origin::Column(r)) => (l, r),
            (Origin::None, Origin::None) => return Ok(computed),
            _ => return Ok(either),
        };
        Ok(match (self.common_type(l, r), kind) {
            (Common::Same, Kind::Inner | Kind::Left) | (Common::Left, Kind::Inner | Kind::Left) => left.clone(),
            (Common::Same, Kind::Right) | (Common::Right, Kind::Inner | Kind::Right) => right.clone(),
            (Common::Neither, _) | (Common::Left, Kind::Right) | (Common::Right, Kind::Left) => computed,
            (Common::Unknown, _) | (_, Kind::Full) => either,
        })
    }

    /// Which side already is of the type both are brought to.
    fn common_type(&self, left: ColumnId, right: ColumnId) -> Common {
        let types = (self.snapshot.column(left).map(|c| c.type_oid), self.snapshot.column(right).map(|c| c.type_oid));
        let (Some(l), Some(r)) = types else { return Common::Unknown };
        if l == r {
            // Different length modifiers: both sides are relabelled.
            let same = self.snapshot.type_modifier(left) == self.snapshot.type_modifier(right);
            return if same { Common::Same } else { Common::Neither };
        }
        let width = |oid| INTEGERS.iter().position(|known| *known == oid);
        match (width(l), width(r)) {
            (Some(l), Some(r)) if l > r => Common::Left,
            (Some(_), Some(_)) => Common::Right,
            _ => Common::Unknown,
        }
    }
}

/// smallint, integer and bigint: the wider one is the common type of two of them.
const INTEGERS: [Oid; 3] = [Oid(21), Oid(23), Oid(20)];

enum Common {
    Same,
    Left,
    Right,
    Neither,
    Unknown,
}

/// NATURAL: names of the left side that the right side has too.
fn common(l: &Columns, r: &Columns) -> Vec<Rc<str>> {
    let shared = l.list().iter().filter(|(name, _)| !matches!(r.find(name), Found::None));
    shared.map(|(name, _)| name.clone()).collect()
}
