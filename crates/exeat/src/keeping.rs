//! The desk of whoever looks after the record of a running gateway: its signing key today. Needs the role admin; what is done is
//! on record with who asked before it is done.

use std::sync::Arc;

use exeat_console::{Asked, DeskError, RecordDesk, Reply};
use exeat_proxy::identity::Verified;
use exeat_store::StoreError;
use exeat_store::record::{Recorder, Requester, Rotated};

use crate::admin::{allowed, requester, unavailable};
use crate::handles::Desk;
use crate::roles::{Roles, Wanted};

pub(crate) struct Keeping {
    pub(crate) desk: Arc<Desk>,
    pub(crate) roles: Roles,
}

/// The desk as the console sees it.
pub(crate) struct SharedKeeping(pub(crate) Arc<Keeping>);

impl RecordDesk for SharedKeeping {
    fn rotate_key(&self, asked: Asked) -> Reply<Rotated> {
        let keeping = Arc::clone(&self.0);
        Box::pin(async move {
            let who = keeping.identify(asked, Wanted::Change).await?;
            keeping.act(who, |recorder, by| recorder.rotate_key(Some(by))).await
        })
    }
}

impl Keeping {
    async fn identify(&self, asked: Asked, wanted: Wanted) -> Result<(Verified, String), DeskError> {
        let (identity, source) = self.desk.identify(asked).await?;
        allowed(&self.roles, &identity, &source, wanted)?;
        Ok((identity, source))
    }

    /// On a thread that may wait for the disk.
    async fn act<T: Send + 'static>(
        &self,
        (identity, source): (Verified, String),
        act: impl FnOnce(&Recorder, Requester<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DeskError> {
        let recorder = Arc::clone(&self.desk.recorder);
        let acted = tokio::task::spawn_blocking(move || act(&recorder, requester(&identity, &source)));
        let acted = acted.await.map_err(|problem| unavailable(&problem, "the gateway cannot do this"))?;
        acted.map_err(|problem| match problem {
            StoreError::Rotating => DeskError::Conflict(problem.to_string()),
            _ => unavailable(&problem, "the record cannot be written"),
        })
    }
}
