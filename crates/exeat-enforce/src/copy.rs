//! COPY held against the seals. Its data is neither described nor masked by this version: what would take a sealed
//! value out is refused, to the client as to a file or program of the server.

use exeat_sql::{Lineage, StatementKind};

use crate::evaluate::SessionFacts;
use crate::refusal::{Object, Refusal, RefusalCode};

/// The statement reads, and hands what it reads to the client or to a file or program of the server.
pub(crate) fn takes_out(kind: &StatementKind) -> bool {
    matches!(kind, StatementKind::CopyOut | StatementKind::CopyFile)
}

/// A COPY that would take a sealed column out, or that uses one to choose what it takes out.
pub(crate) fn sealed(facts: &SessionFacts, kind: &StatementKind, lineage: &Lineage) -> Option<Refusal> {
    let takes = takes_out(kind) && lineage.writes.is_empty();
    let used = || lineage.uses.iter().any(|used| facts.seals.column(used.column).is_some());
    (takes && used()).then(|| refusal(facts))
}

pub(crate) fn refusal(facts: &SessionFacts) -> Refusal {
    Refusal::new(
        RefusalCode::OpaqueStatement,
        "COPY of columns that are sealed for you is not supported by this version",
    )
    .object(Object::at(&facts.target, None))
    .suggestion("use SELECT, which masks them, or copy columns that are not sealed")
}
