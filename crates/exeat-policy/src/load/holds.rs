//! `hold:` and `statements:` of a rule.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::limits::{read_amount, read_bytes, read_span};
use super::{all_or_nothing, read_who};
use crate::document::{Diagnostics, Entry, Node, Value, closest};
use crate::hold::{BreakGlassRule, Escalate, Hold, Mode, StatementKind};
use crate::principal::PrincipalKind;
use crate::shape::{Shape, Stance};
use crate::who::Who;

/// Most humans one rule may want: more never agree within its time.
const QUORUM_MAX: i64 = 10;

/// Shorter than a second nobody is asked; longer than an hour no connection is kept.
const WAIT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// A human needs a minute; after a week nobody remembers what was asked.
const EXPIRES: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 7);

/// A look, not a way around the hold.
const SAMPLE: RangeInclusive<i64> = 0..=10;

pub(super) fn read_hold(node: &Node, diags: &mut Diagnostics) -> Option<Hold> {
    let mut reader = node.mapping(diags)?;
    let rows = all_or_nothing(reader.optional("rows").map(|node| read_amount(node, diags)));
    let bytes = all_or_nothing(reader.optional("bytes").map(|node| read_bytes(node, diags)));
    let affected_entry = reader.optional_entry("affected");
    let affected = all_or_nothing(affected_entry.map(|entry| read_amount(&entry.value, diags)));
    let approvers_node = reader.required("approvers", diags);
    let approvers = approvers_node.and_then(|node| read_humans(node, diags));
    let quorum_node = reader.optional("quorum");
    let quorum =
        quorum_node.map_or(Some(Hold::QUORUM), |node| u32::try_from(node.as_integer(1..=QUORUM_MAX, diags)?).ok());
    let wait = reader.optional("wait").map_or(Some(Hold::WAIT), |node| read_span(node, WAIT, diags));
    let expires = reader.optional("expires").map_or(Some(Hold::EXPIRES), |node| read_span(node, EXPIRES, diags));
    let escalate_node = reader.optional("escalate");
    let escalate = all_or_nothing(escalate_node.map(|node| read_escalate(node, expires, diags)));
    let mode_entry = reader.optional_entry("mode");
    let modes = [("sync", Mode::Sync), ("async", Mode::Async)];
    let mode = mode_entry.map_or(Some(Mode::Sync), |entry| entry.value.one_of(&modes, diags));
    let sample =
        reader.optional("sample").map_or(Some(0), |node| usize::try_from(node.as_integer(SAMPLE, diags)?).ok());
    let break_glass = all_or_nothing(reader.optional("break_glass").map(|node| read_break_glass(node, diags)));
    reader.finish(diags);
    let hold = Hold {
        rows: rows?,
        bytes: bytes?,
        affected: affected?,
        approvers: approvers?,
        quorum: quorum?,
        escalate: escalate?,
        break_glass: break_glass?,
        wait: wait?,
        expires: expires?,
        mode: mode?,
        sample: sample?,
    };
    let in_reach = quorum_in_reach(&hold, quorum_node.or(approvers_node)?, diags);
    let in_mode = affected_is_async(&hold, affected_entry, diags);
    (in_reach && in_mode).then_some(hold)
}

/// What a write changed is known when it is done: nobody keeps its locks while humans make up their minds.
fn affected_is_async(hold: &Hold, affected: Option<&Entry>, diags: &mut Diagnostics) -> bool {
    let Some(affected) = affected.filter(|_| hold.mode != Mode::Async) else { return true };
    let message = "`affected` is held with `mode: async` only: the write is undone, and run again once approved";
    diags.error(&affected.key_span, message).help("add `mode: async`");
    false
}

/// A quorum of more humans than are named can never agree. Groups may have any number.
fn quorum_in_reach(hold: &Hold, place: &Node, diags: &mut Diagnostics) -> bool {
    let named = |who: &Who| who.conditions.subjects.as_ref().map(Vec::len);
    let humans = match (&hold.escalate, named(&hold.approvers)) {
        (None, named) => named,
        (Some(escalate), Some(first)) => named(&escalate.to).map(|second| first.saturating_add(second)),
        (Some(_), None) => None,
    };
    let wanted = usize::try_from(hold.quorum).unwrap_or(usize::MAX);
    let Some(humans) = humans.filter(|humans| *humans < wanted) else { return true };
    diags.error(&place.span, format!("a quorum of {wanted} is never reached: {humans} approver(s) are named"));
    false
}

/// Who decides is a human, for themselves: what an agent says is not what its human says.
fn read_humans(node: &Node, diags: &mut Diagnostics) -> Option<Who> {
    let is_empty = matches!(&node.value, Value::Mapping(entries) if entries.is_empty());
    let who = if is_empty { None } else { Some(read_who(node, diags)?) };
    let refused = match &who {
        None => "it names nobody",
        Some(who) if who.conditions.actors.is_some() => "`actors` names nobody here: agents decide nothing",
        Some(who) if who.conditions.kind == Some(PrincipalKind::Workload) => "workloads decide nothing",
        Some(_) => return who,
    };
    diags.error(&node.span, format!("{}: {refused}", node.subject())).help("name humans by group or subject");
    None
}

fn read_escalate(node: &Node, expires: Option<Duration>, diags: &mut Diagnostics) -> Option<Escalate> {
    let mut reader = node.mapping(diags)?;
    let after_node = reader.required("after", diags);
    let after = after_node.and_then(|node| read_span(node, *WAIT.start()..=*EXPIRES.end(), diags));
    let to = reader.required("to", diags).and_then(|node| read_humans(node, diags));
    reader.finish(diags);
    let (after, to) = (after?, to?);
    if let Some(expires) = expires.filter(|expires| *expires <= after) {
        let message = format!("`escalate` after {after:?} comes too late: the request expires after {expires:?}");
        diags.error(&after_node?.span, message);
        return None;
    }
    Some(Escalate { after, to })
}

fn read_break_glass(node: &Node, diags: &mut Diagnostics) -> Option<BreakGlassRule> {
    let mut reader = node.mapping(diags)?;
    let who = reader.required("who", diags).and_then(|node| read_humans(node, diags));
    let reason_required = reader.optional("reason_required").map_or(Some(true), |node| node.as_bool(diags));
    reader.finish(diags);
    Some(BreakGlassRule { who: who?, reason_required: reason_required? })
}

pub(super) fn read_statements(node: &Node, diags: &mut Diagnostics) -> Option<Vec<StatementKind>> {
    let names: Vec<&str> = StatementKind::ALL.iter().map(|kind| kind.name()).collect();
    let mut kinds = Vec::new();
    let mut complete = true;
    for (item, name) in node.as_list(diags)?.iter().zip(node.as_strings(diags)?) {
        if let Some(kind) = StatementKind::ALL.iter().find(|kind| kind.name() == name) {
            kinds.push(*kind);
            continue;
        }
        complete = false;
        let help = match closest(&name, names.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("one of: {}", names.join(", ")),
        };
        diags.error(&item.span, format!("there is no kind of statement `{name}`")).help(help);
    }
    complete.then_some(kinds)
}

/// `hold` as a word says which statements; only `hold` as a key says who decides.
pub(super) fn words_have_terms(
    shape: Shape,
    hold: Option<&Entry>,
    words: [Option<&Entry>; 3],
    diags: &mut Diagnostics,
) -> bool {
    if hold.is_some() || !shape.holds() {
        return true;
    }
    let stances = [shape.select_star, shape.unbounded_writes, shape.unbounded];
    for (entry, _) in words.into_iter().zip(stances).filter(|(_, stance)| *stance == Some(Stance::Hold)) {
        let Some(entry) = entry else { continue };
        diags
            .error(&entry.value.span, format!("`{}: hold` does not say who decides", entry.key))
            .help("give the rule a `hold` with `approvers`");
    }
    false
}

/// `statements` narrows what is held. It must not seem to narrow an `allow` or a mask.
pub(super) fn narrows_holds_only(
    statements: Option<&Entry>,
    others: [Option<&Entry>; 6],
    narrowed: Option<&Entry>,
    diags: &mut Diagnostics,
) -> bool {
    let Some(statements) = statements else { return true };
    if let Some(other) = others.into_iter().flatten().next() {
        diags
            .error(&statements.key_span, format!("a rule with `statements` takes no `{}`", other.key))
            .help("write two rules: `statements` says what `hold` and `unbounded` are about");
        return false;
    }
    if narrowed.is_none() {
        diags
            .error(&statements.key_span, "`statements` alone does nothing")
            .help("give the rule a `hold` or `unbounded`");
    }
    narrowed.is_some()
}
