//! Foreign keys of what is written that look in sealed columns: a row that is accepted tells that the value is there. Where
//! the client gives the value itself that is a lookup, and counted; where it comes from elsewhere the write is refused.

use std::collections::BTreeSet;

use exeat_policy::Policy;
use exeat_sql::catalog::ForeignKey;
use exeat_sql::{ColumnId, Given, GivenRow, Lineage, Oid, Relation, Use, Write, Writing};

use crate::evaluate::SessionFacts;
use crate::lookup::{self, PlannedLookup};
use crate::refusal::Refusal;
use crate::uses::looked_up;

/// What the statement tries by its foreign keys, to be counted; or why it is refused.
pub(crate) fn probes(
    facts: &SessionFacts,
    policy: &Policy,
    lineage: &Lineage,
) -> Result<Vec<PlannedLookup>, Box<Refusal>> {
    let looked_in = lineage.uses.iter().filter(|used| used.how == Use::Referenced).map(|used| used.column);
    let sealed: BTreeSet<ColumnId> = looked_in.filter(|column| facts.seals.column(*column).is_some()).collect();
    let (mut tried, mut settled) = (Vec::new(), BTreeSet::new());
    let writings = lineage.writing.iter().filter(|writing| writing.write != Write::Delete);
    for writing in writings.filter(|_| !sealed.is_empty()) {
        let Some(target) = facts.snapshot.relation(writing.relation) else {
            return Err(Box::new(Refusal::catalog_drift()));
        };
        let members = facts.snapshot.family(target.oid).into_iter().chain([target.oid]);
        for member in members.filter_map(|oid| facts.snapshot.relation(oid)) {
            for key in facts.snapshot.foreign_keys_of(member.oid) {
                let columns = columns_of(key.target, &key.target_columns);
                let Some(first) = columns.iter().find(|column| sealed.contains(column)) else { continue };
                let referring = Referring { facts, member, target, key };
                let Some(planned) = referring.tried(policy, lineage, *writing)? else {
                    return Err(refuse(facts, *first));
                };
                planned.into_iter().for_each(|planned| lookup::add(&mut tried, planned));
                settled.extend(columns);
            }
        }
    }
    match sealed.iter().find(|column| !settled.contains(*column)) {
        // By a key that nothing above knows of.
        Some(column) => Err(refuse(facts, *column)),
        None => Ok(tried),
    }
}

fn refuse(facts: &SessionFacts, column: ColumnId) -> Box<Refusal> {
    let rule = facts.seals.column(column).map(|mask| mask.rule.as_str());
    Box::new(looked_up(facts, rule.unwrap_or_default()))
}

fn columns_of(relation: Oid, attributes: &[i16]) -> Vec<ColumnId> {
    attributes.iter().map(|attribute| ColumnId { relation, attribute: *attribute }).collect()
}

/// A foreign key of a relation whose rows are written, as rows of `target`.
struct Referring<'a> {
    facts: &'a SessionFacts,
    member: &'a Relation,
    target: &'a Relation,
    key: &'a ForeignKey,
}

impl<'a> Referring<'a> {
    /// `None`: not all that it tells can be counted.
    fn tried(
        &self,
        policy: &Policy,
        lineage: &'a Lineage,
        writing: Writing,
    ) -> Result<Option<Vec<PlannedLookup>>, Box<Refusal>> {
        if writing.write == Write::Update && !self.is_set(lineage) {
            return Ok(Some(Vec::new()));
        }
        // What is given through a view is not told apart from what the same statement gives the table itself.
        let rows = if writing.through.is_some() { None } else { self.given(lineage, writing.write) };
        let Some(rows) = rows.filter(|rows| !rows.is_empty()) else { return Ok(None) };
        let Some(first) = self.key.columns.first() else { return Ok(None) };
        let referring = ColumnId { relation: self.target.oid, attribute: self.written(*first).unwrap_or(*first) };
        let mut tried = Vec::new();
        for row in rows {
            let planned = lookup::referenced((self.facts, policy), &row, referring)?;
            let Some(planned) = planned else { return Ok(None) };
            planned.into_iter().for_each(|planned| lookup::add(&mut tried, planned));
        }
        Ok(Some(tried))
    }

    /// Whether an UPDATE gives any of its columns a value: the server looks only then, or again for what it found before.
    fn is_set(&self, lineage: &Lineage) -> bool {
        let written: Option<Vec<i16>> = self.key.columns.iter().map(|attribute| self.written(*attribute)).collect();
        let Some(written) = written else { return true };
        let lists = lineage.sets.iter().filter(|set| set.relation == self.target.oid);
        let generated = |attribute: &i16| {
            let column = self.target.columns.iter().find(|column| column.attribute == *attribute);
            column.is_none_or(|column| column.generated.is_some())
        };
        written.iter().any(generated) || lists.flat_map(|set| &set.columns).any(|column| written.contains(column))
    }

    /// What the column of the member is called where the statement writes it.
    fn written(&self, attribute: i16) -> Option<i16> {
        let column = self.member.columns.iter().find(|column| column.attribute == attribute)?;
        Some(self.target.columns.iter().find(|known| known.name == column.name)?.attribute)
    }

    /// Row by row, for the columns that are looked in. `None`: something of it is left as it is, at a default, or is compared
    /// in another way than as a value of the column's own type.
    fn given(&self, lineage: &'a Lineage, write: Write) -> Option<Vec<Vec<(ColumnId, &'a Given)>>> {
        let of = |row: &&GivenRow| row.relation == self.target.oid && row.write == write;
        let pairs: Option<Vec<(i16, ColumnId)>> = self
            .key
            .columns
            .iter()
            .zip(columns_of(self.key.target, &self.key.target_columns))
            .map(|(attribute, column)| Some((self.written(*attribute)?, column)))
            .collect();
        let pairs =
            pairs.filter(|pairs| pairs.iter().all(|(_, column)| self.facts.snapshot.compares_bytes(*column)))?;
        let mut found = Vec::new();
        for row in lineage.rows.iter().filter(of) {
            let given: Vec<_> = pairs.iter().map(|(attribute, column)| (*column, row.value(*attribute))).collect();
            if write == Write::Update && given.iter().all(|(_, value)| value.is_none()) {
                continue;
            }
            let given = given.into_iter().map(|(column, value)| Some((column, value?)));
            let given: Vec<_> = given.collect::<Option<_>>()?;
            if !given.iter().all(|(column, value)| self.fits(*column, value)) {
                return None;
            }
            found.push(given);
        }
        Some(found)
    }

    fn fits(&self, column: ColumnId, given: &Given) -> bool {
        match given {
            Given::Null => true,
            Given::Value { of, .. } => {
                let snapshot = &self.facts.snapshot;
                snapshot.column(column).is_some_and(|known| snapshot.base_type(known.type_oid) == *of)
            }
            Given::Computed => false,
        }
    }
}
