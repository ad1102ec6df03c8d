//! The extended protocol's messages: each is admitted as it arrives, with the statement it is bound to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use exeat_enforce::admit::{Control, Verdict, admit_bind, admit_parse};
use exeat_enforce::lookup::Parameters;
use exeat_enforce::plan::Outputs;
use exeat_enforce::refusal::{Refusal, RefusalCode};
use exeat_enforce::stand_in::in_parameters;
use exeat_sql::Oid;
use exeat_wire::{Bind, Close, Describe, Execute, Fields, Parse, Request, Target};

use super::ask::Values;
use super::counted::Resting;
use super::due::{Due, ExecuteDue};
use super::held::Unheld;
use super::named::{own_name, too_many_names};
use super::notify::worded;
use super::outcome::Intent;
use super::picture::{Refused, Understanding, Understood};
use super::send::OWN_NAME;
use super::session::{Done, Session};
use super::statements::{NAME_BYTES_MAX, Portal, Statement};

impl Session {
    pub(crate) async fn parse(&mut self, parse: Parse) -> Done {
        let request_id = self.new_request();
        let refused = self.refuse_name(parse.name.as_str()).or_else(|| self.refuse_types(&parse.parameter_types));
        if let Some(refusal) = refused {
            return self.refuse_recorded(&request_id, parse.sql.as_str(), refusal);
        }
        let sql = parse.sql.clone();
        let (permit, analysis) = match self.understand(sql.as_str(), &parse.parameter_types, true).await? {
            Understood::Permit(permit, analysis) => (permit, analysis),
            Understood::Refuse(refused) => {
                self.record_refusal(&request_id, sql.as_str(), &refused);
                return self.refuse_extended(refused.refusal.to_fields(&request_id));
            }
            Understood::Answered(fields) | Understood::Said(fields) => {
                self.record_said(&request_id, sql.as_str(), &fields);
                return self.refuse_extended(fields);
            }
            Understood::Own(question) => return self.ask_parse(parse.name.as_str(), question).await,
            Understood::Skipped => return Ok(()),
        };
        if let Some(fields) = self.question_in_the_way(parse.name.as_str()) {
            return self.refuse_extended(fields);
        }
        let intent = Intent::Parse { name: parse.name.as_str() };
        let receipt = match self.record_intent(&request_id, sql.as_str(), &permit.facts, intent) {
            Ok(receipt) => receipt,
            Err(refusal) => return self.refuse_extended(refusal.to_fields(&request_id)),
        };
        let (name, types) = (parse.name.clone(), Arc::from(parse.parameter_types.as_slice()));
        match admit_parse(parse, &permit) {
            Verdict::Refuse(refusal) => self.refuse_extended(refusal.to_fields(&request_id)),
            Verdict::Forward(admitted) => {
                let kept = Arc::clone(&permit);
                let sql = Arc::from(sql.as_str());
                let statement = Statement { sql, permit: kept, analysis, index: 0, by_sql: false, types: Some(types) };
                let change = self.names.put_statement(name.as_str(), Arc::new(statement));
                let due = Due::Parse { change, permit };
                let skipped = self.sender().statement(Request::Parse, admitted, receipt, due);
                self.take_back(skipped);
                Ok(())
            }
        }
    }

    pub(crate) async fn bind(&mut self, bind: Bind) -> Done {
        let request_id = self.new_request();
        if let Some(refusal) = self.refuse_name(bind.portal.as_str()) {
            return self.refuse_recorded(&request_id, "", refusal);
        }
        if let Some(question) = self.questions_statement(&bind) {
            return self.ask_bind(&bind, question).await;
        }
        let Some(statement) = self.names.statement(bind.statement.as_str()).cloned() else {
            return self.say_missing("26000", "prepared statement", bind.statement.as_str());
        };
        let (permit, analysis) = match self.understand(&statement.sql, &[], true).await? {
            Understood::Permit(permit, analysis) => (permit, analysis),
            Understood::Refuse(refused) => {
                self.record_refusal(&request_id, &statement.sql, &refused);
                return self.refuse_extended(refused.refusal.to_fields(&request_id));
            }
            Understood::Answered(fields) | Understood::Said(fields) => {
                self.record_said(&request_id, &statement.sql, &fields);
                return self.refuse_extended(fields);
            }
            Understood::Own(question) => return self.ask_bind(&bind, question).await,
            Understood::Skipped => return Ok(()),
        };
        self.question_unbound(bind.portal.as_str());
        // Other objects, or the same in another way: what the server prepared is not what is decided on now.
        let means_the_same = statement.still_means(&analysis);
        let Some(permit) = statement.runs(Arc::clone(&permit)).filter(|_| means_the_same) else {
            let refused = Refused { refusal: Refusal::statement_changed(), facts: permit.facts.clone() };
            self.record_refusal(&request_id, &statement.sql, &refused);
            return self.refuse_extended(refused.refusal.to_fields(&request_id));
        };
        if let Some(refusal) = in_parameters(&self.picture.facts.target, &permit, &bind) {
            let refused = Refused { refusal, facts: permit.facts.clone() };
            self.record_refusal(&request_id, &statement.sql, &refused);
            return self.refuse_extended(refused.refusal.to_fields(&request_id));
        }
        let parameters = Parameters { bind: &bind, types: statement.types.as_deref() };
        if let Some(refused) = self.count_lookups(&request_id, &permit, Some(parameters)).await? {
            self.record_refusal(&request_id, &statement.sql, &refused);
            return self.refuse_extended(refused.refusal.to_fields(&request_id));
        }
        let values = Values::Of(&bind, statement.types.as_deref());
        let digest = permit.is_counted().then(|| self.digest_of(&values));
        let (permit, approval) = match self.seek_leave(&request_id, permit, &values).await? {
            Ok(leave) => leave,
            Err(unheld) => return self.refuse_unheld_extended(&request_id, &statement.sql, unheld),
        };
        let receipt = match self.record_intent(&request_id, &statement.sql, &permit.facts, Intent::Bind(&bind)) {
            Ok(receipt) => receipt,
            Err(refusal) => return self.refuse_extended(refusal.to_fields(&request_id)),
        };
        let portal = self.portal(&bind, (permit, analysis), Arc::clone(&request_id));
        let portal = Arc::new(Portal { values: digest, approval, ..portal });
        let name = bind.portal.clone();
        match admit_bind(bind, &statement.sql, &portal.permit) {
            Verdict::Refuse(refusal) => self.refuse_extended(refusal.to_fields(&request_id)),
            Verdict::Forward(admitted) => {
                let change = self.names.put_portal(name.as_str(), Arc::clone(&portal));
                let skipped = self.sender().statement(Request::Bind, admitted, receipt, Due::Bind { change, portal });
                self.take_back(skipped);
                Ok(())
            }
        }
    }

    fn portal(&self, bind: &Bind, (permit, analysis): Understanding, request_id: Arc<str>) -> Portal {
        Portal {
            request_id,
            policy: self.picture.policy.generation,
            analysed: self.analysed(Some(analysis)),
            result_formats: bind.result_formats.clone(),
            notifies: worded(&permit, &bind.parameters),
            bound: OnceLock::new(),
            declared: false,
            hold: false,
            describe_sent: AtomicBool::new(false),
            scale: OnceLock::new(),
            resting: Resting::default(),
            values: None,
            approval: None,
            permit,
        }
    }

    pub(crate) fn describe(&mut self, describe: Describe) -> Done {
        let name = describe.name.as_str();
        let (request, due) = match describe.target {
            Target::Statement => match self.names.statement(name).cloned() {
                Some(statement) if !self.still_stand(&statement.permit) => {
                    let request_id = self.new_request();
                    return self.refuse_recorded(&request_id, &statement.sql, Refusal::statement_changed());
                }
                Some(statement) => (Request::DescribeStatement, Due::DescribeStatement { statement }),
                None => return self.say_missing("26000", "prepared statement", name),
            },
            Target::Portal => match self.names.portal(name).cloned() {
                Some(portal) => {
                    portal.describe_sent.store(true, Ordering::Relaxed);
                    (Request::DescribePortal, Due::DescribePortal { portal, ours: false })
                }
                None => return self.say_missing("34000", "portal", name),
            },
        };
        let skipped = self.sender().control(request, Control::describe(describe), due);
        self.take_back(skipped);
        Ok(())
    }

    pub(crate) async fn execute(&mut self, execute: Execute) -> Done {
        let Some(portal) = self.names.portal(execute.portal.as_str()).cloned() else {
            return self.say_missing("34000", "portal", execute.portal.as_str());
        };
        // Masks and permit are those of the Bind: under another policy it must be bound again, and so where the
        // cursor or prepared statement it names is another by now.
        let policy = self.shared.dependencies.policy.load().generation;
        if portal.policy != policy || !self.still_stand(&portal.permit) {
            return self.refuse_recorded(&portal.request_id, portal.permit.sql(), Refusal::statement_changed());
        }
        let takes_part = execute.max_rows > 0;
        if takes_part && portal.plan().is_some_and(|plan| plan.bulk.writes && plan.bulk.is_counted()) {
            // The server changes all of it at the first fetch, and only says how many when the last is over.
            let reason = "what this write changes is counted, and that cannot be told of a part of its result";
            let refusal = Refusal::new(RefusalCode::NotEnforceable, reason).suggestion("fetch all of its rows at once");
            return self.refuse_recorded(&portal.request_id, portal.permit.sql(), refusal);
        }
        if let Some(id) = portal.resting.under().or_else(|| portal.approval.clone())
            && let Some(refusal) = self.taken_back(&id).await?
        {
            return self.refuse_recorded(&portal.request_id, portal.permit.sql(), refusal);
        }
        let request_id = match self.execute_intent(&portal) {
            Ok(request_id) => request_id,
            Err(refusal) => return self.refuse_extended(refusal.to_fields(&portal.request_id)),
        };
        let needs_description =
            portal.plan().is_some_and(|plan| matches!(plan.outputs, Outputs::Columns(_) | Outputs::ByOrigin));
        if needs_description && portal.bound.get().is_none() && !portal.describe_sent.swap(true, Ordering::Relaxed) {
            let due = Due::DescribePortal { portal: Arc::clone(&portal), ours: true };
            self.sender().describe_portal(execute.portal.as_str(), due)?;
        }
        self.notified.sends(&portal.notifies);
        self.note_effects(&portal.permit);
        let steps = match &portal.analysed.analysis {
            Some(analysis) => {
                self.steps(&portal.permit, (&request_id, portal.approval.as_ref()), &Arc::clone(analysis))
            }
            None => Vec::new(),
        };
        let change = (!steps.is_empty()).then(|| self.names.run(false, steps));
        let control = Control::execute(execute, &portal.permit);
        let permit = Arc::clone(&portal.permit);
        let due = Due::Execute(Box::new(ExecuteDue::new(portal, request_id, change)));
        let skipped = self.sender().control(Request::Execute, control, due);
        let is_due = skipped.is_none();
        if is_due {
            self.copy_in.sent(&permit);
        }
        self.take_back(skipped);
        if is_due && permit.is_counted() {
            // Its answer comes before the client's Sync, which would commit what it did.
            self.sender().flush();
            return self.go_alone(None).await;
        }
        Ok(())
    }

    fn refuse_unheld_extended(&mut self, request_id: &str, sql: &str, unheld: Unheld) -> Done {
        match unheld {
            Unheld::Refused(refused) => {
                self.record_refusal(request_id, sql, &refused);
                self.refuse_extended(refused.refusal.to_fields(request_id))
            }
            Unheld::Cancelled(fields) => {
                self.record_said(request_id, sql, &fields);
                self.refuse_extended(fields)
            }
        }
    }

    pub(crate) fn close(&mut self, close: Close) -> Done {
        let name = close.name.as_str();
        if name == OWN_NAME || name.len() > NAME_BYTES_MAX {
            return self.say_missing("26000", "prepared statement", name);
        }
        let change = match close.target {
            Target::Statement => self.names.close_statement(name),
            Target::Portal => self.names.close_portal(name),
        };
        let skipped = self.sender().control(Request::Close, Control::close(close), Due::Close { change });
        self.take_back(skipped);
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Done {
        self.sender().sync(Due::Sync);
        self.names.synced();
        self.picture.transaction_may_end();
        self.batch_open = false;
        self.refusing = false;
        Ok(())
    }

    /// What the server says of a name it does not know. The gateway knows them all, so it says it itself.
    fn say_missing(&mut self, sqlstate: &str, kind: &str, name: &str) -> Done {
        let fields = Fields::new("ERROR", sqlstate, &format!("{kind} \"{name}\" does not exist"));
        let request_id = self.new_request();
        self.record_said(&request_id, "", &fields);
        self.refuse_extended(fields)
    }

    fn refuse_recorded(&mut self, request_id: &str, sql: &str, refusal: Refusal) -> Done {
        let refused = Refused::plain(refusal);
        self.record_refusal(request_id, sql, &refused);
        self.refuse_extended(refused.refusal.to_fields(request_id))
    }

    /// Poison in place of the refused message; what follows is skipped up to the client's own Sync.
    pub(crate) fn refuse_extended(&mut self, fields: Fields) -> Done {
        self.refusing = true;
        self.open_batch();
        if self.pipeline.is_skipping() {
            // One of the gateway's own messages has already failed here: the server skips, and every earlier
            // answer has been released, so the refusal takes its place in order.
            self.io.outbox.error(&fields);
            return Ok(());
        }
        self.sender().poison_extended(Due::Poison(Box::new(fields)))?;
        Ok(())
    }

    pub(crate) async fn refuse_simple(&mut self, fields: &Fields) -> Done {
        if self.pipeline.is_skipping() {
            return self.answer_simple(fields).await;
        }
        let change = self.names.query(Vec::new());
        self.names.confirm(change);
        // The poison aborts the implicit transaction of an open batch, and takes back what it had set.
        self.picture.transaction_may_end();
        self.batch_open = false;
        self.sender().poison_simple(Due::Poison(Box::new(fields.clone())))?;
        Ok(())
    }

    fn refuse_name(&self, name: &str) -> Option<Refusal> {
        if name == OWN_NAME {
            return Some(own_name());
        }
        if name.len() > NAME_BYTES_MAX {
            return Some(
                Refusal::new(
                    RefusalCode::StatementTooLarge,
                    format!(
                        "the name of a statement or portal has {} bytes, more than the limit of {NAME_BYTES_MAX}",
                        name.len()
                    ),
                )
                .suggestion("use a shorter name: the server would cut it and might take it for another"),
            );
        }
        (!self.names.has_room()).then(too_many_names)
    }

    /// A parameter's type may run a user's code when the server reads its value, or bring rows with columns of their
    /// own into the statement.
    fn refuse_types(&self, types: &[u32]) -> Option<Refusal> {
        let facts = &self.picture.facts;
        let refused = |oid: &&u32| {
            let oid = Oid(**oid);
            facts.snapshot.type_runs_code(oid) || facts.snapshot.type_holds_rows(oid)
        };
        types.iter().find(refused).map(|oid| {
            Refusal::new(
                RefusalCode::OpaqueStatement,
                format!("the type of a parameter (OID {oid}) runs code of its own or holds rows"),
            )
            .suggestion("declare the parameter as text and leave the cast to the server")
        })
    }

    /// The server will not see what was just sent: its effect on names is undone.
    fn take_back(&mut self, skipped: Option<Due>) {
        match skipped {
            Some(Due::Parse { change, .. } | Due::Bind { change, .. } | Due::Close { change }) => {
                self.names.discard(change);
            }
            Some(Due::Execute(execute)) => execute.change.into_iter().for_each(|change| self.names.discard(change)),
            Some(_) | None => {}
        }
    }
}
