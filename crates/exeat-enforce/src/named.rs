//! Statements about other statements: EXPLAIN, PREPARE, EXECUTE, DECLARE and FETCH. Each is decided as the statement
//! it carries or refers to; what it makes under a name keeps that statement's own plan, masks and taint.
//! What a name stands for is told by the session; here nothing is guessed: a name nobody made is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use exeat_policy::{Access, AccessRequest, Capability, Effect, Policy, RelationName};
use exeat_sql::catalog::{Relation, RelationKind};
use exeat_sql::{Analysis, CursorCommand, Explained, MessageAnalysis, Reference, StatementAnalysis, StatementKind};

use crate::bulk::Bulk;
use crate::evaluate::{Permit, SessionFacts, uses_sealed};
use crate::lookup::{self, PlannedLookup};
use crate::plan::{CopyStream, Forgets, Outputs, PlannedColumn, PlannedOrigin, StateEffect, StatementPlan};
use crate::record;
use crate::refusal::{Object, Refusal, RefusalCode};
use crate::scrub::Taint;
use crate::stand_in;

/// What stands behind names, as far as a message refers to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownNames {
    cursors: BTreeMap<String, Arc<Permit>>,
    prepared: BTreeMap<String, Prepared>,
}

/// A prepared statement, by SQL or by the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub kind: StatementKind,
    /// As decided now.
    pub permit: Arc<Permit>,
    /// As decided when it was prepared: which of two under one name it is.
    pub origin: Arc<Permit>,
}

/// What a statement leaves under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    Cursor { name: String, hold: bool, permit: Arc<Permit> },
    Statement { name: String, kind: StatementKind, permit: Arc<Permit> },
}

/// What a statement refers to and nobody has made, as the server says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub sqlstate: &'static str,
    pub message: String,
}

impl KnownNames {
    pub fn is_empty(&self) -> bool {
        self.cursors.is_empty() && self.prepared.is_empty()
    }

    /// The permit of the cursor's or portal's one statement.
    pub fn add_cursor(&mut self, name: &str, permit: Arc<Permit>) {
        self.cursors.insert(name.to_owned(), permit);
    }

    pub fn add_prepared(&mut self, name: &str, prepared: Prepared) {
        self.prepared.insert(name.to_owned(), prepared);
    }

    pub fn cursors(&self) -> impl Iterator<Item = (&str, &Arc<Permit>)> {
        self.cursors.iter().map(|(name, permit)| (name.as_str(), permit))
    }

    pub fn prepared(&self) -> impl Iterator<Item = (&str, &Prepared)> {
        self.prepared.iter().map(|(name, prepared)| (name.as_str(), prepared))
    }

    /// The permit behind what the statement refers to.
    pub(crate) fn behind(&self, kind: &StatementKind) -> Option<&Arc<Permit>> {
        match kind.reference()? {
            Reference::Cursor(name) => self.cursors.get(name),
            Reference::Prepared(name) => self.prepared.get(name).map(|prepared| &prepared.permit),
        }
    }

    /// What a statement of the same message leaves for those after it.
    pub(crate) fn after(&mut self, plan: &StatementPlan) {
        if let Some(forgets) = &plan.forgets {
            self.prepared.retain(|name, _| !forgets.names(name));
        }
        if let Some(closes) = &plan.closes {
            self.cursors.retain(|name, _| !closes.names(name));
        }
        match &plan.made {
            Some(Made::Cursor { name, permit, .. }) => self.add_cursor(name, Arc::clone(permit)),
            Some(Made::Statement { name, kind, permit }) => {
                let (kind, permit) = (kind.clone(), Arc::clone(permit));
                self.add_prepared(name, Prepared { kind, origin: Arc::clone(&permit), permit });
            }
            None => {}
        }
    }
}

/// What becomes of a plan that was permitted for what the statement carries.
pub(crate) enum Settled {
    Plan(Box<StatementPlan>),
    Refuse(Refusal),
    Missing(Missing),
}

/// What is known where a permitted plan is settled.
pub(crate) struct At<'a> {
    pub(crate) facts: &'a SessionFacts,
    pub(crate) policy: &'a Policy,
    pub(crate) names: &'a KnownNames,
    pub(crate) statement: &'a StatementAnalysis,
    pub(crate) text: &'a str,
}

impl At<'_> {
    /// `plan`: of the statement carried, or of one without effect where it only refers to another.
    pub(crate) fn settle(&self, plan: StatementPlan) -> Settled {
        // The row that is written is one that the cursor's own statement may give back: only that it is known counts.
        if let Analysis::Known(lineage) = &self.statement.analysis
            && let Some(name) = &lineage.positioned
            && !self.names.cursors.contains_key(name)
        {
            return self.missing("34000", format!("cursor \"{name}\" does not exist"));
        }
        match &self.statement.kind {
            StatementKind::Explain(explained) => self.explain(explained, plan),
            StatementKind::SqlPrepare { name, of } => {
                let (name, kind) = (name.clone(), StatementKind::clone(of));
                // Whether it may run is asked where it is executed.
                self.make(plan, (Vec::new(), Bulk::default()), |permit| Made::Statement { name, kind, permit })
            }
            StatementKind::Cursor(CursorCommand::Declare { name, hold }) => {
                let (name, hold) = (name.clone(), *hold);
                // What it looks up is settled here; FETCH only goes on with it.
                let asked = (plan.lookups.clone(), plan.bulk.held_only());
                let plan = StatementPlan { lookups: Vec::new(), bulk: plan.bulk.counted_only(), ..plan };
                self.make(plan, asked, |permit| Made::Cursor { name, hold, permit })
            }
            StatementKind::Cursor(CursorCommand::Fetch { name, moves }) => self.fetch(name, *moves),
            StatementKind::SqlExecute { name } => self.execute(name),
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
            | StatementKind::Utility { .. } => Settled::Plan(Box::new(plan)),
        }
    }

    fn make(
        &self,
        plan: StatementPlan,
        (lookups, bulk): (Vec<PlannedLookup>, Bulk),
        made: impl FnOnce(Arc<Permit>) -> Made,
    ) -> Settled {
        let alone = MessageAnalysis { statements: vec![self.statement.clone()], fingerprint: None, steps: 0 };
        let taint = plan.taint;
        let permit = Permit::of_one(self.text, plan, record::facts(self.facts, &alone));
        let made = Some(made(Arc::new(permit)));
        Settled::Plan(Box::new(StatementPlan { made, lookups, bulk, ..StatementPlan::quiet(taint) }))
    }

    fn fetch(&self, name: &str, moves: bool) -> Settled {
        let Some(permit) = self.names.behind(&self.statement.kind) else {
            return self.missing("34000", format!("cursor \"{name}\" does not exist"));
        };
        let [plan] = permit.plans.as_slice() else {
            return Settled::Refuse(self.unfit("a portal without a statement"));
        };
        // What such a portal stands for may have changed since it was bound.
        if !permit.names().is_empty() || plan.copy != CopyStream::None || plan.made.is_some() {
            return Settled::Refuse(self.unfit("FETCH from a portal that is no plain query"));
        }
        let outputs = if moves { Outputs::None } else { plan.outputs.clone() };
        // What holds a portal before it runs was asked when it was bound.
        let bulk = if moves { Bulk::default() } else { plan.bulk.counted_only() };
        // What a portal looks up was counted when it was bound.
        Settled::Plan(Box::new(StatementPlan { outputs, bulk, lookups: Vec::new(), ..plan.clone() }))
    }

    fn execute(&self, name: &str) -> Settled {
        let reference = self.statement.kind.reference();
        let known = reference.and_then(|reference| match reference {
            Reference::Prepared(name) => self.names.prepared.get(name),
            Reference::Cursor(_) => None,
        });
        let Some(prepared) = known else {
            return self.missing("26000", format!("prepared statement \"{name}\" does not exist"));
        };
        let plain = matches!(
            prepared.kind,
            StatementKind::Select
                | StatementKind::Insert
                | StatementKind::Update
                | StatementKind::Delete
                | StatementKind::Merge
        );
        match prepared.permit.plans.as_slice() {
            [plan] if plan.lookups.iter().any(PlannedLookup::takes_parameters) => {
                Settled::Refuse(lookup::unfit_for_execute(&self.facts.target))
            }
            [plan] if plain => {
                let brings = plan.writes_values.then(|| stand_in::in_text(self.facts, self.text)).flatten();
                brings.map_or_else(|| Settled::Plan(Box::new(plan.clone())), Settled::Refuse)
            }
            _ => Settled::Refuse(self.unfit("EXECUTE of what is no plain query")),
        }
    }

    /// Whoever may run what is not understood may also name what code has made.
    fn missing(&self, sqlstate: &'static str, message: String) -> Settled {
        let decision = self.policy.decide(&AccessRequest {
            principal: &self.facts.principal,
            target: &self.facts.target,
            accesses: vec![Access { capability: Capability::Opaque, relation: None }],
            presets: Vec::new(),
        });
        if decision.effect == Effect::Deny {
            return Settled::Missing(Missing { sqlstate, message });
        }
        let sealed = !self.facts.seals.is_empty();
        Settled::Plan(Box::new(StatementPlan {
            outputs: if self.facts.seals.checks_nothing() { Outputs::Unchecked } else { Outputs::ByOrigin },
            effect: StateEffect { rereads_state: true, ..StateEffect::default() },
            ..StatementPlan::quiet(if sealed { Taint::UserCode } else { Taint::Clean })
        }))
    }

    fn unfit(&self, what: &str) -> Refusal {
        Refusal::new(RefusalCode::OpaqueStatement, format!("{what} is not analysed"))
            .object(Object::at(&self.facts.target, None))
            .suggestion("use a cursor or prepared statement of a plain SELECT, INSERT, UPDATE or DELETE")
    }

    fn explain(&self, explained: &Explained, plan: StatementPlan) -> Settled {
        let (plan, sealed, correlated) = match explained.of.reference() {
            Some(Reference::Prepared(name)) => match self.execute(name) {
                Settled::Plan(plan) => (StatementPlan::clone(&plan), plan.taint != Taint::Clean, true),
                other => return other,
            },
            Some(Reference::Cursor(_)) => return Settled::Refuse(self.unfit("EXPLAIN of FETCH")),
            None => {
                let (sealed, correlated) = match &self.statement.analysis {
                    Analysis::Known(lineage) => (uses_sealed(self.facts, lineage), lineage.correlated),
                    Analysis::Opaque(_) | Analysis::Unresolved { .. } => (!self.facts.seals.is_empty(), true),
                };
                (plan, sealed, correlated)
            }
        };
        if sealed && correlated && explained.runs {
            // A cache in the plan tells how many of its keys are equal.
            let refusal = Refusal::new(
                RefusalCode::OpaqueStatement,
                "a plan that ran tells how often values repeat that one part of it hands to another",
            );
            return Settled::Refuse(
                refusal
                    .object(Object::at(&self.facts.target, None))
                    .allowed("EXPLAIN (COSTS OFF)")
                    .suggestion("leave ANALYZE out, or sub-selects, LATERAL, views and functions"),
            );
        }
        let tells_of_writes = self.tells_of_writes(explained);
        if explained.runs && tells_of_writes {
            // Whether a row went on in its page: where a sealed column has an index, only when its value stayed the same.
            let refusal = Refusal::new(
                RefusalCode::OpaqueStatement,
                "a plan that ran tells whether a value that you may write is the one that is sealed for you",
            );
            return Settled::Refuse(
                refusal
                    .object(Object::at(&self.facts.target, None))
                    .allowed("EXPLAIN (COSTS OFF)")
                    .suggestion("leave ANALYZE out"),
            );
        }
        if (sealed || tells_of_writes) && (explained.costs || explained.sizes) {
            let refusal = Refusal::new(
                RefusalCode::OpaqueStatement,
                "costs, row estimates and sizes of a plan tell something about values sealed for you",
            );
            return Settled::Refuse(
                refusal
                    .object(Object::at(&self.facts.target, None))
                    .allowed("EXPLAIN (COSTS OFF)")
                    .suggestion("add COSTS OFF, and BUFFERS OFF with ANALYZE, and leave out WAL, MEMORY and SERIALIZE"),
            );
        }
        let shown = PlannedColumn {
            origin: PlannedOrigin::None,
            name: Some("QUERY PLAN".to_owned()),
            mask: None,
            watched: false,
        };
        let outputs = Outputs::Columns(vec![shown]);
        Settled::Plan(Box::new(if explained.runs {
            StatementPlan { outputs, made: None, bulk: plan.bulk.without_rows(), ..plan }
        } else {
            // A plan tells of the values it is made for.
            StatementPlan { outputs, lookups: plan.lookups, ..StatementPlan::quiet(plan.taint) }
        }))
    }

    /// Whoever changes sealed values finds in the sizes of tables and indexes, and in what a scan meets there, whether a
    /// value was new: so the plans of what reads them are theirs without sizes and without having run.
    fn tells_of_writes(&self, explained: &Explained) -> bool {
        let snapshot = &self.facts.snapshot;
        let is_sealed = |relation: &Relation| {
            let mut family = snapshot.family(relation.oid).into_iter().chain([relation.oid]);
            !relation.is_metadata() && family.any(|oid| self.facts.seals.relation(oid).is_some())
        };
        let reads_sealed = match (&self.statement.analysis, explained.of.reference()) {
            (Analysis::Known(lineage), None) => {
                let met = lineage.reads.iter().chain(&lineage.reaches).chain(&lineage.writes);
                met.filter_map(|oid| snapshot.relation(*oid)).any(is_sealed)
            }
            (Analysis::Known(_) | Analysis::Opaque(_) | Analysis::Unresolved { .. }, _) => !self.facts.seals.is_empty(),
        };
        let is_door = |relation: &Relation| relation.kind == RelationKind::View || is_sealed(relation);
        reads_sealed && snapshot.relations().filter(|one| is_door(one)).any(|one| self.may_change(one))
    }

    fn may_change(&self, relation: &Relation) -> bool {
        let name = RelationName { schema: relation.schema_name.clone(), name: relation.name.clone() };
        [Capability::Update, Capability::Merge].into_iter().any(|capability| {
            let decision = self.policy.decide(&AccessRequest {
                principal: &self.facts.principal,
                target: &self.facts.target,
                accesses: vec![Access { capability, relation: Some(name.clone()) }],
                presets: Vec::new(),
            });
            decision.effect != Effect::Deny
        })
    }
}

/// Cursors that are gone after it.
pub(crate) fn closes(kind: &StatementKind) -> Option<Forgets> {
    match kind {
        StatementKind::Session(exeat_sql::SessionCommand::CloseCursor { name }) => {
            Some(name.as_ref().map_or(Forgets::All, |name| Forgets::One(name.clone())))
        }
        StatementKind::Session(exeat_sql::SessionCommand::Discard { all: true }) => Some(Forgets::All),
        _ => None,
    }
}

/// The statement whose capability and effects count: of what is carried, where something is.
pub(crate) fn acts_as(kind: &StatementKind) -> &StatementKind {
    match kind {
        StatementKind::Explain(explained) => acts_as(&explained.of),
        StatementKind::SqlPrepare { of, .. } => acts_as(of),
        StatementKind::Cursor(CursorCommand::Declare { .. }) => &StatementKind::Select,
        other => other,
    }
}
