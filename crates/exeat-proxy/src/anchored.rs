//! How old what is not archived and anchored yet may become. Whoever archives says up to when everything is; sessions ask
//! before they let a statement at sealed data. What nobody has said yet counts as too old.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Shared by whoever archives and every session. A clock of the wall, because lines have its time too.
#[derive(Debug)]
pub struct Anchored {
    /// Milliseconds since 1970: every line from before then is archived and under an archived checkpoint.
    until: AtomicI64,
    /// `require_archive`: without it nothing is ever refused.
    limit: Option<Duration>,
}

impl Anchored {
    pub fn new(limit: Option<Duration>) -> Self {
        Self { until: AtomicI64::new(i64::MIN), limit }
    }

    /// Every line from before `until` is archived and anchored.
    pub fn note(&self, until: SystemTime) {
        self.until.store(milliseconds(until), Ordering::Release);
    }

    /// `None` before anything is known.
    pub fn age(&self) -> Option<Duration> {
        let until = self.until.load(Ordering::Acquire);
        let age = milliseconds(SystemTime::now()).checked_sub(until)?;
        // A clock that was put back makes it zero.
        Some(Duration::from_millis(u64::try_from(age).unwrap_or(0)))
    }

    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Whether statements over sealed data must wait for the archive.
    pub fn is_overdue(&self) -> bool {
        self.limit.is_some_and(|limit| self.age().is_none_or(|age| age > limit))
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_said_is_too_old_and_what_is_recent_is_not() {
        let anchored = Anchored::new(Some(Duration::from_secs(60)));
        assert!(anchored.is_overdue());
        anchored.note(SystemTime::now() - Duration::from_secs(50));
        assert!(!anchored.is_overdue());
        anchored.note(SystemTime::now() - Duration::from_secs(70));
        assert!(anchored.is_overdue() && anchored.age().unwrap() >= Duration::from_secs(70));
        anchored.note(SystemTime::now() + Duration::from_secs(70));
        assert_eq!(anchored.age(), Some(Duration::ZERO));
        assert!(!Anchored::new(None).is_overdue(), "nobody asked for it");
    }
}
