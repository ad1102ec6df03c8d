//! `identity:` — the issuers whose tokens open the door.

use exeat_policy::PrincipalKind;
use exeat_policy::document::{MappingReader, Node, Value};
use exeat_proxy::identity::{Algorithm, ClaimPath, IssuerConfig, JwksSource};

use super::Reading;

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("EdDSA", Algorithm::EdDsa),
];

impl Reading<'_> {
    pub(super) fn issuers(&mut self, node: &Node) -> Option<Vec<IssuerConfig>> {
        let items = node.as_list(&mut self.diags)?;
        if items.is_empty() {
            self.diags.error(&node.span, "`identity` is empty: nobody could log in").help("add an issuer");
            return None;
        }
        let issuers: Vec<Option<IssuerConfig>> = items.iter().map(|item| self.issuer(item)).collect();
        issuers.into_iter().collect()
    }

    fn issuer(&mut self, node: &Node) -> Option<IssuerConfig> {
        let mut reader = node.mapping(&mut self.diags)?;
        let issuer = reader.required("issuer", &mut self.diags).and_then(|node| node.as_string(&mut self.diags));
        let audience = reader.required("audience", &mut self.diags).and_then(|node| self.string_or_list(node));
        let defaults = IssuerConfig::new(issuer.unwrap_or_default(), "");
        let groups = match reader.optional("groups") {
            None => Some(defaults.groups.clone()),
            Some(node) => self.claim_path(node),
        };
        let jwks = match reader.optional("jwks_file") {
            None => Some(JwksSource::Discovery),
            Some(node) => self.path(node).map(JwksSource::File),
        };
        let kinds = [("human", PrincipalKind::Human), ("workload", PrincipalKind::Workload)];
        let kind = optional(&mut reader, "kind", |node| node.one_of(&kinds, &mut self.diags));
        let ca = optional(&mut reader, "ca", |node| self.path(node));
        let algorithms = match reader.optional("algorithms") {
            None => Some(defaults.algorithms.clone()),
            Some(node) => self.algorithms(node),
        };
        let max_stale = match reader.optional("max_stale") {
            None => Some(defaults.max_stale),
            Some(node) => node.as_duration(&mut self.diags),
        };
        let session_max = optional(&mut reader, "session_max", |node| node.as_duration(&mut self.diags));
        let allow_id_tokens = match reader.optional("allow_id_tokens") {
            None => Some(false),
            Some(node) => node.as_bool(&mut self.diags),
        };
        let scope = match reader.optional("scope") {
            None => Some(defaults.scope.clone()),
            Some(node) => node.as_string(&mut self.diags).map(str::to_owned),
        };
        reader.finish(&mut self.diags);
        issuer?;
        Some(IssuerConfig {
            audience: audience?,
            groups: groups?,
            jwks: jwks?,
            kind: kind?,
            algorithms: algorithms?,
            ca: ca?,
            max_stale: max_stale?,
            session_max: session_max?,
            allow_id_tokens: allow_id_tokens?,
            scope: scope?,
            ..defaults
        })
    }

    fn algorithms(&mut self, node: &Node) -> Option<Vec<Algorithm>> {
        let items = node.as_list(&mut self.diags)?;
        if items.is_empty() {
            self.diags.error(&node.span, "`algorithms` is an empty list").help("leave it out for the defaults");
            return None;
        }
        let read: Vec<Option<Algorithm>> = items.iter().map(|item| item.one_of(ALGORITHMS, &mut self.diags)).collect();
        read.into_iter().collect()
    }

    /// `groups`, `realm_access.roles`, or a list of names for claims that have dots in theirs.
    fn claim_path(&mut self, node: &Node) -> Option<ClaimPath> {
        match &node.value {
            Value::Sequence(_) => node.as_strings(&mut self.diags).map(ClaimPath::from_segments),
            _ => node.as_string(&mut self.diags).map(ClaimPath::from_dotted),
        }
    }

    pub(super) fn string_or_list(&mut self, node: &Node) -> Option<Vec<String>> {
        match &node.value {
            Value::Sequence(_) => node.as_strings(&mut self.diags),
            _ => node.as_string(&mut self.diags).map(|text| vec![text.to_owned()]),
        }
    }
}

/// `Some(None)` when the key is absent, `None` when its value is wrong.
pub(super) fn optional<'a, T>(
    reader: &mut MappingReader<'a>,
    key: &'static str,
    read: impl FnOnce(&'a Node) -> Option<T>,
) -> Option<Option<T>> {
    match reader.optional(key) {
        None => Some(None),
        Some(node) => read(node).map(Some),
    }
}
