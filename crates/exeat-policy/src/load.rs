//! From policy files to a [`Policy`]: every key is understood or refused, every mistake of every file is reported
//! at once. What the format will mean in later versions is known by name and refused by name, since an obligation
//! that is not understood must not load as if it were not there.

mod holds;
mod limits;
mod masks;

use std::collections::BTreeMap;

use self::holds::{narrows_holds_only, read_hold, read_statements, words_have_terms};
use self::limits::read_limit;
use self::masks::read_masks;
use crate::check;
use crate::decision::Capability;
use crate::detector::Detector;
use crate::document::{Diagnostics, Document, Entry, MappingReader, Node, Span, Value, closest};
use crate::label::{Label, UNCLASSIFIED};
use crate::mask::Mask;
use crate::pattern::{ColumnPattern, PatternError, RelationPattern};
use crate::policy::{Policy, PolicyContext};
use crate::principal::PrincipalKind;
use crate::rule::{Effects, LabelMask, Rule};
use crate::selftest;
use crate::shape::{Shape, Stance};
use crate::who::{Actors, Conditions, Who};

/// Most files of one policy folder.
pub const POLICY_FILES_MAX: usize = 100;

/// Most rules of one policy: each is looked at for every statement.
pub const POLICY_RULES_MAX: usize = 1000;

/// Longest rule id, label or reason in bytes: they travel in refusals and in every record.
const NAME_BYTES_MAX: usize = 64;
const REASON_BYTES_MAX: usize = 500;

const RULE_KEYS_UNSUPPORTED: &[&str] = &["when", "ask", "mode"];

/// What a rule may do; a rule that denies takes none of it.
const EFFECT_KEYS: [&str; 9] =
    ["allow", "mask", "detect", "limit", "select_star", "unbounded_writes", "unbounded", "hold", "statements"];

/// What has been read so far, with what can only be judged when every file has been: a rule with one mistake is
/// not kept, but its id and masks are still checked.
pub(crate) struct Draft<'a> {
    pub(crate) context: &'a PolicyContext,
    pub(crate) policy: Policy,
    pub(crate) ids: Vec<(String, Span)>,
    pub(crate) masks: Vec<MaskMention>,
}

/// The masks of a rule and where it applies.
pub(crate) struct MaskMention {
    pub(crate) masks: Vec<LabelMask>,
    pub(crate) targets: Option<Vec<String>>,
    pub(crate) relations: Option<Vec<RelationPattern>>,
}

impl Policy {
    /// Reads and checks all files of a policy, given as (name, text). The name is used in messages only.
    pub fn load(files: &[(String, String)], context: &PolicyContext) -> Result<Policy, Diagnostics> {
        let mut diags = Diagnostics::new();
        if files.is_empty() {
            diags
                .file_error("policy", "there is no policy file")
                .help("write one: `version: 1` alone is a policy that refuses everything");
            return Err(diags);
        }
        if files.len() > POLICY_FILES_MAX {
            let message = format!("{} policy files exceed the limit of {POLICY_FILES_MAX}", files.len());
            diags.file_error("policy", message);
            return Err(diags);
        }
        let mut draft = Draft::new(context);
        for (name, text) in files {
            match Document::parse(name, text) {
                Ok(root) => read_file(&root, &mut draft, &mut diags),
                Err(broken) => diags.extend(broken),
            }
        }
        check::check(&draft, &mut diags);
        let mut policy = draft.policy;
        if !diags.has_errors() {
            policy.warnings = check::warn(&policy);
            policy.warnings.sort();
        }
        diags.into_result(Some(policy))
    }
}

impl<'a> Draft<'a> {
    fn new(context: &'a PolicyContext) -> Self {
        let policy = Policy {
            rules: Vec::new(),
            labels: BTreeMap::new(),
            tests: Vec::new(),
            default_issuer: context.default_issuer.clone().unwrap_or_default(),
            warnings: Diagnostics::new(),
        };
        Draft { context, policy, ids: Vec::new(), masks: Vec::new() }
    }

    /// A rule or label for a target that does not exist protects nothing.
    pub(crate) fn check_target(&self, target: &str, span: &Span, diags: &mut Diagnostics) {
        let Some(known) = &self.context.targets else { return };
        if known.iter().any(|name| name == target) {
            return;
        }
        let help = match closest(target, known.iter().map(String::as_str)) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("configured: {}", known.join(", ")),
        };
        diags.error(span, format!("target `{target}` is not configured")).help(help);
    }
}

fn read_file(root: &Node, draft: &mut Draft<'_>, diags: &mut Diagnostics) {
    let Some(mut reader) = root.mapping(diags) else { return };
    if let Some(version) = reader.required("version", diags) {
        read_version(version, diags);
    }
    if let Some(labels) = reader.optional("labels") {
        read_labels(labels, draft, diags);
    }
    let rules = reader.optional("rules").and_then(|node| node.as_list(diags));
    for node in rules.into_iter().flatten() {
        let rule = read_rule(node, draft, diags);
        draft.policy.rules.extend(rule);
    }
    let tests = reader.optional("tests").and_then(|node| node.as_list(diags));
    for node in tests.into_iter().flatten() {
        let test = selftest::read(node, draft, diags);
        draft.policy.tests.extend(test);
    }
    reader.finish(diags);
}

fn read_version(node: &Node, diags: &mut Diagnostics) {
    if let Some(version) = node.as_integer(0..=i64::MAX, diags)
        && version != 1
    {
        diags.error(&node.span, format!("policy version {version} is not supported, this version reads 1"));
    }
}

fn read_labels(node: &Node, draft: &mut Draft<'_>, diags: &mut Diagnostics) {
    for target in node.entries(diags).into_iter().flatten() {
        draft.check_target(&target.key, &target.key_span, diags);
        let Some(entries) = target.value.entries(diags) else { continue };
        let known = draft.policy.labels.entry(target.key.clone()).or_default();
        for entry in entries {
            let label = read_label(entry, known, diags);
            known.extend(label);
        }
    }
}

fn read_label(entry: &Entry, known: &[Label], diags: &mut Diagnostics) -> Option<Label> {
    check_name("label", &entry.key, &entry.key_span, diags)?;
    if entry.key == UNCLASSIFIED {
        diags.error(&entry.key_span, "label `unclassified` is reserved for columns without a label");
        return None;
    }
    if let Some(first) = known.iter().find(|label| label.name == entry.key) {
        diags.error(&entry.key_span, format!("label `{}` is already defined at {}", entry.key, first.place));
        return None;
    }
    let items = entry.value.as_list(diags)?;
    if items.is_empty() {
        diags.error(&entry.value.span, format!("label `{}` names no column", entry.key));
    }
    let patterns = items.iter().filter_map(|item| read_column_pattern(item, diags)).collect();
    Some(Label { name: entry.key.clone(), place: entry.key_span.clone(), patterns })
}

fn read_column_pattern(node: &Node, diags: &mut Diagnostics) -> Option<ColumnPattern> {
    if let Value::Mapping(_) = node.value {
        diags.error(&node.span, "labels on JSON paths and headers are not supported by this version");
        return None;
    }
    let text = node.as_string(diags)?;
    pattern(ColumnPattern::parse(text), node, diags)
}

fn pattern<T>(parsed: Result<T, PatternError>, node: &Node, diags: &mut Diagnostics) -> Option<T> {
    match parsed {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            diags.error(&node.span, error.to_string());
            None
        }
    }
}

/// Ids and labels travel in refusals, records and file names.
fn check_name(kind: &str, name: &str, span: &Span, diags: &mut Diagnostics) -> Option<()> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if plain && !name.is_empty() && name.len() <= NAME_BYTES_MAX {
        return Some(());
    }
    diags
        .error(span, format!("{kind} `{name}` is not a plain name"))
        .help(format!("use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"));
    None
}

fn read_rule(node: &Node, draft: &mut Draft<'_>, diags: &mut Diagnostics) -> Option<Rule> {
    let mut reader = node.mapping(diags)?;
    let id = reader.required("id", diags).and_then(|node| read_id(node, draft, diags));
    let who = all_or_nothing(reader.optional("who").map(|node| read_who(node, diags)));
    let targets = all_or_nothing(reader.optional("target").map(|node| read_targets(node, draft, diags)));
    let relations = all_or_nothing(reader.optional("relations").map(|node| read_relations(node, diags)));
    let masks = all_or_nothing(reader.optional("mask").map(|node| read_masks(node, diags)));
    let effects = read_effects(&mut reader, &masks, diags);
    let hide = all_or_nothing(reader.optional_entry("hide").map(|entry| read_hide(entry, &effects, &relations, diags)));
    reader.unsupported(RULE_KEYS_UNSUPPORTED, diags);
    reader.finish(diags);
    if let (Some(targets), Some(relations), Some(Some(masks))) = (&targets, &relations, &masks) {
        let (masks, targets, relations) = (masks.clone(), targets.clone(), relations.clone());
        draft.masks.push(MaskMention { masks, targets, relations });
    }
    let (id, place) = id?;
    Some(Rule {
        id,
        place,
        who: who?,
        targets: targets?,
        relations: relations?,
        effects: effects?,
        hide: hide?.unwrap_or(false),
    })
}

/// A rule that would hide nothing is a mistake: whoever wrote it expects something to be hidden.
fn read_hide(
    entry: &Entry,
    effects: &Option<Effects>,
    relations: &Option<Option<Vec<RelationPattern>>>,
    diags: &mut Diagnostics,
) -> Option<bool> {
    let hide = entry.value.as_bool(diags)?;
    let (Some(effects), Some(relations)) = (effects, relations) else { return Some(hide) };
    let hides = match effects {
        Effects::Deny { .. } => relations.is_some(),
        Effects::Grant { masks, .. } => masks.iter().any(|entry| entry.mask == Mask::Refuse),
    };
    if hide && !hides {
        diags
            .error(&entry.key_span, "`hide` has nothing to hide in this rule")
            .help("it goes with `deny: true` and `relations`, or with a mask `with: refuse`");
        return None;
    }
    Some(hide)
}

fn read_id(node: &Node, draft: &mut Draft<'_>, diags: &mut Diagnostics) -> Option<(String, Span)> {
    let id = node.as_string(diags)?;
    check_name("rule id", id, &node.span, diags)?;
    draft.ids.push((id.to_owned(), node.span.clone()));
    Some((id.to_owned(), node.span.clone()))
}

/// A condition that is written but not understood must not turn into "no condition".
fn all_or_nothing<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
    }
}

fn read_targets(node: &Node, draft: &Draft<'_>, diags: &mut Diagnostics) -> Option<Vec<String>> {
    let nodes = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let targets = match &node.value {
        Value::Sequence(_) => node.as_strings(diags)?,
        _ => vec![node.as_string(diags)?.to_owned()],
    };
    for (node, target) in nodes.iter().zip(&targets) {
        draft.check_target(target, &node.span, diags);
    }
    Some(targets)
}

fn read_relations(node: &Node, diags: &mut Diagnostics) -> Option<Vec<RelationPattern>> {
    let items = node.as_list(diags)?;
    if items.is_empty() {
        diags
            .error(&node.span, "`relations` is an empty list")
            .help("name at least one, or leave it out to mean every relation");
        return None;
    }
    let parsed: Vec<Option<RelationPattern>> = items
        .iter()
        .map(|item| {
            let text = item.as_string(diags)?;
            pattern(RelationPattern::parse(text), item, diags)
        })
        .collect();
    parsed.into_iter().collect()
}

/// `masks` has been read already: `None` is a broken `mask`, `Some(None)` no `mask` at all.
fn read_effects(
    reader: &mut MappingReader<'_>,
    masks: &Option<Option<Vec<LabelMask>>>,
    diags: &mut Diagnostics,
) -> Option<Effects> {
    let entries = EFFECT_KEYS.map(|key| reader.optional_entry(key));
    let [allow, mask, detect, limit, star, writes, unbounded, hold, statements] = entries;
    let deny = reader.optional_entry("deny");
    let reason = reader.optional_entry("reason");
    if let Some(deny) = deny {
        return read_deny(deny, reason, entries, diags);
    }
    if let Some(reason) = reason {
        diags.error(&reason.key_span, "`reason` belongs to a rule with `deny: true`");
        return None;
    }
    if entries.iter().all(Option::is_none) {
        let help = "give it `allow`, `deny: true`, `mask`, `limit`, `detect`, `select_star` or `unbounded_writes`";
        diags.error(&reader.node().span, "the rule does nothing").help(help);
        return None;
    }
    let allow_read = all_or_nothing(allow.map(|entry| read_allow(&entry.value, diags)))?;
    let relations = reader.optional_entry("relations");
    let detected = all_or_nothing(detect.map(|entry| read_detect(&entry.value, diags)))?.unwrap_or_default();
    if let (false, Some(relations)) = (detected.is_empty(), relations) {
        let message = "`detect` looks at every column without a mask: a rule with it takes no `relations`";
        diags.error(&relations.key_span, message).help("write a rule of its own for it");
        return None;
    }
    let limits = all_or_nothing(limit.map(|entry| read_limit(&entry.value, relations, diags)));
    let shape = read_shape([star, writes, unbounded], diags);
    let terms = all_or_nothing(hold.map(|entry| read_hold(&entry.value, diags).map(Box::new)));
    let kinds = all_or_nothing(statements.map(|entry| read_statements(&entry.value, diags)));
    let (limit_read, shape, kinds) = (limits?, shape?, kinds?);
    let has_terms = words_have_terms(shape, hold, [star, writes, unbounded], diags);
    let others = [allow, mask, detect, limit, star, writes];
    if !narrows_holds_only(statements, others, hold.or(unbounded), diags) || !has_terms {
        return None;
    }
    Some(Effects::Grant {
        allow: allow_read.unwrap_or_default(),
        masks: masks.clone()?.unwrap_or_default(),
        detect: detected,
        limit: limit_read,
        shape,
        hold: terms?,
        statements: kinds,
    })
}

fn read_shape(entries: [Option<&Entry>; 3], diags: &mut Diagnostics) -> Option<Shape> {
    let (deny, hold, allow) = (("deny", Stance::Deny), ("hold", Stance::Hold), ("allow", Stance::Allow));
    let [star, writes, unbounded] = entries;
    let star = all_or_nothing(star.map(|entry| entry.value.one_of(&[deny, hold], diags)));
    let writes = all_or_nothing(writes.map(|entry| entry.value.one_of(&[deny, hold, allow], diags)));
    let unbounded = all_or_nothing(unbounded.map(|entry| entry.value.one_of(&[deny, hold, allow], diags)));
    Some(Shape { select_star: star?, unbounded_writes: writes?, unbounded: unbounded? })
}

fn read_detect(node: &Node, diags: &mut Diagnostics) -> Option<Vec<Detector>> {
    let items = node.as_list(diags)?;
    if items.is_empty() {
        diags.error(&node.span, "`detect` names no detector");
    }
    let choices: Vec<(&str, Detector)> = Detector::ALL.iter().map(|detector| (detector.name(), *detector)).collect();
    let read: Vec<Option<Detector>> = items.iter().map(|item| item.one_of(&choices, diags)).collect();
    read.into_iter().collect()
}

fn read_deny(
    deny: &Entry,
    reason: Option<&Entry>,
    others: [Option<&Entry>; EFFECT_KEYS.len()],
    diags: &mut Diagnostics,
) -> Option<Effects> {
    let mut alone = true;
    for entry in others.into_iter().flatten() {
        alone = false;
        diags
            .error(&entry.key_span, format!("a rule that denies takes no `{}`", entry.key))
            .help("write two rules: deny wins wherever both match");
    }
    if !deny.value.as_bool(diags)? {
        diags
            .error(&deny.value.span, "`deny: false` forbids nothing")
            .help("leave `deny` out; only an `allow` permits");
        return None;
    }
    let reason = all_or_nothing(reason.map(|reason| read_reason(&reason.value, diags)))?;
    alone.then_some(Effects::Deny { reason })
}

fn read_reason(node: &Node, diags: &mut Diagnostics) -> Option<String> {
    let reason = node.as_string(diags)?;
    if reason.len() > REASON_BYTES_MAX {
        let message = format!("`reason` of {} bytes exceeds the limit of {REASON_BYTES_MAX}", reason.len());
        diags.error(&node.span, message);
        return None;
    }
    Some(reason.to_owned())
}

fn read_allow(node: &Node, diags: &mut Diagnostics) -> Option<Vec<Capability>> {
    let mut capabilities = Vec::new();
    let mut complete = true;
    let names: Vec<&str> = Capability::ALL.iter().map(|capability| capability.name()).chain(["all"]).collect();
    for (item, name) in node.as_list(diags)?.iter().zip(node.as_strings(diags)?) {
        if name == "all" {
            capabilities.extend(Capability::ALL);
        } else if let Some(found) = Capability::ALL.iter().find(|capability| capability.name() == name) {
            capabilities.push(*found);
        } else {
            complete = false;
            refuse_capability(item, &name, &names, diags);
        }
    }
    capabilities.sort_unstable();
    capabilities.dedup();
    complete.then_some(capabilities)
}

fn refuse_capability(item: &Node, name: &str, names: &[&str], diags: &mut Diagnostics) {
    if name.contains('/') {
        diags.error(&item.span, "HTTP method and path patterns are not supported by this version");
        return;
    }
    let help = match closest(name, names.iter().copied()) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("one of: {}", names.join(", ")),
    };
    diags.error(&item.span, format!("there is no capability `{name}`")).help(help);
}

fn read_who(node: &Node, diags: &mut Diagnostics) -> Option<Who> {
    let mut reader = node.mapping(diags)?;
    let conditions = read_conditions(&mut reader, diags);
    let except = reader.optional("except").map(|node| {
        let mut reader = node.mapping(diags)?;
        let conditions = read_conditions(&mut reader, diags);
        reader.finish(diags);
        refuse_empty(&conditions?, node, "excepts nobody", diags)
    });
    reader.finish(diags);
    let (conditions, except) = (conditions?, all_or_nothing(except)?);
    if except.is_none() {
        refuse_empty(&conditions, node, "names nobody", diags)?;
    }
    Some(Who { conditions, except })
}

fn refuse_empty(conditions: &Conditions, node: &Node, what: &str, diags: &mut Diagnostics) -> Option<Conditions> {
    if *conditions != Conditions::default() {
        return Some(conditions.clone());
    }
    // Where only unknown keys stand, those are the mistake and already reported.
    if matches!(&node.value, Value::Mapping(entries) if entries.is_empty()) {
        diags.error(&node.span, format!("{} {what}", node.subject())).help("leave it out to mean everyone");
    }
    None
}

fn read_conditions(reader: &mut MappingReader<'_>, diags: &mut Diagnostics) -> Option<Conditions> {
    let groups = reader.optional("groups").map(|node| read_exact_names(node, diags));
    let subjects = reader.optional("subjects").map(|node| read_exact_names(node, diags));
    let issuers = reader.optional("issuers").map(|node| read_exact_names(node, diags));
    let actors = reader.optional("actors").map(|node| read_actors(node, diags));
    let claims = reader.optional("claims").map(|node| read_claims(node, diags));
    let kind = reader.optional("kind").map(|node| parse_kind(node, diags));
    Some(Conditions {
        groups: all_or_nothing(groups)?,
        subjects: all_or_nothing(subjects)?,
        issuers: all_or_nothing(issuers)?,
        actors: all_or_nothing(actors)?,
        claims: all_or_nothing(claims)?.unwrap_or_default(),
        kind: all_or_nothing(kind)?,
    })
}

pub(crate) fn parse_kind(node: &Node, diags: &mut Diagnostics) -> Option<PrincipalKind> {
    node.one_of(&[("human", PrincipalKind::Human), ("workload", PrincipalKind::Workload)], diags)
}

/// Names compare exactly; whoever writes `*` expects something else.
fn read_exact_names(node: &Node, diags: &mut Diagnostics) -> Option<Vec<String>> {
    let names = node.as_strings(diags)?;
    if names.iter().any(|name| name.contains('*')) {
        diags
            .error(&node.span, format!("{} compares names exactly, `*` is not a pattern here", node.subject()))
            .help("leave the condition out to mean everyone");
        return None;
    }
    Some(names)
}

fn read_actors(node: &Node, diags: &mut Diagnostics) -> Option<Actors> {
    let names = node.as_strings(diags)?;
    if names.len() == 1 && names.iter().any(|name| name == "*") {
        return Some(Actors::Any);
    }
    if names.iter().any(|name| name.contains('*')) {
        diags.error(&node.span, "`actors` takes agents by their exact `sub`, or `\"*\"` alone for any agent");
        return None;
    }
    Some(Actors::Named(names))
}

fn read_claims(node: &Node, diags: &mut Diagnostics) -> Option<Vec<(String, serde_json::Value)>> {
    let entries = node.entries(diags)?;
    if entries.is_empty() {
        diags.error(&node.span, "`claims` names no claim");
        return None;
    }
    let mut claims = Vec::new();
    for entry in entries {
        let value = entry.value.to_json();
        if value.is_null() || value.is_array() || value.is_object() {
            diags
                .error(
                    &entry.value.span,
                    format!("claim `{}` must be compared with one string, number, true or false", entry.key),
                )
                .help("a claim that is a list matches if it contains the value; write a rule for each value");
            return None;
        }
        claims.push((entry.key.clone(), value));
    }
    Some(claims)
}
