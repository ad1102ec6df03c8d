//! Lookups of sealed columns: which values a statement tries, and in what form each of them is counted. Two spellings of
//! one value may count twice; two values never count as one, or trying one would be free once the other is paid for.
//! Counts nothing itself, and knows no clock.

use exeat_policy::{AppliedLimit, ColumnMask, Lookup, Policy, RelationName};
use exeat_sql::{ColumnId, Given, Lineage, LookupValue, Oid, lookup_element, lookup_takes};
use exeat_wire::{Bind, Format};

use crate::canonical;
use crate::evaluate::{SessionFacts, relation_name};
use crate::refusal::{Object, Refusal, RefusalCode};

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
    /// The column as the statement knows it: that of a foreign key stands for the one it looks in.
    said: String,
    pub limit: AppliedLimit,
    values: Vec<Tried>,
}

/// What is tried, as far as it is known before the statement is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tried {
    /// Values of the column.
    Of(Planned),
    /// A key of several columns, by their names: whether another row has it. `None` is NULL.
    Key(Vec<(String, Option<Planned>)>),
}

#[derive(Clone, PartialEq, Eq)]
enum Planned {
    /// Each in the form to be counted, but for the column.
    Forms(Vec<Vec<u8>>),
    Bound {
        number: usize,
        is_array: bool,
        of: Oid,
        infers_type: bool,
    },
}

/// Without the values, which are somebody's data.
impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forms(forms) => write!(f, "{} forms", forms.len()),
            Self::Bound { number, .. } => write!(f, "${number}"),
        }
    }
}

/// What a Bind brings, and as what its statement's Parse declared it. `None`: what it was declared as is not known.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    pub bind: &'a Bind,
    pub types: Option<&'a [u32]>,
}

/// Which values they are cannot be told. `number`: of the parameter at fault.
struct Unclear {
    number: Option<usize>,
}

/// What of a permitted statement's lookups is to be counted.
pub(crate) fn planned(
    facts: &SessionFacts,
    policy: &Policy,
    lineage: &Lineage,
) -> Result<Vec<PlannedLookup>, Box<Refusal>> {
    let mut all = Vec::new();
    for lookup in &lineage.lookups {
        // Uses of columns that may not be looked up are refused, and nothing of the statement runs.
        let allowed = |mask: &&ColumnMask| mask.lookup == Lookup::Equality;
        let Some(mask) = facts.seals.column(lookup.column).filter(allowed) else { continue };
        let mut planned = PlannedLookup::of(facts, policy, lookup.column, mask)?;
        for value in &lookup.values {
            match Planned::of(lookup.of, value, lookup.shares_parameters) {
                Ok(value) => planned.values.push(Tried::Of(value)),
                Err(unclear) => return Err(Box::new(planned.unclear(&facts.target, &unclear))),
            }
        }
        all.push(planned);
    }
    Ok(all)
}

/// A key that is written: what the client gives for each of its columns. `None`: not all of it can be told. Policy need
/// not say `lookup`: who may write rows must be able to, and a rule's limit of no probes forbids it.
pub(crate) fn written(
    facts: &SessionFacts,
    policy: &Policy,
    key: &[(ColumnId, &Given)],
) -> Result<Option<Vec<PlannedLookup>>, Box<Refusal>> {
    let mut cells = Vec::with_capacity(key.len());
    for (column, given) in key {
        let Some(name) = facts.snapshot.column_name(*column) else { return Err(Box::new(Refusal::catalog_drift())) };
        let value = match given {
            Given::Null => None,
            Given::Value { of, value, shared } => match Planned::of(*of, value, *shared) {
                Ok(value) => Some(value),
                Err(Unclear { .. }) => return Ok(None),
            },
            Given::Computed => return Ok(None),
        };
        cells.push((name.to_owned(), value));
    }
    let tried = match cells.as_slice() {
        // As WHERE would try it.
        [(_, Some(value))] => Tried::Of(value.clone()),
        _ => Tried::Key(cells),
    };
    let mut all = Vec::new();
    for (column, _) in key {
        let Some(mask) = facts.seals.column(*column) else { continue };
        let planned = PlannedLookup::of(facts, policy, *column, mask)?;
        all.push(PlannedLookup { values: vec![tried.clone()], ..planned });
    }
    Ok(Some(all))
}

/// Values that a foreign key looks for: `key` says of which columns. What is said of it names the column that refers to
/// them, for the client may not know of the others.
pub(crate) fn referenced(
    (facts, policy): (&SessionFacts, &Policy),
    key: &[(ColumnId, &Given)],
    referring: ColumnId,
) -> Result<Option<Vec<PlannedLookup>>, Box<Refusal>> {
    let Some(name) = facts.snapshot.column_name(referring) else { return Err(Box::new(Refusal::catalog_drift())) };
    let named = relation_name(&facts.snapshot, referring.relation);
    let worded = |planned| PlannedLookup { named: named.clone(), said: name.to_owned(), ..planned };
    Ok(written(facts, policy, key)?.map(|all| all.into_iter().map(worded).collect()))
}

/// One plan for each counter and column: a statement may write very many rows.
pub(crate) fn add(all: &mut Vec<PlannedLookup>, planned: PlannedLookup) {
    let same = |known: &&mut PlannedLookup| {
        (&known.label, &known.relation, &known.named, &known.column)
            == (&planned.label, &planned.relation, &planned.named, &planned.column)
    };
    match all.iter_mut().find(same) {
        Some(known) => known.values.extend(planned.values),
        None => all.push(planned),
    }
}

impl Planned {
    fn of(of: Oid, value: &LookupValue, shared: bool) -> Result<Self, Unclear> {
        let infers_type = canonical::is_string(of) || !shared;
        let forms = match value {
            LookupValue::Literal(text) => {
                canonical::value(of, None, Format::Text, text.as_bytes()).map(|form| vec![form])
            }
            LookupValue::LiteralArray(text) => canonical::array(of, None, Format::Text, text.as_bytes()),
            LookupValue::Parameter(number) => {
                return Ok(Self::Bound { number: *number, is_array: false, of, infers_type });
            }
            LookupValue::ParameterArray(number) => {
                return Ok(Self::Bound { number: *number, is_array: true, of, infers_type });
            }
        };
        forms.map(Self::Forms).ok_or(Unclear { number: None })
    }

    /// The forms. `parameters`: `None` for a message that brings none.
    fn forms(&self, parameters: Option<Parameters<'_>>) -> Result<Vec<Vec<u8>>, Unclear> {
        match self {
            Self::Forms(forms) => Ok(forms.clone()),
            Self::Bound { number, is_array, of, infers_type } => match parameters {
                Some(parameters) => {
                    bound(parameters, (*number, *is_array), *of, *infers_type).ok_or(Unclear { number: Some(*number) })
                }
                // Without the parameter, or with one too few, the server refuses the message.
                None => Ok(Vec::new()),
            },
        }
    }
}

/// `None`: what it tries cannot be told.
fn bound(
    Parameters { bind, types }: Parameters<'_>,
    (number, is_array): (usize, bool),
    of: Oid,
    infers_type: bool,
) -> Option<Vec<Vec<u8>>> {
    let index = number.checked_sub(1)?;
    let declared = types?.get(index).copied().filter(|declared| !UNSPECIFIED.contains(declared)).map(Oid);
    let declared = match declared {
        Some(array) if is_array => Some(lookup_element(array)?),
        declared => declared,
    };
    let fits = declared.map_or(infers_type, |declared| lookup_takes(of, declared));
    if !fits {
        return None;
    }
    let Some(Some(value)) = bind.parameters.get(index) else { return Some(Vec::new()) };
    let format = bind.parameter_format(index)?;
    if is_array {
        return canonical::array(of, declared, format, value);
    }
    canonical::value(of, declared, format, value).map(|form| vec![form])
}

impl PlannedLookup {
    /// Memory that it keeps, about.
    pub(crate) fn bytes(&self) -> usize {
        let forms = |planned: &Planned| match planned {
            Planned::Forms(forms) => forms.iter().map(|form| size_of_val(form) + form.len()).sum::<usize>(),
            Planned::Bound { .. } => 0,
        };
        let tried = |tried: &Tried| {
            size_of::<Tried>()
                + match tried {
                    Tried::Of(planned) => forms(planned),
                    Tried::Key(cells) => cells
                        .iter()
                        .map(|cell| size_of_val(cell) + cell.0.len() + cell.1.as_ref().map_or(0, forms))
                        .sum::<usize>(),
                }
        };
        size_of::<Self>() + self.values.iter().map(tried).sum::<usize>()
    }

    /// Without values yet.
    fn of(facts: &SessionFacts, policy: &Policy, column: ColumnId, mask: &ColumnMask) -> Result<Self, Box<Refusal>> {
        // Rows of a partition come out of its parent: trying both must not give the allowance twice.
        let members = facts.snapshot.family(column.relation).into_iter().chain([column.relation]);
        let relation = members.min().and_then(|oid| relation_name(&facts.snapshot, oid));
        let (Some(relation), Some(name)) = (relation, facts.snapshot.column_name(column)) else {
            return Err(Box::new(Refusal::catalog_drift()));
        };
        Ok(Self {
            label: mask.label.clone(),
            rule: mask.rule.clone(),
            limit: policy.probe_limit(&facts.principal, &facts.target, &relation),
            relation,
            named: relation_name(&facts.snapshot, column.relation),
            column: name.to_owned(),
            said: name.to_owned(),
            values: Vec::new(),
        })
    }

    /// Whether its values are known only where the statement is bound.
    pub fn takes_parameters(&self) -> bool {
        let is_bound = |planned: &Planned| matches!(planned, Planned::Bound { .. });
        self.values.iter().any(|tried| match tried {
            Tried::Of(planned) => is_bound(planned),
            Tried::Key(cells) => cells.iter().filter_map(|(_, planned)| planned.as_ref()).any(is_bound),
        })
    }

    /// What is to be counted, a form for each value. `parameters`: `None` for a message that brings none.
    pub fn tried(&self, target: &str, parameters: Option<Parameters<'_>>) -> Result<Vec<Vec<u8>>, Box<Refusal>> {
        let mut forms = Vec::with_capacity(self.values.len());
        for tried in &self.values {
            let found = match tried {
                Tried::Of(planned) => planned.forms(parameters).map(|values| {
                    forms.extend(values.iter().map(|value| value_form(&self.column, value)));
                }),
                Tried::Key(cells) => key_form(cells, parameters).map(|form| forms.push(form)),
            };
            found.map_err(|unclear| Box::new(self.unclear(target, &unclear)))?;
        }
        Ok(forms)
    }

    fn object(&self, target: &str) -> Object {
        match &self.named {
            Some(named) => Object::column(target, named, Some(&self.said), None),
            None => Object::at(target, None),
        }
    }

    fn unclear(&self, target: &str, Unclear { number }: &Unclear) -> Refusal {
        let column = &self.said;
        let what = number.map_or("what it is compared with".to_owned(), |number| format!("${number}"));
        Refusal::new(
            RefusalCode::MaskedColumnInPredicate,
            format!(
                "{column} is sealed for you; it may be tried with values of its own type that mean the same under \
                 every setting, and {what} is none"
            ),
        )
        .rule(&self.rule)
        .object(self.object(target))
        .suggestion(
            "give parameters the column's type; write dates as 2001-02-03, times as 2001-02-03 04:05:06 (with the \
             offset, +00, where there is a time zone), and arrays as {a,b}",
        )
    }

    /// More values at once than are ever counted.
    pub fn too_many(&self, target: &str, values: usize, limit: usize) -> Refusal {
        Refusal::new(
            RefusalCode::LookupProbes,
            format!("the statement looks up {values} values of {}, more than the limit of {limit}", self.said),
        )
        .rule(&self.rule)
        .object(self.object(target))
        .suggestion("look up fewer values")
    }

    /// The allowance does not reach.
    pub fn exhausted(&self, target: &str, used: u32, after_seconds: u64, resets_at: String) -> Refusal {
        let Self { said: column, limit, .. } = self;
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

/// The column first: two columns under one label are two questions.
fn value_form(column: &str, value: &[u8]) -> Vec<u8> {
    let mut form = Vec::with_capacity(column.len() + value.len() + size_of::<u64>());
    part(&mut form, column.as_bytes());
    form.extend_from_slice(value);
    form
}

/// No column's name is as long as the number in front says.
fn key_form(cells: &[(String, Option<Planned>)], parameters: Option<Parameters<'_>>) -> Result<Vec<u8>, Unclear> {
    let mut form = u64::MAX.to_le_bytes().to_vec();
    for (column, planned) in cells {
        part(&mut form, column.as_bytes());
        let values = planned.as_ref().map_or_else(|| Ok(Vec::new()), |planned| planned.forms(parameters))?;
        // NULL is no value.
        form.push(u8::from(!values.is_empty()));
        values.iter().for_each(|value| part(&mut form, value));
    }
    Ok(form)
}

fn part(form: &mut Vec<u8>, bytes: &[u8]) {
    form.extend_from_slice(&bytes.len().to_le_bytes());
    form.extend_from_slice(bytes);
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
