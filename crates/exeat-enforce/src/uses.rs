//! Uses of sealed columns that are refused: whatever decides something by one, or sends it through what may fail. Says in
//! the refusal what would be allowed instead, and never names what the statement does not.

use exeat_policy::{Lookup, Mask, Nulls};
use exeat_sql::{ColumnId, ColumnUse, Lineage, Oid, Relation, Use};

use crate::evaluate::{SessionFacts, relation_name};
use crate::refusal::{Object, Refusal, RefusalCode};

/// A sealed column may flow into outputs, which are then masked; every other use of it is refused.
pub(crate) fn refusal(facts: &SessionFacts, lineage: &Lineage) -> Option<Refusal> {
    if facts.seals.is_empty() {
        return None;
    }
    if lineage.changes.iter().any(|oid| facts.seals.relation(*oid).is_some()) {
        return Some(
            Refusal::new(
                RefusalCode::OpaqueStatement,
                "a foreign key's action would change a relation with columns sealed for you",
            )
            .object(Object::at(&facts.target, None))
            .suggestion("write to a relation that no such key references"),
        );
    }
    if let Some(refusal) = telling_view(facts, lineage) {
        return Some(refusal);
    }
    let is_sealed = |oid: &Oid| facts.seals.relation(*oid).is_some();
    let sized = |oid: &Oid| is_sealed(oid) || facts.snapshot.family(*oid).iter().any(is_sealed);
    if lineage.relation_sizes || lineage.sized.iter().any(sized) {
        return Some(
            Refusal::new(
                RefusalCode::OpaqueFunction,
                "size functions tell something about stored values; they are not available where columns are sealed",
            )
            .object(Object::at(&facts.target, None))
            .suggestion("leave the size out of the statement"),
        );
    }
    hidden(facts, lineage).or_else(|| lineage.uses.iter().find_map(|used| use_refusal(facts, lineage, used)))
}

/// What a statement reads is certain once its answer has begun; what it has written by then is written. Were the relation
/// that a name means taken away while it waits, the server would take the next one of that name.
fn hidden(facts: &SessionFacts, lineage: &Lineage) -> Option<Refusal> {
    if lineage.writes.is_empty() && lineage.defines.is_none() {
        return None;
    }
    if !lineage.hides.iter().any(|(hidden, visible)| seals_more(facts, *hidden, *visible)) {
        return None;
    }
    Some(
        Refusal::new(
            RefusalCode::OpaqueStatement,
            "a name in this statement would mean a relation with columns sealed for you, if the one it means went away",
        )
        .object(Object::at(&facts.target, None))
        .suggestion("write the schema before the names of relations"),
    )
}

/// Whether a column of the one is sealed whose namesake of the other is not.
fn seals_more(facts: &SessionFacts, hidden: Oid, visible: Oid) -> bool {
    let sealed = |relation: &Relation| -> Vec<String> {
        let is_sealed = |attribute| facts.seals.column(ColumnId { relation: relation.oid, attribute }).is_some();
        let columns = relation.columns.iter().filter(|column| is_sealed(column.attribute));
        columns.map(|column| column.name.clone()).collect()
    };
    let of = |oid| facts.snapshot.relation(oid).map(sealed).unwrap_or_default();
    let visible = of(visible);
    of(hidden).iter().any(|name| !visible.contains(name))
}

/// A view, or a relation with row security, that a sealed column chooses the rows of. Names it only if the statement
/// does.
fn telling_view(facts: &SessionFacts, lineage: &Lineage) -> Option<Refusal> {
    let telling = |oid: &&Oid| facts.seals.tells(**oid);
    let named = lineage.reads.iter().chain(&lineage.writes).find(telling);
    if named.is_none() && !lineage.reaches.iter().any(|oid| facts.seals.tells(*oid)) {
        return None;
    }
    let name = named.and_then(|oid| relation_name(&facts.snapshot, *oid));
    let has_policies = named.is_some_and(|oid| facts.snapshot.policy_lineage(*oid).is_some());
    let (message, hint) = if has_policies {
        (
            "row-security policies of this relation look at columns that are sealed for you",
            "read another relation, or ask the policy's owner whether these are to be trusted",
        )
    } else {
        (
            "this view compares, sorts, groups or computes with columns that are sealed for you",
            "select from the tables it stands on, or ask the policy's owner whether the view is to be trusted",
        )
    };
    Some(
        Refusal::new(RefusalCode::OpaqueStatement, message)
            .object(Object::relation(&facts.target, name.as_ref()))
            .suggestion(hint),
    )
}

fn use_refusal(facts: &SessionFacts, lineage: &Lineage, used: &ColumnUse) -> Option<Refusal> {
    let seal = facts.seals.relation(used.column.relation)?;
    // Counted, or refused, with what is written.
    if used.how == Use::Referenced {
        return None;
    }
    if !lineage.reads.contains(&used.column.relation) && !lineage.writes.contains(&used.column.relation) {
        // The other side of a foreign key: a relation whose name the client did not send.
        return facts.seals.column(used.column).map(|mask| looked_up(facts, &mask.rule));
    }
    let column = facts.snapshot.column_name(used.column);
    let object = || Object::column(&facts.target, &seal.name, column, used.at);
    // Those of the catalogs tell where and when a definition was stored, which tools ask for.
    let of_catalog = facts.snapshot.relation(used.column.relation).is_some_and(Relation::is_metadata);
    if used.column.attribute < 0 && of_catalog {
        return None;
    }
    if used.column.attribute <= 0 {
        return Some(
            Refusal::new(
                RefusalCode::OpaqueStatement,
                "system columns of a relation with sealed columns are not available",
            )
            .object(object())
            .suggestion("name the columns you need"),
        );
    }
    let mask = facts.seals.column(used.column)?;
    if facts.seals.hidden().column(used.column) && used.how != Use::Written {
        return Some(unseen(facts, used.at));
    }
    let shown = column.unwrap_or("column");
    let refused = mask.mask == Mask::Refuse;
    let (code, may_not) = match used.how {
        Use::Projected | Use::Derived if refused => (RefusalCode::Denied, "selected"),
        Use::Projected | Use::Derived => return None,
        Use::Expression => (RefusalCode::MaskedColumnInExpression, "computed with"),
        Use::Lookup if mask.lookup == Lookup::Equality && !refused => return None,
        // How many are NULL is shown where NULL is.
        Use::Presence if mask.nulls == Nulls::Keep && !refused => return None,
        Use::Predicate | Use::Lookup | Use::Presence => (RefusalCode::MaskedColumnInPredicate, "compared"),
        Use::Key => (RefusalCode::MaskedColumnInKey, "grouped, sorted, joined or deduplicated by"),
        // A value of the client's own goes into it.
        Use::Written | Use::Referenced => return None,
        Use::Source => (RefusalCode::MaskedColumnInWrite, "written anywhere"),
    };
    let refusal = if refused {
        Refusal::new(code, format!("{shown} is sealed for you and may not be {may_not}"))
            .suggestion(format!("leave {shown} out of the statement"))
    } else {
        let refusal =
            Refusal::new(code, format!("{shown} is sealed for you; it may be selected (masked) but not {may_not}"))
                .allowed(format!("select {shown} (masked)"));
        match mask.lookup {
            Lookup::Equality => refusal
                .allowed(format!("{shown} = literal or parameter, as a condition of its own of a plain SELECT"))
                .suggestion(format!("use {shown} as a plain output column, or look up one value of it")),
            Lookup::Refused => refusal.suggestion(format!("use {shown} as a plain output column only")),
        }
    };
    Some(refusal.rule(&mask.rule).object(object()))
}

/// A column whose name finds nothing, taken along by a star, a whole row or a list of new names.
fn unseen(facts: &SessionFacts, at: Option<usize>) -> Refusal {
    Refusal::new(RefusalCode::Denied, "not every column of this relation is there for you")
        .object(Object::at(&facts.target, at))
        .suggestion("name the columns you need")
}

/// A foreign key compares what is written with a sealed column: each row would be a guess at its values.
pub(crate) fn looked_up(facts: &SessionFacts, rule: &str) -> Refusal {
    Refusal::new(RefusalCode::MaskedColumnInKey, "a foreign key of what is written looks up a column sealed for you")
        .rule(rule)
        .object(Object::at(&facts.target, None))
        .suggestion("write to a relation without such a key")
}
