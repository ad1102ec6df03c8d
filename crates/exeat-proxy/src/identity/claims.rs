//! From verified claims to a principal. Pure: the time is an argument. Every claim that limits a token is either
//! checked here or refuses the token.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exeat_policy::{Principal, PrincipalKind};
use jiff::{SignedDuration, Timestamp};
use ring::digest;
use serde_json::{Map, Value};

use super::config::IssuerConfig;
use super::error::IdentityError;

/// Clocks of issuer and gateway may differ by this much.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// A token that lives longer than a day is a password, not a session.
const LIFETIME_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Beyond this, issuers leave groups out rather than list them, and a rule could miss one that denies.
const GROUPS_MAX: usize = 500;

/// OIDC bounds `sub` at 255 characters, SPIFFE ids at 2048 bytes; these go into startup packets and every record.
const NAME_BYTES_MAX: usize = 1024;

/// SHA-256 of a certificate, as tokens name the one they are bound to (RFC 8705, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thumbprint([u8; digest::SHA256_OUTPUT_LEN]);

impl Thumbprint {
    /// `None` never happens: the digest has the length it has.
    pub fn of(certificate_der: &[u8]) -> Option<Self> {
        digest::digest(&digest::SHA256, certificate_der).as_ref().try_into().ok().map(Self)
    }

    fn decode(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

/// What the claims prove, and until when.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) principal: Principal,
    /// The end of this identity in a running session.
    pub(super) ends_at: Timestamp,
}

/// What a token is checked against besides itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presented<'a> {
    pub(super) config: &'a IssuerConfig,
    /// Of the client's certificate on this very connection, its key proven in the handshake.
    pub(super) certificate: Option<Thumbprint>,
    pub(super) now: Timestamp,
}

/// Checks the claims of a token whose signature holds and whose `iss` is `config.issuer`.
pub(super) fn prove(
    claims: Map<String, Value>,
    is_access_token: bool,
    presented: Presented<'_>,
) -> Result<Proven, IdentityError> {
    let Presented { config, certificate, now } = presented;
    check_audience(&claims, &config.audience)?;
    let ends_at = check_times(&claims, now)?;
    if !is_access_token && !config.allow_id_tokens {
        refuse_id_token(&claims)?;
    }
    check_binding(&claims, certificate)?;
    let subject = required_name(&claims, "sub")?;
    let actor = actor(&claims, &config.issuer)?;
    let groups = groups(&claims, config)?;
    let kind = config.kind.unwrap_or_else(|| kind_of(&claims, &subject));
    let principal = Principal {
        issuer: config.issuer.clone(),
        groups,
        actor,
        kind,
        token_id: optional_name(&claims, "jti")?,
        instance: instance(&claims, &subject),
        subject,
        claims,
    };
    Ok(Proven { principal, ends_at })
}

/// Whoever holds a bound token must prove a key (RFC 7800); without that proof it may be stolen. The one proof a
/// connection can carry is a client certificate.
fn check_binding(claims: &Map<String, Value>, shown: Option<Thumbprint>) -> Result<(), IdentityError> {
    let members = match claims.get("cnf") {
        None => return Ok(()),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(IdentityError::Bound),
    };
    // A second member would be a second proof to ask for.
    let bound = match members.get("x5t#S256") {
        Some(Value::String(text)) if members.len() == 1 => Thumbprint::decode(text).ok_or(IdentityError::Bound)?,
        Some(_) | None => return Err(IdentityError::Bound),
    };
    match shown {
        None => Err(IdentityError::CertificateMissing),
        Some(shown) if shown != bound => Err(IdentityError::CertificateMismatch),
        Some(_) => Ok(()),
    }
}

fn claim_error(claim: &str, problem: &'static str) -> IdentityError {
    IdentityError::Claim { claim: claim.to_owned(), problem }
}

fn check_audience(claims: &Map<String, Value>, accepted: &[String]) -> Result<(), IdentityError> {
    let found: Vec<&str> = match claims.get("aud") {
        None => return Err(claim_error("aud", "is missing")),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().ok_or_else(|| claim_error("aud", "has a member that is not a string")))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(claim_error("aud", "is neither a string nor a list of strings")),
    };
    if found.iter().any(|name| accepted.iter().any(|own| own == name)) {
        return Ok(());
    }
    Err(IdentityError::WrongAudience { found: found.join(", ") })
}

/// `exp` is required, `nbf` and `iat` hold where present. Returns when the identity ends in a running session.
fn check_times(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, IdentityError> {
    let expires = date(claims, "exp")?.ok_or_else(|| claim_error("exp", "is missing"))?;
    let not_before = date(claims, "nbf")?;
    let issued = date(claims, "iat")?;
    let until = now.duration_until(expires);
    if until <= -LEEWAY {
        return Err(IdentityError::Expired { at: expires });
    }
    if let Some(at) = not_before.filter(|at| now.duration_until(*at) > LEEWAY) {
        return Err(IdentityError::NotYetValid { at });
    }
    if let Some(at) = issued.filter(|at| now.duration_until(*at) > LEEWAY) {
        return Err(IdentityError::IssuedInFuture { at });
    }
    let lifetime = issued.or(not_before).unwrap_or(now).duration_until(expires);
    if lifetime > LIFETIME_MAX {
        return Err(IdentityError::LivesTooLong {
            lifetime_seconds: lifetime.as_secs().unsigned_abs(),
            limit_seconds: LIFETIME_MAX.as_secs().unsigned_abs(),
        });
    }
    // A token accepted only thanks to the leeway must not end the session at once.
    let ends_at = if until > SignedDuration::ZERO { Some(expires) } else { expires.checked_add(LEEWAY).ok() };
    ends_at.ok_or_else(|| claim_error("exp", "is out of range"))
}

/// NumericDate (RFC 7519): a JSON number of seconds, fractions allowed. A string is not one: libraries that skipped
/// such an `exp` accepted expired tokens (CVE-2026-25537).
fn date(claims: &Map<String, Value>, claim: &str) -> Result<Option<Timestamp>, IdentityError> {
    let seconds = match claims.get(claim) {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_f64().ok_or_else(|| claim_error(claim, "is out of range"))?,
        Some(_) => return Err(claim_error(claim, "is not a number")),
    };
    SignedDuration::try_from_secs_f64(seconds)
        .ok()
        .filter(|since_epoch| !since_epoch.is_negative())
        .and_then(|since_epoch| Timestamp::from_duration(since_epoch).ok())
        .map(Some)
        .ok_or_else(|| claim_error(claim, "is out of range"))
}

/// An ID token carries something that only makes sense between the issuer and the program that signed in: `nonce`,
/// a hash of the code or token it came with, or the issuer's own word for its kind. (A token typed `at+jwt` never
/// gets here.)
fn refuse_id_token(claims: &Map<String, Value>) -> Result<(), IdentityError> {
    for marker in ["nonce", "at_hash", "c_hash", "s_hash"] {
        if claims.contains_key(marker) {
            return Err(IdentityError::IdToken { marker });
        }
    }
    // Keycloak says typ: ID, Cognito token_use: id.
    for marker in ["typ", "token_use"] {
        if claims.get(marker).and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("id")) {
            return Err(IdentityError::IdToken { marker });
        }
    }
    Ok(())
}

fn required_name(claims: &Map<String, Value>, claim: &str) -> Result<String, IdentityError> {
    optional_name(claims, claim)?.ok_or_else(|| claim_error(claim, "is missing"))
}

fn optional_name(claims: &Map<String, Value>, claim: &str) -> Result<Option<String>, IdentityError> {
    claims.get(claim).map(|value| name(value, claim)).transpose()
}

/// Names become startup options and lines of the record: no control characters, bounded, never empty.
fn name(value: &Value, claim: &str) -> Result<String, IdentityError> {
    let text = value.as_str().ok_or_else(|| claim_error(claim, "is not a string"))?;
    if text.is_empty() {
        return Err(claim_error(claim, "is empty"));
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(claim_error(claim, "is longer than 1024 bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(claim_error(claim, "has control characters"));
    }
    Ok(text.to_owned())
}

/// The agent acting for the subject: the outermost `act.sub` (RFC 8693, 4.1). Inner `act` are history and grant
/// nothing.
fn actor(claims: &Map<String, Value>, issuer: &str) -> Result<Option<String>, IdentityError> {
    let act = match claims.get("act") {
        None => return Ok(None),
        Some(Value::Object(act)) => act,
        Some(_) => return Err(claim_error("act", "is not an object")),
    };
    // Rules name actors by `sub` alone, so an actor of another issuer could pass for one of ours.
    if act.get("iss").is_some_and(|actor_issuer| actor_issuer.as_str() != Some(issuer)) {
        return Err(claim_error("act.iss", "is another issuer than the token's"));
    }
    let sub = act.get("sub").ok_or_else(|| claim_error("act.sub", "is missing"))?;
    name(sub, "act.sub").map(Some)
}

fn groups(claims: &Map<String, Value>, config: &IssuerConfig) -> Result<Vec<String>, IdentityError> {
    let path = config.groups.to_string();
    let mut segments = config.groups.segments().iter();
    let Some(first) = segments.next() else {
        return Ok(Vec::new());
    };
    refuse_overage(claims, first)?;
    let Some(mut value) = claims.get(first) else {
        return Ok(Vec::new());
    };
    for segment in segments {
        let object = value.as_object().ok_or_else(|| claim_error(&path, "is not where the groups path expects it"))?;
        match object.get(segment) {
            Some(inner) => value = inner,
            None => return Ok(Vec::new()),
        }
    }
    match value {
        // Some issuers write a list of one as a plain string.
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(items) if items.len() > GROUPS_MAX => Err(IdentityError::TooManyGroups { limit: GROUPS_MAX }),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(group) => Ok(group.clone()),
                _ => Err(claim_error(&path, "has a member that is not a string")),
            })
            .collect(),
        _ => Err(claim_error(&path, "is not a list of strings")),
    }
}

/// With too many groups, Microsoft Entra ID leaves them out and points elsewhere. Taking that for "no groups" would
/// lift every rule that denies by group.
fn refuse_overage(claims: &Map<String, Value>, groups_claim: &str) -> Result<(), IdentityError> {
    let overage = |marker: &str| Err(IdentityError::GroupsOverage { marker: marker.to_owned() });
    match claims.get("_claim_names") {
        None => {}
        Some(Value::Object(names)) if !names.contains_key(groups_claim) => {}
        Some(_) => return overage("_claim_names"),
    }
    if claims.get("hasgroups").is_some_and(|value| *value != Value::Bool(false)) {
        return overage("hasgroups");
    }
    let pointer = format!("{groups_claim}:src1");
    if claims.contains_key(&pointer) {
        return overage(&pointer);
    }
    Ok(())
}

/// Client credentials: the subject is the client itself, in the words of RFC 9068, Okta, Entra ID and Auth0.
fn kind_of(claims: &Map<String, Value>, subject: &str) -> PrincipalKind {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    let is_client = ["client_id", "azp", "cid"].into_iter().any(|claim| text(claim) == Some(subject));
    if is_client || text("idtyp") == Some("app") || text("gty") == Some("client-credentials") {
        PrincipalKind::Workload
    } else {
        PrincipalKind::Human
    }
}

/// Which running thing holds the token, as far as common issuers say.
fn instance(claims: &Map<String, Value>, subject: &str) -> BTreeMap<String, String> {
    let mut instance = BTreeMap::new();
    let pod = claims.get("kubernetes.io").and_then(|cluster| cluster.get("pod")).and_then(|pod| pod.get("uid"));
    // GitHub Actions says run_id, GitLab pipeline_id.
    for (name, value) in
        [("pod_uid", pod), ("ci_run", claims.get("run_id")), ("ci_pipeline", claims.get("pipeline_id"))]
    {
        if let Some(value) = value.and_then(Value::as_str).filter(|value| value.len() <= NAME_BYTES_MAX) {
            instance.insert(name.to_owned(), value.to_owned());
        }
    }
    if subject.starts_with("spiffe://") {
        instance.insert("spiffe_id".to_owned(), subject.to_owned());
    }
    instance
}

#[cfg(test)]
mod tests {
    use super::super::config::ClaimPath;
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;
    const ISSUER: &str = "https://idp.example.com";

    fn config() -> IssuerConfig {
        IssuerConfig::new(ISSUER, "exeat")
    }

    /// The smallest good token with `changes` laid over it; a null removes the claim.
    fn claims(changes: Value) -> Map<String, Value> {
        let mut claims = json!({"iss": ISSUER, "sub": "u1", "aud": "exeat", "exp": NOW + 300, "iat": NOW});
        let claims = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        claims.clone()
    }

    fn presented(config: &IssuerConfig, certificate: Option<Thumbprint>) -> Presented<'_> {
        Presented { config, certificate, now: Timestamp::from_second(NOW).unwrap() }
    }

    fn prove_with(config: &IssuerConfig, changes: Value) -> Result<Proven, IdentityError> {
        prove(claims(changes), false, presented(config, None))
    }

    fn accepted(changes: Value) -> Principal {
        prove_with(&config(), changes.clone()).unwrap_or_else(|error| panic!("{changes}: {error}")).principal
    }

    fn refused(changes: Value) -> IdentityError {
        match prove_with(&config(), changes.clone()) {
            Ok(_) => panic!("{changes} was accepted"),
            Err(error) => error,
        }
    }

    #[test]
    fn audience_is_exact_and_may_be_one_of_a_list() {
        accepted(json!({"aud": ["other", "exeat"]}));
        for aud in [json!("Exeat"), json!("exeat "), json!("exeat2"), json!([]), json!(["a", "b"])] {
            assert!(matches!(refused(json!({"aud": aud})), IdentityError::WrongAudience { .. }));
        }
        for aud in [json!(1), json!({"exeat": 1}), json!(["exeat", 1])] {
            assert!(matches!(refused(json!({"aud": aud})), IdentityError::Claim { .. }));
        }
        let mut without = claims(json!({}));
        without.remove("aud");
        assert_eq!(prove(without, false, presented(&config(), None)).unwrap_err(), claim_error("aud", "is missing"));
    }

    #[test]
    fn times_hold_with_a_minute_of_leeway_and_not_more() {
        accepted(json!({"exp": NOW - 59, "iat": NOW - 300}));
        accepted(json!({"nbf": NOW + 60}));
        accepted(json!({"iat": NOW + 60}));
        accepted(json!({"exp": NOW as f64 + 0.5}));
        assert!(matches!(refused(json!({"exp": NOW - 60})), IdentityError::Expired { .. }));
        assert!(matches!(refused(json!({"nbf": NOW + 61})), IdentityError::NotYetValid { .. }));
        assert!(matches!(refused(json!({"iat": NOW + 61})), IdentityError::IssuedInFuture { .. }));
    }

    #[test]
    fn a_token_lives_a_day_at_most_however_it_is_dated() {
        const DAY: i64 = 24 * 60 * 60;
        accepted(json!({"iat": NOW - 10, "exp": NOW - 10 + DAY}));
        accepted(json!({"iat": null, "exp": NOW + DAY}));
        for changes in [
            json!({"iat": NOW - 10, "exp": NOW - 9 + DAY}),
            json!({"iat": null, "exp": NOW + DAY + 1}),
            json!({"iat": null, "nbf": NOW - 10, "exp": NOW + DAY}),
            json!({"exp": NOW + 10 * 365 * DAY}),
        ] {
            assert!(matches!(refused(changes), IdentityError::LivesTooLong { .. }));
        }
        for exp in [json!(1e300), json!(-1), json!(9e15)] {
            assert_eq!(refused(json!({"exp": exp})), claim_error("exp", "is out of range"));
        }
    }

    #[test]
    fn dates_that_are_no_numbers_are_refused() {
        for claim in ["exp", "nbf", "iat"] {
            for value in [json!("1800000300"), json!([1_800_000_300]), json!(true)] {
                assert_eq!(refused(json!({claim: value})), claim_error(claim, "is not a number"));
            }
        }
        assert_eq!(refused(json!({"exp": null})), claim_error("exp", "is missing"));
    }

    #[test]
    fn the_session_ends_with_the_token_or_after_the_leeway_that_let_it_in() {
        let end = |exp: i64| prove_with(&config(), json!({"exp": exp, "iat": NOW - 100})).unwrap().ends_at.as_second();
        assert_eq!(end(NOW + 5), NOW + 5);
        assert_eq!(end(NOW - 5), NOW + 55);
    }

    #[test]
    fn names_are_bounded_text() {
        for claim in ["sub", "jti"] {
            for value in [json!(""), json!(1), json!(["a"]), json!("a\u{0}b"), json!("a\nb"), json!("x".repeat(1025))] {
                assert!(matches!(refused(json!({claim: value})), IdentityError::Claim { .. }), "{claim} {value}");
            }
        }
        assert_eq!(refused(json!({"sub": null})), claim_error("sub", "is missing"));
        let principal = accepted(json!({"sub": "x".repeat(1024), "jti": "t-1"}));
        assert_eq!(principal.token_id.as_deref(), Some("t-1"));
        assert_eq!(accepted(json!({})).token_id, None);
    }

    #[test]
    fn the_actor_is_the_outermost_of_the_same_issuer() {
        assert_eq!(accepted(json!({})).actor, None);
        assert_eq!(accepted(json!({"act": {"sub": "agent-7"}})).actor.as_deref(), Some("agent-7"));
        let nested =
            json!({"act": {"sub": "agent-7", "iss": ISSUER, "act": {"sub": "admin-agent", "act": {"sub": "root"}}}});
        assert_eq!(accepted(nested).actor.as_deref(), Some("agent-7"));
        for act in [
            json!("agent-7"),
            json!({}),
            json!({"act": {"sub": "inner"}}),
            json!({"sub": ""}),
            json!({"sub": ["agent-7"]}),
            json!({"sub": "agent-7", "iss": "https://other.example.com"}),
            json!({"sub": "agent-7", "iss": 1}),
        ] {
            assert!(matches!(refused(json!({"act": act})), IdentityError::Claim { .. }), "{act}");
        }
    }

    #[test]
    fn groups_are_strings_at_the_configured_place() {
        assert_eq!(accepted(json!({"groups": ["a", "b"]})).groups, ["a", "b"]);
        assert_eq!(accepted(json!({"groups": "a b"})).groups, ["a b"]);
        assert!(accepted(json!({})).groups.is_empty());
        for groups in [json!([1]), json!(["a", null]), json!({"a": 1}), json!(5), json!(true)] {
            assert!(matches!(refused(json!({"groups": groups})), IdentityError::Claim { .. }), "{groups}");
        }
        let nested = IssuerConfig { groups: ClaimPath::from_dotted("realm_access.roles"), ..config() };
        let roles = |value: Value| prove_with(&nested, json!({"realm_access": value})).map(|p| p.principal.groups);
        assert_eq!(roles(json!({"roles": ["dpo"]})), Ok(vec!["dpo".to_owned()]));
        assert_eq!(roles(json!({})), Ok(vec![]));
        assert!(roles(json!(["dpo"])).is_err());
        let by_url = IssuerConfig { groups: ClaimPath::from_dotted("https://example.com/groups"), ..config() };
        let proven = prove_with(&by_url, json!({"https://example.com/groups": ["dpo"]})).unwrap();
        assert_eq!(proven.principal.groups, ["dpo"]);
    }

    #[test]
    fn too_many_groups_or_a_marker_for_them_fail_closed() {
        let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(accepted(json!({"groups": many(500)})).groups.len(), 500);
        assert_eq!(refused(json!({"groups": many(501)})), IdentityError::TooManyGroups { limit: 500 });
        accepted(json!({"_claim_names": {"address": "src1"}, "hasgroups": false}));
        for changes in [
            json!({"_claim_names": {"groups": "src1"}}),
            json!({"_claim_names": "groups"}),
            json!({"hasgroups": true}),
            json!({"hasgroups": "true"}),
            json!({"groups:src1": "https://graph.example.com"}),
        ] {
            assert!(matches!(refused(changes), IdentityError::GroupsOverage { .. }));
        }
    }

    #[test]
    fn id_tokens_are_refused_unless_allowed_or_typed_as_access_tokens() {
        for changes in [
            json!({"nonce": "n"}),
            json!({"at_hash": "h"}),
            json!({"c_hash": "h"}),
            json!({"typ": "ID"}),
            json!({"token_use": "id"}),
        ] {
            assert!(matches!(refused(changes.clone()), IdentityError::IdToken { .. }), "{changes}");
            let allowing = IssuerConfig { allow_id_tokens: true, ..config() };
            assert!(prove_with(&allowing, changes.clone()).is_ok());
            assert!(prove(claims(changes), true, presented(&config(), None)).is_ok());
        }
        accepted(json!({"typ": "Bearer", "token_use": "access", "auth_time": NOW}));
    }

    #[test]
    fn a_bound_token_needs_the_certificate_it_names() {
        let print = |der: &[u8]| Thumbprint::of(der).unwrap();
        let named = |der: &[u8]| URL_SAFE_NO_PAD.encode(print(der).0);
        let prove = |cnf: Value, shown: Option<&[u8]>| {
            let config = config();
            let presented = presented(&config, shown.map(print));
            prove(claims(json!({"cnf": cnf})), false, presented).map(|proven| proven.principal.subject)
        };
        let bound = || json!({"x5t#S256": named(b"mine")});
        assert!(prove(bound(), Some(b"mine")).is_ok());
        assert_eq!(prove(bound(), Some(b"other")), Err(IdentityError::CertificateMismatch));
        assert_eq!(prove(bound(), None), Err(IdentityError::CertificateMissing));
        for cnf in [
            json!({"x5t#S256": "abc"}),
            json!({"x5t#S256": 1}),
            json!({"x5t#S256": named(b"mine"), "jkt": "abc"}),
            json!({"jkt": "abc"}),
            json!({}),
            json!("mine"),
        ] {
            assert_eq!(prove(cnf.clone(), Some(b"mine")), Err(IdentityError::Bound), "{cnf}");
        }
    }

    #[test]
    fn workloads_are_told_from_humans() {
        for changes in [
            json!({"client_id": "u1"}),
            json!({"azp": "u1"}),
            json!({"idtyp": "app"}),
            json!({"gty": "client-credentials"}),
        ] {
            assert_eq!(accepted(changes).kind, PrincipalKind::Workload);
        }
        for changes in [json!({}), json!({"client_id": "cli"}), json!({"azp": "cli", "idtyp": "user"})] {
            assert_eq!(accepted(changes).kind, PrincipalKind::Human);
        }
        let marked = IssuerConfig { kind: Some(PrincipalKind::Workload), ..config() };
        assert_eq!(prove_with(&marked, json!({})).unwrap().principal.kind, PrincipalKind::Workload);
    }

    #[test]
    fn the_instance_is_kept_for_the_record() {
        let principal =
            accepted(json!({"sub": "spiffe://a/b", "kubernetes.io": {"pod": {"uid": "p-1"}}, "run_id": "77"}));
        let names: Vec<_> = principal.instance.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(names, ["ci_run=77", "pod_uid=p-1", "spiffe_id=spiffe://a/b"]);
    }
}
