//! Drift: what a database has become since its relations and columns were accepted, and what follows for its columns.
//!
//! A label finds columns by name, and stays with the column it found when that gets another name. What nobody has
//! accepted since is sealed without a label. Pure: the same catalog, labels and knowledge give the same answer. It
//! never opens a column that a label seals; it only adds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use exeat_policy::baseline::{AcceptedColumn, AcceptedRelation, Binding, Known};
use exeat_policy::{Label, RelationName};
use exeat_sql::catalog::Untrusted;
use exeat_sql::{CatalogSnapshot, Column, ColumnId, Oid, Relation, RelationKind};

/// What is done with a relation that is outside the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unclassified {
    #[default]
    Seal,
    /// Let through as with `Allow`, while every detector looks at its texts.
    Detect,
    /// Only a whole relation is let through; new columns on a labelled one stay sealed.
    Allow,
}

/// A label that a column carries because it carried it under another name. Rules are held against the name that its
/// relation had: a rename must not take it out of a rule's sight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundLabel {
    pub label: String,
    pub relation: RelationName,
}

/// What is different, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// What the configuration vouches for by name, and what the name does not stand for any more. First, for it is the operator's own word.
    Untrusted(Untrusted),
    NewRelation {
        relation: RelationName,
        sealed: bool,
    },
    NewColumn {
        relation: RelationName,
        column: String,
    },
    /// The column keeps the label, which no longer matches it by name.
    Renamed {
        label: String,
        was: String,
        is: String,
    },
    /// What has the bound column's name is another column by now.
    Replaced {
        label: String,
        column: String,
    },
    BoundColumnGone {
        label: String,
        column: String,
    },
    /// A pattern of a label that no column matches.
    MatchesNothing {
        label: String,
        pattern: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewRelation { relation, sealed } => {
                let state = if *sealed { "sealed" } else { "not sealed" };
                write!(f, "relation {}.{} is not accepted yet, {state}", relation.schema, relation.name)
            }
            Self::NewColumn { relation, column } => {
                write!(f, "column {}.{}.{column} is not accepted yet, sealed", relation.schema, relation.name)
            }
            Self::Renamed { label, was, is } => {
                write!(f, "{was} is now {is} and keeps label {label}; name it in the policy")
            }
            Self::Replaced { label, column } => {
                write!(f, "{column} is another column than label {label} was bound to, sealed")
            }
            Self::BoundColumnGone { label, column } => write!(f, "{column}, bound to label {label}, is gone"),
            Self::Untrusted(untrusted) => untrusted.fmt(f),
            Self::MatchesNothing { label, pattern } => write!(f, "label {label}: no column matches {pattern}"),
        }
    }
}

/// What follows from the bindings and the baseline of a database, beside the labels' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    bound: HashMap<ColumnId, Vec<BoundLabel>>,
    unclassified: HashSet<ColumnId>,
    watched: HashSet<ColumnId>,
    findings: BTreeSet<Finding>,
}

impl Drift {
    /// Labels the column is bound to, matched by name or not.
    pub fn bound(&self, column: ColumnId) -> &[BoundLabel] {
        self.bound.get(&column).map_or(&[], Vec::as_slice)
    }

    /// Sealed without a label.
    pub fn is_unclassified(&self, column: ColumnId) -> bool {
        self.unclassified.contains(&column)
    }

    /// Not sealed, but every detector looks at it.
    pub fn is_watched(&self, column: ColumnId) -> bool {
        self.watched.contains(&column)
    }

    /// For a session that made these relations from nothing that is sealed for it: what nobody has accepted of them
    /// is its own work. Labels stay.
    #[must_use]
    pub fn with_own(&self, own: &BTreeSet<Oid>) -> Self {
        let others = |columns: &HashSet<ColumnId>| {
            columns.iter().filter(|column| !own.contains(&column.relation)).copied().collect()
        };
        Self { unclassified: others(&self.unclassified), watched: others(&self.watched), ..self.clone() }
    }

    /// In order.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter()
    }
}

/// What is there, as it would be accepted: every relation that a session can read, and every column that a label
/// matches by name. Without bindings there is nothing to hold, and nothing to take.
pub fn observe(labels: &[Label], snapshot: &CatalogSnapshot) -> Known {
    let mut relations: Vec<&Relation> = watched(snapshot).filter(|relation| !is_temporary(relation)).collect();
    relations.sort_by_key(|relation| relation.oid);
    let mut bindings: Vec<Binding> = relations
        .iter()
        .flat_map(|relation| relation.columns.iter().map(move |column| (relation, column)))
        .flat_map(|(relation, column)| {
            labels
                .iter()
                .filter(|label| matches(label, relation, column))
                .map(move |label| bind(label, relation, column))
        })
        .collect();
    bindings.sort();
    Known { bindings, baseline: relations.into_iter().map(accept).collect() }
}

/// What accepting leaves: what is there, and the bindings of columns that got another name. A binding goes with its
/// column, and when its label no longer means the name it was bound by.
pub fn accepted(labels: &[Label], snapshot: &CatalogSnapshot, known: &Known) -> Known {
    let mut accepted = observe(labels, snapshot);
    let before = Before::new(known);
    for binding in &known.bindings {
        let is_meant = labels.iter().any(|label| {
            label.name() == binding.label
                && label.matches(&binding.schema_name, &binding.relation_name, &binding.column_name)
        });
        let is_there = snapshot
            .relation(Oid(binding.relation))
            .is_some_and(|relation| before.is_same(relation) && column(relation, binding.attribute).is_some());
        let is_bound = accepted.bindings.iter().any(|new| is_same_place(new, binding));
        if is_meant && is_there && !is_bound {
            accepted.bindings.push(binding.clone());
        }
    }
    accepted.bindings.sort();
    accepted
}

/// Columns that labels match by name and that are not bound yet: a label that is new in the policy must stay with
/// its columns as well. Binding more only ever seals more.
pub fn unbound(labels: &[Label], snapshot: &CatalogSnapshot, known: &Known) -> Vec<Binding> {
    let bound: HashSet<(&str, u32, i16)> = known.bindings.iter().map(place).collect();
    observe(labels, snapshot).bindings.into_iter().filter(|binding| !bound.contains(&place(binding))).collect()
}

/// Holds the catalog against what is known of it.
pub fn examine(labels: &[Label], snapshot: &CatalogSnapshot, known: &Known, unclassified: Unclassified) -> Drift {
    let before = Before::new(known);
    let mut drift = Drift::default();
    for binding in &known.bindings {
        drift.follow(binding, labels, snapshot);
    }
    for relation in watched(snapshot) {
        drift.compare(labels, relation, &Judge { snapshot, before: &before, unclassified });
    }
    drift.replaced(labels, snapshot, known);
    drift.pointless(labels, snapshot);
    drift.findings.extend(untrusted(snapshot).findings);
    drift
}

/// Where nothing is known of a database: names that the configuration trusts in vain.
pub fn untrusted(snapshot: &CatalogSnapshot) -> Drift {
    let findings = snapshot.untrusted().map(|untrusted| Finding::Untrusted(untrusted.clone())).collect();
    Drift { findings, ..Drift::default() }
}

impl Drift {
    /// A bound column keeps its label, whatever it is called.
    fn follow(&mut self, binding: &Binding, labels: &[Label], snapshot: &CatalogSnapshot) {
        let was = shown(&binding.schema_name, &binding.relation_name, &binding.column_name);
        let place = ColumnId { relation: Oid(binding.relation), attribute: binding.attribute };
        let found = snapshot
            .relation(place.relation)
            .and_then(|relation| column(relation, binding.attribute).map(|column| (relation, column)));
        let Some((relation, column)) = found else {
            self.findings.insert(Finding::BoundColumnGone { label: binding.label.clone(), column: was });
            return;
        };
        let name = RelationName { schema: binding.schema_name.clone(), name: binding.relation_name.clone() };
        self.bound.entry(place).or_default().push(BoundLabel { label: binding.label.clone(), relation: name });
        let is = shown(&relation.schema_name, &relation.name, &column.name);
        let is_named = labels.iter().any(|label| label.name() == binding.label && matches(label, relation, column));
        if is != was && !is_named {
            self.findings.insert(Finding::Renamed { label: binding.label.clone(), was, is });
        }
    }

    fn has_label(&self, labels: &[Label], relation: &Relation, column: &Column) -> bool {
        !self.bound(id(relation, column)).is_empty() || labels.iter().any(|label| matches(label, relation, column))
    }

    fn is_labelled(&self, labels: &[Label], relation: &Relation) -> bool {
        relation.columns.iter().any(|column| self.has_label(labels, relation, column))
    }

    fn compare(&mut self, labels: &[Label], relation: &Relation, judge: &Judge<'_>) {
        let is_labelled = self.is_labelled(labels, relation);
        let accepted = judge.before.accepted(relation);
        let parents = if accepted.is_none() { self.inherited(labels, relation, judge) } else { HashSet::new() };
        let new_to: &dyn Fn(&Column) -> bool = match (accepted, judge.unclassified) {
            (Some(accepted), _) => {
                &|column| is_labelled && !accepted.columns.iter().any(|known| is_same(known, column))
            }
            (None, Unclassified::Seal) => &|column| !parents.contains(column.name.as_str()),
            // Let through as a whole; but made anew under the name of one that was accepted, it is held against that.
            (None, Unclassified::Detect | Unclassified::Allow) => match judge.before.by_name(relation) {
                Some(namesake) => {
                    &|column| is_labelled && !namesake.columns.iter().any(|known| is_alike(known, column))
                }
                None => &|_| false,
            },
        };
        let unlabelled = relation.columns.iter().filter(|column| !self.has_label(labels, relation, column));
        let (new, open): (Vec<&Column>, Vec<&Column>) = unlabelled.partition(|column| new_to(column));
        if accepted.is_none() && judge.unclassified == Unclassified::Detect {
            let strange = open.iter().filter(|column| !parents.contains(column.name.as_str()));
            self.watched.extend(strange.map(|column| id(relation, column)));
        }
        self.unclassified.extend(new.iter().map(|column| id(relation, column)));
        if is_temporary(relation) {
            return;
        }
        let name = name_of(relation);
        if accepted.is_none() {
            self.findings.insert(Finding::NewRelation { relation: name, sealed: !new.is_empty() });
            return;
        }
        self.findings.extend(
            new.iter().map(|column| Finding::NewColumn { relation: name.clone(), column: column.name.clone() }),
        );
    }

    /// Columns that a child which nobody has accepted has from a parent that was: its rows come out of
    /// that parent too, and what is sealed of the parent is sealed of its whole family.
    fn inherited<'a>(&self, labels: &[Label], child: &Relation, judge: &Judge<'a>) -> HashSet<&'a str> {
        let mut names = HashSet::new();
        for parent in judge.snapshot.ancestors(child.oid).into_iter().filter_map(|oid| judge.snapshot.relation(oid)) {
            let Some(accepted) = judge.before.accepted(parent) else { continue };
            // What is new on a parent with labels is sealed there.
            let is_labelled = self.is_labelled(labels, parent);
            let is_known = |column: &&Column| {
                !is_labelled
                    || self.has_label(labels, parent, column)
                    || accepted.columns.iter().any(|known| is_same(known, column))
            };
            names.extend(parent.columns.iter().filter(is_known).map(|column| column.name.as_str()));
        }
        names
    }

    /// A column under the name of a bound one that is not it, and that the label does not match by itself: the label
    /// may have been bound to the name that this one has now.
    fn replaced(&mut self, labels: &[Label], snapshot: &CatalogSnapshot, known: &Known) {
        for binding in &known.bindings {
            let Some(relation) = snapshot.relation_by_name(&binding.schema_name, &binding.relation_name) else {
                continue;
            };
            let Some(column) = relation.columns.iter().find(|column| column.name == binding.column_name) else {
                continue;
            };
            let place = id(relation, column);
            let is_it = place == ColumnId { relation: Oid(binding.relation), attribute: binding.attribute };
            let is_labelled =
                !self.bound(place).is_empty() || labels.iter().any(|label| matches(label, relation, column));
            if !is_it && !is_labelled {
                self.unclassified.insert(place);
                let column = shown(&binding.schema_name, &binding.relation_name, &binding.column_name);
                self.findings.insert(Finding::Replaced { label: binding.label.clone(), column });
            }
        }
    }

    fn pointless(&mut self, labels: &[Label], snapshot: &CatalogSnapshot) {
        for (label, pattern) in labels.iter().flat_map(|label| label.patterns().map(move |pattern| (label, pattern))) {
            let finds = watched(snapshot).any(|relation| {
                let is_match = |column: &Column| pattern.matches(&relation.schema_name, &relation.name, &column.name);
                relation.columns.iter().any(is_match)
            });
            if !finds {
                let (label, pattern) = (label.name().to_owned(), pattern.to_string());
                self.findings.insert(Finding::MatchesNothing { label, pattern });
            }
        }
    }
}

/// What a relation is held against.
struct Judge<'a> {
    snapshot: &'a CatalogSnapshot,
    before: &'a Before<'a>,
    unclassified: Unclassified,
}

/// The baseline, by OID and by name.
struct Before<'a> {
    relations: BTreeMap<u32, &'a AcceptedRelation>,
    names: HashMap<(&'a str, &'a str), &'a AcceptedRelation>,
}

impl<'a> Before<'a> {
    fn new(known: &'a Known) -> Self {
        let name = |relation: &'a AcceptedRelation| (relation.schema_name.as_str(), relation.name.as_str());
        Self {
            relations: known.baseline.iter().map(|relation| (relation.oid, relation)).collect(),
            names: known.baseline.iter().map(|relation| (name(relation), relation)).collect(),
        }
    }

    fn accepted(&self, relation: &Relation) -> Option<&'a AcceptedRelation> {
        self.is_same(relation).then(|| self.relations.get(&relation.oid.0).copied()).flatten()
    }

    fn by_name(&self, relation: &Relation) -> Option<&'a AcceptedRelation> {
        self.names.get(&(relation.schema_name.as_str(), relation.name.as_str())).copied()
    }

    /// OIDs mean something within one life of a database: one restored from a dump may use them for other relations.
    /// So a relation is the one that was accepted if it also has its name, or another name and nothing else new.
    fn is_same(&self, relation: &Relation) -> bool {
        let Some(accepted) = self.relations.get(&relation.oid.0) else { return false };
        let has_name = accepted.schema_name == relation.schema_name && accepted.name == relation.name;
        let is_known =
            |column: &Column| accepted.columns.iter().any(|known| is_same(known, column) && known.name == column.name);
        has_name || (!relation.columns.is_empty() && relation.columns.iter().all(is_known))
    }
}

/// Its number and its type; a rename changes neither.
fn is_same(known: &AcceptedColumn, column: &Column) -> bool {
    known.attribute == column.attribute && known.type_oid == column.type_oid.0
}

fn is_alike(known: &AcceptedColumn, column: &Column) -> bool {
    known.name == column.name && known.type_oid == column.type_oid.0
}

/// Relations whose columns can be sealed and that did not come with the server.
fn watched(snapshot: &CatalogSnapshot) -> impl Iterator<Item = &Relation> {
    snapshot.relations().filter(|relation| match relation.kind {
        RelationKind::CompositeType => false,
        RelationKind::Table
        | RelationKind::PartitionedTable
        | RelationKind::View
        | RelationKind::MaterializedView
        | RelationKind::ForeignTable
        | RelationKind::Sequence => !relation.is_metadata(),
    })
}

/// Some session's own, gone with it: sealed like any other that was not accepted, but nothing to accept or to report.
/// The server reserves schema names that begin with `pg_`.
fn is_temporary(relation: &Relation) -> bool {
    relation.schema_name.starts_with("pg_temp_")
}

fn matches(label: &Label, relation: &Relation, column: &Column) -> bool {
    label.matches(&relation.schema_name, &relation.name, &column.name)
}

fn column(relation: &Relation, attribute: i16) -> Option<&Column> {
    relation.columns.iter().find(|column| column.attribute == attribute)
}

fn id(relation: &Relation, column: &Column) -> ColumnId {
    ColumnId { relation: relation.oid, attribute: column.attribute }
}

fn place(binding: &Binding) -> (&str, u32, i16) {
    (&binding.label, binding.relation, binding.attribute)
}

fn is_same_place(one: &Binding, other: &Binding) -> bool {
    place(one) == place(other)
}

fn name_of(relation: &Relation) -> RelationName {
    RelationName { schema: relation.schema_name.clone(), name: relation.name.clone() }
}

fn shown(schema: &str, relation: &str, column: &str) -> String {
    format!("{schema}.{relation}.{column}")
}

fn bind(label: &Label, relation: &Relation, column: &Column) -> Binding {
    Binding {
        label: label.name().to_owned(),
        relation: relation.oid.0,
        attribute: column.attribute,
        schema_name: relation.schema_name.clone(),
        relation_name: relation.name.clone(),
        column_name: column.name.clone(),
    }
}

fn accept(relation: &Relation) -> AcceptedRelation {
    let accept = |column: &Column| AcceptedColumn {
        attribute: column.attribute,
        name: column.name.clone(),
        type_oid: column.type_oid.0,
    };
    AcceptedRelation {
        oid: relation.oid.0,
        schema_name: relation.schema_name.clone(),
        name: relation.name.clone(),
        columns: relation.columns.iter().map(accept).collect(),
    }
}
