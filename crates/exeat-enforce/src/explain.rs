//! What would become of a message, and why: the decision and its rules, where the value of each output column comes
//! from, what else columns are used for, and what would be allowed instead. Pure; one account for the operator
//! (`exeat policy explain`) and for a session (`SET exeat.explain`). An operator is told everything. A principal is told
//! nothing of relations that its statement does not name or that it may do nothing with, and nobody ever a value.

mod text;
mod volume;

use std::collections::BTreeSet;

use exeat_policy::{Access, AccessRequest, Capability, ColumnMask, Effect, Nulls, Policy};
use exeat_sql::{Analysis, CatalogSnapshot, ColumnId, Flow, Lineage, MessageAnalysis, Oid, Output, Use};
use serde_json::{Value, json};

use self::volume::Volume;
use crate::evaluate::{Evaluation, SessionFacts, planned, relation_name};
use crate::named::Missing;
use crate::plan::{Outputs, StatementPlan};
use crate::record::{self, MaskedColumn, RecordFacts};
use crate::refusal::{Refusal, RefusalCode};

const VERSION: u32 = 1;

/// Output columns and uses told, each: what a person may read, and an answer that fits a message.
const LISTED_MAX: usize = 2_000;

/// Columns of a relation named as free to use.
const FREE_COLUMNS_MAX: usize = 20;

/// Columns followed behind one column of a view.
const BEHIND_MAX: usize = 50;

/// Whoever reads the explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The session's own principal.
    Principal,
    /// Whoever writes the policy.
    Operator,
}

/// A message, what it means and what was decided.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    pub facts: &'a SessionFacts,
    pub policy: &'a Policy,
    pub sql: &'a str,
    pub analysis: &'a MessageAnalysis,
    pub evaluation: &'a Evaluation,
}

#[derive(Debug, Clone)]
pub struct Explanation {
    decision: Decision,
    kinds: Vec<&'static str>,
    rules: Vec<String>,
    relations: Vec<String>,
    masked: Vec<MaskedColumn>,
    outputs: Vec<OutputColumn>,
    uses: Vec<Used>,
    unclear: Vec<Unclear>,
    instead: Vec<String>,
    /// More columns or uses than are told.
    more: bool,
    volume: Volume,
}

#[derive(Debug, Clone)]
enum Decision {
    Permit,
    /// A human is asked before it runs.
    Hold,
    Refuse(Refusal),
    /// The server would be asked first, and this is said where it knows no better.
    Unresolved(Refusal),
    /// A cursor or prepared statement that nobody has made.
    Error(Missing),
}

/// One column of a result.
#[derive(Debug, Clone)]
pub struct OutputColumn {
    /// Of the statement in the message, from 1.
    statement: usize,
    pub name: Option<String>,
    at: Option<usize>,
    /// `None`: what a prepared statement or cursor gives, which was explained when it was made.
    pub from: Option<Vec<SourceColumn>>,
    /// It holds values of columns that are not told.
    hidden: bool,
    pub mask: Option<ColumnMask>,
}

/// A stored column whose value is in an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    pub column: String,
    how: Flow,
    /// Of a view's column: the tables' columns it is made from.
    pub behind: Vec<String>,
}

#[derive(Debug, Clone)]
struct Used {
    column: String,
    how: Use,
    at: Option<usize>,
    mask: Option<ColumnMask>,
}

/// A statement that is not understood.
#[derive(Debug, Clone)]
struct Unclear {
    at: Option<usize>,
    why: String,
}

pub fn explain(decided: &Decided<'_>, audience: Audience) -> Explanation {
    let Decided { facts, analysis, evaluation, .. } = decided;
    let unknown = RecordFacts::default();
    let (decision, record, plans) = match evaluation {
        Evaluation::Permit(permit) => {
            let decision = if permit.is_held() { Decision::Hold } else { Decision::Permit };
            (decision, &permit.facts, permit.plans.as_slice())
        }
        Evaluation::Refuse { refusal, facts } => (Decision::Refuse(refusal.clone()), facts, &[][..]),
        Evaluation::Probe { refusal, .. } => (Decision::Unresolved(refusal.clone()), &unknown, &[][..]),
        Evaluation::Missing { missing, facts } => (Decision::Error(missing.clone()), facts, &[][..]),
    };
    let mut told = Explanation {
        decision,
        kinds: analysis.statements.iter().map(|statement| record::kind_name(&statement.kind)).collect(),
        rules: record.rules.clone(),
        relations: Vec::new(),
        masked: Vec::new(),
        outputs: Vec::new(),
        uses: Vec::new(),
        unclear: Vec::new(),
        instead: Vec::new(),
        more: false,
        volume: Volume::default(),
    };
    let mut kept_back = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (index, statement) in analysis.statements.iter().enumerate() {
        match &statement.analysis {
            Analysis::Known(lineage) => {
                let sight = Sight::of(decided, lineage, audience);
                told.add_lineage(facts, index + 1, lineage, &sight);
                if let (None, Some(plan)) = (&lineage.outputs, plans.get(index)) {
                    told.add_prepared(index + 1, plan);
                }
                kept_back.extend(sight.kept_back);
                seen.extend(sight.seen.unwrap_or_default());
            }
            Analysis::Opaque(opaque) => {
                told.unclear.push(Unclear { at: opaque.at, why: opaque.reason.to_string() });
            }
            Analysis::Unresolved { name, at } => {
                told.unclear.push(Unclear { at: *at, why: format!("{name:?} does not resolve") });
            }
        }
    }
    let of = |column: &str, relation: &String| {
        column.strip_prefix(relation.as_str()).is_some_and(|rest| rest.starts_with('.'))
    };
    let relations = match audience {
        Audience::Operator => &record.relations,
        Audience::Principal => &record.named,
    };
    told.relations = relations.iter().filter(|name| !kept_back.contains(*name)).cloned().collect();
    let in_sight = |masked: &&MaskedColumn| {
        audience == Audience::Operator || told.relations.iter().any(|relation| of(&masked.column, relation))
    };
    told.masked = record.masked.iter().filter(in_sight).cloned().collect();
    told.instead = instead(decided, &seen, audience);
    told.volume = volume::of(plans, |name| audience == Audience::Operator || told.relations.contains(name));
    told
}

/// Which relations of a statement are told of.
struct Sight<'a> {
    sql: &'a str,
    /// `None`: all.
    seen: Option<BTreeSet<Oid>>,
    /// Names of those that the statement names and that are not told of.
    kept_back: BTreeSet<String>,
}

impl<'a> Sight<'a> {
    fn of(decided: &Decided<'a>, lineage: &Lineage, audience: Audience) -> Self {
        let named = lineage.reads.union(&lineage.writes).copied().filter(|oid| !lineage.called.contains(oid));
        if audience == Audience::Operator {
            return Self { sql: decided.sql, seen: None, kept_back: BTreeSet::new() };
        }
        let (seen, other): (BTreeSet<Oid>, BTreeSet<Oid>) = named.partition(|oid| open(decided, *oid));
        let kept_back = other.into_iter().filter_map(|oid| qualified(&decided.facts.snapshot, oid)).collect();
        Self { sql: decided.sql, seen: Some(seen), kept_back }
    }

    fn sees(&self, oid: Oid) -> bool {
        self.seen.as_ref().is_none_or(|seen| seen.contains(&oid))
    }

    /// Whether the client sent the name.
    fn says(&self, name: &str) -> bool {
        self.sql.to_lowercase().contains(&name.to_lowercase())
    }

    fn sees_all(&self) -> bool {
        self.seen.is_none()
    }
}

/// Whether the principal may do anything with the relation.
fn open(decided: &Decided<'_>, oid: Oid) -> bool {
    let Decided { facts, policy, .. } = decided;
    let Some(relation) = facts.snapshot.relation(oid) else { return false };
    // What takes all its columns along would tell of those that are not there.
    if facts.seals.hides_columns_of(oid) {
        return false;
    }
    let data = [
        Capability::Read,
        Capability::Insert,
        Capability::Update,
        Capability::Delete,
        Capability::Merge,
        Capability::CopyIn,
    ];
    relation.is_metadata()
        || data.into_iter().any(|capability| {
            let access = Access { capability, relation: relation_name(&facts.snapshot, oid) };
            let (principal, target) = (&*facts.principal, facts.target.as_str());
            let request = AccessRequest { principal, target, accesses: vec![access], presets: Vec::new() };
            policy.decide(&request).effect == Effect::Permit
        })
}

fn qualified(snapshot: &CatalogSnapshot, oid: Oid) -> Option<String> {
    relation_name(snapshot, oid).map(|name| format!("{}.{}", name.schema, name.name))
}

fn column_name(snapshot: &CatalogSnapshot, id: ColumnId) -> Option<String> {
    Some(format!("{}.{}", qualified(snapshot, id.relation)?, snapshot.column_name(id)?))
}

impl Explanation {
    pub fn is_permitted(&self) -> bool {
        matches!(self.decision, Decision::Permit)
    }

    /// Is a human asked before it runs?
    pub fn is_held(&self) -> bool {
        matches!(self.decision, Decision::Hold)
    }

    /// Output columns of all statements, in order.
    pub fn outputs(&self) -> &[OutputColumn] {
        &self.outputs
    }

    fn add_lineage(&mut self, facts: &SessionFacts, statement: usize, lineage: &Lineage, sight: &Sight<'_>) {
        let snapshot = &facts.snapshot;
        let is_hidden = |output: &Output| output.flows.keys().any(|id| facts.seals.hidden().column(*id));
        for output in lineage.outputs.iter().flatten() {
            if self.outputs.len() >= LISTED_MAX {
                self.more = true;
                break;
            }
            let source = |(id, how): (&ColumnId, &Flow)| {
                let column = column_name(snapshot, *id).filter(|_| sight.sees(id.relation))?;
                let behind = if sight.sees_all() { behind(snapshot, *id) } else { Vec::new() };
                Some(SourceColumn { column, how: *how, behind })
            };
            let from: Vec<SourceColumn> = output.flows.iter().filter_map(source).collect();
            let hidden = from.len() < output.flows.len();
            self.outputs.push(OutputColumn {
                statement,
                // A star brings names that the statement does not say.
                name: output.name.clone().filter(|name| !hidden || sight.says(name)),
                at: output.at,
                hidden,
                from: Some(from),
                mask: planned(facts, output, lineage.rewritten).mask.filter(|_| sight.sees_all() || !is_hidden(output)),
            });
        }
        for used in lineage.uses.iter().filter(|used| sight.sees(used.column.relation)) {
            let Some(column) = column_name(snapshot, used.column) else { continue };
            if self.uses.len() >= LISTED_MAX {
                self.more = true;
                break;
            }
            let mask = facts.seals.column(used.column).cloned();
            self.uses.push(Used { column, how: used.how, at: used.at, mask });
        }
    }

    fn add_prepared(&mut self, statement: usize, plan: &StatementPlan) {
        let Outputs::Columns(columns) = &plan.outputs else { return };
        let room = LISTED_MAX.saturating_sub(self.outputs.len());
        self.more |= columns.len() > room;
        self.outputs.extend(columns.iter().take(room).map(|column| OutputColumn {
            statement,
            name: column.name.clone(),
            at: None,
            from: None,
            hidden: false,
            mask: column.mask.clone(),
        }));
    }

    /// `request_id`: under which the record knows the question, where it does.
    pub fn json(&self, sql: &str, request_id: Option<&str>) -> Value {
        let payload = |refusal: &Refusal| {
            let mut payload: Value =
                serde_json::from_str(&refusal.payload_json(request_id.unwrap_or_default())).ok()?;
            if let (None, Some(members)) = (request_id, payload.as_object_mut()) {
                members.remove("request_id");
            }
            Some(payload)
        };
        let (decision, refusal, error) = match &self.decision {
            Decision::Permit => ("permit", None, None),
            Decision::Hold => ("hold", None, None),
            Decision::Refuse(refusal) => ("refuse", payload(refusal), None),
            Decision::Unresolved(refusal) => ("unresolved", payload(refusal), None),
            Decision::Error(missing) => ("error", None, Some(missing)),
        };
        let masked =
            |masked: &MaskedColumn| json!({"column": masked.column, "label": masked.label, "mask": masked.mask});
        let used = |used: &Used| json!({"column": used.column, "how": name_of(used.how), "at": used.at});
        json!({
            "v": VERSION, "decision": decision, "refusal": refusal,
            "sqlstate": error.map(|missing| missing.sqlstate), "reason": error.map(|missing| missing.message.as_str()),
            "kinds": self.kinds, "rules": self.rules, "relations": self.relations,
            "masked": self.masked.iter().map(masked).collect::<Vec<_>>(),
            "outputs": self.outputs.iter().map(OutputColumn::json).collect::<Vec<_>>(),
            "uses": self.uses.iter().map(used).collect::<Vec<_>>(),
            "held": self.volume.held_json(), "counted": self.volume.counted_json(),
            "instead": self.instead, "more": self.more, "text": self.text(sql),
        })
    }

    /// The same for a person: what is said of a place stands under it in the statement's own text.
    pub fn text(&self, sql: &str) -> String {
        text::render(self, sql)
    }
}

impl OutputColumn {
    fn json(&self) -> Value {
        let source = |source: &SourceColumn| {
            let how = match source.how {
                Flow::Presence => "presence",
                Flow::Bare => "bare",
                Flow::Total => "total",
            };
            json!({"column": source.column, "how": how, "behind": source.behind})
        };
        let from = self.from.as_ref().map(|from| from.iter().map(source).collect::<Vec<_>>());
        let mask = self.mask.as_ref().map(|mask| {
            json!({"label": mask.label, "mask": mask.mask.name(), "rule": mask.rule, "nulls": mask.nulls == Nulls::Hide})
        });
        json!({"statement": self.statement, "name": self.name, "at": self.at, "from": from, "hidden": self.hidden,
            "mask": mask})
    }
}

/// The columns of tables that a view's column is made from, through views that stand on others.
fn behind(snapshot: &CatalogSnapshot, id: ColumnId) -> Vec<String> {
    let (mut found, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![id]);
    while let Some(next) = open.pop() {
        if seen.len() >= BEHIND_MAX || !seen.insert(next) {
            continue;
        }
        match snapshot.view_lineage(next.relation) {
            Some(Ok(view)) => open.extend(view.columns.get(&next.attribute).into_iter().flatten().map(|(id, _)| *id)),
            Some(Err(_)) => {}
            None if next == id => {}
            None => found.extend(column_name(snapshot, next)),
        }
    }
    found.into_iter().collect()
}

/// What would be allowed instead, as far as it can be told without guessing what the statement is for.
fn instead(decided: &Decided<'_>, seen: &BTreeSet<Oid>, audience: Audience) -> Vec<String> {
    let Decided { facts, policy, evaluation, .. } = decided;
    let Evaluation::Refuse { refusal, .. } = evaluation else { return Vec::new() };
    let mut found = refusal.allowed.clone();
    match refusal.code {
        RefusalCode::CapabilityMissing => {
            let known = policy.capabilities(&facts.principal, &facts.target);
            let known: Vec<&str> = known.into_iter().map(Capability::name).collect();
            if !known.is_empty() {
                found.push(format!("statements that need no more than: {}", known.join(", ")));
            }
        }
        RefusalCode::MaskedColumnInPredicate
        | RefusalCode::MaskedColumnInExpression
        | RefusalCode::MaskedColumnInKey
        | RefusalCode::MaskedColumnInWrite => found.extend(free_columns(decided, refusal, seen, audience)),
        _ => {}
    }
    found.extend(refusal.suggestion.clone());
    found
}

fn free_columns(decided: &Decided<'_>, refusal: &Refusal, seen: &BTreeSet<Oid>, audience: Audience) -> Option<String> {
    let facts = decided.facts;
    let name = refusal.object.relation.as_deref()?;
    let relation = facts.snapshot.relations().find(|relation| {
        relation.name.len() + relation.schema_name.len() + 1 == name.len()
            && qualified(&facts.snapshot, relation.oid).as_deref() == Some(name)
    })?;
    if audience == Audience::Principal && !seen.contains(&relation.oid) {
        return None;
    }
    let free: Vec<&str> = relation
        .columns
        .iter()
        .filter(|column| facts.seals.column(ColumnId { relation: relation.oid, attribute: column.attribute }).is_none())
        .map(|column| column.name.as_str())
        .collect();
    let shown = free.iter().take(FREE_COLUMNS_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = free.len().checked_sub(FREE_COLUMNS_MAX).filter(|more| *more > 0);
    let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
    (!free.is_empty()).then(|| format!("columns of {name} that are not sealed: {shown}{more}"))
}

fn name_of(how: Use) -> &'static str {
    match how {
        Use::Projected => "projected",
        Use::Derived => "derived",
        Use::Expression => "expression",
        Use::Predicate => "predicate",
        Use::Lookup => "lookup",
        Use::Presence => "presence",
        Use::Key => "key",
        Use::Referenced => "referenced",
        Use::Written => "written",
        Use::Source => "source",
    }
}
