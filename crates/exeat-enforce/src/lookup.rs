//! Lookups of sealed columns: which values a statement tries, and in what form each of them is counted. Two spellings of
//! one value may count twice; two values never count as one, or trying one would be free once the other is paid for.
//! Counts nothing itself, and knows no clock.

use exeat_policy::{AppliedLimit, Lookup, Policy, RelationName};
use exeat_sql::{Lineage, LookupValue, Oid, lookup_takes};
use exeat_wire::{Bind, Format};

use crate::evaluate::{SessionFacts, relation_name};
use crate::refusal::{Object, Refusal, RefusalCode};

/// text, varchar, bpchar and name: on the wire the same bytes in both formats.
const STRINGS: [Oid; 4] = [Oid(25), Oid(1043), Oid(1042), Oid(19)];

/// A parameter whose type the client leaves to the server, by either of the numbers for it.
const UNSPECIFIED: [u32; 2] = [0, 705];

/// Comparisons of one sealed column that the statement makes, each of them to be counted before it is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLookup {
    pub label: String,
    /// The rule that seals the column.
    pub rule: String,
    /// Whose counter it is: of all relations whose rows come out as one, always the same.
    pub relation: RelationName,
    /// As the statement names the relation.
    named: Option<RelationName>,
    pub column: String,
    pub limit: AppliedLimit,
    of: Oid,
    values: Vec<LookupValue>,
}

/// What a Bind brings, and as what its statement's Parse declared it. `None`: what it was declared as is not known.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    pub bind: &'a Bind,
    pub types: Option<&'a [u32]>,
}

/// What of a permitted statement's lookups is to be counted.
pub(crate) fn planned(facts: &SessionFacts, policy: &Policy, lineage: &Lineage) -> Vec<PlannedLookup> {
    let planned = lineage.lookups.iter().filter_map(|lookup| {
        let mask = facts.seals.column(lookup.column)?;
        // Uses of the others are refused, and nothing of the statement runs.
        if mask.lookup != Lookup::Equality {
            return None;
        }
        // Rows of a partition come out of its parent: trying both must not give the allowance twice.
        let oid = facts.snapshot.family(lookup.column.relation).into_iter().chain([lookup.column.relation]).min()?;
        let relation = relation_name(&facts.snapshot, oid)?;
        let limit = policy.probe_limit(&facts.principal, &facts.target, &relation);
        Some(PlannedLookup {
            label: mask.label.clone(),
            rule: mask.rule.clone(),
            relation,
            named: relation_name(&facts.snapshot, lookup.column.relation),
            column: facts.snapshot.column_name(lookup.column)?.to_owned(),
            limit,
            of: lookup.of,
            values: lookup.values.clone(),
        })
    });
    planned.collect()
}

impl PlannedLookup {
    /// Whether its values are known only where the statement is bound.
    pub fn takes_parameters(&self) -> bool {
        self.values.iter().any(|value| matches!(value, LookupValue::Parameter(_)))
    }

    /// What is to be counted, a form for each value. `parameters`: `None` for a message that brings none.
    pub fn tried(&self, target: &str, parameters: Option<Parameters<'_>>) -> Result<Vec<Vec<u8>>, Box<Refusal>> {
        let mut tried = Vec::with_capacity(self.values.len());
        for value in &self.values {
            match value {
                LookupValue::Literal(text) => tried.push(self.form(Format::Text, 0, text.as_bytes())),
                LookupValue::Parameter(number) => {
                    // Without the parameter, or with one too few, the server refuses the message.
                    let Some(parameters) = parameters else { continue };
                    let form = self.bound(parameters, number.saturating_sub(1));
                    tried.extend(form.map_err(|()| Box::new(self.unclear(target, *number)))?);
                }
            }
        }
        Ok(tried)
    }

    fn bound(&self, Parameters { bind, types }: Parameters<'_>, index: usize) -> Result<Option<Vec<u8>>, ()> {
        let declared = types.ok_or(())?.get(index).copied().unwrap_or_default();
        let declared = if UNSPECIFIED.contains(&declared) { 0 } else { declared };
        if declared != 0 && !lookup_takes(self.of, Oid(declared)) {
            return Err(());
        }
        let Some(Some(value)) = bind.parameters.get(index) else { return Ok(None) };
        let format = bind.parameter_format(index).ok_or(())?;
        Ok(Some(self.form(format, declared, value)))
    }

    /// The column first: two columns under one label are two questions.
    fn form(&self, format: Format, declared: u32, value: &[u8]) -> Vec<u8> {
        let mut form = Vec::with_capacity(self.column.len() + value.len() + 16);
        form.extend_from_slice(&self.column.len().to_le_bytes());
        form.extend_from_slice(self.column.as_bytes());
        if !STRINGS.contains(&self.of) {
            form.push(match format {
                Format::Text => b't',
                Format::Binary => b'b',
            });
            form.extend_from_slice(&declared.to_le_bytes());
        }
        form.extend_from_slice(value);
        form
    }

    fn object(&self, target: &str) -> Object {
        match &self.named {
            Some(named) => Object::column(target, named, Some(&self.column), None),
            None => Object::at(target, None),
        }
    }

    fn unclear(&self, target: &str, number: usize) -> Refusal {
        let column = &self.column;
        Refusal::new(
            RefusalCode::MaskedColumnInPredicate,
            format!("{column} is sealed for you; it may be looked up by values of its own type, and ${number} is none"),
        )
        .rule(&self.rule)
        .object(self.object(target))
        .suggestion(format!("leave the type of ${number} to the server, or write the value into the statement"))
    }

    /// More values at once than are ever counted.
    pub fn too_many(&self, target: &str, values: usize, limit: usize) -> Refusal {
        Refusal::new(
            RefusalCode::LookupProbes,
            format!("the statement looks up {values} values of {}, more than the limit of {limit}", self.column),
        )
        .rule(&self.rule)
        .object(self.object(target))
        .suggestion("look up fewer values")
    }

    /// The allowance does not reach.
    pub fn exhausted(&self, target: &str, used: u32, after_seconds: u64, resets_at: String) -> Refusal {
        let Self { column, limit, .. } = self;
        let probes = limit.limit.probes;
        Refusal::new(
            RefusalCode::LookupProbes,
            format!(
                "you have looked up {used} of the {probes} values of {column} that you may try, and this asks for more"
            ),
        )
        .rule(limit.rule.as_ref().unwrap_or(&self.rule))
        .object(self.object(target))
        .allowed("values that you have looked up before")
        .suggestion("wait until the time in `retry`, or ask the policy's owner for more")
        .retry(after_seconds, resets_at)
    }
}

/// Only values known before the statement ran are counted: EXECUTE brings its own.
pub(crate) fn unfit_for_execute(target: &str) -> Refusal {
    Refusal::new(
        RefusalCode::OpaqueStatement,
        "EXECUTE of a statement that looks up a sealed column by a parameter is not analysed",
    )
    .object(Object::at(target, None))
    .suggestion("send the SELECT itself, with the value in its text or as a parameter of the protocol")
}
