//! The clock, in the words that policy and the store keep time by.

use exeat_policy::Moment;
use jiff::Timestamp;

pub(crate) fn now() -> Moment {
    Moment::from_unix_millis(Timestamp::now().as_millisecond())
}
