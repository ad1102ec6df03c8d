//! Who may do what under which obligations: labels, rules, decision.
//! Pure. Never sees SQL text, wire bytes or a clock.

pub mod decision;
pub mod document;
pub mod principal;

pub use decision::{
    Access, AccessRequest, Capability, ColumnMask, Decision, Effect, Mask, Preset, Reason, RelationName,
};
pub use principal::{Principal, PrincipalKind};
