//! Lengths of time within bounds, and TCP keepalive, which listeners and targets write alike.

use std::ops::RangeInclusive;
use std::time::Duration;

use exeat_policy::document::{MappingReader, Node};
use exeat_proxy::config::Keepalive;

use super::Reading;

/// What Linux takes: seconds, and at most 127 probes.
const KEEPALIVE_IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(2);
const KEEPALIVE_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
const KEEPALIVE_COUNT_MAX: i64 = 100;
const USER_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

impl Reading<'_> {
    pub(super) fn duration(&mut self, node: &Node, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = node.as_duration(&mut self.diags)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let (first, last) = range.into_inner();
        self.diags
            .error(&node.span, format!("{} is {duration:?}, it must be from {first:?} to {last:?}", node.subject()));
        None
    }

    /// `Some(None)` when the key is absent, `None` when its value is wrong.
    pub(super) fn optional_duration(
        &mut self,
        reader: &mut MappingReader<'_>,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Option<Duration>> {
        match reader.optional(key) {
            None => Some(None),
            Some(node) => self.duration(node, range).map(Some),
        }
    }

    /// `keepalive: {idle: 60s, interval: 10s, count: 3, user_timeout: …}`.
    pub(super) fn keepalive(&mut self, reader: &mut MappingReader<'_>) -> Option<Keepalive> {
        let default = Keepalive::default();
        let Some(node) = reader.optional("keepalive") else { return Some(default) };
        let mut inner = node.mapping(&mut self.diags)?;
        let idle = self.optional_duration(&mut inner, "idle", KEEPALIVE_IDLE);
        let interval = self.optional_duration(&mut inner, "interval", KEEPALIVE_INTERVAL);
        let count = match inner.optional("count") {
            None => Some(default.count),
            Some(node) => {
                let count = node.as_integer(1..=KEEPALIVE_COUNT_MAX, &mut self.diags);
                count.and_then(|count| count.try_into().ok())
            }
        };
        let user_timeout_node = inner.optional("user_timeout");
        let user_timeout = self.optional_duration(&mut inner, "user_timeout", USER_TIMEOUT);
        if let Some(node) = user_timeout_node
            && !cfg!(target_os = "linux")
        {
            self.diags.error(&node.span, "`user_timeout` is there on Linux only").help("remove it");
        }
        inner.finish(&mut self.diags);
        Some(Keepalive {
            idle: idle?.unwrap_or(default.idle),
            interval: interval?.unwrap_or(default.interval),
            count: count?,
            user_timeout: user_timeout?,
        })
    }
}
