//! Views: what each column of a view is made from, and what stands behind its definition. Read once per snapshot, one
//! definition after the other and never inside each other, so that neither depth nor a cycle can grow. A statement
//! sees a view's columns as stored ones; whoever decides asks what they are made from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pg_query::NodeEnum;

use super::content::Held;
use super::select::Target;
use super::settings::shown_by_view;
use super::{Facts, NOWHERE, Stop, Walk, Walker, inner, relation_property};
use crate::catalog::{CatalogSnapshot, ColumnId, Oid, PG_CATALOG, Relation};
use crate::{Flow, OpaqueReason, ShownSettings, Use};

/// As the catalog connection's search path is: only pg_catalog is unqualified in a definition that the server prints.
pub(crate) const DEFINITION_PATH: [Oid; 1] = [PG_CATALOG];

/// Views behind one statement. A catalog with more in one chain of definitions is refused, not followed.
const VIEWS_MAX: usize = 1_000;

/// What one view's definition does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ViewLineage {
    /// What each of its columns is made from, by attribute number. Columns of other views stand for themselves.
    pub columns: BTreeMap<i16, BTreeMap<ColumnId, Flow>>,
    /// Columns that choose its rows, or that go through something that may fail.
    pub influences: BTreeSet<ColumnId>,
    /// Relations it names; views among them have a lineage of their own.
    pub reads: BTreeSet<Oid>,
    /// What one of its rows holds; views in it are counted as themselves.
    pub(crate) content: Held,
    pub(crate) reaches: BTreeSet<Oid>,
    pub(crate) functions: BTreeSet<Oid>,
    pub(crate) views: Vec<Oid>,
    pub(crate) relation_sizes: bool,
    pub(crate) large_objects: bool,
    pub(crate) server_files: bool,
    pub(crate) shown: ShownSettings,
}

/// Why a view has none, in words that name nothing behind it.
pub(crate) type Unknown = String;

/// Reads the definitions of all views of a snapshot.
pub(crate) fn lineages(snapshot: &CatalogSnapshot) -> HashMap<Oid, Result<ViewLineage, Unknown>> {
    let with_definition = snapshot.relations().filter_map(|view| Some((view, snapshot.view_definition(view.oid)?)));
    let read = |view, sql| definition(snapshot, view, sql).map_err(|stop| reason(VIEW, stop));
    let unread = snapshot.unread_views().map(|oid| (oid, Err("is a view that somebody is changing".to_owned())));
    with_definition.map(|(view, sql)| (view.oid, vouched_for(snapshot, view, read(view, sql)))).chain(unread).collect()
}

/// Reads the row-security policies of all relations of a snapshot that have some.
pub(crate) fn policy_lineages(snapshot: &CatalogSnapshot) -> HashMap<Oid, Result<ViewLineage, Unknown>> {
    let read = |relation| conditions(snapshot, relation).map_err(|stop| reason(POLICY, stop));
    snapshot.with_policies().map(|relation| (relation.oid, read(relation))).collect()
}

/// Where the operator says so, provenance stops at a column of a view; and where that is all of them, a view that is
/// trusted may do what we cannot tell.
fn vouched_for(
    snapshot: &CatalogSnapshot,
    view: &Relation,
    read: Result<ViewLineage, Unknown>,
) -> Result<ViewLineage, Unknown> {
    let Some(declassified) = snapshot.declassified(view.oid) else { return read };
    match read {
        Ok(mut lineage) => {
            for attribute in declassified {
                lineage.columns.insert(*attribute, BTreeMap::new());
            }
            Ok(lineage)
        }
        Err(_)
            if snapshot.trusts_view(view.oid)
                && view.columns.iter().all(|column| declassified.contains(&column.attribute)) =>
        {
            let columns = view.columns.iter().map(|column| (column.attribute, BTreeMap::new()));
            Ok(ViewLineage { columns: columns.collect(), ..ViewLineage::default() })
        }
        Err(reason) => Err(reason),
    }
}

/// What the conditions of a relation's policies look at: all of them, for whichever command and role they are.
fn conditions(snapshot: &CatalogSnapshot, relation: &Relation) -> Walk<ViewLineage> {
    let mut all = ViewLineage::default();
    for policy in snapshot.untrusted_policies(relation.oid) {
        let (_, facts, _) = read(snapshot, &policy.as_query(relation), true)?;
        let lineage = behind(facts)?;
        all.influences.extend(lineage.influences);
        all.reads.extend(lineage.reads);
        all.reaches.extend(lineage.reaches);
        all.functions.extend(lineage.functions);
        all.views.extend(lineage.views);
        all.relation_sizes |= lineage.relation_sizes;
        all.server_files |= lineage.server_files;
        all.shown.add(&lineage.shown);
    }
    Ok(all)
}

/// Follows the views `facts` names and adds what they read to `reaches`. Says no name that the statement does not: a
/// refusal must not tell what stands behind a view.
pub(crate) fn expand_views(snapshot: &CatalogSnapshot, facts: &mut Facts) -> Walk<()> {
    let mut open: Vec<(Oid, Oid)> = std::mem::take(&mut facts.views).into_iter().map(|oid| (oid, oid)).collect();
    let mut seen = BTreeSet::new();
    while let Some((oid, named)) = open.pop() {
        if !seen.insert(oid) {
            continue;
        }
        let Some(named) = snapshot.relation(named) else { return super::construct("an unknown view", NOWHERE) };
        let relation_property = |named: &Relation, property: &str, at| {
            if facts.reads.contains(&named.oid) || facts.writes.contains(&named.oid) {
                return relation_property(named, property, at);
            }
            super::construct("a function that reads a view", at)
        };
        if seen.len() > VIEWS_MAX {
            return relation_property(named, "stands on too many views", NOWHERE);
        }
        let behind = match snapshot.view_lineage(oid).or_else(|| snapshot.policy_lineage(oid)) {
            Some(Ok(behind)) => behind,
            Some(Err(reason)) => return relation_property(named, reason, NOWHERE),
            None => return relation_property(named, "is a view without a definition in the snapshot", NOWHERE),
        };
        facts.user_code = true;
        facts.correlated = true;
        facts.relation_sizes |= behind.relation_sizes;
        facts.large_objects |= behind.large_objects;
        facts.functions.extend(&behind.functions);
        facts.server_files |= behind.server_files;
        facts.shown.add(&behind.shown);
        facts.reaches.extend(behind.reads.iter().chain(&behind.reaches));
        open.extend(behind.views.iter().map(|view| (*view, named.oid)));
    }
    Ok(())
}

fn definition(snapshot: &CatalogSnapshot, view: &Relation, sql: &str) -> Walk<ViewLineage> {
    let (outputs, facts, content) = read(snapshot, sql, false)?;
    if outputs.len() != view.columns.len() {
        return super::construct("its definition", NOWHERE);
    }
    let made = outputs.iter().map(|target| target.output().flows);
    let columns = view.columns.iter().map(|column| column.attribute).zip(made).collect();
    Ok(ViewLineage { columns, content, ..behind(facts)? })
}

/// Walks a definition that the server has printed.
fn read(snapshot: &CatalogSnapshot, sql: &str, of_policy: bool) -> Walk<(Vec<Target>, Facts, Held)> {
    let Ok(tree) = crate::parse::parse_tree(sql) else { return super::construct("its definition", NOWHERE) };
    let [statement] = tree.stmts.as_slice() else { return super::construct("its definition", NOWHERE) };
    let Some(node) = &statement.stmt else { return super::construct("its definition", NOWHERE) };
    let NodeEnum::SelectStmt(select) = inner(node)? else { return super::construct("its definition", NOWHERE) };
    let mut walker = Walker::new(snapshot, snapshot.definition_path())?;
    (walker.bound, walker.of_policy) = (true, of_policy);
    let outputs = walker.select(select)?;
    Ok((outputs, walker.facts, walker.content.finished()))
}

/// What stands behind a definition, but for its columns.
fn behind(facts: Facts) -> Walk<ViewLineage> {
    if !facts.settings.is_empty() || facts.session_effect.is_some() || facts.large_objects {
        return super::construct("a function with an effect on the session", NOWHERE);
    }
    let shown_by_view = shown_by_view(&facts);
    let influences = facts.uses.into_keys().filter(|(_, how)| is_influence(*how));
    Ok(ViewLineage {
        columns: BTreeMap::new(),
        content: Held::default(),
        influences: influences.map(|(column, _)| column).collect(),
        reads: facts.reads.union(&facts.called).copied().collect(),
        reaches: facts.reaches,
        functions: facts.functions,
        views: facts.views,
        relation_sizes: facts.relation_sizes || !facts.sized.is_empty(),
        large_objects: facts.large_objects,
        server_files: facts.server_files,
        shown: shown_by_view,
    })
}

fn is_influence(how: Use) -> bool {
    match how {
        Use::Expression
        | Use::Predicate
        | Use::Lookup
        | Use::Key
        | Use::Presence
        | Use::Referenced
        | Use::Written
        | Use::Source => true,
        Use::Projected | Use::Derived => false,
    }
}

const VIEW: &str = "is a view whose definition";
const POLICY: &str = "has a row-security policy that";

fn reason(what: &str, stop: Stop) -> String {
    match stop {
        Stop::Opaque { reason: OpaqueReason::Construct { construct }, at: _ } => {
            format!("{what} is not analysed: {construct} is not analysed yet")
        }
        Stop::Named { .. }
        | Stop::Opaque {
            reason:
                OpaqueReason::Function { .. }
                | OpaqueReason::Operator { .. }
                | OpaqueReason::Type { .. }
                | OpaqueReason::Relation { .. },
            at: _,
        } => format!("{what} uses something that is not analysed"),
        Stop::Unresolved { .. } => format!("{what} names something that is not in the snapshot"),
        Stop::TooDeep => format!("{what} is nested too deeply"),
    }
}
