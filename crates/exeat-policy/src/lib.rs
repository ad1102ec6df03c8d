//! Who may do what under which obligations: labels, rules, decision.
//! Pure. Never sees SQL text, wire bytes or a clock.

pub mod approval;
pub mod baseline;
mod check;
pub mod counting;
pub mod decision;
pub mod detector;
pub mod document;
pub mod grant;
pub mod hold;
pub mod label;
pub mod ledger;
pub mod limit;
pub mod load;
pub mod mask;
pub mod moment;
pub mod named;
pub mod pattern;
pub mod policy;
pub mod principal;
pub mod rule;
pub mod ruling;
pub mod selftest;
pub mod shape;
mod who;

pub use decision::{Access, AccessRequest, Capability, Decision, Effect, Preset, Reach, Reason, RelationName};
pub use detector::Detector;
pub use hold::{Mode, StatementKind};
pub use label::{Label, UNCLASSIFIED};
pub use limit::{AppliedLimit, ProbeLimit};
pub use mask::{ColumnMask, Generalize, Lookup, Mask, Nulls, Period};
pub use moment::Moment;
pub use named::Named;
pub use policy::{Policy, PolicyContext};
pub use principal::{Asker, Person, Principal, PrincipalKind};
pub use rule::Rule;
pub use ruling::{Ruling, StatementFacts};
pub use selftest::{Expectation, PolicyTest};
