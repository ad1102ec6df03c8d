//! What sorts, groups and numbers: GROUP BY, ORDER BY, DISTINCT, windows, with the server's rules for names that
//! may be an output's or a column's, and for ordinals. A key that names an output uses that output's expression.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, CoercionForm, GroupingSet, GroupingSetKind, Node, RowExpr, SortBy, SortByDir, SortByNulls, WindowDef,
    a_const,
};

use super::select::Target;
use super::{NOWHERE, Walk, Walker, construct, inner, strings, unresolved};
use crate::Use;
use crate::catalog::Operands;

impl Walker<'_> {
    /// Sorting and grouping use the type's default operator class, which is not looked up by name.
    pub(crate) fn check_sorting(&self, at: i32) -> Walk<()> {
        if self.snapshot.has_hidden_opclass() {
            return construct("sorting or grouping with a user-defined operator class of a built-in type", at);
        }
        Ok(())
    }

    pub(crate) fn group_item(&mut self, node: &Node, targets: &[Target]) -> Walk<()> {
        self.deeper(|walker| match inner(node)? {
            NodeEnum::GroupingSet(GroupingSet { kind, content, location }) => match GroupingSetKind::try_from(*kind) {
                Ok(GroupingSetKind::Undefined) | Err(_) => construct("a grouping set of this kind", *location),
                Ok(_) => content.iter().try_for_each(|node| walker.group_item(node, targets)),
            },
            // (a, b) without ROW is a list of keys.
            NodeEnum::RowExpr(row) if row.row_format == CoercionForm::CoerceImplicitCast as i32 => {
                let RowExpr { xpr: _, args, row_typeid: _, row_format: _, colnames: _, location: _ } = row.as_ref();
                args.iter().try_for_each(|node| walker.group_item(node, targets))
            }
            _ => {
                walker.check_sorting(NOWHERE)?;
                if walker.ordinal(node, targets)? {
                    return Ok(());
                }
                // GROUP BY prefers a column of FROM to an output's name; ORDER BY does the opposite.
                if let Some((name, at)) = Self::single_name(node)
                    && walker.unqualified(name, true, at)?.is_none()
                    && walker.named_output(name, targets)?
                {
                    return Ok(());
                }
                walker.expr(node, Use::Key)
            }
        })
    }

    pub(crate) fn order_by(&mut self, sorts: &[Node], targets: &[Target]) -> Walk<()> {
        for sort in sorts {
            let node = self.sort_key(sort)?;
            self.sort_item(node, targets)?;
        }
        Ok(())
    }

    fn sort_item(&mut self, node: &Node, targets: &[Target]) -> Walk<()> {
        self.check_sorting(NOWHERE)?;
        if self.ordinal(node, targets)? {
            return Ok(());
        }
        if let Some((name, _)) = Self::single_name(node)
            && self.named_output(name, targets)?
        {
            return Ok(());
        }
        self.expr(node, Use::Key)
    }

    /// Over a set operation only output names and ordinals may stand.
    pub(crate) fn set_order_by(&mut self, sorts: &[Node], targets: &[Target]) -> Walk<()> {
        for sort in sorts {
            self.check_sorting(NOWHERE)?;
            let node = self.sort_key(sort)?;
            if self.ordinal(node, targets)? {
                continue;
            }
            match Self::single_name(node) {
                Some((name, _)) if self.named_output(name, targets)? => {}
                Some((name, at)) => return unresolved(name, at),
                None => return construct("ORDER BY of an expression over a set operation", NOWHERE),
            }
        }
        Ok(())
    }

    /// The key itself; directions are fixed words, USING names an operator.
    fn sort_key<'n>(&mut self, sort: &'n Node) -> Walk<&'n Node> {
        let NodeEnum::SortBy(sort) = inner(sort)? else { return construct("ORDER BY of this form", NOWHERE) };
        let SortBy { node: Some(node), sortby_dir, sortby_nulls, use_op, location } = sort.as_ref() else {
            return construct("ORDER BY of this form", sort.location);
        };
        if SortByDir::try_from(*sortby_dir).is_err() || SortByNulls::try_from(*sortby_nulls).is_err() {
            return construct("ORDER BY of this kind", *location);
        }
        match strings(use_op).as_deref() {
            Some([]) => {}
            Some(names) => self.operator(names, Operands { left_open: true, right_open: true }, *location)?,
            None => return construct("ORDER BY of this form", *location),
        }
        Ok(node)
    }

    /// ORDER BY 2: true if the node is an ordinal (and its output was used as a key).
    fn ordinal(&mut self, node: &Node, targets: &[Target]) -> Walk<bool> {
        let NodeEnum::AConst(AConst { isnull: _, location, val: Some(a_const::Val::Ival(number)) }) = inner(node)?
        else {
            return Ok(false);
        };
        let place = usize::try_from(number.ival).ok().and_then(|number| number.checked_sub(1));
        match place.and_then(|place| targets.get(place)) {
            Some(target) => self.key_output(target).map(|()| true),
            None => unresolved(&format!("position {}", number.ival), *location),
        }
    }

    /// True if outputs of this name exist (and were used as keys).
    fn named_output(&mut self, name: &str, targets: &[Target]) -> Walk<bool> {
        self.spend(targets.len())?;
        let mut found = false;
        for target in targets.iter().filter(|target| *target.name == *name) {
            self.key_output(target)?;
            found = true;
        }
        Ok(found)
    }

    fn key_output(&mut self, target: &Target) -> Walk<()> {
        self.spend(1)?;
        self.consume(&target.value, Use::Key, target.at)
    }

    /// DISTINCT compares every output; DISTINCT ON its own list.
    pub(crate) fn distinct(&mut self, clause: &[Node], targets: &[Target]) -> Walk<()> {
        match clause {
            [] => Ok(()),
            // The grammar writes plain DISTINCT as a list of one null.
            [Node { node: None }] => {
                self.check_sorting(NOWHERE)?;
                targets.iter().try_for_each(|target| self.key_output(target))
            }
            keys => keys.iter().try_for_each(|node| self.sort_item(node, targets)),
        }
    }

    /// PARTITION BY and ORDER BY of a window are plain expressions: no output names, no ordinals.
    pub(crate) fn window(&mut self, window: &WindowDef) -> Walk<()> {
        let WindowDef {
            name: _,
            refname: _,
            partition_clause,
            order_clause,
            frame_options: _,
            start_offset,
            end_offset,
            location,
        } = window;
        self.check_sorting(*location)?;
        partition_clause.iter().try_for_each(|node| self.expr(node, Use::Key))?;
        self.plain_order(order_clause)?;
        self.optional(start_offset, Use::Expression)?;
        self.optional(end_offset, Use::Expression)
    }

    /// ORDER BY inside an aggregate or a window.
    pub(crate) fn plain_order(&mut self, sorts: &[Node]) -> Walk<()> {
        for sort in sorts {
            let node = self.sort_key(sort)?;
            self.expr(node, Use::Key)?;
        }
        Ok(())
    }
}
