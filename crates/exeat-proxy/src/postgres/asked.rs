//! What a client asks the gateway itself (SHOW exeat.policy and its kin, SET exeat.purpose, SET exeat.explain), answered
//! here and never sent to the server, in the simple and the extended protocol, inside a failed transaction too: that is
//! where somebody asks why. An answer takes its place in order: it waits until the server has answered what went before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use exeat_enforce::asked::{Asked, Topic, asked, policy_json};
use exeat_enforce::evaluate::Evaluation;
use exeat_enforce::explain::{Audience, Decided, explain};
use exeat_enforce::record::RecordFacts;
use exeat_enforce::refusal::{Refusal, RefusalCode};
use exeat_enforce::release::Reply;
use exeat_sql::{MessageAnalysis, STATEMENT_BYTES_MAX};
use exeat_store::state::LimitFilter;
use exeat_wire::{Bind, Close, Describe, Execute, Fields, Format, Target};
use serde_json::json;

use super::counted::moment;
use super::outcome::Intent;
use super::picture::{Refused, Understood};
use super::session::{Done, Session, SessionEnd, WINDOW_REQUESTS_MAX};
use super::statements::NAMES_MAX;

/// Prepared questions and their portals of one session.
const QUESTIONS_MAX: usize = 256;

/// What the session keeps for the gateway's own answers.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    /// As the client says it: recorded with the statement that sets it, never trusted.
    purpose: String,
    /// The next statement is explained, not run.
    explain: bool,
    last_refusal: Option<String>,
    /// By unit, as last looked up.
    used: Option<BTreeMap<&'static str, u64>>,
    /// Names that the server does not have.
    statements: HashMap<String, Arc<Question>>,
    portals: HashMap<String, (Arc<Question>, Format)>,
}

#[derive(Debug)]
pub(crate) struct Question {
    sql: Arc<str>,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Asked(Asked),
    /// A statement explained instead of run.
    Explained(String),
}

impl Questions {
    /// What the client says it does this for, if anything.
    pub(crate) fn purpose(&self) -> Option<String> {
        (!self.purpose.is_empty()).then(|| self.purpose.clone())
    }
}

impl Question {
    /// The one column of the answer; `None` where there are no rows.
    fn column(&self) -> Option<&'static str> {
        match &self.of {
            Of::Asked(Asked::Show(topic)) => Some(topic.column()),
            Of::Asked(Asked::Purpose(_) | Asked::Explain(_)) => None,
            Of::Explained(_) => Some("exeat.explain"),
        }
    }

    fn kind(&self) -> &'static str {
        match &self.of {
            Of::Asked(Asked::Show(_)) => "show",
            Of::Asked(Asked::Purpose(_) | Asked::Explain(_)) => "set",
            Of::Explained(_) => "explain",
        }
    }
}

impl Questions {
    /// For `SHOW exeat.last_refusal`.
    pub(crate) fn refused(&mut self, refusal: &Refusal, request_id: &str) {
        self.last_refusal = Some(refusal.payload_json(request_id));
    }

    /// DEALLOCATE ALL and DISCARD ALL.
    pub(crate) fn forget_statements(&mut self) {
        self.statements.clear();
    }

    fn has_room(&self) -> bool {
        self.statements.len() + self.portals.len() < QUESTIONS_MAX
    }
}

impl Session {
    /// Whether the text is a question to the gateway, or to be explained.
    pub(crate) fn question(
        &mut self,
        sql: &str,
        analysis: &MessageAnalysis,
        evaluation: &Evaluation,
    ) -> Option<Understood> {
        let question = |of| Some(Understood::Own(Arc::new(Question { sql: Arc::from(sql), of })));
        match asked(&self.picture.facts, &self.picture.policy.policy, analysis) {
            Some(Ok(asked)) => return question(Of::Asked(asked)),
            Some(Err(refusal)) => return Some(Understood::Refuse(Box::new(Refused::plain(refusal)))),
            None => {}
        }
        if !std::mem::take(&mut self.questions.explain) {
            return None;
        }
        let request_id = self.new_request();
        let (facts, policy) = (&self.picture.facts, &self.picture.policy.policy);
        let told = explain(&Decided { facts, policy, sql, analysis, evaluation }, Audience::Principal);
        question(Of::Explained(told.json(sql, Some(&request_id)).to_string()))
    }

    /// Everything before is answered. `false`: the server skips, and this message with the rest.
    async fn caught_up(&mut self) -> Result<bool, SessionEnd> {
        if self.pipeline.due() > 0 {
            self.sender().flush();
        }
        while self.pipeline.due() > 0 && !self.pipeline.is_skipping() && !self.pipeline.is_copying_in() {
            self.await_answers().await?;
        }
        Ok(!self.pipeline.is_skipping())
    }

    pub(crate) async fn ask_simple(&mut self, question: &Question) -> Done {
        // As any Query it ends the batch, and the implicit transaction with it.
        if std::mem::take(&mut self.batch_open) {
            self.end_own_exchange().await?;
        }
        self.caught_up().await?;
        let change = self.names.run(true, Vec::new());
        self.names.confirm(change);
        self.questions.statements.remove("");
        if let Some(column) = question.column() {
            self.reply(Reply::Description { column, format: Format::Text })?;
        }
        self.look_up(question).await?;
        match self.give(question) {
            Ok(tag) => self.reply(Reply::Complete(tag))?,
            Err(fields) => self.io.outbox.error(&fields),
        }
        self.io.outbox.ready_for_query(self.status);
        Ok(())
    }

    pub(crate) async fn ask_parse(&mut self, name: &str, question: Arc<Question>) -> Done {
        if !self.caught_up().await? {
            return Ok(());
        }
        if !name.is_empty() && (self.names.statement(name).is_some() || self.questions.statements.contains_key(name)) {
            return self.refuse_extended(taken(name));
        }
        if !self.questions.has_room() {
            let refusal = too_many();
            return self.refuse_extended(refusal.to_fields("questions"));
        }
        let change = self.names.close_statement(name);
        self.names.confirm(change);
        self.questions.statements.insert(name.to_owned(), question);
        self.reply(Reply::Parsed)
    }

    /// A Parse for the server under the name of a question.
    pub(crate) fn question_in_the_way(&mut self, name: &str) -> Option<Fields> {
        if name.is_empty() {
            self.questions.statements.remove(name);
        }
        self.questions.statements.contains_key(name).then(|| taken(name))
    }

    pub(crate) fn questions_statement(&self, bind: &Bind) -> Option<Arc<Question>> {
        self.questions.statements.get(bind.statement.as_str()).cloned()
    }

    pub(crate) async fn ask_bind(&mut self, bind: &Bind, question: Arc<Question>) -> Done {
        if !self.caught_up().await? {
            return Ok(());
        }
        if !self.questions.has_room() {
            self.questions.portals.clear();
        }
        let format = bind.result_formats.first().copied().unwrap_or(Format::Text);
        let change = self.names.close_portal(bind.portal.as_str());
        self.names.confirm(change);
        self.questions.portals.insert(bind.portal.as_str().to_owned(), (question, format));
        self.reply(Reply::Bound)
    }

    /// A portal of the server's takes the name.
    pub(crate) fn question_unbound(&mut self, portal: &str) {
        self.questions.portals.remove(portal);
    }

    /// `false`: not about a question.
    pub(crate) async fn ask_describe(&mut self, describe: &Describe) -> Result<bool, SessionEnd> {
        let name = describe.name.as_str();
        let (question, format) = match describe.target {
            Target::Statement => match self.questions.statements.get(name) {
                Some(question) => (Arc::clone(question), Format::Text),
                None => return Ok(false),
            },
            Target::Portal => match self.questions.portals.get(name) {
                Some((question, format)) => (Arc::clone(question), *format),
                None => return Ok(false),
            },
        };
        if !self.caught_up().await? {
            return Ok(true);
        }
        if describe.target == Target::Statement {
            self.reply(Reply::Parameters)?;
        }
        self.reply(match question.column() {
            Some(column) => Reply::Description { column, format },
            None => Reply::NoData,
        })?;
        Ok(true)
    }

    pub(crate) async fn ask_execute(&mut self, execute: &Execute) -> Result<bool, SessionEnd> {
        let Some((question, _)) = self.questions.portals.get(execute.portal.as_str()) else { return Ok(false) };
        let question = Arc::clone(question);
        if !self.caught_up().await? {
            return Ok(true);
        }
        self.look_up(&question).await?;
        match self.give(&question) {
            Ok(tag) => self.reply(Reply::Complete(tag))?,
            Err(fields) => self.refuse_extended(*fields)?,
        }
        Ok(true)
    }

    pub(crate) async fn ask_close(&mut self, close: &Close) -> Result<bool, SessionEnd> {
        let name = close.name.as_str();
        let known = match close.target {
            Target::Statement => self.questions.statements.contains_key(name),
            Target::Portal => self.questions.portals.contains_key(name),
        };
        if !known {
            return Ok(false);
        }
        if self.caught_up().await? {
            match close.target {
                Target::Statement => drop(self.questions.statements.remove(name)),
                Target::Portal => drop(self.questions.portals.remove(name)),
            }
            self.reply(Reply::Closed)?;
        }
        Ok(true)
    }

    /// What the answer needs of the store. Of each unit the counter that has most: their names may be of relations that the
    /// client must not learn of.
    async fn look_up(&mut self, question: &Question) -> Done {
        let Of::Asked(Asked::Show(Topic::Limits)) = question.of else { return Ok(()) };
        let facts = &self.picture.facts;
        let asker = facts.principal.asker();
        let filter = LimitFilter {
            principal: Some(facts.principal.subject.clone()),
            target: Some(facts.target.clone()),
            label: None,
        };
        let state = self.shared.dependencies.state.clone();
        let spares = Arc::clone(&self.shared.spares);
        let found = self.while_client_stays(async move {
            spares.give_back_all().await;
            state.exposures(&filter, moment()).await
        });
        let found = found.await?;
        let mut used: BTreeMap<&'static str, u64> = BTreeMap::new();
        match found {
            Ok(found) => {
                for exposure in found.iter().filter(|exposure| exposure.key.asker == asker) {
                    let most = used.entry(exposure.key.unit.name()).or_default();
                    *most = exposure.used.max(*most);
                }
                self.questions.used = Some(used);
            }
            Err(problem) => {
                tracing::error!(problem = exeat_store::chain(&problem), "what is used of limits cannot be told");
                self.questions.used = None;
            }
        }
        Ok(())
    }

    /// Records the question and its outcome, and gives the row. The command's tag, or why there is no answer.
    fn give(&mut self, question: &Question) -> Result<&'static str, Box<Fields>> {
        let request_id = self.new_request();
        let facts = RecordFacts { kinds: vec![question.kind()], ..RecordFacts::default() };
        let recorded = self.record_intent(&request_id, &question.sql, &facts, Intent::Query);
        let recorded = recorded.and_then(|_receipt| {
            self.question_ended(&request_id)
                .map_err(|_| Box::new(Refusal::not_enforceable("the audit log cannot be written")))
        });
        if let Err(refusal) = recorded {
            return Err(Box::new(refusal.to_fields(&request_id)));
        }
        let (row, tag) = match &question.of {
            Of::Explained(explanation) => (Some(explanation.clone()), "EXPLAIN"),
            Of::Asked(Asked::Show(topic)) => (Some(self.shown(*topic)), "SHOW"),
            Of::Asked(Asked::Purpose(purpose)) => {
                self.questions.purpose.clone_from(purpose);
                (None, "SET")
            }
            Of::Asked(Asked::Explain(on)) => {
                self.questions.explain = *on;
                (None, "SET")
            }
        };
        if let Some(row) = row
            && self.reply(Reply::Row(&row)).is_err()
        {
            return Err(Box::new(Refusal::not_enforceable("the answer is too long").to_fields(&request_id)));
        }
        Ok(tag)
    }

    fn shown(&self, topic: Topic) -> String {
        let facts = &self.picture.facts;
        let principal = &facts.principal;
        match topic {
            Topic::Policy => policy_json(facts, &self.picture.policy.policy, self.picture.policy.generation),
            Topic::Limits => json!({
                "v": 1, "statement_bytes": STATEMENT_BYTES_MAX, "prepared_statements": NAMES_MAX,
                "requests_unanswered": WINDOW_REQUESTS_MAX, "used": self.questions.used,
            })
            .to_string(),
            Topic::Session => json!({
                "v": 1, "session": self.record.session(), "target": facts.target, "issuer": principal.issuer,
                "subject": principal.subject, "actor": principal.actor, "groups": principal.groups,
                "role": self.picture.role, "purpose": self.questions.purpose, "explain": self.questions.explain,
            })
            .to_string(),
            Topic::LastRefusal => self.questions.last_refusal.clone().unwrap_or_else(|| "null".to_owned()),
            Topic::Purpose => json!(self.questions.purpose).to_string(),
            Topic::Explain => json!(self.questions.explain).to_string(),
        }
    }

    fn reply(&mut self, reply: Reply<'_>) -> Done {
        self.io.outbox.reply(reply).map_err(|_| SessionEnd::UnexpectedAnswer("an answer of the gateway's own"))
    }
}

fn taken(name: &str) -> Fields {
    Fields::new("ERROR", "42P05", &format!("prepared statement \"{name}\" already exists"))
}

fn too_many() -> Refusal {
    Refusal::new(
        RefusalCode::StatementTooLarge,
        format!("the session holds {QUESTIONS_MAX} prepared questions to the gateway, the most allowed"),
    )
    .suggestion("close the ones you no longer need")
}
