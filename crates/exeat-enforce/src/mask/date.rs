//! Dates and timestamps made coarser: the first day of their month or year. Text is read in ISO order alone, the
//! one that says which number is which; whatever else a session's DateStyle makes of a date becomes NULL, and so do
//! the infinities, which are no date.

use exeat_policy::Period;
use exeat_wire::Format;

/// Days from 1970-01-01, from which civil dates are counted, to 2000-01-01, from which the server counts.
const EPOCH_DAYS: i64 = 10_957;
/// The earliest day the server knows, counted from its epoch: 4714-11-24 BC.
const FIRST_DAY: i64 = -2_451_545;
const DAY_MICROSECONDS: i64 = 86_400_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DateKin {
    Date,
    Timestamp,
    Timestamptz,
}

/// `None`: it cannot be told, or has no such day.
pub(super) fn generalize(kin: DateKin, to: Period, format: Format, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match format {
        Format::Text => text(kin, to, value, out),
        Format::Binary => binary(kin, to, value, out),
    }
}

fn binary(kin: DateKin, to: Period, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if kin == DateKin::Date {
        let days = i32::from_be_bytes(value.try_into().ok()?);
        if days == i32::MAX || days == i32::MIN {
            return None;
        }
        let first = i32::try_from(first_day(to, days.into())?).ok()?;
        out.extend_from_slice(&first.to_be_bytes());
        return Some(());
    }
    let microseconds = i64::from_be_bytes(value.try_into().ok()?);
    if microseconds == i64::MAX || microseconds == i64::MIN {
        return None;
    }
    let first = first_day(to, microseconds.div_euclid(DAY_MICROSECONDS))?.checked_mul(DAY_MICROSECONDS)?;
    out.extend_from_slice(&first.to_be_bytes());
    Some(())
}

fn text(kin: DateKin, to: Period, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = std::str::from_utf8(value).ok()?;
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (date, time) = match kin {
        DateKin::Date => (text, None),
        DateKin::Timestamp | DateKin::Timestamptz => text.split_once(' ').map(|(date, time)| (date, Some(time)))?,
    };
    let days = civil(date, before_christ)?;
    let days = match (kin, time) {
        (DateKin::Date, None) => days,
        (DateKin::Timestamp, Some(time)) => seconds(time).map(|_| days)?,
        (DateKin::Timestamptz, Some(time)) => {
            // The offset of a date tells summer from winter: what comes out is in UTC.
            let at = time.rfind(['+', '-'])?;
            let (time, offset) = time.split_at_checked(at)?;
            let utc = seconds(time)?.checked_sub(offset_seconds(offset)?)?;
            days.checked_add(utc.div_euclid(86_400))?
        }
        (DateKin::Date, Some(_)) | (DateKin::Timestamp | DateKin::Timestamptz, None) => return None,
    };
    let (year, month, day) = to_civil(first_day(to, days)?);
    let (shown, suffix) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let time = match kin {
        DateKin::Date => "",
        DateKin::Timestamp => " 00:00:00",
        DateKin::Timestamptz => " 00:00:00+00",
    };
    out.extend_from_slice(format!("{shown:04}-{month:02}-{day:02}{time}{suffix}").as_bytes());
    Some(())
}

/// Days since the server's epoch.
fn first_day(to: Period, days: i64) -> Option<i64> {
    let (year, month, _) = to_civil(days);
    let month = match to {
        Period::Month => month,
        Period::Year => 1,
    };
    Some(from_civil(year, month, 1)).filter(|first| *first >= FIRST_DAY)
}

/// `YYYY-MM-DD`: the year has at least four digits, by which it is told from a day or a month in front.
fn civil(date: &str, before_christ: bool) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !(4..=7).contains(&year.len()) {
        return None;
    }
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let known = (1..=12).contains(&month) && (1..=31).contains(&day) && year > 0;
    known.then(|| from_civil(if before_christ { 1 - year } else { year }, month, day))
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `HH:MM:SS` with or without a fraction, which never makes another day.
fn seconds(time: &str) -> Option<i64> {
    let whole = match time.split_once('.') {
        Some((whole, fraction)) => number(fraction).map(|_| whole)?,
        None => time,
    };
    clock(whole)
}

/// `+HH`, `+HH:MM` or `+HH:MM:SS`.
fn offset_seconds(offset: &str) -> Option<i64> {
    match offset.split_at_checked(1)? {
        ("+", ahead) => clock(ahead),
        ("-", behind) => clock(behind).map(|seconds| -seconds),
        _ => None,
    }
}

fn clock(text: &str) -> Option<i64> {
    let (mut total, mut unit) = (0_i64, 3600);
    for part in text.split(':') {
        if unit == 0 || part.len() != 2 {
            return None;
        }
        total = total.checked_add(number(part)?.checked_mul(unit)?)?;
        unit /= 60;
    }
    Some(total)
}

/// Year, month and day of the proleptic Gregorian calendar, the year 0 being 1 BC (Howard Hinnant's algorithm).
fn to_civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + EPOCH_DAYS + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days since the server's epoch.
pub(crate) fn from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468 - EPOCH_DAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coarse(kin: DateKin, to: Period, value: &str) -> Option<String> {
        let mut out = Vec::new();
        generalize(kin, to, Format::Text, value.as_bytes(), &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn civil_dates_come_back() {
        assert_eq!(from_civil(2000, 1, 1), 0);
        assert_eq!(to_civil(FIRST_DAY), (-4713, 11, 24));
        for days in (FIRST_DAY..3_000_000).step_by(37) {
            let (year, month, day) = to_civil(days);
            assert_eq!(from_civil(year, month, day), days);
        }
    }

    #[test]
    fn texts_become_the_first_of_their_month_or_year() {
        use DateKin::{Date, Timestamp, Timestamptz};
        for (kin, to, value, expected) in [
            (Date, Period::Month, "2024-05-17", Some("2024-05-01")),
            (Date, Period::Year, "2024-05-17", Some("2024-01-01")),
            (Date, Period::Month, "0044-03-15 BC", Some("0044-03-01 BC")),
            (Date, Period::Year, "0001-03-15 BC", Some("0001-01-01 BC")),
            (Date, Period::Month, "12345-03-15", Some("12345-03-01")),
            (Date, Period::Month, "4714-11-25 BC", None),
            (Date, Period::Month, "infinity", None),
            (Date, Period::Month, "05/17/2024", None),
            (Date, Period::Month, "17-05-2024", None),
            (Date, Period::Month, "17.05.2024", None),
            (Date, Period::Month, "2024-13-01", None),
            (Date, Period::Month, "2024-05-17 10:00:00", None),
            (Date, Period::Month, "", None),
            (Timestamp, Period::Month, "2024-05-17 10:11:12.123456", Some("2024-05-01 00:00:00")),
            (Timestamp, Period::Year, "0044-03-15 23:59:59 BC", Some("0044-01-01 00:00:00 BC")),
            (Timestamp, Period::Month, "-infinity", None),
            (Timestamp, Period::Month, "Fri May 17 10:11:12 2024", None),
            (Timestamptz, Period::Month, "2024-06-01 01:30:00+02", Some("2024-05-01 00:00:00+00")),
            (Timestamptz, Period::Year, "2023-12-31 23:30:00-03:30", Some("2024-01-01 00:00:00+00")),
            (Timestamptz, Period::Month, "1890-01-01 00:10:00+00:19:32", Some("1889-12-01 00:00:00+00")),
            (Timestamptz, Period::Month, "2024-06-01 01:30:00 CEST", None),
        ] {
            assert_eq!(coarse(kin, to, value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn binary_is_the_same_day_as_text() {
        let mut out = Vec::new();
        let day = i32::try_from(from_civil(2024, 5, 17)).unwrap();
        generalize(DateKin::Date, Period::Month, Format::Binary, &day.to_be_bytes(), &mut out).unwrap();
        assert_eq!(i64::from(i32::from_be_bytes(out[..].try_into().unwrap())), from_civil(2024, 5, 1));
        for infinite in [i32::MAX, i32::MIN] {
            let value = infinite.to_be_bytes();
            assert!(generalize(DateKin::Date, Period::Month, Format::Binary, &value, &mut Vec::new()).is_none());
        }
        let mut out = Vec::new();
        let moment = from_civil(1999, 5, 17) * DAY_MICROSECONDS + 1;
        generalize(DateKin::Timestamptz, Period::Year, Format::Binary, &moment.to_be_bytes(), &mut out).unwrap();
        let first = i64::from_be_bytes(out[..].try_into().unwrap());
        assert_eq!(first, from_civil(1999, 1, 1) * DAY_MICROSECONDS);
        for (kin, value) in [(DateKin::Date, &b"1234567"[..]), (DateKin::Timestamp, b"1234")] {
            assert!(generalize(kin, Period::Year, Format::Binary, value, &mut Vec::new()).is_none());
        }
    }
}
