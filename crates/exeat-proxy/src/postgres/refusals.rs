//! How often a principal may be refused within a window: whoever tries what it may not, again and again, is looking for a
//! way in. Each refusal is on the ledger before the next statement runs; once the allowance is used up nothing runs but the
//! end of a transaction.

use exeat_enforce::evaluate::Permit;
use exeat_enforce::held::used_up;
use exeat_enforce::refusal::{Refusal, RefusalCode};
use exeat_policy::Moment;
use exeat_policy::ledger::{Counted, CounterKey, Resets, Unit, Want};
use exeat_policy::ruling::AppliedBudget;
use exeat_store::state::{LedgerVerdict, StateError, Wish};

use super::counted::{moment, resets_in};
use super::session::{Session, SessionEnd};

/// What the session knows of its principal's refusals.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Not on the ledger yet.
    pending: u64,
    known: Known,
    /// As the policy of this generation says.
    budget: Option<(u64, Option<AppliedBudget>)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    /// There was room when it was looked last: after the last refusal of this session.
    Room,
    UsedUp {
        used: u64,
        resets_at: Option<Moment>,
    },
}

impl Refusals {
    /// A statement was refused. Waiting is no attempt, nor is what the gateway cannot do, nor that there were too many.
    pub(crate) fn noted(&mut self, code: RefusalCode) {
        let counts = !matches!(
            code,
            RefusalCode::RefusalLimit
                | RefusalCode::ApprovalPending
                | RefusalCode::ApprovalExpired
                | RefusalCode::StatementChanged
                | RefusalCode::NotEnforceable
        );
        self.pending = self.pending.saturating_add(u64::from(counts));
    }
}

impl Session {
    /// Why a statement at sealed data does not run while the record is not archived. What ends a transaction always does.
    pub(crate) fn not_anchored(&self, permit: &Permit) -> Option<Refusal> {
        if !self.shared.dependencies.anchored.is_overdue() || !permit.touches_sealed() {
            return None;
        }
        Some(Refusal::not_enforceable("the record has not been archived for too long"))
    }

    /// Why a permitted statement does not run, where its principal was refused too often.
    pub(crate) async fn refused_too_often(&mut self, permit: &Permit) -> Result<Option<Refusal>, SessionEnd> {
        let Some(applied) = self.refusal_budget() else { return Ok(None) };
        let now = moment();
        let looked = match self.note_refusals(&applied, now).await? {
            Ok(()) => self.look_for_room(&applied, now).await?,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = looked {
            tracing::error!(problem = exeat_store::chain(&problem), "refusals could not be counted");
            return Ok(Some(Refusal::not_enforceable("refusals cannot be counted")));
        }
        let Known::UsedUp { used, resets_at } = self.refusals.known else { return Ok(None) };
        if permit.plans.iter().all(|plan| plan.effect.transaction.is_some()) {
            return Ok(None);
        }
        let resets = resets_at.and_then(|at| resets_in(at, now));
        Ok(Some(used_up(&self.held_here(Some(&applied.rule)), &applied, used, resets)))
    }

    fn refusal_budget(&mut self) -> Option<AppliedBudget> {
        let policy = &self.picture.policy;
        match &self.refusals.budget {
            Some((generation, budget)) if *generation == policy.generation => budget.clone(),
            Some(_) | None => {
                let facts = &self.picture.facts;
                let budget = policy.policy.refusal_budget(&facts.principal, &facts.target);
                self.refusals.budget = Some((policy.generation, budget.clone()));
                self.refusals.known = Known::Nothing;
                budget
            }
        }
    }

    /// Puts those since the last look on the ledger.
    async fn note_refusals(
        &mut self,
        applied: &AppliedBudget,
        now: Moment,
    ) -> Result<Result<(), StateError>, SessionEnd> {
        let pending = std::mem::take(&mut self.refusals.pending);
        if pending == 0 {
            return Ok(Ok(()));
        }
        // As many as there is room for: the rest changes nothing.
        for wanted in [pending.min(applied.budget.amount), 1] {
            let verdict = match self.reserve_refusals(applied, wanted, now).await? {
                Ok(verdict) => verdict,
                Err(problem) => return Ok(Err(problem)),
            };
            self.refusals.known = Known::Nothing;
            match verdict {
                LedgerVerdict::Reserved(_) => break,
                LedgerVerdict::Exhausted { used, resets_at, .. } => {
                    self.refusals.known = Known::UsedUp { used, resets_at: at(resets_at) };
                }
            }
        }
        Ok(Ok(()))
    }

    async fn look_for_room(
        &mut self,
        applied: &AppliedBudget,
        now: Moment,
    ) -> Result<Result<(), StateError>, SessionEnd> {
        let is_known = match self.refusals.known {
            Known::Room => true,
            Known::UsedUp { resets_at, .. } => resets_at.is_some_and(|at| now < at),
            Known::Nothing => false,
        };
        if is_known {
            return Ok(Ok(()));
        }
        match self.reserve_refusals(applied, 1, now).await? {
            Ok(LedgerVerdict::Reserved(reserved)) => {
                self.shared.spares.give_back(reserved);
                self.refusals.known = Known::Room;
            }
            Ok(LedgerVerdict::Exhausted { used, resets_at, .. }) => {
                self.refusals.known = Known::UsedUp { used, resets_at: at(resets_at) };
            }
            Err(problem) => return Ok(Err(problem)),
        }
        Ok(Ok(()))
    }

    async fn reserve_refusals(
        &mut self,
        applied: &AppliedBudget,
        amount: u64,
        now: Moment,
    ) -> Result<Result<LedgerVerdict, StateError>, SessionEnd> {
        let state = self.shared.dependencies.state.clone();
        let wish = self.refusal_wish(applied, amount);
        self.while_client_stays(async move { state.reserve(&[wish], now).await }).await
    }

    fn refusal_wish(&self, applied: &AppliedBudget, amount: u64) -> Wish {
        let facts = &self.picture.facts;
        let key = CounterKey {
            asker: facts.principal.asker(),
            target: facts.target.clone(),
            counted: Counted::Target,
            unit: Unit::Refusals,
        };
        Wish { key, budget: applied.budget, want: Want { at_least: amount, at_most: amount, ahead: 0 } }
    }

    /// The session ends: what it was refused last counts all the same.
    pub(crate) fn leave_refusals(&mut self) {
        let Some(applied) = self.refusal_budget() else { return };
        let pending = std::mem::take(&mut self.refusals.pending).min(applied.budget.amount);
        if pending == 0 {
            return;
        }
        let (state, wish) = (self.shared.dependencies.state.clone(), self.refusal_wish(&applied, 1));
        tokio::spawn(async move {
            for _ in 0..pending {
                match state.reserve(std::slice::from_ref(&wish), moment()).await {
                    Ok(LedgerVerdict::Reserved(_)) => {}
                    Ok(LedgerVerdict::Exhausted { .. }) => return,
                    Err(problem) => {
                        tracing::warn!(
                            problem = exeat_store::chain(&problem),
                            "refusals of a session that ended are not counted"
                        );
                        return;
                    }
                }
            }
        });
    }
}

fn at(resets: Resets) -> Option<Moment> {
    match resets {
        Resets::At(at) => Some(at),
        Resets::Never => None,
    }
}
