//! One rule as loaded, and whether it speaks of a request. Deciding between rules is the policy's.

use crate::decision::{Access, Capability, Reach, RelationName};
use crate::detector::Detector;
use crate::document::Span;
use crate::hold::{Hold, StatementKind};
use crate::limit::Limits;
use crate::mask::{Lookup, Mask, Nulls};
use crate::pattern::RelationPattern;
use crate::principal::Principal;
use crate::shape::Shape;
use crate::who::{self, Who};

/// A rule of a policy.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(crate) id: String,
    pub(crate) place: Span,
    pub(crate) who: Option<Who>,
    /// `None`: every target.
    pub(crate) targets: Option<Vec<String>>,
    /// `None`: every relation.
    pub(crate) relations: Option<Vec<RelationPattern>>,
    pub(crate) effects: Effects,
    /// What it denies or refuses is answered as what does not exist.
    pub(crate) hide: bool,
}

/// What a rule does: it forbids, or it grants, masks, limits and looks for patterns.
#[derive(Debug, Clone)]
pub(crate) enum Effects {
    Deny {
        reason: Option<String>,
    },
    Grant {
        allow: Vec<Capability>,
        masks: Vec<LabelMask>,
        detect: Vec<Detector>,
        limit: Option<Limits>,
        shape: Shape,
        hold: Option<Box<Hold>>,
        /// What `hold` and `shape` are about; `None`: every kind of statement.
        statements: Option<Vec<StatementKind>>,
    },
}

/// One entry of `mask:`.
#[derive(Debug, Clone)]
pub(crate) struct LabelMask {
    pub(crate) label: String,
    pub(crate) place: Span,
    pub(crate) mask: Mask,
    pub(crate) nulls: Nulls,
    pub(crate) lookup: Lookup,
}

impl Rule {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is written.
    pub fn place(&self) -> &Span {
        &self.place
    }

    /// Its capabilities, if it allows this principal anything at this target.
    pub(crate) fn allows(&self, principal: &Principal, target: &str, default_issuer: &str) -> Option<&[Capability]> {
        match &self.effects {
            Effects::Grant { allow, .. } => {
                let counts = !allow.is_empty() && self.is_for(target);
                (counts && who::grants(self.who.as_ref(), principal, default_issuer)).then_some(allow)
            }
            Effects::Deny { .. } => None,
        }
    }

    /// Its masks, if it masks anything for this principal at this target.
    pub(crate) fn masks(&self, principal: &Principal, target: &str, default_issuer: &str) -> &[LabelMask] {
        match &self.effects {
            Effects::Grant { masks, .. } if !masks.is_empty() && self.is_for(target) => {
                if who::restricts(self.who.as_ref(), principal, default_issuer) { masks } else { &[] }
            }
            Effects::Grant { .. } | Effects::Deny { .. } => &[],
        }
    }

    /// What it looks for in what this principal reads at this target.
    pub(crate) fn detects(&self, principal: &Principal, target: &str, default_issuer: &str) -> &[Detector] {
        match &self.effects {
            Effects::Grant { detect, .. } if !detect.is_empty() && self.is_for(target) => {
                if who::restricts(self.who.as_ref(), principal, default_issuer) { detect } else { &[] }
            }
            Effects::Grant { .. } | Effects::Deny { .. } => &[],
        }
    }

    /// How much it lets this principal use up at this target.
    pub(crate) fn limits(&self, principal: &Principal, target: &str, default_issuer: &str) -> Option<Limits> {
        match &self.effects {
            Effects::Grant { limit, .. } if self.is_for(target) => {
                limit.filter(|_| who::restricts(self.who.as_ref(), principal, default_issuer))
            }
            Effects::Grant { .. } | Effects::Deny { .. } => None,
        }
    }

    pub(crate) fn hold(&self) -> Option<&Hold> {
        match &self.effects {
            Effects::Grant { hold, .. } => hold.as_deref(),
            Effects::Deny { .. } => None,
        }
    }

    /// Do its `hold` and its shape speak of statements of this kind?
    pub(crate) fn is_about(&self, kind: StatementKind) -> bool {
        match &self.effects {
            Effects::Grant { statements, .. } => statements.as_ref().is_none_or(|kinds| kinds.contains(&kind)),
            Effects::Deny { .. } => false,
        }
    }

    /// Without `relations`, what counts and holds is about relations that carry a label.
    pub(crate) fn protects(&self, relation: &RelationName, is_labelled: bool) -> bool {
        self.covers_relation(relation) && (self.relations.is_some() || is_labelled)
    }

    pub(crate) fn shape(&self) -> Shape {
        match &self.effects {
            Effects::Grant { shape, .. } => *shape,
            Effects::Deny { .. } => Shape::default(),
        }
    }

    /// Does what it asks for hold for this principal at this target?
    pub(crate) fn restricts(&self, principal: &Principal, target: &str, default_issuer: &str) -> bool {
        self.is_for(target) && who::restricts(self.who.as_ref(), principal, default_issuer)
    }

    /// Does it forbid this principal anything at this target?
    pub(crate) fn denies(&self, principal: &Principal, target: &str, default_issuer: &str) -> bool {
        match &self.effects {
            Effects::Deny { .. } => self.is_for(target) && who::restricts(self.who.as_ref(), principal, default_issuer),
            Effects::Grant { .. } => false,
        }
    }

    /// Does it make a relation one that does not exist, for this principal at this target?
    pub(crate) fn hides(&self, principal: &Principal, target: &str, relation: &RelationName, issuer: &str) -> bool {
        self.hide && self.covers_relation(relation) && self.denies(principal, target, issuer)
    }

    pub(crate) fn reason(&self) -> Option<&str> {
        match &self.effects {
            Effects::Deny { reason } => reason.as_deref(),
            Effects::Grant { .. } => None,
        }
    }

    pub(crate) fn is_for(&self, target: &str) -> bool {
        self.targets.as_ref().is_none_or(|targets| targets.iter().any(|name| name == target))
    }

    pub(crate) fn covers_relation(&self, relation: &RelationName) -> bool {
        self.relations.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(relation)))
    }

    /// For allows. Limited to relations, one covers what names no relation only where that means it touches none.
    pub(crate) fn covers(&self, access: &Access) -> bool {
        match &access.relation {
            Some(relation) => self.covers_relation(relation),
            None => self.relations.is_none() || access.capability.reach() == Reach::Relations,
        }
    }

    /// For denies. Limited to relations, one does not speak of what names none.
    pub(crate) fn forbids(&self, access: &Access) -> bool {
        match &access.relation {
            Some(relation) => self.covers_relation(relation),
            None => self.relations.is_none(),
        }
    }

    /// For denies. May the access touch, unseen, a relation this one is limited to?
    pub(crate) fn may_forbid(&self, access: &Access) -> bool {
        access.relation.is_none() && self.relations.is_some() && access.capability.reach() == Reach::Unknown
    }
}
