//! COPY held against the seals. To the client its sealed columns are masked in the stream, where the statement says
//! how that is written down; to a file or program of the server nothing sealed goes.

use exeat_sql::{CatalogSnapshot, ColumnId, Flow, ForceQuote, Lineage, Origin, Output, StatementKind};

use crate::evaluate::SessionFacts;
use crate::mask::TypeKin;
use crate::plan::{CopiedColumn, CopyPlan, Outputs};
use crate::refusal::{Object, Refusal, RefusalCode};

/// The statement reads, and hands what it reads to the client or to a file or program of the server.
pub(crate) fn takes_out(kind: &StatementKind) -> bool {
    matches!(kind, StatementKind::CopyOut | StatementKind::CopyFile)
}

/// A COPY that would take a sealed column to the server's files, or that uses one to choose what it takes there.
pub(crate) fn to_a_file(facts: &SessionFacts, kind: &StatementKind, lineage: &Lineage) -> Option<Refusal> {
    let takes = *kind == StatementKind::CopyFile && lineage.writes.is_empty();
    let used = || lineage.uses.iter().any(|used| facts.seals.column(used.column).is_some());
    (takes && used()).then(|| {
        Refusal::new(
            RefusalCode::OpaqueStatement,
            "columns that are sealed for you are not copied to a file or program",
        )
        .object(Object::at(&facts.target, None))
        .suggestion("use COPY TO STDOUT, which masks them, or copy columns that are not sealed")
    })
}

/// What is sent, from what would be returned. Without a masked column it passes as it is.
pub(crate) fn plan(facts: &SessionFacts, lineage: &Lineage, outputs: Outputs) -> Result<Outputs, Box<Refusal>> {
    let Outputs::Columns(planned) = outputs else { return Ok(outputs) };
    if planned.iter().all(|column| column.mask.is_none()) {
        return Ok(Outputs::None);
    }
    let Some(layout) = &lineage.copy_layout else { return Err(Box::new(unclear_layout(facts))) };
    let sources = lineage.outputs.iter().flatten();
    let columns = planned.into_iter().zip(sources).map(|(column, source)| {
        let kin = kin_of(source, &facts.snapshot);
        let force_quote = match &layout.force_quote {
            ForceQuote::None => false,
            ForceQuote::All => true,
            ForceQuote::Columns(names) => column.name.as_ref().is_some_and(|name| names.contains(name)),
        };
        CopiedColumn { name: column.name, kin, mask: column.mask, force_quote }
    });
    let columns = columns.collect();
    Ok(Outputs::Copied(CopyPlan { columns, layout: layout.clone() }))
}

/// No description says which type is copied: a column's own is known, and what is one of several texts is a text.
fn kin_of(output: &Output, snapshot: &CatalogSnapshot) -> TypeKin {
    let of = |id: &ColumnId| {
        let base = snapshot.column(*id).map(|column| snapshot.base_type(column.type_oid));
        base.map_or(TypeKin::Other, |base| TypeKin::of(base.0, snapshot.type_name(base)))
    };
    match output.origin {
        Origin::Column(id) => of(&id),
        Origin::None | Origin::Unknown => {
            let is_text = |(id, how): (&ColumnId, &Flow)| *how == Flow::Bare && of(id).is_text();
            let all = !output.flows.is_empty() && output.flows.iter().all(is_text);
            if all { TypeKin::Text } else { TypeKin::Other }
        }
    }
}

fn unclear_layout(facts: &SessionFacts) -> Refusal {
    Refusal::new(
        RefusalCode::OpaqueStatement,
        "the options of this COPY leave open where a sealed value begins and ends, or whether it is NULL",
    )
    .object(Object::at(&facts.target, None))
    .suggestion("leave out NULL, QUOTE, ESCAPE and ENCODING, or use FORMAT csv")
}

/// Its data has no description by which the masks could find their columns.
pub(crate) fn refusal(facts: &SessionFacts) -> Refusal {
    Refusal::new(
        RefusalCode::OpaqueStatement,
        "what this COPY takes out cannot be told, and columns are sealed for you",
    )
    .object(Object::at(&facts.target, None))
    .suggestion("copy a plain query, which is masked")
}
