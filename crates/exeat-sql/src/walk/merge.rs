//! MERGE: a join of its source with its target, and what each of its branches then writes.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::{CmdType, MergeMatchKind, MergeStmt, MergeWhenClause, Node, RangeVar};

use super::dml::Returned;
use super::scope::{Item, Level};
use super::{NOWHERE, Walk, Walker, bound, construct, inner};
use crate::catalog::{ColumnId, Relation};
use crate::{Use, Write};

impl<'a> Walker<'a> {
    pub(crate) fn merge(&mut self, stmt: &MergeStmt) -> Walk<Returned> {
        let MergeStmt {
            relation: Some(table),
            source_relation: Some(source),
            join_condition: Some(condition),
            merge_when_clauses,
            returning_clause,
            with_clause,
        } = stmt
        else {
            return construct("MERGE of this form", NOWHERE);
        };
        self.facts.reads_aside = true;
        self.levels.push(Level::default());
        if let Some(with) = with_clause {
            self.with_clause(with)?;
        }
        let mut writes = BTreeSet::new();
        for node in merge_when_clauses {
            let NodeEnum::MergeWhenClause(when) = inner(node)? else { return construct("MERGE of this form", NOWHERE) };
            writes.extend(written_by(when)?);
        }
        let target = self.merge_target(table, &writes)?;
        let own = self.target_item(target, table)?;
        let source = self.read_item(source)?;
        let mut left_out = BTreeSet::new();
        let both: Vec<Item> = std::iter::once(own.clone()).chain(source.iter().cloned()).collect();
        self.among(both.clone(), |walker| walker.expr(condition, Use::Predicate))?;
        for node in merge_when_clauses {
            let NodeEnum::MergeWhenClause(when) = inner(node)? else { return construct("MERGE of this form", NOWHERE) };
            let in_sight = match MergeMatchKind::try_from(when.match_kind) {
                Ok(MergeMatchKind::MergeWhenMatched) => both.clone(),
                Ok(MergeMatchKind::MergeWhenNotMatchedBySource) => vec![own.clone()],
                Ok(MergeMatchKind::MergeWhenNotMatchedByTarget) => source.clone(),
                Ok(MergeMatchKind::Undefined) | Err(_) => return construct("MERGE of this kind", NOWHERE),
            };
            self.spend(in_sight.len())?;
            self.limited_branch(target, table, (condition, when))?;
            self.among(in_sight, |walker| {
                left_out.extend(walker.merge_branch(target, when)?);
                Ok(())
            })?;
        }
        // The source's columns come first, also where `*` stands for all of them.
        let mut returned = None;
        self.among(source.into_iter().chain([own]).collect(), |walker| {
            returned = walker.returning(target, &left_out, returning_clause)?;
            Ok(())
        })?;
        Ok(returned)
    }

    /// A branch that changes rows: those the source names, or those its own condition does.
    fn limited_branch(
        &mut self,
        target: &Relation,
        table: &RangeVar,
        (joined, when): (&Node, &MergeWhenClause),
    ) -> Walk<()> {
        let own = when.condition.as_deref();
        let matched = MergeMatchKind::try_from(when.match_kind) == Ok(MergeMatchKind::MergeWhenMatched);
        match written_by(when)? {
            Some(Write::Update | Write::Delete) if matched => {
                let conditions = [Some(joined), own];
                if !conditions
                    .iter()
                    .any(|condition| bound::is_limited(target, bound::target_name(target, table), *condition))
                {
                    self.limited(target, table, None);
                }
            }
            Some(Write::Update | Write::Delete) => self.limited(target, table, own),
            Some(Write::Insert) | None => {}
        }
        Ok(())
    }

    /// The columns that an INSERT leaves to their defaults.
    fn merge_branch(&mut self, target: &Relation, when: &MergeWhenClause) -> Walk<BTreeSet<i16>> {
        let MergeWhenClause { match_kind: _, command_type: _, r#override: _, condition, target_list, values } = when;
        self.optional(condition, Use::Predicate)?;
        match written_by(when)? {
            Some(Write::Update) => {
                self.set_list(target, target_list)?;
                Ok(BTreeSet::new())
            }
            Some(Write::Insert) => {
                self.insert_columns(target, target_list)?;
                let left_out = self.left_out(target, target_list)?;
                if left_out.iter().any(|attribute| self.domain_runs_code(target, *attribute)) {
                    self.facts.user_code = true;
                }
                values.iter().try_for_each(|value| self.assigned(value))?;
                self.given_row(target, target_list, values)?;
                Ok(left_out)
            }
            // Which rows go is decided by the conditions, also where a key of theirs is looked up.
            Some(Write::Delete) | None => Ok(BTreeSet::new()),
        }
    }

    /// The columns of a row that is proposed for insertion hold what the statement gives them, and nothing stored.
    pub(crate) fn proposed(&mut self, target: &Relation) -> Item {
        let columns = self.relation_columns(target);
        let stored = |attribute| ColumnId { relation: target.oid, attribute };
        let code: BTreeSet<i16> = target
            .columns
            .iter()
            .map(|column| column.attribute)
            .filter(|attribute| {
                let of = self.snapshot.column(stored(*attribute)).map(|known| known.type_oid);
                of.is_none_or(|of| self.snapshot.type_runs_code(of))
            })
            .collect();
        Item::new(Some("excluded"), columns.without_flows(|id| !code.contains(&id.attribute)))
    }
}

fn written_by(when: &MergeWhenClause) -> Walk<Option<Write>> {
    match CmdType::try_from(when.command_type) {
        Ok(CmdType::CmdUpdate) => Ok(Some(Write::Update)),
        Ok(CmdType::CmdInsert) => Ok(Some(Write::Insert)),
        Ok(CmdType::CmdDelete) => Ok(Some(Write::Delete)),
        Ok(CmdType::CmdNothing) => Ok(None),
        Ok(CmdType::Undefined | CmdType::CmdUnknown | CmdType::CmdSelect | CmdType::CmdMerge | CmdType::CmdUtility)
        | Err(_) => construct("MERGE of this kind", NOWHERE),
    }
}
