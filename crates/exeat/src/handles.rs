//! The desk for handles: a token checked as at the data plane's door, a wish against what is configured, and both on
//! record before anybody is answered. Never gives a handle for a token bound to a certificate: none is shown here.

use std::sync::Arc;
use std::time::Duration;

use exeat_console::{Asked, DeskError, HandleDesk, HandleWish, NewHandle, Reply};
use exeat_proxy::auth::{AuthError, Handles, IssueError, LIFETIME_DEFAULT, Wish, bearer_token};
use exeat_proxy::freezes::CurrentFreezes;
use exeat_proxy::identity::{TokenRef, Verified, Verifier};
use exeat_proxy::server::Guesses;
use exeat_store::record::{AuthFailure, HandleChange, HandleEvent, Recorder, TokenRef as RecordedToken};
use exeat_store::secret::SecretString;

/// What the desk works with.
pub(crate) struct Desk {
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) handles: Arc<Handles>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) guesses: Guesses,
    pub(crate) freezes: CurrentFreezes,
    pub(crate) targets: Vec<String>,
    pub(crate) default_target: Option<String>,
    /// The console listener is out of reach of others.
    pub(crate) is_private: bool,
}

/// The desk as the console sees it.
pub(crate) struct SharedDesk(pub(crate) Arc<Desk>);

impl HandleDesk for SharedDesk {
    fn issue(&self, asked: Asked, wish: HandleWish) -> Reply<NewHandle> {
        let desk = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, source) = desk.identify(asked).await?;
            desk.issue(&identity, wish, &source)
        })
    }

    fn revoke(&self, asked: Asked, handle: String) -> Reply<()> {
        let desk = Arc::clone(&self.0);
        Box::pin(async move {
            let (identity, source) = desk.identify(asked).await?;
            desk.revoke(&identity, &handle, &source)
        })
    }
}

impl Desk {
    /// Who asks, and from where.
    pub(crate) async fn identify(&self, asked: Asked) -> Result<(Verified, String), DeskError> {
        if !self.is_private {
            return Err(DeskError::NotHere(
                "tokens and passwords would cross the network in clear; set listen.console to a loopback address"
                    .to_owned(),
            ));
        }
        if self.guesses.too_many(asked.peer.ip()) {
            return Err(DeskError::TooMany(AuthError::TooManyFailures.to_string()));
        }
        let token = bearer_token(asked.authorization.expose()).unwrap_or_else(|| SecretString::new(String::new()));
        match self.verifier.verify(token.expose()).await {
            // Nor does it decide, look or make itself a way in.
            Ok(identity) if self.freezes.load().subject(&identity.principal) => {
                tracing::warn!(subject = identity.principal.subject, peer = %asked.peer, "a frozen identity was refused");
                Err(DeskError::NotAllowed("this identity is frozen; an administrator can lift it".to_owned()))
            }
            Ok(identity) => Ok((identity, asked.peer.to_string())),
            Err(problem) => {
                self.guesses.note(asked.peer.ip());
                self.record_failure(&asked, &token, problem.reason_code());
                Err(DeskError::NotAuthenticated { problem: problem.to_string(), hint: problem.hint() })
            }
        }
    }

    fn record_failure(&self, asked: &Asked, token: &SecretString, reason: &str) {
        let token = TokenRef::of_unverified(token.expose());
        let failure = AuthFailure {
            source: &asked.peer.to_string(),
            target: None,
            reason,
            issuer: None,
            subject: None,
            token: Some(RecordedToken { id: None, sha256_8: &token.sha256_8 }),
            handle: None,
            tls: None,
        };
        if let Err(problem) = self.recorder.auth_failed(&failure) {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record a failed request for a handle");
        }
    }

    fn issue(&self, identity: &Verified, wish: HandleWish, source: &str) -> Result<NewHandle, DeskError> {
        let target = self.target(wish.target)?;
        let lifetime = wish.lifetime_seconds.map_or(LIFETIME_DEFAULT, Duration::from_secs);
        let network = match &wish.source {
            None => None,
            Some(text) => Some(text.parse().map_err(|problem| DeskError::Wish(format!("\"source\" {problem}")))?),
        };
        let wanted = Wish { target: target.clone(), lifetime, source: network };
        let issued = self.handles.issue(identity, wanted).map_err(refused)?;
        let expires = issued.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let what = HandleEvent::Issued { expires: &expires, bound_to: wish.source.as_deref() };
        if let Err(error) = self.record(identity, what, (&issued.handle, &target), source) {
            // What is not on record does not exist.
            let _ = self.handles.revoke(&issued.handle, &identity.principal);
            return Err(error);
        }
        tracing::info!(handle = issued.handle, target_name = target, source, "handle issued");
        Ok(NewHandle { handle: issued.handle, password: issued.password, target, expires })
    }

    /// Taken back first: a record that cannot be written must not keep a door open.
    fn revoke(&self, identity: &Verified, handle: &str, source: &str) -> Result<(), DeskError> {
        let revoked = self
            .handles
            .revoke(handle, &identity.principal)
            .map_err(|problem| DeskError::NotFound(problem.to_string()))?;
        tracing::info!(handle = revoked.handle, target_name = revoked.target, source, "handle revoked");
        self.record(identity, HandleEvent::Revoked, (&revoked.handle, &revoked.target), source)
    }

    pub(crate) fn target(&self, wanted: Option<String>) -> Result<String, DeskError> {
        let wanted = match (wanted, &self.default_target, self.targets.as_slice()) {
            (Some(target), _, _) => target,
            (None, Some(target), _) => target.clone(),
            (None, None, [only]) => only.clone(),
            (None, None, _) => {
                return Err(DeskError::Wish("\"target\" is missing, and there is no default target".to_owned()));
            }
        };
        if self.targets.contains(&wanted) {
            return Ok(wanted);
        }
        Err(DeskError::Wish(format!("target \"{}\" does not exist", wanted.escape_debug())))
    }

    fn record(
        &self,
        identity: &Verified,
        what: HandleEvent<'_>,
        (handle, target): (&str, &str),
        source: &str,
    ) -> Result<(), DeskError> {
        let token = &identity.token_ref;
        let change = HandleChange {
            what,
            handle,
            principal: &identity.principal,
            source,
            target,
            token: RecordedToken { id: token.jti.as_deref(), sha256_8: &token.sha256_8 },
        };
        self.recorder.handle_changed(&change).map_err(|problem| {
            tracing::error!(problem = exeat_store::chain(&problem), "could not record a handle");
            DeskError::Unavailable("the gateway cannot record this".to_owned())
        })
    }
}

fn refused(problem: IssueError) -> DeskError {
    match problem {
        IssueError::TooMany => DeskError::TooMany(problem.to_string()),
        IssueError::Lifetime { .. } => DeskError::Wish(problem.to_string()),
        IssueError::Expired => DeskError::NotAuthenticated { problem: problem.to_string(), hint: "get a new token" },
        IssueError::Full | IssueError::Randomness => DeskError::Unavailable(problem.to_string()),
    }
}
