//! What only the bodies of called functions name: it is held against policy and seals as everything else is, but a
//! refusal must not name it, for the client did not.

use exeat_sql::Lineage;

use crate::evaluate::{SessionFacts, relation_name};
use crate::refusal::{Object, Refusal};

/// The refusal as the client may see it.
pub(crate) fn unnamed(facts: &SessionFacts, lineage: &Lineage, refusal: Refusal) -> Refusal {
    let mut called = lineage.called.iter().filter_map(|oid| relation_name(&facts.snapshot, *oid));
    let is_called = called.any(|name| {
        let name = format!("{}.{}", name.schema, name.name);
        refusal.object.relation.as_deref() == Some(name.as_str())
    });
    if !is_called {
        return refusal;
    }
    let hidden = Refusal::new(refusal.code, "a function that this statement calls does what you may not do yourself")
        .object(Object::at(&facts.target, refusal.object.at))
        .suggestion("leave the call out, or ask the policy's owner whether the function is to be trusted");
    match refusal.rule {
        Some(rule) => hidden.rule(rule),
        None => hidden,
    }
}
