//! What a handle lends: never more than its token, never to anybody else, never again once it is taken back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::*;
use super::file_issuer::FileIssuer;
use super::{TestKey, claims, jwks};
use crate::auth::{HANDLES_PER_PRINCIPAL_MAX, Handles, IssueError, LIFETIME_DEFAULT, LIFETIME_MAX, LIFETIME_MIN, Wish};

struct Office {
    issuer: FileIssuer,
    key: TestKey,
    handles: Handles,
}

impl Office {
    fn new() -> Self {
        let key = TestKey::es256("a");
        Self { issuer: FileIssuer::new(&[&key]), handles: Handles::new().unwrap(), key }
    }

    async fn identity(&self, changes: Value) -> Verified {
        let mut claims = claims();
        let members = claims.as_object_mut().unwrap();
        members.extend(changes.as_object().unwrap().clone());
        members.retain(|_, value| !value.is_null());
        self.issuer.verify(&self.key.token(&claims)).await.unwrap()
    }
}

fn wish(lifetime: Duration) -> Wish {
    Wish { target: "shop".to_owned(), lifetime, source: None }
}

#[tokio::test]
async fn its_password_proves_the_identity_of_the_token_and_nothing_else_does() {
    let office = Office::new();
    let identity = office.identity(json!({})).await;
    let issued = office.handles.issue(&identity, wish(LIFETIME_DEFAULT)).unwrap();
    let password = issued.password.expose();
    assert!(password.starts_with(&issued.handle) && password.len() > issued.handle.len() + 40, "{}", issued.handle);
    let lent = office.handles.by_password(password).unwrap();
    assert_eq!(lent.principal, identity.principal);
    assert_eq!(lent.lease().unwrap().handle, issued.handle);
    let other = office.handles.issue(&identity, wish(LIFETIME_DEFAULT)).unwrap();
    assert_ne!(other.password.expose(), password);
    let secret = other.password.expose().strip_prefix(&other.handle).unwrap();
    for wrong in [
        issued.handle.clone(),
        format!("{}_", issued.handle),
        format!("{password}x"),
        password.chars().rev().skip(1).collect::<String>().chars().rev().collect(),
        format!("{}{secret}", issued.handle),
        format!("exh_00000000000000000000{secret}"),
        String::new(),
    ] {
        assert!(office.handles.by_password(&wrong).is_none(), "{wrong}");
    }
    let shown = format!("{issued:?} {:?} {lent:?}", office.handles);
    assert!(!shown.contains(password.strip_prefix(&issued.handle).unwrap()), "{shown}");
}

#[tokio::test]
async fn it_ends_with_its_lifetime_its_token_or_its_key() {
    let office = Office::new();
    let until = |ends: jiff::Timestamp| SystemTime::from(ends).duration_since(SystemTime::now()).unwrap();
    let near = |found: Duration, wanted: Duration| found <= wanted && found + Duration::from_secs(5) > wanted;
    let long = office.identity(json!({})).await;
    for lifetime in [LIFETIME_MIN, LIFETIME_DEFAULT, LIFETIME_MAX] {
        let issued = office.handles.issue(&long, wish(lifetime)).unwrap();
        let token_left = long.expires_at.duration_since(SystemTime::now()).unwrap();
        assert!(near(until(issued.expires), lifetime.min(token_left)), "{lifetime:?}");
    }
    for lifetime in [LIFETIME_MIN - Duration::from_secs(1), LIFETIME_MAX + Duration::from_secs(1), Duration::ZERO] {
        let refused = office.handles.issue(&long, wish(lifetime));
        assert!(matches!(refused, Err(IssueError::Lifetime { .. })));
    }
    let soon = super::now() + 60;
    let brief = office.identity(json!({"exp": soon})).await;
    let issued = office.handles.issue(&brief, wish(LIFETIME_MAX)).unwrap();
    assert_eq!(u64::try_from(issued.expires.as_second()), Ok(soon));
    let lent = office.handles.by_password(issued.password.expose()).unwrap();
    assert_eq!(office.issuer.verifier.still_valid(&lent), Ok(()));
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(Arc::clone(&office.issuer.verifier).run(stopped));
    std::fs::write(office.issuer.folder.path().join("keys.json"), jwks(&[&TestKey::es256("b")])).unwrap();
    super::until(|| office.issuer.verifier.still_valid(&lent).is_err()).await;
    assert!(matches!(office.issuer.verifier.still_valid(&lent), Err(IdentityError::KeyRemoved { .. })));
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn who_made_it_may_take_it_back_and_then_its_sessions_end() {
    let office = Office::new();
    let agent = office.identity(json!({})).await;
    assert!(agent.principal.actor.is_some());
    let human = office.identity(json!({"act": null})).await;
    assert!(human.principal.actor.is_none());
    let other_agent = office.identity(json!({"act": {"sub": "agent-8"}})).await;
    let stranger = office.identity(json!({"sub": "eve"})).await;
    for owner in [&agent, &human] {
        let issued = office.handles.issue(&agent, wish(LIFETIME_DEFAULT)).unwrap();
        let lent = office.handles.by_password(issued.password.expose()).unwrap();
        for other in [&stranger, &other_agent] {
            assert!(office.handles.revoke(&issued.handle, &other.principal).is_err());
        }
        assert_eq!(office.issuer.verifier.still_valid(&lent), Ok(()));
        office.handles.revoke(&issued.handle, &owner.principal).unwrap();
        assert_eq!(office.issuer.verifier.still_valid(&lent), Err(IdentityError::HandleRevoked));
        assert!(office.handles.by_password(issued.password.expose()).is_none());
        assert!(office.handles.revoke(&issued.handle, &owner.principal).is_err());
    }
    let by_human = office.handles.issue(&human, wish(LIFETIME_DEFAULT)).unwrap();
    assert!(office.handles.revoke(&by_human.handle, &agent.principal).is_err());
}

#[tokio::test]
async fn one_principal_has_a_bounded_number_of_them() {
    let office = Office::new();
    let (dana, eve) = (office.identity(json!({})).await, office.identity(json!({"sub": "eve"})).await);
    let mut handles = Vec::new();
    for _ in 0..HANDLES_PER_PRINCIPAL_MAX {
        handles.push(office.handles.issue(&dana, wish(LIFETIME_DEFAULT)).unwrap().handle);
    }
    assert_eq!(office.handles.issue(&dana, wish(LIFETIME_DEFAULT)).unwrap_err(), IssueError::TooMany);
    assert!(office.handles.issue(&eve, wish(LIFETIME_DEFAULT)).is_ok());
    office.handles.revoke(&handles[0], &dana.principal).unwrap();
    assert!(office.handles.issue(&dana, wish(LIFETIME_DEFAULT)).is_ok());
}

#[tokio::test]
async fn a_name_nobody_has_is_answered_like_any_other() {
    let office = Office::new();
    let identity = office.identity(json!({})).await;
    let issued = office.handles.issue(&identity, wish(LIFETIME_DEFAULT)).unwrap();
    let first = |name: &str| {
        let verifier = office.handles.challenge(name).verifier;
        let exchange = crate::auth::scram::Exchange::begin("SCRAM-SHA-256", b"n,,n=,r=abc", None, "def", verifier);
        String::from_utf8(exchange.unwrap().server_first().to_vec()).unwrap()
    };
    // The same salt each time, for a name that exists, one that does not, and one that did.
    let (real, unknown) = (first(&issued.handle), first("exh_00000000000000000000"));
    assert_ne!(real, unknown);
    assert_eq!(real.len(), unknown.len());
    assert_eq!(unknown, first("exh_00000000000000000000"));
    office.handles.revoke(&issued.handle, &identity.principal).unwrap();
    assert_eq!(real, first(&issued.handle));
}
