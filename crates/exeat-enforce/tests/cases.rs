//! Walks `tests/cases`. A file holds `-- policy` once and `-- principal` before the first statement and wherever it
//! changes (a subject, then its groups), then `-- statement` and `-- expect` as often as wanted; lines before the
//! first section are the file's comment. EXEAT_REWRITE_CASES=1 writes what was found; read the diff before you
//! commit it.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use exeat_enforce::bulk::{Bulk, Counted};
use exeat_enforce::evaluate::{Evaluation, Permit, SessionFacts, evaluate};
use exeat_enforce::named::Made;
use exeat_enforce::plan::{CopyStream, Outputs, PlannedColumn, PlannedOrigin, StateEffect, StatementPlan};
use exeat_enforce::record::RecordFacts;
use exeat_enforce::refusal::{Object, Refusal};
use exeat_policy::ruling::{AppliedBudget, Cause, Threshold};
use exeat_policy::{AppliedLimit, ColumnMask, Nulls, Policy, RelationName};
use exeat_sql::{CatalogSnapshot, ColumnId, Packing};

#[test]
fn every_statement_is_permitted_or_refused_as_written_down() {
    let failures = support::on_parser_stack(|| {
        let snapshot = Arc::new(support::shop());
        let mut files = Vec::new();
        case_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"), &mut files);
        files.sort();
        assert!(files.len() > 5, "only {} case files found", files.len());
        files.iter().flat_map(|file| check(file, &snapshot)).collect::<Vec<_>>()
    });
    assert!(failures.is_empty(), "{} cases differ\n{}", failures.len(), failures.join("\n"));
}

struct Section {
    name: String,
    body: String,
}

fn check(file: &Path, snapshot: &Arc<CatalogSnapshot>) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a readable case file");
    let (head, mut sections) = split(&text);
    let mut run = Run { snapshot, policy: None, session: None };
    let (mut failures, mut statement) = (Vec::new(), None);
    for section in &mut sections {
        match (section.name.as_str(), statement.take()) {
            ("policy", None) => run.policy(&section.body),
            ("principal", None) => run.principal(&section.body),
            ("statement", None) => statement = Some(section.body.clone()),
            ("expect", Some(sql)) => {
                let found = run.statement(sql.trim_end());
                if section.body.trim() != found.trim() {
                    let name = file.file_name().unwrap().to_string_lossy();
                    failures.push(format!("{name}: {sql}expected:\n{}\nfound:\n{found}", section.body.trim()));
                }
                section.body = format!("{}\n\n", found.trim_end());
            }
            (other, _) => panic!("{}: section {other:?} does not belong here", file.display()),
        }
    }
    assert!(statement.is_none(), "{}: the last statement expects nothing", file.display());
    if std::env::var_os("EXEAT_REWRITE_CASES").is_some() {
        let bodies: String = sections.iter().map(|section| format!("-- {}\n{}", section.name, section.body)).collect();
        std::fs::write(file, format!("{head}{}\n", bodies.trim_end())).expect("a writable case file");
    }
    failures
}

fn split(text: &str) -> (String, Vec<Section>) {
    let mut head = String::new();
    let mut sections: Vec<Section> = Vec::new();
    for line in text.split_inclusive('\n') {
        match (line.strip_prefix("-- "), sections.last_mut()) {
            (Some(name), _) => sections.push(Section { name: name.trim().to_owned(), body: String::new() }),
            (None, Some(section)) => section.body.push_str(line),
            (None, None) => head.push_str(line),
        }
    }
    (head, sections)
}

fn case_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable case folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            case_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "case") {
            found.push(path);
        }
    }
}

/// The state that sections before a statement leave.
struct Run<'a> {
    snapshot: &'a Arc<CatalogSnapshot>,
    policy: Option<Policy>,
    session: Option<SessionFacts>,
}

impl Run<'_> {
    fn policy(&mut self, text: &str) {
        (self.policy, self.session) = (Some(support::policy(text)), None);
    }

    fn principal(&mut self, words: &str) {
        let policy = self.policy.as_ref().expect("a policy before the principal");
        self.session = Some(support::session(self.snapshot, policy, support::principal(words)));
    }

    fn statement(&self, sql: &str) -> String {
        let (policy, session) = (self.policy.as_ref().unwrap(), self.session.as_ref().expect("a principal"));
        match support::analyse_for(sql, session) {
            Err(failure) => format!("not analysed\n{}", refusal(&Refusal::parse_failure(&failure))),
            Ok(analysis) => match evaluate(session, policy, sql, &analysis) {
                Evaluation::Permit(permit) => self.permit(&permit, sql),
                Evaluation::Refuse { refusal: refused, facts } => {
                    format!("refuse {}{}", refusal(&refused), record(&facts))
                }
                Evaluation::Missing { missing, facts } => {
                    format!("missing {}: {}\n{}", missing.sqlstate, missing.message, record(&facts))
                }
                Evaluation::Probe { statement, name: _, refusal: refused } => {
                    format!("probe {:?}, else {}", sql.get(statement).unwrap(), refusal(&refused))
                }
            },
        }
    }

    fn permit(&self, permit: &Permit, sql: &str) -> String {
        assert_eq!(permit.sql(), sql, "a permit speaks of the text it was given for");
        let mut out = "permit\n".to_owned();
        for plan in &permit.plans {
            self.plan(&mut out, plan);
        }
        out + &record(&permit.facts)
    }

    fn plan(&self, out: &mut String, plan: &StatementPlan) {
        match &plan.outputs {
            Outputs::None => out.push_str("no rows"),
            Outputs::FunctionResult => out.push_str("a function's result"),
            Outputs::ByOrigin => out.push_str("rows masked by origin"),
            Outputs::Unchecked => out.push_str("rows unchecked"),
            Outputs::Copied(plan) => write!(out, "copied rows in {:?}", plan.layout.format).unwrap(),
            Outputs::Columns(_) => out.push_str("rows"),
        }
        match plan.copy {
            CopyStream::None => {}
            CopyStream::In => out.push_str("; copy in"),
            CopyStream::Out => out.push_str("; copy out"),
        }
        write!(out, "; {:?}", plan.taint).unwrap();
        let StateEffect { rereads_state, transaction, speaks_for_transaction, changes_catalog, moves_names: _ } =
            plan.effect;
        if let Some(command) = transaction {
            write!(out, "; {command:?}").unwrap();
        }
        let effects = [
            ("rereads state", rereads_state),
            // Every transaction command does; said where it is something else.
            ("speaks for the transaction", speaks_for_transaction && transaction.is_none()),
            ("changes catalog", changes_catalog),
        ];
        for (effect, set) in effects {
            if set {
                write!(out, "; {effect}").unwrap();
            }
        }
        out.push('\n');
        if let Outputs::Columns(columns) = &plan.outputs {
            columns.iter().for_each(|column| self.column(out, column));
        }
        if let Outputs::Copied(copied) = &plan.outputs {
            for column in &copied.columns {
                write!(out, "  {} {:?}", column.name.as_deref().unwrap_or("?"), column.kin).unwrap();
                mask(out, column.mask.as_ref());
            }
        }
        for lookup in &plan.lookups {
            let tried = lookup.tried(support::TARGET, None).unwrap().len();
            let (RelationName { schema, name }, AppliedLimit { limit, rule }) = (&lookup.relation, &lookup.limit);
            let of = format!("{} of {schema}.{name}.{}", lookup.label, lookup.column);
            let by = rule.as_deref().map_or(String::new(), |rule| format!(" by {rule}"));
            let parameters = if lookup.takes_parameters() { " and parameters" } else { "" };
            writeln!(out, "  tries {tried} values{parameters}, {of}, {} in {:?}{by}", limit.probes, limit.window)
                .unwrap();
        }
        self::bulk(out, &plan.bulk);
        if let Some(Made::Cursor { name, permit, .. } | Made::Statement { name, permit, .. }) = &plan.made {
            write!(out, "makes {name}: ").unwrap();
            self.plan(out, &permit.plans[0]);
        }
    }

    fn column(&self, out: &mut String, column: &PlannedColumn) {
        let name = column.name.as_deref().unwrap_or("?");
        let of = |id: &ColumnId| {
            let relation = self.snapshot.relation(id.relation).unwrap();
            format!("{}.{}", relation.name, self.snapshot.column_name(*id).unwrap())
        };
        let source = match &column.origin {
            PlannedOrigin::Column(id) => of(id),
            PlannedOrigin::None => "computed".to_owned(),
            PlannedOrigin::OneOf(ids) => format!("computed or {}", ids.iter().map(of).collect::<Vec<_>>().join(" or ")),
        };
        write!(out, "  {name} <- {source}").unwrap();
        mask(out, column.mask.as_ref());
    }
}

fn bulk(out: &mut String, bulk: &Bulk) {
    for Cause { rule, relation, why } in &bulk.causes {
        let rule = rule.as_deref().unwrap_or("no rule");
        let of =
            relation.as_ref().map_or(String::new(), |relation| format!(" of {}.{}", relation.schema, relation.name));
        writeln!(out, "  held by {rule}: {why:?}{of}").unwrap();
    }
    for Counted { duty, times } in &bulk.counted {
        let RelationName { schema, name } = &duty.relation;
        let over = |threshold: &Threshold| {
            format!("{} {:?} by {}", threshold.amount, threshold.measure, threshold.rule).to_lowercase()
        };
        let budget = |applied: &AppliedBudget| {
            let AppliedBudget { unit, budget, rule, reached } = applied;
            format!("{} {} in {:?} by {rule}, {reached:?}", budget.amount, unit.name(), budget.window).to_lowercase()
        };
        let all: Vec<_> = duty.thresholds.iter().map(over).chain(duty.budgets.iter().map(budget)).collect();
        writeln!(out, "  counts {times} of {schema}.{name} a row: {}", all.join("; ")).unwrap();
    }
    match bulk.packing {
        Packing::None => {}
        Packing::Once | Packing::Nested if bulk.counted.is_empty() => {}
        packing => writeln!(out, "  values hold rows: {packing:?}").unwrap(),
    }
}

fn mask(out: &mut String, mask: Option<&ColumnMask>) {
    if let Some(mask) = mask {
        write!(out, ": {} as {} by {}", mask.mask.name(), mask.label, mask.rule).unwrap();
        if mask.nulls == Nulls::Hide {
            out.push_str(", NULL too");
        }
    }
    out.push('\n');
}

fn refusal(refusal: &Refusal) -> String {
    let Object { target, relation, column, at } = &refusal.object;
    let mut out = format!("{} {}", refusal.code.as_str(), refusal.sqlstate());
    for (what, value) in [("rule", &refusal.rule), ("at", &at.map(|at| at.to_string()))] {
        if let Some(value) = value {
            write!(out, " {what} {value}").unwrap();
        }
    }
    if let Some(target) = target {
        let parts = [Some(target), relation.as_ref(), column.as_ref()];
        write!(out, " on {}", parts.iter().flatten().map(|part| part.as_str()).collect::<Vec<_>>().join(" ")).unwrap();
    }
    writeln!(out, "\n{}", refusal.reason).unwrap();
    for allowed in &refusal.allowed {
        writeln!(out, "allowed: {allowed}").unwrap();
    }
    if let Some(suggestion) = &refusal.suggestion {
        writeln!(out, "hint: {suggestion}").unwrap();
    }
    out
}

fn record(facts: &RecordFacts) -> String {
    let masked: Vec<String> =
        facts.masked.iter().map(|masked| format!("{} {} as {}", masked.mask, masked.column, masked.label)).collect();
    let kinds: Vec<String> = facts.kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let mut out = String::new();
    for (what, list) in [
        ("kinds", &kinds),
        ("relations", &facts.relations),
        ("columns", &facts.columns),
        ("touched", &facts.touched),
        ("masked", &masked),
        ("rules", &facts.rules),
        ("reasons", &facts.reasons),
    ] {
        if !list.is_empty() {
            writeln!(out, "record {what}: {}", list.join(", ")).unwrap();
        }
    }
    out
}
