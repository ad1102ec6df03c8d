//! What the audit record says of a message in clear: kinds, relations, columns, masks, rules, reasons.
//! Names only, from the catalog; never a value and never the statement's text.

use exeat_policy::{Decision, Effect, Reason};
use exeat_sql::{Analysis, CursorCommand, MessageAnalysis, SessionCommand, StatementKind, Use};

use crate::evaluate::{SessionFacts, relation_name};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordFacts {
    pub fingerprint: Option<String>,
    pub kinds: Vec<&'static str>,
    pub relations: Vec<String>,
    /// Those of them that the text names, and not only the body of a function it calls: the others the client must
    /// not learn of.
    pub named: Vec<String>,
    /// Whose values it reads.
    pub columns: Vec<String>,
    /// That it writes, or that are sealed and that it looks up by values of the client's own or asks about.
    pub touched: Vec<String>,
    pub masked: Vec<MaskedColumn>,
    pub rules: Vec<String>,
    pub reasons: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedColumn {
    pub column: String,
    pub label: String,
    pub mask: &'static str,
}

impl RecordFacts {
    /// What is said of the statement behind a name holds for the one that names it.
    pub(crate) fn absorb(&mut self, behind: &Self) {
        behind.relations.iter().for_each(|name| push_new(&mut self.relations, name.clone()));
        behind.named.iter().for_each(|name| push_new(&mut self.named, name.clone()));
        behind.columns.iter().for_each(|name| push_new(&mut self.columns, name.clone()));
        behind.touched.iter().for_each(|name| push_new(&mut self.touched, name.clone()));
        self.forget_read();
        behind.rules.iter().for_each(|rule| push_new(&mut self.rules, rule.clone()));
        for masked in &behind.masked {
            if !self.masked.contains(masked) {
                self.masked.push(masked.clone());
            }
        }
    }

    fn forget_read(&mut self) {
        self.touched.retain(|name| !self.columns.contains(name));
    }

    pub fn add(&mut self, decision: &Decision) {
        for rule in &decision.rules {
            if !self.rules.contains(rule) {
                self.rules.push(rule.clone());
            }
        }
        if decision.effect == Effect::Permit {
            return;
        }
        for reason in &decision.reasons {
            let said = match reason {
                Reason::Allowed { .. } => continue,
                Reason::Denied { rule, text, .. } => {
                    format!("denied by rule {rule}: {}", text.as_deref().unwrap_or("no reason given"))
                }
                Reason::NoRule => "no rule speaks of this principal here".to_owned(),
                Reason::CapabilityMissing { access } => {
                    format!("no rule allows {}", access.capability.name())
                }
            };
            if !self.reasons.contains(&said) {
                self.reasons.push(said);
            }
        }
    }
}

pub(crate) fn facts(session: &SessionFacts, analysis: &MessageAnalysis) -> RecordFacts {
    let mut facts = RecordFacts { fingerprint: analysis.fingerprint.clone(), ..RecordFacts::default() };
    for statement in &analysis.statements {
        facts.kinds.push(kind_name(&statement.kind));
        let Analysis::Known(lineage) = &statement.analysis else { continue };
        let altered = lineage.defines.iter().flat_map(|definition| &definition.alters);
        for oid in lineage.reads.iter().chain(&lineage.writes).chain(altered) {
            if let Some(name) = relation_name(&session.snapshot, *oid) {
                let name = format!("{}.{}", name.schema, name.name);
                if !lineage.called.contains(oid) {
                    push_new(&mut facts.named, name.clone());
                }
                push_new(&mut facts.relations, name);
            }
        }
        for used in &lineage.uses {
            if let Some(name) = column_name(session, used.column) {
                let reads = reads(used.how, session.seals.column(used.column).is_some());
                push_new(if reads { &mut facts.columns } else { &mut facts.touched }, name);
            }
        }
        for output in lineage.outputs.iter().flatten() {
            let Some(made) = session.seals.mask_of(&output.flows) else { continue };
            for id in output.flows.keys() {
                let (Some(mask), Some(column)) = (session.seals.column(*id), column_name(session, *id)) else {
                    continue;
                };
                push_new(&mut facts.masked, MaskedColumn { column, label: mask.label.clone(), mask: made.mask.name() });
            }
        }
    }
    facts.forget_read();
    facts
}

fn reads(usage: Use, is_sealed: bool) -> bool {
    match usage {
        Use::Projected | Use::Derived | Use::Expression | Use::Predicate | Use::Key | Use::Source => true,
        // Where it is not sealed a question says as much as the value: there may be two of them.
        Use::Lookup | Use::Presence | Use::Referenced => !is_sealed,
        Use::Written => false,
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn column_name(session: &SessionFacts, id: exeat_sql::ColumnId) -> Option<String> {
    let relation = relation_name(&session.snapshot, id.relation)?;
    let column = session.snapshot.column_name(id)?;
    Some(format!("{}.{}.{column}", relation.schema, relation.name))
}

pub fn kind_name(kind: &StatementKind) -> &'static str {
    match kind {
        StatementKind::Select => "select",
        StatementKind::Insert => "insert",
        StatementKind::Update => "update",
        StatementKind::Delete => "delete",
        StatementKind::Merge => "merge",
        StatementKind::Ddl => "ddl",
        StatementKind::Call => "call",
        StatementKind::Code => "code",
        StatementKind::CopyOut => "copy_out",
        StatementKind::CopyIn => "copy_in",
        StatementKind::CopyFile => "copy_file",
        StatementKind::Admin => "admin",
        StatementKind::Session(command) => session_kind_name(command),
        StatementKind::Explain(_) => "explain",
        StatementKind::SqlPrepare { .. } => "prepare",
        StatementKind::SqlExecute { .. } => "execute",
        StatementKind::Cursor(CursorCommand::Declare { .. }) => "declare",
        StatementKind::Cursor(CursorCommand::Fetch { moves, .. }) => {
            if *moves {
                "move"
            } else {
                "fetch"
            }
        }
        StatementKind::Utility { .. } => "utility",
    }
}

fn session_kind_name(command: &SessionCommand) -> &'static str {
    match command {
        SessionCommand::Transaction(_) | SessionCommand::SetTransaction | SessionCommand::SetConstraints => {
            "transaction"
        }
        SessionCommand::Set { .. } | SessionCommand::Reset { .. } => "set",
        SessionCommand::Show { .. } => "show",
        SessionCommand::Discard { .. } | SessionCommand::Deallocate { .. } | SessionCommand::CloseCursor { .. } => {
            "discard"
        }
        SessionCommand::Listen { .. } | SessionCommand::Unlisten { .. } => "listen",
        SessionCommand::Notify { .. } => "notify",
    }
}
