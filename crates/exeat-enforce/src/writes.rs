//! Writes to relations with sealed columns. A value that a client brings may go into a sealed column; what is refused is
//! learning from whether a write succeeds: that another row holds the same value, or that a check over a sealed
//! column passes. Triggers are code that may look at every column of the row.

use std::collections::BTreeSet;

use exeat_sql::{CheckedTogether, ColumnId, ColumnUse, Lineage, Oid, Relation, Use, Write, Writing};

use crate::evaluate::{SessionFacts, relation_name};
use crate::mask::REDACTED;
use crate::refusal::{Object, Refusal, RefusalCode};

pub(crate) fn refusal(facts: &SessionFacts, text: &str, lineage: &Lineage) -> Option<Refusal> {
    if facts.seals.is_empty() || lineage.writes.is_empty() {
        return None;
    }
    if text.contains(REDACTED) {
        return Some(
            Refusal::new(
                RefusalCode::MaskedColumnInWrite,
                format!("{REDACTED:?} stands for a value you were not shown; writing it would destroy that value"),
            )
            .object(Object::at(&facts.target, None))
            .suggestion("leave the column out of the statement"),
        );
    }
    lineage.writing.iter().find_map(|writing| written(facts, lineage, *writing))
}

fn written(facts: &SessionFacts, lineage: &Lineage, writing: Writing) -> Option<Refusal> {
    let target = facts.snapshot.relation(writing.relation)?;
    // Rows of a child are written through its parent, under the parent's names.
    let family: Vec<&Relation> = std::iter::once(target.oid)
        .chain(facts.snapshot.family(target.oid))
        .filter_map(|oid| facts.snapshot.relation(oid))
        .collect();
    if !family.iter().any(|member| facts.seals.relation(member.oid).is_some()) {
        return None;
    }
    if family.iter().any(|member| facts.snapshot.fires(member.oid, writing.write)) {
        return Some(refuse(facts, target.oid, "this write runs a trigger, which may look at columns sealed for you"));
    }
    let rows = written_rows(target, lineage, writing.write);
    if rows.is_empty() {
        return Some(refuse(facts, target.oid, SHARES));
    }
    let problem = family.into_iter().find_map(|member| {
        rows.iter().find_map(|named| {
            let row = Row { facts, member, named };
            match writing.write {
                Write::Insert => row.inserted(),
                Write::Update => row.updated(),
                Write::Delete => None,
            }
        })
    });
    problem.map(|problem| refuse(facts, target.oid, problem))
}

/// The columns that are written together, by name: an UPDATE's list by list, for a row that one list changes keeps what
/// another would have set.
fn written_rows<'a>(target: &'a Relation, lineage: &Lineage, write: Write) -> Vec<BTreeSet<&'a str>> {
    let names = |holds: &dyn Fn(i16) -> bool| -> BTreeSet<&'a str> {
        let columns = target.columns.iter().filter(|column| holds(column.attribute));
        columns.map(|column| column.name.as_str()).collect()
    };
    if write == Write::Update {
        let lists = lineage.sets.iter().filter(|set| set.relation == target.oid);
        return lists.map(|set| names(&|attribute| set.columns.contains(&attribute))).collect();
    }
    let written = |attribute| {
        let of = |used: &ColumnUse| used.column == ColumnId { relation: target.oid, attribute };
        lineage.uses.iter().any(|used| used.how == Use::Written && of(used))
    };
    vec![names(&written)]
}

fn refuse(facts: &SessionFacts, relation: Oid, problem: &str) -> Refusal {
    Refusal::new(RefusalCode::MaskedColumnInWrite, problem)
        .object(Object::relation(&facts.target, relation_name(&facts.snapshot, relation).as_ref()))
        .suggestion("write columns that no index or check shares with a sealed one, or ask the policy's owner")
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

impl Row<'_> {
    /// Every value of the row is the client's own, or a default: only other rows can tell something.
    fn inserted(&self) -> Option<&'static str> {
        let probes = |together: &&CheckedTogether| together.unique && self.writes_sealed(&together.columns);
        self.facts.snapshot.checked_together(self.member.oid).iter().find(probes).map(|_| PROBES)
    }

    fn updated(&self) -> Option<&'static str> {
        let together = self.facts.snapshot.checked_together(self.member.oid);
        if together.iter().any(|together| together.unique && self.writes_sealed(&together.columns)) {
            return Some(PROBES);
        }
        let generated = self.member.columns.iter().filter_map(|column| column.generated.as_ref());
        let made_from = generated.map(|generated| generated.from.iter().copied().collect::<Vec<_>>());
        let sets = together.iter().map(|together| together.columns.clone()).chain(made_from);
        let mut shared = sets.filter(|columns| columns.iter().any(|column| self.writes(*column)));
        // The statement replaces all that is sealed among them, or it learns about what it does not replace.
        let leaves_one =
            |columns: &Vec<i16>| columns.iter().any(|column| self.is_sealed(*column) && !self.writes(*column));
        shared.any(|columns| leaves_one(&columns)).then_some(SHARES)
    }

    fn writes_sealed(&self, columns: &[i16]) -> bool {
        columns.iter().any(|column| self.writes(*column)) && columns.iter().any(|column| self.is_sealed(*column))
    }

    fn writes(&self, attribute: i16) -> bool {
        let column = self.member.columns.iter().find(|column| column.attribute == attribute);
        column.is_none_or(|column| self.named.contains(column.name.as_str()))
    }

    fn is_sealed(&self, attribute: i16) -> bool {
        self.facts.seals.column(ColumnId { relation: self.member.oid, attribute }).is_some()
    }
}
