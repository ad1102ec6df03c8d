//! Whom a rule speaks of. The same words are read in two ways, and the difference is the security of delegation
//! and of several issuers:
//!
//! - An *allow* grants only what its author can have meant: the token's issuer is one of `issuers` (the default
//!   issuer when they are not given); a request of an agent acting for a human counts only if `actors` names the
//!   agent or the rule has no `who`; an exception that fits the human or the agent takes the grant away.
//! - A *deny* or *mask* holds wherever it could have been meant: for tokens of any issuer unless `issuers` says
//!   otherwise, when its conditions fit the human or the agent. Its exceptions relieve only tokens of the
//!   issuers the rule is written for, and a delegated request only if human and agent are both excepted, or the
//!   exception names the agent in `actors` and fits the human.
//!
//! Never looks anything up: groups and claims are those of the verified token.

use serde_json::{Map, Value};

use crate::principal::{Principal, PrincipalKind};

/// `who:` of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Who {
    pub(crate) conditions: Conditions,
    pub(crate) except: Option<Conditions>,
}

/// Conditions are joined by *and*, the values of one condition by *or*; an absent condition holds for everyone.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Conditions {
    pub(crate) groups: Option<Vec<String>>,
    pub(crate) subjects: Option<Vec<String>>,
    pub(crate) issuers: Option<Vec<String>>,
    pub(crate) actors: Option<Actors>,
    pub(crate) claims: Vec<(String, Value)>,
    pub(crate) kind: Option<PrincipalKind>,
}

/// `actors:` of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Actors {
    /// `"*"`: whoever acts for somebody.
    Any,
    Named(Vec<String>),
}

/// Does an allow with this `who` (`None`: the rule has none) count for the principal?
pub(crate) fn grants(who: Option<&Who>, principal: &Principal, default_issuer: &str) -> bool {
    let Some(who) = who else { return principal.issuer == default_issuer };
    let conditions = &who.conditions;
    if !issued_for(conditions.issuers.as_deref(), principal, default_issuer) {
        return false;
    }
    let acting = match (&conditions.actors, &principal.actor) {
        (None, None) => true,
        (Some(actors), Some(actor)) => actors.name(actor),
        (None, Some(_)) | (Some(_), None) => false,
    };
    acting && conditions.fit(&Party::human(principal)) && !who.excepted_by_any(principal)
}

/// Does a deny or mask with this `who` (`None`: the rule has none) hold for the principal?
pub(crate) fn restricts(who: Option<&Who>, principal: &Principal, default_issuer: &str) -> bool {
    let Some(who) = who else { return true };
    if who.conditions.issuers.as_ref().is_some_and(|issuers| !issuers.contains(&principal.issuer)) {
        return false;
    }
    if who.relieves_pair(principal, default_issuer) {
        return false;
    }
    Party::all(principal).iter().any(|party| {
        who.conditions.actors_could_mean(principal, party)
            && who.conditions.fit(party)
            && !who.relieves(principal, party, default_issuer)
    })
}

/// As a person reads it: `groups data-owners, on-call; kind human; except subjects ann`.
impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.conditions.words())?;
        match &self.except {
            Some(except) => write!(f, "; except {}", except.words()),
            None => Ok(()),
        }
    }
}

impl Conditions {
    fn words(&self) -> String {
        let Self { groups, subjects, issuers, actors, claims, kind } = self;
        let list = |name: &str, values: &Option<Vec<String>>| {
            values.as_ref().map(|values| format!("{name} {}", values.join(", ")))
        };
        let actors = actors.as_ref().map(|actors| match actors {
            Actors::Any => "any actor".to_owned(),
            Actors::Named(names) => format!("actors {}", names.join(", ")),
        });
        let kind = kind.map(|kind| match kind {
            PrincipalKind::Human => "kind human".to_owned(),
            PrincipalKind::Workload => "kind workload".to_owned(),
        });
        let claims = claims.iter().map(|(name, value)| Some(format!("claim {name} = {value}")));
        let lists = [list("groups", groups), list("subjects", subjects), list("issuers", issuers), actors, kind];
        let said: Vec<String> = lists.into_iter().chain(claims).flatten().collect();
        if said.is_empty() { "everybody".to_owned() } else { said.join("; ") }
    }
}

impl Who {
    /// Exceptions of an allow: whoever of the request fits loses the grant, whatever issuer vouched.
    fn excepted_by_any(&self, principal: &Principal) -> bool {
        let Some(except) = &self.except else { return false };
        let issuer_fits = except.issuers.as_ref().is_none_or(|issuers| issuers.contains(&principal.issuer));
        issuer_fits
            && Party::all(principal).iter().any(|party| except.actors_could_mean(principal, party) && except.fit(party))
    }

    /// Exceptions of a deny or mask for one party of the request.
    fn relieves(&self, principal: &Principal, party: &Party<'_>, default_issuer: &str) -> bool {
        let Some(except) = &self.except else { return false };
        self.except_issuer_fits(except, principal, default_issuer) && except.actors.is_none() && except.fit(party)
    }

    /// An exception that names the agent is about the pair: this human through that agent.
    fn relieves_pair(&self, principal: &Principal, default_issuer: &str) -> bool {
        let Some(except) = &self.except else { return false };
        let (Some(actors), Some(actor)) = (&except.actors, &principal.actor) else { return false };
        self.except_issuer_fits(except, principal, default_issuer)
            && actors.name(actor)
            && except.fit(&Party::human(principal))
    }

    fn except_issuer_fits(&self, except: &Conditions, principal: &Principal, default_issuer: &str) -> bool {
        let issuers = except.issuers.as_deref().or(self.conditions.issuers.as_deref());
        issued_for(issuers, principal, default_issuer)
    }
}

fn issued_for(issuers: Option<&[String]>, principal: &Principal, default_issuer: &str) -> bool {
    match issuers {
        Some(issuers) => issuers.contains(&principal.issuer),
        None => principal.issuer == default_issuer,
    }
}

impl Actors {
    fn name(&self, actor: &str) -> bool {
        match self {
            Actors::Any => true,
            Actors::Named(names) => names.iter().any(|name| name == actor),
        }
    }
}

impl Conditions {
    /// All conditions but issuers and actors, which are about the request and not about one party of it.
    fn fit(&self, party: &Party<'_>) -> bool {
        let group =
            self.groups.as_ref().is_none_or(|wanted| wanted.iter().any(|group| party.groups.contains(&group.as_str())));
        let subject = self.subjects.as_ref().is_none_or(|wanted| wanted.iter().any(|name| name == party.subject));
        let kind = self.kind.is_none_or(|kind| kind == party.kind);
        group && subject && kind && self.claims.iter().all(|(name, wanted)| party.claims(name, wanted))
    }

    /// For restrictions `actors: [agent-7]` also means agent-7 on its own behalf.
    fn actors_could_mean(&self, principal: &Principal, party: &Party<'_>) -> bool {
        match (&self.actors, &principal.actor) {
            (None, _) | (Some(Actors::Any), Some(_)) => true,
            (Some(Actors::Any), None) => false,
            (Some(actors @ Actors::Named(_)), actor) => {
                actors.name(party.subject) || actor.as_ref().is_some_and(|actor| actors.name(actor))
            }
        }
    }
}

/// The human (or the workload) of a request, or the agent acting for them.
struct Party<'a> {
    subject: &'a str,
    groups: Vec<&'a str>,
    claims: Option<&'a Map<String, Value>>,
    kind: PrincipalKind,
}

impl<'a> Party<'a> {
    fn all(principal: &'a Principal) -> Vec<Self> {
        std::iter::once(Self::human(principal)).chain(Self::agent(principal)).collect()
    }

    fn human(principal: &'a Principal) -> Self {
        Party {
            subject: &principal.subject,
            groups: principal.groups.iter().map(String::as_str).collect(),
            claims: Some(&principal.claims),
            kind: principal.kind,
        }
    }

    /// What the token says of the agent: the members of `act` (RFC 8693), its `groups` if it has them. The
    /// human's groups and claims are not the agent's: no exception of the human's relieves the agent.
    fn agent(principal: &'a Principal) -> Option<Self> {
        let subject = principal.actor.as_deref()?;
        let claims = principal.claims.get("act").and_then(Value::as_object);
        let groups = claims.and_then(|claims| claims.get("groups")).and_then(Value::as_array);
        let groups = groups.into_iter().flatten().filter_map(Value::as_str).collect();
        Some(Party { subject, groups, claims, kind: PrincipalKind::Workload })
    }

    /// Equal as JSON, or contained where the claim is an array.
    fn claims(&self, name: &str, wanted: &Value) -> bool {
        match self.claims.and_then(|claims| claims.get(name)) {
            Some(Value::Array(values)) => values.contains(wanted),
            Some(value) => value == wanted,
            None => false,
        }
    }
}
