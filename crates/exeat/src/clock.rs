//! The clock, in the words that policy and the store keep time by.

use exeat_policy::Moment;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub(crate) fn now() -> Moment {
    Moment::from_unix_millis(Timestamp::now().as_millisecond())
}

/// Which end of a day is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Begin,
    End,
}

/// A point in time as people type it: RFC 3339, a day (UTC), or how long ago.
pub(crate) fn point(text: &str, edge: Edge) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(day) = text.parse::<Date>() {
        let day = match edge {
            Edge::Begin => Some(day),
            Edge::End => day.tomorrow().ok(),
        };
        let midnight = day.and_then(|day| day.to_zoned(TimeZone::UTC).ok()).map(|midnight| midnight.timestamp());
        let last = SignedDuration::from_micros(if edge == Edge::End { 1 } else { 0 });
        return midnight.and_then(|midnight| midnight.checked_sub(last).ok()).ok_or_else(|| unread(text));
    }
    ago(text).and_then(|ago| Timestamp::now().checked_sub(ago).ok()).ok_or_else(|| unread(text))
}

fn ago(text: &str) -> Option<SignedDuration> {
    let unit = text.chars().last()?;
    let number: i64 = text.strip_suffix(unit)?.parse().ok().filter(|number| *number >= 0)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(SignedDuration::from_secs)
}

fn unread(text: &str) -> String {
    format!("{text:?} is no time: write 2026-11-20, 2026-11-20T08:00:00Z, or how long ago (90m, 24h, 7d)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read_as_people_type_them() {
        let point = |text: &str, edge| point(text, edge).map(|time| time.to_string());
        assert_eq!(point("2026-11-20", Edge::Begin).unwrap(), "2026-11-20T00:00:00Z");
        assert_eq!(point("2026-11-20", Edge::End).unwrap(), "2026-11-20T23:59:59.999999Z");
        assert_eq!(point("2026-11-20T08:00:00+02:00", Edge::End).unwrap(), "2026-11-20T06:00:00Z");
        assert!(point("7d", Edge::Begin).unwrap() < point("24h", Edge::Begin).unwrap());
        for wrong in ["", "d", "-1d", "20.11.2026", "2026-11", "7w", "99999999999999999d"] {
            assert!(point(wrong, Edge::Begin).is_err(), "{wrong}");
        }
    }
}
