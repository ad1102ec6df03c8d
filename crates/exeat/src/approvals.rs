//! The desk for approvals: who may look at a request, who may decide it, and what goes on record before it is decided.
//!
//! Every decision is authorised from the caller's own token by the policy in force at that moment, whatever brought the
//! caller here. A role of the console lets somebody look; deciding is for the approvers that the request's rules name.
//! Whoever is neither, and did not ask, is told that there is no such request.

use std::sync::Arc;

use arc_swap::ArcSwap;
use exeat_console::{
    Act, Acted, ApprovalDesk, Asked, Cursor, DeskError, ListWish, Page, Reply, RuleStanding, ScopeWish, Shown,
    WithdrawWish,
};
use exeat_enforce::card::Card;
use exeat_policy::approval::{Approver, BreakGlass, Ceiling, Event, Finding, Remark, Scope, Terms, Unmoved, step};
use exeat_policy::grant::Ask;
use exeat_policy::{Person, Principal};
use exeat_proxy::config::LoadedPolicy;
use exeat_proxy::identity::Verified;
use exeat_store::record::{ApprovalChange, ApprovalEvent};
use exeat_store::state::{Decided, Request, RequestFilter, RequestId, SHOWN_MAX, State, Wanted as WantedRequests};

use crate::admin::{requester, unavailable};
use crate::clock::now;
use crate::handles::Desk;
use crate::roles::{Roles, Wanted, acts};

/// Pages looked through for one page of what the caller may see: as many as hold everything that can be open.
const PAGES_SCANNED_MAX: usize = 10;

/// Earlier decisions shown beside a request.
const EARLIER_MAX: u32 = 10;

pub(crate) struct Approvals {
    pub(crate) desk: Arc<Desk>,
    pub(crate) state: State,
    pub(crate) policy: Arc<ArcSwap<LoadedPolicy>>,
    pub(crate) roles: Roles,
}

/// The desk as the console sees it.
pub(crate) struct SharedApprovals(pub(crate) Arc<Approvals>);

impl ApprovalDesk for SharedApprovals {
    fn list(&self, asked: Asked, wish: ListWish) -> Reply<Page> {
        let approvals = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, _) = approvals.desk.identify(asked).await?;
            approvals.list(&identity.principal, wish).await
        })
    }

    fn show(&self, asked: Asked, id: RequestId) -> Reply<Shown> {
        let approvals = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, _) = approvals.desk.identify(asked).await?;
            let request = approvals.visible(&identity.principal, &id).await?;
            approvals.shown(&identity.principal, request).await
        })
    }

    fn act(&self, asked: Asked, id: RequestId, act: Act) -> Reply<Acted> {
        let approvals = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, source) = approvals.desk.identify(asked).await?;
            approvals.act((&identity, &source), &id, act).await
        })
    }

    fn withdraw(&self, asked: Asked, wish: WithdrawWish) -> Reply<Vec<RequestId>> {
        let approvals = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, source) = approvals.desk.identify(asked).await?;
            approvals.withdraw((&identity, &source), wish).await
        })
    }
}

impl Approvals {
    async fn list(&self, principal: &Principal, wish: ListWish) -> Result<Page, DeskError> {
        let ListWish { wanted, target, principal: of, before, limit } = wish;
        let wished = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut filter = RequestFilter {
            wanted,
            target,
            principal: of,
            before: before.map(|cursor| (cursor.asked_at, cursor.id)),
            limit: SHOWN_MAX,
        };
        let mut page = Page::default();
        for _ in 0..PAGES_SCANNED_MAX {
            let found = self.state.requests(&filter).await.map_err(unreadable)?;
            let is_last = found.len() < usize::try_from(SHOWN_MAX).unwrap_or(usize::MAX);
            for line in found {
                let cursor = Cursor { asked_at: line.terms.asked_at, id: line.id.clone() };
                filter.before = Some((cursor.asked_at, cursor.id.clone()));
                if self.may_see(principal, &line.ask, &line.terms) {
                    page.lines.push(line);
                }
                if page.lines.len() == wished {
                    page.next = Some(cursor);
                    return Ok(page);
                }
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next = filter.before.map(|(asked_at, id)| Cursor { asked_at, id });
        Ok(page)
    }

    /// The request, if the caller may know of it.
    async fn visible(&self, principal: &Principal, id: &RequestId) -> Result<Request, DeskError> {
        let found = self.state.request(id).await.map_err(unreadable)?;
        let request = found.filter(|request| self.may_see(principal, &request.ask, &request.terms));
        request.ok_or_else(|| DeskError::NotFound(format!("there is no approval \"{}\"", id.as_str().escape_debug())))
    }

    fn may_see(&self, principal: &Principal, ask: &Ask, terms: &Terms) -> bool {
        let decides = self.approver(principal, terms).is_ok_and(|approver| {
            terms
                .demands
                .iter()
                .map(|demand| approver.standing(demand))
                .any(|standing| standing.first || standing.second || standing.break_glass != BreakGlass::Refused)
        });
        decides || self.roles.allow(principal, Wanted::Look) || is_party(principal, ask)
    }

    /// As the rules stand now.
    fn approver(&self, principal: &Principal, terms: &Terms) -> Result<Approver, Unmoved> {
        self.policy.load().policy.approver(principal, &terms.demands)
    }

    async fn shown(&self, principal: &Principal, request: Request) -> Result<Shown, DeskError> {
        let is_party = is_party(principal, &request.ask);
        let mut earlier =
            self.state.earlier(&request.fingerprint, EARLIER_MAX.saturating_add(1)).await.map_err(unreadable)?;
        // Whoever asked learns nothing of what others ask.
        earlier.retain(|one| one.id != request.id && (!is_party || one.asker == request.ask.asker));
        earlier.truncate(usize::try_from(EARLIER_MAX).unwrap_or(usize::MAX));
        let card = Card::decoded(&request.card);
        // The rows wait for a human, and these are some of them.
        let card = if is_party { card.map(Card::without_sample) } else { card };
        let policy = self.policy.load();
        let rules = request
            .terms
            .demands
            .iter()
            .map(|demand| RuleStanding { rule: demand.rule.clone(), deciders: policy.policy.deciders(&demand.rule) });
        let rules = rules.collect();
        let may = self.may(principal, &request);
        Ok(Shown { request, card, earlier, rules, may })
    }

    /// What the caller may do about it now: what would follow is asked, and nothing done.
    fn may(&self, principal: &Principal, request: &Request) -> Vec<&'static str> {
        let Ok(by) = self.approver(principal, &request.terms) else { return Vec::new() };
        let Ok(words) = Remark::try_from("-".to_owned()) else { return Vec::new() };
        let (by, reason, remark) = (|| by.clone(), || words.clone(), words.clone());
        let acts = [
            ("approve", Event::Approve { by: by(), scope: request.terms.usual() }),
            ("deny", Event::Deny { by: by(), reason: reason() }),
            ("revoke", Event::Revoke { by: by(), reason: reason() }),
            ("break-glass", Event::BreakGlass { by: by(), reason: Some(reason()) }),
            ("review", Event::Review { by: by(), finding: Finding::Justified, remark }),
        ];
        let moves = |event: Event| step(&request.terms, &request.progress, event, now()).is_ok();
        acts.into_iter().filter_map(|(name, event)| moves(event).then_some(name)).collect()
    }

    async fn act(&self, (identity, source): (&Verified, &str), id: &RequestId, act: Act) -> Result<Acted, DeskError> {
        let principal = &identity.principal;
        let (request, event) = if act == Act::Withdraw {
            self.roles_allow(identity, source, Wanted::Change)?;
            (self.visible(principal, id).await?, Event::Withdraw)
        } else {
            // Said to whoever asks: an agent is not to look for a request it might decide.
            let humans_only = |why: Unmoved| DeskError::NotAllowed(why.to_string());
            self.policy.load().policy.approver(principal, &[]).map_err(humans_only)?;
            let request = self.visible(principal, id).await?;
            let by = self.approver(principal, &request.terms).map_err(humans_only)?;
            let event = event(&act, by, &request.terms);
            (request, event)
        };
        let what = on_record(&act, &request.terms);
        if let Err(why) = step(&request.terms, &request.progress, event.clone(), now()) {
            return self.unmoved(principal, (request, why)).await;
        }
        self.record(&request, what, (identity, source))?;
        match self.state.decide(id, event, now()).await.map_err(unwritable)? {
            Decided::Moved(_) => {
                tracing::info!(approval = %id, subject = principal.subject, source, act = act_name(&act), "approval");
                let request = self.visible(principal, id).await?;
                Ok(Acted::Done(Box::new(self.shown(principal, request).await?)))
            }
            Decided::Unmoved(why) => {
                let problem = why.to_string();
                self.record(&request, ApprovalEvent::Void { problem: &problem }, (identity, source))?;
                let request = self.visible(principal, id).await?;
                self.unmoved(principal, (request, why)).await
            }
            Decided::NoSuchRequest => Err(DeskError::NotFound(format!("there is no approval \"{id}\" any more"))),
        }
    }

    async fn unmoved(&self, principal: &Principal, (request, why): (Request, Unmoved)) -> Result<Acted, DeskError> {
        Ok(Acted::Unmoved { why, shown: Box::new(self.shown(principal, request).await?) })
    }

    /// Before it is done.
    fn record(
        &self,
        request: &Request,
        what: ApprovalEvent<'_>,
        (identity, source): (&Verified, &str),
    ) -> Result<(), DeskError> {
        let change = ApprovalChange {
            what,
            approval: request.id.as_str(),
            target: &request.ask.target,
            asker: &request.ask.asker,
            by: Some(requester(identity, source)),
        };
        let recorded = self.desk.recorder.approval_changed(&change);
        recorded.map_err(|problem| unavailable(&problem, "the gateway cannot record this"))
    }

    fn roles_allow(&self, identity: &Verified, source: &str, wanted: Wanted) -> Result<(), DeskError> {
        crate::admin::allowed(&self.roles, identity, source, wanted)
    }

    async fn withdraw(
        &self,
        (identity, source): (&Verified, &str),
        wish: WithdrawWish,
    ) -> Result<Vec<RequestId>, DeskError> {
        self.roles_allow(identity, source, Wanted::Change)?;
        let mut filter = RequestFilter {
            wanted: WantedRequests::Open,
            target: wish.target,
            principal: wish.principal,
            before: None,
            limit: SHOWN_MAX,
        };
        let mut withdrawn = Vec::new();
        for _ in 0..PAGES_SCANNED_MAX {
            let found = self.state.requests(&filter).await.map_err(unreadable)?;
            let Some(last) = found.last() else { break };
            filter.before = Some((last.terms.asked_at, last.id.clone()));
            for line in found {
                if let Acted::Done(shown) = self.act((identity, source), &line.id, Act::Withdraw).await? {
                    withdrawn.push(shown.request.id);
                }
            }
        }
        Ok(withdrawn)
    }
}

/// Whoever asked, and whoever is asked for: the human, the agent on its own behalf, or just this pair.
fn is_party(principal: &Principal, ask: &Ask) -> bool {
    let person = Person { issuer: principal.issuer.clone(), subject: principal.subject.clone() };
    principal.asker() == ask.asker || (!acts(principal) && ask.asker.includes(&person))
}

fn event(act: &Act, by: Approver, terms: &Terms) -> Event {
    match act {
        Act::Approve(wish) => Event::Approve { by, scope: scope(*wish, terms) },
        Act::Deny { reason } => Event::Deny { by, reason: reason.clone() },
        Act::Revoke { reason } => Event::Revoke { by, reason: reason.clone() },
        Act::BreakGlass { reason } => Event::BreakGlass { by, reason: reason.clone() },
        Act::Review { finding, remark } => Event::Review { by, finding: *finding, remark: remark.clone() },
        Act::Withdraw => Event::Withdraw,
    }
}

/// What is not said is as it usually is.
fn scope(wish: ScopeWish, terms: &Terms) -> Scope {
    let ScopeWish { rows, bytes, affected, uses, lasts } = wish;
    let usual = terms.usual();
    Scope {
        ceiling: Ceiling {
            rows: rows.or(usual.ceiling.rows),
            bytes: bytes.or(usual.ceiling.bytes),
            affected: affected.or(usual.ceiling.affected),
        },
        uses: uses.unwrap_or(usual.uses),
        lasts: lasts.unwrap_or(usual.lasts),
    }
}

fn on_record<'a>(act: &'a Act, terms: &Terms) -> ApprovalEvent<'a> {
    match act {
        Act::Approve(wish) => ApprovalEvent::Approved(scope(*wish, terms)),
        Act::Deny { reason } => ApprovalEvent::Denied { reason: reason.as_str() },
        Act::Revoke { reason } => ApprovalEvent::Revoked { reason: reason.as_str() },
        Act::BreakGlass { reason } => ApprovalEvent::BrokenGlass { reason: reason.as_ref().map(Remark::as_str) },
        Act::Review { finding, remark } => ApprovalEvent::Reviewed { finding: *finding, remark: remark.as_str() },
        Act::Withdraw => ApprovalEvent::Withdrawn,
    }
}

fn act_name(act: &Act) -> &'static str {
    match act {
        Act::Approve(_) => "approve",
        Act::Deny { .. } => "deny",
        Act::Revoke { .. } => "revoke",
        Act::BreakGlass { .. } => "break_glass",
        Act::Review { .. } => "review",
        Act::Withdraw => "withdraw",
    }
}

fn unreadable(problem: exeat_store::state::StateError) -> DeskError {
    unavailable(&problem, "the state store cannot be read")
}

fn unwritable(problem: exeat_store::state::StateError) -> DeskError {
    unavailable(&problem, "the state store cannot be written")
}

#[cfg(test)]
mod tests;
