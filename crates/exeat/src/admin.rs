//! The desk for people who look after a running gateway: limits, and what has been accepted of each database. A token
//! checked as at every other door, a role its groups give, and what changes on record before it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use exeat_console::{AdminDesk, Asked, DeskError, DiscoverWish, Discovered, Limits, Reply};
use exeat_enforce::drift;
use exeat_policy::baseline::Known;
use exeat_proxy::config::{Databases, LoadedPolicy, Target};
use exeat_proxy::identity::Verified;
use exeat_proxy::spares::Spares;
use exeat_sql::catalog::Pins;
use exeat_store::record::{BaselineChange, BaselineEvent, LimitReset, Requester, TokenRef};
use exeat_store::state::{DatabaseRef, LimitFilter, State};
use jiff::Timestamp;

use crate::catalog;
use crate::clock::now;
use crate::handles::Desk;
use crate::roles::{Roles, Wanted};

pub(crate) struct Admin {
    pub(crate) desk: Arc<Desk>,
    pub(crate) state: State,
    pub(crate) spares: Arc<Spares>,
    pub(crate) policy: Arc<ArcSwap<LoadedPolicy>>,
    pub(crate) targets: BTreeMap<String, Target>,
    pub(crate) roles: Roles,
}

/// What there is to accept of a database.
struct Accepted<'a> {
    known: &'a Known,
    definitions: &'a Pins,
    /// The target has labels, and so something to bind them to.
    labelled: bool,
}

/// The desk as the console sees it.
pub(crate) struct SharedAdmin(pub(crate) Arc<Admin>);

impl AdminDesk for SharedAdmin {
    fn limits(&self, asked: Asked, filter: LimitFilter) -> Reply<Limits> {
        let admin = Arc::clone(&self.0);
        Box::pin(async move {
            admin.identify(asked, Wanted::Look).await?;
            let unreadable = |problem| unavailable(&problem, "the state store cannot be read");
            // So that what is shown as used has left, but for what is on its way.
            admin.spares.give_back_all().await;
            let probes = admin.state.limits(&filter, Timestamp::now()).await.map_err(unreadable)?;
            let exposures = admin.state.exposures(&filter, now()).await.map_err(unreadable)?;
            Ok(Limits { probes, exposures })
        })
    }

    fn reset_limits(&self, asked: Asked, filter: LimitFilter) -> Reply<usize> {
        let admin = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, source) = admin.identify(asked, Wanted::Change).await?;
            let reset = LimitReset {
                principal: filter.principal.as_deref(),
                target: filter.target.as_deref(),
                label: filter.label.as_deref(),
                by: requester(&identity, &source),
            };
            let recorded = admin.desk.recorder.limits_reset(&reset);
            recorded.map_err(|problem| unavailable(&problem, "the gateway cannot record this"))?;
            let unwritable = |problem| unavailable(&problem, "the state store cannot be written");
            // What is forgotten while it lies there would be spent and counted nowhere.
            admin.spares.give_back_all().await;
            let probes = admin.state.reset_limits(&filter).await.map_err(unwritable)?;
            let exposures = admin.state.reset_exposures(&filter).await.map_err(unwritable)?;
            Ok(probes.saturating_add(usize::try_from(exposures).unwrap_or(usize::MAX)))
        })
    }

    fn discover(&self, asked: Asked, wish: DiscoverWish) -> Reply<Discovered> {
        let admin = Arc::clone(&self.0);
        Box::pin(async move {
            let wanted = if wish.accept { Wanted::Change } else { Wanted::Look };
            let (identity, source) = admin.identify(asked, wanted).await?;
            admin.discover(&identity, &source, wish).await
        })
    }
}

impl Admin {
    async fn identify(&self, asked: Asked, wanted: Wanted) -> Result<(Verified, String), DeskError> {
        let (identity, source) = self.desk.identify(asked).await?;
        allowed(&self.roles, &identity, &source, wanted)?;
        Ok((identity, source))
    }

    async fn discover(&self, identity: &Verified, source: &str, wish: DiscoverWish) -> Result<Discovered, DeskError> {
        let target = self.target(wish.target, wish.database)?;
        let stored = DatabaseRef { target: &target.name, name: target.upstream.database() };
        let pins = self.state.pins(stored).await;
        let pins = Pins(pins.map_err(|problem| unavailable(&problem, "the state store cannot be read"))?);
        let read = catalog::read(&target, &pins).await;
        let snapshot = read.map_err(|problem| unavailable(&problem, "the target's catalog cannot be read"))?.snapshot;
        let policy = self.policy.load_full();
        let labels = policy.policy.labels(&target.name);
        let database = DatabaseRef { target: &target.name, name: snapshot.database_name() };
        let known = self.state.known(database).await;
        let known = known.map_err(|problem| unavailable(&problem, "the state store cannot be read"))?;
        let before = known.clone().unwrap_or_default();
        let drift = drift::examine(labels, &snapshot, &before, target.unclassified);
        let mut discovered = Discovered {
            target: target.name.clone(),
            database: database.name.to_owned(),
            known: known.is_some(),
            findings: drift.findings().map(ToString::to_string).collect(),
            accepted: wish.accept,
            relations: before.baseline.len(),
            bindings: before.bindings.len(),
            definitions: snapshot.pins().0.iter().filter(|pin| snapshot.definitions().holds(*pin)).count(),
        };
        if wish.accept {
            let accepted = drift::accepted(labels, &snapshot, &before);
            let found =
                Accepted { known: &accepted, definitions: snapshot.definitions(), labelled: !labels.is_empty() };
            self.accept(requester(identity, source), database, &found).await?;
            discovered.relations = accepted.baseline.len();
            discovered.bindings = accepted.bindings.len();
            discovered.definitions = snapshot.definitions().0.len();
        }
        Ok(discovered)
    }

    async fn accept(
        &self,
        by: Requester<'_>,
        database: DatabaseRef<'_>,
        accepted: &Accepted<'_>,
    ) -> Result<(), DeskError> {
        let Accepted { known: found, definitions, labelled } = *accepted;
        // A database that is empty, or not the one that was meant, would take every binding away.
        if found.bindings.is_empty() && (labelled || definitions.0.is_empty()) {
            return Err(DeskError::Wish(format!(
                "no label of target \"{}\" matches a column in database \"{}\"; there is nothing to accept",
                database.target, database.name
            )));
        }
        let (relations, bindings) = (found.baseline.len(), found.bindings.len());
        let what = BaselineEvent::Accepted;
        let change = BaselineChange {
            what,
            target: database.target,
            database: database.name,
            relations,
            bindings,
            definitions: definitions.0.len(),
            by: Some(by),
        };
        let recorded = self.desk.recorder.baseline_changed(&change);
        recorded.map_err(|problem| unavailable(&problem, "the gateway cannot record this"))?;
        let pinned = self.state.accept_pins(database, &definitions.0, Timestamp::now()).await;
        pinned.map_err(|problem| unavailable(&problem, "the state store cannot be written"))?;
        if labelled {
            let accepted = self.state.accept(database, found, Timestamp::now()).await;
            accepted.map_err(|problem| unavailable(&problem, "the state store cannot be written"))?;
        }
        Ok(())
    }

    fn target(&self, wanted: Option<String>, database: Option<String>) -> Result<Target, DeskError> {
        let name = self.desk.target(wanted)?;
        let missing = || DeskError::Wish(format!("target \"{name}\" does not exist"));
        let target = self.targets.get(&name).ok_or_else(missing)?;
        match (target.databases, database) {
            (Databases::One, None) => Ok(target.clone()),
            (Databases::One, Some(database)) if target.upstream.database() == database => Ok(target.clone()),
            (Databases::One, Some(database)) => {
                Err(DeskError::Wish(format!("target \"{name}\" has no database \"{}\"", database.escape_debug())))
            }
            (Databases::Every, None) => {
                Err(DeskError::Wish(format!("target \"{name}\" has every database of its server: name one")))
            }
            (Databases::Every, Some(database)) => {
                Ok(Target { upstream: target.upstream.with_database(&database), ..target.clone() })
            }
        }
    }
}

/// Whether a role of the console lets somebody do this.
pub(crate) fn allowed(roles: &Roles, identity: &Verified, source: &str, wanted: Wanted) -> Result<(), DeskError> {
    let principal = &identity.principal;
    if roles.allow(principal, wanted) {
        return Ok(());
    }
    tracing::warn!(subject = principal.subject, source, "a request to the console was refused: no role for it");
    let role = wanted.roles();
    Err(DeskError::NotAllowed(format!("this needs role {role}; console.roles says which groups have it")))
}

pub(crate) fn requester<'a>(identity: &'a Verified, source: &'a str) -> Requester<'a> {
    let token = &identity.token_ref;
    Requester {
        principal: &identity.principal,
        source,
        token: TokenRef { id: token.jti.as_deref(), sha256_8: &token.sha256_8 },
    }
}

pub(crate) fn unavailable(problem: &dyn std::error::Error, words: &str) -> DeskError {
    tracing::error!(problem = exeat_store::chain(problem), "{words}");
    DeskError::Unavailable(format!("{words}; the gateway's log says more"))
}
