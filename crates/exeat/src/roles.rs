//! `console.roles`: which groups of the first issuer may look at what a running gateway holds, and change it by hand.
//! Nobody decides about a held statement by a role: that is for the approvers its rules name.

use exeat_policy::Principal;

/// Groups by what they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConsoleRoles {
    /// Change what the gateway has accepted, counted and frozen.
    pub(crate) admin: Vec<String>,
    /// Look.
    pub(crate) approver: Vec<String>,
    pub(crate) auditor: Vec<String>,
    pub(crate) viewer: Vec<String>,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Look,
    Change,
}

impl Wanted {
    /// The roles that may.
    pub(crate) fn roles(self) -> &'static str {
        match self {
            Self::Look => "admin, approver, auditor or viewer",
            Self::Change => "admin",
        }
    }
}

/// The roles, and whose groups count: another issuer could name any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roles {
    pub(crate) groups: ConsoleRoles,
    pub(crate) issuer: Option<String>,
}

impl Roles {
    /// An agent that acts for somebody has none of their roles: it would set its own limits back.
    pub(crate) fn allow(&self, principal: &Principal, wanted: Wanted) -> bool {
        let is_ours = self.issuer.as_ref() == Some(&principal.issuer);
        is_ours && !acts(principal) && self.groups.allow(&principal.groups, wanted)
    }
}

/// Does somebody act for the principal, whoever that is?
pub(crate) fn acts(principal: &Principal) -> bool {
    principal.actor.is_some() || principal.claims.contains_key("act")
}

impl ConsoleRoles {
    fn allow(&self, groups: &[String], wanted: Wanted) -> bool {
        let holds = |role: &[String]| role.iter().any(|group| groups.contains(group));
        let Self { admin, approver, auditor, viewer } = self;
        match wanted {
            Wanted::Change => holds(admin),
            Wanted::Look => [admin, approver, auditor, viewer].into_iter().any(|role| holds(role)),
        }
    }
}

#[cfg(test)]
mod tests {
    use exeat_policy::PrincipalKind;

    use super::*;

    fn groups(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn principal(issuer: &str, group: &str, actor: Option<&str>) -> Principal {
        Principal {
            issuer: issuer.to_owned(),
            subject: "ann".to_owned(),
            groups: groups(&[group]),
            claims: serde_json::Map::new(),
            actor: actor.map(str::to_owned),
            kind: PrincipalKind::Human,
            token_id: None,
            instance: Default::default(),
        }
    }

    #[test]
    fn only_admins_change_and_nobody_looks_without_a_role() {
        let roles = Roles {
            groups: ConsoleRoles {
                admin: groups(&["ops"]),
                approver: groups(&["owners"]),
                auditor: groups(&["audit"]),
                viewer: groups(&["eyes"]),
            },
            issuer: Some("a".to_owned()),
        };
        for (held, look, change) in [
            ("ops", true, true),
            ("owners", true, false),
            ("audit", true, false),
            ("eyes", true, false),
            ("x", false, false),
        ] {
            let may =
                |principal: &Principal| (roles.allow(principal, Wanted::Look), roles.allow(principal, Wanted::Change));
            assert_eq!(may(&principal("a", held, None)), (look, change), "{held}");
            assert_eq!(may(&principal("b", held, None)), (false, false), "another issuer's {held}");
            assert_eq!(may(&principal("a", held, Some("agent"))), (false, false), "an agent for {held}");
            assert!(!Roles::default().allow(&principal("a", held, None), Wanted::Look));
        }
    }
}
