//! Volume: a statement in the words of rules that hold and count, and what policy's ruling leaves to be counted while its
//! rows stream. Counts no row itself.

use std::collections::{BTreeMap, BTreeSet};

use exeat_policy::approval::Ceiling;
use exeat_policy::grant::Covered;
use exeat_policy::hold::StatementKind as RuledKind;
use exeat_policy::ledger::Unit;
use exeat_policy::ruling::{
    Cause, Copied, Duty, Measure, ReadShape, Ruling, StatementFacts, Touch, Verdict, Why, WriteShape,
};
use exeat_policy::{Decision, Effect, Policy, RelationName};
use exeat_sql::{Lineage, Oid, Packing, Relation, RelationKind, StatementKind, Use};

use crate::evaluate::{SessionFacts, relation_name};
use crate::named;
use crate::needs::{Needs, request};
use crate::refusal::{Object, Refusal, RefusalCode};
use crate::scrub::Taint;
use crate::shape::{self, is_labelled};

/// What rules about volume leave for a statement that policy permits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bulk {
    /// Rules that hold it before it runs.
    pub causes: Vec<Cause>,
    /// Relations whose rows are counted as they leave.
    pub counted: Vec<Counted>,
    /// Those of `causes`: what an approval lets through of them is counted, whether or not a rule counts.
    pub held: Vec<Counted>,
    /// Whether single values hold many rows.
    pub packing: Packing,
    /// What an approval lets through.
    pub ceiling: Option<Ceiling>,
    /// It changes data or definitions, or may: what it did must be taken back where its answer may not leave.
    pub writes: bool,
}

/// Rows of a relation that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub duty: Duty,
    /// How many of them one row of the result holds; of each value's elements, where it holds many.
    pub times: u32,
}

impl Bulk {
    /// Whether no rule about volume speaks of it.
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty() && self.counted.is_empty()
    }

    /// Only that it is held: what is made under a name counts where its rows come from.
    pub(crate) fn held_only(&self) -> Self {
        Self { causes: self.causes.clone(), held: Vec::new(), ..Self::default() }
    }

    /// Its rows stay at the server: what it changes is counted still.
    pub(crate) fn without_rows(&self) -> Self {
        let without = |all: &[Counted]| all.iter().map(|counted| Counted { times: 0, ..counted.clone() }).collect();
        let (counted, held) = (without(&self.counted), without(&self.held));
        Self { counted, held, packing: Packing::None, ..self.clone() }
    }

    /// As an approval of it leaves it: the rules whose approvers have agreed hold it no more, and what leaves is not what
    /// leaves without a human. It may run where nothing else holds it.
    #[must_use]
    pub fn under(&self, covered: &Covered) -> Self {
        let lifts = |cause: &Cause| cause.rule.as_ref().is_some_and(|rule| covered.lifts(rule));
        let causes = self.causes.iter().filter(|cause| !lifts(cause)).cloned().collect();
        let counted = self.counted.iter().cloned().map(|mut counted| {
            counted.duty.thresholds.retain(|threshold| !covered.lifts(&threshold.rule));
            counted.duty.budgets.retain(|budget| budget.unit != Unit::UnapprovedRows);
            counted
        });
        let mut counted: Vec<Counted> = counted.collect();
        let known: BTreeSet<RelationName> = counted.iter().map(|counted| counted.duty.relation.clone()).collect();
        counted.extend(self.held.iter().filter(|held| !known.contains(&held.duty.relation)).cloned());
        Self { causes, counted, ceiling: Some(covered.ceiling()), ..self.clone() }
    }

    /// An error text can carry as many rows as a result, and nobody counts those: of what is counted or held it is rebuilt.
    pub(crate) fn taint(&self) -> Taint {
        if self.is_empty() { Taint::Clean } else { Taint::Sealed }
    }

    /// Whether anything has to be counted while it runs.
    pub fn is_counted(&self) -> bool {
        !self.counted.is_empty()
    }

    /// Whether a write is judged by how many rows it has changed: what it did must be taken back where that is too many.
    pub fn judges_writes(&self) -> bool {
        self.counted.iter().any(|counted| counted.duty.threshold(Measure::Affected).is_some())
    }

    /// Only what is counted: whether it may run was asked before.
    pub(crate) fn counted_only(&self) -> Self {
        Self { causes: Vec::new(), ..self.clone() }
    }
}

/// What policy says of a statement and of its volume.
pub(crate) enum Ruled {
    Permitted {
        decision: Decision,
        bulk: Bulk,
    },
    /// Permitted in all but its volume.
    TooMuch {
        decision: Decision,
        refusal: Box<Refusal>,
    },
    Denied {
        decision: Decision,
    },
}

/// Asks policy. `of`: what is known of the statement, if anything.
pub(crate) fn rule(
    facts: &SessionFacts,
    policy: &Policy,
    kind: &StatementKind,
    needs: &Needs,
    of: Option<&Lineage>,
) -> Ruled {
    let asked = request(facts, kind, needs);
    let Some(ruled_as) = ruled_kind(named::acts_as(kind)) else {
        let decision = policy.decide(&asked);
        return match decision.effect {
            Effect::Permit => {
                Ruled::Permitted { decision, bulk: Bulk { writes: may_write(kind, of), ..Bulk::default() } }
            }
            Effect::Deny => Ruled::Denied { decision },
        };
    };
    let seen = of.map(|lineage| Seen { facts, policy, kind, lineage, occurrences: occurrences(facts, lineage) });
    let touches = seen.as_ref().map_or_else(Vec::new, Seen::touches);
    let Ruling { verdict, decision, duties, ceiling } =
        policy.rule_on(&asked, &StatementFacts { kind: ruled_as, touches }, None);
    if decision.effect == Effect::Deny {
        return Ruled::Denied { decision };
    }
    let mut causes = match verdict {
        Verdict::Permit => Vec::new(),
        Verdict::Hold(causes) => causes,
        Verdict::Deny(causes) => {
            let refusal = Box::new(too_much(facts, policy, of, &causes));
            return Ruled::TooMuch { decision, refusal };
        }
    };
    let unseen = duties.iter().filter(|duty| !of.is_some_and(|of| tells_what_it_changed(facts, (kind, of), duty)));
    causes.extend(unseen.flat_map(changes_unseen));
    let held =
        causes.iter().map(|cause| Duty { relation: held_relation(cause), thresholds: Vec::new(), budgets: Vec::new() });
    let held: BTreeMap<RelationName, Duty> = held.map(|duty| (duty.relation.clone(), duty)).collect();
    let held = match &seen {
        Some(seen) => seen.counted(held.into_values().collect()),
        // Whatever it gives back counts: nobody knows what it is of.
        None => held.into_values().map(|duty| Counted { duty, times: 1 }).collect(),
    };
    let counted = seen.as_ref().map_or_else(Vec::new, |seen| seen.counted(duties));
    let packing = of.map_or(Packing::None, |lineage| lineage.content.packing);
    let writes = may_write(kind, of);
    Ruled::Permitted { decision, bulk: Bulk { causes, counted, held, packing, ceiling, writes } }
}

fn may_write(kind: &StatementKind, of: Option<&Lineage>) -> bool {
    match named::acts_as(kind) {
        StatementKind::Session(_) | StatementKind::Cursor(_) | StatementKind::SqlExecute { .. } => false,
        StatementKind::Select | StatementKind::CopyOut | StatementKind::CopyFile => {
            of.is_none_or(|lineage| !lineage.writes.is_empty() || lineage.defines.is_some())
        }
        StatementKind::Insert
        | StatementKind::Update
        | StatementKind::Delete
        | StatementKind::Merge
        | StatementKind::CopyIn
        | StatementKind::Ddl
        | StatementKind::Call
        | StatementKind::Code
        | StatementKind::Admin
        | StatementKind::Utility { .. } => true,
        // They are what they carry, which was asked for just now.
        StatementKind::Explain(_) | StatementKind::SqlPrepare { .. } => true,
    }
}

/// Stands for whatever a statement may touch that nobody sees into.
fn any_relation() -> RelationName {
    RelationName { schema: "*".to_owned(), name: "*".to_owned() }
}

fn held_relation(cause: &Cause) -> RelationName {
    cause.relation.clone().unwrap_or_else(any_relation)
}

/// Whether the server's word on its end says how many rows of the relation it has changed, and all of them: those that a
/// foreign key's action changes are not in it.
fn tells_what_it_changed(facts: &SessionFacts, (kind, of): (&StatementKind, &Lineage), duty: &Duty) -> bool {
    let direct =
        matches!(kind, StatementKind::Insert | StatementKind::Update | StatementKind::Delete | StatementKind::Merge);
    let by_a_key = |oid: &Oid| relation_name(&facts.snapshot, *oid).as_ref() == Some(&duty.relation);
    direct && !of.writes_aside && !of.changes.iter().any(by_a_key)
}

/// A rule that holds by how many rows are changed, where nobody can tell: then before it runs.
fn changes_unseen(duty: &Duty) -> impl Iterator<Item = Cause> {
    let affected = duty.thresholds.iter().filter(|threshold| threshold.measure == Measure::Affected);
    affected.map(|threshold| Cause {
        rule: Some(threshold.rule.clone()),
        relation: Some(duty.relation.clone()),
        why: Why::Unseen,
    })
}

/// `None`: rules about volume have no word for it.
fn ruled_kind(kind: &StatementKind) -> Option<RuledKind> {
    Some(match kind {
        StatementKind::Select => RuledKind::Select,
        StatementKind::CopyOut | StatementKind::CopyFile => RuledKind::CopyOut,
        StatementKind::Insert => RuledKind::Insert,
        StatementKind::Update => RuledKind::Update,
        StatementKind::Delete => RuledKind::Delete,
        StatementKind::Merge => RuledKind::Merge,
        StatementKind::CopyIn => RuledKind::CopyIn,
        StatementKind::Ddl => RuledKind::Ddl,
        StatementKind::Call => RuledKind::Call,
        StatementKind::Code => RuledKind::Code,
        StatementKind::Utility { name: "TRUNCATE" } => RuledKind::Truncate,
        // What stands behind a name was or will be asked about where it is made.
        StatementKind::Session(_)
        | StatementKind::SqlExecute { .. }
        | StatementKind::Cursor(_)
        | StatementKind::Explain(_)
        | StatementKind::SqlPrepare { .. }
        | StatementKind::Admin
        | StatementKind::Utility { .. } => return None,
    })
}

/// How often each relation stands in a row, with those that rows of it are rows of: partitions count for their tables,
/// and tables for partitions that a rule names.
fn occurrences(facts: &SessionFacts, lineage: &Lineage) -> BTreeMap<Oid, u32> {
    let mut all = BTreeMap::new();
    for (oid, times) in &lineage.content.occurrences {
        for member in facts.snapshot.family(*oid).iter().chain([oid]) {
            let sum: &mut u32 = all.entry(*member).or_default();
            *sum = sum.saturating_add(*times);
        }
    }
    all
}

/// A statement whose analysis is known.
struct Seen<'a> {
    facts: &'a SessionFacts,
    policy: &'a Policy,
    kind: &'a StatementKind,
    lineage: &'a Lineage,
    occurrences: BTreeMap<Oid, u32>,
}

impl Seen<'_> {
    fn touches(&self) -> Vec<Touch> {
        let Lineage { reads, writes, reaches, defines, .. } = self.lineage;
        let altered = defines.iter().flat_map(|definition| &definition.alters);
        let touched = reads.iter().chain(writes).chain(reaches).chain(self.occurrences.keys()).chain(altered);
        let all: BTreeSet<Oid> = touched.copied().collect();
        all.into_iter().filter_map(|oid| self.touch(oid)).collect()
    }

    fn touch(&self, oid: Oid) -> Option<Touch> {
        let known = self.facts.snapshot.relation(oid).filter(|relation| !relation.is_metadata())?;
        Some(Touch {
            relation: relation_name(&self.facts.snapshot, oid)?,
            is_labelled: self.is_labelled(known),
            read: self.read(oid),
            write: self.write(oid),
            copied: self.copied(oid),
            takes_star: self.lineage.stars.contains_key(&oid) && self.facts.seals.relation(oid).is_some(),
        })
    }

    /// Rows of a partition count once, for the table that holds them all, unless the statement names it itself.
    fn is_labelled(&self, relation: &Relation) -> bool {
        let named = |oid: &Oid| self.lineage.reads.contains(oid) || self.lineage.writes.contains(oid);
        let is_part = self.facts.snapshot.ancestors(relation.oid).iter().any(named) && !named(&relation.oid);
        !is_part && is_labelled(self.facts, self.policy, relation.oid)
    }

    fn read(&self, oid: Oid) -> ReadShape {
        let streams = streams(self.kind);
        let whole = &self.lineage.content.whole;
        match whole.iter().find(|(relation, _)| *relation == oid) {
            Some((_, whole)) if streams => ReadShape::Unbounded { limit: whole.limit },
            // What a cursor gives counts where it is fetched, if rows count at all.
            Some(_) if matches!(self.kind, StatementKind::Cursor(_)) => ReadShape::Unbounded { limit: Some(0) },
            Some(_) => ReadShape::Restricted,
            None if self.lineage.reads.contains(&oid) || self.lineage.reaches.contains(&oid) => ReadShape::Restricted,
            None if self.occurrences.contains_key(&oid) => ReadShape::Restricted,
            None => ReadShape::Nothing,
        }
    }

    fn write(&self, oid: Oid) -> WriteShape {
        let Lineage { unbounded, writing, writes, changes, .. } = self.lineage;
        let through_view = |view: Oid| unbounded.contains_key(&view);
        let whole = unbounded.contains_key(&oid)
            || writing.iter().any(|written| written.relation == oid && written.through.is_some_and(through_view));
        match (whole, writes.contains(&oid) || changes.contains(&oid)) {
            (true, _) => WriteShape::Whole,
            (false, true) => WriteShape::Some,
            (false, false) => WriteShape::Nothing,
        }
    }

    /// Whether values of it are written elsewhere: to itself, or to what it is a part of, they stay where they count. How
    /// many rows that is nobody knows before it runs.
    fn copied(&self, oid: Oid) -> Copied {
        let snapshot = &self.facts.snapshot;
        let family = snapshot.family(oid);
        let is_it = |relation: &Oid| *relation == oid || family.contains(relation);
        let makes = self.lineage.defines.as_ref().is_some_and(|definition| !definition.makes.is_empty());
        // Into itself they stay where they count, unless rows other than the one that is written can be put into it.
        let elsewhere = makes || self.lineage.reads_aside || !self.lineage.writes.iter().all(is_it);
        let from = |relation: Oid| {
            let is_view = matches!(snapshot.relation(relation), Some(known) if known.kind == RelationKind::View);
            // What a view's columns are made from is not asked: it may be any relation behind it.
            is_it(&relation) || (is_view && self.lineage.reaches.contains(&oid))
        };
        let mut sources = self.lineage.uses.iter().filter(|used| used.how == Use::Source);
        if elsewhere && sources.any(|used| from(used.column.relation)) { Copied::Unknown } else { Copied::No }
    }

    fn counted(&self, duties: Vec<Duty>) -> Vec<Counted> {
        let times: BTreeMap<_, u32> = self
            .occurrences
            .iter()
            .filter_map(|(oid, times)| Some((relation_name(&self.facts.snapshot, *oid)?, *times)))
            .collect();
        let counted = |duty: Duty| {
            let any = u32::from(duty.relation == any_relation());
            let times = times.get(&duty.relation).copied().unwrap_or(any);
            Counted { duty, times }
        };
        duties.into_iter().map(counted).collect()
    }
}

/// Whether all it reads comes out at once: what a cursor reads counts where it is fetched from, and a plan brings no rows.
fn streams(kind: &StatementKind) -> bool {
    match kind {
        StatementKind::SqlPrepare { of, .. } => streams(of),
        StatementKind::Cursor(_) | StatementKind::Explain(_) => false,
        StatementKind::Select
        | StatementKind::Insert
        | StatementKind::Update
        | StatementKind::Delete
        | StatementKind::Merge
        | StatementKind::Ddl
        | StatementKind::Call
        | StatementKind::Code
        | StatementKind::CopyOut
        | StatementKind::CopyIn
        | StatementKind::CopyFile
        | StatementKind::Admin
        | StatementKind::Session(_)
        | StatementKind::SqlExecute { .. }
        | StatementKind::Utility { .. } => true,
    }
}

/// The first cause in words, and where it stands.
fn too_much(facts: &SessionFacts, policy: &Policy, of: Option<&Lineage>, causes: &[Cause]) -> Refusal {
    let shaped = || of.and_then(|lineage| shape::refusal(facts, policy, lineage));
    let refusal = causes.iter().find_map(|cause| match cause.why {
        Why::UnboundedRead => Some(unbounded_read(facts, of?, cause)),
        Why::Copy => Some(copied(facts, cause)),
        Why::Star | Why::UnboundedWrite => shaped(),
        Why::Statement | Why::Definition | Why::Unseen => None,
    });
    refusal.unwrap_or_else(|| {
        Refusal::new(RefusalCode::Denied, "a rule denies a statement of this size")
            .object(Object::at(&facts.target, None))
    })
}

fn unbounded_read(facts: &SessionFacts, lineage: &Lineage, cause: &Cause) -> Refusal {
    let named = |oid: &Oid| relation_name(&facts.snapshot, *oid) == cause.relation;
    let at = lineage.content.whole.iter().find(|(oid, _)| named(oid)).and_then(|(_, whole)| whole.at);
    let reason = format!("this would read every row of {}", said(cause));
    by_rule(Refusal::new(RefusalCode::UnboundedRead, reason), cause)
        .object(Object { at, ..Object::relation(&facts.target, cause.relation.as_ref()) })
        .suggestion("say which rows: add a WHERE that compares one of its columns, or a LIMIT")
}

fn copied(facts: &SessionFacts, cause: &Cause) -> Refusal {
    let reason = format!("this would copy rows of {} to where nobody counts them", said(cause));
    by_rule(Refusal::new(RefusalCode::Denied, reason), cause)
        .object(Object::relation(&facts.target, cause.relation.as_ref()))
        .suggestion("select the rows in place of writing them elsewhere")
}

fn said(cause: &Cause) -> String {
    cause.relation.as_ref().map_or_else(|| "a relation".to_owned(), |name| format!("{}.{}", name.schema, name.name))
}

fn by_rule(refusal: Refusal, cause: &Cause) -> Refusal {
    match &cause.rule {
        Some(rule) => refusal.rule(rule),
        None => refusal,
    }
}
