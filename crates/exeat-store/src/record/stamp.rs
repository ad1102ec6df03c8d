//! The time of a line, to the microsecond. Lines come by the hundred thousand in a second: the part that names the
//! second is worded once.

use jiff::Timestamp;

const MICROSECONDS: i64 = 1_000_000;

/// Of `2026-11-21T03:10:17.`
const SECOND_BYTES: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Stamp {
    /// Appends the time now, as `2026-11-21T03:10:17.000123Z`.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>) {
        self.push_time(out, Timestamp::now());
    }

    fn push_time(&mut self, out: &mut Vec<u8>, now: Timestamp) {
        let microsecond = now.as_microsecond();
        let second = microsecond.div_euclid(MICROSECONDS);
        if self.second != Some(second) {
            self.text = format!("{now:.6}");
            self.text.truncate(SECOND_BYTES);
            self.second = Some(second);
        }
        out.extend_from_slice(self.text.as_bytes());
        let mut fraction = [b'0'; 6];
        let mut rest = microsecond.rem_euclid(MICROSECONDS);
        for digit in fraction.iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        out.extend_from_slice(&fraction);
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_jiff_words_them() {
        let mut stamp = Stamp::default();
        let mut moment = 1_795_230_617_999_990_i64;
        for step in (0..3000).map(|n| n * n % 700_001) {
            moment += step;
            for nanoseconds in [0, 1, 499, 500, 999] {
                let now = Timestamp::from_nanosecond(i128::from(moment) * 1000 + nanoseconds).unwrap();
                let mut out = Vec::new();
                stamp.push_time(&mut out, now);
                assert_eq!(String::from_utf8(out).unwrap(), format!("{now:.6}"));
            }
        }
    }
}
