//! Freezes at a running gateway: the desk for whoever sets and lifts them, and the task that keeps what logins and
//! sessions look at as the store has it. What another gateway of the same store freezes holds here within a second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use exeat_console::{Asked, DeskError, FreezeDesk, FreezeKind, FreezeWish, Reply};
use exeat_policy::Person;
use exeat_policy::approval::Remark;
use exeat_proxy::freezes::{CurrentFreezes, Freezes as Current};
use exeat_proxy::identity::Verified;
use exeat_store::record::{FreezeChange, FreezeEvent};
use exeat_store::state::{FREEZES_MAX, Freeze, FreezeVerdict, Frozen, State, StateError};
use tokio::sync::watch;

use crate::admin::{allowed, requester, unavailable};
use crate::clock::now;
use crate::handles::Desk;
use crate::roles::{Roles, Wanted};

/// Whatever was heard: the store is the truth.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Freezes {
    pub(crate) desk: Arc<Desk>,
    pub(crate) state: State,
    pub(crate) roles: Roles,
    /// What logins and sessions look at.
    pub(crate) current: CurrentFreezes,
    /// Whose subjects can be named.
    pub(crate) issuers: BTreeSet<String>,
}

/// The desk as the console sees it.
pub(crate) struct SharedFreezes(pub(crate) Arc<Freezes>);

impl FreezeDesk for SharedFreezes {
    fn freezes(&self, asked: Asked) -> Reply<Vec<Freeze>> {
        let freezes = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, source) = freezes.desk.identify(asked).await?;
            allowed(&freezes.roles, &identity, &source, Wanted::Look)?;
            freezes.read().await
        })
    }

    fn freeze(&self, asked: Asked, wish: FreezeWish, reason: Remark) -> Reply<Freeze> {
        let freezes = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, source) = freezes.desk.identify(asked).await?;
            allowed(&freezes.roles, &identity, &source, Wanted::Change)?;
            freezes.freeze((&identity, &source), wish, reason).await
        })
    }

    fn thaw(&self, asked: Asked, wish: FreezeWish) -> Reply<Freeze> {
        let freezes = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, source) = freezes.desk.identify(asked).await?;
            allowed(&freezes.roles, &identity, &source, Wanted::Change)?;
            freezes.thaw((&identity, &source), wish).await
        })
    }
}

impl Freezes {
    async fn read(&self) -> Result<Vec<Freeze>, DeskError> {
        self.state.freezes().await.map_err(|problem| unavailable(&problem, "the state store cannot be read"))
    }

    async fn freeze(
        &self,
        (identity, source): (&Verified, &str),
        wish: FreezeWish,
        reason: Remark,
    ) -> Result<Freeze, DeskError> {
        let what = self.meant(wish)?;
        let by = identity.principal.asker().human;
        if what == Frozen::Subject(by.clone()) {
            return Err(DeskError::Wish("you would freeze yourself, and could not lift it again".to_owned()));
        }
        if let Some(standing) = self.read().await?.iter().find(|freeze| freeze.what == what) {
            return Err(stands_already(standing));
        }
        let event = FreezeEvent::Set { reason: reason.as_str() };
        self.record(&what, event, (identity, source))?;
        let freeze = Freeze { what, by, reason, at: now() };
        let verdict = self.state.freeze(&freeze).await;
        match verdict.map_err(|problem| unavailable(&problem, "the state store cannot be written"))? {
            FreezeVerdict::Frozen => {}
            FreezeVerdict::FrozenBefore => return Err(stands_already(&freeze)),
            FreezeVerdict::TooMany => {
                return Err(DeskError::TooMany(format!("there are {FREEZES_MAX} freezes, no more fit; lift some")));
            }
        }
        tracing::warn!(what = words(&freeze.what), by = freeze.by.subject, source, "frozen");
        self.refresh().await;
        Ok(freeze)
    }

    async fn thaw(&self, (identity, source): (&Verified, &str), wish: FreezeWish) -> Result<Freeze, DeskError> {
        let standing = self.read().await?;
        let fits = |freeze: &&Freeze| match (&freeze.what, wish.kind) {
            (Frozen::Target(name), None | Some(FreezeKind::Target)) => wish.issuer.is_none() && *name == wish.name,
            (Frozen::Subject(person), None | Some(FreezeKind::Subject)) => {
                person.subject == wish.name && wish.issuer.as_ref().is_none_or(|issuer| *issuer == person.issuer)
            }
            (Frozen::Target(_), Some(FreezeKind::Subject)) | (Frozen::Subject(_), Some(FreezeKind::Target)) => false,
        };
        let mut found = standing.iter().filter(fits);
        let freeze = match (found.next(), found.next()) {
            (Some(freeze), None) => freeze.clone(),
            (None, _) => {
                let name = wish.name.escape_debug();
                return Err(DeskError::NotFound(format!("\"{name}\" is not frozen; `exeat freezes` lists what is")));
            }
            (Some(_), Some(_)) => {
                let name = wish.name.escape_debug();
                return Err(DeskError::Wish(format!("several freezes are of \"{name}\": say its kind or issuer")));
            }
        };
        self.record(&freeze.what, FreezeEvent::Lifted, (identity, source))?;
        let lifted = self.state.thaw(&freeze.what).await;
        lifted.map_err(|problem| unavailable(&problem, "the state store cannot be written"))?;
        tracing::warn!(what = words(&freeze.what), by = identity.principal.subject, source, "freeze lifted");
        self.refresh().await;
        Ok(freeze)
    }

    /// A name with a slip in it would freeze nobody, and look as if it had.
    fn meant(&self, wish: FreezeWish) -> Result<Frozen, DeskError> {
        let FreezeWish { name, kind, issuer } = wish;
        let is_target = self.desk.targets.contains(&name);
        let as_target = match (kind, &issuer) {
            (Some(FreezeKind::Target), _) => true,
            (Some(FreezeKind::Subject), _) | (None, Some(_)) => false,
            (None, None) => is_target,
        };
        if as_target {
            let missing = || DeskError::Wish(format!("target \"{}\" does not exist", name.escape_debug()));
            return is_target.then(|| Frozen::Target(name.clone())).ok_or_else(missing);
        }
        let issuer = issuer.or_else(|| self.roles.issuer.clone()).unwrap_or_default();
        if !self.issuers.contains(&issuer) {
            let known: Vec<&str> = self.issuers.iter().map(String::as_str).collect();
            let text =
                format!("issuer \"{}\" is not configured; there are {}", issuer.escape_debug(), known.join(", "));
            return Err(DeskError::Wish(text));
        }
        Ok(Frozen::Subject(Person { issuer, subject: name }))
    }

    fn record(
        &self,
        what: &Frozen,
        event: FreezeEvent<'_>,
        (identity, source): (&Verified, &str),
    ) -> Result<(), DeskError> {
        let (issuer, name) = match what {
            Frozen::Subject(person) => (Some(person.issuer.as_str()), person.subject.as_str()),
            Frozen::Target(name) => (None, name.as_str()),
        };
        let change = FreezeChange { what: event, issuer, name, by: requester(identity, source) };
        let recorded = self.desk.recorder.freeze_changed(&change);
        recorded.map_err(|problem| unavailable(&problem, "the gateway cannot record this"))
    }

    /// At once here; the task finds it in a second where this fails.
    async fn refresh(&self) {
        if let Ok(freezes) = self.state.freezes().await {
            self.current.store(Arc::new(Current::new(freezes)));
        }
    }
}

fn stands_already(freeze: &Freeze) -> DeskError {
    let by = freeze.by.subject.escape_debug();
    DeskError::Conflict(format!("{} is frozen already, by {by}: {}", words(&freeze.what), freeze.reason.as_str()))
}

fn words(what: &Frozen) -> String {
    match what {
        Frozen::Subject(person) => {
            format!("subject \"{}\" of {}", person.subject.escape_debug(), person.issuer.escape_debug())
        }
        Frozen::Target(name) => format!("target \"{}\"", name.escape_debug()),
    }
}

/// Before the first login.
pub(crate) async fn first_look(state: &State) -> Result<CurrentFreezes, StateError> {
    Ok(Arc::new(arc_swap::ArcSwap::from_pointee(Current::new(state.freezes().await?))))
}

/// Keeps `current` as the store has it until `shutdown` turns true. Where the store does not answer, what was frozen
/// stays frozen.
pub(crate) async fn follow(state: State, current: CurrentFreezes, mut shutdown: watch::Receiver<bool>) {
    let mut changes = state.changes();
    let mut seen = changes.borrow_and_update().freeze;
    let mut is_known = true;
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            _ = changes.wait_for(|now| now.freeze != seen) => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        seen = changes.borrow_and_update().freeze;
        match state.freezes().await {
            Ok(freezes) => {
                current.store(Arc::new(Current::new(freezes)));
                is_known = true;
            }
            Err(problem) => {
                if std::mem::take(&mut is_known) {
                    tracing::error!(problem = exeat_store::chain(&problem), "freezes cannot be read: those known stay");
                }
                // Whoever has heard of a change must not turn in a circle meanwhile.
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}
