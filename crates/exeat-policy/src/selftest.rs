//! In-file tests of a policy: their shape. Running one needs a parser and a catalog and happens elsewhere; what a
//! test may say, and that it speaks of labels and codes that exist, is checked here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;

use crate::document::{Diagnostics, MappingReader, Node, Span, Value};
use crate::label::Label;
use crate::load::{Draft, parse_kind};
use crate::principal::{Principal, PrincipalKind};

/// The closed list of refusal codes.
const CODES: &[&str] = &[
    "no_rule",
    "denied",
    "capability_missing",
    "masked_column_in_predicate",
    "masked_column_in_write",
    "masked_column_in_expression",
    "masked_column_in_key",
    "opaque_statement",
    "opaque_function",
    "unresolved_name",
    "unclassified_relation",
    "catalog_drift",
    "select_star",
    "unbounded_read",
    "unbounded_write",
    "setting_pinned",
    "lookup_probes",
    "row_limit",
    "byte_limit",
    "cell_limit",
    "refusal_limit",
    "approval_pending",
    "approval_denied",
    "approval_expired",
    "statement_too_large",
    "statement_changed",
    "not_enforceable",
];

/// One entry of `tests:`.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyTest {
    /// Where it is written: its name in reports.
    pub place: Span,
    pub principal: Principal,
    pub target: String,
    pub statement: String,
    pub expect: Expectation,
}

/// What a test expects of its statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    /// A human is asked before it runs.
    Hold,
    Allow {
        /// Output column to label, exactly the masked ones; `None` when the test does not say.
        masked: Option<BTreeMap<String, String>>,
        /// Output column to the stored columns whose values are in it, as `schema.table.column`; of those named only.
        lineage: BTreeMap<String, BTreeSet<String>>,
    },
    Deny {
        /// The refusal's code; `None` when any will do.
        code: Option<String>,
    },
}

/// Reads one test. The default issuer stands in where `as` names none.
pub(crate) fn read(node: &Node, draft: &Draft<'_>, diags: &mut Diagnostics) -> Option<PolicyTest> {
    let mut reader = node.mapping(diags)?;
    let issuer = &draft.policy.default_issuer;
    let principal = reader.required("as", diags).and_then(|node| read_principal(node, issuer, diags));
    let target = reader.required("target", diags).and_then(|node| {
        let target = node.as_string(diags)?;
        draft.check_target(target, &node.span, diags);
        Some(target)
    });
    let statement = reader.required("statement", diags).and_then(|node| node.as_text(diags));
    let expect = reader.required("expect", diags).and_then(|node| read_expectation(node, diags));
    reader.finish(diags);
    Some(PolicyTest {
        place: node.span.clone(),
        principal: principal?,
        target: target?.to_owned(),
        statement: statement?.to_owned(),
        expect: expect?,
    })
}

/// Labels a test expects must exist at its target.
pub(crate) fn check(test: &PolicyTest, labels: &BTreeMap<String, Vec<Label>>, diags: &mut Diagnostics) {
    let Expectation::Allow { masked: Some(masked), .. } = &test.expect else { return };
    let known = labels.get(&test.target).map_or(&[][..], Vec::as_slice);
    for label in masked.values().filter(|label| !known.iter().any(|known| known.name() == *label)) {
        diags.error(
            &test.place,
            format!("the test expects label `{label}`, which target `{}` does not have", test.target),
        );
    }
}

fn read_principal(node: &Node, default_issuer: &str, diags: &mut Diagnostics) -> Option<Principal> {
    let mut reader = node.mapping(diags)?;
    let subject = reader.required("sub", diags).and_then(|node| node.as_string(diags));
    let issuer = string(&mut reader, "issuer", diags);
    let actor = string(&mut reader, "actor", diags);
    let groups = reader.optional("groups").and_then(|node| read_names(node, diags)).unwrap_or_default();
    let kind = reader.optional("kind").and_then(|node| parse_kind(node, diags)).unwrap_or(PrincipalKind::Human);
    let claims = reader.optional("claims").and_then(|node| read_claims(node, diags)).unwrap_or_default();
    reader.finish(diags);
    Some(Principal {
        issuer: issuer.unwrap_or_else(|| default_issuer.to_owned()),
        subject: subject?.to_owned(),
        groups,
        claims,
        actor,
        kind,
        token_id: None,
        instance: BTreeMap::new(),
    })
}

fn string(reader: &mut MappingReader<'_>, key: &'static str, diags: &mut Diagnostics) -> Option<String> {
    reader.optional(key)?.as_string(diags).map(str::to_owned)
}

/// Unlike a rule's lists, a principal's groups and what a value is made of may be empty.
fn read_names(node: &Node, diags: &mut Diagnostics) -> Option<Vec<String>> {
    if node.as_list(diags)?.is_empty() { Some(Vec::new()) } else { node.as_strings(diags) }
}

fn read_claims(node: &Node, diags: &mut Diagnostics) -> Option<Map<String, serde_json::Value>> {
    let entries = node.entries(diags)?;
    Some(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
}

/// `refused: code` stands for `decision: deny, code: code`.
fn read_expectation(node: &Node, diags: &mut Diagnostics) -> Option<Expectation> {
    let mut reader = node.mapping(diags)?;
    if let Some(refused) = reader.optional("refused") {
        reader.finish(diags);
        return Some(Expectation::Deny { code: Some(read_code(refused, diags)?) });
    }
    let decision = reader.required("decision", diags);
    let (masked, lineage) = (reader.optional_entry("masked"), reader.optional_entry("lineage"));
    let code = reader.optional_entry("code");
    reader.finish(diags);
    let decision = decision?;
    if decision.value == Value::String("hold".to_owned()) {
        if let Some(entry) = masked.or(lineage).or(code) {
            diags.error(&entry.key_span, format!("a test of what is held says nothing of `{}`", entry.key));
            return None;
        }
        return Some(Expectation::Hold);
    }
    if decision.one_of(&[("allow", true), ("deny", false)], diags)? {
        if let Some(code) = code {
            diags.error(&code.key_span, "an allowed statement has no refusal `code`");
            return None;
        }
        let masked = masked.map(|masked| read_masked(&masked.value, diags));
        let lineage = lineage.map(|lineage| read_lineage(&lineage.value, diags));
        return match (masked, lineage) {
            (Some(None), _) | (_, Some(None)) => None,
            (masked, lineage) => {
                Some(Expectation::Allow { masked: masked.flatten(), lineage: lineage.flatten().unwrap_or_default() })
            }
        };
    }
    if let Some(entry) = masked.or(lineage) {
        diags.error(&entry.key_span, format!("a refused statement has no `{}` columns", entry.key));
        return None;
    }
    let Some(code) = code else { return Some(Expectation::Deny { code: None }) };
    Some(Expectation::Deny { code: Some(read_code(&code.value, diags)?) })
}

fn read_code(node: &Node, diags: &mut Diagnostics) -> Option<String> {
    let codes: Vec<(&str, &str)> = CODES.iter().map(|code| (*code, *code)).collect();
    node.one_of(&codes, diags).map(str::to_owned)
}

fn read_masked(node: &Node, diags: &mut Diagnostics) -> Option<BTreeMap<String, String>> {
    let mut masked = BTreeMap::new();
    for entry in node.entries(diags)? {
        masked.insert(entry.key.clone(), entry.value.as_string(diags)?.to_owned());
    }
    Some(masked)
}

fn read_lineage(node: &Node, diags: &mut Diagnostics) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let mut lineage = BTreeMap::new();
    for entry in node.entries(diags)? {
        lineage.insert(entry.key.clone(), read_names(&entry.value, diags)?.into_iter().collect());
    }
    Some(lineage)
}
