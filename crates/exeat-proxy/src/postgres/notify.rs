//! The notifications a session sends itself, so that it hears those and no others.
//! A notification of the session's own backend may also come from a trigger, with a payload nobody knows: only one
//! that the session worded itself passes, once, and only as long as no user code ran beside it. Otherwise whether
//! its echo comes, how often or in which order would tell whether a trigger said the same: a guess confirmed. So
//! what is worded here is kept exactly as long as the taint of the transaction is.

use std::collections::VecDeque;

use bytes::Bytes;
use exeat_enforce::evaluate::Permit;
use exeat_sql::NotifyText;

/// Echoes a session may wait for at a time; of more the oldest are not heard.
const OWN_NOTIFICATIONS_MAX: usize = 1024;
/// And their bytes: the server's payloads are shorter than 8,000.
const OWN_NOTIFICATION_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(crate) struct OwnNotifications {
    sent: VecDeque<(String, String)>,
    bytes: usize,
}

impl OwnNotifications {
    pub(crate) fn sends(&mut self, notifications: &[(String, String)]) {
        for (channel, payload) in notifications {
            self.bytes += channel.len() + payload.len();
            self.sent.push_back((channel.clone(), payload.clone()));
        }
        while self.sent.len() > OWN_NOTIFICATIONS_MAX || self.bytes > OWN_NOTIFICATION_BYTES_MAX {
            let Some((channel, payload)) = self.sent.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(channel.len() + payload.len());
        }
    }

    /// Whether the session sent this and has not heard it yet.
    pub(crate) fn hears(&mut self, channel: &str, payload: &str) -> bool {
        let Some(at) = self.sent.iter().position(|(sent, with)| sent == channel && with == payload) else {
            return false;
        };
        self.sent.remove(at);
        self.bytes = self.bytes.saturating_sub(channel.len() + payload.len());
        true
    }

    /// Between transactions: what was sent is heard or never will be.
    pub(crate) fn forget(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }
}

/// What the statements notify, with the parameters in their places. Text is the same in both formats; what is NULL
/// or no text is nothing the session could recognise.
pub(crate) fn worded(permit: &Permit, parameters: &[Option<Bytes>]) -> Vec<(String, String)> {
    let text = |text: &NotifyText| match text {
        NotifyText::Literal(text) => Some(text.clone()),
        NotifyText::Parameter(number) => {
            let index = usize::try_from(*number).ok()?.checked_sub(1)?;
            String::from_utf8(parameters.get(index)?.as_ref()?.to_vec()).ok()
        }
    };
    let notifies = permit.plans.iter().flat_map(|plan| &plan.notifies);
    notifies.filter_map(|it| Some((text(&it.channel)?, text(&it.payload)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(channel: &str, payload: &str) -> (String, String) {
        (channel.to_owned(), payload.to_owned())
    }

    #[test]
    fn what_was_sent_is_heard_once_and_nothing_else_is() {
        let mut own = OwnNotifications::default();
        own.sends(&[pair("a", "x"), pair("b", "")]);
        assert!(!own.hears("a", "y") && !own.hears("x", "a") && !own.hears("b", "x"));
        assert!(own.hears("b", "") && own.hears("a", "x"));
        assert!(!own.hears("a", "x") && own.bytes == 0);
        own.sends(&[pair("a", "x")]);
        own.forget();
        assert!(!own.hears("a", "x"));
    }

    #[test]
    fn memory_is_bounded_and_the_newest_are_kept() {
        let mut own = OwnNotifications::default();
        for number in 0..OWN_NOTIFICATIONS_MAX + 10 {
            own.sends(&[pair("c", &number.to_string())]);
        }
        assert_eq!(own.sent.len(), OWN_NOTIFICATIONS_MAX);
        assert!(!own.hears("c", "9") && own.hears("c", "10"));
        let long = "x".repeat(OWN_NOTIFICATION_BYTES_MAX / 2);
        own.sends(&[pair("d", &long), pair("e", &long)]);
        assert!(own.bytes <= OWN_NOTIFICATION_BYTES_MAX && !own.hears("d", &long) && own.hears("e", &long));
    }
}
