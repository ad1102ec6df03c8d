//! The desk of whoever looks after the record of a running gateway: its signing key, erasure and legal holds. Changes need
//! the role admin, and are on record with who asked before they are made.

use std::sync::Arc;

use exeat_console::{Asked, DeskError, EraseWish, RecordDesk, Reply};
use exeat_policy::approval::Remark;
use exeat_proxy::identity::Verified;
use exeat_store::StoreError;
use exeat_store::record::{Erased, Erasure, LegalHold, Recorder, Requester, Rotated, Whose};
use jiff::Timestamp;
use jiff::civil::Date;

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

    fn erase(&self, asked: Asked, wish: EraseWish) -> Reply<Erased> {
        let keeping = Arc::clone(&self.0);
        Box::pin(async move {
            let who = keeping.identify(asked, Wanted::Change).await?;
            let EraseWish { whose, before, reason } = wish;
            let before = before.map(|text| as_in_lines(&text)).transpose()?;
            let erased = keeping.act(who, move |recorder, by| {
                let erasure = Erasure { whose: &whose, before: before.as_deref(), reason: reason.as_str() };
                recorder.erase(&erasure, by)
            });
            let erased = erased.await?;
            match erased.refused.as_slice() {
                [(_, problem), ..] if erased.erased.is_empty() => Err(DeskError::Conflict(problem.clone())),
                _ => Ok(erased),
            }
        })
    }

    fn holds(&self, asked: Asked) -> Reply<Vec<LegalHold>> {
        let keeping = Arc::clone(&self.0);
        Box::pin(async move {
            let who = keeping.identify(asked, Wanted::Look).await?;
            keeping.act(who, |recorder, _| recorder.holds()).await
        })
    }

    fn hold(&self, asked: Asked, whose: Whose, reason: Remark) -> Reply<LegalHold> {
        let keeping = Arc::clone(&self.0);
        Box::pin(async move {
            let who = keeping.identify(asked, Wanted::Change).await?;
            keeping.act(who, move |recorder, by| recorder.hold(&whose, reason.as_str(), by)).await
        })
    }

    fn release(&self, asked: Asked, whose: Whose, reason: Remark) -> Reply<LegalHold> {
        let keeping = Arc::clone(&self.0);
        Box::pin(async move {
            let who = keeping.identify(asked, Wanted::Change).await?;
            keeping.act(who, move |recorder, by| recorder.release(&whose, reason.as_str(), by)).await
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
            StoreError::Rotating
            | StoreError::Running { .. }
            | StoreError::Held { .. }
            | StoreError::HeldAlready { .. }
            | StoreError::AnothersKey { .. }
            | StoreError::Erased { .. } => DeskError::Conflict(problem.to_string()),
            StoreError::SeveralIssuers { .. } | StoreError::LongName { .. } => DeskError::Wish(problem.to_string()),
            StoreError::NoSession { .. } | StoreError::NoSessions { .. } | StoreError::NotHeld { .. } => {
                DeskError::NotFound(problem.to_string())
            }
            _ => unavailable(&problem, "the record cannot be written"),
        })
    }
}

/// A date or time of whoever asks, as lines have theirs: they are compared as texts.
fn as_in_lines(text: &str) -> Result<String, DeskError> {
    let date = || text.parse::<Date>().ok().filter(|_| text.len() == DATE_BYTES).map(|date| date.to_string());
    let time = || text.parse::<Timestamp>().ok().map(|time| format!("{time:.6}"));
    date().or_else(time).ok_or_else(|| {
        let shown = text.escape_debug();
        DeskError::Wish(format!("\"before\" is \"{shown}\", no date such as 2026-01-31 and no time of one"))
    })
}

/// Of `2026-01-31`.
const DATE_BYTES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_compare_as_lines_have_them() {
        let line = "2026-01-31T10:00:00.000001Z";
        for (before, is_before) in [
            ("2026-02-01", true),
            ("2026-01-31", false),
            ("2026-01-31T10:00:01Z", true),
            ("2026-01-31T10:00:00Z", false),
            ("2026-01-31T12:00:01+02:00", true),
        ] {
            assert_eq!(line < as_in_lines(before).unwrap().as_str(), is_before, "{before}");
        }
        for wrong in ["", "yesterday", "2026-02-30", "2026-01", "20260131", "2026-01-31T10:00:00"] {
            assert!(as_in_lines(wrong).is_err(), "{wrong}");
        }
    }
}
