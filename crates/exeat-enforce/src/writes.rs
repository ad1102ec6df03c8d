//! Writes to relations with sealed columns. A value that a client brings may go into a sealed column; what is refused is
//! learning from whether a write succeeds: that another row holds the same value, or that a check over a sealed
//! column passes. A key that the client gives itself is a lookup, and counted; so is what a foreign key looks for.
//! Triggers are code that may look at every column of the row.

use std::collections::BTreeSet;

use exeat_policy::Policy;
use exeat_sql::{CheckedTogether, ColumnId, ColumnUse, Given, GivenRow, Lineage, Oid, Relation, Use, Write, Writing};

use crate::evaluate::{SessionFacts, relation_name};
use crate::lookup::{self, PlannedLookup};
use crate::refusal::{Object, Refusal, RefusalCode};
use crate::{referenced, stand_in};

/// What writing tells by a key, to be counted; or why it is refused.
pub(crate) fn probes(
    facts: &SessionFacts,
    policy: &Policy,
    text: &str,
    lineage: &Lineage,
) -> Result<Vec<PlannedLookup>, Box<Refusal>> {
    let mut probes = Vec::new();
    if facts.seals.is_empty() || lineage.writes.is_empty() {
        return Ok(probes);
    }
    if let Some(refusal) = stand_in::in_text(facts, text) {
        return Err(Box::new(refusal));
    }
    for planned in referenced::probes(facts, policy, lineage)? {
        lookup::add(&mut probes, planned);
    }
    for writing in &lineage.writing {
        probes.extend(written((facts, policy), lineage, *writing)?);
    }
    Ok(probes)
}

fn written(
    (facts, policy): (&SessionFacts, &Policy),
    lineage: &Lineage,
    writing: Writing,
) -> Result<Vec<PlannedLookup>, Box<Refusal>> {
    let Some(target) = facts.snapshot.relation(writing.relation) else {
        return Err(Box::new(Refusal::catalog_drift()));
    };
    // Rows of a child are written through its parent, under the parent's names.
    let family: Vec<&Relation> = std::iter::once(target.oid)
        .chain(facts.snapshot.family(target.oid))
        .filter_map(|oid| facts.snapshot.relation(oid))
        .collect();
    if !family.iter().any(|member| facts.seals.relation(member.oid).is_some()) {
        return Ok(Vec::new());
    }
    // A refusal names the view, if the statement does.
    let named = writing.through.unwrap_or(target.oid);
    let rows = written_rows(target, lineage, writing);
    // A statement with several SET lists may run a trigger for what any of them sets.
    let set: BTreeSet<&str> = rows.iter().flatten().copied().collect();
    if facts.snapshot.fires(target.oid, writing.write, &set) {
        return Err(refuse(facts, named, "this write runs a trigger, which may look at columns sealed for you"));
    }
    if rows.is_empty() {
        return Err(refuse(facts, named, SHARES));
    }
    let mut probes = Vec::new();
    for member in family {
        for row in &rows {
            let row = Row { facts, member, named: row };
            let keys = if writing.write == Write::Delete { Vec::new() } else { row.keys() };
            for key in keys {
                let keyed = Keyed { row: &row, target, write: writing.write };
                // What is given through a view is not told apart from what the same statement gives the table itself.
                let tried = if writing.through.is_some() { None } else { keyed.tried(policy, lineage, key)? };
                probes.extend(tried.ok_or_else(|| refuse(facts, named, PROBES))?);
            }
            if writing.write == Write::Update && row.learns_of_the_rest() {
                return Err(refuse(facts, named, SHARES));
            }
        }
    }
    Ok(probes)
}

/// The columns that are written together, by name: an UPDATE's list by list, for a row that one list changes keeps what
/// another would have set.
fn written_rows<'a>(target: &'a Relation, lineage: &Lineage, writing: Writing) -> Vec<BTreeSet<&'a str>> {
    let names = |holds: &dyn Fn(i16) -> bool| -> BTreeSet<&'a str> {
        let columns = target.columns.iter().filter(|column| holds(column.attribute));
        columns.map(|column| column.name.as_str()).collect()
    };
    let is_list = match writing.write {
        Write::Update => true,
        // Of a table behind a view the analysis says both in this way.
        Write::Insert => writing.through.is_some(),
        Write::Delete => false,
    };
    if is_list {
        let lists = lineage.sets.iter().filter(|set| set.relation == target.oid);
        return lists.map(|set| names(&|attribute| set.columns.contains(&attribute))).collect();
    }
    let written = |attribute| {
        let of = |used: &ColumnUse| used.column == ColumnId { relation: target.oid, attribute };
        lineage.uses.iter().any(|used| used.how == Use::Written && of(used))
    };
    vec![names(&written)]
}

fn refuse(facts: &SessionFacts, relation: Oid, problem: &str) -> Box<Refusal> {
    let refusal = Refusal::new(RefusalCode::MaskedColumnInWrite, problem)
        .object(Object::relation(&facts.target, relation_name(&facts.snapshot, relation).as_ref()))
        .suggestion("write columns that no index or check shares with a sealed one, or ask the policy's owner");
    Box::new(refusal)
}

/// One relation whose rows a statement writes, and the columns it writes, by name.
struct Row<'a> {
    facts: &'a SessionFacts,
    member: &'a Relation,
    named: &'a BTreeSet<&'a str>,
}

const PROBES: &str = "a unique key of this relation would tell whether another row has the same sealed value";
const SHARES: &str =
    "a check, index or generated column of this relation looks at a column written and at a sealed one";

impl<'a> Row<'a> {
    /// Keys that would tell whether another row has the same. Of a row inserted every value is the client's own, or a
    /// default: only other rows can tell something.
    fn keys(&self) -> Vec<&'a CheckedTogether> {
        let together = self.facts.snapshot.checked_together(self.member.oid).iter();
        together.filter(|together| together.unique && self.writes_sealed(&together.columns)).collect()
    }

    /// Whether the statement changes what is checked, or made, together with a sealed column that it does not replace.
    fn learns_of_the_rest(&self) -> bool {
        let together = self.facts.snapshot.checked_together(self.member.oid);
        let generated = self.member.columns.iter().filter_map(|column| column.generated.as_ref());
        let made_from = generated.map(|generated| generated.from.iter().copied().collect::<Vec<_>>());
        let sets = together.iter().map(|together| together.columns.clone()).chain(made_from);
        let mut shared = sets.filter(|columns| columns.iter().any(|column| self.writes(*column)));
        let leaves_one =
            |columns: &Vec<i16>| columns.iter().any(|column| self.is_sealed(*column) && !self.writes(*column));
        shared.any(|columns| leaves_one(&columns))
    }

    fn writes_sealed(&self, columns: &[i16]) -> bool {
        columns.iter().any(|column| self.writes(*column)) && columns.iter().any(|column| self.is_sealed(*column))
    }

    /// What is generated from what is written is written too.
    fn writes(&self, attribute: i16) -> bool {
        let column = self.member.columns.iter().find(|column| column.attribute == attribute);
        column.is_none_or(|column| {
            let sources = column.generated.iter().flat_map(|generated| &generated.from);
            let mut names = sources.map(|source| self.name(*source)).chain([Some(column.name.as_str())]);
            names.any(|name| name.is_none_or(|name| self.named.contains(name)))
        })
    }

    fn is_sealed(&self, attribute: i16) -> bool {
        self.facts.seals.column(ColumnId { relation: self.member.oid, attribute }).is_some()
    }

    fn name(&self, attribute: i16) -> Option<&'a str> {
        self.member.columns.iter().find(|column| column.attribute == attribute).map(|column| column.name.as_str())
    }
}

/// One key of a relation, and what the statement gives for its columns, which it names as the target does.
struct Keyed<'a> {
    row: &'a Row<'a>,
    target: &'a Relation,
    write: Write,
}

impl<'a> Keyed<'a> {
    /// `None`: not all that it tells can be counted.
    fn tried(
        &self,
        policy: &Policy,
        lineage: &'a Lineage,
        key: &CheckedTogether,
    ) -> Result<Option<Vec<PlannedLookup>>, Box<Refusal>> {
        let is_generated = |attribute: &i16| {
            let column = self.row.member.columns.iter().find(|column| column.attribute == *attribute);
            column.is_none_or(|column| column.generated.is_some())
        };
        if !key.plain || key.columns.iter().any(is_generated) {
            return Ok(None);
        }
        // The statement writes the key, and so a row of it must be there.
        let Some(rows) = self.given(lineage, key).filter(|rows| !rows.is_empty()) else { return Ok(None) };
        let mut tried = Vec::new();
        for row in rows {
            let Some(planned) = lookup::written(self.row.facts, policy, &row)? else { return Ok(None) };
            planned.into_iter().for_each(|planned| lookup::add(&mut tried, planned));
        }
        Ok(Some(tried))
    }

    /// Row by row. `None`: something of it is left as it is, or at a default.
    fn given(&self, lineage: &'a Lineage, key: &CheckedTogether) -> Option<Vec<Vec<(ColumnId, &'a Given)>>> {
        let of = |row: &&GivenRow| row.relation == self.target.oid && row.write == self.write;
        let mut rows = lineage.rows.iter().filter(of).peekable();
        rows.peek()?;
        let columns: BTreeSet<i16> = key.columns.iter().copied().collect();
        let mut found = Vec::new();
        for row in rows {
            let mut given = Vec::with_capacity(columns.len());
            for attribute in &columns {
                let name = self.row.name(*attribute)?;
                let written = self.target.columns.iter().find(|column| column.name == name)?.attribute;
                let column = ColumnId { relation: self.row.member.oid, attribute: *attribute };
                given.push((column, row.value(written)));
            }
            // What one SET list leaves alone altogether another one changes, or none.
            if self.write == Write::Update && given.iter().all(|(_, value)| value.is_none()) {
                continue;
            }
            found.push(given.into_iter().map(|(column, value)| Some((column, value?))).collect::<Option<Vec<_>>>()?);
        }
        Some(found)
    }
}
