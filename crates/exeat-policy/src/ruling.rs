//! What becomes of a statement once everything it does is known: `deny` beats `hold` beats `allow`. A ruling that permits
//! carries what is still owed while the answer streams: how many rows of each protected relation may leave before a human
//! is asked, and how much within a window. Where an approval covers the statement, the rules whose approvers agreed hold
//! it no more, and its ceiling takes their place; a deny it never touches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::approval::{Approver, Ceiling, Demand, Scope, Terms, USES_MAX, Unmoved};
use crate::decision::{Access, AccessRequest, Decision, Effect, Reach, RelationName};
use crate::grant::Covered;
use crate::hold::{Hold, Mode, StatementKind};
use crate::ledger::{Budget, Unit};
use crate::limit::ProbeLimit;
use crate::moment::Moment;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::rule::Rule;
use crate::shape::{Stance, WholeWrite};

/// A statement as rules about volume see it. Its capabilities are in the access request beside it. FETCH and EXECUTE are
/// what they stand for; EXPLAIN without ANALYZE runs nothing, and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementFacts {
    pub kind: StatementKind,
    /// Every relation it reads, writes or alters, also behind views, each once. Rows of a partition or child are rows of
    /// its parents: all of the family are touched.
    pub touches: Vec<Touch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    pub relation: RelationName,
    /// Does a column of it carry a label of the target?
    pub is_labelled: bool,
    pub read: ReadShape,
    pub write: WriteShape,
    pub copied: Copied,
    /// Are all columns taken at once where one is sealed for the principal?
    pub takes_star: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadShape {
    Nothing,
    /// By a condition on the relation, or only counted, grouped or tested.
    Restricted,
    /// All rows, but for a LIMIT that says how many.
    Unbounded {
        limit: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteShape {
    Nothing,
    Some,
    Whole,
}

/// Whether rows of a relation go into another one, where nobody counts them any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    No,
    /// So many base rows, for a LIMIT says so: they are reserved before it runs.
    AtMost(u64),
    Unknown,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    pub verdict: Verdict,
    /// What policy says of its accesses, whatever is said of its volume.
    pub decision: Decision,
    pub duties: Vec<Duty>,
    /// What a covering approval lets through. Such a statement is not held again while it streams: rows have left, so
    /// passing the ceiling, or a threshold that is left, ends it.
    pub ceiling: Option<Ceiling>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Permit,
    /// Before it runs, for all of these causes.
    Hold(Vec<Cause>),
    /// For one of these, or because `decision` denies.
    Deny(Vec<Cause>),
}

/// Why a statement is held or refused before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `None`: no rule speaks of it, and that is a no.
    pub rule: Option<String>,
    /// `None`: it may touch any.
    pub relation: Option<RelationName>,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The rule holds every statement of its kind.
    Statement,
    UnboundedRead,
    UnboundedWrite,
    Star,
    /// It copies rows to where they are not counted, more than leave without a human.
    Copy,
    /// It alters what the rule is about, so that the rule may not find it again.
    Definition,
    /// What it reads is not seen, so nothing of it can be counted.
    Unseen,
}

/// What is owed for one protected relation while the answer streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duty {
    pub relation: RelationName,
    /// By measure and amount: the first of a measure is in force.
    pub thresholds: Vec<Threshold>,
    pub budgets: Vec<AppliedBudget>,
}

/// Past so much, a rule holds the statement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold {
    pub measure: Measure,
    pub amount: u64,
    pub rule: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    Rows,
    Bytes,
    /// Rows a write changed.
    Affected,
}

/// So much within a window, and what follows when it is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedBudget {
    pub unit: Unit,
    pub budget: Budget,
    /// The first rule that gives the amount.
    pub rule: String,
    pub reached: Reached,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    Refused,
    Held,
}

/// A request as policy words it: its terms, and how its client is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    pub terms: Terms,
    pub wait: Duration,
    pub mode: Mode,
    /// How many of the rows that wait may be shown to whoever decides.
    pub sample: usize,
}

/// Whom a rule names to decide about what it holds, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deciders {
    pub approvers: String,
    pub escalates_to: Option<String>,
    pub break_glass: Option<String>,
}

impl Duty {
    pub fn threshold(&self, measure: Measure) -> Option<&Threshold> {
        self.thresholds.iter().find(|threshold| threshold.measure == measure)
    }

    /// The rules that hold a statement which has so much of this.
    pub fn passed(&self, measure: Measure, counted: u64) -> impl Iterator<Item = &str> {
        let past = move |threshold: &&Threshold| threshold.measure == measure && threshold.amount < counted;
        self.thresholds.iter().filter(past).map(|threshold| threshold.rule.as_str())
    }
}

impl Policy {
    /// What becomes of a statement. `covered`: by an approval of this very statement.
    pub fn rule_on(
        &self,
        request: &AccessRequest<'_>,
        statement: &StatementFacts,
        covered: Option<&Covered>,
    ) -> Ruling {
        let decision = self.decide(request);
        let voice = Voice { policy: self, principal: request.principal, target: request.target, statement };
        let denied = voice.denied();
        let mut held = voice.held();
        held.extend(voice.unseen(request));
        held.retain(|cause| !lifted(covered, cause.rule.as_deref()));
        let verdict = if decision.effect == Effect::Deny || !denied.is_empty() {
            Verdict::Deny(denied)
        } else if held.is_empty() {
            Verdict::Permit
        } else {
            Verdict::Hold(held)
        };
        let duties = voice.duties(covered);
        Ruling { verdict, decision, duties, ceiling: covered.map(Covered::ceiling) }
    }

    /// How many refusals the principal may collect at the target.
    pub fn refusal_budget(&self, principal: &Principal, target: &str) -> Option<AppliedBudget> {
        self.smallest(principal, target, Unit::Refusals, &|_| true)
    }

    /// What is asked of whom for a statement that these rules hold. `None`: a rule of them holds nothing, so nobody could
    /// let it through. Past the thresholds of rules that do not hold it yet nothing can be allowed, for their approvers
    /// are not asked.
    pub fn asking(
        &self,
        principal: &Principal,
        rules: &BTreeSet<String>,
        duties: &[Duty],
        now: Moment,
    ) -> Option<Asking> {
        let holds: Vec<(&Rule, &Hold)> = rules.iter().map(|id| self.hold_of(id)).collect::<Option<_>>()?;
        let expires = holds.iter().map(|(_, hold)| hold.expires).min()?;
        let wait = holds.iter().map(|(_, hold)| hold.wait).min()?;
        let mode = holds.iter().map(|(_, hold)| hold.mode).max()?;
        // Each rule has to allow it.
        let sample = holds.iter().map(|(_, hold)| hold.sample).min()?;
        let demand = |(rule, hold): &(&Rule, &Hold)| Demand {
            rule: rule.id().to_owned(),
            quorum: hold.quorum,
            escalates_at: hold.escalate.as_ref().map(|escalate| now.after(escalate.after)),
        };
        let mut ceiling = Ceiling::default();
        let others = duties.iter().flat_map(|duty| &duty.thresholds).filter(|other| !rules.contains(&other.rule));
        for Threshold { measure, amount, .. } in others {
            let bound = match measure {
                Measure::Rows => Ceiling { rows: Some(*amount), ..Ceiling::default() },
                Measure::Bytes => Ceiling { bytes: Some(*amount), ..Ceiling::default() },
                Measure::Affected => Ceiling { affected: Some(*amount), ..Ceiling::default() },
            };
            ceiling = ceiling.and(bound);
        }
        let terms = Terms {
            asker: principal.asker(),
            demands: holds.iter().map(demand).collect(),
            asked_at: now,
            decide_by: now.after(expires),
            widest: Scope { ceiling, uses: USES_MAX, lasts: expires },
        };
        Some(Asking { terms, wait, mode, sample })
    }

    /// What a human may do about a request, as the rules stand now. One that is gone lets nobody do anything.
    pub fn approver(&self, principal: &Principal, demands: &[Demand]) -> Result<Approver, Unmoved> {
        let standing = demands.iter().filter_map(|demand| {
            let (_, hold) = self.hold_of(&demand.rule)?;
            Some((demand.rule.clone(), hold.standing(principal, &self.default_issuer)))
        });
        Approver::new(principal, standing.collect::<BTreeMap<_, _>>())
    }

    /// Who may decide about what the rule holds, as it stands now. `None`: it holds nothing any more, so nobody.
    pub fn deciders(&self, rule: &str) -> Option<Deciders> {
        let (_, hold) = self.hold_of(rule)?;
        Some(Deciders {
            approvers: hold.approvers.to_string(),
            escalates_to: hold.escalate.as_ref().map(|escalate| escalate.to.to_string()),
            break_glass: hold.break_glass.as_ref().map(|rule| rule.who.to_string()),
        })
    }

    fn hold_of(&self, id: &str) -> Option<(&Rule, &Hold)> {
        self.rules.iter().find(|rule| rule.id() == id).and_then(|rule| Some((rule, rule.hold()?)))
    }

    /// Does a rule hold or count what this principal does at the target?
    pub fn holds_or_limits(&self, principal: &Principal, target: &str) -> bool {
        self.rules.iter().any(|rule| {
            let limits = rule.limits(principal, target, &self.default_issuer).is_some_and(|limits| limits.counts());
            limits || (rule.hold().is_some() && rule.restricts(principal, target, &self.default_issuer))
        })
    }

    /// The smallest amount that a `limit` gives over the longest window.
    fn smallest(
        &self,
        principal: &Principal,
        target: &str,
        unit: Unit,
        speaks: &dyn Fn(&Rule) -> bool,
    ) -> Option<AppliedBudget> {
        let mut smallest: Option<AppliedBudget> = None;
        for rule in self.rules.iter().filter(|rule| speaks(rule)) {
            let limits = rule.limits(principal, target, &self.default_issuer);
            let Some(budget) = limits.and_then(|limits| limits.budget(unit)) else { continue };
            let known = smallest.take();
            let named = known.as_ref().filter(|known| known.budget.amount <= budget.amount);
            let rule = named.map_or_else(|| rule.id().to_owned(), |known| known.rule.clone());
            let budget = known.map_or(budget, |known| known.budget.and(budget));
            smallest = Some(AppliedBudget { unit, budget, rule, reached: Reached::Refused });
        }
        smallest
    }
}

fn lifted(covered: Option<&Covered>, rule: Option<&str>) -> bool {
    covered.is_some_and(|covered| rule.is_some_and(|rule| covered.lifts(rule)))
}

/// Does a statement copy more than the rule lets leave? Bytes of what is copied are never seen.
fn copies_past(hold: &Hold, copied: Copied) -> bool {
    match copied {
        Copied::No => false,
        Copied::AtMost(rows) => hold.bytes.is_some() || hold.rows.is_some_and(|threshold| threshold < rows),
        Copied::Unknown => hold.bytes.is_some() || hold.rows.is_some(),
    }
}

/// One question to the rules.
struct Voice<'a> {
    policy: &'a Policy,
    principal: &'a Principal,
    target: &'a str,
    statement: &'a StatementFacts,
}

impl<'a> Voice<'a> {
    /// The rules that restrict this principal at this target in what they say of a relation and of this kind.
    fn rules(&self, touch: &'a Touch) -> impl Iterator<Item = &'a Rule> {
        let Self { policy, principal, target, statement } = *self;
        policy.rules.iter().filter(move |rule| {
            rule.is_about(statement.kind)
                && rule.protects(&touch.relation, touch.is_labelled)
                && rule.restricts(principal, target, &policy.default_issuer)
        })
    }

    fn denied(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        for touch in &self.statement.touches {
            let cause = |rule: Option<&str>, why| Cause {
                rule: rule.map(str::to_owned),
                relation: Some(touch.relation.clone()),
                why,
            };
            let unbounded = self
                .rules(touch)
                .filter(|rule| rule.shape().unbounded == Some(Stance::Deny) && self.is_unbounded(touch, rule));
            causes.extend(unbounded.map(|rule| cause(Some(rule.id()), Why::UnboundedRead)));
            if touch.takes_star
                && let Some(rule) = self.policy.forbids_star(self.principal, self.target, &touch.relation)
            {
                causes.push(cause(Some(rule), Why::Star));
            }
            if let WholeWrite::Denied { rule } = self.whole_write(touch) {
                causes.push(cause(rule, Why::UnboundedWrite));
            }
            // Nobody knows how much to reserve before it runs.
            let limits = self.budgets(touch, &[]).into_iter().filter(|applied| match touch.copied {
                Copied::No => false,
                Copied::AtMost(_) => applied.unit == Unit::Bytes,
                Copied::Unknown => applied.unit != Unit::Cells,
            });
            causes.extend(limits.map(|applied| cause(Some(&applied.rule), Why::Copy)));
        }
        causes
    }

    fn held(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        for touch in &self.statement.touches {
            let cause =
                |rule: &str, why| Cause { rule: Some(rule.to_owned()), relation: Some(touch.relation.clone()), why };
            for rule in self.rules(touch) {
                let shape = rule.shape();
                if let Some(hold) = rule.hold() {
                    let whole = !hold.counts() && !shape.holds();
                    causes.extend(whole.then(|| cause(rule.id(), Why::Statement)));
                    causes.extend(copies_past(hold, touch.copied).then(|| cause(rule.id(), Why::Copy)));
                    let alters = !whole && self.statement.kind == StatementKind::Ddl;
                    causes.extend(alters.then(|| cause(rule.id(), Why::Definition)));
                }
                if shape.unbounded == Some(Stance::Hold) && self.is_unbounded(touch, rule) {
                    causes.push(cause(rule.id(), Why::UnboundedRead));
                }
                if shape.select_star == Some(Stance::Hold) && touch.takes_star {
                    causes.push(cause(rule.id(), Why::Star));
                }
            }
            if let WholeWrite::Held { rule } = self.whole_write(touch) {
                causes.push(cause(rule, Why::UnboundedWrite));
            }
        }
        causes
    }

    /// What may touch any data may touch what a rule holds: it is held before it runs, by each of them.
    fn unseen(&self, request: &AccessRequest<'_>) -> Vec<Cause> {
        let unseen = |access: &Access| access.relation.is_none() && access.capability.reach() == Reach::Unknown;
        if !request.accesses.iter().any(unseen) {
            return Vec::new();
        }
        let holds = |rule: &&Rule| {
            rule.hold().is_some()
                && rule.is_about(self.statement.kind)
                && rule.restricts(self.principal, self.target, &self.policy.default_issuer)
        };
        let cause = |rule: &Rule| Cause { rule: Some(rule.id().to_owned()), relation: None, why: Why::Unseen };
        self.policy.rules.iter().filter(holds).map(cause).collect()
    }

    /// A LIMIT bounds what is read where it stays within the number of rows from which on a human is asked anyway. A rule
    /// without such a number of its own knows no LIMIT that is small.
    fn is_unbounded(&self, touch: &'a Touch, rule: &Rule) -> bool {
        match touch.read {
            ReadShape::Nothing | ReadShape::Restricted => false,
            ReadShape::Unbounded { limit: None } => true,
            ReadShape::Unbounded { limit: Some(limit) } => {
                let counts = rule.hold().is_some_and(|hold| hold.rows.is_some());
                let rows = self.rules(touch).filter_map(|rule| rule.hold()?.rows);
                !counts || rows.min().is_some_and(|threshold| threshold < limit)
            }
        }
    }

    fn whole_write(&self, touch: &Touch) -> WholeWrite<'a> {
        match touch.write {
            WriteShape::Nothing | WriteShape::Some => WholeWrite::Allowed,
            WriteShape::Whole => {
                self.policy.whole_write(self.principal, self.target, &touch.relation, touch.is_labelled)
            }
        }
    }

    fn duties(&self, covered: Option<&Covered>) -> Vec<Duty> {
        let duty = |touch: &'a Touch| {
            let thresholds = self.thresholds(touch, covered);
            let budgets = self.budgets(touch, &thresholds);
            let owed = !thresholds.is_empty() || !budgets.is_empty();
            owed.then(|| Duty { relation: touch.relation.clone(), thresholds, budgets })
        };
        self.statement.touches.iter().filter_map(duty).collect()
    }

    fn thresholds(&self, touch: &'a Touch, covered: Option<&Covered>) -> Vec<Threshold> {
        let mut thresholds = Vec::new();
        for rule in self.rules(touch).filter(|rule| !lifted(covered, Some(rule.id()))) {
            let Some(hold) = rule.hold() else { continue };
            let affected = hold.affected.filter(|_| touch.write != WriteShape::Nothing);
            let amounts = [(Measure::Rows, hold.rows), (Measure::Bytes, hold.bytes), (Measure::Affected, affected)];
            thresholds.extend(amounts.into_iter().filter_map(|(measure, amount)| {
                Some(Threshold { measure, amount: amount?, rule: rule.id().to_owned() })
            }));
        }
        thresholds.sort();
        thresholds
    }

    /// Where no rule limits rows, the smallest threshold of rows bounds what leaves within a day without a human.
    fn budgets(&self, touch: &'a Touch, thresholds: &[Threshold]) -> Vec<AppliedBudget> {
        let speaks = |rule: &Rule| rule.protects(&touch.relation, touch.is_labelled);
        let limit = |unit| self.policy.smallest(self.principal, self.target, unit, &speaks);
        let rows = limit(Unit::Rows).or_else(|| {
            let smallest = thresholds.iter().find(|threshold| threshold.measure == Measure::Rows)?;
            let budget = Budget { amount: smallest.amount, window: ProbeLimit::DEFAULT.window };
            let (unit, rule) = (Unit::UnapprovedRows, smallest.rule.clone());
            Some(AppliedBudget { unit, budget, rule, reached: Reached::Held })
        });
        rows.into_iter().chain(limit(Unit::Bytes)).chain(limit(Unit::Cells)).collect()
    }
}
