//! Views: everything behind a view's definition, transitively. Definitions are read one after the other, never
//! inside each other, so that neither depth nor a cycle can grow.

use std::collections::BTreeSet;

use pg_query::NodeEnum;

use super::{Facts, NOWHERE, Stop, Walk, Walker, inner, relation_property};
use crate::catalog::{CatalogSnapshot, Oid, PG_CATALOG, Relation};
use crate::{OpaqueReason, Use};

/// A definition is printed by the server with an empty search path: only pg_catalog is unqualified in it.
const DEFINITION_PATH: [Oid; 1] = [PG_CATALOG];

/// Views behind one statement. A catalog with more in one chain of definitions is refused, not followed.
const VIEWS_MAX: usize = 1_000;

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
        if seen.len() > VIEWS_MAX {
            return relation_property(named, "stands on too many views", NOWHERE);
        }
        let behind = snapshot.relation(oid).map(|view| definition(snapshot, view));
        let behind = match behind.unwrap_or_else(|| super::construct("its definition", NOWHERE)) {
            Ok(behind) => behind,
            Err(stop) => return relation_property(named, &reason(stop), NOWHERE),
        };
        facts.user_code = true;
        facts.relation_sizes |= behind.relation_sizes;
        facts.reaches.extend(behind.reads.iter().chain(&behind.reaches));
        open.extend(behind.views.iter().map(|view| (*view, named.oid)));
    }
    Ok(())
}

fn definition(snapshot: &CatalogSnapshot, view: &Relation) -> Walk<Facts> {
    let Some(sql) = snapshot.view_definition(view.oid) else {
        return super::construct("a definition the snapshot does not have", NOWHERE);
    };
    let Ok(tree) = crate::parse::parse_tree(sql) else { return super::construct("its definition", NOWHERE) };
    let [statement] = tree.stmts.as_slice() else { return super::construct("its definition", NOWHERE) };
    let Some(node) = &statement.stmt else { return super::construct("its definition", NOWHERE) };
    let NodeEnum::SelectStmt(select) = inner(node)? else { return super::construct("its definition", NOWHERE) };
    let mut walker = Walker::new(snapshot, &DEFINITION_PATH)?;
    walker.select(select, Use::Expression)?;
    let facts = walker.facts;
    if !facts.settings.is_empty() || facts.session_effect.is_some() {
        return super::construct("a function with an effect on the session", NOWHERE);
    }
    Ok(facts)
}

fn reason(stop: Stop) -> String {
    match stop {
        Stop::Opaque { reason: OpaqueReason::Construct { construct }, at: _ } => {
            format!("is a view whose definition is not analysed: {construct} is not analysed yet")
        }
        Stop::Named { .. }
        | Stop::Opaque {
            reason:
                OpaqueReason::Function { .. }
                | OpaqueReason::Operator { .. }
                | OpaqueReason::Type { .. }
                | OpaqueReason::Relation { .. },
            at: _,
        } => "is a view whose definition uses something that is not analysed".to_owned(),
        Stop::Unresolved { .. } => "is a view whose definition names something that is not in the snapshot".to_owned(),
        Stop::TooDeep => "is a view whose definition is nested too deeply".to_owned(),
    }
}
