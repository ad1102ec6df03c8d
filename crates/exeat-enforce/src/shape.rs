//! Statements refused for their shape, whatever they read: stars over relations with sealed columns where a rule wants
//! columns named, and writes that no condition limits to some rows of a relation with a label.

use exeat_policy::shape::WholeWrite;
use exeat_policy::{Policy, RelationName};
use exeat_sql::{Lineage, Oid, Relation};

use crate::evaluate::{SessionFacts, relation_name};
use crate::refusal::{Object, Refusal, RefusalCode};

pub(crate) fn refusal(facts: &SessionFacts, policy: &Policy, lineage: &Lineage) -> Option<Refusal> {
    star(facts, policy, lineage).or_else(|| whole_write(facts, policy, lineage))
}

fn star(facts: &SessionFacts, policy: &Policy, lineage: &Lineage) -> Option<Refusal> {
    lineage.stars.iter().find_map(|(oid, at)| {
        // Tools read the catalogs with stars.
        if facts.snapshot.relation(*oid).is_some_and(Relation::is_metadata) {
            return None;
        }
        let seal = facts.seals.relation(*oid)?;
        let rule = policy.forbids_star(&facts.principal, &facts.target, &seal.name)?;
        let RelationName { schema, name } = &seal.name;
        let reason = format!("{schema}.{name} has columns that are sealed for you: name the columns you need");
        Some(
            Refusal::new(RefusalCode::SelectStar, reason)
                .rule(rule)
                .object(Object { at: *at, ..Object::relation(&facts.target, Some(&seal.name)) })
                .suggestion("write the columns in place of the star or whole row"),
        )
    })
}

fn whole_write(facts: &SessionFacts, policy: &Policy, lineage: &Lineage) -> Option<Refusal> {
    lineage.unbounded.iter().find_map(|(oid, at)| {
        // Of a view the rows are those of the table behind it, which is not named to who did not name it.
        let behind =
            lineage.writing.iter().filter(|writing| writing.through == Some(*oid)).map(|writing| writing.relation);
        let rule = behind.chain([*oid]).find_map(|written| denied_whole(facts, policy, written))?;
        let named = relation_name(&facts.snapshot, *oid)?;
        let reason = format!("this would change every row of {}.{}", named.schema, named.name);
        let refusal = Refusal::new(RefusalCode::UnboundedWrite, reason)
            .object(Object { at: *at, ..Object::relation(&facts.target, Some(&named)) })
            .suggestion("say which rows: add a WHERE that compares one of its columns");
        Some(match rule {
            Some(rule) => refusal.rule(rule),
            None => refusal,
        })
    })
}

/// `Some`: by this rule, if by one.
fn denied_whole<'a>(facts: &SessionFacts, policy: &'a Policy, written: Oid) -> Option<Option<&'a str>> {
    let relation = relation_name(&facts.snapshot, written)?;
    let labelled = is_labelled(facts, policy, written);
    match policy.whole_write(&facts.principal, &facts.target, &relation, labelled) {
        // Held where the statement's volume is ruled on.
        WholeWrite::Allowed | WholeWrite::Held { .. } => None,
        WholeWrite::Denied { rule } => Some(rule),
    }
}

/// By name, by what is sealed for the principal, and with its family: rows of one are rows of the other.
pub(crate) fn is_labelled(facts: &SessionFacts, policy: &Policy, oid: Oid) -> bool {
    let labels = policy.labels(&facts.target);
    let carries_one = |relation: &Relation| {
        let mut columns = relation.columns.iter();
        columns
            .any(|column| labels.iter().any(|label| label.matches(&relation.schema_name, &relation.name, &column.name)))
    };
    let family = facts.snapshot.family(oid);
    family.iter().chain([&oid]).any(|member| {
        facts.seals.relation(*member).is_some() || facts.snapshot.relation(*member).is_none_or(carries_one)
    })
}
