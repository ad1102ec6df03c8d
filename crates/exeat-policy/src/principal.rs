//! Who is asking, as the identity provider says and as rules match it.

use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    pub issuer: String,
    /// `sub`: the human, or the workload. Never an e-mail address by our choice.
    pub subject: String,
    pub groups: Vec<String>,
    /// All claims of the token, for `who: {claims: …}` and logins.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// Outermost `act.sub` (RFC 8693): the agent acting for `subject`.
    pub actor: Option<String>,
    pub kind: PrincipalKind,
    /// `jti`, where the token has one.
    pub token_id: Option<String>,
    /// Pod uid, CI run id, SPIFFE id...: recorded.
    pub instance: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    Human,
    Workload,
}
