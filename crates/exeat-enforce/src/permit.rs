//! What evaluation comes to: a permit, which speaks of one text and of what that text relied on, or a reason why not.

use std::sync::Arc;

use exeat_policy::grant::Covered;

use crate::named::{KnownNames, Made, Missing};
use crate::plan::StatementPlan;
use crate::record::RecordFacts;
use crate::refusal::Refusal;
use crate::scrub::Taint;

#[derive(Debug, Clone)]
pub enum Evaluation {
    Permit(Arc<Permit>),
    Refuse {
        refusal: Refusal,
        facts: RecordFacts,
    },
    /// The first statement that does not resolve: the server's own answer comes first.
    Probe {
        statement: std::ops::Range<usize>,
        /// What it names, as the analysis wrote it.
        name: String,
        refusal: Refusal,
    },
    /// A cursor or prepared statement that nobody has made.
    Missing {
        missing: Missing,
        facts: RecordFacts,
    },
}

/// Proof that policy permits this text for this session. One per text, not per message.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    sql: Arc<str>,
    pub plans: Vec<StatementPlan>,
    pub facts: RecordFacts,
    names: KnownNames,
}

impl Permit {
    pub(crate) fn new(sql: &str, plans: Vec<StatementPlan>, facts: RecordFacts, names: KnownNames) -> Self {
        Self { sql: Arc::from(sql), plans, facts, names }
    }

    /// For one statement, which refers to no names.
    pub(crate) fn of_one(sql: &str, plan: StatementPlan, facts: RecordFacts) -> Self {
        Self::new(sql, vec![plan], facts, KnownNames::default())
    }

    /// What stood behind the names it refers to when it was given. It holds as long as they stand for the same.
    pub fn names(&self) -> &KnownNames {
        &self.names
    }

    /// The statement that its first one prepares.
    pub fn prepared(&self) -> Option<&Arc<Self>> {
        match &self.plans.first()?.made {
            Some(Made::Statement { permit, .. }) => Some(permit),
            Some(Made::Cursor { .. }) | None => None,
        }
    }

    /// Whether a rule holds it until a human has agreed.
    pub fn is_held(&self) -> bool {
        self.plans.iter().any(|plan| !plan.bulk.causes.is_empty())
    }

    /// Whether anything of what it returns or changes is counted.
    pub fn is_counted(&self) -> bool {
        self.plans.iter().any(|plan| plan.bulk.is_counted())
    }

    /// As an approval of it leaves it. The same text under the same policy: nothing else is judged in another way.
    #[must_use]
    pub fn under(&self, covered: &Covered, approval: &str) -> Self {
        let made = |made: &Made| match made {
            // What its fetches give is what was approved.
            Made::Cursor { name, hold, permit } => {
                let permit = Arc::new(permit.under(covered, approval));
                Made::Cursor { name: name.clone(), hold: *hold, permit }
            }
            Made::Statement { .. } => made.clone(),
        };
        let lifted = |plan: &StatementPlan| StatementPlan {
            bulk: plan.bulk.under(covered),
            made: plan.made.as_ref().map(made),
            ..plan.clone()
        };
        let mut facts = self.facts.clone();
        facts.reasons.push(format!("let through by approval {approval}"));
        let plans = self.plans.iter().map(lifted).collect();
        Self { sql: Arc::clone(&self.sql), plans, facts, names: self.names.clone() }
    }

    /// The text this permit speaks of; admission compares it with the message's.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The worst any statement of the message carries.
    pub fn worst_taint(&self) -> Taint {
        self.plans.iter().map(|plan| plan.taint).max().unwrap_or(Taint::Clean)
    }

    /// Whether it reads, looks up or may let out anything that is sealed for its session.
    pub fn touches_sealed(&self) -> bool {
        let plan = |plan: &StatementPlan| {
            plan.effect.transaction.is_none() && (plan.taint > Taint::Clean || !plan.lookups.is_empty())
        };
        !self.facts.masked.is_empty() || self.plans.iter().any(plan)
    }

    /// Whether deferred constraints and triggers of the whole transaction may speak up in it.
    pub fn speaks_for_transaction(&self) -> bool {
        self.plans.iter().any(|plan| plan.effect.speaks_for_transaction)
    }
}
